# -*- test-case-name: mailgate.test.tls.test_settings -*-
"""
The context in which a server speaks TLS with its clients, by nginx's C{ssl_…} directives, and what can be told of a
connection of it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from mailgate.login import TLSDetails, TLSState
from mailgate.tls.clientcertificate import (
    CertificateRefusal,
    NotingConnection,
    describe,
    noteVerdict,
    refusal,
    verification,
)
from mailgate.tls.confcommand import VERSIONS, Draft, applyCommand, useCurve
from mailgate.tls.errors import openSSLReason
from mailgate.tls.files import (
    PARAMETERS,
    TLSError,
    loadCRLs,
    loadKey,
    passPhrases,
    useCertificate,
    useFile,
    useKey,
)
from mailgate.tls.reachability import whyUnreachable
from mailgate.tls.ticketkeys import useTicketKey
from mailgate.tls.tickets import SIZE, FixedKeys, ITicketReader, TicketRing, issuesTickets

if TYPE_CHECKING:
    from mailgate.tls.settings import TLSSettings

__all__ = ["NoApplicationProtocol", "ServerTLS", "checkTLS", "describeTLS"]

# OpenSSL takes an int, and no chain that it reads is nearly as long.
_DEEPEST = 10000
# A name of ALPN that says something to an operator, and how many of them do.
_PROTOCOL = re.compile(rb"[A-Za-z][A-Za-z0-9./-]{0,23}")
_MOST_SHOWN = 4
_ALWAYS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_SINGLE_DH_USE | SSL.OP_SINGLE_ECDH_USE


class NoApplicationProtocol(SSL.Error):
    """
    A client has C{offered} protocols by ALPN (RFC 7301), and the C{wanted} one, ours, is not among them. OpenSSL sends
    it the alert.

    @ivar hint: that, for a log.
    """

    def __init__(self, offered: Sequence[bytes], wanted: bytes) -> None:
        # In the form of pyOpenSSL's: a list of library, function and reason.
        super().__init__([("SSL routines", "", "no application protocol")])
        shown = [f'"{name.decode()}"' for name in offered if _PROTOCOL.fullmatch(name)][:_MOST_SHOWN]
        others = [] if len(shown) == len(offered) else ["others"]
        self.hint = f'the client offers {", ".join(shown + others)} by ALPN, and not "{wanted.decode()}"'


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
        loaded = _Loaded(settings)
        context = _makeContext(settings, protocol, loaded)
        issues = issuesTickets(context)
        self._contexts = FixedKeys([context])
        if settings.ticketKeys:
            more = (_makeContext(settings, protocol, loaded) for _ in settings.ticketKeys[1:])
            contexts = [context, *more]
            for each, filename in zip(contexts, settings.ticketKeys, strict=True):
                useTicketKey(each, filename, issues)
            self._contexts = FixedKeys(contexts if issues else [context])
        elif issues:
            more = (_makeContext(settings, protocol, loaded) for _ in range(SIZE - 1))
            self._contexts = TicketRing([context, *more], _lifetime(settings), seconds)

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


class _Loaded:
    """What files hold, and is needed for each context: encrypted keys take their time."""

    def __init__(self, settings: TLSSettings) -> None:
        self.phrases = passPhrases(settings.passwordFile) if settings.passwordFile else []
        pairs = zip(settings.keys, settings.certificates, strict=False)
        self.keys = [loadKey("ssl_certificate_key", source, self.phrases) for source, _ in pairs]


def checkTLS(settings: TLSSettings, protocol: str) -> None:
    """
    Load everything that L{ServerTLS} would, but once.

    @raise TLSError: something named in C{settings} cannot be used.
    """
    context = _makeContext(settings, protocol, _Loaded(settings))
    issues = issuesTickets(context)
    for filename in settings.ticketKeys:
        useTicketKey(context, filename, issues)
    _checkReach(settings, context)


def _checkReach(settings: TLSSettings, context: SSL.Context) -> None:
    """
    Look whether any client can shake hands with a server with C{context}, which nothing can be changed of any more.

    @raise TLSError: none can.
    """
    reason = whyUnreachable(context, settings.protocols)
    if reason is None:
        return
    option = "ssl_protocols" if "protocol" in reason else "ssl_ciphers"
    value = " ".join(settings.protocols) if option == "ssl_protocols" else settings.ciphers
    message = f"no client can connect by TLS, whatever it speaks: {reason}"
    old = [version for version in settings.protocols if version in ("TLSv1", "TLSv1.1")]
    if option == "ssl_protocols" and old and "@SECLEVEL=0" not in settings.ciphers:
        message += f"; {' and '.join(old)} {'need' if old[1:] else 'needs'} @SECLEVEL=0 in ssl_ciphers"
    raise TLSError(option, value, message)


def _makeContext(settings: TLSSettings, protocol: str, loaded: _Loaded) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    draft = Draft(context, _options(settings), loaded.phrases)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_id(f"mailgate {protocol}".encode())
    context.set_alpn_select_callback(partial(_selectProtocol, protocol.encode("ascii")))
    try:
        context.set_cipher_list(settings.ciphers.encode())
    except SSL.Error as error:
        raise TLSError("ssl_ciphers", settings.ciphers, openSSLReason(error)) from None
    _usePairs(context, settings, loaded.keys)
    if settings.verifiesClients:
        _verifyClients(context, settings)
    if settings.dhParameters is not None:
        useFile(context.load_tmp_dh, "ssl_dhparam", settings.dhParameters, PARAMETERS)
    useCurve(context, settings.curve)
    _allowResumption(context, settings)
    _applyCommands(draft, settings)
    if settings.verifiesClients:
        # A session is resumed without a certificate, and what was wrong with it is not kept in pyOpenSSL's.
        draft.options |= SSL.OP_NO_TICKET
    context.set_options(draft.options)
    return context


def _selectProtocol(protocol: bytes, connection: SSL.Connection, offered: list[bytes]) -> bytes:
    if protocol not in offered:
        raise NoApplicationProtocol(offered, protocol)
    return protocol


def _options(settings: TLSSettings) -> int:
    options: int = _ALWAYS
    for version, excluding in VERSIONS.items():
        if version not in settings.protocols:
            options |= excluding
    if settings.preferServerCiphers:
        options |= SSL.OP_CIPHER_SERVER_PREFERENCE
    if not settings.sessionTickets:
        options |= SSL.OP_NO_TICKET
    return options


def _usePairs(context: SSL.Context, settings: TLSSettings, keys: Iterable[Any]) -> None:
    for certificate, source, key in zip(settings.certificates, settings.keys, keys, strict=False):
        useCertificate(context, "ssl_certificate", certificate)
        useKey(context, "ssl_certificate_key", source, key, certificate)


def _verifyClients(context: SSL.Context, settings: TLSSettings) -> None:
    """Ask for certificates; none, or a bad one, does not end the handshake."""
    context.set_verify(SSL.VERIFY_PEER, noteVerdict)
    context.set_verify_depth(min(settings.verifyDepth, _DEEPEST))
    if settings.clientCertificate is not None:
        useFile(context.load_verify_locations, "ssl_client_certificate", settings.clientCertificate)
        useFile(context.load_client_ca, "ssl_client_certificate", settings.clientCertificate)
    if settings.trustedCertificate is not None:
        useFile(context.load_verify_locations, "ssl_trusted_certificate", settings.trustedCertificate)
    if settings.revoked is not None:
        store = context.get_cert_store()
        assert store is not None, "every context has one"
        for each in loadCRLs("ssl_crl", settings.revoked):
            store.add_crl(each)
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)


def _allowResumption(context: SSL.Context, settings: TLSSettings) -> None:
    keeps = settings.sessionCache.keeps and not settings.verifiesClients
    context.set_session_cache_mode(SSL.SESS_CACHE_SERVER if keeps else SSL.SESS_CACHE_OFF)
    context.set_timeout(_lifetime(settings))


def _lifetime(settings: TLSSettings) -> int:
    return max(1, int(settings.sessionTimeout))


def _applyCommands(draft: Draft, settings: TLSSettings) -> None:
    for name, value in settings.commands:
        applyCommand(draft, name, value)
    try:
        draft.context.check_privatekey()
    except SSL.Error as error:
        pairs = [f"{name} {value}" for name, value in settings.commands if name in ("Certificate", "PrivateKey")]
        message = f"certificate and key do not belong together: {openSSLReason(error)}"
        raise TLSError("ssl_conf_command", "\n".join(pairs), message) from None


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
