# -*- test-case-name: mailgate.test.integration.test_commands -*-
"""
C{mailgate reload}, C{drain}, C{stop} and C{upgrade} with a running gateway.
"""

from __future__ import annotations

import codecs
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading

from twisted.trial.unittest import SkipTest

from mailgate.cli.main import main
from mailgate.directives import ConfigurationError
from mailgate.process.commands import COMMANDS
from mailgate.process.commandsocket import CommandSocket
from mailgate.system.exitstatus import BAD_CONFIGURATION, CUT, NOT_PERMITTED, NOT_RUNNING, REFUSED
from mailgate.test.integration.clients import PATIENCE
from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.gateway import environment
from mailgate.test.integration.ownwords import ownWords
from mailgate.test.integration.procfs import runs
from mailgate.test.integration.upgrading import WORKERS, UpgradeTestCase

MAILGATE = [sys.executable, "-c", "import sys; from mailgate.cli.main import main; sys.exit(main())"]


class CommandsTestCase(UpgradeTestCase):
    """The command, and its output."""

    def command(self, name: str, *options: str) -> tuple[int, str, str]:
        """Run it; return its exit status, standard output and standard error."""
        return self.bare(name, "--config", os.path.join(self.folder, "gateway.ini"), *options)

    def bare(self, *arguments: str) -> tuple[int, str, str]:
        """The same without a configuration."""
        with ownWords() as (said, errors):
            try:
                status = main(arguments)
            except SystemExit as ended:
                assert isinstance(ended.code, int)
                status = ended.code
        return status, said.getvalue(), errors.getvalue()

    def apart(self, *arguments: str) -> tuple[int, str, str]:
        """The same in a process of its own, as operators run it."""
        arguments = (*MAILGATE, *arguments)
        ended = subprocess.run(arguments, env=environment(), capture_output=True, text=True, timeout=90)
        return ended.returncode, ended.stdout, ended.stderr


class CommandsTests(CommandsTestCase):
    """Each command."""

    def test_reload(self):
        """When the command returns, the new configuration is active."""
        self.start()
        self.gateway.configure(self.ini(mail="imap_capabilities = IMAP4rev1 LATER"))
        status, said, errors = self.command("reload")
        self.assertEqual((status, said, errors), (0, f"process {self.running()} reloaded its configuration\n", ""))
        client = self.client("imap")
        client.send(b"c CAPABILITY\r\n")
        self.assertIn(b"LATER", client.line())
        self.assertNoTraceback()

    def test_badConfiguration(self):
        """The command reports each mistake of a bad configuration, without contacting the gateway."""
        self.start()
        self.gateway.configure(self.ini(mail="timeout = soon\nserver_nam = x"))
        status, said, errors = self.command("reload")
        self.assertEqual((status, said), (BAD_CONFIGURATION, ""))
        self.assertIn("[mail] timeout = soon: must be a time", errors)
        self.assertIn("[mail] server_nam: is an unknown option", errors)
        self.assertNotIn("received command reload", self.gateway.log())

    def test_refused(self):
        """Mistakes that only the gateway can find, such as an address in use, are in its answer."""
        self.start()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            self.gateway.configure(self.ini(more=f"[server more]\nprotocol = imap\nlisten = {address}\n"))
            status, said, errors = self.command("reload")
        self.assertEqual((status, said), (REFUSED, ""))
        self.assertIn(f"listen = {address}: cannot be bound: Address already in use", errors)
        self.assertServes(self.loggedIn("imap"))

    def test_stop(self):
        """The command returns when the gateway has exited, and reports the number of cut sessions."""
        gateway = self.start()
        self.loggedIn("imap")
        self.loggedIn("pop3", "implicit")
        pid = self.running()
        status, said, errors = self.apart("stop", "--config", self.gateway.configuration)
        self.assertEqual(status, CUT)
        self.assertEqual((said, errors), (f"process {pid} exited; 2 proxied session(s) were cut\n", ""))
        self.assertEqual(gateway.status(), CUT)
        self.assertFalse(os.path.exists(self.pidFile) or os.path.exists(f"{self.pidFile}.sock"))

    def test_drain(self):
        """It waits for proxied sessions, but not longer than C{--timeout}."""
        gateway = self.start()
        client = self.loggedIn("imap")
        status, _, errors = self.command("drain", "--timeout", "1s")
        reason = "no answer in time; the gateway may still carry out the command\n"
        self.assertEqual((status, errors), (REFUSED, reason))

        def leave() -> None:
            self.told("received command drain", 2)
            self.leave(client)

        leaving = threading.Thread(target=leave)
        leaving.start()
        self.addCleanup(leaving.join)
        pid = self.running()
        status, said, _ = self.command("drain")
        self.assertEqual((status, said), (0, f"process {pid} exited; no proxied session was cut\n"))
        self.assertEqual(gateway.status(), 0)

    def test_upgrade(self):
        """It reports the new process, which answers later commands."""
        gateway = self.start()
        client = self.loggedIn("imap")
        before = self.running()
        status, said, _ = self.command("upgrade")
        after = self.running()
        told = f"process {after} has taken over from process {before}, which exits when its sessions have ended\n"
        self.assertEqual((status, said), (0, told))
        self.assertServes(client)
        waitUntil(lambda: self.command("reload")[1].startswith(f"process {after} "), "the new one answers")
        self.leave(client)
        self.assertEqual(gateway.status(), 0)
        # The old one has left what is the new one's.
        self.assertTrue(self.command("stop")[1].startswith(f"process {after} exited; "))
        waitUntil(lambda: not runs(after), "it is gone")

    def test_failedUpgrade(self):
        """A failed upgrade is reported with its reason."""
        self.start()
        self.gateway.configure(self.ini(mail="timeout = soon"))
        status, said, errors = self.command("upgrade")
        self.assertEqual((status, said), (REFUSED, ""))
        self.assertIn("upgrade failed, the old process continues: ", errors)
        self.assertIn("timeout = soon", errors)
        # A gateway with a bad configuration file can be stopped.
        self.assertEqual(self.command("stop")[0], 0)


class WorkersCommandsTests(CommandsTests):
    """The same with several workers."""

    processes = WORKERS


class TroubleTests(CommandsTestCase):
    """Failures."""

    def test_notRunning(self):
        """Without a running gateway, also after a kill, the command says so, and sends no signal."""
        gateway = self.start()
        gateway.signal(signal.SIGKILL)
        gateway.status()
        # This is certainly another process.
        with open(self.pidFile, "w", encoding="ascii") as opened:
            opened.write(f"{os.getpid()}\n")
        for name in ("reload", "drain", "stop", "upgrade"):
            told = f"no gateway is running: cannot connect to {self.pidFile}.sock\n"
            self.assertEqual(self.command(name), (NOT_RUNNING, "", told))
        os.unlink(self.pidFile)
        os.unlink(f"{self.pidFile}.sock")
        self.assertEqual(self.command("stop")[0], NOT_RUNNING)

    def test_leftBehind(self):
        """Files of a killed gateway do not stop the next start."""
        gateway = self.start()
        gateway.signal(signal.SIGKILL)
        gateway.status()
        self.start()
        self.assertEqual(self.command("stop")[0], 0)

    def test_twice(self):
        """A second gateway with the same pid file does not start, and the first one keeps the file."""
        self.start()
        pid = self.running()
        arguments = [*MAILGATE[:1], "-m", "twisted", "mailgate", "--config", os.path.join(self.folder, "gateway.ini")]
        self.gateway.configure(super().ini().replace("127.0.0.1", "127.0.0.2"))
        ended = subprocess.run(arguments, env=environment(), capture_output=True, text=True, timeout=60)
        self.assertNotEqual(ended.returncode, 0)
        self.assertIn("another mailgate with this pid file is running", ended.stdout + ended.stderr)
        self.assertEqual(self.running(), pid)

    def test_noPID(self):
        """Without C{pid} the command cannot find the gateway, unless C{--pid} is given."""
        self.start()
        self.gateway.configure(self.ini().replace(f"pid = {self.pidFile}\n", ""))
        status, _, errors = self.command("stop")
        self.assertEqual(status, BAD_CONFIGURATION)
        self.assertIn("[mailgate] pid: must be set so that the running gateway can be found; or use --pid", errors)
        self.assertEqual(self.command("stop", "--pid", self.pidFile)[0], 0)

    def test_pidAlone(self):
        """
        With C{--pid} only, the command contacts the gateway at once, whose answer has the mistakes of the
        configuration.
        """
        self.start()
        self.assertEqual(self.bare("reload", "--pid", self.pidFile)[0], 0)
        self.gateway.configure(self.ini(mail="timeout = soon"))
        status, said, errors = self.bare("reload", "--pid", self.pidFile)
        self.assertEqual((status, said), (REFUSED, ""))
        self.assertIn("[mail] timeout = soon: must be a time", errors)
        self.assertEqual(self.bare("stop", "--pid", self.pidFile)[0], 0)

    def test_neither(self):
        """Without both, it says which option it needs."""
        status, said, errors = self.apart("reload")
        self.assertEqual((status, said), (2, ""))
        self.assertTrue(errors.endswith("mailgate reload: error: --config FILE or --pid FILE is required\n"), errors)

    def test_permissions(self):
        """Only the owner can use the socket."""
        self.start()
        mode = os.stat(f"{self.pidFile}.sock").st_mode
        self.assertTrue(stat.S_ISSOCK(mode))
        self.assertEqual(stat.S_IMODE(mode), 0o600)

    def test_noSocket(self):
        """A file in place of the socket that is not a socket stays."""
        path = f"{self.pidFile}.sock"
        with open(path, "w", encoding="ascii") as opened:
            opened.write("precious")
        error = self.assertRaises(ConfigurationError, CommandSocket(self.pidFile, "gateway.ini").open)
        self.assertIn(f"cannot bind the command socket {path}: Address already in use", str(error))
        with open(path, encoding="ascii") as opened:
            self.assertEqual(opened.read(), "precious")

    def test_nonsense(self):
        """A peer that sends something else gets an explanation, and the gateway continues."""
        self.start()
        known = f"use one of {', '.join(sorted(COMMANDS))}"
        for nonsense, reason in (
            (b"destroy\n", f'unknown command "destroy"; {known}'),
            (b'{"do": "stop", "now": 1}\n', 'stop takes no argument "now"'),
            (b"x" * 5000 + b"\n", "the command is longer than 4096 bytes"),
            (b"\xff\n", f'unknown command "\\\\xff"; {known}'),
            (b"\n", 'the command must be a JSON object, such as {"do": "reload"}'),
        ):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PATIENCE)
                client.connect(f"{self.pidFile}.sock")
                client.sendall(nonsense)
                with client.makefile("rb") as answers:
                    greeting, answer = map(json.loads, answers)
                self.assertEqual(greeting["pid"], self.running())
                self.assertEqual((answer["done"], answer["reasons"]), (False, [reason]))
        self.assertEqual(self.command("reload")[0], 0)
        self.assertNoTraceback()

    def test_notPermitted(self):
        """Another user is refused."""
        if os.geteuid() != 0:
            raise SkipTest("only root can become another user")
        self.start()
        os.chmod(self.folder, 0o755)
        # This user may not even read the files of the interpreter.
        codecs.lookup("utf-8-sig")
        os.seteuid(65534)
        try:
            with ownWords() as (_, errors):
                status = main(["stop", "--config", os.path.join(self.folder, "gateway.ini")])
        finally:
            os.seteuid(0)
        reason = "cannot connect: Permission denied; run the command as root or as the user that started it"
        self.assertEqual((status, errors.getvalue()), (NOT_PERMITTED, f"{self.pidFile}.sock: {reason}\n"))
