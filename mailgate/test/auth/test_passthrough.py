"""
Tests for L{mailgate.auth.passthrough}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.auth.passthrough import KIND, PassThroughAuthenticator
from mailgate.backend.settings import ProxySettings
from mailgate.directives import directives
from mailgate.interfaces import IAuthenticator
from mailgate.log.journal import Journal
from mailgate.login import Backend, Client, Credentials, Denial, LoginRequest, Method, Route, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.test.backend.test_connector import PASS_ON
from mailgate.testing import Attempt, Conversation, FakeConnector, settingsOf

BACKEND = Backend("192.0.2.99", 143)


def requestBy(method: Method, user: bytes = b"joe", secret: bytes = b"sesame") -> LoginRequest:
    """Return a login of joe."""
    return LoginRequest("imap", Credentials(method, user, secret, b"<salt>"), Client("192.0.2.7", 40123))


class PassThroughAuthenticatorTests(SynchronousTestCase):
    """L{PassThroughAuthenticator} accepts logins for the backend to decide."""

    def answer(self, request: LoginRequest) -> Route | Denial:
        authenticator = PassThroughAuthenticator(BACKEND)
        self.assertTrue(verifyObject(IAuthenticator, authenticator))
        return self.successResultOf(authenticator.authenticate(request))

    def test_password(self) -> None:
        """The backend gets the password unchanged, and the route states that it was not checked."""
        for user, secret in ((b"joe", b"sesame"), (b"jo\xe9@example.com", b""), (b"", b"\0")):
            route = self.answer(requestBy(Method.PLAIN, user, secret))
            self.assertEqual(route, Route((BACKEND,), user, secret, judged=False))

    def test_repr(self) -> None:
        """The repr of the route does not show the password."""
        self.assertNotIn("sesame", repr(self.answer(requestBy(Method.PLAIN))))

    def test_withoutLogin(self) -> None:
        """A session without a login is accepted."""
        route = self.answer(requestBy(Method.NONE, b"", b""))
        self.assertEqual(route, Route((BACKEND,), b"", b"", judged=False))

    def test_notReplayable(self) -> None:
        """A method that cannot be replayed is refused."""
        for method in (Method.APOP, Method.CRAM_MD5, Method.EXTERNAL):
            self.assertEqual(self.answer(requestBy(method)), Denial(Trouble.DENIED))


class KindTests(SynchronousTestCase):
    """The entry in the registry."""

    def test_methods(self) -> None:
        """It names the methods that can be replayed; C{mailgate check} rejects others."""
        self.assertEqual(KIND.methods, {Method.PLAIN, Method.NONE})

    def test_directive(self) -> None:
        """Its directive belongs to its settings."""
        self.assertIn(KIND.directive, [each.name for each in directives(KIND.settings)])

    def test_build(self) -> None:
        """It makes an authenticator for the server's C{proxy_pass}."""
        built = KIND.build(settingsOf("imap"), BACKEND, MemoryReactorClock(), Journal())
        route = self.successResultOf(built.authenticate(requestBy(Method.PLAIN)))
        self.assertEqual(route.backends, (BACKEND,))

    def test_proxyPass(self) -> None:
        """C{proxy_pass} accepts an address or a name with a port, and a unix socket."""
        (found,) = (each for each in directives(ProxySettings) if each.name == "proxy_pass")
        forms = {
            "192.0.2.99:143": BACKEND,
            "[2001:db8::1]:143": Backend("2001:db8::1", 143),
            "mail.example.com:143": Backend("mail.example.com", 143),
            "unix:/run/imap": Backend("unix:/run/imap", 0),
        }
        for value, backend in forms.items():
            self.assertEqual(found.parse(value, ""), backend)
        for value in ("", "192.0.2.99", "192.0.2.99:0", "2001:db8::1:143", "imap://mail.example.com:143"):
            self.assertRaises(ValueError, found.parse, value, "")


class MappingTests(SynchronousTestCase):
    """How the backend's replies are mapped if it alone decides."""

    SERVERS = (
        (IMAP4, (b"* OK\r\n",), b"a1 OK done\r\n", b"a1 NO wrong\r\n", b"a1 NO [UNAVAILABLE] busy\r\n"),
        (POP3, (b"+OK\r\n", b"+OK\r\n"), b"+OK\r\n", b"-ERR wrong\r\n", b"-ERR [SYS/TEMP] busy\r\n"),
        (SMTP, (b"220 mx\r\n", b"250 mx\r\n"), b"235 ok\r\n", b"535 wrong\r\n", b"454 busy\r\n"),
    )

    def attempt(self, record: Any, *replies: bytes, groups: tuple[Any, ...] = ()) -> Any:
        """Return the result of joe's login at a backend that sends C{replies}."""
        credentials = Credentials(Method.PLAIN, b"joe", b"sesame")
        request = LoginRequest(record.name, credentials, Client("192.0.2.7", 40123), tag=b"a1")
        route: Any = self.successResultOf(PassThroughAuthenticator(BACKEND).authenticate(request))
        attempt = Attempt(record, *groups, route=route)
        attempt.accept()
        attempt.says(*replies)
        return self.successResultOf(attempt.result)

    def test_accepted(self) -> None:
        """An acceptance is an acceptance."""
        for record, steps, accepted, _, _ in self.SERVERS:
            self.assertIsInstance(self.attempt(record, *steps, accepted), record.client)

    def test_refused(self) -> None:
        """A refusal is the answer to the login, whatever proxy_pass_error_message is."""
        for record, steps, _, refused, _ in self.SERVERS:
            for groups in ((), (PASS_ON,)):
                answer = refused.strip().removeprefix(b"a1 ")
                denial = Denial(Trouble.DENIED, answer=answer)
                self.assertEqual(self.attempt(record, *steps, refused, groups=groups), denial)

    def test_busy(self) -> None:
        """A temporary refusal is a temporary failure."""
        for record, steps, _, _, busy in self.SERVERS:
            for groups in ((), (PASS_ON,)):
                answer = busy.strip().removeprefix(b"a1 ")
                denial = Denial(Trouble.TEMPORARY, answer=answer)
                self.assertEqual(self.attempt(record, *steps, busy, groups=groups), denial)

    def test_failure(self) -> None:
        """A reply that does not answer the login is a failure of the backend."""
        for record, *_ in self.SERVERS:
            self.assertEqual(self.attempt(record, b"what?\r\n"), Denial(Trouble.TEMPORARY))
            self.assertEqual(self.attempt(record, b"what?\r\n", groups=(PASS_ON,)), Denial(Trouble.TEMPORARY))

    def test_clientHears(self) -> None:
        """The client gets the refusal in its protocol's words, and may try again on the same connection."""
        logins = {
            IMAP4: (b"a1 LOGIN joe wrong", b"a1 NO [AUTHENTICATIONFAILED] Authentication failed\r\n"),
            POP3: (b"USER joe\r\nPASS wrong", b"+OK\r\n-ERR [AUTH] Authentication failed\r\n"),
            SMTP: (b"AUTH PLAIN AGpvZQB3cm9uZw==", b"535 5.7.8 Authentication failed\r\n"),
        }
        for record, (login, refusal) in logins.items():
            authenticator = PassThroughAuthenticator(BACKEND)
            connector = FakeConnector(Denial(Trouble.DENIED), Denial(Trouble.DENIED))
            conversation = Conversation(record, authenticator=authenticator, connector=connector)
            for _ in range(2):
                self.assertEqual(conversation.says(login), refusal)
            self.assertFalse(conversation.closed)
            self.assertEqual(connector.routes, [Route((BACKEND,), b"joe", b"wrong", judged=False)] * 2)
            conversation.transport.lose()
