"""
Tests for L{mailgate.auth.http.settings}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.http.dialect import ESCAPES, NGINX, PROTOCOL_NAMES
from mailgate.auth.http.presets import PRESETS, dialectOf
from mailgate.auth.http.settings import HTTPSettings, ServiceURL
from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.test.support.httpsettings import read, server, settings


class URLTests(SynchronousTestCase):
    """Values of auth_http."""

    def test_forms(self):
        """All forms of nginx and https URLs are accepted, with default port, URI and Host header."""
        for value, url, host in (
            ("http://127.0.0.1:9000/auth?x=1", ServiceURL(False, "127.0.0.1", 9000, "/auth?x=1"), "127.0.0.1"),
            ("HTTP://auth.example.com", ServiceURL(False, "auth.example.com", 80, "/"), "auth.example.com"),
            ("hTTps://auth.example.com/a", ServiceURL(True, "auth.example.com", 443, "/a"), "auth.example.com"),
            ("https://auth.example.com:8443", ServiceURL(True, "auth.example.com", 8443, "/"), "auth.example.com"),
            ("localhost", ServiceURL(False, "localhost", 80, "/"), "localhost"),
            ("auth-server:9000/x/%20", ServiceURL(False, "auth-server", 9000, "/x/%20"), "auth-server"),
            ("http://mail_auth:8080/auth", ServiceURL(False, "mail_auth", 8080, "/auth"), "mail_auth"),
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
        """Several URLs are possible, one per line."""
        urls = read("auth_http", "http://a\n  https://b/c\n")
        self.assertEqual(urls, (ServiceURL(False, "a", 80, "/"), ServiceURL(True, "b", 443, "/c")))

    def test_shown(self):
        """The log shows scheme, host, port and path, but not the query."""
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
        """An invalid URL is rejected by a message that does not quote it, because it may contain a secret."""
        for value in (
            "", "http://", "https:///x", "ftp://secret/", "//secret", ":80", "host:", "host:0", "host:65536", "host:8x",
            "host:" + "9" * 5000, "http://user:secret@host/", "host name/", "host/\x7f", "hôst", "host/#secret", "[::1",
            "[1.2.3.4]:80", "[::g]", "::1", "unix:", "unix:run", "unix:/run:secret", "https://unix:/run:/", "a\\secret",
        ):  # fmt: skip
            error = self.assertRaises(ValueError, read, "auth_http", value)
            self.assertNotIn("secret", str(error))
            self.assertTrue(str(error))

    def test_otherScheme(self):
        """A URL with another scheme is rejected by a message that lists the valid forms."""
        error = self.assertRaises(ValueError, read, "auth_http", "ftp://127.0.0.1/")
        self.assertTrue(str(error).startswith("must be http://HOST"), error)


class SettingsTests(SynchronousTestCase):
    """The other directives."""

    def test_keepalive(self):
        """By default, connections are kept with a pause."""
        for written, kept in (
            ("", "auto"),
            *((f"auth_http_keepalive = {word}", word) for word in ("auto", "on", "off")),
        ):
            (made,) = parse(f"[server x]\nprotocol = imap\nlisten = 127.0.0.1:1\nauth_http = a\n{written}").servers
            self.assertEqual(made[HTTPSettings].keepalive, kept)

    def test_defaults(self):
        """Without directives there is no service; the time-out is nginx's."""
        self.assertEqual((HTTPSettings().urls, HTTPSettings().headers, HTTPSettings().timeout), ((), (), 60.0))

    def test_headers(self):
        """A header is a name and, after spaces, a value, which may contain spaces or be missing."""
        self.assertEqual(
            read("auth_http_header", "X-Key  a b: c \n x-Empty\nY\tä"),
            ((b"X-Key", b"a b: c"), (b"x-Empty", b""), (b"Y", "ä".encode())),
        )

    def test_badHeaders(self):
        """An invalid header is rejected by a message that does not quote the value."""
        for value in ("X-Key: secret", "X-Key:secret", "X(Y) secret", "X secret\0", "X a\rY:secret", "Ä secret"):
            error = self.assertRaises(ValueError, read, "auth_http_header", value)
            self.assertNotIn("secret", str(error))

    def test_cache(self):
        """The cache is off by default; its size is written as in nginx, and has a minimum."""
        self.assertEqual((HTTPSettings().cacheTTL, HTTPSettings().cacheSize), (0.0, 10 * 1024 * 1024))
        self.assertEqual((read("auth_cache_ttl", "5m"), read("auth_cache_size", "32k")), (300.0, 32768))
        self.assertRaises(ValueError, read, "auth_cache_size", "31k")

    def test_noSecretShown(self):
        """The repr of settings shows neither queries nor headers."""
        shown = repr(settings("http://a/?hush", headers=((b"X-Key", b"hush"),)))
        self.assertNotIn("hush", shown)

    def test_problems(self):
        """Certificates that cannot be loaded are errors."""
        empty = self.mktemp()
        with open(empty, "w"):
            pass
        for trusted in (empty, empty + ".missing"):
            (problem,) = settings(trusted=trusted).problems(server(None))
            self.assertEqual((problem.option, problem.value), ("auth_http_ssl_trusted_certificate", trusted))
        self.assertEqual(list(settings().problems(server(None))), [])


class DialectTests(SynchronousTestCase):
    """The directives that adapt requests to a service."""

    def configured(self, *options, protocol="imap"):
        """Return the dialect and the warnings of a server with C{options}."""
        lines = "\n".join(("auth_http = a", f"protocol = {protocol}", "listen = 127.0.0.1:1", *options))
        if protocol == "smtp":
            lines += "\nsmtp_capabilities = 8BITMIME"
        configuration = parse(f"[server x]\n{lines}")
        (made,) = configuration.servers
        return made[HTTPSettings].dialect(made), [str(warning) for warning in configuration.warnings]

    def problem(self, *options, protocol="imap"):
        """Return the only error in C{options}."""
        error = self.assertRaises(ConfigurationError, self.configured, *options, protocol=protocol)
        (problem,) = error.problems
        return problem

    def test_default(self):
        """By default requests are those of nginx."""
        self.assertEqual(self.configured(), (NGINX, []))

    def test_words(self):
        """Each directive works, in any case of letters."""
        for word in ("nginx", "url", "none", "base64"):
            spoken, _ = self.configured(f"auth_http_escape = {word.upper()}")
            self.assertEqual((spoken.escapeUser, spoken.escapePassword), (ESCAPES[word], ESCAPES[word]))
        for word, expected in PROTOCOL_NAMES.items():
            spoken, _ = self.configured(f"auth_http_protocol_names = {word}")
            self.assertIs(spoken.protocolName, expected)
        for word, expected in (("on", True), ("off", False)):
            self.assertIs(self.configured(f"auth_http_pass = {word}")[0].showsPassword, expected)
        for word, expected in (("refuse", False), ("accept", True)):
            self.assertIs(self.configured(f"auth_http_missing_status = {word}")[0].acceptsMissing, expected)

    def test_bad(self):
        """Other words are rejected by a message that lists the valid ones."""
        for option, value, known in (
            ("auth_http_escape", "base64url", "must be one of nginx, url, none, base64; did you mean base64?"),
            ("auth_http_protocol_names", "dovecot", "must be one of nginx, zimbra, mailu"),
            ("auth_http_pass", "no", 'must be "on" or "off"'),
            ("auth_http_missing_status", "ok", "must be one of refuse, accept"),
            ("auth_http_preset", "mailcow", "must be one of mailu, zimbra, kolab, bluemind, nauthilus"),
        ):
            problem = self.problem(f"{option} = {value}")
            self.assertEqual(problem.option, option)
            self.assertTrue(problem.message.startswith(known), problem.message)

    def test_preset(self):
        """Explicit directives take precedence over a preset, even with the value of a default."""
        self.assertEqual(self.configured("auth_http_preset = kolab")[0], dialectOf(PRESETS["kolab"], "imap", ()))
        spoken, _ = self.configured(
            "auth_http_preset = zimbra", "auth_http_pass = on", "auth_http_protocol_names = nginx"
        )
        expected = dialectOf(PRESETS["zimbra"], "imap", (), names="nginx", showsPassword=True)
        self.assertEqual(spoken, expected)

    def test_inherited(self):
        """Directives in [mail] are explicit for every server."""
        server = "auth_http_preset = nauthilus\nauth_http = a\nprotocol = imap\nlisten = 127.0.0.1:1"
        (made,) = parse(f"[mail]\nauth_http_escape = url\n[server x]\n{server}").servers
        self.assertIs(made[HTTPSettings].dialect(made).escapePassword, ESCAPES["url"])

    def test_unknownProtocol(self):
        """A preset whose service does not support the protocol causes a warning, and is used."""
        for preset, protocol, told in (
            ("zimbra", "smtp", "the service of this preset supports only imap and pop3"),
            ("bluemind", "smtp", "the service of this preset supports only imap and pop3"),
            ("kolab", "pop3", "the service of this preset supports only imap and smtp"),
        ):
            _, (warning,) = self.configured(f"auth_http_preset = {preset}", protocol=protocol)
            self.assertTrue(warning.endswith(f"[server x] auth_http_preset = {preset}: {told}"), warning)
        self.assertEqual(self.configured("auth_http_preset = mailu", protocol="smtp")[1], [])

    def test_misspelt(self):
        """A misspelt variable causes a warning without the value; a plain dollar sign does not."""
        _, (warning,) = self.configured("auth_http_header = X-A hush $remote_adr $remote_addr")
        told = "the value of X-A contains a $ that starts no variable; it is sent as is; did you mean remote_addr?"
        self.assertTrue(warning.endswith(f"[server x] auth_http_header: {told}"), warning)
        self.assertNotIn("hush", warning)
        self.assertEqual(self.configured("auth_http_header = X-A pa$word$ ${dollar}remote_addr $1 ${x}")[1], [])

    def test_digestsAndRoutes(self):
        """A service that does not receive passwords cannot be used with digests."""
        problem = self.problem("auth_http_pass = off", "pop3_auth = plain cram-md5 apop", protocol="pop3")
        self.assertEqual(problem.option, "pop3_auth")
        self.assertIn("with auth_http_pass = off: the service does not check passwords", problem.message)
        problem = self.problem("auth_http_preset = zimbra", "imap_auth = cram-md5")
        self.assertIn("with auth_http_preset = zimbra: the service does not check", problem.message)
        self.configured("auth_http_preset = zimbra", "auth_http_pass = on", "imap_auth = cram-md5")
        self.configured("auth_http_pass = off", "imap_auth = plain login", "pop3_auth = apop")
