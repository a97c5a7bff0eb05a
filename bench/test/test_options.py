"""
Tests of L{bench.options}.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys

from twisted.trial.unittest import SynchronousTestCase

from bench.measures import GROUPS
from bench.options import COMMON, COMPARISONS, PROXIES, REPOSITORY, SCHEMES, comparing, guessing, parser


def refusal(test, made, *argv):
    """The error of the parser C{made()} for invalid options."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        test.assertRaises(SystemExit, made().parse_args, argv)
    return said.getvalue()


class OptionsTests(SynchronousTestCase):
    """L{parser}."""

    def refusal(self, *argv):
        return refusal(self, parser, *argv)

    def test_defaults(self):
        """By default everything is measured for all proxies, eight times, and plotted."""
        options = parser().parse_args([])
        self.assertEqual((options.only, options.proxies), (list(GROUPS), list(PROXIES)))
        self.assertEqual((options.repeats, options.quick, options.plots), (8, False, True))

    def test_words(self):
        """Words are accepted with commas or blanks, in any case, and returned in the order of the table."""
        options = parser().parse_args(["--only", "ping,login", "--proxies", "HAProxy nginx"])
        self.assertEqual((options.only, options.proxies), (["login", "ping"], ["nginx", "haproxy"]))

    def test_unknown(self):
        """An unknown word is refused, with the known ones."""
        self.assertIn("pong: known are login, relay, ping", self.refusal("--only", "login,pong"))
        self.assertIn("nothing: known are nginx", self.refusal("--proxies", ","))

    def test_repeats(self):
        """Repeats are a number from 1 on."""
        self.assertEqual(parser().parse_args(["--repeats", "3"]).repeats, 3)
        for wrong in ("0", "-1", "many", "\u0663"):
            self.assertIn("--repeats", self.refusal(f"--repeats={wrong}"))

    def test_paths(self):
        """An unusable path is refused; others become absolute."""
        self.assertIn("/nowhere/nginx: is no program", self.refusal("--nginx", "/nowhere/nginx"))
        self.assertIn("/nowhere: no mailgate is in this folder", self.refusal("--mailgate", "/nowhere"))
        options = parser().parse_args(["--nginx", os.path.relpath(sys.executable), "--mailgate", REPOSITORY])
        self.assertEqual((options.nginx, options.mailgate), (sys.executable, REPOSITORY))

    def test_before(self):
        """Another tree can be measured too; by default there is none."""
        self.assertIsNone(parser().parse_args([]).before)
        self.assertEqual(parser().parse_args(["--before", os.path.relpath(REPOSITORY)]).before, REPOSITORY)
        self.assertIn("/nowhere: no mailgate is in this folder", self.refusal("--before", "/nowhere"))

    def test_help(self):
        """The help has every group and every proxy."""
        text = parser().format_help()
        for word in (*GROUPS, *PROXIES):
            self.assertIn(word, text)


class ComparingTests(SynchronousTestCase):
    """L{comparing}."""

    def test_defaults(self):
        """All rows are compared, in twenty bursts."""
        options = comparing().parse_args(["--before", os.path.relpath(REPOSITORY)])
        self.assertEqual((options.before, options.mailgate), (REPOSITORY, REPOSITORY))
        self.assertEqual((options.only, options.bursts, options.withoutID), (list(COMMON), 20, False))
        self.assertEqual([options.more, options.process, options.moreBefore, options.processBefore], [[]] * 4)

    def test_before(self):
        """Another tree is required."""
        self.assertIn("--before", refusal(self, comparing))
        self.assertIn("no mailgate is in this folder", refusal(self, comparing, "--before", "/nowhere"))

    def test_lines(self):
        """Lines of one side are lines of an ini file, each in its section."""
        argv = [
            "--before",
            REPOSITORY,
            "--set",
            "a=1",
            "--set",
            "b = 2 = 3",
            "--set-process",
            "c =",
            "--set-before",
            "d=4",
        ]
        options = comparing().parse_args(argv)
        self.assertEqual((options.more, options.process), (["a = 1", "b = 2 = 3"], ["c = "]))
        self.assertEqual((options.moreBefore, options.processBefore), (["d = 4"], []))
        for wrong in ("a", "= 1", "a = 1\nb = 2"):
            self.assertIn("NAME = VALUE", refusal(self, comparing, "--before", REPOSITORY, "--set", wrong))

    def test_help(self):
        """The help has every row."""
        for word in COMPARISONS:
            self.assertIn(word, comparing().format_help())


class GuessingTests(SynchronousTestCase):
    """L{guessing}."""

    def test_defaults(self):
        """By default 0 and 300 connections guess while ten owners log in twice; the schemes depend on the measure."""
        options = guessing().parse_args([])
        self.assertEqual((options.attackers, options.owners, options.again), ([0, 300], 10, 1))
        self.assertEqual((options.schemes, options.rates, options.mailgate), (None, False, REPOSITORY))

    def test_numbers(self):
        """Numbers of attackers may be 0, and there may be several."""
        self.assertEqual(guessing().parse_args(["--attackers", "4, 30,0"]).attackers, [4, 30, 0])
        for wrong in ("many", "-1", "1,x"):
            self.assertIn("--attackers", refusal(self, guessing, f"--attackers={wrong}"))
        self.assertIn("--again", refusal(self, guessing, "--again=-1"))

    def test_help(self):
        """The help has every scheme."""
        for word in SCHEMES:
            self.assertIn(word, guessing().format_help())
