# -*- test-case-name: bench.test.test_report -*-
"""
Results as reStructuredText that reads well as it is: a summary for README, the facts about machine and programs, and a
table for each group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.measures import SHORT, TABLES, Measure
from bench.results import OURS, THEIRS, Results
from bench.spread import BEFORE, Spread, medianWithin

__all__ = ["captioned", "document", "number", "simpleTable", "summary", "tables"]

_SUMMARY = (
    (("login.plain",), "CPU of a login, in the clear (ms)"),
    (("login.tls",), "CPU of a login over TLS, full handshake (ms)"),
    (("relay.tls.big",), "CPU of relaying 1 GiB over TLS (s)"),
    (
        ("idle.plain.2.memory", "idle.plain.1.memory", "memory.plain.idle"),
        "Memory of one of {:,} idle sessions in the clear (bytes)",
    ),
    (("latency.login.tls.p50",), "Time to log in over TLS, median (ms)"),
)
"""
The rows of README's table: the keys of measures, the best first, or their beginnings before the number of sessions, and
the title with the place of that number.
"""

_UNRATED = ("processors",)
"""The tables of which a ratio says nothing."""

_ALL_BEFORE = ("login", "rate", "efficiency", "half")
"""The tables of which all rows are compared with the tree before. Of others only rows with a goal are."""


def number(figure: float | None) -> str:
    """A figure with the digits that mean something, or a dash where nothing was measured."""
    if figure is None:
        return "-"
    if isinstance(figure, int):
        return f"{figure:,}"
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


def captioned(caption: str, table: str) -> str:
    """The table with a caption, which may be empty."""
    if not caption:
        return table
    return "\n".join([f".. table:: {caption}", "", *(f"   {line}" for line in table.splitlines())])


def _verdict(results: Results, row: Measure) -> list[str]:
    return [
        _ratio(results.ratio(row)),
        _quartiles(results.spread(row)),
        "-" if row.goal is None else f"{row.goal:g}",
        _answer(results.reached(row)),
    ]


def _answer(reached: bool | None) -> str:
    return "-" if reached is None else "yes" if reached else "no"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}" if ratio < 0.1 else f"{ratio:.2f}"


def _quartiles(spread: Spread | None) -> str:
    return f"{_ratio(spread.quarter)} to {_ratio(spread.threeQuarters)}" if spread else "-"


_COMPARED = ("ours / nginx", "25 % to 75 %", "goal", "reached")


def _table(results: Results, table: str) -> str:
    rows = results.rows(table)
    proxies = results.columns(rows)
    marks = {proxy: f"{proxy} [{place}]_" for place, proxy in enumerate(_noted(results), 1)}
    columns = [[marks.get(proxy, proxy), *(number(results.figureIn(row, proxy)) for row in rows)] for proxy in proxies]
    if OURS in proxies and THEIRS in proxies and table not in _UNRATED:
        verdicts = [_verdict(results, row) for row in rows]
        shown = {"ours / nginx"}
        shown.update(("25 % to 75 %",) if any(results.spread(row) for row in rows) else ())
        shown.update(("goal", "reached") if any(row.goal for row in rows) else ())
        compared = zip(_COMPARED, *verdicts, strict=True)
        # Behind our own column, which is the second: what is compared stands together.
        columns[2:2] = [list(column) for column in compared if column[0] in shown]
    body = simpleTable(list(zip([TABLES[table], *(row.title for row in rows)], *columns, strict=True)))
    return captioned(results.machine, body)


def _before(results: Results) -> Iterator[str]:
    """The table of the ratios to the tree before, if that was measured."""
    head = ("Against the tree before", BEFORE, OURS, "ours / before", "25 % to 75 %", "95 % within", "bursts")
    rows: list[tuple[str, ...]] = [(*head, "goal", "reached")]
    for row in results.measures:
        ratio = results.ratio(row, BEFORE)
        if ratio is None or (row.goalBefore is None and row.table not in _ALL_BEFORE):
            continue
        pairs = results.pairs(row, BEFORE)
        within = medianWithin(pairs)
        rows.append(
            (
                f"{SHORT[row.table]}: {row.title}",
                *(number(results.figureIn(row, column)) for column in (BEFORE, OURS)),
                _ratio(ratio),
                _quartiles(results.spread(row, BEFORE)),
                f"{within[0]:.2f} to {within[1]:.2f}" if within else "-",
                str(len(pairs)),
                "-" if row.goalBefore is None else "no worse" if row.goalBefore == 1 else f"{row.goalBefore:g}",
                _answer(results.reachedBefore(row)),
            )
        )
    if len(rows) > 1:
        yield captioned(results.machine, simpleTable(rows))


def _noted(results: Results) -> list[str]:
    """The proxies with footnotes, in the footnotes' order."""
    return [proxy for proxy in results.proxies if proxy in results.notes]


def _summarized(results: Results, keys: Sequence[str]) -> Measure | None:
    for key in keys:
        # Of the same measure with several numbers of sessions the greatest number stands last.
        found = [row for row in results.measures if row.key == key or (row.key.startswith(f"{key}.") and row.sessions)]
        if found and results.ratio(found[-1]) is not None:
            return found[-1]
    return None


def summary(results: Results) -> str:
    """
    The table that README shows: a few rows of mailgate, nginx and HAProxy.

    @return: the table with the rows that were measured, or an empty text.
    """
    others = [proxy for proxy in (THEIRS, "HAProxy") if proxy in results.proxies]
    rows = [["In short", *others, OURS, f"{OURS} / {THEIRS}", "25 % to 75 %"]]
    for keys, title in _SUMMARY:
        row = _summarized(results, keys)
        if row is not None:
            figures = [number(results.figureIn(row, proxy)) for proxy in (*others, OURS)]
            ratio = _ratio(results.ratio(row)), _quartiles(results.spread(row))
            rows.append([title.format(row.sessions), *figures, *ratio])
    return captioned(results.machine, simpleTable(rows)) if len(rows) > 1 else ""


def tables(results: Results) -> str:
    """The tables alone, with their footnotes."""
    return "\n\n".join([*_tables(results), "\n".join(_footnotes(results))]).rstrip() + "\n"


def _tables(results: Results) -> Iterator[str]:
    yield from _before(results)
    for table in TABLES:
        if results.rows(table):
            yield _table(results, table)


def _footnotes(results: Results) -> Iterator[str]:
    for place, proxy in enumerate(_noted(results), 1):
        yield f".. [{place}] {proxy}: {results.notes[proxy]}."


def document(results: Results) -> str:
    """The whole report."""
    title = f"mailgate and others, {results.started}"
    remarks = "\n".join(f"* {line}" for line in results.remarks)
    facts = "\n".join(f":{name}: {text}" for name, text in results.facts)
    omitted = "\n".join(f"* {line}" for line in results.omitted)
    parts = [f"{title}\n{'=' * len(title)}", summary(results), facts, _EXPLANATION, tables(results)]
    if remarks:
        parts.append(f"What limited the logins per second:\n\n{remarks}\n")
    if omitted:
        parts.append(f"Left out:\n\n{omitted}\n")
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


_EXPLANATION = """\
Figures are medians over the repeats of one run, in which the proxies take turns; lower is better, except for logins per
second. A ratio is the median of the ratios of two bursts that followed each other; half of these ratios lie between the
two figures behind it (25 % to 75 %). CPU and memory are those of all of a proxy's processes; what the kernel keeps for
sockets is not in the memory. A login is everything from connecting to the closed connection: greeting, LOGIN, question
to the authentication service, login at the backend, LOGOUT. Absolute figures differ between runs and machines, and
ratios between machines: compare within one run."""
