"""Tests for SCRAM with an authentication service: C{Auth-Scram-Secret}."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from mailgate.auth.http.exchange import Unusable, question, route, verdict
from mailgate.auth.http.headers import Values, valuesOf
from mailgate.login import Client, Credentials, Denial, LoginRequest, Method, ScramSecret
from mailgate.test.scram.test_secrets import SECRET, STORED

VERIFIER = evolve(SECRET, clientKey=None)
REQUEST = LoginRequest("imap", Credentials(Method.SCRAM_SHA_256, b"joe"), Client("192.0.2.1", 4711))
BACKEND = {"Auth-Server": "192.0.2.99", "Auth-Port": "143"}


def answer(**fields: Any) -> Values:
    """The values of the headers of an answer; underscores stand for hyphens."""
    return valuesOf(Headers({name.replace("_", "-"): [value] for name, value in fields.items()}))


class QuestionTests(SynchronousTestCase):
    """The question."""

    def test_question(self) -> None:
        """It has the name alone."""
        block = question(REQUEST).block
        self.assertIn(b"Auth-Method: scram-sha-256\r\nAuth-User: joe\r\nAuth-Pass: \r\n", block)


class AcceptanceTests(SynchronousTestCase):
    """Acceptances."""

    def read(self, **fields: Any) -> Any:
        return route(REQUEST, answer(**{key.replace("-", "_"): text for key, text in BACKEND.items()}, **fields), None)

    def test_secret(self) -> None:
        """The secret checks the client's proof. No password is needed for the backend."""
        found = self.read(Auth_Scram_Secret=STORED)
        self.assertEqual((found.user, found.password, found.judged, found.scram), (b"joe", None, True, VERIFIER))

    def test_password(self) -> None:
        """The service may have a password for the backend."""
        found = self.read(Auth_Scram_Secret=STORED, Auth_Pass="sesame", Auth_User="joe2")
        self.assertEqual((found.user, found.password, found.scram), (b"joe2", b"sesame", VERIFIER))

    def test_missing(self) -> None:
        """Without a secret an acceptance is a failure of the service: it has judged nothing."""
        for fields in ({}, {"Auth_Pass": "sesame"}, {"Auth_Proxy_Method": "none"}):
            error = self.assertRaises(Unusable, self.read, **fields)
            self.assertEqual(str(error), "accepted a login by scram-sha-256 without Auth-Scram-Secret")

    def test_invalid(self) -> None:
        """An invalid secret is a failure, too. Nothing of it is quoted."""
        for secret in (b"", b"4095" + STORED[4:], STORED + b"x", b"{SCRAM-SHA-256}" + STORED):
            error = self.assertRaises(Unusable, self.read, Auth_Scram_Secret=secret)
            self.assertTrue(str(error).startswith("sent an invalid Auth-Scram-Secret: must "))
            self.assertEqual(error.quoted, b"")

    def test_others(self) -> None:
        """Logins with a password ignore it."""
        request = evolve(REQUEST, credentials=Credentials(Method.PLAIN, b"joe", b"pencil"))
        fields = answer(Auth_Scram_Secret=STORED, Auth_Server="192.0.2.99", Auth_Port="143")
        self.assertIsNone(route(request, fields, None).scram)


class RefusalTests(SynchronousTestCase):
    """Refusals."""

    def read(self, **fields: Any) -> ScramSecret | None:
        denial = verdict(REQUEST, answer(Auth_Status="Invalid login or password", **fields))
        assert isinstance(denial, Denial)
        return denial.scram

    def test_refused(self) -> None:
        """The service may have a secret for the challenge of an unknown user; usually the gateway makes it."""
        self.assertIsNone(self.read())
        self.assertIsNone(self.read(Auth_Scram_Secret="?"))
        self.assertEqual(self.read(Auth_Scram_Secret=STORED), VERIFIER)
