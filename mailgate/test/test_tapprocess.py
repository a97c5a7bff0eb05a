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
    """Hears the results of starts."""

    def __init__(self):
        self.results = []

    def remark(self, text):
        """No log of these tests loses a line."""

    def succeed(self):
        self.results.append(0)

    def fail(self, reason, status):
        self.results.append((reason, status))


class BackgroundTests(TapCase):
    """
    twistd on its way into the background; that it gets there is for L{mailgate.test.process.test_surroundings} to say.
    """

    def setUp(self):
        super().setUp()
        self.launch = FakeLaunch()
        self.patch(Launch, "intoBackground", lambda reactor: self.launch)
        self.config = {"nodaemon": 0, "logfile": None, "syslog": 0, "prefix": "twisted", "logger": None, "umask": None}
        self.path = os.path.join(self.folder, "gateway.ini")

    def remarks(self, text=GOOD, **config):
        """What is on standard error before it goes."""
        self.stderr.truncate(0)
        self.stderr.seek(0)
        self.make(text, {**self.config, **config})
        return self.stderr.getvalue().splitlines()

    async def test_serves(self):
        """The one who waits hears of success once the reactor runs and the gateway serves; twistd does not fork."""
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
        """In the foreground no process waits, and the umask stays."""
        self.config["nodaemon"] = 1
        self.patch(Launch, "intoBackground", lambda reactor: self.fail("it went into the background"))
        self.make(config=self.config)
        self.assertIsNone(self.config["umask"])

    def test_umask(self):
        """C{--umask} is obeyed."""
        self.config["umask"] = 0o027
        self.make(config=self.config)
        self.assertEqual(self.config["umask"], 0o027)

    def test_noFork(self):
        """Where the system does not fork, it ends with 71."""

        def refuse(reactor):
            raise OSError(11, "Resource temporarily unavailable")

        self.patch(Launch, "intoBackground", refuse)
        lines = self.assertExits(CANNOT_LISTEN, lambda: self.make(config=self.config))
        self.assertEqual(lines, [f"{self.path}: cannot go into the background: Resource temporarily unavailable"])

    def test_taken(self):
        """A port that is taken is heard of in full, with the status; twistd's pid file is gone."""
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
        """One that is stopped before it serves has not come up."""
        service = self.make(config=self.config)
        service.privilegedStartService()
        await service.stopService()
        self.assertEqual(self.launch.results, [("the gateway was stopped before it served", CANNOT_LISTEN)])

    def test_badConfiguration(self):
        """A bad configuration is reported before anything forks."""
        self.assertExits(BAD_CONFIGURATION, lambda: self.make(GOOD + "timeuot = 5\n", self.config))
        self.assertFalse(self.config["nodaemon"])

    def test_nowhere(self):
        """A log that is standard error is warned of, each option once, as nothing is seen of it in the background."""
        self.assertEqual(self.remarks(), [])
        reason = "is /dev/null in the background: these log lines are lost; set error_log = FILE"
        silent = GOOD.replace("error_log = {log} info\n", "")
        second = "[server other]\nprotocol = imap\nlisten = 127.0.0.1:1\n"
        for text, places in (
            (silent, [":2: [mailgate]"]),
            (GOOD.replace("{log}", "stderr"), [":3: [mailgate]"]),
            (GOOD.replace("[mail]", "[mail]\nerror_log = stderr") + second, [":5: [mail]"]),
            (GOOD + "error_log = stderr\n", [":9: [server imap]"]),
            # The file gets everything that standard error would.
            (GOOD.replace("{log} info", "stderr\n    {log}"), []),
            # Or not all of it.
            (GOOD.replace("{log} info", "stderr info\n    {log}"), [":3: [mailgate]"]),
        ):
            expected = [f"{self.path}{place} error_log = stderr: {reason}" for place in places]
            self.assertEqual(self.remarks(text), expected, text)

    def test_logger(self):
        """With C{--logger} twistd has another log, besides."""
        silent = GOOD.replace("error_log = {log} info\n", "")
        self.assertEqual(self.remarks(silent, logger=print), [])

    def test_ignored(self):
        """Options of twistd's own log, which there is none of, are named in the foreground, too."""
        for foreground in (0, 1):
            self.assertEqual(
                self.remarks(nodaemon=foreground, logfile="x.log", syslog=1),
                [
                    f"{self.path}:3: [mailgate] error_log: replaces twistd's {option}, which has no effect"
                    for option in ("--logfile", "--syslog")
                ],
            )

    def test_inForeground(self):
        """In the foreground standard error is as good a log as any."""
        self.assertEqual(self.remarks(GOOD.replace("{log}", "stderr"), nodaemon=1), [])


class StartTests(TapCase):
    """Starting what was made."""

    async def test_twist(self):
        """C{twist} never starts it with privileges: its ports are bound all the same."""
        service = self.make()
        service.startService()
        self.addCleanup(service.stopService)
        with socket.create_connection(("127.0.0.1", self.port), 5) as client:
            self.assertEqual(client.getpeername()[1], self.port)

    def test_taken(self):
        """An address that is taken ends the process with 71, and one line on standard error, either way."""
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
        """So does one of the sandbox's."""
        zero = "\n".join(f"{name} = 127.0.0.1:0" for name in ("imap", "pop3", "smtp"))
        taken = freePort()
        service = self.make(GOOD + f"[sandbox]\n{zero}\nauth_http = 127.0.0.1:{taken}\n")
        self.addCleanup(service.stopService)
        with socket.create_server(("127.0.0.1", taken)):
            (line,) = self.assertExits(CANNOT_LISTEN, service.privilegedStartService)
        self.assertIn(f"[sandbox] auth_http = 127.0.0.1:{taken}: cannot be bound: Address already in use", line)

    async def test_sandboxCertificate(self):
        """Servers that have no certificate get the sandbox's when it starts, and by a reload."""
        state = os.path.join(self.folder, "state")
        self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": state})
        zero = "\n".join(f"{name} = 127.0.0.1:0" for name in ("imap", "pop3", "smtp", "auth_http"))
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
        """The file C{pid} names the process as soon as its ports are bound, and is gone when it has stopped."""
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
        """One that cannot be written ends the process with 71, and one line."""
        service = self.make(GOOD.replace("[mailgate]", f"[mailgate]\npid = {NOWHERE}/gateway.pid"))
        self.addCleanup(service.stopService)
        (line,) = self.assertExits(CANNOT_LISTEN, service.privilegedStartService)
        self.assertIn(f"[mailgate] pid = {NOWHERE}/gateway.pid: cannot be written: No such file", line)

    def test_pidOnFullDisk(self):
        """Where it can be made and not be written, neither it nor the socket beside it is left behind."""
        # A short name: that of a socket has 107 bytes at most.
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
        """It takes the signals over while it runs, and not after that."""
        before = [signal.getsignal(number) for number in SIGNALS]
        service = self.make()
        service.startService()
        self.assertEqual([number for number in SIGNALS if signal.getsignal(number) in before], [])
        await service.stopService()
        self.assertEqual([signal.getsignal(number) for number in SIGNALS], before)

    async def test_statusOfNobody(self):
        """Where nobody was cut nothing is done about the exit status; where somebody was, it is told so."""
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
        """A gateway of one's own prints nothing."""
        service = self.make()
        service.startService()
        await service.stopService()
        self.assertEqual((self.stdout.getvalue(), self.stderr.getvalue()), ("", ""))

    async def test_welcome(self):
        """The demo prints what to try, once its ports are open and the reactor answers, and signals, too."""
        from twisted.internet import reactor

        sandbox = "\n".join(f"{name} = 127.0.0.1:0" for name in ("imap", "pop3", "smtp", "auth_http"))
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
    The user that the process becomes. That it really does is for L{mailgate.test.process.test_surroundings} to say;
    here it is told that it is root.
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
        """What is bound when it becomes the user, started with and without privileges, and what it says of that."""
        service = self.make(self.text if text is None else text)
        (generations,) = service
        gateway = generations.gateway
        bound = []
        self.patch(rights, "becomeUser", lambda user: bound.append((user.name, gateway.listeners[0].port is not None)))
        self.addCleanup(service.stopService)
        return service, bound

    def test_twistd(self):
        """It becomes the user when its ports are bound, and not before it is started without privileges."""
        service, bound = self.starting()
        service.privilegedStartService()
        self.assertEqual(bound, [])
        service.startService()
        self.assertEqual(bound, [(self.name, True)])

    def test_twist(self):
        """So it does where it is never started with privileges."""
        service, bound = self.starting()
        service.startService()
        self.assertEqual(bound, [(self.name, True)])

    def test_nobody(self):
        """Without the directive root stays root."""
        service, bound = self.starting(GOOD)
        service.startService()
        self.assertEqual(bound, [])

    def test_notRoot(self):
        """Who is not root stays who they are, and a warning says so, once."""
        self.uid = 1000
        with capturedLogs() as events:
            service, bound = self.starting(self.text.replace(" info", " warn"))
            service.startService()
        self.assertEqual(bound, [])
        (warning,) = self.told(events)
        self.assertIn(f"[mailgate] user = {self.name}: is ignored: only root can become another user", warning)

    def test_uid(self):
        """What was said to twistd counts, and a warning says so."""
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
        """Where the system does not let it, it ends with 71 and one line, and serves nobody as root."""
        service, _ = self.starting()

        def refuse(user):
            raise PermissionError(1, "Operation not permitted")

        self.patch(rights, "becomeUser", refuse)
        (line,) = self.assertExits(CANNOT_LISTEN, service.startService)
        self.assertTrue(
            line.endswith(f"[mailgate] user = {self.name}: cannot switch to this user: Operation not permitted"), line
        )

    def test_accounts(self):
        """An auth_file that this user will not be able to read is warned of, others are not."""
        accounts = os.path.join(self.folder, "accounts")
        with open(accounts, "w", encoding="ascii") as opened:
            opened.write("joe:{PLAIN}sesame::::::host=10.0.0.1\n")
        for readable, expected in ((True, []), (False, [f"auth_file = {accounts}: {self.name} cannot read it"])):
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
        """So is what keeps it from reloading: the configuration itself, certificates and keys."""
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
