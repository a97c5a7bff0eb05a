# -*- test-case-name: mailgate.test.integration.test_relay -*-
"""
The relay after the login: nothing is lost, added or delayed between a client and real backends.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import select
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

from mailgate.test.integration.clients import PATIENCE, arrived, imap, message, pop3, smtp
from mailgate.test.integration.daemon import freePort, shared, waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.site import GatewayTestCase

MEBIBYTE = 1024 * 1024


class RelayTestCase(GatewayTestCase):
    """A client with known bytes."""

    tls = "plain"

    def connect(self, protocol, tls=""):
        """A raw client of the gateway."""
        client = RawClient(self.at(protocol, tls or self.tls))
        self.addCleanup(client.close)
        return client


class PipeliningTests(RelayTestCase):
    """Bytes that a client sends together with its login reach the backend after the login."""

    def test_imap(self):
        """The backend replies to IMAP commands after LOGIN, in order."""
        self.deposit(message("pipelined"))
        client = self.connect("imap")
        client.send(
            f"a LOGIN {self.user} {PASSWORD}\r\nb SELECT INBOX\r\nc FETCH 1 BODY[TEXT]\r\nd LOGOUT\r\n".encode()
        )
        lines = client.rest().split(b"\r\n")
        tagged = [line[:4] for line in lines if line[1:2] == b" " and line[:1] in b"abcd"]
        self.assertEqual(tagged, [b"a OK", b"b OK", b"c OK", b"d OK"])
        self.assertIn(b"Down the rabbit-hole.", lines)

    def test_imapAuthenticate(self):
        """So does it after AUTHENTICATE with an initial response."""
        client = self.connect("imap")
        response = base64.b64encode(f"\0{self.user}\0{PASSWORD}".encode()).decode()
        client.send(f"a AUTHENTICATE PLAIN {response}\r\nb NOOP\r\nc LOGOUT\r\n".encode())
        lines = client.rest().split(b"\r\n")
        tagged = [line[:4] for line in lines if line[1:2] == b" " and line[:1] in b"abc"]
        self.assertEqual(tagged, [b"a OK", b"b OK", b"c OK"])

    def test_pop3(self):
        """The backend replies to POP3 commands after PASS, in order."""
        self.deposit(message("pipelined"))
        client = self.connect("pop3")
        client.send(f"USER {self.user}\r\nPASS {PASSWORD}\r\nSTAT\r\nRETR 1\r\nQUIT\r\n".encode())
        said = client.rest()
        self.assertEqual(said.count(b"+OK"), 5, said)
        self.assertIn(message("pipelined") + b".\r\n+OK", said)

    def test_smtp(self):
        """The backend replies to SMTP commands after AUTH, in order, and the message arrives."""
        client = self.connect("smtp")
        response = base64.b64encode(f"\0{self.user}\0{PASSWORD}".encode()).decode()
        client.send(
            f"AUTH PLAIN {response}\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<{self.user}@example.com>\r\n"
            "DATA\r\n".encode()
        )
        self.assertEqual([client.reply()[:3] for _ in range(4)], [b"235", b"250", b"250", b"354"])
        client.send(message("pipelined") + b".\r\nQUIT\r\n")
        self.assertEqual([line[:3] for line in client.rest().splitlines()], [b"250", b"221"])
        self.assertIn(b"Down the rabbit-hole.", arrived(self.at("imap"), self.user, "pipelined"))


class TLSPipeliningTests(PipeliningTests):
    """The same inside TLS, where commands and Finished may share a segment."""

    tls = "implicit"


class StartTLSPipeliningTests(PipeliningTests):
    """The same inside TLS that began with STARTTLS."""

    tls = "starttls"


class InjectionTests(RelayTestCase):
    """Plaintext after STARTTLS, which an attacker may inject, is discarded."""

    def test_discarded(self):
        """A command in the segment of STARTTLS gets no reply inside TLS, and the session starts anew."""
        injected = {"imap": b"x CAPABILITY\r\n", "pop3": b"CAPA\r\n", "smtp": b"EHLO injected.example\r\n"}
        for protocol, command in injected.items():
            if protocol not in self.backends.protocols:
                continue
            client = self.connect(protocol, "plain")
            client.startTLS(command)
            self.assertIn(client.noop()[:3], (b"OK ", b"+OK", b"250"), protocol)
            if protocol == "smtp":
                client.ehlo()
            self.assertIn(client.login(self.user, PASSWORD)[:3], (b"OK ", b"+OK", b"235"), protocol)


class IdleTests(RelayTestCase):
    """The backend sends without a command."""

    def test_notification(self):
        """An IMAP client in IDLE learns of a new message at once."""
        for tls in ("plain", "implicit"):
            client = self.connect("imap", tls)
            client.login(self.user, PASSWORD)
            client.send(b"a SELECT INBOX\r\n")
            client.reply(b"a ")
            client.send(b"b IDLE\r\n")
            self.assertEqual(client.line()[:1], b"+")
            self.deposit(message("news"))
            self.assertTrue(client.reply(b"* ").endswith(b" EXISTS\r\n"))
            client.send(b"DONE\r\n")
            self.assertEqual(client.reply(b"b ")[:4], b"b OK")


class LargeMessageTests(RelayTestCase):
    """A message of 25 MiB is the same at both ends."""

    def setUp(self):
        super().setUp()
        line = base64.b64encode(os.urandom(57)).decode()
        self.body = f"{line}\r\n" * (25 * MEBIBYTE // 78)
        self.digest = hashlib.sha256(self.body.encode()).hexdigest()

    def bodyDigest(self, received):
        """The digest of the body."""
        return hashlib.sha256(received.partition(b"\r\n\r\n")[2]).hexdigest()

    def test_submitted(self):
        """SMTP submits it, and IMAP and POP3 fetch it."""
        with smtp(self.at("smtp", self.tls), self.user) as client:
            client.sendmail("a@example.com", [f"{self.user}@example.com"], message("large", self.body))
        self.assertEqual(self.bodyDigest(arrived(self.at("imap", self.tls), self.user, "large")), self.digest)
        with pop3(self.at("pop3", self.tls), self.user) as client:
            received = b"\r\n".join(client.retr(1)[1]) + b"\r\n"
        self.assertEqual(self.bodyDigest(received), self.digest)

    def test_appended(self):
        """IMAP's APPEND stores it."""
        with imap(self.at("imap", self.tls), self.user) as client:
            client.append("INBOX", "", "", message("large", self.body))
        received = arrived(self.backends.at("imap"), self.user, "large")
        self.assertEqual(self.bodyDigest(received), self.digest)


class LargeMessageTLSTests(LargeMessageTests):
    """The same with TLS."""

    tls = "implicit"


TORRENT = 48 * MEBIBYTE
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def sendTorrent(connection):
    """Send as many random bytes; return their digest."""
    digest = hashlib.sha256()
    for _ in range(TORRENT // MEBIBYTE):
        piece = os.urandom(MEBIBYTE)
        digest.update(piece)
        connection.sendall(piece)
    return digest.hexdigest()


def exchangeTorrents(connection):
    """
    Send as many, and read to the end, in one thread, because two threads cannot share a TLS connection. Returns the
    digests of what was received and of what was sent.
    """
    connection.setblocking(False)
    received, sent, left, pending = hashlib.sha256(), hashlib.sha256(), TORRENT, memoryview(b"")
    while True:
        moved = False
        if left and not pending:
            pending = memoryview(os.urandom(MEBIBYTE))
            sent.update(pending)
            left -= MEBIBYTE
        with contextlib.suppress(*NOT_NOW):
            if pending:
                pending = pending[connection.send(pending) :]
                moved = True
        with contextlib.suppress(*NOT_NOW):
            piece = connection.recv(MEBIBYTE)
            if not piece:
                return received.hexdigest(), sent.hexdigest()
            received.update(piece)
            moved = True
        if not moved and not any(select.select([connection], [connection] if pending else [], [], PATIENCE)):
            raise TimeoutError("nothing moves")


class TorrentBackend:
    """
    Accepts every IMAP login. From the first byte on it sends a torrent and receives another; C{digests} has those of
    both.
    """

    def __init__(self):
        self.port = freePort()
        self.digests = Queue()
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self._connections = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                thread = threading.Thread(target=self._attend, args=(connection,), daemon=True)
                self._connections.append((thread, connection))
                thread.start()

    def _attend(self, connection):
        # A peer that leaves too early shows in the test, which waits for the digests in vain.
        with contextlib.suppress(OSError), connection:
            self._converse(connection)

    def _converse(self, connection):
        connection.sendall(b"* OK ready\r\n")
        command = connection.recv(4096)
        if not command:
            return
        connection.sendall(command.split()[0] + b" OK done\r\n")
        with ThreadPoolExecutor(1) as threads:
            digest, left = hashlib.sha256(connection.recv(1)), TORRENT - 1
            sending = threads.submit(sendTorrent, connection)
            while left and (piece := connection.recv(min(left, MEBIBYTE))):
                digest.update(piece)
                left -= len(piece)
            self.digests.put((sending.result(), digest.hexdigest()))

    def stop(self):
        """Close everything."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread, connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


class TorrentTests(RelayTestCase):
    """Both sides send as fast as they can, at the same time."""

    def configuration(self, site):
        backend = shared("torrent", TorrentBackend)
        return site.mail(f"proxy_pass = 127.0.0.1:{backend.port}") + site.server("imap")

    def test_bothWays(self):
        """48 MiB in each direction are the same at both ends, without and with TLS."""
        backend = shared("torrent", TorrentBackend)
        for tls in ("plain", "implicit"):
            client = self.connect("imap", tls)
            self.assertEqual(client.login(self.user, PASSWORD)[:3], b"OK ")
            self.assertEqual(exchangeTorrents(client.socket), backend.digests.get(timeout=PATIENCE))


class LedgerTests(RelayTestCase):
    """The end of each connection is logged."""

    def ended(self):
        """The event of the user's connection."""
        return [line for line in self.log().splitlines() if "connection ended" in line and self.user in line]

    def test_event(self):
        """One event has user, protocol, TLS, backend and outcome."""
        for protocol in ("imap", "pop3"):
            self.logged = len(self.site.gateway.log())
            client = self.connect(protocol, "implicit")
            client.login(self.user, PASSWORD)
            client.noop()
            client.close()
            waitUntil(self.ended, "the end is logged")
            (event,) = self.ended()
            host, port = self.backends.services[protocol]
            for word in (f"protocol {protocol}", "TLSv1.3", f"{host}:{port}", "relay", "127.0.0.1"):
                self.assertIn(word, event)

    def test_withoutLogin(self):
        """The event of a client that leaves without logging in has the phase that it reached."""
        for protocol in self.backends.protocols:
            self.logged = len(self.site.gateway.log())
            self.connect(protocol).close()
            waitUntil(lambda: "connection ended" in self.log(), "the end is logged")
            self.assertIn("command", self.log())
            self.assertNotIn("relay,", self.log())


class CrowdTests(RelayTestCase):
    """Many at once."""

    def test_together(self):
        """Forty clients that log in at once are all served."""

        def visit(number):
            protocol = ("imap", "pop3")[number % 2]
            client = RawClient(self.at(protocol, ("plain", "implicit")[number // 2 % 2]))
            try:
                return client.login(f"crowd{number}", PASSWORD)[:3], client.noop()[:3]
            finally:
                client.close()

        with ThreadPoolExecutor(40) as threads:
            results = set(threads.map(visit, range(40)))
        self.assertEqual(results, {(b"OK ", b"OK "), (b"+OK", b"+OK")})
