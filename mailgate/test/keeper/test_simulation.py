# -*- test-case-name: mailgate.test.keeper.test_simulation -*-
"""
Many processes, keepers that are killed, replaced and upgraded, in random order. Whatever happens, sums do not fall,
nothing is counted twice, and each session is listed at most once.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper import keeper as keeperModule
from mailgate.keeper.handover import handOver
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.link import KeeperLink
from mailgate.keeper.memory import Memory, Saving
from mailgate.test.keeper.processes import LOGIN, newView
from mailgate.test.keeper.wires import End, Socket, WiredRendezvous

STEP = 0.05
LATE = 2.6
"""Seconds before its end, or before that of the keeper, of which a process may lose what it has counted."""


class Process:
    """A worker with its link."""

    def __init__(self, world: World, slot: int) -> None:
        self.world = world
        self.view = newView()
        self.ends: list[End] = []
        self.counted: list[tuple[float, int]] = []
        self.clock = Clock()
        self.clock.advance(world.clock.seconds())
        self.isHung = False
        self.began = self.hungUntil = self.clock.seconds()
        self.pid = world.newPid()
        endpoint: Any = world.socket.endpoint(self.pid, self.ends)
        self.link = KeeperLink(self.view, endpoint, self.clock, slot, self.pid)
        self.link.startService()

    def turn(self) -> None:
        if not self.isHung:
            self.clock.advance(self.world.clock.seconds() - self.clock.seconds())

    def serve(self) -> None:
        now, random = self.world.clock.seconds(), self.world.random
        if self.isHung:
            return
        for _ in range(random.randint(0, 3)):
            self.view.login(random.random())
            self.world.truth += 1
        self.counted.append((now, self.view.logins))
        if random.random() < 0.3 or not self.view.sessions:
            number = f"{self.view.member}.{self.world.newPid()}"
            self.view.sessions[number] = {"id": number}
        elif random.random() < 0.3:
            number = random.choice(list(self.view.sessions))
            del self.view.sessions[number]
            self.world.ended[number] = now

    def hang(self, isHung: bool) -> None:
        self.isHung = isHung
        self.hungUntil = self.world.clock.seconds()
        for each in self.ends:
            each.setDeaf(isHung)

    def lost(self) -> int:
        """How much the keeper may not know of what it has counted."""
        now = self.world.clock.seconds()
        known = [logins for moment, logins in self.counted if moment <= now - LATE]
        logins: int = self.view.logins
        return logins - (known[-1] if known else 0)

    def kill(self) -> None:
        self.isHung = True
        for each in self.ends:
            each.end(ConnectionError())
        self.world.gone(self)


class Incarnation:
    """A keeper process."""

    def __init__(self, world: World, memory: Memory) -> None:
        self.world = world
        self.memory = memory
        self.keeper = Keeper(world.clock, "g1", randomness=world.random.randbytes)
        self.rendezvous = WiredRendezvous(self.keeper, world.socket)
        self.saving = Saving(self.keeper, memory, world.clock)
        self.ends: list[End] = []
        self.isKilled = False

    def serve(self, hasPredecessor: bool) -> None:
        self.keeper.restore(self.memory.load() or b"")
        if hasPredecessor:
            self.keeper.expectHandover()
        self.rendezvous.startService()
        self.saving.startService()

    def leave(self) -> Any:
        endpoint: Any = self.world.socket.endpoint(1, self.ends)
        return handOver(self.keeper, self.rendezvous, endpoint, self.world.clock)

    def kill(self) -> None:
        self.isKilled = True
        self.rendezvous.stopListening()
        self.saving.stopService()
        for each in (*self.rendezvous.ends, *self.ends):
            each.end(ConnectionError())


class World:
    """The gateway, and what is true."""

    def __init__(self, test: SynchronousTestCase, seed: int) -> None:
        self.test = test
        self.random = Random(seed)
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.socket = Socket(self.clock, self.random)
        self.truth = 0
        self.lost = 0
        self.ended: dict[str, float] = {}
        self.highest: dict[Any, Any] = {}
        self.scrapes = self.lists = self.wholeLists = 0
        self.events: list[str] = []
        self._pid = 1000
        self.memory = Memory()
        self.current = Incarnation(self, self.memory)
        self.current.serve(hasPredecessor=False)
        self.leaving: list[Incarnation] = []
        self.processes = [Process(self, slot) for slot in range(3)]

    def newPid(self) -> int:
        self._pid += 1
        return self._pid

    def gone(self, process: Process) -> None:
        self.lost += process.lost()
        self.processes.remove(process)
        now = self.clock.seconds()
        self.ended.update(dict.fromkeys(process.view.sessions, now))

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.clock.advance(STEP)
            for _ in range(6):
                for process in self.processes:
                    process.turn()
                self.clock.advance(0)

    # What happens.

    def happen(self) -> None:
        chances = [
            (self.nothing, 10),
            (self.look, 10),
            (self.addProcess, 2),
            (self.endProcess, 2),
            (self.killProcess, 2),
            (self.hangProcess, 1),
            (self.killKeeper, 2),
            (self.reload, 2),
            (self.upgrade, 1),
        ]
        ((happens, _),) = self.random.choices(chances, [chance for _, chance in chances])
        self.events.append(f"{self.clock.seconds():.2f} {happens.__name__}")
        happens()
        for process in self.processes:
            process.serve()
        self.advance(self.random.choice([STEP, STEP, 0.3, 1.2, 2.5]))

    def nothing(self) -> None:
        for process in self.processes:
            if process.isHung:
                process.hang(False)

    def addProcess(self) -> None:
        if len(self.processes) < 8:
            self.processes.append(Process(self, self.random.randint(0, 3)))

    def endProcess(self) -> None:
        if self.processes:
            process = self.random.choice(self.processes)
            process.link.retire()
            process.link.stopService()
            self.advance(STEP)
            self.gone(process)

    def killProcess(self) -> None:
        if self.processes:
            self.random.choice(self.processes).kill()

    def hangProcess(self) -> None:
        if self.processes:
            self.random.choice(self.processes).hang(True)

    def killKeeper(self) -> None:
        self.current.kill()
        self.current = Incarnation(self, self.current.memory)
        self.current.serve(hasPredecessor=False)

    def reload(self) -> None:
        self._replace(self.current.memory)

    def upgrade(self) -> None:
        self._replace(Memory())

    def _replace(self, memory: Memory) -> None:
        before = self.current
        if not before.keeper.isComplete:
            # The master waits for that.
            return
        handedOver = before.leave()
        self.current = Incarnation(self, memory)
        self.current.serve(hasPredecessor=True)
        self.leaving.append(before)
        handedOver.addCallback(lambda _: self.leaving.remove(before))
        # The old one exits in the end.
        self.clock.callLater(5, before.kill)
        while memory is not before.memory and before in self.leaving:
            # Old and new do not both die in an upgrade.
            self.advance(STEP)

    # What must be so.

    def look(self) -> None:
        current = self.current
        scrape: Any = current.keeper.scrape().addCallback(
            lambda totals: None if current.isKilled else self.scraped(totals)
        )
        asked = self.clock.seconds()
        steady = [
            (each, set(each.view.sessions))
            for each in self.processes
            if not each.isHung and max(each.began, each.hungUntil) <= asked - 3
        ]
        listed: Any = current.keeper.ask("sessions", {})
        listed.addCallback(lambda collected: None if current.isKilled else self.listed(collected, asked, steady))
        if self.random.random() < 0.5:
            self.advance(2.5)
        for each in (scrape, listed):
            each.addErrback(self.fail)

    def fail(self, failure: Any) -> None:
        self.failure = failure

    failure: Any = None

    def scraped(self, totals: Any) -> None:
        self.scrapes += 1
        found: dict[Any, Any] = {}
        for name in ("mailgate_logins", "mailgate_login_seconds"):
            for labels, value in totals.get(name, ()):
                for place, number in enumerate(value if isinstance(value, list) else [value]):
                    found[name, tuple(labels), place] = number
        for key, number in self.highest.items():
            self.test.assertGreaterEqual(found.get(key, 0), number, (key, self.events[-12:]))
        self.highest = found
        logins = found.get(("mailgate_logins", LOGIN, 0), 0)
        self.test.assertLessEqual(logins, self.truth)

    def listed(self, collected: Any, asked: float, steady: list[tuple[Process, set[str]]]) -> None:
        self.lists += 1
        found = [row["id"] for row in collected.rows]
        self.test.assertEqual(len(found), len(set(found)), "a session is listed twice")
        for each in found:
            # Of those that end meanwhile, some are listed.
            self.test.assertGreaterEqual(self.ended.get(each, asked), asked - 3)
        for process, sessions in steady:
            if process in self.processes and not process.isHung and not collected.missing:
                self.wholeLists += 1
                self.test.assertEqual((sessions & set(process.view.sessions)) - set(found), set(), self.events[-12:])

    def settle(self) -> None:
        """Let all processes report, and look again."""
        for process in self.processes:
            process.hang(False)
        self.advance(6)
        self.current.keeper.scrape().addCallback(self.scraped)
        asked: list[Any] = []
        self.current.keeper.ask("sessions", {}).addCallback(asked.append)
        self.advance(1)
        (collected,) = asked
        self.test.assertEqual(list(collected.missing), [])
        living = sorted(each for process in self.processes for each in process.view.sessions)
        self.test.assertEqual(sorted(row["id"] for row in collected.rows), living)
        self.test.assertEqual(len(self.current.keeper.members), len(self.processes))


class SimulationTests(SynchronousTestCase):
    """Random histories."""

    def run_(self, seed: int, steps: int = 120) -> World:
        world = World(self, seed)
        for _ in range(steps):
            world.happen()
            if world.failure is not None:
                world.failure.raiseException()
        world.settle()
        if world.failure is not None:
            world.failure.raiseException()
        return world

    def test_sums(self) -> None:
        """
        Sums never fall, and are never higher than the truth. In the end only what a process has counted shortly before
        its end may be missing.
        """
        whole = 0
        for seed in range(12):
            world = self.run_(seed)
            logins = world.highest.get(("mailgate_logins", LOGIN, 0), 0)
            self.assertGreaterEqual(logins, world.truth - world.lost, seed)
            self.assertGreater(world.scrapes, 10)
            self.assertGreater(world.lists, 10)
            whole += world.wholeLists
        self.assertGreater(whole, 12 * 10)

    def test_many(self) -> None:
        """The same with so many processes that most are added up soon, also such that come back."""
        self.patch(keeperModule, "MOST_GONE", 1)
        for seed in range(100, 106):
            self.run_(seed)
