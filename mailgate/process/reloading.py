# -*- test-case-name: mailgate.test.process.test_generations,mailgate.test.process.workers.test_master -*-
"""
The common part of a gateway in one process and a gateway with workers: reload with its checks, renewed certificates,
log files, drain and stop. The subclasses know how one generation replaces another: L{mailgate.process.generations} for
one process, L{mailgate.process.workers.master} for several.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import evolve, field, frozen
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.logger import ILogObserver, Logger

from mailgate.config import GatewaySettings
from mailgate.config.restart import demoSection
from mailgate.directives import ConfigurationError, ServerSettings
from mailgate.frontend.draining import DrainSettings
from mailgate.limits.policy import Mode
from mailgate.limits.settings import LimitSettings
from mailgate.limits.statefile import placeOf
from mailgate.log.errorlog import ErrorLogs, ProcessLog
from mailgate.log.settings import LogSettings
from mailgate.net.sockets import ListeningSockets
from mailgate.process.keeper.interfaces import IKeeping
from mailgate.process.watching import FileWatch, watchedFiles
from mailgate.process.workers.messages import Order
from mailgate.service import Gateway
from mailgate.tls.renewal import InForce, certificatesOf, namesLost, renewalFaults
from mailgate.upstream.notices import Notices
from mailgate.watch.settings import AdminSettings

__all__ = ["GenerationError", "Reloading", "checkRenewal", "drain"]


class GenerationError(Exception):
    """A generation did not start; the text says why."""


def drain(gateway: Gateway, order: Order) -> Deferred[int]:
    """
    Drain or stop a gateway.

    @param gateway: the gateway.
    @param order: any order except L{Order.REOPEN}.
    @return: fires with the number of proxied sessions that were cut.
    """
    if order is Order.STOP:
        return gateway.drain(farewell=True, patience=0, pace=0)
    return gateway.drain(order is Order.DRAIN, gateway.settings[DrainSettings].patience)


def checkRenewal(before: InForce, servers: Sequence[ServerSettings], isAsked: bool, log: Any) -> None:
    """
    Check the certificates that have changed.

    @param before: the current certificates.
    @param servers: the servers of the new configuration.
    @param isAsked: whether an operator has ordered the reload. Then new certificates are accepted, and C{log} gets a
        warning for each that lacks a name of the current one.
    @param log: the log for the warnings.
    @raise ConfigurationError: the reload is automatic and a new certificate is worse than the current one
        (L{renewalFaults}).
    """
    if isAsked:
        for problem in namesLost(before, servers):
            log.warn("{reason}", reason=str(problem))
    elif faults := list(dict.fromkeys(renewalFaults(before, servers))):
        kept = "the gateway keeps the previous one; run mailgate reload to use the new one anyway"
        raise ConfigurationError([evolve(each, message=f"{each.message}; {kept}") for each in faults])


@frozen
class Wanted:
    """
    What a reload makes active.

    @ivar settings: the new settings. Options that a reload cannot change have their current values.
    @ivar text: the text of the configuration, for zygotes; empty in a process without workers.
    @ivar sockets: the listening sockets for C{settings}.
    @ivar unchanged: the names of options that have changed in the file and that a reload cannot change.
    @ivar observer: the new log of the process.
    """

    settings: GatewaySettings
    text: str = field(repr=False)
    sockets: ListeningSockets
    unchanged: Sequence[str]
    observer: ILogObserver


class Reloading(MultiService):
    """
    Serves clients with one generation after the other.

    @param settings: the first configuration.
    @param reactor: the reactor.
    @param logs: opens the log files.
    @param processLog: the log of the process, which a reload may change.
    @param sockets: sockets that systemd or the previous process has bound. Listeners use those with their addresses.
    @ivar settings: the current configuration.
    @ivar sockets: the listening sockets.
    @ivar notices: what the processes and generations of the gateway tell each other about backends.
    @ivar cut: the number of proxied sessions that drain or stop has cut.
    @ivar keeping: the keeper of the gateway; L{None} without one.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        reactor: Any,
        logs: ErrorLogs,
        processLog: ProcessLog,
        sockets: ListeningSockets | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.sockets = ListeningSockets() if sockets is None else sockets
        self.cut = 0
        self.keeping: IKeeping | None = None
        self.notices = Notices(reactor)
        self._reactor = reactor
        self._logs = logs
        self._processLog = processLog
        self._log = Logger("mailgate")
        self._reloads = 0
        self._ending = False
        self._watch = FileWatch(reactor, self._filesChanged)
        self._watch.watch(watchedFiles(settings.servers, settings.named, settings[AdminSettings].files))
        self._certificates = certificatesOf(settings.servers)
        self.addService(self._watch)

    # For subclasses.

    def _load(self) -> tuple[GatewaySettings, str]:
        """
        Read the configuration.

        @return: the settings, and the text of L{Wanted.text}.
        @raise ConfigurationError: the configuration has errors.
        """
        raise NotImplementedError

    def _kept(self, wanted: GatewaySettings) -> tuple[GatewaySettings, list[str]]:
        """
        Return C{wanted} with the current values of the options that a reload cannot change, and the names of those of
        these options that differ.
        """
        raise NotImplementedError

    async def _replace(self, wanted: Wanted) -> None:
        """
        Serve with C{wanted} instead of the current configuration, call L{_inForce}, and log the success. After an error
        the current generation serves as before, and the caller closes the sockets of C{wanted}.

        @raise ConfigurationError: the new configuration cannot be used.
        @raise GenerationError: the new generation did not start.
        """
        raise NotImplementedError

    def _endAll(self, order: Order) -> Deferred[int]:
        """Drain or stop all generations; the Deferred fires with the number of proxied sessions that were cut."""
        raise NotImplementedError

    # The start.

    def serving(self) -> None:
        """See L{mailgate.process.interfaces.IGenerations.serving}."""

    def _warnOfLimits(self, hasKeeper: bool) -> None:
        """Warn of what the limits cannot do. C{hasKeeper}: whether one process knows the logins of all."""
        if all(server[LimitSettings].loginMode is Mode.OFF for server in self.settings.servers):
            return
        if not hasKeeper:
            self._log.warn(
                "limit_login: each worker counts failed logins for itself, as there is no keeper: set pid, admin or "
                "metrics"
            )
        elif (
            self.settings[LimitSettings].stateFile is None
            and placeOf(None, os.environ) is None
            and demoSection(self.settings) is None
        ):
            self._log.warn(
                "state_file is not set: a restart forgets known networks and blocks; set state_file in [mail] to a "
                "file, or to off to accept that"
            )

    # Reload.

    def reload(self, isAsked: bool = True) -> Deferred[Sequence[str]]:
        """
        See L{mailgate.process.interfaces.IGenerations.reload}.

        @param isAsked: whether an operator has ordered the reload. An automatic reload refuses certificates that are
            worse than the current ones (L{renewalFaults}).
        """
        return ensureDeferred(self._reload(isAsked))

    async def _reload(self, isAsked: bool) -> Sequence[str]:
        if self._ending:
            self._log.warn("reload refused: the gateway is shutting down")
            return ["the gateway is shutting down"]
        try:
            wanted, text = self._load()
            checkRenewal(self._certificates, wanted.servers, isAsked, self._log)
            own = wanted[LogSettings]
            observer = self._logs.observerFor(own.errorLog, wanted.file, "mailgate", wanted.lines, own.privacy)
            sockets = self.sockets.opened(wanted.servers)
        except ConfigurationError as error:
            return self._refused(error)
        settings, unchanged = self._kept(wanted)
        try:
            await self._replace(Wanted(settings, text, sockets, unchanged, observer))
        except (ConfigurationError, GenerationError) as error:
            return [str(error)] if self._ending else self._refused(error)
        finally:
            if self.sockets is not sockets:
                sockets.close(but=self.sockets)
        self._happened("mailgate_reloads", "ok")
        return ()

    def _happened(self, name: str, *labels: str, reasons: Sequence[str] = ()) -> None:
        """Something has happened that metrics count."""
        if self.keeping is not None:
            self.keeping.happened(name, *labels, reasons=reasons)

    def _refused(self, error: Exception) -> Sequence[str]:
        """Log why a reload is refused; return the lines of C{error}."""
        reasons = str(error).splitlines()
        for line in reasons:
            self._log.error("reload refused: {line}", line=line)
        self._log.error("reload refused: the current configuration stays active")
        self._happened("mailgate_reloads", "refused", reasons=reasons)
        return reasons

    def _inForce(self, settings: GatewaySettings, sockets: ListeningSockets) -> None:
        """C{settings} are now served on C{sockets}: close the sockets that are no longer used."""
        self.settings = settings
        before, self.sockets = self.sockets, sockets
        before.close(but=sockets)
        self._watch.watch(watchedFiles(settings.servers, settings.named, settings[AdminSettings].files))
        self._certificates = certificatesOf(settings.servers)

    def _warnUnchanged(self, options: Iterable[str]) -> None:
        for name in options:
            self._log.warn("{name} changed; it takes effect after a restart", name=name)

    def _filesChanged(self, names: list[str]) -> None:
        self._log.info("reloading because files changed: {names}", names=", ".join(names))
        reloaded = maybeDeferred(self.reload, isAsked=False)
        reloaded.addErrback(lambda failure: self._log.failure("reload failed", failure))

    # Logs.

    def _follow(self, observer: ILogObserver) -> None:
        """Log to C{observer} from now on."""
        self._processLog.follow(observer)
        self._reopenQuietly()

    def _reopenQuietly(self) -> bool:
        """Open the logs again; log an error for each that cannot be opened. Return whether all could be."""
        # Open all of them before the first error is written to one.
        troubles = list(self._reopened())
        for line in troubles:
            self._log.error("{line}", line=line)
        return not troubles

    def _reopened(self) -> Iterable[str]:
        """Open the logs again; yield a line for each that cannot be opened."""
        return self._logs.reopen()

    # Drain and stop.

    def drain(self) -> Deferred[int]:
        """See L{mailgate.process.interfaces.IGenerations.drain}."""
        self._log.info("draining: refusing new clients")
        return self._end(Order.DRAIN)

    def stop(self) -> Deferred[int]:
        """See L{mailgate.process.interfaces.IGenerations.stop}."""
        return self._end(Order.STOP)

    def retire(self) -> Deferred[int]:
        """See L{mailgate.process.interfaces.IGenerations.retire}."""
        # The other process has the sockets now; it removes the files of unix sockets.
        self.sockets.disown()
        return self._end(Order.RETIRE)

    def _end(self, order: Order) -> Deferred[int]:
        self._ending = True
        ended = self._endAll(order)
        self.sockets.close()
        return ended

    def _count(self, cuts: Iterable[int]) -> int:
        """Return the sum of C{cuts}, or the earlier sum if that was higher: drain and stop count the same sessions."""
        self.cut = max(self.cut, sum(cuts))
        return self.cut
