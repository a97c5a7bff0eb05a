"""
Tests for L{mailgate.keeper.admin.endpoints}: the table, compared with the server and with the documentation.
"""

from __future__ import annotations

import json
import os

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailgate.keeper.admin.endpoints import ENDPOINTS
from mailgate.keeper.admin.processes import PROCESS_HANDLERS
from mailgate.keeper.admin.resources import HANDLERS
from mailgate.test.support.admincase import AdminCase
from mailgate.test.support.configcase import ROOT


class TableTests(SynchronousTestCase):
    """The table."""

    def test_handlers(self) -> None:
        """Each endpoint has something that carries it out, and the other way round."""
        own = {("GET", "/healthz"), ("GET", "/readyz")}
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
        for each in ENDPOINTS:
            body = b"" if each.body is None else json.dumps(each.body).encode()
            answered = self.ask(each.method, each.asks or each.path, body=body)
            self.assertIn(answered.status, (200, 503), each.path)

    def test_answers(self) -> None:
        """They are JSON, except for that of the metrics."""
        for each in ENDPOINTS:
            if each.path == "/metrics":
                self.assertIsInstance(each.example, str)
            else:
                self.assertEqual(json.loads(json.dumps(each.example)), each.example)


class DocumentTests(SynchronousTestCase):
    """docs/admin_api.rst."""

    def test_complete(self) -> None:
        """It has a title for each endpoint, its level, and the names of its parameters."""
        path = os.path.join(ROOT, "docs", "admin_api.rst")
        if not os.path.exists(path):
            raise SkipTest("docs/admin_api.rst is not installed")
        with open(path, encoding="utf-8") as opened:
            text = opened.read()
        for each in ENDPOINTS:
            self.assertIn(f"{each.method} {each.path}", text)
            for parameter in each.parameters:
                self.assertIn(f"``{parameter.name}``", text)
