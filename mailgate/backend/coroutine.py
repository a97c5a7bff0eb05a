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

    @ivar task: the task that waits.
    @ivar loss: why there is nothing more to wait for; each wait that would begin raises it. L{None} before.
    """

    task: Task | None = None
    loss: Exception | None = None

    def __await__(self) -> Generator[Condition, None, None]:
        if self.loss is not None:
            raise self.loss
        if (yield self) is not None:
            # inlineCallbacks sends an unknown value back at once. In a loop that would never end.
            raise RuntimeError("only a Task may await a Condition")

    def notify(self) -> None:
        """Resume the waiting task, if there is one. This returns when the task waits again or ends."""
        task = self.task
        if task is not None:
            self.task = None
            task.resume()


class Task:
    """
    Runs a coroutine and ignores its result. A subclass that makes the coroutine itself sets C{_coroutine} before
    L{start}, and has a method C{_failed}.

    @param coroutine: the coroutine. L{start} runs it up to its first wait.
    @param failed: called with the failure if the coroutine raises: once, at the very end, and not for the
        L{CancelledError} of L{cancel}.
    """

    _awaited: Condition | Deferred[Any] | None = None
    """What the coroutine awaits, or has awaited while it runs; L{None} before L{start} and after the end."""
    _cancelled = False
    _leaves = False
    """Whether it is to be cancelled at its next wait."""

    def __init__(self, coroutine: Coroutine[Any, Any, object], failed: Callable[[Failure], object]) -> None:
        self._coroutine: Any = coroutine
        self._failed: Callable[[Failure], object] = failed

    def cancel(self) -> None:
        """
        Raise L{CancelledError} in the coroutine where it waits. If it runs at the moment, raise it at the next wait. A
        Deferred that it awaits is cancelled. After the end nothing happens.
        """
        isFirst, self._cancelled = not self._cancelled, True
        coroutine, awaited = self._coroutine, self._awaited
        if coroutine is not None and coroutine.cr_running:
            self._leaves = self._leaves or isFirst
            return
        if awaited is None:
            return
        self._awaited = None
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
        try:
            awaited = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except StopIteration:
            self._coroutine = self._awaited = None
            return
        except BaseException as raised:
            self._coroutine = self._awaited = None
            # Its traceback has this frame: the garbage collector would have to find both, and what the login held.
            error = None
            if not (self._cancelled and isinstance(raised, CancelledError)):
                self._failed(Failure())
            return
        self._awaited = awaited
        if isinstance(awaited, Condition):
            awaited.task = self
        elif isinstance(awaited, Deferred):
            awaited.addBoth(self._fired, awaited)
        else:
            # A foreign authenticator may await something else. Only its login must fail.
            self.resume(RuntimeError(f"a Task may await Deferreds, not {type(awaited).__name__}"))
        if self._leaves:
            self._leaves = False
            self.cancel()

    start = resume
    """
    Starts the coroutine. The constructor does not: the coroutine may L{cancel} its own task, so the caller must have
    stored the task first.
    """

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
