"""Tests for L{mailgate.relay.base}: the rules, with ends that only note the calls."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Trouble
from mailgate.relay.base import HELD, BaseEnd, BaseRelay
from mailgate.relay.portable import Relays
from mailgate.relay.terms import Terms
from mailgate.session import Outcome
from mailgate.testing.fakes import makeSession

IDLE, LINGER = 100.0, 10.0


class End(BaseEnd):
    """An end that notes the calls, and closes at once."""

    __slots__ = ("asked", "finished", "isEncrypted", "relay")

    relay: BaseRelay
    finished: bool
    isEncrypted: bool

    def __init__(self, moved: int, isEncrypted: bool = False) -> None:
        self.moved = moved
        self.isEncrypted = isEncrypted
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
        """The peer sends no more."""
        self.finished = True
        self.relay.ended(self)


class Relay(BaseRelay):
    """A relay with timers of a plain clock."""

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
        self.call = clock.callLater(self.active + self._limit - clock.seconds(), self.expired)

    def _forget(self) -> None:
        if self.call is not None and self.call.active():
            self.call.cancel()


class RulesTests(SynchronousTestCase):
    """L{BaseRelay}."""

    def relayed(self, holds: bool = False, linger: float = LINGER) -> Relay:
        """A running relay. The client has sent 3 bytes and the backend 5."""
        self.clock = Clock()
        self.session = makeSession("imap", "127.0.0.1:143", "192.0.2.7:40123", 0.0)
        self.client, self.backend = End(3), End(5, isEncrypted=holds)
        self.done: list[object] = []
        terms = Terms(Relays(self.clock), IDLE, linger, self.done.append)
        relay = Relay(terms, self.client, self.backend, self.session)
        relay.start(b"", b"")
        return relay

    def assertOver(self, outcome: Outcome) -> None:
        """Both ends are closed, the totals are recorded once, and no timer is left."""
        self.assertEqual(len(self.done), 1)
        self.assertEqual((self.session.received, self.session.sent, self.session.outcome), (3, 5, outcome))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ends(self) -> None:
        """The first end of file is passed on. The second closes both sides."""
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
        """The client's end of file is held until the backend is silent, the backend's is not."""
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
        """A held end of file is not passed on while one side is stuck. Then the linger limit applies."""
        relay = self.relayed(holds=True)
        relay.stuck = True
        self.client.end()
        self.clock.advance(HELD)
        self.assertEqual(self.backend.asked, [])
        self.clock.advance(LINGER)
        self.assertEqual(self.backend.asked, ["close"])

    def test_idle(self) -> None:
        """After the idle limit both sides are closed, and after the linger limit reset."""
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
        """If one side is lost, the other is closed, and the outcome is not the idle limit."""
        relay = self.relayed()
        relay.lost(self.backend)
        self.assertEqual((self.client.asked, self.backend.asked), (["close"], ["release"]))
        relay.lost(self.client)
        self.assertOver(Outcome.RELAYED)

    def test_stopped(self) -> None:
        """The gateway can close both sides, or reset them at once. The first outcome counts."""
        relay = self.relayed()
        relay.dismiss(Outcome.STOPPED, Trouble.STOPPING)
        self.assertEqual((self.client.asked, self.backend.asked), (["close"], ["close"]))
        relay.stop()
        self.assertOver(Outcome.STOPPED)
        relay = self.relayed()
        self.client.end()
        relay.stop()
        self.assertOver(Outcome.RELAYED)
