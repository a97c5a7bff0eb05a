"""Tests for L{mailgate.scram.settings}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.scram.settings import ScramKey, ScramSettings

INI = "[mail]\nauth_http = http://127.0.0.1:9000/\n%s\n[server imap]\nlisten = 143\n"


class ScramSettingsTests(SynchronousTestCase):
    """Tests for L{ScramSettings}."""

    def read(self, lines: str) -> ScramSettings:
        settings: ScramSettings = parse(INI % lines).servers[0][ScramSettings]
        return settings

    def test_read(self) -> None:
        """The directives are read, and the secret is not in the representation."""
        found = self.read("scram_secret = a secret of some length\nscram_iterations = 10000")
        self.assertEqual((found.secret, found.iterations), ("a secret of some length", 10000))
        self.assertNotIn("some length", repr(found))

    def test_limits(self) -> None:
        """A short secret could be guessed; few iterations are weak, and many are expensive."""
        for line in ("scram_secret = too short", "scram_iterations = 4095", "scram_iterations = 100001"):
            error = self.assertRaises(ConfigurationError, self.read, line)
            self.assertIn(line.partition(" ")[0], str(error))
            self.assertNotIn("too short", str(error))

    def test_key(self) -> None:
        """The key is that of the run, unless the operator has set one."""
        usual, own = ScramSettings(), ScramSettings("a secret of some length")
        self.assertEqual(usual.keyOf(b"run"), usual.keyOf(b"run"))
        self.assertNotEqual(usual.keyOf(b"run"), usual.keyOf(b"another run"))
        self.assertEqual(own.keyOf(b"run"), own.keyOf(b"another run"))
        self.assertEqual(repr(own.keyOf(b"")), repr(ScramKey()))
