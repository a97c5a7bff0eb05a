# -*- test-case-name: mailgate.test.test_tap -*-
"""
C{twistd mailgate --config gateway.ini}: the plugin's options and service.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from attrs import evolve
from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from twisted.python import usage
from twisted.python.components import Componentized

from mailgate.config import GatewaySettings, load, parse, read
from mailgate.directives import ConfigurationError, Problem
from mailgate.frontend.protocol import DialogueSettings
from mailgate.log.errorlog import ErrorLogs, ProcessLog
from mailgate.log.settings import LogSettings, ServerLogSettings, needsStandardError
from mailgate.process.background import Twistd
from mailgate.process.generations import Generations
from mailgate.process.rights import shedPrivileges, tuneCollector, unreadableLater
from mailgate.process.signals import Signals
from mailgate.process.surroundings import Process, Surroundings
from mailgate.process.workers.master import Master
from mailgate.sandbox.certificate import stateFolder, withCertificate
from mailgate.sandbox.settings import SandboxSettings
from mailgate.system.exitstatus import BAD_CONFIGURATION, CANNOT_LISTEN, CUT, endWith
from mailgate.system.privileges import ProcessSettings, gainNothing, limitOpenFiles, raiseOpenFiles
from mailgate.system.processors import WorkerSettings

__all__ = ["Options", "makeService"]


class Options(usage.Options):
    """What can be said on the command line."""

    synopsis = "[options]"
    longdesc = "A gateway for IMAP4, POP3 and SMTP. `mailgate check --config FILE` tries a configuration out."
    # usage.Options does not coerce defaults: None is how a missing one shows.
    optParameters = [["config", "c", None, "The configuration, in the ini format of etc/gateway.ini.", os.path.abspath]]

    def postOptions(self) -> None:
        if self["config"] is None:
            raise usage.UsageError("--config FILE is needed")


class _TwistdService(MultiService):
    """
    C{generations}, and C{error_log} in the place of twistd's own log.

    @param beside: services that start before the gateways and stop after them.
    """

    def __init__(
        self,
        generations: Generations | Master,
        observer: ProcessLog,
        reactor: Any,
        surroundings: Surroundings,
        twistd: Twistd,
        beside: Sequence[IService] = (),
    ) -> None:
        super().__init__()
        for service in beside:
            service.setServiceParent(self)
        self._generations = generations
        self._settings = settings = generations.settings
        generations.setServiceParent(self)
        self._surroundings = surroundings
        self._twistd = twistd
        self._process = Process(surroundings, settings, generations, reactor)
        self._signals = Signals(self._process.operation, reactor)
        self._isBound = False
        self._log = Logger("mailgate")
        self._wasRoot = os.geteuid() == 0
        self._reactor = reactor
        self._observer = observer
        self._observing = False

    def setOpenFiles(self) -> None:
        """Set the limit of open files. As nginx, it starts all the same where the system refuses it."""
        limit = self._settings[ProcessSettings].openFiles
        if limit is None:
            raiseOpenFiles()
            return
        try:
            limitOpenFiles(limit)
        except OSError as error:
            reason = f"is refused by the system: {error}"
            problem = Problem(self._settings.file, reason, "mailgate", "worker_rlimit_nofile", str(limit))
            self._log.error("{problem}", problem=str(self._settings.lines.located(problem)))

    def setServiceParent(self, parent: Any) -> None:
        if isinstance(parent, Componentized):
            # twistd looks here for what to log with, before it makes a log file of its own.
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        try:
            self._bind()
        except ConfigurationError as error:
            self._cannotStart(error)

    def _bind(self) -> None:
        # `twist` starts services without ever calling privilegedStartService.
        if not self._isBound:
            # Whoever sees the ports open, or the file, may send one.
            self._signals.install()
            super().privilegedStartService()
            self._process.bound()
            self._isBound = True

    def startService(self) -> None:
        if not self._observer.called:
            # `twist` gives its service an application, too, but has a log of its own.
            self._observing = True
            globalLogPublisher.addObserver(self._observer)
        try:
            self._bind()
            self._shedPrivileges()
            super().startService()
        except ConfigurationError as error:
            self._cannotStart(error)
        self._twistd.started()
        # When it starts, the reactor installs handlers of its own.
        self._reactor.callWhenRunning(self._signals.install)
        self._reactor.callWhenRunning(tuneCollector)
        self._reactor.callWhenRunning(self._process.running)

    def _shedPrivileges(self) -> None:
        user = self._settings[ProcessSettings].user
        if self._wasRoot and os.geteuid() != 0:
            gainNothing()
        if user is None or not self._wasRoot:
            return
        if os.geteuid() != 0:
            self._log.warn("user {name} is ignored: twistd has become the user of its --uid", name=user.name)
            return
        if isinstance(self._generations, Master):
            # It reads keys and binds ports again: its workers become that user.
            return
        for warning in shedPrivileges(self._settings):
            self._log.warn("{reason}", reason=str(warning))
        unreadable = unreadableLater(self._settings)
        if unreadable:
            text = "a reload will be refused, as {user} may not read {files}"
            self._log.warn(text, user=user.name, files=", ".join(unreadable))

    def _cannotStart(self, error: ConfigurationError) -> NoReturn:
        error.locate(self._settings.lines)
        if not all(log.isStandardError for log in self._settings[LogSettings].errorLog):
            self._log.error("{reason}", reason=str(error))
        self._surroundings.fail(str(error), CANNOT_LISTEN)
        self._twistd.removePIDFile()
        _giveUp(error, CANNOT_LISTEN)

    def stopService(self) -> Deferred[Any]:
        stopped = maybeDeferred(super().stopService)
        stopped.addBoth(self._stopped)
        if self._observing:
            stopped.addBoth(self._stopObserving)
        return stopped

    def _stopped(self, result: Any) -> Any:
        self._signals.restore()
        if self._isBound:
            self._process.stopped()
        if self._generations.cut:
            endWith(CUT)
        return result

    def _stopObserving(self, result: Any) -> Any:
        globalLogPublisher.removeObserver(self._observer)
        return result


def _giveUp(error: Exception, status: int) -> NoReturn:
    # Not sys.stderr: once twistd logs, that is the log.
    print(error, file=sys.__stderr__, flush=True)
    raise SystemExit(status) from None


def _logRemarks(twistd: Twistd, settings: GatewaySettings) -> Iterator[Problem]:
    """What an operator may expect to be logged, and what is not logged there, or nowhere."""
    for option in twistd.ignored():
        reason = f"takes the place of twistd's {option}, which is ignored"
        yield Problem(settings.file, reason, "mailgate", "error_log")
    if not twistd.isBackground:
        return
    reason = "leads nowhere in the background: these lines are lost; the remedy is error_log = FILE"
    if needsStandardError(settings[LogSettings].errorLog) and not twistd.hasLogger:
        yield Problem(settings.file, reason, "mailgate", "error_log", "stderr")
    for server in settings.servers:
        if needsStandardError(server[ServerLogSettings].errorLog):
            yield server.problem("error_log", reason, "stderr")


def _equipped(settings: GatewaySettings) -> GatewaySettings:
    """C{settings}, with the demo's certificate for the servers that have none. Where it is not there it is made."""
    folder = stateFolder(os.environ)
    return withCertificate(settings, folder, lambda server: server[DialogueSettings].serverName)


def _load(filename: str) -> GatewaySettings:
    return _equipped(load(filename))


def _demos(settings: GatewaySettings, reactor: Any) -> Iterator[IService]:
    if settings.find(SandboxSettings) is not None:
        # What it builds upon is of no use to a gateway without it, and takes memory.
        from mailgate.sandbox.demo import Demo

        yield Demo(settings, reactor)


def makeService(options: Options) -> IService:
    """
    The gateway that C{options["config"]} describes; where twistd is to go into the background, it is there by then. A
    bad configuration is reported on standard error, and ends the process with L{BAD_CONFIGURATION}.
    """
    from twisted.internet import reactor

    logs = ErrorLogs()
    surroundings, settings = None, None
    try:
        surroundings = Surroundings.of(os.environ)
        text = read(options["config"])
        settings = _equipped(parse(text, options["config"]))
        logs.owner = settings[ProcessSettings].owner
        observer = ProcessLog(
            logs.observerFor(settings[LogSettings].errorLog, settings.file, "mailgate", settings.lines)
        )
        generations: Generations | Master
        if settings[WorkerSettings].count == 1:
            generations = Generations(settings, reactor, logs, observer, _load, surroundings.sockets)
        else:
            generations = Master(settings, text, reactor, logs, observer, surroundings.sockets)
    except ConfigurationError as error:
        if settings is not None:
            error.locate(settings.lines)
        if surroundings is not None:
            surroundings.fail(str(error), BAD_CONFIGURATION)
        _giveUp(error, BAD_CONFIGURATION)
    twistd = Twistd(options.parent)
    # One line each, though servers may have an option from [mail].
    for remark in dict.fromkeys(str(settings.lines.located(each)) for each in _logRemarks(twistd, settings)):
        print(remark, file=sys.__stderr__, flush=True)
    if twistd.isBackground:
        try:
            launch = twistd.detach(reactor)
            surroundings = evolve(surroundings, launch=launch)
            # Standard error, where the log would say so, leads nowhere by now.
            logs.onLoss = launch.remark
        except OSError as error:
            problem = Problem(settings.file, f"cannot go into the background: {error.strerror}")
            _giveUp(ConfigurationError([problem]), CANNOT_LISTEN)
    service = _TwistdService(generations, observer, reactor, surroundings, twistd, list(_demos(settings, reactor)))
    service.setOpenFiles()
    return service
