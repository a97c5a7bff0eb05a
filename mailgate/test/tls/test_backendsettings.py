"""Tests for TLS with backends."""

from __future__ import annotations

import os
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test import iosim
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailgate.test.support.tlspair import Pair, makePair, write
from mailgate.tls.backend import backendTLS
from mailgate.tls.backendsettings import loadTrust
from mailgate.tls.errors import CertificateError


@implementer(IHandshakeListener)
class Listener(Protocol):
    """Notes how a handshake ended."""

    completed = False
    reason: Any = None

    def handshakeCompleted(self) -> None:
        self.completed = True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason.value


@implementer(IOpenSSLServerConnectionCreator)
class Backend:
    """The TLS of a backend. C{names} are the names that clients requested."""

    def __init__(self, pair: Pair, *options: int, ciphers: str = "DEFAULT") -> None:
        self.names: list[bytes | None] = []
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.set_cipher_list(ciphers.encode())
        for option in options:
            self._context.set_options(option)
        self._context.use_certificate_chain_file(pair.certificate)
        self._context.use_privatekey_file(pair.key)
        self._context.set_tlsext_servername_callback(lambda each: self.names.append(each.get_servername()))

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        return SSL.Connection(self._context, None)


class BackendTLSTests(SynchronousTestCase):
    """L{backendTLS} with good and bad certificates of backends, over Twisted's own TLS."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.pair = makePair(self.folder, "backend", "mail.example.com", "127.0.0.1")
        self.backend = Backend(self.pair)

    def connect(self, host: str, verify: bool = True, trust: Any = None) -> Listener:
        """The result of a connection to C{self.backend} as C{host}."""
        creator = backendTLS(host, verify, trust)
        self.assertTrue(verifyObject(IOpenSSLClientConnectionCreator, creator))
        factory = Factory.forProtocol(Listener)
        client: Any = TLSMemoryBIOFactory(creator, True, factory).buildProtocol(None)
        server: Any = TLSMemoryBIOFactory(self.backend, False, factory).buildProtocol(None)
        listener: Listener = client.wrappedProtocol
        pump = iosim.connect(server, iosim.makeFakeServer(server), client, iosim.makeFakeClient(client))
        pump.flush()
        return listener

    def assertTaken(self, host: str, **changes: Any) -> None:
        listener = self.connect(host, **changes)
        self.assertTrue(listener.completed, listener.reason)
        self.assertIsNone(listener.reason)

    def assertRefused(self, host: str, **changes: Any) -> Any:
        listener = self.connect(host, **changes)
        self.assertFalse(listener.completed, host)
        return listener.reason

    def test_good(self) -> None:
        """A trusted certificate for the name or the address is accepted. The name is sent as SNI."""
        trust = loadTrust(self.pair.certificate)
        self.assertTaken("mail.example.com", trust=trust)
        self.assertTaken("127.0.0.1", trust=trust)
        self.assertTaken("mail.example.com.", trust=trust)
        self.assertEqual(self.backend.names, [b"mail.example.com", None, b"mail.example.com"])

    def test_wrongName(self) -> None:
        """A trusted certificate for another name is refused."""
        trust = loadTrust(self.pair.certificate)
        for host in ("other.example.com", "example.com", "127.0.0.2", "::1"):
            reason = self.assertRefused(host, trust=trust)
            self.assertIsInstance(reason, CertificateError)

    def test_blanks(self) -> None:
        """A certificate whose name has blanks or line ends around it is refused."""
        names = ["mail.example.com ", " mail.example.com", "mail.example.com\n", "\tmail.example.com"]
        for name in (*names, "*.example.com ", " *.example.com"):
            pair = makePair(self.folder, "blank", name)
            self.backend = Backend(pair)
            reason = self.assertRefused("mail.example.com", trust=loadTrust(pair.certificate))
            self.assertIsInstance(reason, CertificateError)
        pair = makePair(self.folder, "both", "other.example.com ", "mail.example.com")
        self.backend = Backend(pair)
        trust = loadTrust(pair.certificate)
        self.assertTaken("mail.example.com", trust=trust)
        self.assertRefused("other.example.com", trust=trust)

    def test_untrusted(self) -> None:
        """A certificate of an untrusted issuer is refused, with our own roots and with the platform's."""
        other = makePair(self.folder, "other", "mail.example.com")
        for trust in (loadTrust(other.certificate), None):
            reason = self.assertRefused("mail.example.com", trust=trust)
            self.assertIn("its certificate is self-signed and not trusted", str(reason))

    def test_unverified(self) -> None:
        """Without verification any certificate is accepted. A name is sent as SNI, an address is not."""
        for host in ("other.example.com", "127.0.0.2", "::1", "2001:db8::cafe"):
            self.assertTaken(host, verify=False)
        self.assertEqual(self.backend.names, [b"other.example.com", None, None, None])

    def test_underscore(self) -> None:
        """A name with an underscore is sent and verified like any other."""
        pair = makePair(self.folder, "compose", "mail_backend", "*.my_net.example", "r3---a.example")
        self.backend = Backend(pair)
        trust = loadTrust(pair.certificate)
        good = "mail_backend", "Mail_Backend", "a_b.my_net.example", "r3---a.example"
        for host in good:
            self.assertTaken(host, trust=trust)
        for host in ("mail_other", "my_net.example", "a.b.my_net.example", "r3---b.example"):
            self.assertIn("its certificate is not valid for ", str(self.assertRefused(host, trust=trust)))
        self.assertEqual(self.backend.names[: len(good)], [each.lower().encode() for each in good])

    def test_underscoreUntrusted(self) -> None:
        """An untrusted issuer is refused for such a name, too."""
        pair = makePair(self.folder, "compose", "mail_backend")
        self.backend = Backend(pair)
        for trust in (loadTrust(self.pair.certificate), None):
            self.assertIn("is self-signed", str(self.assertRefused("mail_backend", trust=trust)))
        self.assertTaken("mail_backend", verify=False)

    def test_unreadableNames(self) -> None:
        """A certificate whose names cannot be parsed is refused. Twisted's own verification would accept it."""
        pair = makePair(self.folder, "compose", "*.*.example")
        self.backend = Backend(pair)
        for host in ("mail_backend", "mail.example.com", "a.b.example", "127.0.0.1"):
            self.assertRefused(host, trust=loadTrust(pair.certificate))

    def test_noName(self) -> None:
        """An invalid host name is refused before a connection is made."""
        for host in ("a..b", "unix:/run/imap", "a_/b"):
            self.assertRaises(ValueError, backendTLS, host, True, None)

    def test_internationalName(self) -> None:
        """An internationalized name is sent in its DNS form."""
        self.assertTaken("b\u00fccher.example", verify=False)
        self.assertEqual(self.backend.names, [b"xn--bcher-kva.example"])

    def test_severalRoots(self) -> None:
        """Every certificate in the file of roots is trusted, whatever text is between them."""
        other = makePair(self.folder, "other", "mail.example.com")
        content = b""
        for pair in (other, self.pair):
            with open(pair.certificate, "rb") as stream:
                content += b"# a root\xff\n" + stream.read()
        trust = loadTrust(write(os.path.join(self.folder, "roots"), content))
        for pair in (other, self.pair):
            self.backend = Backend(pair)
            self.assertTaken("mail.example.com", trust=trust)

    def test_noOldVersion(self) -> None:
        """Versions before TLS 1.2 are refused, with and without verification."""
        new = SSL.OP_NO_TLSv1_3 | SSL.OP_NO_TLSv1_2
        self.backend = Backend(self.pair, new, ciphers="ALL:@SECLEVEL=0")
        self.assertRefused("mail.example.com", verify=False)
        self.assertRefused("mail.example.com", trust=loadTrust(self.pair.certificate))
