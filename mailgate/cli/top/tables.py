# -*- test-case-name: mailgate.test.cli.top.test_tables -*-
"""
The tables of the page: which rows of an overview they have, and what stands in their columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from attrs import field, frozen

from mailgate.cli.columns import amount
from mailgate.cli.figures import count, rate, seconds, share
from mailgate.cli.top.text import Look, Marks
from mailgate.cli.top.values import Row, ago, clockTime, mapping, number, rows, text
from mailgate.keeper.moments import secondsOf
from mailgate.process.tables import duration

__all__ = ["TABLES", "Field", "Table", "rowsOf", "stateLook"]

_LOOKS = {
    **dict.fromkeys(("up", "accepts"), Look.GOOD),
    **dict.fromkeys(("down", "resting", "failing"), Look.BAD),
    **dict.fromkeys(("drain", "draining", "drains"), Look.WARN),
}

_SOON = 14 * 86400.0
"""Seconds before its end at which a certificate needs attention."""

_LAGGING = 0.1
"""Seconds that a process may be late before it needs attention."""

Value: TypeAlias = Callable[[Row, "float | None"], Any]
"""Returns a value of a row. Its arguments are the row, and the time of the gateway in seconds since 1970."""


@frozen
class Field:
    """
    A column of a table.

    @ivar title: the text above it.
    @ivar value: returns the value to sort by.
    @ivar text: makes a text of the value.
    @ivar isNumber: whether texts are aligned at the right.
    @ivar isFlexible: whether texts may be cut.
    @ivar rank: columns of the highest ranks are left out first where the terminal is narrow; 0: never.
    @ivar isState: whether the texts are states, which have shapes.
    @ivar look: returns how the text of a row looks.
    @ivar isEscaped: whether the gateway has made the texts printable.
    """

    title: str
    value: Value
    text: Callable[[Any], Any] = lambda value: value
    isNumber: bool = False
    isFlexible: bool = False
    rank: int = 0
    isState: bool = False
    look: Callable[[Row, float | None], Look] = lambda row, now: Look.PLAIN
    isEscaped: bool = False


@frozen
class Table:
    """
    A table of the page.

    @ivar key: the key that shows it.
    @ivar name: the plural of what its rows are; the first word stands in the list of tables.
    @ivar short: a shorter word for narrow terminals.
    @ivar member: the member of the overview that has its rows.
    @ivar identity: returns the text by which a row is known again in the next overview.
    @ivar sorting: the number of the column that it is sorted by, and whether its values descend; -1: as they came.
    @ivar fields: its columns.
    @ivar isPrivate: whether it needs the level operate.
    """

    key: str
    name: str
    short: str
    member: str
    identity: Callable[[Row], str]
    sorting: tuple[int, bool] = (-1, False)
    fields: Sequence[Field] = field(default=(), repr=False)
    isPrivate: bool = False


def rowsOf(table: Table, overview: Row, sessions: Sequence[Row]) -> Sequence[Row]:
    """
    Return the rows of a table.

    @param table: the table.
    @param overview: the overview.
    @param sessions: the sessions, which the overview does not have.
    """
    return sessions if table.member == "sessions" else rows(overview.get(table.member))


def stateLook(state: Any, marks: Marks) -> tuple[str, Look]:
    """
    Return the shape and the look of a state.

    @param state: the word for it.
    @param marks: what the terminal can show.
    """
    look = _LOOKS.get(text(state), Look.PLAIN)
    shapes = {Look.GOOD: marks.good, Look.BAD: marks.bad, Look.WARN: marks.half}
    return shapes.get(look, marks.warn), look


def _of(name: str) -> Value:
    return lambda row, now: row.get(name)


def _numberOf(name: str) -> Value:
    return lambda row, now: number(row.get(name))


def _state(row: Row, now: float | None) -> Look:
    return _LOOKS.get(text(row.get("state")), Look.PLAIN)


def _amount(value: Any) -> str:
    return amount(number(value))


def _duration(value: Any) -> str:
    return duration(number(value))


def _errors(row: Row, now: float | None) -> float | None:
    each = [value for value in mapping(row.get("errors_per_minute")).values() if number(value) is not None]
    return sum(each) if each else None


def _kinds(row: Row, now: float | None) -> str:
    """The kinds of errors, the most frequent first, or else the reason of the state."""
    kinds = {kind: value for kind, value in mapping(row.get("errors_per_minute")).items() if number(value)}
    words = [f"{kind} {value:.1f}" for kind, value in sorted(kinds.items(), key=lambda each: -each[1])]
    return "; ".join(filter(None, (text(row.get("reason")), ", ".join(words))))


def _perMinute(value: Any) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _group(row: Row, now: float | None) -> Any:
    return None if row.get("group") == "-" else row.get("group")


def _lastError(row: Row, now: float | None) -> str | None:
    error = mapping(row.get("last_error"))
    if not error:
        return None
    since = ago(error.get("at"), now)
    return f"{'' if since is None else duration(since) + ' ago: '}{text(error.get('text'))}"


def _listen(row: Row, now: float | None) -> str:
    listen = row.get("listen")
    return ", ".join(map(text, listen)) if isinstance(listen, list) else ""


def _newest(row: Row, now: float | None) -> float | None:
    return number(mapping(row.get("tls")).get("TLSv1.3"))


def _expiry(row: Row, now: float | None) -> float | None:
    """Seconds until the first certificate of a server ends; negative if one has ended."""
    ends = [end for each in rows(row.get("certificates")) if (end := secondsOf(each.get("not_after"))) is not None]
    return min(ends) - now if ends and now is not None else None


def _until(value: Any) -> str:
    return "-" if value is None else f"in {duration(value)}" if value >= 0 else f"{duration(-value)} ago"


def _expiryLook(row: Row, now: float | None) -> Look:
    left = _expiry(row, now)
    return Look.PLAIN if left is None or left > _SOON else Look.WARN if left > 0 else Look.BAD


def _accepts(row: Row, now: float | None) -> str:
    return "accepts" if row.get("accepts") else "drains"


def _acceptsLook(row: Row, now: float | None) -> Look:
    return _LOOKS[_accepts(row, now)]


def _lagLook(row: Row, now: float | None) -> Look:
    return Look.WARN if (number(row.get("lag")) or 0) > _LAGGING else Look.PLAIN


def _address(row: Row, now: float | None) -> Any:
    """Without the port, which few operators need: everything about a row has it."""
    return mapping(row.get("client")).get("address")


def _waiting(row: Row, now: float | None) -> float | None:
    """How long a login has been under way; of the whole connection if that is not known."""
    return number(row.get("waiting", row.get("age")))


def _relayed(name: str) -> Value:
    return lambda row, now: number(row.get(name)) if row.get("phase") == "relay" else None


def _at(row: Row, now: float | None) -> float | None:
    return secondsOf(row.get("at"))


def _cause(row: Row, now: float | None) -> str:
    """Why a login failed: what the client was told is the most exact, then come the words of the gateway."""
    words = [text(row.get(name)) for name in ("reason", "trouble", "outcome")]
    first = next(filter(None, words), "")
    if row.get("outcome") in ("limited", "blocked") and words[0] and words[1]:
        # The reason is the rule.
        first = f"{words[1]} ({words[0]})"
    return ": ".join(filter(None, (first, text(row.get("text")))))


def _since(row: Row, now: float | None) -> float | None:
    return ago(row.get("since"), now)


def _left(row: Row, now: float | None) -> float | None:
    """Seconds until a block ends."""
    until = secondsOf(row.get("until"))
    return None if until is None or now is None else max(0.0, until - now)


def _identity(*names: str) -> Callable[[Row], str]:
    return lambda row: " ".join(str(row.get(name)) for name in names)


_BACKENDS = (
    Field("STATE", _of("state"), isState=True, look=_state),
    Field("BACKEND", _of("address"), isFlexible=True),
    Field("GROUP", _group, isFlexible=True, rank=4),
    Field("SINCE", _numberOf("seconds"), _duration, isNumber=True, rank=3),
    Field("SESSIONS", _numberOf("sessions"), count, isNumber=True),
    Field("LOGINS", _numberOf("logins_per_second"), rate, isNumber=True, rank=1),
    Field("CONN95", _numberOf("connect_p95"), seconds, isNumber=True, rank=5),
    Field("LOGIN95", _numberOf("login_p95"), seconds, isNumber=True, rank=4),
    Field("ERR/MIN", _errors, _perMinute, isNumber=True, rank=2),
    Field("REASON", _kinds, isFlexible=True, isEscaped=True),
)

_SERVICES = (
    Field("STATE", _of("state"), isState=True, look=_state),
    Field("AUTH SERVICE", _of("url"), isFlexible=True),
    Field("ASKED", _numberOf("per_second"), rate, isNumber=True),
    Field("P95", _numberOf("p95"), seconds, isNumber=True),
    Field("CACHE", _numberOf("cache_hits"), share, isNumber=True, rank=1),
    Field("ASKING", _numberOf("asking"), count, isNumber=True, rank=2),
    Field("WAITING", _numberOf("waiting"), count, isNumber=True, rank=2),
    Field("LAST ERROR", _lastError, isFlexible=True, isEscaped=True),
)

_SERVERS = (
    Field("SERVER", _of("name"), isFlexible=True),
    Field("PROTO", _of("protocol")),
    Field("LISTEN", _listen, isFlexible=True, rank=1),
    Field("CLIENTS", _numberOf("connections"), count, isNumber=True),
    Field("TLS1.3", _newest, share, isNumber=True, rank=3),
    Field("RESUMED", _numberOf("resumed"), share, isNumber=True, rank=4),
    Field("REFUSED", _numberOf("refused"), count, isNumber=True, rank=2),
    Field("CERTIFICATE", _expiry, _until, look=_expiryLook),
)

_WORKERS = (
    Field("CLIENTS", _accepts, isState=True, look=_acceptsLook),
    Field("WORKER", _of("worker")),
    Field("PID", _numberOf("pid"), lambda value: value, isNumber=True),
    Field("GENERATIONS", _numberOf("generations"), count, isNumber=True, rank=4),
    Field("SESSIONS", _numberOf("sessions"), count, isNumber=True),
    Field("RELAYED", _numberOf("relayed"), count, isNumber=True, rank=3),
    Field("CPU", _numberOf("cpu_share"), share, isNumber=True),
    Field("TIME", _numberOf("cpu"), _duration, isNumber=True, rank=3),
    Field("MEMORY", _numberOf("memory"), _amount, isNumber=True),
    Field("LAG", _numberOf("lag"), seconds, isNumber=True, look=_lagLook),
    Field("REPORT", _numberOf("report_age"), _duration, isNumber=True, rank=2),
)

_STUCK = (
    Field("FOR", _waiting, _duration, isNumber=True),
    Field("PHASE", _of("phase")),
    Field("PROTO", _of("protocol"), rank=2),
    Field("USER", _of("user"), isFlexible=True),
    Field("CLIENT", _address, isFlexible=True, rank=1),
    Field("BACKEND", _of("backend"), isFlexible=True),
    Field("SESSION", _of("id"), rank=3),
)

_FAILURES = (
    Field("AT", _at, clockTime),
    Field("PROTO", _of("protocol"), rank=2),
    Field("USER", _of("user"), isFlexible=True),
    Field("CLIENT", _address, isFlexible=True, rank=1),
    Field("PHASE", _of("reached"), rank=3),
    Field("REASON", _cause, isFlexible=True, isEscaped=True),
    Field("SESSION", _of("id"), rank=4),
)

_BLOCKS = (
    Field("BLOCKED", _of("thing"), isFlexible=True),
    Field("RULE", _of("rule")),
    Field("SINCE", _since, _duration, isNumber=True, rank=2),
    Field("LEFT", _left, _duration, isNumber=True),
    Field("REASON", _of("reason"), isFlexible=True, rank=1),
)

_SESSIONS = (
    Field("SESSION", _of("id"), rank=5),
    Field("PROTO", _of("protocol"), rank=3),
    Field("USER", _of("user"), isFlexible=True),
    Field("CLIENT", _address, isFlexible=True, rank=1),
    Field("BACKEND", _of("backend"), isFlexible=True, rank=2),
    Field("PHASE", _of("phase")),
    Field("SINCE", _numberOf("age"), _duration, isNumber=True),
    Field("IDLE", _numberOf("idle"), _duration, isNumber=True, rank=4),
    Field("IN", _relayed("received"), _amount, isNumber=True, rank=4),
    Field("OUT", _relayed("sent"), _amount, isNumber=True, rank=4),
)

TABLES = (
    Table("b", "backends", "back", "backends", _identity("group", "address", "server"), fields=_BACKENDS),
    Table("a", "auth services", "auth", "auth", _identity("url", "service"), fields=_SERVICES),
    Table("s", "sessions", "sess", "sessions", _identity("id"), fields=_SESSIONS, isPrivate=True),
    Table("f", "failures", "fail", "failures", _identity("id", "at"), fields=_FAILURES, isPrivate=True),
    Table("x", "blocks", "blk", "blocks", _identity("id"), fields=_BLOCKS, isPrivate=True),
    Table("w", "workers", "wrk", "workers", _identity("worker", "pid"), fields=_WORKERS),
    Table("v", "servers", "srv", "servers", _identity("name"), fields=_SERVERS),
    Table("l", "stuck logins", "stk", "stuck", _identity("id"), (0, True), _STUCK, isPrivate=True),
)
"""All tables, in the order of the page."""
