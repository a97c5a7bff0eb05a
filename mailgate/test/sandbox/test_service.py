"""
Tests for L{mailgate.sandbox.service}, with the standard library's clients over real sockets: that they understand the
servers is what no fake could tell.
"""

from __future__ import annotations

import imaplib
import poplib
import smtplib
import socket
from urllib.request import Request, urlopen

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailgate.directives import ListenAddress
from mailgate.sandbox.service import _MOST_CONNECTIONS, SandboxService
from mailgate.sandbox.settings import SandboxSettings
from mailgate.testing import FakeTransport

ANY = ListenAddress("127.0.0.1", 0)
SETTINGS = SandboxSettings(imap=ANY, pop3=ANY, smtp=ANY, sieve=ANY, authHttp=ANY)
TEXT = b"Subject: Hello\r\n\r\n.dot\r\ncaf\xc3\xa9 " + b"x" * 900 + b"\r\n" + b".line\r\n" * 20000


def ended(connection: socket.socket) -> bool:
    """Whether the peer has closed C{connection}, in any way."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


class BindingTests(SynchronousTestCase):
    """L{SandboxService} and its ports."""

    def test_privileged(self):
        """When C{privilegedStartService} returns, all servers are bound once to the configured addresses."""
        reactor = MemoryReactorClock()
        service = SandboxService(SandboxSettings(), reactor)
        service.privilegedStartService()
        service.startService()
        found = [(server[3], server[0]) for server in reactor.tcpServers]
        self.assertEqual(found, [("127.0.0.1", port) for port in (10143, 10110, 10025, 14190, 10080)])

    def test_startOnly(self):
        """Without C{privilegedStartService}, C{startService} binds."""
        reactor = MemoryReactorClock()
        SandboxService(SandboxSettings(), reactor).startService()
        self.assertEqual(len(reactor.tcpServers), 5)

    def test_nothingBefore(self):
        """The constructor opens nothing."""
        reactor = MemoryReactorClock()
        service = SandboxService(SandboxSettings(), reactor)
        self.assertEqual(reactor.tcpServers, [])
        self.assertRaises(KeyError, service.address, "imap")

    def test_connectionsBounded(self):
        """The connections of each server are limited; further ones are closed."""
        reactor = MemoryReactorClock()
        service = SandboxService(SandboxSettings(), reactor)
        service.startService()
        factory = reactor.tcpServers[0][1]
        factory.protocols = dict.fromkeys(range(_MOST_CONNECTIONS))
        self.assertIsNone(factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1)))
        factory.protocols.clear()
        self.assertIsNotNone(factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1)))

    def test_noDelay(self):
        """The servers send at once: a message does not wait for an acknowledgement."""
        reactor = MemoryReactorClock()
        SandboxService(SandboxSettings(), reactor).startService()
        for server in reactor.tcpServers:
            transport = FakeTransport()
            server[1].buildProtocol(IPv4Address("TCP", "127.0.0.1", 1)).makeConnection(transport)
            self.assertTrue(transport.getTcpNoDelay())


class InUseTests(TestCase):
    """A port in use."""

    @inlineCallbacks
    def test_portInUse(self):
        """The start raises an exception that names the port, and nothing stays bound."""
        other = socket.socket()
        self.addCleanup(other.close)
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = evolve(ANY, port=other.getsockname()[1])
        free = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        wanted = evolve(ANY, port=free.getHost().port)
        yield free.stopListening()
        service = SandboxService(evolve(SETTINGS, imap=wanted, smtp=taken), reactor)
        error = self.assertRaises(CannotListenError, service.privilegedStartService)
        self.assertIn(str(taken.port), str(error))
        yield deferLater(reactor, 0, lambda: None)  # in which Twisted closes them
        again = SandboxService(evolve(SETTINGS, imap=wanted), reactor)
        again.startService()
        self.assertEqual(again.address("imap").port, wanted.port)
        yield again.stopService()


class ClientTests(TestCase):
    """Clients of a running L{SandboxService}."""

    def setUp(self):
        self.service = SandboxService(SETTINGS, reactor)
        self.service.privilegedStartService()
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def where(self, name: str) -> tuple[str, int]:
        address = self.service.address(name)
        return address.host, address.port

    def send(self, *recipients: str) -> None:
        with smtplib.SMTP(*self.where("smtp"), timeout=30) as client:
            client.sendmail("alice@example.com", recipients, TEXT, ["BODY=8BITMIME"])

    def imap(self, user: str) -> imaplib.IMAP4:
        client = imaplib.IMAP4(*self.where("imap"), timeout=30)
        client.login(user, {"alice": "wonderland", "bob": "builder"}[user])
        client.select()
        return client

    def pop3(self, user: str) -> poplib.POP3:
        client = poplib.POP3(*self.where("pop3"), timeout=30)
        client.user(user)
        client.pass_({"alice": "wonderland", "bob": "builder"}[user])
        return client

    @inlineCallbacks
    def test_everywhere(self):
        """SMTP mail can be read by IMAP and POP3, byte for byte, with the same UID."""

        def clients():
            self.send("bob@example.com", "alice@example.com")
            imap, pop3 = self.imap("bob"), self.pop3("bob")
            _, ((_, raw), *_) = imap.fetch("2", "(UID BODY[])")
            self.assertTrue(raw.endswith(b"\r\n" + TEXT))
            self.assertEqual(b"\r\n".join([*pop3.retr(2)[1], b""]), raw)
            _, (validity,) = imap.response("UIDVALIDITY")
            self.assertEqual(pop3.uidl(2).split()[-1], validity + b".2")
            self.assertEqual(pop3.stat()[0], 2)
            pop3.dele(1)
            pop3.quit()
            imap.noop()
            self.assertEqual(imap.response("EXPUNGE"), ("EXPUNGE", [b"1"]))
            imap.logout()

        yield deferToThread(clients)

    @inlineCallbacks
    def test_refused(self):
        """smtplib gets 550 for unknown recipients; the other recipients get the mail."""

        def client():
            with smtplib.SMTP(*self.where("smtp"), timeout=30) as smtp:
                refused = smtp.sendmail("a@b", ["bob@example.com", "who@example.com", "x@example.org"], TEXT)
                codes = {name: code for name, (code, _) in refused.items()}
                self.assertEqual(codes, {"who@example.com": 550, "x@example.org": 550})

        yield deferToThread(client)
        self.assertEqual(len(self.service.accounts["bob"].inbox.messages), 2)

    @inlineCallbacks
    def test_imaplib(self):
        """imaplib creates, appends, copies, searches, flags and expunges."""

        def client():
            imap = self.imap("alice")
            self.assertEqual(imap.create('"My Mail"')[0], "OK")
            self.assertEqual(imap.append('"My Mail"', "(\\Flagged)", None, TEXT)[0], "OK")
            self.assertEqual(imap.copy("1", '"My Mail"')[0], "OK")
            self.assertEqual(imap.select('"My Mail"'), ("OK", [b"2"]))
            self.assertEqual(imap.search(None, "SUBJECT", '"welcome"'), ("OK", [b"2"]))
            self.assertEqual(imap.uid("SEARCH", "FLAGGED"), ("OK", [b"1"]))
            self.assertEqual(imap.fetch("1", "(RFC822)")[1][0][1], TEXT)
            self.assertEqual(imap.store("1", "+FLAGS", "\\Deleted")[0], "OK")
            self.assertEqual(imap.expunge(), ("OK", [b"1"]))
            self.assertEqual(imap.close()[0], "OK")
            self.assertEqual(imap.delete('"My Mail"')[0], "OK")
            imap.logout()

        yield deferToThread(client)

    @inlineCallbacks
    def test_wrongPassword(self):
        """Clients are refused with a wrong password."""

        def clients():
            with imaplib.IMAP4(*self.where("imap"), timeout=30) as imap:
                self.assertRaises(imaplib.IMAP4.error, imap.login, "alice", "x")
            pop3 = poplib.POP3(*self.where("pop3"), timeout=30)
            pop3.user("alice")
            self.assertRaises(poplib.error_proto, pop3.pass_, "x")
            pop3.quit()
            with smtplib.SMTP(*self.where("smtp"), timeout=30) as smtp:
                self.assertRaises(smtplib.SMTPAuthenticationError, smtp.login, "alice", "x")
                smtp.login("alice", "wonderland")

        yield deferToThread(clients)

    @inlineCallbacks
    def test_authentication(self):
        """The authentication service returns the real port, not the configured one."""

        def ask() -> dict[str, str]:
            headers = {"Auth-Method": "plain", "Auth-User": "alice", "Auth-Pass": "wonderland", "Auth-Protocol": "pop3"}
            url = "http://{}:{}/auth".format(*self.where("auth_http"))
            with urlopen(Request(url, headers=headers), timeout=30) as response:
                return dict(response.headers)

        answer = yield deferToThread(ask)
        self.assertEqual((answer["Auth-Server"], int(answer["Auth-Port"])), self.where("pop3"))

    @inlineCallbacks
    def test_stop(self):
        """Stopping ends the connections and frees the ports, although a client is connected."""
        host, port = self.where("imap")
        imap = yield deferToThread(self.imap, "alice")
        self.addCleanup(imap.shutdown)
        yield self.service.stopService()
        self.assertTrue((yield deferToThread(ended, imap.sock)))
        again = reactor.listenTCP(port, Factory(), interface=host)
        yield again.stopListening()
        self.service.startService()
