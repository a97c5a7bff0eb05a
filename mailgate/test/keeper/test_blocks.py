"""
Tests for L{mailgate.keeper.blocks}, L{mailgate.keeper.blockrows} and L{mailgate.keeper.limited}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.blockrows import blocksOf
from mailgate.keeper.blocks import LONGEST_HOLD, NoLimits, block, listBlocks, release, unblock, withDoubt
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.limited import MOST_NETWORKS, isSlowed, limitsOf, userLimits
from mailgate.limits.attempt import Rule
from mailgate.test.support.limitstore import NOW, StandInLimits
from mailgate.test.support.neighbours import Neighbourhood


class BlocksCase(SynchronousTestCase):
    """A keeper with limits."""

    def setUp(self) -> None:
        self.keeper = Keeper(Clock(), "g1")
        self.keeper.limits = self.limits = StandInLimits()

    def limitsOfUser(self, sessions: list[Any], recent: list[Any]) -> Any:
        return self.successResultOf(userLimits(self.keeper, "joe", sessions, recent))

    def things(self, **chosen: Any) -> list[str]:
        return [row["thing"] for row in listBlocks(self.keeper, **chosen)["blocks"]]


class BlocksTests(BlocksCase):
    """Lists, blocks, holds."""

    def test_block(self) -> None:
        """A block is a row of JSON, with its times as RFC 3339."""
        row = block(self.keeper, "198.51.100.0/24", 7200, "abuse")
        self.assertEqual(
            row,
            {
                "id": "b1",
                "thing": "198.51.100.0/24",
                "rule": "block",
                "since": "2027-01-15T08:00:00Z",
                "until": "2027-01-15T10:00:00Z",
                "reason": "abuse",
                "count": 1,
            },
        )
        self.assertEqual(listBlocks(self.keeper), {"blocks": [row], "total": 1})

    def test_doubt(self) -> None:
        """An answer says what the other gateways keep it from only while there is a store that cannot be used."""
        answer: dict[str, Any] = {"ended": []}
        self.assertEqual(withDoubt(self.keeper, answer, "they hear it later"), answer)
        others: Any = Neighbourhood("g1", "g2").gateways["g1"].others
        self.keeper.others = others
        self.assertEqual(withDoubt(self.keeper, answer, "they hear it later"), answer)
        others.neighbours.changed(False, "hangs")
        found = withDoubt(self.keeper, answer, "they hear it later")
        self.assertEqual(found, {"ended": [], "unanswered": ["they hear it later: the store hangs"]})

    def test_checked(self) -> None:
        """What is not valid blocks nothing, and says why."""
        for thing, seconds, reason, isHold, expected in (
            ("joe", 0, "", False, "more than 0"),
            ("joe", 367 * 86400, "", False, "at most 31622400"),
            ("joe", LONGEST_HOLD + 1, "", True, "at most 86400"),
            ("joe", 60, "two\nlines", False, "one printable line"),
            ("joe", 60, "x" * 201, False, "at most 200 characters"),
            ("", 60, "", False, "one printable line"),
            ("j\x1b[2Joe", 60, "", False, "one printable line"),
            ("0.0.0.0/0", 60, "", False, "means all clients"),
            ("::/0", 60, "", False, "means all clients"),
            ("192.0.2.7", 60, "", True, "is no user"),
            ("joe 192.0.2.7", 60, "", True, "is no user"),
            ("bad", 60, "", False, "bad is no user, address or network"),
        ):
            error = self.assertRaises(ValueError, block, self.keeper, thing, seconds, reason, isHold)
            self.assertIn(expected, str(error), thing)
        self.assertEqual(self.limits.held, [])

    def test_chosen(self) -> None:
        """A list can have the blocks of a rule, those of a thing, and the latest ones."""
        for thing, rule in (("joe@example.org", Rule.BLOCK), ("192.0.2.7", Rule.ADDRESS_BLOCK), ("jane", Rule.HOLD)):
            self.limits.add(thing, rule)
        self.assertEqual(self.things(), ["jane", "192.0.2.7", "joe@example.org"])
        self.assertEqual(self.things(rule="R4"), ["192.0.2.7"])
        self.assertEqual(self.things(thing="J*"), ["jane", "joe@example.org"])
        self.assertEqual(self.things(thing="192.0.2.*", rule="hold"), [])
        self.assertEqual(listBlocks(self.keeper, limit=1)["total"], 3)
        self.assertEqual(self.things(limit=1), ["jane"])
        self.assertIn("R9 is no rule; known are access", str(self.assertRaises(ValueError, self.things, rule="R9")))
        for limit in (0, 1001, True):
            self.assertRaises(ValueError, self.things, limit=limit)

    def test_escaped(self) -> None:
        """A name that clients have chosen stays one line."""
        self.limits.add("joe\n\u202e", Rule.PAIR_BLOCK)
        self.assertEqual(self.things(), ["joe\\n\\u202e"])

    def test_unblock(self) -> None:
        """A block ends by its id, and by what it blocks."""
        self.limits.add("joe")
        self.limits.add("jane")
        self.assertEqual([row["thing"] for row in unblock(self.keeper, "b1")["ended"]], ["joe"])
        self.assertEqual([row["id"] for row in unblock(self.keeper, "jane")["ended"]], ["b2"])
        self.assertEqual(unblock(self.keeper, "jane"), {"ended": []})
        self.assertEqual(self.limits.forgotten, ["b1", "jane", "jane"])

    def test_release(self) -> None:
        """A release ends holds, and no blocks; the name may be spelled differently."""
        block(self.keeper, "joe", 60, "", True)
        block(self.keeper, "joe", 60)
        self.assertEqual([row["rule"] for row in release(self.keeper, " Joe")["ended"]], ["hold"])
        self.assertEqual([row["rule"] for row in listBlocks(self.keeper)["blocks"]], ["block"])
        self.assertEqual(release(self.keeper, "joe"), {"ended": []})

    def test_none(self) -> None:
        """A gateway without limits says so, and shows none."""
        self.keeper.limits = None
        for function, arguments in ((block, ("joe", 60)), (listBlocks, ()), (unblock, ("joe",))):
            self.assertRaises(NoLimits, function, self.keeper, *arguments)
        self.assertEqual(blocksOf(None, 10), ([], 0))
        self.assertIsNone(limitsOf(self.keeper, "joe", None, None))
        self.assertEqual(self.limitsOfUser([], []), {"failures": None, "networks": [], "blocks": [], "holds": []})

    def test_bounded(self) -> None:
        """Of many blocks the page has the latest, and their number."""
        for number in range(7):
            self.limits.add(f"u{number}")
        rows, total = blocksOf(self.limits, 5)
        self.assertEqual(([row["thing"] for row in rows], total), (["u6", "u5", "u4", "u3", "u2"], 7))


class LimitedTests(BlocksCase):
    """What the limits know."""

    def test_explained(self) -> None:
        """Names are canonical, times RFC 3339, and values of the store are not changed."""
        self.limits.add("joe", Rule.HOLD)
        self.limits.found = {"known": True, "lastSuccess": NOW, "pair": {"failures": 3, "limit": 10, "since": NOW}}
        found: Any = limitsOf(self.keeper, " JOE ", "::ffff:192.0.2.7", "imap")
        self.assertEqual(self.limits.asked, [(b"joe", "192.0.2.7", "imap")])
        self.assertEqual((found["known"], found["last_success"]), (True, "2027-01-15T08:00:00Z"))
        self.assertEqual(found["pair"], {"failures": 3, "limit": 10, "since": "2027-01-15T08:00:00Z"})
        self.assertEqual(found["blocks"], listBlocks(self.keeper)["blocks"])
        self.assertNotIn("lastSuccess", found)

    def test_unix(self) -> None:
        """A unix socket has no address that could be canonical."""
        limitsOf(self.keeper, "joe", "unix:", None)
        self.assertEqual(self.limits.asked, [(b"joe", "unix:", "")])

    def test_user(self) -> None:
        """A user's addresses are those of the sessions and stories, each once; blocks are those from there."""
        self.limits.add("joe", Rule.HOLD)
        self.limits.add("joe 192.0.2.7", Rule.PAIR_BLOCK)
        self.limits.add("198.51.100.9")
        self.limits.add("203.0.113.1")
        rows = [{"client": {"address": each}} for each in ("192.0.2.7", "unix:", "192.0.2.7", None)]
        stories: list[Any] = [{"client": {"address": "198.51.100.9"}}, {"client": None}, {}]
        found = self.limitsOfUser(rows, stories)
        self.assertEqual([each["address"] for each in found["networks"]], ["192.0.2.7", "198.51.100.9"])
        self.assertEqual({each["known"] for each in found["networks"]}, {False})
        self.assertEqual([each["thing"] for each in found["holds"]], ["joe"])
        self.assertEqual([each["thing"] for each in found["blocks"]], ["joe 192.0.2.7", "198.51.100.9"])
        self.assertEqual(found["failures"], {"failures": 0, "limit": 50, "since": None})

    def test_userBounded(self) -> None:
        """A user with many addresses costs few look-ups."""
        rows = [{"client": {"address": f"192.0.2.{number}"}} for number in range(100)]
        self.assertEqual(len(self.limitsOfUser(rows, [])["networks"]), MOST_NETWORKS)

    def test_slowed(self) -> None:
        """A user is slowed from the limit of R6 on, and never if R6 is off."""
        for failures, limit, expected in ((49, 50, False), (50, 50, True), (99, 0, False), (99, None, False)):
            self.limits.found = {"user": {"failures": failures, "limit": limit, "since": None}}
            self.assertEqual(isSlowed(self.keeper, "joe"), expected)
        self.limits.found = {"user": None}
        self.assertFalse(isSlowed(self.keeper, "joe"))
