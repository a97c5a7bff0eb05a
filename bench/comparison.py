# -*- test-case-name: bench.test.test_comparison -*-
"""
Figures of two trees that took turns, and how far one can say that they differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import comb
from statistics import median, quantiles

from attrs import define, field, frozen

from bench.report import number, simpleTable

__all__ = ["AFTER", "BEFORE", "Comparison", "Spread", "medianWithin", "order", "tables"]

BEFORE = "before"
AFTER = "after"

_DOUBT = 0.05
"""How often the median of all that could be measured may lie outside of what L{medianWithin} says."""


@frozen
class Spread:
    """How figures lie: the least, the quartiles with the median between them, the most."""

    least: float
    quarter: float
    middle: float
    threeQuarters: float
    most: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """The spread of one figure or more."""
        first, middle, third = quantiles(figures, n=4, method="inclusive") if len(figures) > 1 else [*figures] * 3
        return cls(min(figures), first, middle, third, max(figures))


def medianWithin(figures: Sequence[float]) -> tuple[float, float] | None:
    """
    Between which of C{figures} the median of all that could be measured lies in 95 of 100 cases, however they are
    distributed (the interval of the sign test). L{None} for fewer than six, which cannot tell.
    """
    count, chance, rank = len(figures), 0.0, 0
    while (chance := chance + 2 * comb(count, rank) / 2**count) <= _DOUBT:
        rank += 1
    ordered = sorted(figures)
    return (ordered[rank - 1], ordered[-rank]) if rank else None


def order(burst: int) -> tuple[str, str]:
    """Who goes first in the C{burst}th pair of bursts, and who second: each side is as often the first."""
    return (BEFORE, AFTER) if burst % 2 == 0 else (AFTER, BEFORE)


@define
class Comparison:
    """
    One row: a figure of each side for every burst.

    @ivar asked: how many logins the authentication service was asked for, by side.
    @ivar connections: on how many connections it was, by side.
    """

    title: str
    figures: dict[str, list[float]] = field(factory=lambda: {BEFORE: [], AFTER: []})
    asked: dict[str, int] = field(factory=lambda: {BEFORE: 0, AFTER: 0})
    connections: dict[str, int] = field(factory=lambda: {BEFORE: 0, AFTER: 0})

    @property
    def ratio(self) -> float:
        """Of the medians: what is after by what was before."""
        return median(self.figures[AFTER]) / median(self.figures[BEFORE])

    @property
    def pairs(self) -> list[float]:
        """The ratio of every pair of bursts, which met the same machine."""
        return [after / before for before, after in zip(self.figures[BEFORE], self.figures[AFTER], strict=True)]

    def connectionsPerLogin(self, side: str) -> float | None:
        """How many connections the authentication service saw for each login; L{None} where it was not asked."""
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
