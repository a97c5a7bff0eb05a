# -*- test-case-name: mailgate.test.limits.test_defence -*-
"""
What the rules R1 to R7 and C{limit_req login} say about a login. Nothing here changes a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import NamedTuple

from mailgate.limits.attempt import Action, Attempt, Kind, Rule
from mailgate.limits.ledger import Ledger
from mailgate.limits.policy import LoginPolicy, Mode
from mailgate.limits.undecided import Login
from mailgate.limits.windows import UNIT

__all__ = ["Finding", "Rules", "roomOf"]

_SOON = 0.25
"""Seconds until the next look of a login that waits for others to end."""

_WAIT, _REFUSE = Action.WAIT, Action.REFUSE


class Finding(NamedTuple):
    """
    What one rule wants.

    @ivar rule: the rule.
    @ivar action: C{WAIT} or C{REFUSE}.
    @ivar seconds: with C{WAIT}: after how many to look again.
    @ivar isDry: whether the rule only says it.
    """

    rule: Rule
    action: Action
    seconds: float = 0.0
    isDry: bool = False

    @property
    def words(self) -> str:
        """What the rule would do, for the log."""
        if self.action is _REFUSE:
            return f"{self.rule.value} would refuse"
        return f"{self.rule.value} would delay by {self.seconds:.3g} s"


def roomOf(*bounds: float) -> float:
    """Return how many logins may be undecided under several bounds. One always may: otherwise none could ever end."""
    return max(1, min(bounds))


def isShared(attempt: Attempt, hasAddress: bool) -> bool:
    """
    Return whether the rules for all users of an address do not concern a login: its network has C{limit_exempt}, or it
    came by a unix socket.

    @param attempt: the login.
    @param hasAddress: whether it has an address.
    """
    return attempt.isExempt or not hasAddress


class Rules:
    """
    The rules of one process.

    @param ledger: what is remembered.
    @ivar quietUntil: until when R6 and R7 only say what they would do.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.quietUntil = -inf

    def findings(self, login: Login, now: float) -> Iterator[Finding]:
        """
        Yield what the rules want, except for R6, which has L{userFinding}.

        @param login: the login.
        @param now: the time in seconds.
        """
        attempt = login.attempt
        isDry = attempt.mode is Mode.DRY_RUN
        if login.due > now:
            isRefused = login.due == inf
            yield Finding(
                Rule.REQ_LOGIN,
                _REFUSE if isRefused else _WAIT,
                0.0 if isRefused else login.due - now,
                attempt.rateMode is Mode.DRY_RUN,
            )
        if attempt.mode is not Mode.OFF:
            found = [*self._ofPair(login, now), *self._ofAddress(login, now), *self._ofUser(login, now)]
            for rule, action, seconds in found:
                yield Finding(rule, action, seconds, isDry or (rule is Rule.USER_REFUSE and now < self.quietUntil))

    def _queued(self, login: Login, now: float, rule: Rule) -> tuple[Rule, Action, float]:
        """A login must wait for others to end, but not for ever."""
        left = self._patienceEnds(login) - now
        return (rule, _WAIT, min(_SOON, left)) if left > 0 else (rule, _REFUSE, 0.0)

    def _patienceEnds(self, login: Login) -> float:
        policy = self._ledger.policy
        patience = max(policy.userPatience, policy.longestDelay + policy.sharedDelay)
        return max(login.began, login.due if login.due < inf else 0.0) + patience

    def isStuck(self, login: Login, now: float) -> bool:
        """
        Return whether the login of a known pair has waited in vain for others of the pair to end. A stranger at the
        same address may leave them open, such as SCRAM without the proof. Then one a minute passes, as under R2.

        @param login: the login.
        @param now: the time in seconds.
        """
        return login.isKnown and now >= self._patienceEnds(login) and self._ledger.undecided.of(login.pair) > 0

    def _ofPair(self, login: Login, now: float) -> Iterator[tuple[Rule, Action, float]]:
        """R1 and R2."""
        ledger, policy, pair = self._ledger, self._ledger.policy, login.pair
        if not login.isKnown and ledger.blocks.until(pair, now):
            yield Rule.PAIR_BLOCK, _REFUSE, 0.0
            return
        isStuck = self.isStuck(login, now) and ledger.slowed.get(pair, 0.0) <= now
        busy = 0 if isStuck else ledger.undecided.of(pair)
        failures = ledger.pairs.count(pair, now) // UNIT
        if login.isKnown and 0 < policy.pairBlock <= failures:
            due = ledger.slowed.get(pair, 0.0)
            if due > login.began + policy.userPatience:
                yield Rule.PAIR_BLOCK, _REFUSE, 0.0
            elif due > now:
                yield Rule.PAIR_BLOCK, _WAIT, due - now
            elif busy:
                yield self._queued(login, now, Rule.PAIR_BLOCK)
        elif 0 < policy.pairDelay <= failures:
            due = login.began + delayAfter(failures, policy)
            if due > now:
                yield Rule.PAIR_DELAY, _WAIT, due - now
            elif busy:
                yield self._queued(login, now, Rule.PAIR_DELAY)
        elif busy >= roomOf(policy.undecidedPair, (policy.pairBlock or inf) - failures):
            yield self._queued(login, now, Rule.UNDECIDED)

    def _ofAddress(self, login: Login, now: float) -> Iterator[tuple[Rule, Action, float]]:
        """R3, R4 and R5, and how many undecided logins an address may have."""
        place = login.place
        if isShared(login.attempt, place.hasAddress):
            return
        ledger, policy, sources = self._ledger, self._ledger.policy, self._ledger.sources
        allowance = ledger.goods.allowance(place.address, now)
        busy = ledger.undecided.of(place.address)
        if login.isKnown:
            if busy >= policy.undecidedAddress * allowance:
                yield self._queued(login, now, Rule.UNDECIDED)
            return
        if ledger.blocks.until(place.address, now):
            yield Rule.ADDRESS_BLOCK, _REFUSE, 0.0
            return
        failures = sources.ofAddress(place.address, now)
        due = login.began + policy.sharedDelay
        if 0 < policy.addressDelay * allowance * UNIT <= failures and due > now:
            yield Rule.ADDRESS_DELAY, _WAIT, due - now
        if 0 < policy.networkDelay * allowance * UNIT <= sources.ofNetwork(place.network, now):
            if due > now:
                yield Rule.NETWORK_DELAY, _WAIT, due - now
            elif ledger.undecided.of(place.network) >= max(1, policy.networkUndecided):
                yield self._queued(login, now, Rule.NETWORK_DELAY)
        most = policy.undecidedAddress * allowance
        if allowance > 1:
            # The rest is for known pairs, which strangers at their address must not keep out.
            most -= most // 4
        left: float = policy.addressBlock * allowance - failures // UNIT if policy.addressBlock else inf
        if policy.addressUsers and allowance == 1:
            # Otherwise a spray in parallel would try more users than one that waits for each answer.
            left = min(left, policy.addressUsers - sources.usersOf(place.address, now))
        if busy >= roomOf(most, left):
            yield self._queued(login, now, Rule.UNDECIDED)

    def _ofUser(self, login: Login, now: float) -> Iterator[tuple[Rule, Action, float]]:
        """R7, and how many undecided logins from unknown networks a user may have until R6 acts."""
        if login.isKnown or login.attempt.kind is Kind.TOKEN:
            return
        if self._ledger.blocks.until(login.user, now):
            yield Rule.USER_REFUSE, _REFUSE, 0.0
        elif self._isCrowded(login, now):
            found = self._queued(login, now, Rule.UNDECIDED)
            if found[1] is _WAIT:
                # Otherwise it is drawn as under R6: strangers who leave logins open refuse no owner for good.
                yield found

    def _isCrowded(self, login: Login, now: float) -> bool:
        """Whether as many logins of the user are undecided as may fail until R6 acts."""
        ledger, policy = self._ledger, self._ledger.policy
        if not policy.userSlow or now < self.quietUntil:
            return False
        left = policy.userSlow - ledger.users.count(login.user, now) // UNIT
        return left > 0 and ledger.undecided.of(login.user) >= left

    def userFinding(self, login: Login, now: float) -> Finding | None:
        """
        Return whether R6 slows a login down: it must take its turn then.

        @param login: the login.
        @param now: the time in seconds.
        """
        attempt, users = login.attempt, self._ledger.users
        if login.isKnown or attempt.kind is Kind.TOKEN or attempt.mode is Mode.OFF:
            return None
        if not users.isSlow(login.user, now) and not self._isCrowded(login, now):
            return None
        seconds = users.look(login.user, now)
        isDry = attempt.mode is Mode.DRY_RUN or now < self.quietUntil
        return Finding(Rule.USER_SLOW, _WAIT, seconds, isDry)


def delayAfter(failures: int, policy: LoginPolicy) -> float:
    """
    Return R1's delay in seconds.

    @param failures: those of the pair, at least C{pairDelay}.
    @param policy: the numbers.
    """
    return min(policy.longestDelay, policy.firstDelay * float(1 << min(30, failures - policy.pairDelay)))
