"""Tests for L{mailgate.cli.moves}."""

from __future__ import annotations

import json
from typing import Any

from mailgate.keeper.admin.examples import A_MOVE, A_WHERE
from mailgate.system.exitstatus import NOT_PERMITTED, NOTHING_MATCHED, REFUSED
from mailgate.test.cli.test_blocks import HOLD, BlocksCase, problem

USER = "joe@example.org"
MOVED = {**A_MOVE, "id": None, "ended": 0, "done": []}
SHOWN: dict[str, Any] = {
    "user": USER,
    "where": A_WHERE,
    "holds": [],
    "gateways": [{"name": "g1", "age": 0.0, "complete": True, "missing": []}],
}


class MoveTests(BlocksCase):
    """C{mailgate move}."""

    def test_move(self) -> None:
        """The new and the old place are told, and the sessions that go on."""
        self.answers({**MOVED, "sessions": 2})
        self.assertEqual(self.command("move", "joe/x@example.org", "10.0.0.2:143", "--group", "imap"), 0)
        body = {"backend": "10.0.0.2:143", "group": "imap"}
        self.assertEqual(self.requests(), [("POST", "/api/1/users/joe%2Fx%40example.org/move", body)])
        self.assertEqual(
            self.out.getvalue(),
            f"{USER} goes to 10.0.0.2:143 from now on (upstream imap, pop3), before 10.0.0.1:143;"
            " 2 sessions elsewhere go on until they end\n",
        )
        self.assertEqual(self.errors.getvalue(), "")

    def test_first(self) -> None:
        """A user without a place and without sessions."""
        self.answers({**MOVED, "before": None})
        self.assertEqual(self.command("move", USER, "10.0.0.2:143"), 0)
        self.assertEqual(self.out.getvalue(), f"{USER} goes to 10.0.0.2:143 from now on (upstream imap, pop3)\n")

    def test_whenQuiet(self) -> None:
        """The command asks until the move has ended, and tells how many sessions are left when that changes."""
        waiting = {**A_MOVE, "state": "waiting", "sessions": 2}
        answers = [waiting, waiting, {**waiting, "sessions": 1}, A_MOVE]
        self.server.answer = lambda asked: (200, answers.pop(0))
        self.assertEqual(self.command("move", USER, "10.0.0.2:143", "--when-quiet", "--for", "2m"), 0)
        path = "/api/1/users/joe%40example.org"
        self.assertEqual(
            self.requests(),
            [
                ("POST", f"{path}/move", {"backend": "10.0.0.2:143", "when_quiet": True, "for": 120.0}),
                *[("GET", f"{path}/moves/{A_MOVE['id']}", None)] * 3,
            ],
        )
        self.assertEqual(
            self.errors.getvalue(), f"waiting until 2 sessions of {USER} end\nwaiting until 1 session of {USER} end\n"
        )
        self.assertIn("before 10.0.0.1:143; 2 sessions ended, and logins are no longer held", self.out.getvalue())

    def test_json(self) -> None:
        """For programs."""
        self.answers(A_MOVE)
        self.assertEqual(self.command("move", USER, "10.0.0.2:143", "--json"), 0)
        self.assertEqual(json.loads(self.out.getvalue()), A_MOVE)

    def test_refused(self) -> None:
        """The reason is the gateway's, with what was done."""
        detail = "1 of his sessions are still at 10.0.0.1:143; before that: his logins were held, the hold has ended"
        self.refuses(409, detail)
        self.assertEqual(self.command("move", USER, "10.0.0.2:143", "--when-quiet"), REFUSED)
        self.assertIn(detail, self.errors.getvalue())
        self.refuses(403, "this needs the level admin")
        self.assertEqual(self.command("move", USER, "10.0.0.2:143"), NOT_PERMITTED)

    def test_lost(self) -> None:
        """A gateway that was replaced meanwhile does not know the move."""
        answers = [(200, {**A_MOVE, "state": "waiting"}), problem(404, "there is no such move")]
        self.server.answer = lambda asked: answers.pop(0)
        self.assertEqual(self.command("move", USER, "10.0.0.2:143", "--when-quiet"), NOTHING_MATCHED)
        self.assertIn("there is no such move", self.errors.getvalue())

    def test_mistakes(self) -> None:
        """--for needs --when-quiet; both arguments are required."""
        for arguments in ((USER,), (USER, "10.0.0.2:143", "--for", "2m"), (USER, "x", "--when-quiet", "--for", "x")):
            self.assertEqual(self.command("move", *arguments), 2)
        self.assertEqual(self.server.asked, [])

    def test_stranger(self) -> None:
        """An answer of something else is none."""
        self.answers({"x": 1})
        self.assertEqual(self.command("move", USER, "10.0.0.2:143"), REFUSED)
        self.assertIn("is not an admin server of mailgate", self.errors.getvalue())
        self.answers({"state": "moved", "user": 1, "groups": 7, "backend": "\x1b[2J", "sessions": "x", "id": None})
        self.assertEqual(self.command("move", USER, "10.0.0.2:143"), 0)
        self.assertNotIn("\x1b", self.out.getvalue())


class WhereTests(BlocksCase):
    """C{mailgate where}."""

    def where(self, **changes: Any) -> int:
        self.answers({**SHOWN, **changes})
        return self.command("where", USER)

    def test_where(self) -> None:
        """Places, sessions and holds."""
        self.assertEqual(self.where(holds=[HOLD]), 0)
        self.assertEqual(self.requests(), [("GET", "/api/1/users/joe%40example.org", None)])
        self.assertEqual(
            self.out.getvalue().splitlines(),
            [
                f"{USER} has the place 10.0.0.1:143 (upstream imap, pop3)",
                "GATEWAY  BACKEND       SESSIONS",
                "g1       10.0.0.1:143         1",
                "joe is held until 2001-02-03 04:05:06 (b8)",
            ],
        )

    def test_nowhere(self) -> None:
        """A user who is nowhere matches nothing."""
        places = [{"groups": ["imap"], "backend": None}]
        self.assertEqual(self.where(where={"places": places, "sessions": []}), NOTHING_MATCHED)
        self.assertEqual(
            self.out.getvalue(), f"{USER} has no place (upstream imap)\n{USER} has no session at a backend\n"
        )
        self.assertEqual(self.where(where={"places": [], "sessions": []}), NOTHING_MATCHED)
        self.assertIn("no group of backends is sticky", self.errors.getvalue())

    def test_unknown(self) -> None:
        """What is not known is said, and the status is not 0."""
        self.assertEqual(self.where(where={**A_WHERE, "places": None}), REFUSED)
        self.assertIn("the places are not known: the store does not answer", self.errors.getvalue())
        gateways = [{"name": "g2", "age": 31.0, "complete": False, "missing": []}]
        self.assertEqual(self.where(gateways=gateways), REFUSED)
        self.assertIn("not complete: gateway g2: it has not answered", self.errors.getvalue())
        self.assertIn("has the place", self.out.getvalue())

    def test_json(self) -> None:
        """For programs."""
        self.answers(SHOWN)
        self.assertEqual(self.command("where", USER, "--json"), 0)
        expected = {"user": USER, **A_WHERE, "holds": [], "gateways": SHOWN["gateways"]}
        self.assertEqual(json.loads(self.out.getvalue()), expected)
