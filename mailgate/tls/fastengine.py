# -*- test-case-name: mailgate.test.tls.test_makeengine -*-
"""
A TLS engine that calls OpenSSL's functions directly, through private parts of pyOpenSSL, to use less CPU and memory.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL

from mailgate.tls.engine import READ_SIZE, RECORD, Buffer, PeerClosed, TLSEngine

__all__ = ["FastBinding", "FastEngine"]

# TLS 1.3 adds at most 256 bytes to the plaintext of a record, and TLS 1.2 at most 2048 (RFC 5246, 6.2.3).
_OUTPUT_SIZE = 17 * RECORD
# Writing in pieces of this size keeps a memory BIO no larger than what waits for a receiver that reads nothing.
_PIECE = 4 * RECORD
# Keeping a memory BIO that has grown to this size costs less than making a new one.
_SMALL = 1024


class FastBinding:
    """
    The private parts of pyOpenSSL that L{FastEngine} uses, and the shared buffers. L{FastEngine} also uses a
    C{Connection}'s C{_ssl}, C{_into_ssl}, C{_from_ssl} and C{_raise_ssl_error}, and its own and its context's
    C{_info_callback} and C{_verify_helper}.

    @raise AttributeError: this pyOpenSSL lacks one of them.
    """

    def __init__(self, lib: Any, ffi: Any) -> None:
        """Bind C{lib} and C{ffi} of C{OpenSSL._util}."""
        self.null, self.fromBuffer, self._string = ffi.NULL, ffi.from_buffer, ffi.string
        self.sslRead, self.sslWrite, self.sslShutdown = lib.SSL_read, lib.SSL_write, lib.SSL_shutdown
        self.sslHandshake, self.sslSetBIO, self.sslGetError = lib.SSL_do_handshake, lib.SSL_set_bio, lib.SSL_get_error
        self.bioRead, self.bioWrite, self.bioMemData = lib.BIO_read, lib.BIO_write, lib.BIO_get_mem_data
        self._bioNew, self._bioMethod = lib.BIO_new, lib.BIO_s_mem()
        self._setOptions, self._setMode, self._clearMode = lib.SSL_set_options, lib.SSL_set_mode, lib.SSL_clear_mode
        self._releaseBuffers, self._partialWrite = lib.SSL_MODE_RELEASE_BUFFERS, lib.SSL_MODE_ENABLE_PARTIAL_WRITE
        self.wantRead, self._zeroReturn = lib.SSL_ERROR_WANT_READ, lib.SSL_ERROR_ZERO_RETURN
        self.clearErrors, self._nextError = lib.ERR_clear_error, lib.ERR_get_error
        self._library, self._reason = lib.ERR_lib_error_string, lib.ERR_reason_error_string
        # cffi must not take memoryviews: the garbage collector crashes on a memoryview that cffi still uses.
        plain, sealed = bytearray(READ_SIZE), bytearray(_OUTPUT_SIZE)
        self.plain, self.plainView = self.fromBuffer(plain), memoryview(plain)
        self.sealed, self.sealedView = self.fromBuffer(sealed), memoryview(sealed)

    def newBIO(self) -> Any:
        """
        Make an empty memory BIO. An SSL object that receives it will free it.

        @raise MemoryError: OpenSSL cannot allocate it.
        """
        bio = self._bioNew(self._bioMethod)
        if not bio:
            raise MemoryError("OpenSSL cannot allocate a memory BIO")
        return bio

    def prepare(self, ssl: Any) -> None:
        """
        Make C{ssl} free its record buffers when they are empty, encrypt all that a write passes to it, and refuse
        renegotiation, which would verify certificates again.
        """
        self._setMode(ssl, self._releaseBuffers)
        self._clearMode(ssl, self._partialWrite)
        self._setOptions(ssl, SSL.OP_NO_RENEGOTIATION)

    def explain(self, ssl: Any, result: int) -> Exception | None:
        """
        Why a call of OpenSSL returned no bytes.

        @param ssl: the SSL object of the call.
        @param result: what the call returned.
        @return: L{None} if OpenSSL needs more ciphertext, or else the exception to raise, with OpenSSL's queue of
            errors.
        """
        error = self.sslGetError(ssl, result)
        if error == self.wantRead:
            return None
        queued = self._errors()
        # Before OpenSSL 4, errors that other calls left in the queue make this call look failed. The queue is empty
        # now.
        if queued:
            error = self.sslGetError(ssl, result)
        if error == self.wantRead:
            return None
        return PeerClosed() if error == self._zeroReturn else SSL.Error(queued)

    def _errors(self) -> list[tuple[str, str, str]]:
        """Empty OpenSSL's queue of errors, and return it in the form of pyOpenSSL's exceptions."""
        queued = []
        while code := self._nextError():
            queued.append((self._text(self._library(code)), "", self._text(self._reason(code))))
        return queued

    def _text(self, pointer: Any) -> str:
        return "" if pointer == self.null else str(self._string(pointer), "utf-8", "replace")


class FastEngine(TLSEngine):
    """
    An engine that calls OpenSSL directly.

    Data pass through a memory BIO in one piece, so it grows. L{settle} replaces it.
    """

    __slots__ = ("_binding", "_fromSSL", "_grown", "_intoSSL", "_needed", "_ssl")

    def __init__(self, connection: SSL.Connection, binding: FastBinding) -> None:
        """
        @param connection: see L{TLSEngine}.
        @param binding: pyOpenSSL's private parts.
        """
        super().__init__(connection)
        private: Any = connection
        self._binding = binding
        self._ssl = private._ssl
        self._intoSSL = private._into_ssl
        self._fromSSL = private._from_ssl
        self._needed: object = None
        self._grown = False
        binding.prepare(self._ssl)

    def _shakeHands(self) -> bool:
        binding, ssl = self._binding, self._ssl
        connection: Any = self.connection
        verifies = connection._verify_helper is not None
        result = binding.sslHandshake(ssl)
        if result <= 0 and not verifies and binding.sslGetError(ssl, result) == binding.wantRead:
            return False
        if result <= 0 or verifies:
            try:
                # pyOpenSSL keeps the exceptions of its callbacks for this: by context, so the next call would get them.
                connection._raise_ssl_error(ssl, result)
            except SSL.WantReadError:
                return False
        # OpenSSL has used all bytes of the handshake: what is left are data.
        self.isDry = not binding.bioMemData(self._intoSSL, binding.null)
        return bool(result > 0)

    def feed(self, data: Buffer) -> None:
        size = len(data)
        if size > _SMALL or not self.isDry:
            self._grown = True
        self.isDry = False
        binding = self._binding
        # cffi passes bytes to C without a copy.
        binding.bioWrite(self._intoSSL, data if data.__class__ is bytes else binding.fromBuffer(data), size)

    def read(self) -> memoryview | None:
        assert self.handshaken
        if self.isDry:
            return None
        if self._failure is not None:
            self._raiseFailure()
        binding = self._binding
        size = got = binding.sslRead(self._ssl, binding.plain, READ_SIZE)
        # Each call returns one record at most. Call it no more once all ciphertext is used: it would return an error.
        while binding.bioMemData(self._intoSSL, binding.null) and got > 0 and size < READ_SIZE:
            got = binding.sslRead(self._ssl, binding.plain + size, READ_SIZE - size)
            if got > 0:
                size += got
        if got > 0:
            self.isDry = size < READ_SIZE
        else:
            self._failure = binding.explain(self._ssl, got)
            self.isDry = self._failure is None
            if size <= 0:
                self._raiseFailure()
                return None
        return binding.plainView[:size]

    def write(self, data: Buffer) -> None:
        assert self.handshaken
        binding, left = self._binding, len(data)
        source = data if data.__class__ is bytes else binding.fromBuffer(data)
        while left:
            sent = binding.sslWrite(self._ssl, source, left)
            if sent == left:
                return
            if sent <= 0:
                # The traceback must not keep cffi's buffer, see FastBinding.
                del source
                raise binding.explain(self._ssl, sent) or SSL.WantReadError()
            left -= sent
            source = binding.fromBuffer(data) + (len(data) - left)

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
        if len(data) <= _PIECE:
            self.write(data)
            return self.output()
        binding, filled, pieces = self._binding, 0, memoryview(data)
        for at in range(0, len(data), _PIECE):
            self.write(pieces[at : at + _PIECE])
            filled += max(0, binding.bioRead(self._fromSSL, binding.sealed + filled, _OUTPUT_SIZE - filled))
        self._grown = True
        # The order matters: output() reuses the buffer.
        return binding.sealedView[:filled] if filled < _OUTPUT_SIZE else bytes(binding.sealedView) + self.output()

    def settle(self) -> None:
        binding = self._binding
        # A dry engine has used all that was fed.
        if not (self._grown and self.isDry) or binding.bioMemData(self._fromSSL, binding.null):
            return
        self._grown = False
        self._intoSSL, self._fromSSL = into, out = binding.newBIO(), binding.newBIO()
        # This frees the previous two.
        binding.sslSetBIO(self._ssl, into, out)
        connection: Any = self.connection
        if connection is not None:
            connection._into_ssl, connection._from_ssl = into, out

    def forget(self) -> None:
        assert self.handshaken
        connection: Any = self.connection
        if connection is None:
            return
        context = connection.get_context()
        # OpenSSL calls these callbacks for every alert, and pyOpenSSL then needs the connection.
        watched = "_info_callback" in vars(connection) or context._info_callback
        # OpenSSL keeps the address of the callback that verifies. One of its own would be freed with the connection.
        hasOwn = connection._verify_helper is not context._verify_helper
        self._needed = connection if watched or hasOwn else context
        # The connection must never use the BIOs that settle() frees.
        connection._into_ssl = connection._from_ssl = None
        self.connection = None

    def _shutdown(self) -> None:
        if self._binding.sslShutdown(self._ssl) < 0:
            self._binding.clearErrors()
