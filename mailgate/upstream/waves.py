# -*- test-case-name: mailgate.test.upstream.test_waves -*-
"""
Paces the clients of a backend that has failed or is taken down. If all of them noticed it at once, all of them would
log in again at once, at the backends that are left. This is Dovecot's C{login_proxy_max_disconnect_delay}.

All here is arithmetic: the caller says what time it is, and waits.
"""

from __future__ import annotations

from math import ceil, floor

__all__ = ["STEP", "Delay", "Wave", "offset"]

STEP = 0.1
"""Seconds to which moments are rounded down, so that one timer serves several sessions."""

WINDOW = 1.0
"""The shortest time in seconds that a wave lasts: what may go at once, may go once in this time."""


def offset(place: int, total: int, longest: float) -> float:
    """
    Return how many seconds after the start a session is let go. As many as must go in a second go at once.

    @param place: the number of the session, from 1.
    @param total: the number of sessions.
    @param longest: the seconds over which they are spread.
    """
    if longest <= 0 or place <= ceil(total / longest):
        return 0.0
    # The small number is for quotients such as 0.3 / 0.1.
    return floor(longest * place / total / STEP + 1e-6) * STEP


class Delay:
    """
    One session that waits.

    @ivar moment: when its client is let go, in seconds of the clock that the wave uses.
    """

    __slots__ = ("_wave", "moment")

    def __init__(self, wave: Wave, moment: float) -> None:
        """
        @param wave: the wave that it is part of.
        @param moment: see C{moment}.
        """
        self._wave = wave
        self.moment = moment

    def over(self) -> None:
        """The session no longer waits. Call this once."""
        self._wave.delayed -= 1


class Wave:
    """
    The sessions that one backend loses in a row.

    @ivar delayed: how many of them wait.
    """

    def __init__(self, start: float, longest: float) -> None:
        """
        @param start: the time in seconds at which the first one is lost.
        @param longest: the seconds over which clients are let go.
        """
        self._start = start
        self._longest = longest
        self._lost = 0
        self.delayed = 0

    def isOver(self, now: float) -> bool:
        """
        Return whether the next loss begins another wave.

        @param now: the time in seconds.
        """
        return not self.delayed and not self._start <= now < self._start + WINDOW

    def lost(self, now: float, left: int) -> Delay | None:
        """
        Count a lost session.

        @param now: the time in seconds.
        @param left: the number of sessions that the backend still has.
        @return: L{None} if its client may go at once.
        """
        self._lost += 1
        moment = self._start + offset(self._lost, left + self._lost, self._longest)
        if moment <= now:
            return None
        self.delayed += 1
        return Delay(self, moment)
