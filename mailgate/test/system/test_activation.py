"""
Tests for L{mailgate.system.activation}.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from mailgate.system.activation import passedSockets


class PassedSocketsTests(SynchronousTestCase):
    """Tests for L{passedSockets}."""

    def passed(self, names: str, pid: int | None = None) -> dict[str, int]:
        count = len(names.split(":"))
        environ = {"LISTEN_PID": str(os.getpid() if pid is None else pid), "LISTEN_FDS": str(count), "HOME": "/"}
        environ["LISTEN_FDNAMES"] = names
        found = passedSockets(environ)
        self.assertEqual(environ, {"HOME": "/"})
        return found

    def test_names(self) -> None:
        """Descriptors begin at 3, and are found by the names of their units; the environment has them no more."""
        self.assertEqual(self.passed("imap:imaps"), {"systemd:imap": 3, "systemd:imaps": 4})

    def test_several(self) -> None:
        """Of several sockets of the same name each is there."""
        expected = {"systemd:a": 3, "systemd:b": 4, "systemd:a:1": 5, "systemd:a:2": 6}
        self.assertEqual(self.passed("a:b:a:a"), expected)

    def test_anothers(self) -> None:
        """What was passed to another process is not ours."""
        self.assertEqual(self.passed("imap", pid=1), {})

    def test_none(self) -> None:
        """Without systemd there are none."""
        self.assertEqual(passedSockets({}), {})
