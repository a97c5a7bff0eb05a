# -*- test-case-name: mailgate.test.keeper.test_kick -*-
"""
Ends sessions for an operator, in all processes of the gateway, and at the gateways that share a store with it.

First the cached answers about the users are forgotten in all processes, and then the sessions end: a client that logs
in again at once is judged anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred

from mailgate.keeper.answers.kick import LONGEST_OVER, MOST_USERS
from mailgate.keeper.blocks import LONGEST_REASON, block, checkBlock, storeOf
from mailgate.keeper.filters import Filter, exactly
from mailgate.keeper.gateways import askEverywhere, silence
from mailgate.keeper.interfaces import Heard
from mailgate.keeper.keeper import Collected, Keeper
from mailgate.log.journal import printable

__all__ = ["Kicked", "kick", "kickHere", "logged"]

_LONGEST_BY = 128

_LONGEST_USERS = 15 * 1024
"""
Bytes of the users in a question (L{mailgate.keeper.messages.Ask}). Names may be long: clients that are not logged in
choose them. Beyond these bytes, the answers about all users are forgotten.
"""


def kick(
    keeper: Keeper,
    filter: Filter | Mapping[str, Any],
    reason: str = "",
    by: str = "",
    over: float = 0.0,
    dryRun: bool = False,
    everything: bool = False,
    hold: float = 0.0,
    blocked: float = 0.0,
) -> Deferred[dict[str, Any]]:
    """
    End sessions and logins under way, and forget the cached answers about their users.

    @param keeper: the keeper.
    @param filter: which sessions: a filter, or its object of JSON.
    @param reason: why, for the log: one printable line; may be empty.
    @param by: who has ordered it, for the log, such as C{uid 1000}.
    @param over: seconds over which the ends are spread, at most a day.
    @param dryRun: whether to count only.
    @param everything: whether the filter may mean all sessions.
    @param hold: seconds for which the logins of the user are held from now on; 0: they are not.
    @param blocked: seconds for which the user, the address, or the user at the address is blocked from now on; 0: no
        block. It begins before the sessions end, so that clients cannot come back.
    @return: fires with an object with C{ended} (the sessions that end within C{over}; with C{dryRun}, that would end),
        C{forgotten} (cached answers), C{dry_run}, C{blocked} and C{held} (the blocks, as
        L{mailgate.keeper.blockrows.blockRow}; L{None} without one), C{gateways} (objects with C{name} and C{ended} for
        each gateway that has answered) and C{unanswered} (a sentence for each process, and for each other gateway, that
        has not answered completely).
    @raise ValueError: an argument is not valid, the filter means all sessions without C{everything}, or it names no
        user for C{hold}, or nothing that C{blocked} could block.
    @raise NoLimits: C{hold} or C{blocked} is set, and there are no limits.
    """
    chosen = Filter.of(filter)
    if chosen.isEverything and not everything:
        raise ValueError("the filter means all sessions; set all to true if they are to end")
    if len(reason) > LONGEST_REASON or not reason.isprintable():
        raise ValueError(f"reason must be one printable line of at most {LONGEST_REASON} characters")
    if not 0 <= over <= LONGEST_OVER:
        raise ValueError(f"over must be from 0 to {LONGEST_OVER:.0f} seconds")
    blocks = _blocks(keeper, chosen, reason, hold, blocked, dryRun)
    return Deferred.fromCoroutine(_kick(keeper, chosen, logged(reason, by), float(over), dryRun, blocks))


def _blocks(
    keeper: Keeper, filter: Filter, reason: str, hold: float, blocked: float, isDry: bool
) -> dict[str, dict[str, Any] | None]:
    """Block and hold what the filter names; with C{isDry} only check whether that is possible."""
    made: dict[str, dict[str, Any] | None] = {"blocked": None, "held": None}
    wanted = [(name, seconds) for name, seconds in (("blocked", blocked), ("held", hold)) if seconds]
    for name, seconds in wanted:
        checkBlock(_thing(filter, name == "held"), seconds, reason, name == "held")
        storeOf(keeper)
    for name, seconds in () if isDry else wanted:
        isHold = name == "held"
        made[name] = block(keeper, _thing(filter, isHold), seconds, reason, isHold)
    return made


def _thing(filter: Filter, isHold: bool) -> str:
    """
    What a filter blocks.

    @raise ValueError: it means other sessions than those of a user or of an address.
    """
    others = [name for name in filter.asJSON() if name not in ("user", "address")]
    word = "hold" if isHold else "block"
    if others:
        raise ValueError(f"{word} goes with user and address alone, not with {', '.join(others)}")
    user, address = filter.user, filter.address
    if user is not None and exactly(user) != user:
        raise ValueError(f"{word} needs a user without wildcards")
    if isHold:
        if user is None or address is not None:
            raise ValueError("hold needs a user, and no address")
        return user
    if user is None and address is None:
        raise ValueError("block needs a user or an address")
    return " ".join(each for each in (user, address) if each is not None)


def logged(reason: str, by: str) -> str:
    """
    Return what the log has about a kick, behind the outcome.

    @param reason: the operator's words; may be empty.
    @param by: who has ordered it; may be empty.
    """
    parts = []
    if reason:
        parts.append(f'"{printable(reason.encode())}"')
    if by:
        parts.append(f"by {printable(by[:_LONGEST_BY].encode('utf-8', 'backslashreplace'))}")
    return ", ".join(parts)


async def _kick(
    keeper: Keeper, filter: Filter, reason: str, over: float, isDry: bool, blocks: Mapping[str, Any]
) -> dict[str, Any]:
    arguments = {"filter": filter.asJSON(), "reason": reason, "over": over, "dry_run": isDry}
    mine = Deferred.fromCoroutine(kickHere(keeper, arguments))
    if filter.id is not None and filter.id.startswith(f"{keeper.name}."):
        answer, heard = await mine, Heard()
    else:
        order = {**arguments, "reason": reason if isDry else _from(reason, keeper.name)}
        answer, heard = await askEverywhere(keeper, mine, "kick", order, isKept=not isDry)
    ended, forgotten, unanswered = answer.ended, answer.forgotten, list(answer.missing)
    gateways: list[dict[str, Any]] = [{"name": keeper.name, "ended": ended}]
    for name, collected in heard.answers.items():
        counts = [row for row in collected.rows if _isCounts(row)]
        gateways.append({"name": name, "ended": sum(row["ended"] for row in counts)})
        ended += gateways[-1]["ended"]
        forgotten += sum(row["forgotten"] for row in counts)
        unanswered += [f"gateway {name}: {each}" for each in collected.missing]
    # What the store could not keep is carried out by nobody.
    later = "" if heard.reason or isDry else _LATER
    unanswered += [f"gateway {name}: {silence(heard, age)}{later}" for name, age in heard.silent.items()]
    return {
        "ended": ended,
        "forgotten": forgotten,
        "dry_run": isDry,
        **blocks,
        "gateways": gateways,
        "unanswered": list(dict.fromkeys(unanswered)),
    }


_LATER = "; if it lives, it ends its sessions when it hears the store again"


def _from(reason: str, gateway: str) -> str:
    """What the log of another gateway has about a kick."""
    return f"{reason} at {gateway}" if reason else f"by an operator at {gateway}"


def _isCounts(row: Any) -> bool:
    return isinstance(row, dict) and all(type(row.get(name)) is int for name in ("ended", "forgotten"))


@frozen
class Kicked:
    """
    What a kick has done at this gateway.

    @ivar ended: the sessions that end.
    @ivar forgotten: the cached answers that were forgotten.
    @ivar missing: why that is not all.
    """

    ended: int
    forgotten: int
    missing: Sequence[str]


async def kickHere(keeper: Keeper, arguments: Mapping[str, Any], within: float = 2.0) -> Kicked:
    """
    End sessions of this gateway alone.

    @param keeper: the keeper.
    @param arguments: C{filter} (its object of JSON), C{reason} (what the log has), C{over} and C{dry_run}.
    @param within: seconds until the processes must have answered each question.
    @raise ValueError: they are not valid.
    """
    filter = Filter.of(arguments["filter"])
    missing: list[str] = []
    forgotten = 0 if arguments["dry_run"] else await _forget(keeper, filter, missing, within)
    collected = await keeper.ask("kick", arguments, within)
    return Kicked(_sum(collected), forgotten, tuple(dict.fromkeys((*missing, *collected.missing))))


async def _forget(keeper: Keeper, filter: Filter, missing: list[str], within: float) -> int:
    """Forget the answers about the users of C{filter}: those of its mask, or those of the sessions that it means."""
    if filter.user is not None:
        arguments: dict[str, Any] = {"user": filter.user}
    else:
        named = await keeper.ask("users", {"filter": filter.asJSON()}, within)
        missing.extend(named.missing)
        users = sorted({user for user in named.rows if isinstance(user, str)})
        if not users:
            return 0
        isShort = len(users) <= MOST_USERS and len(json.dumps(users)) <= _LONGEST_USERS
        arguments = {"users": users} if isShort else {"user": "*"}
    collected = await keeper.ask("forget", arguments, within)
    missing.extend(collected.missing)
    return _sum(collected)


def _sum(collected: Collected) -> int:
    # A process that is taken over may send anything, which must not keep operators from an answer.
    return sum(row for row in collected.rows if type(row) is int)
