# -*- test-case-name: bench.test.test_store -*-
"""
C{python -m bench.store}: what a store costs that several gateways share: the time and the keeper's CPU of a login with
limits, with the store and without it; and the store's CPU with many logins a second.

Users who log in again cost less than those who log in for the first time at a gateway and an address, and sessions that
stay cost more than those that end at once: each has a row.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from statistics import median

from attrs import define, evolve, field

from bench.cluster import Population, Simulation, flow
from bench.compare import Side
from bench.comparison import order
from bench.limits import ON
from bench.load import Connection, Script, login, logout, run
from bench.measuring import Meter, started
from bench.options import storing
from bench.processes import BenchmarkError, Children, raiseOpenFiles
from bench.procfs import cpu
from bench.program import conclude, machine, openSite, publish, revision, say
from bench.proxies import Site, Variant
from bench.report import number, simpleTable
from bench.spread import AFTER, BEFORE, medianWithin
from bench.storeserver import Server, serve
from bench.viewers import keeperOf

__all__ = ["AGAIN", "FIRST", "KEEPER_GOAL", "LOGIN_GOAL", "STAYING", "STORE_GOAL", "main", "sides", "storeCPU"]

AGAIN = "logs in again"
FIRST = "logs in for the first time"
STAYING = "logs in again and stays"
"""What a user does."""

LOGIN_GOAL = 150.0
"""Microseconds that a login may take longer with the store."""

KEEPER_GOAL = 40.0
"""Microseconds of the keeper's CPU that a login may take more."""

STORE_GOAL = 25.0
"""Percent of a core that the store may take for the logins of two gateways."""

_USERS = 400
"""Users who log in again, by turns: none of them does within a moment."""

_STAY = 0.5
"""Seconds for which sessions stay after the last login."""

_STEP = 0.01
_SETTLING = 20.0


def sides(source: str, folder: str, store: str) -> tuple[Side, Side]:
    """
    Return the same mailgate with two workers and limits, without the store and with it.

    @param source: its source tree.
    @param folder: for the sockets and the secret.
    @param store: the unix socket of the store.
    """
    secret = os.path.join(folder, "store.secret")
    with open(secret, "w", encoding="ascii") as opened:
        opened.write("the secret of the benchmark")
    os.chmod(secret, 0o644)
    without, withStore = (
        [f"admin = unix:{folder}/{name}", "worker_processes = 2", "gateway_name = g1"] for name in (BEFORE, AFTER)
    )
    withStore += [f"store = redis+unix:{store}", f"store_secret_file = {secret}"]
    return Side(BEFORE, source, without, ON), Side(AFTER, source, withStore, ON)


@define
class _Clients:
    """The clients of one side."""

    meter: Meter
    keeper: Sequence[int]
    _again: Iterator[int] = field(factory=count)
    _first: Iterator[int] = field(factory=count)

    def _each(self, kind: str, number: int) -> Iterator[tuple[Connection, str]]:
        for _ in range(number):
            name = f"new{next(self._first)}" if kind == FIRST else f"user{next(self._again) % _USERS}"
            yield self.meter.connection(False), name

    def once(self) -> None:
        """Let each user who will log in again log in."""
        self._all(AGAIN, _USERS)

    def times(self, kind: str, number: int) -> list[float]:
        """The milliseconds from connect to login of C{number} logins, one after the other. C{kind} is that of users."""
        taken: list[float] = []

        def script(connection: Connection, name: str) -> Script[None]:
            began = time.perf_counter()
            yield from login(connection, name)
            taken.append(time.perf_counter() - began)
            yield from logout(connection)

        run(((each[0], script(*each)) for each in self._each(kind, number)), 1)
        return [seconds * 1000 for seconds in taken]

    def keeperCPU(self, kind: str, number: int) -> float:
        """Microseconds of the keeper's CPU for one of C{number} logins, many at a time. C{kind} is that of users."""
        self.meter.settle()
        before = cpu(self.keeper)
        self._all(kind, number)
        self.meter.settle()
        return (cpu(self.keeper) - before) / number * 1e6

    def _all(self, kind: str, number: int) -> None:
        stayed: list[Connection] = []

        def script(connection: Connection, name: str) -> Script[None]:
            yield from login(connection, name)
            if kind == STAYING:
                stayed.append(connection)
            else:
                yield from logout(connection)

        run(((each[0], script(*each)) for each in self._each(kind, number)), self.meter.concurrency)
        if stayed:
            time.sleep(_STAY)
            run(((connection, logout(connection)) for connection in stayed), self.meter.concurrency)


@define
class _Found:
    """What was measured: figures by side for each kind of users."""

    times: dict[str, dict[str, list[float]]] = field(factory=dict)
    cpus: dict[str, dict[str, list[float]]] = field(factory=dict)

    def add(self, kind: str, side: str, taken: Sequence[float], keeper: float) -> None:
        """A burst has been measured: C{taken} in milliseconds, C{keeper} in microseconds."""
        for figures in (self.times, self.cpus):
            figures.setdefault(kind, {BEFORE: [], AFTER: []})
        self.times[kind][side].append(median(taken) * 1000)
        self.cpus[kind][side].append(keeper)

    def latest(self, kind: str) -> str:
        """The latest figures in words. C{kind} is that of users."""
        figures = [(side, self.times[kind][side][-1], self.cpus[kind][side][-1]) for side in (BEFORE, AFTER)]
        return ", ".join(f"{side} {taken:.0f} and {keeper:.0f} us" for side, taken, keeper in figures)


def _logins(server: Server, site: Site, children: Children, arguments: argparse.Namespace) -> _Found:
    """The medians of bursts of single logins, and the keeper's CPU for a login of each burst, in microseconds."""
    found = _Found()
    both = sides(arguments.mailgate, tempfile.mkdtemp(dir=site.folder), server.path)
    with started([side.proxy(Variant()) for side in both], site, children) as meters:
        clients = {side.name: _Clients(meter, _awaitKeeper(meter)) for side, meter in zip(both, meters, strict=True)}
        _awaitUse(server)
        for each in clients.values():
            each.once()
        # Very many new users would make a gateway forget who has logged in just now: they come last.
        for kind in (AGAIN, STAYING, FIRST):
            for burst in range(arguments.bursts):
                for name in order(burst):
                    taken = clients[name].times(kind, arguments.singles)
                    found.add(kind, name, taken, clients[name].keeperCPU(kind, arguments.logins))
                say(f"a user who {kind}, time and keeper's CPU, {burst + 1}/{arguments.bursts}: {found.latest(kind)}")
    return found


def _awaitKeeper(meter: Meter) -> list[int]:
    """
    Wait until a gateway has a keeper, and return it.

    @raise BenchmarkError: it has none.
    """
    deadline = time.monotonic() + _SETTLING
    while True:
        try:
            return keeperOf(meter.running.pids)
        except BenchmarkError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _awaitUse(server: Server) -> None:
    """
    Wait until the gateway uses the store.

    @raise BenchmarkError: it does not.
    """
    direct, deadline = server.connect(), time.monotonic() + _SETTLING
    while not direct.ask("EXISTS", "mg:1:gw"):
        if time.monotonic() > deadline:
            raise BenchmarkError("the gateway does not use the store")
        time.sleep(0.1)
    direct.stop()


def storeCPU(server: Server, rate: int, seconds: float) -> tuple[float, float, float]:
    """
    Send the commands of two gateways, one after the other, each when it is due.

    @param server: the store.
    @param rate: logins a second.
    @param seconds: for how long.
    @return: the percent of a core that the store took, the logins and the commands a second that were reached.
    """
    # Each user has been known before: the database has what a database in use has.
    population = evolve(Population(gateways=2, wrong=0.02, isSticky=False), sessions=rate * 1800)
    simulation, sent = Simulation(population, server.connect()), flow(population)
    calls, before, began = simulation.direct.calls, server.seconds, time.monotonic()
    steps = 0
    while (passed := time.monotonic() - began) < seconds:
        if passed < steps * _STEP:
            time.sleep(steps * _STEP - passed)
            continue
        simulation.second(sent, _STEP)
        steps += 1
    passed = time.monotonic() - began
    taken, commands = server.seconds - before, simulation.direct.calls - calls
    simulation.direct.stop()
    return 100 * taken / passed, steps * _STEP * rate / passed, commands / passed


def _calls(server: Server, number: int, source: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.storecalls", server.path, str(number)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    with suppress(ValueError):
        found: dict[str, float] = json.loads(done.stdout)
        return found
    raise BenchmarkError(f"the questions to the store failed: {done.stderr[-500:]}")


def _more(figures: dict[str, list[float]]) -> tuple[str, str]:
    more = [after - before for before, after in zip(figures[BEFORE], figures[AFTER], strict=True)]
    within = medianWithin(more)
    return f"{median(more):.1f}", f"{within[0]:.1f} to {within[1]:.1f}" if within else "-"


def _rows(found: _Found, calls: dict[str, float], busy: Sequence[float]) -> list[tuple[str, ...]]:
    percent, logins, commands = busy
    return [
        ("Cost of the store", "", "95 % within", "goal"),
        ("Time of a login, two workers (us more)", *_more(found.times[AGAIN]), number(LOGIN_GOAL)),
        ("Time of a first login (us more)", *_more(found.times[FIRST]), "-"),
        ("Keeper's CPU of a login (us more)", *_more(found.cpus[AGAIN]), number(KEEPER_GOAL)),
        ("Keeper's CPU of a login whose session stays (us more)", *_more(found.cpus[STAYING]), "-"),
        ("Keeper's CPU of a first login (us more)", *_more(found.cpus[FIRST]), "-"),
        ("One question to the store (us)", f"{calls['time']:.0f}", "-", "-"),
        ("CPU of a process for it, one by one (us)", f"{calls['cpu']:.1f}", "-", "-"),
        ("CPU of a process for it, 32 at a time (us)", f"{calls['together']:.1f}", "-", "-"),
        ("CPU of a process for it, 32 known pairs in one (us)", f"{calls['known']:.1f}", "-", "-"),
        (f"Store's CPU, {logins:,.0f} logins a second (percent of a core)", f"{percent:.1f}", "-", number(STORE_GOAL)),
        ("Commands a second for them", f"{commands:,.0f}", "-", "-"),
    ]


def _report(arguments: argparse.Namespace) -> str:
    facts = [*machine(), ("mailgate", f"{arguments.mailgate}, revision {revision(arguments.mailgate)}")]
    load = os.getloadavg()[0]
    with openSite(raiseOpenFiles()) as (site, children):
        folder = tempfile.mkdtemp(dir=site.folder)
        server = serve(folder, children)
        calls = _calls(server, arguments.calls, arguments.mailgate)
        say(f"one question: {calls['time']:.0f} us")
        busy = storeCPU(server, arguments.rate, arguments.seconds)
        say(f"the store's CPU: {busy[0]:.1f} % of a core")
        found = _logins(server, site, children, arguments)
    facts.append(("store", f"{server.name}, by a unix socket"))
    facts.append(("bursts", f"{arguments.bursts} of {arguments.singles} and of {arguments.logins} logins on each side"))
    facts.append(("the store's CPU", "two gateways are simulated by their commands, one after the other"))
    facts.append(("load", f"{load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end"))
    return "\n\n".join(["\n".join(f":{name}: {text}" for name, text in facts), simpleTable(_rows(found, calls, busy))])


def main() -> int:
    """Measure, print and write; return the exit status."""
    arguments = storing().parse_args()
    return conclude(lambda: publish(_report(arguments), arguments.output))


if __name__ == "__main__":
    raise SystemExit(main())
