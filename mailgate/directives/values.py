# -*- test-case-name: mailgate.test.directives.test_values -*-
"""
Parsers for the values in gateway.ini, whose grammar is nginx's. Each parser raises L{ValueError} with a message that
says what is valid.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mailgate.directives.problems import nearest

__all__ = [
    "LEARN",
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
"""Makes a value of the text of an option. Its second argument is the folder where relative paths start."""


def text(value: str, folder: str) -> str:
    """
    Parse a single line, blanks included.

    @param value: the text of the option.
    @param folder: not used.
    @raise ValueError: C{value} is empty, has several lines, or contains a control character.
    """
    if not value.strip():
        raise ValueError("a value is missing")
    if "\n" in value.strip():
        raise ValueError("must be a single line")
    if re.search("[\x00-\x1f\x7f\ud800-\udfff]", value.strip()):
        raise ValueError("contains a control character")
    return value.strip()


def flag(value: str, folder: str) -> bool:
    """
    Parse nginx's flag, C{on} or C{off}, in any case.

    @param value: the text of the option.
    @param folder: not used.
    @raise ValueError: C{value} is something else.
    """
    if value.lower() not in ("on", "off"):
        raise ValueError('must be "on" or "off"')
    return value.lower() == "on"


def exactFlag(value: str, folder: str) -> bool:
    """
    Parse the flag of a parameter inside a value. Like nginx, this is case-sensitive.

    @param value: the text of the option.
    @param folder: not used.
    @raise ValueError: C{value} is neither C{on} nor C{off}.
    """
    if value not in ("on", "off"):
        raise ValueError('must be "on" or "off", in lower case')
    return value == "on"


def number(value: str, folder: str) -> int:
    """
    Parse a decimal number without a sign.

    @param value: the text of the option.
    @param folder: not used.
    @raise ValueError: C{value} is something else.
    """
    if not re.fullmatch(r"[0-9]{1,12}", value):
        raise ValueError("must be a whole number, such as 5")
    return int(value)


def size(value: str, folder: str) -> int:
    """
    Parse nginx's size: C{4096}, C{4k}, C{10m}.

    @param value: the text of the option.
    @param folder: not used.
    @return: the size in bytes.
    @raise ValueError: C{value} is something else.
    """
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
    """Matches amounts of C{units} in that order. A number without a unit at the end means seconds."""
    ends = {"m": "m(?!s)", "s": r"(?:s|\Z)"}
    return re.compile(" *".join(rf"(?:(?P<{unit}>\d{{1,9}}){ends.get(unit, unit)})?" for unit in units), re.ASCII)


_TIME = _timePattern("w", "d", "h", "m", "s", "ms")
_LONG_TIME = _timePattern("y", "M", "w", "d", "h", "m", "s")


def _sum(match: re.Match[str]) -> float:
    return sum(int(amount) * _UNITS[unit] for unit, amount in match.groupdict().items() if amount)


def seconds(value: str, folder: str) -> float:
    """
    Parse nginx's time: C{30s}, C{1h30m}, C{500ms}. A number without a unit at the end means seconds.

    @param value: the text of the option.
    @param folder: not used.
    @return: seconds.
    @raise ValueError: C{value} is something else.
    """
    match = _TIME.fullmatch(value)
    if match is None or not value:
        raise ValueError("must be a time, such as 30s, 1h30m or 500ms")
    return _sum(match)


def longSeconds(value: str, folder: str) -> int:
    """
    Parse the time of nginx's directives that count whole seconds: years and months (30 days) too, but no C{ms}.

    @param value: the text of the option.
    @param folder: not used.
    @return: seconds.
    @raise ValueError: C{value} is something else.
    """
    match = _LONG_TIME.fullmatch(value)
    if match is None or not value:
        raise ValueError("must be a time in whole seconds, such as 30s, 1h30m or 2M")
    return int(_sum(match))


def deadline(value: str, folder: str) -> float:
    """
    Parse a time that must be longer than 0.

    @param value: the text of the option.
    @param folder: not used.
    @return: seconds.
    @raise ValueError: C{value} is not a time, or 0.
    """
    given = seconds(value, folder)
    if not given:
        raise ValueError("must be longer than 0")
    return given


def bufferSize(value: str, folder: str) -> int:
    """
    Parse the size of a buffer for a line of a mail protocol. The least size is that of nginx's POP3 buffer.

    @param value: the text of the option.
    @param folder: not used.
    @return: the size in bytes.
    @raise ValueError: C{value} is not a size from 128 to 1m.
    """
    given = size(value, folder)
    if not 128 <= given <= 1024 * 1024:
        raise ValueError("must be from 128 to 1m")
    return given


def word(value: str, folder: str) -> str:
    """
    Parse one word of printable ASCII, such as a host name.

    @param value: the text of the option.
    @param folder: not used.
    @raise ValueError: C{value} is something else.
    """
    if not re.fullmatch(r"[!-~]+", value):
        raise ValueError("must be one word of printable ASCII")
    return value


def path(value: str, folder: str) -> str:
    """
    Parse a path. C{~} at its beginning is the home folder.

    @param value: the text of the option.
    @param folder: the folder where relative paths start.
    @return: the path, absolute if C{folder} is.
    """
    return os.path.join(folder, os.path.expanduser(text(value, folder)))


def lines(value: str, folder: str) -> tuple[str, ...]:
    """
    Parse a list with one item per line. Blanks inside a line are part of the item.

    @param value: the text of the option.
    @param folder: not used.
    @raise ValueError: C{value} is empty.
    """
    items = tuple(line.strip() for line in value.split("\n") if line.strip())
    if not items:
        raise ValueError("a value is missing")
    return items


LEARN = "backend"
"""The first word of a C{*_capabilities} directive that has the gateway announce what the backend offers."""


def capabilities(*bare: str, usual: Sequence[str] = ()) -> Parser:
    """
    Make a parser for capabilities, one per line, with their parameters. The list may begin with the word C{backend}, in
    any case: then the value begins with L{LEARN}, and the capabilities behind it are announced while the gateway does
    not know what the backend offers. The word C{none} alone, in any case, is an empty list.

    @param bare: the capabilities without parameters, in upper case. A word after one of these is reported as a second
        capability on the line. The parser raises L{ValueError} for that, for what is not printable ASCII, and for
        C{backend} at another place.
    @param usual: the capabilities behind C{backend} if it stands alone.
    """

    def parse(value: str, folder: str) -> tuple[str, ...]:
        items = lines(value, folder)
        learn, _, rest = items[0].partition(" ")
        isLearning = learn.lower() == LEARN
        if isLearning:
            items = (rest.strip(), *items[1:]) if rest.strip() else items[1:]
            items = items or tuple(usual)
        elif len(items) == 1 and items[0].lower() == "none":
            return ()
        for item in items:
            word, *parameters = item.split()
            if LEARN in item.lower().split():
                raise ValueError(f'"{LEARN}" must be the first word')
            if parameters and word.upper() in bare:
                raise ValueError(f'"{item}": write one capability per line')
            if not (item.isascii() and item.isprintable()):
                raise ValueError(f'"{item}" contains characters other than printable ASCII')
            if '"' in item:
                raise ValueError(f"{item}: write one capability per line, without quotes")
        return (LEARN, *items) if isLearning else items

    return parse


def paths(value: str, folder: str) -> tuple[str, ...]:
    """
    Parse a list of paths, one per line.

    @param value: the text of the option.
    @param folder: the folder where relative paths start.
    @return: the paths, as of L{path}.
    """
    return tuple(path(item, folder) for item in lines(value, folder))


def oneOf(*allowed: str) -> Parser:
    """Make a parser for one of the words C{allowed}, in any case. It raises L{ValueError} for other words."""

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
            raise ValueError(f"a value is missing; use some of {known}")
        for word in given:
            if word.lower() not in self._byLowerCase:
                hint = nearest(word, list(self._byLowerCase.values()))
                raise ValueError(f'"{word}" is unknown; use some of {known}{hint}')
        chosen = {word.lower() for word in given}
        return tuple(word for lower, word in self._byLowerCase.items() if lower in chosen)


def words(*allowed: str) -> Parser:
    """
    Make a parser for words of C{allowed}, separated by blanks, in any case. It returns each word once, in the order of
    C{allowed}.
    """
    return _Words(allowed)


def repeatedWords(parse: Parser, value: str) -> Iterator[str]:
    """
    Yield the repeated words of a value, which have no effect.

    @param parse: the parser of the option. Only values of parsers that L{words} makes are searched.
    @param value: the text of the option.
    """
    if isinstance(parse, _Words):
        seen: set[str] = set()
        for word in value.split():
            if word.lower() in seen:
                yield word
            seen.add(word.lower())
