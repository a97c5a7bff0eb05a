# -*- test-case-name: mailgate.test.process.test_generations -*-
"""
One gateway after the other, in one process: reload, drain and stop.

The listening sockets are the process's; a gateway takes them over while the one before still serves those whom it has
let in, on the settings that they began with.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import evolve
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from zope.interface import implementer

from mailgate.config import GatewaySettings, load
from mailgate.config.restart import kept, untouchable
from mailgate.directives import ConfigurationError, ServerSettings
from mailgate.frontend.draining import DrainSettings
from mailgate.lean.connectionlimit import Places
from mailgate.log.errorlog import ErrorLogs, ProcessLog
from mailgate.log.journal import Journal
from mailgate.log.settings import ErrorLog, LogSettings, ServerLogSettings
from mailgate.net.sockets import ListeningSockets
from mailgate.process.interfaces import IGenerations
from mailgate.process.watching import FileWatch, watchedFiles
from mailgate.service import Gateway
from mailgate.tls.renewal import InForce, certificatesOf, namesLost, renewalFaults

__all__ = ["Generations", "checkRenewal", "refused"]

_PACE = 5.0
"""Seconds over which those are ended for whom worker_shutdown_timeout is over."""


def refused(log: Any, error: Exception) -> Sequence[str]:
    """Tell C{log}, in its C{error} events, why a reload is refused; gives the reasons of C{error}, one a line."""
    reasons = str(error).splitlines()
    for line in reasons:
        log.error("{line}", line=line)
    log.error("the configuration is not reloaded: nothing changes")
    return reasons


def checkRenewal(before: InForce, servers: Sequence[ServerSettings], isAsked: bool, log: Any) -> None:
    """
    Look at those certificates of C{servers} that are not the ones C{before}. If an operator has C{isAsked} for them,
    C{log} names what they lack.

    @raise ConfigurationError: they must not be put into force by themselves.
    """
    if isAsked:
        for problem in namesLost(before, servers):
            log.warn("{reason}", reason=str(problem))
    elif faults := list(dict.fromkeys(renewalFaults(before, servers))):
        kept = "and the one before is kept; mailgate reload takes it all the same"
        raise ConfigurationError([evolve(each, message=f"{each.message}, {kept}") for each in faults])


@implementer(IGenerations)
class Generations(MultiService):
    """
    The gateway of C{settings}, and those that follow it. C{cut} counts the proxied sessions that the end has cut.

    Logs are opened among C{logs}; C{log} is the process's own. C{read(file)} gives settings. Those of C{sockets} that
    are wanted are taken, whom others have bound.

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
    ) -> None:
        super().__init__()
        self.settings = settings
        self._reactor = reactor
        self._logs = logs
        self._log = log
        self._read = read
        self._reloads = 0
        self._bound = False
        self._ending = False
        self.cut = 0
        self.sockets = ListeningSockets() if sockets is None else sockets
        self._journal = Journal(settings[LogSettings].level)
        self._places = Places(reactor)
        self._gateways = [Gateway(settings, reactor, logs, places=self._places)]
        self.gateway.setServiceParent(self)
        self._watch = FileWatch(reactor, self._filesChanged)
        self._watch.watch(watchedFiles(settings.servers))
        self._certificates = certificatesOf(settings.servers)
        self.addService(self._watch)

    @property
    def gateway(self) -> Gateway:
        """The one that serves newcomers."""
        return self._gateways[-1]

    def privilegedStartService(self) -> None:
        """
        Bind.

        @raise mailgate.net.sockets.ListenError: an address cannot be bound.
        """
        if not self._bound:
            self.gateway.sockets = self.sockets = self.sockets.opened(self.settings.servers)
            self._bound = True
        super().privilegedStartService()

    def startService(self) -> None:
        self.privilegedStartService()
        super().startService()

    def stopService(self) -> Deferred[Any]:
        """Stop whatever is left."""
        self._ending = True
        gateways = list(self._gateways)
        stopped = maybeDeferred(super().stopService)
        self.sockets.close()
        return stopped.addCallback(lambda _: self._ended([gateway.cut for gateway in gateways]))

    def whenReady(self) -> Deferred[None]:
        """See L{IGenerations}."""
        return succeed(None)

    def reload(self, isAsked: bool = True) -> Deferred[Sequence[str]]:
        """
        See L{IGenerations}. The new gateway serves before the old one stops to listen. Unless it C{isAsked} for, new
        certificates have to be as good as those before (L{renewalFaults}).
        """
        if self._ending:
            self._journal.warn("nothing is reloaded: the gateway is going down")
            return succeed(["the gateway is going down"])
        try:
            settings = self._read(self.settings.file)
            checkRenewal(self._certificates, settings.servers, isAsked, self._journal)
            self._succeed(settings)
        except ConfigurationError as error:
            return succeed(refused(self._journal, error))
        return succeed(())

    def _succeed(self, settings: GatewaySettings) -> None:
        """Put C{settings} into force. Whatever is raised, nothing has changed then."""
        observer = self._logs.observerFor(settings[LogSettings].errorLog, settings.file, "mailgate", settings.lines)
        sockets = self.sockets.opened(settings.servers)
        gateway = None
        try:
            gateway = Gateway(settings, self._reactor, self._logs, sockets, places=self._places)
            gateway.setServiceParent(self)
        except BaseException:
            if gateway is not None:
                gateway.disownServiceParent()
            sockets.close(but=self.sockets)
            raise
        self._replace(gateway, settings, sockets)
        self._log.follow(observer)
        self._reopenQuietly()

    def _replace(self, gateway: Gateway, settings: GatewaySettings, sockets: ListeningSockets) -> None:
        before = self.gateway
        for name in untouchable(self.settings, settings):
            self._journal.warn("{name} is not what it was: that takes a restart", name=name)
        # What a reload cannot change stays to be compared with.
        self.settings = kept(self.settings, settings)
        self._journal = Journal(settings[LogSettings].level)
        self._gateways.append(gateway)
        drained = before.drain(farewell=False, patience=before.settings[DrainSettings].patience, pace=_PACE)
        self.sockets.close(but=sockets)
        self.sockets = sockets
        self._watch.watch(watchedFiles(settings.servers))
        self._certificates = certificatesOf(settings.servers)
        self._reloads += 1
        self._journal.notice(
            "reload {number}: the configuration is in force; sessions of before: {sessions}",
            number=self._reloads,
            sessions=sum(len(each.connections) for each in self._gateways[:-1]),
        )
        drained.addCallback(self._forget, before)

    def _forget(self, cut: int, gateway: Gateway) -> None:
        """Everybody whom C{gateway} served has left."""
        if cut and not self._ending:
            self._journal.warn("worker_shutdown_timeout is over: {cut} proxied sessions were ended", cut=cut)
        if gateway in self._gateways[:-1]:
            self._gateways.remove(gateway)
            gateway.disownServiceParent()
            self._logs.retain(self._usedLogs())
            # Cycles hold it together, and those who look for such seldom look.
            gc.collect()

    def _usedLogs(self) -> Iterator[ErrorLog]:
        yield from self.settings[LogSettings].errorLog
        for gateway in self._gateways:
            for server in gateway.settings.servers:
                yield from server[ServerLogSettings].errorLog

    def _filesChanged(self, names: list[str]) -> None:
        self._journal.notice("reloading, as these have changed: {names}", names=", ".join(names))
        reloaded = maybeDeferred(self.reload, isAsked=False)
        reloaded.addErrback(lambda failure: self._journal.failure("the reload has failed", failure))

    def drain(self) -> Deferred[int]:
        """See L{IGenerations}."""
        self._journal.notice("draining: nobody is let in any more")
        return self._end(lambda gateway: gateway.drain(True, gateway.settings[DrainSettings].patience, _PACE))

    def stop(self) -> Deferred[int]:
        """See L{IGenerations}."""
        return self._end(lambda gateway: gateway.drain(True, 0, 0))

    def retire(self) -> Deferred[int]:
        """See L{IGenerations}."""
        # They are the other process's by now, files of unix sockets included.
        self.sockets.disown()
        return self._end(lambda gateway: gateway.drain(False, gateway.settings[DrainSettings].patience, _PACE))

    def _end(self, end: Callable[[Gateway], Deferred[int]]) -> Deferred[int]:
        self._ending = True
        # A copy: one that is empty at once is forgotten at once.
        ended = gatherResults([end(gateway) for gateway in list(self._gateways)])
        self.sockets.close()
        return ended.addCallback(self._ended)

    def _ended(self, cuts: list[int]) -> int:
        self.cut = max(self.cut, sum(cuts))
        return self.cut

    def reopen(self) -> None:
        """See L{IGenerations}."""
        if not self._logs.hasFiles:
            self._journal.notice("no error_log is a file: there is nothing to open again")
        elif self._reopenQuietly():
            self._journal.notice("the logs are open again")

    def _reopenQuietly(self) -> bool:
        """Whether all are open again; an error tells of each that is not."""
        # All of them, before the first line is written to one.
        troubles = list(self._logs.reopen())
        for line in troubles:
            self._journal.error("{line}", line=line)
        return not troubles
