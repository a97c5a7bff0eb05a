"""
Tests for L{mailgate.keeper.rings}.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.rings import MOST_SERIES, SPANS, Plots, Ring
from mailgate.watch.metrics import named

BUCKETS = len(named("mailgate_login_seconds").buckets) + 1


def sums(logins: int = 0, sessions: int | None = 0, sent: int = 0, waits: int = 0) -> Any:
    """Sums of the metrics that the plots show."""
    counts = [0] * BUCKETS
    counts[0] = waits
    return {
        "mailgate_logins": {("imap", "plain", "accepted"): logins, ("pop3", "login", "accepted"): 1},
        "mailgate_sessions": {} if sessions is None else {("imap", "relay"): sessions, ("imap", "auth"): 1},
        "mailgate_relayed_bytes": {("imap", "to_client"): sent},
        "mailgate_login_seconds": {("imap",): [*counts, 0]},
    }


class RingTests(SynchronousTestCase):
    """L{Ring}."""

    def shown(self, ring: Ring) -> tuple[int, dict[str, list[Any]]]:
        first, series = ring.points()
        return first, {name: [None if value != value else value for value in each] for name, each in series.items()}

    def test_points(self) -> None:
        """Points that were left out have no value, and the oldest ones give way."""
        ring = Ring(4)
        self.assertEqual(ring.points()[1], {})
        ring.put(10, {"a": 1})
        ring.put(12, {"a": 3, "b": 30})
        self.assertEqual(self.shown(ring), (10, {"a": [1, None, 3], "b": [None, None, 30]}))
        ring.put(15, {"a": 6})
        self.assertEqual(self.shown(ring), (12, {"a": [3, None, None, 6], "b": [30, None, None, None]}))
        ring.put(100, {"a": 7})
        self.assertEqual(self.shown(ring), (100, {"a": [7], "b": [None]}))

    def test_several(self) -> None:
        """Points of a longer time have the same value; there are never more than the ring has."""
        ring = Ring(3)
        ring.put(10, {"a": 1}, 9)
        self.assertEqual(self.shown(ring), (9, {"a": [1, 1]}))
        ring.put(20, {"a": 2}, 0)
        self.assertEqual(self.shown(ring), (18, {"a": [2, 2, 2]}))

    def test_clockSetBack(self) -> None:
        """Points later than the latest one are gone."""
        ring = Ring(5)
        for place in (10, 11, 12):
            ring.put(place, {"a": place})
        ring.put(11, {"a": 0})
        self.assertEqual(self.shown(ring), (10, {"a": [10, 0]}))
        ring.put(12, {"b": 1})
        self.assertEqual(self.shown(ring), (10, {"a": [10, 0, None], "b": [None, None, 1]}))

    def test_bounds(self) -> None:
        """There are so many series at most."""
        ring = Ring(3)
        ring.put(1, {f"logins.{number}": number for number in range(MOST_SERIES + 5)})
        self.assertEqual(len(ring.points()[1]), MOST_SERIES)

    def test_restore(self) -> None:
        """The points of a predecessor fill those that are not known here."""
        before, after = Ring(5), Ring(5)
        for place in (8, 9, 10, 11):
            before.put(place, {"logins.accepted": place})
        after.put(11, {"logins.accepted": 1})
        after.put(13, {"logins.accepted": 2})
        after.restore(json.loads(json.dumps(before.write())))
        self.assertEqual(self.shown(after), (9, {"logins.accepted": [9, 10, 1, None, 2]}))
        new = Ring(5)
        new.restore(before.write())
        self.assertEqual(self.shown(new), self.shown(before))

    def test_invalid(self) -> None:
        """What is not valid is ignored."""
        ring = Ring(2)
        ring.put(5, {"logins.accepted": 1})
        known = self.shown(ring)
        good = ring.write()["series"]["logins.accepted"]
        written: Any
        for written in (
            None,
            [],
            {"head": 5},
            {"head": "5", "series": {}},
            {"head": True, "series": {}},
            {"head": -1, "series": {"logins.denied": good}},
            {"head": 2**39, "series": {"logins.denied": good}},
            {"head": 5, "series": []},
            {"head": 5, "series": {"<script>": good}},
            {"head": 5, "series": {"logins.denied": good[:-4]}},
            {"head": 5, "series": {"logins.denied": "?"}},
            {"head": 5, "series": {"logins.denied": 7}},
        ):
            ring.restore(written)
            first, series = self.shown(ring)
            self.assertEqual((first, series["logins.accepted"]), (known[0], known[1]["logins.accepted"]), written)
            self.assertEqual([value for value in series.get("logins.denied", ()) if value is not None], [], written)
            self.assertNotIn("<script>", series)


class PlotsTests(SynchronousTestCase):
    """L{Plots}."""

    def setUp(self) -> None:
        self.plots = Plots()

    def series(self, span: str = "10m") -> dict[str, list[Any]]:
        return self.plots.points(span)[2]

    def test_seconds(self) -> None:
        """Each second has the rates since the one before; the first sample has none."""
        self.plots.add(1000.2, sums(logins=5))
        self.assertEqual(self.series(), {})
        self.plots.add(1001.2, sums(logins=8, sessions=7, sent=1_000_000))
        self.plots.add(1002.2, sums(logins=8, sessions=7, sent=1_000_000))
        step, begin, series = self.plots.points("10m")
        self.assertEqual((step, begin), (1, 1001.0))
        self.assertEqual(series["logins.accepted"], [3, 0])
        self.assertEqual(series["logins.denied"], [0, 0])
        self.assertEqual(series["sessions.imap"], [8, 8])
        self.assertEqual(series["bytes.to_client"], [1_000_000, 0])
        self.assertNotIn("login_wait.p95", series)

    def test_waits(self) -> None:
        """Seconds without a login have no wait."""
        for second in range(3):
            self.plots.add(1000 + second, sums(waits=4 if second else 0))
        self.assertEqual(self.series()["login_wait.p50"], [0.0005, None])

    def test_late(self) -> None:
        """A report that is late has the rate of the whole time; a long silence is a gap."""
        self.plots.add(1000, sums())
        self.plots.add(1003, sums(logins=6))
        self.assertEqual(self.series()["logins.accepted"], [2, 2, 2])
        self.plots.add(1020, sums(logins=6 + 17))
        self.assertEqual(self.series()["logins.accepted"], [2, 2, 2, *[None] * 16, 1])

    def test_unknownSessions(self) -> None:
        """While a process has not reported its sessions, their number is not known."""
        self.plots.add(1000, sums())
        self.plots.add(1001, sums(sessions=None))
        self.plots.add(1002, sums(sessions=3))
        self.assertEqual(self.series()["sessions.imap"], [None, 4])

    def test_minutes(self) -> None:
        """Each minute has the rate of the minute, when it is over."""
        for second in range(0, 181):
            self.plots.add(6000 + second, sums(logins=2 * second))
        step, begin, series = self.plots.points("24h")
        self.assertEqual((step, begin), (60, 6000.0))
        self.assertEqual(series["logins.accepted"], [2, 2, 2])

    def test_fall(self) -> None:
        """Counters that fall, or begin anew, have no negative rate; after an interruption there is no rate."""
        self.plots.add(1000, sums(logins=50))
        self.plots.add(1001, sums(logins=5))
        self.assertEqual(self.series()["logins.accepted"], [0])
        self.plots.interrupt()
        self.plots.add(1002, sums(logins=500))
        self.plots.add(1003, sums(logins=501))
        self.assertEqual(self.series()["logins.accepted"], [0, None, 1])

    def test_handedOver(self) -> None:
        """A successor has all points, and the state has a bounded length."""
        for second in range(700):
            self.plots.add(60_000 + second, sums(logins=second, sessions=second))
        written = json.dumps(self.plots.write())
        successor = Plots()
        successor.restore(json.loads(written))
        for span, (_, length) in SPANS.items():
            self.assertEqual(successor.points(span), self.plots.points(span))
            self.assertLessEqual(len(successor.points(span)[2]["logins.accepted"]), length)
        self.assertEqual(len(self.series()["logins.accepted"]), 600)
        self.assertLess(len(written), MOST_SERIES * 2040 * 4 * 4 / 3 + 10_000)
        successor.restore("x")
        successor.restore({"10m": 7})
        self.assertEqual(successor.points("10m"), self.plots.points("10m"))
