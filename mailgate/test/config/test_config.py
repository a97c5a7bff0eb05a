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

from mailgate.config import knownDirectives, parse, read, sections
from mailgate.directives import ConfigurationError
from mailgate.frontend.draining import DrainSettings
from mailgate.frontend.settings import DialogueSettings
from mailgate.lean.reactor import EventSettings
from mailgate.log.settings import ErrorLog, LogSettings
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.system.pidfile import PIDSettings
from mailgate.system.privileges import ProcessSettings, User
from mailgate.test.support.configcase import AUTH, IMAP, KNOWN, MAIL, ConfigCase
from mailgate.test.support.nowhere import NOWHERE
from mailgate.tls.settings import TLSSettings


class SectionTests(ConfigCase):
    """The sections, and inheritance between them."""

    def test_least(self):
        """A server needs an address and an authenticator; everything else has a default."""
        server = self.server(MAIL + IMAP)
        self.assertEqual((server.name, server.protocol, str(server.listen[0])), ("imap", "imap", "127.0.0.1:143"))
        self.assertEqual(server[DialogueSettings], DialogueSettings(authDelay=0.0, maxAuthFailures=0))
        self.assertEqual(server[TLSSettings], TLSSettings())

    def test_process(self):
        """The settings of the process are read from [mailgate]."""
        settings = parse("[mailgate]\nerror_log = stderr info\n" + MAIL + IMAP)
        self.assertEqual(settings[LogSettings].errorLog, (ErrorLog(None, LogLevel.info),))

    def test_privileges(self):
        """The limit of open files and the user are read; a warning says what the process cannot do."""
        settings = parse("[mailgate]\nworker_rlimit_nofile = 333\n" + MAIL + IMAP)
        self.assertEqual(settings[ProcessSettings], ProcessSettings(openFiles=333))
        self.patch(os, "geteuid", lambda: 1000)
        user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
        settings = parse(f"[mailgate]\nuser = {user} {group}\n" + MAIL + IMAP)
        self.assertEqual(settings[ProcessSettings].user, User(user, os.getuid(), os.getgid()))
        self.assertEqual([(warning.option, warning.value) for warning in settings.warnings], [("user", user)])

    def test_lifetime(self):
        """The pid file and the time for sessions at a stop are read."""
        settings = parse("[mailgate]\npid = x.pid\nworker_shutdown_timeout = 1m30s\n" + MAIL + IMAP, "/etc/gateway.ini")
        self.assertEqual(settings[PIDSettings].path, "/etc/x.pid")
        self.assertEqual(settings[DrainSettings].patience, 90.0)
        settings = parse(MAIL + IMAP)
        self.assertIsNone(settings[PIDSettings].path)
        self.assertIsNone(settings[DrainSettings].patience)
        for line in ("worker_shutdown_timeout = soon", "worker_shutdown_timeout =", "pid ="):
            self.assertRaises(ConfigurationError, parse, f"[mailgate]\n{line}\n" + MAIL + IMAP)

    def test_repeated(self):
        """A repeated word has no effect, as in nginx, and causes a warning with its line."""
        settings = parse(MAIL + "imap_auth = plain LOGIN\n" + IMAP + "imap_auth = plain login Plain\n")
        self.assertEqual(settings.servers[0][IMAP4Settings].auth, ("plain", "login"))
        self.assertEqual(
            [str(warning) for warning in settings.warnings],
            ['gateway.ini:6: [server imap] imap_auth = plain login Plain: duplicate value "Plain"'],
        )

    def test_syslog(self):
        """A missing unix socket of syslog does not stop the start, and causes a warning."""
        there = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, there)
        missing = f"syslog:server=unix:{there}/log"
        text = f"[mailgate]\nerror_log =\n {missing}\n stderr\n" + MAIL + IMAP
        settings = parse(f"{text}error_log =\n {missing} info\n {NOWHERE}/x.log\n syslog:server=unix:{there}\n")
        fault = f"error_log = unix:{there}/log: does not exist yet; lines sent to it are lost"
        self.assertEqual(
            [str(warning) for warning in settings.warnings],
            [f"gateway.ini:2: [mailgate] {fault}", f"gateway.ini:9: [server imap] {fault}"],
        )

    def test_logNames(self):
        """A doubtful name of a log file causes a warning: "off" makes a file of that name, as in nginx."""
        for value in ("off", "stdout info", "/var/log/mailgate.log, info", "stderr,info", "syslog"):
            name = value.removesuffix(" info")
            (told,) = parse(f"[mailgate]\nerror_log = {value}\n{MAIL}{IMAP}error_log = stderr\n").warnings
            self.assertTrue(told.value.endswith(name), told)
            self.assertTrue(told.message.startswith("is used as a file name; error_log takes a file, stderr or"), told)
        for value in ("/var/log/off.log", "stderr debug", "mailgate.log warn"):
            self.assertEqual(parse(f"[mailgate]\nerror_log = {value}\n{MAIL}{IMAP}").warnings, ())

    def test_proxy(self):
        """nginx's proxy is accepted, must be a flag, and changes nothing."""
        for value in ("on", "OFF"):
            self.assertEqual(self.server(MAIL + IMAP + f"proxy = {value}").protocol, "imap")
        self.assertFaults(MAIL + "proxy = yes\n" + IMAP, '3: [mail] proxy = yes: must be "on" or "off"')

    def test_protocolsCase(self):
        """As in nginx, the name of a protocol is in lower case; other words are in any case."""
        self.assertFaults(
            MAIL + IMAP + "protocol = IMAP\nstarttls = OFF\n",
            f"5: [server imap] protocol = IMAP: must be one of {KNOWN}; did you mean imap?",
        )

    def test_use(self):
        """The default is epoll if the system has it; C{use = reactor} selects the reactor."""
        hasEpoll = hasattr(select, "epoll")
        for text, isLean in (
            ("", hasEpoll),
            ("[mailgate]\nuse = epoll\n", hasEpoll),
            ("[mailgate]\nuse = reactor\n", False),
        ):
            self.assertIs(parse(text + MAIL + IMAP)[EventSettings].isLean, isLean, text)

    def test_useOtherwise(self):
        """nginx's other methods are refused, and a server cannot select a method."""
        self.assertFaults(
            "[mailgate]\nuse = kqueue\n" + MAIL + IMAP + "use = epoll\n",
            "2: [mailgate] use = kqueue: must be one of epoll, reactor",
            "7: [server imap] use: belongs in [mailgate]; move it there",
        )

    def test_file(self):
        """Settings and servers know the name of their file."""
        settings = parse(MAIL + IMAP, "/etc/mailgate/x.ini")
        self.assertEqual({settings.file, settings.servers[0].file}, {"/etc/mailgate/x.ini"})

    def test_inherited(self):
        """[mail] applies to every server, wherever it is in the file."""
        for text in (MAIL + "timeout = 7\n" + IMAP, IMAP + MAIL + "timeout = 7\n"):
            self.assertEqual(self.server(text)[DialogueSettings].timeout, 7.0)

    def test_own(self):
        """An option of a server replaces that of [mail], for this server only."""
        text = MAIL + "timeout = 7\n" + IMAP + "timeout = 8\n[server pop3]\nlisten = 127.0.0.1:110\n"
        imap, pop3 = parse(text).servers
        self.assertEqual((imap[DialogueSettings].timeout, pop3[DialogueSettings].timeout), (8.0, 7.0))

    def test_listsReplace(self):
        """A list of a server replaces the inherited list as a whole, as in nginx."""
        text = MAIL + "imap_capabilities =\n  IMAP4\n  IDLE\n" + IMAP + "imap_capabilities = IMAP4rev1\n"
        self.assertEqual(self.server(text)[IMAP4Settings].capabilities, ("IMAP4rev1",))

    def test_given(self):
        """A server knows the options that were set in either section."""
        self.assertEqual(self.server(MAIL + IMAP).given, {"auth_http", "listen"})

    def test_noMail(self):
        """A configuration without [mail] is valid."""
        self.assertEqual(self.server(IMAP + AUTH).protocol, "imap")

    def test_noServer(self):
        """A configuration without servers is refused."""
        self.assertFaults(MAIL, "1: [mail]: there is no [server NAME] section; write at least one")
        self.assertFaults("", " [mail]: there is no [server NAME] section; write at least one")

    def test_names(self):
        """The name of a server may contain blanks, and has no other meaning."""
        self.assertEqual(self.server(MAIL + "[server my imap]\nlisten = 127.0.0.1:143").name, "my imap")

    def test_nameless(self):
        """A [server] without a name is refused with an example."""
        self.assertIn("[server]: needs a name, such as [server imap]", self.faults(MAIL + "[server]\n" + IMAP)[0])

    def test_unknownSection(self):
        """An unknown section is an error; the message has the nearest known name."""
        self.assertFaults("[mial]\n" + IMAP + AUTH, "1: [mial]: is an unknown section; did you mean mail?")
        self.assertFaults("[http]\n" + IMAP + AUTH, "1: [http]: is an unknown section")
        self.assertFaults("[DEFAULT]\n" + IMAP + AUTH, "1: [DEFAULT]: is an unknown section")

    def test_unknownOption(self):
        """An unknown option is an error; the message has the nearest known name."""
        self.assertFaults(
            MAIL + IMAP + "timeuot = 5", "5: [server imap] timeuot: is an unknown option; did you mean timeout?"
        )

    def test_options(self):
        """Names of options are in lower case, as in nginx."""
        self.assertFaults(
            MAIL + IMAP + "Timeout = 5", "5: [server imap] Timeout: is an unknown option; did you mean timeout?"
        )

    def test_elsewhere(self):
        """The message about an option in the wrong section names the right one."""
        self.assertFaults(
            "[mailgate]\ntimeout = 5\n" + MAIL + "listen = 143\nuse = epoll\n" + IMAP,
            "2: [mailgate] timeout: belongs in [mail]; move it there",
            "5: [mail] listen: belongs in [server NAME]; move it there",
            "6: [mail] use: belongs in [mailgate]; move it there",
        )

    def test_knownDirectives(self):
        """The options of a section are known by name and level."""
        self.assertIn("listen", knownDirectives("server"))
        self.assertNotIn("listen", knownDirectives("mail"))
        # test_restart has all of them, also those of future settings classes.
        self.assertLessEqual(
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
            set(knownDirectives("mailgate")),
        )


class ReadTests(ConfigCase):
    """Tests for L{read}."""

    def test_text(self):
        """The text is UTF-8, with or without a byte order mark, with any kind of line ends."""
        path = self.mktemp()
        with open(path, "wb") as opened:
            opened.write(b"\xef\xbb\xbf[mail]\r\nserver_name = m\xc3\xbc\rx = y\n")
        self.assertEqual(read(path), "[mail]\nserver_name = m\xfc\nx = y\n")

    def test_pipe(self):
        """The file may be a pipe, such as the <(COMMAND) of a shell."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        with os.fdopen(writing, "w", encoding="utf-8") as opened:
            opened.write("[mail]\n")
        self.assertEqual(read(f"/dev/fd/{reading}"), "[mail]\n")

    def test_refused(self):
        """A file without end, or a much too long one, is refused."""
        path = self.mktemp()
        with open(path, "wb") as opened:
            opened.truncate(1 << 40)
        for name, reason in (("/dev/zero", "it is not a regular file or a pipe"), (path, "it is larger than 16 MB")):
            error = self.assertRaises(ConfigurationError, read, name)
            self.assertEqual(str(error), f"{name}: cannot be read: {reason}")


class SecretTests(ConfigCase):
    """Messages do not contain secrets."""

    def test_values(self):
        """A message about a secret directive has the option, but not the value."""
        for option, value in (
            ("auth_http_header", "X-Key: sesame"),
            ("auth_http_header", "Bad(Name sesame"),
        ):
            (fault,) = self.faults(f"{IMAP}{option} = {value}\n{AUTH}")
            self.assertIn(f"[server imap] {option} = ***: ", fault)
            self.assertNotIn("sesame", fault)

    def test_urls(self):
        """A URL is shown without its password and its query, which may contain a key."""
        (fault,) = self.faults(IMAP + "auth_http =\n  http://joe:sesame@127.0.0.1/a\n  ftp://127.0.0.1/b?key=sesame\n")
        self.assertIn("auth_http = http://***@127.0.0.1/a | ftp://127.0.0.1/b?***: ", fault)
        self.assertNotIn("sesame", fault)

    def test_users(self):
        """A message about a user of the sandbox has the number of the line."""
        (fault,) = self.faults("[sandbox]\nusers =\n  alice wonderland\n  sesame\n" + MAIL + IMAP)
        self.assertEqual(
            fault,
            "gateway.ini:2: [sandbox] users = ***: line 2 must be a name and a password, such as alice wonderland",
        )

    def test_duplicates(self):
        """A secret that is set twice is not shown."""
        header = "auth_http_header = X-Key sesame\n"
        (fault,) = self.faults(MAIL + IMAP + header + header)
        self.assertNotIn("sesame", fault)

    def test_openToAll(self):
        """Each secret in a file that other users can read causes a warning; other options do not."""
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
        reason = "may be a secret, but every user on this host can read the file; run: chmod o-r gateway.ini"
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
        """The problems themselves do not contain it either."""
        error = self.assertRaises(ConfigurationError, parse, MAIL + IMAP + "auth_http_header = Bad( sesame\n")
        self.assertNotIn("sesame", repr(error) + repr(error.problems))


class PathTests(ConfigCase):
    """Relative paths."""

    def test_relative(self):
        """They start at the folder of the ini file, not at that of the process."""
        text = "[mailgate]\nerror_log = log/mailgate.log\n" + MAIL + IMAP + "proxy_ssl_trusted_certificate = ca.pem\n"
        error = self.assertRaises(ConfigurationError, parse, text, f"{NOWHERE}/gateway.ini")
        self.assertIn(f"proxy_ssl_trusted_certificate = {NOWHERE}/ca.pem", str(error))
        settings = parse("[mailgate]\nerror_log = log/x.log\n" + MAIL + IMAP, f"{NOWHERE}/gateway.ini")
        self.assertEqual(settings[LogSettings].errorLog[0].file, f"{NOWHERE}/log/x.log")

    def test_relativeFile(self):
        """So they do if the path of the ini file is relative: a process may change its folder later."""
        settings = parse("[mailgate]\nerror_log = x.log\n" + MAIL + IMAP, "etc/gateway.ini")
        self.assertEqual(settings[LogSettings].errorLog[0].file, os.path.join(os.getcwd(), "etc", "x.log"))
