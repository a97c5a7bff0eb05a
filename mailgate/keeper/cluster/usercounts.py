# -*- test-case-name: mailgate.test.keeper.cluster.test_usercounts -*-
"""
How many sessions each user has at this gateway, by protocol and address. Most users have few, and a gateway has many
users: the counts of a user are one string of bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from mailgate.store.counts import ENTRY, MOST_COUNT, MOST_PARTS, countsIn, packedCounts

__all__ = ["UserCounts"]

_PART = 6
_COUNT = Struct("<H")
_ONE = _COUNT.pack(1)
_MOST_BYTES = MOST_PARTS * ENTRY.size


class UserCounts:
    """The counts. Users are digests, protocols and addresses are those of L{mailgate.store.keys.StoreKeys.part}."""

    def __init__(self) -> None:
        self._users: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._users)

    def __contains__(self, user: object) -> bool:
        return user in self._users

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._users)

    def up(self, user: bytes, part: bytes) -> None:
        """
        A session has begun.

        @param user: the digest of the user.
        @param part: the protocol and address.
        """
        entries = self._users.get(user)
        if entries is None:
            self._users[user] = part + _ONE
            return
        at = _placeOf(entries, part)
        if at < 0:
            self._users[user] = entries + part + _ONE
        else:
            self._change(user, entries, at, 1)

    def down(self, user: bytes, part: bytes) -> None:
        """
        A session has ended.

        @param user: the digest of the user.
        @param part: the protocol and address.
        """
        entries = self._users.get(user, b"")
        at = _placeOf(entries, part)
        if at >= 0:
            self._change(user, entries, at, -1)

    def _change(self, user: bytes, entries: bytes, at: int, change: int) -> None:
        end = at + ENTRY.size
        count = _COUNT.unpack_from(entries, at + _PART)[0] + change
        if count:
            kept = entries[at : at + _PART] + _COUNT.pack(min(count, MOST_COUNT))
        elif len(entries) == ENTRY.size:
            del self._users[user]
            return
        else:
            kept = b""
        self._users[user] = entries[:at] + kept + entries[end:]

    def of(self, user: bytes) -> int:
        """Return how many sessions a user has. C{user} is the digest."""
        return sum(count for _, count in countsIn(self._users.get(user, b"")))

    def reported(self, user: bytes) -> bytes:
        """
        Return what other gateways are told (L{mailgate.store.counts}), empty without sessions.

        @param user: the digest.
        """
        entries = self._users.get(user, b"")
        return entries if len(entries) <= _MOST_BYTES else packedCounts(countsIn(entries))


def _placeOf(entries: bytes, part: bytes) -> int:
    """Return where the entry of a part is; -1 if there is none."""
    at = entries.find(part)
    while at > 0 and at % ENTRY.size:
        at = entries.find(part, at + 1)
    return at
