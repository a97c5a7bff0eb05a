"""
PROXY headers over real sockets and real TLS, both ways, with either kind of transports. Fakes do not show what one
segment contains or which bytes a backend gets first.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import socket
import ssl
import tempfile
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mailgate.config import parse
from mailgate.frontend.realip import HeaderReader
from mailgate.lean.transport import StreamTransport
from mailgate.login import ProxiedAddresses
from mailgate.net.proxyprotocol import HeaderParser
from mailgate.service import Gateway
from mailgate.test.integration.daemon import freePort
from mailgate.test.integration.transports import areLean, withTransports
from mailgate.test.support.proxyheaders import BINARY4, BINARY6, IPV4, IPV6, TEXT4, WITH_TLVS
from mailgate.test.support.talk import Talk
from mailgate.test.support.tlspair import makePair

GATEWAY = """
[mailgate]
error_log = stderr warn
[mail]
server_name = mx.test
auth_file = {folder}/accounts
ssl_certificate = {pair.certificate}
ssl_certificate_key = {pair.key}
starttls = on
{more}
[server imap]
protocol = imap
listen =
    127.0.0.1:{plain} proxy_protocol
    127.0.0.1:{ssl} proxy_protocol ssl
    127.0.0.1:{direct}
    {listen}
"""
GREETING = b"* OK IMAP4 ready\r\n"
LOGIN = b"a LOGIN alice wonderland\r\n"


class TLSTalk(Talk):
    """A client that runs TLS itself, so the test decides what a segment contains."""

    def __init__(self) -> None:
        super().__init__()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._shaken = False

    def begin(self, before: bytes) -> None:
        """Send C{before} and the ClientHello in one segment."""
        self._advance(before)

    def say(self, data: bytes) -> None:
        """Send C{data} encrypted."""
        self._tls.write(data)
        self._advance()

    def dataReceived(self, data: bytes) -> None:
        self._incoming.write(data)
        self._advance()

    def _advance(self, before: bytes = b"") -> None:
        assert self.transport is not None
        plaintext = b""
        try:
            if not self._shaken:
                self._tls.do_handshake()
                self._shaken = True
            while read := self._tls.read(65536):
                plaintext += read
            # The gateway has said goodbye, and waits for the client's.
            self.transport.loseConnection()
        except ssl.SSLWantReadError:
            pass
        self.transport.write(before + self._outgoing.read())
        if plaintext:
            super().dataReceived(plaintext)


@implementer(IHandshakeListener)
class Backend(Protocol):
    """
    An IMAP server behind a PROXY header that answers OK to everything. C{header} has the bytes before the first
    command. With TLS the handshake follows the header.
    """

    transport: Any

    def __init__(self, site: BalancerCase) -> None:
        self._site = site
        self._parser: HeaderParser | None = HeaderParser()
        self.header: ProxiedAddresses | None = None
        self.raw = b""
        self.heard = b""

    def connectionMade(self) -> None:
        self._site.backends.append(self)

    def dataReceived(self, data: bytes) -> None:
        if self._parser is None:
            self.heard += data
            self.transport.write(b"".join(line.split(b" ")[0] + b" OK\r\n" for line in data.splitlines()))
            return
        self.raw += data
        header = self._parser.feed(data)
        if header is None:
            return
        self._parser = None
        self.header = header.addresses
        self.raw = self.raw.removesuffix(header.rest)
        if self._site.backendTLS is None:
            self.handshakeCompleted()
            assert not header.rest, "it has spoken before the greeting"
        else:
            self.transport.startTLS(self._site.backendTLS)
            if header.rest:
                self.transport.protocol.dataReceived(header.rest)

    def handshakeCompleted(self) -> None:
        self.transport.write(b"* OK ready\r\n")


class BalancerCase(TestCase):
    """A gateway behind a load balancer, with the transports of C{use}, and a backend that expects headers."""

    timeout = 30
    use = "epoll"
    more = "set_real_ip_from = 127.0.0.0/8\nproxy_protocol = on"
    account = ""
    backendTLS: Any = None

    reactor: Any
    backends: list[Backend]
    clients: list[Talk]

    def setUp(self):
        from twisted.internet import reactor

        self.reactor = reactor
        # Not trial's, which is too deep for a socket's path.
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.pair = makePair(self.folder, "gateway")
        self.backends = []
        self.clients = []
        port = reactor.listenTCP(0, Factory.forProtocol(lambda: Backend(self)), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        with open(os.path.join(self.folder, "accounts"), "w") as accounts:
            accounts.write(f"alice:{{PLAIN}}wonderland::::::host=127.0.0.1 port={port.getHost().port} {self.account}\n")
        self.ports = {name: freePort() for name in ("plain", "ssl", "direct")}
        self.make(self.more)

    def make(self, more, listen=""):
        """Make the gateway, with the options C{more} and another C{listen}."""
        text = GATEWAY.format(folder=self.folder, pair=self.pair, more=more, listen=listen, **self.ports)
        self.gateway = Gateway(parse(withTransports(text, self.use)), self.reactor)
        self.gateway.privilegedStartService()
        self.gateway.startService()
        self.addCleanup(self.end, self.gateway)

    async def end(self, gateway):
        await gateway.stopService()
        for client in self.clients:
            await client.lost
        while any(backend.transport.connected for backend in self.backends):
            await self.turn()

    async def turn(self):
        """Let the reactor run."""
        turn = Deferred()
        self.reactor.callLater(0, turn.callback, None)
        await turn

    async def client(self, name, kind=Talk):
        """Connect to the address C{name}."""
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.ports[name])
        client = await endpoint.connect(Factory.forProtocol(kind))
        client.transport.setTcpNoDelay(True)
        self.clients.append(client)
        return client


class IncomingTests(BalancerCase):
    """Bytes behind the header in the same segment are not lost and not delayed."""

    async def test_transports(self):
        """Connections are of the configured kind, behind a header too."""
        client = await self.client("plain")
        client.transport.write(TEXT4)
        await client.hears(GREETING)
        (connection,) = self.gateway.connections
        self.assertIs(isinstance(connection.transport, StreamTransport), areLean(self.use))

    async def test_commands(self):
        """The gateway obeys commands in the clear up to the login; the rest goes to the backend."""
        for header in (TEXT4, BINARY6, WITH_TLVS, b"PROXY UNKNOWN\r\n"):
            client = await self.client("plain")
            client.transport.write(header + b"x NOOP\r\n" + LOGIN + b"b NOOP\r\n")
            heard = await client.hears(b"b OK")
            self.assertTrue(heard.startswith(GREETING + b"x OK"), heard)
            self.assertEqual(self.backends[-1].heard.splitlines()[1:], [b"b NOOP"])

    async def test_handshake(self):
        """A ClientHello behind the header reaches TLS, and the session continues at the backend."""
        for header in (TEXT4, BINARY6, WITH_TLVS, b"PROXY UNKNOWN\r\n"):
            client = await self.client("ssl", TLSTalk)
            client.begin(header)
            await client.hears(GREETING)
            client.say(LOGIN + b"b NOOP\r\n")
            await client.hears(b"b OK")

    async def test_apart(self):
        """The same if each byte of the header arrives alone, and TLS after it."""
        for header in (TEXT4, BINARY4):
            client = await self.client("ssl", TLSTalk)
            for byte in header:
                client.transport.write(bytes([byte]))
                await self.turn()
            client.begin(b"")
            await client.hears(GREETING)

    async def test_cutHello(self):
        """The same with the first half of a ClientHello."""
        client = await self.client("ssl", TLSTalk)
        written = []
        self.patch(client.transport, "write", written.append)
        client.begin(TEXT4)
        del client.transport.write
        (segment,) = written
        client.transport.write(segment[:100])
        for _ in range(5):
            await self.turn()
        client.transport.write(segment[100:])
        await client.hears(GREETING)

    async def test_starttls(self):
        """STARTTLS in the segment of the header is obeyed; bytes behind it are discarded."""
        client = await self.client("plain", TLSTalk)
        plain, encrypted = Talk(), client.dataReceived
        client.dataReceived = plain.dataReceived
        client.transport.write(TEXT4 + b"a STARTTLS\r\nb NOOP\r\n")
        heard = await plain.hears(b"a OK")
        self.assertNotIn(b"b ", heard)
        client.dataReceived = encrypted
        client.begin(b"")
        while not client._shaken:
            await self.turn()
        client.say(b"c NOOP\r\n")
        self.assertNotIn(b"b ", await client.hears(b"c OK"))

    async def test_end(self):
        """A client that sends all its commands and closes its side is answered, even if it closes during the header."""
        with socket.create_connection(("127.0.0.1", self.ports["plain"])) as client:
            client.sendall(TEXT4 + b"a LOGOUT\r\n")
            client.shutdown(socket.SHUT_WR)
            client.setblocking(False)
            heard = [b""]
            while heard[-1] or len(heard) == 1:
                await self.turn()
                with contextlib.suppress(BlockingIOError):
                    heard.append(client.recv(4096))
        self.assertEqual(b"".join(heard), GREETING + b"* BYE Logging out\r\na OK completed\r\n")

    async def test_broken(self):
        """An invalid header closes the connection without a reply, with and without TLS."""
        with capturedLogs() as events:
            for name in ("plain", "ssl"):
                client = await self.client(name)
                client.transport.write(b"\x16\x03\x01\x00\x05hello")
                await client.lost
                self.assertEqual(client.heard, b"")
        logged = [formatEvent(event) for event in events if event["log_namespace"] == "mailgate"]
        self.assertEqual(len(logged), 2)
        for each in logged:
            self.assertIn("it is not a PROXY header, ", each)
            self.assertIn(r'"\x16\x03\x01', each)

    async def test_notListed(self):
        """The gateway does not read from a client that may not send a header."""
        await self.gateway.stopService()
        self.make("set_real_ip_from = 192.0.2.1")
        with capturedLogs() as events:
            client = await self.client("plain")
            await client.lost
        self.assertEqual(client.heard, b"")
        (logged,) = [formatEvent(event) for event in events if event["log_namespace"] == "mailgate"]
        self.assertIn("set_real_ip_from does not list the client", logged)

    async def test_unix(self):
        """A load balancer may connect by a unix socket."""
        await self.gateway.stopService()
        path = os.path.join(self.folder, "imap")
        self.make("set_real_ip_from = unix:", f"unix:{path} proxy_protocol")
        endpoint = UNIXClientEndpoint(self.reactor, path)
        client = await endpoint.connect(Factory.forProtocol(Talk))
        self.clients.append(client)
        client.transport.write(TEXT4)
        await client.hears(GREETING)
        (connection,) = self.gateway.connections
        self.assertEqual(connection.session.client, "192.0.2.7:40123")

    async def test_nothingLeft(self):
        """The reader of the header is freed after the header, without garbage collection."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for name, kind in (("plain", Talk), ("ssl", TLSTalk)):
            client = await self.client(name, kind)
            if kind is TLSTalk:
                client.begin(BINARY4)
            else:
                client.transport.write(BINARY4)
            await client.hears(GREETING)
            self.assertEqual([each for each in gc.get_objects() if type(each) is HeaderReader], [])


class IncomingOverReactorTests(IncomingTests):
    """The same with the reactor's own transports."""

    use = "reactor"


class OutgoingTests(BalancerCase):
    """The header for a backend: the first bytes of each connection, in one piece."""

    async def backendOf(self, header, name="plain"):
        """Return the bytes that the backend gets if a client logs in behind C{header}."""
        client = await self.client(name)
        client.transport.write(header + LOGIN)
        await client.hears(b"a OK")
        return self.backends[-1]

    async def test_text(self):
        """Version 1: from the client in the received header to the address to which it connected."""
        backend = await self.backendOf(TEXT4)
        port = self.ports["plain"]
        self.assertEqual(backend.raw, b"PROXY TCP4 192.0.2.7 127.0.0.1 40123 %d\r\n" % port)
        self.assertEqual(backend.header, ProxiedAddresses(IPV4.source, IPV4.sourcePort, "127.0.0.1", port))

    async def test_mixed(self):
        """If the client has an IPv6 address and connected to an IPv4 address, the header has both in IPv6."""
        backend = await self.backendOf(BINARY6)
        port = self.ports["plain"]
        self.assertEqual(backend.raw, b"PROXY TCP6 2001:db8::7 ::ffff:7f00:1 65535 %d\r\n" % port)
        self.assertEqual(backend.header, ProxiedAddresses(IPV6.source, IPV6.sourcePort, "127.0.0.1", port))

    async def test_direct(self):
        """The header does not depend on a received one."""
        backend = await self.backendOf(b"", "direct")
        own = self.clients[-1].transport.getHost()
        self.assertEqual(backend.raw, b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (own.port, self.ports["direct"]))

    async def test_withoutAddresses(self):
        """A health check of the load balancer itself makes the load balancer the client."""
        backend = await self.backendOf(b"PROXY UNKNOWN\r\n")
        own = self.clients[-1].transport.getHost()
        self.assertEqual(backend.header, ProxiedAddresses("127.0.0.1", own.port, "127.0.0.1", self.ports["plain"]))

    async def test_binary(self):
        """Version 2, with checksum."""
        await self.gateway.stopService()
        self.make("proxy_protocol = v2\nset_real_ip_from = 127.0.0.1")
        backend = await self.backendOf(WITH_TLVS)
        self.assertEqual(backend.header, ProxiedAddresses("192.0.2.7", 40123, "127.0.0.1", self.ports["plain"]))
        self.assertEqual(backend.raw[:14], b"\r\n\r\n\0\r\nQUIT\n\x21\x11")

    async def test_binaryOverTLS(self):
        """Version 2 has the client's TLS version and cipher."""
        await self.gateway.stopService()
        self.make("proxy_protocol = v2\nset_real_ip_from = 127.0.0.1")
        client = await self.client("ssl", TLSTalk)
        client.begin(TEXT4)
        await client.hears(GREETING)
        client.say(LOGIN)
        await client.hears(b"a OK")
        (backend,) = self.backends
        self.assertEqual(backend.header, ProxiedAddresses("192.0.2.7", 40123, "127.0.0.1", self.ports["ssl"]))
        self.assertIn(b"\x01\x00\x00\x00\x01\x21\x00\x07TLSv1.3\x23", backend.raw)

    async def test_off(self):
        """Without C{proxy_protocol} nothing comes before the login."""
        await self.gateway.stopService()
        self.make("set_real_ip_from = 127.0.0.1")
        client = await self.client("plain")
        client.transport.write(TEXT4 + LOGIN)
        while not self.backends:
            await self.turn()
        for _ in range(10):
            await self.turn()
        self.assertEqual(self.backends[0].raw, b"")


class OutgoingOverReactorTests(OutgoingTests):
    """The same with the reactor's own transports."""

    use = "reactor"


class OutgoingTLSTests(OutgoingTests):
    """The same at a backend with TLS: the header comes before the handshake."""

    account = "ssl=any-cert"

    def setUp(self):
        super().setUp()
        self.backendTLS = DefaultOpenSSLContextFactory(self.pair.key, self.pair.certificate)

    async def test_off(self):
        """Without C{proxy_protocol} the handshake comes first, which this backend cannot read."""
        await self.gateway.stopService()
        self.make("set_real_ip_from = 127.0.0.1")
        client = await self.client("plain")
        client.transport.write(TEXT4 + LOGIN)
        await client.hears(b"a NO [UNAVAILABLE]")
        self.assertEqual(self.backends[0].raw[:2], b"\x16\x03")
        self.flushLoggedErrors()


class OutgoingTLSOverReactorTests(OutgoingTLSTests):
    """The same with the reactor's own transports."""

    use = "reactor"
