"""
The metrics, read by Prometheus' own checker.
"""

from __future__ import annotations

import subprocess

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.exposition import Exposition
from mailgate.test.integration.programs import programPath, require
from mailgate.test.keeper.test_exposition import everything


class PromtoolTests(SynchronousTestCase):
    """C{promtool check metrics}."""

    def setUp(self) -> None:
        require("promtool")

    def test_check(self) -> None:
        """It finds nothing: names, units, types and help are as Prometheus expects."""
        text, _ = Exposition().write(everything())
        path = programPath("promtool")
        assert path is not None
        done = subprocess.run([path, "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
        self.assertEqual((done.stdout, done.stderr, done.returncode), (b"", b"", 0))
