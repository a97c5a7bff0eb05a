# -*- test-case-name: mailgate.test.keeper.cluster.test_others -*-
"""
Orders that a gateway must carry out even if it has missed their message: they are notes in the store for an hour. A
gateway that hears the store again carries out those that it has missed, for what was there before the order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailgate.keeper.cluster.wire import SKEW, BadMessage, Question, readQuestion
from mailgate.keeper.interfaces import Collected
from mailgate.store.interfaces import IStore, StoreUnavailable
from mailgate.store.seal import Seal, SealBroken

__all__ = ["KEPT_FOR", "SHELF", "KeptOrders"]

KEPT_FOR = 3600.0
"""Seconds for which an order is kept."""

SHELF = "kicks"
"""The shelf of the notes."""

_MOST_DONE = 10_000

_log = Logger("mailgate")


class KeptOrders:
    """
    Keeps orders, and carries out those that were missed.

    @param store: the store.
    @param seal: seals the notes.
    @param carryOut: called with the word and the arguments of an order that was missed. Among them is C{age}: how many
        seconds ago the order was given, by the time of the store.
    @param clock: the time.
    """

    def __init__(
        self,
        store: IStore,
        seal: Seal,
        carryOut: Callable[[str, Mapping[str, Any]], Deferred[Collected]],
        clock: IReactorTime,
    ) -> None:
        self._store = store
        self._seal = seal
        self._carryOut = carryOut
        self._clock = clock
        self._done: dict[str, float] = {}

    def keep(self, order: Question) -> None:
        """
        Keep an order of this gateway. Nothing is said if the store cannot be used: those that do not answer are named.

        @param order: the order.
        """
        self.done(order.id)
        sealed = self._seal.close(order.write(), _place(order.id))
        self._store.put(SHELF, order.id, sealed, KEPT_FOR).addErrback(_trap)

    def done(self, id: str) -> None:
        """
        An order was carried out.

        @param id: its id.
        """
        now = self._clock.seconds()
        self._done[id] = now
        while self._done:
            first = next(iter(self._done))
            if len(self._done) <= _MOST_DONE and now - self._done[first] < 2 * KEPT_FOR:
                return
            del self._done[first]

    def resumed(self) -> None:
        """Carry out what was missed."""
        self._store.notes(SHELF).addCallbacks(self._found, _trap)

    def _found(self, notes: Mapping[str, tuple[bytes, float]]) -> None:
        reason = ""
        for id, (sealed, left) in notes.items():
            if id in self._done:
                continue
            try:
                order = readQuestion(self._seal.open(sealed, _place(id)))
            except (SealBroken, BadMessage) as error:
                # It is not remembered: ids of strangers would displace those of orders.
                reason = str(error)
                continue
            self.done(id)
            # A stranger may have changed when the store drops it. When it was given is sealed.
            age = max(0.0, KEPT_FOR - left, self._clock.seconds() - order.at - SKEW)
            if order.id == id and age <= KEPT_FOR:
                arguments = {**order.arguments, "age": age}
                self._carryOut(order.word, arguments).addErrback(
                    lambda failure: _log.failure("cannot carry out an order of another gateway", failure)
                )
        if reason:
            _log.warn("ignored an order in the store: {reason}", reason=reason)


def _place(id: str) -> bytes:
    return f"note:{SHELF}:{id}".encode("ascii", "replace")


def _trap(failure: Any) -> None:
    failure.trap(StoreUnavailable)
