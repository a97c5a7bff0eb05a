"""
Tests for L{mailgate.process.operation}.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailgate.process.answer import Answer
from mailgate.process.interfaces import IGenerations
from mailgate.process.operation import Operation
from mailgate.process.queries import Found
from mailgate.process.upgrade import UpgradeError
from mailgate.upstream.notices import Notices


@implementer(IGenerations)
class FakeGenerations:
    """Records the calls, and ends when C{ended} fires."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.ended: Deferred[int] = Deferred()
        self.reloaded: Deferred[Sequence[str]] = succeed(())
        self.notices = Notices(Clock())
        self.rows: list[Any] = []

    def whenReady(self) -> Deferred[None]:
        return succeed(None)

    def serving(self) -> None:
        self.asked.append("serving")

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

    def ask(self, word: str, arguments: Mapping[str, Any]) -> Deferred[Sequence[Found]]:
        return succeed([Found(True, self.rows)])

    def end(self, name: str) -> Deferred[int]:
        """Return a Deferred that fires when C{ended} does."""
        self.asked.append(name)
        waiting: Deferred[int] = Deferred()

        def ended(cut: int) -> int:
            waiting.callback(cut)
            return cut

        self.ended.addCallback(ended)
        return waiting


class FakeNotifier:
    """Records the reports to systemd."""

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
    """Records whether the upgrade goes on."""

    def __init__(self) -> None:
        self.ready: Deferred[int] = Deferred()
        # This process certainly exists.
        self.pid = os.getpid()
        self.told: list[str] = []

    def goOn(self) -> None:
        self.told.append("go on")

    def abandon(self, reason: str) -> None:
        self.told.append(reason)
        self.ready.errback(UpgradeError(reason))


class StoppableClock(Clock):
    """A reactor that can be stopped only once."""

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
        """Return the only reason of a refusal."""
        answer = self.successResultOf(answered)
        self.assertFalse(answer.done)
        (reason,) = answer.reasons
        return reason

    def test_fake(self) -> None:
        """The fake provides the interface."""
        self.assertTrue(verifyObject(IGenerations, self.generations))

    def test_reload(self) -> None:
        """A reload is answered, and systemd gets a report at its beginning and end."""
        self.assertEqual(self.successResultOf(self.operation.reload()), Answer(True))
        self.assertEqual(self.systemd.told, ["ready: serving", "reloading", "ready: serving"])

    def test_refusedReload(self) -> None:
        """The answer has each error of a bad configuration, and systemd learns that the old one is still active."""
        self.generations.reloaded = succeed(["this is wrong", "and that"])
        answer = self.successResultOf(self.operation.reload())
        self.assertEqual(answer, Answer(False, ("this is wrong", "and that")))
        self.assertEqual(self.systemd.told[-1], "ready: serving; the last reload was refused, see the log")

    def test_defect(self) -> None:
        """After an unexpected error other reloads are possible, and systemd does not wait."""
        self.generations.reloaded = fail(RuntimeError("a defect"))
        self.failureResultOf(self.operation.reload(), RuntimeError)
        self.assertIn("refused", self.systemd.told[-1])
        self.generations.reloaded = succeed(())
        self.assertTrue(self.successResultOf(self.operation.reload()).done)

    def test_end(self) -> None:
        """
        When all sessions have ended the command is answered; after time to send the answer the reactor is stopped,
        once.
        """
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
        """A gateway that is shutting down refuses to reload."""
        self.operation.drain()
        self.assertIn("shutting down", self.refused(self.operation.reload()))
        self.assertEqual(self.generations.asked, ["drain"])

    def test_reopen(self) -> None:
        """The log files are opened again."""
        self.operation.reopen()
        self.assertEqual(self.generations.asked, ["reopen"])

    def test_upgrade(self) -> None:
        """When the successor is ready it is confirmed, systemd gets a report, and this process exits later."""
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
        # Only the successor reports to systemd now.
        self.assertEqual(self.systemd.told[1:], ["main process: 4711"])

    def test_failedUpgrade(self) -> None:
        """A failed upgrade is logged in one line, changes nothing, and can be repeated."""
        upgraded = self.operation.upgrade()
        with capturedLogs() as events:
            self.successors[0].ready.errback(UpgradeError("this is wrong\nand that"))
        told = "upgrade failed, the old process continues: this is wrong; and that"
        self.assertEqual([formatEvent(event) for event in events], [told])
        self.assertEqual(self.refused(upgraded), told)
        self.assertEqual(self.settled, [False])
        self.assertEqual((self.generations.asked, self.reactor.stopped), ([], 0))
        self.assertTrue(self.successResultOf(self.operation.reload()).done)
        self.operation.upgrade()
        self.assertEqual(len(self.successors), 2)

    def test_noUpgrade(self) -> None:
        """An upgrade that cannot start is refused with the reason."""
        self.obstacle = "a gateway with [sandbox] must be restarted instead"
        self.assertEqual(self.refused(self.operation.upgrade()), f"upgrade refused: {self.obstacle}")
        self.obstacle = ""
        self.assertNoResult(self.operation.upgrade())

    def test_twoUpgrades(self) -> None:
        """The second of two simultaneous upgrades is refused, and the first goes on."""
        first = self.operation.upgrade()
        self.assertIn("another upgrade is in progress", self.refused(self.operation.upgrade()))
        self.successors[0].ready.callback(4711)
        self.assertTrue(self.successResultOf(first).done)
        self.assertEqual(len(self.successors), 1)

    def test_upgradeAtEnd(self) -> None:
        """A gateway that is shutting down, also after an upgrade, refuses to upgrade."""
        self.operation.upgrade()
        self.successors[0].ready.callback(4711)
        self.assertIn("shutting down", self.refused(self.operation.upgrade()))
        self.assertEqual(len(self.successors), 1)

    def test_orderDuringUpgrade(self) -> None:
        """An order for a backend waits for an upgrade; the process that has taken over must carry it out."""
        self.operation.upgrade()
        ordered = self.operation.orderBackend("drain", "a:1")
        self.assertNoResult(ordered)
        self.successors[0].ready.callback(4711)
        reason = f"backend drain refused: process {os.getpid()} has taken over"
        self.assertEqual(self.refused(ordered), reason)
        self.assertEqual(list(self.generations.notices.held()), [])

    def test_orderAfterFailedUpgrade(self) -> None:
        """After a failed upgrade this process carries it out."""
        self.operation.upgrade()
        ordered = self.operation.orderBackend("drain", "a:1")
        self.successors[0].ready.errback(UpgradeError("it failed"))
        self.assertTrue(self.successResultOf(ordered).isUnknown)

    def test_reloadDuringUpgrade(self) -> None:
        """A reload waits for an upgrade, and after a success is passed on to the successor."""
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
        """After a failed upgrade this process reloads."""
        self.operation.upgrade()
        reloaded = self.operation.reload()
        self.successors[0].ready.errback(UpgradeError("no"))
        self.assertTrue(self.successResultOf(reloaded).done)
        self.assertEqual(self.generations.asked, ["reload"])

    def test_upgradeDuringReload(self) -> None:
        """An upgrade waits for a reload, so that it passes on the sockets of one configuration."""
        reloaded: Deferred[Sequence[str]] = Deferred()
        self.generations.reloaded = reloaded
        self.operation.reload()
        self.operation.upgrade()
        self.assertEqual(self.successors, [])
        reloaded.callback(())
        self.assertEqual(len(self.successors), 1)

    def test_endDuringUpgrade(self) -> None:
        """Drain and stop during an upgrade end the successor, too."""
        upgraded = self.operation.upgrade()
        self.operation.stop()
        self.assertEqual(self.successors[0].told, ["the gateway is shutting down"])
        self.assertIn("shutting down", self.refused(upgraded))
        self.assertEqual(self.generations.asked, ["stop"])

    def test_stopAfterUpgrade(self) -> None:
        """After an upgrade, drain and stop end this process only."""
        self.operation.upgrade()
        self.successors[0].ready.callback(4711)
        self.operation.stop()
        self.assertEqual(self.successors[0].told, ["go on"])
        self.assertEqual(self.generations.asked, ["retire", "stop"])
        self.assertEqual(self.systemd.told[-1], "main process: 4711")
