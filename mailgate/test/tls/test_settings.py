"""
Tests for L{mailgate.tls.settings} and L{mailgate.tls.backendsettings}: handshakes with the standard library's TLS at
the other end.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from typing import Any

from attrs import evolve
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

from mailgate.directives import ListenAddress, Problem, ServerSettings
from mailgate.login import TLSState
from mailgate.test.support.nowhere import NOWHERE
from mailgate.test.support.tlspair import Pair, clientContext, connect, inline, makePair, settingsFor, write
from mailgate.testing import settingsOf
from mailgate.tls import settings as tls
from mailgate.tls.backend import backendTLS
from mailgate.tls.backendsettings import BackendTLSSettings, loadTrust
from mailgate.tls.errors import CertificateError
from mailgate.tls.files import TLSError, sources
from mailgate.tls.server import ServerTLS, describeTLS
from mailgate.tls.settings import SessionCache, TLSSettings, usesTLS


class ServerTLSTests(SynchronousTestCase):
    """L{ServerTLS} as a client meets it."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.pair = makePair(self.folder, "ec")

    def server(self, *pairs: Pair, **changes: Any) -> ServerTLS:
        return ServerTLS(settingsFor(*(pairs or (self.pair,)), **changes), "imap")

    def test_interface(self) -> None:
        """It is what C{startTLS} wants."""
        self.assertTrue(verifyObject(IOpenSSLServerConnectionCreator, self.server()))

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are spoken by default."""
        for version, name in (("TLSv1_2", "TLSv1.2"), ("TLSv1_3", "TLSv1.3")):
            peer, connection = connect(self.server(), clientContext(version))
            self.assertEqual(peer.tls.version(), name)
            self.assertEqual(describeTLS(connection), TLSState(name, peer.cipher))

    def test_versionNotAllowed(self) -> None:
        """A version that ssl_protocols leaves out is refused."""
        for allowed, spoken in (("TLSv1.3", "TLSv1_2"), ("TLSv1.2", "TLSv1_3")):
            with self.assertRaises((ssl.SSLError, SSL.Error)):
                connect(self.server(protocols=(allowed,)), clientContext(spoken))

    def test_oldVersions(self) -> None:
        """TLS 1.0 and 1.1 are refused by default, even to a client that would take any cipher."""
        for version in ("TLSv1", "TLSv1_1"):
            context = clientContext(version, "ALL:@SECLEVEL=0")
            self.assertEqual([each["category"] for each in self.flushWarnings()][-1:], [DeprecationWarning])
            with self.assertRaises((ssl.SSLError, SSL.Error)):
                connect(self.server(ciphers="ALL:@SECLEVEL=0"), context)

    def test_ciphers(self) -> None:
        """Of TLS 1.2 the ciphers of ssl_ciphers are spoken, and no others."""
        server = self.server(ciphers="ECDHE-ECDSA-AES256-GCM-SHA384")
        peer, _ = connect(server, clientContext("TLSv1_2"))
        self.assertEqual(peer.cipher, "ECDHE-ECDSA-AES256-GCM-SHA384")
        with self.assertRaises((ssl.SSLError, SSL.Error)):
            connect(server, clientContext("TLSv1_2", "ECDHE-ECDSA-AES128-GCM-SHA256"))

    def test_cipherPreference(self) -> None:
        """The client's order of ciphers counts, and with ssl_prefer_server_ciphers the server's."""
        first, second = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"
        context = clientContext("TLSv1_2", f"{first}:{second}")
        for prefers, chosen in ((False, first), (True, second)):
            server = self.server(ciphers=f"{second}:{first}", preferServerCiphers=prefers)
            self.assertEqual(connect(server, context)[0].cipher, chosen)

    def test_severalPairs(self) -> None:
        """Of pairs of different kinds each client gets the one that its ciphers ask for."""
        pairs = (makePair(self.folder, "rsa", kind="rsa"), self.pair)
        server = self.server(*pairs)
        for cipher, pair in (("ECDHE-RSA-AES128-GCM-SHA256", pairs[0]), ("ECDHE-ECDSA-AES128-GCM-SHA256", pairs[1])):
            peer, _ = connect(server, clientContext("TLSv1_2", cipher))
            with open(pair.certificate) as stream:
                expected = ssl.PEM_cert_to_DER_cert(stream.read())
            self.assertEqual(peer.tls.getpeercert(True), expected)

    def test_chain(self) -> None:
        """A certificate's file may hold the chain that is sent with it."""
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
        """An encrypted key is opened with whichever pass-phrase of ssl_password_file fits."""
        pair = makePair(self.folder, "locked", passPhrase=b"open sesame")
        for content in (b"open sesame", b"wrong\n\nopen sesame\n", b"wrong\r\nopen sesame\r\nother\r\n"):
            passwords = write(os.path.join(self.folder, "passwords"), content)
            connect(self.server(pair, passwordFile=passwords))

    def test_plainKeyBesidesPasswords(self) -> None:
        """A key that is not encrypted needs no pass-phrase, even where there are some."""
        passwords = write(os.path.join(self.folder, "passwords"), b"wrong\n")
        connect(self.server(passwordFile=passwords))

    def test_inline(self) -> None:
        """Certificate, chain and key may stand in the directives themselves; so may an encrypted key."""
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
        """TLS 1.0 and 1.1 are spoken where ssl_protocols and ssl_ciphers allow them."""
        for version, name in (("TLSv1", "TLSv1"), ("TLSv1_1", "TLSv1.1")):
            context = clientContext(version, "ALL:@SECLEVEL=0")
            self.flushWarnings()
            server = self.server(protocols=("TLSv1", "TLSv1.1"), ciphers="HIGH:@SECLEVEL=0")
            self.assertEqual(connect(server, context)[0].tls.version(), name)

    def test_noCompressionNoRenegotiation(self) -> None:
        """TLS is neither compressed nor negotiated anew."""
        peer, connection = connect(self.server(), clientContext("TLSv1_2"))
        self.assertIsNone(peer.tls.compression())
        error = self.assertRaises(SSL.Error, connection.renegotiate)
        self.assertIn("no renegotiation", str(error))


class ResumptionTests(SynchronousTestCase):
    """Whether a client's second connection needs a whole handshake."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.pair = makePair(self.folder, "ec")

    def resumes(self, version: str, *servers: ServerTLS) -> bool:
        """Whether a client's session at the first of C{servers} is resumed at the last."""
        context = clientContext(version)
        first, _ = connect(servers[0], context)
        second, _ = connect(servers[-1], context, first.tls.session)
        return bool(second.tls.session_reused)

    def server(self, protocol: str = "imap", **changes: Any) -> ServerTLS:
        return ServerTLS(settingsFor(self.pair, **changes), protocol)

    def test_tickets(self) -> None:
        """It is resumed by a ticket, whatever the session cache, as that costs the server nothing."""
        for version in ("TLSv1_2", "TLSv1_3"):
            for cache in (SessionCache(), SessionCache(True)):
                self.assertTrue(self.resumes(version, self.server(sessionCache=cache)), (version, cache))

    def test_cache(self) -> None:
        """Without tickets it is resumed out of the session cache."""
        for version in ("TLSv1_2", "TLSv1_3"):
            server = self.server(sessionCache=SessionCache(True), sessionTickets=False)
            self.assertTrue(self.resumes(version, server), version)

    def test_neither(self) -> None:
        """With neither it is not."""
        for version in ("TLSv1_2", "TLSv1_3"):
            self.assertFalse(self.resumes(version, self.server(sessionTickets=False)), version)

    def test_otherServer(self) -> None:
        """A session of one server is nothing to another."""
        for version in ("TLSv1_2", "TLSv1_3"):
            self.assertFalse(self.resumes(version, self.server(), self.server("pop3")))


class BadSettingsTests(SynchronousTestCase):
    """What cannot be loaded is a problem of the option that names it."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.pair = makePair(self.folder, "ec")

    def problems(self, settings: Any, ssl: bool = True) -> list[Problem]:
        server = ServerSettings("imap", "imap", (ListenAddress("127.0.0.1", 993, ssl),), {type(settings): settings})
        return list(settings.problems(server))

    def assertProblem(self, option: str, part: str, value: str | None, settings: Any) -> None:
        (problem,) = self.problems(settings)
        self.assertEqual((problem.section, problem.option, problem.value), ("server imap", option, value))
        self.assertIn(part, problem.message)
        self.assertNotIn("\n", str(problem))

    def path(self, name: str, content: bytes | None = None) -> str:
        path = os.path.join(self.folder, name)
        return path if content is None else write(path, content)

    def test_good(self) -> None:
        """What can be loaded is no problem."""
        self.assertEqual(self.problems(settingsFor(self.pair)), [])

    def test_noTLS(self) -> None:
        """A server that never speaks TLS may name files that do not exist, as in nginx."""
        settings = settingsFor(Pair(self.path("gone"), self.path("gone")))
        self.assertEqual(self.problems(settings, ssl=False), [])

    def test_missingCertificate(self) -> None:
        """A server that speaks TLS needs a certificate; the message says what for."""
        self.assertProblem("ssl_certificate", 'is missing, "listen … ssl" needs it', None, TLSSettings())
        for starttls in ("on", "only"):
            (problem,) = self.problems(TLSSettings(starttls=starttls), ssl=False)
            self.assertIn('"starttls" needs it', problem.message)

    def test_missingKey(self) -> None:
        """Every certificate needs a key."""
        settings = TLSSettings(certificates=(self.pair.certificate,))
        self.assertProblem("ssl_certificate_key", f'for certificate "{self.pair.certificate}"', None, settings)

    def test_goneFiles(self) -> None:
        """A file that cannot be read is named, with the reason."""
        gone = self.path("gone")
        for pair, option in (
            (Pair(gone, self.pair.key), "ssl_certificate"),
            (Pair(self.pair.certificate, gone), "ssl_certificate_key"),
        ):
            self.assertProblem(option, "cannot be read: No such file", gone, settingsFor(pair))

    def test_brokenFiles(self) -> None:
        """So is one that holds something else."""
        broken = self.path("broken", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        empty = self.path("empty", b"")
        for bad in (broken, empty):
            self.assertProblem("ssl_certificate", "cannot be loaded", bad, settingsFor(Pair(bad, self.pair.key)))
            self.assertProblem(
                "ssl_certificate_key", "cannot be loaded", bad, settingsFor(Pair(self.pair.certificate, bad))
            )

    def test_folder(self) -> None:
        """A folder is no certificate, and no key either."""
        for pair, option in (
            (Pair(self.folder, self.pair.key), "ssl_certificate"),
            (Pair(self.pair.certificate, self.folder), "ssl_certificate_key"),
        ):
            self.assertProblem(option, "cannot be read", self.folder, settingsFor(pair))

    def test_fifo(self) -> None:
        """Nor is a FIFO, which nobody may ever write to, and nothing else that is named beside them; it is not read."""
        fifo = self.path("fifo")
        os.mkfifo(fifo)
        certificate, key = self.pair.certificate, self.pair.key
        for option, settings in (
            ("ssl_certificate", settingsFor(Pair(fifo, key))),
            ("ssl_certificate_key", settingsFor(Pair(certificate, fifo))),
            ("ssl_password_file", settingsFor(self.pair, passwordFile=fifo)),
            ("ssl_dhparam", settingsFor(self.pair, dhParameters=fifo)),
            ("ssl_client_certificate", settingsFor(self.pair, verifyClient="on", clientCertificate=fifo)),
            ("ssl_trusted_certificate", settingsFor(self.pair, verifyClient="on", trustedCertificate=fifo)),
            ("ssl_crl", settingsFor(self.pair, verifyClient="optional_no_ca", revoked=fifo)),
            ("ssl_session_ticket_key", settingsFor(self.pair, ticketKeys=(fifo,))),
            ("ssl_conf_command", settingsFor(self.pair, commands=(("Certificate", fifo),))),
            ("ssl_conf_command", settingsFor(self.pair, commands=(("PrivateKey", fifo),))),
            ("ssl_conf_command", settingsFor(self.pair, commands=(("DHParameters", fifo),))),
            ("proxy_ssl_trusted_certificate", BackendTLSSettings(fifo)),
        ):
            (problem,) = self.problems(settings)
            self.assertEqual((problem.option, problem.value), (option, fifo))
            self.assertIn("it is no regular file", problem.message)

    def test_otherKey(self) -> None:
        """A key that belongs to another certificate is found out before a client is."""
        for kind in ("ec", "rsa"):
            other = makePair(self.folder, "other", kind=kind)
            settings = settingsFor(Pair(self.pair.certificate, other.key))
            self.assertProblem("ssl_certificate_key", "does not belong to certificate", other.key, settings)

    def test_encryptedKey(self) -> None:
        """An encrypted key without a pass-phrase, or with wrong ones, is a problem and no prompt on the terminal."""
        pair = makePair(self.folder, "locked", passPhrase=b"open sesame")
        self.assertProblem("ssl_certificate_key", "no ssl_password_file is given", pair.key, settingsFor(pair))
        passwords = self.path("passwords", b"wrong\nagain\n")
        settings = settingsFor(pair, passwordFile=passwords)
        self.assertProblem("ssl_certificate_key", "cannot be loaded", pair.key, settings)
        self.assertNotIn("wrong", str(self.problems(settings)[0]))

    def test_passwordFile(self) -> None:
        """A password file that cannot be read is a problem of its own, even where nobody needs it."""
        gone = self.path("gone")
        settings = settingsFor(self.pair, passwordFile=gone)
        self.assertProblem("ssl_password_file", "cannot be read: No such file", gone, settings)
        self.assertEqual(len(self.problems(settings, ssl=False)), 1)

    def test_ciphers(self) -> None:
        """Ciphers of which OpenSSL knows none are a problem."""
        settings = settingsFor(self.pair, ciphers="NONESUCH")
        self.assertProblem("ssl_ciphers", "no cipher match", "NONESUCH", settings)

    def test_inline(self) -> None:
        """What is wrong with a key, or a certificate, in the file itself is told without it, and no C{repr} has it."""
        certificate, key = inline(self.pair.certificate), inline(self.pair.key)
        secret = key[100:140]
        for given, option in (
            (Pair(certificate, key.replace("PRIVATE", "SECRET")), "ssl_certificate_key"),
            (Pair(key, key), "ssl_certificate"),
            (Pair(certificate, inline(makePair(self.folder, "other").key)), "ssl_certificate_key"),
            (Pair(certificate, inline(makePair(self.folder, "x", passPhrase=b"x").key)), "ssl_certificate_key"),
        ):
            settings = settingsFor(given)
            (problem,) = self.problems(settings)
            self.assertEqual((problem.option, problem.value), (option, "data:***"))
            for text in (given.key[100:140], secret):
                self.assertNotIn(text, str(problem) + repr(problem) + repr(settings))
        lacking = TLSSettings(certificates=(certificate,))
        self.assertNotIn("BEGIN", str(self.problems(lacking)[0]))

    def test_engines(self) -> None:
        """Keys of engines and stores are refused, with the reason."""
        for value in ("engine:pkcs11:x", "store:pkcs11:token=x"):
            error = self.assertRaises(ValueError, sources, value, "")
            self.assertIn("cannot be used: the TLS library's bindings load nothing from", str(error))

    def test_noRoots(self) -> None:
        """Who wants clients to have good certificates has to say by whom; optional_no_ca does not."""
        for mode in ("on", "optional"):
            settings = settingsFor(self.pair, verifyClient=mode)
            self.assertProblem("ssl_verify_client", "needs ssl_client_certificate or ssl_trusted", mode, settings)
            for root in ("clientCertificate", "trustedCertificate"):
                self.assertEqual(
                    self.problems(settingsFor(self.pair, verifyClient=mode, **{root: self.pair.certificate})), []
                )
        for mode in ("off", "optional_no_ca"):
            self.assertEqual(self.problems(settingsFor(self.pair, verifyClient=mode)), [])

    def test_clientFiles(self) -> None:
        """Files about clients' certificates have to be what they are for, where they are asked for."""
        options = {
            "clientCertificate": "ssl_client_certificate",
            "trustedCertificate": "ssl_trusted_certificate",
            "revoked": "ssl_crl",
        }
        gone, empty = self.path("gone"), self.path("empty", b"")
        broken = self.path("broken", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
        for attribute, option in options.items():
            for path, part in ((gone, "cannot be read: No such file"), (empty, ""), (broken, "")):
                changes = {attribute: path, "verifyClient": "optional_no_ca"}
                self.assertProblem(option, part, path, settingsFor(self.pair, **changes))
                self.assertEqual(self.problems(settingsFor(self.pair, **{attribute: path})), [])

    def test_dhParameters(self) -> None:
        """Parameters for DHE have to be some."""
        for path, part in ((self.path("gone"), "cannot be read"), (self.pair.key, "cannot be loaded")):
            self.assertProblem("ssl_dhparam", part, path, settingsFor(self.pair, dhParameters=path))

    def test_command(self) -> None:
        """So has what ssl_conf_command names."""
        settings = settingsFor(self.pair, commands=(("Ciphersuites", "NONE"),))
        self.assertProblem("ssl_conf_command", "no cipher match", "Ciphersuites NONE", settings)

    def test_unreadable(self) -> None:
        """All the files that are not there are told of, not the first alone; those that are not asked for are not."""
        gone = [self.path(f"gone{number}") for number in range(6)]
        settings = TLSSettings(
            certificates=(gone[0],), keys=(gone[1],), clientCertificate=gone[2], trustedCertificate=gone[3],
            revoked=gone[4], dhParameters=gone[5],
        )  # fmt: skip
        told = [problem.value for problem in self.problems(settings)]
        self.assertEqual(told, [gone[0], gone[1], gone[5]])
        found = self.problems(evolve(settings, verifyClient="on"))
        self.assertEqual([problem.value for problem in found], gone)
        self.assertEqual({problem.message for problem in found}, {"cannot be read: No such file or directory"})

    def test_extraKeys(self) -> None:
        """More keys than certificates are none too many, as in nginx."""
        settings = TLSSettings(certificates=(self.pair.certificate,), keys=(self.pair.key, self.path("gone")))
        self.assertEqual(self.problems(settings), [])

    def test_noVersion(self) -> None:
        """Versions that nobody speaks any more are not enough."""
        settings = settingsFor(self.pair, protocols=("SSLv2", "SSLv3"))
        self.assertProblem("ssl_protocols", "no version that the TLS library still speaks", "SSLv2 SSLv3", settings)

    def warned(self, settings: TLSSettings, ssl: bool = True) -> list[tuple[str, str]]:
        """The options that are warned of, and the words."""
        server = ServerSettings("imap", "imap", (ListenAddress("127.0.0.1", 993, ssl),), {TLSSettings: settings})
        return [(warning.option, warning.message) for warning in settings.warnings(server)]

    def test_openToAllWarned(self) -> None:
        """Keys that everybody may read are warned of, as are the other secrets; certificates are none."""
        settings = settingsFor(
            self.pair,
            Pair("data:PEM", "data:sesame"),
            passwordFile=f"{NOWHERE}/passwords",
            ticketKeys=(f"{NOWHERE}/tickets",),
            commands=(("PrivateKey", f"{NOWHERE}/other.key"), ("Certificate", f"{NOWHERE}/other.crt")),
            dhParameters=f"{NOWHERE}/dh",
        )
        self.patch(tls, "isOpenToAll", lambda path: True)
        options = ["ssl_certificate_key", "ssl_password_file", "ssl_session_ticket_key", "ssl_conf_command"]
        message = "everybody on this host may read it: chmod o-r it"
        self.assertEqual(self.warned(settings), [(option, message) for option in options])
        self.assertEqual(self.warned(settings, ssl=False), [])
        self.patch(tls, "isOpenToAll", lambda path: False)
        self.assertEqual(self.warned(settings), [])

    def test_oldVersionsWarned(self) -> None:
        """Old versions are warned of that need weaker ciphers, and those that cannot be had, if TLS is spoken."""
        old = ("TLSv1", "TLSv1.1", "TLSv1.2")
        message = "TLSv1 and TLSv1.1 cannot be spoken without @SECLEVEL=0 in ssl_ciphers"
        self.assertEqual(self.warned(TLSSettings(protocols=old)), [("ssl_protocols", message)])
        self.assertEqual(self.warned(TLSSettings(protocols=old), ssl=False), [])
        self.assertEqual(self.warned(TLSSettings(protocols=old, ciphers="HIGH:@SECLEVEL=0")), [])
        self.assertEqual(self.warned(TLSSettings()), [])
        ((option, message),) = self.warned(TLSSettings(protocols=("SSLv3", "TLSv1.2")))
        self.assertEqual((option, message.partition(":")[0]), ("ssl_protocols", "SSLv3 cannot be spoken"))

    def test_compressionWarned(self) -> None:
        """Compressed certificates are warned of, as they cannot be had; nginx's words."""
        ((option, message),) = self.warned(TLSSettings(certificateCompression=True))
        self.assertEqual(option, "ssl_certificate_compression")
        self.assertIn("is not supported", message)
        self.assertIn("ignored", message)

    def test_error(self) -> None:
        """The error itself says the same to those who make a context themselves."""
        error = self.assertRaises(TLSError, ServerTLS, settingsFor(self.pair, ciphers="NONESUCH"), "imap")
        self.assertEqual((error.option, error.value), ("ssl_ciphers", "NONESUCH"))

    def test_trust(self) -> None:
        """So is a file of trusted certificates that is not one."""
        self.assertEqual(self.problems(BackendTLSSettings()), [])
        self.assertEqual(self.problems(BackendTLSSettings(self.pair.certificate)), [])
        broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        for path, told in (
            (self.path("gone"), "cannot be read: No such file or directory"),
            (self.path("empty", b""), "cannot be loaded"),
            (self.path("broken", broken), "cannot be loaded"),
            (self.pair.key, "cannot be loaded"),
        ):
            settings = BackendTLSSettings(path)
            self.assertProblem("proxy_ssl_trusted_certificate", told, path, settings)

    def test_usesTLS(self) -> None:
        """TLS is used where an address, or starttls, asks for it."""
        self.assertFalse(usesTLS(settingsOf("imap")))
        self.assertTrue(usesTLS(settingsOf("imap", TLSSettings(starttls="on"))))
        self.assertTrue(usesTLS(settingsOf("imap", TLSSettings(starttls="only"))))
        self.assertTrue(usesTLS(ServerSettings("imap", "imap", (ListenAddress("127.0.0.1", 993, True),))))


class SessionCacheTests(SynchronousTestCase):
    """The value of ssl_session_cache."""

    def parse(self, value: str) -> Any:
        from mailgate.directives import directives

        (found,) = (each for each in directives(TLSSettings) if each.name == "ssl_session_cache")
        return found.parse(value, "")

    def test_nginx(self) -> None:
        """nginx's forms are understood."""
        self.assertEqual(self.parse("off"), SessionCache())
        self.assertEqual(self.parse("none"), SessionCache())
        self.assertEqual(self.parse("builtin"), SessionCache(True))
        self.assertEqual(self.parse("builtin:1000"), SessionCache(True))
        self.assertEqual(self.parse("shared:SSL:10m"), SessionCache(True, "SSL", 10 * 1024 * 1024))
        self.assertEqual(self.parse("builtin:1000 shared:SSL:32k"), SessionCache(True, "SSL", 32 * 1024))

    def test_invalid(self) -> None:
        """Anything else is not."""
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
        """A shared cache takes eight pages, as in nginx."""
        error = self.assertRaises(ValueError, self.parse, "shared:SSL:31k")
        self.assertIn("too small", str(error))


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
    """A backend's TLS; C{names} are those that clients asked for."""

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
    """L{backendTLS} before backends with good and bad certificates, over Twisted's own TLS."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.pair = makePair(self.folder, "backend", "mail.example.com", "127.0.0.1")
        self.backend = Backend(self.pair)

    def connect(self, host: str, verify: bool = True, trust: Any = None) -> Listener:
        """What becomes of a connection to C{self.backend}, of which we think that it is C{host}."""
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
        """A certificate that is trusted and good for the name, or the address, is taken; the name is sent as SNI."""
        trust = loadTrust(self.pair.certificate)
        self.assertTaken("mail.example.com", trust=trust)
        self.assertTaken("127.0.0.1", trust=trust)
        self.assertTaken("mail.example.com.", trust=trust)
        self.assertEqual(self.backend.names, [b"mail.example.com", None, b"mail.example.com"])

    def test_wrongName(self) -> None:
        """One that is trusted but belongs to somebody else is not."""
        trust = loadTrust(self.pair.certificate)
        for host in ("other.example.com", "example.com", "127.0.0.2", "::1"):
            reason = self.assertRefused(host, trust=trust)
            self.assertIsInstance(reason, CertificateError)

    def test_blanks(self) -> None:
        """Nor is one whose name has a blank or a line end around it, which is no part of a host's name."""
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
        """One whose issuer is not trusted is not, whether we have roots of our own or the platform's."""
        other = makePair(self.folder, "other", "mail.example.com")
        for trust in (loadTrust(other.certificate), None):
            reason = self.assertRefused("mail.example.com", trust=trust)
            self.assertIn("its certificate is self-signed, and not among the trusted ones", str(reason))

    def test_unverified(self) -> None:
        """With verification off any certificate is, and a name is sent as SNI all the same; an address is not."""
        for host in ("other.example.com", "127.0.0.2", "::1", "2001:db8::cafe"):
            self.assertTaken(host, verify=False)
        self.assertEqual(self.backend.names, [b"other.example.com", None, None, None])

    def test_underscore(self) -> None:
        """A name that Twisted takes for none is sent, and has to be the certificate's, as any other."""
        pair = makePair(self.folder, "compose", "mail_backend", "*.my_net.example", "r3---a.example")
        self.backend = Backend(pair)
        trust = loadTrust(pair.certificate)
        good = "mail_backend", "Mail_Backend", "a_b.my_net.example", "r3---a.example"
        for host in good:
            self.assertTaken(host, trust=trust)
        for host in ("mail_other", "my_net.example", "a.b.my_net.example", "r3---b.example"):
            self.assertIn("its certificate is for another name", str(self.assertRefused(host, trust=trust)))
        self.assertEqual(self.backend.names[: len(good)], [each.lower().encode() for each in good])

    def test_underscoreUntrusted(self) -> None:
        """An issuer that is not trusted does not become so by that."""
        pair = makePair(self.folder, "compose", "mail_backend")
        self.backend = Backend(pair)
        for trust in (loadTrust(self.pair.certificate), None):
            self.assertIn("is self-signed", str(self.assertRefused("mail_backend", trust=trust)))
        self.assertTaken("mail_backend", verify=False)

    def test_unreadableNames(self) -> None:
        """A certificate whose names cannot be made out is good for none: Twisted's own would take it for any."""
        pair = makePair(self.folder, "compose", "*.*.example")
        self.backend = Backend(pair)
        for host in ("mail_backend", "mail.example.com", "a.b.example", "127.0.0.1"):
            self.assertRefused(host, trust=loadTrust(pair.certificate))

    def test_noName(self) -> None:
        """What can be no name is refused before a connection is tried."""
        for host in ("a..b", "unix:/run/imap", "a_/b"):
            self.assertRaises(ValueError, backendTLS, host, True, None)

    def test_internationalName(self) -> None:
        """A name in another script is sent as what the DNS calls it."""
        self.assertTaken("b\u00fccher.example", verify=False)
        self.assertEqual(self.backend.names, [b"xn--bcher-kva.example"])

    def test_severalRoots(self) -> None:
        """Each certificate in a file of trusted ones counts, whatever stands between them."""
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
        """Versions before TLS 1.2 are not spoken, verified or not."""
        new = SSL.OP_NO_TLSv1_3 | SSL.OP_NO_TLSv1_2
        self.backend = Backend(self.pair, new, ciphers="ALL:@SECLEVEL=0")
        self.assertRefused("mail.example.com", verify=False)
        self.assertRefused("mail.example.com", trust=loadTrust(self.pair.certificate))
