# -*- test-case-name: mailgate.test.tls.test_resumption -*-
"""
Whether a TLS handshake has resumed an earlier session.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL

__all__ = ["wasResumed"]


def wasResumed(connection: Any) -> bool | None:
    """
    Return whether a connection has resumed an earlier TLS session.

    @param connection: a pyOpenSSL connection whose handshake is complete.
    @return: L{None} if this pyOpenSSL does not say it: its public interface has no such method.
    """
    try:
        return bool(SSL._lib.SSL_session_reused(connection._ssl))  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        return None
