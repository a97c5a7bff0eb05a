# -*- test-case-name: mailgate.test.integration.test_goodbyes -*-
"""
How real clients handle a refused login, with and without the end of the connection, and the backend's own words: with
real sockets, and with TLS.
"""

from __future__ import annotations

import imaplib
import poplib
import smtplib

from mailgate.test.integration.authservice import Answer, refuse
from mailgate.test.integration.clients import imap, pop3, smtp
from mailgate.test.integration.daemon import shared
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.scripted import ScriptedBackend
from mailgate.test.integration.site import PROTOCOLS, TLS, GatewayTestCase
from mailgate.test.integration.together import together

testSuite = together(__name__)

HINT = "Application-specific password required: https://support.example.com/app"
WRONG = "looking-glass"


class _ScriptedBackends:
    """A scripted backend for each protocol."""

    def __init__(self) -> None:
        self.of = {protocol: ScriptedBackend(protocol) for protocol in PROTOCOLS}

    def stop(self) -> None:
        """Stop them."""
        for backend in self.of.values():
            backend.stop()


class GoodbyeTests(GatewayTestCase):
    """A gateway in front of a service, and of backends with their own replies."""

    def scripted(self, protocol):
        """The backend for C{protocol} with scripted replies."""
        return shared("scripted backends", _ScriptedBackends).of[protocol]

    def configuration(self, site):
        """For each protocol a server with a service, and one with proxy_pass only."""
        servers = ""
        for protocol in PROTOCOLS:
            servers += site.server(protocol, f"auth_http = {site.auth.url}")
            servers += site.server(
                protocol, f"proxy_pass = 127.0.0.1:{self.scripted(protocol).port}", f"own-{protocol}"
            )
        return site.mail() + servers + site.server("smtp", f"smtp_auth = none\nauth_http = {site.auth.url}", "none")

    def script(self, protocol, **replies):
        """Set the replies of the backend."""
        self.scripted(protocol).script(replies)

    def treat(self, manner):
        """Set the manner of the authentication service for the user in this test."""
        self.site.auth.manners[self.user] = manner
        self.addCleanup(self.site.auth.manners.pop, self.user, None)

    def test_smtplib(self):
        """smtplib reports a wrong password, whether the refusal ends the connection or not."""
        with smtp(self.at("smtp")) as client:
            self.assertRaises(smtplib.SMTPAuthenticationError, client.login, self.user, WRONG)
            self.assertEqual(client.noop()[0], 250)
        self.treat(refuse)
        for tls in TLS:
            with smtp(self.at("smtp", tls)) as client:
                self.assertRaises(smtplib.SMTPAuthenticationError, client.login, self.user, WRONG)

    def test_imaplib(self):
        """So does imaplib, with the reason."""
        self.treat(refuse)
        for tls in TLS:
            with imap(self.at("imap", tls)) as client:
                error = self.assertRaises(imaplib.IMAP4.error, client.login, self.user, WRONG)
                self.assertNotIsInstance(error, imaplib.IMAP4.abort)
                self.assertIn(b"Invalid login or password", error.args[0])

    def test_poplib(self):
        """So does poplib."""
        self.treat(refuse)
        with pop3(self.at("pop3")) as client:
            client.user(self.user)
            error = self.assertRaises(poplib.error_proto, client.pass_, WRONG)
            self.assertIn(b"Invalid login or password", error.args[0])

    def test_backend(self):
        """With proxy_pass only, the reply has the backend's code and words, and the connection stays."""
        self.script("imap", LOGIN=f"TAG NO [ALERT] {HINT}")
        self.script("pop3", PASS="-ERR [SYS/PERM] mailbox broken")
        self.script("smtp", AUTH=f"534-5.7.9 {HINT}\n534 5.7.9 https://support.example.com")
        with imap(self.at("own-imap")) as client:
            error = self.assertRaises(imaplib.IMAP4.error, client.login, self.user, WRONG)
            self.assertIn(f"[ALERT] {HINT}".encode(), error.args[0])
            self.assertEqual(client.noop()[0], "OK")
        with pop3(self.at("own-pop3")) as client:
            client.user(self.user)
            error = self.assertRaises(poplib.error_proto, client.pass_, WRONG)
            self.assertIn(b"[SYS/PERM] mailbox broken", error.args[0])
            client.noop()
        with smtp(self.at("own-smtp")) as client:
            error = self.assertRaises(smtplib.SMTPAuthenticationError, client.login, self.user, WRONG)
            self.assertEqual((error.smtp_code, error.smtp_error), (534, b"5.7.9 https://support.example.com"))
            self.assertEqual(client.noop()[0], 250)
        self.assertIn(f'text "NO [ALERT] {HINT}"', self.log())
        self.assertNotIn(WRONG, self.log())

    def test_sender(self):
        """A sender that the backend refuses is refused permanently, and another one can be tried."""
        self.site.auth.manners[""] = lambda service, question: Answer(
            {"Auth-Status": "OK", "Auth-Server": "127.0.0.1", "Auth-Port": str(self.scripted("smtp").port)}
        )
        self.addCleanup(self.site.auth.manners.pop, "")
        self.script("smtp", MAIL="552-5.3.4 Message too large\n552 5.3.4 fixed limit")
        client = RawClient(self.at("none"))
        self.addCleanup(client.close)
        client.send(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\n")
        self.assertEqual(
            [client.line() for _ in range(3)][1:], [b"552-5.3.4 Message too large\r\n", b"552 5.3.4 fixed limit\r\n"]
        )
        self.script("smtp")
        client.send(b"RSET\r\nMAIL FROM:<c@example.com>\r\nRCPT TO:<b@example.com>\r\n")
        self.assertEqual([client.reply()[:3] for _ in range(3)], [b"250"] * 3)
