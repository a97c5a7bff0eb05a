"""
Tests for L{mailgate.signals}.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailgate.interfaces import IGenerations
from mailgate.signals import Signals


@implementer(IGenerations)
class FakeGenerations:
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.ended: Deferred[int] = Deferred()
        self.reloaded: Deferred[None] = succeed(None)

    def reload(self) -> Deferred[None]:
        self.asked.append("reload")
        return self.reloaded

    def drain(self) -> Deferred[int]:
        self.asked.append("drain")
        return self.waiting()

    def stop(self) -> Deferred[int]:
        self.asked.append("stop")
        return self.waiting()

    def reopen(self) -> None:
        self.asked.append("reopen")

    def waiting(self) -> Deferred[int]:
        """Fires when C{ended} does."""
        waiting: Deferred[int] = Deferred()

        def ended(cut: int) -> int:
            waiting.callback(cut)
            return cut

        self.ended.addCallback(ended)
        return waiting


class FakeReactor:
    """Calls when it is its turn, and can be stopped once."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.stopped = 0

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        self.calls.append((call, arguments))

    def stop(self) -> None:
        self.stopped += 1
        if self.stopped > 1:
            raise ReactorNotRunning()

    def turn(self) -> None:
        """Call what was to be called."""
        calls, self.calls = self.calls, []
        for call, arguments in calls:
            call(*arguments)


class SignalsTests(SynchronousTestCase):
    """Tests for L{Signals}, by signals to this very process."""

    def setUp(self) -> None:
        self.generations, self.reactor = FakeGenerations(), FakeReactor()
        self.signals = Signals(self.generations, self.reactor)
        self.signals.install()
        self.addCleanup(self.signals.restore)

    def receive(self, *numbers: int) -> list[str]:
        """What is asked for when these signals come."""
        before = len(self.generations.asked)
        for number in numbers:
            os.kill(os.getpid(), number)
        self.assertEqual(len(self.generations.asked), before)
        self.reactor.turn()
        return self.generations.asked[before:]

    def test_fake(self) -> None:
        """The fake is true to the interface."""
        self.assertTrue(verifyObject(IGenerations, self.generations))

    def test_each(self) -> None:
        """Each asks for what nginx's does, in the reactor's turn and not in the midst of something."""
        for number, expected in (
            (signal.SIGHUP, "reload"),
            (signal.SIGUSR1, "reopen"),
            (signal.SIGQUIT, "drain"),
            (signal.SIGTERM, "stop"),
            (signal.SIGINT, "stop"),
        ):
            self.assertEqual(self.receive(number), [expected])

    def test_row(self) -> None:
        """Of several none is lost, and they are obeyed in their order."""
        numbers = (signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP)
        self.assertEqual(self.receive(*numbers), ["reload", "reopen", "reload"])

    def test_end(self) -> None:
        """The reactor is stopped once all have left, and not by a reload."""
        self.receive(signal.SIGHUP, signal.SIGQUIT)
        self.assertEqual(self.reactor.stopped, 0)
        self.receive(signal.SIGTERM)
        self.generations.ended.callback(0)
        self.assertEqual(self.reactor.stopped, 2)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_defect(self) -> None:
        """What goes wrong is logged, and the next signal is obeyed."""
        self.generations.reloaded = fail(RuntimeError("a defect"))
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
