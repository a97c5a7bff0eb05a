# -*- test-case-name: bench.test.test_measures -*-
"""
The measures: the rows of the table, with their goals, and the amount of work for one figure.
"""

from __future__ import annotations

from attrs import frozen

__all__ = [
    "BIG_BODY",
    "FETCHED",
    "GROUPS",
    "QUICK",
    "SHORT",
    "SMALL_BODY",
    "TABLES",
    "Measure",
    "SiteSet",
    "Sizes",
    "measuresOf",
    "siteCount",
]

_MIB = 1024 * 1024
BIG_BODY = 64 * _MIB
SMALL_BODY = 256 * 1024
FETCHED = {"memory": 64 * 1024, "latency": 16 * 1024}
"""The sizes of the messages that sessions fetch, by group."""

GROUPS = ("login", "relay", "ping", "memory", "latency", "growth", "worker", "rate", "site")
"""The groups that can be measured alone, in their order."""

TABLES = {
    "login": "CPU of a login (ms)",
    "relay": "CPU of relaying 1 GiB from backend to client (s)",
    "ping": "CPU of a round trip of 100 bytes (us)",
    "memory": "Memory of an idle session (bytes)",
    "latency": "Time that one client alone waits (ms)",
    "growth": "CPU of a plain login beside idle sessions (ms)",
    "worker": "One more worker of mailgate",
    "rate": "Logins per second at saturation",
    "processors": "Processors that the proxy used for it",
    "efficiency": "Logins per second of the proxy's CPU",
    "half": "Time to log in at half the rate (ms)",
    "idle": "As many idle sessions as descriptors permit",
    "busy": "1,000 of them fetch 16 KiB each second",
    "reload": "A reload with all of them connected",
}
"""The tables, with what their figures are. The first part of a measure's key names its table."""

SHORT = {
    "login": "login CPU",
    "relay": "relay CPU",
    "ping": "100-byte ping-pong CPU",
    "memory": "memory",
    "latency": "latency",
    "growth": "login CPU beside idle sessions",
    "worker": "new worker",
    "rate": "logins per second",
    "processors": "processors at saturation",
    "efficiency": "logins per second of CPU",
    "half": "login at half the rate",
    "idle": "idle",
    "busy": "fetching",
    "reload": "reload",
}
"""Short names of the tables."""

_FURTHER = {
    "processors": "rate",
    "efficiency": "rate",
    "half": "rate",
    "idle": "site",
    "busy": "site",
    "reload": "site",
}
"""The groups of tables that have not the name of their group."""


@frozen
class Measure:
    """
    A row.

    @ivar goal: the highest allowed ratio of mailgate's figure to nginx's.
    @ivar baseline: the key of the measure of nginx to compare with, if that is another one.
    @ivar variant: the way to run mailgate, one of L{bench.proxies.VARIANTS}.
    @ivar sessions: the number of idle sessions, if that matters.
    @ivar goalBefore: the highest allowed ratio of mailgate's figure to that of the tree before. 1 means no worse: the
        lower quartile of the ratios must reach it.
    """

    key: str
    title: str
    goal: float | None = None
    baseline: str | None = None
    variant: str = ""
    sessions: int | None = None
    goalBefore: float | None = None

    @property
    def table(self) -> str:
        """Its table, one of L{TABLES}."""
        return self.key.partition(".")[0]

    @property
    def group(self) -> str:
        """The group with which it is measured, one of L{GROUPS}."""
        return _FURTHER.get(self.table, self.table)


@frozen
class SiteSet:
    """
    Sessions that are held at the same time.

    @ivar workers: the workers that hold them.
    """

    workers: int
    tls: bool

    @property
    def key(self) -> str:
        """The end of the keys of its measures."""
        return f"{'tls' if self.tls else 'plain'}.{self.workers}"


@frozen
class Sizes:
    """
    The amount of work for one figure.

    @ivar renew: the bursts after which all proxies are restarted, as two processes of the same code differ.
    @ivar saturated: the seconds of one burst of saturation.
    @ivar halfLogins: the logins of one burst at half the rate.
    @ivar rateRepeats: the bursts of each kind of saturation.
    @ivar siteSets: the sessions of the group C{site}.
    @ivar site: the sessions of one worker in the group C{site}; 0 for as many as descriptors permit.
    @ivar siteBusy: the sessions that fetch.
    @ivar siteSeconds: the seconds of keeping sessions, and of fetching.
    """

    logins: int = 400
    tlsLogins: int = 200
    relayed: int = 128 * _MIB
    pings: int = 4000
    latencies: int = 60
    growthLogins: int = 1000
    sessions: tuple[int, ...] = (1000, 4000)
    renew: int = 4
    saturated: float = 0.8
    halfLogins: int = 400
    rateRepeats: int = 5
    siteSets: tuple[SiteSet, ...] = (SiteSet(1, False), SiteSet(2, False), SiteSet(1, True))
    site: int = 0
    siteBusy: int = 1000
    siteSeconds: int = 4
    siteLogins: int = 200


QUICK = Sizes(
    logins=100,
    tlsLogins=50,
    relayed=32 * _MIB,
    pings=1600,
    latencies=10,
    growthLogins=100,
    sessions=(100, 300),
    saturated=0.2,
    halfLogins=50,
    rateRepeats=1,
    siteSets=(SiteSet(1, False), SiteSet(2, False)),
    site=300,
    siteBusy=100,
    siteSeconds=1,
    siteLogins=20,
)
"""Enough to see that everything runs; the figures mean little."""

_LOGIN = [
    Measure("login.plain", "plain", goal=1.3, goalBefore=0.65),
    Measure("login.plain.cached", "plain, auth cached", 0.9, "login.plain", "cached", goalBefore=0.75),
    Measure("login.plain.info", "plain, info events logged", None, "login.plain", "info"),
    Measure("login.tls", "TLS, full handshake", goal=0.95, goalBefore=0.85),
    Measure("login.tls.cached", "TLS, full, auth cached", None, "login.tls", "cached"),
    Measure("login.resumed", "TLS, resumed", goal=0.95, goalBefore=0.85),
    Measure("login.resumed.cached", "TLS, resumed, auth cached", None, "login.resumed", "cached"),
    Measure("login.plain.behind", "plain, TLS to the backend, full", None, "login.plain", "TLS behind"),
    Measure("login.plain.behind.resumed", "plain, TLS to it, resumed", None, "login.plain", "TLS behind, resumed"),
    Measure("login.plain.behind.group", "plain, TLS to one of ten", None, "login.plain", "TLS behind, group"),
]

_RELAY = [
    Measure("relay.plain.big", "plain, 64 MiB bodies", goal=0.35, goalBefore=1),
    Measure("relay.plain.small", "plain, 256 KiB bodies", goal=0.35, goalBefore=1),
    Measure("relay.tls.big", "TLS, 64 MiB bodies", goal=0.55, goalBefore=1),
    Measure("relay.tls.small", "TLS, 256 KiB bodies", goal=0.55, goalBefore=1),
]

_PING = [
    Measure("ping.plain", "plain", goal=1.5, goalBefore=0.9),
    Measure("ping.tls", "TLS", goal=1.5, goalBefore=0.8),
]

_LATENCY = [
    Measure("latency.login.plain.p50", "login, plain, median", goalBefore=1),
    Measure("latency.login.plain.p99", "login, plain, 99 %"),
    Measure("latency.login.tls.p50", "login, TLS, median", goal=0.1, goalBefore=1),
    Measure("latency.login.tls.p99", "login, TLS, 99 %"),
    Measure("latency.fetch.plain.p50", "16 KiB FETCH, plain, median", goal=0.05, goalBefore=1),
    Measure("latency.fetch.plain.p99", "16 KiB FETCH, plain, 99 %"),
    Measure("latency.fetch.tls.p50", "16 KiB FETCH, TLS, median", goal=0.05, goalBefore=1),
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
        Measure(
            f"memory.{kind}.{state}.{count}", f"{title}{after}, {count:,} sessions", goal, sessions=count, goalBefore=1
        )
        for kind, title, goal in kinds
        for state, after in states
        for count in counts
    ]


def _growth(counts: tuple[int, ...]) -> list[Measure]:
    return [Measure(f"growth.{count}", f"{count:,} sessions", sessions=count) for count in (0, *counts)]


_KINDS = (("asked", "plain, asked", ""), ("cached", "plain, cached", "cached"), ("tls", "TLS, asked", ""))
"""The kinds of logins of the group C{rate}: the part of the key, the title, and the variant of mailgate."""

_WORKERS = (1, 2)


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"


def _rate() -> list[Measure]:
    rows: list[Measure] = []
    percentiles = (("p50", ", median"), ("p99", ", 99 %"), ("p999", ", 99.9 %"))
    tables = (("rate", (("", ""),)), ("processors", (("", ""),)), ("efficiency", (("", ""),)), ("half", percentiles))
    for table, parts in tables:
        for workers in _WORKERS:
            for kind, title, variant in _KINDS:
                for part, named in parts:
                    end = f".{workers}{'.' * bool(part)}{part}"
                    baseline = f"{table}.asked{end}" if variant else None
                    rows.append(
                        Measure(f"{table}.{kind}{end}", f"{title}, {_workers(workers)}{named}", None, baseline, variant)
                    )
    return rows


_SITE = (
    ("idle", "memory", "memory of one (bytes)", 1.0),
    ("idle", "total", "memory of the proxy (MiB)", None),
    ("idle", "cpu", "CPU of keeping them (ms a second)", None),
    ("idle", "p50", "a login beside them, median (ms)", None),
    ("idle", "p99", "a login beside them, 99 % (ms)", None),
    ("busy", "cpu", "CPU of a message (us)", None),
    ("busy", "p50", "a login beside them, median (ms)", None),
    ("busy", "p99", "a login beside them, 99 % (ms)", None),
    ("reload", "until", "until the new configuration serves all logins (ms)", None),
    ("reload", "longest", "longest login meanwhile (ms)", None),
    ("reload", "failed", "failed logins", None),
    ("reload", "lost", "lost sessions", None),
    ("reload", "memory", "most memory of the proxy (MiB)", None),
)
"""The figures of a set of sessions: table, end of the key, title, and goal against the tree before."""


def siteCount(one: SiteSet, sizes: Sizes, openFiles: int) -> int:
    """
    The number of sessions of a set.

    @param openFiles: the descriptors of a process. A proxy uses two for a session. The rest is for logins, and for
        sessions that are not spread evenly over the workers.
    """
    each = sizes.site or (openFiles - openFiles // 20) // 2
    return each * one.workers


def _site(sizes: Sizes, openFiles: int) -> list[Measure]:
    rows = []
    for table in ("idle", "busy", "reload"):
        for one in sizes.siteSets:
            count = siteCount(one, sizes, openFiles)
            head = f"{count:,} {'TLS' if one.tls else 'plain'}, {_workers(one.workers)}"
            for other, end, title, goal in _SITE:
                if other == table:
                    key = f"{table}.{one.key}.{end}"
                    rows.append(Measure(key, f"{head}: {title}", sessions=count, goalBefore=goal))
    return rows


def measuresOf(group: str, sizes: Sizes, openFiles: int = 20000) -> list[Measure]:
    """
    The rows of a group, in their order.

    @param openFiles: the descriptors of a process, on which the number of sessions depends.
    """
    fixed = {"login": _LOGIN, "relay": _RELAY, "ping": _PING, "latency": _LATENCY, "worker": _WORKER}
    if group in fixed:
        return fixed[group]
    if group == "rate":
        return _rate()
    if group == "site":
        return _site(sizes, openFiles)
    return _memory(sizes.sessions) if group == "memory" else _growth(sizes.sessions)
