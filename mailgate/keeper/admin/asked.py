# -*- test-case-name: mailgate.test.keeper.admin.test_parsing -*-
"""
A request to the admin server, as values without I/O, and what its path, its query and its body say.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen
from twisted.web.http_headers import Headers

from mailgate.directives import nearest
from mailgate.keeper.admin.parameters import Parameter
from mailgate.keeper.admin.replies import Refused

__all__ = ["MOST_BODY", "Asked", "Peer", "decoded", "given", "objectIn", "queryIn"]

MOST_BODY = 48 * 1024
"""The most bytes of a body. With the header of at most 16 KiB, a request has at most 64 KiB."""

_MOST_PARAMETERS = 32
_LONGEST = 1024
"""The most characters of a text."""
_QUOTED = 40
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


@frozen
class Peer:
    """
    The other end of a connection.

    @ivar isLocal: whether it is a process at the unix socket.
    @ivar uid: the user of that process; L{None} over TCP, or if the system does not say it.
    @ivar pid: its process id, as C{uid}.
    @ivar address: its address and port, for the log, over TCP.
    @ivar host: the address of the gateway that it has connected to, over TCP.
    @ivar certificate: the common name of its verified certificate; L{None} without one.
    """

    isLocal: bool = False
    uid: int | None = None
    pid: int | None = None
    address: str = ""
    host: str = ""
    certificate: str | None = None


@frozen
class Asked:
    """
    One request.

    @ivar method: its method.
    @ivar target: the request target: path and query.
    @ivar headers: its header fields.
    @ivar body: its body.
    @ivar peer: who sends it.
    """

    method: bytes
    target: bytes
    headers: Headers = field(factory=Headers, repr=False)
    body: bytes = field(default=b"", repr=False)
    peer: Peer = Peer()

    def header(self, name: str) -> bytes | None:
        """
        Return a header field.

        @param name: its name.
        @return: its value; L{None} if it is missing.
        @raise Refused: it is repeated.
        """
        found = self.headers.getRawHeaders(name.encode("ascii")) or ()
        if len(found) > 1:
            raise Refused(400, f"the header field {name} is repeated", closes=True)
        return found[0] if found else None

    @property
    def path(self) -> bytes:
        """The path, as it was sent."""
        return self.target.partition(b"?")[0]

    @property
    def query(self) -> bytes:
        """The query, as it was sent; empty without one."""
        return self.target.partition(b"?")[2]


def decoded(raw: bytes, where: str) -> str:
    """
    Decode a part of a request target (RFC 3986): percent signs and UTF-8. A plus sign is a plus sign.

    @param raw: the part.
    @param where: what it is, for the error.
    @raise Refused: it is not valid.
    """
    if _BAD_ESCAPE.search(raw):
        raise Refused(400, f"{where} has a percent sign without two hexadecimal digits behind it")
    try:
        text = _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), raw).decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(400, f"{where} is not UTF-8") from None
    return _checked(text, where)


def _checked(text: str, where: str) -> str:
    if len(text) > _LONGEST:
        raise Refused(400, f"{where} is longer than {_LONGEST} characters")
    if "\0" in text:
        raise Refused(400, f"{where} contains a null character")
    return text


def queryIn(query: bytes) -> dict[str, str]:
    """
    Parse a query.

    @param query: the part of the request target behind the question mark.
    @return: the parameters.
    @raise Refused: it is not valid, or a parameter is repeated.
    """
    if not query:
        return {}
    parts = query.split(b"&")
    if len(parts) > _MOST_PARAMETERS:
        raise Refused(400, "the query has too many parameters", "bad query")
    found: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition(b"=")
        text = decoded(name, "a parameter's name")
        if not equals or not text:
            raise Refused(400, "the query must have the form NAME=VALUE&NAME=VALUE", "bad query")
        if text in found:
            raise Refused(400, f"{_quoted(text)} is repeated", "bad query")
        found[text] = decoded(value, _quoted(text))
    return found


def _pairs(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is repeated")
    return found


def _unknownNumber(word: str) -> Any:
    raise ValueError(f"{word} is no number")


def objectIn(body: bytes) -> dict[str, Any]:
    """
    Parse a body. An empty one is an empty object.

    @param body: the body.
    @raise Refused: it is not one JSON object in UTF-8, or a name is repeated.
    """
    if not body.strip():
        return {}
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=_unknownNumber)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not valid JSON", "bad body") from None
    if not isinstance(found, dict):
        raise Refused(400, "the body must be a JSON object", "bad body")
    return found


def _quoted(text: str) -> str:
    shown = text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."
    return shown if shown.isprintable() else shown.encode("unicode_escape").decode("ascii")


def given(parameters: Sequence[Parameter], values: Mapping[str, Any], isQuery: bool) -> dict[str, Any]:
    """
    Check the parameters of a request.

    @param parameters: those that the endpoint has.
    @param values: those of the request.
    @param isQuery: whether they are texts of a query, and not values of JSON.
    @return: the values, of the kinds of the parameters. A null is left out.
    @raise Refused: one is unknown, missing, or not valid.
    """
    title = "bad query" if isQuery else "bad body"
    what = "parameter" if isQuery else "member"
    known = {each.name: each for each in parameters}
    for name in values:
        if name not in known:
            near = nearest(name, list(known))
            raise Refused(400, f"{_quoted(name)} is no known {what}{near}", title)
    found = {}
    for name, parameter in known.items():
        value = values.get(name)
        if value is not None:
            found[name] = _valued(parameter, value, isQuery, title)
        elif parameter.isRequired:
            raise Refused(400, f"{name} is missing", title)
    return found


def _valued(parameter: Parameter, value: Any, isQuery: bool, title: str) -> Any:
    name, kind = parameter.name, parameter.kind
    if isQuery and kind is not str:
        value = _parsed(kind, value)
    if kind is str:
        if not isinstance(value, str) or not value:
            raise Refused(400, f"{name} must be a text that is not empty", title)
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise Refused(400, f"{name} has half of a surrogate pair", title) from None
        return _checked(value, name)
    if kind is bool:
        if not isinstance(value, bool):
            raise Refused(400, f"{name} must be true or false", title)
        return value
    isNumber = type(value) is int or (kind is float and type(value) is float and math.isfinite(value))
    if not isNumber or not parameter.least <= value <= parameter.most:
        form = "a whole number" if kind is int else "a number"
        bounds = f"from {parameter.least:.0f} to {parameter.most:.0f}"
        raise Refused(400, f"{name} must be {form} {bounds}", title)
    return value


def _parsed(kind: type, text: str) -> Any:
    """C{text} of a query as a value of JSON; L{None} if it is not valid."""
    if kind is bool:
        return {"true": True, "false": False}.get(text)
    if re.fullmatch("[0-9]{1,12}", text):
        return int(text)
    return float(text) if re.fullmatch(r"[0-9]{1,12}\.[0-9]{1,9}", text) else None
