# -*- test-case-name: mailgate.test.frontend.test_intake -*-
"""
Controls when commands of a client are obeyed and when the gateway reads from it: no faster than the client reads the
replies.
"""

from __future__ import annotations

from typing import Any, Protocol

from mailgate.frontend.framing import Framing, Unit

__all__ = ["READ_AHEAD", "Intake", "Obeying"]

READ_AHEAD = 65536
"""Bytes of pipelined commands that are buffered while a command waits. Beyond that the gateway stops reading."""


class Obeying(Protocol):
    """
    The owner of an L{Intake}: a dialogue.

    @ivar inputEnded: whether the client has closed its side.
    @ivar relayed: whether a relay has taken the transport over.
    """

    transport: Any
    inputEnded: bool

    @property
    def relayed(self) -> bool: ...

    @property
    def listening(self) -> bool:
        """Whether the next command may be obeyed now."""

    def lineLimit(self) -> int:
        """Return the longest next line in bytes, its end included."""

    def obey(self, unit: Unit, octets: bytes) -> bool:
        """Obey a C{unit} with the bytes C{octets}. Return whether the next unit may be obeyed now."""

    def exhausted(self) -> None:
        """End: the client has closed its side, and all complete commands are answered."""


class Intake(Framing):
    """
    The buffered input of a client, and the pace at which the owner obeys it.

    The owner is an argument of each call: a reference to it would keep it alive after the relay has taken over.
    """

    _isAdvancing = False
    _isHeld = False
    _isPaused = False

    def advance(self, owner: Obeying) -> None:
        """Make C{owner} obey buffered commands until one has to wait."""
        if self._isAdvancing:
            return
        self._isAdvancing = True
        goesOn = owner.listening
        try:
            while goesOn and not self._isHeld:
                taken = self.take(owner.lineLimit())
                goesOn = taken is not None and owner.obey(*taken)
        finally:
            self._isAdvancing = False
        if owner.inputEnded and owner.listening and not self._isHeld:
            owner.exhausted()
        if self.buffer or self._isHeld or self._isPaused:
            self._regulate(owner)

    def hold(self, owner: Obeying) -> None:
        """Stop obeying commands of C{owner}: the client does not read our replies."""
        self._isHeld = True
        self._regulate(owner)

    def release(self, owner: Obeying) -> None:
        """Continue with commands of C{owner}: the client reads our replies again."""
        self._isHeld = False
        self.advance(owner)

    def close(self) -> None:
        """Stop obeying commands for good."""
        self._isHeld = True

    def readOn(self, owner: Obeying) -> None:
        """Read from the client of C{owner} again, even if its buffer is full."""
        self._isPaused = False
        owner.transport.resumeProducing()

    def _regulate(self, owner: Obeying) -> None:
        """Pause reading while the client does not read our replies or while too many commands wait."""
        full = self._isHeld or (len(self.buffer) > READ_AHEAD and not owner.listening)
        if full is not self._isPaused and not owner.relayed:
            self._isPaused = full
            if full:
                owner.transport.pauseProducing()
            else:
                owner.transport.resumeProducing()
