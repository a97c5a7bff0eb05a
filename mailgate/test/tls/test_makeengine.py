"""
Tests for L{mailgate.tls.makeengine}, L{mailgate.tls.engine} and L{mailgate.tls.fastengine}: one contract for both kinds
of engine, with pyOpenSSL or the standard library as the peer.
"""

from __future__ import annotations

from OpenSSL import SSL

from mailgate.test.support.enginecontract import Case, Contract
from mailgate.test.support.tlsengines import readAll
from mailgate.tls.engine import PublicEngine


class PublicEngineTests(Contract, Case):
    """L{PublicEngine}."""

    kind = staticmethod(PublicEngine)

    def test_nothingPilesUp(self):
        """A large piece passes through the memory BIOs, which never shrink, in small ones."""
        engine, peer = self.connected()
        engine.write(bytes(100_000))
        self.assertRaises(SSL.WantReadError, engine.connection.bio_read, 1)
        engine.feed(peer.sealed(bytes(100_000)))
        self.assertRaises(SSL.WantReadError, engine.connection.recv, 1)
        self.assertEqual(len(readAll(engine)), 100_000)
