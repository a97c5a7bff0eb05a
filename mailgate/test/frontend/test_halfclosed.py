"""
Clients that close their side after their commands, as C{nc -N} does. In each protocol and state the gateway answers all
commands. Without a command, or after a full close, the connection ends.
"""

from __future__ import annotations

import base64
import os
import select
import socket
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailgate.frontend.protocol import MailProtocol
from mailgate.frontend.settings import DialogueSettings
from mailgate.lean.reactor import LeanReactor
from mailgate.lean.transport import StreamTransport
from mailgate.login import Denial, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.session import Outcome, Phase
from mailgate.test.support.reversedns import FakeReverseDNS
from mailgate.testing import ROUTE, Conversation, FakeAuthenticator, FakeClient, FakeConnector
from mailgate.tls.settings import TLSSettings


@frozen
class Said:
    """
    The input of a client of C{record}, which ends with a login, and the replies C{before} that. C{quit} is the client's
    last command, C{bye} the reply to it; C{denied} is the refusal of the login.
    """

    record: MailProtocol
    login: bytes
    before: bytes
    quit: bytes
    bye: bytes
    denied: bytes


EVERY = (
    Said(
        IMAP4,
        b"a NOOP\r\nb LOGIN joe sesame\r\n",
        b"a OK completed\r\n",
        b"c LOGOUT\r\n",
        b"* BYE Logging out\r\nc OK completed\r\n",
        b"b NO no\r\n",
    ),
    Said(POP3, b"USER joe\r\nPASS sesame\r\n", b"+OK\r\n", b"QUIT\r\n", b"+OK\r\n", b"-ERR [AUTH] no\r\n"),
    Said(
        SMTP,
        b"HELO x\r\nAUTH PLAIN AGpvZQBzZXNhbWU=\r\n",
        b"250 mx.test\r\n",
        b"QUIT\r\n",
        b"221 2.0.0 Bye\r\n",
        b"535 5.7.0 no\r\n",
    ),
)

DENIED = Denial(Trouble.DENIED, b"no")


def converse(record: MailProtocol, *groups: Any, **settings: Any) -> Conversation:
    """A conversation past its greeting."""
    conversation = Conversation(record, *groups, **settings)
    conversation.hear()
    return conversation


class LoginTests(SynchronousTestCase):
    """The login is the last command, or others follow it."""

    def ended(self, said: Said, data: bytes, **settings: Any) -> Conversation:
        """A conversation in which the client sends C{data} and closes its side during the login."""
        conversation = converse(said.record, authenticator=FakeAuthenticator(None, DENIED), **settings)
        self.assertEqual(conversation.send(data), said.before)
        conversation.server.readConnectionLost()
        self.assertFalse(conversation.closed)
        return conversation

    def judge(self, conversation: Conversation, answer: Any) -> None:
        conversation.authenticator.pending[0].callback(answer)

    def test_accepted(self) -> None:
        """The backend gets the bytes behind the login and then the close; its replies reach the client."""
        for said in EVERY:
            backend = FakeClient(b"235 2.0.0 OK\r\n")
            conversation = self.ended(said, said.login + said.quit, connector=FakeConnector(backend))
            self.judge(conversation, ROUTE)
            self.assertEqual(conversation.hear(), b"235 2.0.0 OK\r\n")
            self.assertEqual(backend.transport.value(), said.quit)
            self.assertTrue(backend.transport.writingClosed)
            self.assertFalse(conversation.closed)
            backend.dataReceived(b"farewell")
            self.assertEqual(conversation.hear(), b"farewell")
            backend.transport.lose()
            self.assertTrue(conversation.closed)

    def test_whileConnecting(self) -> None:
        """The stage of the login makes no difference."""
        for said in EVERY:
            connector = FakeConnector(None)
            conversation = converse(said.record, connector=connector)
            conversation.send(said.login)
            conversation.server.readConnectionLost()
            conversation.server.readConnectionLost()
            connector.pending[0].callback(FakeClient(b"235 2.0.0 OK\r\n"))
            self.assertEqual(conversation.hear(), b"235 2.0.0 OK\r\n")
            self.assertIs(conversation.server.session.phase, Phase.RELAY)

    def test_refused(self) -> None:
        """The refusal is sent, then further commands are obeyed in order, then the connection ends."""
        for said in EVERY:
            for more, heard, outcome in (
                (b"", b"", Outcome.CLIENT_LEFT),
                (b"half a li", b"", Outcome.CLIENT_LEFT),
                (said.login, said.before + said.denied, Outcome.CLIENT_LEFT),
                (said.quit, said.bye, Outcome.QUIT),
            ):
                conversation = self.ended(said, said.login + more)
                self.judge(conversation, DENIED)
                self.assertEqual(conversation.hear(), said.denied + heard)
                self.assertTrue(conversation.closed)
                self.assertIs(conversation.server.session.outcome, outcome)
                conversation.transport.lose()
                self.assertEqual(conversation.clock.getDelayedCalls(), [])

    def test_refusedLater(self) -> None:
        """A delayed refusal is sent when it is due."""
        for said in EVERY:
            conversation = self.ended(said, said.login)
            self.judge(conversation, Denial(Trouble.DENIED, b"no", wait=30))
            conversation.clock.advance(29)
            self.assertEqual((conversation.hear(), conversation.closed), (b"", False))
            conversation.clock.advance(1)
            self.assertEqual((conversation.hear(), conversation.closed), (said.denied, True))

    def test_hanging(self) -> None:
        """A login without an answer ends with the total time, as for any client."""
        for said in EVERY:
            conversation = self.ended(said, said.login)
            conversation.clock.advance(599)
            self.assertFalse(conversation.closed)
            conversation.clock.advance(1)
            self.assertIn(b"Timeout", conversation.hear())
            self.assertTrue(conversation.closed)
            self.assertEqual(conversation.authenticator.cancelled, 1)

    def test_gone(self) -> None:
        """If the client turns out to have closed, its login is cancelled."""
        for said in EVERY:
            conversation = self.ended(said, said.login)
            conversation.transport.lose()
            self.assertEqual(conversation.authenticator.cancelled, 1)
            self.assertIs(conversation.server.session.outcome, Outcome.CLIENT_LEFT)
            self.assertEqual(conversation.clock.getDelayedCalls(), [])
            self.assertEqual([event for event in conversation.events if "log_failure" in event], [])

    def test_recipient(self) -> None:
        """The same with a recipient in place of a login: the message behind it goes to the backend."""
        backend = FakeClient(b"250 2.1.5 Ok\r\n")
        authenticator = FakeAuthenticator(None)
        settings = SMTPSettings(auth=("none",))
        conversation = converse(SMTP, settings, authenticator=authenticator, connector=FakeConnector(backend))
        message = b"DATA\r\nSubject: x\r\n\r\n.\r\nQUIT\r\n"
        conversation.send(b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n" + message)
        conversation.server.readConnectionLost()
        authenticator.pending[0].callback(ROUTE)
        self.assertEqual(conversation.hear(), b"250 2.1.5 Ok\r\n")
        self.assertEqual(backend.transport.value(), message)
        self.assertTrue(backend.transport.writingClosed)

    def test_token(self) -> None:
        """
        A client that cannot send a response gets the refusal at once. If its response is there already, it gets both.
        """
        reason = base64.b64encode(b"{}")
        denial = Denial(Trouble.DENIED, b"no", challenge=reason)
        token = base64.b64encode(b"user=joe\x01auth=Bearer token\x01\x01")
        for behind, heard in ((b"", b"a NO no\r\n"), (b"\r\n", b"+ " + reason + b"\r\na NO no\r\n")):
            settings = IMAP4Settings(auth=("xoauth2",))
            conversation = converse(IMAP4, settings, authenticator=FakeAuthenticator(None))
            conversation.send(b"a AUTHENTICATE XOAUTH2 " + token + b"\r\n" + behind)
            conversation.server.readConnectionLost()
            self.judge(conversation, denial)
            self.assertEqual((conversation.hear(), conversation.closed), (heard, True))


class CommandTests(SynchronousTestCase):
    """Without a running login."""

    def assertLeft(self, conversation: Conversation, isHeard: bool = True) -> None:
        """The end of the client's side ends the connection without a reply."""
        conversation.server.readConnectionLost()
        self.assertEqual(conversation.hear(), b"")
        self.assertTrue(conversation.closed)
        outcome = Outcome.CLIENT_LEFT if isHeard else Outcome.SILENT
        self.assertIs(conversation.server.session.outcome, outcome)
        self.assertEqual(conversation.requests, [])

    def test_nothing(self) -> None:
        """A client that has sent nothing, or no complete command, has left."""
        literal = b"a LOGIN {3}\r\n"
        for record, said in (
            *((said.record, b"") for said in EVERY),
            *((said.record, said.login[:-1]) for said in EVERY if said.record is IMAP4),
            (POP3, b"USER joe\r\nPASS sesame"),
            (POP3, b"AUTH PLAIN\r\nAGpvZQBzZXNhbWU="),
            (IMAP4, literal),
            (IMAP4, literal + b"jo"),
            (IMAP4, literal + b"joe sesame"),
            (SMTP, b"AUTH LOGIN\r\n"),
            (SMTP, b"BDAT 100 LAST\r\nQUIT\r\n"),
        ):
            conversation = converse(record)
            conversation.send(said)
            self.assertLeft(conversation, said != b"")

    def test_handshake(self) -> None:
        """The same for a client that closes before TLS has begun."""
        for settings, said in (({"ssl": True}, b""), ({}, b"STLS\r\nUSER joe\r\n")):
            conversation = converse(POP3, TLSSettings(starttls="on"), **settings)
            if said:
                conversation.send(said)
            conversation.server.readConnectionLost()
            self.assertTrue(conversation.transport.aborted)

    def test_repliesNotTaken(self) -> None:
        """Commands that wait because the client does not read replies are obeyed when it reads."""
        for said in EVERY:
            conversation = converse(said.record)
            conversation.server.pauseProducing()
            self.assertEqual(conversation.send(said.quit), b"")
            conversation.server.readConnectionLost()
            self.assertFalse(conversation.closed)
            conversation.server.resumeProducing()
            self.assertEqual((conversation.hear(), conversation.closed), (said.bye, True))

    def test_repliesNeverTaken(self) -> None:
        """A client that never reads them ends with the timeout of a command."""
        conversation = converse(POP3)
        conversation.server.pauseProducing()
        conversation.send(b"NOOP\r\n")
        conversation.server.readConnectionLost()
        conversation.clock.advance(60)
        self.assertTrue(conversation.closed)

    def test_budgets(self) -> None:
        """Errors count as usual."""
        conversation = converse(POP3, DialogueSettings(maxErrors=2), authenticator=FakeAuthenticator(None))
        conversation.send(b"USER joe\r\nPASS sesame\r\n" + b"junk\r\n" * 3)
        conversation.server.readConnectionLost()
        conversation.authenticator.pending[0].callback(DENIED)
        self.assertEqual(conversation.hear(), b"-ERR [AUTH] no\r\n" + b"-ERR invalid command\r\n" * 2)
        self.assertIs(conversation.server.session.outcome, Outcome.ERRORS)


class GreetingTests(SynchronousTestCase):
    """Before the greeting, while the client's name is looked up."""

    def converse(self) -> tuple[Conversation, Deferred[str]]:
        names = FakeReverseDNS()
        conversation = Conversation(SMTP, reverseDNS=names)
        return conversation, names.pending[0]

    def test_commands(self) -> None:
        """Its commands are obeyed after the greeting."""
        conversation, name = self.converse()
        conversation.send(b"NOOP\r\nQUIT\r\n")
        conversation.server.readConnectionLost()
        self.assertFalse(conversation.closed)
        name.callback("client.example")
        self.assertEqual(conversation.hear(), b"220 mx.test ESMTP ready\r\n250 2.0.0 OK\r\n221 2.0.0 Bye\r\n")
        self.assertTrue(conversation.closed)

    def test_nothing(self) -> None:
        """A client that has sent no complete command does not stay until its name is known."""
        for said, outcome in ((b"", Outcome.SILENT), (b"QUIT", Outcome.CLIENT_LEFT)):
            conversation, _ = self.converse()
            conversation.send(said)
            conversation.server.readConnectionLost()
            self.assertTrue(conversation.closed)
            self.assertIs(conversation.server.session.outcome, outcome)


@implementer(IHalfCloseableProtocol)
class Near(Protocol):
    """Records events."""

    def __init__(self) -> None:
        self.notices: list[object] = []

    def readConnectionLost(self) -> None:
        self.notices.append("ended")

    def writeConnectionLost(self) -> None:
        self.notices.append("write ended")

    def connectionLost(self, reason: Any = None) -> None:
        self.notices.append(type(reason.value).__name__)


class TransportTests(SynchronousTestCase):
    """A connection on a descriptor whose peer has closed its side."""

    if not hasattr(select, "epoll"):
        skip = "there is no epoll"

    def setUp(self) -> None:
        self.poller = LeanReactor(MemoryReactorClock()).poller
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.peer = socket.create_connection(listening.getsockname())
            accepted, _ = listening.accept()
        self.addCleanup(self.peer.close)
        accepted.setblocking(False)
        self.near = Near()
        self.transport = StreamTransport(self.poller, accepted.detach(), socket.AF_INET, ("127.0.0.1", 0))
        self.transport.open(self.near)
        self.peer.shutdown(socket.SHUT_WR)
        self.turns(lambda: bool(self.near.notices))
        self.addCleanup(self.transport.connectionLost, Failure(ValueError()))

    def turns(self, done: Any) -> None:
        """Let the poller handle events until C{done}."""
        waiting = select.poll()
        waiting.register(self.poller.fileno(), select.POLLIN)
        while not done():
            self.assertTrue(waiting.poll(20000), self.near.notices)
            self.poller.doRead()

    def assertQuiet(self) -> None:
        """No event is pending."""
        for _ in range(3):
            self.poller.doRead()
        self.assertEqual(self.poller._epoll.poll(0), [])

    def test_reset(self) -> None:
        """A reset is noticed without a write."""
        self.assertQuiet()
        self.assertEqual(self.near.notices, ["ended"])
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.peer.close()
        self.turns(lambda: len(self.near.notices) > 1)
        self.assertEqual(self.near.notices, ["ended", "ConnectionLost"])

    def test_notWritten(self) -> None:
        """A peer that has closed answers a write with a reset."""
        self.peer.close()
        self.assertQuiet()
        self.transport.write(b"answer")
        self.turns(lambda: len(self.near.notices) > 1)
        self.assertEqual(self.near.notices, ["ended", "ConnectionLost"])

    def test_bothEnds(self) -> None:
        """When both sides have closed, neither close is reported again."""
        self.assertQuiet()
        self.transport.loseWriteConnection()
        self.assertQuiet()
        self.assertEqual(self.near.notices, ["ended", "write ended"])

    def test_stuck(self) -> None:
        """Bytes that the peer does not read at once are sent later. A reset meanwhile is noticed."""
        self.assertQuiet()
        self.transport.write(os.urandom(16 << 20))
        self.assertQuiet()
        self.peer.settimeout(20)
        self.assertTrue(self.peer.recv(1))
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.peer.close()
        self.turns(lambda: len(self.near.notices) > 1)
        self.assertEqual(self.near.notices, ["ended", "ConnectionLost"])
