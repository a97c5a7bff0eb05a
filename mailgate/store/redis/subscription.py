# -*- test-case-name: mailgate.test.store.test_faults -*-
"""
Hears the messages of other gateways, over a connection of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailgate.store.redis.opening import Opening

__all__ = ["ASKED", "PAUSES", "Subscription"]

ASKED = 2.0
"""Seconds between two questions whether the connection lives. It is made anew if there is no answer for so long."""

PAUSES = (0.0, 0.2, 1.0, 5.0)
"""Seconds before each attempt to connect again; the last one is that of all further attempts."""


class Subscription:
    """
    Listens to channels.

    @param opening: makes the connections.
    @param clock: the time and timers.
    @param channels: what it listens to.
    @ivar heard: called with the channel and the bytes of each message.
    @ivar resumed: called whenever messages are heard from now on.
    @ivar isListening: whether they are.
    """

    def __init__(self, opening: Opening, clock: Any, channels: Sequence[str]) -> None:
        self.heard: Callable[[str, bytes], object] = lambda channel, message: None
        self.resumed: Callable[[], object] = lambda: None
        self.isListening = False
        self._opening = opening
        self._clock = clock
        self._channels = {channel.encode("utf-8"): channel for channel in channels}
        self._link: Any = None
        self._attempt: Deferred[Any] | None = None
        self._timer: Any = None
        self._tries = 0
        self._runs = False

    def start(self) -> None:
        """Connect, and connect again whenever the connection is lost."""
        if not self._runs and self._channels:
            self._runs = True
            self._tries = 0
            self._connect()

    def stop(self) -> None:
        """Disconnect."""
        self._runs = self.isListening = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _connect(self) -> None:
        self._timer = None
        self._attempt = self._opening.plain()
        self._attempt.addCallbacks(self._connected, self._failed)

    def _connected(self, link: Any) -> None:
        self._attempt = None
        if not self._runs:
            link.close()
            return
        self._link = link
        link.lost = self._lost
        link.listen(self._happened)
        link.within(ASKED)
        for channel in self._channels:
            link.send((b"SUBSCRIBE", channel)).addErrback(self._refused)
        # Commands are answered in their order: with this one, all before it have been.
        link.send((b"PING",)).addCallbacks(self._listens, self._refused)

    def _listens(self, _: object) -> None:
        self._tries = 0
        self.isListening = True
        self._timer = self._clock.callLater(ASKED, self._ask)
        self.resumed()

    def _ask(self) -> None:
        self._timer = self._clock.callLater(ASKED, self._ask)
        self._link.send((b"PING",)).addErrback(self._refused)

    def _happened(self, channel: bytes, message: bytes) -> None:
        name = self._channels.get(channel)
        if name is not None:
            self.heard(name, message)

    def _refused(self, failure: Failure) -> None:
        if self._link is not None:
            self._link.close()

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        self._again()

    def _lost(self, reason: str) -> None:
        self._link = None
        self.isListening = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self._again()

    def _again(self) -> None:
        if self._runs:
            pause = PAUSES[min(self._tries, len(PAUSES) - 1)]
            self._tries += 1
            self._timer = self._clock.callLater(pause, self._connect)
