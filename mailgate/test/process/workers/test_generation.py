"""
Tests for L{mailgate.process.workers.generation}.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailgate.process.reloading import GenerationError
from mailgate.process.workers.environment import environmentOf
from mailgate.process.workers.generation import (
    DRAINED_WITHIN,
    RETIRED_WITHIN,
    STOPPED_WITHIN,
    Generation,
)
from mailgate.process.workers.messages import (
    Become,
    Begin,
    Ended,
    Failed,
    Fork,
    Kill,
    Lines,
    Loaded,
    Message,
    Order,
    Ready,
    Retired,
    Started,
    Tell,
    encode,
)
from mailgate.system.exitstatus import howItEnded
from mailgate.system.lastwords import LastWords

ZYGOTE = 1000


@implementer(IProcessTransport)
class FakeProcess(StringTransport):
    """A zygote that records the messages and signals that it receives."""

    pid = ZYGOTE
    retires = True
    """Whether its workers confirm immediately that they stopped accepting."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self.heard: list[Message] = []
        self.signals: list[str | int] = []
        self.workers: set[int] = set()
        self._lines = Lines()

    pipes = True
    """Whether its pipes are open."""

    def writeToChild(self, childFD: int, data: bytes) -> None:
        assert childFD == 3
        if not self.pipes:
            # As Twisted's transport does.
            raise KeyError(childFD)
        messages = self._lines.feed(data)
        self.heard += messages
        if self.retires and Tell(Order.RETIRE) in messages:
            self.says(*(Retired(slot) for slot in sorted(self.workers)))

    def signalProcess(self, signalID: str | int) -> None:
        self.signals.append(signalID)

    def closeChildFD(self, descriptor: int) -> None:
        raise NotImplementedError

    def closeStdin(self) -> None:
        raise NotImplementedError

    def closeStdout(self) -> None:
        raise NotImplementedError

    def closeStderr(self) -> None:
        raise NotImplementedError

    def says(self, *messages: Message) -> None:
        """Report messages to the generation."""
        self.workers |= {message.slot for message in messages if isinstance(message, Started)}
        self.workers -= {message.slot for message in messages if isinstance(message, Ended)}
        self.protocol.childDataReceived(4, b"".join(map(encode, messages)))

    def exits(self, reason: Exception | None = None) -> None:
        """Exit."""
        self.protocol.processEnded(Failure(reason or ProcessDone(0)))

    def takeHeard(self) -> list[Message]:
        """Return the messages since the last call."""
        heard, self.heard = self.heard, []
        return heard


class FakeReactor(Clock):
    """A clock that starts fake zygotes."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[FakeProcess] = []
        self.spawned: list[dict[str, Any]] = []

    def spawnProcess(self, protocol: Any, executable: str, args: Any, **others: Any) -> FakeProcess:
        process = FakeProcess(protocol)
        self.processes.append(process)
        self.spawned.append({"executable": executable, "args": args, **others})
        protocol.makeConnection(process)
        return process

    def comesUp(self, count: int) -> FakeProcess:
        """Let the last zygote load, and its workers be ready."""
        process = self.processes[-1]
        process.says(Loaded())
        for slot in range(count):
            process.says(Started(slot, 2000 + slot), Ready(slot))
        return process


class WordsTests(SynchronousTestCase):
    """The end of a process in words."""

    def test_words(self):
        """The words have the exit status, the name of the signal, or its number if it has no name."""
        for status, words in (
            (0, "exited with status 0"),
            (-9, "was killed by SIGKILL"),
            (-99, "was killed by signal 99"),
        ):
            self.assertEqual(howItEnded(status), words)


class EnvironmentTests(SynchronousTestCase):
    """The environment of a zygote."""

    def test_paths(self):
        """Paths of modules do not depend on the working directory of the zygote."""
        environment = environmentOf({"PYTHONPATH": os.pathsep.join([".", "/x"]), "HOME": "/h"})
        self.assertEqual(environment, {"PYTHONPATH": os.pathsep.join([os.getcwd(), "/x"]), "HOME": "/h"})

    def test_systemd(self):
        """Variables of systemd are not passed on."""
        self.assertEqual(environmentOf({"NOTIFY_SOCKET": "/run/x", "LISTEN_FDS": "1", "LISTEN_PID": "7"}), {})


class FakeTests(SynchronousTestCase):
    """The fake transport."""

    def test_process(self):
        """The fake provides the interface of a process transport."""
        verifyObject(IProcessTransport, FakeProcess(None))


KEY = bytes(range(32))


class GenerationCase(SynchronousTestCase):
    """A generation of two workers with a fake zygote."""

    root = False
    patience: float | None = None

    def setUp(self):
        self.reactor = FakeReactor()
        self.patch(os, "geteuid", lambda: 0 if self.root else 1000)
        self.lost: list[Generation] = []
        self.generation = Generation(
            self.reactor,
            Begin("x.ini", "text", {}, KEY.hex()),
            {"127.0.0.1:143": 17},
            2,
            {"A": "b"},
            self.patience,
            self.lost.append,
        )
        self.generation.start()
        self.zygote = self.reactor.processes[0]

    def up(self) -> None:
        self.generation.fork()
        self.reactor.comesUp(2)
        self.zygote.takeHeard()

    def logged(self, act: Any) -> list[str]:
        with capturedLogs() as events:
            act()
        return [formatEvent(event) for event in events]


class StartTests(GenerationCase):
    """The start of a generation."""

    def test_spawned(self):
        """The zygote runs the same Python, and inherits its channels and the sockets."""
        (spawned,) = self.reactor.spawned
        self.assertEqual(spawned["args"][1:], ["-m", "mailgate.process.workers.zygote"])
        self.assertEqual(spawned["childFDs"], {0: 0, 1: 1, 2: "r", 3: "w", 4: "r", 5: 2, 6: 17})
        self.assertEqual(spawned["env"], {"A": "b"})
        self.assertTrue(os.path.isdir(os.path.join(spawned["path"], "mailgate")))
        self.assertEqual(self.zygote.heard, [Begin("x.ini", "text", {"127.0.0.1:143": 6}, KEY.hex())])

    def test_ready(self):
        """
        The generation is ready when the zygote has loaded and all workers are ready; workers are forked once master and
        zygote are ready for that.
        """
        self.zygote.takeHeard()
        self.zygote.says(Loaded())
        self.assertEqual(self.zygote.takeHeard(), [])
        self.generation.fork()
        self.assertEqual(self.zygote.takeHeard(), [Fork(0), Fork(1)])
        self.zygote.says(Started(0, 11), Ready(0), Started(1, 12))
        self.assertNoResult(self.generation.ready)
        self.zygote.says(Ready(1))
        self.successResultOf(self.generation.ready)
        self.assertEqual(self.generation.workers, [11, 12])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_gone(self):
        """An order to a zygote that has closed its pipe, and whose exit was not reported yet, raises nothing."""
        self.reactor.comesUp(2)
        self.zygote.pipes = False
        for order in (Order.REOPEN, Order.STOP):
            self.generation.tell(order)
        self.zygote.exits()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_forkFirst(self):
        """The order of the two conditions does not matter."""
        self.zygote.takeHeard()
        self.generation.fork()
        self.assertEqual(self.zygote.takeHeard(), [])
        self.zygote.says(Loaded())
        self.assertEqual(self.zygote.takeHeard(), [Fork(0), Fork(1)])

    def failsWith(self, text: str) -> None:
        self.assertNoResult(self.generation.ready)
        self.zygote.exits()
        failure = self.failureResultOf(self.generation.ready, GenerationError)
        self.assertIn(text, str(failure.value))
        self.assertEqual(self.lost, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_failed(self):
        """The reason of a zygote that cannot use the configuration is reported."""
        self.zygote.says(Failed("gateway.ini: bad"))
        self.failsWith("gateway.ini: bad")

    def test_workerDies(self):
        """A worker that dies during the start is not replaced: the other workers are stopped, and the start fails."""
        self.generation.fork()
        self.zygote.says(Loaded(), Started(0, 11), Started(1, 12), Ready(0))
        self.zygote.takeHeard()
        self.zygote.says(Ended(1, 12, 71, 0))
        self.assertEqual(self.zygote.takeHeard(), [Tell(Order.STOP)])
        self.zygote.says(Ended(0, 11, 0, 0))
        self.failsWith("worker 12 exited with status 71")

    def test_workerSlow(self):
        """A worker that is not ready within half a minute is killed."""
        self.generation.fork()
        self.zygote.says(Loaded(), Started(0, 11), Started(1, 12), Ready(0))
        self.zygote.takeHeard()
        logged = self.logged(lambda: self.reactor.advance(30))
        self.assertEqual(logged, ["worker 12 was not ready within 30 s"])
        self.assertEqual(self.zygote.takeHeard(), [Kill(1), Tell(Order.STOP)])
        self.zygote.says(Ended(1, 12, -9, 0), Ended(0, 11, 0, 0))
        self.failsWith("a worker was not ready in time")

    def test_zygoteHangs(self):
        """A zygote that loads and does not fork is killed."""
        self.generation.fork()
        self.zygote.says(Loaded())
        self.logged(lambda: self.reactor.advance(30))
        self.assertIn("KILL", self.zygote.signals)
        self.failsWith("a worker was not ready in time")

    def test_zygoteSlow(self):
        """A zygote that does not load in time is ordered to stop, and is killed if it does not exit."""
        self.zygote.takeHeard()
        self.reactor.advance(30)
        self.assertEqual(self.zygote.takeHeard(), [Tell(Order.STOP)])
        self.reactor.pump([10, 10])
        self.assertEqual(self.zygote.signals, ["KILL"])
        self.failsWith("the zygote was not ready in time")

    def test_zygoteDies(self):
        """The start fails if the zygote dies."""
        self.assertNoResult(self.generation.ready)
        self.zygote.exits(ProcessTerminated(signal=11))
        failure = self.failureResultOf(self.generation.ready, GenerationError)
        self.assertEqual(str(failure.value), "the zygote was killed by SIGSEGV")

    def test_lastWords(self):
        """The last line of the zygote's standard error is the reason."""
        self.generation._words = LastWords(os.open(os.devnull, os.O_WRONLY))
        self.addCleanup(os.close, self.generation._words._descriptor)
        self.zygote.protocol.childDataReceived(2, b"Traceback (most recent call last):\nOSError: no ")
        self.zygote.protocol.childDataReceived(2, b"memory\n")
        self.zygote.exits(ProcessTerminated(exitCode=1))
        failure = self.failureResultOf(self.generation.ready, GenerationError)
        self.assertEqual(str(failure.value), "the zygote exited with status 1: OSError: no memory")

    def test_nonsense(self):
        """A zygote that sends an invalid message is killed."""
        for message in (Ready(7), Tell(Order.STOP), Fork(1)):
            self.logged(lambda message=message: self.zygote.says(message))
        self.assertEqual(self.zygote.signals, ["KILL"] * 3)
        self.failsWith("the zygote sent an invalid message; if another mailgate is installed now, run mailgate upgrade")


class RightsTests(GenerationCase):
    """twistd's C{--uid}."""

    root = True

    def test_shed(self):
        """
        If the master changed from root to another user, it makes the zygote change too, before the workers are forked.
        """
        self.zygote.takeHeard()
        self.zygote.says(Loaded())
        self.root = False
        self.patch(os, "getegid", lambda: 8)
        self.patch(os, "getgroups", lambda: [8, 9])
        self.generation.fork()
        self.assertEqual(self.zygote.takeHeard(), [Become(1000, 8, (8, 9)), Fork(0), Fork(1)])

    def test_root(self):
        """A master that stays root has zygotes that stay root."""
        self.zygote.takeHeard()
        self.zygote.says(Loaded())
        self.generation.fork()
        self.assertEqual(self.zygote.takeHeard(), [Fork(0), Fork(1)])


class ServingTests(GenerationCase):
    """A generation whose workers serve."""

    def setUp(self):
        super().setUp()
        self.up()

    def test_replaced(self):
        """A worker that dies is replaced immediately, and the log names it and its exit status."""
        logged = self.logged(lambda: self.zygote.says(Ended(1, 2001, -9, 0)))
        self.assertEqual(logged, ["worker 2001 was killed by SIGKILL; starting another now"])
        self.reactor.advance(0)
        self.assertEqual(self.zygote.takeHeard(), [Fork(1)])

    def test_backOff(self):
        """A worker that keeps dying is replaced after growing delays; the other worker is not affected."""
        for delay in (0, 1, 2, 4):
            self.zygote.says(Ended(1, 2001, 1, 0))
            if delay:
                self.reactor.advance(delay - 0.1)
                self.assertEqual(self.zygote.takeHeard(), [])
            self.reactor.advance(0.1)
            self.assertEqual(self.zygote.takeHeard(), [Fork(1)])
            self.zygote.says(Started(1, 2001), Ready(1))
        self.zygote.says(Ended(0, 2000, 1, 0))
        self.reactor.advance(0)
        self.assertEqual(self.zygote.takeHeard(), [Fork(0)])

    def test_slowReplacement(self):
        """A new worker that is not ready in time is killed and replaced."""
        self.zygote.says(Ended(1, 2001, 1, 0))
        self.reactor.advance(0)
        self.zygote.says(Started(1, 2009))
        self.zygote.takeHeard()
        self.reactor.advance(30)
        self.assertEqual(self.zygote.takeHeard(), [Kill(1)])
        self.zygote.says(Ended(1, 2009, -9, 0))
        self.reactor.advance(1)
        self.assertEqual(self.zygote.takeHeard(), [Fork(1)])

    def test_zygoteDies(self):
        """The death of the zygote is reported once; no more workers are forked."""
        self.zygote.says(Ended(1, 2001, 1, 0))
        logged = self.logged(lambda: self.zygote.exits(ProcessTerminated(signal=9)))
        self.assertEqual(logged, ["zygote 1000 was killed by SIGKILL; its workers are draining"])
        self.assertEqual(self.lost, [self.generation])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_told(self):
        """Each order is sent to the zygote."""
        orders = (Order.REOPEN, Order.RETIRE, Order.DRAIN, Order.STOP)
        for order in orders:
            self.generation.tell(order)
        self.assertEqual(self.zygote.takeHeard(), [Tell(order) for order in orders])

    def test_retire(self):
        """C{retire} is done when each worker has confirmed that it stopped accepting, or has exited."""
        self.zygote.retires = False
        retired = self.generation.retire()
        self.assertEqual(self.zygote.takeHeard(), [Tell(Order.RETIRE)])
        self.zygote.says(Retired(0))
        self.assertNoResult(retired)
        self.zygote.says(Ended(1, 2001, 0, 0))
        self.assertIsNone(self.successResultOf(retired))

    def test_retireWithoutZygote(self):
        """C{retire} is done when the zygote has died, because no confirmation can arrive then."""
        self.zygote.retires = False
        retired = self.generation.retire()
        self.logged(self.zygote.exits)
        self.assertIsNone(self.successResultOf(retired))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_retireLater(self):
        """C{retire} is done immediately if the zygote died before."""
        self.logged(self.zygote.exits)
        self.assertIsNone(self.successResultOf(self.generation.retire()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_retireHangs(self):
        """C{retire} waits only a moment for a confirmation, and logs that it is missing."""
        self.zygote.retires = False
        retired = self.generation.retire()
        self.zygote.says(Retired(1))
        logged = self.logged(lambda: self.reactor.advance(RETIRED_WITHIN))
        self.assertEqual(logged, ["1 old workers have not confirmed that they stopped accepting"])
        self.assertIsNone(self.successResultOf(retired))
        self.zygote.says(Retired(0))

    def test_leaving(self):
        """
        Workers that exit after an order are not replaced. At the end all Deferreds fire with the number of cut
        sessions.
        """
        first = self.generation.whenEnded()
        self.generation.tell(Order.DRAIN)
        self.zygote.takeHeard()
        self.zygote.says(Ended(0, 2000, 75, 3), Ended(1, 2001, 75, 2))
        self.reactor.advance(100)
        self.assertEqual(self.zygote.takeHeard(), [])
        self.assertNoResult(first)
        self.zygote.exits()
        self.assertEqual(self.successResultOf(first), 5)
        self.assertEqual(self.successResultOf(self.generation.whenEnded()), 5)
        self.assertEqual(self.lost, [])

    def test_notForked(self):
        """If the system refuses to fork, the generation tries again, and logs the system's reason."""
        logged = self.logged(lambda: self.zygote.says(Ended(0, 2000, -9, 0), Ended(0, 0, 11, 0)))
        self.assertEqual(
            logged,
            [
                "worker 2000 was killed by SIGKILL; starting another now",
                "cannot fork a worker: Resource temporarily unavailable; starting another in 1 s",
            ],
        )

    def test_killed(self):
        """Workers that do not stop are killed; draining workers have no deadline without C{worker_shutdown_timeout}."""
        self.generation.tell(Order.DRAIN)
        self.reactor.advance(3600)
        self.generation.tell(Order.STOP)
        self.zygote.says(Ended(0, 2000, 0, 0))
        self.zygote.takeHeard()
        self.reactor.advance(10)
        self.assertEqual(self.zygote.takeHeard(), [Kill(1)])

    def test_impatience(self):
        """A repeated order does not extend the deadline."""
        self.generation.tell(Order.STOP)
        self.reactor.advance(6)
        self.generation.tell(Order.STOP)
        self.zygote.takeHeard()
        self.reactor.advance(4)
        self.assertEqual(self.zygote.takeHeard(), [Kill(0), Kill(1)])

    def test_killedCounts(self):
        """A killed worker counts as one cut session, because it cannot report the number."""
        ended = self.generation.whenEnded()
        self.generation.tell(Order.STOP)
        self.logged(lambda: self.zygote.says(Ended(0, 2000, 75, 3), Ended(1, 2001, -9, 0)))
        self.zygote.exits()
        self.assertEqual(self.successResultOf(ended), 4)

    def test_afterwards(self):
        """Orders after the end have no effect."""
        self.generation.tell(Order.STOP)
        self.zygote.exits()
        self.zygote.takeHeard()
        self.generation.tell(Order.REOPEN)
        self.assertEqual(self.zygote.takeHeard(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class ImpatienceTests(GenerationCase):
    """Hanging workers with C{worker_shutdown_timeout}."""

    patience = 60.0

    def test_hangs(self):
        """A draining or retired worker that exceeds the timeout by far is killed, and that is logged."""
        for order in (Order.DRAIN, Order.RETIRE):
            self.setUp()
            self.up()
            self.generation.tell(order)
            self.zygote.says(Ended(0, 2000, 0, 0))
            self.reactor.advance(self.patience + DRAINED_WITHIN - 1)
            self.assertEqual(self.zygote.takeHeard(), [Tell(order)])
            logged = self.logged(lambda: self.reactor.advance(1))
            self.assertEqual(logged, ["worker 2001 did not stop in time; killing it"])
            self.assertEqual(self.zygote.takeHeard(), [Kill(1)])

    def test_sooner(self):
        """A later order to drain does not move the deadline; an order to stop moves it forward."""
        self.up()
        self.generation.tell(Order.RETIRE)
        self.reactor.advance(self.patience)
        self.generation.tell(Order.DRAIN)
        self.zygote.takeHeard()
        self.logged(lambda: self.reactor.advance(DRAINED_WITHIN))
        self.assertEqual(self.zygote.takeHeard(), [Kill(0), Kill(1)])
        self.setUp()
        self.up()
        self.generation.tell(Order.DRAIN)
        self.generation.tell(Order.STOP)
        self.zygote.takeHeard()
        self.logged(lambda: self.reactor.advance(STOPPED_WITHIN))
        self.assertEqual(self.zygote.takeHeard(), [Kill(0), Kill(1)])

    def test_inTime(self):
        """No delayed call is left when all workers have exited in time."""
        self.up()
        self.generation.tell(Order.DRAIN)
        self.zygote.says(Ended(0, 2000, 0, 0), Ended(1, 2001, 0, 0))
        self.zygote.exits()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_starting(self):
        """A zygote that hangs before it serves is killed; a drain waits no longer for it than a stop."""
        self.generation.ready.addErrback(lambda failure: failure.trap(GenerationError))
        self.generation.tell(Order.DRAIN)
        self.reactor.advance(STOPPED_WITHIN)
        self.reactor.advance(STOPPED_WITHIN)
        self.assertEqual(self.zygote.signals, ["KILL"])
