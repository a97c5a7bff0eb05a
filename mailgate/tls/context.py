# -*- test-case-name: mailgate.test.tls.test_settings -*-
"""Makes OpenSSL's context for connections of a server with its clients from nginx's C{ssl_…} directives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL, crypto

from mailgate.tls.clientcertificate import noteVerdict
from mailgate.tls.confcommand import VERSIONS, Draft, applyCommand, useCurve
from mailgate.tls.errors import openSSLReason
from mailgate.tls.files import PARAMETERS, TLSError, loadCRLs, loadKey, passPhrases, useCertificate, useFile, useKey
from mailgate.tls.reachability import whyUnreachable
from mailgate.tls.ticketkeys import useTicketKey
from mailgate.tls.tickets import issuesTickets

if TYPE_CHECKING:
    from mailgate.tls.settings import TLSSettings

__all__ = ["Loaded", "NoApplicationProtocol", "checkTLS", "lifetime", "makeContext"]

# The depth is a C int in OpenSSL. No chain that OpenSSL verifies is nearly as long.
_DEEPEST = 10000
# The ALPN names that are safe and useful in a log, and how many of them a message quotes.
_PROTOCOL = re.compile(rb"[A-Za-z][A-Za-z0-9./-]{0,23}")
_MOST_SHOWN = 4
_ALWAYS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_SINGLE_DH_USE | SSL.OP_SINGLE_ECDH_USE


class NoApplicationProtocol(SSL.Error):
    """
    The client offers protocols by ALPN (RFC 7301), and the server's is not among them. OpenSSL sends the alert
    no_application_protocol.

    @ivar hint: which protocols the client offers and which is accepted, for the log.
    """

    def __init__(self, offered: Sequence[bytes], wanted: bytes) -> None:
        """
        @param offered: the protocols that the client offers.
        @param wanted: the protocol of the server.
        """
        # The argument has the form of pyOpenSSL's own errors: a list of library, function and reason.
        super().__init__([("SSL routines", "", "no application protocol")])
        shown = [f'"{name.decode()}"' for name in offered if _PROTOCOL.fullmatch(name)][:_MOST_SHOWN]
        others = [] if len(shown) == len(offered) else ["other protocols"]
        self.hint = f'the client offers {", ".join(shown + others)} by ALPN; the server accepts "{wanted.decode()}"'


class Loaded:
    """
    The file contents that each context needs, loaded once, because decrypting a key takes time.

    @ivar phrases: the pass phrases of C{ssl_password_file}.
    @ivar keys: the private keys, in the order of the certificates.
    """

    def __init__(self, settings: TLSSettings) -> None:
        """
        Load the files that C{settings} names.

        @raise TLSError: a key cannot be read or decrypted.
        """
        self.phrases = passPhrases(settings.passwordFile) if settings.passwordFile else []
        pairs = zip(settings.keys, settings.certificates, strict=False)
        self.keys = [loadKey("ssl_certificate_key", source, self.phrases) for source, _ in pairs]


def checkTLS(settings: TLSSettings, protocol: str) -> None:
    """
    Load everything that L{mailgate.tls.server.ServerTLS} loads, and try a handshake in memory.

    @param settings: the TLS settings of a server.
    @param protocol: the name of its protocol, such as C{imap}.
    @raise TLSError: a file or value in C{settings} cannot be used.
    """
    context = makeContext(settings, protocol, Loaded(settings))
    issues = issuesTickets(context)
    for filename in settings.ticketKeys:
        useTicketKey(context, filename, issues)
    _checkReach(settings, context)


def _checkReach(settings: TLSSettings, context: SSL.Context) -> None:
    """
    Check that at least one client can complete a handshake with C{context}. The context cannot be changed afterwards.

    @raise TLSError: no client can.
    """
    reason = whyUnreachable(context, settings.protocols)
    if reason is None:
        return
    option = "ssl_protocols" if "protocol" in reason else "ssl_ciphers"
    value = " ".join(settings.protocols) if option == "ssl_protocols" else settings.ciphers
    message = f"no client can complete a TLS handshake: {reason}"
    old = [version for version in settings.protocols if version in ("TLSv1", "TLSv1.1")]
    if option == "ssl_protocols" and old and "@SECLEVEL=0" not in settings.ciphers:
        message += f"; {' and '.join(old)} {'need' if old[1:] else 'needs'} @SECLEVEL=0 in ssl_ciphers"
    raise TLSError(option, value, message)


def makeContext(settings: TLSSettings, protocol: str, loaded: Loaded) -> SSL.Context:
    """
    Make a context.

    @param settings: the TLS settings of a server.
    @param protocol: the name of its protocol, such as C{imap}, which is its name in ALPN too.
    @param loaded: the files of C{settings}.
    @raise TLSError: a file or value in C{settings} cannot be used.
    """
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
        # pyOpenSSL does not keep the verification error with a session, so a client could resume a session to hide the
        # error.
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
    """Request client certificates. A missing or invalid one does not end the handshake."""
    context.set_verify(SSL.VERIFY_PEER, noteVerdict)
    context.set_verify_depth(min(settings.verifyDepth, _DEEPEST))
    if settings.clientCertificate is not None:
        useFile(context.load_verify_locations, "ssl_client_certificate", settings.clientCertificate)
        useFile(context.load_client_ca, "ssl_client_certificate", settings.clientCertificate)
    if settings.trustedCertificate is not None:
        useFile(context.load_verify_locations, "ssl_trusted_certificate", settings.trustedCertificate)
    if settings.revoked is not None:
        store = context.get_cert_store()
        assert store is not None
        for each in loadCRLs("ssl_crl", settings.revoked):
            store.add_crl(each)
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)


def _allowResumption(context: SSL.Context, settings: TLSSettings) -> None:
    keeps = settings.sessionCache.keeps and not settings.verifiesClients
    context.set_session_cache_mode(SSL.SESS_CACHE_SERVER if keeps else SSL.SESS_CACHE_OFF)
    context.set_timeout(lifetime(settings))


def lifetime(settings: TLSSettings) -> int:
    """How many seconds a session can be resumed by C{settings}, at least 1."""
    return max(1, int(settings.sessionTimeout))


def _applyCommands(draft: Draft, settings: TLSSettings) -> None:
    for name, value in settings.commands:
        applyCommand(draft, name, value)
    try:
        draft.context.check_privatekey()
    except SSL.Error as error:
        pairs = [f"{name} {value}" for name, value in settings.commands if name in ("Certificate", "PrivateKey")]
        message = f"certificate and private key do not match: {openSSLReason(error)}"
        raise TLSError("ssl_conf_command", "\n".join(pairs), message) from None
