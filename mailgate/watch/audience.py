# -*- test-case-name: mailgate.test.watch.test_audience -*-
"""
Passes the events of connections on to the watch of an application, whose exceptions must not end a session.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from mailgate.interfaces import IWatch
from mailgate.log.journal import Journal
from mailgate.login import Denial, Refusal
from mailgate.session import Session

__all__ = ["Audience", "watchOf"]


@implementer(IWatch)
class Audience:
    """
    Two watches as one.

    @param own: the gateway's own; L{None} if it has none.
    @param application: that of the application. Its exceptions are logged.
    @param journal: the log.
    @ivar readsTimes: as of L{mailgate.watch.watcher.Watcher}.
    """

    def __init__(self, own: IWatch | None, application: IWatch, journal: Journal) -> None:
        self._own = own
        self.readsTimes = own is not None
        self._application = application
        self._journal = journal

    def began(self, session: Session) -> None:
        self._pass("began", session)

    def encrypted(self, session: Session, resumed: bool, failure: Any) -> None:
        self._pass("encrypted", session, resumed, failure)

    def asked(self, service: str, outcome: str, seconds: float) -> None:
        self._pass("asked", service, outcome, seconds)

    def cached(self, result: str) -> None:
        self._pass("cached", result)

    def attempted(
        self, session: Session, place: Any, error: Exception | None, connected: float | None, seconds: float
    ) -> None:
        self._pass("attempted", session, place, error, connected, seconds)

    def limited(self, rule: str, action: str) -> None:
        if self._own is not None:
            self._own.limited(rule, action)
        # Those of earlier releases lack it.
        if hasattr(self._application, "limited"):
            self._tell("limited", rule, action)

    def denied(self, session: Session, answer: Denial | Refusal | None) -> None:
        self._pass("denied", session, answer)

    def relaying(self, session: Session, seconds: float) -> None:
        self._pass("relaying", session, seconds)

    def ended(self, session: Session) -> None:
        self._pass("ended", session)

    def _pass(self, event: str, *values: Any) -> None:
        if self._own is not None:
            getattr(self._own, event)(*values)
        self._tell(event, *values)

    def _tell(self, event: str, *values: Any) -> None:
        try:
            getattr(self._application, event)(*values)
        except Exception:
            self._journal.failure("the watch of the application failed at {event}", event=event)


def watchOf(own: IWatch | None, application: IWatch | None, journal: Journal) -> IWatch | None:
    """
    Return what receives the events of a gateway: L{None} if nothing does.

    @param own: the gateway's own watch, or L{None}.
    @param application: that of the application, or L{None}.
    @param journal: the log.
    @raise TypeError: C{application} lacks methods of L{IWatch}.
    """
    if application is None:
        return own
    # Those of earlier releases lack "limited".
    missing = [name for name in IWatch if name != "limited" and not callable(getattr(application, name, None))]
    if missing:
        raise TypeError(f"{type(application).__name__} is no IWatch: it has no {', '.join(sorted(missing))}")
    return Audience(own, application, journal)
