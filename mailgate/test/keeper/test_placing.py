"""
Tests for L{mailgate.keeper.placing}, L{mailgate.keeper.placestate} and L{mailgate.keeper.placemessages}.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.interfaces import Collected
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.placemessages import AGAIN, LEFT, PLACES, PLACES_VERSION, STAYS, TOOK, Place, Seat
from mailgate.keeper.places import ProcessPlaces
from mailgate.keeper.placestate import readPlaces, writePlaces
from mailgate.keeper.placing import LINGER, PACE, REFRESHED_AT_ONCE, DirectPlaces, Placing, ownPlacing
from mailgate.store.interfaces import StoreUnavailable
from mailgate.store.keys import StoreKeys
from mailgate.store.memory import Memory, MemoryStore
from mailgate.test.support.stores import SwitchedStore, beatOf
from mailgate.upstream.placing import Owner
from mailgate.upstream.sticky import Sticky

TTL, RETAIN = 3600, 60
JOE = Owner("imap", b"joe", Sticky(TTL, RETAIN))


def seat(backend: str, what: str, user: str = "joe", instead: str = "") -> Seat:
    return Seat("imap", user, backend, instead, what, TTL, RETAIN)


class Member:
    """A process that is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def ask(self, word: str, arguments: Any, within: float) -> Deferred[Collected]:
        self.asked.append((word, arguments))
        return succeed(Collected())


class PlacingCase(SynchronousTestCase):
    """A keeper with a store."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.memory = Memory()
        self.store = SwitchedStore(self.clock, self.memory, "g1")
        self.keys = StoreKeys(b"secret")
        self.placing = Placing(self.store, self.keys, self.clock, "g1", isShared=True)
        self.member = Member()

    def pumped(self, seconds: float) -> None:
        """Time passes, in small steps."""
        self.clock.pump([PACE] * round(seconds / PACE))

    def ask(self, backend: str, user: str = "joe", placing: Placing | None = None) -> str:
        asked = (placing or self.placing).place(Place(1, "imap", user, backend, TTL))
        return self.successResultOf(Deferred.fromCoroutine(asked)).backend

    def where(self, user: bytes = b"joe", placing: Placing | None = None) -> str:
        return self.successResultOf(Deferred.fromCoroutine((placing or self.placing).placeOf("imap", user)))

    def lasts(self, seconds: float) -> None:
        """Joe's place lasts so long from now on, if nothing happens."""
        key = self.keys.digest(b"place", b"imap\0joe")
        self.assertAlmostEqual(self.memory.places.left(key, self.clock.seconds()), seconds, 3)


class PlaceTests(PlacingCase):
    """Places."""

    def test_place(self) -> None:
        """The first proposal is the place; later ones, of all protocols and processes, get it."""
        self.assertEqual(self.ask("a:143"), "a:143")
        self.assertEqual(self.ask("b:143"), "a:143")
        self.assertEqual(self.ask("b:143", "jane"), "b:143")
        self.lasts(TTL)

    def test_names(self) -> None:
        """The store learns no name of a user."""
        self.ask("a:143", "someone@example.org")
        self.assertNotIn(b"someone", b"".join(key for key, _, _ in self.memory.places.items(0)))

    def test_strange(self) -> None:
        """What a stranger has written into the store, and can be no place, is not passed on."""
        for place in (b"10.0.0.1:143" * 1000, b"\x1b[2J", b"10.0.0.1\r\n"):
            self.store.place(self.keys.digest(b"place", b"imap\0joe"), place, TTL, b"")
            self.assertEqual((self.ask("10.0.0.1:143"), self.where()), ("", ""))

    def test_dead(self) -> None:
        """The backend that took the login is the place from then on, unless another gateway was faster."""
        self.ask("a:143")
        self.placing.seat(self.member, seat("b:143", TOOK, instead="a:143"))
        self.assertEqual(self.where(), "b:143")
        self.placing.seat(self.member, seat("c:143", TOOK, instead="a:143"))
        self.assertEqual(self.where(), "b:143")

    def test_late(self) -> None:
        """A login whose question was not answered in time changes no place; without one it makes its own."""
        self.ask("a:143")
        self.placing.seat(self.member, seat("b:143", TOOK))
        self.assertEqual(self.where(), "a:143")
        self.placing.seat(self.member, seat("b:143", TOOK, "jane"))
        self.assertEqual(self.where(b"jane"), "b:143")

    def test_down(self) -> None:
        """Without the store nothing is known, and nothing fails."""
        self.store.switch(False)
        self.assertEqual(self.ask("a:143"), "")
        self.placing.seat(self.member, seat("b:143", TOOK))
        self.placing.seat(self.member, seat("b:143", LEFT))
        self.pumped(LINGER + 1)
        for call in (self.placing.placeOf("imap", b"joe"), self.placing.move("imap", b"joe", "c:143", TTL)):
            self.failureResultOf(Deferred.fromCoroutine(call), StoreUnavailable)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_broken(self) -> None:
        """An error that nobody expects is logged, and the login goes on."""
        self.store.place = lambda *arguments: 1 / 0  # type: ignore
        self.assertEqual(self.ask("a:143"), "")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_move(self) -> None:
        """An operator's word replaces any place, and sessions that go on elsewhere do not bring it back."""
        self.ask("a:143")
        self.placing.seat(self.member, seat("a:143", STAYS))
        self.successResultOf(Deferred.fromCoroutine(self.placing.move("imap", b"joe", "c:143", TTL)))
        self.pumped(TTL)
        self.assertEqual((self.where(), self.ask("b:143")), ("c:143", "c:143"))


class LastingTests(PlacingCase):
    """How long places last."""

    def test_refreshed(self) -> None:
        """While there are sessions, a place lasts; it is written a few times in its time, not more."""
        self.ask("a:143")
        self.placing.seat(self.member, seat("a:143", STAYS))
        self.store.calls.clear()
        self.pumped(2 * TTL)
        self.assertEqual(self.where(), "a:143")
        self.assertIn(self.store.calls.count("place"), (7, 8))

    def test_retained(self) -> None:
        """Some seconds after the last session in all processes, a place lasts for retain."""
        other = Member()
        self.ask("a:143")
        for member in (self.member, other):
            self.placing.seat(member, seat("a:143", STAYS))
        self.placing.seat(self.member, seat("a:143", LEFT))
        self.pumped(LINGER + 1)
        self.lasts(TTL - LINGER - 1)
        self.placing.left(other)
        self.pumped(LINGER + PACE)
        self.lasts(RETAIN - PACE)
        self.pumped(RETAIN)
        self.assertEqual(self.where(), "")

    def test_back(self) -> None:
        """A client that comes back at once costs nothing, and its place lasts."""
        self.ask("a:143")
        for what in (STAYS, LEFT, STAYS):
            self.placing.seat(self.member, seat("a:143", what))
        self.store.calls.clear()
        self.pumped(LINGER + 1)
        self.assertEqual(self.store.calls, [])

    def test_elsewhere(self) -> None:
        """A user who has sessions at another gateway keeps his place; those of this one are gone."""
        self.ask("a:143")
        user = self.keys.digest(b"user", b"joe")
        other = MemoryStore(self.clock, self.memory, "g2")
        for store, gateway in ((self.store, "g1"), (other, "g2")):
            store.beat(beatOf(gateway, "run", isAll=True, counts={user: {b"im1234": 1}}))
        self.placing.seat(self.member, seat("a:143", STAYS))
        self.placing.seat(self.member, seat("a:143", LEFT))
        self.pumped(LINGER + 1)
        self.lasts(TTL - LINGER - 1)
        other.beat(beatOf("g2", "run", counts={user: {}}))
        self.placing.seat(self.member, seat("a:143", STAYS))
        self.placing.seat(self.member, seat("a:143", LEFT))
        self.pumped(LINGER + PACE)
        self.lasts(RETAIN - PACE)

    def test_forgotten(self) -> None:
        """A store that comes back without places gets those of users with sessions, some in each moment."""
        for number in range(3 * REFRESHED_AT_ONCE):
            self.placing.seat(self.member, seat("a:143", STAYS, f"user{number}"))
        self.memory.places.__init__(1000)  # type: ignore
        self.store.calls.clear()
        self.placing.resumed()
        for step in range(1, 4):
            self.pumped(PACE)
            self.assertEqual(self.store.calls.count("place"), step * REFRESHED_AT_ONCE)
        self.pumped(1)
        self.assertEqual(self.store.calls.count("place"), 3 * REFRESHED_AT_ONCE)
        self.assertEqual(self.where(b"user7"), "a:143")

    def test_again(self) -> None:
        """What processes tell a new keeper is written in the same way."""
        self.placing.seat(self.member, seat("a:143", AGAIN))
        self.assertEqual(self.where(), "")
        self.pumped(2 * PACE)
        self.assertEqual(self.where(), "a:143")

    def test_brief(self) -> None:
        """Users who come and go take no memory in the end, be they thousands in each second."""
        for each in range(30_000):
            self.placing.seat(self.member, seat("10.0.0.1:143", STAYS, f"u{each}"))
            self.placing.seat(self.member, seat("10.0.0.1:143", LEFT, f"u{each}"))
        self.pumped(LINGER + 20)
        self.assertEqual((len(self.placing._leaving), len(self.placing._sitting)), (0, 0))
        self.placing.seat(self.member, seat("10.0.0.1:143", STAYS))
        self.assertEqual(len(self.placing._due), 1)

    def test_stopped(self) -> None:
        """After its end nothing happens any more."""
        self.placing.seat(self.member, seat("a:143", STAYS))
        self.placing.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OfferTests(PlacingCase):
    """What processes are told."""

    def test_offered(self) -> None:
        """A process is asked once whether it understands, as soon as the places are those of the gateway."""
        ready = False
        self.placing.isReady = lambda: ready
        self.placing.joined(self.member)
        self.assertEqual(self.member.asked, [])
        ready = True
        self.placing.refresh()
        self.placing.refresh()
        self.assertEqual(self.member.asked, [(PLACES, {"version": PLACES_VERSION})])
        self.placing.left(self.member)
        self.placing.refresh()
        self.assertEqual(len(self.member.asked), 1)


class DirectTests(PlacingCase):
    """The keeper in a process that serves clients, and several gateways."""

    def process(self, placing: Placing) -> ProcessPlaces:
        places = ProcessPlaces(self.clock, self.clock.seconds)
        places.attached(DirectPlaces(placing, places.placed))
        return places

    def test_direct(self) -> None:
        """The answer is there at once, and seats are known."""
        places = self.process(self.placing)
        self.assertEqual(self.successResultOf(places.ask(JOE, "a:143")), "a:143")
        places.seated(JOE, "b:143", "a:143", True)
        self.assertEqual(self.where(), "b:143")
        places.left(JOE)
        self.pumped(LINGER + PACE)
        self.lasts(RETAIN - PACE)

    def test_notReady(self) -> None:
        """Before the places of the predecessor have arrived, nothing is known."""
        self.placing.isReady = lambda: False
        self.assertEqual(self.successResultOf(self.process(self.placing).ask(JOE, "a:143")), "")
        self.assertEqual(self.where(), "")

    def test_slow(self) -> None:
        """A store that is late delays a login by its time, and one that is too late is none."""
        places = self.process(self.placing)
        self.store.late = 0.03
        asked = places.ask(JOE, "a:143")
        self.clock.advance(0.03)
        self.assertEqual(self.successResultOf(asked), "a:143")
        self.store.late = 9.0
        asked = places.ask(JOE, "a:143")
        self.clock.advance(0.05)
        self.assertEqual(self.successResultOf(asked), "")

    def test_gateways(self) -> None:
        """Two gateways have the same places, and a move at one holds at the other."""
        other = Placing(MemoryStore(self.clock, self.memory, "g2"), self.keys, self.clock, "g2", isShared=True)
        one, two = self.process(self.placing), self.process(other)
        self.assertEqual(self.successResultOf(one.ask(JOE, "a:143")), "a:143")
        self.assertEqual(self.successResultOf(two.ask(JOE, "b:143")), "a:143")
        self.successResultOf(Deferred.fromCoroutine(other.move("imap", b"joe", "c:143", TTL)))
        self.assertEqual(self.successResultOf(one.ask(JOE, "b:143")), "c:143")
        # Both have found the place dead at the same time: one of them decides.
        one.seated(JOE, "a:143", "c:143", True)
        two.seated(JOE, "b:143", "c:143", True)
        self.assertEqual((self.where(), self.where(placing=other)), ("a:143", "a:143"))


class StateTests(PlacingCase):
    """What a keeper without a shared store hands over."""

    def test_handedOver(self) -> None:
        """The next keeper has the same places, for as long; what is not valid is ignored."""
        keeper, successor = (Keeper(self.clock, "g1", randomness=lambda count: bytes(count)) for _ in range(2))
        keeper.placing, successor.placing = ownPlacing(self.clock), ownPlacing(self.clock)
        for user, backend in (("joe", "a:143"), ("jane", "b:143")):
            self.ask(backend, user, keeper.placing)
        self.clock.advance(TTL - 10)
        state = keeper.stateToHandOver()
        self.assertNotIn(b"joe", state)
        bad = b'{"places":7}\n{"places":"*"}\n{"places":[1]}\n{"places":"AAAA"}'
        successor.handedOver(state + b"\n" + bad, [])
        self.assertEqual(self.where(b"joe", successor.placing), "a:143")
        self.assertEqual(self.where(b"jane", successor.placing), "b:143")
        self.clock.advance(11)
        self.assertEqual(self.where(b"joe", successor.placing), "")

    def test_shared(self) -> None:
        """Those in a shared store stay there."""
        self.ask("a:143")
        self.assertEqual(list(self.placing.state(10**6)), [])

    def test_bounds(self) -> None:
        """As many as have room, the latest."""
        rows = [(bytes([number // 256, number % 256]) * 8, b"a:%d" % (number % 7), 60.0) for number in range(5000)]
        for room in (0, 100, 2000, 50_000, 10**6):
            lines = list(writePlaces(rows, room))
            self.assertLessEqual(sum(map(len, lines)), room)
            found = list(readPlaces(json.loads(line)["places"] for line in lines))
            self.assertEqual(
                [(key, place) for key, place, _ in found], [row[:2] for row in rows[len(rows) - len(found) :]]
            )
        self.assertEqual(len(found), 5000)
        self.assertTrue(all(left == 60 for _, _, left in found))
