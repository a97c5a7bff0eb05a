"""
Tests of L{mailgate.auth.passwdfile.hashing}.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.fairqueue import MOST_OF_ONE, Overloaded
from mailgate.auth.passwdfile import hashing
from mailgate.auth.passwdfile.hashing import PATIENCE, Hashing, RightPasswords
from mailgate.test.support.passwdfiles import ThreadedClock

PLACES = 3


class HashingTests(SynchronousTestCase):
    """L{Hashing}: places, and a queue."""

    def setUp(self) -> None:
        """Make threads that run on request."""
        self.reactor = ThreadedClock()
        self.hashing = Hashing(PLACES, self.reactor)

    def hash(self, check: Callable[[], bool], client: str = "192.0.2.1") -> Deferred[bool]:
        """Run C{check} for C{client}."""
        return self.hashing.run(client, check)

    def test_nextInTurn(self) -> None:
        """When one hash ends, the one that has waited longest starts."""
        order: list[int] = []

        def record(number: int) -> bool:
            order.append(number)
            return True

        for number in range(PLACES + 2):
            self.hash(partial(record, number))
        self.assertEqual(len(self.reactor.held), PLACES)
        self.assertEqual(self.reactor.work(), PLACES + 2)
        self.assertEqual(order, list(range(PLACES + 2)))

    def test_cancelWaiting(self) -> None:
        """A cancelled hash that waits makes room for another, and is never computed."""
        answers = [self.hash(lambda: True) for _ in range(PLACES + MOST_OF_ONE)]
        self.failureResultOf(self.hash(lambda: True), Overloaded)
        answers[-1].cancel()
        self.failureResultOf(answers[-1], CancelledError)
        self.assertNoResult(self.hash(lambda: True))
        self.assertEqual(self.reactor.work(), PLACES + MOST_OF_ONE)

    def test_cancelStarted(self) -> None:
        """A thread whose login was cancelled keeps its place until it ends."""
        started = [self.hash(lambda: True) for _ in range(PLACES)]
        waiting = self.hash(lambda: True)
        for answer in started:
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
        self.assertEqual(len(self.reactor.held), PLACES)
        self.reactor.work()
        self.assertTrue(self.successResultOf(waiting))

    def test_placesComeBack(self) -> None:
        """Success, failure, cancellation and time-out all free the place."""
        for check in (lambda: True, lambda: 1 // 0 == 0):
            for _ in range(PLACES * 2):
                answer = self.hash(check)
                self.reactor.work()
                answer.addErrback(lambda failure: failure.trap(ZeroDivisionError))
        for _ in range(PLACES):
            answer = self.hash(lambda: True)
            self.reactor.advance(PATIENCE)
            self.failureResultOf(answer, TimeoutError)
        self.reactor.work()
        answer = self.hash(lambda: True)
        self.reactor.work()
        self.assertTrue(self.successResultOf(answer))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_patienceIsForAll(self) -> None:
        """The limit covers both the wait and the computation."""
        first = [self.hash(lambda: True) for _ in range(PLACES)]
        waiting = self.hash(lambda: True, "192.0.2.2")
        self.reactor.advance(PATIENCE - 1)
        self.reactor.workOnce()
        self.assertTrue(self.successResultOf(first[0]))
        self.assertEqual(len(self.reactor.held), PLACES, "the one that has waited runs")
        self.reactor.advance(0.9)
        self.assertNoResult(waiting)
        self.reactor.advance(0.1)
        self.failureResultOf(waiting, TimeoutError)
        for answer in first[1:]:
            self.failureResultOf(answer, TimeoutError)
        self.reactor.work()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_noThread(self) -> None:
        """If the system has no more threads, the hashes whose turn it is fail, and free their places."""

        def refuse(*_: object) -> None:
            raise RuntimeError("can't start new thread")

        for number in range(PLACES):
            self.hash(lambda: True, f"192.0.2.{number}")
        waiting = [self.hash(lambda: True) for _ in range(3)]
        start = self.reactor.callInThreadWithCallback
        self.patch(self.reactor, "callInThreadWithCallback", refuse)
        self.reactor.workOnce()
        for answer in waiting:
            self.failureResultOf(answer, RuntimeError)
        for _ in range(PLACES):
            self.failureResultOf(self.hash(lambda: True), RuntimeError)
        self.patch(self.reactor, "callInThreadWithCallback", start)
        self.reactor.work()
        answers = [self.hash(lambda: True) for _ in range(PLACES)]
        self.assertEqual(len(self.reactor.held), PLACES)
        self.reactor.work()
        self.assertEqual([self.successResultOf(answer) for answer in answers], [True] * PLACES)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_defect(self) -> None:
        """An exception of a library is a failure, not a refusal."""
        answer = self.hash(lambda: 1 // 0 == 0)
        self.reactor.work()
        self.failureResultOf(answer, ZeroDivisionError)


class RightPasswordsTests(SynchronousTestCase):
    """L{RightPasswords}: recent right passwords."""

    def setUp(self) -> None:
        """Make a clock."""
        self.clock = Clock()
        self.right = RightPasswords(300.0, self.clock, lambda size: b"k" * size)

    def holds(self, user: bytes, stored: bytes, secret: bytes) -> bool:
        """Return whether the login is remembered."""
        return self.right.holds(self.right.proof(user, stored, secret))

    def add(self, user: bytes, stored: bytes, secret: bytes) -> None:
        """Remember the login."""
        self.right.add(self.right.proof(user, stored, secret))

    def test_exact(self) -> None:
        """Only the same user, hash and password match; the boundaries between them count."""
        self.add(b"joe", b"$6$hash", b"secret")
        self.assertTrue(self.holds(b"joe", b"$6$hash", b"secret"))
        for other in (
            (b"jo", b"e$6$hash", b"secret"),
            (b"joe$", b"6$hash", b"secret"),
            (b"joe", b"$6$hashs", b"ecret"),
            (b"joe", b"$6$has", b"hsecret"),
            (b"joe", b"$6$hash", b"secret "),
            (b"joe", b"$6$hash", b""),
            (b"joe", b"", b""),
            (b"", b"", b""),
        ):
            self.assertFalse(self.holds(*other), other)

    def test_time(self) -> None:
        """A password matches until its time is over, and not if the clock was set back."""
        self.clock.advance(1000)
        self.add(b"joe", b"$", b"x")
        for seconds, expected in ((0.0, True), (299.9, True), (0.1, False), (-301.0, False), (1.0, True)):
            self.clock.rightNow += seconds
            self.assertEqual(self.holds(b"joe", b"$", b"x"), expected, seconds)

    def test_oneOfAUser(self) -> None:
        """Of two right passwords of a user, only the last is remembered."""
        self.add(b"joe", b"old", b"x")
        self.add(b"joe", b"new", b"y")
        self.assertFalse(self.holds(b"joe", b"old", b"x"))
        self.assertTrue(self.holds(b"joe", b"new", b"y"))
        self.assertEqual(len(self.right), 1)

    def test_bounded(self) -> None:
        """The user who was added first is removed; adding a user again counts."""
        self.patch(hashing, "MOST_REMEMBERED", 3)
        for user in (b"a", b"b", b"c", b"a", b"d"):
            self.add(user, b"$", b"x")
        self.assertEqual([self.holds(user, b"$", b"x") for user in (b"a", b"b", b"c", b"d")], [True, False, True, True])
        self.assertEqual(len(self.right), 3)

    def test_oldOnesGo(self) -> None:
        """Expired passwords are removed when another user is added."""
        for number in range(10):
            self.add(b"%d" % number, b"$", b"x")
        self.clock.advance(300)
        self.add(b"joe", b"$", b"x")
        self.assertEqual(len(self.right), 1)

    def test_key(self) -> None:
        """With another key nothing matches: the memory of one process is of no use in another."""
        other = RightPasswords(300.0, self.clock, lambda size: b"l" * size)
        other.add(self.right.proof(b"joe", b"$", b"x"))
        self.assertFalse(other.holds(other.proof(b"joe", b"$", b"x")))

    def test_nothingIsKept(self) -> None:
        """Neither the object nor its repr contains a name, a hash or a password."""
        self.add(b"joe", b"$6$hash", b"hunter2")
        for word in ("joe", "hash", "hunter2"):
            self.assertNotIn(word, repr(self.right._right))
        self.assertNotIn("b'", repr(self.right) + repr(self.right.proof(b"joe", b"$6$hash", b"hunter2")))
