# -*- test-case-name: mailgate.test.integration.test_resolver -*-
"""
Names of clients from a real name server, as the authentication service and the backend get them.
"""

from __future__ import annotations

import select
import smtplib
import socket
import time

from twisted.names import dns

from mailgate.test.integration.clients import PATIENCE, arrived, message
from mailgate.test.integration.daemon import shared, waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.fakebackend import FakeBackend
from mailgate.test.integration.nameserver import NameServer, Reply
from mailgate.test.integration.procfs import datagramSockets
from mailgate.test.integration.site import GatewayTestCase
from mailgate.test.integration.together import together

testSuite = together(__name__)

OFFERS_XCLIENT = (b"220 ready\r\n", b"250-ready\r\n250 XCLIENT NAME ADDR LOGIN\r\n", b"220 ready\r\n", b"250 ready\r\n")
"""The replies of a backend to EHLO, XCLIENT and EHLO."""

GREETING = b"220 gate.example.com ESMTP ready\r\n"

EARLY = 1.8
"""Within so many seconds no lookup of a silent name server is over: C{resolver_timeout} is 2 s."""


class ResolverTestCase(GatewayTestCase):
    """A gateway with a name server, whose zone has an address of the loopback for each failure."""

    needs = ("postfix",)

    def configuration(self, site):
        """IMAP has a resolver too, but does not use it."""
        port = shared("name server", NameServer).port
        common = f"auth_http = {site.auth.url}\nresolver = 127.0.0.1:{port}\nresolver_timeout = 2s"
        fake = "auth_http_header = X-Backend fake"
        return site.mail(common) + site.server("imap") + site.server("smtp") + site.server("smtp", fake, name="fake")

    def setUp(self):
        super().setUp()
        self.names = shared("name server", NameServer)

    def connect(self, address, name="smtp"):
        """A connection from C{address}, and its lines."""
        server = ("127.0.0.1", self.at(name).port)
        connection = socket.create_connection(server, PATIENCE, (address, 0))
        self.addCleanup(connection.close)
        return connection, connection.makefile("rb")

    def told(self, address):
        """What the authentication service and the backend get about the client at C{address}."""
        backend = FakeBackend(OFFERS_XCLIENT)
        self.addCleanup(backend.stop)
        self.site.auth.backends["fake"] = ("127.0.0.1", backend.port)
        source = (address, 0)
        with smtplib.SMTP("127.0.0.1", self.at("fake").port, "client.example", PATIENCE, source) as client:
            client.login(self.user, PASSWORD)
        question = self.site.auth.askedAbout(self.user)[-1]
        self.assertEqual(question["Client-IP"], address)
        (xclient,) = (line for line in backend.heard.split(b"\r\n") if line.startswith(b"XCLIENT"))
        return question["Client-Host"], xclient.partition(b" NAME=")[2].decode()

    def assertTold(self, address, name):
        self.assertEqual(self.told(address), (name, name))


class NameTests(ResolverTestCase):
    """Names for services and backends."""

    def test_name(self):
        """Both get a name that leads back to the client."""
        self.names.point("127.0.1.1", b"Good.Example.com", "127.0.1.1")
        self.assertTold("127.0.1.1", "good.example.com")

    def test_received(self):
        """Postfix writes it into the Received header."""
        self.names.point("127.0.1.2", b"mail.example.net", "127.0.1.2")
        source = ("127.0.1.2", 0)
        with smtplib.SMTP("127.0.0.1", self.at("smtp").port, "client.example", PATIENCE, source) as client:
            client.login(self.user, PASSWORD)
            client.sendmail("a@example.com", [f"{self.user}@example.com"], message("with a name"))
        received = b" ".join(arrived(self.at("imap"), self.user, "with a name").split())
        self.assertIn(b"from client.example (mail.example.net [127.0.1.2])", received)

    def test_elsewhere(self):
        """A name that leads to another address is not used."""
        self.names.point("127.0.1.3", b"liar.example.com", "127.0.1.99", "2001:db8::1")
        self.assertTold("127.0.1.3", "[UNAVAILABLE]")

    def test_noName(self):
        """A client without a name is no error."""
        self.assertTold("127.0.1.4", "[UNAVAILABLE]")
        self.assertIn(": 127.0.1.4 could not be resolved (3: Host not found)", self.log())

    def test_serverFailure(self):
        """A failing name server is a temporary failure."""
        self.names.reply("127.0.1.5", code=dns.ESERVER)
        self.assertTold("127.0.1.5", "[TEMPUNAVAIL]")
        self.assertIn(": 127.0.1.5 could not be resolved (2: Server failure)", self.log())

    def test_timeout(self):
        """So is a silent one, after resolver_timeout."""
        self.names.reply("127.0.1.6", silent=True)
        began = time.monotonic()
        self.assertTold("127.0.1.6", "[TEMPUNAVAIL]")
        self.assertGreaterEqual(time.monotonic() - began, 2)
        self.assertIn(": 127.0.1.6 could not be resolved (110: Operation timed out)", self.log())

    def test_garbage(self):
        """An invalid response counts as none."""
        self.names.reply("127.0.1.7", raw=b"\x84\x00\x00\x01\x00\x01 you are not of the DNS")
        self.assertTold("127.0.1.7", "[TEMPUNAVAIL]")

    def test_evilName(self):
        """A name that would forge headers, commands or log lines reaches neither service, backend nor log."""
        evil = b'x\r\nAuth-User: admin\r\nRSET\r\n2038-01-19 [emerg] "a'
        self.names.point("127.0.1.8", evil, "127.0.1.8")
        self.assertTold("127.0.1.8", "[TEMPUNAVAIL]")
        self.assertEqual(self.site.auth.askedAbout(self.user)[-1]["Auth-User"], self.user)
        (line,) = (line for line in self.log().split("\n") if "invalid host name" in line)
        self.assertIn(": 127.0.1.8 resolved to invalid host name", line)
        self.assertIn('x\\r\\nauth-user: admin\\r\\nrset\\r\\n2038-01-19 [emerg] \\"a"', line)

    def test_truncated(self):
        """A truncated response is requested again over TCP."""
        self.names.point("127.0.1.9", b"many.example.com", "127.0.1.9")
        addresses = tuple(dns.Record_A(f"10.0.0.{last}") for last in range(1, 100))
        self.names.zone[b"many.example.com", dns.A] = Reply((*addresses, dns.Record_A("127.0.1.9")), truncated=True)
        self.assertTold("127.0.1.9", "many.example.com")

    def test_once(self):
        """A name is cached for its time to live."""
        self.names.point("127.0.1.10", b"once.example.com", "127.0.1.10")
        for _ in range(3):
            self.assertTold("127.0.1.10", "once.example.com")
        self.assertEqual(self.names.asked.count((b"once.example.com", dns.A)), 1)

    def test_imap(self):
        """IMAP does not look up names."""
        self.names.point("127.0.1.11", b"imap.example.com", "127.0.1.11")
        connection, lines = self.connect("127.0.1.11", "imap")
        self.assertTrue(lines.readline().startswith(b"* OK"))
        connection.sendall(f"a LOGIN {self.user} {PASSWORD}\r\n".encode())
        self.assertTrue(lines.readline().startswith(b"a OK"))
        self.assertNotIn("Client-Host", self.site.auth.askedAbout(self.user)[-1])
        self.assertNotIn((b"11.1.0.127.in-addr.arpa", dns.PTR), self.names.asked)


class WaitingTests(ResolverTestCase):
    """Clients with a slow name server."""

    def test_early(self):
        """Commands that one sends in the meantime are executed after the greeting."""
        self.names.reply("127.0.2.1", silent=True)
        connection, lines = self.connect("127.0.2.1")
        connection.sendall(b"NOOP\r\nQUIT\r\n")
        self.assertEqual(lines.read(), GREETING + b"250 2.0.0 OK\r\n221 2.0.0 Bye\r\n")

    def test_others(self):
        """Other clients do not wait."""
        self.names.reply("127.0.2.2", silent=True)
        self.names.point("127.0.2.3", b"quick.example.com", "127.0.2.3")
        began = time.monotonic()
        slow, slowLines = self.connect("127.0.2.2")
        _, lines = self.connect("127.0.2.3")
        self.assertEqual(lines.readline(), GREETING)
        waiting = not select.select([slow], [], [], 0)[0]
        # On a busy machine the lookup may have taken its two seconds.
        if time.monotonic() - began < EARLY:
            self.assertTrue(waiting)
        self.assertEqual(slowLines.readline(), GREETING)

    def test_leaves(self):
        """One that leaves ends at once, in phase greeting; no socket remains after its lookup."""
        self.names.reply("127.0.2.4", silent=True)
        gateway = self.site.gateway.pid
        began = time.monotonic()
        connection, lines = self.connect("127.0.2.4")
        waitUntil(lambda: (b"4.2.0.127.in-addr.arpa", dns.PTR) in self.names.asked, "the name server is asked")
        sockets = datagramSockets(gateway)
        if time.monotonic() - began < EARLY:
            self.assertNotEqual(sockets, set())
        lines.close()
        connection.close()
        waitUntil(lambda: "client 127.0.2.4:" in self.log(), "the connection has ended")
        log = self.log()
        # On a busy machine the lookup may be over before the client leaves.
        if time.monotonic() - began < EARLY:
            self.assertRegex(log, "client 127.0.2.4:.* reached greeting, outcome client left")
            self.assertNotIn("127.0.2.4 could not be resolved", log)
        waitUntil(lambda: "127.0.2.4 could not be resolved" in self.log(), "the lookup has ended")
        # Connections to the service are kept, and so come and go independently.
        waitUntil(lambda: not datagramSockets(gateway), "its socket is closed")
