# -*- test-case-name: mailgate.test.cli.top.test_summary -*-
"""
The upper part of the page: the gateway, its alarms, its numbers, and small plots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mailgate.cli.columns import amount, width
from mailgate.cli.figures import count, rate, seconds
from mailgate.cli.top.text import Line, Look, Marks, Span, clean, escaped, lineOf, spark, steady
from mailgate.cli.top.values import Row, ago, clockTime, mapping, number, rows
from mailgate.cli.top.view import View
from mailgate.keeper.moments import secondsOf
from mailgate.process.tables import duration

__all__ = ["alarms", "header", "numbers", "plots", "troubles"]

_LABEL = 10
_VALUE = 9
_OUTCOMES = ("accepted", "denied", "temporary")


def _reload(overview: Row, now: float | None, marks: Marks) -> str:
    found = mapping(overview.get("reload"))
    if found and not found.get("done"):
        since = ago(found.get("at"), now)
        return f"{marks.bad} reload refused{'' if since is None else f' {duration(since)} ago'}"
    since = ago(overview.get("loaded"), now)
    return "" if since is None else f"{marks.good} loaded {duration(since)} ago"


def header(view: View, cells: int) -> Line:
    """
    Return the first line: the gateway, and whether its configuration is loaded.

    @param view: the page.
    @param cells: the cells of a line.
    """
    overview, marks, now = view.overview, view.marks, view.now
    workers = number(mapping(mapping(overview.get("stats")).get("workers")).get("serving"))
    level = clean(overview.get("level"), marks)
    parts = [
        f" mailgate {clean(overview.get('version'), marks, 40)}"
        + (f" {clean(overview['gateway'], marks, 40)}" if overview.get("gateway") else ""),
        f"up {duration(number(overview.get('uptime')))}",
        _reload(overview, now, marks),
        "" if workers is None else f"{count(workers)} worker{'' if workers == 1 else 's'}",
        "" if level == "admin" else f"level {level}",
    ]
    clock = f"{'PAUSED ' if view.isPaused else ''}{clockTime(view.answered)} "
    left = ""
    for part in filter(None, parts):
        longer = f"{left}  {part}" if left else part
        if left and width(longer) + width(clock) + 1 > cells:
            break
        left = longer
    gap = max(1, cells - width(left) - width(clock))
    return lineOf([Span(left + " " * gap + clock, Look.BAR)], cells, marks, Look.BAR)


def troubles(overview: Row, marks: Marks) -> Iterator[Span]:
    """
    Yield the alarms, the critical ones first, and what did not answer. Each one has its shape and its severity.

    @param overview: the overview.
    @param marks: what the terminal can show.
    """
    now = secondsOf(overview.get("time"))
    found = rows(overview.get("alarms"))
    for row in sorted(found, key=lambda each: each.get("severity") != "critical"):
        isCritical = row.get("severity") == "critical"
        since = ago(row.get("since"), now)
        age = "" if since is None else f" ({duration(since)})"
        shape = marks.bad if isCritical else marks.warn
        words = f"{shape} {clean(row.get('severity'), marks, 20)}{age}: {escaped(row.get('text'), marks)}"
        yield Span(words, Look.BAD if isCritical else Look.WARN)
    missing = overview.get("missing")
    for each in missing if isinstance(missing, list) else ():
        yield Span(f"{marks.warn} not complete: {escaped(each, marks)}", Look.WARN)


def alarms(view: View, cells: int, most: int) -> Sequence[Line]:
    """
    Return the lines about what is wrong.

    @param view: the page.
    @param cells: the cells of a line.
    @param most: the most lines.
    """
    marks = view.marks
    found = list(troubles(view.overview, marks))
    if view.silent is not None:
        reason = f": {steady(view.trouble, marks)}" if view.trouble else ""
        since = f"{clockTime(view.answered)} ({duration(view.silent)})"
        found.insert(0, Span(f"{marks.bad} no answer since {since}{reason}", Look.BAD))
    if len(found) > most > 0:
        last = found[most - 1]
        found[most - 1] = Span(f"[{len(found) - most} more: press !] {last.text}", last.look)
    return [lineOf([Span(" "), span], cells, marks) for span in found[:most]]


def numbers(stats: Row, marks: Marks) -> Iterator[str]:
    """
    Yield the most important numbers in two lines, and with a store the other gateways in a third.

    @param stats: C{stats} of an overview.
    @param marks: what the terminal can show.
    """
    sessions = mapping(stats.get("sessions"))
    protocols = [
        f"{clean(name, marks, 12)} {count(mapping(each).get('total'))}"
        for name, each in list(mapping(sessions.get("by_protocol")).items())[:6]
    ]
    moved = mapping(stats.get("bytes"))
    rates = [number(mapping(moved.get(name)).get("per_second")) for name in ("from_client", "to_client")]
    flow = ["-" if each is None else f"{amount(each)}/s" for each in rates]
    each = f" ({', '.join(protocols)})" if protocols else ""
    yield (
        f"sessions {count(sessions.get('total'))}{each}  users {count(stats.get('users'))}  in {flow[0]}  out {flow[1]}"
    )
    logins = mapping(stats.get("logins"))
    outcomes = [
        f"{clean(name, marks, 20)} {rate(mapping(logins.get(name)).get('per_second'))}"
        for name in dict.fromkeys((*_OUTCOMES, *list(logins)[:12]))
        if name in _OUTCOMES[:2] or mapping(logins.get(name)).get("per_second")
    ]
    wait = mapping(stats.get("login_wait"))
    times = [f"{name} {seconds(wait.get(name))}" for name in ("p50", "p95", "p99") if name in wait]
    yield f"logins {', '.join(outcomes)}  wait {', '.join(times) or '-'}"
    store = mapping(stats.get("store"))
    others = [
        f"{clean(each.get('name'), marks, 20)} {duration(number(each.get('age')))} ago"
        for each in rows(store.get("gateways"))[1:9]
    ]
    if others:
        yield f"other gateways, heard of: {', '.join(others)}"


def plots(view: View, cells: int, most: int) -> Sequence[Line]:
    """
    Return small plots of the last minutes: logins by outcome, and how long logins waited.

    @param view: the page.
    @param cells: the cells of a line.
    @param most: the most lines.
    """
    stats = mapping(view.overview.get("stats"))
    logins, wait = mapping(stats.get("logins")), mapping(stats.get("login_wait"))
    known = [(name, f"logins.{name}", rate(mapping(logins.get(name)).get("per_second"))) for name in _OUTCOMES]
    known.append(("wait p95", "login_wait.p95", seconds(wait.get("p95"))))
    found = []
    for label, name, value in known[:most]:
        room = cells - 2 - _LABEL - _VALUE - 2
        plot = spark(view.past.of(name), room, view.marks)
        words = f"  {label:<{_LABEL}}{value:>{_VALUE}}  "
        found.append(lineOf([Span(words, Look.DIM), Span(plot)], cells, view.marks))
    return found
