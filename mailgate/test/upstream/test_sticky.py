"""
Tests for L{mailgate.upstream.sticky}, and for sticky groups of L{mailgate.upstream.group}.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.login import Backend
from mailgate.net.naming import NamingReactor
from mailgate.rules.facts import Facts
from mailgate.upstream.group import Upstream
from mailgate.upstream.peer import Peer, PeerLimits
from mailgate.upstream.sticky import Sticky, agrees, mailboxOf, ranked, sticky
from mailgate.upstream.upstreams import Upstreams

SERVER = "[server imap]\nlisten = 127.0.0.1:143\nproxy_pass = 127.0.0.1:1143\n"
FACTS = Facts("192.0.2.7", "joe@example.com", "imap", "")
USERS = [b"user%d@example.com" % number for number in range(1000)]


def peersOf(*hosts: str, port: int = 143, **weights: int) -> list[Peer]:
    return [Peer(Backend(host, port), (host, port), PeerLimits(weights.get(host, 1))) for host in hosts]


class DirectiveTests(SynchronousTestCase):
    """C{sticky}."""

    def problems(self, text: str) -> str:
        error = self.assertRaises(ConfigurationError, parse, text + SERVER)
        return str(error)

    def test_values(self) -> None:
        """off, user, and user with times; retain is never longer than ttl."""
        self.assertIsNone(sticky("off", ""))
        self.assertEqual(sticky("user", ""), Sticky(86400, 900))
        self.assertEqual(sticky("user ttl=2h retain=30m", ""), Sticky(7200, 1800))
        self.assertEqual(sticky("user ttl=5m", ""), Sticky(300, 300))

    def test_mistakes(self) -> None:
        """Errors name the file, the section and the option, and what is wrong."""
        for value, said in (
            ("on", 'must be "off", or "user" with ttl=24h and retain=15m'),
            ("off ttl=1h", 'must be "off", or "user"'),
            ("user tll=1h", '"tll=1h": is no known parameter; did you mean ttl=?'),
            ("user ttl=1h ttl=2h", '"ttl" is given twice'),
            ("user ttl=30s", '"ttl=30s": must be from 60s to 366d'),
            ("user ttl=500ms", '"ttl=500ms": must be a time'),
            ("user ttl=1h retain=2h", "retain=7200s is longer than ttl=3600s"),
        ):
            text = self.problems(f"[upstream store]\nserver = a:1\nsticky = {value}\n")
            self.assertIn(said, text)
            self.assertIn("[upstream store] sticky", text)

    def test_methods(self) -> None:
        """It goes with least_conn and random, which propose a place, and not with what ties others to a server."""
        for method in ("least_conn = on", "random = two"):
            parse(f"[upstream store]\nserver = a:1\nsticky = user\n{method}\n" + SERVER)
        for method, name in (("hash = $domain consistent", "hash"), ("ip_hash = on", "ip_hash")):
            text = self.problems(f"[upstream store]\nserver = a:1\nsticky = user\n{method}\n")
            self.assertIn(f"cannot stand together with {name}: sticky ties a server to the user", text)
        parse("[upstream store]\nserver = a:1\nsticky = off\nip_hash = on\n" + SERVER)
        text = self.problems("[upstream store]\nserver = a:1 slow_start=30s\nsticky = user\n")
        self.assertIn("slow_start goes with sticky only beside least_conn", text)


class RankedTests(SynchronousTestCase):
    """The order for a user without a place."""

    def firsts(self, peers: list[Peer]) -> list[str]:
        return [ranked(peers, user)[0].backend.host for user in USERS]

    def test_weights(self) -> None:
        """Users are spread in the proportion of the weights."""
        counts = Counter(self.firsts(peersOf("a", "b", "c", a=2)))
        self.assertApproximates(counts["a"] / 500, 1, 0.15)
        self.assertApproximates(counts["b"] / 250, 1, 0.25)

    def test_sameEverywhere(self) -> None:
        """It depends on nothing but the users and the servers: not on their order, and not on the port."""
        one = self.firsts(peersOf("a", "b", "c"))
        self.assertEqual(self.firsts(peersOf("c", "a", "b")), one)
        self.assertEqual(self.firsts(peersOf("a", "b", "c", port=110)), one)
        # Another release must not move all users.
        self.assertEqual(one[:8], ["a", "c", "c", "c", "c", "a", "b", "c"])

    def test_removed(self) -> None:
        """When a server is gone, only its users move, to the second of their order."""
        peers = peersOf("a", "b", "c")
        for user in USERS[:100]:
            order = [peer.backend.host for peer in ranked(peers, user)]
            without = [peer.backend.host for peer in ranked(peers[1:], user)]
            self.assertEqual(without, [host for host in order if host != "a"])

    def test_ports(self) -> None:
        """Servers of one host share its users."""
        peers = [Peer(Backend("a", port), ("a", port)) for port in (1, 2)]
        counts = Counter(ranked(peers, user)[0].backend.port for user in USERS)
        self.assertApproximates(counts[1] / 500, 1, 0.15)

    def test_names(self) -> None:
        """Spellings and details of a name are one mailbox; behind a master user it is that of the other user."""
        for name in (b"joe@example.com", b" Joe@Example.com ", b"joe+lists@example.com", b"joe@example.com*master"):
            self.assertEqual(mailboxOf(name), b"joe@example.com")
        self.assertEqual(mailboxOf(b"*master"), b"master")

    def test_agrees(self) -> None:
        """The host decides, also of IPv6; sockets are compared whole."""
        self.assertTrue(agrees("192.0.2.1:143", "192.0.2.1:110"))
        self.assertTrue(agrees("[2001:db8::1]:143", "[2001:db8::1]:110"))
        self.assertFalse(agrees("192.0.2.1:143", "192.0.2.11:143"))
        self.assertFalse(agrees("[2001:db8::1]:143", "[2001:db8::2]:143"))
        self.assertTrue(agrees("unix:/a", "unix:/a"))
        self.assertFalse(agrees("unix:/a", "unix:/b"))


class StickyCase(SynchronousTestCase):
    """Groups of a configuration."""

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.clock.advance(1000)

    def upstreams(self, text: str) -> Upstreams:
        return Upstreams(parse(text + SERVER), NamingReactor(self.clock))

    def group(self, *servers: str, more: str = "") -> Upstream:
        lines = "".join(f"    {server}\n" for server in servers)
        found = self.upstreams(f"[upstream store]\nserver =\n{lines}sticky = user\n{more}").named("store")
        assert found is not None
        return found


class GroupTests(StickyCase):
    """A sticky group."""

    def order(self, group: Upstream, place: str = "", user: bytes = b"joe") -> list[str]:
        attempts, found = group.attemptsOf(user, place), []
        while (peer := attempts.next()) is not None:
            found.append(str(peer.backend))
            peer.ended()
        return found

    def test_order(self) -> None:
        """Without a place that of the hash; a place comes first, wherever it is, and each server is tried once."""
        group = self.group("a:1", "b:1", "c:1", "d:1 backup")
        usual = [str(peer.backend) for peer in ranked(group.peers[:3], b"joe")]
        self.assertEqual(self.order(group), [*usual, "d:1"])
        for place in (*usual, "d:1"):
            self.assertEqual(self.order(group, place), [place, *(each for each in (*usual, "d:1") if each != place)])
        self.assertEqual(self.order(group, "e:1"), [*usual, "d:1"])

    def test_host(self) -> None:
        """A place of another protocol is that of its host; the very server goes before others of the host."""
        group = self.group("a:1", "b:1", "c:1")
        self.assertEqual(self.order(group, "b:110")[0], "b:1")
        group = self.group("a:1", "a:2", "a:3")
        self.assertEqual([self.order(group, f"a:{port}")[0] for port in (1, 2, 3)], ["a:1", "a:2", "a:3"])

    def test_resting(self) -> None:
        """A place that rests, is down, or drains is passed over; when all rest, one login tries one of them."""
        group = self.group("a:1", "b:1", "c:1")
        usual = self.order(group)
        first = group.peersAt(usual[0])[0]
        group.failed(first)
        self.assertEqual(self.order(group, usual[0]), usual[1:])
        self.clock.advance(11)
        first.order = "drain"
        self.assertEqual(self.order(group, usual[0]), usual[1:])
        first.order = ""
        self.assertEqual(self.order(group, usual[0]), usual)
        for peer in group.peers:
            group.failed(peer)
        self.assertEqual(len(self.order(group, usual[0])), 1)

    def test_proposal(self) -> None:
        """It is the first that can be used, and counts no session; least_conn proposes the one with fewest."""
        group = self.group("a:1", "b:1", "c:1", "d:1 backup")
        usual = self.order(group)
        self.assertEqual(group.proposal(b"joe", FACTS), usual[0])
        for number, place in enumerate(usual):
            group.peersAt(place)[0].order = "down"
            after = usual[number + 1] if number + 1 < len(usual) else ""
            self.assertEqual(group.proposal(b"joe", FACTS), after)
        self.assertEqual({peer.connections for peer in group.peers}, {0})
        group = self.group("a:1", "b:1", more="least_conn = on\n")
        for busy, free in (("a:1", "b:1"), ("b:1", "a:1")):
            group.peersAt(busy)[0].connections, group.peersAt(free)[0].connections = 5, 0
            self.assertEqual([group.proposal(user, FACTS) for user in USERS[:5]], [free] * 5)
            # Without a place all gateways choose the same.
            self.assertEqual(self.order(group), [str(peer.backend) for peer in ranked(group.peers, b"joe")])

    def test_foreseen(self) -> None:
        """An explanation has the order of the hash, and says so."""
        group = self.group("a:1", "b:1", "c:1")
        user = mailboxOf(FACTS.user.encode())
        self.assertEqual(list(group.foreseen(FACTS)), ranked(group.peers, user))
        self.assertEqual(group.settings.method, "sticky, hash of the user")
        self.assertEqual(self.group("a:1", more="least_conn = on\n").settings.method, "sticky, least_conn")

    def test_off(self) -> None:
        """A group without the directive has no pool."""
        found: Any = self.upstreams("[upstream store]\nserver = a:1\nsticky = off\n").named("store")
        self.assertIsNone(found.pool)


class PoolTests(StickyCase):
    """Groups that share places."""

    def pools(self, **groups: str) -> dict[str, str | None]:
        text = "".join(
            f"[upstream {name}]\nserver =\n" + "".join(f"    {each}\n" for each in servers.split()) + more
            for name, given in groups.items()
            for servers, _, more in (given.partition("|"),)
        )
        return {group.name: group.pool for group in self.upstreams(text).groups}

    def test_hosts(self) -> None:
        """Groups that have a host in common, perhaps through a third, are one pool with the name of the first."""
        on = "|sticky = user\n"
        self.assertEqual(
            self.pools(Imap=f"a:143 b:143{on}", pop=f"C:110{on}", sieve=f"b:4190 c:4190{on}", other=f"d:143{on}"),
            {"Imap": "imap", "pop": "imap", "sieve": "imap", "other": "other"},
        )

    def test_off(self) -> None:
        """A group that is not sticky joins none."""
        on = "|sticky = user\n"
        self.assertEqual(
            self.pools(one=f"a:143{on}", two="a:110 b:110|", three=f"b:143{on}"),
            {"one": "one", "two": None, "three": "three"},
        )
