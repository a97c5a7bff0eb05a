"""
Tests for L{mailgate.sandbox.settings}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import directives
from mailgate.registry import SECTIONS
from mailgate.sandbox.settings import SandboxSettings, SandboxUser


def parse(option: str, value: str) -> object:
    """The value of C{option = value} in C{[sandbox]}."""
    (declared,) = [each for each in directives(SandboxSettings) if each.name == option]
    return declared.parse(value, "/etc")


class SandboxSettingsTests(SynchronousTestCase):
    """Tests for L{SandboxSettings}."""

    def test_sectionOnly(self):
        """Directives of the sandbox are allowed only in C{[sandbox]}."""
        found = {each.name for each in directives(SandboxSettings)}
        self.assertEqual(found, {"users", "domain", "imap", "pop3", "smtp", "sieve", "auth_http"})
        self.assertEqual([kind.word for kind in SECTIONS if SandboxSettings in kind.settings], ["sandbox"])

    def test_defaults(self):
        """An empty section has two users and loopback ports above 1024."""
        settings = SandboxSettings()
        self.assertEqual([user.name for user in settings.users], ["alice", "bob"])
        addresses = [settings.imap, settings.pop3, settings.smtp, settings.sieve, settings.authHttp]
        ports = (10143, 10110, 10025, 14190, 10080)
        self.assertEqual([str(each) for each in addresses], [f"127.0.0.1:{port}" for port in ports])

    def test_noPasswordInRepr(self):
        """No repr contains a password."""
        self.assertNotIn("wonderland", repr(SandboxSettings()))
        self.assertNotIn("sesame", repr(SandboxUser("joe", "sesame")))

    def test_users(self):
        """A line has a name, which becomes lower case, and a password, which may contain blanks."""
        users = parse("users", "\n Alice  open sesame \n\n b.ob  x%y=z\n")
        self.assertEqual(users, (SandboxUser("alice", "open sesame"), SandboxUser("b.ob", "x%y=z")))

    def test_badUsers(self):
        """A name without a password, an invalid name and a repeated one are refused without showing a password."""
        for value in (
            "alice",
            "alice ",
            "a@b sesame",
            "-a sesame",
            "a:b sesame",
            "a sesame\nA sesame",
            "",
            "a ses\tame",
        ):
            error = self.assertRaises(ValueError, parse, "users", value)
            self.assertNotIn("ses", str(error))

    def test_domain(self):
        """A domain becomes lower case; other texts are refused."""
        self.assertEqual(parse("domain", "Mail.Example.ORG"), "mail.example.org")
        for value in ("", "a b", "a..b", "-a.b", "a@b", "x" * 64, "a\nb", "a." * 127 + "b"):
            self.assertRaises(ValueError, parse, "domain", value)

    def test_loopback(self):
        """Loopback addresses of both families are valid, also with port 0."""
        for value, host, port in (
            ("127.0.0.1:1", "127.0.0.1", 1),
            ("127.9.8.7:0", "127.9.8.7", 0),
            ("[::1]:9", "::1", 9),
        ):
            address = parse("imap", value)
            self.assertEqual((address.host, address.port, address.ssl), (host, port, False))

    def test_notLoopback(self):
        """An address that other hosts can reach, a name, and other texts are refused."""
        for option in ("imap", "pop3", "smtp", "sieve", "auth_http"):
            for value in ("0.0.0.0:143", "192.0.2.1:143", "[::]:143", "[2001:db8::1]:143"):
                self.assertIn("must be a loopback address", str(self.assertRaises(ValueError, parse, option, value)))
            for value in ("localhost:143", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:143", "127.1:1", ":1"):
                self.assertIn("127.0.0.1:10143", str(self.assertRaises(ValueError, parse, option, value)))
