# -*- test-case-name: mailgate.test.integration.test_transports -*-
"""
The transports that these tests use, and half-closed connections, which differ between both kinds.
"""

from __future__ import annotations

import base64
import io
import socket
import struct
from typing import Any

from attrs import evolve
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.directives import GatewaySettings, ServerSettings
from mailgate.lean.reactor import EventSettings
from mailgate.registry import SERVER
from mailgate.test.integration.authservice import Answer
from mailgate.test.integration.clients import PATIENCE, message
from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.fakebackend import ACCEPTS, FakeBackend
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.site import TLS, GatewayTestCase
from mailgate.test.integration.transports import ANSWERS_AFTER_CLOSE_NOTIFY, areLean, withTransports


class _Plaintext(io.RawIOBase):
    """The bytes from C{connection}."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count: int = self._connection.recv_into(buffer)
        except SSL.ZeroReturnError:
            return 0
        return count


class FinishingClient(RawClient):
    """
    A connection that can close its sending side, and still receive. Python's own TLS, asked to close it, reports an
    error for bytes that arrive after that.
    """

    connection: Any = None
    """OpenSSL's connection, if there is TLS."""

    def wrap(self) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.load_verify_locations(self.address.authority)
        context.set_verify(SSL.VERIFY_PEER)
        # OpenSSL waits itself.
        self.socket.settimeout(None)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", PATIENCE, 0))
        self.connection = SSL.Connection(context, self.socket)
        self.connection.set_connect_state()
        self.connection.do_handshake()
        self._lines = io.BufferedReader(_Plaintext(self.connection))

    def send(self, data: bytes) -> None:
        if self.connection is None:
            super().send(data)
        else:
            self.connection.sendall(data)

    def finish(self, endOfFile: bool = True) -> None:
        """Close the sending side: with TLS's close_notify, if there is TLS, and with the end of file, if requested."""
        if self.connection is not None:
            self.connection.shutdown()
        if endOfFile:
            self.socket.shutdown(socket.SHUT_WR)


class WordsTests(SynchronousTestCase):
    """How the gateways of tests get their transports."""

    INI = "[mailgate]\nerror_log = stderr\n[mail]\nproxy_pass = 127.0.0.1:1\n[server imap]\nlisten = 127.0.0.1:143\n"

    def test_method(self):
        """The value of the environment replaces that of the configuration."""
        for ini in (self.INI, self.INI.partition("stderr\n")[2]):
            for method in ("epoll", "reactor"):
                settings = parse(withTransports(ini, method))
                self.assertEqual(settings[EventSettings], EventSettings(method))
                self.assertEqual(self._servers(settings), self._servers(parse(ini)))
                self.assertEqual(areLean(method), settings[EventSettings].isLean)

    def _servers(self, settings: GatewaySettings) -> list[ServerSettings]:
        """The servers of C{settings} with their own settings: they also know those of the process."""
        return [
            evolve(server, groups={group: server.groups.get(group) for group in SERVER.settings})
            for server in settings.servers
        ]

    def test_workers(self):
        """With several workers, for which there is one kind of transport, the configuration stays."""
        ini = self.INI.replace("error_log = stderr", "worker_processes = 2")
        self.assertEqual(withTransports(ini, "reactor"), ini)

    def test_default(self):
        """Without the environment variable the configuration stays."""
        self.assertEqual(withTransports(self.INI, ""), self.INI)
        self.assertEqual(areLean(""), EventSettings().isLean)


class TransportTests(GatewayTestCase):
    """The gateway that these tests start."""

    def test_kind(self):
        """It has its own epoll beside the reactor's, or has none, as configured."""
        client = RawClient(self.at("imap"))
        self.addCleanup(client.close)
        polling = [name for name in self.site.gateway.descriptors() if name == "anon_inode:[eventpoll]"]
        self.assertEqual(len(polling), 2 if areLean() else 1)


class HalfCloseTests(GatewayTestCase):
    """Clients that have closed their sending side, and wait for the reply."""

    COMMAND = b"b FETCH 1 BODY[]\r\n"
    ANSWER = b"* 1 FETCH (BODY[] {1000000}\r\n" + b"x" * 1000000 + b")\r\nb OK done\r\n"

    def connect(self, tls: str) -> FinishingClient:
        """A client that has logged in."""
        client = FinishingClient(self.at("imap", tls))
        self.addCleanup(client.close)
        self.assertTrue(client.login(self.user, PASSWORD).startswith(b"OK"))
        return client

    def backend(self) -> FakeBackend:
        """Send the user to a backend that replies after the client's end of file."""
        fake = FakeBackend([ACCEPTS["imap"], b"L0 OK\r\n", b"", self.ANSWER])
        self.addCleanup(fake.stop)
        headers = {"Auth-Status": "OK", "Auth-Server": "127.0.0.1", "Auth-Port": str(fake.port)}
        self.site.auth.manners[self.user] = lambda service, question: Answer(headers)
        self.addCleanup(self.site.auth.manners.pop, self.user, None)
        return fake

    def test_login(self):
        """
        A login, and everything sent together with it, gets replies, several times, and then the end of file. With TLS
        and its close_notify, this works over the gateway's own transports.
        """
        plain = base64.b64encode(f"\0{self.user}\0{PASSWORD}".encode()).decode()
        said = {
            "imap": f"a LOGIN {self.user} {PASSWORD}\r\nb NOOP\r\nc LOGOUT\r\n",
            "pop3": f"USER {self.user}\r\nPASS {PASSWORD}\r\nSTAT\r\nQUIT\r\n",
            "smtp": f"AUTH PLAIN {plain}\r\nNOOP\r\nQUIT\r\n",
        }
        answers = {
            "imap": [b"a OK", b"b OK", b"* BY", b"c OK"],
            "pop3": [b"+OK"] * 4,
            "smtp": [b"235 ", b"250 ", b"221 "],
        }
        for protocol in self.backends.protocols:
            for tls in ("plain", "implicit") if ANSWERS_AFTER_CLOSE_NOTIFY else ("plain",):
                for _ in range(20 if tls == "plain" else 5):
                    client = FinishingClient(self.at(protocol, tls))
                    client.send(said[protocol].encode())
                    client.finish()
                    heard = [line[: len(answers[protocol][0])] for line in client.rest().splitlines()]
                    self.assertEqual([line for line in heard if line != b"* CA"], answers[protocol])
                    client.close()

    def test_plain(self):
        """Without TLS the reply arrives completely, followed by the end of file."""
        fake = self.backend()
        client = self.connect("plain")
        client.send(self.COMMAND)
        client.finish()
        self.assertEqual(client.rest(), self.ANSWER)
        waitUntil(lambda: fake.heard.endswith(self.COMMAND), "the backend hears the command")

    def test_tls(self):
        """
        With TLS it is the same, whether the end of file follows close_notify or not. With Twisted's transports there is
        no reply, but a clean end.
        """
        expected = self.ANSWER if ANSWERS_AFTER_CLOSE_NOTIFY else b""
        for tls in ("starttls", "implicit"):
            for endOfFile in (False, True):
                fake = self.backend()
                client = self.connect(tls)
                client.send(self.COMMAND)
                client.finish(endOfFile)
                self.assertEqual(client.rest(), expected)
                waitUntil(lambda fake=fake: fake.heard.endswith(self.COMMAND), "the backend hears the command")

    def test_dovecot(self):
        """
        Dovecot's replies to a client that has sent everything at once arrive, if the transports support half-closes.
        """
        self.deposit(message("last words"))
        for tls in TLS if ANSWERS_AFTER_CLOSE_NOTIFY else ("plain",):
            client = self.connect(tls)
            client.send(b"b SELECT INBOX\r\nc FETCH 1 BODY[TEXT]\r\n")
            client.finish()
            lines = client.rest().split(b"\r\n")
            self.assertIn(b"Down the rabbit-hole.", lines)
            self.assertEqual([line[:4] for line in lines if line[:2] in (b"b ", b"c ")], [b"b OK", b"c OK"])
