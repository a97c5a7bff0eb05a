# -*- test-case-name: mailgate.test.keeper.test_sums -*-
"""
Tests for L{mailgate.keeper.sums}.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.sums import (
    OTHER,
    Admission,
    Sums,
    changes,
    grown,
    less,
    readValues,
    writeTotals,
    writeValues,
)
from mailgate.watch.metrics import METRICS, Kind, Merge, named
from mailgate.watch.tally import Tally, Totals

WAIT = "mailgate_login_seconds"
BYTES = "mailgate_relayed_bytes"


def waits(*seconds: float) -> Any:
    """The totals of a process whose logins took so long."""
    tally = Tally()
    for each in seconds:
        tally.observe(WAIT, ("imap",), each)
    return tally.totals()


class ReadTests(SynchronousTestCase):
    """L{readValues}, L{writeValues}, L{writeTotals}."""

    def test_thereAndBack(self) -> None:
        """What a process has reported comes out again; times are microseconds meanwhile."""
        totals = waits(0.25, 31)
        totals["mailgate_logins"] = [[["imap", "plain", "denied"], 3]]
        totals["mailgate_users"] = [[[], "00000000aa00000000ab"]]
        values = readValues(json.loads(json.dumps(totals)))
        self.assertEqual(values[WAIT]["imap",][-1], 31_250_000)
        self.assertEqual(writeTotals(values), totals)
        del values["mailgate_users"]
        self.assertEqual(readValues(json.loads(json.dumps(writeValues(values))), areMicro=True), values)

    def test_invalid(self) -> None:
        """What is not valid is left out, and the rest is read."""
        good = [["imap", "to_client"], 7]
        for bad in (
            None,
            [],
            [["imap", "to_client"]],
            [["imap"], 7],
            [["imap", 3], 7],
            [["imap", "x" * 201], 7],
            [["imap", "a\nb"], 7],
            [["imap", "\udc80"], 7],
            ["ab", 7],
            [["imap", "x"], -1],
            [["imap", "x"], True],
            [["imap", "x"], "7"],
            [["imap", "x"], float("nan")],
            [["imap", "x"], float("inf")],
            [["imap", "x"], 10**30],
            [["imap", "x"], 10**400],
            [["imap", "x"], [1, 2]],
        ):
            self.assertEqual(readValues({BYTES: [bad, good]}), {BYTES: {("imap", "to_client"): 7}}, bad)
        nothing: Any
        for nothing in (None, [], 7, {"mailgate_nothing": [good]}, {BYTES: None}, {3: [good]}):
            self.assertEqual(readValues(nothing), {})
        buckets = len(named(WAIT).buckets)
        nan, huge = float("nan"), 10**400
        for histogram in (
            *(7, [1], [0] * (buckets + 3), [0] * buckets + [-1, 0], ["x"] * (buckets + 2)),
            *([0] * buckets + [0, nan], [nan] + [0] * (buckets + 1), [True] + [0] * (buckets + 1)),
            # Python cannot add such a number to a float.
            *([huge] + [0] * buckets + [0.5], [0, nan, huge] + [0] * (buckets - 2) + [0.5]),
        ):
            self.assertEqual(readValues({WAIT: [[["imap"], histogram]]})[WAIT], {})

    def test_bound(self) -> None:
        """A process cannot report more than a few times the bound of a metric."""
        rows = [[[f"server {number}", "imap"], 1] for number in range(1000)]
        self.assertEqual(len(readValues({"mailgate_connections": rows})["mailgate_connections"]), 80)

    def test_worker(self) -> None:
        """The label of workers is the keeper's: a process does not know its number."""
        rows = {"mailgate_worker_memory_bytes": [[["5g0qa"], 4096]]}
        self.assertEqual(readValues(rows, worker="2"), {"mailgate_worker_memory_bytes": {("2",): 4096}})


class GrowthTests(SynchronousTestCase):
    """L{grown} and L{less}."""

    def test_neverFalls(self) -> None:
        """A counter or a bucket that is lower than before, or missing, keeps its value; a gauge does not."""
        before = readValues(
            {**waits(0.1, 0.1), BYTES: [[["imap", "x"], 7], [["imap", "y"], 7]], "mailgate_users": [[[], "00000000aa"]]}
        )
        after = readValues({**waits(20), BYTES: [[["imap", "x"], 5]], "mailgate_users": [[[], "00000000ab"]]})
        result = grown(before, after)
        self.assertEqual(result[BYTES], {("imap", "x"): 7, ("imap", "y"): 7})
        self.assertEqual(sum(result[WAIT]["imap",][:-1]), 3)
        self.assertEqual(result["mailgate_users"], {(): "00000000ab"})

    def test_less(self) -> None:
        """The difference has counters and histograms alone."""
        base, values = (
            readValues({**waits(*seconds), BYTES: [[["imap", "x"], 7]], "mailgate_users": [[[], 9]]})
            for seconds in ((0.1,), (0.1, 20))
        )
        result = less(values, base)
        self.assertEqual(sum(result[WAIT]["imap",][:-1]), 1)
        self.assertEqual(result[WAIT]["imap",][-1], 20_000_000)
        self.assertEqual(result[BYTES], {("imap", "x"): 0})
        self.assertNotIn("mailgate_users", result)
        self.assertEqual(writeValues(less(values, {})), writeValues(values))


class ChangesTests(SynchronousTestCase):
    """L{changes}."""

    def test_differences(self) -> None:
        """Rows that are as before are left out; what a keeper knows then is the same as with all of them."""
        gauges = {"mailgate_users": [[[], "00000000aa"]], "mailgate_blocks": [[["R1"], 1]]}
        before = {**waits(0.1), BYTES: [[["imap", "x"], 7], [["imap", "y"], 7]], **gauges}
        after = {**waits(0.1), BYTES: [[["imap", "x"], 7], [["imap", "y"], 9], [["pop3", "x"], 1]], **gauges}
        found = changes(before, after)
        self.assertEqual(found, {BYTES: [[["imap", "y"], 9], [["pop3", "x"], 1]]})
        counters = readValues({name: rows for name, rows in before.items() if name not in gauges})
        self.assertEqual(
            writeValues(grown(counters, readValues(found))), writeValues(grown(counters, readValues(after)))
        )

    def test_gauges(self) -> None:
        """Gauges replace all earlier ones, so that they are reported together."""
        before: Totals = {"mailgate_users": [[[], "00000000aa"]], "mailgate_blocks": [[["R1"], 1]]}
        after: Totals = {**before, "mailgate_blocks": [[["R1"], 2]]}
        self.assertEqual(changes(before, after), after)
        self.assertEqual(changes({}, after), after)
        self.assertEqual(changes(after, after), {})


class SumsTests(SynchronousTestCase):
    """L{Sums} and L{Admission}."""

    def test_anyOrder(self) -> None:
        """The sum is exactly the same in every order: fractions of a second do not make it fall."""
        seconds = (0.1, 0.2, 0.3, 1e-6, 3600.000001)
        values = [readValues(waits(each)) for each in seconds]
        results = []
        for order in (values, values[::-1], values[2:] + values[:2]):
            sums = Sums(Admission())
            for each in order:
                sums.add(each)
            results.append(writeTotals(sums.values))
        self.assertEqual(results[0], results[1])
        self.assertEqual(results[0], results[2])

    def test_addends(self) -> None:
        """What is added does not change."""
        one, other = readValues(waits(0.1)), readValues(waits(0.1))
        sums = Sums(Admission())
        for each in (one, other, other):
            sums.add(each)
        self.assertEqual(one, other)
        self.assertEqual(sum(sums.values[WAIT]["imap",][:-1]), 3)

    def test_gauges(self) -> None:
        """Numbers are added; of states the worst counts, and they can be left out."""
        sums = Sums(Admission())
        for up, draining, sessions in ((1, 0, 3), (0, 1, 4)):
            sums.add(
                readValues(
                    {
                        "mailgate_backend_up": [[["a:143"], up]],
                        "mailgate_backend_draining": [[["a:143"], draining]],
                        "mailgate_sessions": [[["imap", "relay"], sessions]],
                    }
                )
            )
        sums.add(readValues({"mailgate_backend_up": [[["b:143"], 1]]}), hasStates=False)
        sums.add(readValues({"mailgate_users": [[[], 1]]}), names=("mailgate_sessions",))
        self.assertEqual(
            sums.values,
            {
                "mailgate_backend_up": {("a:143",): 0},
                "mailgate_backend_draining": {("a:143",): 1},
                "mailgate_sessions": {("imap", "relay"): 7},
            },
        )

    def test_states(self) -> None:
        """The table of the metrics says how the values of two processes become one."""
        for metric in METRICS:
            if metric.kind is Kind.GAUGE and metric.merge is not Merge.UNION:
                sums = Sums(Admission())
                labels = ["x"] * len(metric.labels)
                for value in (2, 1, 1):
                    sums.add(readValues({metric.name: [[labels, value]]}))
                expected = {Merge.SUM: 4, Merge.LEAST: 1, Merge.MOST: 2}[metric.merge]
                self.assertEqual(sums.values[metric.name], {tuple(labels): expected}, metric.name)

    def test_bounds(self) -> None:
        """However many values of a label processes report, the sums have at most as many series as the bound says."""
        admission = Admission()
        for metric in METRICS:
            sums = Sums(admission)
            for number in range(4 * metric.bound):
                labels = [f"{label} {number}" if label in admission.admitted else "same" for label in metric.labels]
                value: Any = [1] * (len(metric.buckets) + 2) if metric.kind is Kind.HISTOGRAM else 1
                if metric.merge is Merge.UNION:
                    value = "00000000aa"
                sums.add(readValues({metric.name: [[labels, value]]}))
            self.assertLessEqual(len(sums.values[metric.name]), metric.bound, metric.name)

    def test_first(self) -> None:
        """The first values keep their series, also at a successor, and further ones are counted together."""
        admission = Admission()

        def add(*places: int) -> Any:
            sums = Sums(admission)
            for place in places:
                sums.add(readValues({"mailgate_backend_up": [[[f"10.0.0.{place}:143"], 1]]}))
            return sums.values["mailgate_backend_up"]

        self.assertEqual(len(add(*range(70))), 65)
        admitted = json.loads(json.dumps({name: list(values) for name, values in admission.admitted.items()}))
        admission = Admission()
        admission.restore(admitted)
        self.assertEqual(add(69, 3, 68), {(OTHER,): 1, ("10.0.0.3:143",): 1})
        invalid: Any
        for invalid in (None, [], {"backend": 3}, {"backend": [3, None, "x" * 300, "a\nb"]}):
            admission = Admission()
            admission.restore(invalid)
            self.assertEqual(admission.admitted["backend"], {})
