"""
Tests of L{bench.plots}.
"""

from __future__ import annotations

import tempfile

from twisted.trial.unittest import SynchronousTestCase

from bench.measures import Sizes, measuresOf
from bench.results import Results

try:
    from bench.plots import draw
except ImportError:
    draw = None  # type: ignore[assignment]


class DrawTests(SynchronousTestCase):
    """L{draw}."""

    if draw is None:
        skip = "matplotlib is not installed"

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.base = f"{folder.name}/2026-01-02"
        self.results = Results("2026-01-02", ["nginx", "mailgate"])

    def measure(self, group):
        for measure in measuresOf(group, Sizes()):
            self.results.add(measure, "nginx", 2.0)
            self.results.add(measure, "mailgate", 0.5)

    def test_both(self):
        """Memory makes both pictures, as PNG."""
        self.measure("memory")
        made = draw(self.results, self.base)
        self.assertEqual(made, [f"{self.base}-summary.png", f"{self.base}-growth.png"])
        for path in made:
            with open(path, "rb") as stream:
                self.assertEqual(stream.read(8), b"\x89PNG\r\n\x1a\n")

    def test_one(self):
        """Measures without a number of sessions make no picture of growth, and growth alone none of the summary."""
        self.measure("ping")
        self.assertEqual(draw(self.results, self.base), [f"{self.base}-summary.png"])
        self.results = Results("2026-01-02", ["nginx", "mailgate"])
        self.measure("growth")
        self.assertEqual(draw(self.results, self.base), [f"{self.base}-growth.png"])

    def test_others(self):
        """The tree before and HAProxy are drawn, too; single sets of sessions have their spread and their sizes."""
        for group in ("ping", "site", "rate"):
            self.measure(group)
            for measure in measuresOf(group, Sizes()):
                for proxy in ("nginx", "mailgate"):
                    self.results.add(measure, proxy, 1.5)
                self.results.add(measure, "before", 1.0)
                self.results.add(measure, "HAProxy", 0.0)
        self.assertEqual(draw(self.results, self.base), [f"{self.base}-summary.png"])

    def test_nothing(self):
        """Without results there is no picture."""
        self.assertEqual(draw(self.results, self.base), [])

    def test_noMemory(self):
        """Memory that did not grow, or shrank by chance, can be drawn on a logarithmic axis."""
        for measure in measuresOf("memory", Sizes()):
            self.results.add(measure, "nginx", 2.0)
            self.results.add(measure, "mailgate", -0.5)
        self.assertEqual(len(draw(self.results, self.base)), 2)
