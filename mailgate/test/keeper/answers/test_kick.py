"""Tests for L{mailgate.keeper.answers.kick}."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.kicking import GRACE, LOOK, MOST_SPREADS
from mailgate.keeper.answers.kick import MOST_USERS
from mailgate.keeper.answers.walk import PIECE
from mailgate.login import Trouble
from mailgate.session import Outcome, Phase
from mailgate.test.support.processes import Processes


class KickTests(SynchronousTestCase):
    """The answers to C{kick}, C{forget} and C{users}."""

    def setUp(self) -> None:
        self.processes = Processes("aaaaa")
        self.view = self.processes.views[0]
        self.clock = self.processes.clock

    def kick(self, filter: dict[str, Any], **arguments: Any) -> int:
        """Kick, and return how many sessions end. Those that end at once have ended."""
        given = {"filter": filter, "reason": "by uid 0", "over": 0.0, **arguments}
        count: int = sum(self.view.answer("kick", given))
        self.clock.advance(0)
        return count

    def test_user(self) -> None:
        """The sessions of a user end, those of others stay."""
        joe, jane = self.processes.session(user=b"joe"), self.processes.session(user=b"jane")
        self.assertEqual(self.kick({"user": "JOE"}), 1)
        self.assertEqual((joe.calls, jane.calls), ([(Outcome.KICKED, Trouble.STOPPING)], []))
        self.assertEqual((joe.session.outcome, joe.session.reason), (Outcome.KICKED, "by uid 0"))
        self.assertEqual(self.kick({"user": "joe"}), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_phases(self) -> None:
        """Sessions end in every phase, except those that have ended."""
        made = [self.processes.session(phase=phase) for phase in Phase]
        self.assertEqual(self.kick({"user": "joe"}), len(Phase) - 1)
        kicked = [each.session.reached for each in made if each.session.outcome is Outcome.KICKED]
        self.assertEqual(len(kicked), len(Phase) - 1)

    def test_generations(self) -> None:
        """Sessions of a gateway that drains end like others."""
        self.processes.drains("aaaaa")
        old = self.processes.session(generation=1)
        self.processes.session()
        self.assertEqual(self.kick({"user": "joe"}), 2)
        self.assertIs(old.session.outcome, Outcome.KICKED)

    def test_dry(self) -> None:
        """A dry run counts, and ends nothing, not even later."""
        joe = self.processes.session(phase=Phase.AUTH)
        self.processes.session(user=b"jane", phase=Phase.AUTH)
        self.assertEqual(self.kick({"user": "joe"}, dry_run=True), 1)
        self.assertEqual((joe.calls, self.clock.getDelayedCalls()), ([], []))

    def test_pauses(self) -> None:
        """Looking for sessions pauses, and all end when they are found, without anything of the keeper."""
        made = [self.processes.session() for _ in range(3 * PIECE)]
        answer = self.view.answer("kick", {"filter": {"user": "joe"}, "over": 5.0})
        self.assertEqual([next(answer) for _ in range(4)], [0, 0, 0, 3 * PIECE])
        del answer
        self.clock.pump([0.1] * 55)
        self.assertEqual([each for each in made if each.session.outcome is not Outcome.KICKED], [])

    def test_stalled(self) -> None:
        """A connection that does not close is reset within a second."""
        slow = self.processes.session(isSlow=True)
        self.assertEqual(self.kick({"user": "joe"}), 1)
        self.clock.advance(GRACE)
        self.assertEqual(slow.calls, [(Outcome.KICKED, Trouble.STOPPING), "stop"])
        self.assertIs(slow.session.outcome, Outcome.KICKED)

    def test_alias(self) -> None:
        """A login under way that turns out to be one of the user ends, too, and others do not."""
        alias = self.processes.session(user=b"joseph", phase=Phase.AUTH)
        other = self.processes.session(user=b"jane", phase=Phase.AUTH)
        again = self.processes.session(user=b"jim", phase=Phase.AUTH)
        self.assertEqual(self.kick({"user": "joe"}), 0)
        alias.session.user = b"joe"
        relay = alias.becomes()
        other.session.enter(Phase.CONNECT)
        # Its login was refused. The next one was asked after the kick.
        again.session.attempts += 1
        self.clock.advance(LOOK)
        again.session.user = b"joe"
        self.clock.advance(LOOK)
        self.assertIs(relay.session.outcome, Outcome.KICKED)
        self.assertEqual((other.calls, again.calls), ([], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_aliasWaits(self) -> None:
        """It is looked for as long as the question is out."""
        alias = self.processes.session(user=b"joseph", phase=Phase.AUTH)
        self.kick({"user": "joe"})
        self.clock.pump([LOOK] * 100)
        alias.session.user = b"joe"
        alias.session.enter(Phase.CONNECT)
        self.clock.advance(LOOK)
        self.assertIs(alias.session.outcome, Outcome.KICKED)

    def test_manySpreads(self) -> None:
        """Kicks that are spread over a time keep their sessions in memory, so their number is bounded."""
        made = [self.processes.session() for _ in range(100)]
        for _ in range(MOST_SPREADS):
            self.kick({"user": "joe"}, over=3600.0)
        left = sum(not each.calls for each in made)
        self.assertTrue(left)
        with self.assertRaisesRegex(ValueError, "16 kicks"):
            self.kick({"user": "joe"}, over=3600.0)
        self.assertEqual(self.kick({"user": "joe"}, over=3600.0, dry_run=True), left)
        self.assertEqual(self.kick({"user": "joe"}), left)
        self.clock.advance(3601)
        self.clock.advance(GRACE)
        self.assertEqual(self.kick({"user": "joe"}, over=3600.0), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_forget(self) -> None:
        """Answers about users are forgotten by a mask or by names, in all generations."""
        self.processes.drains("aaaaa")
        for gateway in self.processes.gateways["aaaaa"]:
            gateway.stored = [b"joe", b"Joe", b"jane", b"\xff"]
        self.assertEqual(sum(self.view.answer("forget", {"user": "JO*"})), 4)
        self.assertEqual(sum(self.view.answer("forget", {"users": ["JANE", "\ufffd"]})), 4)
        self.assertEqual([each.stored for each in self.processes.gateways["aaaaa"]], [[], []])

    def test_users(self) -> None:
        """The users of sessions, each once."""
        for user in (b"joe", b"joe", b"\xff", b""):
            self.processes.session(user=user)
        self.assertCountEqual([each for each in self.view.answer("users", {"filter": {}}) if each], ["joe", "\ufffd"])

    def test_manyUsers(self) -> None:
        """No more names than needed are sent."""
        for number in range(2 * MOST_USERS):
            self.processes.session(user=b"%d" % number)
        names = [each for each in self.view.answer("users", {"filter": {}}) if each]
        self.assertEqual(len(names), MOST_USERS + 1)

    def test_badArguments(self) -> None:
        """Arguments that are not valid are refused before anything happens."""
        joe = self.processes.session()
        for arguments in (
            {"reason": "a\nb"},
            {"reason": "\u202e"},
            {"reason": "x" * 5000},
            {"reason": None},
            {"over": -1},
            {"over": True},
            {"over": float("nan")},
            {"over": 1e9},
            {"dry_run": 1},
            {"filter": {"user": ""}},
        ):
            self.assertRaises(ValueError, self.view.answer, "kick", {"filter": {}, **arguments})
        for given in ({}, {"user": "joe", "users": []}, {"users": [5]}, {"user": 5}):
            self.assertRaises(ValueError, self.view.answer, "forget", given)
        self.assertEqual((joe.calls, self.clock.getDelayedCalls()), ([], []))
