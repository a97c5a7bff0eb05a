# -*- test-case-name: mailgate.test.keeper.test_sockets -*-
"""
The keeper's socket as the system has it: a listening descriptor that is adopted, credentials of peers, a handover.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mailgate.keeper.handover import handOver
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.link import KeeperLink
from mailgate.keeper.listening import Rendezvous
from mailgate.keeper.peers import Peer, peerOf
from mailgate.test.keeper.processes import LOGIN, newView

LOGINS = "mailgate_logins"


class SocketTests(TestCase):
    """Real unix sockets."""

    timeout = 30

    def setUp(self) -> None:
        # Paths of unix sockets must be short.
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.path = os.path.join(folder, "keeper")
        self.listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listening.close)
        self.listening.bind(self.path)
        self.listening.listen()
        self.listening.setblocking(False)
        self.clock: Any = reactor
        self.endpoint = UNIXClientEndpoint(reactor, self.path)
        self.keeper = Keeper(self.clock, "g1")
        self.rendezvous = self.serve(self.keeper)
        self.view = newView()
        self.link = KeeperLink(self.view, self.endpoint, self.clock)
        self.link.startService()
        self.addCleanup(self.link.stopService)

    def serve(self, keeper: Keeper) -> Rendezvous:
        rendezvous = Rendezvous(keeper, self.listening, reactor)
        rendezvous.startService()
        self.addCleanup(rendezvous.stopService)
        return rendezvous

    async def until(self, holds: Callable[[], Any]) -> None:
        while not holds():
            await deferLater(self.clock, 0.01)

    async def test_answers(self) -> None:
        """A process with thousands of sessions answers, and a scrape has its counters."""
        await self.until(lambda: self.keeper.members)
        self.view.login()
        totals = await self.keeper.scrape()
        self.assertEqual(totals[LOGINS], [[list(LOGIN), 1]])
        collected = await self.keeper.ask("many", {"many": 9000, "long": 200})
        self.assertEqual((len(collected.rows), collected.missing), (9000, []))

    async def test_credentials(self) -> None:
        """The system says which process has connected, and a foreign user is refused."""
        await self.until(lambda: self.keeper.members)
        (conversation,) = self.rendezvous._connections
        self.assertEqual(peerOf(conversation.transport), Peer(os.getpid(), os.getuid(), os.getgid()))
        self.assertIsNone(peerOf(None))
        self.rendezvous.peerOf = lambda transport: Peer(os.getpid(), 4444, 4444)
        conversation.abort()
        await self.until(lambda: self.link._failures > 2)
        self.assertEqual(self.keeper.members, [])

    async def test_handover(self) -> None:
        """A successor takes over, and the keeper that was there no longer accepts."""
        self.view.login()
        await self.until(lambda: self.keeper.members)
        successor = Keeper(self.clock, "g1")
        successor.expectHandover()
        handedOver: Deferred[bool] = handOver(self.keeper, self.rendezvous, self.endpoint, self.clock)
        scraped = successor.scrape()
        self.serve(successor)
        self.assertIs(await handedOver, True)
        self.assertEqual((await scraped)[LOGINS], [[list(LOGIN), 1]])
        self.assertEqual(len(successor.members), 1)

    async def test_death(self) -> None:
        """While no keeper accepts, the process goes on; it joins the next keeper at once."""
        await self.until(lambda: self.keeper.members)
        await self.rendezvous.stopService()
        await self.until(lambda: not self.link.isLinked)
        self.view.login()
        keeper = Keeper(self.clock, "g1")
        self.serve(keeper)
        await self.until(lambda: keeper.members)
        self.assertEqual((await keeper.scrape())[LOGINS], [[list(LOGIN), 1]])
