"""
Tests for L{mailgate.limits.keys}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.keys import UNIX, Keys, canonical, canonicalHost
from mailgate.limits.policy import Prefixes

SECRET = bytes(range(32))


class CanonicalTests(SynchronousTestCase):
    """One form for all spellings of a user name or an address."""

    def test_users(self) -> None:
        """Space, case and details do not make another user."""
        for written in (b"joe@example.org", b" Joe@Example.ORG", b"joe+x@example.org\t", b"JOE+a+b@example.org"):
            self.assertEqual(canonical(written), b"joe@example.org", written)
        for written in (b"joe", b"JOE ", b"joe+x"):
            self.assertEqual(canonical(written), b"joe", written)

    def test_text(self) -> None:
        """Letters beyond ASCII have a case, too; bytes that are no text stay as they are."""
        self.assertEqual(canonical("JÖRG+x@example.org".encode()), b"jorg@example.org")
        self.assertEqual(canonical("\u00a0Straße".encode()), b"strasse")
        self.assertEqual(canonical(b"J\xff"), b"j\xff")

    def test_compared(self) -> None:
        """Spellings that a service may take for the same user are one user: else each would have its own guesses."""
        for written in (
            "jo\u00ade",
            "j\u00f3\u00e9",
            "\uff2a\uff4f\uff45",
            "jo\u0301e",
            "\u2060joe\u200d",
            "jo\ufe00e",
            "joe\u3000",
        ):
            self.assertEqual(canonical(written.encode()), b"joe", ascii(written))
        self.assertEqual(canonical("joe\uff0bx@example.org".encode()), b"joe@example.org")
        self.assertNotEqual(canonical("か".encode()), canonical("が".encode()))

    def test_odd(self) -> None:
        """A name that is a detail alone, or empty, stays."""
        for name in (b"", b"+x@example.org", b"+", b"@example.org", b"joe@exa+mple.org"):
            self.assertEqual(canonical(name), name)

    def test_master(self) -> None:
        """A master's login is the master's."""
        for written in (b"joe*Root", b"ann*x*root ", b"joe@example.org*root+x"):
            self.assertEqual(canonical(written), b"root", written)
        for name in (b"joe*", b"*"):
            self.assertEqual(canonical(name), name)

    def test_once(self) -> None:
        """The form of a form is itself."""
        for written in (
            b" Joe+x@A.org ",
            b"+x",
            b"a*b*",
            b"a* b",
            "STRASSE ß".encode(),
            "\u1e9e\u0130 \u00ad".encode(),
        ):
            self.assertEqual(canonical(canonical(written)), canonical(written))

    def test_hosts(self) -> None:
        """IPv6 forms of IPv4 addresses are IPv4 addresses."""
        for host in ("192.0.2.7", "::ffff:192.0.2.7", "64:ff9b::192.0.2.7", "64:ff9b::c000:207"):
            self.assertEqual(canonicalHost(host), "192.0.2.7", host)
        self.assertEqual(canonicalHost("2001:DB8::0:1"), "2001:db8::1")
        self.assertEqual(canonicalHost("fe80::1%eth0"), "fe80::1")
        self.assertEqual(canonicalHost("unix:/run/x"), UNIX)


class KeysTests(SynchronousTestCase):
    """Hashes of users, addresses and networks."""

    def setUp(self) -> None:
        self.keys = Keys(SECRET, Prefixes())

    def same(self, one: str, other: str) -> tuple[bool, bool]:
        """Whether two hosts are one address, and one network."""
        first, second = self.keys.place(one), self.keys.place(other)
        return first.address == second.address, first.network == second.network

    def test_places(self) -> None:
        """The defaults: /32 and /64 are an address, /24 and /48 a network."""
        self.assertEqual(self.same("192.0.2.7", "192.0.2.8"), (False, True))
        self.assertEqual(self.same("192.0.2.7", "192.0.3.7"), (False, False))
        self.assertEqual(self.same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"), (True, True))
        self.assertEqual(self.same("2001:db8:1:2::1", "2001:db8:1:3::1"), (False, True))
        self.assertEqual(self.same("2001:db8:1:2::1", "2001:db8:2:2::1"), (False, False))

    def test_forms(self) -> None:
        """Mapped and NAT64 addresses count as their IPv4 address; 6to4's as a /48."""
        self.assertEqual(self.same("192.0.2.7", "::ffff:192.0.2.7"), (True, True))
        self.assertEqual(self.same("192.0.2.7", "64:ff9b::192.0.2.7"), (True, True))
        self.assertEqual(self.same("2002:c000:207:1::1", "2002:c000:207:2::1"), (True, True))
        self.assertEqual(self.same("2002:c000:207:1::1", "2002:c000:208:1::1"), (False, False))

    def test_prefixes(self) -> None:
        """C{limit_prefix} changes them."""
        self.keys = Keys(SECRET, Prefixes(24, 56, 16, 32))
        self.assertEqual(self.same("192.0.2.7", "192.0.2.8"), (True, True))
        self.assertEqual(self.same("192.0.2.7", "192.0.3.8"), (False, True))
        self.assertEqual(self.same("2001:db8:1:200::1", "2001:db8:1:2ff::1"), (True, True))

    def test_unix(self) -> None:
        """Clients at unix sockets have no address."""
        place = self.keys.place(UNIX)
        self.assertFalse(place.hasAddress)
        self.assertTrue(self.keys.place("::1").hasAddress)
        self.assertNotEqual(place.address, self.keys.user(b""))

    def test_secret(self) -> None:
        """Another secret makes other keys; all have 60 bits at most and are not 0."""
        other = Keys(bytes(32), Prefixes())
        self.assertNotEqual(self.keys.user(b"joe"), other.user(b"joe"))
        self.assertEqual(self.keys.user(b"joe"), Keys(SECRET, Prefixes()).user(b"joe"))
        for number in range(200):
            self.assertTrue(0 < self.keys.user(b"%d" % number) < 1 << 60)
        self.assertRaises(ValueError, Keys, b"short", Prefixes())

    def test_bounded(self) -> None:
        """The cache of keys does not grow beyond its bound, and keeps no long names."""
        for number in range(9000):
            self.keys.user(b"%d" % number)
            self.keys.place(f"10.{number >> 8}.{number & 255}.1")
        self.keys.user(b"x" * 5000)
        self.assertTrue(0 < len(self.keys._users) <= 1024)
        self.assertTrue(0 < len(self.keys._places) <= 1024)
        self.assertIsNone(self.keys.knownUser(b"x" * 5000))

    def test_shown(self) -> None:
        """What operators read."""
        self.assertEqual(self.keys.shown("::ffff:192.0.2.7"), "192.0.2.7")
        self.assertEqual(self.keys.shown("2001:db8:1:2::1"), "2001:db8:1:2::/64")
        self.assertEqual(self.keys.shown(UNIX), UNIX)
