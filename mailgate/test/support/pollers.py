"""
Fakes for tests of a poller: a reactor that does not poll, and an owner that records events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure

__all__ = ["Owner", "Reactor"]


class Reactor(Clock):
    """A reactor with a clock and readers, which it does not poll."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []
        self.added = 0

    def addReader(self, reader: Any) -> None:
        assert reader not in self.readers
        self.readers.append(reader)
        self.added += 1

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)


class Owner:
    """Records its events, and passes them to C{react}."""

    def __init__(self, react: Callable[[int, int], object] | None = None) -> None:
        self.told: list[tuple[int, int]] = []
        self.failures: list[Failure] = []
        self._react = react

    def ready(self, fd: int, events: int) -> None:
        self.told.append((fd, events))
        if self._react is not None:
            self._react(fd, events)

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)
