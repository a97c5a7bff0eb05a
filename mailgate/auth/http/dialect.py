# -*- test-case-name: mailgate.test.auth.http.test_dialect -*-
"""
Differences of C{auth_http} services from nginx's protocol: escapes, names of protocols, and additional headers with
variable values. L{mailgate.auth.http.presets} lists which service needs which.

In the value of a header, C{$name} and C{${name}} stand for a variable of L{VARIABLES}. The names are those of nginx's
http and stream modules. C{${dollar}} stands for C{$}. Any other C{$} is sent unchanged, as by nginx's mail module.
"""

from __future__ import annotations

import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from functools import partial
from itertools import chain
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
"""The value of C{Auth-Pass} with C{auth_http_pass = off}."""

Escape = Callable[[bytes], bytes]
Headers = tuple[tuple[bytes, bytes], ...]

_ESCAPED = re.compile(rb"[\x00-\x20%]")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Untellable(Exception):
    """A user name or password cannot be sent to the service. The text is the reason, for the log."""


# Escapes for Auth-User and Auth-Pass.


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


# Without a function of Python around them, as each login calls them several times.

nginxEscape: Escape = partial(_ESCAPED.sub, _percent)
"""Escapes a value as nginx escapes C{Auth-User} and C{Auth-Pass}: C{%XX} for the bytes 0x00 to 0x20 and for C{%}."""

headerText: Escape = partial(_CONTROL.sub, _percent)
"""
Prepares a value for a header that nginx sends without an escape. Control characters except TAB become C{%XX}: nginx
sends them unchanged, which lets a client insert headers.
"""


def _urlEscape(raw: bytes) -> bytes:
    """Escape all but the unreserved characters of RFC 3986 as C{%XX}."""
    return quote_from_bytes(raw, safe=b"").encode("ascii")


def _raw(raw: bytes) -> bytes:
    """
    Return C{raw} unchanged.

    @raise Untellable: a header cannot contain these bytes, or would lose the spaces at their ends. Escaping them
        instead would make the service check another value.
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
"""The escapes by the word of C{auth_http_escape}. Only presets use C{base64url}."""


# Values of Auth-Protocol.


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
"""The functions for C{Auth-Protocol} by the word of C{auth_http_protocol_names}."""


# Additional headers.


@frozen
class Variable:
    """
    A variable for the values of headers.

    @ivar value: C{value(request)} returns its value for a login.
    @ivar counts: whether a cached answer is valid for one value only. The client's address and the protocol always
        count.
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
"""The variables for C{auth_http_header}, by name. A port is empty if there is none, as for a unix socket."""

_DOLLAR = "dollar"
_REFERENCE = re.compile(rb"\$(?:\{([A-Za-z0-9_]+)\}|([A-Za-z0-9_]+))")


def _line(name: bytes, value: bytes, variables: list[Variable]) -> bytes:
    """
    Return the line of a header as a form for C{%}, with C{%b} for each variable in C{value}, and add the variables to
    C{variables}.
    """

    def replace(match: re.Match[bytes]) -> bytes:
        word = (match[1] or match[2]).decode("ascii")
        if match[1] and word == _DOLLAR:
            return b"$"
        if word not in VARIABLES:
            return match[0]
        variables.append(VARIABLES[word])
        return b"%b"

    form = _REFERENCE.sub(replace, value.replace(b"%", b"%%"))
    return b"%b: %b\r\n" % (name.replace(b"%", b"%%"), form)


def literal(value: bytes) -> list[str]:
    """
    Return the names after a C{$} in a value that are not variables and are sent unchanged.

    @param value: the value of a header.
    """
    names = [(match[1] or match[2]).decode("ascii") for match in _REFERENCE.finditer(value)]
    return [name for name in names if name not in VARIABLES and name != _DOLLAR]


def quoted(value: bytes) -> bytes:
    """
    Quote a value so that nothing in it is a variable.

    @param value: the text to send.
    @return: the text to write in C{auth_http_header}.
    """

    def replace(match: re.Match[bytes]) -> bytes:
        name = (match[1] or match[2]).decode("ascii")
        return b"${dollar}" + match[0][1:] if name in VARIABLES or name == _DOLLAR else match[0]

    return _REFERENCE.sub(replace, value)


def _form(dialect: Dialect) -> tuple[bytes, tuple[Variable, ...]]:
    if not fitForWire(*chain.from_iterable(dialect.headers)):
        raise ValueError("a header contains CR, LF or NUL")
    variables: list[Variable] = []
    return b"".join([_line(name, value, variables) for name, value in dialect.headers]), tuple(variables)


@frozen
class Dialect:
    """
    How a service expects requests and words its answers. The defaults are those of nginx.

    @ivar headers: additional headers, with variables.
    @ivar escapeUser: escapes C{Auth-User}, bytes to bytes.
    @ivar escapePassword: escapes C{Auth-Pass}, bytes to bytes.
    @ivar protocolName: returns C{Auth-Protocol} for a login.
    @ivar showsPassword: whether the service receives the client's password. Otherwise it only names the backend.
    @ivar acceptsMissing: whether an answer without C{Auth-Status} is read as nginx reads it.
    @ivar codesForAll: whether C{Auth-Error-Code} also applies to IMAP and POP3.
    @ivar escapesAnswer: whether the service escapes C{Auth-User} in its answers.
    @ivar form: the lines of C{headers} as a form for C{%}, with C{%b} for each variable; and the variables, in the same
        order.
    @raise ValueError: a header contains CR, LF or NUL.
    """

    headers: Headers = field(default=(), repr=False)
    escapeUser: Escape = nginxEscape
    escapePassword: Escape = field(default=nginxEscape, repr=False)
    protocolName: Callable[[LoginRequest], bytes] = _nginxName
    showsPassword: bool = True
    acceptsMissing: bool = False
    codesForAll: bool = False
    escapesAnswer: bool = False
    form: tuple[bytes, tuple[Variable, ...]] = field(init=False, repr=False, default=Factory(_form, takes_self=True))

    def values(self, request: LoginRequest) -> list[bytes]:
        """
        Return the values of the variables in C{form} for a login.

        @param request: the login.
        """
        return [headerText(variable.value(request).encode("utf-8", "replace")) for variable in self.form[1]]

    def told(self, request: LoginRequest) -> tuple[Any, ...]:
        """
        Return the values of the variables that a cached answer depends on. Values that differ for each connection are
        left out: the client's port and the name of the session.

        @param request: the login.
        """
        variables = self.form[1]
        return tuple([variable.value(request) for variable in variables if variable.counts]) if variables else ()


NGINX = Dialect()
"""The dialect of nginx."""
