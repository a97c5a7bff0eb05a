# -*- test-case-name: mailgate.test.cli.top.test_command -*-
"""
C{mailgate top}: shows a running gateway on a terminal, or prints it once.
"""

from __future__ import annotations

import argparse
import locale
import os
import sys
from collections.abc import Mapping
from typing import Any

from mailgate.cli.adminclient import AdminClient, NoAnswer
from mailgate.cli.asking import addCommand, printJSON
from mailgate.cli.columns import terminalWidth
from mailgate.cli.top.asker import Asker
from mailgate.cli.top.screen import snapshot
from mailgate.cli.top.text import ASCII, UNICODE, Marks
from mailgate.cli.top.values import Row
from mailgate.system.exitstatus import REFUSED

__all__ = ["addTop", "marksFor"]

_SIMPLE = ("vt", "linux", "ansi", "cons", "dumb")
"""The beginnings of the names of terminals that have few characters besides ASCII, whatever the locale says."""


def marksFor(environment: Mapping[str, str], encoding: str) -> Marks:
    """
    Return what a terminal can show.

    @param environment: the variables of the process; empty if the output is no terminal.
    @param encoding: the encoding of the locale, or of the output.
    """
    isUTF8 = encoding.lower().replace("-", "") == "utf8"
    isSimple = environment.get("TERM", "").startswith(_SIMPLE)
    return UNICODE if isUTF8 and not isSimple else ASCII


def _overview(client: AdminClient) -> Row:
    found = client.get("/api/1/overview")
    if not isinstance(found, dict) or not isinstance(found.get("stats"), dict):
        raise NoAnswer(f"{client.place} is not an admin server of mailgate", REFUSED)
    return found


def _run(client: AdminClient, arguments: argparse.Namespace) -> int:
    # Without an answer the command fails as others do. Later the page waits for the gateway.
    overview = _overview(client)
    if arguments.json:
        printJSON(overview)
        return 0
    isTerminal = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb")
    if arguments.once or not isTerminal:
        marks = ASCII if arguments.ascii else marksFor({}, sys.stdout.encoding or "ascii")
        print("\n".join(snapshot(overview, terminalWidth(), marks)))
        return 0
    locale.setlocale(locale.LC_ALL, "")
    marks = ASCII if arguments.ascii else marksFor(os.environ, locale.nl_langinfo(locale.CODESET))
    try:
        # Python can be built without curses.
        from mailgate.cli.top.terminal import show
    except ModuleNotFoundError as error:
        raise NoAnswer(f"this Python has no {error.name}; use mailgate top --once", REFUSED) from None
    return show(Asker(client), overview, marks)


def addTop(commands: Any) -> None:
    """
    Add the command.

    @param commands: the object that argparse's C{add_subparsers} returns.
    """
    parser = addCommand(
        commands,
        "top",
        "show the gateway on a terminal, and steer it by keys",
        "Show the running gateway on the terminal, with its alarms, numbers, backends, authentication services,"
        " sessions, failed logins, blocks, workers and servers. The page is renewed every second, also after a reload,"
        " an upgrade or a restart of the gateway. Keys choose a table, sort and filter it, end sessions and blocks,"
        " drain backends and explain failures; ? lists them, and q leaves. Without a terminal, print the page once.",
        _run,
        {2: ""},
    )
    parser.add_argument("--once", action="store_true", help="print the page once, with all tables but the sessions")
    parser.add_argument("--ascii", action="store_true", help="use characters of ASCII only")
