"""
Tests for L{mailgate.keeper.admin.page.render}: the documents.
"""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.admin.page.columns import SECTIONS, SESSIONS
from mailgate.keeper.admin.page.render import PLOTS, ROWS_A_TURN, shell, tables
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
    "sessions": [{**SESSION, "phase": "relay", "tls": {"version": "TLSv1.3"}, "received": 12288}],
    "failures": [{**SESSION, "at": "2026-11-28T10:02:11.204Z", "trouble": "denied", "text": "Invalid"}],
    "blocks": [
        {
            **{"id": "b7", "thing": "joe@example.org", "rule": "hold", "reason": "move", "count": 1},
            **{"since": "2026-11-28T10:13:03Z", "until": "2026-11-28T10:23:03Z"},
        }
    ],
    "missing": ["worker 4712"],
    "more": {"failures": 12, "sessions": 8115},
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


class _Turns(Clock):
    """A clock with which a turn of the event loop takes at least a second."""

    def callLater(self, delay: float, callable: Any, *args: object, **kw: object) -> Any:
        return super().callLater(max(delay, 1), callable, *args, **kw)


class DocumentCase(SynchronousTestCase):
    """Reads documents."""

    def setUp(self) -> None:
        self.clock = _Turns()

    def read(self, rendered: Any) -> _Parser:
        """Parse a document, and check what holds for all of them."""
        for _ in range(100):
            self.clock.advance(1)
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
        parser = self.read(tables(self.clock, OVERVIEW))
        self.assertEqual(len(parser.all("table")), len(SECTIONS) + 1)
        self.assertEqual(len(parser.all("caption")), len(SECTIONS) + 1)
        scopes = [each.get("scope") for each in parser.all("th")]
        self.assertEqual(set(scopes), {"col", "row"})
        self.assertEqual(scopes.count("row"), 7)
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
        for part in (
            "gateway.ini:12: bad",
            "worker 4712",
            "and 12 more",
            "and 8,115 more",
            "TLSv1.3",
            "1 d",
            "no authentication service",
        ):
            self.assertIn(part, text)

    def test_gateways(self) -> None:
        """With a store, the age of the word of each other gateway is there, and without one nothing of it."""
        self.assertNotIn("heard", " ".join(self.read(tables(self.clock, OVERVIEW)).texts))
        gateways = [{"name": "g1", "age": 0.0}, {"name": "g2", "age": 3.2}, {"name": "g3\x1b", "age": 61.0}]
        stats = {**OVERVIEW["stats"], "store": {"up": True, "reason": "", "gateways": gateways}}
        text = " ".join(self.read(tables(self.clock, {**OVERVIEW, "stats": stats})).texts)
        self.assertIn("g2 heard 3", text)
        self.assertIn("g3\\u{1b} heard 1 m", text)
        self.assertNotIn("g1 heard", text)

    def test_noScripts(self) -> None:
        """There are no scripts, and nothing that only scripts would fill, or that would change the gateway."""
        parser = self.read(tables(self.clock, OVERVIEW))
        for tag in ("script", "button", "form", "input", "dialog"):
            self.assertEqual(parser.all(tag), [], tag)

    def test_level(self) -> None:
        """A table that the level does not show is left out."""
        parser = self.read(
            tables(self.clock, {**OVERVIEW, **dict.fromkeys(("stuck", "failures", "blocks", "sessions"))})
        )
        self.assertEqual(len(parser.all("table")), len(SECTIONS) - 3)
        self.assertNotIn("joe@example.org", " ".join(parser.texts))

    def test_empty(self) -> None:
        """An overview of another release, or without anything, is a page as well."""
        for overview in ({}, {"stats": None, "alarms": None, "reload": None, "missing": None, "more": None}):
            self.read(tables(self.clock, overview))
        parser = self.read(tables(self.clock, {**OVERVIEW, "backends": [{}], "servers": [{"certificates": None}]}))
        self.assertEqual(len(parser.all("table")), len(SECTIONS) + 1)

    def test_hostile(self) -> None:
        """Texts of clients and servers stay texts: no element is added, and nothing in them is hidden."""
        usual, changed = (self.read(tables(self.clock, each)) for each in (OVERVIEW, hostile(OVERVIEW)))
        known = {tag for tag, _ in usual.tags}
        self.assertEqual({tag for tag, _ in changed.tags} - known, set())
        self.assertEqual(len(changed.all("tr")), len(usual.all("tr")))
        text = "".join(changed.texts)
        self.assertIn('<img src=x onerror="alert(1)">\\u{202e}&amp;\\u{1b}', text)
        for char in "\u202e\x1b":
            self.assertNotIn(char, text)

    def test_readable(self) -> None:
        """A text that the gateway has made printable already is not escaped a second time."""
        text = r'the server said "\u202e no", then \x1b'
        story = {**OVERVIEW["failures"][0], "text": text.replace('"', r"\"")}
        self.assertIn(text, self.read(tables(self.clock, {**OVERVIEW, "failures": [story]})).texts)

    def test_stuck(self) -> None:
        """A login that is stuck shows for how long it is, and not how old its connection is."""
        row = {**SESSION, "age": 7200.0, "waiting": 12.0}
        text = " ".join(self.read(tables(self.clock, {**OVERVIEW, "stuck": [row]})).texts)
        self.assertIn("12 s", text)
        self.assertNotIn("2 h", text)

    def test_isolated(self) -> None:
        """A text of the network is an element that keeps its direction to itself, with its whole text as title."""
        user = "\u0645\u0633\u062a@example.org" + 300 * "x"
        parser = self.read(tables(self.clock, {**OVERVIEW, "stuck": [{**SESSION, "user": user}]}))
        self.assertIn({"class": "text", "title": user}, parser.all("bdi"))


class _Row(dict[str, Any]):
    """
    A row that remembers when it was rendered.

    @param times: gets the time at each look at a value.
    """

    def __init__(self, clock: Clock, times: list[float]) -> None:
        super().__init__(state="up")
        self._clock = clock
        self._times = times

    def get(self, name: str, default: Any = None) -> Any:
        if name == "state":
            self._times.append(self._clock.seconds())
        return super().get(name, default)


class TurnsTests(DocumentCase):
    """Clients are served while tables are rendered."""

    def test_turns(self) -> None:
        """A turn of the event loop renders some rows, of whichever tables; all rows come, in their order."""
        times: list[float] = []
        overview = {
            **OVERVIEW,
            "backends": [_Row(self.clock, times) for _ in range(95)],
            "auth": [_Row(self.clock, times) for _ in range(7)],
        }
        overview["stuck"] = [{**SESSION, "user": f"user{number:03}"} for number in range(100)]
        for render in (tables, shell):
            del times[:]
            rendered = render(self.clock, overview)
            self.assertEqual(times, [])
            turns = 0
            while self.clock.getDelayedCalls():
                self.clock.advance(1)
                turns += 1
            counts = Counter(times)
            self.assertEqual((sum(counts.values()), max(counts.values())), (102, ROWS_A_TURN))
            rows = (
                102
                + 100
                + sum(len(overview[name]) for name in ("servers", "failures", "blocks", "sessions", "workers"))
            )
            self.assertEqual(turns, -(-rows // ROWS_A_TURN))
            users = [each for each in self.read(rendered).texts if each.startswith("user")]
            self.assertEqual(users, [f"user{number:03}" for number in range(100)])

    def test_left(self) -> None:
        """Nothing is rendered any more when the caller has left."""
        times: list[float] = []
        rendered = tables(self.clock, {"backends": [_Row(self.clock, times) for _ in range(50)]})
        self.clock.advance(1)
        rendered.cancel()
        self.failureResultOf(rendered, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(times), ROWS_A_TURN)

    def test_error(self) -> None:
        """An error has no part of the document: the log gets it."""
        rendered = tables(self.clock, {**OVERVIEW, "backends": [{"address": "10.0.0.9", "certificates": 1}, None]})
        self.clock.advance(1)
        self.assertNotIn("10.0.0.9", str(self.failureResultOf(rendered, AttributeError)))


class ShellTests(DocumentCase):
    """The page that scripts fill."""

    def test_noData(self) -> None:
        """Without a level the page has heads of tables, and no data; it is the same for all callers."""
        parser = self.read(shell(self.clock))
        self.assertEqual(parser.all("td"), [])
        self.assertEqual(len(parser.all("table")), len(SECTIONS) + 1)
        page = next(each for _, each in parser.tags if each.get("id") == "page")
        self.assertEqual((page["data-granted"], page["hidden"]), ("", ""))
        self.assertIn("JavaScript", " ".join(parser.texts))

    def test_level(self) -> None:
        """A caller with a level gets it, and the tables for browsers without JavaScript."""
        parser = self.read(shell(self.clock, OVERVIEW))
        page = next(each for _, each in parser.tags if each.get("id") == "page")
        self.assertEqual(page["data-granted"], "operate")
        self.assertEqual(len(parser.all("table")), 2 * (len(SECTIONS) + 1))
        self.assertEqual(len(parser.all("noscript")), 2)

    def test_heads(self) -> None:
        """The heads have the kinds and the fields of their columns, which the scripts read."""
        parser = self.read(shell(self.clock))
        heads = [each["data-is"] for each in parser.all("th")]
        sections = [*SECTIONS[:-1], SESSIONS, SECTIONS[-1]]
        columns = [column for section in sections for column in section.columns]
        self.assertEqual(heads, [f"{column.kind} {column.field}".strip() for column in columns])
        self.assertEqual([each["data-key"] for each in parser.all("table")], [" ".join(each.key) for each in sections])

    def test_levels(self) -> None:
        """What lower levels must not use has the level that it needs; drain and resume need the highest."""
        parser = self.read(shell(self.clock))
        needs = {each["id"]: each["data-level"] for each in parser.all("section") if "data-level" in each}
        self.assertEqual(
            {name for name, level in needs.items() if level == "operate"}, {"stuck", "failures", "blocks", "sessions"}
        )
        orders = [each for each in parser.all("th") if each["data-is"] == "orders"]
        self.assertEqual([each["data-level"] for each in orders], ["admin"])

    def test_live(self) -> None:
        """One place alone announces changes."""
        parser = self.read(shell(self.clock))
        polite = [each for _, each in parser.tags if each.get("aria-live") or each.get("role") == "status"]
        self.assertEqual([each["id"] for each in polite], ["announcer"])

    def test_plots(self) -> None:
        """The plots of the page are those that the script knows."""
        parser = self.read(shell(self.clock))
        names = [str(each["data-plot"]) for each in parser.all("figure")]
        self.assertEqual(names, [name for name, _, _ in PLOTS])
        script = (STATIC / "plots.js").read_text()
        self.assertEqual(re.findall(r"^\t(\w+): \{ prefix", script, re.MULTILINE), names)

    def test_ids(self) -> None:
        """The elements that the scripts look up by id exist."""
        parser = self.read(shell(self.clock))
        ids = {each.get("id") for _, each in parser.tags}
        for path in STATIC.glob("*.js"):
            for name in re.findall(r'byId\("([\w-]+)"\)', path.read_text(encoding="utf-8")):
                self.assertIn(name, ids, path.name)
