# -*- test-case-name: mailgate.test.keeper.admin.test_endpoints -*-
"""
The endpoints of the admin server: methods, paths, levels, parameters, and an example of each. The server is made from
this table, and a test compares the documentation with it.
"""

from __future__ import annotations

import re
from typing import Any

from attrs import field, frozen

from mailgate.keeper.admin.examples import (
    A_BACKEND,
    A_BLOCK,
    A_HISTORY,
    A_HOLD,
    A_MOVE,
    A_SESSION,
    A_WHERE,
    AN_AUTH,
    AN_EXPLANATION,
    AN_INDEX,
    AN_OVERVIEW,
    EVENTS_TEXT,
    GATEWAYS,
    KICKED,
    METRICS_TEXT,
    SERVERS,
    STATS,
    WORKERS,
)
from mailgate.keeper.admin.parameters import BLOCK_REASON, BLOCKING, FILTERS, REASON, Parameter
from mailgate.keeper.blocks import LONGEST_BLOCK, LONGEST_HOLD
from mailgate.keeper.moves import LONGEST as LONGEST_MOVE
from mailgate.watch.tokens import Level

__all__ = ["ENDPOINTS", "Endpoint"]


@frozen
class Endpoint:
    """
    One method at one path.

    @ivar method: the HTTP method. GET includes HEAD.
    @ivar path: the path, with C{{NAME}} for a segment that varies.
    @ivar level: the level that it needs.
    @ivar summary: what it does, in one sentence without a full stop.
    @ivar parameters: of its query (GET) or of its JSON object (POST).
    @ivar example: the answer of status 200: a value of JSON, or the text of an answer that is not JSON.
    @ivar asks: the path with its query in the example.
    @ivar body: the JSON object of the request in the example; L{None} without a body.
    @ivar isChange: whether it changes something: the log has a line about each request.
    @ivar isList: whether it asks the processes that serve clients. So many at a time are answered.
    @ivar isBasic: whether the token may also be the password of HTTP's basic authentication.
    """

    method: str
    path: str
    level: Level
    summary: str
    parameters: tuple[Parameter, ...] = ()
    example: Any = field(default=None, repr=False)
    asks: str = ""
    body: Any = field(default=None, repr=False)
    isChange: bool = False
    isList: bool = False
    isBasic: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the segments of the path that vary."""
        return tuple(re.findall(r"{(\w+)}", self.path))


_USER = "joe@example.org"
_ADDRESS = "10.0.0.1:143"


def _order(word: str, summary: str) -> Endpoint:
    state = {"drain": "drain", "down": "down"}.get(word, "up")
    row = {**A_BACKEND, "state": state, "reason": f"mailgate backend {word}" if state != "up" else "", "seconds": 0}
    return Endpoint(
        "POST",
        f"/api/1/backends/{{address}}/{word}",
        Level.ADMIN,
        summary,
        example={"backends": [row], "missing": []},
        asks=f"/api/1/backends/{_ADDRESS}/{word}",
        isChange=True,
        isList=True,
    )


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "GET",
        "/",
        Level.NONE,
        "Return the live page; without an access that needs no token it has no data until a token is entered",
        example="<!DOCTYPE html>...",
    ),
    Endpoint(
        "GET",
        "/static/{name}",
        Level.NONE,
        "Return a part of the live page, such as page.js",
        example="...",
        asks="/static/page.css",
    ),
    Endpoint(
        "GET",
        "/plain",
        Level.READ,
        "Return the tables of the live page for browsers without JavaScript; only here the token may also be the"
        " password of HTTP's basic authentication",
        example="<!DOCTYPE html>...",
        isBasic=True,
    ),
    Endpoint("GET", "/healthz", Level.NONE, "Say that the process which answers works", example={"status": "ok"}),
    Endpoint(
        "GET",
        "/readyz",
        Level.NONE,
        "Say whether clients can log in: a process accepts them, an authentication service answers, and one backend"
        " is used; the status is 503 if not",
        example={"status": "ready", "reasons": []},
    ),
    Endpoint(
        "GET",
        "/metrics",
        Level.READ,
        "Return the metrics, as OpenMetrics or in Prometheus' text format",
        example=METRICS_TEXT,
    ),
    Endpoint("GET", "/api/1/", Level.READ, "Return the release, the gateway and the endpoints", example=AN_INDEX),
    Endpoint("GET", "/api/1/stats", Level.READ, "Return the most important numbers", example=STATS, isList=True),
    Endpoint(
        "GET",
        "/api/1/backends",
        Level.READ,
        "List the backends with their states and sessions",
        example={"backends": [A_BACKEND], "missing": []},
        isList=True,
    ),
    Endpoint(
        "GET",
        "/api/1/auth",
        Level.READ,
        "List the authentication services with their states and questions",
        example={"services": [AN_AUTH], "missing": []},
        isList=True,
    ),
    Endpoint(
        "GET",
        "/api/1/servers",
        Level.READ,
        "List the servers with their addresses, connections and certificates",
        example=SERVERS,
        isList=True,
    ),
    Endpoint(
        "GET",
        "/api/1/workers",
        Level.READ,
        "List the processes that serve clients, those that drain included",
        example=WORKERS,
        isList=True,
    ),
    Endpoint(
        "GET",
        "/api/1/overview",
        Level.READ,
        "Return all that the live page shows, except for its plots and its list of sessions; stuck, failures and blocks"
        " are null below the level operate",
        example={**AN_OVERVIEW, "level": "read", "stuck": None, "failures": None, "blocks": None},
    ),
    Endpoint(
        "GET",
        "/api/1/events",
        Level.READ,
        "Send the same as server-sent events, as it changes: overview, stats, tables, alarm, and, from the level"
        " operate on, login_failed and blocked",
        example=EVENTS_TEXT,
    ),
    Endpoint(
        "GET",
        "/api/1/history",
        Level.READ,
        "Return the points of the plots: rates are those of a second, null is a time without a value",
        (Parameter("span", str, "ten minutes by the second (10m), or a day by the minute (24h)", True),),
        example=A_HISTORY,
        asks="/api/1/history?span=10m",
    ),
    Endpoint(
        "GET",
        "/api/1/sessions",
        Level.OPERATE,
        "List sessions; with by, count them",
        (
            *FILTERS,
            Parameter("by", str, "count the sessions of each user, backend, address or protocol, the most first"),
            Parameter("limit", int, "the most rows of an answer; 500 by default", most=1000, least=1),
            Parameter("cursor", str, "the value of next in the answer before"),
        ),
        example={"sessions": [A_SESSION], "next": None, "gateways": GATEWAYS},
        asks=f"/api/1/sessions?user={_USER}",
        isList=True,
    ),
    Endpoint(
        "GET",
        "/api/1/sessions/{id}",
        Level.OPERATE,
        "Return one session; the status is 404 if it has ended",
        example=A_SESSION,
        asks=f"/api/1/sessions/{A_SESSION['id']}",
        isList=True,
    ),
    Endpoint(
        "DELETE",
        "/api/1/sessions/{id}",
        Level.OPERATE,
        "End one session; the status is 404 if it has ended",
        (REASON,),
        example={**KICKED, "ended": 1, "gateways": [{"name": "g1", "ended": 1}]},
        asks=f"/api/1/sessions/{A_SESSION['id']}",
        isChange=True,
        isList=True,
    ),
    Endpoint(
        "POST",
        "/api/1/kick",
        Level.OPERATE,
        "End the sessions that match all given filters, and forget the cached answers of authentication services for"
        " their users",
        (
            *FILTERS,
            Parameter("all", bool, "must be true if the filter means all sessions"),
            REASON,
            Parameter("over", float, "seconds over which the ends are spread", most=3600),
            Parameter("dry_run", bool, "only count"),
            *BLOCKING,
        ),
        example=KICKED,
        body={"user": _USER, "reason": "password changed"},
        isChange=True,
        isList=True,
    ),
    Endpoint(
        "GET",
        "/api/1/users/{user}",
        Level.OPERATE,
        "Return the sessions and the latest ended connections and failed logins of a user, his failures from unknown"
        " networks, whether the addresses that he was seen at lately are known, his blocks and his holds",
        example={
            "user": _USER,
            "sessions": [A_SESSION],
            "next": None,
            "gateways": GATEWAYS,
            "backends": [_ADDRESS],
            "failures": {"failures": 2, "limit": 50, "since": "2026-11-28T09:58:12Z"},
            "networks": [
                {
                    "address": "192.0.2.7",
                    "known": True,
                    "last_success": "2026-11-28T07:01:03Z",
                    "pair": {"failures": 0, "limit": 10, "since": None},
                }
            ],
            "blocks": [],
            "holds": [],
            "recent": [],
            "where": A_WHERE,
        },
        asks=f"/api/1/users/{_USER}",
        isList=True,
    ),
    Endpoint(
        "POST",
        "/api/1/explain",
        Level.OPERATE,
        "Explain what happened to the logins of a user, which limit would act on the next one, and where it would go;"
        " no login takes place",
        (
            Parameter("user", str, "the user name, without wildcards", isRequired=True),
            Parameter("address", str, "address of the client"),
            Parameter("protocol", str, "name of the protocol: imap, pop3, smtp or sieve"),
        ),
        example=AN_EXPLANATION,
        body={"user": _USER, "address": "192.0.2.7", "protocol": "imap"},
        isList=True,
    ),
    Endpoint(
        "GET",
        "/api/1/blocks",
        Level.OPERATE,
        "List the blocks and holds that are in force, the latest first",
        (
            Parameter("thing", str, "user, address or network; * and ? are wildcards"),
            Parameter("rule", str, "name of the rule, such as R4; block and hold are those of operators"),
            Parameter("limit", int, "the most rows of an answer; 500 by default", most=1000, least=1),
        ),
        example={"blocks": [A_BLOCK], "total": 1},
        asks="/api/1/blocks",
    ),
    Endpoint(
        "POST",
        "/api/1/blocks",
        Level.OPERATE,
        "Block logins of a user, connections from an address or a network, or logins of a user at an address",
        (
            Parameter("thing", str, "the user, the address, the network, or USER ADDRESS", isRequired=True),
            Parameter("for", float, "seconds until the block ends", isRequired=True, most=int(LONGEST_BLOCK)),
            BLOCK_REASON,
        ),
        example=A_BLOCK,
        body={"thing": "198.51.100.0/24", "for": 7200, "reason": "abuse"},
        isChange=True,
    ),
    Endpoint(
        "DELETE",
        "/api/1/blocks/{id}",
        Level.OPERATE,
        "End a block by its id, or all blocks of a user, address or network, and forget the failures, so that no rule"
        " acts at once; the status is 404 if there was no block",
        example={"ended": [A_BLOCK]},
        asks=f"/api/1/blocks/{A_BLOCK['id']}",
        isChange=True,
    ),
    Endpoint(
        "POST",
        "/api/1/users/{user}/hold",
        Level.ADMIN,
        "Hold the logins of a user, as for a move of the mailbox: they wait, and are then asked to try again later",
        (
            Parameter("for", float, "seconds until the hold ends", isRequired=True, most=int(LONGEST_HOLD)),
            BLOCK_REASON,
        ),
        example=A_HOLD,
        asks=f"/api/1/users/{_USER}/hold",
        body={"for": 600, "reason": "move"},
        isChange=True,
    ),
    Endpoint(
        "POST",
        "/api/1/users/{user}/release",
        Level.ADMIN,
        "End the holds of a user; the status is 404 if there was none",
        example={"ended": [A_HOLD]},
        asks=f"/api/1/users/{_USER}/release",
        isChange=True,
    ),
    Endpoint(
        "POST",
        "/api/1/users/{user}/move",
        Level.ADMIN,
        "Give a user of a sticky group another place: his logins go to that backend from now on. With when_quiet his"
        " logins are held and his sessions end first. As long as one is left, the state is waiting. The status is 409"
        " if the user is not moved",
        (
            Parameter("backend", str, "the address and port of the backend", isRequired=True),
            Parameter("group", str, "the group of backends, if several have that backend"),
            Parameter("when_quiet", bool, "hold the logins, end the sessions, and move the user when all are gone"),
            Parameter("for", float, "the most seconds that this may take; 60 by default", most=int(LONGEST_MOVE)),
        ),
        example=A_MOVE,
        asks=f"/api/1/users/{_USER}/move",
        body={"backend": "10.0.0.2:143", "when_quiet": True},
        isChange=True,
        isList=True,
    ),
    Endpoint(
        "GET",
        "/api/1/users/{user}/moves/{id}",
        Level.ADMIN,
        "Say how far a move is that waits. The answer comes when the move has ended, or after a second. The status is"
        " 404 if there is no such move, and 409 if the user was not moved",
        example=A_MOVE,
        asks=f"/api/1/users/{_USER}/moves/{A_MOVE['id']}",
    ),
    _order("drain", "Send no new sessions to the servers at an address, as mailgate backend drain does"),
    _order("resume", "End drain and down, as mailgate backend resume does"),
    _order("down", "Treat the servers at an address as failed, as mailgate backend down does"),
    _order("up", "End drain and down and forget failures, as mailgate backend up does"),
    Endpoint(
        "POST",
        "/api/1/reload",
        Level.ADMIN,
        "Load the configuration, as mailgate reload does; the status is 409, with reasons, if it has errors",
        example={"reloaded": True},
        isChange=True,
    ),
)
"""All endpoints."""
