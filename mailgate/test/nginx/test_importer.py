"""
Tests for L{mailgate.nginx.importer} and C{mailgate import-nginx}.
"""

from __future__ import annotations

import os
import re

from mailgate.auth.http.settings import HTTPSettings
from mailgate.backend.settings import ProxySettings
from mailgate.config import knownDirectives, parse
from mailgate.frontend.settings import DialogueSettings
from mailgate.lean.connectionlimit import ConnectionSettings
from mailgate.log.settings import LogSettings
from mailgate.nginx.conf import Refused
from mailgate.nginx.importer import pathsFor
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.protocols.pop3.settings import POP3Settings
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.sandbox.certificate import ensureCertificate
from mailgate.system.processors import WorkerSettings, processors
from mailgate.test.support.importcase import GUIDE, MAIL, ImportCase
from mailgate.test.support.nowhere import NOWHERE
from mailgate.tls.settings import TLSSettings

ABROAD = GUIDE.replace("/etc/ssl/certs", NOWHERE)
"""The same with missing files."""


class GuideTests(ImportCase):
    """The guide's sample."""

    def setUp(self):
        super().setUp()
        # These are files of the guide's reader.
        certificate, key = map(os.path.abspath, ensureCertificate(self.folder, ["mail.example.com"]))
        self.text = GUIDE.replace("/etc/ssl/certs/server.crt", certificate).replace("/etc/ssl/certs/server.key", key)
        self.pair = ((certificate,), (key,))

    def test_settings(self):
        """Each of its directives has an effect in the resulting gateway."""
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
            told, ['nginx.conf: has no "events" section, which nginx requires; check that this is the main nginx.conf']
        )

    def test_missingSemicolon(self):
        """The original, without the first C{;}, is refused with the line, as nginx does."""
        error = self.assertRaises(Refused, self.imported, self.text.replace("auto;", "auto"))
        self.assertEqual(str(error), f'{self.path}:1: directive "worker_processes" is not terminated by ";"')

    def test_otherHost(self):
        """Files that this host lacks are carried over and reported: the gateway's host may have them."""
        ini, told = self.imported(ABROAD)
        self.assertIn(f"\nssl_certificate = {NOWHERE}/server.crt\n", ini)
        self.assertIn(f"\nssl_certificate_key = {NOWHERE}/server.key\n", ini)
        lines = [line for line in told if "ssl_" in line]
        self.assertEqual(len(lines), 2)
        for line in lines:
            self.assertRegex(
                line, rf'^nginx\.conf:1[01]: ssl_\w+: carried over, but "{NOWHERE}/server\.\w+" cannot be read'
            )

    def test_otherUser(self):
        """So is a user that this host lacks: a gateway started as root must not stay root because of that."""
        ini, told = self.imported(f"user no-such-user;\n{ABROAD}")
        self.assertIn("\nuser = no-such-user\n", ini)
        self.assertIn('nginx.conf:1: user: carried over, but this host has no user "no-such-user"', told)


class SectionTests(ImportCase):
    """The sections, and the remarks about them."""

    def test_names(self):
        """The names of servers are the protocol, then the port, then a number."""
        servers = "listen 143;", "listen 993;", "listen 10.0.0.1:993;", "listen 1; protocol imap;", "listen unix:/s; {}"
        text = " ".join(f"server {{ {server.format('protocol imap;')} }}" for server in servers)
        settings, _ = self.settings(MAIL.format(text))
        names = [server.name for server in settings.servers]
        self.assertEqual(names, ["imap", "imap-993", "imap-993-2", "imap-1", "imap-2"])

    def test_protocol(self):
        """The protocol is always written, also if nginx guesses it from the port."""
        ini, told = self.imported(MAIL.format("server { listen 9; listen 995; listen 143; }"))
        self.assertEqual((self.lines(ini, "protocol ="), told), (["protocol = pop3"], []))

    def test_origins(self):
        """Each section has a comment with its place in nginx.conf."""
        ini, _ = self.imported("events { }\nmail {\n auth_http a;\n server {\n  listen 143; } }")
        self.assertIn(f"# {self.path}, line 2\n[mail]\n", ini)
        self.assertIn(f"# {self.path}, line 4\n[server imap]\n", ini)

    def test_goOn(self):
        """The file ends with the next step."""
        ini, _ = self.imported(MAIL.format("server { listen 143; }"))
        self.assertIn("mailgate check --config", ini.splitlines()[-1])

    def test_defaults(self):
        """Defaults of nginx that differ from mailgate's are written, unless nginx.conf sets the directive."""
        ini, _ = self.imported(MAIL.format("server { listen 25; max_commands 7; }"))
        self.assertEqual(self.lines(ini, "max_commands = "), ["max_commands = 999999999999", "max_commands = 7"])
        ini, _ = self.imported(MAIL.format("server { listen 25; xclient off; }"))
        mail, _, server = ini.partition("[server smtp]")
        self.assertEqual(self.lines(mail, "xclient = "), ["xclient = on"])
        self.assertEqual(self.lines(server, "xclient = "), ["xclient = off"])
        ini, _ = self.imported(MAIL.format("xclient off; server { listen 25; }"))
        self.assertEqual(self.lines(ini, "xclient = "), ["xclient = off"])

    def test_headerAndXCLIENT(self):
        """nginx sends XCLIENT after a PROXY header; mailgate does not, and the resulting gateway starts."""
        told = "carried over as auto: after the PROXY header of proxy_protocol mailgate sends no XCLIENT"
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
        """A list of a server replaces that of mail as a whole, as in nginx."""
        text = "imap_capabilities A B; server { listen 143; imap_capabilities C; } server { listen 993; }"
        settings, _ = self.settings(MAIL.format(text))
        self.assertEqual([server[IMAP4Settings].capabilities for server in settings.servers], [("C",), ("A", "B")])


class PathsTests(ImportCase):
    """Tests for L{pathsFor}."""

    def test_given(self):
        """Paths of logs start at the given prefix, other paths at nginx.conf's folder."""
        paths = pathsFor("/etc/nginx/nginx.conf", "/opt/nginx/")
        self.assertEqual((paths.configuration, paths.prefix), ("/etc/nginx", "/opt/nginx"))
        self.assertEqual(paths.errorLog, "/opt/nginx/logs/error.log")

    def test_own(self):
        """If nginx.conf is in a folder conf, as nginx installs it, the prefix is the parent folder."""
        paths = pathsFor("/usr/local/nginx/conf/nginx.conf")
        self.assertEqual((paths.prefix, paths.errorLog), ("/usr/local/nginx", "/usr/local/nginx/logs/error.log"))

    def test_debian(self):
        """Otherwise the prefix is Debian's."""
        paths = pathsFor("/etc/nginx/nginx.conf")
        self.assertEqual((paths.prefix, paths.errorLog), ("/usr/share/nginx", "/var/log/nginx/error.log"))

    def test_relative(self):
        """A relative prefix starts at the current folder."""
        self.assertEqual(pathsFor("nginx.conf", "x").prefix, os.path.abspath("x"))
        self.assertEqual(pathsFor("nginx.conf").configuration, os.path.abspath("."))


class ProcessTests(ImportCase):
    """Directives outside of mail."""

    def test_others(self):
        """Directives without a meaning for mailgate are reported once each; http and stream are reported as a whole."""
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
        """Half of nginx's connections are those of clients; without a valid number it is half of 512."""
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
        """If no named log can be used, the log is nginx's default, not standard error."""
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
        """A file without mail, or without servers in it, is refused."""
        error = self.assertRaises(Refused, self.imported, "events { } http { }")
        self.assertEqual(str(error), f"{self.path}: has no mail block")
        error = self.assertRaises(Refused, self.imported, "events { }\nmail { }")
        self.assertEqual(str(error), f"{self.path}:2: the mail block has no server")
