# -*- test-case-name: mailgate.test.lean.test_transport_contract -*-
"""
TLS between a transport on a raw descriptor and its protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener
from twisted.python.failure import Failure

from mailgate.lean.quickack import acknowledge
from mailgate.tls.clienthello import ClientHello
from mailgate.tls.engine import PeerClosed, TLSEngine
from mailgate.tls.makeengine import makeEngine
from mailgate.tls.tickets import ITicketReader

if TYPE_CHECKING:
    from mailgate.lean.transport import StreamTransport

__all__ = ["TLSLayer"]


class _Unmade:
    """Stands for a server's engine that is not made yet: its client has said nothing."""

    connection = None
    handshaken = False

    def closeNotify(self) -> None:
        """There is nobody to say it to."""

    def output(self) -> bytes:
        """There is nothing to say."""
        return b""


_UNMADE: Any = _Unmade()


class TLSLayer:
    """
    C{transport}'s TLS, by C{engine}. What is written before the handshake is complete is kept until then; it is for the
    protocol not to write without end to a peer that does not answer.

    A server gives a C{creator} of connections instead, by which the engine is made when the client's first bytes come:
    an engine takes forty times the memory of a connection, and a client that says nothing needs none. If C{creator}
    reads tickets (L{ITicketReader}) and has a reason to, this waits until the ClientHello is complete.
    """

    _hello: ClientHello | None = None
    """What has come of a ClientHello whose tickets matter."""

    def __init__(self, transport: StreamTransport, engine: TLSEngine | None, creator: Any = None) -> None:
        self.engine: TLSEngine = _UNMADE if engine is None else engine
        self._creator = creator
        self._transport = transport
        self.early: list[bytes] = []
        """What the protocol has written before the handshake was complete."""
        self.closed = False
        """Whether nothing more is said."""
        self._closing = False
        self._unread = False
        self._ended = False

    @property
    def connection(self) -> Any:
        """OpenSSL's connection."""
        return self.engine.connection

    @property
    def handshaken(self) -> bool:
        """Whether the handshake is complete."""
        return self.engine.handshaken

    def start(self) -> None:
        """Shake hands. The side of the client speaks first."""
        if self._creator is None:
            self._advance()

    def received(self, data: bytes) -> None:
        """C{data} has come from the peer; nothing is the end of it."""
        if data:
            if self._creator is not None:
                self._greeted(data)
                return
            self.engine.feed(data)
            self._advance()
        else:
            if self._hello is not None:
                # It is never complete: let OpenSSL look at what there is.
                self._begin(self._creator, bytes(self._hello.received))
                if self.closed:
                    return
            # Without a goodbye: what came before may have been cut off by anybody.
            self._transport.connectionLost(Failure(ConnectionLost()))

    def _greeted(self, data: bytes) -> None:
        """C{data}, the first or more of a ClientHello whose tickets matter, has come: begin if it is enough."""
        creator, hello = self._creator, self._hello
        if hello is None and ITicketReader.providedBy(creator) and creator.readsTickets:
            hello = self._hello = ClientHello()
        if hello is not None:
            if not hello.feed(data):
                acknowledge(self._transport.fd)
                return
            self._hello = None
            data = bytes(hello.received)
            creator = creator.creatorFor(hello.tickets) or creator
        self._begin(creator, data)

    def _begin(self, creator: Any, data: bytes) -> None:
        """Shake hands by C{creator}, with a client that has sent C{data}."""
        self._creator = None
        self.engine = makeEngine(creator, True)
        self.engine.feed(data)
        self._advance()

    def resume(self) -> None:
        """The protocol takes data again: there may be some that has been decrypted for it."""
        if self._unread:
            self._transport.poller.soon(self._readOn)

    def _readOn(self) -> None:
        if self._transport.connected and self._unread:
            self._advance()

    def _advance(self) -> None:
        transport, engine = self._transport, self.engine
        try:
            if engine.handshaken or self._shakeHands():
                self._read()
        except SSL.Error as error:
            self._fail(error)
            return
        if transport.connected:
            output = engine.output()
            isSilent = not output
            transport.send(output)
            if engine.handshaken:
                engine.settle()
            elif isSilent:
                # The peer's flight comes in several pieces.
                acknowledge(transport.fd)

    def _shakeHands(self) -> bool:
        """Go on with the handshake; gives whether it is complete."""
        transport, engine = self._transport, self.engine
        try:
            done = engine.handshake()
        except SSL.Error:
            raise
        except Exception as error:
            # The creator of the connection has refused the peer: its certificate, as a rule.
            self._fail(error)
            return False
        if not done:
            return False
        # What the handshake still has to say goes out with what the protocol says first.
        early, self.early = self.early, []
        for data in early:
            self._encrypt(data)
        if self._closing:
            self.close()
            transport.closeNotified()
        if IHandshakeListener.providedBy(transport.protocol):
            transport.protocol.handshakeCompleted()
        return transport.connected

    def _read(self) -> None:
        """Give the protocol what has been decrypted, as long as it takes it."""
        transport, engine = self._transport, self.engine
        self._unread = False
        while transport.connected:
            if not transport.reading:
                self._unread = True
                return
            try:
                data = engine.read()
            except PeerClosed:
                if not self._ended:
                    self._ended = True
                    transport.readEnded(ConnectionDone())
                return
            if data is None:
                return
            transport.protocol.dataReceived(bytes(data))

    def _fail(self, error: Exception) -> None:
        """TLS has failed: send the alert that says so, if it can be sent, and end."""
        transport = self._transport
        self.closed = True
        if transport.connected:
            transport.send(self.engine.output())
            failure = Failure(error)
            transport.pauseProducing()
            transport.poller.soon(lambda: transport.connectionLost(failure))

    def write(self, data: bytes) -> None:
        """Encrypt C{data} and send it."""
        if self.closed or not self._transport.connected:
            return
        if self.engine.handshaken:
            try:
                self._encrypt(data)
            except SSL.Error as error:
                # Not the protocol's fault, who hears of it as of any other loss.
                self._fail(error)
        elif data:
            self.early.append(bytes(data))

    def _encrypt(self, data: bytes) -> None:
        self.engine.write(data)
        self._transport.send(self.engine.output())

    def lost(self) -> None:
        """The connection has ended, whoever has said goodbye."""
        if not self.closed:
            self.engine.closeNotify()

    def close(self) -> None:
        """Say goodbye, as soon as there is somebody to say it to."""
        if not self.engine.handshaken:
            self._closing = True
        elif not self.closed:
            self.closed = True
            self.engine.closeNotify()
            self._transport.send(self.engine.output())
