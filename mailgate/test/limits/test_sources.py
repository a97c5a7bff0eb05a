"""Tests for L{mailgate.limits.sources}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.policy import Access, Prefixes
from mailgate.limits.sources import Source, Sources
from mailgate.net.networks import parseNetwork


class SourcesTests(SynchronousTestCase):
    """L{Sources}."""

    def setUp(self) -> None:
        self.sources = Sources("imap", Prefixes())

    def same(self, one: str, other: str) -> None:
        self.assertEqual(self.sources.of(one).key, self.sources.of(other).key)

    def differ(self, one: str, other: str) -> None:
        self.assertNotEqual(self.sources.of(one).key, self.sources.of(other).key)

    def test_address(self) -> None:
        """An IPv4 address is one client, however it is written; of IPv6 it is the /64."""
        self.same("192.0.2.7:1", "192.0.2.7:2")
        self.same("192.0.2.7:1", "[::ffff:192.0.2.7]:2")
        self.same("192.0.2.7:1", "[64:ff9b::c000:207]:3")
        self.differ("192.0.2.7:1", "192.0.2.8:1")
        self.same("[2001:db8::1]:1", "[2001:db8::ffff:1]:2")
        self.differ("[2001:db8::1]:1", "[2001:db8:0:1::1]:1")
        self.same("[2002:c000:207:1::1]:1", "[2002:c000:207:2::1]:1")
        self.assertEqual(self.sources.of("[::ffff:192.0.2.7]:2").host, "192.0.2.7")

    def test_prefixes(self) -> None:
        """C{limit_prefix} says how much of an address is one client."""
        self.sources = Sources("imap", Prefixes(24, 48, 16, 32))
        self.same("192.0.2.7:1", "192.0.2.200:1")
        self.differ("192.0.2.7:1", "192.0.3.7:1")
        self.same("[2001:db8:0:1::1]:1", "[2001:db8:0:2::1]:1")

    def test_unix(self) -> None:
        """Clients of unix sockets have no address."""
        nowhere = self.sources.nowhere
        self.assertIs(self.sources.of("unix:"), nowhere)
        self.assertEqual((nowhere.host, nowhere.isExempt, nowhere.isAllowed), ("", True, True))

    def test_noPort(self) -> None:
        """The address of a PROXY header may have no port. No part of it is taken for one."""
        self.same("192.0.2.7", "192.0.2.7:1")
        self.same("2001:db8::1", "[2001:db8::1]:9")
        self.sources.of("::1")
        self.assertEqual(self.sources.of("::1:2").host, "::1:2")
        self.assertEqual(self.sources.of("192.0.2.9").host, "192.0.2.9")
        self.assertEqual(self.sources.of("192.0.2.8").host, "192.0.2.8")

    def test_keys(self) -> None:
        """Each server has its own key of an address."""
        sources: list[Source] = [
            Sources(server, Prefixes()).of(client)
            for server in ("imap", "pop3")
            for client in ("192.0.2.7:1", "192.0.2.8:1")
        ]
        self.assertEqual(len({source.address for source in sources}), 4)

    def test_exempt(self) -> None:
        """Addresses of C{limit_exempt} are exempt, also if they are written as IPv6 addresses."""
        sources = Sources("imap", Prefixes(), [parseNetwork("10.0.0.0/8"), parseNetwork("::1")])
        clients = ("10.1.2.3:4", "[::ffff:10.1.2.3]:4", "[::1]:4", "11.1.2.3:4", "[::2]:4")
        self.assertEqual([sources.of(client).isExempt for client in clients], [True, True, True, False, False])

    def test_access(self) -> None:
        """The first line that has the address counts; without one it is allowed, as in nginx."""
        inner = Access(False, parseNetwork("10.1.0.0/16"))
        outer, rest = Access(True, parseNetwork("10.0.0.0/8")), Access(False, None)
        clients = ("10.1.2.3:4", "10.2.2.3:4", "192.0.2.7:4", "[2001:db8::1]:4")

        def allowed(*lines: Access) -> list[bool]:
            sources = Sources("imap", Prefixes(), (), lines)
            return [sources.of(client).isAllowed for client in clients]

        self.assertEqual(allowed(inner, outer, rest), [False, True, False, False])
        self.assertEqual(allowed(outer, inner, rest), [True, True, False, False])
        self.assertEqual(allowed(inner), [False, True, True, True])

    def test_bounded(self) -> None:
        """A flood of addresses is not remembered."""
        for number in range(5000):
            self.sources.of(f"10.0.{number // 250}.{number % 250}:1")
        self.assertLessEqual(len(self.sources._known), 1024)
