"""
The authorization identity of SASL PLAIN (RFC 4616), with which a user asks for another user's mailbox: C{sasl_authzid}
at every stage of a login.
"""

from __future__ import annotations

import base64
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from mailgate.auth.http.dialect import NGINX, Untellable
from mailgate.auth.http.exchange import question, route
from mailgate.auth.http.headers import valuesOf
from mailgate.auth.passthrough import PassThroughAuthenticator
from mailgate.frontend.settings import DialogueSettings
from mailgate.login import Backend, Client, Credentials, Denial, LoginRequest, Method, Route, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.test.support.wordings import WORDINGS, Wording
from mailgate.testing import ROUTE, Attempt, Conversation, FakeAuthenticator, FakeClient, FakeConnector, routeTo

BOB_AS_ALICE = base64.b64encode(b"bob\0alice\0secret")
REFUSALS = (
    b"a NO [AUTHORIZATIONFAILED] Not authorized to log in as another user\r\n",
    b"-ERR [AUTH] Not authorized to log in as another user\r\n",
    b"535 5.7.8 Not authorized to log in as another user\r\n",
)
ASKED = LoginRequest("imap", Credentials(Method.PLAIN, b"alice", b"secret", authzid=b"b b"), Client("192.0.2.7"))
BACKEND = Backend("192.0.2.99", 143)


def converse(wording: Wording, word: str, authenticator: Any, **others: Any) -> Conversation:
    """A conversation under C{sasl_authzid = word}."""
    dialogue = DialogueSettings(serverName="mx.test", authzid=word)
    return wording.converse(groups=(dialogue,), authenticator=authenticator, **others)


class DialogueTests(SynchronousTestCase):
    """The replies to the client, and the request to an authenticator."""

    def test_refused(self) -> None:
        """By default the gateway refuses an authorization identity and does not check the password."""
        for wording, refusal in zip(WORDINGS, REFUSALS, strict=True):
            for lines in ((b"PLAIN " + BOB_AS_ALICE,), (b"PLAIN", BOB_AS_ALICE)):
                conversation = converse(wording, "refuse", FakeAuthenticator())
                first, *rest = lines
                heard = conversation.says(wording.auth + first, *rest)
                self.assertEqual(heard.removeprefix(wording.challenge + b"\r\n"), refusal)
                self.assertEqual(conversation.requests, [])
                self.assertFalse(conversation.closed)

    def test_isGuess(self) -> None:
        """This refusal is delayed and counted like any other."""
        dialogue = DialogueSettings(serverName="mx.test", authDelay=2.0, maxAuthFailures=1)
        for wording, refusal in zip(WORDINGS, REFUSALS, strict=True):
            conversation = wording.converse(groups=(dialogue,))
            self.assertEqual(conversation.says(wording.auth + b"PLAIN " + BOB_AS_ALICE), b"")
            conversation.clock.advance(2)
            self.assertTrue(conversation.hear().startswith(refusal))
            self.assertTrue(conversation.closed)

    def test_own(self) -> None:
        """An empty identity and the user's own name count as none. Another spelling counts as another user."""
        for wording in WORDINGS:
            for word in ("refuse", "pass", "ignore"):
                for authzid in (b"", b"alice"):
                    backend = FakeConnector(FakeClient(wording.accepted))
                    conversation = converse(wording, word, FakeAuthenticator(), connector=backend)
                    message = base64.b64encode(authzid + b"\0alice\0secret")
                    self.assertEqual(conversation.says(wording.auth + b"PLAIN " + message), wording.accepted)
                    self.assertEqual(
                        conversation.requests[0].credentials, Credentials(Method.PLAIN, b"alice", b"secret")
                    )
            conversation = converse(wording, "refuse", FakeAuthenticator())
            conversation.says(wording.auth + b"PLAIN " + base64.b64encode(b"Alice\0alice\0secret"))
            self.assertEqual(conversation.requests, [])

    def test_ignored(self) -> None:
        """With C{ignore} the client gets its own mailbox, as in nginx."""
        for wording in WORDINGS:
            backend = FakeConnector(FakeClient(wording.accepted))
            conversation = converse(wording, "ignore", FakeAuthenticator(), connector=backend)
            self.assertEqual(conversation.says(wording.auth + b"PLAIN " + BOB_AS_ALICE), wording.accepted)
            self.assertEqual(conversation.requests[0].credentials, Credentials(Method.PLAIN, b"alice", b"secret"))

    def test_notAnsweredFor(self) -> None:
        """With C{pass} an acceptance that does not confirm the identity is a refusal."""
        for wording, refusal in zip(WORDINGS, REFUSALS, strict=True):
            conversation = converse(wording, "pass", FakeAuthenticator(ROUTE))
            self.assertEqual(conversation.says(wording.auth + b"PLAIN " + BOB_AS_ALICE), refusal)
            self.assertEqual(conversation.requests[0].credentials.authzid, b"bob")
            self.assertEqual(conversation.connector.routes, [])

    def test_answeredFor(self) -> None:
        """An acceptance that confirms the identity logs the client in."""
        for wording in WORDINGS:
            for authzid in (b"", b"bob"):
                backend = FakeConnector(FakeClient(wording.accepted))
                answer = FakeAuthenticator(evolve(ROUTE, authzid=authzid))
                conversation = converse(wording, "pass", answer, connector=backend)
                self.assertEqual(conversation.says(wording.auth + b"PLAIN " + BOB_AS_ALICE), wording.accepted)

    def test_reasonInLog(self) -> None:
        """The log has the reason in our words."""
        conversation = converse(WORDINGS[0], "refuse", FakeAuthenticator())
        conversation.says(WORDINGS[0].auth + b"PLAIN " + BOB_AS_ALICE)
        self.assertEqual(
            conversation.logged(),
            [
                "login failed: client 192.0.2.7:40123, not authorized, protocol imap, method plain,"
                " reason sasl_authzid refuses authorization identities, server 127.0.0.1:143, session 00007.00"
                ', user "alice"'
            ],
        )


class ServiceTests(SynchronousTestCase):
    """C{auth_http}."""

    def test_asked(self) -> None:
        """The service gets the identity after the password, escaped like names; no header without an identity."""
        self.assertIn(b"Auth-Pass: secret\r\nAuth-Authzid: b%20b\r\nAuth-Protocol:", question(ASKED).block)
        own = evolve(ASKED, credentials=evolve(ASKED.credentials, authzid=b""))
        self.assertNotIn(b"Authzid", question(own).block)

    def test_noInjection(self) -> None:
        hostile = evolve(ASKED, credentials=evolve(ASKED.credentials, authzid=b"x\r\nAuth-User: root\0"))
        self.assertIn(b"Auth-Authzid: x%0D%0AAuth-User:%20root%00\r\n", question(hostile).block)

    def test_tooLong(self) -> None:
        """The identity has the same length limit as names."""
        long = evolve(ASKED, credentials=evolve(ASKED.credentials, authzid=b"b" * 1025))
        self.assertRaises(Untellable, question, long)

    def answer(self, *fields: tuple[bytes, bytes]) -> Route:
        """The route of a service that accepts with C{fields}."""
        headers = Headers({b"Auth-Status": [b"OK"]})
        for name, value in fields:
            headers.addRawHeader(name, value)
        return route(ASKED, valuesOf(headers), BACKEND, NGINX)

    def test_acceptance(self) -> None:
        """An acceptance without C{Auth-Authzid} does not open another user's mailbox."""
        self.assertIsNone(self.answer().authzid)
        self.assertIsNone(self.answer((b"Auth-Authzid", b"alice")).authzid)
        self.assertIsNone(self.answer((b"Auth-Authzid", b"B B")).authzid)
        self.assertIsNone(self.answer((b"Auth-Pass", b"master")).authzid)

    def test_repeated(self) -> None:
        """If the service repeats the identity, escaped or not, the backend opens that mailbox."""
        for repeated in (b"b b", b"b%20b"):
            found = self.answer((b"Auth-Authzid", repeated))
            self.assertEqual((found.user, found.authzid), (b"alice", b"b b"))

    def test_user(self) -> None:
        """If the service names another user to log in as, that settles the identity."""
        found = self.answer((b"Auth-User", b"bob*alice"))
        self.assertEqual((found.user, found.authzid), (b"bob*alice", b""))
        found = self.answer((b"Auth-User", b"b b"), (b"Auth-Authzid", b"b%20b"))
        self.assertEqual((found.user, found.authzid), (b"b b", b""))

    def test_ownUser(self) -> None:
        """Services that do not know of identities name the user in each acceptance. That opens no other mailbox."""
        self.assertIsNone(self.answer((b"Auth-User", b"alice")).authzid)

    def test_both(self) -> None:
        """If the service names another user and repeats the identity, the backend gets both."""
        for user in (b"alice", b"alice@example.com"):
            found = self.answer((b"Auth-User", user), (b"Auth-Authzid", b"b b"))
            self.assertEqual((found.user, found.authzid), (user, b"b b"))

    def test_backendAlone(self) -> None:
        """With C{proxy_pass} alone the backend decides."""
        answer = self.successResultOf(PassThroughAuthenticator(BACKEND).authenticate(ASKED))
        self.assertEqual(answer, Route((BACKEND,), b"alice", b"secret", judged=False, authzid=b"b b"))


class BackendTests(SynchronousTestCase):
    """The login at a backend: only PLAIN carries an authorization identity."""

    WAY = routeTo(user=b"alice", password=b"secret", authzid=b"bob", judged=False)

    def attempt(self, record: Any, *groups: Any, route: Route = WAY) -> Attempt:
        begun = Attempt(record, *groups, route=route)
        begun.accept()
        return begun

    def test_imap(self) -> None:
        attempt = self.attempt(IMAP4)
        self.assertEqual(attempt.says(b"* OK ready\r\n"), b"a1 AUTHENTICATE PLAIN\r\n")
        self.assertEqual(attempt.says(b"+ \r\n"), BOB_AS_ALICE + b"\r\n")
        attempt.says(b"* CAPABILITY IMAP4rev1\r\na1 OK done\r\n")
        self.assertEqual(self.successResultOf(attempt.result).reply, b"* CAPABILITY IMAP4rev1\r\na1 OK done\r\n")

    def test_pop3(self) -> None:
        attempt = self.attempt(POP3)
        self.assertEqual(attempt.says(b"+OK ready\r\n"), b"AUTH PLAIN\r\n")
        self.assertEqual(attempt.says(b"+ \r\n"), BOB_AS_ALICE + b"\r\n")
        attempt.says(b"+OK done\r\n")
        self.assertEqual(self.successResultOf(attempt.result).reply, b"+OK done\r\n")

    def test_smtp(self) -> None:
        attempt = self.attempt(SMTP, SMTPSettings(proxyAuth=True))
        attempt.says(b"220 ready\r\n")
        self.assertEqual(attempt.says(b"250-mx\r\n250 AUTH PLAIN LOGIN\r\n"), b"AUTH PLAIN " + BOB_AS_ALICE + b"\r\n")
        attempt.says(b"235 done\r\n")
        self.successResultOf(attempt.result)

    def test_xclient(self) -> None:
        """XCLIENT names the user whose rights count."""
        attempt = self.attempt(SMTP, route=evolve(self.WAY, judged=True))
        attempt.says(b"220 ready\r\n")
        heard = attempt.says(b"250-mx\r\n250 XCLIENT NAME ADDR LOGIN\r\n")
        self.assertEqual(heard, b"XCLIENT ADDR=192.0.2.7 LOGIN=bob NAME=[UNAVAILABLE]\r\n")

    def test_refused(self) -> None:
        """The backend's refusal is the answer if no authenticator has judged the login."""
        attempt = self.attempt(IMAP4)
        attempt.says(b"* OK ready\r\n")
        attempt.says(b"+ \r\n")
        attempt.says(b"a1 NO [AUTHORIZATIONFAILED] no\r\n")
        refusal = Denial(Trouble.DENIED, answer=b"NO [AUTHORIZATIONFAILED] no")
        self.assertEqual(self.successResultOf(attempt.result), refusal)

    def test_impossible(self) -> None:
        """If the backend has only LOGIN or USER, the login fails and the gateway sends no password."""
        for record, groups, lines in (
            (IMAP4, (), (b"* OK ready\r\n", b"a1 BAD unknown\r\n")),
            (IMAP4, (), (b"* OK ready\r\n", b"a1 NO unsupported mechanism\r\n")),
            (POP3, (), (b"+OK ready\r\n", b"-ERR unknown\r\n")),
            (POP3, (), (b"+OK ready\r\n", b"+OK methods supported:\r\n")),
            (SMTP, (SMTPSettings(proxyAuth=True),), (b"220 ready\r\n", b"250-mx\r\n250 AUTH LOGIN\r\n")),
        ):
            for judged in (True, False):
                attempt = self.attempt(record, *groups, route=evolve(self.WAY, judged=judged))
                heard = b"".join(attempt.says(line) for line in lines)
                answer = self.successResultOf(attempt.result)
                self.assertIs(answer.trouble, Trouble.UNAUTHORIZED)
                self.assertNotIn(b"secret", heard)
                self.assertNotIn(base64.b64encode(b"secret"), heard)
                self.assertTrue(attempt.transport.aborted)
