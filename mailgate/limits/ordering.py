# -*- test-case-name: mailgate.test.limits.test_ordering -*-
"""
Blocks that hold at all gateways which share a store.

Blocks and holds of operators are notes in the store, and a message tells the other gateways of them at once. What an
operator ends is a note, too, for as long as a gateway could still have the block: one that has missed the message reads
it later, and one whose blocks are no notes any more, as the store was emptied, makes them again. Blocks of rules are in
the store for the next login; a message lets the other gateways list them at once.

Messages and notes are sealed, so that only gateways with the secret of the store can give orders.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Mapping
from functools import partial
from math import inf
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailgate.limits.attempt import Block, Rule
from mailgate.limits.clearing import clearRules
from mailgate.limits.defence import Defence
from mailgate.limits.digests import Digests
from mailgate.limits.merging import Merging
from mailgate.limits.news import blockRow
from mailgate.limits.operators import parsed
from mailgate.store.interfaces import IStore, StoreUnavailable
from mailgate.store.seal import Seal, SealBroken

__all__ = ["BLOCKS", "CHANNEL", "ENDED", "READ_EVERY", "SKEW", "Ordering"]

CHANNEL = "events"
"""The channel of messages about blocks."""

BLOCKS = "blocks"
"""The shelf of blocks and holds."""

ENDED = "ended"
"""The shelf of what operators have ended."""

READ_EVERY = 30.0
"""Seconds between two looks at the notes."""

SKEW = 300.0
"""
Seconds by which the clocks of two gateways may differ. A message that is older may be a copy that someone sends again;
a younger copy is known. What was in such a message is in the notes.
"""

_CLEARED_FOR = 3600.0
"""Seconds for which a note of what was cleared is kept at least, for gateways that do not hear it."""

_LOGGED_EVERY = 60.0
_MOST = 10000
"""How many orders and ended blocks are remembered."""

_MOST_UNSENT = 100
"""How many orders wait for a store that is away."""

_BLOCKED = (Rule.PAIR_BLOCK, Rule.ADDRESS_BLOCK, Rule.USER_REFUSE)

_log = Logger("mailgate")


class _Copied(ValueError):
    """A message may be one of before."""


class Ordering:
    """
    Tells other gateways of blocks, and does what they tell.

    @param defence: the tables here.
    @param merging: what takes over answers of the store.
    @param store: the store.
    @param seal: seals notes and messages.
    @param gateway: the name of this gateway.
    @param clock: the timers.
    @param digests: returns the digests of now.
    """

    def __init__(
        self,
        defence: Defence,
        merging: Merging,
        store: IStore,
        seal: Seal,
        gateway: str,
        clock: IReactorTime,
        digests: Callable[[], Digests],
    ) -> None:
        self._defence = defence
        self._merging = merging
        self._store = store
        self._seal = seal
        self._gateway = gateway
        self._clock = clock
        self._digests = digests
        self._ended: dict[str, None] = {}
        self._known: dict[str, None] = {}
        self._heard: dict[str, None] = {}
        self._unsent: dict[str, Mapping[str, Any]] = {}
        self._isReading = False
        self._loggedAt = -inf
        merging.forget = lambda things: store.clear(things).addErrback(self._failed)
        self._reading = LoopingCall(self.read)
        self._reading.clock = clock
        defence.ledger.operators.gateway = f"{gateway}."

    def start(self) -> None:
        """Read the notes from time to time."""
        self._reading.start(READ_EVERY, now=False)

    def stop(self) -> None:
        """Read them no more."""
        if self._reading.running:
            self._reading.stop()

    # What happens here.

    def block(self, block: Block, replaced: Block | None) -> None:
        """
        An operator has blocked something here.

        @param block: the block, in the time of the tables.
        @param replaced: the one in whose place it is; L{None} without.
        """
        if replaced is not None:
            self.end((replaced,), "")
        self._put(block)
        self._publish({"do": "block", "id": block.id, **self._written(block)})

    def end(self, blocks: Collection[Block], thing: str) -> None:
        """
        An operator has ended blocks here.

        @param blocks: they.
        @param thing: what was cleared besides, as for L{parsed}; empty for nothing.
        """
        now = self._defence.now
        id = f"{self._gateway}.{secrets.token_hex(8)}"
        ids = [block.id for block in blocks]
        things = [digest for each in [thing, *self._ruled(blocks)] for digest in self._digestsOf(each)]
        left = max([block.until - now for block in blocks], default=0.0)
        self._endMarks(ids, left)
        order = {
            "id": id,
            "order": {"ids": ids, "thing": thing, "left": left},
            "clear": [*dict.fromkeys(things)],
            "seconds": max(_CLEARED_FOR, left),
        }
        _remember(self._known, id)
        for each in ids:
            _remember(self._ended, each)
        self._send(order)

    def _endMarks(self, ids: Collection[str], left: float) -> None:
        for id in ids:
            self._merging.ended(id, self._defence.now + left)

    @staticmethod
    def _ruled(blocks: Collection[Block]) -> list[str]:
        return [block.thing for block in blocks if block.rule in _BLOCKED]

    def _digestsOf(self, thing: str) -> list[bytes]:
        try:
            return self._digests().thing(parsed(thing)) if thing else []
        except ValueError:
            # After a restart a block is a hash; the store ends it when it is named.
            return []

    def marked(self, key: int, other: int, rule: Rule, times: tuple[float, int], thing: str) -> None:
        """
        A rule has blocked something here.

        @param key: its key, which is the same at all gateways.
        @param other: as for L{mailgate.limits.blocks.Blocks.add}.
        @param rule: the rule.
        @param times: for how many seconds, and how often it was blocked.
        @param thing: what is blocked, in words.
        """
        seconds, count = times
        told = {"key": key, "other": other, "rule": rule.value, "seconds": seconds, "count": count, "thing": thing}
        self._publish({"do": "mark", **told})

    def _put(self, block: Block) -> None:
        left = block.until - self._defence.now
        if left > 0:
            value = self._close(self._written(block), _placeOf(BLOCKS, block.id))
            self._store.put(BLOCKS, block.id, value, left).addErrback(self._failed)

    def _written(self, block: Block) -> dict[str, Any]:
        return {
            "thing": block.thing,
            "rule": block.rule.value,
            "reason": block.reason,
            "seconds": block.until - block.since,
            "left": block.until - self._defence.now,
            "at": self._clock.seconds(),
        }

    def _send(self, order: Mapping[str, Any]) -> None:
        """Clear, tell, and leave a note. If the store is away, this is done again later."""
        store, id, what = self._store, order["id"], order["order"]
        if order["clear"]:
            store.clear(order["clear"]).addErrback(self._unsentOrder, order)
        if what["ids"]:
            store.take(BLOCKS, what["ids"]).addErrback(self._unsentOrder, order)
        dated = {**what, "at": self._clock.seconds(), "seconds": order["seconds"]}
        note = self._close(dated, _placeOf(ENDED, id))
        store.put(ENDED, id, note, order["seconds"]).addErrback(self._unsentOrder, order)
        self._publish({"do": "end", "id": id, **what})

    def _unsentOrder(self, failure: Failure, order: Mapping[str, Any]) -> None:
        self._failed(failure)
        if len(self._unsent) < _MOST_UNSENT:
            self._unsent[order["id"]] = order

    def _publish(self, event: Mapping[str, Any]) -> None:
        whole = {"by": self._gateway, "at": self._clock.seconds(), "nonce": secrets.token_hex(8), **event}
        message = self._close(whole, CHANNEL.encode())
        self._store.publish(CHANNEL, message).addErrback(self._failed)

    def _close(self, value: Mapping[str, Any], place: bytes) -> bytes:
        return self._seal.close(json.dumps(value).encode(), place)

    def _failed(self, failure: Failure) -> None:
        if failure.check(StoreUnavailable) is None:
            _log.failure("cannot tell other gateways of blocks", failure)

    # What others tell.

    def heard(self, message: bytes) -> None:
        """
        A gateway has told something.

        @param message: sealed.
        """
        try:
            event = self._open(message, CHANNEL.encode())
            if event["by"] != self._gateway and self._isNews(event):
                _DEEDS[event["do"]](self, event)
        except (SealBroken, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            self._broken("a message", error)

    def _isNews(self, event: Mapping[str, Any]) -> bool:
        """Whether nobody has sent a copy of a message of before."""
        nonce = str(event["nonce"])
        if not abs(self._clock.seconds() - float(event["at"])) <= SKEW:
            raise _Copied("its clock differs by more than five minutes, or it was sent again")
        if nonce in self._heard:
            return False
        _remember(self._heard, nonce)
        return True

    def _open(self, sealed: bytes, place: bytes) -> dict[str, Any]:
        value = json.loads(self._seal.open(sealed, place))
        if not isinstance(value, dict):
            raise ValueError("it is no object")
        return value

    def _broken(self, what: str, error: Exception) -> None:
        now = self._clock.seconds()
        if now - self._loggedAt >= _LOGGED_EVERY:
            self._loggedAt = now
            _log.warn(
                "{what} of another gateway about blocks cannot be used: {reason}",
                what=what,
                reason=str(error) if isinstance(error, SealBroken | _Copied) else type(error).__name__,
            )

    def _heardBlock(self, event: Mapping[str, Any]) -> None:
        self._adopt(str(event["id"]), event, float(event["left"]))

    def _adopt(self, id: str, written: Mapping[str, Any], left: float) -> None:
        if id in self._ended or not left > 0:
            return
        now = self._defence.now
        total = max(left, float(written["seconds"]))
        row = {**written, "id": id, "since": now + left - total, "until": now + left}
        operators = self._defence.ledger.operators
        operators.adopt(row)
        block = operators.like(str(written["thing"]))
        if block is not None:
            self._defence.changed(["block", blockRow(block)])

    def _heardEnd(self, event: Mapping[str, Any]) -> None:
        id = str(event["id"])
        if id not in self._known:
            _remember(self._known, id)
            self._end(event)

    def _end(self, order: Mapping[str, Any]) -> None:
        defence, ledger = self._defence, self._defence.ledger
        ids, thing = [str(each) for each in order["ids"]], str(order["thing"])
        for each in ids:
            _remember(self._ended, each)
        for block in ledger.operators.removeIds(ids):
            defence.changed(["unblock", block.id])
        clearRules(ledger, thing, ids, defence.now)
        self._endMarks(ids, float(order.get("left", 0.0)))
        self._merging.cleared()
        if thing:
            defence.changed(["clear", thing])
            # A process ends all blocks of the thing then, also one that was made since.
            for block in ledger.operators:
                defence.changed(["block", blockRow(block)])

    def _heardMark(self, event: Mapping[str, Any]) -> None:
        rule, key, other = Rule(event["rule"]), int(event["key"]), int(event["other"])
        seconds, count = float(event["seconds"]), int(event["count"])
        if rule not in _BLOCKED or not 0 < key < 1 << 60 or not 0 < seconds < 366 * 86400:
            raise ValueError("it is no block")
        defence = self._defence
        self._merging.begun(key)
        defence.ledger.blocks.raiseTo(key, other, rule, seconds, count, str(event["thing"]), defence.now)

    # Notes.

    def read(self) -> None:
        """Read what has begun and ended at other gateways, unless that is under way or the store is away."""
        if self._isReading or not self._store.isUp:
            return
        self._isReading = True
        unsent, self._unsent = self._unsent, {}
        for order in unsent.values():
            self._send(order)
        reading = self._store.notes(ENDED).addCallback(self._readEnded)
        reading.addErrback(self._failed).addBoth(self._hasRead)

    def _readEnded(self, notes: Mapping[str, tuple[bytes, float]]) -> Deferred[None]:
        for id, (sealed, _) in notes.items():
            if id not in self._known:
                self._use(ENDED, id, sealed, partial(self._endNoted, id))
        return self._store.notes(BLOCKS).addCallback(self._readBlocks)

    def _endNoted(self, id: str, order: Mapping[str, Any]) -> None:
        # Only what could be opened is remembered: ids of strangers would displace those of orders.
        _remember(self._known, id)
        if self._clock.seconds() - float(order["at"]) <= float(order["seconds"]) + SKEW:
            self._end(order)

    def _adoptNoted(self, id: str, left: float, written: Mapping[str, Any]) -> None:
        """Take over a block, for no longer than is sealed: a stranger may have changed when the store drops it."""
        age = max(0.0, self._clock.seconds() - float(written["at"]) - SKEW)
        self._adopt(id, written, min(left, float(written["left"]) - age))

    def _readBlocks(self, notes: Mapping[str, tuple[bytes, float]]) -> None:
        operators = self._defence.ledger.operators
        here = {block.id: block for block in operators}
        for id, (sealed, left) in notes.items():
            if id not in here:
                self._use(BLOCKS, id, sealed, partial(self._adoptNoted, id, left))
        for id, block in here.items():
            if id not in notes:
                self._put(block)

    def _use(self, shelf: str, id: str, sealed: bytes, use: Callable[[dict[str, Any]], None]) -> None:
        try:
            use(self._open(sealed, _placeOf(shelf, id)))
        except (SealBroken, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            self._broken("a note", error)

    def _hasRead(self, _: object) -> None:
        self._isReading = False


_DEEDS: Mapping[str, Callable[[Ordering, Mapping[str, Any]], None]] = {
    "block": Ordering._heardBlock,
    "end": Ordering._heardEnd,
    "mark": Ordering._heardMark,
}


def _placeOf(shelf: str, id: str) -> bytes:
    return f"note:{shelf}:{id}".encode()


def _remember(known: dict[str, None], id: str) -> None:
    """Remember an id; of too many, the oldest goes."""
    if len(known) >= _MOST:
        del known[next(iter(known))]
    known[id] = None
