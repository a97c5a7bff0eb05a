# -*- test-case-name: mailgate.test.tls.test_settings -*-
"""
The TLS of a server with its clients: which context a connection gets, and what is known of a connection then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from mailgate.login import TLSDetails, TLSState
from mailgate.tls.clientcertificate import CertificateRefusal, NotingConnection, describe, refusal, verification
from mailgate.tls.ticketkeys import useTicketKey
from mailgate.tls.tickets import SIZE, FixedKeys, ITicketReader, TicketRing, issuesTickets

if TYPE_CHECKING:
    from mailgate.tls.settings import TLSSettings
from mailgate.tls.context import Loaded, lifetime, makeContext

__all__ = ["ServerTLS", "describeTLS"]


class _EarlyConnection(NotingConnection):
    """A connection that is made before a byte has come for it."""

    heard = False

    def bio_write(self, buf: Any) -> int:
        """See L{SSL.Connection.bio_write}."""
        self.heard = True
        return super().bio_write(buf)


@implementer(ITicketReader)
class ServerTLS:
    """
    The TLS of all connections of a server of C{protocol}, whose name is that of ALPN; to be given to C{startTLS}.

    @raise TLSError: something named in C{settings} cannot be used.
    """

    def __init__(self, settings: TLSSettings, protocol: str, seconds: Callable[[], float] = time.monotonic) -> None:
        """
        Make all that is ever needed, also by processes that are forked later: what they make themselves, the others do
        not know.

        @param seconds: the clock by which keys of tickets change, the same for all processes.
        """
        self._clientMode = settings.verifyClient
        loaded = Loaded(settings)
        context = makeContext(settings, protocol, loaded)
        issues = issuesTickets(context)
        self._contexts = FixedKeys([context])
        if settings.ticketKeys:
            more = (makeContext(settings, protocol, loaded) for _ in settings.ticketKeys[1:])
            contexts = [context, *more]
            for each, filename in zip(contexts, settings.ticketKeys, strict=True):
                useTicketKey(each, filename, issues)
            self._contexts = FixedKeys(contexts if issues else [context])
        elif issues:
            more = (makeContext(settings, protocol, loaded) for _ in range(SIZE - 1))
            self._contexts = TicketRing([context, *more], lifetime(settings), seconds)

    def serverConnectionForTLS(self, tlsProtocol: object) -> Any:
        """A connection to shake hands over, which resumes sessions with tickets of the present key."""
        return _EarlyConnection(self._contexts.issuing, None)

    def newConnection(self) -> SSL.Connection:
        """See L{ITicketReader.newConnection}."""
        return NotingConnection(self._contexts.issuing, None)

    @property
    def readsTickets(self) -> bool:
        """Whether there are tickets now that L{newConnection}'s connections do not take."""
        return bool(self._contexts.older)

    def creatorFor(self, tickets: Sequence[bytes]) -> IOpenSSLServerConnectionCreator | None:
        """Who makes a connection that resumes one of C{tickets}, if it takes another than this."""
        context = self._contexts.find(tickets)
        return None if context is None else _OlderTLS(context)

    def refusal(self, connection: SSL.Connection) -> CertificateRefusal | None:
        """Why the client of C{connection}, which has shaken hands, cannot stay, if so."""
        return refusal(connection, self._clientMode)

    def details(self, connection: Any) -> TLSDetails:
        """What C{connection}, which has shaken hands, knows besides L{describeTLS}."""
        certificate, code, verified = None, 0, ""
        if self._clientMode != "off":
            presented = connection.get_peer_certificate()
            certificate = None if presented is None else describe(presented)
            code = connection.verifyCode
            verified = verification(certificate, code)
        name = connection.get_servername() or b""
        alpn = connection.get_alpn_proto_negotiated()
        signature, key = _algorithms(connection.get_certificate())
        return TLSDetails(
            name.decode("ascii", "backslashreplace"), alpn.decode("ascii"), verified, code, certificate, signature, key
        )


@implementer(IOpenSSLServerConnectionCreator)
class _OlderTLS:
    """Makes connections of C{context}, which issues tickets to nobody else any more."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        return NotingConnection(self._context, None)


def _algorithms(certificate: Any) -> tuple[str, str]:
    """The hash of C{certificate}'s signature and the kind of its key, empty where they have no such name."""
    if certificate is None:
        return "", ""
    return _algorithmsOf(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))


@cache
def _algorithmsOf(der: bytes) -> tuple[str, str]:
    """One for each of our own certificates, of which there are few."""
    certificate = crypto.load_certificate(crypto.FILETYPE_ASN1, der).to_cryptography()
    key = certificate.public_key()
    named = ""
    if isinstance(key, rsa.RSAPublicKey):
        named = f"RSA{key.key_size}"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        named = f"EC{key.key_size}"
    try:
        signature = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        signature = None
    return "" if signature is None else signature.name.upper(), named


def describeTLS(connection: SSL.Connection) -> TLSState:
    """What C{connection} negotiated."""
    return _state(connection.get_protocol_version_name(), connection.get_cipher_name() or "")


@cache
def _state(protocol: str, cipher: str) -> TLSState:
    """One for all the sessions that are alike: there are not many ciphers."""
    return TLSState(protocol, cipher)
