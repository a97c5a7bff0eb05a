# -*- test-case-name: mailgate.test.integration.test_upgrade -*-
"""
Upgrades of a gateway that serves: another process takes over its sockets, and no session is cut.
"""

from __future__ import annotations

import grp
import os
import shutil
import signal
import socket
import subprocess
import sys

from twisted.trial.unittest import SkipTest

import mailgate
from mailgate.test.integration.clients import PATIENCE
from mailgate.test.integration.daemon import accepts, freePort, ifKilled, waitUntil
from mailgate.test.integration.gateway import FOREGROUND, TWISTD, environment
from mailgate.test.integration.procfs import runs
from mailgate.test.integration.reloading import ACCEPTED, PASSWORD, TWIST, USER
from mailgate.test.integration.transports import withTransports
from mailgate.test.integration.upgrading import WORKERS, UpgradeTestCase


class UpgradeTests(UpgradeTestCase):
    """SIGUSR2."""

    starting = FOREGROUND

    def test_nobodyIsDropped(self):
        """Sessions go on in the old process until they end, the new process serves new clients, and all are served."""
        gateway = self.start()
        first = self.running()
        self.assertEqual(first, gateway.pid)
        before = [self.client(*which) for which in self.ports]
        after = [self.loggedIn(*which) for which in self.ports]
        with self.steadyLogins() as done:
            waitUntil(lambda: len(done) > 5, "logins go on")
            second = self.upgraded()
            sofar = len(done)
            waitUntil(lambda: len(done) > sofar + 20, "logins go on")
        self.assertTrue(runs(first) and runs(second))
        with open(f"{self.pidFile}.oldbin", encoding="ascii") as opened:
            self.assertEqual(int(opened.read()), first)
        for client in before:
            self.assertIn(client.login(USER, PASSWORD).split()[0], ACCEPTED)
        for client in (*before, *after):
            self.assertServes(client)
        for client in (*before, *after):
            self.leave(client)
        self.assertEqual(gateway.status(), 0)
        self.assertFalse(os.path.exists(f"{self.pidFile}.oldbin"))
        self.assertEqual(self.running(), second)
        self.assertServes(self.loggedIn("imap"))
        self.assertNoTraceback()

    def test_again(self):
        """The new process can be upgraded too."""
        gateway = self.start()
        pids = {self.running(), self.upgraded()}
        self.assertEqual(gateway.status(), 0)
        pids.add(self.upgraded())
        self.assertEqual(len(pids), 3)
        self.assertServes(self.loggedIn("imap", "implicit"))
        self.assertNoTraceback()

    def test_badConfiguration(self):
        """A successor with a bad configuration changes nothing, and the log says in one line what is wrong."""
        self.start()
        pid = self.running()
        client = self.loggedIn("imap", "implicit")
        self.gateway.configure(self.ini(mail="timeout = soon\nserver_nam = x"))
        with self.steadyLogins():
            os.kill(pid, signal.SIGUSR2)
            self.told("upgrade failed, the old process continues: ")
        (line,) = [line for line in self.gateway.log().splitlines() if "upgrade failed" in line]
        self.assertIn("[mail] server_nam: is an unknown option", line)
        self.assertIn("[mail] timeout = soon: ", line)
        self.assertEqual(self.running(), pid)
        self.assertFalse(os.path.exists(f"{self.pidFile}.oldbin"))
        self.assertServes(client)
        # The upgrade can be tried again.
        self.gateway.configure(self.ini())
        self.upgraded()
        self.assertServes(client)
        self.assertNoTraceback()

    def test_notInstalled(self):
        """One that cannot be run changes nothing."""
        self.start(command=[*TWISTD, "-n", "--pidfile=", "--reactor", "epoll"])
        pid = self.running()
        os.rename(self.gateway.configuration, f"{self.gateway.configuration}.away")
        os.kill(pid, signal.SIGUSR2)
        self.told("upgrade failed, the old process continues: ")
        self.assertIn("gateway.ini: cannot be read: No such file", self.gateway.log())
        self.assertServes(self.loggedIn("pop3"))

    def test_twoAtOnce(self):
        """The second of two signals is refused: one process takes over."""
        self.start()
        pid = self.running()
        # Two equal signals may be merged, so the first must have arrived.
        os.kill(pid, signal.SIGUSR2)
        self.told("received SIGUSR2")
        os.kill(pid, signal.SIGUSR2)
        self.told("upgrade refused: another upgrade is in progress")
        self.hasChanged(pid)
        self.assertEqual(self.gateway.status(), 0)
        self.assertEqual(self.gateway.log().count("has taken over"), 1)
        self.assertServes(self.loggedIn("smtp"))

    def test_reloadMeanwhile(self):
        """A reload in the meantime is not lost: its configuration is active in the end."""
        self.start()
        pid = self.running()
        os.kill(pid, signal.SIGUSR2)
        self.told("received SIGUSR2")
        self.gateway.configure(self.ini(mail="imap_capabilities = IMAP4rev1 LATER"))
        os.kill(pid, signal.SIGHUP)
        self.hasChanged(pid)
        self.told("the new configuration is active")
        client = self.client("imap")
        client.send(b"c CAPABILITY\r\n")
        self.assertIn(b"LATER", client.line())
        self.assertNotEqual(self.running(), pid)

    def test_reloadBeforeFailure(self):
        """Nor is it lost if the upgrade fails."""
        self.start()
        pid = self.running()
        self.gateway.configure(self.ini(mail="timeout = soon"))
        os.kill(pid, signal.SIGUSR2)
        self.told("received SIGUSR2")
        os.kill(pid, signal.SIGHUP)
        self.told("the current configuration stays active")
        self.told("upgrade failed, the old process continues")
        self.assertEqual(self.running(), pid)
        self.assertServes(self.loggedIn("imap"))

    def test_stopMeanwhile(self):
        """A stop in the meantime stops both."""
        gateway = self.start()
        os.kill(self.running(), signal.SIGUSR2)
        self.told("received SIGUSR2")
        os.kill(gateway.pid, signal.SIGTERM)
        self.assertEqual(gateway.status(), 0)
        waitUntil(lambda: not any(map(accepts, self.ports.values())), "no process listens any more")
        waitUntil(lambda: self.running() == 0 or not runs(self.running()), "all processes have exited")
        self.assertNoTraceback()

    def test_killed(self):
        """An old process that is killed after the upgrade leaves everything to the new one."""
        gateway = self.start()
        kept = self.loggedIn("imap")
        second = self.upgraded()
        os.kill(gateway.pid, signal.SIGKILL)
        self.assertEqual(gateway.status(), -signal.SIGKILL)
        self.assertTrue(kept.ended())
        self.assertTrue(runs(second))
        self.assertServes(self.loggedIn("imap"))

    def test_addresses(self):
        """The new process binds additional addresses, and closes removed ones, with their files."""
        kept, gone = (os.path.join(self.folder, name) for name in ("kept.sock", "gone.sock"))
        more = "[server more]\nprotocol = imap\nlisten =\n    unix:{}\n    127.0.0.1:{}\n"
        gonePort, newPort = freePort(), freePort()
        self.start(self.ini(more=more.format(kept, gonePort) + f"    unix:{gone}\n"))
        before = os.stat(kept).st_ino
        self.gateway.configure(self.ini(more=more.format(kept, newPort)))
        with self.steadyLogins():
            self.upgraded()
        self.assertEqual(self.gateway.status(), 0)
        self.assertEqual(os.stat(kept).st_ino, before)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(kept)
            self.assertTrue(client.recv(1000).startswith(b"* OK"))
        self.assertTrue(accepts(newPort))
        waitUntil(lambda: not os.path.exists(gone) and not accepts(gonePort), "what is gone is closed")

    def test_taken(self):
        """An additional address that cannot be bound ends the upgrade; files of unix sockets stay."""
        kept = os.path.join(self.folder, "kept.sock")
        more = f"[server more]\nprotocol = imap\nlisten =\n    unix:{kept}\n"
        self.start(self.ini(more=more))
        pid = self.running()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.gateway.configure(self.ini(more=f"{more}    127.0.0.1:{taken.getsockname()[1]}\n"))
            os.kill(pid, signal.SIGUSR2)
            self.told("upgrade failed, the old process continues")
        self.assertIn("cannot be bound: Address already in use", self.gateway.log())
        self.assertTrue(os.path.exists(kept))
        self.assertServes(self.loggedIn("imap"))
        self.assertEqual(self.running(), pid)

    def test_twist(self):
        """The same under C{twist}."""
        self.start(command=TWIST)
        client = self.loggedIn("imap")
        self.upgraded()
        self.assertServes(client)
        self.assertServes(self.loggedIn("imap"))

    def test_background(self):
        """The same in the background, from any folder; twistd's own pid file would prevent it."""
        with open(os.path.join(self.folder, "gateway.ini"), "w", encoding="utf-8") as opened:
            opened.write(withTransports(self.ini()))
        command = [*TWISTD, "--pidfile=", "--rundir", "/", "mailgate", "--config", "gateway.ini"]
        subprocess.run(command, cwd=self.folder, env=environment(), check=True, timeout=60, stdin=subprocess.DEVNULL)
        self.gateway = BackgroundGateway(self.folder)
        waitUntil(self.isUp, "the gateway is up")
        client = self.loggedIn("imap")
        pid = self.running()
        ifKilled("kill", str(pid))
        waitUntil(lambda: os.path.exists(f"{self.pidFile}.sock"), "the gateway can be asked")
        self.upgraded()
        for each in (client, self.loggedIn("imap")):
            self.assertServes(each)
            # A previous worker may not have learnt yet that it no longer accepts clients.
            self.leave(each)
        waitUntil(lambda: not runs(pid), "the old one ends")
        self.assertNoTraceback()

    def test_user(self):
        """A process that has become its user, and may not rename its pid file, goes on, and logs why."""
        if os.geteuid() != 0:
            raise SkipTest("only root can become another user")
        os.chmod(self.folder, 0o755)
        self.start(self.ini(process=f"user = nobody {grp.getgrgid(65534).gr_name}"))
        pid = self.running()
        os.kill(pid, signal.SIGUSR2)
        self.told(f"upgrade refused: cannot rename {self.pidFile}: Permission denied")
        self.assertServes(self.loggedIn("imap"))


class SurroundingsTests(UpgradeTestCase):
    """
    The command that started it, and its pid file. They are L{mailgate.process.surroundings}' and twistd's, which do not
    know whether there are workers.
    """

    def test_module(self):
        """The same under C{python -m twisted}."""
        self.start(command=[sys.executable, "-m", "twisted"])
        client = self.loggedIn("imap")
        self.upgraded()
        self.assertServes(client)
        self.assertServes(self.loggedIn("imap"))

    def test_ownPIDFile(self):
        """twistd's own pid file stops the new process, and nothing changes."""
        self.start(command=[*TWISTD, "-n", f"--pidfile={self.folder}/twistd.pid"])
        pid = self.running()
        os.kill(pid, signal.SIGUSR2)
        self.told("upgrade failed, the old process continues: the new process exited with status 1")
        self.assertEqual(self.running(), pid)
        self.assertServes(self.loggedIn("imap"))

    def test_leftover(self):
        """An obstacle to the pid file refuses the upgrade, in one line."""
        self.start()
        os.mkdir(f"{self.pidFile}.oldbin")
        os.kill(self.running(), signal.SIGUSR2)
        self.told(f"upgrade refused: cannot rename {self.pidFile}: Is a directory")
        os.rmdir(f"{self.pidFile}.oldbin")
        self.assertServes(self.loggedIn("imap"))

    def test_removed(self):
        """If the pid file was removed, the new process writes it again."""
        gateway = self.start()
        kept = self.loggedIn("imap")
        os.unlink(self.pidFile)
        os.kill(gateway.pid, signal.SIGUSR2)
        self.hasChanged(gateway.pid)
        self.assertServes(kept)
        self.assertServes(self.loggedIn("imap"))


class WorkersUpgradeTests(UpgradeTests):
    """The same with several workers."""

    processes = WORKERS

    def test_killed(self):
        """A master that is killed after the upgrade does not end other processes."""
        gateway = self.start()
        kept = self.loggedIn("imap")
        second = self.upgraded()
        os.kill(gateway.pid, signal.SIGKILL)
        self.assertEqual(gateway.status(), -signal.SIGKILL)
        self.assertServes(kept)
        self.assertTrue(runs(second))
        self.assertServes(self.loggedIn("imap"))

    def test_user(self):
        """If workers have another user, the master is still root, and can be upgraded."""
        if os.geteuid() != 0:
            raise SkipTest("only root can become another user")
        os.chmod(self.folder, 0o755)
        self.start(self.ini(process=f"user = nobody {grp.getgrgid(65534).gr_name}"))
        client = self.loggedIn("imap")
        self.upgraded()
        self.assertServes(client)
        self.assertServes(self.loggedIn("imap", "implicit"))


class BackgroundGateway:
    """In the background only the log remains to read."""

    def __init__(self, folder: str) -> None:
        self._log = os.path.join(folder, "gateway.log")

    def log(self) -> str:
        with open(self._log, encoding="utf-8", errors="backslashreplace") as opened:
            return opened.read()


class InstalledTests(UpgradeTestCase):
    """Another release is installed while several workers serve."""

    processes = WORKERS

    def setUp(self):
        super().setUp()
        self.installed = os.path.join(self.folder, "installed")
        package, left = (
            os.path.dirname(os.path.abspath(mailgate.__file__)),
            shutil.ignore_patterns("test", "__pycache__"),
        )
        shutil.copytree(package, os.path.join(self.installed, "mailgate"), ignore=left)
        plugins = os.path.join(os.path.dirname(package), "twisted")
        shutil.copytree(plugins, os.path.join(self.installed, "twisted"), ignore=left)

    def test_reload(self):
        """Until the upgrade a reload is refused, the log says what to do, and sessions go on."""
        self.start(command=["env", f"PYTHONPATH={self.installed}", *FOREGROUND])
        with open(os.path.join(self.installed, "mailgate", "_version.py"), "w", encoding="ascii") as opened:
            opened.write('__version__ = "98.7"\n')
        client = self.loggedIn("imap")
        self.gateway.signal(signal.SIGHUP)
        self.told(
            f"the running mailgate is version {mailgate.__version__}, the installed one is version 98.7: run mailgate"
            " upgrade or restart the gateway"
        )
        self.told("reload refused: the current configuration stays active")
        self.assertServes(client)
        self.leave(self.loggedIn("imap"))
        self.upgraded()
        self.leave(self.loggedIn("imap"))
        self.leave(client)
