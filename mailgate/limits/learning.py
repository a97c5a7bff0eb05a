# -*- test-case-name: mailgate.test.limits.test_defence -*-
"""
What the rules learn from how logins end.
"""

from __future__ import annotations

from collections.abc import Callable

from mailgate.limits.attempt import Attempt, Kind, Rule
from mailgate.limits.ledger import Ledger
from mailgate.limits.policy import Mode
from mailgate.limits.rules import Rules, isDryRun, isShared
from mailgate.limits.undecided import Login
from mailgate.limits.windows import UNIT

__all__ = ["Happened", "Learning", "nameOf"]

Happened = Callable[[Rule, str, str], object]
"""Called with the rule, what it acts on, and words."""

SETTLED = 300.0
"""Seconds after a success in which a further one of the pair changes nothing."""


class Learning:
    """
    Counts successes and failures.

    @param ledger: what is remembered.
    @param rules: the rules.
    @ivar happened: called when a rule blocks or begins to slow down.
    @ivar whenGood: called with the key of an address and its new row.
    @ivar whenSlow: called with the key of a user that R6 begins to slow down, and the row.
    @ivar whenSucceeded: called with a login that was accepted.
    @ivar whenFailed: called with a login that was refused, what the failure weighs for the pair, what for its address
        and network, and whether it counts for the user. All are 0 for a repeat.
    @ivar whenBlocked: called with a login, the key that a rule has blocked for it, the rule, seconds, and words.
    """

    def __init__(self, ledger: Ledger, rules: Rules) -> None:
        self._ledger = ledger
        self._rules = rules
        self.happened: Happened = lambda rule, thing, words: None
        self.whenGood: Callable[[int, bytes], object] = lambda address, row: None
        self.whenSlow: Callable[[int, bytes], object] = lambda user, row: None
        self.whenSucceeded: Callable[[Login], object] = lambda login: None
        self.whenFailed: Callable[[Login, int, int, bool], object] = lambda login, weight, addressWeight, isUser: None
        self.whenBlocked: Callable[[Login, int, Rule, float, str], object] = lambda login, key, rule, seconds, thing: (
            None
        )

    def succeeded(self, login: Login, now: float) -> None:
        """
        A login was accepted.

        @param login: the login.
        @param now: the time in seconds.
        """
        ledger, pair, place = self._ledger, login.pair, login.place
        ledger.pairs.forgive(pair, now)
        ledger.slowed.pop(pair, None)
        ledger.known.add(login.user ^ place.network, now)
        if place.hasAddress:
            row = ledger.goods.add(place.address, login.user, now)
            if row is not None:
                self.whenGood(place.address, row)
        ledger.settle(pair, now + SETTLED)
        self.whenSucceeded(login)

    def failed(self, login: Login, isUnknownUser: bool, now: float) -> None:
        """
        A login was refused for its credentials.

        @param login: the login.
        @param isUnknownUser: whether the service has said that there is no such user.
        @param now: the time in seconds.
        """
        attempt, ledger, place = login.attempt, self._ledger, login.place
        shared = isShared(attempt, place.hasAddress)
        if not login.isKnown and self._isBlocked(login, shared, now):
            return
        isDigest = attempt.kind is Kind.DIGEST
        weight = ledger.pairs.add(login.pair, login.user, attempt.tag, isDigest, now)
        if not weight:
            self.whenFailed(login, 0, 0, False)
            return
        ledger.settled.pop(login.pair, None)
        self._pairFailed(login, now)
        # The pair and the user weigh the same whether the user exists or not: the delay must not tell.
        addressWeight = 0 if shared else 2 * weight if isUnknownUser else weight
        if addressWeight:
            ledger.sources.add(place, login.user, addressWeight, now)
            self._addressFailed(login, now)
        isUser = False
        if not login.isKnown and attempt.kind is not Kind.TOKEN:
            before = ledger.users.count(login.user, now)
            isUser = ledger.users.add(login.user, attempt.tag, weight, now)
            if isUser:
                self._userFailed(login, before, now)
        self.whenFailed(login, weight, addressWeight, isUser)

    def _isBlocked(self, login: Login, shared: bool, now: float) -> bool:
        """Whether a block holds. What a dry run lets pass counts for the other rules."""
        policy, blocks = self._ledger.policy, self._ledger.blocks
        return bool(
            (not policy.pairDryRun and blocks.until(login.pair, now))
            or (not policy.userDryRun and blocks.until(login.user, now))
            or (not shared and not policy.addressDryRun and blocks.until(login.place.address, now))
        )

    def _pairFailed(self, login: Login, now: float) -> None:
        policy = self._ledger.policy
        failures = self._ledger.pairs.count(login.pair, now) // UNIT
        if not 0 < policy.pairBlock <= failures or login.isKnown:
            return
        thing = f"{nameOf(login.attempt)} {self._ledger.keys.shown(login.attempt.host)}"
        times = policy.pairTime, policy.pairMost
        self._block(login, login.pair, login.user, Rule.PAIR_BLOCK, times, thing, f"{failures} failed logins", now)

    def _addressFailed(self, login: Login, now: float) -> None:
        policy, sources, address = self._ledger.policy, self._ledger.sources, login.place.address
        allowance = self._ledger.goods.allowance(address, now)
        failures = sources.ofAddress(address, now) // UNIT
        users = sources.usersOf(address, now) if allowance == 1 else 0
        if 0 < policy.addressBlock * allowance <= failures:
            words = f"{failures} failed logins"
        elif 0 < policy.addressUsers <= users:
            words = f"failed logins of {users} users, and no login has succeeded"
        else:
            return
        thing = self._ledger.keys.shown(login.attempt.host)
        times = policy.addressTime, policy.addressMost
        self._block(login, address, login.place.network, Rule.ADDRESS_BLOCK, times, thing, words, now)

    def _userFailed(self, login: Login, before: int, now: float) -> None:
        policy = self._ledger.policy
        count = self._ledger.users.count(login.user, now)
        self.counted(login.attempt, login.user, before, now)
        if 0 < policy.userRefuse * UNIT <= count and not now < self._rules.quietUntil:
            times, words = (policy.userTime, policy.userTime), _failuresOf(count)
            self._block(login, login.user, login.user, Rule.USER_REFUSE, times, nameOf(login.attempt), words, now)

    def counted(self, attempt: Attempt, user: int, before: int, now: float) -> None:
        """
        There are more failures of a user from unknown networks: tell if R6 acts from now on.

        @param attempt: a login of the user.
        @param user: the key.
        @param before: what the failures weighed before.
        @param now: the time in seconds.
        """
        policy = self._ledger.policy
        count = self._ledger.users.count(user, now)
        if before < policy.userSlow * UNIT <= count:
            isDry = now < self._rules.quietUntil or attempt.mode is Mode.DRY_RUN or policy.userDryRun
            words = f"{'dry run: ' if isDry else ''}{_failuresOf(count)}; logins from such networks are slowed down"
            self.whenSlow(user, self._ledger.users.table.rows[user])
            self.happened(Rule.USER_SLOW, nameOf(attempt), words)

    def _block(
        self,
        login: Login,
        key: int,
        other: int,
        rule: Rule,
        times: tuple[float, float],
        thing: str,
        words: str,
        now: float,
    ) -> None:
        seconds = self._ledger.blocks.add(key, other, rule, times, thing, now)
        if seconds:
            isDry = login.attempt.mode is Mode.DRY_RUN or isDryRun(rule, self._ledger.policy)
            self.whenBlocked(login, key, rule, seconds, thing)
            self.happened(rule, thing, f"{'dry run: ' if isDry else ''}{words}; blocked for {seconds / 60:.3g} minutes")


def _failuresOf(count: int) -> str:
    return f"{count // UNIT} failed logins from unknown networks"


def nameOf(attempt: Attempt) -> str:
    """Return the name of a user for logs. C{attempt} is a login of that user."""
    name = attempt.user.decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else "?" for each in name)[:100]
