"""Tests for L{mailgate.keeper.kick}."""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.answers.kick import MOST_USERS
from mailgate.keeper.blocks import NoLimits
from mailgate.keeper.filters import Filter, exactly
from mailgate.keeper.kick import kick, logged
from mailgate.keeper.messages import Ask
from mailgate.session import Outcome, Phase
from mailgate.test.keeper.test_filters import HOSTILE
from mailgate.test.support.documents import codeBlocks, document
from mailgate.test.support.limitstore import StandInLimits
from mailgate.test.support.processes import Processes


class KickTests(SynchronousTestCase):
    """L{kick}."""

    def setUp(self) -> None:
        self.processes = Processes("aaaaa", "bbbbb")
        self.keeper: Any = self.processes

    def kick(self, given: dict[str, Any], *more: Any, **others: Any) -> dict[str, Any]:
        """The answer."""
        answer = self.successResultOf(kick(self.keeper, Filter.fromJSON(given), *more, **others))
        self.processes.clock.advance(0)
        return answer

    def store(self, *users: bytes) -> None:
        """Every process has answers about C{users}."""
        for gateways in self.processes.gateways.values():
            gateways[0].stored = list(users)

    def words(self) -> list[str]:
        """The questions."""
        return [word for word, _ in self.processes.asked]

    def test_user(self) -> None:
        """All processes first forget the user, and then end the sessions."""
        self.store(b"joe", b"jane")
        made = [self.processes.session(member) for member in ("aaaaa", "bbbbb", "bbbbb")]
        answer = self.kick({"user": "joe"}, "password changed", "uid 1000")
        self.assertEqual(
            answer,
            {
                "ended": 3,
                "forgotten": 2,
                "dry_run": False,
                "blocked": None,
                "held": None,
                "gateways": [{"name": "g1", "ended": 3}],
                "unanswered": [],
            },
        )
        self.assertEqual(self.words(), ["forget", "kick"])
        self.assertEqual({each.session.reason for each in made}, {'"password changed", by uid 1000'})
        self.assertEqual({each.session.outcome for each in made}, {Outcome.KICKED})

    def test_block(self) -> None:
        """A block and a hold begin before the sessions end; what they are for are the user and the address."""
        self.keeper.limits = limits = StandInLimits()
        joe = self.processes.session()
        self.processes.between = lambda: self.assertIsNotNone(joe.session.outcome or limits.held)
        answer = self.kick({"user": "joe"}, "password stolen", blocked=3600, hold=60)
        self.assertEqual((answer["ended"], joe.session.outcome), (1, Outcome.KICKED))
        for name, rule, until in (("blocked", "block", "09:00:00"), ("held", "hold", "08:01:00")):
            row = answer[name]
            self.assertEqual((row["thing"], row["rule"], row["reason"]), ("joe", rule, "password stolen"))
            self.assertIn(until, row["until"])
        for given, thing in (
            ({"address": "192.0.2.0/24"}, "192.0.2.0/24"),
            ({"user": "joe", "address": "192.0.2.7"}, "joe 192.0.2.7"),
        ):
            self.assertEqual(self.kick(given, blocked=60)["blocked"]["thing"], thing)

    def test_noBlock(self) -> None:
        """Nothing is blocked, and no session ends, if it is not clear what to block, and in a trial."""
        self.keeper.limits = limits = StandInLimits()
        joe = self.processes.session()
        for given, more, expected in (
            ({"user": "j*"}, {"blocked": 60}, "block needs a user without wildcards"),
            ({"user": "joe", "protocol": "imap"}, {"blocked": 60}, "block goes with user and address alone"),
            ({"protocol": "imap"}, {"blocked": 60}, "not with protocol"),
            ({"user": "joe", "address": "192.0.2.7"}, {"hold": 60}, "hold needs a user, and no address"),
            ({"user": "joe"}, {"blocked": 60, "hold": 10**6}, "a hold must last"),
        ):
            error = self.assertRaises(ValueError, self.kick, given, **more)
            self.assertIn(expected, str(error))
        answer = self.kick({"user": "joe"}, dryRun=True, blocked=60)
        self.assertEqual((answer["ended"], answer["blocked"], limits.held), (1, None, []))
        self.keeper.limits = None
        self.assertRaises(NoLimits, self.kick, {"user": "joe"}, blocked=60)
        self.assertIsNone(joe.session.outcome)

    def test_lies(self) -> None:
        """A process that is taken over keeps operators neither from a kick nor from its answer."""
        self.store(b"joe")
        joe = self.processes.session()
        self.processes.lies = ["x", [], {}, 2.5, [["joe"]], True]
        for given in ({"user": "joe"}, {"protocol": "imap"}):
            answer = self.kick(given)
            self.assertEqual((answer["ended"], answer["dry_run"]), (1 if "user" in given else 0, False))
        self.assertIs(joe.session.outcome, Outcome.KICKED)

    def test_longNames(self) -> None:
        """Clients that are not logged in choose their names: so long ones do not make the question too long."""
        self.store(b"joe", b"jane")
        self.processes.session()
        for number in range(3):
            self.processes.session(user=b"%d" % number + 8000 * b"x", phase=Phase.COMMAND)
        answer = self.kick({"protocol": "imap"})
        self.assertEqual((answer["ended"], answer["forgotten"]), (4, 4))
        for word, arguments in self.processes.asked:
            self.assertEqual(Ask(1, word, dict(arguments)).word, word)

    def test_noSession(self) -> None:
        """A user without a session is forgotten as well."""
        self.store(b"joe")
        self.assertEqual(self.kick({"user": "joe"})["forgotten"], 2)

    def test_otherFilter(self) -> None:
        """By other conditions, the answers about the users of the sessions are forgotten, in every process."""
        self.store(b"joe", b"jane", b"jim")
        self.processes.session("aaaaa", user=b"joe", id="aaaaa.00")
        self.processes.session("bbbbb", user=b"jane", client="198.51.100.1:1")
        self.assertEqual(self.kick({"id": "aaaaa.00"})["forgotten"], 2)
        self.assertEqual(self.words(), ["users", "forget", "kick"])
        self.assertEqual(self.kick({"address": "198.51.100.0/24"})["forgotten"], 2)
        self.assertEqual(self.processes.gateways["aaaaa"][0].stored, [b"jim"])

    def test_many(self) -> None:
        """With many users all answers are forgotten."""
        self.store(b"joe")
        for number in range(MOST_USERS + 1):
            self.processes.session(user=b"%d" % number)
        answer = self.kick({"backend": "10.0.0.1:143"})
        self.assertEqual((answer["ended"], answer["forgotten"]), (MOST_USERS + 1, 2))

    def test_dry(self) -> None:
        """A dry run counts and changes nothing."""
        self.store(b"joe")
        self.processes.session()
        answer = self.kick({"user": "joe"}, dryRun=True)
        self.assertEqual((answer["ended"], answer["forgotten"], answer["dry_run"]), (1, 0, True))
        self.assertEqual(self.processes.gateways["aaaaa"][0].stored, [b"joe"])
        self.assertEqual(len(self.processes.factory("aaaaa").connections), 1)

    def test_everything(self) -> None:
        """A filter that means all sessions needs an explicit word."""
        self.processes.session()
        for given in ({}, {"user": "*"}, {"address": "0.0.0.0/0"}):
            with self.assertRaisesRegex(ValueError, "means all sessions"):
                kick(self.keeper, Filter.fromJSON(given), dryRun=True)
        self.assertEqual(self.processes.asked, [])
        self.assertEqual(self.kick({"user": "*"}, everything=True)["ended"], 1)

    def test_over(self) -> None:
        """The ends are spread evenly, and in another order than the sessions began."""
        made = [self.processes.session() for _ in range(20)]
        self.assertEqual(self.kick({"user": "joe"}, over=10.0)["ended"], 20)
        ended = []
        for _ in range(102):
            ended.append(sum(each.session.outcome is Outcome.KICKED for each in made))
            self.processes.clock.advance(0.1)
        self.assertEqual((ended[0], ended[51], ended[101]), (2, 10, 20))
        self.assertLessEqual(max(later - now for now, later in pairwise(ended)), 2)

    def test_late(self) -> None:
        """The answer names the processes that have not answered."""
        self.processes.session("aaaaa")
        self.processes.late.add("bbbbb")
        answer = self.kick({"user": "joe"})
        self.assertEqual((answer["ended"], answer["unanswered"]), (1, ["bbbbb has not answered"]))

    def test_hostile(self) -> None:
        """Every user can be kicked by name, and no other one is hit."""
        for name in HOSTILE:
            if name:
                self.processes.session(user=name)
        for name in HOSTILE:
            if name:
                self.assertEqual(self.kick({"user": exactly(name.decode("utf-8", "replace"))})["ended"], 1)

    def test_reasons(self) -> None:
        """A reason is one printable line."""
        for reason in ("a\nb", "\x1b[2J", "\u202eabc", "x" * 201, "\ud800", "\0"):
            self.assertRaises(ValueError, kick, self.keeper, Filter(user="joe"), reason)
        for over in (-1, 1e9, float("nan")):
            self.assertRaises(ValueError, kick, self.keeper, Filter(user="joe"), over=over)
        self.assertEqual(logged("", ""), "")
        self.assertEqual(logged("", "uid 0"), "by uid 0")
        self.assertEqual(logged('says "x", outcome idle', "a\nb"), '"says \\"x\\", outcome idle", by a\\nb')

    def test_longest(self) -> None:
        """The processes accept the longest reason."""
        self.processes.session()
        self.assertEqual(self.kick({"user": "joe"}, '"' * 200, "\ud800\n" * 100)["ended"], 1)


class ScriptTests(SynchronousTestCase):
    """The scripts of docs/admin_api.rst end the sessions of one user, whatever his name is."""

    NAMES = ("joe@example.org", "*@example.org", "j?e[a-z]*", "[", "]", "[!a]*")

    def test_keycloak(self) -> None:
        """The program sends a mask that matches the name alone."""
        (program,) = (each for each in codeBlocks(document("docs", "admin_api.rst"), "python") if "KEYCLOAK" in each)
        names: dict[str, Any] = {}
        exec(compile(program.rpartition("main()")[0], "keycloak", "exec"), names)
        sent: list[Any] = []

        def answer(request: Any) -> Any:
            sent.append(json.loads(request.data))
            return {"ended": 0}

        names.update(answer=answer, read=lambda path: "token", print=lambda *words, flush: None)
        for name in self.NAMES:
            names["kick"](name)
        self.assertEqual([body["user"] for body in sent], list(map(exactly, self.NAMES)))

    def test_ldap(self) -> None:
        """So does the script."""
        (script,) = (each for each in codeBlocks(document("docs", "admin_api.rst"), "sh") if "ldapsearch" in each)
        (line,) = (each for each in script.splitlines() if "[&]" in each)
        for name in self.NAMES:
            program = f'user=$1\n{line}\nprintf "%s" "$user"'
            found = subprocess.run(["sh", "-euc", program, "sh", name], capture_output=True, text=True, check=True)
            self.assertEqual(found.stdout, exactly(name))
