"""
Tests of L{mailgate.auth.http.keptconnections}.
"""

from __future__ import annotations

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
        """Keep a connection from each of C{moments} on."""
        kept = self.connections[: len(moments)]
        for connection, moment in zip(kept, moments, strict=True):
            self.kept.keep(connection, moment)
        return kept

    def test_pause(self) -> None:
        """Until it has been silent for long enough, none is used again."""
        (first,) = self.keep(100)
        self.assertIsNone(self.kept.take(100))
        self.assertIsNone(self.kept.take(100.019))
        self.assertEqual(len(self.kept), 1)
        self.assertIs(self.kept.take(100.021), first)
        self.assertEqual(len(self.kept), 0)
        self.assertIsNone(self.kept.take(101))

    def test_noPause(self) -> None:
        """Without a pause it is used again at once."""
        self.kept = KeptConnections(0.0)
        (first,) = self.keep(100)
        self.assertIs(self.kept.take(100), first)

    def test_lastFirst(self) -> None:
        """Of those that have been silent for long enough the last is used first, whenever that was found out."""
        first, second, third, _ = self.keep(100, 100.01, 100.02, 100.05)
        self.assertIs(self.kept.take(100.031), second)
        self.assertIs(self.kept.take(100.041), third)
        self.assertIs(self.kept.take(100.041), first)
        self.assertIsNone(self.kept.take(100.041))

    def test_clockSetBack(self) -> None:
        """When the clock is set back the pause begins anew, and does not last until the old time has come again."""
        first, second = self.keep(100, 100.01)
        self.assertIsNone(self.kept.take(50))
        self.assertIsNone(self.kept.take(50.019))
        self.assertIs(self.kept.take(50.021), second)
        self.assertIs(self.kept.take(50.021), first)

    def test_evict(self) -> None:
        """The one that would have to wait longest goes first; those that could be used go last."""
        first, second, third = self.keep(100, 100.01, 100.05)
        self.assertIs(self.kept.take(100.04), second)
        self.kept.keep(second, 100.06)
        self.assertEqual([self.kept.evict() for _ in range(4)], [second, third, first, None])

    def test_outdated(self) -> None:
        """Those that have been silent for too long are found, the oldest first, though none was ever asked for."""
        first, second, _ = self.keep(100, 110, 120)
        self.assertIs(self.kept.oldest, first)
        self.assertEqual(list(self.kept.outdated(110, 140)), [first, second])
        self.assertEqual(len(self.kept), 1)
        self.assertEqual(list(self.kept.outdated(119, 149)), [])
        self.kept.clear()

    def test_remove(self) -> None:
        """One that is lost is not used; one that is not kept may be lost, too."""
        first, second, third = self.keep(100, 100.03, 100.04)
        self.assertIs(self.kept.take(100.051), second)
        for lost in (first, second, third):
            self.kept.remove(lost)
        self.assertIsNone(self.kept.take(200))
        self.assertIsNone(self.kept.oldest)

    def test_clear(self) -> None:
        """All can be had at once."""
        kept = self.keep(100, 100.03, 100.04)
        self.assertEqual(set(self.kept.clear()), set(kept))
        self.assertEqual(len(self.kept), 0)
