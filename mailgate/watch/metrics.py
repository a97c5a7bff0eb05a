# -*- test-case-name: mailgate.test.watch.test_metrics -*-
"""
The metrics, as Prometheus scrapes them: names, types, labels and bounds. This table is the only place that knows them.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

__all__ = ["EVENTS", "LOGIN_OUTCOMES", "LOG_LINES", "METRICS", "Kind", "Merge", "Metric", "named", "word"]

LOGIN_OUTCOMES = ("accepted", "denied", "temporary", "limited", "blocked", "backend_refused", "abandoned")
"""The values of C{outcome} of C{mailgate_logins}."""

LOG_LINES = "mailgate_log_lines"
_LEVELS = ("debug", "info", "warn", "error", "critical")
"""Twisted's levels."""

_LOGIN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SESSION = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)
_LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Kind(Enum):
    """The type of a metric. The values are those of OpenMetrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(Enum):
    """How the values of several processes become one value."""

    SUM = "sum"
    LEAST = "least"
    """The smallest: a backend is up if all processes send logins there."""
    MOST = "most"
    """The largest."""
    UNION = "union"
    """The union of sets, each in the form of L{mailgate.watch.distinct}. The exported number is its size."""


@frozen
class Metric:
    """
    One metric.

    @ivar name: its name; that of a counter without C{_total}.
    @ivar kind: its type.
    @ivar help: what it counts or measures.
    @ivar labels: the names of its labels.
    @ivar bound: how many combinations of labels are expected at most.
    @ivar buckets: the upper bounds of a histogram's buckets, in seconds, without infinity.
    @ivar merge: how the values of several processes become one.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bound: int = 1
    buckets: tuple[float, ...] = ()
    merge: Merge = Merge.SUM


def _counter(name: str, help: str, bound: int, *labels: str) -> Metric:
    return Metric(f"mailgate_{name}", Kind.COUNTER, help, labels, bound)


def _gauge(name: str, help: str, bound: int, *labels: str, merge: Merge = Merge.SUM) -> Metric:
    return Metric(f"mailgate_{name}", Kind.GAUGE, help, labels, bound, merge=merge)


def _histogram(name: str, help: str, bound: int, *labels: str, buckets: tuple[float, ...] = _LOGIN) -> Metric:
    return Metric(f"mailgate_{name}", Kind.HISTOGRAM, help, labels, bound, buckets)


METRICS: tuple[Metric, ...] = (
    _counter("connections", "Accepted connections.", 20, "server", "protocol"),
    _counter("connections_ended", "Connections that have ended.", 6 * 24, "protocol", "outcome"),
    _gauge(
        *("accept_paused", "Whether a server accepts no clients for now: no descriptors, or worker_connections.", 20),
        "server",
        merge=Merge.MOST,
    ),
    _gauge("sessions", "Open connections, by the phase that they are in.", 6 * 12, "protocol", "phase"),
    _gauge("sessions_relayed", "Proxied sessions at each backend.", 6 * 65, "protocol", "backend"),
    _gauge("users", "Distinct users with a proxied session; above 2,000 an estimate.", 1, merge=Merge.UNION),
    _counter("tls_handshakes", "TLS handshakes with clients.", 60, "server", "version", "result"),
    _counter("tls_ciphers", "TLS handshakes with clients that succeeded.", 24, "version", "cipher"),
    _counter("tls_failures", "TLS handshakes with clients that failed.", 8, "reason"),
    _counter("logins", "Logins.", 6 * 7 * 7, "protocol", "method", "outcome"),
    _counter("limited", "How often limits have acted on connections and logins.", 60, "rule", "action"),
    _counter("connections_limited", "Connections that limits have ended.", 20, "server"),
    _gauge("blocks", "Blocks and holds that are in force.", 21, "rule"),
    _gauge("limit_entries", "Entries in the tables of the limits.", 16, "table"),
    _counter("limit_evictions", "Entries that were dropped early because their table was full.", 16, "table"),
    _gauge("delayed_logins", "Logins that limits hold back now.", 1),
    _gauge("store_up", "Whether the store that gateways share can be used.", 1),
    _gauge("gateways", "Gateways that share the store, by what was heard of them.", 2, "state"),
    _histogram("auth_seconds", "Requests to authentication services.", 8 * 5, "auth", "outcome"),
    _counter("auth_cache", "Logins that were looked up in auth_cache.", 3, "result"),
    _gauge("auth_service_up", "Whether the authentication service answers.", 8, "auth", merge=Merge.LEAST),
    _histogram("backend_connect_seconds", "TCP connections to backends.", 65 * 4, "backend", "outcome"),
    _histogram("backend_login_seconds", "TLS and login at backends.", 65 * 6, "backend", "outcome"),
    _gauge("backend_up", "Whether new sessions are sent to the backend.", 65, "backend", merge=Merge.LEAST),
    _gauge("backend_draining", "Whether an operator drains the backend.", 65, "backend", merge=Merge.MOST),
    _histogram("phase_seconds", "Time of connections in each phase before the relay.", 6 * 8, "protocol", "phase"),
    _histogram("login_seconds", "From the credentials of a client to its relay.", 6, "protocol"),
    _histogram("session_seconds", "Length of relays.", 6, "protocol", buckets=_SESSION),
    _counter("relayed_bytes", "Bytes that relays have passed on.", 12, "protocol", "direction"),
    _gauge(
        *("certificate_not_after_timestamp_seconds", "When a certificate of a server expires.", 50, "server", "name"),
        merge=Merge.LEAST,
    ),
    _counter("reloads", "Reloads.", 2, "result"),
    _gauge(
        *("config_last_reload_success_timestamp_seconds", "When the current configuration was loaded.", 1),
        merge=Merge.MOST,
    ),
    _gauge("workers", "Worker processes.", 2, "state"),
    _counter("log_lines", "Lines of the log of workers and keeper; info has those of notice, too.", 5, "level"),
    _counter("worker_restarts", "Workers that were started anew.", 4, "reason"),
    _gauge("worker_memory_bytes", "Private memory of a worker.", 64, "worker"),
    _gauge("worker_open_files", "File descriptors that a worker uses.", 64, "worker"),
    _gauge("worker_open_files_limit", "File descriptors that a worker may use.", 64, "worker"),
    _gauge("worker_report_age_seconds", "Time since the last report of a worker.", 64, "worker", merge=Merge.MOST),
    _histogram(
        *("loop_lag_seconds", "Delays of a timer in a worker: its event loop was busy.", 64, "worker"), buckets=_LAG
    ),
)
"""All metrics."""

EVENTS: dict[str, tuple[tuple[str, ...], ...]] = {
    LOG_LINES: tuple((level,) for level in _LEVELS),
    "mailgate_reloads": (("ok",), ("refused",)),
    "mailgate_worker_restarts": (("exit",), ("signal",), ("fork",), ("zygote",)),
}
"""
The labels of rare events. They are exported from the start, at 0: C{increase} of PromQL does not see that a counter
appears at 1.
"""

_NAMED = {metric.name: metric for metric in METRICS}


def named(name: str) -> Metric:
    """
    Return a metric.

    @param name: its name.
    @raise KeyError: there is no metric of this name.
    """
    return _NAMED[name]


def word(member: Enum) -> str:
    """
    Return the name of an enum's member as the value of a label, such as C{client_left}.

    @param member: the member.
    """
    # Enum.name is a slow property.
    return member._name_.lower()
