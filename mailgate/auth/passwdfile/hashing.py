# -*- test-case-name: mailgate.test.auth.passwdfile.test_hashing -*-
"""
What C{auth_file} spends on slow hashes of passwords: few at once, in fair turns, and none for a password that has been
right a moment ago.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

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
"""Seconds in which a login gets its turn, and its hash is computed."""

SPARE = 2
"""Threads of the reactor's that neither hashes nor lookups of names take."""

MOST_REMEMBERED = 16384
"""Users of a server whose last right passwords are remembered, in 300 bytes each."""


class Hashing:
    """
    The threads of C{reactor}, as far as hashes may take them: C{places} at once. Those who wait get the next place by a
    L{FairQueue}.
    """

    def __init__(self, places: int, reactor: Any) -> None:
        self._places = places
        self._reactor = reactor
        self._queue = FairQueue(places, reactor)
        self._unserved = 0
        self._saysUnserved = Seldom()

    def run(self, client: str, check: Callable[[], bool]) -> Deferred[bool]:
        """
        What C{check} returns, in a thread, for C{client} as the queue knows it. It fails with
        L{mailgate.auth.fairqueue.Overloaded}, or with C{twisted.internet.defer.TimeoutError} after L{PATIENCE}.

        Cancelling gives up the place of one that waits; what has been started goes on, and keeps its place till then.
        """
        turn = self._queue.take(client, PATIENCE)
        answer = self._start(client, check) if turn is None else turn.addCallback(lambda _: self._start(client, check))
        return answer.addTimeout(PATIENCE, self._reactor)

    def unserved(self, journal: Journal) -> None:
        """Count a login that L{run} has failed; the journal is told once a minute."""
        self._unserved += 1
        if self._saysUnserved.isDue(self._reactor.seconds()):
            journal.warn(
                "auth_file: too many logins wait for a password hash; logins with a temporary failure: {count}",
                count=self._unserved,
            )
            self._unserved = 0

    def _start(self, client: str, check: Callable[[], bool]) -> Deferred[bool]:
        def finished(result: bool | Failure) -> bool | Failure:
            self._queue.leave(client)
            return result

        # A thread cannot be stopped: were its own Deferred the caller's, cancelling would free the place too early.
        answer: Deferred[bool] = Deferred()
        try:
            work = deferToThreadPool(self._reactor, self._pool(), check)
        except Exception:
            # The system has no thread left for us (RuntimeError): the next hash may get one.
            self._queue.leave(client)
            return fail()
        work.addBoth(finished).chainDeferred(answer)
        return answer

    def _pool(self) -> Any:
        """The reactor's threads, of which there are ten unless more are needed."""
        pool = self._reactor.getThreadPool()
        needed = self._places + MOST_LOOKUPS + SPARE
        if pool.max < needed:
            self._reactor.suggestThreadPoolSize(needed)
        return pool


@frozen
class Proof:
    """MACs of a C{user}, and of the user with a password and the hash that it was compared with, C{whole}."""

    user: bytes = field(repr=False)
    whole: bytes = field(repr=False)


class RightPasswords:
    """
    The last password of each user that a slow hash has found right, for C{ttl} seconds. A login by it needs no hash,
    and so no turn. Whatever else is asked of a login is not looked at here.

    Neither passwords nor names are kept, only MACs under a key that is made by C{randomness} and is nowhere else. The
    hash in the file is part of them: one that has changed forgets what was right before. The time runs from the hash
    on, and logins without one do not prolong it: so what the memory holds, the key beside it, is never older than that.
    """

    def __init__(self, ttl: float, clock: IReactorTime, randomness: Callable[[int], bytes]) -> None:
        self._ttl = ttl
        self._clock = clock
        # A keyed BLAKE2b is a MAC (RFC 7693). Its state is copied, key included.
        self._mac = blake2b(key=randomness(32), digest_size=32)
        # A dict whose front is deleted again and again is slow to find its first; this one is not.
        self._right: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._right)

    def proof(self, user: bytes, stored: bytes, secret: bytes) -> Proof:
        """What L{holds} and L{add} take for a login of C{user} by C{secret}, the hash C{stored} being in the file."""
        mac = self._mac.copy()
        mac.update(len(user).to_bytes(8, "big") + user)
        name = mac.digest()
        mac.update(len(stored).to_bytes(8, "big") + stored + secret)
        return Proof(name, mac.digest())

    def holds(self, proof: Proof) -> bool:
        """Whether the hash of this has been found right less than C{ttl} seconds ago."""
        whole, since = self._right.get(proof.user, (b"", 0.0))
        # A clock that was set back must not make it live longer.
        isFresh = since <= self._clock.seconds() < since + self._ttl
        return hmac.compare_digest(whole, proof.whole) and isFresh

    def add(self, proof: Proof) -> None:
        """Its hash has been found right now. What is too old, and otherwise the user added first, makes room."""
        now = self._clock.seconds()
        self._right[proof.user] = (proof.whole, now)
        self._right.move_to_end(proof.user)
        while len(self._right) > MOST_REMEMBERED or now - next(iter(self._right.values()))[1] >= self._ttl:
            self._right.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._right.clear()
