# -*- test-case-name: mailgate.test.cli.top.test_texts -*-
"""
Texts that are shown instead of a table: an explanation, and everything about a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mailgate.cli.explain import lines
from mailgate.cli.top.text import Marks, clean, escaped
from mailgate.cli.top.values import Row, mapping

__all__ = ["details", "explanation", "missing"]

_DEPTH = 6
"""Levels of objects in objects that are shown."""

_LABEL = 12

_ESCAPED = ("reason", "text")
"""Members that the gateway has made printable."""


def missing(answer: Row, marks: Marks) -> Sequence[str]:
    """
    Return lines about the processes whose answers are missing.

    @param answer: the answer of the admin server.
    @param marks: what the terminal can show.
    """
    found = answer.get("missing")
    return [f"not complete: {escaped(each, marks)}" for each in found] if isinstance(found, list) else []


def explanation(body: Row, answer: Any, now: float, marks: Marks) -> Sequence[str]:
    """
    Return an explanation of a login as lines.

    @param body: the question.
    @param answer: the answer of the admin server.
    @param now: the time in seconds since 1970.
    @param marks: what the terminal can show.
    @raise ValueError: the answer has another form.
    """
    found = mapping(answer)
    try:
        return [*lines({**body, **found}, now), *missing(found, marks)]
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ValueError("the gateway is of another release: its explanation has another form") from None


def details(row: Row, marks: Marks) -> Iterator[str]:
    """
    Yield all members of a row in full, one a line.

    @param row: the row.
    @param marks: what the terminal can show.
    """
    for name, value in row.items():
        yield from _member(name, value, marks, 0)


def _member(name: str, value: Any, marks: Marks, depth: int) -> Iterator[str]:
    label = f"{'  ' * depth}{clean(name, marks):<{_LABEL}}"
    if isinstance(value, dict) and value and depth < _DEPTH:
        yield label.rstrip()
        for each, inner in value.items():
            yield from _member(each, inner, marks, depth + 1)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for inner in value:
            yield from _member(name, inner, marks, depth)
    elif isinstance(value, list):
        yield f"{label} {', '.join(clean(each, marks) for each in value) or '-'}"
    else:
        yield f"{label} {(escaped if name in _ESCAPED else clean)(value, marks, 4000)}"
