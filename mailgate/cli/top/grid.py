# -*- test-case-name: mailgate.test.cli.top.test_grid -*-
"""
Lays out the rows of a table: chooses, sorts and aligns them.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from mailgate.cli.columns import fit, narrow, width
from mailgate.cli.top.tables import Field, Table, stateLook
from mailgate.cli.top.text import Line, Look, Marks, Span, clean, escaped, lineOf
from mailgate.cli.top.values import Row

__all__ = ["Grid", "cellText", "chosen", "laidOut", "scrolled", "sortedRows"]

_GAP = 2
_FAIR = 12
_GOOD = 20
"""Cells that columns, and the most important columns, have before less important ones are left out."""


@frozen
class Grid:
    """
    A table for some width.

    @ivar head: the line above its rows.
    @ivar lines: its rows.
    """

    head: Line
    lines: Sequence[Line]


def cellText(field: Field, row: Row, now: float | None, marks: Marks) -> str:
    """
    Return the text of a cell.

    @param field: its column.
    @param row: its row.
    @param now: the time of the gateway, in seconds since 1970.
    @param marks: what the terminal can show.
    """
    value = (escaped if field.isEscaped else clean)(field.text(field.value(row, now)), marks)
    look = field.look(row, now)
    if field.isState:
        return f"{stateLook(value, marks)[0]} {value}"
    if look is Look.BAD or look is Look.WARN:
        return f"{marks.bad if look is Look.BAD else marks.warn} {value}"
    return value


def chosen(table: Table, rows: Sequence[Row], words: str, now: float | None, marks: Marks) -> Sequence[Row]:
    """
    Return the rows that contain all words of a filter in some columns, in upper or lower case.

    @param table: the table.
    @param rows: its rows.
    @param words: the filter.
    @param now: the time of the gateway, in seconds since 1970.
    @param marks: what the terminal can show.
    """
    wanted = words.casefold().split()
    if not wanted:
        return rows
    found = []
    for row in rows:
        cells = "\n".join(cellText(field, row, now, marks) for field in table.fields).casefold()
        if all(word in cells for word in wanted):
            found.append(row)
    return found


def sortedRows(table: Table, rows: Sequence[Row], sorting: tuple[int, bool], now: float | None) -> Sequence[Row]:
    """
    Return rows in the order of a column. Rows without a value are last.

    @param table: the table.
    @param rows: its rows.
    @param sorting: the number of the column, and whether the values descend; -1: as they came.
    @param now: the time of the gateway, in seconds since 1970.
    """
    place, isDescending = sorting
    if not 0 <= place < len(table.fields):
        return list(reversed(rows)) if isDescending else rows
    value = table.fields[place].value

    def key(row: Row) -> tuple[bool, float, str]:
        found = value(row, now)
        isText = not isinstance(found, int | float)
        return (isText, 0.0, str(found).casefold()) if isText else (isText, found, "")

    known = [row for row in rows if value(row, now) not in (None, "")]
    unknown = [row for row in rows if value(row, now) in (None, "")]
    return [*sorted(known, key=key, reverse=isDescending), *unknown]


def scrolled(offset: int, selected: int, page: int, total: int) -> int:
    """
    Return the number of the first row that is shown, so that the selected one is, with as little movement as possible.

    @param offset: the number of the first row that was shown.
    @param selected: the number of the selected row.
    @param page: how many rows are shown.
    @param total: how many rows there are.
    """
    offset = min(offset, max(0, total - page))
    return max(0, min(selected, max(offset, selected - page + 1)))


def laidOut(
    table: Table,
    rows: Sequence[Row],
    cells: int,
    marks: Marks,
    sorting: tuple[int, bool] = (-1, False),
    now: float | None = None,
    selected: int = -1,
) -> Grid:
    """
    Lay out rows.

    @param table: the table.
    @param rows: the rows, in their order.
    @param cells: the cells of a line.
    @param marks: what the terminal can show.
    @param sorting: the number of the column that they are sorted by, and whether its values descend.
    @param now: the time of the gateway, in seconds since 1970.
    @param selected: the number of the selected row among them.
    """
    texts = [[cellText(field, row, now, marks) for field in table.fields] for row in rows]
    titles = [_title(field, place, sorting, marks) for place, field in enumerate(table.fields)]
    # The mark of the selected row stands before the first column.
    widths = _widths(table.fields, [titles, *texts], cells - 2)
    head = _line(table.fields, titles, [Look.BOLD] * len(titles), widths, marks)
    lines = []
    for place, (row, line) in enumerate(zip(rows, texts, strict=True)):
        isSelected = place == selected
        looks = [Look.BAR if isSelected else field.look(row, now) for field in table.fields]
        lines.append(_whole(_line(table.fields, line, looks, widths, marks), cells, marks, isSelected))
    return Grid(_whole(head, cells, marks, False), lines)


def _title(field: Field, place: int, sorting: tuple[int, bool], marks: Marks) -> str:
    return field.title + ((marks.down if sorting[1] else marks.up) if place == sorting[0] else "")


def _widths(fields: Sequence[Field], lines: Sequence[Sequence[str]], cells: int) -> dict[int, int]:
    """The cells of each column that is shown, by its number."""
    wanted = {place: max(width(line[place]) for line in lines) for place in range(len(fields))}

    def total(widths: dict[int, int]) -> int:
        return sum(widths.values()) + _GAP * (len(widths) - 1)

    def least(widths: dict[int, int]) -> dict[int, int]:
        room = {place: _FAIR if fields[place].rank else _GOOD for place in widths}
        return {p: min(cells, room[p]) if fields[p].isFlexible else cells for p, cells in widths.items()}

    while total(least(wanted)) > cells:
        highest = max(wanted, key=lambda place: (fields[place].rank, place))
        if fields[highest].rank == 0:
            break
        del wanted[highest]
    narrow(wanted, [place for place in wanted if fields[place].isFlexible], cells - _GAP * (len(wanted) - 1))
    return wanted


def _line(
    fields: Sequence[Field], texts: Sequence[str], looks: Sequence[Look], widths: dict[int, int], marks: Marks
) -> Line:
    spans: list[Span] = []
    for place, cells in widths.items():
        if spans:
            spans.append(Span(" " * _GAP, looks[place] if looks[place] is Look.BAR else Look.PLAIN))
        spans.append(Span(fit(texts[place], cells, marks.rest, fields[place].isNumber), looks[place]))
    return tuple(spans)


def _whole(line: Line, cells: int, marks: Marks, isSelected: bool) -> Line:
    look = Look.BAR if isSelected else Look.PLAIN
    return lineOf([Span(f"{marks.cursor if isSelected else ' '} ", look), *line], cells, marks, look)
