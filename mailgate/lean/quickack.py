# -*- test-case-name: mailgate.test.lean.test_quickack -*-
"""
Which bytes of a client are acknowledged at once: those that get no answer at once.

A client without TCP_NODELAY that writes a command in two pieces, or a message and its end, keeps the second back until
the first has been acknowledged (RFC 896), and Linux waits 40 ms for an answer that the acknowledgement could go with.
TCP_QUICKACK (tcp(7)) makes it wait no longer, until the next answer is sent. To ask for that takes a system call, and
the acknowledgement a packet: a command that is answered is to cost neither. So the relay looks whether what has come
looks like a whole command. If it is wrong about that the client waits as it would have done, or a packet was needless.
"""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from typing import Any

from mailgate.lean.descriptors import ask

__all__ = [
    "BEGUN",
    "LINE_END",
    "LONGEST",
    "NEVER",
    "NOTHING",
    "SUSPECT",
    "acknowledge",
    "acknowledgeOn",
    "expectedAfter",
]

_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux's; other systems wait for no 40 ms, or have no such option."""

NEVER, NOTHING, ANNOUNCED, BEGUN = range(4)
"""
What is expected of a client: a command; what its last line has announced; the rest of something. L{NEVER} stands for
one who is no client: a backend's system acknowledges when it likes, as it does for a client without a gateway.
"""

LINE_END = ord("\n")
SUSPECT = b"}AaTt"
"""What stands before the CRLF of a line that announces more, or of one of many that do not."""

LONGEST = 1024
"""Bytes of a whole command, at most: more than that is a message, or a part of one."""

_ANNOUNCES = re.compile(rb"(?:\}|(?:\A|\n)(?:DATA|BDAT [0-9]+ LAST))\r\n\Z", re.IGNORECASE)
"""
The end of a line behind which a client goes on, asked to or not: a literal of IMAP (RFC 9051, section 4.3), a message
of SMTP, its last chunk (RFC 3030). Other chunks are as long as a command never is.
"""


def expectedAfter(expected: int, data: bytes | memoryview) -> int:
    """What is expected when C{data} have come from a client that had C{expected} before. Any answer ends L{BEGUN}."""
    if _ANNOUNCES.search(data[-LONGEST:]):
        return ANNOUNCED
    return BEGUN if expected > NOTHING or data[-1] != LINE_END or len(data) > LONGEST else NOTHING


def acknowledge(fd: int) -> None:
    """Have the system acknowledge what has been read from the socket C{fd}, where that can be asked for."""
    if _QUICKACK is not None:
        # A unix socket has no such option, and a peer may have gone.
        with suppress(OSError):
            ask(fd, socket.AF_INET, "setsockopt", socket.IPPROTO_TCP, _QUICKACK, 1)


def acknowledgeOn(transport: Any) -> None:
    """L{acknowledge} for the socket of C{transport}, which is ours or one of Twisted's; others have none."""
    if hasattr(transport, "fd"):
        if transport.connected:
            acknowledge(transport.fd)
        return
    held = getattr(transport, "socket", None)
    if held is not None and _QUICKACK is not None:
        with suppress(OSError):
            held.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
