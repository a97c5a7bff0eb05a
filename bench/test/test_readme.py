"""
README.rst shows the newest figures in bench/results.
"""

from __future__ import annotations

import os
import re

from twisted.trial.unittest import SynchronousTestCase

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RESULTS = os.path.join(ROOT, "bench", "results")


def read(*path: str) -> str:
    with open(os.path.join(*path), encoding="utf-8") as opened:
        return opened.read()


class ReadmeTests(SynchronousTestCase):
    """The section of README.rst on speed."""

    def setUp(self) -> None:
        self.newest = max(name for name in os.listdir(RESULTS) if re.fullmatch(r"[0-9-]{10}\.rst", name))
        self.readme = read(ROOT, "README.rst")

    def test_tables(self) -> None:
        """It has every table of the newest run, exactly, and says what was measured."""
        results = read(RESULTS, self.newest)
        self.assertIn(results[results.index(":machine:") :].strip(), self.readme)

    def test_plot(self) -> None:
        """It shows a plot of that run, which exists."""
        (plot,) = re.findall(r"^\.\. image:: (\S+)$", self.readme, re.MULTILINE)
        self.assertTrue(plot.startswith(f"bench/results/{self.newest.removesuffix('.rst')}-"))
        self.assertTrue(os.path.exists(os.path.join(ROOT, plot)))
