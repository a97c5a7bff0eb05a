# -*- test-case-name: mailgate.test.relay.test_portable -*-
"""
Bytes both ways between a client and a backend, once the login is done.

It works over any Twisted transport; between connections on raw descriptors L{mailgate.relay.stream} does the same. A
receiver that is slow pauses its sender; one side's end of file is passed on while the other may still answer (a TLS
peer that says it will send no more is closed by Twisted at once: there the answer in flight is lost).

Servers take the end of TLS for the end of the connection, and drop the answers that they owe. So the end of a client in
the clear is passed on to a backend over TLS only when the backend has been silent for L{HELD} seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IReactorTime, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.interfaces import IConnection
from mailgate.lean.quickack import BEGUN, NOTHING, acknowledgeOn, expectedAfter
from mailgate.login import Trouble
from mailgate.session import Outcome, Session

__all__ = ["HELD", "Relay", "RelayedProtocol", "Relays", "makeNoDelay"]

HELD = 2.0
"""Seconds of silence after which a backend over TLS has answered all that it has been asked."""


def makeNoDelay(transport: Any) -> None:
    """Send small writes at once (TCP_NODELAY), where C{transport} is TCP: with Nagle a reply waits 40 ms for an ACK."""
    # A unix socket has no such option, and a peer may be gone before it is set.
    with suppress(AttributeError, OSError):
        transport.setTcpNoDelay(True)


@implementer(IHalfCloseableProtocol)
class RelayedProtocol(Protocol):
    """
    A protocol that holds a dialogue and then leaves its connection to a L{Relay}.

    Subclasses override the C{dialogue…} methods, which are called until then.
    """

    transport: Any
    inputEnded = False
    """Whether the peer has said that it sends no more, while the dialogue went on."""
    _end: _RelayEnd | None = None

    @property
    def relayed(self) -> bool:
        """Whether the relay has the connection."""
        return self._end is not None

    def dialogueReceived(self, data: bytes) -> None:
        """Bytes have arrived while the dialogue goes on."""

    def dialogueEnded(self) -> None:
        """The peer will send no more, while the dialogue goes on."""

    def dialogueLost(self, reason: Failure) -> None:
        """The connection has gone while the dialogue went on."""

    def dataReceived(self, data: bytes) -> None:
        if self._end is not None:
            self._end.dataReceived(data)
        else:
            self.dialogueReceived(data)

    def readConnectionLost(self) -> None:
        if self._end is not None:
            self._end.ended()
        else:
            self.inputEnded = True
            self.dialogueEnded()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._end is not None:
            self._end.lost()
        else:
            self.dialogueLost(reason)


class _RelayEnd:
    """One side of a relay, as the source of one direction."""

    __slots__ = ("_gone", "_relay", "finished", "peer", "received", "transport")

    peer: _RelayEnd

    def __init__(self, relay: Relay, protocol: RelayedProtocol) -> None:
        self._relay = relay
        self.transport = protocol.transport
        self.received = 0
        self.finished = False
        self._gone = False
        protocol._end = self

    def dataReceived(self, data: bytes) -> None:
        # TLS goes on delivering while it closes, and nobody would hold its sender back any more.
        if self._relay.closing:
            return
        self.received += len(data)
        self._relay.active()
        self.peer.transport.write(data)

    def ended(self) -> None:
        """This side sends no more: say so to the other, which may still have something to say."""
        if self.finished:
            return
        self.finished = True
        if self.peer.finished:
            self._relay.close()
        else:
            self.passEnd()

    def passEnd(self) -> None:
        """Say to the other side that this one has ended."""
        self.peer.closeWriting()
        self._relay.hurry()

    def lost(self) -> None:
        self._gone = self.finished = True
        if self.peer._gone:
            self._relay.finish()
        else:
            self.peer.close()
            self._relay.hurry(closing=True)

    def closeWriting(self) -> None:
        """Send what is on its way, and then the end of file."""
        self.transport.unregisterProducer()
        if ISSLTransport.providedBy(self.transport):
            # Twisted's TLS sends its close_notify now and goes on reading until the peer's.
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def close(self) -> None:
        """Send what is on its way, and close."""
        if self._gone:
            return
        # Without this a transport whose producer is paused stays open for ever, and one that
        # is paused itself never hears the other's close_notify.
        self.transport.unregisterProducer()
        self.transport.resumeProducing()
        self.transport.loseConnection()

    def abort(self) -> None:
        if not self._gone:
            self.transport.abortConnection()


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

    def passEnd(self) -> None:
        if ISSLTransport.providedBy(self.peer.transport) and not ISSLTransport.providedBy(self.transport):
            self._relay.hold()
        else:
            super().passEnd()


class _BackendEnd(_RelayEnd):
    """The backend's side."""

    __slots__ = ()

    peer: _ClientEnd

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if self.peer.expected == BEGUN:
            self.peer.expected = NOTHING


@implementer(IConnection)
class Relay:
    """
    Both directions of one session.

    C{idle} is the number of seconds without a byte in either direction (nginx's proxy_timeout, but for that it counts
    the backend's bytes too) after which both sides are closed; C{linger} the same once one side has ended. C{done} is
    called with this once both connections are gone.
    """

    def __init__(
        self,
        client: RelayedProtocol,
        backend: RelayedProtocol,
        session: Session,
        clock: IReactorTime,
        idle: float,
        linger: float,
        done: Callable[[Any], object],
    ) -> None:
        self.session = session
        self._clock = clock
        self._limit = idle
        self._linger = min(idle, linger)
        self._done = done
        self._client = _ClientEnd(self, client)
        self._backend = _BackendEnd(self, backend)
        self._client.peer, self._backend.peer = self._backend, self._client
        self._hasClientEnded = client.inputEnded
        self._lastActive = clock.seconds()
        self.closing = False
        self._timer: IDelayedCall = clock.callLater(self._left(), self._check)

    def start(self, toClient: bytes, toBackend: bytes) -> None:
        """Take both connections over; the bytes given are what the two dialogues had read ahead."""
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

    def active(self) -> None:
        """A byte has moved."""
        self._lastActive = self._clock.seconds()

    def hurry(self, closing: bool = False) -> None:
        """One side has ended: what is left gets C{linger} seconds without progress, not C{idle}."""
        if self.closing:
            return
        self.session.conclude(Outcome.RELAYED)
        self.active()
        self.closing = closing
        self._limit = self._linger
        self._wait()

    def hold(self) -> None:
        """The client has ended, of which the backend is told when it has nothing more to say."""
        self.hurry()
        # Less than what any other state has.
        self._limit = min(HELD, self._linger / 2)
        self.active()
        self._wait()

    def _left(self) -> float:
        """Seconds until something is due, if no byte moves; negative if it has been."""
        due, expires = self._lastActive + self._limit, self.session.expires
        if expires is not None and not self.closing:
            due = min(due, expires)
        return due - self._clock.seconds()

    def _wait(self) -> None:
        if self._timer.active():
            self._timer.reset(max(0.0, self._left()))

    def _check(self) -> None:
        left = self._left()
        if left > 0:
            self._timer = self._clock.callLater(left, self._check)
        elif self.closing:
            self.abort()
        elif self.session.hasExpired(self._clock.seconds()):
            self._endSession(Outcome.EXPIRED)
        elif self._limit < self._linger:
            self._backend.closeWriting()
            self._limit = self._linger
            self._check()
        else:
            self._endSession(Outcome.IDLE)

    def _endSession(self, outcome: Outcome) -> None:
        """Close both, as no byte has come in time."""
        self.session.conclude(outcome)
        self._timer = self._clock.callLater(self._linger, self._check)
        self.close()

    def close(self) -> None:
        """End both, each once it has been given what is already on its way."""
        self.hurry(closing=True)
        self._client.close()
        self._backend.close()

    def abort(self) -> None:
        """End both at once."""
        self._client.abort()
        self._backend.abort()

    def dismiss(self, outcome: Outcome, trouble: Trouble) -> None:
        """See L{IConnection}: nothing can be said here. Each is given what is already on its way before it ends."""
        self.session.conclude(outcome)
        self.close()

    def limit(self, moment: float | None) -> None:
        """See L{IConnection}."""
        self.session.expires = moment
        self._wait()

    def stop(self) -> None:
        """See L{IConnection}."""
        self.session.conclude(Outcome.STOPPED)
        self.abort()

    def finish(self) -> None:
        """Both connections are gone."""
        if self._timer.active():
            self._timer.cancel()
        self.session.received = self._client.received
        self.session.sent = self._backend.received
        self.session.conclude(Outcome.RELAYED)
        self._done(self)


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
    ) -> Any:
        """A L{Relay}, or what does the same for the connections of C{client} and C{backend}; it has to be started."""
        return Relay(client, backend, session, self.clock, idle, linger, done)

    def close(self) -> None:
        """Drop what is kept for relays to come: the gateway has stopped."""
