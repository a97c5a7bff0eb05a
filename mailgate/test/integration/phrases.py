# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""
Frequent replies of nginx and mailgate, by protocol, in the form of transcripts.
"""

from __future__ import annotations

from mailgate.test.integration.conversation import NOOP

__all__ = [
    "AT_BACKEND",
    "AT_GATE",
    "AT_THE_BACKEND",
    "DENIED",
    "INTERNAL",
    "INVALID",
    "LOGGED_IN",
    "TEMPORARY",
    "UNSUPPORTED",
    "shown",
    "then",
]


def shown(*said: str) -> str:
    """In the form of a transcript."""
    return "\n".join(line if line in ("connection", "[closed]") else rf"{line}\r\n" for line in said)


LOGGED_IN = {"imap": "S: a OK logged in", "pop3": "S: +OK logged in", "smtp": "S: 235 2.0.0 OK"}
AT_BACKEND = {"imap": "S: zz OK backend", "pop3": "S: +OK backend", "smtp": "S: 250 2.0.0 backend"}
"""The reply to the last NOOP, which shows the current server."""
AT_GATE = {"imap": "S: zz OK completed", "pop3": "S: +OK", "smtp": "S: 250 2.0.0 OK"}
INTERNAL = {
    "imap": "S: * BAD internal server error",
    "pop3": "S: -ERR internal server error",
    "smtp": "S: 451 4.3.2 Internal server error",
}
TEMPORARY = {
    "imap": "S: a NO [UNAVAILABLE] Temporary authentication failure, try again later",
    "pop3": "S: -ERR [SYS/TEMP] Temporary authentication failure, try again later",
    "smtp": "S: 454 4.7.0 Temporary authentication failure",
}
DENIED = {
    "imap": "S: a NO [AUTHENTICATIONFAILED] Authentication failed",
    "pop3": "S: -ERR [AUTH] Authentication failed",
    "smtp": "S: 535 5.7.8 Authentication failed",
}
INVALID = {
    "imap": "S: a BAD invalid command",
    "pop3": "S: -ERR invalid command",
    "smtp": "S: 500 5.5.1 Invalid command",
}
UNSUPPORTED = {
    "imap": "S: a NO [CANNOT] Unsupported authentication mechanism",
    "pop3": "S: -ERR Unsupported authentication mechanism",
    "smtp": "S: 504 5.5.4 Unsupported authentication mechanism",
}
AT_THE_BACKEND = {
    "imap": shown("connection", 'a LOGIN "alice" "secret"', "zz NOOP"),
    "pop3": shown("connection", "USER alice", "PASS secret", "NOOP"),
    "smtp": shown(
        "connection",
        "EHLO gate.example",
        "XCLIENT ADDR=127.0.0.1 LOGIN=alice NAME=[UNAVAILABLE]",
        "EHLO client.example",
        "NOOP",
    ),
}
"""What the backend receives for an ordinary login."""


def then(protocol: str, answer: str, who: str) -> str:
    """A login with the reply C{answer}, after which C{who} replies to NOOP."""
    return shown(answer, f"C: {NOOP[protocol]}", who)
