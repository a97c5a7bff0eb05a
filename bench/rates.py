# -*- test-case-name: bench.test.test_rates -*-
"""
A proxy under as many logins as it can serve, and under half of that.

The clients, the backend and the authentication service are written in Python, and need processors too. So each figure
says how many processors the proxy used: with fewer than its workers could use, something else was the limit. Its logins
per second of its own CPU do not depend on that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from statistics import median

from attrs import define, frozen

from bench.clients import Clients, together
from bench.measuring import Meter
from bench.processes import BenchmarkError
from bench.procfs import Processors, cpu

__all__ = ["KINDS", "Rate", "Saturation", "limit"]

KINDS = (("asked", False, ""), ("cached", False, "cached"), ("tls", True, ""))
"""The kinds of logins: the part of the key of measures, whether over TLS, and the variant of mailgate."""

_CONCURRENCY = 64
"""
Logins at a time, of each process of clients. A proxy that lets clients wait for a delayed acknowledgement needs many.
"""

_FULL = 0.9
"""The part of a processor's time from which on it counts as busy."""


@frozen
class Saturation:
    """
    One burst.

    @ivar perSecond: logins per second.
    @ivar processors: the processors that the proxy used.
    @ivar machine: the processors that all processes of the machine used.
    """

    perSecond: float
    processors: float
    machine: float

    @classmethod
    def of(cls, bursts: Sequence[Saturation]) -> Saturation:
        """The medians of several bursts."""
        return cls(
            median(one.perSecond for one in bursts),
            median(one.processors for one in bursts),
            median(one.machine for one in bursts),
        )

    def figures(self) -> Iterator[tuple[str, float]]:
        """The tables and their figures."""
        yield "rate", self.perSecond
        yield "processors", self.processors
        if self.processors:
            yield "efficiency", self.perSecond / self.processors


def limit(one: Saturation, workers: int, cores: int | None = None) -> list[str]:
    """What limited the logins per second, in words; nothing if the proxy did."""
    cores = os.cpu_count() or 1 if cores is None else cores
    # One core for each worker, as long as there are cores.
    if one.processors >= _FULL * min(workers, cores):
        return []
    used = f"the proxy used {one.processors:.2f} of {workers} processors"
    if one.machine >= _FULL * cores:
        return [f"limited by the machine: {used}, clients and services the rest of {cores}"]
    return [f"limited by the clients and services: {used}, all processes {one.machine:.2f} of {cores}"]


@define
class Rate:
    """
    A proxy with clients in their own processes.

    @ivar tls: whether the clients use TLS.
    """

    meter: Meter
    clients: Sequence[Clients]
    tls: bool

    def _aim(self) -> None:
        host, port = self.meter.running.tls if self.tls else self.meter.running.plain
        together(self.clients, "aim", host=host, port=port, tls=self.tls)

    def saturate(self, seconds: float) -> Saturation:
        """
        Log in as often as possible for some time.

        @raise BenchmarkError: a login failed, or the authentication service did not judge the expected number of
            logins.
        """
        self._aim()
        self.meter.logins(self.meter.concurrency, self.tls)
        asked, before = self.meter.counter.asked(), self.meter.settle()
        machine, began = Processors.now(), time.perf_counter()
        results = together(self.clients, "saturate", seconds=seconds, concurrency=_CONCURRENCY)
        taken = time.perf_counter() - began
        processors, busy = cpu(self.meter.running.pids) - before, Processors.now().busy - machine.busy
        done = sum(result["done"] for result in results)
        judged = self.meter.counter.asked() - asked
        if self.meter.running.proxy.asksAuth and judged != done:
            raise BenchmarkError(f"{self.meter.name} asked the authentication service {judged} times for {done} logins")
        lasted = max(result["seconds"] for result in results)
        return Saturation(done / lasted, processors / taken, busy / taken)

    def paced(self, rate: float, count: int) -> list[float]:
        """
        Log in C{count} times, C{rate} times a second, whether or not earlier logins have ended.

        @return: milliseconds from connect to the end of each login.
        @raise BenchmarkError: a login failed.
        """
        self._aim()
        self.meter.settle()
        shared = len(self.clients)
        results = together(self.clients, "paced", rate=rate / shared, count=count // shared)
        return [latency for result in results for latency in result["latencies"]]
