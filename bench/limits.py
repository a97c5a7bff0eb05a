# -*- test-case-name: bench.test.test_limits -*-
"""
C{python -m bench.limits}: what the limits of mailgate cost: the CPU of a login with them and without them, what they
add to its time where a keeper decides, the memory of a flood, and the time of a login beside slow connections.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from statistics import median

from attrs import define, field

from bench.compare import COMPARED, Side, compare
from bench.comparison import Comparison, order, tables
from bench.measuring import started
from bench.options import limiting
from bench.processes import BenchmarkError, Children, raiseOpenFiles
from bench.program import conclude, machine, openSite, publish, revision, say
from bench.proxies import Site, Variant
from bench.report import number, simpleTable
from bench.spread import AFTER, BEFORE, medianWithin
from mailgate.limits.attempt import Attempt, Result
from mailgate.limits.defence import Defence

__all__ = ["CPU_GOAL", "KEEPER_GOAL", "LOGIN_GOAL", "OFF", "ON", "Crowd", "main", "sides"]

CPU_GOAL = 10.0
"""Microseconds of CPU that a plain login may take more in one process."""

KEEPER_GOAL = 150.0
"""Microseconds that a login may take longer if a keeper decides."""

LOGIN_GOAL = 1.0
"""Seconds that a login may take beside slow connections."""

OFF = ("limit_conn = off", "limit_req = off", "limit_early_drop = off", "limit_login = off")

ON = (
    "limit_exempt = none",
    "limit_req =",
    *(f"    {what} rate=1000000r/s burst=1000000 nodelay" for what in ("connection", "handshake", "login")),
)
"""All limits count, and the clients of the benchmark, who log in very often, do not reach them."""

_STRANGER = "127.0.0.9"
_USER = "127.0.0.10"
_PATIENCE = 10.0
_PAUSE = 0.05
_SETTLING = 3.0
_MIB = 1024 * 1024


def sides(source: str, folder: str = "") -> tuple[Side, Side]:
    """
    Return the same mailgate without limits and with them.

    @param source: its source tree.
    @param folder: if not empty: there are two workers and a keeper, whose sockets are in this folder.
    """
    off, on = (
        [f"admin = unix:{folder}/{name}", "worker_processes = 2"] if folder else ["admin = off"]
        for name in (BEFORE, AFTER)
    )
    return Side(BEFORE, source, off, OFF), Side(AFTER, source, on, ON)


@define
class Crowd:
    """
    Clients at one address that connect and then send nothing. Those that are disconnected connect again.

    @ivar address: where to connect.
    @ivar count: how many they are.
    @ivar source: their address.
    @ivar tries: how often they have connected.
    @ivar held: how many were connected when they last looked.
    """

    address: tuple[str, int]
    count: int
    source: str = _STRANGER
    tries: int = 0
    held: int = 0
    _open: list[socket.socket] = field(factory=list, repr=False)
    _isOver: threading.Event = field(factory=threading.Event, repr=False)

    @contextmanager
    def present(self) -> Iterator[Crowd]:
        """Let them be there during the block."""
        thread = threading.Thread(target=self._stay)
        thread.start()
        try:
            yield self
        finally:
            self._isOver.set()
            thread.join()
            for each in self._open:
                each.close()

    def _stay(self) -> None:
        while not self._isOver.is_set():
            while len(self._open) < self.count and not self._isOver.is_set():
                self._connect()
            self._open = [each for each in self._open if not self._hasEnded(each)]
            self.held = len(self._open)
            self._isOver.wait(_PAUSE)

    def _connect(self) -> None:
        self.tries += 1
        each = socket.socket()
        each.settimeout(_PATIENCE)
        try:
            each.bind((self.source, 0))
            each.connect(self.address)
            each.setblocking(False)
        except OSError as error:
            each.close()
            if error.errno not in (errno.ECONNREFUSED, errno.ECONNRESET, errno.EADDRNOTAVAIL, errno.ETIMEDOUT):
                raise
            self._isOver.wait(_PAUSE)
        else:
            self._open.append(each)

    def _hasEnded(self, each: socket.socket) -> bool:
        try:
            while each.recv(4096):
                pass
        except BlockingIOError:
            return False
        except OSError:
            pass
        each.close()
        return True


def _beside(side: Side, site: Site, children: Children, arguments: argparse.Namespace) -> tuple[str, ...]:
    """The row of logins beside slow connections."""
    with ExitStack() as stack:
        (meter,) = stack.enter_context(started([side.proxy(Variant())], site, children))
        crowd = stack.enter_context(Crowd(meter.running.plain, arguments.slow).present())
        time.sleep(_SETTLING)
        taken = meter.loginLatencies(False, arguments.answers, _USER, _PAUSE)
        held, tries = crowd.held, crowd.tries
    name = "on" if side.name == AFTER else "off"
    return name, f"{held:,}", f"{tries:,}", number(median(taken)), number(max(taken))


def _latencies(source: str, site: Site, children: Children, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """The medians of bursts of single logins, in milliseconds, with two workers."""
    found: dict[str, list[float]] = {BEFORE: [], AFTER: []}
    folder = tempfile.mkdtemp(dir=site.folder)
    both = sides(source, folder)
    with started([side.proxy(Variant()) for side in both], site, children) as meters:
        byName = {side.name: meter for side, meter in zip(both, meters, strict=True)}
        for meter in meters:
            meter.loginLatencies(False, arguments.singles)
        for burst in range(arguments.bursts):
            for side in order(burst):
                found[side].append(median(byName[side].loginLatencies(False, arguments.singles)))
            before, after = found[BEFORE][-1], found[AFTER][-1]
            say(f"latency with a keeper, {burst + 1}/{arguments.bursts}: {before:.3f} before, {after:.3f} after")
    return found


def _direct(count: int) -> float:
    """The microseconds of CPU of check and record for a user who logs in again and again."""
    defence = Defence()
    attempt = Attempt("192.0.2.7", b"joe@example.com", tag=bytes(16))
    for _ in range(100):
        defence.record(attempt, defence.check(attempt).ticket, Result.ACCEPTED)
    began = time.process_time()
    for _ in range(count):
        defence.record(attempt, defence.check(attempt).ticket, Result.ACCEPTED)
    return (time.process_time() - began) / count * 1e6


def _flooded(arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.flood", str(arguments.flood), str(arguments.memory * _MIB)]
    done = subprocess.run(command, cwd=arguments.mailgate, capture_output=True, text=True, check=False)
    with suppress(ValueError):
        found: dict[str, float] = json.loads(done.stdout)
        return found
    raise BenchmarkError(f"the flood failed: {done.stderr[-500:]}")


def _within(more: Sequence[float]) -> str:
    within = medianWithin(more)
    return f"{within[0]:.1f} to {within[1]:.1f}" if within else "-"


def _costs(
    row: Comparison, latencies: dict[str, list[float]], direct: float, flooded: dict[str, float], memory: int
) -> list[tuple[str, ...]]:
    cpu = [(after - before) * 1000 for before, after in zip(row.figures[BEFORE], row.figures[AFTER], strict=True)]
    late = [(after - before) * 1000 for before, after in zip(latencies[BEFORE], latencies[AFTER], strict=True)]
    return [
        ("Cost of the limits", "", "95 % within", "goal"),
        ("CPU of a plain login, one process (us more)", f"{median(cpu):.1f}", _within(cpu), number(CPU_GOAL)),
        ("of it: the rules against guessed passwords (us)", f"{direct:.1f}", "-", "-"),
        ("Time of a login, two workers (us more)", f"{median(late):.1f}", _within(late), number(KEEPER_GOAL)),
        ("Memory of a flood (MiB)", f"{flooded['grown'] / _MIB:.1f}", "-", number(float(memory))),
        ("CPU of one login of the flood (us)", f"{flooded['seconds'] * 1e6 / flooded['count']:.1f}", "-", "-"),
    ]


def _report(arguments: argparse.Namespace) -> str:
    facts = [*machine(), ("mailgate", f"{arguments.mailgate}, revision {revision(arguments.mailgate)}")]
    facts.append(("bursts", f"{arguments.bursts} of {arguments.logins} logins on each side"))
    facts.append(("flood", f"{arguments.flood:,} users and addresses, limit_memory = {arguments.memory}m"))
    load = os.getloadavg()[0]
    flooded = {**_flooded(arguments), "count": float(arguments.flood)}
    say(f"flood: {flooded['grown'] / _MIB:.1f} MiB")
    with openSite(raiseOpenFiles()) as (site, children):
        both = sides(arguments.mailgate)
        row = compare(COMPARED["asked"], both, site, children, arguments)
        latencies = _latencies(arguments.mailgate, site, children, arguments)
        beside = [_beside(side, site, children, arguments) for side in both]
    facts.append(("load", f"{load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end"))
    head = ("connected", "attempts", "median login (ms)", f"longest (ms), goal {LOGIN_GOAL * 1000:.0f}")
    return "\n\n".join(
        [
            "\n".join(f":{name}: {text}" for name, text in facts),
            tables([row]).rstrip(),
            simpleTable(_costs(row, latencies, _direct(arguments.logins * 20), flooded, arguments.memory)),
            simpleTable([(f"{arguments.slow:,} slow clients of one address, limits", *head), *beside]),
        ]
    )


def main() -> int:
    """Measure, print and write; return the exit status."""
    arguments = limiting().parse_args()
    return conclude(lambda: publish(_report(arguments), arguments.output))


if __name__ == "__main__":
    raise SystemExit(main())
