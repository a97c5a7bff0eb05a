# -*- test-case-name: mailgate.test.tls.test_settings -*-
"""
The directives for TLS with clients: nginx's C{ssl_…}. L{mailgate.tls.context} and L{mailgate.tls.server} apply them.
The directives for TLS with backends are in L{mailgate.tls.backendsettings}.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import ClassVar

from attrs import frozen

from mailgate.directives import (
    GatewaySettings,
    Problem,
    ServerSettings,
    directive,
    flag,
    longSeconds,
    number,
    oneOf,
    path,
    paths,
    text,
    words,
)
from mailgate.directives import size as parseSize
from mailgate.directives.needs import Need
from mailgate.system.processors import WorkerSettings
from mailgate.system.regularfiles import isOpenToAll
from mailgate.tls.certificatechecks import certificateWarnings, listWarnings, writableWarnings
from mailgate.tls.confcommand import VERSIONS, commands, curve
from mailgate.tls.context import checkTLS
from mailgate.tls.files import TLSError, passPhrases, shown, sources, unreadable

__all__ = ["SessionCache", "TLSSettings", "cacheConflicts", "cachesUnshared", "keysUnread", "usesTLS"]

_MIN_SHARED_CACHE = 8 * 4096


@frozen
class SessionCache:
    """
    The value of C{ssl_session_cache}.

    @ivar keeps: whether the server keeps sessions.
    @ivar zone: the name of a C{shared:} cache, or empty.
    @ivar size: the size of a C{shared:} cache in bytes, or 0.
    """

    keeps: bool = False
    zone: str = ""
    size: int = 0


def _sessionCache(value: str, folder: str) -> SessionCache:
    """nginx's C{off | none | [builtin[:SIZE]] [shared:NAME:SIZE]}. C{off} and C{none} mean the same here."""
    given = value.split()
    if value in ("off", "none"):
        return SessionCache()
    if not 1 <= len(given) <= 2:
        raise ValueError("must be off, none, builtin[:SIZE] or shared:NAME:SIZE")
    cache = SessionCache(True)
    for word in given:
        shared = re.fullmatch(r"shared:([^:]+):([^:]+)", word)
        if shared is not None:
            cache = SessionCache(True, shared[1], parseSize(shared[2], folder))
            if cache.size < _MIN_SHARED_CACHE:
                raise ValueError(f'session cache "{word}" is too small; the minimum is 32k')
        elif not re.fullmatch(r"builtin(:\d{1,9})?", word):
            raise ValueError(f'"{word}": must be off, none, builtin[:SIZE] or shared:NAME:SIZE')
    return cache


_TLS = Need('"ssl" in listen, or starttls', lambda server: usesTLS(server))
_IN_CLEAR = Need(
    'a listen without "ssl"',
    lambda server: server[TLSSettings].starttls == "off" or not all(at.ssl for at in server.listen),
)
_OLDER = Need("a version before TLSv1.3 in ssl_protocols", lambda server: server[TLSSettings].protocols != ("TLSv1.3",))
_TICKETS = Need("ssl_session_tickets = on", lambda server: server[TLSSettings].sessionTickets)
_ASKED = Need("ssl_verify_client", lambda server: server[TLSSettings].verifiesClients)


@frozen
class TLSSettings:
    """The settings of a server for TLS with its clients. The names and values are nginx's."""

    needs: ClassVar[tuple[Need, ...]] = (_TLS,)

    starttls: str = directive("starttls", oneOf("off", "on", "only"), "off", needs=(_IN_CLEAR,))
    certificates: tuple[str, ...] = directive("ssl_certificate", sources, (), secret=True)
    keys: tuple[str, ...] = directive("ssl_certificate_key", sources, (), secret=True)
    passwordFile: str | None = directive("ssl_password_file", path, None)
    protocols: tuple[str, ...] = directive("ssl_protocols", words(*VERSIONS), ("TLSv1.2", "TLSv1.3"))
    ciphers: str = directive("ssl_ciphers", text, "HIGH:!aNULL:!MD5", needs=(_TLS, _OLDER))
    preferServerCiphers: bool = directive("ssl_prefer_server_ciphers", flag, False)
    curve: str = directive("ssl_ecdh_curve", curve, "auto")
    dhParameters: str | None = directive("ssl_dhparam", path, None, needs=(_TLS, _OLDER))
    sessionCache: SessionCache = directive("ssl_session_cache", _sessionCache, SessionCache())
    sessionTimeout: float = directive("ssl_session_timeout", longSeconds, 300.0)
    sessionTickets: bool = directive("ssl_session_tickets", flag, True)
    ticketKeys: tuple[str, ...] = directive("ssl_session_ticket_key", paths, (), needs=(_TLS, _TICKETS))
    verifyClient: str = directive("ssl_verify_client", oneOf("off", "on", "optional", "optional_no_ca"), "off")
    verifyDepth: int = directive("ssl_verify_depth", number, 1, needs=(_TLS, _ASKED))
    clientCertificate: str | None = directive("ssl_client_certificate", path, None, needs=(_TLS, _ASKED))
    trustedCertificate: str | None = directive("ssl_trusted_certificate", path, None, needs=(_TLS, _ASKED))
    revoked: str | None = directive("ssl_crl", path, None, needs=(_TLS, _ASKED))
    commands: tuple[tuple[str, str], ...] = directive("ssl_conf_command", commands, ())
    certificateCompression: bool = directive("ssl_certificate_compression", flag, False)

    @property
    def verifiesClients(self) -> bool:
        """Whether the server requests certificates from clients."""
        return self.verifyClient != "off"

    @classmethod
    def conflicts(cls, settings: GatewaySettings) -> Iterator[Problem]:
        """
        Yield the problems between the session caches of all servers.

        @param settings: the whole configuration.
        """
        yield from cacheConflicts(settings.servers, settings[cls].sessionCache)
        yield from cachesUnshared(settings.servers, settings[WorkerSettings].count)

    def problems(self, server: ServerSettings) -> Iterator[Problem]:
        """
        Load all files, and yield what prevents TLS. Like nginx, ignore the certificates of a server that does not use
        TLS.

        @param server: all settings of the server.
        """
        if self.passwordFile is not None:
            try:
                passPhrases(self.passwordFile)
            except OSError as error:
                yield server.problem("ssl_password_file", f"cannot be read: {error.strerror}", self.passwordFile)
                return
        if not usesTLS(server):
            return
        wantedBy = "listen … ssl" if server.speaksTLS else "starttls"
        hasRoots = self.clientCertificate is not None or self.trustedCertificate is not None
        if not self.certificates and "ssl_certificate" not in server.supplied:
            yield server.problem("ssl_certificate", f'is missing; "{wantedBy}" requires a certificate')
        elif len(self.keys) < len(self.certificates):
            missing = shown(self.certificates[len(self.keys)])
            yield server.problem(
                "ssl_certificate_key", f'is missing for certificate "{missing}"; "{wantedBy}" requires it'
            )
        elif self.verifyClient in ("on", "optional") and not hasRoots:
            message = "requires the CA certificates of clients in ssl_client_certificate or ssl_trusted_certificate"
            yield server.problem("ssl_verify_client", message, self.verifyClient)
        elif not set(self.protocols) - {"SSLv2", "SSLv3"}:
            message = "has no version that OpenSSL supports; set TLSv1.2 TLSv1.3"
            yield server.problem("ssl_protocols", message, " ".join(self.protocols))
        elif lost := list(self._unreadable(server)):
            yield from lost
        elif self.certificates:
            try:
                checkTLS(self, server.protocol)
            except TLSError as error:
                yield server.problem(error.option, str(error), error.value)

    def _unreadable(self, server: ServerSettings) -> Iterator[Problem]:
        """Yield a problem for each unreadable file. L{mailgate.tls.server.ServerTLS} would report only the first."""
        named: list[tuple[str, str | None]] = [("ssl_certificate", each) for each in self.certificates]
        named += [("ssl_certificate_key", each) for each in self.keys[: len(self.certificates)]]
        if self.verifiesClients:
            named.append(("ssl_client_certificate", self.clientCertificate))
            named.append(("ssl_trusted_certificate", self.trustedCertificate))
            named.append(("ssl_crl", self.revoked))
        named.append(("ssl_dhparam", self.dhParameters))
        for option, source in named:
            reason = None if source is None else unreadable(source)
            if reason is not None:
                yield server.problem(option, f"cannot be read: {reason}", source)

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """
        Yield warnings about settings that have no effect or are unsafe, and about certificates that clients refuse.

        @param server: all settings of the server.
        """
        if not usesTLS(server):
            return
        chosen = " ".join(self.protocols)
        old = [version for version in ("TLSv1", "TLSv1.1") if version in self.protocols]
        if old and "@SECLEVEL=0" not in self.ciphers:
            message = f"{' and '.join(old)} cannot be negotiated without @SECLEVEL=0 in ssl_ciphers"
            yield server.problem("ssl_protocols", message, chosen)
        gone = [version for version in ("SSLv2", "SSLv3") if version in self.protocols]
        if gone:
            message = f"{' and '.join(gone)} cannot be negotiated: not supported by OpenSSL"
            yield server.problem("ssl_protocols", message, chosen)
        now = datetime.now(timezone.utc)
        for option, source in self.shownCertificates():
            yield from certificateWarnings(server, option, source, now)
        if self.verifiesClients and self.revoked is not None:
            with suppress(TLSError):
                yield from listWarnings(server, "ssl_crl", self.revoked, now)
        yield from writableWarnings(server, self._files())
        for option, filename in self._secrets():
            if isOpenToAll(filename):
                yield server.problem(
                    option, f"every user on this host can read it; run: chmod o-r {filename}", filename
                )
        if self.certificateCompression:
            message = "has no effect: pyOpenSSL does not support it"
            yield server.problem("ssl_certificate_compression", message, "on")

    def shownCertificates(self) -> Iterator[tuple[str, str]]:
        """Yield the server certificates: the option that names each, and its source, a file name or C{data:}."""
        for source in self.certificates:
            yield "ssl_certificate", source
        for name, value in self.commands:
            if name == "Certificate":
                yield "ssl_conf_command", value

    def _files(self) -> Iterator[tuple[str, str | None]]:
        """Yield each file that the TLS settings name: the option, and the file name or L{None}."""
        yield from self.shownCertificates()
        yield from self._secrets()
        yield "ssl_dhparam", self.dhParameters
        if self.verifiesClients:
            yield "ssl_client_certificate", self.clientCertificate
            yield "ssl_trusted_certificate", self.trustedCertificate
            yield "ssl_crl", self.revoked

    def _secrets(self) -> Iterator[tuple[str, str]]:
        """Yield each file that holds a secret: the option and the file name."""
        for source in self.keys[: len(self.certificates)]:
            if shown(source) == source:
                yield "ssl_certificate_key", source
        if self.passwordFile is not None:
            yield "ssl_password_file", self.passwordFile
        for filename in self.ticketKeys:
            yield "ssl_session_ticket_key", filename
        for name, value in self.commands:
            if name == "PrivateKey":
                yield "ssl_conf_command", value


def cacheConflicts(servers: Sequence[ServerSettings], inMail: SessionCache) -> Iterator[Problem]:
    """
    Yield a problem for each shared session cache that an earlier server declared with another size. nginx refuses this
    too.

    @param servers: all servers.
    @param inMail: the cache that C{[mail]} declares. It counts even if no server uses it, as in nginx.
    """
    declared = {inMail.zone: inMail.size}
    for server in servers:
        cache = server[TLSSettings].sessionCache
        size = declared.setdefault(cache.zone, cache.size)
        if size != cache.size:
            message = (
                f'the size {cache.size} of shared memory zone "{cache.zone}"'
                f" conflicts with already declared size {size}"
            )
            yield server.problem("ssl_session_cache", message)


def cachesUnshared(servers: Sequence[ServerSettings], workers: int) -> Iterator[Problem]:
    """
    Yield a problem for each server whose sessions cannot be resumed in another worker: its cache belongs to one
    process, and tickets are off.

    @param servers: all servers.
    @param workers: the number of worker processes.
    """
    for server in servers if workers > 1 else ():
        tls = server[TLSSettings]
        if usesTLS(server) and tls.sessionCache.zone and not tls.sessionTickets:
            yield server.problem(
                "ssl_session_cache",
                f"cannot be shared by {workers} workers: pyOpenSSL supports no session cache outside of one process;"
                " set ssl_session_tickets = on (the workers share the ticket keys),"
                " or set worker_processes = 1",
            )


def keysUnread(servers: Sequence[ServerSettings]) -> Iterator[Problem]:
    """
    Yield a problem for each server with more than one ticket key, where transports do not read the ClientHello: they
    can use only the first key.

    @param servers: all servers.
    """
    for server in servers:
        keys = server[TLSSettings].ticketKeys
        if len(keys) > 1 and usesTLS(server):
            message = (
                "only the first key works with the reactor's own transports; set use = epoll, or remove the others"
            )
            yield server.problem("ssl_session_ticket_key", message, keys[1])


def usesTLS(server: ServerSettings) -> bool:
    """Whether C{server} uses TLS with clients, from the first byte or after STARTTLS."""
    return server.speaksTLS or server[TLSSettings].starttls != "off"
