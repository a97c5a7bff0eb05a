# -*- test-case-name: mailgate.test.watch.test_watcher -*-
"""
Counts what happens to the connections of one process, and keeps the stories of those that have ended until the keeper
gets them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailgate.interfaces import IWatch
from mailgate.login import Denial, Route
from mailgate.session import Session
from mailgate.watch.tally import Tally, Totals

__all__ = ["Watcher"]


@implementer(IWatch)
class Watcher:
    """
    Watches all connections of one process, those of all its gateways.

    @param clock: the time in seconds.
    @ivar tally: its counters and histograms.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.tally = Tally()

    def began(self, session: Session) -> None:
        """See L{IWatch.began}."""
        raise NotImplementedError

    def encrypted(self, session: Session, resumed: bool, failure: Any) -> None:
        """See L{IWatch.encrypted}."""
        raise NotImplementedError

    def judged(self, session: Session, answer: Route | Denial, seconds: float) -> None:
        """See L{IWatch.judged}."""
        raise NotImplementedError

    def attempted(
        self, session: Session, place: Any, error: Exception | None, connected: float | None, seconds: float
    ) -> None:
        """See L{IWatch.attempted}."""
        raise NotImplementedError

    def denied(self, session: Session, denial: Denial) -> None:
        """See L{IWatch.denied}."""
        raise NotImplementedError

    def relaying(self, session: Session) -> None:
        """See L{IWatch.relaying}."""
        raise NotImplementedError

    def ended(self, session: Session) -> None:
        """See L{IWatch.ended}."""
        raise NotImplementedError

    def totals(self) -> Totals:
        """Return the counters and histograms from the start of the process on. They never fall."""
        return self.tally.totals()

    def census(self, gateways: Sequence[Any]) -> Totals:
        """
        Return the gauges: the connections by phase and backend, and so on; and, as counters, the bytes of the relays
        that go on.

        @param gateways: the L{mailgate.service.Gateway}s of the process.
        """
        raise NotImplementedError

    def takeStories(self) -> list[dict[str, Any]]:
        """Return the stories of the connections and logins that have ended since the last call."""
        raise NotImplementedError
