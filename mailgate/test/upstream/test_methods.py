"""
Tests for L{mailgate.upstream.methods}: nginx's picks.
"""

from __future__ import annotations

import ipaddress
from itertools import cycle

from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Backend
from mailgate.upstream.methods import Hash, IPHash, LeastConnections, Random, Ring, RingHash, RoundRobin
from mailgate.upstream.peer import Peer, PeerLimits


def peersOf(*weights, **limits):
    """A peer for each of C{weights}: 127.0.0.1:18101 and so on."""
    return [
        Peer(Backend("127.0.0.1", port), ("127.0.0.1", port), PeerLimits(weight=weight, **limits))
        for port, weight in enumerate(weights, 18101)
    ]


def named(peers, peer):
    """A for the first of C{peers}, and so on; - for none."""
    return "-" if peer is None else "ABCDEFGH"[peers.index(peer)]


def anyPeer(peer):
    return peer.isEligible(0)


class RoundRobinTests(SynchronousTestCase):
    """Smooth weighted round robin."""

    def picks(self, count, *weights):
        peers = peersOf(*weights)
        return "".join(named(peers, RoundRobin(peers).pick(0, anyPeer)) for _ in range(count))

    def test_vectors(self):
        """The order that nginx has."""
        self.assertEqual(self.picks(14, 5, 1, 1), "AABACAA" * 2)
        self.assertEqual(self.picks(10, 3, 2), "ABABA" * 2)
        self.assertEqual(self.picks(6, 1, 1, 1), "ABCABC")

    def test_none(self):
        """Where no peer can be chosen there is none."""
        self.assertIsNone(RoundRobin(peersOf(1, 1, down=True)).pick(0, anyPeer))

    def test_quarantine(self):
        """
        A(2) serves, B(2, max_fails=2, fail_timeout=4s) refuses, and a session comes each half second: B is tried in the
        second and fourth, again once at 7 s, and then not before 11 s.
        """
        good, bad = peersOf(2, 2, maxFails=2, failTimeout=4)
        tried = []
        for moment in range(40):
            now = 1000 + moment // 2
            asked = set()
            method = RoundRobin([good, bad])
            while True:
                peer = method.pick(now, lambda each, now=now, asked=asked: each not in asked and each.isEligible(now))
                asked.add(peer)
                peer.chosen(now)
                peer.ended()
                if peer is good:
                    peer.succeeded(now)
                    break
                tried.append(moment / 2)
                peer.failed(now)
        self.assertEqual(tried[:3], [0.5, 1.5, 7.0])
        self.assertGreaterEqual(tried[3], 11)


class LeastConnectionsTests(SynchronousTestCase):
    """least_conn."""

    def test_fewest(self):
        """The fewest sessions for the weight; as many are taken by turns."""
        peers = peersOf(1, 1, 2)
        picked = ""
        for _ in range(8):
            peer = LeastConnections(peers).pick(0, anyPeer)
            peer.chosen(0)
            picked += named(peers, peer)
        self.assertEqual({name: picked.count(name) for name in "ABC"}, {"A": 2, "B": 2, "C": 4})
        peers[1].connections = 0
        self.assertIs(LeastConnections(peers).pick(0, anyPeer), peers[1])

    def test_full(self):
        """A peer with max_conns sessions is passed over."""
        peers = peersOf(1, 1, maxConnections=1)
        for expected in "AB-":
            peer = LeastConnections(peers).pick(0, anyPeer)
            self.assertEqual(named(peers, peer), expected)
            if peer:
                peer.chosen(0)


class HashTests(SynchronousTestCase):
    """hash KEY, with and without consistent."""

    vectors = (
        ("alice@example.com", "A", "A"),
        ("bob@example.com", "C", "A"),
        ("carol@example.org", "B", "B"),
        ("eve@example.net", "A", "C"),
        ("postmaster@example.com", "C", "A"),
    )

    def test_vectors(self):
        """Each key has the server that nginx gives it."""
        peers = peersOf(2, 1, 1)
        ring = Ring(peers)
        for key, plain, consistent in self.vectors:
            self.assertEqual(named(peers, Hash(peers, key.encode()).pick(0, anyPeer)), plain, key)
            self.assertEqual(named(peers, RingHash(peers, ring, key.encode()).pick(0, anyPeer)), consistent, key)

    def test_ring(self):
        """The ring is nginx's."""
        peers = peersOf(2, 1, 1)
        ring = Ring(peers)
        self.assertEqual(len(ring.points), 640)
        lowest = [(f"{point:08x}", ring.server(index)[1]) for index, point in enumerate(ring.points[:3])]
        self.assertEqual(lowest, [("00680884", 18101), ("00c7d280", 18102), ("015ea9bb", 18101)])

    def test_bounded(self):
        """However large the weights are, a ring has a bound, and each server its proportion of it."""
        peers = [Peer(Backend(name, 143), (name, 143), PeerLimits(weight)) for name, weight in (("a", 60000), ("b", 1))]
        ring = Ring(peers)
        self.assertLessEqual(len(ring.points), 1 << 18)
        self.assertGreater(len(ring.points), 1 << 17)
        self.assertIn(("b", 143), [ring.server(index) for index in range(len(ring.points))])

    def test_miss(self):
        """A key whose server cannot be used has another, always the same; without any there is none."""
        peers = peersOf(2, 1, 1)
        ring = Ring(peers)
        for method in (lambda: Hash(peers, b"alice@example.com"), lambda: RingHash(peers, ring, b"alice@example.com")):
            picked = {method().pick(0, lambda peer: peer is not peers[0]) for _ in range(5)}
            self.assertEqual(len(picked), 1)
            self.assertNotIn(peers[0], picked)
            self.assertIsNone(method().pick(0, lambda peer: False))

    def test_noKey(self):
        """Without a key, or with a single peer, it goes by turns."""
        peers = peersOf(1, 1)
        self.assertEqual("".join(named(peers, Hash(peers, b"").pick(0, anyPeer)) for _ in range(4)), "ABAB")
        self.assertIsNotNone(Hash(peers[:1], b"x").pick(0, anyPeer))


class IPHashTests(SynchronousTestCase):
    """ip_hash."""

    def test_vectors(self):
        """Networks have the servers that nginx gives them."""
        for address, expected in (
            ("127.0.0.1", "C"),
            ("127.0.0.200", "C"),
            ("127.1.2.3", "A"),
            ("127.9.9.1", "C"),
            ("127.200.7.9", "A"),
        ):
            peers = peersOf(1, 1, 1)
            packed = ipaddress.ip_address(address).packed
            self.assertEqual(named(peers, IPHash(peers, packed).pick(0, anyPeer)), expected, address)

    def test_whole(self):
        """All of an IPv6 address counts; a client of a unix socket has a server too."""
        peers = peersOf(1, 1, 1)
        addresses = [ipaddress.ip_address(f"2001:db8::{number}").packed for number in range(1, 40)]
        self.assertEqual({named(peers, IPHash(peers, packed).pick(0, anyPeer)) for packed in addresses}, set("ABC"))
        self.assertIsNotNone(IPHash(peers, b"").pick(0, anyPeer))


class RandomTests(SynchronousTestCase):
    """random, and random two."""

    def method(self, peers, numbers, two=False):
        drawn = cycle(numbers)
        return Random(peers, lambda below: next(drawn) % below, two)

    def test_weights(self):
        """Each peer takes as much room as its weight."""
        peers = peersOf(2, 1, 1)
        picked = "".join(named(peers, self.method(peers, [number]).pick(0, anyPeer)) for number in range(4))
        self.assertEqual(picked, "AABC")

    def test_two(self):
        """Of two different ones the less busy is chosen; of equal ones the second."""
        peers = peersOf(1, 1, 1)
        self.assertEqual(named(peers, self.method(peers, [0, 0, 1], two=True).pick(0, anyPeer)), "B")
        peers[1].connections = 1
        self.assertEqual(named(peers, self.method(peers, [0, 1], two=True).pick(0, anyPeer)), "A")

    def test_misses(self):
        """After twenty misses it goes by turns; two peers of which one is left are one."""
        peers = peersOf(1, 1)
        self.assertIs(self.method(peers, [0]).pick(0, lambda peer: peer is peers[1]), peers[1])
        self.assertIs(self.method(peers, [0, 1], two=True).pick(0, lambda peer: peer is peers[1]), peers[1])
        self.assertIsNone(self.method(peers, [0, 1], two=True).pick(0, lambda peer: False))


class PeerTests(SynchronousTestCase):
    """What failures and successes do to a peer."""

    def test_weightFalls(self):
        """A failure takes its part of the weight; each look gives one back."""
        (peer,) = peersOf(4, maxFails=2)
        self.assertFalse(peer.failed(100))
        self.assertEqual(peer.effective, 2)
        self.assertTrue(peer.failed(100))
        self.assertEqual(peer.effective, 0)
        peer.accumulate(100)
        self.assertEqual(peer.effective, 1)

    def test_probe(self):
        """After the rest one session is let through, and others only once it has succeeded."""
        (peer,) = peersOf(1, failTimeout=10)
        peer.failed(100)
        self.assertFalse(peer.isEligible(110))
        self.assertTrue(peer.isEligible(111))
        peer.chosen(111)
        self.assertFalse(peer.isEligible(111))
        peer.succeeded(111)
        self.assertTrue(peer.isEligible(111))

    def test_never(self):
        """With max_fails=0 failures are not counted."""
        (peer,) = peersOf(1, maxFails=0)
        for _ in range(9):
            self.assertFalse(peer.failed(100))
        self.assertTrue(peer.isEligible(100))
