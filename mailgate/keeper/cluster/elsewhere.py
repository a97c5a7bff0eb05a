# -*- test-case-name: mailgate.test.keeper.cluster.test_elsewhere -*-
"""
What explanations say of sessions at other gateways.
"""

from __future__ import annotations

from typing import Any

from mailgate.keeper.cluster.registry import Registry

__all__ = ["addElsewhere"]

_WORDS = ("user", "user_address")
"""The limits for which sessions at other gateways count."""


async def addElsewhere(found: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """
    Add to the counts of C{limit_conn} the sessions at other gateways, as C{elsewhere}: L{None} if the store cannot be
    used.

    @param found: the result of L{mailgate.keeper.explain.explain}, which is changed.
    @param registry: the sessions of this gateway.
    """
    user, host = found["user"].encode("utf-8", "surrogateescape"), found["address"] or ""
    rows = [row for row in found["would"] if row["limits"] is not None]
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        counts = await registry.elsewhere(user, host, protocol)
        for limits in (row["limits"] for row in rows if row["protocol"] == protocol):
            for word, count in zip(_WORDS, counts or (None, None), strict=True):
                if word in limits:
                    limits[word]["elsewhere"] = count
    return found
