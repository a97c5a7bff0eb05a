"""
Tests of the section of the sandbox, and of the sample that has it.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SkipTest

from mailgate.config import load, parse
from mailgate.sandbox.settings import SandboxSettings
from mailgate.test.support.configcase import IMAP, MAIL, ROOT, ConfigCase
from mailgate.tls.settings import TLSSettings


class SandboxTests(ConfigCase):
    """Servers before a sandbox."""

    text = "[sandbox]\n" + MAIL + IMAP + "starttls = on\n"

    def setUp(self):
        self.state = os.path.abspath(self.mktemp())
        self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": self.state})

    def test_nothingWritten(self):
        """With [sandbox], a server without a certificate is valid; the certificate is made at the start only."""
        (server,) = parse(self.text).servers
        self.assertEqual(server[TLSSettings].certificates, ())
        self.assertEqual(server.supplied, {"ssl_certificate"})
        self.assertFalse(os.path.exists(self.state))

    def test_otherFaults(self):
        """Other mistakes in its TLS settings are reported."""
        for line, told in (
            ("ssl_protocols = SSLv3", "has no version that OpenSSL supports; set TLSv1.2 TLSv1.3"),
            ("ssl_verify_client = on", "in ssl_client_certificate or ssl_trusted_certificate"),
            ("ssl_dhparam = /nowhere/dh.pem", "cannot be read"),
        ):
            self.assertIn(told, self.faults(f"{self.text}{line}\n")[0])

    def test_faultsBesideTheCertificate(self):
        """So are mistakes that depend on a certificate, once for all servers; no certificate is written."""
        for line, told in (
            ("ssl_ciphers = 5k", "[mail] ssl_ciphers = 5k: no cipher match"),
            ("ssl_ecdh_curve = nosuch", "ssl_ecdh_curve = nosuch"),
            ("ssl_ciphers = aRSA\nssl_protocols = TLSv1.2", "no client can complete a TLS handshake"),
        ):
            second = IMAP.replace("imap]", "other]").replace("143", "1143")
            text = f"[sandbox]\n{MAIL}{line}\nstarttls = on\n{IMAP}{second}protocol = imap\n"
            (fault,) = self.faults(text)
            self.assertIn(told, fault)
        self.assertFalse(os.path.exists(self.state))

    def test_withoutSandbox(self):
        """Without [sandbox] no server gets that certificate, which clients do not trust."""
        self.assertIn("ssl_certificate: is missing", self.faults(self.text.replace("[sandbox]\n", ""))[0])

    def test_settings(self):
        """The settings of [sandbox] exist only if the section does."""
        settings = parse("[sandbox]\ndomain = example.org\n" + MAIL + IMAP)
        self.assertEqual(settings[SandboxSettings].domain, "example.org")
        self.assertIsNone(parse(MAIL + IMAP).find(SandboxSettings))

    def test_ownAuthHttp(self):
        """C{auth_http} in [sandbox] is an address of a listener, not the URL of a service."""
        self.assertIn(
            "[sandbox] auth_http = http://x/: must be a loopback address",
            self.faults("[sandbox]\nauth_http = http://x/\n" + MAIL + IMAP)[0],
        )

    def test_demo(self):
        """etc/demo.ini is a valid configuration."""
        path = os.path.join(ROOT, "etc", "demo.ini")
        if not os.path.exists(path):
            raise SkipTest("etc/demo.ini is not installed")
        settings = load(path)
        self.assertEqual(
            sorted(
                (server.protocol, address.port, address.ssl) for server in settings.servers for address in server.listen
            ),
            [
                ("imap", 1143, False),
                ("imap", 1993, True),
                ("pop3", 1110, False),
                ("pop3", 1995, True),
                ("sieve", 5190, False),
                ("smtp", 1465, True),
                ("smtp", 1587, False),
            ],
        )
        self.assertEqual([user.name for user in settings[SandboxSettings].users], ["alice", "bob"])


class GatewayIniTests(ConfigCase):
    """etc/gateway.ini, which documents everything."""

    def test_loads(self):
        """It is a valid configuration."""
        path = os.path.join(ROOT, "etc", "gateway.ini")
        if not os.path.exists(path):
            raise SkipTest("etc/gateway.ini is not installed")
        self.assertEqual({server.protocol for server in load(path).servers}, {"imap", "pop3", "smtp", "sieve"})
