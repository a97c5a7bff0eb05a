# -*- test-case-name: mailgate.test.keeper.test_stats -*-
"""
The sums of the last minutes, for rates.
"""

from __future__ import annotations

from collections import deque

from mailgate.keeper.sums import Values

__all__ = ["KEPT", "WATCHED", "WIDE", "WIDE_APART", "WIDE_KEPT", "History"]

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

WIDE_KEPT = 16
"""The samples of L{WIDE} that are kept: those of more than a minute."""

WIDE_APART = 5.0
"""Seconds between two samples of L{WIDE}."""


class History:
    """
    Keeps samples of sums.

    @param kept: how many.
    @param apart: seconds between two.
    """

    def __init__(self, kept: int = KEPT, apart: float = 1.0) -> None:
        self._apart = apart
        self._samples: deque[tuple[float, Values]] = deque(maxlen=kept)

    def isDue(self, now: float) -> bool:
        """
        Return whether it is time for a sample.

        @param now: the time in seconds.
        """
        # The system's clock may be set back.
        return not self._samples or abs(now - self._samples[-1][0]) >= self._apart

    def add(self, now: float, values: Values) -> None:
        """
        Add a sample.

        @param now: the time in seconds.
        @param values: the sums.
        """
        if self._samples and now < self._samples[-1][0]:
            self._samples.clear()
        self._samples.append((now, values))

    def latest(self, moment: float) -> tuple[float, Values] | None:
        """
        Return the latest sample that is not later than a time, with its own time; the earliest one if all are. L{None}
        if there is none at all.

        @param moment: the time in seconds.
        """
        found: tuple[float, Values] | None = None
        for sample in reversed(self._samples):
            found = sample
            if sample[0] <= moment:
                break
        return found

    def since(self, moment: float) -> tuple[float, Values] | None:
        """
        Return the sample that was current at a time, with its time; the earliest one if there was none. L{None} if
        there is none at all. Sums that do not change have no new samples.

        @param moment: the time in seconds.
        """
        found = self.latest(moment)
        return found if found is None else (max(found[0], moment), found[1])
