# -*- test-case-name: mailgate.test.frontend.test_text -*-
"""
Parses words, quoted strings and literals in lines of mail protocols, and selects texts that fit on a line.
"""

from __future__ import annotations

import re

from attrs import frozen

from mailgate.login import Denial, Trouble, fitText

__all__ = ["Literal", "acceptableText", "literalAt", "literalAtEnd", "quotedAt", "splitArguments"]

_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(rb"\\(.)")
_LITERAL = re.compile(rb"\{(\d{0,10})(\+?)\}$")
_ANY_LITERAL = re.compile(rb"\{(\d+)(\+?)\}$")
_ENDLESS = 10**20
"""Stands for any number with more than 20 digits, which is not parsed."""


@frozen
class Literal:
    """
    The announcement of a literal at the end of a line (RFC 3501, section 4.3; RFC 7888).

    @ivar octets: the number of bytes that follow the line.
    @ivar synchronizing: whether the client waits for a continuation request; not with C{{octets+}}.
    """

    octets: int
    synchronizing: bool


def splitArguments(rest: bytes) -> list[bytes]:
    """Return the words of C{rest}. Only blanks separate them."""
    return [word for word in rest.split(b" ") if word]


def quotedAt(line: bytes, position: int) -> tuple[bytes, int] | None:
    """
    Parse a quoted string (RFC 3501, section 4.3).

    @param line: the line.
    @param position: where the string begins in C{line}.
    @return: the text without escapes, and the position after it; L{None} without a complete string.
    """
    match = _QUOTED.match(line, position)
    return None if match is None else (_ESCAPED.sub(rb"\1", match[1]), match.end())


def literalAt(line: bytes, position: int) -> Literal | None:
    """
    Parse the announcement of a literal, which must end the line.

    @param line: the line.
    @param position: where it begins in C{line}.
    @return: L{None} without one.
    """
    match = _LITERAL.match(line, position)
    return None if match is None else Literal(int(match[1] or 0), not match[2])


def literalAtEnd(line: bytes) -> Literal | None:
    """Return the literal that the end of C{line} announces, or L{None}."""
    match = _ANY_LITERAL.search(line)
    if match is None:
        return None
    return Literal(int(match[1]) if len(match[1]) <= 20 else _ENDLESS, not match[2])


def acceptableText(denial: Denial) -> bytes | None:
    """
    Return the authentication service's text of a refusal; L{None} if it does not fit on a line.

    @param denial: the refusal. Only refused credentials have a text.
    """
    if denial.trouble is not Trouble.DENIED or not denial.text:
        return None
    return fitText(denial.text)
