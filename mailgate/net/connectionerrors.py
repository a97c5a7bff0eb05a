# -*- test-case-name: mailgate.test.net.test_connectionerrors -*-
"""
Words for the log on why a connection to a backend or a service could not be made, or ended. The texts of Twisted's
exceptions are too long for it.
"""

from __future__ import annotations

import os

from twisted.internet.error import (
    ConnectError,
    ConnectionClosed,
    ConnectionDone,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TCPTimedOutError,
    UnknownHostError,
)
from twisted.internet.error import TimeoutError as ConnectTimeout

__all__ = ["inWords"]

_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (ConnectionRefusedError, "refused the connection"),
    (NoRouteError, "cannot be reached: there is no route to its network"),
    (TCPTimedOutError, "cannot be reached: the connection attempt timed out"),
    (ConnectTimeout, "cannot be reached: the connection attempt timed out"),
    (DNSLookupError, "cannot be found: its name does not resolve"),
    (UnknownHostError, "cannot be found: its name does not resolve"),
    (ConnectionDone, "closed the connection"),
)


_RESET = "reset by peer"
"""What the system says of a reset."""


def inWords(error: BaseException | None) -> str:
    """
    Describe why a connection failed or ended.

    @param error: the exception.
    @return: a phrase with the other side as its subject, such as C{refused the connection}. Empty if C{error} is not an
        error of a connection.
    """
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    if isinstance(error, ConnectionClosed):
        # All transports have the reason only in the text.
        return "reset the connection" if _RESET in str(error) else "dropped the connection"
    number = error.osError if isinstance(error, ConnectError) else getattr(error, "errno", None)
    if isinstance(number, int) and isinstance(error, ConnectError | OSError):
        return f"cannot be reached: {os.strerror(number)}"
    return ""
