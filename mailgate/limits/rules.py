# -*- test-case-name: mailgate.test.limits.test_defence -*-
"""
What the rules R1 to R7 and C{limit_req login} say about a login. Nothing here changes a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from operator import attrgetter
from typing import NamedTuple

from mailgate.limits.attempt import Action, Attempt, Kind, Rule
from mailgate.limits.ledger import Ledger
from mailgate.limits.policy import LoginPolicy, Mode
from mailgate.limits.undecided import Login
from mailgate.limits.windows import UNIT

__all__ = ["Finding", "Rules", "isDryRun", "roomOf"]

_SOON = 0.25
"""Seconds until the next look of a login that waits for others to end."""

_WAIT, _REFUSE = Action.WAIT, Action.REFUSE

_DRY_RUNS = {
    Rule.PAIR_DELAY: attrgetter("pairDryRun"),
    Rule.PAIR_BLOCK: attrgetter("pairDryRun"),
    Rule.ADDRESS_DELAY: attrgetter("addressDryRun"),
    Rule.ADDRESS_BLOCK: attrgetter("addressDryRun"),
    Rule.NETWORK_DELAY: attrgetter("networkDryRun"),
    Rule.USER_SLOW: attrgetter("userDryRun"),
    Rule.USER_REFUSE: attrgetter("userDryRun"),
}
"""Whether a rule only says what it would do, by the attribute of L{LoginPolicy}."""


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


def isDryRun(rule: Rule, policy: LoginPolicy) -> bool:
    """
    Return whether the directive of a rule has C{dry_run}.

    @param rule: the rule. Those of operators have no directive.
    @param policy: the numbers.
    """
    found = _DRY_RUNS.get(rule)
    return found is not None and bool(found(policy))


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
        if login.due > now:
            isRefused = login.due == inf
            yield Finding(
                Rule.REQ_LOGIN,
                _REFUSE if isRefused else _WAIT,
                0.0 if isRefused else login.due - now,
                attempt.rateMode is Mode.DRY_RUN,
            )
        if attempt.mode is not Mode.OFF:
            yield from self._ofPair(login, now)
            yield from self._ofAddress(login, now)
            yield from self._ofUser(login, now)

    def _queued(self, login: Login, now: float, rule: Rule, isDry: bool) -> Finding:
        """A login must wait for others to end, but not for ever."""
        left = self._patienceEnds(login) - now
        return Finding(rule, _WAIT, min(_SOON, left), isDry) if left > 0 else Finding(rule, _REFUSE, 0.0, isDry)

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

    def _ofPair(self, login: Login, now: float) -> Iterator[Finding]:
        """R1 and R2."""
        ledger, policy, pair = self._ledger, self._ledger.policy, login.pair
        isDry = policy.pairDryRun or login.attempt.mode is Mode.DRY_RUN
        if not login.isKnown and ledger.blocks.until(pair, now):
            yield Finding(Rule.PAIR_BLOCK, _REFUSE, 0.0, isDry)
            return
        isStuck = self.isStuck(login, now) and ledger.slowed.get(pair, 0.0) <= now
        busy = 0 if isStuck else ledger.undecided.of(pair)
        failures = ledger.pairs.count(pair, now) // UNIT
        if login.isKnown and 0 < policy.pairBlock <= failures:
            due = ledger.slowed.get(pair, 0.0)
            if due > login.began + policy.userPatience:
                yield Finding(Rule.PAIR_BLOCK, _REFUSE, 0.0, isDry)
            elif due > now:
                yield Finding(Rule.PAIR_BLOCK, _WAIT, due - now, isDry)
            elif busy:
                yield self._queued(login, now, Rule.PAIR_BLOCK, isDry)
        elif 0 < policy.pairDelay <= failures:
            due = login.began + delayAfter(failures, policy)
            if due > now:
                yield Finding(Rule.PAIR_DELAY, _WAIT, due - now, isDry)
            elif busy:
                yield self._queued(login, now, Rule.PAIR_DELAY, isDry)
        elif busy >= roomOf(policy.undecidedPair, (policy.pairBlock or inf) - failures):
            yield self._queued(login, now, Rule.UNDECIDED, isDry)

    def _ofAddress(self, login: Login, now: float) -> Iterator[Finding]:
        """R3, R4 and R5, and how many undecided logins an address may have."""
        place = login.place
        if isShared(login.attempt, place.hasAddress):
            return
        ledger, policy, sources = self._ledger, self._ledger.policy, self._ledger.sources
        isDry = policy.addressDryRun or login.attempt.mode is Mode.DRY_RUN
        allowance = ledger.goods.allowance(place.address, now)
        busy = ledger.undecided.of(place.address)
        if login.isKnown:
            if busy >= policy.undecidedAddress * allowance:
                yield self._queued(login, now, Rule.UNDECIDED, isDry)
            return
        if ledger.blocks.until(place.address, now):
            yield Finding(Rule.ADDRESS_BLOCK, _REFUSE, 0.0, isDry)
            if policy.addressDryRun:
                # R5 acts on what a dry run of R4 lets pass.
                yield from self._ofNetwork(login, allowance, now)
            return
        failures = sources.ofAddress(place.address, now)
        due = login.began + policy.sharedDelay
        if 0 < policy.addressDelay * allowance * UNIT <= failures and due > now:
            yield Finding(Rule.ADDRESS_DELAY, _WAIT, due - now, isDry)
        yield from self._ofNetwork(login, allowance, now)
        most = policy.undecidedAddress * allowance
        if allowance > 1:
            # The rest is for known pairs, which strangers at their address must not keep out.
            most -= most // 4
        left: float = policy.addressBlock * allowance - failures // UNIT if policy.addressBlock else inf
        if policy.addressUsers and allowance == 1:
            # Otherwise a spray in parallel would try more users than one that waits for each answer.
            left = min(left, policy.addressUsers - sources.usersOf(place.address, now))
        if busy >= roomOf(most, left):
            yield self._queued(login, now, Rule.UNDECIDED, isDry)

    def _ofNetwork(self, login: Login, allowance: int, now: float) -> Iterator[Finding]:
        """R5."""
        ledger, policy, network = self._ledger, self._ledger.policy, login.place.network
        if not 0 < policy.networkDelay * allowance * UNIT <= ledger.sources.ofNetwork(network, now):
            return
        isDry = policy.networkDryRun or login.attempt.mode is Mode.DRY_RUN
        due = login.began + policy.sharedDelay
        if due > now:
            yield Finding(Rule.NETWORK_DELAY, _WAIT, due - now, isDry)
        elif ledger.undecided.of(network) >= max(1, policy.networkUndecided):
            yield self._queued(login, now, Rule.NETWORK_DELAY, isDry)

    def _ofUser(self, login: Login, now: float) -> Iterator[Finding]:
        """R7, and how many undecided logins from unknown networks a user may have until R6 acts."""
        if login.isKnown or login.attempt.kind is Kind.TOKEN:
            return
        isDry = self._ledger.policy.userDryRun or login.attempt.mode is Mode.DRY_RUN
        if self._ledger.blocks.until(login.user, now):
            yield Finding(Rule.USER_REFUSE, _REFUSE, 0.0, isDry or now < self.quietUntil)
        elif self._isCrowded(login, now):
            found = self._queued(login, now, Rule.UNDECIDED, isDry)
            if found.action is _WAIT:
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
        # Before that it waits for others to end, of which L{findings} has the finding.
        isCrowded = now >= self._patienceEnds(login) and self._isCrowded(login, now)
        if not users.isSlow(login.user, now) and not isCrowded:
            return None
        seconds = users.look(login.user, now)
        isDry = attempt.mode is Mode.DRY_RUN or self._ledger.policy.userDryRun or now < self.quietUntil
        return Finding(Rule.USER_SLOW, _WAIT, seconds, isDry)


def delayAfter(failures: int, policy: LoginPolicy) -> float:
    """
    Return R1's delay in seconds.

    @param failures: those of the pair, at least C{pairDelay}.
    @param policy: the numbers.
    """
    return min(policy.longestDelay, policy.firstDelay * float(1 << min(30, failures - policy.pairDelay)))
