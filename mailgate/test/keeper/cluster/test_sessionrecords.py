"""Tests for L{mailgate.keeper.cluster.sessionrecords}."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.cluster.sessionrecords import SessionRecords, readRow
from mailgate.keeper.feed import rowOf
from mailgate.keeper.messages import WireError
from mailgate.keeper.sessions import isSession
from mailgate.store.seal import Seal
from mailgate.testing.fakes import makeSession

ID = "g1.5g0qa.7k"


def row(**changes: Any) -> list[Any]:
    """What a process tells of a session."""
    given = {"client": "[2001:db8::1]:40123", "user": "jöe@example.org".encode(), "backend": "10.0.0.1:143", **changes}
    client = given.pop("client")
    return rowOf(makeSession("imap", "0.0.0.0:143", client, 1000.5, id=ID, **given), "imaps")


class SessionRecordsTests(SynchronousTestCase):
    """Records in the store."""

    def setUp(self) -> None:
        self.records = SessionRecords(Seal(bytes(32)), lambda: 1060.75)

    def sealed(self, given: list[Any]) -> bytes:
        return self.records.close("g1", ID, readRow(given)[4])

    def test_row(self) -> None:
        """A record comes back in the form of lists. What is not known is null."""
        found = self.records.read("g1", ID, self.sealed(row()))
        assert found is not None
        self.assertEqual(
            found,
            {
                "id": ID,
                "gateway": "g1",
                "worker": "5g0qa",
                "protocol": "imap",
                "server": "imaps",
                "client": {"address": "2001:db8::1", "port": 40123},
                "user": "jöe@example.org",
                "backend": "10.0.0.1:143",
                "tls": None,
                "method": None,
                "phase": "relay",
                "since": "1970-01-01T00:16:40Z",
                "age": 60.25,
                "idle": None,
                "received": None,
                "sent": None,
                "at": 1000,
            },
        )
        self.assertTrue(isSession({**found, "received": 0, "sent": 0}))
        json.dumps(found)

    def test_unix(self) -> None:
        """The client of a unix socket has no port; there may be no backend; bytes that are no UTF-8 are shown."""
        found = self.records.read("g1", ID, self.sealed(row(client="unix:", backend="", user=b"j\xffe")))
        assert found is not None
        self.assertEqual((found["client"], found["backend"]), ({"address": "unix:", "port": 0}, None))
        self.assertEqual(found["user"], "j\ufffde")

    def test_short(self) -> None:
        """A record has no more than is needed, and nothing of it can be read."""
        sealed = self.sealed(row(user=b"joe@example.org"))
        self.assertLess(len(sealed), 135)
        self.assertNotIn(b"joe", sealed)

    def test_damaged(self) -> None:
        """A record that was moved, changed, or sealed by a stranger is none. So is what no process can have told."""
        sealed = self.sealed(row())
        other = SessionRecords(Seal(b"x" * 32), lambda: 0.0)
        self.assertIsNone(self.records.read("g2", ID, sealed))
        self.assertIsNone(self.records.read("g1", "g1.5g0qa.7l", sealed))
        self.assertIsNone(self.records.read("g1", ID, sealed[:-1]))
        self.assertIsNone(self.records.read("g1", ID, b""))
        self.assertIsNone(other.read("g1", ID, sealed))
        moments = [b'["a","b","c","d","e",%b]' % moment for moment in (b"-1", b'"secret"', b"true", b"1e300", b"null")]
        others = b'["\\u0100","b","c","d","e",1]', b'["a","b","c","d",7,1]', b'["a","b","c","d","%b",1]' % (b"x" * 1025)
        for content in (b"", b"{}", b"[]", b"[1]", b"\xff", b"[" * 10000, *moments, *others):
            self.assertIsNone(self.records.read("g1", ID, self.records.close("g1", ID, content)), content)
        for id in ("x", "a.b.c.d"):
            content = readRow(row())[4]
            self.assertIsNone(self.records.read("g1", id, self.records.close("g1", id, content)))

    def test_later(self) -> None:
        """A later release may say more."""
        self.assertIsNotNone(self.records.read("g1", ID, self.records.close("g1", ID, readRow(row())[4][:-1] + b",7]")))
        self.assertEqual(readRow([*row(), "more"]), readRow(row()))

    def test_invalid(self) -> None:
        """What is no session is refused, and not quoted."""
        for change in (
            *((place, value) for place in range(5) for value in (7, None)),
            (0, ""),
            (0, "x" * 25),
            (1, "\u0100"),
            *((place, "x" * 2048) for place in (1, 2, 3)),
            (4, "\ud800"),
            (4, "x" * 8193),
        ):
            given: list[Any] = row()
            given[change[0]] = change[1]
            error = self.assertRaises(WireError, readRow, given)
            self.assertEqual(str(error), "invalid message: no session")
        others: tuple[Any, ...] = (None, [], {}, "secret", row()[:-1])
        for other in others:
            self.assertRaises(WireError, readRow, other)
