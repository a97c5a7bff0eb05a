# -*- test-case-name: mailgate.test.tls.test_makeengine -*-
"""
TLS without input or output: ciphertext goes in and plaintext comes out, and the reverse. A transport moves the bytes.

Twisted's own C{TLSMemoryBIOProtocol} spends more on a connection than OpenSSL does, and its memory BIOs (OpenSSL's
U{BIO_s_mem<https://docs.openssl.org/master/man3/BIO_s_mem/>}) stay as large as they ever were.
L{mailgate.tls.fastengine} calls OpenSSL directly, through what pyOpenSSL keeps private; L{PublicEngine} does the same
by pyOpenSSL's public methods, and takes over where L{mailgate.tls.makeengine} finds that what is private has changed.

Both refuse to renegotiate where they can: nothing but the first handshake verifies a certificate.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from OpenSSL import SSL
from twisted.python.failure import Failure

__all__ = ["READ_SIZE", "RECORD", "Buffer", "PeerClosed", "PublicEngine", "TLSEngine", "Verification"]

Buffer = bytes | bytearray | memoryview

RECORD = 16384
"""Bytes of plaintext in a full record."""

READ_SIZE = 16 * RECORD
"""Bytes of plaintext that an engine gives at once."""


class PeerClosed(Exception):
    """The peer has said, by a close_notify, that it sends no more."""


class Verification:
    """
    What the creators of connections take for Twisted's TLS protocol.

    @ivar failure: why the peer's certificate is not good, where a creator found that.
    @ivar wrappedFactory: asked for protocols to negotiate, as in Twisted's C{startTLS}: there is none.
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

    What L{read} and L{output} give are views of buffers that all engines share: they hold until the next call of the
    same method, of whichever engine.

    @ivar connection: what was negotiated, for those who ask; C{None} once L{forget} was called.
    @ivar handshaken: whether the handshake is complete.
    """

    __slots__ = ("_closing", "_dry", "_failure", "connection", "handshaken")

    connection: SSL.Connection | None

    def __init__(self, connection: SSL.Connection) -> None:
        """Take C{connection}, which was made upon memory BIOs and knows its side, over."""
        self.connection = connection
        self.handshaken = False
        self._closing = False
        self._dry = True
        self._failure: Exception | None = None

    def handshake(self) -> bool:
        """
        Go on with the handshake; whether it is complete.

        @raise SSL.Error: it has failed; L{output} has the alert, if there is one.
        @raise Exception: what the creator of the connection gave to C{failVerification}.
        """
        assert self.connection is not None
        while True:
            try:
                self.connection.do_handshake()
            except SSL.WantReadError:
                if not self._supply():
                    return False
            except SSL.Error:
                verification = self.connection.get_app_data()
                if isinstance(verification, Verification) and verification.failure is not None:
                    verification.failure.raiseException()
                raise
            else:
                self.handshaken = True
                return True

    @abstractmethod
    def feed(self, data: Buffer) -> None:
        """Take ciphertext that was received; C{data} may be reused afterwards."""

    @abstractmethod
    def read(self) -> memoryview | None:
        """
        Plaintext, as much as there is, up to 256 KiB at once; C{None}: it takes more ciphertext.

        Reading also obeys what is said between records of data, such as a KeyUpdate: look at L{output} afterwards.
        It comes after the handshake.

        @raise PeerClosed: there is no more, nor will be.
        @raise SSL.Error: this is not TLS any more; L{output} has the alert.
        """

    @abstractmethod
    def write(self, data: Buffer) -> None:
        """
        Encrypt all of C{data}, for L{output}. It comes after the handshake.

        @raise SSL.Error: nothing can be sent any more.
        """

    @abstractmethod
    def output(self) -> memoryview | bytes:
        """All ciphertext that is to be sent now; it leaves the engine."""

    def encrypt(self, data: Buffer) -> memoryview | bytes:
        """What is to be sent now, C{data} at its end: L{write}, which it raises as, and L{output} at once."""
        self.write(data)
        return self.output()

    def closeNotify(self) -> None:
        """
        Say, in L{output}, that no more is sent; nothing where that was said before, or the handshake is not over. Also
        for when nobody hears it any more: without it OpenSSL takes the session out of its cache, as if it had failed.
        """
        if self.handshaken and not self._closing:
            self._closing = True
            self._shutdown()

    def settle(self) -> None:  # noqa: B027
        """Give back what a large flight made grow; cheap where there is nothing."""

    @abstractmethod
    def forget(self) -> None:
        """Drop L{connection}, and whatever else data does not need; it comes after the handshake."""

    @abstractmethod
    def _shutdown(self) -> None:
        """Queue a close_notify, unless the connection has failed."""

    def _supply(self) -> bool:
        """Hand ciphertext that was held back to OpenSSL; whether there was any."""
        return False

    def _raiseFailure(self) -> None:
        """Raise what interrupted the read before, if anything did."""
        failure, self._failure = self._failure, None
        if failure is None:
            return
        # OpenSSL says so again when it is asked again. It is not kept here: its traceback refers to the engine.
        self._dry = False
        try:
            raise failure
        finally:
            del failure


class PublicEngine(TLSEngine):
    """
    An engine by pyOpenSSL's public methods.

    The memory BIOs cannot be replaced: data cross them in pieces of a record, so that they do not grow beyond that.
    """

    __slots__ = ("_sealed", "_session", "_unread")

    _plain = memoryview(bytearray(READ_SIZE))

    def __init__(self, connection: SSL.Connection) -> None:
        super().__init__(connection)
        self._session = connection
        self._unread = bytearray()
        self._sealed = bytearray()

    def feed(self, data: Buffer) -> None:
        self._dry = False
        self._unread += data

    def read(self) -> memoryview | None:
        assert self.handshaken
        if self._dry:
            self._raiseFailure()
            return None
        size = 0
        while size < READ_SIZE:
            try:
                size += self._session.recv_into(self._plain[size:], RECORD)
            except SSL.WantReadError:
                if not self._supply():
                    self._dry = True
                    break
            except SSL.Error as error:
                self._dry = True
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
        """Take the ciphertext out of the memory BIO."""
        try:
            while True:
                self._sealed += self._session.bio_read(2 * RECORD)
        except SSL.WantReadError:
            return

    def _supply(self) -> bool:
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
            # It has failed before, and that was told.
            return
