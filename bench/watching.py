# -*- test-case-name: bench.test.test_watching -*-
"""
C{python -m bench.watching}: what the admin side of mailgate costs: the CPU of a login and the memory of an idle session
with it and without it, and how long its answers take with thousands of sessions.
"""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from statistics import median

from bench.compare import COMPARED, Side, compare
from bench.comparison import tables
from bench.measuring import Meter, Sessions, started
from bench.options import watching
from bench.processes import BenchmarkError, Children, raiseOpenFiles
from bench.program import conclude, machine, openSite, revision, say
from bench.proxies import Site, Variant, freePorts
from bench.report import number, simpleTable
from bench.spread import AFTER, BEFORE

__all__ = ["CPU_GOAL", "MEMORY_GOAL", "UnixConnection", "answerTimes", "main", "sides"]

CPU_GOAL = 15.0
"""Microseconds that a plain login may take more."""

MEMORY_GOAL = 200
"""Bytes that an idle session may take more."""

_ANSWERS = 5
_PATIENCE = 30.0


class UnixConnection(http.client.HTTPConnection):
    """
    An HTTP connection to a unix socket.

    @ivar path: the path of the socket.
    """

    def __init__(self, path: str) -> None:
        """@param path: the path of the socket."""
        super().__init__("localhost", timeout=_PATIENCE)
        self.path = path

    def connect(self) -> None:
        """See C{http.client.HTTPConnection.connect}."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self.path)


def sides(source: str, folder: str, port: int) -> tuple[Side, Side]:
    """
    Return the same mailgate without its admin side and with it.

    @param source: its source tree.
    @param folder: a folder for the socket of the admin server.
    @param port: the port for metrics.
    """
    return (
        Side(BEFORE, source, ["admin = off"]),
        Side(AFTER, source, [f"admin = unix:{folder}/admin", f"metrics = 127.0.0.1:{port}"]),
    )


def answerTimes(connect: Callable[[], http.client.HTTPConnection], path: str, count: int) -> list[float]:
    """
    Return the milliseconds from a request to the last byte of the answer, for one request after the other.

    @param connect: makes a connection.
    @param path: what to get.
    @param count: how many requests.
    @raise BenchmarkError: an answer is not one of status 200.
    """
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        with closing(connect()) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
        if answer.status != 200:
            raise BenchmarkError(f"GET {path} was answered with status {answer.status}")
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def _memory(side: Side, site: Site, children: Children, count: int) -> float:
    """The bytes of an idle session."""
    with started([side.proxy(Variant())], site, children) as (meter,):
        ((_, taken),) = meter.memoryBySessions(False, True, (count,))
    say(f"{side.name}: {taken:.0f} bytes a session")
    return taken


def _answers(meter: Meter, folder: str, port: int, count: int) -> Iterator[tuple[str, float, float]]:
    """The path, the median and the longest time of each kind of answer beside C{count} sessions."""
    sessions = Sessions(meter, tls=False)
    sessions.grow(count)
    meter.settle()
    admin = f"{folder}/admin"
    for path, connect in (
        ("/metrics", lambda: http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)),
        ("/api/1/stats", lambda: UnixConnection(admin)),
        ("/api/1/sessions?limit=100", lambda: UnixConnection(admin)),
    ):
        taken = answerTimes(connect, path, _ANSWERS)
        say(f"GET {path}: {median(taken):.1f} ms")
        yield path, median(taken), max(taken)
    sessions.close()


def _report(arguments: argparse.Namespace) -> str:
    facts = [*machine(), ("mailgate", f"{arguments.mailgate}, revision {revision(arguments.mailgate)}")]
    load = os.getloadavg()[0]
    (port,) = freePorts(1)
    with tempfile.TemporaryDirectory() as folder, openSite(raiseOpenFiles()) as (site, children):
        both = sides(arguments.mailgate, folder, port)
        row = compare(COMPARED["asked"], both, site, children, arguments)
        idle = [_memory(side, site, children, arguments.sessions) for side in both]
        with started([both[1].proxy(Variant())], site, children) as (meter,):
            answers = list(_answers(meter, folder, port, arguments.sessions))
    facts.append(("load", f"{load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end"))
    added = (median(row.figures[AFTER]) - median(row.figures[BEFORE])) * 1000
    return "\n\n".join(
        [
            "\n".join(f":{name}: {text}" for name, text in facts),
            tables([row]),
            simpleTable(_costs(added, idle)),
            simpleTable(
                [
                    (f"Answer beside {arguments.sessions:,} sessions (ms)", "median", "most"),
                    *((path, number(middle), number(most)) for path, middle, most in answers),
                ]
            ),
        ]
    )


def _costs(added: float, idle: Sequence[float]) -> list[tuple[str, ...]]:
    off, on = idle
    return [
        ("Cost of the admin side", "more", "goal"),
        ("CPU of a plain login (us)", number(added), number(CPU_GOAL)),
        ("Memory of an idle session (bytes)", number(on - off), number(MEMORY_GOAL)),
    ]


def main() -> int:
    """Measure and print; return the exit status."""
    arguments = watching().parse_args()
    return conclude(lambda: print(_report(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
