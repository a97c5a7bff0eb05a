"""
README.rst shows the newest figures in bench/results, and bench/README.rst has all reports: L{bench.readme}.
"""

from __future__ import annotations

import json
import os
import re

from twisted.trial.unittest import SynchronousTestCase

from bench.readme import SET, listing, newestReport, reports, shown, summaryOf

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RESULTS = os.path.join(ROOT, "bench", "results")


def read(*path: str) -> str:
    with open(os.path.join(*path), encoding="utf-8") as opened:
        return opened.read()


class ReadmeTests(SynchronousTestCase):
    """README.rst's section on speed."""

    def setUp(self) -> None:
        self.newest = newestReport()
        self.readme = read(ROOT, "README.rst")

    def test_summary(self) -> None:
        """It has the summary of the newest report, to the letter. Both READMEs link to that report."""
        summary = summaryOf(read(RESULTS, f"{self.newest}.rst"))
        self.assertIn("In short", summary)
        self.assertIn(f"\n{summary}\n", self.readme)
        self.assertIn(f"<bench/results/{self.newest}.rst>`_", self.readme)
        self.assertIn(f"`Newest report <results/{self.newest}.rst>`_", read(ROOT, "bench", "README.rst"))

    def test_plot(self) -> None:
        """It shows the plot of that run, which is there."""
        (plot,) = re.findall(r"^\.\. image:: (\S+)$", self.readme, re.MULTILINE)
        self.assertEqual(plot, f"bench/results/{self.newest}-summary.png")
        self.assertTrue(os.path.exists(os.path.join(ROOT, plot)))

    def test_machines(self) -> None:
        """Every table of every report names its machine, as README does, and every report is listed with it."""
        for name in reports():
            machine = json.loads(read(RESULTS, f"{name}.json"))["machine"]
            text = read(RESULTS, f"{name}.rst")
            captions = re.findall(r"^\.\. table:: (.*)\n\n   ===", text, re.MULTILINE)
            self.assertEqual(captions, [machine] * (len(re.findall(r"^ *=+  =", text, re.MULTILINE)) // 3))
            self.assertIn(f"\n* `{name[:10]} <results/{name}.rst>`_: {machine}\n", read(ROOT, "bench", "README.rst"))


class RewriteTests(SynchronousTestCase):
    """L{shown} and L{listing}."""

    def test_shown(self) -> None:
        """Summary, picture and link of a report take the places of those of another one; nothing else changes."""
        head, tail = "Speed\n-----\n\nFast.\n\n", " also has\nmore.\n"
        image = ".. image:: bench/results/{}-summary.png\n   :alt: x\n\n"
        link = "\n\n`The whole report <bench/results/{}.rst>`_"
        old = image.format(1) + "==\nold\n\n==" + link.format(1)
        new = image.format("2-b") + "new" + link.format("2-b")
        self.assertEqual(shown(head + old + tail, "2-b", "new"), head + new + tail)
        self.assertEqual(shown(head + new + tail, "2-b", "new"), head + new + tail)

    def test_listing(self) -> None:
        """The newest report is the first one of the list. README shows none of a mailgate with lines of its own."""
        folder = self.mktemp()
        os.mkdir(folder)
        for name, facts in (("2026-01-02-a", {}), ("2026-03-04-b", {}), ("2026-03-04-c", {SET: "admin = off"})):
            data = json.dumps({"machine": f"machine {name[-1]}", "facts": facts})
            for end, text in (("json", data), ("rst", ""), ("png", "")):
                with open(os.path.join(folder, f"{name}.{end}"), "w", encoding="ascii") as stream:
                    stream.write(text)
        self.assertEqual(reports(folder), ["2026-01-02-a", "2026-03-04-b", "2026-03-04-c"])
        self.assertEqual(newestReport(folder), "2026-03-04-b")
        lines = [f"* `{name[:10]} <results/{name}.rst>`_: machine {name[-1]}" for name in reports(folder)]
        self.assertEqual(listing(folder).splitlines(), [lines[2], "  (``admin = off``)", lines[1], lines[0]])
