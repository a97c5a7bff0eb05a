"""
Tests for L{mailgate.system.regularfiles}.
"""

from __future__ import annotations

import grp
import os
import shutil
import tempfile
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailgate.system import regularfiles
from mailgate.system.regularfiles import isOpenToAll, openRegular, readRegular, readRegularOrPipe, writers


class ReadingCase(SynchronousTestCase):
    """A path for files of any kind."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())

    def write(self, content: bytes) -> None:
        with open(self.path, "wb") as opened:
            opened.write(content)


class RegularTests(ReadingCase):
    """Tests for L{openRegular} and L{readRegular}."""

    def test_file(self) -> None:
        """A file is read, also through a link."""
        self.write(b"content")
        self.assertEqual(readRegular(self.path), b"content")
        os.symlink(self.path, f"{self.path}.link")
        with openRegular(f"{self.path}.link") as opened:
            self.assertEqual(opened.read(), b"content")

    def test_noFile(self) -> None:
        """A FIFO does not block, and a device without an end is not read."""
        os.mkfifo(self.path)
        for path, reason in (
            (self.path, "it is not a regular file"),
            ("/dev/zero", "it is not a regular file"),
            (os.path.dirname(self.path), "Is a directory"),
            (f"{self.path}.none", "No such file or directory"),
        ):
            for read in (openRegular, readRegular):
                error = self.assertRaises(OSError, read, path)
                self.assertEqual((error.strerror, error.filename), (reason, path))

    def test_long(self) -> None:
        """A file that is too large is refused, and not read to its end."""
        self.patch(regularfiles, "MOST", 1024 * 1024)
        with open(self.path, "wb") as opened:
            opened.truncate(1024 * 1024)
        self.assertEqual(len(readRegular(self.path)), 1024 * 1024)
        with open(self.path, "wb") as opened:
            opened.truncate(1 << 40)
        self.assertEqual(self.assertRaises(OSError, readRegular, self.path).strerror, "it is larger than 1 MB")


class PipeTests(ReadingCase):
    """Tests for L{readRegularOrPipe}."""

    def read(self, path: str = "", most: int = 1024 * 1024, patience: float = 60) -> bytes:
        return readRegularOrPipe(path or self.path, most, patience)

    def test_file(self) -> None:
        """A file is read."""
        for content in (b"", b"content", bytes(1024 * 1024)):
            self.write(content)
            self.assertEqual(self.read(), content)

    def test_pipe(self) -> None:
        """A pipe, such as a shell's process substitution, is read to its end."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        content = b"content" * 50000

        def write() -> None:
            with os.fdopen(writing, "wb") as opened:
                opened.write(content)

        writer = threading.Thread(target=write)
        writer.start()
        self.assertEqual(self.read(f"/dev/fd/{reading}"), content)
        writer.join()

    def test_noWriter(self) -> None:
        """A FIFO without a writer does not block for ever."""
        os.mkfifo(self.path)
        writing = os.open(self.path, os.O_RDWR)
        self.addCleanup(os.close, writing)
        error = self.assertRaises(TimeoutError, self.read, patience=0.01)
        self.assertEqual(error.strerror, "it is a pipe whose writer did not close it within 0.01 s")

    def test_refused(self) -> None:
        """Other kinds of files are refused, and those that are too large."""
        for path, reason in (
            ("/dev/zero", "it is not a regular file or a pipe"),
            (os.path.dirname(self.path), "Is a directory"),
            (f"{self.path}.none", "No such file or directory"),
        ):
            self.assertEqual(self.assertRaises(OSError, self.read, path).strerror, reason)
        self.write(bytes(1024 * 1024 + 1))
        self.assertEqual(self.assertRaises(OSError, self.read).strerror, "it is larger than 1 MB")


class KeyCase(ReadingCase):
    """A key in a folder of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "key.pem")
        self.write(b"secret")


class OpenToAllTests(KeyCase):
    """Tests for L{isOpenToAll}."""

    def setUp(self) -> None:
        super().setUp()
        self.reachable = all(
            os.stat(folder).st_mode & 0o001 for folder in map(str, Path(os.path.realpath(self.folder)).parents)
        )

    def test_modes(self) -> None:
        """The file must be readable for all users, and its folders passable. A group does not count."""
        for folder, mode, isOpen in (
            (0o755, 0o644, self.reachable),
            (0o711, 0o604, self.reachable),
            (0o755, 0o640, False),
            (0o755, 0o600, False),
            (0o750, 0o644, False),
            (0o700, 0o666, False),
        ):
            os.chmod(self.folder, folder)
            os.chmod(self.path, mode)
            self.assertEqual(isOpenToAll(self.path), isOpen, (oct(folder), oct(mode)))

    def test_link(self) -> None:
        """For a link, the target and its folders count."""
        os.chmod(self.path, 0o644)
        link = os.path.abspath(self.mktemp())
        os.symlink(self.path, link)
        self.assertFalse(isOpenToAll(link))
        os.chmod(self.folder, 0o755)
        self.assertEqual(isOpenToAll(link), self.reachable)

    def test_noFile(self) -> None:
        """A missing file, or a folder, is not open to all."""
        for path in (f"{self.path}.none", "/dev/null", "/"):
            self.assertFalse(isOpenToAll(path))


class WritersTests(KeyCase):
    """Tests for L{writers}."""

    def told(self, folder: int, mode: int) -> str | None:
        """Return the message for a file with this C{mode} in a C{folder} with that mode."""
        os.chmod(self.folder, folder)
        os.chmod(self.path, mode)
        return writers(self.path)

    def test_everybody(self) -> None:
        """It finds users who can write to the file or replace it, if the folders let them through."""
        if not all(os.stat(each).st_mode & 0o001 for each in map(str, Path(self.folder).parents)):
            raise AssertionError("all users can write to the folder for temporary files")
        writing = f"every user on this host can write to it; run: chmod o-w {os.path.realpath(self.path)}"
        exchanging = f"every user on this host can replace it; run: chmod o-w {self.folder}"
        for folder, mode, told in (
            (0o755, 0o666, writing),
            (0o755, 0o602, writing),
            (0o777, 0o600, exchanging),
            (0o1777, 0o644, None),
            (0o755, 0o644, None),
            (0o700, 0o666, None),
            (0o702, 0o600, None),
        ):
            self.assertEqual(self.told(folder, mode), told, (oct(folder), oct(mode)))

    def test_group(self) -> None:
        """
        Root's group and the owner's primary group do not count. The mode counts only if the group can pass the folders.
        """
        self.assertIsNone(self.told(0o755, 0o660))
        self.patch(regularfiles, "_isOwn", lambda found: False)
        name = grp.getgrgid(os.stat(self.path).st_gid).gr_name
        told = f"the group {name} can write to it; run: chmod g-w {os.path.realpath(self.path)}"
        self.assertEqual(self.told(0o755, 0o660), told)
        self.assertEqual(self.told(0o710, 0o660), told)
        self.assertIsNone(self.told(0o700, 0o660))
        self.assertIsNone(self.told(0o755, 0o640))

    def test_noFile(self) -> None:
        """For a missing file there is no message."""
        self.assertIsNone(writers(f"{self.path}.none"))
