# -*- test-case-name: mailgate.test.keeper.cluster.test_others -*-
"""
What this gateway answers to others, and which of their orders it carries out. There is nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred

from mailgate.keeper.answers.kick import LONGEST_OVER
from mailgate.keeper.cluster.answering import Answers
from mailgate.keeper.filters import Filter
from mailgate.keeper.gateways import ANSWERED_WITHIN
from mailgate.keeper.interfaces import Collected
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.kick import kickHere
from mailgate.keeper.sessions import firstSessions

__all__ = ["ANSWERS", "MOST_STORIES", "answersOf"]

MOST_STORIES = 100
"""Stories of a user that another gateway gets."""

_Answer: TypeAlias = Callable[[Keeper, Mapping[str, Any]], Coroutine[Any, Any, Collected]]


def _filterIn(arguments: Mapping[str, Any]) -> Filter:
    given = arguments.get("filter")
    if not isinstance(given, dict):
        raise ValueError("filter must be an object")
    return Filter.fromJSON(given)


async def _sessions(keeper: Keeper, arguments: Mapping[str, Any]) -> Collected:
    return await firstSessions(keeper, {**arguments, "filter": _filterIn(arguments).asJSON()})


async def _counts(keeper: Keeper, arguments: Mapping[str, Any]) -> Collected:
    asked = {"filter": _filterIn(arguments).asJSON(), "by": arguments.get("by")}
    return await keeper.ask("counts", asked, ANSWERED_WITHIN)


async def _kick(keeper: Keeper, arguments: Mapping[str, Any]) -> Collected:
    """
    End sessions. C{age} is there if the order was missed, and is how many seconds ago it was given: what has begun
    since stays.
    """
    filter, age, over = _filterIn(arguments).asJSON(), arguments.get("age", 0.0), arguments.get("over", 0.0)
    if type(over) not in (int, float) or not 0 <= over <= LONGEST_OVER or type(arguments.get("dry_run")) is not bool:
        raise ValueError("over or dry_run is not valid")
    if age:
        filter["older"] = filter.get("older", 0.0) + age
        if "stuck" in filter:
            filter["stuck"] += age
    asked = {
        **{"filter": filter, "over": max(0.0, over - age)},
        **{"reason": arguments.get("reason", ""), "dry_run": arguments["dry_run"]},
    }
    kicked = await kickHere(keeper, asked, ANSWERED_WITHIN / 2)
    return Collected([{"ended": kicked.ended, "forgotten": kicked.forgotten}], kicked.missing)


async def _stories(keeper: Keeper, arguments: Mapping[str, Any]) -> Collected:
    user = arguments.get("user")
    if not isinstance(user, str):
        raise ValueError("user must be a text")
    return Collected([dict(each) for each in keeper.recent(user)][:MOST_STORIES])


ANSWERS: Mapping[str, _Answer] = {
    "sessions": _sessions,
    "counts": _counts,
    "kick": _kick,
    "stories": _stories,
}
"""The questions and orders of other gateways, by their words."""


def answersOf(keeper: Keeper) -> Answers:
    """
    Return what a keeper answers to other gateways.

    @param keeper: the keeper.
    """
    return {word: partial(_started, answer, keeper) for word, answer in ANSWERS.items()}


def _started(answer: _Answer, keeper: Keeper, arguments: Mapping[str, Any]) -> Deferred[Collected]:
    return Deferred.fromCoroutine(answer(keeper, arguments))
