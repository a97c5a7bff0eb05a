"""
Tests for SCRAM (RFC 5802) with ManageSieve, where the last message of a server may be inside its OK.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Credentials, Denial, Method
from mailgate.protocols.sieve import SIEVE
from mailgate.protocols.sieve.settings import SieveSettings
from mailgate.scram.client import ScramClient
from mailgate.scram.server import ScramServer
from mailgate.test.scram.test_secrets import SECRET
from mailgate.testing import Attempt, Conversation, FakeClient, FakeConnector, routeTo
from mailgate.testing.fakes import ROUTE, FakeAuthenticator

VERIFIER = evolve(SECRET, clientKey=None)
OFFER = b'"SIEVE" ""\r\n"SASL" "SCRAM-SHA-256"\r\nOK\r\n'
COMMAND = b'AUTHENTICATE "SCRAM-SHA-256" "'


class ClientTests(SynchronousTestCase):
    """Clients of the gateway."""

    def test_successData(self) -> None:
        """The signature is inside the OK of the login, and no challenge (RFC 5804, section 2.1)."""
        route = evolve(ROUTE, password=None, scram=VERIFIER)
        connector = FakeConnector(FakeClient(b'OK "Logged in."\r\n'))
        settings = SieveSettings(auth=("plain", "scram-sha-256"))
        conversation = Conversation(SIEVE, settings, authenticator=FakeAuthenticator(route), connector=connector)
        self.assertIn(b'"SASL" "PLAIN SCRAM-SHA-256"\r\n', conversation.hear())
        client = ScramClient(b"joe", b"", b"nonce")
        heard = conversation.says(COMMAND + b64encode(client.message) + b'"')
        given = client.first(b64decode(heard.strip(b'"\r\n')))
        self.assertEqual(given.salt, SECRET.salt)
        final = conversation.says(b'"' + b64encode(client.final(SECRET)) + b'"')
        self.assertRegex(final, rb'\AOK \(SASL "[A-Za-z0-9+/=]+"\) "Logged in\."\r\n\Z')
        self.assertTrue(client.verify(b64decode(final.split(b'"')[1])))


class BackendTests(SynchronousTestCase):
    """Backends behind the gateway."""

    def begin(self) -> tuple[Attempt, ScramServer]:
        """A login by the client's key, up to the proof, which is right."""
        credentials = Credentials(Method.SCRAM_SHA_256, b"joe")
        attempt = Attempt(SIEVE, route=routeTo(password=None, scram=SECRET), credentials=credentials)
        attempt.accept()
        server = ScramServer(False, False, lambda: b"", lambda n: bytes(n))
        heard = attempt.says(OFFER)
        server.first(b64decode(heard.removeprefix(COMMAND).removesuffix(b'"\r\n')))
        challenge = b64encode(server.challenge(VERIFIER))
        answer = attempt.says(b"{%d}\r\n%b\r\n" % (len(challenge), challenge))
        self.assertIsNotNone(server.final(b64decode(answer.strip(b'"\r\n'))))
        return attempt, server

    def result(self, attempt: Attempt) -> Any:
        """The result of the login."""
        return self.successResultOf(attempt.result)

    def test_inside(self) -> None:
        """The backend's signature may be inside its OK. The client does not get it: its own exchange is another one."""
        for form in (b'OK (SASL "%(data)b") "in"\r\n', b'OK (SASL {%(size)d}\r\n%(data)b) "in"\r\n'):
            attempt, server = self.begin()
            data = b64encode(server.signature)
            attempt.says(form % {b"data": data, b"size": len(data)})
            self.assertEqual(self.result(attempt).reply, b'OK "in"\r\n')

    def test_challenge(self) -> None:
        """It may be a last challenge, which an empty string answers."""
        attempt, server = self.begin()
        self.assertEqual(attempt.says(b'"' + b64encode(server.signature) + b'"\r\n'), b'""\r\n')
        attempt.says(b"OK\r\n")
        self.assertEqual(self.result(attempt).reply, b"OK\r\n")

    def test_unproven(self) -> None:
        """A backend that does not prove that it knows the secret is not used."""
        for said in (b"OK\r\n", b'OK (SASL "AAAA")\r\n', b'OK (SASL "!")\r\n', b"OK (SASL)\r\n"):
            attempt, _ = self.begin()
            attempt.says(said)
            self.assertIsInstance(self.result(attempt), Denial)

    def test_refused(self) -> None:
        """A refusal is one."""
        attempt, _ = self.begin()
        attempt.says(b'NO "wrong"\r\n')
        self.assertIsInstance(self.result(attempt), Denial)
