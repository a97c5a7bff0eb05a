# -*- test-case-name: mailgate.test.tls.test_reachability -*-
"""
Checks whether any client can complete a handshake with a server. Versions, ciphers, keys and OpenSSL's own policy
exclude one another in too many ways for a list of rules, so this tries handshakes in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from OpenSSL import SSL

from mailgate.tls.clientcertificate import NotingConnection
from mailgate.tls.errors import openSSLReason
from mailgate.tls.rehearsal import carry, willingClient

__all__ = ["whyUnreachable"]

_VERSIONS = {
    "TLSv1": SSL.TLS1_VERSION,
    "TLSv1.1": SSL.TLS1_1_VERSION,
    "TLSv1.2": SSL.TLS1_2_VERSION,
    "TLSv1.3": SSL.TLS1_3_VERSION,
}
_FLIGHTS = 4
"""The most messages that each side sends in a handshake, until the server ends it."""


def whyUnreachable(context: SSL.Context, versions: Sequence[str]) -> str | None:
    """
    Try a client that supports everything that OpenSSL supports. If that fails, try one client for each version. Usually
    this takes one handshake.

    @param context: the context of the server.
    @param versions: words of C{ssl_protocols}.
    @return: OpenSSL's reason why the server refuses every client, or L{None} if it accepts one.
    """
    reason = _refusal(context)
    if reason is None or any(_refusal(context, _VERSIONS[each]) is None for each in versions if each in _VERSIONS):
        return None
    return reason


def _refusal(context: SSL.Context, version: int | None = None) -> str | None:
    """Why the server refuses a client that supports only C{version}, or every version."""
    willing = willingClient()
    if version is not None:
        willing.set_min_proto_version(version)
        willing.set_max_proto_version(version)
    server, client = NotingConnection(context, None), SSL.Connection(willing, None)
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(_FLIGHTS):
        with suppress(SSL.Error):
            client.do_handshake()
        carry(client, server)
        try:
            server.do_handshake()
        except SSL.WantReadError:
            carry(server, client)
        except SSL.Error as error:
            return openSSLReason(error)
        else:
            return None
    return "OpenSSL gives no reason"
