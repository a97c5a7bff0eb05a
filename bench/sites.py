# -*- test-case-name: bench.test.test_sites -*-
"""
A proxy with as many sessions as its descriptors permit: what it takes to keep them, a login beside them, a part of them
that fetches, and a reload.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from attrs import define, frozen

from bench.clients import Clients, together
from bench.load import Connection, Script, login, logout, run
from bench.measures import FETCHED, Sizes
from bench.measuring import Meter, percentile
from bench.processes import BenchmarkError
from bench.procfs import cpu, memory
from bench.proxies import Site

__all__ = ["NEW", "Held", "Probe", "settled"]

NEW = "IMAP4rev1 SASL-IR ID LITERAL+ AUTH=PLAIN X-NEW"
"""The capabilities of the backend behind the configuration that is loaded."""

_CONCURRENCY = 16
_WARM = 64
_BEYOND = 1.0
"""Seconds of logins after the first one with the new configuration."""

_LONGEST = 30
"""Seconds in which a reload must be done."""

_SAMPLING = 0.2
"""Seconds between two samples of memory."""

_MIB = 1024 * 1024


@frozen
class Probe:
    """
    A login beside a reload.

    @ivar began: its beginning, in seconds since the reload.
    @ivar ended: its end.
    @ivar new: whether it has met the new configuration; L{None} if it failed.
    """

    began: float
    ended: float
    new: bool | None


def settled(probes: Sequence[Probe]) -> float | None:
    """The end of the first login from which on all meet the new configuration; L{None} if there is none."""
    found = None
    for probe in reversed(probes):
        if not probe.new:
            break
        found = probe.ended
    return found


_Figures = Iterator[tuple[str, str, float]]
"""Tables, ends of keys, and figures."""


@define
class Held:
    """
    A proxy that has just started, and its sessions.

    @ivar count: the number of sessions.
    """

    meter: Meter
    clients: Sequence[Clients]
    tls: bool
    count: int
    sizes: Sizes

    def _memory(self) -> int:
        # Workers share memory, and the proportional share counts it once.
        return memory(self.meter.running.pids, "Pss")

    def _each(self, number: int) -> int:
        return number // len(self.clients)

    def idle(self) -> _Figures:
        """
        Open the sessions; what they take.

        @raise BenchmarkError: a login failed.
        """
        host, port = self.meter.running.tls if self.tls else self.meter.running.plain
        together(self.clients, "aim", host=host, port=port, tls=self.tls)
        self.meter.logins(_WARM, self.tls)
        self.meter.settle()
        before = self._memory()
        together(self.clients, "grow", count=self._each(self.count), concurrency=_CONCURRENCY)
        self.meter.settle()
        after = self._memory()
        yield "idle", "memory", (after - before) / self.count
        yield "idle", "total", after / _MIB
        taken = cpu(self.meter.running.pids)
        time.sleep(self.sizes.siteSeconds)
        yield "idle", "cpu", (cpu(self.meter.running.pids) - taken) / self.sizes.siteSeconds * 1000
        yield from self._latencies("idle", self.meter.loginLatencies(self.tls, self.sizes.siteLogins))

    def _latencies(self, table: str, figures: Sequence[float]) -> _Figures:
        yield table, "p50", percentile(figures, 50)
        yield table, "p99", percentile(figures, 99)

    def busy(self) -> _Figures:
        """
        Let some of the sessions fetch: once alone, for the CPU of a message, and once beside logins.

        @raise BenchmarkError: a login or a message failed.
        """
        before = self.meter.settle()
        done = sum(result["done"] for result in self._fetch(lambda: None))
        yield "busy", "cpu", (self.meter.settle() - before) / done * 1e6
        figures: list[float] = []
        self._fetch(lambda: figures.extend(self._loginsFor(self.sizes.siteSeconds * 0.9)))
        yield from self._latencies("busy", figures)

    def _fetch(self, meanwhile: Callable[[], None]) -> list[dict[str, int]]:
        """Let sessions fetch in the processes of clients, and do something meanwhile in this one."""
        for one in self.clients:
            one.begin(
                "fetch",
                sessions=self._each(self.sizes.siteBusy),
                size=FETCHED["latency"],
                seconds=self.sizes.siteSeconds,
            )
        try:
            meanwhile()
        finally:
            results = [one.finish() for one in self.clients]
        return results

    def _loginsFor(self, seconds: float) -> list[float]:
        end = time.perf_counter() + seconds
        figures: list[float] = []
        while time.perf_counter() < end or len(figures) < 2:
            figures += self.meter.loginLatencies(self.tls, 1)
        return figures

    def reload(self, site: Site) -> _Figures:
        """
        Load a configuration with the environment C{site}, whose backend has the capabilities L{NEW}; log in meanwhile.

        @raise BenchmarkError: the new configuration does not serve.
        """
        probes: list[Probe] = []
        most: float = self._memory()
        sampled = 0.0
        began = time.perf_counter()
        self.meter.running.reload(site)
        end: float = _LONGEST
        while (now := time.perf_counter() - began) < end:
            probes.append(self._probe(began))
            if probes[-1].new:
                end = min(end, (settled(probes) or now) + _BEYOND)
            if now > sampled + _SAMPLING:
                most, sampled = max(most, self._memory()), now
        until = settled(probes)
        if until is None:
            raise BenchmarkError(f"{self.meter.name} does not serve a new configuration in {_LONGEST} seconds")
        yield "reload", "until", until * 1000
        yield "reload", "longest", max(probe.ended - probe.began for probe in probes) * 1000
        yield "reload", "failed", sum(probe.new is None for probe in probes)
        yield "reload", "memory", max(most, self._memory()) / _MIB
        alive = sum(result["alive"] for result in together(self.clients, "count"))
        yield "reload", "lost", self._each(self.count) * len(self.clients) - alive

    def _probe(self, since: float) -> Probe:
        began = time.perf_counter() - since
        ended: list[float] = []
        new: list[bool] = []
        connection = self.meter.connection(self.tls)

        def script(connection: Connection) -> Script[None]:
            yield from login(connection, "user0")
            ended.append(time.perf_counter() - since)
            connection.send(b"a3 CAPABILITY\r\n")
            line = yield from connection.line()
            new.append(line.endswith(b" X-NEW"))
            yield from connection.untilTagged(b"a3")
            yield from logout(connection)

        try:
            run(iter([(connection, script(connection))]), 1)
        except BenchmarkError:
            connection.close()
            return Probe(began, time.perf_counter() - since, None)
        return Probe(began, ended[0], new[0])
