# -*- test-case-name: mailgate.test.tls.test_binding -*-
"""
The channel binding C{tls-exporter} (RFC 9266): both ends of one TLS connection know the same bytes, and an attacker
between two connections does not.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL

__all__ = ["bindingOf", "hasBinding"]

_LABEL = b"EXPORTER-Channel-Binding"
_BYTES = 32

_hasExtendedSecret: Any = getattr(getattr(SSL, "_lib", None), "SSL_get_extms_support", None)
"""pyOpenSSL has no public method for this. L{None} if it no longer has the private function either."""


def hasBinding(protocol: str, connection: Any) -> bool:
    """
    Return whether a connection has a channel binding: with TLS 1.3 always, with TLS 1.2 only if it uses the extended
    master secret (RFC 9266, section 4.2).

    @param protocol: the protocol, such as C{TLSv1.3}.
    @param connection: OpenSSL's connection, whose handshake is complete; L{None} if it is not known.
    """
    if connection is None:
        return False
    if protocol == "TLSv1.3":
        return True
    if protocol != "TLSv1.2" or _hasExtendedSecret is None:
        return False
    ssl = getattr(connection, "_ssl", None)
    return ssl is not None and _hasExtendedSecret(ssl) == 1


def bindingOf(connection: Any) -> bytes:
    """
    Return the data of the channel binding.

    @param connection: OpenSSL's connection, for which L{hasBinding} is true.
    """
    keying: bytes = connection.export_keying_material(_LABEL, _BYTES, None)
    return keying
