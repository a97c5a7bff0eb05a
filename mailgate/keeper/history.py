# -*- test-case-name: mailgate.test.keeper.test_history -*-
"""
The sums of the last minutes, for rates.
"""

from __future__ import annotations

from collections import deque

from mailgate.keeper.sums import Values

__all__ = ["KEPT", "WATCHED", "WIDE", "History"]

KEPT = 300
"""The samples that are kept, one a second at most."""

WATCHED = (
    "mailgate_connections",
    "mailgate_logins",
    "mailgate_relayed_bytes",
    "mailgate_login_seconds",
)
"""The metrics of the whole gateway that have rates."""

WIDE = (
    "mailgate_auth_cache",
    "mailgate_auth_seconds",
    "mailgate_backend_connect_seconds",
    "mailgate_backend_login_seconds",
    "mailgate_limited",
)
"""The metrics of single backends, services and limits that have rates. They are many, so they have fewer samples."""

_APART = 1.0
_WIDE_APART = 5.0
_WIDE_KEPT = 16
"""The samples of L{WIDE} that are kept: those of more than a minute."""


class History:
    """Keeps samples of the sums of L{WATCHED} and of L{WIDE}."""

    def __init__(self) -> None:
        self._wide: deque[tuple[float, Values]] = deque(maxlen=_WIDE_KEPT)
        self._samples: deque[tuple[float, Values]] = deque(maxlen=KEPT)

    def isDue(self, now: float) -> bool:
        """
        Return whether it is time for a sample.

        @param now: the time in seconds.
        """
        # The system's clock may be set back.
        return not self._samples or abs(now - self._samples[-1][0]) >= _APART

    def add(self, now: float, values: Values) -> None:
        """
        Add a sample.

        @param now: the time in seconds.
        @param values: the sums.
        """
        if self._samples and now < self._samples[-1][0]:
            self._samples.clear()
        self._samples.append((now, values))

    def since(self, moment: float) -> tuple[float, Values] | None:
        """
        Return the sample that was current at a time, with its time; the earliest one if there was none. L{None} if
        there is none at all. Sums that do not change have no new samples.

        @param moment: the time in seconds.
        """
        found: tuple[float, Values] | None = None
        for sample in reversed(self._samples):
            found = sample
            if sample[0] <= moment:
                return moment, sample[1]
        return found

    def isWideDue(self, now: float) -> bool:
        """
        Return whether it is time for a sample of L{WIDE}.

        @param now: the time in seconds.
        """
        return not self._wide or abs(now - self._wide[-1][0]) >= _WIDE_APART

    def addWide(self, now: float, values: Values) -> None:
        """
        Add a sample of L{WIDE}.

        @param now: the time in seconds.
        @param values: the sums.
        """
        if self._wide and now < self._wide[-1][0]:
            self._wide.clear()
        self._wide.append((now, values))

    def wideSince(self, moment: float) -> tuple[float, Values] | None:
        """
        Return the latest sample of L{WIDE} that is not later than a time, with its own time; the earliest one if all
        are. L{None} if there is none at all.

        @param moment: the time in seconds.
        """
        found: tuple[float, Values] | None = None
        for sample in reversed(self._wide):
            found = sample
            if sample[0] <= moment:
                break
        return found
