# -*- test-case-name: mailgate.test.cli.top.test_screen -*-
"""
Lays out the page for a terminal of some size, as lines of spans. Nothing here knows a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen

from mailgate.cli.columns import plural, width
from mailgate.cli.top.grid import laidOut, scrolled
from mailgate.cli.top.summary import alarms, header, numbers, plots, troubles
from mailgate.cli.top.tables import TABLES, rowsOf
from mailgate.cli.top.text import Line, Look, Marks, Span, clean, lineOf, plain, steady, wrap
from mailgate.cli.top.values import Row, mapping, number
from mailgate.cli.top.view import View
from mailgate.keeper.moments import secondsOf

__all__ = ["Screen", "layout", "snapshot"]

_HINT = "? help  q quit "
_UNLIMITED = 100_000
"""Cells of a line that is not printed on a terminal."""


@frozen
class Screen:
    """
    A page that is laid out.

    @ivar lines: its lines, as many as the terminal has, each as wide as the terminal.
    @ivar place: the number of the selected row.
    @ivar offset: the number of the first row, or line of a text, that is shown.
    @ivar page: how many rows or lines are shown.
    @ivar cursor: the line and the cell of the cursor; L{None} if it is hidden.
    """

    lines: Sequence[Line]
    place: int
    offset: int
    page: int
    cursor: tuple[int, int] | None = None


def _shares(height: int) -> tuple[int, int, int]:
    """The most lines of alarms, of numbers, and of plots."""
    if height < 10:
        return (1, 0, 0)
    if height < 18:
        return (1, 2, 0)
    if height < 22:
        return (2, 3, 1)
    return (3, 3, 3) if height < 32 else (6, 3, 4)


def layout(view: View, height: int, cells: int) -> Screen:
    """
    Lay out the page.

    @param view: what it shows.
    @param height: the lines of the terminal.
    @param cells: the cells of a line.
    """
    height, cells = max(height, 1), max(cells, 1)
    marks = view.marks
    # A text is read alone.
    alarmLines, numberLines, plotLines = (1, 0, 0) if view.text is not None else _shares(height)
    top = [header(view, cells), *alarms(view, cells, alarmLines)]
    stats = mapping(view.overview.get("stats"))
    top += [lineOf([Span("  " + each)], cells, marks) for each in list(numbers(stats, marks))[:numberLines]]
    top += plots(view, cells, plotLines)
    bottom, cursor = _bottom(view, height, cells)
    room = max(0, height - len(top) - len(bottom))
    if view.text is not None:
        body, place, offset, page = _text(view, room, cells)
    else:
        body, place, offset, page = _table(view, room, cells)
    empty = lineOf((), cells, marks)
    lines = [*top, *body, *[empty] * (room - len(body)), *bottom]
    isCut = len(lines) > height
    # The last lines matter most: they have what is typed and what is asked.
    lines = [*lines[: max(0, height - len(bottom))], *bottom][-height:] if isCut else lines
    return Screen(lines, place, offset, page, None if cursor is None else (height - 1, min(cursor, cells - 1)))


def _tabs(view: View, cells: int) -> Line:
    """The names of the tables. The one that is shown stands in brackets."""
    words = [f"{table.key} {table.name.partition(' ')[0]}" for table in TABLES]
    if sum(map(len, words)) + 2 * len(words) > cells:
        words = [f"{table.key} {table.short}" for table in TABLES]
    if sum(map(len, words)) + 2 * len(words) > cells:
        words = [table.key for table in TABLES]
    spans = []
    for table, word in zip(TABLES, words, strict=True):
        isShown = table is view.table and view.text is None
        spans.append(Span(f"[{word}]", Look.BAR) if isShown else Span(f" {word} ", Look.DIM))
    return lineOf(spans, cells, view.marks)


def _table(view: View, room: int, cells: int) -> tuple[list[Line], int, int, int]:
    marks = view.marks
    lines = [_tabs(view, cells)]
    page = max(1, room - 2)
    if view.table.isPrivate and not view.may("operate"):
        level = clean(view.overview.get("level"), marks)
        words = f"  this table needs the level operate; this is the level {level}"
        return [*lines, lineOf([Span(words)], cells, marks)][:room], 0, 0, page
    rows = view.rows()
    place = view.find(rows)
    offset = scrolled(view.offset, max(0, place), page, len(rows))
    grid = laidOut(view.table, rows[offset : offset + page], cells, marks, view.sorting, view.now, place - offset)
    lines += [grid.head, *grid.lines]
    if not rows:
        lines.append(lineOf([Span(f"  {_noRows(view)}")], cells, marks))
    return lines[:room], max(0, place), offset, page


def _noRows(view: View) -> str:
    if view.table.member == "sessions" and not view.isListed:
        return "no list of the sessions yet"
    return f"no {view.table.name}{' match the filter' if view.filter else ''}"


def _text(view: View, room: int, cells: int) -> tuple[list[Line], int, int, int]:
    marks = view.marks
    found = [line for text in view.text or () for line in wrap(text, cells - 2)]
    page = max(1, room - 1)
    offset = max(0, min(view.offset, len(found) - page))
    more = f", lines {offset + 1}-{min(offset + page, len(found))} of {len(found)}" if len(found) > page else ""
    head = f"{view.title}{more} (escape: back)"
    lines = [lineOf([Span(head, Look.BOLD)], cells, marks)]
    lines += [lineOf([Span(" " + line)], cells, marks) for line in found[offset : offset + page]]
    return lines[:room], view.place, offset, page


def _bottom(view: View, height: int, cells: int) -> tuple[list[Line], int | None]:
    """The last lines: a question, what is being typed, or what is shown; and the cell of the cursor."""
    marks = view.marks
    if view.question:
        found = [*wrap(f" {steady(view.question, marks)}", cells), " y: yes   any other key: no"][-height:]
        return [lineOf([Span(line, Look.BAR)], cells, marks, Look.BAR) for line in found], None
    if view.typed is not None:
        typed = clean(view.typed, marks) if view.typed else ""
        # The end of what is typed is seen.
        while width(typed) > max(0, cells - 3):
            typed = typed[1:]
        return [lineOf([Span(f" /{typed}")], cells, marks)], 2 + width(typed)
    status = f" {steady(view.message, marks)}" if view.message else f" {_status(view)}"
    room = cells - len(_HINT) - 1
    if width(status) > room and view.message:
        lines = list(wrap(status, cells))[: max(1, height // 3)]
        return [lineOf([Span(line, Look.BOLD)], cells, marks) for line in lines], None
    spans = [Span(status, Look.BOLD if view.message else Look.PLAIN)]
    left = lineOf(spans, max(0, room), marks)
    return [lineOf([*left, Span(" " + _HINT, Look.DIM)], cells, marks)], None


def _status(view: View) -> str:
    marks = view.marks
    count = len(view.rows())
    words = plural(count, "row")
    if view.table.member == "sessions":
        words = f"{'the first ' if view.sessionsCut else ''}{plural(count, 'session')}" if view.isListed else ""
    parts = [words, f"filter /{clean(view.filter, marks)}" if view.filter else ""]
    more = number(mapping(view.overview.get("more")).get(view.table.member))
    parts += [f"and {more:.0f} more" if more else "", "paused: space goes on" if view.isPaused else ""]
    return ", ".join(filter(None, parts))


def snapshot(overview: Row, cells: int | None, marks: Marks) -> Iterator[str]:
    """
    Yield an overview as plain lines, with all tables.

    @param overview: the overview.
    @param cells: the cells of a line; L{None} for no limit.
    @param marks: what the terminal can show.
    """
    room = _UNLIMITED if cells is None else cells
    now = secondsOf(overview.get("time"))
    view = View(marks, overview=overview, answered=now)
    yield plain(lineOf([Span(part.strip()) for part in _headline(view)], room, marks))
    for span in troubles(overview, marks):
        yield plain(lineOf([span], room, marks))
    for line in numbers(mapping(overview.get("stats")), marks):
        yield plain(lineOf([Span(line)], room, marks))
    for table in TABLES:
        rows = rowsOf(table, overview, ())
        if rows:
            yield ""
            yield f"{table.name}:"
            grid = laidOut(table, rows, room, marks, now=now)
            yield from map(plain, (grid.head, *grid.lines))
            more = number(mapping(overview.get("more")).get(table.member))
            if more:
                yield f"  and {more:.0f} more"


def _headline(view: View) -> Iterator[str]:
    yield " ".join(plain(header(view, 200)).split())
