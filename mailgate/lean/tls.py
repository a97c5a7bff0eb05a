# -*- test-case-name: mailgate.test.lean.test_transport_contract -*-
"""TLS between a transport on a raw descriptor and its protocol."""

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
    """Stands for a server's engine before the first byte of the client."""

    connection = None
    handshaken = False

    def closeNotify(self) -> None:
        """Do nothing: there is no TLS connection yet."""

    def output(self) -> bytes:
        """There is no output."""
        return b""


_UNMADE: Any = _Unmade()


class TLSLayer:
    """
    The TLS of one transport.

    Data that the protocol writes before the handshake is complete are kept until then. The protocol must limit them.

    The engine of a server is made when the client's first bytes arrive: an engine takes forty times the memory of a
    connection, and a silent client needs none. If the creator reads tickets (L{ITicketReader}) and there are valid
    tickets of an older key, the engine is made when the ClientHello is complete.

    @ivar engine: the engine, or a stand-in until it is made.
    @ivar early: what the protocol wrote before the handshake was complete.
    @ivar closed: whether nothing more is sent.
    """

    closed = False
    _closing = False
    _unread = False
    _ended = False
    _hello: ClientHello | None = None
    """The incomplete ClientHello, if its tickets matter."""

    def __init__(self, transport: StreamTransport, engine: TLSEngine | None, creator: Any = None) -> None:
        """
        @param transport: the transport.
        @param engine: the engine of a client; L{None} for a server.
        @param creator: what makes the connections of a server.
        """
        self.engine: TLSEngine = _UNMADE if engine is None else engine
        self._creator = creator
        self._transport = transport
        self.early: list[bytes] = []

    @property
    def connection(self) -> Any:
        """OpenSSL's connection."""
        return self.engine.connection

    @property
    def handshaken(self) -> bool:
        """Whether the handshake is complete."""
        return self.engine.handshaken

    def start(self) -> None:
        """Start the handshake. The client sends first."""
        if self._creator is None:
            self._advance()

    def received(self, data: bytes) -> None:
        """
        Bytes have arrived from the peer.

        @param data: the bytes; empty at the end of the connection.
        """
        if data:
            if self._creator is not None:
                self._greeted(data)
                return
            self.engine.feed(data)
            self._advance()
        else:
            if self._hello is not None:
                # The ClientHello will never be complete: let OpenSSL handle what has arrived.
                self._begin(self._creator, bytes(self._hello.received))
                if self.closed:
                    return
            # There was no close_notify: an attacker may have truncated the data.
            self._transport.connectionLost(Failure(ConnectionLost()))

    def _greeted(self, data: bytes) -> None:
        """
        The first bytes have arrived, or more of a ClientHello whose tickets matter: make the engine if they are enough.
        """
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
        """Make the engine with C{creator}, and pass it C{data}, the client's first bytes."""
        self._creator = None
        self.engine = makeEngine(creator, True)
        self.engine.feed(data)
        self._advance()

    def resume(self) -> None:
        """The protocol reads again: deliver decrypted data that it has not received."""
        if self._unread:
            self._transport.poller.soon(self._readOn)

    def _readOn(self) -> None:
        if self._transport.connected and self._unread:
            self._advance()

    def _advance(self) -> None:
        transport, engine = self._transport, self.engine
        try:
            if (engine.handshaken or self._shakeHands()) and not engine.isDry:
                self._read()
        except SSL.Error as error:
            self._fail(error)
            return
        if transport.connected:
            output = engine.output()
            if output:
                transport.send(output)
            elif not engine.handshaken:
                # The peer's messages arrive in several pieces.
                acknowledge(transport.fd)
            if engine.handshaken:
                engine.settle()

    def _shakeHands(self) -> bool:
        """Continue the handshake, and return whether it is complete and the connection open."""
        transport, engine = self._transport, self.engine
        try:
            done = engine.handshake()
        except SSL.Error:
            raise
        except Exception as error:
            # The creator of the connection refuses the peer, usually because of its certificate.
            self._fail(error)
            return False
        if not done:
            return False
        # The last messages of the handshake are sent together with the protocol's first data.
        if self.early:
            engine.write(b"".join(self.early))
            self.early = []
        if self._closing:
            self.close()
            transport.closeNotified()
        if IHandshakeListener.providedBy(transport.protocol):
            transport.protocol.handshakeCompleted()
        return transport.connected

    def _read(self) -> None:
        """Deliver decrypted data to the protocol, as long as it reads."""
        transport, engine = self._transport, self.engine
        self._unread = False
        while transport.connected and not engine.isDry:
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
            if data is not None:
                transport.protocol.dataReceived(bytes(data))

    def _fail(self, error: Exception) -> None:
        """TLS has failed: send the alert if possible, and close the connection."""
        transport = self._transport
        self.closed = True
        if transport.connected:
            transport.send(self.engine.output())
            failure = Failure(error)
            transport.pauseProducing()
            transport.poller.soon(lambda: transport.connectionLost(failure))

    def write(self, data: bytes) -> None:
        """Encrypt C{data} and send it."""
        transport, engine = self._transport, self.engine
        if self.closed or not transport.connected:
            return
        if engine.handshaken:
            try:
                engine.write(data)
                transport.send(engine.output())
            except SSL.Error as error:
                # The protocol learns it from connectionLost, as with any lost connection.
                self._fail(error)
        elif data:
            self.early.append(bytes(data))

    def lost(self) -> None:
        """The connection is closed, by either side."""
        if not self.closed:
            self.engine.closeNotify()

    def close(self) -> None:
        """Send close_notify now, or when the handshake is complete."""
        if not self.engine.handshaken:
            self._closing = True
        elif not self.closed:
            self.closed = True
            self.engine.closeNotify()
            self._transport.send(self.engine.output())
