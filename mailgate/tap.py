# -*- test-case-name: mailgate.test.test_tap -*-
"""
C{twistd mailgate --config gateway.ini}: the options and the service of the plugin.
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
from mailgate.process.keeper.sockets import KeeperSockets
from mailgate.process.surroundings import Surroundings
from mailgate.process.twistd import TwistdService, giveUp
from mailgate.process.workers.master import Master
from mailgate.sandbox.certificate import stateFolder, withCertificate
from mailgate.sandbox.settings import SandboxSettings
from mailgate.store.settings import StoreSettings
from mailgate.system.exitstatus import BAD_CONFIGURATION, CANNOT_LISTEN
from mailgate.system.pidfile import PIDSettings
from mailgate.system.privileges import ProcessSettings
from mailgate.system.processors import WorkerSettings
from mailgate.watch.settings import AdminSettings

__all__ = ["Options", "makeService"]


class Options(usage.Options):
    """The options of C{twistd mailgate}."""

    synopsis = "[options]"
    longdesc = (
        "Start the mail gateway for IMAP4, POP3, SMTP and ManageSieve. Check the configuration first: mailgate check"
        " --config FILE"
    )
    # usage.Options does not coerce defaults: None means that the option is missing.
    optParameters = [
        ["config", "c", None, "The configuration, such as /etc/mailgate/gateway.ini (required).", os.path.abspath]
    ]

    def parseArgs(self, *words: str) -> None:
        """
        Refuse words without an option, among them the name of the file if C{--config} is forgotten.

        @param words: they.
        @raise usage.UsageError: there is one.
        """
        if words:
            raise usage.UsageError(f"{words[0]} stands without an option; name the configuration by --config FILE")

    def postOptions(self) -> None:
        if self["config"] is None:
            raise usage.UsageError("--config FILE is required")


def _logRemarks(twistd: Twistd, settings: GatewaySettings) -> Iterator[Problem]:
    """Yield a remark for each way of logging that an operator may expect and does not get."""
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
    """
    Return C{settings} with the demo's certificate for servers that have none; create the certificate if it is missing.
    """
    folder = stateFolder(os.environ)
    return withCertificate(settings, folder, lambda server: server[DialogueSettings].serverName)


def _load(filename: str) -> GatewaySettings:
    return _equipped(load(filename))


def _demos(settings: GatewaySettings, reactor: Any) -> Iterator[IService]:
    if settings.find(SandboxSettings) is not None:
        # Imported here because it takes memory that a gateway without [sandbox] can save.
        from mailgate.sandbox.demo import Demo

        yield Demo(settings, reactor)


def _keeperSockets(settings: GatewaySettings, surroundings: Surroundings) -> KeeperSockets | None:
    """Return the sockets of the keeper, which are not open yet; L{None} if the gateway has no keeper."""
    isShared = settings[StoreSettings].address is not None
    if not (isShared or settings[AdminSettings].isWatched(settings[PIDSettings])):
        return None
    inherited = surroundings.inheritance
    return KeeperSockets(settings) if inherited is None else KeeperSockets(settings, inherited.keeper, inherited.memory)


def makeService(options: Options) -> IService:
    """
    Create the gateway. Goes into the background first, unless twistd runs with C{--nodaemon}. A bad configuration is
    reported on standard error and ends the process with status L{BAD_CONFIGURATION}.

    @param options: the parsed command line; C{options["config"]} is the path of the configuration.
    @return: the service that twistd starts.
    """
    from twisted.internet import reactor

    logs = ErrorLogs()
    surroundings, settings = None, None
    try:
        surroundings = Surroundings.of(os.environ)
        text = read(options["config"])
        settings = _equipped(parse(text, options["config"]))
        logs.owner = settings[ProcessSettings].owner
        own = settings[LogSettings]
        observer = ProcessLog(logs.observerFor(own.errorLog, settings.file, "mailgate", settings.lines, own.privacy))
        keeper = _keeperSockets(settings, surroundings)
        generations: Generations | Master
        if settings[WorkerSettings].count == 1:
            generations = Generations(settings, reactor, logs, observer, _load, surroundings.sockets, keeper)
        else:
            generations = Master(settings, text, reactor, logs, observer, surroundings.sockets, keeper)
    except ConfigurationError as error:
        if settings is not None:
            error.locate(settings.lines)
        if surroundings is not None:
            surroundings.fail(str(error), BAD_CONFIGURATION)
        giveUp(error, BAD_CONFIGURATION)
    twistd = Twistd(options.parent)
    # Servers that inherit an option from [mail] would repeat the remark.
    for remark in dict.fromkeys(str(settings.lines.located(each)) for each in _logRemarks(twistd, settings)):
        print(remark, file=sys.__stderr__, flush=True)
    if twistd.isBackground:
        try:
            launch = twistd.detach(reactor)
            surroundings = evolve(surroundings, launch=launch)
            # Standard error is /dev/null now; the launch still reaches the operator.
            logs.onLoss = launch.remark
        except OSError as error:
            problem = Problem(settings.file, f"cannot go into the background: {error.strerror}")
            giveUp(ConfigurationError([problem]), CANNOT_LISTEN)
    service = TwistdService(generations, observer, reactor, surroundings, twistd, list(_demos(settings, reactor)))
    service.setOpenFiles()
    return service
