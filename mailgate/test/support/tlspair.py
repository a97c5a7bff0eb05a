"""
Certificates with their keys, TLS settings with them, and the standard library's end of a connection, for tests.
"""

from __future__ import annotations

import os
import ssl
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from mailgate.tls.files import sources
from mailgate.tls.server import ServerTLS
from mailgate.tls.settings import TLSSettings

__all__ = ["NAMES", "Pair", "Peer", "clientContext", "connect", "inline", "makePair", "settingsFor", "write"]

NAMES = ("localhost", "127.0.0.1")


@frozen
class Pair:
    """The paths of a self-signed certificate and its key."""

    certificate: str
    key: str


def makePair(folder: str, name: str, *hosts: str, kind: str = "ec", passPhrase: bytes | None = None) -> Pair:
    """
    Write a pair of files to C{folder}: a certificate for C{hosts}, valid for a month, with the subject C{name}, and its
    key. C{kind} is C{ec} or C{rsa}. With a C{passPhrase} the key is encrypted.
    """
    key: Any = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
    now = datetime.now(timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    alternatives = [
        x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts or NAMES
    ]
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(alternatives), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    encryption: KeySerializationEncryption = NoEncryption()
    if passPhrase is not None:
        encryption = BestAvailableEncryption(passPhrase)
    pair = Pair(os.path.join(folder, f"{name}.crt"), os.path.join(folder, f"{name}.key"))
    write(pair.certificate, certificate.public_bytes(Encoding.PEM))
    write(pair.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return pair


def write(path: str, content: bytes) -> str:
    """Write C{content} to a file and return C{path}."""
    with open(path, "wb") as stream:
        stream.write(content)
    return path


def settingsFor(*pairs: Pair, **changes: Any) -> TLSSettings:
    """Return settings for TLS 1.2 and 1.3 with C{pairs}."""
    changes.setdefault("protocols", ("TLSv1.2", "TLSv1.3"))
    return TLSSettings(
        certificates=tuple(pair.certificate for pair in pairs), keys=tuple(pair.key for pair in pairs), **changes
    )


def inline(*files: str) -> str:
    """Return the C{data:} source that replaces C{files} in a directive."""
    content = b""
    for name in files:
        with open(name, "rb") as stream:
            content += stream.read()
    (source,) = sources("data:" + content.decode("ascii").replace("\n", "\\n"), "")
    return source


class Peer:
    """The standard library's end of a TLS connection to a L{SSL.Connection}."""

    def __init__(
        self, context: ssl.SSLContext, server: bool = False, session: Any = None, name: str | None = None
    ) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server, name, session)

    def shakeHands(self, connection: SSL.Connection) -> None:
        """
        Complete the handshake and send a byte.

        @raise ssl.SSLError: this end rejects the handshake.
        @raise SSL.Error: C{connection} rejects the handshake.
        """
        steps: list[Any] = [self.tls.do_handshake, connection.do_handshake]
        for _ in range(10):
            for step in steps:
                try:
                    step()
                except (ssl.SSLWantReadError, SSL.WantReadError):
                    pass
                finally:
                    self._carry(connection)
        connection.send(b"x")
        self._carry(connection)
        # With TLS 1.3, this also reads the session ticket.
        assert self.tls.read(1) == b"x"

    @property
    def cipher(self) -> str:
        """The negotiated cipher."""
        negotiated: Any = self.tls.cipher()
        return str(negotiated[0])

    def _carry(self, connection: SSL.Connection) -> None:
        sent = self._outgoing.read()
        if sent:
            connection.bio_write(sent)
        try:
            while True:
                self._incoming.write(connection.bio_read(65536))
        except SSL.WantReadError:
            return


def clientContext(version: str = "", ciphers: str = "") -> ssl.SSLContext:
    """Return a client that trusts every server. It uses only the TLS version C{version} if one is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version:
        context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    if ciphers:
        context.set_ciphers(ciphers)
    return context


def connect(server: ServerTLS, context: ssl.SSLContext | None = None, session: Any = None) -> tuple[Peer, Any]:
    """Connect a client to C{server}, and return both ends."""
    connection = server.serverConnectionForTLS(None)
    connection.set_accept_state()
    peer = Peer(context or clientContext(), session=session)
    peer.shakeHands(connection)
    return peer, connection
