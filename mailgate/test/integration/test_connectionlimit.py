# -*- test-case-name: mailgate.test.integration.test_connectionlimit -*-
"""
Silent clients that keep connections, and a process with few descriptors. Every client that has the greeting can log in,
and new clients are served when others leave.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.adminclient import AdminClient
from mailgate.test.integration.daemon import freePort, newFolder, waitUntil
from mailgate.test.integration.gateway import FOREGROUND, GatewayProcess
from mailgate.test.integration.scripted import ACCEPT, ScriptedAuth, ScriptedBackend

PATIENCE = 20.0
"""Seconds that a client waits for a reply."""

GREETING = b"* OK IMAP4 ready\r\n"


class LimitTestCase(SynchronousTestCase):
    """A gateway for IMAP and POP3, its service and its backend."""

    def setUp(self):
        self.folder = newFolder("limit")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.ports = {protocol: freePort() for protocol in ("imap", "pop3")}
        self.auth, self.backend = ScriptedAuth(), ScriptedBackend("imap")
        self.addCleanup(self.auth.stop)
        self.addCleanup(self.backend.stop)
        self.auth.ports = {"PORT": self.backend.port}
        self.auth.script([ACCEPT])

    def start(self, process: str, mail: str = "") -> None:
        """Start the gateway; C{mail} has its authentication or backend, if not the service."""
        mail = mail or f"auth_http = http://127.0.0.1:{self.auth.port}/auth"
        text = f"[mailgate]\nerror_log = gateway.log info\n{process}\n[mail]\nlimit_conn = off\n{mail}\n"
        for protocol, port in self.ports.items():
            text += f"[server {protocol}]\nprotocol = {protocol}\nlisten = 127.0.0.1:{port}\n"
        self.gateway = GatewayProcess(self.folder, text, list(self.ports.values()), FOREGROUND)
        self.addCleanup(self.gateway.stop)

    def dial(self, protocol: str = "imap") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.ports[protocol]), PATIENCE)
        self.addCleanup(client.close)
        return client

    def hear(self, client: socket.socket, end: bytes) -> bytes:
        """What C{client} receives, up to a line that begins with C{end}."""
        heard = b""
        while not re.search(rb"(?m)^" + re.escape(end) + rb".*\r\n\Z", heard):
            data = client.recv(4096)
            self.assertTrue(data, f"the connection has ended after {heard!r}")
            heard += data
        return heard

    def greeted(self) -> socket.socket:
        client = self.dial()
        self.hear(client, GREETING.strip())
        return client

    def login(self, client: socket.socket) -> bytes:
        """The reply to a login."""
        client.sendall(b"a LOGIN joe sesame\r\n")
        return self.hear(client, b"a ")

    def paused(self, path: str) -> list[float]:
        """Whether the clients of each server wait, as the metrics at the admin server C{path} have it."""
        numbers = AdminClient(path).scrape()
        return [numbers[f'mailgate_accept_paused{{server="{name}"}}'] for name in self.ports]


class SilentTests(LimitTestCase):
    """More clients than descriptors."""

    def test_silent(self):
        """
        With 200 descriptors, 400 silent clients do not prevent a client that has the greeting from logging in. New
        clients are served when the silent ones have left. One line reports the limit.
        """
        self.start("worker_rlimit_nofile = 200")
        first = self.greeted()
        silent = [self.dial(("imap", "pop3")[number % 2]) for number in range(400)]
        waitUntil(lambda: "worker_connections are not enough" in self.gateway.log(), "the limit is reached")
        self.assertLess(len(self.gateway.descriptors()), 100)
        self.assertTrue(self.login(first).endswith(b"a OK logged in\r\n"))
        for client in silent:
            client.close()
        for _ in range(10):
            client = self.greeted()
            self.assertTrue(self.login(client).endswith(b"a OK logged in\r\n"))
        self.assertEqual(len(re.findall("worker_connections are not enough", self.gateway.log())), 1)
        self.assertNotIn("cannot accept connections", self.gateway.log())
        # It continues: earlier relays still work.
        first.sendall(b"b NOOP\r\n")
        self.hear(first, b"b OK")

    def test_loggedIn(self):
        """All accepted clients can log in: there is a descriptor for the backend of each."""
        self.start("worker_rlimit_nofile = 200")
        clients = [self.dial() for _ in range(50)]
        for client in clients:
            self.hear(client, GREETING.strip())
        waiting = self.dial()
        for client in clients:
            self.assertTrue(self.login(client).endswith(b"a OK logged in\r\n"))
        waitUntil(lambda: "worker_connections are not enough: 50 " in self.gateway.log(), "the limit is reached")
        clients[7].close()
        self.hear(waiting, GREETING.strip())
        self.assertTrue(self.login(waiting).endswith(b"a OK logged in\r\n"))

    def test_written(self):
        """
        A configured number counts for all ports together; waiting clients are served in their turn, and a metric tells
        that they wait.
        """
        path = os.path.join(self.folder, "admin")
        self.start(f"worker_connections = 2\nadmin = unix:{path}")
        clients = [self.greeted(), self.dial("pop3")]
        clients[1].recv(100)
        clients += [self.dial(), self.dial("pop3")]
        waitUntil(lambda: "worker_connections are not enough: 2 " in self.gateway.log(), "the limit is reached")
        waitUntil(lambda: self.paused(path) == [1, 1], "the metric has both servers")
        errors = AdminClient(path).scrape()['mailgate_log_lines_total{level="error"}']
        self.assertEqual(errors, self.gateway.log().count("[error]"))
        for client in clients[:2]:
            client.close()
        self.hear(clients[2], GREETING.strip())
        self.hear(clients[3], b"+OK")
        waitUntil(lambda: self.paused(path) == [0, 0], "both servers accept clients")

    def test_tooMany(self):
        """A number that the descriptors do not allow is reported at the start, and reduced."""
        self.start("worker_rlimit_nofile = 200\nworker_connections = 1000")
        waitUntil(lambda: "worker_connections = 1000: " in self.gateway.log(), "the warning is logged")
        self.assertRegex(
            self.gateway.log(), r"\[warn\] .*worker_connections = 1000: exceeds the limit of 200 open files"
        )
        clients = [self.dial() for _ in range(51)]
        waitUntil(lambda: "worker_connections are not enough: 50 " in self.gateway.log(), "the limit is reached")
        clients[0].close()
        self.hear(clients[-1], GREETING.strip())

    def test_workers(self):
        """Each of several workers has its own limit; one of them reports a wrong number."""
        self.start("worker_processes = 2\nworker_rlimit_nofile = 200\nworker_connections = 1000")
        waitUntil(lambda: "serve, forked by zygote" in self.gateway.log(), "the workers serve")
        clients = [self.dial() for _ in range(100)]
        for client in clients:
            self.hear(client, GREETING.strip())
        waiting = self.dial()
        waitUntil(lambda: self.gateway.log().count("worker_connections are not enough: 50 ") == 2, "both are full")
        clients[3].close()
        self.hear(waiting, GREETING.strip())
        self.assertEqual(self.gateway.log().count("worker_connections = 1000: exceeds the limit"), 1)


class ExhaustedTests(LimitTestCase):
    """A process without free descriptors nevertheless."""

    def exhaust(self) -> None:
        """From now on the gateway finds no free descriptor."""
        numbers = set(map(int, os.listdir(f"/proc/{self.gateway.pid}/fd")))
        # A free number below those in use would still be used.
        free = next(number for number in range(1000) if number not in numbers)
        self.limits = resource.prlimit(self.gateway.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.gateway.pid, resource.RLIMIT_NOFILE, (free, self.limits[1]))

    def recover(self) -> None:
        resource.prlimit(self.gateway.pid, resource.RLIMIT_NOFILE, self.limits)

    def check(self, logged: str) -> None:
        """A login fails temporarily, with the reason in the log, and later succeeds on the same connection."""
        client = self.greeted()
        for _ in range(5):
            # By then the gateway has forgotten earlier clients, and their descriptors are free.
            client.sendall(b"n NOOP\r\n")
            self.hear(client, b"n OK")
        self.exhaust()
        answer = self.login(client)
        self.assertTrue(answer.startswith(b"a NO [UNAVAILABLE] "), answer)
        waitUntil(lambda: re.search(rf"\[error\] .*{logged}.*Too many open files", self.gateway.log()), "it is logged")
        self.recover()
        for other in (client, self.greeted()):
            self.assertTrue(self.login(other).endswith(b"a OK logged in\r\n"))

    def test_backend(self):
        """Without a descriptor for a backend, the login fails temporarily."""
        # A connection that the gateway makes by itself would free its descriptor later, and the login would get it.
        quiet = "imap_capabilities = IMAP4rev1\npop3_capabilities = TOP\nproxy_next_upstream = off"
        self.start("", f"proxy_pass = 127.0.0.1:{self.backend.port}\n{quiet}")
        self.check(f"backend 127.0.0.1:{self.backend.port}")

    def test_service(self):
        """So does it without one for the service."""
        self.start("")
        self.check("auth http server")


if not hasattr(resource, "prlimit"):
    ExhaustedTests.skip = "the limits of another process cannot be set"
