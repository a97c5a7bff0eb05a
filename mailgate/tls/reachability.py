# -*- test-case-name: mailgate.test.tls.test_reachability -*-
"""
Whether there is a client that can shake hands with a server. Versions, ciphers, keys and the library's own policy
exclude one another in more ways than could be listed; so it is tried, in memory.
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
"""Messages of either side that a handshake takes at most, as far as the server ends it."""


def whyUnreachable(context: SSL.Context, versions: Sequence[str]) -> str | None:
    """
    OpenSSL's reason why a server with C{context} refuses every client, or L{None} if it takes one that speaks all that
    the library can. Where that one fails, each of C{versions}, which are words of C{ssl_protocols}, is tried alone.
    Takes a handshake, as a rule.
    """
    reason = _refusal(context)
    if reason is None or any(_refusal(context, _VERSIONS[each]) is None for each in versions if each in _VERSIONS):
        return None
    return reason


def _refusal(context: SSL.Context, version: int | None = None) -> str | None:
    """Why the server refuses a client that speaks C{version} alone, or every version."""
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
    return "the handshake does not come to an end"
