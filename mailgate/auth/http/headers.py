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

Values: TypeAlias = Mapping[bytes, tuple[bytes, ...]]
"""The values of headers, without spaces around them, by the names of the headers in lower case; one or more of each."""


def valuesOf(headers: Headers) -> Values:
    """
    Return the values of headers by their names in lower case.

    @param headers: the headers of a response, of our agent or of another one.
    """
    if isinstance(headers, FieldHeaders):
        return headers.values
    every = headers.getAllRawHeaders()
    return {name.lower(): tuple([value.strip(b" ") for value in each]) for name, each in every if each}


class FieldHeaders(Headers):
    """
    The headers of a response. They do not change: what treq and the agents below it set is about the encoding of the
    body, which nothing reads.

    @param values: the values by their names in lower case.
    @ivar values: the same.
    """

    __slots__ = ("values",)

    def __init__(self, values: Values) -> None:
        self.values = values

    def _ordinary(self) -> Headers:
        """Return Twisted's own headers with the same values."""
        ordinary = Headers()
        for name, values in self.values.items():
            ordinary.setRawHeaders(name, list(values))
        return ordinary

    def copy(self) -> FieldHeaders:
        return self

    def hasHeader(self, name: AnyStr) -> bool:
        return self._ordinary().hasHeader(name)

    def getRawHeaders(self, name: AnyStr, default: Any = None) -> Any:
        if isinstance(name, bytes) and name.lower() not in self.values:
            # The encoding of the body is looked up in each response, and seldom there.
            return default
        return self._ordinary().getRawHeaders(name, default)

    def addRawHeader(self, name: str | bytes, value: str | bytes) -> None:
        pass

    def setRawHeaders(self, name: str | bytes, values: Sequence[str | bytes]) -> None:
        pass

    def removeHeader(self, name: AnyStr) -> None:
        pass

    def getAllRawHeaders(self) -> Iterator[tuple[bytes, Sequence[bytes]]]:
        return self._ordinary().getAllRawHeaders()

    def __repr__(self) -> str:
        # A value may be a password.
        return f"{type(self).__name__}({list(self.values)})"


_HARMLESS = bytes(byte for byte in range(256) if byte not in b"\r\n\0")
"""All bytes but CR, LF and NUL."""

_new = object.__new__


class PreparedHeaders(Headers):
    """
    Headers of a request that L{mailgate.auth.http.agent.KeepAliveAgent} writes exactly as they are.

    Other agents see ordinary headers. What treq and Twisted add to a copy reaches only such agents: C{block} does not
    change.

    @param form: the lines, each with its line end, with C{%b} for each value and C{%%} for a percent sign. It must not
        depend on a client.
    @param values: the values.
    @ivar block: the lines of the headers, in their order and spelling, each with its line end.
    @raise ValueError: a value contains CR, LF or NUL.
    """

    __slots__ = ("_added", "block")

    def __init__(self, form: bytes, values: tuple[bytes | int, ...]) -> None:
        self._added: tuple[tuple[str | bytes, str | bytes], ...] = ()
        self.block = block = form % values
        # No value can add a line, or end the head: all line ends are those of the form.
        if block.translate(None, _HARMLESS) != form.translate(None, _HARMLESS):
            raise ValueError("a header contains CR, LF or NUL")

    @classmethod
    def of(cls, fields: Sequence[tuple[bytes, bytes]]) -> PreparedHeaders:
        """
        Return headers with the given fields.

        @param fields: names and values.
        @raise ValueError: a name or value contains CR, LF or NUL.
        """
        return cls(b"%b: %b\r\n" * len(fields), tuple(chain.from_iterable(fields)))

    def having(self, line: bytes) -> PreparedHeaders:
        """
        Return headers with another line at the end.

        @param line: the header with its line end. It must not depend on a client.
        """
        longer = self.copy()
        longer.block += line
        return longer

    def _ordinary(self) -> Headers:
        """Return Twisted's own headers with the same fields."""
        ordinary = Headers()
        for line in self.block.split(b"\r\n")[:-1]:
            name, _, value = line.partition(b": ")
            ordinary.addRawHeader(name, value)
        for added in self._added:
            ordinary.addRawHeader(*added)
        return ordinary

    def copy(self) -> PreparedHeaders:
        duplicate = _new(PreparedHeaders)
        duplicate.block = self.block
        duplicate._added = self._added
        return duplicate

    def hasHeader(self, name: AnyStr) -> bool:
        # The gateway has no cookies, and a given header keeps the cookies' agent from looking for some.
        return name == b"Cookie" or self._ordinary().hasHeader(name)

    def getRawHeaders(self, name: AnyStr, default: Any = None) -> Any:
        return self._ordinary().getRawHeaders(name, default)

    def addRawHeader(self, name: str | bytes, value: str | bytes) -> None:
        self._added += ((name, value),)

    def setRawHeaders(self, name: str | bytes, values: Sequence[str | bytes]) -> None:
        raise TypeError("prepared headers do not change")

    def removeHeader(self, name: AnyStr) -> None:
        raise TypeError("prepared headers do not change")

    def getAllRawHeaders(self) -> Iterator[tuple[bytes, Sequence[bytes]]]:
        return self._ordinary().getAllRawHeaders()

    def __repr__(self) -> str:
        # A value may be a password.
        return f"{type(self).__name__}({[name for name, _ in self.getAllRawHeaders()]})"
