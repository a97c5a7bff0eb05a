# -*- test-case-name: mailgate.test.keeper.test_recent -*-
"""
Tests for L{mailgate.keeper.recent}.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.recent import LATEST, LOGINS, MOST_ENDS, MOST_USERS, Recent
from mailgate.test.keeper.processes import story


def ids(recent: Recent, user: str | None = None) -> list[str]:
    return [each["id"] for each in recent.stories(user)]


class RecentTests(SynchronousTestCase):
    """L{Recent}."""

    def test_order(self) -> None:
        """The latest story is first, and a user's stories are found in whatever case the name is written."""
        recent = Recent()
        recent.add([story(1, "Joe"), story(3, "ann", "connection"), story(2, "joe", "connection"), story(4, "ann")])
        self.assertEqual(ids(recent), ["4", "3", "2", "1"])
        self.assertEqual(ids(recent, "JOE"), ["2", "1"])
        self.assertEqual(ids(recent, "nix"), [])
        self.assertEqual(recent.stories("joe")[1], story(1, "Joe"))

    def test_bounds(self) -> None:
        """There are the last ends, and the last logins of the users who failed last."""
        recent = Recent()
        recent.add(story(at, "joe", "connection") for at in range(MOST_ENDS + 5))
        self.assertEqual(len(ids(recent)), MOST_ENDS)
        self.assertEqual(ids(recent)[-1], "5")
        recent = Recent()
        for at in range(MOST_USERS + 5):
            recent.add([story(at, f"user{at}"), story(at, "joe")])
        self.assertEqual(len(ids(recent, "joe")), LOGINS)
        self.assertEqual(ids(recent, "joe")[0], str(MOST_USERS + 4))
        self.assertEqual(len(ids(recent)), MOST_USERS - 1 + LOGINS)
        self.assertEqual(ids(recent, "user5"), [])

    def test_off(self) -> None:
        """With C{explain_memory = 0} nothing is kept."""
        recent = Recent(0)
        recent.add([story(1)])
        recent.restore([story(2)])
        self.assertEqual(ids(recent), [])
        self.assertEqual(list(recent.lines()), [])

    def test_limit(self) -> None:
        """C{explain_memory} may change at a reload: the latest stories stay."""
        recent = Recent(4)
        recent.add(story(at, f"user{at}", kind) for at in range(10) for kind in ("login", "connection"))
        self.assertEqual(sorted(ids(recent)), sorted(["6", "7", "8", "9"] * 2))
        recent.limit(2)
        self.assertEqual(sorted(ids(recent)), sorted(["8", "9"] * 2))
        recent.limit(3)
        recent.add([story(10, "joe", "connection")])
        self.assertEqual(sorted(ids(recent)), sorted(["10", "8", "9", "8", "9"]))
        recent.limit(0)
        recent.add([story(11, "joe"), story(12, "joe", "connection")])
        self.assertEqual(ids(recent), [])

    def test_texts(self) -> None:
        """Long texts are cut."""
        recent = Recent()
        recent.add([story(1, "j" * 500, text="x" * 1000)])
        (kept,) = recent.stories("j" * 500)
        self.assertEqual((kept["text"], kept["user"]), ("x" * 200, "j" * 200))

    def test_invalid(self) -> None:
        """What is no story is ignored."""
        deep: Any = {}
        for _ in range(20):
            deep = {"x": deep}
        recent = Recent()
        recent.add(
            [
                None,
                "x",
                {},
                story(1, kind="other"),
                {**story(1), "at": 3},
                {**story(1), "at": "yesterday"},
                {**story(1), "at": "2026-11-28T10:00:00Z\n"},
                {**story(1), "user": 3},
                {**story(1), "times": float("nan")},
                {**story(1), "times": b"x"},
                {**story(1), "times": deep},
                {**story(1), "times": ["x" * 100] * 100},
                {**story(1), "client": "joe"},
                {**story(1), "seconds": "\x1b[2J"},
                {**story(1), "text": ["x"]},
                {**story(1), "attempts": 1e999},
            ]
        )
        self.assertEqual(ids(recent), [])
        recent.add([{**story(1), "user": None}])
        self.assertEqual(ids(recent), ["1"])

    def test_own(self) -> None:
        """Those of this process are kept like others; one that is too long is left out."""
        others, recent = Recent(), Recent()
        for each in (others, recent):
            each.add([story(1, "Joe"), story(2, "joe", kind="login")], areOwn=each is recent)
        self.assertEqual(recent.stories("JOE"), others.stories("JOE"))
        recent.add([story(3, "joe", text="x" * 5000)], areOwn=True)
        self.assertEqual(len(recent.stories()), 2)

    def test_restore(self) -> None:
        """A successor has all stories once, in order, also if it gets them twice."""
        before = Recent()
        before.add([story(1, "joe", "connection"), story(2), story(5, "ann")])
        recent = Recent()
        recent.add([story(6), story(3, "joe", "connection")])
        for _ in range(2):
            recent.restore(json.loads(each) for each in before.lines())
        self.assertEqual(ids(recent), ["6", "5", "3", "2", "1"])
        self.assertEqual(ids(recent, "joe"), ["6", "3", "2", "1"])

    def test_latest(self) -> None:
        """The latest refused logins of all users; those of a predecessor are not new."""
        recent = Recent()
        recent.add([story(1, "joe"), story(2, "ann", "connection"), story(3, "ann")])
        self.assertEqual(([each["id"] for each in recent.latest()], recent.refused), (["3", "1"], 2))
        self.assertEqual([each["id"] for each in recent.latest(1)], ["3"])
        self.assertEqual(recent.latest(0), [])
        recent.restore([story(0, "joe"), story(1, "joe")])
        self.assertEqual(([each["id"] for each in recent.latest()], recent.refused), (["3", "1", "0"], 2))
        recent.add(story(at, f"user{at}") for at in range(4, 100))
        self.assertEqual((len(recent.latest()), recent.latest()[0]["id"]), (LATEST, "99"))
        recent.limit(0)
        self.assertEqual(recent.latest(), [])
