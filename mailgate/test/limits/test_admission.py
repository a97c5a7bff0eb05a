"""Tests for L{mailgate.limits.admission}."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.interfaces import IAdmission
from mailgate.limits.admission import Admission, Ground
from mailgate.limits.attempt import Attempt, Block, Result, Rule
from mailgate.limits.counts import Counts
from mailgate.limits.operators import Operators
from mailgate.limits.policy import Access, ConnectionPolicy, Mode, Rate
from mailgate.limits.rates import LocalRates
from mailgate.login import Asked, Credentials, Denial, Method, Trouble
from mailgate.net.networks import parseNetwork
from mailgate.session import Outcome, Session
from mailgate.test.support.loginguards import sourcesOf
from mailgate.testing.fakes import makeSession

BARE = ConnectionPolicy(
    *(0, 0, 0, 0), connection=None, handshake=None, login=None, dropFrom=0, exempt=(parseNetwork("127.0.0.0/8"),)
)
"""No limit, and local clients are exempt."""

ANN = "192.0.2.7"


class FakeStore:
    """What an admission asks of the store of limits."""

    def __init__(self) -> None:
        self.operators = Operators()
        self.blocked: set[str] = set()
        self.allowances: dict[str, int] = {}
        self.records: list[tuple[Attempt, int, Result]] = []

    def blockOf(self, host: str) -> Block | None:
        return Block("b1", host, Rule.BLOCK, 0.0, 1.0) if host in self.blocked else None

    def allowance(self, host: str) -> int:
        return self.allowances.get(host, 1)

    def isKnown(self, host: str) -> bool:
        return host in self.allowances

    def record(self, attempt: Attempt, ticket: int, result: Result) -> None:
        self.records.append((attempt, ticket, result))


class AdmissionCase(SynchronousTestCase):
    """An admission with local counts."""

    def setUp(self) -> None:
        self.store: Any = FakeStore()
        self.counts, self.rates = Counts(), LocalRates()
        self.now, self.random = 1000.0, 0.5
        self.told: list[tuple[str, str]] = []
        self.use(BARE)
        self.port = 0

    def use(self, policy: ConnectionPolicy) -> None:
        """Limit with C{policy} from now on; the tables are kept, as at a reload."""
        ground = Ground(self.counts, self.rates, self.store, monotonic=lambda: self.now, chance=lambda: self.random)
        self.admission = Admission("imap", policy, sourcesOf("imap", policy), ground, self.tell)

    def tell(self, session: Session, rule: Rule, action: str) -> None:
        self.told.append((rule.value, action))

    def client(self, host: str = ANN) -> Session:
        self.port += 1
        name = host if host == "unix:" else f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        return makeSession("imap", "0.0.0.0:143", name, 0.0)

    def arrives(self, host: str = ANN) -> Session:
        """Return a connection that is let in."""
        session = self.client(host)
        self.assertIsNone(self.admission.arrived(session, session.host))
        return session

    def refused(self, host: str = ANN) -> str:
        """Return the rule that refuses a connection, which then ends; empty if it is let in. It counts no more then."""
        session = self.client(host)
        trouble = self.admission.arrived(session, session.host)
        if trouble is not None:
            self.assertIs(session.outcome, Outcome.LIMITED)
        session.conclude(Outcome.STOPPED)
        self.admission.left(session)
        self.assertIsNone(session.counted)
        return "" if trouble is None else session.reason

    def acceptedAs(self, session: Session, user: bytes) -> str:
        """Let a session log in. Return the reason of its refusal; empty if there is none."""
        session.user = user
        session.attempts += 1
        denial = self.admission.accepted(session)
        if denial is None:
            return ""
        self.assertIsInstance(denial, Denial)
        self.assertIs(denial.trouble, Trouble.SESSIONS)
        self.assertFalse(denial.refusesCredentials)
        return denial.reason

    def shown(self, user: bytes = b"joe", host: str = ANN) -> dict[str, tuple[int, int]]:
        rows = self.admission.explain(user, host)
        return {word: (row["count"], row["limit"]) for word, row in rows.items()}

    def assertNothingLeft(self) -> None:
        counts = self.counts
        self.assertEqual((counts.numbers, counts.sessionsOf("imap")), ({}, {}))
        self.assertEqual([counts.counter(key).count for key in (b"new imap", b"sessions imap")], [0, 0])


class ArrivalTests(AdmissionCase):
    """The start of a connection."""

    def test_interface(self) -> None:
        """It is what dialogues call."""
        verifyObject(IAdmission, self.admission)

    def test_off(self) -> None:
        """Without limits all are let in, and no counts are shown."""
        for _ in range(500):
            self.assertEqual(self.acceptedAs(self.arrives(), b"joe"), "")
        self.assertEqual(self.shown(), dict.fromkeys(("server", "address", "user", "user_address"), (0, 0)))
        self.assertEqual(self.told, [])

    def test_access(self) -> None:
        """C{access} refuses what it denies, also what is exempt, and no unix socket."""
        self.use(
            evolve(BARE, access=(Access(False, parseNetwork("192.0.2.0/24")), Access(False, parseNetwork("127.0.0.9"))))
        )
        self.assertEqual(self.refused(), "access")
        self.assertEqual(self.refused("127.0.0.9"), "access")
        self.assertEqual(self.refused("::ffff:192.0.2.7"), "access")
        self.assertEqual([self.refused("198.51.100.7"), self.refused("unix:")], ["", ""])
        self.assertEqual(self.admission.arrived(self.client(), ANN), Trouble.BLOCKED)

    def test_block(self) -> None:
        """An operator's block refuses an address, also if it is exempt."""
        self.store.blocked = {ANN, "127.0.0.1"}
        self.store.operators.isEmpty = False
        self.assertEqual([self.refused(), self.refused("::ffff:192.0.2.7"), self.refused("127.0.0.1")], ["block"] * 3)
        self.assertEqual(self.refused("192.0.2.8"), "")
        self.assertEqual(self.told, [("block", "refused")] * 3)

    def test_address(self) -> None:
        """C{limit_conn address}: connections of one address, until they end; those that are refused do not count."""
        self.use(evolve(BARE, address=3))
        sessions = [self.arrives(), self.arrives("::ffff:192.0.2.7"), self.arrives()]
        for _ in range(10):
            self.assertEqual(self.refused(), "limit_conn address")
        self.assertEqual(self.refused("192.0.2.8"), "")
        self.assertEqual(self.shown()["address"], (3, 3))
        self.admission.left(sessions.pop())
        sessions.append(self.arrives())
        for session in sessions:
            self.admission.left(session)
            # Exactly once.
            self.admission.left(session)
        self.assertNothingLeft()

    def test_loggedIn(self) -> None:
        """Connections that have logged in do not count for their address."""
        self.use(evolve(BARE, address=1, dropFrom=1, dropAll=1))
        session = self.arrives()
        self.assertEqual(self.acceptedAs(session, b"joe"), "")
        self.assertEqual(self.refused(), "limit_conn address")
        self.admission.relaying(session)
        other = self.arrives()
        self.admission.left(session)
        self.assertEqual(self.refused(), "limit_conn address")
        self.admission.left(other)
        self.assertNothingLeft()

    def test_allowance(self) -> None:
        """C{limit_conn address} and C{limit_req connection} grow with the users who succeed at an address."""
        self.store.allowances = {ANN: 3}
        self.use(evolve(BARE, address=2))
        for _ in range(6):
            self.arrives()
        self.assertEqual(self.shown()["address"], (6, 6))
        self.assertEqual(self.refused(), "limit_conn address")
        self.use(evolve(BARE, connection=Rate(10.0, 1)))
        self.assertEqual([self.refused() for _ in range(5)], [""] * 4 + ["limit_req connection"])
        self.now += 3.4
        self.assertEqual([self.refused() for _ in range(2)], ["", "limit_req connection"])

    def test_rate(self) -> None:
        """C{limit_req connection}: how fast an address connects, also if its connections end at once."""
        self.use(evolve(BARE, connection=Rate(1.0, 2)))
        self.assertEqual([self.refused() for _ in range(4)], [""] * 3 + ["limit_req connection"])
        self.assertEqual(self.refused("192.0.2.8"), "")
        self.now += 1.0
        self.assertEqual([self.refused(), self.refused()], ["", "limit_req connection"])

    def test_handshakes(self) -> None:
        """C{limit_req handshake}: how fast an address shakes hands."""
        self.use(evolve(BARE, handshake=Rate(1.0, 1)))
        session = self.arrives()
        results = [self.admission.shaken(session) for _ in range(3)]
        self.assertEqual(results, [None, None, Trouble.TOO_MANY])
        self.assertEqual((session.outcome, session.reason), (Outcome.LIMITED, "limit_req handshake"))
        self.assertIsNone(self.admission.shaken(self.client("127.0.0.1")))
        self.use(BARE)
        self.assertIsNone(self.admission.shaken(session))

    def test_exemptAsks(self) -> None:
        """The store forgets what is over when it is asked, so it is once a second about exempt addresses, too."""
        self.use(evolve(BARE, exempt=(parseNetwork(f"{ANN}/32"),)))
        asked: list[str] = []

        def allowance(host: str) -> int:
            asked.append(host)
            return 1

        self.store.allowance = allowance
        for seconds, expected in ((0.0, 1), (0.9, 1), (0.2, 2), (0.5, 2)):
            self.now += seconds
            self.arrives()
            self.assertEqual(asked, [ANN] * expected)

    def test_exempt(self) -> None:
        """Exempt addresses and unix sockets have no limit at accept."""
        self.use(evolve(BARE, address=1, connection=Rate(60.0), handshake=Rate(60.0), dropFrom=1, dropAll=1))
        for host in ("127.0.0.1", "::ffff:127.0.0.1", "unix:"):
            for _ in range(5):
                session = self.arrives(host)
                self.assertIsNone(self.admission.shaken(session))
        self.assertEqual(self.told, [])

    def test_dryRun(self) -> None:
        """With C{…_dry_run} everything counts and all are let in; the log has what would have happened."""
        self.use(
            evolve(
                BARE,
                address=1,
                connection=Rate(60.0),
                handshake=Rate(60.0),
                user=1,
                connMode=Mode.DRY_RUN,
                reqMode=Mode.DRY_RUN,
            )
        )
        one, other = self.arrives(), self.arrives()
        for session in (one, other):
            self.assertIsNone(self.admission.shaken(session))
            self.assertEqual(self.acceptedAs(session, b"joe"), "")
        rules = ("limit_conn address", "limit_req connection", "limit_req handshake", "limit_conn user")
        self.assertEqual(self.told, [(rule, "dry_run") for rule in rules])
        self.assertEqual((self.shown()["address"], self.shown()["user"]), ((2, 1), (2, 1)))
        for session in (one, other):
            self.admission.left(session)
        self.assertNothingLeft()

    def test_modesOff(self) -> None:
        """A limit whose mode is off does not count."""
        self.use(evolve(ConnectionPolicy(1, 1, 1, 1), connMode=Mode.OFF, reqMode=Mode.OFF, dropMode=Mode.OFF))
        for _ in range(200):
            self.assertEqual(self.acceptedAs(self.arrives(), b"joe"), "")
        self.assertEqual(self.shown(), dict.fromkeys(("server", "address", "user", "user_address"), (0, 0)))


class EarlyDropTests(AdmissionCase):
    """R8."""

    def setUp(self) -> None:
        super().setUp()
        self.use(evolve(BARE, dropFrom=10, dropAll=30, dropShare=0.3))

    def crowd(self, count: int) -> None:
        for number in range(count):
            # Others than those in the tests.
            self.random = 1.0
            self.arrives(f"198.51.{number // 250}.{number % 250}")
        self.random = 0.0

    def test_share(self) -> None:
        """The probability is 0 below C{dropFrom}, C{dropShare} there, and grows in a line to 1."""
        shares = []
        for count in (9, 1, 10, 9):
            self.crowd(count)
            low, high = 0.0, 1.0
            for _ in range(30):
                self.random = (low + high) / 2
                if self.refused():
                    low = self.random
                else:
                    high = self.random
            shares.append(round(low, 3))
            self.random = 0.0
        self.assertEqual(shares, [0.0, 0.3, 0.65, 0.965])

    def test_all(self) -> None:
        """From C{dropAll} on everybody is dropped, known addresses too, but none that is exempt."""
        self.store.allowances = {ANN: 2}
        self.crowd(29)
        self.assertEqual([self.refused(), self.refused("192.0.2.8")], ["", "R8"])
        self.crowd(1)
        self.random = 0.999
        self.assertEqual([self.refused(), self.refused("192.0.2.8"), self.refused("127.0.0.1")], ["R8", "R8", ""])
        self.assertEqual(self.told[-1], ("R8", "refused"))

    def test_loggedIn(self) -> None:
        """Connections that have logged in, and those that have ended, do not count."""
        self.crowd(9)
        session = self.arrives()
        self.assertEqual(self.refused(), "R8")
        self.admission.relaying(session)
        self.assertEqual(self.refused(), "")

    def test_dryRun(self) -> None:
        """With dry run all are let in."""
        self.use(evolve(BARE, dropFrom=1, dropAll=1, dropMode=Mode.DRY_RUN))
        sessions = [self.arrives() for _ in range(3)]
        self.assertEqual(self.told, [("R8", "dry_run")] * 2)
        for session in sessions:
            self.admission.left(session)
        self.assertNothingLeft()

    def idle(self, count: int, host: str = ANN, outcome: Outcome = Outcome.CLIENT_LEFT, attempts: int = 0) -> None:
        for _ in range(count):
            session = self.arrives(host)
            session.attempts = attempts
            session.conclude(outcome)
            self.admission.left(session)

    def test_penalty(self) -> None:
        """Connections without a login cost their address a second each; it is refused while it owes 15."""
        self.idle(15)
        self.assertEqual([self.refused(), self.refused("192.0.2.8")], ["R8", ""])
        # What is refused costs nothing.
        for _ in range(20):
            self.refused()
        self.now += 0.5
        self.assertEqual(self.refused(), "")
        self.now += 60
        self.idle(14)
        self.assertEqual(self.refused(), "")

    def test_noPenalty(self) -> None:
        """A login, however it ends, costs nothing here, and neither does what the gateway ends."""
        self.idle(40, attempts=1)
        for outcome in (Outcome.STOPPED, Outcome.KICKED, Outcome.INTERNAL):
            self.idle(20, outcome=outcome)
        self.idle(40, "127.0.0.1")
        self.assertEqual([self.refused(), self.refused("127.0.0.1")], ["", ""])

    def test_known(self) -> None:
        """A known address is not refused for that."""
        self.idle(15)
        self.assertEqual(self.refused(), "R8")
        self.store.allowances = {ANN: 2}
        self.assertEqual(self.refused(), "")


class SessionTests(AdmissionCase):
    """The limits on sessions."""

    def test_user(self) -> None:
        """C{limit_conn user}: sessions of a user, from wherever, in all spellings of the name."""
        self.use(evolve(BARE, user=2))
        one, two = self.arrives(), self.arrives("198.51.100.7")
        self.assertEqual([self.acceptedAs(one, b"joe"), self.acceptedAs(two, b"JOE")], ["", ""])
        three = self.arrives()
        self.assertEqual(self.acceptedAs(three, b"joe"), "limit_conn user")
        self.assertEqual(self.shown()["user"], (2, 2))
        self.assertEqual(self.told, [("limit_conn user", "refused")])
        self.assertEqual(self.acceptedAs(three, b"ann"), "")
        self.admission.relaying(one)
        self.admission.left(one)
        self.assertEqual(self.acceptedAs(self.arrives(), b"joe"), "")

    def test_userAddress(self) -> None:
        """C{limit_conn user_address}: sessions of a user from one address, also from an exempt one."""
        self.use(evolve(BARE, userAddress=1))
        for host in (ANN, "127.0.0.1"):
            self.assertEqual(self.acceptedAs(self.arrives(host), b"joe"), "")
            self.assertEqual(self.acceptedAs(self.arrives(host), b"joe"), "limit_conn user_address")
            self.assertEqual(self.acceptedAs(self.arrives(host), b"ann"), "")
        self.assertEqual(self.acceptedAs(self.arrives("198.51.100.7"), b"joe"), "")
        self.assertEqual([self.acceptedAs(self.arrives("unix:"), b"joe") for _ in range(3)], [""] * 3)

    def test_server(self) -> None:
        """C{limit_conn server}: all sessions, also those without a user's name."""
        self.use(evolve(BARE, server=2, user=1))
        self.assertEqual([self.acceptedAs(self.arrives(), b"") for _ in range(2)], ["", ""])
        session = self.arrives()
        self.assertEqual(self.acceptedAs(session, b"joe"), "limit_conn server")
        # What an earlier limit has counted is counted down.
        self.assertEqual(self.shown()["user"], (0, 1))
        self.assertEqual(self.shown()["server"], (2, 2))

    def test_again(self) -> None:
        """
        A connection that logs in again, because no backend has taken it, counts for its last user alone, whatever name
        its record has meanwhile.
        """
        self.use(evolve(BARE, user=5, userAddress=5, server=5, address=5))
        session = self.arrives()
        for user in (b"joe", b"ann", b"ann"):
            self.assertEqual(self.acceptedAs(session, user), "")
        self.assertEqual((self.shown(b"joe")["user"], self.shown(b"ann")["user"]), ((0, 5), (1, 5)))
        self.assertEqual(self.shown(b"ann")["server"], (1, 5))
        session.user = b"bob"
        self.admission.relaying(session)
        self.admission.left(session)
        self.assertNothingLeft()

    def test_pass(self) -> None:
        """The pass of a login ends with it, however it is answered. The session counts for the name of the record."""
        self.use(evolve(BARE, user=1, userAddress=5, server=5, address=5))
        credentials = Credentials(Method.PLAIN, b"Joe", b"sesame")
        attempt = Attempt(ANN, b"joe")
        for number, user in enumerate((b"joe", b"Joe", b"Ann")):
            session = self.arrives()
            session.user = user
            denial = self.admission.accepted(session, (attempt, number, credentials))
            self.assertEqual(self.store.records, [(attempt, each, Result.ACCEPTED) for each in range(number + 1)])
            self.assertEqual(denial is None, user != b"Joe")
        self.assertEqual((self.shown(b"joe")["user"], self.shown(b"ann")["user"]), ((1, 1), (1, 1)))

    def test_small(self) -> None:
        """During the relay the record needs no memory for it: the name of the user is there anyway."""
        self.use(evolve(BARE, user=5, userAddress=5, server=5, address=5))
        session = self.arrives()
        self.acceptedAs(session, b"joe")
        self.admission.relaying(session)
        self.assertIs(session.counted, session.user)
        self.assertEqual(self.shown()["user_address"], (1, 5))
        self.admission.left(session)
        self.assertNothingLeft()

    def test_elsewhere(self) -> None:
        """Sessions at other gateways count for C{user} and C{user_address}, for this login alone."""
        self.use(evolve(BARE, user=5, userAddress=3, server=5))
        for counts, reason in (
            ((4, 0), ""),
            ((3, 1), ""),
            ((3, 0), "limit_conn user"),
            ((2, 1), "limit_conn user_address"),
            ((10, 10), "limit_conn user"),
        ):
            session = self.arrives()
            session.asked = Asked(b"joe", *counts)
            self.assertEqual(self.acceptedAs(session, b"Joe"), reason, counts)
            self.admission.relaying(session)
            self.assertIsNone(session.asked)
        self.assertEqual(self.shown(), {"server": (2, 5), "user": (2, 5), "user_address": (2, 3), "address": (0, 0)})
        self.assertEqual(self.acceptedAs(self.arrives(), b"joe"), "")
        # They are no sessions of this server, and none of another user.
        session = self.arrives("198.51.100.7")
        session.asked = Asked(b"joe", 10, 10)
        self.assertEqual(self.acceptedAs(session, b"ann"), "")

    def test_elsewhereDryRun(self) -> None:
        """With C{limit_conn_dry_run} they are only told, and the session counts."""
        self.use(evolve(BARE, user=5, connMode=Mode.DRY_RUN))
        session = self.arrives()
        session.asked = Asked(b"joe", 5, 0)
        self.assertEqual(self.acceptedAs(session, b"joe"), "")
        self.assertEqual(self.told, [("limit_conn user", "dry_run")])
        self.admission.left(session)
        self.assertNothingLeft()

    def test_explain(self) -> None:
        """It shows counts and limits, without changing them."""
        self.store.allowances = {ANN: 4}
        self.use(ConnectionPolicy())
        session = self.arrives()
        self.acceptedAs(session, b"joe")
        expected = {"server": (1, 20000), "address": (1, 400), "user": (1, 50), "user_address": (1, 20)}
        self.assertEqual((self.shown(), self.shown()), (expected, expected))
        self.assertEqual(self.shown(b"", ""), {"server": (1, 20000)})

    @settings(max_examples=80, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from("alru"), st.integers(0, 5)), max_size=50))
    def test_exactlyOnce(self, events: list[tuple[str, int]]) -> None:
        """In whatever order things happen, nothing is left when all connections have ended."""
        self.setUp()
        self.use(evolve(BARE, address=3, user=2, userAddress=1, server=3, dropFrom=3, dropAll=5))
        sessions: dict[int, Session] = {}
        relayed: set[int] = set()
        for event, number in events:
            if event == "a" and number not in sessions:
                sessions[number] = self.client(f"192.0.2.{number % 3}")
                self.admission.arrived(sessions[number], sessions[number].host)
            elif number in sessions and sessions[number].outcome is None and number not in relayed:
                if event == "u":
                    self.acceptedAs(sessions[number], b"%d" % (number % 2 + sessions[number].attempts % 2))
                elif event == "r":
                    # The relay is the last phase: nobody logs in after that.
                    self.admission.relaying(sessions[number])
                    relayed.add(number)
            if event == "l" and number in sessions:
                self.admission.left(sessions.pop(number))
                relayed.discard(number)
        for session in sessions.values():
            self.admission.left(session)
        self.assertNothingLeft()
