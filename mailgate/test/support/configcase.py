"""
Configurations for tests, and their errors.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

import mailgate
from mailgate.config import parse
from mailgate.directives import ConfigurationError, ServerSettings
from mailgate.registry import PROTOCOLS

__all__ = ["AUTH", "IMAP", "KNOWN", "MAIL", "ROOT", "ConfigCase"]

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__)))
AUTH = "auth_http = http://127.0.0.1:9000/auth\n"
MAIL = f"[mail]\n{AUTH}"
IMAP = "[server imap]\nlisten = 127.0.0.1:143\n"
KNOWN = ", ".join(PROTOCOLS)


class ConfigCase(SynchronousTestCase):
    """Methods to examine the result of a configuration."""

    def server(self, text: str) -> ServerSettings:
        """Return the only server of C{text}."""
        (server,) = parse(text).servers
        return server

    def faults(self, text: str, filename: str = "gateway.ini") -> list[str]:
        """Return the lines of the error for C{text}."""
        error = self.assertRaises(ConfigurationError, parse, text, filename)
        lines = str(error).split("\n")
        self.assertEqual(len(lines), len(error.problems))
        return lines

    def assertFaults(self, text: str, *expected: str) -> None:
        """Check that the errors for C{text} are exactly C{expected}; each begins with its line number."""
        self.assertEqual(self.faults(text), [f"gateway.ini:{fault}" for fault in expected])
