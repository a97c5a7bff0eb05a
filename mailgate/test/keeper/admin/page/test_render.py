"""
Tests for L{mailgate.keeper.admin.page.render}: the documents.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.admin.page.columns import SECTIONS, SESSIONS
from mailgate.keeper.admin.page.render import PLOTS, shell, tables
from mailgate.test.keeper.admin.page.test_static import STATIC

HOSTILE = '<img src=x onerror="alert(1)">\u202e&amp;\x1b\'</td></table><script>alert(2)</script>'

_VOID = {"meta", "link", "input", "img", "br"}

SESSION = {
    "id": "g1.5g0qa.7k",
    "user": "joe@example.org",
    "client": {"address": "192.0.2.7", "port": 56416},
    "protocol": "imap",
    "phase": "auth",
    "age": 7.9,
}

OVERVIEW: dict[str, Any] = {
    "gateway": "g1",
    "version": "0.1.0",
    "time": "2026-11-28T10:13:03Z",
    "uptime": 86400.0,
    "loaded": "2026-11-28T08:00:00Z",
    "level": "operate",
    "reload": {"at": "2026-11-28T10:00:00Z", "done": False, "reasons": ["gateway.ini:12: bad"]},
    "stats": {
        "sessions": {"total": 8214, "relayed": 790, "by_protocol": {"imap": {"total": 8100}}},
        "users": 640,
        "logins": {"accepted": {"total": 5, "per_second": 4.1}, "denied": {"total": 0, "per_second": None}},
        "login_wait": {"p50": 0.012, "p95": None, "p99": 0.18},
        "bytes": {"to_client": {"total": 1, "per_second": 61000.0}},
    },
    "alarms": [
        {"id": "b", "severity": "critical", "text": "backend 10.0.0.3:143 is down", "since": "2026-11-28T10:09:00Z"}
    ],
    "backends": [{"group": "dovecot", "address": "10.0.0.1:143", "server": "", "state": "up", "sessions": 812}],
    "auth": [],
    "servers": [{"name": "imaps", "protocol": "imap", "listen": ["*:993 ssl"], "connections": 1, "certificates": []}],
    "workers": [{"worker": "5g0qa", "pid": 4711, "accepts": True, "sessions": 812}],
    "stuck": [SESSION],
    "failures": [{**SESSION, "at": "2026-11-28T10:02:11.204Z", "trouble": "denied", "text": "Invalid"}],
    "missing": ["worker 4712"],
    "more": {"failures": 12},
}


class _Parser(HTMLParser):
    """
    Reads a document.

    @ivar tags: its elements with their attributes.
    @ivar texts: its texts.
    @ivar faults: elements that are not closed as they were opened.
    """

    def __init__(self, document: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.faults: list[str] = []
        self._open: list[str] = []
        self.feed(document.decode("utf-8"))
        self.close()
        self.faults += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a name."""
        return [attributes for name, attributes in self.tags if name == tag]


def hostile(value: Any) -> Any:
    """The same value with a hostile text in place of each text, except for the names of states."""
    if isinstance(value, dict):
        return {name: each if name == "level" else hostile(each) for name, each in value.items()}
    if isinstance(value, list):
        return [hostile(each) for each in value]
    return HOSTILE if isinstance(value, str) else value


class DocumentCase(SynchronousTestCase):
    """Reads documents."""

    def read(self, rendered: Any) -> _Parser:
        """Parse a document, and check what holds for all of them."""
        document = self.successResultOf(rendered)
        self.assertTrue(document.startswith(b'<!DOCTYPE html>\n<html lang="en">'))
        parser = _Parser(document)
        self.assertEqual(parser.faults, [])
        ids = [attributes["id"] for _, attributes in parser.tags if "id" in attributes]
        self.assertEqual(len(ids), len(set(ids)), ids)
        for tag, attributes in parser.tags:
            self.assertFalse([name for name in attributes if name == "style" or name.startswith("on")], attributes)
            self.assertNotEqual(tag, "style")
            for name in ("src", "href", "action"):
                self.assertRegex(attributes.get(name) or "/", r"^(/(static/[\w.]+|plain)?|#\w+)$")
            for name in ("aria-labelledby", "aria-describedby"):
                self.assertIn(attributes.get(name, ids[0] if ids else None), [*ids, None])
        for script in parser.all("script"):
            self.assertTrue(script.get("src"))
        # A script in the document would have a text.
        self.assertNotRegex(document, rb"<script[^>]*>[^<]")
        for attributes in (*parser.all("script"), *parser.all("link")):
            address = attributes.get("src") or attributes["href"]
            self.assertTrue((STATIC / str(address).removeprefix("/static/")).is_file(), address)
        return parser


class TablesTests(DocumentCase):
    """The tables without scripts."""

    def test_tables(self) -> None:
        """Each part of the overview has a table with a caption, heads of columns, and a head of each row."""
        parser = self.read(tables(OVERVIEW))
        self.assertEqual(len(parser.all("table")), len(SECTIONS))
        self.assertEqual(len(parser.all("caption")), len(SECTIONS))
        scopes = [each.get("scope") for each in parser.all("th")]
        self.assertEqual(set(scopes), {"col", "row"})
        self.assertEqual(scopes.count("row"), 5)
        for region in (each for _, each in parser.tags if each.get("class") == "scroll"):
            self.assertEqual((region["role"], region["tabindex"]), ("region", "0"))
            self.assertTrue(region["aria-label"])
        text = " ".join(parser.texts)
        for part in (
            "8,214",
            "10.0.0.1:143",
            "192.0.2.7:56416",
            "denied",
            "Invalid",
            "61 kB/s",
            "12 ms",
            "backend 10.0.0.3",
        ):
            self.assertIn(part, text)
        for part in ("gateway.ini:12: bad", "worker 4712", "and 12 more", "1 d", "no authentication service"):
            self.assertIn(part, text)

    def test_noScripts(self) -> None:
        """There are no scripts, and nothing that only scripts would fill, or that would change the gateway."""
        parser = self.read(tables(OVERVIEW))
        for tag in ("script", "button", "form", "input", "dialog"):
            self.assertEqual(parser.all(tag), [], tag)

    def test_level(self) -> None:
        """A table that the level does not show is left out."""
        parser = self.read(tables({**OVERVIEW, "stuck": None, "failures": None}))
        self.assertEqual(len(parser.all("table")), len(SECTIONS) - 2)
        self.assertNotIn("joe@example.org", " ".join(parser.texts))

    def test_empty(self) -> None:
        """An overview of another release, or without anything, is a page as well."""
        for overview in ({}, {"stats": None, "alarms": None, "reload": None, "missing": None, "more": None}):
            self.read(tables(overview))
        parser = self.read(tables({**OVERVIEW, "backends": [{}], "servers": [{"certificates": None}]}))
        self.assertEqual(len(parser.all("table")), len(SECTIONS))

    def test_hostile(self) -> None:
        """Texts of clients and servers stay texts: no element is added, and nothing in them is hidden."""
        usual, changed = (self.read(tables(each)) for each in (OVERVIEW, hostile(OVERVIEW)))
        known = {tag for tag, _ in usual.tags}
        self.assertEqual({tag for tag, _ in changed.tags} - known, set())
        self.assertEqual(len(changed.all("tr")), len(usual.all("tr")))
        text = "".join(changed.texts)
        self.assertIn('<img src=x onerror="alert(1)">\\u{202e}&amp;\\u{1b}', text)
        for char in "\u202e\x1b":
            self.assertNotIn(char, text)

    def test_isolated(self) -> None:
        """A text of the network is an element that keeps its direction to itself, with its whole text as title."""
        user = "\u0645\u0633\u062a@example.org" + 300 * "x"
        parser = self.read(tables({**OVERVIEW, "stuck": [{**SESSION, "user": user}]}))
        self.assertIn({"class": "text", "title": user}, parser.all("bdi"))


class ShellTests(DocumentCase):
    """The page that scripts fill."""

    def test_noData(self) -> None:
        """Without a level the page has heads of tables, and no data; it is the same for all callers."""
        parser = self.read(shell())
        self.assertEqual(parser.all("td"), [])
        self.assertEqual(len(parser.all("table")), len(SECTIONS) + 1)
        page = next(each for _, each in parser.tags if each.get("id") == "page")
        self.assertEqual((page["data-granted"], page["hidden"]), ("", ""))
        self.assertIn("JavaScript", " ".join(parser.texts))

    def test_level(self) -> None:
        """A caller with a level gets it, and the tables for browsers without JavaScript."""
        parser = self.read(shell(OVERVIEW))
        page = next(each for _, each in parser.tags if each.get("id") == "page")
        self.assertEqual(page["data-granted"], "operate")
        self.assertEqual(len(parser.all("table")), 2 * len(SECTIONS) + 1)
        self.assertEqual(len(parser.all("noscript")), 2)

    def test_heads(self) -> None:
        """The heads have the kinds and the fields of their columns, which the scripts read."""
        parser = self.read(shell())
        heads = [each["data-is"] for each in parser.all("th")]
        sections = [*SECTIONS[:-1], SESSIONS, SECTIONS[-1]]
        columns = [column for section in sections for column in section.columns]
        self.assertEqual(heads, [f"{column.kind} {column.field}".strip() for column in columns])
        self.assertEqual([each["data-key"] for each in parser.all("table")], [" ".join(each.key) for each in sections])

    def test_levels(self) -> None:
        """What lower levels must not use has the level that it needs; drain and resume need the highest."""
        parser = self.read(shell())
        needs = {each["id"]: each["data-level"] for each in parser.all("section") if "data-level" in each}
        self.assertEqual(
            {name for name, level in needs.items() if level == "operate"}, {"stuck", "failures", "sessions"}
        )
        orders = [each for each in parser.all("th") if each["data-is"] == "orders"]
        self.assertEqual([each["data-level"] for each in orders], ["admin"])

    def test_live(self) -> None:
        """One place alone announces changes."""
        parser = self.read(shell())
        polite = [each for _, each in parser.tags if each.get("aria-live") or each.get("role") == "status"]
        self.assertEqual([each["id"] for each in polite], ["announcer"])

    def test_plots(self) -> None:
        """The plots of the page are those that the script knows."""
        parser = self.read(shell())
        names = [str(each["data-plot"]) for each in parser.all("figure")]
        self.assertEqual(names, [name for name, _, _ in PLOTS])
        script = (STATIC / "plots.js").read_text()
        self.assertEqual(re.findall(r"^\t(\w+): \{ prefix", script, re.MULTILINE), names)

    def test_ids(self) -> None:
        """The elements that the scripts look up by id exist."""
        parser = self.read(shell())
        ids = {each.get("id") for _, each in parser.tags}
        for path in STATIC.glob("*.js"):
            for name in re.findall(r'byId\("([\w-]+)"\)', path.read_text(encoding="utf-8")):
                self.assertIn(name, ids, path.name)
