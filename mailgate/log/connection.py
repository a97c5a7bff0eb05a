# -*- test-case-name: mailgate.test.log.test_connection -*-
"""
The formats of the log lines about one connection.

Each line has the same order: the event, the client, what happened in mailgate's words, the protocol, more fields, the
server, the session, and last the texts from the network, in quotes. Our words come first, so a text that a client sends
cannot imitate a field. fail2ban and operators' scripts parse these lines. L{line} is the only place that knows the
order; C{docs/observing.rst} has the table of events.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from mailgate.log.journal import Journal, printable
from mailgate.login import LoginRequest, TLSState

__all__ = [
    "ACCOUNT_UNUSABLE",
    "BACKEND_FAILED",
    "BACKEND_WARNING",
    "BAD_HEADER",
    "BEGUN",
    "COMMAND_REFUSED",
    "FORMS",
    "JUDGED",
    "LOGGED_IN",
    "LOGIN_FAILED",
    "LOOPS",
    "RESPONSE_REFUSED",
    "SERVICE_FAILED",
    "SERVICE_WARNING",
    "STORY",
    "TLS_ESTABLISHED",
    "UNTOLD_HEADER",
    "Form",
    "about",
    "aboutRequest",
    "defect",
    "line",
    "peerName",
    "peerOf",
    "tlsName",
]


@frozen
class Form:
    """
    The parts of a format, for logs in another form than text.

    @ivar event: the event.
    @ivar words: what happened, in words; may contain fields.
    """

    event: str
    words: str

    @property
    def name(self) -> str:
        """The event as one word, such as C{login_failed}."""
        return self.event.replace(" ", "_").lower()

    @property
    def isConstant(self) -> bool:
        """Whether C{words} say what no field says."""
        return bool(self.words) and "{" not in self.words


FORMS: dict[str, Form] = {}
"""The formats that L{line} has made."""


def line(event: str, words: str = "", fields: str = "", texts: str = "") -> str:
    """
    Return the format of a line, for twisted.logger.

    @param event: the event, with which the line begins.
    @param words: what happened, in words.
    @param fields: further names with values.
    @param texts: names with texts from the network, which are in quotes. Their values must come from L{printable}.
    """
    about = "server {server}, session {session}"
    parts = (f"{event}: client {{client}}", words, "protocol {protocol}", fields, about, texts)
    format = ", ".join(part for part in parts if part)
    FORMS[format] = Form(event, words)
    return format


_USER = 'user "{user}"'

BEGUN = line("connection begun")
"""Logged at debug. Behind a load balancer it is logged twice: before the PROXY header and after it."""

TLS_ESTABLISHED = line("TLS established", "", "tls {tls}")
"""The handshake has succeeded. Logged at debug."""

JUDGED = line("login accepted", "", "method {method}, attempt {attempt}, backends {backends}", _USER)
"""The authenticator accepted the login. The backend login follows. Logged at debug."""

LOGGED_IN = line("logged in", "", "tls {tls}, method {method}, backend {backend}, times {times}", _USER)
"""The backend accepted the login, and the relay begins."""

LOGIN_FAILED = line("login failed", "{trouble}", "method {method}{reason}", f"{_USER}{{text}}")
"""A login was refused, or failed for now: C{trouble} is the value of L{mailgate.login.Trouble}."""

STORY = line(
    "connection ended",
    "",
    "tls {tls}, method {method}, attempts {attempts}, backend {backend}, reached {reached}, outcome {outcome}{reason},"
    " seconds {seconds:.3f}, received {received}, sent {sent}, times {times}",
    _USER,
)
"""The end of a connection. L{mailgate.session.Session.story} returns the fields."""

BACKEND_FAILED = line("backend failed", "backend {backend} {reason}, in phase {phase}", "", f"{_USER}{{text}}")
"""A backend could not be used: an error, or a warning if another backend served the client."""

LOOPS = line(
    "login loops",
    "it has gone through as many gateways as proxy_hops allows: gateways are backends of each other",
    "",
    _USER,
)
"""A login came back to a gateway that it had gone through, or may be taken for that."""

BACKEND_WARNING = line("backend warning", "backend {backend} {concern}")
"""A backend was used, but the operator should look at its configuration: C{concern} says why."""

SERVICE_FAILED = line("auth service failed", "auth http server {url} {reason}{rest}", "", f"{_USER}{{text}}")
"""
The authentication service gave no usable answer: an error, or a warning if another service answered. C{rest} says for
how long the gateway does not ask it again.
"""

SERVICE_WARNING = line("auth service warning", "auth http server {url} {concern}", "", _USER)
"""The answer of the authentication service was used, but the operator should look at it: C{concern} says why."""

ACCOUNT_UNUSABLE = line("account unusable", "auth_file {path}: an account cannot log in: {reason}", "", _USER)
"""An account in the account file has a mistake."""

COMMAND_REFUSED = line("command refused", "{reason}", "", 'command "{command}"')
RESPONSE_REFUSED = line("command refused", "{reason} in AUTH {mechanism} command")
"""A command is invalid or not allowed. nginx logs these, too."""

BAD_HEADER = line("bad PROXY header", "it {reason}", "", 'header "{header}"')
UNTOLD_HEADER = line("bad PROXY header", "refused because set_real_ip_from does not list the client")

_DEFECTS = {
    words: line("internal error", words)
    for words in ("the authenticator failed", "the login failed", "the relay failed")
}


def defect(journal: Journal, session: Any, words: str, failure: Any = None) -> None:
    """
    Log an unexpected exception with its traceback.

    @param journal: the log.
    @param session: the L{mailgate.session.Session} of the connection.
    @param words: what failed: one of the texts of C{_DEFECTS}.
    @param failure: the L{twisted.python.failure.Failure}; L{None} for the exception that is being handled.
    """
    journal.failure(_DEFECTS[words], failure, **about(session))


def about(session: Any) -> dict[str, Any]:
    """
    Return the fields that each line about a connection has.

    @param session: the L{mailgate.session.Session} of the connection.
    """
    return {
        "client": session.client,
        "protocol": session.protocol,
        "server": session.server,
        "session": session.id,
    }


def aboutRequest(request: LoginRequest) -> dict[str, Any]:
    """Return the fields of L{about}, and the C{user}, for the connection of C{request}."""
    client = request.client
    return {
        "client": peerName(client.host, client.port),
        "protocol": request.protocol,
        "server": client.server or "-",
        "session": client.session or "-",
        "user": printable(request.credentials.user),
    }


def peerName(host: str, port: int) -> str:
    """
    Return how the log names a client: C{192.0.2.7:40123}, C{[2001:db8::7]:40123} or C{unix:}.

    @param host: the address without brackets, or C{unix:}.
    @param port: the port; 0 for a unix socket.
    """
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def peerOf(name: str) -> tuple[str, int]:
    """Return the host and the port of C{name}, a result of L{peerName}. For a unix socket, return C{name} and 0."""
    host, _, port = name.rpartition(":")
    if not host or not port or (":" in host and not host.endswith("]")):
        # A unix socket, or an address with port 0 from a PROXY header.
        return name, 0
    return host.strip("[]"), int(port)


def tlsName(tls: TLSState | None) -> str:
    """
    Return how the log names the TLS of a connection: version and cipher suite, or C{no}.

    @param tls: what the handshake negotiated; L{None} without TLS.
    """
    return f"{tls.protocol} {tls.cipher}" if tls else "no"
