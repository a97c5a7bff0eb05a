"""
Tests for L{mailgate.auth.cred}.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from twisted.cred.checkers import (
    AllowAnonymousAccess,
    FilePasswordDB,
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailgate.auth.cred import CredAuthenticator
from mailgate.interfaces import IAuthenticator
from mailgate.login import Backend, Credentials, Denial, LoginRequest, Method, Route, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.testing import ROUTE, Conversation, requestFor

CHALLENGE = b"<1.2@mx.test>"


def route(avatarId: bytes, request: LoginRequest) -> Route:
    """Return the backend of C{avatarId}."""
    return Route((Backend("10.0.0.1", 143),), avatarId, b"master")


@implementer(ICredentialsChecker)
class Checker:
    """Calls C{answer} with all credentials."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.asked: list[Any] = []

    def requestAvatarId(self, credentials: Any) -> Any:
        self.asked.append(credentials)
        return self._answer(credentials)


def refusing(credentials: Any) -> Any:
    raise UnauthorizedLogin()


class CredTests(SynchronousTestCase):
    """twisted.cred's checkers judge logins."""

    def judge(
        self, checker: Any, secret: bytes = b"sesame", method: Method = Method.PLAIN, user: bytes = b"joe"
    ) -> Any:
        """Return the result of a login."""
        request = requestFor("imap", credentials=Credentials(method, user, secret, CHALLENGE))
        return self.successResultOf(CredAuthenticator(checker, route).authenticate(request))

    def test_interface(self) -> None:
        """The class is an authenticator, and has nothing to close."""
        authenticator = CredAuthenticator(Checker(refusing), route)
        self.assertTrue(verifyObject(IAuthenticator, authenticator))
        authenticator.close()

    def test_accepted(self) -> None:
        """An accepted login gets the route that the application returns for the checker's avatar ID."""
        checker = Checker(lambda credentials: succeed(b"u" + credentials.username))
        expected = Route((Backend("10.0.0.1", 143),), b"ujoe", b"master")
        self.assertEqual(self.judge(checker), expected)
        self.assertEqual((checker.asked[0].username, checker.asked[0].password), (b"joe", b"sesame"))

    def test_synchronous(self) -> None:
        """A checker may return its result without a Deferred."""
        self.assertEqual(self.judge(Checker(lambda credentials: b"joe")).user, b"joe")

    def test_refused(self) -> None:
        """L{UnauthorizedLogin} means a wrong password."""
        for answer in (refusing, lambda credentials: fail(UnauthorizedLogin())):
            self.assertEqual(
                self.judge(Checker(answer)), Denial(Trouble.DENIED, reason="the checker refused the login")
            )

    def test_failed(self) -> None:
        """Any other failure, also of the route, is a temporary failure."""
        request = requestFor("imap")
        for error in (RuntimeError("database"), LoginDenied()):
            authenticator = CredAuthenticator(Checker(lambda credentials, error=error: fail(error)), route)
            self.failureResultOf(authenticator.authenticate(request), type(error))
        authenticator = CredAuthenticator(Checker(lambda credentials: b"joe"), lambda *arguments: refusing(arguments))
        self.failureResultOf(authenticator.authenticate(request), UnauthorizedLogin)

    def test_route(self) -> None:
        """The route may come later, and may be a refusal."""
        denial = Denial(Trouble.PERMANENT)
        for answer in (denial, succeed(denial)):
            authenticator = CredAuthenticator(Checker(lambda credentials: b"joe"), lambda *_, answer=answer: answer)
            self.assertEqual(self.successResultOf(authenticator.authenticate(requestFor("imap"))), denial)

    def test_notAsked(self) -> None:
        """A checker never gets an empty password, or credentials with CR, LF or NUL."""
        checker = Checker(lambda credentials: b"joe")
        for changes in ({"secret": b""}, {"secret": b"sesame\0"}, {"user": b"joe\r\n"}, {"method": Method.EXTERNAL}):
            self.assertEqual(self.judge(checker, **changes).trouble, Trouble.DENIED)
        self.assertEqual(checker.asked, [])

    def test_cancelled(self) -> None:
        """A client's disconnection cancels the check."""
        cancelled: list[object] = []
        waiting: Deferred[Any] = Deferred(cancelled.append)
        authenticator = CredAuthenticator(Checker(lambda credentials: waiting), route)
        asked = authenticator.authenticate(requestFor("imap"))
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual(cancelled, [waiting])

    def test_methods(self) -> None:
        """The methods are those that the checker supports."""
        self.assertEqual(CredAuthenticator(Checker(refusing), route).methods, {Method.PLAIN})
        database: Any = InMemoryUsernamePasswordDatabaseDontUse()
        methods = CredAuthenticator(database, route).methods
        self.assertEqual(methods, {Method.PLAIN, Method.CRAM_MD5, Method.APOP})
        anonymous: Any = AllowAnonymousAccess()
        self.assertRaises(ValueError, CredAuthenticator, anonymous, route)

    def test_twistedsOwn(self) -> None:
        """Twisted's own checkers judge passwords and digests."""
        path = self.mktemp()
        with open(path, "wb") as opened:
            opened.write(b"joe:sesame\n")
        memory = InMemoryUsernamePasswordDatabaseDontUse(joe=b"sesame")
        for checker in (memory, FilePasswordDB(path)):
            self.assertEqual(self.judge(checker).user, b"joe")
            for password, right in ((b"sesame", True), (b"wrong", False)):
                cramMD5 = hmac.new(password, CHALLENGE, "md5").hexdigest().encode()
                apop = hashlib.md5(CHALLENGE + password).hexdigest().encode()
                for method, secret in ((Method.PLAIN, password), (Method.CRAM_MD5, cramMD5), (Method.APOP, apop)):
                    answer = self.judge(checker, secret, method)
                    self.assertEqual(isinstance(answer, Route), right, f"{checker} {method}")
            self.assertEqual(self.judge(checker, user=b"ann").trouble, Trouble.DENIED)

    def test_secrets(self) -> None:
        """Neither the credentials nor the log of a failure show a password."""
        shown: list[str] = []

        def failing(credentials: Any) -> Any:
            shown.append(repr(credentials))
            raise RuntimeError("database")

        database = Checker(failing)
        conversation = Conversation(IMAP4, authenticator=CredAuthenticator(database, route))
        self.assertIn(b"a NO [UNAVAILABLE] ", conversation.says(b"a LOGIN joe open-sesame"))
        (event,) = [event for event in conversation.events if "log_failure" in event]
        log = "\n".join(conversation.logged()) + event["log_failure"].getTraceback()
        self.assertIn("RuntimeError: database", log)
        self.assertNotIn("open-sesame", log + "".join(shown))
        digest = CredAuthenticator(InMemoryUsernamePasswordDatabaseDontUse(joe=b"sesame"), route)
        asked: list[str] = []
        self.patch(digest, "_checker", Checker(lambda credentials: asked.append(repr(credentials))))
        digest.authenticate(requestFor("imap", credentials=Credentials(Method.APOP, b"joe", b"open-sesame", CHALLENGE)))
        self.assertNotIn("open-sesame", "".join(asked))
        self.assertEqual(len(asked), 1)

    def test_conversation(self) -> None:
        """A gateway logs in a client that the checker accepts."""
        checker: Any = InMemoryUsernamePasswordDatabaseDontUse(joe=b"sesame")
        conversation = Conversation(IMAP4, authenticator=CredAuthenticator(checker, lambda *_: ROUTE))
        self.assertIn(b"a NO [AUTHENTICATIONFAILED] ", conversation.says(b"a LOGIN joe wrong"))
        conversation.says(b"b LOGIN joe sesame")
        self.assertEqual(conversation.connector.routes, [ROUTE])
