"""
Tests for L{mailgate.cli.main}.
"""

from __future__ import annotations

import grp
import io
import os
import pwd
import socket
import sys

from twisted.trial.unittest import SynchronousTestCase

import mailgate
from mailgate.cli.main import describe, main
from mailgate.config import parse
from mailgate.process import rights
from mailgate.sandbox.certificate import ensureCertificate
from mailgate.test.integration.daemon import freePort
from mailgate.test.support.nowhere import NOWHERE

GOOD = """
[mail]
server_name = mx.test
auth_http = http://127.0.0.1:9/auth
[server imap]
protocol = imap
listen =
    127.0.0.1:21143
    unix:/tmp/mailgate-imap.sock
imap_auth = plain login cram-md5
[server submission]
protocol = smtp
listen = 127.0.0.1:21587
smtp_capabilities = 8BITMIME
"""


class ConsoleCase(SynchronousTestCase):
    """The command, and what it prints."""

    def setUp(self):
        self.stdout, self.stderr = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.stdout)
        self.patch(sys, "stderr", self.stderr)
        # argparse wraps its lines at the width of the terminal.
        self.patch(os, "environ", {**os.environ, "COLUMNS": "200"})

    def run_(self, *arguments: str) -> int:
        """Run the command; return the status, also of a C{SystemExit}."""
        try:
            return main(arguments)
        except SystemExit as exit:
            return int(exit.code or 0)

    def write(self, text: str) -> str:
        path: str = self.mktemp()
        with open(path, "w", encoding="utf-8") as opened:
            opened.write(text)
        return path


class CheckTests(ConsoleCase):
    """C{mailgate check}."""

    def test_good(self):
        """A good configuration is described on standard output, with status 0."""
        path = self.write(GOOD)
        self.assertEqual(self.run_("check", "--config", path), 0)
        self.assertEqual(
            self.stdout.getvalue().splitlines(),
            [
                "server imap: imap on 127.0.0.1:21143, unix:/tmp/mailgate-imap.sock",
                "  logins: cram-md5, plain, checked by auth_http",
                "  TLS: none",
                "server submission: smtp on 127.0.0.1:21587",
                "  logins: plain, checked by auth_http",
                "  TLS: none",
                f"{path}: good",
            ],
        )
        self.assertEqual(self.stderr.getvalue(), "")

    def test_writesNothing(self):
        """The check does not create the demo's certificate, and needs no folder for it."""
        state, blocked = map(os.path.abspath, (self.mktemp(), self.mktemp()))
        os.mkdir(state)
        with open(blocked, "wb"):
            pass
        ini = self.write("[sandbox]\n" + GOOD.replace("server_name", "starttls = on\nserver_name"))
        for place in (state, blocked):
            self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": place, "HOME": place})
            self.assertEqual(self.run_("check", "-c", ini), 0, self.stderr.getvalue())
        self.assertEqual(os.listdir(state), [])
        self.assertIn("starttls on, the demo's certificate\n", self.stdout.getvalue())

    def test_short(self):
        """C{-c} is short for C{--config}."""
        self.assertEqual(self.run_("check", "-c", self.write(GOOD)), 0)

    def test_bad(self):
        """Each error of a bad configuration is a line on standard error, with status 78."""
        path = self.write(GOOD + "smtp_auth = plian\ntimeout = soon\n")
        self.assertEqual(self.run_("check", "--config", path), 78)
        self.assertEqual(self.stdout.getvalue(), "")
        first, second = self.stderr.getvalue().splitlines()
        self.assertTrue(
            first.startswith(f'{path}:15: [server submission] smtp_auth = plian: "plian" is unknown'), first
        )
        self.assertTrue(first.endswith("did you mean plain?"), first)
        self.assertTrue(second.startswith(f"{path}:16: [server submission] timeout = soon: must be a time"), second)

    def test_missing(self):
        """A missing configuration is a bad configuration."""
        self.assertEqual(self.run_("check", "--config", f"{NOWHERE}/x.ini"), 78)
        self.assertEqual(self.stderr.getvalue(), f"{NOWHERE}/x.ini: cannot be read: No such file or directory\n")

    def test_logs(self):
        """A log file in a missing folder is an error; a log file that could be created is not created."""
        path = self.write(f"[mailgate]\nerror_log =\n    {NOWHERE}/x.log\n    y.log\n" + GOOD)
        self.assertEqual(self.run_("check", "--config", path), 78)
        (line,) = self.stderr.getvalue().splitlines()
        self.assertIn(f"[mailgate] error_log = {NOWHERE}/x.log: cannot be opened: its directory does not exist", line)
        self.assertFalse(os.path.exists(os.path.join(os.path.dirname(os.path.abspath(path)), "y.log")))

    def test_serversLogs(self):
        """A log file of servers in a missing folder is an error, reported once for all servers that inherit it."""
        text = GOOD.replace("[mail]", f"[mail]\nerror_log = {NOWHERE}/x.log").replace(
            "imap_auth", "error_log = z.log\nimap_auth"
        )
        text += f"error_log =\n    {NOWHERE}/y.log\n    z.log\n"
        text += "".join(f"[server {name}]\nlisten = {name}\nprotocol = pop3\n" for name in (21110, 21995))
        self.assertEqual(self.run_("check", "--config", self.write(text)), 78)
        first, second = self.stderr.getvalue().splitlines()
        self.assertIn(
            f"[server submission] error_log = {NOWHERE}/y.log: cannot be opened: its directory does not exist", first
        )
        self.assertIn(f"3: [mail] error_log = {NOWHERE}/x.log: cannot be opened: its directory does not exist", second)

    def test_certificates(self):
        """Certificates are loaded: a missing one is an error before the gateway starts."""
        path = self.write(GOOD + f"starttls = on\nssl_certificate = {NOWHERE}/c\nssl_certificate_key = {NOWHERE}/k\n")
        self.assertEqual(self.run_("check", "--config", path), 78)
        self.assertIn(f"{NOWHERE}/k: cannot be read: No such file or directory", self.stderr.getvalue())

    def test_users(self):
        """Account files are loaded; errors about their lines show no passwords."""
        accounts = os.path.abspath(self.write("joe:{PLAIN}sesame::::::host=10.0.0.1\nann:{ROT13}frnfnzr\n"))
        path = self.write(f"[server pop3]\nlisten = 127.0.0.1:110\nauth_file = {accounts}\n")
        self.assertEqual(self.run_("check", "--config", path), 78)
        (line,) = self.stderr.getvalue().splitlines()
        self.assertIn("line 2 (ann): ", line)
        self.assertNotIn("frnfnzr", line)

    def test_user(self):
        """C{user} without root is a warning, and an unknown user is an error."""
        self.patch(os, "geteuid", lambda: 1000)
        user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
        path = self.write(f"[mailgate]\nuser = {user} {group}\n{GOOD}")
        self.assertEqual(self.run_("check", "--config", path), 0)
        self.assertEqual(
            self.stderr.getvalue(),
            f"warning: {path}:2: [mailgate] user = {user}: is ignored: only root can become another user\n",
        )
        path = self.write(f"[mailgate]\nuser = no-such-user\n{GOOD}")
        self.assertEqual(self.run_("check", "--config", path), 78)

    def test_userOfFiles(self):
        """As root the check becomes the user, as the gateway does, and warns of files that this user cannot read."""
        self.patch(os, "geteuid", lambda: 0)
        self.patch(os, "access", lambda path, mode: False)
        become = []
        self.patch(rights, "becomeUser", become.append)
        user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
        accounts = os.path.abspath(self.write("joe:{PLAIN}sesame::::::host=10.0.0.1\n"))
        text = f"[mailgate]\nuser = {user} {group}\n[server pop3]\nlisten = 127.0.0.1:110\nauth_file = {accounts}\n"
        self.assertEqual(self.run_("check", "--config", self.write(text)), 0)
        self.assertEqual([found.name for found in become], [user])
        line, reload = self.stderr.getvalue().splitlines()[-2:]
        reason = f"the user {user} cannot read it: the gateway will not notice changes"
        self.assertTrue(line.endswith(f":5: [server pop3] auth_file = {accounts}: {reason}"), line)
        self.assertIn(f":2: [mailgate] user = {user}: cannot read ", reload)

    def test_noPort(self):
        """No port is opened, so that the check can run beside the gateway."""
        port = freePort()
        path = self.write(f"[server a]\nprotocol = imap\nproxy_pass = 10.0.0.1:143\nlisten = 127.0.0.1:{port}\n")
        with socket.create_server(("127.0.0.1", port)):
            self.assertEqual(self.run_("check", "--config", path), 0)

    def test_ascii(self):
        """Names of servers are printed on an ASCII terminal, too."""
        self.patch(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True))
        text = GOOD.replace("[server imap]", "[server b\xfcro]")
        self.assertEqual(self.run_("check", "--config", self.write(text)), 0)
        self.assertIn(b"server b\\xfcro: imap on", sys.stdout.buffer.getvalue())

    def test_start(self):
        """The check finds what would keep the gateway from starting, and what its user could not read at a reload."""
        for line, told in (
            (f"pid = {NOWHERE}/x.pid", f"pid = {NOWHERE}/x.pid: cannot be written: its directory does not exist"),
            ("error_log = /", "error_log = /: cannot be opened: Is a directory"),
        ):
            path = self.write(f"[mailgate]\n{line}\n{GOOD}")
            self.assertEqual(self.run_("check", "--config", path), 78)
            self.assertEqual(self.stderr.getvalue(), f"{path}:2: [mailgate] {told}\n")
            self.stderr.truncate(0)
            self.stderr.seek(0)

    def test_config(self):
        """C{--config} is required."""
        self.assertEqual(self.run_("check"), 2)
        self.assertIn("--config", self.stderr.getvalue())


class DescribeTests(ConsoleCase):
    """Tests for L{describe}."""

    def test_tls(self):
        """The description of a TLS server has versions, STARTTLS and the number of certificates."""
        certificate, key = map(os.path.abspath, ensureCertificate(self.mktemp(), ()))
        pair = f"ssl_certificate = {certificate}\nssl_certificate_key = {key}\nstarttls = only\n"
        pair += "ssl_protocols = TLSv1.2 TLSv1.3\n"
        text = f"[server p]\nproxy_pass = 10.0.0.1:110\nlisten =\n  127.0.0.1:110\n  127.0.0.1:995 ssl\n{pair}"
        self.assertEqual(
            list(describe(parse(text, "x.ini"))),
            [
                "server p: pop3 on 127.0.0.1:110, 127.0.0.1:995 ssl",
                "  logins: plain, checked by proxy_pass",
                "  TLS: TLSv1.2 TLSv1.3, starttls only, 1 certificate(s)",
                "x.ini: good",
            ],
        )

    def test_groups(self):
        """The description has groups with their servers and how they are chosen, and where logins go."""
        text = (
            "[upstream store]\nserver =\n  10.0.0.1:995 weight=2\n  10.0.0.2:995 backup\nhash = $user consistent\n"
            "proxy_ssl = on\n[upstream other]\nserver = 10.0.0.3:110\n"
            "[server p]\nlisten = 127.0.0.1:110\nproxy_pass = store\n"
        )
        self.assertEqual(
            list(describe(parse(text, "x.ini")))[3:],
            [
                "  backends: store, proxy_ssl off",
                "upstream store: hash $user consistent",
                "  proxy_ssl: on",
                "  server: 10.0.0.1:995 weight=2",
                "  server: 10.0.0.2:995 backup",
                "upstream other: round robin",
                "  proxy_ssl: as the server has it",
                "  server: 10.0.0.3:110",
                "x.ini: good",
            ],
        )

    def test_sandbox(self):
        """The description of the demo has the number of its users, and no passwords."""
        told = "\n".join(describe(parse("[sandbox]\nusers = joe sesame\n" + GOOD)))
        self.assertIn("sandbox: 1 user(s) in example.com", told)
        self.assertNotIn("sesame", told)

    def test_secrets(self):
        """The description contains no secrets."""
        told = "\n".join(describe(parse(GOOD + "auth_http_header = X-Key sesame\n")))
        self.assertNotIn("sesame", told)


class CommandTests(ConsoleCase):
    """The command line."""

    def test_version(self):
        """C{--version} prints the release."""
        self.assertEqual(self.run_("--version"), 0)
        self.assertEqual(self.stdout.getvalue(), f"mailgate {mailgate.__version__}\n")

    def test_help(self):
        """C{--help} prints how the gateway is started, and the commands."""
        self.assertEqual(self.run_("--help"), 0)
        self.assertIn("twistd mailgate --config FILE", self.stdout.getvalue())
        self.assertIn("check", self.stdout.getvalue())

    def test_helpOfCheck(self):
        """The help of a command has the exit statuses."""
        self.assertEqual(self.run_("check", "--help"), 0)
        self.assertRegex(self.stdout.getvalue(), r"exit status:\n  0   .*\n  78  ")

    def test_nothing(self):
        """Without a command, or with an unknown one, the usage is printed."""
        for arguments in ((), ("chekc",)):
            self.assertEqual(self.run_(*arguments), 2)
            self.assertIn("usage: mailgate", self.stderr.getvalue())
            self.stderr.truncate(0)

    def test_arguments(self):
        """C{main} takes the arguments of the process by default."""
        self.patch(sys, "argv", ["mailgate", "check", "--config", self.write(GOOD)])
        self.assertEqual(main(), 0)
