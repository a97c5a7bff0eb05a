# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""
The common configuration of nginx and mailgate.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["PROTOCOLS", "SERVERS", "mailBlock", "protocolOf"]

PROTOCOLS = ("imap", "pop3", "smtp")

COMMON = """
server_name gate.example;
auth_http 127.0.0.1:{auth}/auth?key=1;
timeout 20s;
ssl_certificate {certificate};
ssl_certificate_key {key};
ssl_protocols TLSv1.2;
ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384;
"""
"""The directives of C{mail} for all servers."""

_ALL = {
    "imap": "imap_auth plain login cram-md5 external;",
    "pop3": "pop3_auth plain apop cram-md5 external;",
    "smtp": "smtp_auth plain login cram-md5 external;",
}


def _forAll(name: str, directives: str) -> dict[str, str]:
    """A server for each protocol, with C{directives} and all mechanisms."""
    return {f"{protocol}-{name}": f"{_ALL[protocol]} {directives}" for protocol in PROTOCOLS}


SERVERS: Mapping[str, str] = {
    **_ALL,
    "imap-default": "",
    "pop3-default": "",
    "smtp-default": "",
    **_forAll("starttls", "starttls on;"),
    **_forAll("only", "starttls only;"),
    **_forAll("ssl", "listen 127.0.0.1:{port} ssl;"),
    **_forAll("newest", "listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.3;"),
    **_forAll("pass", "proxy_pass_error_message on;"),
    **_forAll("errors", "max_errors 2;"),
    **_forAll("headers", 'auth_http_header X-Key "the secret"; auth_http_header X-Empty "";'),
    **_forAll("fromproxy", "listen 127.0.0.1:{port} proxy_protocol;"),
    **_forAll("real", "listen 127.0.0.1:{port} proxy_protocol; set_real_ip_from 127.0.0.0/8; proxy_protocol on;"),
    **_forAll("toproxy", "proxy_protocol on;"),
    **_forAll("quick", "timeout 1s; auth_http_timeout 1s;"),
    **{f"{protocol}-unix": f"listen unix:{{folder}}/{protocol}-unix;" for protocol in PROTOCOLS},
    **{f"{protocol}-tounix": f"listen unix:{{folder}}/{protocol}-tounix; proxy_protocol on;" for protocol in PROTOCOLS},
    **_forAll("wanted", "starttls on; ssl_verify_client optional; ssl_client_certificate {authority};"),
    **_forAll("needed", "starttls on; ssl_verify_client on; ssl_client_certificate {authority};"),
    **_forAll("shown", "listen 127.0.0.1:{port} ssl; ssl_verify_client optional_no_ca; auth_http_pass_client_cert on;"),
    **_forAll("fromproxy-ssl", "listen 127.0.0.1:{port} proxy_protocol ssl;"),
    "imap-login": "imap_auth login;",
    "imap-cram": "imap_auth cram-md5;",
    "imap-words": 'imap_capabilities IMAP4rev1 IDLE "X-A b=c";',
    "imap-small": "imap_client_buffer 128;",
    "pop3-apop": "pop3_auth apop;",
    "pop3-words": 'pop3_capabilities TOP UIDL "EXPIRE 60 USER" "LOGIN-DELAY 10";',
    "smtp-words": 'smtp_capabilities "SIZE 104857600" 8BITMIME DSN;',
    "smtp-cram": "smtp_auth cram-md5;",
    "smtp-small": "smtp_client_buffer 128;",
    "smtp-none": "smtp_auth none;",
    "smtp-none-plainly": "smtp_auth none; xclient off;",
    "smtp-none-only": "smtp_auth plain none; starttls only;",
    "smtp-mixed": "smtp_auth plain none;",
    "smtp-plainly": "xclient off;",
    "smtp-auth": "proxy_smtp_auth on; smtp_auth plain login cram-md5 external;",
    "smtp-auth-plainly": "proxy_smtp_auth on; xclient off;",
    "smtp-auth-pass": "proxy_smtp_auth on; proxy_pass_error_message on; smtp_auth plain none;",
    "smtp-late": "smtp_greeting_delay 300ms;",
}
"""The directives of servers by name, without the usual C{listen}; the name begins with the protocol."""


def protocolOf(server: str) -> str:
    """The protocol of the server of that name."""
    return server.partition("-")[0]


def _server(name: str, port: int, values: Mapping[str, str | int]) -> str:
    directives = SERVERS[name].format(port=port, **values)
    if "listen" not in directives:
        directives = f"listen 127.0.0.1:{port}; {directives}"
    return "server {\n" + f"protocol {protocolOf(name)}; {directives}".replace("; ", ";\n").strip() + "\n}\n"


def mailBlock(ports: Mapping[str, int], **values: str | int) -> str:
    """
    nginx's block C{mail} with all L{SERVERS}, which listen on C{ports}. C{values} are the C{folder} of their sockets,
    the port of C{auth}, and the paths of C{certificate}, C{key} and C{authority}.
    """
    servers = (_server(name, port, values) for name, port in ports.items())
    return f"mail {{{COMMON.format(**values)}{''.join(servers)}}}\n"
