"""Tests for L{mailgate.cli.top.grid} and L{mailgate.cli.top.tables}."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli.columns import width
from mailgate.cli.top.grid import chosen, laidOut, scrolled, sortedRows
from mailgate.cli.top.tables import TABLES, Table, rowsOf
from mailgate.cli.top.text import ASCII, UNICODE, Look, plain
from mailgate.keeper.moments import secondsOf
from mailgate.log.journal import printable
from mailgate.test.cli.top.pages import BACKEND, BLOCK, HOSTILE, NOW, SESSION, STORY, overview
from mailgate.test.cli.top.test_values import ANY

BY_NAME = {table.member: table for table in TABLES}
TIME = secondsOf(NOW)


def grid(table: Table, rows: Any, cells: int = 200, **options: Any) -> list[str]:
    """A table as texts."""
    found = laidOut(table, rows, cells, options.pop("marks", UNICODE), now=TIME, **options)
    return [plain(line) for line in (found.head, *found.lines)]


class TablesTests(SynchronousTestCase):
    """What stands in the columns."""

    def test_keys(self) -> None:
        """Each table has its key."""
        self.assertEqual("".join(table.key for table in TABLES), "basfxwvl")

    def test_blocks(self) -> None:
        """A block has what is blocked, the rule, how long ago and how long still."""
        lines = grid(BY_NAME["blocks"], [BLOCK, {**BLOCK, "until": "x", "since": None}])
        self.assertEqual(
            lines,
            [
                "  BLOCKED          RULE   SINCE   LEFT  REASON",
                "  198.51.100.0/24  block    10m  1h50m  abuse",
                "  198.51.100.0/24  block      -      -  abuse",
            ],
        )

    def test_limited(self) -> None:
        """A login that a limit has refused names the rule."""
        story = {**STORY, "outcome": "blocked", "trouble": "blocked", "reason": "R2", "text": "Try again later"}
        self.assertIn("blocked (R2): Try again later", grid(BY_NAME["failures"], [story])[1])
        other = {**STORY, "reason": "user unknown"}
        self.assertIn("user unknown: Invalid login", grid(BY_NAME["failures"], [other])[1])

    def test_backends(self) -> None:
        """States have shapes and words; errors are added up, and the most frequent kind is first."""
        states = ["up", "down", "drain", "resting", "odd"]
        lines = grid(BY_NAME["backends"], [{**BACKEND, "state": state} for state in states])
        self.assertEqual(
            lines[0],
            "  STATE      BACKEND       GROUP    SINCE  SESSIONS  LOGINS  CONN95  LOGIN95  ERR/MIN  REASON",
        )
        self.assertEqual(
            lines[1],
            "  ✓ up       10.0.0.1:143  dovecot      -       812   2.1/s    2 ms    45 ms      2.0"
            "  refused 1.5, timeout 0.5",
        )
        self.assertEqual([line[2:11] for line in lines[2:]], ["✗ down   ", "◐ drain  ", "✗ resting", "! odd    "])
        lines = grid(BY_NAME["backends"], [{**BACKEND, "state": state} for state in states], marks=ASCII)
        self.assertEqual([line[2:8] for line in lines[1:]], ["+ up  ", "x down", "o drai", "x rest", "! odd "])

    def test_services(self) -> None:
        """The last error says when it was."""
        row = {
            "url": "u",
            "state": "up",
            "cache_hits": 0.82,
            "last_error": {"text": "no", "at": "2026-11-28T10:12:03Z"},
        }
        self.assertEqual(
            grid(BY_NAME["auth"], [row]),
            [
                "  STATE  AUTH SERVICE  ASKED  P95  CACHE  ASKING  WAITING  LAST ERROR",
                "  ✓ up   u                 -    -   82 %       -        -  1m ago: no",
            ],
        )

    def test_servers(self) -> None:
        """The certificate that ends first counts, and has a shape if it ends soon or has ended."""
        row = overview()["servers"][0]
        ends = [
            [{"not_after": "2027-12-01T10:13:03Z"}, {"not_after": "2026-12-01T10:13:03Z"}],
            [{"not_after": "2026-11-27T10:13:03Z"}],
            [{"not_after": "2027-11-28T10:13:03Z"}],
            [],
        ]
        lines = grid(BY_NAME["servers"], [{**row, "certificates": each} for each in ends])
        self.assertEqual(lines[0], "  SERVER  PROTO  LISTEN     CLIENTS  TLS1.3  RESUMED  REFUSED  CERTIFICATE")
        self.assertEqual(lines[1], "  imaps   imap   *:993 ssl      812    90 %     40 %        7  ! in 3d")
        self.assertEqual([line.split("  ")[-1] for line in lines[2:]], ["✗ 1d ago", "in 365d", "-"])

    def test_workers(self) -> None:
        """A process that drains, and one that is late, are marked."""
        row = {**overview()["workers"][0], "accepts": False}
        self.assertEqual(
            grid(BY_NAME["workers"], [row]),
            [
                "  CLIENTS   WORKER   PID  GENERATIONS  SESSIONS  RELAYED  CPU  TIME  MEMORY       LAG  REPORT",
                "  ◐ drains  5g0qa   4711            -       812        -  4 %     -       -  ! 200 ms       -",
            ],
        )

    def test_sessions(self) -> None:
        """Bytes are those of the relay; before it there are none."""
        lines = grid(BY_NAME["sessions"], [SESSION, {**SESSION, "phase": "auth", "user": "", "backend": None}])
        self.assertEqual(
            lines[1:],
            [
                "  g1.5g0qa.7k  imap   joe@example.org  192.0.2.7  10.0.0.1:143  relay  3h12m  4m1s  12K  3.1M",
                "  g1.5g0qa.7k  imap   -                192.0.2.7  -             auth   3h12m  4m1s    -     -",
            ],
        )

    def test_logins(self) -> None:
        """Failures have the words for their cause; stuck logins how long they have taken, the longest first."""
        (_, line) = grid(BY_NAME["failures"], [STORY])
        self.assertTrue(line.endswith("ann@example.org  192.0.2.7  auth   denied: Invalid login  g1.5g0qa.7j"), line)
        table = BY_NAME["stuck"]
        rows = [{**SESSION, "waiting": seconds} for seconds in (5.0, 70.0)] + [{**SESSION, "age": 9.0}]
        lines = grid(table, sortedRows(table, rows, table.sorting, TIME))
        self.assertEqual([line.split()[0] for line in lines[1:]], ["1m10s", "9s", "5s"])

    def test_escapedOnce(self) -> None:
        """Texts that the gateway has made printable are not escaped again, and those that it has not are."""
        told = printable(b'say "no" \\ \x1b[2J')
        self.assertEqual(told, r"say \"no\" \\ \x1b[2J")
        story = {**STORY, "text": told, "user": 'a"\\\x1b'}
        (_, line) = grid(BY_NAME["failures"], [story])
        self.assertIn(f"denied: {told}  ", line)
        self.assertIn(r" a\"\\\x1b  ", line)
        (_, line) = grid(BY_NAME["backends"], [{**BACKEND, "reason": told, "errors_per_minute": {}}])
        self.assertTrue(line.endswith(told), line)
        (_, line) = grid(BY_NAME["auth"], [{"url": "u", "last_error": {"text": told}}])
        self.assertTrue(line.endswith(told), line)
        (_, line) = grid(BY_NAME["failures"], [{**STORY, "text": "\x1b[2J\u202e"}])
        self.assertIn(r"denied: \x1b[2J\u202e", line)
        (_, line) = grid(BY_NAME["failures"], [{**STORY, "text": 300 * "\u200b"}], 4000)
        self.assertIn(r"\u200b...", line)
        self.assertLess(line.count("u200b"), 257)

    def test_anything(self) -> None:
        """Rows with values of other kinds make no error, in any table."""
        for table in TABLES:
            full = {**BACKEND, **SESSION, **STORY, **overview()["servers"][0], **overview()["workers"][0]}
            for value in (*ANY, *HOSTILE):
                rows = [{}, *(dict.fromkeys(full, each) for each in (value, [value], {"x": value}))]
                for place in range(-1, len(table.fields)):
                    sortedRows(table, rows, (place, True), TIME)
                for line in laidOut(table, rows, 80, UNICODE, now=TIME).lines:
                    text = "".join(span.text for span in line)
                    self.assertEqual((width(text), text.isprintable()), (80, True), text)
                chosen(table, rows, "x", TIME, UNICODE)
                for row in rows:
                    table.identity(row)
            for value in ANY:
                self.assertIsInstance(rowsOf(table, {table.member: value}, ()), list | tuple)


class GridTests(SynchronousTestCase):
    """Choosing, sorting and aligning."""

    table = BY_NAME["sessions"]

    def test_narrow(self) -> None:
        """Less important columns are left out first, names stay readable, and the line is exactly as wide."""
        for cells, expected in (
            (80, "  PROTO  USER             CLIENT     BACKEND       PHASE  SINCE  IDLE   IN   OUT"),
            (60, "  USER             CLIENT     BACKEND       PHASE  SINCE"),
            (40, "  USER             PHASE  SINCE"),
            (20, "  USER      PHASE  …"),
        ):
            self.assertEqual(grid(self.table, [SESSION], cells)[0], expected)
        for cells in range(1, 130):
            found = laidOut(self.table, [{**SESSION, "user": name} for name in HOSTILE], cells, UNICODE, now=TIME)
            for line in (found.head, *found.lines):
                self.assertEqual(sum(width(span.text) for span in line), cells)

    def test_selected(self) -> None:
        """The selected row has a mark and is reversed from end to end."""
        found = laidOut(self.table, [SESSION, SESSION], 80, UNICODE, now=TIME, selected=1)
        self.assertEqual(plain(found.lines[0])[:2], "  ")
        self.assertEqual(plain(found.lines[1])[:2], "> ")
        self.assertEqual({span.look for span in found.lines[1]}, {Look.BAR})

    def test_sort(self) -> None:
        """Numbers and texts are sorted, rows without a value are last, and the column has a mark."""
        table = BY_NAME["backends"]
        place = next(place for place, field in enumerate(table.fields) if field.title == "SESSIONS")
        rows = [{"address": name, "sessions": value} for name, value in (("b", 2), ("A", None), ("c", 10))]
        for sorting, expected in (
            ((place, False), "bcA"),
            ((place, True), "cbA"),
            ((1, False), "Abc"),
            ((-1, False), "bAc"),
            ((-1, True), "cAb"),
            ((99, False), "bAc"),
        ):
            found = sortedRows(table, rows, sorting, TIME)
            self.assertEqual("".join(row["address"] for row in found), expected, sorting)
        self.assertIn("SESSIONS▼", grid(table, rows, sorting=(place, True))[0])
        self.assertIn("SESSIONS^", grid(table, rows, sorting=(place, False), marks=ASCII)[0])

    def test_choose(self) -> None:
        """Each word must be in some column, in upper or lower case, as it is shown."""
        rows = [SESSION, {**SESSION, "user": "\x1bann", "protocol": "pop3"}]
        for words, expected in (("", 2), ("JOE", 1), ("pop3 ann", 1), ("pop3 joe", 0), ("\\x1b", 1), ("relay", 2)):
            self.assertEqual(len(chosen(self.table, rows, words, TIME, UNICODE)), expected, words)

    def test_scroll(self) -> None:
        """The selected row is seen, with as little movement as possible."""
        for offset, selected, page, total, expected in (
            (0, 0, 5, 10, 0),
            (0, 4, 5, 10, 0),
            (0, 5, 5, 10, 1),
            (3, 2, 5, 10, 2),
            (9, 9, 5, 10, 5),
            (7, 1, 5, 2, 0),
            (0, 0, 1, 0, 0),
        ):
            self.assertEqual(scrolled(offset, selected, page, total), expected)
