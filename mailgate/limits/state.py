# -*- test-case-name: mailgate.test.limits.test_state -*-
"""
What the rules for logins remember, as bytes: for C{state_file}, and for the process that follows an upgrade.

The first line names the format and its version. The second is an object of JSON with the key of the hashes, the time of
the rows, the Unix time, operators' blocks (with their names: an operator has to read them), and the number of rows of
each table. The rows follow, and the checksum of it all.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from struct import Struct, error
from typing import Any, NamedTuple

from attrs import field, frozen

from mailgate.limits.blocks import Blocks
from mailgate.limits.interfaces import NewerState
from mailgate.limits.keys import KEY_BYTES
from mailgate.limits.ledger import Ledger
from mailgate.limits.operators import MOST_BLOCKS, Operators, rowOf
from mailgate.limits.table import Shelf, Table
from mailgate.limits.windows import UNIT

__all__ = ["VERSION", "State", "Times", "essence", "packed", "packing", "unpacked"]

VERSION = 2
"""The version of the format. Under that of before, keys were other hashes."""

_MAGIC = b"mailgate limits "
_CHECKSUM = Struct("<I")
_ROW = Struct("<QH")
"""The key of a row, and the length of what follows."""

_QUEUE = Struct("<d")
_NEAR = 5
"""Users with this part of R6's failures are kept: after a restart in the middle of an attack it goes on at once."""

_LATEST = (1 << 32) - 10 * 366 * 86400
"""Times from this one on would not have room in the tables some years later. Infinity and NaN are not below it."""

_DAMAGED = "the state of the limits is damaged"

_BATCH = 500
"""Rows of a piece."""

_Row = tuple[int, bytes]


class Times(NamedTuple):
    """
    The time of now.

    @ivar now: the time of the rows, in seconds.
    @ivar wall: the Unix time in seconds.
    @ivar quiet: for how many seconds R6 and R7 only say what they would do.
    """

    now: float
    wall: float
    quiet: float


@frozen
class State:
    """
    What was read.

    @ivar key: the secret of the hashes.
    @ivar now: the time of the rows when they were written.
    @ivar wall: the Unix time then.
    @ivar quiet: for how many seconds from then R6 and R7 only say what they would do.
    @ivar operators: operators' blocks.
    @ivar shelves: what each shelf has packed.
    @ivar rows: the rows of each other table.
    """

    key: bytes = field(repr=False)
    now: float
    wall: float
    quiet: float
    operators: list[Any]
    shelves: dict[str, bytes]
    rows: dict[str, list[_Row]]

    def fill(self, ledger: Ledger, now: float) -> None:
        """
        Write the rows into empty tables.

        @param ledger: the tables.
        @param now: the time in seconds.
        """
        tables = dict(ledger.tables())
        for name, content in self.shelves.items():
            shelf = tables.get(name)
            if isinstance(shelf, Shelf):
                shelf.unpack(content, int(now))
        for name, rows in self.rows.items():
            table = tables.get(name)
            if name == "queues":
                for key, row in rows:
                    due = float(_QUEUE.unpack(row)[0])
                    ledger.users.resume(key, min(due, now + ledger.policy.userInterval))
            elif isinstance(table, Table):
                for key, row in rows:
                    table.put(key, row)
        for each in self.operators:
            ledger.operators.adopt(each)
        ledger.operators.end(now)


def packed(ledger: Ledger, times: Callable[[], Times], withCounters: bool) -> bytes:
    """
    Return a state at once. See L{packing}.

    @param ledger: as there.
    @param times: as there.
    @param withCounters: as there.
    """
    work = packing(ledger, times, withCounters)
    while True:
        try:
            next(work)
        except StopIteration as end:
            return bytes(end.value)


def packing(ledger: Ledger, times: Callable[[], Times], withCounters: bool) -> Generator[None, None, bytes]:
    """
    Make a state in pieces of a millisecond at most. Tables may change between two pieces: each row is one that was
    there at some moment meanwhile.

    @param ledger: what is remembered.
    @param times: returns the time of now.
    @param withCounters: whether all counters are in it.
    @return: the state.
    """
    while True:
        secret = ledger.keys.secret
        shelves: dict[str, int] = {}
        numbers: dict[str, int] = {}
        parts: list[bytes] = []
        for name, shelf in _shelvesOf(ledger, withCounters):
            shelves[name] = 0
            for part in shelf.packing():
                shelves[name] += len(part)
                parts.append(part)
                yield
        for name, rows in _rowsOf(ledger, times, withCounters):
            numbers[name] = 0
            while batch := list(islice(rows, _BATCH)):
                there = [_ROW.pack(key, len(row)) + row for key, row in filter(None, batch)]
                numbers[name] += len(there)
                parts.append(b"".join(there))
                yield
        operators = yield from _operators(ledger, times)
        if secret == ledger.keys.secret:
            break
    now, wall, quiet = times()
    header = {"key": secret.hex(), "now": now, "wall": wall, "quiet": quiet, "shelves": shelves, "rows": numbers}
    head = json.dumps(header)[:-1]
    parts.insert(0, f'{_MAGIC.decode()}{VERSION}\n{head}, "operators": [{operators}]}}\n'.encode())
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
        yield
    return b"".join((*parts, _CHECKSUM.pack(checksum)))


def _operators(ledger: Ledger, times: Callable[[], Times]) -> Generator[None, None, str]:
    """The blocks of operators, as values of JSON with commas between them."""
    found: list[str] = []
    blocks = iter(list(ledger.operators))
    while batch := list(islice(blocks, _BATCH)):
        now = times().now
        found += [json.dumps(rowOf(block)) for block in batch if block.until > now]
        yield
    return ", ".join(found)


def _shelvesOf(ledger: Ledger, withCounters: bool) -> Iterator[tuple[str, Shelf]]:
    names = ("known", "goods", "rates") if withCounters else ("known", "goods")
    for name, table in ledger.tables():
        if name in names and isinstance(table, Shelf):
            yield name, table


def _rowsOf(
    ledger: Ledger, times: Callable[[], Times], withCounters: bool
) -> Iterator[tuple[str, Iterator[_Row | None]]]:
    """The rows of each table; L{None} for those that need not be kept, or have gone meanwhile."""
    users = ledger.users
    if withCounters:
        for name, table in ledger.tables():
            if isinstance(table, Table):
                yield name, _there(table, lambda key, row: row)
    else:
        yield "blocks", _there(ledger.blocks.table, lambda key, row: ledger.blocks.kept(row, times().now))
        least = ledger.policy.userSlow * UNIT // _NEAR
        isNear = least > 0
        yield (
            "users",
            _there(users.table, lambda key, row: row if isNear and users.count(key, times().now) >= least else b""),
        )
    queues = list(users.queues().items())
    yield "queues", ((key, _QUEUE.pack(due)) if due > times().now else None for key, due in queues)


def _there(table: Table, kept: Callable[[int, bytes], bytes]) -> Iterator[_Row | None]:
    """The rows of a table whose keys are there now, as they are when they are read."""
    for key in list(table.rows):
        row = table.rows.get(key)
        content = b"" if row is None else kept(key, row)
        yield (key, content) if content else None


def essence(content: bytes) -> bytes:
    """
    Return a state without what changes by itself: its times and its checksum.

    @param content: the result of L{packed}. Other content is returned as it is.
    """
    line, _, rest = content.partition(b"\n")
    text, _, body = rest.partition(b"\n")
    if not line.startswith(_MAGIC):
        return content
    header = json.loads(text)
    lasting = {name: value for name, value in header.items() if name not in ("now", "wall", "quiet")}
    return b"\n".join((line, json.dumps(lasting).encode(), body[: -_CHECKSUM.size]))


def unpacked(content: bytes) -> State:
    """
    Read a state.

    @param content: the result of L{packed}, of this or another process.
    @raise NewerState: a later release has written it.
    @raise ValueError: it is damaged.
    """
    line, _, rest = content.partition(b"\n")
    if not line.startswith(_MAGIC) or not line[len(_MAGIC) :].isdigit() or len(line) > 40:
        raise ValueError("this is no state of the limits of mailgate")
    version = int(line[len(_MAGIC) :])
    if version > VERSION:
        raise NewerState(f"the state of the limits has version {version}, and this release knows {VERSION} at most")
    if version < VERSION:
        raise ValueError(f"the state of the limits has version {version}, and this release needs {VERSION}")
    if len(content) < 8 or _CHECKSUM.pack(zlib.crc32(content[:-4])) != content[-4:]:
        raise ValueError(_DAMAGED)
    text, _, body = rest[:-4].partition(b"\n")
    try:
        header = json.loads(text)
        read = State(
            bytes.fromhex(header["key"]),
            float(header["now"]),
            float(header["wall"]),
            float(header["quiet"]),
            list(header["operators"]),
            *_readTables(header["shelves"], header["rows"], body),
        )
        _verify(read)
    except (KeyError, TypeError, ValueError, AttributeError, error) as problem:
        raise ValueError(_DAMAGED) from problem
    return read


def _readTables(
    lengths: dict[str, int], numbers: dict[str, int], body: bytes
) -> tuple[dict[str, bytes], dict[str, list[_Row]]]:
    shelves: dict[str, bytes] = {}
    found: dict[str, list[_Row]] = {}
    at = 0
    for name, length in lengths.items():
        shelves[name] = body[at : at + length]
        at += length
    for name, number in numbers.items():
        rows = found[name] = []
        for _ in range(number):
            key, length = _ROW.unpack_from(body, at)
            at += _ROW.size
            rows.append((key, body[at : at + length]))
            at += length
    if at != len(body):
        raise ValueError(_DAMAGED)
    return shelves, found


_WIDTHS = {"known": 0, "goods": 36, "rates": 8}
"""The widths of the shelves."""

_MULTIPLES = {"pairs": (4, 8), "addresses": (16, 8), "networks": (12, 12), "users": (12, 2)}
"""The lengths of rows: the least, and of what one more thing in it adds."""


def _verify(read: State) -> None:
    """Raise L{ValueError} for what L{State.fill} or the rules could not use."""
    isTime = all(0 <= each < _LATEST for each in (read.now, read.wall, read.quiet))
    if not isTime or len(read.key) != KEY_BYTES or len(read.operators) > MOST_BLOCKS:
        raise ValueError(_DAMAGED)
    operators, blocks = Operators(), Blocks(1 << 12)
    for each in read.operators:
        operators.adopt(each)
    for name, content in read.shelves.items():
        Shelf(0, _WIDTHS[name]).verify(content)
    for name, rows in read.rows.items():
        for key, row in rows:
            if not 0 < key < 1 << 60:
                raise ValueError(_DAMAGED)
            if name == "blocks":
                blocks.adopt(key, row)
            elif name == "queues" and len(row) != _QUEUE.size:
                raise ValueError(_DAMAGED)
            elif name in _MULTIPLES:
                head, each = _MULTIPLES[name]
                if len(row) < head or (len(row) - head) % each:
                    raise ValueError(_DAMAGED)
