# -*- test-case-name: mailgate.test.lean.test_transport_contract -*-
"""
Connections on raw descriptors, for protocols that expect Twisted's transports.

Data are sent at once, and the descriptor is watched only if the system does not take all of them. Twisted's own
transports wait for an event of their reactor first. The state of an idle connection is mostly in the kernel.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
    ITLSTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.declarations import Provides

from mailgate.lean.addressed import Addressed
from mailgate.lean.descriptors import reset
from mailgate.lean.poller import BROKEN, READABLE, WRITABLE, Poller
from mailgate.lean.tls import TLSLayer
from mailgate.tls.makeengine import makeEngine

__all__ = ["READ_SIZE", "WRITE_AHEAD", "StreamTransport"]

READ_SIZE = 16384
"""The bytes of one read. Commands and replies before the login are much shorter."""

WRITE_AHEAD = 65536
"""A producer is paused when more than this many bytes wait to be sent, as in Twisted."""


def _lost(error: OSError) -> Failure:
    # Twisted's exception has no text unless its argument is a string.
    return Failure(ConnectionLost(str(error)))


@implementer(ITCPTransport, ITLSTransport, IPushProducer, IConsumer)
class StreamTransport(Addressed):
    """A connection on a raw descriptor."""

    accepted = False
    """Whether the peer made the connection."""
    connected = True
    disconnecting = False
    protocol: Any = None
    producer: Any = None
    tls: TLSLayer | None = None
    onLoss: Callable[[Failure], object] | None = None
    """Called at the end, after the protocol's C{connectionLost}."""
    _wanted = READABLE
    _watched = READABLE
    """The events that the poller watches: C{_wanted}, or more."""
    _readEnded = False
    _writeEnded = False
    _writeEnding = False
    _aborting = False
    _waiting: deque[Any] | None = None
    _waitingSize = 0
    _streaming = False
    _producerPaused = False

    def __init__(self, poller: Poller, fd: int, family: int, peer: Any, noDelay: bool = False) -> None:
        """
        @param poller: watches the descriptor.
        @param fd: the connected descriptor, which this takes over.
        @param family: its address family.
        @param peer: the address of the peer, as the system has it.
        @param noDelay: whether TCP_NODELAY is set already.
        """
        self.fd = fd
        self.poller = poller
        self.family = family
        self.rawPeer = peer
        self._noDelay = noDelay

    def open(self, protocol: Any) -> None:
        """Connect C{protocol}."""
        try:
            self.poller.watch(self.fd, self, READABLE)
        except OSError:
            # The poller does not watch it, so it cannot close it.
            self.connected = False
            os.close(self.fd)
            raise
        self.protocol = protocol
        protocol.makeConnection(self)

    # What the poller calls.

    def ready(self, fd: int, events: int) -> None:
        if events & self._wanted != READABLE:
            self._react(events)
            return
        try:
            data = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self.connectionLost(_lost(error))
            return
        if self.tls is not None:
            self.tls.received(data)
        elif data:
            self.protocol.dataReceived(data)
        else:
            self.readEnded(ConnectionDone())

    def _react(self, events: int) -> None:
        """Handle C{events} that are not only bytes which the protocol takes."""
        if events & WRITABLE:
            self._flush()
        if events & ~WRITABLE:
            if self._wanted & READABLE:
                self.ready(self.fd, READABLE)
            elif self._watched & READABLE:
                self._watch(self._wanted)
            elif self._readEnded:
                self._hungUp(events)

    def failed(self, failure: Failure) -> None:
        """Close this connection, and no other: the protocol raised C{failure}, or the reactor stops."""
        self.connectionLost(failure)

    def readEnded(self, reason: Exception) -> None:
        """
        The peer sends no more. Close the connection, for C{reason}, unless the protocol handles half-closed
        connections.
        """
        self._readEnded = True
        # Applied at the next event: nearly all connections end at once.
        self._wanted = self._wanted & ~READABLE | BROKEN
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.readConnectionLost()
            return
        if self.tls is not None:
            self.tls.close()
        self.poller.soon(lambda: self.connectionLost(Failure(reason)))

    def _hungUp(self, events: int) -> None:
        """
        The peer has sent its end of file, and now has closed the connection; or both sides have sent their end of file.
        """
        if events & BROKEN:
            self.connectionLost(Failure(ConnectionLost()))
        else:
            self._want(self._wanted & ~BROKEN)

    def _want(self, events: int) -> None:
        self._wanted = events
        # A pause costs no system call if it ends before anything arrives.
        if self._watched != events | READABLE:
            self._watch(events)

    def _watch(self, events: int) -> None:
        if self.connected:
            before, self._watched = self._watched, events
            self.poller.change(self.fd, before, events)

    # Writing.

    def write(self, data: bytes) -> None:
        if self.tls is not None:
            self.tls.write(data)
        elif not self._writeEnding:
            self.send(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def send(self, data: Any) -> None:
        """Send C{data} now, or when the connection takes them. The caller may reuse the buffer afterwards."""
        if not self.connected or self._writeEnded or not data:
            return
        if self._waiting:
            self._keep(data)
            return
        try:
            sent = os.write(self.fd, data)
            if sent == len(data):
                return
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._broken(error)
            return
        self._keep(memoryview(data)[sent:])

    def _keep(self, data: Any) -> None:
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(bytes(data))
        self._waitingSize += len(data)
        self._want(self._wanted | WRITABLE)
        if self._waitingSize > WRITE_AHEAD and self._streaming and not self._producerPaused:
            self._producerPaused = True
            self.producer.pauseProducing()

    def _broken(self, error: OSError) -> None:
        """Nothing more can be written. connectionLost() comes later: a caller of write() does not expect it."""
        self._writeEnded = True
        failure = _lost(error)
        self.poller.soon(lambda: self.connectionLost(failure))

    def _flush(self) -> None:
        waiting = self._waiting
        while waiting:
            data = waiting[0]
            try:
                sent = os.write(self.fd, data)
            except BlockingIOError:
                return
            except OSError as error:
                self.connectionLost(_lost(error))
                return
            self._waitingSize -= sent
            if sent < len(data):
                waiting[0] = memoryview(data)[sent:]
                return
            waiting.popleft()
        self._want(self._wanted & ~WRITABLE)
        self._drained()

    @property
    def unsent(self) -> bool:
        """Whether bytes wait to be sent."""
        return bool(self._waiting)

    def _drained(self) -> None:
        """All bytes have been sent: continue with the producer, or with the end of the connection."""
        if self.producer is not None and not self._streaming:
            self._pull()
        elif self._producerPaused:
            self._producerPaused = False
            self.producer.resumeProducing()
        elif self.tls is not None and not self.tls.closed:
            # The close_notify is still to be sent.
            return
        elif self.disconnecting:
            self.poller.soon(self._done)
        elif self._writeEnding:
            self._endWriting()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError(f"cannot register producer {producer}: there is one")
        if not self.connected:
            producer.stopProducing()
            return
        self.producer = producer
        self._streaming = streaming
        if not streaming:
            self._pull()

    def _pull(self) -> None:
        """Make a pull producer write its next piece, and repeat this when the piece may have been sent."""
        self.producer.resumeProducing()
        if self.producer is not None:
            self._want(self._wanted | WRITABLE)

    def unregisterProducer(self) -> None:
        self.producer = None
        self._streaming = self._producerPaused = False
        if self.disconnecting and self.tls is not None:
            self.tls.close()
        if self.connected and not self._waiting:
            self._drained()

    # Reading.

    def pauseProducing(self) -> None:
        self._want(self._wanted & ~READABLE)

    def resumeProducing(self) -> None:
        if self.connected and not (self.disconnecting or self._readEnded or self._aborting):
            self._want(self._wanted | READABLE)
            if self.tls is not None:
                self.tls.resume()

    @property
    def reading(self) -> bool:
        """Whether the protocol takes data."""
        return bool(self._wanted & READABLE)

    def stopProducing(self) -> None:
        self.loseConnection()

    # The end.

    def loseConnection(self) -> None:
        if not self.connected or self.disconnecting or self._aborting:
            return
        if self.tls is not None:
            if not self.tls.handshaken and not self.tls.early:
                # There is no TLS connection yet that could be closed.
                self.abortConnection()
                return
            if self.producer is None:
                self.tls.close()
        self.disconnecting = True
        if self._writeEnded:
            self.poller.soon(self._done)
            return
        if self.tls is None or self.tls.handshaken:
            self._want(self._wanted & ~READABLE)
        if not self._waiting:
            self._drained()

    def _done(self) -> None:
        if self.connected and (not self._waiting or self._writeEnded):
            # Read what has arrived: closing with unread bytes sends a reset, which could cost the peer our last bytes.
            with suppress(OSError):
                os.read(self.fd, WRITE_AHEAD)
            self.connectionLost(Failure(ConnectionDone()))

    def loseWriteConnection(self) -> None:
        if not self.connected or self._writeEnding:
            return
        if self.tls is not None:
            self.tls.close()
        self._writeEnding = True
        if not self._waiting:
            self._drained()

    def closeNotified(self) -> None:
        """TLS has sent its close_notify, which had to wait for the handshake: continue to close."""
        if self.disconnecting and not self.accepted:
            # The server's tickets are on their way, and unread bytes would cause a reset: let the server close.
            return
        if not self._waiting:
            self._drained()

    def _endWriting(self) -> None:
        if self._writeEnded:
            return
        self._writeEnded = True
        try:
            self._ask("shutdown", socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.writeConnectionLost()

    def abortConnection(self) -> None:
        if not self.connected or self._aborting:
            return
        self._aborting = self.disconnecting = self._writeEnded = True
        self._want(0)
        self.poller.soon(lambda: self.connectionLost(Failure(ConnectionAborted())))

    def connectionLost(self, reason: Failure) -> None:
        """Close the descriptor at once, and pass C{reason} to the protocol."""
        if not self.connected:
            return
        self.connected = False
        if self._aborting:
            reset(self.fd, self.family)
        self._release()
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        protocol, self.protocol = self.protocol, None
        protocol.connectionLost(reason)
        if self.tls is not None:
            self.tls.lost()
            # Break the reference cycle.
            self.tls = None
        if self.onLoss is not None:
            self.onLoss(reason)

    def _release(self) -> None:
        self._waiting = None
        self._waitingSize = 0
        self._wanted = self._watched = 0
        self.poller.release(self.fd)

    # TLS.

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        if self.tls is None:
            isServer = normal is self.accepted
            if isServer:
                self.tls = TLSLayer(self, None, contextFactory)
            else:
                self.tls = TLSLayer(self, makeEngine(contextFactory, False))
            self.__provides__ = _SECURED
            self.tls.start()

    def getHandle(self) -> Any:
        """OpenSSL's connection, or L{None}. A server's exists when the client's first bytes have arrived."""
        return self.tls.connection if self.tls is not None else None

    def getPeerCertificate(self) -> Any:
        connection = self.getHandle()
        return connection.get_peer_certificate() if connection is not None else None

    # The relay.

    def surrender(self) -> bytes | None:
        """
        Leave the descriptor to a relay, watched for reading, and for writing if there are bytes that are not sent yet.
        Return those; L{None} if there are none. The caller breaks the reference cycles with the protocol and C{tls}.
        """
        unsent, events = (b"".join(self._waiting), READABLE | WRITABLE) if self._waiting else (None, READABLE)
        if self._watched != events:
            self._watch(events)
        self.connected = False
        return unsent


_SECURED = Provides(StreamTransport, ISSLTransport)  # directlyProvides() would look it up for each connection.
