"""Tests for L{mailgate.cli.top.screen} and L{mailgate.cli.top.summary}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli.top.screen import snapshot
from mailgate.cli.top.tables import TABLES
from mailgate.cli.top.text import ASCII, UNICODE, Look
from mailgate.test.cli.test_stats import STATS
from mailgate.test.cli.top.pages import BACKEND, BLOCK, HOSTILE, SESSION, STORY, Page, isWhole, overview

ALARMS = [
    {"severity": "warning", "text": "certificate a ends in 9 d", "since": "2026-11-28T10:12:03Z"},
    {"severity": "critical", "text": "backend b is down", "since": "2026-11-28T10:09:03Z"},
]


class LayoutTests(SynchronousTestCase):
    """The page in terminals of all sizes."""

    def test_usual(self) -> None:
        """80 columns and 24 lines have everything: the gateway, alarms, numbers, plots, a table and the keys."""
        page = Page().shows(alarms=ALARMS)
        page.answer("history", {"series": {"logins.accepted": [0, 1, 7], "logins.denied": [0, 0, 0]}})
        lines = page.text().splitlines()
        self.assertEqual(len(lines), 24)
        self.assertTrue(lines[0].startswith(" mailgate 0.1.0 g1  up 1d2h  ✓ loaded 2h ago  2 workers"), lines[0])
        self.assertEqual(lines[1], " ✗ critical (4m): backend b is down")
        self.assertEqual(lines[2], " ! warning (1m): certificate a ends in 9 d")
        self.assertTrue(
            lines[3].startswith("  sessions 812 (imap 800, pop3 12)  users 640  in -  out 2.0K/s"), lines[3]
        )
        self.assertTrue(lines[4].startswith("  logins accepted "), lines[4])
        self.assertTrue(lines[5].startswith("  accepted ") and lines[5].endswith("▁▂█"), lines[5])
        self.assertTrue(lines[6].startswith("  denied ") and lines[6].endswith("▁▁▁"), lines[6])
        tabs = "[b back] a auth  s sess  f fail  x blk  w wrk  v srv  l stk"
        self.assertEqual(lines[8], tabs)
        self.assertTrue(lines[9].startswith("  STATE   BACKEND "), lines[9])
        self.assertTrue(lines[10].startswith("> ✓ up    10.0.0.1:143 "), lines[10])
        self.assertTrue(lines[11].startswith("  ✗ down  10.0.0.2:143 "), lines[11])
        self.assertTrue(lines[23].startswith(" 2 rows ") and lines[23].endswith("? help  q quit"), lines[23])

    def test_gateways(self) -> None:
        """With a store, the age of the word of each other gateway is there, and without one nothing of it."""
        self.assertNotIn("other gateways", Page().shows().text())
        gateways = [{"name": "g1", "age": 0.0}, {"name": "g2", "age": 3.2}, {"name": "g3", "age": 61.0}]
        page = Page().shows(stats={**STATS, "store": {"up": True, "reason": "", "gateways": gateways}})
        self.assertIn("  other gateways, heard of: g2 3s ago, g3 1m1s ago\n", page.text())

    def test_small(self) -> None:
        """A small terminal has the header, the worst alarm, the numbers and some rows."""
        page = Page().shows(alarms=ALARMS, backends=[BACKEND] * 30)
        lines = page.text(15, 60).splitlines()
        self.assertEqual(lines[1], " [1 more: press !] ✗ critical (4m): backend b is down")
        self.assertEqual(lines[4], "[b back] a auth  s sess  f fail  x blk  w wrk  v srv  l stk")
        self.assertEqual(sum("10.0.0.1:143" in line for line in lines), 8)

    def test_large(self) -> None:
        """A large terminal has more of everything: plots, columns and rows."""
        page = Page().shows(alarms=ALARMS * 3, backends=[BACKEND] * 30)
        text = page.text(50, 200)
        self.assertIn("wait p95", text)
        self.assertIn("CONN95", text)
        self.assertEqual(text.count("10.0.0.1:143"), 30)
        self.assertEqual(text.count("critical"), 3)

    def test_sizes(self) -> None:
        """Whatever the size and the state, the page fills the terminal exactly, and every character is printable."""
        rows = [{**SESSION, "user": name, "id": name} for name in HOSTILE]
        page = Page().shows(
            version=HOSTILE[0],
            gateway=HOSTILE[3],
            alarms=[{"severity": name, "text": name} for name in HOSTILE],
            missing=list(HOSTILE),
            backends=[{**BACKEND, "address": name, "reason": name, "errors_per_minute": {name: 1}} for name in HOSTILE],
            stuck=rows,
            blocks=[{**BLOCK, "thing": name, "rule": name, "reason": name, "until": name} for name in HOSTILE],
            failures=[{**STORY, "user": name, "text": name, "at": name} for name in HOSTILE],
        )
        sizes = [(1, 1), (1, 80), (2, 5), (3, 60), (5, 2), (9, 20), (12, 1), (15, 60), (24, 5), (24, 80), (40, 200)]

        def check(what: str) -> None:
            for height, cells in sizes:
                self.assertTrue(isWhole(page.draw(height, cells), height, cells), (what, height, cells))

        for table in TABLES:
            page.press(table.key)
            check(table.name)
        page.press("!")
        check("a text")
        page.press("escape", "l", "enter")
        check("details")
        page.press("escape", "/", *HOSTILE[3][:50], "\x1b")
        check("a filter")
        page.press("escape", "k")
        page.answer("trial", {"ended": 1})
        check("a question")
        page.press("n")
        check("a message")

    def test_question(self) -> None:
        """In the smallest terminal the question can still be answered: its keys are seen."""
        page = Page().shows()
        page.press("d")
        page.answer("trial", {"backends": [BACKEND]})
        for height in (1, 2, 4, 10):
            self.assertTrue(page.text(height, 40).endswith("y: yes   any other key: no"))

    def test_long(self) -> None:
        """A long message is not cut."""
        page = Page().shows()
        page.press("a", "d")
        page.view.message = "word " * 30
        self.assertEqual(page.text().count("word"), 30)

    def test_reload(self) -> None:
        """A refused reload is in the header, with a shape and in words."""
        page = Page().shows(reload={"at": "2026-11-28T10:08:03Z", "done": False, "reasons": ["x"]})
        self.assertIn("✗ reload refused 5m ago", page.text())
        page = Page().shows(reload={"at": "2026-11-28T10:08:03Z", "done": True, "reasons": []}, level="operate")
        self.assertIn("✓ loaded 2h ago  2 workers  level operate", page.text())

    def test_withoutAnything(self) -> None:
        """Before the first answer there are no numbers, and no error."""
        page = Page()
        page.advance(0)
        self.assertTrue(page.text().startswith(" mailgate -"))
        self.assertTrue(isWhole(page.draw(), 24, 80))

    def test_ascii(self) -> None:
        """A terminal without Unicode gets ASCII alone, and states keep their words."""
        page = Page(ASCII).shows(alarms=ALARMS, gateway="gä", backends=[{**BACKEND, "state": "down"}])
        page.answer("history", {"series": {"logins.accepted": [0, 1, 7]}})
        text = page.text()
        self.assertTrue(text.isascii(), text)
        for words in ("x critical", "! warning", "> x down", "+ loaded", r"g\xe4", "_.#"):
            self.assertIn(words, text)

    def test_looks(self) -> None:
        """Looks repeat what words and shapes say."""
        page = Page().shows(alarms=ALARMS)
        page.press("down")
        spans = [span for line in page.draw().lines for span in line]
        looks = {span.text.strip(): span.look for span in spans}
        self.assertIs(looks["✗ critical (4m): backend b is down"], Look.BAD)
        self.assertIs(looks["! warning (1m): certificate a ends in 9 d"], Look.WARN)
        self.assertIs(looks["✓ up"], Look.GOOD)
        self.assertIs(looks["[b back]"], Look.BAR)

    def test_more(self) -> None:
        """Rows that the gateway has left out are counted."""
        self.assertIn("2 rows, and 7 more", Page().shows(more={"backends": 7}).text())


class SnapshotTests(SynchronousTestCase):
    """The page without a terminal."""

    def test_plain(self) -> None:
        """All tables but the sessions, without blanks at the ends of lines."""
        text = "\n".join(snapshot(overview(alarms=ALARMS, more={"workers": 3}), None, UNICODE))
        self.assertTrue(text.startswith("mailgate 0.1.0 g1 up 1d2h ✓ loaded 2h ago 2 workers"), text)
        for words in (
            "\n✗ critical (4m): backend b is down\n! warning",
            "\nsessions 812 (imap 800, pop3 12)  users 640",
            "\n\nbackends:\n  STATE   BACKEND ",
            "\n\nauth services:\n",
            "\n\nfailures:\n",
            "\n\nworkers:\n",
            "\n  and 3 more\n",
            "\n\nservers:\n",
            "\n\nstuck logins:\n",
        ):
            self.assertIn(words, text)
        self.assertEqual([line for line in text.split("\n") if line != line.rstrip()], [])
        self.assertNotIn("sessions:", text)

    def test_hostile(self) -> None:
        """Names are printable and not cut, if there is no limit."""
        for name in HOSTILE:
            for marks in (UNICODE, ASCII):
                lines = list(snapshot(overview(failures=[{**STORY, "user": name}], gateway=name), None, marks))
                self.assertTrue(all(line.isprintable() for line in lines))
        self.assertIn("x" * 256, "\n".join(snapshot(overview(failures=[{**STORY, "user": "x" * 256}]), None, UNICODE)))

    def test_narrow(self) -> None:
        """On a terminal no line is longer than it."""
        for line in snapshot(overview(alarms=ALARMS), 60, ASCII):
            self.assertLessEqual(len(line), 60)
