# -*- test-case-name: bench.test.test_measures -*-
"""
The measures: the rows of the table, with their goals, and the amount of work for one figure.
"""

from __future__ import annotations

from attrs import frozen

__all__ = ["BIG_BODY", "FETCHED", "GROUPS", "QUICK", "SMALL_BODY", "Measure", "Sizes", "measuresOf"]

_MIB = 1024 * 1024
BIG_BODY = 64 * _MIB
SMALL_BODY = 256 * 1024
FETCHED = {"memory": 64 * 1024, "latency": 16 * 1024}
"""The sizes of the messages that sessions fetch, by group."""

GROUPS = {
    "login": "CPU of a login (ms)",
    "relay": "CPU of relaying 1 GiB from backend to client (s)",
    "ping": "CPU of a round trip of 100 bytes (us)",
    "memory": "Memory of an idle session (bytes)",
    "latency": "Time that one client alone waits (ms)",
    "growth": "CPU of a plain login beside idle sessions (ms)",
    "worker": "One more worker of mailgate",
}
"""The groups that can be measured alone, with the unit of their figures."""


@frozen
class Measure:
    """
    A row.

    @ivar goal: the highest allowed ratio of mailgate's figure to nginx's.
    @ivar baseline: the key of the measure of nginx to compare with, if that is another one.
    @ivar variant: the way to run mailgate, one of L{bench.proxies.VARIANTS}.
    @ivar sessions: the number of idle sessions, if that matters.
    """

    key: str
    title: str
    goal: float | None = None
    baseline: str | None = None
    variant: str = ""
    sessions: int | None = None

    @property
    def group(self) -> str:
        return self.key.partition(".")[0]


@frozen
class Sizes:
    """The amount of work for one figure."""

    logins: int = 2000
    tlsLogins: int = 1000
    relayed: int = 256 * _MIB
    pings: int = 16000
    latencies: int = 100
    growthLogins: int = 1000
    sessions: tuple[int, ...] = (1000, 4000, 8000)


QUICK = Sizes(
    logins=300, tlsLogins=150, relayed=32 * _MIB, pings=1600, latencies=10, growthLogins=200, sessions=(100, 300)
)
"""Enough to see that everything runs; the figures mean little."""

_LOGIN = [
    Measure("login.plain", "plain", goal=1.3),
    Measure("login.plain.cached", "plain, auth cached", 0.9, "login.plain", "cached"),
    Measure("login.plain.info", "plain, info events logged", None, "login.plain", "info"),
    Measure("login.tls", "TLS, full handshake", goal=0.95),
    Measure("login.tls.cached", "TLS, full, auth cached", None, "login.tls", "cached"),
    Measure("login.resumed", "TLS, resumed", goal=0.95),
    Measure("login.resumed.cached", "TLS, resumed, auth cached", None, "login.resumed", "cached"),
    Measure("login.plain.behind", "plain, TLS to the backend, full", None, "login.plain", "TLS behind"),
    Measure("login.plain.behind.resumed", "plain, TLS to it, resumed", None, "login.plain", "TLS behind, resumed"),
    Measure("login.plain.behind.group", "plain, TLS to one of ten", None, "login.plain", "TLS behind, group"),
]

_RELAY = [
    Measure("relay.plain.big", "plain, 64 MiB bodies", goal=0.35),
    Measure("relay.plain.small", "plain, 256 KiB bodies", goal=0.35),
    Measure("relay.tls.big", "TLS, 64 MiB bodies", goal=0.55),
    Measure("relay.tls.small", "TLS, 256 KiB bodies", goal=0.55),
]

_PING = [
    Measure("ping.plain", "plain", goal=1.5),
    Measure("ping.tls", "TLS", goal=1.5),
]

_LATENCY = [
    Measure("latency.login.plain.p50", "login, plain, median"),
    Measure("latency.login.plain.p99", "login, plain, 99 %"),
    Measure("latency.login.tls.p50", "login, TLS, median", goal=0.1),
    Measure("latency.login.tls.p99", "login, TLS, 99 %"),
    Measure("latency.fetch.plain.p50", "16 KiB FETCH, plain, median", goal=0.05),
    Measure("latency.fetch.plain.p99", "16 KiB FETCH, plain, 99 %"),
    Measure("latency.fetch.tls.p50", "16 KiB FETCH, TLS, median", goal=0.05),
    Measure("latency.fetch.tls.p99", "16 KiB FETCH, TLS, 99 %"),
]


_WORKER = [
    Measure("worker.memory", "memory of its own (MiB)"),
    Measure("worker.start", "CPU until it serves (ms)"),
]


def _memory(counts: tuple[int, ...]) -> list[Measure]:
    kinds = (("plain", "plain", 0.1), ("tls", "TLS", 1.0))
    states = (("idle", ""), ("fetched", ", after a 64 KiB FETCH"))
    return [
        Measure(f"memory.{kind}.{state}.{count}", f"{title}{after}, {count:,} sessions", goal, sessions=count)
        for kind, title, goal in kinds
        for state, after in states
        for count in counts
    ]


def _growth(counts: tuple[int, ...]) -> list[Measure]:
    return [Measure(f"growth.{count}", f"{count:,} sessions", sessions=count) for count in (0, *counts)]


def measuresOf(group: str, sizes: Sizes) -> list[Measure]:
    """The rows of a group, in their order."""
    fixed = {"login": _LOGIN, "relay": _RELAY, "ping": _PING, "latency": _LATENCY, "worker": _WORKER}
    if group in fixed:
        return fixed[group]
    return _memory(sizes.sessions) if group == "memory" else _growth(sizes.sessions)
