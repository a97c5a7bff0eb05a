"""Tests for L{mailgate.frontend.outside}: mistakes in authenticators of others."""

from __future__ import annotations

from asyncio import CancelledError
from typing import Any

from twisted.internet.defer import fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.factory import Means, ProxyServerFactory
from mailgate.frontend.outside import checked
from mailgate.limits.attempt import Action, Result, Verdict
from mailgate.login import Backend, BackendGroup, Denial, Route, RouteOptions, TLSOptions, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.test.support.loginguards import ScriptedStore, guarded
from mailgate.testing import Conversation, FakeAuthenticator, requestFor, routeTo

HERE = Backend("192.0.2.99", 143)

WRONG: tuple[tuple[Any, str], ...] = (
    (Route((HERE,), "joe", b"sesame"), "Route whose user is of type str instead of bytes"),  # type: ignore[arg-type]
    (routeTo(password="sesame"), "Route whose password is of type str instead of bytes or None"),
    (routeTo(authzid="boss"), "Route whose authzid is of type str instead of bytes or None"),
    (routeTo(options={"hold": 1}), "Route whose options is of type dict instead of RouteOptions or None"),
    (routeTo(scram=b"sesame"), "Route whose scram is of type bytes instead of ScramSecret or None"),
    (Route([HERE], b"joe"), "Route whose backends is of type list instead of tuple"),  # type: ignore[arg-type]
    (Route(HERE, b"joe"), "Route whose backends is of type Backend instead of tuple"),  # type: ignore[arg-type]
    (routeTo(HERE, "a:143"), "Route with a backend of type str instead of Backend or BackendGroup"),  # type: ignore[arg-type]
    (routeTo(Backend(b"192.0.2.99", 143)), "Backend whose host is of type bytes instead of str"),  # type: ignore[arg-type]
    (routeTo(Backend("192.0.2.99", "143")), "Backend whose port is of type str instead of int"),  # type: ignore[arg-type]
    (routeTo(BackendGroup(b"store")), "BackendGroup whose text is of type bytes instead of str"),  # type: ignore[arg-type]
    (routeTo(options=RouteOptions(hold="1")), "RouteOptions whose hold is of type str"),  # type: ignore[arg-type]
    (Denial("denied"), "Denial whose trouble is of type str instead of Trouble"),  # type: ignore[arg-type]
    (Denial(Trouble.DENIED, "no"), "Denial whose text is of type str instead of bytes or None"),  # type: ignore[arg-type]
    (Denial(Trouble.DENIED, code="535"), "Denial whose code is of type str"),  # type: ignore[arg-type]
    (Denial(Trouble.DENIED, wait="3"), "Denial whose wait is of type str instead of int or float"),  # type: ignore[arg-type]
)
"""Answers of wrong types, and what is said about them."""


class CheckedTests(SynchronousTestCase):
    """L{checked}."""

    def test_wrong(self) -> None:
        """
        A value of a wrong type fails this login alone, with a temporary failure. The log says once what is wrong, and
        never the value. The limits hear that nothing was decided.
        """
        for answer, words in WRONG:
            store = ScriptedStore(Verdict(Action.GO, 5))
            conversation = guarded(POP3, store=store, authenticator=FakeAuthenticator(answer))
            heard = conversation.says(b"USER joe", b"PASS sesame")
            self.assertTrue(heard.startswith(b"+OK\r\n-ERR [SYS/TEMP] "), (heard, words))
            self.assertFalse(conversation.closed)
            self.assertEqual(store.results, [(5, Result.UNDECIDED)])
            failures = [event["log_failure"] for event in conversation.events if "log_failure" in event]
            (failure,) = failures
            self.assertIn(f"the authenticator returned a {words}", failure.getErrorMessage())
            self.assertNotIn("sesame", failure.getTraceback())
            self.assertEqual(conversation.says(b"USER joe", b"PASS sesame"), b"+OK\r\nOK\r\n")

    def test_right(self) -> None:
        """All that the interface allows passes as it is."""
        options = RouteOptions(b"key", TLSOptions(), "plain", b"a", b"", False, ((b"a", b"b"),), 1, 2.5)
        for answer in (
            routeTo(),
            routeTo(HERE, BackendGroup("store"), authzid=b"", options=options),
            Route((), b"", None),
            Denial(Trouble.DENIED, b"no", b"535 5.7.8", 3, True, b"e30="),
            None,
        ):
            coroutine: Any = checked(lambda request, answer=answer: succeed(answer))(requestFor("imap"))  # type: ignore[misc]
            with self.assertRaises(StopIteration) as raised:
                coroutine.send(None)
            self.assertIs(raised.exception.value, answer)

    def test_notAnException(self) -> None:
        """What is no C{Exception}, such as the cancellation of a task of asyncio, fails the login as one is."""
        for error in (CancelledError(), SystemExit(3), KeyboardInterrupt()):
            authenticator = FakeAuthenticator()
            self.patch(authenticator, "authenticate", lambda request, error=error: fail(error))
            conversation = Conversation(IMAP4, authenticator=authenticator)
            heard = conversation.says(b"a LOGIN joe sesame", b"b NOOP")
            self.assertTrue(heard.startswith(b"a NO [UNAVAILABLE] "), heard)
            self.assertIn(b"\r\nb OK completed\r\n", heard)
            text = "".join(conversation.logged())
            self.assertIn("the authenticator failed", text)
            self.assertNotIn("the login failed", text)

    def test_own(self) -> None:
        """The answers of mailgate's own authenticators are not checked: that would cost each login."""
        authenticator = FakeAuthenticator()
        mine = Conversation(SMTP, authenticator=authenticator).factory
        means = Means(authenticator, mine.connector, mine.clock, mine.journal)
        factory = ProxyServerFactory(SMTP, mine.settings, mine.address, means)
        self.assertEqual(factory.answer, authenticator.authenticate)
        self.assertNotEqual(mine.answer, authenticator.authenticate)
