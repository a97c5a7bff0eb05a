# -*- test-case-name: mailgate.test.integration.test_top -*-
"""
The page on a terminal, by curses. The terminal is restored however the page ends.
"""

from __future__ import annotations

import curses
import os
import signal
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from mailgate.cli.adminclient import NoAnswer
from mailgate.cli.columns import width
from mailgate.cli.top.asker import Asker
from mailgate.cli.top.keys import Top
from mailgate.cli.top.screen import Screen, layout
from mailgate.cli.top.text import Look, Marks
from mailgate.cli.top.values import Row
from mailgate.system.exitstatus import REFUSED

__all__ = ["show"]

_WAIT = 150
"""Milliseconds to wait for a key, and so the longest time until an answer is seen."""

_ESCAPE = 25
"""Milliseconds after which an escape is the key, and not the beginning of a sequence."""

_KEYS = {
    curses.KEY_UP: "up",
    curses.KEY_DOWN: "down",
    curses.KEY_LEFT: "left",
    curses.KEY_RIGHT: "right",
    curses.KEY_PPAGE: "page up",
    curses.KEY_NPAGE: "page down",
    curses.KEY_HOME: "home",
    curses.KEY_END: "end",
    curses.KEY_ENTER: "enter",
    curses.KEY_BACKSPACE: "backspace",
}
_CHARACTERS = {"\n": "enter", "\r": "enter", "\x1b": "escape", "\x08": "backspace", "\x7f": "backspace"}
_REDRAW = "\x0c"

_COLOURS = {Look.GOOD: curses.COLOR_GREEN, Look.BAD: curses.COLOR_RED, Look.WARN: curses.COLOR_YELLOW}


class _Ended(BaseException):
    """A signal ends the process."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def _end(signum: int, frame: FrameType | None) -> NoReturn:
    # The terminal is restored without a second interruption.
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise _Ended(signum)


@contextmanager
def _signals() -> Iterator[None]:
    """Have signals that end processes restore the terminal first."""
    before = {each: signal.signal(each, _end) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _looks(environment: Mapping[str, str]) -> dict[Look, int]:
    """The attributes of looks. U{NO_COLOR<https://no-color.org/>} switches colours off."""
    found = {
        Look.PLAIN: curses.A_NORMAL,
        Look.BOLD: curses.A_BOLD,
        Look.DIM: curses.A_NORMAL,
        Look.GOOD: curses.A_NORMAL,
        Look.BAD: curses.A_BOLD,
        Look.WARN: curses.A_BOLD,
        Look.BAR: curses.A_REVERSE,
    }
    if environment.get("NO_COLOR") or not curses.has_colors():
        return found
    with suppress(curses.error):
        curses.start_color()
        curses.use_default_colors()
        for number, (look, colour) in enumerate(_COLOURS.items(), 1):
            curses.init_pair(number, colour, -1)
            found[look] |= curses.color_pair(number)
    return found


def _draw(window: curses.window, screen: Screen, looks: Mapping[Look, int]) -> None:
    window.erase()
    for row, line in enumerate(screen.lines):
        cell = 0
        for span in line:
            # Writing into the last cell moves the cursor out of the window, which is an error of no consequence.
            with suppress(curses.error):
                window.addstr(row, cell, span.text, looks[span.look])
            cell += width(span.text)
    with suppress(curses.error):
        curses.curs_set(0 if screen.cursor is None else 1)
    if screen.cursor is not None:
        with suppress(curses.error):
            window.move(*screen.cursor)
    window.refresh()


def _key(window: curses.window) -> str | None:
    """Wait for a key for a moment; return its name, an empty text for another event, and L{None} if there is none."""
    began = time.monotonic()
    try:
        found = window.get_wch()
    except curses.error:
        if time.monotonic() - began < _WAIT / 2000:
            _checkTerminal()
        return None
    if isinstance(found, int):
        return _KEYS.get(found, "")
    return _CHARACTERS.get(found, found)


def _checkTerminal() -> None:
    """Reading keys from a terminal that has hung up fails at once, again and again."""
    try:
        termios.tcgetattr(sys.stdin.fileno())
    except (termios.error, OSError, ValueError):
        raise _Ended(signal.SIGHUP) from None


def _run(window: curses.window, top: Top, asker: Asker) -> None:
    looks = _looks(os.environ)
    window.timeout(_WAIT)
    last: object = None
    while not top.isOver:
        top.tick()
        for question, answer in asker.answers():
            top.answered(question, answer)
        screen = layout(top.view, *window.getmaxyx())
        view = top.view
        view.place, view.offset, view.page = screen.place, screen.offset, screen.page
        if screen != last:
            _draw(window, screen, looks)
            last = screen
        key = _key(window)
        if key == _REDRAW:
            window.clear()
        if key == _REDRAW or key == "":
            # Also a new size.
            last = None
        elif key is not None:
            top.key(key)


@contextmanager
def _terminal() -> Iterator[curses.window]:
    # With these variables ncurses would not follow the size of the terminal.
    for name in ("LINES", "COLUMNS"):
        os.environ.pop(name, None)
    curses.set_escdelay(_ESCAPE)
    window = curses.initscr()
    try:
        curses.noecho()
        curses.cbreak()
        window.keypad(True)
        yield window
    finally:
        with suppress(curses.error):
            window.keypad(False)
            curses.nocbreak()
            curses.echo()
        with suppress(curses.error):
            curses.endwin()


def show(asker: Asker, overview: Row, marks: Marks) -> int:
    """
    Show the page until the operator leaves it, or a signal ends the process.

    @param asker: asks the admin server.
    @param overview: the first overview.
    @param marks: what the terminal can show.
    @return: the exit status.
    @raise NoAnswer: the terminal is not known.
    """
    try:
        curses.setupterm()
    except curses.error as error:
        raise NoAnswer(f"{error}; set TERM, or use mailgate top --once", REFUSED) from None
    top = Top(asker, time.monotonic, time.time, marks)
    top.begin(overview)
    try:
        with _signals(), _terminal() as window:
            _run(window, top, asker)
    except KeyboardInterrupt:
        return 0
    except _Ended as ended:
        return 128 + ended.signum
    return 0
