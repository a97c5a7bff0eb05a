# -*- test-case-name: mailgate.test.keeper.test_history -*-
"""
The sums of the last minutes, for rates.
"""

from __future__ import annotations

from collections import deque

from mailgate.keeper.sums import Values

__all__ = ["KEPT", "TRAFFIC", "WATCHED", "History"]

KEPT = 300
"""The samples that are kept, one a second at most."""

WATCHED = (
    "mailgate_connections",
    "mailgate_logins",
    "mailgate_login_seconds",
)
"""The metrics that have rates and are in all reports."""

TRAFFIC = ("mailgate_relayed_bytes",)
"""Those that only answers to questions have in full."""

_APART = 1.0


class History:
    """Keeps samples of sums."""

    def __init__(self) -> None:
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

    def before(self, moment: float) -> tuple[float, Values] | None:
        """
        Return the last sample that is not later than a time, with its own time; the earliest one if there was none.
        L{None} if there is none at all.

        @param moment: the time in seconds.
        """
        return next((sample for sample in reversed(self._samples) if sample[0] <= moment), None) or next(
            iter(self._samples), None
        )

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
