# -*- test-case-name: mailgate.test.test_tls -*-
"""
TLS through pyOpenSSL contexts: nginx's C{ssl_…} directives towards clients, verified TLS towards backends.
"""

from __future__ import annotations

import re
import ssl as standardSSL
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from attrs import frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates
from zope.interface import implementer

from mailgate.directives import (
    Problem,
    ServerSettings,
    directive,
    flag,
    oneOf,
    path,
    paths,
    seconds,
    text,
    words,
)
from mailgate.directives import size as parseSize
from mailgate.login import TLSState

__all__ = [
    "BackendTLSSettings",
    "ServerTLS",
    "TLSError",
    "TLSSettings",
    "backendTLS",
    "describeTLS",
    "loadTrust",
    "trustProblems",
    "usesTLS",
]

_VERSIONS = {
    "SSLv2": 0,
    "SSLv3": SSL.OP_NO_SSLv3,
    "TLSv1": SSL.OP_NO_TLSv1,
    "TLSv1.1": SSL.OP_NO_TLSv1_1,
    "TLSv1.2": SSL.OP_NO_TLSv1_2,
    "TLSv1.3": SSL.OP_NO_TLSv1_3,
}
_MIN_SHARED_CACHE = 8 * 4096


def _sessionCache(value: str, folder: str) -> str:
    """nginx's C{off | none | [builtin[:SIZE]] [shared:NAME:SIZE]}; gives C{off}, C{none}, C{builtin} or C{shared}."""
    given = value.split()
    if value in ("off", "none"):
        return value
    if not 1 <= len(given) <= 2:
        raise ValueError("must be off, none, builtin[:SIZE] or shared:NAME:SIZE")
    for word in given:
        shared = re.fullmatch(r"shared:[^:]+:([^:]+)", word)
        if shared is not None:
            if parseSize(shared[1], folder) < _MIN_SHARED_CACHE:
                raise ValueError(f'session cache "{word}" is too small, it takes 32k')
        elif not re.fullmatch(r"builtin(:\d{1,9})?", word):
            raise ValueError(f'"{word}": must be off, none, builtin[:SIZE] or shared:NAME:SIZE')
    return "shared" if "shared:" in value else "builtin"


@frozen
class TLSSettings:
    """The TLS of a server towards its clients, by nginx's directives."""

    starttls: str = directive("starttls", oneOf("off", "on", "only"), "off")
    certificates: tuple[str, ...] = directive("ssl_certificate", paths, ())
    keys: tuple[str, ...] = directive("ssl_certificate_key", paths, ())
    passwordFile: str | None = directive("ssl_password_file", path, None)
    protocols: tuple[str, ...] = directive("ssl_protocols", words(*_VERSIONS), ("TLSv1.2", "TLSv1.3"))
    ciphers: str = directive("ssl_ciphers", text, "HIGH:!aNULL:!MD5")
    preferServerCiphers: bool = directive("ssl_prefer_server_ciphers", flag, False)
    sessionCache: str = directive("ssl_session_cache", _sessionCache, "none")
    sessionTimeout: float = directive("ssl_session_timeout", seconds, 300.0)
    sessionTickets: bool = directive("ssl_session_tickets", flag, True)

    def problems(self, server: ServerSettings) -> Iterator[Problem]:
        """Load everything, where TLS is spoken at all: nginx looks at no certificate of a plain server either."""
        if self.passwordFile is not None:
            try:
                _passPhrases(self.passwordFile)
            except OSError as error:
                yield server.problem("ssl_password_file", f"cannot be read: {error.strerror}", self.passwordFile)
                return
        if not usesTLS(server):
            return
        wantedBy = "listen … ssl" if server.speaksTLS else "starttls"
        if not self.certificates:
            yield server.problem("ssl_certificate", f'is missing, "{wantedBy}" needs it')
        elif len(self.keys) < len(self.certificates):
            missing = self.certificates[len(self.keys)]
            yield server.problem("ssl_certificate_key", f'is missing for certificate "{missing}" of "{wantedBy}"')
        else:
            try:
                ServerTLS(self, server.protocol)
            except TLSError as error:
                yield server.problem(error.option, str(error), error.value)


def usesTLS(server: ServerSettings) -> bool:
    """Whether C{server} ever speaks TLS with a client."""
    return server.speaksTLS or server[TLSSettings].starttls != "off"


@frozen
class BackendTLSSettings:
    """The TLS of connections to backends, by the names of nginx's stream module."""

    trusted: str | None = directive("proxy_ssl_trusted_certificate", path, None)

    def problems(self, server: ServerSettings) -> Iterator[Problem]:
        yield from trustProblems(server, "proxy_ssl_trusted_certificate", self.trusted)


class TLSError(Exception):
    """A context cannot be made; C{option} and C{value} say what of."""

    def __init__(self, option: str, value: str, message: str) -> None:
        super().__init__(message)
        self.option = option
        self.value = value


def _reason(error: Exception) -> str:
    """What OpenSSL says, in the words of its innermost complaint."""
    if isinstance(error, SSL.Error | crypto.Error) and error.args and error.args[0]:
        return str(error.args[0][-1][-1] or error.args[0][-1][0])
    return str(error) or type(error).__name__


def _passPhrases(passwordFile: str) -> list[bytes]:
    with open(passwordFile, "rb") as opened:
        return [line.rstrip(b"\r") for line in opened.read().split(b"\n") if line.rstrip(b"\r")]


def _loadKey(filename: str, passPhrases: Sequence[bytes]) -> Any:
    """
    The private key in C{filename}, each of C{passPhrases} tried in turn where it is encrypted.

    @raise TLSError: it cannot be read, or no pass-phrase fits.
    """
    try:
        with open(filename, "rb") as opened:
            pem = opened.read()
    except OSError as error:
        raise TLSError("ssl_certificate_key", filename, f"cannot be read: {error.strerror}") from None
    if b"ENCRYPTED" not in pem:
        return _parseKey(filename, pem, [None])
    if not passPhrases:
        raise TLSError("ssl_certificate_key", filename, "is encrypted, and no ssl_password_file is given")
    return _parseKey(filename, pem, passPhrases)


def _parseKey(filename: str, pem: bytes, passPhrases: Sequence[bytes | None]) -> Any:
    failure: Exception | None = None
    for phrase in passPhrases:
        try:
            return load_pem_private_key(pem, phrase)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            failure = error
    raise TLSError("ssl_certificate_key", filename, f"cannot be loaded: {failure}")


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """
    One context for all connections of a server; to be given to C{startTLS}.

    @raise TLSError: something named in C{settings} cannot be used.
    """

    def __init__(self, settings: TLSSettings, protocol: str) -> None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        options = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_SINGLE_DH_USE | SSL.OP_SINGLE_ECDH_USE
        for version, excluding in _VERSIONS.items():
            if version not in settings.protocols:
                options |= excluding
        if settings.preferServerCiphers:
            options |= SSL.OP_CIPHER_SERVER_PREFERENCE
        if not settings.sessionTickets:
            options |= SSL.OP_NO_TICKET
        context.set_options(options)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_session_id(f"mailgate {protocol}".encode())
        keeping = SSL.SESS_CACHE_OFF if settings.sessionCache in ("off", "none") else SSL.SESS_CACHE_SERVER
        context.set_session_cache_mode(keeping)
        context.set_timeout(max(1, int(settings.sessionTimeout)))
        try:
            context.set_cipher_list(settings.ciphers.encode())
        except SSL.Error as error:
            raise TLSError("ssl_ciphers", settings.ciphers, _reason(error)) from None
        self._loadPairs(context, settings)
        self._context = context

    def _loadPairs(self, context: SSL.Context, settings: TLSSettings) -> None:
        passPhrases = _passPhrases(settings.passwordFile) if settings.passwordFile else ()
        for certificate, key in zip(settings.certificates, settings.keys, strict=False):
            loadedKey = _loadKey(key, passPhrases)
            try:
                with open(certificate, "rb"):
                    context.use_certificate_chain_file(certificate)
            except OSError as error:
                raise TLSError("ssl_certificate", certificate, f"cannot be read: {error.strerror}") from None
            except SSL.Error as error:
                raise TLSError("ssl_certificate", certificate, f"cannot be loaded: {_reason(error)}") from None
            try:
                context.use_privatekey(loadedKey)
                context.check_privatekey()
            except SSL.Error as error:
                message = f'does not belong to certificate "{certificate}": {_reason(error)}'
                raise TLSError("ssl_certificate_key", key, message) from None

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """A connection for Twisted's TLS to shake hands over."""
        return SSL.Connection(self._context, None)


def describeTLS(connection: SSL.Connection) -> TLSState:
    """What C{connection} negotiated."""
    return _state(connection.get_protocol_version_name(), connection.get_cipher_name() or "")


@cache
def _state(protocol: str, cipher: str) -> TLSState:
    """One for all the sessions that are alike: there are not many ciphers."""
    return TLSState(protocol, cipher)


def trustProblems(server: ServerSettings, option: str, filename: str | None) -> Iterator[Problem]:
    """What keeps the file that C{server}'s C{option} names, if it names one, from being loaded by L{loadTrust}."""
    if filename is not None:
        try:
            loadTrust(filename)
        except (OSError, ValueError) as error:
            yield server.problem(option, f"cannot be loaded: {error}", filename)


def loadTrust(filename: str) -> Any:
    """
    The certificates in PEM file C{filename}, as roots to trust.

    @raise OSError: it cannot be read.
    @raise ValueError: it holds no certificate.
    """
    with open(filename, encoding="ascii", errors="replace") as opened:
        blocks = re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", opened.read(), re.DOTALL)
    if not blocks:
        raise ValueError("it holds no certificate")
    try:
        return trustRootFromCertificates([Certificate.loadPEM(block) for block in blocks])
    except (crypto.Error, standardSSL.SSLError) as error:
        raise ValueError(_reason(error)) from None


@implementer(IOpenSSLClientConnectionCreator)
class _UnverifiedTLS:
    """TLS towards a backend whose certificate the operator has said not to look at."""

    def __init__(self, hostname: str) -> None:
        self._hostname = hostname
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.set_mode(SSL.MODE_RELEASE_BUFFERS)

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if re.search("[a-zA-Z]", self._hostname) and ":" not in self._hostname:
            connection.set_tlsext_host_name(self._hostname.encode("idna"))
        return connection


def backendTLS(hostname: str, verify: bool, trust: Any) -> IOpenSSLClientConnectionCreator:
    """
    What C{startTLS} wants for a connection to C{hostname}, a name or an address: its certificate must be good for
    that, by C{trust} or else the platform's roots, unless C{verify} is false.
    """
    if not verify:
        return _UnverifiedTLS(hostname)
    roots = platformTrust() if trust is None else trust
    options: IOpenSSLClientConnectionCreator = optionsForClientTLS(hostname, trustRoot=roots)
    return options
