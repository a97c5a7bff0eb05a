"""Tests for L{mailgate.auth.cache}: answers about a user are forgotten."""

from __future__ import annotations

from attrs import evolve

from mailgate.auth.answers import PIECE
from mailgate.auth.cache import Judgement
from mailgate.login import LoginRequest
from mailgate.test.support.cachecase import REFUSAL, ROUTE, CacheTestCase, request


class ForgettingTests(CacheTestCase):
    """L{mailgate.auth.cache.CachedAuthenticator.forgetUsers}."""

    def forget(self, *users: bytes) -> int:
        """Forget users, and return how many answers were forgotten."""
        return sum(self.cache.forgetUsers(lambda user: user in users))

    def askAll(self, *users: bytes) -> None:
        """Logins of C{users}, each accepted under the client's own name."""
        for user in users:
            self.judge.answer = evolve(ROUTE, user=user)
            self.ask(request(user))

    def test_client(self) -> None:
        """The name that the client gave counts."""
        self.judge.answer = evolve(ROUTE, user=b"joe@example.org")
        self.ask(request(b"joe"))
        self.ask(request(b"joe", b"other"))
        self.assertEqual(self.forget(b"joe"), 2)
        self.assertTrue(self.isAsked(request(b"joe")))

    def test_route(self) -> None:
        """So does the name in the route."""
        self.judge.answer = evolve(ROUTE, user=b"joe@example.org")
        self.ask(request(b"alias"))
        self.assertEqual(self.forget(b"joe@example.org"), 1)
        self.assertTrue(self.isAsked(request(b"alias")))

    def test_others(self) -> None:
        """Answers about other users stay."""
        self.askAll(b"joe", b"jane")
        self.assertEqual(self.forget(b"joe"), 1)
        self.assertFalse(self.isAsked(request(b"jane")))
        self.assertEqual(self.forget(b"joe"), 0)

    def test_refusals(self) -> None:
        """Refusals are forgotten, too: the new password of the user may be the one that was refused."""
        self.judge.answer = REFUSAL
        self.ask(request(b"joe"))
        self.ask(request(b"jane"))
        self.assertEqual(self.forget(b"joe"), 1)
        self.assertTrue(self.isAsked(request(b"joe")))
        self.assertFalse(self.isAsked(request(b"jane")))

    def test_underWay(self) -> None:
        """An answer to an earlier question is not stored, and no later login gets it."""
        self.judge.answer = None
        early = self.cache.authenticate(request(b"joe"))
        self.assertEqual(self.forget(b"joe"), 0)
        late = self.cache.authenticate(request(b"joe"))
        self.assertEqual(len(self.judge.asked), 2)
        self.judge.pending[0].callback(Judgement(ROUTE))
        self.assertEqual(self.successResultOf(early), ROUTE)
        self.assertNoResult(late)
        third = self.cache.authenticate(request(b"joe"))
        self.assertEqual(len(self.judge.asked), 2)
        self.judge.pending[1].callback(Judgement(REFUSAL))
        self.assertEqual((self.successResultOf(late), self.successResultOf(third)), (REFUSAL, REFUSAL))
        self.assertEqual(self.ask(request(b"joe")), REFUSAL)

    def test_underWayAtOnce(self) -> None:
        """This holds from the first step on, although forgetting takes many."""
        self.askAll(*(b"%d" % number for number in range(PIECE + 1)))
        self.judge.answer = None
        early = self.cache.authenticate(request(b"joe"))
        steps = self.cache.forgetUsers(lambda user: user == b"joe")
        next(steps)
        self.judge.pending[0].callback(Judgement(ROUTE))
        self.assertEqual((self.successResultOf(early), sum(steps)), (ROUTE, 0))
        self.judge.answer = ROUTE
        self.assertTrue(self.isAsked(request(b"joe")))

    def test_steps(self) -> None:
        """Forgetting pauses. Answers may be used, stored and displaced meanwhile."""
        self.size = 4 * 1024 * 1024
        self.cache = self.make()
        users = [b"%d" % number for number in range(3 * PIECE)]
        self.askAll(*users)
        steps = self.cache.forgetUsers(lambda user: True)
        self.assertEqual(next(steps), PIECE)
        self.assertFalse(self.isAsked(request(users[-1])))
        self.askAll(b"new", users[0])
        self.assertEqual([*steps], [PIECE, PIECE, 0, 0])
        self.assertFalse(self.isAsked(request(b"new")))
        self.assertFalse(self.isAsked(request(users[0])))
        self.assertTrue(self.isAsked(request(users[1])))

    def test_displaced(self) -> None:
        """An answer that has made room for others meanwhile was not forgotten by this."""
        self.size = 64 * 1024
        self.cache = self.make()
        self.askAll(*(b"%d" % number for number in range(50)))
        steps = self.cache.forgetUsers(lambda user: user == b"0")
        self.cache.forget()
        self.assertEqual(sum(steps), 0)
        self.askAll(*(b"%d" % number for number in range(500)))

    def test_memory(self) -> None:
        """What was forgotten gives its memory back."""
        self.size = 64 * 1024
        self.cache = self.make()

        def stored() -> int:
            users: list[LoginRequest] = [request(b"%d" % number) for number in range(60)]
            self.askAll(*(each.credentials.user for each in users))
            return sum(not self.isAsked(each) for each in reversed(users))

        before = stored()
        self.assertGreater(sum(self.cache.forgetUsers(lambda user: True)), 0)
        self.assertEqual(self.cache._acceptances._cost, 0)
        self.assertEqual(stored(), before)
