# -*- test-case-name: mailgate.test.integration.test_reload -*-
"""
Reload, drain and stop by signals of a gateway with sessions: no session is cut without need.
"""

from __future__ import annotations

import grp
import os
import pwd
import signal
import subprocess
import sys

from mailgate.system.exitstatus import CUT
from mailgate.test.integration.daemon import accepts, freePort, ifKilled, waitUntil
from mailgate.test.integration.gateway import FOREGROUND, TWISTD, environment
from mailgate.test.integration.procfs import descriptors
from mailgate.test.integration.reloading import ACCEPTED, GOODBYE, PASSWORD, QUIT, TLS, TWIST, USER, ReloadTestCase
from mailgate.test.support.nowhere import NOWHERE

_SCRIPT = "from mailgate.process import watching; watching.LOOK = 1.0; from twisted.scripts.twistd import run; run()"
WATCHFUL = [sys.executable, "-c", _SCRIPT, "-n", "--pidfile="]
"""A gateway that checks files every second, so that tests wait less."""


class ReloadTests(ReloadTestCase):
    """SIGHUP."""

    def test_nobodyIsDropped(self):
        """Sessions before and after the login survive reloads, and all new clients are served."""
        # The sessions before the login wait all the time.
        self.start(self.ini(mail="timeout = 10m"))
        before = [self.client(*which) for which in self.ports]
        after = [self.loggedIn(*which) for which in self.ports]
        idle = [self.loggedIn("imap", tls) for tls in TLS]
        for client in idle:
            client.send(b"s SELECT INBOX\r\n")
            self.assertIn(b"OK", client.reply(b"s "))
            client.send(b"i IDLE\r\n")
            self.assertTrue(client.line().startswith(b"+"))
        with self.steadyLogins() as done:
            for _ in range(6):
                sofar = len(done)
                self.reload()
                waitUntil(lambda sofar=sofar: len(done) > sofar + 5, "logins go on")
        for client in after:
            self.assertServes(client)
        for client in idle:
            client.send(b"DONE\r\n")
            self.assertIn(b"i OK", client.reply(b"i "))
        for client in before:
            self.assertIn(client.login(USER, PASSWORD).split()[0], ACCEPTED)
            self.assertServes(client)
        self.assertNoTraceback()

    def test_twiceAtOnce(self):
        """Two signals at once do no harm, and the configuration that was written before the second is active."""
        self.start()
        client = self.loggedIn("imap")
        for greeting in ("first", "second"):
            self.gateway.configure(self.ini(mail=f"imap_capabilities = IMAP4rev1 X{greeting}"))
            self.gateway.signal(signal.SIGHUP)
        self.told("reload 1 done: ")

        def isSecond() -> bool:
            newcomer = self.client("imap")
            newcomer.send(b"c CAPABILITY\r\n")
            return b"XSECOND" in newcomer.line().upper()

        waitUntil(isSecond, "the second counts")
        self.assertServes(client)
        self.assertNoTraceback()

    def test_badConfiguration(self):
        """The mistakes of a bad configuration are reported with their lines, and nothing changes."""
        self.start()
        client = self.client("pop3")
        self.gateway.configure(self.ini(process="usr = nobody", mail="timeout = 5x"))
        self.gateway.signal(signal.SIGHUP)
        self.told("reload refused: the current configuration stays active")
        log = self.gateway.log()
        self.assertIn("[error]", log)
        self.assertIn("[mailgate] usr: is an unknown option; did you mean user?", log)
        self.assertIn("[mail] timeout = 5x: must be a time", log)
        self.assertIn(client.login(USER, PASSWORD).split()[0], ACCEPTED)
        self.assertServes(self.loggedIn("imap", "implicit"))

    def test_portTaken(self):
        """So is an address in use: the other new address is not bound either."""
        self.start()
        free, taken = freePort(), self.sandbox["imap"]
        listen = f"[server more]\nprotocol = imap\nlisten =\n    127.0.0.1:{free}\n    127.0.0.1:{taken}\n"
        self.gateway.configure(self.ini(more=listen))
        self.gateway.signal(signal.SIGHUP)
        self.told("the current configuration stays active")
        self.assertIn(f"listen = 127.0.0.1:{taken}: cannot be bound: Address already in use", self.gateway.log())
        self.assertFalse(accepts(free))
        self.assertServes(self.loggedIn("smtp"))

    def test_listeners(self):
        """A new address is bound, a removed one is closed, and its sessions go on."""
        extra, later = freePort(), freePort()
        more = "[server more]\nprotocol = pop3\nlisten = 127.0.0.1:{}\n"
        self.start(self.ini(more=more.format(extra)))
        client = self.client("pop3", port=extra)
        self.gateway.configure(self.ini(more=more.format(later)))
        self.reload()
        waitUntil(lambda: not accepts(extra), "the old port is closed")
        self.assertTrue(accepts(later))
        self.assertIn(client.login(USER, PASSWORD).split()[0], ACCEPTED)
        self.assertServes(client)

    def test_unixSocket(self):
        """The file of a unix socket stays as long as the socket."""
        path = os.path.join(self.folder, "imap.sock")
        self.start(self.ini(more=f"[server more]\nprotocol = imap\nlisten = unix:{path}\n"))
        inode = os.stat(path).st_ino
        self.reload()
        self.reload()
        self.assertEqual(os.stat(path).st_ino, inode)
        self.gateway.configure(self.ini())
        self.reload()
        self.assertFalse(os.path.exists(path))
        self.assertNoTraceback()

    def test_patience(self):
        """After worker_shutdown_timeout the previous generation's sessions are ended, and no others."""
        self.start(self.ini(process="worker_shutdown_timeout = 1s"))
        waiting, proxied = self.client("imap"), self.loggedIn("imap", "implicit")
        self.reload()
        newcomer = self.loggedIn("imap")
        self.assertEqual(waiting.line(), GOODBYE["imap"])
        self.assertTrue(proxied.ended())
        self.told("worker_shutdown_timeout expired: 1 proxied sessions were cut")
        self.told("reached relay, outcome gateway stopped")
        self.assertServes(newcomer)

    def test_restartNeeded(self):
        """An option that a reload cannot change causes a warning and keeps its value; the others change."""
        self.start()
        self.gateway.configure(
            self.ini(process=f"pid = {self.folder}/x.pid").replace("[sandbox]", "[sandbox]\ndomain = x.org")
        )
        self.reload()
        self.told("pid changed; it takes effect after a restart")
        self.told("[sandbox] changed; it takes effect after a restart")
        self.assertFalse(os.path.exists(f"{self.folder}/x.pid"))
        self.assertServes(self.loggedIn("imap"))

    def test_forgotten(self):
        """Generations without sessions leave no descriptor open."""
        self.start()
        self.reload()

        def count() -> int:
            return len(self.gateway.descriptors())

        before = count()
        for _ in range(10):
            self.reload()
        waitUntil(lambda: count() <= before, "descriptors are closed")


class EndTests(ReloadTestCase):
    """SIGQUIT, SIGTERM and SIGINT."""

    def test_drain(self):
        """
        At SIGQUIT the gateway refuses new clients, clients before the login get a goodbye, and the sessions stay. When
        they have ended themselves, the exit status is 0.
        """
        self.start()
        before = [self.client(*which) for which in self.ports]
        after = [self.loggedIn(*which) for which in self.ports]
        self.gateway.signal(signal.SIGQUIT)
        for client in before:
            self.assertEqual(client.rest(), GOODBYE[client.address.protocol])
            client.close()
        # Another worker may learn of it a moment later than the one that has sent the goodbye.
        waitUntil(lambda: not any(map(accepts, self.ports.values())), "no process listens")
        for client in after:
            self.assertServes(client)
            client.send(QUIT[client.address.protocol])
            client.rest()
            client.close()
        self.assertEqual(self.gateway.status(), 0)
        self.assertIn("Server Shut Down.", self.gateway.log())
        self.assertNoTraceback()

    def test_drainCuts(self):
        """Sessions that remain after worker_shutdown_timeout are ended, and the exit status says so."""
        self.start(self.ini(process="worker_shutdown_timeout = 500ms"))
        client = self.loggedIn("imap", "implicit")
        self.gateway.signal(signal.SIGQUIT)
        self.assertTrue(client.ended())
        self.assertEqual(self.gateway.status(), CUT)
        self.assertIn("reached relay, outcome gateway stopped", self.gateway.log())
        self.assertNoTraceback()

    def test_drainOfAll(self):
        """A drain also waits for sessions of previous generations."""
        self.start()
        old = self.loggedIn("pop3")
        self.reload()
        self.gateway.signal(signal.SIGQUIT)
        self.told("draining")
        self.assertServes(old)
        self.gateway.signal(signal.SIGHUP)
        self.told("reload refused: the gateway is shutting down")
        old.close()
        self.assertEqual(self.gateway.status(), 0)

    def test_stop(self):
        """SIGTERM and SIGINT send a goodbye before the login, and end proxied sessions at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.start()
            before = [self.client(*which) for which in self.ports]
            after = [self.loggedIn(*which) for which in self.ports]
            self.gateway.signal(number)
            for client in before:
                self.assertEqual(client.rest(), GOODBYE[client.address.protocol])
            for client in after:
                self.assertTrue(client.ended())
            self.assertEqual(self.gateway.status(), CUT)
            self.assertIn("Server Shut Down.", self.gateway.log())
            self.assertNoTraceback()

    def test_stopOfNobody(self):
        """If no session is cut, the status is 0."""
        self.start()
        self.client("imap")
        self.gateway.signal(signal.SIGTERM)
        self.assertEqual(self.gateway.status(), 0)

    def test_stopWhileDraining(self):
        """SIGTERM ends a drain."""
        self.start()
        client = self.loggedIn("imap")
        self.gateway.signal(signal.SIGQUIT)
        self.told("draining")
        self.assertServes(client)
        self.gateway.signal(signal.SIGTERM)
        self.assertEqual(self.gateway.status(), CUT)

    def test_twist(self):
        """The same under C{twist}."""
        self.start(command=TWIST)
        client = self.loggedIn("imap")
        self.reload()
        self.assertServes(client)
        self.gateway.signal(signal.SIGQUIT)
        self.told("draining")
        self.assertServes(client)
        self.gateway.signal(signal.SIGTERM)
        self.assertEqual(self.gateway.status(), CUT)


class FileTests(ReloadTestCase):
    """Files: logs, certificates, pid file."""

    def writers(self) -> list[int]:
        """The processes that have the log open."""
        return [self.gateway.pid]

    def test_reopen(self):
        """After SIGUSR1 a renamed log is no longer written, and a new file has its name."""
        self.start()
        log, old = os.path.join(self.folder, "gateway.log"), os.path.join(self.folder, "gateway.log.1")
        os.rename(log, old)
        self.gateway.signal(signal.SIGUSR1)
        waitUntil(lambda: os.path.exists(log) and "log files reopened" in self.gateway.log(), "it is there")
        before = os.path.realpath(old)
        waitUntil(lambda: not any(before in descriptors(pid) for pid in self.writers()), "no process has the old file")
        client = self.client("imap")
        client.send(QUIT["imap"])
        client.rest()
        self.told("outcome client quit")
        with open(old, encoding="utf-8") as opened:
            self.assertNotIn("outcome client quit", opened.read())

    def test_stderr(self):
        """Standard error stays the log of the process and of servers across reloads."""
        stderr = "error_log = stderr info"
        self.start(self.ini(mail=stderr).replace("error_log = gateway.log info", stderr))
        for _ in range(2):
            self.reload()
            client = self.client("imap")
            client.send(QUIT["imap"])
            client.rest()
            self.told("outcome client quit", self.reloads)

    def test_renewed(self):
        """A renewed certificate is used without a signal; existing sessions go on."""
        self.start(command=WATCHFUL)
        old = self.loggedIn("imap", "implicit")
        serial = old.socket.getpeercert()["serialNumber"]
        self.authority.sign("server")
        waitUntil(lambda: "the new configuration is active" in self.gateway.log(), "it is seen", 60)
        self.assertIn(f"reloading because files changed: {self.pair.certificate}, {self.pair.key}", self.gateway.log())
        new = self.loggedIn("imap", "implicit")
        self.assertNotEqual(new.socket.getpeercert()["serialNumber"], serial)
        self.assertServes(old)

    def test_halfWritten(self):
        """An invalid one changes nothing."""
        self.start(command=WATCHFUL)
        with open(self.pair.certificate, "w") as opened:
            opened.write("-----BEGIN CERTIFICATE-----\n")
        waitUntil(lambda: "stays active" in self.gateway.log(), "it is seen", 60)
        self.assertIn(f"ssl_certificate = {self.pair.certificate}: cannot be loaded", self.gateway.log())
        self.assertServes(self.loggedIn("imap", "implicit"))

    def test_accounts(self):
        """A changed account file applies to the next login, of clients before and after a reload."""
        path = os.path.join(self.folder, "accounts")

        def write(password: str) -> None:
            with open(f"{path}.new", "w", encoding="ascii") as opened:
                opened.write(f"{USER}:{{PLAIN}}{password}::::::host=127.0.0.1 port={self.sandbox['imap']}\n")
            os.rename(f"{path}.new", path)

        write("another")
        port = freePort()
        self.start(self.ini(more=f"[server more]\nprotocol = imap\nauth_file = {path}\nlisten = 127.0.0.1:{port}\n"))
        old = self.client("imap", port=port)
        self.reload()
        new = self.client("imap", port=port)
        for client in (old, new):
            self.assertTrue(client.login(USER, PASSWORD).startswith(b"NO"))
        write(PASSWORD)
        for client in (old, new):
            # It checks the file at most once a second.
            waitUntil(lambda client=client: client.login(USER, PASSWORD).startswith(b"OK"), "it is read")
        self.assertEqual(self.gateway.log().count("the new configuration is active"), 1)

    def test_background(self):
        """In the background the file C{pid} has the process that handles signals, and is removed at its end."""
        pid = os.path.join(self.folder, "gateway.pid")
        ini = self.ini(process=f"pid = {pid}")
        with open(os.path.join(self.folder, "gateway.ini"), "w") as opened:
            opened.write(ini)
        command = [*TWISTD, "--pidfile=", "mailgate", "--config", os.path.join(self.folder, "gateway.ini")]
        subprocess.run(command, cwd=self.folder, env=environment(), check=True, timeout=30)
        waitUntil(lambda: os.path.exists(pid) and os.path.getsize(pid), "the file is there")
        with open(pid, encoding="ascii") as opened:
            number = int(opened.read())
        ifKilled("kill", str(number))
        log = os.path.join(self.folder, "gateway.log")

        def says(text: str) -> bool:
            with open(log, encoding="utf-8") as opened:
                return text in opened.read()

        client = self.loggedIn("imap")
        os.kill(number, signal.SIGHUP)
        waitUntil(lambda: says("the new configuration is active"), "it is reloaded")
        self.assertServes(client)
        os.kill(number, signal.SIGQUIT)
        client.close()
        waitUntil(lambda: not os.path.exists(pid), "the file goes")
        waitUntil(lambda: says("Server Shut Down."), "the process ends")
        self.assertFalse(says("Traceback"))

    def test_unwritable(self):
        """A pid file that cannot be written stops the start with one line."""
        configuration = os.path.join(self.folder, "gateway.ini")
        with open(configuration, "w") as opened:
            opened.write(text := self.ini(process=f"pid = {NOWHERE}/gateway.pid").replace("gateway.log", "stderr"))
        command = [*FOREGROUND, "mailgate", "--config", configuration]
        ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=30)
        reason = f"[mailgate] pid = {NOWHERE}/gateway.pid: cannot be written: No such file or directory"
        self.assertEqual(ended.returncode, os.EX_OSERR)
        line = text[: text.index("pid = ")].count("\n") + 1
        self.assertEqual(ended.stderr.splitlines()[-1], f"{configuration}:{line}: {reason}")
        self.assertNotIn("Traceback", ended.stderr)


class UserTests(ReloadTestCase):
    """A process that has become its C{user}."""

    def test_asUser(self):
        """
        A gateway whose user cannot read the key says at the start that it will refuse a reload, refuses it, and serves
        on. Logs that it cannot open again stay in use. (A user other than root keeps its id.)
        """
        isRoot = os.geteuid() == 0
        user = next(entry.pw_name for entry in pwd.getpwall() if entry.pw_uid)
        group = grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
        os.chmod(self.folder, 0o755)
        self.start(self.ini(process=f"user = {user} {group}"))
        client = self.loggedIn("imap")
        self.gateway.signal(signal.SIGHUP)
        if isRoot:
            self.told("reload refused: the current configuration stays active")
            log = self.gateway.log()
            self.assertIn(f"{user} cannot read {self.pair.key}: reloads will be refused", log)
            self.assertIn(f"ssl_certificate_key = {self.pair.key}: cannot be read: Permission denied", log)
        else:
            self.told("the new configuration is active")
        self.assertServes(client)
        self.assertServes(self.loggedIn("imap", "implicit"))
        path = os.path.join(self.folder, "gateway.log")
        os.rename(path, f"{path}.1")
        self.gateway.signal(signal.SIGUSR1)

        def isTold() -> bool:
            with open(f"{path}.1" if isRoot else path, encoding="utf-8") as opened:
                text = opened.read()
            return "; logging continues in the old file: Permission denied" in text or not isRoot

        waitUntil(lambda: isRoot or os.path.exists(path), "it is there")
        waitUntil(isTold, "it says so")
        self.assertServes(client)
        # Its end must be in the log.
        if isRoot:
            os.rename(f"{path}.1", path)
