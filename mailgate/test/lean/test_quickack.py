"""
Tests for L{mailgate.lean.quickack}: which pieces are acknowledged at once, with each kind of transport, before and
after the login; and that whole commands cost no system call.
"""

from __future__ import annotations

import select
import socket
import struct
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.lean import quickack
from mailgate.lean.quickack import ANNOUNCED, BEGUN, NOTHING, acknowledge, acknowledgeOn, expectedAfter
from mailgate.lean.reactor import LeanReactor
from mailgate.lean.transport import StreamTransport
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.relay import streamend as relayend
from mailgate.relay.portable import Relays
from mailgate.relay.protocol import RelayedProtocol
from mailgate.relay.stream import StreamRelays
from mailgate.relay.terms import Terms
from mailgate.test.support.relaytransport import RelayTransport
from mailgate.testing import Conversation, FakeAuthenticator
from mailgate.testing.fakes import makeSession
from mailgate.tls.settings import TLSSettings

LITERAL = b"Subject: x\r\n\r\n" + b"Down the rabbit-hole.\r\n" * 20

COMMANDS = (
    b"a NOOP\r\n",
    b"a FETCH 1:* (FLAGS)\r\n",
    b"NOOP\r\nSTAT\r\n",
    b"\r\n",
    b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n",
    b"MAIL FROM:<DATA>\r\n",
    b"a SEARCH TEXT DATA\r\n",
    b"a SELECT Last\r\n",
    b"a {3} b\r\n",
)
"""Lines that are answered, whatever they end with."""

PIECES = (
    (b"a ", b"NOOP\r\n"),
    (b"a NOOP", b"\r\n"),
    (b"a APPEND INBOX {%d}\r\n" % len(LITERAL), LITERAL, b"\r\n"),
    (b"a APPEND INBOX {%d+}\r\n" % len(LITERAL), LITERAL, b"\r\n"),
    (b"a APPEND INBOX {2000}\r\n", b"x" * 1000, b"y" * 998 + b"\r\n", b" {3}\r\n", b"x\r\n", b"\r\n"),
    (b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\ndata\r\n", b"Subject: x\r\n", b"\r\n", b"x\r\n", b".\r\n"),
    (b"BDAT 100 LAST\r\n", b"Subject: x\r\n", b"\r\n"),
    (LITERAL * 4, b".\r\n"),
)
"""Commands as clients write them. Only the last piece is answered, even if others end a line."""


class ExpectedTests(SynchronousTestCase):
    """The states of a client."""

    def test_commands(self) -> None:
        """After a whole command nothing is expected."""
        for command in COMMANDS:
            self.assertEqual(expectedAfter(NOTHING, command), NOTHING, command)
            self.assertEqual(expectedAfter(NOTHING, memoryview(command)), NOTHING)

    def test_pieces(self) -> None:
        """After anything else more is expected, until there is an answer."""
        for pieces in PIECES:
            expected = NOTHING
            for piece in pieces:
                expected = expectedAfter(expected, memoryview(piece))
                self.assertNotEqual(expected, NOTHING, piece)

    def test_announced(self) -> None:
        """Announced data have not begun: the answer that requests them does not end them."""
        self.assertEqual(expectedAfter(NOTHING, b"a APPEND INBOX {3}\r\n"), ANNOUNCED)
        self.assertEqual(expectedAfter(ANNOUNCED, b"x\r\n"), BEGUN)


class Noting:
    """Stands for a socket, and counts the calls."""

    def __init__(self, error: type[Exception] | None = None) -> None:
        self.asked = 0
        self._error = error

    def setsockopt(self, *option: int) -> None:
        assert option == (socket.IPPROTO_TCP, quickack._QUICKACK, 1)
        self.asked += 1
        if self._error:
            raise self._error


class AskingTests(SynchronousTestCase):
    """Calls of the system."""

    def test_unix(self) -> None:
        """A unix socket has no such option. This causes no error."""
        one, other = socket.socketpair()
        with one, other:
            acknowledge(one.fileno())

    def test_transports(self) -> None:
        """A transport of Twisted has a socket, or had one. Other transports have none."""
        transport: Any = RelayTransport()
        acknowledgeOn(transport)
        transport.socket = Noting(OSError)
        acknowledgeOn(transport)
        self.assertEqual(transport.socket.asked, 1)

    def test_elsewhere(self) -> None:
        """A system without the option is not called."""
        self.patch(quickack, "_QUICKACK", None)
        transport: Any = RelayTransport()
        transport.socket = Noting()
        acknowledgeOn(transport)
        acknowledge(-1)
        self.assertEqual(transport.socket.asked, 0)

    if quickack._QUICKACK is None:
        test_transports.skip = "this system has no TCP_QUICKACK"  # type: ignore[attr-defined]


class PortableRelayTests(SynchronousTestCase):
    """After the login, over Twisted's transports."""

    if quickack._QUICKACK is None:
        skip = "this system has no TCP_QUICKACK"

    def setUp(self) -> None:
        self.client, self.backend = RelayTransport(), RelayTransport()
        clock = MemoryReactorClock()
        for side in (self.client, self.backend):
            side.socket = Noting()  # type: ignore[attr-defined]
            side.connect(RelayedProtocol())
        session = makeSession("imap", "127.0.0.1:143", "192.0.2.7:40123", 0.0)
        relays = Relays(clock)
        terms = Terms(relays, 100, 10, lambda relay: None)
        relay = relays.between(self.client.protocol, self.backend.protocol, session, terms)
        relay.start(b"", b"")

    def asked(self) -> int:
        """The number of calls for the client's socket. There is none for the backend's."""
        self.assertEqual(self.backend.socket.asked, 0)  # type: ignore[attr-defined]
        asked: int = self.client.socket.asked  # type: ignore[attr-defined]
        return asked

    def test_commands(self) -> None:
        """Commands and answers of any kind cause no call."""
        for command in COMMANDS:
            self.client.protocol.dataReceived(command)
            self.backend.protocol.dataReceived(b"* 1 FETCH {2000}\r\n")
            self.backend.protocol.dataReceived(b"x" * 2000)
            self.backend.protocol.dataReceived(b")\r\na OK\r\n")
        self.assertEqual(self.asked(), 0)

    def test_pieces(self) -> None:
        """Each piece causes a call, also if the backend requests the rest, until the backend has answered."""
        for pieces in PIECES:
            for place, piece in enumerate(pieces):
                before = self.asked()
                self.client.protocol.dataReceived(piece)
                self.assertEqual(self.asked(), before + 1, piece)
                if not place and piece.endswith(b"}\r\n"):
                    self.backend.protocol.dataReceived(b"+ OK\r\n")
            self.backend.protocol.dataReceived(b"a OK\r\n")
            before = self.asked()
            self.client.protocol.dataReceived(b"a NOOP\r\n")
            self.assertEqual(self.asked(), before)


def _unacknowledged(connection: socket.socket) -> int:
    """The number of unacknowledged segments that the system has sent on C{connection} (tcpi_unacked)."""
    (count,) = struct.unpack_from("=I", connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)
    assert isinstance(count, int)
    return count


class StreamRelayTests(SynchronousTestCase):
    """
    After the login, over descriptors, with real sockets. On the loopback an acknowledgement arrives within the call
    that sends it.
    """

    if quickack._QUICKACK is None or not hasattr(select, "epoll"):
        skip = "this system has no TCP_QUICKACK"

    def setUp(self) -> None:
        reactor = LeanReactor(MemoryReactorClock())
        self.poller = reactor.poller
        self.client, client = self.connect()
        self.backend, backend = self.connect()
        session = makeSession("imap", "127.0.0.1:143", "192.0.2.7:40123", 0.0)
        relays = StreamRelays(self.poller, reactor.clock)
        self.addCleanup(relays.close)
        self.ended: list[Any] = []
        relay: Any = relays.between(client, backend, session, Terms(relays, 100, 10, self.ended.append))
        relay.start(b"", b"")
        self.addCleanup(lambda: self.ended or relay.stop())
        self.asked = 0

        def counting(fd: int) -> None:
            self.asked += 1
            acknowledge(fd)

        self.patch(relayend, "acknowledge", counting)

    def connect(self) -> tuple[socket.socket, RelayedProtocol]:
        """A peer, and its protocol."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            peer = socket.create_connection(listening.getsockname(), 20)
            accepted, _ = listening.accept()
        self.addCleanup(peer.close)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.setblocking(False)
        peerName = accepted.getpeername()
        protocol = RelayedProtocol()
        StreamTransport(self.poller, accepted.detach(), socket.AF_INET, peerName).open(protocol)
        return peer, protocol

    def carry(self, source: socket.socket, target: socket.socket, data: bytes) -> None:
        """Relay C{data}."""
        waiting = select.poll()
        waiting.register(self.poller.fileno(), select.POLLIN)
        waiting.register(target.fileno(), select.POLLIN)
        source.sendall(data)
        received = b""
        target.setblocking(False)
        while received != data:
            self.assertTrue(waiting.poll(20000))
            self.poller.doRead()
            try:
                received += target.recv(1 << 20)
            except BlockingIOError:
                continue
        target.settimeout(20)

    def test_commands(self) -> None:
        """Commands and their answers cause no call."""
        for command in COMMANDS:
            self.carry(self.client, self.backend, command)
            self.carry(self.backend, self.client, b"* 1 FETCH {2000}\r\n" + b"x" * 2000 + b")\r\na OK\r\n")
        self.assertEqual(self.asked, 0)

    def test_pieces(self) -> None:
        """Every piece is acknowledged when it is relayed. The next command causes no call."""
        for pieces in PIECES:
            for place, piece in enumerate(pieces):
                self.carry(self.client, self.backend, piece)
                self.assertEqual(_unacknowledged(self.client), 0, piece)
                if not place and piece.endswith(b"}\r\n"):
                    self.carry(self.backend, self.client, b"+ OK\r\n")
            self.carry(self.backend, self.client, b"a OK\r\n")
            before = self.asked
            self.carry(self.client, self.backend, b"a NOOP\r\n")
            self.assertEqual(self.asked, before)
            self.carry(self.backend, self.client, b"a OK\r\n")

    def test_upload(self) -> None:
        """So is the last piece of a long message, which is not examined."""
        message = LITERAL * 4000
        for data in (message, b"\r\n"):
            self.carry(self.client, self.backend, data)
            self.assertEqual(_unacknowledged(self.client), 0)

    def test_gone(self) -> None:
        """A client that is dropped while its piece is relayed causes no call."""
        self.backend.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.backend.close()
        self.client.sendall(b"a ")
        for _ in range(10):
            self.poller.doRead()
        self.assertEqual((self.client.recv(1), len(self.ended), self.asked), (b"", 1, 0))


class DialogueTests(SynchronousTestCase):
    """Before the login."""

    if quickack._QUICKACK is None:
        skip = "this system has no TCP_QUICKACK"

    def asked(self, record: Any, *pieces: bytes, **settings: Any) -> list[int]:
        """The number of calls after each of C{pieces}."""
        conversation = Conversation(record, authenticator=FakeAuthenticator(None), **settings)
        noting = conversation.transport.socket = Noting()  # type: ignore[attr-defined]
        asked = []
        for piece in pieces:
            conversation.send(piece)
            asked.append(noting.asked)
        return asked

    def test_commands(self) -> None:
        """Commands that are answered, and logins, cause no call."""
        for record, commands in (
            (IMAP4, (b"a CAPABILITY\r\n", b"a NOOP\r\nb NOOP\r\n", b"a AUTHENTICATE PLAIN\r\n", b"AGpvZQBz\r\n")),
            (IMAP4, (b"a LOGIN joe sesame\r\n", b"b SELECT INBOX\r\n", b"c ")),
            (POP3, (b"CAPA\r\n", b"USER joe\r\n", b"PASS sesame\r\n")),
            (SMTP, (b"EHLO x\r\n", b"AUTH LOGIN\r\n", b"am9l\r\n", b"c2VzYW1l\r\n")),
        ):
            self.assertEqual(self.asked(record, *commands), [0] * len(commands))

    def test_pieces(self) -> None:
        """Pieces of commands, responses to challenges, literals and discarded input are acknowledged."""
        for record, pieces, asked in (
            (IMAP4, (b"a ", b"NO", b"OP\r\n"), [1, 2, 2]),
            (IMAP4, (b"a AUTHENTICATE PLAIN\r\n", b"AGpvZQ", b"Bz\r\n"), [0, 1, 1]),
            # The literal is expected when it is requested: its first piece then needs no system call.
            (IMAP4, (b"a LOGIN joe {6}\r\n", b"ses", b"ame", b"\r\n"), [1, 2, 3, 3]),
            (IMAP4, (b"a LOGIN joe {6+}\r\n", b"sesame", b"\r\n"), [1, 2, 2]),
            (POP3, (b"USER", b" joe\r\nPA", b"SS sesame\r\n"), [1, 2, 2]),
            (SMTP, (b"EHLO", b" x\r\n"), [1, 1]),
            (SMTP, (b"BDAT 9\r\n", b"12345", b"6789"), [1, 2, 2]),
        ):
            self.assertEqual(self.asked(record, *pieces), asked, pieces)

    def test_handshake(self) -> None:
        """Bytes before a handshake are left to TLS."""
        settings = TLSSettings(starttls="on")
        conversation = Conversation(POP3, settings)
        noting = conversation.transport.socket = Noting()  # type: ignore[attr-defined]
        conversation.send(b"STLS\r\nUSER")
        self.assertEqual(noting.asked, 0)
