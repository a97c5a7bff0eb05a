"""
Tests of L{bench.__main__}.
"""

from __future__ import annotations

import json
import os

from twisted.trial.unittest import SynchronousTestCase

from bench import __main__ as module
from bench.__main__ import machineName, measureAll, write
from bench.measures import Measure
from bench.processes import BenchmarkError
from bench.results import Results


class MachineNameTests(SynchronousTestCase):
    """L{machineName}."""

    def test_short(self):
        """The name of the processor is enough to tell machines apart, and is fit for a file."""
        names = {
            "AMD EPYC": "amd-epyc",
            "Intel(R) Xeon(R) Processor (family 6, model 167)": "intel-xeon",
            "AMD Ryzen 7 5800X 8-Core Processor (family 25, model 33)": "amd-ryzen-7-5800x",
            "Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz (family 6, model 142)": "intel-i7-8550u",
            "/": "unknown",
        }
        self.assertEqual({model: machineName(model) for model in names}, names)


class FakeBench:
    """Measures groups whose names have no C{bad} in them."""

    def __init__(self):
        self.results = Results("2026-01-02")

    def measure(self, group):
        if group == "bad":
            raise BenchmarkError("no\nluck")
        if group == "worse":
            raise KeyError(group)
        self.results.add(Measure(f"login.{group}", group), "mailgate", 1.0)


class MeasureAllTests(SynchronousTestCase):
    """L{measureAll} and L{write}."""

    def setUp(self):
        self.patch(module, "say", lambda text: None)
        self.bench = FakeBench()
        self.saved = []

    def measure(self, *groups):
        return measureAll(self.bench, groups, lambda: self.saved.append(len(self.bench.results.measures)))

    def test_all(self):
        """The results are saved after each group."""
        self.assertTrue(self.measure("one", "two"))
        self.assertEqual(self.saved, [1, 2])

    def test_failed(self):
        """A group that fails, for whatever reason, is in the report, and the others are measured."""
        self.assertFalse(self.measure("one", "bad", "worse", "two"))
        self.assertEqual(self.bench.results.omitted, ["bad: no luck", "worse: 'worse'"])
        self.assertEqual(self.saved, [1, 1, 1, 2])

    def test_write(self):
        """Figures and report are written beside each other."""
        self.measure("one", "bad")
        base = os.path.join(self.mktemp(), "2026-01-02-some")
        write(self.bench.results, base)
        with open(f"{base}.json", encoding="utf-8") as stream:
            self.assertEqual(json.load(stream)["omitted"], ["bad: no luck"])
        with open(f"{base}.rst", encoding="utf-8") as stream:
            self.assertIn("* bad: no luck\n", stream.read())
