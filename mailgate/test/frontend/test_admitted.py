"""
Tests of the limits for connections in dialogues: what a client hears that is turned away, and that each connection is
counted down once, however it ends.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend import dialogue
from mailgate.frontend.realip import RealIPSettings, Senders
from mailgate.limits.admission import Admission, Ground
from mailgate.limits.attempt import Rule
from mailgate.limits.counts import Counts
from mailgate.limits.policy import Access, ConnectionPolicy, Rate
from mailgate.limits.rates import LocalRates
from mailgate.log.journal import Journal
from mailgate.login import Denial, Refusal, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.sieve import SIEVE
from mailgate.protocols.smtp import SMTP
from mailgate.session import Outcome, Session
from mailgate.test.support.limitstore import StandInLimits
from mailgate.test.support.loginguards import sourcesOf
from mailgate.test.support.proxyheaders import TEXT4, TEXT6
from mailgate.test.support.watching import RecordingWatch
from mailgate.testing import ROUTE, Conversation, FakeAuthenticator, FakeConnector

NONE = ConnectionPolicy(*(0, 0, 0, 0), connection=None, handshake=None, login=None, dropFrom=0)
LOGIN = b"a LOGIN joe sesame"
LINES = {
    "imap": b"* BYE [UNAVAILABLE] Too many connections, try again later\r\n",
    "pop3": b"-ERR [SYS/TEMP] Too many connections\r\n",
    "smtp": b"421 4.7.0 mx.test Too many connections\r\n",
    "sieve": b'BYE (TRYLATER) "Too many connections, try again later."\r\n',
}


class AdmittedCase(SynchronousTestCase):
    """Conversations with one server, whose limits are real."""

    def setUp(self) -> None:
        self.counts = Counts()
        self.store = StandInLimits()
        self.told: list[tuple[str, str]] = []
        self.use(NONE)

    def use(self, policy: ConnectionPolicy) -> None:
        self.now = 0.0
        ground = Ground(self.counts, LocalRates(), self.store, monotonic=lambda: self.now, chance=lambda: 0.0)
        self.admission = Admission("mail", policy, sourcesOf("mail", policy), ground, self.tell)

    def tell(self, session: Session, rule: Rule, action: str) -> None:
        self.told.append((rule.value, action))

    def converse(self, record: Any = IMAP4, *groups: Any, **others: Any) -> Conversation:
        self.watch = RecordingWatch()
        watched = type("Watched", (Conversation,), {"watch": self.watch})
        conversation: Conversation = watched(record, *groups, admission=self.admission, **others)
        return conversation

    def countOf(self, host: str = "192.0.2.7") -> int:
        return self.admission.explain(b"", host)["address"]["count"]

    def assertTurnedAway(self, conversation: Conversation, line: bytes, reason: str) -> None:
        """The client hears a line alone, or nothing, and the connection ends without a trace."""
        self.assertEqual(conversation.hear(), line)
        self.assertTrue(conversation.closed)
        self.assertEqual(conversation.transport.tls, [])
        # What the client has sent meanwhile is not obeyed.
        self.assertEqual(conversation.send(b"a CAPABILITY\r\nCAPA\r\n"), b"")
        conversation.transport.lose()
        self.assertEqual(conversation.factory.connections, set())
        self.assertEqual(conversation.clock.getDelayedCalls(), [])
        (session,) = {id(session): session for session in self.watch.sessions}.values()
        self.assertEqual((session.outcome, session.reason), (Outcome.LIMITED, reason))
        self.assertEqual(self.watch.names, ["began", "ended"])


class TurnedAwayTests(AdmittedCase):
    """Clients that are turned away at once."""

    def test_words(self) -> None:
        """At a plain port the client hears one line in its protocol, and no greeting."""
        self.use(evolve(NONE, address=1))
        for record in (IMAP4, POP3, SMTP, SIEVE):
            first = self.converse(record)
            self.assertFalse(first.closed)
            self.assertTurnedAway(self.converse(record), LINES[record.name], "limit_conn address")
            first.transport.lose()
        self.assertEqual(self.told, [("limit_conn address", "refused")] * 4)

    def test_tls(self) -> None:
        """At a TLS port there is neither a line nor a handshake."""
        self.use(evolve(NONE, connection=Rate(60.0)))
        for record in (IMAP4, POP3, SMTP, SIEVE):
            self.converse(record, ssl=True).transport.lose()
            self.assertTurnedAway(self.converse(record, ssl=True), b"", "limit_req connection")
            self.now += 60

    def test_block(self) -> None:
        """Operators' blocks and C{access} refuse without saying why."""
        self.store.block("127.0.0.1", 60, "abuse")
        peer = IPv4Address("TCP", "127.0.0.1", 1)
        blocked = self.converse(POP3, peer=peer)
        line = blocked.hear()
        self.assertTrue(line.startswith(b"-ERR [SYS/TEMP] "), line)
        self.assertNotIn(b"abuse", line)
        self.use(evolve(NONE, access=(Access(False, None),)))
        self.assertTurnedAway(self.converse(POP3, peer=peer), line, "access")

    def test_log(self) -> None:
        """The story of the connection names the rule. Its line is limited in rate, as all that strangers can cause."""
        self.use(evolve(NONE, address=1))
        kept = self.converse()
        conversation = self.converse(level=LogLevel.info)
        conversation.transport.lose()
        (line,) = conversation.logged()
        self.assertIn("limited (limit_conn address)", line)
        asked: list[str] = []
        self.patch(Journal, "record", lambda *_, **__: asked.append("record"))
        self.patch(Journal, "info", lambda *_, **__: asked.append("info"))
        self.converse().transport.lose()
        self.assertEqual(asked, ["info"])
        self.assertFalse(kept.closed)

    def test_handshake(self) -> None:
        """After a full handshake too many, the connection ends before the greeting."""
        self.use(evolve(NONE, handshake=Rate(60.0)))
        first = self.converse(ssl=True)
        first.transport.shakeHands()
        self.assertTrue(first.hear().startswith(b"* OK"))
        second = self.converse(ssl=True)
        second.transport.shakeHands()
        self.assertEqual(second.hear(), LINES["imap"])
        self.assertTrue(second.closed)
        second.transport.lose()
        self.assertEqual(self.watch.valuesOf("ended"), [(Outcome.LIMITED,)])
        self.assertEqual(self.watch.sessions[-1].reason, "limit_req handshake")

    def test_resumed(self) -> None:
        """A resumed session is no full handshake."""
        self.use(evolve(NONE, handshake=Rate(60.0)))
        self.patch(dialogue, "isResumed", lambda _: True)
        for _ in range(3):
            conversation = self.converse(ssl=True)
            conversation.transport.shakeHands()
            self.assertTrue(conversation.hear().startswith(b"* OK"))

    def test_off(self) -> None:
        """Without limits a connection counts for nothing."""
        conversation = Conversation(IMAP4)
        session = conversation.server.session
        conversation.says(LOGIN)
        self.assertEqual((conversation.factory.admission, session.counted), (None, None))


class AddressTests(AdmittedCase):
    """Which address counts."""

    def setUp(self) -> None:
        super().setUp()
        self.use(evolve(NONE, address=1))

    def peerAt(self, host: str) -> IPv6Address:
        return IPv6Address("TCP", host, 40123)

    def test_mapped(self) -> None:
        """An IPv4-mapped address is the IPv4 address."""
        kept = self.converse(peer=self.peerAt("::ffff:192.0.2.7"))
        self.assertEqual(self.countOf(), 1)
        other = self.converse(peer=IPv4Address("TCP", "192.0.2.7", 9))
        self.assertTurnedAway(other, LINES["imap"], "limit_conn address")
        kept.transport.lose()
        self.assertEqual(self.countOf(), 0)

    def test_proxyHeader(self) -> None:
        """
        Behind a PROXY header its address counts, and not before the header is read. The balancer's does not, however
        many clients it has.
        """
        realIP = RealIPSettings(Senders((), True))
        peer = UNIXAddress(None)
        waiting = [self.converse(IMAP4, realIP, peer=peer, proxyProtocol=True) for _ in range(3)]
        self.assertEqual(self.counts.numbers, {})
        self.assertTrue(waiting[0].send(TEXT4).startswith(b"* OK"))
        self.assertTrue(waiting[1].send(TEXT6).startswith(b"* OK"))
        self.assertEqual((self.countOf(), self.countOf("2001:db8::7"), len(self.counts.numbers)), (1, 1, 2))
        self.assertEqual(waiting[2].send(TEXT4 + b"a LOGOUT\r\n"), LINES["imap"])
        self.assertTrue(waiting[2].closed)
        for conversation in waiting:
            conversation.transport.lose()
        self.assertEqual(self.counts.numbers, {})

    def test_unix(self) -> None:
        """Clients of unix sockets have no limit by address."""
        for _ in range(3):
            self.assertFalse(self.converse(peer=UNIXAddress(None)).closed)


class CountedOnceTests(AdmittedCase):
    """All ends of a connection."""

    def setUp(self) -> None:
        super().setUp()
        self.use(evolve(NONE, address=9, user=9, userAddress=9, server=9, dropFrom=99, dropAll=999))

    def assertCounted(self, address: int, user: int) -> None:
        rows = self.admission.explain(b"joe", "192.0.2.7")
        self.assertEqual(
            [rows[word]["count"] for word in ("address", "user", "user_address", "server")], [address] + 3 * [user]
        )

    def converse(self, *arguments: Any, **others: Any) -> Conversation:
        return super().converse(*arguments, peer=IPv4Address("TCP", "192.0.2.7", 4), **others)

    def assertNothing(self) -> None:
        self.assertEqual(self.counts.sessionsOf("mail"), {})
        self.assertEqual(self.counts.counter(b"sessions mail").count, 0)
        self.assertEqual(self.counts.numbers, {})
        self.assertEqual(self.counts.counter(b"new mail").count, 0)

    def test_before(self) -> None:
        """The client leaves, or is ended by a command, a deadline, or a stop."""
        for act in (
            lambda talk: None,
            lambda talk: talk.says(b"a LOGOUT"),
            lambda talk: talk.clock.advance(1000),
            lambda talk: talk.dismiss(),
            lambda talk: talk.server.stop(),
        ):
            talk = self.converse()
            self.assertCounted(1, 0)
            act(talk)
            talk.transport.lose()
            self.assertNothing()

    def test_relayed(self) -> None:
        """After the login it counts for its user alone, until the relay has ended."""
        talk = self.converse()
        talk.says(LOGIN)
        self.assertCounted(0, 1)
        self.assertEqual(self.counts.counter(b"new mail").count, 0)
        relay: Any = next(iter(talk.factory.connections))
        talk.transport.lose()
        self.assertCounted(0, 1)
        relay._backend.transport.lose()
        self.assertNothing()

    def test_denied(self) -> None:
        """A refused login counts for no user."""
        talk = self.converse(authenticator=FakeAuthenticator(Denial(Trouble.DENIED)))
        talk.says(LOGIN)
        talk.clock.advance(10)
        self.assertCounted(1, 0)
        talk.transport.lose()
        self.assertNothing()

    def test_noBackend(self) -> None:
        """A login that no backend takes; the next one is that of another user."""
        ann = evolve(ROUTE, user=b"ann")
        talk = self.converse(
            authenticator=FakeAuthenticator(ROUTE, ann), connector=FakeConnector(*[Denial(Trouble.TEMPORARY)] * 2)
        )
        talk.says(LOGIN)
        talk.says(b"b LOGIN ann sesame")
        self.assertEqual(self.admission.explain(b"joe", "")["user"]["count"], 0)
        self.assertEqual(self.admission.explain(b"ann", "")["user"]["count"], 1)
        self.assertEqual(self.admission.explain(b"ann", "")["server"]["count"], 1)
        talk.transport.lose()
        self.assertNothing()

    def test_refusal(self) -> None:
        """A backend's refusal ends the connection."""
        talk = self.converse(connector=FakeConnector(Refusal(b"a NO no\r\n")))
        talk.says(LOGIN)
        talk.transport.lose()
        self.assertNothing()

    def test_tooMany(self) -> None:
        """A session too many is refused in the protocol's words for that; the connection may log in as another user."""
        self.use(evolve(NONE, user=1, address=9))
        kept = self.converse()
        kept.says(LOGIN)
        talk = self.converse()
        talk.hear()
        self.assertTrue(talk.says(LOGIN).startswith(b"a NO [LIMIT] Too many sessions"))
        self.assertEqual(talk.connector.routes, [])
        self.assertEqual(self.told, [("limit_conn user", "refused")])
        talk.transport.lose()
        kept.transport.lose()
