# -*- test-case-name: bench.test.test_comparison -*-
"""
Figures of two trees that took turns, and the certainty of their difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from attrs import define, field

from bench.report import number, simpleTable
from bench.spread import AFTER, BEFORE, Spread, medianWithin

__all__ = ["Comparison", "order", "tables"]


def order(burst: int) -> tuple[str, str]:
    """The order in the C{burst}th pair of bursts: each side is first equally often."""
    return (BEFORE, AFTER) if burst % 2 == 0 else (AFTER, BEFORE)


@define
class Comparison:
    """
    One row: a figure of each side for every burst.

    @ivar asked: the number of logins that the authentication service judged, by side.
    @ivar connections: the number of its connections, by side.
    """

    title: str
    figures: dict[str, list[float]] = field(factory=lambda: {BEFORE: [], AFTER: []})
    asked: dict[str, int] = field(factory=lambda: {BEFORE: 0, AFTER: 0})
    connections: dict[str, int] = field(factory=lambda: {BEFORE: 0, AFTER: 0})

    @property
    def ratio(self) -> float:
        """The ratio of the medians, after to before."""
        return median(self.figures[AFTER]) / median(self.figures[BEFORE])

    @property
    def pairs(self) -> list[float]:
        """The ratio of every pair of bursts, which ran under the same conditions."""
        return [after / before for before, after in zip(self.figures[BEFORE], self.figures[AFTER], strict=True)]

    def connectionsPerLogin(self, side: str) -> float | None:
        """The connections to the authentication service per login; L{None} if it was not used."""
        return self.connections[side] / self.asked[side] if self.asked[side] else None


def tables(rows: Sequence[Comparison]) -> str:
    """The figures of both sides, and then the ratios."""
    spreads = [("CPU of a login (ms)", "", "least", "25 %", "median", "75 %", "most", "connections"), *_spreads(rows)]
    ratios = [("After / before", "medians", "pairs", "25 %", "75 %", "95 % within", "bursts"), *_ratios(rows)]
    return f"{simpleTable(spreads)}\n\n{simpleTable(ratios)}\n"


def _spreads(rows: Sequence[Comparison]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        for side in (BEFORE, AFTER):
            spread = Spread.of(row.figures[side])
            parts = (spread.least, spread.quarter, spread.middle, spread.threeQuarters, spread.most)
            yield row.title, side, *map(number, parts), number(row.connectionsPerLogin(side))


def _ratios(rows: Sequence[Comparison]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        spread, within = Spread.of(row.pairs), medianWithin(row.pairs)
        figures = (row.ratio, spread.middle, spread.quarter, spread.threeQuarters)
        said = f"{within[0]:.3f} to {within[1]:.3f}" if within else "-"
        yield row.title, *(f"{figure:.3f}" for figure in figures), said, str(len(row.pairs))
