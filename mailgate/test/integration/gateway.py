# -*- test-case-name: mailgate.test.integration -*-
"""
The gateway as an operator runs it: a twistd process with an ini file.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

import mailgate
from mailgate.system.exitstatus import CUT
from mailgate.test.integration.daemon import Daemon
from mailgate.test.integration.forkserver import forked, isSwitchedOn
from mailgate.test.integration.procfs import descriptors
from mailgate.test.integration.transports import withTransports

__all__ = ["FOREGROUND", "TWISTD", "WITH_KEEPER", "GatewayProcess", "environment", "withoutKeeper"]

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
"""The twistd of the interpreter that runs the tests; another one may have that name, or none."""

FOREGROUND = [*TWISTD, "-n", "--pidfile="]


def environment() -> dict[str, str]:
    """An environment in which twistd finds the plugin under test, installed or not."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__)))
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


WITH_KEEPER = "# The keeper of the default configuration.\n"
"""A line of C{[mailgate]} for tests with workers that need the keeper."""


def withoutKeeper(ini: str) -> str:
    """
    The configuration C{ini} without a keeper, if it has workers and nothing about a keeper. As a process of its own the
    keeper takes a second of a processor to start, and most tests do not ask it.
    """
    if "worker_processes" not in ini or WITH_KEEPER in ini or re.search(r"^(admin|metrics)\b", ini, re.MULTILINE):
        return ini
    return re.sub(r"^(worker_processes.*\n)", r"\1admin = off\n", ini, count=1, flags=re.MULTILINE)


class GatewayProcess:
    """
    C{twistd mailgate} with the configuration C{ini}, in C{folder}, listening on C{ports} of 127.0.0.1, with the
    transports of these tests. C{command} runs the plugin, such as L{FOREGROUND}: a new interpreter. Without it, a fork
    of an interpreter that has imported the plugin does, which takes less of the processor.

    Its C{error_log} should be the file C{gateway.log}.
    """

    def __init__(self, folder: str, ini: str, ports: Sequence[int], command: Sequence[str] | None = None) -> None:
        self.folder = folder
        self._stopped = False
        self.configuration = os.path.join(folder, "gateway.ini")
        self.configure(ini)
        begin = forked if command is None and isSwitchedOn() else None
        arguments = [*(command or FOREGROUND), "mailgate", "--config", self.configuration]
        self._daemon = Daemon(arguments, os.path.join(folder, "output"), environment(), begin)
        try:
            self._daemon.ready(*ports)
        except AssertionError as trouble:
            raise AssertionError(f"{trouble}\n{ini}\n{self.log()}") from None

    def configure(self, ini: str) -> None:
        """Write another configuration. The gateway does not read it yet."""
        # The gateway may read it at any moment: it must never be incomplete.
        new = f"{self.configuration}.new"
        with open(new, "w") as file:
            file.write(withoutKeeper(withTransports(ini)))
        os.replace(new, self.configuration)

    def log(self) -> str:
        """Its log, followed by its other output."""
        try:
            with open(os.path.join(self.folder, "gateway.log"), errors="backslashreplace") as file:
                return file.read() + self._daemon.said()
        except FileNotFoundError:
            return self._daemon.said()

    @property
    def pid(self) -> int:
        """The process."""
        return self._daemon.process.pid

    def descriptors(self) -> list[str]:
        """Its open descriptors, as of L{procfs.descriptors}."""
        return descriptors(self.pid)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._daemon.process.send_signal(number)

    def status(self, within: float = 15.0) -> int:
        """
        Wait for its end, which something else than L{stop} causes.

        @raise subprocess.TimeoutExpired: it does not end.
        """
        status = self._daemon.process.wait(within)
        self._stopped = True
        return status

    def stop(self) -> None:
        """
        Stop it as an operator does, by SIGTERM; once.

        @raise AssertionError: it did not exit cleanly, or its log contains a traceback.
        """
        if self._stopped:
            return
        self._stopped = True
        if self._daemon.process.poll() is not None:
            raise AssertionError(f"the gateway had ended already:\n{self.log()}")
        status = self._daemon.end()
        log = self.log()
        if status not in (0, CUT) or "Server Shut Down." not in log or "Traceback" in log:
            raise AssertionError(f"the gateway ended with status {status}:\n{log}")

    def forget(self) -> None:
        """End it if it runs, with any result."""
        if self._daemon.end() is not None:
            self._stopped = True
