# -*- test-case-name: mailgate.test.cli.test_stats -*-
"""
C{mailgate stats}: the most important numbers of a running gateway, once or every second.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from mailgate.cli.adminclient import AdminClient, NoAnswer
from mailgate.cli.asking import addCommand, printJSON
from mailgate.cli.columns import amount, cut, plural, shown
from mailgate.cli.figures import count, rate, seconds
from mailgate.process.tables import duration
from mailgate.system.exitstatus import REFUSED

__all__ = ["addStats", "numbers", "readStats"]

_EVERY = 1.0
"""Seconds between two answers of C{--watch}."""

_LABEL = 12
"""Cells of the words at the beginning of lines."""

_HOME = "\x1b[H"
_END_OF_LINE = "\x1b[K"
_END_OF_SCREEN = "\x1b[J"
"""Control sequences of ECMA-48: to the first cell, and clear to the end of the line and of the screen."""


def readStats(client: AdminClient) -> Mapping[str, Any]:
    """
    Return the numbers.

    @param client: asks the admin server.
    @raise NoAnswer: there is no answer, or it is not valid.
    """
    found = client.get("/api/1/stats")
    if not isinstance(found, dict) or not isinstance(found.get("sessions"), dict):
        raise NoAnswer(f"{client.place} is not an admin server of mailgate", REFUSED)
    return found


def numbers(stats: Mapping[str, Any]) -> Iterator[str]:
    """
    Yield the numbers as lines. What the answer does not have is left out, or C{-}.

    @param stats: the answer of the admin server.
    """
    for label, text in _numbers(stats):
        yield f"{label:<{_LABEL}} {text}"


def _numbers(stats: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    sessions = stats.get("sessions") or {}
    yield "sessions", f"{count(sessions.get('total'))}, {count(sessions.get('relayed'))} of them relayed"
    for protocol, each in sorted((sessions.get("by_protocol") or {}).items()):
        phases = ", ".join(f"{shown(phase)} {count(number)}" for phase, number in (each.get("phases") or {}).items())
        yield f"  {shown(protocol)}", f"{count(each.get('total'))}{f': {phases}' if phases else ''}"
    yield "users", count(stats.get("users"))
    connections = stats.get("connections") or {}
    yield "connections", f"{count(connections.get('total'))}, {rate(connections.get('per_second'))}"
    for outcome, each in (stats.get("logins") or {}).items():
        if outcome in ("accepted", "denied", "temporary") or each.get("total"):
            yield f"  {shown(outcome)}", f"{count(each.get('total'))}, {rate(each.get('per_second'))}"
    wait = stats.get("login_wait") or {}
    yield "login wait", f"half below {seconds(wait.get('p50'))}, 99 % below {seconds(wait.get('p99'))}"
    for direction, label in (("from_client", "from clients"), ("to_client", "to clients")):
        each = (stats.get("bytes") or {}).get(direction) or {}
        recent = each.get("per_second")
        yield label, f"{amount(each.get('total'))}, {'-' if recent is None else amount(recent) + '/s'}"
    backends = stats.get("backends") or {}
    numbers = ", ".join(f"{count(backends.get(word))} {word}" for word in ("up", "down", "draining"))
    # It has no number of those that authentication services and account files name.
    yield "backends", "none in the configuration" if backends and not any(backends.values()) else numbers
    workers = stats.get("workers") or {}
    restarts = workers.get("restarts")
    yield (
        "workers",
        (
            f"{count(workers.get('serving'))} serving, {count(workers.get('retiring'))} retiring,"
            f" {plural(restarts, 'restart') if isinstance(restarts, int) else f'{count(restarts)} restarts'}"
        ),
    )
    if isinstance(stats.get("store"), dict):
        yield from _store(stats["store"], ago(stats, stats["store"].get("since")))


def _store(store: Mapping[str, Any], since: float | None) -> Iterator[tuple[str, str]]:
    """The store that gateways share, and the age of the word of each gateway."""
    state, why = "up" if store.get("up") else "down", shown(store.get("reason")) if store.get("reason") else ""
    yield "store", f"{state} for {duration(since)}{f': the store {why}' if why else ''}"
    gateways = [each for each in store.get("gateways") or [] if isinstance(each, dict)]
    words = [
        shown(each.get("name")) + (f" (heard {duration(each.get('age'))} ago)" if place else "")
        for place, each in enumerate(gateways)
    ]
    yield "gateways", ", ".join(words)


def ago(stats: Mapping[str, Any], moment: Any) -> float | None:
    """
    Return the seconds from a moment to the time of an answer.

    @param stats: the answer, with C{time}.
    @param moment: the moment as RFC 3339.
    """
    try:
        times = [datetime.fromisoformat(str(each).replace("Z", "+00:00")) for each in (moment, stats.get("time"))]
        return max(0.0, (times[1] - times[0]).total_seconds())
    except (ValueError, TypeError):
        return None


def title(stats: Mapping[str, Any]) -> str:
    """
    Return the line above the numbers.

    @param stats: the answer of the admin server.
    """
    name = f" {shown(stats['gateway'])}" if stats.get("gateway") else ""
    return f"mailgate {shown(stats.get('version'))}{name}, up for {duration(stats.get('uptime'))}"


def _oneLine(stats: Mapping[str, Any]) -> str:
    """The numbers that change, for a log of them."""
    sessions, logins = stats.get("sessions") or {}, stats.get("logins") or {}
    rates = {word: rate((logins.get(word) or {}).get("per_second")) for word in ("accepted", "denied", "temporary")}
    connections = rate((stats.get("connections") or {}).get("per_second"))
    words = [
        f"sessions {shown(sessions.get('total'))}",
        f"relayed {shown(sessions.get('relayed'))}",
        f"connections {connections}",
        *(f"{word} {each}" for word, each in rates.items()),
        f"wait {seconds((stats.get('login_wait') or {}).get('p99'))}",
    ]
    return f"{shown(stats.get('time'))} {', '.join(words)}"


def _draw(stats: Mapping[str, Any]) -> None:
    """Draw over what stands on the terminal."""
    size = shutil.get_terminal_size()
    # A line in the last row, or a longer one, would scroll.
    lines = [cut(line, size.columns - 1) for line in (title(stats), *numbers(stats))][: size.lines - 1]
    sys.stdout.write(_HOME + "".join(f"{line}{_END_OF_LINE}\n" for line in lines) + _END_OF_SCREEN)
    sys.stdout.flush()


def _printLine(stats: Mapping[str, Any]) -> None:
    print(_oneLine(stats), flush=True)


def _printObject(stats: Mapping[str, Any]) -> None:
    print(json.dumps(stats), flush=True)


def _watch(client: AdminClient, show: Callable[[Mapping[str, Any]], None]) -> int:
    """Show the numbers every second until Ctrl-C. A gateway that is upgraded or reloaded may be silent for a moment."""
    try:
        stats = readStats(client)
        while True:
            began = time.monotonic()
            show(stats)
            time.sleep(max(0.0, _EVERY - (time.monotonic() - began)))
            stats = _again(client, stats)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 0


_PATIENCE = 5
"""Answers that may be missing one after the other."""


def _again(client: AdminClient, stats: Mapping[str, Any]) -> Mapping[str, Any]:
    for left in range(_PATIENCE, -1, -1):
        try:
            return readStats(client)
        except NoAnswer:
            if not left:
                raise
            time.sleep(_EVERY)
    return stats


def _run(client: AdminClient, arguments: argparse.Namespace) -> int:
    if arguments.watch:
        isTerminal = sys.stdout.isatty()
        if isTerminal and not arguments.json:
            sys.stdout.write(_HOME + _END_OF_SCREEN)
        return _watch(client, _printObject if arguments.json else _draw if isTerminal else _printLine)
    stats = readStats(client)
    if arguments.json:
        printJSON(stats)
    else:
        print("\n".join((title(stats), *numbers(stats))))
    return 0


def addStats(commands: Any) -> None:
    """
    Add the command.

    @param commands: the object that argparse's C{add_subparsers} returns.
    """
    parser = addCommand(
        commands,
        "stats",
        "print the most important numbers",
        "Print how many sessions, users and connections the running gateway has, and how logins end. Rates are those of"
        " the last 10 seconds. With --watch, print them every second: over each other on a terminal, and otherwise as a"
        " line each. Ctrl-C ends that.",
        _run,
        {2: ""},
    )
    parser.add_argument("--watch", action="store_true", help="print the numbers every second")
