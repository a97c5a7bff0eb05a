# -*- test-case-name: mailgate.test.auth.http.test_agent -*-
"""
HTTP headers that stay what they were made of: Twisted's, for those who look at them, and bytes for the wire.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, AnyStr

from twisted.web.http_headers import Headers

__all__ = ["FieldHeaders", "PreparedHeaders"]


class FieldHeaders(Headers):
    """
    Headers as C{fields}, names and values, that nobody looks at twice: they are put in order as far as that is asked
    for. treq and the agents under it copy headers and look two or three up; Twisted's own cost ten times as much then.
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

    def _ordinary(self) -> Headers:
        """This, as L{Headers} has it."""
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
            # Of a copy this is all that is asked.
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
        # Decoders remove what they did not find, too.
        if self.hasHeader(name):
            self._ordinary().removeHeader(name)

    def getAllRawHeaders(self) -> Iterator[tuple[bytes, Sequence[bytes]]]:
        return self._ordinary().getAllRawHeaders()

    def __repr__(self) -> str:
        # A header may be a password.
        return f"{type(self).__name__}({[name for name, _ in self.getAllRawHeaders()]})"


class PreparedHeaders(FieldHeaders):
    """
    Headers that L{mailgate.auth.http.agent.KeepAliveAgent} writes as C{block}, which is C{fields} in that order and
    spelling, and nothing else.

    For every other agent they are ordinary headers. What the agents of treq and Twisted add to a copy they add for such
    an agent; C{block} stays what it was.

    @raise ValueError: a field holds CR, LF or NUL.
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
