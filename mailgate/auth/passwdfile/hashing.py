# -*- test-case-name: mailgate.test.auth.passwdfile.test_hashing -*-
"""
Limits what C{auth_file} spends on slow password hashes: few at a time, fairly shared among clients, and none for a
password that matched a short time ago.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, TypeVar

from attrs import field, frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from mailgate.auth.fairqueue import FairQueue
from mailgate.log.journal import Journal
from mailgate.log.seldom import Seldom
from mailgate.net.endpoints import MOST_LOOKUPS

__all__ = ["MOST_REMEMBERED", "PATIENCE", "Hashing", "Proof", "RightPasswords"]

PATIENCE = 30.0
"""Seconds that a login may take to get its turn and have its hash computed."""

T = TypeVar("T")

SPARE = 2
"""Threads of the reactor beyond those for hashes and name look-ups."""

MOST_REMEMBERED = 16384
"""Users per server whose last matching password is remembered. Each takes 300 bytes."""


class Hashing:
    """
    Computes hashes in threads of the reactor. Logins wait for a free place in a L{FairQueue}.

    @param places: how many hashes are computed at a time.
    @param reactor: the reactor, whose threads are used.
    """

    def __init__(self, places: int, reactor: Any) -> None:
        self._places = places
        self._reactor = reactor
        self._queue = FairQueue(places, reactor)
        self._unserved = 0
        self._saysUnserved = Seldom()

    def run(self, client: str, check: Callable[[], T]) -> Deferred[T]:
        """
        Call a function in a thread.

        If the caller cancels while the call waits, its place is given up. A call that has started continues, and keeps
        its place until it ends.

        @param client: names the client for the queue.
        @param check: the function.
        @return: a Deferred of its result. It fails with L{mailgate.auth.fairqueue.Overloaded} if too many calls wait,
            and with C{twisted.internet.defer.TimeoutError} after L{PATIENCE}.
        """
        turn = self._queue.take(client, PATIENCE)
        answer = self._start(client, check) if turn is None else turn.addCallback(lambda _: self._start(client, check))
        return answer.addTimeout(PATIENCE, self._reactor)

    def unserved(self, journal: Journal) -> None:
        """
        Count a login for which L{run} has failed. The number is logged once in a minute.

        @param journal: the log.
        """
        self._unserved += 1
        if self._saysUnserved.isDue(self._reactor.seconds()):
            journal.warn(
                "auth_file: too many logins wait for a password hash; logins with a temporary failure: {count}",
                count=self._unserved,
            )
            self._unserved = 0

    def _start(self, client: str, check: Callable[[], T]) -> Deferred[T]:
        def finished(result: T | Failure) -> T | Failure:
            self._queue.leave(client)
            return result

        # A thread cannot be stopped. If the caller got its Deferred, a cancellation would free the place too early.
        answer: Deferred[T] = Deferred()
        try:
            work = deferToThreadPool(self._reactor, self._pool(), check)
        except Exception:
            # The system has no more threads (RuntimeError). The next hash may get one.
            self._queue.leave(client)
            return fail()
        work.addBoth(finished).chainDeferred(answer)
        return answer

    def _pool(self) -> Any:
        """The thread pool of the reactor, enlarged if necessary. It has ten threads by default."""
        pool = self._reactor.getThreadPool()
        needed = self._places + MOST_LOOKUPS + SPARE
        if pool.max < needed:
            self._reactor.suggestThreadPoolSize(needed)
        return pool


@frozen
class Proof:
    """
    MACs for a login.

    @ivar user: of the user name.
    @ivar whole: of the user name, the hash in the file and the password.
    """

    user: bytes = field(repr=False)
    whole: bytes = field(repr=False)


class RightPasswords:
    """
    Remembers the last matching password of each user for C{ttl} seconds. Another login with it needs no slow hash and
    no turn in the queue. All other conditions of a login are checked elsewhere.

    Neither passwords nor user names are stored, only MACs with a random key that exists nowhere else. The MAC covers
    the hash in the file: after a change of the hash, the old password no longer matches. Further logins do not extend
    the time, so no entry is older than C{ttl}.

    @param ttl: the time in seconds.
    @param clock: the reactor, or a clock.
    @param randomness: C{randomness(n)} returns C{n} unpredictable bytes.
    """

    def __init__(self, ttl: float, clock: IReactorTime, randomness: Callable[[int], bytes]) -> None:
        self._ttl = ttl
        self._clock = clock
        # A keyed BLAKE2b is a MAC (RFC 7693). Copies of its state include the key.
        self._mac = blake2b(key=randomness(32), digest_size=32)
        # An OrderedDict finds its first entry fast, also after many deletions at its front; a dict does not.
        self._right: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._right)

    def proof(self, user: bytes, stored: bytes, secret: bytes) -> Proof:
        """
        Compute the argument of L{holds} and L{add} for a login.

        @param user: the user name.
        @param stored: the hash in the file.
        @param secret: the password that the client sent.
        """
        mac = self._mac.copy()
        mac.update(len(user).to_bytes(8, "big") + user)
        name = mac.digest()
        mac.update(len(stored).to_bytes(8, "big") + stored + secret)
        return Proof(name, mac.digest())

    def holds(self, proof: Proof) -> bool:
        """
        Look a password up.

        @param proof: the login.
        @return: whether its password matched the hash less than C{ttl} seconds ago.
        """
        whole, since = self._right.get(proof.user, (b"", 0.0))
        # If the clock is set back, the entry must not live longer.
        isFresh = since <= self._clock.seconds() < since + self._ttl
        return hmac.compare_digest(whole, proof.whole) and isFresh

    def add(self, proof: Proof) -> None:
        """
        Remember a password that has just matched the hash. Expired entries are removed, and the oldest ones if there
        are too many.

        @param proof: the login.
        """
        now = self._clock.seconds()
        self._right[proof.user] = (proof.whole, now)
        self._right.move_to_end(proof.user)
        while len(self._right) > MOST_REMEMBERED or now - next(iter(self._right.values()))[1] >= self._ttl:
            self._right.popitem(last=False)

    def clear(self) -> None:
        """Forget all passwords."""
        self._right.clear()
