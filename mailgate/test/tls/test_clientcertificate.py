"""
Tests for L{mailgate.tls.clientcertificate} and L{mailgate.tls.verifyerrors}: the verification of client certificates,
and what is reported of them.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from datetime import timedelta
from hashlib import sha1
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from OpenSSL._util import ffi, lib
from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import TLSDetails, Trouble
from mailgate.test.support.certificates import Authority, clientContext
from mailgate.test.support.tlsengines import FAST
from mailgate.test.support.tlspair import Pair, Peer, makePair, settingsFor
from mailgate.tls.clientcertificate import describe
from mailgate.tls.engine import PublicEngine, Verification
from mailgate.tls.makeengine import makeEngine
from mailgate.tls.server import ServerTLS
from mailgate.tls.settings import SessionCache
from mailgate.tls.verifyerrors import verifyError


class Case(SynchronousTestCase):
    """A server that trusts C{self.authority} for client certificates."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.pair = makePair(self.folder, "server")
        self.authority = Authority(self.folder, "authority")

    def server(self, mode: str = "optional", pair: Pair | None = None, **changes: Any) -> ServerTLS:
        given = {"clientCertificate": self.authority.certificate, **changes}
        return ServerTLS(settingsFor(pair or self.pair, verifyClient=mode, **given), "imap")

    def connect(self, server: ServerTLS, chain: str | None = None, **client: Any) -> Any:
        """The server's end of a connection. No handshake may fail."""
        connection: Any = server.serverConnectionForTLS(Verification())
        connection.set_accept_state()
        # As mailgate's engines, and others, do it: this is theirs.
        connection.set_app_data(Verification())
        Peer(clientContext(chain, **client)).shakeHands(connection)
        return connection

    def refused(self, server: ServerTLS, chain: str | None = None, **client: Any) -> str:
        """Why a client is refused, or nothing."""
        refusal = server.refusal(self.connect(server, chain, **client))
        return "" if refusal is None else refusal.reason

    def details(self, server: ServerTLS, chain: str | None = None, **client: Any) -> TLSDetails:
        return server.details(self.connect(server, chain, **client))


class PolicyTests(Case):
    """C{ssl_verify_client}."""

    def setUp(self) -> None:
        super().setUp()
        self.good, self.goodChain = self.authority.issue("joe")
        _, self.expired = self.authority.issue("old", age=timedelta(days=30))
        _, self.stranger = Authority(self.folder, "elsewhere").issue("mallory")

    def test_good(self) -> None:
        """A good certificate is accepted in every mode, with TLS 1.2 and TLS 1.3."""
        for version in ("TLSv1_2", "TLSv1_3"):
            for mode in ("on", "optional", "optional_no_ca"):
                self.assertEqual(self.refused(self.server(mode), self.goodChain, version=version), "")

    def test_none(self) -> None:
        """A client without a certificate is refused by C{on} only."""
        self.assertEqual(self.refused(self.server("on")), "sent no required SSL certificate")
        refusal = self.server("on").refusal(self.connect(self.server("on")))
        self.assertIs(refusal and refusal.trouble, Trouble.NO_CERTIFICATE)
        for mode in ("optional", "optional_no_ca"):
            self.assertEqual(self.refused(self.server(mode)), "")

    def test_bad(self) -> None:
        """C{optional} refuses an unknown issuer, with OpenSSL's last error. C{optional_no_ca} accepts it."""
        expected = "SSL certificate verify error: (19:self-signed certificate in certificate chain)"
        for mode in ("on", "optional"):
            for version in ("TLSv1_2", "TLSv1_3"):
                self.assertEqual(self.refused(self.server(mode), self.stranger, version=version), expected)
        self.assertEqual(self.refused(self.server("optional_no_ca"), self.stranger), "")
        refusal = self.server().refusal(self.connect(self.server(), self.stranger))
        self.assertIs(refusal and refusal.trouble, Trouble.CERTIFICATE)

    def test_selfSigned(self) -> None:
        """nginx's example: a self-signed client certificate."""
        with open(self.pair.certificate, "rb") as one, open(self.pair.key, "rb") as other:
            chain = self.authority.write("own.pem", one.read() + other.read())
        expected = "SSL certificate verify error: (18:self-signed certificate)"
        self.assertEqual(self.refused(self.server(), chain), expected)
        self.assertEqual(self.refused(self.server("optional_no_ca"), chain), "")

    def test_withoutChain(self) -> None:
        """OpenSSL's last error counts: here the signature, not the issuer."""
        chain = self.bare(self.stranger)
        expected = "SSL certificate verify error: (21:unable to verify the first certificate)"
        self.assertEqual(self.refused(self.server(), chain), expected)
        self.assertEqual(self.refused(self.server("optional_no_ca"), chain), "")

    def bare(self, chain: str) -> str:
        """The client's certificate and key from C{chain}, without the issuer's certificate."""
        with open(chain, "rb") as opened:
            content = opened.read()
        return self.authority.write("bare.pem", content[: content.index(b"-----END CERTIFICATE-----") + 26])

    def test_expired(self) -> None:
        """An expired certificate is refused in every mode."""
        for mode in ("on", "optional", "optional_no_ca"):
            reason = self.refused(self.server(mode), self.expired)
            self.assertEqual(reason, "SSL certificate verify error: (10:certificate has expired)")

    def test_expiredStranger(self) -> None:
        """An expired certificate of an unknown issuer is refused in every mode: expiry is the later error."""
        _, chain = Authority(self.folder, "gone").issue("older", age=timedelta(days=30))
        self.assertIn("(10:", self.refused(self.server("optional_no_ca"), chain))

    def test_depth(self) -> None:
        """ssl_verify_depth limits the CA certificates between a client's certificate and a root."""
        middle = Authority(self.folder, "middle", self.authority)
        lower = Authority(self.folder, "lower", middle)
        _, chain = lower.issue("deep")
        with open(chain, "ab") as opened, open(middle.certificate, "rb") as more:
            opened.write(more.read())
        # OpenSSL reports the length first, and then that it has not found the root.
        self.assertIn("(20:unable to get local issuer certificate)", self.refused(self.server(), chain))
        for depth in (2, 999999999999):
            self.assertEqual(self.refused(self.server(verifyDepth=depth), chain), "")

    def test_revoked(self) -> None:
        """Only a certificate that ssl_crl revokes is refused."""
        _, other = self.authority.issue("jane")
        server = self.server(revoked=self.authority.revoke("list.crl", self.good))
        self.assertEqual(self.refused(server, self.goodChain), "SSL certificate verify error: (23:certificate revoked)")
        self.assertEqual(self.refused(server, other), "")

    def test_wholeChainRevoked(self) -> None:
        """Each CA in the chain requires its own revocation list."""
        middle = Authority(self.folder, "middle", self.authority)
        _, chain = middle.issue("deep")
        server = self.server(revoked=middle.revoke("middle.crl"), verifyDepth=2)
        self.assertIn("(3:unable to get certificate CRL)", self.refused(server, chain))
        both = b""
        for issuer in (middle, self.authority):
            with open(issuer.revoke("one.crl"), "rb") as opened:
                both += opened.read()
        server = self.server(revoked=self.authority.write("both.crl", both), verifyDepth=2)
        self.assertEqual(self.refused(server, chain), "")

    def test_trusted(self) -> None:
        """CAs in ssl_trusted_certificate are trusted, but are not sent to clients."""
        server = self.server(clientCertificate=None, trustedCertificate=self.authority.certificate)
        self.assertEqual(self.refused(server, self.goodChain), "")
        self.assertEqual(self.named(server), [])
        self.assertEqual(self.named(self.server()), ["authority"])
        self.assertEqual(self.named(self.server(trustedCertificate=self.pair.certificate)), ["authority"])

    def named(self, server: ServerTLS) -> list[str | None]:
        """The CAs that the server sends with its request for a certificate."""
        connection = server.serverConnectionForTLS(None)
        connection.set_accept_state()
        client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        client.set_connect_state()
        for end, other in ((client, connection), (connection, client), (client, connection)):
            with contextlib.suppress(SSL.WantReadError):
                end.do_handshake()
            other.bio_write(end.bio_read(65536))
        return [name.CN for name in client.get_client_ca_list()]

    def test_notAsked(self) -> None:
        """With C{off} no certificate is requested, and the client sends none."""
        connection = self.connect(self.server("off"), self.goodChain)
        self.assertIsNone(connection.get_peer_certificate())
        self.assertIsNone(self.server("off").refusal(connection))

    def test_filesUnopened(self) -> None:
        """With C{off} the files are not opened and need not exist."""
        gone = os.path.join(self.folder, "gone")
        self.server("off", clientCertificate=gone, trustedCertificate=gone, revoked=gone)

    def test_openSSLsVerdict(self) -> None:
        """The noted error is the one that OpenSSL itself keeps."""
        middle = Authority(self.folder, "middle", self.authority)
        deep = Authority(self.folder, "lower", middle).issue("deep")[1]
        older = Authority(self.folder, "gone").issue("older", age=timedelta(days=30))[1]
        early = self.authority.issue("early", age=timedelta(days=-3))[1]
        good = ffi.callback("int (*)(int, X509_STORE_CTX *)", lambda *_: 1)
        lists: dict[str, Any] = {"revoked": self.authority.revoke("list.crl", self.good)}
        codes = set()
        for chain in (self.goodChain, self.expired, self.stranger, self.bare(self.stranger), deep, older, early):
            for changes in (dict[str, Any](), lists):
                noted = self.connect(self.server(**changes), chain).verifyCode
                server: Any = self.server(**changes)
                lib.SSL_CTX_set_verify(server._contexts.issuing._context, SSL.VERIFY_PEER, good)
                self.assertEqual(lib.SSL_get_verify_result(self.connect(server, chain)._ssl), noted)
                codes.add(noted)
        self.assertLessEqual({0, 9, 10, 19, 21, 20, 23}, codes)

    def test_engines(self) -> None:
        """Both kinds of engine keep the error and the certificate."""
        server = self.server()
        for kind in (FAST, PublicEngine):
            engine = makeEngine(server, True, kind)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = clientContext(self.stranger).wrap_bio(incoming, outgoing)
            for _ in range(3):
                with contextlib.suppress(ssl.SSLWantReadError):
                    client.do_handshake()
                engine.feed(outgoing.read())
                engine.handshake()
                incoming.write(bytes(engine.output()))
            connection: Any = engine.connection
            self.assertEqual(connection.verifyCode, 19)
            self.assertIsNotNone(server.refusal(connection))
            told = server.details(connection).certificate
            self.assertEqual(told and told.subject, "CN=mallory")

    def test_eachItsOwn(self) -> None:
        """The error of one connection does not affect another."""
        server = self.server()
        bad, good = self.connect(server, self.stranger), self.connect(server, self.goodChain)
        self.assertIsNotNone(server.refusal(bad))
        self.assertIsNone(server.refusal(good))


class ResumptionTests(Case):
    """Every connection requests the certificate again."""

    def reuses(self, version: str, chain: str, **changes: Any) -> tuple[bool, list[bool]]:
        """Whether the client's second connection resumes the session of the first, and whether each is refused."""
        server = self.server(sessionCache=SessionCache(True), **changes)
        context, session, refused = clientContext(chain, version), None, []
        for _ in range(2):
            connection = server.serverConnectionForTLS(None)
            connection.set_accept_state()
            peer = Peer(context, session=session)
            peer.shakeHands(connection)
            refused.append(server.refusal(connection) is not None)
            session = peer.tls.session
        return bool(peer.tls.session_reused), refused

    def test_refusedAgain(self) -> None:
        """A refused client is refused again if it offers the session of the refused connection."""
        _, chain = Authority(self.folder, "elsewhere").issue("mallory")
        for version in ("TLSv1_2", "TLSv1_3"):
            self.assertEqual(self.reuses(version, chain), (False, [True, True]), version)

    def test_goodNotResumed(self) -> None:
        """The session of an accepted certificate is not resumed, either: the certificate may have been revoked."""
        _, chain = self.authority.issue("joe")
        for version in ("TLSv1_2", "TLSv1_3"):
            for tickets in (True, False):
                self.assertEqual(self.reuses(version, chain, sessionTickets=tickets), (False, [False, False]), version)

    def test_commandDoesNotHelp(self) -> None:
        """ssl_conf_command, which is applied last, does not turn tickets on again."""
        _, chain = self.authority.issue("joe")
        for version in ("TLSv1_2", "TLSv1_3"):
            commands = (("Options", "SessionTicket"),)
            self.assertEqual(self.reuses(version, chain, commands=commands), (False, [False, False]), version)

    def test_withoutVerification(self) -> None:
        """Without verification sessions are resumed."""
        _, chain = self.authority.issue("joe")
        for version in ("TLSv1_2", "TLSv1_3"):
            self.assertEqual(self.reuses(version, chain, mode="off"), (True, [False, False]), version)


class DetailsTests(Case):
    """L{ServerTLS.details}."""

    def test_nothing(self) -> None:
        """Without a request and without SNI, the details are those of the server's own certificate."""
        self.assertEqual(self.details(self.server("off")), TLSDetails(signature="SHA256", key="EC256"))

    def test_rsa(self) -> None:
        """Keys are named as in the TLVs of the PROXY protocol."""
        pair = makePair(self.folder, "rsa", kind="rsa")
        self.assertEqual(self.details(self.server("off", pair)).key, "RSA2048")

    def test_ownCertificate(self) -> None:
        """Of several server certificates the details are those of the one that the client received."""
        rsa = makePair(self.folder, "rsa", kind="rsa")
        server = ServerTLS(settingsFor(rsa, self.pair), "imap")
        for cipher, key in (("ECDHE-RSA-AES128-GCM-SHA256", "RSA2048"), ("ECDHE-ECDSA-AES128-GCM-SHA256", "EC256")):
            context = clientContext(version="TLSv1_2")
            context.set_ciphers(cipher)
            connection = server.serverConnectionForTLS(None)
            connection.set_accept_state()
            Peer(context).shakeHands(connection)
            self.assertEqual(server.details(connection).key, key)

    def test_names(self) -> None:
        """SNI and ALPN are what the client sent, with TLS 1.2 and TLS 1.3."""
        for version in ("TLSv1_2", "TLSv1_3"):
            server = self.server("off")
            connection: Any = server.serverConnectionForTLS(None)
            connection.set_accept_state()
            peer = Peer(clientContext(version=version, alpn=("h2", "imap")), name="mail.example.com")
            peer.shakeHands(connection)
            details = server.details(connection)
            self.assertEqual((details.serverName, details.alpn), ("mail.example.com", "imap"), version)

    def test_verification(self) -> None:
        """The result of the verification has nginx's words and OpenSSL's code and text."""
        _, good = self.authority.issue("joe")
        _, bad = Authority(self.folder, "elsewhere").issue("mallory")
        server = self.server("optional_no_ca")
        for chain, words, code in (
            (None, "NONE", 0),
            (good, "SUCCESS", 0),
            (bad, "FAILED:self-signed certificate in certificate chain", 19),
        ):
            details = self.details(server, chain)
            self.assertEqual((details.verification, details.verifyCode), (words, code))

    def test_certificate(self) -> None:
        """The fields of the certificate have the form of nginx's headers."""
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COUNTRY_NAME, "ZZ"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Org, Inc"),
                x509.NameAttribute(NameOID.COMMON_NAME, "Jörg"),
            ]
        )
        certificate, chain = self.authority.issue("joe", subject, serial=0xABC)
        told = self.details(self.server(), chain).certificate
        assert told is not None
        self.assertEqual(told.subject, r"CN=J\C3\B6rg,O=Org\, Inc,C=ZZ")
        self.assertEqual(told.issuer, "CN=authority")
        self.assertEqual(told.serial, "0ABC")
        self.assertEqual(told.commonName, "Jörg")
        self.assertEqual(told.pem, certificate.public_bytes(Encoding.PEM))
        der = ssl.PEM_cert_to_DER_cert(told.pem.decode())
        self.assertEqual(told.fingerprint, sha1(der).hexdigest())


class DescribeTests(Case):
    """L{describe}."""

    def described(self, **changes: Any) -> Any:
        certificate, _ = self.authority.issue("joe", **changes)
        return describe(crypto.X509.from_cryptography(certificate))

    def test_fingerprint(self) -> None:
        """The fingerprint is SHA-1 in lower-case hexadecimal."""
        self.assertRegex(self.described().fingerprint, r"\A[0-9a-f]{40}\Z")

    def test_serial(self) -> None:
        """A serial number has two upper-case digits for each byte, as OpenSSL prints it."""
        for serial, shown in ((1, "01"), (0xFF, "FF"), (0x100, "0100"), (0xABCDE, "0ABCDE")):
            self.assertEqual(self.described(serial=serial).serial, shown)

    def test_longSerial(self) -> None:
        """A serial number of any length is on one line. OpenSSL and nginx break one of more than 35 bytes."""
        made = crypto.X509.from_cryptography(self.authority.issue("joe")[0])
        made.get_serial_number = lambda: int("AB" * 300, 16)  # type: ignore[method-assign]
        self.assertEqual(describe(made).serial, "AB" * 300)
        made.get_serial_number = lambda: -0xABC  # type: ignore[method-assign]
        self.assertEqual(describe(made).serial, "-0ABC")

    def test_noSecret(self) -> None:
        """No C{repr} contains the whole certificate."""
        self.assertNotIn("BEGIN", repr(self.described()))

    def test_unreadable(self) -> None:
        """A certificate whose names cannot be parsed has empty names, and all other fields."""
        self.assertEqual(self.described().subject, "CN=joe")
        dumped = {crypto.FILETYPE_ASN1: b"\x30\x80\0\0", crypto.FILETYPE_PEM: b"PEM"}
        self.patch(crypto, "dump_certificate", lambda kind, _: dumped[kind])
        told = self.described()
        self.assertEqual((told.subject, told.issuer, told.commonName, told.pem), ("", "", "", b"PEM"))


class VerifyErrorTests(SynchronousTestCase):
    """L{verifyError}."""

    def test_openSSL(self) -> None:
        """The texts are OpenSSL's own."""
        for code in range(150):
            words = ffi.string(lib.X509_verify_cert_error_string(code)).decode()
            if code and not words.startswith("unknown"):
                self.assertEqual(verifyError(code), words, code)

    def test_unknown(self) -> None:
        """A code that OpenSSL does not have yet has a text, too."""
        self.assertEqual(verifyError(4711), "unknown certificate verification error")
