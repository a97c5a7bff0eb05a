# -*- test-case-name: mailgate.test.integration.test_cluster -*-
"""
Logins go on at two gateways while the store that they share fails in different ways.
C{python -m mailgate.test.integration.clusterfaults} prints how long they took, and returns 1 if one was refused.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType

from attrs import define, field

from mailgate.store.interfaces import DEAD
from mailgate.test.integration.clustersite import Cluster
from mailgate.test.integration.daemon import freePort, waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.guessers import login

__all__ = ["FAULTS", "MUCH", "Course", "Fault", "Logins", "main"]

MUCH = "limit_req =\n" + "".join(
    f"    {what} rate=1000000r/m burst=100000 nodelay\n" for what in ("connection", "handshake", "login")
)
"""Lines of C{[mail]} with which each login counts and none is too early."""

_THREADS = 24
_USERS = 400
_SOURCES = 60


@define
class Course:
    """
    How logins went.

    @ivar seconds: how long each took, from the connection to the answer.
    @ivar refused: the answers that are not OK.
    """

    seconds: list[float] = field(factory=list)
    refused: list[bytes] = field(factory=list)

    def percentile(self, share: float) -> float:
        """How many seconds that share of the logins took at most; 0 without any."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Logins:
    """
    Users log in and out until the end of the C{with} block, at each gateway in turn. A login that is late delays no
    other one, as long as there are threads.
    """

    def __init__(self, cluster: Cluster, rate: float) -> None:
        """
        @param cluster: the gateways.
        @param rate: logins a second at all gateways together.
        """
        self._ports = [member.port for member in cluster.members]
        self._rate = rate
        self._numbers = itertools.count()
        self._done: list[tuple[bytes, float]] = []
        self._isOver = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(_THREADS)]

    def __enter__(self) -> Logins:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._isOver.set()
        for thread in self._threads:
            thread.join(60.0)

    def _work(self) -> None:
        while not self._isOver.is_set():
            number = next(self._numbers)
            if self._isOver.wait(max(0.0, self._began + number / self._rate - time.monotonic())):
                return
            source = f"127.70.{number % _SOURCES}.7"
            port = self._ports[number % len(self._ports)]
            try:
                self._done.append(login(port, source, f"user{number % _USERS}@example.com", PASSWORD))
            except OSError as error:
                self._done.append((repr(error).encode(), 0.0))

    def during(self, wait: Callable[[], object], least: int = 0) -> Course:
        """
        Return how the logins went that ended while C{wait} was called, or later, if they were not enough.

        @param wait: returns when the time is over.
        @param least: how many logins are enough.
        """
        first = len(self._done)
        wait()
        waitUntil(lambda: len(self._done) >= first + least, f"there were {least} logins", 60.0)
        done = self._done[first:]
        return Course([taken for _, taken in done], [answer for answer, _ in done if not answer.startswith(b"OK")])


Fault = Callable[[Cluster], AbstractContextManager[None]]
"""What is wrong with the store during a C{with} block."""


@contextmanager
def _nothing(cluster: Cluster) -> Iterator[None]:
    yield


@contextmanager
def _stopped(cluster: Cluster) -> Iterator[None]:
    cluster.store.end()
    try:
        yield
    finally:
        cluster.store.start()


@contextmanager
def _hung(cluster: Cluster) -> Iterator[None]:
    cluster.store.hang()
    try:
        yield
    finally:
        cluster.store.goOn()


@contextmanager
def _emptied(cluster: Cluster) -> Iterator[None]:
    cluster.store.end()
    cluster.store.start()
    yield


@contextmanager
def _full(cluster: Cluster) -> Iterator[None]:
    cluster.store.ask("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", 1)
    try:
        yield
    finally:
        cluster.store.ask("CONFIG", "SET", "maxmemory", 0)


@contextmanager
def _dropping(cluster: Cluster) -> Iterator[None]:
    cluster.store.ask("CONFIG", "SET", "maxmemory-policy", "volatile-ttl", "maxmemory", 1_500_000)
    try:
        yield
    finally:
        cluster.store.ask("CONFIG", "SET", "maxmemory", 0)


@contextmanager
def _readOnly(cluster: Cluster) -> Iterator[None]:
    cluster.store.ask("REPLICAOF", "127.0.0.1", freePort())
    try:
        yield
    finally:
        cluster.store.ask("REPLICAOF", "NO", "ONE")


@contextmanager
def _lossy(cluster: Cluster) -> Iterator[None]:
    cluster.link.loss = 0.2
    try:
        yield
    finally:
        cluster.link.loss = 0.0


@contextmanager
def _slow(cluster: Cluster) -> Iterator[None]:
    cluster.link.late = 0.03
    try:
        yield
    finally:
        cluster.link.late = 0.0


FAULTS: Mapping[str, Fault] = {
    "none": _nothing,
    "stopped": _stopped,
    "hung": _hung,
    "restarted empty": _emptied,
    "full, noeviction": _full,
    "full, volatile-ttl": _dropping,
    "read-only": _readOnly,
    "one packet of five lost": _lossy,
    "60 ms late": _slow,
}
"""By what a report calls them."""


def _report(name: str, course: Course, seconds: float) -> str:
    p50, p99, longest = (1000 * course.percentile(share) for share in (0.5, 0.99, 1.0))
    count = len(course.seconds)
    return (
        f"{name:24} {count / seconds:6.0f}/s  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms  longest {longest:6.1f} ms"
        f"  refused {len(course.refused)}"
    )


def _tryOut(cluster: Cluster, names: Sequence[str], rate: float, seconds: float) -> int:
    refused = 0
    with Logins(cluster, rate) as logins:
        logins.during(lambda: time.sleep(3.0))
        for name in names:
            waitUntil(lambda: all(member.isStoreUp() for member in cluster.members), "the store is used", 90.0)
            began = time.monotonic()
            with FAULTS[name](cluster):
                course = logins.during(lambda: time.sleep(seconds))
                taken = time.monotonic() - began
            print(_report(name, course, taken), flush=True)
            for answer in sorted(set(course.refused)):
                print(f"    {answer!r}")
            refused += len(course.refused)
    return refused


def _die(cluster: Cluster) -> None:
    """Kill the second gateway, and print how long its sessions are listed and count at the first one."""
    first, second = cluster.members
    user = "left@example.com"
    sessions = [second.session(user) for _ in range(2)]
    waitUntil(lambda: first.sees(user) == ["g2", "g2"], "they are listed")
    waitUntil(lambda: first.login(user).startswith(b"NO [LIMIT]"), "they count")
    began = time.monotonic()
    for process in second.processes():
        os.kill(process, signal.SIGKILL)
    waitUntil(lambda: first.sees(user) == [], "they are listed no longer", 2 * DEAD)
    listed = time.monotonic() - began
    waitUntil(lambda: first.login(user).startswith(b"OK"), "they count no longer", 2 * DEAD)
    counted = time.monotonic() - began
    print(f"a gateway was killed: its sessions were listed for {listed:.1f} s, and counted for {counted:.1f} s")
    for session in sessions:
        session.close()
    second.gateway.status()


def main() -> int:
    """Try all faults; return 1 if a login was refused."""
    options = argparse.ArgumentParser(prog="python -m mailgate.test.integration.clusterfaults")
    options.add_argument("--rate", type=float, default=200.0, help="logins a second (default: 200)")
    options.add_argument("--seconds", type=float, default=10.0, help="how long each fault lasts (default: 10)")
    options.add_argument("--only", nargs="*", default=list(FAULTS), choices=list(FAULTS), help="faults")
    options.add_argument("--death", action="store_true", help="kill a gateway instead")
    arguments = options.parse_args()
    cluster = Cluster("limit_conn =\n    user 2\n" if arguments.death else f"limit_conn = off\n{MUCH}")
    try:
        cluster.start()
        if arguments.death:
            _die(cluster)
            return 0
        refused = _tryOut(cluster, arguments.only, arguments.rate, arguments.seconds)
        for member in cluster.members:
            member.gateway.stop()
    finally:
        cluster.clear()
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
