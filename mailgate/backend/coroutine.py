# -*- test-case-name: mailgate.test.backend.test_coroutine -*-
"""
Runs a login as one coroutine, from the credentials to the hand-over, without a Deferred for each line of a backend.

The coroutine may await a Deferred, for example from an authenticator; one that has already fired costs nothing. It may
await a L{Condition}: the connection resumes the coroutine in the same call that delivers the line. It may also await
other coroutines, which run as a part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

__all__ = ["Condition", "Task"]


class Condition:
    """
    Lets one L{Task} at a time wait for L{notify}. A notification without a waiting task is lost: check whether there is
    anything to wait for before you await.
    """

    __slots__ = ("task",)

    def __init__(self) -> None:
        self.task: Task | None = None

    def __await__(self) -> Generator[Condition, None, None]:
        if (yield self) is not None:
            # inlineCallbacks sends an unknown value back at once. In a loop that would never end.
            raise RuntimeError("only a Task may await a Condition")

    def notify(self) -> None:
        """Resume the waiting task, if there is one. This returns when the task waits again or ends."""
        task = self.task
        if task is not None:
            self.task = None
            task.resume()


_AWAITABLE = (Condition, Deferred)


class Task:
    """
    Runs a coroutine and ignores its result.

    @param coroutine: the coroutine. L{start} runs it up to its first wait.
    @param failed: called with the failure if the coroutine raises: once, at the very end, and not for the
        L{CancelledError} of L{cancel}.
    """

    __slots__ = ("_awaited", "_cancelled", "_coroutine", "_failed")

    def __init__(self, coroutine: Coroutine[Any, Any, object], failed: Callable[[Failure], object]) -> None:
        self._coroutine: Coroutine[Any, Any, object] | None = coroutine
        self._failed = failed
        self._awaited: Condition | Deferred[Any] | None = None
        """L{None} while the coroutine runs, and after its end."""
        self._cancelled = False

    def start(self) -> None:
        """
        Start the coroutine. The constructor does not: the coroutine may L{cancel} its own task, so the caller must have
        stored the task first.
        """
        self.resume()

    def cancel(self) -> None:
        """
        Raise L{CancelledError} in the coroutine where it waits. If it runs at the moment, raise it at the next wait. A
        Deferred that it awaits is cancelled. After the end nothing happens.
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
            self.resume(CancelledError())

    def resume(self, error: BaseException | None = None) -> None:
        """
        Run the coroutine up to its next wait: what it awaits has happened.

        @param error: raised in the coroutine; L{None} to go on.
        """
        self._awaited = None
        coroutine = self._coroutine
        assert coroutine is not None
        wasCancelled = self._cancelled
        try:
            awaited = coroutine.send(None) if error is None else coroutine.throw(error)
            while not isinstance(awaited, _AWAITABLE):
                # A foreign authenticator may await something else. Only its login must fail.
                awaited = coroutine.throw(RuntimeError(f"a Task may await Deferreds, not {type(awaited).__name__}"))
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
        """Continue after the Deferred C{awaited} has fired, unless the task was cancelled meanwhile."""
        if self._awaited is not awaited:
            return
        if isinstance(result, Failure):
            error: Any = result.value
            self.resume(error.with_traceback(result.getTracebackObject()))
        else:
            # The Deferred itself returns the result: it is the iterator that the coroutine awaits.
            self.resume()
