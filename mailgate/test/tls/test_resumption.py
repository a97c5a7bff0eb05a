"""
Tests for L{mailgate.tls.resumption}.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.tlspair import clientContext, connect, makePair, settingsFor
from mailgate.tls.resumption import wasResumed
from mailgate.tls.server import ServerTLS


class ResumptionTests(SynchronousTestCase):
    """Handshakes in memory."""

    def test_resumed(self) -> None:
        """A full handshake differs from one that resumes a session, in each version of TLS."""
        folder = self.mktemp()
        os.mkdir(folder)
        for version in ("TLSv1_2", "TLSv1_3"):
            server = ServerTLS(settingsFor(makePair(folder, "x")), "imap")
            context = clientContext(version)
            peer, connection = connect(server, context)
            self.assertIs(wasResumed(connection), False)
            _, again = connect(server, context, peer.tls.session)
            self.assertIs(wasResumed(again), True)

    def test_unknown(self) -> None:
        """Where that cannot be found out, it is not known."""
        self.assertIsNone(wasResumed(object()))
        self.assertIsNone(wasResumed(None))
