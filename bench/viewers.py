# -*- test-case-name: bench.test.test_viewers -*-
"""
C{python -m bench.viewers}: what viewers of the live page cost the keeper and the workers.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from attrs import frozen

from bench.compare import Side
from bench.measuring import Meter, Sessions, started
from bench.options import viewing
from bench.processes import BenchmarkError, raiseOpenFiles
from bench.procfs import cpu, descendants
from bench.program import conclude, machine, openSite, revision, say
from bench.proxies import Variant
from bench.report import number, simpleTable
from bench.spread import AFTER
from bench.watching import UnixConnection

__all__ = ["GOAL", "Viewer", "keeperOf", "main"]

GOAL = 5.0
"""Percent of a core that ten viewers may cost the keeper."""

_SETTLING = 3.0
_EVERY = 1.0
"""Seconds between two logins."""

_ZYGOTE = b"mailgate.process.keeper.zygote"


class Viewer:
    """
    Reads the events of the page in a thread.

    @param path: the socket of the admin server.
    @ivar size: the bytes that have arrived.
    @ivar events: the events that have arrived.
    """

    def __init__(self, path: str) -> None:
        self.size = self.events = 0
        self._connection = UnixConnection(path)
        self._connection.request("GET", "/api/1/events")
        self._socket = self._connection.sock.dup()
        self._answer = self._connection.getresponse()
        if self._answer.status != 200:
            raise BenchmarkError(f"GET /api/1/events was answered with status {self._answer.status}")
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        # A viewer whose connection ends here reads no more.
        with suppress(OSError, ValueError, AttributeError):
            for line in self._answer:
                self.size += len(line)
                self.events += line.startswith(b"event:")

    def close(self) -> None:
        """Leave."""
        with suppress(OSError):
            self._socket.shutdown(2)
        self._thread.join()
        self._socket.close()
        self._answer.close()


def keeperOf(pids: Sequence[int]) -> list[int]:
    """
    Return the keeper of a gateway: the child of its zygote.

    @param pids: the processes of the gateway that were started.
    @raise BenchmarkError: there is none.
    """
    found = []
    for pid in descendants(pids):
        with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as opened:
            if _ZYGOTE in opened.read():
                found += [each for each in descendants([pid]) if each != pid]
    if not found:
        raise BenchmarkError("the keeper does not run")
    return found


@contextmanager
def _logins(meter: Meter) -> Iterator[None]:
    """Log in once a second during the block."""
    isOver = threading.Event()

    def work() -> None:
        while not isOver.wait(_EVERY):
            meter.logins(1, tls=False)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        isOver.set()
        thread.join()


@frozen
class _Taken:
    """
    What one part has taken.

    @ivar title: what was measured.
    @ivar keeper: percent of a core, of the keeper.
    @ivar others: percent of a core, of all other processes of the gateway.
    @ivar size: bytes a second of each viewer.
    """

    title: str
    keeper: float
    others: float
    size: float


def _measured(meter: Meter, path: str, viewers: int, seconds: int) -> _Taken:
    shown = [Viewer(path) for _ in range(viewers)]
    try:
        with _logins(meter):
            time.sleep(_SETTLING)
            keeper = keeperOf(meter.running.pids)
            before, size = (cpu(keeper), cpu(meter.running.pids)), sum(each.size for each in shown)
            began = time.monotonic()
            time.sleep(seconds)
            passed = time.monotonic() - began
            after = cpu(keeper), cpu(meter.running.pids)
            own, every = (100 * (now - then) / passed for now, then in zip(after, before, strict=True))
            size = sum(each.size for each in shown) - size
        if any(not each.events for each in shown):
            raise BenchmarkError("a viewer got no event")
    finally:
        for each in shown:
            each.close()
    say(f"{viewers} viewers: keeper {own:.2f} %, others {every - own:.2f} % of a core")
    return _Taken(f"{viewers} viewers", own, every - own, size / passed / max(1, viewers))


def _report(mailgate: str, viewers: int, sessions: int, workers: int, seconds: int) -> str:
    facts = [*machine(), ("mailgate", f"{mailgate}, revision {revision(mailgate)}")]
    facts.append(("load", f"{sessions:,} sessions, {workers} workers, a login each second"))
    with tempfile.TemporaryDirectory() as folder, openSite(raiseOpenFiles()) as (site, children):
        side = Side(AFTER, mailgate, [f"admin = unix:{folder}/admin", f"worker_processes = {workers}"])
        with started([side.proxy(Variant())], site, children) as (meter,):
            held = Sessions(meter, tls=False)
            held.grow(sessions)
            meter.settle()
            found = [_measured(meter, f"{folder}/admin", each, seconds) for each in (0, 1, viewers, 0)]
            held.close()
    facts.append(("system load", f"{os.getloadavg()[0]:.1f} at the end"))
    rows = [(each.title, f"{each.keeper:.2f}", f"{each.others:.2f}", number(each.size)) for each in found]
    idle = (found[0].keeper + found[-1].keeper) / 2
    more = f"{viewers} viewers cost the keeper {found[2].keeper - idle:.2f} % of a core; the goal is {GOAL:g} %."
    head = ("CPU (percent of a core)", "keeper", "other processes", "bytes a second of a viewer")
    return "\n\n".join(["\n".join(f":{name}: {text}" for name, text in facts), simpleTable([head, *rows]), more])


def main() -> int:
    """Measure and print; return the exit status."""
    given = viewing().parse_args()

    def work() -> None:
        print(_report(given.mailgate, given.viewers, given.sessions, given.workers, given.seconds))

    return conclude(work)


if __name__ == "__main__":
    raise SystemExit(main())
