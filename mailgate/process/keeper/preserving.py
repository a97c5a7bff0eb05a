# -*- test-case-name: mailgate.test.process.keeper.test_preserving -*-
"""
What a keeper in a process of its own leaves for later ones: its state and the limits' tables in memory, and what must
survive a restart of the gateway in C{state_file}.
"""

from __future__ import annotations

import os
from contextlib import suppress

from attrs import frozen
from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorTime

from mailgate.keeper.keeper import Keeper
from mailgate.keeper.memory import MOST_LIMITS, IMemory, LimitSaving, Memory, Saving, limitsPart
from mailgate.limits.interfaces import IDefence
from mailgate.limits.statefile import Remembering

__all__ = ["Memories", "Preserving"]


@frozen
class Memories:
    """
    Memory that outlives a keeper.

    @ivar state: for its state.
    @ivar limits: for its tables of limits.
    """

    state: IMemory
    limits: IMemory

    @classmethod
    def of(cls, descriptor: int | None) -> Memories:
        """
        Return those in a file of L{mailgate.keeper.memory.newFile}, as far as it has room for them. Others are lost
        with this process and its forks.

        @param descriptor: the file, which is closed; L{None} without one.
        """
        try:
            return cls(_stateIn(descriptor), _limitsIn(descriptor))
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _stateIn(descriptor: int | None) -> Memory:
    if descriptor is not None:
        # The file of another release has another length.
        with suppress(ValueError, OSError):
            return Memory(descriptor=descriptor)
    return Memory()


def _limitsIn(descriptor: int | None) -> Memory:
    if descriptor is not None:
        with suppress(ValueError, OSError):
            return limitsPart(descriptor)
    return Memory(MOST_LIMITS)


class Preserving(MultiService):
    """
    Writes all that while it runs. What is written when it stops is for the next start of the gateway.

    @param keeper: the keeper.
    @param defence: its limits.
    @param memories: the memory.
    @param remembering: has the C{state_file}; L{None} without one.
    @param clock: the timers.
    """

    def __init__(
        self,
        keeper: Keeper,
        defence: IDefence,
        memories: Memories,
        remembering: Remembering | None,
        clock: IReactorTime,
    ) -> None:
        super().__init__()
        self._keeper = keeper
        self._remembering = remembering
        Saving(keeper, memories.state, clock).setServiceParent(self)
        LimitSaving(keeper, defence, memories.limits, clock).setServiceParent(self)
        if remembering is not None:
            remembering.setServiceParent(self)

    def restore(self) -> None:
        """Continue with what an earlier keeper has left in the memory, or has written to the file."""
        if not self._keeper.restoreSaved() and self._remembering is not None:
            self._remembering.restore()
