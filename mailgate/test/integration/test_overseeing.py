"""
What an operator sees and does while everything changes: reloads, killed processes, an upgrade.
"""

from __future__ import annotations

import os
import re
import signal
import time
from typing import Any

from mailgate.test.integration.adminclient import AdminClient, Observer
from mailgate.test.integration.daemon import slowness, waitUntil
from mailgate.test.integration.gateway import WITH_KEEPER
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.upgrading import WORKERS, UpgradeTestCase

SESSIONS = 200


class OverseeingTests(UpgradeTestCase):
    """Two workers with 200 sessions, whose admin server is asked all the time."""

    processes = WORKERS + WITH_KEEPER

    def setUp(self):
        super().setUp()
        self.start()
        self.admin = AdminClient(f"{self.pidFile}.admin")
        waitUntil(lambda: "keeper" in self.gateway.log(), "the keeper serves")
        self.held: dict[str, RawClient] = {}

    def hold(self, count: int) -> None:
        """Log in with so many clients that stay, and note their sessions."""
        clients = {}
        for _ in range(count):
            client = self.loggedIn("imap")
            clients[client.socket.getsockname()[1]] = client
        new = [row for row in self.admin.sessions(phase="relay", limit=1000) if row["id"] not in self.held]
        self.assertEqual(sorted(row["client"]["port"] for row in new), sorted(clients))
        self.held |= {row["id"]: clients[row["client"]["port"]] for row in new}

    def workers(self) -> list[dict[str, Any]]:
        """The processes that serve clients."""
        found: list[dict[str, Any]] = self.admin.get("workers")["workers"]
        return found

    def keepers(self) -> list[int]:
        """The processes of all keepers so far."""
        return [int(pid) for pid in re.findall(r"keeper (\d+) serves", self.gateway.log())]

    def settled(self, count: int) -> None:
        """Wait until so many keepers have served, and the last one has no predecessor."""
        waitUntil(lambda: len(self.keepers()) == count, f"keeper {count} serves")
        waitUntil(lambda: all(map(self.isGone, self.keepers()[:-1])), "the earlier keepers have exited")

    def test_everything(self):
        """Counters never fall, no login fails, and no session is listed twice or is missing for long."""
        self.hold(SESSIONS)
        observer = Observer(self.admin)
        observer.expect(set(self.held))
        with observer.watching():
            with self.steadyLogins() as done:
                waitUntil(lambda: len(done) > 20, "logins go on")
                self.reload()
                self.settled(2)
                self.killKeeper()
                self.reload()
                self.settled(4)
                sofar = len(done)
                waitUntil(lambda: len(done) > sofar + 20, "logins go on")
                self.upgraded()
                self.settled(5)
                self.killKeeper()
                sofar = len(done)
                waitUntil(lambda: len(done) > sofar + 20, "logins go on")
            # Its sessions end with a worker, and so may a login.
            worker = next(each for each in self.workers() if each["sessions"])
            lost = {each for each in self.held if each.split(".")[-2] == worker["worker"]}
            observer.expect(set(self.held) - lost)
            os.kill(worker["pid"], signal.SIGKILL)
            waitUntil(lambda: {row["id"] for row in self.admin.sessions()} == set(self.held) - lost, "the list is true")
            sofar = observer.scrapes, observer.lists
            waitUntil(lambda: observer.scrapes > sofar[0] + 5 and observer.lists > sofar[1] + 5, "it is asked")
        self.assertEqual("\n".join(observer.faults[:20]), "")
        self.assertLessEqual(observer.broken, 4)
        self.assertEqual(observer.missing(), [])
        self.assertGreater(len(lost), 0)
        for each in set(self.held) - lost:
            self.assertServes(self.held[each])
        self.assertNoTraceback()

    def killKeeper(self) -> None:
        count = len(self.keepers())
        os.kill(self.keepers()[-1], signal.SIGKILL)
        self.settled(count + 1)
        waitUntil(
            lambda: len(self.admin.sessions(limit=1000)) >= len(self.held), "it knows all sessions", 2 * slowness()
        )

    def test_kick(self):
        """A kick is felt within a second, also by sessions of an earlier generation and of an earlier process."""
        self.hold(2)
        self.reload()
        self.hold(2)
        self.upgraded()
        self.hold(2)
        for each, client in self.held.items():
            since = time.monotonic()
            self.assertEqual(self.admin.post("kick", {"id": each, "reason": "moved"})["ended"], 1)
            self.assertEqual(client.rest(), b"")
            self.assertLess(time.monotonic() - since, slowness())
            self.told(f"session {each}, ", 2)
        waitUntil(lambda: self.admin.sessions() == [], "none is left")
        self.assertEqual(self.gateway.log().count('outcome kicked ("moved"'), 6)
        self.assertNoTraceback()

    def test_clean(self):
        """After the stop no process and no socket is left."""
        pids = [*self.keepers(), *(each["pid"] for each in self.workers())]
        self.gateway.signal(signal.SIGTERM)
        self.gateway.status()
        for pid in pids:
            waitUntil(lambda pid=pid: self.isGone(pid), "the process ends")
        left = [name for name in os.listdir(self.folder) if name.startswith("gateway.pid")]
        self.assertEqual(left, [])
