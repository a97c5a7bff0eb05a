# -*- test-case-name: mailgate.test.tls.test_backend -*-
"""TLS with backends and HTTP services: verifies their certificates, and says in a sentence why one is refused."""

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
_HOSTNAME = 62
_ADDRESS = 64


@implementer(IOpenSSLClientConnectionCreator)
class _UnverifiedTLS:
    """TLS with a server whose certificate is not verified, because the operator has turned that off."""

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
    TLS with C{hostname}, whose certificate is verified against the trusted roots and the name (RFC 9525).

    Twisted's own implementation refuses names with underscores. It also accepts a certificate whose names it cannot
    parse.

    A refused certificate raises L{CertificateError}. Its text names C{option}, the directive for trusted roots.

    @raise ValueError: C{hostname} cannot be the name in a certificate.
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
    The callback for C{Context.set_verify}: accepts the certificate chain of C{identity}. C{option} is the directive
    that names the trusted roots.

    pyOpenSSL raises from C{do_handshake} what this raises, after it has queued an alert for the peer. With
    C{Connection.set_verify} it would not.
    """

    def __init__(self, identity: DNS_ID | IPAddress_ID, option: str) -> None:
        self._identity = identity
        self._option = option

    def __call__(self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
        if not ok:
            raise _refusal(_chainTrouble, certificate, error, depth, self._option)
        if depth:
            # A CA certificate: only the chain matters.
            return True
        try:
            verify_service_identity(_names(certificate), [self._identity], [])
        except Exception:
            raise _refusal(_nameTrouble, certificate, self._identity) from None
        return True


def _refusal(explain: Callable[..., str], *facts: Any) -> CertificateError:
    try:
        return CertificateError(explain(*facts))
    # OpenSSL parses certificates that cryptography and service_identity do not.
    except Exception:
        return CertificateError("its certificate is invalid, and cannot be parsed")


def _chainTrouble(certificate: crypto.X509, error: int, depth: int, option: str) -> str:
    """Why the certificate at C{depth} of the chain is refused. C{error} is OpenSSL's code (C{X509_V_ERR_…})."""
    subject, issuer = (
        namesShown([rfc2253(name)]) for name in namesOf(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))
    )
    whose = "its certificate" if depth == 0 else f"the CA certificate {subject} in its chain"
    reason = verifyError(error)
    if error == _SELF_SIGNED:
        return f"{whose} is self-signed and not trusted; if it is the right certificate, add it to {option} ({reason})"
    if error == _UNTRUSTED_ROOT:
        return (
            f"its certificate chain ends at {subject}, an untrusted root; add that certificate to {option} ({reason})"
        )
    if error in _UNKNOWN_ISSUER:
        mend = f"add the CA certificate to {option}, or have the peer send its complete chain"
        return f"{whose} is issued by {issuer}, an unknown CA; {mend} ({reason})"
    read = certificate.to_cryptography()
    if error == _EXPIRED:
        return f"{whose} has expired (valid until {moment(read.not_valid_after_utc)}); renew it"
    if error == _NOT_YET:
        since = moment(read.not_valid_before_utc)
        return f"{whose} is not yet valid (valid from {since}); replace it, or correct the system clock"
    return f"{whose} failed the verification: {reason}"


def _nameTrouble(certificate: crypto.X509, identity: DNS_ID | IPAddress_ID) -> str:
    """Why C{certificate} is not valid for C{identity}, and which names it has."""
    wanted = namesShown([identity.hostname.decode("ascii") if isinstance(identity, DNS_ID) else str(identity.ip)])
    mismatch = verifyError(_HOSTNAME if isinstance(identity, DNS_ID) else _ADDRESS)
    try:
        names = alternativeNames(certificate.to_cryptography())
    except x509.ExtensionNotFound:
        names = ()
    if not names:
        return f"its certificate has no host name in subjectAltName, and is not valid for {wanted} ({mismatch})"
    mend = "connect by a name in the certificate, or replace the certificate"
    return f"its certificate is not valid for {wanted}, only for {namesShown(names)} ({mismatch}); {mend}"


def _names(certificate: crypto.X509) -> list[Any]:
    """
    The names that C{certificate} is valid for. service_identity strips blanks and line ends around a name, although
    they are part of it. A name with such characters matches no host here.
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
    What C{startTLS} takes for a connection to a backend or an HTTP service.

    @param hostname: the host name or IP address of the server. Its certificate must be valid for it.
    @param verify: whether the certificate is verified.
    @param trust: the trusted roots, as Twisted's C{trustRoot}; L{None} is for those of the system.
    @param option: the directive that names the roots, for error messages.
    @raise ValueError: C{hostname} cannot be the name in a certificate.
    """
    if not verify:
        return _UnverifiedTLS(hostname)
    return _VerifiedTLS(hostname, platformTrust() if trust is None else trust, option)
