# -*- test-case-name: mailgate.test.keeper.test_blocks -*-
"""
Blocks and holds as values of JSON: rows of the API and of the live page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from mailgate.keeper.moments import moment
from mailgate.limits.attempt import Block
from mailgate.limits.interfaces import ILimitStore
from mailgate.log.journal import oneLine

__all__ = ["blockRow", "blocksOf", "countBlocks"]


def blockRow(block: Block) -> dict[str, Any]:
    """
    Return a block as a value of JSON.

    @param block: the block.
    """
    return {
        "id": block.id,
        "thing": oneLine(block.thing),
        "rule": block.rule.value,
        "since": moment(block.since),
        "until": moment(block.until),
        "reason": oneLine(block.reason),
        "count": block.count,
    }


def blocksOf(store: ILimitStore | None, most: int) -> tuple[list[dict[str, Any]], int]:
    """
    Return the latest blocks that hold, and how many there are in all.

    @param store: the limits; L{None} if there are none.
    @param most: the most blocks.
    """
    if store is None:
        return [], 0
    found = store.blocks()
    return [blockRow(each) for each in islice(found, most)], len(found)


def countBlocks(blocks: Sequence[Block]) -> Mapping[str, int]:
    """
    Count blocks by the values of their rules.

    @param blocks: the blocks.
    """
    return Counter(each.rule.value for each in blocks)
