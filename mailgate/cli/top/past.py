# -*- test-case-name: mailgate.test.cli.top.test_past -*-
"""
The numbers of the last ten minutes, one a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mailgate.cli.top.values import Row, mapping, number
from mailgate.keeper.rings import MOST_SERIES, SPANS, Ring

__all__ = ["KEPT", "Past"]

_, KEPT = SPANS["10m"]
"""Seconds that are kept."""


class Past:
    """The numbers, by the names of C{GET /api/1/history}. A point of the ring is a second."""

    def __init__(self) -> None:
        self._ring = Ring(KEPT)

    def add(self, stats: Row) -> None:
        """
        Add the numbers of a second.

        @param stats: C{stats} of an overview.
        """
        logins = mapping(stats.get("logins"))
        values = {f"logins.{name}": number(mapping(each).get("per_second")) for name, each in logins.items()}
        values["login_wait.p95"] = number(mapping(stats.get("login_wait")).get("p95"))
        self._put(self._ring, values)

    def gap(self) -> None:
        """Add a second without numbers."""
        self._put(self._ring, {})

    @staticmethod
    def _put(ring: Ring, values: Mapping[str, float | None]) -> None:
        ring.put(ring.head + 1, {name: value for name, value in values.items() if value is not None})

    def load(self, answer: Row) -> None:
        """
        Take what the gateway has kept, if that is more.

        @param answer: the answer to C{GET /api/1/history?span=10m}.
        """
        found = {
            name: [number(value) for value in values[-KEPT:]]
            for name, values in list(mapping(answer.get("series")).items())[:MOST_SERIES]
            if isinstance(values, list)
        }
        length = max(map(len, found.values()), default=0)
        if length <= min(self._ring.head, KEPT - 1):
            return
        self._ring = Ring(KEPT)
        for ago in range(length, 0, -1):
            self._put(self._ring, {name: values[-ago] for name, values in found.items() if len(values) >= ago})

    def of(self, name: str) -> Sequence[float | None]:
        """
        Return a series, the latest number last; an empty one if it is not known.

        @param name: its name.
        """
        return tuple(None if value != value else value for value in self._ring.of(name))
