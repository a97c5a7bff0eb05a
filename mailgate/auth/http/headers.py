# -*- test-case-name: mailgate.test.auth.http.test_agent -*-
"""
HTTP headers that keep their order and spelling: Twisted headers for agents, bytes for the wire.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, AnyStr

from twisted.web.http_headers import Headers

__all__ = ["FieldHeaders", "PreparedHeaders"]


class FieldHeaders(Headers):
    """
    Headers that are stored as received and indexed only when they are read. treq and the agents below it copy headers
    and look up two or three; Twisted's own class takes ten times as long for this.

    @param fields: names and values as bytes.
    """

    __slots__ = ("_index", "_whole", "fields")

    def __init__(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        self.fields = tuple(fields)
        self._whole = False
        self._index: dict[bytes, list[bytes]] | None = None

    def _find(self, name: bytes) -> list[bytes] | None:
        index = self._index
        if index is None:
            self._index = index = {}
            for field, value in self.fields:
                index.setdefault(field.lower(), []).append(value)
        return index.get(name.lower())

    def names(self) -> bytes:
        """Return the names of all headers in lower case, with line ends between them."""
        if self._index is not None and not self._whole:
            return b"\n".join(self._index)
        return b"\n".join([name.lower() for name, _ in self._fieldsNow()])

    def _ordinary(self) -> Headers:
        """Convert to what the base class stores, and return the base class view of it."""
        if not self._whole:
            self._whole = True
            super().__init__()
            for name, value in self.fields:
                super().addRawHeader(name, value)
        return super()  # type: ignore[return-value]

    def copy(self) -> FieldHeaders:
        duplicate = type(self).__new__(type(self))
        FieldHeaders.__init__(duplicate, self._fieldsNow())
        return duplicate

    def _fieldsNow(self) -> tuple[tuple[bytes, bytes], ...]:
        if not self._whole:
            return self.fields
        return tuple((name, value) for name, values in self.getAllRawHeaders() for value in values)

    def hasHeader(self, name: AnyStr) -> bool:
        if self._whole or isinstance(name, str):
            return self._ordinary().hasHeader(name)
        if self._index is None:
            # On a copy this is usually the only look-up, not worth an index.
            return name.lower() in [field.lower() for field, _ in self.fields]
        return self._find(name) is not None

    def getRawHeaders(self, name: AnyStr, default: Any = None) -> Any:
        if self._whole or isinstance(name, str):
            return self._ordinary().getRawHeaders(name, default)
        index = self._index
        found = self._find(name) if index is None else index.get(name.lower())
        return default if found is None else found

    def addRawHeader(self, name: str | bytes, value: str | bytes) -> None:
        if self._whole or isinstance(name, str) or isinstance(value, str):
            self._ordinary().addRawHeader(name, value)
        else:
            self.fields += ((name, value),)
            self._index = None

    def setRawHeaders(self, name: str | bytes, values: Sequence[str | bytes]) -> None:
        given = [value for value in values if isinstance(value, bytes)]
        if self._whole or isinstance(name, str) or len(given) != len(values):
            self._ordinary().setRawHeaders(name, values)
            return
        canonical = name.lower()
        if self._find(canonical) is not None:
            self.fields = tuple(field for field in self.fields if field[0].lower() != canonical)
        self.fields += tuple((name, value) for value in given)
        assert self._index is not None
        self._index[canonical] = given

    def removeHeader(self, name: AnyStr) -> None:
        # Decoders also remove headers that are missing.
        if self.hasHeader(name):
            self._ordinary().removeHeader(name)

    def getAllRawHeaders(self) -> Iterator[tuple[bytes, Sequence[bytes]]]:
        return self._ordinary().getAllRawHeaders()

    def __repr__(self) -> str:
        # A value may be a password.
        return f"{type(self).__name__}({[name for name, _ in self.getAllRawHeaders()]})"


class PreparedHeaders(FieldHeaders):
    """
    Headers that L{mailgate.auth.http.agent.KeepAliveAgent} writes exactly as they are.

    Other agents see ordinary headers. What treq and Twisted add to a copy reaches only such agents: C{block} does not
    change.

    @param fields: names and values as bytes.
    @ivar block: the lines of C{fields}, in the same order and spelling.
    @raise ValueError: a name or value contains CR, LF or NUL.
    """

    __slots__ = ("block",)

    def __init__(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        super().__init__(fields)
        self.block = b"".join([b"%b: %b\r\n" % field for field in self.fields])
        ends = len(self.fields)
        if self.block.count(b"\n") != ends or self.block.count(b"\r") != ends or b"\0" in self.block:
            raise ValueError("a header contains CR, LF or NUL")

    def copy(self) -> PreparedHeaders:
        duplicate = super().copy()
        assert isinstance(duplicate, PreparedHeaders)
        duplicate.block = self.block
        return duplicate
