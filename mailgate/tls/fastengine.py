# -*- test-case-name: mailgate.test.tls.test_makeengine -*-
"""
TLS by calls of OpenSSL's own functions, through what pyOpenSSL keeps private, for less CPU and memory.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL

from mailgate.tls.engine import READ_SIZE, RECORD, Buffer, PeerClosed, TLSEngine

__all__ = ["FastBinding", "FastEngine"]

# Each record adds at most 256 bytes to its plaintext with TLS 1.3, and 2048 by the letter of TLS 1.2 (RFC 5246, 6.2.3).
_OUTPUT_SIZE = 17 * RECORD
# Of so much at once a memory BIO does not become larger than what waits for a receiver that reads nothing.
_PIECE = 4 * RECORD
# Below this a memory BIO that has grown costs less than a new one.
_SMALL = 1024


class FastBinding:
    """
    All that is private in pyOpenSSL and that L{FastEngine} uses, besides a C{Connection}'s C{_ssl}, C{_into_ssl},
    C{_from_ssl} and C{_info_callback}; and the buffers.

    @raise AttributeError: something of it is missing.
    """

    def __init__(self, lib: Any, ffi: Any) -> None:
        """Bind C{lib} and C{ffi}, which are C{OpenSSL._util}'s."""
        self.null, self.fromBuffer, self._string = ffi.NULL, ffi.from_buffer, ffi.string
        self.sslRead, self.sslWrite, self.sslShutdown = lib.SSL_read, lib.SSL_write, lib.SSL_shutdown
        self.sslSetBIO, self._sslGetError = lib.SSL_set_bio, lib.SSL_get_error
        self.bioRead, self.bioWrite, self.bioMemData = lib.BIO_read, lib.BIO_write, lib.BIO_get_mem_data
        self._bioNew, self._bioMethod = lib.BIO_new, lib.BIO_s_mem()
        self._setMode, self._clearMode = lib.SSL_set_mode, lib.SSL_clear_mode
        self._releaseBuffers, self._partialWrite = lib.SSL_MODE_RELEASE_BUFFERS, lib.SSL_MODE_ENABLE_PARTIAL_WRITE
        self._wantRead, self._zeroReturn = lib.SSL_ERROR_WANT_READ, lib.SSL_ERROR_ZERO_RETURN
        self.clearErrors, self._nextError = lib.ERR_clear_error, lib.ERR_get_error
        self._library, self._reason = lib.ERR_lib_error_string, lib.ERR_reason_error_string
        # Not of memoryviews: the garbage collector crashes over those that cffi still looks into.
        plain, sealed = bytearray(READ_SIZE), bytearray(_OUTPUT_SIZE)
        self.plain, self.plainView = self.fromBuffer(plain), memoryview(plain)
        self.sealed, self.sealedView = self.fromBuffer(sealed), memoryview(sealed)

    def newBIO(self) -> Any:
        """An empty memory BIO; whoever gives it to an SSL object has not to free it."""
        bio = self._bioNew(self._bioMethod)
        if bio == self.null:
            raise MemoryError("OpenSSL makes no memory BIO")
        return bio

    def setModes(self, ssl: Any) -> None:
        """Make C{ssl} free the buffers of its records when they are empty, and encrypt all it is given at once."""
        self._setMode(ssl, self._releaseBuffers)
        self._clearMode(ssl, self._partialWrite)

    def explain(self, ssl: Any, result: int) -> Exception | None:
        """
        Why a call for C{ssl} gave C{result} and no bytes: C{None} where it takes more ciphertext, or else the exception
        to raise, with all that was in the queue of errors.
        """
        error = self._sslGetError(ssl, result)
        if error == self._wantRead:
            return None
        queued = self._errors()
        # Before OpenSSL 4, what others have left in the queue looks as if this call had failed.
        if queued:
            error = self._sslGetError(ssl, result)
        if error == self._wantRead:
            return None
        return PeerClosed() if error == self._zeroReturn else SSL.Error(queued)

    def _errors(self) -> list[tuple[str, str, str]]:
        """OpenSSL's queue of errors, emptied, as pyOpenSSL has it in its exceptions."""
        queued = []
        while code := self._nextError():
            queued.append((self._text(self._library(code)), "", self._text(self._reason(code))))
        return queued

    def _text(self, pointer: Any) -> str:
        return "" if pointer == self.null else str(self._string(pointer), "utf-8", "replace")


class FastEngine(TLSEngine):
    """
    An engine that calls OpenSSL itself.

    Data cross a memory BIO in one piece, which therefore grows; L{settle} replaces it.
    """

    __slots__ = ("_binding", "_fromSSL", "_grown", "_intoSSL", "_needed", "_ssl")

    def __init__(self, connection: SSL.Connection, binding: FastBinding) -> None:
        super().__init__(connection)
        private: Any = connection
        # Without this a peer could have certificates verified again, by callbacks that forget() has freed.
        private.set_options(SSL.OP_NO_RENEGOTIATION)
        self._binding = binding
        self._ssl = private._ssl
        self._intoSSL = private._into_ssl
        self._fromSSL = private._from_ssl
        self._needed: object = None
        self._grown = False
        binding.setModes(self._ssl)

    def feed(self, data: Buffer) -> None:
        size = len(data)
        if size > _SMALL or not self._dry:
            self._grown = True
        self._dry = False
        binding = self._binding
        # cffi gives bytes to C as they are.
        binding.bioWrite(self._intoSSL, data if data.__class__ is bytes else binding.fromBuffer(data), size)

    def read(self) -> memoryview | None:
        assert self.handshaken
        if self._dry:
            self._raiseFailure()
            return None
        binding = self._binding
        sslRead, ssl, plain = binding.sslRead, self._ssl, binding.plain
        size = got = sslRead(ssl, plain, READ_SIZE)
        # Each call gives one record at most.
        while got > 0 and size < READ_SIZE:
            got = sslRead(ssl, plain + size, READ_SIZE - size)
            if got > 0:
                size += got
        if got <= 0:
            self._dry = True
            self._failure = binding.explain(ssl, got)
            if size <= 0:
                self._raiseFailure()
                return None
        return binding.plainView[:size]

    def write(self, data: Buffer) -> None:
        assert self.handshaken
        binding = self._binding
        size = left = len(data)
        source = data if data.__class__ is bytes else binding.fromBuffer(data)
        while left:
            sent = binding.sslWrite(self._ssl, source, left)
            if sent <= 0:
                # Nothing of cffi's may stay in a traceback, see FastBinding.
                del source
                raise binding.explain(self._ssl, sent) or SSL.WantReadError()
            left -= sent
            if left:
                source = binding.fromBuffer(data) + (size - left)

    def output(self) -> memoryview | bytes:
        binding = self._binding
        size = binding.bioRead(self._fromSSL, binding.sealed, _OUTPUT_SIZE)
        if size <= 0:
            return b""
        if size > _SMALL:
            self._grown = True
            if size == _OUTPUT_SIZE:
                taken = bytes(binding.sealedView)
                return taken + self.output()
        return binding.sealedView[:size]

    def encrypt(self, data: Buffer) -> memoryview | bytes:
        size = len(data)
        if not _PIECE < size <= READ_SIZE:
            return super().encrypt(data)
        binding, filled, source = self._binding, 0, self._binding.fromBuffer(data)
        for at in range(0, size, _PIECE):
            sent = binding.sslWrite(self._ssl, source + at, min(_PIECE, size - at))
            if sent <= 0:
                del source  # As in write.
                raise binding.explain(self._ssl, sent) or SSL.WantReadError()
            filled += max(0, binding.bioRead(self._fromSSL, binding.sealed + filled, _OUTPUT_SIZE - filled))
        self._grown = True
        # Both in this order: more than the buffer holds is put into the same one.
        return binding.sealedView[:filled] if filled < _OUTPUT_SIZE else bytes(binding.sealedView) + self.output()

    def settle(self) -> None:
        if not self._grown:
            return
        binding = self._binding
        sizeOf, null = binding.bioMemData, binding.null
        if sizeOf(self._intoSSL, null) or sizeOf(self._fromSSL, null):
            return
        self._grown = False
        self._intoSSL, self._fromSSL = binding.newBIO(), binding.newBIO()
        # This frees the former two.
        binding.sslSetBIO(self._ssl, self._intoSSL, self._fromSSL)
        self._tellConnection(self._intoSSL, self._fromSSL)

    def forget(self) -> None:
        assert self.handshaken
        connection: Any = self.connection
        if connection is None:
            return
        context = connection.get_context()
        # OpenSSL calls these with every alert, and pyOpenSSL looks the connection up for them.
        watched = getattr(connection, "_info_callback", None) or getattr(context, "_info_callback", None)
        self._needed = connection if watched else context
        # A callback of the connection's own is freed with it; OpenSSL would keep its address.
        connection.set_verify(connection.get_verify_mode())
        self._tellConnection(None, None)
        self.connection = None

    def _tellConnection(self, intoSSL: Any, fromSSL: Any) -> None:
        """What pyOpenSSL takes for the BIOs: it must never touch those that were freed."""
        connection: Any = self.connection
        if connection is not None:
            connection._into_ssl, connection._from_ssl = intoSSL, fromSSL

    def _shutdown(self) -> None:
        if self._binding.sslShutdown(self._ssl) < 0:
            self._binding.clearErrors()
