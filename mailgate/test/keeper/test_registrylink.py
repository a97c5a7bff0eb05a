# -*- test-case-name: mailgate.test.keeper.test_registrylink -*-
"""
Tests for how processes tell a keeper of their sessions: over the link, and in the keeper's own process.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.cluster import registry
from mailgate.keeper.cluster.registry import Registry
from mailgate.keeper.feed import PAUSE
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.link import KeeperLink
from mailgate.keeper.messages import Sessions
from mailgate.keeper.service import KeeperService
from mailgate.limits.policy import Prefixes
from mailgate.store.keys import StoreKeys
from mailgate.store.memory import MemoryStore
from mailgate.store.seal import Seal
from mailgate.test.keeper.processes import turn
from mailgate.test.keeper.relays import Relays
from mailgate.test.keeper.wires import End, Socket, WiredRendezvous


class RegistryLinkTests(SynchronousTestCase):
    """A process with a link, and keepers with and without a registry."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.socket = Socket(self.clock, Random(1))
        self.keeper, self.rendezvous = self.serve(True)
        self.relays: Any = Relays(self.clock, "5g0qa")
        self.ends: list[End] = []
        endpoint: Any = self.socket.endpoint(4711, self.ends)
        view: Any = self.relays
        self.link = KeeperLink(view, endpoint, self.clock, 0, 4711)

    def serve(self, hasRegistry: bool) -> tuple[Keeper, WiredRendezvous]:
        keeper = Keeper(self.clock, "g1")
        if hasRegistry:
            keeper.registry = self.registry(MemoryStore(self.clock))
        rendezvous = WiredRendezvous(keeper, self.socket)
        rendezvous.startService()
        return keeper, rendezvous

    def registry(self, store: Any) -> Registry:
        return Registry(store, StoreKeys(b"secret"), Seal(bytes(32)), "g1", Prefixes(), self.clock, Random(2).randbytes)

    def turns(self, number: int = 40) -> None:
        for _ in range(number):
            turn(self.clock)

    def wait(self) -> None:
        self.clock.advance(PAUSE)
        self.turns()

    def known(self, keeper: Keeper) -> set[str]:
        assert keeper.registry is not None
        return set(dict(keeper.registry.sessions()))

    def test_link(self) -> None:
        """A keeper with a registry learns of the sessions of a process, those that were there and those that follow."""
        first = self.relays.begin("joe")
        self.link.startService()
        self.turns()
        self.assertEqual(self.known(self.keeper), {first})
        second = self.relays.begin("ann")
        self.relays.end(first)
        self.wait()
        self.assertEqual(self.known(self.keeper), {second})

    def test_without(self) -> None:
        """A keeper without one asks for nothing, and refuses what it has not asked for."""
        self.rendezvous.stopService()
        self.keeper, _ = self.serve(False)
        self.link.startService()
        self.turns()
        self.assertTrue(self.link.isLinked)
        self.assertIsNone(self.relays.watcher.feed)
        with capturedLogs() as events:
            self.ends[-1].protocol.send(Sessions([], [], True, False))
            self.turns()
        self.assertEqual([str(event["error"]) for event in events], ["unexpected message: sessions"])

    def test_invalid(self) -> None:
        """A message that is not valid ends the link, and is not quoted."""
        self.link.startService()
        self.turns()
        with capturedLogs() as events:
            self.ends[-1].protocol.send(Sessions([["secret"]], [], False, False))
            self.turns()
        self.assertEqual([str(event["error"]) for event in events], ["invalid message: no session"])

    def test_earlierRelease(self) -> None:
        """A process that does not know the question goes on as before."""
        self.patch(registry, "REGISTRY", "what later releases ask")
        with capturedLogs() as events:
            self.link.startService()
            self.turns()
        self.assertEqual(events, [])
        self.assertTrue(self.link.isLinked)
        self.assertIsNone(self.relays.watcher.feed)
        assert self.keeper.registry is not None
        self.assertTrue(self.keeper.registry.isWhole)

    def test_lost(self) -> None:
        """After a lost link all is told anew, to the same keeper or to another one."""
        self.link.startService()
        self.turns()
        first, second = self.relays.begin("joe"), self.relays.begin("ann")
        self.wait()
        self.ends[-1].end(ConnectionError())
        self.assertIsNone(self.relays.watcher.feed)
        self.relays.end(first)
        self.turns()
        self.assertEqual(self.known(self.keeper), {second})
        self.rendezvous.stopService()
        self.turns()
        self.keeper, _ = self.serve(True)
        for _ in range(20):
            self.wait()
        self.assertEqual(self.known(self.keeper), {second})

    def test_moved(self) -> None:
        """A process that is sent to a successor tells the predecessor nothing more."""
        self.link.startService()
        self.turns()
        self.rendezvous.stopAccepting()
        self.rendezvous.sendAway()
        self.turns()
        id = self.relays.begin("joe")
        self.wait()
        self.assertEqual(self.known(self.keeper), set())
        keeper, _ = self.serve(True)
        for _ in range(20):
            self.wait()
        self.assertEqual(self.known(keeper), {id})

    def test_deaf(self) -> None:
        """A keeper that does not read for a while knows all in the end."""
        self.link.startService()
        self.turns()
        self.ends[-1].other.setDeaf(True)
        ids = {self.relays.begin("x" * 500) for _ in range(2000)}
        self.wait()
        more = {self.relays.begin("x" * 500) for _ in range(100)}
        self.wait()
        self.assertNotEqual(self.known(self.keeper), ids | more)
        self.ends[-1].other.setDeaf(False)
        self.turns(500)
        self.wait()
        self.assertEqual(self.known(self.keeper), ids | more)

    def test_local(self) -> None:
        """In a gateway with one process the keeper gets the same without messages, until it stops."""
        keeper = Keeper(self.clock, "g1")
        keeper.registry = self.registry(MemoryStore(self.clock))
        service = KeeperService(self.relays, self.clock, keeper=keeper)
        first = self.relays.begin("joe")
        self.assertIsNone(self.relays.watcher.feed)
        service.startService()
        self.turns()
        self.assertEqual(self.known(keeper), {first})
        second = self.relays.begin("ann")
        self.relays.end(first)
        self.wait()
        self.assertEqual(self.known(keeper), {second})
        self.assertTrue(keeper.registry.isWhole)
        self.successResultOf(service.stopService())
        self.assertIsNone(self.relays.watcher.feed)

    def test_localWithout(self) -> None:
        """Without a store nothing follows the sessions."""
        service = KeeperService(self.relays, self.clock)
        service.startService()
        self.relays.begin("joe")
        self.assertIsNone(self.relays.watcher.feed)
