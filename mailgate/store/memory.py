# -*- test-case-name: mailgate.test.store.test_contract -*-
"""
A store in this process: for a gateway without C{store}, which keeps the places of its users there, and for tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from mailgate.store.counts import countsIn
from mailgate.store.expiring import Expiring
from mailgate.store.interfaces import (
    COUNTED,
    DEAD,
    MOST_NOTES,
    Beat,
    Failure,
    Mark,
    Question,
    Standing,
    Success,
)
from mailgate.store.memorylogins import MemoryLogins

__all__ = ["Memory", "MemoryStore"]

_MOST = 1 << 18
"""Values of each sort: some 100 MiB at worst."""

_FORGOTTEN = 3600.0
"""After so many seconds a dead gateway is in no list any more."""


@define
class _Gateway:
    """A gateway: its run, when it has beaten last, and its sessions."""

    run: str
    moment: float
    sessions: dict[str, bytes] = field(factory=dict)


class Memory:
    """
    What the stores of several gateways share.

    @param most: how many values of each sort there are at most.
    """

    def __init__(self, most: int = _MOST) -> None:
        self.logins = MemoryLogins(most)
        self.places: Expiring[bytes, bytes] = Expiring(most)
        self.shelves: dict[str, Expiring[str, bytes]] = {}
        self.gateways: dict[str, _Gateway] = {}
        self.counts: Expiring[bytes, dict[str, tuple[str, dict[bytes, int]]]] = Expiring(most)
        self.stores: list[MemoryStore] = []


class MemoryStore:
    """
    See L{mailgate.store.interfaces.IStore}. It answers at once; messages are heard in a later turn.

    @param clock: the event loop.
    @param memory: what is shared with other stores; L{None} for one of its own.
    @param gateway: the name of the gateway, for the messages to it.
    """

    def __init__(self, clock: IReactorTime, memory: Memory | None = None, gateway: str = "") -> None:
        self.isUp = True
        self.heard: Callable[[str, bytes], object] = lambda channel, message: None
        self.resumed: Callable[[], object] = lambda: None
        self.changed: Callable[[bool], object] = lambda isUp: None
        self.memory = Memory() if memory is None else memory
        self._clock = clock
        self._gateway = gateway

    # Logins.

    def check(self, question: Question) -> Deferred[Standing]:
        now = self._clock.seconds()
        standing = self.memory.logins.check(question, now)
        return succeed(evolve(standing, sessions=self._elsewhere(question, now)))

    def _elsewhere(self, question: Question, now: float) -> dict[str, tuple[int, int]]:
        found = self._sessionsOf(question.user, question, now)
        return {gateway: counts for gateway, counts in found.items() if gateway != self._gateway}

    def checkKnown(self, questions: Sequence[Question]) -> Deferred[Sequence[Standing | None]]:
        now = self._clock.seconds()
        return succeed([self._known(each, now) for each in questions])

    def _known(self, question: Question, now: float) -> Standing | None:
        found = self.memory.logins.check(evolve(question, interval=0.0), now)
        sessions = self._elsewhere(question, now)
        weights = found.atAddress, found.atNetwork, found.ofUser, found.failedUsers
        if not (found.guesses or found.marks or sessions or any(weights)):
            return None
        return Standing(found.guesses, *weights, marks=found.marks, sessions=sessions)

    def failed(self, failure: Failure) -> Deferred[bool]:
        return succeed(self.memory.logins.failed(failure, self._clock.seconds()))

    def succeeded(self, success: Success) -> Deferred[None]:
        self.memory.logins.succeeded(success, self._clock.seconds())
        return succeed(None)

    def mark(self, mark: Mark, keep: float) -> Deferred[None]:
        self.memory.logins.mark(mark, keep, self._clock.seconds())
        return succeed(None)

    def clear(self, things: Sequence[bytes]) -> Deferred[None]:
        self.memory.logins.clear(things, self._clock.seconds())
        return succeed(None)

    def lease(self, name: bytes, seconds: float) -> Deferred[bool]:
        return succeed(self.memory.logins.lease(name, seconds, self._clock.seconds()))

    # Notes.

    def put(self, shelf: str, id: str, value: bytes, seconds: float) -> Deferred[None]:
        now = self._clock.seconds()
        values = self.memory.shelves.setdefault(shelf, Expiring(MOST_NOTES))
        values.put(id, value, now + seconds, now)
        return succeed(None)

    def take(self, shelf: str, ids: Sequence[str]) -> Deferred[None]:
        values = self.memory.shelves.get(shelf)
        if values is not None:
            for each in ids:
                values.drop(each)
        return succeed(None)

    def notes(self, shelf: str) -> Deferred[Mapping[str, tuple[bytes, float]]]:
        now = self._clock.seconds()
        values = self.memory.shelves.get(shelf)
        return succeed({} if values is None else {key: (value, until - now) for key, value, until in values.items(now)})

    # Places.

    def place(self, key: bytes, backend: bytes, seconds: float, instead: bytes | None = None) -> Deferred[bytes]:
        now, places = self._clock.seconds(), self.memory.places
        has = places.get(key, now)
        if has is None or (instead is not None and instead in (b"", has)):
            has = backend
        places.put(key, has, now + seconds, now)
        return succeed(has)

    def placeOf(self, key: bytes) -> Deferred[bytes]:
        return succeed(self.memory.places.get(key, self._clock.seconds()) or b"")

    def retain(self, keys: Sequence[bytes], seconds: float) -> Deferred[None]:
        now, places = self._clock.seconds(), self.memory.places
        for key in keys:
            has = places.get(key, now)
            if has is not None:
                places.put(key, has, now + seconds, now)
        return succeed(None)

    # The registry.

    def beat(self, beat: Beat) -> Deferred[bool]:
        now, memory = self._clock.seconds(), self.memory
        known = memory.gateways.get(beat.gateway)
        if beat.isAll:
            known = memory.gateways[beat.gateway] = _Gateway(beat.run, now)
        elif known is None or known.run != beat.run:
            return succeed(False)
        known.moment = now
        known.sessions.update(beat.began)
        for id in beat.ended:
            known.sessions.pop(id, None)
        for user, counts in beat.counts.items():
            self._count(user, beat.gateway, beat.run, counts, now)
        return succeed(True)

    def _count(self, user: bytes, gateway: str, run: str, counts: bytes, now: float) -> None:
        rows = dict(self.memory.counts.get(user, now) or {})
        rows.pop(gateway, None)
        if counts:
            rows[gateway] = run, dict(countsIn(counts))
        self.memory.counts.put(user, rows, now + COUNTED if rows else now, now)

    def leave(self, gateway: str, run: str) -> Deferred[None]:
        known = self.memory.gateways.get(gateway)
        if known is not None and known.run == run:
            del self.memory.gateways[gateway]
        return succeed(None)

    def gateways(self) -> Deferred[Mapping[str, tuple[str, float]]]:
        now, known = self._clock.seconds(), self.memory.gateways
        for name in [name for name, each in known.items() if now - each.moment >= _FORGOTTEN]:
            del known[name]
        return succeed({name: (each.run, now - each.moment) for name, each in known.items()})

    def _isAlive(self, gateway: str, now: float) -> bool:
        known = self.memory.gateways.get(gateway)
        return known is not None and now - known.moment < DEAD

    def sessionsAt(self, gateway: str, most: int) -> Deferred[Mapping[str, bytes]]:
        known = self.memory.gateways.get(gateway)
        if known is None or not self._isAlive(gateway, self._clock.seconds()):
            return succeed({})
        return succeed(dict([*known.sessions.items()][:most]))

    def sessionsOf(self, user: bytes) -> Deferred[Mapping[str, int]]:
        found = self._sessionsOf(user, None, self._clock.seconds())
        return succeed({gateway: total for gateway, (total, _) in found.items()})

    def _sessionsOf(self, user: bytes, question: Question | None, now: float) -> dict[str, tuple[int, int]]:
        memory = self.memory
        protocol = b"" if question is None else question.protocol
        part = b"" if question is None else protocol + (question.address or bytes(4))[:4]
        found = {}
        for gateway, (run, counts) in (memory.counts.get(user, now) or {}).items():
            if self._isAlive(gateway, now) and memory.gateways[gateway].run == run:
                total = sum(count for key, count in counts.items() if key.startswith(protocol))
                if total:
                    found[gateway] = total, counts.get(part, 0)
        return found

    # Messages.

    def publish(self, channel: str, message: bytes) -> Deferred[int]:
        hearing = [each for each in self.memory.stores if each._hears(channel)]
        for each in hearing:
            self._clock.callLater(0, each._hear, channel, message)
        return succeed(len(hearing))

    def _hears(self, channel: str) -> bool:
        to, colon, gateway = channel.partition(":")
        return not colon or to != "to" or gateway == self._gateway

    def _hear(self, channel: str, message: bytes) -> None:
        if self in self.memory.stores:
            self.heard(channel, message)

    # Life.

    def start(self) -> None:
        self.memory.stores.append(self)
        self._clock.callLater(0, self._resume)

    def _resume(self) -> None:
        if self in self.memory.stores:
            self.resumed()

    def stop(self) -> Deferred[None]:
        if self in self.memory.stores:
            self.memory.stores.remove(self)
        return succeed(None)
