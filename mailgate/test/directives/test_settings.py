"""
Tests for L{mailgate.directives.settings}.
"""

from __future__ import annotations

from typing import Any

from attrs import exceptions, frozen
from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import ListenAddress, ServerSettings, directive, seconds, text


@frozen
class Sample:
    """A settings class."""

    patience: float = directive("patience", seconds, 60.0)
    key: str = directive("key", text, "", secret=True)
    other: int = 3


class ServerSettingsTests(SynchronousTestCase):
    """Tests for L{ServerSettings}."""

    def server(self, *addresses: ListenAddress, **groups: Any) -> ServerSettings:
        return ServerSettings(
            "imap", "imap", addresses, {type(group): group for group in groups.values()}, file="a.ini"
        )

    def test_groups(self):
        """Settings are found by their class."""
        sample = Sample(patience=1.0)
        self.assertIs(self.server(sample=sample)[Sample], sample)

    def test_defaults(self):
        """A class whose options are not set returns its defaults."""
        self.assertEqual(self.server()[Sample], Sample())

    def test_speaksTLS(self):
        """One address with TLS from the first byte is enough."""
        plain, ssl = ListenAddress("::1", 1), ListenAddress("::1", 2, ssl=True)
        self.assertTrue(self.server(plain, ssl).speaksTLS)
        self.assertFalse(self.server(plain).speaksTLS)
        self.assertFalse(self.server().speaksTLS)

    def test_problem(self):
        """It knows the place of its problems."""
        self.assertEqual(str(self.server().problem("x", "is odd", "1")), "a.ini: [server imap] x = 1: is odd")

    def test_repr(self):
        """The settings, which may contain secrets, are not in the repr."""
        self.assertNotIn("patience", repr(self.server(sample=Sample())))

    def test_frozen(self):
        """Settings cannot be changed."""
        for name in ("name", "listen", "groups"):
            with self.assertRaises(exceptions.FrozenInstanceError):
                setattr(self.server(), name, None)
