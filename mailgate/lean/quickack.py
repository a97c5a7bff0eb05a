# -*- test-case-name: mailgate.test.lean.test_quickack -*-
"""
Decides which bytes of a client to acknowledge at once: those that get no immediate answer.

A client without TCP_NODELAY that writes a command in two pieces, or a message and its end, holds the second piece back
until the first is acknowledged (RFC 896). Linux delays an acknowledgement by up to 40 ms, to send it with an answer.
TCP_QUICKACK (tcp(7)) disables this delay until the next answer is sent. It costs a system call and a packet, which a
command that is answered should not cost. So the relay checks whether the bytes look like a whole command. If it guesses
wrong, the client waits as it would have anyway, or one packet is unnecessary.
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
"""Linux's option. Other systems have no such delay, or no such option."""

NEVER, NOTHING, ANNOUNCED, BEGUN = range(4)
"""
What a client is expected to send: a command; what its last line announced; the rest of something. L{NEVER} is for
backends, which are acknowledged without TCP_QUICKACK, as by a client without a gateway.
"""

LINE_END = ord("\n")
SUSPECT = b"}AaTt"
"""The characters before the CRLF of lines that announce more data, and of some other lines."""

LONGEST = 1024
"""The most bytes of a whole command. More bytes are a message, or a part of one."""

_ANNOUNCES = re.compile(rb"(?:\}|(?:\A|\n)(?:DATA|BDAT [0-9]+ LAST))\r\n\Z", re.IGNORECASE)
"""
The end of a line after which a client sends more than a command, with or without a reply in between: an IMAP literal
(RFC 9051, section 4.3), an SMTP message, its last chunk (RFC 3030). Other chunks are longer than any command.
"""


def expectedAfter(expected: int, data: bytes | memoryview) -> int:
    """
    The new state of a client. Any answer ends L{BEGUN}.

    @param expected: the previous state.
    @param data: what has arrived from the client.
    """
    if _ANNOUNCES.search(data[-LONGEST:]):
        return ANNOUNCED
    return BEGUN if expected > NOTHING or data[-1] != LINE_END or len(data) > LONGEST else NOTHING


def acknowledge(fd: int) -> None:
    """Make the system acknowledge at once what was read from the socket C{fd}, if it supports that."""
    if _QUICKACK is not None:
        # A unix socket has no such option, and the connection may be closed already.
        with suppress(OSError):
            ask(fd, socket.AF_INET, "setsockopt", socket.IPPROTO_TCP, _QUICKACK, 1)


def acknowledgeOn(transport: Any) -> None:
    """Call L{acknowledge} for the socket of C{transport}, which may be a C{StreamTransport} or one of Twisted's."""
    if hasattr(transport, "fd"):
        if transport.connected:
            acknowledge(transport.fd)
        return
    held = getattr(transport, "socket", None)
    if held is not None and _QUICKACK is not None:
        with suppress(OSError):
            held.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
