# -*- test-case-name: bench.test.test_report -*-
"""
Results as reStructuredText that is readable as plain text: a table for each group, and the facts about the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.measures import GROUPS, Measure
from bench.results import OURS, THEIRS, Results

__all__ = ["document", "number", "simpleTable", "tables"]


def number(figure: float | None) -> str:
    """A figure with its significant digits, or a dash if nothing was measured."""
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
        # After mailgate's column, which is the second, so that the two are side by side.
        columns[2:2] = [list(column) for column in compared if any(row.goal for row in rows) or "/" in column[0]]
    return simpleTable(list(zip([GROUPS[group], *(row.title for row in rows)], *columns, strict=True)))


def _noted(results: Results) -> list[str]:
    """The proxies with footnotes, in the footnotes' order."""
    return [proxy for proxy in results.proxies if proxy in results.notes]


def tables(results: Results) -> str:
    """The tables with their footnotes, without the rest."""
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
    parts = [f"{title}\n{'=' * len(title)}", facts, _EXPLANATION, tables(results)]
    if omitted:
        parts.append(f"Left out:\n\n{omitted}\n")
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


_EXPLANATION = """\
Medians over the repeats of one run, in which the proxies take turns; lower is better. CPU and memory are those of all
of a proxy's processes; what the kernel keeps for sockets is not in the memory. A login is everything from connecting
to the closed connection: greeting, LOGIN, question to the authentication service, login at the backend, LOGOUT.
Absolute figures differ between runs and machines: compare within one run."""
