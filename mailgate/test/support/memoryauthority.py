"""
A certificate authority in memory, for tests.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import crypto
from twisted.internet.ssl import Certificate, trustRootFromCertificates

__all__ = ["DAY", "NOW", "Authority"]

NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)


class Authority:
    """Issues certificates in memory."""

    def __init__(self, name: str, issuer: Authority | None = None, **changes: Any) -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = (self if issuer is None else issuer).issue(self.name, self.key, authority=True, **changes)

    def issue(
        self,
        subject: x509.Name,
        key: Any,
        names: tuple[str, ...] = (),
        since: datetime = NOW - DAY,
        until: datetime = NOW + 30 * DAY,
        authority: bool = False,
    ) -> x509.Certificate:
        """Return a certificate of C{subject} for C{key}, valid for C{names}."""
        serial = x509.random_serial_number()
        builder = x509.CertificateBuilder(self.name, subject, key.public_key(), serial, since, until)
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), True)
        if names:
            found = [x509.IPAddress(ip_address(each)) if each[0].isdigit() else x509.DNSName(each) for each in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(found), False)
        return builder.sign(self.key, hashes.SHA256())

    @property
    def trust(self) -> Any:
        """This authority as the only root."""
        return trustRootFromCertificates([Certificate(crypto.X509.from_cryptography(self.certificate))])
