"""
Tests for L{mailgate.sandbox.certificate}.
"""

from __future__ import annotations

import os
import stat
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.directives import ConfigurationError, GatewaySettings
from mailgate.frontend.settings import DialogueSettings
from mailgate.sandbox.certificate import ensureCertificate, stateFolder, withCertificate
from mailgate.tls.settings import TLSSettings

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)


def contents(*paths: str) -> list[bytes]:
    """The contents of the files."""
    found = []
    for path in paths:
        with open(path, "rb") as stream:
            found.append(stream.read())
    return found


class StateFolderTests(SynchronousTestCase):
    """Tests for L{stateFolder}."""

    def test_stateHome(self):
        """An absolute C{XDG_STATE_HOME} is used."""
        self.assertEqual(stateFolder({"XDG_STATE_HOME": "/s", "HOME": "/h"}), "/s/mailgate")

    def test_home(self):
        """Without it, or if it is relative, the folder is below the home folder."""
        self.assertEqual(stateFolder({"HOME": "/h"}), "/h/.local/state/mailgate")
        self.assertEqual(stateFolder({"XDG_STATE_HOME": "s", "HOME": "/h"}), "/h/.local/state/mailgate")

    def test_noHome(self):
        """Without C{HOME} the home folder comes from the user database."""
        self.assertTrue(os.path.isabs(stateFolder({})))


class EnsureCertificateTests(SynchronousTestCase):
    """Tests for L{ensureCertificate}."""

    def setUp(self):
        self.folder = os.path.join(self.mktemp(), "state", "mailgate")

    def ensure(self, *names: str, now: datetime = NOW) -> tuple[str, str]:
        return ensureCertificate(self.folder, names, now)

    def test_modes(self):
        """Only the owner can read the folder and the key, whatever the umask; there are no other files."""
        self.addCleanup(os.umask, os.umask(0))
        certificate, key = self.ensure()
        self.assertEqual(stat.S_IMODE(os.stat(self.folder).st_mode), 0o700)
        self.assertEqual(stat.S_IMODE(os.stat(key).st_mode), 0o600)
        self.assertEqual(sorted(os.listdir(self.folder)), sorted(map(os.path.basename, (certificate, key))))

    def test_pair(self):
        """Certificate and key are a pair: ECDSA on P-256, valid for a year."""
        certificate, key = contents(*self.ensure())
        loaded = x509.load_pem_x509_certificate(certificate)
        private = load_pem_private_key(key, None)
        self.assertEqual(loaded.public_key(), private.public_key())
        self.assertIsInstance(private.curve, ec.SECP256R1)
        self.assertTrue(loaded.not_valid_before_utc < NOW < loaded.not_valid_after_utc <= NOW + timedelta(days=366))

    def test_names(self):
        """It is valid for the names of the loopback and for the given names, once each."""
        (certificate, _) = contents(*self.ensure("mail.example.com", "localhost", "192.0.2.7", "bücher.example"))
        names = (
            x509.load_pem_x509_certificate(certificate)
            .extensions.get_extension_for_class(x509.SubjectAlternativeName)
            .value
        )
        self.assertEqual(
            names.get_values_for_type(x509.DNSName), ["localhost", "mail.example.com", "xn--bcher-kva.example"]
        )
        self.assertEqual(
            [str(address) for address in names.get_values_for_type(x509.IPAddress)], ["127.0.0.1", "::1", "192.0.2.7"]
        )

    def test_ownAuthority(self):
        """OpenSSL accepts it if it is the only certificate authority."""
        now = datetime.now(timezone.utc)
        (certificate, _) = contents(*self.ensure(now=now))
        loaded = crypto.load_certificate(crypto.FILETYPE_PEM, certificate)
        store = crypto.X509Store()
        store.add_cert(loaded)
        self.assertIsNone(crypto.X509StoreContext(store, loaded).verify_certificate())
        constraints = loaded.to_cryptography().extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertTrue(constraints.value.ca)

    def test_kept(self):
        """A valid pair is kept, also for fewer names."""
        before = contents(*self.ensure("mail.example.com"))
        self.assertEqual(contents(*self.ensure("mail.example.com")), before)
        self.assertEqual(contents(*self.ensure()), before)

    def remade(self, *names: str, now: datetime = NOW) -> None:
        before = contents(*(os.path.join(self.folder, name) for name in ("certificate.pem", "key.pem")))
        paths = self.ensure(*names, now=now)
        after = contents(*paths)
        self.assertNotEqual(before[0], after[0])
        self.assertNotEqual(before[1], after[1])
        self.assertEqual(contents(*self.ensure(*names, now=now)), after)
        self.assertEqual(stat.S_IMODE(os.stat(paths[1]).st_mode), 0o600)

    def test_expired(self):
        """It is made again when it has expired, and some days before."""
        self.ensure()
        self.remade(now=NOW + timedelta(days=360))

    def test_notYetValid(self):
        """It is made again if it is not valid yet: the clock was wrong when it was made."""
        self.ensure()
        self.remade(now=NOW - timedelta(days=1))

    def test_otherNames(self):
        """It is made again for a name that it is not valid for."""
        self.ensure("a.example")
        self.remade("b.example")

    def test_mismatch(self):
        """It is made again if the key does not belong to it, as after a crash between the two files."""
        _, key = self.ensure()
        (other,) = contents(ensureCertificate(self.mktemp(), (), NOW)[1])
        with open(key, "wb") as stream:
            stream.write(other)
        self.remade()

    def test_unreadable(self):
        """It is made again if one of the files has other contents."""
        for path in self.ensure():
            with open(path, "wb") as stream:
                stream.write(b"-----BEGIN NONSENSE-----\n")
            self.remade()

    def test_looseKey(self):
        """It is made again if other users can read the key."""
        _, key = self.ensure()
        os.chmod(key, 0o644)
        self.remade()

    def test_missingFile(self):
        """It is made again if a file is missing."""
        paths = self.ensure()
        for path in paths:
            os.unlink(path)
            self.ensure()
            self.assertTrue(all(map(os.path.exists, paths)))

    def test_leftover(self):
        """A partial file of a killed run does no harm, and symbolic links are not followed."""
        os.makedirs(self.folder)
        elsewhere = self.mktemp()
        os.symlink(os.path.abspath(elsewhere), os.path.join(self.folder, f"key.pem.{os.getpid()}.new"))
        self.ensure()
        self.assertFalse(os.path.exists(elsewhere))

    def test_noFolder(self):
        """A folder that cannot be made raises L{OSError}."""
        path = self.mktemp()
        with open(path, "w"):
            pass
        self.assertRaises(OSError, ensureCertificate, os.path.join(path, "mailgate"), (), NOW)


class WithCertificateTests(SynchronousTestCase):
    """Tests for L{withCertificate}."""

    servers = (
        "[mail]\nproxy_pass = 10.0.0.1:143\nstarttls = on\n"
        "[server a]\nlisten = 127.0.0.1:143\nserver_name = a.test\n"
        "[server b]\nlisten = 127.0.0.1:1143\nprotocol = imap\nserver_name = b.test\n"
    )

    def setUp(self):
        self.folder = os.path.abspath(self.mktemp())

    def equipped(self, text: str) -> GatewaySettings:
        return withCertificate(parse(text), self.folder, lambda server: server[DialogueSettings].serverName)

    def problems(self, text: str) -> list[str]:
        error = self.assertRaises(ConfigurationError, self.equipped, text)
        return [str(problem) for problem in error.problems]

    def test_given(self):
        """Servers that need a certificate and have none get that of the sandbox, which is valid for all their names."""
        settings = self.equipped("[sandbox]\n" + self.servers)
        path = os.path.join(self.folder, "certificate.pem")
        self.assertEqual([server[TLSSettings].certificates for server in settings.servers], [(path,)] * 2)
        (key,) = settings.servers[0][TLSSettings].keys
        self.assertEqual(stat.S_IMODE(os.stat(key).st_mode), 0o600)
        with open(path, "rb") as opened:
            made = x509.load_pem_x509_certificate(opened.read())
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertLessEqual({"a.test", "b.test"}, set(names.get_values_for_type(x509.DNSName)))

    def test_kept(self):
        """It is made once for several names."""
        contents = []
        for _ in range(2):
            ((path,),) = {
                server[TLSSettings].certificates for server in self.equipped("[sandbox]\n" + self.servers).servers
            }
            with open(path, "rb") as opened:
                contents.append(opened.read())
        self.assertEqual(contents[0], contents[1])

    def test_notNeeded(self):
        """Without [sandbox], or without TLS, no certificate is made and the settings are unchanged."""
        for text in ("[sandbox]\n" + self.servers.replace("starttls = on\n", ""), "[sandbox]\n" + self.own()):
            settings = parse(text)
            self.assertIs(withCertificate(settings, self.folder, lambda server: "x.test"), settings)
        settings = parse(self.own())
        self.assertIs(withCertificate(settings, self.folder, lambda server: "x.test"), settings)
        self.assertFalse(os.path.exists(self.folder))

    def own(self) -> str:
        """Servers with a certificate of their own keep it."""
        certificate, key = map(os.path.abspath, ensureCertificate(self.mktemp(), ()))
        return self.servers.replace(
            "[server a]", f"ssl_certificate = {certificate}\nssl_certificate_key = {key}\n[server a]"
        )

    def test_unwritable(self):
        """If it cannot be written, each server has a problem."""
        with open(self.folder, "wb"):
            pass
        problems = self.problems("[sandbox]\n" + self.servers)
        for name, problem in zip("ab", problems, strict=True):
            self.assertIn(f"[server {name}] ssl_certificate: the sandbox's certificate cannot be made: ", problem)

    def test_noHostName(self):
        """A name that no certificate can have is a problem, and no certificate is made."""
        (problem,) = self.problems("[sandbox]\n" + self.servers.replace("b.test", "mail..example"))
        self.assertIn("[server b] ssl_certificate: the sandbox's certificate cannot be made: ", problem)
        self.assertFalse(os.path.exists(self.folder))

    def test_otherTLS(self):
        """The TLS settings of the servers are checked with it."""
        text = "[sandbox]\n" + self.servers.replace("[server a]", "ssl_ciphers = nonsense\n[server a]")
        self.assertIn("[mail] ssl_ciphers = nonsense: ", self.problems(text)[0])
