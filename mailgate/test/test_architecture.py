"""
docs/architecture.rst shows the packages as they are.
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
        """It is the one that the script draws today."""
        shown = document("docs", "architecture.rst")
        self.assertEqual(shown, picture.inserted(shown), "run: python -m mailgate.test.support.picture")

    def test_moves(self):
        """The picture of the phases has a line for each, and every move of the table."""
        lines = picture.moves().splitlines()[2:]
        self.assertEqual(len(lines), len(Phase))
        self.assertEqual(lines[0].split(), ["accept", "─►", "proxy-header,", "tls,", "greeting"])
        self.assertEqual(lines[-1].split(), ["end"])
        drawn = sum(len(line.split()) - 2 for line in lines if "─►" in line)
        self.assertEqual(drawn, sum(map(len, TRANSITIONS.values())))

    def test_named(self):
        """Each package has its line below it."""
        shown = document("docs", "architecture.rst")
        for package in picture.graph():
            self.assertRegex(shown, rf"(?m)^(``\w+``, )*``{package}``")


class ConstructorTests(SynchronousTestCase):
    """What constructors take."""

    def test_few(self):
        """No more than eight arguments; values that are only read by name may have more fields."""
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
    """The script, with imports that are none of mailgate's."""

    def test_floors(self):
        """Each stands above all that it imports, as low as it can."""
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
