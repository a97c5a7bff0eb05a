# -*- test-case-name: mailgate.test.limits.test_shared -*-
"""
Tells the store how logins end: failures, successes that are news, and what rules block. What a store that is away does
not hear is not told later.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger
from twisted.python.failure import Failure as Reason

from mailgate.limits.attempt import Kind, Rule
from mailgate.limits.blocks import DAY
from mailgate.limits.defence import Defence
from mailgate.limits.digests import Digests
from mailgate.limits.merging import Merging
from mailgate.limits.names import Names
from mailgate.limits.ordering import Ordering
from mailgate.limits.undecided import Login
from mailgate.store.interfaces import Failure, IStore, Mark, StoreUnavailable, Success

__all__ = ["Reports"]

_log = Logger("mailgate")


class Reports:
    """
    Hears from a defence what it learns.

    @param defence: the tables here.
    @param merging: what takes over answers of the store.
    @param ordering: tells other gateways of blocks.
    @param store: the store.
    @param names: seals what is blocked, in words.
    @param digests: returns the digests of now.
    @ivar isActive: whether the store is told.
    """

    def __init__(
        self,
        defence: Defence,
        merging: Merging,
        ordering: Ordering,
        store: IStore,
        names: Names,
        digests: Callable[[], Digests],
    ) -> None:
        self._defence = defence
        self._merging = merging
        self._ordering = ordering
        self._store = store
        self._names = names
        self._digests = digests
        self.isActive = True
        learning = defence.learning
        learning.whenFailed = self.failed
        learning.whenSucceeded = self.succeeded
        learning.whenBlocked = self.blocked

    def failed(self, login: Login, weight: int, addressWeight: int, isOfUser: bool) -> None:
        """
        A login was refused.

        @param login: the login.
        @param weight: what the failure weighs for the pair; 0 for a repeat.
        @param addressWeight: what it weighs for address and network.
        @param isOfUser: whether it counts for the user.
        """
        self._merging.changed(login.pair)
        if not self.isActive or not self._store.isUp:
            self._merging.distrust(self._defence.now)
            return
        attempt, policy, digests = login.attempt, self._defence.ledger.policy, self._digests()
        user, spot = digests.user(attempt.user), digests.spot(attempt.host)
        failure = Failure(
            user,
            spot.address if addressWeight else b"",
            spot.network,
            digests.pair(user, spot),
            b"" if attempt.kind is Kind.DIGEST else attempt.tag[:2],
            weight,
            addressWeight,
            isOfUser,
            policy.pairWindow,
            policy.userWindow,
            self._defence.ledger.pairs.most,
            policy.addressUsers + 1,
        )
        self._store.failed(failure).addErrback(self._lost)

    def succeeded(self, login: Login) -> None:
        """A C{login} was accepted, and this is news."""
        self._merging.changed(login.pair)
        if not self.isActive or not self._store.isUp:
            self._unsettle(login.pair)
            return
        attempt, policy, digests = login.attempt, self._defence.ledger.policy, self._digests()
        user, spot = digests.user(attempt.user), digests.spot(attempt.host)
        address = spot.address if spot.hasAddress else b""
        pair = digests.pair(user, spot)
        success = Success(user, address, spot.network, pair, policy.knownFor, policy.goodFor)
        self._store.succeeded(success).addErrback(self._notForgiven, login.pair)

    def _notForgiven(self, reason: Reason, pair: int) -> None:
        self._unsettle(pair)
        self._lost(reason)

    def _unsettle(self, pair: int) -> None:
        """The store has not heard of a success: it shall hear of the next one."""
        self._defence.ledger.settled.pop(pair, None)
        self._merging.distrust(self._defence.now)

    def _lost(self, reason: Reason) -> None:
        self._merging.distrust(self._defence.now)
        if reason.check(StoreUnavailable) is None:
            _log.failure("the store cannot count a login", reason)

    def blocked(self, login: Login, key: int, rule: Rule, seconds: float, thing: str) -> None:
        """
        A rule has blocked something.

        @param login: the login with which it did.
        @param key: the key of what is blocked.
        @param rule: the rule.
        @param seconds: for how long.
        @param thing: what is blocked, in words.
        """
        self._merging.begun(key)
        if not self.isActive or not self._store.isUp:
            return
        blocks = self._defence.ledger.blocks
        count = blocks.levelOf(key)
        digest, parts = self._digests().blocked(rule, login.attempt.user, login.attempt.host)
        mark = Mark(digest, rule.value, seconds, count, self._names.close(thing, digest), parts)
        # Each quiet day halves how often it was blocked.
        self._store.mark(mark, DAY * count.bit_length()).addErrback(self._lost)
        self._ordering.marked(key, blocks.other(key), rule, (seconds, count), thing)
