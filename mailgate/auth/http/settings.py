# -*- test-case-name: mailgate.test.auth.http.test_settings -*-
"""
The directives of C{auth_http}: those of nginx, and those that adapt requests to other services. For each server they
result in a L{Dialect}.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from attrs import field, frozen
from twisted.internet.abstract import isIPAddress, isIPv6Address

from mailgate.auth.cache import cacheSize
from mailgate.auth.http.decisions import SSL_OFF, SSL_VERIFY_OFF
from mailgate.auth.http.dialect import ESCAPES, PROTOCOL_NAMES, VARIABLES, Dialect, literal
from mailgate.auth.http.presets import PRESETS, Preset, dialectOf
from mailgate.directives import (
    LONGEST_SOCKET_PATH,
    Problem,
    ServerSettings,
    deadline,
    directive,
    directives,
    flag,
    isHostName,
    lines,
    nearest,
    number,
    oneOf,
    path,
    seconds,
    words,
)
from mailgate.directives.needs import Need, given
from mailgate.tls.backendsettings import trustProblems
from mailgate.tls.certificatechecks import writableWarnings
from mailgate.tls.settings import TLSSettings, usesTLS

__all__ = ["HTTPSettings", "ServiceURL"]

_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]*))?(?=[/?]|\Z)")
_FORMS = "must be http://HOST[:PORT][/URI], https://…, HOST[:PORT][/URI] or unix:/PATH[:/URI]"


@frozen
class ServiceURL:
    """
    One URL of C{auth_http}. Its string is fit for a log: it omits the query, which may be a secret.

    @ivar tls: whether the scheme is https.
    @ivar host: an address without brackets, a host name, or C{unix:/path}.
    @ivar port: the port; 0 for a unix socket.
    @ivar target: the path and query to request.
    """

    tls: bool
    host: str
    port: int
    target: str = field(repr=False)

    def __str__(self) -> str:
        shown = self.target.partition("?")[0]
        if self.port == 0:
            return f"http://{self.host}:{shown}"
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{name}:{self.port}{shown}"

    @property
    def hostHeader(self) -> str:
        """The C{Host} header as nginx writes it: without the port."""
        if self.port == 0:
            return "localhost"
        return f"[{self.host}]" if ":" in self.host else self.host


def _serviceURL(value: str) -> ServiceURL:
    """
    Parse a URL as nginx does, and https URLs.

    @raise ValueError: the URL is invalid. The message does not quote it, because it may contain a secret.
    """
    if not re.fullmatch(r"[!-~]+", value) or "#" in value:
        raise ValueError(f"contains a space, a # or a character outside ASCII; {_FORMS}")
    scheme, rest = re.fullmatch(r"(?i:(https?)://)?(.*)", value).groups()  # type: ignore[union-attr]
    tls = (scheme or "").lower() == "https"
    if rest[:5].lower() == "unix:":
        if tls:
            raise ValueError("https:// needs a host; for a unix socket write unix:/PATH")
        return _unixURL(rest[5:])
    authority = None if re.match("[A-Za-z]+://", rest) else _AUTHORITY.match(rest)
    if authority is None:
        credentials = "; put a password for the service into auth_http_header" if "@" in rest else ""
        raise ValueError(_FORMS + credentials)
    address, name, port = authority.groups()
    if address is not None and not isIPv6Address(address):
        raise ValueError(f"[{address}] is not an IPv6 address")
    if name is not None and not (isIPAddress(name) or isHostName(name)):
        raise ValueError(f'{name} is neither an IP address nor a host name (letters, digits, "-", "_" and ".")')
    if port is None:
        port = "443" if tls else "80"
    if not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise ValueError("must have a port from 1 to 65535")
    return ServiceURL(tls, address or name, int(port), _target(rest[authority.end() :]))


def _unixURL(rest: str) -> ServiceURL:
    socket, _, target = rest.partition(":")
    if len(socket) > LONGEST_SOCKET_PATH:
        raise ValueError(f"the path of the unix socket is longer than {LONGEST_SOCKET_PATH} bytes")
    if not socket.startswith("/") or (target and target[0] not in "/?"):
        raise ValueError("must be unix:/PATH or unix:/PATH:/URI")
    return ServiceURL(False, f"unix:{socket}", 0, _target(target))


def _target(target: str) -> str:
    return target if target.startswith("/") else f"/{target}"


def _urls(value: str, folder: str) -> tuple[ServiceURL, ...]:
    return tuple(map(_serviceURL, lines(value, folder)))


def _headers(value: str, folder: str) -> tuple[tuple[bytes, bytes], ...]:
    """Parse nginx's C{auth_http_header NAME VALUE}, one per line. The value may be empty or contain spaces."""
    headers = []
    for line in lines(value, folder):
        name, text = [*line.split(None, 1), ""][:2]
        # The messages do not quote the line: the missing space may be the one before a secret.
        if not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name):
            raise ValueError("must be NAME VALUE, where NAME is an HTTP header without a colon")
        if re.search(r"[\0-\x08\x0a-\x1f\x7f]", text):
            raise ValueError(f"the value of {name} contains a control character")
        headers.append((name.encode("ascii"), text.encode("utf-8")))
    return tuple(headers)


_ESCAPES = tuple(word for word in ESCAPES if word != "base64url")
_PLAIN = Preset()
"""The preset that applies without C{auth_http_preset}: requests as nginx sends them."""


_SERVICE = given("auth_http")
_BY_TLS = Need("an https: URL in auth_http", lambda server: any(url.tls for url in server[HTTPSettings].urls))
_CACHE = Need("auth_cache_ttl", lambda server: server[HTTPSettings].cacheTTL > 0)
_CERTIFICATE = Need("ssl_verify_client", lambda server: server[TLSSettings].verifiesClients and usesTLS(server))


@frozen
class HTTPSettings:
    """
    The directives of C{auth_http}: nginx's own, those for TLS by the names of nginx's other modules, those that adapt
    requests to the service, and those of L{mailgate.auth.cache}.
    """

    needs: ClassVar[tuple[Need, ...]] = (_SERVICE,)

    urls: tuple[ServiceURL, ...] = directive("auth_http", _urls, ())
    headers: tuple[tuple[bytes, bytes], ...] = directive("auth_http_header", _headers, (), secret=True)
    timeout: float = directive("auth_http_timeout", deadline, 60.0)
    keepalive: str = directive("auth_http_keepalive", oneOf("auto", "on", "off"), "auto")
    maxConnections: int = directive("auth_http_max_connections", number, 64)
    passesCertificate: bool = directive("auth_http_pass_client_cert", flag, False, needs=(_SERVICE, _CERTIFICATE))
    trusted: str | None = directive("auth_http_ssl_trusted_certificate", path, None, needs=(_SERVICE, _BY_TLS))
    verify: bool = directive("auth_http_ssl_verify", flag, True, needs=(_SERVICE, _BY_TLS))
    preset: str | None = directive("auth_http_preset", oneOf(*PRESETS), None)
    escape: str = directive("auth_http_escape", oneOf(*_ESCAPES), "nginx")
    protocolNames: str = directive("auth_http_protocol_names", oneOf(*PROTOCOL_NAMES), "nginx")
    showsPassword: bool = directive("auth_http_pass", flag, True)
    missingStatus: str = directive("auth_http_missing_status", oneOf("refuse", "accept"), "refuse")
    traceparent: bool = directive("auth_http_traceparent", flag, False)
    may: tuple[str, ...] = directive("auth_http_may", words(SSL_OFF, SSL_VERIFY_OFF), ())
    cacheTTL: float = directive("auth_cache_ttl", seconds, 0.0)
    cacheSize: int = directive("auth_cache_size", cacheSize, 10 * 1024 * 1024, needs=(_SERVICE, _CACHE))

    def dialect(self, server: ServerSettings) -> Dialect:
        """
        Return the dialect for the requests of a server. Explicit directives take precedence over the preset.

        @param server: the settings of the server.
        """

        def written(option: str, value: Any) -> Any:
            return value if self.preset is None or option in server.given else None

        return dialectOf(
            _PLAIN if self.preset is None else PRESETS[self.preset],
            server.protocol,
            self.headers,
            written("auth_http_escape", self.escape),
            written("auth_http_protocol_names", self.protocolNames),
            written("auth_http_pass", self.showsPassword),
            self.missingStatus == "accept",
        )

    def problems(self, server: ServerSettings) -> Iterator[Problem]:
        """
        Check the certificates and the login methods. A service that does not check passwords cannot check a digest, and
        the backend cannot either.

        @param server: the settings of the server.
        """
        yield from trustProblems(server, "auth_http_ssl_trusted_certificate", self.trusted)
        digests = [word for word in _offered(server) if word in ("cram-md5", "apop")]
        if digests and not self.dialect(server).showsPassword:
            how = "auth_http_pass = off" if "auth_http_pass" in server.given else f"auth_http_preset = {self.preset}"
            message = f"cannot offer {' and '.join(digests)} with {how}: the service does not check passwords"
            yield server.problem(f"{server.protocol}_auth", message)

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """
        Warn of a preset whose service does not support the protocol, of a file of trusted certificates that other users
        can write, and of misspelt variables in headers.

        @param server: the settings of the server.
        """
        if self.preset is not None and server.protocol not in PRESETS[self.preset].protocols:
            message = f"the service of this preset supports only {' and '.join(PRESETS[self.preset].protocols)}"
            yield server.problem("auth_http_preset", message, self.preset)
        yield from writableWarnings(server, [("auth_http_ssl_trusted_certificate", self.trusted)])
        for header, value in self.headers:
            for hint in filter(None, (nearest(name, list(VARIABLES)) for name in literal(value))):
                # The value itself may be a secret.
                name = header.decode("ascii")
                message = f"the value of {name} contains a $ that starts no variable; it is sent as is{hint}"
                yield server.problem("auth_http_header", message)


def _offered(server: ServerSettings) -> tuple[str, ...]:
    """Return the words of C{imap_auth}, C{pop3_auth} or C{smtp_auth} of the server."""
    for group, settings in server.groups.items():
        for declared in directives(group):
            if declared.name == f"{server.protocol}_auth":
                offered: tuple[str, ...] = getattr(settings, declared.field)
                return offered
    return ()
