"""Tests for L{mailgate.cli.blocks} and L{mailgate.cli.moments}."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from mailgate.cli.moments import left, local
from mailgate.keeper.moments import moment
from mailgate.system.exitstatus import NOT_PERMITTED, NOTHING_MATCHED, REFUSED
from mailgate.test.cli.adminserver import AdminTestCase

ROW: dict[str, Any] = {
    "id": "b7",
    "thing": "198.51.100.0/24",
    "rule": "block",
    "since": "2001-02-03T02:05:06Z",
    "until": "2001-02-03T04:05:06Z",
    "reason": "abuse",
    "count": 1,
}
HOLD = {**ROW, "id": "b8", "thing": "joe", "rule": "hold", "reason": ""}


def problem(status: int, detail: str) -> Any:
    """An answer that says what is wrong."""
    return status, {"type": "about:blank", "title": "x", "status": status, "detail": detail}


class BlocksCase(AdminTestCase):
    """Commands, in the time zone UTC."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(os, "environ", {**os.environ, "TZ": "UTC"})
        time.tzset()
        self.addCleanup(time.tzset)

    def requests(self) -> list[tuple[str, str, Any]]:
        return [(asked.method, asked.path, asked.body) for asked in self.server.asked]

    def refuses(self, status: int, detail: str) -> None:
        self.server.answer = lambda asked: problem(status, detail)


class BlockTests(BlocksCase):
    """C{mailgate block} and C{hold}."""

    def test_block(self) -> None:
        """What is blocked, for how long and why is sent; the answer says until when."""
        self.answers(ROW)
        self.assertEqual(self.command("block", "198.51.100.0/24", "--for", "2h", "--reason", "abuse"), 0)
        body = {"thing": "198.51.100.0/24", "for": 7200.0, "reason": "abuse"}
        self.assertEqual(self.requests(), [("POST", "/api/1/blocks", body)])
        self.assertEqual(self.out.getvalue(), "198.51.100.0/24 is blocked until 2001-02-03 04:05:06 (b7): abuse\n")

    def test_hold(self) -> None:
        """The name of a user may have any sign."""
        self.answers(HOLD)
        self.assertEqual(self.command("hold", "joe/x@example.org", "--for", "10m"), 0)
        self.assertEqual(self.requests(), [("POST", "/api/1/users/joe%2Fx%40example.org/hold", {"for": 600.0})])
        self.assertEqual(self.out.getvalue(), "joe is held until 2001-02-03 04:05:06 (b8)\n")

    def test_alone(self) -> None:
        """A block in force at this gateway alone is one; standard error says what is missing elsewhere."""
        doubt = {"unanswered": ["the others hear of it later"]}
        self.answers({**HOLD, **doubt})
        self.assertEqual(self.command("hold", "joe", "--for", "2h"), 0)
        self.answers({"ended": [HOLD], **doubt})
        self.assertEqual(self.command("release", "joe"), 0)
        self.answers({"blocks": [ROW], "total": 1, **doubt})
        self.assertEqual(self.command("blocked"), 0)
        self.assertEqual(self.errors.getvalue(), "not complete: the others hear of it later\n" * 3)
        self.answers({"blocks": [], "total": 0, **doubt})
        self.assertEqual(self.command("blocked"), REFUSED)

    def test_mistakes(self) -> None:
        """Without a time nothing is blocked; what the gateway does not accept is said in its words."""
        for arguments in (("block", "joe"), ("block", "--for", "2h"), ("hold", "joe"), ("block", "joe", "--for", "x")):
            self.assertEqual(self.command(*arguments), 2)
        self.assertEqual(self.server.asked, [])
        self.refuses(400, "0.0.0.0/0 means all clients")
        self.assertEqual(self.command("block", "0.0.0.0/0", "--for", "2h"), REFUSED)
        self.assertIn("0.0.0.0/0 means all clients", self.errors.getvalue())
        self.refuses(403, "this needs the level admin; you have operate")
        self.assertEqual(self.command("hold", "joe", "--for", "2h"), NOT_PERMITTED)

    def test_json(self) -> None:
        """Programs get the answer."""
        self.answers(ROW)
        self.assertEqual(self.command("block", "198.51.100.0/24", "--for", "2h", "--json"), 0)
        self.assertEqual(json.loads(self.out.getvalue()), ROW)

    def test_otherServer(self) -> None:
        """Another server than an admin server of mailgate is no success."""
        others: list[Any] = [[], {"x": 1}]
        for answer in others:
            self.answers(answer)
            for arguments in (("block", "joe", "--for", "2h"), ("unblock", "joe"), ("blocked",), ("release", "joe")):
                self.assertEqual(self.command(*arguments), REFUSED)
        self.assertIn("is not an admin server of mailgate", self.errors.getvalue())


class UnblockTests(BlocksCase):
    """C{mailgate unblock} and C{release}."""

    def test_unblock(self) -> None:
        """Blocks end, and each is named."""
        self.answers({"ended": [{**ROW, "rule": "R4"}, HOLD, "x"]})
        self.assertEqual(self.command("unblock", "198.51.100.0/24"), 0)
        self.assertEqual(self.requests(), [("DELETE", "/api/1/blocks/198.51.100.0%2F24", {})])
        self.assertEqual(
            self.out.getvalue(), "198.51.100.0/24 is no longer blocked by R4 (b7)\njoe is no longer held (b8)\n"
        )

    def test_release(self) -> None:
        """A hold ends."""
        self.answers({"ended": [HOLD]})
        self.assertEqual(self.command("release", "joe"), 0)
        self.assertEqual(self.requests(), [("POST", "/api/1/users/joe/release", {})])
        self.assertEqual(self.out.getvalue(), "joe is no longer held (b8)\n")

    def test_nothing(self) -> None:
        """If nothing was blocked, the status and a sentence say so."""
        self.refuses(404, "nothing was blocked; failures were forgotten")
        self.assertEqual(self.command("unblock", "joe"), NOTHING_MATCHED)
        self.assertEqual(self.errors.getvalue(), "nothing was blocked; failures were forgotten\n")

    def test_earlier(self) -> None:
        """A gateway of an earlier release has no such path, which is another error."""
        self.refuses(404, "there is no such path; did you mean /api/1/backends?")
        self.assertEqual(self.command("unblock", "joe"), REFUSED)
        self.assertIn("has no /api/1/blocks/joe", self.errors.getvalue())

    def test_json(self) -> None:
        """Programs get the answer."""
        self.answers({"ended": [HOLD]})
        self.assertEqual(self.command("release", "joe", "--json"), 0)
        self.assertEqual(json.loads(self.out.getvalue()), {"ended": [HOLD]})


class BlockedTests(BlocksCase):
    """C{mailgate blocked}."""

    def test_list(self) -> None:
        """Blocks are a table; the rest of time is that of now."""
        later = moment(time.time() + 3605)
        self.answers({"blocks": [{**ROW, "until": later}, {**HOLD, "reason": "a\x1bb"}], "total": 5})
        self.assertEqual(self.command("blocked"), 0)
        self.assertEqual(
            self.out.getvalue().splitlines(),
            [
                "ID  BLOCKED          RULE   SINCE                LEFT  REASON",
                "b7  198.51.100.0/24  block  2001-02-03 02:05:06  1h    abuse".replace("1h    ", "  1h  "),
                r"b8  joe              hold   2001-02-03 02:05:06    0s  a\x1bb",
            ],
        )
        self.assertIn("and 3 more", self.errors.getvalue())

    def test_chosen(self) -> None:
        """The filters are sent."""
        self.answers({"blocks": [ROW], "total": 1})
        self.assertEqual(self.command("blocked", "198.*", "--rule", "R4", "--limit", "7"), 0)
        (asked,) = self.server.asked
        self.assertEqual((asked.path, asked.query), ("/api/1/blocks", {"thing": "198.*", "rule": "R4", "limit": "7"}))

    def test_nothing(self) -> None:
        """If nothing is blocked, the status and a sentence say so."""
        self.answers({"blocks": [], "total": 0})
        self.assertEqual(self.command("blocked"), NOTHING_MATCHED)
        self.assertEqual(self.command("blocked", "joe"), NOTHING_MATCHED)
        self.assertEqual(self.out.getvalue(), "nothing is blocked\nno block matches\n")


class MomentsTests(BlocksCase):
    """Times on a terminal."""

    def test_local(self) -> None:
        """Today has the time alone; another value is shown as it is."""
        for value, expected in (
            ("2001-02-03T04:05:06Z", "04:05:06"),
            ("2001-02-04T04:05:06Z", "2001-02-04 04:05:06"),
            ("x\x1b", r"x\x1b"),
            (None, "-"),
        ):
            self.assertEqual(local(value, 981_158_400.0), expected)

    def test_left(self) -> None:
        """What has passed is 0."""
        self.assertEqual(left("2001-02-03T04:05:06Z", 981_158_400.0), "4h5m")
        self.assertEqual(left("2000-02-03T04:05:06Z", 981_158_400.0), "0s")
        self.assertEqual(left(7, 981_158_400.0), "-")
