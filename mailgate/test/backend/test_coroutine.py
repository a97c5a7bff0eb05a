"""
Tests for L{mailgate.backend.coroutine}.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.coroutine import Condition, Task


class Run:
    """A L{Task} that awaits what C{waits} gives, one after the other, and writes down what happens."""

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
    """A L{Condition}, and the task that awaits it."""

    def test_notify(self) -> None:
        """The task goes on in the call that notifies it, and once for each."""
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
        """A notification that nobody waits for wakes nobody later."""
        condition = Condition()
        condition.notify()
        run = Run(lambda: condition).start()
        self.assertEqual(run.seen, [])

    def test_nested(self) -> None:
        """It may be awaited in a coroutine that the task's own one awaits."""
        condition = Condition()

        async def inner() -> str:
            await condition
            return "inner"

        run = Run(inner).start()
        condition.notify()
        self.assertEqual(run.seen, ["inner", "end"])

    def test_notifiedFromWithin(self) -> None:
        """While the task runs a notification reaches nobody: it looks whether there is anything before it waits."""
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
        """Twisted's coroutines cannot await it, and hear so: they would be resumed at once, again and again."""

        async def waiting() -> None:
            while True:
                await Condition()

        self.failureResultOf(Deferred.fromCoroutine(waiting()), RuntimeError)

    def test_dropped(self) -> None:
        """A task that is forgotten while it waits ends, and is no failure."""
        run = Run(lambda: Condition()).start()
        seen, failures = run.seen, run.failures
        del run
        gc.collect()
        self.assertEqual((seen, failures), ([GeneratorExit], []))


class Foreign:
    """What the event loop of somebody else would wait for."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class ForeignTests(SynchronousTestCase):
    """A task that awaits what it cannot be woken by, as an authenticator from outside may."""

    def test_raised(self) -> None:
        """The coroutine hears so where it waits, and whoever runs the task hears nothing."""
        run = Run(Foreign).start()
        self.assertEqual(run.seen, [RuntimeError])
        self.assertIn("not NoneType", run.failures[0].getErrorMessage())

    def test_caught(self) -> None:
        """It may go on, and await what can be awaited."""
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
        """What has fired already is not waited for."""
        self.assertEqual(Run(lambda: succeed(1), lambda: succeed(2)).start().seen, [1, 2, "end"])

    def test_failed(self) -> None:
        """Nor is what has failed; its exception is raised, and comes to C{failed} once."""
        run = Run(lambda: fail(ZeroDivisionError("x"))).start()
        self.assertEqual(run.seen, [ZeroDivisionError])
        self.assertEqual([str(failure.value) for failure in run.failures], ["x"])

    def test_later(self) -> None:
        """What fires later is waited for, and its result is left to nobody else."""
        first: Deferred[Any] = Deferred()
        second: Deferred[Any] = Deferred()
        run = Run(lambda: first, lambda: second).start()
        second.callback(2)
        self.assertEqual(run.seen, [])
        first.callback(1)
        self.assertEqual(run.seen, [1, 2, "end"])
        self.assertIs(self.successResultOf(first), None)

    def test_failsLater(self) -> None:
        """The exception of what fails later is raised where it is awaited, and is not unhandled."""
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
        """One that has fired with another Deferred is waited for."""
        outer, inner = Deferred[Any](), Deferred[Any]()
        outer.addCallback(lambda _: inner)
        outer.callback(None)
        run = Run(lambda: outer).start()
        self.assertEqual(run.seen, [])
        inner.callback("in")
        self.assertEqual(run.seen, ["in", "end"])

    def test_caught(self) -> None:
        """A coroutine that catches the exception goes on."""

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
        """An exception before the first wait comes to C{failed} like any other."""

        def broken() -> Awaitable[Any]:
            raise ZeroDivisionError

        run = Run(broken).start()
        self.assertEqual([failure.type for failure in run.failures], [ZeroDivisionError])


class CancelTests(SynchronousTestCase):
    """L{Task.cancel}: the client has left."""

    def test_condition(self) -> None:
        """A wait for a line ends with L{CancelledError}, which is no failure; a line that comes then wakes nobody."""
        condition = Condition()
        run = Run(lambda: condition, lambda: condition).start()
        run.task.cancel()
        condition.notify()
        self.assertEqual((run.seen, run.failures), ([CancelledError], []))

    def test_deferred(self) -> None:
        """A Deferred that is waited for is cancelled."""
        cancelled: list[object] = []
        waited: Deferred[Any] = Deferred(cancelled.append)
        run = Run(lambda: waited).start()
        run.task.cancel()
        self.assertEqual(cancelled, [waited])
        self.assertEqual((run.seen, run.failures), ([CancelledError], []))
        self.assertIs(self.successResultOf(waited), None)

    def test_deferredFiresInstead(self) -> None:
        """It does not matter what that makes of it: the coroutine does not go on as if nothing had happened."""
        for canceller in (
            lambda waited: waited.callback("late"),
            lambda waited: waited.errback(ZeroDivisionError()),
        ):
            waited: Deferred[Any] = Deferred(canceller)
            run = Run(lambda waited=waited: waited).start()  # type: ignore[misc]
            run.task.cancel()
            self.assertEqual((run.seen, run.failures), ([CancelledError], []))

    def test_whileRunning(self) -> None:
        """A coroutine that runs goes on until it waits next, for a line or a Deferred; that is what is cancelled."""
        cancelled: list[object] = []
        for waited in (Condition(), Deferred[Any](cancelled.append)):
            self.assertEqual(self.leaving(waited), (["left", CancelledError], []))
        self.assertEqual(len(cancelled), 1)

    def leaving(self, waited: Any) -> tuple[list[Any], list[Failure]]:
        """What a task does that is cancelled while it runs, and would wait for C{waited} then."""

        async def leave() -> str:
            run.task.cancel()
            return "left"

        run = Run(leave, lambda: waited)
        run.start()
        return run.seen, run.failures

    def test_whileEnding(self) -> None:
        """Nothing is left to be cancelled when a coroutine that runs does not wait any more."""

        async def leave() -> str:
            run.task.cancel()
            return "left"

        run = Run(leave)
        run.start()
        run.task.cancel()
        self.assertEqual((run.seen, run.failures), (["left", "end"], []))

    def test_again(self) -> None:
        """Cancelled once is cancelled."""
        run = Run(lambda: Condition()).start()
        run.task.cancel()
        run.task.cancel()
        self.assertEqual((run.seen, run.failures), ([CancelledError], []))

    def test_fromCanceller(self) -> None:
        """So it is where what is cancelled cancels in its turn."""
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
        """What else is raised then is a failure."""

        async def broken() -> None:
            try:
                await Condition()
            finally:
                raise ZeroDivisionError

        run = Run(broken).start()
        run.task.cancel()
        self.assertEqual([failure.type for failure in run.failures], [ZeroDivisionError])

    def test_notCancelled(self) -> None:
        """A L{CancelledError} that nobody asked for is one."""
        waited: Deferred[Any] = Deferred()
        run = Run(lambda: waited).start()
        waited.cancel()
        self.assertEqual([failure.type for failure in run.failures], [CancelledError])
