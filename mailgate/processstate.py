# -*- test-case-name: mailgate.test.test_service -*-
"""
What outlives a gateway in its process: a reload replaces the gateway, and keeps this.
"""

from __future__ import annotations

import os
from typing import Any

from attrs import field, frozen

from mailgate.frontend.kicking import Kicks
from mailgate.lean.connectionlimit import Places
from mailgate.lean.shares import Share
from mailgate.limits.limits import Limits
from mailgate.sessionids import SessionIds
from mailgate.upstream.notices import Notices
from mailgate.upstream.placing import IPlacing
from mailgate.watch.watcher import Watcher

__all__ = ["ProcessState"]


@frozen
class ProcessState:
    """
    What the gateways of one process share: the current one, and those that a reload has replaced.

    @ivar places: counts the connections. The limit is that of the gateway that started last.
    @ivar notices: what the processes and generations of the gateway tell each other about backends.
    @ivar watcher: counts what happens to connections, for the keeper; L{None} without an admin side.
    @ivar kicks: the sessions that operators end.
    @ivar ids: the ids of sessions. They begin with the name of the process.
    @ivar share: this worker's share of the clients, if other processes accept on the same sockets.
    @ivar limits: the limits. The rules are those of the gateway that started last; the tables are kept.
    @ivar placing: knows the places of users in sticky groups; L{None} if nothing does.
    """

    places: Places
    notices: Notices
    kicks: Kicks
    watcher: Watcher | None = None
    ids: SessionIds = field(factory=lambda: SessionIds(os.urandom))
    share: Share | None = None
    limits: Limits = field(factory=Limits)
    placing: IPlacing | None = None

    @classmethod
    def of(
        cls,
        reactor: Any,
        notices: Notices | None = None,
        isWatched: bool = False,
        share: Share | None = None,
        limits: Limits | None = None,
        placing: IPlacing | None = None,
    ) -> ProcessState:
        """
        Make it for a first gateway.

        @param reactor: the reactor.
        @param notices: what other processes tell this one; L{None} if there are none.
        @param isWatched: whether connections are watched, for the keeper.
        @param share: this worker's share of the clients, if other processes accept on the same sockets.
        @param limits: the limits, if this process shares them with others; L{None} for those of this process alone.
        @param placing: knows the places of users in sticky groups; L{None} if nothing does.
        """
        watcher = Watcher(reactor) if isWatched else None
        known = Notices(reactor) if notices is None else notices
        own = Limits(isSteered=isWatched) if limits is None else limits
        return cls(Places(reactor), known, Kicks(reactor), watcher, share=share, limits=own, placing=placing)
