"""Tests for L{mailgate.process.keeper.memory}."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from mailgate.process.keeper.memory import _HEADER, Memory


class MemoryTests(SynchronousTestCase):
    """Tests for L{Memory}."""

    def test_latest(self) -> None:
        """The state that was saved last is loaded, also one that is shorter or empty."""
        memory = Memory(100)
        self.assertIsNone(memory.load())
        for state in (b"x" * 100, b"short", b"", b"again"):
            self.assertTrue(memory.save(state))
            self.assertEqual(memory.load(), state)

    def test_tooLarge(self) -> None:
        """A state that is too large is not saved; the earlier one stays."""
        memory = Memory(10)
        memory.save(b"kept")
        self.assertFalse(memory.save(b"x" * 11))
        self.assertEqual(memory.load(), b"kept")

    def test_interrupted(self) -> None:
        """Whenever a process is killed while it saves, the earlier state is loaded."""
        for written in range(len(b"later")):
            memory = Memory(10)
            memory.save(b"early")
            memory.save(b"later")
            start = 0 if _HEADER.unpack_from(memory._map, 0)[0] == 2 else memory._half
            # Its header is there, its content is not complete.
            at = start + _HEADER.size + written
            memory._map[at : at + 1] = b"\x00"
            self.assertEqual(memory.load(), b"early")

    def test_shared(self) -> None:
        """What a fork saves is loaded in the process that has made the memory."""
        memory = Memory(10)
        pid = os.fork()
        if not pid:
            memory.save(b"of fork")
            os._exit(0)
        os.waitpid(pid, 0)
        self.assertEqual(memory.load(), b"of fork")
