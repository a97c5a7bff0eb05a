"""
Tests for L{mailgate.directives.declare}.
"""

from __future__ import annotations

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import directive, directives, seconds, text

FOLDER = "/etc/mailgate"


@frozen
class Sample:
    """A settings class."""

    patience: float = directive("patience", seconds, 60.0)
    key: str = directive("key", text, "", only="mailgate", secret=True, reloadable=False)
    other: int = 3


class DirectiveTests(SynchronousTestCase):
    """Tests for L{directive} and L{directives}."""

    def test_declared(self):
        """A settings class lists its directives, with the attribute of each; other attributes are not directives."""
        patience, key = directives(Sample)
        self.assertEqual((patience.name, patience.field, patience.group), ("patience", "patience", Sample))
        self.assertEqual(patience.parse("1m", FOLDER), 60.0)
        self.assertEqual((key.name, key.secret), ("key", True))

    def test_only(self):
        """All sections that the class is registered for accept a directive, unless it says otherwise."""
        patience, key = directives(Sample)
        self.assertEqual((patience.only, key.only), ("", "mailgate"))

    def test_reloadable(self):
        """A reload changes it, unless it says otherwise."""
        patience, key = directives(Sample)
        self.assertEqual((patience.reloadable, key.reloadable), (True, False))

    def test_defaults(self):
        """The class needs no arguments."""
        self.assertEqual(Sample().patience, 60.0)

    def test_secret(self):
        """The repr does not contain the value of a secret directive; it contains the others."""
        shown = repr(Sample(patience=7.0, key="sesame"))
        self.assertNotIn("sesame", shown)
        self.assertIn("7.0", shown)
