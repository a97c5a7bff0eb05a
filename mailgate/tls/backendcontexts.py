# -*- test-case-name: mailgate.test.tls.test_backendcontexts -*-
"""
OpenSSL's contexts for connections to backends, by C{proxy_ssl_…} directives. They are made once for all connections,
and keep the sessions that backends have issued, so that the next handshake costs no signature.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

from attrs import frozen
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import platformTrust
from zope.interface import implementer

from mailgate.login import Backend, TLSOptions
from mailgate.tls.backend import Identity, Judge, identityOf
from mailgate.tls.backendsettings import BackendTLSSettings, loadTrust
from mailgate.tls.confcommand import VERSIONS, Draft, applyCommand
from mailgate.tls.errors import openSSLReason
from mailgate.tls.files import TLSError, loadCRLs, loadKey, passPhrases, useCertificate, useKey

__all__ = ["BackendConnection", "BackendContexts", "DecidedContexts", "IBackendContexts"]

_DEEPEST = 10000
_MOST_SESSIONS = 1024
_TRUST = "proxy_ssl_trusted_certificate"
_KEY = "proxy_ssl_certificate_key"
_AS_DIRECTIVES = TLSOptions()

_Session: TypeAlias = tuple[str, int, str, bool, tuple[str, ...]]
"""What a TLS session is good for: host, port, name, whether the certificate was verified, and pins."""


class IBackendContexts(Protocol):
    """Makes connections to backends."""

    def creatorFor(self, backend: Backend) -> BackendConnection:
        """
        What makes one connection to C{backend}.

        @param backend: the backend.
        @raise ValueError: the backend has no name or address that a certificate could be good for.
        """


@frozen
class DecidedContexts:
    """
    Contexts as one login uses them.

    @ivar contexts: the contexts by directives.
    @ivar options: what the login has in place of the directives.
    """

    contexts: BackendContexts
    options: TLSOptions

    def creatorFor(self, backend: Backend) -> BackendConnection:
        """
        See L{IBackendContexts.creatorFor}.

        @param backend: the backend.
        """
        return self.contexts.creatorFor(backend, self.options)


class BackendContexts:
    """
    What C{startTLS} needs for connections to backends, by C{settings}.

    @param alpn: the protocol that is offered by ALPN, unless C{proxy_ssl_alpn} says otherwise; empty for none.
    @raise TLSError: something named in C{settings} cannot be used.
    @raise OSError: the trusted certificates cannot be read.
    @raise ValueError: there are none in their file.
    """

    def __init__(self, settings: BackendTLSSettings, alpn: str = "") -> None:
        self.settings = settings
        self._alpn = [
            name.encode("ascii") for name in (settings.alpn if settings.alpn is not None else (alpn,)) if name
        ]
        self._phrases = _phrases(settings)
        self._keys = [loadKey(_KEY, source, self._phrases) for source in settings.key[: len(settings.certificate)]]
        self._contexts: dict[tuple[bool, bool], tuple[SSL.Context, Judge]] = {}
        self._sessions: dict[_Session, SSL.Session] = {}
        self._context(settings.verify, settings.pins != ())
        if settings.hasFiles:
            # Read the files now: the process may drop the privileges that this takes. A backend may be unverified, and
            # an authenticator may decide for each login whether and how its backend is verified.
            for verify, isPinned in ((False, False), (False, True), (True, True)):
                self._context(verify, isPinned)

    def creatorFor(self, backend: Backend, options: TLSOptions = _AS_DIRECTIVES) -> BackendConnection:
        """
        What makes one connection to C{backend}.

        @param backend: the backend.
        @param options: what one login has in place of the directives.
        @raise ValueError: the backend has no name or address that a certificate could be good for.
        """
        verify = backend.verify and self.settings.verify if options.verify is None else options.verify
        name = options.name or backend.name or self.settings.name or backend.host
        pins = self.settings.pins if options.pins is None else options.pins
        context, judge = self._context(verify, pins != ())
        session = (backend.host, backend.port, name, verify, pins)
        return BackendConnection(self, context, judge, identityOf(name, verify), session)

    def _context(self, verify: bool, isPinned: bool) -> tuple[SSL.Context, Judge]:
        """
        Return a context and its judge. There are at most three: a verifying judge looks at pins as well, and each
        connection has its own pins.
        """
        key = (verify, isPinned and not verify)
        made = self._contexts.get(key)
        if made is None:
            made = self._contexts[key] = self._make(*key)
        return made

    def _make(self, verify: bool, isPinned: bool) -> tuple[SSL.Context, Judge]:
        settings = self.settings
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        options = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION
        for version, excluding in VERSIONS.items():
            if version not in settings.protocols:
                options |= excluding
        draft = Draft(context, options, self._phrases)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        if self._alpn:
            context.set_alpn_protos(self._alpn)
        try:
            context.set_cipher_list(settings.ciphers.encode())
        except SSL.Error as error:
            raise TLSError("proxy_ssl_ciphers", settings.ciphers, openSSLReason(error)) from None
        for certificate, source, key in zip(settings.certificate, settings.key, self._keys, strict=False):
            useCertificate(context, "proxy_ssl_certificate", certificate)
            useKey(context, _KEY, source, key, certificate)
        judge = Judge(_TRUST, verify)
        if verify:
            self._trust(context)
        if verify or isPinned:
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, judge)
        for name, value in settings.commands:
            try:
                applyCommand(draft, name, value)
            except TLSError as error:
                raise TLSError("proxy_ssl_conf_command", error.value, str(error)) from None
        context.set_options(draft.options)
        return context, judge

    def _trust(self, context: SSL.Context) -> None:
        settings = self.settings
        roots = platformTrust() if settings.trusted is None else loadTrust(settings.trusted)
        roots._addCACertsToContext(context)
        context.set_verify_depth(min(settings.verifyDepth, _DEEPEST))
        if settings.revoked is not None:
            store = context.get_cert_store()
            assert store is not None, "every context has one"
            for each in loadCRLs("proxy_ssl_crl", settings.revoked):
                store.add_crl(each)
            store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)

    def resume(self, connection: SSL.Connection, key: _Session) -> None:
        """Have C{connection} go on with the last session of the backend C{key}, if there is one."""
        session = self._sessions.get(key)
        if session is not None:
            connection.set_session(session)

    def keep(self, connection: SSL.Connection, key: _Session) -> None:
        """Keep the session of C{connection} for the next to the backend C{key}."""
        if not self.settings.reusesSessions:
            return
        session = connection.get_session()
        if session is not None:
            if len(self._sessions) >= _MOST_SESSIONS and key not in self._sessions:
                # The oldest: a service that sends many pins must not take the sessions of all other backends.
                del self._sessions[next(iter(self._sessions))]
            self._sessions[key] = session


def _phrases(settings: BackendTLSSettings) -> list[bytes]:
    if settings.passwordFile is None:
        return []
    try:
        return passPhrases(settings.passwordFile)
    except OSError as error:
        raise TLSError("proxy_ssl_password_file", settings.passwordFile, f"cannot be read: {error.strerror}") from None


@implementer(IOpenSSLClientConnectionCreator)
class BackendConnection:
    """
    The argument of C{startTLS} for one connection to a backend.

    @param contexts: keeps its session.
    @param context: OpenSSL's context.
    @param judge: verifies the certificate.
    @param identity: the name that the certificate must be good for; L{None} where it is not verified.
    @param key: the address, the name, whether it is verified, and the pins: what a session is good for. A session is
        never resumed for a connection that is verified in another way.
    """

    def __init__(
        self,
        contexts: BackendContexts,
        context: SSL.Context,
        judge: Judge,
        identity: Identity | None,
        key: _Session,
    ) -> None:
        self._contexts = contexts
        self._context = context
        self._judge = judge
        self._identity = identity
        self._key = key
        self._connection: SSL.Connection | None = None

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection = self._connection = SSL.Connection(self._context, None)
        if self._identity is not None:
            self._judge.expect(connection, self._identity, self._key[-1])
            if self._contexts.settings.sendsName and self._identity.serverName:
                connection.set_tlsext_host_name(self._identity.serverName)
        self._contexts.resume(connection, self._key)
        return connection

    @property
    def hasCertificate(self) -> bool:
        """
        Whether the backend has a certificate, if it needs one. Ciphers without authentication, which
        C{proxy_ssl_ciphers} may allow, have none, and OpenSSL then verifies nothing.
        """
        connection, (*_, verify, pins) = self._connection, self._key
        if connection is None or not (verify or pins):
            return True
        return connection.get_peer_certificate() is not None

    def loggedIn(self) -> None:
        """The backend has issued what tickets it issues by now: keep the session, and let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._contexts.keep(connection, self._key)
