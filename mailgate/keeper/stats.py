# -*- test-case-name: mailgate.test.keeper.test_stats -*-
"""
The most important numbers of the gateway: C{GET /api/1/stats}, C{mailgate stats}, C{mailgate status} and the live page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from mailgate._version import __version__
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.moments import moment
from mailgate.keeper.quantiles import quantile
from mailgate.keeper.sums import Values
from mailgate.watch.distinct import size
from mailgate.watch.metrics import LOGIN_OUTCOMES, named
from mailgate.watch.tally import Totals

__all__ = ["WINDOW", "numbers", "stats"]

WINDOW = 10.0
"""Seconds over which rates are computed."""

_DIRECTIONS = ("from_client", "to_client")
_WAIT = "mailgate_login_seconds"
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def stats(keeper: Keeper) -> Deferred[dict[str, Any]]:
    """
    Return the numbers, as values of JSON. Rates are those of the last L{WINDOW} seconds, or of the time since the
    keeper began if that is shorter; L{None} before the first second.

    @param keeper: the keeper.
    @return: fires with the numbers: C{gateway}, C{version}, C{time}, C{uptime} (seconds), C{loaded} (when the
        configuration was loaded), C{sessions} (C{total}, C{relayed}, and C{by_protocol} with C{total} and C{phases}),
        C{users}, C{connections} (C{total}, C{per_second}), C{logins} (the same for each outcome), C{login_wait}
        (C{p50}, C{p95}, C{p99} in seconds over the window, L{None} without logins; the same with C{total_} before their
        names since the start),
        C{bytes} (C{total}, C{per_second} for each direction), C{workers} (C{serving}, C{retiring}, C{restarts}),
        C{backends} (C{up}, C{down}, C{draining}), C{store} (L{None} without one: C{up}, C{since}, C{reason}, and
        C{gateways}: C{name} and C{age} of each gateway, in seconds since it was heard of, this one first).
    """
    return keeper.scrape().addCallback(numbers, keeper)


def numbers(totals: Totals, keeper: Keeper) -> dict[str, Any]:
    """
    Return what L{stats} returns, of metrics that are known already.

    @param totals: the metrics of the gateway.
    @param keeper: the keeper.
    """
    now = keeper.now()
    before = keeper.history.since(now - WINDOW)
    window = _Window(totals, *(before or (now, {})), now)
    return {
        "gateway": keeper.name,
        "version": __version__,
        "time": moment(now),
        "uptime": round(max(0.0, now - keeper.began), 1),
        "loaded": moment(keeper.loaded),
        "sessions": _sessions(totals),
        "users": sum(size(value) for _, value in totals.get("mailgate_users", ())),
        "connections": window.rated("mailgate_connections"),
        "logins": {outcome: window.rated("mailgate_logins", outcome=outcome) for outcome in LOGIN_OUTCOMES},
        "login_wait": window.wait(),
        "bytes": {direction: window.rated("mailgate_relayed_bytes", direction=direction) for direction in _DIRECTIONS},
        "workers": {
            "serving": _sum(totals, "mailgate_workers", state="serving"),
            "retiring": _sum(totals, "mailgate_workers", state="retiring"),
            "restarts": _sum(totals, "mailgate_worker_restarts"),
        },
        "backends": {
            "up": _sum(totals, "mailgate_backend_up"),
            "down": sum(not value for _, value in totals.get("mailgate_backend_up", ())),
            "draining": _sum(totals, "mailgate_backend_draining"),
        },
        "store": None if keeper.others is None else keeper.others.standing(),
    }


def _number(value: float) -> int | float:
    return int(value) if value == int(value) else value


def _chosen(name: str, rows: Iterable[Sequence[Any]], chosen: Mapping[str, str]) -> Iterable[Any]:
    """Yield the values of a metric that have these labels."""
    places = [(named(name).labels.index(label), value) for label, value in chosen.items()]
    return (value for labels, value in rows if all(labels[place] == wanted for place, wanted in places))


def _sum(totals: Totals, name: str, **chosen: str) -> Any:
    return sum(_chosen(name, totals.get(name, ()), chosen))


def _sessions(totals: Totals) -> dict[str, Any]:
    protocols: dict[str, Any] = {}
    for (protocol, phase), value in totals.get("mailgate_sessions", ()):
        found = protocols.setdefault(protocol, {"total": 0, "phases": {}})
        found["total"] += value
        if value:
            found["phases"][phase] = found["phases"].get(phase, 0) + value
    return {
        "total": sum(each["total"] for each in protocols.values()),
        "relayed": sum(each["phases"].get("relay", 0) for each in protocols.values()),
        "by_protocol": protocols,
    }


class _Window:
    """What has changed since an earlier time."""

    def __init__(self, totals: Totals, then: float, before: Values, now: float) -> None:
        self._totals = totals
        self._before = before
        self._seconds = now - then

    def _earlier(self, name: str) -> Iterable[Sequence[Any]]:
        return self._before.get(name, {}).items()

    def rated(self, name: str, **chosen: str) -> dict[str, Any]:
        """Return the sum of a counter, and its rate."""
        total = _sum(self._totals, name, **chosen)
        if self._seconds < 1:
            return {"total": total, "per_second": None}
        grown = total - sum(_chosen(name, self._earlier(name), chosen))
        return {"total": total, "per_second": round(max(0, grown) / self._seconds, 3)}

    def wait(self) -> dict[str, Any]:
        """Return how long users wait for their logins."""
        total = [sum(each) for each in zip(*(value[:-1] for _, value in self._totals.get(_WAIT, ())), strict=True)]
        before = [sum(each) for each in zip(*(value[:-1] for _, value in self._earlier(_WAIT)), strict=True)]
        recent = [now - then for now, then in zip(total, before or [0] * len(total), strict=True)]
        return {
            **{name: quantile(recent, share) for name, share in _SHARES.items()},
            **{f"total_{name}": quantile(total, share) for name, share in _SHARES.items()},
        }
