# -*- test-case-name: mailgate.test.integration.test_postfixclient -*-
"""
A real Postfix as the client of the submission port. It adapts mail to what the server announces: it rewrites 8-bit
text, and bounces mail to addresses that are not ASCII. What the backend takes must arrive unchanged.
"""

from __future__ import annotations

import smtplib

from attrs import evolve

from mailgate.test.integration.clients import PATIENCE, arrived
from mailgate.test.integration.daemon import shared, waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.sendingpostfix import SendingPostfix, Smarthost
from mailgate.test.integration.site import Address, GatewayTestCase
from mailgate.test.integration.together import together

testSuite = together(__name__)

SENDERS = ("login", "judged", "none")
"""Servers that announce what they have learned. Mail from the address with such a local part goes there."""

BODY = "Grüße aus dem Kaninchenbau: žluťoučký kůň, 漢字.\r\n".encode() + b"\xe4\xf6 is not UTF-8.\r\n"


class PostfixClientTests(GatewayTestCase):
    """
    A server with a login at the backend; one whose service judges the login, which the backend learns by XCLIENT; and
    one without a login, which sends XCLIENT too.
    """

    needs = ("postfix",)

    def configuration(self, site):
        """Everything that concerns capabilities has its default."""
        sasl, trusting = (site.backends.services[name][1] for name in ("sasl", "trusting"))
        return (
            site.mail()
            + site.server("imap", f"proxy_pass = 127.0.0.1:{site.backends.services['imap'][1]}")
            + site.server("smtp", f"proxy_pass = 127.0.0.1:{sasl}", name="login")
            + site.server("smtp", f"proxy_pass = 127.0.0.1:{trusting}\nsmtp_auth = none", name="none")
            + site.server("smtp", f"proxy_pass = 127.0.0.1:{trusting}\nauth_http = {site.auth.url}", name="judged")
            + site.server("smtp", f"proxy_pass = 127.0.0.1:{sasl}\nsmtp_capabilities = DSN", name="fixed")
        )

    def setUp(self):
        super().setUp()
        for name in SENDERS:
            waitUntil(lambda name=name: b"8BITMIME" in self.offers(name), "the gateway has learned")

    @property
    def sender(self):
        """The Postfix that sends to the gateway."""
        login = Smarthost(self.at("login").port, self.user, PASSWORD)
        hosts = {
            "login@sender.example": login,
            "none@sender.example": Smarthost(self.at("none").port),
            "judged@sender.example": evolve(login, port=self.at("judged").port),
            "fixed@sender.example": evolve(login, port=self.at("fixed").port),
        }
        return shared((type(self), "sender"), lambda: SendingPostfix(hosts))

    def offers(self, name, tls="starttls"):
        """The extensions that C{[server NAME]} announces."""
        client = RawClient(self.at(name, tls))
        try:
            return ehlo(client)
        finally:
            client.close()

    def submit(self, name, subject, to, body=BODY, *options):
        """Give the sending Postfix a message for C{[server NAME]}."""
        text = "text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit"
        head = f"From: {name}@sender.example\r\nTo: {to}\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n"
        message = f"{head}Content-Type: {text}\r\n\r\n".encode() + body
        with smtplib.SMTP("127.0.0.1", self.sender.port, "author.example", PATIENCE) as client:
            client.ehlo()
            client.sendmail(f"{name}@sender.example", [to], message, ["BODY=8BITMIME", *options])

    def test_eightBit(self):
        """The body of an 8-bit message arrives byte for byte, and its encoding stays."""
        for name in SENDERS:
            subject = f"eight bits with {name}"
            self.submit(name, subject, f"{self.user}@example.com")
            head, _, body = arrived(self.at("imap"), self.user, subject).partition(b"\r\n\r\n")
            self.assertEqual(body, BODY)
            self.assertIn(b"\r\nContent-Transfer-Encoding: 8bit", head)
            self.assertNotIn(b"quoted-printable", head)
            self.assertEqual(b"(Authenticated sender: " in head, name != "none")

    def test_unchanged(self):
        """A login shows the same extensions as the question without a client: nothing seems to change."""
        for name in SENDERS:
            subject = f"again with {name}"
            self.submit(name, subject, f"{self.user}@example.com")
            arrived(self.at("imap"), self.user, subject)
        self.assertNotIn("changed what it offers", self.site.gateway.log())

    def test_addresses(self):
        """A message to an address that is not ASCII arrives and is not bounced; its header stays UTF-8."""
        for name in SENDERS:
            subject = f"addresses with {name}"
            self.submit(name, subject, f"bjørn.{self.user}@example.com", BODY, "SMTPUTF8")
            head, _, body = arrived(self.at("imap"), self.user, subject).partition(b"\r\n\r\n")
            self.assertEqual(body, BODY)
            self.assertIn(f"\r\nTo: bjørn.{self.user}@example.com".encode(), head)
            self.assertIn(b"UTF8SMTP", head)

    def test_notAnnounced(self):
        """This is what the other tests prevent: without 8BITMIME Postfix rewrites, without SMTPUTF8 it bounces."""
        self.submit("fixed", "rewritten", f"{self.user}@example.com")
        message = arrived(self.at("imap"), self.user, "rewritten")
        self.assertIn(b"quoted-printable", message)
        self.assertNotIn(BODY, message)
        address = f"bjørn.{self.user}@example.com"
        self.submit("fixed", "bounced", address, BODY, "SMTPUTF8")
        said = "SMTPUTF8 is required, but was not offered by host"
        waitUntil(lambda: said in self.sender.log(), "the message is bounced")

    def test_chunks(self):
        """A message in chunks (RFC 3030) goes through the relay: the gateway has announced them."""
        self.assertIn(b"CHUNKING", self.offers("login"))
        client = RawClient(self.at("login", "starttls"))
        self.addCleanup(client.close)
        self.assertEqual(client.login(self.user, PASSWORD)[:3], b"235")
        head = b"Subject: chunks\r\n\r\n"
        to = f"RCPT TO:<{self.user}@example.com>\r\n".encode()
        chunks = b"BDAT %d\r\n%bBDAT %d LAST\r\n%b" % (len(head), head, len(BODY), BODY)
        client.send(b"MAIL FROM:<a@sender.example> BODY=8BITMIME SIZE=1000\r\n" + to + chunks)
        self.assertEqual([client.reply()[:3] for _ in range(4)], [b"250"] * 4)
        self.assertTrue(arrived(self.at("imap"), self.user, "chunks").endswith(b"\r\n\r\n" + BODY))

    def test_same(self):
        """The gateway announces what the backend does, except what it does not keep before the hand-over."""
        for name, service in (("login", "sasl"), ("judged", "trusting"), ("none", "trusting")):
            direct = RawClient(
                Address("smtp", self.backends.services[service][1], "starttls", self.site.at("imap").authority)
            )
            self.addCleanup(direct.close)
            taken = {b"XCLIENT", b"VRFY", b"ETRN", b"AUTH=PLAIN"} | ({b"CHUNKING"} if name != "login" else set())
            expected = [line for line in ehlo(direct) if line.split()[0] not in taken]
            own = {b"AUTH PLAIN LOGIN"} if name == "judged" else set()
            self.assertEqual(sorted(self.offers(name)), sorted({*expected, *own}))


def ehlo(client):
    """The lines of the reply to EHLO behind the first, without their codes."""
    client.send(b"EHLO client.example\r\n")
    lines = [client.line()]
    while lines[-1][3:4] == b"-":
        lines.append(client.line())
    return [line[4:].strip() for line in lines[1:]]
