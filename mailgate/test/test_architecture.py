"""
docs/architecture.rst shows the real packages.
"""

from __future__ import annotations

import ast

from twisted.trial.unittest import SynchronousTestCase

from mailgate.session import TRANSITIONS, Phase
from mailgate.test.support import picture
from mailgate.test.support.documents import MISSING, document
from mailgate.test.support.imports import trees


class PictureTests(SynchronousTestCase):
    """The picture of the packages."""

    skip = MISSING

    def test_current(self):
        """It is what the script draws now."""
        shown = document("docs", "architecture.rst")
        self.assertEqual(shown, picture.inserted(shown), "run: python -m mailgate.test.support.picture")

    def test_moves(self):
        """The picture of the phases has a line for each phase, and each move of the table."""
        lines = picture.moves().splitlines()[2:]
        self.assertEqual(len(lines), len(Phase))
        self.assertEqual(lines[0].split(), ["accept", "─►", "proxy-header,", "tls,", "greeting,", "command,", "end"])
        self.assertEqual(lines[-1].split(), ["end"])
        drawn = sum(len(line.split()) - 2 for line in lines if "─►" in line)
        self.assertEqual(drawn, sum(map(len, TRANSITIONS.values())))

    def test_named(self):
        """Each package has a line below the picture."""
        shown = document("docs", "architecture.rst")
        for package in picture.graph():
            self.assertRegex(shown, rf"(?m)^(``\w+``, )*``{package}``")


class ConstructorTests(SynchronousTestCase):
    """The arguments of constructors."""

    def test_few(self):
        """There are at most eight; values with only named fields may have more."""
        found = [
            f"{name}.{node.name}: {len(arguments)}"
            for name, tree in trees().items()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            for method in node.body
            if isinstance(method, ast.FunctionDef) and method.name == "__init__"
            if len(arguments := [*method.args.args, *method.args.kwonlyargs][1:]) > 8
        ]
        self.assertEqual(found, [])


class DrawingTests(SynchronousTestCase):
    """The script, with made-up imports."""

    def test_floors(self):
        """Each package is above all that it imports, as low as possible."""
        imports = {"top": {"left", "low"}, "left": {"low"}, "low": set(), "alone": set()}
        self.assertEqual(picture.floors(imports), [["alone", "low"], ["left"], ["top"]])
        self.assertEqual(picture.nearest(imports, "top"), ["left"])

    def test_circle(self):
        """A circle is an error that names its packages."""
        error = self.assertRaises(ValueError, picture.floors, {"a": {"b"}, "b": {"a"}, "c": set()})
        self.assertEqual(str(error), "a circle among a b")

    def test_marks(self):
        """A document without the marks is refused."""
        self.assertRaises(ValueError, picture.inserted, "no marks")
