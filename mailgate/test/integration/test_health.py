"""
Health checks of real servers: a server that hangs is taken out of use and comes back, and servers that work log nothing
about checks that an operator would have to look at.
"""

from __future__ import annotations

import re
import shutil
import signal

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.daemon import freePort, newFolder, shared, waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.gateway import GatewayProcess
from mailgate.test.integration.groupsite import namedBackend
from mailgate.test.integration.programs import require
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.scripted import SILENCE
from mailgate.test.integration.site import Address, Backends

WAYS = {
    "imap-plain": ("imap", "imap", ""),
    "imap-starttls": ("imap", "imap", "proxy_ssl = starttls"),
    "imap-tls": ("imap", "imaps", "proxy_ssl = on"),
    "imap-header": ("imap", "haproxy", "proxy_protocol = on"),
    "imap-header2": ("imap", "haproxy", "proxy_protocol = v2"),
    "pop3-plain": ("pop3", "pop3", ""),
    "pop3-starttls": ("pop3", "pop3", "proxy_ssl = starttls"),
    "pop3-tls": ("pop3", "pop3s", "proxy_ssl = on"),
    "smtp-plain": ("smtp", "trusting", ""),
    "smtp-starttls": ("smtp", "sasl", "proxy_ssl = starttls"),
    "smtp-tls": ("smtp", "smtps", "proxy_ssl = on"),
    "smtp-header": ("smtp", "proxied", "proxy_protocol = on"),
    "smtp-header2": ("smtp", "proxied", "proxy_protocol = v2"),
}
"""Servers: their protocol, the service of the backends behind them, and how it is spoken to."""

TROUBLE = re.compile(
    r"warning|lost connection|timeout after|non-SMTP|error|Error|Warning|SSL_accept|alert|reset|Connection closed"
    r"|improper command|too many"
)
"""What no line in a server's log has, if it is about a check."""


class HealthTestCase(SynchronousTestCase):
    """
    Tests with a gateway of their own.

    @cvar process: lines of C{[mailgate]}.
    """

    process = ""

    def setUp(self):
        require("dovecot", "dovecot-imap", "dovecot-pop3")
        self.backends = shared("backends", Backends)
        self.folder = newFolder("health")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.text = f"[mailgate]\nerror_log = {self.folder}/gateway.log info\n{self.process}\n"
        self.text += "[mail]\nserver_name = gate.example.com\n"
        self.ports = []

    def server(self, name, protocol, more=""):
        """Add a server whose group has its name; returns its address."""
        self.ports.append(freePort())
        self.text += f"[server {name}]\nlisten = 127.0.0.1:{self.ports[-1]}\nprotocol = {protocol}\n"
        self.text += f"proxy_pass = {name}\nproxy_ssl_trusted_certificate = {self.backends.authority.path}\n{more}\n"
        return Address(protocol, self.ports[-1], "plain", self.backends.authority.path)

    def group(self, name, *servers, check, timeout):
        """Add a group; C{timeout} is health_check_timeout."""
        lines = "".join(f"    {server}\n" for server in servers)
        self.text += f"[upstream {name}]\nserver =\n{lines}health_check = {check}\nhealth_check_timeout = {timeout}\n"

    def start(self):
        """Start the gateway."""
        self.gateway = GatewayProcess(self.folder, self.text, self.ports)
        self.addCleanup(self.gateway.stop)

    def lines(self, text):
        """The lines of the gateway's log that contain C{text}."""
        return [line for line in self.gateway.log().splitlines() if text in line]


class HangingTests(HealthTestCase):
    """A server that accepts connections and says nothing, beside a real Dovecot."""

    def test_hangs(self):
        """
        It is taken out of use although it can be connected to, also for the time after a reload, and is used again when
        it answers again.
        """
        other = namedBackend("B")
        self.addCleanup(other.stop)
        dovecot = self.backends.dovecot.ports["imap"]
        address = self.server("store", "imap", "timeout = 20s")
        self.group(
            "store",
            f"127.0.0.1:{dovecot}",
            f"127.0.0.1:{other.port}",
            check="interval=100ms jitter=50ms fails=2 passes=2",
            timeout="2s",
        )
        self.start()

        def answer():
            client = RawClient(address)
            try:
                return client.login("user1", PASSWORD).decode()
            finally:
                client.close()

        waitUntil(lambda: "this is B" in answer(), "both servers are used")
        other.script({"GREETING": SILENCE})
        waitUntil(lambda: self.lines("is down"), "the gateway notices that a server hangs")
        before = len(self.lines("backend failed"))
        for reload in (False, True):
            if reload:
                self.gateway.signal(signal.SIGHUP)
                waitUntil(lambda: self.lines("reload 1 done"), "the gateway has reloaded")
            for _ in range(8):
                self.assertIn("Logged in", answer())
        self.assertEqual(len(self.lines("backend failed")), before)
        other.script({"LOGIN": "TAG OK this is B"})
        waitUntil(lambda: self.lines("is up again"), "the gateway notices that the server answers")
        waitUntil(lambda: "this is B" in answer(), "the server is used again")
        (down,), (up,) = self.lines("is down"), self.lines("is up again")
        self.assertIn(f"upstream store: backend 127.0.0.1:{other.port} is down: did not answer within 2 s", down)
        self.assertRegex(up, rf"upstream store: backend 127\.0\.0\.1:{other.port} is up again after \d+ s$")


class QuietTests(HealthTestCase):
    """What servers log about checks."""

    def checks(self, protocols):
        """Check all services of C{protocols} several times; returns nothing."""
        for name, (protocol, service, more) in WAYS.items():
            if protocol in protocols:
                self.server(name, protocol, more)
                port = self.backends.services[service][1]
                check = "interval=300ms jitter=0 fails=1 mandatory"
                # The name is that in the certificate. No server hangs, but on a busy machine one may be late.
                self.group(name, f"localhost:{port}", check=check, timeout="20s")
        self.start()

    def test_postfix(self):
        """Postfix logs no warning and no lost connection, with any of the ways to speak to it."""
        require("postfix")
        postfix = self.backends.postfix

        def hasSettled():
            # Those that wait until Postfix listens connect to each service, and close the connection.
            log = postfix.log()
            ended = log.count("disconnect from")
            return (
                "haproxy read: EOF" in log and ended >= len(postfix.ports) - 1 and ended == log.count(": connect from")
            )

        waitUntil(hasSettled, "Postfix has logged earlier connections")
        before = len(postfix.log())
        self.checks(("smtp",))

        def log():
            return postfix.log()[before:]

        wanted = 3 * sum(protocol == "smtp" for protocol, _, _ in WAYS.values())
        waitUntil(lambda: log().count(" quit=1") >= wanted, "Postfix has logged checks")
        # The end of the gateway may cut a check off.
        logged = log()
        self.gateway.stop()
        for line in logged.splitlines():
            self.assertIsNone(TROUBLE.search(line), line)
        self.assertEqual(self.lines("upstream "), [])
        for line in re.findall("disconnect from .*", logged):
            self.assertNotIn("xclient", line)
            self.assertNotIn("auth", line)

    def test_dovecot(self):
        """Dovecot logs that a client has logged out, and no failure of TLS or of a login."""
        dovecot = self.backends.dovecot
        # Those that wait until Dovecot listens connect to each port, and close the connection.
        waiting = len(dovecot.listening)
        waitUntil(lambda: dovecot.log().count("-login: Info: ") >= waiting, "Dovecot has logged earlier connections")
        before = len(dovecot.log())
        self.checks(("imap", "pop3"))

        def log():
            return dovecot.log()[before:]

        ways = sum(protocol != "smtp" for protocol, _, _ in WAYS.values())
        waitUntil(lambda: len(re.findall("-login: Info: ", log())) >= 3 * ways, "Dovecot has logged checks")
        # The end of the gateway may cut a check off.
        logged = log()
        self.gateway.stop()
        for line in logged.splitlines():
            self.assertIsNone(TROUBLE.search(line), line)
        self.assertEqual(self.lines("upstream "), [])
