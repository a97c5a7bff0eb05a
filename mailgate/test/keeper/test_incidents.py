"""
Tests for L{mailgate.keeper.incidents}.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.incidents import MOST_ALARMS, Incidents, Reload


class IncidentsTests(SynchronousTestCase):
    """L{Incidents}."""

    def setUp(self) -> None:
        self.incidents = Incidents()

    def restored(self, **written: Any) -> Incidents:
        found = Incidents()
        found.restore(json.loads(json.dumps({**self.incidents.write(), **written})))
        return found

    def test_reload(self) -> None:
        """The last reload counts, and why it was refused is kept, cut."""
        self.assertIsNone(self.incidents.reload)
        self.incidents.happened(5, "mailgate_reloads", ["refused"], ["x" * 1000, *["y"] * 100])
        found = self.incidents.reload
        assert found is not None
        self.assertEqual((found.at, found.isDone, found.reasons[0], len(found.reasons)), (5, False, "x" * 300, 10))
        self.incidents.happened(6, "mailgate_reloads", ["ok"], [])
        self.assertEqual(self.incidents.reload, Reload(6, True))

    def test_others(self) -> None:
        """Restarts are remembered, other events are not."""
        for moment in range(100):
            self.incidents.happened(moment, "mailgate_worker_restarts", ["exit"], [])
        self.incidents.happened(1, "mailgate_something", [], [])
        self.assertEqual((len(self.incidents.restarts), self.incidents.restarts[-1]), (20, 99))

    def test_since(self) -> None:
        """An alarm began when it was first seen, until it is over. There are so many at most."""
        self.assertEqual(self.incidents.since("a", 5), 5)
        self.assertEqual(self.incidents.since("a", 7), 5)
        self.incidents.over(["b"])
        self.assertEqual(self.incidents.since("a", 7), 7)
        for number in range(2 * MOST_ALARMS):
            self.assertEqual(self.incidents.since(str(number), number), number)
        self.assertEqual(len(self.incidents.write()["since"]), MOST_ALARMS)

    def test_restore(self) -> None:
        """A successor knows it all; what it knows itself and is later stays."""
        self.incidents.happened(5, "mailgate_reloads", ["refused"], ["why"])
        self.incidents.happened(6, "mailgate_worker_restarts", ["exit"], [])
        self.incidents.since("a", 4)
        found = self.restored()
        self.assertEqual(found.reload, Reload(5, False, ("why",)))
        self.assertEqual(list(found.restarts), [6])
        self.assertEqual(found.since("a", 9), 4)
        later = Incidents()
        later.happened(8, "mailgate_reloads", ["ok"], [])
        later.happened(9, "mailgate_worker_restarts", ["exit"], [])
        later.since("a", 8)
        for _ in range(2):
            later.restore(self.incidents.write())
        self.assertEqual((later.reload, list(later.restarts), later.since("a", 8)), (Reload(8, True), [6, 9], 4))

    def test_invalid(self) -> None:
        """What is not valid is ignored."""
        written: Any
        for written in (None, 7, [], {"reload": 1, "restarts": 2, "since": 3}):
            self.incidents.restore(written)
        for reload in (
            [1],
            ["1", True, []],
            [1, 1, []],
            [1, True, "x"],
            [float("inf"), True, []],
            [True, True, []],
            [2**39, True, []],
        ):
            self.incidents.restore({"reload": reload})
        self.incidents.restore({"reload": [5, False, [[["x"]], "why", None]]})
        self.assertEqual(self.incidents.reload, Reload(5, False, ("why",)))
        self.incidents.reload = None
        self.incidents.restore({"restarts": ["x", None, -1, 3], "since": {"a": "x", "b" * 400: 1, "c": 2}})
        self.assertEqual(self.incidents.write(), {"reload": None, "restarts": [3], "attacks": {}, "since": {"c": 2}})
        self.incidents.restore({"since": {f"z{number}": 1 for number in range(1000)}})
        self.assertLessEqual(len(self.incidents.write()["since"]), MOST_ALARMS)
