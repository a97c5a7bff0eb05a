# -*- test-case-name: mailgate.test.integration -*-
"""
Programs that tests need for some time: a process starts each once, waits for it, and ends it in any case.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import IO, Any, Protocol, TypeVar

from mailgate.test.integration.forkserver import Forked

__all__ = [
    "Daemon",
    "Stoppable",
    "accepts",
    "freePort",
    "ifKilled",
    "newFolder",
    "shared",
    "slowness",
    "stopShared",
    "waitUntil",
]


class Stoppable(Protocol):
    """A running program."""

    def stop(self) -> None:
        """End it."""


S = TypeVar("S", bound=Stoppable)

_guard: subprocess.Popen[bytes] | None = None


def ifKilled(*command: str) -> None:
    """
    Run C{command} if this process is killed before it can end what it has started.

    A shell waits for the end of a pipe that only this process writes to. Then it runs all commands, the youngest first.
    """
    global _guard
    if _guard is None:
        script = 'commands=$(tac) && eval "$commands"'
        null = subprocess.DEVNULL
        _guard = subprocess.Popen(
            ["sh", "-c", script], stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True
        )
        # The first registered function is called last, when everything has stopped.
        atexit.register(_guard.kill)
    assert _guard.stdin is not None
    _guard.stdin.write(shlex.join(command).encode() + b"\n")
    _guard.stdin.flush()


def newFolder(name: str) -> str:
    """
    A new folder, with a name for its purpose.

    Its path is short enough for a unix socket, unlike those of trial and TMPDIR.
    """
    folder = tempfile.mkdtemp(prefix=f"mailgate-{name}-", dir="/tmp")
    ifKilled("rm", "-rf", folder)
    return folder


_started: dict[Hashable, Any] = {}


def shared(key: Hashable, start: Callable[[], S]) -> S:
    """
    The result of C{start} for C{key}, called once in a process. When the process ends, it is stopped, the youngest
    first.

    (trial calls neither setUpClass nor setUpModule, and with C{-j} gives the tests of one class to several processes.)
    """
    if key not in _started:
        _started[key] = start()
        atexit.register(_started[key].stop)
    started: S = _started[key]
    return started


def stopShared() -> None:
    """
    Stop what L{shared} has started in this process. Tests that count its descriptors call this first: backends and
    services of shared gateways serve in threads of it, and health checks connect to them at any time. What is wrong
    with one is printed, as at the end of the process.
    """
    while _started:
        _, each = _started.popitem()
        atexit.unregister(each.stop)
        try:
            each.stop()
        except Exception:
            traceback.print_exc()


_MOST_PORTS = 1000
"""The number of ports of each process. The fixtures that stay until its end take some hundreds."""

_LOTS = 21
_FIRST_PORT = 11000
"""Above the default ports of the sandbox, which a test may bind."""

_claims: list[socket.socket] = []
_ports: Iterator[int] | None = None


def _lot() -> Iterator[int]:
    """
    Ports below those of outgoing connections that no other process of tests uses. This process claims their number for
    as long as it lives.
    """
    own = os.getpid()
    for number in (attempt % _LOTS for attempt in range(own, own + _LOTS)):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0mailgate-tests-{number}")
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        first = _FIRST_PORT + number * _MOST_PORTS
        return itertools.cycle(range(first, first + _MOST_PORTS))
    raise AssertionError(f"{_LOTS} processes run these tests already")


def freePort() -> int:
    """A free TCP port of 127.0.0.1, never the same twice in a row."""
    global _ports
    if _ports is None:
        _ports = _lot()
    for port in itertools.islice(_ports, _MOST_PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("none of this process's ports is free")


_LONGEST = 120.0
"""The most seconds that L{waitUntil} waits by itself."""


def accepts(port: int) -> bool:
    """Whether a process listens on C{port} of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except (ConnectionRefusedError, ConnectionResetError, TimeoutError):
        # Closing the listening socket resets connections in its queue. A connection times out if the queue is full
        # because no process accepts yet.
        return False
    return True


def slowness() -> float:
    """
    How many times as long processes take as on a computer that has a processor for each: several that share one take
    so many times as long.
    """
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def waitUntil(true: Callable[[], Any], what: str, within: float | None = None) -> None:
    """
    Wait for another process until C{true} returns true. A condition that takes long is asked less often: the processor
    is for the process that it waits for.

    @param within: the most seconds; L{None} for 20, or for more on a computer that has much to do.
    @raise AssertionError: that takes longer.
    """
    if within is None:
        within = min(20.0 * slowness(), _LONGEST)
    deadline = time.monotonic() + within
    while True:
        began = time.monotonic()
        if true():
            return
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"not true within {within} seconds: {what}")
        time.sleep(min(max(0.02, 2 * (now - began)), 0.2))


class Daemon:
    """
    A program in the foreground, with all its output in the file C{output}. If C{begin} can start it, that is a cheaper
    way to the same process.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        output: str,
        environ: Mapping[str, str] | None = None,
        begin: Callable[[Sequence[str], IO[bytes], Mapping[str, str]], Forked | None] | None = None,
    ) -> None:
        self.output = output
        self.process: subprocess.Popen[bytes] | Forked
        with open(output, "wb") as log:
            begun = begin(arguments, log, os.environ if environ is None else environ) if begin is not None else None
            self.process = begun or subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environ
            )
        self.name = " ".join(arguments)
        ifKilled("kill", str(self.process.pid))

    def said(self) -> str:
        """All its output."""
        with open(self.output, errors="backslashreplace") as log:
            return log.read()

    def ready(self, *ports: int) -> None:
        """
        Wait until it listens on each of C{ports}.

        @raise AssertionError: it has ended, or takes too long. The text has its output.
        """

        def listensOrHasEnded() -> bool:
            return self.process.poll() is not None or all(map(accepts, ports))

        try:
            waitUntil(listensOrHasEnded, f"{self.name} listens on {ports}")
            if self.process.returncode is not None:
                raise AssertionError(f"{self.name} has ended with status {self.process.returncode}")
        except AssertionError as trouble:
            self.end()
            raise AssertionError(f"{trouble}\n{self.said()}") from None

    def end(self, within: float = 15.0) -> int:
        """Send SIGTERM, and after C{within} seconds SIGKILL; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
