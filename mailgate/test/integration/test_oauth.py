# -*- test-case-name: mailgate.test.integration.test_oauth -*-
"""
Bearer tokens: curl sends them, the authentication service judges them, and the backends accept them as passwords.
"""

from __future__ import annotations

from itertools import product

from mailgate.test.integration.authservice import refuse
from mailgate.test.integration.clients import curl
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.programs import require
from mailgate.test.integration.site import GatewayTestCase

MECHANISMS = ("xoauth2", "oauthbearer")


class OAuthTests(GatewayTestCase):
    """C{xoauth2} and C{oauthbearer}, each with and without an initial response."""

    needs = ("curl",)

    def configuration(self, site):
        """A server for each mechanism of each protocol, because curl chooses among several itself."""
        servers = ""
        for protocol, mechanism in product(self.backends.protocols, MECHANISMS):
            words = f"{protocol}_auth = {mechanism}\n{protocol}_client_buffer = 16k"
            servers += site.server(protocol, words, name=f"{protocol}-{mechanism}")
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
        ways = list(product(self.backends.protocols, MECHANISMS, ((), ("--sasl-ir",))))
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
        for protocol, mechanism in product(self.backends.protocols, MECHANISMS):
            ran = self.logIn(protocol, mechanism, "expired")
            self.assertEqual(ran.returncode, 67, (protocol, mechanism, ran.stderr))

    def test_longToken(self):
        """A token of eight thousand bytes reaches the service completely, and is not in the log."""
        self.site.auth.manners[self.user] = refuse
        token = "t" * 8000
        for protocol, mechanism in product(self.backends.protocols, MECHANISMS):
            self.logIn(protocol, mechanism, token, "--sasl-ir")
        self.assertEqual({question["Auth-Pass"] for question in self.site.auth.asked}, {token})
        self.assertNotIn("ttt", self.log())
