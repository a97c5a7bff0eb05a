"""Tests for L{mailgate.cli.remaining}."""

from __future__ import annotations

import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli.adminclient import Place
from mailgate.cli.remaining import Remaining, summary
from mailgate.test.cli.adminserver import AdminTestCase
from mailgate.test.cli.test_sessions import page, session
from mailgate.test.integration.daemon import waitUntil


class SummaryTests(SynchronousTestCase):
    """The line."""

    def test_counts(self) -> None:
        """Sessions by protocol and by backend, the most first; a login under way has no backend."""
        sessions = [session(), session(), session(protocol="smtp", backend="10.0.0.2:25"), session(backend=None)]
        expected = "4 sessions left: imap 3, smtp 1; at 10.0.0.1:143 2, 10.0.0.2:25 1"
        self.assertEqual(summary(sessions), expected)

    def test_many(self) -> None:
        """Few backends are named, and the rest counted."""
        sessions = [session(backend=f"10.0.0.{number}:143") for number in range(7)]
        text = summary(sessions, isCut=True)
        self.assertTrue(text.startswith("more than 7 sessions left: imap 7; at 10.0.0.0:143 1, "), text)
        self.assertTrue(text.endswith(", others 3"), text)

    def test_none(self) -> None:
        """No session and no backend."""
        self.assertEqual(summary([]), "0 sessions left")
        self.assertEqual(summary([session(backend=None)]), "1 session left: imap 1")


class RemainingTests(AdminTestCase):
    """The thread."""

    def test_lines(self) -> None:
        """It prints a line whenever the numbers have changed, and nothing after the end or without an answer."""
        self.patch(sys, "stderr", self.errors)
        answers: list[tuple[int, Any]] = [(200, page(session(), session()))] * 2 + [(500, None), (200, page(session()))]
        self.server.answer = lambda asked: answers.pop(0) if len(answers) > 1 else answers[0]
        with Remaining(Place(f"{self.pidFile}.admin"), 0.02):
            waitUntil(lambda: self.errors.getvalue().count("\n") == 2, "two lines")
        expected = "2 sessions left: imap 2; at 10.0.0.1:143 2\n1 session left: imap 1; at 10.0.0.1:143 1\n"
        self.assertEqual(self.errors.getvalue(), expected)
