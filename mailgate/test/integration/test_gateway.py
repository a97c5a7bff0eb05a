# -*- test-case-name: mailgate.test.integration.test_gateway -*-
"""
The gateway as a process: start, refusal to start, and stop.
"""

from __future__ import annotations

import os
import re
import socket

from mailgate.test.integration.authservice import hang
from mailgate.test.integration.daemon import accepts, freePort, waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.gateway import FOREGROUND, GatewayProcess
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.site import GatewayTestCase
from mailgate.test.support.loopback import speaksIPv6


class ProcessTests(GatewayTestCase):
    """Each test has its own gateway."""

    def setUp(self):
        super().setUp()
        self.site = self.startSite()
        self.logged = 0

    def tearDown(self):
        """Check its log, and stop it if it runs; it must exit cleanly."""
        try:
            super().tearDown()
        finally:
            self.site.stop()

    def test_stopsWithSessions(self):
        """SIGTERM ends sessions in every phase, and the process, cleanly."""
        clients = []
        for tls in ("plain", "implicit"):
            idle, relayed = RawClient(self.site.at("imap", tls)), RawClient(self.site.at("pop3", tls))
            self.assertEqual(relayed.login(self.user, PASSWORD)[:3], b"+OK")
            clients += [idle, relayed]
        self.site.gateway.stop()
        for client in clients:
            self.assertTrue(client.ended())
            client.close()
        self.assertFalse(accepts(self.site.at("imap").port))

    def test_stopsWhileAsking(self):
        """So does it while an authentication service does not reply."""
        self.site.auth.manners[self.user] = hang
        client = RawClient(self.site.at("imap"))
        client.send(f"a LOGIN {self.user} {PASSWORD}\r\n".encode())
        waitUntil(lambda: self.site.auth.askedAbout(self.user), "the service is asked")
        # The service still hangs: the gateway must not wait for it.
        self.site.gateway.stop()
        self.assertTrue(client.ended())
        client.close()

    def test_portTaken(self):
        """A port in use stops the start, and is named."""
        with socket.create_server(("127.0.0.1", freePort())) as taken:
            port = taken.getsockname()[1]
            server = f"[server imap]\nlisten = 127.0.0.1:{port}\nprotocol = imap\n"
            trouble = self.refusal(f"[mail]\nauth_http = {self.site.auth.url}\n{server}")
        self.assertIn(str(port), trouble)

    def test_misconfigured(self):
        """A mistake in the configuration stops the start: status 78, and a line with the mistake."""
        trouble = self.refusal("[mail]\nauth_htp = http://127.0.0.1/\n[server imap]\nlisten = 127.0.0.1:143\n")
        self.assertIn("status 78", trouble)
        self.assertRegex(trouble, r"gateway\.ini:[0-9]+: \[mail\] auth_htp")
        self.assertIn("auth_http?", trouble)
        self.assertNotIn("Traceback", trouble.partition(": [mail]")[2])

    def refusal(self, ini):
        """Why the gateway does not start with the configuration C{ini}."""
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        with self.assertRaises(AssertionError) as caught:
            GatewayProcess(folder, ini, [freePort()], FOREGROUND)
        return str(caught.exception)


class BothFamiliesTests(GatewayTestCase):
    """An IPv6 listener that accepts IPv4 clients too."""

    if not speaksIPv6():
        skip = "this host has no IPv6"

    def configuration(self, site):
        """The system returns addresses of such clients, and its own, as IPv6 addresses."""
        server = re.sub(r"127\.0\.0\.1:(\d+)$", r"[::]:\1 ipv6only=off", site.server("imap"), count=1, flags=re.M)
        return site.mail(f"auth_http = {site.auth.url}\nauth_http_header = X-Local $server_addr") + server

    def test_client(self):
        """The authentication service and the log get the IPv4 address of an IPv4 client."""
        client = RawClient(self.at("imap"))
        self.addCleanup(client.close)
        self.assertEqual(client.login(self.user, PASSWORD)[:2], b"OK")
        question = self.site.auth.askedAbout(self.user)[-1]
        self.assertEqual((question["Client-IP"], question["X-Local"]), ("127.0.0.1", "127.0.0.1"))
        client.send(b"b LOGOUT\r\n")
        client.rest()
        waitUntil(lambda: "client 127.0.0.1:" in self.log(), "the log tells of the client")
        self.assertNotIn("ffff", self.log())


class DescriptorTests(GatewayTestCase):
    """Leaks."""

    def ends(self):
        """The number of ended connections of the user."""
        return len(re.findall(rf"connection ended: .*{re.escape(self.user)}", self.log()))

    def test_closed(self):
        """When clients have left, as many descriptors are open as before."""

        def visit(tls):
            for protocol in ("imap", "pop3"):
                client = RawClient(self.at(protocol, tls))
                client.login(self.user, PASSWORD)
                client.close()

        visit("plain")
        waitUntil(lambda: self.ends() == 2, "the ends are logged")
        before = len(self.site.gateway.descriptors())
        for tls in ("plain", "starttls", "implicit") * 3:
            visit(tls)
        waitUntil(lambda: self.ends() == 20, "the ends are logged")
        # Connections to the authentication service are kept for later queries; they were open before.
        waitUntil(lambda: len(self.site.gateway.descriptors()) <= before + 1, "nothing else is left open")
