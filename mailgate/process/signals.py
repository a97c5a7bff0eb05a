# -*- test-case-name: mailgate.test.process.test_signals -*-
"""
The signals, as in nginx: HUP reloads, QUIT drains, TERM and INT stop, USR1 reopens the log files, USR2 upgrades.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from mailgate.process.operation import Operation

__all__ = ["Signals"]


class _Handler:
    """Calls C{obey} with the name of the signal and C{how} from the event loop, where all calls are safe."""

    def __init__(
        self, reactor: Any, obey: Callable[[str, Callable[[], object]], None], how: Callable[[], object]
    ) -> None:
        self._reactor = reactor
        self._obey = obey
        self._how = how

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._obey, signal.Signals(number).name, self._how)


class Signals:
    """
    Handles the signals of this process once the reactor runs. The reactor installs its own handlers when it starts, so
    L{install} must be called a second time then.

    @param operation: carries out what a signal orders.
    @param reactor: the reactor.
    """

    _log = Logger("mailgate")

    def __init__(self, operation: Operation, reactor: Any) -> None:
        self._operation = operation
        self._reactor = reactor
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Install the handlers, and remember the present ones."""
        for number, obey in (
            (signal.SIGHUP, self._operation.reload),
            (signal.SIGQUIT, self._operation.drain),
            (signal.SIGTERM, self._operation.stop),
            (signal.SIGINT, self._operation.stop),
            (signal.SIGUSR1, self._operation.reopen),
            (signal.SIGUSR2, self._operation.upgrade),
        ):
            before = signal.signal(number, _Handler(self._reactor, self._obey, obey))
            if not isinstance(before, _Handler):
                self._before[number] = before

    def restore(self) -> None:
        """Restore the handlers that L{install} replaced."""
        before, self._before = self._before, {}
        for number, earlier in before.items():
            # Python cannot restore a handler that was not set from Python.
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)

    def _obey(self, name: str, obey: Callable[[], object]) -> None:
        self._log.info("received {name}", name=name)
        obeyed: Deferred[Any] = maybeDeferred(obey)
        obeyed.addErrback(lambda failure: self._log.failure("handling {name} failed", failure, name=name))
