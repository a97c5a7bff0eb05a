# -*- test-case-name: mailgate.test.keeper.cluster.test_registry -*-
"""
Which sessions this gateway has, for the other gateways that share a store: the processes that serve clients tell it
(L{mailgate.keeper.feed}), and it tells the store.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailgate.keeper.arrivals import isRunning
from mailgate.keeper.cluster.beating import Beating
from mailgate.keeper.cluster.sessionrecords import SessionRecords, readRow
from mailgate.keeper.cluster.usercounts import UserCounts
from mailgate.keeper.interfaces import Collected, IMember
from mailgate.keeper.messages import REGISTRY, REGISTRY_VERSION, Sessions, WireError
from mailgate.limits.keys import canonical, partsOf
from mailgate.limits.policy import Prefixes
from mailgate.store.interfaces import IStore, Question, Standing, StoreUnavailable
from mailgate.store.keys import DIGEST, StoreKeys
from mailgate.store.seal import Seal

__all__ = ["FIRST_AFTER", "LOST_FOR", "OFFERED_WITHIN", "Registry"]

FIRST_AFTER = 2.0
"""
Seconds until the first beat. What an earlier keeper of the gateway has told holds until then, and the processes tell
their sessions meanwhile.
"""

LOST_FOR = 60.0
"""Seconds until a process that runs, and has lost its link, counts as gone."""

OFFERED_WITHIN = 10.0
"""Seconds until a process must have said that it tells its sessions. Those of earlier releases cannot."""

_LOOKED = 1.0
"""Seconds between two looks at processes that have lost their links."""

_REMEMBERED = 4096
"""Users and addresses whose digests are remembered: some 250 bytes each."""

_HEAD = DIGEST + 6
"""Bytes of what is kept of a session before its record: the digest of the user, and the protocol and address."""

_log = Logger("mailgate")


@define(eq=False)
class _Process:
    """
    What is known of the sessions of a process.

    @ivar member: the process as it is linked now; L{None} if it has lost its link.
    @ivar pid: its process id.
    @ivar lostAt: when it has lost its link, in seconds of the clock.
    @ivar sessions: what is kept of each session, by id.
    @ivar doubtful: the ids of those that it has not told yet since it began to tell all.
    @ivar isWhole: whether it has told all.
    """

    member: IMember | None
    pid: int
    lostAt: float = 0.0
    sessions: dict[str, bytes] = field(factory=dict)
    doubtful: set[str] = field(factory=set)
    isWhole: bool = False


class Registry:
    """
    The sessions of this gateway.

    @param store: the store.
    @param keys: make the digests.
    @param seal: seals the records.
    @param gateway: the name of the gateway (C{gateway_name}).
    @param prefixes: C{limit_prefix}: how much of an address is one client.
    @param clock: the time and timers. Its seconds are those since 1970.
    @param randomness: called with a number, returns that many random bytes.
    @param runs: returns whether the process with an id runs.
    @ivar records: reads the records of other gateways.
    """

    def __init__(
        self,
        store: IStore,
        keys: StoreKeys,
        seal: Seal,
        gateway: str,
        prefixes: Prefixes,
        clock: IReactorTime,
        randomness: Callable[[int], bytes] = os.urandom,
        runs: Callable[[int], bool] = isRunning,
    ) -> None:
        self.records = SessionRecords(seal, clock.seconds)
        self._store = store
        self._gateway = gateway
        self._clock = clock
        self._runs = runs
        self._processes: dict[str, _Process] = {}
        self._counts = UserCounts()
        self._beating = Beating(store, gateway, self, clock, f"{keys.mark}.{randomness(6).hex()}")
        self._looking: IDelayedCall | None = None
        self._isHandedOver = False
        self._protocolOf = lru_cache(16)(keys.protocol)
        self._userOf: Callable[[str], bytes] = lru_cache(_REMEMBERED)(
            lambda user: keys.digest(b"user", canonical(user.encode("latin-1")))
        )
        self._addressOf: Callable[[str], bytes] = lru_cache(_REMEMBERED)(
            lambda host: _digestOf(keys, partsOf(host, prefixes)[0])
        )
        self._part = keys.part

    # Life.

    def start(self) -> None:
        """Begin to tell the store, after L{FIRST_AFTER}."""
        self._beating.start(FIRST_AFTER)

    def handOver(self) -> None:
        """A successor continues under the same name. It tells everything anew, so nothing is taken back."""
        self._beating.stop()

    def stop(self) -> Deferred[None]:
        """Let the store forget this gateway, unless it was handed over. Fires when it has, or cannot be reached."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
        return self._beating.leave()

    # Processes.

    def joined(self, member: IMember) -> None:
        """
        A process has linked to the keeper. One of the same name is the same process.

        @param member: the process.
        """
        process = self._processes.get(member.name)
        if process is None:
            self._processes[member.name] = _Process(member, member.pid)
        else:
            process.member, process.pid, process.isWhole = member, member.pid, False
        asked = member.ask(REGISTRY, {"version": REGISTRY_VERSION}, OFFERED_WITHIN)
        asked.addCallback(self._accepted, member).addErrback(_unexpected)

    def _accepted(self, answer: Collected, member: IMember) -> None:
        process = self._processes.get(member.name)
        if list(answer.rows) != [REGISTRY_VERSION] and process is not None and process.member is member:
            # It is of an earlier release, and tells nothing.
            process.isWhole = True

    def left(self, member: IMember) -> None:
        """
        A process has ended or lost its link.

        @param member: the process.
        """
        process = self._processes.get(member.name)
        if process is not None and process.member is member:
            process.member, process.isWhole, process.lostAt = None, False, self._clock.seconds()
            if self._looking is None:
                self._looking = self._clock.callLater(0, self._look)

    def _look(self) -> None:
        """Forget the sessions of processes that have ended."""
        self._looking = None
        now = self._clock.seconds()
        for name, process in [*self._processes.items()]:
            if process.member is None and (now - process.lostAt >= LOST_FOR or not self._runs(process.pid)):
                del self._processes[name]
                for id, kept in process.sessions.items():
                    self._forget(id, kept)
        if any(process.member is None for process in self._processes.values()):
            self._looking = self._clock.callLater(_LOOKED, self._look)

    @property
    def isWhole(self) -> bool:
        """Whether all processes with a link have told all their sessions, as far as they can."""
        return all(process.isWhole for process in self._processes.values())

    # Sessions.

    def told(self, member: IMember, message: Sessions) -> None:
        """
        A process has told of sessions.

        @param member: the process.
        @param message: what it has told.
        @raise WireError: a row is none of a session of this process. The error does not quote it.
        """
        process = self._processes.get(member.name)
        if process is None or process.member is not member:
            return
        if message.isFirst:
            process.doubtful, process.isWhole = set(process.sessions), False
        for row in message.began:
            self._begin(member.name, process, row)
        for id in message.ended:
            self._end(process, id)
        if message.isLast:
            for id in process.doubtful.copy():
                self._end(process, id)
            process.isWhole = True

    def _begin(self, name: str, process: _Process, row: Any) -> None:
        id, user, protocol, host, record = readRow(row)
        process.doubtful.discard(id)
        if id in process.sessions:
            return
        if _memberOf(id) != name:
            raise WireError("invalid message: a session of another process")
        digest = self._userOf(user)
        part = self._part(self._protocolOf(protocol), self._addressOf(host))
        process.sessions[id] = kept = b"%b%b%b" % (digest, part, record)
        self._counts.up(digest, part)
        self._beating.began(id, digest, kept)

    def _end(self, process: _Process, id: Any) -> None:
        if type(id) is not str:
            raise WireError("invalid message: no id of a session")
        process.doubtful.discard(id)
        kept = process.sessions.pop(id, None)
        if kept is not None:
            self._forget(id, kept)

    def _forget(self, id: str, kept: bytes) -> None:
        user = kept[:DIGEST]
        self._counts.down(user, kept[DIGEST:_HEAD])
        self._beating.ended(id, user)

    # ISource.

    def sessions(self) -> Iterator[tuple[str, bytes]]:
        for process in self._processes.values():
            yield from process.sessions.items()

    def users(self) -> Collection[bytes]:
        return self._counts

    def sealed(self, id: str, kept: bytes) -> bytes:
        return self.records.close(self._gateway, id, kept[_HEAD:])

    def countsOf(self, user: bytes) -> bytes:
        return self._counts.reported(user)

    # Questions.

    def relaysOf(self, user: bytes) -> Deferred[dict[str, int]]:
        """
        Find out where a user has sessions: at each gateway that lives, those of now here, and those that others have
        told lately. Gateways without are left out.

        @param user: the name, in any form.
        @return: fires with the numbers, by the names of gateways. It fails with L{StoreUnavailable}.
        """
        digest = self._userOf(user.decode("latin-1"))
        return self._store.sessionsOf(digest).addCallback(self._withOwn, digest)

    def _withOwn(self, found: Mapping[str, int], digest: bytes) -> dict[str, int]:
        numbers = {**found, self._gateway: self._counts.of(digest)}
        return {gateway: number for gateway, number in numbers.items() if number}

    def elsewhere(self, user: bytes, host: str, protocol: str) -> Deferred[tuple[int, int] | None]:
        """
        Find out how many sessions count for C{limit_conn} at other gateways. Nothing is counted by this.

        @param user: the name, in any form.
        @param host: the address of the client; may be empty.
        @param protocol: the protocol.
        @return: fires with those of the user, and those of them from the address; L{None} if the store cannot be used.
        """
        digest = self._userOf(user.decode("latin-1"))
        question = Question(digest, self._addressOf(host), protocol=self._protocolOf(protocol))
        return self._store.check(question).addCallbacks(self._others, _trap)

    def _others(self, standing: Standing) -> tuple[int, int] | None:
        return standing.elsewhere


def _digestOf(keys: StoreKeys, address: bytes) -> bytes:
    return keys.digest(b"address", address) if address else b""


def _memberOf(id: str) -> str:
    return id.rpartition(".")[0].rpartition(".")[2]


def _trap(failure: Failure) -> None:
    failure.trap(StoreUnavailable)


def _unexpected(failure: Failure) -> None:
    _log.failure("cannot ask a process for its sessions", failure)
