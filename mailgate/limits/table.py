# -*- test-case-name: mailgate.test.limits.test_table -*-
"""
Tables whose memory is bounded. When one is full, its oldest rows go: strangers decide how many rows there would be.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from itertools import compress, islice
from struct import Struct
from typing import Any

__all__ = ["Shelf", "Table", "dropOldest"]

_ROW = 230
"""
Bytes of memory for a row of a dict besides its value: the key (32), the slot of a dict that is emptiest just before and
while it grows (six indices and four entries, twice), and the header of the value.
"""

_HEADER = 33
_SHARE = 16
"""When a table is full, this part of it goes: to find the oldest row of a dict costs a walk over the gaps before it."""

_WAYS = 8
"""Rows among which a key may stand in a shelf."""

_EMPTY = bytes(8)
_KEYS = Struct(f"<{_WAYS}Q")
_MOMENTS = Struct(f"<{_WAYS}I")
_BUCKET = _KEYS.size + _MOMENTS.size
_BUCKETS = 1000
"""Buckets of a part of what is packed."""
_LIMIT = 1 << 60
"""Above all keys."""


def dropOldest(rows: dict[Any, Any]) -> None:
    """
    Make room in a dict that is full.

    @param rows: the oldest ones stand first. A part of them goes.
    """
    for key in [*islice(rows, max(1, len(rows) // _SHARE))]:
        del rows[key]


class Table:
    """
    Rows of different lengths by key. The row that was not written for the longest time is the oldest.

    @param most: bytes of memory for all rows.
    @param worthOf: returns what a row is worth. Of the older half of the rows, those that are worth least go first, so
        that strangers cannot push out one that matters by many that do not. L{None}: the oldest go.
    @ivar rows: the rows, to be read.
    @ivar dropped: how many rows had to go before their time.
    """

    def __init__(self, most: int, worthOf: Callable[[bytes], int] | None = None) -> None:
        self.most = most
        self._worthOf = worthOf
        self.rows: dict[int, bytes] = {}
        self.dropped = 0
        self._used = 0

    def __len__(self) -> int:
        """How many rows there are, old ones too."""
        return len(self.rows)

    def put(self, key: int, row: bytes) -> None:
        """
        Write a row, in the place of another one or anew.

        @param key: one of L{mailgate.limits.keys.Keys}.
        @param row: the content.
        """
        old = self.rows.pop(key, None)
        if old is not None:
            self._used -= _costOf(old)
        self.rows[key] = row
        self._used += _costOf(row)
        if self._used > self.most:
            self._shrink()

    def drop(self, key: int) -> None:
        """Remove the row of C{key}, if there is one."""
        old = self.rows.pop(key, None)
        if old is not None:
            self._used -= _costOf(old)

    def clear(self) -> None:
        """Remove all rows."""
        self.rows.clear()
        self._used = 0

    def resize(self, most: int) -> None:
        """Keep to another bound. C{most} is as for the constructor."""
        self.most = most
        while self._used > most:
            self._shrink()

    def _shrink(self) -> None:
        number = len(self.rows) // _SHARE + 1
        worthOf, rows = self._worthOf, self.rows
        if worthOf is None:
            oldest = list(islice(rows, number))
        else:
            # Of the same worth, the oldest stands first.
            oldest = sorted(islice(rows, len(rows) // 2 + 1), key=lambda key: worthOf(rows[key]))[:number]
        for key in oldest:
            self.drop(key)
            self.dropped += 1


def _costOf(row: bytes) -> int:
    return _ROW + (_HEADER + len(row) + 15 & ~15)


def _pages(size: int) -> mmap.mmap:
    """Memory that is 0, and that the system provides when it is written."""
    return mmap.mmap(-1, size or 1, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class Shelf:
    """
    Rows of one length by key, each with the moment of its last writing. It costs hardly more memory than the rows have
    bytes. A key may stand in one of L{_WAYS} places; the oldest of them goes if all are taken.

    Memory that was never written is not in the process's resident size.

    @param most: bytes of memory for all rows.
    @param width: bytes of a row, besides the key and the moment.
    @ivar dropped: how many rows had to go before their time.
    """

    def __init__(self, most: int, width: int = 0) -> None:
        self.width = width
        self._buckets = self._bucketsOf(most)
        self._makeEmpty()
        self.dropped = 0

    def _bucketsOf(self, most: int) -> int:
        return max(1, most // (_WAYS * (len(_EMPTY) + 4 + self.width)))

    def _makeEmpty(self) -> None:
        places = self._buckets * _WAYS
        self._keys = _pages(places * len(_EMPTY))
        self._moments = memoryview(_pages(places * 4)).cast("I")
        self._rows = _pages(places * self.width)
        self._count = 0

    def __len__(self) -> int:
        """How many rows there are, old ones too."""
        return self._count

    def find(self, key: int) -> int:
        """
        Return the place of a row, for the other methods; -1 if there is none.

        @param key: one of L{mailgate.limits.keys.Keys}.
        """
        start, sought = key % self._buckets * 64, key.to_bytes(8, "little")
        at = self._keys.find(sought, start, start + 64)
        return self._aligned(sought, at, start + 64) if at > 0 and at & 7 else at >> 3

    def _aligned(self, sought: bytes, at: int, end: int) -> int:
        while at > 0 and at & 7:
            # The bytes of two keys side by side happen to be those that are sought.
            at = self._keys.find(sought, at + 1, end)
        return at >> 3

    def moment(self, place: int) -> int:
        """Return when a row was last written. C{place} is a result of L{find}."""
        return self._moments[place]

    def row(self, place: int) -> bytes:
        """Return the content of a row. C{place} is a result of L{find}."""
        return self._rows[place * self.width : (place + 1) * self.width]

    def put(self, key: int, moment: int, row: bytes = b"", place: int | None = None) -> None:
        """
        Write a row, in the place of an older one or anew.

        @param key: one of L{mailgate.limits.keys.Keys}.
        @param moment: now: seconds, below 2 to the power of 32.
        @param row: C{width} bytes.
        @param place: what L{find} returns for the key, if it was just looked up.
        """
        if place is None:
            place = self.find(key)
        if place < 0:
            place = self._free(key)
            self._keys[place * 8 : place * 8 + 8] = key.to_bytes(8, "little")
        self._moments[place] = moment
        if self.width:
            self._rows[place * self.width : (place + 1) * self.width] = row

    def _free(self, key: int) -> int:
        """The place for a new row."""
        start = key % self._buckets * 64
        at = self._keys.find(_EMPTY, start, start + 64)
        if at > 0 and at & 7:
            at = self._aligned(_EMPTY, at, start + 64) << 3
        if at >= 0:
            self._count += 1
            return at >> 3
        self.dropped += 1
        first = start >> 3
        return min(range(first, first + _WAYS), key=self._moments.__getitem__)

    def clear(self) -> None:
        """Remove all rows."""
        self._makeEmpty()

    def resize(self, most: int) -> None:
        """Keep to another bound. C{most} is as for the constructor."""
        rows = list(self.items())
        self._buckets = self._bucketsOf(most)
        self._makeEmpty()
        for key, moment, row in rows:
            self.put(key, moment, row)

    def items(self, since: int = 0) -> Iterator[tuple[int, int, bytes]]:
        """
        Yield key, moment and content of the rows. Nothing may be written meanwhile.

        @param since: rows that were last written before it are left out.
        """
        for place in compress(range(len(self._moments)), self._moments):
            moment = self._moments[place]
            if moment >= since:
                yield int.from_bytes(self._keys[place * 8 : place * 8 + 8], "little"), moment, self.row(place)

    def packed(self) -> bytes:
        """Return all rows, for L{unpack}."""
        return b"".join(self.packing())

    def packing(self) -> Iterator[bytes]:
        """
        Yield the parts of L{packed}. Rows may be written between two parts: each part has them as they are then. If
        the shelf is cleared or gets another size meanwhile, the parts are of the shelf before.
        """
        keys, moments, rows = self._keys, self._moments.cast("B"), self._rows
        wide = _WAYS * self.width
        for start in range(0, self._buckets, _BUCKETS):
            parts: list[bytes | memoryview] = []
            for at in range(start, min(start + _BUCKETS, len(keys) // 64)):
                # The first place of a bucket is the first that is taken.
                if keys[at * 64 : at * 64 + 8] != _EMPTY:
                    parts += keys[at * 64 : at * 64 + 64], moments[at * 32 : at * 32 + 32]
                    parts.append(rows[at * wide : at * wide + wide])
            yield b"".join(parts)

    def unpack(self, content: bytes, latest: int) -> None:
        """
        Take over the rows of another shelf of the same width, which may have another size.

        @param content: the result of its L{packed}, which has passed L{verify}.
        @param latest: rows of a later moment get this one.
        """
        wide = _WAYS * self.width
        for start in range(0, len(content), _BUCKET + wide):
            keys, moments = _KEYS.unpack_from(content, start), _MOMENTS.unpack_from(content, start + _KEYS.size)
            at = start + _BUCKET
            for key, moment in zip(keys, moments, strict=True):
                if 0 < key < _LIMIT:
                    self.put(key, min(moment, latest), content[at : at + self.width])
                at += self.width

    def verify(self, content: bytes) -> None:
        """
        Look at the result of L{packed}.

        @param content: it.
        @raise ValueError: L{unpack} could not read it.
        """
        if len(content) % (_BUCKET + _WAYS * self.width):
            raise ValueError("a table has a wrong length")
