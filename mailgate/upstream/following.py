# -*- test-case-name: mailgate.test.upstream.test_following -*-
"""
The servers of a group whose addresses the DNS says: C{resolve}, where each address of a name is a server of its own,
and C{service=}, where SRV records name the servers.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.error import CannotListenError, DNSLookupError

from mailgate.log.journal import Journal
from mailgate.login import Backend
from mailgate.net.names import MOST_ADDRESSES, CachedNames, Found, ServerNames
from mailgate.net.names import Service as SRVRecord
from mailgate.upstream.group import Upstream
from mailgate.upstream.peer import Peer
from mailgate.upstream.settings import ServerLine

__all__ = ["Following", "serviceName"]

RETRY = 30.0
"""Seconds until a name is looked up again after a failure."""


def serviceName(line: ServerLine) -> str:
    """The name of the SRV records of C{line}: C{imaps} is C{_imaps._tcp.HOST}, what has a dot is taken as it is."""
    return f"{line.service}.{line.host}" if "." in line.service else f"_{line.service}._tcp.{line.host}"


def _reason(error: Any) -> str:
    # Twisted's text of a DNSLookupError is a sentence with a full stop.
    return str(error.args[0]) if isinstance(error, DNSLookupError) and error.args else str(error)


class Following(Service):
    """
    Keeps one C{line} of C{group} up to date. Where nothing is found the servers stay as they are.

    @param names: what finds addresses.
    @param servers: what finds SRV records.
    @param clock: an C{IReactorTime}.
    @param journal: where changes and failures are logged.
    @param turns: how many of those that share it look up at a time; L{None} for one alone.
    """

    def __init__(
        self,
        group: Upstream,
        line: ServerLine,
        names: CachedNames,
        servers: ServerNames,
        clock: Any,
        journal: Journal,
        turns: DeferredSemaphore | None = None,
    ) -> None:
        self._turns = DeferredSemaphore(1) if turns is None else turns
        self._group = group
        self._line = line
        self._names = names
        self._servers = servers
        self._clock = clock
        self._journal = journal
        self._timer: Any = None
        self._looking: Deferred[Any] | None = None
        self._isFailing = False

    def startService(self) -> None:
        super().startService()
        self._look()

    def stopService(self) -> None:
        super().stopService()
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    def once(self) -> Deferred[None]:
        """Look the servers up, and follow them no further. The Deferred fails where they are not found."""

        def replace(result: tuple[list[Peer], list[Peer], float]) -> None:
            self._group.replace(self._line, result[0], result[1])

        return self._turns.run(self._lookUp).addCallback(replace)

    def _look(self) -> None:
        self._timer = None
        looked = self._looking = self._turns.run(self._lookUp)
        looked.addCallbacks(self._found, self._failed)
        looked.addErrback(
            lambda failure: self._journal.failure("the servers of a group could not be replaced", failure)
        )

    def _lookUp(self) -> Deferred[tuple[list[Peer], list[Peer], float]]:
        if self._line.service:
            return self._servers.services(serviceName(self._line)).addCallback(self._places)
        return self._names.names.lookup(self._line.host).addCallback(self._addresses)

    def _addresses(self, found: Found) -> tuple[list[Peer], list[Peer], float]:
        line = self._line
        peers = [self._peer(address, line.port, None) for address in found.addresses]
        return ([], peers, found.ttl) if line.backup else (peers, [], found.ttl)

    def _places(self, answer: tuple[tuple[SRVRecord, ...], float]) -> Deferred[tuple[list[Peer], list[Peer], float]]:
        return Deferred.fromCoroutine(self._located(*answer))

    async def _located(self, records: tuple[SRVRecord, ...], ttl: float) -> tuple[list[Peer], list[Peer], float]:
        """
        The addresses of the hosts that SRV records name: those of the least priority, and the backups. The hosts are
        looked up one after another: the system looks up few names at a time, and others would not be found.
        """
        least = min(record.priority for record in records)
        first: list[Peer] = []
        others: list[Peer] = []
        for record in records:
            try:
                found = await self._names.lookup(record.host)
            except (DNSLookupError, CannotListenError):
                continue
            ttl = min(ttl, found.ttl)
            peers = first if record.priority == least else others
            peers += [self._peer(address, record.port, record.weight) for address in found.addresses]
        if not first and not others:
            raise DNSLookupError(f"no host of {serviceName(self._line)} has an address")
        del first[MOST_ADDRESSES:], others[MOST_ADDRESSES:]
        return ([], first, ttl) if self._line.backup else (first, others, ttl)

    def _peer(self, address: str, port: int, weight: int | None) -> Peer:
        line, limits = self._line, self._line.limits
        if weight and limits.weight == 1:
            limits = evolve(limits, weight=weight)
        return Peer(Backend(address, port, name=line.name), (line.host, line.port), limits)

    def _found(self, result: tuple[list[Peer], list[Peer], float]) -> None:
        primaries, backups, ttl = result
        if not self.running:
            return
        self._isFailing = False
        # Also if what reacts to the new servers fails.
        self._later(ttl)
        if self._group.replace(self._line, primaries, backups):
            self._journal.notice(
                "upstream {group}: server {server} has the addresses {addresses}",
                group=self._group.name,
                server=self._line.written,
                addresses=" ".join(str(peer.backend) for peer in (*primaries, *backups)),
            )

    def _failed(self, failure: Any) -> None:
        if not self.running:
            return
        if not self._isFailing:
            self._isFailing = True
            self._journal.error(
                "upstream {group}: server {server} could not be resolved: {reason}; its addresses stay as they are",
                group=self._group.name,
                server=self._line.written,
                reason=_reason(failure.value),
            )
        self._later(RETRY)

    def _later(self, seconds: float) -> None:
        self._timer = self._clock.callLater(seconds, self._look)
