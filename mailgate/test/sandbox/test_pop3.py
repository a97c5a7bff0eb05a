"""
Tests for L{mailgate.sandbox.pop3}.
"""

from __future__ import annotations

from twisted.internet.protocol import ServerFactory
from twisted.internet.task import Clock, Cooperator
from twisted.internet.testing import EventLoggingObserver, StringTransport
from twisted.logger import globalLogPublisher
from twisted.mail.pop3 import IMailbox
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.sandbox.account import Accounts
from mailgate.sandbox.login import sandboxPortal
from mailgate.sandbox.pop3 import Maildrop, SandboxPOP3
from mailgate.sandbox.settings import SandboxSettings


class POP3TestCase(SynchronousTestCase):
    """A connection to alice's mailbox, which has three messages."""

    def setUp(self):
        self.observer = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        self.clock = Clock()
        self.accounts = Accounts(SandboxSettings(), self.clock.seconds)
        self.account = self.accounts["alice"]
        self.account.inbox.remove(self.account.inbox.messages)
        for text in (b"a: b\n\n.one\n..two\nthree\n", b"two\n\n", b"three\n\n"):
            self.account.deliver(text)
        cooperator = Cooperator(scheduler=lambda step: self.clock.callLater(0, step))
        self.server = SandboxPOP3()
        self.server.factory = ServerFactory()
        self.server.factory.noisy = False
        self.server.portal = sandboxPortal(self.accounts)
        self.server.callLater = self.clock.callLater
        self.server.schedule = cooperator.coiterate
        self.transport = StringTransport()
        self.server.makeConnection(self.transport)
        self.greeting = self.heard()

    def heard(self):
        for _ in range(30):
            if self.transport.producer is not None:
                self.transport.producer.resumeProducing()
            self.clock.advance(0)
        lines = self.transport.value().split(b"\r\n")[:-1]
        self.transport.clear()
        return lines

    def say(self, *lines: bytes):
        self.server.dataReceived(b"\r\n".join([*lines, b""]))
        return self.heard()

    def login(self) -> None:
        self.assertEqual(self.say(b"USER alice", b"PASS wonderland")[1], b"+OK Authentication succeeded")


class MaildropTests(POP3TestCase):
    """Tests for L{Maildrop}."""

    def test_interface(self):
        """A maildrop implements twisted.mail's interface."""
        verifyObject(IMailbox, Maildrop(self.account))

    def test_snapshot(self):
        """
        A session does not see messages that arrive or are removed meanwhile; deleting a removed message is no error.
        """
        maildrop = Maildrop(self.account)
        self.account.deliver(b"x")
        self.account.inbox.remove(self.account.inbox.messages[:1])
        self.assertEqual(len(maildrop.listMessages()), 3)
        maildrop.deleteMessage(0)
        maildrop.deleteMessage(1)
        maildrop.sync()
        self.assertEqual([message.uid for message in self.account.inbox.messages], [4, 5])

    def test_outOfRange(self):
        """A missing or deleted message cannot be read."""
        maildrop = Maildrop(self.account)
        maildrop.deleteMessage(1)
        for index in (-1, 1, 3):
            for method in (maildrop.listMessages, maildrop.getMessage, maildrop.getUidl, maildrop.deleteMessage):
                self.assertRaises(ValueError, method, index)
        self.assertEqual(maildrop.listMessages()[1], 0)


class SandboxPOP3Tests(POP3TestCase):
    """Tests for L{SandboxPOP3}."""

    def test_greeting(self):
        """The greeting has no timestamp, so that clients do not try APOP."""
        self.assertEqual(self.greeting, [b"+OK mailgate sandbox ready"])

    def test_denied(self):
        """A wrong password is refused, and the client may try again."""
        self.assertEqual(self.say(b"USER alice", b"PASS x y")[1], b"-ERR Authentication failed")
        self.login()

    def test_capabilities(self):
        """CAPA lists the capabilities, before and after the login."""
        expected = [b"+OK I can do the following:", b"TOP", b"USER", b"UIDL", b"PIPELINING", b"RESP-CODES", b"."]
        self.assertEqual(self.say(b"CAPA"), expected)
        self.login()
        self.assertEqual(self.say(b"capa"), expected)

    def test_listings(self):
        """STAT, LIST and UIDL agree; the unique-ids are those of IMAP."""
        self.login()
        sizes = [len(message.raw) for message in self.account.inbox.messages]
        self.assertEqual(self.say(b"STAT"), [b"+OK 3 %d" % sum(sizes)])
        self.assertEqual(self.say(b"LIST")[1:], [*(b"%d %d" % (n, s) for n, s in enumerate(sizes, 1)), b"."])
        self.assertEqual(self.say(b"LIST 2"), [b"+OK 2 %d" % sizes[1]])
        validity = self.account.inbox.uidValidity
        self.assertEqual(self.say(b"UIDL")[1:], [*(b"%d %d.%d" % (n, validity, n + 1) for n in (1, 2, 3)), b"."])
        self.assertEqual(self.say(b"UIDL 3"), [b"+OK 3 %d.4" % validity])

    def test_deleted(self):
        """A deleted message is not counted, listed or returned; RSET restores it."""
        self.login()
        self.assertTrue(self.say(b"DELE 2")[0].startswith(b"+OK"))
        self.assertTrue(self.say(b"STAT")[0].startswith(b"+OK 2 "))
        self.assertEqual([line[:2] for line in self.say(b"LIST")[1:]], [b"1 ", b"3 ", b"."])
        self.assertEqual([line[:2] for line in self.say(b"UIDL")[1:]], [b"1 ", b"3 ", b"."])
        for command in (b"LIST 2", b"UIDL 2", b"RETR 2", b"TOP 2 0", b"DELE 2"):
            (line,) = self.say(command)
            self.assertTrue(line.startswith(b"-ERR"), command)
        self.say(b"RSET")
        self.assertTrue(self.say(b"STAT")[0].startswith(b"+OK 3 "))

    def test_quit(self):
        """QUIT removes deleted messages."""
        self.login()
        self.say(b"DELE 2", b"QUIT")
        self.assertEqual([message.uid for message in self.account.inbox.messages], [2, 4])
        self.assertTrue(self.transport.disconnecting)

    def test_left(self):
        """Without QUIT nothing is removed (RFC 1939, 6)."""
        self.login()
        self.say(b"DELE 2")
        self.server.connectionLost(None)
        self.assertEqual(len(self.account.inbox.messages), 3)

    def test_retrieve(self):
        """Lines that begin with a dot get another one, and a single dot ends the message."""
        self.login()
        heard = self.say(b"RETR 1")
        size = len(self.account.inbox.messages[0].raw)
        self.assertEqual(heard, [b"+OK %d octets" % size, b"a: b", b"", b"..one", b"...two", b"three", b"."])

    def test_stuffingEverywhere(self):
        """A dot at the beginning of the message, or of any chunk, is stuffed."""
        self.account.inbox.remove(self.account.inbox.messages)
        self.account.deliver(b".\n" + b"x" * 16379 + b"\n.\n" + b".\n" * 30000)
        self.login()
        heard = self.say(b"RETR 1")
        self.assertEqual([line for line in heard[:-1] if line == b"."], [])
        self.assertEqual(heard.count(b".."), 30002)
        self.assertEqual(heard[-1], b".")

    def test_top(self):
        """TOP returns the header and the requested number of lines of the body."""
        self.login()
        self.assertEqual(self.say(b"TOP 1 0")[1:], [b"a: b", b"", b"."])
        self.assertEqual(self.say(b"TOP 1 1")[1:], [b"a: b", b"", b"..one", b"."])
        self.assertEqual(self.say(b"TOP 1 99")[1:], [b"a: b", b"", b"..one", b"...two", b"three", b"."])

    def test_garbage(self):
        """Unknown, malformed and early commands get an error that repeats nothing, and do not end the connection."""
        secret = b"open-sesame"
        for line in (
            secret,
            b"PASS " + secret,
            b"LIST",
            b"",
            b"\xff\xfe",
            b"APOP alice " + secret,
            b"AUTH PLAIN",
            b"USER",
        ):
            (answer,) = self.say(line)
            self.assertTrue(answer.startswith(b"-ERR "), line)
            self.assertNotIn(secret, answer)
        self.login()
        for line in (
            b"RETR",
            b"RETR x",
            b"RETR 0",
            b"RETR 9",
            b"TOP 1",
            b"TOP 1 -1",
            b"DELE x",
            b"LIST x",
            b"UIDL 0",
            b"USER bob",
            b"DELE 1 2",
        ):
            (answer,) = self.say(line)
            self.assertTrue(answer.startswith(b"-ERR "), line)
        self.assertFalse(self.transport.disconnecting)
        self.assertEqual([event for event in self.observer if "log_failure" in event], [])
        self.assertNotIn(secret.decode(), repr(list(self.observer)))

    def test_pipelined(self):
        """Replies to commands that are sent at once are in order, a bad one included."""
        self.login()
        heard = self.say(b"RETR 2", b"FOO", b"TOP 3 0", b"NOOP", b"STAT")
        self.assertEqual(
            [line[:4] for line in heard if line[:1] in b"+-" and line], [b"+OK ", b"-ERR", b"+OK ", b"+OK ", b"+OK "]
        )

    def test_tooManyWaiting(self):
        """A client that sends endless commands during a slow one is disconnected."""
        self.login()
        self.say(b"RETR 1", *[b"NOOP"] * 1000)
        self.assertTrue(self.transport.disconnecting)

    def test_timeout(self):
        """A silent client is disconnected."""
        self.clock.advance(600)
        self.assertTrue(self.transport.disconnecting)
