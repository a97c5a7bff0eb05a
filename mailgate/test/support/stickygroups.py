"""
Sticky groups in the processes of L{mailgate.test.support.processes}.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mailgate.keeper.placing import Placing, ownPlacing
from mailgate.test.support.processes import Processes
from mailgate.upstream.sticky import Sticky

__all__ = ["stickyGroups"]


def _group(name: str, pool: str | None, addresses: list[str]) -> Any:
    settings = SimpleNamespace(sticky=None if pool is None else Sticky(3600, 60))
    peers = [SimpleNamespace(backend=address) for address in addresses]
    return SimpleNamespace(name=name, pool=pool, settings=settings, peers=peers)


def stickyGroups(processes: Processes) -> Placing:
    """
    Give each process the groups C{imap} and C{pop3}, which share places, C{far}, and C{loose}, which is not sticky.
    Return what knows the places.

    @param processes: the processes.
    """
    for gateways in processes.gateways.values():
        gateways[0].upstreams.groups = [
            _group("imap", "imap", ["10.0.0.1:143", "10.0.0.2:143"]),
            _group("pop3", "imap", ["10.0.0.1:110", "10.0.0.2:110"]),
            _group("far", "far", ["10.9.0.1:143"]),
            _group("loose", None, ["10.0.0.3:143"]),
        ]
    processes.placing = ownPlacing(processes.clock)
    return processes.placing  # type: ignore[no-any-return]
