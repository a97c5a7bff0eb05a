"""Tests for L{mailgate.frontend.scram}, and for logins by SCRAM in the dialogue of each protocol."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from typing import Any

from attrs import evolve, frozen
from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.protocol import MailProtocol
from mailgate.frontend.settings import DialogueSettings
from mailgate.login import Denial, Method, Route, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.pop3.settings import POP3Settings
from mailgate.protocols.sieve import SIEVE
from mailgate.protocols.sieve.settings import SieveSettings
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.scram.client import ScramClient
from mailgate.scram.secrets import derivedSecret
from mailgate.scram.settings import ScramKey, ScramSettings
from mailgate.session import Outcome, Phase
from mailgate.test.scram.test_secrets import SECRET
from mailgate.testing import Conversation
from mailgate.testing.fakes import ROUTE, FakeAuthenticator, FakeClient, FakeConnector

VERIFIER = evolve(SECRET, clientKey=None)
ACCEPTED = evolve(ROUTE, password=None, scram=VERIFIER)
WORDS = ("plain", "scram-sha-256", "scram-sha-1")


@frozen
class Wording:
    """How a protocol frames an exchange."""

    record: MailProtocol
    settings: type
    command: bytes
    prefix: bytes
    denied: bytes
    cancelled: bytes
    temporary: bytes
    invalid: bytes


WORDINGS = (
    Wording(
        IMAP4,
        IMAP4Settings,
        b"a AUTHENTICATE ",
        b"+ ",
        b"a NO [AUTHENTICATIONFAILED]",
        b"a BAD Authentication cancelled",
        b"a NO [UNAVAILABLE]",
        b"a BAD Invalid authentication response",
    ),
    Wording(
        POP3,
        POP3Settings,
        b"AUTH ",
        b"+ ",
        b"-ERR [AUTH]",
        b"-ERR Authentication cancelled",
        b"-ERR [SYS/TEMP]",
        b"-ERR Invalid authentication response",
    ),
    Wording(
        SMTP,
        SMTPSettings,
        b"AUTH ",
        b"334 ",
        b"535 5.7.8",
        b"501 5.7.0",
        b"454 4.7.0",
        b"501 5.5.4",
    ),
)


class Exchange:
    """
    A client of the user C{user} with a password, whose secret is C{secret}, in a conversation.
    """

    def __init__(self, wording: Wording, *answers: Any, ssl: bool = False, groups: tuple[Any, ...] = ()) -> None:
        self.wording = wording
        self.authenticator = FakeAuthenticator(*answers)
        self.conversation = Conversation(
            wording.record,
            wording.settings(auth=WORDS),
            ScramKey(b"key"),
            *groups,
            authenticator=self.authenticator,
            ssl=ssl,
        )
        if ssl:
            self.conversation.transport.shakeHands()
        self.conversation.hear()
        self.client = ScramClient(b"joe", b"", b"abc")

    def first(self, message: bytes = b"", mechanism: bytes = b"SCRAM-SHA-256") -> bytes:
        """Send the first message, and return the challenge, decoded, or the reply."""
        initial = b64encode(message or self.client.message)
        return self.heard(self.conversation.says(self.wording.command + mechanism + b" " + initial))

    def heard(self, reply: bytes) -> bytes:
        """Decode C{reply} if it is a challenge."""
        prefix = self.wording.prefix
        return b64decode(reply[len(prefix) :]) if reply.startswith(prefix) else reply

    def final(self, challenge: bytes, secret: Any = SECRET) -> bytes:
        """Send the last message for C{challenge}, and return the next challenge, decoded, or the reply."""
        self.client.first(challenge)
        return self.heard(self.conversation.says(b64encode(self.client.final(secret))))


class LoginTests(SynchronousTestCase):
    """Logins with the right password."""

    def test_accepted(self) -> None:
        """The gateway proves that it knows the secret, too; then it logs in with the client's key."""
        for wording in WORDINGS:
            exchange = Exchange(wording, ACCEPTED)
            signature = exchange.final(exchange.first())
            self.assertTrue(exchange.client.verify(signature))
            self.assertEqual(exchange.conversation.connector.routes, [])
            exchange.conversation.says(b"")
            (route,) = exchange.conversation.connector.routes
            self.assertEqual(route, evolve(ACCEPTED, scram=SECRET))
            self.assertNotIn("clientKey", repr(route))

    def test_asked(self) -> None:
        """The authenticator is asked once, with the name alone."""
        exchange = Exchange(WORDINGS[0], ACCEPTED)
        exchange.final(exchange.first())
        exchange.conversation.says(b"")
        (request,) = exchange.conversation.requests
        given = request.credentials
        self.assertEqual((given.method, given.user, given.secret), (Method.SCRAM_SHA_256, b"joe", b""))

    def test_withoutInitialResponse(self) -> None:
        """The gateway asks for the first message by an empty challenge."""
        for wording in WORDINGS:
            exchange = Exchange(wording, ACCEPTED)
            reply = exchange.conversation.says(wording.command + b"SCRAM-SHA-256")
            self.assertEqual(reply, wording.prefix + b"\r\n")
            challenge = exchange.heard(exchange.conversation.says(b64encode(exchange.client.message)))
            self.assertTrue(exchange.client.verify(exchange.final(challenge)))

    def test_sha1(self) -> None:
        """SCRAM-SHA-1 needs a secret of its own."""
        secret = derivedSecret(Method.SCRAM_SHA_1, b"pencil", b"salt", 4096)
        exchange = Exchange(WORDINGS[0], evolve(ROUTE, scram=evolve(secret, clientKey=None)))
        signature = exchange.final(exchange.first(mechanism=b"scram-sha-1"), secret)
        self.assertTrue(exchange.client.verify(signature))

    def test_slowAuthenticator(self) -> None:
        """The challenge waits for the answer, and what the client sends meanwhile waits for the challenge."""
        exchange = Exchange(WORDINGS[0], None)
        self.assertEqual(exchange.first(), b"")
        self.assertEqual(exchange.conversation.says(b"*"), b"")
        exchange.authenticator.pending[0].callback(ACCEPTED)
        challenge, reply = exchange.conversation.hear().splitlines()
        self.assertIn(b",i=4096", exchange.heard(challenge))
        self.assertEqual(reply, b"a BAD Authentication cancelled")

    def test_authzid(self) -> None:
        """An authorization identity that is the user's own name counts as absent; another one is refused at once."""
        exchange = Exchange(WORDINGS[0], ACCEPTED)
        self.assertIn(b",i=4096", exchange.first(b"n,a=joe,n=joe,r=abc"))
        exchange = Exchange(WORDINGS[0], ACCEPTED)
        self.assertIn(b"NO [AUTHORIZATIONFAILED]", exchange.first(b"n,a=ann,n=joe,r=abc"))
        self.assertEqual(exchange.conversation.requests, [])

    def test_authzidPassed(self) -> None:
        """With pass the authenticator decides; whether it does comes out after the proof only."""
        groups = (DialogueSettings(authzid="pass"),)
        for answer, expected in ((ACCEPTED, 0), (evolve(ACCEPTED, authzid=b"ann"), 1)):
            exchange = Exchange(WORDINGS[0], answer, groups=groups)
            exchange.client = ScramClient(b"joe", b"ann", b"abc")
            exchange.client.verify(exchange.final(exchange.first()))
            reply = exchange.conversation.says(b"")
            self.assertEqual(len(exchange.conversation.connector.routes), expected)
            self.assertEqual(b"NO [AUTHORIZATIONFAILED]" in reply, not expected)
            (request,) = exchange.conversation.requests
            self.assertEqual(request.credentials.authzid, b"ann")


class RefusalTests(SynchronousTestCase):
    """Logins that fail."""

    def test_wrongPassword(self) -> None:
        """A wrong proof is refused without a proof of the gateway, and the connection stays."""
        for wording in WORDINGS:
            exchange = Exchange(wording, ACCEPTED, ACCEPTED)
            other = derivedSecret(Method.SCRAM_SHA_256, b"pencils", SECRET.salt, 4096)
            reply = exchange.final(exchange.first(), other)
            self.assertTrue(reply.startswith(wording.denied), reply)
            self.assertEqual(exchange.conversation.connector.routes, [])
            self.assertEqual(exchange.conversation.server.failures, 1)
            self.assertTrue(exchange.client.verify(exchange.final(exchange.first())))

    def test_unknownUser(self) -> None:
        """
        An unknown user gets the same challenge each time, and the same reply in the same time as for a wrong password,
        whatever the words of the authenticator.
        """
        refused = Denial(Trouble.DENIED, text=b"No such user", code=b"550 5.1.1", wait=7, close=True, reason="unknown")
        for wording in WORDINGS:
            known = Exchange(wording, ACCEPTED)
            expected = known.final(known.first(), derivedSecret(Method.SCRAM_SHA_256, b"x", SECRET.salt, 4096))
            challenges = []
            for iterations in (4096, 4096, 5000):
                unknown = Exchange(wording, refused, groups=(ScramSettings(iterations=iterations),))
                challenges.append(unknown.first())
                self.assertEqual(unknown.final(challenges[-1]), expected)
                self.assertFalse(unknown.conversation.closed)
                self.assertIn("reason unknown", unknown.conversation.logged()[-1])
            self.assertEqual(challenges[0], challenges[1])
            self.assertEqual(challenges[2], challenges[0].replace(b"i=4096", b"i=5000"))
            self.assertNotEqual(challenges[0], known.first())

    def test_fakeOfAuthenticator(self) -> None:
        """An authenticator may have a secret for the challenge itself. The right proof does not help then."""
        exchange = Exchange(WORDINGS[0], Denial(Trouble.DENIED, scram=VERIFIER))
        reply = exchange.final(exchange.first())
        self.assertTrue(reply.startswith(WORDINGS[0].denied), reply)

    def test_delay(self) -> None:
        """auth_delay counts from the client's proof: the client can take its time before."""
        for answer in (ACCEPTED, Denial(Trouble.DENIED)):
            exchange = Exchange(WORDINGS[0], answer, groups=(DialogueSettings(authDelay=2.0),))
            challenge = exchange.first()
            exchange.conversation.clock.advance(30)
            other = derivedSecret(Method.SCRAM_SHA_256, b"x", SECRET.salt, 4096)
            self.assertEqual(exchange.final(challenge, other), b"")
            exchange.conversation.clock.advance(1.9)
            self.assertEqual(exchange.conversation.hear(), b"")
            exchange.conversation.clock.advance(0.1)
            self.assertTrue(exchange.conversation.hear().startswith(WORDINGS[0].denied))

    def test_temporary(self) -> None:
        """A failure of the authenticator is no matter of the user: the client gets it at once."""
        for wording in WORDINGS:
            for answer in (Denial(Trouble.TEMPORARY), Denial(Trouble.DENIED, code=b"451 4.3.0")):
                exchange = Exchange(wording, answer)
                self.assertFalse(exchange.first().startswith(b"r="))
                self.assertEqual(exchange.conversation.server.exchange, None)

    def test_temporaryOfAccount(self) -> None:
        """
        A failure that concerns one account comes with its secret. The client gets the failure after a right proof only:
        before it would show that the account exists.
        """
        failure = Denial(Trouble.TEMPORARY, reason="no backend", scram=VERIFIER)
        other = derivedSecret(Method.SCRAM_SHA_256, b"pencils", SECRET.salt, 4096)
        for wording in WORDINGS:
            for secret, expected in ((SECRET, wording.temporary), (other, wording.denied)):
                exchange = Exchange(wording, failure)
                reply = exchange.final(exchange.first(), secret)
                self.assertTrue(reply.startswith(expected), reply)
                self.assertEqual(exchange.conversation.connector.routes, [])

    def test_noSecret(self) -> None:
        """An acceptance without a secret, or with that of another method, would accept every client."""
        other = derivedSecret(Method.SCRAM_SHA_1, b"pencil", b"salt", 4096)
        for answer in (ROUTE, evolve(ROUTE, scram=other)):
            exchange = Exchange(WORDINGS[0], answer)
            self.assertTrue(exchange.first().startswith(WORDINGS[0].temporary))
            self.assertEqual(len(self.flushLoggedErrors()), 0)
            self.assertIn("without a secret for scram-sha-256", str(exchange.conversation.events))
            self.assertEqual(exchange.conversation.connector.routes, [])

    def test_invalid(self) -> None:
        """
        Invalid messages, and those of another exchange, are refused as such. They count as refused logins if the
        authenticator was asked.
        """
        for wording in WORDINGS:
            exchange = Exchange(wording, ACCEPTED, ACCEPTED, ACCEPTED, ACCEPTED)
            for message in (b"n=joe,r=abc", b"y,,n=,r=abc", b"p=tls-exporter,,n=joe,r=abc"):
                self.assertTrue(exchange.first(message).startswith(wording.invalid))
            self.assertEqual(exchange.conversation.requests, [])
            self.assertEqual(exchange.conversation.server.failures, 0)
            exchange.first()
            reply = exchange.conversation.says(b64encode(b"c=biws,r=abcd,p=aHVzaA=="))
            self.assertTrue(reply.startswith(wording.invalid), reply)
            exchange.first()
            self.assertTrue(exchange.conversation.says(b"*").startswith(wording.cancelled))
            exchange.final(exchange.first())
            self.assertTrue(exchange.conversation.says(b"AA==").startswith(wording.invalid))
            self.assertEqual(exchange.conversation.connector.routes, [])
            self.assertEqual(exchange.conversation.server.failures, 3)
            self.assertTrue(exchange.client.verify(exchange.final(exchange.first())))

    def test_brokenOff(self) -> None:
        """A client cannot have the authenticator asked without end by exchanges that it breaks off."""
        for wording in WORDINGS:
            exchange = Exchange(wording, *[ACCEPTED] * 9, groups=(DialogueSettings(maxAuthFailures=3),))
            conversation = exchange.conversation
            for number in range(3):
                self.assertFalse(conversation.closed, number)
                exchange.first()
                heard = conversation.says(b"*")
                self.assertTrue(heard.startswith(wording.cancelled), heard)
            self.assertTrue(conversation.closed)
            self.assertIs(conversation.server.session.outcome, Outcome.FAILURES)

    def test_pipelined(self) -> None:
        """
        Of what a client has sent before the challenge, the first line is the response. The next ones are commands: a
        second first message begins no other login.
        """
        for wording in WORDINGS:
            exchange = Exchange(wording, None, ACCEPTED)
            self.assertEqual(exchange.first(), b"")
            conversation = exchange.conversation
            again = b64encode(b"n,,n=ann,r=abc")
            self.assertEqual(conversation.says(b64encode(b"no message") + b"\r\n" + again + b"\r\n" + again), b"")
            exchange.authenticator.pending[0].callback(ACCEPTED)
            _, refused, *others = conversation.hear().splitlines()
            self.assertTrue(refused.startswith(wording.invalid), refused)
            self.assertEqual(len(others), 2)
            self.assertEqual([request.credentials.user for request in conversation.requests], [b"joe"])
            self.assertIs(conversation.server.exchange, None)
            self.assertIs(conversation.server.session.phase, Phase.COMMAND)

    def test_leaves(self) -> None:
        """A client that leaves in the middle cancels the login."""
        exchange = Exchange(WORDINGS[0], ACCEPTED)
        exchange.first()
        exchange.conversation.transport.lose()
        self.assertEqual(exchange.conversation.connector.routes, [])
        self.assertEqual(exchange.conversation.clock.getDelayedCalls(), [])

    def test_leavesEarly(self) -> None:
        """A client that leaves before there is anything to cancel gets no challenge."""
        exchange = Exchange(WORDINGS[0], ACCEPTED)
        conversation = exchange.conversation
        authenticate = exchange.authenticator.authenticate

        def leave(request: Any) -> Any:
            conversation.transport.lose()
            return authenticate(request)

        self.patch(conversation.factory, "answer", leave)
        self.assertEqual(exchange.first(), b"")
        self.assertIs(conversation.server.session.phase, Phase.END)
        self.assertEqual(conversation.clock.getDelayedCalls(), [])

    def test_notOffered(self) -> None:
        """Without the words the mechanisms are unknown."""
        conversation = Conversation(IMAP4)
        conversation.hear()
        self.assertIn(b"NO [CANNOT]", conversation.says(b"a AUTHENTICATE SCRAM-SHA-256"))
        self.assertIn(b"NO [CANNOT]", conversation.says(b"a AUTHENTICATE SCRAM-SHA-256-PLUS"))


class BindingTests(SynchronousTestCase):
    """Channel bindings. The real ones are in C{mailgate.test.integration.test_scram}."""

    asked = {"imap": b"a CAPABILITY", "pop3": b"CAPA", "smtp": b"EHLO c"}

    def offers(self, exchange: Exchange) -> bytes:
        """What the gateway offers."""
        return exchange.conversation.says(self.asked[exchange.wording.record.name])

    def test_offered(self) -> None:
        """The mechanisms with -PLUS are offered over TLS only."""
        for wording in WORDINGS:
            self.assertNotIn(b"-PLUS", self.offers(Exchange(wording)))
            offers = self.offers(Exchange(wording, ssl=True))
            self.assertIn(b"SCRAM-SHA-256-PLUS", offers)
            self.assertIn(b"SCRAM-SHA-1-PLUS", offers)
            self.assertIn(b"PLAIN", offers)

    def bound(self, data: bytes) -> bytes:
        """A login with -PLUS and C{data} as the binding; return the reply to the proof."""
        exchange = Exchange(WORDINGS[0], ACCEPTED, ssl=True)
        client = exchange.client
        client._header = b"p=tls-exporter,,"
        client.message = client._header + client._bare
        challenge = exchange.first(mechanism=b"SCRAM-SHA-256-PLUS")
        client._header += data
        return exchange.final(challenge)

    def test_bound(self) -> None:
        """The data must be those of the connection."""
        self.assertTrue(self.bound(b"EXPORTER-Channel-Binding........").startswith(b"v="))
        self.assertTrue(self.bound(b"EXPORTER-Channel-Binding.......?").startswith(WORDINGS[0].invalid))

    def test_downgrade(self) -> None:
        """A client that has not seen -PLUS over TLS is refused: an attacker may have removed it."""
        for ssl in (True, False):
            exchange = Exchange(WORDINGS[0], ACCEPTED, ssl=ssl)
            self.assertEqual(exchange.first(b"y,,n=joe,r=abc").startswith(WORDINGS[0].invalid), ssl)

    def test_withoutTLS(self) -> None:
        """In the clear there is no -PLUS."""
        exchange = Exchange(WORDINGS[0], ACCEPTED)
        reply = exchange.first(b"p=tls-exporter,,n=joe,r=abc", b"SCRAM-SHA-256-PLUS")
        self.assertIn(b"NO [CANNOT]", reply)


class SieveTests(SynchronousTestCase):
    """ManageSieve, where the gateway's proof is in the reply to the login (RFC 5804, section 2.1)."""

    def converse(self, ssl: bool = False) -> Conversation:
        conversation = Conversation(
            SIEVE,
            SieveSettings(auth=WORDS),
            authenticator=FakeAuthenticator(ACCEPTED),
            connector=FakeConnector(FakeClient(b'OK "Logged in."\r\n')),
            ssl=ssl,
        )
        if ssl:
            conversation.transport.shakeHands()
        return conversation

    def test_accepted(self) -> None:
        """There is no last challenge."""
        conversation, client = self.converse(), ScramClient(b"joe", b"", b"abc")
        self.assertIn(b'"SASL" "PLAIN SCRAM-SHA-256 SCRAM-SHA-1"', conversation.hear())
        heard = conversation.says(b'AUTHENTICATE "SCRAM-SHA-256" "' + b64encode(client.message) + b'"')
        client.first(b64decode(heard.strip(b'"\r\n')))
        heard = conversation.says(b'"' + b64encode(client.final(SECRET)) + b'"')
        found = re.fullmatch(rb'OK \(SASL "(.*)"\) "Logged in."\r\n', heard)
        assert found is not None, heard
        self.assertTrue(client.verify(b64decode(found[1])))

    def test_refusedByBackend(self) -> None:
        """The gateway's proof in a login that its backend refuses is not in the reply to the next login."""
        conversation, client = self.converse(), ScramClient(b"joe", b"", b"abc")
        conversation.connector.answers.insert(0, Denial(Trouble.TEMPORARY))
        conversation.hear()
        heard = conversation.says(b'AUTHENTICATE "SCRAM-SHA-256" "' + b64encode(client.message) + b'"')
        client.first(b64decode(heard.strip(b'"\r\n')))
        self.assertTrue(conversation.says(b'"' + b64encode(client.final(SECRET)) + b'"').startswith(b"NO (TRYLATER)"))
        conversation.authenticator.answers.append(ROUTE)
        plain = b64encode(b"\0joe\0pencil")
        self.assertEqual(conversation.says(b'AUTHENTICATE "PLAIN" "' + plain + b'"'), b'OK "Logged in."\r\n')

    def test_bound(self) -> None:
        """The mechanisms with -PLUS are listed over TLS only, also if another client has got the list before."""
        conversation = self.converse(ssl=True)
        listed = b'"SASL" "PLAIN SCRAM-SHA-256-PLUS SCRAM-SHA-256 SCRAM-SHA-1-PLUS SCRAM-SHA-1"'
        self.assertIn(listed, conversation.hear())
        self.assertIn(listed, conversation.says(b"CAPABILITY"))
        self.assertEqual(conversation.factory.announcement.greetings, {})


class RouteTests(SynchronousTestCase):
    """Secrets in answers."""

    def test_withPassword(self) -> None:
        """Another password changes nothing else."""
        self.assertEqual(ACCEPTED.withPassword(b"x"), evolve(ACCEPTED, password=b"x"))
        self.assertIsInstance(ACCEPTED, Route)
