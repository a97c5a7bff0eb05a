"""
Tests for L{mailgate.process.operation}.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailgate.process.interfaces import IGenerations
from mailgate.process.operation import Answer, Operation
from mailgate.process.upgrade import UpgradeError


@implementer(IGenerations)
class FakeGenerations:
    """Remembers what they were asked for, and ends when C{ended} fires."""

    servesClients = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.ended: Deferred[int] = Deferred()
        self.reloaded: Deferred[Sequence[str]] = succeed(())

    def whenReady(self) -> Deferred[None]:
        return succeed(None)

    def reload(self) -> Deferred[Sequence[str]]:
        self.asked.append("reload")
        return self.reloaded

    def drain(self) -> Deferred[int]:
        return self.end("drain")

    def stop(self) -> Deferred[int]:
        return self.end("stop")

    def retire(self) -> Deferred[int]:
        return self.end("retire")

    def reopen(self) -> None:
        self.asked.append("reopen")

    def end(self, name: str) -> Deferred[int]:
        """A Deferred that fires when C{ended} does."""
        self.asked.append(name)
        waiting: Deferred[int] = Deferred()

        def ended(cut: int) -> int:
            waiting.callback(cut)
            return cut

        self.ended.addCallback(ended)
        return waiting


class FakeNotifier:
    """Remembers what systemd was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def ready(self, status: str) -> None:
        self.told.append(f"ready: {status}")

    def reloading(self) -> None:
        self.told.append("reloading")

    def stopping(self, status: str) -> None:
        self.told.append(f"stopping: {status}")

    def handOver(self, pid: int) -> None:
        self.told.append(f"main process: {pid}")


class FakeSuccessor:
    """One that is told whether to go on."""

    def __init__(self) -> None:
        self.ready: Deferred[int] = Deferred()
        # A process that is certainly there: this one.
        self.pid = os.getpid()
        self.told: list[str] = []

    def goOn(self) -> None:
        self.told.append("go on")

    def abandon(self, reason: str) -> None:
        self.told.append(reason)
        self.ready.errback(UpgradeError(reason))


class StoppableClock(Clock):
    """A reactor that can be stopped once."""

    stopped = 0

    def stop(self) -> None:
        self.stopped += 1
        if self.stopped > 1:
            raise ReactorNotRunning()


class OperationTests(SynchronousTestCase):
    """Tests for L{Operation}."""

    def setUp(self) -> None:
        self.generations = FakeGenerations()
        self.reactor = StoppableClock()
        self.systemd = FakeNotifier()
        self.successors: list[FakeSuccessor] = []
        self.settled: list[bool] = []
        self.obstacle = ""
        start: Any = self.start
        notifier: Any = self.systemd
        self.operation = Operation(self.generations, self.reactor, notifier, start, self.settled.append)
        self.operation.begun()

    def start(self) -> tuple[FakeSuccessor, Deferred[int]]:
        if self.obstacle:
            raise UpgradeError(self.obstacle)
        self.successors.append(FakeSuccessor())
        return self.successors[-1], self.successors[-1].ready

    def refused(self, answered: Deferred[Answer]) -> str:
        """The one reason of a refusal."""
        answer = self.successResultOf(answered)
        self.assertFalse(answer.done)
        (reason,) = answer.reasons
        return reason

    def test_fake(self) -> None:
        """The fake is true to the interface."""
        self.assertTrue(verifyObject(IGenerations, self.generations))

    def test_reload(self) -> None:
        """A reload is answered, and systemd hears when it begins and ends."""
        self.assertEqual(self.successResultOf(self.operation.reload()), Answer(True))
        self.assertEqual(self.systemd.told, ["ready: serving", "reloading", "ready: serving"])

    def test_refusedReload(self) -> None:
        """A bad configuration is told of, line by line, and systemd hears that the old one is in force."""
        self.generations.reloaded = succeed(["this is wrong", "and that"])
        answer = self.successResultOf(self.operation.reload())
        self.assertEqual(answer, Answer(False, ("this is wrong", "and that")))
        self.assertEqual(self.systemd.told[-1], "ready: serving; the last reload was refused, see the log")

    def test_defect(self) -> None:
        """A reload that goes wrong keeps no other from being tried, nor systemd waiting."""
        self.generations.reloaded = fail(RuntimeError("a defect"))
        self.failureResultOf(self.operation.reload(), RuntimeError)
        self.assertIn("refused", self.systemd.told[-1])
        self.generations.reloaded = succeed(())
        self.assertTrue(self.successResultOf(self.operation.reload()).done)

    def test_end(self) -> None:
        """Once all have left there is an answer, and when it has had time to leave the reactor is stopped, once."""
        drained = self.operation.drain()
        stopped = self.operation.stop()
        self.assertEqual(self.generations.asked, ["drain", "stop"])
        self.assertNoResult(drained)
        self.generations.ended.callback(3)
        self.assertEqual(self.successResultOf(drained), Answer(True, cut=3))
        self.assertEqual(self.successResultOf(stopped), Answer(True, cut=3))
        self.assertEqual(self.reactor.stopped, 0)
        self.reactor.advance(0)
        self.assertEqual(self.reactor.stopped, 2)
        self.assertEqual(self.systemd.told[1:], ["stopping: draining", "stopping: stopping"])

    def test_reloadAtEnd(self) -> None:
        """Who is going down reloads nothing."""
        self.operation.drain()
        self.assertIn("shutting down", self.refused(self.operation.reload()))
        self.assertEqual(self.generations.asked, ["drain"])

    def test_reopen(self) -> None:
        """Logs are opened again."""
        self.operation.reopen()
        self.assertEqual(self.generations.asked, ["reopen"])

    def test_upgrade(self) -> None:
        """When the successor is ready it is told to go on, systemd hears of it, and this process ends in time."""
        upgraded = self.operation.upgrade()
        self.assertNoResult(upgraded)
        self.assertEqual(self.generations.asked, [])
        successor = self.successors[0]
        successor.ready.callback(4711)
        self.assertEqual(self.successResultOf(upgraded), Answer(True, pid=4711))
        self.assertEqual(successor.told, ["go on"])
        self.assertEqual(self.settled, [True])
        self.assertEqual(self.generations.asked, ["retire"])
        self.generations.ended.callback(0)
        self.reactor.advance(0)
        self.assertEqual(self.reactor.stopped, 1)
        # What is to be said of the service is the successor's to say.
        self.assertEqual(self.systemd.told[1:], ["main process: 4711"])

    def test_failedUpgrade(self) -> None:
        """One that fails is told of in one line, changes nothing, and another may be tried."""
        upgraded = self.operation.upgrade()
        with capturedLogs() as events:
            self.successors[0].ready.errback(UpgradeError("this is wrong\nand that"))
        told = "upgrade failed, this process keeps serving: this is wrong; and that"
        self.assertEqual([formatEvent(event) for event in events], [told])
        self.assertEqual(self.refused(upgraded), told)
        self.assertEqual(self.settled, [False])
        self.assertEqual((self.generations.asked, self.reactor.stopped), ([], 0))
        self.assertTrue(self.successResultOf(self.operation.reload()).done)
        self.operation.upgrade()
        self.assertEqual(len(self.successors), 2)

    def test_noUpgrade(self) -> None:
        """One that cannot be begun is refused with the reason."""
        self.obstacle = "a gateway with [sandbox] must be restarted instead"
        self.assertEqual(self.refused(self.operation.upgrade()), f"upgrade refused: {self.obstacle}")
        self.obstacle = ""
        self.assertNoResult(self.operation.upgrade())

    def test_twoUpgrades(self) -> None:
        """Of two at once the second is refused, and the first goes on."""
        first = self.operation.upgrade()
        self.assertIn("another upgrade is in progress", self.refused(self.operation.upgrade()))
        self.successors[0].ready.callback(4711)
        self.assertTrue(self.successResultOf(first).done)
        self.assertEqual(len(self.successors), 1)

    def test_upgradeAtEnd(self) -> None:
        """Who is going down starts nobody, and who has been succeeded is going down."""
        self.operation.upgrade()
        self.successors[0].ready.callback(4711)
        self.assertIn("shutting down", self.refused(self.operation.upgrade()))
        self.assertEqual(len(self.successors), 1)

    def test_reloadDuringUpgrade(self) -> None:
        """A reload waits; if the upgrade succeeds it is the successor's."""
        received: list[int] = []
        before = signal.signal(signal.SIGHUP, lambda number, frame: received.append(number))
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        self.operation.upgrade()
        reloaded = self.operation.reload()
        self.assertNoResult(reloaded)
        self.successors[0].ready.callback(self.successors[0].pid)
        self.assertEqual(self.successResultOf(reloaded), Answer(True, pid=os.getpid()))
        self.assertEqual(received, [signal.SIGHUP])
        self.assertEqual(self.generations.asked, ["retire"])

    def test_reloadAfterFailedUpgrade(self) -> None:
        """If the upgrade fails the reload is done here."""
        self.operation.upgrade()
        reloaded = self.operation.reload()
        self.successors[0].ready.errback(UpgradeError("no"))
        self.assertTrue(self.successResultOf(reloaded).done)
        self.assertEqual(self.generations.asked, ["reload"])

    def test_upgradeDuringReload(self) -> None:
        """An upgrade waits for a reload: it is to find the sockets of one configuration."""
        reloaded: Deferred[Sequence[str]] = Deferred()
        self.generations.reloaded = reloaded
        self.operation.reload()
        self.operation.upgrade()
        self.assertEqual(self.successors, [])
        reloaded.callback(())
        self.assertEqual(len(self.successors), 1)

    def test_endDuringUpgrade(self) -> None:
        """Whoever ends the gateway meanwhile means the successor, too."""
        upgraded = self.operation.upgrade()
        self.operation.stop()
        self.assertEqual(self.successors[0].told, ["the gateway is shutting down"])
        self.assertIn("shutting down", self.refused(upgraded))
        self.assertEqual(self.generations.asked, ["stop"])

    def test_stopAfterUpgrade(self) -> None:
        """Once there is a successor an end is this process's alone."""
        self.operation.upgrade()
        self.successors[0].ready.callback(4711)
        self.operation.stop()
        self.assertEqual(self.successors[0].told, ["go on"])
        self.assertEqual(self.generations.asked, ["retire", "stop"])
        self.assertEqual(self.systemd.told[-1], "main process: 4711")
