# -*- test-case-name: mailgate.test.process.test_background -*-
"""
The way into the background, in the place of twistd's own. twistd shows 100 characters of the reason why a start failed,
exits with status 1, and reports success before workers serve.

The process that the operator started waits here until the gateway serves, or has failed; its exit status and its
standard error tell the operator which.
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
"""twistd's own in the background, unless C{--umask} says another."""


class Launch:
    """
    A start for whose result the process that began it waits, at the other end of the pipe C{channel}. Only the first
    result counts. Until then an uncaught exception is a result too.
    """

    def __init__(self, channel: int) -> None:
        self._channel: int | None = channel
        self._remarks: list[str] = []
        self._hook = sys.excepthook
        sys.excepthook = self._crashed

    @classmethod
    def intoBackground(cls, reactor: Any) -> Launch:
        """
        Go on in the background: in a session of its own, with C{/dev/null} as standard input, output and error. For a
        process with one thread only. The process that called this waits, and exits as L{result} says.

        @raise OSError: the system does not fork.
        """
        standard = (sys.__stdin__, sys.__stdout__, sys.__stderr__)
        for stream in standard[1:]:
            if stream is not None:
                stream.flush()
        if IReactorDaemonize.providedBy(reactor):
            reactor.beforeDaemonize()
        # Of those that were closed when Python started, as by ">&-", some may be other files by now; others are filled.
        while (null := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
            os.set_inheritable(null, True)
        reading, writing = os.pipe()
        if os.fork():
            os.close(writing)
            _exitWith(lambda: result(reading, sys.__stderr__))
        os.close(reading)
        os.setsid()
        # One that leads no session never gets a terminal.
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
        """Have C{text} on standard error even where the gateway comes up, if that is not known yet."""
        if self._channel is not None:
            self._remarks.append(text)

    def succeed(self) -> None:
        """The gateway serves."""
        self._tell(0, "\n".join(self._remarks))

    def fail(self, reason: str, status: int) -> None:
        """The gateway does not come up, for C{reason}; C{status} is the exit status for that."""
        self._tell(status, reason)

    def _tell(self, status: int, reason: str) -> None:
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
    """End this process with C{status()}, whatever happens, without a finalizer: they are the other process's."""
    code = CRASHED
    try:
        # Without a traceback: the other process goes on.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        code = status()
    finally:
        os._exit(code)


def result(channel: int, stderr: IO[str] | None) -> int:
    """
    Wait for the result of a L{Launch} at the other end of C{channel}, write its reason or remarks to C{stderr}, and
    return its status. It is bounded by the deadlines of the start itself, and ends with its process.
    """
    said = b""
    while not said.endswith(b"\n"):
        piece = os.read(channel, 65536)
        if not piece:
            break
        said += piece
    status, reason = ENDED_SILENTLY, "the gateway exited before it served and gave no reason; see its error log"
    # One that was killed may have written a part.
    with suppress(ValueError):
        status, reason = json.loads(said)
    if reason and stderr is not None:
        # A standard error that is closed does not change the result.
        with suppress(OSError):
            print(reason, file=stderr, flush=True)
    return status


class Twistd:
    """
    What twistd was told on its own command line: C{config}, which it reads on; L{None} where the service is run by
    something else.
    """

    def __init__(self, config: MutableMapping[str, Any] | None) -> None:
        self._config: MutableMapping[str, Any] = {} if config is None else config
        # `twist` has no such option, and stays in the foreground.
        self.isBackground = not self._config.get("nodaemon", True)

    @property
    def hasLogger(self) -> bool:
        """Whether C{--logger} names an observer, to which twistd gives all events besides C{error_log}."""
        return bool(self._config.get("logger"))

    def ignored(self) -> Iterator[str]:
        """Those of its options for logs that are given, and that C{error_log} takes the place of."""
        for name, default in (("logfile", None), ("syslog", False), ("prefix", "twisted")):
            if self._config.get(name, default) not in (default, 0):
                yield f"--{name}"

    def detach(self, reactor: Any) -> Launch:
        """
        Go into the background; twistd itself stays where it is then.

        @raise OSError: the system does not fork.
        """
        launch = Launch.intoBackground(reactor)
        self._config["nodaemon"] = True
        if self._config.get("umask") is None:
            self._config["umask"] = _UMASK
        return launch

    def started(self) -> None:
        """Everything is started. From now on twistd asks only where to write its TWISTD-CRASH.log."""
        if self.isBackground:
            self._config["nodaemon"] = False

    def removePIDFile(self) -> None:
        """Remove the file of twistd's C{--pidfile}, as twistd does not where a start ends with an exit status."""
        path = self._config.get("pidfile")
        if not path:
            return
        with suppress(OSError), open(path, "rb") as opened:
            if opened.read(32) == b"%d" % os.getpid():
                os.unlink(path)
