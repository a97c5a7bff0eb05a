"""
Tests for L{mailgate.frontend.debugging}: the directives. L{mailgate.test.log.test_steps} has the lines.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.config.restart import untouchable
from mailgate.directives import ConfigurationError, GatewaySettings
from mailgate.frontend.debugging import Debugged, DebugSettings

SERVER = "[server x]\nprotocol = imap\nlisten = 127.0.0.1:143\nproxy_pass = 127.0.0.1:1143\n"


def read(text: str) -> GatewaySettings:
    return parse(f"[mailgate]\n{text}\n{SERVER}")


def debugged(text: str) -> Debugged:
    found = read(text)[DebugSettings].debugged
    assert found is not None
    return found


class DirectiveTests(SynchronousTestCase):
    """Their values."""

    def test_none(self) -> None:
        """Without both, there is nothing to look up for a connection."""
        self.assertIsNone(read("")[DebugSettings].debugged)

    def test_connections(self) -> None:
        """Addresses, networks, host names and unix:, on one line or on several."""
        for text in (
            "debug_connection = 192.0.2.7 10.0.0.0/8 2001:db8::/32 unix: localhost",
            "debug_connection =\n    192.0.2.7\n    10.0.0.0/8 2001:db8::/32\n    unix:\n    localhost",
        ):
            clients = debugged(text).clients
            for host in ("192.0.2.7", "10.1.2.3", "2001:db8::1", "unix:", "127.0.0.1"):
                self.assertIn(host, clients)
            for host in ("192.0.2.8", "2001:db9::1"):
                self.assertNotIn(host, clients)
            self.assertFalse(debugged(text).hasUser(b"joe"))

    def test_users(self) -> None:
        """Masks of fnmatch match whole names, in any case."""
        found = debugged("debug_user = joe *@Example.ORG\n    a?n [xy]*")
        for user in (b"joe", b"JOE", b"ann@example.org", b"ANN", b"x\xff\n"):
            self.assertTrue(found.hasUser(user), user)
        for user in (b"", b"joey", b"joe@example.com", b"an", b"joe\n"):
            self.assertFalse(found.hasUser(user), user)
        self.assertNotIn("192.0.2.7", found.clients)

    def test_mistakes(self) -> None:
        """Other values are refused, with a reason."""
        for text, reason in (
            ("debug_connection = 192.0.2.7/33", '"192.0.2.7/33" is not an address, a network such as 10.0.0.0/8'),
            ("debug_connection = a/b/c", '"a/b/c" is not an address'),
            ("debug_connection = nowhere.invalid", 'host not found in "nowhere.invalid"'),
            ("debug_connection =", "a value is missing"),
            ("debug_user =", "a value is missing"),
        ):
            error = self.assertRaises(ConfigurationError, read, text)
            self.assertIn(reason, str(error))

    def test_careless(self) -> None:
        """A network with host bits is a warning, as in nginx."""
        (warning,) = read("debug_connection = 10.0.0.1/8").warnings
        self.assertIn("[mailgate] debug_connection: low address bits of 10.0.0.1/8 are meaningless", str(warning))

    def test_reload(self) -> None:
        """A reload may change both."""
        changed = read("debug_connection = 192.0.2.7\ndebug_user = joe")
        self.assertEqual(list(untouchable(read(""), changed)), [])
