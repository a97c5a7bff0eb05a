# -*- test-case-name: mailgate.test.process.test_backends -*-
"""
What an operator sees and orders of backends: C{mailgate backend list}, C{drain}, C{resume}, C{down} and C{up}.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from mailgate.log.journal import oneLine
from mailgate.process.answer import Answer
from mailgate.process.queries import LIST_BACKENDS, Found
from mailgate.upstream.listing import combined as listed
from mailgate.upstream.notices import Notices
from mailgate.upstream.peer import PeerState
from mailgate.upstream.standing import ORDERS

__all__ = ["Backends", "combined", "passedOrders", "receiveOrders"]

_USED = (PeerState.UP.value, PeerState.RESTING.value)
"""States in which logins may be sent to a server: one that rests is tried if all do."""

_ALONE = "-"
"""The group of servers outside of groups."""

_HINTS = 5
"""Addresses that the error about an unknown address names."""

_MOST_PASSED = 64 * 1024
"""Characters of the orders that an upgrade passes on. The system limits a variable of the environment to 128 KiB."""


class Backends:
    """
    Lists backends and carries out orders, in all processes and generations.

    @param generations: the L{mailgate.process.interfaces.IGenerations} of this process.
    """

    _log = Logger("mailgate")

    def __init__(self, generations: Any) -> None:
        self._generations = generations

    def list(self) -> Deferred[Answer]:
        """Return the rows of all servers. The reasons name the processes that have not answered."""
        return self._ask().addCallback(lambda found: Answer(True, _failures(found), rows=tuple(combined(found))))

    def _ask(self) -> Deferred[Sequence[Found]]:
        return maybeDeferred(self._generations.ask, LIST_BACKENDS, {})

    def order(self, word: str, address: str) -> Deferred[Answer]:
        """
        Carry out an order for the servers at an address.

        @param word: one of L{ORDERS<mailgate.upstream.standing.ORDERS>}.
        @param address: the address as L{list} has it, or as the configuration has it.
        @return: fires with the rows of these servers after the order.
        """
        return self._ask().addCallback(self._publish, word, address)

    def _publish(self, found: Sequence[Found], word: str, address: str) -> Answer | Deferred[Answer]:
        rows = combined(found)
        matching = _at(address, rows)
        if not matching:
            return Answer(False, (_unknown(address, rows), *_failures(found)), isUnknown=True)
        sessions = sum(row["sessions"] for row in matching)
        self._log.info(
            "backend {address}: {word} ordered; sessions there: {sessions}",
            address=oneLine(address),
            word=word,
            sessions=sessions,
        )
        self._generations.notices.publish("order", address, {"word": word})
        # The question reaches each worker after the order.
        return self._ask().addCallback(self._ordered, address)

    def _ordered(self, found: Sequence[Found], address: str) -> Answer:
        every = combined(found)
        rows = _at(address, every)
        used = {row["group"] for row in every if row["state"] in _USED}
        for row in rows:
            if row["group"] not in (*used, _ALONE):
                row["isLast"] = True
                self._log.warn(
                    "upstream {group}: no server gets new sessions: logins get a temporary failure until an operator or"
                    " a health check changes that",
                    group=oneLine(row["group"]),
                )
        return Answer(True, _failures(found), rows=tuple(rows))


def _failures(found: Iterable[Found]) -> tuple[str, ...]:
    return tuple(each.failure for each in found if each.failure)


def _at(address: str, rows: Iterable[Mapping[str, Any]]) -> list[Any]:
    return [row for row in rows if address in (row["address"], row["server"])]


def _unknown(address: str, rows: Iterable[Mapping[str, Any]]) -> str:
    known = list(dict.fromkeys(row["address"] for row in rows))
    near = get_close_matches(address, known, _HINTS) or known[:_HINTS]
    hint = ", ".join(map(oneLine, near)) if near else "none"
    more = ", ..." if len(known) > len(near) else ""
    return f"no server has the address {oneLine(address)}; servers: {hint}{more}"


def combined(found: Iterable[Found]) -> list[dict[str, Any]]:
    """
    Make one list of the rows of all processes and generations, as L{mailgate.upstream.listing.combined} does.

    @param found: the answers, those of the current generation first.
    @return: the rows, with the keys of L{Row<mailgate.upstream.standing.Row>}.
    """
    return listed((each.isCurrent, each.rows) for each in found)


def passedOrders(notices: Notices) -> list[list[Any]]:
    """
    Return the orders that the successor of an upgrade continues with: lists of the address, the order, and its age in
    seconds, the oldest first. If there are too many, the oldest are missing.

    @param notices: what the processes of the gateway tell each other.
    """
    passed: list[list[Any]] = []
    length = 0
    for notice in reversed(list(notices.held("order"))):
        if not isinstance(notice.body, dict):
            continue
        length += 6 * len(notice.key) + 40
        if length > _MOST_PASSED:
            break
        passed.append([notice.key, notice.body.get("word"), round(notices.age(notice), 1)])
    return passed[::-1]


def receiveOrders(notices: Notices, passed: object) -> None:
    """
    Take the orders that the old process of an upgrade has passed on.

    @param notices: what the processes of the gateway tell each other.
    @param passed: the value of L{passedOrders}. The old process may be of another release: what is not valid is
        ignored.
    """
    for address, word, age in _valid(passed):
        notices.receive("order", address, {"word": word}, age)


def _valid(passed: object) -> Iterator[tuple[str, str, float]]:
    for each in passed if isinstance(passed, list) else ():
        match each:
            case [str(address), str(word), int(age) | float(age)] if word in ORDERS and age >= 0:
                yield address, word, float(age)
