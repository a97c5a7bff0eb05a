# -*- test-case-name: mailgate.test.tls.test_clientcertificate -*-
"""
Client certificates: what the gateway notes about them, and whether it accepts them. As in nginx, a missing or invalid
certificate does not fail the handshake. The gateway notes OpenSSL's error, and refuses the client later by a reply of
its protocol.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from attrs import frozen
from OpenSSL import SSL, crypto

from mailgate.login import ClientCertificate, Trouble
from mailgate.tls.rfc2253 import commonName, namesOf, rfc2253
from mailgate.tls.verifyerrors import verifyError

__all__ = ["CertificateRefusal", "NotingConnection", "describe", "noteVerdict", "refusal", "verification"]

TOLERATED = frozenset((18, 19, 20, 21, 27))
"""
The errors that C{optional_no_ca} ignores: no trusted authority issued the certificate. They are those of nginx's
C{ngx_ssl_verify_error_optional}.
"""

X509: TypeAlias = crypto.X509


class NotingConnection(SSL.Connection):
    """
    A connection that remembers the verification error of its peer's certificate.

    @ivar verifyCode: the error (C{X509_V_ERR_…}), 0 for none: what C{SSL_get_verify_result} would return if pyOpenSSL
        did not clear it.
    """

    verifyCode = 0
    heard = True
    """Whether a byte has arrived for the connection. Most connections are made after the first byte."""


def noteVerdict(connection: Any, certificate: object, error: int, depth: int, good: int) -> bool:
    """
    The callback for C{Context.set_verify}: notes the error on the connection, the last one wins as in OpenSSL, and goes
    on with the handshake.

    @param connection: the L{NotingConnection}.
    @param certificate: the certificate in question; not used.
    @param error: OpenSSL's error code.
    @param depth: the place of the certificate in the chain; not used.
    @param good: 0 if the certificate failed the verification.
    @return: always true.
    """
    if not good:
        connection.verifyCode = error
    return True


@frozen
class CertificateRefusal:
    """
    Why the gateway refuses a client because of its certificate.

    @ivar trouble: decides the reply to the client.
    @ivar reason: nginx's words for the log, after "client".
    """

    trouble: Trouble
    reason: str


def refusal(connection: Any, mode: str) -> CertificateRefusal | None:
    """
    Apply C{ssl_verify_client} to a connection whose handshake is complete.

    @param connection: the L{NotingConnection}.
    @param mode: the value of C{ssl_verify_client}.
    @return: why the client is refused, or L{None} if it is accepted.
    """
    code = connection.verifyCode
    if code and not (mode == "optional_no_ca" and code in TOLERATED):
        reason = f"SSL certificate verify error: ({code}:{verifyError(code)})"
        return CertificateRefusal(Trouble.CERTIFICATE, reason)
    if mode == "on" and connection.get_peer_certificate() is None:
        return CertificateRefusal(Trouble.NO_CERTIFICATE, "sent no required SSL certificate")
    return None


def verification(certificate: ClientCertificate | None, code: int) -> str:
    """
    The value of nginx's C{Auth-SSL-Verify} header.

    @param certificate: the client's, or L{None} if it sent none.
    @param code: the verification error, 0 for none.
    """
    if certificate is None:
        return "NONE"
    return f"FAILED:{verifyError(code)}" if code else "SUCCESS"


def describe(certificate: X509) -> ClientCertificate:
    """
    The fields of C{certificate}. The names are empty where they cannot be parsed: OpenSSL accepts some that are not
    DER.
    """
    der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
    try:
        subject, issuer = namesOf(der)
        names = rfc2253(subject), rfc2253(issuer), commonName(subject)
    except ValueError:
        names = "", "", ""
    return ClientCertificate(
        names[0],
        names[1],
        _serial(certificate.get_serial_number()),
        certificate.digest("sha1").decode("ascii").replace(":", "").lower(),
        names[2],
        crypto.dump_certificate(crypto.FILETYPE_PEM, certificate),
    )


def _serial(number: int) -> str:
    """C{number} in hexadecimal as OpenSSL prints an integer, two digits for each byte, but never split into lines."""
    digits = f"{abs(number):X}"
    return "-" * (number < 0) + "0" * (len(digits) % 2) + digits
