# -*- test-case-name: mailgate.test.watch.test_distinct -*-
"""
Counts distinct names over several processes, without sending the names.

A process sends the L{MOST} smallest of the hashes of its names (K minimum values, Bar-Yossef et al. 2002). The smallest
of the hashes of all processes give the number of distinct names: exactly, as long as they are fewer than L{MOST}, and
with an error of about 2 % above.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from zlib import crc32

__all__ = ["MOST", "hashed", "isValid", "size", "smallest", "union"]

MOST = 2048
"""The number of hashes. Their hexadecimal text is sent with each report."""

_BYTES = 5
"""Bytes of a hash. Two of some thousand names hardly ever share one."""

_DIGITS = 2 * _BYTES
_MASK = (1 << 8 * _BYTES) - 1
_MIX = 0x9E3779B97F
"""An odd number: similar names have similar checksums, and the products are spread over all hashes."""

_VALID = re.compile(f"(?:[0-9a-f]{{{_DIGITS}}}){{0,{MOST}}}")


def hashed(name: bytes) -> int:
    """
    Return the hash of a name.

    @param name: the name.
    """
    # A quarter of the time of a cryptographic hash: thousands of users are hashed for each report.
    return crc32(name) * _MIX & _MASK


def smallest(hashes: Iterable[int]) -> str:
    """
    Return the smallest of some hashes, in hexadecimal, one behind the other and in order.

    @param hashes: the results of L{hashed}, each once.
    """
    return "".join([f"{each:0{_DIGITS}x}" for each in sorted(hashes)[:MOST]])


def isValid(hashes: object) -> bool:
    """
    Return whether a value is a possible result of L{smallest}.

    @param hashes: the value.
    """
    return isinstance(hashes, str) and _VALID.fullmatch(hashes) is not None


def _split(hashes: str) -> Iterable[str]:
    return (hashes[at : at + _DIGITS] for at in range(0, len(hashes), _DIGITS))


def union(several: Collection[str]) -> str:
    """
    Return the smallest hashes of several sets.

    @param several: results of L{smallest}.
    """
    if len(several) == 1:
        return next(iter(several))
    return "".join(sorted({each for hashes in several for each in _split(hashes)})[:MOST])


def size(hashes: str) -> int:
    """
    Return the number of distinct names.

    @param hashes: the result of L{smallest} or L{union}.
    """
    count = len(hashes) // _DIGITS
    if count < MOST:
        return count
    return (MOST - 1) * (1 << 8 * _BYTES) // max(1, int(hashes[-_DIGITS:], 16))
