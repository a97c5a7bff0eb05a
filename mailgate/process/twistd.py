# -*- test-case-name: mailgate.test.test_tap -*-
"""
The service that twistd runs: the whole life of the gateway's process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from twisted.python.components import Componentized

from mailgate.directives import ConfigurationError, Problem
from mailgate.log.errorlog import ProcessLog
from mailgate.log.settings import LogSettings
from mailgate.process.background import Twistd
from mailgate.process.generations import Generations
from mailgate.process.rights import shedPrivileges, tuneCollector, unreadableLater
from mailgate.process.signals import Signals
from mailgate.process.surroundings import Process, Surroundings
from mailgate.process.workers.master import Master
from mailgate.system.exitstatus import CANNOT_LISTEN, CUT, endWith
from mailgate.system.privileges import ProcessSettings, gainNothing, limitOpenFiles, raiseOpenFiles

__all__ = ["TwistdService", "giveUp"]


def giveUp(error: Exception, status: int) -> NoReturn:
    """
    Print an error on standard error, and exit.

    @param error: the error.
    @param status: the exit status.
    @raise SystemExit: always.
    """
    # Not sys.stderr, which twistd replaces with its log.
    print(error, file=sys.__stderr__, flush=True)
    raise SystemExit(status) from None


class TwistdService(MultiService):
    """
    The gateway in its process. It logs to C{error_log} instead of twistd's own log.

    @param generations: the gateway.
    @param observer: writes to C{error_log}.
    @param reactor: the reactor.
    @param surroundings: how the process was started.
    @param twistd: the options of twistd.
    @param beside: services that start before the gateway and stop after it.
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
        """Set the limit of open files. If the system refuses it, log that and go on, as nginx does."""
        limit = self._settings[ProcessSettings].openFiles
        if limit is None:
            raiseOpenFiles()
            return
        try:
            limitOpenFiles(limit)
        except OSError as error:
            reason = f"cannot be set: {error}"
            problem = Problem(self._settings.file, reason, "mailgate", "worker_rlimit_nofile", str(limit))
            self._log.error("{problem}", problem=str(self._settings.lines.located(problem)))

    def setServiceParent(self, parent: Any) -> None:
        if isinstance(parent, Componentized):
            # twistd takes its log observer from here, and then creates no log file.
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        try:
            self._bind()
        except ConfigurationError as error:
            self._cannotStart(error)

    def _bind(self) -> None:
        # `twist` never calls privilegedStartService.
        if not self._isBound:
            # Once the ports are open and the pid file exists, signals may arrive.
            self._signals.install()
            self._process.binding()
            super().privilegedStartService()
            self._process.bound()
            self._giveSockets()
            self._isBound = True

    def _giveSockets(self) -> None:
        owner, keeping = self._twistd.owner, self._generations.keeping
        if owner is not None and keeping is not None:
            # The workers change to this user, too, and connect to the keeper then.
            keeping.sockets.give(*owner)

    def startService(self) -> None:
        if not self._observer.called:
            # `twist` gives its service an application too, but does not log with its observer.
            self._observing = True
            globalLogPublisher.addObserver(self._observer)
        try:
            self._bind()
            self._shedPrivileges()
            super().startService()
        except ConfigurationError as error:
            self._cannotStart(error)
        self._twistd.started()
        # The reactor replaces the signal handlers when it starts.
        self._reactor.callWhenRunning(self._handleSignals)
        self._reactor.callWhenRunning(tuneCollector)
        self._reactor.callWhenRunning(self._process.running)

    def _handleSignals(self) -> None:
        # It may have stopped before the reactor runs.
        if self.running:
            self._signals.install()

    def _shedPrivileges(self) -> None:
        user = self._settings[ProcessSettings].user
        if self._wasRoot and os.geteuid() != 0:
            gainNothing()
        if user is None or not self._wasRoot:
            return
        if os.geteuid() != 0:
            self._log.warn("user {name} has no effect: twistd switched to the user of --uid", name=user.name)
            return
        if isinstance(self._generations, Master):
            # The master stays root to read keys and bind ports; its workers become that user.
            return
        for warning in shedPrivileges(self._settings):
            self._log.warn("{reason}", reason=str(warning))
        unreadable = unreadableLater(self._settings)
        if unreadable:
            text = "{account} cannot read {files}: reloads will be refused"
            self._log.warn(text, account=user.name, files=", ".join(unreadable))

    def _cannotStart(self, error: ConfigurationError) -> NoReturn:
        error.locate(self._settings.lines)
        if not all(log.isStandardError for log in self._settings[LogSettings].errorLog):
            self._log.error("{reason}", reason=str(error))
        self._surroundings.fail(str(error), CANNOT_LISTEN)
        self._process.failed()
        self._twistd.removePIDFile()
        giveUp(error, CANNOT_LISTEN)

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
