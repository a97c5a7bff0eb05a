"""
TLS towards backends: Dovecot's and Postfix's certificates, good ones and bad ones, and servers that do with STARTTLS
what those do not.
"""

from __future__ import annotations

import hashlib
import ssl
from base64 import b64encode

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.daemon import shared, waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.scripted import BEGUN, SILENCE, TLSBackend
from mailgate.test.integration.site import GatewayTestCase
from mailgate.test.integration.together import together

testSuite = together(__name__)

__all__: list[str] = []

MODES = ("on", "starttls")
WELCOME = {"imap": "OK", "pop3": "+OK", "smtp": "235"}
TEMPORARY = {"imap": "NO [UNAVAILABLE]", "pop3": "-ERR [SYS/TEMP]", "smtp": "454 4.7.0"}
SERVICES = {
    "imap": {"on": "imaps", "starttls": "imap"},
    "pop3": {"on": "pop3s", "starttls": "pop3"},
    "smtp": {"on": "smtps", "starttls": "sasl"},
}
"""The services of the backends, by protocol and C{proxy_ssl}."""

BAD = {
    "foreign": "hostname mismatch",
    "untrusted": "an unknown CA",
    "expired": "has expired",
    "selfsigned": "is self-signed and not trusted",
    "mispinned": "match no proxy_ssl_pin",
}
"""What is wrong with certificates, and words of the log line about it."""

GOOD = ("address", "name", "pinned")


def fingerprints(path: str) -> tuple[str, str]:
    """The pin of the key, and that of the whole certificate, of the PEM file C{path}."""
    with open(path, "rb") as file:
        certificate = x509.load_pem_x509_certificate(file.read())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    der = certificate.public_bytes(Encoding.DER)
    return f"sha256//{b64encode(hashlib.sha256(key).digest()).decode()}", hashlib.sha256(der).hexdigest()


class CertificateTests(GatewayTestCase):
    """Passwords go to a backend whose certificate is the right one, and to no other."""

    def configuration(self, site):
        trusted = f"proxy_ssl_trusted_certificate = {self.backends.authority.path}"
        stranger = Authority(site.folder, "stranger")
        servers = []
        for protocol in self.backends.protocols:
            program = "postfix" if protocol == "smtp" else "dovecot"
            key, whole = fingerprints(f"{self.backends.folder}/{program}.crt")
            ways = {
                "address": trusted,
                "name": trusted,
                "pinned": f"proxy_ssl_verify = off\nproxy_ssl_pin = {'0' * 64} {key if protocol == 'imap' else whole}",
                "foreign": f"{trusted}\nproxy_ssl_name = elsewhere.example",
                "untrusted": f"proxy_ssl_trusted_certificate = {stranger.path}",
                "expired": f"{trusted}\nproxy_ssl_name = expired.example",
                "selfsigned": f"{trusted}\nproxy_ssl_name = self-signed.example",
                "mispinned": f"{trusted}\nproxy_ssl_pin = {'0' * 64}",
            }
            for way, directives in ways.items():
                # Postfix has one certificate.
                for mode in MODES if protocol != "smtp" or way not in ("expired", "selfsigned") else ():
                    host, port = self.backends.services[SERVICES[protocol][mode]]
                    backend = f"{'localhost' if way == 'name' else host}:{port}"
                    servers.append(
                        site.server(
                            protocol,
                            f"proxy_pass = {backend}\nproxy_ssl = {mode}\n{directives}",
                            f"{protocol}-{way}-{mode}",
                        )
                    )
        return site.mail() + "".join(servers)

    def client(self, name):
        client = RawClient(self.at(name))
        self.addCleanup(client.close)
        return client

    def servers(self, *ways):
        """The protocol, C{proxy_ssl} and name of each server of C{ways}."""
        for protocol in self.backends.protocols:
            for way in ways:
                for mode in MODES if protocol != "smtp" or way not in ("expired", "selfsigned") else ():
                    yield protocol, way, mode, f"{protocol}-{way}-{mode}"

    def test_good(self):
        """A certificate for the address, for the name, or by its pin alone: the client is let in, over TLS."""
        for protocol, _, _, name in self.servers(*GOOD):
            client = self.client(name)
            answer = client.login(self.user, PASSWORD).decode()
            self.assertEqual(answer[: len(WELCOME[protocol])], WELCOME[protocol], f"{name}: {answer}")
            self.assertTrue(client.noop().startswith((b"OK", b"+OK", b"250")))
        self.assertNotIn("backend failed", self.log())

    def test_bad(self):
        """Any other is a temporary failure for the client, and one sentence in the log that names the backend."""
        for protocol, way, mode, name in self.servers(*BAD):
            before = len(self.log())
            answer = self.client(name).login(self.user, PASSWORD).decode()
            self.assertEqual(answer[: len(TEMPORARY[protocol])], TEMPORARY[protocol], f"{name}: {answer}")
            waitUntil(lambda: "backend failed" in self.log()[before:], "the failure is logged")  # noqa: B023
            (line,) = (line for line in self.log()[before:].splitlines() if "backend failed" in line)
            _, port = self.backends.services[SERVICES[protocol][mode]]
            for words in (f"127.0.0.1:{port}", "certificate", BAD[way]):
                self.assertIn(words, line)


class _Scripted:
    """
    Scripted backends, C{at} protocol, C{proxy_ssl} and certificate. Those with a bad one stand in for a Postfix, which
    has one certificate alone.

    @param authority: signs their certificates.
    """

    def __init__(self, authority: Authority) -> None:
        pairs = {
            "good": authority.sign("scripted"),
            "expired": authority.sign("scripted-expired", isExpired=True),
            "selfsigned": authority.sign("scripted-self-signed", isSelfSigned=True),
        }
        self.at: dict[tuple[str, str, str], TLSBackend] = {}
        for name, pair in pairs.items():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pair.certificate, pair.key)
            for protocol in ("imap", "pop3", "smtp") if name == "good" else ("smtp",):
                for mode in MODES:
                    self.at[protocol, mode, name] = TLSBackend(protocol, context, mode == "on")

    def stop(self) -> None:
        """End them."""
        for backend in self.at.values():
            backend.stop()


STARTTLS = {"imap": "STARTTLS", "pop3": "STLS", "smtp": "STARTTLS"}
LOGIN = {"imap": "LOGIN", "pop3": "PASS", "smtp": "AUTH"}
BEGIN = {"imap": "TAG OK begin", "pop3": "+OK begin", "smtp": "220 begin"}
INJECTED = {"imap": "L0 OK [CAPABILITY X-INJECTED] hello", "pop3": "+OK hello", "smtp": "235 2.7.0 hello"}
"""What an attacker sends behind the answer to STARTTLS: it would do as the answer to a login."""

WRONG = {"imap": "TAG NO [AUTHENTICATIONFAILED] wrong", "pop3": "-ERR [AUTH] wrong", "smtp": "535 5.7.8 wrong"}
REFUSED = {"imap": "NO [AUTHENTICATIONFAILED]", "pop3": "-ERR [AUTH]", "smtp": "535 5.7.8"}
NOT_OFFERED = {"imap": "TAG BAD unknown command", "pop3": "-ERR unknown command", "smtp": "502 5.5.1 unknown command"}


class HostileTests(GatewayTestCase):
    """Servers that would have the gateway speak in the clear, or take for the backend's what came in the clear."""

    def backend(self, *which):
        """The scripted backend at a protocol, C{proxy_ssl} and certificate."""
        return self.scripted()[which]

    def scripted(self):
        """All of them."""
        return shared("TLS backends", lambda: _Scripted(self.backends.authority)).at

    def configuration(self, site):
        servers = [
            site.server(
                protocol, f"proxy_pass = 127.0.0.1:{backend.port}\nproxy_ssl = {mode}", f"{protocol}-{mode}-{name}"
            )
            for (protocol, mode, name), backend in self.scripted().items()
        ]
        # So long a client of a silent backend waits.
        more = f"timeout = 1s\nproxy_ssl_trusted_certificate = {self.backends.authority.path}"
        return site.mail(more) + "".join(servers)

    def login(self, protocol, mode, name="good", **replies):
        """The answer to a login at a backend that answers with C{replies}, and the lines of the log about it."""
        backend = self.backend(protocol, mode, name)
        backend.script(replies)
        before = len(self.log())
        client = RawClient(self.at(f"{protocol}-{mode}-{name}"))
        self.addCleanup(client.close)
        answer = client.login(self.user, PASSWORD).decode()
        lines = [line for line in self.log()[before:].splitlines() if "backend failed" in line]
        return answer, lines, bytes(backend.heard[-1]) if backend.heard else b""

    def assertTemporary(self, protocol, mode, *words, name="good", **replies):
        """The login fails for the time being, and one line of the log has C{words}; returns what the backend heard."""
        answer, lines, heard = self.login(protocol, mode, name, **replies)
        self.assertEqual(answer[: len(TEMPORARY[protocol])], TEMPORARY[protocol], answer)
        self.assertEqual(len(lines), 1, lines)
        for word in (f"127.0.0.1:{self.backend(protocol, mode, name).port}", *words):
            self.assertIn(word, lines[0])
        return heard

    def test_certificates(self):
        """SMTP's: an expired and a self-signed certificate."""
        for mode in MODES:
            for name in ("expired", "selfsigned"):
                self.assertTemporary("smtp", mode, "certificate", BAD[name], name=name)

    def test_stripped(self):
        """STARTTLS is required: where it is not offered nothing more is said, no password above all."""
        for protocol, command in STARTTLS.items():
            heard = self.assertTemporary(protocol, "starttls", command, **{command: NOT_OFFERED[protocol]})
            self.assertTrue(heard.strip().upper().endswith(command.encode()), heard)

    def test_injected(self):
        """What comes in the clear behind the answer to STARTTLS is no answer to what is said by TLS."""
        for protocol, command in STARTTLS.items():
            replies = {
                command: f"{BEGIN[protocol]}\n{INJECTED[protocol]}",
                LOGIN[protocol]: WRONG[protocol],
            }
            answer, _, heard = self.login(protocol, "starttls", **replies)
            self.assertEqual(answer[: len(REFUSED[protocol])], REFUSED[protocol], answer)
            self.assertNotIn(PASSWORD.encode(), heard.partition(BEGUN)[0])

    def test_injectedCapabilities(self):
        """What the backend offers over TLS counts, not what came before: with LOGINDISABLED no LOGIN is sent."""
        replies = {
            "STARTTLS": "* CAPABILITY IMAP4rev1\nTAG OK begin",
            "CAPABILITY": "* CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=PLAIN SASL-IR\nTAG OK done",
            "AUTHENTICATE": "TAG OK logged in",
        }
        answer, _, heard = self.login("imap", "starttls", **replies)
        self.assertEqual(answer[:2], "OK", answer)
        self.assertIn(b"AUTHENTICATE PLAIN ", heard.partition(BEGUN)[2])
        self.assertNotIn(b" LOGIN ", heard)

    def test_closed(self):
        """One that closes the connection instead of the answer to STARTTLS, or of the handshake."""
        for protocol, command in STARTTLS.items():
            self.assertTemporary(protocol, "starttls", "closed the connection", **{command: ""})
        for mode in MODES:
            self.assertTemporary("imap", mode, "failed the TLS handshake", TLS="")

    def test_silent(self):
        """One that is connected, or agrees to STARTTLS, and says nothing more costs a client C{timeout}, no more."""
        for mode in MODES:
            heard = self.assertTemporary("imap", mode, "timed out after 1 s", TLS=SILENCE)
            self.assertNotIn(PASSWORD.encode(), heard)

    def test_resumed(self):
        """The second login goes on with the TLS session of the first, as the backend sees."""
        for protocol in STARTTLS:
            for mode in MODES:
                for _ in range(2):
                    answer, _, _ = self.login(protocol, mode)
                    self.assertEqual(answer[: len(WELCOME[protocol])], WELCOME[protocol], answer)
                self.assertEqual(self.backend(protocol, mode, "good").resumed, [True], (protocol, mode))
