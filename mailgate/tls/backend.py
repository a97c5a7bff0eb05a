# -*- test-case-name: mailgate.test.tls.test_backend -*-
"""
TLS towards backends and services: whether their certificates are good, and if not what is wrong with them, in
sentences.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity.hazmat import DNS_ID, DNSPattern, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, platformTrust
from zope.interface import implementer

from mailgate.directives import isHostName
from mailgate.tls.certificatechecks import alternativeNames, moment, namesShown
from mailgate.tls.errors import CertificateError
from mailgate.tls.rfc2253 import namesOf, rfc2253
from mailgate.tls.verifyerrors import verifyError

__all__ = ["backendTLS"]

_NOT_YET = 9
_EXPIRED = 10
_SELF_SIGNED = 18
_UNTRUSTED_ROOT = 19
_UNKNOWN_ISSUER = frozenset((2, 20, 21, 27))


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


@implementer(IOpenSSLClientConnectionCreator)
class _VerifiedTLS:
    """
    TLS towards C{hostname}, for which the certificate must be good (RFC 9525). Twisted's own knows no names with
    underscores, and takes a certificate whose names it cannot make out for one that has the name.

    What is not good L{CertificateError} says; C{option} is where an operator names roots.

    @raise ValueError: C{hostname} is nothing that a certificate could be good for.
    """

    def __init__(self, hostname: str, roots: Any, option: str) -> None:
        isAddress = isIPAddress(hostname) or isIPv6Address(hostname)
        name = hostname if isAddress or isHostName(hostname) else hostname.encode("idna").decode("ascii")
        self._identity = IPAddress_ID(name) if isAddress else DNS_ID(name.removesuffix("."))
        self._context = CertificateOptions(trustRoot=roots).getContext()
        mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        self._context.set_verify(mode, _Judge(self._identity, option))

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if isinstance(self._identity, DNS_ID):
            connection.set_tlsext_host_name(self._identity.hostname)
        return connection


class _Judge:
    """
    For C{Context.set_verify}: whether a certificate is C{identity}'s. Roots are named by C{option}.

    What is raised here pyOpenSSL raises from C{do_handshake}, once there is an alert for the peer; not so with
    C{Connection.set_verify}.
    """

    def __init__(self, identity: DNS_ID | IPAddress_ID, option: str) -> None:
        self._identity = identity
        self._option = option

    def __call__(self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
        if not ok:
            raise _refusal(_chainTrouble, certificate, error, depth, self._option)
        if depth:
            # It is an issuer's.
            return True
        try:
            verify_service_identity(_names(certificate), [self._identity], [])
        except Exception:
            raise _refusal(_nameTrouble, certificate, self._identity) from None
        return True


def _refusal(explain: Callable[..., str], *facts: Any) -> CertificateError:
    try:
        return CertificateError(explain(*facts))
    # There are certificates that OpenSSL reads, and others do not.
    except Exception:
        return CertificateError("its certificate is not good, and cannot be read")


def _chainTrouble(certificate: crypto.X509, error: int, depth: int, option: str) -> str:
    """What is wrong with C{certificate}, at C{depth} of the chain, by the C{error} of OpenSSL's."""
    subject, issuer = (
        namesShown([rfc2253(name)]) for name in namesOf(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))
    )
    whose = "its certificate" if depth == 0 else f"the certificate of its authority {subject}"
    reason = verifyError(error)
    if error == _SELF_SIGNED:
        return f"{whose} is self-signed, and not among the trusted ones: if it is the right one, name it in {option}"
    if error == _UNTRUSTED_ROOT:
        return f"its certificate leads to an authority that is not trusted, {subject}: name that in {option} ({reason})"
    if error in _UNKNOWN_ISSUER:
        mend = f"name that in {option}, or have the whole chain sent"
        return f"{whose} is issued by {issuer}, which is not trusted: {mend} ({reason})"
    read = certificate.to_cryptography()
    if error == _EXPIRED:
        return f"{whose} expired on {moment(read.not_valid_after_utc)}: it has to be renewed"
    if error == _NOT_YET:
        since = moment(read.not_valid_before_utc)
        return f"{whose} is not valid before {since}: it is the wrong one, or a clock is wrong"
    return f"{whose} is not accepted: {reason}"


def _nameTrouble(certificate: crypto.X509, identity: DNS_ID | IPAddress_ID) -> str:
    """What C{certificate} is good for, as it is not for C{identity}."""
    wanted = namesShown([identity.hostname.decode("ascii") if isinstance(identity, DNS_ID) else str(identity.ip)])
    try:
        names = alternativeNames(certificate.to_cryptography())
    except x509.ExtensionNotFound:
        names = ()
    if not names:
        return f"its certificate names no host (it has no subjectAltName), and we asked for {wanted}"
    mend = "use a name that it has, or have it issued for this one"
    return f"its certificate is for another name: it is good for {namesShown(names)}, and we asked for {wanted}: {mend}"


def _names(certificate: crypto.X509) -> list[Any]:
    """
    What C{certificate} is good for. service_identity drops blanks and line ends around a name, which belong to it: a
    name that has any is no host's.
    """
    patterns = extract_patterns(certificate)
    named = [pattern for pattern in patterns if isinstance(pattern, DNSPattern)]
    if not named:
        return list(patterns)
    extension = certificate.to_cryptography().extensions.get_extension_for_class(x509.SubjectAlternativeName)
    written = extension.value.get_values_for_type(x509.DNSName)
    hosts = [pattern if name == name.strip() else DNSPattern(b"") for pattern, name in zip(named, written, strict=True)]
    return hosts + [pattern for pattern in patterns if not isinstance(pattern, DNSPattern)]


def backendTLS(
    hostname: str, verify: bool, trust: Any, option: str = "proxy_ssl_trusted_certificate"
) -> IOpenSSLClientConnectionCreator:
    """
    What C{startTLS} wants for a connection to C{hostname}, a name or an address: its certificate must be good for
    that, by C{trust} or else the platform's roots, unless C{verify} is false. C{option} names the directive of
    C{trust}, for errors.

    @raise ValueError: C{hostname} is nothing that a certificate could be good for.
    """
    if not verify:
        return _UnverifiedTLS(hostname)
    return _VerifiedTLS(hostname, platformTrust() if trust is None else trust, option)
