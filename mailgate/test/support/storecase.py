"""
Connections to real servers, as keepers have them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import sha1
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mailgate.store.address import storeAddress
from mailgate.store.interfaces import StoreUnavailable
from mailgate.store.redis import breaker, subscription
from mailgate.store.redis.connection import RedisConnection
from mailgate.store.settings import StoreAccess, StoreSettings
from mailgate.test.integration.programs import require
from mailgate.test.integration.redisserver import RedisServer, program

__all__ = ["ADD", "Source", "StoreCase"]

PAUSE = 0.1
"""Seconds for which a store is left alone at first, in these tests."""

TIMEOUT = 0.25
"""C{store_timeout} in these tests, which share the machine with others."""

BOUND = 2.0
"""Calls that take longer have waited for more than C{store_timeout}, however slow the machine is."""


@frozen
class Source:
    """A script."""

    source: str
    sha: str


_TEXT = "local n = redis.call('INCRBY', KEYS[1], ARGV[1]) redis.call('PEXPIRE', KEYS[1], 60000) return n"
ADD = Source(_TEXT, sha1(_TEXT.encode(), usedforsecurity=False).hexdigest())
"""Adds to a counter."""


class StoreCase(TestCase):
    """Tests with servers of their own."""

    def setUp(self) -> None:
        if program() is None:
            require("redis-server")
        self.patch(breaker, "FIRST_PAUSE", PAUSE)
        self.patch(subscription, "ASKED", 0.2)

    @property
    def reactor(self) -> Any:
        from twisted.internet import reactor

        return reactor

    def server(self, *options: str, **changes: Any) -> RedisServer:
        """Start a server."""
        server = RedisServer(*options, **changes)
        self.addCleanup(server.stop)
        return server

    def connection(
        self, url: str, access: StoreAccess | None = None, starts: bool = True, **changes: Any
    ) -> RedisConnection:
        """Make a connection. It counts in C{resumptions} and keeps in C{messages} what it is told."""
        settings = evolve(StoreSettings(storeAddress(url, "/"), timeout=TIMEOUT), **changes)
        made = RedisConnection(settings, access or StoreAccess(b"secret" * 4), self.reactor, [ADD], ["events"])
        self.addCleanup(made.stop)
        self.changes: list[bool] = []
        self.resumptions: list[float] = []
        self.messages: list[tuple[str, bytes]] = []
        made.changed = self.changes.append
        made.resumed = lambda: self.resumptions.append(time.monotonic())
        made.heard = lambda channel, message: self.messages.append((channel, message))
        if starts:
            made.start()
        return made

    async def connected(self, url: str, access: StoreAccess | None = None, **changes: Any) -> RedisConnection:
        """Make a connection, and wait until it is used and hears messages."""
        made = self.connection(url, access, **changes)
        await self.until(lambda: made.isUp and self.resumptions, "the store is used")
        # On a slow machine the first attempts may have been too late.
        self.changes[:] = [True]
        return made

    async def until(self, isTrue: Callable[[], object], what: str, within: float = 20.0) -> None:
        """
        Wait.

        @raise AssertionError: it takes longer.
        """
        end = time.monotonic() + within
        while not isTrue():
            if time.monotonic() > end:
                raise AssertionError(f"not within {within} s: {what}")
            await deferLater(self.reactor, 0.01)

    async def refused(self, call: Deferred[Any]) -> str:
        """Wait for a call, which must fail in time. Return why."""
        began = time.monotonic()
        try:
            answer = await call
        except StoreUnavailable as error:
            self.assertLess(time.monotonic() - began, BOUND)
            return str(error)
        raise AssertionError(f"the store has answered {answer!r}")

    def refusedAtOnce(self, call: Deferred[Any]) -> str:
        """Return why a call has failed, which must have happened already."""
        return str(self.failureResultOf(call, StoreUnavailable).value)

    async def untilLeftAlone(self, store: RedisConnection) -> None:
        """Call until the store is left alone. Each call must fail in time."""
        while store.isUp:
            await self.refused(store.script(ADD, [b"mg:1:n"], [1]))
            await deferLater(self.reactor, 0.01)
        self.assertIn(store.reason, self.refusedAtOnce(store.call("PING")))

    async def untilBack(self, store: RedisConnection) -> None:
        """Wait until the store is used again. It must work then."""
        await self.until(lambda: store.isUp, "the store is used again")
        self.assertIsInstance(await store.script(ADD, [b"mg:1:n"], [1]), int)
