# -*- test-case-name: mailgate.test.tls.test_settings -*-
"""
The trusted roots for the certificates of backends and HTTP services: their directive, and how they are loaded.
L{mailgate.tls.backend} verifies certificates with them.
"""

from __future__ import annotations

import re
import ssl as standardSSL
from collections.abc import Iterator
from typing import Any, ClassVar

from attrs import frozen
from OpenSSL import crypto
from twisted.internet.ssl import Certificate, trustRootFromCertificates

from mailgate.directives import Problem, ServerSettings, directive, path
from mailgate.directives.needs import Need, given
from mailgate.system.regularfiles import readRegular
from mailgate.tls.certificatechecks import writableWarnings
from mailgate.tls.errors import openSSLReason
from mailgate.tls.files import TRUNCATED, withoutWanted

__all__ = ["BackendTLSSettings", "loadTrust", "trustProblems"]

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@frozen
class BackendTLSSettings:
    """The settings for TLS with backends. The names are those of nginx's stream module."""

    needs: ClassVar[tuple[Need, ...]] = (given("auth_file"),)

    trusted: str | None = directive("proxy_ssl_trusted_certificate", path, None)

    def problems(self, server: ServerSettings) -> Iterator[Problem]:
        yield from trustProblems(server, "proxy_ssl_trusted_certificate", self.trusted)

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """
        Yield a warning if other users can change the file of trusted roots.

        @param server: all settings of the server.
        """
        yield from writableWarnings(server, [("proxy_ssl_trusted_certificate", self.trusted)])


def trustProblems(server: ServerSettings, option: str, filename: str | None) -> Iterator[Problem]:
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
