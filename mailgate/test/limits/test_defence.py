"""
Tests for L{mailgate.limits.defence}: the rules one by one, and the cases of known ways to fail.
"""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.attempt import Action, Kind, Result, Rule, Verdict
from mailgate.limits.defence import Defence
from mailgate.limits.policy import LoginPolicy, Mode, Prefixes, Rate
from mailgate.limits.undecided import Undecided
from mailgate.test.support.attacks import Login, Scene, login

FAR = "203.0.113.9"
NEAR = "192.0.2.7"
POLICY = LoginPolicy()


def hosts(number: int) -> list[str]:
    """Addresses in as many networks."""
    return [f"10.{each >> 8}.{each & 255}.1" for each in range(number)]


class Case(SynchronousTestCase):
    """A scene for each test."""

    def setUp(self) -> None:
        self.scene = Scene()
        self.defence = self.scene.defence

    def delays(self, ended: list[Login]) -> list[float]:
        """For how long logins have waited before the question, in whole seconds."""
        return [-1 if each.asked is None else round(each.asked - each.began) for each in ended]

    def assertGo(self, verdict: Verdict) -> None:
        """The login may pass at once."""
        self.assertEqual((verdict.action, verdict.rule, verdict.seconds), (Action.GO, None, 0.0))

    def assertWait(self, verdict: Verdict, rule: Rule, seconds: float | None = None) -> None:
        """The login must wait."""
        self.assertEqual((verdict.action, verdict.rule), (Action.WAIT, rule))
        if seconds is not None:
            self.assertAlmostEqual(verdict.seconds, seconds, 3)

    def assertRefuse(self, verdict: Verdict, rule: Rule) -> None:
        """The login is refused."""
        self.assertEqual((verdict.action, verdict.rule, verdict.ticket), (Action.REFUSE, rule, 0))


class PairTests(Case):
    """R1 and R2."""

    def test_delays(self) -> None:
        """From the fourth failure on, each login waits: 1, 2, 4, 8, 15 s, and the tenth failure blocks."""
        ended = self.scene.fail(NEAR, "joe", 10)
        self.assertEqual(self.delays(ended), [0, 0, 0, 0, 1, 2, 4, 8, 15, 15])
        self.assertRefuse(self.scene.verdict(NEAR, "joe"), Rule.PAIR_BLOCK)
        self.assertEqual(self.scene.happened[0][:2], (Rule.PAIR_BLOCK, "joe 192.0.2.7"))
        self.assertIn("15 minutes", self.scene.happened[0][2])

    def test_elsewhere(self) -> None:
        """Others at the address, and the user elsewhere, are not blocked."""
        self.scene.fail(NEAR, "joe", 10)
        self.assertGo(self.scene.verdict(NEAR, "ann"))
        self.assertGo(self.scene.verdict("192.0.2.8", "joe"))

    def test_success(self) -> None:
        """A success ends the delays."""
        self.scene.fail(NEAR, "joe", 6)
        self.assertEqual(self.delays([self.scene.succeed(NEAR, "joe")]), [4])
        self.assertEqual(self.delays(self.scene.fail(NEAR, "joe", 5)), [0, 0, 0, 0, 1])

    def test_window(self) -> None:
        """After an hour, failures no longer count."""
        self.scene.fail(NEAR, "joe", 9)
        self.scene.run(3600)
        self.assertEqual(self.delays(self.scene.fail(NEAR, "joe", 5)), [0, 0, 0, 0, 1])

    def test_doubles(self) -> None:
        """Each block is twice as long, up to four hours; each quiet day halves the count."""
        self.scene = Scene(policy=LoginPolicy(userSlow=0))
        self.defence = self.scene.defence
        seconds = []
        for _ in range(7):
            before = len(self.scene.happened)
            while len(self.scene.happened) == before:
                self.scene.fail(NEAR, "joe", 1)
            (block,) = self.defence.blocks()
            seconds.append(round(block.until - block.since, -1))
            self.scene.run(block.until - block.since + 1)
        self.assertEqual(seconds, [900, 1800, 3600, 7200, 14400, 14400, 14400])
        self.scene.run(2 * 86400)
        self.scene.fail(NEAR, "joe", 10)
        (block,) = self.defence.blocks()
        # 5, halved twice, and one more.
        self.assertEqual((block.count, round(block.until - block.since, -1)), (2, 1800))

    def test_known(self) -> None:
        """A known pair is not blocked, but may log in once a minute."""
        self.scene.succeed(NEAR, "joe")
        self.scene.fail(NEAR, "joe", 10)
        self.assertEqual([block.rule for block in self.defence.blocks()], [])
        self.assertGo(first := self.scene.verdict(NEAR, "joe", "11"))
        self.defence.record(login(NEAR, "joe", "11"), first.ticket, Result.FAILED)
        self.assertRefuse(self.scene.verdict(NEAR, "joe", "12"), Rule.PAIR_BLOCK)
        self.scene.run(45)
        self.assertWait(self.scene.verdict(NEAR, "joe", "12"), Rule.PAIR_BLOCK, 15)
        self.scene.run(15)
        self.scene.succeed(NEAR, "joe")
        self.assertGo(self.scene.verdict(NEAR, "joe", "right"))

    def test_patience(self) -> None:
        """A login does not wait for ever behind one that is not answered."""
        self.scene.fail(NEAR, "joe", 4)
        self.scene.begin(login(NEAR, "joe", "slow"), seconds=100.0)
        self.scene.run(1)
        begun = self.scene.begin(login(NEAR, "joe", "next"))
        self.scene.run(60)
        self.assertEqual(begun.result, Rule.PAIR_DELAY)
        self.assertTrue(20 <= (begun.ended or 0) - begun.began <= 21)

    def test_changed(self) -> None:
        """The numbers are the policy's, also those of a reload, which keeps what was counted; 0 switches off."""
        self.scene.fail(NEAR, "joe", 3)
        self.defence.configure(LoginPolicy(pairDelay=2, firstDelay=3), Prefixes(), 1 << 20)
        self.assertWait(self.scene.verdict(NEAR, "joe"), Rule.PAIR_DELAY, 6)
        self.defence.configure(LoginPolicy(pairDelay=0, pairBlock=0), Prefixes(), 1 << 24)
        self.assertEqual(self.delays(self.scene.fail(NEAR, "joe", 20)), [0] * 20)
        self.assertEqual(self.scene.happened, [])


class AddressTests(Case):
    """R3, R4 and R5."""

    def test_delay(self) -> None:
        """From 50 failures on, unknown pairs wait 5 s; known pairs do not, nor does another address."""
        self.scene = Scene(policy=LoginPolicy(addressUsers=0))
        self.scene.succeed(NEAR, "known")
        for number in range(25):
            self.scene.fail(NEAR, f"user{number}", 4)
        self.assertWait(self.scene.verdict(NEAR, "new"), Rule.ADDRESS_DELAY, 5)
        self.assertGo(self.scene.verdict(NEAR, "known"))
        self.assertGo(self.scene.verdict("192.0.2.8", "new"))

    def test_block(self) -> None:
        """Of 200 failures with a = 2, the last blocks the address for unknown pairs, for half an hour."""
        self.scene.succeed(NEAR, "known")
        for number in range(50):
            self.scene.fail(NEAR, f"user{number}", 4)
        self.assertRefuse(self.scene.verdict(NEAR, "new"), Rule.ADDRESS_BLOCK)
        self.assertGo(self.scene.verdict(NEAR, "known"))
        self.assertEqual(self.scene.happened[-1][:2], (Rule.ADDRESS_BLOCK, NEAR))
        self.assertIn("30 minutes", self.scene.happened[-1][2])
        self.assertEqual(len(self.scene.questions), 201)

    def test_network(self) -> None:
        """From 500 failures of a network on, unknown pairs wait 5 s everywhere in it, and eight at once are asked."""
        for number in range(167):
            self.scene.fail(f"192.0.2.{number}", f"user{number}", 3)
        begun = [self.scene.begin(login("192.0.2.200", f"new{each}"), seconds=3.0) for each in range(10)]
        known = self.scene.begin(login("192.0.2.5", "user5", "right"), isRight=True)
        self.assertIsNone(known.asked)
        self.scene.run(6)
        self.assertEqual(sum(each.asked is not None for each in begun) + 1, 9)
        self.scene.run(5)
        self.assertEqual(sum(each.asked is not None for each in begun), 10)
        self.assertGo(self.scene.verdict("192.0.2.5", "user5"))
        self.assertGo(self.scene.verdict("192.0.3.5", "user5"))

    def test_exempt(self) -> None:
        """C{limit_exempt} and unix sockets: no rule for all users of an address; those of the pair hold."""
        for host, isExempt in ((NEAR, True), ("unix:", False)):
            for number in range(30):
                self.scene.fail(host, f"user{number}", 1, isExempt=isExempt)
            self.assertGo(self.scene.verdict(host, "new", isExempt=isExempt))
            self.assertEqual(self.defence.ledger.sources.addresses.rows, {})
            self.scene.fail(host, "joe", 10, isExempt=isExempt)
            self.assertRefuse(self.scene.verdict(host, "joe", isExempt=isExempt), Rule.PAIR_BLOCK)

    def test_unknownUsers(self) -> None:
        """Where the service says that there is no such user, a failure weighs double for the address alone."""
        for number in range(13):
            for guess in range(2):
                attempt = login(NEAR, f"user{number}", f"{guess}")
                self.defence.record(attempt, self.defence.check(attempt).ticket, Result.FAILED_UNKNOWN)
        found = self.defence.explain(b"user1", NEAR, "imap")
        self.assertEqual((found["pair"]["failures"], found["address"]["failures"]), (2, 52))
        self.assertEqual(found["user"]["failures"], 2)
        self.assertWait(self.scene.verdict(NEAR, "new"), Rule.ADDRESS_DELAY)


class UserTests(Case):
    """R6 and R7."""

    def attacked(self) -> None:
        """Let 50 networks fail for one user, who is known in one."""
        self.scene.succeed(NEAR, "joe")
        for host in hosts(50):
            self.scene.fail(host, "joe", 1)

    def test_slow(self) -> None:
        """After 50 failures, one login a minute from unknown networks; known networks notice nothing."""
        self.attacked()
        self.assertEqual([event[:2] for event in self.scene.happened], [(Rule.USER_SLOW, "joe")])
        self.assertGo(self.scene.verdict(FAR, "joe"))
        self.assertRefuse(self.scene.verdict(hosts(60)[59], "joe"), Rule.USER_SLOW)
        self.assertGo(self.scene.verdict("192.0.2.99", "joe"))
        self.assertGo(self.scene.verdict(FAR, "ann"))
        self.scene.run(41)
        self.assertWait(self.scene.verdict(hosts(60)[58], "joe"), Rule.USER_SLOW, 19)

    def test_draw(self) -> None:
        """Of those that wait, ten at most, one is drawn; the others are told to try again after 20 s at most."""
        self.attacked()
        self.scene.fail(FAR, "joe", 1)
        self.scene.run(45)
        begun = [self.scene.begin(login(host, "joe"), after=0.01 * at) for at, host in enumerate(hosts(13))]
        self.scene.run(1)
        waiting = self.defence.ledger.users._queues[self.defence.ledger.keys.user(b"joe")].waiting
        self.assertEqual(len(waiting), 10)
        self.scene.run(16)
        self.assertEqual(sum(each.asked is not None for each in begun), 1)
        self.scene.run(20)
        self.assertEqual(sum(each.result is Rule.USER_SLOW for each in begun), 12)
        for each in begun:
            self.assertTrue((each.ended or 99) - each.began < 20.5)

    def test_drawnOthers(self) -> None:
        """Who is drawn is left to chance: not always who came first."""
        drawn: set[int] = set()
        for _ in range(12):
            self.setUp()
            self.scene.random.seed(len(drawn) + _)
            self.attacked()
            self.scene.fail(FAR, "joe", 1)
            self.scene.run(45)
            begun = [self.scene.begin(login(host, "joe"), after=0.01 * at) for at, host in enumerate(hosts(5))]
            self.scene.run(20)
            drawn |= {at for at, each in enumerate(begun) if each.asked is not None}
        self.assertTrue(len(drawn) > 2, drawn)

    def test_left(self) -> None:
        """A login whose client has left keeps no place, and is not drawn."""
        self.attacked()
        self.scene.fail(FAR, "joe", 1)
        self.scene.run(45)
        verdicts = [self.defence.check(login(host, "joe")) for host in hosts(10)]
        again = self.scene.verdict(hosts(1)[0], "joe")
        self.assertRefuse(again, Rule.USER_SLOW)
        for host, verdict in zip(hosts(10), verdicts, strict=True):
            self.defence.record(login(host, "joe"), verdict.ticket, Result.UNDECIDED)
        begun = self.scene.begin(login(FAR, "joe"))
        self.scene.run(16)
        self.assertIsNotNone(begun.asked)

    def test_oldPassword(self) -> None:
        """One password at many addresses counts once: a telephone that travels."""
        for host in hosts(100):
            self.scene.once(login(host, "joe", "old"))
        self.assertEqual(self.defence.explain(b"joe", FAR, "imap")["user"]["failures"], 1)
        self.assertGo(self.scene.verdict(FAR, "joe"))

    def test_refuse(self) -> None:
        """R7, where it is on: unknown networks are refused for an hour, known ones are not."""
        self.scene = Scene(policy=LoginPolicy(userSlow=0, userRefuse=60))
        self.scene.succeed(NEAR, "joe")
        for host in hosts(60):
            self.scene.fail(host, "joe", 1)
        self.assertRefuse(self.scene.verdict(FAR, "joe"), Rule.USER_REFUSE)
        self.assertGo(self.scene.verdict(NEAR, "joe"))
        self.scene.run(3601)
        self.assertGo(self.scene.verdict(FAR, "joe"))

    def test_fresh(self) -> None:
        """Without state file, R6 only says for an hour what it would do."""
        self.scene = Scene(isFresh=True)
        for host in hosts(60):
            self.assertEqual(self.scene.fail(host, "joe", 1)[0].result, Result.FAILED)
        verdict = self.scene.verdict(FAR, "joe")
        self.assertGo(evolve(verdict, would=""))
        self.assertIn("R6 would delay", verdict.would)
        self.scene.run(3600)
        self.scene.verdict(FAR, "joe")
        self.assertRefuse(self.scene.verdict(FAR, "joe"), Rule.USER_SLOW)


class RateTests(Case):
    """C{limit_req login}."""

    rate = Rate(1.0, 3, isDelayed=True)

    def test_delayed(self) -> None:
        """Logins over the rate wait for their turn, and those over the burst are refused."""
        begun = [self.scene.begin(login(NEAR, f"user{each}", rate=self.rate), isRight=True) for each in range(6)]
        self.assertEqual([each.result for each in begun[4:]], [Rule.REQ_LOGIN] * 2)
        self.scene.run(10)
        self.assertEqual(self.delays(begun[:4]), [0, 1, 2, 3])

    def test_nodelay(self) -> None:
        """With C{nodelay}, those in the burst pass at once."""
        rate = evolve(self.rate, isDelayed=False)
        verdicts = [self.scene.verdict(NEAR, f"user{each}", rate=rate) for each in range(6)]
        self.assertEqual([each.action for each in verdicts], [Action.GO] * 4 + [Action.REFUSE] * 2)

    def test_known(self) -> None:
        """Known pairs pass, and so do exempt networks; others' logins do not slow them down."""
        self.scene.succeed(NEAR, "joe")
        for _ in range(20):
            self.scene.verdict(NEAR, "ann", rate=self.rate)
        self.assertRefuse(self.scene.verdict(NEAR, "bob", rate=self.rate), Rule.REQ_LOGIN)
        self.assertGo(self.scene.verdict(NEAR, "joe", rate=self.rate))
        self.assertGo(self.scene.verdict(NEAR, "bob", rate=self.rate, isExempt=True))
        self.assertGo(self.scene.verdict(NEAR, "bob", rate=self.rate, rateMode=Mode.OFF))

    def test_allowance(self) -> None:
        """Rate and burst are multiplied by C{a}."""
        for user in ("one", "two", "three"):
            self.scene.succeed(NEAR, user)
        begun = [self.scene.begin(login(NEAR, f"user{each}", rate=self.rate), isRight=True) for each in range(14)]
        self.assertEqual([each.result for each in begun].count(Rule.REQ_LOGIN), 1)
        self.scene.run(3.5)
        self.assertEqual(sum(each.asked is not None for each in begun), 13)

    def test_dryRun(self) -> None:
        """With C{limit_req_dry_run}, they pass, and the verdict says what would happen."""
        verdicts = [self.scene.verdict(NEAR, f"user{each}", rate=self.rate, rateMode=Mode.DRY_RUN) for each in range(6)]
        self.assertEqual({each.action for each in verdicts}, {Action.GO})
        self.assertEqual(verdicts[0].would, "")
        self.assertEqual(verdicts[1].would, "limit_req login would delay by 1 s")
        self.assertEqual(verdicts[5].would, "limit_req login would refuse")

    def test_off(self) -> None:
        """C{limit_login = off} does not switch the rate off."""
        for _ in range(4):
            self.scene.verdict(NEAR, "joe", rate=self.rate, mode=Mode.OFF)
        self.assertRefuse(self.scene.verdict(NEAR, "joe", rate=self.rate, mode=Mode.OFF), Rule.REQ_LOGIN)


class ModeTests(Case):
    """C{limit_login = off} and C{dry_run}."""

    def test_off(self) -> None:
        """Nothing acts, and failures do not count; who succeeds is learned for later."""
        self.scene.fail(NEAR, "joe", 30, mode=Mode.OFF)
        self.assertGo(self.scene.verdict(NEAR, "joe"))
        self.assertEqual(self.defence.numbers()["entries"]["pairs"], 0)
        self.scene.succeed(NEAR, "joe", mode=Mode.OFF)
        self.assertTrue(self.defence.explain(b"joe", NEAR, "imap")["known"])

    def test_dryRun(self) -> None:
        """All pass, the verdicts say what would happen, and blocks are counted as if they held."""
        ended = self.scene.fail(NEAR, "joe", 14, mode=Mode.DRY_RUN)
        self.assertEqual({each.result for each in ended}, {Result.FAILED})
        self.assertEqual(self.delays(ended), [0] * 14)
        self.assertEqual([each.would for each in ended[:4]], [[]] * 4)
        self.assertEqual([each.would for each in ended[4:6]], [["R1 would delay by 1 s"], ["R1 would delay by 2 s"]])
        self.assertEqual([each.would for each in ended[10:]], [["R2 would refuse"]] * 4)
        (event,) = self.scene.happened
        self.assertTrue(event[2].startswith("dry run: 10 failed logins"), event)
        self.assertEqual(self.defence.explain(b"joe", NEAR, "imap")["pair"]["failures"], 10)

    def test_all(self) -> None:
        """A dry run names each rule that would act."""
        self.scene = Scene(policy=LoginPolicy(addressDelay=2, networkDelay=3, userSlow=4))
        self.scene.fail(NEAR, "joe", 4, mode=Mode.DRY_RUN)
        (ended,) = self.scene.fail(NEAR, "joe", 1, mode=Mode.DRY_RUN)
        for rule in ("R1", "R3", "R5", "R6"):
            self.assertIn(f"{rule} would delay by", ended.would[0])

    def test_refusals(self) -> None:
        """A dry run of what refuses, and of what bounds undecided logins."""
        for number in range(20):
            self.scene.fail(NEAR, f"user{number}", 1, mode=Mode.DRY_RUN)
        self.assertEqual(self.would(NEAR, "new"), "R4 would refuse")
        self.scene.succeed(FAR, "ann")
        self.scene.fail(FAR, "ann", 10, mode=Mode.DRY_RUN)
        self.assertEqual(self.would(FAR, "ann"), "")
        self.assertEqual(self.would(FAR, "ann"), "R2 would refuse")
        for _ in range(10):
            self.assertEqual(self.would(FAR, "bob"), "")
        self.assertRegex(self.would(FAR, "bob"), "^undecided logins would delay by ")
        self.scene = Scene(policy=LoginPolicy(userSlow=0, userRefuse=2))
        for host in hosts(2):
            self.scene.fail(host, "joe", 1, mode=Mode.DRY_RUN)
        self.assertEqual(self.would(FAR, "joe"), "R7 would refuse")

    def would(self, host: str, user: str) -> str:
        """What limits would do to a login, which passes at once."""
        verdict = self.scene.verdict(host, user, mode=Mode.DRY_RUN)
        self.assertEqual((verdict.action, verdict.seconds), (Action.GO, 0.0))
        return verdict.would


class KnownWaysToFailTests(Case):
    """The fifteen cases."""

    def test_case01_strangers(self) -> None:
        """1: a stranger cannot lock the owner out, at the same address neither."""
        self.scene.succeed(NEAR, "joe")
        self.scene.attack([*hosts(30), "192.0.2.8"], lambda: "joe", pause=3.0)
        self.scene.run(600)
        begun = self.scene.begin(login(NEAR, "joe", "right"), isRight=True)
        self.scene.run(1)
        self.assertEqual(begun.result, Result.ACCEPTED)
        # One who was never seen before needs patience, but is not refused for good.
        for _ in range(1000):
            begun = self.scene.once(login(FAR, "joe", "right"), isRight=True)
            if begun.result is Result.ACCEPTED:
                break
            self.scene.run(7)
        self.assertEqual(begun.result, Result.ACCEPTED)

    def test_case02_oldPassword(self) -> None:
        """2: a telephone with the old password, for an hour: no delay for it, for its owner, or for others there."""
        for number in range(360):
            ended = self.scene.once(login(NEAR, "joe", "old"))
            self.assertEqual(ended.result, Result.FAILED)
            self.assertEqual(ended.asked, ended.began)
            self.scene.run(5)
            self.scene.succeed(NEAR, "joe")
            if number % 60 == 0:
                self.assertEqual(self.delays([self.scene.succeed(NEAR, f"user{number}")]), [0])
            self.scene.run(5)
        self.assertTrue(self.defence.explain(b"new", NEAR, "imap")["address"]["failures"] <= 1)
        self.assertEqual(self.scene.happened, [])

    def test_case03_shared(self) -> None:
        """3: the allowance of an address grows with the users who succeed there, and shrinks after a week."""
        self.assertEqual((self.defence.allowance(NEAR), self.defence.isKnown(NEAR)), (1, False))
        for number in range(12):
            self.scene.succeed(NEAR, f"user{number}")
            self.assertEqual(self.defence.allowance(NEAR), min(10, number + 2))
        self.scene.succeed(NEAR, "user11")
        self.assertTrue(self.defence.isKnown(NEAR))
        self.assertEqual(self.defence.allowance("192.0.2.8"), 1)
        for number in range(120):
            self.scene.fail(NEAR, f"other{number}", 4)
        self.assertGo(self.scene.verdict(NEAR, "new"))
        self.scene.run(8 * 86400)
        self.assertEqual(self.defence.allowance(NEAR), 1)

    def test_case04_webmail(self) -> None:
        """4: behind an exempt address, each user is still limited."""
        for number in range(40):
            self.scene.fail(NEAR, f"user{number}", 5, isExempt=True)
        self.assertGo(self.scene.verdict(NEAR, "new", isExempt=True))
        self.assertWait(self.scene.verdict(NEAR, "user3", isExempt=True), Rule.PAIR_DELAY)

    def test_case05_spellings(self) -> None:
        """5: all spellings of a name and of an address are one pair."""
        for number, name in enumerate(("Joe@a.org", "joe+x@a.org", " joe@a.org", "JOE@A.ORG", "joe+y@A.org")):
            host = (NEAR, f"::ffff:{NEAR}", f"64:ff9b::{NEAR}")[number % 3]
            self.scene.once(login(host, name, f"{number}"))
        self.assertWait(self.scene.verdict(NEAR, "joe@a.org"), Rule.PAIR_DELAY, 2)
        self.assertGo(self.scene.verdict(NEAR, "joe@b.org"))

    def test_case06_retries(self) -> None:
        """6: attempts during a block do not lengthen it, and do not count."""
        self.scene.fail(NEAR, "joe", 9)
        late = self.scene.begin(login(NEAR, "joe", "late"), seconds=30.0)
        self.scene.run(20)
        self.defence.record(login(NEAR, "joe", "other"), 0, Result.FAILED)
        (block,) = self.defence.blocks()
        self.scene.run(60)
        self.assertEqual(late.result, Result.FAILED)
        for _ in range(100):
            self.assertEqual(self.scene.fail(NEAR, "joe", 1)[0].result, Rule.PAIR_BLOCK)
            self.scene.run(1)
        self.assertEqual([each.until for each in self.defence.blocks()], [block.until])
        self.assertEqual(self.defence.explain(b"joe", NEAR, "imap")["pair"]["failures"], 10)
        self.scene.run(900)
        self.assertEqual(self.scene.fail(NEAR, "joe", 1)[0].result, Result.FAILED)

    def test_case07_parallel(self) -> None:
        """7: parallel connections get no more guesses than one: neither of a pair nor of an address."""
        begun = [self.scene.begin(login(NEAR, "joe", f"{each}"), seconds=5.0) for each in range(40)]
        self.scene.run(4)
        self.assertEqual(len(self.scene.questions), 10)
        self.scene.run(60)
        self.assertEqual(len(self.scene.questions), 10)
        self.assertTrue(all(each.ended is not None for each in begun))
        self.scene.questions.clear()
        for each in range(300):
            self.scene.begin(login(FAR, f"user{each}"), seconds=5.0)
        self.scene.run(60)
        self.assertEqual(len(self.scene.questions), 20)

    def test_case07_delayed(self) -> None:
        """7: under R1 one login at a time is asked, and its delay passes anew after each failure."""
        self.scene.fail(NEAR, "joe", 4)
        begun = [self.scene.begin(login(NEAR, "joe", f"{each}"), seconds=0.5) for each in range(5)]
        self.scene.run(1.2)
        self.assertEqual(sum(each.asked is not None for each in begun), 1)
        self.scene.run(0.7)
        self.assertEqual(sum(each.asked is not None for each in begun), 1)
        self.scene.run(30)
        asked = sorted(each.asked or 0 for each in begun)
        self.assertEqual([round(each - begun[0].began) for each in asked], [1, 2, 4, 8, 15])

    def test_case08_tarpit(self) -> None:
        """8: so many logins are held back, and no more; those that need not wait pass."""
        self.scene = Scene(policy=LoginPolicy(held=5))
        self.scene.succeed(FAR, "ann")
        for host in hosts(7):
            self.scene.fail(host, "joe", 4)
        verdicts = [self.scene.verdict(host, "joe") for host in hosts(7)]
        self.assertEqual([each.rule for each in verdicts], [Rule.PAIR_DELAY] * 5 + [Rule.HELD] * 2)
        self.assertGo(self.scene.verdict(FAR, "ann"))
        self.assertGo(self.scene.verdict(FAR, "bob"))
        self.scene.defence.record(login(hosts(1)[0], "joe"), verdicts[0].ticket, Result.UNDECIDED)
        self.assertWait(self.scene.verdict(hosts(7)[6], "joe"), Rule.PAIR_DELAY)

    def test_case09_spraying(self) -> None:
        """9: one password for 500 users: after 20 users the address is blocked, also over 50 connections."""
        users = iter(range(100_000))
        self.scene.attack([NEAR], lambda: f"user{next(users)}", lines=50)
        self.scene.run(60)
        self.assertEqual(len(self.scene.questions), 20)
        self.assertTrue(next(users) > 500)
        self.assertIn("failed logins of 20 users", self.scene.happened[0][2])

    def test_case10_botnet(self) -> None:
        """10: one guess from each address: the user is slowed down, and others are not."""
        for host in hosts(500):
            self.scene.begin(login(host, "joe", f"guess {host}"))
            self.scene.run(1)
        self.assertTrue(50 <= self.scene.asked("joe") <= 50 + 9, self.scene.asked("joe"))
        self.assertGo(self.scene.verdict(hosts(500)[499], "ann"))

    def test_case11_existence(self) -> None:
        """11: an unknown user's pair and a known user's wait for as long, and hear the same rules."""
        for user, result in (("joe", Result.FAILED), ("nobody", Result.FAILED_UNKNOWN)):
            for number in range(6):
                self.defence.record(login(f"10.1.{number % 2}.1", user, f"{number}"), 0, result)
        for host in ("10.1.0.1", FAR):
            verdicts = [self.scene.verdict(host, user) for user in ("joe", "nobody")]
            self.assertEqual(*[(each.action, each.seconds, each.rule) for each in verdicts])

    def test_case12_temporary(self) -> None:
        """12: what the service did not decide, what came from a cache, and what it has exempted does not count."""
        for result in (Result.UNDECIDED, Result.REPEATED, Result.UNLIMITED):
            for number in range(30):
                attempt = login(NEAR, "joe", f"{number}")
                self.defence.record(attempt, self.defence.check(attempt).ticket, result)
        self.assertGo(self.scene.verdict(NEAR, "joe"))
        self.assertEqual(self.defence.numbers()["entries"], dict.fromkeys(self.defence.numbers()["entries"], 0))

    def test_case13_digests(self) -> None:
        """13: with digest methods each attempt counts, a third of a failure."""
        ended = self.scene.fail(NEAR, "joe", 13, kind=Kind.DIGEST)
        self.assertEqual(self.delays(ended), [0] * 12 + [1])
        ended = self.scene.fail(NEAR, "joe", 17, kind=Kind.DIGEST)
        self.assertEqual(ended[-1].result, Result.FAILED)
        self.assertRefuse(self.scene.verdict(NEAR, "joe"), Rule.PAIR_BLOCK)

    def test_case13_mixed(self) -> None:
        """13: digest attempts and passwords add up."""
        self.scene.fail(NEAR, "joe", 6, kind=Kind.DIGEST)
        self.assertEqual(self.delays(self.scene.fail(NEAR, "joe", 3)), [0, 0, 1])

    def test_case13_tokens(self) -> None:
        """13: an expired token repeats, and no token counts against the user."""
        self.scene = Scene()
        for _ in range(30):
            self.scene.once(login(NEAR, "joe", "token", kind=Kind.TOKEN))
        self.assertGo(self.scene.verdict(NEAR, "joe", "other", kind=Kind.TOKEN))
        for host in hosts(80):
            self.scene.fail(host, "joe", 1, kind=Kind.TOKEN)
        self.assertEqual(self.scene.defence.explain(b"joe", FAR, "imap")["user"]["failures"], 0)
        for host in hosts(80):
            self.scene.fail(host, "joe", 1)
        self.scene.verdict("10.99.0.1", "joe")
        self.assertRefuse(self.scene.verdict("10.99.0.1", "joe"), Rule.USER_SLOW)
        self.assertGo(self.scene.verdict("10.99.0.1", "joe", kind=Kind.TOKEN))

    def test_case13_external(self) -> None:
        """13: without a password nothing counts, and nothing is known of it."""
        for _ in range(200):
            attempt = login(NEAR, "", kind=Kind.EXTERNAL, rate=Rate(60.0))
            verdict = self.defence.check(attempt)
            self.assertEqual((verdict.action, verdict.ticket), (Action.GO, 0))
            self.defence.record(attempt, verdict.ticket, Result.FAILED)
        self.assertEqual(self.defence.numbers()["entries"]["addresses"], 0)

    def test_case14_forgotten(self) -> None:
        """14: blocks end by themselves, also those that a later process takes over."""
        self.scene.fail(NEAR, "joe", 10)
        later = self.scene.make()
        later.restore(self.defence.state())
        self.scene.run(600)
        self.assertRefuse(later.check(login(NEAR, "joe")), Rule.PAIR_BLOCK)
        self.scene.run(301)
        self.assertGo(later.check(login(NEAR, "joe")))
        self.assertEqual(list(later.blocks()), [])

    def test_case15_rightPassword(self) -> None:
        """15: the right password does not pass a block, even if it is the one that was right before."""
        self.scene.fail(NEAR, "joe", 10)
        ended = self.scene.once(login(NEAR, "joe", "right"), isRight=True)
        self.assertEqual(ended.result, Rule.PAIR_BLOCK)
        self.scene.succeed(FAR, "ann")
        self.scene.fail(FAR, "ann", 5)
        self.assertWait(self.scene.verdict(FAR, "ann", "right"), Rule.PAIR_DELAY, 2)


class SceneTests(Case):
    """What an attacker is left with, and what others notice."""

    def attack(self, restarts: bool) -> None:
        self.scene.succeed(NEAR, "joe")
        self.scene.attack(hosts(20), lambda: "joe", lines=5)
        for second in range(60):
            self.scene.run(1)
            if restarts and second == 1:
                later = self.scene.make(key=bytes(32))
                later.restore(self.scene.defence.state())
                self.scene.defence = later
            if second % 10 == 9:
                began = self.scene.begin(login("192.0.2.33", "joe", "right"), isRight=True)
                self.scene.run(0.9)
                self.assertEqual(began.result, Result.ACCEPTED)
                self.scene.questions.remove(began)
        self.assertTrue(50 <= len(self.scene.questions) <= 60, len(self.scene.questions))

    def test_attack(self) -> None:
        """20 addresses of 20 networks get at most 60 answers in a minute, and the owner logs in within a second."""
        self.attack(restarts=False)

    def test_attackAndRestart(self) -> None:
        """A restart with its state in the middle gives them no more."""
        self.attack(restarts=True)

    def day(self, policy: LoginPolicy, addresses: list[str], lines: int = 1, pause: float = 1.0) -> int:
        """How many answers an attack on one user gets in a day."""
        self.scene = Scene(policy=policy)
        self.scene.attack(addresses, lambda: "joe", pause=pause, lines=lines)
        self.scene.run(86399)
        return len(self.scene.questions)

    def test_dayOfPair(self) -> None:
        """One address on one user: 82 guesses a day by R1 and R2 alone, and R6 leaves fewer."""
        self.assertEqual(self.day(LoginPolicy(userSlow=0), [FAR], pause=9.0), 82)
        self.assertTrue(self.day(POLICY, [FAR], pause=9.0) <= 82)

    def test_dayOfSpray(self) -> None:
        """One address over many users without a success: 101 guesses a day."""
        users = iter(range(10**6))
        self.scene.attack([FAR], lambda: f"user{next(users)}", pause=9.0)
        self.scene.run(86399)
        self.assertEqual(len(self.scene.questions), 101)

    def test_dayOfBotnet(self) -> None:
        """Any number of addresses on one user: 50 guesses, and one a minute."""
        addresses = iter(hosts(65536))
        self.scene.succeed(NEAR, "joe")
        for _ in range(86400 // 15):
            self.scene.begin(login(next(addresses), "joe", f"{_}"))
            self.scene.run(15)
        found = self.scene.asked("joe") - 1
        self.assertTrue(1400 <= found <= 50 + 1440, found)
        self.scene.succeed("192.0.2.70", "joe")

    def test_officeWithoutState(self) -> None:
        """
        500 users behind one address come within 30 s, without a state file: as users succeed, the allowance grows, and
        few are over the rate. L{mailgate.test.limits.test_office} has them with one.
        """
        rate = Rate(1.0, 30, isDelayed=True)
        self.scene = Scene(isFresh=True)
        begun = [
            self.scene.begin(login(NEAR, f"user{each}", "right", rate=rate), isRight=True, after=0.001 + each * 0.06)
            for each in range(500)
        ]
        self.scene.run(60)
        refused = [each for each in begun if each.result is not Result.ACCEPTED]
        self.assertEqual({each.result for each in refused}, {Rule.REQ_LOGIN})
        self.assertTrue(len(refused) < 50, len(refused))
        self.assertTrue(max(self.delays(begun)) < 31)
        again = [self.scene.begin(each.attempt, isRight=True) for each in refused]
        self.scene.run(20)
        self.assertEqual({each.result for each in again}, {Result.ACCEPTED})


class LeftOpenTests(Case):
    """Strangers who leave logins undecided, such as SCRAM without the proof, keep no owner out."""

    def test_user(self) -> None:
        """Many of one user, from anywhere: an owner elsewhere is drawn as under R6, and guesses are no more."""
        for host in hosts(50):
            self.assertGo(self.scene.verdict(host, "joe"))
        self.assertEqual(self.scene.succeed(FAR, "joe").result, Result.ACCEPTED)
        self.assertTrue(self.scene.now < 30)
        self.scene.questions.clear()
        for each, host in enumerate(hosts(200)[50:]):
            self.scene.begin(login(host, "joe", host), seconds=900.0, after=each * 2.0)
        self.scene.run(300)
        self.assertTrue(1 <= len(self.scene.questions) <= 6, len(self.scene.questions))

    def test_turn(self) -> None:
        """The one that was drawn under R6: the next has its turn a minute later."""
        for host in hosts(50):
            self.scene.fail(host, "joe", 1)
        self.scene.begin(login(hosts(51)[50], "joe"), seconds=500.0)
        self.scene.run(50)
        self.assertEqual(self.scene.succeed(FAR, "joe").result, Result.ACCEPTED)
        self.assertTrue(60 <= self.scene.now < 62)

    def test_pair(self) -> None:
        """As many as a pair may have, or one after four failures: the owner passes, once a minute."""
        for failures, number in ((0, 10), (4, 1)):
            self.setUp()
            self.scene.succeed(NEAR, "joe")
            self.scene.fail(NEAR, "joe", failures)
            for each in range(number):
                self.scene.begin(login(NEAR, "joe", f"open {each}"), seconds=500.0)
            self.scene.run(2)
            self.assertEqual(self.scene.succeed(NEAR, "joe").result, Result.ACCEPTED)
            self.scene.questions.clear()
            for each in range(40):
                self.scene.begin(login(NEAR, "joe", f"further {each}"), seconds=500.0, after=each * 5.0)
            self.scene.run(230)
            # The owner's success has made room for 10 again.
            self.assertTrue(number + len(self.scene.questions) <= 14, len(self.scene.questions))

    def test_address(self) -> None:
        """As many of unknown users as an address may have: users who are known there pass at once."""
        for user in ("joe", "ann"):
            self.scene.succeed(NEAR, user)
        passed = [self.scene.verdict(NEAR, f"user{each}").action for each in range(310)].count(Action.GO)
        self.assertEqual(passed, 225)
        self.assertGo(self.scene.verdict(NEAR, "joe"))


class TicketTests(Case):
    """Undecided logins."""

    def test_forget(self) -> None:
        """A process that goes leaves nothing behind."""
        self.scene.fail(NEAR, "joe", 4)
        for owner in ("one", "two"):
            for each in range(3):
                self.defence.check(login(FAR, f"user{each}"), 0, owner)
            self.defence.check(login(NEAR, "joe"), 0, owner)
        undecided = self.defence.ledger.undecided
        self.assertEqual((len(undecided.logins), undecided.held), (8, 2))
        self.defence.forget("one")
        self.assertEqual((len(undecided.logins), undecided.held), (4, 1))
        self.defence.forget("two")
        self.assertEqual((undecided.logins, undecided.counts, undecided.held), ({}, {}, 0))

    def test_old(self) -> None:
        """A login that no one ends is forgotten after ten minutes."""
        for _ in range(10):
            self.scene.verdict(NEAR, "joe")
        self.assertWait(self.scene.verdict(NEAR, "joe"), Rule.UNDECIDED)
        self.scene.run(601)
        self.assertGo(self.scene.verdict(NEAR, "joe"))
        self.assertEqual(len(self.defence.ledger.undecided.logins), 1)

    def test_foreign(self) -> None:
        """A ticket of another process frees nothing, and its result counts."""
        mine = self.scene.verdict(NEAR, "joe")
        for number in range(4):
            self.defence.record(login(NEAR, "joe", f"{number}"), 12345 + number, Result.FAILED)
        self.defence.record(login(NEAR, "joe", "5"), mine.ticket, Result.FAILED, "another")
        self.assertEqual(len(self.defence.ledger.undecided.logins), 1)
        self.assertEqual(self.defence.explain(b"joe", NEAR, "imap")["pair"]["failures"], 5)

    def test_unknownAgain(self) -> None:
        """A login whose ticket was forgotten begins again."""
        self.assertGo(self.defence.check(login(NEAR, "joe"), 4711))

    def test_twice(self) -> None:
        """A login that was let pass and is checked again is another one; a second record frees nothing more."""
        verdict = self.scene.verdict(NEAR, "joe")
        again = self.defence.check(login(NEAR, "joe"), verdict.ticket)
        self.assertNotEqual(again.ticket, verdict.ticket)
        for _ in range(2):
            self.defence.record(login(NEAR, "joe"), verdict.ticket, Result.UNDECIDED)
        self.assertEqual(self.defence.ledger.undecided.of(self.defence.ledger.keys.place(NEAR).address), 1)

    def test_bounded(self) -> None:
        """So many are remembered, and the oldest go."""
        defence = Defence(memory=1 << 17)
        for each in range(100):
            self.assertGo(defence.check(login(f"10.0.{each}.1", f"user{each}")))
        undecided = defence.ledger.undecided
        self.assertEqual(len(undecided.logins), undecided.most)
        self.assertEqual(sum(undecided.counts.values()), 4 * undecided.most)
        self.assertTrue(all(0 < ticket < 1 << 40 for ticket in undecided.logins))

    def test_heldFirst(self) -> None:
        """Those that are held back go first: one that is asked would make room for another guess at its user."""
        undecided = Undecided(4, 0)

        def remember(isAsked: bool) -> int:
            each = self.defence.loginOf(login(NEAR, "joe"), 0.0, "")
            ticket = undecided.add(each)
            if isAsked:
                undecided.ask(each)
            return ticket

        asked, held, last = remember(True), remember(False), remember(True)
        remember(False)
        remember(True)
        self.assertIn(asked, undecided.logins)
        self.assertNotIn(held, undecided.logins)
        self.assertEqual(undecided.held, 1)
        remember(True)
        self.assertEqual(undecided.held, 0)
        remember(True)
        self.assertNotIn(asked, undecided.logins)
        self.assertIn(last, undecided.logins)
        self.assertEqual(len(undecided.logins), 4)
