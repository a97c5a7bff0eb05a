"""
Tests for L{mailgate.relay.base}: the rules alone, with ends that only note what is asked of them.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Trouble
from mailgate.relay.base import HELD, BaseEnd, BaseRelay
from mailgate.relay.portable import Relays
from mailgate.session import Outcome, Session

IDLE, LINGER = 100.0, 10.0


class End(BaseEnd):
    """One that notes what it is asked for, and closes as soon as it may."""

    __slots__ = ("asked", "relay")

    relay: BaseRelay

    def __init__(self, moved: int) -> None:
        self.moved = moved
        self.finished = False
        self.asked: list[str] = []

    @property
    def isOpen(self) -> bool:
        return "release" not in self.asked

    def finishWriting(self) -> None:
        self.asked.append("finish")

    def close(self) -> None:
        if self.isOpen:
            self.asked.append("close")

    def abort(self) -> None:
        if self.isOpen:
            self.asked.append("abort")
            self.release()

    def release(self) -> None:
        self.finished = True
        self.asked.append("release")
        self.relay.released()

    def end(self) -> None:
        """Its peer sends no more."""
        self.finished = True
        self.relay.ended(self)


class Relay(BaseRelay):
    """One that waits by a plain clock."""

    call: Any = None
    stuck = False

    @property
    def isStuck(self) -> bool:
        return self.stuck

    def start(self, toClient: bytes, toBackend: bytes) -> None:
        self._wait()

    def _wait(self) -> None:
        self._forget()
        clock = self.means.clock
        self.call = clock.callLater(self._active + self._limit - clock.seconds(), self.expired)

    def _forget(self) -> None:
        if self.call is not None and self.call.active():
            self.call.cancel()


class RulesTests(SynchronousTestCase):
    """L{BaseRelay}."""

    def relayed(self, holds: bool = False, linger: float = LINGER) -> Relay:
        """A relay under way, in which the client has sent 3 bytes and the backend 5."""
        self.clock = Clock()
        self.session = Session("imap", "127.0.0.1:143", "192.0.2.7:40123", 0.0)
        self.client, self.backend = End(3), End(5)
        self.done: list[object] = []
        ends = self.client, self.backend
        relay = Relay(Relays(self.clock), ends, holds, self.session, IDLE, linger, self.done.append)
        self.client.relay = self.backend.relay = relay
        relay.start(b"", b"")
        return relay

    def assertOver(self, outcome: Outcome) -> None:
        """Both are gone, the ledger is written, once, and nothing is waited for."""
        self.assertEqual(len(self.done), 1)
        self.assertEqual((self.session.received, self.session.sent, self.session.outcome), (3, 5, outcome))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ends(self) -> None:
        """One end is passed on; the other closes both."""
        self.relayed()
        self.client.end()
        self.assertEqual((self.client.asked, self.backend.asked), ([], ["finish"]))
        self.backend.end()
        self.assertEqual((self.client.asked, self.backend.asked), (["close"], ["finish", "close"]))
        self.client.release()
        self.assertEqual(self.done, [])
        self.backend.release()
        self.assertOver(Outcome.RELAYED)

    def test_held(self) -> None:
        """The client's end is held until the backend has been silent, the backend's is not."""
        relay = self.relayed(holds=True)
        self.client.end()
        for _ in range(3):
            self.clock.advance(HELD - 0.5)
            relay.moved()
        self.assertEqual(self.backend.asked, [])
        self.clock.advance(HELD)
        self.assertEqual(self.backend.asked, ["finish"])
        self.relayed(holds=True)
        self.backend.end()
        self.assertEqual(self.client.asked, ["finish"])

    def test_heldWhileStuck(self) -> None:
        """It is not passed on while one side takes nothing; then the time to linger is what remains."""
        relay = self.relayed(holds=True)
        relay.stuck = True
        self.client.end()
        self.clock.advance(HELD)
        self.assertEqual(self.backend.asked, [])
        self.clock.advance(LINGER)
        self.assertEqual(self.backend.asked, ["close"])

    def test_idle(self) -> None:
        """Silence ends both, in an orderly way, and the time to linger later at once."""
        relay = self.relayed()
        self.clock.advance(IDLE - 1)
        relay.moved()
        self.clock.advance(IDLE - 1)
        self.assertEqual(self.client.asked, [])
        self.clock.advance(1)
        self.assertEqual((self.client.asked, self.backend.asked), (["close"], ["close"]))
        self.clock.advance(LINGER)
        self.assertOver(Outcome.IDLE)

    def test_lost(self) -> None:
        """What breaks off has the other closed, and is no silence."""
        relay = self.relayed()
        relay.lost(self.backend)
        self.assertEqual((self.client.asked, self.backend.asked), (["close"], ["release"]))
        relay.lost(self.client)
        self.assertOver(Outcome.RELAYED)

    def test_stopped(self) -> None:
        """The gateway may have both closed, or end them at once; the first reason counts."""
        relay = self.relayed()
        relay.dismiss(Outcome.STOPPED, Trouble.STOPPING)
        self.assertEqual((self.client.asked, self.backend.asked), (["close"], ["close"]))
        relay.stop()
        self.assertOver(Outcome.STOPPED)
        relay = self.relayed()
        self.client.end()
        relay.stop()
        self.assertOver(Outcome.RELAYED)
