"""
Tests for L{mailgate.tls.settings} and L{mailgate.tls.backendsettings}: handshakes with the standard library's TLS.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.login import TLSState
from mailgate.test.support.tlspair import Pair, Peer, clientContext, connect, inline, makePair, settingsFor, write
from mailgate.tls.server import ServerTLS, describeTLS
from mailgate.tls.settings import SessionCache, TLSSettings


class ServerTLSTests(SynchronousTestCase):
    """L{ServerTLS} from the client's side."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.pair = makePair(self.folder, "ec")

    def server(self, *pairs: Pair, **changes: Any) -> ServerTLS:
        return ServerTLS(settingsFor(*(pairs or (self.pair,)), **changes), "imap")

    def test_interface(self) -> None:
        """It provides the interface that C{startTLS} takes."""
        self.assertTrue(verifyObject(IOpenSSLServerConnectionCreator, self.server()))

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are enabled by default."""
        for version, name in (("TLSv1_2", "TLSv1.2"), ("TLSv1_3", "TLSv1.3")):
            peer, connection = connect(self.server(), clientContext(version))
            self.assertEqual(peer.tls.version(), name)
            self.assertEqual(describeTLS(connection), TLSState(name, peer.cipher))

    def test_serverName(self) -> None:
        """The name that the client asked for is known. Sessions with the same values share one object."""
        server = self.server()
        states = []
        for name in ("imap.example.org", "imap.example.org", None):
            connection = server.serverConnectionForTLS(None)
            connection.set_accept_state()
            Peer(clientContext(), name=name).shakeHands(connection)
            states.append(describeTLS(connection))
        self.assertEqual([state.name for state in states], ["imap.example.org", "imap.example.org", ""])
        self.assertIs(states[0], states[1])

    def test_versionNotAllowed(self) -> None:
        """A version that is not in ssl_protocols is refused."""
        for allowed, spoken in (("TLSv1.3", "TLSv1_2"), ("TLSv1.2", "TLSv1_3")):
            with self.assertRaises((ssl.SSLError, SSL.Error)):
                connect(self.server(protocols=(allowed,)), clientContext(spoken))

    def test_oldVersions(self) -> None:
        """TLS 1.0 and 1.1 are refused by default, even with any cipher."""
        for version in ("TLSv1", "TLSv1_1"):
            context = clientContext(version, "ALL:@SECLEVEL=0")
            self.assertEqual([each["category"] for each in self.flushWarnings()][-1:], [DeprecationWarning])
            with self.assertRaises((ssl.SSLError, SSL.Error)):
                connect(self.server(ciphers="ALL:@SECLEVEL=0"), context)

    def test_ciphers(self) -> None:
        """TLS 1.2 uses only the ciphers of ssl_ciphers."""
        server = self.server(ciphers="ECDHE-ECDSA-AES256-GCM-SHA384")
        peer, _ = connect(server, clientContext("TLSv1_2"))
        self.assertEqual(peer.cipher, "ECDHE-ECDSA-AES256-GCM-SHA384")
        with self.assertRaises((ssl.SSLError, SSL.Error)):
            connect(server, clientContext("TLSv1_2", "ECDHE-ECDSA-AES128-GCM-SHA256"))

    def test_cipherPreference(self) -> None:
        """The client's order of ciphers counts, or the server's with ssl_prefer_server_ciphers."""
        first, second = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"
        context = clientContext("TLSv1_2", f"{first}:{second}")
        for prefers, chosen in ((False, first), (True, second)):
            server = self.server(ciphers=f"{second}:{first}", preferServerCiphers=prefers)
            self.assertEqual(connect(server, context)[0].cipher, chosen)

    def test_severalPairs(self) -> None:
        """With certificates of several types, the client's ciphers decide."""
        pairs = (makePair(self.folder, "rsa", kind="rsa"), self.pair)
        server = self.server(*pairs)
        for cipher, pair in (("ECDHE-RSA-AES128-GCM-SHA256", pairs[0]), ("ECDHE-ECDSA-AES128-GCM-SHA256", pairs[1])):
            peer, _ = connect(server, clientContext("TLSv1_2", cipher))
            with open(pair.certificate) as stream:
                expected = ssl.PEM_cert_to_DER_cert(stream.read())
            self.assertEqual(peer.tls.getpeercert(True), expected)

    def test_chain(self) -> None:
        """The chain in the certificate's file is sent."""
        intermediate = makePair(self.folder, "intermediate")
        with open(self.pair.certificate, "rb") as first, open(intermediate.certificate, "rb") as second:
            chain = write(os.path.join(self.folder, "chain.crt"), first.read() + second.read())
        server = self.server(Pair(chain, self.pair.key)).serverConnectionForTLS(None)
        server.set_accept_state()
        client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        client.set_connect_state()
        for end, other in ((client, server), (server, client), (client, server)):
            with contextlib.suppress(SSL.WantReadError):
                end.do_handshake()
            other.bio_write(end.bio_read(65536))
        sent: Any = client.get_peer_cert_chain()
        names = [each.to_cryptography().subject.rfc4514_string() for each in sent]
        self.assertEqual(names, ["CN=ec", "CN=intermediate"])

    def test_encryptedKey(self) -> None:
        """An encrypted key is decrypted with any fitting pass phrase of ssl_password_file."""
        pair = makePair(self.folder, "locked", passPhrase=b"open sesame")
        for content in (b"open sesame", b"wrong\n\nopen sesame\n", b"wrong\r\nopen sesame\r\nother\r\n"):
            passwords = write(os.path.join(self.folder, "passwords"), content)
            connect(self.server(pair, passwordFile=passwords))

    def test_plainKeyBesidesPasswords(self) -> None:
        """A key that is not encrypted needs no pass phrase, even if there are some."""
        passwords = write(os.path.join(self.folder, "passwords"), b"wrong\n")
        connect(self.server(passwordFile=passwords))

    def test_inline(self) -> None:
        """Certificate, chain and key may be inline, encrypted or not."""
        locked = makePair(self.folder, "locked", passPhrase=b"open sesame")
        passwords = write(os.path.join(self.folder, "passwords"), b"open sesame\n")
        for pair in (self.pair, locked):
            server = self.server(
                Pair(inline(pair.certificate, locked.certificate), inline(pair.key)), passwordFile=passwords
            )
            peer, _ = connect(server)
            with open(pair.certificate) as stream:
                self.assertEqual(peer.tls.getpeercert(True), ssl.PEM_cert_to_DER_cert(stream.read()))

    def test_oldVersionsSpoken(self) -> None:
        """TLS 1.0 and 1.1 are used if ssl_protocols and ssl_ciphers allow them."""
        for version, name in (("TLSv1", "TLSv1"), ("TLSv1_1", "TLSv1.1")):
            context = clientContext(version, "ALL:@SECLEVEL=0")
            self.flushWarnings()
            server = self.server(protocols=("TLSv1", "TLSv1.1"), ciphers="HIGH:@SECLEVEL=0")
            self.assertEqual(connect(server, context)[0].tls.version(), name)

    def test_noCompressionNoRenegotiation(self) -> None:
        """Compression and renegotiation are disabled."""
        peer, connection = connect(self.server(), clientContext("TLSv1_2"))
        self.assertIsNone(peer.tls.compression())
        error = self.assertRaises(SSL.Error, connection.renegotiate)
        self.assertIn("no renegotiation", str(error))


class ResumptionTests(SynchronousTestCase):
    """Whether a client's second connection resumes its session."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.pair = makePair(self.folder, "ec")

    def resumes(self, version: str, *servers: ServerTLS) -> bool:
        """Whether the last of C{servers} resumes the client's session of the first."""
        context = clientContext(version)
        first, _ = connect(servers[0], context)
        second, _ = connect(servers[-1], context, first.tls.session)
        return bool(second.tls.session_reused)

    def server(self, protocol: str = "imap", **changes: Any) -> ServerTLS:
        return ServerTLS(settingsFor(self.pair, **changes), protocol)

    def test_tickets(self) -> None:
        """A session is resumed by a ticket, whatever the session cache: this costs the server nothing."""
        for version in ("TLSv1_2", "TLSv1_3"):
            for cache in (SessionCache(), SessionCache(True)):
                self.assertTrue(self.resumes(version, self.server(sessionCache=cache)), (version, cache))

    def test_cache(self) -> None:
        """Without tickets a session is resumed from the session cache."""
        for version in ("TLSv1_2", "TLSv1_3"):
            server = self.server(sessionCache=SessionCache(True), sessionTickets=False)
            self.assertTrue(self.resumes(version, server), version)

    def test_neither(self) -> None:
        """Without tickets and cache no session is resumed."""
        for version in ("TLSv1_2", "TLSv1_3"):
            self.assertFalse(self.resumes(version, self.server(sessionTickets=False)), version)

    def test_otherServer(self) -> None:
        """A session of one server is not resumed by another."""
        for version in ("TLSv1_2", "TLSv1_3"):
            self.assertFalse(self.resumes(version, self.server(), self.server("pop3")))


class SessionCacheTests(SynchronousTestCase):
    """The value of ssl_session_cache."""

    def parse(self, value: str) -> Any:
        from mailgate.directives import directives

        (found,) = (each for each in directives(TLSSettings) if each.name == "ssl_session_cache")
        return found.parse(value, "")

    def test_nginx(self) -> None:
        """nginx's values are accepted."""
        self.assertEqual(self.parse("off"), SessionCache())
        self.assertEqual(self.parse("none"), SessionCache())
        self.assertEqual(self.parse("builtin"), SessionCache(True))
        self.assertEqual(self.parse("builtin:1000"), SessionCache(True))
        self.assertEqual(self.parse("shared:SSL:10m"), SessionCache(True, "SSL", 10 * 1024 * 1024))
        self.assertEqual(self.parse("builtin:1000 shared:SSL:32k"), SessionCache(True, "SSL", 32 * 1024))

    def test_invalid(self) -> None:
        """Other values are refused."""
        for value in (
            "",
            "on",
            "shared",
            "shared:SSL",
            "shared::10m",
            "shared:SSL:x",
            "builtin:x",
            "off none",
            "a b c",
        ):
            self.assertRaises(ValueError, self.parse, value)

    def test_tooSmall(self) -> None:
        """A shared cache needs eight pages, as in nginx."""
        error = self.assertRaises(ValueError, self.parse, "shared:SSL:31k")
        self.assertIn("too small", str(error))
