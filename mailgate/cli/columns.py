# -*- test-case-name: mailgate.test.cli.test_columns -*-
"""
Tables on terminals. Texts from the network are escaped, and columns stay aligned whatever they contain.
"""

from __future__ import annotations

import io
import shutil
import sys
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from mailgate.log.journal import printable

__all__ = ["Column", "amount", "cut", "fit", "narrow", "plural", "prepare", "shown", "table", "terminalWidth", "width"]

_GAP = "  "
_NARROW_GAP = " "
_LEAST = 8
"""A column is not cut to fewer cells."""

_UNITS = ("", "K", "M", "G", "T", "P")


@frozen
class Column:
    """
    A column of a table.

    @ivar title: the text above it.
    @ivar isNumber: whether its cells are aligned at the right.
    @ivar isFlexible: whether its cells may be cut where the terminal is too narrow.
    """

    title: str
    isNumber: bool = False
    isFlexible: bool = False


def prepare() -> None:
    """Have characters that the terminal does not know printed as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def shown(value: Any, longest: int = 256) -> str:
    """
    Return a value of JSON as text for a terminal: C{-} for L{None}, control characters and marks that change the
    direction of text escaped.

    @param value: the value.
    @param longest: the most characters before they are escaped, at most 256 for a single text of the network.
    """
    if value is None or value == "":
        return "-"
    text = str(value)
    parts = [text[start : start + 256] for start in range(0, min(len(text), longest), 256)]
    cut = "..." if len(text) > longest else ""
    return "".join(printable(part.encode("utf-8", "backslashreplace")) for part in parts) + cut


def width(text: str) -> int:
    """
    Return the cells that a text takes on a terminal.

    @param text: printable text.
    """
    if text.isascii():
        return len(text)
    return sum(map(_cells, text))


def _cells(char: str) -> int:
    # Marks that combine with the character before them, and format characters, take no cell of their own.
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, most: int, mark: str = "") -> str:
    """
    Return the beginning of a text that fits into some cells.

    @param text: printable text.
    @param most: the cells.
    @param mark: what stands at the end of a text that is cut.
    """
    if width(text) <= most:
        return text
    kept, room = "", most - len(mark)
    for char in text:
        room -= _cells(char)
        if room < 0:
            break
        kept += char
    return kept + mark


def fit(text: str, cells: int, mark: str = "", isRight: bool = False) -> str:
    """
    Return a text that takes exactly some cells: cut, or with blanks.

    @param text: printable text.
    @param cells: the cells.
    @param mark: what stands at the end of a text that is cut.
    @param isRight: whether the blanks are before the text.
    """
    text = cut(text, max(cells, 0), mark if cells > 0 else "")
    blanks = " " * (cells - width(text))
    return blanks + text if isRight else text + blanks


def terminalWidth() -> int | None:
    """Return the cells of a line of the terminal; L{None} if standard output is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(columns: Sequence[Column], rows: Iterable[Sequence[Any]], most: int | None) -> str:
    """
    Return a table. Every cell is escaped.

    @param columns: its columns.
    @param rows: its cells, values of JSON.
    @param most: the cells of a line; cells of flexible columns are cut to fit. L{None} for no limit.
    """
    lines = [[column.title for column in columns], *([shown(cell) for cell in row] for row in rows)]
    widths = {place: max(width(line[place]) for line in lines) for place in range(len(columns))}
    gap = _GAP
    if most is not None:
        if sum(widths.values()) + len(gap) * (len(columns) - 1) > most:
            gap = _NARROW_GAP
        flexible = [place for place, column in enumerate(columns) if column.isFlexible]
        narrow(widths, flexible, most - len(gap) * (len(columns) - 1))
    mark = _mark()
    return "\n".join(_line(columns, line, widths, mark, gap) for line in lines)


def _mark() -> str:
    """What stands for the rest of a text that is cut."""
    try:
        "…".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return "..."
    return "…"


def narrow(widths: dict[int, int], flexible: Collection[int], most: int) -> None:
    """
    Make columns narrower, always the widest of the flexible ones, until they fit or none may be narrower.

    @param widths: the cells of each column, by its number. They are changed.
    @param flexible: the numbers of the columns that may be narrower.
    @param most: the cells for all columns together.
    """
    while sum(widths.values()) > most:
        place = max(flexible, key=lambda each: widths[each], default=None)
        if place is None or widths[place] <= _LEAST:
            return
        widths[place] -= 1


def _line(columns: Sequence[Column], cells: Sequence[str], widths: Mapping[int, int], mark: str, gap: str) -> str:
    words = [fit(cells[place], most, mark, columns[place].isNumber) for place, most in widths.items()]
    return gap.join(words).rstrip()


def amount(number: float | None) -> str:
    """
    Return bytes in a short form, such as C{3.1M}; C{-} for L{None}.

    @param number: the bytes.
    """
    if number is None:
        return "-"
    rest = float(number)
    for unit in _UNITS:
        if rest < 1000 or unit == _UNITS[-1]:
            break
        rest /= 1024
    return f"{rest:.1f}{unit}" if unit and rest < 9.95 else f"{rest:.0f}{unit}"


def plural(number: int, word: str) -> str:
    """
    Return a number with its word, such as C{2 sessions}.

    @param number: the number.
    @param word: the singular of a regular English noun.
    """
    # A gateway that is taken over may send anything.
    return f"{number if isinstance(number, int | float) else shown(number)} {word}{'' if number == 1 else 's'}"
