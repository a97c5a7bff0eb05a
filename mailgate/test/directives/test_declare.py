"""
Tests for L{mailgate.directives.declare}.
"""

from __future__ import annotations

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import (
    directive,
    directives,
    seconds,
    text,
)

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
        """A settings class tells its directives, with the attribute each belongs to; other attributes are none."""
        patience, key = directives(Sample)
        self.assertEqual((patience.name, patience.field, patience.group), ("patience", "patience", Sample))
        self.assertEqual(patience.parse("1m", FOLDER), 60.0)
        self.assertEqual((key.name, key.secret), ("key", True))

    def test_only(self):
        """A directive stands wherever its class is registered unless it says otherwise."""
        patience, key = directives(Sample)
        self.assertEqual((patience.only, key.only), ("", "mailgate"))

    def test_reloadable(self):
        """A reload changes it unless it says otherwise."""
        patience, key = directives(Sample)
        self.assertEqual((patience.reloadable, key.reloadable), (True, False))

    def test_defaults(self):
        """The class itself needs no arguments."""
        self.assertEqual(Sample().patience, 60.0)

    def test_secret(self):
        """The value of a secret directive is not in the repr, the others are."""
        shown = repr(Sample(patience=7.0, key="sesame"))
        self.assertNotIn("sesame", shown)
        self.assertIn("7.0", shown)
