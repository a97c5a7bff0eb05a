# -*- test-case-name: mailgate.test.frontend.test_intake -*-
"""
When what a client sends is obeyed, and when it is read: no faster than it takes our replies.
"""

from __future__ import annotations

from typing import Any, Protocol

from mailgate.frontend.framing import Framing, Unit

__all__ = ["READ_AHEAD", "Intake", "Obeying"]

READ_AHEAD = 65536
"""Bytes of pipelined commands that are kept while none is obeyed; then the client is not read from any more."""


class Obeying(Protocol):
    """
    Whose commands an intake is.

    @ivar inputEnded: whether the client sends no more.
    @ivar relayed: whether it has left the transport to others.
    """

    transport: Any
    inputEnded: bool

    @property
    def relayed(self) -> bool: ...

    @property
    def listening(self) -> bool:
        """Whether the next command may be obeyed now."""

    def lineLimit(self) -> int:
        """The most bytes that the next line may have, its end included."""

    def obey(self, unit: Unit, octets: bytes) -> bool:
        """Obey a C{unit}, which has these C{octets}. Return whether the next one can be looked for."""

    def exhausted(self) -> None:
        """The client sends no more, and all whole commands that it has sent have been obeyed."""


class Intake(Framing):
    """
    What a client has sent, and the pace at which it is obeyed by the owner, who is given to each call: an object that
    knew its owner would keep it alive when the relay has taken over.
    """

    __slots__ = ("_isAdvancing", "_isHeld", "_isPaused")

    def __init__(self) -> None:
        super().__init__()
        self._isAdvancing = False
        self._isHeld = False
        self._isPaused = False

    def advance(self, owner: Obeying) -> None:
        """Have the owner obey what has come, as far as that may be."""
        if self._isAdvancing:
            return
        self._isAdvancing = True
        try:
            while owner.listening and not self._isHeld:
                taken = self.take(owner.lineLimit())
                if taken is None or not owner.obey(*taken):
                    break
        finally:
            self._isAdvancing = False
        if owner.inputEnded and owner.listening and not self._isHeld:
            owner.exhausted()
        self._regulate(owner)

    def hold(self, owner: Obeying) -> None:
        """The client does not take our replies: obey no more commands until it does."""
        self._isHeld = True
        self._regulate(owner)

    def release(self, owner: Obeying) -> None:
        """It takes them again."""
        self._isHeld = False
        self.advance(owner)

    def close(self) -> None:
        """It never will."""
        self._isHeld = True

    def readOn(self, owner: Obeying) -> None:
        """Read from the client whatever there is to obey."""
        self._isPaused = False
        owner.transport.resumeProducing()

    def _regulate(self, owner: Obeying) -> None:
        """Read from the client unless our replies pile up, or its commands while none is obeyed."""
        full = self._isHeld or (len(self.buffer) > READ_AHEAD and not owner.listening)
        if full is not self._isPaused and not owner.relayed:
            self._isPaused = full
            if full:
                owner.transport.pauseProducing()
            else:
                owner.transport.resumeProducing()
