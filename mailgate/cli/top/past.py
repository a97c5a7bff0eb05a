# -*- test-case-name: mailgate.test.cli.top.test_past -*-
"""
The numbers of the last ten minutes, one a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from mailgate.cli.top.values import Row, mapping, number

__all__ = ["KEPT", "Past"]

KEPT = 600
"""Seconds that are kept."""

_MOST = 64
"""Series that are kept. Their names come from the gateway."""


class Past:
    """The numbers, by the names of C{GET /api/1/history}."""

    def __init__(self) -> None:
        self._series: dict[str, deque[float | None]] = {}
        self._length = 0

    def add(self, stats: Row) -> None:
        """
        Add the numbers of a second.

        @param stats: C{stats} of an overview.
        """
        logins = mapping(stats.get("logins"))
        values = {f"logins.{name}": number(mapping(each).get("per_second")) for name, each in logins.items()}
        wait = mapping(stats.get("login_wait"))
        values["login_wait.p95"] = number(wait.get("p95"))
        self._append(values)

    def gap(self) -> None:
        """Add a second without numbers."""
        self._append({})

    def _append(self, values: Mapping[str, float | None]) -> None:
        for name in values:
            if name not in self._series and len(self._series) < _MOST:
                self._series[name] = deque([None] * self._length, KEPT)
        for name, series in self._series.items():
            series.append(values.get(name))
        self._length = min(self._length + 1, KEPT)

    def load(self, answer: Row) -> None:
        """
        Take what the gateway has kept, if that is more.

        @param answer: the answer to C{GET /api/1/history?span=10m}.
        """
        found = {
            name: [number(value) for value in values[-KEPT:]]
            for name, values in list(mapping(answer.get("series")).items())[:_MOST]
            if isinstance(values, list)
        }
        length = max(map(len, found.values()), default=0)
        if length < self._length:
            return
        self._length = length
        self._series = {name: deque([None] * (length - len(values)) + values, KEPT) for name, values in found.items()}

    def of(self, name: str) -> Sequence[float | None]:
        """
        Return a series, the latest number last; an empty one if it is not known.

        @param name: its name.
        """
        return tuple(self._series.get(name, ()))
