# -*- test-case-name: mailgate.test.limits.test_limitsexplain -*-
"""
C{mailgate explain}: which rule would act on a login, and its counters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mailgate.limits.attempt import Action, Block, Rule
from mailgate.limits.ledger import Ledger
from mailgate.limits.rules import Finding, Rules
from mailgate.limits.undecided import Login
from mailgate.limits.windows import UNIT

__all__ = ["blocksOf", "explained"]


def blocksOf(ledger: Ledger, login: Login, now: float) -> list[Block]:
    """
    Return the blocks that concern a login.

    @param ledger: what is remembered.
    @param login: the login.
    @param now: the time in seconds.
    """
    operators = ledger.operators.find(login.attempt.user, login.attempt.host, now)
    keys = (login.pair, login.place.address, login.user)
    found = [] if operators is None else [operators]
    return found + [block for key, block in ledger.blocks.items(now) if key in keys]


def explained(
    ledger: Ledger, rules: Rules, login: Login, now: float, offset: float, blocks: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any]:
    """
    Return what L{mailgate.limits.interfaces.ILimitStore.explain} does.

    @param ledger: what is remembered.
    @param rules: the rules.
    @param login: the login.
    @param now: the time in seconds.
    @param offset: what must be added to times for Unix times.
    @param blocks: those that concern the login, as values of JSON.
    """
    policy, pair, place, user = ledger.policy, login.pair, login.place, login.user
    sources, users = ledger.sources, ledger.users
    allowance = ledger.goods.allowance(place.address, now)
    found = [*rules.findings(login, now)]
    slow = rules.userFinding(login, now)
    if slow is not None:
        found.append(slow)
    finding = _strongest(ledger, found, login, now)

    def counted(failures: int, limit: int, since: int | None) -> Mapping[str, Any]:
        return {"failures": failures // UNIT, "limit": limit, "since": None if since is None else since + offset}

    since = sources.since(place.address, now)
    quiet = {"quiet": round(rules.quietUntil - now, 3)} if now < rules.quietUntil else {}
    last = ledger.known.last(user ^ place.network)
    return {
        "known": login.isKnown,
        "lastSuccess": None if last is None else last + offset,
        "allowance": allowance,
        "pair": counted(ledger.pairs.count(pair, now), policy.pairBlock, ledger.pairs.since(pair, now)),
        "address": counted(
            sources.ofAddress(place.address, now),
            policy.addressBlock * allowance,
            since,
        ),
        "network": counted(
            sources.ofNetwork(place.network, now),
            policy.networkDelay * allowance,
            sources.since(place.network, now),
        ),
        "user": {**counted(users.count(user, now), policy.userSlow, users.since(user, now)), **quiet},
        "users": {
            "failures": sources.usersOf(place.address, now),
            # With a success there, there is no such limit.
            "limit": policy.addressUsers if allowance == 1 else 0,
            "since": None if since is None else since + offset,
        },
        "rule": None if finding is None else finding.rule.value,
        "action": (Action.GO if finding is None else finding.action).value,
        "seconds": 0.0 if finding is None else round(finding.seconds, 3),
        "would": [each.words for each in found if each.isDry],
        "blocks": list(blocks),
    }


def _strongest(ledger: Ledger, found: Sequence[Finding], login: Login, now: float) -> Finding | None:
    block = ledger.operators.find(login.attempt.user, login.attempt.host, now)
    if block is not None:
        action = Action.WAIT if block.rule is Rule.HOLD else Action.REFUSE
        return Finding(block.rule, action, min(ledger.policy.userPatience, block.until - now))
    acting = [each for each in found if not each.isDry]
    return max(acting, key=lambda each: (each.action is Action.REFUSE, each.seconds), default=None)
