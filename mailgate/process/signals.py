# -*- test-case-name: mailgate.test.process.test_signals -*-
"""
nginx's signals: HUP reloads, QUIT drains, TERM and INT stop, USR1 reopens logs, USR2 upgrades.
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
    """Has C{obey} called with the signal's name and C{how}, where it may do more than between any two instructions."""

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
    Has signals to the process obeyed by C{operation}.

    They are obeyed once C{reactor} runs. When it starts it installs handlers of its own: so these are to be installed
    a second time.
    """

    _log = Logger("mailgate")

    def __init__(self, operation: Operation, reactor: Any) -> None:
        self._operation = operation
        self._reactor = reactor
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Take the place of the handlers that there are."""
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
        """Put back what was there before."""
        before, self._before = self._before, {}
        for number, earlier in before.items():
            # One that was not set from Python cannot be put back.
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)

    def _obey(self, name: str, obey: Callable[[], object]) -> None:
        self._log.info("received {name}", name=name)
        obeyed: Deferred[Any] = maybeDeferred(obey)
        obeyed.addErrback(lambda failure: self._log.failure("handling {name} failed", failure, name=name))
