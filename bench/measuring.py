# -*- test-case-name: bench.test.test_measuring -*-
"""
How each figure is measured: work is done through one proxy, and the resources of its processes are read before and
after.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import quantiles
from typing import TypeVar

from attrs import define, field

from bench.load import Connection, Script, fetch, login, logout, ping, run, tlsContext, visits
from bench.measures import BIG_BODY, FETCHED, SMALL_BODY
from bench.processes import BenchmarkError, Children
from bench.procfs import cpu, descendants, memory
from bench.proxies import Proxy, Running, Site

__all__ = ["CONCURRENCY", "AuthCounter", "Meter", "Sessions", "percentile", "started"]

T = TypeVar("T")

CONCURRENCY = 32
"""Logins at a time, by default."""

_QUIET = 0.0003
"""A proxy that uses less CPU than this in a L{_PAUSE}, in seconds, is idle."""

_WARM = 8
"""Sessions before the first one whose memory counts: new ones reuse what they leave behind."""

_WORKERS = 2
"""The workers of the gateway one of which is replaced."""

_PAUSE = 0.03
_SETTLING = 5
_STARTING = 20
_GIB = 1024**3


@define
class AuthCounter:
    """Counts the logins at the authentication service, and its connections."""

    port: int

    def asked(self) -> int:
        """The number of logins so far."""
        return self._number(b"Asked")

    def connections(self) -> int:
        """The number of connections."""
        return self._number(b"Connections")

    def _number(self, header: bytes) -> int:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(b"GET /asked HTTP/1.0\r\n\r\n")
            answer = b""
            while data := connection.recv(4096):
                answer += data
        return int(answer.partition(b"%s: " % header)[2].split(b"\r\n")[0])


def percentile(figures: Sequence[float], part: float) -> float:
    """The figure that C{part} percent of C{figures} do not exceed, by interpolation; in tenths of a percent."""
    return quantiles(figures, n=1000, method="inclusive")[round(part * 10) - 1]


@define
class Meter:
    """
    Measures figures of one proxy.

    @ivar concurrency: the number of logins at a time, each of another user.
    """

    running: Running
    counter: AuthCounter
    concurrency: int = CONCURRENCY
    _context: ssl.SSLContext = field(factory=tlsContext)

    @property
    def name(self) -> str:
        return self.running.proxy.name

    def settle(self) -> float:
        """Wait until the proxy is idle; return its seconds of CPU since its start."""
        deadline = time.monotonic() + _SETTLING
        taken = cpu(self.running.pids)
        while time.monotonic() < deadline:
            time.sleep(_PAUSE)
            before, taken = taken, cpu(self.running.pids)
            if taken - before < _QUIET:
                break
        self.running.check()
        return taken

    def metered(self, work: Callable[[], object]) -> float:
        """The seconds of CPU of the proxy for C{work}."""
        before = self.settle()
        work()
        return self.settle() - before

    def connection(self, tls: bool, session: ssl.SSLSession | None = None, source: str = "") -> Connection:
        """A client's connection to it, not yet open; C{source} is the client's address, if it matters."""
        address = self.running.tls if tls else self.running.plain
        return Connection(address, self._context if tls else None, session, source)

    def logins(self, count: int, tls: bool, session: ssl.SSLSession | None = None) -> None:
        """
        Do C{count} logins, each from connect to logout.

        @raise BenchmarkError: a login failed.
        """
        done: list[str] = []
        connections = (self.connection(tls, session) for _ in range(count))
        run(visits(connections, self.concurrency, done.append), self.concurrency)
        if len(done) != count:
            raise BenchmarkError(f"{self.name}: {len(done)} of {count} logins were done")

    def _ask(self, what: Callable[[ssl.SSLSocket], T]) -> T:
        """The TLS of a client that has logged in."""
        answers: list[T] = []
        connection = self.connection(tls=True)

        def script() -> Script[None]:
            yield from login(connection, "user0")
            answers.append(what(connection.tls))
            yield from logout(connection)

        run(iter([(connection, script())]), 1)
        return answers[0]

    def session(self) -> ssl.SSLSession:
        """
        A TLS session to resume.

        @raise BenchmarkError: there is none.
        """
        # TLS 1.3 sends it after the handshake, with the data.
        session = self._ask(lambda tls: tls.session)
        if session is None:
            raise BenchmarkError(f"{self.name} gave no TLS session to resume")
        return session

    def cipher(self) -> str:
        """The version of TLS and the cipher suite that it and the clients negotiate."""
        version, cipher = self._ask(lambda tls: (tls.version(), tls.cipher()))
        return f"{version} {cipher[0] if cipher else ''}"

    def loginCPU(self, kind: str, count: int) -> float:
        """
        Milliseconds of CPU for a login: C{plain}, C{tls} or C{resumed}.

        @raise BenchmarkError: a login failed, or the authentication service did not judge the expected number of
            logins.
        """
        session = self.session() if kind == "resumed" else None
        self.logins(self.concurrency, kind != "plain", session)
        before = self.counter.asked()
        taken = self.metered(lambda: self.logins(count, kind != "plain", session))
        asked = self.counter.asked() - before
        # Cached logins may expire in the meantime, once for each user.
        if asked != count if self.running.proxy.asksAuth else asked > self.concurrency:
            raise BenchmarkError(f"{self.name} asked the authentication service {asked} times for {count} logins")
        return taken / count * 1000

    def relayCPU(self, tls: bool, big: bool, amount: int) -> float:
        """Seconds of CPU to relay a GiB from backend to client, measured over C{amount} bytes."""
        size, count = (BIG_BODY, 2) if big else (SMALL_BODY, 8)
        sessions = Sessions(self, tls)
        sessions.grow(count)
        each = max(1, amount // size // count)
        taken = self.metered(lambda: sessions.all(lambda one: fetch(one, size, each)))
        sessions.close()
        return taken / (each * count * size) * _GIB

    def pingCPU(self, tls: bool, count: int) -> float:
        """Microseconds of CPU for 100 bytes there and back, measured over C{count} of them."""
        sessions = Sessions(self, tls)
        sessions.grow(8)
        each = count // 8
        taken = self.metered(lambda: sessions.all(lambda one: ping(one, each)))
        sessions.close()
        return taken / (each * 8) * 1e6

    def newWorker(self) -> tuple[float, float]:
        """
        The resources of a new worker that has not served a client yet: MiB of memory that only it uses, and
        milliseconds of CPU. It replaces a worker that is killed for this.

        @raise BenchmarkError: there is no such worker, or no new one.
        """
        before = self._awaitWorkers(_WORKERS)
        self.settle()
        os.kill(before[-1], signal.SIGKILL)
        new = self._awaitWorkers(1, before)
        self.settle()
        return memory(new, "Private_Dirty") / 1024**2, cpu(new) * 1000

    def _awaitWorkers(self, count: int, known: Sequence[int] = ()) -> list[int]:
        """
        Wait for C{count} workers besides C{known} ones, and return them, the oldest first.

        @raise BenchmarkError: there are fewer.
        """
        deadline = time.monotonic() + _STARTING
        # The master's child has started them.
        while len(found := sorted(set(descendants(self.running.pids)[2:]).difference(known))) < count:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{self.name} has started {len(found)} of {count} workers in {_STARTING} seconds")
            time.sleep(_PAUSE)
        return found

    def memoryBySessions(self, tls: bool, fetched: bool, counts: Sequence[int]) -> Iterator[tuple[int, float]]:
        """Pairs of a number of idle sessions and the bytes per session. The proxy must be a new one."""
        proxy, pids = self.running.proxy, self.running.pids
        warm = Sessions(self, tls)
        warm.grow(_WARM)
        warm.all(lambda one: fetch(one, FETCHED["memory"]))
        warm.all(logout)
        self.settle()
        before = memory(pids, proxy.memoryField)
        sessions = Sessions(self, tls)
        for count in counts:
            new = sessions.grow(count)
            if fetched:
                run(((one, fetch(one, FETCHED["memory"])) for one in new), 16)
            self.settle()
            yield count, (memory(pids, proxy.memoryField) - before) / count
        sessions.close()

    def loginLatencies(self, tls: bool, count: int, source: str = "", pause: float = 0.0) -> list[float]:
        """
        Milliseconds from connect to login, for one login after the other.

        @param tls: whether the clients use TLS.
        @param count: how many logins.
        @param source: the address of the clients; empty for the system's choice.
        @param pause: seconds after each.
        """
        taken: list[float] = []

        def script(connection: Connection) -> Script[None]:
            began = time.perf_counter()
            yield from login(connection, "user0")
            taken.append(time.perf_counter() - began)
            yield from logout(connection)
            time.sleep(pause)

        connections = (self.connection(tls, source=source) for _ in range(count))
        run(((connection, script(connection)) for connection in connections), 1)
        return [seconds * 1000 for seconds in taken]

    def fetchLatencies(self, tls: bool, count: int) -> list[float]:
        """Milliseconds from the request for a message to its end, one after the other in one session."""
        taken: list[float] = []
        sessions = Sessions(self, tls)
        sessions.grow(1)

        def script(connection: Connection) -> Script[None]:
            for _ in range(count):
                began = time.perf_counter()
                yield from fetch(connection, FETCHED["latency"])
                taken.append(time.perf_counter() - began)

        sessions.all(script)
        sessions.close()
        return [seconds * 1000 for seconds in taken]

    def growthOfLoginCPU(self, counts: Sequence[int], logins: int) -> Iterator[tuple[int, float]]:
        """Pairs of a number of idle sessions and the milliseconds of CPU for a login without TLS beside them."""
        sessions = Sessions(self, tls=False)
        for count in counts:
            sessions.grow(count)
            yield count, self.loginCPU("plain", logins)
        sessions.close()


@define
class Sessions:
    """Logged-in sessions of clients that stay."""

    meter: Meter
    tls: bool
    connections: list[Connection] = field(factory=list, repr=False)

    def grow(self, count: int) -> list[Connection]:
        """Log in until there are C{count}; return the new ones."""
        missing = range(count - len(self.connections))
        new = [self.meter.connection(self.tls) for _ in missing]
        run(((one, login(one, f"user{number}")) for number, one in enumerate(new)), CONCURRENCY)
        self.connections += new
        return new

    def all(self, script: Callable[[Connection], Script[None]]) -> None:
        """Let every session do something, all at a time."""
        run(((one, script(one)) for one in self.connections), max(1, len(self.connections)))

    def close(self) -> None:
        """Close them."""
        for connection in self.connections:
            connection.close()


@contextmanager
def started(proxies: Sequence[Proxy], site: Site, children: Children) -> Iterator[list[Meter]]:
    """
    Start C{proxies}, and end them with the block; yield a meter for each.

    @raise BenchmarkError: a proxy does not start.
    """
    counter = AuthCounter(site.authPort)
    meters: list[Meter] = []
    try:
        for proxy in proxies:
            meters.append(Meter(proxy.start(site, children), counter))
        yield meters
    finally:
        for meter in meters:
            meter.running.stop()
