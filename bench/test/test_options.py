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
from bench.options import PROXIES, REPOSITORY, parser


class OptionsTests(SynchronousTestCase):
    """L{parser}."""

    def refusal(self, *argv):
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            self.assertRaises(SystemExit, parser().parse_args, argv)
        return said.getvalue()

    def test_defaults(self):
        """Without options all is measured of all, five times, and plotted."""
        options = parser().parse_args([])
        self.assertEqual((options.only, options.proxies), (list(GROUPS), list(PROXIES)))
        self.assertEqual((options.repeats, options.quick, options.plots), (5, False, True))

    def test_words(self):
        """Words are taken in the order of the table, between commas or blanks, in any case."""
        options = parser().parse_args(["--only", "ping,login", "--proxies", "HAProxy nginx"])
        self.assertEqual((options.only, options.proxies), (["login", "ping"], ["nginx", "haproxy"]))

    def test_unknown(self):
        """An unknown word is refused by name, with those that are known."""
        self.assertIn("pong: known are login, relay, ping", self.refusal("--only", "login,pong"))
        self.assertIn("nothing: known are nginx", self.refusal("--proxies", ","))

    def test_repeats(self):
        """Repeats are a number from 1 on."""
        self.assertEqual(parser().parse_args(["--repeats", "3"]).repeats, 3)
        for wrong in ("0", "-1", "many", "\u0663"):
            self.assertIn("--repeats", self.refusal(f"--repeats={wrong}"))

    def test_paths(self):
        """A path that leads to nothing usable is refused; others become absolute."""
        self.assertIn("/nowhere/nginx: is no program", self.refusal("--nginx", "/nowhere/nginx"))
        self.assertIn("/nowhere: no mailgate is in this folder", self.refusal("--mailgate", "/nowhere"))
        options = parser().parse_args(["--nginx", os.path.relpath(sys.executable), "--mailgate", REPOSITORY])
        self.assertEqual((options.nginx, options.mailgate), (sys.executable, REPOSITORY))

    def test_help(self):
        """The help names every group and every proxy."""
        text = parser().format_help()
        for word in (*GROUPS, *PROXIES):
            self.assertIn(word, text)
