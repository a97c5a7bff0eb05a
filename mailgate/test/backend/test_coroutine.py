"""
Tests for L{mailgate.backend.coroutine}.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Generator
from typing import Any
from weakref import ref

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.coroutine import Condition, Task


class Run:
    """A L{Task} that awaits the results of C{waits}, one after the other, and records events."""

    def __init__(self, *waits: Callable[[], Awaitable[Any]]) -> None:
        self.seen: list[Any] = []
        self.failures: list[Failure] = []
        self.task = Task(self._awaiting(waits), self.failures.append)

    async def _awaiting(self, waits: tuple[Callable[[], Awaitable[Any]], ...]) -> None:
        try:
            for wait in waits:
                self.seen.append(await wait())
            self.seen.append("end")
        except BaseException as error:
            self.seen.append(type(error))
            raise

    def start(self) -> Run:
        self.task.start()
        return self


class ConditionTests(SynchronousTestCase):
    """A L{Condition} and the task that awaits it."""

    def test_notify(self) -> None:
        """The task continues within the call of notify, once for each."""
        condition = Condition()
        run = Run(lambda: condition, lambda: condition).start()
        self.assertEqual(run.seen, [])
        condition.notify()
        self.assertEqual(run.seen, [None])
        condition.notify()
        self.assertEqual(run.seen, [None, None, "end"])
        condition.notify()
        self.assertEqual(run.failures, [])

    def test_notKept(self) -> None:
        """A notification without a waiting task is lost."""
        condition = Condition()
        condition.notify()
        run = Run(lambda: condition).start()
        self.assertEqual(run.seen, [])

    def test_nested(self) -> None:
        """A coroutine that the task awaits may await it."""
        condition = Condition()

        async def inner() -> str:
            await condition
            return "inner"

        run = Run(inner).start()
        condition.notify()
        self.assertEqual(run.seen, ["inner", "end"])

    def test_notifiedFromWithin(self) -> None:
        """A notification while the task runs is lost: the task must check before it waits."""
        condition = Condition()
        lines: list[bytes] = []

        async def line() -> bytes:
            while not lines:
                await condition
            return lines.pop(0)

        async def write() -> None:
            lines.append(b"answer")
            condition.notify()

        run = Run(write, line, line).start()
        self.assertEqual(run.seen, [None, b"answer"])
        lines.append(b"more")
        condition.notify()
        self.assertEqual(run.seen, [None, b"answer", b"more", "end"])

    def test_otherDriver(self) -> None:
        """Twisted's coroutines cannot await it and get an error: they would resume at once, for ever."""

        async def waiting() -> None:
            while True:
                await Condition()

        self.failureResultOf(Deferred.fromCoroutine(waiting()), RuntimeError)

    def test_dropped(self) -> None:
        """A waiting task without references ends without a failure."""
        run = Run(lambda: Condition()).start()
        seen, failures = run.seen, run.failures
        del run
        gc.collect()
        self.assertEqual((seen, failures), ([GeneratorExit], []))


class Foreign:
    """An awaitable of another event loop."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class ForeignTests(SynchronousTestCase):
    """A task that awaits a foreign object, as a foreign authenticator may."""

    def test_raised(self) -> None:
        """The coroutine gets the error where it waits; the caller of the task does not."""
        run = Run(Foreign).start()
        self.assertEqual(run.seen, [RuntimeError])
        self.assertIn("not NoneType", run.failures[0].getErrorMessage())

    def test_caught(self) -> None:
        """It may catch the error and await something else."""
        condition, seen = Condition(), list[str]()

        async def going() -> None:
            for _ in range(2):
                try:
                    await Foreign()
                except RuntimeError:
                    seen.append("caught")
            await condition
            seen.append("end")

        Task(going(), self.fail).start()
        self.assertEqual(seen, ["caught", "caught"])
        condition.notify()
        self.assertEqual(seen, ["caught", "caught", "end"])


class DeferredTests(SynchronousTestCase):
    """A task that awaits Deferreds."""

    def test_fired(self) -> None:
        """A Deferred that has fired causes no wait."""
        self.assertEqual(Run(lambda: succeed(1), lambda: succeed(2)).start().seen, [1, 2, "end"])

    def test_failed(self) -> None:
        """Neither does one that has failed: its exception is raised and reaches C{failed} once."""
        run = Run(lambda: fail(ZeroDivisionError("x"))).start()
        self.assertEqual(run.seen, [ZeroDivisionError])
        self.assertEqual([str(failure.value) for failure in run.failures], ["x"])

    def test_later(self) -> None:
        """A Deferred that fires later is awaited, and its result is consumed."""
        first: Deferred[Any] = Deferred()
        second: Deferred[Any] = Deferred()
        run = Run(lambda: first, lambda: second).start()
        second.callback(2)
        self.assertEqual(run.seen, [])
        first.callback(1)
        self.assertEqual(run.seen, [1, 2, "end"])
        self.assertIs(self.successResultOf(first), None)

    def test_failsLater(self) -> None:
        """The exception of one that fails later is raised at the await, and is not reported as unhandled."""
        waited: Deferred[Any] = Deferred()
        waiting = [waited]
        run = Run(lambda: waiting.pop()).start()
        waited.errback(ZeroDivisionError())
        self.assertEqual(run.seen, [ZeroDivisionError])
        (failure,) = run.failures
        self.assertIn("_awaiting", failure.getTraceback())
        del waited
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_chained(self) -> None:
        """One that has fired with another Deferred is awaited."""
        outer, inner = Deferred[Any](), Deferred[Any]()
        outer.addCallback(lambda _: inner)
        outer.callback(None)
        run = Run(lambda: outer).start()
        self.assertEqual(run.seen, [])
        inner.callback("in")
        self.assertEqual(run.seen, ["in", "end"])

    def test_caught(self) -> None:
        """A coroutine that catches the exception continues."""

        async def caught() -> str:
            try:
                await waited
            except ZeroDivisionError:
                return "caught"
            return "not raised"

        waited: Deferred[Any] = Deferred()
        run = Run(caught).start()
        waited.errback(ZeroDivisionError())
        self.assertEqual((run.seen, run.failures), (["caught", "end"], []))

    def test_raisesAtOnce(self) -> None:
        """An exception before the first wait reaches C{failed} like any other."""

        def broken() -> Awaitable[Any]:
            raise ZeroDivisionError

        run = Run(broken).start()
        self.assertEqual([failure.type for failure in run.failures], [ZeroDivisionError])


class CancelTests(SynchronousTestCase):
    """L{Task.cancel}: the client leaves."""

    def test_condition(self) -> None:
        """The wait for a line ends with L{CancelledError}, which is not a failure; a later line wakes no task."""
        condition = Condition()
        run = Run(lambda: condition, lambda: condition).start()
        run.task.cancel()
        condition.notify()
        self.assertEqual((run.seen, run.failures), ([CancelledError], []))

    def test_deferred(self) -> None:
        """An awaited Deferred is cancelled."""
        cancelled: list[object] = []
        waited: Deferred[Any] = Deferred(cancelled.append)
        run = Run(lambda: waited).start()
        run.task.cancel()
        self.assertEqual(cancelled, [waited])
        self.assertEqual((run.seen, run.failures), ([CancelledError], []))
        self.assertIs(self.successResultOf(waited), None)

    def test_deferredFiresInstead(self) -> None:
        """The result of that does not matter: the coroutine gets the cancellation."""
        for canceller in (
            lambda waited: waited.callback("late"),
            lambda waited: waited.errback(ZeroDivisionError()),
        ):
            waited: Deferred[Any] = Deferred(canceller)
            run = Run(lambda waited=waited: waited).start()  # type: ignore[misc]
            run.task.cancel()
            self.assertEqual((run.seen, run.failures), ([CancelledError], []))

    def test_whileRunning(self) -> None:
        """A running coroutine continues until its next wait, for a line or a Deferred, which is cancelled."""
        cancelled: list[object] = []
        for waited in (Condition(), Deferred[Any](cancelled.append)):
            self.assertEqual(self.leaving(waited), (["left", CancelledError], []))
        self.assertEqual(len(cancelled), 1)

    def leaving(self, waited: Any) -> tuple[list[Any], list[Failure]]:
        """The events of a task that is cancelled while it runs and then waits for C{waited}."""

        async def leave() -> str:
            run.task.cancel()
            return "left"

        run = Run(leave, lambda: waited)
        run.start()
        return run.seen, run.failures

    def test_whileEnding(self) -> None:
        """A running coroutine that does not wait again is not cancelled."""

        async def leave() -> str:
            run.task.cancel()
            return "left"

        run = Run(leave)
        run.start()
        run.task.cancel()
        self.assertEqual((run.seen, run.failures), (["left", "end"], []))

    def test_again(self) -> None:
        """A second cancel has no effect."""
        run = Run(lambda: Condition()).start()
        run.task.cancel()
        run.task.cancel()
        self.assertEqual((run.seen, run.failures), ([CancelledError], []))

    def test_fromCanceller(self) -> None:
        """Neither has one from within the canceller of the Deferred."""
        waited: Deferred[Any] = Deferred(lambda _: run.task.cancel())
        run = Run(lambda: waited)
        run.start()
        run.task.cancel()
        self.assertEqual((run.seen, run.failures), ([CancelledError], []))

    def test_cleaningUp(self) -> None:
        """A coroutine may await something while it cleans up."""
        condition = Condition()
        cleaned: list[str] = []

        async def cleaning() -> None:
            try:
                await condition
            finally:
                await condition
                cleaned.append("cleaned")

        run = Run(cleaning).start()
        run.task.cancel()
        self.assertEqual(cleaned, [])
        condition.notify()
        self.assertEqual((cleaned, run.seen, run.failures), (["cleaned"], [CancelledError], []))

    def test_otherFailure(self) -> None:
        """Another exception is a failure."""

        async def broken() -> None:
            try:
                await Condition()
            finally:
                raise ZeroDivisionError

        run = Run(broken).start()
        run.task.cancel()
        self.assertEqual([failure.type for failure in run.failures], [ZeroDivisionError])

    def test_notCancelled(self) -> None:
        """A L{CancelledError} without a cancel is a failure."""
        waited: Deferred[Any] = Deferred()
        run = Run(lambda: waited).start()
        waited.cancel()
        self.assertEqual([failure.type for failure in run.failures], [CancelledError])

    def test_forgotten(self) -> None:
        """What a cancelled login held, its password for example, is freed at once, and not by the garbage collector."""

        class Held:
            pass

        async def holding(held: Held, wait: Any) -> None:
            await wait

        waits: tuple[Any, ...] = (Condition(), Deferred())
        for wait in waits:
            held = Held()
            watched = ref(held)
            task = Task(holding(held, wait), lambda failure: None)
            del held
            gc.disable()
            self.addCleanup(gc.enable)
            task.start()
            self.assertIsNotNone(watched())
            task.cancel()
            self.assertIsNone(watched())
