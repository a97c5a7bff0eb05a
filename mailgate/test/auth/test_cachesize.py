"""
Tests of the size of the cache, and of logins that join a request that is under way.
"""

from __future__ import annotations

import gc

from twisted.internet.defer import CancelledError, Deferred, succeed

from mailgate.auth.answers import COST
from mailgate.auth.cache import SHARE_OF_REFUSALS, Judgement, cacheSize
from mailgate.login import Backend, Denial, LoginRequest, Route, Trouble
from mailgate.test.support.cachecase import (
    BACKENDS,
    REFUSAL,
    REQUEST,
    ROUTE,
    UNDECIDED,
    CacheTestCase,
    FakeJudge,
    request,
)


class JoinTests(CacheTestCase):
    """Identical logins while a request is under way."""

    def setUp(self) -> None:
        super().setUp()
        self.judge.answer = None

    def join(self, n: int) -> list[Deferred[Route | Denial]]:
        """Return C{n} identical logins that wait for one request."""
        joined = [self.cache.authenticate(REQUEST) for _ in range(n)]
        self.assertEqual(len(self.judge.pending), 1)
        return joined

    def test_joined(self) -> None:
        """There is one request. All logins get its answer, which is stored."""
        joined = self.join(3)
        for each in joined:
            self.assertNoResult(each)
        self.judge.pending[0].callback(Judgement(ROUTE))
        self.assertEqual([self.successResultOf(each) for each in joined], [ROUTE] * 3)
        self.assertFalse(self.isAsked())

    def test_notStored(self) -> None:
        """All logins get an answer that is not storable; a later login causes a new request."""
        for judgement in (Judgement(ROUTE, False), Judgement(REFUSAL, False), Judgement(UNDECIDED)):
            joined = self.join(2)
            self.judge.pending.pop().callback(judgement)
            self.assertEqual([self.successResultOf(each) for each in joined], [judgement.answer] * 2)

    def test_others(self) -> None:
        """A different login causes its own request and gets its own answer."""
        joined, other = self.cache.authenticate(REQUEST), self.cache.authenticate(request(b"joe", b"wrong"))
        first, second = self.judge.pending
        second.callback(Judgement(REFUSAL))
        self.assertNoResult(joined)
        self.assertEqual(self.successResultOf(other), REFUSAL)
        first.callback(Judgement(ROUTE))
        self.assertEqual(self.successResultOf(joined), ROUTE)

    def test_failure(self) -> None:
        """A failure reaches all logins, and nothing is stored."""
        joined = self.join(3)
        self.judge.pending.pop().errback(ZeroDivisionError())
        for each in joined:
            self.failureResultOf(each, ZeroDivisionError)
        self.join(1)

    def test_defect(self) -> None:
        """If the authenticator raises an exception at once, no login waits for its answer."""
        self.patch(self.judge, "judge", lambda request: 1 // 0)
        for _ in range(2):
            self.failureResultOf(self.cache.authenticate(REQUEST), ZeroDivisionError)

    def test_oneLeaves(self) -> None:
        """A cancelled login ends at once; the request goes on for the others, even if the first login is cancelled."""
        joined = self.join(3)
        for leaving in (0, 1):
            joined[leaving].cancel()
            self.failureResultOf(joined[leaving], CancelledError)
        self.assertEqual(self.judge.cancelled, 0)
        self.assertNoResult(joined[2])
        self.judge.pending[0].callback(Judgement(ROUTE))
        self.assertEqual(self.successResultOf(joined[2]), ROUTE)
        self.assertFalse(self.isAsked())

    def test_allLeave(self) -> None:
        """
        When the last login is cancelled, so is the request. Nothing is stored, and a later login causes a new one.
        """
        for each in self.join(2):
            each.cancel()
            self.failureResultOf(each, CancelledError)
        self.assertEqual(self.judge.cancelled, 1)
        self.judge.pending.clear()
        (later,) = self.join(1)
        self.judge.pending[0].callback(Judgement(ROUTE))
        self.assertEqual(self.successResultOf(later), ROUTE)

    def test_answeredTooLate(self) -> None:
        """An answer after all cancellations is not stored, and does not affect a new request."""
        held: Deferred[Judgement] = Deferred()
        stubborn: Deferred[Judgement] = succeed(Judgement(REFUSAL)).addCallback(lambda _: held)
        # Here a cancellation has no immediate effect.
        held.cancel = lambda: None  # type: ignore[method-assign]
        answers = [stubborn]
        self.patch(
            self.judge, "judge", lambda request: answers.pop() if answers else FakeJudge.judge(self.judge, request)
        )
        first = self.cache.authenticate(REQUEST)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second = self.cache.authenticate(REQUEST)
        held.callback(Judgement(REFUSAL))
        self.assertNoResult(second)
        third = self.cache.authenticate(REQUEST)
        (pending,) = self.judge.pending
        pending.callback(Judgement(ROUTE))
        self.assertEqual([self.successResultOf(each) for each in (second, third)], [ROUTE] * 2)
        self.assertEqual(self.ask(), ROUTE)

    def test_lateFailure(self) -> None:
        """A failure of a request without waiting logins is ignored."""
        self.judge._cancel = lambda deferred: deferred.errback(ZeroDivisionError())  # type: ignore[method-assign]
        (joined,) = self.join(1)
        joined.cancel()
        self.failureResultOf(joined, CancelledError)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_leavingMeanwhile(self) -> None:
        """A login that cancels another one, or causes a new request, when the answer comes affects no other."""
        joined = self.join(4)
        again: list[Deferred[Route | Denial]] = []

        def disturb(answer: Route | Denial) -> Route | Denial:
            joined[1].cancel()
            joined[3].cancel()
            again.append(self.cache.authenticate(REQUEST))
            return answer

        joined[0].addCallback(disturb)
        self.judge.pending[0].callback(Judgement(ROUTE))
        for each in (joined[0], joined[2], *again):
            self.assertEqual(self.successResultOf(each), ROUTE)
        for each in (joined[1], joined[3]):
            self.failureResultOf(each, CancelledError)
        self.assertEqual((len(self.judge.asked), self.judge.cancelled), (1, 0))


class SizeTests(CacheTestCase):
    """How much is stored."""

    size = 32 * 1024
    costOfAcceptance = COST + len("10.0.0.1") + len(b"joe")
    acceptances = (size - size // SHARE_OF_REFUSALS) // costOfAcceptance
    refusals = size // SHARE_OF_REFUSALS // (COST + len(b"no"))

    def users(self, n: int) -> list[LoginRequest]:
        """Return C{n} logins."""
        return [request(b"u%d" % number) for number in range(n)]

    def stored(self, requests: list[LoginRequest]) -> list[LoginRequest]:
        """Return which of C{requests} have stored answers, without requests and without changing the order of use."""
        self.judge.answer, before = None, self.judge.answer
        found = []
        for each in requests:
            answer = self.cache.authenticate(each)
            if answer.called:
                found.append(each)
            else:
                answer.addErrback(lambda failure: None).cancel()
        self.judge.answer = before
        return found

    def test_bounded(self) -> None:
        """The memory is limited; the oldest answers are removed."""
        for answer, room in ((ROUTE, self.acceptances), (Denial(Trouble.DENIED, b"no"), self.refusals)):
            self.cache = self.make()
            self.judge.answer = answer
            users = self.users(room + 5)
            for each in users[:room]:
                self.ask(each)
            self.assertEqual(self.stored(users), users[:room])
            for each in users[room:]:
                self.ask(each)
            self.assertEqual(self.stored(users), users[5:])

    def test_leastRecentlyUsed(self) -> None:
        """The answers that were used least recently are removed."""
        users = self.users(self.acceptances + 1)
        for each in users[:-1]:
            self.ask(each)
        self.assertFalse(self.isAsked(users[0]))
        self.ask(users[-1])
        self.assertEqual(self.stored(users[:3]), [users[0], users[2]])

    def test_guessing(self) -> None:
        """Refusals, however many, displace no acceptance."""
        users = self.users(self.acceptances)
        for each in users:
            self.ask(each)
        self.judge.answer = REFUSAL
        for number in range(10 * self.refusals):
            self.ask(request(b"joe", b"guess %d" % number))
        self.assertEqual(self.stored(users), users)

    def test_stale(self) -> None:
        """Stale answers free their memory."""
        users = self.users(self.acceptances)
        for _ in range(3):
            for each in users:
                self.assertTrue(self.isAsked(each))
            self.assertEqual(self.stored(users), users)
            self.clock.advance(600)

    def test_closed(self) -> None:
        """After C{close} all memory is free."""
        users = self.users(self.acceptances)
        for _ in range(2):
            for each in users:
                self.ask(each)
            self.assertEqual(self.stored(users), users)
            self.cache.close()

    def test_texts(self) -> None:
        """Long texts count: users, hosts and passwords, and the texts and codes of refusals."""
        long = 2048
        for answer in (
            Route(BACKENDS, b"j" * long, b"sesame"),
            Route(BACKENDS, b"joe", b"m" * long),
            Route((Backend("h" * long, 143),), b"joe", b"sesame"),
            Denial(Trouble.DENIED, b"n" * long),
            Denial(Trouble.DENIED, b"no", b"5" * long),
        ):
            self.cache = self.make()
            self.judge.answer = answer
            users = self.users(self.acceptances)
            for each in users:
                self.ask(each)
            room = self.size * (1 if isinstance(answer, Denial) else SHARE_OF_REFUSALS - 1) // SHARE_OF_REFUSALS
            self.assertGreaterEqual(len(self.stored(users)), 2)
            self.assertLessEqual(len(self.stored(users)), room // (COST + long))

    def test_tooBig(self) -> None:
        """An answer that exceeds the limit is delivered, not stored, and displaces nothing."""
        self.ask()
        self.judge.answer = big = Route(BACKENDS, b"j" * self.size, b"sesame")
        self.assertEqual(self.ask(request(b"ann")), big)
        self.assertTrue(self.isAsked(request(b"ann")))
        self.assertEqual(self.stored([REQUEST]), [REQUEST])

    def test_directive(self) -> None:
        """A size is written as in nginx, and has a minimum."""
        self.assertEqual([cacheSize(value, "/") for value in ("32k", "10m", "65536")], [32768, 10485760, 65536])
        for value in ("31k", "0", "1", "-1", "1g", ""):
            self.assertRaises(ValueError, cacheSize, value, "/")
        self.assertIn("32k or more", str(self.assertRaises(ValueError, cacheSize, "4k", "/")))
