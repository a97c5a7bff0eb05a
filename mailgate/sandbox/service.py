# -*- test-case-name: mailgate.test.sandbox.test_service -*-
"""
The servers of C{[sandbox]}: mail servers and an authentication service for the demo, all on loopback addresses.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import Cooperator
from twisted.mail.imap4 import PLAINCredentials
from twisted.mail.smtp import LOGINCredentials
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from mailgate.directives import ListenAddress
from mailgate.sandbox.account import Accounts
from mailgate.sandbox.authhttp import authSite
from mailgate.sandbox.imap4 import SandboxIMAP4
from mailgate.sandbox.login import sandboxPortal
from mailgate.sandbox.managesieve import SandboxManageSieve
from mailgate.sandbox.pop3 import SandboxPOP3
from mailgate.sandbox.settings import SandboxSettings
from mailgate.sandbox.smtp import Delivery, SandboxESMTP

__all__ = ["SandboxService"]

_MOST_CONNECTIONS = 1000


class _Connection(ProtocolWrapper):
    """A connection with TCP_NODELAY: Twisted's servers write a message and the line before it separately."""

    def connectionMade(self) -> None:
        # The client may have disconnected already.
        with suppress(OSError):
            self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]
        super().connectionMade()


class _Connections(WrappingFactory):
    """The connections of a server: limits their number, and ends them with the service."""

    noisy = False
    protocol = _Connection

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if len(self.protocols) >= _MOST_CONNECTIONS:
            return None
        return super().buildProtocol(addr)

    def abort(self) -> None:
        """End all connections."""
        for connection in list(self.protocols):
            connection.transport.abortConnection()


class _ServerFactory(ServerFactory):
    """Builds each protocol with C{build}."""

    noisy = False

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> Any:
        protocol = self._build()
        protocol.factory = self
        return protocol


class SandboxService(MultiService):
    """
    The servers of a sandbox. Their accounts exist as long as this object.

    When L{privilegedStartService} returns, the addresses are bound. Without that call L{startService} binds them.

    @param reactor: the reactor of the servers.
    @ivar settings: the settings of the sandbox.
    @ivar accounts: the accounts.
    """

    def __init__(self, settings: SandboxSettings, reactor: Any) -> None:
        super().__init__()
        self.settings = settings
        self.accounts = Accounts(settings, reactor.seconds)
        self._portal = sandboxPortal(self.accounts)
        self._reactor = reactor
        self._cooperator = Cooperator(scheduler=lambda step: reactor.callLater(0, step), started=False)
        self._ports: dict[str, IListeningPort] = {}
        self._factories: dict[str, _Connections] = {}

    def address(self, name: str) -> ListenAddress:
        """
        The address at which a server listens, with its real port.

        @param name: C{imap}, C{pop3}, C{smtp}, C{sieve} or C{auth_http}.
        @raise KeyError: the server does not listen.
        """
        bound: Any = self._ports[name].getHost()
        return ListenAddress(bound.host, bound.port)

    def privilegedStartService(self) -> None:
        """
        Bind the addresses of the sandbox's servers.

        @raise twisted.internet.error.CannotListenError: an address cannot be bound. The others are closed again.
        """
        self._bind()
        super().privilegedStartService()

    def startService(self) -> None:
        """Bind the addresses, unless L{privilegedStartService} has bound them, and start to serve."""
        self._bind()
        self._cooperator.start()
        super().startService()

    def stopService(self) -> Deferred[Any]:
        """Close the ports and end the connections; the Deferred fires when the ports can be bound again."""
        ports, self._ports = self._ports, {}
        closed = [port.stopListening() for port in ports.values()]
        for factory in self._factories.values():
            factory.abort()
        self._factories = {}
        self._cooperator.stop()
        stopped = [deferred for deferred in (*closed, super().stopService()) if deferred is not None]
        return gatherResults(stopped)

    def _bind(self) -> None:
        if self._ports:
            return
        settings, reactor = self.settings, self._reactor
        wanted: tuple[tuple[str, ListenAddress, Any], ...] = (
            ("imap", settings.imap, _ServerFactory(self._imap4)),
            ("pop3", settings.pop3, _ServerFactory(self._pop3)),
            ("smtp", settings.smtp, _ServerFactory(self._smtp)),
            ("sieve", settings.sieve, _ServerFactory(self._sieve)),
            ("auth_http", settings.authHttp, authSite(self.accounts, self.address, reactor)),
        )
        try:
            for name, address, server in wanted:
                self._factories[name] = _Connections(server)
                self._ports[name] = reactor.listenTCP(address.port, self._factories[name], interface=address.host)
        except Exception:
            for port in self._ports.values():
                port.stopListening()
            self._ports = {}
            self._factories = {}
            raise

    def _imap4(self) -> Any:
        return self._equip(SandboxIMAP4(scheduler=self._cooperator.coiterate))

    def _pop3(self) -> Any:
        protocol: Any = SandboxPOP3()
        protocol.schedule = self._cooperator.coiterate
        return self._equip(protocol)

    def _smtp(self) -> Any:
        protocol = SandboxESMTP({b"PLAIN": PLAINCredentials, b"LOGIN": LOGINCredentials})
        protocol.delivery = Delivery(self.accounts)
        protocol.host = self.accounts.domain
        return self._equip(protocol)

    def _sieve(self) -> Any:
        return self._equip(SandboxManageSieve())

    def _equip(self, protocol: Any) -> Any:
        protocol.portal = self._portal
        protocol.callLater = self._reactor.callLater  # otherwise timeouts use the global reactor
        return protocol
