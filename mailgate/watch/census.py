# -*- test-case-name: mailgate.test.watch.test_census -*-
"""
Looks at all connections of a process: how many are in which phase, at which backend, and how many bytes they have
relayed. Then at its backends, services and certificates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, field

from mailgate.lean.descriptors import mostDescriptors
from mailgate.session import Phase
from mailgate.upstream.peer import PeerState
from mailgate.watch.distinct import hashed, smallest
from mailgate.watch.metrics import word
from mailgate.watch.process import openFiles, privateMemory
from mailgate.watch.tally import Totals

if TYPE_CHECKING:
    from mailgate.watch.watcher import Watcher

__all__ = ["MEASURED", "SLICE", "WORKER", "Survey"]

SLICE = 250
"""Connections that are looked at in one go. That takes less than a millisecond."""

WORKER = "0"
"""The value of the label C{worker}. The keeper replaces it by the number of the worker."""

MEASURED = 60.0
"""Seconds for which the memory of the process counts as known: the system takes milliseconds to find it out."""

_PHASES = tuple(word(phase) for phase in Phase)
_PLACES = range(len(_PHASES))
_BYTES = "mailgate_relayed_bytes"
_DIRECTIONS = ("from_client", "to_client")


@define
class _Memory:
    """
    What surveys of one process keep.

    @ivar relayed: the labels of C{mailgate_sessions_relayed} that have occurred: the gauge goes on at 0.
    @ivar until: the time until which C{memory} counts as known.
    @ivar memory: the private memory of the process in bytes; L{None} if it is not known.
    """

    relayed: set[tuple[str, str]] = field(factory=set)
    until: float = 0.0
    memory: int | None = None


class Survey:
    """
    One look at everything, in slices.

    Bytes: a relay that ends after the beginning counts as one that goes on, with its bytes when it is looked at. So no
    byte is counted twice, and the sum never falls.

    @ivar gauges: the gauges, when it is over, and the counters of bytes of the relays that go on.
    @ivar looked: the gauges, and the bytes of all relays.
    """

    Memory = _Memory

    def __init__(self, watcher: Watcher, gateways: Sequence[Any], memory: _Memory, now: float) -> None:
        """
        @param watcher: counts what has ended.
        @param gateways: the gateways of the process, the current one first.
        @param memory: what earlier surveys have kept.
        @param now: the time in seconds.
        """
        self.gauges: Totals = {}
        self.looked: Totals = {}
        self._watcher = watcher
        self._gateways = gateways
        self._memory = memory
        self._now = now
        self._phases: dict[str, list[int]] = {}
        self._relayed: dict[tuple[str, str], int] = dict.fromkeys(memory.relayed, 0)
        self._bytes: dict[str, list[int]] = {}
        self._users: set[int] = set()

    def __iter__(self) -> Iterator[None]:
        """Yield after each slice."""
        ended = self._watcher.relayed()
        crowds = [
            (factory.record.name, list(factory.connections))
            for gateway in self._gateways
            for factory in gateway.factories
        ]
        for protocol, connections in crowds:
            self._phases.setdefault(protocol, [0] * len(_PHASES))
            self._bytes.setdefault(protocol, [0, 0])
            for start in range(0, len(connections), SLICE):
                self._look(protocol, connections[start : start + SLICE])
                yield
        users = smallest(self._users)
        self._users.clear()
        yield
        self._settle(users)
        moved = [[list(labels), value + self._moved(*labels)] for labels, value in ended.items()]
        self.looked = {**self.gauges, _BYTES: moved}

    def _look(self, protocol: str, connections: Sequence[Any]) -> None:
        phases, moved, relayed, users = self._phases[protocol], self._bytes[protocol], self._relayed, self._users
        backends: dict[str, int] = {}
        for connection in connections:
            session = connection.session
            phase = session.phase
            phases[phase.place] += 1
            # A relay keeps this phase until it ends. Before it starts, the dialogue still has the session.
            if phase is Phase.RELAY and (traffic := getattr(connection, "traffic", None)) is not None:
                moved[0] += traffic[0]
                moved[1] += traffic[1]
                backend = session.backend
                backends[backend] = backends.get(backend, 0) + 1
                users.add(hashed(session.user))
        for backend, count in backends.items():
            labels = (protocol, self._watcher.backends.of(backend))
            relayed[labels] = relayed.get(labels, 0) + count

    def _moved(self, protocol: str, direction: str) -> int:
        moved = self._bytes.get(protocol)
        return 0 if moved is None else moved[_DIRECTIONS.index(direction)]

    def _settle(self, users: str) -> None:
        memory = self._memory
        memory.relayed.update(self._relayed)
        gauges: Totals = {
            "mailgate_sessions": [
                [[protocol, _PHASES[place]], counts[place]]
                for protocol, counts in self._phases.items()
                for place in _PLACES
            ],
            "mailgate_sessions_relayed": [[list(labels), count] for labels, count in self._relayed.items()],
            "mailgate_users": [[[], users]],
            _BYTES: [
                [[protocol, direction], self._moved(protocol, direction)]
                for protocol in self._bytes
                for direction in _DIRECTIONS
            ],
        }
        self.gauges = gauges
        if self._now >= memory.until:
            memory.until, memory.memory = self._now + MEASURED, privateMemory()
        for name, value in (
            ("mailgate_worker_memory_bytes", memory.memory),
            ("mailgate_worker_open_files", openFiles()),
            ("mailgate_worker_open_files_limit", mostDescriptors()),
        ):
            if value is not None:
                gauges[name] = [[[WORKER], value]]
        for gateway in self._gateways[:1]:
            gauges.update(_standing(gateway, self._now))
            gauges.update(_environment(gateway))
            gauges["mailgate_accept_paused"] = _paused(gateway)


def _standing(gateway: Any, now: float) -> Totals:
    """The gauges of the backends that are configured."""
    up: dict[str, int] = {}
    draining: dict[str, int] = {}
    named = set(map(str, gateway.namedBackends()))
    for group, peer in gateway.upstreams.everyPeer():
        backend = str(peer.backend)
        if group or backend in named:
            state = peer.state(int(now))
            up[backend] = min(up.get(backend, 1), state is PeerState.UP)
            draining[backend] = max(draining.get(backend, 0), state is PeerState.DRAINING)
    for backend in named:
        # It has no session, and no order of an operator.
        up.setdefault(backend, 1)
        draining.setdefault(backend, 0)
    return {
        "mailgate_backend_up": [[[backend], int(value)] for backend, value in up.items()],
        "mailgate_backend_draining": [[[backend], int(value)] for backend, value in draining.items()],
    }


def _paused(gateway: Any) -> list[list[Any]]:
    """Whether the clients of each server wait until they are accepted."""
    paused = {factory.settings.name: False for factory in gateway.factories}
    for listener in gateway.listeners:
        if listener.isPaused:
            paused.update(dict.fromkeys(listener.serverNames, True))
    return [[[server], int(value)] for server, value in paused.items()]


def _environment(gateway: Any) -> Totals:
    """The gauges of authentication services and certificates."""
    answering: dict[str, int] = {}
    for service in gateway.authServices():
        answering[service.label] = min(answering.get(service.label, 1), not service.isFailing)
    ends = {
        (factory.settings.name, name): end
        for factory in gateway.factories
        for name, end in getattr(factory.tls, "certificates", ())
    }
    return {
        "mailgate_auth_service_up": [[[label], int(value)] for label, value in answering.items()],
        "mailgate_certificate_not_after_timestamp_seconds": [[list(labels), end] for labels, end in ends.items()],
    }
