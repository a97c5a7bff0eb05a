# -*- test-case-name: mailgate.test.auth.http.test_dialect -*-
"""
What services for C{auth_http} want to be told otherwise than nginx tells it: escapes, names of protocols, and headers
whose values differ from login to login. Which service wants what: L{mailgate.auth.http.presets}.

In the value of a header C{$name} and C{${name}} stand for one of L{VARIABLES}, which have the names that they have in
nginx's http and stream modules, and C{${dollar}} for C{$}. Any other C{$} is one, as in nginx's mail module.
"""

from __future__ import annotations

import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote_from_bytes

from attrs import Factory, field, frozen

from mailgate.login import LoginRequest, Method, fitForWire

__all__ = [
    "ESCAPES",
    "NGINX",
    "PLACEHOLDER",
    "PROTOCOL_NAMES",
    "VARIABLES",
    "Dialect",
    "Untellable",
    "headerText",
    "literal",
    "nginxEscape",
    "quoted",
]

PLACEHOLDER = b"_password_"
"""What stands for the password under C{auth_http_pass off}."""

Escape = Callable[[bytes], bytes]
Headers = tuple[tuple[bytes, bytes], ...]

_ESCAPED = re.compile(rb"[\x00-\x20%]")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Untellable(Exception):
    """The service cannot be told a name or a password in the way in which it wants to be told; the text says why."""


# How Auth-User and Auth-Pass are written.


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def nginxEscape(raw: bytes) -> bytes:
    """C{raw} as nginx escapes C{Auth-User} and C{Auth-Pass}: 0x00 to 0x20 and C{%}, nothing else."""
    return _ESCAPED.sub(_percent, raw)


def headerText(raw: bytes) -> bytes:
    """
    C{raw} for the headers that nginx writes as it has them. So do we, but for control characters other than TAB, which
    nginx lets through, and with them whole headers: they become C{%XX}.
    """
    return _CONTROL.sub(_percent, raw)


def _urlEscape(raw: bytes) -> bytes:
    """All but the unreserved characters of RFC 3986 as C{%XX}."""
    return quote_from_bytes(raw, safe=b"").encode("ascii")


def _raw(raw: bytes) -> bytes:
    """
    C{raw} itself.

    @raise Untellable: a header cannot carry it: it would end early, or come out without the blanks at its ends. Were
        that escaped, the service would judge something else than the client has said.
    """
    if not fitForWire(raw) or raw.strip(b" \t") != raw:
        raise Untellable("a header cannot carry this user name or password unescaped")
    return raw


ESCAPES: dict[str, Escape] = {
    "nginx": nginxEscape,
    "url": _urlEscape,
    "none": _raw,
    "base64": b64encode,
    "base64url": urlsafe_b64encode,
}
"""The words of C{auth_http_escape}; C{base64url} is for presets alone."""


# What Auth-Protocol says.


def _nginxName(request: LoginRequest) -> bytes:
    return request.protocol.encode("ascii")


def _zimbraName(request: LoginRequest) -> bytes:
    name = request.protocol.encode("ascii")
    return name + b"ssl" if request.client.tls is not None and request.protocol != "smtp" else name


def _mailuName(request: LoginRequest) -> bytes:
    if request.protocol == "smtp" and request.credentials.method is not Method.NONE:
        return b"submission"
    return request.protocol.encode("ascii")


PROTOCOL_NAMES: dict[str, Callable[[LoginRequest], bytes]] = {
    "nginx": _nginxName,
    "zimbra": _zimbraName,
    "mailu": _mailuName,
}
"""The words of C{auth_http_protocol_names}."""


# Headers.


@frozen
class Variable:
    """
    C{value(request)} is what it stands for. With C{counts} an answer is another's where its value is another; the
    client's address and the protocol always count.
    """

    value: Callable[[LoginRequest], str]
    counts: bool = False


def _port(port: int) -> str:
    return str(port) if port else ""


def _serverName(request: LoginRequest) -> str:
    details = request.client.details
    return details.serverName if details is not None else ""


VARIABLES: dict[str, Variable] = {
    "remote_addr": Variable(lambda request: request.client.host),
    "remote_port": Variable(lambda request: _port(request.client.port)),
    "server_addr": Variable(lambda request: request.client.local, counts=True),
    "server_port": Variable(lambda request: _port(request.client.localPort), counts=True),
    "ssl_server_name": Variable(_serverName, counts=True),
    "session_id": Variable(lambda request: request.client.session),
    "protocol": Variable(lambda request: request.protocol),
}
"""Those that the value of an C{auth_http_header} can hold. A port is empty where there is none: at a unix socket."""

_DOLLAR = "dollar"
_REFERENCE = re.compile(rb"\$(?:\{([A-Za-z0-9_]+)\}|([A-Za-z0-9_]+))")


@frozen
class _Template:
    """A value with variables in it: C{form} has a C{%b} for each of them, and other C{%} doubled."""

    form: bytes
    variables: tuple[Variable, ...]

    def fill(self, request: LoginRequest) -> bytes:
        values = [headerText(variable.value(request).encode("utf-8", "replace")) for variable in self.variables]
        return self.form % tuple(values)


def _template(value: bytes) -> bytes | _Template:
    """C{value} as a template, or as the bytes that it always is."""
    variables: list[Variable] = []

    def replace(match: re.Match[bytes]) -> bytes:
        name = (match[1] or match[2]).decode("ascii")
        if match[1] and name == _DOLLAR:
            return b"$"
        if name not in VARIABLES:
            return match[0]
        variables.append(VARIABLES[name])
        return b"%b"

    form = _REFERENCE.sub(replace, value.replace(b"%", b"%%"))
    return _Template(form, tuple(variables)) if variables else form.replace(b"%%", b"%")


def literal(value: bytes) -> list[str]:
    """What C{value} has in the form of variables, and is sent as it is, as there are none of those names."""
    names = [(match[1] or match[2]).decode("ascii") for match in _REFERENCE.finditer(value)]
    return [name for name in names if name not in VARIABLES and name != _DOLLAR]


def quoted(value: bytes) -> bytes:
    """C{value} as it has to be written so that nothing in it is taken for a variable."""

    def replace(match: re.Match[bytes]) -> bytes:
        name = (match[1] or match[2]).decode("ascii")
        return b"${dollar}" + match[0][1:] if name in VARIABLES or name == _DOLLAR else match[0]

    return _REFERENCE.sub(replace, value)


def _templates(dialect: Dialect) -> tuple[tuple[bytes, bytes | _Template], ...]:
    return tuple((name, _template(value)) for name, value in dialect.headers)


def _constant(dialect: Dialect) -> Headers | None:
    fields = tuple((name, value) for name, value in dialect.templates if isinstance(value, bytes))
    return fields if len(fields) == len(dialect.templates) else None


def _variables(dialect: Dialect) -> tuple[Variable, ...]:
    return tuple(
        variable for _, value in dialect.templates if isinstance(value, _Template) for variable in value.variables
    )


@frozen
class Dialect:
    """
    How questions are worded for one service, and how its answers are to be read. By default all is nginx's.

    C{headers} are added to each question. C{showsPassword} is false where the service is asked for routes only.
    C{acceptsMissing} has an answer without C{Auth-Status} read as nginx reads it. With C{codesForAll} an
    C{Auth-Error-Code} is meant for IMAP and POP3 too; with C{escapesAnswer} the service escapes C{Auth-User} as it was
    escaped for it.
    """

    headers: Headers = field(default=(), repr=False)
    escapeUser: Escape = nginxEscape
    escapePassword: Escape = field(default=nginxEscape, repr=False)
    protocolName: Callable[[LoginRequest], bytes] = _nginxName
    showsPassword: bool = True
    acceptsMissing: bool = False
    codesForAll: bool = False
    escapesAnswer: bool = False
    templates: tuple[tuple[bytes, bytes | _Template], ...] = field(
        init=False, repr=False, default=Factory(_templates, takes_self=True)
    )
    constant: Headers | None = field(init=False, repr=False, default=Factory(_constant, takes_self=True))
    variables: tuple[Variable, ...] = field(init=False, repr=False, default=Factory(_variables, takes_self=True))

    def fields(self, request: LoginRequest) -> Sequence[tuple[bytes, bytes]]:
        """The headers, as they are for C{request}."""
        if self.constant is not None:
            return self.constant
        return [(name, value if isinstance(value, bytes) else value.fill(request)) for name, value in self.templates]

    def told(self, request: LoginRequest) -> tuple[Any, ...]:
        """
        What the headers say of C{request} that makes another question of it. What is another for every connection does
        not: the client's port, and the session's name.
        """
        return tuple(variable.value(request) for variable in self.variables if variable.counts)


NGINX = Dialect()
"""That of nginx."""
