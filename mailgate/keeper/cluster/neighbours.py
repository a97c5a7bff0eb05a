# -*- test-case-name: mailgate.test.keeper.cluster.test_neighbours -*-
"""
Which other gateways there are, and when each was heard of; and how the store is. The store knows by the beats of the
gateways. What it said last holds while it is down, and when it has come back empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from mailgate.keeper.moments import moment
from mailgate.log.journal import oneLine
from mailgate.store.interfaces import DEAD, IStore, StoreUnavailable

__all__ = ["FORGOTTEN_AFTER", "Neighbours"]

FORGOTTEN_AFTER = 3600.0
"""Seconds after which a gateway that has not said goodbye is no alarm any more."""

_LOOK = 10.0
"""Seconds between two looks."""

_log = Logger("mailgate")


class Neighbours:
    """
    Knows the other gateways.

    @param gateway: the name of this gateway.
    @param store: the store.
    @param clock: the time and timers. Its seconds are those since 1970.
    @param mark: that of L{mailgate.store.keys.StoreKeys}, with which runs begin; empty: it is not compared.
    @ivar isUp: whether the store can be used.
    @ivar since: since when, in seconds since 1970.
    @ivar reason: why it cannot be used; empty if that is not known.
    """

    def __init__(self, gateway: str, store: IStore, clock: IReactorTime, mark: str = "") -> None:
        self._gateway = gateway
        self._store = store
        self._clock = clock
        self._mark = mark
        # Those with another secret.
        self._strangers: set[str] = set()
        # The time of the last beat of each.
        self._beats: dict[str, float] = {}
        # Those of them that the store does not know any more.
        self._missed: set[str] = set()
        self.isUp = store.isUp
        self.since = clock.seconds()
        self.reason = ""
        self._looking = LoopingCall(self.look)
        self._looking.clock = clock

    def start(self) -> None:
        """Look from time to time."""
        if not self._looking.running:
            self._looking.start(_LOOK, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._looking.running:
            self._looking.stop()

    def changed(self, isUp: bool, reason: str = "") -> None:
        """
        The store can be used again, or not any more.

        @param isUp: whether it can.
        @param reason: why not.
        """
        if isUp != self.isUp:
            self.since = self._clock.seconds()
        self.isUp, self.reason = isUp, "" if isUp else reason

    def look(self) -> Deferred[None]:
        """Find out which gateways there are. The Deferred fires when that is known, or cannot be found out."""
        return self._store.gateways().addCallbacks(self._found, self._failed)

    def _found(self, gateways: Mapping[str, tuple[str, float]]) -> None:
        now = self._clock.seconds()
        self._compare(gateways)
        found = {
            name: now - age for name, (_, age) in gateways.items() if name not in (self._gateway, *self._strangers)
        }
        self._missed.difference_update(found)
        for name, beat in list(self._beats.items()):
            # It may have left without being heard. Or the store is empty, and it beats again soon.
            if name not in found and now - beat < DEAD:
                self._missed.add(name)
            elif name not in found and (name in self._missed or now - beat >= FORGOTTEN_AFTER):
                self.left(name)
        self._beats.update(found)

    def _compare(self, gateways: Mapping[str, tuple[str, float]]) -> None:
        """Find those that have another secret. They can neither read what this gateway says, nor be read."""
        others = {
            name
            for name, (run, age) in gateways.items()
            if self._mark and name != self._gateway and age < DEAD and not run.startswith(f"{self._mark}.")
        }
        for name in sorted(others - self._strangers):
            _log.error(
                "gateway {name} uses the same store with another secret: it shares nothing with this one until "
                "store_secret_file is the same at both",
                name=oneLine(name),
            )
            self.left(name)
        self._strangers = others

    def _failed(self, failure: Any) -> None:
        failure.trap(StoreUnavailable)

    def heard(self, name: str) -> None:
        """Another gateway has sent something. C{name} is its name."""
        if name in self._beats:
            self._beats[name] = self._clock.seconds()

    def left(self, name: str) -> None:
        """Another gateway has said goodbye. C{name} is its name."""
        self._beats.pop(name, None)
        self._missed.discard(name)

    def _ages(self) -> dict[str, float]:
        now = self._clock.seconds()
        ages = {name: max(0.0, now - beat) for name, beat in sorted(self._beats.items())}
        return {name: age for name, age in ages.items() if age < DEAD or name not in self._missed}

    def living(self) -> dict[str, float]:
        """
        Return how many seconds ago each other gateway that lives was heard of, by name. While the store is down, those
        count that lived when it was asked last.
        """
        ages = self._ages()
        if self.isUp:
            return {name: age for name, age in ages.items() if age < DEAD}
        return {name: age for name, age in ages.items() if age < FORGOTTEN_AFTER}

    def silent(self) -> dict[str, float]:
        """Return how many seconds ago each gateway was heard of that has fallen silent, by name."""
        if not self.isUp:
            return {}
        return {name: age for name, age in self._ages().items() if DEAD <= age < FORGOTTEN_AFTER}

    def standing(self) -> dict[str, Any]:
        """
        Return how the store and the gateways are, as a value of JSON: C{up}, C{since} (RFC 3339), C{reason}, and
        C{gateways}: objects with C{name} and C{age}, in seconds, the own one first.
        """
        others = [{"name": name, "age": round(age, 1)} for name, age in self._ages().items() if age < FORGOTTEN_AFTER]
        return {
            "up": self.isUp,
            "since": moment(self.since),
            "reason": self.reason,
            "gateways": [{"name": self._gateway, "age": 0.0}, *others],
        }
