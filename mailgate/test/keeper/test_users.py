"""Tests for L{mailgate.keeper.users}."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.users import showUser
from mailgate.test.support.processes import Processes


class UserTests(SynchronousTestCase):
    """L{showUser}."""

    def setUp(self) -> None:
        self.processes = Processes("aaaaa", "bbbbb")
        self.processes.stories = [{"user": "joe", "backend": "10.0.0.9:143", "outcome": "denied"}, {"user": "jane"}]

    def show(self, user: str) -> dict[str, Any]:
        """What is known about a user."""
        keeper: Any = self.processes
        return self.successResultOf(showUser(keeper, user))

    def test_sessions(self) -> None:
        """The user's own sessions, their backends, and the user's stories."""
        for member, backend in (("aaaaa", "a:1"), ("bbbbb", "b:1"), ("bbbbb", "a:1")):
            self.processes.session(member, backend=backend)
        self.processes.session(user=b"jane")
        shown = self.show("joe")
        self.assertEqual([row["id"] for row in shown["sessions"]], ["aaaaa.0001", "bbbbb.0002", "bbbbb.0003"])
        self.assertEqual(shown["backends"], ["a:1", "b:1"])
        self.assertEqual((shown["user"], shown["recent"], shown["next"]), ("joe", self.processes.stories[:1], None))

    def test_gone(self) -> None:
        """Without a session, the backend is that of the last story."""
        shown = self.show("joe")
        self.assertEqual((shown["sessions"], shown["backends"]), ([], ["10.0.0.9:143"]))
        self.assertEqual(self.show("jane")["backends"], [])

    def test_wildcards(self) -> None:
        """A name with wildcards means one user."""
        self.processes.session(user=b"joe")
        self.processes.session(user=b"j*")
        self.assertEqual([row["user"] for row in self.show("j*")["sessions"]], ["j*"])
        self.assertEqual(self.show("*")["sessions"], [])
        keeper: Any = self.processes
        self.assertRaises(ValueError, showUser, keeper, "")
        self.assertRaises(ValueError, showUser, keeper, "x" * 5000)
