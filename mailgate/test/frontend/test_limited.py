"""
Tests of logins under limits, from the credentials to the hand-over: each that is let pass is recorded once, however it
ends.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.passthrough import PassThroughAuthenticator
from mailgate.frontend.settings import BUDGET, DialogueSettings
from mailgate.limits.attempt import Action, Kind, Result, Rule, Verdict
from mailgate.limits.loginguard import REFUSED_AFTER
from mailgate.login import Backend, Denial, Method, Refusal, RouteOptions, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.protocols.pop3 import POP3
from mailgate.scram.client import ScramClient
from mailgate.scram.secrets import derivedSecret
from mailgate.scram.settings import ScramKey
from mailgate.session import Outcome, Phase
from mailgate.test.frontend.test_scram import ACCEPTED as SCRAM_ACCEPTED
from mailgate.test.scram.test_secrets import SECRET
from mailgate.test.support.loginguards import FakeAdmission, ScriptedStore, guarded, refused, waits
from mailgate.test.support.watching import RecordingWatch
from mailgate.testing import ROUTE, Conversation, FakeAuthenticator, FakeClient, FakeConnector, routeTo

DENIED = Denial(Trouble.DENIED)
GO = Verdict(Action.GO, 5)


class LimitedTestCase(SynchronousTestCase):
    """Logins of a POP3 client at a server with a guard, whose store answers as the test says."""

    def converse(self, *verdicts: Any, answers: Any = (), dialogue: Any = None, **more: Any) -> Conversation:
        self.store = ScriptedStore(*verdicts)
        more.setdefault("authenticator", FakeAuthenticator(*answers))
        groups = [DialogueSettings(serverName="mx.test", timeout=60.0, authDelay=0.0, **(dialogue or {}))]
        return guarded(POP3, *groups, store=self.store, **more)

    def login(self, *verdicts: Any, **more: Any) -> Conversation:
        conversation = self.converse(*verdicts, **more)
        self.heard = conversation.says(b"USER joe", b"PASS sesame")
        return conversation

    def assertRecorded(self, *results: Result) -> None:
        """Each login is recorded once, with the ticket of its last verdict."""
        self.assertEqual([result for _, result in self.store.results], list(results))


class EndTests(LimitedTestCase):
    """How a login ends, as the limits hear it."""

    def test_accepted(self) -> None:
        """The authenticator has accepted it. What the backend does then changes nothing."""
        for says in (FakeClient(b"+OK\r\n"), Denial(Trouble.TEMPORARY), Refusal(b"-ERR no\r\n"), None):
            conversation = self.login(GO, connector=FakeConnector(says))
            self.assertEqual(self.store.results, [(5, Result.ACCEPTED)])
            conversation.transport.lose()
            self.assertRecorded(Result.ACCEPTED)

    def test_refused(self) -> None:
        """A wrong password is recorded before the delay of the refusal: the client may leave meanwhile."""
        conversation = self.login(GO, answers=[evolve(DENIED, wait=9.0)])
        self.assertEqual(self.store.results, [(5, Result.FAILED)])
        conversation.transport.lose()
        self.assertRecorded(Result.FAILED)

    def test_sorts(self) -> None:
        """What the authenticator says about the login reaches the limits."""
        for answer, result in (
            (evolve(DENIED, isUnknownUser=True), Result.FAILED_UNKNOWN),
            (evolve(DENIED, isRepeat=True), Result.REPEATED),
            (evolve(DENIED, isUnlimited=True), Result.UNLIMITED),
            (routeTo(options=RouteOptions(isUnlimited=True)), Result.UNLIMITED),
            (evolve(ROUTE, judged=False, options=RouteOptions(isUnlimited=True)), Result.UNLIMITED),
            (Denial(Trouble.TEMPORARY), Result.UNDECIDED),
            (Denial(Trouble.PERMANENT), Result.UNDECIDED),
            (evolve(DENIED, code=b"451 4.3.0"), Result.UNDECIDED),
            (routeTo(options=RouteOptions(lifetime=0.0)), Result.ACCEPTED),
        ):
            self.login(answers=[answer])
            self.assertRecorded(result)

    def test_broken(self) -> None:
        """A failure of the authenticator is none of the user."""
        conversation = self.login(answers=[ValueError("broken")])
        self.assertIn("the authenticator failed", conversation.logged()[0])
        self.assertRecorded(Result.UNDECIDED)

    def test_brokenLater(self) -> None:
        """Neither is one of the connector."""
        for route, result in ((ROUTE, Result.ACCEPTED), (evolve(ROUTE, judged=False), Result.UNDECIDED)):
            conversation = self.login(answers=[route], connector=FakeConnector(ValueError("broken")))
            self.assertIn("the login failed", conversation.logged()[-1])
            self.assertRecorded(result)

    def test_left(self) -> None:
        """Nothing counts if the client leaves before the answer, and the answer is not recorded as well."""
        for ends in (Conversation.dismiss, lambda conversation: conversation.transport.lose()):
            conversation = self.login(GO, answers=[None])
            self.assertEqual(self.store.records, [])
            ends(conversation)
            self.assertEqual(self.store.results, [(5, Result.UNDECIDED)])
            self.assertEqual(conversation.authenticator.cancelled, 1)

    def test_kicked(self) -> None:
        """The same for a login that an operator ends."""
        conversation = self.login(answers=[None])
        conversation.server.dismiss(Outcome.KICKED, Trouble.STOPPING)
        self.assertRecorded(Result.UNDECIDED)

    def test_deaf(self) -> None:
        """Nothing counts if the authenticator answers at once, but the client is gone by then."""
        store = ScriptedStore()

        class Leaving(FakeAuthenticator):
            def authenticate(self, request: Any) -> Deferred[Any]:
                conversation.dismiss()
                return super().authenticate(request)

        conversation = guarded(POP3, store=store, authenticator=Leaving())
        conversation.says(b"USER joe", b"PASS sesame")
        self.assertEqual([result for _, result in store.results], [Result.UNDECIDED])

    def test_several(self) -> None:
        """Each login of a connection is recorded."""
        conversation = self.converse(answers=[DENIED, Denial(Trouble.TEMPORARY), ROUTE])
        for _ in range(3):
            conversation.says(b"USER joe", b"PASS sesame")
        self.assertEqual(self.store.results, [(101, Result.FAILED), (102, Result.UNDECIDED), (103, Result.ACCEPTED)])

    def test_authzid(self) -> None:
        """C{sasl_authzid = refuse} refuses before the limits are asked: no password is looked at."""
        conversation = self.converse()
        conversation.says(b"AUTH PLAIN " + b64encode(b"joe\0admin\0x"))
        self.assertEqual((self.store.checks, conversation.requests), ([], []))

    def test_master(self) -> None:
        """A master login is charged to the master, at the check and at the record."""
        conversation = self.converse(answers=[DENIED], dialogue={"authzid": "pass"})
        conversation.says(b"AUTH PLAIN " + b64encode(b"joe\0Admin\0x"))
        ((attempt, _, result),) = self.store.records
        self.assertEqual(evolve(attempt, tag=b""), self.store.checks[0][0])
        self.assertEqual((attempt.user, result), (b"admin", Result.FAILED))

    def test_renamed(self) -> None:
        """The record has the key of the check, whatever the authenticator calls the user."""
        self.login(answers=[evolve(ROUTE, user=b"4711")])
        self.assertEqual(self.store.records[0][0].user, b"joe")


class BackendTests(LimitedTestCase):
    """Logins that the backend judges."""

    def login(self, *verdicts: Any, **more: Any) -> Conversation:
        authenticator = PassThroughAuthenticator(Backend("192.0.2.99", 110))
        return super().login(*verdicts, authenticator=authenticator, **more)

    def test_ends(self) -> None:
        """The answer of the backend counts."""
        for says, result in (
            (FakeClient(b"+OK\r\n"), Result.ACCEPTED),
            (Denial(Trouble.DENIED, answer=b"-ERR [AUTH] no"), Result.FAILED),
            (Denial(Trouble.TEMPORARY), Result.UNDECIDED),
            (Refusal(b"-ERR no\r\n"), Result.FAILED),
            (Refusal(b"-ERR [SYS/TEMP] no\r\n", True), Result.UNDECIDED),
        ):
            self.login(connector=FakeConnector(says))
            self.assertRecorded(result)

    def test_left(self) -> None:
        """Nothing counts before the backend has answered."""
        conversation = self.login(connector=FakeConnector(None))
        self.assertEqual(self.store.records, [])
        conversation.transport.lose()
        self.assertRecorded(Result.UNDECIDED)

    def test_sessions(self) -> None:
        """
        The login counts as a session once the backend has accepted it, so that wrong passwords take none of the
        owner's. A session too many leaves the backend.
        """
        admission = FakeAdmission(most=1)
        client = FakeClient(b"+OK\r\n")
        self.login(connector=FakeConnector(Denial(Trouble.DENIED)), admission=admission)
        self.assertEqual(admission.users, [])
        self.login(connector=FakeConnector(FakeClient(b"+OK\r\n")), admission=admission)
        self.assertEqual(admission.users, [b"joe"])
        conversation = self.login(connector=FakeConnector(client), admission=admission)
        self.assertTrue(self.heard.endswith(b"-ERR [IN-USE] Too many sessions\r\n"))
        self.assertTrue(client.transport.aborted)
        self.assertFalse(conversation.closed)
        self.assertRecorded(Result.ACCEPTED)


class AdmissionTests(LimitedTestCase):
    """C{limit_conn} of sessions."""

    def test_order(self) -> None:
        """It is asked after the authenticator has accepted, with the name that this gave, and before the backend."""
        admission = FakeAdmission()
        conversation = self.login(answers=[evolve(ROUTE, user=b"4711")], admission=admission)
        self.assertEqual(admission.users, [b"4711"])
        self.assertEqual(conversation.connector.routes, [])
        self.assertEqual(self.heard, b"+OK\r\n-ERR [IN-USE] Too many sessions\r\n")
        # The password was right.
        self.assertRecorded(Result.ACCEPTED)

    def test_refused(self) -> None:
        """It is not asked about refused logins."""
        admission = FakeAdmission()
        self.login(answers=[DENIED], admission=admission)
        self.assertEqual(admission.users, [])

    def test_log(self) -> None:
        """No line says that the login has failed."""
        conversation = self.login(admission=FakeAdmission())
        self.assertEqual([line for line in conversation.logged() if line.startswith("login failed")], [])


class RefusedTests(LimitedTestCase):
    """Logins that a limit refuses."""

    def test_noFailure(self) -> None:
        """
        The authenticator is not asked, the log has the line of the limit and none of a failed login, and
        C{max_auth_failures} does not count it.
        """
        conversation = self.login(*[refused(Rule.PAIR_BLOCK)] * 3, dialogue={"maxAuthFailures": 2})
        for _ in range(2):
            conversation.clock.advance(REFUSED_AFTER)
            conversation.says(b"USER joe", b"PASS sesame")
        self.assertEqual((conversation.requests, self.store.records), ([], []))
        self.assertFalse(conversation.closed)
        lines = conversation.logged()
        self.assertEqual([line[:47] for line in lines], ["limited: client 192.0.2.7:40123, R2, protocol p"] * 3)

    def test_watched(self) -> None:
        """The watch hears the limit, and that the login has ended by it."""
        watch = RecordingWatch()

        class Watched(Conversation):
            pass

        Watched.watch = watch
        conversation = Watched(POP3)
        limited = guarded(POP3, store=ScriptedStore(refused(Rule.PAIR_BLOCK)))
        conversation.factory.guard = limited.factory.guard
        conversation.says(b"USER joe", b"PASS sesame")
        self.assertEqual(watch.valuesOf("denied"), [(Denial(Trouble.BLOCKED, reason="R2", wait=REFUSED_AFTER),)])


class HeldTests(LimitedTestCase):
    """Logins that a limit holds back."""

    def test_waits(self) -> None:
        """The authenticator is asked after the delay, and the login then goes on."""
        conversation = self.login(waits(15.0, 1), Verdict(Action.GO, 2))
        conversation.clock.advance(14.9)
        self.assertEqual(conversation.requests, [])
        self.assertIs(conversation.server.session.phase, Phase.AUTH)
        conversation.clock.advance(0.1)
        self.assertEqual(len(conversation.requests), 1)
        self.assertEqual(self.store.results, [(2, Result.ACCEPTED)])

    def test_left(self) -> None:
        """A client that leaves meanwhile is recorded once. No question is asked, and no timer stays."""
        for ends in (Conversation.dismiss, lambda conversation: conversation.transport.lose()):
            conversation = self.login(waits(15.0, 1))
            ends(conversation)
            self.assertEqual(self.store.results, [(1, Result.UNDECIDED)])
            self.assertEqual(conversation.requests, [])
            conversation.transport.lose()
            self.assertEqual(conversation.clock.getDelayedCalls(), [])
            self.assertEqual(len(self.store.records), 1)

    def test_leftUnanswered(self) -> None:
        """So is one that leaves before the keeper has answered."""
        asked: Deferred[Verdict] = Deferred()
        conversation = self.login(asked)
        conversation.transport.lose()
        asked.callback(waits(1.0, 7))
        self.assertEqual(self.store.results, [(7, Result.UNDECIDED)])
        self.assertEqual(conversation.requests, [])

    def test_asked(self) -> None:
        """A login goes on when the keeper has answered."""
        asked: Deferred[Verdict] = Deferred()
        conversation = self.login(asked)
        self.assertEqual(conversation.requests, [])
        asked.callback(GO)
        self.assertEqual(self.store.results, [(5, Result.ACCEPTED)])

    def test_pipelined(self) -> None:
        """What the client sends meanwhile waits."""
        conversation = self.login(waits(15.0, 1), Verdict(Action.GO, 2), answers=[DENIED])
        self.assertEqual(conversation.says(b"NOOP"), b"")
        conversation.clock.advance(15)
        self.assertTrue(conversation.hear().endswith(b"+OK\r\n"))

    def test_deadline(self) -> None:
        """The delay does not use up the time of the client, which is limited as before after it."""
        timeout = 5.0
        self.store = ScriptedStore(waits(BUDGET * timeout + 9, 1))
        dialogue = DialogueSettings(serverName="mx.test", timeout=timeout)
        conversation = guarded(POP3, dialogue, store=self.store, authenticator=FakeAuthenticator(None))
        conversation.says(b"USER joe", b"PASS sesame")
        conversation.clock.pump([1.0] * int(BUDGET * timeout + 9))
        self.assertEqual(len(conversation.requests), 1)
        self.assertFalse(conversation.closed)
        conversation.clock.pump([timeout] * BUDGET)
        self.assertTrue(conversation.closed)
        self.assertRecorded(Result.UNDECIDED)

    def test_expires(self) -> None:
        """The delay does not lengthen the limit of the session itself."""
        conversation = self.converse(waits(50.0, 1))
        conversation.server.limit(conversation.clock.seconds() + 20)
        conversation.says(b"USER joe", b"PASS sesame")
        conversation.clock.pump([10.0] * 3)
        self.assertTrue(conversation.closed)
        self.assertRecorded(Result.UNDECIDED)
        self.assertEqual(conversation.requests, [])

    def test_others(self) -> None:
        """A login that waits holds back no login of another connection."""
        waiting = self.login(waits(15.0, 1))
        other = guarded(POP3, store=self.store)
        other.says(b"USER joe", b"PASS sesame")
        self.assertEqual((len(waiting.requests), len(other.requests)), (0, 1))


class DelayTests(LimitedTestCase):
    """The delay of a limit is not added to those of a refusal: the longest counts."""

    def refusedAfter(self, held: float, wait: float, delay: float) -> float:
        """Return after how many seconds the client hears that its password is wrong."""
        verdicts = [waits(held, 1), Verdict(Action.GO, 2)] if held else []
        self.store = ScriptedStore(*verdicts)
        dialogue = DialogueSettings(serverName="mx.test", authDelay=delay)
        answer = evolve(DENIED, wait=wait)
        conversation = guarded(POP3, dialogue, store=self.store, authenticator=FakeAuthenticator(answer))
        heard, seconds = conversation.says(b"USER joe", b"PASS sesame"), 0.0
        while b"-ERR" not in heard and seconds < 60:
            conversation.clock.advance(0.5)
            seconds += 0.5
            heard += conversation.hear()
        return seconds

    def test_longest(self) -> None:
        """Of C{Auth-Wait}, C{auth_delay} and the delay of a limit."""
        for held, wait, delay in ((4.0, 2.0, 3.0), (2.0, 4.0, 3.0), (2.0, 3.0, 4.0), (0.0, 4.0, 3.0), (0.0, 3.0, 4.0)):
            self.assertEqual(self.refusedAfter(held, wait, delay), 4.0, (held, wait, delay))


class ScramTests(SynchronousTestCase):
    """Logins by SCRAM, whose proof the gateway checks."""

    def converse(self, *verdicts: Any, answers: Any = (SCRAM_ACCEPTED,), delay: float = 0.0) -> Conversation:
        """Begin a login. The challenge is the next that the client hears."""
        self.store = ScriptedStore(*verdicts)
        conversation = guarded(
            IMAP4,
            IMAP4Settings(auth=("plain", "scram-sha-256")),
            ScramKey(b"key"),
            DialogueSettings(serverName="mx.test", authDelay=delay),
            store=self.store,
            authenticator=FakeAuthenticator(*answers),
        )
        self.client = ScramClient(b"joe", b"", b"abc")
        conversation.server.dataReceived(b"a AUTHENTICATE SCRAM-SHA-256 " + b64encode(self.client.message) + b"\r\n")
        return conversation

    def challenged(self, answer: Any) -> tuple[Conversation, bytes]:
        """Begin a login to which the authenticator answers C{answer}. Return the conversation, and the challenge."""
        conversation = self.converse(answers=[answer])
        return conversation, b64decode(conversation.hear()[2:])

    def prove(self, conversation: Conversation, challenge: bytes, secret: Any = SECRET) -> bytes:
        """Send the client's proof."""
        self.client.first(challenge)
        return conversation.says(b64encode(self.client.final(secret)))

    def test_ends(self) -> None:
        """The proof counts, and not the answer of the authenticator."""
        wrong = derivedSecret(Method.SCRAM_SHA_256, b"pencils", SECRET.salt, 4096)
        unlimited = evolve(SCRAM_ACCEPTED, options=RouteOptions(isUnlimited=True))
        for answer, secret, result in (
            (SCRAM_ACCEPTED, SECRET, Result.ACCEPTED),
            (SCRAM_ACCEPTED, wrong, Result.FAILED),
            (evolve(DENIED, isUnknownUser=True), SECRET, Result.FAILED_UNKNOWN),
            (evolve(DENIED, isUnlimited=True), SECRET, Result.UNLIMITED),
            (unlimited, wrong, Result.UNLIMITED),
            (unlimited, SECRET, Result.UNLIMITED),
        ):
            conversation, challenge = self.challenged(answer)
            self.assertEqual(self.store.records, [])
            self.prove(conversation, challenge, secret)
            conversation.says(b"")
            ((attempt, _, recorded),) = self.store.records
            self.assertEqual((recorded, attempt.kind, attempt.tag), (result, Kind.DIGEST, b""))

    def test_misread(self) -> None:
        """Nothing counts without a proof: the client cancels, its response is invalid, or it leaves."""
        for says in (b"*", b"!", b64encode(b"nonsense"), None):
            conversation, _ = self.challenged(SCRAM_ACCEPTED)
            if says is None:
                conversation.transport.lose()
            else:
                self.assertIn(b"BAD", conversation.says(says))
            self.assertEqual(self.store.results, [(101, Result.UNDECIDED)])

    def test_temporary(self) -> None:
        """Neither does a login that could not be checked."""
        self.converse(answers=[Denial(Trouble.TEMPORARY)])
        self.assertEqual(self.store.results, [(101, Result.UNDECIDED)])

    def test_delay(self) -> None:
        """C{auth_delay} counts from the proof; the delay of a limit before is not added."""
        wrong = derivedSecret(Method.SCRAM_SHA_256, b"pencils", SECRET.salt, 4096)
        for held, delay, expected in ((2.0, 3.0, 1.0), (4.0, 3.0, 0.0)):
            conversation = self.converse(waits(held, 1), Verdict(Action.GO, 2), delay=delay)
            conversation.clock.advance(held)
            reply = self.prove(conversation, b64decode(conversation.hear()[2:]), wrong)
            if expected:
                self.assertEqual(reply, b"")
                conversation.clock.advance(expected - 0.1)
                self.assertEqual(conversation.hear(), b"")
                conversation.clock.advance(0.1)
                reply = conversation.hear()
            self.assertIn(b"NO [AUTHENTICATIONFAILED]", reply)

    def test_heldMidway(self) -> None:
        """A client whose login waits gets its challenge later, and no record before its proof."""
        conversation = self.converse(waits(2.0, 1), Verdict(Action.GO, 2))
        self.assertEqual(conversation.hear(), b"")
        conversation.clock.advance(2)
        self.assertTrue(conversation.hear().startswith(b"+ "))
        self.assertEqual(self.store.records, [])
