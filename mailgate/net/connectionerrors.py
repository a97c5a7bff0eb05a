# -*- test-case-name: mailgate.test.net.test_connectionerrors -*-
"""
Why a connection to a backend or a service could not be made, or ended, in words for the log: Twisted's own are a class,
a number and the system's words in one.
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


def inWords(error: BaseException | None) -> str:
    """
    What C{error} says of the other side, as a phrase that begins with a verb: C{refused the connection}. It is empty
    where C{error} is not of a kind that the system or Twisted raises for a connection.
    """
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    if isinstance(error, ConnectionClosed):
        # The reason is in the text alone, by whichever transport.
        return "reset the connection" if "reset by peer" in str(error) else "dropped the connection"
    number = error.osError if isinstance(error, ConnectError) else getattr(error, "errno", None)
    if isinstance(number, int) and isinstance(error, ConnectError | OSError):
        return f"cannot be reached: {os.strerror(number)}"
    return ""
