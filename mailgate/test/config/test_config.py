"""
Tests for L{mailgate.config}.
"""

from __future__ import annotations

import grp
import os
import pwd
import select
import tempfile

from twisted.logger import LogLevel
from twisted.trial.unittest import SkipTest, SynchronousTestCase

import mailgate
from mailgate.auth.http.authenticator import HTTPSettings
from mailgate.auth.passwdfile.authenticator import FileSettings
from mailgate.backend.client import ProxySettings
from mailgate.config import authenticatorKind, knownDirectives, load, parse, read, sections
from mailgate.directives import ConfigurationError, ServerSettings
from mailgate.frontend.draining import DrainSettings
from mailgate.frontend.protocol import DialogueSettings
from mailgate.lean.reactor import EventSettings
from mailgate.log.journal import ErrorLog, LogSettings
from mailgate.login import Backend
from mailgate.protocols.imap4.server import IMAP4Settings
from mailgate.protocols.smtp.server import SMTPSettings
from mailgate.sandbox.certificate import ensureCertificate
from mailgate.sandbox.settings import SandboxSettings
from mailgate.system.pidfile import PIDSettings
from mailgate.system.privileges import ProcessSettings, User
from mailgate.tls.settings import TLSSettings

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__)))
AUTH = "auth_http = http://127.0.0.1:9000/auth\n"
MAIL = f"[mail]\n{AUTH}"
IMAP = "[server imap]\nlisten = 127.0.0.1:143\n"


class ConfigCase(SynchronousTestCase):
    """Ways to look at what a configuration makes."""

    def server(self, text: str) -> ServerSettings:
        """The only server of C{text}."""
        (server,) = parse(text).servers
        return server

    def faults(self, text: str, filename: str = "gateway.ini") -> list[str]:
        """The lines that are said of C{text}."""
        error = self.assertRaises(ConfigurationError, parse, text, filename)
        lines = str(error).split("\n")
        self.assertEqual(len(lines), len(error.problems))
        return lines

    def assertFaults(self, text: str, *expected: str) -> None:
        """Exactly C{expected} is said of C{text}; each begins with the number of its line."""
        self.assertEqual(self.faults(text), [f"gateway.ini:{fault}" for fault in expected])


class SectionTests(ConfigCase):
    """What sections there are, and how they inherit."""

    def test_least(self):
        """A server needs an address and somebody who judges; everything else has a default."""
        server = self.server(MAIL + IMAP)
        self.assertEqual((server.name, server.protocol, str(server.listen[0])), ("imap", "imap", "127.0.0.1:143"))
        self.assertEqual(server[DialogueSettings], DialogueSettings(authDelay=0.0, maxAuthFailures=0))
        self.assertEqual(server[TLSSettings], TLSSettings())

    def test_process(self):
        """[mailgate] is read into the process's settings."""
        settings = parse("[mailgate]\nerror_log = stderr info\n" + MAIL + IMAP)
        self.assertEqual(settings[LogSettings].errorLog, (ErrorLog(None, LogLevel.info),))

    def test_privileges(self):
        """So are whom it becomes and what it may, of which a warning says what it cannot do."""
        settings = parse("[mailgate]\nworker_rlimit_nofile = 333\n" + MAIL + IMAP)
        self.assertEqual(settings[ProcessSettings], ProcessSettings(openFiles=333))
        self.patch(os, "geteuid", lambda: 1000)
        user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
        settings = parse(f"[mailgate]\nuser = {user} {group}\n" + MAIL + IMAP)
        self.assertEqual(settings[ProcessSettings].user, User(user, os.getuid(), os.getgid()))
        self.assertEqual([(warning.option, warning.value) for warning in settings.warnings], [("user", user)])

    def test_lifetime(self):
        """So are the file that names it, and how long it waits for its sessions at the end."""
        settings = parse("[mailgate]\npid = x.pid\nworker_shutdown_timeout = 1m30s\n" + MAIL + IMAP, "/etc/gateway.ini")
        self.assertEqual(settings[PIDSettings].path, "/etc/x.pid")
        self.assertEqual(settings[DrainSettings].patience, 90.0)
        settings = parse(MAIL + IMAP)
        self.assertIsNone(settings[PIDSettings].path)
        self.assertIsNone(settings[DrainSettings].patience)
        for line in ("worker_shutdown_timeout = soon", "worker_shutdown_timeout =", "pid ="):
            self.assertRaises(ConfigurationError, parse, f"[mailgate]\n{line}\n" + MAIL + IMAP)

    def test_repeated(self):
        """A word that is given twice makes no difference, as in nginx, and is warned of where it stands."""
        settings = parse(MAIL + "imap_auth = plain LOGIN\n" + IMAP + "imap_auth = plain login Plain\n")
        self.assertEqual(settings.servers[0][IMAP4Settings].auth, ("plain", "login"))
        self.assertEqual(
            [str(warning) for warning in settings.warnings],
            ['gateway.ini:6: [server imap] imap_auth = plain login Plain: duplicate value "Plain"'],
        )

    def test_syslog(self):
        """A unix socket of syslog that is not there keeps nobody from starting, and is warned of."""
        there, missing = tempfile.mkdtemp(), "syslog:server=unix:/nowhere/log"
        self.addCleanup(os.rmdir, there)
        text = f"[mailgate]\nerror_log =\n {missing}\n stderr\n" + MAIL + IMAP
        settings = parse(f"{text}error_log =\n {missing} info\n /nowhere/x.log\n syslog:server=unix:{there}\n")
        fault = "error_log = unix:/nowhere/log: nobody is there yet; what is sent there is lost"
        self.assertEqual(
            [str(warning) for warning in settings.warnings],
            [f"gateway.ini:2: [mailgate] {fault}", f"gateway.ini:9: [server imap] {fault}"],
        )

    def test_logNames(self):
        """What is hardly the name of a log file is warned of: "off" makes a file of that name, as with nginx."""
        for value in ("off", "stdout info", "/var/log/mailgate.log, info", "stderr,info", "syslog"):
            name = value.removesuffix(" info")
            (told,) = parse(f"[mailgate]\nerror_log = {value}\n{MAIL}{IMAP}error_log = stderr\n").warnings
            self.assertTrue(told.value.endswith(name), told)
            self.assertTrue(told.message.startswith("is taken for a file: error_log is a file, stderr or"), told)
        for value in ("/var/log/off.log", "stderr debug", "mailgate.log warn"):
            self.assertEqual(parse(f"[mailgate]\nerror_log = {value}\n{MAIL}{IMAP}").warnings, ())

    def test_proxy(self):
        """nginx's proxy is understood, refused where it is no flag, and changes nothing."""
        for value in ("on", "OFF"):
            self.assertEqual(self.server(MAIL + IMAP + f"proxy = {value}").protocol, "imap")
        self.assertFaults(MAIL + "proxy = yes\n" + IMAP, '3: [mail] proxy = yes: must be "on" or "off"')

    def test_protocolsCase(self):
        """As with nginx a protocol is written in small letters, other words in any."""
        self.assertFaults(
            MAIL + IMAP + "protocol = IMAP\nstarttls = OFF\n",
            "5: [server imap] protocol = IMAP: is no known protocol, they are imap, pop3, smtp; did you mean imap?",
        )

    def test_use(self):
        """How connections are served is by epoll where the system has it, unless they are to be the reactor's."""
        hasEpoll = hasattr(select, "epoll")
        for text, isLean in (
            ("", hasEpoll),
            ("[mailgate]\nuse = epoll\n", hasEpoll),
            ("[mailgate]\nuse = reactor\n", False),
        ):
            self.assertIs(parse(text + MAIL + IMAP)[EventSettings].isLean, isLean, text)

    def test_useOtherwise(self):
        """nginx's other methods are not there, and none is a server's own."""
        self.assertFaults(
            "[mailgate]\nuse = kqueue\n" + MAIL + IMAP + "use = epoll\n",
            "2: [mailgate] use = kqueue: must be one of epoll, reactor",
            "7: [server imap] use: does not belong here, but in [mailgate]",
        )

    def test_file(self):
        """Settings and servers know what file they are from."""
        settings = parse(MAIL + IMAP, "/etc/mailgate/x.ini")
        self.assertEqual({settings.file, settings.servers[0].file}, {"/etc/mailgate/x.ini"})

    def test_inherited(self):
        """What [mail] says holds for every server, wherever it stands in the file."""
        for text in (MAIL + "timeout = 7\n" + IMAP, IMAP + MAIL + "timeout = 7\n"):
            self.assertEqual(self.server(text)[DialogueSettings].timeout, 7.0)

    def test_own(self):
        """What a server says itself goes before that, and goes for it alone."""
        text = MAIL + "timeout = 7\n" + IMAP + "timeout = 8\n[server pop3]\nlisten = 127.0.0.1:110\n"
        imap, pop3 = parse(text).servers
        self.assertEqual((imap[DialogueSettings].timeout, pop3[DialogueSettings].timeout), (8.0, 7.0))

    def test_listsReplace(self):
        """A list of the server's own hides the inherited one as a whole, as nginx's do."""
        text = MAIL + "imap_capabilities =\n  IMAP4\n  IDLE\n" + IMAP + "imap_capabilities = IMAP4rev1\n"
        self.assertEqual(self.server(text)[IMAP4Settings].capabilities, ("IMAP4rev1",))

    def test_given(self):
        """A server knows which options were written, in either section."""
        self.assertEqual(self.server(MAIL + IMAP).given, {"auth_http", "listen"})

    def test_noMail(self):
        """[mail] may be left out."""
        self.assertEqual(self.server(IMAP + AUTH).protocol, "imap")

    def test_noServer(self):
        """A gateway without servers would do nothing, and is told so."""
        self.assertFaults(MAIL, "1: [mail]: there is no [server NAME] section")
        self.assertFaults("", " [mail]: there is no [server NAME] section")

    def test_names(self):
        """A server's name may hold blanks, and is no more than a name."""
        self.assertEqual(self.server(MAIL + "[server my imap]\nlisten = 127.0.0.1:143").name, "my imap")

    def test_nameless(self):
        """A server without a name is told what is missing."""
        self.assertIn("[server]: needs a name, such as [server imap]", self.faults(MAIL + "[server]\n" + IMAP)[0])

    def test_unknownSection(self):
        """An unknown section is an error, and the nearest known one is named."""
        self.assertFaults("[mial]\n" + IMAP + AUTH, "1: [mial]: is no known section; did you mean mail?")
        self.assertFaults("[http]\n" + IMAP + AUTH, "1: [http]: is no known section")
        self.assertFaults("[DEFAULT]\n" + IMAP + AUTH, "1: [DEFAULT]: is no known section")

    def test_unknownOption(self):
        """An unknown option is an error, and the nearest known one is named."""
        self.assertFaults(
            MAIL + IMAP + "timeuot = 5", "5: [server imap] timeuot: is no known option; did you mean timeout?"
        )

    def test_options(self):
        """Options are written in small letters, as nginx's are."""
        self.assertFaults(
            MAIL + IMAP + "Timeout = 5", "5: [server imap] Timeout: is no known option; did you mean timeout?"
        )

    def test_elsewhere(self):
        """An option in the wrong place is told the right one."""
        self.assertFaults(
            "[mailgate]\ntimeout = 5\n" + MAIL + "listen = 143\nuse = epoll\n" + IMAP,
            "2: [mailgate] timeout: does not belong here, but in [mail]",
            "5: [mail] listen: does not belong here, but in [server NAME]",
            "6: [mail] use: does not belong here, but in [mailgate]",
        )

    def test_knownDirectives(self):
        """What may stand in a section is known by name and level."""
        self.assertIn("listen", knownDirectives("server"))
        self.assertNotIn("listen", knownDirectives("mail"))
        self.assertEqual(
            set(knownDirectives("mailgate")),
            {
                "error_log",
                "log_rate",
                "pid",
                "use",
                "user",
                "worker_connections",
                "worker_processes",
                "worker_rlimit_nofile",
                "worker_shutdown_timeout",
            },
        )


class ReadTests(ConfigCase):
    """Tests for L{read}."""

    def test_text(self):
        """The text is UTF-8, perhaps with the mark of a byte order, with line ends of any kind."""
        path = self.mktemp()
        with open(path, "wb") as opened:
            opened.write(b"\xef\xbb\xbf[mail]\r\nserver_name = m\xc3\xbc\rx = y\n")
        self.assertEqual(read(path), "[mail]\nserver_name = m\xfc\nx = y\n")

    def test_pipe(self):
        """It may come by a pipe, as a shell's <(COMMAND) has it."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        with os.fdopen(writing, "w", encoding="utf-8") as opened:
            opened.write("[mail]\n")
        self.assertEqual(read(f"/dev/fd/{reading}"), "[mail]\n")

    def test_refused(self):
        """What never ends is not read, nor what is far too long."""
        path = self.mktemp()
        with open(path, "wb") as opened:
            opened.truncate(1 << 40)
        for name, reason in (("/dev/zero", "it is no regular file, and no pipe"), (path, "it is longer than 16 MB")):
            error = self.assertRaises(ConfigurationError, read, name)
            self.assertEqual(str(error), f"{name}: cannot be read: {reason}")


class SyntaxTests(ConfigCase):
    """What the file looks like."""

    def test_comments(self):
        """# and ; begin a comment, on a line of its own, between the lines of a value too."""
        text = MAIL + "# a = b\n; c\n[server x]\nlisten =\n  127.0.0.1:143\n  # the other\n  127.0.0.1:993\n"
        self.assertEqual([address.port for address in self.server(text).listen], [143, 993])

    def test_blankLines(self):
        """Empty lines mean nothing, those between the lines of a value neither."""
        text = MAIL + "\n\n[server x]\n\nlisten =\n\n  127.0.0.1:143\n\n  127.0.0.1:993\n\n\nprotocol = imap\n\n"
        self.assertEqual([address.port for address in self.server(text).listen], [143, 993])

    def test_noInlineComments(self):
        """Behind a value a # is part of it: a password may hold one."""
        self.assertEqual(self.server(MAIL + IMAP + "server_name = a#b")[DialogueSettings].serverName, "a#b")
        self.assertFaults(
            MAIL + "[server x]\nlisten = 127.0.0.1:143 # imap",
            "4: [server x] listen = 127.0.0.1:143 # imap: what stands behind the value is part of it:"
            " a comment needs a line of its own",
        )

    def test_percent(self):
        """A percent sign is one."""
        self.assertEqual(self.server(MAIL + IMAP + "server_name = 100%sure")[DialogueSettings].serverName, "100%sure")
        self.assertEqual(self.server(MAIL + IMAP + "server_name = %(x)s")[DialogueSettings].serverName, "%(x)s")

    def test_delimiter(self):
        """Only the first = parts option and value; a colon parts nothing."""
        self.assertEqual(self.server(MAIL + IMAP + "server_name = a=b:c")[DialogueSettings].serverName, "a=b:c")

    def test_lines(self):
        """Lists of one item a line keep the blanks of an item."""
        text = MAIL + "[server s]\nlisten = 127.0.0.1:25\nsmtp_capabilities =\n  SIZE 104857600\n  DSN\n"
        self.assertEqual(self.server(text)[SMTPSettings].capabilities, ("SIZE 104857600", "DSN"))

    def test_carriageReturns(self):
        """A file that was written on Windows is read as any other."""
        self.write((MAIL + IMAP).replace("\n", "\r\n").encode())
        self.assertEqual(load(self.path).servers[0].protocol, "imap")

    def write(self, content: bytes) -> None:
        self.path = self.mktemp()
        with open(self.path, "wb") as opened:
            opened.write(content)

    def test_byteOrderMark(self):
        """So is one that begins with a mark that only Windows needs."""
        self.write(b"\xef\xbb\xbf" + (MAIL + IMAP).encode())
        self.assertEqual(load(self.path).servers[0].protocol, "imap")

    def test_notUTF8(self):
        """A file that is no UTF-8 is refused as a whole."""
        self.write(b"[mail]\nserver_name = \xff\n")
        error = self.assertRaises(ConfigurationError, load, self.path)
        self.assertEqual(str(error), f"{self.path}:2: is not UTF-8 text")

    def test_unreadable(self):
        """A file that is not there, and a folder, are told by name."""
        error = self.assertRaises(ConfigurationError, load, "/nowhere/gateway.ini")
        self.assertEqual(str(error), "/nowhere/gateway.ini: cannot be read: No such file or directory")
        error = self.assertRaises(ConfigurationError, load, os.curdir)
        self.assertIn("cannot be read: Is a directory", str(error))

    def test_notAnOption(self):
        """A line that is neither a section nor an option is told by its number, not by what it says."""
        self.assertFaults(
            MAIL + IMAP + "auth_http_header X-Key sesame\nnonsense sesame\n",
            '5: has no "=" behind auth_http_header: write auth_http_header = VALUE',
            '6: is neither "[section]" nor "option = value"',
        )

    def test_nginx(self):
        """A whole nginx.conf is not told of line by line, but what makes a gateway.ini of it."""
        self.assertFaults(
            "mail {\n    server_name x;\n    server {\n        listen 143;\n    }\n}\n",
            "1: looks like an nginx.conf: mailgate import-nginx writes a gateway.ini that does what it says",
        )
        self.assertEqual(len(self.faults(MAIL + IMAP + "server {\n  timeout 5s;\n}\n")), 3)

    def test_strayed(self):
        """The end of a statement of nginx's, and a comment behind a value, are warned of where the value takes them."""
        text = MAIL + "server_name = mx; \n[server imap]\nlisten = 127.0.0.1:143\n"
        text += "imap_capabilities =\n IDLE # all\n IMAP4rev1\n"
        self.assertEqual(
            [str(warning) for warning in parse(text).warnings],
            [
                'gateway.ini:3: [mail] server_name = mx;: the ";" at the end is part of the value: take it away',
                "gateway.ini:6: [server imap] imap_capabilities = IDLE # all | IMAP4rev1: what stands behind the value"
                " is part of it: a comment needs a line of its own",
            ],
        )

    def test_notStrayed(self):
        """Nothing is said of such characters in the middle, nor where a value may be a secret."""
        text = MAIL + "auth_http_header = X-Key a;\nerror_log = a;b#c\n" + IMAP
        self.assertEqual(parse(text).warnings, ())

    def test_beforeSections(self):
        """What stands before the first section belongs nowhere; what is wrong further down is told all the same."""
        self.assertFaults(
            "timeout = 5\nmax_errors = 3\n" + MAIL + IMAP + "timeout = 5x\n",
            "1: stands before the first [section]",
            "7: [server imap] timeout = 5x: must be a time, such as 30s, 1h30m or 500ms",
        )

    def test_noNameAtAll(self):
        """Lines that begin with = are no options."""
        self.assertFaults(
            MAIL + IMAP + "= 1\n= 2\n",
            '5: is neither "[section]" nor "option = value"',
            '6: is neither "[section]" nor "option = value"',
        )

    def test_duplicateOption(self):
        """An option that is given twice on one level is an error, as nginx's are."""
        self.assertFaults(
            MAIL + IMAP + "timeout = 1\ntimeout = 2\n",
            "6: [server imap] timeout: is given twice; line 5 has it already",
        )

    def test_duplicateSection(self):
        """So is a section."""
        self.assertFaults(MAIL + IMAP + IMAP, "5: [server imap]: is given twice; line 3 has it already")

    def test_duplicates(self):
        """Every duplicate is told, those of several lines and those that are indented included, and nothing besides."""
        listen = "  listen =\n    127.0.0.1:143\n    127.0.0.1:993\n"
        self.assertFaults(
            MAIL + "[server a]\n" + listen + listen + listen + "  timeout = 1\n  timeout = 2\n[mail]\n[mail]\n",
            "7: [server a] listen: is given twice; line 4 has it already",
            "10: [server a] listen: is given twice; line 4 has it already",
            "14: [server a] timeout: is given twice; line 13 has it already",
            "15: [mail]: is given twice; line 1 has it already",
            "16: [mail]: is given twice; line 1 has it already",
        )


class AllAtOnceTests(ConfigCase):
    """Everything that is wrong is told at once."""

    def test_typosHideNothing(self):
        """A value that cannot be read, or an unknown option, keeps back nothing that is wrong elsewhere."""
        error = self.assertRaises(
            ConfigurationError,
            parse,
            "[mail]\ntimeout = 5x\nauth_http = http://a/\n"
            "[server a]\nlisten = 993 ssl\nbogus = 1\n"
            "[server b]\nlisten = 110\nauth_file = /missing/accounts\nstarttls = maybe\n",
        )
        self.assertEqual(
            [(problem.section, problem.option) for problem in error.problems],
            [
                ("mail", "timeout"),
                ("server a", "bogus"),
                ("server b", "starttls"),
                ("server a", "ssl_certificate"),
                ("server b", "auth_file"),
            ],
        )

    def test_noFollowers(self):
        """What only follows from a value that cannot be read is not told of besides."""
        error = self.assertRaises(ConfigurationError, parse, "[server a]\nlisten = 143\nproxy_pass = my%host:143\n")
        self.assertEqual([problem.option for problem in error.problems], ["proxy_pass"])

    def test_noFollowersOfLines(self):
        """Nor is an option missing that stands in a line without its "="."""
        written = 'has no "=" behind'
        for text, fault in (
            ("[server a]\nlisten = 143\nauth_http http://a/\n", f"3: {written} auth_http: write auth_http = VALUE"),
            ("[server a]\nlisten = 143\nauth_file x\n", f"3: {written} auth_file: write auth_file = VALUE"),
            (
                "[mail]\nauth_http http://a/\n[server a]\nlisten = 143\n",
                f"2: {written} auth_http: write auth_http = VALUE",
            ),
            (f"{MAIL}[server a]\nlisten 143\n", f"4: {written} listen: write listen = VALUE"),
            (f"{MAIL}[server a]\nlisten = 2143\nprotocol imap\n", f"5: {written} protocol: write protocol = VALUE"),
            (
                f"{MAIL}[server a]\nlisten = 993 ssl\nssl_certificate x\n",
                f"5: {written} ssl_certificate: write ssl_certificate = VALUE",
            ),
        ):
            self.assertFaults(text, fault)

    def test_otherSections(self):
        """What is missing from another section is reported nevertheless."""
        self.assertFaults(
            "[server a]\nlisten = 143\nauth_http http://a/\n[server b]\nlisten = 110\n",
            '3: has no "=" behind auth_http: write auth_http = VALUE',
            "4: [server b] auth_http: is missing: give auth_http, auth_file or proxy_pass",
        )

    def test_all(self):
        """Each fault is one line with file, section, option and value; those of good sections are not kept back."""
        self.assertFaults(
            "[mailgate]\n"
            "error_log = stderr loud\n"
            "[mail]\n"
            "max_errors = many\n"
            "[server a]\n"
            "listen = 127.0.0.1:0\n"
            "listne = 5\n"
            "proxy_pass_error_message = yes\n"
            "junk\n"
            "[server b]\n"
            "protocol = impa\n"
            "listen = 127.0.0.1:143\n"
            "timeout = 5\n"
            "timeout = 6\n"
            "[sever c]\n",
            '9: is neither "[section]" nor "option = value"',
            "14: [server b] timeout: is given twice; line 13 has it already",
            '2: [mailgate] error_log = stderr loud: "loud" is no level, they are debug, info, notice, warn, error,'
            " crit, alert, emerg",
            "4: [mail] max_errors = many: must be a whole number, such as 5",
            '6: [server a] listen = 127.0.0.1:0: "127.0.0.1:0": invalid port 0; ports are 1 to 65535',
            "7: [server a] listne: is no known option; did you mean listen?",
            '8: [server a] proxy_pass_error_message = yes: must be "on" or "off"',
            "15: [sever c]: is no known section; did you mean server NAME?",
            "11: [server b] protocol = impa: is no known protocol, they are imap, pop3, smtp; did you mean imap?",
        )

    def test_crossChecks(self):
        """What no single option can see is told of every server whose options are good."""
        self.assertFaults(
            "[server a]\nlisten = 127.0.0.1:143\n[server b]\nlisten = 127.0.0.1:110 ssl\n" + AUTH,
            "1: [server a] auth_http: is missing: give auth_http, auth_file or proxy_pass",
            '3: [server b] ssl_certificate: is missing, "listen … ssl" needs it',
        )

    def test_inherited(self):
        """What is wrong with what stands in [mail] is told of there, and once, however many servers have it."""
        text = MAIL + "ssl_certificate = /nowhere/c\nssl_certificate_key = /nowhere/k\nstarttls = on\n" + IMAP
        text += "[server pop3]\nlisten = 127.0.0.1:110\n[server own]\nlisten = 127.0.0.1:25\nssl_certificate = /none\n"
        self.assertFaults(
            text,
            "3: [mail] ssl_certificate = /nowhere/c: cannot be read: No such file or directory",
            "4: [mail] ssl_certificate_key = /nowhere/k: cannot be read: No such file or directory",
            "12: [server own] ssl_certificate = /none: cannot be read: No such file or directory",
        )

    def test_inheritedWarnings(self):
        """So it is with warnings."""
        settings = parse(MAIL + "auth_http_header = X-A $remote_adr\n" + IMAP + "[server pop3]\nlisten = 110\n")
        warned = [(warning.section, warning.option) for warning in settings.warnings]
        self.assertEqual(warned, [("mail", "auth_http_header")])

    def test_noAftermath(self):
        """A server with a fault is not held to what may follow from it."""
        self.assertFaults(
            "[server a]\nlisten = 127.0.0.1:x\nauth_http = http://127.0.0.1/\n",
            '2: [server a] listen = 127.0.0.1:x: "127.0.0.1:x": must be port, host:port, [address]:port or unix:/path',
        )

    def test_severalLines(self):
        """A value of several lines does not make a problem of several lines."""
        (fault,) = self.faults(MAIL + "[server a]\nlisten =\n  127.0.0.1:143\n  127.0.0.1:99999\n")
        self.assertIn("listen = 127.0.0.1:143 | 127.0.0.1:99999: ", fault)

    def test_empty(self):
        """An option without a value is an error, not a default."""
        self.assertFaults(
            MAIL + IMAP + "timeout =\n", "5: [server imap] timeout = : must be a time, such as 30s, 1h30m or 500ms"
        )


class SecretTests(ConfigCase):
    """Complaints about secrets do not tell them."""

    def test_values(self):
        """The value of a secret directive is not shown, the option is."""
        for option, value in (
            ("auth_http_header", "X-Key: sesame"),
            ("auth_http_header", "Bad(Name sesame"),
        ):
            (fault,) = self.faults(f"{IMAP}{option} = {value}\n{AUTH}")
            self.assertIn(f"[server imap] {option} = ***: ", fault)
            self.assertNotIn("sesame", fault)

    def test_urls(self):
        """A URL is shown but for its password and its query, of which a key may be part."""
        (fault,) = self.faults(IMAP + "auth_http =\n  http://joe:sesame@127.0.0.1/a\n  ftp://127.0.0.1/b?key=sesame\n")
        self.assertIn("auth_http = http://***@127.0.0.1/a | ftp://127.0.0.1/b?***: ", fault)
        self.assertNotIn("sesame", fault)

    def test_users(self):
        """The sandbox's users are told by their line."""
        (fault,) = self.faults("[sandbox]\nusers =\n  alice wonderland\n  sesame\n" + MAIL + IMAP)
        self.assertEqual(
            fault,
            "gateway.ini:2: [sandbox] users = ***: line 2 must be a name and a password, such as alice wonderland",
        )

    def test_duplicates(self):
        """A secret that is given twice is shown neither time."""
        header = "auth_http_header = X-Key sesame\n"
        (fault,) = self.faults(MAIL + IMAP + header + header)
        self.assertNotIn("sesame", fault)

    def test_openToAll(self):
        """Of each secret in a file that everybody may read there is a warning, and of nothing else in it."""
        text = """
[mailgate]
pid = /run/mailgate.pid
[mail]
auth_http = http://127.0.0.1/auth?key=sesame
auth_http_header =
    X-Client ${remote_addr}:$remote_port
    X-Key sesame
[server imap]
listen = 127.0.0.1:143
[server pop3]
listen = 127.0.0.1:110
auth_http = http://127.0.0.1/auth
auth_http_header = X-Client $remote_addr
ssl_certificate = data:PEM
ssl_certificate_key = data:sesame
[server smtp]
listen = 127.0.0.1:25
auth_http = http://127.0.0.1/auth
ssl_certificate_key = /etc/key.pem
[sandbox]
users = alice wonderland
"""
        reason = "may be a secret, and everybody on this host may read it: chmod o-r gateway.ini"
        for isOpen in (True, False):
            self.patch(sections, "isOpenToAll", lambda path, isOpen=isOpen: isOpen)
            told = [str(warning) for warning in parse(text).warnings]
            self.assertNotIn("sesame", "".join(told))
            expected = [
                f"gateway.ini:5: [mail] auth_http = http://127.0.0.1/auth?***: {reason}",
                f"gateway.ini:6: [mail] auth_http_header = ***: {reason}",
                f"gateway.ini:16: [server pop3] ssl_certificate_key = ***: {reason}",
            ]
            self.assertEqual([line for line in told if "secret" in line], expected if isOpen else [])

    def test_inTheException(self):
        """Nor do the problems themselves have it."""
        error = self.assertRaises(ConfigurationError, parse, MAIL + IMAP + "auth_http_header = Bad( sesame\n")
        self.assertNotIn("sesame", repr(error) + repr(error.problems))


class ProtocolTests(ConfigCase):
    """What a server speaks."""

    def test_guessed(self):
        """A well-known port tells the protocol."""
        for port, protocol in (
            (143, "imap"),
            (993, "imap"),
            (110, "pop3"),
            (995, "pop3"),
            (25, "smtp"),
            (465, "smtp"),
            (587, "smtp"),
        ):
            self.assertEqual(self.server(f"{MAIL}[server x]\nlisten = 127.0.0.1:{port}").protocol, protocol)

    def test_firstWellKnown(self):
        """Of several ports the first that is well known tells it, as in nginx."""
        text = MAIL + "[server x]\nlisten =\n  127.0.0.1:1143\n  127.0.0.1:110\n  127.0.0.1:143\n"
        self.assertEqual(self.server(text).protocol, "pop3")

    def test_given(self):
        """What is written counts, whatever the port."""
        self.assertEqual(self.server(MAIL + IMAP + "protocol = smtp").protocol, "smtp")

    def test_untold(self):
        """Where nothing tells it, it is missed."""
        self.assertFaults(
            MAIL + "[server x]\nlisten = 127.0.0.1:1143",
            "3: [server x] protocol: is missing, and no port tells it: imap, pop3, smtp",
        )

    def test_caseMatters(self):
        """nginx takes protocols in small letters alone, and so do we."""
        self.assertIn("is no known protocol", self.faults(MAIL + IMAP + "protocol = IMAP")[0])


class ListenTests(ConfigCase):
    """Where servers listen."""

    def test_missing(self):
        """A server without an address is an error."""
        self.assertFaults(MAIL + "[server x]\nprotocol = imap", "3: [server x] listen: is missing")

    def test_ssl(self):
        """C{ssl} behind an address is that address's own."""
        certificate, key = ensureCertificate(self.mktemp(), ())
        pair = f"ssl_certificate = {os.path.abspath(certificate)}\nssl_certificate_key = {os.path.abspath(key)}\n"
        text = MAIL + pair + "[server x]\nlisten =\n  127.0.0.1:143\n  127.0.0.1:993 ssl\n"
        self.assertEqual([address.ssl for address in self.server(text).listen], [False, True])

    def test_sslOn(self):
        """The C{ssl on} of old guides makes every address speak TLS, in [mail] those of every server."""
        certificate, key = ensureCertificate(self.mktemp(), ())
        pair = f"ssl_certificate = {os.path.abspath(certificate)}\nssl_certificate_key = {os.path.abspath(key)}\n"
        both = "[server x]\nlisten =\n  127.0.0.1:143\n  127.0.0.1:993\n"
        self.assertEqual([address.ssl for address in self.server(MAIL + pair + both + "ssl = on").listen], [True, True])
        self.assertTrue(self.server(MAIL + pair + "ssl = on\n" + IMAP).speaksTLS)
        self.assertFalse(self.server(MAIL + pair + "ssl = on\n" + IMAP + "ssl = off\n").speaksTLS)

    def test_sslOnNeedsACertificate(self):
        """It is held to what every C{ssl} is."""
        self.assertFaults(
            MAIL + IMAP + "ssl = on", '3: [server imap] ssl_certificate: is missing, "listen … ssl" needs it'
        )

    def test_sslAndSTARTTLS(self):
        """C{ssl} and C{starttls} contradict each other in one section, and not in two, as in nginx before 1.25."""
        certificate, key = ensureCertificate(self.mktemp(), ())
        pair = f"ssl_certificate = {os.path.abspath(certificate)}\nssl_certificate_key = {os.path.abspath(key)}\n"
        for word in ("on", "only"):
            self.assertFaults(
                MAIL + pair + IMAP + f"ssl = on\nstarttls = {word}\n",
                "8: [server imap] starttls: conflicts with ssl = on, by which TLS is spoken from the first byte",
            )
        self.assertTrue(self.server(MAIL + pair + "starttls = on\n" + IMAP + "ssl = on\n").speaksTLS)
        self.assertTrue(self.server(MAIL + pair + IMAP + "ssl = on\nstarttls = off\n").speaksTLS)

    def test_withoutTLS(self):
        """A port on which clients speak TLS from the first byte, and that does not, is warned of."""
        settings = parse(MAIL + "[server imap]\nlisten =\n  143\n  127.0.0.1:993\n")
        self.assertEqual(
            [str(warning) for warning in settings.warnings],
            [
                "gateway.ini:6: [server imap] listen = 127.0.0.1:993: clients speak TLS from the first byte on port"
                ' 993, which takes "ssl" behind it'
            ],
        )

    def test_otherProtocol(self):
        """So is a port that belongs to another protocol than the server's."""
        settings = parse(MAIL + "[server imap]\nlisten =\n  127.0.0.1:143\n  127.0.0.1:110\n")
        self.assertEqual(
            [str(warning) for warning in settings.warnings],
            [
                "gateway.ini:6: [server imap] listen = 127.0.0.1:110: port 110 is one of pop3, and clients find imap"
                " there"
            ],
        )

    def test_portsBehindABalancer(self):
        """A load balancer may end TLS, and may have ports of its own: nothing is said then, nor of any other port."""
        balanced = "listen =\n  993 proxy_protocol\n  995 proxy_protocol\n  9993\n  unix:/s\n"
        server = "[server a]\nprotocol = imap\nset_real_ip_from = 10.0.0.1\n"
        self.assertEqual(parse(MAIL + server + balanced).warnings, ())

    def test_duplicate(self):
        """An address and port is listened on once, in one server or in two, with or without TLS."""
        self.assertFaults(
            MAIL + IMAP + "[server other]\nprotocol = pop3\nlisten =\n  127.0.0.1:110\n  127.0.0.1:143\n",
            '7: [server other] listen: duplicate "127.0.0.1:143" address and port pair, which [server imap] has'
            " already",
        )
        self.assertFaults(
            MAIL + "[server x]\nprotocol = imap\nlisten =\n  143\n  *:143\n",
            '5: [server x] listen: duplicate "0.0.0.0:143" address and port pair, which [server x] has already',
        )

    def test_sessionCaches(self):
        """A shared session cache has one size under one name, in all servers together; another name is another."""
        other = "[server other]\nprotocol = pop3\nlisten = 127.0.0.1:110\nssl_session_cache = shared:{}\n"
        first = MAIL + IMAP + "ssl_session_cache = builtin shared:TLS:1m\n"
        self.assertFaults(
            first + other.format("TLS:2m"),
            '9: [server other] ssl_session_cache: the size 2097152 of shared memory zone "TLS" conflicts with already'
            " declared size 1048576",
        )
        for value in ("TLS:1m", "TLS:1024k", "other:2m"):
            self.assertEqual(len(parse(first + other.format(value)).servers), 2)

    def test_sessionCacheOfNobody(self):
        """The size in [mail] counts although each server has another of its own, as in nginx."""
        mail = MAIL + "ssl_session_cache = shared:TLS:1m\n" + IMAP + "ssl_session_cache = "
        self.assertFaults(
            mail + "shared:TLS:2m\n",
            '6: [server imap] ssl_session_cache: the size 2097152 of shared memory zone "TLS" conflicts with already'
            " declared size 1048576",
        )
        for value in ("shared:TLS:1024k", "shared:other:2m", "none"):
            self.assertEqual(len(parse(f"{mail}{value}\n").servers), 1)

    def test_inlineKeyHidden(self):
        """Whatever is wrong with a key in the file, no message holds it."""
        for value in ("data:SECRET", "engine:SECRET", "store:SECRET"):
            text = MAIL + IMAP + f"ssl = on\nssl_certificate = data:x\nssl_certificate_key = {value}\n"
            self.assertNotIn("SECRET", "".join(self.faults(text)))

    def test_notDuplicate(self):
        """The same port of two addresses, and of the two families, is not the same."""
        text = MAIL + "[server x]\nprotocol = imap\nlisten =\n  127.0.0.1:143\n  127.0.0.2:143\n  [::1]:143\n"
        self.assertEqual(len(self.server(text).listen), 3)

    def test_wildcard(self):
        """A wildcard beside addresses that it takes in is none either, and all of them may have the same options."""
        text = MAIL + "[server x]\nprotocol = imap\nlisten =\n  143 backlog=9\n  127.0.0.1:143\n  [::1]:143 backlog=3\n"
        self.assertEqual(len(self.server(text).listen), 3)
        self.assertEqual(len(self.server(text.replace("127.0.0.1:143", "127.0.0.1:143 backlog=9")).listen), 3)

    def test_sharedSocket(self):
        """An address that shares the wildcard's socket cannot have one that is different."""
        self.assertFaults(
            MAIL + IMAP + "[server x]\nprotocol = pop3\nlisten = 143 backlog=9\n[server y]\nprotocol = pop3\n"
            "listen = 127.0.0.2:143 backlog=8\n",
            '10: [server y] listen: "127.0.0.2:143" shares the socket of "0.0.0.0:143", and cannot have other options',
        )

    def test_unix(self):
        """A unix socket is an address, and given twice it is a duplicate too."""
        text = MAIL + "[server x]\nprotocol = imap\nlisten = unix:/run/imap.sock\n"
        self.assertEqual(self.server(text).listen[0].host, "unix:/run/imap.sock")
        self.assertIn("duplicate", self.faults(text + text.replace(MAIL, "").replace("server x", "server y"))[0])


class AuthenticatorTests(ConfigCase):
    """Who judges logins."""

    def kind(self, text: str) -> str:
        kind = authenticatorKind(self.server(text))
        assert kind is not None
        return str(kind.name)

    def accounts(self) -> str:
        path: str = os.path.abspath(self.mktemp())
        with open(path, "w", encoding="ascii") as opened:
            opened.write("joe:{PLAIN}sesame::::::host=10.0.0.1\n")
        return path

    def test_kinds(self):
        """Each directive chooses its own."""
        self.assertEqual(self.kind(IMAP + AUTH), "http")
        self.assertEqual(self.kind(IMAP + f"auth_file = {self.accounts()}\n"), "file")
        self.assertEqual(self.kind(IMAP + "proxy_pass = 10.0.0.1:143\n"), "passthrough")

    def test_default(self):
        """Beside another, proxy_pass is only the backend of accounts whose own is not known."""
        text = IMAP + "proxy_pass = 10.0.0.1:143\n"
        self.assertEqual(self.kind(text + AUTH), "http")
        self.assertEqual(self.kind(text + f"auth_file = {self.accounts()}\n"), "file")
        self.assertEqual(self.server(text + AUTH)[ProxySettings].backend, Backend("10.0.0.1", 143))

    def test_none(self):
        """A server whose logins nobody judges is refused."""
        self.assertFaults(IMAP, "1: [server imap] auth_http: is missing: give auth_http, auth_file or proxy_pass")
        self.assertIsNone(authenticatorKind(ServerSettings("x", "imap", ())))

    def test_exclusive(self):
        """A service and a file cannot both judge."""
        expected = "[server imap] auth_http: cannot stand together with auth_file"
        self.assertFaults(IMAP + AUTH + f"auth_file = {self.accounts()}\n", f"3: {expected}")
        self.assertFaults(
            MAIL + f"auth_file = {self.accounts()}\n" + IMAP, f"2: {expected}".replace("server imap", "mail")
        )

    def test_own(self):
        """What a server chooses for itself hides what [mail] chooses, either way."""
        server = self.server(MAIL + IMAP + f"auth_file = {self.accounts()}\n")
        self.assertEqual(server[HTTPSettings], HTTPSettings())
        self.assertNotIn("auth_http", server.given)
        server = self.server(f"[mail]\nauth_file = {self.accounts()}\n" + IMAP + AUTH)
        self.assertEqual(server[FileSettings], FileSettings())

    def test_unjudged(self):
        """A way to log in that the authenticator cannot judge is refused."""
        backend = "proxy_pass = 10.0.0.1:143\n"
        self.assertFaults(
            IMAP + backend + "imap_auth = plain cram-md5 external\n",
            "4: [server imap] imap_auth: offers cram-md5, external, which proxy_pass cannot judge",
        )
        self.assertFaults(
            "[server p]\nlisten = 127.0.0.1:110\npop3_auth = apop\n" + backend,
            "3: [server p] pop3_auth: offers apop, which proxy_pass cannot judge",
        )
        self.assertFaults(
            f"[server s]\nlisten = 127.0.0.1:25\nsmtp_auth = none external\nauth_file = {self.accounts()}\n",
            "3: [server s] smtp_auth: offers external, none, which auth_file cannot judge",
        )

    def test_judged(self):
        """A service can judge them all, a file what needs but a password, a backend what can be replayed."""
        every = "plain login cram-md5 external"
        self.assertEqual(self.kind(f"{IMAP}{AUTH}imap_auth = {every}\n"), "http")
        self.assertEqual(self.kind(f"{IMAP}auth_file = {self.accounts()}\nimap_auth = plain login cram-md5\n"), "file")
        text = "[server s]\nlisten = 127.0.0.1:25\nproxy_pass = 10.0.0.1:25\nsmtp_auth = plain login none\n"
        self.assertEqual(self.kind(text), "passthrough")

    def test_othersWords(self):
        """What another protocol's directive offers is not this server's."""
        self.assertEqual(self.kind(IMAP + "proxy_pass = 10.0.0.1:143\npop3_auth = apop\n"), "passthrough")

    def test_fileChecked(self):
        """The users are loaded, and what is wrong with them is told with the rest."""
        path = self.accounts()
        with open(path, "a", encoding="ascii") as opened:
            opened.write("ann:{ROT13}frnfnzr\n")
        faults = self.faults(IMAP + f"auth_file = {path}\n")
        self.assertIn(f"[server imap] auth_file = {path}: line 2 (ann): ", faults[0])
        self.assertNotIn("frnfnzr", faults[0])

    def test_fileMissing(self):
        """A file that is not there is told of."""
        self.assertFaults(
            IMAP + "auth_file = /nowhere/accounts\n",
            "3: [server imap] auth_file = /nowhere/accounts: cannot be read: No such file or directory",
        )


class PathTests(ConfigCase):
    """Relative paths."""

    def test_relative(self):
        """They start at the ini file's folder, wherever the process is."""
        text = "[mailgate]\nerror_log = log/mailgate.log\n" + MAIL + IMAP + "proxy_ssl_trusted_certificate = ca.pem\n"
        error = self.assertRaises(ConfigurationError, parse, text, "/etc/mailgate/gateway.ini")
        self.assertIn("proxy_ssl_trusted_certificate = /etc/mailgate/ca.pem", str(error))
        settings = parse("[mailgate]\nerror_log = log/x.log\n" + MAIL + IMAP, "/etc/mailgate/gateway.ini")
        self.assertEqual(settings[LogSettings].errorLog[0].file, "/etc/mailgate/log/x.log")

    def test_relativeFile(self):
        """So they do when the ini file's own path is relative: a process may change its folder later."""
        settings = parse("[mailgate]\nerror_log = x.log\n" + MAIL + IMAP, "etc/gateway.ini")
        self.assertEqual(settings[LogSettings].errorLog[0].file, os.path.join(os.getcwd(), "etc", "x.log"))


class SandboxTests(ConfigCase):
    """Servers before the sandbox."""

    text = "[sandbox]\n" + MAIL + IMAP + "starttls = on\n"

    def setUp(self):
        self.state = os.path.abspath(self.mktemp())
        self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": self.state})

    def test_nothingWritten(self):
        """A server that has no certificate is good beside a [sandbox], which makes one when it starts and no sooner."""
        (server,) = parse(self.text).servers
        self.assertEqual(server[TLSSettings].certificates, ())
        self.assertEqual(server.supplied, {"ssl_certificate"})
        self.assertFalse(os.path.exists(self.state))

    def test_otherFaults(self):
        """What else is wrong with its TLS is found."""
        for line, told in (
            ("ssl_protocols = SSLv3", "has no version that the TLS library still speaks"),
            ("ssl_verify_client = on", "needs ssl_client_certificate or ssl_trusted_certificate"),
            ("ssl_dhparam = /nowhere/dh.pem", "cannot be read"),
        ):
            self.assertIn(told, self.faults(f"{self.text}{line}\n")[0])

    def test_withoutSandbox(self):
        """Without [sandbox] nobody is given a certificate that nobody can trust."""
        self.assertIn("ssl_certificate: is missing", self.faults(self.text.replace("[sandbox]\n", ""))[0])

    def test_settings(self):
        """Where there is a [sandbox], its settings are there; else there are none."""
        settings = parse("[sandbox]\ndomain = example.org\n" + MAIL + IMAP)
        self.assertEqual(settings[SandboxSettings].domain, "example.org")
        self.assertIsNone(parse(MAIL + IMAP).find(SandboxSettings))

    def test_ownAuthHttp(self):
        """C{auth_http} in [sandbox] is an address to listen on, not a service to ask."""
        self.assertIn(
            "[sandbox] auth_http = http://x/: must be a loopback address",
            self.faults("[sandbox]\nauth_http = http://x/\n" + MAIL + IMAP)[0],
        )

    def test_demo(self):
        """etc/demo.ini is a good configuration."""
        path = os.path.join(ROOT, "etc", "demo.ini")
        if not os.path.exists(path):
            raise SkipTest("etc/demo.ini is not installed")
        settings = load(path)
        self.assertEqual(
            sorted(
                (server.protocol, address.port, address.ssl) for server in settings.servers for address in server.listen
            ),
            [
                ("imap", 1143, False),
                ("imap", 1993, True),
                ("pop3", 1110, False),
                ("pop3", 1995, True),
                ("smtp", 1465, True),
                ("smtp", 1587, False),
            ],
        )
        self.assertEqual([user.name for user in settings[SandboxSettings].users], ["alice", "bob"])


class GatewayIniTests(ConfigCase):
    """etc/gateway.ini, which documents everything."""

    def test_loads(self):
        """It can be used as it is."""
        path = os.path.join(ROOT, "etc", "gateway.ini")
        if not os.path.exists(path):
            raise SkipTest("etc/gateway.ini is not installed")
        self.assertEqual({server.protocol for server in load(path).servers}, {"imap", "pop3", "smtp"})
