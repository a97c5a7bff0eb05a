"""Tests for L{mailgate.process.keeper.supervision} with fake zygotes. The integration tests use real ones."""

from __future__ import annotations

import os
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailgate.log.privacy import KEY_BYTES
from mailgate.process.keeper import supervision
from mailgate.process.keeper.supervision import HANDED_OVER_WITHIN, Supervision
from mailgate.process.keeper.talk import Configure, Duty, Event, Instruct, NotStarted, Request, Result, Taken
from mailgate.process.workers.generation import STOPPED_WITHIN
from mailgate.process.workers.messages import (
    Announce,
    Become,
    Begin,
    Ended,
    Failed,
    Fork,
    Kill,
    Loaded,
    Order,
    Ready,
    Started,
    Tell,
)
from mailgate.process.workers.zygoteprocess import READY_WITHIN
from mailgate.test.process.workers.test_generation import FakeProcess, FakeReactor

KEY = bytes(range(KEY_BYTES))


class Sockets:
    """The sockets, which nothing needs here."""

    path = "/run/g.pid.keeper"

    def descriptors(self) -> dict[str, int]:
        return {"rendezvous": 17}


class FakeOrphan:
    """A keeper without a zygote."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended: Deferred[None] = Deferred()


class SupervisionCase(SynchronousTestCase):
    """A keeper with a fake zygote."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.uid = 1000
        self.patch(os, "geteuid", lambda: self.uid)
        self.patch(supervision, "Orphan", self.orphan)
        self.orphans: list[FakeOrphan] = []
        self.works: list[bool] = []
        self.found: list[Announce] = []
        sockets: Any = Sockets()
        self.supervision = Supervision(self.reactor, "x.ini", "text", sockets, {"A": "b"}, KEY)
        self.supervision.whenWorking = self.works.append
        self.supervision.heard = self.found.append

    def orphan(self, reactor: Any, pid: int, within: float) -> FakeOrphan:
        """A keeper has lost its zygote."""
        self.orphans.append(FakeOrphan(pid))
        return self.orphans[-1]

    @property
    def zygote(self) -> FakeProcess:
        """The last zygote."""
        return self.reactor.processes[-1]

    def heard(self) -> list[Any]:
        """What the zygote has received since the last call."""
        return self.zygote.takeHeard()

    def up(self, slot: int = 0) -> None:
        """Start a keeper that serves."""
        self.supervision.start()
        self.supervision.fork()
        self.supervision.serve(False)
        self.zygote.says(Loaded())
        self.comes(slot)
        self.heard()

    def comes(self, slot: int) -> None:
        """The zygote has forked a keeper, which is ready."""
        self.zygote.says(Started(slot, 2000 + slot), Ready(slot))

    def logged(self, act: Any) -> list[str]:
        with capturedLogs() as events:
            act()
        return [formatEvent(event) for event in events]


class StartTests(SupervisionCase):
    """The start of the keeper."""

    def test_start(self) -> None:
        """The zygote starts first, the keeper when the process has changed its user; it accepts when that serves."""
        self.uid = 0
        self.supervision.notices = lambda: [Announce("verdict", "a", {}, 1.0)]
        self.supervision.start()
        (spawned,) = self.reactor.spawned
        self.assertEqual(spawned["args"][1:], ["-m", "mailgate.process.keeper.zygote"])
        self.assertEqual(spawned["childFDs"][6], 17)
        self.assertEqual(
            self.heard(), [Begin("x.ini", "text", {"rendezvous": 6}, KEY.hex()), Announce("verdict", "a", {}, 1.0)]
        )
        self.zygote.says(Loaded())
        self.assertEqual(self.heard(), [])
        self.uid = 1000
        self.patch(os, "getgroups", lambda: [7])
        self.patch(os, "getegid", lambda: 6)
        self.supervision.fork()
        self.assertEqual(self.heard(), [Become(1000, 6, (7,)), Fork(0)])
        self.comes(0)
        self.assertEqual((self.heard(), self.works), ([], []))
        self.supervision.serve(False)
        self.assertEqual((self.heard(), self.works), ([Instruct(Duty.SERVE, 0)], [True]))

    def test_successor(self) -> None:
        """After an upgrade a keeper takes over from that of the old process, and no further one does."""
        self.supervision.start()
        self.supervision.fork()
        self.zygote.says(Loaded())
        self.comes(0)
        self.heard()
        self.supervision.serve(True)
        self.assertEqual(self.heard(), [Instruct(Duty.TAKE_OVER, 0)])
        self.zygote.says(Ended(0, 2000, -9, 0))
        self.reactor.advance(0)
        self.comes(1)
        # The first one was killed before it had the state.
        self.assertEqual(self.heard(), [Fork(1), Instruct(Duty.TAKE_OVER, 1)])
        self.zygote.says(Taken(1), Ended(1, 2001, -9, 0))
        self.reactor.advance(2)
        self.comes(2)
        self.assertEqual(self.heard(), [Fork(2), Instruct(Duty.SERVE, 2)])

    def assertNotStarted(self, lines: list[str], reason: str) -> None:
        """One line says that the keeper did not start, and why, and another zygote is started later."""
        (line,) = lines
        self.assertTrue(line.startswith(f"the keeper did not start: {reason}"), line)
        self.assertTrue(line.endswith("; the gateway serves without it"), line)
        self.assertEqual(self.works, [False])
        count = len(self.reactor.processes)
        self.reactor.advance(2)
        self.assertEqual(len(self.reactor.processes), count + 1)

    def test_refuses(self) -> None:
        """A zygote that refuses the master says why."""
        self.supervision.start()
        self.zygote.says(Failed("the release\nis another one"))
        self.assertNotStarted(self.logged(self.zygote.exits), "the release; is another one")

    def test_exits(self) -> None:
        """If the zygote exits before it has loaded, its exit status is the reason."""
        self.supervision.start()
        self.assertNotStarted(self.logged(lambda: self.zygote.exits(ProcessTerminated(1))), "exited with status 1")

    def test_slow(self) -> None:
        """A zygote that does not load in time is killed."""
        self.supervision.start()
        self.reactor.advance(READY_WITHIN)
        self.assertEqual(self.zygote.signals, ["KILL"])
        self.assertNotStarted(self.logged(self.zygote.exits), "the zygote was not ready in time")

    def test_noProcess(self) -> None:
        """If the system starts no process, that is the reason."""

        def spawnProcess(*arguments: object, **named: object) -> None:
            raise OSError(11, "Resource temporarily unavailable")

        self.reactor.spawnProcess = spawnProcess  # type: ignore[method-assign,assignment]
        (line,) = self.logged(self.supervision.start)
        self.assertIn("Resource temporarily unavailable", line)
        self.assertEqual(self.works, [False])

    def test_notStarted(self) -> None:
        """A keeper that cannot start says why; another is forked later."""
        self.supervision.start()
        self.supervision.fork()
        self.supervision.serve(False)
        self.zygote.says(Loaded(), Started(0, 2000), NotStarted("the key\nis missing", 0))
        lines = self.logged(lambda: self.zygote.says(Ended(0, 2000, 71, 0)))
        self.assertEqual(lines, ["the keeper did not start: the key; is missing; the gateway serves without it"])
        self.heard()
        self.reactor.advance(1)
        self.assertEqual(self.heard(), [Fork(1)])
        self.comes(1)
        self.assertEqual(self.works, [False, True])

    def test_notReady(self) -> None:
        """A keeper that is not ready in time is killed."""
        self.supervision.start()
        self.supervision.fork()
        self.zygote.says(Loaded(), Started(0, 2000))
        self.heard()
        self.reactor.advance(READY_WITHIN)
        self.assertEqual(self.heard(), [Kill(0)])
        (line,) = self.logged(lambda: self.zygote.says(Ended(0, 2000, -9, 0)))
        self.assertIn("it was not ready within 30 s", line)


class DeathTests(SupervisionCase):
    """Keepers and zygotes that die."""

    def test_keeper(self) -> None:
        """Another keeper is forked at once; if that dies soon, later."""
        self.up()
        lines = self.logged(lambda: self.zygote.says(Ended(0, 2000, -9, 0)))
        self.assertEqual(lines, ["keeper 2000 was killed by SIGKILL; starting another now"])
        self.reactor.advance(0)
        self.comes(1)
        self.assertEqual(self.heard(), [Fork(1), Instruct(Duty.SERVE, 1)])
        lines = self.logged(lambda: self.zygote.says(Ended(1, 2001, 1, 0)))
        self.assertEqual(lines, ["keeper 2001 exited with status 1; starting another in 1 s"])
        self.reactor.advance(0.9)
        self.assertEqual(self.heard(), [])
        self.reactor.advance(0.2)
        self.assertEqual(self.heard(), [Fork(2)])

    def test_zygote(self) -> None:
        """Another zygote is started, whose keeper takes over; the earlier keeper is watched."""
        self.up()
        lines = self.logged(lambda: self.zygote.exits(ProcessTerminated(signal=9)))
        self.assertEqual(lines, ["zygote 1000 of the keeper was killed by SIGKILL; starting another now"])
        self.assertEqual([each.pid for each in self.orphans], [2000])
        self.reactor.advance(0)
        self.zygote.says(Loaded())
        self.comes(1)
        self.assertEqual(self.heard()[1:], [Fork(1), Instruct(Duty.TAKE_OVER, 1)])
        self.assertEqual(self.works, [True, True])

    def test_invalid(self) -> None:
        """A zygote that sends what no zygote sends is killed."""
        for message in (Fork(1), Started(9, 5), Ready(9)):
            self.up(self.supervision._slots)
            self.logged(lambda message=message: self.zygote.says(message))
            self.assertIn("KILL", self.zygote.signals)
            self.zygote.exits()


class HandoverTests(SupervisionCase):
    """Handovers that are interrupted."""

    def setUp(self) -> None:
        super().setUp()
        self.up()
        self.supervision.reload("other")
        self.comes(1)
        self.heard()

    def test_successorKilled(self) -> None:
        """If the successor is killed during the handover, the next one takes over from the predecessor."""
        self.zygote.says(Ended(1, 2001, -9, 0))
        self.reactor.advance(2)
        self.comes(2)
        self.assertEqual(self.heard(), [Fork(2), Instruct(Duty.TAKE_OVER, 2)])

    def test_killedLater(self) -> None:
        """If it is killed after the handover, the next one has no predecessor."""
        self.zygote.says(Taken(1), Ended(0, 2000, 0, 0), Ended(1, 2001, -9, 0))
        self.reactor.advance(2)
        self.comes(2)
        self.assertEqual(self.heard(), [Fork(2), Instruct(Duty.SERVE, 2)])

    def test_predecessorKilled(self) -> None:
        """If the predecessor is killed, its successor learns that, and waits no longer."""
        self.zygote.says(Ended(0, 2000, -9, 0))
        self.assertEqual(self.heard(), [Instruct(Duty.SERVE, 1)])

    def test_bothKilled(self) -> None:
        """If both are killed, the next one waits for none."""
        self.zygote.says(Ended(0, 2000, -9, 0), Ended(1, 2001, -9, 0))
        self.reactor.advance(2)
        self.heard()
        self.comes(2)
        self.assertEqual(self.heard(), [Instruct(Duty.SERVE, 2)])

    def test_oneAtATime(self) -> None:
        """A keeper hands over only after it has received the state itself."""
        self.supervision.reload("third")
        self.comes(2)
        self.assertEqual(self.heard(), [Configure("x.ini", "third"), Fork(2)])
        self.zygote.says(Taken(1))
        self.assertEqual(self.heard(), [Instruct(Duty.HAND_OVER, 1), Instruct(Duty.TAKE_OVER, 2)])

    def test_late(self) -> None:
        """If it never receives it, it makes way after a while."""
        self.supervision.reload("third")
        self.comes(2)
        self.heard()
        self.reactor.advance(HANDED_OVER_WITHIN)
        self.assertEqual(self.heard(), [Instruct(Duty.HAND_OVER, 1), Instruct(Duty.TAKE_OVER, 2)])

    def test_waitingSuccessor(self) -> None:
        """If the one that serves is killed meanwhile, the one that waits takes its place, and no other is forked."""
        self.supervision.reload("third")
        self.comes(2)
        self.heard()
        self.zygote.says(Ended(1, 2001, -9, 0))
        self.reactor.advance(5)
        self.assertEqual(self.heard(), [Instruct(Duty.TAKE_OVER, 2)])

    def test_zygote(self) -> None:
        """If the zygote dies, too, the next keeper waits until those that were left are gone."""
        self.logged(lambda: self.zygote.exits(ProcessTerminated(signal=9)))
        self.reactor.advance(0)
        self.zygote.says(Loaded())
        self.comes(2)
        self.assertEqual(self.heard()[1:], [Fork(2), Instruct(Duty.TAKE_OVER, 2)])
        first, second = self.orphans
        first.ended.callback(None)
        self.assertEqual(self.heard(), [])
        second.ended.callback(None)
        self.assertEqual(self.heard(), [Instruct(Duty.SERVE, 2)])

    def test_allKilled(self) -> None:
        """If the keepers are killed before their zygote, the next keeper has no predecessor."""

        def gone(reactor: Any, pid: int, within: float) -> FakeOrphan:
            raise ProcessLookupError(3, "No such process")

        self.patch(supervision, "Orphan", gone)
        self.zygote.says(Taken(1))
        self.logged(lambda: self.zygote.exits(ProcessTerminated(signal=9)))
        self.reactor.advance(0)
        self.zygote.says(Loaded())
        self.comes(2)
        self.assertEqual(self.heard()[1:], [Fork(2), Instruct(Duty.SERVE, 2)])


class ChangeTests(SupervisionCase):
    """Reloads, messages and the end."""

    def test_reload(self) -> None:
        """A new keeper with the new configuration replaces the earlier one, which is killed if it does not exit."""
        self.up()
        self.supervision.reload("other")
        self.assertEqual(self.heard(), [Configure("x.ini", "other"), Fork(1)])
        self.comes(1)
        self.assertEqual(self.heard(), [Instruct(Duty.HAND_OVER, 0), Instruct(Duty.TAKE_OVER, 1)])
        self.reactor.advance(STOPPED_WITHIN)
        self.assertEqual(self.heard(), [Kill(0)])
        self.assertEqual(self.logged(lambda: self.zygote.says(Ended(0, 2000, -9, 0))), [])
        # A zygote that is started later has the new configuration.
        self.zygote.exits(ProcessTerminated(signal=9))
        self.reactor.advance(0)
        self.assertEqual(self.heard()[0].text, "other")

    def test_reloadRefused(self) -> None:
        """If the new keeper does not start, the earlier one continues."""
        self.up()
        self.supervision.reload("other")
        self.zygote.says(Started(1, 2001), NotStarted("no key", 1))
        (line,) = self.logged(lambda: self.zygote.says(Ended(1, 2001, 71, 0)))
        text = "the new keeper did not start: no key; the previous one continues with its configuration"
        self.assertEqual((line, self.works), (text, [True]))

    def test_reloadAgain(self) -> None:
        """A keeper that is not ready yet when the configuration changes again is replaced."""
        self.up()
        self.supervision.reload("other")
        self.zygote.says(Started(1, 2001))
        self.supervision.reload("third")
        sent = [Configure("x.ini", "other"), Fork(1), Configure("x.ini", "third"), Kill(1), Fork(2)]
        self.assertEqual(self.heard(), sent)
        self.assertEqual(self.logged(lambda: self.zygote.says(Ready(1), Ended(1, 2001, -9, 0))), [])
        self.comes(2)
        self.assertEqual(self.heard(), [Instruct(Duty.HAND_OVER, 0), Instruct(Duty.TAKE_OVER, 2)])

    def test_messages(self) -> None:
        """Events and notices go to the keeper; only its own notice has its number."""
        self.up()
        self.supervision.happened("mailgate_reloads", "ok")
        notice = Announce("verdict", "a", {}, 1.0, 0)
        self.zygote.says(notice)
        self.supervision.passOn(notice)
        self.supervision.passOn(evolve(notice, slot=5))
        self.supervision.reopen()
        expected = [Event("mailgate_reloads", ["ok"]), notice, evolve(notice, slot=None), Tell(Order.REOPEN)]
        self.assertEqual((self.heard(), self.found), (expected, [notice]))

    def test_request(self) -> None:
        """An order of an operator is answered."""
        self.up()
        self.zygote.says(Request(3, "reload", {}, 0))
        (result,) = self.heard()
        assert isinstance(result, Result)
        self.assertEqual((result.id, result.slot, result.done), (3, 0, False))

    def test_stop(self) -> None:
        """The end waits for the zygote; a keeper that hangs is killed, and then the zygote."""
        self.up()
        stopped = self.supervision.stop()
        self.assertEqual(self.heard(), [Tell(Order.STOP)])
        self.assertNoResult(stopped)
        self.reactor.advance(STOPPED_WITHIN)
        self.assertEqual(self.heard(), [Kill(0)])
        self.reactor.advance(STOPPED_WITHIN)
        self.assertEqual(self.zygote.signals, ["KILL"])
        self.assertEqual(self.logged(self.zygote.exits), [])
        self.successResultOf(stopped)
        self.successResultOf(self.supervision.stop())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(len(self.reactor.processes), 1)

    def test_handOver(self) -> None:
        """After an upgrade the keeper hands over, and nothing is started any more."""
        self.up()
        handed = self.supervision.handOver()
        self.assertEqual(self.heard(), [Tell(Order.RETIRE)])
        self.zygote.says(Ended(0, 2000, 0, 0))
        self.zygote.exits()
        self.successResultOf(handed)
        self.assertEqual((self.reactor.getDelayedCalls(), len(self.reactor.processes)), ([], 1))
