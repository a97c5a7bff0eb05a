"""Tests for L{mailgate.tls.reachability}: settings with which no client can complete a handshake."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.tlspair import makePair, settingsFor
from mailgate.tls.context import checkTLS
from mailgate.tls.files import TLSError


def suites(name: str) -> tuple[tuple[str, str], ...]:
    """The command that leaves only this cipher suite of TLS 1.3."""
    return (("Ciphersuites", name),)


class ReachTests(SynchronousTestCase):
    """L{checkTLS} with settings that are valid each, but not together."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.pair = makePair(self.folder, "server")

    def assertUnreachable(self, option: str, reason: str, **changes: Any) -> None:
        error = self.assertRaises(TLSError, checkTLS, settingsFor(self.pair, **changes), "imap")
        self.assertEqual(error.option, option)
        self.assertEqual(str(error), f"no client can complete a TLS handshake: {reason}")

    def test_oldVersions(self) -> None:
        """Old versions alone require a lower security level, and the error says so."""
        hint = "no protocols available; TLSv1 needs @SECLEVEL=0 in ssl_ciphers"
        self.assertUnreachable("ssl_protocols", hint, protocols=("TLSv1", "SSLv3"))
        hint = "no protocols available; TLSv1 and TLSv1.1 need @SECLEVEL=0 in ssl_ciphers"
        self.assertUnreachable("ssl_protocols", hint, protocols=("TLSv1", "TLSv1.1"))
        for protocols in (("TLSv1",), ("TLSv1.1",), ("TLSv1", "TLSv1.1", "SSLv3")):
            checkTLS(settingsFor(self.pair, protocols=protocols, ciphers="ALL:@SECLEVEL=0"), "imap")

    def test_noVersion(self) -> None:
        """ssl_conf_command can disable the versions that ssl_protocols enables."""
        commands = (("MinProtocol", "tlsv1.3"),)
        reason = "no protocols available"
        self.assertUnreachable("ssl_protocols", reason, protocols=("TLSv1.2",), commands=commands)

    def test_ciphers(self) -> None:
        """Ciphers must fit the key. Those of TLS 1.3 fit every key."""
        foreign = "ECDHE-RSA-AES128-GCM-SHA256"
        self.assertUnreachable("ssl_ciphers", "no shared cipher", protocols=("TLSv1.2",), ciphers=foreign)
        checkTLS(settingsFor(self.pair, ciphers=foreign), "imap")
        rsa = makePair(self.folder, "rsa", kind="rsa")
        checkTLS(settingsFor(rsa, protocols=("TLSv1.2",), ciphers=foreign), "imap")

    def test_rare(self) -> None:
        """A server with rare settings can be reached by the client that supports everything."""
        changes: dict[str, Any]
        for changes in (
            {"protocols": ("TLSv1.2",), "ciphers": "ECDHE-ECDSA-AES256-CCM"},
            {"protocols": ("TLSv1.3",), "commands": suites("TLS_AES_128_CCM_SHA256")},
            {"curve": "secp521r1"},
            {"verifyClient": "on", "clientCertificate": self.pair.certificate},
            {"sessionTickets": False},
        ):
            checkTLS(settingsFor(self.pair, **changes), "imap")

    def test_oneVersion(self) -> None:
        """If the highest version fails, another one is enough."""
        checkTLS(settingsFor(self.pair, commands=suites("TLS_AES_128_CCM_8_SHA256")), "imap")
