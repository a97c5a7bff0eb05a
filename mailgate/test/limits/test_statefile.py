# -*- test-case-name: mailgate.test.limits.test_statefile -*-
"""
Tests for L{mailgate.limits.statefile}.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.statefile import INTERVAL, Remembering, StateFile, begin, placeOf
from mailgate.test.keeper.defences import FakeDefence


class PlaceTests(SynchronousTestCase):
    """L{placeOf}."""

    def test_place(self) -> None:
        """The directive counts; without it there is a file in the first folder of systemd, if it has one."""
        systemd = {"STATE_DIRECTORY": "/var/lib/mailgate:/var/lib/other"}
        self.assertEqual(placeOf("/srv/limits", systemd), "/srv/limits")
        self.assertIsNone(placeOf("", systemd))
        self.assertEqual(placeOf(None, systemd), "/var/lib/mailgate/mailgate.limits")
        self.assertIsNone(placeOf(None, {}))
        self.assertIsNone(placeOf(None, {"STATE_DIRECTORY": ""}))


class RememberingTests(SynchronousTestCase):
    """L{Remembering}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.path = os.path.join(self.folder, "mailgate.limits")
        self.mayWrite = True

    def remembering(self, *known: str) -> tuple[Remembering, Any]:
        defence = FakeDefence(*known)
        made = Remembering(defence, StateFile(self.path), self.clock, lambda: self.mayWrite)
        with capturedLogs() as self.events:
            made.restore()
        return made, defence

    def content(self) -> bytes:
        with open(self.path, "rb") as opened:
            return opened.read()

    def write(self, content: bytes) -> None:
        with open(self.path, "wb") as opened:
            opened.write(content)

    def warning(self) -> str:
        """The one warning at the start. It names the file."""
        (event,) = self.events
        self.assertEqual((event["log_level"], event["path"]), (LogLevel.warn, self.path))
        return str(event["log_format"]).format(**event)

    def test_restart(self) -> None:
        """What was written when the gateway stopped is there when it starts, and the file is for its user only."""
        first, _ = self.remembering("10.0.0.1")
        self.assertEqual(self.events, [])
        first.startService()
        first.stopService()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual(os.listdir(self.folder), ["mailgate.limits"])
        _, second = self.remembering()
        self.assertEqual((second.known, self.events), (["10.0.0.1"], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_onceAMinute(self) -> None:
        """It is written at most once a minute, and only if something has changed since it was read or written."""
        self.write(b'["10.0.0.1"]')
        inode = os.stat(self.path).st_ino
        made, defence = self.remembering()
        made.startService()
        self.clock.advance(INTERVAL)
        self.assertEqual(os.stat(self.path).st_ino, inode)
        defence.known.append("10.0.0.2")
        self.clock.advance(INTERVAL - 1)
        self.assertEqual(self.content(), b'["10.0.0.1"]')
        self.clock.advance(1)
        self.assertEqual(self.content(), b'["10.0.0.1", "10.0.0.2"]')
        inode = os.stat(self.path).st_ino
        self.clock.advance(INTERVAL)
        made.stopService()
        self.assertEqual(os.stat(self.path).st_ino, inode)

    def test_mayNotWrite(self) -> None:
        """While another process knows more, nothing is written, not even at the end."""
        self.mayWrite = False
        made, _ = self.remembering("10.0.0.1")
        made.startService()
        self.clock.advance(INTERVAL)
        made.stopService()
        self.assertEqual(os.listdir(self.folder), [])

    def test_damaged(self) -> None:
        """A file that cannot be used is renamed and not lost; the tables begin empty, and are written."""
        for content in (b"", b"{", b"\0" * 100):
            self.write(content)
            made, defence = self.remembering()
            self.assertIn(f"{self.path}.unreadable", self.warning())
            self.assertEqual(defence.known, [])
            with open(f"{self.path}.unreadable", "rb") as opened:
                self.assertEqual(opened.read(), content)
            made.startService()
            made.stopService()
            self.assertEqual(self.content(), b"[]")

    def test_newer(self) -> None:
        """After a downgrade the file of the later release stays as it is, whatever happens."""
        self.write(b"2 later")
        made, defence = self.remembering()
        self.assertIn("later release", self.warning())
        made.startService()
        defence.known.append("10.0.0.1")
        self.clock.advance(INTERVAL)
        made.stopService()
        self.assertEqual((self.content(), os.listdir(self.folder)), (b"2 later", ["mailgate.limits"]))

    def test_noFile(self) -> None:
        """What is no regular file, or may not be read, is not replaced."""
        os.mkfifo(self.path)
        made, _ = self.remembering("10.0.0.1")
        self.assertIn("cannot be read", self.warning())
        made.startService()
        made.stopService()
        self.assertTrue(stat.S_ISFIFO(os.stat(self.path).st_mode))

    def test_notWritable(self) -> None:
        """A folder that is missing is named once, with the reason; when it is there the file is written."""
        self.path = os.path.join(self.folder, "missing", "limits")
        made, _ = self.remembering("10.0.0.1")
        self.assertIn("cannot be written: No such file or directory", self.warning())
        made.startService()
        with capturedLogs() as events:
            self.clock.pump([INTERVAL] * 3)
            self.assertEqual(events, [])
            os.mkdir(os.path.dirname(self.path))
            self.clock.advance(INTERVAL)
        self.assertEqual((self.content(), events), (b'["10.0.0.1"]', []))

    def test_interrupted(self) -> None:
        """What a write has left that was interrupted is replaced; the file itself is never half written."""
        with open(f"{self.path}.new", "wb") as opened:
            opened.write(b"half")
        made, _ = self.remembering("10.0.0.1")
        made.startService()
        made.stopService()
        self.assertEqual(self.content(), b'["10.0.0.1"]')

    def test_link(self) -> None:
        """A link in the place of the new file is removed, and what it leads to is not written."""
        other = os.path.join(self.folder, "other")
        os.symlink(other, f"{self.path}.new")
        made, _ = self.remembering("10.0.0.1")
        made.startService()
        made.stopService()
        self.assertFalse(os.path.exists(other))
        self.assertEqual(self.content(), b'["10.0.0.1"]')

    def test_begin(self) -> None:
        """Another process begins with the file, changes nothing there, and leaves the log to the one that writes it."""
        defence = FakeDefence()
        with capturedLogs() as events:
            for content in (None, b"{", b"2 later", b'["10.0.0.1"]'):
                if content is not None:
                    self.write(content)
                begin(defence, self.path)
            begin(defence, None)
            begin(defence, self.folder)
        self.assertEqual((defence.known, events, self.content()), (["10.0.0.1"], [], b'["10.0.0.1"]'))
        self.assertEqual(os.listdir(self.folder), ["mailgate.limits"])

    def test_broken(self) -> None:
        """A failure does not stop the timer."""
        made, defence = self.remembering("10.0.0.1")
        made.startService()
        self.patch(defence, "state", None)
        self.clock.pump([INTERVAL] * 2)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 2)
