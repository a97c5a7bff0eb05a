# -*- test-case-name: mailgate.test.test_login -*-
"""
The client of a connection: its address, and what its TLS negotiated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attrs import define, field, frozen

__all__ = ["Client", "ClientCertificate", "Findings", "ProxiedAddresses", "TLSDetails", "TLSState"]


@frozen
class TLSState:
    """
    What a TLS handshake negotiated.

    @ivar protocol: OpenSSL's name of the version, such as C{TLSv1.3}.
    @ivar cipher: OpenSSL's name of the cipher suite, such as C{TLS_AES_256_GCM_SHA384}.
    @ivar name: the host name that the client asked for (SNI). Empty without SNI.
    """

    protocol: str
    cipher: str
    name: str = ""


@frozen
class ClientCertificate:
    """
    The certificate that a client presented. The text forms are those of nginx's C{Auth-SSL-…} headers.

    @ivar subject: the distinguished name by RFC 2253. Empty, as are C{issuer} and C{commonName}, if a name of the
        certificate is malformed.
    @ivar issuer: the issuer's distinguished name by RFC 2253.
    @ivar serial: the serial number in upper-case hexadecimal, two digits for each byte.
    @ivar fingerprint: the SHA-1 fingerprint in lower-case hexadecimal, without colons.
    @ivar commonName: the common name of the subject. Empty if it has none.
    @ivar pem: the certificate in PEM, as bytes.
    """

    subject: str
    issuer: str
    serial: str
    fingerprint: str
    commonName: str
    pem: bytes = field(repr=False)


@frozen
class TLSDetails:
    """
    More about the TLS of one client's connection.

    @ivar serverName: the host name that the client asked for (SNI). Empty without SNI.
    @ivar alpn: the protocol that ALPN negotiated. Empty without ALPN.
    @ivar verification: the value of nginx's C{Auth-SSL-Verify}: C{NONE}, C{SUCCESS} or C{FAILED:reason}. Empty if the
        server requests no certificates (C{ssl_verify_client = off}).
    @ivar verifyCode: OpenSSL's verification result, 0 for success (C{X509_V_…} of openssl-verification-options(1)).
    @ivar certificate: the client's certificate, or L{None} if it presented none.
    @ivar signature: the digest that signs the gateway's own certificate, as in TLVs of the PROXY protocol: C{SHA256}.
    @ivar key: algorithm and size of the key of the gateway's own certificate, as in these TLVs: C{RSA2048}.
    """

    serverName: str = ""
    alpn: str = ""
    verification: str = ""
    verifyCode: int = 0
    certificate: ClientCertificate | None = None
    signature: str = ""
    key: str = ""


@frozen
class ProxiedAddresses:
    """
    Both ends of a connection, as a PROXY header names them.

    @ivar source: the client's address, without brackets.
    @ivar sourcePort: the client's port.
    @ivar destination: the address that the client connected to, without brackets.
    @ivar destinationPort: the port that the client connected to.
    """

    source: str
    sourcePort: int
    destination: str
    destinationPort: int


class Findings(Protocol):
    """
    Looks up what a L{Client} does not know yet, as it costs a system call or work in OpenSSL. The methods raise nothing
    if the connection is closed: they return "not known".
    """

    def local(self) -> tuple[str, int]:
        """Return the address and the port that the client connected to; C{("", 0)} if they are not known."""

    def details(self) -> TLSDetails | None:
        """Return the details of the client's TLS; L{None} if they are not known."""


class _Found:
    """Looks up an attribute of L{Client} that is not set when it is first read, and sets it."""

    __slots__ = ("_findings",)

    _findings: Findings

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name in ("local", "localPort"):
                found = dict(zip(("local", "localPort"), self._findings.local(), strict=True))
            elif name == "details":
                found = {name: self._findings.details()}
            else:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            for attribute, value in found.items():
                setattr(self, attribute, value)
            return found[name]


@define(unsafe_hash=True)
class Client(_Found):
    """
    The client of a connection. It is a value: nothing changes it. (To enforce that, attrs needs twice the time to make
    it.)

    In a client that the gateway made, C{local}, C{localPort} and C{details} are looked up when they are first read, and
    do not change then. Read them in the reactor's thread, before you answer the login. Once the dialogue has ended or
    has handed its connection to the relay, attributes that were never read are "not known".

    @ivar host: its address without brackets, or C{unix:} for a unix socket. With C{set_real_ip_from} it is the address
        from the PROXY header.
    @ivar port: its port; 0 for a unix socket.
    @ivar tls: what the handshake negotiated; L{None} without TLS.
    @ivar name: its host name, as in nginx's C{Client-Host} header and in XCLIENT's C{NAME}; C{[UNAVAILABLE]} if it has
        no confirmed name, C{[TEMPUNAVAIL]} if the lookup failed for now. Only SMTP with C{resolver} looks it up.
    @ivar proxied: the addresses from the PROXY header; L{None} without a header, or if the header had no addresses.
    @ivar local: the address that it connected to, in the form of C{host}; empty if not known.
    @ivar localPort: the port that it connected to; 0 for a unix socket, or if not known.
    @ivar session: the id of its connection, the C{id} of L{mailgate.session.Session}; may be empty.
    @ivar details: more about its TLS; L{None} without TLS, or if not known.
    @ivar server: the address of the listener, the C{server} of L{mailgate.session.Session}; may be empty.
    """

    host: str
    port: int = 0
    tls: TLSState | None = None
    name: str = "[UNAVAILABLE]"
    proxied: ProxiedAddresses | None = None
    local: str = ""
    localPort: int = 0
    session: str = ""
    details: TLSDetails | None = None
    server: str = ""

    def lookUpLater(self, findings: Findings, local: bool, details: bool) -> None:
        """
        Look up attributes when they are first read. Call this at once after the constructor.

        @param findings: looks them up.
        @param local: whether C{local} and C{localPort} are not known.
        @param details: whether C{details} are not known.
        """
        self._findings = findings  # type: ignore[misc]
        if local:
            del self.local, self.localPort
        if details:
            del self.details

    @property
    def knownLocal(self) -> tuple[str, int]:
        """C{local} and C{localPort} if they are already known; otherwise C{("", 0)}. It looks nothing up."""
        try:
            return object.__getattribute__(self, "local"), object.__getattribute__(self, "localPort")
        except AttributeError:
            return "", 0
