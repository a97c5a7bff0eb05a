"""
Tests for L{mailgate.watching}.
"""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import ListenAddress, ServerSettings
from mailgate.tls import BackendTLSSettings, TLSSettings
from mailgate.watching import LOOK, FileWatch, watchedFiles


def serverWith(tls: TLSSettings, ssl: bool = True, backend: BackendTLSSettings | None = None) -> ServerSettings:
    """A server with those settings."""
    groups = {TLSSettings: tls, BackendTLSSettings: backend or BackendTLSSettings()}
    return ServerSettings("imap", "imap", (ListenAddress("127.0.0.1", 143, ssl),), groups)


class WatchedFilesTests(SynchronousTestCase):
    """Tests for L{watchedFiles}."""

    tls = TLSSettings(certificates=("/a.crt", "/b.crt"), keys=("/a.key", "/b.key"), passwordFile="/pass")

    def test_files(self) -> None:
        """They are all that the settings name by paths, and nothing else of them."""
        server = serverWith(self.tls, backend=BackendTLSSettings(trusted="/roots.pem"))
        expected = ["/a.crt", "/a.key", "/b.crt", "/b.key", "/pass", "/roots.pem"]
        self.assertEqual(sorted(watchedFiles([server])), expected)

    def test_plain(self) -> None:
        """A server without TLS has read none of its own."""
        self.assertEqual(list(watchedFiles([serverWith(self.tls, ssl=False)])), [])


class FileWatchTests(SynchronousTestCase):
    """Tests for L{FileWatch}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.changes: list[list[str]] = []
        self.files = [os.path.abspath(self.mktemp()) for _ in range(2)]
        for name in self.files:
            self.write(name, "old")
        self.watch = FileWatch(self.clock, self.changes.append)
        self.watch.watch(self.files)
        self.watch.startService()

    def tearDown(self) -> None:
        self.watch.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def write(self, name: str, text: str) -> None:
        """Replace the file C{name}, as all do who renew certificates."""
        with open(f"{name}.new", "w", encoding="ascii") as opened:
            opened.write(text)
        os.rename(f"{name}.new", name)

    def test_quiet(self) -> None:
        """As long as nothing changes nothing is told."""
        self.clock.pump([LOOK] * 5)
        self.assertEqual(self.changes, [])

    def test_changed(self) -> None:
        """A change is told once, when it has been the same for one look."""
        self.write(self.files[0], "new")
        self.clock.advance(LOOK)
        self.assertEqual(self.changes, [])
        self.clock.advance(LOOK)
        self.assertEqual(self.changes, [[self.files[0]]])
        self.clock.pump([LOOK] * 3)
        self.assertEqual(len(self.changes), 1)

    def test_oneAfterTheOther(self) -> None:
        """Nothing is told while one or the other still changes."""
        self.write(self.files[0], "new")
        self.clock.advance(LOOK)
        self.write(self.files[1], "new")
        self.clock.advance(LOOK)
        self.assertEqual(self.changes, [])
        self.clock.advance(LOOK)
        self.assertEqual(self.changes, [self.files])

    def test_inPlace(self) -> None:
        """That a file is written in place is noticed, too."""
        with open(self.files[1], "a", encoding="ascii") as opened:
            opened.write("more")
        self.clock.pump([LOOK, LOOK])
        self.assertEqual(self.changes, [[self.files[1]]])

    def test_gone(self) -> None:
        """So is that one vanishes, and that it comes back."""
        os.unlink(self.files[0])
        self.clock.pump([LOOK, LOOK])
        self.write(self.files[0], "back")
        self.clock.pump([LOOK, LOOK])
        self.assertEqual(self.changes, [[self.files[0]]] * 2)

    def test_others(self) -> None:
        """What is watched can be replaced: the files are then looked at as they are now."""
        self.write(self.files[0], "new")
        self.clock.advance(LOOK)
        self.watch.watch(self.files[:1])
        self.write(self.files[1], "new")
        self.clock.pump([LOOK] * 3)
        self.assertEqual(self.changes, [])

    def test_unstarted(self) -> None:
        """One that was never started can be stopped."""
        FileWatch(self.clock, self.changes.append).stopService()
