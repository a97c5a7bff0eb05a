# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""
nginx and mailgate side by side: each with the same configuration, an authentication service and backends of its own,
and the same conversations.
"""

from __future__ import annotations

import re
import shlex
import shutil
import ssl
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from cryptography.x509.oid import ExtendedKeyUsageOID

from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.conversation import Conversation, Listener, Normal, Transcript, lines
from mailgate.test.integration.daemon import freePort, newFolder
from mailgate.test.integration.gateway import GatewayProcess
from mailgate.test.integration.nginx import NginxProcess, writeConfiguration
from mailgate.test.integration.scripted import ScriptedAuth, ScriptedBackend

__all__ = ["Pair"]

PROTOCOLS = ("imap", "pop3", "smtp")

CERTIFICATES = ("", "good", "strange", "misused")
"""What clients may show: none, a good one, one of an authority that nobody knows, and one that is a server's."""

COMMON = """
server_name gate.example;
auth_http 127.0.0.1:{auth}/auth?key=1;
timeout 20s;
ssl_certificate {certificate};
ssl_certificate_key {key};
ssl_protocols TLSv1.2;
ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384;
"""
"""What stands in C{mail}, for all servers."""

_ALL = {
    "imap": "imap_auth plain login cram-md5 external;",
    "pop3": "pop3_auth plain apop cram-md5 external;",
    "smtp": "smtp_auth plain login cram-md5 external;",
}


def _forAll(name: str, directives: str) -> dict[str, str]:
    """A server of each protocol, C{directives} and all mechanisms."""
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


def _certificates(authority: Authority) -> dict[str, ssl.SSLContext]:
    """Clients with each of L{CERTIFICATES}, who trust C{authority}."""
    clients = {name: ssl.create_default_context(cafile=authority.path) for name in CERTIFICATES}
    strange = Authority(authority.folder, "stranger")
    client = ExtendedKeyUsageOID.CLIENT_AUTH
    for name, pair in (
        ("good", authority.sign("good", client)),
        ("strange", strange.sign("strange", client)),
        ("misused", authority.sign("misused")),
    ):
        clients[name].load_cert_chain(pair.certificate, pair.key)
    return clients


class Side:
    """
    A proxy, its authentication service, its backends, and the ports of its servers. C{configuration} is the path of
    nginx.conf.
    """

    proxy: NginxProcess | GatewayProcess

    def __init__(self, authority: Authority, clients: Mapping[str, ssl.SSLContext]) -> None:
        self.folder = newFolder("side")
        self._clients = clients
        self.auth = ScriptedAuth()
        self.backends = {protocol: ScriptedBackend(protocol) for protocol in PROTOCOLS}
        self._authority = authority
        self.ports = {name: freePort() for name in SERVERS}
        self._nobody = freePort()
        pair = authority.sign("gateway")
        common = COMMON.format(auth=self.auth.port, certificate=pair.certificate, key=pair.key)
        servers = [f"server {{\n{self._server(name)}\n}}\n" for name in SERVERS]
        self.configuration = writeConfiguration(self.folder, f"mail {{{common}{''.join(servers)}}}\n")

    def _server(self, name: str) -> str:
        directives = SERVERS[name].format(port=self.ports[name], authority=self._authority.path)
        if "listen" not in directives:
            directives = f"listen 127.0.0.1:{self.ports[name]}; {directives}"
        return f"protocol {protocolOf(name)}; {directives}".replace("; ", ";\n").strip()

    def play(self, conversation: Conversation) -> Transcript:
        """Hold C{conversation}, and give what was said."""
        protocol = protocolOf(conversation.server)
        backend = self.backends[protocol]
        self.auth.ports = {"PORT": backend.port, "NOBODY": self._nobody}
        self.auth.script(conversation.auth)
        backend.script(conversation.backend)
        port = self.ports[conversation.server]
        client = Listener(protocol, port, self._clients[conversation.certificate])
        client.begin(conversation.first, withTLS=" ssl;" in SERVERS[conversation.server])
        client.follow(conversation.steps)
        client.finish()
        backend.settle()
        normal = Normal({port: "LISTEN", client.port: "CLIENT", backend.port: "BACKEND"})
        return Transcript(
            "\n".join(line for mark, data in client.said for line in lines(normal(data), mark) or [mark]),
            "\n".join(line for head in self.auth.heard for line in lines(normal(bytes(head)), "")),
            "\n".join(line for heard in backend.heard for line in ["connection", *lines(normal(bytes(heard)), "")]),
        )

    def playAll(self, conversations: Sequence[Conversation]) -> list[Transcript]:
        """Hold C{conversations}, one after the other."""
        return [self.play(conversation) for conversation in conversations]

    def stop(self) -> None:
        """End all."""
        self.proxy.stop()
        self.auth.stop()
        for backend in self.backends.values():
            backend.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def protocolOf(server: str) -> str:
    """What the server of that name speaks."""
    return server.partition("-")[0]


class Pair:
    """Both proxies, of which mailgate is not told of the directives that are C{unknown} to it."""

    def __init__(self, unknown: Collection[str]) -> None:
        self._folder = newFolder("authority")
        authority = Authority(self._folder, "authority")
        clients = _certificates(authority)
        self.nginx, self.mailgate = Side(authority, clients), Side(authority, clients)
        self.nginx.proxy = NginxProcess(self.nginx.configuration, list(self.nginx.ports.values()))
        try:
            ini = _ini(self.mailgate.configuration, unknown)
            self.mailgate.proxy = GatewayProcess(self.mailgate.folder, ini, list(self.mailgate.ports.values()))
        except BaseException:
            self.nginx.stop()
            raise

    def play(self, conversations: Sequence[Conversation]) -> Iterator[tuple[Conversation, Transcript, Transcript]]:
        """Hold C{conversations} with nginx and, at the same time, with mailgate."""
        with ThreadPoolExecutor(2) as threads:
            both = [threads.submit(side.playAll, conversations) for side in (self.nginx, self.mailgate)]
            yield from zip(conversations, *(one.result() for one in both), strict=True)

    def stop(self) -> None:
        """End both."""
        self.nginx.stop()
        self.mailgate.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


_LISTS = ("imap_capabilities", "pop3_capabilities", "smtp_capabilities")
"""Directives each word of which stands on a line of its own."""


def _ini(configuration: str, unknown: Collection[str]) -> str:
    """What C{mailgate import-nginx} is to make of the file C{configuration}."""
    with open(configuration) as file:
        main, _, mail = file.read().partition("mail {")
    log = re.findall("error_log (.*);", main)[0]
    sections = [f"[mailgate]\nerror_log = {log}\n\n[mail]\nxclient = on\n"]
    for name, value in (("unlisted_auth", "on"), ("auth_http_missing_status", "accept")):
        if name not in unknown:
            sections[0] += f"{name} = {value}\n"
    for number, block in enumerate(mail.split("server {")):
        options: dict[str, list[str]] = {}
        for statement in re.split("[;}]", block):
            name, *words = shlex.split(statement) or [""]
            if name and name not in unknown:
                items = options.setdefault(name, [])
                items.extend(words if name in _LISTS else [" ".join(word for word in words if word not in unknown)])
        section = "".join(f"{name} =\n    " + "\n    ".join(items) + "\n" for name, items in options.items())
        sections.append((f"\n[server s{number}]\n" if number else "") + section)
    return "".join(sections)
