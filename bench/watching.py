# -*- test-case-name: bench.test.test_watching -*-
"""
C{python -m bench.watching}: what the admin side of mailgate costs: the CPU of a login and the memory of an idle session
with it and without it, and how long its answers take with thousands of sessions.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from statistics import median

from attrs import define, evolve, field, frozen

from bench.compare import COMPARED, Side, compare
from bench.comparison import Comparison, tables
from bench.load import Connection, Script, login, logout, ping, run
from bench.measuring import Meter, Sessions, started
from bench.options import watching
from bench.processes import BenchmarkError, Children, raiseOpenFiles
from bench.procfs import cpu
from bench.program import conclude, machine, openSite, publish, revision, say
from bench.proxies import Site, Variant, freePorts
from bench.report import number, simpleTable
from bench.spread import AFTER, BEFORE, medianWithin

__all__ = ["CPU_GOAL", "HOLD_GOAL", "MEMORY_GOAL", "SCRAPE_GOAL", "Probe", "UnixConnection", "answer", "main", "sides"]

CPU_GOAL = 15.0
"""Microseconds that a plain login may take more."""

MEMORY_GOAL = 200
"""Bytes that an idle session may take more."""

SCRAPE_GOAL = 50.0
"""Milliseconds that C{/metrics} may take."""

HOLD_GOAL = 10.0
"""Milliseconds for which a list may hold a process that serves clients."""

_PATIENCE = 30.0
_PAUSE = 0.001
_WINDOW = 0.2
"""Seconds in which a client's waits are measured without an answer."""


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


def answer(connect: Callable[[], http.client.HTTPConnection], path: str) -> bytes:
    """
    Return what the gateway answers to C{GET}.

    @param connect: makes a connection.
    @param path: what to get.
    @raise BenchmarkError: the answer is not one of status 200.
    """
    with closing(connect()) as connection:
        connection.request("GET", path)
        given = connection.getresponse()
        body = given.read()
    if given.status != 200:
        raise BenchmarkError(f"GET {path} was answered with status {given.status}")
    return body


@define
class Probe:
    """
    A client that is logged in and sends a line every millisecond, in a thread. What it waits for the echo is for how
    long the gateway served no client.

    @ivar trips: the beginning and the end of each wait, in seconds.
    """

    trips: list[tuple[float, float]] = field(factory=list)
    _isOver: threading.Event = field(factory=threading.Event)

    def _script(self, connection: Connection) -> Script[None]:
        yield from login(connection, "user0")
        while not self._isOver.is_set():
            began = time.perf_counter()
            yield from ping(connection, 1)
            self.trips.append((began, time.perf_counter()))
            time.sleep(_PAUSE)
        yield from logout(connection)

    @contextmanager
    def at(self, connection: Connection) -> Iterator[Probe]:
        """
        Send lines during the block.

        @param connection: a connection to the gateway, not yet open.
        """
        thread = threading.Thread(target=run, args=(iter([(connection, self._script(connection))]), 1))
        thread.start()
        try:
            yield self
        finally:
            self._isOver.set()
            thread.join()

    def longest(self, began: float, ended: float) -> float:
        """
        Return the longest wait in some time, in milliseconds.

        @param began: the beginning of the time.
        @param ended: its end.
        """
        return max((end - begin for begin, end in self.trips if end >= began and begin <= ended), default=0.0) * 1000


def _memory(side: Side, site: Site, children: Children, count: int) -> float:
    """The bytes of an idle session."""
    with started([side.proxy(Variant())], site, children) as (meter,):
        ((_, taken),) = meter.memoryBySessions(False, True, (count,))
    say(f"{side.name}: {taken:.0f} bytes a session")
    return taken


@frozen
class _Answered:
    """
    What answers of one kind have taken, medians in milliseconds.

    @ivar title: the path.
    @ivar time: from the request to the last byte.
    @ivar cpu: the CPU of all processes of the gateway, for an answer alone.
    @ivar held: the longest wait of a client meanwhile.
    """

    title: str
    time: float
    cpu: float
    held: float

    @property
    def row(self) -> tuple[str, ...]:
        """The row of the table."""
        return self.title, number(self.time), number(self.cpu), number(self.held)


def _ways(folder: str, port: int) -> list[tuple[str, Callable[[], http.client.HTTPConnection]]]:
    def metrics() -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)

    def admin() -> http.client.HTTPConnection:
        return UnixConnection(f"{folder}/admin")

    paths = ("/api/1/stats", "/api/1/sessions?limit=100", "/api/1/sessions", "/api/1/sessions?limit=1000")
    return [("/metrics", metrics), *((path, admin) for path in paths)]


@contextmanager
def _held(side: Side, site: Site, children: Children, count: int) -> Iterator[Meter]:
    """Start C{side}, and open C{count} sessions."""
    with started([side.proxy(Variant())], site, children) as (meter,):
        sessions = Sessions(meter, tls=False)
        sessions.grow(count)
        meter.settle()
        yield meter
        sessions.close()


def _answers(meter: Meter, folder: str, port: int, count: int) -> Iterator[_Answered]:
    """What the answers take, beside the sessions of C{meter}."""
    with Probe().at(meter.connection(tls=False)) as probe:
        time.sleep(_WINDOW)
        quiet = []
        for _ in range(count):
            began = time.perf_counter()
            time.sleep(_WINDOW)
            quiet.append(probe.longest(began, time.perf_counter()))
        yield _Answered(f"none, for {_WINDOW * 1000:.0f} ms", 0.0, 0.0, median(quiet))
        for path, connect in _ways(folder, port):
            times, held = [], []
            for _ in range(count):
                began = time.perf_counter()
                answer(connect, path)
                ended = time.perf_counter()
                time.sleep(5 * _PAUSE)
                times.append((ended - began) * 1000)
                held.append(probe.longest(began, ended))
            yield _Answered(path, median(times), 0.0, median(held))


def _alone(meter: Meter, folder: str, port: int, count: int) -> Iterator[tuple[str, float]]:
    """The CPU of an answer of each kind."""
    for path, connect in _ways(folder, port):
        figures = []
        for _ in range(count):
            before = cpu(meter.running.pids)
            answer(connect, path)
            figures.append((cpu(meter.running.pids) - before) * 1000)
        yield path, median(figures)


_KEEPER = re.compile(rb"^process_cpu_seconds_total (.*)$", re.MULTILINE)


def _keeperCPU(meter: Meter, folder: str, port: int, count: int) -> tuple[float, float]:
    """The milliseconds of CPU of a scrape: of the keeper, which answers with its own CPU time, and of all processes."""
    (_, connect), *_ = _ways(folder, port)

    def scrape() -> float:
        (found,) = _KEEPER.findall(answer(connect, "/metrics"))
        return float(found) * 1000

    # The answer has the time before its text was written: the difference of two is that of a whole scrape.
    first, before = scrape(), cpu(meter.running.pids)
    for _ in range(count):
        last = scrape()
    return (last - first) / count, (cpu(meter.running.pids) - before) * 1000 / count


def _report(arguments: argparse.Namespace) -> str:
    facts = [*machine(), ("mailgate", f"{arguments.mailgate}, revision {revision(arguments.mailgate)}")]
    facts.append(("bursts", f"{arguments.bursts} of {arguments.logins} logins on each side"))
    load, count = os.getloadavg()[0], arguments.answers
    (port,) = freePorts(1)
    with tempfile.TemporaryDirectory() as folder, openSite(raiseOpenFiles()) as (site, children):
        both = sides(arguments.mailgate, folder, port)
        on = both[1]
        row = compare(COMPARED["asked"], both, site, children, arguments)
        idle = [_memory(side, site, children, arguments.sessions) for side in both]
        with _held(on, site, children, arguments.sessions) as meter:
            alone = dict(_alone(meter, folder, port, count))
            answers = [evolve(each, cpu=alone.get(each.title, 0.0)) for each in _answers(meter, folder, port, count)]
        workers = Side(AFTER, arguments.mailgate, [*on.process, "worker_processes = 2"])
        with _held(workers, site, children, arguments.sessions) as meter:
            keeper = _keeperCPU(meter, folder, port, count)
            beside = list(_answers(meter, folder, port, count))
    facts.append(("load", f"{load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end"))
    head = ("median (ms)", "CPU (ms)", "longest wait of a client (ms)")
    return "\n\n".join(
        [
            "\n".join(f":{name}: {text}" for name, text in facts),
            tables([row]).rstrip(),
            simpleTable(_costs(row, idle, answers, keeper)),
            simpleTable([(f"One process, {arguments.sessions:,} sessions", *head), *(each.row for each in answers)]),
            simpleTable(
                [
                    (f"Two workers, {arguments.sessions:,} sessions", head[0], head[2]),
                    *((each.title, number(each.time), number(each.held)) for each in beside),
                ]
            ),
        ]
    )


def _costs(
    row: Comparison, idle: Sequence[float], answers: Sequence[_Answered], keeper: tuple[float, float]
) -> list[tuple[str, ...]]:
    off, on = idle
    more = [(after - before) * 1000 for before, after in zip(row.figures[BEFORE], row.figures[AFTER], strict=True)]
    within = medianWithin(more)
    byPath = {each.title: each for each in answers}
    lists = max(each.held for each in answers if "sessions" in each.title)
    return [
        ("Cost of the admin side", "", "95 % within", "goal"),
        (
            "CPU of a plain login (us more)",
            f"{median(more):.1f}",
            f"{within[0]:.1f} to {within[1]:.1f}" if within else "-",
            number(CPU_GOAL),
        ),
        ("Memory of an idle session (bytes more)", f"{on - off:.0f}", "-", number(MEMORY_GOAL)),
        ("/metrics, one process (ms)", number(byPath["/metrics"].time), "-", number(SCRAPE_GOAL)),
        ("Longest wait of a client beside a list, one process (ms)", number(lists), "-", number(HOLD_GOAL)),
        ("CPU of the keeper for a scrape, two workers (ms)", number(keeper[0]), "-", "-"),
        ("CPU of all processes for it (ms)", number(keeper[1]), "-", "-"),
    ]


def main() -> int:
    """Measure, print and write; return the exit status."""
    arguments = watching().parse_args()
    return conclude(lambda: publish(_report(arguments), arguments.output))


if __name__ == "__main__":
    raise SystemExit(main())
