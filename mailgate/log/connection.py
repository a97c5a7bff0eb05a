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
    "ANSWERED",
    "ASKED",
    "ATTEMPT_FAILED",
    "BACKEND_ACCEPTED",
    "BACKEND_FAILED",
    "BACKEND_LOGIN",
    "BACKEND_TLS",
    "BACKEND_WARNING",
    "BAD_HEADER",
    "BEGUN",
    "CACHE",
    "CHALLENGED",
    "CHOSEN",
    "COMMAND",
    "COMMAND_REFUSED",
    "CONNECTED",
    "EXCHANGE_BEGUN",
    "FORMS",
    "HALF_CLOSED",
    "HEADER_READ",
    "INTRODUCED",
    "JUDGED",
    "LIMITED",
    "LITERAL",
    "LOGGED_IN",
    "LOGIN_BEGUN",
    "LOGIN_FAILED",
    "LOOPS",
    "MECHANISM_REFUSED",
    "RELAY_BEGUN",
    "RELAY_ENDED",
    "RESPONSE",
    "RESPONSE_REFUSED",
    "SERVICE_FAILED",
    "SERVICE_MISSED",
    "SERVICE_WARNING",
    "SIDE_CLOSED",
    "STICKY_MOVED",
    "STORY",
    "TLS_ESTABLISHED",
    "UNTOLD_HEADER",
    "Form",
    "about",
    "aboutRequest",
    "defect",
    "formOf",
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


def formOf(format: str | None) -> Form | None:
    """
    Return the parts of a format.

    @param format: a result of L{line}, or of L{mailgate.log.journal.traced} for one.
    @return: the parts; L{None} for any other format.
    """
    form = FORMS.get(format or "")
    return form or (FORMS.get(format.replace(_TRACE, "", 1)) if format and _TRACE in format else None)


_TRACE = ", trace {trace}"


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

TLS_ESTABLISHED = line("TLS established", "", "tls {tls}, resumed {resumed}", 'name "{name}"')
"""The handshake has succeeded. C{name} is the host name that the client asked for (SNI). Logged at debug."""

# The steps of a connection, logged at debug. No line holds a secret or its length.

HEADER_READ = line("PROXY header read", "it came from {sender}", "source {source}, destination {destination}")
"""The PROXY header is complete. Without addresses in it, C{source} and C{destination} are C{-}."""

COMMAND = line("command received", "", "", 'command "{command}"')
"""A command of the client, as L{mailgate.frontend.disclosure} shows it."""

LITERAL = line("literal received", "an argument of the command")
"""An argument of an IMAP command, which is not shown."""

EXCHANGE_BEGUN = line("SASL exchange begun", "mechanism {mechanism}", "initial response {initial}")
"""The client has chosen a SASL mechanism that is offered. C{initial}: whether it has sent a response already."""

MECHANISM_REFUSED = line("SASL mechanism refused", "mechanism {mechanism} is not offered")
"""The client has chosen another one, whose name is shown only if it is a mechanism's."""

CHALLENGED = line("SASL challenge sent", "mechanism {mechanism}")
RESPONSE = line("SASL response received", "mechanism {mechanism}")
"""A response of the client, which is not shown."""

LOGIN_BEGUN = line("login begun", "", "method {method}, attempt {attempt}", _USER)
"""The client has sent credentials."""

CACHE = line("auth cache", "{result}")
"""What C{auth_cache_ttl} has found for a login."""

ASKED = line("auth service asked", "auth http server {url}", "", 'headers "{headers}"')
"""A login is sent to the authentication service, with these headers. Values that may be secrets are C{***}."""

ANSWERED = line(
    "auth service answered",
    "auth http server {url} {verdict}",
    "seconds {seconds:.3f}",
    'headers "{headers}"',
)
"""The headers of its answer, in the same form."""

SERVICE_MISSED = line("auth service not used", "auth http server {url} {reason}", "seconds {seconds:.3f}")
"""It gave no answer to this login."""

CHOSEN = line("backend chosen", "backend {backend}", "{why}")
"""Where the login goes, and why."""

CONNECTED = line("backend connected", "backend {backend}", "address {address}, seconds {seconds:.3f}")
BACKEND_TLS = line("backend TLS established", "backend {backend}", "tls {tls}, resumed {resumed}")
INTRODUCED = line("client introduced", "backend {backend} is sent {what}")
"""The backend is sent the client's address, which this line does not repeat."""

BACKEND_LOGIN = line("backend login begun", "backend {backend}", "method {method}")
BACKEND_ACCEPTED = line("backend login accepted", "backend {backend}", "seconds {seconds:.3f}")
ATTEMPT_FAILED = line("backend attempt failed", "backend {backend} {reason}, in phase {phase}", "seconds {seconds:.3f}")
"""The login failed at one backend. It may go on at others."""

RELAY_BEGUN = line("relay begun", "backend {backend}", "early {early}")
"""C{early} counts the bytes that the client has sent behind its login."""

HALF_CLOSED = line("relay half closed", "the {side} sends no more")
SIDE_CLOSED = line("relay side closed", "the connection to the {side} is closed")
RELAY_ENDED = line("relay ended", "{outcome}", "received {received}, sent {sent}")

JUDGED = line("login accepted", "", "method {method}, attempt {attempt}, backends {backends}", _USER)
"""The authenticator accepted the login. The backend login follows. Logged at debug."""

LOGGED_IN = line("logged in", "", "tls {tls}, method {method}, backend {backend}, times {times}", _USER)
"""The backend accepted the login, and the relay begins."""

LOGIN_FAILED = line("login failed", "{trouble}", "method {method}{reason}", f"{_USER}{{text}}")
"""A login was refused, or failed for now: C{trouble} is the value of L{mailgate.login.Trouble}."""

LIMITED = line("limited", "{rule}", "action {action}{would}", _USER)
"""
A limit has acted on a connection or a login: C{rule} is a value of L{mailgate.limits.attempt.Rule}. A login that it has
refused is no failed login.
"""

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

STICKY_MOVED = line(
    "place changed", "upstream {group}: from backend {before}, which cannot be used, to backend {backend}", "", _USER
)
"""A user of a sticky group has another place: a backend that took the login while his own could not be used."""

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
    Return the fields that each line about a connection has; C{trace} only with C{auth_http_traceparent}.

    @param session: the L{mailgate.session.Session} of the connection.
    """
    fields = {
        "client": session.client,
        "protocol": session.protocol,
        "server": session.server,
        "session": session.id,
    }
    if session.trace:
        fields["trace"] = session.trace
    return fields


def aboutRequest(request: LoginRequest) -> dict[str, Any]:
    """Return the fields of L{about}, and the C{user}, for the connection of C{request}."""
    client = request.client
    fields = {
        "client": peerName(client.host, client.port),
        "protocol": request.protocol,
        "server": client.server or "-",
        "session": client.session or "-",
        "user": printable(request.credentials.user),
    }
    if request.trace:
        fields["trace"] = request.trace
    return fields


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
