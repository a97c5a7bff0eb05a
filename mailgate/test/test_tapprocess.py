"""
Tests of what the plugin does to the process: background, start, user.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import socket
import tempfile

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from mailgate.directives import ConfigurationError, Problem
from mailgate.process import rights, twistd
from mailgate.process.background import Launch
from mailgate.system.exitstatus import BAD_CONFIGURATION, CANNOT_LISTEN, CUT
from mailgate.system.pidfile import PIDFile
from mailgate.test.integration.daemon import freePort
from mailgate.test.support.nowhere import NOWHERE
from mailgate.test.support.tapcase import GOOD, TapCase
from mailgate.tls.settings import TLSSettings

SIGNALS = (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class FakeLaunch:
    """Records the results of starts."""

    def __init__(self):
        self.results = []

    def remark(self, text):
        """The logs of these tests lose no lines."""

    def succeed(self):
        self.results.append(0)

    def fail(self, reason, status):
        self.results.append((reason, status))


class BackgroundTests(TapCase):
    """A start in the background. L{mailgate.test.process.test_surroundings} tests a real one."""

    def setUp(self):
        super().setUp()
        self.launch = FakeLaunch()
        self.patch(Launch, "intoBackground", lambda reactor: self.launch)
        self.config = {"nodaemon": 0, "logfile": None, "syslog": 0, "prefix": "twisted", "logger": None, "umask": None}
        self.path = os.path.join(self.folder, "gateway.ini")

    def remarks(self, text=GOOD, **config):
        """Return standard error before the process goes into the background."""
        self.stderr.truncate(0)
        self.stderr.seek(0)
        self.make(text, {**self.config, **config})
        return self.stderr.getvalue().splitlines()

    async def test_serves(self):
        """The waiting process gets the success when the reactor runs and the gateway serves; twistd does not fork."""
        from twisted.internet import reactor

        service = self.make(config=self.config)
        self.assertTrue(self.config["nodaemon"])
        self.assertEqual(self.config["umask"], 0o077)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(service.stopService)
        self.assertEqual(self.launch.results, [])
        running = Deferred()
        reactor.callWhenRunning(running.callback, None)
        await running
        self.assertEqual(self.launch.results, [0])

    def test_foreground(self):
        """In the foreground no process waits, and the umask does not change."""
        self.config["nodaemon"] = 1
        self.patch(Launch, "intoBackground", lambda reactor: self.fail("it went into the background"))
        self.make(config=self.config)
        self.assertIsNone(self.config["umask"])

    def test_umask(self):
        """C{--umask} is used."""
        self.config["umask"] = 0o027
        self.make(config=self.config)
        self.assertEqual(self.config["umask"], 0o027)

    def test_noFork(self):
        """If the system refuses to fork, the process exits with 71."""

        def refuse(reactor):
            raise OSError(11, "Resource temporarily unavailable")

        self.patch(Launch, "intoBackground", refuse)
        lines = self.assertExits(CANNOT_LISTEN, lambda: self.make(config=self.config))
        self.assertEqual(lines, [f"{self.path}: cannot go into the background: Resource temporarily unavailable"])

    def test_taken(self):
        """The waiting process gets the whole error of a port in use, and the status; twistd's pid file is removed."""
        pid = os.path.join(self.folder, "twistd.pid")
        with open(pid, "w", encoding="ascii") as opened:
            opened.write(str(os.getpid()))
        service = self.make(config={**self.config, "pidfile": pid})
        self.addCleanup(service.stopService)
        with socket.create_server(("127.0.0.1", self.port)):
            (line,) = self.assertExits(CANNOT_LISTEN, service.privilegedStartService)
        self.assertEqual(self.launch.results, [(line, CANNOT_LISTEN)])
        self.assertFalse(os.path.exists(pid))

    async def test_stopped(self):
        """A gateway that is stopped before it serves has failed to start."""
        service = self.make(config=self.config)
        service.privilegedStartService()
        await service.stopService()
        self.assertEqual(self.launch.results, [("the gateway was stopped before it served", CANNOT_LISTEN)])

    def test_badConfiguration(self):
        """A bad configuration is reported before the process forks."""
        self.assertExits(BAD_CONFIGURATION, lambda: self.make(GOOD + "timeuot = 5\n", self.config))
        self.assertFalse(self.config["nodaemon"])

    def test_nowhere(self):
        """In the background each error_log that is standard error causes a warning, once."""
        self.assertEqual(self.remarks(), [])
        reason = "is /dev/null in the background: these log lines are lost; set error_log = FILE"
        silent = GOOD.replace("error_log = {log} info\n", "")
        second = "[server other]\nprotocol = imap\nlisten = 127.0.0.1:1\n"
        for text, places in (
            (silent, [":2: [mailgate]"]),
            (GOOD.replace("{log}", "stderr"), [":3: [mailgate]"]),
            (GOOD.replace("[mail]", "[mail]\nerror_log = stderr") + second, [":5: [mail]"]),
            (GOOD + "error_log = stderr\n", [":9: [server imap]"]),
            # The file gets all lines of standard error.
            (GOOD.replace("{log} info", "stderr\n    {log}"), []),
            # The file gets only a part of them.
            (GOOD.replace("{log} info", "stderr info\n    {log}"), [":3: [mailgate]"]),
        ):
            expected = [f"{self.path}{place} error_log = stderr: {reason}" for place in places]
            self.assertEqual(self.remarks(text), expected, text)

    def test_logger(self):
        """With C{--logger} there is no warning, because twistd logs to another observer as well."""
        silent = GOOD.replace("error_log = {log} info\n", "")
        self.assertEqual(self.remarks(silent, logger=print), [])

    def test_ignored(self):
        """twistd's log options, which have no effect, cause warnings in the foreground, too."""
        for foreground in (0, 1):
            self.assertEqual(
                self.remarks(nodaemon=foreground, logfile="x.log", syslog=1),
                [
                    f"{self.path}:3: [mailgate] error_log: replaces twistd's {option}, which has no effect"
                    for option in ("--logfile", "--syslog")
                ],
            )

    def test_inForeground(self):
        """In the foreground standard error is a normal log."""
        self.assertEqual(self.remarks(GOOD.replace("{log}", "stderr"), nodaemon=1), [])


class StartTests(TapCase):
    """Starting the service."""

    async def test_twist(self):
        """C{twist} does not call C{privilegedStartService}: the ports are bound anyway."""
        service = self.make()
        service.startService()
        self.addCleanup(service.stopService)
        with socket.create_connection(("127.0.0.1", self.port), 5) as client:
            self.assertEqual(client.getpeername()[1], self.port)

    def test_taken(self):
        """An address in use ends the process with 71 and one line on standard error, with and without that call."""
        self.assertEqual(CANNOT_LISTEN, os.EX_OSERR)
        service = self.make()
        self.addCleanup(service.stopService)
        with socket.create_server(("127.0.0.1", self.port)):
            for start in (service.privilegedStartService, service.startService):
                (line,) = self.assertExits(CANNOT_LISTEN, start)
                self.assertIn(f"[server imap] listen = 127.0.0.1:{self.port}: cannot be bound: Address already", line)
                self.stderr.truncate(0)
                self.stderr.seek(0)

    def test_sandboxTaken(self):
        """So does an address of the sandbox."""
        zero = "\n".join(f"{name} = 127.0.0.1:0" for name in ("imap", "pop3", "smtp", "sieve"))
        taken = freePort()
        service = self.make(GOOD + f"[sandbox]\n{zero}\nauth_http = 127.0.0.1:{taken}\n")
        self.addCleanup(service.stopService)
        with socket.create_server(("127.0.0.1", taken)):
            (line,) = self.assertExits(CANNOT_LISTEN, service.privilegedStartService)
        self.assertIn(f"[sandbox] auth_http = 127.0.0.1:{taken}: cannot be bound: Address already in use", line)

    async def test_sandboxCertificate(self):
        """Servers without a certificate get the sandbox's, at the start and at a reload."""
        state = os.path.join(self.folder, "state")
        self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": state})
        zero = "\n".join(f"{name} = 127.0.0.1:0" for name in ("imap", "pop3", "smtp", "sieve", "auth_http"))
        sandbox = f"[sandbox]\n{zero}\n"
        service = self.make(GOOD + sandbox)
        self.assertFalse(os.path.exists(state))
        _, generations = service
        service.startService()
        self.addCleanup(service.stopService)
        with open(os.path.join(self.folder, "gateway.ini"), "a", encoding="utf-8") as opened:
            opened.write(f"[server tls]\nprotocol = imap\nlisten = 127.0.0.1:{freePort()} ssl\n")
        self.assertEqual(await generations.reload(), ())
        (_, server) = generations.settings.servers
        self.assertEqual(server[TLSSettings].certificates, (os.path.join(state, "mailgate", "certificate.pem"),))
        self.assertTrue(os.path.exists(os.path.join(state, "mailgate", "key.pem")))

    async def test_pid(self):
        """The file of C{pid} names the process once its ports are bound, and is removed at the end."""
        path = os.path.join(self.folder, "gateway.pid")
        service = self.make(GOOD.replace("[mailgate]", f"[mailgate]\npid = {path}"))
        self.assertFalse(os.path.exists(path))
        service.privilegedStartService()
        with open(path, encoding="ascii") as opened:
            self.assertEqual(opened.read(), f"{os.getpid()}\n")
        service.startService()
        await service.stopService()
        self.assertFalse(os.path.exists(path))

    def test_unwritablePID(self):
        """A pid file that cannot be written ends the process with 71 and one line."""
        service = self.make(GOOD.replace("[mailgate]", f"[mailgate]\npid = {NOWHERE}/gateway.pid"))
        self.addCleanup(service.stopService)
        (line,) = self.assertExits(CANNOT_LISTEN, service.privilegedStartService)
        self.assertIn(f"[mailgate] pid = {NOWHERE}/gateway.pid: cannot be written: No such file", line)

    def test_pidOnFullDisk(self):
        """If the pid file can be created but not written, neither it nor the command socket is left."""
        # A short path: that of a socket has 107 bytes at most.
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "gateway.pid")
        service = self.make(GOOD.replace("[mailgate]", f"[mailgate]\npid = {path}"))
        self.addCleanup(service.stopService)

        def fail(file: PIDFile) -> None:
            reason = "cannot be written: No space left on device"
            raise ConfigurationError([Problem("gateway.ini", reason, "mailgate", "pid", file.path)])

        self.patch(PIDFile, "write", fail)
        (line,) = self.assertExits(CANNOT_LISTEN, service.privilegedStartService)
        self.assertIn("No space left on device", line)
        self.assertEqual(os.listdir(folder), [])

    async def test_signals(self):
        """The service handles the signals while it runs, not after that, also if the reactor begins to run later."""
        from twisted.internet import reactor

        before = [signal.getsignal(number) for number in SIGNALS]
        service = self.make()
        service.startService()
        self.assertEqual([number for number in SIGNALS if signal.getsignal(number) in before], [])
        await service.stopService()
        self.assertEqual([signal.getsignal(number) for number in SIGNALS], before)
        running = Deferred()
        reactor.callWhenRunning(running.callback, None)
        await running
        # The others have the reactor's handlers while it runs.
        self.assertEqual(signal.getsignal(signal.SIGHUP), before[SIGNALS.index(signal.SIGHUP)])

    async def test_statusOfNobody(self):
        """The exit status changes only if proxied sessions were cut."""
        statuses = []
        self.patch(twistd, "endWith", statuses.append)
        for cut in (0, 1):
            service = self.make()
            service.startService()
            (generations,) = service
            self.patch(generations.gateway._draining, "cut", cut)
            await service.stopService()
        self.assertEqual(statuses, [CUT])

    async def test_quiet(self):
        """A gateway without the demo prints nothing."""
        service = self.make()
        service.startService()
        await service.stopService()
        self.assertEqual((self.stdout.getvalue(), self.stderr.getvalue()), ("", ""))

    async def test_welcome(self):
        """The demo prints its hints once its ports are open and the reactor handles events and signals."""
        from twisted.internet import reactor

        sandbox = "\n".join(f"{name} = 127.0.0.1:0" for name in ("imap", "pop3", "smtp", "sieve", "auth_http"))
        service = self.make(GOOD + f"[sandbox]\n{sandbox}\n")
        service.privilegedStartService()
        self.assertEqual(self.stdout.getvalue(), "")
        service.startService()
        self.addCleanup(service.stopService)
        running = Deferred()
        reactor.callWhenRunning(running.callback, None)
        await running
        self.assertIn(f"127.0.0.1:{self.port}", self.stdout.getvalue())
        self.assertIn("alice", self.stdout.getvalue())
        self.assertEqual(self.tuned, [True])
        self.assertNotIn("--cacert", self.stdout.getvalue())


class UserTests(TapCase):
    """
    The user that the process becomes. L{mailgate.test.process.test_surroundings} tests the real change; here the
    process is made to believe that it is root.
    """

    def setUp(self):
        super().setUp()
        self.uid = 0
        self.patch(os, "geteuid", lambda: self.uid)
        self.name = pwd.getpwuid(os.getuid()).pw_name
        group = grp.getgrgid(os.getgid()).gr_name
        self.text = GOOD.replace("[mailgate]", f"[mailgate]\nuser = {self.name} {group}")

    def told(self, events):
        return [formatEvent(event) for event in events if event["log_namespace"] == "mailgate"]

    def starting(self, text=None):
        """
        Return the ports that are bound when the user changes, at a start with and without privileges, and the messages.
        """
        service = self.make(self.text if text is None else text)
        (generations,) = service
        gateway = generations.gateway
        bound = []
        self.patch(rights, "becomeUser", lambda user: bound.append((user.name, gateway.listeners[0].port is not None)))
        self.addCleanup(service.stopService)
        return service, bound

    def test_twistd(self):
        """The user changes after the ports are bound and not before the start without privileges."""
        service, bound = self.starting()
        service.privilegedStartService()
        self.assertEqual(bound, [])
        service.startService()
        self.assertEqual(bound, [(self.name, True)])

    def test_twist(self):
        """The same holds if C{privilegedStartService} is never called."""
        service, bound = self.starting()
        service.startService()
        self.assertEqual(bound, [(self.name, True)])

    def test_nobody(self):
        """Without C{user} root stays root."""
        service, bound = self.starting(GOOD)
        service.startService()
        self.assertEqual(bound, [])

    def test_notRoot(self):
        """A process that is not root keeps its user, with one warning."""
        self.uid = 1000
        with capturedLogs() as events:
            text = self.text.replace(" info", " warn").replace("[mail]", "[mail]\nstate_file = off")
            service, bound = self.starting(text)
            service.startService()
        self.assertEqual(bound, [])
        (warning,) = self.told(events)
        self.assertIn(f"[mailgate] user = {self.name}: is ignored: only root can become another user", warning)

    def test_uid(self):
        """twistd's C{--uid} takes precedence, with a warning."""
        with capturedLogs() as events:
            service, bound = self.starting()
            service.privilegedStartService()
            self.uid = 1000
            service.startService()
        self.assertEqual(bound, [])
        self.assertEqual(
            [text for text in self.told(events) if "user" in text],
            [f"user {self.name} has no effect: twistd switched to the user of --uid"],
        )

    def test_refused(self):
        """If the system refuses, the process exits with 71 and one line, and does not serve as root."""
        service, _ = self.starting()

        def refuse(user):
            raise PermissionError(1, "Operation not permitted")

        self.patch(rights, "becomeUser", refuse)
        (line,) = self.assertExits(CANNOT_LISTEN, service.startService)
        self.assertTrue(
            line.endswith(f"[mailgate] user = {self.name}: cannot switch to this user: Operation not permitted"), line
        )

    def test_accounts(self):
        """An auth_file that the user cannot read causes a warning; others do not."""
        accounts = os.path.join(self.folder, "accounts")
        with open(accounts, "w", encoding="ascii") as opened:
            opened.write("joe:{PLAIN}sesame::::::host=10.0.0.1\n")
        for readable, expected in (
            (True, []),
            (False, [f"auth_file = {accounts}: the user {self.name} cannot read it"]),
        ):
            self.patch(os, "access", lambda path, mode, readable=readable: readable)
            with capturedLogs() as events:
                text = self.text.replace("auth_http = http://127.0.0.1:9/auth", f"auth_file = {accounts}")
                service, _ = self.starting(text)
                service.startService()
            warnings = [text for text in self.told(events) if "auth_file" in text]
            self.assertEqual(len(warnings), len(expected))
            for warning, part in zip(warnings, expected, strict=True):
                self.assertIn(part, warning)
            self.successResultOf(service.stopService())

    def test_reload(self):
        """Files that a reload reads and the user cannot read cause a warning: the configuration, certificates, keys."""
        for readable in (True, False):
            self.patch(os, "access", lambda path, mode, readable=readable: readable)
            with capturedLogs() as events:
                service, _ = self.starting()
                service.startService()
            warnings = [text for text in self.told(events) if "reload" in text]
            path = os.path.join(self.folder, "gateway.ini")
            told = f"{self.name} cannot read {path}: reloads will be refused"
            self.assertEqual(warnings, [] if readable else [told])
            self.successResultOf(service.stopService())
