"""
What every store does: L{MemoryStore}, and L{RedisStore} with a real server.
"""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from mailgate.limits.windows import Window
from mailgate.store.address import StoreAddress
from mailgate.store.counts import packedCounts
from mailgate.store.interfaces import (
    DEAD,
    MOST_NOTES,
    Beat,
    Failure,
    Guess,
    IStore,
    Mark,
    Question,
    Standing,
    StoreUnavailable,
    Success,
)
from mailgate.store.keys import StoreKeys
from mailgate.store.memory import MemoryStore
from mailgate.store.redis.script import PREFIX, keyPart
from mailgate.store.redis.store import RedisStore, storeFor
from mailgate.store.settings import StoreAccess, StoreSettings
from mailgate.test.integration.daemon import shared
from mailgate.test.integration.redisserver import Commands, RedisServer, program
from mailgate.test.support.stores import SwitchedStore, beatOf

KEYS = StoreKeys(b"a secret of the gateways")
NAME, HOST = b"joe.secret@example.com", b"192.0.2.77"
USER, ADDRESS, NETWORK = KEYS.digest(b"user", NAME), KEYS.digest(b"address", HOST), KEYS.digest(b"network", b"192.0.2.")
OTHER, ELSEWHERE = KEYS.digest(b"user", b"ann"), KEYS.digest(b"address", b"198.51.100.9")
PAIR = StoreKeys.both(USER, ADDRESS)
IMAP, SMTP = b"im", b"sm"
HERE = ADDRESS[:4]


def failure(tag: bytes = b"ab", **changes: Any) -> Failure:
    """A failure of the user at the address."""
    values: dict[str, Any] = {
        "user": USER,
        "address": ADDRESS,
        "network": NETWORK,
        "pair": PAIR,
        "tag": tag,
        "weight": 60,
        "addressWeight": 60,
        "countsForUser": True,
    }
    return Failure(**values | changes)


def question(**changes: Any) -> Question:
    """A login of the user at the address."""
    values: dict[str, Any] = {"user": USER, "address": ADDRESS, "network": NETWORK, "pair": PAIR, "protocol": IMAP}
    return Question(**values | changes)


SUCCESS = Success(USER, ADDRESS, NETWORK, PAIR)


def _comparable(standing: Standing) -> tuple[Any, ...]:
    """What is known, without times that differ by the time that the test takes."""
    return (
        [(each.tag, each.weight) for each in standing.guesses],
        (standing.atAddress, standing.atNetwork, standing.ofUser, standing.failedUsers),
        standing.lastSuccess is None,
        [user for user, _ in standing.goods],
        [(each.thing, each.rule, each.count, round(each.seconds, -2)) for each in standing.marks],
        round(standing.wait, -2),
    )


class Contract:
    """
    What every store does.

    @ivar one: the store of the gateway C{g1}.
    @ivar two: that of C{g2}.
    """

    one: IStore
    two: IStore

    def wait(self, seconds: float) -> Deferred[None]:
        """Let time pass."""
        raise NotImplementedError

    def ageBeat(self, gateway: str, seconds: float) -> Deferred[None]:
        """A gateway has not beaten for a time."""
        raise NotImplementedError

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until C{condition} holds, for two seconds at most."""
        for _ in range(200):
            found = condition()
            if await found if isinstance(found, Deferred) else found:
                return
            await self.wait(0.01)
        raise AssertionError("it does not become so")

    # Failures.

    async def test_nothing(self):
        """Of a login without a past, nothing is known."""
        standing = await self.one.check(question())
        self.assertEqual([*standing.guesses, *standing.goods, *standing.marks, *standing.sessions], [])
        self.assertEqual((standing.atAddress, standing.atNetwork, standing.ofUser, standing.failedUsers), (0, 0, 0, 0))
        self.assertEqual((standing.lastSuccess, standing.wait, standing.turn), (None, 0, 0))

    async def test_failed(self):
        """A failure at one gateway counts at the other: for the pair, the address, the network and the user."""
        self.assertTrue(await self.one.failed(failure()))
        standing = await self.two.check(question())
        self.assertEqual([(each.tag, each.weight) for each in standing.guesses], [(b"ab", 60)])
        self.assertTrue(0 <= standing.guesses[0].age < 10)
        self.assertEqual(
            (standing.atAddress, standing.atNetwork, standing.ofUser, standing.failedUsers), (60, 60, 60, 1)
        )

    async def test_repeat(self):
        """The same password at another gateway is a repeat, and counts nothing."""
        await self.one.failed(failure())
        self.assertFalse(await self.two.failed(failure()))
        standing = await self.one.check(question())
        self.assertEqual((len(standing.guesses), standing.atAddress, standing.ofUser), (1, 60, 60))

    async def test_repeatOfUser(self):
        """The same password of the user at another address is new there, and counts for the user once."""
        await self.one.failed(failure())
        pair = StoreKeys.both(USER, ELSEWHERE)
        self.assertTrue(await self.two.failed(failure(address=ELSEWHERE, pair=pair)))
        standing = await self.one.check(question(address=ELSEWHERE, pair=pair))
        self.assertEqual((standing.atAddress, standing.atNetwork, standing.ofUser), (60, 120, 60))

    async def test_untagged(self):
        """Failures without tag are all new, and have the weight that they are given."""
        for _ in range(3):
            self.assertTrue(await self.one.failed(failure(b"", weight=20, addressWeight=40)))
        standing = await self.two.check(question())
        self.assertEqual([(each.tag, each.weight) for each in standing.guesses], [(b"", 20)] * 3)
        self.assertEqual((standing.atAddress, standing.atNetwork, standing.ofUser), (120, 120, 60))

    async def test_recognised(self):
        """A repeat that the gateway has recognised itself is seen again, or forgiven from the beginning."""
        repeat = {"weight": 0, "addressWeight": 0, "countsForUser": False}
        self.assertFalse(await self.one.failed(failure(b"xx", **repeat)))
        await self.one.failed(failure(b"yy"))
        self.assertFalse(await self.one.failed(failure(b"yy", **repeat)))
        standing = await self.two.check(question())
        self.assertEqual([(each.tag, each.weight) for each in standing.guesses], [(b"xx", 0), (b"yy", 60)])
        self.assertEqual((standing.atAddress, standing.ofUser), (60, 60))

    async def test_notAtAddress(self):
        """Without address, only pair and user count."""
        await self.one.failed(failure(address=b"", countsForUser=False))
        standing = await self.two.check(question())
        self.assertEqual((len(standing.guesses), standing.atAddress, standing.atNetwork, standing.ofUser), (1, 0, 0, 0))
        await self.one.failed(failure(b"cd"))
        standing = await self.two.check(question(address=b""))
        self.assertEqual(
            (len(standing.guesses), standing.atAddress, standing.atNetwork, standing.ofUser), (2, 0, 0, 60)
        )

    async def test_mostGuesses(self):
        """Of the failures of a pair the last ones are kept, and of the users of an address, too."""
        for at in range(6):
            await self.one.failed(failure(b"%02d" % at, user=bytes([at]) * 16, mostGuesses=3, mostUsers=4))
        standing = await self.two.check(question())
        self.assertEqual([each.tag for each in standing.guesses], [b"03", b"04", b"05"])
        self.assertEqual((standing.failedUsers, standing.atAddress), (4, 360))

    async def test_window(self):
        """Failures count for their time."""
        window = {"pairWindow": 0.06, "userWindow": 0.06}
        await self.one.failed(failure(**window))

        async def isOver() -> bool:
            standing = await self.two.check(question(**window))
            counts = (
                standing.atAddress,
                standing.atNetwork,
                standing.ofUser,
                standing.failedUsers,
                len(standing.guesses),
            )
            return counts == (0, 0, 0, 0, 0)

        self.assertFalse(await isOver())
        await self.until(lambda: Deferred.fromCoroutine(isOver()))
        self.assertTrue(await self.one.failed(failure(**window)))

    # Successes.

    async def test_succeeded(self):
        """A success makes the network known and the allowance larger."""
        await self.one.succeeded(SUCCESS)
        standing = await self.two.check(question())
        self.assertTrue(0 <= standing.lastSuccess < 10)
        self.assertEqual([user for user, age in standing.goods if 0 <= age < 10], [USER[:2]])
        self.assertEqual([*(await self.two.check(question(address=b""))).goods], [])
        other = await self.two.check(question(user=OTHER, pair=b""))
        self.assertEqual((other.lastSuccess, len(other.goods)), (None, 1))

    async def test_mostGoods(self):
        """Of the users who have succeeded at an address, the last nine are kept, each once."""
        for at in (*range(12), 11):
            user = bytes([at]) * 16
            await self.one.succeeded(Success(user, ADDRESS, NETWORK, StoreKeys.both(user, ADDRESS)))
        standing = await self.two.check(question())
        self.assertEqual([user[0] for user, _ in standing.goods], [*range(3, 12)])

    async def test_forgiven(self):
        """A success forgives the pair's failures: they are repeats from now on, and those without tag are forgotten."""
        await self.one.failed(failure())
        await self.one.failed(failure(b"", weight=20))
        await self.two.succeeded(SUCCESS)
        self.assertFalse(await self.one.failed(failure()))
        standing = await self.one.check(question())
        self.assertEqual([(each.tag, each.weight) for each in standing.guesses], [(b"ab", 0)])
        self.assertEqual(standing.atAddress, 120)

    async def test_forgotten(self):
        """Without a failure that could be repeated, nothing is left of the pair."""
        await self.one.failed(failure(b""))
        await self.two.succeeded(SUCCESS)
        self.assertEqual([*(await self.one.check(question())).guesses], [])

    # Rates.

    async def test_rate(self):
        """Logins of an address have one bucket at all gateways. One that is refused is not counted."""
        asked = question(interval=100.0, burst=2)
        waits = [(await store.check(asked)).wait for store in (self.one, self.two, self.one)]
        for wait, expected in zip(waits, (0, 100, 200), strict=True):
            self.assertTrue(expected - 10 < wait <= expected, waits)
        for store in (self.two, self.one):
            self.assertEqual((await store.check(asked)).wait, -1)
        self.assertEqual((await self.one.check(question(address=ELSEWHERE, pair=b"", interval=100.0))).wait, 0)
        self.assertEqual((await self.one.check(question())).wait, 0)

    async def test_rateOfMany(self):
        """The allowance of the address divides the interval."""
        for user in (OTHER, b"u" * 16):
            await self.one.succeeded(Success(user, ADDRESS, NETWORK, StoreKeys.both(user, ADDRESS)))
        for most, expected in ((10, 100), (2, 150)):
            address = question(interval=300.0, burst=5, mostAllowance=most)
            await self.one.check(address)
            wait = (await self.two.check(address)).wait
            self.assertTrue(expected - 10 < wait % 200 or expected < 150 < wait, wait)

    async def test_rateOfKnown(self):
        """A login from a network that the user is known at does not count."""
        await self.one.succeeded(SUCCESS)
        for _ in range(3):
            self.assertEqual((await self.two.check(question(interval=100.0))).wait, 0)
        self.assertEqual((await self.two.check(question(user=OTHER, pair=b"", interval=100.0))).wait, 0)

    # Blocks, leases and clearing.

    async def test_mark(self):
        """A block at one gateway holds at the other."""
        await self.one.mark(Mark(PAIR, "R2", 900.0, 2, b"sealed"), 3600.0)
        await self.one.mark(Mark(ADDRESS, "R4", 1800.0, 1), 3600.0)
        await self.one.mark(Mark(USER, "R7", 60.0, 1), 0.0)
        marks = (await self.two.check(question())).marks
        self.assertEqual(
            [(each.thing, each.rule, each.count, each.name) for each in marks],
            [(PAIR, "R2", 2, b"sealed"), (ADDRESS, "R4", 1, b""), (USER, "R7", 1, b"")],
        )
        self.assertTrue(
            all(most - 10 < each.seconds <= most for each, most in zip(marks, (900, 1800, 60), strict=True))
        )
        other = await self.two.check(question(user=OTHER, pair=b""))
        self.assertEqual([each.thing for each in other.marks], [ADDRESS])

    async def test_markEnded(self):
        """A block that has ended is kept for its time, so that the next one is longer; it is not made shorter."""
        await self.one.mark(Mark(PAIR, "R2", 0.001, 3), 3600.0)
        await self.until(lambda: self.two.check(question()).addCallback(lambda found: found.marks[0].seconds < 0))
        await self.one.mark(Mark(PAIR, "R2", 900.0, 4), 3600.0)
        await self.two.mark(Mark(PAIR, "R2", 10.0, 1), 3600.0)
        (mark,) = (await self.two.check(question())).marks
        self.assertEqual(mark.count, 4)
        self.assertTrue(mark.seconds > 800)

    async def test_clear(self):
        """Clearing a pair, an address, a network or a user ends what is counted for it, and no more."""
        everything = (2, 120, 120, 120, 2, 3)
        for thing, left in (
            (PAIR, (0, 120, 120, 120, 2, 2)),
            (ADDRESS, (0, 0, 120, 120, 0, 1)),
            (NETWORK, (0, 0, 0, 120, 0, 1)),
            (USER, (0, 120, 120, 0, 2, 1)),
            (OTHER, everything),
        ):
            await self._fill()
            self.assertEqual(await self._filled(), everything)
            await self.two.clear([thing])
            self.assertEqual(await self._filled(), left, thing)
            # What fails from now on counts.
            await self.one.failed(failure(b"zz"))
            self.assertEqual((await self._filled())[0], left[0] + 1)
            await self.two.clear([USER, ADDRESS, NETWORK, PAIR])
            self.assertEqual(await self._filled(), (0,) * 6)

    async def _fill(self) -> None:
        await self.one.failed(failure(b"ab"))
        await self.one.failed(failure(b"cd", user=OTHER, countsForUser=False))
        await self.one.failed(failure(b"ef", pair=b"p" * 16, address=b"", network=b""))
        for thing, parts in ((PAIR, (USER, ADDRESS, NETWORK)), (ADDRESS, (NETWORK,)), (USER, ())):
            await self.one.mark(Mark(thing, "R2", 900.0, 1, parts=parts), 10.0)

    async def _filled(self) -> tuple[int, ...]:
        found = await self.one.check(question())
        counts = found.atAddress, found.atNetwork, found.ofUser
        return len(found.guesses), *counts, found.failedUsers, len(found.marks)

    async def test_clearedMark(self):
        """A block that was cleared makes the next one no longer."""
        parts = (USER, ADDRESS, NETWORK)
        await self.one.mark(Mark(PAIR, "R2", 9000.0, 5, parts=parts), 10.0)
        await self.two.clear([USER])
        await self.one.mark(Mark(PAIR, "R2", 900.0, 1, parts=parts), 10.0)
        (mark,) = (await self.two.check(question())).marks
        self.assertEqual(mark.count, 1)
        self.assertTrue(mark.seconds <= 900)

    async def test_lease(self):
        """Only one has a lease at a time. That of a user is his turn; clearing him ends it."""
        self.assertTrue(await self.one.lease(USER, 60.0))
        self.assertFalse(await self.two.lease(USER, 60.0))
        self.assertTrue(50 < (await self.two.check(question())).turn <= 60)
        self.assertTrue(await self.two.lease(b"another and longer name", 60.0))
        self.assertFalse(await self.one.lease(b"another and longer name", 60.0))
        await self.one.clear([USER])
        self.assertEqual((await self.two.check(question())).turn, 0)
        self.assertTrue(await self.two.lease(USER, 0.01))
        await self.until(lambda: self.one.lease(USER, 60.0))

    # Notes.

    async def test_notes(self):
        """Notes are read at the other gateway, until they end or are taken away."""
        self.assertEqual(await self.two.notes("blocks"), {})
        await self.one.put("blocks", "g1.b1", b"\x00sealed", 60.0)
        await self.one.put("blocks", "g1.b2", b"", 0.02)
        await self.one.put("kicks", "k1", b"other", 60.0)
        found = await self.two.notes("blocks")
        self.assertEqual(found["g1.b1"][0], b"\x00sealed")
        self.assertTrue(50 < found["g1.b1"][1] <= 60)
        await self.until(lambda: self.two.notes("blocks").addCallback(lambda notes: [*notes] == ["g1.b1"]))
        await self.two.put("blocks", "g1.b1", b"changed", 30.0)
        self.assertEqual((await self.one.notes("blocks"))["g1.b1"][0], b"changed")
        await self.two.take("blocks", ["g1.b1", "other"])
        await self.two.take("blocks", [])
        await self.two.take("none", ["other"])
        self.assertEqual(await self.one.notes("blocks"), {})
        self.assertEqual([*await self.one.notes("kicks")], ["k1"])

    # Places.

    async def test_place(self):
        """The first place holds at all gateways, unless it is the one that it must not be."""
        key = KEYS.digest(b"place", NAME)
        self.assertEqual(await self.two.placeOf(key), b"")
        self.assertEqual(await self.one.place(key, b"a:143", 60.0), b"a:143")
        self.assertEqual(await self.two.place(key, b"b:143", 60.0), b"a:143")
        self.assertEqual(await self.two.placeOf(key), b"a:143")
        self.assertEqual(await self.two.place(key, b"b:143", 60.0, b"c:143"), b"a:143")
        self.assertEqual(await self.two.place(key, b"b:143", 60.0, b"a:143"), b"b:143")
        self.assertEqual(await self.one.place(key, b"c:143", 60.0, b"a:143"), b"b:143")
        self.assertEqual(await self.one.place(key, b"c:143", 60.0, b""), b"c:143")
        await self.two.retain([key, USER], 0.02)
        await self.until(lambda: self.one.placeOf(key).addCallback(lambda place: place == b""))
        await self.one.place(key, b"a:143", 60.0)
        await self.two.retain([key], 0)
        self.assertEqual(await self.one.placeOf(key), b"")

    async def test_placeProlonged(self):
        """A place that is asked for lasts longer."""
        await self.one.place(USER, b"a:143", 0.02)
        await self.two.place(USER, b"b:143", 60.0)
        await self.wait(0.05)
        self.assertEqual(await self.one.placeOf(USER), b"a:143")

    # The registry.

    async def test_beat(self):
        """A gateway's sessions and counts are read at the other one."""
        counts = {USER: {IMAP + HERE: 2, IMAP + b"else": 1, SMTP + HERE: 4}, OTHER: {IMAP + bytes(4): 1}}
        self.assertTrue(
            await self.one.beat(beatOf("g1", "r1", {"s1": b"one", "s2": b"two"}, isAll=True, counts=counts))
        )
        self.assertTrue(await self.one.beat(Beat("g1", "r1", {"s3": b"three"}, ["s1", "s9"])))
        self.assertEqual(await self.two.sessionsAt("g1", 10), {"s2": b"two", "s3": b"three"})
        self.assertEqual(len(await self.two.sessionsAt("g1", 1)), 1)
        self.assertEqual(await self.two.sessionsAt("g2", 10), {})
        self.assertEqual((await self.two.check(question())).sessions, {"g1": (3, 2)})
        self.assertEqual((await self.two.check(question(protocol=SMTP))).sessions, {"g1": (4, 4)})
        self.assertEqual((await self.two.check(question(user=OTHER, address=b"", pair=b""))).sessions, {"g1": (1, 1)})
        self.assertEqual(await self.two.sessionsOf(USER), {"g1": 7})
        ((name, (run, age)),) = (await self.two.gateways()).items()
        self.assertEqual((name, run), ("g1", "r1"))
        self.assertTrue(0 <= age < 10)

    async def test_counts(self):
        """Each gateway says its own counts; no session any more, no count."""
        for store, name, count in ((self.one, "g1", 2), (self.two, "g2", 3)):
            await store.beat(beatOf(name, "r1", isAll=True, counts={USER: {IMAP + HERE: count}}))
        self.assertEqual(await self.one.sessionsOf(USER), {"g1": 2, "g2": 3})
        self.assertEqual((await self.one.check(question())).sessions, {"g2": (3, 3)})
        self.assertEqual((await self.two.check(question())).sessions, {"g1": (2, 2)})
        await self.two.beat(beatOf("g2", "r1", counts={USER: {}}))
        self.assertEqual(await self.one.sessionsOf(USER), {"g1": 2})

    async def test_manyCounts(self):
        """Of a user with sessions from very many addresses, none is lost."""
        counts = {IMAP + at.to_bytes(4, "big"): 1 + (at == 3) for at in range(300)}
        await self.one.beat(beatOf("g1", "r1", isAll=True, counts={USER: counts}))
        self.assertEqual(await self.two.sessionsOf(USER), {"g1": 301})
        asked = question(address=(3).to_bytes(4, "big") + bytes(12))
        self.assertEqual((await self.two.check(asked)).sessions, {"g1": (301, 2)})

    async def test_known(self):
        """
        Of many known pairs at once, what concerns them is said: failures, blocks, and sessions at other gateways. Of
        one without, nothing is said, also if others have succeeded there.
        """
        await self.one.succeeded(SUCCESS)
        await self.one.beat(beatOf("g1", "r1", isAll=True, counts={USER: {IMAP + HERE: 2}, OTHER: {SMTP + HERE: 1}}))
        quiet = question(user=OTHER, address=ELSEWHERE, network=ELSEWHERE, pair=b"")
        self.assertEqual([*await self.one.checkKnown([question(), quiet])], [None, None])
        found = await self.two.checkKnown([quiet, question(), quiet, evolve(quiet, protocol=SMTP)])
        self.assertEqual([each and each.sessions for each in found], [None, {"g1": (2, 2)}, None, {"g1": (1, 0)}])
        await self.one.failed(failure())
        await self.one.mark(Mark(PAIR, "R2", 900.0, 1, b"sealed"), 3600.0)
        found = await self.one.checkKnown([quiet] * 31 + [question(interval=100.0)])
        self.assertEqual([*found[:31]], [None] * 31)
        asked = await self.one.check(question())
        self.assertEqual(_comparable(found[31]), _comparable(evolve(asked, goods=[], lastSuccess=None)))
        self.assertEqual((found[31].sessions, asked.wait), ({}, 0.0))

    async def test_unknownRun(self):
        """A beat of another run than the store knows keeps nothing."""
        changes = {"began": {"s1": b"one"}, "counts": {USER: packedCounts({IMAP + HERE: 1})}}
        self.assertFalse(await self.one.beat(Beat("g1", "r1", **changes)))
        self.assertEqual(await self.two.gateways(), {})
        await self.one.beat(Beat("g1", "r1", isAll=True))
        self.assertFalse(await self.one.beat(Beat("g1", "r2", **changes)))
        self.assertEqual(await self.two.sessionsAt("g1", 10), {})
        self.assertEqual(await self.two.sessionsOf(USER), {})
        self.assertTrue(await self.one.beat(Beat("g1", "r1", **changes)))

    async def test_restarted(self):
        """Sessions and counts of an earlier run are void."""
        await self.one.beat(beatOf("g1", "r1", {"s1": b"one"}, isAll=True, counts={USER: {IMAP + HERE: 5}}))
        await self.one.beat(beatOf("g1", "r2", {"s2": b"two"}, isAll=True, counts={OTHER: {IMAP + HERE: 1}}))
        self.assertEqual(await self.two.sessionsAt("g1", 10), {"s2": b"two"})
        self.assertEqual(await self.two.sessionsOf(USER), {})
        self.assertEqual(await self.two.sessionsOf(OTHER), {"g1": 1})
        self.assertEqual((await self.two.gateways())["g1"][0], "r2")

    async def test_large(self):
        """Very many sessions are said in parts, and are all there in the end; the earlier ones until then."""
        await self.one.beat(Beat("g1", "r1", {"old": b"x"}, isAll=True))
        sessions = {f"s{at}": b"record %d" % at for at in range(1234)}
        counts = {at.to_bytes(16, "big"): {IMAP + HERE: 1} for at in range(1, 1001)}
        result = self.one.beat(beatOf("g1", "r2", sessions, isAll=True, counts=counts))
        self.assertTrue(await result)
        self.assertEqual(await self.two.sessionsAt("g1", 10000), sessions)
        self.assertEqual(len(await self.two.sessionsAt("g1", 700)), 700)
        self.assertEqual(await self.two.sessionsOf((1000).to_bytes(16, "big")), {"g1": 1})
        self.assertTrue(await self.one.beat(Beat("g1", "r2", ended=[*sessions][:1000])))
        self.assertEqual(len(await self.two.sessionsAt("g1", 10000)), 234)

    async def test_dead(self):
        """The sessions and counts of a gateway that does not beat any more are void after a time."""
        await self.one.beat(beatOf("g1", "r1", {"s1": b"one"}, isAll=True, counts={USER: {IMAP + HERE: 5}}))
        await self.ageBeat("g1", DEAD - 1)
        self.assertEqual(await self.two.sessionsOf(USER), {"g1": 5})
        await self.ageBeat("g1", 2.0)
        self.assertEqual((await self.two.check(question())).sessions, {})
        self.assertEqual(await self.two.sessionsOf(USER), {})
        self.assertEqual(await self.two.sessionsAt("g1", 10), {})
        self.assertTrue(DEAD < (await self.two.gateways())["g1"][1] < DEAD + 15)
        # It was only slow.
        self.assertTrue(await self.one.beat(Beat("g1", "r1")))
        self.assertEqual(await self.two.sessionsOf(USER), {"g1": 5})
        await self.ageBeat("g1", 3601.0)
        self.assertEqual(await self.two.gateways(), {})

    async def test_leave(self):
        """A gateway that stops is gone at once; not because of an earlier run."""
        await self.one.beat(beatOf("g1", "r1", {"s1": b"one"}, isAll=True, counts={USER: {IMAP + HERE: 5}}))
        await self.one.leave("g1", "r0")
        await self.one.leave("g9", "r1")
        self.assertEqual(await self.two.sessionsOf(USER), {"g1": 5})
        await self.one.leave("g1", "r1")
        self.assertEqual((await self.two.check(question())).sessions, {})
        self.assertEqual(await self.two.sessionsAt("g1", 10), {})
        self.assertEqual(await self.two.gateways(), {})
        self.assertFalse(await self.one.beat(Beat("g1", "r1")))

    # Messages.

    async def test_publish(self):
        """All gateways hear a message, the sender too; those to one gateway only that one."""
        heard: list[tuple[int, str, bytes]] = []
        self.one.heard = lambda channel, message: heard.append((1, channel, message))
        self.two.heard = lambda channel, message: heard.append((2, channel, message))
        self.assertEqual(await self.one.publish("events", b"\x00one"), 2)
        self.assertEqual(await self.one.publish("to:g2", b"two"), 1)
        self.assertEqual(await self.two.publish("to:g3", b"three"), 0)
        await self.until(lambda: len(heard) >= 3)
        await self.wait(0.01)
        self.assertEqual(sorted(heard), [(1, "events", b"\x00one"), (2, "events", b"\x00one"), (2, "to:g2", b"two")])


class MemoryTests(Contract, TestCase):
    """L{MemoryStore}."""

    def setUp(self):
        self.clock = Clock()
        self.one = MemoryStore(self.clock, None, "g1")
        self.two = MemoryStore(self.clock, self.one.memory, "g2")
        for store in (self.one, self.two):
            store.start()
            self.addCleanup(store.stop)

    def wait(self, seconds):
        self.clock.advance(seconds)
        return succeed(None)

    def ageBeat(self, gateway, seconds):
        return self.wait(seconds)

    async def test_bounded(self):
        """A shelf has a bound."""
        for at in range(MOST_NOTES + 1):
            await self.one.put("blocks", f"n{at}", b"", 60.0 + at)
        self.assertTrue(len(await self.two.notes("blocks")) <= MOST_NOTES)

    async def test_windows(self):
        """Failures slide out of the windows as those of one gateway do."""
        window, row = Window(3600.0), None
        for seconds in (0.0, 600.0, 3010.0, 2000.0, 4000.0, 100.0, 8000.0):
            await self.wait(seconds)
            if seconds < 4000:
                await self.one.failed(failure(b""))
                row = window.add(row, 60, self.clock.seconds())
            found = (await self.two.check(question())).atAddress
            self.assertApproximates(found, window.count(row, self.clock.seconds()), 1)


class SwitchedTests(SynchronousTestCase):
    """L{SwitchedStore}, which other tests stand on."""

    def test_switched(self):
        """It is down, or late, as it is told to be."""
        clock = Clock()
        store = SwitchedStore(clock, None, "g1")
        changes: list[Any] = []
        store.changed, store.resumed = changes.append, lambda: changes.append("resumed")
        store.switch(False)
        self.failureResultOf(store.check(question()), StoreUnavailable)
        store.switch(True)
        self.assertEqual(changes, [False, True, "resumed"])
        store.late = 0.03
        result = store.failed(failure())
        self.assertNoResult(result)
        clock.advance(0.03)
        self.assertTrue(self.successResultOf(result))
        store.late = 1.0
        result = store.check(question())
        clock.advance(0.05)
        self.failureResultOf(result, StoreUnavailable)
        self.assertEqual(store.calls, ["check", "failed", "check"])


class RedisTests(Contract, TestCase):
    """L{RedisStore}."""

    timeout = 30

    async def setUp(self):
        if program() is None:
            raise SkipTest("there is no server")
        try:
            import txredisapi  # noqa: F401
        except ImportError:
            raise SkipTest("txredisapi is missing") from None
        self.server = shared("store", RedisServer)
        self.commands: Commands = self.server.commands()
        self.addCleanup(self.commands.close)
        self.commands("FLUSHALL")
        self.one, self.two = [self.made(name) for name in ("g1", "g2")]
        for store in (self.one, self.two):
            resumed: Deferred[None] = Deferred()
            store.resumed = lambda resumed=resumed: resumed.called or resumed.callback(None)
            store.start()
            self.addCleanup(store.stop)
            await resumed

    def made(self, gateway: str) -> RedisStore:
        from twisted.internet import reactor

        settings = StoreSettings(address=StoreAddress(path=self.server.path), timeout=2.0)
        return storeFor(settings, StoreAccess(b"secret" * 6), reactor, gateway)

    def wait(self, seconds):
        from twisted.internet import reactor

        return deferLater(reactor, seconds)

    def ageBeat(self, gateway, seconds):
        entry = self.commands("HGET", "mg:1:gw", gateway)
        moment = int.from_bytes(entry[:6], "little") - int(seconds * 1000)
        self.commands("HSET", "mg:1:gw", gateway, moment.to_bytes(6, "little") + entry[6:])
        return succeed(None)

    def everything(self) -> dict[bytes, list[bytes]]:
        """All keys, and what is in them."""
        readers = {b"string": ("GET",), b"hash": ("HGETALL",), b"zset": ("ZRANGE", 0, -1)}
        found = {}
        for key in self.commands("KEYS", "*"):
            command, *rest = readers[self.commands("TYPE", key)]
            value = self.commands(command, key, *rest)
            found[key] = value if isinstance(value, list) else [value]
        return found

    async def fill(self) -> None:
        """Do all that writes."""
        await self.one.failed(failure())
        await self.one.check(question(interval=100.0))
        await self.one.succeeded(SUCCESS)
        await self.one.failed(failure(b"cd", user=OTHER))
        await self.one.mark(Mark(PAIR, "R2", 900.0, 1, b"sealed"), 3600.0)
        await self.one.lease(OTHER, 60.0)
        await self.one.lease(b"tickets", 60.0)
        await self.one.clear([ELSEWHERE])
        await self.one.put("blocks", "b1", b"sealed", 60.0)
        await self.one.place(USER, b"192.0.2.1:143", 60.0)
        await self.one.beat(beatOf("g1", "r1", {"s1": b"sealed"}, isAll=True, counts={USER: {IMAP + HERE: 1}}))
        await self.one.beat(Beat("g2", "r1", {f"s{at}": b"sealed" for at in range(300)}, isAll=True))

    async def test_ends(self):
        """Whatever is in the store ends by itself, and all keys begin alike."""
        await self.fill()
        kinds = set()
        for key in self.everything():
            self.assertTrue(0 < self.commands("PTTL", key) <= 31 * 86400 * 1000, key)
            self.assertTrue(key.startswith(PREFIX.encode()), key)
            kinds.add(key.decode().split(":")[2])
        self.assertEqual(kinds - {"probe"}, {*"pfnuktgblzca", "r", "gw", "note", "ends"})

    async def test_endsOfMarks(self):
        """How long keys are kept."""
        await self.fill()
        part = keyPart(USER)
        for key, seconds in (
            (f"p:{keyPart(PAIR)}", 3600),
            (f"f:{keyPart(ADDRESS)}", 7200),
            (f"n:{keyPart(NETWORK)}", 7200),
            (f"u:{part}", 2 * 86400),
            (f"k:{keyPart(StoreKeys.both(USER, NETWORK))}", 30 * 86400),
            (f"g:{keyPart(ADDRESS)}", 7 * 86400),
            (f"b:{keyPart(PAIR)}", 4500),
            (f"t:{keyPart(ADDRESS)}", 100),
            (f"l:{keyPart(OTHER)}", 60),
            (f"z:{keyPart(ELSEWHERE)}", 7 * 86400),
            (f"c:{part}", 3600),
            (f"a:{part}", 60),
            ("r:g1:r1", 3600),
            ("gw", 7200),
            ("note:blocks", 60),
        ):
            left = self.commands("PTTL", PREFIX + key) / 1000
            self.assertTrue(seconds - 10 < left <= seconds, (key, left))

    async def test_noNames(self):
        """Neither keys nor values have a name or an address of a person."""
        await self.fill()
        for key, values in self.everything().items():
            for text in (key, *values):
                for name in (NAME, b"joe", HOST, b"192.0.2.77", bytes([192, 0, 2, 77])):
                    self.assertNotIn(name, text)

    async def test_writesOfSuccess(self):
        """A further success of a user writes his last success, and nothing else."""
        await self.one.failed(failure())
        await self.one.succeeded(SUCCESS)
        before = self.everything()
        left = self.commands("PTTL", f"{PREFIX}p:{keyPart(PAIR)}")
        self.commands("CONFIG", "RESETSTAT")
        await self.one.succeeded(SUCCESS)
        self.assertEqual(before.keys(), self.everything().keys())
        self.assertTrue(0 < self.commands("PTTL", f"{PREFIX}p:{keyPart(PAIR)}") <= left)
        stats = self.commands("INFO", "commandstats").decode()
        self.assertIn("cmdstat_set:calls=1,", stats)

    async def test_windows(self):
        """Counts are those of L{Window}, at whatever time."""

        def now() -> int:
            return int(self.commands("TIME")[0])

        for passed in (0, 1000, 3599, 3601, 5000, 7100, 7300, 9000):
            start = now() - passed
            row = start.to_bytes(4, "little") + (300).to_bytes(4, "little") + (600).to_bytes(4, "little")
            text = (start * 1000000).to_bytes(7, "little") + row[4:]
            for kind, thing in (("f", ADDRESS), ("n", NETWORK), ("u", USER)):
                self.commands("SET", f"{PREFIX}{kind}:{keyPart(thing)}", text, "PX", 100000)
            found = await self.one.check(question(userWindow=3600.0))
            for count in (found.atAddress, found.atNetwork, found.ofUser):
                self.assertApproximates(count, Window(3600.0).count(row, now()), 1)
            await self.one.failed(failure(b"", user=USER, userWindow=3600.0))
            found = await self.one.check(question(userWindow=3600.0))
            expected = Window(3600.0).count(Window(3600.0).add(row, 60, now()), now())
            for count in (found.atAddress, found.atNetwork, found.ofUser):
                self.assertApproximates(count, expected, 1)

    async def test_sameAsMemory(self):
        """Whatever happens, both stores know the same about a login."""
        chance = random.Random(21)
        clock = Clock()
        clock.advance(1e9)
        memory = MemoryStore(clock)
        users = [USER, OTHER, KEYS.digest(b"user", b"eve")]
        places = [(ADDRESS, NETWORK), (ELSEWHERE, NETWORK), (b"", NETWORK), (KEYS.digest(b"address", b"x"), b"n" * 16)]
        for step in range(600):
            user, (address, network) = chance.choice(users), chance.choice(places)
            pair = StoreKeys.both(user, address or b"e" * 16)
            tag = chance.choice((b"aa", b"bb", b"cc", b""))
            weight = chance.choice((60, 60, 0)) if tag else 20
            failed = Failure(user, address, network, pair, tag, weight, 2 * weight, chance.random() < 0.5)
            marked = Mark(
                pair, "R2", 900.0 * chance.randint(1, 3), chance.randint(1, 4), parts=(user, address, network)
            )
            answers = []
            for store in (memory, self.one):
                if step % 17 == 0:
                    answer = store.succeeded(Success(user, address, network, pair))
                elif step % 17 == 1:
                    answer = store.mark(marked, 100.0)
                elif step % 17 == 2:
                    answer = store.clear([(user, address, network, pair)[step % 4] or user])
                else:
                    answer = store.failed(failed)
                answers.append(await answer)
            self.assertEqual(*answers, step)
            asked = Question(user, address, network, pair, IMAP, 1000.0, 3)
            clock.advance(0.001)
            self.assertEqual(*[_comparable(await store.check(asked)) for store in (memory, self.one)], step)
            known = [await store.checkKnown([asked]) for store in (memory, self.one)]
            self.assertEqual(*[[each and _comparable(each) for each in found] for found in known], step)

    async def test_clocks(self):
        """What is from a time to come, because the store's clock was set back, has no age and harms nothing."""
        await self.fill()
        moment = int(self.commands("TIME")[0]) + 3600
        later = (moment * 1000000).to_bytes(7, "little")
        self.commands("SET", f"{PREFIX}p:{keyPart(PAIR)}", later + b"ab" + bytes([60, 1]), "PX", 100000)
        counts = (0).to_bytes(4, "little") + (60).to_bytes(4, "little")
        self.commands("SET", f"{PREFIX}f:{keyPart(ADDRESS)}", later + counts, "PX", 100000)
        self.commands("SET", f"{PREFIX}k:{keyPart(StoreKeys.both(USER, NETWORK))}", moment, "PX", 100000)
        standing = await self.one.check(question())
        self.assertEqual(standing.guesses, [Guess(b"ab", 0.0, 60)])
        self.assertEqual((standing.lastSuccess, standing.atAddress), (0.0, 60))
        self.assertFalse(await self.one.failed(failure()))
        await self.one.succeeded(SUCCESS)

    async def test_lost(self):
        """A store that has lost the sessions of a gateway says so."""
        await self.one.beat(Beat("g1", "r1", {"s1": b"one"}, isAll=True))
        self.commands("DEL", f"{PREFIX}r:g1:r1")
        self.assertFalse(await self.one.beat(Beat("g1", "r1")))
        self.commands("FLUSHALL")
        self.assertFalse(await self.one.beat(Beat("g1", "r1")))

    async def test_parts(self):
        """While all sessions are said anew, those of before are seen, and counts of both runs count."""
        await self.one.beat(beatOf("g1", "r1", {"old": b"x"}, isAll=True, counts={USER: {IMAP + HERE: 1}}))
        script, seen = self.one._script, []

        async def watched(*arguments: Any) -> Any:
            reply = await script(*arguments)
            seen.append((await self.two.sessionsAt("g1", 1), await self.two.sessionsOf(USER)))
            return reply

        self.one._script = lambda *arguments: Deferred.fromCoroutine(watched(*arguments))
        sessions = {f"s{at}": b"y" for at in range(500)}
        await self.one.beat(beatOf("g1", "r2", sessions, isAll=True, counts={OTHER: {IMAP + HERE: 1}}))
        self.assertEqual(seen[:-1], [({"old": b"x"}, {"g1": 1})] * 4)
        self.assertNotIn("old", seen[-1][0])
        self.assertEqual(seen[-1][1], {})
        self.assertEqual([key for key in self.everything() if b":r:g1:" in key], [b"mg:1:r:g1:r2"])

    async def test_short(self):
        """What is long is done in many scripts, between which the store answers others."""
        sessions = {f"{at:032x}": bytes(200) for at in range(2000)}
        users = [at.to_bytes(16, "big") for at in range(3000)]
        for call, scripts in (
            (lambda: self.one.beat(Beat("g1", "r1", sessions, isAll=True)), 20),
            (lambda: self.one.beat(beatOf("g1", "r1", counts={user: {IMAP + HERE: 1} for user in users})), 30),
            (lambda: self.one.clear(users), 30),
            (lambda: self.one.retain(users, 60.0), 30),
            (lambda: self.one.take("blocks", [*sessions]), 20),
        ):
            self.commands("CONFIG", "RESETSTAT")
            await call()
            self.assertIn(f"cmdstat_evalsha:calls={scripts},", self.commands("INFO", "commandstats").decode())

    async def test_damaged(self):
        """Values that others have damaged are not there, or are refused; there is no other error."""
        await self.fill()
        for key, values in self.everything().items():
            if len(values) == 1:
                for junk in (b"", b"x", b"\xff" * 13, b"\xff" * 90):
                    self.commands("SET", key, junk, "KEEPTTL")
                    await self._allAnswered()
        for key in [*self.everything()]:
            self.commands("DEL", key)
            self.commands("LPUSH", key, b"a list")
        await self._allAnswered()

    async def _allAnswered(self) -> None:
        for call in (
            lambda: self.one.check(question(interval=100.0)),
            lambda: self.one.checkKnown([question()] * 3),
            lambda: self.one.failed(failure(b"zz")),
            lambda: self.one.succeeded(SUCCESS),
            lambda: self.one.mark(Mark(PAIR, "R2", 900.0, 1, b""), 60.0),
            lambda: self.one.placeOf(USER),
            lambda: self.one.place(USER, b"a:1", 60.0),
            lambda: self.one.notes("blocks"),
            lambda: self.one.gateways(),
            lambda: self.one.sessionsOf(USER),
            lambda: self.one.sessionsAt("g1", 10),
            lambda: self.one.beat(beatOf("g1", "r1", counts={USER: {IMAP + HERE: 1}})),
        ):
            store: Any = self.one
            store._connection._breaker.failures = 0
            with contextlib.suppress(StoreUnavailable):
                await call()


class _Replies:
    """A connection that replies with the same to everything."""

    isUp = True
    reason = ""

    def __init__(self, reply: Any) -> None:
        self.reply = reply

    def call(self, *words: Any) -> Deferred[Any]:
        return succeed(self.reply)

    def script(self, script: Any, keys: Any, arguments: Any = ()) -> Deferred[Any]:
        return succeed(self.reply)


class RepliesTests(SynchronousTestCase):
    """Replies of another form than was asked for."""

    def test_wrong(self):
        """They make the call fail as if the store were not there, or are taken for nothing. There is no other error."""
        beat = Beat("g1", "r1")
        for reply in (
            None,
            7,
            -1,
            b"",
            b"x",
            b"\xff" * 40,
            [],
            [None],
            [b"1", b"x"],
            [b"1", [b"x"]],
            [[], []],
            {},
            [1, 2, 3],
            [b"g1", b"r1", 10**400],
            [10**400, 0],
        ):
            store = RedisStore(_Replies(reply))
            for name, arguments in (
                ("check", (question(),)),
                ("checkKnown", ([question()] * 2,)),
                ("failed", (failure(),)),
                ("succeeded", (SUCCESS,)),
                ("mark", (Mark(PAIR, "R2", 1.0, 1), 1.0)),
                ("clear", ([USER],)),
                ("lease", (USER, 1.0)),
                ("put", ("blocks", "b1", b"", 1.0)),
                ("take", ("blocks", ["b1"])),
                ("notes", ("blocks",)),
                ("place", (USER, b"a:1", 1.0)),
                ("placeOf", (USER,)),
                ("retain", ([USER], 1.0)),
                ("beat", (beat,)),
                ("leave", ("g1", "r1")),
                ("gateways", ()),
                ("sessionsOf", (USER,)),
                ("publish", ("events", b"")),
            ):
                ended: list[Any] = []
                getattr(store, name)(*arguments).addBoth(ended.append)
                self.assertEqual(len(ended), 1, name)
                value = getattr(ended[0], "value", None)
                self.assertTrue(value is None or isinstance(value, StoreUnavailable), (name, reply, value))

    def test_gateways(self):
        """What cannot be the name of a gateway is no gateway: operators see the names. Their number has a bound."""
        rows = [b"g1", b"r1", 5, b"\x1b[2J", b"r", 5, b"\xff", b"r", 5, b"", b"r", 5, b"g" * 65, b"r", 5]
        store = RedisStore(_Replies(rows))
        self.assertEqual(self.successResultOf(store.gateways()), {"g1": ("r1", 0.005)})
        counts = RedisStore(_Replies([b"g1", 2, b"a\nb", 3]))
        self.assertEqual(self.successResultOf(counts.sessionsOf(USER)), {"g1": 2})
        many = [part for each in range(3000) for part in (b"x%d" % each, b"r", 5)]
        self.assertEqual(len(self.successResultOf(RedisStore(_Replies(many)).gateways())), 1000)

    def test_notes(self):
        """What no gateway has put on a shelf keeps none from reading the rest. So does what is too much for a shelf."""
        late = b"\xff" * 6

        def read(*rows: bytes) -> Any:
            replies: list[list[bytes]] = [[b"0", b"0"], [*rows]]
            connection: Any = _Replies(None)
            connection.call = lambda *words: succeed(replies.pop(0))
            return self.successResultOf(RedisStore(connection).notes("blocks"))

        self.assertEqual([*read(b"b1", late + b"x", b"b2", b"", b"\xff", late, b"b3", late)], ["b1", "b3"])
        many = [part for each in range(MOST_NOTES + 9) for part in (b"%d" % each, late)]
        self.assertEqual(len(read(*many)), MOST_NOTES)

    def test_complete(self):
        """Both stores have all that the interface has, with the same arguments."""
        for name, method in inspect.getmembers(IStore, inspect.isfunction):
            if not name.startswith("_"):
                for kind in (MemoryStore, RedisStore):
                    found = [*inspect.signature(getattr(kind, name)).parameters]
                    self.assertEqual(found, [*inspect.signature(method).parameters], name)
