# -*- test-case-name: mailgate.test.sandbox.test_demo -*-
"""
The demo: runs the servers of C{[sandbox]} in the process of the gateway, and prints a welcome when the gateway serves.
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
    The sandbox of a configuration. Its mailboxes exist as long as this service runs; reloads do not touch them.

    @param settings: the configuration, with C{[sandbox]} and with the certificates that the servers use.
    @param reactor: the reactor of the servers.
    """

    def __init__(self, settings: GatewaySettings, reactor: Any) -> None:
        super().__init__()
        self._settings = settings
        self._reactor = reactor
        self.addService(SandboxService(settings[SandboxSettings], reactor))

    def privilegedStartService(self) -> None:
        """
        Bind the addresses of the sandbox.

        @raise ConfigurationError: an address cannot be bound.
        """
        try:
            super().privilegedStartService()
        except CannotListenError as error:
            raise ConfigurationError([self._problem(error)]) from None

    def startService(self) -> None:
        """
        Start to serve. Print the welcome when the reactor runs.

        @raise ConfigurationError: an address of the sandbox cannot be bound.
        """
        try:
            super().startService()
        except CannotListenError as error:
            raise ConfigurationError([self._problem(error)]) from None
        # Before the reactor runs, no client is served, and a Control-C is lost.
        self._reactor.callWhenRunning(self._welcome)

    def _problem(self, error: CannotListenError) -> Problem:
        """The problem for the address of C{[sandbox]} that cannot be bound."""
        named = self._settings[SandboxSettings]
        names = ("imap", "pop3", "smtp", "sieve")
        options = {**{name: getattr(named, name) for name in names}, "auth_http": named.authHttp}
        wanted = (error.interface, error.port)
        option = next((name for name, each in options.items() if (each.host, each.port) == wanted), "")
        reason = f"cannot be bound: {getattr(error.socketError, 'strerror', None) or error.socketError}"
        problem = Problem(self._settings.file, reason, "sandbox", option, f"{wanted[0]}:{wanted[1]}")
        return self._settings.lines.located(problem)

    def _welcome(self) -> None:
        settings = self._settings
        tls = (server[TLSSettings].certificates for server in settings.servers if usesTLS(server))
        certificate = next((certificates[0] for certificates in tls), None)
        # twistd has replaced sys.stdout by its log.
        text = welcome(settings.servers, settings[SandboxSettings], certificate)
        print(text, file=sys.__stdout__, flush=True)
