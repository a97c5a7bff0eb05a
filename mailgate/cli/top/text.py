# -*- test-case-name: mailgate.test.cli.top.test_text -*-
"""
Lines of a screen: texts with looks. Texts from the network are made printable, and get exactly the cells that they have
room for.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, TypeAlias

from attrs import frozen

from mailgate.cli.columns import cut, fit, shown, width
from mailgate.cli.figures import isNumber
from mailgate.log.journal import oneLine

__all__ = [
    "ASCII",
    "UNICODE",
    "Line",
    "Look",
    "Marks",
    "Span",
    "clean",
    "escaped",
    "lineOf",
    "plain",
    "spark",
    "steady",
    "wrap",
]

_COMBINED = 2
"""Marks that may stand on one character. More of them would grow into the lines above and below."""

_ESCAPED = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Categories of characters whose width depends on the terminal, or that have none."""


class Look(Enum):
    """How a text looks. A terminal without colours has bold and reversed texts; no look says what words do not."""

    PLAIN = "plain"
    BOLD = "bold"
    DIM = "dim"
    GOOD = "good"
    BAD = "bad"
    WARN = "warn"
    BAR = "bar"


@frozen
class Span:
    """
    A part of a line.

    @ivar text: printable text.
    @ivar look: how it looks.
    """

    text: str
    look: Look = Look.PLAIN


Line: TypeAlias = tuple[Span, ...]


@frozen
class Marks:
    """
    The shapes that a terminal can show.

    @ivar isUnicode: whether it shows other characters than those of ASCII.
    @ivar good: stands before the word for a good state.
    @ivar bad: stands before the word for a bad one.
    @ivar warn: stands before the word for one that needs attention.
    @ivar half: stands before the word for one that an operator has ordered.
    @ivar levels: the heights of a small plot, the lowest first.
    @ivar rest: stands for the rest of a text that is cut.
    @ivar up: stands at the column of ascending values.
    @ivar down: stands at the column of descending values.
    @ivar cursor: stands before the selected row.
    """

    isUnicode: bool
    good: str
    bad: str
    warn: str
    half: str
    levels: str
    rest: str
    up: str
    down: str
    cursor: str


UNICODE = Marks(True, "✓", "✗", "!", "◐", "▁▂▃▄▅▆▇█", "…", "▲", "▼", ">")
ASCII = Marks(False, "+", "x", "!", "o", "_.:-=+*#", "~", "^", "v", ">")


def clean(value: Any, marks: Marks, longest: int = 256) -> str:
    """
    Return a value of JSON as text for one line of a screen: C{-} for L{None}, lists and objects. Quotes and backslashes
    are escaped, and what L{steady} escapes.

    @param value: the value.
    @param marks: what the terminal can show.
    @param longest: the most characters before they are escaped.
    """
    if isinstance(value, str):
        return _cleaned(value, marks.isUnicode, longest)
    return "-" if value is None or isinstance(value, dict | list) else str(value)


@lru_cache(8192)
def _cleaned(text: str, isUnicode: bool, longest: int) -> str:
    rest = "..." if len(text) > longest else ""
    return _steady(shown(text[:longest], longest) + rest, isUnicode)


def escaped(value: Any, marks: Marks, longest: int = 256) -> str:
    """
    Return a text that the gateway has made printable already for one line of a screen; C{-} if it is empty.

    @param value: the text, or another value of JSON.
    @param marks: what the terminal can show.
    @param longest: the most characters before they are escaped.
    """
    if not isinstance(value, str) or not value:
        return clean(value, marks)
    return steady(value if len(value) <= longest else f"{value[:longest]}...", marks)


def steady(text: str, marks: Marks) -> str:
    """
    Return a text for one line of a screen. Characters that control the terminal, change the direction of text or have
    no width that terminals agree on are escaped. The results of L{clean} do not change.

    @param text: the text.
    @param marks: what the terminal can show.
    """
    return _steady(oneLine(text), marks.isUnicode)


def _steady(text: str, isUnicode: bool) -> str:
    if text.isascii():
        return text
    if not isUnicode:
        return text.encode("ascii", "backslashreplace").decode("ascii")
    return "".join(_characters(unicodedata.normalize("NFC", text)))


def _characters(text: str) -> Iterator[str]:
    combined = _COMBINED
    for char in text:
        category = unicodedata.category(char)
        isMark = category in ("Mn", "Me")
        combined = combined + 1 if isMark else 0
        # A variation selector changes the width of the character before it.
        if category in _ESCAPED or combined > _COMBINED or "\ufe00" <= char <= "\ufe0f" or char >= "\U000e0100":
            yield char.encode("unicode_escape").decode("ascii")
        elif category == "Zs":
            yield " "
        else:
            yield char


def lineOf(spans: Sequence[Span], cells: int, marks: Marks, look: Look = Look.PLAIN) -> Line:
    """
    Return a line that takes exactly some cells.

    @param spans: its parts.
    @param cells: the cells.
    @param marks: what the terminal can show.
    @param look: the look of the blanks behind the parts.
    """
    found, left = [], cells
    for span in spans:
        text = fit(span.text, min(left, width(span.text)), marks.rest)
        left -= width(text)
        if text:
            found.append(Span(text, span.look))
    if left > 0:
        found.append(Span(" " * left, look))
    return tuple(found)


def plain(line: Line) -> str:
    """
    Return the text of a line, without looks and without blanks at its end.

    @param line: the line.
    """
    return "".join(span.text for span in line).rstrip()


def spark(values: Sequence[float | None], cells: int, marks: Marks) -> str:
    """
    Return the last values as a plot of one line, a cell for each value. 0 is the lowest level; L{None} is a blank.

    @param values: the values, the latest last.
    @param cells: the cells.
    @param marks: what the terminal can show.
    """
    last = values[-cells:] if cells > 0 else ()
    most = max((value for value in last if isNumber(value) and value), default=0.0)
    steps = len(marks.levels) - 1

    def level(value: float | None) -> str:
        if value is None or not isNumber(value):
            return " "
        # What is not 0 is seen.
        return marks.levels[max(1, min(steps, round(steps * value / most))) if value > 0 and most > 0 else 0]

    return "".join(map(level, last)).rjust(cells)


def wrap(text: str, cells: int) -> Iterator[str]:
    """
    Yield a text as lines of at most some cells, broken at blanks where that is possible.

    @param text: printable text.
    @param cells: the cells, at least 2.
    """
    cells = max(cells, 2)
    # Behind it there is room for a wide character.
    indent = " " * min(len(text) - len(text.lstrip()), (cells - 2) // 2)
    rest = text
    while width(rest) > cells:
        head = cut(rest, cells)
        blank = head.rfind(" ")
        if blank > len(indent) and rest[len(head)] != " ":
            head = head[:blank]
        yield head
        rest = indent + rest[len(head) :].lstrip()
    yield rest
