"""
Tests for L{mailgate.nginx.importer} and C{mailgate import-nginx}.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

import mailgate
from mailgate.auth.http.authenticator import HTTPSettings
from mailgate.backend.client import ProxySettings
from mailgate.config import GatewaySettings, knownDirectives, load, parse
from mailgate.frontend.protocol import DialogueSettings
from mailgate.lean.connectionlimit import ConnectionSettings
from mailgate.log.journal import LogSettings
from mailgate.nginx.conf import Refused
from mailgate.nginx.importer import DIFFERENCES, importNginx, pathsFor
from mailgate.nginx.mapping import NGINX_DEFAULTS, Mapping
from mailgate.protocols.imap4.server import IMAP4Settings
from mailgate.protocols.pop3.settings import POP3Settings
from mailgate.protocols.smtp.server import SMTPSettings
from mailgate.sandbox.certificate import ensureCertificate
from mailgate.system.processors import WorkerSettings, processors
from mailgate.test.cli.test_main import ConsoleCase
from mailgate.test.test_documentation import MISSING, document
from mailgate.tls.settings import TLSSettings

GUIDE = """\
worker_processes auto;

mail {
    server_name mail.example.com;
    auth_http   localhost:9000/cgi-bin/nginxauth.cgi;

    proxy_pass_error_message on;

    ssl                 on;
    ssl_certificate     /etc/ssl/certs/server.crt;
    ssl_certificate_key /etc/ssl/certs/server.key;
    ssl_protocols       TLSv1 TLSv1.1 TLSv1.2;
    ssl_ciphers         HIGH:!aNULL:!MD5;
    ssl_session_cache   shared:SSL:10m;
    ssl_session_timeout 10m;

    server {
        listen     25;
        protocol   smtp;
        smtp_auth  login plain cram-md5;
    }

    server {
        listen    110;
        protocol  pop3;
        pop3_auth plain apop cram-md5;
}

     server {
        listen   143;
        protocol imap;
    }
}
"""
"""The sample of a guide that has been copied for years; where it was found, the first line has no ";"."""

MAIL = "events {{ }} mail {{ auth_http 127.0.0.1:9; {} }}"


class ImportCase(SynchronousTestCase):
    """An nginx.conf in a folder of its own."""

    def setUp(self):
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.path = os.path.join(self.folder, "nginx.conf")

    def write(self, text: str | bytes) -> None:
        with open(self.path, "wb") as opened:
            opened.write(text.encode() if isinstance(text, str) else text)

    def imported(self, text: str | bytes) -> tuple[str, list[str]]:
        """The ini file, and what is told, without the folder."""
        self.write(text)
        imported = importNginx(self.path, "/srv/nginx")
        return imported.text, [str(remark).replace(self.folder + os.sep, "") for remark in imported.remarks]

    def settings(self, text: str | bytes) -> tuple[GatewaySettings, list[str]]:
        """What the ini file means, and what is told."""
        ini, told = self.imported(text)
        return parse(ini), told

    def tlsPair(self) -> str:
        """The statements of a certificate and its key."""
        certificate, key = map(os.path.abspath, ensureCertificate(self.folder, ["localhost"]))
        return f"ssl_certificate {certificate}; ssl_certificate_key {key};"

    def lines(self, text: str, inner: str) -> list[str]:
        """The lines of the ini file with C{inner} in them."""
        return [line for line in text.splitlines() if inner in line]


class GuideTests(ImportCase):
    """The guide's sample."""

    def setUp(self):
        super().setUp()
        # Its files are the guide's reader's.
        certificate, key = map(os.path.abspath, ensureCertificate(self.folder, ["mail.example.com"]))
        self.text = GUIDE.replace("/etc/ssl/certs/server.crt", certificate).replace("/etc/ssl/certs/server.key", key)
        self.pair = ((certificate,), (key,))

    def test_settings(self):
        """Each of its directives is in force in the gateway that comes of it."""
        settings, told = self.settings(self.text)
        self.assertEqual([server.name for server in settings.servers], ["smtp", "pop3", "imap"])
        self.assertEqual([server.protocol for server in settings.servers], ["smtp", "pop3", "imap"])
        for server, port in zip(settings.servers, (25, 110, 143), strict=True):
            (address,) = server.listen
            self.assertEqual((address.host, address.port, address.ssl), ("0.0.0.0", port, True))
            self.assertEqual(server[DialogueSettings].serverName, "mail.example.com")
            (url,) = server[HTTPSettings].urls
            self.assertEqual((url.host, url.port, url.target), ("localhost", 9000, "/cgi-bin/nginxauth.cgi"))
            self.assertTrue(server[ProxySettings].passErrorMessage)
            tls = server[TLSSettings]
            self.assertEqual((tls.certificates, tls.keys), self.pair)
            self.assertEqual(tls.protocols, ("TLSv1", "TLSv1.1", "TLSv1.2"))
            cache = knownDirectives("mail")["ssl_session_cache"].parse("shared:SSL:10m", "/")
            self.assertEqual((tls.ciphers, tls.sessionCache, tls.sessionTimeout), ("HIGH:!aNULL:!MD5", cache, 600.0))
            self.assertEqual(server[SMTPSettings].xclient, "on")
        smtp, pop3, imap = settings.servers
        self.assertEqual(smtp[SMTPSettings].auth, ("plain", "login", "cram-md5"))
        self.assertEqual(pop3[POP3Settings].auth, ("plain", "apop", "cram-md5"))
        self.assertEqual(imap[IMAP4Settings].auth, ("plain",))
        self.assertEqual([log.file for log in settings[LogSettings].errorLog], ["/srv/nginx/logs/error.log"])
        self.assertEqual(settings[WorkerSettings].count, processors())
        self.assertEqual(
            told, ['nginx.conf: nginx refuses this file, as it has no "events" section; mailgate needs none']
        )

    def test_missingSemicolon(self):
        """As it was found, without the first C{;}, nginx refuses it, and so do we, with the line."""
        error = self.assertRaises(Refused, self.imported, self.text.replace("auto;", "auto"))
        self.assertEqual(str(error), f'{self.path}:1: directive "worker_processes" is not terminated by ";"')

    def test_otherHost(self):
        """On a host without its files they are kept, as they may be where the gateway will run; that is told."""
        ini, told = self.imported(GUIDE)
        self.assertIn("\nssl_certificate = /etc/ssl/certs/server.crt\n", ini)
        self.assertIn("\nssl_certificate_key = /etc/ssl/certs/server.key\n", ini)
        lines = [line for line in told if "ssl_" in line]
        self.assertEqual(len(lines), 2)
        for line in lines:
            self.assertRegex(
                line, r'^nginx\.conf:1[01]: ssl_\w+: carried over, but "/etc/ssl/certs/server\.\w+" cannot be read'
            )

    def test_otherUser(self):
        """So is a user whom this host does not have: as root the gateway is not to stay root because of it."""
        ini, told = self.imported(f"user no-such-user;\n{GUIDE}")
        self.assertIn("\nuser = no-such-user\n", ini)
        self.assertIn('nginx.conf:1: user: carried over, but this host has no user "no-such-user"', told)


class SectionTests(ImportCase):
    """The sections, and what is said of them."""

    def test_names(self):
        """Servers are named after their protocol, then port, then number."""
        servers = "listen 143;", "listen 993;", "listen 10.0.0.1:993;", "listen 1; protocol imap;", "listen unix:/s; {}"
        text = " ".join(f"server {{ {server.format('protocol imap;')} }}" for server in servers)
        settings, _ = self.settings(MAIL.format(text))
        names = [server.name for server in settings.servers]
        self.assertEqual(names, ["imap", "imap-993", "imap-993-2", "imap-1", "imap-2"])

    def test_protocol(self):
        """The protocol is written down, also where the first well-known port told nginx."""
        ini, told = self.imported(MAIL.format("server { listen 9; listen 995; listen 143; }"))
        self.assertEqual((self.lines(ini, "protocol ="), told), (["protocol = pop3"], []))

    def test_origins(self):
        """Each section says where it comes from."""
        ini, _ = self.imported("events { }\nmail {\n auth_http a;\n server {\n  listen 143; } }")
        self.assertIn(f"# {self.path}, line 2\n[mail]\n", ini)
        self.assertIn(f"# {self.path}, line 4\n[server imap]\n", ini)

    def test_goOn(self):
        """The file ends with what to do next."""
        ini, _ = self.imported(MAIL.format("server { listen 143; }"))
        self.assertIn("mailgate check --config", ini.splitlines()[-1])

    def test_defaults(self):
        """nginx's defaults are written out where they are not mailgate's, unless nginx.conf says otherwise."""
        ini, _ = self.imported(MAIL.format("server { listen 25; max_commands 7; }"))
        self.assertEqual(self.lines(ini, "max_commands = "), ["max_commands = 999999999999", "max_commands = 7"])
        ini, _ = self.imported(MAIL.format("server { listen 25; xclient off; }"))
        mail, _, server = ini.partition("[server smtp]")
        self.assertEqual(self.lines(mail, "xclient = "), ["xclient = on"])
        self.assertEqual(self.lines(server, "xclient = "), ["xclient = off"])
        ini, _ = self.imported(MAIL.format("xclient off; server { listen 25; }"))
        self.assertEqual(self.lines(ini, "xclient = "), ["xclient = off"])

    def test_headerAndXCLIENT(self):
        """nginx sends XCLIENT behind a PROXY header; mailgate does not, and the gateway that comes of it starts."""
        told = "carried over as auto: behind the PROXY header of proxy_protocol mailgate sends no XCLIENT"
        for text, xclient, isTold in (
            ("server { listen 25; proxy_protocol on; }", "auto", False),
            ("proxy_protocol on; server { listen 25; }", "auto", False),
            ("proxy_protocol on; xclient on; server { listen 25; }", "auto", True),
            ("server { listen 25; proxy_protocol on; xclient on; }", "auto", True),
            ("proxy_protocol on; server { listen 25; xclient off; }", "off", False),
            ("proxy_protocol on; xclient off; server { listen 25; }", "off", False),
            ("proxy_protocol on; server { listen 25; proxy_protocol off; }", "on", False),
            ("proxy_protocol off; server { listen 25; xclient on; }", "on", False),
            ("proxy_protocol on; server { listen 143; xclient on; }", "on", False),
        ):
            settings, remarks = self.settings(MAIL.format(text))
            (server,) = settings.servers
            self.assertEqual(server[SMTPSettings].xclient, xclient, text)
            self.assertEqual([told in remark for remark in remarks], [True] * isTold, text)

    def test_inheritance(self):
        """A server's list replaces that of mail as a whole, as in nginx."""
        text = "imap_capabilities A B; server { listen 143; imap_capabilities C; } server { listen 993; }"
        settings, _ = self.settings(MAIL.format(text))
        self.assertEqual([server[IMAP4Settings].capabilities for server in settings.servers], [("C",), ("A", "B")])


class PathsTests(ImportCase):
    """Tests for L{pathsFor}."""

    def test_given(self):
        """Logs start at the prefix that is given, files at nginx.conf's folder."""
        paths = pathsFor("/etc/nginx/nginx.conf", "/opt/nginx/")
        self.assertEqual((paths.configuration, paths.prefix), ("/etc/nginx", "/opt/nginx"))
        self.assertEqual(paths.errorLog, "/opt/nginx/logs/error.log")

    def test_own(self):
        """Where nginx.conf lies as nginx itself puts it, the prefix is the folder above."""
        paths = pathsFor("/usr/local/nginx/conf/nginx.conf")
        self.assertEqual((paths.prefix, paths.errorLog), ("/usr/local/nginx", "/usr/local/nginx/logs/error.log"))

    def test_debian(self):
        """Elsewhere it is as Debian has it."""
        paths = pathsFor("/etc/nginx/nginx.conf")
        self.assertEqual((paths.prefix, paths.errorLog), ("/usr/share/nginx", "/var/log/nginx/error.log"))

    def test_relative(self):
        """A relative name starts where we are."""
        self.assertEqual(pathsFor("nginx.conf", "x").prefix, os.path.abspath("x"))
        self.assertEqual(pathsFor("nginx.conf").configuration, os.path.abspath("."))


class ProcessTests(ImportCase):
    """What stands outside of mail."""

    def test_others(self):
        """What has no meaning here is told of once each, http and stream not in detail."""
        text = (
            "daemon off;\nload_module modules/ngx_mail_module.so;\nworker_processes 1;\npid /run/nginx.pid;\n"
            "events {\n worker_connections 768;\n multi_accept on;\n use poll; }\nhttp { server { listen 80; } }\n"
            "stream { }\nfrob x;\ntimeout 5s;\nmail { auth_http a; server { listen 143; } }"
        )
        _, told = self.imported(text)
        self.assertEqual(
            [
                re.sub(r"(not needed|not carried over): (mailgate|twistd|only|it|nginx) .+", r"\1", line)
                for line in told
            ],
            [
                "nginx.conf:1: daemon: not needed",
                "nginx.conf:2: load_module: not needed",
                "nginx.conf:4: pid: not carried over",
                "nginx.conf:7: multi_accept: not needed",
                "nginx.conf:8: use: not needed",
                "nginx.conf:9: http: not carried over",
                "nginx.conf:10: stream: not carried over",
                'nginx.conf:11: not carried over: unknown directive "frob"',
                'nginx.conf:12: not carried over: "timeout" directive is not allowed here',
            ],
        )

    def test_connections(self):
        """Of nginx's connections half are clients; where it says nothing of them, or nonsense, it is half of 512."""
        server = MAIL.format("server { listen 143; }")
        for events, expected in (
            ("", "256"),
            ("events { }", "256"),
            ("events { worker_connections 768; }", "384"),
            ("events { worker_connections many; }", "256"),
            ("events { worker_connections 0; }", "256"),
        ):
            ini, _ = self.imported(events + server.replace("events { }", ""))
            (line,) = [line for line in self.lines(ini, "worker_connections") if line[0] != "#"]
            self.assertEqual(line, f"worker_connections = {expected}")
            self.assertEqual(parse(ini)[ConnectionSettings].most, int(expected))

    def test_errorLog(self):
        """Where none of the logs named can be had, there is nginx's own, and not standard error."""
        for first, logs in (
            ("memory:32m debug", ["/srv/nginx/logs/error.log error"]),
            ("a.log frob", ["/srv/nginx/logs/error.log error"]),
            ("a.log frob; error_log b.log", ["/srv/nginx/b.log error"]),
            ("a.log debug_mail debug_core", ["/srv/nginx/a.log debug"]),
        ):
            ini, _ = self.imported(f"error_log {first}; {MAIL.format('server { listen 143; }')}")
            self.assertEqual(
                [line.partition(" = ")[2] for line in self.lines(ini, "error_log") if line[0] != "#"], logs
            )

    def test_noMail(self):
        """A file without mail, or without servers in it, makes no gateway."""
        error = self.assertRaises(Refused, self.imported, "events { } http { }")
        self.assertEqual(str(error), f"{self.path}: has no mail block")
        error = self.assertRaises(Refused, self.imported, "events { }\nmail { }")
        self.assertEqual(str(error), f"{self.path}:2: the mail block has no server")


class NotCarriedTests(ImportCase):
    """What mailgate cannot have, and how it is told."""

    def test_commentedOut(self):
        """It stands in the ini file as a comment, with the reason, and the rest is in force."""
        text = "\n auth_http_timeout soon;\n timeout 5s; server { listen 143; }"
        ini, told = self.imported(MAIL.format(text))
        reason = "must be a time, such as 30s, 1h30m or 500ms"
        self.assertEqual(told, [f"nginx.conf:2: auth_http_timeout: not carried over: {reason}"])
        self.assertIn(f"\n# Not carried over: {reason}\n# auth_http_timeout = soon\ntimeout = 5s\n", ini)
        parse(ini)

    def test_oneOfSeveral(self):
        """One bad item of a list is left out, the others are not."""
        text = "server {\n listen 143;\n listen 127.0.0.1;\n listen 993 frob;\n listen 144; }"
        settings, told = self.settings(MAIL.format(text))
        self.assertEqual([address.port for address in settings.servers[0].listen], [143, 144])
        self.assertEqual([line.partition(":")[2][:10] for line in told], ["3: listen:", "4: listen:"])

    def test_capabilities(self):
        """What clients do not hear is named; so is a parameter without quotes, which nginx takes for a capability."""
        text = "\n smtp_capabilities SIZE 50000000 STARTTLS;\n pop3_capabilities TOP STLS;\n server { listen 143; }"
        _, told = self.settings(MAIL.format(text))
        own = "is left out: the gateway announces it itself where it is so"
        self.assertEqual(
            told,
            [
                f'nginx.conf:2: smtp_capabilities: carried over, but "STARTTLS" {own}',
                'nginx.conf:2: smtp_capabilities: carried over as two capabilities, which "SIZE 50000000" is in nginx'
                " without quotes: write SIZE 50000000 on one line",
                f'nginx.conf:3: pop3_capabilities: carried over, but "STLS" {own}',
            ],
        )
        _, told = self.settings(MAIL.format('smtp_capabilities "SIZE 50000000" 8BITMIME; server { listen 143; }'))
        self.assertEqual(told, [])

    def test_ticketKey(self):
        """Where no TLS is spoken nobody asks whether keys of tickets can be had; they are a file's."""
        ini, told = self.imported(MAIL.format("ssl_session_ticket_key k; server { listen 143; }"))
        self.assertEqual(told, [])
        self.assertRegex(ini, r"(?m)^ssl_session_ticket_key = /.*/k$")

    def test_unknown(self):
        """Directives of a fork of nginx, or with a slip of the pen, are told of, and do not stop the others."""
        ini, told = self.imported(MAIL.format("frob 1; server { listen 143; listn 144; auth_file x; }"))
        self.assertEqual(
            told,
            [
                'nginx.conf:1: not carried over: unknown directive "frob"',
                'nginx.conf:1: not carried over: unknown directive "listn"',
                'nginx.conf:1: not carried over: unknown directive "auth_file"',
            ],
        )
        self.assertIn("\n# frob = 1\n", ini)

    def test_together(self):
        """What is good alone but not with the rest is found too."""
        text = "server {\n listen 143;\n ssl_ciphers nonsense; starttls on;\n {} }"
        settings, told = self.settings(MAIL.format(text.replace("{}", self.tlsPair())))
        (line,) = told
        self.assertTrue(line.startswith("nginx.conf:3: ssl_ciphers: not carried over: "), line)
        self.assertEqual(settings.servers[0][TLSSettings].ciphers, "HIGH:!aNULL:!MD5")

    def test_server(self):
        """A server that lacks what it needs, which nginx would refuse, is left out; the others are not."""
        text = (
            "events { } mail {\n server { auth_http a; listen 9; }\n server { listen 110; }\n server { auth_http a; }\n"
        )
        settings, told = self.settings(text + "server { listen 143; auth_http a; } }")
        self.assertEqual([server.name for server in settings.servers], ["imap"])
        self.assertEqual(
            [line.partition(" is missing")[0] for line in told],
            [
                "nginx.conf:2: server: not carried over: protocol",
                "nginx.conf:3: server: not carried over: auth_http",
                "nginx.conf:4: server: not carried over: listen",
            ],
        )

    def test_guard(self):
        """A server that could not keep out whom nginx keeps out is left out, whoever said so."""
        for text in ("server {\n starttls frob; listen 110; }", "\nstarttls frob; server { listen 110; }"):
            settings, told = self.settings(MAIL.format(f"{text} server {{ listen 143; starttls off; }}"))
            self.assertEqual([server.name for server in settings.servers], ["imap"])
            self.assertEqual(len(told), 2)
            self.assertTrue(any("starttls: not carried over: must be one of" in line for line in told), told)
            self.assertTrue(any("server: not carried over: without starttls" in line for line in told), told)

    def leftOut(self, text: str, name: str) -> None:
        """Of the two servers of C{text}, with POP3 and with IMAP, IMAP's is left out, which lacks C{name}."""
        settings, told = self.settings(text)
        self.assertEqual([server.name for server in settings.servers], ["pop3"], text)
        self.assertTrue(any(f": {name}: not carried over: " in line for line in told), told)
        self.assertTrue(any(f"server: not carried over: without {name} " in line for line in told), told)

    def test_otherService(self):
        """A server whose own service cannot be asked asks no other: not [mail]'s, nor one named before."""
        good, bad = "auth_http 127.0.0.1:9001/all;", 'auth_http "127.0.0.1:9002/a#b";'
        pop3 = f"server {{ listen 127.0.0.1:110; {good} }}"
        for mail, imap in ((good, bad), (good, good + bad), (good, bad + good + bad), (bad, ""), (good + bad, "")):
            text = f"events {{ }} mail {{ {mail} {pop3} server {{ listen 127.0.0.1:143; {imap} }} }}"
            self.leftOut(text, "auth_http")

    def test_laterService(self):
        """The last service counts, whatever is wrong with one before, which nginx does not ask either."""
        text = 'server { listen 143; auth_http "a/#"; auth_http b; auth_http c; }'
        settings, told = self.settings(MAIL.format(text))
        self.assertEqual([url.host for url in settings.servers[0][HTTPSettings].urls], ["c"])
        self.assertEqual(len(told), 1)

    def test_earlierService(self):
        """A service of [mail] that nginx does not ask is not in the file: a server might be put in force again."""
        bad = 'auth_http 127.0.0.1:1; auth_http "a/#"; server { listen 143; } server { listen 110; auth_http b; }'
        ini, _ = self.imported(f"events {{ }} mail {{ {bad} }}")
        self.assertNotIn("127.0.0.1:1", ini)

    def test_ownValue(self):
        """Nor does a server fall back to [mail]'s headers, senders, certificates, methods and the like."""
        pair = self.tlsPair()
        for name, good, bad in (
            ("auth_http_header", "X all", '"X" "a\\nb"'),
            ("set_real_ip_from", "10.0.0.0/8", "10.0.0.0/255.0.0.0"),
            ("imap_auth", "plain", "cram"),
            ("proxy_protocol", "on", "v3"),
            ("ssl_ciphers", "ALL", '"A\nB"'),
            ("ssl_protocols", "TLSv1.2", "TLSv4"),
            ("ssl_client_certificate", "/all.pem", '"/a\nb.pem"'),
            ("ssl_certificate_key", "/all.key", "engine:x"),
        ):
            imap = (
                f"server {{ listen 143 ssl proxy_protocol; {pair if 'certificate' not in name else ''} {name} {bad}; }}"
            )
            own = f"server {{ listen 110; {name} {good}; }}"
            self.leftOut(MAIL.format(f"{name} {good}; {own} {imap}"), name)

    def test_verifyMode(self):
        """By OpenSSL's VerifyMode nginx turns clients away; a server that cannot is left out."""
        pair = self.tlsPair()
        for mode in ("Require", "Request,Require", "Peer"):
            server = f"server {{ listen 993 ssl; ssl_conf_command VerifyMode {mode}; }}"
            self.leftOut(MAIL.format(f"{pair} server {{ listen 110; }} {server}"), "ssl_conf_command")

    def test_wildcard(self):
        """A server that would be given the clients of one that is left out is left out with it."""
        bad = 'auth_http "a/#";'
        for wildcard, address in (
            ("110", "127.0.0.1:110"),
            ("[::]:110 ipv6only=off", "127.0.0.1:110"),
            ("[::]:110", "[::1]:110"),
        ):
            first, second = f"server {{ listen {wildcard}; }}", f"server {{ listen {address}; {bad} }}"
            text = f"{first} {second} server {{ listen 127.0.0.1:143; }}"
            settings, told = self.settings(MAIL.format(text))
            self.assertEqual([server.name for server in settings.servers], ["imap"])
            self.assertTrue(any(f"given the clients of {address}" in line for line in told), told)
        wide, wider = "server { listen 110; listen 1143; protocol pop3; }", "server { listen [::]:110 ipv6only=off; }"
        other = "server { listen 127.0.0.1:1143; protocol imap; }"
        first, last = f"server {{ listen 127.0.0.1:110; {bad} }}", "server { listen 25; }"
        settings, told = self.settings(MAIL.format(f"{wide} {wider} {other} {first} {last}"))
        self.assertEqual([server.name for server in settings.servers], ["imap", "smtp"])
        for wildcard in ("111", "[::]:110"):
            text = f"server {{ listen {wildcard}; protocol pop3; }} server {{ listen 127.0.0.1:110; {bad} }}"
            settings, _ = self.settings(MAIL.format(text))
            self.assertEqual(len(settings.servers), 1)

    def test_comfort(self):
        """A server stays where what is in the place of a value is told, and matters to nobody's safety."""
        text = "timeout 10s; server {\n listen 143;\n timeout 0;\n auth_http_timeout 0;\n resolver_timeout 0; }"
        settings, told = self.settings(MAIL.format(text))
        (server,) = settings.servers
        self.assertEqual((server[DialogueSettings].timeout, server[HTTPSettings].timeout), (10.0, 60.0))
        reason = "not carried over: must be longer than 0"
        names = ("timeout", "auth_http_timeout", "resolver_timeout")
        self.assertEqual(told, [f"nginx.conf:{line}: {name}: {reason}" for line, name in enumerate(names, 3)])

    def test_nothing(self):
        """Where no server is left there is no gateway."""
        error = self.assertRaises(Refused, self.imported, "events { } mail { server { listen 143; } }")
        first, last = str(error).splitlines()
        self.assertIn("auth_http is missing", first)
        self.assertIn("nothing could be carried over", last)

    def test_duplicateAddress(self):
        """The same address twice, which nginx refuses, leaves open which server is meant."""
        for first, second in (("143", "*:143"), ("127.0.0.1:1-3", "127.0.0.1:2"), ("unix:/x", "unix:/x")):
            text = f"server {{ listen {first}; protocol imap; }}\n server {{ listen {second}; protocol pop3; }}"
            error = self.assertRaises(Refused, self.imported, MAIL.format(text))
            self.assertIn('nginx.conf:2: listen: duplicate "', str(error))


class NastyTests(ImportCase):
    """Values that an ini file could take for something else."""

    def headers(self, written: str | bytes) -> tuple[tuple[tuple[bytes, bytes], ...], list[str]]:
        raw = written.encode() if isinstance(written, str) else written
        text = b"events { } mail { auth_http a; server { listen 143; } " + raw + b" }"
        settings, told = self.settings(text)
        return settings.servers[0][HTTPSettings].headers, told

    def test_carried(self):
        """Comment signs, equals signs, percent signs, brackets, quotes and backslashes arrive as they are."""
        for value in (
            "# a",
            "; a",
            "=",
            "a = b",
            "%(a)s %",
            "[mail]",
            '\\"a\\"',
            "\\\\n",
            "a  b",
            "é\u00a0é",
            "listen = 1",
        ):
            headers, told = self.headers(f'auth_http_header X "{value}"; auth_http_header Y "{value}";')
            meant = value.replace('\\"', '"').replace("\\\\", "\\").encode()
            self.assertEqual((headers, told), (((b"X", meant), (b"Y", meant)), []))

    def test_listed(self):
        """What an ini file cannot hold is told of, and commented out."""
        for value in (b"a\\nb", b"a\nlisten = 25", b"a\rb", b"\\t", b"a\xe9", "a\u00a0".encode(), b"a\x00b"):
            text = b'server { listen 143; auth_http_header X "' + value + b'"; } server { listen 110; }'
            settings, told = self.settings(b"events { } mail { auth_http a; " + text + b" }")
            self.assertEqual([server.name for server in settings.servers], ["pop3"])
            line, _ = told
            self.assertIn("nginx.conf:1: auth_http_header: not carried over: its value ", line)

    def test_blanks(self):
        """Blanks around a header's value, which say nothing in HTTP, are left out; that is told."""
        headers, told = self.headers('auth_http_header X "  a b ";')
        self.assertEqual(headers, ((b"X", b"a b"),))
        self.assertEqual(told, ["nginx.conf:1: auth_http_header: carried over without the blanks around its value"])

    def test_emptyHeader(self):
        """A header without a value stays one."""
        self.assertEqual(self.headers('auth_http_header X "";'), (((b"X", b""),), []))

    def test_injection(self):
        """No comment of the ini file becomes a line of its own."""
        ini, _ = self.imported(MAIL.format('frob "a\n[sandbox]\nusers = x y"; server { listen 143; }'))
        self.assertEqual(
            [line for line in ini.splitlines() if "sandbox" in line], [r"# frob = a\n[sandbox]\nusers = x y"]
        )

    def test_commentLike(self):
        """A list's first item may look like a comment; a later one cannot."""
        settings, told = self.settings(MAIL.format('server { listen 143; imap_capabilities "#A" B; }'))
        self.assertEqual((settings.servers[0][IMAP4Settings].capabilities, told), (("#A", "B"), []))
        settings, told = self.settings(MAIL.format('server { listen 143; imap_capabilities B "#A"; }'))
        self.assertEqual(settings.servers[0][IMAP4Settings].capabilities, ("IMAP4", "IMAP4rev1", "UIDPLUS"))
        self.assertIn("is a comment", *told)


class SecretTests(ImportCase):
    """What may be a secret is not told."""

    def test_secrets(self):
        """No value of a header, key or query is in what is told, whatever is wrong with it."""
        for text in (
            'auth_http_header "X Y" sesame;',
            "auth_http_header X: sesame;",
            'auth_http_header X "sesame\n";',
            'auth_http_header sesame: "sesame";',
            "auth_http http://joe:sesame@host/;",
            'auth_http "a/?key=sesame x";',
            'ssl_certificate_key "data:sesame";ssl_certificate x; starttls on;',
            'ssl_conf_command "sesame x" sesame;',
            'ssl_conf_command PrivateKey "data:sesame";ssl_certificate x; starttls on;',
        ):
            _, told = self.imported(
                MAIL.format(f"server {{ listen 143; auth_http b; {text} }} server {{ listen 110; }}")
            )
            self.assertTrue(told, text)
            self.assertNotIn("sesame", "\n".join(told))

    def test_shown(self):
        """What holds no secret is told with its reason, though that has the value in it, or a letter of it."""
        for text, reason in (
            ("ssl_conf_command Options PrioritizeChaCha", '"PrioritizeChaCha" is unknown, the words are'),
            ("ssl_conf_command Options KTLS", '"KTLS" is unknown, the words are'),
            ("ssl_conf_command Groups X25519", "Groups: cannot be set by the TLS library's bindings"),
            ("auth_http_header X: a", "must be NAME VALUE, the name that of an HTTP header and without a colon"),
            ('auth_http "a/?b#"', "holds a blank, a # or something that is not ASCII"),
        ):
            _, told = self.imported(MAIL.format(f"server {{ listen 143; {text}; }} server {{ listen 110; }}"))
            self.assertIn(f"nginx.conf:1: {text.split()[0]}: not carried over: ", told[0])
            self.assertIn(reason, told[0])


class CommandTests(ConsoleCase):
    """C{mailgate import-nginx}."""

    def test_good(self):
        """An ini file goes to standard output, what is to be told to standard error, and the status is 0."""
        path = self.write("events { }\nworker_priority 4;\nmail { auth_http a; server { listen 143; } }")
        self.assertEqual(self.run_("import-nginx", "-p", "/srv/nginx", path), 0)
        ini = self.write(self.stdout.getvalue())
        self.assertEqual([server.name for server in load(ini).servers], ["imap"])
        self.assertIn("error_log = /srv/nginx/logs/error.log error\n", self.stdout.getvalue())
        told, last = self.stderr.getvalue().splitlines()
        self.assertEqual(told, f"{path}:2: worker_priority: not carried over: Nice= of systemd says that")
        self.assertIn("mailgate check --config", last)

    def test_refused(self):
        """Without an ini file there is nothing on standard output, and the status is that of a bad configuration."""
        path = self.write("worker_processes auto\nmail { }")
        self.assertEqual(self.run_("import-nginx", path), 78)
        self.assertEqual(self.stdout.getvalue(), "")
        self.assertEqual(self.stderr.getvalue(), f'{path}:1: directive "worker_processes" is not terminated by ";"\n')

    def test_missing(self):
        """A file that is not there is one."""
        self.assertEqual(self.run_("import-nginx", "/nowhere/nginx.conf"), 78)
        self.assertEqual(self.stderr.getvalue(), "/nowhere/nginx.conf: cannot be read: No such file or directory\n")

    def test_notInstalled(self):
        """Where crossplane is missing, one line says how to get it."""
        with patch.dict(sys.modules, {"crossplane": None}):
            del sys.modules["mailgate.nginx.conf"]
            self.assertEqual(self.run_("import-nginx", self.write("")), 69)
        (line,) = self.stderr.getvalue().splitlines()
        self.assertIn("pip install 'mailgate[nginx]'", line)

    def test_otherModule(self):
        """That another module is missing is no reason to install crossplane."""
        with patch.dict(sys.modules, {"mailgate.nginx.importer": None}):
            self.assertRaises(ModuleNotFoundError, self.run_, "import-nginx", self.write(""))

    def test_lazy(self):
        """The other commands do without crossplane, and so does the gateway."""
        program = "import sys, mailgate.cli.main, mailgate.tap; sys.exit('crossplane' in sys.modules)"
        root = os.path.dirname(os.path.dirname(mailgate.__file__))
        finished = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": root}, check=False)
        self.assertEqual(finished.returncode, 0)

    def test_help(self):
        """Its help says what goes where, what its status means, and what to do next."""
        self.assertEqual(self.run_("import-nginx", "--help"), 0)
        told = " ".join(self.stdout.getvalue().split())
        for text in (
            "standard output",
            "Standard error",
            "/etc/nginx/nginx.conf",
            "Exit status 0",
            "78",
            "69",
            "check",
        ):
            self.assertIn(text, told)


class DocumentTests(SynchronousTestCase):
    """docs/nginx.rst."""

    skip = MISSING

    def setUp(self):
        self.text = document("docs", "nginx.rst")

    def test_defaults(self):
        """It explains each default of nginx's that is written out, and no other."""
        explained = re.findall(r"^``(\w+ = [\w ]+)``$", self.text, re.MULTILINE)
        wanted = [f"{default.name} = {default.value}".replace("\n", " ") for default in NGINX_DEFAULTS]
        self.assertEqual(explained, wanted)

    def test_differences(self):
        """It names what every imported file says that it cannot say."""
        told = self.text.partition("What is not written")[2].partition("~\n\n")[2].partition("\nValues\n")[0]
        for difference in DIFFERENCES:
            self.assertIn(f"``{difference.partition(':')[0]}``", told)

    def test_options(self):
        """It tells of each exit status, and where names start."""
        for text in ("\n0\n ", "\n78\n ", "\n69\n ", "``/usr/share/nginx``", "``/var/log/nginx/error.log``"):
            self.assertIn(text, self.text)


class MappingTests(SynchronousTestCase):
    """Tests for L{Mapping}."""

    def test_refused(self):
        """It makes nothing of no statements."""
        self.assertRaises(Refused, Mapping, "x", (), pathsFor("x"))
