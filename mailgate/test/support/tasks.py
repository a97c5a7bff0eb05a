"""
Coroutines of L{mailgate.backend.coroutine} as trial's test cases can look at them.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from twisted.internet.defer import Deferred

from mailgate.backend.coroutine import Task

__all__ = ["resultOf"]


def resultOf(awaitable: Awaitable[Any]) -> Deferred[Any]:
    """A Deferred that fires with the result of C{awaitable}, which a L{Task} runs; it cancels that."""

    async def awaiting() -> None:
        result.callback(await awaitable)

    result: Deferred[Any] = Deferred(lambda _: task.cancel())
    task = Task(awaiting(), result.errback)
    task.start()
    return result
