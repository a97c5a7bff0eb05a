# -*- test-case-name: mailgate.test.tls.test_settings -*-
"""
The roots by which certificates of backends and services are judged: their directive, and how they are loaded. What is
done with them L{mailgate.tls.backend} says.
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
from mailgate.tls.files import withoutWanted

__all__ = ["BackendTLSSettings", "loadTrust", "trustProblems"]


@frozen
class BackendTLSSettings:
    """The TLS of connections to backends, by the names of nginx's stream module."""

    needs: ClassVar[tuple[Need, ...]] = (given("auth_file"),)

    trusted: str | None = directive("proxy_ssl_trusted_certificate", path, None)

    def problems(self, server: ServerSettings) -> Iterator[Problem]:
        yield from trustProblems(server, "proxy_ssl_trusted_certificate", self.trusted)

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """Roots that others may add to."""
        yield from writableWarnings(server, [("proxy_ssl_trusted_certificate", self.trusted)])


def trustProblems(server: ServerSettings, option: str, filename: str | None) -> Iterator[Problem]:
    """What keeps the file that C{server}'s C{option} names, if it names one, from being loaded by L{loadTrust}."""
    if filename is not None:
        try:
            loadTrust(filename)
        except OSError as error:
            yield server.problem(option, f"cannot be read: {error.strerror or error}", filename)
        except ValueError as error:
            yield server.problem(option, f"cannot be loaded: {error}", filename)


def loadTrust(filename: str) -> Any:
    """
    The certificates in PEM file C{filename}, as roots to trust.

    @raise OSError: it cannot be read.
    @raise ValueError: it holds no certificate.
    """
    content = readRegular(filename).decode("ascii", "replace")
    blocks = re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", content, re.DOTALL)
    if not blocks:
        raise ValueError(withoutWanted(content.encode("ascii", "replace"), "a certificate") or "it is cut off")
    try:
        return trustRootFromCertificates([Certificate.loadPEM(block) for block in blocks])
    except (crypto.Error, standardSSL.SSLError) as error:
        raise ValueError(openSSLReason(error)) from None
