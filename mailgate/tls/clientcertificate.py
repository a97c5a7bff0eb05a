# -*- test-case-name: mailgate.test.tls.test_clientcertificate -*-
"""
Clients' certificates: what is asked of them, what they say, and whether they will do. It is nginx's way: a handshake
fails over none, what OpenSSL finds wrong is noted, and the client is told in the words of its protocol.
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
The errors that C{optional_no_ca} does not mind: nobody known here has issued the certificate. They are nginx's
C{ngx_ssl_verify_error_optional}.
"""

X509: TypeAlias = crypto.X509


class NotingConnection(SSL.Connection):
    """
    A connection that knows what was found wrong with its peer's certificate: C{verifyCode} is what
    C{SSL_get_verify_result} would say, were it not that pyOpenSSL clears that.
    """

    verifyCode = 0
    heard = True
    """Whether a byte has come for it; as a rule it is made when one has."""


def noteVerdict(connection: Any, certificate: object, error: int, depth: int, good: int) -> bool:
    """For C{Context.set_verify}: note the error, of several the last, as OpenSSL does, and go on."""
    if not good:
        connection.verifyCode = error
    return True


@frozen
class CertificateRefusal:
    """Why a client cannot stay: what it is told, and what the log is, after "client"."""

    trouble: Trouble
    reason: str


def refusal(connection: Any, mode: str) -> CertificateRefusal | None:
    """What C{ssl_verify_client} says, C{mode} being its word, of C{connection}, which has shaken hands."""
    code = connection.verifyCode
    if code and not (mode == "optional_no_ca" and code in TOLERATED):
        reason = f"SSL certificate verify error: ({code}:{verifyError(code)})"
        return CertificateRefusal(Trouble.CERTIFICATE, reason)
    if mode == "on" and connection.get_peer_certificate() is None:
        return CertificateRefusal(Trouble.NO_CERTIFICATE, "sent no required SSL certificate")
    return None


def verification(certificate: ClientCertificate | None, code: int) -> str:
    """nginx's C{Auth-SSL-Verify}."""
    if certificate is None:
        return "NONE"
    return f"FAILED:{verifyError(code)}" if code else "SUCCESS"


def describe(certificate: X509) -> ClientCertificate:
    """
    What C{certificate} says. The names are empty where they cannot be read: OpenSSL takes some that are not DER.
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
    """C{number} as OpenSSL prints an integer, two digits for each byte, but never broken into lines."""
    digits = f"{abs(number):X}"
    return "-" * (number < 0) + "0" * (len(digits) % 2) + digits
