"""Tests for L{mailgate.cli.kick}."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

from mailgate.system.exitstatus import NOTHING_MATCHED, REFUSED
from mailgate.test.cli.adminserver import AdminTestCase, Terminal


def ended(*counts: int, **others: Any) -> dict[str, Any]:
    """The answer of gateways that have ended so many sessions."""
    gateways = [{"name": f"g{number}", "ended": count} for number, count in enumerate(counts, 1)]
    return {"ended": sum(counts), "gateways": gateways, "unanswered": [], **others}


class KickTests(AdminTestCase):
    """C{mailgate kick}."""

    def bodies(self) -> list[Any]:
        self.assertEqual({(asked.method, asked.path) for asked in self.server.asked}, {("POST", "/api/1/kick")})
        self.assertEqual({asked.headers["Content-Type"] for asked in self.server.asked}, {"application/json"})
        return [asked.body for asked in self.server.asked]

    def test_user(self) -> None:
        """The user is sent with the reason; the counts of each gateway are printed."""
        self.answers(ended(3, 1))
        self.assertEqual(self.command("kick", "joe@example.org", "--reason", "password changed"), 0)
        self.assertEqual(self.bodies(), [{"user": "joe@example.org", "reason": "password changed"}])
        self.assertEqual(self.out.getvalue(), "3 sessions ended at g1, 1 at g2; cached answers forgotten\n")

    def test_nameless(self) -> None:
        """A gateway without a name is not named."""
        self.answers({"ended": 1, "gateways": [{"name": "", "ended": 1}], "unanswered": []})
        self.assertEqual(self.command("kick", "joe"), 0)
        self.assertEqual(self.out.getvalue(), "1 session ended; cached answers forgotten\n")

    def test_forgotten(self) -> None:
        """The number of forgotten answers is printed, if the gateway says it."""
        for forgotten, expected in ((1, "1 cached answer"), (12, "12 cached answers")):
            self.answers(ended(1, forgotten=forgotten))
            self.assertEqual(self.command("kick", "joe"), 0)
            self.assertIn(f"1 session ended at g1; {expected} forgotten\n", self.out.getvalue())

    def test_block(self) -> None:
        """A block and a hold are sent as seconds, and the answer says until when."""
        until = "2001-02-03T04:05:06Z"
        row = {"id": "b7", "thing": "joe", "rule": "block", "until": until, "reason": "stolen"}
        self.answers(ended(0, blocked=row, held={**row, "id": "b8", "rule": "hold", "reason": ""}))
        self.assertEqual(self.command("kick", "joe", "--block", "1h", "--hold", "10m"), 0)
        self.assertEqual(self.bodies(), [{"user": "joe", "block": 3600.0, "hold": 600.0}])
        lines = self.out.getvalue().splitlines()
        self.assertEqual(lines[0], "0 sessions ended at g1; cached answers forgotten")
        self.assertRegex(lines[1], r"^joe is blocked until 2001-02-0\d [\d:]{8} \(b7\): stolen$")
        self.assertRegex(lines[2], r"^joe is held until 2001-02-0\d [\d:]{8} \(b8\)$")

    def test_filters(self) -> None:
        """All filters, over and all are sent."""
        self.answers(ended(2))
        given = ["--backend", "10.0.0.3:143", "--address", "192.0.2.0/24", "--protocol", "imap", "--id", "5g0qa.7k"]
        self.assertEqual(self.command("kick", *given, "--over", "1m", "--all"), 0)
        (body,) = self.bodies()
        expected = {"backend": "10.0.0.3:143", "address": "192.0.2.0/24", "protocol": "imap", "id": "5g0qa.7k"}
        self.assertEqual(body, {**expected, "over": 60.0, "all": True})
        self.assertEqual(self.out.getvalue(), "2 sessions end within 60 s at g1; cached answers forgotten\n")

    def test_overOne(self) -> None:
        """One session ends."""
        self.answers(ended(1))
        self.assertEqual(self.command("kick", "joe", "--over", "1m"), 0)
        self.assertEqual(self.out.getvalue(), "1 session ends within 60 s at g1; cached answers forgotten\n")

    def test_everybodyNeedsAll(self) -> None:
        """Without a filter, and for * alone, --all is needed: nothing is sent."""
        for arguments in ((), ("*",), ("--reason", "x")):
            self.assertEqual(self.command("kick", *arguments), 2)
        self.assertEqual(self.server.asked, [])
        self.assertIn("USER, a filter or --all is required", self.errors.getvalue())

    def test_dryRun(self) -> None:
        """A trial only counts, and says so."""
        self.answers(ended(3))
        self.assertEqual(self.command("kick", "j*", "--dry-run"), 0)
        self.assertEqual(self.bodies(), [{"user": "j*", "dry_run": True}])
        self.assertEqual(self.out.getvalue(), "3 sessions would end at g1\n")

    def test_nothing(self) -> None:
        """If nothing matched, the status says so."""
        self.answers(ended(0))
        self.assertEqual(self.command("kick", "joe"), NOTHING_MATCHED)
        self.assertEqual(self.out.getvalue(), "0 sessions ended at g1; cached answers forgotten\n")

    def test_unanswered(self) -> None:
        """If a process has not answered, the status says so."""
        self.answers(ended(3, unanswered=["process 4711 has not answered"]))
        self.assertEqual(self.command("kick", "joe"), REFUSED)
        self.assertEqual(self.errors.getvalue(), "not complete: process 4711 has not answered\n")

    def test_json(self) -> None:
        """--json prints the answer."""
        self.answers(ended(3))
        self.assertEqual(self.command("kick", "joe", "--json"), 0)
        self.assertEqual(json.loads(self.out.getvalue()), ended(3))

    def atTerminal(self, says: str) -> None:
        typed = Terminal(says)
        self.errors = Terminal()
        self.patch(sys, "stdin", typed)

    def test_confirmed(self) -> None:
        """A terminal is asked before more than 20 sessions end, with their number."""
        self.atTerminal("y\n")
        self.answers(ended(21), ended(22))
        self.assertEqual(self.command("kick", "--backend", "10.0.0.3:143"), 0)
        self.assertEqual(self.bodies(), [{"backend": "10.0.0.3:143", "dry_run": True}, {"backend": "10.0.0.3:143"}])
        self.assertEqual(self.errors.getvalue(), "End 21 sessions? [y/N] ")

    def test_notConfirmed(self) -> None:
        """Any other answer, and the end of input, ends nothing."""
        for says in ("n\n", "\n", "", "yesterday\n"):
            self.atTerminal(says)
            self.server.asked.clear()
            self.answers(ended(21))
            self.assertEqual(self.command("kick", "j*"), REFUSED)
            self.assertEqual(self.bodies(), [{"user": "j*", "dry_run": True}])
            self.assertIn("no session was ended\n", self.errors.getvalue())

    def test_few(self) -> None:
        """Up to 20 sessions end without a question."""
        self.atTerminal("")
        self.answers(ended(20))
        self.assertEqual(self.command("kick", "joe"), 0)
        self.assertEqual(self.bodies(), [{"user": "joe", "dry_run": True}, {"user": "joe"}])

    def test_yes(self) -> None:
        """--yes asks nothing, and neither does a program."""
        self.atTerminal("")
        self.answers(ended(21))
        self.assertEqual(self.command("kick", "j*", "--yes"), 0)
        self.patch(sys, "stdin", io.StringIO("n\n"))
        self.assertEqual(self.command("kick", "j*"), 0)
        self.assertEqual(self.bodies(), [{"user": "j*"}] * 2)
