# -*- test-case-name: mailgate.test.integration.test_smtptrust -*-
"""
The rights of a client at a real Postfix after the login. Postfix relays for the gateway's address, and trusts it to use
XCLIENT: no client may get these rights.
"""

from __future__ import annotations

import socket
from base64 import b64encode

from mailgate.test.integration.clients import PATIENCE
from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.site import GatewayTestCase
from mailgate.test.integration.together import together

testSuite = together(__name__)

CLIENT = "127.0.0.9"
"""A client's address that is not the gateway's, and that no backend trusts."""

TRUSTED = "127.0.0.8"
"""A client's address that one backend trusts to use XCLIENT."""

ATTACK = b"XCLIENT ADDR=10.9.9.9 LOGIN=bob NAME=evil.example\r\n"
"""The XCLIENT of a client."""

LETTER = (b"MAIL FROM:<a@example.org>\r\n", b"RCPT TO:<victim@elsewhere.test>\r\n")
"""A letter that strangers may not send."""

TEMPORARY = {"none": b"451 4.3.0", "plain": b"454 4.7.0"}
"""The beginning of a temporary failure: of a recipient, of a login."""


class TrustTests(GatewayTestCase):
    """Servers in front of each kind of Postfix; names are those of C{smtp_auth}, C{xclient} and the backend."""

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
        """A client at C{source} that has sent EHLO."""
        address = self.at(name)
        connected = socket.create_connection(("127.0.0.1", address.port), PATIENCE, (source, 0))
        client = RawClient(address, connected)
        self.addCleanup(client.close)
        return client

    def ask(self, client, *lines):
        """The reply to the last of C{lines}."""
        for line in lines:
            client.send(line)
            said = client.reply()
        return said

    def enter(self, name, source=CLIENT):
        """A client, and the reply to its login, or to its first recipient, who exists."""
        client = self.connect(name, source)
        if name.startswith("plain"):
            return client, client.login(self.user, PASSWORD)
        recipient = f"RCPT TO:<{self.user}@example.com>\r\n".encode()
        return client, self.ask(client, b"MAIL FROM:<a@example.org>\r\n", recipient)

    def entered(self, name, source=CLIENT):
        """A client that is connected to the backend, outside of any transaction."""
        client, said = self.enter(name, source)
        self.assertIn(said[:3], (b"235", b"250"), name)
        self.assertEqual(self.ask(client, b"RSET\r\n")[:3], b"250")
        return client

    def assertRefused(self, name, *words):
        """No client gets the backend, and one error says why and what to do."""
        before = len(self.log())
        _, said = self.enter(name)
        self.assertEqual(said[:9], TEMPORARY[name.partition("-")[0]])
        waitUntil(lambda: ": backend failed: " in self.log()[before:], "an error is logged")
        (line,) = (line for line in self.log()[before:].splitlines() if ": backend failed: " in line)
        for word in words:
            self.assertIn(word, line)

    def assertStranger(self, client):
        """The backend treats the client as a stranger, permanently."""
        self.assertEqual(self.ask(client, ATTACK)[:9], b"550 5.7.0")
        self.assertEqual(self.ask(client, *LETTER)[:3], b"554")
        self.ask(client, b"RSET\r\n")

    def test_off(self):
        """With xclient off no client gets a Postfix that trusts the gateway to use XCLIENT."""
        for auth in ("none", "plain"):
            settings = ("XCLIENT", "xclient = off", "smtpd_authorized_xclient_hosts")
            self.assertRefused(f"{auth}-off-narrow", *settings)
            self.assertRefused(f"{auth}-off-forwarding", "XFORWARD", "smtpd_authorized_xforward_hosts")

    def test_offUntold(self):
        """A Postfix that trusts no client to do so is used; it sees the gateway."""
        for auth in ("none", "plain"):
            client = self.entered(f"{auth}-off-untold")
            self.assertEqual(self.ask(client, ATTACK)[:9], b"550 5.7.0")
            self.assertEqual(self.ask(client, *LETTER)[:3], b"250")

    def test_namedAnew(self):
        """After XCLIENT the client cannot send another one, nor after its own STARTTLS; it may not relay."""
        for name in ("none-auto-narrow", "none-on-narrow", "plain-auto-narrow", "plain-on-narrow"):
            client = self.entered(name)
            self.assertStranger(client) if name.startswith("none") else self.assertEqual(
                self.ask(client, ATTACK)[:9], b"550 5.7.0"
            )
            self.assertNotIn(b"XCLIENT", self.offers(client))
        self.assertNotIn(": backend warning: ", self.log())

    def test_ownTLS(self):
        """Nor after its own TLS with the backend, where Postfix forgets earlier commands."""
        for name in ("none-auto-narrow", "plain-auto-narrow"):
            client = self.entered(name)
            if b"STARTTLS" in self.offers(client):
                client.startTLS()
                self.assertNotIn(b"XCLIENT", self.offers(client))
            self.assertEqual(self.ask(client, ATTACK)[:9], b"550 5.7.0")

    def offers(self, client):
        """The extensions in the backend's EHLO."""
        client.send(b"EHLO client.example\r\n")
        said = b""
        while not said or said.splitlines()[-1][3:4] == b"-":
            said += client.line()
        return said

    def test_required(self):
        """With smtp_auth none a Postfix that does not accept XCLIENT is not used."""
        for xclient in ("auto", "on"):
            for backend in ("untold", "forwarding"):
                self.assertRefused(f"none-{xclient}-{backend}", "XCLIENT", "smtpd_authorized_xclient_hosts")

    def test_notRequired(self):
        """For a login it is, unless it trusts a client to use XCLIENT."""
        self.entered("plain-auto-untold")
        self.assertRefused("plain-auto-forwarding", "XFORWARD", "smtpd_authorized_xforward_hosts")

    def test_trustedClient(self):
        """A client that Postfix itself trusts keeps its right; the log warns once."""
        for _ in range(2):
            client = self.entered("none-auto-narrow", "127.0.0.1")
            self.assertEqual(self.ask(client, ATTACK)[:3], b"220")
        waitUntil(lambda: ": backend warning: " in self.log(), "a warning is logged")
        (line,) = (line for line in self.log().splitlines() if ": backend warning: " in line)
        self.assertIn("smtpd_authorized_xclient_hosts", line)

    def test_header(self):
        """With a PROXY header Postfix uses only that address, and no XCLIENT is sent."""
        for xclient in ("auto", "off"):
            self.assertStranger(self.entered(f"none-{xclient}-proxied"))
        self.assertNotIn(": backend warning: ", self.log())
        client = self.entered("none-auto-proxied", TRUSTED)
        self.assertEqual(self.ask(client, *LETTER)[:3], b"554")
        self.ask(client, b"RSET\r\n")
        self.assertEqual(self.ask(client, ATTACK)[:3], b"220")
        waitUntil(lambda: ": backend warning: " in self.log(), "a warning is logged")

    def test_headerUnread(self):
        """
        A Postfix that reads the header as a command sees the gateway's address: no client gets a connection to it.
        """
        address = self.at("plain-auto-unread")
        connected = socket.create_connection(("127.0.0.1", address.port), PATIENCE, (CLIENT, 0))
        self.addCleanup(connected.close)
        lines = connected.makefile("rwb", buffering=0)
        self.addCleanup(lines.close)
        self.assertEqual(lines.readline()[:3], b"220")
        lines.write(b"AUTH PLAIN " + b64encode(f"\0{self.user}\0{PASSWORD}".encode()) + b"\r\n")
        self.assertEqual(lines.readline()[:9], TEMPORARY["plain"])
