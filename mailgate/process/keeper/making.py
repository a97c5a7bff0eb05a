# -*- test-case-name: mailgate.test.process.keeper.test_front -*-
"""
Makes a keeper by a configuration.
"""

from __future__ import annotations

from typing import Any

from mailgate.config import GatewaySettings
from mailgate.keeper.arrivals import isRunning
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.placing import ownPlacing
from mailgate.limits.interfaces import IDefence
from mailgate.process.keeper.sharing import Sharing
from mailgate.watch.gatewayname import NameSettings
from mailgate.watch.settings import AdminSettings

__all__ = ["keeperFor", "nameOf"]


def nameOf(settings: GatewaySettings) -> str:
    """
    Return the name of the gateway in answers to operators.

    @param settings: the configuration.
    """
    return settings[NameSettings].shown


def keeperFor(settings: GatewaySettings, reactor: Any, defence: IDefence, sharing: Sharing | None = None) -> Keeper:
    """
    Make a keeper.

    @param settings: the configuration.
    @param reactor: the time and timers.
    @param defence: the limits that it judges by.
    @param sharing: connects it with the other gateways; L{None} without C{store}.
    """
    keeper = Keeper(reactor, nameOf(settings), settings[AdminSettings].explainMemory, runs=isRunning)
    keeper.judgeBy(defence)
    keeper.placing = ownPlacing(reactor)
    if sharing is not None:
        sharing.join(keeper)
    return keeper
