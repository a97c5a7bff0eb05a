# -*- test-case-name: mailgate.test.process.test_tables -*-
"""
How commands print the backends that the gateway knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from mailgate.log.journal import oneLine

__all__ = ["duration", "objects", "standing", "table"]

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def duration(seconds: float | None) -> str:
    """
    Return a duration in its two largest units, such as C{3h12m}; C{-} for L{None}.

    @param seconds: the duration.
    """
    if seconds is None:
        return "-"
    rest, parts = int(seconds), []
    for unit, length in _UNITS:
        number, rest = divmod(rest, length)
        if number:
            parts.append(f"{number}{unit}")
        elif parts:
            break
    return "".join(parts[:2]) or "0s"


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """
    Return backends as a table for operators. Control characters in texts from the network are escaped.

    @param rows: the backends, with the keys of L{Row<mailgate.upstream.standing.Row>}.
    """
    lines: list[Sequence[str]] = [("GROUP", "ADDRESS", "STATE", "SINCE", "SESSIONS", "REASON")]
    for row in rows:
        texts = (row["group"], row["address"], row["state"], duration(row["seconds"]), row["sessions"], row["reason"])
        lines.append([oneLine(str(text)) for text in texts])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(cells, widths) for cells in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    group, address, state, since, sessions, reason = cells
    words = (
        group.ljust(widths[0]),
        address.ljust(widths[1]),
        state.ljust(widths[2]),
        since.ljust(widths[3]),
        sessions.rjust(widths[4]),
        reason,
    )
    return "  ".join(words).rstrip()


def standing(row: Mapping[str, Any]) -> str:
    """
    Return a sentence about one backend, such as C{10.0.0.1:143 (store): drain; 12 sessions continue}.

    @param row: the backend, with the keys of L{Row<mailgate.upstream.standing.Row>}; C{isLast} if no server of its
        group gets new sessions.
    """
    sessions = row["sessions"]
    what = f"{sessions} session{'' if sessions == 1 else 's'}"
    if row["state"] == "drain":
        what += " continues" if sessions == 1 else " continue"
    group = "outside of groups" if row["group"] == "-" else row["group"]
    if row.get("isLast"):
        what += f"; no server of {group} gets new sessions now, and its logins get a temporary failure"
    return oneLine(f"{row['address']} ({group}): {row['state']}; {what}")


def objects(rows: Iterable[Mapping[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """
    Return backends as values of JSON, for programs.

    @param rows: the backends, with the keys of L{Row<mailgate.upstream.standing.Row>}.
    @param now: the time in UTC.
    @return: an object for each, with C{group} (null outside of groups), C{address}, C{server} (as the configuration has
        it), C{state}, C{since} (RFC 3339; null if the state has never changed), C{seconds}, C{sessions}, C{weight} and
        C{reason}.
    """
    return [
        {
            "group": None if row["group"] == "-" else row["group"],
            "address": row["address"],
            "server": row["server"] or row["address"],
            "state": row["state"],
            "since": _moment(now, row["seconds"]),
            "seconds": row["seconds"],
            "sessions": row["sessions"],
            "weight": row["weight"],
            "reason": row["reason"],
        }
        for row in rows
    ]


def _moment(now: datetime, seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return (now - timedelta(seconds=seconds)).astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
