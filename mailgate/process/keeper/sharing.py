# -*- test-case-name: mailgate.test.process.keeper.test_sharing -*-
"""
What a gateway shares with others over a store, made by the configuration. It is the same in a keeper of its own and in
a gateway without workers, and nothing of it exists without C{store}.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed

from mailgate.config import GatewaySettings
from mailgate.keeper.cluster.answers import answersOf
from mailgate.keeper.cluster.others import Others
from mailgate.keeper.cluster.registry import Registry
from mailgate.keeper.cluster.tickets import TicketKeys, ticketsLifetime
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.placing import Placing
from mailgate.limits.defence import Defence
from mailgate.limits.settings import LimitSettings
from mailgate.limits.shared import SharedDefence
from mailgate.store.interfaces import IStore
from mailgate.store.keys import StoreKeys
from mailgate.store.seal import Seal
from mailgate.store.settings import StoreSettings
from mailgate.watch.gatewayname import NameSettings

__all__ = ["EVENTS", "Sharing", "sharingFor"]

EVENTS = "events"
"""The channel of what operators have blocked and unblocked at other gateways."""


class Sharing(Service):
    """
    Connects a keeper with the other gateways.

    @param store: the store, which is not started.
    @param keys: make the digests.
    @param settings: the configuration.
    @param reactor: the time and timers.
    @param defence: the limits of this gateway, before anything is restored.
    @ivar defence: the limits of all gateways.
    """

    def __init__(
        self, store: IStore, keys: StoreKeys, settings: GatewaySettings, reactor: Any, defence: Defence
    ) -> None:
        self._store = store
        self._keys = keys
        self._seal = Seal(keys.derived(b"seal"))
        self._reactor = reactor
        self._prefixes = settings[LimitSettings].prefixes
        self._ticketsLifetime = ticketsLifetime(settings)
        self._name = settings[NameSettings].shown
        timeout = settings[StoreSettings].timeout
        self.defence = SharedDefence(defence, store, keys, self._seal, self._name, reactor, timeout)
        self._registry: Registry | None = None
        self._others: Others | None = None
        self._placing: Placing | None = None
        self._tickets: TicketKeys | None = None
        self._isHandedOver = False
        store.heard, store.resumed, store.changed = self._heard, self._resumed, self._changed

    def join(self, keeper: Keeper) -> None:
        """
        Connect a keeper, before processes link to it.

        @param keeper: the keeper.
        """
        registry = Registry(self._store, self._keys, self._seal, self._name, self._prefixes, self._reactor)
        others = Others(
            self._name,
            self._store,
            self._seal,
            answersOf(keeper),
            self._reactor,
            registry.records.read,
            mark=self._keys.mark,
        )
        keeper.others, keeper.registry = others, registry
        keeper.placing = Placing(self._store, self._keys, self._reactor, self._name, isShared=True)
        if self._ticketsLifetime is not None:
            self._tickets = TicketKeys(keeper, self._store, self._seal, self._ticketsLifetime, self._reactor)
        self._registry, self._others, self._placing = registry, others, keeper.placing

    # What the store says.

    def _heard(self, channel: str, message: bytes) -> None:
        if channel == EVENTS:
            self.defence.heard(message)
        elif self._others is not None:
            self._others.heard(channel, message)

    def _resumed(self) -> None:
        self.defence.resumed()
        if self._others is not None and self._placing is not None:
            self._others.resumed()
            self._placing.resumed()

    def _changed(self, isUp: bool) -> None:
        if self._others is not None:
            self._others.neighbours.changed(isUp, getattr(self._store, "reason", ""))

    # Life.

    def startService(self) -> None:
        """Connect. Nothing waits for that."""
        super().startService()
        self._store.start()
        self.defence.start()
        if self._registry is not None and self._others is not None:
            self._registry.start()
            self._others.start()
        if self._tickets is not None:
            self._tickets.start()

    def handOver(self) -> Deferred[Any]:
        """A successor of the keeper continues: leave the store without taking anything back."""
        self._isHandedOver = True
        if self._registry is not None:
            self._registry.handOver()
        return maybeDeferred(self.stopService)

    def stopService(self) -> Deferred[Any]:
        """Leave the store."""
        if not self.running:
            return succeed(None)
        super().stopService()
        if self._others is not None:
            self._others.stop() if self._isHandedOver else self._others.leave()
        if self._tickets is not None:
            self._tickets.stop()
        self.defence.stop()
        left: Deferred[Any] = succeed(None) if self._registry is None else self._registry.stop()
        return left.addBoth(lambda _: self._store.stop())


def sharingFor(settings: GatewaySettings, reactor: Any, defence: Any) -> Sharing | None:
    """
    Make it. This reads the files of the store's directives as the current user.

    @param settings: the configuration.
    @param reactor: the reactor.
    @param defence: the limits of the gateway, a L{Defence}.
    @return: L{None} without C{store}.
    @raise ValueError: one of the files cannot be used.
    """
    own = settings[StoreSettings]
    if own.address is None:
        return None
    # Imported here because it takes memory that a gateway without a store can save.
    from mailgate.store.redis.store import storeFor

    access = own.access()
    store = storeFor(own, access, reactor, settings[NameSettings].shown)
    return Sharing(store, StoreKeys(access.secret), settings, reactor, defence)
