"""
Tests for L{mailgate.tls.backendcontexts}: TLS towards backends by C{proxy_ssl_…}.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import tempfile
from base64 import b64encode
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.login import Backend, TLSOptions
from mailgate.test.support.memoryauthority import DAY, NOW, Authority
from mailgate.test.support.tlspair import write
from mailgate.tls.backend import Judge, identityOf
from mailgate.tls.backendcontexts import BackendContexts, DecidedContexts, IBackendContexts
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.tls.engine import PublicEngine
from mailgate.tls.errors import CertificateError
from mailgate.tls.makeengine import makeEngine


def isResumed(connection: Any) -> bool:
    """Whether C{connection} goes on with an earlier session, for which pyOpenSSL has no public call."""
    from OpenSSL._util import lib

    return bool(lib.SSL_session_reused(connection._ssl))


class Server:
    """A backend with a certificate, whose handshakes the test plays."""

    def __init__(self, certificate: x509.Certificate, key: Any, wantsCertificate: bool = False) -> None:
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self.context.use_certificate(certificate)
        self.context.use_privatekey(key)
        self.context.set_session_id(b"test")
        self.context.set_alpn_select_callback(self._select)
        if wantsCertificate:
            self.context.set_verify(SSL.VERIFY_PEER, lambda *facts: True)
        self.offered: list[list[bytes]] = []
        self.hasCertificate: bool | None = None

    def _select(self, connection: SSL.Connection, offered: list[bytes]) -> bytes:
        self.offered.append(offered)
        return offered[0]

    def shakeHands(self, contexts: IBackendContexts, backend: Backend) -> SSL.Connection:
        """
        A connection to C{backend} that is this one.

        @return: its end at the server.
        @raise CertificateError: the client refuses it.
        """
        creator = contexts.creatorFor(backend)
        verifyObject(IOpenSSLClientConnectionCreator, creator)
        client = makeEngine(creator, False)
        connection = SSL.Connection(self.context, None)
        connection.set_accept_state()
        server = PublicEngine(connection)
        for _ in range(3):
            client.handshake()
            server.feed(bytes(client.output()))
            server.handshake()
            client.feed(bytes(server.output()))
        assert client.handshaken and server.handshaken
        server.write(b"* OK ready\r\n")
        client.feed(bytes(server.output()))
        assert bytes(client.read() or b"") == b"* OK ready\r\n"
        self.hasCertificate = creator.hasCertificate
        creator.loggedIn()
        # OpenSSL resumes no session of a connection that ended without it.
        client.closeNotify()
        return connection


class ContextsTests(SynchronousTestCase):
    """Backends with good and bad certificates."""

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.authority = Authority("The authority")
        self.roots = self.pem("roots.pem", self.authority.certificate)
        self.key = ec.generate_private_key(ec.SECP256R1())

    def pem(self, name: str, *certificates: x509.Certificate) -> str:
        content = b"".join(each.public_bytes(Encoding.PEM) for each in certificates)
        return write(os.path.join(self.folder, name), content)

    def certificate(self, *names: str, authority: Authority | None = None, **changes: Any) -> x509.Certificate:
        issuer = authority or self.authority
        return issuer.issue(x509.Name([]), self.key, names, **changes)

    def connect(self, certificate: x509.Certificate, host: str = "mail.test", name: str = "", **settings: Any) -> Any:
        settings.setdefault("trusted", self.roots)
        contexts = BackendContexts(BackendTLSSettings(mode="on", **settings), "imap")
        self.server = Server(certificate, self.key)
        return self.server.shakeHands(contexts, Backend(host, 993, name=name))

    def refused(self, certificate: x509.Certificate, host: str = "mail.test", **settings: Any) -> str:
        return str(self.assertRaises(CertificateError, self.connect, certificate, host, **settings))

    def test_good(self) -> None:
        """A certificate that is trusted and good for the host is taken; the host is asked for by SNI."""
        connection = self.connect(self.certificate("mail.test"))
        self.assertEqual(connection.get_servername(), b"mail.test")
        self.assertEqual(self.connect(self.certificate("192.0.2.1"), "192.0.2.1").get_servername(), None)

    def test_names(self) -> None:
        """The backend's own name goes before proxy_ssl_name, and that before the host."""
        for name, given, expected in (("own.test", "given.test", "own.test"), ("", "given.test", "given.test")):
            settings = BackendTLSSettings(mode="on", trusted=self.roots, name=given)
            server = Server(self.certificate(expected), self.key)
            connection = server.shakeHands(BackendContexts(settings), Backend("192.0.2.1", 993, name=name))
            self.assertEqual(connection.get_servername(), expected.encode())

    def test_noServerName(self) -> None:
        """Without proxy_ssl_server_name no name is sent, and the certificate must be good for it all the same."""
        connection = self.connect(self.certificate("mail.test"), sendsName=False)
        self.assertIsNone(connection.get_servername())
        self.assertIn("is not valid for", self.refused(self.certificate("other.test"), sendsName=False))

    def test_bad(self) -> None:
        """What is wrong is said in a sentence with the word certificate."""
        stranger = Authority("A stranger")
        for certificate, expected in (
            (self.certificate("mail.test", until=NOW - DAY / 2), "has expired"),
            (self.certificate("mail.test", since=NOW + DAY), "is not yet valid"),
            (self.certificate("other.test"), 'only for "other.test"'),
            (self.certificate("192.0.2.1"), "is not valid for"),
            (self.certificate("mail.test", authority=stranger), "an unknown CA"),
            (self.certificate(), "no host name"),
        ):
            reason = self.refused(certificate)
            self.assertIn(expected, reason)
            self.assertIn("certificate", reason)
        own = Authority("mail.test")
        self.key = own.key
        self.assertIn("self-signed", self.refused(own.certificate))

    def test_address(self) -> None:
        """A host that is an address needs a certificate for the address."""
        self.assertIn("is not valid for", self.refused(self.certificate("mail.test"), "192.0.2.1"))

    def test_unverified(self) -> None:
        """proxy_ssl_verify = off takes any certificate; the backend's own word can switch it off as well."""
        self.connect(self.certificate("other.test"), verify=False)
        contexts = BackendContexts(BackendTLSSettings(mode="on", trusted=self.roots))
        server = Server(self.certificate("other.test"), self.key)
        server.shakeHands(contexts, Backend("mail.test", 993, verify=False))
        self.assertRaises(CertificateError, server.shakeHands, contexts, Backend("mail.test", 993))

    def test_revoked(self) -> None:
        """A certificate on the list of proxy_ssl_crl is refused."""
        from cryptography.hazmat.primitives import hashes

        bad, good = self.certificate("mail.test"), self.certificate("mail.test")
        entry = x509.RevokedCertificateBuilder(bad.serial_number, NOW - DAY).build()
        crl = x509.CertificateRevocationListBuilder(
            self.authority.name, NOW - DAY, NOW + DAY, revoked_certificates=[entry]
        )
        signed = crl.sign(self.authority.key, hashes.SHA256())
        path = write(os.path.join(self.folder, "crl.pem"), signed.public_bytes(Encoding.PEM))
        self.assertIn("revoked", self.refused(bad, revoked=path))
        self.connect(good, revoked=path)

    def test_depth(self) -> None:
        """A chain that is longer than proxy_ssl_verify_depth is refused."""
        between = Authority("Between", self.authority)
        certificate = self.certificate("mail.test", authority=between)
        settings = {"trusted": self.pem("both.pem", self.authority.certificate, between.certificate)}
        self.connect(certificate, **settings)
        self.assertIn("certificate", self.refused(certificate, verifyDepth=0, **settings))

    def pins(self, certificate: x509.Certificate) -> tuple[str, str]:
        """The pins of the key and of the whole C{certificate}, as they are written."""
        info = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        whole = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
        return "sha256//" + b64encode(hashlib.sha256(info).digest()).decode(), whole

    def pinned(self, written: str) -> tuple[str, ...]:
        text = "[server x]\nprotocol = imap\nlisten = 127.0.0.1:1\nproxy_pass = a:1\nproxy_ssl = on\nproxy_ssl_pin = "
        return parse(text + written).servers[0][BackendTLSSettings].pins

    def test_pins(self) -> None:
        """One of the pins must match, beside all else; without verification the pin alone decides."""
        certificate = self.certificate("mail.test")
        other = "sha256//" + b64encode(bytes(32)).decode()
        for pin in self.pins(certificate):
            pins = self.pinned(f"{other} {pin}")
            self.assertEqual(len(pins), 2)
            self.connect(certificate, pins=pins)
            self.connect(certificate, "elsewhere.test", pins=pins, verify=False)
            self.assertIn("is not valid for", self.refused(certificate, "elsewhere.test", pins=pins))
        for verify in (True, False):
            self.assertIn("match no proxy_ssl_pin", self.refused(certificate, pins=self.pinned(other), verify=verify))

    def test_pinUnreadable(self) -> None:
        """A certificate that cannot be parsed matches no pin, and is refused in a sentence."""

        class Unreadable:
            def to_cryptography(self) -> Any:
                raise ValueError("no")

        anything: Any = Unreadable()
        judge = Judge("x", verify=False)
        connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        judge.expect(connection, identityOf("mail.test", False), ("key:00",))
        error = self.assertRaises(CertificateError, judge, connection, anything, 0, 0, 1)
        self.assertIn("match no proxy_ssl_pin", str(error))

    def test_pinGrammar(self) -> None:
        """A pin of another form stops the start."""
        for pin in ("sha256//AAAA", "ab" * 31, "sha1//" + "A" * 27, "x"):
            self.assertRaises(ConfigurationError, self.pinned, pin)
        self.assertEqual(self.pinned(":".join(["AB"] * 32)), self.pinned("ab" * 32))

    def test_resumed(self) -> None:
        """The second connection to a backend resumes the session of the first; one of another name does not."""
        contexts = BackendContexts(BackendTLSSettings(mode="on", trusted=self.roots))
        server = Server(self.certificate("mail.test", "other.test"), self.key)
        for host, expected in (("mail.test", False), ("mail.test", True), ("mail.test", True), ("other.test", False)):
            self.assertEqual(isResumed(server.shakeHands(contexts, Backend(host, 993))), expected)
            self.assertTrue(server.hasCertificate)

    def test_notResumed(self) -> None:
        """Without proxy_ssl_session_reuse each handshake is a full one; so is one whose backend is not verified."""
        contexts = BackendContexts(BackendTLSSettings(mode="on", trusted=self.roots, reusesSessions=False))
        server = Server(self.certificate("mail.test"), self.key)
        for _ in range(2):
            self.assertFalse(isResumed(server.shakeHands(contexts, Backend("mail.test", 993))))
        contexts = BackendContexts(BackendTLSSettings(mode="on", trusted=self.roots))
        for verify in (False, True):
            self.assertFalse(isResumed(server.shakeHands(contexts, Backend("mail.test", 993, verify=verify))))

    def decided(self, **options: Any) -> DecidedContexts:
        """Contexts whose directives verify, as a login with these options uses them."""
        return DecidedContexts(self.shared, TLSOptions(**options))

    def test_decided(self) -> None:
        """Each login has its own pins, name and verification, over one set of contexts."""
        self.shared = BackendContexts(BackendTLSSettings(mode="on", trusted=self.roots))
        good, foreign = self.certificate("mail.test"), self.certificate("other.test", authority=Authority("Foreign"))
        key, whole = self.pinned(" ".join(self.pins(good)))
        (wrong,) = self.pinned("ab" * 32)
        backend = Backend("mail.test", 993)
        server, stranger = Server(good, self.key), Server(foreign, self.key)
        for _ in range(2):
            server.shakeHands(self.shared, backend)
            server.shakeHands(self.decided(pins=(key,)), backend)
            server.shakeHands(self.decided(pins=(wrong, whole), verify=False, name="elsewhere.test"), backend)
            stranger.shakeHands(self.decided(verify=False), backend)
            for options, refusal in (
                ({"pins": (wrong,)}, "match no proxy_ssl_pin"),
                ({"pins": (wrong,), "verify": False}, "match no proxy_ssl_pin"),
                ({"name": "elsewhere.test"}, "is not valid for"),
                ({"pins": (whole,), "name": "elsewhere.test"}, "is not valid for"),
            ):
                error = self.assertRaises(CertificateError, server.shakeHands, self.decided(**options), backend)
                self.assertIn(refusal, str(error))
        self.assertRaises(CertificateError, stranger.shakeHands, self.shared, backend)
        self.assertLessEqual(len(self.shared._contexts), 3)

    def test_decidedVerify(self) -> None:
        """A login may be verified although proxy_ssl_verify is off; its pins go before those of the directive."""
        good = self.certificate("mail.test")
        (wrong,), right = self.pinned("ab" * 32), self.pinned(self.pins(good)[0])
        self.shared = BackendContexts(BackendTLSSettings(mode="on", trusted=self.roots, verify=False, pins=(wrong,)))
        server = Server(good, self.key)
        server.shakeHands(self.decided(pins=right), Backend("elsewhere.test", 993))
        server.shakeHands(self.decided(pins=right, verify=True), Backend("mail.test", 993))
        for options in ({"verify": True}, {"verify": False}, {"pins": right, "verify": True}):
            connect = (server.shakeHands, self.decided(**options), Backend("elsewhere.test", 993))
            self.assertRaises(CertificateError, *connect)

    def test_decidedSessions(self) -> None:
        """A session is resumed only for a login whose backend is verified in the same way."""
        self.shared = BackendContexts(BackendTLSSettings(mode="on", trusted=self.roots))
        good = self.certificate("mail.test", "other.test")
        server, backend = Server(good, self.key), Backend("mail.test", 993)
        (wrong,), pins = self.pinned("ab" * 32), self.pinned(" ".join(self.pins(good)))
        ways: list[Any] = [
            self.shared,
            self.decided(verify=False),
            self.decided(name="other.test"),
            *(self.decided(pins=some) for some in (pins, pins[:1], pins[1:])),
            self.decided(pins=pins, verify=False),
        ]
        for way in ways:
            self.assertFalse(isResumed(server.shakeHands(way, backend)))
        for way in ways:
            self.assertTrue(isResumed(server.shakeHands(way, backend)))
        # An unverified session must not stand in for the pin.
        self.assertRaises(CertificateError, server.shakeHands, self.decided(pins=(wrong,), verify=False), backend)

    def test_decidedAfterwards(self) -> None:
        """All files were read at the start: a process that has dropped its privileges needs none of them."""
        key = ec.generate_private_key(ec.SECP256R1())
        own = self.authority.issue(x509.Name([]), key, ("gateway.test",))
        content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files = self.pem("own.pem", own), write(os.path.join(self.folder, "own.key"), content)
        good = self.certificate("mail.test")
        for verify in (True, False):
            roots = self.pem("readonce.pem", self.authority.certificate)
            copies = [write(f"{name}.copy", pathlib.Path(name).read_bytes()) for name in files]
            self.shared = BackendContexts(
                BackendTLSSettings(mode="on", trusted=roots, verify=verify, certificate=(copies[0],), key=(copies[1],))
            )
            for name in (roots, *copies):
                os.remove(name)
            server = Server(good, self.key, wantsCertificate=True)
            for options in ({"verify": True}, {"verify": False}, {"pins": self.pinned(self.pins(good)[0])}):
                connection = server.shakeHands(self.decided(**options), Backend("mail.test", 993))
                self.assertIsNotNone(connection.get_peer_certificate())

    def test_manySessions(self) -> None:
        """However many pins there are, the sessions kept are bounded."""
        self.shared = BackendContexts(BackendTLSSettings(mode="on", trusted=self.roots))
        connection = Server(self.certificate("mail.test"), self.key).shakeHands(self.shared, Backend("mail.test", 993))
        for number in range(3000):
            self.shared.keep(connection, ("mail.test", 993, "mail.test", True, (f"key:{number}",)))
        self.assertLessEqual(len(self.shared._sessions), 1024)

    def test_alpn(self) -> None:
        """The protocol is offered by ALPN, unless others are named, or none."""
        for alpn, expected in ((None, [[b"imap"]]), (("x", "y"), [[b"x", b"y"]]), ((), [])):
            self.connect(self.certificate("mail.test"), alpn=alpn)
            self.assertEqual(self.server.offered, expected)

    def test_clientCertificate(self) -> None:
        """The backend is shown the certificate of proxy_ssl_certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        own = self.authority.issue(x509.Name([]), key, ("gateway.test",))
        content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files = self.pem("own.pem", own), write(os.path.join(self.folder, "own.key"), content)
        settings = BackendTLSSettings(mode="on", trusted=self.roots, certificate=files[:1], key=files[1:])
        server = Server(self.certificate("mail.test"), self.key, wantsCertificate=True)
        contexts = BackendContexts(settings)
        # It is read at once: a process that has given up its rights may not be able to.
        os.remove(files[1])
        for verify in (True, False):
            shown = server.shakeHands(contexts, Backend("mail.test", 993, verify=verify)).get_peer_certificate()
            assert shown is not None
            self.assertEqual(shown.to_cryptography(), own)

    def test_versions(self) -> None:
        """proxy_ssl_protocols and proxy_ssl_ciphers choose."""
        connection = self.connect(
            self.certificate("mail.test"), protocols=("TLSv1.2",), ciphers="ECDHE-ECDSA-AES256-GCM-SHA384"
        )
        self.assertEqual(connection.get_protocol_version_name(), "TLSv1.2")
        self.assertEqual(connection.get_cipher_name(), "ECDHE-ECDSA-AES256-GCM-SHA384")

    def test_anonymous(self) -> None:
        """Ciphers without authentication prove nothing: where a certificate is needed, a backend without one fails."""
        anonymous = "AECDH-AES256-SHA:@SECLEVEL=0"
        self.server = Server(self.certificate("mail.test"), self.key)
        self.server.context.set_cipher_list(anonymous.encode())
        for settings, expected in (
            ({}, False),
            ({"pins": ("key:x",), "verify": False}, False),
            ({"verify": False}, True),
        ):
            contexts = BackendContexts(
                BackendTLSSettings(mode="on", trusted=self.roots, ciphers=anonymous, protocols=("TLSv1.2",), **settings)
            )
            self.server.shakeHands(contexts, Backend("mail.test", 993))
            self.assertEqual(self.server.hasCertificate, expected, settings)

    def test_noName(self) -> None:
        """A unix socket has no name that a certificate could be good for, unless it is given one."""
        contexts = BackendContexts(BackendTLSSettings(mode="on", trusted=self.roots))
        self.assertRaises(ValueError, contexts.creatorFor, Backend("unix:/run/imap", 0))
        contexts.creatorFor(Backend("unix:/run/imap", 0, name="mail.test"))


class SettingsTests(SynchronousTestCase):
    """What stops the start, and what is warned of."""

    def read(self, options: str) -> Any:
        text = (
            f"[server x]\nprotocol = imap\nlisten = 127.0.0.1:1\nproxy_pass = 127.0.0.1:2\nproxy_ssl = on\n{options}\n"
        )
        return parse(text)

    def test_problems(self) -> None:
        """Files that are not there, ciphers that do not exist, a certificate without its key."""
        for options, expected in (
            ("proxy_ssl_trusted_certificate = /nowhere", "proxy_ssl_trusted_certificate = /nowhere: cannot be read"),
            ("proxy_ssl_crl = /nowhere", "proxy_ssl_crl = /nowhere: cannot be read"),
            ("proxy_ssl_ciphers = NONSENSE", "proxy_ssl_ciphers = NONSENSE: no cipher match"),
            ("proxy_ssl_conf_command = Ciphersuites NONSENSE", "proxy_ssl_conf_command"),
            ("proxy_ssl_protocols = SSLv3", "proxy_ssl_protocols = SSLv3"),
            ("proxy_ssl_name = a b", "proxy_ssl_name = a b: must be a host name or an address"),
        ):
            error = self.assertRaises(ConfigurationError, self.read, options)
            self.assertIn(expected, str(error))

    def test_unverified(self) -> None:
        """Backends whose certificates are not verified are warned of, unless a pin decides."""
        warnings = [str(each) for each in self.read("proxy_ssl_verify = off").warnings]
        self.assertTrue(any("proxy_ssl_verify = off: lets any host" in each for each in warnings), warnings)
        pin = "proxy_ssl_pin = " + "ab" * 32
        self.assertEqual(self.read(f"proxy_ssl_verify = off\n{pin}").warnings, ())
