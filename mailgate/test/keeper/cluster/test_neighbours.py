"""Tests for L{mailgate.keeper.cluster.neighbours}."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.cluster.neighbours import FORGOTTEN_AFTER, Neighbours
from mailgate.store.interfaces import Beat
from mailgate.store.memory import Memory
from mailgate.test.support.stores import SwitchedStore


class NeighboursTests(SynchronousTestCase):
    """One gateway, which looks at what the store knows of another one."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.memory = Memory()
        self.store = SwitchedStore(self.clock, self.memory, "g1")
        self.found = Neighbours("g1", self.store, self.clock)
        self.found.start()
        self.addCleanup(self.found.stop)
        self.heard: list[LogEvent] = []
        observer: Any = self.heard.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.beat()

    def beat(self) -> None:
        """Both gateways beat, and it looks."""
        for name in ("g1", "g2"):
            self.store.beat(Beat(name, f"run of {name}", isAll=True))
        self.found.look()

    def later(self, seconds: int) -> None:
        """So many seconds pass."""
        for _ in range(seconds):
            self.clock.advance(1)

    def test_living(self) -> None:
        """The other one lives, and its age is that of its beat, or of what was heard of it since."""
        self.assertEqual(self.found.living(), {"g2": 0.0})
        self.later(20)
        self.assertEqual(self.found.living(), {"g2": 20.0})
        self.found.heard("g2")
        self.found.heard("a stranger")
        self.assertEqual(self.found.living(), {"g2": 0.0})

    def test_silent(self) -> None:
        """It is silent within 45 seconds without a beat, and forgotten after an hour."""
        self.later(46)
        self.assertEqual((self.found.living(), [*self.found.silent()]), ({}, ["g2"]))
        self.later(int(FORGOTTEN_AFTER) + 20)
        self.assertEqual((self.found.silent(), len(self.found.standing()["gateways"])), ({}, 1))

    def test_left(self) -> None:
        """One that says goodbye is gone at once. One whose goodbye was not heard is gone later, and no alarm."""
        self.found.left("g2")
        self.assertEqual(self.found.living(), {})
        self.beat()
        self.store.leave("g2", "run of g2")
        self.later(30)
        self.assertEqual([*self.found.living()], ["g2"])
        for _ in range(100):
            self.later(1)
            self.assertEqual(self.found.silent(), {})
        self.assertEqual(self.found.living(), {})

    def test_empty(self) -> None:
        """A store that comes back empty does not make the others gone: they beat again soon."""
        self.memory.gateways.clear()
        self.later(20)
        self.assertEqual([*self.found.living()], ["g2"])
        self.beat()
        self.later(40)
        self.assertEqual([*self.found.living()], ["g2"])

    def test_down(self) -> None:
        """While the store is down those count that lived before, and none is silent."""
        self.found.changed(False, "hangs")
        self.store.switch(False)
        self.later(100)
        self.assertEqual((self.found.living(), self.found.silent()), ({"g2": 100.0}, {}))
        standing = self.found.standing()
        self.assertEqual((standing["up"], standing["reason"], standing["since"][:4]), (False, "hangs", "2027"))
        self.found.changed(True)
        self.assertEqual(self.found.standing()["reason"], "")

    def test_anotherSecret(self) -> None:
        """One with another secret is an error in the log, once, and no neighbour, until it has the same one."""
        found = Neighbours("g1", self.store, self.clock, "mark")
        self.store.beat(Beat("g3", "mark.1", isAll=True))
        found.look()
        found.look()
        self.assertEqual(found.living(), {"g3": 0.0})
        (failure,) = [event for event in self.heard if "another secret" in event["log_format"]]
        self.assertEqual((failure["log_level"].name, failure["name"]), ("error", "g2"))
        self.store.beat(Beat("g2", "mark.2", isAll=True))
        found.look()
        self.assertEqual(found.living(), {"g2": 0.0, "g3": 0.0})
        self.assertEqual(len([event for event in self.heard if "another secret" in event["log_format"]]), 1)
