# -*- test-case-name: mailgate.test.test_tap -*-
"""
C{twistd mailgate --config gateway.ini}: the plugin's options and service.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from attrs import evolve
from twisted.application.service import IService
from twisted.python import usage

from mailgate.config import GatewaySettings, load, parse, read
from mailgate.directives import ConfigurationError, Problem
from mailgate.frontend.settings import DialogueSettings
from mailgate.log.errorlog import ErrorLogs, ProcessLog
from mailgate.log.settings import LogSettings, ServerLogSettings, needsStandardError
from mailgate.process.background import Twistd
from mailgate.process.generations import Generations
from mailgate.process.surroundings import Surroundings
from mailgate.process.twistd import TwistdService, giveUp
from mailgate.process.workers.master import Master
from mailgate.sandbox.certificate import stateFolder, withCertificate
from mailgate.sandbox.settings import SandboxSettings
from mailgate.system.exitstatus import BAD_CONFIGURATION, CANNOT_LISTEN
from mailgate.system.privileges import ProcessSettings
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
            raise usage.UsageError("--config FILE is required")


def _logRemarks(twistd: Twistd, settings: GatewaySettings) -> Iterator[Problem]:
    """What an operator may expect to be logged, and what is not logged there, or nowhere."""
    for option in twistd.ignored():
        reason = f"replaces twistd's {option}, which has no effect"
        yield Problem(settings.file, reason, "mailgate", "error_log")
    if not twistd.isBackground:
        return
    reason = "is /dev/null in the background: these log lines are lost; set error_log = FILE"
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
        giveUp(error, BAD_CONFIGURATION)
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
            giveUp(ConfigurationError([problem]), CANNOT_LISTEN)
    service = TwistdService(generations, observer, reactor, surroundings, twistd, list(_demos(settings, reactor)))
    service.setOpenFiles()
    return service
