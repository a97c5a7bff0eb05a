# -*- test-case-name: mailgate.test.keeper.test_stats -*-
"""
Tests for L{mailgate.keeper.stats}, L{mailgate.keeper.history} and L{mailgate.keeper.service}.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate._version import __version__
from mailgate.keeper import members
from mailgate.keeper.history import KEPT, History
from mailgate.keeper.quantiles import quantile
from mailgate.keeper.service import KeeperService
from mailgate.keeper.stats import stats
from mailgate.test.keeper.processes import newView, story, turn
from mailgate.watch.distinct import hashed, smallest
from mailgate.watch.metrics import named


class StatsTests(SynchronousTestCase):
    """The numbers of one process with a keeper of its own."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.view = newView()
        self.service = KeeperService(self.view, self.clock, "g1")
        self.service.startService()

    def stats(self) -> Any:
        found = self.successResultOf(stats(self.service.keeper))
        return json.loads(json.dumps(found))

    def seconds(self, number: int) -> None:
        for _ in range(number):
            self.clock.advance(1)

    def test_nothing(self) -> None:
        """Without clients the numbers are zero, and unknown is null."""
        found = self.stats()
        self.assertEqual((found["gateway"], found["version"], found["uptime"]), ("g1", __version__, 0))
        self.assertEqual((found["time"], found["loaded"]), ("1970-01-12T13:46:40Z",) * 2)
        self.assertEqual(found["sessions"], {"total": 0, "relayed": 0, "by_protocol": {}})
        self.assertEqual(found["logins"]["denied"], {"total": 0, "per_second": None})
        self.assertEqual(set(found["login_wait"].values()), {None})
        self.assertEqual(found["workers"], {"serving": 1, "retiring": 0, "restarts": 0})
        self.assertEqual(found["backends"], {"up": 0, "down": 0, "draining": 0})

    def test_numbers(self) -> None:
        """Sessions by protocol and phase, users, backends, bytes."""
        tally = self.view.watcher.tally
        tally.count("mailgate_relayed_bytes", ("imap", "to_client"), 500)
        tally.count("mailgate_relayed_bytes", ("pop3", "to_client"), 500)
        tally.count("mailgate_connections", ("imap", "imap"), 3)
        self.view.watcher.gauges = {
            "mailgate_sessions": [[["imap", "relay"], 5], [["imap", "auth"], 1], [["pop3", "relay"], 0]],
            "mailgate_users": [[[], smallest(map(hashed, (b"a", b"b", b"c", b"d")))]],
            "mailgate_backend_up": [[["a:143"], 1], [["b:143"], 0]],
            "mailgate_backend_draining": [[["a:143"], 1]],
        }
        self.service.keeper.happened("mailgate_worker_restarts", ("exited",))
        found = self.stats()
        self.assertEqual(
            found["sessions"],
            {
                "total": 6,
                "relayed": 5,
                "by_protocol": {
                    "imap": {"total": 6, "phases": {"relay": 5, "auth": 1}},
                    "pop3": {"total": 0, "phases": {}},
                },
            },
        )
        self.assertEqual(found["users"], 4)
        self.assertEqual(found["bytes"]["to_client"]["total"], 1000)
        self.assertEqual(found["connections"]["total"], 3)
        self.assertEqual(found["backends"], {"up": 1, "down": 1, "draining": 1})
        self.assertEqual(found["workers"]["restarts"], 1)

    def test_rates(self) -> None:
        """A rate is that of the last ten seconds."""
        for _ in range(20):
            self.view.login(0.02)
            self.view.login(0.02)
            self.clock.advance(1)
        self.assertEqual(self.stats()["logins"]["accepted"], {"total": 40, "per_second": 2})
        self.seconds(5)
        self.assertEqual(self.stats()["logins"]["accepted"], {"total": 40, "per_second": 1})
        self.seconds(10)
        self.assertEqual(self.stats()["logins"]["accepted"], {"total": 40, "per_second": 0})

    def test_wait(self) -> None:
        """The waits of the last ten seconds, and those of all logins."""
        for _ in range(100):
            self.view.login(0.3)
        self.seconds(20)
        for _ in range(10):
            self.view.login(0.002)
        found = self.stats()["login_wait"]
        self.assertTrue(0.001 < found["p50"] <= found["p99"] <= 0.0025, found)
        self.assertTrue(0.25 < found["total_p50"] <= found["total_p99"] <= 0.5, found)

    def test_uptime(self) -> None:
        """The gateway is older than a keeper that has followed another one."""
        self.seconds(60)
        self.service.keeper.happened("mailgate_reloads", ("ok",))
        self.seconds(60)
        other = KeeperService(newView(), self.clock, "g1")
        other.keeper.restore(self.service.keeper.state())
        self.seconds(2)
        found = self.successResultOf(stats(other.keeper))
        self.assertEqual((found["uptime"], found["loaded"]), (122, "1970-01-12T13:47:40Z"))

    def test_quantile(self) -> None:
        """A quantile lies between the bounds of its bucket; beyond all bounds it is the highest one."""
        bounds = named("mailgate_login_seconds").buckets
        empty = [0] * (len(bounds) + 1)
        self.assertIsNone(quantile(empty, 0.5))
        self.assertIsNone(quantile([], 0.5))
        self.assertEqual(quantile([4, *empty[1:]], 0.5), 0.0005)
        self.assertEqual(quantile([*empty[:-1], 1], 0.5), bounds[-1])
        self.assertEqual(quantile([1, 1, *empty[2:]], 1), 0.0025)


class HistoryTests(SynchronousTestCase):
    """L{History}."""

    def test_since(self) -> None:
        """The sample that was current at a time is found, or the first one."""
        history = History()
        self.assertIsNone(history.since(5))
        for moment in (10.0, 11.0, 20.0):
            history.add(moment, {"x": {(): moment}})
        for moment, found in ((5, (10, 10)), (10.5, (10.5, 10)), (15, (15, 11)), (30, (30, 20))):
            self.assertEqual(history.since(moment), (found[0], {"x": {(): found[1]}}))

    def test_bounds(self) -> None:
        """Samples are a second apart, and so many are kept. A clock that was set back begins anew."""
        history = History()
        for moment in range(2 * KEPT):
            self.assertTrue(history.isDue(moment))
            history.add(moment, {})
            self.assertFalse(history.isDue(moment + 0.9))
        self.assertEqual(len(history._samples), KEPT)
        self.assertTrue(history.isDue(3))
        history.add(3, {})
        self.assertEqual(len(history._samples), 1)


class ServiceTests(SynchronousTestCase):
    """L{KeeperService} and its member."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.view = newView()
        self.service = KeeperService(self.view, self.clock)
        self.keeper = self.service.keeper
        self.service.startService()

    def turns(self) -> None:
        for _ in range(30):
            turn(self.clock)

    def test_reports(self) -> None:
        """The process reports each second, and for the last time when it stops."""
        self.view.login()
        self.view.watcher.stories = [story(1)]
        self.clock.advance(1)
        self.assertEqual(self.keeper.sums()["mailgate_logins"], {("imap", "plain", "accepted"): 1})
        self.assertEqual(len(self.keeper.recent()), 1)
        self.view.login()
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.keeper.sums()["mailgate_logins"], {("imap", "plain", "accepted"): 2})
        self.assertEqual(self.keeper.members, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_retire(self) -> None:
        """The process says that it accepts no new clients."""
        self.service.retire()
        self.assertEqual(self.keeper.sums()["mailgate_workers"], {("serving",): 0, ("retiring",): 1})

    def test_broken(self) -> None:
        """A failure while it reports is logged, and the next report is sent."""
        self.view.watcher.gauges = None
        self.view.login()
        self.clock.advance(1)
        self.flushLoggedErrors()
        self.view.watcher.gauges = {}
        self.clock.advance(1)
        self.assertIn("mailgate_logins", self.keeper.sums())

    def test_answers(self) -> None:
        """Questions are answered in later turns, with words for what is missing, within their time."""
        asked = self.keeper.ask("many", {"many": 450, "long": 1})
        self.assertNoResult(asked)
        self.turns()
        self.assertEqual(len(self.successResultOf(asked).rows), 450)
        pid = self.service.member.pid
        asked = self.keeper.ask("nothing", {})
        self.turns()
        missing = self.successResultOf(asked).missing
        self.assertEqual(missing, [f"process {pid} has not answered completely: it does not know the question"])
        self.patch(members, "MOST_ROWS", 300)
        asked = self.keeper.ask("endless", {})
        self.turns()
        collected = self.successResultOf(asked)
        self.assertEqual(len(collected.rows), 300)
        self.assertEqual(collected.missing, [f"process {pid} has not answered completely: it has more than 300 rows"])
        self.patch(members, "MOST_ROWS", 3000)
        asked = self.keeper.ask("endless", {}, 1)
        turn(self.clock)
        self.clock.rightNow += 1
        turn(self.clock)
        collected = self.successResultOf(asked)
        self.assertEqual(len(collected.rows), 400)
        self.assertEqual(collected.missing, [f"process {pid} has not answered completely within 1 s"])
