"""
Tests for L{mailgate.sandbox.smtp}.
"""

from __future__ import annotations

from base64 import b64encode

from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver, StringTransport
from twisted.logger import globalLogPublisher
from twisted.mail.imap4 import PLAINCredentials
from twisted.mail.smtp import IMessage, IMessageDelivery, LOGINCredentials
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.sandbox.account import Accounts
from mailgate.sandbox.login import sandboxPortal
from mailgate.sandbox.message import LARGEST_MESSAGE
from mailgate.sandbox.settings import SandboxSettings
from mailgate.sandbox.smtp import Delivery, IncomingMessage, SandboxESMTP


class SandboxESMTPTests(SynchronousTestCase):
    """Tests for L{SandboxESMTP}."""

    def setUp(self):
        self.observer = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        self.clock = Clock()
        self.accounts = Accounts(SandboxSettings(), self.clock.seconds)
        for name in ("alice", "bob"):
            inbox = self.accounts[name].inbox
            inbox.remove(inbox.messages)
        self.server = SandboxESMTP({b"PLAIN": PLAINCredentials, b"LOGIN": LOGINCredentials})
        self.server.delivery = Delivery(self.accounts)
        self.server.portal = sandboxPortal(self.accounts)
        self.server.host = "example.com"
        self.server.callLater = self.clock.callLater
        self.transport = StringTransport()
        self.server.makeConnection(self.transport)
        self.greeting = self.heard()

    def heard(self):
        lines = self.transport.value().split(b"\r\n")[:-1]
        self.transport.clear()
        return lines

    def say(self, *lines: bytes):
        self.server.dataReceived(b"\r\n".join([*lines, b""]))
        return self.heard()

    def envelope(self, *recipients: bytes, sender: bytes = b"ann@else.where"):
        commands = [b"EHLO client.example", b"MAIL FROM:<" + sender + b">"]
        return self.say(*commands, *(b"RCPT TO:<" + recipient + b">" for recipient in recipients))

    def send(self, *body: bytes, to: tuple[bytes, ...] = (b"bob@example.com",)):
        self.envelope(*to)
        self.assertEqual(self.say(b"DATA")[0][:3], b"354")
        return self.say(*body, b".")[-1]

    def received(self, name: str):
        return [message.raw for message in self.accounts[name].inbox.messages]

    def test_interfaces(self):
        """Delivery and message implement twisted.mail's interfaces."""
        verifyObject(IMessageDelivery, Delivery(self.accounts))
        verifyObject(IMessage, IncomingMessage(self.accounts["bob"], b""))

    def test_greeting(self):
        """Greeting and EHLO have the domain and the extensions."""
        self.assertEqual(self.greeting, [b"220 example.com ESMTP mailgate sandbox"])
        offered = {line[4:] for line in self.say(b"EHLO x")[1:]}
        self.assertEqual(offered, {b"AUTH PLAIN LOGIN", b"SIZE %d" % LARGEST_MESSAGE, b"8BITMIME", b"PIPELINING"})

    def test_delivered(self):
        """A message is delivered to each recipient, with its own Return-Path and Received."""
        answer = self.send(b"Subject: x", b"", b"caf\xc3\xa9", to=(b"bob@example.com", b"Alice@EXAMPLE.com"))
        self.assertEqual(answer[:3], b"250")
        for name, address in (("bob", b"bob@example.com"), ("alice", b"Alice@EXAMPLE.com")):
            (raw,) = self.received(name)
            self.assertTrue(
                raw.startswith(b"Return-Path: <ann@else.where>\r\nReceived: from client.example ([192.168.1.1])\r\n")
            )
            self.assertIn(b"\tfor <" + address + b">; ", raw)
            self.assertTrue(raw.endswith(b"\r\nSubject: x\r\n\r\ncaf\xc3\xa9\r\n"))

    def test_stuffing(self):
        """A stuffed dot is removed, and a bare LF before a dot does not end the message."""
        self.assertEqual(self.send(b"a: b", b"", b"..one", b"x\n.\nQUIT", b"....")[:3], b"250")
        (raw,) = self.received("bob")
        self.assertTrue(raw.endswith(b"\r\n\r\n.one\r\nx\r\n.\r\nQUIT\r\n...\r\n"))

    def test_noHeader(self):
        """The text of a message without a header does not become part of the added header."""
        self.send(b"just text")
        self.assertTrue(self.received("bob")[0].endswith(b"\r\n\r\njust text\r\n"))

    def test_nullSender(self):
        """A bounce has an empty return path."""
        self.envelope(b"bob@example.com", sender=b"")
        self.say(b"DATA", b"a: b", b"", b".")
        self.assertTrue(self.received("bob")[0].startswith(b"Return-Path: <>\r\n"))

    def test_refused(self):
        """An unknown user and another domain are refused with 550; the rest of the envelope is kept."""
        self.envelope(b"alice@example.com")
        self.assertEqual(self.say(b"RCPT TO:<who@example.com>"), [b"550 5.1.1 No such user"])
        self.assertEqual(self.say(b"RCPT TO:<bob@example.org>"), [b"550 5.7.1 Relaying denied"])
        self.assertEqual(self.say(b"RCPT TO:<bob@example.com@example.org>")[0][:1], b"5")
        self.assertEqual(self.say(b"DATA")[0][:3], b"354")

    def test_headerInjection(self):
        """The name in EHLO cannot add a header or end a comment."""
        self.say(b"EHLO x)\nBcc: <evil>\r(")
        self.say(b"MAIL FROM:<a@b>", b"RCPT TO:<bob@example.com>", b"DATA", b"a: b", b"", b".")
        self.assertIn(b"Received: from xBcc:evil ([192.168.1.1])\r\n", self.received("bob")[0])

    def test_tooLargeAnnounced(self):
        """A too large SIZE is refused before the message is sent."""
        self.say(b"EHLO x")
        self.assertEqual(self.say(b"MAIL FROM:<a@b> SIZE=%d" % (LARGEST_MESSAGE + 1)), [b"552 5.3.4 Message too big"])
        self.assertEqual(self.say(b"MAIL FROM:<a@b> BODY=8BITMIME SIZE=%d" % LARGEST_MESSAGE)[0][:3], b"250")

    def test_tooLarge(self):
        """A message that grows too large is refused at its end and dropped; the next one is accepted."""
        answer = self.send(*[b"x" * 998] * (LARGEST_MESSAGE // 1000 + 1))
        self.assertEqual(answer, b"552 5.3.4 Message too big")
        self.assertEqual(self.received("bob"), [])
        self.assertEqual(self.send(b"a: b", b"")[:3], b"250")

    def test_full(self):
        """A full mailbox is a temporary failure, at RCPT or at the end of the message; nothing is logged."""
        self.accounts["bob"].quota.mostBytes = 10
        self.assertEqual(self.send(b"a: b", b"", b"x" * 100), b"452 4.2.2 Mailbox full")
        self.accounts["bob"].quota.mostMessages = 0
        self.assertEqual(self.envelope(b"bob@example.com")[-1], b"452 4.2.2 Mailbox full")
        self.assertEqual((self.received("bob"), list(self.observer)), ([], []))
        self.assertEqual(self.accounts["bob"].quota.messages, 0)

    def test_longLine(self):
        """A line without an end closes the connection: the rest must not be read as commands."""
        self.envelope(b"bob@example.com")
        self.say(b"DATA")
        self.assertEqual(
            self.say(b"x" * (SandboxESMTP.MAX_LENGTH + 1), b"MAIL FROM:<a@b>"), [b"500 5.5.2 Line too long"]
        )
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.received("bob"), [])

    def test_tooManyRecipients(self):
        """The number of recipients is limited."""
        answers = self.envelope(*[b"bob@example.com"] * 200)
        self.assertEqual(answers[-1], b"452 4.5.3 Too many recipients")

    def test_left(self):
        """A message is not delivered if the client disconnects."""
        self.envelope(b"bob@example.com")
        self.say(b"DATA", b"a: b", b"", b"half")
        self.server.connectionLost(None)
        self.assertEqual(self.received("bob"), [])

    def test_garbage(self):
        """Unknown commands get an error, are not logged, and do not end the connection."""
        for line in (
            b"\xff\xfe",
            b"FOO",
            b"",
            b"state_DATA",
            b"AUTH",
            b"MAIL",
            b"RCPT TO:<bob@example.com>",
            b"DATA",
            b"STARTTLS",
        ):
            self.assertRegex(self.say(line)[0], rb"^[45]", line)
        self.assertEqual(self.say(b"NOOP"), [b"250 OK"])
        self.assertEqual(list(self.observer), [])

    def test_auth(self):
        """Clients may log in with PLAIN and LOGIN, and then send as before."""
        self.assertEqual(self.say(b"AUTH PLAIN " + b64encode(b"\0alice\0wonderland"))[0][:3], b"235")
        self.assertEqual(self.send(b"a: b", b"")[:3], b"250")

    def test_authLogin(self):
        """LOGIN asks for the user and the password."""
        answers = self.say(b"AUTH LOGIN", b64encode(b"alice"), b64encode(b"wonderland"))
        self.assertEqual([answer[:3] for answer in answers], [b"334", b"334", b"235"])

    def test_authDenied(self):
        """A wrong password and an invalid response are refused and not logged; the session continues."""
        secret = b64encode(b"\0alice\0sesame")
        self.assertEqual(self.say(b"AUTH PLAIN " + secret), [b"535 Authentication failed"])
        for response in (b"=", b"%%%", b64encode(b"alice"), b"*", b"\xff"):
            self.assertEqual(self.say(b"AUTH PLAIN " + response)[0][:3], b"501", response)
        self.assertEqual(self.say(b"AUTH FOO"), [b"504 Unrecognized authentication type"])
        self.assertEqual(self.say(b"NOOP"), [b"250 OK"])
        self.assertEqual(list(self.observer), [])

    def test_timeout(self):
        """A silent client is disconnected."""
        self.clock.advance(300)
        self.assertEqual(self.heard()[0][:3], b"421")
        self.assertTrue(self.transport.disconnecting)
