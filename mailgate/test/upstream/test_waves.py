"""Tests for L{mailgate.upstream.waves}: when the clients of a backend that fails are let go."""

from __future__ import annotations

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.login import Backend
from mailgate.net.naming import NamingReactor
from mailgate.upstream.peer import Peer
from mailgate.upstream.upstreams import Upstreams
from mailgate.upstream.waves import Delay, Wave, offset


class OffsetTests(SynchronousTestCase):
    """L{offset}."""

    def test_spread(self) -> None:
        """The first of a second go at once, the others follow at an even pace, rounded down to 100 ms."""
        moments = [offset(place, 1000, 30.0) for place in range(1, 1001)]
        self.assertEqual(moments[:34], [0.0] * 34)
        self.assertEqual([round(moment, 1) for moment in (moments[34], moments[499], moments[999])], [1.0, 15.0, 30.0])
        self.assertEqual(moments, sorted(moments))
        inEachSecond = [sum(second <= moment < second + 1 for moment in moments) for second in range(1, 30)]
        self.assertLessEqual(max(inEachSecond), 34)

    def test_few(self) -> None:
        """A few sessions are spread as well, after the first."""
        moments = [round(offset(place, 3, 30.0), 1) for place in range(1, 4)]
        self.assertEqual(moments, [0.0, 20.0, 30.0])

    def test_rounding(self) -> None:
        """Quotients that are not exact lose no step."""
        self.assertEqual([round(offset(place, 10, 1.0), 1) for place in (10,)], [0.0])
        self.assertAlmostEqual(offset(9, 10, 3.0), 2.7)
        self.assertAlmostEqual(offset(5, 7, 3.0), 2.1)

    def test_off(self) -> None:
        """Without a delay all go at once."""
        self.assertEqual({offset(place, 50, 0.0) for place in range(1, 51)}, {0.0})


class WaveTests(SynchronousTestCase):
    """L{Wave} and L{Peer.lost}."""

    def peer(self, sessions: int, spread: float = 10.0) -> Peer:
        """A server of a group."""
        peer = Peer(Backend("192.0.2.1", 143), ("192.0.2.1", 143))
        peer.connections, peer.spread = sessions, spread
        return peer

    def lose(self, peer: Peer, now: float) -> Delay | None:
        """One session is lost."""
        delay = peer.lost(now)
        peer.ended()
        return delay

    def test_wave(self) -> None:
        """Sessions that are left and those that are lost count together."""
        peer = self.peer(100)
        delays = [self.lose(peer, 1000.0) for _ in range(100)]
        self.assertEqual(delays[:10], [None] * 10)
        moments = [delay.moment for delay in delays if delay is not None]
        self.assertEqual(len(moments), 90)
        self.assertAlmostEqual(moments[0], 1001.1)
        self.assertAlmostEqual(moments[-1], 1010.0)

    def test_seldom(self) -> None:
        """Losses that are few in a second never wait, however many follow one another."""
        peer = self.peer(1000)
        for second in range(300):
            for _ in range(3):
                self.assertIsNone(self.lose(peer, 1000.0 + second))
            peer.connections += 3

    def test_alone(self) -> None:
        """The only session never waits."""
        for now in (1000.0, 1000.1, 1001.5):
            peer = self.peer(1)
            self.assertIsNone(self.lose(peer, now))

    def test_trickle(self) -> None:
        """A session that is lost after its moment has passed does not wait."""
        peer = self.peer(20)
        delays = [self.lose(peer, 1000.0) for _ in range(4)]
        self.assertEqual([delay is None for delay in delays], [True, True, False, False])
        self.assertIsNone(self.lose(peer, 1005.0))

    def test_over(self) -> None:
        """A wave is over when no session waits any more. The next loss goes at once."""
        peer = self.peer(20)
        delays = [self.lose(peer, 1000.0) for _ in range(4)]
        waiting = [delay for delay in delays if delay is not None]
        self.assertIsNotNone(self.lose(peer, 1000.2))
        for delay in waiting:
            delay.over()
        self.assertIsNotNone(self.lose(peer, 1000.9))
        peer = self.peer(20)
        _, _, third = (self.lose(peer, 1000.0) for _ in range(3))
        assert third is not None
        third.over()
        self.assertIsNone(self.lose(peer, 1001.0))

    def test_login(self) -> None:
        """A login there ends the wave. Those that wait keep their moments, and do not count in the next wave."""
        peer = self.peer(20)
        delays = [self.lose(peer, 1000.0) for _ in range(4)]
        peer.succeeded(1000)
        self.assertIsNone(self.lose(peer, 1000.5))
        self.assertIsNone(self.lose(peer, 1000.5))
        for delay in delays:
            if delay is not None:
                delay.over()
        self.assertIsNotNone(self.lose(peer, 1000.6))

    def test_clockSetBack(self) -> None:
        """If the clock is set back while no session waits, a new wave begins."""
        wave = Wave(1000.0, 10.0)
        self.assertFalse(wave.isOver(1000.5))
        self.assertTrue(wave.isOver(900.0))

    def test_off(self) -> None:
        """Outside of groups, and with a delay of 0, nothing waits."""
        peer = self.peer(1000, 0.0)
        self.assertEqual({self.lose(peer, 1000.0) for _ in range(1000)}, {None})

    def test_directive(self) -> None:
        """Servers of a group have its C{max_disconnect_delay}, after a reload the new one; others have none."""
        server = "[server imap]\nlisten = 127.0.0.1:10143\nprotocol = imap\nproxy_pass = store\n"
        before = None
        for more, expected in (("", 30.0), ("max_disconnect_delay = 7s", 7.0), ("max_disconnect_delay = 0", 0.0)):
            settings = parse(f"[upstream store]\nserver =\n  192.0.2.1:143\n  192.0.2.2:143 backup\n{more}\n{server}")
            upstreams = Upstreams(settings, NamingReactor(MemoryReactorClock()))
            if before is not None:
                upstreams.goOnFrom(before)
            self.assertEqual([peer.spread for _, peer in upstreams.everyPeer()], [expected] * 2)
            before = upstreams
        assert before is not None
        self.assertEqual(before.lone(Backend("192.0.2.3", 143)).spread, 0.0)
