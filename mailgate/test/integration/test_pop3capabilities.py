# -*- test-case-name: mailgate.test.integration.test_pop3capabilities -*-
"""
The capabilities of POP3 at the gateway are those of the Dovecot behind it.
"""

from __future__ import annotations

from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.site import TLS, GatewayTestCase
from mailgate.test.integration.together import together

testSuite = together(__name__)


class CapabilityTests(GatewayTestCase):
    """C{learning} has the default; C{fixed} has a list of its own."""

    def configuration(self, site):
        """Dovecot judges the logins."""
        backend = f"proxy_pass = 127.0.0.1:{site.backends.services['pop3'][1]}"
        fixed = f"{backend}\npop3_capabilities =\n  TOP\n  USER"
        return site.mail() + site.server("pop3", backend, name="learning") + site.server("pop3", fixed, name="fixed")

    def ask(self, address):
        """The capabilities before and after the login."""
        client = RawClient(address)
        self.addCleanup(client.close)
        before = capabilities(client)
        self.assertEqual(client.login(self.user, PASSWORD)[:3], b"+OK")
        return before, capabilities(client)

    def test_same(self):
        """The client sees the same as at Dovecot itself, before and after the login, with each kind of TLS."""
        waitUntil(lambda: b"CAPA" in self.ask(self.at("learning"))[0], "the gateway has learned")
        for tls in TLS:
            before, after = self.ask(self.at("learning", tls))
            directBefore, _ = self.ask(self.backends.at("pop3", tls))
            self.assertEqual(sorted(before), sorted(directBefore))
            self.assertEqual(after, self.ask(self.backends.at("pop3"))[1])
            self.assertNotIn(b"XCLIENT", b" ".join(before))

    def test_fixed(self):
        """A list without the word backend stays."""
        self.assertEqual(self.ask(self.at("fixed"))[0], [b"TOP", b"USER", b"SASL PLAIN LOGIN", b"STLS"])


def capabilities(client):
    """The lines of the reply to CAPA."""
    client.send(b"CAPA\r\n")
    assert client.line().startswith(b"+OK")
    lines = []
    while (line := client.line().rstrip(b"\r\n")) != b".":
        lines.append(line)
    return lines
