"""
Tests for C{dry_run} in C{limit_login_pair}, C{limit_login_address}, C{limit_login_network} and C{limit_login_user}: the
rules of one directive only say what they would do, and all others act.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.attempt import Action, Kind, Result, Rule
from mailgate.limits.policy import LoginPolicy, Mode, Prefixes
from mailgate.test.support.attacks import Login, Scene, login

FAR, NEAR = "203.0.113.9", "192.0.2.7"
GO, WAIT, REFUSE = Action.GO, Action.WAIT, Action.REFUSE
DRY = ("pairDryRun", "addressDryRun", "networkDryRun", "userDryRun")


def hosts(number: int) -> list[str]:
    """Addresses in as many networks."""
    return [f"10.{each >> 8}.{each & 255}.1" for each in range(number)]


class Case(SynchronousTestCase):
    """A scene with one group of rules in dry run."""

    def use(self, policy: LoginPolicy, *dry: str) -> None:
        """Begin anew, with C{dry_run} in the directives of these attributes."""
        self.policy = evolve(policy, **dict.fromkeys(dry, True))
        self.scene = Scene(policy=self.policy)

    def reload(self, **more: Any) -> None:
        """Other numbers."""
        self.policy = evolve(self.policy, **more)
        self.scene.defence.configure(self.policy, Prefixes(), 16 << 20)

    def said(self, host: str, user: str, kind: Kind = Kind.PASSWORD) -> tuple[Action, Rule | None, str]:
        """What is done with a login, and what would be. It leaves nothing behind."""
        attempt = login(host, user, kind=kind)
        verdict = self.scene.defence.check(attempt)
        self.scene.defence.record(attempt, verdict.ticket, Result.UNDECIDED)
        return verdict.action, verdict.rule, verdict.would

    def waited(self, ended: Sequence[Login]) -> float:
        """For how long logins have waited, in all."""
        return sum((each.ended or 0.0) - each.began - each.seconds for each in ended if each.asked is not None)


class PairTests(Case):
    """C{limit_login_pair}: R1 and R2."""

    def test_passes(self) -> None:
        """Neither delays nor blocks a pair, and the verdicts say it."""
        self.use(LoginPolicy(), "pairDryRun")
        ended = self.scene.fail(NEAR, "joe", 14)
        self.assertEqual({each.result for each in ended}, {Result.FAILED})
        self.assertAlmostEqual(self.waited(ended), 0.0)
        words = ["; ".join(each.would) for each in ended]
        self.assertEqual(words[3:6], ["", "R1 would delay by 1 s", "R1 would delay by 2 s"])
        self.assertEqual(words[10:], ["R2 would refuse"] * 4)
        ((rule, thing, text),) = self.scene.happened
        self.assertEqual((rule, thing), (Rule.PAIR_BLOCK, "joe 192.0.2.7"))
        self.assertTrue(text.startswith("dry run: 10 failed logins"), text)

    def test_othersAct(self) -> None:
        """What R2 lets pass counts for R4 and R6, which act; repeats of a guess do not."""
        self.use(LoginPolicy(addressDelay=0, addressBlock=30), "pairDryRun")
        for _ in range(20):
            self.scene.once(login(NEAR, "joe", "old"))
        self.scene.fail(NEAR, "joe", 28)
        self.assertEqual(self.said(NEAR, "joe"), (GO, None, "R2 would refuse"))
        self.scene.fail(NEAR, "joe", 1)
        self.assertEqual(self.said(NEAR, "ann")[:2], (REFUSE, Rule.ADDRESS_BLOCK))
        self.use(LoginPolicy(userSlow=30), "pairDryRun")
        self.scene.fail(NEAR, "joe", 30)
        self.assertEqual(self.said(NEAR, "joe"), (GO, None, "R2 would refuse"))
        self.assertEqual(self.said(FAR, "joe")[:2], (REFUSE, Rule.USER_SLOW))

    def test_undecided(self) -> None:
        """Its bound of undecided logins is of the same group; that of the address holds."""
        self.use(LoginPolicy(undecidedPair=2, undecidedAddress=4, addressUsers=0), "pairDryRun")
        for _ in range(2):
            self.assertEqual(self.scene.verdict(NEAR, "joe").would, "")
        for _ in range(2):
            verdict = self.scene.verdict(NEAR, "joe")
            self.assertEqual((verdict.action, verdict.would), (GO, "undecided logins would delay by 0.25 s"))
        self.assertEqual(self.said(NEAR, "joe")[:2], (WAIT, Rule.UNDECIDED))

    def test_known(self) -> None:
        """Of a known pair, one login a minute would pass: only the others have words."""
        self.use(LoginPolicy(), "pairDryRun")
        self.scene.succeed(NEAR, "joe")
        self.scene.fail(NEAR, "joe", 10)
        said = []
        for _ in range(14):
            said.append(self.said(NEAR, "joe"))
            self.scene.run(10)
        self.assertEqual({each[:2] for each in said}, {(GO, None)})
        self.assertEqual([place for place, each in enumerate(said) if not each[2]], [0, 6, 12])
        self.assertEqual((said[1][2], said[5][2]), ("R2 would refuse", "R2 would delay by 10 s"))

    def test_reload(self) -> None:
        """A reload lets the block hold that was counted, and lets it go again."""
        self.use(LoginPolicy(), "pairDryRun")
        self.scene.fail(NEAR, "joe", 10)
        self.reload(pairDryRun=False)
        self.assertEqual(self.said(NEAR, "joe"), (REFUSE, Rule.PAIR_BLOCK, ""))
        self.reload(pairDryRun=True)
        self.assertEqual(self.said(NEAR, "joe"), (GO, None, "R2 would refuse"))


class AddressTests(Case):
    """C{limit_login_address}: R3 and R4."""

    def test_passes(self) -> None:
        """Neither delays nor blocks an address, and the verdicts say it."""
        self.use(LoginPolicy(addressDelay=5, addressBlock=10), "addressDryRun")
        for number in range(5):
            self.scene.fail(NEAR, f"user{number}", 1)
        self.assertEqual(self.said(NEAR, "new"), (GO, None, "R3 would delay by 5 s"))
        for number in range(5, 10):
            self.scene.fail(NEAR, f"user{number}", 1)
        self.assertEqual(self.said(NEAR, "new"), (GO, None, "R4 would refuse"))
        ((rule, thing, text),) = self.scene.happened
        self.assertEqual((rule, thing), (Rule.ADDRESS_BLOCK, NEAR))
        self.assertTrue(text.startswith("dry run: 10 failed logins"), text)

    def test_othersAct(self) -> None:
        """Behind the block of R4 that does not hold, R1, R2, R5 and R6 count and act."""
        self.use(LoginPolicy(addressUsers=2, networkDelay=12, userSlow=20), "addressDryRun")
        for user in ("one", "two"):
            self.scene.fail(NEAR, user, 1)
        self.assertEqual(self.said(NEAR, "joe"), (GO, None, "R4 would refuse"))
        self.scene.fail(NEAR, "joe", 4)
        self.assertEqual(self.said(NEAR, "joe"), (WAIT, Rule.PAIR_DELAY, "R4 would refuse"))
        self.scene.fail(NEAR, "joe", 6)
        self.assertEqual(self.said(NEAR, "joe")[:2], (REFUSE, Rule.PAIR_BLOCK))
        self.assertEqual(self.said(NEAR, "new"), (WAIT, Rule.NETWORK_DELAY, "R4 would refuse"))
        self.scene.fail("192.0.2.8", "joe", 10)
        self.assertEqual(self.said(FAR, "joe"), (GO, None, ""))
        self.assertEqual(self.said(FAR, "joe"), (REFUSE, Rule.USER_SLOW, ""))

    def test_undecided(self) -> None:
        """Its bound of undecided logins is of the same group; that of the pair holds."""
        self.use(LoginPolicy(undecidedPair=3, undecidedAddress=2), "addressDryRun")
        for _ in range(2):
            self.assertEqual(self.scene.verdict(NEAR, "joe").would, "")
        self.assertEqual(self.scene.verdict(NEAR, "joe").would, "undecided logins would delay by 0.25 s")
        self.assertEqual(self.said(NEAR, "joe")[:2], (WAIT, Rule.UNDECIDED))

    def test_reload(self) -> None:
        """A reload lets the block hold that was counted, and lets it go again."""
        self.use(LoginPolicy(addressUsers=2), "addressDryRun")
        for user in ("one", "two"):
            self.scene.fail(NEAR, user, 1)
        self.reload(addressDryRun=False)
        self.assertEqual(self.said(NEAR, "new"), (REFUSE, Rule.ADDRESS_BLOCK, ""))
        self.reload(addressDryRun=True)
        self.assertEqual(self.said(NEAR, "new"), (GO, None, "R4 would refuse"))


class NetworkTests(Case):
    """C{limit_login_network}: R5."""

    def failed(self) -> None:
        for number in range(6):
            self.scene.fail(f"192.0.2.{number}", f"user{number}", 1)

    def test_passes(self) -> None:
        """It delays nobody, and lets any number be undecided; R3 and R1 act in the network."""
        self.use(LoginPolicy(networkDelay=6, networkUndecided=1, addressDelay=4), "networkDryRun")
        self.failed()
        words = "R5 would delay by 5 s"
        for number in range(3):
            verdict = self.scene.verdict("192.0.2.200", f"new{number}")
            self.assertEqual((verdict.action, verdict.would), (GO, words))
        self.scene.fail(NEAR, "joe", 4)
        self.assertEqual(self.said(NEAR, "ann"), (WAIT, Rule.ADDRESS_DELAY, words))
        self.reload(addressDelay=0)
        self.assertEqual(self.said(NEAR, "joe"), (WAIT, Rule.PAIR_DELAY, words))

    def test_reload(self) -> None:
        """A reload lets it act on what was counted, and ends that again."""
        self.use(LoginPolicy(networkDelay=6), "networkDryRun")
        self.failed()
        self.reload(networkDryRun=False)
        self.assertEqual(self.said("192.0.2.200", "new"), (WAIT, Rule.NETWORK_DELAY, ""))
        self.reload(networkDryRun=True)
        self.assertEqual(self.said("192.0.2.200", "new"), (GO, None, "R5 would delay by 5 s"))


class UserTests(Case):
    """C{limit_login_user}: R6 and R7."""

    def test_slow(self) -> None:
        """R6 slows nobody down, and the event says that it is a dry run; R1 acts, and the words are there at once."""
        self.use(LoginPolicy(userSlow=20), "userDryRun")
        for host in hosts(20):
            self.scene.fail(host, "joe", 1)
        for _ in range(3):
            self.assertEqual(self.said(FAR, "joe"), (GO, None, "R6 would delay by 0 s"))
        ((rule, thing, text),) = self.scene.happened
        self.assertEqual((rule, thing), (Rule.USER_SLOW, "joe"))
        self.assertTrue(text.startswith("dry run: 20 failed logins"), text)
        self.scene.fail(FAR, "joe", 4)
        self.assertEqual(self.said(FAR, "joe"), (WAIT, Rule.PAIR_DELAY, "R6 would delay by 0 s"))

    def test_refuse(self) -> None:
        """R7 refuses nobody; R2 and R4 count behind its block, and act."""
        self.use(LoginPolicy(userSlow=0, userRefuse=5, addressBlock=30, addressDelay=0), "userDryRun")
        for host in hosts(5):
            self.scene.fail(host, "joe", 1)
        self.assertEqual(self.said(FAR, "joe"), (GO, None, "R7 would refuse"))
        self.scene.fail(FAR, "joe", 10)
        self.assertEqual(self.said(FAR, "joe"), (REFUSE, Rule.PAIR_BLOCK, ""))
        for user in ("one", "two"):
            self.scene.fail(FAR, user, 10)
        self.assertEqual(self.said(FAR, "new")[:2], (REFUSE, Rule.ADDRESS_BLOCK))
        self.assertTrue(self.scene.happened[0][2].startswith("dry run: 5 failed logins"), self.scene.happened[0])
        for rule, _, text in self.scene.happened:
            self.assertEqual(text.startswith("dry run: "), rule is Rule.USER_REFUSE, text)

    def test_undecided(self) -> None:
        """Its bound of undecided logins is of the same group."""
        self.use(LoginPolicy(userSlow=2), "userDryRun")
        for host in hosts(2):
            self.scene.verdict(host, "joe")
        self.assertEqual(self.said(FAR, "joe"), (GO, None, "undecided logins would delay by 0.25 s"))

    def test_reload(self) -> None:
        """A reload lets both act on what was counted, and ends that again."""
        for policy, rule in ((LoginPolicy(userSlow=5), Rule.USER_SLOW), (LoginPolicy(userRefuse=5), Rule.USER_REFUSE)):
            self.use(policy, "userDryRun")
            for host in hosts(5):
                self.scene.fail(host, "joe", 1)
            self.reload(userDryRun=False)
            # R6 lets the first one pass.
            self.said(FAR, "joe")
            self.assertEqual(self.said(FAR, "joe"), (REFUSE, rule, ""))
            self.reload(userDryRun=True)
            action, acting, would = self.said(FAR, "joe")
            self.assertEqual((action, acting), (GO, None))
            self.assertTrue(would.startswith(f"{rule.value} would "), would)


class AllTests(Case):
    """Several groups."""

    def test_mode(self) -> None:
        """All four are the same as C{limit_login = dry_run}, in what they let pass and in what they say."""
        policy = LoginPolicy(addressDelay=2, networkDelay=3, userSlow=4)
        said = []
        for dry, mode in ((DRY, Mode.ON), ((), Mode.DRY_RUN)):
            self.use(policy, *dry)
            said.append([each.would for each in self.scene.fail(NEAR, "joe", 9, mode=mode)])
        self.assertEqual(*said)
        self.assertEqual(len(said[0][8][0].split("; ")), 4)

    def test_blocks(self) -> None:
        """Where operators see blocks, those of a dry run have it in their reason; others and theirs do not."""
        self.use(LoginPolicy(), "pairDryRun")
        defence = self.scene.defence
        self.scene.fail(NEAR, "joe", 10)
        defence.block("198.51.100.7", 60, "abuse")
        reasons = {block.rule: block.reason for block in defence.blocks()}
        self.assertEqual(
            reasons, {Rule.PAIR_BLOCK: "dry run: failed logins of this user at this address", Rule.BLOCK: "abuse"}
        )
        self.reload(pairDryRun=False)
        self.assertFalse(any("dry run" in block.reason for block in defence.blocks()))

    def test_explained(self) -> None:
        """An explanation has the rule that acts, and apart from it what dry runs would do."""
        self.use(LoginPolicy(userSlow=5), "pairDryRun", "userDryRun")
        self.scene.fail(NEAR, "joe", 5)
        found = self.scene.defence.explain(b"joe", NEAR, "imap")
        self.assertEqual((found["rule"], found["action"]), (None, "go"))
        self.assertEqual(found["would"], ["R1 would delay by 2 s", "R6 would delay by 0 s"])
        self.reload(pairDryRun=False)
        found = self.scene.defence.explain(b"joe", NEAR, "imap")
        self.assertEqual((found["rule"], found["action"], found["seconds"]), ("R1", "wait", 2.0))
        self.assertEqual(found["would"], ["R6 would delay by 0 s"])
