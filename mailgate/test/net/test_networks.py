"""
Tests of L{mailgate.net.networks}.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from twisted.trial.unittest import SynchronousTestCase

from mailgate.net.networks import isWithin, parseNetwork, parseNetworks, plainAddress, sourceOf, unmapped


class NetworkTests(SynchronousTestCase):
    """Networks in nginx's form."""

    def test_forms(self) -> None:
        self.assertEqual(parseNetwork("10.0.0.0/8"), IPv4Network("10.0.0.0/8"))
        self.assertEqual(parseNetwork("10.1.2.3/8"), IPv4Network("10.0.0.0/8"))
        self.assertEqual(parseNetwork("2001:db8::1"), IPv6Network("2001:db8::1/128"))
        self.assertEqual(parseNetwork("::ffff:10.0.0.0/104"), IPv4Network("10.0.0.0/8"))

    def test_refused(self) -> None:
        for item in ("10.0.0.0/255.0.0.0", "10.0.0.0/33", "mail.example.com", "", "10.0.0.0/"):
            self.assertRaises(ValueError, parseNetwork, item)

    def test_list(self) -> None:
        """Spaces and line ends separate networks. The error names the invalid one."""
        expected = (IPv4Network("10.0.0.0/8"), IPv6Network("2001:db8::/48"))
        self.assertEqual(parseNetworks("10.0.0.0/8 2001:db8::/48", "/"), expected)
        self.assertEqual(parseNetworks("10.0.0.0/8\n2001:db8::/48", "/"), expected)
        error = self.assertRaises(ValueError, parseNetworks, "10.0.0.0/8 web", "/")
        self.assertEqual(str(error), '"web" is neither an address nor a network such as 10.0.0.0/8')
        self.assertRaises(ValueError, parseNetworks, " ", "/")

    def test_within(self) -> None:
        networks = (parseNetwork("10.0.0.0/8"), parseNetwork("2001:db8::/48"))
        for host in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::7"):
            self.assertTrue(isWithin(host, networks), host)
        for host in ("11.1.2.3", "::ffff:11.1.2.3", "2001:db9::7", "unix:", "::10.1.2.3"):
            self.assertFalse(isWithin(host, networks), host)

    def test_plainAddress(self) -> None:
        self.assertEqual(str(plainAddress("::ffff:192.0.2.7")), "192.0.2.7")
        self.assertEqual(str(plainAddress("2001:db8::7")), "2001:db8::7")
        self.assertIsNone(plainAddress("unix:"))

    def test_unmapped(self) -> None:
        """An address that only begins like a mapped one, or has another prefix, does not change."""
        self.assertEqual(unmapped("::ffff:192.0.2.7"), "192.0.2.7")
        for host in ("192.0.2.7", "2001:db8::7", "::ffff:1:2:3", "::ffff", "::192.0.2.7", "64:ff9b::c000:207"):
            self.assertEqual(unmapped(host), host)


class SourceTests(SynchronousTestCase):
    """The key that a client counts under."""

    def test_IPv4(self) -> None:
        for host in ("192.0.2.7", "::ffff:192.0.2.7", "::ffff:c000:207", "64:ff9b::192.0.2.7"):
            self.assertEqual(sourceOf(host), "192.0.2.7")

    def test_IPv6(self) -> None:
        """All addresses of a /64 count as one client. Those of the next /64 count as another."""
        self.assertEqual(sourceOf("2001:db8:0:7::1"), "2001:db8:0:7::/64")
        self.assertEqual(sourceOf("2001:db8:0:7:ffff::"), "2001:db8:0:7::/64")
        self.assertEqual(sourceOf("2001:db8:0:8::1"), "2001:db8:0:8::/64")

    def test_unix(self) -> None:
        self.assertEqual(sourceOf("unix:"), "unix:")
