"""
Tests for L{mailgate.tls.tickets}, L{mailgate.tls.server} and L{mailgate.lean.tls}: sessions that real clients resume,
with a clock that the tests set.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.lean import tls as tlslayer
from mailgate.test.lean.test_tls import Case as LayerCase
from mailgate.test.support.tlsengines import FAST
from mailgate.test.support.tlspair import clientContext, makePair, settingsFor
from mailgate.test.support.transportends import Near
from mailgate.tls import makeengine as tlsengine
from mailgate.tls import tickets
from mailgate.tls.clientcertificate import NotingConnection
from mailgate.tls.clienthello import ClientHello
from mailgate.tls.context import checkTLS
from mailgate.tls.engine import PublicEngine
from mailgate.tls.server import ServerTLS
from mailgate.tls.settings import SessionCache
from mailgate.tls.tickets import PERIOD, SIZE, FixedKeys, ITicketReader, TicketRing, keyName

VERSIONS = ("TLSv1_2", "TLSv1_3")
LIFETIME = 300.0


def contexts(count: int = SIZE) -> list[Any]:
    """Stand-ins for contexts, without handshakes."""
    return [SSL.Context(SSL.TLS_SERVER_METHOD) for _ in range(count)]


class TurnTests(SynchronousTestCase):
    """The turns of a L{TicketRing}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1e6)
        self.contexts = contexts()
        self.ring = self.makeRing(LIFETIME)

    def makeRing(self, lifetime: float) -> TicketRing:
        return TicketRing(self.contexts, lifetime, self.clock.seconds)

    def at(self, seconds: float) -> tuple[int, list[int]]:
        """
        The numbers of the context that issues tickets, and of those that still accept theirs, C{seconds} after the
        start.
        """
        self.clock.rightNow = 1e6 + seconds
        return self.contexts.index(self.ring.issuing), [self.contexts.index(each) for each in self.ring.older]

    def test_first(self) -> None:
        """At the start the first context issues tickets, and there are no older ones."""
        self.assertEqual(self.at(0), (0, []))
        self.assertEqual(self.at(PERIOD - 1), (0, []))

    def test_next(self) -> None:
        """Then the next one issues tickets, and the previous one accepts its own until they expire."""
        self.assertEqual(self.at(PERIOD), (1, [0]))
        self.assertEqual(self.at(PERIOD + LIFETIME - 1), (1, [0]))
        self.assertEqual(self.at(PERIOD + LIFETIME), (1, []))
        self.assertEqual(self.at(2 * PERIOD), (2, [1]))

    def test_round(self) -> None:
        """After the last context the first has its turn again."""
        self.assertEqual(self.at((SIZE - 1) * PERIOD + LIFETIME), (SIZE - 1, []))
        self.assertEqual(self.at(SIZE * PERIOD), (0, [SIZE - 1]))
        self.assertEqual(self.at((SIZE + 1) * PERIOD), (1, [0]))

    def test_longSessions(self) -> None:
        """A turn is at least as long as a session can be resumed."""
        self.ring = self.makeRing(86400.0)
        self.clock.rightNow = 1e6
        self.ring = self.makeRing(86400.0)
        self.assertEqual(self.at(86399), (0, []))
        self.assertEqual(self.at(86400), (1, [0]))
        self.assertEqual(self.at(2 * 86400 - 1), (1, [0]))
        self.assertEqual(self.at(2 * 86400), (2, [1]))

    def test_fixed(self) -> None:
        """With fixed keys the first always issues tickets, and all others accept theirs."""
        fixed = FixedKeys(self.contexts[:3])
        self.assertIs(fixed.issuing, self.contexts[0])
        self.assertEqual(list(fixed.older), self.contexts[1:3])
        self.assertEqual(list(FixedKeys(self.contexts[:1]).older), [])


class GiveTests(SynchronousTestCase):
    """L{TicketRing.give}: keys that other gateways have, too."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.contexts = contexts()
        self.ring = TicketRing(self.contexts, LIFETIME, self.clock.seconds)
        self.used: dict[Any, bytes] = {}
        self.patch(tickets, "keyName", lambda context: self.used.get(context, b"own")[:16])

    def use(self, context: Any, key: bytes) -> bool:
        self.assertIsNot(context, self.ring.issuing)
        self.used[context] = key
        return True

    def keys(self, *numbers: int) -> list[bytes]:
        return [bytes([number]) * 80 for number in numbers]

    def assertUsed(self, *numbers: int) -> None:
        """The first of the keys issues tickets, and all accept theirs."""
        inUse = [self.ring.issuing, *self.ring.older]
        self.assertEqual([self.used[each] for each in inUse], self.keys(*numbers))
        for each, number in zip(inUse, numbers, strict=True):
            if each is not self.ring.issuing:
                self.assertIs(self.ring.find([bytes([number]) * 16 + b"rest"]), each)

    def test_turns(self) -> None:
        """
        Keys come and go. A context keeps its key as long as that is in use, and the one that issues tickets is never
        changed. There are no turns any more.
        """
        for numbers in ((1,), (1, 2), (2, 1), (2,), (2, 3), (3, 2), (4, 3, 2, 1), (5,), (6, 7, 5), (8, 9, 10, 11)):
            before = {key: context for context, key in self.used.items() if context in self.inUse()}
            self.assertTrue(self.ring.give(self.keys(*numbers), self.use))
            self.assertUsed(*numbers)
            for key in self.keys(*numbers):
                if key in before:
                    self.assertIn(before[key], self.inUse())
            self.clock.advance(3 * PERIOD)
            self.assertUsed(*numbers)

    def inUse(self) -> list[Any]:
        return [self.ring.issuing, *self.ring.older]

    def test_again(self) -> None:
        """The same keys once more change nothing."""
        self.ring.give(self.keys(1, 2), self.use)
        self.assertTrue(self.ring.give(self.keys(1, 2), lambda context, key: self.fail("used again")))
        self.assertUsed(1, 2)

    def test_fails(self) -> None:
        """If OpenSSL reports failure, or issues other tickets, the ring goes on by itself."""
        for use in (lambda context, key: False, lambda context, key: True):
            self.assertFalse(self.ring.give(self.keys(1), use))
            self.assertIs(self.ring.issuing, self.contexts[0])
            self.clock.advance(PERIOD)
            self.assertIs(self.ring.issuing, self.contexts[1])
            self.clock.advance((SIZE - 1) * PERIOD)


class Client:
    """A client of the standard library, with the interface of L{mailgate.test.support.tlsengines.Peer}."""

    def __init__(self, context: ssl.SSLContext, session: Any = None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, False, None, session)
        self.handshaken = False

    def handshake(self) -> None:
        try:
            self.tls.do_handshake()
            self.handshaken = True
        except ssl.SSLWantReadError:
            pass

    def feed(self, data: bytes) -> None:
        self._incoming.write(data)

    def output(self) -> bytes:
        return self._outgoing.read()

    def read(self) -> bytes:
        """What was received. With TLS 1.3 the client reads its tickets now."""
        try:
            return self.tls.read(65536)
        except ssl.SSLWantReadError:
            return b""

    @property
    def offered(self) -> tuple[bytes, ...]:
        """The tickets in the client's ClientHello, which is consumed."""
        self.handshake()
        hello = ClientHello()
        assert hello.feed(self.output())
        return hello.tickets


def serve(server: ServerTLS, client: Client) -> None:
    """Complete a handshake in memory, as a transport that reads tickets does, and send a greeting."""
    client.handshake()
    hello = ClientHello()
    assert hello.feed(client.output())
    creator = server.creatorFor(hello.tickets) if server.readsTickets else None
    connection = server.newConnection() if creator is None else creator.serverConnectionForTLS(None)  # type: ignore[arg-type]
    connection.set_accept_state()
    connection.bio_write(bytes(hello.received))
    welcome(connection, client)


def saidBy(connection: SSL.Connection) -> bytes:
    """The bytes that wait to be sent."""
    try:
        return connection.bio_read(65536)
    except SSL.WantReadError:
        return b""


def welcome(connection: SSL.Connection, client: Client) -> None:
    """Complete the handshake with C{client}, whose ClientHello C{connection} has, and send a greeting."""
    for _ in range(4):
        with contextlib.suppress(SSL.WantReadError):
            connection.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            client.feed(connection.bio_read(65536))
        client.handshake()
        if said := client.output():
            connection.bio_write(said)
    connection.send(b"* OK\r\n")
    client.feed(connection.bio_read(65536))
    assert client.read() == b"* OK\r\n"


class Case(SynchronousTestCase):
    """A server whose clock is C{self.clock}."""

    def setUp(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        self.pair = makePair(folder, "server")
        self.clock = Clock()

    def server(self, **changes: Any) -> ServerTLS:
        return ServerTLS(settingsFor(self.pair, **{"sessionTimeout": LIFETIME, **changes}), "imap", self.clock.seconds)

    def visit(self, server: ServerTLS, context: ssl.SSLContext, session: Any = None) -> Client:
        """A client after a handshake."""
        client = Client(context, session)
        serve(server, client)
        return client


class KeyNameTests(Case):
    """L{keyName}."""

    def test_inTickets(self) -> None:
        """The name is at the beginning of a context's tickets, in both versions, and differs from any other's."""
        names = set()
        for version in VERSIONS:
            server, context = self.server(), clientContext(version)
            first = self.visit(server, context)
            (ticket,) = Client(context, first.tls.session).offered
            name = keyName(server._contexts.issuing)
            self.assertEqual((len(name), ticket[:16]), (16, name), version)
            self.assertEqual(keyName(server._contexts.issuing), name)
            names |= {name, *map(keyName, server._contexts._contexts)}
        self.assertEqual(len(names), 2 * SIZE)

    def test_fewIdeas(self) -> None:
        """The name is found for a server with only one version, curve, cipher or suite."""
        for changes in (
            {"protocols": ("TLSv1.2",)},
            {"protocols": ("TLSv1.3",)},
            {"curve": "secp521r1"},
            {"protocols": ("TLSv1.2",), "ciphers": "ECDHE-ECDSA-AES128-SHA"},
            {"protocols": ("TLSv1.3",), "commands": (("Ciphersuites", "TLS_AES_128_CCM_SHA256"),)},
            {"protocols": ("TLSv1",), "ciphers": "ALL:@SECLEVEL=0"},
        ):
            self.assertEqual(len(keyName(self.server(**changes)._contexts.issuing)), 16, changes)

    def test_none(self) -> None:
        """There is no name if no client can complete a handshake."""
        self.assertEqual(keyName(SSL.Context(SSL.TLS_SERVER_METHOD)), b"")


class ResumptionTests(Case):
    """Sessions of L{ServerTLS} over time."""

    def resumes(self, server: ServerTLS, *advances: float) -> list[bool]:
        """Whether a client with its latest ticket resumes its session after each of C{advances}, in each version."""
        found = []
        for version in VERSIONS:
            self.clock.rightNow = 0
            context = clientContext(version)
            clients = [self.visit(server, context)]
            for seconds in advances:
                self.clock.advance(seconds)
                clients.append(self.visit(server, context, clients[-1].tls.session))
            found.append([bool(client.tls.session_reused) for client in clients[1:]])
        self.assertEqual(found[0], found[1])
        return found[0]

    def test_interface(self) -> None:
        """It provides the interface for transports that read the ClientHello."""
        self.assertTrue(verifyObject(ITicketReader, self.server()))

    def test_sameTurn(self) -> None:
        """A session is resumed while the keys are the same."""
        self.assertEqual(self.resumes(self.server(), 1, PERIOD - 2), [True, True])

    def test_overChange(self) -> None:
        """A session is resumed right after a change of keys, and again."""
        self.assertEqual(self.resumes(self.server(), PERIOD, LIFETIME - 1), [True, True])

    def test_afterChange(self) -> None:
        """A session is not resumed later. Then the client receives a ticket of the new key, and resumes by that."""
        self.assertEqual(self.resumes(self.server(), PERIOD + LIFETIME, 1), [False, True])

    def test_renewed(self) -> None:
        """A ticket that was renewed after the change expires together with the others of its key."""
        self.assertEqual(self.resumes(self.server(), PERIOD + LIFETIME - 1, 1, 1), [True, False, True])

    def test_laterTurn(self) -> None:
        """A ticket has expired by the turn after the next."""
        self.assertEqual(self.resumes(self.server(), 2 * PERIOD), [False])

    def test_timeout(self) -> None:
        """ssl_session_timeout limits how long keys are valid after their turn, and OpenSSL applies it, too."""
        server = self.server(sessionTimeout=20.0)
        self.assertEqual({each.get_timeout() for each in server._contexts._contexts}, {20})
        self.assertEqual(self.resumes(server, PERIOD + 19), [True])
        self.assertEqual(self.resumes(server, PERIOD + 20), [False])

    def test_stranger(self) -> None:
        """With a ticket of another server, or garbage, there is a full handshake."""
        for version in VERSIONS:
            server, context = self.server(), clientContext(version)
            known = self.visit(server, context)
            stranger = self.visit(self.server(), context)
            self.clock.advance(PERIOD)
            self.assertFalse(self.visit(server, context, stranger.tls.session).tls.session_reused)
            self.assertTrue(self.visit(server, context, known.tls.session).tls.session_reused)
            self.assertIsNone(server.creatorFor((b"", b"short", bytes(200))))
            self.assertIsNone(server.creatorFor(()))

    def test_newKeys(self) -> None:
        """A client with a ticket of the new key gets the new context."""
        server, context = self.server(), clientContext()
        self.clock.advance(PERIOD)
        client = self.visit(server, context)
        self.assertIsNone(server.creatorFor(Client(context, client.tls.session).offered))
        self.assertTrue(self.visit(server, context, client.tls.session).tls.session_reused)

    def test_readsTickets(self) -> None:
        """Tickets are read only while some of an older key are valid."""
        server = self.server()
        found = []
        for seconds in (0, PERIOD - 1, 1, LIFETIME - 1, 1):
            self.clock.advance(seconds)
            found.append(server.readsTickets)
        self.assertEqual(found, [False, False, True, True, False])

    def test_oneContext(self) -> None:
        """Without tickets there is only one context."""
        for changes in (
            {"sessionTickets": False},
            {"commands": (("Options", "-SessionTicket"),)},
            {"verifyClient": "optional_no_ca"},
        ):
            server = self.server(**changes)
            self.assertEqual(len(server._contexts._contexts), 1, changes)
            self.clock.advance(PERIOD)
            self.assertFalse(server.readsTickets)

    def test_verifiesClients(self) -> None:
        """If client certificates are requested, no session is resumed, before a change of keys or after it."""
        server = self.server(verifyClient="optional_no_ca", sessionCache=SessionCache(True))
        self.assertEqual(self.resumes(server, 1, PERIOD), [False, False])

    def test_notLooking(self) -> None:
        """
        With a transport that does not read tickets, there is a full handshake after a change. New tickets are resumed.
        """
        for version in VERSIONS:
            server, context = self.server(), clientContext(version)
            session = self.visit(server, context).tls.session
            self.clock.advance(PERIOD)
            found = []
            for _ in range(2):
                client = Client(context, session)
                client.handshake()
                connection = server.serverConnectionForTLS(None)
                connection.set_accept_state()
                connection.bio_write(client.output())
                welcome(connection, client)
                found.append(client.tls.session_reused)
                session = client.tls.session
            self.assertEqual(found, [False, True])

    def test_early(self) -> None:
        """A connection that is made before its first byte knows whether the byte has arrived."""
        server = self.server()
        self.clock.advance(PERIOD)
        connection = server.serverConnectionForTLS(None)
        self.assertFalse(connection.heard)
        connection.set_accept_state()
        connection.bio_write(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(connection.heard)
        self.assertRaises(SSL.Error, connection.do_handshake)
        self.assertIs(type(server.newConnection()), NotingConnection)

    def test_check(self) -> None:
        """Checking a configuration makes one context, and one of a client, but no ring."""
        made = []

        class Noted(SSL.Context):
            def __init__(self, method: int) -> None:
                super().__init__(method)
                made.append(self)

        self.patch(SSL, "Context", Noted)
        checkTLS(settingsFor(self.pair), "imap")
        self.assertEqual(len(made), 2)


class ForkTests(Case):
    """Processes of a server that are forked after its contexts were made."""

    def worker(self, server: ServerTLS) -> ssl.SSLSocket:
        """The client's end of a connection to a new process."""
        near, far = socket.socketpair()
        child = os.fork()
        if not child:
            try:
                near.close()
                self.serveSocket(server, far)
            finally:
                os._exit(0)
        far.close()
        near.settimeout(20)
        self.addCleanup(os.waitpid, child, 0)
        client = self.context.wrap_socket(near, session=self.session)
        self.addCleanup(client.close)
        # With TLS 1.3 the client reads its tickets now.
        self.assertEqual(client.read(6), b"* OK\r\n")
        return client

    def serveSocket(self, server: ServerTLS, far: socket.socket) -> None:
        far.settimeout(20)
        hello = ClientHello()
        while not hello.feed(far.recv(65536)):
            pass
        creator: Any = server.creatorFor(hello.tickets)
        connection = server.newConnection() if creator is None else creator.serverConnectionForTLS(None)
        connection.set_accept_state()
        connection.bio_write(bytes(hello.received))
        while True:
            try:
                connection.do_handshake()
                break
            except SSL.WantReadError:
                far.sendall(connection.bio_read(65536))
                connection.bio_write(far.recv(65536))
        connection.send(b"* OK\r\n")
        far.sendall(connection.bio_read(65536))
        far.recv(1)

    def test_otherWorker(self) -> None:
        """A ticket of one process is resumed by every other, also after a change of keys, until it expires."""
        for version in VERSIONS:
            self.clock.rightNow = 0
            server, self.context, self.session = self.server(), clientContext(version), None
            found = []
            for seconds in (0.0, 1.0, PERIOD, LIFETIME):
                self.clock.advance(seconds)
                client = self.worker(server)
                found.append(client.session_reused)
                self.session = client.session
            self.assertEqual(found, [False, True, True, False], version)


class LayerScenarios(LayerCase):
    """Transports of a server whose keys have just changed, and C{self.peer}, which has a ticket of the old key."""

    context: ssl.SSLContext

    def setUp(self) -> None:
        super().setUp()
        folder = self.mktemp()
        os.mkdir(folder)
        self.clock = Clock()
        self.creator = ServerTLS(
            settingsFor(makePair(folder, "server"), sessionTimeout=LIFETIME), "imap", self.clock.seconds
        )

    def visited(self, version: str, advance: float = PERIOD) -> None:
        """Let a client leave with a ticket, wait C{advance} seconds, and let another connect with it."""
        self.context = clientContext(version)
        before = self.before = Client(self.context)
        serve(self.creator, before)
        self.clock.advance(advance)
        peer: Any = Client(self.context, before.tls.session)
        self.peer = peer

    def start(self, near: Near) -> Any:
        """Open a connection as a port does, and let its protocol start TLS."""
        transport = self.open(near)
        transport.tls = None
        self.engines: list[Any] = []
        make = tlsengine.makeEngine

        def noting(*arguments: Any) -> Any:
            self.engines.append(make(*arguments))
            return self.engines[-1]

        self.patch(tlslayer, "makeEngine", noting)
        transport.startTLS(self.creator)
        return transport

    def test_resumed(self) -> None:
        """
        The session is resumed with one engine, of the old context. The protocol learns it once, at the end of the
        handshake.
        """
        for version in VERSIONS:
            self.visited(version)
            near = Near()
            transport = self.start(near)
            self.peer.handshake()
            self.exchange()
            self.assertEqual(near.told, ["made", "handshake"])
            self.assertTrue(self.peer.tls.session_reused)
            self.assertEqual(self.engines, [transport.tls.engine])
            self.assertIs(transport.getHandle(), transport.tls.engine.connection)
            self.peer.tls.write(b"a001 NOOP\r\n")
            transport.write(b"* OK\r\n")
            self.exchange()
            self.assertEqual((near.received, self.peer.read()), (b"a001 NOOP\r\n", b"* OK\r\n"))
            self.assertNothingLeft()

    def test_everyByte(self) -> None:
        """The same if the ClientHello arrives byte by byte, and the Finished together with data."""
        self.visited("TLSv1_3")
        near = Near()
        transport = self.start(near)
        self.peer.handshake()
        said = self.peer.output()
        for at in range(len(said)):
            self.assertEqual(self.hear(), b"", at)
            self.far.send(said[at : at + 1])
            self.poller.doRead()
        self.peer.feed(self.hear())
        self.peer.handshake()
        self.peer.tls.write(b"a001 NOOP\r\n")
        self.exchange()
        self.assertTrue(self.peer.tls.session_reused)
        self.assertEqual((near.told[:2], near.received), (["made", "handshake"], b"a001 NOOP\r\n"))
        self.assertIsNone(transport.tls._hello)

    def test_noTicket(self) -> None:
        """Without a ticket, or with a ticket of an unknown key, there is a full handshake with one engine."""
        stranger = Client(clientContext())
        serve(ServerTLS(settingsFor(self.creatorPair()), "imap"), stranger)
        self.visited("TLSv1_3")
        for session in (None, stranger.tls.session):
            peer: Any = Client(self.context if session is None else stranger.tls.context, session)
            self.peer = peer
            near = Near()
            transport = self.start(near)
            self.peer.handshake()
            self.exchange()
            self.assertEqual(near.told, ["made", "handshake"])
            self.assertFalse(self.peer.tls.session_reused)
            self.assertEqual(self.engines, [transport.tls.engine])
            self.assertNothingLeft()

    def creatorPair(self) -> Any:
        """A certificate of another CA."""
        folder = self.mktemp()
        os.mkdir(folder)
        return makePair(folder, "stranger")

    def test_garbage(self) -> None:
        """Bytes that are not TLS are refused by OpenSSL at once."""
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x04\x02\0\0\0", b"\x16\x03\x01\xff\xff"):
            self.visited("TLSv1_3")
            near = Near()
            self.start(near)
            self.far.send(garbage)
            self.poller.doRead()
            self.reactor.advance(0)
            self.assertEqual(near.told, ["made", "lost"])
            self.assertIsInstance(near.reason, SSL.Error)
            self.assertNothingLeft()

    def test_neverComplete(self) -> None:
        """If a client closes during its ClientHello, the connection is lost, and nothing is left."""
        self.visited("TLSv1_3")
        near = Near()
        self.start(near)
        self.peer.handshake()
        self.far.send(self.peer.output()[:-1])
        self.poller.doRead()
        self.assertEqual((near.told, self.hear()), (["made"], b""))
        self.far.shutdown(socket.SHUT_WR)
        self.poller.doRead()
        self.reactor.advance(0)
        self.assertEqual(near.told, ["made", "lost"])
        self.assertIsInstance(near.reason, ConnectionLost)

    def test_early(self) -> None:
        """Data written before the ClientHello has arrived are sent after the handshake, and then the end."""
        self.visited("TLSv1_3")
        near = Near()
        transport = self.start(near)
        transport.write(b"* BYE busy\r\n")
        transport.loseConnection()
        self.peer.handshake()
        self.exchange()
        self.assertEqual(self.peer.read(), b"* BYE busy\r\n")
        self.assertEqual(near.told[-1], "lost")

    def test_notOutsideChange(self) -> None:
        """At other times OpenSSL receives the bytes as they arrive."""
        self.visited("TLSv1_3", PERIOD + LIFETIME)
        transport = self.start(Near())
        self.assertIsNone(transport.tls._hello)

    def test_backend(self) -> None:
        """The client's side never waits for a ClientHello."""
        self.visited("TLSv1_3")
        transport = self.open(Near())
        transport.tls = None
        self.assertTrue(self.creator.readsTickets)
        self.assertRaises(TypeError, transport.startTLS, self.creator, False)


class FastLayerTests(LayerScenarios, SynchronousTestCase):
    """With L{mailgate.tls.fastengine.FastEngine}."""

    kind = FAST


class PublicLayerTests(LayerScenarios, SynchronousTestCase):
    """With L{mailgate.tls.engine.PublicEngine}."""

    kind = PublicEngine

    def setUp(self) -> None:
        super().setUp()
        self.patch(tlsengine, "_bestKind", lambda: PublicEngine)


if not hasattr(select, "epoll"):
    FastLayerTests.skip = PublicLayerTests.skip = "there is no epoll"
