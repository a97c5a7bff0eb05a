# -*- test-case-name: mailgate.test.keeper.test_whereabouts -*-
"""
Answers which groups of a process are sticky.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mailgate.keeper.view import ANSWERERS, ProcessView

__all__ = ["sticky"]


def sticky(view: ProcessView, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """
    Yield the sticky groups of the generation that accepts clients: C{group}, C{pool}, C{ttl} and C{backends}.

    @param view: the process.
    @param arguments: not used.
    """
    for gateway in view.gateways():
        if gateway.isDraining:
            continue
        for group in gateway.upstreams.groups:
            found = group.settings.sticky
            if found is not None:
                addresses = [str(peer.backend) for peer in group.peers]
                yield {"group": group.name, "pool": group.pool, "ttl": found.ttl, "backends": addresses}


ANSWERERS["sticky"] = sticky
