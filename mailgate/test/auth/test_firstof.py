"""
Tests for L{mailgate.auth.firstof}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailgate.auth.firstof import FirstOf
from mailgate.interfaces import IAuthenticator
from mailgate.login import Credentials, Denial, Method, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.testing import ROUTE, Conversation, FakeAuthenticator, requestFor

REFUSED = Denial(Trouble.DENIED)


@implementer(IAuthenticator)
class NotMine:
    """Knows no account."""

    methods = frozenset({Method.PLAIN, Method.XOAUTH2})

    def __init__(self) -> None:
        self.asked = 0
        self.closed = False

    def authenticate(self, request: Any) -> Deferred[Any]:
        self.asked += 1
        return succeed(None)

    def close(self) -> None:
        self.closed = True
        raise RuntimeError("cannot be closed")


class FirstOfTests(SynchronousTestCase):
    """A chain of authenticators."""

    request = requestFor("imap")

    def test_interface(self) -> None:
        """The chain is an authenticator."""
        self.assertTrue(verifyObject(IAuthenticator, FirstOf()))

    def test_first(self) -> None:
        """The first authenticator that answers decides; the following ones are not asked."""
        for answer in (ROUTE, REFUSED):
            behind = FakeAuthenticator()
            chain = FirstOf(NotMine(), FakeAuthenticator(answer), behind)
            self.assertEqual(self.successResultOf(chain.authenticate(self.request)), answer)
            self.assertEqual(behind.requests, [])

    def test_nobody(self) -> None:
        """An account that no authenticator knows is refused like a wrong password."""
        denial = self.successResultOf(FirstOf(NotMine(), NotMine()).authenticate(self.request))
        assert isinstance(denial, Denial)
        self.assertEqual((denial.trouble, denial.reason), (Trouble.DENIED, "no authenticator knows this account"))

    def test_failure(self) -> None:
        """After a failure, the next authenticator is not asked."""
        behind = FakeAuthenticator()
        failing = FirstOf(FakeAuthenticator(RuntimeError("database")), behind).authenticate(self.request)
        self.failureResultOf(failing, RuntimeError)
        self.assertEqual(behind.requests, [])

    def test_later(self) -> None:
        """An answer, or L{None}, may come later."""
        slow = FakeAuthenticator(None)
        asked = FirstOf(slow, FakeAuthenticator(ROUTE)).authenticate(self.request)
        self.assertNoResult(asked)
        slow.pending[0].callback(None)
        self.assertEqual(self.successResultOf(asked), ROUTE)

    def test_cancelled(self) -> None:
        """A client's disconnection cancels the search."""
        slow, behind = FakeAuthenticator(None), FakeAuthenticator()
        asked = FirstOf(slow, behind).authenticate(self.request)
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual((slow.cancelled, behind.requests), (1, []))

    def test_methods(self) -> None:
        """The chain judges what one of its members can judge, and asks no others."""
        mine = NotMine()
        passwords = FakeAuthenticator()
        chain = FirstOf(passwords, mine)
        self.assertEqual(chain.methods, {Method.PLAIN, Method.XOAUTH2})
        token = requestFor("imap", credentials=Credentials(Method.XOAUTH2, b"joe", b"token"))
        self.assertIsInstance(self.successResultOf(chain.authenticate(token)), Denial)
        self.assertEqual((mine.asked, passwords.requests), (1, []))

    def test_close(self) -> None:
        """All members are closed, even if one raises an exception, which is raised again."""
        first, second = NotMine(), FakeAuthenticator()
        self.assertRaises(RuntimeError, FirstOf(first, second).close)
        self.assertEqual((first.closed, second.closed), (True, True))
        FirstOf(second).close()

    def test_forget(self) -> None:
        """All members that have a cache forget; others are passed over."""

        class Caching(FakeAuthenticator):
            def forgetUsers(self, matches: Callable[[bytes], bool]) -> Iterator[int]:
                yield int(matches(b"joe"))
                yield 2

        chain = FirstOf(Caching(), FakeAuthenticator(), FirstOf(Caching()))
        self.assertEqual(list(chain.forgetUsers(lambda user: user == b"joe")), [1, 2, 1, 2])

    def test_conversation(self) -> None:
        """A gateway works with a chain."""
        conversation = Conversation(IMAP4, authenticator=FirstOf(NotMine(), FakeAuthenticator(ROUTE)))
        conversation.says(b"a LOGIN joe sesame")
        self.assertEqual(conversation.connector.routes, [ROUTE])
