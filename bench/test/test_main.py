"""
Tests of L{bench.__main__}.
"""

from __future__ import annotations

import json
import os

from twisted.trial.unittest import SynchronousTestCase

from bench import __main__ as module
from bench.__main__ import machineName, measureAll, write
from bench.groups import Bench
from bench.measures import Measure
from bench.options import REPOSITORY, parser
from bench.processes import BenchmarkError
from bench.proxies import MailgateProxy
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


class SettingsTests(SynchronousTestCase):
    """Lines of C{--set} and C{--set-process}."""

    def invited(self, *argv):
        """The variants of both columns, by name."""
        self.patch(MailgateProxy, "find", lambda proxy: None)
        bench = Bench(None, None, None, 1, Results("2026-01-02"), lambda text: None)
        self.patch(Bench, "introduce", lambda bench, proxy: "")
        module._inviteAll(bench, parser().parse_args(["--proxies", "mailgate", "--before", REPOSITORY, *argv]))
        return {
            (each.column, each.variant): (each.proxy._variant.process, each.proxy._variant.more)
            for each in bench.entrants
        }

    def test_lines(self):
        """All variants of this mailgate have the lines after their own. Those of the tree before have none."""
        lines = ["--set", "a = 1", "--set", "b=2", "--set-process", "admin = off"]
        plain, changed = self.invited(), self.invited(*lines)
        self.assertEqual(plain.keys(), changed.keys())
        self.assertEqual(changed["mailgate", ""], ("admin = off", "a = 1\nb = 2"))
        self.assertEqual(changed["mailgate", "workers"][0], "worker_processes = 2\nadmin = off")
        for column, variant in plain:
            process, more = plain[column, variant]
            if column == "mailgate":
                process = "\n".join(filter(None, (process, "admin = off")))
                more = "\n".join(filter(None, (more, "a = 1", "b = 2")))
            self.assertEqual(changed[column, variant], (process, more))

    def test_unknown(self):
        """A mailgate that does not know the option is not measured without it."""
        self.patch(MailgateProxy, "find", lambda proxy: "this mailgate does not know x")
        bench = Bench(None, None, None, 1, Results("2026-01-02"), lambda text: None)
        error = self.assertRaises(
            BenchmarkError, module._inviteAll, bench, parser().parse_args(["--proxies", "mailgate", "--set", "x = 1"])
        )
        self.assertEqual(str(error), "this mailgate does not know x")


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
