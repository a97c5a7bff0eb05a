# -*- test-case-name: mailgate.test.log.test_connection -*-
"""
The lines of the log that are about one connection: their order, which stands here alone, and what is in each.

A line is an event and its fields, our words before those of others: the client, what happened in our words, the
protocol, more fields, the server, the session, and last, in quotes, the texts that came from the network. So nothing
that a client sends can pass for a field before it. C{docs/running.rst} has the table of events.
"""

from __future__ import annotations

from typing import Any

from mailgate.log.journal import Journal, printable
from mailgate.login import LoginRequest, TLSState

__all__ = [
    "ACCOUNT_UNUSABLE",
    "BACKEND_FAILED",
    "BACKEND_NOTED",
    "BAD_HEADER",
    "BEGUN",
    "COMMAND_REFUSED",
    "JUDGED",
    "LOGGED_IN",
    "LOGIN_FAILED",
    "LOOPS",
    "RESPONSE_REFUSED",
    "SERVICE_FAILED",
    "SERVICE_NOTED",
    "STORY",
    "TLS_ESTABLISHED",
    "UNTOLD_HEADER",
    "about",
    "aboutRequest",
    "defect",
    "line",
    "peerName",
    "peerOf",
    "tlsName",
]


def line(event: str, words: str = "", fields: str = "", texts: str = "") -> str:
    """
    The format, in twisted.logger's form, of the lines that tell of C{event}: C{words} say what happened, C{fields} are
    names with values, C{texts} those from the network, each in quotes and through L{printable}.
    """
    about = "server {server}, session {session}"
    parts = (f"{event}: client {{client}}", words, "protocol {protocol}", fields, about, texts)
    return ", ".join(part for part in parts if part)


_USER = 'user "{user}"'

BEGUN = line("connection begun")
"""At debug, as is what follows: of a connection behind a load balancer once before its PROXY header, once after."""

TLS_ESTABLISHED = line("TLS established", "", "tls {tls}")

JUDGED = line("login accepted", "", "method {method}, attempt {attempt}, backends {backends}", _USER)
"""The authenticator has accepted; the backend has not been asked."""

LOGGED_IN = line("logged in", "", "tls {tls}, method {method}, backend {backend}, times {times}", _USER)
"""The client is about to hear so, and the relay begins."""

LOGIN_FAILED = line("login failed", "{trouble}", "method {method}{reason}", f"{_USER}{{text}}")
"""A login was refused, or could not be decided: C{trouble} says which."""

STORY = line(
    "connection ended",
    "",
    "tls {tls}, method {method}, attempts {attempts}, backend {backend}, reached {reached}, outcome {outcome}{reason},"
    " seconds {seconds:.3f}, received {received}, sent {sent}, times {times}",
    _USER,
)
"""The end of a connection; L{mailgate.session.Session.story} gives its fields."""

BACKEND_FAILED = line("backend failed", "backend {backend} {reason}, in phase {phase}", "", f"{_USER}{{text}}")
"""A backend could not be used: an error, or, where the client was served by another, a warning."""

LOOPS = line(
    "login loops",
    "it has gone through as many gateways as proxy_hops allows: gateways are backends of each other",
    "",
    _USER,
)
"""A login came back to a gateway that it had gone through, or may be taken for that."""

BACKEND_NOTED = line("backend noted", "backend {backend} {concern}")
"""A backend could be used, and an operator should know something of it."""

SERVICE_FAILED = line("auth service failed", "auth http server {url} {reason}{rest}", "", f"{_USER}{{text}}")
"""The service had no answer to use: an error, or, where another answered, a warning. C{rest} is how long it rests."""

SERVICE_NOTED = line("auth service noted", "auth http server {url} {concern}", "", _USER)
"""The service's answer was used, and an operator should know something of it."""

ACCOUNT_UNUSABLE = line("account unusable", "auth_file {path}: an account cannot log in: {reason}", "", _USER)
"""An account of the file has a mistake."""

COMMAND_REFUSED = line("command refused", "{reason}", "", 'command "{command}"')
RESPONSE_REFUSED = line("command refused", "{reason} in AUTH {mechanism} command")
"""A command that is none, or may not be said, of which nginx logs a line too."""

BAD_HEADER = line("bad PROXY header", "it {reason}", "", 'header "{header}"')
UNTOLD_HEADER = line("bad PROXY header", "set_real_ip_from does not list the client, which may send none")

_DEFECTS = {
    words: line("internal error", words)
    for words in ("the login could not be judged", "the login failed", "the relay failed")
}


def defect(journal: Journal, session: Any, words: str, failure: Any = None) -> None:
    """Log in C{journal} the C{failure}, or the exception that is being handled, of the connection of C{session}."""
    journal.failure(_DEFECTS[words], failure, **about(session))


def about(session: Any) -> dict[str, Any]:
    """The fields that each line about the connection of a L{mailgate.session.Session} has."""
    return {
        "client": session.client,
        "protocol": session.protocol,
        "server": session.server,
        "session": session.id,
    }


def aboutRequest(request: LoginRequest) -> dict[str, Any]:
    """The same, and the C{user}, of the connection that C{request} came by."""
    client = request.client
    return {
        "client": peerName(client.host, client.port),
        "protocol": request.protocol,
        "server": client.server or "-",
        "session": client.session or "-",
        "user": printable(request.credentials.user),
    }


def peerName(host: str, port: int) -> str:
    """A client, in the forms of L{mailgate.login.Client}, as the log names it: C{[2001:db8::7]:40123}, C{unix:}."""
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def peerOf(name: str) -> tuple[str, int]:
    """The host and port that L{peerName} has made C{name} of."""
    host, _, port = name.rpartition(":")
    if not host or not port or (":" in host and not host.endswith("]")):
        # A unix socket, or an address whose port a PROXY header gave as 0.
        return name, 0
    return host.strip("[]"), int(port)


def tlsName(tls: TLSState | None) -> str:
    """What was negotiated, or C{no}."""
    return f"{tls.protocol} {tls.cipher}" if tls else "no"
