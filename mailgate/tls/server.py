# -*- test-case-name: mailgate.test.tls.test_settings -*-
"""The TLS of a server with its clients: selects the context for a connection, and describes what was negotiated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from mailgate.login import TLSDetails, TLSState
from mailgate.tls.clientcertificate import CertificateRefusal, NotingConnection, describe, refusal, verification
from mailgate.tls.files import certificatesIn
from mailgate.tls.ticketkeys import useTicketKey
from mailgate.tls.tickets import SIZE, FixedKeys, ITicketReader, TicketRing, issuesTickets

if TYPE_CHECKING:
    from mailgate.tls.settings import TLSSettings
from mailgate.tls.context import Loaded, lifetime, makeContext

__all__ = ["ServerTLS", "describeTLS", "isResumed"]


class _EarlyConnection(NotingConnection):
    """
    An OpenSSL connection of a client that may not have sent a byte yet.

    @ivar heard: whether the client has sent something.
    """

    heard = False

    def bio_write(self, buf: Any) -> int:
        """See L{SSL.Connection.bio_write}."""
        self.heard = True
        return super().bio_write(buf)


@implementer(ITicketReader)
class ServerTLS:
    """
    The TLS of all connections of one server. C{startTLS} takes it.

    @ivar certificates: the name of each certificate, its first DNS name or else its common name, and the time when it
        expires, in seconds since 1970.
    @raise TLSError: a file or value in the settings cannot be used.
    """

    def __init__(self, settings: TLSSettings, protocol: str, seconds: Callable[[], float] = time.monotonic) -> None:
        """
        Make all contexts that will ever be needed. Worker processes that are forked later share them; a context that
        one worker made would have ticket keys that the others lack.

        @param settings: the TLS settings of the server.
        @param protocol: the name of its protocol, such as C{imap}, which is its name in ALPN too.
        @param seconds: the clock that decides when the ticket key changes, the same in all processes.
        """
        self._clientMode = settings.verifyClient
        self.certificates = tuple(_shown(settings))
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

    @property
    def ring(self) -> TicketRing | None:
        """What takes keys of other gateways. L{None}: it issues no tickets, or those of C{ssl_session_ticket_key}."""
        return self._contexts if isinstance(self._contexts, TicketRing) else None

    def serverConnectionForTLS(self, tlsProtocol: object) -> Any:
        """
        A new connection. It resumes sessions only by tickets of the current key.

        @param tlsProtocol: not used.
        """
        return _EarlyConnection(self._contexts.issuing, None)

    def newConnection(self) -> SSL.Connection:
        """See L{ITicketReader.newConnection}."""
        return NotingConnection(self._contexts.issuing, None)

    @property
    def readsTickets(self) -> bool:
        """Whether there are valid tickets that L{newConnection}'s connections cannot resume."""
        return bool(self._contexts.older)

    def creatorFor(self, tickets: Sequence[bytes]) -> IOpenSSLServerConnectionCreator | None:
        """See L{ITicketReader.creatorFor}. The client offers C{tickets}."""
        context = self._contexts.find(tickets)
        return None if context is None else _OlderTLS(context)

    def refusal(self, connection: SSL.Connection) -> CertificateRefusal | None:
        """
        Why the client is refused because of its certificate, or L{None}. The handshake of C{connection} is complete.
        """
        return refusal(connection, self._clientMode)

    def details(self, connection: Any) -> TLSDetails:
        """What L{describeTLS} does not include of C{connection}, whose handshake is complete."""
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


def _shown(settings: TLSSettings) -> Iterator[tuple[str, float]]:
    for _, source in settings.shownCertificates():
        with suppress(OSError, ValueError):
            for certificate in certificatesIn(source)[:1]:
                yield _nameOf(certificate), certificate.not_valid_after_utc.timestamp()


def _nameOf(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName)[0]
    except (x509.ExtensionNotFound, IndexError, ValueError):
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return str(common[0].value) if common else ""


@implementer(IOpenSSLServerConnectionCreator)
class _OlderTLS:
    """Makes connections with C{context}, which issues tickets only to clients that resume its sessions."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        return NotingConnection(self._context, None)


def _algorithms(certificate: Any) -> tuple[str, str]:
    """
    The hash of C{certificate}'s signature and the type of its key, such as C{SHA256} and C{RSA2048}. Each is empty if
    it has no such name.
    """
    if certificate is None:
        return "", ""
    return _algorithmsOf(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))


@cache
def _algorithmsOf(der: bytes) -> tuple[str, str]:
    """Cached: only the server's own few certificates get here."""
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
    """The protocol, the cipher and the server name (SNI) of C{connection}, whose handshake is complete."""
    return _state(
        connection.get_protocol_version_name(), connection.get_cipher_name() or "", connection.get_servername() or b""
    )


@lru_cache(1024)
def _state(protocol: str, cipher: str, name: bytes) -> TLSState:
    """
    Cached: sessions with the same values share one object. Clients choose the name, so the cache is bounded. OpenSSL
    accepts names of up to 255 bytes.
    """
    return TLSState(protocol, cipher, name.decode("ascii", "backslashreplace"))


_wasReused: Any = getattr(getattr(SSL, "_lib", None), "SSL_session_reused", None)
"""pyOpenSSL has no public method for this. L{None} if it no longer has the private function either."""


def isResumed(connection: Any) -> bool:
    """
    Return whether a handshake resumed an earlier session; false if that cannot be known.

    @param connection: the connection, whose handshake is complete.
    """
    ssl = getattr(connection, "_ssl", None)
    return _wasReused is not None and ssl is not None and bool(_wasReused(ssl))
