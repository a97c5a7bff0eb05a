# -*- test-case-name: bench.test.test_store -*-
"""
C{python -m bench.store}: what a store costs that several gateways share: the time and the keeper's CPU of a login with
limits, with the store and without it; and the store's CPU with many logins a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from statistics import median

from attrs import evolve

from bench.cluster import Population, Simulation, flow
from bench.compare import Side
from bench.comparison import order
from bench.limits import ON
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

__all__ = ["KEEPER_GOAL", "LOGIN_GOAL", "STORE_GOAL", "main", "sides", "storeCPU"]

LOGIN_GOAL = 150.0
"""Microseconds that a login may take longer with the store."""

KEEPER_GOAL = 40.0
"""Microseconds of the keeper's CPU that a login may take more."""

STORE_GOAL = 25.0
"""Percent of a core that the store may take for the logins of two gateways."""

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


def _logins(
    server: Server, site: Site, children: Children, arguments: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """The medians of bursts of single logins, and the keeper's CPU for a login of each burst, in microseconds."""
    times: dict[str, list[float]] = {BEFORE: [], AFTER: []}
    cpus: dict[str, list[float]] = {BEFORE: [], AFTER: []}
    both = sides(arguments.mailgate, tempfile.mkdtemp(dir=site.folder), server.path)
    with started([side.proxy(Variant()) for side in both], site, children) as meters:
        byName = {side.name: meter for side, meter in zip(both, meters, strict=True)}
        keepers = {name: _awaitKeeper(meter) for name, meter in byName.items()}
        _awaitUse(server)
        for meter in meters:
            meter.loginLatencies(False, arguments.singles)
        for burst in range(arguments.bursts):
            for side in order(burst):
                meter = byName[side]
                times[side].append(median(meter.loginLatencies(False, arguments.singles)) * 1000)
                meter.settle()
                before = cpu(keepers[side])
                meter.logins(arguments.logins, False)
                meter.settle()
                cpus[side].append((cpu(keepers[side]) - before) / arguments.logins * 1e6)
            found = ", ".join(f"{name} {times[name][-1]:.0f} and {cpus[name][-1]:.0f} us" for name in times)
            say(f"time and keeper's CPU, {burst + 1}/{arguments.bursts}: {found}")
    return times, cpus


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


def _calls(server: Server, count: int, source: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.storecalls", server.path, str(count)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    with suppress(ValueError):
        found: dict[str, float] = json.loads(done.stdout)
        return found
    raise BenchmarkError(f"the questions to the store failed: {done.stderr[-500:]}")


def _more(figures: dict[str, list[float]]) -> tuple[str, str]:
    more = [after - before for before, after in zip(figures[BEFORE], figures[AFTER], strict=True)]
    within = medianWithin(more)
    return f"{median(more):.1f}", f"{within[0]:.1f} to {within[1]:.1f}" if within else "-"


def _rows(
    times: dict[str, list[float]], cpus: dict[str, list[float]], calls: dict[str, float], busy: Sequence[float]
) -> list[tuple[str, ...]]:
    percent, logins, commands = busy
    return [
        ("Cost of the store", "", "95 % within", "goal"),
        ("Time of a login, two workers (us more)", *_more(times), number(LOGIN_GOAL)),
        ("Keeper's CPU of a login (us more)", *_more(cpus), number(KEEPER_GOAL)),
        ("One question to the store (us)", f"{calls['time']:.0f}", "-", "-"),
        ("CPU of a process for it, one by one (us)", f"{calls['cpu']:.1f}", "-", "-"),
        ("CPU of a process for it, 32 at a time (us)", f"{calls['together']:.1f}", "-", "-"),
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
        times, cpus = _logins(server, site, children, arguments)
    facts.append(("store", f"{server.name}, by a unix socket"))
    facts.append(("bursts", f"{arguments.bursts} of {arguments.singles} and of {arguments.logins} logins on each side"))
    facts.append(("the store's CPU", "two gateways are simulated by their commands, one after the other"))
    facts.append(("load", f"{load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end"))
    return "\n\n".join(
        ["\n".join(f":{name}: {text}" for name, text in facts), simpleTable(_rows(times, cpus, calls, busy))]
    )


def main() -> int:
    """Measure, print and write; return the exit status."""
    arguments = storing().parse_args()
    return conclude(lambda: publish(_report(arguments), arguments.output))


if __name__ == "__main__":
    raise SystemExit(main())
