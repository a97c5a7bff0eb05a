# -*- test-case-name: mailgate.test.keeper.cluster.test_tickets -*-
"""
Keys of TLS tickets that all gateways share, so that a client resumes its session at any of them.

One gateway makes a secret every period, which a lease decides, and puts it into the store, sealed. Each gateway looks
for secrets there, and gives them to its processes, which derive the keys of their servers from them. A secret issues
tickets only after all gateways had time to find it. While the store is gone each gateway makes secrets of its own, so
that no key is used for longer than it should.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from mailgate.config import GatewaySettings
from mailgate.keeper.answers.tickets import MOST_SECRETS
from mailgate.keeper.cluster.wire import SKEW
from mailgate.keeper.interfaces import Collected
from mailgate.keeper.keeper import Keeper
from mailgate.store.interfaces import IStore, StoreUnavailable
from mailgate.store.seal import Seal, SealBroken
from mailgate.tls.context import lifetime
from mailgate.tls.settings import TLSSettings, usesTLS
from mailgate.tls.ticketkeys import ticketKeyCall
from mailgate.tls.tickets import PERIOD

__all__ = ["LEAD", "LOOK", "SHELF", "TELL", "TicketKeys", "ticketsLifetime"]

SHELF = "tickets"
"""The shelf of the store, and the question to processes."""

LOOK = 30.0
"""Seconds between two looks into the store."""

LEAD = 2 * LOOK
"""Seconds from the making of a secret until it issues tickets, and after which no gateway issues by the one before."""

TELL = 5.0
"""Seconds between two times that processes are told the secrets: there may be new ones."""

_SIZE = 32
_ID = 8
_HEAD = struct.Struct(">dd")

_log = Logger("mailgate")


def ticketsLifetime(settings: GatewaySettings) -> float | None:
    """
    Return for how many seconds tickets are valid, at the server where that is longest. L{None}: no server can share
    keys, because OpenSSL's call is hidden, or all have C{ssl_session_ticket_key} or issue no tickets.

    @param settings: the configuration.
    """
    if ticketKeyCall() is None:
        return None
    own = [server[TLSSettings] for server in settings.servers if usesTLS(server)]
    return max((float(lifetime(tls)) for tls in own if tls.sessionTickets and not tls.ticketKeys), default=None)


@frozen
class _Secret:
    """
    A secret.

    @ivar value: random bytes.
    @ivar made: when it was made, in seconds of the clock.
    @ivar isShared: whether it is in the store.
    """

    value: bytes
    made: float
    isShared: bool


class TicketKeys:
    """
    Rotates the keys.

    @param keeper: asks the processes to use them.
    @param store: the store.
    @param seal: seals them there.
    @param lifetime: for how many seconds a ticket is valid.
    @param clock: the time and timers. Its seconds are those since 1970.
    @param randomness: returns as many random bytes as its argument says.
    """

    def __init__(
        self,
        keeper: Keeper,
        store: IStore,
        seal: Seal,
        lifetime: float,
        clock: IReactorTime,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.period = max(lifetime, PERIOD)
        self._kept = self.period + lifetime + 2 * LEAD
        self._lifetime = lifetime
        self._keeper = keeper
        self._store = store
        self._seal = seal
        self._clock = clock
        self._randomness = randomness
        self._secrets: list[_Secret] = []
        self._isLooking = False
        self._hasWarned = False
        self._calls = [(LoopingCall(self._look), LOOK), (LoopingCall(self.tell), TELL)]
        for call, _ in self._calls:
            call.clock = clock

    def start(self) -> None:
        """Begin to look and to tell."""
        for call, seconds in self._calls:
            call.start(seconds)

    def stop(self) -> None:
        """Stop. The processes keep what they have."""
        for call, _ in self._calls:
            if call.running:
                call.stop()

    # The store.

    def _look(self) -> None:
        if self._isLooking:
            return
        self._isLooking = True
        looked = Deferred.fromCoroutine(self._lookOnce())
        looked.addErrback(lambda failure: _log.failure("the keys of TLS tickets cannot be rotated", failure))
        looked.addBoth(self._looked)

    def _looked(self, _: object) -> None:
        self._isLooking = False

    async def _lookOnce(self) -> None:
        try:
            shared = await self._found()
            if self._isDue(shared) and await self._store.lease(SHELF.encode(), LOOK):
                # Another gateway may have made one meanwhile.
                shared = await self._found()
                if self._isDue(shared):
                    shared.append(await self._make())
        except StoreUnavailable:
            if self._isDue(self._secrets):
                self._secrets.append(_Secret(self._randomness(_SIZE), self._clock.seconds(), False))
        else:
            self._secrets = [*shared, *(each for each in self._secrets if not each.isShared)]
        self._expire()
        self.tell()

    async def _found(self) -> list[_Secret]:
        now, found = self._clock.seconds(), []
        for id, (sealed, left) in (await self._store.notes(SHELF)).items():
            try:
                opened = self._seal.open(sealed, _place(id))
            except SealBroken:
                # Of another secret of the store, or forged.
                continue
            kept, made = _HEAD.unpack_from(opened)
            # A stranger may have changed when the store drops it, so that it would issue tickets for ever.
            found.append(_Secret(opened[_HEAD.size :], min(now - (kept - left), made + SKEW), True))
        return sorted(found, key=lambda each: each.made)

    async def _make(self) -> _Secret:
        id, value = self._randomness(_ID).hex(), self._randomness(_SIZE)
        sealed = self._seal.close(_HEAD.pack(self._kept, self._clock.seconds()) + value, _place(id))
        await self._store.put(SHELF, id, sealed, self._kept)
        return _Secret(value, self._clock.seconds(), True)

    def _isDue(self, secrets: list[_Secret]) -> bool:
        """Whether the latest has had its turn, so that the next one must be made: a lead before the turn ends."""
        return not secrets or max(each.made for each in secrets) + self.period <= self._clock.seconds()

    def _expire(self) -> None:
        """Keep those that issue tickets, or will, or have issued some that may be valid."""
        now = self._clock.seconds()
        self._secrets.sort(key=lambda each: each.made)
        following = [each.made for each in self._secrets[1:]]
        old = [next + 2 * LEAD + self._lifetime <= now for next in following]
        self._secrets = self._secrets[sum(old) :][-MOST_SECRETS:]

    # The processes.

    @property
    def secrets(self) -> list[bytes]:
        """The secrets: first the one for new tickets, then those whose tickets are accepted."""
        now = self._clock.seconds()
        # The latest that all gateways know. A shared one is better than an own one, as long as it is not too old.
        ready = [each for each in self._secrets if each.made + LEAD <= now] or self._secrets[:1]
        inTurn = [each for each in ready if each.isShared and now < each.made + self.period + 2 * LEAD]
        issuing = (inTurn or ready)[-1:]
        return [each.value for each in (*issuing, *(each for each in self._secrets if each not in issuing))]

    def tell(self) -> None:
        """Give the secrets to all processes, which may have them already."""
        secrets = [each.hex() for each in self.secrets]
        if secrets:
            self._keeper.ask(SHELF, {"secrets": secrets}).addCallbacks(self._told, lambda _: None)

    def _told(self, answer: Collected) -> None:
        if not all(answer.rows) and not self._hasWarned:
            self._hasWarned = True
            _log.warn("TLS tickets are not shared with other gateways: OpenSSL does not issue tickets with their keys")


def _place(id: str) -> bytes:
    """Where a secret is, for its seal."""
    return f"{SHELF}:{id}".encode()
