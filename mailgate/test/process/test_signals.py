"""
Tests for L{mailgate.process.signals}.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from mailgate.process.answer import Answer
from mailgate.process.signals import Signals


class FakeOperation:
    """Records the calls."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answered: Deferred[Answer] = succeed(Answer(True))

    def ask(self, name: str) -> Deferred[Answer]:
        self.asked.append(name)
        return self.answered

    def reload(self) -> Deferred[Answer]:
        return self.ask("reload")

    def drain(self) -> Deferred[Answer]:
        return self.ask("drain")

    def stop(self) -> Deferred[Answer]:
        return self.ask("stop")

    def upgrade(self) -> Deferred[Answer]:
        return self.ask("upgrade")

    def reopen(self) -> None:
        self.ask("reopen")


class FakeReactor:
    """Makes the calls on request."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        self.calls.append((call, arguments))

    def turn(self) -> None:
        """Make the calls."""
        calls, self.calls = self.calls, []
        for call, arguments in calls:
            call(*arguments)


class SignalsTests(SynchronousTestCase):
    """Tests for L{Signals}, with signals to this process."""

    def setUp(self) -> None:
        self.operation = FakeOperation()
        self.reactor = FakeReactor()
        operation: Any = self.operation
        self.signals = Signals(operation, self.reactor)
        self.signals.install()
        self.addCleanup(self.signals.restore)

    def receive(self, *numbers: int) -> list[str]:
        """Return the calls after these signals."""
        before = len(self.operation.asked)
        for number in numbers:
            os.kill(os.getpid(), number)
        self.assertEqual(len(self.operation.asked), before)
        self.reactor.turn()
        return self.operation.asked[before:]

    def test_each(self) -> None:
        """Each signal has nginx's meaning, and takes effect in the event loop."""
        for number, expected in (
            (signal.SIGHUP, "reload"),
            (signal.SIGUSR1, "reopen"),
            (signal.SIGUSR2, "upgrade"),
            (signal.SIGQUIT, "drain"),
            (signal.SIGTERM, "stop"),
            (signal.SIGINT, "stop"),
        ):
            self.assertEqual(self.receive(number), [expected])

    def test_row(self) -> None:
        """Several signals all take effect, in their order."""
        numbers = (signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP)
        self.assertEqual(self.receive(*numbers), ["reload", "reopen", "reload"])

    def test_defect(self) -> None:
        """An error is logged, and the next signal takes effect."""
        self.operation.answered = fail(RuntimeError("a defect"))
        self.receive(signal.SIGHUP)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.receive(signal.SIGUSR1), ["reopen"])

    def test_restore(self) -> None:
        """
        C{restore} restores the original handlers, also after two calls of C{install} and another handler in between.
        """
        self.signals.restore()
        # An earlier test in this process may have left a handler of the gateway, which install does not remember.
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        before = signal.SIG_IGN
        signal.signal(signal.SIGHUP, before)
        self.signals.install()
        self.signals.install()
        self.signals.restore()
        self.assertEqual(signal.getsignal(signal.SIGHUP), before)
