"""
The base of tests of stores: the values of a login, and two gateways over L{MemoryStore}, or over L{RedisStore} with a
real server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SkipTest

from mailgate.store.address import StoreAddress
from mailgate.store.interfaces import Failure, IStore, Question, Standing, Success
from mailgate.store.keys import StoreKeys
from mailgate.store.memory import MemoryStore
from mailgate.store.redis.store import RedisStore, storeFor
from mailgate.store.settings import StoreAccess, StoreSettings
from mailgate.test.integration.daemon import shared
from mailgate.test.integration.redisserver import Commands, RedisServer, program

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as Mixin
else:
    # Scenarios become tests only where a store and a TestCase are mixed in.
    Mixin = object

KEYS = StoreKeys(b"a secret of the gateways")
NAME, HOST = b"joe.secret@example.com", b"192.0.2.77"
USER, ADDRESS, NETWORK = KEYS.digest(b"user", NAME), KEYS.digest(b"address", HOST), KEYS.digest(b"network", b"192.0.2.")
OTHER, ELSEWHERE = KEYS.digest(b"user", b"ann"), KEYS.digest(b"address", b"198.51.100.9")
PAIR = StoreKeys.both(USER, ADDRESS)
IMAP, SMTP = b"im", b"sm"
HERE = ADDRESS[:4]


def failure(tag: bytes = b"ab", **changes: Any) -> Failure:
    """A failure of the user at the address."""
    values: dict[str, Any] = {
        "user": USER,
        "address": ADDRESS,
        "network": NETWORK,
        "pair": PAIR,
        "tag": tag,
        "weight": 60,
        "addressWeight": 60,
        "countsForUser": True,
    }
    return Failure(**values | changes)


def question(**changes: Any) -> Question:
    """A login of the user at the address."""
    values: dict[str, Any] = {"user": USER, "address": ADDRESS, "network": NETWORK, "pair": PAIR, "protocol": IMAP}
    return Question(**values | changes)


SUCCESS = Success(USER, ADDRESS, NETWORK, PAIR)


def comparable(standing: Standing) -> tuple[Any, ...]:
    """What is known, without times that differ by the time that the test takes."""
    return (
        [(each.tag, each.weight) for each in standing.guesses],
        (standing.atAddress, standing.atNetwork, standing.ofUser, standing.failedUsers),
        standing.lastSuccess is None,
        [user for user, _ in standing.goods],
        [(each.thing, each.rule, each.count, round(each.seconds, -2)) for each in standing.marks],
        round(standing.wait, -2),
    )


class StoreContract(Mixin):
    """
    The base of scenarios for a store that two gateways have in common.

    @ivar one: the store of the gateway C{g1}.
    @ivar two: that of C{g2}.
    """

    one: IStore
    two: IStore

    def wait(self, seconds: float) -> Deferred[None]:
        """Let time pass."""
        raise NotImplementedError

    def ageBeat(self, gateway: str, seconds: float) -> Deferred[None]:
        """A gateway has not beaten for a time."""
        raise NotImplementedError

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until C{condition} holds, for two seconds at most."""
        for _ in range(200):
            found = condition()
            if await found if isinstance(found, Deferred) else found:
                return
            await self.wait(0.01)
        raise AssertionError("it does not become so")


class OverMemory(StoreContract):
    """L{MemoryStore}."""

    def setUp(self):
        self.clock = Clock()
        self.one = MemoryStore(self.clock, None, "g1")
        self.two = MemoryStore(self.clock, self.one.memory, "g2")
        for store in (self.one, self.two):
            store.start()
            self.addCleanup(store.stop)

    def wait(self, seconds):
        self.clock.advance(seconds)
        return succeed(None)

    def ageBeat(self, gateway, seconds):
        return self.wait(seconds)


class OverRedis(StoreContract):
    """L{RedisStore}."""

    timeout = 30

    async def setUp(self):
        if program() is None:
            raise SkipTest("there is no server")
        try:
            import txredisapi  # noqa: F401
        except ImportError:
            raise SkipTest("txredisapi is missing") from None
        self.server = shared("store", RedisServer)
        self.commands: Commands = self.server.commands()
        self.addCleanup(self.commands.close)
        self.commands("FLUSHALL")
        self.one, self.two = [self.made(name) for name in ("g1", "g2")]
        for store in (self.one, self.two):
            resumed: Deferred[None] = Deferred()
            store.resumed = lambda resumed=resumed: resumed.called or resumed.callback(None)
            store.start()
            self.addCleanup(store.stop)
            await resumed

    def made(self, gateway: str) -> RedisStore:
        from twisted.internet import reactor

        settings = StoreSettings(address=StoreAddress(path=self.server.path), timeout=2.0)
        return storeFor(settings, StoreAccess(b"secret" * 6), reactor, gateway)

    def wait(self, seconds):
        from twisted.internet import reactor

        return deferLater(reactor, seconds)

    def ageBeat(self, gateway, seconds):
        entry = self.commands("HGET", "mg:1:gw", gateway)
        moment = int.from_bytes(entry[:6], "little") - int(seconds * 1000)
        self.commands("HSET", "mg:1:gw", gateway, moment.to_bytes(6, "little") + entry[6:])
        return succeed(None)
