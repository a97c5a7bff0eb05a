# -*- test-case-name: mailgate.test.keeper.cluster.test_others -*-
"""
Asks the processes of this gateway and, if it shares a store, the other gateways, at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from mailgate.keeper.interfaces import Collected, Heard
from mailgate.keeper.keeper import Keeper

__all__ = ["ANSWERED_WITHIN", "askEverywhere", "gatewayRow", "silence", "together"]

ANSWERED_WITHIN = 1.5
"""
Seconds until the processes of a gateway must have answered if another gateway asks. That one waits a little longer, so
that a slow process keeps it from the answer of that process alone.
"""


async def askEverywhere(
    keeper: Keeper, mine: Deferred[Any], word: str, arguments: Mapping[str, Any], isKept: bool = False
) -> tuple[Any, Heard]:
    """
    Ask the other gateways while the processes of this one answer.

    @param keeper: the keeper.
    @param mine: fires with the answer of this gateway, which was asked already.
    @param word: the question to the others.
    @param arguments: its arguments.
    @param isKept: as for L{mailgate.keeper.interfaces.IOthers.ask}.
    @return: what C{mine} has fired with, and the answers of the others.
    """
    if keeper.others is None:
        return await mine, Heard()
    theirs = keeper.others.ask(word, arguments, isKept=isKept)
    try:
        answer = await mine
    except BaseException:
        # The client who has asked may have left.
        theirs.addErrback(lambda failure: None)
        theirs.cancel()
        raise
    return answer, await theirs


def silence(heard: Heard, age: float) -> str:
    """
    Say that a gateway has not answered.

    @param heard: the answers of the others.
    @param age: how many seconds ago it was heard of.
    """
    return heard.reason or f"it has not answered in time; it was heard of {age:.0f} s ago"


def gatewayRow(name: str, collected: Collected, age: float = 0.0) -> dict[str, Any]:
    """
    Return what an answer says about a gateway.

    @param name: the name of the gateway.
    @param collected: its answers.
    @param age: how many seconds old its word is.
    """
    missing = list(dict.fromkeys(collected.missing))
    return {"name": name, "age": round(age, 1), "complete": not missing, "missing": missing}


def together(stories: Iterable[Mapping[str, Any]], heard: Heard) -> list[Mapping[str, Any]]:
    """
    Return the stories of all gateways, the latest first.

    @param stories: those of this one.
    @param heard: those of the others.
    """
    theirs = [row for answer in heard.answers.values() for row in answer.rows if _isStory(row)]
    return sorted((*stories, *theirs), key=lambda story: str(story.get("at")), reverse=True)


def _isStory(row: Any) -> bool:
    return isinstance(row, dict) and all(isinstance(row.get(name), str) for name in ("kind", "user", "at"))
