# -*- test-case-name: mailgate.test.frontend.test_text -*-
"""
Words, quoted strings and literals on the lines of mail protocols, and texts that fit on them.
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
"""More bytes than any client sends. A number with more digits is not looked at."""


@frozen
class Literal:
    """C{{octets}}, or C{{octets+}} which is not waited for: as many bytes follow the line."""

    octets: int
    synchronizing: bool


def splitArguments(rest: bytes) -> list[bytes]:
    """The words of C{rest}; nothing but blanks parts them."""
    return [word for word in rest.split(b" ") if word]


def quotedAt(line: bytes, position: int) -> tuple[bytes, int] | None:
    """The text of the quoted string at C{position} of C{line}, and where it ends; L{None} where none is whole there."""
    match = _QUOTED.match(line, position)
    return None if match is None else (_ESCAPED.sub(rb"\1", match[1]), match.end())


def literalAt(line: bytes, position: int) -> Literal | None:
    """The literal that begins at C{position} of C{line}, with which that has to end; L{None} where there is none."""
    match = _LITERAL.match(line, position)
    return None if match is None else Literal(int(match[1] or 0), not match[2])


def literalAtEnd(line: bytes) -> Literal | None:
    """The literal that C{line}, of any command, ends in."""
    match = _ANY_LITERAL.search(line)
    if match is None:
        return None
    return Literal(int(match[1]) if len(match[1]) <= 20 else _ENDLESS, not match[2])


def acceptableText(denial: Denial) -> bytes | None:
    """The authentication service's text of a refusal, unless it is not L{fitText}."""
    if denial.trouble is not Trouble.DENIED or not denial.text:
        return None
    return fitText(denial.text)
