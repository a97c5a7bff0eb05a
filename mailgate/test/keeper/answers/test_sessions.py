"""Tests for L{mailgate.keeper.answers.sessions}."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.answers import walk as walking
from mailgate.keeper.answers.sessions import textOf
from mailgate.keeper.answers.walk import PIECE
from mailgate.keeper.filters import Filter
from mailgate.login import Method, TLSState
from mailgate.session import Phase
from mailgate.test.keeper.test_filters import HOSTILE
from mailgate.test.support.processes import START, Processes


class SessionsTests(SynchronousTestCase):
    """The answers to C{sessions} and C{counts}."""

    def setUp(self) -> None:
        self.processes = Processes("aaaaa")
        self.view = self.processes.views[0]

    def rows(self, **arguments: Any) -> list[Any]:
        """The rows of a list, without pauses."""
        given = {"filter": {}, **arguments}
        return [row for row in self.view.answer("sessions", given) if row is not None]

    def ids(self, **arguments: Any) -> list[str]:
        """Their ids."""
        return [row["id"] for row in self.rows(**arguments)]

    def test_row(self) -> None:
        """A row has what operators want to know, as JSON."""
        session = self.processes.session(
            user=b"joe@example.org",
            started=START - 60.5,
            tls=TLSState("TLSv1.3", "TLS_AES_256_GCM_SHA384", "imap.example.org"),
            method=Method.PLAIN,
            id="aaaaa.00",
        )
        (row,) = self.rows()
        self.assertEqual(
            json.loads(json.dumps(row)),
            {
                "id": "aaaaa.00",
                "worker": "aaaaa",
                "protocol": "imap",
                "server": "imaps",
                "client": {"address": "192.0.2.7", "port": 40123},
                "user": "joe@example.org",
                "backend": "10.0.0.1:143",
                "tls": {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "name": "imap.example.org"},
                "method": "plain",
                "phase": "relay",
                "since": "2027-01-15T07:58:59Z",
                "age": 60.5,
                "idle": None,
                "received": 0,
                "sent": 0,
                "at": int(START) - 61,
            },
        )
        session.end()
        self.assertEqual(self.rows(), [])

    def test_young(self) -> None:
        """A connection before its login has neither user nor backend."""
        self.processes.session(user=b"", backend="", phase=Phase.GREETING, client="unix:")
        (row,) = self.rows()
        self.assertEqual((row["user"], row["backend"], row["tls"], row["method"]), ("", None, None, None))
        self.assertEqual(row["client"], {"address": "unix:", "port": 0})
        self.assertEqual(row["phase"], "greeting")

    def test_phases(self) -> None:
        """Connections in all phases are listed."""
        for phase in Phase:
            self.processes.session(phase=phase)
        self.assertEqual([row["phase"] for row in self.rows()], [phase.value for phase in Phase])
        self.assertEqual(len(self.rows(filter={"phase": "auth"})), 1)

    def test_hostile(self) -> None:
        """A user name is text of a bounded length, whatever bytes a client sent."""
        for name in (*HOSTILE, b"\xf0\x9f\x98\x80" * 5000):
            self.processes.session(user=name)
        for row in self.rows():
            json.dumps(row).encode()
            self.assertLessEqual(len(row["user"]), 512)
        self.assertEqual(textOf(b"x" * 300), "x" * 300)
        self.assertEqual(textOf(b"\xff"), "\ufffd")

    def test_order(self) -> None:
        """The order is that of the beginnings, then that of the ids."""
        for started, id in ((5.9, "aaaaa.02"), (5.1, "aaaaa.03"), (7.0, "aaaaa.00"), (4.0, "aaaaa.09")):
            self.processes.session(started=started, id=id)
        self.assertEqual(self.ids(), ["aaaaa.09", "aaaaa.02", "aaaaa.03", "aaaaa.00"])
        self.assertEqual(self.ids(limit=2), ["aaaaa.09", "aaaaa.02"])
        self.assertEqual(self.ids(after=[5, "aaaaa.02"]), ["aaaaa.03", "aaaaa.00"])
        self.assertEqual(self.ids(after=[5, "aaaaa.02"], limit=1), ["aaaaa.03"])

    def test_pauses(self) -> None:
        """The answer pauses often, also if no session matches."""
        for _ in range(10 * PIECE):
            self.processes.session()
        answer = list(self.view.answer("sessions", {"filter": {"user": "jane"}}))
        self.assertEqual(answer, [None] * 10)

    def test_slowMask(self) -> None:
        """A mask that takes long for hostile names does not hold the process longer: the steps are shorter."""
        clock = self.processes.clock
        for _ in range(50):
            self.processes.session()

        def slowly(connection: Any) -> float:
            clock.advance(0.001)
            return 0.0

        self.patch(walking, "began", slowly)
        times, found, before = [], 0, clock.seconds()
        for step in walking.walk(self.view, Filter.fromJSON({"user": "j*"})):
            times.append(clock.seconds() - before)
            found, before = found + len(step), clock.seconds()
        self.assertEqual(found, 50)
        self.assertTrue(max(times) < 0.01, times)

    def test_changes(self) -> None:
        """Connections may begin, end and move during the answer."""
        made = [self.processes.session(phase=Phase.AUTH) for _ in range(3)]
        answer = self.view.answer("sessions", {"filter": {}})
        self.assertIsNone(next(answer))
        made[0].end()
        made[1].becomes()
        self.processes.session()
        rows = [row for row in answer if row is not None]
        self.assertEqual([(row["id"], row["phase"]) for row in rows], [("aaaaa.0002", "relay"), ("aaaaa.0003", "auth")])

    def test_moved(self) -> None:
        """A connection that moves to another object before it is looked at is found, and only once."""
        for _ in range(2 * PIECE):
            self.processes.session(phase=Phase.AUTH)
        answer = self.view.answer("sessions", {"filter": {}})
        next(answer)
        for connection in list(self.processes.factory("aaaaa").connections):
            connection.becomes()
        ids = [row["id"] for row in answer if row is not None]
        self.assertEqual((len(ids), len(set(ids))), (2 * PIECE, 2 * PIECE))

    def test_other(self) -> None:
        """A process that cannot have a session does not look for it."""
        self.processes.session(id="bbbbb.00")
        self.assertEqual(list(self.view.answer("sessions", {"filter": {"id": "bbbbb.00"}})), [])

    def test_generations(self) -> None:
        """Sessions of a gateway that drains are listed like others."""
        self.processes.drains("aaaaa")
        self.processes.session()
        self.processes.session(generation=1)
        self.assertEqual(len(self.ids()), 2)

    def test_badArguments(self) -> None:
        """Arguments that are not valid are refused."""
        bad: tuple[dict[str, Any], ...] = (
            {"limit": 0},
            {"limit": True},
            {"limit": "5"},
            {"limit": 10_002},
            {"after": 5},
            {"after": [5]},
            {"after": ["5", "x"]},
            {"filter": []},
            {"filter": {"usr": "joe"}},
        )
        for arguments in bad:
            self.assertRaises(ValueError, self.view.answer, "sessions", {"filter": {}, **arguments})
        self.assertRaises(ValueError, self.view.answer, "counts", {"filter": {}, "by": "server"})

    def test_counts(self) -> None:
        """Sessions are counted by user, backend, address or protocol."""
        for user, backend in ((b"joe", "a:1"), (b"joe", "b:1"), (b"", "")):
            self.processes.session(user=user, backend=backend)
        expected: dict[str, list[Any]] = {
            "user": [["joe", 2], [None, 1]],
            "backend": [["a:1", 1], ["b:1", 1], [None, 1]],
            "address": [["192.0.2.7", 3]],
            "protocol": [["imap", 3]],
        }
        for by, counts in expected.items():
            found = [row for row in self.view.answer("counts", {"filter": {}, "by": by}) if row is not None]
            self.assertCountEqual(found, counts)
