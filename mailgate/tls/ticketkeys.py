# -*- test-case-name: mailgate.test.tls.test_ticketkeys -*-
"""
nginx's C{ssl_session_ticket_key}, where it can be applied.

pyOpenSSL has no call to set ticket keys, but OpenSSL has (U{SSL_CTX_set_tlsext_ticket_key_cb
<https://docs.openssl.org/master/man3/SSL_CTX_set_tlsext_ticket_key_cb/>} and similar). The call can be reached if
cryptography uses the system's OpenSSL, which is a shared library. The packages on PyPI bundle OpenSSL and hide its
symbols. Whether the call works is tested by the tickets that the context then issues.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

from cryptography.hazmat.bindings import _rust
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from OpenSSL import SSL

from mailgate.system.regularfiles import openRegular
from mailgate.tls.files import TLSError
from mailgate.tls.tickets import KEY_NAME, keyName

__all__ = [
    "OPTION",
    "TicketKeyCall",
    "derivedKey",
    "reachCall",
    "readTicketKey",
    "ticketKeyCall",
    "useTicketKey",
]

OPTION = "ssl_session_ticket_key"

TicketKeyCall = Callable[[SSL.Context, bytes], bool]
"""Makes a context issue and accept tickets only by a key of 80 bytes; returns whether OpenSSL reports success."""

_SIZE = 80
_SHORT = 48
_SET_TICKET_KEYS = 59  # SSL_CTRL_SET_TLSEXT_TICKET_KEYS of openssl/ssl.h


def readTicketKey(filename: str) -> bytes:
    """
    Read a key: a name of 16 bytes, an HMAC key of 32, and an AES key of 32.

    @param filename: the file.
    @raise TLSError: the file cannot be read, or has another size.
    """
    try:
        with openRegular(filename) as opened:
            key = opened.read(_SIZE + 1)
    except OSError as error:
        raise TLSError(OPTION, filename, f"cannot be read: {error.strerror}") from None
    if len(key) == _SHORT:
        message = 'is a 48-byte key (AES-128), which is not supported; create an 80-byte key with "openssl rand 80"'
        raise TLSError(OPTION, filename, message)
    if len(key) != _SIZE:
        raise TLSError(OPTION, filename, 'must be 80 bytes; create it with "openssl rand 80"')
    return key


def derivedKey(secret: bytes, server: str) -> bytes:
    """
    Derive the key of a server from a secret that several gateways share (HKDF-SHA256, RFC 5869).

    @param secret: random bytes.
    @param server: the name of the server: a ticket of one is none of another.
    """
    return HKDF(SHA256(), _SIZE, None, f"mailgate tickets {server}".encode()).derive(secret)


def reachCall(library: str) -> TicketKeyCall | None:
    """
    Find OpenSSL's call.

    @param library: the file of cryptography's bindings.
    @return: the call, or L{None} if the bindings hide it.
    """
    try:
        # A bundled OpenSSL hides the symbol. Search only the bindings and the libraries that they load: Python's ssl
        # may have loaded another version of OpenSSL, which must not get this context.
        control = ctypes.CDLL(library).SSL_CTX_ctrl
    except (OSError, AttributeError):
        return None
    control.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
    control.restype = ctypes.c_long

    def call(context: SSL.Context, key: bytes) -> bool:
        private: Any = context
        try:
            from OpenSSL._util import ffi

            pointer = int(ffi.cast("uintptr_t", private._context))
        except (ImportError, AttributeError):
            return False
        return bool(control(pointer, _SET_TICKET_KEYS, len(key), key) == 1)

    return call


@cache
def ticketKeyCall() -> TicketKeyCall | None:
    """OpenSSL's call in this process, or L{None}. The result is cached."""
    return reachCall(_rust.__file__)


def useTicketKey(context: SSL.Context, filename: str, proves: bool, call: TicketKeyCall | None = None) -> None:
    """
    Make a context issue tickets by the key in a file.

    @param context: the context of the server.
    @param filename: the file of the key.
    @param proves: whether the context issues tickets, so that a ticket can be checked for the key.
    @param call: OpenSSL's call; L{None} is for L{ticketKeyCall}.
    @raise TLSError: the key cannot be read or used.
    """
    key = readTicketKey(filename)
    call = call or ticketKeyCall()
    if call is None:
        message = (
            "cannot be used: this cryptography package bundles OpenSSL, and hides its call for ticket keys;"
            " remove the option, or build cryptography with the system's OpenSSL"
        )
        raise TLSError(OPTION, filename, message)
    works = call(context, key)
    if not works or (proves and keyName(context) != key[:KEY_NAME]):
        raise TLSError(OPTION, filename, "cannot be used: OpenSSL does not issue tickets with this key")
