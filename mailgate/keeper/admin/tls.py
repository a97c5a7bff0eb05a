# -*- test-case-name: mailgate.test.keeper.admin.test_tls -*-
"""
The TLS of the admin server: as that of the gateway's servers, but it resumes no session, and it ends the handshake of a
client whose certificate is not valid.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from mailgate.tls.context import Loaded, makeContext
from mailgate.tls.settings import TLSSettings
from mailgate.watch.settings import HTTP

__all__ = ["AdminTLS"]


def _isValid(connection: SSL.Connection, certificate: Any, error: int, depth: int, isGood: int) -> bool:
    return bool(isGood)


@implementer(IOpenSSLServerConnectionCreator)
class AdminTLS:
    """
    Makes the TLS connections of the admin server.

    @raise TLSError: a file in the settings cannot be used.
    """

    def __init__(self, settings: TLSSettings) -> None:
        """
        @param settings: those of L{mailgate.watch.settings.AdminSettings.tls}.
        """
        self._context = makeContext(settings, HTTP, Loaded(settings))
        if settings.verifiesClients:
            # A client without a certificate may have a token.
            self._context.set_verify(SSL.VERIFY_PEER, _isValid)

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """
        Make a connection.

        @param tlsProtocol: not used.
        """
        return SSL.Connection(self._context, None)
