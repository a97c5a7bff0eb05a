# -*- test-case-name: bench.test.test_clients -*-
"""
Clients in a process of their own, for more load than one process can make, and for more sessions than it can hold::

    python -m bench.clients DESCRIPTOR NUMBER

C{DESCRIPTOR} is a socket. Each line on it is a command as JSON: an object with C{do}, the name of a method of
L{_Clients}, and its arguments. The reply is a line with the method's result, or with C{error}. C{NUMBER} distinguishes
the processes: it selects the addresses of their clients, in 127.0.0.0/8.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count as counted
from typing import Any

from attrs import define, field

from bench.load import Connection, Script, fetch, login, logout, pace, ping, run, tlsContext, visits
from bench.processes import BenchmarkError, Child, Children

__all__ = ["Clients", "main", "opened", "together"]

_PATIENCE = 240
"""Seconds in which a command must be done."""

_ADDRESSES = 32
"""The clients of a process have that many addresses: each address has some ten thousand ports."""

_USERS = 32
"""The names of the users that log in again and again. A cache of logins holds them all."""


class _Clients:
    """
    The commands.

    @param number: of this process.
    """

    def __init__(self, number: int) -> None:
        self._sources = [f"127.1.{number}.{last}" for last in range(1, _ADDRESSES + 1)]
        self._context = tlsContext()
        self._address = ("127.0.0.1", 0)
        self._tls = False
        self._held: list[Connection] = []
        self._made = counted()

    def obey(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Run the command C{do}."""
        commands: dict[str, Callable[..., dict[str, Any]]] = {
            "aim": self.aim,
            "grow": self.grow,
            "saturate": self.saturate,
            "paced": self.paced,
            "fetch": self.fetch,
            "count": self.count,
            "close": self.close,
        }
        return commands[do](**arguments)

    def aim(self, host: str, port: int, tls: bool) -> dict[str, Any]:
        """Select the proxy for all further commands."""
        self._address, self._tls = (host, port), tls
        return {}

    def _connection(self) -> Connection:
        source = self._sources[next(self._made) % len(self._sources)]
        return Connection(self._address, self._context if self._tls else None, source=source)

    def grow(self, count: int, concurrency: int) -> dict[str, Any]:
        """Log in, C{concurrency} at a time, until C{count} sessions are open."""
        new = [self._connection() for _ in range(count - len(self._held))]
        run(((one, login(one, f"user{number}")) for number, one in enumerate(new)), concurrency)
        self._held += new
        return {}

    def saturate(self, seconds: float, concurrency: int) -> dict[str, Any]:
        """
        Log in and out for some time, C{concurrency} at a time.

        @return: C{done}, the number of logins, and C{seconds}, the time until the end of the last one.
        """
        done: list[str] = []
        end = time.perf_counter() + seconds

        def connections() -> Iterator[Connection]:
            while time.perf_counter() <= end:
                yield self._connection()

        taken = run(visits(connections(), _USERS, done.append), concurrency)
        return {"done": len(done), "seconds": taken}

    def paced(self, rate: float, count: int) -> dict[str, Any]:
        """
        Log in and out C{count} times, C{rate} times a second.

        @return: C{latencies}, the milliseconds from connect to the end of each login, and C{late}, the milliseconds by
            which a login began too late.
        """
        latencies: list[float] = []

        def once(connection: Connection, name: str) -> Script[None]:
            began = time.perf_counter()
            yield from login(connection, name)
            latencies.append(round((time.perf_counter() - began) * 1000, 3))
            yield from logout(connection)

        def work() -> Iterator[tuple[Connection, Script[None]]]:
            for number in range(count):
                connection = self._connection()
                yield connection, once(connection, f"user{number % _USERS}")

        late = pace(work(), rate)
        return {"latencies": latencies, "late": round(late * 1000, 3)}

    def fetch(self, sessions: int, size: int, seconds: int) -> dict[str, Any]:
        """
        Let C{sessions} of those that are open fetch a message of C{size} bytes each second. A session that still waits
        for a message begins no other.

        @return: C{done}, the number of messages, and C{late} as for L{paced}.
        """
        busy: set[Connection] = set()
        done = 0

        def once(connection: Connection) -> Script[None]:
            nonlocal done
            if connection in busy:
                return
            busy.add(connection)
            yield from fetch(connection, size)
            busy.discard(connection)
            done += 1

        work = ((one, once(one)) for _ in range(seconds) for one in self._held[:sessions])
        late = pace(work, sessions)
        return {"done": done, "late": round(late * 1000, 3)}

    def count(self) -> dict[str, Any]:
        """
        Send a line through each open session, which must come back.

        @return: C{alive}, the number of sessions where it does.
        """
        alive = 0

        def once(connection: Connection) -> Script[None]:
            nonlocal alive
            try:
                yield from ping(connection, 1)
            except BenchmarkError:
                return
            alive += 1

        run(((one, once(one)) for one in self._held), 32)
        return {"alive": alive}

    def close(self) -> dict[str, Any]:
        """Close all sessions."""
        for connection in self._held:
            connection.close()
        self._held = []
        return {}


@define
class Clients:
    """
    Such a process, from outside.

    @ivar control: the socket for commands.
    """

    child: Child
    control: socket.socket = field(repr=False)
    _heard: bytes = field(default=b"", repr=False)

    def begin(self, do: str, **arguments: Any) -> None:
        """Let it begin a command. L{finish} must follow."""
        self.control.sendall(json.dumps({"do": do, **arguments}).encode("ascii") + b"\n")

    def finish(self) -> dict[str, Any]:
        """
        The result of the command that was begun.

        @raise BenchmarkError: it failed, or takes minutes.
        """
        try:
            while b"\n" not in self._heard:
                data = self.control.recv(1 << 20)
                if not data:
                    raise BenchmarkError(f"{self.child.name} has ended; it said: {self.child.said()}")
                self._heard += data
        except TimeoutError as error:
            raise BenchmarkError(f"{self.child.name} has not finished in {_PATIENCE} seconds") from error
        line, _, self._heard = self._heard.partition(b"\n")
        result: dict[str, Any] = json.loads(line)
        if "error" in result:
            raise BenchmarkError(result["error"])
        return result


def together(clients: Sequence[Clients], do: str, **arguments: Any) -> list[dict[str, Any]]:
    """
    Run a command in several processes at the same time; return the results.

    @raise BenchmarkError: it failed in one of them; all have ended it.
    """
    for one in clients:
        one.begin(do, **arguments)
    results, failed = [], None
    for one in clients:
        try:
            results.append(one.finish())
        except BenchmarkError as error:
            failed = error
    if failed is not None:
        raise failed
    return results


@contextmanager
def opened(children: Children, count: int) -> Iterator[list[Clients]]:
    """Start C{count} processes of clients, and end them with the block."""
    with ExitStack() as stack:
        started: list[Clients] = []
        for number in range(count):
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            ours.settimeout(_PATIENCE)
            with theirs:
                child = children.startModule(
                    "bench.clients", str(theirs.fileno()), str(number), descriptors=[theirs.fileno()]
                )
            stack.callback(children.stop, child)
            started.append(Clients(child, ours))
        yield started


def main(descriptor: int, number: int) -> None:
    """Obey until the other end of the socket C{descriptor} is closed."""
    clients = _Clients(number)
    with socket.socket(fileno=descriptor) as control, control.makefile("rwb") as lines:
        for line in lines:
            try:
                result = clients.obey(**json.loads(line))
            except BenchmarkError as error:
                result = {"error": str(error)}
            lines.write(json.dumps(result).encode("ascii") + b"\n")
            lines.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
