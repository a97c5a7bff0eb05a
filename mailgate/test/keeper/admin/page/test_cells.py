"""
Tests for L{mailgate.keeper.admin.page.cells}: what each kind of column shows.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.template import flattenString, tags

from mailgate.keeper.admin.page.cells import CELLS, NUMBERS, bracketed
from mailgate.keeper.admin.page.columns import SECTIONS, SESSIONS
from mailgate.keeper.admin.page.texts import NONE
from mailgate.test.keeper.admin.page.test_static import STATIC

ORDERS = {"orders", "explain", "kick", "unblock"}
"""Kinds of columns that scripts fill."""


class CellTests(SynchronousTestCase):
    """The cells."""

    def shows(self, kind: str, value: Any, row: dict[str, Any] | None = None) -> str:
        """The text of a cell."""
        html = self.successResultOf(flattenString(None, tags.td(CELLS[kind](value, row or {})))).decode()
        return re.sub("<[^>]*>", "", html)

    def test_values(self) -> None:
        """Values of several parts become one text."""
        for kind, value, text in (
            ("accepts", True, "accepts"),
            ("accepts", False, "drains"),
            ("state", "drain", "drain"),
            ("client", {"address": "192.0.2.7", "port": 56416}, "192.0.2.7:56416"),
            ("shares", {"TLSv1.2": 0.1, "TLSv1.3": 0.9}, "TLSv1.2 10 %, TLSv1.3 90 %"),
            ("counts", {"timeout": 0.5, "refused": 0}, "timeout 0.5"),
            ("counts", {}, "0"),
            ("error", {"text": "refused", "at": "2026-11-28T09:58:12Z"}, "refused at 2026-11-28 09:58:12"),
            ("version", {"version": "TLSv1.3"}, "TLSv1.3"),
            ("version", None, "no"),
            ("certificates", [{"name": "a", "not_after": "2027-02-01T00:00:00Z"}] * 2, "a until 2027-02-01; " * 2),
        ):
            self.assertEqual(self.shows(kind, value), text.removesuffix("; "), kind)

    def test_reasons(self) -> None:
        """A state has its reason. A failed login has its trouble, or else its reason or outcome, and its words."""
        self.assertEqual(self.shows("state", "resting", {"reason": "timed out"}), "resting timed out")
        self.assertEqual(self.shows("state", "up", {"reason": "timed out"}), "up")
        self.assertEqual(self.shows("trouble", "denied", {"text": "no"}), "denied: no")
        self.assertEqual(self.shows("trouble", None, {"reason": "kicked", "outcome": "x"}), "kicked")
        self.assertEqual(self.shows("trouble", None, {"outcome": "x", "text": "x"}), "x")
        # Of a login that a limit has refused, the reason is the rule.
        limited = {"outcome": "blocked", "reason": "R2", "text": "Try again later"}
        self.assertEqual(self.shows("trouble", "blocked", limited), "blocked (R2): Try again later")
        self.assertEqual(self.shows("trouble", "denied", {"outcome": "denied", "reason": "user unknown"}), "denied")

    def test_nothing(self) -> None:
        """No kind fails for a value that has no source yet, or is of another type."""
        values: tuple[Any, ...] = (None, {}, [], "", 0)
        for kind in CELLS:
            for value in values:
                self.shows(kind, value)
            if kind not in ("accepts", "version"):
                self.assertEqual(self.shows(kind, None), NONE, kind)

    def test_client(self) -> None:
        """An IPv6 address has brackets if there is a port. A unix socket has no address."""
        self.assertEqual(bracketed({"address": "2001:db8::1", "port": 143}), "[2001:db8::1]:143")
        self.assertEqual(bracketed({"address": "2001:db8::1", "port": None}), "2001:db8::1")
        self.assertEqual(bracketed({"address": "", "port": 0}), NONE)

    def test_hidden(self) -> None:
        """No kind lets a control character through."""
        hostile = "\x1b[31m\u202e\n"
        parts = {"name": hostile, "text": hostile, "at": hostile, "not_after": hostile, "address": hostile}
        for kind in CELLS:
            for value in (hostile, [hostile], {hostile: 0.5}, parts, [parts]):
                self.assertFalse(set(self.shows(kind, value, {"reason": hostile})) & set(hostile) - set("[31m"), kind)

    def test_complete(self) -> None:
        """All kinds of columns exist, here and in the browser, and no others."""
        used = {column.kind for section in (*SECTIONS, SESSIONS) for column in section.columns}
        self.assertEqual(used - ORDERS, set(CELLS) - {"list"} | {"list"} & used)
        script = (STATIC / "cells.js").read_text()
        cells = script[script.index("export const CELLS") :]
        self.assertEqual(set(re.findall(r"^\t(\w+)[:(,]", cells, re.MULTILINE)), set(CELLS))
        numbers = script.partition("NUMBERS = new Set([")[2].partition("]")[0]
        self.assertEqual(set(re.findall(r'"(\w+)"', numbers)), NUMBERS)
