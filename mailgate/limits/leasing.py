# -*- test-case-name: mailgate.test.limits.test_shared -*-
"""
What only one gateway may let pass at a time: logins that R6 slows down, and those of a known pair under R2. The gateway
that has the lease of the store lets the next one pass.
"""

from __future__ import annotations

from typing import NamedTuple

from mailgate.limits.defence import Defence
from mailgate.limits.policy import Mode
from mailgate.limits.undecided import Login
from mailgate.limits.windows import UNIT

__all__ = ["Lease", "Leases"]

_MOST = 10000
"""How many leases are remembered."""

_LATER = 5.0
"""Seconds after which a login of a known pair tries again, if another gateway has the lease."""


class Lease(NamedTuple):
    """
    What a login needs.

    @ivar key: the key of the user or of the pair.
    @ivar seconds: for how long.
    @ivar isOfUser: whether it is the user's turn under R6.
    """

    key: int
    seconds: float
    isOfUser: bool


class Leases:
    """
    The leases of one gateway.

    @param defence: the tables here.
    """

    def __init__(self, defence: Defence) -> None:
        self._defence = defence
        self._until: dict[int, float] = {}

    def has(self, key: int, now: float) -> bool:
        """
        Return whether this gateway has a lease.

        @param key: that of the user or of the pair.
        @param now: the time in seconds.
        """
        return self._until.get(key, 0.0) > now

    def needed(self, login: Login, now: float) -> Lease | None:
        """
        Return the lease that a login needs to pass now, if it would pass without other gateways.

        @param login: the login.
        @param now: the time in seconds.
        """
        lease = self._ofUser(login, now) or self._ofPair(login, now)
        if lease is None or self.has(lease.key, now):
            return None
        defence, attempt = self._defence, login.attempt
        # A login that does not pass takes no lease.
        if defence.ledger.operators.find(attempt.user, attempt.host, now) is not None:
            return None
        return lease if all(finding.isDry for finding in defence.rules.findings(login, now)) else None

    def _ofUser(self, login: Login, now: float) -> Lease | None:
        ledger = self._defence.ledger
        slow = self._defence.rules.userFinding(login, now)
        if slow is None or slow.isDry or ledger.users.look(login.user, now) > 0:
            return None
        return Lease(login.user, ledger.policy.userInterval, True)

    def _ofPair(self, login: Login, now: float) -> Lease | None:
        ledger = self._defence.ledger
        policy = ledger.policy
        if not login.isKnown or policy.pairDryRun or login.attempt.mode is not Mode.ON:
            return None
        if not 0 < policy.pairBlock * UNIT <= ledger.pairs.count(login.pair, now):
            return None
        return Lease(login.pair, policy.knownSlow, False) if ledger.slowed.get(login.pair, 0.0) <= now else None

    def taken(self, lease: Lease, now: float) -> None:
        """
        This gateway has got a lease.

        @param lease: the lease.
        @param now: the time in seconds.
        """
        self._until.pop(lease.key, None)
        if len(self._until) >= _MOST:
            del self._until[next(iter(self._until))]
        self._until[lease.key] = now + lease.seconds

    def missed(self, lease: Lease, now: float) -> None:
        """
        Another gateway has a lease.

        @param lease: the lease.
        @param now: the time in seconds.
        """
        ledger = self._defence.ledger
        if lease.isOfUser:
            # The store has said just now that it is free: it has been taken since.
            ledger.users.postpone(lease.key, now + lease.seconds)
        else:
            ledger.slow(lease.key, now + min(_LATER, lease.seconds))
