# -*- test-case-name: mailgate.test.keeper.answers.test_backends -*-
"""
Answers which backends a process knows, in which state they are, and how many sessions are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mailgate.keeper.view import ANSWERERS, ProcessView
from mailgate.upstream.listing import rowsOf

__all__ = ["backends"]


def backends(view: ProcessView, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """
    Yield C{{"current": whether its generation accepts clients, "row": as L{mailgate.upstream.listing.rowsOf}}}.

    @param view: the process.
    @param arguments: not used.
    """
    for gateway in view.gateways():
        for row in rowsOf(gateway.standing, gateway.upstreams):
            yield {"current": not gateway.isDraining, "row": row}


ANSWERERS["backends"] = backends
