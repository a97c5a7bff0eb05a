"""
Tests of L{bench.report}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench.measures import Measure
from bench.report import document, number, simpleTable, summary, tables
from bench.results import Results


def _results():
    results = Results("2026-01-02", ["nginx", "mailgate", "HAProxy"], facts=[("machine", "a fast one")])
    plain = Measure("login.plain", "plain", goal=1.3)
    for proxy, figure in (("nginx", 0.2), ("mailgate", 0.25), ("HAProxy", 0.1)):
        results.add(plain, proxy, figure)
    results.notes["HAProxy"] = "relays only"
    return results


class NumberTests(SynchronousTestCase):
    """L{number}."""

    def test_digits(self):
        """Three or four digits, whatever the size; thousands are grouped."""
        said = [number(figure) for figure in (0.1234, 1.5, 12.34, 123.4, 12345.6)]
        self.assertEqual(said, ["0.123", "1.500", "12.3", "123", "12,346"])
        self.assertEqual([number(count) for count in (0, 7, 19000)], ["0", "7", "19,000"])

    def test_nothing(self):
        """A missing figure is a dash, never a zero."""
        self.assertEqual(number(None), "-")
        self.assertEqual(number(0.0), "0.000")


class SimpleTableTests(SynchronousTestCase):
    """L{simpleTable}."""

    def test_aligned(self):
        """Columns are as wide as their widest cell; figures are right-aligned."""
        self.assertEqual(
            simpleTable([["what", "n"], ["a", "12"]]),
            "====  ==\nwhat   n\n====  ==\na     12\n====  ==",
        )


class SummaryTests(SynchronousTestCase):
    """L{summary}."""

    def setUp(self):
        self.results = Results("2026-01-02", ["nginx", "mailgate"])
        measures = ["login.plain", "login.tls", "relay.tls.big", "latency.login.tls.p50"]
        rows = [*map(self.measure, measures), self.measure("memory.plain.idle.1000", 1000)]
        for row in [*rows, self.measure("memory.plain.idle.8000", 8000)]:
            for proxy, figure in (("nginx", 0.4), ("mailgate", (row.sessions or 1000) / 10000)):
                self.results.add(row, proxy, figure)

    def measure(self, key, sessions=None):
        return Measure(key, "x", sessions=sessions)

    def test_rows(self):
        """It has a row for login, TLS, relay, memory and time; of the numbers of sessions the greatest counts."""
        rows = [line.split() for line in summary(self.results).splitlines()[3:-1]]
        self.assertEqual([row[-2] for row in rows], ["0.25", "0.25", "0.25", "2.00", "0.25"])
        self.assertIn("Memory of one of 8,000 idle sessions", summary(self.results))
        self.assertIn(summary(self.results), document(self.results))

    def test_site(self):
        """As many sessions as descriptors permit count more than fewer ones."""
        for proxy in self.results.proxies:
            self.results.add(self.measure("idle.plain.2.memory", 19000), proxy, 1.0)
        self.assertIn("Memory of one of 19,000 idle sessions", summary(self.results))
        self.assertNotIn("8,000", summary(self.results))

    def test_incomplete(self):
        """A row that was not measured is left out; without rows there is no table."""
        self.assertEqual(len(summary(_results()).splitlines()), 5)
        self.assertIn("HAProxy", summary(_results()))
        self.assertEqual(summary(Results("2026-01-02", ["nginx", "mailgate"])), "")


class TablesTests(SynchronousTestCase):
    """L{tables} and L{document}."""

    def test_compared(self):
        """Compared proxies are side by side, with the goal and whether it was reached; the others follow."""
        lines = tables(_results()).splitlines()
        head = "CPU of a login (ms)  nginx  mailgate  ours / nginx  goal  reached  HAProxy [1]_"
        self.assertEqual(lines[1], head)
        self.assertEqual(lines[3].split(), ["plain", "0.200", "0.250", "1.25", "1.3", "yes", "0.100"])

    def test_alone(self):
        """If only one of the two was measured, nothing is compared."""
        results = Results("2026-01-02", ["mailgate"])
        results.add(Measure("login.plain", "plain", goal=1.3), "mailgate", 0.25)
        self.assertNotIn("goal", tables(results))
        self.assertIn("0.250", tables(results))

    def test_notMeasured(self):
        """A proxy without a figure has a dash; a group without figures has no table."""
        results = _results()
        results.add(Measure("login.tls", "TLS"), "mailgate", 1.0)
        (row,) = [line for line in tables(results).splitlines() if line.startswith("TLS")]
        self.assertEqual(row.split(), ["TLS", "-", "1.000", "-", "-", "-", "-"])
        self.assertNotIn("round trip", tables(results))

    def test_noGoals(self):
        """A group without goals has no columns for them."""
        results = Results("2026-01-02", ["nginx", "mailgate"])
        for proxy in results.proxies:
            results.add(Measure("growth.0", "0 sessions", sessions=0), proxy, 0.25)
        self.assertIn("ours / nginx", tables(results))
        self.assertNotIn("goal", tables(results))

    def test_smallRatio(self):
        """A ratio far below 1 keeps its digits."""
        results = Results("2026-01-02", ["nginx", "mailgate"])
        for proxy, figure in (("nginx", 44.0), ("mailgate", 0.2)):
            results.add(Measure("latency.fetch.plain.p50", "FETCH", goal=0.05), proxy, figure)
        self.assertIn(" 0.005 ", tables(results))

    def test_document(self):
        """The whole report has the facts of the run, what was left out, and the notes."""
        results = _results()
        results.omitted.append("dovecot: no dovecot is installed here")
        text = document(results)
        self.assertTrue(text.startswith("mailgate and others, 2026-01-02\n===============================\n"))
        for part in (":machine: a fast one\n", "* dovecot: no dovecot is", ".. [1] HAProxy: relays only.\n"):
            self.assertIn(part, text)

    def test_machine(self):
        """Every table names the machine in its caption."""
        results = _results()
        results.machine = "a fast one, Linux 9"
        text = document(results)
        self.assertEqual(text.count(".. table:: a fast one, Linux 9\n\n   ===="), 2)
        self.assertEqual(text.count("   ====="), 6)

    def test_spread(self):
        """Several repeats have the quartiles of their ratios behind the median."""
        results = _results()
        for theirs, ours in ((0.2, 0.5), (0.2, 0.6)):
            results.add(results.measures[0], "nginx", theirs)
            results.add(results.measures[0], "mailgate", ours)
        self.assertIn("  2.50  1.88 to 2.75   1.3       no", tables(results))

    def test_before(self):
        """Another tree has a table of its own with all that must be reached, and its column in the others."""
        results = Results("2026-01-02", ["nginx", "mailgate", "before"])
        for key, goal, ours in (("login.plain", 0.65, 6.0), ("relay.tls.big", 1, 10.5), ("growth.0", None, 9.0)):
            row = Measure(key, "x", goalBefore=goal)
            for proxy, figure in (("nginx", 2.0), ("mailgate", ours), ("before", 10.0)):
                for _ in range(6):
                    results.add(row, proxy, figure)
        text = tables(results)
        rows = {
            line.split()[0]: line.split() for line in text[: text.index("CPU of a login")].splitlines() if "x" in line
        }
        self.assertEqual(rows["login"][-9:], ["0.60", "to", "0.60", "0.60", "to", "0.60", "6", "0.65", "yes"])
        self.assertEqual(rows["relay"][-4:], ["6", "no", "worse", "no"])
        self.assertEqual(set(rows), {"login", "relay"})
        self.assertIn("nginx  mailgate  ours / nginx  25 % to 75 %  before", text)

    def test_remarks(self):
        """What limited a figure is said."""
        results = _results()
        results.remarks.append("nginx, plain: limited by the clients")
        self.assertIn("\n* nginx, plain: limited by the clients\n", document(results))

    def test_nothingLeftOut(self):
        """If all was measured, nothing is reported as left out."""
        self.assertNotIn("Left out", document(_results()))
