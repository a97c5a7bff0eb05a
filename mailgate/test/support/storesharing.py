"""
What gateways share by a store besides what it counts of logins: notes, places, sessions and messages.
"""

from __future__ import annotations

from attrs import evolve

from mailgate.store.counts import packedCounts
from mailgate.store.interfaces import DEAD, Beat, Mark
from mailgate.test.support.storecontract import (
    ELSEWHERE,
    HERE,
    IMAP,
    KEYS,
    NAME,
    OTHER,
    PAIR,
    SMTP,
    SUCCESS,
    USER,
    StoreContract,
    comparable,
    failure,
    question,
)
from mailgate.test.support.stores import beatOf


class Sharing(StoreContract):
    """Notes, places, the registry and messages."""

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
        self.assertEqual(comparable(found[31]), comparable(evolve(asked, goods=[], lastSuccess=None)))
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
