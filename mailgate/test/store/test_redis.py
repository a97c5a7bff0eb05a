"""
What L{RedisStore} alone does, with a real server or with replies that are made up.
"""

from __future__ import annotations

import contextlib
import inspect
import random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailgate.limits.windows import Window
from mailgate.store.interfaces import (
    MOST_NOTES,
    Beat,
    Failure,
    Guess,
    IStore,
    Mark,
    Question,
    StoreUnavailable,
    Success,
)
from mailgate.store.keys import StoreKeys
from mailgate.store.memory import MemoryStore
from mailgate.store.redis.script import PREFIX, keyPart
from mailgate.store.redis.store import RedisStore
from mailgate.test.support.storecontract import (
    ADDRESS,
    ELSEWHERE,
    HERE,
    HOST,
    IMAP,
    KEYS,
    NAME,
    NETWORK,
    OTHER,
    PAIR,
    SUCCESS,
    USER,
    OverRedis,
    comparable,
    failure,
    question,
)
from mailgate.test.support.stores import beatOf


class StoredTests(OverRedis, TestCase):
    """What lies in the server, and what happens if it is lost or damaged."""

    timeout = 30

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
            self.assertEqual(*[comparable(await store.check(asked)) for store in (memory, self.one)], step)
            known = [await store.checkKnown([asked]) for store in (memory, self.one)]
            self.assertEqual(*[[each and comparable(each) for each in found] for found in known], step)

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
