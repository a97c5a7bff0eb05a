# -*- test-case-name: mailgate.test.test_tap -*-
"""
C{twistd mailgate --config gateway.ini}: the plugin's options and service.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from attrs import evolve
from twisted.application.service import IService
from twisted.internet.error import CannotListenError
from twisted.python import usage

from mailgate.config import GatewaySettings, parse, read
from mailgate.directives import ConfigurationError, Problem
from mailgate.log.errorlog import ErrorLogs, ProcessLog
from mailgate.log.settings import LogSettings, ServerLogSettings, needsStandardError
from mailgate.net.sockets import ListenError
from mailgate.process.background import Twistd
from mailgate.process.generations import Generations
from mailgate.process.surroundings import Surroundings
from mailgate.process.twistd import TwistdService, giveUp
from mailgate.process.workers.master import Master
from mailgate.sandbox.settings import SandboxSettings
from mailgate.sandbox.welcome import welcome
from mailgate.system.exitstatus import BAD_CONFIGURATION, CANNOT_LISTEN
from mailgate.system.privileges import ProcessSettings
from mailgate.system.processors import WorkerSettings
from mailgate.tls.settings import TLSSettings, usesTLS

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


class _Demo:
    """The servers of [sandbox], as the process around them needs to know them."""

    def __init__(self, settings: GatewaySettings, sandbox: SandboxSettings) -> None:
        self._settings = settings
        self._sandbox = sandbox

    def welcome(self) -> None:
        """Print how to try the gateway out."""
        tls = (server[TLSSettings].certificates for server in self._settings.servers if usesTLS(server))
        certificate = next((certificates[0] for certificates in tls), None)
        # twistd has put its log in the place of sys.stdout.
        print(welcome(self._settings.servers, self._sandbox, certificate), file=sys.__stdout__, flush=True)

    def problem(self, error: CannotListenError) -> ListenError:
        """Which address of [sandbox] cannot be had; all others are told of by L{ListenError} itself."""
        named = self._sandbox
        options = {"imap": named.imap, "pop3": named.pop3, "smtp": named.smtp, "auth_http": named.authHttp}
        wanted = (error.interface, error.port)
        option = next((name for name, each in options.items() if (each.host, each.port) == wanted), "")
        reason = f"cannot be bound: {getattr(error.socketError, 'strerror', None) or error.socketError}"
        return ListenError([Problem(self._settings.file, reason, "sandbox", option, f"{wanted[0]}:{wanted[1]}")])


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
        settings = parse(text, options["config"])
        logs.owner = settings[ProcessSettings].owner
        observer = ProcessLog(
            logs.observerFor(settings[LogSettings].errorLog, settings.file, "mailgate", settings.lines)
        )
        generations: Generations | Master
        if settings[WorkerSettings].count == 1:
            generations = Generations(settings, reactor, logs, observer, sockets=surroundings.sockets)
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
    demo = None if settings.sandbox is None else _Demo(settings, settings.sandbox)
    service = TwistdService(generations, observer, reactor, surroundings, twistd, demo)
    service.setOpenFiles()
    return service
