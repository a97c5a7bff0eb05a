"""
The store over a real server, where a gateway would only be in the way: the rights that the documents give it, and
Sentinel.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mailgate.store.address import storeAddress
from mailgate.store.interfaces import Failure, IStore, Mark, Question, StoreUnavailable, Success
from mailgate.store.redis.store import RedisStore, storeFor
from mailgate.store.settings import StoreAccess, StoreSettings
from mailgate.test.integration.daemon import newFolder
from mailgate.test.integration.programs import require
from mailgate.test.integration.redisserver import RedisServer
from mailgate.test.support.documents import MISSING, document
from mailgate.test.support.stores import beatOf

PATIENCE = 20.0

_TIMEOUT = 5.0
"""Seconds that a store has for an answer. Here none is silent, but a busy machine may let one wait."""

ONE, OTHER = bytes(range(16)), bytes(range(16, 32))
BACKEND = b"127.0.0.1:143"


def everything(store: Any) -> list[tuple[str, Callable[[], Deferred[Any]]]]:
    """Each call of a store, with what makes it."""
    return [
        ("check", lambda: store.check(Question(ONE, OTHER, OTHER, interval=1.0, burst=5))),
        ("checkKnown", lambda: store.checkKnown([Question(ONE, OTHER, OTHER)] * 2)),
        ("failed", lambda: store.failed(Failure(ONE, OTHER, OTHER, OTHER, b"ab", 1, 1, True))),
        ("succeeded", lambda: store.succeeded(Success(ONE, OTHER, OTHER, OTHER))),
        ("mark", lambda: store.mark(Mark(ONE, "R2", 60.0, 1, b"sealed"), 60.0)),
        ("clear", lambda: store.clear([ONE, OTHER])),
        ("lease", lambda: store.lease(ONE, 1.0)),
        ("put", lambda: store.put("shelf", "a", b"sealed", 60.0)),
        ("notes", lambda: store.notes("shelf")),
        ("take", lambda: store.take("shelf", ["a"])),
        ("place", lambda: store.place(ONE, BACKEND, 60.0)),
        ("placeOf", lambda: store.placeOf(ONE)),
        ("retain", lambda: store.retain([ONE], 60.0)),
        ("retain", lambda: store.retain([ONE], 0.0)),
        ("beat", lambda: store.beat(beatOf("g1", "run", {"s1": b"sealed"}, isAll=True, counts={ONE: {b"abcdef": 1}}))),
        ("beat", lambda: store.beat(beatOf("g1", "run", {}, ["s1"], counts={ONE: {}}))),
        ("gateways", store.gateways),
        ("sessionsAt", lambda: store.sessionsAt("g1", 10)),
        ("sessionsOf", lambda: store.sessionsOf(ONE)),
        ("publish", lambda: store.publish("events", b"sealed")),
        ("leave", lambda: store.leave("g1", "run")),
    ]


class StoreCase(TestCase):
    """Stores of gateways."""

    timeout = 60
    skip = MISSING

    def setUp(self) -> None:
        require("redis-server")

    def connect(self, address: str, password: bytes = b"") -> RedisStore:
        """A store that has begun to connect."""
        settings = StoreSettings(storeAddress(address, "/"), timeout=_TIMEOUT)
        access = StoreAccess(b"the secret of this test", password)
        made = storeFor(settings, access, reactor, "g1")
        self.addCleanup(made.stop)
        made.start()
        return made

    async def until(self, true: Callable[[], Any], what: str) -> None:
        """Wait until C{true}."""
        clock: Any = reactor
        deadline = clock.seconds() + PATIENCE
        while not true():
            self.assertLess(clock.seconds(), deadline, what)
            await deferLater(clock, 0.02, lambda: None)


class RightsTests(StoreCase):
    """The user of the store in docs/cluster.rst and etc/cluster/valkey.conf."""

    def conf(self) -> str:
        return document("etc", "cluster", "valkey.conf")

    def test_documented(self) -> None:
        """The document and the file have the same rights and the same limits of memory."""
        text = document("docs", "cluster.rst")
        (block,) = re.findall(r"^    \+auth(?:.*\n)+?\n", text, re.MULTILINE)
        (user,) = re.findall(r"^user mailgate (.*)$", self.conf(), re.MULTILINE)
        self.assertEqual(user.partition(" -@all ")[2].split(), block.split())
        (shown,) = re.findall(r"^    user mailgate on >PASSWORD (.*) -@all RIGHTS$", text, re.MULTILINE)
        self.assertEqual(user.partition(" -@all ")[0].split(), ["on", "nopass", *shown.split()])
        for line in ("maxmemory-policy volatile-ttl", "user default off", "appendonly no"):
            self.assertIn(f"{line}\n", self.conf())
            self.assertIn(f"    {line}\n", text)

    def test_enough(self) -> Deferred[None]:
        """
        A server with this file lets the gateway do all that it does, by a password: the log of denials is empty. It
        denies all other commands, keys and channels, and every other user.
        """
        return Deferred.fromCoroutine(self.allowed())

    async def allowed(self) -> None:
        file = os.path.join(newFolder("conf"), "valkey.conf")
        with open(file, "w") as opened:
            # A further user may see what was denied.
            opened.write(self.conf().replace(" nopass ", " >sesame ") + "user watcher on nopass +@all ~*\n")
        server = RedisServer("--protected-mode", "no", mode=[file], user="watcher")
        self.addCleanup(server.stop)
        store = self.connect(f"redis://mailgate@127.0.0.1:{server.port}/0", b"sesame")
        heard: list[bytes] = []
        resumed: list[bool] = []
        store.heard = lambda channel, message: heard.append(message)
        store.resumed = lambda: resumed.append(True)
        await self.until(lambda: resumed, "it listens")
        calls = everything(store)
        names = {name for name, each in vars(IStore).items() if callable(each) and not name.startswith("_")}
        names -= {"start", "stop"}
        self.assertEqual({name for name, _ in calls}, names)
        for name, call in calls:
            try:
                await call()
            except StoreUnavailable as error:
                self.fail(f"{name}: {error}")
        await self.until(lambda: heard, "the message is heard")
        self.assertEqual(server.ask("ACL", "LOG"), [])
        for line in ("KEYS *", "CONFIG GET *", "GET other", "FLUSHALL", "PUBLISH other x"):
            words = line.split()
            self.assertIn(b"no permissions", server.ask("ACL", "DRYRUN", "mailgate", *words))
        stranger = self.connect(f"redis://127.0.0.1:{server.port}/0")
        await self.until(lambda: "requires a password" in stranger.reason, "it is refused")
        self.assertFalse(stranger.isUp)


class SentinelTests(StoreCase):
    """A primary with a replica, and a Sentinel that watches them."""

    def test_failOver(self) -> Deferred[None]:
        """When the primary dies the store is the replica, with what it had."""
        return Deferred.fromCoroutine(self.failOver())

    async def failOver(self) -> None:
        primary = RedisServer()
        self.addCleanup(primary.stop)
        replica = RedisServer("--replicaof", "127.0.0.1", str(primary.port), "--repl-diskless-sync-delay", "0")
        self.addCleanup(replica.stop)
        file = os.path.join(newFolder("sentinel"), "sentinel.conf")
        with open(file, "w") as opened:
            opened.write(
                f"sentinel monitor mailgate 127.0.0.1 {primary.port} 1\n"
                "sentinel down-after-milliseconds mailgate 1000\nsentinel failover-timeout mailgate 2000\n"
            )
        sentinel = RedisServer(mode=[file, "--sentinel"])
        self.addCleanup(sentinel.stop)
        store = self.connect(f"sentinel+redis://127.0.0.1:{sentinel.port}/mailgate")
        turns: list[bool] = []
        store.changed = turns.append
        await self.until(lambda: store.isUp, "the store is the primary")
        await store.put("blocks", "a", b"sealed", 600.0)
        await self.until(lambda: b"slaves=1" in sentinel.ask("INFO", "sentinel"), "Sentinel knows the replica")
        await self.until(lambda: replica.ask("EXISTS", "mg:1:note:blocks"), "the replica has it")
        primary.end()
        await self.until(lambda: not store.isUp, "the store is gone")
        await self.until(lambda: store.isUp, "the store is the replica")
        self.assertEqual([value for value, _ in (await store.notes("blocks")).values()], [b"sealed"])
        self.assertEqual(replica.ask("ROLE")[0], b"master")
