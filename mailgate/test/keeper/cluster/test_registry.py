"""Tests for L{mailgate.keeper.cluster.registry}: processes, the registry of a gateway, and the store."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.cluster import beating
from mailgate.keeper.cluster.beating import HEARTBEAT
from mailgate.keeper.cluster.registry import FIRST_AFTER, LOST_FOR, Registry
from mailgate.keeper.feed import PAUSE
from mailgate.keeper.interfaces import Collected
from mailgate.keeper.messages import Sessions, WireError
from mailgate.limits.policy import Prefixes
from mailgate.store.interfaces import DEAD, Beat, StoreUnavailable
from mailgate.store.keys import StoreKeys
from mailgate.store.memory import Memory
from mailgate.store.seal import Seal
from mailgate.test.keeper.processes import turn
from mailgate.test.keeper.relays import Process
from mailgate.test.support.stores import SwitchedStore

KEYS = StoreKeys(b"secret")
ANN, OTHER = "192.0.2.7:40123", "198.51.100.3:1"


class RegistryCase(SynchronousTestCase):
    """Two gateways with a store in memory: g1 with two processes, g2 with one."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.memory = Memory()
        self.random = Random(4)
        self.beats: list[Beat] = []
        self.isLossy = False
        self.dead: set[int] = set()
        self.store, self.registry = self.gateway("g1")
        self.otherStore, self.other = self.gateway("g2")
        self.one, self.two, self.three = (Process(self.clock, f"proc{number}", number) for number in (1, 2, 3))
        self.link(self.one, self.registry)
        self.link(self.two, self.registry)
        self.link(self.three, self.other)
        self.wait(FIRST_AFTER)

    def gateway(self, name: str) -> tuple[Any, Registry]:
        store: Any = SwitchedStore(self.clock, self.memory, name)
        registry = Registry(
            store,
            KEYS,
            Seal(bytes(32)),
            name,
            Prefixes(),
            self.clock,
            self.random.randbytes,
            lambda pid: pid not in self.dead,
        )
        registry.start()
        beat = store.beat

        def lost(given: Beat) -> Deferred[bool]:
            if name == "g1":
                self.beats.append(given)
            return self.late() if self.isLossy and name == "g1" else beat(given)

        store.beat = lost
        return store, registry

    def late(self) -> Deferred[bool]:
        late: Deferred[bool] = Deferred()
        self.clock.callLater(0.05, late.errback, StoreUnavailable("late"))
        return late

    def link(self, process: Any, registry: Registry) -> None:
        process.receive = registry.told
        registry.joined(process)

    def unlink(self, process: Any, registry: Registry) -> None:
        process.feed.detached(process)
        registry.left(process)

    def wait(self, seconds: float = 0.5) -> None:
        """Let time pass, in steps in which much may happen."""
        while seconds > 0:
            self.clock.advance(min(seconds, PAUSE))
            for _ in range(5):
                turn(self.clock)
            seconds -= PAUSE

    def relays(self, user: str = "joe", registry: Registry | None = None) -> dict[str, int]:
        return self.successResultOf((registry or self.registry).relaysOf(user.encode()))

    def stored(self, user: str = "joe") -> dict[str, int]:
        """What the store has of a user."""
        return dict(self.successResultOf(self.otherStore.sessionsOf(KEYS.digest(b"user", user.encode()))))

    def listed(self, gateway: str = "g1") -> set[str]:
        """The sessions of a gateway in the store."""
        return set(self.successResultOf(self.otherStore.sessionsAt(gateway, 10**6)))

    def elsewhere(self, user: str, host: str, protocol: str = "imap") -> Any:
        return self.successResultOf(self.other.elsewhere(user.encode(), host, protocol))


class CountTests(RegistryCase):
    """Counts in the store."""

    def test_counted(self) -> None:
        """The sessions of a user count for the other gateway, by protocol and address, under all spellings."""
        ids = [
            self.one.relays.begin("joe", ANN),
            self.one.relays.begin("JOE+work", OTHER),
            self.two.relays.begin("joe", ANN),
            self.two.relays.begin("joe", ANN, "smtp"),
            self.two.relays.begin("ann", ANN),
        ]
        self.three.relays.begin("joe", ANN)
        self.wait()
        self.assertEqual(self.relays(), {"g1": 4, "g2": 1})
        self.assertEqual(self.relays("Joe", self.other), {"g1": 4, "g2": 1})
        self.assertEqual(self.elsewhere("joe", "192.0.2.7"), (3, 2))
        self.assertEqual(self.elsewhere("joe", "::ffff:192.0.2.7"), (3, 2))
        self.assertEqual(self.elsewhere("joe", "192.0.2.7", "smtp"), (1, 1))
        self.assertEqual(self.elsewhere("joe", "192.0.2.8"), (3, 0))
        self.assertEqual(self.elsewhere("eve", "192.0.2.7"), (0, 0))
        self.one.relays.end(ids[0])
        self.two.relays.end(ids[2])
        self.wait()
        self.assertEqual(self.elsewhere("joe", "192.0.2.7"), (1, 0))

    def test_limitPrefix(self) -> None:
        """What is one client for C{limit_conn} is one here."""
        self.one.relays.begin("joe", "[2001:db8::1]:7")
        self.one.relays.begin("joe", "[2001:db8::2]:7")
        self.one.relays.begin("joe", "[2001:db8:0:1::1]:7")
        self.one.relays.begin("joe", "unix:")
        self.wait()
        self.assertEqual(self.elsewhere("joe", "2001:db8::3"), (4, 2))

    def test_records(self) -> None:
        """The store has a sealed record of each session, which other gateways can read."""
        id = self.one.relays.begin("joe", ANN)
        self.wait()
        ((found, sealed),) = self.successResultOf(self.otherStore.sessionsAt("g1", 10)).items()
        self.assertEqual(found, id)
        row = self.other.records.read("g1", id, sealed)
        assert row is not None
        self.assertEqual((row["user"], row["client"]["address"], row["gateway"]), ("joe", "192.0.2.7", "g1"))

    def test_rate(self) -> None:
        """However much happens, there are at most ten beats per second; without news, one each 15 seconds."""
        self.store.calls.clear()
        for _ in range(100):
            self.one.relays.begin("joe")
            self.clock.advance(0.01)
            turn(self.clock)
        self.assertIn(self.store.calls.count("beat"), range(5, 12))
        self.wait(1)
        self.store.calls.clear()
        self.wait(10 * HEARTBEAT)
        self.assertIn(self.store.calls.count("beat"), range(9, 12))
        self.assertEqual(self.stored(), {"g1": 100})

    def test_renewed(self) -> None:
        """Counts of long sessions are told again before the store forgets them."""
        for number in range(250):
            self.one.relays.begin(f"user{number}")
        for _ in range(8 * 3600 // 15):
            self.clock.advance(HEARTBEAT)
            turn(self.clock)
        for number in range(250):
            self.assertEqual(self.stored(f"user{number}"), {"g1": 1})

    def test_manySessions(self) -> None:
        """More sessions than one beat has are told in several."""
        for number in range(2000):
            self.one.relays.begin(f"user{number}")
        self.wait(2)
        self.assertEqual((len(self.listed()), self.stored("user1999")), (2000, {"g1": 1}))
        self.memory.gateways.clear()
        self.wait(HEARTBEAT + 2)
        self.assertEqual((len(self.listed()), self.stored("user0")), (2000, {"g1": 1}))


class LifeTests(RegistryCase):
    """Processes, keepers and stores that come and go."""

    def test_killed(self) -> None:
        """The sessions of a gateway that was killed are no more after 45 seconds."""
        self.one.relays.begin("joe")
        self.wait()
        self.registry.handOver()
        self.wait(DEAD - HEARTBEAT - 2)
        self.assertEqual((self.stored(), len(self.listed())), ({"g1": 1}, 1))
        self.wait(HEARTBEAT + 2)
        self.assertEqual((self.stored(), self.listed()), ({}, set()))
        self.assertEqual(self.elsewhere("joe", "192.0.2.7"), (0, 0))

    def test_stopped(self) -> None:
        """A gateway that stops leaves nothing behind. One that was handed over leaves all to its successor."""
        self.one.relays.begin("joe")
        self.wait()
        self.other.handOver()
        self.successResultOf(self.other.stop())
        self.assertEqual(set(self.successResultOf(self.store.gateways())), {"g1", "g2"})
        self.successResultOf(self.registry.stop())
        self.assertEqual(set(self.successResultOf(self.store.gateways())), {"g2"})
        self.assertEqual(self.stored(), {})
        self.wait(60)
        self.assertEqual(set(self.successResultOf(self.store.gateways())), {"g2"})

    def test_stoppedWithoutStore(self) -> None:
        """A store that cannot be reached does not keep a gateway from stopping."""
        self.store.isUp = False
        self.successResultOf(self.registry.stop())
        self.unlink(self.one, self.registry)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_processEnds(self) -> None:
        """The sessions of a process that has ended are no more, at once; those of others stay."""
        self.one.relays.begin("joe")
        self.two.relays.begin("joe")
        self.wait()
        self.dead.add(self.one.pid)
        self.unlink(self.one, self.registry)
        self.wait()
        self.assertEqual((self.relays(), self.stored()), ({"g1": 1}, {"g1": 1}))

    def test_processEndsLater(self) -> None:
        """A process closes its link some time before it has ended."""
        self.one.relays.begin("joe")
        self.wait()
        self.unlink(self.one, self.registry)
        self.wait(3)
        self.assertEqual(self.relays(), {"g1": 1})
        self.dead.add(self.one.pid)
        self.wait(2)
        self.assertEqual(self.relays(), {})
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.getTime() < self.clock.seconds()], [])

    def test_linkLost(self) -> None:
        """A process that comes back is the same: what has not changed is told to no one, what has is."""
        stay, gone = self.one.relays.begin("joe"), self.one.relays.begin("joe")
        self.wait()
        self.unlink(self.one, self.registry)
        self.one.relays.end(gone)
        new = self.one.relays.begin("ann")
        self.wait(5)
        self.assertEqual(self.stored(), {"g1": 2})
        self.beats.clear()
        self.link(self.one, self.registry)
        self.assertFalse(self.registry.isWhole)
        self.wait()
        self.assertTrue(self.registry.isWhole)
        self.assertEqual((self.stored(), self.stored("ann")), ({"g1": 1}, {"g1": 1}))
        self.assertEqual(self.listed(), {stay, new})
        self.assertNotIn(stay, [id for each in self.beats for id in each.began])

    def test_lostForLong(self) -> None:
        """A process that runs on without a link is taken for gone some time. When it links again, it counts again."""
        self.one.relays.begin("joe")
        self.wait()
        self.unlink(self.one, self.registry)
        self.wait(LOST_FOR - 3)
        self.assertEqual(self.relays(), {"g1": 1})
        self.wait(5)
        self.assertEqual(self.relays(), {})
        self.link(self.one, self.registry)
        self.wait()
        self.assertEqual((self.relays(), self.stored()), ({"g1": 1}, {"g1": 1}))

    def test_late(self) -> None:
        """What comes over a link that was replaced, or from a process that is not known, counts for nothing."""
        again = Process(self.clock, self.one.name, self.one.pid)
        self.link(again, self.registry)
        self.one.relays.begin("joe")
        self.registry.left(self.one)
        self.registry.told(Process(self.clock, "proc9", 9), Sessions([["x"]], [], False, False))
        self.wait()
        self.assertEqual(self.relays(), {})

    def test_invalid(self) -> None:
        """A process can tell of its own sessions only."""
        id = self.one.relays.begin("joe")
        self.wait()
        (row,) = [row for message in self.one.told for row in message.began]
        for process, message in (
            (self.two, Sessions([row], [], False, False)),
            (self.two, Sessions([["secret"]], [], False, False)),
            (self.two, Sessions([], [["secret"]], False, False)),
        ):
            error = self.assertRaises(WireError, self.registry.told, process, message)
            self.assertNotIn("secret", str(error))
        self.registry.told(self.two, Sessions([], [id], False, False))
        self.assertEqual(self.relays(), {"g1": 1})

    def test_earlierRelease(self) -> None:
        """A process that cannot tell its sessions does not keep the registry incomplete."""
        old = Process(self.clock, "proc4", 4)
        refused: Deferred[Collected] = succeed(Collected((), ("it does not know the question",)))
        old.ask = lambda *arguments: refused  # type: ignore[method-assign]
        self.link(old, self.registry)
        self.wait()
        self.assertTrue(self.registry.isWhole)

    def test_keeperRestarted(self) -> None:
        """A keeper that follows one that was killed has the same sessions, and none more, under the same name."""
        ids = [self.one.relays.begin("joe") for _ in range(3)]
        self.wait()
        self.registry.handOver()
        self.unlink(self.one, self.registry)
        self.unlink(self.two, self.registry)
        self.one.relays.end(ids[0])
        self.store, self.registry = self.gateway("g1")
        self.wait(1)
        # Until the successor knows better, what the predecessor has told holds.
        self.assertEqual(self.stored(), {"g1": 3})
        self.link(self.one, self.registry)
        self.link(self.two, self.registry)
        self.wait(FIRST_AFTER)
        self.assertEqual((self.stored(), self.relays()), ({"g1": 2}, {"g1": 2}))
        self.assertEqual(self.listed(), set(ids[1:]))
        self.wait(120)
        self.assertEqual((self.stored(), self.flushLoggedErrors()), ({"g1": 2}, []))

    def test_storeAway(self) -> None:
        """What happens while the store is away it learns when it is back. Nobody knows meanwhile."""
        first = self.one.relays.begin("joe")
        self.wait()
        self.store.switch(False)
        self.one.relays.end(first)
        second = self.one.relays.begin("ann")
        third = self.one.relays.begin("joe")
        self.wait(3)
        self.one.relays.end(third)
        self.failureResultOf(self.registry.relaysOf(b"joe"), StoreUnavailable)
        self.assertIsNone(self.successResultOf(self.registry.elsewhere(b"joe", "192.0.2.7", "imap")))
        self.wait(20)
        self.store.switch(True)
        self.wait(2)
        self.assertEqual((self.stored(), self.stored("ann"), self.listed()), ({}, {"g1": 1}, {second}))

    def test_beatLost(self) -> None:
        """A beat that the store has not answered is told again, without what has ended meanwhile."""
        first, second = self.one.relays.begin("joe"), self.one.relays.begin("joe")
        self.isLossy = True
        self.wait(0.3)
        self.one.relays.end(first)
        self.wait(0.3)
        self.isLossy = False
        self.wait(2)
        self.assertEqual((self.stored(), self.listed()), ({"g1": 1}, {second}))
        self.isLossy = True
        self.one.relays.end(second)
        self.wait(0.3)
        self.isLossy = False
        self.wait(2)
        self.assertEqual((self.stored(), self.listed()), ({}, set()))

    def test_beatHeard(self) -> None:
        """A session whose beat the store has heard, though its answer was late, does not stay there when it ends."""
        beat, late = self.store.beat, self.late

        def heard() -> Deferred[bool]:
            self.isLossy = False
            beat(self.beats[-1])
            return late()

        self.isLossy = True
        self.patch(self, "late", heard)
        id = self.one.relays.begin("joe")
        self.wait(0.2)
        self.assertEqual((self.isLossy, self.listed()), (False, {id}))
        self.one.relays.end(id)
        self.wait(2)
        self.assertEqual((self.stored(), self.listed()), ({}, set()))

    def test_brief(self) -> None:
        """Of a session that begins and ends between two beats nothing is told, nor of its user's others."""
        stay = self.one.relays.begin("joe")
        self.wait()
        self.patch(beating, "APART", 1.0)
        self.beats.clear()
        self.two.relays.begin("ann")
        while not self.beats:
            self.wait(0.1)
        # The next one comes a second after it.
        self.beats.clear()
        for _ in range(2):
            ids = [self.one.relays.begin(user) for user in ("joe", "eve")]
            self.wait(0.2)
            for id in ids:
                self.one.relays.end(id)
            self.wait(0.1)
        last = self.one.relays.begin("bob")
        self.wait(2)
        self.assertEqual([[*each.began] for each in self.beats], [[last]])
        self.assertEqual([(each.ended, len(each.counts)) for each in self.beats], [([], 1)])
        self.assertEqual((self.stored(), self.stored("bob"), stay in self.listed()), ({"g1": 1}, {"g1": 1}, True))

    def test_countedEarlier(self) -> None:
        """
        A session of which the store has the count, but not yet the record, ends: its count does not stay. Where users
        have several sessions, their counts all are in the store before the last record is.
        """
        self.patch(beating, "MOST_A_BEAT", 2)
        self.patch(beating, "APART", 1.0)
        ids = [self.one.relays.begin("joe") for _ in range(6)]
        while self.stored() != {"g1": 6}:
            self.wait(0.1)
        told = self.listed()
        self.assertIn(len(told), range(1, 5))
        for id in [id for id in ids if id in told][:1] + [id for id in ids if id not in told][-1:]:
            self.one.relays.end(id)
        self.wait(5)
        self.assertEqual((self.stored(), len(self.listed())), ({"g1": 4}, 4))

    def test_rarelyTried(self) -> None:
        """While beats fail, there is one each second, whatever happens."""
        self.isLossy = True
        self.beats.clear()
        for _ in range(50):
            self.one.relays.begin("joe")
            self.wait(0.1)
        self.assertIn(len(self.beats), range(3, 8))

    def test_awayForLong(self) -> None:
        """What waits for a store that is away is bounded. It is told everything then, under a run of its own."""
        self.patch(beating, "MOST_WAITING", 30)
        stay = self.one.relays.begin("ann")
        gone = [self.one.relays.begin("joe") for _ in range(60)]
        self.wait(1)
        run = self.beats[-1].run
        self.store.switch(False)
        for id in gone:
            self.one.relays.end(id)
        self.wait(5)
        self.assertEqual(len(self.registry._beating._ended), 0)
        self.beats.clear()
        self.store.switch(True)
        self.wait(2)
        self.assertTrue(self.beats[0].isAll)
        self.assertNotEqual(self.beats[0].run, run)
        self.assertEqual((self.listed(), self.stored(), self.stored("ann")), ({stay}, {}, {"g1": 1}))

    def test_usersWhileAway(self) -> None:
        """Of users that come and go while the store is away, too, no more are kept than that."""
        self.patch(beating, "MOST_WAITING", 30)
        self.wait(1)
        self.store.switch(False)
        for number in range(100):
            self.wait(0.1)
            id = self.one.relays.begin(f"user{number}")
            self.wait(0.2)
            self.one.relays.end(id)
        self.wait(2)
        self.assertLess(len(self.registry._beating._users), 40)
        self.store.switch(True)
        self.wait(2)
        self.assertEqual((self.listed(), self.stored("user1")), (set(), {}))

    def test_storeEmpty(self) -> None:
        """A store that was restarted without its memory is told everything, with the next beat."""
        self.one.relays.begin("joe")
        self.wait()
        self.memory.gateways.clear()
        self.memory.counts = Memory().counts
        self.two.relays.begin("ann")
        self.wait(1)
        self.assertEqual((self.stored(), self.stored("ann"), len(self.listed())), ({"g1": 1}, {"g1": 1}, 2))
        self.assertEqual(len({beat.run for beat in self.beats}), 2)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_sameName(self) -> None:
        """Two gateways with one name are an error in the log of each, once, and do not load the store."""
        self.one.relays.begin("joe")
        _, twin = self.gateway("g1")
        stranger = Process(self.clock, "proc7", 7)
        self.link(stranger, twin)
        logged: list[str] = []

        observe: Any = lambda event: logged.append(formatEvent(event)) if event["log_level"].name == "error" else None  # noqa: E731
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.beats.clear()
        for _ in range(300):
            self.two.relays.begin("ann")
            stranger.relays.begin("ann")
            self.wait(1)
        self.assertEqual(len(logged), 2)
        self.assertIn("another gateway with gateway_name g1 uses the same store", logged[0])
        self.assertLess(sum(beat.isAll for beat in self.beats), 50)
        self.successResultOf(twin.stop())
        self.wait(40)
        self.assertEqual(self.stored(), {"g1": 1})


class RandomTests(RegistryCase):
    """Anything in any order."""

    def test_exact(self) -> None:
        """After any sequence, the store has exactly the sessions that there are, of each user and address."""
        for seed in range(12):
            self.random = Random(seed)
            self.setUp()
            self._play()
            self._compare(seed)

    def _play(self) -> None:
        random, processes = self.random, [self.one, self.two]
        linked = {self.one: True, self.two: True}
        for _ in range(400):
            process = random.choice(processes)
            deed = random.random()
            if deed < 0.45:
                user = random.choice(("joe", "Joe+x", "ann", "eve"))
                process.relays.begin(user, random.choice((ANN, OTHER, "unix:")), random.choice(("imap", "smtp")))
            elif deed < 0.8:
                if process.relays.live:
                    process.relays.end(random.choice(list(process.relays.live)))
            elif deed < 0.83:
                if linked[process]:
                    self.unlink(process, self.registry)
                else:
                    self.link(process, self.registry)
                linked[process] = not linked[process]
            elif deed < 0.86:
                self.store.switch(not self.store.isUp)
            elif deed < 0.87:
                self.isLossy = not self.isLossy
                self.store.late = random.choice((0.0, 0.03, 0.2))
            elif deed < 0.88:
                self.memory.gateways.clear()
            elif deed < 0.89:
                process.isFull = not process.isFull
                if not process.isFull:
                    process.feed.drained(process)
            elif deed < 0.9:
                for each in processes:
                    if linked[each]:
                        self.unlink(each, self.registry)
                self.registry.handOver()
                self.store, self.registry = self.gateway("g1")
                for each in processes:
                    if linked[each]:
                        self.link(each, self.registry)
            else:
                self.wait(random.choice((0.1, 0.1, 0.5, 3)))
        self.store.switch(True)
        self.store.late, self.isLossy = 0.0, False
        for process in processes:
            process.isFull = False
            process.feed.drained(process)
            if not linked[process]:
                self.link(process, self.registry)
        self.wait(HEARTBEAT + 5)

    def _compare(self, seed: int) -> None:
        live = [each.session for process in (self.one, self.two) for each in process.relays.live.values()]
        self.assertEqual(self.listed(), {session.id for session in live}, seed)
        names = {b"Joe+x": "joe"}
        users = [names.get(session.user, session.user.decode()) for session in live]
        self.assertEqual({user: self.stored(user).get("g1", 0) for user in set(users)}, Counter(users), seed)
        for user in ("joe", "ann", "eve"):
            self.assertEqual(self.stored(user).get("g1", 0), users.count(user), seed)
            for host in ("192.0.2.7", "198.51.100.3"):
                for protocol in ("imap", "smtp"):
                    mine = [
                        session.client.startswith(f"{host}:")
                        for name, session in zip(users, live, strict=True)
                        if name == user and session.protocol == protocol
                    ]
                    self.assertEqual(self.elsewhere(user, host, protocol), (len(mine), sum(mine)), seed)
