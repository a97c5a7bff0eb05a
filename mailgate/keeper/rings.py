# -*- test-case-name: mailgate.test.keeper.test_rings -*-
"""
The points of the plots: ten minutes by the second, and a day by the minute. They are kept in rings of fixed size, which
a successor of the keeper continues.
"""

from __future__ import annotations

import re
from array import array
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from math import isfinite, nan
from typing import Any

from attrs import define, field, frozen

from mailgate.keeper.moments import LATEST
from mailgate.keeper.quantiles import quantile
from mailgate.keeper.sums import Values
from mailgate.watch.metrics import LOGIN_OUTCOMES

__all__ = ["DRAWN", "MOST_SERIES", "SPANS", "Plots", "Ring"]

DRAWN = ("mailgate_sessions", "mailgate_logins", "mailgate_relayed_bytes", "mailgate_login_seconds")
"""The metrics that the plots show."""

SPANS: Mapping[str, tuple[int, int]] = {"10m": (1, 600), "24h": (60, 1440)}
"""For each span the seconds between two points, and the number of points."""

MOST_SERIES = 32
"""The series of a ring. Those beyond are left out."""

_NAME = re.compile(r"(sessions|logins|login_wait|bytes)\.[a-z0-9_]{1,32}")
_SHARES = {"login_wait.p50": 0.5, "login_wait.p95": 0.95, "login_wait.p99": 0.99}
_LATEST = LATEST // max(step for step, _ in SPANS.values())
"""The number of a point is below this: its time is a date also in the ring with the longest steps."""

_FILLED = 5
"""Points that may be filled with the rate of a longer time: reports do not arrive exactly once a second."""


class Ring:
    """
    The latest points of some series. A point is a number, or NaN if there is none.

    @param length: the number of points that are kept.
    @ivar head: the number of the latest point; -1 before the first one.
    """

    def __init__(self, length: int) -> None:
        self.head = -1
        self._length = length
        self._series: dict[str, array[float]] = {}

    def put(self, place: int, values: Mapping[str, float], first: int | None = None) -> None:
        """
        Set the values of a point.

        @param place: the number of the point. If it is below C{head}, the system's clock was set back: later points
            are removed.
        @param values: the values of the series.
        @param first: the number of the first point with these values; L{None}: C{place} is the only one.
        """
        self._advance(place)
        places = range(max(place - self._length + 1, place if first is None else first), place + 1)
        for name, value in values.items():
            series = self._named(name)
            if series is not None:
                for each in places:
                    series[each % self._length] = value

    def _named(self, name: str) -> array[float] | None:
        series = self._series.get(name)
        if series is None and len(self._series) < MOST_SERIES:
            # Four bytes are enough for a plot.
            series = self._series[name] = array("f", [nan]) * self._length
        return series

    def _advance(self, place: int) -> None:
        low, high = sorted((self.head, place))
        emptied = range(max(low + 1, high - self._length + 1), high + 1)
        for series in self._series.values():
            for each in emptied:
                series[each % self._length] = nan
        self.head = place

    def points(self) -> tuple[int, dict[str, list[float]]]:
        """Return the number of the first point that has a value, and all series from there on, up to C{head}."""
        places = range(max(0, self.head - self._length + 1), self.head + 1)
        ordered = {
            name: [series[each % self._length] for each in places] for name, series in sorted(self._series.items())
        }
        filled = ({index for index, value in enumerate(series) if value == value} for series in ordered.values())
        first = min((min(each) for each in filled if each), default=len(places))
        return places.start + first, {name: series[first:] for name, series in ordered.items()}

    def of(self, name: str) -> list[float]:
        """
        Return all points of one series, up to C{head}; an empty list if it is not known.

        @param name: its name.
        """
        series = self._series.get(name)
        if series is None:
            return []
        return [series[each % self._length] for each in range(max(0, self.head - self._length + 1), self.head + 1)]

    def write(self) -> dict[str, Any]:
        """Return the ring as a value of JSON."""
        series = {name: b64encode(each.tobytes()).decode("ascii") for name, each in self._series.items()}
        return {"head": self.head, "series": series}

    def restore(self, written: Any) -> None:
        """
        Take over the points of a predecessor that are not known here.

        @param written: what its C{write} has returned, not checked.
        """
        if not isinstance(written, dict) or not isinstance(written.get("series"), dict):
            return
        head = written.get("head")
        if type(head) is not int or not 0 <= head < _LATEST:
            return
        if head > self.head:
            self._advance(head)
        known = range(max(0, self.head - self._length + 1, head - self._length + 1), head + 1)
        for name, text in written["series"].items():
            series = self._named(name) if _NAME.fullmatch(name) else None
            for place, value in zip(known, self._read(text, known), strict=False):
                if series is not None and series[place % self._length] != series[place % self._length]:
                    series[place % self._length] = value

    def _read(self, text: Any, places: range) -> Iterator[float]:
        found = array("f")
        try:
            found.frombytes(b64decode(text, validate=True))
        except (TypeError, ValueError):
            return
        if len(found) == self._length:
            for each in places:
                value = found[each % self._length]
                yield value if isfinite(value) else nan


@frozen
class _Sample:
    """
    What the plots need of the sums of one moment.

    @ivar at: the time in seconds.
    @ivar sessions: the open connections of each protocol.
    @ivar counted: the counters, by the names of their series.
    @ivar waits: the logins in each bucket of their histogram.
    """

    at: float
    sessions: Mapping[str, float]
    counted: Mapping[str, float]
    waits: list[float]

    @classmethod
    def of(cls, at: float, values: Values) -> _Sample:
        sessions: dict[str, float] = {}
        for (protocol, _), number in values.get("mailgate_sessions", {}).items():
            sessions[f"sessions.{protocol}"] = sessions.get(f"sessions.{protocol}", 0) + number
        counted = {f"logins.{outcome}": 0.0 for outcome in LOGIN_OUTCOMES}
        for labels, number in values.get("mailgate_logins", {}).items():
            counted[f"logins.{labels[-1]}"] = counted.get(f"logins.{labels[-1]}", 0) + number
        for labels, number in values.get("mailgate_relayed_bytes", {}).items():
            counted[f"bytes.{labels[-1]}"] = counted.get(f"bytes.{labels[-1]}", 0) + number
        rows = values.get("mailgate_login_seconds", {}).values()
        return cls(at, sessions, counted, [sum(each) for each in zip(*(row[:-1] for row in rows), strict=True)])

    def since(self, before: _Sample) -> dict[str, float]:
        """The values of a point."""
        seconds = self.at - before.at
        point = dict(self.sessions)
        for name, number in self.counted.items():
            # A predecessor's counters may be restored in between.
            point[name] = max(0.0, number - before.counted.get(name, number)) / seconds
        earlier = before.waits or [0] * len(self.waits)
        waits = [max(0, now - then) for now, then in zip(self.waits, earlier, strict=False)]
        for name, share in _SHARES.items():
            found = quantile(waits, share)
            point[name] = nan if found is None else found
        return point


@define
class _Span:
    """
    One ring, and the sample at which its latest point has begun.

    @ivar step: seconds between two points.
    @ivar ring: the points.
    @ivar before: the sample; L{None} before the first one.
    """

    step: int
    ring: Ring
    before: _Sample | None = None

    def add(self, sample: _Sample) -> None:
        """Add the points that are complete."""
        before = self.before
        place = int(sample.at) // self.step
        if before is None or sample.at < before.at:
            self.before = sample
            return
        earlier = int(before.at) // self.step
        if place > earlier:
            # The point of a second is the time up to it, and that of a minute the minute.
            last = place if self.step == 1 else place - 1
            first = earlier + (self.step == 1)
            isShort = place - earlier <= _FILLED
            self.ring.put(last, sample.since(before), first if isShort else None)
            self.before = sample


@define
class Plots:
    """
    All points.

    @ivar spans: a ring for each span.
    """

    spans: Mapping[str, _Span] = field(
        factory=lambda: {name: _Span(step, Ring(length)) for name, (step, length) in SPANS.items()}
    )

    def add(self, now: float, values: Values) -> None:
        """
        Add a sample.

        @param now: the time in seconds since 1970.
        @param values: the sums of the metrics L{DRAWN}. Without C{mailgate_sessions} the number of sessions is not
            known.
        """
        sample = _Sample.of(now, values)
        for span in self.spans.values():
            span.add(sample)

    def interrupt(self) -> None:
        """The sums change for another reason than events: the next sample begins anew."""
        for span in self.spans.values():
            span.before = None

    def points(self, span: str) -> tuple[int, float, dict[str, list[float | int | None]]]:
        """
        Return the points of a span.

        @param span: a name of L{SPANS}.
        @return: the seconds between two points, the time of the first one in seconds since 1970, and the values of all
            series. L{None} is a point without a value. Rates are those of a second.
        """
        found = self.spans[span]
        first, series = found.ring.points()
        shown = {name: [_short(value) for value in values] for name, values in series.items()}
        return (
            found.step,
            float(first * found.step),
            {name: values for name, values in shown.items() if _hasValue(values)},
        )

    def write(self) -> dict[str, Any]:
        """Return all points as a value of JSON."""
        return {name: span.ring.write() for name, span in self.spans.items()}

    def restore(self, written: Any) -> None:
        """
        Take over the points of a predecessor that are not known here.

        @param written: what its C{write} has returned, not checked.
        """
        for name, span in self.spans.items():
            span.ring.restore(written.get(name) if isinstance(written, dict) else None)


def _hasValue(values: list[float | int | None]) -> bool:
    return any(value is not None for value in values)


def _short(value: float) -> float | int | None:
    if value != value:
        return None
    rounded = float(f"{value:.5g}")
    return int(rounded) if rounded.is_integer() else rounded
