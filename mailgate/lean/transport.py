# -*- test-case-name: mailgate.test.lean.test_transport_contract -*-
"""
Connections on raw descriptors, for protocols that are used to Twisted's.

What is written goes out at once, and is waited for only where the system does not take it; Twisted's own transports ask
their reactor first, and are told an event later that they may. What an idle connection needs is in the system.
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
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
    ITLSTransport,
)
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from mailgate.lean.descriptors import addressOf, ask, reset
from mailgate.lean.poller import BROKEN, READABLE, WRITABLE, Poller
from mailgate.lean.tls import TLSLayer
from mailgate.tls.engine import TLSEngine
from mailgate.tls.makeengine import makeEngine

__all__ = ["READ_SIZE", "WRITE_AHEAD", "StreamTransport"]

READ_SIZE = 16384
"""Bytes read at once: what comes before a login, or in answer to one, is a fraction of it."""

WRITE_AHEAD = 65536
"""Bytes that may wait to be sent before a producer is paused; as Twisted's."""


def _lost(error: OSError) -> Failure:
    # Twisted's exception has no text where its argument is not one.
    return Failure(ConnectionLost(str(error)))


@implementer(ITCPTransport, ITLSTransport, IPushProducer, IConsumer)
class StreamTransport:
    """
    The connection C{fd}, of address C{family} as the system gives it, from or to C{peer}. C{noDelay} says that
    TCP_NODELAY has been set already.
    """

    accepted = False
    """Whether it was the peer that connected."""
    connected = True
    disconnecting = False
    producer: Any = None
    tls: TLSLayer | None = None
    onLoss: Callable[[Failure], object] | None = None
    """Told of the end after the protocol."""
    _wanted = READABLE
    _watched = READABLE
    """What the poller has been asked for: what is wanted, or more."""
    _readEnded = False
    _writeEnded = False
    _writeEnding = False
    _aborting = False
    _waitingSize = 0
    _streaming = False
    _producerPaused = False

    def __init__(self, poller: Poller, fd: int, family: int, peer: IAddress, noDelay: bool = False) -> None:
        self.fd = fd
        self.poller = poller
        self.family = family
        self.protocol: Any = None
        self._peer = peer
        self._noDelay = noDelay
        self._waiting: deque[Any] | None = None

    def open(self, protocol: Any, watched: bool = False) -> None:
        """Begin: connect C{protocol}. C{watched} says that the poller knows the descriptor, for reading and writing."""
        if watched:
            self._watched = READABLE | WRITABLE
            self.poller.transfer(self.fd, self)
            self._want(READABLE)
        else:
            try:
                self.poller.watch(self.fd, self, READABLE)
            except OSError:
                # The poller does not have it, and so cannot be asked to close it.
                self.connected = False
                os.close(self.fd)
                raise
        self.protocol = protocol
        protocol.makeConnection(self)

    # What the poller calls.

    def ready(self, fd: int, events: int) -> None:
        """The connection can be read or written, or has an error."""
        if events & WRITABLE:
            self._flush()
        if events & ~WRITABLE:
            if self._wanted & READABLE:
                self._read()
            elif self._watched & READABLE:
                self._watch(self._wanted)
            elif self._readEnded:
                self._hungUp(events)

    def failed(self, failure: Failure) -> None:
        """The protocol has raised: this connection is over, and no other."""
        self.connectionLost(failure)

    def _read(self) -> None:
        try:
            data = os.read(self.fd, READ_SIZE)
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

    def readEnded(self, reason: Exception) -> None:
        """The peer sends no more: a protocol that does not care to know that alone has lost its connection."""
        self._readEnded = True
        # Asked for when it next says that there is something to read: nearly all connections end at once.
        self._wanted = self._wanted & ~READABLE | BROKEN
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.readConnectionLost()
            return
        if self.tls is not None:
            self.tls.close()
        self.poller.soon(lambda: self.connectionLost(Failure(reason)))

    def _hungUp(self, events: int) -> None:
        """The peer, which sends no more, takes nothing any more either; or both have said that they send no more."""
        if events & BROKEN:
            self.connectionLost(Failure(ConnectionLost()))
        else:
            self._want(self._wanted & ~BROKEN)

    def _want(self, events: int) -> None:
        self._wanted = events
        # A pause costs nothing if it is over before anything comes.
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
        """Put the bytes C{data} on the wire, now or when it takes them; C{data} may be changed afterwards."""
        if not self.connected or self._writeEnded or self._aborting or not data:
            return
        if self._waiting:
            self._keep(data)
            return
        try:
            sent = os.write(self.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._broken(error)
            return
        if sent < len(data):
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
        """Nothing can be written any more. Not told at once: whoever writes does not expect to lose the connection."""
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
        """Whether something waits to be sent."""
        return bool(self._waiting)

    def _drained(self) -> None:
        """All that was written has been sent: go on with what comes then."""
        if self.producer is not None and not self._streaming:
            self._pull()
        elif self._producerPaused:
            self._producerPaused = False
            self.producer.resumeProducing()
        elif self.tls is not None and not self.tls.closed:
            # TLS's own end is still to come.
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
        """Ask a pull producer for its next piece, and again when that may have been sent."""
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
        """Whether the protocol takes what comes."""
        return bool(self._wanted & READABLE)

    def stopProducing(self) -> None:
        self.loseConnection()

    # The end.

    def loseConnection(self) -> None:
        if not self.connected or self.disconnecting or self._aborting:
            return
        if self.tls is not None:
            if not self.tls.handshaken and not self.tls.early:
                # There is nobody yet to say goodbye to.
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
            # What has come and nobody has read would turn the end into a reset, and could cost the peer our last words.
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
        """TLS has said that no more comes, which had to wait until hands were shaken: go on with the end."""
        if self.disconnecting and not self.accepted:
            # A server's tickets are on their way, and would turn the end into a reset: it is the server that closes.
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
        self._aborting = self.disconnecting = True
        self._want(0)
        self.poller.soon(lambda: self.connectionLost(Failure(ConnectionAborted())))

    def connectionLost(self, reason: Failure) -> None:
        """Close the descriptor, whatever is on its way, and tell the protocol."""
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
            # No cycle, here neither.
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
            directlyProvides(self, ISSLTransport)
            self.tls.start()

    def getHandle(self) -> Any:
        """OpenSSL's connection, once there is one; on the side of a server that is when the client has begun."""
        return self.tls.connection if self.tls is not None else None

    def getPeerCertificate(self) -> Any:
        connection = self.getHandle()
        return connection.get_peer_certificate() if connection is not None else None

    # The addresses, and TCP.

    def getPeer(self) -> Any:
        return self._peer

    def getHost(self) -> Any:
        return addressOf(self.family, self._ask("getsockname"))

    def getTcpNoDelay(self) -> bool:
        return self.family != socket.AF_UNIX and bool(self._ask("getsockopt", socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        if enabled is not self._noDelay and self.family != socket.AF_UNIX:
            self._ask("setsockopt", socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)
            self._noDelay = enabled

    def getTcpKeepAlive(self) -> bool:
        return bool(self._ask("getsockopt", socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self._ask("setsockopt", socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)

    def _ask(self, method: str, *arguments: int) -> Any:
        return ask(self.fd, self.family, method, *arguments)

    # The relay.

    def surrender(self) -> tuple[TLSEngine | None, bytes]:
        """
        Leave the descriptor to somebody else, watched for reading and nothing else; gives the TLS that it is under, and
        what has not been sent yet.
        """
        unsent = b"".join(self._waiting or ())
        if self._watched != READABLE:
            self._watch(READABLE)
        self.connected = False
        # No cycle: the dialogue is freed as soon as nobody needs it.
        self.protocol = self.producer = None
        tls, self.tls = self.tls, None
        return (tls.engine if tls is not None else None), unsent
