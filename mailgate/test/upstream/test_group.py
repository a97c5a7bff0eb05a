"""
Tests for L{mailgate.upstream.group}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.login import Backend
from mailgate.rules.facts import Facts
from mailgate.rules.rules import Rules
from mailgate.upstream.group import Upstream
from mailgate.upstream.peer import Peer
from mailgate.upstream.settings import UpstreamSettings

SERVER = "[server imap]\nlisten = 127.0.0.1:143\nproxy_pass = 127.0.0.1:1143\n"
FACTS = Facts("192.0.2.7", "joe@example.com", "imap", "")


def hosts(group, fail=True):
    """The hosts that one login tries until there are no more, each of which fails."""
    found, attempts = [], group.attempts(FACTS)
    while (peer := attempts.next()) is not None:
        found.append(peer.backend.host)
        if fail:
            group.failed(peer)
        peer.ended()
    return found


class GroupTests(SynchronousTestCase):
    """A group."""

    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1000)

    def group(self, *servers, **options):
        text = "[upstream store]\nserver =\n" + "".join(f"    {server}\n" for server in servers)
        text += "".join(f"{name} = {value}\n" for name, value in options.items())
        settings = parse(text + SERVER)
        return Upstream("store", settings.sections(UpstreamSettings)["store"], Rules(settings), self.clock)

    def tried(self, group, **options):
        return hosts(group, **options)

    def test_each(self):
        """Each is tried once, backups behind all others."""
        group = self.group("a:1", "b:1 backup", "c:1")
        self.assertEqual(self.tried(group), ["a", "c", "b"])

    def test_down(self):
        """One that is down, or drains, is never tried."""
        self.assertEqual(self.tried(self.group("a:1 down", "b:1", "c:1 drain")), ["b"])

    def test_resting(self):
        """After max_fails failures it rests for fail_timeout; with all at rest the one that rests least is tried."""
        group = self.group("a:1", "b:1 fail_timeout=30s")
        self.assertEqual(self.tried(group), ["a", "b"])
        self.assertEqual(self.tried(group), ["a"])
        self.clock.advance(11)
        self.assertEqual(self.tried(group), ["a"])
        self.clock.advance(20)
        self.assertEqual(sorted(self.tried(group)), ["a", "b"])

    def test_lone(self):
        """A server alone never rests; beside one that is down it does, and one login at a time tries it."""
        group = self.group("a:1")
        self.assertEqual([self.tried(group) for _ in range(3)], [["a"]] * 3)
        plural = self.group("a:1", "b:1 down")
        self.assertEqual([self.tried(plural) for _ in range(3)], [["a"]] * 3)
        plural.attempts(FACTS).next()
        self.assertEqual(self.tried(plural), [])

    def test_probeAlone(self):
        """A server whose probe fails when it is alone by then is tried again when it is not alone any more."""
        group = self.group("a:1", "b:1")
        self.tried(group)
        probed = group.attempts(FACTS).next()
        gone = next(line for line, (primaries, _) in group._ofLine.items() if primaries != [probed])
        group.replace(gone, [])
        group.failed(probed)
        probed.ended()
        self.assertFalse(probed.isProbed)

    def test_probe(self):
        """With all at rest one login at a time tries one; if it works all logins go there."""
        group = self.group("a:1 fail_timeout=30s", "b:1 fail_timeout=20s max_conns=3", "c:1 down", "d:1 backup")
        self.assertEqual(self.tried(group), ["a", "b", "d"])
        left = group.attempts(FACTS).next()
        self.assertEqual(left.backend.host, "d")
        self.assertEqual(self.tried(group), [])
        group.undecided(left)
        left.ended()
        failing = group.attempts(FACTS)
        group.failed(peer := failing.next())
        peer.ended()
        self.assertIsNone(failing.next())
        good = group.attempts(FACTS).next()
        group.succeeded(good)
        self.assertEqual(self.tried(group, fail=False), ["d"])
        self.assertEqual(good.connections, 1)

    def test_probeOutlivesSessions(self):
        """An older session that ends at a resting server does not let a second login probe it."""
        group = self.group("a:1", "b:1")
        old = group.attempts(FACTS).next()
        self.assertEqual(self.tried(group), ["b", "a"])
        probe = group.attempts(FACTS).next()
        old.ended()
        self.assertEqual(self.tried(group), [])
        group.succeeded(probe)
        self.assertEqual(probe.fails, 0)

    def test_ordered(self):
        """A server that is drained, or found to fail, gets no session, even if all others rest."""
        group = self.group("a:1", "b:1")
        a, b = group.peers
        a.order, b.isFailing = "drain", True
        self.assertEqual(self.tried(group), [])
        b.isFailing = False
        self.assertEqual(self.tried(group), ["b"])

    def test_full(self):
        """A server with max_conns sessions is passed over until one ends."""
        group = self.group("a:1 max_conns=1", "b:1 backup")
        peer = group.attempts(FACTS).next()
        self.assertEqual(self.tried(group, fail=False), ["b"])
        peer.ended()
        self.assertEqual(self.tried(group, fail=False), ["a", "b"])

    def test_hash(self):
        """A key has its server, then others, then the backups."""
        group = self.group("a:1", "b:1", "c:1 backup", hash="$user consistent")
        first = self.tried(group, fail=False)
        self.assertEqual(sorted(first[:2]), ["a", "b"])
        self.assertEqual(first[2], "c")
        self.assertEqual(self.tried(group, fail=False), first)

    def test_methods(self):
        """Each method can be chosen."""
        for options in ({"least_conn": "on"}, {"ip_hash": "on"}, {"hash": "$domain"}, {"random": "two least_conn"}, {}):
            self.assertEqual(sorted(self.tried(self.group("a:1", "b:1", **options))), ["a", "b"], options)

    def test_replaced(self):
        """Addresses that stay keep what is known of them, and others come and go."""
        group = self.group("name.test:143 resolve", "other.test:143 backup")
        line = group.settings.servers[0]

        def peer(number):
            return Peer(Backend(f"192.0.2.{number}", 143), ("name.test", 143))

        self.assertTrue(group.replace(line, [peer(1), peer(2)]))
        self.assertFalse(group.replace(line, [peer(1), peer(2)]))
        kept = group.attempts(FACTS).next()
        self.assertEqual(kept.backend.host, "192.0.2.1")
        self.assertTrue(group.replace(line, [peer(3), peer(1)], [peer(4)]))
        self.assertEqual([each.backend.host[-1] for each in group.peers[:3]], ["3", "1", "4"])
        self.assertEqual(group.peers[1].connections, 1)
        group.replace(line, [])
        self.assertEqual(self.tried(group), ["other.test"])

    def test_reloaded(self):
        """A group of another configuration goes on with the servers whose lines are unchanged."""
        before = self.group("a:1", "b:1", "c:1")
        self.tried(before)
        after = self.group("a:1", "b:1 weight=2", "d:1")
        after.goOnFrom(before)
        self.assertEqual(self.tried(after), ["b", "d"])

    def test_slowStart(self):
        """After a rest its share grows from little to all."""
        group = self.group("a:1 slow_start=9s", "b:1")
        peer = group.attempts(FACTS).next()
        group.failed(peer)
        peer.ended()
        self.clock.advance(11)
        while (again := group.attempts(FACTS).next()) is not peer:
            again.ended()
        group.succeeded(peer)
        peer.ended()

        def share():
            picked = []
            for _ in range(100):
                chosen = group.attempts(FACTS).next()
                chosen.ended()
                picked.append(chosen is peer)
            return sum(picked)

        self.assertLess(share(), 15)
        self.clock.advance(5)
        self.assertTrue(30 < share() < 45)
        self.clock.advance(5)
        self.assertTrue(48 <= share() <= 52)
