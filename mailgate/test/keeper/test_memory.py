# -*- test-case-name: mailgate.test.keeper.test_memory -*-
"""
Tests for L{mailgate.keeper.memory}.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.keeper import Keeper
from mailgate.keeper.memory import Memory, Saving, newFile


class MemoryTests(SynchronousTestCase):
    """L{Memory}."""

    def setUp(self) -> None:
        self.memory = Memory(1000)
        self.addCleanup(self.memory.close)

    def test_latest(self) -> None:
        """The last content counts, whatever its length."""
        self.assertIsNone(self.memory.load())
        for content in (b"a", b"", b"b" * 1000, b"c", b"\0" * 7):
            self.assertTrue(self.memory.save(content))
            self.assertEqual(self.memory.load(), content)

    def test_file(self) -> None:
        """A file keeps the content also after all processes that had it in their memory."""
        descriptor = newFile(100)
        self.addCleanup(os.close, descriptor)
        first = Memory(100, descriptor)
        first.save(b"left")
        first.close()
        second = Memory(100, descriptor)
        self.addCleanup(second.close)
        self.assertEqual(second.load(), b"left")
        self.assertFalse(os.get_inheritable(descriptor))

    def test_shortFile(self) -> None:
        """A file that is too short is refused: reading beyond its end would kill the process."""
        descriptor = newFile(100)
        self.addCleanup(os.close, descriptor)
        self.assertRaises(ValueError, Memory, 101, descriptor)

    def test_noMemfd(self) -> None:
        """Where the system has no memfd_create(2), it is a file without a name."""
        self.patch(os, "memfd_create", None)
        del os.memfd_create
        descriptor = newFile(100)
        self.addCleanup(os.close, descriptor)
        self.assertEqual((os.fstat(descriptor).st_nlink, os.get_inheritable(descriptor)), (0, False))
        Memory(100, descriptor).close()

    def test_tooLong(self) -> None:
        """Without room for the new content the old one stays."""
        self.memory.save(b"a")
        self.assertFalse(self.memory.save(b"b" * 1001))
        self.assertEqual(self.memory.load(), b"a")

    def test_anyMoment(self) -> None:
        """At each step of a write the last content or the new one is there, whole."""
        real: Any = self.memory._map
        seen: list[Any] = []
        memory = self.memory

        class Stepwise:
            """Writes byte by byte, and looks."""

            def __getitem__(self, key: Any) -> Any:
                return real[key]

            def __setitem__(self, key: slice, value: bytes) -> None:
                for place, byte in zip(range(key.start, key.stop), value, strict=True):
                    real[place] = byte
                    seen.append(memory.load())

        import mailgate.keeper.memory as module

        class Header:
            """Reads the real memory."""

            size = module._HEADER.size
            pack = staticmethod(module._HEADER.pack)

            @staticmethod
            def unpack_from(_: Any, offset: int) -> Any:
                return header.unpack_from(real, offset)

        header = module._HEADER
        self.patch(module, "_HEADER", Header)
        self.memory._map = Stepwise()  # type: ignore[assignment]
        before = None
        for content in (b"first" * 20, b"second", b"third" * 30):
            seen.clear()
            self.memory.save(content)
            self.assertEqual(set(seen), {before, content})
            before = content
        self.memory._map = real

    def test_killed(self) -> None:
        """What a killed process has written is whole."""
        memory = Memory(200_000)
        self.addCleanup(memory.close)
        for _ in range(5):
            child = os.fork()
            if not child:
                number = 0
                while True:
                    number += 1
                    memory.save(b"%06d" % number * 30_000)
            end = time.monotonic() + 10
            before = memory.load()
            while memory.load() == before and time.monotonic() < end:
                time.sleep(0.005)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            content = memory.load()
            assert content is not None
            self.assertEqual(content, content[:6] * 30_000)


class SavingTests(SynchronousTestCase):
    """L{Saving}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.keeper = Keeper(self.clock, "g1")
        self.memory = Memory(10_000)
        self.addCleanup(self.memory.close)
        self.saving = Saving(self.keeper, self.memory, self.clock)

    def events(self) -> int:
        state = self.memory.load() or b""
        return state.count(b"mailgate_reloads")

    def test_rhythm(self) -> None:
        """It saves at once, each second, and at a scrape."""
        self.saving.startService()
        self.assertEqual(self.events(), 0)
        self.assertIsNotNone(self.memory.load())
        self.keeper.happened("mailgate_reloads", ("ok",))
        self.clock.advance(1)
        self.assertEqual(self.events(), 1)
        self.memory.save(b"")
        self.successResultOf(self.keeper.scrape())
        self.assertEqual(self.events(), 1)
        self.saving.stopService()
        self.memory.save(b"")
        self.successResultOf(self.keeper.scrape())
        self.assertEqual(self.events(), 0)

    def test_knowsLess(self) -> None:
        """It does not overwrite what another keeper knows better: before and after a handover."""
        self.memory.save(b"better")
        self.keeper.expectHandover()
        self.saving.startService()
        self.clock.advance(1)
        self.assertEqual(self.memory.load(), b"better")
        self.keeper.handedOver(b"", ())
        self.assertNotEqual(self.memory.load(), b"better")
        self.keeper.isHandedOver = True
        self.memory.save(b"better")
        self.clock.advance(1)
        self.assertEqual(self.memory.load(), b"better")

    def test_failures(self) -> None:
        """A state without room, or a failure, is logged, and the next one is saved."""
        self.saving.startService()
        self.keeper.state = lambda: b"x" * 20_000  # type: ignore[method-assign]
        self.clock.advance(1)
        self.clock.advance(1)

        def broken() -> bytes:
            raise RuntimeError

        self.keeper.state = broken  # type: ignore[method-assign]
        self.clock.advance(1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.keeper.state = lambda: b"good"  # type: ignore[method-assign]
        self.clock.advance(1)
        self.assertEqual(self.memory.load(), b"good")
