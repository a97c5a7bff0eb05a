# -*- test-case-name: mailgate.test.log.test_jsonlines -*-
"""
Log events as lines of JSON, for C{error_log FILE LEVEL json}. The fields have the names of the admin API.

A line is ASCII: other characters are escaped, so no text from the network can end a line or control a terminal.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from string import Formatter
from typing import Any

from twisted.logger import LogEvent

from mailgate.log.connection import formOf, peerOf
from mailgate.log.levels import levelName
from mailgate.log.rate import MOST_KINDS
from mailgate.log.textlines import messageOf, tracebackOf

__all__ = ["LONGEST", "MESSAGE", "jsonLines"]

LONGEST = 8192
"""The most bytes of a line, with its line end."""

MESSAGE = "message"
"""The C{event} of lines that are not about a connection."""

_NULL = "null"

_MOST = 1e15
"""Numbers above it, infinity and NaN are left out: not every reader of JSON takes them."""

_MOST_USUAL = 500

_ESCAPED = re.compile(r'\\(?:(["\\])|([nrt])|x([0-9a-f]{2})|u([0-9a-f]{4}))')
_FIRST_TIME = "proxy="
"""The beginning of all texts of L{mailgate.session.Session.times}."""

_BLANKS = {"n": "\n", "r": "\r", "t": "\t"}


def _raw(match: re.Match[str]) -> str:
    character, blank, byte, code = match.groups()
    if character:
        return str(character)
    if blank:
        return _BLANKS[blank]
    number = int(byte or code, 16)
    # printable writes bytes that are not UTF-8 in this way.
    return "\ufffd" if byte and number >= 0x80 else chr(number)


def _plain(text: str) -> str:
    """Return what L{mailgate.log.journal.printable} has escaped. Bytes that are not UTF-8 become U+FFFD."""
    return _ESCAPED.sub(_raw, text) if "\\" in text else text


def _word(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return _NULL if value in ("", "-") else quoted(value)
    if kind is int:
        return str(value)
    if kind is float:
        return f"{value:.3f}" if abs(value) < _MOST else _NULL
    return json.dumps(value) if value is None or kind is bool else quoted(str(value))


# Most lines have the same few words.
_usual = lru_cache(_MOST_USUAL, typed=True)(_word)


def _ofNetwork(value: Any) -> str:
    text = str(value)
    if text.startswith(', text "'):
        text = text[8:-1]
    return _NULL if text in ("", "-") else quoted(_plain(text))


@lru_cache(_MOST_USUAL)
def _reason(value: Any) -> str:
    """A reason, which text lines have with a comma and a word, or in brackets."""
    text = str(value)
    if text.startswith(" ("):
        text = text[2:-1]
    return _word(text.removeprefix(", reason ").removeprefix(", "))


def _client(value: Any) -> str:
    host, port = peerOf(str(value))
    return f'{{"address": {quoted(host)}, "port": {port or _NULL}}}'


@lru_cache(_MOST_USUAL)
def _tls(value: Any) -> str:
    version, blank, cipher = str(value).partition(" ")
    return f'{{"version": {quoted(version)}, "cipher": {quoted(cipher)}}}' if blank else _NULL


def _times(value: Any) -> str:
    """The text of L{mailgate.session.Session.times} as an object."""
    text = str(value)
    if not text.startswith(_FIRST_TIME):
        return _NULL
    return '{"' + text.replace(" ", ', "').replace("=", '": ') + "}"


def _list(value: Any) -> str:
    return f"[{', '.join(map(quoted, str(value).split()))}]"


_NAMES = {"session": "id", "reached": "phase", "concern": "reason"}
"""The names in the API of fields that have another name in text lines."""

_FORMS: dict[str, Callable[[Any], str]] = {
    "client": _client,
    "tls": _tls,
    "times": _times,
    "backends": _list,
    "reason": _reason,
    "rest": _reason,
    **dict.fromkeys(("protocol", "server", "method", "backend", "reached", "phase", "outcome", "trouble"), _usual),
    **dict.fromkeys(("user", "text", "command", "header", "headers", "name"), _ofNetwork),
}
"""How fields become JSON. All others are words or numbers."""

_FIRST = ("session", "client", "protocol", "server", "user")


@lru_cache(MOST_KINDS)
def _compiled(format: str) -> tuple[str, tuple[tuple[str, Callable[[Any], str]], ...]]:
    """
    Parse a format of L{mailgate.log.connection} once.

    @param format: the format.
    @return: the beginning of a template for the operator C{%}, from C{event} on, and for each value in it the field and
        the function that makes JSON of it.
    """
    form = formOf(format)
    assert form is not None, "the caller has made sure of that"
    found = dict.fromkeys(name for _, name, _, _ in Formatter().parse(format) if name)
    names = [*(name for name in _FIRST if name in found), *(name for name in found if name not in _FIRST)]
    template = f'"event": {quoted(form.name)}'
    for name in names:
        template += f', "{_NAMES.get(name, name)}": %s'
    if form.isConstant:
        template += f', "reason": {quoted(form.words)}'.replace("%", "%%")
    return template, tuple((name, _FORMS.get(name, _word)) for name in names)


def _bodyOf(event: LogEvent) -> str:
    format = event.get("log_format")
    if formOf(format) is not None:
        try:
            template, values = _compiled(str(format))
            return template % tuple([convert(event[name]) for name, convert in values])
        except Exception:
            # A field is missing or of another kind: messageOf never raises.
            return _message(event)
    return _message(event)


def _message(event: LogEvent) -> str:
    return f'"event": "{MESSAGE}", "message": {quoted(messageOf(event))}'


@lru_cache(2)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _moment(when: float | None) -> str:
    """The time of RFC 3339, in UTC, with milliseconds."""
    if when is None:
        return _NULL
    second = int(when // 1)
    return f'"{_second(second)}.{int(1000 * (when - second)):03}Z"'


def jsonLines(longest: int = LONGEST) -> Callable[[LogEvent], str]:
    """
    Return a function that formats an event as one line of JSON.

    @param longest: the most bytes of a line, with its line end.
    """

    def formatted(event: LogEvent) -> str:
        line = f'{{"time": {_moment(event.get("log_time"))}, "level": "{levelName(event)}", "pid": {os.getpid()}, '
        line += _bodyOf(event)
        traceback = tracebackOf(event)
        if traceback is not None:
            line += f', "traceback": {quoted(traceback)}'
        return f"{line}}}\n" if len(line) < longest - 1 else f"{_cut(json.loads(f'{line}}}'), longest - 1)}\n"

    return formatted


_KEPT = ("time", "level", "pid", "event", "id")


def _cut(fields: dict[str, Any], longest: int) -> str:
    """
    Return C{fields} as JSON of at most C{longest} characters: cut the long ones.

    @param fields: the fields.
    @param longest: the most characters.
    """
    for most in (longest // 2, longest // 4, longest // 16, longest // 64):
        line = json.dumps({name: _shortened(name, value, most) for name, value in fields.items()})
        if len(line) <= longest:
            return line
    return json.dumps({name: fields[name] for name in _KEPT if name in fields})


def _shortened(name: str, value: Any, most: int) -> Any:
    """Cut C{value} to C{most} characters of JSON. Of a traceback the end is kept, which says most."""
    if not isinstance(value, str):
        return value if len(json.dumps(value)) <= most else None
    # A character outside of ASCII has up to twelve characters in JSON.
    size = most if value.isascii() and value.isprintable() else most // 12
    if len(value) <= size or len(quoted(value)) <= most:
        return value
    return f"...{value[-size:]}" if name == "traceback" else f"{value[:size]}..."
