# -*- test-case-name: mailgate.test.process.test_generations -*-
"""
Reload, drain and stop of a gateway without workers.

The process owns the listening sockets. After a reload the new gateway accepts clients on them, while the previous
gateway still serves its sessions with the settings that they started with.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from zope.interface import implementer

from mailgate.config import GatewaySettings, load
from mailgate.config.restart import kept, untouchable
from mailgate.directives import ConfigurationError, Problem
from mailgate.log.errorlog import ErrorLogs, ProcessLog
from mailgate.log.settings import ErrorLog, LogSettings, ServerLogSettings
from mailgate.net.sockets import ListeningSockets
from mailgate.process.interfaces import IGenerations
from mailgate.process.keeper.sockets import KeeperSockets
from mailgate.process.queries import ANSWER_WITHIN, Found
from mailgate.process.queries import ask as answerOf
from mailgate.process.reloading import Reloading, Wanted, drain
from mailgate.process.remembering import rememberingFor
from mailgate.process.workers.messages import Order
from mailgate.service import Gateway, ProcessState
from mailgate.store.settings import StoreSettings

if TYPE_CHECKING:
    from mailgate.keeper.places import ProcessPlaces
    from mailgate.process.keeper.local import LocalKeeping
    from mailgate.process.keeper.sharing import Sharing

__all__ = ["Generations"]


def _placesOf(settings: GatewaySettings, reactor: Any) -> ProcessPlaces:
    # Imported here because it takes memory that a gateway without a keeper, and a master, can save.
    from mailgate.keeper.places import ProcessPlaces

    return ProcessPlaces.of(settings[StoreSettings], reactor)


@implementer(IGenerations)
class Generations(Reloading):
    """
    The current gateway of a process, and the previous gateways that still have sessions.

    @param settings: the first configuration.
    @param reactor: the reactor.
    @param logs: opens the log files.
    @param log: the log of the process.
    @param read: reads the configuration at a path.
    @param sockets: sockets that systemd or the previous process has bound.
    @param keeper: the sockets of the keeper; L{None} without a keeper.
    @raise ConfigurationError: a server's C{error_log} cannot be opened.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        reactor: Any,
        logs: ErrorLogs,
        log: ProcessLog,
        read: Callable[[str], GatewaySettings] = load,
        sockets: ListeningSockets | None = None,
        keeper: KeeperSockets | None = None,
    ) -> None:
        super().__init__(settings, reactor, logs, log, sockets)
        self._read = read
        self._bound = False
        self._places = None if keeper is None else _placesOf(settings, reactor)
        isWatched = keeper is not None
        self._state = ProcessState.of(reactor, self.notices, isWatched, placing=self._places)
        self._sharing = None if keeper is None else self._shared(settings)
        self._gateways = [Gateway(settings, reactor, logs, state=self._state)]
        self.gateway.setServiceParent(self)
        self._keeper = None if keeper is None else self._keeperWith(keeper)
        if self._keeper is not None:
            self.keeping = self._keeper
        self._remembering = rememberingFor(self._state.limits.defence, settings, reactor, self._knowsMost)

    def _shared(self, settings: GatewaySettings) -> Sharing | None:
        """Return what this process shares with other gateways, before a gateway is made with the limits."""
        if settings[StoreSettings].address is None:
            return None
        from mailgate.process.keeper.sharing import sharingFor

        limits = self._state.limits
        try:
            sharing = sharingFor(settings, self._reactor, limits.defence)
        except ValueError as error:
            raise ConfigurationError([Problem(settings.file, str(error), "mailgate", "store")]) from None
        if sharing is not None:
            limits.defence = limits.store = sharing.defence
            limits.tagKey = settings[StoreSettings].tagKey()
        return sharing

    def _knowsMost(self) -> bool:
        return self._keeper is None or self._keeper.knowsMost

    def _keeperWith(self, sockets: KeeperSockets) -> LocalKeeping | None:
        # Imported here because it takes memory that a gateway without a keeper, and a master, can save.
        from mailgate.process.keeper.linking import viewOf
        from mailgate.process.keeper.local import LocalKeeping

        view = viewOf(self._state, lambda: self._gateways[::-1])
        if view is None:
            return None
        defence = self._state.limits.defence
        return LocalKeeping(self._reactor, self.settings, sockets, view, defence, self._sharing, self._places)

    @property
    def gateway(self) -> Gateway:
        """The gateway that accepts new clients."""
        return self._gateways[-1]

    def privilegedStartService(self) -> None:
        """
        Bind the listening sockets.

        @raise mailgate.net.sockets.ListenError: an address cannot be bound.
        """
        if not self._bound:
            self.gateway.sockets = self.sockets = self.sockets.opened(self.settings.servers)
            if self._keeper is not None:
                self._keeper.sockets.open()
                self._keeper.start()
            self._bound = True
        super().privilegedStartService()

    def startService(self) -> None:
        self.privilegedStartService()
        self._warnOfLimits(hasKeeper=True)
        if self._remembering is not None:
            # Before the first login, and as the user of the process.
            self._remembering.restore()
        super().startService()

    def serving(self) -> None:
        """See L{IGenerations}."""
        if self._remembering is not None:
            self._remembering.startService()

    def stopService(self) -> Deferred[Any]:
        """Stop all gateways."""
        self._ending = True
        self._stopRemembering()
        gateways = list(self._gateways)
        stopped = maybeDeferred(super().stopService)
        self.sockets.close()
        stopped.addCallback(lambda _: self._count(gateway.cut for gateway in gateways))
        return stopped if self._keeper is None else stopped.addBoth(self._stopKeeper)

    def _stopKeeper(self, result: Any) -> Deferred[Any]:
        assert self._keeper is not None
        return self._keeper.stop().addCallback(lambda _: result)

    def whenReady(self) -> Deferred[None]:
        """See L{IGenerations}."""
        return succeed(None)

    def _load(self) -> tuple[GatewaySettings, str]:
        return self._read(self.settings.file), ""

    def _kept(self, wanted: GatewaySettings) -> tuple[GatewaySettings, list[str]]:
        # The next reload compares with these values again.
        return kept(self.settings, wanted), list(untouchable(self.settings, wanted))

    async def _replace(self, wanted: Wanted) -> None:
        """See L{Reloading}. The new gateway accepts clients before the previous one stops listening."""
        gateway = None
        try:
            gateway = Gateway(
                wanted.settings,
                self._reactor,
                self._logs,
                wanted.sockets,
                state=self._state,
            )
            gateway.goOnFrom(self._gateways[-1])
            gateway.setServiceParent(self)
        except BaseException:
            if gateway is not None:
                gateway.disownServiceParent()
            raise
        before = self.gateway
        self._warnUnchanged(wanted.unchanged)
        self._gateways.append(gateway)
        drained = drain(before, Order.RETIRE)
        self._inForce(wanted.settings, wanted.sockets)
        if self._keeper is not None:
            self._keeper.reload(wanted.settings)
        self._reloads += 1
        self._log.info(
            "reload {number} done: the new configuration is active; sessions on older configurations: {sessions}",
            number=self._reloads,
            sessions=sum(len(each.connections) for each in self._gateways[:-1]),
        )
        drained.addCallback(self._forget, before)
        self._follow(wanted.observer)

    def _forget(self, cut: int, gateway: Gateway) -> None:
        """C{gateway} has no sessions left."""
        if cut and not self._ending:
            self._log.warn("worker_shutdown_timeout expired: {cut} proxied sessions were cut", cut=cut)
        if gateway in self._gateways[:-1]:
            self._gateways.remove(gateway)
            gateway.disownServiceParent()
            self._logs.retain(self._usedLogs())
            # It is part of reference cycles, and the collector of cycles runs rarely
            # (L{mailgate.process.rights.tuneCollector}).
            gc.collect()

    def _usedLogs(self) -> Iterator[ErrorLog]:
        yield from self.settings[LogSettings].errorLog
        for gateway in self._gateways:
            for server in gateway.settings.servers:
                yield from server[ServerLogSettings].errorLog

    def _end(self, order: Order) -> Deferred[int]:
        self._stopRemembering()
        if self._keeper is not None:
            self._keeper.retire()
        return super()._end(order)

    def _stopRemembering(self) -> None:
        if self._remembering is not None and self._remembering.running:
            self._remembering.stopService()

    def _endAll(self, order: Order) -> Deferred[int]:
        # A copy: a gateway without sessions leaves the list immediately.
        return gatherResults([drain(gateway, order) for gateway in list(self._gateways)]).addCallback(self._count)

    def reopen(self) -> None:
        """See L{IGenerations}."""
        if not self._logs.hasFiles:
            self._log.info("no error_log is a file: nothing to reopen")
        elif self._reopenQuietly():
            self._log.info("log files reopened")

    def ask(self, word: str, arguments: Mapping[str, Any], within: float = ANSWER_WITHIN) -> Deferred[Sequence[Found]]:
        """
        See L{IGenerations.ask}.

        @param word: the name of the question.
        @param arguments: its arguments, by name.
        @param within: unused, as this process answers at once.
        """
        gateways = reversed(self._gateways)
        return succeed([Found(each is self.gateway, answerOf(each, word, arguments)) for each in gateways])
