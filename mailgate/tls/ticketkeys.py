# -*- test-case-name: mailgate.test.tls.test_ticketkeys -*-
"""
nginx's C{ssl_session_ticket_key}, where it can be obeyed.

pyOpenSSL has no call for it, but OpenSSL has (U{SSL_CTX_set_tlsext_ticket_key_cb
<https://docs.openssl.org/master/man3/SSL_CTX_set_tlsext_ticket_key_cb/>} and its neighbours). It can be reached where
cryptography was built upon the system's OpenSSL, a shared library; the packages of PyPI have one of their own inside,
and hide its symbols. Whether it has worked shows in the tickets that a context issues then.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

from cryptography.hazmat.bindings import _rust
from OpenSSL import SSL

from mailgate.system.regularfiles import openRegular
from mailgate.tls.files import TLSError
from mailgate.tls.tickets import KEY_NAME, keyName

__all__ = ["OPTION", "TicketKeyCall", "reachCall", "readTicketKey", "ticketKeyCall", "useTicketKey"]

OPTION = "ssl_session_ticket_key"

TicketKeyCall = Callable[[SSL.Context, bytes], bool]
"""Has a context issue tickets by a key of 80 bytes, and take no others; gives whether OpenSSL says so."""

_SIZE = 80
_SHORT = 48
_SET_TICKET_KEYS = 59  # SSL_CTRL_SET_TLSEXT_TICKET_KEYS of openssl/ssl.h


def readTicketKey(filename: str) -> bytes:
    """
    The key in C{filename}: a name, a key of HMAC and one of AES (16, 32 and 32 bytes).

    @raise TLSError: it cannot be read, or is no such key.
    """
    try:
        with openRegular(filename) as opened:
            key = opened.read(_SIZE + 1)
    except OSError as error:
        raise TLSError(OPTION, filename, f"cannot be read: {error.strerror}") from None
    if len(key) == _SHORT:
        message = "is a key of 48 bytes, for AES-128, which OpenSSL takes from nobody but programs in C"
        raise TLSError(OPTION, filename, f'{message}; make one of 80 bytes, e.g. by "openssl rand 80"')
    if len(key) != _SIZE:
        raise TLSError(OPTION, filename, 'must be 80 bytes, e.g. by "openssl rand 80"')
    return key


def reachCall(library: str) -> TicketKeyCall | None:
    """OpenSSL's call through C{library}, the file of cryptography's bindings, or L{None} if it leads to no such."""
    try:
        # A library of its own inside hides it. The system's may well be loaded beside that, by Python's ssl, and must
        # not be given a context of another version: so it is looked for in the bindings, and in what they need.
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
    """That of this process."""
    return reachCall(_rust.__file__)


def useTicketKey(context: SSL.Context, filename: str, proves: bool, call: TicketKeyCall | None = None) -> None:
    """
    Have C{context} issue tickets by the key in C{filename}, through C{call}. C{proves} says that it does issue tickets,
    so that there can be a look at one.

    @raise TLSError: it is no such key, or cannot be used.
    """
    key = readTicketKey(filename)
    call = call or ticketKeyCall()
    if call is None:
        message = "cannot be used: cryptography has an OpenSSL of its own here, which hides the call for it"
        raise TLSError(OPTION, filename, f"{message}; leave it out, or build cryptography upon the system's OpenSSL")
    works = call(context, key)
    if not works or (proves and keyName(context) != key[:KEY_NAME]):
        raise TLSError(OPTION, filename, "cannot be used: OpenSSL does not issue tickets by it")
