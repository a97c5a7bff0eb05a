# -*- test-case-name: mailgate.test.integration.test_systemd -*-
"""
What systemd does to a service and receives from it, imitated by the tests; and the units in C{etc/}, checked by
systemd's own tool. systemd itself does not run here.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

from twisted.trial.unittest import SynchronousTestCase

import mailgate
from mailgate.test.integration.clients import PATIENCE
from mailgate.test.integration.daemon import accepts, freePort, newFolder, waitUntil
from mailgate.test.integration.gateway import FOREGROUND, TWISTD
from mailgate.test.integration.procfs import parent
from mailgate.test.integration.programs import programPath, require
from mailgate.test.integration.upgrading import WORKERS, UpgradeTestCase

ETC = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__))), "etc")
WORST = 2.0
"""The limit for the exposure of the service, from 0 to 10 by systemd's own measure."""

PASS = """
import os, socket, sys
places, *command = sys.argv[1:]
names, descriptors = [], []
for place in places.split(","):
    name, port = place.split("=")
    bound = socket.create_server(("127.0.0.1", int(port)))
    names.append(name)
    descriptors.append(os.dup(bound.detach()))
for number, descriptor in enumerate(descriptors, 3):
    os.dup2(descriptor, number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=":".join(names))
os.execv(command[0], command)
"""
"""Binds ports and starts a command like systemd: C{NAME=PORT,NAME=PORT COMMAND ARGUMENT...}."""


class NotifyTests(UpgradeTestCase):
    """What systemd receives."""

    starting = FOREGROUND

    def setUp(self):
        super().setUp()
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        place = os.path.join(self.folder, "notify")
        self.systemd.bind(place)
        self.said: queue.Queue[str] = queue.Queue()
        # Like systemd it listens all the time: there is room for few unread messages.
        listening = threading.Thread(target=self.listen)
        listening.start()
        self.addCleanup(listening.join)
        self.addCleanup(self.deafen)
        self.patch(os, "environ", {**os.environ, "NOTIFY_SOCKET": place, "WATCHDOG_USEC": "400000"})

    def listen(self) -> None:
        with self.systemd:
            for text in iter(lambda: self.systemd.recv(4096), b""):
                self.said.put(text.decode())

    def deafen(self) -> None:
        """Stop listening."""
        self.systemd.shutdown(socket.SHUT_RD)

    def hear(self, word: str) -> dict[str, str]:
        """The next value of C{word}."""
        while True:
            said = dict(line.split("=", 1) for line in self.said.get(timeout=PATIENCE).split("\n"))
            if word in said:
                return said

    def test_life(self):
        """The notifications of start, reload, refused reload, watchdog and stop."""
        self.start()
        self.assertEqual(self.hear("READY"), {"READY": "1", "MAINPID": str(self.running()), "STATUS": "serving"})
        # With workers too, only the master notifies, repeatedly.
        for _ in range(3):
            self.assertEqual(self.hear("WATCHDOG"), {"WATCHDOG": "1"})
        os.kill(self.running(), signal.SIGHUP)
        self.assertEqual(self.hear("RELOADING")["RELOADING"], "1")
        self.assertEqual(self.hear("READY")["STATUS"], "serving")
        self.gateway.configure("nonsense")
        os.kill(self.running(), signal.SIGHUP)
        self.hear("RELOADING")
        self.assertIn("refused", self.hear("READY")["STATUS"])
        os.kill(self.running(), signal.SIGQUIT)
        self.assertEqual(self.hear("STOPPING"), {"STOPPING": "1", "STATUS": "draining"})

    def test_upgrade(self):
        """
        The old process names the new main process, because systemd believes only the main one; then that one notifies.
        """
        self.start()
        first = self.running()
        client = self.loggedIn("imap")
        self.assertEqual(self.hear("MAINPID")["MAINPID"], str(first))
        second = self.upgraded()
        self.assertEqual(self.hear("MAINPID"), {"MAINPID": str(second)})
        # The old one still runs, and yet systemd must wait for the new one.
        self.assertServes(client)
        self.assertNotEqual(parent(second), first)
        self.assertEqual(self.hear("READY"), {"READY": "1", "MAINPID": str(second), "STATUS": "serving"})
        for _ in range(3):
            self.hear("WATCHDOG")

    def test_upgradeFails(self):
        """The exit status of the new process is known, and the old one is still the main process."""
        self.start(command=[*TWISTD, "-n", f"--pidfile={self.folder}/twistd.pid"])
        first = self.running()
        os.kill(first, signal.SIGUSR2)
        self.told("upgrade failed, the old process continues: the new process exited with status 1")
        os.kill(first, signal.SIGHUP)
        self.hear("RELOADING")
        self.assertEqual(self.hear("READY")["MAINPID"], str(first))

    def test_nobodyListens(self):
        """If systemd does not listen, everything works."""
        os.unlink(os.path.join(self.folder, "notify"))
        self.start()
        self.assertServes(self.loggedIn("imap"))
        self.assertNoTraceback()


class WorkersNotifyTests(NotifyTests):
    """The same with several workers."""

    processes = WORKERS


class ActivationTests(UpgradeTestCase):
    """Sockets that are bound before the process starts."""

    def passing(self, *names: str) -> list[str]:
        """A command that gives these names to the ports of IMAP without and with TLS, and to another one."""
        self.extra = freePort()
        ports = (self.ports["imap", "plain"], self.ports["imap", "implicit"], self.extra)
        places = ",".join(f"{name}={port}" for name, port in zip(names, ports, strict=False))
        return [sys.executable, "-c", PASS, places, *FOREGROUND]

    def passed(self, ini: str) -> str:
        """C{ini}, with systemd's sockets for those ports."""
        for tls, name in (("plain", "imap"), ("implicit", "imaps")):
            ini = ini.replace(f"127.0.0.1:{self.ports['imap', tls]}", f"systemd:{name}")
        return ini

    def test_served(self):
        """They are served, TLS from the first byte included, and stay through reload and upgrade."""
        self.start(self.passed(self.ini()), self.passing("imap", "imaps"))
        self.assertServes(self.loggedIn("imap"))
        self.assertServes(self.loggedIn("imap", "implicit"))
        with self.steadyLogins() as done:
            # Sockets that are not used for a while stay open, because they could not be bound again.
            self.gateway.configure(self.passed(self.ini()).replace("    systemd:imaps ssl\n", ""))
            os.kill(self.running(), signal.SIGHUP)
            self.told("the new configuration is active", 1)
            self.gateway.configure(self.passed(self.ini()))
            os.kill(self.running(), signal.SIGHUP)
            self.told("the new configuration is active", 2)
            self.upgraded()
            sofar = len(done)
            waitUntil(lambda: len(done) > sofar + 10, "logins go on")
        self.assertServes(self.loggedIn("imap", "implicit"))
        self.assertNoTraceback()

    def test_several(self):
        """All of several sockets of one name are served."""
        ini = self.passed(self.ini())
        self.start(ini, self.passing("imap", "imaps", "imap"))
        self.assertServes(self.loggedIn("imap"))
        self.assertServes(self.client("imap", port=self.extra))

    def test_missing(self):
        """A missing name stops the start with one line."""
        failure = self.assertRaises(
            AssertionError, self.start, self.passed(self.ini()), self.passing("imap", "other", "other")
        )
        reason = "systemd passed no socket with this name; it passed imap, other"
        self.assertIn(f"[server imap] listen = systemd:imaps: {reason}", str(failure))
        self.assertNotIn("Traceback", str(failure))

    def test_nobody(self):
        """So does a start without systemd."""
        failure = self.assertRaises(AssertionError, self.start, self.passed(self.ini()))
        self.assertIn("listen = systemd:imap: systemd passed no socket", str(failure))
        self.assertFalse(accepts(self.ports["pop3", "plain"]))


class WorkersActivationTests(ActivationTests):
    """The same with several workers."""

    processes = WORKERS


class UnitTests(SynchronousTestCase):
    """The units in C{etc/}."""

    def setUp(self):
        require("systemd-analyze")
        self.analyze = programPath("systemd-analyze")
        self.folder = newFolder("units")
        self.addCleanup(shutil.rmtree, self.folder)
        for name in ("mailgate.service", "mailgate.socket"):
            with open(os.path.join(ETC, name), encoding="utf-8") as opened:
                text = opened.read()
            # The tool checks that the program exists.
            with open(os.path.join(self.folder, name), "w", encoding="utf-8") as opened:
                opened.write(re.sub(r"/opt/mailgate/bin/\w+", sys.executable, text))

    def judge(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.analyze, *arguments], capture_output=True, text=True, timeout=60, cwd=self.folder)

    def test_verify(self):
        """systemd understands every line of them."""
        judged = self.judge("verify", "--man=no", *(f"{self.folder}/mailgate.{kind}" for kind in ("service", "socket")))
        self.assertEqual((judged.returncode, judged.stderr), (0, ""))

    def test_verifyFinds(self):
        """It reports lines that it does not understand."""
        with open(os.path.join(self.folder, "mailgate.service"), "a", encoding="utf-8") as opened:
            opened.write("[Service]\nProtectEverything=yes\n")
        judged = self.judge("verify", "--man=no", f"{self.folder}/mailgate.service")
        self.assertIn("ProtectEverything", judged.stderr)

    def test_security(self):
        """The service is confined well, by systemd's own measure."""
        threshold = f"--threshold={round(WORST * 10)}"
        judged = self.judge("security", "--no-pager", "--offline=true", threshold, f"{self.folder}/mailgate.service")
        self.assertEqual(judged.returncode, 0, judged.stdout)
        self.assertIn("Overall exposure level", judged.stdout)
