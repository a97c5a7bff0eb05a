"""Tests for L{mailgate.system.namelessfile}."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from mailgate.system.namelessfile import namelessFile


class NamelessFileTests(SynchronousTestCase):
    """L{namelessFile}."""

    def check(self) -> None:
        descriptor = namelessFile("mailgate-test", 1 << 30)
        self.addCleanup(os.close, descriptor)
        state = os.fstat(descriptor)
        self.assertEqual((state.st_nlink, os.get_inheritable(descriptor)), (0, False))
        self.assertEqual((state.st_size, state.st_blocks, os.pread(descriptor, 3, 1 << 29)), (1 << 30, 0, bytes(3)))

    def test_file(self) -> None:
        """It has no name, its size, and takes no memory."""
        self.check()

    def test_portable(self) -> None:
        """So it is where the system has no memfd_create(2)."""
        self.patch(os, "memfd_create", None)
        del os.memfd_create
        self.check()

    def test_noRoom(self) -> None:
        """If it cannot be so large, nothing stays open."""

        def ftruncate(descriptor: int, size: int) -> None:
            self.descriptor = descriptor
            raise OSError(28, "No space left on device")

        self.patch(os, "ftruncate", ftruncate)
        self.assertRaises(OSError, namelessFile, "mailgate-test", 1000)
        self.assertRaises(OSError, os.fstat, self.descriptor)
