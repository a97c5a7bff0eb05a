# -*- test-case-name: mailgate.test.keeper.test_service -*-
"""
The keeper in the process that serves the clients: in a gateway without workers, and in applications.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.application.internet import TimerService
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailgate.keeper.keeper import Keeper
from mailgate.keeper.members import LocalMember
from mailgate.keeper.places import ProcessPlaces
from mailgate.keeper.placing import DirectPlaces, ownPlacing
from mailgate.keeper.recent import MOST_ENDS
from mailgate.keeper.view import ProcessView
from mailgate.service import Gateway
from mailgate.watch.settings import AdminSettings

__all__ = ["INTERVAL", "KeeperService"]

INTERVAL = 1.0
"""Seconds between reports to the keeper."""

_log = Logger("mailgate")


class KeeperService(MultiService):
    """
    A keeper, and this process as a member. Other services, such as an admin server, can be added to it.

    @param view: this process.
    @param reactor: the time and timers.
    @param name: the name of the gateway (C{gateway_name}).
    @param remembers: of how many ended connections the keeper keeps the stories; 0: of none.
    @param keeper: a keeper that exists already; L{None} for a new one.
    @param places: asks the keeper for the places of users; L{None} if nothing here does.
    @ivar keeper: the keeper.
    @ivar member: this process as the keeper knows it.
    """

    def __init__(
        self,
        view: ProcessView,
        reactor: IReactorTime,
        name: str = "",
        remembers: int = MOST_ENDS,
        keeper: Keeper | None = None,
        places: ProcessPlaces | None = None,
    ) -> None:
        super().__init__()
        self._places = places
        self._direct: DirectPlaces | None = None
        self.keeper = Keeper(reactor, name, remembers) if keeper is None else keeper
        self.member = LocalMember(view, self.keeper, reactor, os.getpid())
        ticks = TimerService(INTERVAL, self._report)
        ticks.clock = reactor
        ticks.setServiceParent(self)

    @classmethod
    def of(cls, gateway: Gateway, reactor: IReactorTime, name: str = "") -> KeeperService:
        """
        Make one for the gateway of an application.

        @param gateway: the gateway. Its C{state} must be one that is watched:
            C{ProcessState.of(reactor, isWatched=True)}.
        @param reactor: the time and timers.
        @param name: the name of the gateway.
        @raise ValueError: the state of the gateway is not watched.
        """
        if gateway.state.watcher is None:
            raise ValueError("the state of the gateway must be watched: ProcessState.of(reactor, isWatched=True)")
        view = ProcessView(gateway.state.ids.member, gateway.state.watcher, lambda: [gateway])
        places = gateway.upstreams.placing = ProcessPlaces(reactor)
        made = cls(view, reactor, name, gateway.settings[AdminSettings].explainMemory, places=places)
        made.keeper.placing = ownPlacing(reactor)
        made.keeper.judgeBy(gateway.state.limits.defence)
        return made

    def _report(self) -> None:
        self._try(self.member.report)

    def _try(self, report: Callable[[], None]) -> None:
        try:
            report()
        except Exception:
            # The timer would stop for ever.
            _log.failure("cannot report to the keeper")

    def startService(self) -> None:
        self.keeper.join(self.member)
        if self.keeper.registry is not None:
            self.keeper.registry.joined(self.member)
        placing = self.keeper.placing
        if self._places is not None and placing is not None:
            self._direct = DirectPlaces(placing, self._places.placed)
            self._places.attached(self._direct)
        super().startService()

    def retire(self) -> None:
        """The gateway accepts no new clients."""
        self.member.isRetiring = True

    def stopService(self) -> Deferred[None]:
        """Report for the last time. What was counted stays in the keeper."""
        self._try(self.member.reportAll)
        stopped: Deferred[None] = super().stopService()
        self.member.stop()
        if self._places is not None and self._direct is not None and self.keeper.placing is not None:
            self._places.detached(self._direct)
            self.keeper.placing.left(self._direct)
            self.keeper.placing.stop()
        self.keeper.left(self.member)
        if self.keeper.registry is not None:
            self.keeper.registry.left(self.member)
        return stopped
