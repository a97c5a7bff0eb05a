# -*- test-case-name: mailgate.test.keeper.test_alarms -*-
"""
The alarms of the live page: what an operator must look at, and since when.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from mailgate.keeper.incidents import MOST_ALARMS, Incidents
from mailgate.keeper.moments import moment, secondsOf
from mailgate.keeper.rows import NO_BACKEND, NO_PROCESS, NO_SERVICE
from mailgate.log.journal import oneLine
from mailgate.store.interfaces import DEAD, whyUnused
from mailgate.upstream.peer import PeerState

__all__ = ["ATTACK", "BUSY", "LATE", "Seen", "alarms", "withoutUsers"]

ATTACK = "user_under_attack"
"""The kind of the alarms that name users."""

BUSY = 100
"""Clients that a limit refuses in a minute, from which it is an alarm: an attack, or a limit that is too low."""

LATE = 5.0
"""Seconds after which a process that has not reported is an alarm. It reports once a second."""

_DAY = 86_400
_WARNED, _URGENT = 14 * _DAY, 3 * _DAY
"""Seconds before the end of a certificate."""

_RESTARTS = 3
"""So many restarts of workers within L{_LATELY} seconds are an alarm."""
_LATELY = 600.0

_ORDERED = "mailgate backend "
"""The beginning of the reason if an operator has ordered the state."""

_LONGEST_ID = 300

_KINDS = {NO_PROCESS: "worker", NO_SERVICE: "auth", NO_BACKEND: "backend"}


@frozen
class Seen:
    """
    What the alarms are made of.

    @ivar now: the time in seconds since 1970.
    @ivar backends: the rows of the backends.
    @ivar auth: the rows of the authentication services.
    @ivar servers: the rows of the servers.
    @ivar ages: for each process its process id, and the seconds since its last report.
    @ivar notReady: why clients cannot log in.
    @ivar busy: the limits that refuse more than L{BUSY} clients a minute.
    @ivar store: how the store and the gateways are (L{mailgate.keeper.interfaces.IOthers.standing}); L{None} without a
        store.
    """

    now: float
    backends: Sequence[Mapping[str, Any]] = ()
    auth: Sequence[Mapping[str, Any]] = ()
    servers: Sequence[Mapping[str, Any]] = ()
    ages: Mapping[str, tuple[int, float]] = {}
    notReady: Sequence[str] = ()
    busy: Sequence[str] = ()
    store: Mapping[str, Any] | None = None


@frozen
class _Alarm:
    """One alarm, without its beginning, which stays the same while the alarm lasts."""

    id: str
    severity: str
    kind: str
    text: str
    since: float


def alarms(seen: Seen, incidents: Incidents) -> list[dict[str, Any]]:
    """
    Return the alarms, the critical ones first, and then the earliest first: C{id} stays the same while the alarm lasts;
    C{severity} is C{critical} or C{warning}; C{kind} is C{backend}, C{auth}, C{certificate}, C{worker}, C{reload},
    C{report}, L{ATTACK}, C{limit}, C{store} or C{gateway}; C{text}; C{since}, RFC 3339.

    @param seen: what they are made of.
    @param incidents: what has happened to the gateway. It remembers when alarms began.
    """
    found = {each.id: each for each in _found(seen, incidents)}
    kept = sorted(found.values(), key=lambda each: (each.severity != "critical", each.since, each.id))[:MOST_ALARMS]
    incidents.over(each.id for each in kept)
    return [
        {
            "id": each.id,
            "severity": each.severity,
            "kind": each.kind,
            "text": oneLine(each.text),
            "since": moment(incidents.since(each.id, each.since)),
        }
        for each in kept
    ]


def _found(seen: Seen, incidents: Incidents) -> Iterator[_Alarm]:
    for reason in seen.notReady:
        kind = _KINDS.get(reason, "worker")
        yield _Alarm(f"ready {kind}", "critical", kind, f"clients cannot log in: {reason}", seen.now)
    yield from _backends(seen)
    yield from _services(seen)
    yield from _certificates(seen)
    yield from _processes(seen, incidents)
    if seen.store is not None:
        yield from _gateways(seen.now, seen.store)
    for user, began in incidents.attacks.items():
        yield _Alarm(f"attack {user}"[:_LONGEST_ID], "warning", ATTACK, f"{_GUESSED} user {user}{_SLOWED}", began)
    for rule in seen.busy:
        text = f"{rule} refuses more than {BUSY} clients a minute: an attack, or a limit that is too low"
        yield _Alarm(f"limit {rule}", "warning", "limit", text, seen.now)


def _backends(seen: Seen) -> Iterator[_Alarm]:
    for row in seen.backends:
        state, reason = row["state"], row["reason"]
        if state not in (PeerState.DOWN.value, PeerState.RESTING.value):
            continue
        isCritical = state == PeerState.DOWN.value and not reason.startswith(_ORDERED)
        what = "is down" if state == PeerState.DOWN.value else "rests after failures"
        yield _Alarm(
            f"backend {row['group']} {row['address']} {row['server']}".strip()[:_LONGEST_ID],
            "critical" if isCritical else "warning",
            "backend",
            f"backend {row['address']} {what}{f': {reason}' if reason else ''}",
            seen.now - (row["seconds"] or 0),
        )


def _services(seen: Seen) -> Iterator[_Alarm]:
    areAll = all(row["state"] != "up" for row in seen.auth)
    for row in seen.auth:
        if row["state"] == "up":
            continue
        error = row.get("last_error")
        reason = f": it {error['text']}" if error else ""
        yield _Alarm(
            f"auth {row['url']}"[:_LONGEST_ID],
            "critical" if areAll else "warning",
            "auth",
            f"authentication service {row['service']} does not answer{reason}",
            seen.now,
        )


def _certificates(seen: Seen) -> Iterator[_Alarm]:
    for server in seen.servers:
        for each in server["certificates"]:
            end = secondsOf(each["not_after"])
            if end is None or (left := end - seen.now) > _WARNED:
                continue
            days = int(left // _DAY)
            when = f"ends in {days} days" if days > 1 else "ends in 1 day" if days == 1 else "ends within a day"
            yield _Alarm(
                f"certificate {server['name']} {each['name']}"[:_LONGEST_ID],
                "critical" if left <= _URGENT else "warning",
                "certificate",
                f"certificate {each['name']} of server {server['name']} {when if left > 0 else 'has ended'}",
                end - _WARNED if left > 0 else end,
            )


def _processes(seen: Seen, incidents: Incidents) -> Iterator[_Alarm]:
    restarts = [each for each in incidents.restarts if 0 <= seen.now - each < _LATELY]
    if len(restarts) >= _RESTARTS:
        text = "workers were started anew several times in the last ten minutes; the error log has the reasons"
        yield _Alarm("worker restarts", "warning", "worker", text, restarts[0])
    reload = incidents.reload
    if reload is not None and not reload.isDone:
        reason = f": {reload.reasons[0]}" if reload.reasons else ""
        text = f"reload refused{reason}; the previous configuration stays active"
        yield _Alarm(f"reload {reload.at:.0f}", "warning", "reload", text, reload.at)
    for name, (pid, age) in seen.ages.items():
        if age > LATE:
            text = f"process {pid} does not report; its numbers are out of date"
            yield _Alarm(f"report {name}", "warning", "report", text, seen.now - age)


def _gateways(now: float, store: Mapping[str, Any]) -> Iterator[_Alarm]:
    if not store["up"]:
        text = f"{whyUnused(store['reason'])}; each gateway decides by itself, and lists lack the others"
        yield _Alarm("store", "warning", "store", text, secondsOf(store["since"]) or now)
        return
    for each in store["gateways"]:
        if each["age"] >= DEAD:
            text = f"gateway {each['name']} is silent; its sessions are in no list"
            yield _Alarm(f"gateway {each['name']}", "warning", "gateway", text, now - each["age"])


_GUESSED = "passwords are guessed from many networks for"
_SLOWED = ": R6 slows logins from unknown networks down, or says in the log what it would do"


def withoutUsers(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """
    Return alarms for those who may not see the names of users.

    @param found: what L{alarms} returns. The alarms that name users become one.
    """
    kept: dict[str, Mapping[str, Any]] = {}
    for each in found:
        if each["kind"] == ATTACK:
            each = {**each, "id": "attack", "text": f"{_GUESSED} a user{_SLOWED}"}
        kept.setdefault(each["id"], each)
    return list(kept.values())
