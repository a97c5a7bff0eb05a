# -*- test-case-name: mailgate.test.keeper.test_overview -*-
"""
All that the live page shows, except for its plots and its list of sessions: C{GET /api/1/overview} and the events of
the page. It is found out at most once a second, however many viewers there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from mailgate.keeper.alarms import BUSY, Seen, alarms, withoutUsers
from mailgate.keeper.answers.page import TABLES
from mailgate.keeper.blockrows import blocksOf
from mailgate.keeper.fresh import Fresh
from mailgate.keeper.keeper import Collected, Keeper
from mailgate.keeper.limited import isSlowed
from mailgate.keeper.moments import isMoment, moment
from mailgate.keeper.quantiles import quantile
from mailgate.keeper.rows import backendRows, notReady, serverRows, serviceRows, workerRows
from mailgate.keeper.sessions import isSession
from mailgate.keeper.stats import WINDOW, numbers
from mailgate.keeper.sums import Values, writeTotals
from mailgate.log.journal import oneLine
from mailgate.watch.tokens import Level

__all__ = ["FRESH", "MOST_ROWS", "STUCK", "TABLE_NAMES", "Overview", "forLevel"]

STUCK = 5.0
"""Seconds after which a login that is under way is listed."""

MOST_ROWS = 100
"""The most rows of a table. C{more} has the number of those that are left out."""

FRESH = 0.9
"""Seconds for which an overview is good."""

WITHIN = 1.0
"""Seconds until a process must have answered."""

TABLE_NAMES = ("reload", "backends", "auth", "servers", "workers", "stuck", "blocks", "missing", "more")
"""The parts of the overview that the event C{tables} has, besides C{level}."""

_MINUTE = 60.0
_OK = "ok"
_CONNECT, _LOGIN = "mailgate_backend_connect_seconds", "mailgate_backend_login_seconds"
_AUTH, _CACHE = "mailgate_auth_seconds", "mailgate_auth_cache"


class Overview:
    """
    Finds out the overview.

    @param keeper: the keeper.
    @ivar refused: how many refused logins the keeper had got when it found out the last one. Those of later come as
        events: the overview may be older than a viewer.
    """

    def __init__(self, keeper: Keeper) -> None:
        self.refused = 0
        self._keeper = keeper
        self._fresh = Fresh(self._find, keeper.now, FRESH)

    def collect(self) -> Deferred[dict[str, Any]]:
        """
        Return the overview for the level C{operate}, as L{FRESH} as it may be.

        @return: fires with values of JSON, which are shared: do not change them. L{forLevel} makes what a caller gets.
        """
        return self._fresh.collect()

    def _find(self) -> Deferred[dict[str, Any]]:
        keeper = self._keeper
        asked = [keeper.ask("page", {"stuck": STUCK}, WITHIN), keeper.look(WITHIN)]
        return gatherResults(asked, consumeErrors=True).addCallback(self._made)

    def _made(self, answers: list[Collected]) -> dict[str, Any]:
        self.refused = self._keeper.stories.refused
        return _overview(self._keeper, answers[0])


def forLevel(overview: Mapping[str, Any], level: Level) -> dict[str, Any]:
    """
    Return what a caller may see.

    @param overview: the whole overview.
    @param level: the level of the caller.
    """
    if level >= Level.OPERATE:
        return {**overview, "level": level.word}
    hidden = {"stuck": None, "failures": None, "blocks": None, "alarms": withoutUsers(overview["alarms"])}
    return {**overview, "level": level.word, **hidden}


def _overview(keeper: Keeper, answer: Collected) -> dict[str, Any]:
    now = keeper.now()
    values = keeper.sums()
    parts = _parted(answer)
    ages = keeper.reportAges()
    reload = keeper.incidents.reload
    stats = numbers(writeTotals(values), keeper)
    lately = _Window.of(keeper, values, WINDOW)
    minute = _Window.of(keeper, values, _MINUTE)
    tables: dict[str, list[dict[str, Any]]] = {
        "backends": [*_backends(backendRows(parts["backends"]), lately, minute)],
        "auth": [*_services(serviceRows(parts["services"]), parts["services"], lately, minute)],
        "servers": [*_servers(serverRows(parts["servers"]), values)],
        "workers": [*_workers(workerRows(parts["process"]), parts["process"], ages)],
    }
    seen = Seen(
        now,
        **{name: tables[name] for name in ("backends", "auth", "servers")},
        ages=ages,
        notReady=notReady(parts["process"], parts["services"], parts["backends"]),
        busy=_busy(minute),
        store=stats["store"],
    )
    keeper.incidents.keepAttacks(lambda user: isSlowed(keeper, user))
    tables["stuck"], surplus = _stuck(answer, keeper.name)
    more = {name: len(rows) - MOST_ROWS for name, rows in tables.items() if len(rows) > MOST_ROWS}
    blocks, total = blocksOf(keeper.limits, MOST_ROWS)
    if total > MOST_ROWS:
        more["blocks"] = total - MOST_ROWS
    if surplus:
        more["stuck"] = more.get("stuck", 0) + surplus
    return {
        **{name: stats[name] for name in ("gateway", "version", "time", "uptime", "loaded")},
        "level": Level.OPERATE.word,
        "reload": None
        if reload is None
        else {"at": moment(reload.at), "done": reload.isDone, "reasons": [oneLine(each) for each in reload.reasons]},
        "stats": stats,
        "alarms": alarms(seen, keeper.incidents),
        **{name: rows[:MOST_ROWS] for name, rows in tables.items()},
        "failures": keeper.stories.latest(),
        "blocks": blocks,
        "missing": list(answer.missing),
        "more": more,
    }


def _parted(answer: Collected) -> dict[str, Collected]:
    """The answers to each question of L{TABLES}."""
    rows: dict[str, list[Any]] = {name: [] for name in TABLES}
    for row in answer.rows:
        if isinstance(row, dict) and isinstance(row.get("table"), str) and row["table"] in rows:
            rows[row["table"]].append(row)
    return {name: Collected(each) for name, each in rows.items()}


class _Window:
    """
    What metrics with the label of a backend or service have grown by.

    @ivar seconds: since when.
    """

    def __init__(self, values: Values, then: float, before: Values, now: float) -> None:
        self.seconds = now - then
        self._values = values
        self._before = before

    @classmethod
    def of(cls, keeper: Keeper, values: Values, seconds: float) -> _Window:
        now = keeper.now()
        return cls(values, *(keeper.wide.latest(now - seconds) or (now, {})), now)

    def grown(self, name: str) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Yield the labels of a metric, and the counts since then: a number, or those of each bucket."""
        before = self._before.get(name, {})
        for labels, value in self._values.get(name, {}).items():
            earlier = before.get(labels)
            if isinstance(value, list):
                counts = value[:-1]
                yield (
                    labels,
                    counts
                    if earlier is None
                    else [max(0, now - then) for now, then in zip(counts, earlier, strict=False)],
                )
            else:
                yield labels, max(0, value - (earlier or 0))

    def rate(self, count: float) -> float | None:
        """The events of a second."""
        return None if self.seconds < 1 else round(count / self.seconds, 3)


def _added(sums: dict[str, list[float]], name: str, counts: Sequence[float]) -> None:
    known = sums.get(name)
    sums[name] = list(counts) if known is None else [sum(each) for each in zip(known, counts, strict=True)]


def _backends(rows: Iterable[dict[str, Any]], lately: _Window, minute: _Window) -> Iterator[dict[str, Any]]:
    logins: dict[str, float] = {}
    for (backend, outcome), counts in lately.grown(_LOGIN):
        if outcome == _OK:
            logins[backend] = logins.get(backend, 0) + sum(counts)
    waits: dict[str, dict[str, list[float]]] = {_CONNECT: {}, _LOGIN: {}}
    errors: dict[str, dict[str, float]] = {}
    for metric, found in waits.items():
        for (backend, outcome), counts in minute.grown(metric):
            if outcome == _OK:
                _added(found, backend, counts)
            elif any(counts):
                kinds = errors.setdefault(backend, {})
                kinds[outcome] = kinds.get(outcome, 0) + sum(counts)
    for row in rows:
        address = row["address"]
        yield {
            **row,
            "logins_per_second": lately.rate(logins.get(address, 0)),
            "connect_p95": quantile(waits[_CONNECT].get(address, ()), 0.95),
            "login_p95": quantile(waits[_LOGIN].get(address, ()), 0.95),
            "errors_per_minute": {
                kind: round(_MINUTE * count / max(minute.seconds, 1), 1)
                for kind, count in errors.get(address, {}).items()
            },
        }


def _services(
    rows: Iterable[dict[str, Any]], found: Collected, lately: _Window, minute: _Window
) -> Iterator[dict[str, Any]]:
    asked: dict[str, float] = {}
    for (service, _), counts in lately.grown(_AUTH):
        asked[service] = asked.get(service, 0) + sum(counts)
    waits: dict[str, list[float]] = {}
    for (service, _), counts in minute.grown(_AUTH):
        _added(waits, service, counts)
    lookups = {result: count for (result,), count in minute.grown(_CACHE)}
    looked = sum(lookups.values())
    errors = _lastErrors(found)
    for row in rows:
        service = row["service"]
        yield {
            **row,
            "per_second": lately.rate(asked.get(service, 0)),
            "p95": quantile(waits.get(service, ()), 0.95),
            "cache_hits": round(lookups.get("hit", 0) / looked, 3) if looked else None,
            "last_error": errors.get(row["url"]),
        }


def _lastErrors(found: Collected) -> dict[str, dict[str, str]]:
    """The latest error of each service, by its URL."""
    latest: dict[str, tuple[float, str]] = {}
    for row in found.rows:
        error, url = row.get("error"), row.get("url")
        if not isinstance(error, list | tuple) or len(error) != 2 or not isinstance(url, str):
            continue
        text, at = error
        if isinstance(text, str) and isMoment(at):
            latest[url] = max(latest.get(url, (0.0, "")), (at, text))
    return {url: {"text": oneLine(text), "at": moment(at)} for url, (at, text) in latest.items()}


def _servers(rows: Iterable[dict[str, Any]], values: Values) -> Iterator[dict[str, Any]]:
    handshakes: dict[str, dict[tuple[str, str], float]] = {}
    for (server, version, result), count in values.get("mailgate_tls_handshakes", {}).items():
        if result != "failed" and count:
            handshakes.setdefault(server, {})[version, result] = count
    for row in rows:
        found = handshakes.get(row["name"], {})
        every = sum(found.values())
        versions: dict[str, float] = {}
        for (version, _), count in sorted(found.items()):
            versions[version] = versions.get(version, 0) + count
        resumed = sum(count for (_, result), count in found.items() if result == "resumed")
        yield {
            **row,
            "tls": {version: round(count / every, 3) for version, count in versions.items()},
            "resumed": round(resumed / every, 3) if every else None,
            "refused": values.get("mailgate_connections_limited", {}).get((row["name"],), 0),
        }


def _busy(minute: _Window) -> list[str]:
    """The limits that refuse many clients."""
    counts: Counter[str] = Counter()
    for (rule, action), count in minute.grown("mailgate_limited"):
        if action == "refused":
            counts[rule] += count
    return [rule for rule, count in counts.items() if count * _MINUTE > BUSY * max(minute.seconds, 1)]


def _workers(
    rows: Iterable[dict[str, Any]], found: Collected, ages: Mapping[str, tuple[int, float]]
) -> Iterator[dict[str, Any]]:
    loads = {row.get("worker"): row for row in found.rows}
    for row in rows:
        load, age = loads.get(row["worker"], {}), ages.get(row["worker"])
        yield {
            **row,
            "cpu_share": _number(load.get("cpu_share")),
            "lag": _number(load.get("lag")),
            # Whole seconds: the page gets a table again if it changes.
            "report_age": None if age is None else int(age[1]),
        }


def _number(value: Any) -> float | None:
    return value if type(value) in (int, float) and 0 <= value < 2**31 else None


def _stuck(answer: Collected, gateway: str) -> tuple[list[dict[str, Any]], int]:
    """The logins that take long, those that take longest first, and how many more there are."""
    rows: list[dict[str, Any]] = []
    surplus = 0
    for row in answer.rows:
        if not isinstance(row, dict):
            continue
        if row.get("table") == "stuck" and isSession(row) and _number(row.get("waiting")) is not None:
            shown = {name: value for name, value in row.items() if name not in ("table", "at")}
            rows.append({**shown, "gateway": gateway})
        elif row.get("table") == "more" and type(row.get("more")) is int:
            surplus += max(0, min(row["more"], 10**6))
    rows.sort(key=lambda row: -row["waiting"])
    return rows, surplus
