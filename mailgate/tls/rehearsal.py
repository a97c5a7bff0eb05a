# -*- test-case-name: mailgate.test.tls.test_reachability mailgate.test.tls.test_tickets -*-
"""Parts for handshakes in memory, which test a server's context before a client connects."""

from __future__ import annotations

from contextlib import suppress

from OpenSSL import SSL

__all__ = ["READ_SIZE", "carry", "willingClient"]

READ_SIZE = 65536
"""More bytes than one side of a handshake sends at once."""

_SUITES = (
    b"TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_128_CCM_SHA256"
    b":TLS_AES_128_CCM_8_SHA256"
)


def willingClient() -> SSL.Context:
    """The context of a client that supports everything that OpenSSL supports, and verifies no certificate."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_cipher_list(b"ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    context.set_tls13_ciphersuites(_SUITES)
    return context


def carry(source: SSL.Connection, target: SSL.Connection) -> None:
    """Pass what C{source} has to send to C{target}. Both are connections with memory BIOs."""
    with suppress(SSL.WantReadError):
        target.bio_write(source.bio_read(READ_SIZE))
