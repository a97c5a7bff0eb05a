# -*- test-case-name: mailgate.test.process.workers.test_messages -*-
"""
The kinds of fields that messages between processes have. Each refuses values of other types.
"""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any

from attrs import NOTHING, field
from attrs.validators import and_, deep_iterable, deep_mapping, ge, instance_of, le, optional

_MOST = 2**63 - 1
"""The highest number. Python cannot compute seconds with, or print, every number that JSON may contain."""

_MOST_SECONDS = 10**9
"""The longest time: 31 years."""

_DEEPEST = 8
"""How deep values of JSON may be nested."""

_NESTING = (list, dict)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

__all__ = [
    "checkDepth",
    "descriptors",
    "flag",
    "hexadecimal",
    "isNumber",
    "jsonValue",
    "number",
    "numbers",
    "seconds",
    "slotNumber",
    "text",
    "word",
]


def isNumber(least: int) -> Any:
    """
    Return a validator of whole numbers.

    @param least: the lowest number that is allowed.
    """
    # A bool is an int in Python.
    return and_(instance_of(int), _noFlag, ge(least), le(_MOST))


def _noFlag(instance: Any, attribute: Any, value: Any) -> None:
    if isinstance(value, bool):
        raise TypeError(f"{attribute.name} is not a number")


def number(least: int = 0) -> Any:
    """
    A whole number.

    @param least: the lowest number that is allowed.
    """
    return field(validator=isNumber(least))


def slotNumber() -> Any:
    """The number of a worker, from 0, or L{None}."""
    return field(default=None, validator=optional(isNumber(0)))


def seconds() -> Any:
    """
    A time in seconds, at least 0.

    @raise ValueError: in the validator: the value is another one.
    """

    def check(instance: Any, attribute: Any, value: Any) -> None:
        if type(value) not in (int, float) or not 0 <= value <= _MOST_SECONDS:
            raise ValueError(f"{attribute.name} is not a time in seconds")

    return field(validator=check)


def flag() -> Any:
    """True or false."""
    return field(validator=instance_of(bool))


def numbers(default: Any = NOTHING) -> Any:
    """
    A tuple of whole numbers; a list becomes one.

    @param default: the default value; without it the field must be given.
    """
    return field(
        default=default,
        converter=lambda value: tuple(value) if isinstance(value, list) else value,
        validator=deep_iterable(isNumber(0), instance_of(tuple)),
    )


def descriptors() -> Any:
    """Descriptors by name, none of them a standard stream."""
    return field(validator=deep_mapping(instance_of(str), isNumber(3), instance_of(dict)))


def text(longest: int | None = None, isOneLine: bool = False) -> Any:
    """
    Any text.

    @param longest: characters that are allowed; L{None}: no limit.
    @param isOneLine: whether control characters are refused.
    @raise ValueError: in the validator: the text is too long, or has control characters.
    """

    def check(instance: Any, attribute: Any, value: str) -> None:
        if (longest is not None and len(value) > longest) or (isOneLine and _CONTROL.search(value)):
            raise ValueError(f"{attribute.name} is too long or contains control characters")

    return field(validator=and_(instance_of(str), check), repr=False)


def word(pattern: str) -> Any:
    """
    A word of mailgate's.

    @param pattern: the regular expression that it matches.
    @raise ValueError: in the validator: the value does not match.
    """

    def check(instance: Any, attribute: Any, value: Any) -> None:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(f"{attribute.name} is not a word")

    return field(validator=check)


def hexadecimal(size: int) -> Any:
    """
    Random bytes that no other process may learn, as hexadecimal digits.

    @param size: how many bytes they are.
    @raise ValueError: in the validator: the value is none.
    """

    def check(instance: Any, attribute: Any, value: Any) -> None:
        if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", value):
            raise ValueError(f"{attribute.name} is not {size} bytes in hexadecimal digits")

    return field(validator=check, repr=False)


def checkDepth(value: Any, left: int = _DEEPEST) -> None:
    """
    Refuse a value that a process of another stack depth could not write again, and numbers that JSON lacks.

    @param value: a value of JSON.
    @param left: how deep it may be nested.
    @raise ValueError: it is deeper, or a number is infinite: Python reads 1e999 so.
    """
    if type(value) is float and not isfinite(value):
        raise ValueError("a number is too large")
    if isinstance(value, _NESTING):
        if not left:
            raise ValueError("the value is too deep")
        for each in value.values() if isinstance(value, dict) else value:
            # Most values are not nested: this spares a call for each of them.
            if isinstance(each, _NESTING) or type(each) is float:
                checkDepth(each, left - 1)


def jsonValue(longest: int, kind: type = object, default: Any = NOTHING) -> Any:
    """
    A value of JSON.

    @param longest: bytes of its text that are allowed.
    @param kind: its type in Python.
    @param default: its default.
    @raise ValueError: in the validator: the value is too long, too deep, or of another type.
    """

    def check(instance: Any, attribute: Any, value: Any) -> None:
        checkDepth(value)
        if not isinstance(value, kind) or len(json.dumps(value, allow_nan=False)) > longest:
            raise ValueError(f"{attribute.name} is too long, or of the wrong type")

    return field(validator=check, repr=False, default=default)
