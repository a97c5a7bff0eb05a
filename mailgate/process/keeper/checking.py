# -*- test-case-name: mailgate.test.process.keeper.test_checking -*-
"""
The health checks of a gateway with workers, which its keeper does for all of them.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred

from mailgate.backend.health import HealthChecks
from mailgate.backend.uses import Uses
from mailgate.config import GatewaySettings
from mailgate.frontend.settings import DialogueSettings
from mailgate.lean.reactor import EventSettings, LeanReactor
from mailgate.log.errorlog import ErrorLogs
from mailgate.log.journals import Journals
from mailgate.net.naming import NamingReactor
from mailgate.registry import PROTOCOLS
from mailgate.upstream.notices import Notices
from mailgate.upstream.standing import Standing
from mailgate.upstream.upstreams import Upstreams

__all__ = ["Checking"]


class Checking(MultiService):
    """
    Checks the servers of all groups, as a gateway of the configuration would, and tells the other processes what it
    finds. It has neither listeners nor authenticators. The constructor reads the keys that the checks need.

    @param settings: the configuration.
    @param reactor: the reactor.
    @param logs: opens the log files.
    @param notices: what the processes of the gateway tell each other.
    @ivar standing: which backends are used.
    """

    def __init__(self, settings: GatewaySettings, reactor: Any, logs: ErrorLogs, notices: Notices) -> None:
        super().__init__()
        self._journals = Journals(settings, logs, reactor)
        journal = self._journals.own
        own: Any = LeanReactor(reactor, 1, journal) if settings[EventSettings].isLean else reactor
        self._lean = own if isinstance(own, LeanReactor) else None
        naming = NamingReactor(own)
        upstreams = Upstreams(settings, naming)
        self.standing = Standing(upstreams, notices, own, journal)
        uses = Uses(upstreams, naming)
        for server in settings.servers:
            record, dialogue = PROTOCOLS[server.protocol], server[DialogueSettings]
            timeout = dialogue.timeout if "timeout" in server.given else None
            uses.add(server, record.client, record.alpn, record.ports, dialogue.serverName, timeout)
        for follower in upstreams.followers(journal):
            self.addService(follower)
        # The clock of the lean reactor is too coarse.
        self.addService(HealthChecks(upstreams, self.standing, notices, uses.all, reactor, journal))

    def stopService(self) -> Deferred[Any]:
        """End the checks."""
        stopped: Deferred[Any] = super().stopService()
        return stopped.addBoth(self._close)

    def _close(self, result: Any) -> Any:
        self.standing.close()
        if self._lean is not None:
            self._lean.poller.close()
        self._journals.flush()
        return result
