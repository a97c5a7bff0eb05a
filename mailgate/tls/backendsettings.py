# -*- test-case-name: mailgate.test.tls.test_settings -*-
"""
The trusted roots for the certificates of backends and HTTP services: their directive, and how they are loaded.
L{mailgate.tls.backend} verifies certificates with them.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl as standardSSL
from collections.abc import Iterator
from typing import Any

from attrs import frozen
from OpenSSL import crypto
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.ssl import Certificate, trustRootFromCertificates

from mailgate.directives import (
    Problem,
    SectionSettings,
    ServerSettings,
    directive,
    flag,
    isHostName,
    number,
    oneOf,
    path,
    text,
    words,
)
from mailgate.directives.needs import Need
from mailgate.system.regularfiles import isOpenToAll, readRegular
from mailgate.tls.certificatechecks import writableWarnings
from mailgate.tls.confcommand import VERSIONS, commands
from mailgate.tls.errors import openSSLReason
from mailgate.tls.files import TRUNCATED, TLSError, shown, sources, unreadable, withoutWanted

__all__ = ["BackendTLSSettings", "loadTrust", "parsePin", "trustProblems"]

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


_DIGEST = 32
"""Bytes of a SHA-256 digest."""


def _pins(value: str, folder: str) -> tuple[str, ...]:
    """Digests in hexadecimal: C{key:…} of public keys, C{certificate:…} of whole certificates."""
    return tuple(dict.fromkeys(map(parsePin, text(" ".join(value.split()), folder).split())))


def parsePin(item: str) -> str:
    """
    Parse one digest of C{proxy_ssl_pin}.

    @param item: C{sha256//} and base64, or hexadecimal digits.
    @return: C{key:HEX} or C{certificate:HEX}.
    @raise ValueError: it is neither.
    """
    kind, _, encoded = item.partition("//")
    try:
        if kind == "sha256" and len(digest := base64.b64decode(encoded, validate=True)) == _DIGEST:
            return f"key:{digest.hex()}"
        if not encoded and len(digest := bytes.fromhex(item.replace(":", ""))) == _DIGEST:
            return f"certificate:{digest.hex()}"
    except (binascii.Error, ValueError):
        pass
    raise ValueError(
        f'"{item}": must be sha256// and the SHA-256 digest of a public key in base64, or the SHA-256 digest of a'
        " certificate in 64 hexadecimal digits"
    )


def _alpn(value: str, folder: str) -> tuple[str, ...]:
    """Names of protocols; none for C{off}."""
    names = tuple(text(" ".join(value.split()), folder).split())
    for name in names:
        if len(name) > 255 or not name.isascii():
            raise ValueError(f'"{name}": must be a name of up to 255 ASCII characters, such as imap')
    return () if names == ("off",) else names


def _name(value: str, folder: str) -> str:
    name = text(value, folder)
    if not (isHostName(name) or isIPAddress(name) or isIPv6Address(name)):
        raise ValueError("must be a host name or an address")
    return name


def _isUsed(section: ServerSettings | SectionSettings) -> bool:
    return section[BackendTLSSettings].mode != "off" or "auth_file" in section.given


def _mayBeUsed(section: ServerSettings | SectionSettings) -> bool:
    """Whether a connection may use TLS: an authentication service decides that for each login."""
    return _isUsed(section) or "auth_http" in section.given


_TLS = Need("proxy_ssl = on or starttls", _mayBeUsed)
_VERIFYING = Need("proxy_ssl_verify = on", lambda section: section[BackendTLSSettings].verify)


@frozen
class BackendTLSSettings:
    """
    The TLS of connections to backends: nginx's C{proxy_ssl_…} of its stream module. Certificates are verified unless
    C{verify} is false.
    """

    mode: str = directive("proxy_ssl", oneOf("off", "on", "starttls"), "off")
    verify: bool = directive("proxy_ssl_verify", flag, True, needs=(_TLS,))
    verifyDepth: int = directive("proxy_ssl_verify_depth", number, 100, needs=(_TLS, _VERIFYING))
    trusted: str | None = directive("proxy_ssl_trusted_certificate", path, None, needs=(_TLS, _VERIFYING))
    revoked: str | None = directive("proxy_ssl_crl", path, None, needs=(_TLS, _VERIFYING))
    name: str | None = directive("proxy_ssl_name", _name, None, needs=(_TLS,))
    sendsName: bool = directive("proxy_ssl_server_name", flag, True, needs=(_TLS,))
    pins: tuple[str, ...] = directive("proxy_ssl_pin", _pins, (), needs=(_TLS,))
    certificate: tuple[str, ...] = directive("proxy_ssl_certificate", sources, (), secret=True, needs=(_TLS,))
    key: tuple[str, ...] = directive("proxy_ssl_certificate_key", sources, (), secret=True, needs=(_TLS,))
    passwordFile: str | None = directive("proxy_ssl_password_file", path, None, needs=(_TLS,))
    protocols: tuple[str, ...] = directive(
        "proxy_ssl_protocols", words(*VERSIONS), ("TLSv1.2", "TLSv1.3"), needs=(_TLS,)
    )
    ciphers: str = directive("proxy_ssl_ciphers", text, "DEFAULT", needs=(_TLS,))
    commands: tuple[tuple[str, str], ...] = directive("proxy_ssl_conf_command", commands, (), needs=(_TLS,))
    reusesSessions: bool = directive("proxy_ssl_session_reuse", flag, True, needs=(_TLS,))
    alpn: tuple[str, ...] | None = directive("proxy_ssl_alpn", _alpn, None, needs=(_TLS,))

    @property
    def hasFiles(self) -> bool:
        """Whether it names certificates, keys or lists to be read."""
        return any(source is not None for _, source in self._files())

    def problems(self, section: ServerSettings | SectionSettings) -> Iterator[Problem]:
        """Yield why a file or a value of C{section} cannot be used. All files are loaded."""
        from mailgate.tls.backendcontexts import BackendContexts

        for option, source in self._files():
            reason = None if source is None else unreadable(source)
            if reason is not None:
                yield section.problem(option, f"cannot be read: {reason}", source)
                return
        if self.trusted is not None:
            yield from trustProblems(section, "proxy_ssl_trusted_certificate", self.trusted)
        if self.certificate and not self.key:
            yield section.problem("proxy_ssl_certificate_key", "is missing for proxy_ssl_certificate")
        elif not set(self.protocols) - {"SSLv2", "SSLv3"}:
            message = "has no version that the TLS library still speaks"
            yield section.problem("proxy_ssl_protocols", message, " ".join(self.protocols))
        elif _isUsed(section) or self != BackendTLSSettings():
            # A group of backends may use TLS where its server does not.
            try:
                BackendContexts(self)
            except TLSError as error:
                yield section.problem(error.option, str(error), error.value)
            except (OSError, ValueError):
                # Of the trusted certificates, which is reported above.
                pass

    def warnings(self, section: ServerSettings | SectionSettings) -> Iterator[Problem]:
        """Yield warnings about C{section}: files that other users can write or read, and unverified backends."""
        yield from writableWarnings(section, list(self._files()))
        for source in self.key:
            if shown(source) == source and isOpenToAll(source):
                message = f"every user of this host may read it: chmod o-r {source}"
                yield section.problem("proxy_ssl_certificate_key", message, source)
        if self.mode != "off" and not self.verify and not self.pins:
            message = "lets any host that answers in the place of the backend read passwords and mail"
            yield section.problem("proxy_ssl_verify", message, "off")

    def _files(self) -> Iterator[tuple[str, str | None]]:
        yield "proxy_ssl_trusted_certificate", self.trusted
        yield "proxy_ssl_crl", self.revoked
        yield "proxy_ssl_password_file", self.passwordFile
        for source in self.certificate:
            yield "proxy_ssl_certificate", source
        for source in self.key:
            yield "proxy_ssl_certificate_key", source


def trustProblems(server: ServerSettings | SectionSettings, option: str, filename: str | None) -> Iterator[Problem]:
    """
    Yield why L{loadTrust} cannot load a file of trusted roots.

    @param server: all settings of the server.
    @param option: the directive that names the file.
    @param filename: the file, or L{None} where none is set.
    """
    if filename is not None:
        try:
            loadTrust(filename)
        except OSError as error:
            yield server.problem(option, f"cannot be read: {error.strerror or error}", filename)
        except ValueError as error:
            yield server.problem(option, f"cannot be loaded: {error}", filename)


def loadTrust(filename: str) -> Any:
    """
    Load trusted roots.

    @param filename: a file with certificates in PEM format.
    @return: what Twisted takes as C{trustRoot}.
    @raise OSError: the file cannot be read.
    @raise ValueError: the file contains no certificate, or one that OpenSSL cannot parse.
    """
    content = readRegular(filename).decode("ascii", "replace")
    blocks = _CERTIFICATE.findall(content)
    if not blocks:
        raise ValueError(withoutWanted(content.encode("ascii", "replace"), "a certificate") or TRUNCATED)
    try:
        return trustRootFromCertificates([Certificate.loadPEM(block) for block in blocks])
    except (crypto.Error, standardSSL.SSLError) as error:
        raise ValueError(openSSLReason(error)) from None
