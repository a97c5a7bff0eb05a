"""Tests for L{mailgate.limits.loginguard}."""

from __future__ import annotations

from types import CoroutineType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, LogPublisher, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.backend.coroutine import Task
from mailgate.interfaces import ILoginGuard
from mailgate.limits.attempt import Action, Attempt, Kind, Result, Rule, Verdict
from mailgate.limits.loginguard import LONGEST, REFUSED_AFTER, LoginGuard, denialOf, resultOf
from mailgate.limits.policy import ConnectionPolicy, Mode, Rate
from mailgate.log.connection import peerName
from mailgate.log.journal import Journal
from mailgate.login import Asked, Client, Credentials, Denial, Method, Refusal, RouteOptions, Trouble
from mailgate.net.networks import parseNetwork
from mailgate.test.support.loginguards import ScriptedStore, guardOf, refused, waits
from mailgate.testing import ROUTE, requestFor, routeTo
from mailgate.testing.fakes import makeSession

PASSWORD = Credentials(Method.PLAIN, b"joe", b"sesame")


class GuardTestCase(SynchronousTestCase):
    """Logins at a guard with a store that answers as the test says."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[dict[str, Any]] = []
        self.delays: list[float] = []
        self.session = makeSession("imap", "0.0.0.0:143", "192.0.2.7:40123", 0.0, id="s1")
        self.outcomes: list[Any] = []

    def guard(self, *verdicts: Verdict | Deferred[Verdict], policy: Any = ConnectionPolicy()) -> LoginGuard:  # noqa: B008
        self.store = ScriptedStore(*verdicts)
        publisher: Any = LogPublisher(self.events.append)  # type: ignore[arg-type]
        return guardOf(self.store, self.clock, Journal(LogLevel.info, publisher), policy)

    def begin(self, guard: LoginGuard, credentials: Credentials = PASSWORD, host: str = "192.0.2.7") -> Any:
        request = requestFor("imap", credentials=credentials, client=Client(host, 40123))
        return guard.begin(request, self.session, self.delays.append)

    def hold(self, *verdicts: Verdict | Deferred[Verdict]) -> Task:
        """Begin a login that is not decided at once. Its end is in C{outcomes}."""
        begun = self.begin(self.guard(*verdicts))
        self.assertIsInstance(begun, CoroutineType)

        async def login() -> None:
            self.outcomes.append(await begun)

        task = Task(login(), self.outcomes.append)
        task.start()
        return task

    def lines(self) -> list[str]:
        return [formatEvent(event).partition(", server")[0] for event in self.events]


class AttemptTests(GuardTestCase):
    """What the store gets."""

    def attempt(self, credentials: Credentials, host: str = "192.0.2.7", policy: Any = ConnectionPolicy()) -> Attempt:  # noqa: B008
        self.session.client = peerName(host, 40123)
        guard = self.guard(policy=policy)
        passed = self.begin(guard, credentials, host)
        ((attempt, ticket),) = self.store.checks
        self.assertEqual((ticket, attempt.tag), (0, b""))
        guard.ended(passed, Denial(Trouble.DENIED))
        # One object may stand for many logins, and none of them has a tag before it has failed.
        self.assertEqual(attempt.tag, b"")
        return self.store.records[-1][0]

    def test_kinds(self) -> None:
        """Each method has a kind. What repeats has a tag."""
        kinds = {method: self.attempt(Credentials(method, b"joe", b"x")) for method in Method}
        self.assertEqual({kind.kind for kind in kinds.values()}, set(Kind))
        for method, attempt in kinds.items():
            isTagged = method in (Method.PLAIN, Method.XOAUTH2, Method.OAUTHBEARER)
            self.assertEqual(len(attempt.tag), 16 if isTagged else 0, method)
        self.assertIs(kinds[Method.SCRAM_SHA_1].kind, Kind.DIGEST)
        self.assertIs(kinds[Method.NONE].kind, Kind.EXTERNAL)

    def test_tag(self) -> None:
        """
        The tag is the same for the same password of a user, in all spellings of the name, and for nothing else. It is
        in no log, and neither is the password.
        """
        pairs = ((b"joe@a.org", b"x"), (b" Joe+a@A.org", b"x"), (b"joe@a.org", b"y"), (b"jo", b"x"))
        tags = [self.attempt(Credentials(Method.PLAIN, *pair)).tag for pair in pairs]
        self.assertEqual(tags[0], tags[1])
        self.assertEqual(len(set(tags)), 3)
        shown = repr(self.attempt(PASSWORD))
        self.assertNotIn("sesame", shown)
        self.assertNotIn("tag", shown)

    def test_names(self) -> None:
        """All spellings of a user, and of an address, have one form. A master login is charged to the master."""
        for user in (b"joe@example.org", b"JOE@example.ORG", b" joe+news@example.org "):
            self.assertEqual(self.attempt(Credentials(Method.PLAIN, user, b"x")).user, b"joe@example.org")
        self.assertEqual(self.attempt(Credentials(Method.PLAIN, b"joe*Admin", b"x")).user, b"admin")
        self.assertEqual(self.attempt(Credentials(Method.PLAIN, b"admin", b"x", authzid=b"joe")).user, b"admin")
        for host in ("192.0.2.7", "::ffff:192.0.2.7", "64:ff9b::c000:207"):
            self.assertEqual(self.attempt(PASSWORD, host).host, "192.0.2.7")
        self.assertEqual(self.attempt(PASSWORD, "unix:").host, "unix:")

    def test_policy(self) -> None:
        """What the server's directives say goes with the login."""
        policy = ConnectionPolicy(exempt=(parseNetwork("127.0.0.0/8"),), login=Rate(2.0, 5), reqMode=Mode.DRY_RUN)
        attempt = self.attempt(PASSWORD, "127.0.0.9", policy)
        self.assertTrue(attempt.isExempt)
        self.assertEqual((attempt.rate, attempt.rateMode, attempt.mode), (Rate(2.0, 5), Mode.DRY_RUN, Mode.ON))
        self.assertFalse(self.attempt(PASSWORD, "192.0.2.7", policy).isExempt)
        self.assertIsNone(self.attempt(PASSWORD, policy=ConnectionPolicy(reqMode=Mode.OFF)).rate)


class VerdictTests(GuardTestCase):
    """What the guard does with a verdict."""

    def test_interface(self) -> None:
        """The guard is an L{ILoginGuard}."""
        verifyObject(ILoginGuard, self.guard())

    def test_elsewhere(self) -> None:
        """The record of the connection has the sessions at other gateways that the last verdict tells, or none."""
        for verdict, expected in (
            (Verdict(Action.GO, 1, elsewhere=3, elsewhereAddress=1), Asked(b"joe", 3, 1)),
            (Verdict(Action.GO, 1, would="R1 would delay by 4 s", elsewhere=2), Asked(b"joe", 2, 0)),
            (Verdict(Action.GO, 1, would="R1 would delay by 4 s"), None),
            (Verdict(Action.GO, 1, elsewhere=3), Asked(b"joe", 3, 0)),
            (Verdict(Action.GO, 1), None),
        ):
            self.begin(self.guard(verdict))
            self.assertEqual(self.session.asked, expected)
        self.hold(waits(2), Verdict(Action.GO, 1, elsewhere=5))
        self.assertIsNone(self.session.asked)
        self.clock.advance(2)
        self.assertEqual(self.session.asked, Asked(b"joe", 5, 0))

    def test_waited(self) -> None:
        """
        The record of the connection has for how long the login has waited for verdicts, all together. The time for
        which a limit holds it does not count, nor do earlier logins, nor what is too short to matter.
        """
        for first, second, waited in ((0.02, 0.01, 0.03), (0.02, 0.001, 0.02), (0.001, 0.001, 0.0)):
            verdicts: list[Deferred[Verdict]] = [Deferred(), Deferred()]
            self.hold(*verdicts)
            self.clock.advance(first)
            verdicts[0].callback(waits(2))
            self.clock.advance(2)
            self.clock.advance(second)
            verdicts[1].callback(Verdict(Action.GO, 1))
            asked = self.session.asked or Asked()
            self.assertAlmostEqual(asked.waited, waited)

    def test_atOnce(self) -> None:
        """A login without limits passes in the same call, and is recorded as it was checked."""
        guard = self.guard(Verdict(Action.GO, 7))
        passed = self.begin(guard)
        self.assertIsInstance(passed, tuple)
        self.assertEqual(self.store.records, [])
        guard.ended(passed, ROUTE)
        (record,) = self.store.records
        self.assertIs(record[0], self.store.checks[0][0])
        self.assertEqual(record[1:], (7, Result.ACCEPTED))
        self.assertEqual((self.delays, self.lines()), ([], []))

    def test_refused(self) -> None:
        """A refusal is told once, and nothing is recorded."""
        denial = self.begin(self.guard(refused(Rule.PAIR_BLOCK)))
        self.assertEqual(denial, Denial(Trouble.BLOCKED, reason="R2", wait=REFUSED_AFTER))
        self.assertEqual(self.lines(), ["limited: client 192.0.2.7:40123, R2, protocol imap, action refused"])
        self.assertEqual(self.store.records, [])

    def test_dryRun(self) -> None:
        """With C{dry_run} the login passes, and the log says what a limit would have done."""
        would = "R1 would delay by 4 s; limit_req login would refuse"
        guard = self.guard(Verdict(Action.GO, 7, would=would))
        self.assertEqual(self.begin(guard)[1], 7)
        expected = [
            "R1, protocol imap, action dry_run, would delay by 4 s",
            "limit_req login, protocol imap, action dry_run, would refuse",
        ]
        self.assertEqual([line.partition(":40123, ")[2] for line in self.lines()], expected)

    def test_dryRunHeld(self) -> None:
        """The same for a login that another limit holds or refuses. It is told once."""
        would = "R6 would refuse"
        self.hold(Verdict(Action.WAIT, 3, 2.0, Rule.PAIR_DELAY, would), Verdict(Action.GO, 4, would=would))
        self.clock.advance(2)
        self.assertEqual(self.outcomes[0][1], 4)
        self.assertEqual([line.rpartition("action ")[2] for line in self.lines()], ["dry_run, would refuse", "delayed"])
        self.begin(self.guard(Verdict(Action.REFUSE, rule=Rule.PAIR_BLOCK, would=would)))
        expected = ["dry_run, would refuse", "refused"]
        self.assertEqual([line.rpartition("action ")[2] for line in self.lines()[2:]], expected)

    def test_held(self) -> None:
        """A login that must wait is checked again with its ticket, after that time and not before. It is told once."""
        self.hold(waits(4.0, 3), waits(2.0, 4), Verdict(Action.GO, 5))
        self.clock.advance(3.9)
        self.assertEqual(len(self.store.checks), 1)
        self.clock.advance(0.1)
        self.assertEqual([ticket for _, ticket in self.store.checks], [0, 3])
        self.assertEqual(self.outcomes, [])
        self.clock.advance(2.0)
        (passed,) = self.outcomes
        self.assertEqual(passed[1], 5)
        self.assertEqual(self.delays, [4.0, 2.0])
        self.assertEqual(self.store.records, [])
        self.assertEqual(self.lines(), ["limited: client 192.0.2.7:40123, R1, protocol imap, action delayed"])

    def test_heldAndRefused(self) -> None:
        """A login may be refused after it has waited, for another reason."""
        self.hold(waits(20.0), refused(Rule.USER_SLOW))
        self.clock.advance(20)
        self.assertEqual(self.outcomes, [Denial(Trouble.TOO_FAST, reason="R6", wait=REFUSED_AFTER)])
        self.assertEqual(self.store.records, [])
        self.assertEqual([line.rpartition(" ")[2] for line in self.lines()], ["delayed", "refused"])

    def test_bound(self) -> None:
        """No login waits for ever, whatever the store says. Its ticket is given back."""
        self.hold(*(waits(25.0, ticket) for ticket in range(1, 100)))
        self.clock.pump([1.0] * int(LONGEST - 1))
        self.assertEqual(self.outcomes, [])
        self.clock.advance(1)
        (denial,) = self.outcomes
        self.assertIs(denial.trouble, Trouble.TOO_FAST)
        self.assertEqual(self.delays, [25.0, 25.0, 10.0])
        self.assertEqual(self.store.results, [(4, Result.UNDECIDED)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_noSpin(self) -> None:
        """A store that says to come back at once is not asked in a loop."""
        self.hold(*[waits(0.0)] * 10)
        self.assertEqual(len(self.store.checks), 1)
        self.clock.advance(0.01)
        self.assertEqual(len(self.store.checks), 2)

    def test_left(self) -> None:
        """A client that leaves while its login waits gives the ticket back, once. No timer stays."""
        task = self.hold(waits(4.0, 3), waits(4.0, 4))
        self.clock.advance(4)
        task.cancel()
        self.assertEqual(self.store.results, [(4, Result.UNDECIDED)])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.outcomes, [])
        task.cancel()
        self.assertEqual(len(self.store.records), 1)

    def test_others(self) -> None:
        """A login that waits holds back no other one."""
        guard = self.guard(waits(9.0, 3))
        waiting = self.begin(guard)
        task = Task(waiting, self.outcomes.append)
        task.start()
        self.assertEqual(self.begin(guard)[1], 101)
        task.cancel()


class AskedTests(GuardTestCase):
    """The verdicts of a store in another process."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: Deferred[Verdict] = Deferred()

    def test_go(self) -> None:
        """The login passes when the verdict comes."""
        self.hold(self.asked)
        self.assertEqual(self.outcomes, [])
        self.asked.callback(Verdict(Action.GO, 9))
        self.assertEqual(self.outcomes[0][1], 9)
        self.assertEqual(self.delays, [])

    def test_refused(self) -> None:
        """A refusal comes in the same way."""
        self.hold(self.asked)
        self.asked.callback(refused(Rule.ADDRESS_BLOCK))
        self.assertEqual(self.outcomes, [Denial(Trouble.BLOCKED, reason="R4", wait=REFUSED_AFTER)])

    def test_left(self) -> None:
        """If the client leaves before the verdict, the ticket that comes later is given back, once."""
        self.hold(self.asked).cancel()
        self.assertEqual(self.store.records, [])
        self.asked.callback(Verdict(Action.GO, 9))
        self.assertEqual(self.store.results, [(9, Result.UNDECIDED)])
        self.assertEqual(self.outcomes, [])

    def test_leftAndRefused(self) -> None:
        """A refusal that comes too late has no ticket to give back."""
        self.hold(self.asked).cancel()
        self.asked.callback(refused(Rule.PAIR_BLOCK))
        self.assertEqual((self.store.records, self.lines()), ([], []))

    def test_leftLater(self) -> None:
        """The ticket of the verdict before is not given back as well: the later verdict replaces it."""
        task = self.hold(waits(4.0, 3), self.asked)
        self.clock.advance(4)
        task.cancel()
        self.asked.callback(waits(4.0, 3))
        self.assertEqual(self.store.results, [(3, Result.UNDECIDED)])


class MeaningTests(SynchronousTestCase):
    """What answers mean for the limits, and what rules mean for the client."""

    def test_results(self) -> None:
        """Only refused credentials are a failure."""
        denied = Denial(Trouble.DENIED)
        unlimited = RouteOptions(isUnlimited=True)
        for answer, result in (
            (ROUTE, Result.ACCEPTED),
            (routeTo(options=RouteOptions(hold=1.0)), Result.ACCEPTED),
            (routeTo(options=unlimited), Result.UNLIMITED),
            (denied, Result.FAILED),
            (Denial(Trouble.UNAUTHORIZED), Result.FAILED),
            (Denial(Trouble.DENIED, isUnknownUser=True), Result.FAILED_UNKNOWN),
            (Denial(Trouble.DENIED, isRepeat=True, isUnknownUser=True), Result.REPEATED),
            (Denial(Trouble.DENIED, isUnlimited=True), Result.UNLIMITED),
            (Denial(Trouble.DENIED, code=b"451 4.3.0"), Result.UNDECIDED),
            (Denial(Trouble.DENIED, code=b"451 4.3.0", isUnknownUser=True), Result.UNDECIDED),
            (Denial(Trouble.TEMPORARY), Result.UNDECIDED),
            (Denial(Trouble.PERMANENT), Result.UNDECIDED),
            (Denial(Trouble.INTERNAL), Result.UNDECIDED),
            (Denial(Trouble.SESSIONS), Result.UNDECIDED),
            (Refusal(b"-ERR no\r\n"), Result.FAILED),
            (Refusal(b"-ERR [SYS/TEMP] no\r\n", True), Result.UNDECIDED),
            (None, Result.UNDECIDED),
        ):
            self.assertIs(resultOf(answer), result, answer)

    def test_denials(self) -> None:
        """Each rule has a refusal. None of them refuses credentials."""
        for rule in (*Rule, None):
            denial = denialOf(rule)
            self.assertTrue(denial.isLimit)
            self.assertFalse(denial.refusesCredentials)
            self.assertEqual(denial.reason, "" if rule is None else rule.value)
        self.assertIs(denialOf(Rule.HOLD).trouble, Trouble.HELD)
        self.assertIs(denialOf(Rule.HELD).trouble, Trouble.BUSY)
        self.assertIs(denialOf(Rule.REQ_LOGIN).trouble, Trouble.TOO_FAST)
