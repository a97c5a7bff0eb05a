# -*- test-case-name: mailgate.test.test_login -*-
"""
Checks texts of the network before they become part of a line of a mail protocol.
"""

from __future__ import annotations

import re

__all__ = ["fitForWire", "fitText", "sieveCode"]

_FORBIDDEN = re.compile(rb"[\r\n\0]")
"""Bytes that end a line or a string in a mail protocol."""

_UNFIT = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""Control characters, except for the tabulator."""

_SIEVE_CODE = re.compile(
    rb"(AUTH-TOO-WEAK|ENCRYPT-NEEDED|TRANSITION-NEEDED|TRYLATER(?:/NORETRY)?|LIMIT(?:/CONNECTIONS)?|REFERRAL"
    rb'(?= "))( "sieve://[!#-\[\]-~]{1,500}")?',
    re.IGNORECASE,
)
"""
Response codes of ManageSieve for a refused login (RFC 5804, section 1.3, and two of Dovecot's).
"""


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


def sieveCode(code: bytes | None) -> bytes:
    """
    Return a response code of ManageSieve (RFC 5804, section 1.3) that a refused login may have, without parentheses.

    @param code: what another service or server has sent: C{TRYLATER}, or C{REFERRAL "sieve://host"}.
    @return: the code with its word in capitals; empty if C{code} is none that is known.
    """
    match = _SIEVE_CODE.fullmatch(code or b"")
    if match is None or (match[2] is not None) is not (match[1].upper() == b"REFERRAL"):
        return b""
    return match[1].upper() + (match[2] or b"")
