"""
Tests for L{mailgate.process.keeper.front}: where the admin server may serve.
"""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from mailgate.process.keeper.front import isSafe
from mailgate.test.support.adminsite import adminSettings
from mailgate.watch.settings import AdminAddress


class SafetyTests(SynchronousTestCase):
    """L{isSafe}: a reload changes the configuration, and not the socket."""

    def at(self, address: str) -> socket.socket:
        """A socket at this address."""
        listening = socket.socket()
        self.addCleanup(listening.close)
        listening.bind((address, 0))
        return listening

    def test_withoutTLS(self) -> None:
        """Without TLS the admin server serves at an address of this host alone."""
        self.assertTrue(isSafe(self.at("127.0.0.1"), adminSettings()))
        self.assertFalse(isSafe(self.at("0.0.0.0"), adminSettings()))

    def test_withTLS(self) -> None:
        """With TLS it serves at all."""
        self.assertTrue(isSafe(self.at("0.0.0.0"), adminSettings(admin=AdminAddress(None, "0.0.0.0", 9143, True))))
