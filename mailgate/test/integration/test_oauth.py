# -*- test-case-name: mailgate.test.integration.test_oauth -*-
"""
Bearer tokens: curl sends them, the authentication service judges them, and the backends accept them as passwords.
"""

from __future__ import annotations

import base64
import json
from itertools import product

from mailgate.test.integration.authservice import accept, refuse
from mailgate.test.integration.clients import curl
from mailgate.test.integration.daemon import shared
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.programs import require
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.saslbackends import SaslBackends
from mailgate.test.integration.site import GatewayTestCase
from mailgate.test.integration.together import together

testSuite = together(__name__)

MECHANISMS = ("xoauth2", "oauthbearer")
CHALLENGE = {"imap": b"+ ", "pop3": b"+ "}
ACKNOWLEDGEMENTS = (b"", b"AQ==", b"*", None)
"""What clients answer to the error of a refused token. L{None}: they go on at once."""


class OAuthTests(GatewayTestCase):
    """C{xoauth2} and C{oauthbearer}, each with and without an initial response."""

    needs = ("curl", "dovecot-sieve", "pigeonhole")

    def startBackends(self):
        return shared("sasl", SaslBackends)

    @property
    def protocols(self):
        """Those of curl."""
        return [protocol for protocol in self.backends.protocols if protocol != "sieve"]

    def configuration(self, site):
        """A server for each mechanism of each protocol, because curl chooses among several itself."""
        servers = ""
        for protocol, mechanism in product(self.protocols, MECHANISMS):
            words = f"{protocol}_auth = {mechanism}"
            servers += site.server(protocol, words, name=f"{protocol}-{mechanism}")
            if protocol != "smtp":
                words = f"{words} plain\nauth_http_pass = off\nauth_delay = 0\nproxy_auth = {mechanism}"
                servers += site.server(protocol, words, name=f"{protocol}-{mechanism}-behind")
        return site.mail(f"auth_http = {site.auth.url}") + servers

    def setUp(self):
        super().setUp()
        self.site.auth.asked.clear()
        self.addCleanup(self.site.auth.manners.clear)

    def logIn(self, protocol, mechanism, token, *options):
        """curl, which logs in with C{token} and lists the mailbox."""
        if protocol == "smtp":
            require("postfix")
            options += ("--request", "NOOP")
        options += ("--oauth2-bearer", token)
        return curl(self.at(f"{protocol}-{mechanism}", "implicit"), "", *options, login=f"{self.user}:")

    def test_accepted(self):
        """A token that the service accepts opens the mailbox; the request is like freenginx's."""
        ways = list(product(self.protocols, MECHANISMS, ((), ("--sasl-ir",))))
        for protocol, mechanism, options in ways:
            ran = self.logIn(protocol, mechanism, PASSWORD, *options)
            self.assertEqual(ran.returncode, 0, (protocol, mechanism, ran.stderr))
        names = ("Auth-Protocol", "Auth-Method", "Auth-User", "Auth-Pass")
        asked = [tuple(question[name] for name in names) for question in self.site.auth.asked]
        self.assertEqual(asked, [(protocol, mechanism, self.user, PASSWORD) for protocol, mechanism, _ in ways])
        self.assertNotIn("Auth-Salt", self.site.auth.asked[0])

    def test_refused(self):
        """Another token does not: curl reports a denied login."""
        self.site.auth.manners[self.user] = refuse
        for protocol, mechanism in product(self.protocols, MECHANISMS):
            ran = self.logIn(protocol, mechanism, "expired")
            self.assertEqual(ran.returncode, 67, (protocol, mechanism, ran.stderr))

    def test_longToken(self):
        """A token of eight thousand bytes reaches the service completely, and is not in the log."""
        self.site.auth.manners[self.user] = refuse
        token = "t" * 8000
        for protocol, mechanism in product(self.protocols, MECHANISMS):
            self.logIn(protocol, mechanism, token, "--sasl-ir")
        self.assertEqual({question["Auth-Pass"] for question in self.site.auth.asked}, {token})
        self.assertNotIn("ttt", self.log())

    def client(self, protocol, mechanism):
        """A client of a gateway that lets Dovecot judge tokens."""
        self.site.auth.manners[self.user] = accept
        return RawClient(self.at(f"{protocol}-{mechanism}-behind"))

    def message(self, mechanism, token):
        """The client's message in base64."""
        start = f"user={self.user}" if mechanism == "xoauth2" else f"n,a={self.user},"
        return base64.b64encode(f"{start}\x01auth=Bearer {token}\x01\x01".encode())

    def test_behind(self):
        """Dovecot judges tokens, also of 5,000 bytes. After each way to acknowledge a refusal another login works."""
        for protocol, mechanism in product(("imap", "pop3"), MECHANISMS):
            command = (b"a AUTHENTICATE " if protocol == "imap" else b"AUTH ") + mechanism.upper().encode()
            refusal = b"a NO" if protocol == "imap" else b"-ERR"
            client = self.client(protocol, mechanism)
            for answer in ACKNOWLEDGEMENTS:
                client.send(command + b" " + self.message(mechanism, "expired") + b"\r\n")
                error = json.loads(base64.b64decode(client.line().removeprefix(CHALLENGE[protocol])))
                self.assertEqual(error["status"], "400" if mechanism == "xoauth2" else "invalid_token")
                if answer is not None:
                    client.send(answer + b"\r\n")
                    self.assertTrue(client.line().startswith(refusal), (protocol, mechanism, answer))
            client.send(command + b"\r\n")
            self.assertTrue(client.line().startswith(refusal))
            self.assertEqual(client.line(), CHALLENGE[protocol] + b"\r\n")
            client.send(self.message(mechanism, f"{self.user}.{'t' * 5000}") + b"\r\n")
            self.assertIn(b"OK", client.line(), (protocol, mechanism))
            client.socket.close()

    def test_tooLongForDovecot(self):
        """Dovecot drops a token of 10,000 bytes. That is a temporary failure, not one of Dovecot."""
        client = self.client("imap", "xoauth2")
        client.send(b"a AUTHENTICATE XOAUTH2 " + self.message("xoauth2", f"{self.user}.{'t' * 10000}") + b"\r\n")
        self.assertTrue(client.line().startswith(b"a NO [UNAVAILABLE]"))
        self.assertIn("which may be too long for it", self.log())
        client.socket.close()
