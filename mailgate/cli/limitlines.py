# -*- test-case-name: mailgate.test.cli.test_limitlines -*-
"""
What C{mailgate explain} prints about limits: counters, what is known of the user, and which rule would act.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mailgate.cli.columns import shown
from mailgate.cli.moments import left, local
from mailgate.keeper.moments import secondsOf
from mailgate.process.tables import duration

__all__ = ["blocks", "counts", "dryRuns", "failures", "known", "verdict"]

_COUNTED = {"address": "address", "user": "user", "user_address": "user at address", "server": "server"}
_FAILED = {"pair": "pair", "address": "address", "users": "users of the address", "network": "network", "user": "user"}


def counts(limits: Mapping[str, Any]) -> list[str]:
    """
    Return the line about connections and sessions, such as C{address 3 of 100, user 4 of 50}; none without limits. With
    a store, it says what counts at other gateways: C{user 4 of 50 (3 more at other gateways)}.

    @param limits: C{limits} of a server.
    """
    words = [
        f"{word} {_of(limits[name], 'count')}{_elsewhere(limits[name])}"
        for name, word in _COUNTED.items()
        if isinstance(limits.get(name), dict)
    ]
    return [", ".join(words)] if words else []


def _of(row: Mapping[str, Any], name: str) -> str:
    limit = row.get("limit")
    return f"{shown(row.get(name))} of {shown(limit)}" if limit else f"{shown(row.get(name))}, no limit"


def _elsewhere(row: Mapping[str, Any]) -> str:
    if "elsewhere" not in row:
        return ""
    count = row["elsewhere"]
    return " (at other gateways not known)" if count is None else f" ({shown(count)} more at other gateways)"


def failures(limits: Mapping[str, Any], now: float) -> list[str]:
    """
    Return the line about failed logins, such as C{pair 1 of 10 (since 10:02:11)}; none without limits.

    @param limits: C{limits} of the explanation.
    @param now: the time in seconds since 1970.
    """
    return [", ".join(_failed(limits, now)) or "none"] if limits else []


def _failed(limits: Mapping[str, Any], now: float) -> Iterator[str]:
    for name, word in _FAILED.items():
        row = limits.get(name)
        if isinstance(row, dict) and row.get("failures"):
            since = f" (since {local(row['since'], now)})" if row.get("since") else ""
            whence = " from unknown networks" if name == "user" else ""
            quiet = f"; R6 and R7 only log for {duration(row['quiet'])} more" if row.get("quiet") else ""
            yield f"{word} {_of(row, 'failures')}{whence}{since}{quiet}"


def known(limits: Mapping[str, Any], hasAddress: bool, now: float) -> list[str]:
    """
    Return the line about what is known of the user at the address; none without limits.

    @param limits: C{limits} of the explanation.
    @param hasAddress: whether the question has an address.
    @param now: the time in seconds since 1970.
    """
    if not limits:
        return []
    if not hasAddress:
        return ["this depends on the address of the client: give --address"]
    if not limits.get("known"):
        return ["no: the user has not logged in from this network lately"]
    last = secondsOf(limits.get("last_success"))
    when = "" if last is None else f", last success {duration(max(0.0, now - last))} ago"
    return [f"yes: the user has logged in from this network{when}"]


def blocks(limits: Mapping[str, Any], now: float) -> list[str]:
    """
    Return a line for each block and hold that concerns the login.

    @param limits: C{limits} of the explanation.
    @param now: the time in seconds since 1970.
    """
    texts = []
    for row in limits.get("blocks") or []:
        reason = f": {shown(row['reason'])}" if row.get("reason") else ""
        thing, rule = shown(row.get("thing")), shown(row.get("rule"))
        texts.append(f"{thing} by {rule}, {left(row.get('until'), now)} left{reason} ({shown(row.get('id'))})")
    return texts


def dryRuns(limits: Mapping[str, Any]) -> list[str]:
    """
    Return what each rule would do if it had no dry run, such as C{R6 would delay by 5 s}.

    @param limits: C{limits} of the explanation.
    """
    return [shown(words) for words in limits.get("would") or []]


def verdict(limits: Mapping[str, Any]) -> list[str]:
    """
    Return what a rule would do with the login before anything is asked; nothing if none acts.

    @param limits: C{limits} of the explanation.
    """
    rule, action, seconds = limits.get("rule"), limits.get("action"), limits.get("seconds")
    if rule and action == "refuse":
        return [f"be refused by {shown(rule)}; without it:"]
    if rule and action == "wait":
        wait = duration(max(1.0, float(seconds))) if isinstance(seconds, int | float) else "some time"
        return [f"wait {wait} ({shown(rule)}), and then:"]
    return []
