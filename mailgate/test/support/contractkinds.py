"""
The two kinds of transport that the scenarios of L{transportcontract<mailgate.test.support.transportcontract>} test.
"""

from __future__ import annotations

import ssl
from typing import Any

from mailgate.lean.reactor import LeanReactor
from mailgate.test.support.transportbench import Bench
from mailgate.tls.backend import backendTLS
from mailgate.tls.backendsettings import loadTrust
from mailgate.tls.errors import CertificateError

__all__ = ["OverLean", "OverTwisted", "Verifying"]


class Verifying(Bench):
    """Scenarios of a TLS client."""

    async def test_wrongName(self) -> None:
        """The client closes the connection if the certificate is trusted but has another name."""
        near, plain = await self.open()
        creator = backendTLS("other.example.com", True, loadTrust(self.pair.certificate))  # type: ignore[attr-defined]
        near.transport.startTLS(creator)
        near.transport.write(b"secret")
        peer = self.overTLS(plain, True)  # type: ignore[attr-defined]
        with self.assertRaises((ssl.SSLError, ConnectionResetError)):
            await peer.shakeHands()
            await peer.rest()
        self.assertEqual(peer.received, b"")
        await self.assertLost(near, CertificateError)
        self.assertEqual(near.told, ["made", "lost"])


class OverTwisted(Bench):
    """Twisted's own transports."""

    repeatsEnd = True
    halfClosesTLS = False
    masksReasons = True
    keepsDecrypted = False

    def makeReactor(self) -> Any:
        return self.clock


class OverLean(Bench):
    """mailgate's transports."""

    repeatsEnd = False
    halfClosesTLS = True
    masksReasons = False
    keepsDecrypted = True

    def makeReactor(self) -> Any:
        return LeanReactor(self.clock)
