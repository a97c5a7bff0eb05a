"""
What every store does: L{MemoryStore}, and L{RedisStore} with a real server.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailgate.limits.windows import Window
from mailgate.store.interfaces import MOST_NOTES, StoreUnavailable
from mailgate.test.support.storecontract import OverMemory, OverRedis, failure, question
from mailgate.test.support.storelogins import Logins
from mailgate.test.support.stores import SwitchedStore
from mailgate.test.support.storesharing import Sharing


class MemoryTests(OverMemory, Logins, Sharing, TestCase):
    """L{MemoryStore}."""

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


class RedisTests(OverRedis, Logins, Sharing, TestCase):
    """L{RedisStore}."""

    timeout = 30


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
