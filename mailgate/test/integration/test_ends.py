"""
How sessions end whose time is over, and those of a backend that fails or is taken down: real sockets, over both kinds
of transports. The backends and the clients are in this process.
"""

from __future__ import annotations

import os

from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import TestCase

from mailgate.config import parse
from mailgate.login import Backend, BackendGroup, Route, RouteOptions
from mailgate.service import Gateway
from mailgate.session import Outcome, Phase
from mailgate.test.integration.daemon import freePort
from mailgate.test.integration.transports import withTransports
from mailgate.test.support.talk import Talk
from mailgate.test.support.tlspair import makePair
from mailgate.testing import FakeAuthenticator

DEADLINE = 20.0
"""The most seconds that a test waits for something to happen."""

ANSWER = len(b"a OK done\r\n")
"""The bytes of the login's answer, which count as relayed."""

MESSAGE = os.urandom(1024 * 1024) * 50
"""50 MiB."""

CONFIGURATION = """
[mailgate]
error_log = stderr info
[mail]
server_name = mx.test
auth_delay = 0
limit_conn = off
xclient = off
smtp_auth = plain
{mail}
[upstream store]
server =
    127.0.0.1:{backend}
    127.0.0.1:{other}
hash = $user
{group}
[server imap]
protocol = imap
listen = 127.0.0.1:{imap}
proxy_pass = store
[server imaps]
protocol = imap
listen = 127.0.0.1:{imaps} ssl
ssl_certificate = {certificate}
ssl_certificate_key = {key}
proxy_pass = store
[server smtp]
protocol = smtp
listen = 127.0.0.1:{smtp}
proxy_pass = 127.0.0.1:{submission}
"""


class IMAPBackend(LineReceiver):
    """An IMAP server with one large message."""

    def connectionMade(self):
        self.factory.connections.add(self)
        self.sendLine(b"* OK [CAPABILITY IMAP4rev1 IDLE] ready")

    def connectionLost(self, reason=connectionDone):
        self.factory.connections.discard(self)

    def lineReceived(self, line):
        tag, _, rest = line.partition(b" ")
        word = rest.partition(b" ")[0].upper()
        if word == b"LOGIN":
            self.factory.logins += 1
        if word == b"IDLE":
            self.sendLine(b"+ idling")
        elif word == b"FETCH":
            self.transport.write(b"* 1 FETCH (BODY[] {%d}\r\n" % len(MESSAGE))
            self.transport.write(MESSAGE)
            self.sendLine(b")\r\n" + tag + b" OK done")
        elif word == b"LOGOUT":
            self.sendLine(b"* BYE\r\n" + tag + b" OK done")
            self.transport.loseConnection()
        elif line != b"DONE":
            self.sendLine(tag + b" OK done")


class SMTPBackend(LineReceiver):
    """A submission server. Its factory counts the bytes of messages, and the messages that were complete."""

    MAX_LENGTH = 1024 * 1024
    inMessage = False

    def connectionMade(self):
        self.factory.connections.add(self)
        self.sendLine(b"220 ready")

    def connectionLost(self, reason=connectionDone):
        self.factory.connections.discard(self)

    def lineReceived(self, line):
        if self.inMessage:
            self.factory.size += len(line) + 2
            if line == b".":
                self.inMessage = False
                self.factory.delivered += 1
                self.factory.reactor.callLater(self.factory.delay, self.sendLine, b"250 delivered")
        elif line.upper() == b"DATA":
            self.inMessage = True
            self.sendLine(b"354 go on")
        else:
            self.sendLine(b"250 done")


class Server(Factory):
    """A server's connections."""

    logins = delivered = size = 0

    def __init__(self, protocol, reactor, delay=0.0):
        self.protocol = protocol
        self.reactor = reactor
        self.delay = delay
        self.connections = set()


class Client(Talk):
    """A client that notes why its connection ended."""

    reason = None

    def connectionLost(self, reason=None):
        self.reason = reason.value
        super().connectionLost(reason)


class EndsCase:
    """Over the transports that C{use} names."""

    use = ""
    timeout = 120

    def setUp(self):
        from twisted.internet import reactor

        self.reactor = reactor
        self.servers = {name: Server(IMAPBackend, reactor) for name in ("backend", "other")}
        self.servers["submission"] = Server(SMTPBackend, reactor, delay=2.5)

    async def start(self, mail="", group="", authenticators=None):
        """Start backends, and a gateway before them."""
        ports = {name: freePort() for name in ("imap", "imaps", "smtp")}
        self.listening = {}
        for name, server in self.servers.items():
            endpoint = TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1", backlog=1000)
            self.listening[name] = listening = await endpoint.listen(server)
            self.addCleanup(listening.stopListening)
            ports[name] = listening.getHost().port
        self.ports = ports
        folder = self.mktemp()
        os.mkdir(folder)
        pair = makePair(folder, "gateway")
        text = CONFIGURATION.format(**ports, mail=mail, group=group, certificate=pair.certificate, key=pair.key)
        self.gateway = Gateway(parse(withTransports(text, self.use)), self.reactor, authenticators=authenticators or {})
        self.gateway.privilegedStartService()
        self.gateway.startService()
        self.addCleanup(self.gateway.stopService)

    async def startWithLifetime(self, lifetime, name="imap", **more):
        """The same, with an authentication service that gives sessions a time."""
        backends = (BackendGroup("store"),) if name != "smtp" else ()
        judge = Judge(lambda: backends or (Backend("127.0.0.1", self.ports["submission"]),), lifetime)
        await self.start(authenticators={name: judge}, **more)

    async def until(self, condition):
        """Wait for a condition."""
        end = self.reactor.seconds() + DEADLINE
        while not condition():
            self.assertLess(self.reactor.seconds(), end, "it does not happen")
            await deferLater(self.reactor, 0.02)

    async def connect(self, name):
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.ports[name])
        if name == "imaps":
            endpoint = wrapClientTLS(ssl.CertificateOptions(verify=False), endpoint)
        client = await endpoint.connect(Factory.forProtocol(Client))
        self.addCleanup(lambda: client.reason or client.transport.abortConnection())
        return client

    async def loggedIn(self, name="imap", user=b"joe"):
        """A client that is logged in."""
        client = await self.connect(name)
        if name == "smtp":
            await client.hears(b"220 ")
            await client.asks(b"EHLO client", b"\r\n250 ")
            await client.asks(b"AUTH PLAIN AGpvZQBzZXNhbWU=", b"\r\n235 ")
        else:
            await client.hears(b"\r\n")
            await client.asks(b"a LOGIN " + user + b" sesame", b"a OK")
        client.heard = b""
        return client

    def sessions(self):
        """The records of the sessions."""
        return [connection.session for connection in self.gateway.connections]

    # The time of a session.

    async def test_idle(self):
        """In IDLE both sides are closed in an orderly way soon after the time. Nothing is written into the stream."""
        for name in ("imap", "imaps"):
            await self.startWithLifetime(1.0, name)
            client = await self.loggedIn(name)
            (session,) = self.sessions()
            await client.asks(b"b IDLE", b"+ idling\r\n")
            await client.lost
            self.assertEqual(client.heard, b"+ idling\r\n")
            self.assertIsInstance(client.reason, ConnectionDone)
            self.assertLess(self.reactor.seconds() - session.expires, 30)
            self.assertGreaterEqual(self.reactor.seconds(), session.expires)
            await self.until(lambda: not self.gateway.connections)
            self.assertIs(session.outcome, Outcome.EXPIRED)
            self.assertEqual((session.received, session.sent), (8, 10 + ANSWER))
            await self.until(lambda: not (self.servers["backend"].connections or self.servers["other"].connections))

    async def test_maxAge(self):
        """So it is with session_max_age."""
        await self.start("session_max_age = 1s")
        client = await self.loggedIn()
        (session,) = self.sessions()
        await client.lost
        self.assertIs(session.outcome, Outcome.EXPIRED)
        self.assertEqual(client.heard, b"")

    async def test_fetch(self):
        """In the middle of a message of 50 MiB the session ends after it. The message arrives whole."""
        for name in ("imap", "imaps"):
            await self.startWithLifetime(1.0, name)
            client = await self.loggedIn(name)
            (session,) = self.sessions()
            client.pieces = []
            client.dataReceived = client.pieces.append
            client.transport.write(b"b FETCH 1 BODY[]\r\n")
            await self.until(lambda client=client: client.pieces)
            client.transport.pauseProducing()
            # The client reads nothing for longer than a second: that is no silence of the backend.
            await self.until(lambda session=session: self.reactor.seconds() > session.expires + 1.5)
            self.assertIsNone(session.outcome)
            client.transport.resumeProducing()
            await client.lost
            heard = b"".join(client.pieces)
            self.assertEqual(len(heard), len(MESSAGE) + len(b"* 1 FETCH (BODY[] {52428800}\r\n)\r\nb OK done\r\n"))
            self.assertTrue(heard.endswith(b")\r\nb OK done\r\n"))
            self.assertTrue(heard[heard.index(b"\r\n") + 2 :].startswith(MESSAGE))
            await self.until(lambda: not self.gateway.connections)
            self.assertIs(session.outcome, Outcome.EXPIRED)
            self.assertEqual((session.received, session.sent), (18, len(heard) + ANSWER))

    async def test_data(self):
        """In the middle of a message of a client that pauses, the backend gets no end of it, and delivers nothing."""
        await self.startWithLifetime(1.0, "smtp")
        client = await self.loggedIn("smtp")
        (session,) = self.sessions()
        for line, answer in ((b"MAIL FROM:<>", b"250"), (b"RCPT TO:<joe>", b"250"), (b"DATA", b"354")):
            await client.asks(line, answer)
        client.heard = b""
        sent = 0
        # While the client goes on sending, the session goes on.
        while self.reactor.seconds() < session.expires + 1.0:
            client.transport.write(b"x" * 98 + b"\r\n")
            sent += 100
            await deferLater(self.reactor, 0.05)
        self.assertIsNone(session.outcome)
        await client.lost
        self.assertEqual(client.heard, b"")
        server = self.servers["submission"]
        await self.until(lambda: not server.connections)
        self.assertEqual((server.delivered, server.size), (0, sent))
        self.assertIs(session.outcome, Outcome.EXPIRED)

    async def test_dataToEnd(self):
        """A client that finishes its message meanwhile gets its answer, although the backend takes its time."""
        await self.startWithLifetime(1.0, "smtp")
        client = await self.loggedIn("smtp")
        (session,) = self.sessions()
        await client.asks(b"DATA", b"354")
        while self.reactor.seconds() < session.expires + 1.0:
            client.transport.write(b"x" * 98 + b"\r\n")
            await deferLater(self.reactor, 0.05)
        await client.asks(b".", b"250 delivered\r\n")
        await client.lost
        self.assertEqual(self.servers["submission"].delivered, 1)
        self.assertIs(session.outcome, Outcome.EXPIRED)

    async def test_slowBackend(self):
        """Before the login is done, the client gets the goodbye of its protocol."""
        self.servers["backend"].protocol = self.servers["other"].protocol = LineReceiver
        await self.startWithLifetime(0.5)
        client = await self.connect("imap")
        await client.hears(b"\r\n")
        client.heard = b""
        client.transport.write(b"a LOGIN joe sesame\r\n")
        await client.lost
        self.assertEqual(client.heard, b"* BYE Timeout, closing connection\r\n")

    # Backends that fail.

    async def crowd(self, count, name="imap"):
        """C{count} clients at one backend, in IDLE; the backend, and the clients."""
        clients = []
        for _ in range(count):
            client = await self.loggedIn(name)
            clients.append(client)
        for client in clients:
            await client.asks(b"i IDLE", b"+ idling\r\n")
        name = "backend" if self.servers["backend"].connections else "other"
        self.assertEqual(len(self.servers[name].connections), count)
        return self.servers[name], clients

    async def fall(self, server):
        """It dies, and says something before."""
        for connection in list(server.connections):
            connection.transport.write(b"* 5 EXISTS\r\n")
            connection.transport.loseConnection()

    async def test_thousand(self):
        """A thousand sessions of a backend that dies end over max_disconnect_delay, at an even pace."""
        await self.start(group="max_disconnect_delay = 2s")
        count = 1000
        server, clients = await self.crowd(count)
        ends = []
        for client in clients:
            client.lost.addCallback(lambda _: ends.append(self.reactor.seconds()))
        await self.fall(server)
        begun = self.reactor.seconds()
        await self.until(lambda: all(client.heard.endswith(b"* 5 EXISTS\r\n") for client in clients))
        await self.until(lambda: not server.connections)
        # A client that leaves while it waits is not kept.
        leaving = clients[-1]
        leaving.transport.loseConnection()
        await leaving.lost
        await self.until(lambda: len(ends) == count)
        await self.until(lambda: not self.gateway.connections)
        offsets = sorted(end - begun for end in ends)
        self.assertGreater(offsets[-1], 1.5)
        self.assertLess(offsets[-1], 30)
        # Half of them may go at once, as so many go in a second.
        self.assertLessEqual(sum(each < 0.5 for each in offsets), 0.75 * count)
        for client in clients:
            self.assertEqual(client.heard, b"+ idling\r\n* 5 EXISTS\r\n")
        self.assertEqual([peer.connections for group, peer in self.gateway.upstreams.everyPeer() if group], [0, 0])

    async def test_tls(self):
        """Clients over TLS are let go in an orderly way as well. What they send meanwhile does no harm."""
        await self.start(group="max_disconnect_delay = 2s")
        server, clients = await self.crowd(10, "imaps")
        begun = self.reactor.seconds()
        await self.fall(server)
        await self.until(lambda: not server.connections)
        waiting = [client for client in clients if client.reason is None]
        self.assertGreater(len(waiting), 2)
        for client in waiting:
            client.transport.write(b"DONE\r\n" + b"x" * 100000)
        for client in clients:
            await client.lost
            self.assertEqual(client.heard, b"+ idling\r\n* 5 EXISTS\r\n")
            self.assertIsInstance(client.reason, ConnectionDone)
        self.assertGreater(self.reactor.seconds() - begun, 1.5)
        self.assertLess(self.reactor.seconds() - begun, 30)

    async def test_operator(self):
        """Clients that wait keep no gateway from stopping."""
        await self.start(group="max_disconnect_delay = 300s")
        server, clients = await self.crowd(20)
        await self.fall(server)
        await self.until(lambda: not server.connections)
        self.assertGreater(len(self.gateway.connections), 10)
        begun = self.reactor.seconds()
        await self.gateway.stopService()
        self.assertLess(self.reactor.seconds() - begun, 30)
        for client in clients:
            await client.lost

    async def test_logouts(self):
        """Clients that log out are never held, however many do so at once."""
        await self.start(group="max_disconnect_delay = 300s")
        _, clients = await self.crowd(100)
        begun = self.reactor.seconds()
        for client in clients:
            client.transport.write(b"DONE\r\n")
            client.transport.write(b"q LOGOUT\r\n")
        for client in clients:
            await client.lost
            self.assertTrue(client.heard.endswith(b"* BYE\r\nq OK done\r\n"))
        self.assertLess(self.reactor.seconds() - begun, 30)

    async def test_off(self):
        """Without a delay all clients are let go at once."""
        await self.start(group="max_disconnect_delay = 0")
        server, clients = await self.crowd(50)
        await self.fall(server)
        for client in clients:
            await client.lost
            self.assertEqual(client.heard, b"+ idling\r\n* 5 EXISTS\r\n")

    async def test_takenDown(self):
        """With on_down = close, the sessions of a backend that an operator takes down end over the time."""
        await self.start(group="on_down = close\nmax_disconnect_delay = 2s")
        server, clients = await self.crowd(40)
        sessions = self.sessions()
        address = f"127.0.0.1:{next(iter(server.connections)).transport.getHost().port}"
        begun = self.reactor.seconds()
        self.assertEqual(self.gateway.standing.order(address, "down"), 1)
        self.assertLessEqual(sum(session.outcome is not None for session in sessions), 20)
        for client in clients:
            await client.lost
            self.assertEqual(client.heard, b"+ idling\r\n")
        self.assertGreater(self.reactor.seconds() - begun, 1.5)
        self.assertLess(self.reactor.seconds() - begun, 30)
        self.assertEqual({session.outcome for session in sessions}, {Outcome.BACKEND_DOWN})
        again = await self.loggedIn()
        (session,) = [each for each in self.sessions() if each.phase is Phase.RELAY]
        self.assertNotEqual(session.backend, address)
        again.transport.loseConnection()
        await again.lost


class Judge(FakeAuthenticator):
    """Accepts all logins, with a lifetime."""

    def __init__(self, backends, lifetime):
        super().__init__()
        self._backends = backends
        self._lifetime = lifetime

    def authenticate(self, request):
        self.requests.append(request)
        answer = Deferred()
        options = RouteOptions(lifetime=self._lifetime)
        answer.callback(Route(self._backends(), b"joe", b"sesame", options=options))
        return answer


class LeanTests(EndsCase, TestCase):
    """With the transports of L{mailgate.lean}."""

    use = "epoll"


class ReactorTests(EndsCase, TestCase):
    """With Twisted's transports."""

    use = "reactor"
