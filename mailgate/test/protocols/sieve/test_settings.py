"""
Tests for L{mailgate.protocols.sieve.settings} and the record of the protocol.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.login import Method
from mailgate.protocols.sieve import SIEVE
from mailgate.protocols.sieve.settings import SieveSettings

HEAD = "[server s]\nlisten = 4190\nproxy_pass = 10.0.0.1:4190\n"


def settings(lines: str = "") -> SieveSettings:
    """The settings of a server with C{lines}."""
    found: SieveSettings = parse(HEAD + lines).servers[0][SieveSettings]
    return found


class SettingsTests(SynchronousTestCase):
    """The directives."""

    def test_defaults(self) -> None:
        """The port says the protocol; backends are asked what they offer."""
        server = parse(HEAD).servers[0]
        self.assertEqual(server.protocol, "sieve")
        self.assertEqual(SIEVE.backendPorts, (4190, 0))
        found = server[SieveSettings]
        self.assertEqual((found.auth, found.clientBuffer, found.implementation), (("plain",), 16384, "mailgate"))
        self.assertTrue(found.learns)
        self.assertEqual(settings("sieve_capabilities = backend\n"), settings())

    def test_methods(self) -> None:
        """All mechanisms but APOP."""
        found = settings("sieve_auth = plain login cram-md5 external xoauth2 oauthbearer\nauth_http = http://a/\n")
        self.assertEqual(found.mechanisms[:2], (b"PLAIN", b"LOGIN"))
        self.assertIn(Method.OAUTHBEARER, found.methods)
        self.assertRaises(ConfigurationError, settings, "sieve_auth = apop\n")

    def test_implementation(self) -> None:
        """A name of an old Cyrus makes clients expect its errors."""
        self.assertEqual(settings("sieve_implementation = Mail 1\n").implementation, "Mail 1")
        self.assertRaises(ConfigurationError, settings, "sieve_implementation = \xfcber\n")
        warned = [str(each) for each in parse(HEAD + "sieve_implementation = Cyrus timsieved v2.2\n").warnings]
        self.assertIn("sieve_implementation", "".join(warned))

    def test_lacks(self) -> None:
        """A list without SIEVE is reported."""
        for lines, isReported in (("NOTIFY mailto", True), ("SIEVE", False), ("sieve a", False), ("backend", False)):
            warned = [str(each) for each in parse(HEAD + f"sieve_capabilities = {lines}\n").warnings]
            self.assertEqual("has no SIEVE" in "".join(warned), isReported, lines)

    def test_noLogin(self) -> None:
        """Each session begins with a login."""
        error = self.assertRaises(ConfigurationError, settings, "proxy_auth = none\nauth_http = http://a/\n")
        self.assertIn("cannot be none with ManageSieve", str(error))
