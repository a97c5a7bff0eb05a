# -*- test-case-name: mailgate.test.test_tap -*-
"""
The service that twistd runs: the generations in their process, from the first port to the last log line.
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
    """Say C{error} to whoever has started the process, and end it with C{status}."""
    # Not sys.stderr: once twistd logs, that is the log.
    print(error, file=sys.__stderr__, flush=True)
    raise SystemExit(status) from None


class TwistdService(MultiService):
    """
    C{generations}, and C{error_log}, which is C{observer}, in the place of twistd's own log.

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
            reason = f"cannot be set: {error}"
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
            self._log.warn("user {name} has no effect: twistd switched to the user of --uid", name=user.name)
            return
        if isinstance(self._generations, Master):
            # It reads keys and binds ports again: its workers become that user.
            return
        for warning in shedPrivileges(self._settings):
            self._log.warn("{reason}", reason=str(warning))
        unreadable = unreadableLater(self._settings)
        if unreadable:
            text = "{user} cannot read {files}: reloads will be refused"
            self._log.warn(text, user=user.name, files=", ".join(unreadable))

    def _cannotStart(self, error: ConfigurationError) -> NoReturn:
        error.locate(self._settings.lines)
        if not all(log.isStandardError for log in self._settings[LogSettings].errorLog):
            self._log.error("{reason}", reason=str(error))
        self._surroundings.fail(str(error), CANNOT_LISTEN)
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
