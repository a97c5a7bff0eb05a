# -*- test-case-name: mailgate.test.test_login -*-
"""
Checks texts of the network before they become part of a line of a mail protocol.
"""

from __future__ import annotations

import re

__all__ = ["fitForWire", "fitText"]

_FORBIDDEN = re.compile(rb"[\r\n\0]")
"""Bytes that end a line or a string in a mail protocol."""

_UNFIT = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""Control characters, except for the tabulator."""


def fitForWire(*texts: bytes | None) -> bool:
    """
    Check texts before they become part of a line of a mail protocol.

    @param texts: the texts; L{None} counts as empty.
    @return: whether no text holds CR, LF or NUL, which would end the line or the string too early.
    """
    return _FORBIDDEN.search(b"".join(filter(None, texts))) is None


def fitText(text: bytes) -> bytes | None:
    """
    Convert the text of another service or server for a line to a client.

    @param text: UTF-8 (RFC 9051, 6531, 6856). Other bytes are read as Latin-1.
    @return: the text in UTF-8, or L{None} if it holds a control character other than the tabulator.
    """
    if _UNFIT.search(text):
        return None
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1").encode("utf-8")
    return text
