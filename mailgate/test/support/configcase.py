"""
Configurations for tests, and the faults in them.
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
    """Ways to look at what a configuration makes."""

    def server(self, text: str) -> ServerSettings:
        """The only server of C{text}."""
        (server,) = parse(text).servers
        return server

    def faults(self, text: str, filename: str = "gateway.ini") -> list[str]:
        """The lines that are said of C{text}."""
        error = self.assertRaises(ConfigurationError, parse, text, filename)
        lines = str(error).split("\n")
        self.assertEqual(len(lines), len(error.problems))
        return lines

    def assertFaults(self, text: str, *expected: str) -> None:
        """Exactly C{expected} is said of C{text}; each begins with the number of its line."""
        self.assertEqual(self.faults(text), [f"gateway.ini:{fault}" for fault in expected])
