# -*- test-case-name: mailgate.test.relay.test_portable -*-
"""
Bytes both ways between a client and a backend, once the login is done, over any Twisted transport; between connections
on raw descriptors L{mailgate.relay.stream} does the same.

A receiver that is slow pauses its sender. A TLS peer that says it will send no more is closed by Twisted at once: there
the answer in flight is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ISSLTransport

from mailgate.lean.quickack import BEGUN, NOTHING, acknowledgeOn, expectedAfter
from mailgate.relay.base import BaseEnd, BaseRelay
from mailgate.relay.protocol import RelayedProtocol
from mailgate.session import Session

__all__ = ["Relay", "Relays"]


class _RelayEnd(BaseEnd):
    """One connection of a L{Relay}, which C{protocol} had until now."""

    __slots__ = ("_isGone", "_relay", "transport")

    peer: _RelayEnd

    def __init__(self, relay: Relay, protocol: RelayedProtocol) -> None:
        self._relay = relay
        self.transport = protocol.transport
        self.moved = 0
        self.finished = False
        self._isGone = False
        protocol.handOverTo(self)

    @property
    def isOpen(self) -> bool:
        return not self._isGone

    def dataReceived(self, data: bytes) -> None:
        # TLS goes on delivering while it closes, and nobody would hold its sender back any more.
        if self._relay.closing:
            return
        self.moved += len(data)
        self._relay.moved()
        self.peer.transport.write(data)

    def ended(self) -> None:
        """This side sends no more."""
        if not self.finished:
            self.finished = True
            self._relay.ended(self)

    def lost(self) -> None:
        """The connection has gone."""
        self._relay.lost(self)

    def finishWriting(self) -> None:
        self.transport.unregisterProducer()
        if ISSLTransport.providedBy(self.transport):
            # Twisted's TLS sends its close_notify now and goes on reading until the peer's.
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def close(self) -> None:
        if self._isGone:
            return
        # Without this a transport whose producer is paused stays open for ever, and one that
        # is paused itself never hears the other's close_notify.
        self.transport.unregisterProducer()
        self.transport.resumeProducing()
        self.transport.loseConnection()

    def abort(self) -> None:
        if not self._isGone:
            self.transport.abortConnection()

    def release(self) -> None:
        self._isGone = self.finished = True
        self._relay.released()


class _ClientEnd(_RelayEnd):
    """The client's side. What is C{expected} of the client L{mailgate.lean.quickack} says."""

    __slots__ = ("expected",)

    def __init__(self, relay: Relay, protocol: RelayedProtocol) -> None:
        super().__init__(relay, protocol)
        self.expected = NOTHING

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.expected = expectedAfter(self.expected, data)
        if self.expected > NOTHING:
            acknowledgeOn(self.transport)


class _BackendEnd(_RelayEnd):
    """The backend's side."""

    __slots__ = ()

    peer: _ClientEnd

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if self.peer.expected == BEGUN:
            self.peer.expected = NOTHING


class Relay(BaseRelay):
    """Both directions of one session, between the transports of two protocols."""

    _client: _ClientEnd
    _backend: _BackendEnd

    def __init__(
        self,
        means: Relays,
        client: RelayedProtocol,
        backend: RelayedProtocol,
        session: Session,
        idle: float,
        linger: float,
        done: Callable[[Any], object],
    ) -> None:
        holds = ISSLTransport.providedBy(backend.transport) and not ISSLTransport.providedBy(client.transport)
        ends = _ClientEnd(self, client), _BackendEnd(self, backend)
        super().__init__(means, ends, holds, session, idle, linger, done)
        self._hasClientEnded = client.inputEnded
        self._timer: IDelayedCall | None = None

    def start(self, toClient: bytes, toBackend: bytes) -> None:
        self._wait()
        client, backend = self._client, self._backend
        for end in (client, backend):
            end.transport.resumeProducing()
        client.transport.registerProducer(backend.transport, True)
        backend.transport.registerProducer(client.transport, True)
        if toClient:
            backend.dataReceived(toClient)
        if toBackend:
            client.dataReceived(toBackend)
        if self._hasClientEnded:
            client.ended()

    def _wait(self) -> None:
        self._forget()
        clock = self.means.clock
        self._timer = clock.callLater(max(0.0, self._due - clock.seconds()), self.expired)

    def _forget(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


class Relays:
    """Makes relays that keep time by C{clock}."""

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock

    def between(
        self,
        client: RelayedProtocol,
        backend: RelayedProtocol,
        session: Session,
        idle: float,
        linger: float,
        done: Callable[[Any], object],
    ) -> BaseRelay:
        """
        What relays between the connections of C{client} and C{backend}; it has to be started. The other arguments are
        those of L{BaseRelay}.
        """
        return Relay(self, client, backend, session, idle, linger, done)

    def close(self) -> None:
        """Drop what is kept for relays to come: the gateway has stopped."""
