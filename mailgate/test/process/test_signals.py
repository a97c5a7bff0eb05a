"""
Tests for L{mailgate.process.signals}.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from mailgate.process.operation import Answer
from mailgate.process.signals import Signals


class FakeOperation:
    """Remembers what it was asked for."""

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
    """Calls when it is its turn."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        self.calls.append((call, arguments))

    def turn(self) -> None:
        """Call what was to be called."""
        calls, self.calls = self.calls, []
        for call, arguments in calls:
            call(*arguments)


class SignalsTests(SynchronousTestCase):
    """Tests for L{Signals}, by signals to this very process."""

    def setUp(self) -> None:
        self.operation = FakeOperation()
        self.reactor = FakeReactor()
        operation: Any = self.operation
        self.signals = Signals(operation, self.reactor)
        self.signals.install()
        self.addCleanup(self.signals.restore)

    def receive(self, *numbers: int) -> list[str]:
        """What is asked for when these signals come."""
        before = len(self.operation.asked)
        for number in numbers:
            os.kill(os.getpid(), number)
        self.assertEqual(len(self.operation.asked), before)
        self.reactor.turn()
        return self.operation.asked[before:]

    def test_each(self) -> None:
        """Each asks for what nginx's does, in the reactor's turn and not in the midst of something."""
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
        """Of several none is lost, and they are obeyed in their order."""
        numbers = (signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP)
        self.assertEqual(self.receive(*numbers), ["reload", "reopen", "reload"])

    def test_defect(self) -> None:
        """What goes wrong is logged, and the next signal is obeyed."""
        self.operation.answered = fail(RuntimeError("a defect"))
        self.receive(signal.SIGHUP)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.receive(signal.SIGUSR1), ["reopen"])

    def test_restore(self) -> None:
        """Afterwards everything is as it was before, though it was installed twice, and over others in between."""
        self.signals.restore()
        before = signal.getsignal(signal.SIGHUP)
        self.signals.install()
        self.signals.install()
        self.signals.restore()
        self.assertEqual(signal.getsignal(signal.SIGHUP), before)
