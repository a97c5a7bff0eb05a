# -*- test-case-name: bench.test.test_report -*-
"""
Results as reStructuredText that reads well as it is: a summary for README, the facts about machine and programs, and a
table for each group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.measures import GROUPS, Measure
from bench.results import OURS, THEIRS, Results

__all__ = ["document", "number", "simpleTable", "summary", "tables"]

_SUMMARY = {
    "login.plain": "CPU of a login, in the clear (ms)",
    "login.tls": "CPU of a login over TLS, full handshake (ms)",
    "relay.tls.big": "CPU of relaying 1 GiB over TLS (s)",
    "memory.plain.idle": "Memory of an idle session in the clear (bytes)",
    "latency.login.tls.p50": "Time to log in over TLS, median (ms)",
}
"""The rows of README's table: the key of a measure, or its beginning before the number of sessions, and the title."""


def number(figure: float | None) -> str:
    """A figure with the digits that mean something, or a dash where nothing was measured."""
    if figure is None:
        return "-"
    if figure >= 1000:
        return f"{figure:,.0f}"
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.3f}"


def simpleTable(rows: Sequence[Sequence[str]]) -> str:
    """A simple table of reStructuredText; the first row is its head, and all but the first column are right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    ruler = "  ".join("=" * width for width in widths)
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([ruler, lines[0], ruler, *lines[1:], ruler])


def _verdict(results: Results, row: Measure) -> list[str]:
    reached = results.reached(row)
    return [
        _ratio(results.ratio(row)),
        "-" if row.goal is None else f"{row.goal:g}",
        "-" if reached is None else "yes" if reached else "no",
    ]


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}" if ratio < 0.1 else f"{ratio:.2f}"


def _table(results: Results, group: str) -> str:
    rows = results.rows(group)
    proxies = results.columns(rows)
    marks = {proxy: f"{proxy} [{place}]_" for place, proxy in enumerate(_noted(results), 1)}
    columns = [[marks.get(proxy, proxy), *(number(results.figureIn(row, proxy)) for row in rows)] for proxy in proxies]
    if OURS in proxies and THEIRS in proxies:
        verdicts = [_verdict(results, row) for row in rows]
        compared = zip(("ours / nginx", "goal", "reached"), *verdicts, strict=True)
        # Behind our own column, which is the second: what is compared stands together.
        columns[2:2] = [list(column) for column in compared if any(row.goal for row in rows) or "/" in column[0]]
    return simpleTable(list(zip([GROUPS[group], *(row.title for row in rows)], *columns, strict=True)))


def _noted(results: Results) -> list[str]:
    """The proxies with footnotes, in the footnotes' order."""
    return [proxy for proxy in results.proxies if proxy in results.notes]


def summary(results: Results) -> str:
    """
    The table that README shows: a few rows of the two proxies that are compared.

    @return: the table, or an empty text where one of its rows was not measured.
    """
    rows = [["In short", THEIRS, OURS, f"{OURS} / {THEIRS}"]]
    for key, title in _SUMMARY.items():
        # Of the same measure with several numbers of sessions the greatest number stands last.
        found = [row for row in results.measures if row.key == key or (row.key.startswith(f"{key}.") and row.sessions)]
        if not found or results.ratio(found[-1]) is None:
            return ""
        figures = [number(results.figureIn(found[-1], proxy)) for proxy in (THEIRS, OURS)]
        rows.append([title, *figures, _ratio(results.ratio(found[-1]))])
    return simpleTable(rows)


def tables(results: Results) -> str:
    """The tables alone, with their footnotes."""
    return "\n\n".join([*_tables(results), "\n".join(_footnotes(results))]).rstrip() + "\n"


def _tables(results: Results) -> Iterator[str]:
    for group in GROUPS:
        if results.rows(group):
            yield _table(results, group)


def _footnotes(results: Results) -> Iterator[str]:
    for place, proxy in enumerate(_noted(results), 1):
        yield f".. [{place}] {proxy}: {results.notes[proxy]}."


def document(results: Results) -> str:
    """The whole report."""
    title = f"mailgate and others, {results.started}"
    facts = "\n".join(f":{name}: {text}" for name, text in results.facts)
    omitted = "\n".join(f"* {line}" for line in results.omitted)
    parts = [f"{title}\n{'=' * len(title)}", summary(results), facts, _EXPLANATION, tables(results)]
    if omitted:
        parts.append(f"Left out:\n\n{omitted}\n")
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


_EXPLANATION = """\
Medians over the repeats of one run, in which the proxies take turns; lower is better. CPU and memory are those of all
of a proxy's processes; what the kernel keeps for sockets is not in the memory. A login is everything from connecting
to the closed connection: greeting, LOGIN, question to the authentication service, login at the backend, LOGOUT.
Absolute figures differ between runs and machines: compare within one run."""
