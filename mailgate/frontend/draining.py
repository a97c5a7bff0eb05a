# -*- test-case-name: mailgate.test.frontend.test_draining -*-
"""
Drains connections at a reload, an upgrade or a stop: the gateway ends those before login with a goodbye at once, and
proxied sessions after a timeout, spread over time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, inf
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mailgate.directives import directive, seconds
from mailgate.interfaces import IConnection
from mailgate.login import Trouble
from mailgate.session import Outcome, Phase

__all__ = ["DrainSettings", "Draining"]


@frozen
class DrainSettings:
    """nginx's C{worker_shutdown_timeout}, in seconds. 0 waits without a limit, as in nginx."""

    shutdownTimeout: float = directive("worker_shutdown_timeout", seconds, 0.0)

    @property
    def patience(self) -> float | None:
        """The timeout in seconds for L{Draining.begin}; L{None} is no limit."""
        return self.shutdownTimeout or None


STEP = 0.1
"""Seconds between two batches of connections that are ended."""

GRACE = 1.5
"""Seconds that ended connections have to send their last bytes and to close TLS."""

LAST_MOMENTS = 0.5
"""Seconds to wait until aborted connections are closed."""


class Draining:
    """
    Ends the connections of several listeners, those that log in meanwhile included.

    @param factories: L{mailgate.frontend.factory.ProxyServerFactory} objects.
    @param clock: the time in seconds, and timers.
    @ivar cut: how many proxied sessions the gateway has ended.
    @ivar hasBegun: whether the gateway drains.
    """

    _log = Logger("mailgate")

    def __init__(self, factories: Sequence[Any], clock: IReactorTime) -> None:
        self._factories = factories
        self._clock = clock
        self._waiting: list[Deferred[int]] = []
        self._timer: IDelayedCall | None = None
        self._due = self._end = inf
        self._leaving: IDelayedCall | None = None
        self._now = False
        self.cut = 0
        self.hasBegun = False

    def begin(self, farewell: bool, patience: float | None, pace: float) -> Deferred[int]:
        """
        Drain: wait until no connection is left.

        It may be called again while it runs; then the earlier deadline counts. A second call with C{patience} and
        C{pace} 0 aborts all connections.

        @param farewell: whether connections before login get a goodbye and end at once.
        @param patience: seconds after which the gateway ends the remaining connections; L{None} waits without a limit.
        @param pace: seconds over which it spreads these ends.
        @return: a Deferred that fires with C{cut} when no connection is left.
        """
        self.hasBegun = True
        drained: Deferred[int] = Deferred()
        self._waiting.append(drained)
        for factory in self._factories:
            factory.emptied = self._emptied
        if farewell:
            for connection in list(self._connections()):
                if connection.session.phase is not Phase.RELAY:
                    self._dismiss(connection)
        if patience is not None:
            self._hurry(patience, pace)
        if patience == pace == 0:
            if self._now:
                self._stop()
            self._now = True
        self._look()
        return drained

    def _connections(self) -> Iterator[IConnection]:
        for factory in self._factories:
            yield from factory.connections

    def _hurry(self, patience: float, pace: float) -> None:
        now = self._clock.seconds()
        self._due = min(self._due, now + patience)
        self._end = min(self._end, self._due + pace, now + patience + pace)
        if self._due <= now:
            self._cut()
        elif self._timer is None or self._timer.getTime() > self._due:
            self._call(self._due - now, self._cut)

    def _call(self, delay: float, what: Any) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._clock.callLater(delay, what)

    def _cut(self) -> None:
        """End the next batch."""
        left = [connection for connection in self._connections() if connection.session.outcome is None]
        steps = max(1, ceil((self._end - self._clock.seconds()) / STEP))
        for connection in left[: ceil(len(left) / steps)]:
            self.cut += connection.session.phase is Phase.RELAY
            self._dismiss(connection)
        if steps > 1 and left:
            self._call(STEP, self._cut)
        else:
            self._call(GRACE, self._stop)

    def _dismiss(self, connection: IConnection) -> None:
        try:
            connection.dismiss(Outcome.STOPPED, Trouble.STOPPING)
        except Exception:
            # The other connections must end as well.
            self._log.failure("closing a connection failed")

    def _stop(self) -> None:
        for connection in list(self._connections()):
            connection.stop()
        self._call(LAST_MOMENTS, self._finish)

    def _emptied(self) -> None:
        # Later: the factory that calls this has not finished its own work.
        if self._leaving is None and not any(True for _ in self._connections()):
            self._leaving = self._clock.callLater(0, self._look)

    def _look(self) -> None:
        if not any(True for _ in self._connections()):
            self._finish()
        elif self._leaving is not None and not self._leaving.active():
            self._leaving = None

    def _finish(self) -> None:
        for call in (self._timer, self._leaving):
            if call is not None and call.active():
                call.cancel()
        self._timer = self._leaving = None
        self._due = self._end = inf
        self._now = False
        for factory in self._factories:
            factory.emptied = None
        waiting, self._waiting = self._waiting, []
        for drained in waiting:
            drained.callback(self.cut)
