"""
Tests for L{mailgate.nginx.mapping}: each of nginx's directives goes through its syntax into the settings that it makes
when it is written into an ini file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from attrs import fields, frozen
from crossplane.analyzer import DIRECTIVES, NGX_MAIL_MAIN_CONF, NGX_MAIL_SRV_CONF
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.retry import RetrySettings
from mailgate.config import GatewaySettings, knownDirectives, parse
from mailgate.directives import ConfigurationError
from mailgate.frontend.settings import DialogueSettings
from mailgate.nginx.conf import _NEWER as NEWER
from mailgate.nginx.importer import importNginx
from mailgate.nginx.mapping import NGINX_DEFAULTS
from mailgate.registry import SECTIONS
from mailgate.sandbox.certificate import ensureCertificate
from mailgate.test.support.documents import MISSING, document
from mailgate.test.support.nowhere import NOWHERE

NEVER = {"ssl_session_ticket_key"}
"""A directive that mailgate refuses."""

BOTH = ("mail", "server")
MAIN = ("mailgate",)
SERVER = ("server",)


@frozen
class Row:
    """
    C{nginx}, at each of C{levels}, means what C{ini} says in an ini file; FOLDER is that of nginx.conf. C{protocol} is
    that of the server that it is tried with.
    """

    nginx: str
    ini: str
    levels: tuple[str, ...] = BOTH
    protocol: str = "imap"

    @property
    def option(self) -> str:
        """The directive."""
        return self.nginx.split()[0]


ROWS = (
    # core
    Row("listen 127.0.0.1:1143; listen *:1144;", "listen =\n 127.0.0.1:1143\n *:1144", SERVER),
    Row("listen [::1]:1145 ssl; starttls off; {TLS}", "listen = [::1]:1145 ssl\n{TLS}", SERVER),
    Row("listen unix:/run/mail.sock;", "listen = unix:/run/mail.sock", SERVER),
    Row("listen 127.0.0.1:1143-1145;", "listen = 127.0.0.1:1143-1145", SERVER),
    Row(
        "listen 1143 proxy_protocol bind backlog=64 rcvbuf=8k sndbuf=16k so_keepalive=30m::10;",
        "listen = 1143 proxy_protocol bind backlog=64 rcvbuf=8k sndbuf=16k so_keepalive=30m::10",
        SERVER,
    ),
    Row("listen [::]:1143 ipv6only=off;", "listen = [::]:1143 ipv6only=off", SERVER),
    Row("listen 1143 so_keepalive=30m;", "listen = 1143 so_keepalive=30m", SERVER),
    Row("protocol pop3; protocol smtp;", "protocol = smtp", SERVER),
    Row("server_name mail.example.com;", "server_name = mail.example.com"),
    Row("timeout 1m30s;", "timeout = 90s"),
    Row("max_errors 7;", "max_errors = 7"),
    Row("max_commands 100;", "max_commands = 100"),
    Row("resolver 127.0.0.1 [::1]:5353 valid=5m ipv6=off;", "resolver = 127.0.0.1 [::1]:5353 valid=5m ipv6=off"),
    Row("resolver_timeout 5s;", "resolver_timeout = 5s"),
    Row("error_log /log/a; error_log b warn;", "error_log =\n /log/a error\n PREFIX/b warn"),
    # auth_http
    Row("auth_http localhost:9000/cgi?a=%20;", "auth_http = http://localhost:9000/cgi?a=%20"),
    Row("auth_http http://mail_auth:8080/auth;", "auth_http = http://mail_auth:8080/auth"),
    Row("auth_http a/b; auth_http unix:/run/auth:/x;", "auth_http = unix:/run/auth:/x"),
    Row('auth_http_header A "b c=d; #e"; auth_http_header F %;', "auth_http_header =\n A b c=d; #e\n F %"),
    Row('auth_http_header A "";', "auth_http_header = A"),
    Row("auth_http_timeout 500ms;", "auth_http_timeout = 500ms"),
    Row("auth_http_pass_client_cert on;", "auth_http_pass_client_cert = on"),
    # proxy
    Row("proxy on;", "proxy = on"),
    Row("proxy_buffer 8k;", "proxy_buffer = 8192"),
    Row("proxy_timeout 2d;", "proxy_timeout = 48h"),
    Row("proxy_pass_error_message ON;", "proxy_pass_error_message = on"),
    Row("xclient off;", "xclient = off", protocol="smtp"),
    Row("proxy_smtp_auth on;", "proxy_smtp_auth = on", protocol="smtp"),
    Row("proxy_protocol v2;", "proxy_protocol = v2"),
    # the protocols
    Row("imap_auth login; imap_auth PLAIN external;", "imap_auth = plain login external"),
    Row("imap_capabilities IMAP4 X=Y; imap_capabilities B;", "imap_capabilities =\n IMAP4\n X=Y\n B"),
    Row("imap_client_buffer 16k;", "imap_client_buffer = 16k"),
    Row("pop3_auth apop cram-md5;", "pop3_auth = apop cram-md5", protocol="pop3"),
    Row('pop3_capabilities TOP "EXPIRE 5";', "pop3_capabilities =\n TOP\n EXPIRE 5", protocol="pop3"),
    Row("smtp_auth none;", "smtp_auth = none", protocol="smtp"),
    Row('smtp_capabilities "SIZE 10" 8BITMIME;', "smtp_capabilities =\n SIZE 10\n 8BITMIME", protocol="smtp"),
    Row("smtp_client_buffer 8192;", "smtp_client_buffer = 8k", protocol="smtp"),
    Row("smtp_greeting_delay 3s;", "smtp_greeting_delay = 3s", protocol="smtp"),
    # TLS
    Row("ssl on; {TLS}", "ssl = on\n{TLS}"),
    Row("starttls only; {TLS}", "starttls = only\n{TLS}"),
    Row(
        "ssl_certificate a.pem; ssl_certificate /b.pem;",
        "ssl_certificate =\n FOLDER/a.pem\n /b.pem",
    ),
    Row(
        "ssl_certificate_key a.key; ssl_certificate_key /b.key;",
        "ssl_certificate_key =\n FOLDER/a.key\n /b.key",
    ),
    Row('ssl_certificate "data:a\nb";', "ssl_certificate = data:a\\nb"),
    Row('ssl_certificate_key "data:a\nb";', "ssl_certificate_key = data:a\\nb"),
    Row("ssl_password_file phrases;", "ssl_password_file = FOLDER/phrases"),
    Row("ssl_protocols TLSv1.1; ssl_protocols tlsv1.3;", "ssl_protocols = TLSv1.1 TLSv1.3"),
    Row('ssl_ciphers "HIGH:!aNULL";', "ssl_ciphers = HIGH:!aNULL"),
    Row("ssl_prefer_server_ciphers on;", "ssl_prefer_server_ciphers = on"),
    Row("ssl_ecdh_curve secp384r1;", "ssl_ecdh_curve = secp384r1"),
    Row("ssl_dhparam dh.pem;", "ssl_dhparam = FOLDER/dh.pem"),
    Row(
        "ssl_session_cache none; ssl_session_cache builtin:9 shared:SSL:10m;",
        "ssl_session_cache = builtin:9 shared:SSL:10m",
    ),
    Row("ssl_session_timeout 1d;", "ssl_session_timeout = 24h"),
    Row("ssl_session_timeout 1y2M;", "ssl_session_timeout = 1y2M"),
    Row("ssl_session_tickets off;", "ssl_session_tickets = off"),
    Row("ssl_verify_client optional_no_ca;", "ssl_verify_client = optional_no_ca"),
    Row("ssl_verify_depth 3;", "ssl_verify_depth = 3"),
    Row("ssl_client_certificate ca.pem;", "ssl_client_certificate = FOLDER/ca.pem"),
    Row("ssl_trusted_certificate ca.pem;", "ssl_trusted_certificate = FOLDER/ca.pem"),
    Row("ssl_crl crl.pem;", "ssl_crl = FOLDER/crl.pem"),
    Row(
        "ssl_conf_command Options -SessionTicket; ssl_conf_command MinProtocol TLSv1.2;",
        "ssl_conf_command =\n Options -SessionTicket\n MinProtocol TLSv1.2",
    ),
    Row("ssl_certificate_compression on;", "ssl_certificate_compression = on"),
    # realip
    Row("set_real_ip_from 10.0.0.0/8; set_real_ip_from ::1;", "set_real_ip_from =\n 10.0.0.0/8\n ::1"),
    # main and events
    Row("error_log /log/a; error_log b debug_mail;", "error_log =\n /log/a error\n PREFIX/b debug", MAIN),
    Row("error_log stderr crit;", "error_log = stderr crit", MAIN),
    # With both, notice has the life of the process without logins; info has logins.
    Row("error_log /log/a notice;", "error_log = /log/a notice", MAIN),
    Row("error_log /log/a notice;", "error_log = /log/a notice"),
    Row("error_log /log/a info;", "error_log = /log/a info", MAIN),
    Row(
        "error_log syslog:server=127.0.0.1,tag=mail info;",
        "error_log = syslog:server=127.0.0.1,tag=mail info",
        MAIN,
    ),
    Row("user root;", "user = root", MAIN),
    Row("worker_processes 3;", "worker_processes = 3", MAIN),
    Row("worker_shutdown_timeout 1h;", "worker_shutdown_timeout = 60m", MAIN),
    Row("worker_rlimit_nofile 1024;", "worker_rlimit_nofile = 1024", MAIN),
    Row("events { use epoll; }", "use = epoll", MAIN),
    Row("events { worker_connections 1024; }", "worker_connections = 512", MAIN),
    Row("events { worker_connections 1023; }", "worker_connections = 512", MAIN),
    Row("events { worker_connections 1; }", "worker_connections = 1", MAIN),
    Row("events { debug_connection 192.0.2.1; }", "debug_connection = 192.0.2.1", MAIN),
    Row(
        "events { debug_connection 192.0.2.1; debug_connection 10.0.0.0/8; debug_connection unix:; }",
        "debug_connection = 192.0.2.1 10.0.0.0/8 unix:",
        MAIN,
    ),
)

PORTS = {"imap": 143, "pop3": 110, "smtp": 25}


class MappingCase(SynchronousTestCase):
    """An nginx.conf in a folder of its own, with a certificate."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        self.prefix = os.path.join(self.folder, "prefix")
        os.makedirs(self.folder)
        self.certificate, self.key = (os.path.abspath(name) for name in ensureCertificate(self.folder, ["localhost"]))
        self.write("phrases", "sesame\n")

    def write(self, name: str, text: str) -> str:
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as opened:
            opened.write(text)
        return path

    def imported(self, text: str) -> GatewaySettings:
        """The settings of an nginx.conf C{text}, which is carried over completely."""
        imported = importNginx(self.write("nginx.conf", text), self.prefix)
        self.assertEqual([str(remark) for remark in imported.remarks], [])
        return parse(imported.text, os.path.join(NOWHERE, "gateway.ini"))

    def fill(self, text: str, form: str) -> str:
        files = (("ssl_certificate", self.certificate), ("ssl_certificate_key", self.key))
        tls = {"nginx": "".join(f"{name} {path};" for name, path in files)}
        tls["ini"] = "\n".join(f"{name} = {path}" for name, path in files)
        return text.replace("{TLS}", tls[form]).replace("FOLDER", self.folder).replace("PREFIX", self.prefix)

    def direct(self, row: Row, level: str, added: str) -> Any:
        """The settings of an ini file with C{added} at C{level}."""
        defaults = {default.name: default.value.replace("\n", "\n ") for default in NGINX_DEFAULTS}
        sections = {
            "mailgate": {"error_log": f"{self.prefix}/logs/error.log error", "worker_connections": "256"},
            "mail": {"auth_http": "127.0.0.1:9", **defaults},
            "server": {"protocol": row.protocol, "listen": str(PORTS[row.protocol])},
        }
        sections[level].update(re.findall(r"^(\w+) =(.*(?:\n .*)*)", self.fill(added, "ini"), re.MULTILINE))
        if "timeout" in sections["mail"]:
            # It stands for proxy_login_timeout as well.
            del sections["mail"]["proxy_login_timeout"]
        elif "timeout" in sections["server"]:
            sections["server"]["proxy_login_timeout"] = sections["server"]["timeout"]
        titles = {"server": "server x"}
        return comparable(
            parse(
                "".join(
                    f"[{titles.get(level, level)}]\n" + "".join(f"{name} = {options[name]}\n" for name in options)
                    for level, options in sections.items()
                )
            )
        )

    def nginx(self, row: Row, level: str) -> str:
        """An nginx.conf with the row at C{level}."""
        main, mail, server = (self.fill(row.nginx, "nginx") if level is place else "" for place in (*MAIN, *BOTH))
        events = "" if row.option == "events" else "events { }"
        listen = "" if row.option == "listen" else f"listen {PORTS[row.protocol]};"
        server = f"{listen} protocol {row.protocol}; {server}"
        return f"{events} {main}\nmail {{ auth_http 127.0.0.1:9; {mail}\n server {{ {server} }} }}\n"


def comparable(settings: GatewaySettings) -> Any:
    """The settings to compare."""
    servers = [(server.protocol, server.listen, dict(server.groups)) for server in settings.servers]
    others = {known.name for known in fields(GatewaySettings)} - {"servers", "file", "warnings", "lines"}
    return servers, {name: getattr(settings, name) for name in others}


class RoundTripTests(MappingCase):
    """L{ROWS}."""

    def test_rows(self) -> None:
        """The settings of nginx.conf are those of an ini file with the same meaning."""
        for row, level in self.places():
            given = comparable(self.imported(self.nginx(row, level)))
            self.assertEqual(given, self.direct(row, level, row.ini), (level, row.nginx))

    def test_differ(self) -> None:
        """Each row changes the settings, except the only event method: it would prove nothing otherwise."""
        for row, level in self.places():
            if row.option != "events":
                given = self.direct(row, level, row.ini)
                self.assertNotEqual(given, self.direct(row, level, ""), (level, row.nginx))

    def places(self) -> Iterator[tuple[Row, str]]:
        """Each row, at each of its levels."""
        yield from ((row, level) for row in ROWS for level in row.levels)

    def test_complete(self) -> None:
        """Every mail directive that crossplane knows, or that mailgate adds, has a row."""
        mask = NGX_MAIL_MAIN_CONF | NGX_MAIL_SRV_CONF
        nginx = {name for name, masks in DIRECTIVES.items() if any(single & mask for single in masks)} | set(NEWER)
        shown = {word for row in ROWS for word in row.nginx.replace(";", " ").split()}
        self.assertEqual(nginx - shown - {"server", "include"}, NEVER)


class TimeTests(MappingCase):
    """nginx has one time for the whole login at a backend, and one attempt."""

    def times(self, mail: str, server: str = "") -> tuple[float, float]:
        """The seconds for a login at a backend, and up to its greeting, with directives of nginx.conf."""
        text = f"events {{ }}\nmail {{ auth_http 127.0.0.1:9; {mail}\n server {{ listen 143; {server} }} }}\n"
        (made,) = self.imported(text).servers
        retry = made[RetrySettings].within(made[DialogueSettings].timeout if "timeout" in made.given else None)
        self.assertEqual(retry.causes, ())
        return retry.wholeLogin, retry.attempt

    def test_times(self) -> None:
        """It is timeout, on whichever level that is written, or its default."""
        self.assertEqual(self.times(""), (60, 60))
        self.assertEqual(self.times("timeout 90s;"), (90, 90))
        self.assertEqual(self.times("", "timeout 5s;"), (5, 5))
        self.assertEqual(self.times("timeout 90s;", "timeout 5s;"), (5, 5))

    def test_short(self) -> None:
        """Where timeout is written, its value is not written twice."""
        text = "events { }\nmail { auth_http 127.0.0.1:9; timeout 90s;\n server { listen 143; timeout 5s; } }\n"
        self.assertNotIn("proxy_login_timeout", importNginx(self.write("nginx.conf", text), self.prefix).text)


class DefaultsTests(MappingCase):
    """L{NGINX_DEFAULTS}."""

    def test_differ(self) -> None:
        """Each differs from mailgate's default, and is valid."""
        for default in NGINX_DEFAULTS:
            known = knownDirectives("mail")[default.name]
            assert known.group is not None
            ours = getattr(fields(known.group), known.field).default
            self.assertNotEqual(known.parse(default.value, "/"), ours, default.name)


STATES = ("as nginx", "as freenginx", "differs", "other form", "other default", "other values", "no effect", "refused")

TABLE: dict[str, str] = (
    dict(re.findall(r"^   \* - ``(\w+)``\n     - (.+)$", document("docs", "nginx.rst"), re.MULTILINE))
    if MISSING is None
    else {}
)
"""The directives in docs/nginx.rst and their states."""


class TableTests(MappingCase):
    """The table of docs/nginx.rst; each of its rows has a test, which is added below."""

    skip = MISSING

    def test_complete(self) -> None:
        """It has every directive of nginx's mail, and those of the main context that can be carried over."""
        mask = NGX_MAIL_MAIN_CONF | NGX_MAIL_SRV_CONF
        nginx = {name for name, masks in DIRECTIVES.items() if any(single & mask for single in masks)} - {"include"}
        main = {"mail", "error_log", "pid", "user", "use", "worker_processes", "worker_rlimit_nofile"}
        main |= {"worker_shutdown_timeout", "worker_connections", "debug_connection"}
        self.assertEqual(set(TABLE), nginx | set(NEWER) | main)

    def test_states(self) -> None:
        """Each state is explained."""
        self.assertLessEqual(set(TABLE.values()), set(STATES))

    def checkRefused(self, name: str) -> None:
        """C{name} stops the start with a reason, and the importer lists it."""
        key = self.write("key", "k" * 80)
        tls = self.fill("{TLS}", "ini")
        ini = f"[server x]\nprotocol = imap\nlisten = 143 ssl\nauth_http = a:1\n{tls}\n{name} = {key}\n"
        (problem,) = self.assertRaises(ConfigurationError, parse, ini).problems
        self.assertEqual(problem.option, name)
        server = f"server {{ listen 143 ssl; {self.fill('{TLS}', 'nginx')} {name} key; }}"
        imported = importNginx(
            self.write("nginx.conf", f"events {{ }} mail {{ auth_http a:1; {server} }}"), self.prefix
        )
        (remark,) = imported.remarks
        self.assertIn(f"nginx.conf:1: {name}: not carried over: ", str(remark))

    def checkOwn(self, name: str) -> None:
        """C{name} is known, but left to nginx, and the import reports that."""
        self.assertIn(name, knownDirectives("mailgate"))
        path = self.write("nginx.conf", f"{name} x; events {{ }} mail {{ auth_http a:1; server {{ listen 143; }} }}")
        imported = importNginx(path, self.prefix)
        (remark,) = imported.remarks
        self.assertIn(f"nginx.conf:1: {name}: not carried over: ", str(remark))
        self.assertNotIn(f"{name} =", imported.text)

    def checkCarried(self, name: str) -> None:
        """C{name} is known at the same levels as in nginx, and has the value of the ini file."""
        rows = [row for row in ROWS if re.search(rf"(?:^|; |{{ ){name} ", row.nginx)]
        self.assertTrue(rows)
        for row in rows:
            for level in row.levels:
                self.assertIn(name, knownDirectives(level))
                self.assertEqual(
                    comparable(self.imported(self.nginx(row, level))),
                    self.direct(row, level, row.ini),
                )


def _rowTest(name: str, state: str) -> Callable[[TableTests], None]:
    def test(self: TableTests) -> None:
        if name in ("mail", "server"):
            self.assertIn(name, [kind.word for kind in SECTIONS])
        elif name == "pid":
            self.checkOwn(name)
        elif state == "refused":
            self.checkRefused(name)
        else:
            self.checkCarried(name)

    test.__doc__ = f"C{{{name}}}: {state}."
    return test


for _name, _state in TABLE.items():
    setattr(TableTests, f"test_{_name}", _rowTest(_name, _state))
