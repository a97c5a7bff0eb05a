"""
A gateway with a pid file for upgrades, and the backend that it shares with its successors.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from functools import partial

from mailgate.test.integration.daemon import ifKilled, waitUntil
from mailgate.test.integration.gateway import GatewayProcess
from mailgate.test.integration.procfs import runs
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.reloading import QUIT, ReloadTestCase
from mailgate.test.integration.sandboxbackend import sandboxPorts

__all__ = ["WORKERS", "UpgradeTestCase"]

WORKERS = "worker_processes = 2\n"


class UpgradeTestCase(ReloadTestCase):
    """A gateway with a pid file, in front of the sandbox's servers, which are in another process."""

    processes = ""
    """More lines for C{[mailgate]}, such as several workers."""

    def setUp(self):
        super().setUp()
        self.sandbox = sandboxPorts()
        self.pidFile = os.path.join(self.folder, "gateway.pid")
        # Called after everything that a test has added.
        self.addCleanup(self.endAll)

    def ini(self, process: str = "", mail: str = "", more: str = "") -> str:
        whole = super().ini(f"pid = {self.pidFile}\n{self.processes}{process}", mail, more)
        return whole.partition("[sandbox]")[0]

    def start(self, ini: str = "", command=None) -> GatewayProcess:
        """It runs and can be found; it may end before the test does."""
        self.gateway = GatewayProcess(
            self.folder, ini or self.ini(), list(self.ports.values()), command or self.starting
        )
        self.addCleanup(self.gateway.forget)
        self.reloads = 0
        waitUntil(self.isUp, "the gateway can be asked")
        return self.gateway

    def isUp(self) -> bool:
        """Whether it serves: with several workers its ports are open before that."""
        return self.answers() and (not self.processes or "forked by zygote" in self.gateway.log())

    def answers(self) -> bool:
        """Whether it has written its pid file, and answers; a killed gateway leaves its files behind."""
        with socket.socket(socket.AF_UNIX) as client:
            return self.running() != 0 and client.connect_ex(f"{self.pidFile}.sock") == 0

    def isGone(self, pid: int) -> bool:
        return not runs(pid)

    def running(self) -> int:
        """The process in the pid file."""
        try:
            with open(self.pidFile, encoding="ascii") as opened:
                return int(opened.read() or 0)
        except FileNotFoundError:
            return 0

    def endAll(self) -> None:
        """Kill the processes in the pid files."""
        for path in (self.pidFile, f"{self.pidFile}.oldbin"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
                with open(path, encoding="ascii") as opened:
                    pid = int(opened.read())
                os.kill(pid, signal.SIGTERM)
                waitUntil(partial(self.isGone, pid), "the gateway ends")

    def upgraded(self) -> int:
        """Upgrade it; return the new process, when the old one has been told to stop."""
        before = self.running()
        os.kill(before, signal.SIGUSR2)
        self.hasChanged(before)
        return self.running()

    def hasChanged(self, before: int) -> None:
        """Wait until another process than C{before} has taken over."""

        def hasTakenOver() -> bool:
            pid = self.running()
            return pid not in (0, before) and f"process {pid} has taken over" in self.gateway.log()

        waitUntil(hasTakenOver, "another process takes over", 60)
        ifKilled("kill", str(self.running()))

    def leave(self, client: RawClient) -> None:
        client.send(QUIT[client.address.protocol])
        client.rest()
        client.close()
