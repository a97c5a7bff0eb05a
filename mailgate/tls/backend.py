# -*- test-case-name: mailgate.test.tls.test_backend -*-
"""TLS with backends and HTTP services: verifies their certificates, and says in a sentence why one is refused."""

from __future__ import annotations

from collections.abc import Callable, Collection
from hashlib import sha256
from typing import Any
from weakref import WeakKeyDictionary

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
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

__all__ = ["Identity", "Judge", "backendTLS", "identityOf"]

_NOT_YET = 9
_EXPIRED = 10
_SELF_SIGNED = 18
_UNTRUSTED_ROOT = 19
_UNKNOWN_ISSUER = frozenset((2, 20, 21, 27))
_HOSTNAME = 62
_ADDRESS = 64


@frozen
class Identity:
    """
    What a backend's certificate must be good for.

    @ivar pattern: a name or an address, for service_identity; L{None} where the certificate is not verified.
    @ivar serverName: the name that is sent by SNI; empty for an address.
    """

    pattern: DNS_ID | IPAddress_ID | None
    serverName: bytes


def identityOf(hostname: str, verify: bool) -> Identity:
    """
    The identity of C{hostname}, a name or an address without brackets.

    @param verify: whether the certificate is verified.
    @raise ValueError: it is verified, and C{hostname} is nothing that a certificate could be good for.
    """
    if isIPAddress(hostname) or isIPv6Address(hostname):
        return Identity(IPAddress_ID(hostname) if verify else None, b"")
    try:
        name = hostname if isHostName(hostname) else hostname.encode("idna").decode("ascii")
    except UnicodeError:
        if verify:
            raise
        return Identity(None, b"")
    if not verify and ":" in name:
        # A unix socket's path.
        return Identity(None, b"")
    known = DNS_ID(name.removesuffix("."))
    return Identity(known if verify else None, known.hostname)


class Judge:
    """
    For C{Context.set_verify}: whether certificates are good, each connection's for the identity that it was to
    L{expect}.

    What is raised here pyOpenSSL raises from C{do_handshake}, once there is an alert for the peer; not so with
    C{Connection.set_verify}.

    @param option: the directive that names roots, for errors.
    @param verify: whether chain and name count.
    """

    def __init__(self, option: str, verify: bool = True) -> None:
        self._option = option
        self._verify = verify
        self._expected: WeakKeyDictionary[SSL.Connection, tuple[Identity, Collection[str]]] = WeakKeyDictionary()

    def expect(self, connection: SSL.Connection, identity: Identity, pins: Collection[str] = ()) -> None:
        """
        The certificate of C{connection} must be good for C{identity}.

        @param connection: the connection.
        @param identity: the name or address.
        @param pins: digests, C{key:HEX} or C{certificate:HEX}, of which the backend's own certificate must have one; if
            there are none, any certificate will do.
        """
        self._expected[connection] = (identity, pins)

    def __call__(self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
        if self._verify and not ok:
            raise _refusal(_chainTrouble, certificate, error, depth, self._option)
        if depth:
            # A CA certificate: only the chain matters.
            return True
        expected, pins = self._expected[connection]
        if pins and not _matches(pins, certificate):
            raise CertificateError("its certificate and key match no proxy_ssl_pin")
        identity = expected.pattern if self._verify else None
        if identity is None:
            return True
        try:
            verify_service_identity(_names(certificate), [identity], [])
        except Exception:
            raise _refusal(_nameTrouble, certificate, identity) from None
        return True


def _matches(pins: Collection[str], certificate: crypto.X509) -> bool:
    """Whether C{certificate} has one of the C{pins}."""
    try:
        read = certificate.to_cryptography()
        if f"certificate:{read.fingerprint(SHA256()).hex()}" in pins:
            return True
        key = read.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except Exception:
        # OpenSSL parses certificates and keys that cryptography does not.
        return False
    return f"key:{sha256(key).hexdigest()}" in pins


@implementer(IOpenSSLClientConnectionCreator)
class _ServiceTLS:
    """TLS towards a service at one C{hostname}: a context of its own."""

    def __init__(self, hostname: str, verify: bool, roots: Any, option: str) -> None:
        self._identity = identityOf(hostname, verify)
        self._judge = Judge(option)
        if verify:
            self._context = CertificateOptions(trustRoot=roots).getContext()
            self._context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._judge)
        else:
            self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            self._context.set_mode(SSL.MODE_RELEASE_BUFFERS)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        self._judge.expect(connection, self._identity)
        if self._identity.serverName:
            connection.set_tlsext_host_name(self._identity.serverName)
        return connection


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
    return _ServiceTLS(hostname, verify, platformTrust() if trust is None else trust, option)
