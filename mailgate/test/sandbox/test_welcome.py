"""
Tests for L{mailgate.sandbox.welcome}. A test of the whole demo runs the commands.
"""

from __future__ import annotations

import shlex

from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import ListenAddress, ServerSettings
from mailgate.sandbox.settings import SandboxSettings, SandboxUser
from mailgate.sandbox.welcome import welcome
from mailgate.tls.settings import TLSSettings


def server(protocol: str, *addresses: ListenAddress, starttls: str = "on") -> ServerSettings:
    """A server of C{protocol}."""
    return ServerSettings(protocol, protocol, addresses, {TLSSettings: TLSSettings(starttls=starttls)})


def plain(port: int, host: str = "127.0.0.1") -> ListenAddress:
    return ListenAddress(host, port)


def ssl(port: int, host: str = "127.0.0.1") -> ListenAddress:
    return ListenAddress(host, port, ssl=True)


class WelcomeTests(SynchronousTestCase):
    """Tests for L{welcome}."""

    def text(self, *servers: ServerSettings, certificate: str | None = "/state dir/c.pem", **settings):
        return welcome(servers, SandboxSettings(**settings), certificate)

    def commands(self, *servers: ServerSettings, **settings):
        lines = self.text(*servers, **settings).split("\n")
        return [shlex.split(line) for line in lines if "curl " in line]

    def test_addresses(self):
        """Every address is listed with its protocol and its kind of TLS."""
        text = self.text(
            server("imap", plain(1143), ssl(1993)),
            server("pop3", plain(1110), starttls="only"),
            server("smtp", plain(1587), starttls="off"),
        )
        lines = [line.split(None, 2) for line in text.split("\n")]
        self.assertIn(["imap", "127.0.0.1:1143", "STARTTLS offered"], lines)
        self.assertIn(["imap", "127.0.0.1:1993", "TLS from the first byte"], lines)
        self.assertIn(["pop3", "127.0.0.1:1110", "STARTTLS required"], lines)
        self.assertIn(["smtp", "127.0.0.1:1587", "without TLS"], lines)

    def test_users(self):
        """The users are listed with their passwords, which are not secret in a demo."""
        text = self.text(server("imap", plain(1143)))
        self.assertRegex(text, r"alice +password wonderland\n +bob +password builder")

    def test_read(self):
        """The URL of the newest mail is safe in a shell, and the path of the certificate is one word."""
        (words,) = self.commands(server("imap", ssl(1993)))
        self.assertEqual(
            words,
            [
                "curl",
                "-sS",
                "--cacert",
                "/state dir/c.pem",
                "--user",
                "bob:builder",
                "imaps://127.0.0.1:1993/INBOX;MAILINDEX=*",
            ],
        )

    def test_starttls(self):
        """With STARTTLS, curl requires TLS."""
        (words,) = self.commands(server("pop3", plain(1110)))
        self.assertEqual(words[:5], ["curl", "-sS", "--cacert", "/state dir/c.pem", "--ssl-reqd"])
        self.assertEqual(words[-1], "pop3://127.0.0.1:1110/1")

    def test_inTheClear(self):
        """Without TLS, curl needs neither a certificate nor TLS."""
        (words,) = self.commands(server("pop3", plain(1110), starttls="off"))
        self.assertEqual(words, ["curl", "-sS", "--user", "bob:builder", "pop3://127.0.0.1:1110/1"])

    def test_noCertificate(self):
        """A certificate that clients trust anyway is not named."""
        (words,) = self.commands(server("imap", ssl(993)), certificate=None)
        self.assertNotIn("--cacert", words)

    def test_send(self):
        """The first user sends mail to the last one, with CRLF at the ends of lines."""
        (words,) = self.commands(server("smtp", plain(1587)))
        self.assertEqual(words[0], "printf")
        self.assertTrue(words[1].endswith(r"Subject: Hello\r\n\r\nHello, bob.\r\n"))
        self.assertEqual(words[2:4], ["|", "curl"])
        self.assertEqual(
            words[-6:],
            ["--mail-from", "alice@example.com", "--mail-rcpt", "bob@example.com", "--upload-file", "-"],
        )
        self.assertIn("alice:wonderland", words)

    def test_sendFirst(self):
        """Sending precedes reading, whatever the order of the servers."""
        commands = self.commands(server("imap", plain(1143)), server("smtp", ssl(1465)))
        self.assertEqual([words[0] for words in commands], ["printf", "curl"])

    def test_sieve(self):
        """The scripts of the last user are listed by sieve-connect, which knows STARTTLS only."""
        text = self.text(server("sieve", plain(4190, "::"), ssl(5190), plain(4191, "::1")))
        expected = ["sieve-connect", "--server", "::1", "--port", "4190", "--user", "bob"]
        expected += ["--tlscafile", "/state dir/c.pem", "--passwordfd", "0", "--list"]
        words, others = (shlex.split(line) for line in text.split("\n") if "sieve-connect" in line)
        self.assertEqual(words, ["printf", "%s", "builder", "|", *expected])
        self.assertIn("4191", others)
        self.assertIn("--clearchan", self.text(server("sieve", plain(4190), starttls="off")))

    def test_addressesOfAllKinds(self):
        """An IPv6 address is in brackets, and a wildcard address becomes the loopback address."""
        commands = self.commands(server("pop3", plain(1, "::1"), plain(2, "::"), plain(3, "0.0.0.0"), starttls="off"))
        self.assertEqual(
            [words[-1] for words in commands], ["pop3://[::1]:1/1", "pop3://[::1]:2/1", "pop3://127.0.0.1:3/1"]
        )

    def test_awkwardPassword(self):
        """A password has no meaning for the shell."""
        (words,) = self.commands(server("pop3", plain(1)), users=(SandboxUser("joe", "a b'$(x)"),))
        self.assertIn("joe:a b'$(x)", words)
