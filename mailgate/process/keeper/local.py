# -*- test-case-name: mailgate.test.process.keeper.test_local -*-
"""
The keeper of a gateway without workers, in the process that serves the clients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger

from mailgate.config import GatewaySettings
from mailgate.keeper.link import KeeperLink
from mailgate.keeper.places import ProcessPlaces
from mailgate.keeper.service import KeeperService
from mailgate.keeper.view import ProcessView
from mailgate.limits.interfaces import IDefence
from mailgate.process.keeper.front import Front
from mailgate.process.keeper.linking import linkTo
from mailgate.process.keeper.making import keeperFor
from mailgate.process.keeper.sharing import Sharing
from mailgate.process.keeper.sockets import KeeperSockets

__all__ = ["LocalKeeping"]


class _Operator:
    """An L{IOperator<mailgate.keeper.keeper.IOperator>}."""

    def __init__(self, order: Callable[[str, Any], Deferred[Any]]) -> None:
        self.order = order


class LocalKeeping:
    """
    The keeper, and this process as its member. After an upgrade this process is a member of the new process's keeper.

    @param reactor: the reactor.
    @param settings: the configuration.
    @param sockets: the keeper's sockets.
    @param view: this process.
    @param defence: the limits of this process.
    @param sharing: connects the keeper with other gateways; L{None} without C{store}.
    @param places: asks the keeper for the places of users; L{None} if nothing here does.
    @ivar sockets: as the argument.
    """

    _log = Logger("mailgate")

    def __init__(
        self,
        reactor: Any,
        settings: GatewaySettings,
        sockets: KeeperSockets,
        view: ProcessView,
        defence: IDefence,
        sharing: Sharing | None = None,
        places: ProcessPlaces | None = None,
    ) -> None:
        self._places = places
        self.sockets = sockets
        self._defence = defence
        self._sharing = sharing
        self._reactor = reactor
        self._settings = settings
        self._view = view
        self._front: Front | None = None
        self._service: KeeperService | None = None
        self._link: KeeperLink | None = None
        self._operator: _Operator | None = None
        self._isRetiring = False

    def start(self) -> None:
        """Make the keeper. This reads keys as the current user of this process."""
        keeper = keeperFor(self._settings, self._reactor, self._defence, self._sharing)
        try:
            self._front = Front(keeper, self._settings, self.sockets.opened(), self._reactor, self._sharing)
        except (ValueError, OSError) as error:
            text = "the keeper did not start: {reason}; the gateway serves without it"
            self._log.error(text, reason="; ".join(str(error).splitlines()))
            return
        self._service = KeeperService(self._view, self._reactor, keeper=keeper, places=self._places)

    def obey(self, order: Callable[[str, Any], Deferred[Any]]) -> None:
        """
        See L{IKeeping.obey<mailgate.process.keeper.interfaces.IKeeping.obey>}.

        @param order: carries out the orders of operators.
        """
        self._operator = _Operator(order)

    def serve(self, hasPredecessor: bool) -> None:
        """
        See L{IKeeping.serve<mailgate.process.keeper.interfaces.IKeeping.serve>}.

        @param hasPredecessor: whether the keeper of the old process of an upgrade hands over its state.
        """
        if self._service is not None and self._front is not None:
            self._front.keeper.operator = self._operator
            self._service.startService()
            self._front.serve(hasPredecessor)

    @property
    def knowsMost(self) -> bool:
        """Whether no keeper of another process knows more, before and after an upgrade."""
        return self._front is None or self._front.keeper.knowsMost

    def reload(self, settings: GatewaySettings) -> None:
        """
        The gateway has a new configuration.

        @param settings: the configuration.
        """
        if self._front is None:
            return
        try:
            self._front.configure(settings)
        except (ValueError, OSError) as error:
            text = "the admin server continues with the previous configuration: {reason}"
            self._log.error(text, reason="; ".join(str(error).splitlines()))

    def happened(self, name: str, *labels: str, reasons: Sequence[str] = ()) -> None:
        """
        See L{IKeeping.happened<mailgate.process.keeper.interfaces.IKeeping.happened>}.

        @param name: the name of the metric.
        @param labels: the values of its labels.
        @param reasons: why it has happened.
        """
        if self._front is not None:
            self._front.keeper.happened(name, labels, reasons)

    def retire(self) -> None:
        """The gateway accepts no new clients."""
        self._isRetiring = True
        if self._service is not None:
            self._service.retire()
        if self._link is not None:
            self._link.retire()

    def handOver(self) -> Deferred[None]:
        """See L{IKeeping.handOver<mailgate.process.keeper.interfaces.IKeeping.handOver>}."""
        service, self._service = self._service, None
        if service is None or self._front is None or not service.running:
            return succeed(None)
        link = self._link = linkTo(self.sockets.path, self._view, self._reactor, places=self._places)
        assert link is not None
        link.isRetiring = self._isRetiring
        # Its last report is part of the state.
        service.stopService()
        handed = self._front.handOver(self._view.member)
        link.startService()
        return handed.addCallback(self._handedOver)

    def _handedOver(self, _: object) -> Deferred[None]:
        front, self._front = self._front, None
        return succeed(None) if front is None else maybeDeferred(front.stopService)

    def stop(self) -> Deferred[Any]:
        """Stop the keeper, or the link to that of the new process."""
        if self._link is not None and self._link.running:
            return self._link.stopService()
        front, self._front = self._front, None
        if self._service is not None and self._service.running:
            self._service.stopService()
        return succeed(None) if front is None or not front.running else maybeDeferred(front.stopService)
