# -*- test-case-name: mailgate.test.keeper.test_placing -*-
"""
Places of users in the state that a keeper without a shared store hands over to the next one.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Any

from mailgate.store.keys import DIGEST

__all__ = ["readPlaces", "writePlaces"]

_ROW = Struct(f">{DIGEST}sHI")
_A_LINE = 1500
"""Places in one line."""

_SPARE = 1024
_MOST_BACKENDS = 1 << 16
_LONGEST = 320


def writePlaces(places: Iterable[tuple[bytes, bytes, float]], longest: int) -> Iterator[str]:
    """
    Yield lines with places.

    @param places: the key, the place, and the seconds for which it lasts. The latest are last.
    @param longest: the most characters of all lines. Beyond that the earliest are left out.
    """
    backends: dict[str, int] = {}
    rows = []
    for key, place, left in places:
        number = backends.setdefault(place.decode("utf-8", "replace"), len(backends))
        if number < _MOST_BACKENDS and len(key) == DIGEST:
            rows.append(_ROW.pack(key, number, max(1, min(int(left), 2**32 - 1))))
    head = json.dumps({"places": [*backends][:_MOST_BACKENDS]})
    # base64 needs four characters for three bytes.
    most = (longest - len(head) - _SPARE) * 3 // 4 * 9 // 10 // _ROW.size
    if not rows or most <= 0:
        return
    yield head
    rows = rows[-most:]
    for start in range(0, len(rows), _A_LINE):
        yield json.dumps({"places": b64encode(b"".join(rows[start : start + _A_LINE])).decode("ascii")})


def readPlaces(chunks: Iterable[Any]) -> Iterator[tuple[bytes, bytes, int]]:
    """
    Yield the places of such lines. What is not valid is left out.

    @param chunks: the values of the lines.
    @return: yields the key, the place, and the seconds for which it lasts.
    """
    backends: list[bytes] = []
    for chunk in chunks:
        if isinstance(chunk, list):
            backends = [each.encode("utf-8", "replace")[:_LONGEST] if isinstance(each, str) else b"" for each in chunk]
            continue
        try:
            packed = b64decode(chunk.encode("ascii"), validate=True)
        except (ValueError, AttributeError):
            continue
        for key, number, left in _ROW.iter_unpack(packed[: len(packed) // _ROW.size * _ROW.size]):
            if number < len(backends) and backends[number]:
                yield key, backends[number], left
