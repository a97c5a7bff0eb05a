# -*- test-case-name: mailgate.test.integration -*-
"""
A certificate authority of the tests, and its certificates.
"""

from __future__ import annotations

import datetime
import ipaddress
import os

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "Pair"]


@frozen
class Pair:
    """The paths of a certificate and its key, both PEM."""

    certificate: str
    key: str


_SIGNING = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _unsigned(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, age: datetime.timedelta = datetime.timedelta()
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc) - age
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
    )


class Authority:
    """
    An authority with the name C{name}. Its certificate is in the file C{path} in C{folder}.

    It issues certificates for localhost and 127.0.0.1, which are valid for a month.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.folder = folder
        self.name = name
        self.path = os.path.join(folder, f"{name}.pem")
        self._key = ec.generate_private_key(ec.SECP256R1())
        unsigned = (
            _unsigned(name, name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), False)
            .add_extension(_SIGNING, True)
        )
        self._write(self.path, unsigned.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        with open(path, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)

    def sign(
        self,
        name: str,
        purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
        *,
        isExpired: bool = False,
        isSelfSigned: bool = False,
    ) -> Pair:
        """
        Make a key and a certificate, for a server unless C{purpose} says otherwise, in files that begin with C{name}.

        @param isExpired: whether it has expired.
        @param isSelfSigned: whether its own key signs it, instead of the authority's.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        signing = key if isSelfSigned else self._key
        issuer = "localhost" if isSelfSigned else self.name
        age = datetime.timedelta(days=60 if isExpired else 0)
        alternatives = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        usage = x509.ExtendedKeyUsage([purpose])
        signed = (
            _unsigned("localhost", issuer, key, age)
            .add_extension(alternatives, False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .add_extension(usage, False)
            # Without it Python 3.13, which verifies strictly, refuses the certificate.
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), False)
            .sign(signing, hashes.SHA256())
        )
        pair = Pair(os.path.join(self.folder, f"{name}.crt"), os.path.join(self.folder, f"{name}.key"))
        self._write(pair.certificate, signed.public_bytes(serialization.Encoding.PEM))
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        self._write(pair.key, key.private_bytes(pem, pkcs8, serialization.NoEncryption()), 0o600)
        return pair
