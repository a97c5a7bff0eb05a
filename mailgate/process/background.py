# -*- test-case-name: mailgate.test.process.test_background -*-
"""
Starts the gateway in the background, instead of twistd. twistd shows 100 characters of the reason why a start failed,
exits with status 1, and reports success before workers serve.

Here the process that the operator started waits until the gateway serves or has failed. Its exit status and its
standard error report the result.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from types import TracebackType
from typing import IO, Any

from twisted.internet.interfaces import IReactorDaemonize

from mailgate.system.exitstatus import CRASHED, ENDED_SILENTLY

__all__ = ["Launch", "Twistd", "result"]

_LONGEST = 30000
"""Characters of a reason; longer ones are cut."""

_STANDARD_ERROR = 2

_UMASK = 0o077
"""The umask in the background without C{--umask}: twistd's own."""


class Launch:
    """
    Reports the result of a start to the process that waits for it. Only the first result counts. Until then an uncaught
    exception is a result too.

    @param channel: the descriptor of the pipe to the waiting process.
    """

    def __init__(self, channel: int) -> None:
        self._channel: int | None = channel
        self._remarks: list[str] = []
        self._hook = sys.excepthook
        sys.excepthook = self._crashed

    @classmethod
    def intoBackground(cls, reactor: Any) -> Launch:
        """
        Fork, and return in a process in the background, which has a new session and C{/dev/null} as standard input,
        output and error. The calling process waits, and exits with the status of L{result}. May be called only in a
        process with a single thread.

        @param reactor: the reactor.
        @raise OSError: the system refuses to fork.
        """
        standard = (sys.__stdin__, sys.__stdout__, sys.__stderr__)
        for stream in standard[1:]:
            if stream is not None:
                stream.flush()
        if IReactorDaemonize.providedBy(reactor):
            reactor.beforeDaemonize()
        # Standard streams that were closed at the start, as by ">&-", must not become other files.
        while (null := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
            os.set_inheritable(null, True)
        reading, writing = os.pipe()
        if os.fork():
            os.close(writing)
            _exitWith(lambda: result(reading, sys.__stderr__))
        os.close(reading)
        os.setsid()
        # A process that is not the leader of its session never gets a terminal.
        if os.fork():
            os._exit(0)
        for descriptor, stream in enumerate(standard):
            if stream is not None:
                os.dup2(null, descriptor)
        os.close(null)
        if IReactorDaemonize.providedBy(reactor):
            reactor.afterDaemonize()
        return cls(writing)

    def remark(self, text: str) -> None:
        """
        Print a line on standard error when the gateway serves. Has no effect after the result.

        @param text: the line.
        """
        if self._channel is not None:
            self._remarks.append(text)

    def succeed(self) -> None:
        """Report that the gateway serves."""
        self._report(0, "\n".join(self._remarks))

    def fail(self, reason: str, status: int) -> None:
        """
        Report that the gateway cannot start.

        @param reason: why.
        @param status: the exit status.
        """
        self._report(status, reason)

    def _report(self, status: int, reason: str) -> None:
        if self._channel is None:
            return
        channel, self._channel = self._channel, None
        sys.excepthook = self._hook
        line = json.dumps([status, reason[:_LONGEST]]).encode("ascii") + b"\n"
        # The process that waited may have been interrupted.
        with suppress(OSError):
            while line:
                line = line[os.write(channel, line) :]
        os.close(channel)

    def _crashed(self, kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        *_, line = traceback.format_exception_only(kind, error)
        hook = self._hook
        self.fail(f"start failed: {line.strip()}", CRASHED)
        hook(kind, error, where)


def _exitWith(status: Callable[[], int]) -> None:
    """Exit with C{status()}, even after an exception. Runs no finalizers: they belong to the other process."""
    code = CRASHED
    try:
        # Exit without a traceback; the other process continues.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        code = status()
    finally:
        os._exit(code)


def result(channel: int, stderr: IO[str] | None) -> int:
    """
    Wait for the result of a L{Launch}, and print its reason or remarks. Has no timeout: the start has deadlines, and
    the pipe closes when its process exits.

    @param channel: the descriptor of the pipe.
    @param stderr: where to print; L{None} for a process without standard error.
    @return: the exit status.
    """
    received = b""
    while not received.endswith(b"\n"):
        piece = os.read(channel, 65536)
        if not piece:
            break
        received += piece
    status, reason = ENDED_SILENTLY, "the gateway exited before it served and gave no reason; see its error log"
    # A process that was killed may have written a part of the line.
    with suppress(ValueError):
        status, reason = json.loads(received)
    if reason and stderr is not None:
        # A closed standard error must not change the result.
        with suppress(OSError):
            print(reason, file=stderr, flush=True)
    return status


class Twistd:
    """
    The options of twistd.

    @param config: the parsed options, which twistd reads again later; L{None} if another program runs the service.
    @ivar isBackground: whether the gateway is to run in the background.
    """

    def __init__(self, config: MutableMapping[str, Any] | None) -> None:
        self._config: MutableMapping[str, Any] = {} if config is None else config
        # `twist` has no such option and stays in the foreground.
        self.isBackground = not self._config.get("nodaemon", True)

    @property
    def hasLogger(self) -> bool:
        """Whether C{--logger} names an observer that gets all log events in addition to C{error_log}."""
        return bool(self._config.get("logger"))

    @property
    def owner(self) -> tuple[int, int] | None:
        """
        The uid and gid that twistd changes to after the ports are bound (C{--uid}, C{--gid}; -1: not changed); L{None}
        if it does not.
        """
        uid, gid = self._config.get("uid"), self._config.get("gid")
        if uid is None or os.geteuid() != 0:
            return None
        return int(uid), -1 if gid is None else int(gid)

    def ignored(self) -> Iterator[str]:
        """Yield the options for logs that are given and have no effect, because C{error_log} replaces them."""
        for name, default in (("logfile", None), ("syslog", False), ("prefix", "twisted")):
            if self._config.get(name, default) not in (default, 0):
                yield f"--{name}"

    def detach(self, reactor: Any) -> Launch:
        """
        Go into the background, and keep twistd from doing so again.

        @param reactor: the reactor.
        @raise OSError: the system refuses to fork.
        """
        launch = Launch.intoBackground(reactor)
        self._config["nodaemon"] = True
        if self._config.get("umask") is None:
            self._config["umask"] = _UMASK
        return launch

    def started(self) -> None:
        """The gateway has started. twistd uses the option now only to decide where it writes TWISTD-CRASH.log."""
        if self.isBackground:
            self._config["nodaemon"] = False

    def removePIDFile(self) -> None:
        """Remove the file of twistd's C{--pidfile}. twistd leaves it if the start ends with an exit status."""
        path = self._config.get("pidfile")
        if not path:
            return
        with suppress(OSError), open(path, "rb") as opened:
            if opened.read(32) == b"%d" % os.getpid():
                os.unlink(path)
