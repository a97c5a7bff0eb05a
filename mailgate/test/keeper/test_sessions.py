"""Tests for L{mailgate.keeper.sessions}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.filters import Filter
from mailgate.keeper.sessions import ROWS_A_TURN, countSessions, findSession, listSessions
from mailgate.test.support.processes import START, Processes


class ListTests(SynchronousTestCase):
    """L{listSessions}."""

    def setUp(self) -> None:
        self.processes = Processes("aaaaa", "bbbbb")
        self.keeper: Any = self.processes

    def page(self, limit: int = 500, cursor: str | None = None, **filter: Any) -> dict[str, Any]:
        """A page."""
        return self.successResultOf(listSessions(self.keeper, Filter.fromJSON(filter), limit, cursor))

    def ids(self, page: dict[str, Any]) -> list[str]:
        """The ids of a page."""
        return [row["id"] for row in page["sessions"]]

    def test_empty(self) -> None:
        """No session is a valid answer."""
        gateways = [{"name": "g1", "age": 0.0, "complete": True, "missing": []}]
        self.assertEqual(self.page(), {"sessions": [], "next": None, "gateways": gateways})

    def test_merged(self) -> None:
        """The sessions of all processes are one list. Rows have the gateway, and nothing that is for the keeper."""
        for member in ("bbbbb", "aaaaa", "bbbbb"):
            self.processes.session(member)
        page = self.page()
        self.assertEqual(self.ids(page), ["bbbbb.0001", "aaaaa.0002", "bbbbb.0003"])
        self.assertEqual([row["gateway"] for row in page["sessions"]], ["g1"] * 3)
        self.assertEqual([row["worker"] for row in page["sessions"]], ["bbbbb", "aaaaa", "bbbbb"])
        self.assertNotIn("at", page["sessions"][0])

    def test_lies(self) -> None:
        """A process that is taken over does not keep operators from the list of the others, and the list says so."""
        self.processes.session()
        (good,) = self.page()["sessions"]
        at = 1_799_999_001
        self.processes.lies = ["x", 5, [], {}, {"id": 5, "at": at}, {"id": "a", "at": "b"}]
        self.processes.lies.append({**good, "at": at, "worker": "bbbbb"})
        for name in good.keys() - {"gateway"}:
            self.processes.lies.append({**good, "id": "bbbbb.0007", "worker": "bbbbb", "at": at})
            del self.processes.lies[-1][name]
        for name, value in (
            *(("id", []), ("user", ["joe"]), ("client", "joe"), ("client", {"address": 5, "port": 1}), ("tls", 5)),
            *(("backend", {}), ("age", "x"), ("idle", "\x1b[2J"), ("received", None), ("phase", None), ("at", 1e999)),
        ):
            self.processes.lies.append({**good, "id": "bbbbb.0007", "worker": "bbbbb", "at": at, name: value})
        page = self.page()
        self.assertEqual(page["sessions"], [good])
        self.assertEqual(page["gateways"][0]["missing"], ["a process has sent rows that are not valid"])
        self.assertFalse(page["gateways"][0]["complete"])
        self.processes.lies = [{**good, "id": "bbbbb.0007", "worker": "bbbbb", "at": at, "since": "soon"}]
        self.assertEqual(len(self.page()["sessions"]), 2)

    def test_filter(self) -> None:
        """The processes get the filter."""
        self.processes.session(user=b"joe")
        self.processes.session(user=b"jane")
        self.assertEqual(self.ids(self.page(user="JA*")), ["aaaaa.0002"])

    def test_pages(self) -> None:
        """Pages have each session that does not end exactly once, also if others begin and end between them."""
        made = {}
        for number in range(60):
            connection = self.processes.session("aaaaa" if number % 3 else "bbbbb", started=float(number // 7))
            made[connection.session.id] = connection
        seen: list[str] = []
        staying = set(made)
        cursor, pages = None, 0
        while True:
            page = self.page(7, cursor)
            self.assertLessEqual(len(page["sessions"]), 7)
            seen += self.ids(page)
            pages += 1
            cursor = page["next"]
            if cursor is None:
                break
            # One that was listed ends, one that was not listed ends, and one begins.
            for gone in (seen[-1], max(staying - set(seen), default="")):
                if gone in staying:
                    staying.discard(gone)
                    made[gone].end()
            self.processes.session("bbbbb", started=3.0)
        self.assertGreater(pages, 5)
        self.assertEqual(len(seen), len(set(seen)))
        self.assertLessEqual(staying, set(seen))

    def test_turns(self) -> None:
        """Many rows are checked over several turns of the event loop; their order is that of their beginnings."""
        number = 3 * ROWS_A_TURN // 2
        for place in range(number):
            self.processes.session("aaaaa" if place % 3 else "bbbbb", started=START - 7 * place % 1000)
        self.processes.views.append(self.processes.views[0])
        turns: list[Deferred[None]] = []

        def turn() -> Deferred[None]:
            turns.append(Deferred())
            return turns[-1]

        self.patch(self.processes, "turn", turn)
        for limit in (ROWS_A_TURN, number):
            listed = listSessions(self.keeper, {}, limit)
            for _ in range(2):
                self.assertNoResult(listed)
                turns.pop().callback(None)
            page = self.successResultOf(listed)
            keys = [(row["since"], row["id"]) for row in page["sessions"]]
            self.assertEqual((len(keys), keys), (limit, sorted(set(keys))))
            self.assertEqual(page["next"] is None, limit == number)

    def test_left(self) -> None:
        """Nothing is checked any more when the caller has left."""
        for _ in range(2 * ROWS_A_TURN):
            self.processes.session()
        listed = listSessions(self.keeper, {})
        listed.cancel()
        self.failureResultOf(listed, CancelledError)
        self.assertEqual(self.processes.clock.getDelayedCalls(), [])

    def test_exact(self) -> None:
        """A full last page has no next one."""
        for _ in range(4):
            self.processes.session()
        first = self.page(2)
        self.assertIsNotNone(first["next"])
        self.assertIsNone(self.page(2, first["next"])["next"])

    def test_twice(self) -> None:
        """A session that two members list, as its process changes its connection to the keeper, is listed once."""
        self.processes.session()
        self.processes.views.append(self.processes.views[0])
        self.assertEqual(self.ids(self.page()), ["aaaaa.0001"])

    def test_late(self) -> None:
        """The answer says that a process has not answered."""
        self.processes.session("aaaaa")
        self.processes.session("bbbbb")
        self.processes.late.add("bbbbb")
        page = self.page()
        self.assertEqual(self.ids(page), ["aaaaa.0001"])
        (gateway,) = page["gateways"]
        self.assertFalse(gateway["complete"])
        self.assertEqual(gateway["missing"], ["bbbbb has not answered"])

    def test_limits(self) -> None:
        """Limits and cursors that are not valid are refused, and no process is asked."""
        for limit in (0, -1, 10_001, True, "5", 2.5):
            self.assertRaises(ValueError, listSessions, self.keeper, Filter(), limit)
        for cursor in ("", "x", "W10", "\u202e", "W1tdLFtdXQ", "A" * 500, "WzEsMl0", "W" * 100):
            self.assertRaises(ValueError, listSessions, self.keeper, Filter(), 5, cursor)
        self.assertEqual(self.processes.asked, [])
        self.page(10_000)

    def test_one(self) -> None:
        """One session by its id."""
        self.processes.session("aaaaa")
        self.processes.session("bbbbb")
        found = self.successResultOf(findSession(self.keeper, "bbbbb.0002"))
        assert found is not None
        self.assertEqual((found["id"], found["gateway"]), ("bbbbb.0002", "g1"))
        self.assertIsNone(self.successResultOf(findSession(self.keeper, "bbbbb.0001")))
        self.assertRaises(ValueError, findSession, self.keeper, "*")


class CountTests(SynchronousTestCase):
    """L{countSessions}."""

    def test_merged(self) -> None:
        """The counts of the processes are added up; the largest come first."""
        processes: Any = Processes("aaaaa", "bbbbb")
        for member, user in (("aaaaa", b"joe"), ("bbbbb", b"joe"), ("bbbbb", b"ann"), ("bbbbb", b"")):
            processes.session(member, user=user)
        counted = self.successResultOf(countSessions(processes, Filter(), "user"))
        counts = [{"user": "joe", "sessions": 2}, {"user": None, "sessions": 1}, {"user": "ann", "sessions": 1}]
        self.assertEqual(counted["counts"], counts)
        self.assertEqual((counted["by"], counted["groups"], counted["sessions"]), ("user", 2, 4))
        self.assertTrue(counted["gateways"][0]["complete"])
        fewer = self.successResultOf(countSessions(processes, Filter(), "user", 1))
        self.assertEqual((fewer["counts"], fewer["groups"], fewer["sessions"]), (counts[:1], 2, 4))

    def test_lies(self) -> None:
        """What a process that is taken over sends is left out."""
        processes: Any = Processes("aaaaa")
        processes.session()
        processes.lies = [[["joe"], 3], ["joe", "3"], ["joe"], "joe", {"joe": 3}, 3]
        counts = self.successResultOf(countSessions(processes, {}, "user"))
        self.assertEqual((counts["counts"], counts["sessions"]), ([{"user": "joe", "sessions": 1}], 1))
        self.assertFalse(counts["gateways"][0]["complete"])

    def test_refused(self) -> None:
        """What is not counted is refused with the nearest word."""
        processes: Any = Processes()
        with self.assertRaisesRegex(ValueError, "usr is no known group; did you mean user?"):
            countSessions(processes, Filter(), "usr")
        self.assertRaises(ValueError, countSessions, processes, Filter(), "user", 0)
