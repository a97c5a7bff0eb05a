"""
The live page of a gateway with workers: what happens is in the stream within two seconds, and the stream, the plots and
the alarms outlive reloads and upgrades.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Callable
from typing import Any

from mailgate.test.integration.adminclient import AdminClient, EventStream
from mailgate.test.integration.daemon import slowness, waitUntil
from mailgate.test.integration.gateway import WITH_KEEPER
from mailgate.test.integration.keeping import KeeperTestCase
from mailgate.test.integration.upgrading import WORKERS

SOON = 2.0
"""Seconds until an event must show what has happened, on a machine that has nothing else to do."""


class LivePageTests(KeeperTestCase):
    """One gateway with two workers."""

    processes = WORKERS + WITH_KEEPER

    def setUp(self):
        super().setUp()
        self.start()
        self.admin = AdminClient(f"{self.pidFile}.admin")
        self.stream = self.opened()

    def opened(self) -> EventStream:
        """A new stream, which has its first event."""

        def isOpen() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                found.append(EventStream(f"{self.pidFile}.admin"))
            return bool(found)

        found: list[EventStream] = []
        waitUntil(isOpen, "a keeper accepts viewers")
        self.addCleanup(found[0].close)
        waitUntil(lambda: found[0].events != [], "the stream has begun")
        self.assertEqual(found[0].events[0][1], "overview")
        return found[0]

    def soon(self, isShown: Callable[[], Any], what: str) -> None:
        """Check that the stream shows something within two seconds."""
        began = time.monotonic()
        waitUntil(isShown, what)
        self.assertLess(time.monotonic() - began, SOON * slowness(), what)

    def total(self) -> int:
        """The sessions that the stream has shown last."""
        stats = self.stream.last("stats") or self.stream.last("overview")["stats"]
        total: int = stats["sessions"]["relayed"]
        return total

    def tables(self) -> Any:
        """The tables that it has shown last."""
        return self.stream.last("tables", "overview")

    def alarms(self) -> list[str]:
        """The alarms that it has shown last."""
        found = self.stream.last("alarm")
        return [each["text"] for each in (self.stream.last("overview")["alarms"] if found is None else found)]

    def test_everything(self):
        """Sessions, kicks, refused logins, orders, reloads and an upgrade."""
        client = self.loggedIn("imap")
        self.soon(lambda: self.total() == 1, "the session is shown")
        (row,) = self.admin.sessions(phase="relay")
        self.admin.post("kick", {"id": row["id"]})
        self.assertEqual(client.rest(), b"")
        self.soon(lambda: self.total() == 0, "its end is shown")
        self.client("imap").login("alice", "wrong")
        self.soon(lambda: self.stream.last("login_failed"), "the refused login is shown")
        self.assertEqual(self.stream.last("login_failed")["user"], "alice")
        address = f"127.0.0.1:{self.sandbox['imap']}"
        self.admin.post(f"backends/{address}/down", {})
        states = lambda: {each["address"]: each["state"] for each in self.tables()["backends"]}  # noqa: E731
        self.soon(lambda: states().get(address) == "down", "the backend is down")
        self.soon(lambda: any(address in each for each in self.alarms()), "there is an alarm")
        self.admin.post(f"backends/{address}/up", {})
        self.soon(lambda: not any(address in each for each in self.alarms()), "the alarm is over")
        self.soon(lambda: len(self.tables()["workers"]) == 2, "both workers are shown")
        self.assertIsNone(self.tables()["reload"])

        self.gateway.configure(self.ini(mail="no_such_directive = on"))
        self.assertEqual(self.admin.ask("POST", "/api/1/reload")[0], 409)
        self.soon(lambda: any("no_such_directive" in each for each in self.alarms()), "the refusal is shown")
        self.assertFalse(self.tables()["reload"]["done"])

        before = self.admin.get("history", span="10m")
        self.gateway.configure(self.ini())
        self.reload()
        waitUntil(lambda: self.stream.hasEnded, "the stream ends with its keeper")
        self.stream = self.opened()
        self.soon(lambda: (self.tables()["reload"] or {}).get("done") and self.alarms() == [], "the reload is shown")
        self.assertIn("alice", [each["user"] for each in self.stream.last("overview")["failures"]])
        self.keeps(before)

        self.upgraded()
        waitUntil(lambda: self.stream.hasEnded, "the stream ends with its gateway")
        self.stream = self.opened()
        self.keeps(before)
        for path in ("/", "/plain", "/static/page.js"):
            self.assertEqual(self.admin.ask("GET", path)[0], 200, path)
        self.assertNoTraceback()

    def keeps(self, before: Any) -> None:
        """Check that the plots have the points of an earlier answer."""
        after = self.admin.get("history", span="10m")
        self.assertEqual(after["begin"], before["begin"])
        for name, values in before["series"].items():
            known = after["series"][name]
            # The last point may have been of a second that was not over.
            self.assertEqual(known[: len(values) - 1], values[:-1], name)
