"""
Tests for L{mailgate.nginx.sections}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.nginx.conf import Statement
from mailgate.nginx.sections import Entry, Section, known, whyLeftOut
from mailgate.registry import PROTOCOLS

COMFORT = {
    *("error_log", "listen", "server_name", "timeout", "max_errors", "max_commands", "resolver_timeout", "proxy"),
    *("auth_http_timeout", "proxy_buffer", "proxy_timeout", "smtp_capabilities", "smtp_client_buffer"),
    *("ssl_ecdh_curve", "ssl_session_cache"),
    *("ssl_session_timeout", "ssl_session_ticket_key", "ssl_certificate_compression"),
}
"""Directives that do not decide which clients are accepted and which hosts are queried or trusted."""

BY_DEFAULT = {
    *("resolver", "xclient", "proxy_pass_error_message", "ssl_password_file", "ssl_protocols", "ssl_ciphers"),
    *("ssl_prefer_server_ciphers", "ssl_dhparam", "ssl_session_tickets"),
}
"""Directives for which mailgate's default is acceptable."""


def refused(name: str, value: str = "bad", complaint: str = "") -> Entry:
    return Entry(name, [value], Statement(name, (value,), "nginx.conf", 1, (), complaint), "", "will not do")


class LeftOutTests(SynchronousTestCase):
    """Tests for L{whyLeftOut}, with a server that all directives of its protocol concern."""

    def why(self, own: list[Entry], general: list[Entry], protocol="smtp", listen="25 ssl proxy_protocol") -> str:
        base = [Entry("protocol", [protocol]), Entry("listen", [listen])]
        server = Section("server x", "server", None, [*base, *own])
        return whyLeftOut(server, Section("mail", "mail", None, general))

    def names(self):
        """All directives that [mail] accepts, except those of other protocols."""
        others = tuple(f"{protocol}_" for protocol in PROTOCOLS if protocol != "smtp")
        return [name for name in known("mail") if not name.startswith(others)]

    def test_nothing(self):
        """A server without refused directives stays."""
        for name in self.names():
            self.assertEqual(self.why([Entry(name, ["a"])], [Entry(name, ["b"])]), "", name)

    def test_outer(self):
        """
        A server whose own value is refused does not fall back to that of [mail], unless the directive is harmless.
        """
        for name in self.names():
            why = self.why([refused(name)], [Entry(name, ["b"])])
            self.assertEqual(not why, name in COMFORT, name)

    def test_default(self):
        """Nor does it, or [mail], fall back to mailgate's default, unless that is acceptable."""
        for name in self.names():
            for why in (self.why([refused(name)], []), self.why([], [refused(name)])):
                self.assertEqual(not why, name in COMFORT | BY_DEFAULT, name)

    def test_earlier(self):
        """Nor does it use the rest of a list with a refused item."""
        for name in ("auth_http_header", "set_real_ip_from", "smtp_auth", "ssl_protocols", "ssl_certificate"):
            for own in ([Entry(name, ["a"]), refused(name)], [refused(name), Entry(name, ["a"])]):
                self.assertTrue(self.why(own, []), name)
                self.assertTrue(self.why([], own), name)

    def test_last(self):
        """If a directive replaces earlier ones, only the last one counts."""
        self.assertEqual(self.why([refused("auth_http"), Entry("auth_http", ["a"])], []), "")
        self.assertIn("without auth_http ", self.why([Entry("auth_http", ["a"]), refused("auth_http")], []))

    def test_own(self):
        """A refused directive of [mail] concerns only servers without a value of their own."""
        for name in self.names():
            self.assertEqual(self.why([Entry(name, ["a"])], [refused(name)]), "", name)

    def test_complaint(self):
        """A directive that nginx does not know, or not in this place, is no loss."""
        self.assertEqual(self.why([refused("frob", complaint="unknown"), refused("protocol", complaint="x")], []), "")
        self.assertEqual(self.why([], [refused("protocol", complaint="not allowed here")]), "")

    def test_protocol(self):
        """A directive of another protocol does not matter; one that any protocol may use does."""
        for name in ("smtp_auth", "proxy_smtp_auth", "smtp_greeting_delay"):
            self.assertTrue(self.why([], [refused(name)]), name)
            self.assertEqual(self.why([], [refused(name)], "imap"), "", name)
        resolvers = [refused("resolver")], [Entry("resolver", ["127.0.0.1"])]
        self.assertTrue(self.why(*resolvers))
        self.assertEqual(self.why(*resolvers, "pop3"), "")
        self.assertTrue(self.why([], [refused("imap_auth")], "imap"))

    def test_clear(self):
        """Without TLS, directives of TLS do not matter, except those that turn it on."""
        for name in ("ssl_verify_client", "ssl_client_certificate", "ssl_certificate", "ssl_conf_command"):
            self.assertEqual(self.why([refused(name)], [], "imap", "143"), "", name)
            for speaks in (Entry("starttls", ["on"]), Entry("ssl", ["ON"])):
                self.assertTrue(self.why([refused(name)], [speaks], "imap", "143"), name)
                self.assertTrue(self.why([refused(name), speaks], [], "imap", "143"), name)
            off = [refused(name), Entry("starttls", ["off"])]
            self.assertEqual(self.why(off, [Entry("starttls", ["on"])], "imap", "143"), "", name)
        for name in ("starttls", "ssl"):
            self.assertTrue(self.why([refused(name)], [], "imap", "143"), name)

    def test_headers(self):
        """The senders of PROXY headers matter only if headers are read."""
        self.assertTrue(self.why([], [refused("set_real_ip_from")]))
        self.assertEqual(self.why([], [refused("set_real_ip_from")], "smtp", "25"), "")

    def test_commands(self):
        """Commands of OpenSSL matter if they may refuse clients or name trusted certificates, or are unknown."""
        for command in ("VerifyMode Require", "verifymode Peer", "VerifyCAFile /x", "MinProtocol x", "Frob x"):
            self.assertTrue(self.why([refused("ssl_conf_command", command)], []), command)
        for command in ("Options KTLS", "options x", "Groups X25519", "NumTickets 2", "ChainCAFile /x"):
            self.assertEqual(self.why([refused("ssl_conf_command", command)], []), "", command)
        name, value = "ssl_conf_command", "Options KTLS"
        self.assertEqual(self.why([refused(name, value), Entry(name, ["MinProtocol TLSv1.3"])], []), "")
        self.assertIn("a value that differs", self.why([refused(name, value)], [Entry(name, ["CipherString ALL"])]))
        together = refused("ssl_conf_command", "Options KTLS")
        together.items.append("MinProtocol TLSv1.3")
        self.assertTrue(self.why([together], []))


class SectionTests(SynchronousTestCase):
    """Tests for L{Section}."""

    def test_forget(self):
        """An accepted entry is removed by its name; a refused one stays as a comment."""
        kept, other = refused("auth_http"), Entry("proxy", ["on"])
        section = Section("mail", "mail", None, [kept, Entry("auth_http", ["a"]), other])
        section.forget("auth_http")
        self.assertEqual(section.entries, [kept, other])
