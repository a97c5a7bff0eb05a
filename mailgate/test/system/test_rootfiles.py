"""
Tests for L{mailgate.system.rootfiles}. If the tests run as root, the folder of others belongs to another user.
Otherwise they pretend to be root, and the folder belongs to the user who runs them.
"""

from __future__ import annotations

import os
import socket
import stat
import threading

from twisted.trial.unittest import SynchronousTestCase

from mailgate.system import rootfiles
from mailgate.system.rootfiles import isRootsAlone, openToWrite

OTHER, THIRD = 4711, 4712


class FolderTests(SynchronousTestCase):
    """Tests for L{isRootsAlone}."""

    def test_isRootsAlone(self) -> None:
        """
        Only root can write to a folder that belongs to root and that neither its group nor all users may write to.
        """
        for mode, uid, expected in (
            (0o755, 0, True),
            (0o700, 0, True),
            (0o775, 0, False),
            (0o757, 0, False),
            (0o1777, 0, False),
            (0o755, OTHER, False),
        ):
            status = os.stat_result((stat.S_IFDIR | mode, 1, 1, 2, uid, 0, 4096, 0, 0, 0))
            self.assertEqual(isRootsAlone(status), expected, oct(mode))


class WritingCase(SynchronousTestCase):
    """Files in a folder, and a precious file elsewhere."""

    def setUp(self) -> None:
        self.isRoot = os.geteuid() == 0
        self.patch(os, "geteuid", lambda: 0)
        self.folder = os.path.abspath(self.mktemp())
        self.roots = os.path.abspath(self.mktemp())
        for folder in (self.folder, self.roots):
            os.mkdir(folder)
        self.precious = os.path.join(self.roots, "precious")
        self.write(self.precious)
        self.path = os.path.join(self.folder, "x.log")
        if self.isRoot:
            os.chown(self.folder, OTHER, OTHER)

    def write(self, path: str) -> None:
        with open(path, "w", encoding="ascii") as opened:
            opened.write("precious\n")

    def append(self, path: str = "", user: int | None = OTHER) -> bool:
        """Append a line. Return whether only root can write to the folder."""
        descriptor, isExposed = openToWrite(path or self.path, os.O_APPEND, user=user)
        with os.fdopen(descriptor, "w", encoding="ascii") as opened:
            opened.write("line\n")
        return not isExposed

    def read(self, path: str = "") -> str:
        with open(path or self.path, encoding="ascii") as opened:
            return opened.read()

    def assertRefused(self, what: str, path: str = "") -> None:
        error = self.assertRaises(OSError, self.append, path)
        self.assertEqual(error.filename, path or self.path)
        place = f"and other users can write to the folder {self.folder}"
        self.assertIn(f"{what}, {place}", str(error.strerror))
        self.assertIn("; remove it, or use a folder that only root can write to", str(error.strerror))
        self.assertEqual(self.read(self.precious), "precious\n")


class OthersFolderTests(WritingCase):
    """A folder where users other than root can write."""

    def test_made(self) -> None:
        """A missing file is created, and appended to the next time."""
        self.assertFalse(self.append())
        self.assertFalse(self.append())
        self.assertEqual(self.read(), "line\nline\n")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o666 & ~self.umask())

    def umask(self) -> int:
        mask = os.umask(0)
        os.umask(mask)
        return mask

    def test_owners(self) -> None:
        """A file of root, of the user or of the folder's owner is opened. A file of a third user is not."""
        self.write(self.path)
        self.assertFalse(self.append())
        if self.isRoot:
            os.chown(self.path, OTHER, OTHER)
            self.append(user=None)
            os.chown(self.path, THIRD, THIRD)
            self.assertRefused(f"it belongs to another user, with uid {THIRD}")
            self.append(user=THIRD)

    def test_link(self) -> None:
        """A link is not followed, with or without a target."""
        for target in (self.precious, os.path.join(self.roots, "new"), self.path):
            os.symlink(target, self.path)
            self.assertRefused("it is a symbolic link")
            os.unlink(self.path)
        self.assertEqual(os.listdir(self.roots), ["precious"])

    def test_linkOfFolder(self) -> None:
        """A link to a folder in the path is not followed."""
        os.symlink(self.roots, os.path.join(self.folder, "logs"))
        for name in ("precious", "new", "../x.log"):
            path = os.path.join(self.folder, "logs", name)
            self.assertRefused(f"{self.folder}/logs is a symbolic link", path)
        self.assertEqual(os.listdir(self.roots), ["precious"])

    def test_below(self) -> None:
        """A folder below such a folder is not safe either, as other users can replace it."""
        below = os.path.join(self.folder, "logs")
        os.mkdir(below)
        path = os.path.join(below, "x.log")
        os.symlink(self.precious, path)
        error = self.assertRaises(OSError, self.append, path)
        self.assertIn(f"it is a symbolic link, and other users can write to the folder {below}", str(error))
        self.assertEqual(self.read(self.precious), "precious\n")

    def test_hardLink(self) -> None:
        """A file with another hard link could be any file of root's."""
        os.link(self.precious, self.path)
        self.assertRefused("it has more than one hard link")

    def test_noFile(self) -> None:
        """A FIFO, which would block, a socket and a folder are refused."""
        os.mkfifo(self.path)
        self.assertRefused("it is not a regular file")
        os.unlink(self.path)
        with socket.socket(socket.AF_UNIX) as bound:
            # The full path may be too long for a socket.
            self.addCleanup(os.chdir, os.getcwd())
            os.chdir(self.folder)
            bound.bind("x.log")
            self.assertRefused("it is not a regular file")
        os.unlink(self.path)
        os.mkdir(self.path)
        self.assertRefused("it is not a regular file")

    def test_exchanged(self) -> None:
        """A file that is replaced by a link or a FIFO after the check is not opened."""
        real = os.open
        for exchange in (lambda: os.symlink(self.precious, self.path), lambda: os.mkfifo(self.path)):
            self.write(self.path)

            def exchanging(name, flags, *arguments, exchange=exchange, **options):
                if name == "x.log":
                    os.unlink(self.path)
                    exchange()
                return real(name, flags, *arguments, **options)

            self.patch(os, "open", exchanging)
            self.assertRaises(OSError, self.append)
            self.patch(os, "open", real)
            os.unlink(self.path)
        self.assertEqual(self.read(self.precious), "precious\n")

    def test_missing(self) -> None:
        """A missing folder gives the error of the system."""
        error = self.assertRaises(FileNotFoundError, self.append, os.path.join(self.folder, "none", "x.log"))
        self.assertEqual(error.strerror, "No such file or directory")

    def test_notRoot(self) -> None:
        """Users other than root follow links. The system checks their rights."""
        self.patch(os, "geteuid", lambda: OTHER)
        os.symlink(self.precious, self.path)
        self.append()
        self.assertEqual(self.read(self.precious), "precious\nline\n")


class RootsFolderTests(WritingCase):
    """Folders where only root can write."""

    def setUp(self) -> None:
        super().setUp()
        self.others = 0
        self.patch(rootfiles, "isRootsAlone", lambda folder: folder.st_ino != self.others)

    def test_link(self) -> None:
        """Links are followed: relative links, links to links, and links to folders."""
        os.symlink(self.precious, self.path)
        self.assertTrue(self.append())
        self.assertEqual(self.read(self.precious), "precious\nline\n")
        os.symlink(os.path.relpath(self.roots, self.folder), os.path.join(self.folder, "logs"))
        again = os.path.join(self.folder, "again")
        os.symlink("./logs/../" + os.path.basename(self.roots) + "/precious", again)
        self.assertTrue(self.append(again))
        self.assertEqual(self.read(self.precious), "precious\nline\nline\n")
        os.symlink("logs/new", os.path.join(self.folder, "to-new"))
        self.append(os.path.join(self.folder, "to-new"))
        self.assertEqual(self.read(os.path.join(self.roots, "new")), "line\n")

    def test_linkToOthers(self) -> None:
        """If a link leads into a folder of other users, the rules for that folder apply."""
        self.others = os.stat(self.folder).st_ino
        log = os.path.join(self.roots, "x.log")
        os.symlink(self.path, log)
        self.assertFalse(self.append(log))
        os.unlink(self.path)
        os.symlink(self.precious, self.path)
        self.assertRefused("it is a symbolic link", log)

    def test_loop(self) -> None:
        """A loop of links is an error."""
        os.symlink("x.log", self.path)
        error = self.assertRaises(OSError, self.append)
        self.assertEqual(error.strerror, "Too many levels of symbolic links")

    def test_device(self) -> None:
        """Devices are opened, and so is standard output as a file or a pipe."""
        self.assertTrue(self.append("/dev/null"))
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        self.append(f"/dev/fd/{writing}")
        self.assertEqual(os.read(reading, 100), b"line\n")

    def test_fifo(self) -> None:
        """A FIFO is opened, and waits for its reader."""
        os.mkfifo(self.path)
        read: list[str] = []
        reader = threading.Thread(target=lambda: read.append(self.read()))
        reader.start()
        self.assertTrue(self.append())
        reader.join(10)
        self.assertEqual(read, ["line\n"])

    def test_noFollow(self) -> None:
        """With O_NOFOLLOW a link is refused."""
        os.symlink(self.precious, self.path)
        error = self.assertRaises(OSError, openToWrite, self.path, os.O_NOFOLLOW)
        self.assertEqual(error.strerror, "Too many levels of symbolic links")
        self.assertEqual(self.read(self.precious), "precious\n")

    def test_relative(self) -> None:
        """A relative path starts at the working folder."""
        name = os.path.relpath(self.path)
        self.assertTrue(self.append(name))
        self.assertEqual(self.read(), "line\n")

    def test_folderGone(self) -> None:
        """An absolute path works even if the working folder was removed."""
        before = os.getcwd()
        gone = os.path.join(self.roots, "gone")
        os.mkdir(gone)
        os.chdir(gone)
        try:
            os.rmdir(gone)
            self.assertTrue(self.append())
        finally:
            os.chdir(before)

    def test_named(self) -> None:
        """The error has the whole path, as it was given."""
        os.symlink("loop", os.path.join(self.folder, "loop"))
        long = "x" * 300
        for path in (self.folder, *(os.path.join(self.folder, name) for name in ("none/x", "loop", long, long + "/x"))):
            error = self.assertRaises(OSError, self.append, path)
            self.assertEqual(error.filename, path)

    def test_closed(self) -> None:
        """All descriptors of folders are closed, after errors as well."""

        def descriptors() -> list[str]:
            return os.listdir("/dev/fd")

        before = len(descriptors())
        self.append()
        for path in (self.folder, os.path.join(self.folder, "none", "x"), os.path.join(self.path, "x")):
            self.assertRaises(OSError, self.append, path)
        self.assertEqual(len(descriptors()), before)


class StickyTests(WritingCase):
    """Folders below a sticky folder, such as C{/tmp}, where all users can write but cannot replace root's files."""

    def setUp(self) -> None:
        super().setUp()
        self.below = os.path.join(self.folder, "below")
        os.mkdir(self.below)
        self.path = os.path.join(self.below, "x.log")
        self.sticky, self.owner = os.stat(self.folder).st_ino, 0
        self.folders = {0: 0o40755, self.sticky: 0o41777}
        true = os.fstat

        def fstat(fd: int) -> os.stat_result:
            status = true(fd)
            if not stat.S_ISDIR(status.st_mode):
                return status
            mode = self.folders.get(status.st_ino, self.folders[0])
            uid = self.owner if status.st_ino == os.stat(self.below).st_ino else 0
            return os.stat_result((mode, *status[1:4], uid, *status[5:10]))

        self.patch(os, "fstat", fstat)

    def test_roots(self) -> None:
        """A folder there where only root can write is as safe as any."""
        os.symlink(self.precious, self.path)
        self.assertTrue(self.append())
        self.assertEqual(self.read(self.precious), "precious\nline\n")

    def test_others(self) -> None:
        """A folder of another user there is not safe, nor is one in a folder without the sticky bit."""
        os.symlink(self.precious, self.path)
        self.owner = OTHER
        self.assertRaises(OSError, self.append)
        self.owner = 0
        self.folders[self.sticky] = 0o40777
        self.assertRaises(OSError, self.append)
        self.assertEqual(self.read(self.precious), "precious\n")

    def test_inIt(self) -> None:
        """In the sticky folder itself other users can write."""
        os.symlink(self.precious, os.path.join(self.folder, "y.log"))
        self.assertRaises(OSError, self.append, os.path.join(self.folder, "y.log"))
        self.assertEqual(self.read(self.precious), "precious\n")
