# -*- test-case-name: mailgate.test.store.test_contract mailgate.test.store.test_redis -*-
"""
The store in Valkey or Redis. It is asked with scripts: each question of a login is one round trip.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2s
from itertools import islice
from math import ceil
from struct import Struct
from struct import error as StructError
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred

from mailgate.store.interfaces import (
    MOST_NOTES,
    Beat,
    Failure,
    Mark,
    Question,
    Standing,
    StoreUnavailable,
    Success,
)
from mailgate.store.keys import DIGEST, StoreKeys
from mailgate.store.redis import loginscripts, registryscripts
from mailgate.store.redis.answers import Word
from mailgate.store.redis.connection import RedisConnection
from mailgate.store.redis.script import PREFIX, Script, keyPart, keyParts, packed
from mailgate.store.redis.standing import standingOf, standingsOf
from mailgate.store.settings import StoreAccess, StoreSettings

__all__ = ["CHANNELS", "SCRIPTS", "IConnection", "RedisStore", "storeFor"]

SCRIPTS = tuple(
    each for module in (loginscripts, registryscripts) for each in vars(module).values() if isinstance(each, Script)
)
"""All scripts, to be loaded beforehand."""

CHANNELS = ("events", "ask")
"""What all gateways hear."""

_CHECK = Struct("<dIHddd")
_WINDOWS = Struct("<dd")
_FAILED = Struct("<2sBBHBddHH4s")
_SUCCEEDED = Struct("<ddB2s")
_MARK = Struct("<ddH")
_END = Struct("<IH")
"""A time of six bytes: the lower four, and the upper two."""

_GOODS = 9
"""Users who have succeeded at an address, as L{mailgate.store.memorylogins} keeps them."""

_CLEARED = 7 * 86400 * 1000
_PART = 100
"""Sessions, users, places or things of one script: half a millisecond of the store's time."""

_MOST_GATEWAYS = 1000
"""So many gateways are believed to exist. A stranger who can write to the store may have put more there."""

_GATEWAY = re.compile("[A-Za-z0-9-]{1,64}")

_MOST_COUNT = 65535
_NO_DIGEST = bytes(DIGEST)

_Item = TypeVar("_Item")


class IConnection(Protocol):
    """
    What the store needs of L{mailgate.store.redis.connection.RedisConnection}. The attributes are those of
    L{mailgate.store.interfaces.IStore}; channels are as they are on the wire.
    """

    changed: Callable[[bool], object]
    heard: Callable[[str, bytes], object]
    resumed: Callable[[], object]

    @property
    def isUp(self) -> bool: ...

    @property
    def reason(self) -> str: ...

    def call(self, *words: Word) -> Deferred[Any]: ...

    def script(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Word] = ()) -> Deferred[Any]: ...

    def start(self) -> None: ...

    def stop(self) -> Deferred[None]: ...


class RedisStore:
    """
    See L{mailgate.store.interfaces.IStore}.

    @param connection: to the server.
    @param gateway: the name of this gateway.
    """

    def __init__(self, connection: IConnection, gateway: str = "") -> None:
        self._connection = connection
        self._gateway = gateway
        self._script = connection.script
        self.heard: Callable[[str, bytes], object] = lambda channel, message: None
        self.resumed: Callable[[], object] = lambda: None
        self.changed: Callable[[bool], object] = lambda isUp: None
        connection.heard = self._hear
        connection.resumed = lambda: self.resumed()
        connection.changed = lambda isUp: self.changed(isUp)

    @property
    def isUp(self) -> bool:
        """Whether it is asked at all now."""
        return self._connection.isUp

    @property
    def reason(self) -> str:
        """Why it is not asked, in words that follow "the store"; empty while it is."""
        return self._connection.reason

    # Logins.

    def check(self, question: Question) -> Deferred[Standing]:
        user, address, network = question.user, question.address, question.network
        pair = question.pair or StoreKeys.both(user, address)
        digests = packed(user, address, network, pair, StoreKeys.both(user, network))
        numbers = _CHECK.pack(
            question.interval * 1e6,
            question.burst,
            question.mostAllowance,
            question.pairWindow * 1e6,
            question.userWindow * 1e6,
            question.goodFor,
        )
        part = question.protocol + (address or _NO_DIGEST)[:4]
        answer = self._script(loginscripts.CHECK, (), (digests, numbers, part, self._gateway))
        return answer.addCallback(_read, standingOf, pair, address, user)

    def checkKnown(self, questions: Sequence[Question]) -> Deferred[Sequence[Standing | None]]:
        digests: list[bytes] = []
        parts = []
        for each in questions:
            pair = each.pair or StoreKeys.both(each.user, each.address)
            digests += each.user, each.address, each.network, pair
            parts.append(each.protocol + (each.address or _NO_DIGEST)[:4])
        first = questions[0]
        windows = _WINDOWS.pack(first.pairWindow * 1e6, first.userWindow * 1e6)
        arguments = packed(*digests), windows, b"".join(parts), self._gateway
        return self._script(loginscripts.KNOWN, (), arguments).addCallback(_read, standingsOf, questions)

    def failed(self, failure: Failure) -> Deferred[bool]:
        numbers = _FAILED.pack(
            failure.tag[:2],
            bool(failure.tag),
            min(255, failure.weight),
            min(_MOST_COUNT, failure.addressWeight),
            failure.countsForUser,
            failure.pairWindow * 1e6,
            failure.userWindow * 1e6,
            min(_MOST_COUNT, failure.mostGuesses),
            min(_MOST_COUNT, failure.mostUsers),
            failure.user[:4],
        )
        digests = packed(failure.user, failure.address, failure.network, failure.pair)
        return self._script(loginscripts.FAILED, (), (digests, numbers)).addCallback(_read, _flag)

    def succeeded(self, success: Success) -> Deferred[None]:
        numbers = _SUCCEEDED.pack(success.knownFor * 1e6, success.goodFor * 1e6, _GOODS, success.user[:2])
        digests = packed(StoreKeys.both(success.user, success.network), success.address, success.pair)
        return self._script(loginscripts.SUCCEEDED, (), (digests, numbers)).addCallback(_nothing)

    def mark(self, mark: Mark, keep: float) -> Deferred[None]:
        numbers = _MARK.pack(mark.seconds * 1e6, keep * 1e6, min(_MOST_COUNT, mark.count))
        digests = packed(mark.thing, *[part for part in mark.parts if part])
        return self._script(loginscripts.MARK, (), (digests, numbers, mark.rule, mark.name)).addCallback(_nothing)

    def clear(self, things: Sequence[bytes]) -> Deferred[None]:
        parts = [(packed(*part), _CLEARED) for part in _partsOf(iter(things))]
        return Deferred.fromCoroutine(self._each(loginscripts.CLEAR, parts))

    async def _each(self, script: Script, parts: Sequence[Sequence[Word]]) -> None:
        """Run a script for one part after the other, so that others are served between them."""
        for part in parts:
            await self._script(script, (), part)

    def lease(self, name: bytes, seconds: float) -> Deferred[bool]:
        key = name if len(name) == DIGEST else blake2s(name, digest_size=DIGEST).digest()
        return self._script(loginscripts.LEASE, (), (keyPart(key), _milliseconds(seconds))).addCallback(_read, _flag)

    # Notes.

    def put(self, shelf: str, id: str, value: bytes, seconds: float) -> Deferred[None]:
        words = (shelf, id, value, _milliseconds(seconds), MOST_NOTES)
        return self._script(registryscripts.PUT, (), words).addCallback(_nothing)

    def take(self, shelf: str, ids: Sequence[str]) -> Deferred[None]:
        parts = [(shelf, *part) for part in _partsOf(iter(ids))]
        return Deferred.fromCoroutine(self._each(registryscripts.TAKE, parts))

    def notes(self, shelf: str) -> Deferred[Mapping[str, tuple[bytes, float]]]:
        return Deferred.fromCoroutine(self._notes(shelf))

    async def _notes(self, shelf: str) -> Mapping[str, tuple[bytes, float]]:
        # No script: it would copy all values twice.
        clock, values = self._connection.call("TIME"), self._connection.call("HGETALL", f"{PREFIX}note:{shelf}")
        values.addErrback(lambda failure: failure)
        moment = await clock
        found: Mapping[str, tuple[bytes, float]] = _read(await values, _notesOf, moment)
        return found

    # Places.

    def place(self, key: bytes, backend: bytes, seconds: float, instead: bytes | None = None) -> Deferred[bytes]:
        words = (keyPart(key), backend, _milliseconds(seconds), int(instead is not None), instead or b"")
        return self._script(registryscripts.PLACE, (), words).addCallback(_read, _bytes)

    def placeOf(self, key: bytes) -> Deferred[bytes]:
        answer = self._connection.call("GET", f"{PREFIX}a:{keyPart(key)}")
        return answer.addCallback(lambda place: b"" if place is None else _read(place, _bytes))

    def retain(self, keys: Sequence[bytes], seconds: float) -> Deferred[None]:
        left = _milliseconds(seconds) if seconds > 0 else 0
        parts: list[list[Word]] = [[left, *keyParts(part)] for part in _partsOf(iter(keys))]
        return Deferred.fromCoroutine(self._each(registryscripts.RETAIN, parts))

    # The registry.

    def beat(self, beat: Beat) -> Deferred[bool]:
        return Deferred.fromCoroutine(self._beat(beat))

    async def _beat(self, beat: Beat) -> bool:
        began, ended, counts = iter(beat.began.items()), iter(beat.ended), iter(beat.counts.items())
        number = -(-max(len(beat.began), len(beat.ended), len(beat.counts)) // _PART) or 1
        for part in range(number):
            if not beat.isAll:
                what = registryscripts.MORE
            elif number == 1:
                what = registryscripts.ALL
            elif part == 0:
                what = registryscripts.FIRST
            else:
                what = registryscripts.LAST if part == number - 1 else registryscripts.MORE
            has, gone, counted = [*islice(began, _PART)], [*islice(ended, _PART)], [*islice(counts, _PART)]
            words: list[Word] = [beat.gateway, beat.run, what, len(has), len(gone), len(counted)]
            for id, record in has:
                words += id, record
            words += gone
            for key, (_, byPart) in zip(keyParts([user for user, _ in counted]), counted, strict=True):
                words += key, byPart
            if not _read(await self._script(registryscripts.BEAT, (), words), _flag):
                return False
        return True

    def leave(self, gateway: str, run: str) -> Deferred[None]:
        return self._script(registryscripts.LEAVE, (), (gateway, run)).addCallback(_nothing)

    def gateways(self) -> Deferred[Mapping[str, tuple[str, float]]]:
        return self._script(registryscripts.GATEWAYS, ()).addCallback(_read, _gatewaysOf)

    def sessionsAt(self, gateway: str, most: int) -> Deferred[Mapping[str, bytes]]:
        return Deferred.fromCoroutine(self._sessionsAt(gateway, most))

    async def _sessionsAt(self, gateway: str, most: int) -> Mapping[str, bytes]:
        run = _read(await self._script(registryscripts.LIVING, (), (gateway,)), _text)
        found: dict[str, bytes] = {}
        cursor = b"0" if run else b""
        while cursor and len(found) < most:
            answer = await self._connection.call("HSCAN", f"{PREFIX}r:{gateway}:{run}", cursor, "COUNT", _PART)
            cursor, records = _read(answer, _scanned)
            found.update(records)
        return dict(islice(found.items(), max(0, most)))

    def sessionsOf(self, user: bytes) -> Deferred[Mapping[str, int]]:
        return self._script(registryscripts.SESSIONS_OF, (), (keyPart(user),)).addCallback(_read, _totalsOf)

    # Messages.

    def publish(self, channel: str, message: bytes) -> Deferred[int]:
        return self._connection.call("PUBLISH", PREFIX + channel, message).addCallback(_read, int)

    def _hear(self, channel: str, message: bytes) -> None:
        self.heard(channel.removeprefix(PREFIX), message)

    # Life.

    def start(self) -> None:
        self._connection.start()

    def stop(self) -> Deferred[None]:
        return self._connection.stop()


def storeFor(settings: StoreSettings, access: StoreAccess, reactor: Any, gateway: str) -> RedisStore:
    """
    Return the store of the configuration.

    @param settings: the directives.
    @param access: the contents of their files.
    @param reactor: the reactor.
    @param gateway: the name of this gateway.
    """
    channels = [PREFIX + channel for channel in (*CHANNELS, f"to:{gateway}")]
    return RedisStore(RedisConnection(settings, access, reactor, SCRIPTS, channels), gateway)


def _partsOf(items: Iterator[_Item]) -> Iterator[list[_Item]]:
    while part := [*islice(items, _PART)]:
        yield part


def _milliseconds(seconds: float) -> int:
    return max(1, ceil(seconds * 1000))


# Replies. A server that is another one, or values that others have written, may answer with anything.


def _read(reply: Any, reader: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return reader(reply, *arguments)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError, StructError):
        raise StoreUnavailable("the store has answered with something else than was asked for") from None


def _nothing(reply: Any) -> None:
    return None


def _flag(reply: Any) -> bool:
    return bool(int(reply))


def _bytes(reply: Any) -> bytes:
    if not isinstance(reply, bytes):
        raise TypeError
    return reply


def _text(reply: Any) -> str:
    return _bytes(reply).decode("ascii")


def _notesOf(reply: Any, moment: Any) -> dict[str, tuple[bytes, float]]:
    now = int(moment[0]) * 1000 + int(moment[1]) // 1000
    found: dict[str, tuple[bytes, float]] = {}
    for id, value in zip(reply[::2], reply[1::2], strict=True):
        if len(value) < _END.size or not id.isascii():
            # The script has not put it there. The others are read.
            continue
        low, high = _END.unpack_from(value)
        left = (high << 32 | low) - now
        if left > 0:
            found[_text(id)] = value[_END.size :], left / 1000
        if len(found) >= MOST_NOTES:
            break
    return found


def _gatewaysOf(reply: Any) -> dict[str, tuple[str, float]]:
    rows = zip(reply[::3], reply[1::3], reply[2::3], strict=True)
    found = ((_text(name), _text(run), int(age) / 1000) for name, run, age in rows if _isGateway(name))
    return {name: (run, age) for name, run, age in islice(found, _MOST_GATEWAYS)}


def _isGateway(name: bytes) -> bool:
    """Whether it may be the name of a gateway. Operators see it."""
    return name.isascii() and _GATEWAY.fullmatch(_text(name)) is not None


def _totalsOf(reply: Any) -> dict[str, int]:
    return {_text(name): int(total) for name, total in zip(reply[::2], reply[1::2], strict=True) if _isGateway(name)}


def _scanned(reply: Any) -> tuple[bytes, dict[str, bytes]]:
    cursor, rows = reply
    records = {_text(id): _bytes(record) for id, record in zip(rows[::2], rows[1::2], strict=True) if id}
    return b"" if _bytes(cursor) == b"0" else cursor, records
