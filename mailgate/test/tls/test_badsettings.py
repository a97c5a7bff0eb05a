"""Tests for errors in the TLS settings: certificates, keys, and words."""

from __future__ import annotations

import os
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import ListenAddress, Problem, ServerSettings
from mailgate.test.support.nowhere import NOWHERE
from mailgate.test.support.tlspair import Pair, inline, makePair, settingsFor, write
from mailgate.testing import settingsOf
from mailgate.tls import settings as tls
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.tls.files import TLSError, sources
from mailgate.tls.server import ServerTLS
from mailgate.tls.settings import TLSSettings, usesTLS


class BadSettingsTests(SynchronousTestCase):
    """A file that cannot be loaded is a problem of the option that names it."""

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
        """Good files cause no problem."""
        self.assertEqual(self.problems(settingsFor(self.pair)), [])

    def test_noTLS(self) -> None:
        """A server without TLS may name files that do not exist, as in nginx."""
        settings = settingsFor(Pair(self.path("gone"), self.path("gone")))
        self.assertEqual(self.problems(settings, ssl=False), [])

    def test_missingCertificate(self) -> None:
        """A server with TLS requires a certificate. The message says which option requires it."""
        self.assertProblem("ssl_certificate", 'is missing; "listen … ssl" requires a certificate', None, TLSSettings())
        for starttls in ("on", "only"):
            (problem,) = self.problems(TLSSettings(starttls=starttls), ssl=False)
            self.assertIn('"starttls" requires a certificate', problem.message)

    def test_missingKey(self) -> None:
        """Each certificate requires a key."""
        settings = TLSSettings(certificates=(self.pair.certificate,))
        self.assertProblem("ssl_certificate_key", f'for certificate "{self.pair.certificate}"', None, settings)

    def test_goneFiles(self) -> None:
        """The message names an unreadable file, and the reason."""
        gone = self.path("gone")
        for pair, option in (
            (Pair(gone, self.pair.key), "ssl_certificate"),
            (Pair(self.pair.certificate, gone), "ssl_certificate_key"),
        ):
            self.assertProblem(option, "cannot be read: No such file", gone, settingsFor(pair))

    def test_brokenFiles(self) -> None:
        """The message names a file with other content."""
        broken = self.path("broken", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        empty = self.path("empty", b"")
        for bad in (broken, empty):
            self.assertProblem("ssl_certificate", "cannot be loaded", bad, settingsFor(Pair(bad, self.pair.key)))
            self.assertProblem(
                "ssl_certificate_key", "cannot be loaded", bad, settingsFor(Pair(self.pair.certificate, bad))
            )

    def test_folder(self) -> None:
        """A folder is refused as a certificate and as a key."""
        for pair, option in (
            (Pair(self.folder, self.pair.key), "ssl_certificate"),
            (Pair(self.pair.certificate, self.folder), "ssl_certificate_key"),
        ):
            self.assertProblem(option, "cannot be read", self.folder, settingsFor(pair))

    def test_fifo(self) -> None:
        """A FIFO is refused for every option, and is not read."""
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
            ("proxy_ssl_trusted_certificate", BackendTLSSettings(trusted=fifo)),
        ):
            (problem,) = self.problems(settings)
            self.assertEqual((problem.option, problem.value), (option, fifo))
            self.assertIn("it is not a regular file", problem.message)

    def test_otherKey(self) -> None:
        """A key that does not match the certificate is refused at the start."""
        for kind in ("ec", "rsa"):
            other = makePair(self.folder, "other", kind=kind)
            settings = settingsFor(Pair(self.pair.certificate, other.key))
            self.assertProblem("ssl_certificate_key", "does not match certificate", other.key, settings)

    def test_encryptedKey(self) -> None:
        """An encrypted key without the right pass phrase is a problem. OpenSSL does not prompt for it."""
        pair = makePair(self.folder, "locked", passPhrase=b"open sesame")
        self.assertProblem("ssl_certificate_key", "is encrypted; set ssl_password_file", pair.key, settingsFor(pair))
        passwords = self.path("passwords", b"wrong\nagain\n")
        settings = settingsFor(pair, passwordFile=passwords)
        self.assertProblem("ssl_certificate_key", "cannot be loaded", pair.key, settings)
        self.assertNotIn("wrong", str(self.problems(settings)[0]))

    def test_passwordFile(self) -> None:
        """An unreadable password file is a problem even if it is not needed."""
        gone = self.path("gone")
        settings = settingsFor(self.pair, passwordFile=gone)
        self.assertProblem("ssl_password_file", "cannot be read: No such file", gone, settings)
        self.assertEqual(len(self.problems(settings, ssl=False)), 1)

    def test_ciphers(self) -> None:
        """A list without any cipher that OpenSSL knows is refused."""
        settings = settingsFor(self.pair, ciphers="NONESUCH")
        self.assertProblem("ssl_ciphers", "no cipher match", "NONESUCH", settings)

    def test_inline(self) -> None:
        """Messages about inline keys and certificates do not contain them, nor does any C{repr}."""
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
            self.assertIn("is not supported: pyOpenSSL cannot load from", str(error))

    def test_noRoots(self) -> None:
        """C{on} and C{optional} require CA certificates, C{optional_no_ca} does not."""
        for mode in ("on", "optional"):
            settings = settingsFor(self.pair, verifyClient=mode)
            self.assertProblem("ssl_verify_client", "in ssl_client_certificate or ssl_trusted", mode, settings)
            for root in ("clientCertificate", "trustedCertificate"):
                self.assertEqual(
                    self.problems(settingsFor(self.pair, verifyClient=mode, **{root: self.pair.certificate})), []
                )
        for mode in ("off", "optional_no_ca"):
            self.assertEqual(self.problems(settingsFor(self.pair, verifyClient=mode)), [])

    def test_clientFiles(self) -> None:
        """Files for client certificates are checked if clients are verified."""
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
        """A file without Diffie-Hellman parameters is refused."""
        for path, part in ((self.path("gone"), "cannot be read"), (self.pair.key, "cannot be loaded")):
            self.assertProblem("ssl_dhparam", part, path, settingsFor(self.pair, dhParameters=path))

    def test_command(self) -> None:
        """The files of ssl_conf_command are checked, too."""
        settings = settingsFor(self.pair, commands=(("Ciphersuites", "NONE"),))
        self.assertProblem("ssl_conf_command", "no cipher match", "Ciphersuites NONE", settings)

    def test_unreadable(self) -> None:
        """All unreadable files are reported, except for those that are not needed."""
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
        """More keys than certificates are accepted, as in nginx."""
        settings = TLSSettings(certificates=(self.pair.certificate,), keys=(self.pair.key, self.path("gone")))
        self.assertEqual(self.problems(settings), [])

    def test_noVersion(self) -> None:
        """SSLv2 and SSLv3 alone are refused."""
        settings = settingsFor(self.pair, protocols=("SSLv2", "SSLv3"))
        self.assertProblem("ssl_protocols", "no version that OpenSSL supports", "SSLv2 SSLv3", settings)

    def warned(self, settings: TLSSettings, ssl: bool = True) -> list[tuple[str, str]]:
        """The options and the messages of the warnings."""
        server = ServerSettings("imap", "imap", (ListenAddress("127.0.0.1", 993, ssl),), {TLSSettings: settings})
        return [(warning.option, warning.message) for warning in settings.warnings(server)]

    def test_openToAllWarned(self) -> None:
        """Keys and other secrets that every user can read cause a warning, certificates do not."""
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
        files = [self.pair.key, *(f"{NOWHERE}/{name}" for name in ("passwords", "tickets", "other.key"))]
        messages = [f"every user on this host can read it; run: chmod o-r {each}" for each in files]
        self.assertEqual(self.warned(settings), list(zip(options, messages, strict=True)))
        self.assertEqual(self.warned(settings, ssl=False), [])
        self.patch(tls, "isOpenToAll", lambda path: False)
        self.assertEqual(self.warned(settings), [])

    def test_oldVersionsWarned(self) -> None:
        """Old versions that need weaker ciphers, and unsupported ones, cause a warning if TLS is used."""
        old = ("TLSv1", "TLSv1.1", "TLSv1.2")
        message = "TLSv1 and TLSv1.1 cannot be negotiated without @SECLEVEL=0 in ssl_ciphers"
        self.assertEqual(self.warned(TLSSettings(protocols=old)), [("ssl_protocols", message)])
        self.assertEqual(self.warned(TLSSettings(protocols=old), ssl=False), [])
        self.assertEqual(self.warned(TLSSettings(protocols=old, ciphers="HIGH:@SECLEVEL=0")), [])
        self.assertEqual(self.warned(TLSSettings()), [])
        ((option, message),) = self.warned(TLSSettings(protocols=("SSLv3", "TLSv1.2")))
        self.assertEqual((option, message.partition(":")[0]), ("ssl_protocols", "SSLv3 cannot be negotiated"))

    def test_compressionWarned(self) -> None:
        """ssl_certificate_compression causes a warning."""
        ((option, message),) = self.warned(TLSSettings(certificateCompression=True))
        self.assertEqual(option, "ssl_certificate_compression")
        self.assertIn("pyOpenSSL does not support it", message)
        self.assertIn("has no effect", message)

    def test_error(self) -> None:
        """A program that makes a context itself gets the same message in the error."""
        error = self.assertRaises(TLSError, ServerTLS, settingsFor(self.pair, ciphers="NONESUCH"), "imap")
        self.assertEqual((error.option, error.value), ("ssl_ciphers", "NONESUCH"))

    def test_trust(self) -> None:
        """A file without trusted certificates is refused."""
        self.assertEqual(self.problems(BackendTLSSettings()), [])
        self.assertEqual(self.problems(BackendTLSSettings(trusted=self.pair.certificate)), [])
        broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        for path, told in (
            (self.path("gone"), "cannot be read: No such file or directory"),
            (self.path("empty", b""), "cannot be loaded"),
            (self.path("broken", broken), "cannot be loaded"),
            (self.pair.key, "cannot be loaded"),
        ):
            settings = BackendTLSSettings(trusted=path)
            self.assertProblem("proxy_ssl_trusted_certificate", told, path, settings)

    def test_usesTLS(self) -> None:
        """TLS is used if an address has C{ssl}, or by starttls."""
        self.assertFalse(usesTLS(settingsOf("imap")))
        self.assertTrue(usesTLS(settingsOf("imap", TLSSettings(starttls="on"))))
        self.assertTrue(usesTLS(settingsOf("imap", TLSSettings(starttls="only"))))
        self.assertTrue(usesTLS(ServerSettings("imap", "imap", (ListenAddress("127.0.0.1", 993, True),))))
