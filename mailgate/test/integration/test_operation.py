# -*- test-case-name: mailgate.test.integration.test_operation -*-
"""
Properties of the gateway's process: logs, user, and limit of open files.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.daemon import accepts, freePort, ifKilled, newFolder, waitUntil
from mailgate.test.integration.gateway import FOREGROUND, TWISTD, GatewayProcess, environment

PATIENCE = 30.0
"""Seconds that a client and a receiver wait for data."""

QUIT = {"imap": b"a LOGOUT\r\n", "pop3": b"QUIT\r\n", "smtp": b"QUIT\r\n"}
"""The command with which a client leaves."""

CHECK = [sys.executable, "-c", "import sys; from mailgate.cli.main import main; sys.exit(main())", "check", "--config"]


class OperationTestCase(SynchronousTestCase):
    """A folder for a gateway, and ports of a server for each protocol."""

    starting: Sequence[str] | None = None
    """The command of a start, as of L{GatewayProcess}. Tests that are about the process itself say it."""

    def setUp(self):
        self.folder = newFolder("operation")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.ports = {protocol: freePort() for protocol in QUIT}

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def ini(self, process: str = "", mail: str = "", **servers: str) -> str:
        """A configuration: lines of the process, of [mail], and of each server; there is no backend."""
        text = f"[mailgate]\nerror_log = gateway.log info\n{process}\n"
        text += f"[mail]\nserver_name = mx.test\nproxy_pass = 127.0.0.1:{freePort()}\n{mail}\n"
        for protocol, port in self.ports.items():
            listen = f"protocol = {protocol}\nlisten = 127.0.0.1:{port}\n"
            text += f"[server {protocol}]\n{listen}{servers.get(protocol, '')}\n"
        return text

    def start(self, ini: str) -> GatewayProcess:
        gateway = GatewayProcess(self.folder, ini, list(self.ports.values()), self.starting)
        self.addCleanup(gateway.stop)
        return gateway

    def visit(self, protocol: str, says: bytes = b"") -> bytes:
        """A whole session: a greeting, what the client C{says}, and its end. Returns all that it received."""
        with socket.create_connection(("127.0.0.1", self.ports[protocol]), PATIENCE) as client:
            heard = client.recv(4096)
            client.sendall(says + QUIT[protocol])
            while data := client.recv(4096):
                heard += data
        return heard

    def read(self, name: str) -> str:
        with open(self.path(name), encoding="utf-8") as opened:
            return opened.read()

    def stories(self, text: str) -> list[str]:
        """The protocols of the sessions whose end is in C{text}, without those of C{accepts()}."""
        return re.findall(r"connection ended: .* protocol (\w+), .*outcome client quit", text)


class LogTests(OperationTestCase):
    """The sessions of each server in its log."""

    def test_replaced(self):
        """
        A server's own log has its sessions, at its level, and no other log has them. It also has failures of its
        backend. Servers without one use that of [mail].
        """
        gateway = self.start(
            self.ini(mail="error_log = mail.log info", imap="error_log = imap.log info", pop3="error_log = pop3.log")
        )
        self.visit("imap", b"b LOGIN joe sesame\r\n")
        self.visit("pop3", b"USER joe\r\nPASS sesame\r\n")
        self.visit("smtp")
        gateway.stop()
        self.assertEqual(self.stories(self.read("imap.log")), ["imap"])
        self.assertEqual(
            len(re.findall(r"\[error\] \d+: backend failed: .*, in phase connect", self.read("imap.log"))), 1
        )
        self.assertEqual(self.stories(self.read("mail.log")), ["smtp"])
        outage, line = self.read("pop3.log").splitlines()
        self.assertRegex(outage, r"\[error\] \d+: backend 127\.0\.0\.1:\d+ is down: it refused the connection")
        self.assertRegex(line, r"\[error\] \d+: backend failed: .*, in phase connect, .*user \"joe\"")
        self.assertIn("Server Shut Down.", self.read("gateway.log"))
        self.assertNotIn("client", self.read("gateway.log"))

    def test_shared(self):
        """A file with several users is open once, and has the sessions of all."""
        gateway = self.start(
            self.ini(imap="error_log = gateway.log info", pop3="error_log =\n gateway.log info\n x.log")
        )
        self.assertEqual(gateway.descriptors().count(os.path.realpath(self.path("gateway.log"))), 1)
        for protocol in QUIT:
            self.visit(protocol)
        gateway.stop()
        self.assertEqual(self.stories(self.read("gateway.log")), ["imap", "pop3", "smtp"])


class SyslogTests(OperationTestCase):
    """Logs at a syslog receiver."""

    def receiver(self, family: socket.AddressFamily = socket.AF_UNIX) -> socket.socket:
        receiver = socket.socket(family, socket.SOCK_DGRAM)
        self.addCleanup(receiver.close)
        receiver.settimeout(PATIENCE)
        receiver.bind(self.path("syslog") if family == socket.AF_UNIX else ("127.0.0.1", 0))
        return receiver

    def heard(self, receiver: socket.socket, protocol: str) -> bytes:
        """The next line about a client of C{protocol} that left."""
        while True:
            line = receiver.recv(65536)
            if f"protocol {protocol},".encode() in line and b"outcome client quit" in line:
                return line

    def logged(self, name: str) -> str:
        """The only such line in the file C{name}."""

        def found() -> list[str]:
            return [line for line in self.read(name).splitlines() if "outcome client quit" in line]

        waitUntil(found, "the end of a session is logged")
        (line,) = found()
        return line

    def test_udp(self):
        """A line over UDP is that of a file, except that the pid is in the header of BSD syslog."""
        receiver = self.receiver(socket.AF_INET)
        target = f"syslog:server=127.0.0.1:{receiver.getsockname()[1]},facility=mail,tag=mx"
        self.start(self.ini(imap=f"error_log =\n    imap.log info\n    {target} info"))
        self.visit("imap")
        header, sign, message = self.heard(receiver, "imap").partition(b"]: ")
        self.assertEqual(message.decode(), re.sub(r"\] \d+: ", "] ", self.logged("imap.log")))
        self.assertRegex(
            (header + sign).decode(),
            rf"\A<22>[A-Z][a-z]{{2}} [ 123]\d \d\d:\d\d:\d\d {re.escape(socket.gethostname().lower())} mx\[\d+\]: \Z",
        )

    def test_process(self):
        """The process's own log can be syslog, without the host name if configured so."""
        receiver = self.receiver()
        target = f"syslog:server=unix:{self.path('syslog')},nohostname"
        ini = self.ini().replace("gateway.log info", f"\n    gateway.log info\n    {target} info")
        self.start(ini)
        self.visit("pop3")
        header, sign, message = self.heard(receiver, "pop3").partition(b"]: ")
        self.assertEqual(message.decode(), re.sub(r"\] \d+: ", "] ", self.logged("gateway.log")))
        self.assertRegex((header + sign).decode(), r"\A<190>[A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d mailgate\[\d+\]: \Z")

    def test_vanishes(self):
        """A receiver that is missing or goes away does not affect clients; when it is back it gets lines again."""
        self.start(self.ini(mail=f"error_log = syslog:server=unix:{self.path('syslog')} info"))
        self.assertIn(b"+OK", self.visit("pop3"))
        for protocol in ("imap", "smtp"):
            receiver = self.receiver()
            self.visit(protocol)
            self.assertTrue(self.heard(receiver, protocol))
            receiver.close()
            self.assertIn(b"+OK", self.visit("pop3"))
            os.unlink(self.path("syslog"))
            self.assertIn(b"+OK", self.visit("pop3"))

    def test_deaf(self):
        """A receiver that does not read does not delay anything."""
        receiver = self.receiver()
        self.start(self.ini(imap=f"error_log = syslog:server=unix:{self.path('syslog')} info"))
        for _ in range(40):
            self.assertIn(b"a OK", self.visit("imap"))
        self.assertTrue(self.heard(receiver, "imap"))


def _usersWithGroups() -> Iterator[str]:
    """Users other than root with a group of their name, as nginx requires."""
    groups = {group.gr_name for group in grp.getgrall()}
    return (entry.pw_name for entry in pwd.getpwall() if entry.pw_uid and entry.pw_name in groups)


class UserTests(OperationTestCase):
    """
    The user that a gateway becomes. The tests describe root; started by another user, it keeps that user and says so.
    """

    starting = FOREGROUND

    def setUp(self):
        super().setUp()
        self.isRoot = os.geteuid() == 0
        self.user = next(_usersWithGroups())
        self.ids = (pwd.getpwnam(self.user).pw_uid, grp.getgrnam(self.user).gr_gid)
        self.groups = set(os.getgrouplist(self.user, self.ids[1]))
        if not self.isRoot:
            self.ids, self.groups = (os.getuid(), os.getgid()), set(os.getgroups())

    def status(self, pid: int) -> dict[str, list[int]]:
        """User, group and groups of a process: real, effective, saved and for files."""
        with open(f"/proc/{pid}/status", encoding="ascii") as opened:
            fields = dict(line.split(":", 1) for line in opened.read().splitlines())
        names = ("Uid", "Gid", "Groups", "NoNewPrivs")
        return {name: [int(number) for number in fields[name].split()] for name in names}

    def assertBecame(self, pid: int) -> None:
        """The process permanently has the user's id, and only the user's groups."""
        status = self.status(pid)
        self.assertEqual((status["Uid"], status["Gid"]), ([self.ids[0]] * 4, [self.ids[1]] * 4))
        self.assertEqual(set(status["Groups"]), self.groups)
        if self.isRoot:
            self.assertEqual(status["NoNewPrivs"], [1], "and gains no rights by what it starts")

    def test_foreground(self):
        """
        In the foreground the process serves clients as the user, and writes to the log that root has opened. It exits
        cleanly, although the user may not remove the file of a unix socket.
        """
        ini = self.ini(f"user = {self.user}", imap=f"    unix:{self.path('imap')}")
        gateway = self.start(ini)
        # A client that only connects may be logged before that.
        self.assertIn(b"+OK", self.visit("pop3"))
        self.assertBecame(gateway.pid)
        gateway.stop()
        self.assertEqual(self.stories(self.read("gateway.log")), ["pop3"])
        warned = "is ignored: only root can become another user" in self.read("gateway.log")
        self.assertEqual(warned, not self.isRoot)

    def test_background(self):
        """So is it in the background."""
        with open(self.path("gateway.ini"), "w", encoding="utf-8") as opened:
            opened.write(self.ini(f"user = {self.user}"))
        command = [*TWISTD, "--pidfile", self.path("pid"), "mailgate", "--config", self.path("gateway.ini")]
        subprocess.run(command, env=environment(), cwd=self.folder, check=True, timeout=60)
        pid = int(self.read("pid"))
        ifKilled("kill", str(pid))
        self.addCleanup(waitUntil, lambda: not accepts(self.ports["imap"]), "the gateway ends")
        self.addCleanup(os.kill, pid, signal.SIGTERM)
        self.assertBecame(pid)
        self.assertIn(b"+OK", self.visit("pop3"))
        waitUntil(lambda: self.stories(self.read("gateway.log")) == ["pop3"], "the session is logged")

    def accounts(self, readable: bool) -> str:
        """The path of an account file that all users may read, or only the one that runs these tests."""
        with open(self.path("accounts"), "w", encoding="ascii") as opened:
            opened.write("joe:{PLAIN}sesame::::::host=127.0.0.1\n")
        os.chmod(self.folder, 0o755)
        os.chmod(self.path("accounts"), 0o644 if readable else 0o600)
        return self.path("accounts")

    def test_accounts(self):
        """Files that it cannot read again are reported at the start, and by C{mailgate check} before that."""
        for readable in (True, False):
            self.accounts(readable)
            ini = self.ini(f"user = {self.user}", pop3="auth_file = accounts")
            gateway = self.start(ini)
            self.visit("pop3")
            gateway.stop()
            check = subprocess.run(
                [*CHECK, self.path("gateway.ini")], env=environment(), capture_output=True, check=True, timeout=60
            )
            for told in (self.read("gateway.log"), check.stderr.decode()):
                expected = [self.path("accounts")] if self.isRoot and not readable else []
                self.assertEqual(
                    re.findall(r"auth_file = (.*): .* cannot read it: the gateway will not notice changes", told),
                    expected,
                )
            os.unlink(self.path("gateway.log"))


class OpenFilesTests(OperationTestCase):
    """C{worker_rlimit_nofile}."""

    starting = FOREGROUND

    def limits(self, pid: int) -> list[str]:
        """The soft and the hard limit of open files of a process."""
        with open(f"/proc/{pid}/limits", encoding="ascii") as opened:
            (line,) = [line for line in opened if line.startswith("Max open files")]
        return line.split()[3:5]

    def test_taken(self):
        """The limit is the soft and the hard one of the process."""
        gateway = self.start(self.ini("worker_rlimit_nofile = 333"))
        self.assertIn(b"+OK", self.visit("pop3"))
        self.assertEqual(self.limits(gateway.pid), ["333", "333"])

    def test_refused(self):
        """An impossible limit is reported, and clients are served nevertheless."""
        gateway = self.start(self.ini("worker_rlimit_nofile = 999999999999"))
        self.assertIn(b"+OK", self.visit("pop3"))
        self.assertNotIn("999999999999", self.limits(gateway.pid))
        problem = r"\[error\] .*\[mailgate\] worker_rlimit_nofile = 999999999999: cannot be set: "
        self.assertRegex(gateway.log(), problem)
