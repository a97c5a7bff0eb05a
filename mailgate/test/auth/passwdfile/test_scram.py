"""Tests for SCRAM with an account file: L{mailgate.auth.passwdfile.scramsecrets} and what uses it."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from mailgate.auth.passwdfile.passwords import parsePassword
from mailgate.auth.passwdfile.scramsecrets import Making, secretFor
from mailgate.auth.passwdfile.slowhashes import UnusablePassword
from mailgate.login import Denial, Method, Route, ScramSecret, Trouble
from mailgate.scram.secrets import derivedSecret, fakeSecret, saltFor, written
from mailgate.test.scram.test_secrets import SECRET, STORED
from mailgate.test.support.passwdfiles import AuthenticatorTestCase

VERIFIER = evolve(SECRET, clientKey=None)
WITH_SECRET = b"{SCRAM-SHA-256}" + STORED
ARGON2 = b"{ARGON2ID}$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$WJgu7DvMbqbfg8ZBGXPUDA"


class SchemeTests(AuthenticatorTestCase):
    """The schemes C{SCRAM-SHA-256} and C{SCRAM-SHA-1}."""

    def test_parse(self) -> None:
        """Dovecot's form is a password, against which a password in the clear can be checked."""
        password = parsePassword(WITH_SECRET)
        assert password is not None
        self.assertEqual((password.scheme, password.scram, password.slow), ("SCRAM-SHA-256", VERIFIER, True))
        self.assertTrue(password.matches(b"pencil"))
        self.assertFalse(password.matches(b"pencils"))
        self.assertNotIn("W22Z", repr(password))

    def test_locked(self) -> None:
        """A locked account has no password."""
        self.assertIsNone(parsePassword(b"{SCRAM-SHA-256}*"))

    def test_invalid(self) -> None:
        """An invalid secret is reported without a part of it."""
        error = self.assertRaises(UnusablePassword, parsePassword, b"{SCRAM-SHA-1}" + STORED)
        self.assertEqual(str(error), "must be ITERATIONS,SALT,STOREDKEY,SERVERKEY with base64, and keys of 20 bytes")

    def test_login(self) -> None:
        """A login with a password in the clear computes the secret in a thread, and logs in at the backend with it."""
        self.build(b"joe:" + WITH_SECRET)
        self.assertEqual(self.login(b"joe", b"pencil").password, b"pencil")
        self.assertEqual(self.refusal(self.login(b"joe", b"pencils")), "wrong password")
        self.assertEqual(self.refusal(self.login(b"ann", b"pencil")), "unknown user")


class SecretTests(AuthenticatorTestCase):
    """Logins by SCRAM: the client has sent its name only."""

    def ask(self, user: bytes, method: Method = Method.SCRAM_SHA_256, **others: Any) -> Any:
        return self.login(user, b"", method, **others)

    def test_stored(self) -> None:
        """The secret of the file goes to the client; without pass= no password is known for the backend."""
        self.build(b"joe:" + WITH_SECRET, b"ann:" + WITH_SECRET + b"::::::pass=sesame")
        route = self.ask(b"Joe")
        self.assertIsInstance(route, Route)
        self.assertEqual((route.user, route.password, route.scram), (b"joe", None, VERIFIER))
        self.assertEqual(self.ask(b"ann").password, b"sesame")

    def test_derived(self) -> None:
        """That of a plain password is computed in a thread, and the password logs in at the backend."""
        self.build(b"joe:{PLAIN}pencil")
        answer = self.start(b"joe", b"", Method.SCRAM_SHA_1)
        self.assertNoResult(answer)
        self.reactor.work()
        route = self.successResultOf(answer)
        salt = saltFor(b"", Method.SCRAM_SHA_1, b"joe")
        secret = evolve(derivedSecret(Method.SCRAM_SHA_1, b"pencil", salt, 4096), clientKey=None)
        self.assertEqual((route.password, route.scram), (b"pencil", secret))

    def test_unknown(self) -> None:
        """An unknown user gets a secret like those of the others, and costs the same work."""
        for line, iterations in ((WITH_SECRET.replace(b"4096", b"5000"), 5000), (b"{PLAIN}pencil", 4096)):
            self.build(b"joe:" + line)
            answer = self.start(b"ann", b"", Method.SCRAM_SHA_256)
            self.assertEqual(self.reactor.work(), line.startswith(b"{PLAIN}"))
            denial = self.successResultOf(answer)
            self.assertEqual((denial.trouble, denial.reason), (Trouble.DENIED, "unknown user"))
            self.assertEqual(denial.scram, fakeSecret(b"", Method.SCRAM_SHA_256, b"ann", iterations))

    def test_mixed(self) -> None:
        """A stored secret among plain passwords costs the same work as these, and as an unknown user."""
        self.build(b"joe:{PLAIN}pencil", b"jim:{PLAIN}pencil", b"ann:" + WITH_SECRET)
        for user in (b"joe", b"ann", b"unknown"):
            answer = self.start(user, b"", Method.SCRAM_SHA_256)
            self.assertNoResult(answer)
            self.assertTrue(self.reactor.work())
            self.assertEqual(self.successResultOf(answer).scram == VERIFIER, user == b"ann")

    def test_usual(self) -> None:
        """The secret of an unknown user has the iterations, and the length of the salt, that most secrets have."""
        others = [written(evolve(VERIFIER, iterations=9000, salt=b"salt" * 3)) for _ in range(2)]
        secrets = [WITH_SECRET, *(b"{SCRAM-SHA-256}" + other for other in others)]
        self.build(*(b"u%d:%b" % pair for pair in enumerate(secrets)))
        secret = self.ask(b"unknown").scram
        self.assertEqual((secret.iterations, len(secret.salt)), (9000, 12))

    def test_refused(self) -> None:
        """Accounts that may not log in, or cannot by this method, are refused; the client gets a challenge before."""
        fields = b"::::::nologin"
        self.build(
            b"joe:" + WITH_SECRET,
            b"locked:{SCRAM-SHA-256}*",
            b"barred:" + WITH_SECRET + fields,
            b"elsewhere:" + WITH_SECRET + b"::::::allow_nets=198.51.100.0/24",
            b"hashed:" + ARGON2,
            b"bad:{SCRAM-SHA-256}1,2,3,4",
        )
        reasons = {
            b"locked": "locked account",
            b"barred": "nologin",
            b"elsewhere": "address outside allow_nets",
            b"hashed": "SCRAM-SHA-256 needs a PLAIN or SCRAM-SHA-256 password in auth_file",
            b"bad": "unusable line",
        }
        for user, reason in reasons.items():
            denial = self.ask(user)
            self.assertEqual((type(denial), denial.trouble, denial.reason), (Denial, Trouble.DENIED, reason))
            self.assertIsNotNone(denial.scram)
            self.assertEqual((denial.scram.iterations, len(denial.scram.salt)), (4096, 16))
        denial = self.ask(b"joe", Method.SCRAM_SHA_1)
        self.assertEqual(denial.reason, "SCRAM-SHA-1 needs a PLAIN or SCRAM-SHA-1 password in auth_file")

    def test_unfit(self) -> None:
        """A name with a line end never reaches a backend."""
        self.build(b"joe:" + WITH_SECRET)
        self.assertEqual(self.ask(b"joe\r\n").reason, "CR, LF or NUL in the credentials")

    def test_noFile(self) -> None:
        """Without a readable file the failure is temporary, for all users."""
        self.build(b"joe:" + WITH_SECRET)
        self.authenticator._file._lines = None
        self.assertIs(self.ask(b"joe").trouble, Trouble.TEMPORARY)

    def test_withoutDecoy(self) -> None:
        """An empty file has secrets for unknown users as well."""
        making = Making(b"key", 5000)
        secret = secretFor(None, None, Method.SCRAM_SHA_1, b"joe", making)
        assert isinstance(secret, ScramSecret)
        self.assertEqual(secret, fakeSecret(b"key", Method.SCRAM_SHA_1, b"joe", 5000))
        self.assertNotIn("key", repr(making).replace("key=", ""))
