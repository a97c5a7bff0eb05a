"""Tests for L{mailgate.tls.confcommand}: the values of C{ssl_conf_command} and C{ssl_ecdh_curve}, and their effects."""

from __future__ import annotations

import contextlib
import os
import ssl
from typing import Any

from OpenSSL import SSL
from OpenSSL._util import lib
from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.tlspair import clientContext, connect, makePair, settingsFor, write
from mailgate.tls.confcommand import VERSIONS, commands, curve, leaveOutFiniteFields
from mailgate.tls.files import TLSError
from mailgate.tls.server import ServerTLS

# RFC 7919's ffdhe2048.
DH_PARAMETERS = b"""-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


class GrammarTests(SynchronousTestCase):
    """Accepted and refused values."""

    def assertRefused(self, part: str, value: str) -> None:
        error = self.assertRaises(ValueError, commands, value, "/etc")
        self.assertIn(part, str(error))
        self.assertNotIn("\n", str(error))

    def test_lines(self) -> None:
        """Each line has one command. Names are case-insensitive, and a value may contain blanks."""
        given = "\n  ciphersuites TLS_AES_256_GCM_SHA384\n  CIPHERSTRING  HIGH !MD5\n"
        expected = (("Ciphersuites", "TLS_AES_256_GCM_SHA384"), ("CipherString", "HIGH !MD5"))
        self.assertEqual(commands(given, "/etc"), expected)

    def test_files(self) -> None:
        """File names are relative to the folder of the configuration file."""
        given = "Certificate a.pem\nPrivateKey /b.pem\nDHParameters c.pem"
        expected = (("Certificate", "/etc/a.pem"), ("PrivateKey", "/b.pem"), ("DHParameters", "/etc/c.pem"))
        self.assertEqual(commands(given, "/etc"), expected)

    def test_unknown(self) -> None:
        """An unknown name is refused, with the nearest known one."""
        self.assertRefused("did you mean Ciphersuites?", "Ciphersuite TLS_AES_256_GCM_SHA384")

    def test_elsewhere(self) -> None:
        """Each unsupported command of OpenSSL is refused with the reason."""
        for name in (
            "SignatureAlgorithms",
            "ClientSignatureAlgorithms",
            "RecordPadding",
            "NumTickets",
            "ServerInfoFile",
        ):
            self.assertRefused(f"{name} is not supported: pyOpenSSL has no call", f"{name.lower()} x")
        self.assertRefused("VerifyMode is not supported: set ssl_verify_client instead", "VerifyMode Request")
        self.assertRefused("ssl_trusted_certificate", "VerifyCAFile x")
        self.assertRefused("ssl_client_certificate", "RequestCAFile x")
        self.assertRefused("file of ssl_certificate", "ChainCAFile x")

    def test_missingValue(self) -> None:
        """A name without a value is refused."""
        self.assertRefused("CipherString needs a value", "CipherString")

    def test_versions(self) -> None:
        """Versions have OpenSSL's names."""
        self.assertEqual(commands("MinProtocol TLSv1.3\nMaxProtocol none", "")[0], ("MinProtocol", "tlsv1.3"))
        self.assertRefused("MinProtocol: must be None, TLSv1,", "MinProtocol 1.3")
        self.assertRefused("did you mean tlsv1.3?", "Protocol -ALL,TLSv13")

    def test_options(self) -> None:
        """Options that pyOpenSSL has are accepted. Unsafe ones are refused with the reason."""
        commands("Options -SessionTicket, ServerPreference,+Bugs,-Compression", "")
        self.assertRefused('"PrioritizeChaCha" is unknown', "Options PrioritizeChaCha")
        self.assertRefused("TLS compression cannot be enabled", "Options Compression")
        self.assertRefused("TLS renegotiation cannot be enabled", "Options -NoRenegotiation")
        for value in ("Options --Bugs", "Options ,", "Options Bugs Bugs"):
            self.assertRefused("is unknown", value)

    def test_curve(self) -> None:
        """
        One NIST curve, by any of its names, or auto is accepted. Lists and other curves are refused with the reason.
        """
        for given, word in (("auto", "auto"), ("AUTO", "auto"), ("prime256v1", "prime256v1"), ("P-384", "p-384")):
            self.assertEqual(curve(given, ""), word)
        self.assertIn(
            "pyOpenSSL cannot set a list", str(self.assertRaises(ValueError, curve, "prime256v1:secp384r1", ""))
        )
        for given in ("X25519", "X448", "ffdhe2048", "X25519MLKEM768", "nonesuch"):
            error = self.assertRaises(ValueError, curve, given, "")
            self.assertIn("pyOpenSSL cannot set another curve", str(error))
        self.assertRefused("Groups: must be one curve", "Groups P-256:P-384")
        self.assertRefused("Curves: auto is a value of ssl_ecdh_curve", "Curves auto")


class EffectTests(SynchronousTestCase):
    """The effects for a client."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.pair = makePair(self.folder, "ec")

    def server(self, *given: str, pair: Any = None, **changes: Any) -> ServerTLS:
        parsed = commands("\n".join(given), "") if given else ()
        return ServerTLS(settingsFor(pair or self.pair, commands=parsed, **changes), "imap")

    def assertUnspoken(self, server: ServerTLS, version: str) -> None:
        with self.assertRaises((ssl.SSLError, SSL.Error)):
            connect(server, clientContext(version))

    def test_cipherSuites(self) -> None:
        """The cipher suites of TLS 1.3 can be selected."""
        server = self.server("Ciphersuites TLS_CHACHA20_POLY1305_SHA256")
        self.assertEqual(connect(server)[0].cipher, "TLS_CHACHA20_POLY1305_SHA256")

    def test_last(self) -> None:
        """Commands override directives, and later commands override earlier ones."""
        one, other = "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"
        server = self.server(f"CipherString {one}", f"CipherString {other}", ciphers=one)
        self.assertEqual(connect(server, clientContext("TLSv1_2"))[0].cipher, other)

    def test_bounds(self) -> None:
        """MinProtocol and MaxProtocol limit the versions."""
        self.assertUnspoken(self.server("MinProtocol TLSv1.3"), "TLSv1_2")
        self.assertUnspoken(self.server("MaxProtocol TLSv1.2"), "TLSv1_3")
        connect(self.server("MinProtocol TLSv1.2", "MaxProtocol None"), clientContext("TLSv1_3"))

    def test_protocol(self) -> None:
        """Protocol turns versions on and off, whatever ssl_protocols has."""
        server = self.server("Protocol -ALL, TLSv1.3")
        connect(server, clientContext("TLSv1_3"))
        self.assertUnspoken(server, "TLSv1_2")
        connect(self.server("Protocol TLSv1.2", protocols=("TLSv1.3",)), clientContext("TLSv1_2"))
        self.assertUnspoken(self.server("Protocol -TLSv1.3"), "TLSv1_3")

    def test_allVersions(self) -> None:
        """ALL is for all versions of ssl_protocols."""
        server: Any = self.server("Protocol ALL", protocols=("TLSv1.3",))
        for version, excluding in VERSIONS.items():
            self.assertFalse(excluding and server._contexts.issuing.set_options(0) & excluding, version)

    def test_options(self) -> None:
        """Options are set and cleared."""
        one, other = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"
        context = clientContext("TLSv1_2", f"{one}:{other}")
        for sign, chosen in (("", other), ("-", one)):
            server = self.server(
                f"Options {sign}ServerPreference", ciphers=f"{other}:{one}", preferServerCiphers=not sign
            )
            self.assertEqual(connect(server, context)[0].cipher, chosen)

    def test_tickets(self) -> None:
        """SessionTicket overrides ssl_session_tickets."""
        for sign, tickets in (("", False), ("-", True)):
            context, server = (
                clientContext("TLSv1_2"),
                self.server(f"Options {sign}SessionTicket", sessionTickets=tickets),
            )
            first, _ = connect(server, context)
            self.assertEqual(connect(server, context, first.tls.session)[0].tls.session_reused, not sign)

    def test_groups(self) -> None:
        """Only the named curve is used, whichever command names it."""
        for changes in ({"curve": "secp384r1"}, {}):
            for version in ("TLSv1_2", "TLSv1_3"):
                server = self.server(*(() if changes else ("Groups P-384",)), **changes)
                _, connection = connect(server, clientContext(version))
                self.assertEqual(connection.get_group_name().lower(), "secp384r1")

    def test_finiteFields(self) -> None:
        """By default all curves are used, and no finite fields, which cost the server more than the client."""
        for groups in ("ffdhe2048", "ffdhe3072", "X25519", "P-256", "P-384", "P-521"):
            client = SSL.Context(SSL.TLS_CLIENT_METHOD)
            self.assertEqual(lib.SSL_CTX_set1_curves_list(client._context, groups.encode()), 1)
            engine, server = SSL.Connection(client, None), self.server().newConnection()
            engine.set_connect_state()
            server.set_accept_state()
            with contextlib.suppress(SSL.WantReadError):
                engine.do_handshake()
            server.bio_write(engine.bio_read(65536))
            # Without a common group it fails here.
            error = self.assertRaises(SSL.Error, server.do_handshake)
            self.assertEqual(isinstance(error, SSL.WantReadError), not groups.startswith("ffdhe"), groups)

    def test_finiteFieldsStay(self) -> None:
        """If the call is missing or refuses the list, OpenSSL's defaults stay."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self.assertTrue(leaveOutFiniteFields(context))

        class Lib:
            def SSL_CTX_set1_curves_list(self, pointer: object, groups: bytes) -> int:
                return 0

            def ERR_clear_error(self) -> None:
                pass

        self.assertFalse(leaveOutFiniteFields(context, Lib))
        self.assertFalse(leaveOutFiniteFields(context, object))
        self.assertFalse(leaveOutFiniteFields(context, lambda: __import__("no_such_module")))

    def test_noCommonGroup(self) -> None:
        """A client without the curve is refused."""
        context = clientContext("TLSv1_3")
        context.set_ecdh_curve("prime256v1")
        with self.assertRaises((ssl.SSLError, SSL.Error)):
            connect(self.server(curve="secp521r1"), context)

    def test_dhParameters(self) -> None:
        """DHE ciphers require ssl_dhparam or DHParameters if a TLS 1.2 client offers no group of RFC 7919."""
        pair = makePair(self.folder, "rsa", kind="rsa")
        path = write(os.path.join(self.folder, "dh.pem"), DH_PARAMETERS)
        context = clientContext("TLSv1_2", "DHE-RSA-AES128-GCM-SHA256")
        for server in (self.server(pair=pair, dhParameters=path), self.server(f"DHParameters {path}", pair=pair)):
            self.assertEqual(connect(server, context)[0].cipher, "DHE-RSA-AES128-GCM-SHA256")
        with self.assertRaises((ssl.SSLError, SSL.Error)):
            connect(self.server(pair=pair), context)

    def test_certificate(self) -> None:
        """Certificate and PrivateKey replace the pair of the same type."""
        other = makePair(self.folder, "other")
        server = self.server(f"Certificate {other.certificate}", f"PrivateKey {other.key}")
        peer, _ = connect(server)
        with open(other.certificate) as opened:
            self.assertEqual(peer.tls.getpeercert(True), ssl.PEM_cert_to_DER_cert(opened.read()))

    def test_encryptedKey(self) -> None:
        """PrivateKey is decrypted with the pass phrases of ssl_password_file."""
        other = makePair(self.folder, "other", passPhrase=b"open sesame")
        passwords = write(os.path.join(self.folder, "passwords"), b"open sesame\n")
        given = (f"Certificate {other.certificate}", f"PrivateKey {other.key}")
        connect(self.server(*given, passwordFile=passwords))
        self.assertRaises(TLSError, self.server, *given)

    def test_faults(self) -> None:
        """A value that OpenSSL refuses is reported with the name of the command."""
        gone = os.path.join(self.folder, "gone")
        other = makePair(self.folder, "other")
        for given, value in (
            ("Ciphersuites NONE", "Ciphersuites NONE"),
            ("CipherString NONE", "CipherString NONE"),
            (f"DHParameters {gone}", gone),
            (f"DHParameters {self.pair.key}", self.pair.key),
            (f"Certificate {gone}", gone),
            (f"PrivateKey {gone}", gone),
            (f"PrivateKey {other.key}", f"PrivateKey {other.key}"),
            (f"Certificate {other.certificate}", f"Certificate {other.certificate}"),
        ):
            error = self.assertRaises(TLSError, self.server, given)
            self.assertEqual((error.option, error.value), ("ssl_conf_command", value))
