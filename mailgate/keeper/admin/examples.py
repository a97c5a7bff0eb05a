# -*- test-case-name: mailgate.test.keeper.admin.test_endpoints -*-
"""
Answers of the admin server, as examples for the documentation.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AN_AUTH",
    "AN_EXPLANATION",
    "AN_INDEX",
    "AN_OVERVIEW",
    "A_BACKEND",
    "A_BLOCK",
    "A_HISTORY",
    "A_HOLD",
    "A_MOVE",
    "A_SESSION",
    "A_STORY",
    "A_WHERE",
    "EVENTS_TEXT",
    "GATEWAYS",
    "KICKED",
    "METRICS_TEXT",
    "PAGE_EVENTS",
    "SERVERS",
    "STATS",
    "WORKERS",
]

GATEWAYS = [
    {"name": "g1", "age": 0.0, "complete": True, "missing": []},
    {"name": "g2", "age": 0.0, "complete": True, "missing": []},
]

KICKED = {
    "ended": 4,
    "forgotten": 1,
    "dry_run": False,
    "blocked": None,
    "held": None,
    "gateways": [{"name": "g1", "ended": 3}, {"name": "g2", "ended": 1}],
    "unanswered": [],
}

A_BLOCK: dict[str, Any] = {
    "id": "b7",
    "thing": "198.51.100.0/24",
    "rule": "block",
    "since": "2026-11-28T10:13:03Z",
    "until": "2026-11-28T12:13:03Z",
    "reason": "abuse",
    "count": 1,
}

A_HOLD: dict[str, Any] = {
    **A_BLOCK,
    "id": "b8",
    "thing": "joe@example.org",
    "rule": "hold",
    "until": "2026-11-28T10:23:03Z",
    "reason": "move",
}

A_MOVE: dict[str, Any] = {
    "id": "0f3c2a9d5b7e4c61",
    "state": "moved",
    "user": "joe@example.org",
    "groups": ["imap", "pop3"],
    "backend": "10.0.0.2:143",
    "before": "10.0.0.1:143",
    "sessions": 0,
    "ended": 2,
    "done": [
        "his logins were held",
        "2 of his sessions were ended",
        "he was moved to 10.0.0.2:143",
        "the hold has ended",
    ],
}

A_WHERE: dict[str, Any] = {
    "places": [{"groups": ["imap", "pop3"], "backend": "10.0.0.1:143"}],
    "sessions": [{"gateway": "g1", "backend": "10.0.0.1:143", "sessions": 1}],
}

A_SESSION: dict[str, Any] = {
    "id": "g1.5g0qa.7k",
    "gateway": "g1",
    "worker": "5g0qa",
    "protocol": "imap",
    "server": "imaps",
    "client": {"address": "192.0.2.7", "port": 56416},
    "user": "joe@example.org",
    "backend": "10.0.0.1:143",
    "tls": {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "name": "imap.example.org"},
    "method": "plain",
    "phase": "relay",
    "since": "2026-11-28T07:01:03Z",
    "age": 11520.3,
    "idle": 241.0,
    "received": 12288,
    "sent": 3250585,
}

A_BACKEND: dict[str, Any] = {
    "group": "dovecot",
    "address": "10.0.0.1:143",
    "server": "",
    "state": "up",
    "reason": "",
    "seconds": None,
    "sessions": 812,
    "weight": 1,
}

AN_AUTH = {
    "service": "127.0.0.1:9000",
    "url": "http://127.0.0.1:9000/auth",
    "state": "up",
    "asking": 2,
    "waiting": 0,
}

SERVERS = {
    "servers": [
        {
            "name": "imaps",
            "protocol": "imap",
            "listen": ["*:993 ssl"],
            "connections": 812,
            "certificates": [
                {"name": "imap.example.org", "not_after": "2027-02-01T00:00:00Z"},
            ],
        }
    ],
    "missing": [],
}

WORKERS = {
    "workers": [
        {
            "worker": "5g0qa",
            "pid": 4711,
            "accepts": True,
            "generations": 1,
            "sessions": 812,
            "relayed": 790,
            "cpu": 31.2,
            "memory": 52428800,
        }
    ],
    "missing": [],
}

STATS = {
    "gateway": "g1",
    "version": "0.1.0",
    "time": "2026-11-28T10:13:03Z",
    "uptime": 86400.0,
    "loaded": "2026-11-28T08:00:00Z",
    "sessions": {
        "total": 812,
        "relayed": 790,
        "by_protocol": {"imap": {"total": 812, "phases": {"command": 20, "auth": 2, "relay": 790}}},
    },
    "users": 640,
    "connections": {"total": 51234, "per_second": 4.2},
    "logins": {"accepted": {"total": 50321, "per_second": 4.1}, "denied": {"total": 913, "per_second": 0.1}},
    "login_wait": {"p50": 0.012, "p95": 0.09, "p99": 0.18, "total_p50": 0.011, "total_p95": 0.1, "total_p99": 0.2},
    "bytes": {
        "from_client": {"total": 734003200, "per_second": 3000.0},
        "to_client": {"total": 9663676416, "per_second": 61000.0},
    },
    "workers": {"serving": 2, "retiring": 0, "restarts": 0},
    "backends": {"up": 2, "down": 0, "draining": 0},
    "store": {
        "up": True,
        "since": "2026-11-27T10:13:03Z",
        "reason": "",
        "gateways": [{"name": "g1", "age": 0.0}, {"name": "g2", "age": 1.4}],
    },
}

AN_EXPLANATION: dict[str, Any] = {
    "user": "joe@example.org",
    "address": "192.0.2.7",
    "protocol": "imap",
    "limits": {
        "known": True,
        "last_success": "2026-11-25T07:01:03Z",
        "allowance": 3,
        "pair": {"failures": 1, "limit": 10, "since": "2026-11-28T10:02:11Z"},
        "address": {"failures": 1, "limit": 300, "since": "2026-11-28T10:02:11Z"},
        "network": {"failures": 4, "limit": 1500, "since": "2026-11-28T09:41:00Z"},
        "user": {"failures": 61, "limit": 50, "since": "2026-11-27T22:10:47Z"},
        "users": {"failures": 1, "limit": 20, "since": "2026-11-28T10:02:11Z"},
        "rule": None,
        "action": "go",
        "seconds": 0.0,
        "would": [],
        "blocks": [],
    },
    "would": [
        {
            "server": "imaps",
            "protocol": "imap",
            "by": "auth_http",
            "named": True,
            "processes": 2,
            "limits": {
                "address": {"count": 3, "limit": 300},
                "user": {"count": 4, "limit": 50},
                "user_address": {"count": 1, "limit": 20},
                "server": {"count": 812, "limit": 20000},
            },
            "asks": [
                {
                    "kind": "auth_http",
                    "services": [
                        {
                            "url": "http://127.0.0.1:9000/auth",
                            "rests": 0.0,
                            "resting": 0,
                            "failing": False,
                            "waiting": 0,
                        }
                    ],
                    "cache": {"ttl": 60.0, "held": 1},
                }
            ],
            "goes": [
                {
                    "group": "dovecot",
                    "method": "least_conn",
                    "servers": [
                        {
                            "address": "10.0.0.1:143",
                            "state": "up",
                            "reason": "",
                            "sessions": 812,
                            "weight": 1,
                            "backup": False,
                        }
                    ],
                    "order": ["10.0.0.1:143"],
                    "why": "least_conn",
                    "guessed": False,
                    "first": ["10.0.0.1:143"],
                }
            ],
        }
    ],
    "recent": [
        {
            "kind": "login",
            "id": "g1.5g0qa.7j",
            "protocol": "imap",
            "server": "imaps",
            "client": {"address": "192.0.2.7", "port": 56412},
            "user": "joe@example.org",
            "backend": None,
            "method": "plain",
            "tls": None,
            "attempts": 1,
            "reached": "auth",
            "outcome": "denied",
            "reason": "",
            "trouble": "denied",
            "at": "2026-11-28T10:02:11.204Z",
            "seconds": 0.122,
            "received": 0,
            "sent": 0,
            "times": {"greeting": 0.7, "command": 34.8, "auth": 8.2},
            "text": "Invalid login or password",
        }
    ],
    "missing": [],
}

AN_INDEX = {
    "version": "0.1.0",
    "gateway": "g1",
    "endpoints": [{"method": "GET", "path": "/healthz", "level": "none", "summary": "Say that the process works"}],
}

METRICS_TEXT = """\
# HELP mailgate_connections_total Accepted connections.
# TYPE mailgate_connections_total counter
mailgate_connections_total{protocol="imap",server="imaps"} 4711.0
"""

A_STORY: dict[str, Any] = AN_EXPLANATION["recent"][0]

AN_OVERVIEW: dict[str, Any] = {
    **{name: STATS[name] for name in ("gateway", "version", "time", "uptime", "loaded")},
    "level": "operate",
    "reload": {"at": "2026-11-28T08:00:00Z", "done": True, "reasons": []},
    "stats": STATS,
    "alarms": [
        {
            "id": "backend 10.0.0.3:143",
            "severity": "critical",
            "kind": "backend",
            "text": "backend 10.0.0.3:143 is down: connection refused",
            "since": "2026-11-28T10:09:00Z",
        }
    ],
    "backends": [
        {
            **A_BACKEND,
            "logins_per_second": 2.1,
            "connect_p95": 0.002,
            "login_p95": 0.045,
            "errors_per_minute": {"timeout": 0.5},
        }
    ],
    "auth": [
        {
            **AN_AUTH,
            "per_second": 4.1,
            "p95": 0.021,
            "cache_hits": 0.82,
            "last_error": {"text": "connection refused", "at": "2026-11-28T09:58:12Z"},
        }
    ],
    "servers": [
        {
            **SERVERS["servers"][0],
            "tls": {"TLSv1.2": 0.1, "TLSv1.3": 0.9},
            "resumed": 0.4,
            "refused": 0,
        }
    ],
    "workers": [{**WORKERS["workers"][0], "cpu_share": 0.04, "lag": 0.001, "report_age": 0}],
    "stuck": [{**A_SESSION, "phase": "backend", "age": 7.9, "waiting": 7.1}],
    "failures": [A_STORY],
    "blocks": [A_BLOCK],
    "missing": [],
    "more": {},
}

A_HISTORY: dict[str, Any] = {
    "span": "10m",
    "step": 1,
    "begin": "2026-11-28T10:13:01Z",
    "series": {
        "sessions.imap": [811, 812, 812],
        "logins.accepted": [4, 5, 4],
        "logins.denied": [0, 0, 1],
        "login_wait.p50": [0.011, None, 0.012],
        "login_wait.p95": [0.09, None, 0.09],
        "login_wait.p99": [0.18, None, 0.18],
        "bytes.from_client": [3000, 2900, 3100],
        "bytes.to_client": [61000, 60000, 62000],
    },
}

PAGE_EVENTS: dict[str, Any] = {
    "overview": AN_OVERVIEW,
    "stats": STATS,
    "tables": {
        name: AN_OVERVIEW[name]
        for name in ("level", "reload", "backends", "auth", "servers", "workers", "stuck", "blocks", "missing", "more")
    },
    "alarm": AN_OVERVIEW["alarms"],
    "login_failed": A_STORY,
    "blocked": A_BLOCK,
}
"""The data of each event of C{GET /api/1/events}, by the name of the event."""

EVENTS_TEXT = """\
retry: 3000

id: 1
event: overview
data: {"gateway": "g1", ...}

id: 2
event: stats
data: {"gateway": "g1", ...}
"""
