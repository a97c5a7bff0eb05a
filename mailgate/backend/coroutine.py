# -*- test-case-name: mailgate.test.backend.test_coroutine -*-
"""
Runs a login: one coroutine from the credentials to the hand-over, without a Deferred between two lines of a backend.

A coroutine may await two things. A Deferred is what the outside world is asked by; one that has fired already costs
nothing. A L{Condition} is what a connection wakes the coroutine by, in the very call that brought the line. An awaited
coroutine is part of the one that awaits it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

__all__ = ["Condition", "Task"]


class Condition:
    """
    What one L{Task} at a time awaits until L{notify} is called. A notification that comes while none waits is not kept:
    look whether there is something to wait for before you do.
    """

    __slots__ = ("task",)

    def __init__(self) -> None:
        self.task: Task | None = None

    def __await__(self) -> Generator[Condition, None, None]:
        if (yield self) is not None:
            # inlineCallbacks sends back at once what it does not know: for ever, if it is in a loop.
            raise RuntimeError("a Condition is awaited by what is no Task")

    def notify(self) -> None:
        """Have the task that waits, if one does, go on at once, until it waits again or ends."""
        task = self.task
        if task is not None:
            self.task = None
            task.resume()


_AWAITABLE = (Condition, Deferred)


class Task:
    """
    A C{coroutine} whose result is of no interest. L{start} runs it up to its first wait.

    @param failed: called with the failure if the coroutine raises, once and as the last thing that happens; not with
        L{CancelledError} after L{cancel}.
    """

    __slots__ = ("_awaited", "_cancelled", "_coroutine", "_failed")

    def __init__(self, coroutine: Coroutine[Any, Any, object], failed: Callable[[Failure], object]) -> None:
        self._coroutine: Coroutine[Any, Any, object] | None = coroutine
        self._failed = failed
        self._awaited: Condition | Deferred[Any] | None = None
        """L{None} while the coroutine runs, and when it has ended."""
        self._cancelled = False

    def start(self) -> None:
        """Begin. Not in the constructor: the coroutine may L{cancel} the task that runs it, which is kept by then."""
        self._step()

    def resume(self) -> None:
        """What it waits for has come."""
        self._awaited = None
        self._step()

    def cancel(self) -> None:
        """
        Raise L{CancelledError} where the coroutine waits; where it runs just now, at its next wait. A Deferred that it
        waits for is cancelled. If it has ended nothing happens.
        """
        self._cancelled = True
        awaited, self._awaited = self._awaited, None
        if awaited is None:
            return
        try:
            if isinstance(awaited, Condition):
                awaited.task = None
            else:
                awaited.cancel()
        finally:
            self._step(CancelledError())

    def _step(self, error: BaseException | None = None) -> None:
        """Run the coroutine up to its next wait, C{error} being raised where it waited."""
        coroutine = self._coroutine
        assert coroutine is not None
        wasCancelled = self._cancelled
        try:
            awaited = coroutine.send(None) if error is None else coroutine.throw(error)
            while not isinstance(awaited, _AWAITABLE):
                # An authenticator from outside may do that: its login fails, and no more than that.
                awaited = coroutine.throw(RuntimeError(f"a Task may await Deferreds, and no {type(awaited).__name__}"))
        except StopIteration:
            self._coroutine = None
            return
        except BaseException as raised:
            self._coroutine = None
            if not (self._cancelled and isinstance(raised, CancelledError)):
                self._failed(Failure())
            return
        self._awaited = awaited
        if isinstance(awaited, Condition):
            awaited.task = self
        else:
            awaited.addBoth(self._fired, awaited)
        if self._cancelled and not wasCancelled and self._awaited is not None:
            self.cancel()

    def _fired(self, result: Any, awaited: Deferred[Any]) -> None:
        """The Deferred that is C{awaited} has fired; after L{cancel} that is of no interest."""
        if self._awaited is not awaited:
            return
        self._awaited = None
        if isinstance(result, Failure):
            error: Any = result.value
            self._step(error.with_traceback(result.getTracebackObject()))
        else:
            # The Deferred itself gives the result: it is the iterator that the coroutine stands in.
            self._step()
