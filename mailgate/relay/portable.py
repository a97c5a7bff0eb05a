# -*- test-case-name: mailgate.test.relay.test_portable -*-
"""
Relays between a client and a backend over any Twisted transport. L{mailgate.relay.stream} does the same between raw
descriptors.

A slow receiver pauses its sender. Twisted closes a TLS connection as soon as the peer sends close_notify, so answers
that are on their way to that peer are lost.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime, ISSLTransport
from zope.interface import implementer

from mailgate.lean.quickack import BEGUN, NOTHING, acknowledgeOn
from mailgate.relay.base import BaseEnd, BaseRelay
from mailgate.relay.leaving import LEAVING, expectsAfter
from mailgate.relay.partings import Partings
from mailgate.relay.protocol import RelayedProtocol
from mailgate.relay.terms import Terms
from mailgate.session import Session

__all__ = ["Relay", "Relays"]


@implementer(IPushProducer)
class _RelayEnd(BaseEnd):
    """
    One connection of a L{Relay}, taken over from C{protocol}. It is the producer of the other connection's transport.

    @ivar isPaused: whether it is not read, because the other side does not take more.
    """

    __slots__ = ("_isGone", "finished", "isPaused", "transport")

    relay: Relay
    peer: _RelayEnd
    finished: bool

    def __init__(self, protocol: RelayedProtocol) -> None:
        self.transport = protocol.transport
        self.moved = 0
        self.finished = False
        self.isPaused = False
        self._isGone = False
        protocol.handOverTo(self)

    @property
    def isOpen(self) -> bool:
        return not self._isGone

    @property
    def isEncrypted(self) -> bool:
        return ISSLTransport.providedBy(self.transport)

    def dataReceived(self, data: bytes) -> None:
        # TLS delivers data while it closes, and no producer would pause the sender.
        if self.relay.closing or self.relay.isParted:
            return
        self.moved += len(data)
        self.relay.moved()
        self.peer.transport.write(data)

    def ended(self) -> None:
        """The peer sends no more."""
        if not self.finished:
            self.finished = True
            self.relay.ended(self)

    def lost(self) -> None:
        """The connection is closed."""
        self.relay.lost(self)

    def pauseProducing(self) -> None:
        self.isPaused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.isPaused = False
        self.relay.moved()
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        # The other transport has ended. L{lost} decides what that means.
        pass

    def finishWriting(self) -> None:
        self.transport.unregisterProducer()
        if self.isEncrypted:
            # Twisted's TLS sends its close_notify now, and reads until the peer's.
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def close(self) -> None:
        if self._isGone:
            return
        # Otherwise a transport whose producer is paused stays open for ever, and a paused transport never reads the
        # peer's close_notify.
        self.transport.unregisterProducer()
        self.transport.resumeProducing()
        self.transport.loseConnection()

    def abort(self) -> None:
        if not self._isGone:
            self.transport.abortConnection()

    def release(self) -> None:
        self._isGone = self.finished = True
        self.relay.released()

    def free(self) -> None:
        self.finished = True
        self.close()


class _ClientEnd(_RelayEnd):
    """The client's side. C{expected} is the state of L{mailgate.lean.quickack} for the client."""

    __slots__ = ("expected",)

    def __init__(self, protocol: RelayedProtocol) -> None:
        super().__init__(protocol)
        self.expected = NOTHING

    @property
    def isLeaving(self) -> bool:
        return self.expected == LEAVING

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.expected = expectsAfter(self.expected, data)
        if self.expected > NOTHING:
            acknowledgeOn(self.transport)


class _BackendEnd(_RelayEnd):
    """The backend's side."""

    __slots__ = ()

    peer: _ClientEnd

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if self.peer.expected >= BEGUN:
            self.peer.expected = NOTHING


class Relay(BaseRelay):
    """A relay between the transports of two protocols."""

    _client: _ClientEnd
    _backend: _BackendEnd

    def __init__(self, terms: Terms, client: RelayedProtocol, backend: RelayedProtocol, session: Session) -> None:
        """
        Take over the connections of two protocols. Call L{start} to begin.

        @param terms: see L{BaseRelay}.
        @param client: the protocol of the client's connection.
        @param backend: the protocol of the backend's connection.
        @param session: see L{BaseRelay}.
        """
        super().__init__(terms, _ClientEnd(client), _BackendEnd(backend), session)
        self._hasClientEnded = client.inputEnded
        self._timer: IDelayedCall | None = None

    def start(self, toClient: bytes, toBackend: bytes) -> None:
        self._wait()
        client, backend = self._client, self._backend
        for end in (client, backend):
            end.transport.resumeProducing()
        client.transport.registerProducer(backend, True)
        backend.transport.registerProducer(client, True)
        if toClient:
            backend.dataReceived(toClient)
        if toBackend:
            client.dataReceived(toBackend)
        if self._hasClientEnded:
            client.ended()

    def _park(self) -> None:
        client = self._client
        client.transport.unregisterProducer()
        client.isPaused = False
        client.transport.resumeProducing()

    @property
    def isStuck(self) -> bool:
        return self._client.isPaused or self._backend.isPaused

    def _wait(self) -> None:
        self._forget()
        clock = self.means.clock
        self._timer = clock.callLater(max(0.0, self._due - clock.seconds()), self.expired)

    def _forget(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


class Relays:
    """
    Makes relays.

    @ivar clock: measures the time of all relays.
    @ivar seconds: returns the time.
    @ivar partings: the sessions whose clients wait until they are let go.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """@param clock: measures the time of all relays."""
        self.clock = clock
        self.seconds = clock.seconds
        self.partings = Partings(clock)

    def between(self, client: RelayedProtocol, backend: RelayedProtocol, session: Session, terms: Terms) -> BaseRelay:
        """
        Make a relay. Call its C{start} to begin.

        @param client: the protocol of the client's connection. It may be the producer of its transport until now.
        @param backend: the protocol of the backend's connection.
        @param session: the session that is relayed.
        @param terms: those of the listening address, with these relays as its C{means}.
        """
        client.transport.unregisterProducer()
        # Until the relay starts.
        backend.transport.pauseProducing()
        return Relay(terms, client, backend, session)

    def close(self) -> None:
        """Release what is kept for later relays: the gateway has stopped."""
        self.partings.close()
