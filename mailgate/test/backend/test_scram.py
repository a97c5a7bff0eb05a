"""Tests for L{mailgate.backend.scram}, and for logins by SCRAM at the backends of each protocol."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.credentials import PasswordLogin, credentialsFor
from mailgate.backend.errors import BackendError
from mailgate.backend.scram import ScramMechanism, strongest
from mailgate.backend.settings import ProxySettings
from mailgate.login import Backend, Credentials, Denial, Method, RouteOptions, ScramSecret, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.sieve import SIEVE
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.scram.secrets import derivedSecret
from mailgate.scram.server import ScramServer
from mailgate.test.scram.test_secrets import SALT, SECRET
from mailgate.test.support.passwdfiles import ThreadedClock
from mailgate.testing import Attempt
from mailgate.testing.attempt import resultOf, routeTo

BY_KEY = routeTo(password=None, scram=SECRET)
"""The route of a client that has logged in by SCRAM."""

BY_PASSWORD = routeTo(password=b"pencil")
USUAL = ProxySettings()
WORD = ProxySettings(method="scram-sha-256")
CHALLENGE = {"imap": b"+ ", "pop3": b"+ ", "smtp": b"334 "}
OK = {"imap": b"a1 OK done\r\n", "pop3": b"+OK done\r\n", "smtp": b"235 done\r\n"}


class Server:
    """
    A backend that knows the secret C{secret}.

    @ivar attempt: the login at it.
    """

    def __init__(self, record: Any, *groups: Any, route: Any = BY_KEY, secret: ScramSecret = SECRET) -> None:
        self.name = record.name
        self.scram = ScramServer(False, False, lambda: b"", lambda n: bytes(n))
        self.secret = evolve(secret, clientKey=None)
        credentials = Credentials(Method.SCRAM_SHA_256, b"joe")
        if record is SMTP:
            groups = (*groups, SMTPSettings(proxyAuth=True))
        self.attempt = Attempt(record, *groups, route=route, credentials=credentials)
        self.attempt.accept()

    def challenge(self, message: bytes) -> bytes:
        """Send a challenge and return the answer, decoded."""
        return b64decode(self.attempt.says(CHALLENGE[self.name] + b64encode(message) + b"\r\n"))

    def first(self, offers: bytes = b"AUTH=SCRAM-SHA-256") -> bytes:
        """Greet; return the first message, decoded."""
        if self.name == "imap":
            heard = self.attempt.says(b"* OK [CAPABILITY IMAP4rev1 SASL-IR " + offers + b"] hi\r\n")
            return b64decode(heard.removeprefix(b"a1 AUTHENTICATE SCRAM-SHA-256 "))
        if self.name == "pop3":
            self.attempt.says(b"+OK hi\r\n")
            return b64decode(self.attempt.says(b"+ \r\n"))
        self.attempt.says(b"220 hi\r\n")
        heard = self.attempt.says(b"250-hi\r\n250 " + offers.replace(b"=", b" ") + b"\r\n")
        return b64decode(heard.removeprefix(b"AUTH SCRAM-SHA-256 "))

    def prove(self) -> bool:
        """Greet, and check the proof; return whether it is right."""
        self.scram.first(self.first())
        final = self.challenge(self.scram.challenge(self.secret))
        return self.scram.final(final) is not None

    def accept(self) -> None:
        """Send the server's proof, and accept the login."""
        answer = self.challenge(self.scram.signature)
        assert answer == b"", answer
        self.attempt.says(OK[self.name])

    def denial(self, test: SynchronousTestCase) -> Denial:
        """The answer for the client."""
        denial: Denial = test.successResultOf(self.attempt.result)
        return denial


RECORDS = (IMAP4, POP3, SMTP)


class LoginTests(SynchronousTestCase):
    """Logins at backends."""

    def test_key(self) -> None:
        """The key of the client's proof logs in, without any directive."""
        for record in RECORDS:
            server = Server(record)
            self.assertTrue(server.prove())
            server.accept()
            self.assertNotIsInstance(self.successResultOf(server.attempt.result), Denial)

    def test_password(self) -> None:
        """With proxy_auth a known password does, with any salt."""
        for record in RECORDS:
            other = derivedSecret(Method.SCRAM_SHA_256, b"pencil", b"pepper", 5000)
            server = Server(record, WORD, route=BY_PASSWORD, secret=other)
            self.assertTrue(server.prove())
            server.accept()
            self.assertNotIsInstance(self.successResultOf(server.attempt.result), Denial)

    def test_nothingElse(self) -> None:
        """A backend that offers SCRAM only gets it. One that offers PLAIN or LOGIN gets the password as before."""
        for record in (IMAP4, SMTP):
            server = Server(record, route=BY_PASSWORD)
            offers = b"LOGINDISABLED AUTH=SCRAM-SHA-256" if record is IMAP4 else b"AUTH=SCRAM-SHA-256"
            self.assertTrue(server.first(offers).startswith(b"n,,n=joe,r="))
        for offers in (b"AUTH=SCRAM-SHA-256", b"AUTH=SCRAM-SHA-256 AUTH=PLAIN"):
            server = Server(IMAP4, route=BY_PASSWORD)
            heard = server.attempt.says(b"* OK [CAPABILITY IMAP4rev1 " + offers + b"] hi\r\n")
            self.assertEqual(heard, b'a1 LOGIN "joe" "pencil"\r\n')

    def test_otherSecret(self) -> None:
        """The key is useless at a backend with another secret: a temporary failure, and the log says why."""
        for record in RECORDS:
            for salt, iterations in ((b"pepper", 4096), (SALT, 4097)):
                server = Server(record, secret=derivedSecret(Method.SCRAM_SHA_256, b"pencil", salt, iterations))
                server.scram.first(server.first())
                self.assertEqual(server.challenge(server.scram.challenge(server.secret)), b"")
                self.assertIs(server.denial(self).trouble, Trouble.TEMPORARY)
                self.assertIn("has another salt or number of iterations", server.attempt.log[-1])

    def test_unprovenBackend(self) -> None:
        """A backend that does not prove that it knows the secret does not get the client."""
        for record in RECORDS:
            for isSigned in (True, False):
                server = Server(record)
                server.prove()
                if isSigned:
                    self.assertEqual(server.challenge(b"v=" + b64encode(bytes(32))), b"")
                else:
                    server.attempt.says(OK[server.name])
                self.assertIs(server.denial(self).trouble, Trouble.TEMPORARY)
                words = "signature of SCRAM is wrong" if isSigned else "without its own proof"
                self.assertIn(words, server.attempt.log[-1])

    def test_refused(self) -> None:
        """A refusal after a challenge with an error is a refusal of the login."""
        refusals = {"imap": b"a1 NO no\r\n", "pop3": b"-ERR no\r\n", "smtp": b"535 no\r\n"}
        for record in RECORDS:
            server = Server(record)
            server.prove()
            self.assertEqual(server.challenge(b"e=invalid-proof"), b"")
            server.attempt.says(refusals[server.name])
            self.assertIsInstance(server.denial(self), Denial)
            self.assertIn("refused the login with", server.attempt.log[-1])

    def test_errorThenAccepted(self) -> None:
        """A backend that reports an error and accepts the login all the same is not believed."""
        server = Server(IMAP4)
        server.prove()
        server.challenge(b"e=other-error")
        server.attempt.says(OK["imap"])
        self.assertIs(server.denial(self).trouble, Trouble.TEMPORARY)

    def test_invalid(self) -> None:
        """Invalid challenges end the attempt."""
        for challenge in (b"+ ???\r\n", b"+ cj14\r\n", b"+ \r\n", b"+ " + b64encode(b"r=x,s=c2FsdA==,i=1") + b"\r\n"):
            server = Server(IMAP4)
            server.first()
            server.attempt.says(challenge)
            self.assertIs(server.denial(self).trouble, Trouble.TEMPORARY)

    def test_endless(self) -> None:
        """More challenges end it as well."""
        server = Server(IMAP4)
        server.prove()
        server.challenge(server.scram.signature)
        server.attempt.says(b"+ \r\n")
        self.assertIs(server.denial(self).trouble, Trouble.TEMPORARY)

    def test_notOffered(self) -> None:
        """A backend without SCRAM cannot be used for a client whose password is not known."""
        server = Server(IMAP4)
        server.attempt.says(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n")
        self.assertIs(server.denial(self).trouble, Trouble.TEMPORARY)
        self.assertIn("does not offer AUTH=SCRAM-SHA-256", server.attempt.log[-1])


class SieveTests(SynchronousTestCase):
    """ManageSieve backends, whose proof is a challenge or in the reply to the login."""

    def begin(self, offers: bytes = b"SCRAM-SHA-256", route: Any = BY_KEY) -> tuple[Attempt, ScramServer]:
        """Log in up to the server's proof."""
        server = ScramServer(False, False, lambda: b"", lambda n: bytes(n))
        attempt = Attempt(SIEVE, route=route)
        attempt.accept()
        heard = attempt.says(b'"SIEVE" "fileinto"\r\n"SASL" "' + offers + b'"\r\nOK\r\n')
        server.first(b64decode(heard.removeprefix(b'AUTHENTICATE "SCRAM-SHA-256" ').strip(b'"\r\n')))
        heard = attempt.says(b'"' + b64encode(server.challenge(evolve(SECRET, clientKey=None))) + b'"\r\n')
        self.assertEqual(server.final(b64decode(heard.strip(b'"\r\n'))), SECRET)
        return attempt, server

    def test_inReply(self) -> None:
        """The proof is in the OK, as with Dovecot. The client does not get it: its own exchange has another one."""
        attempt, server = self.begin()
        attempt.says(b'OK (SASL "' + b64encode(server.signature) + b'") "Logged in."\r\n')
        self.assertEqual(self.successResultOf(attempt.result).reply, b'OK "Logged in."\r\n')

    def test_challenge(self) -> None:
        """Or it is a challenge, which gets an empty answer. A known password logs in where nothing else is offered."""
        attempt, server = self.begin(b"GSSAPI SCRAM-SHA-256", BY_PASSWORD)
        self.assertEqual(attempt.says(b'"' + b64encode(server.signature) + b'"\r\n'), b'""\r\n')
        attempt.says(b'OK "Logged in."\r\n')
        self.assertEqual(self.successResultOf(attempt.result).reply, b'OK "Logged in."\r\n')

    def test_unproven(self) -> None:
        """Without a proof, or with a wrong one, the backend does not get the client."""
        for reply in (b"OK", b'OK (SASL "dj1BQUFB")', b'OK (SASL "")', b"OK (SASL)"):
            attempt, _ = self.begin()
            attempt.says(reply + b"\r\n")
            self.assertIs(self.successResultOf(attempt.result).trouble, Trouble.TEMPORARY)


class MechanismTests(SynchronousTestCase):
    """Tests for L{ScramMechanism}."""

    def make(self, login: PasswordLogin, reactor: Any = None) -> ScramMechanism:
        return ScramMechanism("scram-sha-256", login, reactor, lambda n: bytes(n))

    def test_unknown(self) -> None:
        """Neither a password nor a key of this method is known."""
        other = derivedSecret(Method.SCRAM_SHA_1, b"pencil", SALT, 4096)
        for login in (PasswordLogin(b"joe", None), PasswordLogin(b"joe", None, scram=other)):
            self.assertRaises(BackendError, self.make, login)

    def test_wrongProof(self) -> None:
        """A wrong proof of the backend is none, whatever follows its error."""
        for proof in (b"v=" + b64encode(bytes(32)), b"v", b"e=other-error"):
            mechanism = self.make(PasswordLogin(b"joe", None, scram=SECRET))
            server = ScramServer(False, False, bytes, bytes)
            server.first(b64decode(mechanism.message))
            self.successResultOf(Deferred.fromCoroutine(mechanism.answer(b64encode(server.challenge(SECRET)))))
            answered = Deferred.fromCoroutine(mechanism.answer(b64encode(proof)))
            answered.addErrback(lambda failure: failure.trap(BackendError))
            self.successResultOf(answered)
            self.assertRaises(BackendError, mechanism.conclude)

    def test_secrets(self) -> None:
        """Neither credentials nor the mechanism show a secret."""
        login = PasswordLogin(b"joe", None, scram=SECRET)
        self.assertNotIn("SECRET", repr(login).upper().replace("SCRAMSECRET", ""))
        self.assertNotIn("pencil", repr(PasswordLogin(b"joe", b"pencil")))

    def test_authzid(self) -> None:
        """An authorization identity is in the header."""
        message = b64decode(self.make(PasswordLogin(b"joe", b"pencil", b"a,b")).message)
        self.assertTrue(message.startswith(b"n,a=a=2Cb,n=joe,r="))

    def test_thread(self) -> None:
        """Many iterations are computed in a thread."""
        reactor = ThreadedClock()
        mechanism = self.make(PasswordLogin(b"joe", b"pencil"), reactor)
        nonce = b64decode(mechanism.message).partition(b"r=")[2]
        challenge = b64encode(b"r=" + nonce + b"x,s=c2FsdA==,i=20000")
        answer = resultOf(mechanism.answer(challenge))
        self.assertNoResult(answer)
        reactor.work()
        self.assertTrue(b64decode(self.successResultOf(answer)).startswith(b"c=biws,r="))

    def test_dataInReply(self) -> None:
        """Protocols with data in the reply to a login have the backend's proof there."""
        for data in (None, b"v=AAAA", b"e=x", b"?", b""):
            mechanism = self.make(PasswordLogin(b"joe", b"pencil"))
            server = ScramServer(False, False, lambda: b"", lambda n: bytes(n))
            server.first(b64decode(mechanism.message))
            challenge = server.challenge(evolve(SECRET, clientKey=None))
            final = self.successResultOf(resultOf(mechanism.answer(b64encode(challenge))))
            self.assertEqual(server.final(b64decode(final)), SECRET)
            if data is None:
                self.assertRaises(BackendError, mechanism.conclude)
                mechanism.conclude(b64encode(server.signature))
            else:
                self.assertRaises(BackendError, mechanism.conclude, b64encode(data))

    def test_strongest(self) -> None:
        """SHA-256 is better than SHA-1."""
        self.assertEqual(strongest([b"PLAIN", b"SCRAM-SHA-1", b"SCRAM-SHA-256"]), "scram-sha-256")
        self.assertEqual(strongest([b"SCRAM-SHA-1", b"SCRAM-SHA-256-PLUS"]), "scram-sha-1")
        self.assertEqual(strongest([b"PLAIN"]), "")


class CredentialsTests(SynchronousTestCase):
    """What to log in with after a login by SCRAM (L{credentialsFor})."""

    def credentials(self, proxy: ProxySettings = USUAL, **changes: Any) -> PasswordLogin:
        login = credentialsFor(proxy, evolve(BY_KEY, **changes))
        assert login is not None
        return login

    def test_key(self) -> None:
        """Without a password the key logs in, by the client's method."""
        login = self.credentials()
        self.assertEqual((login.method, login.scram, login.password), ("scram-sha-256", SECRET, None))

    def test_password(self) -> None:
        """A known password goes before the key, and the key is not kept."""
        login = self.credentials(password=b"sesame")
        self.assertEqual((login.method, login.scram, login.password), ("auto", None, b"sesame"))

    def test_word(self) -> None:
        """A word of proxy_auth, or of the authenticator, decides."""
        self.assertEqual(self.credentials(ProxySettings(method="external")).method, "external")
        self.assertEqual(self.credentials(options=RouteOptions(method="none")).method, "none")

    def test_masterUser(self) -> None:
        """A master user logs in with its own password. The user's key is not for another user."""
        login = self.credentials(ProxySettings(masterUser="admin", masterPassword="x"))
        self.assertEqual((login.user, login.password, login.scram), (b"admin", b"x", None))
        login = self.credentials(options=RouteOptions(authid=b"admin"))
        self.assertEqual((login.user, login.password, login.scram), (b"admin", None, None))

    def test_backend(self) -> None:
        """The user may have another name at the backend."""
        login = self.credentials(user=b"joe@example.com", backends=(Backend("192.0.2.1", 143),))
        self.assertEqual((login.user, login.scram), (b"joe@example.com", SECRET))
