# -*- test-case-name: mailgate.test.differential -*-
"""
What random conversations choose from: user names, passwords, directives, PROXY headers.
"""

from __future__ import annotations

__all__ = ["AUTHS", "NAMES", "OPTIONS", "OWN_OPTIONS", "PASSWORDS", "PROTOCOLS", "PROXY_HEADERS"]

NAMES = (
    "joe",
    "joe@example.org",
    "al ice",
    'q"u\\ote',
    "ren\xc3\xa9e",
    "\xe9t\xe9",
    "per%20cent+=&",
    "joe\x01",
    "joe\x7f",
    "a\tb",
    "nul\0l",
    "x" * 300,
    "joe\r\nb NOOP",
    "",
)
PASSWORDS = (
    "sesame",
    "sesame",
    "se same",
    'p"a\\ss',
    "p\xc3\xa4ss",
    "\x02\x03",
    "%00%0d%0a",
    "y" * 900,
    "a\r\nRCPT TO:<x>",
    "",
)

PROTOCOLS = ("imap", "imap", "pop3", "smtp")

AUTHS = {
    "imap": (
        "plain",
        "plain login",
        "plain login cram-md5",
        "plain login cram-md5 external",
        "plain xoauth2 oauthbearer",
    ),
    "pop3": ("plain", "plain apop", "plain apop cram-md5", "plain external", "plain xoauth2 oauthbearer"),
    "smtp": (
        "plain",
        "plain login",
        "plain login cram-md5",
        "plain login external",
        "plain none",
        "none",
        "plain xoauth2 oauthbearer",
    ),
}

OPTIONS = (
    ("", "max_errors = 2", "max_commands = 4"),
    ("", "proxy_pass_error_message = on"),
    ("", "", "proxy_protocol = on", "proxy_protocol = v2"),
    ("", "", "sasl_authzid = pass", "sasl_authzid = ignore"),
    ("", "", "timeout = 5s"),
    ("", "", "auth_delay = 2s", "auth_delay = 0"),
    ("", "", "max_auth_failures = 2"),
    ("", "", "auth_cache_ttl = 60s"),
    ("", "", "auth_http_header = X-Key the-secret"),
    ("", "", "auth_http_keepalive = off", "auth_http_keepalive = on"),
    ("", "proxy_next_upstream = error timeout temporary", "proxy_next_upstream = error timeout tls invalid_response"),
    ("", "", "", "auth_http_escape = nginx"),
    ("", "", "", "proxy_identity = off"),
    ("", "", "", "proxy_timeout = 30s"),
    ("", "", "", "session_max_age = 50s"),
    ("", "", "", "auth_http_timeout = 3s"),
    ("", "", "", "proxy_connect_timeout = 3s", "proxy_login_timeout = 4s"),
    ("", "", "", "unlisted_auth = on"),
)

OWN_OPTIONS = {
    "imap": (
        ("", "", "imap_client_buffer = 128"),
        ("", "", "imap_capabilities =\n  IMAP4rev1\n  IDLE\n  SASL-IR", "imap_capabilities = none"),
        ("", "", "", "proxy_auth = plain", "proxy_auth = xoauth2", "proxy_auth = login"),
    ),
    "pop3": (
        ("", "", "pop3_client_buffer = 128"),
        ("", "", "pop3_capabilities =\n  TOP\n  UIDL\n  EXPIRE 60"),
        ("", "", "", "proxy_auth = plain", "proxy_auth = oauthbearer"),
    ),
    "smtp": (
        ("", "", "smtp_client_buffer = 128"),
        ("", "", "smtp_capabilities =\n  SIZE 104857600\n  8BITMIME\n  PIPELINING"),
        ("", "xclient = on", "xclient = off"),
        ("", "", "proxy_smtp_auth = on"),
        ("", "", "", "", "smtp_greeting_delay = 1s"),
    ),
}

PROXY_HEADERS = (
    "PROXY TCP4 192.0.2.1 192.0.2.2 1234 25\r\n",
    "PROXY TCP6 2001:db8::1 2001:db8::2 1234 25\r\n",
    "PROXY UNKNOWN\r\n",
    "PROXY UNKNOWN with more\r\n",
    "\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c\xc0\0\2\1\xc0\0\2\2\x04\xd2\0\x19",
    "\r\n\r\n\0\r\nQUIT\n \0\0\0",
    "PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n",
    "NOOP\r\n",
    "PROXY " + "x" * 200 + "\r\n",
)
