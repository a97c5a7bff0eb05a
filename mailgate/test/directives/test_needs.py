"""
Tests for L{mailgate.directives.needs}: each option without effect causes a warning, with its server.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import knownDirectives, parse
from mailgate.sandbox.certificate import ensureCertificate
from mailgate.test.support.nowhere import NOWHERE

EVERYWHERE = {
    "session_max_age",
    *("error_log", "listen", "protocol", "ssl", "server_name", "timeout", "max_errors", "max_commands"),
    *("unlisted_auth", "auth_delay", "max_auth_failures", "sasl_authzid"),
    *("oauth_error_status", "sasl_max_response"),
    *(
        "proxy_pass",
        "proxy_ssl",
        "proxy_auth",
        "proxy_auth_user",
        "proxy_auth_pass",
        "proxy_hops",
        "proxy_pass_error_message",
        "proxy_timeout",
        "proxy_buffer",
        "proxy_protocol",
        "proxy_connect_timeout",
        "proxy_login_timeout",
        "proxy_next_upstream",
        "proxy_next_upstream_tries",
        "proxy_next_upstream_timeout",
    ),
    *("access", "limit_conn", "limit_req", "limit_early_drop", "limit_login", "limit_exempt", "limit_prefix"),
    *("limit_memory", "state_file", "limit_log_level", "limit_login_pair", "limit_login_address"),
    *("limit_login_network", "limit_login_user", "limit_login_delay"),
    # it has a warning of its own, because it never has an effect
    "proxy",
}
"""Directives that have an effect in every server."""

HTTP = "auth_http = http://127.0.0.1:9/auth"
PASS = "proxy_pass = 127.0.0.1:9"

WITHOUT = (
    ("imap", HTTP, "smtp_auth = plain", "protocol = smtp"),
    ("imap", HTTP, "pop3_capabilities = TOP", "protocol = pop3"),
    ("pop3", HTTP, "imap_client_buffer = 4k", "protocol = imap"),
    ("imap", HTTP, "xclient = off", "protocol = smtp"),
    ("pop3", HTTP, "proxy_smtp_auth = on", "protocol = smtp"),
    ("imap", HTTP, "smtp_greeting_delay = 1s", "protocol = smtp"),
    ("imap", HTTP, "resolver = 127.0.0.1", "protocol = smtp"),
    ("smtp", HTTP, "resolver_timeout = 3s", "resolver"),
    ("smtp", HTTP, "proxy_identity = off", "protocol = imap or pop3 or sieve"),
    ("imap", HTTP, "proxy_protocol = on\nproxy_identity = off", "proxy_protocol = off"),
    ("smtp", PASS, "proxy_smtp_auth = off", "auth_http or auth_file: with proxy_pass alone the gateway always logs in"),
    (
        *("imap", HTTP, "scram_iterations = 8192"),
        "scram-sha-256 or scram-sha-1 in the methods of the protocol, such as imap_auth",
    ),
    ("imap", PASS, "auth_cache_ttl = 5s", "auth_http"),
    ("imap", PASS, "auth_http_timeout = 5s", "auth_http"),
    ("imap", PASS, "auth_http_header = X-A b", "auth_http"),
    ("imap", PASS, "auth_file_cache_ttl = 5s", "auth_file"),
    ("imap", HTTP, "limit_conn = off\nlimit_conn_dry_run = on", "a limit in limit_conn"),
    ("imap", HTTP, "limit_req = off\nlimit_req_dry_run = on", "a rate in limit_req"),
    ("imap", HTTP, "auth_cache_size = 1m", "auth_cache_ttl"),
    ("imap", HTTP, "auth_http_ssl_verify = off", "an https: URL in auth_http"),
    ("imap", HTTP, "auth_http_pass_client_cert = on", "ssl_verify_client"),
    ("imap", HTTP, "set_real_ip_from = 10.0.0.0/8", '"proxy_protocol" in listen'),
    ("imap", HTTP, f"ssl_certificate = {NOWHERE}/x", '"ssl" in listen, or starttls'),
    ("imap", HTTP, "ssl_protocols = TLSv1.3", '"ssl" in listen, or starttls'),
    ("imap", HTTP, "ssl_session_timeout = 5m", '"ssl" in listen, or starttls'),
)
"""Options of a server without TLS, and what they need."""


class WithoutEffectTests(SynchronousTestCase):
    """Options without effect."""

    def warned(self, text: str) -> list[str]:
        """The messages about options without effect."""
        return [str(each) for each in parse(text).warnings if each.message.startswith("has no effect")]

    def server(self, protocol: str, *lines: str) -> str:
        announced = "smtp_capabilities = 8BITMIME\n" if protocol == "smtp" else ""
        return (
            f"[server {protocol}]\nprotocol = {protocol}\nlisten = 127.0.0.1:1\n{announced}" + "\n".join(lines) + "\n"
        )

    def test_table(self):
        """L{WITHOUT}: in a server's own section the message has the server and the line."""
        for protocol, judge, option, what in WITHOUT:
            text = self.server(protocol, judge, option)
            line, name = text.count("\n"), option.split("\n")[-1].partition(" =")[0]
            told = f"gateway.ini:{line}: [server {protocol}] {name}: has no effect without {what}"
            self.assertEqual(self.warned(text), [told])

    def test_inMail(self):
        """In [mail] there is a warning if no server that inherits the option can use it."""
        for protocol, judge, option, what in WITHOUT:
            text = f"[mail]\n{option}\n" + self.server(protocol, judge)
            line, name = option.count("\n") + 2, option.split("\n")[-1].partition(" =")[0]
            told = f"gateway.ini:{line}: [mail] {name}: has no effect: no server that inherits it has {what}"
            self.assertEqual(self.warned(text), [told])

    def test_usedByOne(self):
        """One server that can use it is enough."""
        smtp = self.server("smtp", HTTP).replace(":1", ":2")
        mail = "[mail]\nsmtp_auth = plain\nimap_auth = plain\nset_real_ip_from = 10.0.0.0/8\n"
        imap = self.server("imap", HTTP).replace("127.0.0.1:1", "127.0.0.1:1 proxy_protocol")
        self.assertEqual(self.warned(mail + imap + smtp), [])

    def test_overridden(self):
        """There is no warning for a default that all servers replace."""
        self.assertEqual(
            self.warned("[mail]\nimap_auth = plain\n" + self.server("imap", HTTP, "imap_auth = login")), []
        )

    def test_differentReasons(self):
        """If servers lack different things, the message has all of them."""
        text = "[mail]\nresolver_timeout = 5s\n" + self.server("smtp", HTTP)
        text += self.server("imap", HTTP).replace(":1", ":2")
        told = "has no effect: no server that inherits it has resolver or protocol = smtp"
        self.assertEqual(self.warned(text), [f"gateway.ini:2: [mail] resolver_timeout: {told}"])

    def test_relayed(self):
        """nginx's proxy off would relay no sessions; mailgate relays all."""
        told = "gateway.ini:5: [server imap] proxy = off: has no effect; mailgate relays all sessions"
        self.assertEqual(self.warned(self.server("imap", HTTP, "proxy = off")), [told])
        self.assertEqual(self.warned(self.server("imap", HTTP, "proxy = on")), [])

    def test_underTLS(self):
        """With TLS the options have an effect, except those that need more."""
        certificate, key = ensureCertificate(self.mktemp(), ())
        pair = f"ssl_certificate = {certificate}\nssl_certificate_key = {key}\n"
        text = self.server("imap", HTTP).replace(":1\n", ":1 ssl\n") + pair
        options = "ssl_session_timeout = 5m\nssl_protocols = TLSv1.2\nssl_ciphers = HIGH\n"
        self.assertEqual(self.warned(text + options), [])
        for options, what in (
            ("starttls = on", 'a listen without "ssl"'),
            ("ssl_verify_depth = 2", "ssl_verify_client"),
            ("ssl_protocols = TLSv1.3\nssl_ciphers = HIGH", "a version before TLSv1.3 in ssl_protocols"),
        ):
            (told,) = self.warned(f"{text}{options}\n")
            self.assertTrue(told.endswith(f": has no effect without {what}"), told)

    def test_complete(self):
        """Every directive of servers declares what it needs, or has an effect everywhere."""
        known = {**knownDirectives("mail"), **knownDirectives("server")}
        self.assertEqual({name for name, declared in known.items() if not declared.needs}, EVERYWHERE)
