"""Tests for L{mailgate.tls.certificatechecks}: warnings about certificates, and errors of files with other content."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.http.settings import HTTPSettings
from mailgate.config import parse
from mailgate.directives import ConfigurationError, ListenAddress, ServerSettings
from mailgate.frontend.settings import DialogueSettings
from mailgate.test.support import certificates
from mailgate.test.support.memoryauthority import Authority
from mailgate.test.support.nowhere import NOWHERE
from mailgate.test.support.tlspair import Pair, inline, makePair, settingsFor, write
from mailgate.tls import certificatechecks
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.tls.settings import TLSSettings

NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)


class Case(SynchronousTestCase):
    """A certificate authority, and a folder for its files."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.authority = Authority("The authority")
        self.key = ec.generate_private_key(ec.SECP256R1())

    def issue(self, *names: str, issuer: Authority | None = None, **changes: Any) -> x509.Certificate:
        """A certificate for C{self.key}."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail")])
        return (issuer or self.authority).issue(subject, self.key, names or ("mx.test",), **changes)

    def pair(self, *chain: x509.Certificate) -> Pair:
        """Write C{chain} and its key to files."""
        pem = b"".join(each.public_bytes(Encoding.PEM) for each in chain)
        private = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Pair(
            write(os.path.join(self.folder, "chain.pem"), pem), write(os.path.join(self.folder, "key.pem"), private)
        )

    def warned(self, settings: Any, name: str | None = "mx.test") -> list[tuple[str, str]]:
        """The options and the messages of the warnings for a server called C{name}."""
        groups: dict[type, Any] = {type(settings): settings}
        if name is not None:
            groups[DialogueSettings] = DialogueSettings(serverName=name)
        given = frozenset(() if name is None else ("server_name",))
        server = ServerSettings("imap", "imap", (ListenAddress("127.0.0.1", 993, True),), groups, given)
        warnings = list(settings.warnings(server))
        if name is not None and isinstance(settings, TLSSettings):
            for option, source in settings.shownCertificates():
                warnings += certificatechecks.nameWarnings(server, option, source, name)
        return [(warning.option, warning.message) for warning in warnings]

    def warnedOf(self, *chain: x509.Certificate, name: str | None = "mx.test") -> list[str]:
        """The warnings for C{chain} as ssl_certificate."""
        warned = self.warned(settingsFor(self.pair(*chain)), name)
        self.assertLessEqual({option for option, _ in warned}, {"ssl_certificate"})
        return [message for _, message in warned]


class DateTests(Case):
    """Validity dates."""

    def test_good(self) -> None:
        """A valid certificate for the server's name causes no warning, in a file or inline."""
        pair = self.pair(self.issue())
        for source in (pair, Pair(inline(pair.certificate), inline(pair.key))):
            self.assertEqual(self.warned(settingsFor(source)), [])

    def test_expired(self) -> None:
        """A certificate that has expired, or is not yet valid, causes a warning."""
        until = datetime(2024, 2, 29, 12, 30, tzinfo=timezone.utc)
        self.assertEqual(
            self.warnedOf(self.issue(since=until - DAY, until=until)),
            ["has expired (valid until 2024-02-29 12:30 UTC); clients refuse it"],
        )
        since = datetime(2049, 1, 2, 3, 4, tzinfo=timezone.utc)
        self.assertEqual(
            self.warnedOf(self.issue(since=since, until=since + DAY)),
            ["is not yet valid (valid from 2049-01-02 03:04 UTC); clients refuse it"],
        )

    def test_ending(self) -> None:
        """
        A certificate that expires soon causes a warning: two weeks before, in the last quarter of a short lifetime, or
        three days before.
        """
        for life, left, told in (
            (90, 15, None),
            (90, 13, "13 days"),
            (365, 2.2, "2 days"),
            (365, 1.1, "1 day"),
            (365, 0.5, "less than a day"),
            (40, 11, None),
            (40, 9.9, "10 days"),
            (6, 3.3, None),
            (6, 2.9, "3 days"),
            (2, 1.9, "2 days"),
        ):
            until = NOW + left * DAY
            warned = self.warnedOf(self.issue(since=until - life * DAY, until=until))
            shown = f"expires on {until:%Y-%m-%d %H:%M} UTC, in {told}; renew it"
            self.assertEqual(warned, [] if told is None else [shown])

    def test_chain(self) -> None:
        """CA certificates in the chain are checked, too."""
        until = datetime(2024, 2, 29, 12, 30, tzinfo=timezone.utc)
        between = Authority("Between", self.authority, since=until - DAY, until=until)
        (told,) = self.warnedOf(self.issue(issuer=between), between.certificate)
        shown = 'the CA certificate "CN=Between" in the chain has expired (valid until 2024-02-29 12:30 UTC)'
        self.assertEqual(told, shown)

    def test_command(self) -> None:
        """The certificate of ssl_conf_command is checked, too."""
        expired = self.pair(self.issue(since=NOW - 2 * DAY, until=NOW - DAY))
        good = makePair(self.folder, "good", "mx.test")
        commands = (("Certificate", expired.certificate), ("PrivateKey", expired.key))
        ((option, told),) = self.warned(settingsFor(good, commands=commands))
        self.assertEqual(option, "ssl_conf_command")
        self.assertIn("has expired", told)

    def test_lists(self) -> None:
        """An expired revocation list causes a warning."""
        authority = certificates.Authority(self.folder, "clients")
        good = authority.revoke("good.crl")
        builder = x509.CertificateRevocationListBuilder(authority.subject, NOW - 2 * DAY, NOW - DAY)
        old = builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)
        expired = write(os.path.join(self.folder, "old.crl"), old)
        pair = self.pair(self.issue())
        for revoked, count in ((good, 0), (expired, 1)):
            changes = {"verifyClient": "on", "clientCertificate": authority.certificate, "revoked": revoked}
            warned = self.warned(settingsFor(pair, **changes))
            self.assertEqual([option for option, _ in warned], ["ssl_crl"] * count)
            self.assertEqual(self.warned(settingsFor(pair, **{**changes, "verifyClient": "off"})), [])
        self.assertIn('the CRL of "CN=clients" has expired (valid until ', warned[0][1])


class NameTests(Case):
    """Host names."""

    def test_other(self) -> None:
        """A certificate without the server's name causes a warning that quotes its names. Wildcards match."""
        refused = "clients that connect by this name refuse it"
        for names, shown in (
            (("a.test",), '"a.test"'),
            (("a.test", "b.test", "192.0.2.1", "c.test"), '"a.test", "b.test", "c.test" and 1 more'),
            (("*.mx.test",), '"*.mx.test"'),
            (('x"\n.test',), r'"x\"\n.test"'),
        ):
            (told,) = self.warnedOf(self.issue(*names))
            self.assertEqual(told, f'is not valid for "mx.test", the server_name: it is valid for {shown}; {refused}')
        for name, host in (("MX.test", "mx.test"), ("*.mail.test", "imap.mail.test"), ("mx.test", "MX.test.")):
            self.assertEqual(self.warnedOf(self.issue("other.test", name), name=host), [])

    def test_notSaid(self) -> None:
        """Without server_name, which then is the host's own name, there is no warning."""
        self.assertEqual(self.warnedOf(self.issue("a.test"), name=None), [])
        self.assertEqual(self.warnedOf(self.issue("a.test"), name="https://mx.test"), [])

    def test_commonName(self) -> None:
        """A certificate without alternative names has a warning which says that clients ignore its common name."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mx.test")])
        (told,) = self.warnedOf(self.authority.issue(subject, self.key))
        reason = 'it has no subjectAltName, and clients ignore its common name "mx.test"'
        self.assertIn(f'is not valid for "mx.test", the server_name: {reason}', told)


class ChainTests(Case):
    """Certificate chains."""

    def test_broken(self) -> None:
        """A certificate that did not issue the previous one causes a warning."""
        between = Authority("Between", self.authority)
        leaf = self.issue(issuer=between)
        self.assertEqual(self.warnedOf(leaf, between.certificate), [])
        self.assertEqual(self.warnedOf(leaf, between.certificate, self.authority.certificate), [])
        (told,) = self.warnedOf(leaf, self.authority.certificate)
        said = (
            '"CN=mail" is followed by "CN=The authority", which did not issue it; each certificate must be followed by'
        )
        self.assertEqual(told, f"the certificate chain is broken: {said} its issuer's")

    def test_missing(self) -> None:
        """A public certificate without its chain causes a warning. Another one may be issued by a root."""
        self.assertEqual(self.warnedOf(self.issue()), [])
        self.patch(certificatechecks, "_isPublic", lambda certificate: True)
        (told,) = self.warnedOf(self.issue())
        said = 'append the certificate of the issuer, "CN=The authority", to the file'
        self.assertEqual(told, f"the certificate chain is incomplete: {said}")
        own = Authority("mx.test")
        self.key = own.key
        self.assertNotIn("the chain", str(self.warnedOf(own.certificate)))

    def test_public(self) -> None:
        """A certificate with timestamps counts as public."""
        self.assertFalse(certificatechecks._isPublic(self.issue()))
        stamped = x509.UnrecognizedExtension(certificatechecks._TIMESTAMPS, b"\x04\x02\x00\x00")
        builder = x509.CertificateBuilder(
            self.authority.name, self.authority.name, self.key.public_key(), 1, NOW, NOW + DAY
        ).add_extension(stamped, False)
        signed = builder.sign(self.authority.key, hashes.SHA256())
        self.assertTrue(certificatechecks._isPublic(signed))


class WritableTests(Case):
    """Files that other users can change."""

    def test_files(self) -> None:
        """Every file for TLS is checked."""
        self.patch(certificatechecks, "writers", lambda path: f"strangers write to {os.path.basename(path)}")
        pair = self.pair(self.issue())
        settings = settingsFor(
            pair,
            Pair(inline(pair.certificate), inline(pair.key)),
            passwordFile=f"{NOWHERE}/pass",
            ticketKeys=(f"{NOWHERE}/ticket",),
            dhParameters=f"{NOWHERE}/dh",
            verifyClient="on",
            clientCertificate="/ca",
            trustedCertificate="/more",
            revoked=f"{NOWHERE}/crl",
            commands=(("PrivateKey", f"{NOWHERE}/other.key"),),
        )
        found = [(option, told) for option, told in self.warned(settings) if told.startswith("strangers")]
        self.assertEqual(
            sorted(found),
            sorted(
                (option, f"strangers write to {name}")
                for option, name in (
                    ("ssl_certificate", "chain.pem"),
                    ("ssl_certificate_key", "key.pem"),
                    ("ssl_password_file", "pass"),
                    ("ssl_session_ticket_key", "ticket"),
                    ("ssl_dhparam", "dh"),
                    ("ssl_client_certificate", "ca"),
                    ("ssl_trusted_certificate", "more"),
                    ("ssl_crl", "crl"),
                    ("ssl_conf_command", "other.key"),
                )
            ),
        )

    def test_roots(self) -> None:
        """The trusted roots for backends and services are checked."""
        self.patch(certificatechecks, "writers", lambda path: "strangers write to it")
        for settings, option in (
            (BackendTLSSettings(trusted="/roots"), "proxy_ssl_trusted_certificate"),
            (HTTPSettings(trusted="/roots"), "auth_http_ssl_trusted_certificate"),
        ):
            self.assertEqual(self.warned(settings), [(option, "strangers write to it")])
            self.assertEqual(self.warned(type(settings)()), [])


class ContentTests(Case):
    """Messages about files with other content."""

    def faults(self, **paths: str) -> list[str]:
        """The errors of a configuration that names C{paths}."""
        pair = makePair(self.folder, "good")
        given = {"ssl_certificate": pair.certificate, "ssl_certificate_key": pair.key, **paths}
        options = "".join(f"{name} = {value}\n" for name, value in given.items())
        text = f"[server imap]\nprotocol = imap\nlisten = 127.0.0.1:993 ssl\nproxy_pass = 127.0.0.1:1\n{options}"
        error = self.assertRaises(ConfigurationError, parse, text)
        return str(error).splitlines()

    def test_described(self) -> None:
        """The message says what the file contains, and what is expected."""
        pair = self.pair(self.issue())
        request = x509.CertificateSigningRequestBuilder(self.authority.name).sign(self.key, hashes.SHA256())
        both = self.issue().public_bytes(Encoding.DER)
        public = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        contents = {
            "empty": b" \n",
            "key": self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "certificate": self.issue().public_bytes(Encoding.PEM),
            "request": request.public_bytes(Encoding.PEM),
            "der": both,
            "text": b"hello\n",
            "public": public,
            "cut": b"-----BEGIN CERTIFICATE-----\nMIIB",
            "cutList": b"-----BEGIN X509 CRL-----\nMIIB",
        }
        paths = {name: write(os.path.join(self.folder, name), content) for name, content in contents.items()}
        der = "it is in DER format, not PEM; convert it with openssl and -inform DER"
        truncated = "it is truncated: the END line is missing"
        for option, file, told in (
            ("ssl_certificate", "empty", "it is empty"),
            ("ssl_certificate", "key", "it contains a private key, not a certificate"),
            ("ssl_certificate", "request", "it contains a certificate signing request, not a certificate"),
            ("ssl_certificate", "der", der),
            ("ssl_certificate", "text", "it contains no PEM data; expected a certificate"),
            ("ssl_certificate_key", "empty", "it is empty"),
            ("ssl_certificate_key", "certificate", "it contains a certificate, not a private key"),
            ("ssl_certificate_key", "public", "it contains a public key, not a private key"),
            ("ssl_dhparam", "certificate", "it contains a certificate, not Diffie-Hellman parameters"),
            ("proxy_ssl_trusted_certificate", "key", "it contains a private key, not a certificate"),
            ("proxy_ssl_trusted_certificate", "empty", "it is empty"),
            ("proxy_ssl_trusted_certificate", "cut", truncated),
        ):
            path = os.path.abspath(paths[file])
            number = {"ssl_certificate": 5, "ssl_certificate_key": 6}.get(option, 7)
            fault = f"gateway.ini:{number}: [server imap] {option} = {path}: cannot be loaded: {told}"
            self.assertEqual(self.faults(**{option: path}), [fault])
        for option, file, told in (
            ("ssl_client_certificate", "key", "it contains a private key, not a certificate"),
            ("ssl_trusted_certificate", "empty", "it is empty"),
            ("ssl_crl", "certificate", "it contains a certificate, not a certificate revocation list"),
            ("ssl_crl", "cutList", truncated),
        ):
            path = os.path.abspath(paths[file])
            roots = {"ssl_verify_client": "on", "ssl_client_certificate": os.path.abspath(pair.certificate)}
            number = 8 if option == "ssl_client_certificate" else 9
            fault = f"gateway.ini:{number}: [server imap] {option} = {path}: cannot be loaded: {told}"
            self.assertEqual(self.faults(**{**roots, option: path}), [fault])

    def test_otherKey(self) -> None:
        """A key of another type than the certificate's is reported as such."""
        other = os.path.abspath(makePair(self.folder, "other").key)
        rsa = os.path.abspath(makePair(self.folder, "rsa", kind="rsa").key)
        for key, reason in ((other, r"\w+"), (rsa, "key type mismatch$")):
            (fault,) = self.faults(ssl_certificate_key=key)
            self.assertRegex(fault, r'ssl_certificate_key = .*: does not match certificate ".*good\.crt": ' + reason)

    def test_protocols(self) -> None:
        """A server that no client can use is an error, at the start and for C{check}."""
        (fault,) = self.faults(ssl_protocols="TLSv1 SSLv3")
        reason = "no client can complete a TLS handshake: no protocols available"
        hint = "TLSv1 needs @SECLEVEL=0 in ssl_ciphers"
        self.assertEqual(fault, f"gateway.ini:7: [server imap] ssl_protocols = SSLv3 TLSv1: {reason}; {hint}")


class UnreadableTests(Case):
    """Certificates that OpenSSL parses and cryptography does not: the server starts with them."""

    def derived(self, *extensions: tuple[str, bytes], subject: str = "mail") -> x509.Certificate:
        """A certificate with C{extensions}, by number and content."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        serial = x509.random_serial_number()
        builder = x509.CertificateBuilder(name, name, self.key.public_key(), serial, NOW - DAY, NOW + 30 * DAY)
        for number, content in extensions:
            extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(number), content)
            builder = builder.add_extension(extension, False)
        return builder.sign(self.key, hashes.SHA256())

    def altered(self, certificate: x509.Certificate, old: bytes, new: bytes) -> x509.Certificate:
        """C{certificate} with some bytes replaced."""
        encoded = certificate.public_bytes(Encoding.DER)
        self.assertIn(old, encoded)
        return x509.load_der_x509_certificate(encoded.replace(old, new))

    def test_extensions(self) -> None:
        """If the names cannot be parsed, the common name is used."""
        twice = self.derived(("2.5.29.98", b"0\0"), ("2.5.29.99", b"0\0"))
        for certificate in (
            self.derived(("2.5.29.17", bytes.fromhex("3006a50481024142"))),  # an ediPartyName
            self.derived(("2.5.29.17", b"\x30\x03\x82")),
            self.altered(twice, bytes.fromhex("0603551d62"), bytes.fromhex("0603551d63")),
        ):
            told = 'is not valid for "mx.test", the server_name: it is valid for "mail"'
            self.assertEqual(self.warnedOf(certificate), [f"{told}; clients that connect by this name refuse it"])
            self.assertEqual(certificatechecks.hostNames(certificate), ("mail",))

    def test_subject(self) -> None:
        """A certificate whose subject is not text is not checked further."""
        certificate = self.altered(self.derived(subject="mail"), b"mail", b"m\xffil")
        self.assertEqual(self.warnedOf(certificate), [])


class SettingsTests(Case):
    """A whole configuration."""

    def test_once(self) -> None:
        """A warning about an option of [mail] is given once, by C{check} and at the start."""
        expired = self.pair(self.issue(since=NOW - 2 * DAY, until=NOW - DAY))
        certificate, key = map(os.path.abspath, (expired.certificate, expired.key))
        text = (
            f"[mail]\nserver_name = mx.test\nproxy_pass = 127.0.0.1:1\nssl_certificate = {certificate}\n"
            f"ssl_certificate_key = {key}\nstarttls = on\n[server imap]\nprotocol = imap\nlisten = 127.0.0.1:143\n"
            "[server pop3]\nprotocol = pop3\nlisten = 127.0.0.1:110\n"
        )
        (warning,) = [each for each in parse(text).warnings if each.option == "ssl_certificate"]
        self.assertEqual((warning.section, warning.value), ("mail", certificate))
        self.assertEqual(TLSSettings().certificates, ())
