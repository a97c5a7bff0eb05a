# -*- test-case-name: mailgate.test.process.workers.test_generation -*-
"""
The places of the workers of a generation.
"""

from __future__ import annotations

from attrs import define
from twisted.internet.interfaces import IDelayedCall

from mailgate.process.workers.backoff import BackOff

__all__ = ["Slot"]


@define
class Slot:
    """
    The place of one worker. When the worker has died, another takes the place.

    @ivar number: its number among those of the generation, from 0.
    @ivar backOff: says when a worker that has died is replaced.
    @ivar pid: the pid of the worker; L{None} if there is none.
    @ivar isReady: whether the worker serves.
    @ivar timer: forks the next worker, or ends the wait for this one.
    """

    number: int
    backOff: BackOff
    pid: int | None = None
    isReady: bool = False
    timer: IDelayedCall | None = None

    def wait(self, timer: IDelayedCall | None) -> None:
        """
        Set the timer, and cancel the previous one.

        @param timer: the timer; L{None} for no timer.
        """
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        self.timer = timer
