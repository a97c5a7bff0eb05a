"""
Tests for logins at sticky groups: L{mailgate.backend.connector}, L{mailgate.backend.places} and
L{mailgate.backend.place}.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.keeper.places import ProcessPlaces
from mailgate.keeper.placing import DirectPlaces, Placing
from mailgate.login import Asked, Backend, BackendGroup
from mailgate.net.naming import NamingReactor
from mailgate.protocols.pop3 import POP3
from mailgate.store.keys import StoreKeys
from mailgate.store.memory import Memory
from mailgate.test.support.placing import StandInPlacing
from mailgate.test.support.stores import SwitchedStore
from mailgate.testing import Attempt, routeTo
from mailgate.upstream.placing import Owner, Seat
from mailgate.upstream.sticky import ranked
from mailgate.upstream.upstreams import Upstreams

SERVER = "[server pop3]\nlisten = 127.0.0.1:110\nproxy_pass = store\n"
STORE = "[upstream store]\nserver =\n    192.0.2.1:110\n    192.0.2.2:110\n    192.0.2.3:110\nsticky = user ttl=1h\n"
GREETING, OK = b"+OK ready\r\n", b"+OK\r\n"


class StickyCase(SynchronousTestCase):
    """Logins at groups."""

    def setUp(self) -> None:
        self.placing = StandInPlacing()
        self.groups = self.upstreams(STORE)
        group = self.groups.named("store")
        assert group is not None
        self.group = group
        self.order = [str(peer.backend) for peer in ranked(group.peers, b"joe")]

    def upstreams(self, text: str) -> Upstreams:
        clock = MemoryReactorClock()
        clock.advance(100_000)
        groups = Upstreams(parse(text + SERVER), NamingReactor(clock))
        groups.placing = self.placing
        return groups

    def attempt(self, *backends: Any, **changes: Any) -> Attempt:
        chosen = backends or (BackendGroup("store"),)
        return Attempt(POP3, route=routeTo(*chosen, **changes), upstreams=self.groups)

    def tried(self, attempt: Attempt) -> list[str]:
        return [f"{host}:{port}" for host, port in attempt.tried]

    def logIn(self, attempt: Attempt) -> Attempt:
        attempt.accept()
        attempt.says(GREETING, OK, OK)
        self.successResultOf(attempt.result)
        return attempt


class PlaceTests(StickyCase):
    """Where a login goes."""

    def test_first(self) -> None:
        """A user without a place gets the one that is proposed, and is known by all spellings."""
        attempt = self.logIn(self.attempt(user=b"Joe+lists"))
        self.assertEqual(self.tried(attempt), self.order[:1])
        ((owner, proposal),) = self.placing.asked
        self.assertEqual((owner.pool, owner.user, owner.sticky.ttl, proposal), ("store", b"joe", 3600, self.order[0]))
        self.assertEqual(self.placing.seats, [(self.order[0], "", False)])
        self.assertEqual([peer.connections for peer in self.group.peersAt(self.order[0])], [1])

    def test_place(self) -> None:
        """His place is tried first, also if it has the port of another protocol."""
        self.placing.answer = self.order[2]
        self.assertEqual(self.tried(self.logIn(self.attempt())), [self.order[2]])
        self.placing.answer = self.order[1].replace(":110", ":143")
        self.assertEqual(self.tried(self.logIn(self.attempt())), [self.order[1]])
        self.assertEqual(self.placing.seats, [(self.order[2], "", False), (self.order[1], "", False)])

    def test_dead(self) -> None:
        """If his place fails, the next one by the hash takes the login, and becomes his place: one line says so."""
        self.placing.answer = self.order[2]
        attempt = self.attempt()
        attempt.refuse()
        self.logIn(attempt)
        self.assertEqual(self.tried(attempt), [self.order[2], self.order[0]])
        self.assertEqual(self.placing.seats, [(self.order[0], self.order[2], True)])
        words = f"from backend {self.order[2]}, which cannot be used, to backend {self.order[0]}"
        (line,) = [line for line in attempt.log if "place changed" in line]
        self.assertIn(f"upstream store: {words}", line)
        self.assertIn('user "joe"', line)
        # It rests now: the next login does not try it.
        self.assertEqual(self.tried(self.logIn(self.attempt())), [self.order[0]])

    def test_deadPort(self) -> None:
        """Servers of one host are several places."""
        self.groups = self.upstreams("[upstream store]\nserver =\n    192.0.2.1:1\n    192.0.2.1:2\nsticky = user\n")
        self.placing.answer = "192.0.2.1:2"
        attempt = self.attempt()
        attempt.refuse()
        self.logIn(attempt)
        self.assertEqual(self.tried(attempt), ["192.0.2.1:2", "192.0.2.1:1"])
        self.assertEqual(self.placing.seats, [("192.0.2.1:1", "192.0.2.1:2", True)])

    def test_gone(self) -> None:
        """A place that is no server of the group any more is given up."""
        self.placing.answer = "192.0.2.9:110"
        attempt = self.logIn(self.attempt())
        self.assertEqual(self.tried(attempt), self.order[:1])
        self.assertEqual(self.placing.seats, [(self.order[0], "192.0.2.9:110", True)])
        self.assertIn("from backend 192.0.2.9:110, which", "".join(attempt.log))

    def test_full(self) -> None:
        """A place that is full for now stays the place."""
        text = STORE.replace(":110\n", ":110 max_conns=1\n")
        self.groups = self.upstreams(text)
        self.placing.answer = self.order[1]
        self.logIn(self.attempt())
        attempt = self.logIn(self.attempt())
        self.assertEqual(self.tried(attempt), [self.order[0]])
        self.assertEqual(self.placing.seats[1:], [(self.order[0], "", False)])
        self.assertNotIn("place changed", "".join(attempt.log))

    def test_unknown(self) -> None:
        """If nothing answers in time, the hash decides; the place that the user may have is not changed."""
        self.placing.isLate = True
        attempt = self.attempt()
        self.assertEqual(self.tried(attempt), [])
        self.placing.waiting[0].callback("")
        self.assertEqual(self.tried(self.logIn(attempt)), self.order[:1])
        self.assertEqual(self.placing.seats, [(self.order[0], "", True)])

    def test_waited(self) -> None:
        """What the login has waited for the place in a group counts at the next group."""
        self.groups = self.upstreams(STORE + STORE.replace("store", "other").replace("192.0.2", "198.51.100"))
        self.placing.isLate = True
        for peer in self.groups.named("store").peers[1:]:  # type: ignore[union-attr]
            peer.order = "down"
        attempt = self.attempt(BackendGroup("store"), BackendGroup("other"))
        attempt.reactor.advance(0.01)
        self.placing.waiting[0].callback("")
        attempt.refuse()
        self.assertEqual(len(self.placing.waiting), 2)
        attempt.result.addErrback(lambda failure: None)
        attempt.result.cancel()
        self.assertEqual([round(each, 3) for each in self.placing.waited], [0.0, 0.01])

    def test_waitedBefore(self) -> None:
        """What the login has waited for in the limits counts, for one login."""
        attempt = self.attempt(BackendGroup("none"))
        attempt.session.asked = Asked(waited=0.02)
        attempt.route = routeTo(BackendGroup("store"))
        for _ in range(2):
            attempt.again().addErrback(lambda failure: None)
            attempt.refuse()
        self.assertEqual(self.placing.waited, [0.02, 0.0])

    def test_without(self) -> None:
        """Without anything to ask the hash decides, and nothing but the server counts the session."""
        self.groups.placing = None
        attempt = self.logIn(self.attempt())
        self.assertEqual(self.tried(attempt), self.order[:1])
        (peer,) = self.group.peersAt(self.order[0])
        self.assertIs(attempt.session.place, peer)

    def test_cancelled(self) -> None:
        """A client that leaves meanwhile counts nowhere."""
        self.placing.isLate = True
        attempt = self.attempt()
        attempt.result.addErrback(lambda failure: None)
        attempt.result.cancel()
        self.assertEqual([peer.connections for peer in self.group.peers], [0, 0, 0])
        self.assertEqual(self.placing.seats, [])

    def test_allDown(self) -> None:
        """A group that no login can use asks nothing."""
        for peer in self.group.peers:
            peer.order = "down"
        attempt = self.attempt()
        self.assertEqual((self.placing.asked, self.tried(attempt)), ([], []))
        self.assertIn("has no usable server", "".join(attempt.log))

    def test_notSticky(self) -> None:
        """Other groups, and backends outside of groups, ask nothing."""
        self.groups = self.upstreams(STORE.replace("sticky = user ttl=1h\n", ""))
        self.logIn(self.attempt())
        self.logIn(self.attempt(Backend("192.0.2.7", 110)))
        self.assertEqual((self.placing.asked, self.placing.seats), ([], []))

    def test_several(self) -> None:
        """Of several destinations each sticky group is asked in its turn; a session outside is none of its seats."""
        self.placing.answer = self.order[1]
        attempt = self.attempt(BackendGroup("store"), Backend("192.0.2.7", 110))
        self.group.peersAt(self.order[2])[0].order = "down"
        for _ in range(2):
            attempt.refuse()
        self.logIn(attempt)
        self.assertEqual(self.tried(attempt), [self.order[1], self.order[0], "192.0.2.7:110"])
        self.assertEqual((len(self.placing.asked), self.placing.seats), (1, []))


class GatewayTests(StickyCase):
    """Two gateways with one store."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.memory = Memory()
        self.stores = [SwitchedStore(self.clock, self.memory, name) for name in ("g1", "g2")]
        self.gateways = [self.upstreams(STORE) for _ in self.stores]
        self.sides = [Placing(store, StoreKeys(b"x"), self.clock, isShared=True) for store in self.stores]
        for groups, placing in zip(self.gateways, self.sides, strict=True):
            places = ProcessPlaces(self.clock, self.clock.seconds)
            places.attached(DirectPlaces(placing, places.placed))
            groups.placing = places

    def goes(self, gateway: int, user: str) -> str:
        """Where a login goes."""
        self.groups = self.gateways[gateway]
        attempt = self.logIn(self.attempt(user=user.encode()))
        attempt.session.leave()
        return self.tried(attempt)[-1]

    def test_same(self) -> None:
        """They choose the same, with the store and without it; a move at one holds at the other."""
        users = [f"user{number}" for number in range(12)]
        first = [self.goes(0, user) for user in users]
        self.assertEqual([self.goes(1, user) for user in users], first)
        self.assertEqual(len(set(first)), 3)
        (other, *_) = (place for place in self.order if place != first[0])
        self.successResultOf(Deferred.fromCoroutine(self.sides[1].move("store", b"user0", other, 60)))
        self.assertEqual([self.goes(gateway, "user0") for gateway in (0, 1)], [other, other])
        for store in self.stores:
            store.switch(False)
        for gateway in (0, 1):
            self.assertEqual([self.goes(gateway, user) for user in users], first)

    def test_dead(self) -> None:
        """A backend that one gateway has found dead is left by its users at both, for the same one."""
        user = "user0"
        place = self.goes(0, user)
        self.groups = self.gateways[0]
        attempt = self.attempt(user=user.encode())
        attempt.refuse()
        self.logIn(attempt)
        after = self.tried(attempt)[-1]
        self.assertNotEqual(after, place)
        self.assertEqual(self.goes(1, user), after)
        (peer,) = self.gateways[1].named("store").peersAt(place)  # type: ignore[union-attr]
        self.assertEqual(peer.fails, 0)


class SeatTests(StickyCase):
    """A session in a sticky group."""

    def test_end(self) -> None:
        """When it ends, its server and the place know."""
        attempt = self.logIn(self.attempt())
        (peer,) = self.group.peersAt(self.order[0])
        self.assertIs(attempt.session.place.at, peer)  # type: ignore[union-attr]
        attempt.session.leave()
        self.assertEqual(peer.connections, 0)
        self.assertEqual([owner.user for owner in self.placing.gone], [b"joe"])

    def test_lost(self) -> None:
        """Clients of a server that fails wait as those of other groups do."""
        server: Any = SimpleNamespace(lost=lambda now: ("delay", now))
        self.assertEqual(Seat(server, Owner("store", b"joe"), self.placing).lost(7.0), ("delay", 7.0))
