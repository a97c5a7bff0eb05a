# -*- test-case-name: mailgate.test.log.test_outage -*-
"""
Outages of backends and authentication services. The log says once that one has begun and once that it is over, so that
the lines about single logins in between need not be errors.
"""

from __future__ import annotations

from mailgate.log.journal import Journal
from mailgate.log.seldom import Seldom

__all__ = ["Outage"]


class Outage:
    """
    The outages of one backend or service, one after another. If it fails and answers in turn, one outage per minute is
    logged (L{mailgate.log.seldom.PERIOD}).

    @ivar isOn: whether an outage has been logged and is not over.
    @ivar journals: the logs that mention it. Servers may have a log of their own.
    """

    __slots__ = ("_logins", "_seldom", "_since", "isOn", "journals")

    def __init__(self) -> None:
        self.isOn = False
        self.journals: list[Journal] = []
        self._logins = 0
        self._since = 0.0
        self._seldom = Seldom()

    def failed(self, now: float) -> bool:
        """
        Count a login that has failed.

        @param now: the time in seconds.
        @return: whether an outage begins that is to be logged.
        """
        if self.isOn:
            self._logins += 1
            return False
        if not self._seldom.isDue(now):
            return False
        self.isOn, self._since, self._logins = True, now, 1
        self.journals = []
        return True

    def isKnownTo(self, journal: Journal) -> bool:
        """
        Return whether a log mentions the outage that is on. From now on it does.

        @param journal: the log.
        """
        if journal in self.journals:
            return True
        self.journals.append(journal)
        return False

    def over(self, now: float) -> tuple[int, int]:
        """
        End the outage: a login has succeeded. Call this only while C{isOn}.

        @param now: the time in seconds.
        @return: how many seconds the outage has lasted, and how many logins have failed.
        """
        self.isOn = False
        return round(max(0.0, now - self._since)), self._logins
