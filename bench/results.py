# -*- test-case-name: bench.test.test_results -*-
"""
The figures of one run, with facts about the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from attrs import define, field

from bench.measures import TABLES, Measure
from bench.spread import BEFORE, Spread, medianWithin

__all__ = ["OURS", "THEIRS", "Results"]

OURS = "mailgate"
THEIRS = "nginx"


def _keyIn(measure: Measure, column: str) -> str:
    """The key of the figures in a column: only mailgate has variants, in this tree and in the tree before."""
    return measure.key if column in (OURS, BEFORE) else measure.baseline or measure.key


@define
class Results:
    """
    The results.

    @ivar started: the day, as C{YYYY-MM-DD}.
    @ivar machine: the name of the machine in every table.
    @ivar proxies: the columns.
    @ivar facts: facts about machine and versions; pairs of a name and a text.
    @ivar notes: notes about single proxies, by their names.
    @ivar omitted: measures that were left out, with the reason.
    @ivar remarks: what limited single figures.
    @ivar figures: by key of the measure, then by proxy: a figure of each repeat.
    """

    started: str
    proxies: list[str] = field(factory=list)
    facts: list[tuple[str, str]] = field(factory=list)
    notes: dict[str, str] = field(factory=dict)
    omitted: list[str] = field(factory=list)
    remarks: list[str] = field(factory=list)
    machine: str = ""
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
        """The figure in a row of the table."""
        return self.figure(_keyIn(measure, proxy), proxy)

    def pairs(self, measure: Measure, against: str = THEIRS) -> list[float]:
        """
        The ratio of mailgate's figure to that of another column in each repeat: both were measured one after the other.
        """
        ours = self.figures.get(measure.key, {}).get(OURS, [])
        others = self.figures.get(_keyIn(measure, against), {}).get(against, [])
        if len(ours) != len(others) or not all(others):
            return []
        return [one / other for one, other in zip(ours, others, strict=True)]

    def ratio(self, measure: Measure, against: str = THEIRS) -> float | None:
        """The median of L{pairs}; the ratio of the medians if there are no pairs; C{None} without both figures."""
        pairs = self.pairs(measure, against)
        if pairs:
            return median(pairs)
        ours, theirs = self.figureIn(measure, OURS), self.figureIn(measure, against)
        return ours / theirs if ours is not None and theirs else None

    def spread(self, measure: Measure, against: str = THEIRS) -> Spread | None:
        """The spread of L{pairs}, if there are at least two."""
        pairs = self.pairs(measure, against)
        return Spread.of(pairs) if len(pairs) > 1 else None

    def reached(self, measure: Measure) -> bool | None:
        """Whether the goal against nginx was reached; C{None} without goal or figures."""
        ratio = self.ratio(measure)
        return None if ratio is None or measure.goal is None else round(ratio, 2) <= measure.goal

    def reachedBefore(self, measure: Measure) -> bool | None:
        """Whether the goal against the tree before was reached; C{None} without goal or figures."""
        ratio, spread = self.ratio(measure, BEFORE), self.spread(measure, BEFORE)
        if ratio is None or measure.goalBefore is None:
            return None
        # No worse: the same code has a ratio above 1 in half of all cases.
        figure = spread.quarter if spread is not None and measure.goalBefore == 1 else ratio
        return round(figure, 2) <= measure.goalBefore

    def rows(self, table: str) -> list[Measure]:
        """The measured rows of a table, in their order."""
        return [measure for measure in self.measures if measure.table == table]

    def columns(self, rows: Sequence[Measure]) -> list[str]:
        """The proxies that have a figure in one of C{rows}."""
        return [proxy for proxy in self.proxies if any(self.figure(row.key, proxy) is not None for row in rows)]

    def asData(self) -> dict[str, Any]:
        """All results in a form for JSON."""
        return {
            "started": self.started,
            "machine": self.machine,
            "facts": dict(self.facts),
            "proxies": self.proxies,
            "notes": self.notes,
            "omitted": self.omitted,
            "remarks": self.remarks,
            "measures": [self._measureAsData(measure) for measure in self.measures],
        }

    def _measureAsData(self, measure: Measure) -> dict[str, Any]:
        return {
            "key": measure.key,
            "title": measure.title,
            "unit": TABLES[measure.table],
            "goal": measure.goal,
            "ratio": self.ratio(measure),
            "reached": self.reached(measure),
            "ratios": {against: self._ratioAsData(measure, against) for against in (THEIRS, BEFORE)},
            "sessions": measure.sessions,
            "medians": {proxy: self.figure(measure.key, proxy) for proxy in self.figures[measure.key]},
            "figures": self.figures[measure.key],
        }

    def _ratioAsData(self, measure: Measure, against: str) -> dict[str, Any] | None:
        ratio, spread = self.ratio(measure, against), self.spread(measure, against)
        if ratio is None:
            return None
        quartiles = [spread.quarter, spread.threeQuarters] if spread else None
        return {"median": ratio, "quartiles": quartiles, "within": medianWithin(self.pairs(measure, against))}
