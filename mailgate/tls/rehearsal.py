# -*- test-case-name: mailgate.test.tls.test_reachability mailgate.test.tls.test_tickets -*-
"""
What handshakes in memory take, by which a server's context is tried before any client comes.
"""

from __future__ import annotations

from contextlib import suppress

from OpenSSL import SSL

__all__ = ["READ_SIZE", "carry", "willingClient"]

READ_SIZE = 65536
"""Bytes that are enough for all that one side says at once."""

_SUITES = (
    b"TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_128_CCM_SHA256"
    b":TLS_AES_128_CCM_8_SHA256"
)


def willingClient() -> SSL.Context:
    """The context of a client that speaks all that the library can, and looks at no certificate."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_cipher_list(b"ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    context.set_tls13_ciphersuites(_SUITES)
    return context


def carry(source: SSL.Connection, target: SSL.Connection) -> None:
    """Give C{target} what C{source} has to say, both being connections upon memory BIOs."""
    with suppress(SSL.WantReadError):
        target.bio_write(source.bio_read(READ_SIZE))
