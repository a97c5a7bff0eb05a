# -*- test-case-name: mailgate.test.integration.test_top -*-
"""
C{mailgate top} in a terminal.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from functools import partial
from typing import Any

from mailgate.cli.columns import width
from mailgate.test.cli.adminserver import AdminTestCase
from mailgate.test.cli.top.pages import HOSTILE, SESSION, STORY, overview
from mailgate.test.integration.programs import require
from mailgate.test.integration.terminal import Terminal
from mailgate.test.integration.test_commands import MAILGATE, CommandsTestCase

FAILING = """\
import sys
from mailgate.cli.main import main
from mailgate.cli.top import terminal
layout = terminal.layout
def fail(view, *size):
    if view.text is not None:
        raise RuntimeError("a mistake in the page")
    return layout(view, *size)
terminal.layout = fail
sys.exit(main())
"""
"""C{mailgate} with a page of help that cannot be laid out."""


def hasSize(words: str, text: str) -> bool:
    """Whether the page has C{words} and ends in the last line of the terminal."""
    return words in text and text.rstrip().endswith("q quit")


def isAligned(key: str, column: str, text: str) -> bool:
    """
    Whether the view of C{key} is shown with a row for each hostile name, and C{column} begins at the same cell in all
    of them. A screen that is half drawn has the new view's line of keys above the rows of the view before.
    """
    lines = [line for line in text.split("\n") if column in line]
    starts = {width(line[: line.index(column)]) for line in lines}
    return f"[{key} " in text and len(lines) == len(HOSTILE) and len(starts) == 1


def isSelected(row: str, text: str) -> bool:
    """Whether the selected row begins with C{row}, and no question is open."""
    return row in text and "y: yes" not in text


class TerminalTests(AdminTestCase):
    """How the page looks and ends, with a server that answers as the test says."""

    def setUp(self) -> None:
        require("tmux")
        super().setUp()
        self.terminal = Terminal(self.folder)
        self.addCleanup(self.terminal.close)

    def begin(self, *options: str, command: list[str] = MAILGATE, before: str = "") -> None:
        """Run C{mailgate top}; the shell says how the terminal was, and what the exit status is."""
        run = shlex.join([*command, "top", "--pid", self.pidFile, *options])
        script = os.path.join(self.folder, "script")
        with open(script, "w") as file:
            file.write(f"clear\nstty -g | cksum\n{before} {run}\necho status $?\nstty -g | cksum\n")
        self.terminal.type(f". {script}")
        self.terminal.waitFor("? help")

    def ended(self, status: int) -> str:
        """Check that the shell has its terminal back as it was; return what is on the screen."""
        text = self.terminal.waitUntil(
            lambda text: f"status {status}\n" in text and text.rstrip().endswith("ready>"), f"status {status}"
        )
        self.assertNotIn("? help", text)
        self.assertEqual((self.terminal.value("#{alternate_on}"), self.terminal.value("#{cursor_flag}")), ("0", "1"))
        before, after = re.findall(r"^\d+ \d+$", text, re.MULTILINE)
        self.assertEqual(before, after)
        return text

    def pid(self) -> int:
        """The process in the terminal."""
        shell = int(self.terminal.value("#{pane_pid}"))
        with open(f"/proc/{shell}/task/{shell}/children") as file:
            return int(file.read().split()[-1])

    def test_hostile(self) -> None:
        """Names of clients neither control the terminal nor break the columns."""
        rows: list[dict[str, Any]] = [{**SESSION, "user": name} for name in HOSTILE]
        failures = [{**STORY, "user": name, "text": name} for name in HOSTILE]
        self.answers(overview(stuck=rows, failures=failures, gateway=HOSTILE[0]))
        title = self.terminal.value("#{pane_title}")
        self.begin()
        for key in ("l", "f"):
            self.terminal.press(key)
            text = self.terminal.waitUntil(partial(isAligned, key, "192.0.2.7"), f"the rows of {key}")
            self.assertIn(r"\x1b[2J", text)
        self.assertEqual(self.terminal.value("#{pane_title}"), title)
        self.terminal.press("q")
        self.ended(0)

    def test_simpleTerminals(self) -> None:
        """Without UTF-8 or with a terminal of 1978 the page is ASCII; NO_COLOR has no colours."""
        self.answers(overview())
        for before, options in (("LC_ALL=C", []), ("NO_COLOR=1", ["--ascii"]), ("TERM=vt100", [])):
            self.begin(*options, before=before)
            text = self.terminal.text()
            self.assertTrue(text.isascii(), text)
            self.assertIn("x down", text)
            coloured = self.terminal._run("capture-pane", "-p", "-e")
            self.assertEqual("\x1b[31m" in coloured, before == "LC_ALL=C", before)
            self.terminal.press("C-c")
            # A VT100 has no other screen to return to: the page stays there, as that of other programs does.
            self.ended(0) if "vt100" not in before else self.terminal.waitFor("status 0")

    def test_ends(self) -> None:
        """The terminal is as before after a signal, and after a mistake of the page itself."""
        self.answers(overview())
        for number in (signal.SIGTERM, signal.SIGHUP):
            self.begin()
            os.kill(self.pid(), number)
            self.ended(128 + number)
        self.begin(command=[sys.executable, "-c", FAILING])
        self.terminal.press("?")
        self.assertIn("RuntimeError: a mistake in the page", self.ended(1))

    def test_sizes(self) -> None:
        """The page follows the size of the terminal, also to a size with room for little."""
        self.answers(overview())
        self.begin()
        for cells, lines, words in (
            (60, 15, "[b back]"),
            (20, 4, "mailgate"),
            (150, 40, "CONN95"),
            (90, 24, "[b backends]"),
        ):
            self.terminal.resize(cells, lines)
            text = self.terminal.waitUntil(partial(hasSize, words), f"{cells} x {lines}")
            self.assertEqual(len(text.split("\n")), lines)
        self.terminal.press("q")
        self.ended(0)


class TopTests(CommandsTestCase):
    """With a gateway."""

    def setUp(self) -> None:
        require("tmux")
        super().setUp()

    def test_page(self) -> None:
        """
        A backend drains and is resumed; sessions and failures are seen and explained, a session and a block are ended,
        and a restart is survived.
        """
        address = f"127.0.0.1:{self.sandbox['imap']}"
        self.start(self.ini(more=f"[upstream store]\nserver = {address}\n"))
        client, other = self.loggedIn("imap"), self.loggedIn("pop3")
        hostile = self.client("imap")
        hostile.login('"\u202eevil\u2066' + "x" * 150 + '"', "wrong")
        terminal = Terminal(self.folder)
        self.addCleanup(terminal.close)
        terminal.type(
            shlex.join([*MAILGATE, "block", "192.0.2.0/24", "--for", "1h", "--config", self.gateway.configuration])
        )
        terminal.waitFor("192.0.2.0/24 is blocked until")
        terminal.type(shlex.join([*MAILGATE, "top", "--config", self.gateway.configuration]))
        terminal.waitFor("sessions 3 (")
        for key, question, state in (("d", "Drain", "◐ drain"), ("r", "Resume", "✓ up")):
            terminal.press(key)
            # A session of a backend outside of groups is at this address, too, and does not count.
            terminal.waitFor(f"{question} {address} (now ")
            terminal.press("y")
            terminal.waitUntil(partial(isSelected, f"> {state} "), state)
            self.assertIn(f"backend {address}: {question.lower()} ordered", self.gateway.log())
        terminal.press("f")
        text = terminal.waitFor(r"\u202eevil\u2066xxx")
        self.assertNotIn("\u202e", text)
        terminal.press("e")
        terminal.waitFor("  would      be asked of http://127.0.0.1")
        terminal.press("Escape")
        terminal.press("x")
        terminal.waitFor("> 192.0.2.0/24")
        terminal.press("u")
        terminal.waitFor("Unblock 192.0.2.0/24 (rule block)?")
        terminal.press("y")
        terminal.waitFor("1 block ended")
        terminal.waitFor("no blocks")
        terminal.press("s", "/")
        terminal.type("protocol=imap phase=relay")
        terminal.waitFor("1 session, filter /protocol=imap phase=relay")
        terminal.press("k")
        terminal.waitFor("End 1 session of alice (imap from 127.0.0.1:")
        client.noop()
        terminal.press("y")
        terminal.waitFor("1 session ended")
        self.assertTrue(client.ended())
        other.noop()
        terminal.waitFor("no sessions match the filter")
        self.assertIn("mailgate top", self.gateway.log())
        self.gateway.signal(signal.SIGKILL)
        self.gateway.status()
        terminal.waitFor("no answer since")
        self.start()
        terminal.waitUntil(lambda text: "no answer" not in text and "sessions 0" in text, "the new gateway is shown")
        terminal.press("q")
        terminal.waitFor("ready>")
        self.assertNoTraceback()
