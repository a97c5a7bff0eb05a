"""
Tests of services over TLS.
"""

from __future__ import annotations

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import TestCase

from mailgate.auth.http.authenticator import KIND
from mailgate.lean.reactor import LeanReactor
from mailgate.log.journal import Journal
from mailgate.test.support.httpauthenticator import ACCEPTED, REQUEST, ROUTE, UNDECIDED
from mailgate.test.support.httpsettings import server, settings


def certificate(names, issuer=None):
    """Return a certificate for C{names} and its key. C{issuer} signs it; otherwise it is a self-signed CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test" if issuer else "test CA")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


class RecordingServer(Protocol):
    """A server that accepts every login and records what it receives."""

    def dataReceived(self, data):
        self.factory.received += data
        if self.factory.received.endswith(b"\r\n\r\n"):
            self.transport.write("\r\n".join(["HTTP/1.1 200 OK", *ACCEPTED, "Content-Length: 0", "", ""]).encode())

    def connectionLost(self, reason):
        self.factory.ended.callback(None)


class PlainServer(Protocol):
    """A server that answers TLS in plain text, as web servers do."""

    def dataReceived(self, data):
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.transport.loseConnection()


class TLSTests(TestCase):
    """The authenticator over real TLS."""

    def connecting(self, reactor):
        """Return the reactor that connects to the service."""
        return reactor

    def setUp(self):
        self.authority = certificate(None)
        self.trusted = self.mktemp()
        with open(self.trusted, "wb") as opened:
            opened.write(self.authority[0].public_bytes(Encoding.PEM))
        self.events = []

    @inlineCallbacks
    def ask(self, names, **others):
        """Return the answer of a server whose certificate is for C{names}, and its factory."""
        from twisted.internet import reactor

        leaf, key = certificate(names, self.authority)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + leaf.public_bytes(Encoding.PEM)
        factory = Factory.forProtocol(RecordingServer)
        factory.received, factory.ended = b"", Deferred()
        port = reactor.listenSSL(0, factory, PrivateCertificate.loadPEM(pem).options(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        group = settings(f"https://127.0.0.1:{port.getHost().port}/auth", timeout=10.0, **others)
        authenticator = KIND.build(
            server(group), None, self.connecting(reactor), Journal(LogLevel.error, self.events.append)
        )
        answer = yield authenticator.authenticate(REQUEST)
        authenticator.close()
        yield factory.ended
        return answer, factory

    @inlineCallbacks
    def test_verified(self):
        """A certificate of a trusted CA with the right name is accepted."""
        names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        answer, factory = yield self.ask(names, trusted=self.trusted)
        self.assertEqual(answer, ROUTE)
        self.assertIn(b"Auth-Pass: sesame\r\n", factory.received)

    @inlineCallbacks
    def assertNotAsked(self, names, **others):
        """Check that an untrusted server receives nothing, and that the log reports a failed handshake."""
        answer, factory = yield self.ask(names, **others)
        self.assertEqual(answer, UNDECIDED)
        self.assertEqual(factory.received, b"")
        outage, event = self.events
        self.assertIn("/auth is down: it failed while performing the TLS handshake: ", formatEvent(outage))
        self.assertIn("/auth failed while performing the TLS handshake: ", formatEvent(event))
        self.assertNotIn("sesame", formatEvent(event) + formatEvent(outage))

    @inlineCallbacks
    def test_wrongName(self):
        """A certificate with another name is rejected, and the log shows that name."""
        yield self.assertNotAsked([x509.DNSName("other.example")], trusted=self.trusted)
        told = 'its certificate is not valid for "127.0.0.1", only for "other.example" (IP address mismatch); '
        self.assertIn(f"while performing the TLS handshake: {told}", formatEvent(self.events[0]))

    @inlineCallbacks
    def test_unknownAuthority(self):
        """A certificate of an unknown CA is rejected. The log names the CA and the directive to trust it."""
        yield self.assertNotAsked([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        told = (
            r'its certificate is issued by "CN=[^"]+", an unknown CA; add the CA certificate to auth_http_ssl_trusted'
        )
        self.assertRegex(formatEvent(self.events[0]), f"while performing the TLS handshake: {told}")

    @inlineCallbacks
    def test_noTLS(self):
        """A service without TLS is reported differently from a bad certificate."""
        from twisted.internet import reactor

        port = reactor.listenTCP(0, Factory.forProtocol(PlainServer), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        group = settings(f"https://127.0.0.1:{port.getHost().port}/auth", timeout=10.0)
        journal = Journal(LogLevel.error, self.events.append)
        authenticator = KIND.build(server(group), None, self.connecting(reactor), journal)
        self.assertEqual((yield authenticator.authenticate(REQUEST)), UNDECIDED)
        authenticator.close()
        told = "wrong version number: this port does not speak TLS; perhaps the URL needs http: instead of https:"
        self.assertIn(f"while performing the TLS handshake: {told}", formatEvent(self.events[0]))

    @inlineCallbacks
    def test_unverified(self):
        """With auth_http_ssl_verify off any certificate is accepted."""
        answer, _ = yield self.ask([x509.DNSName("other.example")], verify=False)
        self.assertEqual(answer, ROUTE)


class LeanTLSTests(TLSTests):
    """The same over mailgate's transports."""

    def connecting(self, reactor):
        return LeanReactor(reactor)
