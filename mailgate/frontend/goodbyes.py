# -*- test-case-name: mailgate.test.frontend.test_goodbyes -*-
"""
The words of refusals and goodbyes that all protocols have in common.

With a goodbye the gateway ends a connection before the relay: IMAP's BYE (RFC 3501, section 7.1.5) and SMTP's
421 (RFC 5321, section 3.8). Both protocols require a goodbye before a server closes.
"""

from __future__ import annotations

from collections.abc import Mapping

from mailgate.login import Trouble

__all__ = ["goodbyes", "limitGoodbyes", "limitReplies"]

_GOODBYES: Mapping[Trouble, tuple[bytes, bytes]] = {
    Trouble.REFUSED: (b"4.7.0", b"Refused, closing connection"),
    Trouble.FAILURES: (b"4.7.0", b"Too many failed logins, closing connection"),
    Trouble.ERRORS: (b"4.7.0", b"Too many invalid commands, closing connection"),
    Trouble.COMMANDS: (b"4.7.0", b"Too many commands, closing connection"),
    Trouble.TOO_LONG: (b"4.5.2", b"Command too long, closing connection"),
    Trouble.ENDLESS: (b"4.5.4", b"Data of a refused command cannot be skipped, closing connection"),
    Trouble.EARLY: (b"4.5.0", b"Client spoke before the greeting, closing connection"),
    Trouble.INTERNAL: (b"4.3.0", b"Internal server error, closing connection"),
    Trouble.TIMEOUT: (b"4.4.2", b"Timeout, closing connection"),
    Trouble.CERTIFICATE: (b"4.7.1", b"SSL certificate error"),
    Trouble.NO_CERTIFICATE: (b"4.7.1", b"No required SSL certificate"),
    Trouble.STOPPING: (b"4.3.2", b"Gateway is shutting down, closing connection"),
}
"""For each trouble that ends a connection: the enhanced status code (RFC 3463) and the text."""


def goodbyes(form: bytes) -> dict[Trouble, bytes]:
    """
    Return a line for each trouble that ends a connection.

    @param form: the line with the places C{%(text)b} and C{%(status)b}.
    """
    return {trouble: form % {b"status": status, b"text": text} for trouble, (status, text) in _GOODBYES.items()}


_LIMITS: Mapping[Trouble, bytes] = {
    Trouble.TOO_MANY: b"Too many connections",
    Trouble.TOO_FAST: b"Too many logins",
    **dict.fromkeys((Trouble.SESSIONS, Trouble.BUSY, Trouble.BLOCKED, Trouble.HELD), b"Service not available"),
}


def limitGoodbyes(form: bytes) -> dict[Trouble, bytes]:
    """
    Return a line for each limit that ends a connection, perhaps instead of the greeting. The same limits have other
    words where they refuse a login.

    @param form: the line with the place C{%b} for the text.
    """
    return {trouble: form % text for trouble, text in _LIMITS.items()}


def limitReplies(later: bytes) -> dict[Trouble, bytes]:
    """
    Return the reply to a login for each limit. It must not say that the password is wrong: clients then ask their user
    for another one, or delete it.

    @param later: the reply.
    """
    return dict.fromkeys(_LIMITS, later)
