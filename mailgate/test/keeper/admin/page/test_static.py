"""
Tests for the files of the live page that browsers load: how large they are, and what they must not contain.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.admin.page import render
from mailgate.keeper.admin.parts import Parts

STATIC = Path(render.__file__).parent / "static"

MOST = 120_000
"""Bytes of all files."""

VENDORED = {"uplot.js", "uplot.license.txt"}

_URL = re.compile(r"(?:https?:)?//[a-z0-9-]+\.[a-z]")


class StaticTests(SynchronousTestCase):
    """The files."""

    def setUp(self) -> None:
        self.files = {name: (STATIC / name).read_text(encoding="utf-8") for name in sorted(os.listdir(STATIC))}
        self.own = {name: text for name, text in self.files.items() if name not in VENDORED}

    def test_size(self) -> None:
        """All files together, as they are sent, are small: the page is there at once, also over a bad line."""
        parts = Parts(STATIC)
        self.assertLess(sum(len(found.body) for found in map(parts.find, self.files) if found), MOST)

    def test_loaded(self) -> None:
        """The document and all that a browser loads for it are below 120 KB (1,024 bytes each), without compression."""
        parts = Parts(STATIC)
        loaded = [parts.find(name) for name in self.files if not name.endswith(".txt")]
        document = self.successResultOf(render.shell(Clock()))
        self.assertLess(len(document) + sum(len(found.body) for found in loaded if found), 120 * 1024)

    def test_indentation(self) -> None:
        """No text of a script goes over several lines: scripts are sent without their indentation."""
        for name, text in self.own.items():
            if name.endswith(".js"):
                self.assertEqual([line for line in text.split("\n") if line.count("`") % 2], [], name)

    def test_license(self) -> None:
        """The licence of uPlot is beside it; uPlot names its release."""
        self.assertIn("The MIT License", self.files["uplot.license.txt"])
        self.assertIn("(v1.6.32)", self.files["uplot.js"][:100])

    def test_noOtherOrigin(self) -> None:
        """No file names another host, except in comments and for the namespace of SVG."""
        for name, text in self.files.items():
            code = re.sub(r"/\*.*?\*/|^\s*//.*$", "", text, flags=re.DOTALL | re.MULTILINE)
            code = code.replace('xmlns="http://www.w3.org/2000/svg"', "")
            if not name.endswith(".txt"):
                self.assertEqual(_URL.findall(code), [], name)

    def test_noMarkup(self) -> None:
        """Our scripts never have text parsed as HTML or as code, and keep nothing in the browser."""
        refused: tuple[str, ...] = (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "eval(",
            "Function(",
        )
        refused += ("localStorage", "sessionStorage", "indexedDB", "document.cookie", "EventSource(", "setHTML")
        for name, text in self.own.items():
            self.assertEqual([word for word in refused if word in text], [], name)

    def test_token(self) -> None:
        """The token is in a private variable of one module, and goes into one header field only."""
        for name, text in self.own.items():
            if name != "access.js":
                self.assertNotIn("Bearer", text, name)
        uses = re.findall(r".*#token.*", self.files["access.js"])
        self.assertEqual(len(uses), 4, uses)

    def test_imports(self) -> None:
        """Each script is imported by another one, and none is missing."""
        scripts = {name for name in self.own if name.endswith(".js")}
        imported = {found for name in scripts for found in re.findall(r'from "\./(\w+\.js)"', self.own[name])}
        self.assertEqual(imported, scripts - {"page.js"})

    def test_sheet(self) -> None:
        """The sheet loads nothing, and knows dark screens, printers, and users that no motion shall disturb."""
        sheet = self.files["page.css"]
        for word in ("@import", "url(", "@font-face", "animation", "transition"):
            self.assertNotIn(word, sheet)
        for feature in ("prefers-color-scheme: dark", "prefers-reduced-motion", "print"):
            self.assertIn(feature, sheet)
        self.assertEqual(sheet.count("{"), sheet.count("}"))

    def test_contrast(self) -> None:
        """Texts have a contrast of 4.5:1 with each background on which they stand (WCAG 2.2, 1.4.3)."""
        sheet = self.files["page.css"]
        light, dark = sheet.split("@media (prefers-color-scheme: dark)", 1)
        for scheme in (light, dark.partition("*{")[0]):
            colours = dict(re.findall(r"--([\w-]+):(#[0-9a-f]{3,6})\b", scheme))
            pairs = [
                (text, back)
                for text in ("ink", "quiet", "link", "good", "bad", "between")
                for back in ("back", "panel", "soft")
            ]
            pairs += [("bad", "bad-back"), ("between", "between-back"), ("ink", "bad-back"), ("ink", "between-back")]
            pairs += [("ink", "bar"), ("panel", "link")]
            for text, back in pairs:
                self.assertGreater(_contrast(colours[text], colours[back]), 4.5, (text, back, colours))
            for number in range(7):
                self.assertGreater(_contrast(colours[f"series{number}"], colours["panel"]), 3, number)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * each for each in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)
