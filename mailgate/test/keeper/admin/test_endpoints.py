"""
Tests for L{mailgate.keeper.admin.endpoints}: the table, compared with the server.
L{mailgate.test.test_codetables} compares it with the documentation.
"""

from __future__ import annotations

import json

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.admin.endpoints import ENDPOINTS
from mailgate.keeper.admin.pages import Pages
from mailgate.keeper.admin.processes import PROCESS_HANDLERS
from mailgate.keeper.admin.resources import HANDLERS
from mailgate.keeper.keeper import Keeper
from mailgate.limits.attempt import Block, Rule
from mailgate.test.support.admincase import AdminCase
from mailgate.test.support.limitstore import StandInLimits


class TableTests(SynchronousTestCase):
    """The table."""

    def test_handlers(self) -> None:
        """Each endpoint has something that carries it out, and the other way round."""
        own = {("GET", "/healthz"), ("GET", "/readyz"), *Pages(Keeper(Clock(), "g1"), Clock(), None).handlers}  # type: ignore[arg-type]
        found = {(each.method, each.path) for each in ENDPOINTS}
        self.assertEqual(len(found), len(ENDPOINTS))
        self.assertEqual(found, HANDLERS.keys() | PROCESS_HANDLERS.keys() | own)

    def test_changes(self) -> None:
        """What is not a change is read by GET, or explains; what changes is not GET."""
        for each in ENDPOINTS:
            self.assertEqual(each.isChange, each.method != "GET" and not each.path.endswith("/explain"), each.path)

    def test_texts(self) -> None:
        """Summaries are sentences without a full stop."""
        for each in ENDPOINTS:
            self.assertRegex(each.summary, r"\A[A-Z].*[^.]\Z")
            for parameter in each.parameters:
                self.assertRegex(parameter.help, r"\A[a-z*].*[^.]\Z")


class ExampleTests(AdminCase):
    """The examples."""

    def test_asked(self) -> None:
        """The requests of the examples are valid."""
        self.keeper.limits = limits = StandInLimits()
        for each in ENDPOINTS:
            if each.path == "/api/1/events":
                # Its answer goes on: test_events.
                continue
            body = b"" if each.body is None else json.dumps(each.body).encode()
            if each.method == "DELETE" and "/blocks/" in each.path:
                limits.held.append(Block("b7", "198.51.100.0/24", Rule.BLOCK, 0.0, 60.0))
            answered = self.ask(each.method, each.asks or each.path, body=body)
            self.assertIn(answered.status, (200, 503), each.path)

    def test_answers(self) -> None:
        """They are JSON, except for those of the metrics, the page and its events."""
        for each in ENDPOINTS:
            if (not each.path.startswith("/api/1/") and not each.path.endswith("z")) or each.path.endswith("/events"):
                self.assertIsInstance(each.example, str)
            else:
                self.assertEqual(json.loads(json.dumps(each.example)), each.example)
