"""
Tests for L{mailgate.lean.clock}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.lean.clock import FINEST, CoarseClock, ExactClock, deadlinesOf
from mailgate.lean.reactor import LeanReactor

YEAR = 365 * 86400.0


class Waiting:
    """An entry that notes when it expires, and then calls C{react}."""

    def __init__(self, clock: Clock, react: Callable[[Waiting], object] | None = None) -> None:
        self.tick: float = 0
        self.times: list[float] = []
        self._clock = clock
        self._react = react

    def expired(self) -> None:
        self.times.append(self._clock.seconds())
        if self._react is not None:
            self._react(self)


class Case(SynchronousTestCase):
    """A coarse clock with a reactor clock that the tests set, in the middle of a second."""

    start = 1700000000.75

    def setUp(self) -> None:
        self.reactor = Clock()
        self.reactor.rightNow = self.start
        self.clock = CoarseClock(self.reactor)

    def pass_(self, seconds: float) -> None:
        """Let time pass in small steps."""
        self.reactor.pump([0.125] * int(seconds / 0.125))

    def elapsed(self) -> float:
        return self.reactor.seconds() - self.start

    def assertDue(self, times: list[float], *delays: float) -> None:
        """Each of C{times} is within the second after one of C{delays}, in order, and not before."""
        self.assertEqual(len(times), len(delays))
        for time, delay in zip(times, delays, strict=True):
            self.assertTrue(delay <= time - self.start <= delay + 1, (time - self.start, delay))

    def assertQuiet(self) -> None:
        """No timer is left, neither here nor in the reactor."""
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.clock._ticks, {})

    def turn(self, seconds: float) -> None:
        """Set the reactor's clock forward by C{seconds}."""
        self.reactor.rightNow += seconds
        self.reactor.advance(0)


class TimerTests(Case):
    """The timers of C{callLater}."""

    def test_interfaces(self) -> None:
        """The clock and its timers provide Twisted's interfaces."""
        self.assertTrue(verifyObject(IReactorTime, self.clock))
        self.assertTrue(verifyObject(IDelayedCall, self.clock.callLater(60, int)))

    def test_due(self) -> None:
        """A call is made within the second after it is due, and never before, with its arguments."""
        delays = [FINEST, 5.3, 7, 8.25, 59, 60, 600.999]
        times: list[float] = []
        given: list[tuple[Any, ...]] = []

        def call(*args: Any, **kwargs: Any) -> None:
            times.append(self.reactor.seconds())
            given.append((*args, kwargs))

        for delay in delays:
            self.clock.callLater(delay, call, delay, key=delay)
        self.pass_(602)
        self.assertDue(times, *delays)
        self.assertEqual(given, [(delay, {"key": delay}) for delay in delays])
        self.assertQuiet()

    def test_anyPhase(self) -> None:
        """The same wherever in a second the clock and the timer start."""
        for eighths in range(64):
            times: list[float] = []
            self.start = self.reactor.seconds()
            self.clock.callLater(5, lambda times=times: times.append(self.reactor.seconds()))
            self.pass_(6)
            self.assertDue(times, 5)
            self.pass_(eighths / 8)
        self.assertQuiet()

    def test_short(self) -> None:
        """Short delays are the reactor's, and exact."""
        times: list[float] = []
        delays = [0.125, 1.5, FINEST - 0.125]
        for delay in delays:
            self.clock.callLater(delay, lambda: times.append(self.elapsed()))
        self.pass_(4)
        self.assertEqual([round(time, 3) for time in times], delays)

    def test_again(self) -> None:
        """A call may set another timer."""
        times: list[float] = []

        def call() -> None:
            times.append(self.reactor.seconds())
            if len(times) < 3:
                self.start = self.reactor.seconds()
                self.clock.callLater(5, call)

        self.clock.callLater(5, call)
        self.pass_(20)
        self.assertEqual(len(times), 3)
        self.assertDue(times[-1:], 5)
        self.assertQuiet()

    def test_cancel(self) -> None:
        """A cancelled timer is not called, and leaves nothing behind."""
        calls: list[int] = []
        timers = [self.clock.callLater(delay, calls.append, 0) for delay in (5, 5, 60)]
        for timer in timers:
            self.assertTrue(timer.active())
            timer.cancel()
            self.assertFalse(timer.active())
        self.assertQuiet()
        self.pass_(70)
        self.assertEqual(calls, [])

    def test_over(self) -> None:
        """A called or cancelled timer cannot be cancelled or moved, as in Twisted."""
        called, cancelled = self.clock.callLater(5, int), self.clock.callLater(5, int)
        cancelled.cancel()
        self.pass_(6)
        for timer, kind in ((called, AlreadyCalled), (cancelled, AlreadyCancelled)):
            self.assertFalse(timer.active())
            self.assertRaises(kind, timer.cancel)
            self.assertRaises(kind, timer.reset, 60)
            self.assertRaises(kind, timer.delay, 60)
        self.assertQuiet()

    def test_itself(self) -> None:
        """During its own call a timer counts as called."""
        raised: list[type[BaseException]] = []

        def call() -> None:
            for change in (timer.cancel, lambda: timer.reset(60), lambda: timer.delay(60)):
                raised.append(type(self.assertRaises(AlreadyCalled, change)))

        timer = self.clock.callLater(5, call)
        self.pass_(6)
        self.assertEqual(len(raised), 3)
        self.assertQuiet()

    def test_resetLater(self) -> None:
        """A timer may be postponed repeatedly. The last time counts."""
        times: list[float] = []
        timer = self.clock.callLater(5, lambda: times.append(self.reactor.seconds()))
        for _ in range(10):
            self.pass_(3)
            timer.reset(5)
            self.assertEqual(timer.getTime(), self.reactor.seconds() + 5)
        self.pass_(10)
        self.assertDue(times, 35)
        self.assertQuiet()

    def test_resetEarlier(self) -> None:
        """A timer may be moved to an earlier time, also after it was postponed, and to less than C{FINEST}."""
        for steps, due in (((60, 10), 10), ((600, 60, 10, 20), 20), ((60, 600, 30), 30), ((60, 0.5), 0.5)):
            times: list[float] = []
            self.start = self.reactor.seconds()
            timer = self.clock.callLater(steps[0], lambda times=times: times.append(self.reactor.seconds()))
            for step in steps[1:]:
                timer.reset(step)
            self.pass_(40)
            self.assertDue(times, due)
            self.assertQuiet()

    def test_delay(self) -> None:
        """A timer may be delayed by seconds after its due time, or before it."""
        times: list[float] = []
        timer = self.clock.callLater(5, lambda: times.append(self.reactor.seconds()))
        self.pass_(3)
        timer.delay(10)
        timer.delay(20)
        self.assertEqual(timer.getTime(), self.start + 35)
        timer.delay(-5)
        self.pass_(60)
        self.assertDue(times, 30)

    def test_delayedCalls(self) -> None:
        """C{getDelayedCalls} returns all waiting timers, the reactor's included, and no others."""
        timers = [self.clock.callLater(delay, int) for delay in (60, 70, 80)]
        short = self.clock.callLater(1, int)
        other = self.reactor.callLater(60, int)
        told = self.clock.getDelayedCalls()
        for timer in (*timers, short, other):
            self.assertIn(timer, told)
        timers[0].cancel()
        self.pass_(75)
        self.assertNotIn(timers[0], self.clock.getDelayedCalls())
        self.assertEqual(set(self.clock.getDelayedCalls()) - set(self.reactor.getDelayedCalls()), {timers[2]})
        timers[2].cancel()
        self.assertQuiet()

    def test_oneTimer(self) -> None:
        """The reactor has only one timer, for the end of the current second."""
        for delay in range(5, 105):
            self.clock.callLater(delay, int)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.assertLessEqual(self.reactor.getDelayedCalls()[0].getTime(), self.start + 1)
        self.pass_(50)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)

    def test_error(self) -> None:
        """A call that raises is logged once. The others of its second, and later ones, are made."""
        calls: list[int] = []
        for number in range(4):
            self.clock.callLater(5, calls.append, number)
            self.clock.callLater(5, lambda: 1 // 0)
        self.clock.callLater(10, calls.append, 4)
        self.pass_(11)
        self.assertEqual(sorted(calls), [0, 1, 2, 3, 4])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 4)
        self.assertQuiet()

    def test_companions(self) -> None:
        """The first timer of a second may cancel or postpone the others, or move later ones to an earlier time."""
        times: list[float] = []
        timers: dict[int, IDelayedCall] = {}

        def call(number: int) -> None:
            times.append(self.reactor.seconds())
            del timers[number]
            if len(times) == 1:
                first, second = sorted(timers)[:2]
                timers.pop(first).cancel()
                timers[second].reset(20 - self.elapsed())
                timers[4].reset(10 - self.elapsed())

        for number in range(5):
            timers[number] = self.clock.callLater(5 if number < 4 else 100, call, number)
        self.pass_(30)
        self.assertDue(times, 5, 5, 10, 20)
        self.assertEqual(timers, {})
        self.assertQuiet()

    def test_lastCancels(self) -> None:
        """A due timer may cancel all others, and set new ones."""
        calls: list[str] = []
        later = self.clock.callLater(60, calls.append, "later")

        def call() -> None:
            later.cancel()
            self.clock.callLater(5, calls.append, "again")

        self.clock.callLater(5, call)
        self.pass_(12)
        self.assertEqual(calls, ["again"])
        self.assertQuiet()


class EntryTests(Case):
    """Entries without a timer."""

    def test_expires(self) -> None:
        """An entry keeps its place until it expires once, within the second after it is due."""
        entry = Waiting(self.reactor)
        self.clock.put(entry, self.start + 5)
        self.pass_(1)
        self.assertNotEqual(entry.tick, 0)
        self.pass_(20)
        self.assertDue(entry.times, 5)
        self.assertEqual(entry.tick, 0)
        self.assertQuiet()

    def test_drop(self) -> None:
        """A dropped entry does not expire. It can be dropped again, or put again."""
        entry, other = Waiting(self.reactor), Waiting(self.reactor)
        self.clock.drop(entry)
        self.clock.put(entry, self.start + 5)
        self.clock.put(other, self.start + 5)
        self.clock.drop(entry)
        self.clock.drop(entry)
        self.assertEqual(entry.tick, 0)
        self.clock.put(entry, self.start + 10)
        self.pass_(12)
        self.assertDue(entry.times, 10)
        self.assertDue(other.times, 5)
        self.clock.drop(entry)
        self.assertQuiet()

    def test_again(self) -> None:
        """An entry may put itself again when it expires. It expires again, once."""

        def again(entry: Waiting) -> None:
            if len(entry.times) < 4:
                self.clock.put(entry, self.start + 5 * len(entry.times) + 5)

        entry = Waiting(self.reactor, again)
        self.clock.put(entry, self.start + 5)
        self.pass_(30)
        self.assertDue(entry.times, 5, 10, 15, 20)
        self.assertQuiet()

    def test_overdue(self) -> None:
        """An entry that is overdue when it is put expires once within a second, and not inside the call."""

        def again(entry: Waiting) -> None:
            if len(entry.times) < 3:
                self.clock.put(entry, self.start)

        entry = Waiting(self.reactor, again)
        self.clock.put(entry, self.start - 100)
        self.assertEqual(entry.times, [])
        self.pass_(6)
        self.assertDue(entry.times, 0, 1, 2)
        self.assertQuiet()

    def test_overdueLate(self) -> None:
        """An entry that is put overdue while the reactor is late does not delay other due entries."""
        others = [Waiting(self.reactor) for _ in range(4)]
        for number, other in enumerate(others):
            self.clock.put(other, self.start + number)
        entry = Waiting(self.reactor)
        self.reactor.rightNow += 3.5
        self.clock.put(entry, self.start - 100)
        self.pass_(3)
        self.assertEqual([len(each.times) for each in (*others, entry)], [1] * 5)
        self.assertQuiet()

    def test_drops(self) -> None:
        """An entry may drop others of its second and of the next."""
        entries: list[Waiting] = []

        def dropAll(_: Waiting) -> None:
            for entry in entries:
                self.clock.drop(entry)

        entries = [Waiting(self.reactor, dropAll) for _ in range(5)]
        for entry in entries:
            self.clock.put(entry, self.start + 5 + (entry is entries[0]))
        self.pass_(10)
        self.assertEqual(sum(len(entry.times) for entry in entries), 1)
        self.assertQuiet()

    def test_error(self) -> None:
        """An entry that raises is logged. The others expire."""
        entries = [Waiting(self.reactor, lambda _: 1 // 0), Waiting(self.reactor), Waiting(self.reactor)]
        for number, entry in enumerate(entries):
            self.clock.put(entry, self.start + 5 + number // 2)
        self.pass_(8)
        self.assertEqual([len(entry.times) for entry in entries], [1, 1, 1])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertQuiet()

    def test_slow(self) -> None:
        """An entry that takes seconds, and puts itself again, does not prevent others from expiring."""

        def dawdle(entry: Waiting) -> None:
            self.reactor.rightNow += 2.5
            if len(entry.times) == 1:
                self.clock.put(entry, self.reactor.seconds() + 5)

        slow, others = Waiting(self.reactor, dawdle), [Waiting(self.reactor) for _ in range(6)]
        self.clock.put(slow, self.start + 5)
        for number, other in enumerate(others):
            self.clock.put(other, self.start + 5 + number)
        self.pass_(20)
        self.assertEqual([len(other.times) for other in others], [1] * 6)
        self.assertEqual(len(slow.times), 2)
        self.assertQuiet()


class ExactTests(SynchronousTestCase):
    """The clock whose entries are exact."""

    def setUp(self) -> None:
        self.reactor = Clock()
        self.reactor.advance(1000.75)
        self.clock = ExactClock(self.reactor)

    def test_expires(self) -> None:
        """An entry expires once, when it is due. It may put itself again."""

        def again(entry: Waiting) -> None:
            if len(entry.times) < 3:
                self.clock.put(entry, self.reactor.seconds() + 5)

        entry = Waiting(self.reactor, again)
        self.clock.put(entry, 1002.5)
        self.assertEqual(entry.tick, 1003)
        self.reactor.pump([0.25] * 100)
        self.assertEqual(entry.times, [1002.5, 1007.5, 1012.5])
        self.assertEqual((entry.tick, self.reactor.getDelayedCalls()), (0, []))

    def test_overdue(self) -> None:
        """An entry that is overdue when it is put expires at once, and not inside the call."""
        entry = Waiting(self.reactor)
        self.clock.put(entry, 900)
        self.assertEqual(entry.times, [])
        self.reactor.advance(0)
        self.assertEqual(entry.times, [1000.75])

    def test_drop(self) -> None:
        """A dropped entry does not expire. It can be dropped again, or put again."""
        entry, other = Waiting(self.reactor), Waiting(self.reactor)
        self.clock.drop(entry)
        for each in (entry, other):
            self.clock.put(each, 1005)
        self.clock.drop(entry)
        self.clock.drop(entry)
        self.assertEqual(entry.tick, 0)
        self.clock.put(entry, 1010)
        self.reactor.pump([0.25] * 100)
        self.assertEqual((entry.times, other.times), ([1010], [1005]))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_choice(self) -> None:
        """Deadlines of a few seconds, and those of other clocks, are exact. The clock of a reactor is found."""
        coarse = CoarseClock(self.reactor)
        self.assertIs(deadlinesOf(coarse, FINEST), coarse)
        lean: Any = LeanReactor(self.reactor)
        self.assertIs(deadlinesOf(lean, FINEST), lean.clock)
        for clock, shortest in ((coarse, FINEST - 1), (self.reactor, 60.0)):
            entry = Waiting(self.reactor)
            deadlines = deadlinesOf(clock, shortest)
            deadlines.put(entry, deadlines.seconds() + 1.5)
            due = self.reactor.seconds() + 1.5
            self.reactor.pump([0.25] * 10)
            self.assertEqual(entry.times, [due])


class ClockSetTests(Case):
    """A system clock that is set."""

    def test_forward(self) -> None:
        """If it is set forward, by seconds or years, all that is due by then is called, and nothing else."""
        for jump in (3.0, 55.0, 61.0, 3600.0, 30 * YEAR):
            calls: list[float] = []
            for delay in (jump + 20, jump - 1, jump / 2 + 4, 4):
                self.clock.callLater(delay, calls.append, delay)
            self.turn(jump)
            self.pass_(5)
            due = sorted(delay for delay in (jump - 1, jump / 2 + 4, 4) if delay <= jump + 4)
            self.assertEqual(sorted(calls), due)
            self.pass_(20)
            self.assertEqual(calls[-1], jump + 20)
            self.assertEqual(len(calls), 4)
            self.assertQuiet()

    def test_forwardOrder(self) -> None:
        """Years are not counted second by second. Earlier timers are called first."""
        calls: list[int] = []
        for delay in (5000, 5, 70, 500):
            self.clock.callLater(delay, calls.append, delay)
        self.turn(50 * YEAR)
        self.pass_(2)
        self.assertEqual(calls, [5, 70, 500, 5000])
        self.assertQuiet()

    def test_back(self) -> None:
        """
        If it is set back, waiting timers wait longer by as much, as in Twisted. Timers that are set afterwards are
        called in time, although others wait, or late by as much if that is less than their delay.
        """
        for jump in (2.0, 30.0, 3600.0, 30 * YEAR):
            times: list[float] = []
            old = self.clock.callLater(60, times.append, 0)
            self.pass_(10)
            self.reactor.rightNow -= jump
            self.start = self.reactor.seconds()
            self.clock.callLater(5, lambda times=times: times.append(self.reactor.seconds()))
            self.pass_(30)
            self.assertEqual(len(times), 1)
            late = times[0] - self.start - 5
            self.assertTrue(0 <= late <= (1 if jump > 5 else 1 + jump), late)
            self.assertTrue(old.active())
            old.cancel()
            self.assertQuiet()

    def test_backAndForth(self) -> None:
        """Timers that wait while the clock is set back and then right are called once."""
        calls: list[int] = []
        for delay in range(5, 30):
            self.clock.callLater(delay, calls.append, delay)
        self.pass_(10)
        self.reactor.rightNow -= 3600
        self.pass_(10)
        self.clock.callLater(4, calls.append, 100)
        self.reactor.rightNow += 3600
        self.pass_(30)
        self.assertEqual(sorted(calls), [*range(5, 30), 100])
        self.assertQuiet()
