# -*- test-case-name: mailgate.test.sandbox.test_demo -*-
"""
C{[sandbox]} in the process of the gateway before it: the sandbox's servers, and what is printed once all are up.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.error import CannotListenError

from mailgate.directives import ConfigurationError, GatewaySettings, Problem
from mailgate.sandbox.service import SandboxService
from mailgate.sandbox.settings import SandboxSettings
from mailgate.sandbox.welcome import welcome
from mailgate.tls.settings import TLSSettings, usesTLS

__all__ = ["Demo"]


class Demo(MultiService):
    """
    The sandbox of C{settings}, which have one. Its mailboxes are kept for as long as this service runs, whichever
    gateways come and go before it.

    @param settings: with the certificates that the servers show.
    """

    def __init__(self, settings: GatewaySettings, reactor: Any) -> None:
        super().__init__()
        self._settings = settings
        self._reactor = reactor
        self.addService(SandboxService(settings[SandboxSettings], reactor))

    def privilegedStartService(self) -> None:
        """
        Bind.

        @raise ConfigurationError: one of the sandbox's addresses cannot be had.
        """
        try:
            super().privilegedStartService()
        except CannotListenError as error:
            raise ConfigurationError([self._problem(error)]) from None

    def startService(self) -> None:
        """
        Serve, and print what to try once the reactor runs.

        @raise ConfigurationError: one of the sandbox's addresses cannot be had.
        """
        try:
            super().startService()
        except CannotListenError as error:
            raise ConfigurationError([self._problem(error)]) from None
        # Before the reactor runs nobody is served yet, and a Control-C is lost.
        self._reactor.callWhenRunning(self._welcome)

    def _problem(self, error: CannotListenError) -> Problem:
        """Which address of C{[sandbox]} cannot be had."""
        named = self._settings[SandboxSettings]
        options = {"imap": named.imap, "pop3": named.pop3, "smtp": named.smtp, "auth_http": named.authHttp}
        wanted = (error.interface, error.port)
        option = next((name for name, each in options.items() if (each.host, each.port) == wanted), "")
        reason = f"cannot be bound: {getattr(error.socketError, 'strerror', None) or error.socketError}"
        problem = Problem(self._settings.file, reason, "sandbox", option, f"{wanted[0]}:{wanted[1]}")
        return self._settings.lines.located(problem)

    def _welcome(self) -> None:
        settings = self._settings
        tls = (server[TLSSettings].certificates for server in settings.servers if usesTLS(server))
        certificate = next((certificates[0] for certificates in tls), None)
        # twistd has put its log in the place of sys.stdout.
        text = welcome(settings.servers, settings[SandboxSettings], certificate)
        print(text, file=sys.__stdout__, flush=True)
