# -*- test-case-name: mailgate.test.limits.test_beside -*-
"""
Lets users who have logged in at the same address just now log in again without a wait for the store. It is asked beside
the login, about many at once, and its answer holds for the next login. A login waits for the store where anything is
known here that it might add to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import TypeAlias

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailgate.limits.attempt import Attempt
from mailgate.limits.defence import Defence
from mailgate.limits.keys import Place
from mailgate.limits.merging import Merging
from mailgate.limits.table import dropOldest
from mailgate.store.interfaces import IStore, Question, Standing, StoreUnavailable

__all__ = ["FRESH", "MOST_GATHERED", "PAUSE", "Beside"]

FRESH = 60.0
"""For how many seconds an answer of the store lets a login pass."""

PAUSE = 0.01
"""Seconds for which questions wait for others."""

MOST_GATHERED = 32
"""Questions that are asked together: the store is busy with them for half a millisecond."""

_MOST_ANSWERS = 16384
"""Answers that are remembered: some 250 bytes each."""

_Gathered: TypeAlias = list[tuple[Attempt, int]]
"""Logins, and the keys of their pairs."""

_log = Logger("mailgate")


class Beside:
    """
    Remembers that the store knows nothing about a pair: neither failures nor sessions at other gateways. Each such
    answer lets one login pass, and only one does, whatever its protocol, until the store has answered beside it. So one
    who guesses at several gateways gains one guess at each of them.

    Sessions elsewhere are not remembered: those that have ended since would count.

    @param defence: the tables here.
    @param merging: takes over answers.
    @param store: the store.
    @param clock: the timers.
    @param question: returns the question about a login, which counts nothing.
    """

    def __init__(
        self,
        defence: Defence,
        merging: Merging,
        store: IStore,
        clock: IReactorTime,
        question: Callable[[Attempt], Question],
    ) -> None:
        self._defence = defence
        self._ledger = ledger = defence.ledger
        self._merging = merging
        self._store = store
        self._clock = clock
        self._question = question
        self._answers: dict[tuple[int, str], float] = {}
        self._gathered: _Gathered = []
        # When a login of a pair has passed, and whether one was accepted, until the store has answered beside it.
        self._passed: dict[int, float] = {}
        self._accepted: set[int] = set()
        self._timer: IDelayedCall | None = None
        # These stay: see Defence.
        self._pairs = ledger.pairs.table.rows
        self._users = ledger.users.table.rows
        self._addresses = ledger.sources.addresses.rows
        self._networks = ledger.sources.networks.rows
        self._blocks = ledger.blocks.table.rows

    # Logins.

    def passes(self, attempt: Attempt, now: float) -> bool:
        """
        Return whether a login need not wait for the store. Then the store is asked about it soon.

        @param attempt: the login, which has no ticket yet.
        @param now: the time in seconds.
        """
        ledger = self._ledger
        user, place = ledger.keys.of(attempt.user, attempt.host)
        pair = user ^ place.address
        if ledger.settled.get(pair, 0.0) <= now:
            return False
        answered = self._answers.pop((pair, attempt.protocol), None)
        if answered is None or now - answered > FRESH or self._isSuspect(user, place, now):
            return False
        if answered <= self._passed.get(pair, -inf):
            # Nor does one by another protocol pass meanwhile.
            return False
        self._gathered.append((attempt, pair))
        self._passed[pair] = now
        if len(self._gathered) >= MOST_GATHERED:
            self._ask()
        elif self._timer is None:
            self._timer = self._clock.callLater(PAUSE, self._due)
        return True

    def _isSuspect(self, user: int, place: Place, now: float) -> bool:
        """Whether a failure or a block is known here of a user, an address, a network, or of user and address."""
        ledger, address, network = self._ledger, place.address, place.network
        return bool(
            user ^ address in self._pairs
            or (user in self._users and ledger.users.count(user, now))
            or (address in self._addresses and ledger.sources.ofAddress(address, now))
            or (network in self._networks and ledger.sources.ofNetwork(network, now))
            or (self._blocks and any(ledger.blocks.until(key, now) for key in (user ^ address, address, user)))
        )

    def accepted(self, ticket: int) -> None:
        """A login was accepted. C{ticket} is that of its verdict."""
        if self._passed:
            login = self._ledger.undecided.logins.get(ticket)
            if login is not None and login.pair in self._passed:
                self._accepted.add(login.pair)

    # Answers.

    def take(self, attempt: Attempt, standing: Standing, changes: int, now: float) -> tuple[int, Place]:
        """
        Take over what the store knows about a login.

        @param attempt: the login.
        @param standing: what it knows.
        @param changes: how often the tables had changed when it was asked.
        @param now: the time in seconds.
        @return: the keys of its user and of its place.
        """
        user, place = self._ledger.keys.of(attempt.user, attempt.host)
        self._merging.merge(attempt, (user, place), standing, changes, now)
        pair = user ^ place.address
        if standing.guesses or standing.sessions:
            self._answers.pop((pair, attempt.protocol), None)
        else:
            self._remember(attempt, pair, now)
        return user, place

    def _remember(self, attempt: Attempt, pair: int, now: float) -> None:
        answers = self._answers
        if len(answers) >= _MOST_ANSWERS:
            dropOldest(answers)
        answers[pair, attempt.protocol] = now

    def forget(self) -> None:
        """The store may know something else now: no answer of before lets a login pass, and no question is asked."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        for each in (self._gathered, self._answers, self._passed, self._accepted):
            each.clear()

    def _due(self) -> None:
        self._timer = None
        self._ask()

    def _ask(self) -> None:
        gathered, self._gathered = self._gathered, []
        if not gathered:
            return
        if not self._store.isUp:
            self.forget()
            return
        asked = self._store.checkKnown([self._question(attempt) for attempt, _ in gathered])
        asked.addCallback(self._answered, gathered, self._merging.changes).addErrback(self._failed, gathered)

    def _answered(self, standings: Sequence[Standing | None], gathered: _Gathered, changes: int) -> None:
        now = self._defence.now
        for (attempt, pair), standing in zip(gathered, standings, strict=True):
            if standing is None:
                self._remember(attempt, pair, now)
            else:
                self.take(attempt, standing, changes, now)
            isAccepted = self._end(pair)
            if isAccepted and pair in self._pairs:
                # A success forgives failures at other gateways, also those that are heard of after it.
                self._defence.learning.succeeded(self._defence.loginOf(attempt, now, ""), now)

    def _failed(self, reason: Failure, gathered: _Gathered) -> None:
        for _, pair in gathered:
            self._end(pair)
        if reason.check(StoreUnavailable) is None:
            _log.failure("cannot use what the store knows about logins", reason)

    def _end(self, pair: int) -> bool:
        """The question beside a login has ended. Return whether the login was accepted. C{pair} is its key."""
        self._passed.pop(pair, None)
        isAccepted = pair in self._accepted
        self._accepted.discard(pair)
        return isAccepted
