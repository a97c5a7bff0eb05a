"""
Tests for L{mailgate.rules.rules}: the values of variables.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import GatewaySettings, SectionSettings
from mailgate.rules.facts import Facts
from mailgate.rules.rules import Rules
from mailgate.rules.settings import GeoSettings, MapSettings


def rulesOf(**tables):
    """The rules with each of C{tables}, by its name."""
    word = {GeoSettings: "geo", MapSettings: "map"}
    sections = (SectionSettings(word[type(table)], name, {type(table): table}) for name, table in tables.items())
    return Rules(GatewaySettings(named=tuple(sections)))


def facts(remoteAddress="192.0.2.7", user="joe@example.com", protocol="imap", serverName=""):
    return Facts(remoteAddress, user, protocol, serverName)


class ExpandTests(SynchronousTestCase):
    """Texts with variables."""

    def test_facts(self):
        """The variables of a login."""
        text = "$remote_addr ${user} $domain $protocol/$ssl_server_name."
        known = facts(user="Joe@Example.COM", serverName="mx.test")
        self.assertEqual(rulesOf().expand(text, known), "192.0.2.7 Joe@Example.COM example.com imap/mx.test.")

    def test_noDomain(self):
        """A name without @ has no domain."""
        self.assertEqual(rulesOf().expand("<$domain>", facts(user="joe")), "<>")

    def test_once(self):
        """What a client sends is no text with variables."""
        self.assertEqual(rulesOf().expand("$user", facts(user="$remote_addr")), "$remote_addr")


class GeoTests(SynchronousTestCase):
    """[geo NAME]."""

    def value(self, address, **more):
        entries = (("10.0.0.0/8", "wide"), ("10.8.0.0/16", "campus"), ("10.8.1.1", "host"), ("2001:db8::/32", "six"))
        return rulesOf(near=GeoSettings(default="else", entries=entries, **more)).expand("$near", facts(address))

    def test_longest(self):
        """The longest prefix decides, whatever the order."""
        self.assertEqual(self.value("10.1.2.3"), "wide")
        self.assertEqual(self.value("10.8.2.3"), "campus")
        self.assertEqual(self.value("10.8.1.1"), "host")
        self.assertEqual(self.value("2001:db8:1::1"), "six")

    def test_default(self):
        """Other addresses, and clients of unix sockets."""
        self.assertEqual(self.value("192.0.2.1"), "else")
        self.assertEqual(self.value("2001:db9::1"), "else")
        self.assertEqual(self.value("unix:"), "else")

    def test_mapped(self):
        """An IPv4 address in IPv6's form is the IPv4 address."""
        self.assertEqual(self.value("::ffff:10.8.1.1"), "host")

    def test_source(self):
        """Another text may stand for the address."""
        self.assertEqual(self.value("192.0.2.1", source="10.8.1.1"), "host")


class MapTests(SynchronousTestCase):
    """[map NAME]."""

    table = MapSettings(
        source="$domain",
        default="rest",
        entries=(
            ("~^x", "pattern"),
            ("~*Y\\.test$", "any case"),
            ("mail.*", "beginning"),
            ("*.example.com", "ending"),
            ("*.deep.example.com", "longer"),
            ("Example.com", "exact"),
            ("\\default", "escaped"),
            ("own.test", "$protocol-pool"),
        ),
    )

    def value(self, domain, **tables):
        return rulesOf(pool=self.table, **tables).expand("$pool", facts(user=f"joe@{domain}"))

    def test_order(self):
        """A text as it stands, then domains with *, the longest first, then patterns in their order."""
        for domain, expected in (
            ("example.COM", "exact"),
            ("a.example.com", "ending"),
            ("a.b.example.com", "ending"),
            ("a.deep.example.com", "longer"),
            ("mail.test", "beginning"),
            ("mail.example.com", "ending"),
            ("x.test", "pattern"),
            ("my.TEST", "any case"),
            ("default", "escaped"),
            ("other.test", "rest"),
            ("own.test", "imap-pool"),
        ):
            self.assertEqual(self.value(domain), expected, domain)

    def test_long(self):
        """Regular expressions are not tried for texts longer than any address: some would take minutes."""
        table = MapSettings(source="$user", default="rest", entries=(("~.*@.*\\.edu$", "campus"), ("~^@", "at")))
        rules = rulesOf(pool=table)
        self.assertEqual(rules.expand("$pool", facts(user="joe@a.edu")), "campus")
        self.assertEqual(rules.expand("$pool", facts(user="@" * 4000)), "rest")

    def test_nested(self):
        """A table may look another one up."""
        outer = MapSettings(source="$pool", default="$pool", entries=(("exact", "found"),))
        rules = rulesOf(pool=self.table, outer=outer)
        self.assertEqual(rules.expand("$outer", facts(user="joe@example.com")), "found")
        self.assertEqual(rules.expand("$outer", facts(user="joe@x.test")), "pattern")


class PossibleTests(SynchronousTestCase):
    """What a text may stand for."""

    def test_values(self):
        """All values of the tables, combined; not known where a client chooses."""
        near = GeoSettings(default="eu", entries=(("10.0.0.0/8", "us"),))
        by = MapSettings(source="$domain", default="$near", entries=(("example.com", "own"),))
        loose = MapSettings(source="$domain", default="$domain")
        rules = rulesOf(near=near, by=by, loose=loose)
        self.assertEqual(rules.possible("store"), {"store"})
        self.assertEqual(rules.possible("$by"), {"eu", "us", "own"})
        self.assertEqual(rules.possible("$near-$near"), {"eu-eu", "us-us"})
        self.assertEqual(rules.possible("$near-$by"), {f"{a}-{b}" for a in ("eu", "us") for b in ("eu", "us", "own")})
        self.assertIsNone(rules.possible("$user"))
        self.assertIsNone(rules.possible("x$loose"))
