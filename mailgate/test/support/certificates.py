# -*- test-case-name: mailgate.test.tls.test_clientcertificate -*-
"""
A certificate authority for tests: it issues, revokes and expires certificates of clients.
"""

from __future__ import annotations

import os
import ssl
from datetime import datetime, timedelta, timezone
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "clientContext"]

DAY = timedelta(days=1)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


class Authority:
    """
    A certificate authority. C{folder} holds its files, C{certificate} is the path of its own certificate. C{issuer}
    signs it; without one it is self-signed.
    """

    def __init__(self, folder: str, name: str, issuer: Authority | None = None) -> None:
        self._folder = folder
        self.subject = _named(name)
        self.key = ec.generate_private_key(ec.SECP256R1())
        signing = self if issuer is None else issuer
        self._made = signing.sign(self.subject, self.key.public_key(), ca=True)
        self.certificate = self.write(f"{name}.pem", self._made.public_bytes(Encoding.PEM))

    def write(self, name: str, content: bytes) -> str:
        """Write C{content} to a file and return its path."""
        path = os.path.join(self._folder, name)
        with open(path, "wb") as opened:
            opened.write(content)
        return path

    def sign(
        self, subject: x509.Name, key: Any, ca: bool = False, serial: int | None = None, age: timedelta = timedelta()
    ) -> x509.Certificate:
        """Return a certificate for C{key} that is valid for one day, beginning C{age} ago."""
        now = datetime.now(timezone.utc) - timedelta(hours=1) - age
        return (
            x509.CertificateBuilder(self.subject, subject, key, serial or x509.random_serial_number(), now, now + DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), True)
            .sign(self.key, hashes.SHA256())
        )

    def issue(self, name: str, subject: x509.Name | None = None, **changes: Any) -> tuple[x509.Certificate, str]:
        """Return a client's certificate, and the path of a file with it, this authority's certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.sign(_named(name) if subject is None else subject, key.public_key(), **changes)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = certificate.public_bytes(Encoding.PEM) + self._made.public_bytes(Encoding.PEM)
        return certificate, self.write(f"{name}.client.pem", private + chain)

    def revoke(self, name: str, *certificates: x509.Certificate) -> str:
        """Return the path of a revocation list with C{certificates}."""
        now = datetime.now(timezone.utc)
        builder = x509.CertificateRevocationListBuilder(self.subject, now - DAY, now + DAY)
        for each in certificates:
            revoked = x509.RevokedCertificateBuilder(each.serial_number, now - DAY).build()
            builder = builder.add_revoked_certificate(revoked)
        return self.write(name, builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM))


def clientContext(chain: str | None = None, version: str = "", alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """
    Return a TLS client that trusts every server. It presents the certificate in the file C{chain}, if there is one.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if chain is not None:
        context.load_cert_chain(chain)
    if version:
        context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context
