# -*- test-case-name: mailgate.test.integration.test_forkserver -*-
"""
Starts gateways for tests without a new interpreter: importing the gateway takes four fifths of the processor time of a
start. A process of its own, the fork server, has imported it, and forks for each start.

The child is as a new interpreter would be, except that C{/proc/PID/cmdline} is that of the fork server, and that the
tests are not its parent. A test that is about such things starts a new interpreter.

C{MAILGATE_FORK=off} in the environment switches this off. With C{MAILGATE_USE} every gateway has its own interpreter,
so that real starts are tested as well.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import IO

from twisted.application.service import IServiceMaker
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import getPlugins

__all__ = ["ForkServer", "Forked", "forked", "isSwitchedOn", "serve"]

_IMPORTED = (
    "mailgate.tap",
    "mailgate.sandbox.authhttp",
    "mailgate.sandbox.imap4",
    "mailgate.sandbox.managesieve",
    "mailgate.sandbox.structure",
    "mailgate.sandbox.welcome",
    "twisted.internet.epollreactor",
    "twisted.scripts.twistd",
)
"""
What a gateway imports at its start, but nothing that chooses a reactor, as the servers of C{[sandbox]} for POP3 and
SMTP do.
"""

_RUN = "from twisted.scripts.twistd import run; run()"
_SCRIPT = f"import sys; from mailgate.test.integration.forkserver import serve; serve(int(sys.argv[1])); {_RUN}"
"""L{serve} returns in the children only: each runs what the command for a real start runs, and ends as it does."""

_ACT_EARLY = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "OPENSSL_", "SSL_")
"""The beginnings of the names of variables that an interpreter or its libraries read before a gateway begins."""

_PATIENCE = 60.0
"""The most seconds that the fork server takes to import the gateway and to fork, on a machine with much to do."""


def isSwitchedOn(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether gateways are forked, if a test does not need a new interpreter."""
    return not environ.get("MAILGATE_USE") and environ.get("MAILGATE_FORK") != "off"


def _early(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(_ACT_EARLY)}


class Forked:
    """
    A process that the fork server has forked, with the methods of L{subprocess.Popen} that tests use.

    @ivar pid: the process.
    @ivar returncode: its exit status, negative for a signal; L{None} until L{poll} or L{wait} has seen its end.
    """

    def __init__(self, server: ForkServer, channel: socket.socket) -> None:
        self._server = server
        self._channel = channel
        self.pid = 0
        self.returncode: int | None = None
        pid = self._next(_PATIENCE)
        if pid is None:
            raise self._server.trouble(f"has not forked within {_PATIENCE} seconds")
        self.pid = pid

    def _next(self, within: float | None) -> int | None:
        """
        The next number that the fork server tells; L{None} if there is none for C{within} seconds.

        @raise AssertionError: the fork server has ended.
        """
        if not select.select([self._channel], [], [], within)[0]:
            return None
        told = b""
        with suppress(OSError):
            # The pid and the exit status may arrive together.
            while not told.endswith(b"\n"):
                byte = self._channel.recv(1)
                if not byte:
                    break
                told += byte
        if not told.endswith(b"\n"):
            # Nobody else would end it.
            if self.pid:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            raise self._server.trouble("has ended")
        return int(told)

    def poll(self) -> int | None:
        """Its exit status, if it has ended."""
        if self.returncode is None:
            self.returncode = self._next(0)
            if self.returncode is not None:
                self._channel.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait for its end, and return its exit status.

        @raise subprocess.TimeoutExpired: it does not end within C{timeout} seconds.
        """
        if self.returncode is None:
            select.select([self._channel], [], [], timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(f"forked {self.pid}", timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The fork server of this process: it ends with this process, in any way."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._early = _early(environ)
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SCRIPT, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._words,
                stderr=subprocess.STDOUT,
                env=environ,
                pass_fds=[theirs.fileno()],
            )

    def fits(self, environ: Mapping[str, str]) -> bool:
        """Whether the interpreter would have started in the same way with C{environ}."""
        return _early(environ) == self._early

    def start(self, arguments: Sequence[str], output: IO[bytes], environ: Mapping[str, str]) -> Forked:
        """
        Start twistd in this process's folder.

        @param arguments: the whole command of a real start: an interpreter, C{-c}, its script, and the arguments.
        @param output: where its standard output and standard error go.
        @raise AssertionError: the fork server has ended.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self._control, [b"fork"], [theirs.fileno(), output.fileno()])
            order = {"command": list(arguments), "environ": dict(environ), "folder": os.getcwd()}
            ours.sendall(json.dumps(order).encode("ascii") + b"\n")
        except OSError as error:
            raise self.trouble(f"cannot be asked: {error}") from None
        return Forked(self, ours)

    def trouble(self, what: str) -> AssertionError:
        """An error of the fork server, with all that it has printed."""
        self._words.seek(0)
        return AssertionError(f"the fork server {what}\n{self._words.read().decode(errors='backslashreplace')}")

    def end(self) -> None:
        """End it, and wait for that."""
        self._control.close()
        self.process.wait(_PATIENCE)
        self._words.close()


_server: ForkServer | None = None


def forked(arguments: Sequence[str], output: IO[bytes], environ: Mapping[str, str]) -> Forked | None:
    """
    Start a gateway by the fork server of this process, as L{ForkServer.start} does. L{None}: that would not be the same
    as a new interpreter with C{environ}.
    """
    global _server
    if _server is None:
        _server = ForkServer(environ)
        atexit.register(_server.end)
    return _server.start(arguments, output, environ) if _server.fits(environ) else None


def serve(descriptor: int) -> None:
    """
    Be the fork server until the tests close their end of the socket C{descriptor}. Returns in each child, which has
    the surroundings that the tests ask for.
    """
    control = socket.socket(fileno=descriptor)
    woken, waker = socket.socketpair()
    woken.setblocking(False)
    waker.setblocking(False)
    # A terminal sends SIGINT to all; the tests end the gateways then, and this process is needed for that.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(waker.fileno())
    _import()
    channels: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            _report(channels)
        if control not in ready:
            continue
        asked, descriptors, _, _ = socket.recv_fds(control, 16, 2)
        if not asked:
            os._exit(0)
        channel = socket.socket(fileno=descriptors[0])
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, interrupt)
            for each in (control, woken, waker, *channels.values()):
                each.close()
            _become(channel, descriptors[1])
            return
        os.close(descriptors[1])
        channels[pid] = channel
        _tell(channel, pid)


def _import() -> None:
    for name in _IMPORTED:
        import_module(name)
    # twistd looks for its commands among all plugins, and Twisted for the kinds of endpoints.
    (plugin,) = [each for each in getPlugins(IServiceMaker) if each.tapname == "mailgate"]
    plugin.options()
    list(getPlugins(IStreamServerEndpointStringParser))
    assert "twisted.internet.reactor" not in sys.modules, "an import has chosen the reactor"
    assert threading.active_count() == 1, "an import has started a thread"
    gc.collect()


def _report(channels: dict[int, socket.socket]) -> None:
    """Tell the tests of all children that have ended."""
    while channels:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with channels.pop(pid) as channel:
            _tell(channel, os.waitstatus_to_exitcode(status))


def _tell(channel: socket.socket, number: int) -> None:
    # A test may have been stopped meanwhile.
    with suppress(OSError):
        channel.sendall(b"%d\n" % number)


def _become(channel: socket.socket, output: int) -> None:
    """Make this child what a new interpreter would be that the tests start by a command."""
    with channel, channel.makefile("rb") as opened:
        order = json.loads(opened.readline())
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environ"])
    time.tzset()
    interpreter, _, _, *arguments = sys.orig_argv = order["command"]
    assert interpreter == sys.executable
    sys.argv = ["-c", *arguments]
    random.seed()
