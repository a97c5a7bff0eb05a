# -*- test-case-name: mailgate.test.tls.test_makeengine -*-
"""
TLS in memory: an engine takes ciphertext and returns plaintext, and the reverse. A transport moves the bytes.

Twisted's own C{TLSMemoryBIOProtocol} costs more for a connection than OpenSSL itself. Its memory BIOs (OpenSSL's
U{BIO_s_mem<https://docs.openssl.org/master/man3/BIO_s_mem/>}) never shrink. L{mailgate.tls.fastengine} calls OpenSSL
directly through private parts of pyOpenSSL. L{PublicEngine} uses pyOpenSSL's public methods only;
L{mailgate.tls.makeengine} selects it if the private parts have changed.

Both refuse renegotiation where they can, because certificates are verified in the first handshake only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from OpenSSL import SSL
from twisted.python.failure import Failure

__all__ = ["READ_SIZE", "RECORD", "Buffer", "PeerClosed", "PublicEngine", "TLSEngine", "Verification"]

Buffer = bytes | bytearray | memoryview

RECORD = 16384
"""The most bytes of plaintext in one TLS record."""

READ_SIZE = 16 * RECORD
"""The most bytes of plaintext that one L{TLSEngine.read} returns."""


class PeerClosed(Exception):
    """The peer has sent close_notify: no more data will come."""


class Verification:
    """
    Stands for Twisted's TLS protocol in the calls of connection creators.

    @ivar failure: why a creator refuses the peer's certificate, or L{None}.
    @ivar wrappedFactory: L{None}: Twisted's C{startTLS} asks it for the protocols to negotiate, and there are none.
    """

    failure: Failure | None = None
    wrappedFactory = None

    @property
    def factory(self) -> Verification:
        return self

    def failVerification(self, reason: Failure) -> None:
        self.failure = reason


class TLSEngine(ABC):
    """
    One end of a TLS connection.

    L{read} and L{output} return views of buffers that all engines share. A view is valid until the next call of the
    same method on any engine.

    @ivar connection: OpenSSL's connection; L{None} after L{forget}.
    @ivar handshaken: whether the handshake is complete.
    @ivar isDry: whether L{read} returns L{None} until there is more ciphertext.
    """

    __slots__ = ("_closing", "_failure", "connection", "handshaken", "isDry")

    connection: SSL.Connection | None

    def __init__(self, connection: SSL.Connection) -> None:
        """Take C{connection} over. It has memory BIOs, and has been set to the side of the client or of the server."""
        self.connection = connection
        self.handshaken = False
        self._closing = False
        self.isDry = True
        self._failure: Exception | None = None

    def handshake(self) -> bool:
        """
        Continue the handshake.

        @return: whether it is complete.
        @raise SSL.Error: it failed. L{output} has the alert, if there is one.
        @raise Exception: what the creator of the connection passed to C{failVerification}.
        """
        assert self.connection is not None
        try:
            self.handshaken = done = self._shakeHands()
        except SSL.Error:
            verification = self.connection.get_app_data()
            if isinstance(verification, Verification) and verification.failure is not None:
                verification.failure.raiseException()
            raise
        return done

    @abstractmethod
    def _shakeHands(self) -> bool:
        """Continue the handshake, and return whether it is complete. Raises SSL.Error if it failed."""

    @abstractmethod
    def feed(self, data: Buffer) -> None:
        """Take received ciphertext. The caller may reuse C{data} afterwards."""

    @abstractmethod
    def read(self) -> memoryview | None:
        """
        Return the available plaintext, up to L{READ_SIZE} bytes at once. Call it after the handshake.

        Reading may also produce output, such as the answer to a KeyUpdate: call L{output} afterwards.

        @return: plaintext, or L{None} if more ciphertext is needed.
        @raise PeerClosed: the peer has sent close_notify.
        @raise SSL.Error: the ciphertext is invalid. L{output} has the alert.
        """

    @abstractmethod
    def write(self, data: Buffer) -> None:
        """
        Encrypt all of C{data} for L{output}. Call it after the handshake.

        @raise SSL.Error: the connection has failed, and nothing more can be sent.
        """

    @abstractmethod
    def output(self) -> memoryview | bytes:
        """Return and remove all ciphertext that is to be sent."""

    def encrypt(self, data: Buffer) -> memoryview | bytes:
        """
        L{write} and L{output} in one call.

        @param data: the plaintext.
        @return: the ciphertext that is to be sent, C{data} at its end.
        @raise SSL.Error: the connection has failed, and nothing more can be sent.
        """
        self.write(data)
        return self.output()

    def closeNotify(self) -> None:
        """
        Queue a close_notify for L{output}, once, and only after the handshake. Call it even if the connection is lost
        already: without it OpenSSL removes the session from its cache, as after a failure.
        """
        if self.handshaken and not self._closing:
            self._closing = True
            self._shutdown()

    def settle(self) -> None:  # noqa: B027
        """Release memory that a burst of data used. This costs little if there is nothing to release."""

    @abstractmethod
    def forget(self) -> None:
        """Drop L{connection}, and everything else that relaying does not need. Call it after the handshake."""

    @abstractmethod
    def _shutdown(self) -> None:
        """Queue a close_notify, unless the connection has failed."""

    def _raiseFailure(self) -> None:
        """Raise the error that interrupted the previous read, if there was one."""
        failure, self._failure = self._failure, None
        if failure is None:
            return
        # OpenSSL reports the error again at the next read. Do not keep the exception: its traceback refers to the
        # engine.
        try:
            raise failure
        finally:
            del failure


class PublicEngine(TLSEngine):
    """
    An engine that uses pyOpenSSL's public methods only.

    The memory BIOs cannot be replaced. Data pass through them in pieces of one record, so that they stay small.
    """

    __slots__ = ("_sealed", "_session", "_unread")

    _plain = memoryview(bytearray(READ_SIZE))

    def __init__(self, connection: SSL.Connection) -> None:
        """Take C{connection} over, see L{TLSEngine}."""
        super().__init__(connection)
        self._session = connection
        self._unread = bytearray()
        self._sealed = bytearray()

    def _shakeHands(self) -> bool:
        while True:
            try:
                self._session.do_handshake()
            except SSL.WantReadError:
                if not self._supply():
                    return False
            else:
                return True

    def feed(self, data: Buffer) -> None:
        self.isDry = False
        self._unread += data

    def read(self) -> memoryview | None:
        assert self.handshaken
        if self.isDry:
            return None
        self._raiseFailure()
        size = 0
        while size < READ_SIZE:
            try:
                size += self._session.recv_into(self._plain[size:], RECORD)
            except SSL.WantReadError:
                if not self._supply():
                    self.isDry = True
                    break
            except SSL.Error as error:
                self._failure = PeerClosed() if isinstance(error, SSL.ZeroReturnError) else error.with_traceback(None)
                break
        if size == 0:
            self._raiseFailure()
            return None
        return self._plain[:size]

    def write(self, data: Buffer) -> None:
        assert self.handshaken
        left = memoryview(data)
        while left:
            left = left[self._session.send(left[:RECORD]) :]
            self._collect()

    def output(self) -> memoryview | bytes:
        self._collect()
        taken, self._sealed = self._sealed, bytearray()
        return memoryview(taken)

    def forget(self) -> None:
        assert self.handshaken
        self.connection = None

    def _collect(self) -> None:
        """Move the ciphertext from the memory BIO to C{_sealed}."""
        try:
            while True:
                self._sealed += self._session.bio_read(2 * RECORD)
        except SSL.WantReadError:
            return

    def _supply(self) -> bool:
        """Pass ciphertext that was held back to OpenSSL, and return whether there was any."""
        piece = self._unread[:RECORD]
        if not piece:
            return False
        del self._unread[:RECORD]
        self._session.bio_write(piece)
        return True

    def _shutdown(self) -> None:
        try:
            self._session.shutdown()
        except SSL.Error:
            # The connection failed before, and the failure was reported then.
            return
