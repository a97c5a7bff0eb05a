"""Tests for L{mailgate.cli.top.command}."""

from __future__ import annotations

import json
import os
import sys
from typing import Any
from unittest import mock

from mailgate.cli.top.command import marksFor
from mailgate.cli.top.text import ASCII, UNICODE
from mailgate.system.exitstatus import NOT_PERMITTED, NOT_RUNNING, REFUSED
from mailgate.test.cli.adminserver import AdminTestCase, Terminal
from mailgate.test.cli.top.pages import HOSTILE, STORY, overview
from mailgate.test.cli.top.test_values import ANY


class CommandTests(AdminTestCase):
    """C{mailgate top} without a terminal, and how it begins."""

    def test_once(self) -> None:
        """Without a terminal the page is printed once."""
        self.answers(overview(failures=[{**STORY, "user": HOSTILE[0]}]))
        self.assertEqual(self.command("top"), 0)
        text = self.out.getvalue()
        self.assertTrue(text.startswith("mailgate 0.1.0 g1 up "), text)
        self.assertIn("\nbackends:\n", text)
        self.assertNotIn("\x1b", text)
        self.assertEqual([asked.path for asked in self.server.asked], ["/api/1/overview"])

    def test_onceOnATerminal(self) -> None:
        """With --once also on a terminal, and as wide as that is."""
        self.answers(overview())
        self.out = Terminal()
        self.patch(sys, "stdin", Terminal())
        self.assertEqual(self.command("top", "--once", "--ascii"), 0)
        text = self.out.getvalue()
        self.assertTrue(text.isascii())
        self.assertNotIn("\x1b", text)

    def test_json(self) -> None:
        """The overview as the gateway has sent it."""
        self.answers(overview(gateway=HOSTILE[0]))
        self.assertEqual(self.command("top", "--json"), 0)
        self.assertEqual(json.loads(self.out.getvalue()), overview(gateway=HOSTILE[0]))

    def test_absent(self) -> None:
        """Without a gateway it fails as other commands."""
        self.assertEqual(self.bare("top", "--pid", "/nowhere/pid"), NOT_RUNNING)
        self.assertIn("no gateway is running", self.errors.getvalue())

    def test_refused(self) -> None:
        """A refusal, and what is no overview, are errors."""
        self.server.answer = lambda asked: (403, {"title": "forbidden", "status": 403})
        self.assertEqual(self.command("top"), NOT_PERMITTED)
        for value in (*ANY, {"stats": 7}):
            self.answers(value)
            self.assertEqual(self.command("top"), REFUSED)
            self.assertIn("is not an admin server of mailgate", self.errors.getvalue())
        self.server.answer = lambda asked: (404, {"title": "not found", "status": 404})
        self.assertEqual(self.command("top"), REFUSED)
        self.assertIn("has no /api/1/overview", self.errors.getvalue())

    def test_withoutCurses(self) -> None:
        """A Python without curses says what to do."""
        self.answers(overview())
        self.out = Terminal()
        self.patch(sys, "stdin", Terminal())
        self.patch(os, "environ", {**os.environ, "TERM": "xterm"})
        # Another dictionary would not do: an import finds modules that are loaded in the first one.
        with mock.patch.dict(sys.modules, {"_curses": None, "curses": None}):
            sys.modules.pop("mailgate.cli.top.terminal", None)
            self.assertEqual(self.command("top"), REFUSED)
        self.assertIn("this Python has no curses; use mailgate top --once", self.errors.getvalue())

    def test_marks(self) -> None:
        """Other shapes than ASCII need both a locale and a terminal for them."""
        cases: list[tuple[dict[str, Any], str, Any]] = [
            ({"TERM": "xterm-256color"}, "UTF-8", UNICODE),
            ({"TERM": "screen"}, "utf8", UNICODE),
            ({}, "utf-8", UNICODE),
            ({"TERM": "xterm"}, "ANSI_X3.4-1968", ASCII),
            ({"TERM": "xterm"}, "ISO-8859-1", ASCII),
            ({"TERM": "vt100"}, "UTF-8", ASCII),
            ({"TERM": "linux"}, "UTF-8", ASCII),
        ]
        for environment, encoding, expected in cases:
            self.assertIs(marksFor(environment, encoding), expected, (environment, encoding))
