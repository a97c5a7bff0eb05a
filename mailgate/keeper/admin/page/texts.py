# -*- test-case-name: mailgate.test.keeper.admin.page.test_texts -*-
"""
How values of the overview read on the page. C{static/texts.js} writes the same texts in the browser.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from mailgate.keeper.moments import isMoment, secondsOf
from mailgate.keeper.moments import moment as written

__all__ = [
    "NONE",
    "amount",
    "count",
    "duration",
    "moment",
    "rate",
    "share",
    "unquoted",
    "visible",
    "wait",
    "words",
]

NONE = "\N{EN DASH}"
"""Stands for a value that is not known."""

_MOST = 10**21
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_SPANS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_QUOTING = re.compile(r'\\(["\\])')
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def isNumber(value: Any) -> bool:
    """
    Return whether a value of JSON is a number that can be shown.

    @param value: the value.
    """
    # A longer one would break the table, and Python converts no whole number of hundreds of digits.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST


def visible(value: Any) -> str:
    """
    Return a text of the network so that nothing in it is hidden: control characters, line ends and marks that change
    the direction of text are written as C{\\u{202e}}.

    @param value: the text, or another value of JSON.
    """
    if value is None or value == "":
        return NONE
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"\\u{{{ord(each):x}}}" if unicodedata.category(each) in _HIDDEN else each for each in text)


def unquoted(value: Any) -> Any:
    """
    Return a text that L{mailgate.log.journal.printable} has escaped without the escapes that only quotes need: the page
    has no quotes around it.

    @param value: the text, or another value of JSON.
    """
    return _QUOTING.sub(r"\1", value) if isinstance(value, str) else value


def count(value: Any) -> str:
    """
    Return a whole number, with a comma between thousands.

    @param value: the number.
    """
    return f"{value:,.0f}" if isNumber(value) else NONE


def rate(value: Any) -> str:
    """
    Return events in a second: with one decimal below 10, such as C{4.1}.

    @param value: the number.
    """
    if not isNumber(value):
        return NONE
    return f"{value:,.1f}" if 0 < value < 9.95 else f"{value:,.0f}"


def wait(value: Any) -> str:
    """
    Return a short time, such as C{12 ms} or C{1.4 s}.

    @param value: the seconds.
    """
    if not isNumber(value):
        return NONE
    if value < 0.9995:
        return f"{1000 * value:.1f} ms" if 0 < value < 0.00995 else f"{1000 * value:.0f} ms"
    return f"{value:.1f} s" if value < 99.95 else f"{value:,.0f} s"


def duration(value: Any) -> str:
    """
    Return a long time in its two largest units, such as C{3 h 12 min}.

    @param value: the seconds.
    """
    if not isNumber(value) or value < 0:
        return NONE
    rest = math.floor(value)
    for place, (length, unit) in enumerate(_SPANS):
        if rest >= length or unit == "s":
            number, rest = divmod(rest, length)
            lower, name = _SPANS[place + 1] if unit != "s" else (1, "")
            more = rest // lower if name else 0
            return f"{number} {unit} {more} {name}" if more else f"{number} {unit}"
    return NONE


def amount(value: Any) -> str:
    """
    Return bytes in a unit that fits, such as C{3.1 MB}. 1 kB has 1,000 bytes.

    @param value: the bytes.
    """
    if not isNumber(value):
        return NONE
    place = 0
    while abs(value) >= 999.5 and place < len(_UNITS) - 1:
        value, place = value / 1000, place + 1
    return f"{value:.1f} {_UNITS[place]}" if place and abs(value) < 9.95 else f"{value:.0f} {_UNITS[place]}"


def share(value: Any) -> str:
    """
    Return a share in percent.

    @param value: the share, from 0 to 1.
    """
    if not isNumber(value):
        return NONE
    return f"{100 * value:.1f} %" if 0 < value < 0.0995 else f"{100 * value:.0f} %"


def moment(value: Any) -> str:
    """
    Return a time with its date, in UTC.

    @param value: the time as RFC 3339, or the seconds since 1970.
    """
    seconds = value if isNumber(value) else secondsOf(value)
    return visible(value) if seconds is None or not isMoment(seconds) else written(seconds)[:19].replace("T", " ")


def words(value: Any) -> str:
    """
    Return a value of several parts as one text: a list with commas, an object as C{name value}.

    @param value: the value of JSON.
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{visible(name)} {visible(part)}" for name, part in value.items()) or NONE
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(visible, value)) or NONE
    return visible(value)
