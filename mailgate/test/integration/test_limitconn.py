# -*- test-case-name: mailgate.test.integration.test_limitconn -*-
"""
The limits for connections and sessions, with clients from several addresses of 127.0.0.0/8: one process with all
protocols, and workers that count together.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.clients import PATIENCE
from mailgate.test.integration.daemon import freePort, newFolder, waitUntil
from mailgate.test.integration.gateway import GatewayProcess
from mailgate.test.integration.procfs import children, servedBy
from mailgate.test.integration.scripted import ACCEPT, ScriptedAuth, ScriptedBackend

ONE, OTHER, THIRD, FOURTH = "127.0.0.5", "127.0.0.6", "127.0.0.7", "127.0.0.8"
PROTOCOLS = ("imap", "pop3", "smtp", "sieve")
REFUSED = {
    "imap": b"* BYE [UNAVAILABLE] Too many connections, try again later\r\n",
    "pop3": b"-ERR [SYS/TEMP] Too many connections\r\n",
    "smtp": b"421 4.7.0 mx.test Too many connections\r\n",
    "sieve": b'BYE (TRYLATER) "Too many connections, try again later."\r\n',
}
GREETED = {"imap": b"* OK ", "pop3": b"+OK ", "smtp": b"220 ", "sieve": b'"IMPLEMENTATION"'}


class LimitConnCase(SynchronousTestCase):
    """A gateway, its service and its backend for IMAP."""

    def setUp(self):
        self.folder = newFolder("limitconn")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.auth, self.backend = ScriptedAuth(), ScriptedBackend("imap")
        self.addCleanup(self.auth.stop)
        self.addCleanup(self.backend.stop)
        self.auth.ports = {"PORT": self.backend.port}
        self.auth.script([ACCEPT])
        self.clients: list[socket.socket] = []
        self.addCleanup(lambda: self.closeAll(self.clients))

    def start(self, process: str, mail: str, servers: str, *ports: int) -> None:
        text = (
            f"[mailgate]\nerror_log = gateway.log info\n{process}\n[mail]\nserver_name = mx.test\nlimit_exempt = none\n"
        )
        text += f"auth_http = http://127.0.0.1:{self.auth.port}/auth\n{mail}\n{servers}"
        self.gateway = GatewayProcess(self.folder, text, ports)
        self.addCleanup(self.gateway.stop)

    def dial(self, host: str, port: int) -> socket.socket:
        """Connect from the address C{host}."""
        client = socket.create_connection(("127.0.0.1", port), PATIENCE, (host, 0))
        self.clients.append(client)
        return client

    def first(self, client: socket.socket) -> bytes:
        """The first line that C{client} hears; empty if the connection ends before."""
        heard = b""
        while not heard.endswith(b"\n"):
            try:
                data = client.recv(1)
            except ConnectionResetError:
                return heard
            if not data:
                return heard
            heard += data
        return heard

    def full(self, host: str, port: int, count: int, header: bytes = b"") -> list[socket.socket]:
        """Open C{count} connections and wait for their greetings."""
        clients = [self.dial(host, port) for _ in range(count)]
        for client in clients:
            client.sendall(header)
        for client in clients:
            self.assertNotIn(b"Too many", self.first(client))
        return clients

    def closeAll(self, clients: list[socket.socket]) -> None:
        for client in clients:
            client.close()

    def command(self, client: socket.socket, line: bytes) -> bytes:
        """The tagged reply to an IMAP command."""
        client.sendall(b"a " + line + b"\r\n")
        while not (reply := self.first(client)).startswith(b"a "):
            self.assertTrue(reply)
        return reply

    def login(self, host: str, port: int, user: bytes = b"joe") -> tuple[socket.socket, bytes]:
        client = self.dial(host, port)
        self.assertTrue(self.first(client).startswith(b"* OK"))
        return client, self.command(client, b"LOGIN " + user + b" sesame")


class OneProcessTests(LimitConnCase):
    """One process, all protocols, with and without TLS."""

    def setUp(self):
        super().setUp()
        pair = Authority(self.folder, "authority").sign("server")
        self.plain = {protocol: freePort() for protocol in PROTOCOLS}
        self.secure = {protocol: freePort() for protocol in PROTOCOLS}
        self.proxied, self.both = freePort(), freePort()
        servers = f"[server proxied]\nprotocol = imap\nlisten = 127.0.0.1:{self.proxied} proxy_protocol\n"
        servers += "set_real_ip_from = 127.0.0.0/8\n"
        for protocol in PROTOCOLS:
            servers += f"[server {protocol}]\nprotocol = {protocol}\nlisten =\n    127.0.0.1:{self.plain[protocol]}\n"
            servers += f"    127.0.0.1:{self.secure[protocol]} ssl\n"
            if protocol == "imap":
                servers += f"    [::]:{self.both} ipv6only=off\n"
        mail = f"ssl_certificate = {pair.certificate}\nssl_certificate_key = {pair.key}\nlimit_early_drop = off\n"
        mail += "limit_req = off\nlimit_conn =\n    address 3\n    user 2\n"
        self.start("", mail, servers, *self.plain.values(), *self.secure.values(), self.proxied, self.both)

    def refusals(self, rule: str) -> int:
        return len(re.findall(f"limited: client [^,]*, {rule}, ", self.gateway.log()))

    def test_limits(self):
        """
        What is too much hears the words of its protocol, and at a TLS port nothing; other addresses do not notice it.
        The address behind a PROXY header counts, and IPv4-mapped addresses are those of IPv4. When connections end they
        count no more.
        """
        # The words, at plain ports and at those with TLS.
        for protocol in PROTOCOLS:
            crowd = self.full(ONE, self.plain[protocol], 3)
            self.assertEqual(self.first(self.dial(ONE, self.plain[protocol])), REFUSED[protocol])
            # Both ports of a server count together: a TLS port ends the connection before the handshake.
            late = self.dial(ONE, self.secure[protocol])
            self.assertRaises(OSError, ssl._create_unverified_context().wrap_socket, late)
            self.assertTrue(self.first(self.dial(OTHER, self.plain[protocol])).startswith(GREETED[protocol]))
            wrapped = ssl._create_unverified_context().wrap_socket(self.dial(OTHER, self.secure[protocol]))
            self.clients.append(wrapped)
            self.assertTrue(self.first(wrapped).startswith(GREETED[protocol]))
            if protocol != "imap":
                self.closeAll(crowd)
        waitUntil(lambda: self.refusals("limit_conn address") >= 8, "the log has each refusal")
        self.assertNotIn("LOGIN", self.gateway.log())
        # Mapped addresses: the IMAP server still has three connections of ONE.
        self.assertEqual(self.first(self.dial(ONE, self.both)), REFUSED["imap"])
        self.closeAll(self.clients)
        waitUntil(self.hasRoom, "the counts go back")
        self.full(FOURTH, self.both, 2)
        self.full(FOURTH, self.plain["imap"], 1)
        for port in (self.both, self.plain["imap"]):
            self.assertEqual(self.first(self.dial(FOURTH, port)), REFUSED["imap"])
        # PROXY headers.
        header = b"PROXY TCP4 192.0.2.%d 198.51.100.1 40123 143\r\n"
        self.full(ONE, self.proxied, 3, header % 7)
        late = self.dial(OTHER, self.proxied)
        late.sendall(header % 7)
        self.assertEqual(self.first(late), REFUSED["imap"])
        self.full(ONE, self.proxied, 3, header % 8)
        # Sessions of a user, from wherever.
        sessions = [self.login(host, self.plain["imap"]) for host in (OTHER, THIRD)]
        self.assertTrue(all(reply.startswith(b"a OK") for _, reply in sessions))
        client, reply = self.login(THIRD, self.plain["imap"], b"JOE")
        self.assertTrue(reply.startswith(b"a NO [LIMIT] Too many sessions"), reply)
        asked = len(self.auth.heard)
        self.assertEqual(asked, 3)
        sessions[0][0].close()
        waitUntil(lambda: self.command(client, b"LOGIN joe sesame").startswith(b"a OK"), "a session has ended")
        self.assertNotIn("login failed", self.gateway.log())

    def hasRoom(self) -> bool:
        """Whether three connections from ONE are let in: the gateway has noticed the ends of all earlier ones."""
        clients = [self.dial(ONE, self.plain["imap"]) for _ in range(3)]
        hasRoom = all(self.first(client).startswith(b"* OK") for client in clients)
        self.closeAll(clients)
        return hasRoom


class WorkersTests(LimitConnCase):
    """Workers."""

    def setUp(self):
        super().setUp()
        self.port = freePort()
        self.start(
            "worker_processes = 2",
            "limit_req = off\nlimit_early_drop = off\nlimit_conn =\n    address 40\n    user 2\n",
            f"[server imap]\nprotocol = imap\nlisten = 127.0.0.1:{self.port}\n",
            self.port,
        )
        waitUntil(lambda: "forked by zygote" in self.gateway.log(), "the workers serve")

    def workers(self) -> list[int]:
        return [pid for zygote in children(self.gateway.pid) for pid in children(zygote)]

    def crowdOfBoth(self) -> tuple[list[socket.socket], set[int]]:
        """Open slow connections from ONE until both workers have some. Return those let in, and the workers."""
        kept: list[socket.socket] = []

        def haveBoth() -> bool:
            # On a busy computer one worker may accept all of them.
            self.closeAll(kept)
            kept[:] = self.crowd(300)
            return len(kept) == 40 and len(set(servedBy(self.workers(), kept))) == 2

        waitUntil(haveBoth, "both workers serve slow connections")
        return kept, set(servedBy(self.workers(), kept))

    def crowd(self, count: int) -> list[socket.socket]:
        """Open slow connections from ONE. Return those that are let in."""
        clients = [self.dial(ONE, self.port) for _ in range(count)]
        return [client for client in clients if self.first(client).startswith(b"* OK")]

    def test_workers(self):
        """
        The workers count together: 300 slow connections from one address leave as many as the limit says, and others
        log in meanwhile. A reload keeps the counts; a killed worker's connections count no more.
        """
        first = self.crowd(300)
        self.assertEqual(len(first), 40)
        self.closeAll(first)
        kept, served = self.crowdOfBoth()
        _, reply = self.login(OTHER, self.port)
        self.assertTrue(reply.startswith(b"a OK"), reply)
        before = self.workers()
        self.gateway.signal(signal.SIGHUP)
        waitUntil(lambda: "reload 1 done" in self.gateway.log(), "it reloads")
        self.assertEqual(self.crowd(20), [])
        _, reply = self.login(THIRD, self.port)
        self.assertTrue(reply.startswith(b"a OK"), reply)
        client, reply = self.login(OTHER, self.port)
        self.assertTrue(reply.startswith(b"a NO [LIMIT] Too many sessions"), reply)
        self.assertTrue(self.command(client, b"LOGIN ann sesame").startswith(b"a OK"))
        # Ten leave an old worker, ten others come to a new one.
        self.closeAll(kept[:10])
        del kept[:10]
        more: list[socket.socket] = []

        def refilled() -> bool:
            more.extend(self.crowd(1))
            return len(more) == 10

        waitUntil(refilled, "there is room for ten")
        self.assertEqual(self.crowd(5), [])
        victim = served.intersection(before).pop()
        freed: int = servedBy(before, kept).count(victim)
        os.kill(victim, signal.SIGKILL)
        come: list[socket.socket] = []

        def replaced() -> bool:
            come.extend(self.crowd(1))
            return len(come) == freed

        waitUntil(replaced, "those of the killed worker count no more")
        self.assertEqual(self.crowd(5), [])
