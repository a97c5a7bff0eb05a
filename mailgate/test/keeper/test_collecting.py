"""
Tests for L{mailgate.keeper.collecting}.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.collecting import collect


class CollectTests(SynchronousTestCase):
    """Processes that do not answer."""

    def collected(self, error: Exception) -> Any:
        """What is collected of one process that fails with C{error}."""
        return collect([(False, Failure(error))], [Mock(pid=7)], 10)

    def test_failed(self) -> None:
        """The answer says that a process is missing, and the log says why."""
        missing = ["process 7 could not be asked; the log has the reason"]
        self.assertEqual(list(self.collected(ValueError("odd")).missing), missing)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_cancelled(self) -> None:
        """If the client who has asked has left, there is nothing to log."""
        self.assertEqual(len(self.collected(CancelledError()).missing), 1)
        self.assertEqual(self.flushLoggedErrors(), [])
