# -*- test-case-name: mailgate.test.keeper.test_blocks -*-
"""
Blocks and holds, for operators: lists them, makes them, ends them. The limits keep them
(L{mailgate.limits.interfaces.ILimitStore}); this module checks what operators ask for, and makes values of JSON.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from mailgate.keeper.blockrows import blockRow
from mailgate.keeper.filters import userMatcher
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.limited import holdsOf
from mailgate.limits.attempt import Rule
from mailgate.limits.interfaces import ILimitStore
from mailgate.log.journal import oneLine

__all__ = [
    "LIMIT",
    "LONGEST_BLOCK",
    "LONGEST_HOLD",
    "LONGEST_REASON",
    "MOST",
    "NoLimits",
    "block",
    "checkBlock",
    "listBlocks",
    "release",
    "storeOf",
    "unblock",
    "withDoubt",
]

LIMIT = 500
"""The rows of a list without a limit."""

MOST = 1000
"""The most rows of a list."""

LONGEST_REASON = 200
"""The most characters of a reason."""

LONGEST_BLOCK = 366 * 86_400.0
"""The most seconds of a block."""

LONGEST_HOLD = 86_400.0
"""The most seconds of a hold: it is for a move, after which the user logs in again."""

_LONGEST_THING = 1024


class NoLimits(Exception):
    """This gateway keeps no limits."""

    def __init__(self) -> None:
        super().__init__("this gateway has no limits: an application runs it without them")


def storeOf(keeper: Keeper) -> ILimitStore:
    """
    Return where the limits are kept.

    @param keeper: the keeper.
    @raise NoLimits: nowhere.
    """
    if keeper.limits is None:
        raise NoLimits
    return keeper.limits


def listBlocks(keeper: Keeper, thing: str | None = None, rule: str | None = None, limit: int = LIMIT) -> dict[str, Any]:
    """
    List the blocks and holds that are in force, the latest first.

    @param keeper: the keeper.
    @param thing: a mask for what is blocked, as rows show it, without regard to case; L{None} for all.
    @param rule: the value of a L{Rule}; L{None} for all.
    @param limit: the most rows, from 1 to L{MOST}.
    @return: an object with C{blocks} (as L{blockRow}) and C{total} (how many match).
    @raise NoLimits: there are no limits.
    @raise ValueError: an argument is not valid.
    """
    if isinstance(limit, bool) or not 1 <= limit <= MOST:
        raise ValueError(f"limit must be from 1 to {MOST}")
    if rule is not None and rule not in {each.value for each in Rule}:
        raise ValueError(f"{oneLine(rule[:64])} is no rule; known are {', '.join(each.value for each in Rule)}")
    found = storeOf(keeper).blocks()
    if rule is not None:
        found = [each for each in found if each.rule.value == rule]
    if thing is not None:
        matches = userMatcher(thing)
        found = [each for each in found if matches(oneLine(each.thing).encode("utf-8", "replace"))]
    return {"blocks": [blockRow(each) for each in found[:limit]], "total": len(found)}


def block(keeper: Keeper, thing: str, seconds: float, reason: str = "", isHold: bool = False) -> dict[str, Any]:
    """
    Block something, or hold the logins of a user.

    @param keeper: the keeper.
    @param thing: a user, an address, a network, or C{USER ADDRESS}. For a hold it is a user.
    @param seconds: for how long: at most L{LONGEST_BLOCK}, or L{LONGEST_HOLD}.
    @param reason: why: one printable line of at most L{LONGEST_REASON} characters; may be empty.
    @param isHold: whether it is a hold.
    @return: the block, as L{blockRow}.
    @raise NoLimits: there are no limits.
    @raise ValueError: an argument is not valid.
    """
    checkBlock(thing, seconds, reason, isHold)
    return blockRow(storeOf(keeper).block(thing, float(seconds), reason, isHold))


def checkBlock(thing: str, seconds: float, reason: str, isHold: bool) -> None:
    """
    Check the arguments of L{block}.

    @param thing: what is to be blocked.
    @param seconds: for how long.
    @param reason: why.
    @param isHold: whether it is a hold.
    @raise ValueError: one is not valid.
    """
    longest = LONGEST_HOLD if isHold else LONGEST_BLOCK
    if not 0 < seconds <= longest:
        raise ValueError(f"a {'hold' if isHold else 'block'} must last more than 0 and at most {longest:.0f} seconds")
    if len(reason) > LONGEST_REASON or not reason.isprintable():
        raise ValueError(f"reason must be one printable line of at most {LONGEST_REASON} characters")
    if not thing.strip() or len(thing) > _LONGEST_THING or not thing.isprintable():
        raise ValueError(f"what is blocked must be one printable line of at most {_LONGEST_THING} characters")
    if isHold and (_isAddress(thing) or " " in thing.strip()):
        raise ValueError(f"{oneLine(thing[:64])} is no user; only the logins of users are held")
    if not isHold and thing.strip().endswith("/0") and _isAddress(thing):
        raise ValueError(f"{thing.strip()} means all clients; mailgate drain keeps them away")


def _isAddress(thing: str) -> bool:
    try:
        ip_network(thing.strip().strip("[]"), strict=False)
    except ValueError:
        return False
    return True


def unblock(keeper: Keeper, thing: str) -> dict[str, Any]:
    """
    End blocks and holds, operators' and those of rules, and forget the failures of what was blocked, so that no rule
    acts on it at once.

    @param keeper: the keeper.
    @param thing: a user, an address, a network, C{USER ADDRESS}, or the id of a block.
    @return: an object with C{ended}: the blocks that have ended, as L{blockRow}.
    @raise NoLimits: there are no limits.
    @raise ValueError: C{thing} is none of these.
    """
    return {"ended": [blockRow(each) for each in storeOf(keeper).unblock(thing)]}


def release(keeper: Keeper, user: str) -> dict[str, Any]:
    """
    End the holds of a user. His blocks stay.

    @param keeper: the keeper.
    @param user: the user.
    @return: an object with C{ended}, as L{unblock}.
    @raise NoLimits: there are no limits.
    """
    store = storeOf(keeper)
    return {"ended": [blockRow(each) for id in holdsOf(keeper, user) for each in store.unblock(id)]}


def withDoubt(keeper: Keeper, answer: dict[str, Any], doubt: str) -> dict[str, Any]:
    """
    Say in an answer what the other gateways keep it from, while the store cannot be used.

    @param keeper: the keeper.
    @param answer: the answer, an object.
    @param doubt: what is so meanwhile.
    @return: C{answer}; if there is a store that cannot be used with C{unanswered}, a list of C{doubt} with the reason.
    """
    standing = None if keeper.others is None else keeper.others.standing()
    if standing is None or standing["up"]:
        return answer
    return {**answer, "unanswered": [f"{doubt}: the store {standing['reason'] or 'cannot be used'}"]}
