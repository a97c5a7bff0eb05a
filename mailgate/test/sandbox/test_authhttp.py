"""
Tests for L{mailgate.sandbox.authhttp}.
"""

from __future__ import annotations

import hashlib
import hmac

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver, StringTransport
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import ListenAddress
from mailgate.sandbox.account import Accounts
from mailgate.sandbox.authhttp import authSite
from mailgate.sandbox.settings import SandboxSettings, SandboxUser

PORTS = {"imap": 143, "pop3": 110, "smtp": 25, "sieve": 4190}


class AuthResourceTests(SynchronousTestCase):
    """Tests for L{mailgate.sandbox.authhttp.AuthResource}, with requests as nginx sends them."""

    def setUp(self):
        users = (SandboxUser("joe", "open sésame+%"), SandboxUser("ann", "x"))
        accounts = Accounts(SandboxSettings(users=users), Clock().seconds)
        self.clock = Clock()
        self.site = authSite(accounts, lambda name: ListenAddress("127.0.0.9", PORTS[name]), self.clock)
        self.site.startFactory()
        self.addCleanup(self.site.stopFactory)

    def ask(self, path: bytes = b"/auth", **headers: bytes) -> dict[str, str]:
        """The headers of the response by name, with its status as C{""}."""
        channel = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        transport = StringTransport()
        channel.makeConnection(transport)
        lines = [b"GET %b HTTP/1.0" % path, b"Host: localhost"]
        lines += [name.replace("_", "-").encode() + b": " + value for name, value in headers.items()]
        channel.dataReceived(b"\r\n".join([*lines, b"", b""]))
        status, *fields = transport.value().split(b"\r\n\r\n")[0].decode().split("\r\n")
        self.assertLess(len(transport.value()), 1024)  # nginx reads no further
        return {"": status.split()[1], **dict(field.split(": ", 1) for field in fields)}

    def login(self, user: bytes, secret: bytes, **others: bytes) -> dict[str, str]:
        headers = {"Auth_Method": b"plain", "Auth_Protocol": b"imap", "Client_IP": b"192.0.2.1", **others}
        return self.ask(Auth_User=user, Auth_Pass=secret, **headers)

    def test_accepted(self):
        """The right password, percent-encoded like nginx, leads to the sandbox's server of the protocol."""
        for protocol, port in PORTS.items():
            answer = self.login(b"joe", "open%20sésame+%25".encode(), Auth_Protocol=protocol.encode())
            self.assertEqual(
                (answer[""], answer["Auth-Status"], answer["Auth-Server"], answer["Auth-Port"], answer["Auth-User"]),
                ("200", "OK", "127.0.0.9", str(port), "joe"),
            )
            self.assertNotIn("Auth-Pass", answer)

    def test_withDomain(self):
        """A login with the domain becomes the name without it."""
        self.assertEqual(self.login(b"Ann@example.com", b"x")["Auth-User"], "ann")

    def assertDenied(self, answer: dict[str, str]) -> None:
        self.assertEqual((answer["Auth-Status"], answer["Auth-Wait"]), ("Invalid login or password", "3"))
        for name in ("Auth-Server", "Auth-Port", "Auth-Pass", "Auth-User"):
            self.assertNotIn(name, answer)

    def test_denied(self):
        """A wrong password, an empty one, a plus for a blank, and an unknown user get the same refusal."""
        for user, secret in (
            (b"joe", b"x"),
            (b"joe", b""),
            (b"joe", b"open+s"),
            (b"who", b"x"),
            (b"", b""),
            (b"ann", b"x%00"),
        ):
            self.assertDenied(self.login(user, secret))

    def test_digests(self):
        """A right digest of the challenge is accepted; the response contains the password, which the gateway needs."""
        salt, password = b"<1.2@host>", "open sésame+%".encode()
        for method, digest in (
            (b"cram-md5", hmac.new(password, salt, "md5").hexdigest()),
            (b"apop", hashlib.md5(salt + password).hexdigest()),
        ):
            answer = self.login(b"joe", digest.encode(), Auth_Method=method, Auth_Salt=salt)
            self.assertEqual((answer["Auth-Status"], answer["Auth-Pass"].encode("utf-8")), ("OK", password))

    def test_wrongDigests(self):
        """A digest of another challenge, of none, of another method, and the password itself are refused."""
        salt = b"<1.2@host>"
        right = hmac.new(b"x", salt, "md5").hexdigest().encode()
        empty = hmac.new(b"x", b"", "md5").hexdigest().encode()
        for method, digest, challenge in (
            (b"cram-md5", right, b"<2.2@host>"),
            (b"apop", right, salt),
            (b"plain", right, salt),
            (b"cram-md5", b"x", salt),
            (b"cram-md5", empty, b""),
            (b"external", b"", b""),
            (b"", b"x", b""),
        ):
            self.assertDenied(self.login(b"ann", digest, Auth_Method=method, Auth_Salt=challenge))

    def recipient(self, command: bytes, protocol: bytes = b"smtp") -> dict[str, str]:
        return self.login(
            b"", b"", Auth_Method=b"none", Auth_Protocol=protocol, Auth_SMTP_Helo=b"h",
            Auth_SMTP_From=b"MAIL FROM:<>", Auth_SMTP_To=command,
        )  # fmt: skip

    def test_recipient(self):
        """Without a login the recipient decides; the response then has neither user nor password."""
        for command in (b"RCPT TO:<ann@example.com>", b"rcpt to: <Ann@Example.COM> NOTIFY=NEVER"):
            answer = self.recipient(command)
            self.assertEqual((answer["Auth-Status"], answer["Auth-Port"]), ("OK", "25"))
            self.assertNotIn("Auth-User", answer)
            self.assertNotIn("Auth-Pass", answer)

    def test_noRecipient(self):
        """An unknown user, another domain, an invalid RCPT command, and another protocol are refused with a code."""
        commands = (
            b"RCPT TO:<who@example.com>",
            b"RCPT TO:<ann@example.org>",
            b"RCPT TO:<ann>",
            b"ann@example.com",
            b"",
        )
        answers = [self.recipient(command) for command in commands]
        answers.append(self.recipient(b"RCPT TO:<ann@example.com>", b"imap"))
        for answer in answers:
            self.assertEqual((answer["Auth-Status"], answer["Auth-Error-Code"]), ("No such user here", "550 5.1.1"))
            self.assertNotIn("Auth-Server", answer)

    def test_unknownProtocol(self):
        """A protocol that the sandbox does not serve is refused."""
        for protocol in (b"", b"auth_http", b"lmtp", b"\xff"):
            answer = self.login(b"ann", b"x", Auth_Protocol=protocol)
            self.assertEqual(answer["Auth-Status"], "Unknown protocol")
            self.assertNotIn("Auth-Server", answer)

    def test_elsewhere(self):
        """Only C{/auth} exists."""
        self.assertEqual(self.ask(b"/")[""], "404")

    def test_notStored(self):
        """The response forbids to store it."""
        self.assertEqual(self.login(b"ann", b"x")["Cache-Control"], "no-store")

    def test_nothingLogged(self):
        """Nothing of a login is logged."""
        observer = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        self.login(b"ann", b"x")
        self.login(b"ann", b"sesame")
        self.assertEqual(list(observer), [])
