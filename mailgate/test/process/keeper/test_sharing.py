"""Tests for L{mailgate.process.keeper.sharing}."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import GatewaySettings, parse
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.sessions import listSessions
from mailgate.limits.defence import Defence
from mailgate.process.keeper.making import keeperFor
from mailgate.process.keeper.sharing import Sharing, sharingFor
from mailgate.store.keys import StoreKeys
from mailgate.store.memory import Memory
from mailgate.test.support.stores import SwitchedStore

SECRET = b"the secret of all gateways"
INI = """
[mailgate]
gateway_name = {name}
[server imap]
listen = 127.0.0.1:10143
protocol = imap
proxy_pass = 127.0.0.1:1
"""


def settingsOf(name: str) -> GatewaySettings:
    """The configuration of a gateway. Its store is given by the test."""
    return parse(INI.format(name=name), "gateway.ini")


class OneGateway:
    """A gateway with a store in memory."""

    def __init__(self, name: str, clock: Clock, memory: Memory) -> None:
        self.store = SwitchedStore(clock, memory, name)
        settings = settingsOf(name)
        defence = Defence(monotonic=clock.seconds, wall=clock.seconds)
        self.sharing = Sharing(self.store, StoreKeys(SECRET), settings, clock, defence)
        self.keeper: Keeper = keeperFor(settings, clock, self.sharing.defence, self.sharing)


class SharingTests(SynchronousTestCase):
    """Two gateways that are made by their configuration."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        memory = Memory()
        self.one, self.two = (OneGateway(name, self.clock, memory) for name in ("g1", "g2"))
        for each in (self.one, self.two):
            each.sharing.startService()
        self.pump(3)

    def pump(self, seconds: float = 0.0) -> None:
        """Let messages arrive, and time pass."""
        for _ in range(10):
            self.clock.advance(seconds / 10)

    def gateways(self, of: OneGateway) -> list[tuple[str, bool]]:
        """The gateways of a list of sessions."""
        listed = listSessions(of.keeper, {})
        self.pump(2.5)
        return [(each["name"], each["complete"]) for each in self.successResultOf(listed)["gateways"]]

    def test_together(self) -> None:
        """Each finds the other by its beat, and asks it."""
        self.assertEqual(self.gateways(self.one), [("g1", True), ("g2", True)])
        self.pump(10)
        assert self.two.keeper.others is not None
        self.assertEqual([each["name"] for each in self.two.keeper.others.standing()["gateways"]], ["g2", "g1"])

    def test_blocks(self) -> None:
        """What an operator blocks at one holds at the other."""
        assert self.one.keeper.limits is not None and self.two.keeper.limits is not None
        self.one.keeper.limits.block("joe", 3600, "abuse")
        self.pump()
        (found,) = self.two.keeper.limits.blocks()
        self.assertEqual((found.thing, found.reason), ("joe", "abuse"))

    def test_stopped(self) -> None:
        """One that stops says goodbye: the other does not wait for it, and it is no alarm."""
        self.gateways(self.two)
        stopped = self.one.sharing.stopService()
        self.pump()
        self.successResultOf(stopped)
        self.assertEqual(self.gateways(self.two), [("g2", True)])

    def test_handedOver(self) -> None:
        """One that hands over leaves its word to its successor: it is not gone meanwhile."""
        left = self.one.sharing.handOver()
        self.pump()
        self.successResultOf(left)
        self.assertIn("g1", self.successResultOf(self.two.store.gateways()))
        # It answers nothing any more.
        self.assertEqual(self.gateways(self.two), [("g2", True), ("g1", False)])

    def test_down(self) -> None:
        """With the store down the gateway answers for itself at once, and knows since when and why."""
        self.gateways(self.one)
        self.one.store.reason = "hangs"  # type: ignore[attr-defined]
        self.one.store.switch(False)
        self.clock.advance(30)
        listed = listSessions(self.one.keeper, {})
        self.assertEqual([each["complete"] for each in self.successResultOf(listed)["gateways"]], [True, False])
        assert self.one.keeper.others is not None
        standing = self.one.keeper.others.standing()
        self.assertEqual((standing["up"], standing["reason"]), (False, "hangs"))

    def test_without(self) -> None:
        """Without C{store} there is nothing of it."""
        settings = settingsOf("g1")
        defence: Any = Defence()
        self.assertIsNone(sharingFor(settings, self.clock, defence))
        keeper = keeperFor(settings, self.clock, defence)
        self.assertEqual((keeper.others, keeper.registry), (None, None))
