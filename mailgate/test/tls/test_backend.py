"""Tests for L{mailgate.tls.backend} and L{mailgate.tls.errors}: why the certificate of a backend is refused."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.memoryauthority import DAY, Authority
from mailgate.tls.backend import backendTLS
from mailgate.tls.engine import PublicEngine
from mailgate.tls.errors import CertificateError, clientTrouble, openSSLReason, serverTrouble
from mailgate.tls.makeengine import makeEngine

HOST = "mail.example.com"
OPTION = "proxy_ssl_trusted_certificate"


class SentenceTests(SynchronousTestCase):
    """The reasons of L{backendTLS}, with both kinds of engine."""

    def setUp(self) -> None:
        self.authority = Authority("The authority")
        self.key = ec.generate_private_key(ec.SECP256R1())

    def leaf(self, *names: str, issuer: Authority | None = None, **changes: Any) -> x509.Certificate:
        """A backend's certificate."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "backend")])
        return (issuer or self.authority).issue(subject, self.key, names or (HOST,), **changes)

    def trouble(self, *chain: x509.Certificate, host: str = HOST, trust: Any = None, option: str = OPTION) -> str:
        """The text of the error that a backend with this C{chain} causes. Both engines report the same."""
        texts = {self._trouble(kind, chain, host, trust, option) for kind in (None, PublicEngine)}
        (text,) = texts
        return text

    def _trouble(self, kind: Any, chain: Any, host: str, trust: Any, option: str) -> str:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate(crypto.X509.from_cryptography(chain[0]))
        context.use_privatekey(crypto.PKey.from_cryptography_key(self.key))
        for each in chain[1:]:
            context.add_extra_chain_cert(crypto.X509.from_cryptography(each))
        server = SSL.Connection(context, None)
        server.set_accept_state()
        peer = PublicEngine(server)
        engine = makeEngine(backendTLS(host, True, trust or self.authority.trust, option), False, kind)
        with self.assertRaises(CertificateError) as caught:
            for _ in range(5):
                engine.handshake()
                peer.feed(bytes(engine.output()))
                peer.handshake()
                engine.feed(bytes(peer.output()))
        self.assertFalse(engine.handshaken)
        # The backend receives an alert.
        self.assertEqual(bytes(engine.output())[:1], b"\x15")
        return str(caught.exception)

    def test_untrusted(self) -> None:
        """The reason names an unknown CA, and the option that should have it."""
        other = Authority("Another authority")
        start = 'its certificate is issued by "CN=Another authority", an unknown CA; add the CA certificate to '
        for option in (OPTION, "auth_http_ssl_trusted_certificate"):
            told = self.trouble(self.leaf(issuer=other), option=option)
            mend = "or have the peer send its complete chain (unable to get local issuer certificate)"
            self.assertEqual(told, f"{start}{option}, {mend}")

    def test_untrustedRoot(self) -> None:
        """The reason names an untrusted root that the backend sends."""
        other = Authority("Another authority")
        told = self.trouble(self.leaf(issuer=other), other.certificate)
        start = 'its certificate chain ends at "CN=Another authority", an untrusted root; add that certificate to '
        self.assertEqual(told, f"{start}{OPTION} (self-signed certificate in certificate chain)")

    def test_selfSigned(self) -> None:
        """A self-signed certificate is reported as such."""
        own = Authority("backend")
        self.key = own.key
        told = self.trouble(own.certificate)
        start = "its certificate is self-signed and not trusted; if it is the right certificate, add it to "
        self.assertEqual(told, f"{start}{OPTION} (self-signed certificate)")

    def test_missingIntermediate(self) -> None:
        """If the chain lacks an intermediate certificate, the reason names it."""
        between = Authority("Between", self.authority)
        told = self.trouble(self.leaf(issuer=between))
        self.assertIn('its certificate is issued by "CN=Between", an unknown CA; ', told)
        self.assertIn("or have the peer send its complete chain", told)

    def test_expired(self) -> None:
        """The reason says when a certificate expired, the backend's own or a CA's."""
        until = datetime(2024, 2, 29, 12, 30, tzinfo=timezone.utc)
        since = until - DAY
        told = self.trouble(self.leaf(since=since, until=until))
        self.assertEqual(told, "its certificate has expired (valid until 2024-02-29 12:30 UTC); renew it")
        between = Authority("Between", self.authority, since=since, until=until)
        told = self.trouble(self.leaf(issuer=between), between.certificate)
        start = 'the CA certificate "CN=Between" in its chain'
        self.assertEqual(told, f"{start} has expired (valid until 2024-02-29 12:30 UTC); renew it")

    def test_notYet(self) -> None:
        """The reason says when a certificate becomes valid."""
        since = datetime(2049, 1, 2, 3, 4, tzinfo=timezone.utc)
        told = self.trouble(self.leaf(since=since, until=since + DAY))
        mend = "replace it, or correct the system clock"
        self.assertEqual(told, f"its certificate is not yet valid (valid from 2049-01-02 03:04 UTC); {mend}")

    def test_otherName(self) -> None:
        """The reason quotes the requested name and the names in the certificate, at most three of them."""
        mend = "connect by a name in the certificate, or replace the certificate"
        for names, shown in (
            (("a.example",), '"a.example"'),
            (("a.example", "192.0.2.1"), '"a.example", "192.0.2.1"'),
            (tuple(f"{each}.example" for each in "abcde"), '"a.example", "b.example", "c.example" and 2 more'),
        ):
            for host, mismatch in ((HOST, "hostname mismatch"), ("192.0.2.9", "IP address mismatch")):
                told = self.trouble(self.leaf(*names), host=host)
                start = f'its certificate is not valid for "{host}", only for '
                self.assertEqual(told, f"{start}{shown} ({mismatch}); {mend}")

    def test_noName(self) -> None:
        """A certificate without a subjectAltName is reported as such."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
        told = self.trouble(self.authority.issue(subject, self.key))
        start = "its certificate has no host name in subjectAltName"
        self.assertEqual(told, f'{start}, and is not valid for "{HOST}" (hostname mismatch)')

    def test_hostile(self) -> None:
        """No content of a certificate breaks the line or ends a quotation."""
        told = self.trouble(self.leaf('a"\nb\x1b', "c" * 3000))
        self.assertIn(r'only for "a\"\nb\x1b", "' + "c" * 256 + '..." (', told)
        hostile = Authority('evil", outcome relayed\n')
        told = self.trouble(self.leaf(issuer=hostile))
        self.assertTrue(told.isprintable(), told)
        self.assertNotIn('evil", outcome', told)

    def test_others(self) -> None:
        """All other errors are reported in OpenSSL's words."""
        useless = Authority("Useless", self.authority)
        useless.certificate = self.authority.issue(useless.name, useless.key)
        told = self.trouble(self.leaf(issuer=useless), useless.certificate)
        self.assertRegex(told, r'\Athe CA certificate "CN=Useless" in its chain failed the verification: \w')


class TroubleTests(SynchronousTestCase):
    """L{serverTrouble} and L{clientTrouble}."""

    def error(self, *reasons: str) -> SSL.Error:
        """An error of pyOpenSSL's."""
        return SSL.Error([("SSL routines", "", reason) for reason in reasons])

    def test_servers(self) -> None:
        """A backend's error is a clause of OpenSSL's reason and an explanation."""
        for error, told in (
            (self.error("wrong version number"), "wrong version number: the peer does not speak TLS"),
            (
                self.error("tlsv1 alert protocol version"),
                "tlsv1 alert protocol version: the peer supports no version of TLS that the gateway accepts, which are"
                " TLS 1.2 and later",
            ),
            (self.error("an unknown one"), "an unknown one"),
            (CertificateError("its certificate is odd"), "its certificate is odd"),
            (ConnectionDone(), "the peer closed the connection"),
            (ConnectionLost("[Errno 104] Connection reset by peer"), "the peer closed the connection"),
            (SSL.SysCallError(-1, "Unexpected EOF"), "the peer closed the connection"),
            (self.error("unexpected eof while reading"), "the peer closed the connection"),
            (SSL.Error([]), "the peer closed the connection"),
        ):
            self.assertEqual(serverTrouble(error), told)
        self.assertEqual(serverTrouble(self.error("wrong version number"), "try"), "wrong version number: try")

    def test_alerts(self) -> None:
        """Alerts are explained by the names of OpenSSL 3 and of OpenSSL 4."""
        meaning = "the client rejects the server certificate; check its host names, its dates and its issuer"
        for version in ("sslv3", "ssl/tls", "tls"):
            reason = f"{version} alert bad certificate"
            self.assertEqual(clientTrouble(self.error(reason)), f"{reason}: {meaning}")

    def test_reason(self) -> None:
        """The innermost specific reason is reported."""
        for reasons, told in (
            (("no start line", "PEM lib"), "no start line"),
            (("PEM lib",), "PEM lib"),
            (("data length too long", "record layer failure"), "data length too long"),
            (("first", "second"), "second"),
        ):
            self.assertEqual(openSSLReason(self.error(*reasons)), told)
        self.assertEqual(openSSLReason(SSL.SysCallError(-1, "Unexpected EOF")), "(-1, 'Unexpected EOF')")
        self.assertEqual(openSSLReason(SSL.Error()), "Error")

    def test_internal(self) -> None:
        """An exception of our own is not reported as the client's."""
        self.assertEqual(clientTrouble(ValueError("secret")), "internal error: ValueError")
