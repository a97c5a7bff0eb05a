# -*- test-case-name: bench.test.test_plots -*-
"""
Results as pictures: mailgate against nginx at a glance, and the growth with the number of sessions. Needs matplotlib.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.measures import SHORT, TABLES, Measure
from bench.results import THEIRS, Results
from bench.spread import BEFORE

__all__ = ["draw"]

_REACHED, _MISSED, _NEUTRAL = "#0072b2", "#d55e00", "#999999"
_LEAST = 0.001
"""The shortest bar: memory of idle sessions can be less than random variation, even negative."""

_SUMMARIZED = ("login", "relay", "ping", "memory", "latency", "half", "idle")
"""The tables with rows in the summary."""

_RARE = (".p99", ".p999", ".total", ".cpu")
"""The ends of keys of measures that the summary leaves out."""


def draw(results: Results, base: str) -> list[str]:
    """Write C{base-summary.png} and C{base-growth.png}, as far as there are figures; return the names of the files."""
    made = []
    for name, figure in (("summary", _summary(results)), ("growth", _growth(results))):
        if figure is not None:
            made.append(f"{base}-{name}.png")
            figure.savefig(made[-1], dpi=110)
    return made


def _summarized(results: Results) -> list[Measure]:
    """The measures with a ratio; of those of memory with several numbers of sessions, only the greatest."""
    most = max((measure.sessions or 0 for measure in results.rows("memory")), default=0)
    return [
        measure
        for measure in results.measures
        if measure.table in _SUMMARIZED
        and results.ratio(measure) is not None
        and not measure.key.endswith(_RARE)
        and (measure.table != "memory" or measure.sessions == most)
    ]


def _summary(results: Results) -> Figure | None:
    measures = _summarized(results)[::-1]
    if not measures:
        return None
    figure = Figure(figsize=(9, 1.2 + 0.29 * len(measures)), layout="constrained")
    axes = figure.add_subplot()
    colors = {None: _NEUTRAL, True: _REACHED, False: _MISSED}
    ratios = [max(_LEAST, results.ratio(measure) or 0.0) for measure in measures]
    labels = [f"{SHORT[measure.table]}: {measure.title}" for measure in measures]
    # Bars of a logarithmic axis begin at 1, as long as nginx's: left is better.
    axes.barh(
        range(len(measures)),
        [ratio - 1 for ratio in ratios],
        left=1,
        color=[colors[results.reached(measure)] for measure in measures],
    )
    for place, (measure, ratio) in enumerate(zip(measures, ratios, strict=True)):
        axes.annotate(f" {ratio:.2g} ", (ratio, place), va="center", ha="right" if ratio < 1 else "left", fontsize=8)
        if measure.goal is not None:
            axes.plot([measure.goal] * 2, [place - 0.45, place + 0.45], color="black", linewidth=2)
        spread = results.spread(measure)
        if spread is not None:
            low, high = max(_LEAST, spread.quarter), max(_LEAST, spread.threeQuarters)
            axes.plot([low, high], [place - 0.25] * 2, color="black", linewidth=0.8)
    _others(axes, results, measures)
    _style(axes, labels, ratios)
    axes.set_title(
        f"mailgate / nginx, {results.started}: to the left is better, black marks are goals\n{results.machine}",
        fontsize=9,
    )
    return figure


def _others(axes: Axes, results: Results, measures: list[Measure]) -> None:
    """Points for the other proxies that are compared with nginx."""
    for column, color, marker in ((BEFORE, "black", "D"), ("HAProxy", "#009e73", "o")):
        points = []
        for place, measure in enumerate(measures):
            theirs, other = results.figureIn(measure, THEIRS), results.figureIn(measure, column)
            if theirs and other is not None:
                points.append((max(_LEAST, other / theirs), place))
        if points:
            label = "the tree before" if column == BEFORE else column
            axes.plot(
                *zip(*points, strict=True), marker, markersize=4, markerfacecolor="none", color=color, label=label
            )
            axes.legend(fontsize=8, loc="upper left")


def _style(axes: Axes, labels: list[str], ratios: list[float]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(min(*ratios, 0.05) / 2, max(*ratios, 1.5) * 2)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.axvline(1, color="black", linewidth=0.8)
    ticks = [tick for tick in (0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10) if min(*ratios, 0.05) / 2 <= tick]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="x", alpha=0.3)


def _growth(results: Results) -> Figure | None:
    wanted = (
        (TABLES["growth"], "growth."),
        ("Memory of an idle plain session (bytes)", "memory.plain.idle."),
        ("Memory of an idle TLS session (bytes)", "memory.tls.idle."),
    )
    panels = [
        (title, rows)
        for title, prefix in wanted
        if (rows := [measure for measure in results.measures if measure.key.startswith(prefix)])
    ]
    if not panels:
        return None
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    for place, (title, rows) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), place)
        _curves(axes, results, rows)
        axes.set_title(title, fontsize=10)
        if title == TABLES["growth"]:
            axes.set_ylim(bottom=0)
        else:
            axes.set_yscale("log")
    return figure


def _curves(axes: Axes, results: Results, rows: list[Measure]) -> None:
    for proxy in results.columns(rows):
        points = [(row.sessions or 0, figure) for row in rows if (figure := results.figure(row.key, proxy)) is not None]
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=proxy)
    axes.set_xlabel("sessions")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
