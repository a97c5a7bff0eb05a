# -*- test-case-name: mailgate.test.protocols.sieve.test_strings -*-
"""
The strings of ManageSieve (RFC 5804, section 4): quoted strings and literals.
"""

from __future__ import annotations

import re

__all__ = ["LONGEST_LITERAL", "LONGEST_QUOTED", "isQuotable", "quoted", "string", "unquoted"]

LONGEST_QUOTED = 1024
"""The most octets between the quotes of a quoted string (RFC 5804, section 4, and its erratum 2655)."""

LONGEST_LITERAL = 2**32 - 1
"""The most octets of a literal (RFC 5804, section 4)."""

_SPECIAL = re.compile(rb'["\\]')
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")
_UNQUOTABLE = re.compile(rb"[\0\r\n]")
_SPLIT_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\\Z")


def unquoted(inside: bytes) -> bytes:
    """
    Return the text of a quoted string.

    @param inside: what is between its quotes.
    """
    return _ESCAPED.sub(rb"\1", inside) if b"\\" in inside else inside


def isQuotable(text: bytes) -> bool:
    """Return whether a quoted string can hold C{text}."""
    if len(text) > LONGEST_QUOTED or _UNQUOTABLE.search(text):
        return False
    return len(_SPECIAL.sub(rb"\\\g<0>", text)) <= LONGEST_QUOTED


def string(text: bytes) -> bytes:
    """
    Return C{text} as a server sends it: a quoted string, or a literal if no quoted string can hold it.

    @param text: bytes without NUL.
    """
    if isQuotable(text):
        return b'"' + _SPECIAL.sub(rb"\\\g<0>", text) + b'"'
    return b"{%d}\r\n%b" % (len(text), text)


def quoted(text: bytes) -> bytes:
    """
    Return the text of another server or service as a quoted string for a client. Control characters become blanks. It
    is cut where it is longer than a quoted string may be, between two characters.

    @param text: UTF-8. Other bytes are read as Latin-1.
    """
    try:
        characters = text.decode("utf-8")
    except UnicodeDecodeError:
        characters = text.decode("latin-1")
    inside = _SPECIAL.sub(rb"\\\g<0>", _CONTROLS.sub(" ", characters).strip().encode("utf-8"))
    if len(inside) > LONGEST_QUOTED:
        inside = _SPLIT_ESCAPE.sub(b"", inside[:LONGEST_QUOTED])
        inside = inside.decode("utf-8", "ignore").encode("utf-8")
    return b'"' + inside + b'"'
