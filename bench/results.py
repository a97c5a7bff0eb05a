# -*- test-case-name: bench.test.test_results -*-
"""
The figures of one run, with facts about the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from attrs import define, field

from bench.measures import GROUPS, Measure

__all__ = ["OURS", "THEIRS", "Results"]

OURS = "mailgate"
THEIRS = "nginx"


@define
class Results:
    """
    The results.

    @ivar started: the day, as C{YYYY-MM-DD}.
    @ivar proxies: the columns.
    @ivar facts: facts about machine and versions; pairs of a name and a text.
    @ivar notes: notes about single proxies, by their names.
    @ivar omitted: measures that were left out, with the reason.
    @ivar figures: by key of the measure, then by proxy: a figure of each repeat.
    """

    started: str
    proxies: list[str] = field(factory=list)
    facts: list[tuple[str, str]] = field(factory=list)
    notes: dict[str, str] = field(factory=dict)
    omitted: list[str] = field(factory=list)
    measures: list[Measure] = field(factory=list)
    figures: dict[str, dict[str, list[float]]] = field(factory=dict)

    def add(self, measure: Measure, proxy: str, figure: float) -> None:
        """Add one figure."""
        if measure not in self.measures:
            self.measures.append(measure)
        self.figures.setdefault(measure.key, {}).setdefault(proxy, []).append(figure)

    def figure(self, key: str, proxy: str) -> float | None:
        """The median over the repeats, if there are any."""
        figures = self.figures.get(key, {}).get(proxy)
        return median(figures) if figures else None

    def figureIn(self, measure: Measure, proxy: str) -> float | None:
        """The figures in a row of the table: only mailgate has variants."""
        return self.figure(measure.key if proxy == OURS else measure.baseline or measure.key, proxy)

    def ratio(self, measure: Measure) -> float | None:
        """The ratio of mailgate's figure to nginx's, if both were measured."""
        ours, theirs = self.figureIn(measure, OURS), self.figureIn(measure, THEIRS)
        return ours / theirs if ours is not None and theirs else None

    def reached(self, measure: Measure) -> bool | None:
        """Whether the goal was reached; C{None} without goal or figures."""
        ratio = self.ratio(measure)
        return None if ratio is None or measure.goal is None else round(ratio, 2) <= measure.goal

    def rows(self, group: str) -> list[Measure]:
        """The measured rows of a group, in the order of the table."""
        return [measure for measure in self.measures if measure.group == group]

    def columns(self, rows: Sequence[Measure]) -> list[str]:
        """The proxies that have a figure in one of C{rows}."""
        return [proxy for proxy in self.proxies if any(self.figure(row.key, proxy) is not None for row in rows)]

    def asData(self) -> dict[str, Any]:
        """All results in a form for JSON."""
        return {
            "started": self.started,
            "facts": dict(self.facts),
            "proxies": self.proxies,
            "notes": self.notes,
            "omitted": self.omitted,
            "measures": [self._measureAsData(measure) for measure in self.measures],
        }

    def _measureAsData(self, measure: Measure) -> dict[str, Any]:
        return {
            "key": measure.key,
            "title": measure.title,
            "unit": GROUPS[measure.group],
            "goal": measure.goal,
            "ratio": self.ratio(measure),
            "reached": self.reached(measure),
            "sessions": measure.sessions,
            "medians": {proxy: self.figure(measure.key, proxy) for proxy in self.figures[measure.key]},
            "figures": self.figures[measure.key],
        }
