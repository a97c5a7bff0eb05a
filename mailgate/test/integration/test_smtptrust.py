# -*- test-case-name: mailgate.test.integration.test_smtptrust -*-
"""
Which rights a client has at a real Postfix after the hand-over. Postfix relays for the gateway's address, and trusts it
to name clients: no client may get any of that.
"""

from __future__ import annotations

import socket
from base64 import b64encode

from mailgate.test.integration.clients import PATIENCE
from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.site import GatewayTestCase

CLIENT = "127.0.0.9"
"""An address of the client that is not the gateway's, nor trusted by any backend."""

TRUSTED = "127.0.0.8"
"""An address of the client that one backend trusts to name others."""

ATTACK = b"XCLIENT ADDR=10.9.9.9 LOGIN=bob NAME=evil.example\r\n"
"""How a client names itself anew."""

LETTER = (b"MAIL FROM:<a@example.org>\r\n", b"RCPT TO:<victim@elsewhere.test>\r\n")
"""A letter that no stranger may send."""

TEMPORARY = {"none": b"451 4.3.0", "plain": b"454 4.7.0"}
"""How a temporary failure begins: of a recipient, of a login."""


class TrustTests(GatewayTestCase):
    """Servers before each kind of Postfix; names are of C{smtp_auth}, C{xclient} and the backend."""

    needs = ("postfix",)

    def configuration(self, site):
        """A server for each."""
        sections = [site.mail(f"auth_http = {site.auth.url}")]
        for auth in ("none", "plain"):
            for xclient in ("auto", "on", "off"):
                for backend in ("narrow", "untold", "forwarding"):
                    directives = f"smtp_auth = {auth}\nxclient = {xclient}\nauth_http_header = X-Backend {backend}"
                    sections.append(site.server("smtp", directives, name=f"{auth}-{xclient}-{backend}"))
            for xclient in ("auto", "off"):
                directives = f"smtp_auth = {auth}\nxclient = {xclient}\nproxy_protocol = on"
                directives += "\nauth_http_header = X-Backend proxied"
                sections.append(site.server("smtp", directives, name=f"{auth}-{xclient}-proxied"))
        directives = "smtp_auth = plain\nproxy_protocol = on\nauth_http_header = X-Backend narrow"
        sections.append(site.server("smtp", directives, name="plain-auto-unread"))
        return "".join(sections)

    def connect(self, name, source=CLIENT):
        """A client at C{source}, which has said EHLO."""
        address = self.at(name)
        connected = socket.create_connection(("127.0.0.1", address.port), PATIENCE, (source, 0))
        client = RawClient(address, connected)
        self.addCleanup(client.close)
        return client

    def ask(self, client, *lines):
        """What is said to the last of C{lines}."""
        for line in lines:
            client.send(line)
            said = client.reply()
        return said

    def enter(self, name, source=CLIENT):
        """A client, and what is said to its login, or to its first recipient, who is one of ours."""
        client = self.connect(name, source)
        if name.startswith("plain"):
            return client, client.login(self.user, PASSWORD)
        recipient = f"RCPT TO:<{self.user}@example.com>\r\n".encode()
        return client, self.ask(client, b"MAIL FROM:<a@example.org>\r\n", recipient)

    def entered(self, name, source=CLIENT):
        """A client that has the backend, outside of any transaction."""
        client, said = self.enter(name, source)
        self.assertIn(said[:3], (b"235", b"250"), name)
        self.assertEqual(self.ask(client, b"RSET\r\n")[:3], b"250")
        return client

    def assertRefused(self, name, *words):
        """Nobody is handed over, and one error says why and what to do."""
        before = len(self.log())
        _, said = self.enter(name)
        self.assertEqual(said[:9], TEMPORARY[name.partition("-")[0]])
        waitUntil(lambda: ": backend failed: " in self.log()[before:], "an error is logged")
        (line,) = (line for line in self.log()[before:].splitlines() if ": backend failed: " in line)
        for word in words:
            self.assertIn(word, line)

    def assertStranger(self, client):
        """To the backend the client is one that it knows nothing of, and stays it."""
        self.assertEqual(self.ask(client, ATTACK)[:9], b"550 5.7.0")
        self.assertEqual(self.ask(client, *LETTER)[:3], b"554")
        self.ask(client, b"RSET\r\n")

    def test_off(self):
        """With xclient off no client gets the connection to a Postfix that trusts the gateway to name others."""
        for auth in ("none", "plain"):
            settings = ("XCLIENT", "xclient = off", "smtpd_authorized_xclient_hosts")
            self.assertRefused(f"{auth}-off-narrow", *settings)
            self.assertRefused(f"{auth}-off-forwarding", "XFORWARD", "smtpd_authorized_xforward_hosts")

    def test_offUntold(self):
        """One that trusts nobody to do that is used, and takes clients for the gateway."""
        for auth in ("none", "plain"):
            client = self.entered(f"{auth}-off-untold")
            self.assertEqual(self.ask(client, ATTACK)[:9], b"550 5.7.0")
            self.assertEqual(self.ask(client, *LETTER)[:3], b"250")

    def test_namedAnew(self):
        """With XCLIENT sent the client cannot name itself anew, nor after its own STARTTLS; it may not relay."""
        for name in ("none-auto-narrow", "none-on-narrow", "plain-auto-narrow", "plain-on-narrow"):
            client = self.entered(name)
            self.assertStranger(client) if name.startswith("none") else self.assertEqual(
                self.ask(client, ATTACK)[:9], b"550 5.7.0"
            )
            self.assertNotIn(b"XCLIENT", self.offers(client))
        self.assertNotIn(": backend noted: ", self.log())

    def test_ownTLS(self):
        """Nor after TLS of its own with the backend, before which Postfix forgets what was said."""
        for name in ("none-auto-narrow", "plain-auto-narrow"):
            client = self.entered(name)
            if b"STARTTLS" in self.offers(client):
                client.startTLS()
                self.assertNotIn(b"XCLIENT", self.offers(client))
            self.assertEqual(self.ask(client, ATTACK)[:9], b"550 5.7.0")

    def offers(self, client):
        """What the backend's EHLO has."""
        client.send(b"EHLO client.example\r\n")
        said = b""
        while not said or said.splitlines()[-1][3:4] == b"-":
            said += client.line()
        return said

    def test_required(self):
        """Under smtp_auth none a Postfix that cannot be told who the client is is not used."""
        for xclient in ("auto", "on"):
            for backend in ("untold", "forwarding"):
                self.assertRefused(f"none-{xclient}-{backend}", "XCLIENT", "smtpd_authorized_xclient_hosts")

    def test_notRequired(self):
        """For a login it is, as long as it trusts nobody to name others."""
        self.entered("plain-auto-untold")
        self.assertRefused("plain-auto-forwarding", "XFORWARD", "smtpd_authorized_xforward_hosts")

    def test_trustedClient(self):
        """A client that Postfix itself trusts keeps its right; the log warns of it, once."""
        for _ in range(2):
            client = self.entered("none-auto-narrow", "127.0.0.1")
            self.assertEqual(self.ask(client, ATTACK)[:3], b"220")
        waitUntil(lambda: ": backend noted: " in self.log(), "a warning is logged")
        (line,) = (line for line in self.log().splitlines() if ": backend noted: " in line)
        self.assertIn("smtpd_authorized_xclient_hosts", line)

    def test_header(self):
        """Where a PROXY header names the client Postfix goes by that alone, and no XCLIENT is sent."""
        for xclient in ("auto", "off"):
            self.assertStranger(self.entered(f"none-{xclient}-proxied"))
        self.assertNotIn(": backend noted: ", self.log())
        client = self.entered("none-auto-proxied", TRUSTED)
        self.assertEqual(self.ask(client, *LETTER)[:3], b"554")
        self.ask(client, b"RSET\r\n")
        self.assertEqual(self.ask(client, ATTACK)[:3], b"220")
        waitUntil(lambda: ": backend noted: " in self.log(), "a warning is logged")

    def test_headerUnread(self):
        """One that takes the header for a command goes by the gateway's address: a client gets no connection to it."""
        address = self.at("plain-auto-unread")
        connected = socket.create_connection(("127.0.0.1", address.port), PATIENCE, (CLIENT, 0))
        self.addCleanup(connected.close)
        lines = connected.makefile("rwb", buffering=0)
        self.addCleanup(lines.close)
        self.assertEqual(lines.readline()[:3], b"220")
        lines.write(b"AUTH PLAIN " + b64encode(f"\0{self.user}\0{PASSWORD}".encode()) + b"\r\n")
        self.assertEqual(lines.readline()[:9], TEMPORARY["plain"])
