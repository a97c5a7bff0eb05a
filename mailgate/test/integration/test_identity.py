# -*- test-case-name: mailgate.test.integration.test_identity -*-
"""
Dovecot gets the client's address. A Dovecot that trusts the gateway logs it, and counts failed logins by it. Another
Dovecot ignores it.
"""

from __future__ import annotations

import re
import select
import socket
import time

from mailgate.test.integration.clients import PATIENCE
from mailgate.test.integration.daemon import shared, waitUntil
from mailgate.test.integration.dovecot import GUARDED, PASSWORD, Dovecot
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.site import GatewayTestCase
from mailgate.test.integration.together import together

testSuite = together(__name__)

GUESSER = "127.0.0.2"
OWNER = "127.0.0.3"


class IdentityTests(GatewayTestCase):
    """The names of servers in front of a Dovecot that trusts the gateway are those of the protocols."""

    def configuration(self, site):
        """Only Dovecot judges the logins."""
        servers = ""
        for name, dovecot in (("", self.dovecot), ("-untrusting", self.backends.dovecot)):
            for protocol in ("imap", "pop3"):
                backend = f"proxy_pass = 127.0.0.1:{dovecot.ports[protocol]}"
                servers += site.server(protocol, backend, name=protocol + name)
        # Only Dovecot delays logins here.
        return site.mail() + servers

    @property
    def dovecot(self):
        """The Dovecot that trusts the gateway."""
        return shared("guarded", lambda: Dovecot(self.backends.authority, GUARDED))

    def connect(self, name, host):
        """A client at C{host}."""
        address = self.at(name)
        connected = socket.create_connection(("127.0.0.1", address.port), PATIENCE, (host, 0))
        client = RawClient(address, connected)
        self.addCleanup(client.close)
        return client

    def addresses(self, dovecot):
        """The addresses of client and server in C{dovecot}'s log of this user's logins."""
        pattern = re.compile(rf"Login: user=<{self.user}>.* rip=([^,]*), lip=([^,]*),")
        waitUntil(lambda: pattern.search(dovecot.log()), "the login is logged")
        return pattern.findall(dovecot.log())

    def test_trusting(self):
        """The log has the client's real address, whatever the client sends."""
        client = self.connect("imap", OWNER)
        client.send(b'i ID ("name" "x" "X-Originating-IP" "192.0.2.66")\r\n')
        self.assertEqual(client.reply(b"i ")[:4], b"i OK")
        self.assertEqual(client.login(self.user, PASSWORD)[:2], b"OK")
        self.assertEqual(client.noop()[:2], b"OK")
        self.assertEqual(self.addresses(self.dovecot), [(OWNER, "127.0.0.1")])

    def test_trustingPOP3(self):
        """So has it with POP3."""
        client = self.connect("pop3", OWNER)
        self.assertEqual(client.login(self.user, PASSWORD)[:3], b"+OK")
        self.assertEqual(client.noop()[:3], b"+OK")
        self.assertEqual(self.addresses(self.dovecot), [(OWNER, "127.0.0.1")])

    def test_untrusting(self):
        """A Dovecot that does not trust the gateway ignores the address, and accepts the login."""
        client = self.connect("imap-untrusting", OWNER)
        self.assertEqual(client.login(self.user, PASSWORD)[:2], b"OK")
        self.assertEqual(client.noop()[:2], b"OK")
        self.assertEqual(self.addresses(self.backends.dovecot), [("127.0.0.1", "127.0.0.1")])

    def test_untrustingPOP3(self):
        """Its POP3 greeting has no XCLIENT."""
        client = self.connect("pop3-untrusting", OWNER)
        self.assertEqual(client.login(self.user, PASSWORD)[:3], b"+OK")
        self.assertEqual(client.noop()[:3], b"+OK")
        self.assertEqual(self.addresses(self.backends.dovecot), [("127.0.0.1", "127.0.0.1")])

    def test_penalty(self):
        """A wrong login of one client delays its next ones, also right ones, but not those of another client."""
        self.assertIn(b"AUTH", self.connect("pop3", GUESSER).login(self.user, "wrong"))
        # Four seconds each from here on.
        began = time.monotonic()
        waiting = [self.connect("imap", GUESSER), self.connect("pop3", GUESSER)]
        waiting[0].send(f"w LOGIN {self.user} {PASSWORD}\r\n".encode())
        waiting[1].send(f"USER {self.user}\r\n".encode())
        self.assertEqual(waiting[1].line()[:3], b"+OK")
        waiting[1].send(f"PASS {PASSWORD}\r\n".encode())
        self.assertEqual(self.connect("imap", OWNER).login(self.user, PASSWORD)[:2], b"OK")
        self.assertEqual(self.connect("pop3", OWNER).login(self.user, PASSWORD)[:3], b"+OK")
        answered = select.select([client.socket for client in waiting], [], [], 0)[0]
        # On a busy machine the others may have taken so long.
        if time.monotonic() - began < 3.5:
            self.assertEqual(answered, [])
