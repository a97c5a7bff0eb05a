"""
Tests for L{mailgate.keeper.answers.page}.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.answers import page
from mailgate.keeper.answers.page import MOST_STUCK, TABLES
from mailgate.keeper.view import ANSWERERS
from mailgate.session import Phase
from mailgate.test.keeper.answers.test_backends import AnswersCase
from mailgate.test.support.processes import START, Connection, Processes


def lasting(row: Any) -> Any:
    """A row without what changes while this process works."""
    return {name: value for name, value in row.items() if name not in ("cpu", "memory")}


class TableTests(AnswersCase):
    """The tables."""

    def test_same(self) -> None:
        """Each table has the rows that its own question has."""
        found = self.rows("page")
        for word in TABLES:
            rows = [lasting(row) for row in found if row["table"] == word]
            self.assertEqual(rows, [{**lasting(row), "table": word} for row in self.rows(word)], word)
        self.assertEqual({row["table"] for row in found}, set(TABLES))
        self.assertIs(ANSWERERS["page"], page.page)

    def test_load(self) -> None:
        """The row of the process has its load, which is not known at the start."""
        (row,) = self.rows("process")
        self.assertEqual((row["cpu_share"], row["lag"]), (None, None))
        lag = self.view.watcher.lag
        lag.start()
        self.addCleanup(lag.stop)
        for _ in range(3):
            self.clock.advance(1)
        (row,) = self.rows("process")
        self.assertEqual(row["lag"], 0.0)
        self.assertGreaterEqual(row["cpu_share"], 0)


class StuckTests(SynchronousTestCase):
    """The logins that take long."""

    def setUp(self) -> None:
        self.processes = Processes("aaaaa")
        self.view = self.processes.views[0]
        # These stand-ins have no backends.
        self.patch(page, "TABLES", ())

    def rows(self, stuck: Any = 5.0) -> list[Any]:
        return [json.loads(json.dumps(row)) for row in self.view.answer("page", {"stuck": stuck}) if row is not None]

    def login(self, phase: Phase, ago: float, **values: Any) -> Connection:
        """A login that began so many seconds ago."""
        connection = self.processes.session(phase=phase, **values)
        connection.loginBegan = START - ago
        return connection

    def test_which(self) -> None:
        """Logins that have been under way for so long, and no relays, commands or short ones."""
        self.login(Phase.AUTH, 7.25, id="aaaaa.01")
        self.login(Phase.BACKEND_LOGIN, 60, id="aaaaa.02")
        self.login(Phase.CONNECT, 4.9, id="aaaaa.03")
        self.login(Phase.RELAY, 600, id="aaaaa.04")
        self.login(Phase.COMMAND, 600, id="aaaaa.05")
        found = self.rows()
        self.assertEqual([(row["id"], row["waiting"]) for row in found], [("aaaaa.02", 60.0), ("aaaaa.01", 7.2)])
        self.assertEqual({row["table"] for row in found}, {"stuck"})
        self.assertEqual(found[0]["at"], int(START) - 998)

    def test_bounds(self) -> None:
        """There are so many rows at most: the longest, and the number of the others."""
        for number in range(MOST_STUCK + 7):
            self.login(Phase.AUTH, 10 + number)
        *found, more = self.rows()
        self.assertEqual((len(found), more), (MOST_STUCK, {"table": "more", "more": 7}))
        self.assertEqual(found[0]["waiting"], 10.0 + MOST_STUCK + 6)

    def test_ended(self) -> None:
        """A login that ends meanwhile is not listed."""
        first = self.login(Phase.AUTH, 10)
        self.login(Phase.AUTH, 9, id="aaaaa.09")
        steps = self.view.answer("page", {"stuck": 5.0})
        self.assertIsNone(next(steps))
        first.end()
        self.assertEqual([row["id"] for row in steps if row is not None], ["aaaaa.09"])

    def test_notAsked(self) -> None:
        """Without the argument, or with one that is not valid, there are none."""
        self.login(Phase.AUTH, 10)
        for stuck in (None, "5", True):
            self.assertEqual(self.rows(stuck), [])
