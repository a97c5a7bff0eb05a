# -*- test-case-name: mailgate.test.process.workers.test_outbox -*-
"""
The sending end of the channel between a zygote and a worker. Neither process ever waits for the other.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

from mailgate.process.workers.messages import Announce, ControlError, Message, Query, Reply, encode

__all__ = ["MOST_UNSENT", "Outbox"]

MOST_UNSENT = 8 * 1024 * 1024
"""
Bytes that wait to be sent. Beyond that, notices, questions and answers are dropped; orders and reports are not. Neither
is a notice that returns to the worker that has published it, which waits for it.
"""


class Outbox:
    """
    Sends messages at once, and keeps what the channel does not take.

    @param channel: the channel. It must not block.
    @param watch: called with whether L{flush} must be called when the channel takes bytes again.
    """

    def __init__(self, channel: socket.socket, watch: Callable[[bool], object]) -> None:
        self._channel = channel
        self._watch = watch
        self._unsent = bytearray()
        self._isBroken = False
        self._waits = False

    def send(self, message: Message) -> bool:
        """
        Send a message.

        @param message: the message.
        @return: whether it was sent, or will be unless the other process exits.
        """
        if self._isBroken:
            return False
        isDroppable = isinstance(message, Query | Reply) or (isinstance(message, Announce) and message.slot is None)
        if isDroppable and len(self._unsent) > MOST_UNSENT:
            return False
        try:
            self._unsent += encode(message)
        except ControlError:
            return False
        if not self._waits:
            self.flush()
        return True

    def flush(self) -> None:
        """Send what the channel takes."""
        try:
            while self._unsent:
                del self._unsent[: self._channel.send(self._unsent)]
        except BlockingIOError:
            self._wait(True)
            return
        except OSError:
            # The other process has exited, or exits.
            self._isBroken = True
            self._unsent.clear()
        self._wait(False)

    def _wait(self, waits: bool) -> None:
        if waits != self._waits:
            self._waits = waits
            self._watch(waits)

    def finish(self, seconds: float) -> None:
        """
        Send the rest before this process exits. This is the only call that waits.

        @param seconds: how long it may wait.
        """
        if self._unsent:
            with suppress(OSError):
                self._channel.settimeout(seconds)
                self._channel.sendall(self._unsent)
            self._unsent.clear()
