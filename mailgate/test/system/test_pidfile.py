"""
Tests for L{mailgate.system.pidfile}.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import ConfigurationError
from mailgate.system.pidfile import PIDFile
from mailgate.test.support.nowhere import NOWHERE


class PIDFileTests(SynchronousTestCase):
    """Tests for L{PIDFile}."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        self.file = PIDFile(self.path, "gateway.ini")

    def read(self) -> str:
        with open(self.path, encoding="ascii") as opened:
            return opened.read()

    def write(self, text: str) -> None:
        with open(self.path, "w", encoding="ascii") as opened:
            opened.write(text)

    def test_write(self) -> None:
        """write replaces the content by the pid of this process and a line end."""
        self.write("12345678901234567890\n")
        self.file.write()
        self.assertEqual(self.read(), f"{os.getpid()}\n")

    def test_remove(self) -> None:
        """The file is removed if it has the pid of this process."""
        self.file.write()
        self.file.remove()
        self.assertFalse(os.path.exists(self.path))
        self.file.remove()

    def test_anothers(self) -> None:
        """The file stays if it has another pid, or none."""
        for text in ("1\n", "", "nonsense\n"):
            self.write(text)
            self.file.remove()
            self.assertEqual(self.read(), text)

    def test_discard(self) -> None:
        """discard removes an empty file. It does not remove a file with a pid, nor what is not a regular file."""
        for text, isThere in (("", False), ("1\n", True)):
            self.write(text)
            self.file.discard()
            self.assertEqual(os.path.exists(self.path), isThere)
        PIDFile(self.mktemp(), "gateway.ini").discard()
        PIDFile(os.path.dirname(self.path), "gateway.ini").discard()

    def test_check(self) -> None:
        """check does not change the content."""
        self.write("1\n")
        self.file.check()
        self.assertEqual(self.read(), "1\n")
        self.assertRaises(ConfigurationError, PIDFile(f"{NOWHERE}/gateway.pid", "gateway.ini").check)

    def test_link(self) -> None:
        """A link, which another user may have put there, is not followed."""
        target = self.mktemp()
        with open(target, "w", encoding="ascii") as opened:
            opened.write("precious\n")
        os.symlink(os.path.abspath(target), self.path)
        for attempt in (self.file.check, self.file.write):
            error = self.assertRaises(ConfigurationError, attempt)
            self.assertIn("cannot be written: Too many levels of symbolic links", str(error))
        with open(target, encoding="ascii") as opened:
            self.assertEqual(opened.read(), "precious\n")

    def test_hardLink(self) -> None:
        """If other users can write to the folder, root does not write to a file with another hard link."""
        if os.geteuid() != 0:
            self.patch(os, "geteuid", lambda: 0)
        else:
            os.chown(os.path.dirname(self.path), 4711, 4711)
        target = f"{self.path}.precious"
        with open(target, "w", encoding="ascii") as opened:
            opened.write("precious\n")
        os.link(target, self.path)
        for attempt in (self.file.check, self.file.write):
            error = self.assertRaises(ConfigurationError, attempt)
            self.assertIn("cannot be written: it has more than one hard link", str(error))
        with open(target, encoding="ascii") as opened:
            self.assertEqual(opened.read(), "precious\n")

    def test_fifo(self) -> None:
        """A FIFO without a reader blocks neither the start nor the end."""
        os.mkfifo(self.path)
        self.assertRaises(ConfigurationError, self.file.check)
        self.assertRaises(ConfigurationError, self.file.write)
        self.file.remove()
        self.assertTrue(os.path.exists(self.path))

    def test_unwritable(self) -> None:
        """If the file cannot be written, the error is one line."""
        file = PIDFile(f"{NOWHERE}/gateway.pid", "gateway.ini")
        error = self.assertRaises(ConfigurationError, file.write)
        reason = "cannot be written: No such file or directory"
        self.assertEqual(str(error), f"gateway.ini: [mailgate] pid = {NOWHERE}/gateway.pid: {reason}")
        file.remove()

    def test_stepsAside(self) -> None:
        """In an upgrade the file has another name, and is removed under that name."""
        self.file.write()
        self.file.stepAside()
        self.assertFalse(os.path.exists(self.path))
        self.assertTrue(os.path.exists(f"{self.path}.oldbin"))
        self.write("1\n")
        self.file.remove()
        self.assertFalse(os.path.exists(f"{self.path}.oldbin"))
        self.assertEqual(self.read(), "1\n")

    def test_removed(self) -> None:
        """If the file was removed, stepAside writes C{PATH.oldbin} all the same."""
        self.file.stepAside()
        self.path = self.file.path
        self.assertTrue(self.path.endswith(".oldbin"))
        self.assertEqual(self.read(), f"{os.getpid()}\n")

    def test_stepsBack(self) -> None:
        """If the upgrade fails, the file gets its old name back."""
        self.file.write()
        self.file.stepAside()
        self.file.stepBack()
        self.assertEqual(self.read(), f"{os.getpid()}\n")
        self.assertFalse(os.path.exists(f"{self.path}.oldbin"))
        self.file.remove()
        self.assertFalse(os.path.exists(self.path))
