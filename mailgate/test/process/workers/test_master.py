"""
Tests for L{mailgate.process.workers.master}, before fake zygotes. What real ones do
L{mailgate.test.integration.test_workers} tells.
"""

from __future__ import annotations

import os

from twisted.internet.error import ProcessTerminated
from twisted.logger import LogPublisher, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.log.errorlog import ErrorLogs, ProcessLog
from mailgate.log.settings import ErrorLog
from mailgate.net.sockets import ListenError
from mailgate.process.interfaces import IGenerations
from mailgate.process.workers import master
from mailgate.process.workers.master import Master
from mailgate.process.workers.messages import Ended, Failed, Fork, Order, Retired, Tell
from mailgate.system.exitstatus import CANNOT_SERVE, CUT
from mailgate.test.integration.daemon import accepts, freePort
from mailgate.test.process.workers.test_generation import FakeProcess, FakeReactor

COUNT = 2


class Reactor(FakeReactor):
    """And the end."""

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
        """Ask for it; gives what is logged at once."""
        with capturedLogs() as events:
            self.reloaded = self.master.reload()
        return [formatEvent(event) for event in events]


class StartTests(MasterCase):
    """How it begins."""

    def test_interface(self):
        """It does what signals ask for."""
        verifyObject(IGenerations, self.master)

    def test_bound(self):
        """Ports are bound, and the zygote is started, while it has its privileges; workers are asked for after that."""
        self.master.privilegedStartService()
        self.assertTrue(accepts(self.port))
        self.reactor.comesUp(0)
        (begin,) = self.reactor.processes[0].takeHeard()
        self.assertEqual(list(begin.sockets), [f"127.0.0.1:{self.port}"])
        self.master.startService()
        self.addCleanup(self.master._watch.stopService)
        self.assertEqual(self.reactor.processes[0].takeHeard(), [Fork(0), Fork(1)])

    def test_taken(self):
        """Where a port is taken nothing is started."""
        self.configure(self.port)
        first = self.master
        first.privilegedStartService()
        second = Master(first.settings, "", self.reactor, ErrorLogs(), ProcessLog(LogPublisher()))
        self.assertRaises(ListenError, second.privilegedStartService)
        self.assertEqual(len(self.reactor.processes), 1)

    def test_noProcess(self):
        """Where the system starts no process, that is why it cannot start."""

        def spawnProcess(*arguments: object, **named: object) -> None:
            raise OSError(11, "Resource temporarily unavailable")

        self.reactor.spawnProcess = spawnProcess
        error = self.assertRaises(ConfigurationError, self.master.privilegedStartService)
        self.assertIn("Resource temporarily unavailable", str(error))

    def test_whenReady(self):
        """Whoever wants to know when the first generation serves is told, later too."""
        ready = self.master.whenReady()
        self.master.privilegedStartService()
        self.assertNoResult(ready)
        self.start()
        self.assertIsNone(self.successResultOf(ready))
        self.assertIsNone(self.successResultOf(self.master.whenReady()))

    def test_notUp(self):
        """When the first generation does not come up the process ends, and its status says so."""
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


class ReloadTests(MasterCase):
    """One generation after the other."""

    def test_replaced(self):
        """The old one retires when the new one is ready, and not before; the sockets are the same."""
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
        """It is not done before the old one lets nobody in any more: who connects then is served by the new one."""
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
        """A port that is new is bound at once, one that is gone is closed when nobody serves it."""
        self.start()
        self.configure(self.other)
        self.reload()
        self.assertTrue(accepts(self.port) and accepts(self.other))
        self.reactor.comesUp(COUNT)
        self.assertFalse(accepts(self.port))
        self.assertTrue(accepts(self.other))

    def test_bad(self):
        """A faulty configuration starts nothing."""
        old = self.start()
        self.configure(self.other, more="usr = x\n")
        logged = self.reload()
        self.assertIn("usr: is no known option", logged[0])
        self.assertEqual(logged[-1], "reload refused: the current configuration stays active")
        self.successResultOf(self.reloaded)
        self.assertEqual((len(self.reactor.processes), old.takeHeard()), (1, []))
        self.assertFalse(accepts(self.other))

    def test_notUp(self):
        """One whose workers die at once is given up: what it bound is closed, and the old one goes on."""
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
        """A second one begins when the first is done."""
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
        """One that is asked for before the first generation is ready waits for it."""
        self.master.privilegedStartService()
        self.master.startService()
        self.addCleanup(self.master._watch.stopService)
        self.reload()
        self.assertEqual(len(self.reactor.processes), 1)
        self.reactor.comesUp(COUNT)
        self.assertEqual(len(self.reactor.processes), 2)

    def test_ending(self):
        """While it ends nothing is reloaded, nor is what is under way put into force."""
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
        """Those that do not come up, or die again, are replaced ever more slowly; the sockets stay."""
        self.die(self.start())
        for number, delay in enumerate((0, 1, 2, 4), 2):
            self.reactor.advance(delay)
            self.assertEqual(len(self.reactor.processes), number)
            self.reactor.processes[-1].exits(ProcessTerminated(signal=9))
            self.assertTrue(accepts(self.port))

    def test_backOffAfterLongLife(self):
        """However long the dead one has lived, those that do not come up after it are replaced ever more slowly."""
        zygote = self.start()
        self.reactor.advance(3600)
        self.die(zygote)
        for number, delay in enumerate((0, 1, 2, 4), 2):
            self.reactor.advance(delay)
            self.assertEqual(len(self.reactor.processes), number)
            self.reactor.processes[-1].exits(ProcessTerminated(signal=9))

    def test_reloaded(self):
        """A reload that is quicker takes its place."""
        self.die(self.start())
        self.reload()
        self.reactor.comesUp(COUNT)
        self.successResultOf(self.reloaded)
        self.reactor.advance(10)
        self.assertEqual(len(self.reactor.processes), 2)

    def test_ending(self):
        """At the end none is replaced."""
        zygote = self.start()
        self.master.drain()
        self.die(zygote)
        self.reactor.advance(100)
        self.assertEqual(len(self.reactor.processes), 1)


class EndTests(MasterCase):
    """Drain and stop."""

    def test_drain(self):
        """All generations drain, nobody listens, and in the end it is known how many sessions were cut."""
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
        """A stop ends a drain; a second stop is told as well, and those whom it cuts are counted."""
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
        """The end of the service stops whatever is left."""
        zygote = self.start()
        stopped = self.master.stopService()
        self.assertEqual(zygote.takeHeard(), [Tell(Order.STOP)])
        self.assertNoResult(stopped)
        zygote.exits()
        self.successResultOf(stopped)

    def test_reopen(self):
        """Every worker opens its logs anew."""
        zygote = self.start()
        self.master.reopen()
        self.assertEqual(zygote.takeHeard(), [Tell(Order.REOPEN)])

    def test_reopenRefused(self):
        """A log that cannot be opened is reported, and nothing says that all are open again; workers try as well."""
        zygote = self.start()
        self.assertEqual(self.reopening(), [])
        self.master._logs.observer([ErrorLog(os.path.abspath(self.mktemp()))])
        self.assertIn("log files reopened", self.reopening())
        self.patch(self.master._logs, "reopen", lambda owner: iter(["x.log cannot be opened again"]))
        zygote.takeHeard()
        told = self.reopening()
        self.assertIn("x.log cannot be opened again", told)
        self.assertNotIn("log files reopened", told)
        self.assertEqual(zygote.takeHeard(), [Tell(Order.REOPEN)])

    def reopening(self):
        """What is logged when the logs are opened again."""
        with capturedLogs() as events:
            self.master.reopen()
        return [formatEvent(event) for event in events]
