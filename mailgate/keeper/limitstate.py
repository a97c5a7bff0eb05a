# -*- test-case-name: mailgate.test.keeper.test_limitstate -*-
"""
The tables of limits in the state that a keeper hands over to the next one.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any

from twisted.logger import Logger

from mailgate.keeper.state import MOST_STATE
from mailgate.limits.interfaces import IDefence

__all__ = ["MOST_LINES", "MOST_TABLES", "limitLines", "limitsOf", "restoreLimits"]

MOST_LINES = MOST_STATE
"""Characters of the lines. A keeper accepts twice as many in all."""

MOST_TABLES = 64 * 1024 * 1024
"""Bytes of the tables."""

_CHUNK = 48 * 1024
_FAST = 1
"""The level of compression: a third of the size in a moment."""

_log = Logger("mailgate")


def limitLines(defence: IDefence) -> Iterator[str]:
    """
    Yield the lines that the state of a keeper that hands over has for limits: with counters, or without them if these
    are too many.

    @param defence: the tables.
    """
    for withCounters in (True, False):
        content = b64encode(zlib.compress(defence.state(withCounters), _FAST)).decode("ascii")
        if len(content) <= MOST_LINES - MOST_LINES // 16:
            for start in range(0, len(content), _CHUNK):
                yield json.dumps({"limits": content[start : start + _CHUNK]})
            return
    _log.error("the limits' tables are too large to hand over: the new keeper continues with those saved last, if any")


def limitsOf(chunks: list[Any]) -> bytes:
    """
    Return the tables as bytes; empty if there are none.

    @param chunks: the values of the lines.
    """
    try:
        packed = b64decode("".join(chunks).encode("ascii"), validate=True)
        return zlib.decompressobj().decompress(packed, MOST_TABLES)
    except (ValueError, TypeError, zlib.error):
        return b""


def restoreLimits(defence: IDefence, state: bytes | None) -> bool:
    """
    Continue with the tables of a predecessor.

    @param defence: the tables here.
    @param state: those of the predecessor; empty or L{None} without any.
    @return: whether they are those of the predecessor now.
    """
    if not state:
        return False
    try:
        defence.restore(state)
    except ValueError as error:
        # After an upgrade or a downgrade, the predecessor is of another release.
        _log.warn("the keeper cannot use the limits' tables of the one before: {reason}", reason=str(error))
        return False
    return True
