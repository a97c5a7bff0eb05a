# -*- test-case-name: mailgate.test.directives.test_values -*-
"""
The grammar of the values in gateway.ini, which is nginx's. Each parser raises L{ValueError} with a message that says
what would have been right.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mailgate.directives.problems import nearest

__all__ = [
    "Parser",
    "bufferSize",
    "capabilities",
    "deadline",
    "exactFlag",
    "flag",
    "lines",
    "longSeconds",
    "number",
    "oneOf",
    "path",
    "paths",
    "repeatedWords",
    "seconds",
    "size",
    "text",
    "word",
    "words",
]

Parser = Callable[[str, str], Any]
"""Makes a value of an option's text; its second argument is the folder that relative paths start from."""


def text(value: str, folder: str) -> str:
    """One string, blanks included."""
    if not value.strip():
        raise ValueError("a value is missing")
    if "\n" in value.strip():
        raise ValueError("takes one line")
    if re.search("[\x00-\x1f\x7f\ud800-\udfff]", value.strip()):
        raise ValueError("holds a control character")
    return value.strip()


def flag(value: str, folder: str) -> bool:
    """nginx's flag, C{on} or C{off}."""
    if value.lower() not in ("on", "off"):
        raise ValueError('must be "on" or "off"')
    return value.lower() == "on"


def exactFlag(value: str, folder: str) -> bool:
    """The flag of a parameter within a value, which nginx compares to the letter."""
    if value not in ("on", "off"):
        raise ValueError('must be "on" or "off", in small letters')
    return value == "on"


def number(value: str, folder: str) -> int:
    """A decimal that is not negative."""
    if not re.fullmatch(r"[0-9]{1,12}", value):
        raise ValueError("must be a whole number, such as 5")
    return int(value)


def size(value: str, folder: str) -> int:
    """nginx's size in bytes: C{4096}, C{4k}, C{10m}."""
    match = re.fullmatch(r"([0-9]{1,12})([kKmM]?)", value)
    if match is None:
        raise ValueError("must be a size, such as 4096, 4k or 10m")
    return int(match[1]) * {"": 1, "k": 1024, "m": 1024 * 1024}[match[2].lower()]


_UNITS = {
    "y": 365 * 86400.0,
    "M": 30 * 86400.0,
    "w": 7 * 86400.0,
    "d": 86400.0,
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 0.001,
}


def _timePattern(*units: str) -> re.Pattern[str]:
    """Amounts of C{units}, in that order; a bare one at the end is of seconds."""
    ends = {"m": "m(?!s)", "s": r"(?:s|\Z)"}
    return re.compile(" *".join(rf"(?:(?P<{unit}>\d{{1,9}}){ends.get(unit, unit)})?" for unit in units), re.ASCII)


_TIME = _timePattern("w", "d", "h", "m", "s", "ms")
_LONG_TIME = _timePattern("y", "M", "w", "d", "h", "m", "s")


def _sum(match: re.Match[str]) -> float:
    return sum(int(amount) * _UNITS[unit] for unit, amount in match.groupdict().items() if amount)


def seconds(value: str, folder: str) -> float:
    """nginx's time: C{30s}, C{1h30m}, C{500ms}, a bare number at the end being seconds. Gives seconds."""
    match = _TIME.fullmatch(value)
    if match is None or not value:
        raise ValueError("must be a time, such as 30s, 1h30m or 500ms")
    return _sum(match)


def longSeconds(value: str, folder: str) -> int:
    """nginx's time of those directives that count whole seconds: years and months (of 30 days) too, no C{ms}."""
    match = _LONG_TIME.fullmatch(value)
    if match is None or not value:
        raise ValueError("must be a time in whole seconds, such as 30s, 1h30m or 2M")
    return int(_sum(match))


def deadline(value: str, folder: str) -> float:
    """A time that is longer than nothing."""
    given = seconds(value, folder)
    if not given:
        raise ValueError("must be longer than 0")
    return given


def bufferSize(value: str, folder: str) -> int:
    """A size in which the lines of a mail protocol find room: no less than POP3's of nginx."""
    given = size(value, folder)
    if not 128 <= given <= 1024 * 1024:
        raise ValueError("must be from 128 to 1m")
    return given


def word(value: str, folder: str) -> str:
    """One word of printable ASCII, such as a host name."""
    if not re.fullmatch(r"[!-~]+", value):
        raise ValueError("must be one word of printable ASCII")
    return value


def path(value: str, folder: str) -> str:
    """A file; a relative path starts at the ini file's folder, C{~} is the home folder."""
    return os.path.join(folder, os.path.expanduser(text(value, folder)))


def lines(value: str, folder: str) -> tuple[str, ...]:
    """One item a line, blanks belonging to the item."""
    items = tuple(line.strip() for line in value.split("\n") if line.strip())
    if not items:
        raise ValueError("a value is missing")
    return items


def capabilities(*bare: str) -> Parser:
    """
    Capabilities, one a line, parameters belonging to them. Those C{bare} take none: whoever writes something behind
    one has put several on a line.
    """

    def parse(value: str, folder: str) -> tuple[str, ...]:
        items = lines(value, folder)
        for item in items:
            word, *parameters = item.split()
            if parameters and word.upper() in bare:
                raise ValueError(f'"{item}": write one capability a line')
            if not (item.isascii() and item.isprintable()):
                raise ValueError(f'"{item}" is not printable ASCII')
            if '"' in item:
                raise ValueError(f"{item}: write one capability a line, without quotes")
        return items

    return parse


def paths(value: str, folder: str) -> tuple[str, ...]:
    """Files, one a line."""
    return tuple(path(item, folder) for item in lines(value, folder))


def oneOf(*allowed: str) -> Parser:
    """One of the words C{allowed}, in any case."""

    def parse(value: str, folder: str) -> str:
        if value.lower() not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}{nearest(value.lower(), allowed)}")
        return value.lower()

    return parse


class _Words:
    def __init__(self, allowed: Sequence[str]) -> None:
        self._byLowerCase = {word.lower(): word for word in allowed}

    def __call__(self, value: str, folder: str) -> tuple[str, ...]:
        known = ", ".join(self._byLowerCase.values())
        given = value.split()
        if not given:
            raise ValueError(f"a value is missing: some of {known}")
        for word in given:
            if word.lower() not in self._byLowerCase:
                hint = nearest(word, list(self._byLowerCase.values()))
                raise ValueError(f'"{word}" is unknown, the words are {known}{hint}')
        chosen = {word.lower() for word in given}
        return tuple(word for lower, word in self._byLowerCase.items() if lower in chosen)


def words(*allowed: str) -> Parser:
    """Words split at blanks, in any case, of those C{allowed}; without repetition, in the order of C{allowed}."""
    return _Words(allowed)


def repeatedWords(parse: Parser, value: str) -> Iterator[str]:
    """The words that C{value} repeats, where C{parse} is of L{words}: they make no difference."""
    if isinstance(parse, _Words):
        seen: set[str] = set()
        for word in value.split():
            if word.lower() in seen:
                yield word
            seen.add(word.lower())
