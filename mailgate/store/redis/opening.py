# -*- test-case-name: mailgate.test.store.test_faults -*-
"""
Makes connections to the store that can be used: over TLS where that is wanted, as the right user, with the right
database, and with Sentinel to the master.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.protocol import Factory

from mailgate.net.connectionerrors import inWords
from mailgate.net.endpoints import endpointFor
from mailgate.store.address import StoreAddress
from mailgate.store.interfaces import StoreUnavailable
from mailgate.store.redis.answers import Runnable, errorWords
from mailgate.store.settings import StoreAccess
from mailgate.tls.backend import backendTLS

__all__ = ["PATIENCE", "PROBE", "Opening"]

PATIENCE = 1.0
"""Seconds for a connection attempt, and for each step after it."""

_ALL = 4.0
"""Seconds for all of it together, the resolution of the name included."""

PROBE = b"mg:1:probe"
"""The key of a trial. It is written: a store that can only be read is of no use."""

_OPTION = "store_ssl_trusted_certificate"


class _Once(Factory):
    """Makes one connection."""

    noisy = False

    def __init__(self, link: Any) -> None:
        self._link = link

    def buildProtocol(self, addr: Any) -> Any:
        return self._link


class Opening:
    """
    Makes connections.

    @param address: where the store is.
    @param access: the password and the trusted authorities.
    @param reactor: the reactor.
    """

    def __init__(self, address: StoreAddress, access: StoreAccess, reactor: Any) -> None:
        self._address = address
        self._access = access
        self._reactor = reactor
        self._sentinels = list(address.hosts) if address.name else []

    def usable(self, timeout: float, scripts: Sequence[Runnable]) -> Deferred[Any]:
        """
        Connect, load scripts, and try the store.

        @param timeout: within how many seconds the trial must be answered.
        @param scripts: what to load.
        @return: fires with a L{Link<mailgate.store.redis.link.Link>}; fails with L{StoreUnavailable}.
        """

        async def work(link: Any) -> None:
            for script in scripts:
                await link.send((b"SCRIPT", b"LOAD", script.source))
            link.within(timeout)
            await link.send((b"SET", PROBE, b"1", b"PX", b"1000"))

        return self._bounded(work)

    def plain(self) -> Deferred[Any]:
        """
        Connect.

        @return: as L{usable}.
        """

        async def work(link: Any) -> None:
            await link.send((b"PING",))

        return self._bounded(work)

    def _bounded(self, work: Callable[[Any], Any]) -> Deferred[Any]:
        opened: Deferred[Any] = Deferred.fromCoroutine(self._open(work))
        return opened.addTimeout(_ALL, self._reactor, onTimeoutCancel=self._late)

    @staticmethod
    def _late(result: Any, seconds: float) -> Any:
        raise StoreUnavailable(f"has not been reached within {seconds:g} s")

    async def _open(self, work: Callable[[Any], Any]) -> Any:
        from mailgate.store.redis.link import Link, ReplyError

        host, port = await self._place()
        link = Link(self._reactor, PATIENCE)
        try:
            await self._connect(link, host, port)
            await self._enter(link)
            await work(link)
        except ReplyError as error:
            link.close()
            raise StoreUnavailable(errorWords(str(error))) from None
        except BaseException:
            link.close()
            raise
        return link

    async def _connect(self, link: Any, host: str, port: int) -> None:
        endpoint = endpointFor(self._reactor, host, port, PATIENCE)
        if self._address.ssl:
            endpoint = wrapClientTLS(backendTLS(host, True, self._access.trust, _OPTION), endpoint)
        try:
            await endpoint.connect(_Once(link))
        except (CancelledError, ConnectingCancelledError):
            raise
        except Exception as error:
            raise StoreUnavailable(inWords(error) or f"cannot be reached: {error}") from None

    async def _enter(self, link: Any) -> None:
        address = self._address
        if self._access.password:
            await self._authenticate(link)
        elif address.user:
            await link.send((b"AUTH", address.user, b""))
        if address.database:
            await link.send((b"SELECT", address.database))
        if address.name:
            role = await link.send((b"ROLE",))
            if role[0] != b"master":
                raise StoreUnavailable("is no master, although Sentinel says so")

    async def _authenticate(self, link: Any) -> None:
        from mailgate.store.redis.link import ReplyError

        user = (self._address.user,) if self._address.user else ()
        try:
            await link.send((b"AUTH", *user, self._access.password))
        except ReplyError as error:
            text = str(error)
            if " with args " in text or self._access.password.decode("utf-8", "replace") in text:
                # A server that does not know the command repeats what it was sent.
                raise StoreUnavailable("does not know the command AUTH") from None
            raise

    async def _place(self) -> tuple[str, int]:
        address = self._address
        if address.path is not None:
            return f"unix:{address.path}", 0
        if not address.name:
            return address.hosts[0]
        reason = ""
        for sentinel in list(self._sentinels):
            try:
                found = await self._ask(*sentinel)
            except StoreUnavailable as error:
                reason = f"is unknown: Sentinel {sentinel[0]}:{sentinel[1]} {error}"
                continue
            # It has answered: it is asked first from now on.
            self._sentinels.remove(sentinel)
            self._sentinels.insert(0, sentinel)
            return found
        raise StoreUnavailable(reason)

    async def _ask(self, host: str, port: int) -> tuple[str, int]:
        from mailgate.store.redis.link import Link, ReplyError

        link = Link(self._reactor, PATIENCE)
        try:
            await self._connect(link, host, port)
            name = self._address.name
            found = await link.send((b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name))
            if not found:
                raise StoreUnavailable(f'does not know "{name}"')
            return found[0].decode("ascii"), int(found[1])
        except ReplyError as error:
            raise StoreUnavailable(errorWords(str(error))) from None
        finally:
            link.close()
