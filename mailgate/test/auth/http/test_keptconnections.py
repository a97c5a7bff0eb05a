"""
Tests of L{mailgate.auth.http.keptconnections}.
"""

from __future__ import annotations

from math import inf

from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.http.keptconnections import KeptConnections

PAUSE = 0.02


class Idle:
    """A connection."""

    idleSince = 0.0


class KeptConnectionsTests(SynchronousTestCase):
    """Which connection is used again, and when."""

    def setUp(self) -> None:
        self.kept: KeptConnections[Idle] = KeptConnections(PAUSE)
        self.connections = [Idle() for _ in range(4)]

    def keep(self, *moments: float) -> list[Idle]:
        """Add a connection at each of C{moments}."""
        kept = self.connections[: len(moments)]
        for connection, moment in zip(kept, moments, strict=True):
            self.kept.keep(connection, moment)
        return kept

    def test_pause(self) -> None:
        """No connection is used again before its pause is over."""
        (first,) = self.keep(100)
        self.assertIsNone(self.kept.take(100))
        self.assertIsNone(self.kept.take(100.019))
        self.assertEqual(len(self.kept), 1)
        self.assertIs(self.kept.take(100.021), first)
        self.assertEqual(len(self.kept), 0)
        self.assertIsNone(self.kept.take(101))

    def test_noPause(self) -> None:
        """Without a pause a connection is used again at once."""
        self.kept = KeptConnections(0.0)
        (first,) = self.keep(100)
        self.assertIs(self.kept.take(100), first)

    def test_lastFirst(self) -> None:
        """Of the usable connections the last one is used first."""
        first, second, third, _ = self.keep(100, 100.01, 100.02, 100.05)
        self.assertIs(self.kept.take(100.031), second)
        self.assertIs(self.kept.take(100.041), third)
        self.assertIs(self.kept.take(100.041), first)
        self.assertIsNone(self.kept.take(100.041))

    def test_clockSetBack(self) -> None:
        """If the clock is set back, the pause begins again, and does not last until the old time."""
        first, second = self.keep(100, 100.01)
        self.assertIsNone(self.kept.take(50))
        self.assertIsNone(self.kept.take(50.019))
        self.assertIs(self.kept.take(50.021), second)
        self.assertIs(self.kept.take(50.021), first)

    def test_readyAt(self) -> None:
        """It is known when so many connections can be used; what is usable now counts."""
        _, second, third = self.keep(100, 100.01, 100.025)
        self.assertEqual([self.kept.readyAt(number) - PAUSE for number in (1, 2, 3)], [100, 100.01, 100.025])
        self.assertEqual(self.kept.readyAt(4), inf)
        self.assertIs(self.kept.take(100.04), second)
        self.assertLessEqual(self.kept.readyAt(1), 100.04)
        self.assertEqual(self.kept.readyAt(2) - PAUSE, 100.025)
        self.assertEqual(self.kept.readyAt(3), inf)
        self.kept.remove(third)
        self.assertEqual(self.kept.readyAt(2), inf)

    def test_evict(self) -> None:
        """The connection that would have to wait longest is removed first, usable ones last."""
        first, second, third = self.keep(100, 100.01, 100.05)
        self.assertIs(self.kept.take(100.04), second)
        self.kept.keep(second, 100.06)
        self.assertEqual([self.kept.evict() for _ in range(4)], [second, third, first, None])

    def test_outdated(self) -> None:
        """Connections that are silent for too long are found, the oldest first, even if none was used."""
        first, second, _ = self.keep(100, 110, 120)
        self.assertIs(self.kept.oldest, first)
        self.assertEqual(list(self.kept.outdated(110, 140)), [first, second])
        self.assertEqual(len(self.kept), 1)
        self.assertEqual(list(self.kept.outdated(119, 149)), [])
        self.kept.clear()

    def test_remove(self) -> None:
        """A lost connection is not used; removing an unknown one does nothing."""
        first, second, third = self.keep(100, 100.03, 100.04)
        self.assertIs(self.kept.take(100.051), second)
        for lost in (first, second, third):
            self.kept.remove(lost)
        self.assertIsNone(self.kept.take(200))
        self.assertIsNone(self.kept.oldest)

    def test_clear(self) -> None:
        """All connections can be removed at once."""
        kept = self.keep(100, 100.03, 100.04)
        self.assertEqual(set(self.kept.clear()), set(kept))
        self.assertEqual(len(self.kept), 0)
