# -*- test-case-name: mailgate.test.auth.http.test_agent -*-
"""
HTTP headers for the two directions: a question is bytes for the wire, an answer is a dictionary. Code of Twisted and
treq sees ordinary headers in both.

treq and the agents below it copy headers, look up two or three, and add one. Twisted's own class takes ten times as
long for this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, AnyStr, TypeAlias

from twisted.web.http_headers import Headers

__all__ = ["FieldHeaders", "PreparedHeaders", "Values", "valuesOf"]

Values: TypeAlias = Mapping[bytes, Sequence[bytes]]
"""The values of headers by their names in lower case."""


def valuesOf(headers: Headers) -> Values:
    """
    Return the values of headers by their names in lower case.

    @param headers: the headers of a response, of our agent or of another one.
    """
    if isinstance(headers, FieldHeaders):
        return headers.values
    return {name.lower(): values for name, values in headers.getAllRawHeaders()}


class FieldHeaders(Headers):
    """
    The headers of a response.

    @param values: lists of values by their names in lower case; it becomes part of this object.
    @ivar values: the same.
    """

    __slots__ = ("values",)

    def __init__(self, values: dict[bytes, list[bytes]]) -> None:
        self.values = values

    def _ordinary(self) -> Headers:
        """Return Twisted's own headers with the same values."""
        ordinary = Headers()
        for name, values in self.values.items():
            ordinary.setRawHeaders(name, values)
        return ordinary

    def copy(self) -> FieldHeaders:
        return FieldHeaders({name: list(values) for name, values in self.values.items()})

    def hasHeader(self, name: AnyStr) -> bool:
        return _key(name) in self.values

    def getRawHeaders(self, name: AnyStr, default: Any = None) -> Any:
        found = self.values.get(_key(name))
        if not found:
            return default
        return [value.decode("utf8") for value in found] if isinstance(name, str) else found

    def addRawHeader(self, name: str | bytes, value: str | bytes) -> None:
        self.values.setdefault(_key(name), []).append(value.encode("utf8") if isinstance(value, str) else value)

    def setRawHeaders(self, name: str | bytes, values: Sequence[str | bytes]) -> None:
        encoded = [value.encode("utf8") if isinstance(value, str) else value for value in values]
        self.values[_key(name)] = encoded

    def removeHeader(self, name: AnyStr) -> None:
        self.values.pop(_key(name), None)

    def getAllRawHeaders(self) -> Iterator[tuple[bytes, Sequence[bytes]]]:
        return self._ordinary().getAllRawHeaders()

    def __repr__(self) -> str:
        # A value may be a password.
        return f"{type(self).__name__}({list(self.values)})"


def _key(name: str | bytes) -> bytes:
    return (name.encode("iso-8859-1") if isinstance(name, str) else name).lower()


class PreparedHeaders(Headers):
    """
    Headers of a request that L{mailgate.auth.http.agent.KeepAliveAgent} writes exactly as they are.

    Other agents see ordinary headers, which are made when they are first read. What treq and Twisted add to a copy
    reaches only such agents: C{block} does not change.

    @param fields: names and values.
    @ivar block: the lines of the headers, in their order and spelling, each with its line end.
    @raise ValueError: a name or value contains CR, LF or NUL.
    """

    __slots__ = ("_added", "_whole", "block")

    def __init__(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        self._fill(b"%b: %b\r\n" * len(fields), tuple(chain.from_iterable(fields)))

    @classmethod
    def filled(cls, form: bytes, values: Sequence[bytes | int]) -> PreparedHeaders:
        """
        Return headers with values in a form.

        @param form: the lines, each with its line end, with C{%b} for each value and C{%%} for a percent sign. It must
            not depend on a client.
        @param values: the values.
        @raise ValueError: a value contains CR, LF or NUL.
        """
        headers = cls.__new__(cls)
        headers._fill(form, tuple(values))
        return headers

    def _fill(self, form: bytes, values: tuple[bytes | int, ...]) -> None:
        self.block = block = form % values
        # No value can add a line, or end the head: all line ends are those of the form.
        lines = form.count(b"\r\n")
        if block.count(b"\n") != lines or block.count(b"\r") != lines or b"\0" in block:
            raise ValueError("a header contains CR, LF or NUL")
        self._added: tuple[tuple[bytes, str | bytes], ...] = ()
        self._whole: Headers | None = None

    def _ordinary(self) -> Headers:
        """Return Twisted's own headers with the same fields, which count from now on."""
        if self._whole is None:
            self._whole = Headers()
            for line in self.block.split(b"\r\n")[:-1]:
                name, _, value = line.partition(b": ")
                self._whole.addRawHeader(name, value)
            for given in self._added:
                self._whole.addRawHeader(*given)
        return self._whole

    def having(self, line: bytes) -> PreparedHeaders:
        """
        Return a copy with another line at the end.

        @param line: the header with its line end. It must not depend on a client.
        """
        duplicate = self.copy()
        duplicate.block += line
        return duplicate

    def copy(self) -> PreparedHeaders:
        duplicate = PreparedHeaders.__new__(PreparedHeaders)
        duplicate.block = self.block
        duplicate._added = self._added
        duplicate._whole = None if self._whole is None else self._whole.copy()
        return duplicate

    def addRawHeader(self, name: str | bytes, value: str | bytes) -> None:
        if self._whole is None:
            self._added += ((_key(name), value),)
        else:
            self._whole.addRawHeader(name, value)

    def hasHeader(self, name: AnyStr) -> bool:
        if self._whole is None and isinstance(name, bytes):
            # The cookies' agent looks for one header, which is not worth more.
            key = name.lower()
            return key in dict(self._added) or b"\n%b:" % key in b"\n" + self.block.lower()
        return self._ordinary().hasHeader(name)

    def getRawHeaders(self, name: AnyStr, default: Any = None) -> Any:
        return self._ordinary().getRawHeaders(name, default)

    def setRawHeaders(self, name: str | bytes, values: Sequence[str | bytes]) -> None:
        self._ordinary().setRawHeaders(name, values)

    def removeHeader(self, name: AnyStr) -> None:
        self._ordinary().removeHeader(name)

    def getAllRawHeaders(self) -> Iterator[tuple[bytes, Sequence[bytes]]]:
        return self._ordinary().getAllRawHeaders()

    def __repr__(self) -> str:
        # A value may be a password.
        return f"{type(self).__name__}({[name for name, _ in self.getAllRawHeaders()]})"
