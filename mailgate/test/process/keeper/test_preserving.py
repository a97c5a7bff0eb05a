# -*- test-case-name: mailgate.test.process.keeper.test_preserving -*-
"""
Tests for L{mailgate.process.keeper.preserving} and L{mailgate.process.remembering}: what a keeper leaves for the next
one, and for the next start of the gateway.
"""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.memory import LIMITS_INTERVAL, Memory, newFile
from mailgate.process.keeper.preserving import Memories, Preserving
from mailgate.process.remembering import rememberingFor
from mailgate.system.namelessfile import namelessFile
from mailgate.test.keeper.defences import FakeDefence

INI = "[mail]\nstate_file = {}\n[server imap]\nprotocol = imap\nlisten = 127.0.0.1:2143\nproxy_pass = 127.0.0.1:9\n"


class PreservingTests(SynchronousTestCase):
    """Keepers one after the other."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.file = os.path.abspath(self.mktemp())
        self.descriptor = newFile()
        self.addCleanup(os.close, self.descriptor)

    def keeper(self, *known: str) -> tuple[Preserving, FakeDefence]:
        """A keeper in a fork of the zygote that has the memory. It has restored what it can."""
        keeper = Keeper(self.clock, "g1")
        defence = FakeDefence(*known)
        keeper.judgeBy(defence)
        memories = Memories.of(os.dup(self.descriptor))
        remembering = rememberingFor(defence, parse(INI.format(self.file), "gateway.ini"), self.clock)
        made = Preserving(keeper, defence, memories, remembering, self.clock)
        made.restore()
        return made, defence

    def test_killed(self) -> None:
        """After a keeper that was killed, the next one has its counters; the memory counts more than the file."""
        first, _ = self.keeper("10.0.0.1")
        first.startService()
        self.clock.advance(LIMITS_INTERVAL)
        with open(self.file, "wb") as opened:
            opened.write(b'["10.0.0.2"]')
        _, second = self.keeper()
        self.assertEqual(second.known, ["10.0.0.1", "counters"])

    def test_restart(self) -> None:
        """With a new memory, the file counts, which was written when the gateway stopped."""
        first, _ = self.keeper("10.0.0.1")
        first.startService()
        first.stopService()
        os.close(self.descriptor)
        self.descriptor = newFile()
        _, second = self.keeper()
        self.assertEqual(second.known, ["10.0.0.1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_off(self) -> None:
        """Without a file, the memory alone is written."""
        self.file = "off"
        first, _ = self.keeper("10.0.0.1")
        first.startService()
        self.clock.advance(LIMITS_INTERVAL)
        first.stopService()
        _, second = self.keeper()
        self.assertEqual(second.known, ["10.0.0.1", "counters"])
        self.assertFalse(os.path.exists("off"))

    def test_otherFile(self) -> None:
        """A file of another length, and none, are replaced by memory that is lost with the process."""
        small = namelessFile("other", 10)
        for descriptor in (small, None):
            memories = Memories.of(descriptor)
            for memory in (memories.state, memories.limits):
                assert isinstance(memory, Memory)
                self.addCleanup(memory.close)
                memory.save(b"content")
                self.assertEqual(memory.load(), b"content")
