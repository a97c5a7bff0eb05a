"""
What every store does for logins: it counts failures, successes and rates, and keeps blocks and leases.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from mailgate.store.interfaces import Mark, Success
from mailgate.store.keys import StoreKeys
from mailgate.test.support.storecontract import (
    ADDRESS,
    ELSEWHERE,
    NETWORK,
    OTHER,
    PAIR,
    SUCCESS,
    USER,
    StoreContract,
    failure,
    question,
)


class Logins(StoreContract):
    """Failures, successes, rates, blocks, leases and clearing."""

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
