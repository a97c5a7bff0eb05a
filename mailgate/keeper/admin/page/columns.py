# -*- test-case-name: mailgate.test.keeper.admin.page.test_render -*-
"""
The tables of the live page. The server writes their heads, and the scripts in the browser read from the heads which
field of a row each column shows, and how: there is one list of columns.
"""

from __future__ import annotations

from attrs import field, frozen

__all__ = ["SECTIONS", "SESSIONS", "Column", "Section"]


@frozen
class Column:
    """
    A column of a table.

    @ivar field: the name of the value in the rows of the overview.
    @ivar title: the text of its head.
    @ivar kind: how the value is shown: a name in L{mailgate.keeper.admin.page.cells.CELLS}.
    @ivar help: what the value means; empty if the title says it.
    @ivar level: the level that sees the column; empty: all. Columns of orders have it.
    """

    field: str
    title: str
    kind: str = "text"
    help: str = ""
    level: str = ""


@frozen
class Section:
    """
    A table of the page.

    @ivar name: its name in the overview, and in the addresses of the page behind the number sign.
    @ivar title: its heading.
    @ivar caption: what the rows are, in one sentence without a full stop.
    @ivar key: the fields that tell rows apart.
    @ivar empty: the text in place of rows.
    @ivar columns: its columns.
    @ivar level: the level that sees it.
    """

    name: str
    title: str
    caption: str
    key: tuple[str, ...]
    empty: str
    columns: tuple[Column, ...] = field(repr=False)
    level: str = "read"


_LATELY = "over the last seconds"

SECTIONS: tuple[Section, ...] = (
    Section(
        "backends",
        "Backends",
        "Mail servers that logins are sent to",
        ("group", "address", "server"),
        "The configuration has no backends; the authentication service names them.",
        (
            Column("address", "Address"),
            Column("state", "State", "state"),
            Column("seconds", "Since", "duration", "time in this state"),
            Column("group", "Upstream"),
            Column("sessions", "Sessions", "bar"),
            Column("logins_per_second", "Logins/s", "rate", _LATELY),
            Column("connect_p95", "Connect p95", "wait", "95 % of connections are made within this time"),
            Column("login_p95", "Login p95", "wait", "95 % of logins at the backend end within this time"),
            Column("errors_per_minute", "Errors/min", "counts"),
            Column("", "Orders", "orders", level="admin"),
        ),
    ),
    Section(
        "auth",
        "Authentication services",
        "Services that judge logins",
        ("url",),
        "The configuration has no authentication service.",
        (
            Column("url", "Service"),
            Column("state", "State", "state"),
            Column("per_second", "Questions/s", "rate", _LATELY),
            Column("asking", "Under way", "count", "questions without an answer yet"),
            Column("waiting", "Waiting", "count", "logins that wait for their question"),
            Column("p95", "p95", "wait", "95 % of questions are answered within this time"),
            Column("cache_hits", "From cache", "share", "share of logins that the cache has answered"),
            Column("last_error", "Last error", "error"),
        ),
    ),
    Section(
        "servers",
        "Servers and certificates",
        "Servers that clients connect to",
        ("name",),
        "No server listens.",
        (
            Column("name", "Server"),
            Column("protocol", "Protocol", "word"),
            Column("listen", "Listens at", "list"),
            Column("connections", "Connections", "bar"),
            Column("tls", "TLS", "shares"),
            Column("resumed", "Resumed", "share", "share of TLS handshakes that resumed a session"),
            Column("refused", "Refused", "count", "connections refused by limits"),
            Column("certificates", "Certificates", "certificates"),
        ),
    ),
    Section(
        "stuck",
        "Stuck logins",
        "Logins that have been under way for more than 5 seconds",
        ("id",),
        "No login takes longer than 5 seconds.",
        (
            Column("phase", "Phase", "word"),
            Column("waiting", "For", "duration", "how long this login has been under way"),
            Column("user", "User"),
            Column("client", "Client", "client"),
            Column("protocol", "Protocol", "word"),
            Column("backend", "Backend"),
            Column("id", "Session", "id"),
        ),
        "operate",
    ),
    Section(
        "failures",
        "Failed logins",
        "The latest logins that failed",
        ("id", "at"),
        "No login has failed lately.",
        (
            Column("at", "When", "moment"),
            Column("user", "User"),
            Column("client", "Client", "client"),
            Column("protocol", "Protocol", "word"),
            Column("reached", "Phase", "word"),
            Column("trouble", "Reason", "trouble"),
            Column("id", "Session", "id"),
            Column("", "Orders", "explain"),
        ),
        "operate",
    ),
    Section(
        "blocks",
        "Blocks",
        "Blocks and holds in force, the latest first",
        ("id",),
        "Nothing is blocked.",
        (
            Column("thing", "Blocked"),
            Column("rule", "Rule", "word"),
            Column("since", "Since", "moment"),
            Column("until", "Until", "moment"),
            Column("reason", "Reason"),
            Column("", "Orders", "unblock"),
        ),
        "operate",
    ),
    Section(
        "workers",
        "Workers",
        "Processes that serve clients",
        ("worker", "pid"),
        "No process has reported yet.",
        (
            Column("worker", "Worker"),
            Column("pid", "PID", "plain"),
            Column("accepts", "State", "accepts"),
            Column("generations", "Generations", "count", "configurations with sessions"),
            Column("sessions", "Sessions", "bar"),
            Column("relayed", "Relayed", "count"),
            Column("memory", "Memory", "amount"),
            Column("cpu_share", "CPU", "share", "share of a core, over the last seconds"),
            Column("lag", "Loop lag", "wait", "how late timers are"),
            Column("report_age", "Report", "wait", "age of the latest report"),
        ),
    ),
)
"""The tables of the overview, in their order on the page."""

SESSIONS = Section(
    "sessions",
    "Sessions",
    "Sessions, the oldest first",
    ("id",),
    "No session.",
    (
        Column("user", "User"),
        Column("client", "Client", "client"),
        Column("protocol", "Protocol", "word"),
        Column("server", "Server"),
        Column("backend", "Backend"),
        Column("phase", "Phase", "word"),
        Column("age", "Age", "duration"),
        Column("idle", "Idle", "duration"),
        Column("received", "In", "amount", "bytes from the client"),
        Column("sent", "Out", "amount", "bytes to the client"),
        Column("tls", "TLS", "version"),
        Column("id", "Session", "id"),
        Column("", "Orders", "kick"),
    ),
    "operate",
)
"""The table of sessions, which scripts ask for page by page. Without scripts there is the first page."""
