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
    """README.rst's section on speed."""

    def setUp(self) -> None:
        self.newest = max(name for name in os.listdir(RESULTS) if re.fullmatch(r"[0-9-]{10}\.rst", name))
        self.readme = read(ROOT, "README.rst")

    def test_summary(self) -> None:
        """It has the summary of the newest report, to the letter. Both READMEs link to that report."""
        report = read(RESULTS, self.newest)
        summary = report[report.index("\n\n==") : report.index(":machine:")].strip()
        self.assertIn("In short", summary)
        self.assertIn(f"\n{summary}\n", self.readme)
        self.assertIn(f"<bench/results/{self.newest}>`_", self.readme)
        self.assertIn(f"<results/{self.newest}>`_", read(ROOT, "bench", "README.rst"))

    def test_plot(self) -> None:
        """It shows a plot of that run, which is there."""
        (plot,) = re.findall(r"^\.\. image:: (\S+)$", self.readme, re.MULTILINE)
        self.assertTrue(plot.startswith(f"bench/results/{self.newest.removesuffix('.rst')}-"))
        self.assertTrue(os.path.exists(os.path.join(ROOT, plot)))
