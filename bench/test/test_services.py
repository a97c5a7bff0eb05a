"""
Tests of L{bench.backend}, L{bench.tlsbackend}, L{bench.authservice} and L{bench.certificate}, with real sockets.
"""

from __future__ import annotations

import socket
import ssl
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from bench.certificate import makeCertificate
from bench.measuring import AuthCounter
from bench.program import openSite
from bench.proxies import TLS_BACKENDS
from bench.test.direct import entered, services


class _ServiceTests(SynchronousTestCase):
    def setUp(self):
        self.site, _ = entered(self, services())

    def connect(self, port):
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.addCleanup(connection.close)
        stream = connection.makefile("rwb", buffering=0)
        self.addCleanup(stream.close)
        return stream


class BackendTests(_ServiceTests):
    """L{bench.backend}."""

    def setUp(self):
        super().setUp()
        self.stream = self.connect(self.site.backendPort)
        self.greeting = self.stream.readline()

    def test_greeting(self):
        """It sends a greeting, with the capabilities that proxies expect."""
        self.assertEqual(self.greeting, b"* OK [CAPABILITY IMAP4rev1 SASL-IR ID LITERAL+ AUTH=PLAIN] ready\r\n")

    def test_login(self):
        """The reply to a login has its tag."""
        self.stream.write(b"x7 LOGIN joe sesame\r\n")
        self.assertEqual(self.stream.readline(), b"x7 OK done\r\n")

    def test_identified(self):
        """ID and LOGIN may arrive in one write; both get replies, in order."""
        self.stream.write(b'x7 ID ("x-originating-ip" "192.0.2.1")\r\nx7 LOGIN joe sesame\r\n')
        self.assertEqual(self.stream.readline(), b"* ID NIL\r\n")
        self.assertEqual([self.stream.readline() for _ in range(2)], [b"x7 OK done\r\n"] * 2)

    def test_capabilities(self):
        """It also lists its capabilities on request."""
        self.stream.write(b"x CAPABILITY\r\n")
        self.assertEqual(self.stream.readline(), b"* CAPABILITY IMAP4rev1 SASL-IR ID LITERAL+ AUTH=PLAIN\r\n")

    def test_literals(self):
        """A login with synchronizing literals gets a continuation for each, and one reply."""
        self.stream.write(b"x LOGIN {3}\r\n")
        self.assertEqual(self.stream.readline(), b"+ go on\r\n")
        self.stream.write(b"joe {6}\r\n")
        self.assertEqual(self.stream.readline(), b"+ go on\r\n")
        self.stream.write(b"sesame\r\n")
        self.assertEqual(self.stream.readline(), b"x OK done\r\n")

    def test_nonSynchronisingLiterals(self):
        """A literal with a plus gets no continuation, and may contain text like a command."""
        self.stream.write(b"x LOGIN {7+}\r\nj\r\noe\r\n sesame\r\ny NOOP\r\n")
        self.assertEqual(self.stream.readline(), b"x OK done\r\n")
        self.assertEqual(self.stream.readline(), b"y OK done\r\n")

    def test_fetch(self):
        """A message has the requested number of bytes, even if that exceeds the server's buffer."""
        for size in (1, 16384, 3 * 1024 * 1024 + 5):
            self.stream.write(b"f FETCH %d\r\n" % size)
            self.assertEqual(self.stream.readline(), b"* 1 FETCH (BODY[] {%d}\r\n" % size)
            missing = size
            while missing:
                missing -= len(self.stream.read(missing))
            self.assertEqual(self.stream.readline(), b")\r\n")
            self.assertEqual(self.stream.readline(), b"f OK done\r\n")

    def test_ping(self):
        """A ping is returned unchanged."""
        self.stream.write(b"ping 123\r\n")
        self.assertEqual(self.stream.readline(), b"ping 123\r\n")

    def test_logout(self):
        """After LOGOUT it closes."""
        self.stream.write(b"x LOGOUT\r\n")
        self.assertEqual(self.stream.readline(), b"* BYE see you\r\n")
        self.assertEqual(self.stream.readline(), b"x OK done\r\n")
        self.assertEqual(self.stream.readline(), b"")


class TLSBackendTests(SynchronousTestCase):
    """L{bench.tlsbackend}."""

    def test_login(self):
        """Each of its ports takes any login over TLS, and issues a ticket that is good there."""
        with openSite(64) as (site, _):
            context = ssl.create_default_context(cafile=site.certificate)
            self.assertEqual(len(site.tlsPorts), TLS_BACKENDS)
            for port in site.tlsPorts[:2]:
                session = None
                for _ in range(2):
                    connection = socket.create_connection(("127.0.0.1", port), 10)
                    with context.wrap_socket(connection, server_hostname="localhost", session=session) as wrapped:
                        isResumed = wrapped.session_reused
                        with wrapped.makefile("rwb", buffering=0) as stream:
                            self.assertTrue(stream.readline().startswith(b"* OK [CAPABILITY IMAP4rev1 "))
                            stream.write(b'x LOGIN "joe" "sesame"\r\ny LOGOUT\r\n')
                            answers = [stream.readline() for _ in range(4)]
                            session = wrapped.session
                    self.assertEqual(answers, [b"x OK done\r\n", b"* BYE see you\r\n", b"y OK done\r\n", b""])
                self.assertTrue(isResumed)


class AuthServiceTests(_ServiceTests):
    """L{bench.authservice}."""

    def answer(self, stream):
        return list(iter(stream.readline, b"\r\n"))

    def test_keptAlive(self):
        """An HTTP/1.1 connection is kept, and every response names the backend."""
        stream = self.connect(self.site.authPort)
        for _ in range(2):
            stream.write(b"GET /auth HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = self.answer(stream)
            self.assertEqual(answer[0], b"HTTP/1.1 200 OK\r\n")
            self.assertIn(b"Auth-Status: OK\r\n", answer)
            self.assertIn(b"Auth-Port: %d\r\n" % self.site.backendPort, answer)
            self.assertNotIn(b"Connection: close\r\n", answer)

    def test_closed(self):
        """An HTTP/1.0 connection, and an HTTP/1.1 connection that asks for it, is closed after the response."""
        for question in (b"GET /auth HTTP/1.0\r\n\r\n", b"GET /auth HTTP/1.1\r\nConnection: close\r\n\r\n"):
            stream = self.connect(self.site.authPort)
            stream.write(question)
            self.assertIn(b"Auth-Status: OK\r\n", self.answer(stream))
            self.assertEqual(stream.read(1), b"")

    def test_counted(self):
        """It returns the number of logins, without that request."""
        counter = AuthCounter(self.site.authPort)
        self.assertEqual(counter.asked(), 0)
        stream = self.connect(self.site.authPort)
        stream.write(b"GET /auth HTTP/1.1\r\n\r\n" * 3)
        for _ in range(3):
            self.answer(stream)
        self.assertEqual([counter.asked(), counter.asked()], [3, 3])

    def test_connectionsCounted(self):
        """It returns the number of connections, without those that make no login."""
        counter = AuthCounter(self.site.authPort)
        self.connect(self.site.authPort)
        for count in (2, 1):
            stream = self.connect(self.site.authPort)
            for _ in range(count):
                stream.write(b"GET /auth HTTP/1.1\r\n\r\n")
                self.answer(stream)
        self.assertEqual((counter.asked(), counter.connections(), counter.connections()), (3, 2, 2))


class CertificateTests(SynchronousTestCase):
    """L{makeCertificate}."""

    def test_usable(self):
        """Certificate and key match, in two files and in one."""
        with tempfile.TemporaryDirectory() as folder:
            certificate, key, both = makeCertificate(folder)
            ssl.create_default_context().load_cert_chain(certificate, key)
            ssl.create_default_context().load_cert_chain(both)
