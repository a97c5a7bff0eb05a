# -*- test-case-name: mailgate.test.backend.test_health mailgate.test.backend.test_learning -*-
"""
Conversations with backends without a login: health checks, and questions what a backend offers.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime

from mailgate.backend.client import ProxyClient

__all__ = ["FAREWELL", "sayGoodbye", "within"]

FAREWELL = 2.0
"""Seconds for the goodbye and the close of a connection, after the gateway has got what it wanted."""

T = TypeVar("T")


async def within(clock: IReactorTime, seconds: float, client: ProxyClient, work: Awaitable[T]) -> T:
    """
    Return the result of a part of a conversation.

    @param clock: timers.
    @param seconds: how long the part may take. The conversation then fails with a time-out.
    @param client: the conversation.
    @param work: the part.
    @raise Exception: what C{work} raises.
    """
    deadline = clock.callLater(seconds, client.expired)
    try:
        return await work
    finally:
        if deadline.active():
            deadline.cancel()


async def sayGoodbye(clock: IReactorTime, client: ProxyClient) -> None:
    """
    End a conversation with the protocol's goodbye, and wait until the connection is closed, for L{FAREWELL} at most.

    @param clock: timers.
    @param client: the conversation.
    """
    await within(clock, FAREWELL, client, client.leave())
