# -*- test-case-name: mailgate.test.process.test_generations,mailgate.test.process.workers.test_master -*-
"""
What serves by one configuration after the other, in one process or in several: reload with its checks, renewed
certificates, logs and the ends. How one configuration takes the place of another is for those who build upon it:
L{mailgate.process.generations} and L{mailgate.process.workers.master}.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import evolve, field, frozen
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.logger import ILogObserver, Logger

from mailgate.config import GatewaySettings
from mailgate.directives import ConfigurationError, ServerSettings
from mailgate.frontend.draining import DrainSettings
from mailgate.log.errorlog import ErrorLogs, ProcessLog
from mailgate.log.settings import LogSettings
from mailgate.net.sockets import ListeningSockets
from mailgate.process.watching import FileWatch, watchedFiles
from mailgate.process.workers.messages import Order
from mailgate.service import Gateway
from mailgate.tls.renewal import InForce, certificatesOf, namesLost, renewalFaults

__all__ = ["GenerationError", "Reloading", "checkRenewal", "drain"]


class GenerationError(Exception):
    """A generation has not come up; the text says why."""


def drain(gateway: Gateway, order: Order) -> Deferred[int]:
    """Have C{gateway} end as C{order} says; the Deferred fires with how many proxied sessions were cut."""
    if order is Order.STOP:
        return gateway.drain(farewell=True, patience=0, pace=0)
    return gateway.drain(order is Order.DRAIN, gateway.settings[DrainSettings].patience)


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


@frozen
class Wanted:
    """
    What a reload is to put into force.

    @ivar settings: the settings, in which what a reload cannot change is as before.
    @ivar text: what they were made of, where that is needed.
    @ivar unchanged: the options that a reload cannot change, and that have changed in the file.
    @ivar observer: the process's log from then on.
    """

    settings: GatewaySettings
    text: str = field(repr=False)
    sockets: ListeningSockets
    unchanged: Sequence[str]
    observer: ILogObserver


class Reloading(MultiService):
    """
    Serves by C{settings}, and by those that follow them.

    @param logs: where logs are opened.
    @param processLog: the process's own log, which a reload may change.
    @param sockets: sockets that others have bound: those that are wanted are taken.
    @ivar settings: those in force.
    @ivar sockets: the listening sockets.
    @ivar cut: how many proxied sessions the end has cut.
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
        self._reactor = reactor
        self._logs = logs
        self._processLog = processLog
        self._log = Logger("mailgate")
        self._reloads = 0
        self._ending = False
        self._watch = FileWatch(reactor, self._filesChanged)
        self._watch.watch(watchedFiles(settings.servers, settings.named))
        self._certificates = certificatesOf(settings.servers)
        self.addService(self._watch)

    # For those who build upon it.

    def _load(self) -> tuple[GatewaySettings, str]:
        """
        Read the configuration; return it, and its text where that is needed.

        @raise ConfigurationError: it is bad.
        """
        raise NotImplementedError

    def _kept(self, wanted: GatewaySettings) -> tuple[GatewaySettings, list[str]]:
        """C{wanted}, but for what a reload cannot change, which stays; and the options of which that is so."""
        raise NotImplementedError

    async def _replace(self, wanted: Wanted) -> None:
        """
        Have what is C{wanted} in force in the place of what is, call L{_inForce}, and log that.

        @raise ConfigurationError: it cannot be. Nothing has changed then but for its sockets.
        @raise GenerationError: the same.
        """
        raise NotImplementedError

    def _endAll(self, order: Order) -> Deferred[int]:
        """End all that serve, as C{order} says; fires with how many proxied sessions were cut."""
        raise NotImplementedError

    # Reload.

    def reload(self, isAsked: bool = True) -> Deferred[Sequence[str]]:
        """
        See L{mailgate.process.interfaces.IGenerations.reload}. Unless it C{isAsked} for, new
        certificates have to be as good as those before (L{renewalFaults}).
        """
        return ensureDeferred(self._reload(isAsked))

    async def _reload(self, isAsked: bool) -> Sequence[str]:
        if self._ending:
            self._log.warn("nothing is reloaded: the gateway is going down")
            return ["the gateway is going down"]
        try:
            wanted, text = self._load()
            checkRenewal(self._certificates, wanted.servers, isAsked, self._log)
            observer = self._logs.observerFor(wanted[LogSettings].errorLog, wanted.file, "mailgate", wanted.lines)
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
        return ()

    def _refused(self, error: Exception) -> Sequence[str]:
        """Log why a reload is refused; return the reasons of C{error}, one a line."""
        reasons = str(error).splitlines()
        for line in reasons:
            self._log.error("{line}", line=line)
        self._log.error("the configuration is not reloaded: nothing changes")
        return reasons

    def _inForce(self, settings: GatewaySettings, sockets: ListeningSockets) -> None:
        """C{settings} are in force, and served on C{sockets}: close those that are not used any more."""
        self.settings = settings
        before, self.sockets = self.sockets, sockets
        before.close(but=sockets)
        self._watch.watch(watchedFiles(settings.servers, settings.named))
        self._certificates = certificatesOf(settings.servers)

    def _warnUnchanged(self, options: Iterable[str]) -> None:
        for name in options:
            self._log.warn("{name} is not what it was: that takes a restart", name=name)

    def _filesChanged(self, names: list[str]) -> None:
        self._log.info("reloading, as these have changed: {names}", names=", ".join(names))
        reloaded = maybeDeferred(self.reload, isAsked=False)
        reloaded.addErrback(lambda failure: self._log.failure("the reload has failed", failure))

    # Logs.

    def _follow(self, observer: ILogObserver) -> None:
        """Log by C{observer} from now on."""
        self._processLog.follow(observer)
        self._reopenQuietly()

    def _reopenQuietly(self) -> bool:
        """Whether all logs are open again; an error is logged for each that is not."""
        # All of them, before the first line is written to one.
        troubles = list(self._reopened())
        for line in troubles:
            self._log.error("{line}", line=line)
        return not troubles

    def _reopened(self) -> Iterable[str]:
        """Open the logs again; a line for each trouble."""
        return self._logs.reopen()

    # The ends.

    def drain(self) -> Deferred[int]:
        """See L{mailgate.process.interfaces.IGenerations.drain}."""
        self._log.info("draining: nobody is let in any more")
        return self._end(Order.DRAIN)

    def stop(self) -> Deferred[int]:
        """See L{mailgate.process.interfaces.IGenerations.stop}."""
        return self._end(Order.STOP)

    def retire(self) -> Deferred[int]:
        """See L{mailgate.process.interfaces.IGenerations.retire}."""
        # They are the other process's by now, files of unix sockets included.
        self.sockets.disown()
        return self._end(Order.RETIRE)

    def _end(self, order: Order) -> Deferred[int]:
        self._ending = True
        ended = self._endAll(order)
        self.sockets.close()
        return ended

    def _count(self, cuts: Iterable[int]) -> int:
        """Everything has ended that has C{cuts}; return how many there are of them, or were at an end before."""
        self.cut = max(self.cut, sum(cuts))
        return self.cut
