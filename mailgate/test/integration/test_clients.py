# -*- test-case-name: mailgate.test.integration.test_clients -*-
"""
Each real client with each kind of TLS: first directly with Dovecot and Postfix, to see the expected result, and then
through the gateway.
"""

from __future__ import annotations

import os
import ssl
from itertools import product

from attrs import evolve

from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.clients import arrived, curl, imap, mbsync, message, pop3, send, smtp, swaks
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.site import BackendTestCase, GatewayTestCase


class Conversations:
    """Everyday use of clients. C{tls} is the kind of TLS."""

    tls = "plain"
    needs: tuple[str, ...] = ("curl", "swaks", "mbsync")

    def expectSuccess(self, ran):
        """A program ends with status 0; if not, its output is shown."""
        self.assertEqual(ran.returncode, 0, ran.stdout.decode(errors="backslashreplace"))

    def test_imaplib(self):
        """imaplib stores a message, and reads it again."""
        with imap(self.at("imap", self.tls), self.user) as client:
            self.assertEqual(client.append("INBOX", "", "", message("stored"))[0], "OK")
            client.select()
            self.assertEqual(client.fetch("1", "BODY[]")[1][0][1], message("stored"))

    def test_imaplibAuthenticate(self):
        """imaplib logs in by AUTHENTICATE PLAIN, without an initial response, as well."""
        with imap(self.at("imap", self.tls)) as client:
            client.authenticate("PLAIN", lambda challenge: f"\0{self.user}\0{PASSWORD}".encode())
            self.assertEqual(client.select()[0], "OK")

    def test_poplib(self):
        """poplib lists, fetches and deletes a message."""
        self.deposit(message("fetched"))
        with pop3(self.at("pop3", self.tls), self.user) as client:
            self.assertEqual(client.stat()[0], 1)
            self.assertEqual(b"\r\n".join(client.retr(1)[1]) + b"\r\n", message("fetched"))
            client.dele(1)
        with pop3(self.at("pop3", self.tls), self.user) as client:
            self.assertEqual(client.stat(), (0, 0))

    def test_smtplib(self):
        """Mail from smtplib arrives, and IMAP and POP3 read it."""
        send(self.at("smtp", self.tls), self.user, "by smtplib", "One side makes you taller.\r\n")
        received = arrived(self.at("imap", self.tls), self.user, "by smtplib")
        self.assertTrue(received.endswith(b"\r\n\r\nOne side makes you taller.\r\n"), received)
        with pop3(self.at("pop3", self.tls), self.user) as client:
            self.assertEqual(b"\r\n".join(client.retr(1)[1]) + b"\r\n", received)

    def test_curlIMAP(self):
        """curl fetches a message by IMAP."""
        self.deposit(message("fetched"))
        ran = curl(self.at("imap", self.tls), "INBOX;MAILINDEX=1", login=f"{self.user}:{PASSWORD}")
        self.expectSuccess(ran)
        self.assertEqual(ran.stdout, message("fetched"))

    def test_curlMechanisms(self):
        """curl logs in by IMAP's AUTHENTICATE and POP3's AUTH, with PLAIN and with LOGIN."""
        self.deposit(message("fetched"))
        paths = {"imap": "INBOX;MAILINDEX=1", "pop3": "1"}
        for protocol, way in product(paths, ("PLAIN", "LOGIN")):
            options = ("--login-options", f"AUTH={way}")
            ran = curl(self.at(protocol, self.tls), paths[protocol], *options, login=f"{self.user}:{PASSWORD}")
            self.expectSuccess(ran)
            self.assertEqual(ran.stdout, message("fetched"), (protocol, way))

    def test_curlPOP3(self):
        """curl fetches a message by POP3."""
        self.deposit(message("fetched"))
        ran = curl(self.at("pop3", self.tls), "1", login=f"{self.user}:{PASSWORD}")
        self.expectSuccess(ran)
        self.assertEqual(ran.stdout, message("fetched"))

    def test_curlSMTP(self):
        """Mail from curl arrives."""
        ran = curl(
            self.at("smtp", self.tls),
            "curl.example",
            *("--mail-from", "sender@example.com", "--mail-rcpt", f"{self.user}@example.com", "--upload-file", "-"),
            login=f"{self.user}:{PASSWORD}",
            given=message("by curl"),
        )
        self.expectSuccess(ran)
        self.assertIn(b"Down the rabbit-hole.", arrived(self.at("imap", self.tls), self.user, "by curl"))

    def test_curlWrongPassword(self):
        """curl reports a wrong password with status 67, for all protocols."""
        for protocol in self.backends.protocols:
            ran = curl(self.at(protocol, self.tls), "", login=f"{self.user}:looking-glass")
            self.assertEqual(ran.returncode, 67, (protocol, ran.stdout))

    def test_swaks(self):
        """Mail from swaks arrives, with AUTH PLAIN and with AUTH LOGIN."""
        for mechanism in ("PLAIN", "LOGIN"):
            subject = f"by swaks {mechanism}"
            ran = swaks(
                self.at("smtp", self.tls),
                f"{self.user}@example.com",
                subject,
                *("--auth", mechanism, "--auth-user", self.user, "--auth-password", PASSWORD),
            )
            self.expectSuccess(ran)
            arrived(self.at("imap", self.tls), self.user, subject)

    def test_mbsyncPulls(self):
        """mbsync copies a mailbox to a maildir."""
        for number in range(5):
            self.deposit(message(f"message {number}"))
        folder = self.mktemp()
        os.makedirs(folder)
        ran = mbsync(self.at("imap", self.tls), self.user, os.path.abspath(folder))
        self.expectSuccess(ran)
        self.assertEqual(len(os.listdir(os.path.join(folder, "INBOX", "new"))), 5)

    def test_mbsyncPushes(self):
        """mbsync copies a maildir to a mailbox."""
        folder = os.path.abspath(self.mktemp())
        for part in ("cur", "new", "tmp"):
            os.makedirs(os.path.join(folder, "INBOX", part))
        with open(os.path.join(folder, "INBOX", "new", "1.1.here"), "wb") as file:
            file.write(message("pushed").replace(b"\r\n", b"\n"))
        self.expectSuccess(mbsync(self.at("imap", self.tls), self.user, folder))
        self.assertIn(b"Down the rabbit-hole.", arrived(self.at("imap", self.tls), self.user, "pushed"))

    def test_quitSMTP(self):
        """A client of SMTP too."""
        with smtp(self.at("smtp", self.tls)) as client:
            self.assertEqual(client.quit()[0], 221)

    def test_quit(self):
        """A client of IMAP or POP3 that leaves without logging in gets a reply."""
        with imap(self.at("imap", self.tls)) as client:
            self.assertEqual(client.logout()[0], "BYE")
        with pop3(self.at("pop3", self.tls)) as client:
            self.assertEqual(client._shortcmd("QUIT")[:3], b"+OK")


class DirectPlainTests(Conversations, BackendTestCase):
    """Without a gateway, without TLS."""


class DirectStartTLSTests(Conversations, BackendTestCase):
    """Without a gateway, with STARTTLS."""

    tls = "starttls"


class DirectImplicitTLSTests(Conversations, BackendTestCase):
    """Without a gateway, TLS from the first byte."""

    tls = "implicit"


class PlainTests(Conversations, GatewayTestCase):
    """With the gateway, without TLS."""


class StartTLSTests(Conversations, GatewayTestCase):
    """With the gateway, with STARTTLS."""

    tls = "starttls"


class ImplicitTLSTests(Conversations, GatewayTestCase):
    """With the gateway, TLS from the first byte."""

    tls = "implicit"


class VerificationTests(GatewayTestCase):
    """The clients of these tests verify certificates."""

    needs = ("curl", "swaks", "mbsync")

    def setUp(self):
        super().setUp()
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.stranger = Authority(self.folder, "stranger").path

    def wary(self, protocol, tls):
        """The gateway's address, for a client that trusts another authority."""
        return evolve(self.at(protocol, tls), authority=self.stranger)

    def test_strangersNotTrusted(self):
        """No client talks to a gateway whose certificate is of an unknown authority."""
        for tls in ("starttls", "implicit"):
            for protocol in ("imap", "pop3"):
                self.assertEqual(curl(self.wary(protocol, tls), "", login=f"{self.user}:{PASSWORD}").returncode, 60)
            for client in (imap, pop3):
                with self.assertRaises(ssl.SSLCertVerificationError), client(self.wary(client.__name__, tls)):
                    """This is not reached."""
            self.assertNotEqual(mbsync(self.wary("imap", tls), self.user, self.folder).returncode, 0)
        self.assertEqual(self.site.auth.askedAbout(self.user), [])

    def test_strangersNotTrustedBySMTP(self):
        """Nor do clients that send mail."""
        for tls in ("starttls", "implicit"):
            self.assertEqual(curl(self.wary("smtp", tls), "", login=f"{self.user}:{PASSWORD}").returncode, 60)
            with self.assertRaises(ssl.SSLCertVerificationError), smtp(self.wary("smtp", tls)):
                """This is not reached."""
            ran = swaks(self.wary("smtp", tls), f"{self.user}@example.com", "never", "--auth-user", self.user)
            self.assertNotEqual(ran.returncode, 0, ran.stdout)
        self.assertEqual(self.site.auth.askedAbout(self.user), [])
