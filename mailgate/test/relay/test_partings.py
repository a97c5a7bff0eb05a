"""Tests for L{mailgate.relay.partings}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.relay.partings import Partings


class Delay:
    """A delay that counts its ends."""

    def __init__(self, moment: float) -> None:
        self.moment = moment
        self.ends = 0

    def over(self) -> None:
        self.ends += 1


class Session:
    """A session that notes when it was closed."""

    def __init__(self, partings: Partings, clock: Clock, trouble: bool = False) -> None:
        self._partings = partings
        self._clock = clock
        self._trouble = trouble
        self.closed: list[float] = []

    def close(self) -> None:
        self.closed.append(round(self._clock.seconds(), 3))
        self._partings.forget(self)
        if self._trouble:
            raise RuntimeError("it cannot be closed")


class PartingsTests(SynchronousTestCase):
    """L{Partings}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.partings = Partings(self.clock)

    def put(self, *moments: float) -> list[Session]:
        """Sessions that wait."""
        sessions = [Session(self.partings, self.clock) for _ in moments]
        for session, moment in zip(sessions, moments, strict=True):
            self.partings.put(session, Delay(moment))
        return sessions

    def test_moments(self) -> None:
        """Each is closed at its moment, in any order, by one timer, which is always short."""
        sessions = self.put(7.5, 0.3, 2.1, 2.1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for _ in range(80):
            self.clock.advance(0.1)
            for call in self.clock.getDelayedCalls():
                self.assertLessEqual(call.getTime() - self.clock.seconds(), 1.0)
        for session, moment in zip(sessions, (7.5, 0.3, 2.1, 2.1), strict=True):
            (closed,) = session.closed
            self.assertTrue(moment - 0.001 <= closed <= moment + 0.11, (closed, moment))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_forgotten(self) -> None:
        """One that ended by then is not closed. After the last one there is no timer."""
        first, second = self.put(1.0, 2.0)
        delay = self.partings.delays[first]
        self.partings.forget(first)
        self.partings.forget(first)
        self.assertEqual(delay.ends, 1)  # type: ignore[attr-defined]
        self.clock.pump([0.5] * 6)
        self.assertEqual((first.closed, second.closed), ([], [2.0]))
        (third,) = self.put(9.0)
        self.partings.forget(third)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unknown(self) -> None:
        """A session that does not wait is forgotten without an effect."""
        self.put(1.0)
        self.partings.forget(object())
        self.assertEqual(len(self.partings.delays), 1)
        self.partings.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_trouble(self) -> None:
        """If one cannot be closed, the others are."""
        trouble = Session(self.partings, self.clock, True)
        self.partings.put(trouble, Delay(1.0))
        (other,) = self.put(1.5)
        self.assertRaises(RuntimeError, self.clock.advance, 1.0)
        self.clock.advance(1.0)
        self.assertEqual(len(other.closed), 1)
