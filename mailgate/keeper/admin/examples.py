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
    "A_BACKEND",
    "A_SESSION",
    "GATEWAYS",
    "METRICS_TEXT",
    "SERVERS",
    "STATS",
    "WORKERS",
]

GATEWAYS = [{"name": "g1", "age": 0.0, "complete": True}]

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

STATS = {"sessions": {"imap": 812, "pop3": 3, "smtp": 11}, "users": 640}

AN_EXPLANATION: dict[str, Any] = {"user": "joe@example.org", "recent": [], "would": None}

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
