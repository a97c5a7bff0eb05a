"""
Tests for L{mailgate.process.workers.master} with fake zygotes. L{mailgate.test.integration.test_workers} uses real
ones.
"""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.logger import LogPublisher, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.limits.sharedtables import SharedTables
from mailgate.log.errorlog import ErrorLogs, ProcessLog
from mailgate.log.settings import ErrorLog
from mailgate.net.sockets import ListenError
from mailgate.process.interfaces import IGenerations
from mailgate.process.workers import master
from mailgate.process.workers.master import Master
from mailgate.process.workers.messages import Begin, Ended, Failed, Fork, Order, Ready, Retired, Started, Tell
from mailgate.process.workers.tables import TABLES
from mailgate.system.exitstatus import CANNOT_SERVE, CUT
from mailgate.test.integration.daemon import accepts, freePort
from mailgate.test.process.workers.test_generation import FakeProcess, FakeReactor

COUNT = 2


class Reactor(FakeReactor):
    """Records that the reactor was stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = 0

    def stop(self) -> None:
        self.stopped += 1


class MasterCase(SynchronousTestCase):
    """A master of two workers, with a fake reactor and a real socket."""

    def setUp(self):
        self.port, self.other = freePort(), freePort()
        self.path = os.path.abspath(self.mktemp())
        self.configure(self.port)
        self.reactor = Reactor()
        self.statuses: list[int] = []
        self.patch(master, "endWith", self.statuses.append)
        logs = ErrorLogs()
        with open(self.path, encoding="utf-8") as opened:
            text = opened.read()
        self.master = Master(parse(text, self.path), text, self.reactor, logs, ProcessLog(LogPublisher()))
        self.addCleanup(lambda: self.master.sockets.close())
        self.addCleanup(self.master._tables.close)

    def configure(self, *ports: int, more: str = "", workers: int = COUNT) -> None:
        listen = "".join(f"\n    127.0.0.1:{port}" for port in ports)
        text = f"[mailgate]\nworker_processes = {workers}\n[server imap]\nprotocol = imap\nproxy_pass = 127.0.0.1:9\n"
        with open(self.path, "w", encoding="utf-8") as opened:
            opened.write(f"{text}listen ={listen}\n{more}")

    def start(self):
        self.master.privilegedStartService()
        self.master.startService()
        self.addCleanup(lambda: self.master._watch.running and self.master._watch.stopService())
        zygote = self.reactor.comesUp(COUNT)
        zygote.takeHeard()
        return zygote

    def reload(self) -> list[str]:
        """Reload; return the messages that are logged immediately."""
        with capturedLogs() as events:
            self.reloaded = self.master.reload()
        return [formatEvent(event) for event in events]


class StartTests(MasterCase):
    """The start of a master."""

    def test_interface(self):
        """The class provides L{IGenerations}."""
        verifyObject(IGenerations, self.master)

    def test_bound(self):
        """Ports are bound and the zygote is started with the privileges of the start; workers are forked later."""
        self.master.privilegedStartService()
        self.assertTrue(accepts(self.port))
        self.reactor.comesUp(0)
        (begin,) = self.reactor.processes[0].takeHeard()
        self.assertEqual(list(begin.sockets), [f"127.0.0.1:{self.port}", TABLES])
        self.master.startService()
        self.addCleanup(self.master._watch.stopService)
        self.assertEqual(self.reactor.processes[0].takeHeard(), [Fork(0), Fork(1)])

    def test_taken(self):
        """If a port is in use, no process is started."""
        self.configure(self.port)
        first = self.master
        first.privilegedStartService()
        second = Master(first.settings, "", self.reactor, ErrorLogs(), ProcessLog(LogPublisher()))
        self.assertRaises(ListenError, second.privilegedStartService)
        self.assertEqual(len(self.reactor.processes), 1)

    def test_noProcess(self):
        """The start fails with the system's reason if it starts no process."""

        def spawnProcess(*arguments: object, **named: object) -> None:
            raise OSError(11, "Resource temporarily unavailable")

        self.reactor.spawnProcess = spawnProcess
        error = self.assertRaises(ConfigurationError, self.master.privilegedStartService)
        self.assertIn("Resource temporarily unavailable", str(error))

    def test_whenReady(self):
        """C{whenReady} fires when the first generation serves, and immediately afterwards."""
        ready = self.master.whenReady()
        self.master.privilegedStartService()
        self.assertNoResult(ready)
        self.start()
        self.assertIsNone(self.successResultOf(ready))
        self.assertIsNone(self.successResultOf(self.master.whenReady()))

    def test_notUp(self):
        """If the first generation does not start, the process exits with a status for that."""
        ready = self.master.whenReady()
        self.master.privilegedStartService()
        self.master.startService()
        self.addCleanup(self.master._watch.stopService)
        with capturedLogs() as events:
            self.reactor.processes[0].says(Failed("a: b"))
            self.reactor.processes[0].exits()
        self.assertEqual([formatEvent(event) for event in events], ["the workers did not start: a: b"])
        self.assertEqual(str(self.failureResultOf(ready).value), "a: b")
        self.assertEqual((self.reactor.stopped, self.statuses), (1, [CANNOT_SERVE]))


class ColumnsTests(MasterCase):
    """The columns of workers in the memory that counts for limits."""

    def columns(self) -> tuple[int, ...]:
        """Return those of the last generation, which is not up yet."""
        heard = self.reactor.processes[-1].takeHeard()
        self.assertIsInstance(heard[0], Begin)
        columns: tuple[int, ...] = heard[0].columns
        return columns

    def reloadedColumns(self) -> tuple[int, ...]:
        self.reload()
        columns = self.columns()
        self.reactor.comesUp(COUNT)
        return columns

    def test_generations(self):
        """
        Workers of two generations have the same memory and different columns. A column is free when its worker has
        exited for good; a worker that is started anew keeps it.
        """
        self.master.privilegedStartService()
        first = self.columns()
        old = self.start()
        old.says(Ended(1, 2001, 1, 0))
        old.says(Started(1, 2005), Ready(1))
        second = self.reloadedColumns()
        self.assertEqual(len({*first, *second}), 4)
        memories = [spawned["childFDs"][7] for spawned in self.reactor.spawned]
        self.assertEqual(memories[0], memories[1])
        old.says(Ended(0, 2000, 0, 0))
        later = {column for _ in range(2) for column in self.reloadedColumns()}
        # 8 columns: one worker of the first generation is left, and all of the three others.
        self.assertEqual(len(later), 4)
        self.assertFalse(later & {first[1], *second})
        self.assertEqual(self.reloadedColumns(), (first[0],))

    def test_orphans(self):
        """The column of a worker whose zygote has died is cleared and free when the worker has exited, not earlier."""
        self.master.privilegedStartService()
        first = self.columns()
        zygote = self.start()
        orphans: list[FakeOrphan] = []

        def orphan(reactor: object, pid: int, within: object) -> FakeOrphan:
            if pid == 2001:
                raise ProcessLookupError(3, "No such process")
            orphans.append(FakeOrphan(pid))
            return orphans[-1]

        self.patch(master, "Orphan", orphan)
        memory = SharedTables(self.master._tables.descriptors[TABLES])
        self.addCleanup(memory.close)
        for column in first:
            shown = memory.counts(column).column
            assert shown is not None
            shown.show(b"a", 1)
        zygote.exits(ProcessTerminated(signal=9))
        self.assertEqual(memory.counts(7).total(b"a", 0), 1)
        self.assertNotIn(first[0], self.master._tables._free)
        self.assertIn(first[1], self.master._tables._free)
        orphans[0].ended.callback(None)
        self.assertEqual(memory.counts(7).total(b"a", 0), 0)
        self.assertIn(first[0], self.master._tables._free)


class FakeOrphan:
    """An orphan that ends when the test says so."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended: Deferred[None] = Deferred()


class ReloadTests(MasterCase):
    """One generation after the other."""

    def test_replaced(self):
        """The old generation is retired when the new one is ready, not before; the sockets stay the same."""
        old = self.start()
        self.reload()
        self.assertNoResult(self.reloaded)
        self.assertEqual(old.takeHeard(), [])
        self.assertEqual(self.reactor.spawned[1]["childFDs"][6], self.reactor.spawned[0]["childFDs"][6])
        self.reactor.comesUp(COUNT)
        self.successResultOf(self.reloaded)
        self.assertEqual(old.takeHeard(), [Tell(Order.RETIRE)])
        self.assertTrue(accepts(self.port))

    def test_retired(self):
        """A reload is done when the old generation has stopped accepting: later clients reach the new one."""
        old = self.start()
        old.retires = False
        self.reload()
        self.reactor.comesUp(COUNT)
        self.assertEqual(old.takeHeard(), [Tell(Order.RETIRE)])
        for slot in range(COUNT):
            self.assertNoResult(self.reloaded)
            old.says(Retired(slot))
        self.successResultOf(self.reloaded)

    def test_listeners(self):
        """A new port is bound at once; a removed port is closed when no generation uses it."""
        self.start()
        self.configure(self.other)
        self.reload()
        self.assertTrue(accepts(self.port) and accepts(self.other))
        self.reactor.comesUp(COUNT)
        self.assertFalse(accepts(self.port))
        self.assertTrue(accepts(self.other))

    def test_bad(self):
        """A configuration with errors starts no process."""
        old = self.start()
        self.configure(self.other, more="usr = x\n")
        logged = self.reload()
        self.assertIn("usr: is an unknown option", logged[0])
        self.assertEqual(logged[-1], "reload refused: the current configuration stays active")
        self.successResultOf(self.reloaded)
        self.assertEqual((len(self.reactor.processes), old.takeHeard()), (1, []))
        self.assertFalse(accepts(self.other))

    def test_notUp(self):
        """A new generation whose workers die is given up: its sockets are closed, and the old generation stays."""
        old = self.start()
        self.configure(self.other)
        self.reload()
        new = self.reactor.comesUp(1)
        with capturedLogs() as events:
            new.says(Ended(0, 2000, 71, 0))
            new.exits()
        self.assertIn("reload refused: worker 2000 exited with status 71", [formatEvent(event) for event in events])
        self.successResultOf(self.reloaded)
        self.assertEqual(old.takeHeard(), [])
        self.assertTrue(accepts(self.port))
        self.assertFalse(accepts(self.other))
        self.assertEqual(self.reactor.stopped, 0)

    def test_oneByOne(self):
        """A second reload begins when the first is done."""
        self.start()
        self.reload()
        first = self.reloaded
        self.reload()
        self.assertEqual(len(self.reactor.processes), 2)
        self.reactor.comesUp(COUNT)
        self.successResultOf(first)
        self.assertEqual(len(self.reactor.processes), 3)
        self.reactor.comesUp(COUNT)
        self.successResultOf(self.reloaded)

    def test_early(self):
        """A reload before the first generation is ready waits for it."""
        self.master.privilegedStartService()
        self.master.startService()
        self.addCleanup(self.master._watch.stopService)
        self.reload()
        self.assertEqual(len(self.reactor.processes), 1)
        self.reactor.comesUp(COUNT)
        self.assertEqual(len(self.reactor.processes), 2)

    def test_ending(self):
        """During the shutdown reloads are refused, and a reload in progress does not become active."""
        self.start()
        self.reload()
        self.master.stop()
        new = self.reactor.processes[1]
        self.assertIn(Tell(Order.STOP), new.takeHeard())
        new.exits()
        self.successResultOf(self.reloaded)
        self.assertEqual(self.reload(), ["reload refused: the gateway is shutting down"])
        self.assertEqual(len(self.reactor.processes), 2)
        self.assertFalse(accepts(self.port))


class ZygoteTests(MasterCase):
    """A zygote that dies."""

    def die(self, zygote: FakeProcess) -> None:
        zygote.says(*(Ended(slot, 2000 + slot, 0, 0) for slot in range(COUNT)))
        zygote.exits(ProcessTerminated(signal=9))

    def test_replaced(self):
        """A new generation of the same settings serves on the same sockets."""
        self.die(self.start())
        self.reactor.advance(0)
        self.reactor.comesUp(COUNT)
        self.assertEqual(len(self.reactor.processes), 2)
        self.assertTrue(accepts(self.port))

    def test_backOff(self):
        """Replacements that do not start, or die, are replaced after growing delays; the sockets stay open."""
        self.die(self.start())
        for number, delay in enumerate((0, 1, 2, 4), 2):
            self.reactor.advance(delay)
            self.assertEqual(len(self.reactor.processes), number)
            self.reactor.processes[-1].exits(ProcessTerminated(signal=9))
            self.assertTrue(accepts(self.port))

    def test_backOffAfterLongLife(self):
        """The delays also grow if the dead generation had run for long."""
        zygote = self.start()
        self.reactor.advance(3600)
        self.die(zygote)
        for number, delay in enumerate((0, 1, 2, 4), 2):
            self.reactor.advance(delay)
            self.assertEqual(len(self.reactor.processes), number)
            self.reactor.processes[-1].exits(ProcessTerminated(signal=9))

    def test_reloaded(self):
        """A reload during the delay replaces the dead generation."""
        self.die(self.start())
        self.reload()
        self.reactor.comesUp(COUNT)
        self.successResultOf(self.reloaded)
        self.reactor.advance(10)
        self.assertEqual(len(self.reactor.processes), 2)

    def test_ending(self):
        """During the shutdown a dead zygote is not replaced."""
        zygote = self.start()
        self.master.drain()
        self.die(zygote)
        self.reactor.advance(100)
        self.assertEqual(len(self.reactor.processes), 1)


class EndTests(MasterCase):
    """Drain and stop."""

    def test_drain(self):
        """All generations drain, the sockets are closed, and the result is the number of cut sessions."""
        old = self.start()
        self.reload()
        new = self.reactor.comesUp(COUNT)
        old.takeHeard()
        new.takeHeard()
        ended = self.master.drain()
        for zygote in (old, new):
            self.assertEqual(zygote.takeHeard(), [Tell(Order.DRAIN)])
        self.assertFalse(accepts(self.port))
        old.says(Ended(0, 2000, 75, 2), Ended(1, 2001, 0, 0))
        old.exits()
        self.assertNoResult(ended)
        new.says(Ended(0, 2000, 0, 0), Ended(1, 2001, 75, 3))
        new.exits()
        self.assertEqual(self.successResultOf(ended), 5)
        self.assertEqual(self.master.cut, 5)

    def test_stop(self):
        """A stop ends a drain. A second stop also fires its Deferred, and all cut sessions are counted."""
        zygote = self.start()
        drained = self.master.drain()
        stopped = self.master.stop()
        self.assertEqual(zygote.takeHeard(), [Tell(Order.DRAIN), Tell(Order.STOP)])
        again = self.master.stop()
        self.assertEqual(zygote.takeHeard(), [Tell(Order.STOP)])
        zygote.says(*(Ended(slot, 2000 + slot, CUT, 1) for slot in range(COUNT)))
        zygote.exits()
        for ended in (drained, stopped, again):
            self.assertEqual(self.successResultOf(ended), COUNT)

    def test_service(self):
        """Stopping the service stops all generations."""
        zygote = self.start()
        stopped = self.master.stopService()
        self.assertEqual(zygote.takeHeard(), [Tell(Order.STOP)])
        self.assertNoResult(stopped)
        zygote.exits()
        self.successResultOf(stopped)

    def test_reopen(self):
        """All workers open their log files again."""
        zygote = self.start()
        self.master.reopen()
        self.assertEqual(zygote.takeHeard(), [Tell(Order.REOPEN)])

    def test_reopenRefused(self):
        """A log file that cannot be opened is reported, without a report of success; workers still open theirs."""
        zygote = self.start()
        self.assertEqual(self.reopening(), [])
        self.master._logs.observer([ErrorLog(os.path.abspath(self.mktemp()))])
        self.assertIn("log files reopened", self.reopening())
        self.patch(self.master._logs, "reopen", lambda owner: iter(["cannot reopen x.log"]))
        zygote.takeHeard()
        told = self.reopening()
        self.assertIn("cannot reopen x.log", told)
        self.assertNotIn("log files reopened", told)
        self.assertEqual(zygote.takeHeard(), [Tell(Order.REOPEN)])

    def reopening(self):
        """Return the messages that reopening the log files logs."""
        with capturedLogs() as events:
            self.master.reopen()
        return [formatEvent(event) for event in events]
