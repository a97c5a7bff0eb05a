# -*- test-case-name: bench.test.test_processes -*-
"""
Processes that end when the benchmark ends: itself, by Control-C, or killed.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from types import TracebackType

from attrs import define, field

__all__ = ["BenchmarkError", "Child", "Children", "raiseOpenFiles"]

_PR_SET_PDEATHSIG = 1
_PATIENCE = 5
"""Seconds for a process to end after SIGTERM; then it is killed."""


class BenchmarkError(Exception):
    """Something failed, so that the figures have no meaning. The text says what."""


def raiseOpenFiles() -> int:
    """Raise this process's limit of open files, which its children inherit, as far as allowed; return the new one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _dieWithParent() -> Callable[[], None]:
    # Looked up here: few calls are safe between fork and exec.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


@define
class Child:
    """A process of the benchmark, in its own process group. Its output is in the file C{log}."""

    name: str
    log: str
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        """The end of its output, for an error message."""
        with open(self.log, encoding="utf-8", errors="replace") as stream:
            return stream.read()[-2000:].strip() or "nothing"

    def check(self) -> None:
        """
        Check that it runs.

        @raise BenchmarkError: it has exited.
        """
        if not self.running:
            raise BenchmarkError(f"{self.name} has ended ({self.process.returncode}); it said: {self.said()}")

    def stop(self) -> None:
        """End it and its whole group."""
        self._signal(signal.SIGTERM)
        try:
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._signal(signal.SIGKILL)
            self.process.wait()

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return  # the whole group has ended already


class Children:
    """Starts processes, and ends the remaining ones at the end of the C{with} block."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._running: list[Child] = []
        self._started = 0

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for child in reversed(self._running):
            child.stop()

    def start(
        self, name: str, command: Sequence[str], cwd: str | None = None, descriptors: Sequence[int] = ()
    ) -> Child:
        """
        Run C{command}. C{descriptors} stay open in it, with the same numbers.

        @raise OSError: it cannot be run.
        """
        self._started += 1
        log = os.path.join(self._folder, f"{self._started:03}.log")
        with open(log, "wb") as stream:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                pass_fds=descriptors,
                start_new_session=True,
                preexec_fn=_dieWithParent(),
            )
        child = Child(name, log, process)
        self._running.append(child)
        return child

    def startModule(self, module: str, *arguments: str, descriptors: Sequence[int] = ()) -> Child:
        """Run a module of the benchmark in an interpreter of its own."""
        above = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        return self.start(module, [sys.executable, "-m", module, *arguments], cwd=above, descriptors=descriptors)

    def stop(self, child: Child) -> None:
        """End one of them now."""
        child.stop()
        self._running.remove(child)
