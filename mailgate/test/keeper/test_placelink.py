"""
Tests for places over the real link: L{mailgate.keeper.link} and L{mailgate.keeper.listening}.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.keeper import Keeper
from mailgate.keeper.link import KeeperLink
from mailgate.keeper.places import ProcessPlaces
from mailgate.keeper.placing import LINGER, ownPlacing
from mailgate.keeper.questions import DEADLINE
from mailgate.test.keeper.processes import newView, turn
from mailgate.test.keeper.wires import End, Socket, WiredRendezvous
from mailgate.upstream.placing import Owner
from mailgate.upstream.sticky import Sticky

JOE = Owner("imap", b"j\xc3\xb6e\xff", Sticky(3600, 60))


class LinkCase(SynchronousTestCase):
    """A keeper, and a process that links to it."""

    hasPlacing = True

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.socket = Socket(self.clock, Random(1))
        self.keeper = Keeper(self.clock, "g1")
        self.placing = ownPlacing(self.clock)
        if self.hasPlacing:
            self.keeper.placing = self.placing
        self.rendezvous = WiredRendezvous(self.keeper, self.socket)
        self.prepare()
        self.rendezvous.startService()
        self.places = ProcessPlaces(self.clock, self.clock.seconds)
        self.ends: list[End] = []
        endpoint: Any = self.socket.endpoint(4711, self.ends)
        self.link = KeeperLink(newView(), endpoint, self.clock, 0, 4711, places=self.places)
        self.link.startService()
        self.turns()

    def prepare(self) -> None:
        """Before the keeper serves."""

    def turns(self, number: int = 30) -> None:
        for _ in range(number):
            turn(self.clock)

    def ask(self, proposal: str) -> str:
        asked = self.places.ask(JOE, proposal)
        self.turns()
        return self.successResultOf(asked)

    def where(self) -> str:
        return self.successResultOf(Deferred.fromCoroutine(self.placing.placeOf(JOE.pool, JOE.user)))


class LinkTests(LinkCase):
    """The keeper is there."""

    def test_places(self) -> None:
        """The process asks and is answered, and the keeper hears where sessions are and when they end."""
        self.assertEqual((self.ask("a:143"), self.ask("b:143")), ("a:143", "a:143"))
        self.places.seated(JOE, "b:143", "a:143", True)
        self.turns()
        self.assertEqual(self.where(), "b:143")
        self.places.left(JOE)
        self.turns()
        self.clock.pump([0.5] * 140)
        self.assertEqual(self.where(), "")

    def test_hangs(self) -> None:
        """A keeper that hangs delays a login by the deadline, and the next ones not at all."""
        self.ends[-1].other.isDeaf = True
        asked = self.places.ask(JOE, "a:143")
        self.assertNoResult(asked)
        self.clock.advance(DEADLINE)
        self.assertEqual(self.successResultOf(asked), "")
        self.assertEqual(self.successResultOf(self.places.ask(JOE, "a:143")), "")
        self.ends[-1].other.setDeaf(False)
        self.turns()
        self.assertEqual(self.ask("b:143"), "a:143")

    def test_lost(self) -> None:
        """When the link is lost the sessions of the process are none; when it is back they are told again."""
        self.ask("a:143")
        self.places.seated(JOE, "a:143", "", False)
        self.turns()
        self.ends[-1].other.protocol.abort()
        self.turns(5)
        self.clock.pump([0.1] * 30)
        self.turns()
        self.clock.pump([0.5] * round((LINGER + 70) * 2))
        self.assertEqual((self.where(), self.ask("b:143")), ("a:143", "a:143"))


class ReadyTests(LinkCase):
    """A predecessor hands over."""

    def prepare(self) -> None:
        self.keeper.expectHandover()

    def test_ready(self) -> None:
        """The keeper is asked as soon as it has the places of its predecessor, which count."""
        before = Keeper(self.clock, "g1")
        before.placing = ownPlacing(self.clock)
        self.successResultOf(Deferred.fromCoroutine(before.placing.move(JOE.pool, JOE.user, "c:143", 3600)))
        self.assertEqual(self.successResultOf(self.places.ask(JOE, "a:143")), "")
        self.keeper.handedOver(before.stateToHandOver(), [])
        self.turns()
        self.assertEqual(self.ask("a:143"), "c:143")


class WithoutTests(LinkCase):
    """A keeper of an application, or of a release that knows no places."""

    hasPlacing = False

    def test_without(self) -> None:
        """Nothing is asked and nothing is told."""
        self.assertEqual(self.successResultOf(self.places.ask(JOE, "a:143")), "")
        self.places.seated(JOE, "a:143", "", True)
        self.places.left(JOE)
        self.turns()
        self.assertTrue(self.link.isLinked)
