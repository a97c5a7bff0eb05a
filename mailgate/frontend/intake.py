# -*- test-case-name: mailgate.test.frontend.test_intake -*-
"""
Controls when commands of a client are obeyed and when the gateway reads from it: no faster than the client reads the
replies.
"""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from mailgate.frontend.framing import Framing, Unit
from mailgate.relay.protocol import RelayedProtocol
from mailgate.session import Session

__all__ = ["READ_AHEAD", "Intake"]

READ_AHEAD = 65536
"""Bytes of pipelined commands that are buffered while a command waits. Beyond that the gateway stops reading."""


@implementer(IPushProducer)
class Intake(Framing, RelayedProtocol):
    """
    The buffered input of a client, and the pace at which it is obeyed. A dialogue inherits it and is the producer of
    its own transport: while the client does not read our replies, nothing more is obeyed or read.

    @ivar session: its phase says whether the next command may be obeyed now.
    """

    session: Session

    _isAdvancing = False
    _isHeld = False
    _isPaused = False

    def lineLimit(self) -> int:
        """Return the longest next line in bytes, its end included."""
        raise NotImplementedError

    def obey(self, unit: Unit, octets: bytes) -> bool:
        """Obey a C{unit} with the bytes C{octets}. Return whether the next unit may be obeyed now."""
        raise NotImplementedError

    def exhausted(self) -> None:
        """End: the client has closed its side, and all complete commands are answered."""
        raise NotImplementedError

    def advance(self) -> None:
        """Obey buffered commands until one has to wait."""
        if self._isAdvancing:
            return
        self._isAdvancing = True
        goesOn = self.session.phase.listens
        try:
            while goesOn and not self._isHeld:
                taken = self.take(self.lineLimit())
                goesOn = taken is not None and self.obey(*taken)
        finally:
            self._isAdvancing = False
        if self.inputEnded and self.session.phase.listens and not self._isHeld:
            self.exhausted()
        if self.buffer or self._isHeld or self._isPaused:
            self._regulate()

    def pauseProducing(self) -> None:
        """Stop obeying commands: the client does not read our replies."""
        self._isHeld = True
        self._regulate()

    def resumeProducing(self) -> None:
        """Continue with commands: the client reads our replies again."""
        self._isHeld = False
        self.advance()

    def stopProducing(self) -> None:
        """Stop obeying commands for good."""
        self._isHeld = True

    def readOn(self) -> None:
        """Read from the client again, even if the buffer is full."""
        self._isPaused = False
        self.transport.resumeProducing()

    def _regulate(self) -> None:
        """Pause reading while the client does not read our replies or while too many commands wait."""
        full = self._isHeld or (len(self.buffer) > READ_AHEAD and not self.session.phase.listens)
        if full is not self._isPaused and not self.relayed:
            self._isPaused = full
            if full:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()
