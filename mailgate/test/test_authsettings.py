"""
Tests for L{mailgate.authsettings}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.authsettings import HTTPSettings, ServiceURL
from mailgate.directives import ServerSettings, directives


def read(option, value):
    """C{value} as the parser of C{option} reads it."""
    (found,) = [each for each in directives(HTTPSettings) if each.name == option]
    return found.parse(value, "/etc/mailgate")


def settings(urls="http://127.0.0.1:9000/auth", **others):
    """Settings with C{urls}, one a line."""
    return HTTPSettings(urls=read("auth_http", urls), **others)


def server(group):
    """A server whose settings are C{group}."""
    return ServerSettings("imap", "imap", (), {HTTPSettings: group})


class URLTests(SynchronousTestCase):
    """What auth_http may be."""

    def test_forms(self):
        """All forms of nginx are understood, https too, with their default port and URI, as is their Host header."""
        for value, url, host in (
            ("http://127.0.0.1:9000/auth?x=1", ServiceURL(False, "127.0.0.1", 9000, "/auth?x=1"), "127.0.0.1"),
            ("HTTP://auth.example.com", ServiceURL(False, "auth.example.com", 80, "/"), "auth.example.com"),
            ("hTTps://auth.example.com/a", ServiceURL(True, "auth.example.com", 443, "/a"), "auth.example.com"),
            ("https://auth.example.com:8443", ServiceURL(True, "auth.example.com", 8443, "/"), "auth.example.com"),
            ("localhost", ServiceURL(False, "localhost", 80, "/"), "localhost"),
            ("auth-server:9000/x/%20", ServiceURL(False, "auth-server", 9000, "/x/%20"), "auth-server"),
            ("host:9000?query", ServiceURL(False, "host", 9000, "/?query"), "host"),
            ("[::1]:9000/a", ServiceURL(False, "::1", 9000, "/a"), "[::1]"),
            ("http://[2001:db8::1]", ServiceURL(False, "2001:db8::1", 80, "/"), "[2001:db8::1]"),
            ("unix:/run/auth.sock", ServiceURL(False, "unix:/run/auth.sock", 0, "/"), "localhost"),
            ("unix:/run/auth.sock:/a?b", ServiceURL(False, "unix:/run/auth.sock", 0, "/a?b"), "localhost"),
            ("http://unix:/run/auth.sock:/a", ServiceURL(False, "unix:/run/auth.sock", 0, "/a"), "localhost"),
        ):
            self.assertEqual(read("auth_http", value), (url,))
            self.assertEqual(url.hostHeader, host)

    def test_several(self):
        """There may be several, one a line."""
        urls = read("auth_http", "http://a\n  https://b/c\n")
        self.assertEqual(urls, (ServiceURL(False, "a", 80, "/"), ServiceURL(True, "b", 443, "/c")))

    def test_shown(self):
        """In a log stand scheme, host, port and path, and nothing of the query."""
        for value, shown in (
            ("https://a/b?secret", "https://a:443/b"),
            ("a?secret", "http://a:80/"),
            ("[::1]:1/b", "http://[::1]:1/b"),
            ("unix:/run/a:/b?secret", "http://unix:/run/a:/b"),
        ):
            (url,) = read("auth_http", value)
            self.assertEqual(str(url), shown)
            self.assertNotIn("secret", repr(url))

    def test_bad(self):
        """What is no such URL is refused, in words that do not repeat it: it may hold a secret."""
        for value in (
            "", "http://", "https:///x", "ftp://secret/", "//secret", ":80", "host:", "host:0", "host:65536", "host:8x",
            "host:" + "9" * 5000, "http://user:secret@host/", "host name/", "host/\x7f", "hôst", "host/#secret", "[::1",
            "[1.2.3.4]:80", "[::g]", "::1", "unix:", "unix:run", "unix:/run:secret", "https://unix:/run:/", "a\\secret",
        ):  # fmt: skip
            error = self.assertRaises(ValueError, read, "auth_http", value)
            self.assertNotIn("secret", str(error))
            self.assertTrue(str(error))


class SettingsTests(SynchronousTestCase):
    """The other directives."""

    def test_defaults(self):
        """Without directives there is no service; the time-out is nginx's."""
        self.assertEqual((HTTPSettings().urls, HTTPSettings().headers, HTTPSettings().timeout), ((), (), 60.0))

    def test_headers(self):
        """A header is a name and, after blanks, a value, which may hold blanks or be missing."""
        self.assertEqual(
            read("auth_http_header", "X-Key  a b: c \n x-Empty\nY\tä"),
            ((b"X-Key", b"a b: c"), (b"x-Empty", b""), (b"Y", "ä".encode())),
        )

    def test_badHeaders(self):
        """What would not be one header is refused, without repeating the value."""
        for value in ("X-Key: secret", "X-Key:secret", "X(Y) secret", "X secret\0", "X a\rY:secret", "Ä secret"):
            error = self.assertRaises(ValueError, read, "auth_http_header", value)
            self.assertNotIn("secret", str(error))

    def test_cache(self):
        """The cache is off by default; its size is nginx's, and not too small."""
        self.assertEqual((HTTPSettings().cacheTTL, HTTPSettings().cacheSize), (0.0, 10 * 1024 * 1024))
        self.assertEqual((read("auth_cache_ttl", "5m"), read("auth_cache_size", "32k")), (300.0, 32768))
        self.assertRaises(ValueError, read, "auth_cache_size", "31k")

    def test_noSecretShown(self):
        """Neither queries nor headers are in the repr of settings."""
        shown = repr(settings("http://a/?hush", headers=((b"X-Key", b"hush"),)))
        self.assertNotIn("hush", shown)

    def test_problems(self):
        """Certificates that cannot be loaded are problems."""
        empty = self.mktemp()
        with open(empty, "w"):
            pass
        for trusted in (empty, empty + ".missing"):
            (problem,) = settings(trusted=trusted).problems(server(None))
            self.assertEqual((problem.option, problem.value), ("auth_http_ssl_trusted_certificate", trusted))
        self.assertEqual(list(settings().problems(server(None))), [])
