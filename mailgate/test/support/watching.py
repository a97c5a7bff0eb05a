"""
A watch that writes down what it receives, and a survey in one go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from mailgate.interfaces import IWatch
from mailgate.session import Session
from mailgate.watch.tally import Totals
from mailgate.watch.watcher import Watcher

__all__ = ["RecordingWatch", "surveyed"]


@implementer(IWatch)
class RecordingWatch:
    """
    Keeps the events in order.

    @ivar events: the names of the events, and their values without the session.
    @ivar sessions: the sessions of the events that have one, in order.
    """

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.sessions: list[Session] = []

    @property
    def names(self) -> list[str]:
        """The names of the events."""
        return [name for name, *_ in self.events]

    def valuesOf(self, event: str) -> list[tuple[Any, ...]]:
        """Return the values of each C{event}."""
        return [tuple(values) for name, *values in self.events if name == event]

    def _note(self, session: Session, name: str, *values: Any) -> None:
        self.sessions.append(session)
        self.events.append((name, *values))

    def began(self, session: Session) -> None:
        self._note(session, "began")

    def encrypted(self, session: Session, resumed: bool, failure: Any) -> None:
        self._note(session, "encrypted", resumed, failure)

    def asked(self, service: str, outcome: str, seconds: float) -> None:
        self.events.append(("asked", service, outcome, seconds))

    def cached(self, result: str) -> None:
        self.events.append(("cached", result))

    def attempted(self, session: Session, place: Any, error: Any, connected: float | None, seconds: float) -> None:
        self._note(session, "attempted", place, error, connected, seconds)

    def limited(self, rule: str, action: str) -> None:
        self.events.append(("limited", rule, action))

    def denied(self, session: Session, answer: Any) -> None:
        self._note(session, "denied", answer)

    def relaying(self, session: Session, seconds: float) -> None:
        self._note(session, "relaying", seconds)

    def ended(self, session: Session) -> None:
        self._note(session, "ended", session.outcome)


def surveyed(watcher: Watcher, gateways: Sequence[Any]) -> Totals:
    """Return the gauges of a survey of C{gateways}, all of whose steps are taken at once."""
    survey = watcher.survey(gateways)
    for _ in survey:
        pass
    return survey.gauges
