# -*- test-case-name: mailgate.test.limits.test_state -*-
"""
What the process that counts tells the others, so that they know it when a client connects: rows as values of JSON.

  - C{["key", SECRET, NOW, QUIET]}: the secret of the hashes in hexadecimal, the time of the rows, and for how many
    seconds R6 and R7 only say what they would do. Blocks of operators of before do not hold any more.
  - C{["good", ADDRESS, ROW]}: the key of an address, and who has succeeded there, in hexadecimal.
  - C{["slow", USER, ROW]}: the key of a user that R6 slows down, and the failures. A process that decides alone for a
    moment must not let the guesser begin anew.
  - C{["block", BLOCK]}, C{["unblock", ID]}: a block of an operator has begun or ended.
  - C{["clear", THING]}: an operator has ended the blocks of a thing, and cleared its failures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mailgate.limits.attempt import Block
from mailgate.limits.clearing import clear
from mailgate.limits.keys import KEY_BYTES
from mailgate.limits.ledger import Ledger
from mailgate.limits.operators import rowOf

__all__ = ["adopted", "blockRow", "goodRow", "rows", "slowRow"]


def blockRow(block: Block) -> Mapping[str, Any]:
    """Return a block for other processes. They need no reason. C{block} is an operator's."""
    return {**rowOf(block), "reason": ""}


def goodRow(address: int, row: bytes) -> list[Any]:
    """
    Return who has succeeded at an address.

    @param address: its key.
    @param row: that of L{mailgate.limits.known.Goods}.
    """
    return ["good", address, row.hex()]


def slowRow(user: int, row: bytes) -> list[Any]:
    """
    Return a user that R6 slows down.

    @param user: the key.
    @param row: that of L{mailgate.limits.users.Users}.
    """
    return ["slow", user, row.hex()]


def rows(ledger: Ledger, now: float, quiet: float) -> Iterator[Any]:
    """
    Yield all rows. The first has the key.

    @param ledger: what is remembered.
    @param now: the time in seconds.
    @param quiet: for how many seconds R6 and R7 only say what they would do.
    """
    yield ["key", ledger.keys.secret.hex(), now, quiet]
    for block in ledger.operators:
        yield ["block", blockRow(block)]
    users = ledger.users
    for user, row in [each for each in users.table.rows.items() if users.isSlow(each[0], now)]:
        yield slowRow(user, row)
    since = max(0, int(now - ledger.policy.goodFor))
    # Rows may change while they are sent.
    for address, _, row in list(ledger.goods.shelf.items(since)):
        yield goodRow(address, row)


def adopted(ledger: Ledger, row: Any, now: float) -> tuple[bytes, float, float] | None:
    """
    Take over a row.

    @param ledger: what is remembered.
    @param row: the row.
    @param now: the time in seconds.
    @return: the parts of a row C{key}, which changes more than this ledger.
    @raise ValueError: the row is damaged.
    """
    try:
        if row[0] == "key":
            secret = bytes.fromhex(row[1])
            if len(secret) == KEY_BYTES:
                return secret, float(row[2]), float(row[3])
        elif row[0] == "good":
            if isinstance(row[1], int) and 0 < row[1] < 1 << 60:
                ledger.goods.adopt(row[1], bytes.fromhex(row[2]), now)
                return None
        elif row[0] == "slow":
            if isinstance(row[1], int) and 0 < row[1] < 1 << 60:
                ledger.users.adopt(row[1], bytes.fromhex(row[2]), now)
                return None
        elif row[0] == "clear":
            clear(ledger, str(row[1]), now)
            return None
        elif row[0] == "block":
            ledger.operators.adopt(row[1])
            return None
        elif row[0] == "unblock":
            ledger.operators.removeId(str(row[1]))
            return None
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError("a row of the limits is damaged") from error
    raise ValueError("a row of the limits is of an unknown kind")
