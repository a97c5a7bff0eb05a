"""
A gateway with a pid file that tests upgrade, and the backend that it shares with its successors.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from functools import partial

from mailgate.test.integration.daemon import ifKilled, waitUntil
from mailgate.test.integration.gateway import FOREGROUND, GatewayProcess
from mailgate.test.integration.procfs import runs
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.reloading import QUIT, ReloadTestCase
from mailgate.test.integration.sandboxbackend import sandboxPorts

__all__ = ["WORKERS", "UpgradeTestCase"]

WORKERS = "worker_processes = 2\n"


class UpgradeTestCase(ReloadTestCase):
    """A gateway with a pid file, before the sandbox's servers, which are in another one."""

    processes = ""
    """More for C{[mailgate]}: several workers, say."""

    def setUp(self):
        super().setUp()
        self.sandbox = sandboxPorts()
        self.pidFile = os.path.join(self.folder, "gateway.pid")
        # Called after everything that a test has added.
        self.addCleanup(self.endAll)

    def ini(self, process: str = "", mail: str = "", more: str = "") -> str:
        whole = super().ini(f"pid = {self.pidFile}\n{self.processes}{process}", mail, more)
        return whole.partition("[sandbox]")[0]

    def start(self, ini: str = "", command=FOREGROUND) -> GatewayProcess:
        """It is up and can be found; it is one that may be gone when the test ends."""
        self.gateway = GatewayProcess(self.folder, ini or self.ini(), list(self.ports.values()), command)
        self.addCleanup(self.gateway.forget)
        self.reloads = 0
        waitUntil(self.isUp, "the gateway can be asked")
        return self.gateway

    def isUp(self) -> bool:
        """Whether it serves: with several workers its ports are open before that."""
        return self.answers() and (not self.processes or "forked by zygote" in self.gateway.log())

    def answers(self) -> bool:
        """Whether it has written its pid file, and can be asked; another that was killed leaves its files behind."""
        with socket.socket(socket.AF_UNIX) as client:
            return self.running() != 0 and client.connect_ex(f"{self.pidFile}.sock") == 0

    def isGone(self, pid: int) -> bool:
        return not runs(pid)

    def running(self) -> int:
        """The process that the pid file names."""
        try:
            with open(self.pidFile, encoding="ascii") as opened:
                return int(opened.read() or 0)
        except FileNotFoundError:
            return 0

    def endAll(self) -> None:
        """End what the pid files name."""
        for path in (self.pidFile, f"{self.pidFile}.oldbin"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
                with open(path, encoding="ascii") as opened:
                    pid = int(opened.read())
                os.kill(pid, signal.SIGTERM)
                waitUntil(partial(self.isGone, pid), "the gateway ends")

    def upgraded(self) -> int:
        """Have it upgraded; gives the new process, once the old one has been told."""
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
