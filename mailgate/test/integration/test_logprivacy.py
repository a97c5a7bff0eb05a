"""
C{log_user}, C{log_address} and JSON lines of a gateway with several workers, across a reload.
"""

from __future__ import annotations

import json
import os
from typing import Any

from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.reloading import PROTOCOLS, QUIT, USER, ReloadTestCase
from mailgate.test.integration.test_workers import WORKERS, WorkersMixin

VISITS = 6 * WORKERS
"""So many that one worker does not serve all of them by chance."""


class PrivacyTests(WorkersMixin, ReloadTestCase):
    """Three workers, and logs in both forms."""

    def objects(self) -> list[dict[str, Any]]:
        """The lines of the log in JSON."""
        with open(os.path.join(self.folder, "gateway.json"), encoding="ascii") as opened:
            return [json.loads(line) for line in opened]

    def visits(self, number: int) -> None:
        """Clients that log in, and out when all are there: one worker alone may serve those that follow each other."""
        visitors = []
        for visit in range(number):
            protocol = list(PROTOCOLS)[visit % len(PROTOCOLS)]
            visitors.append((protocol, self.loggedIn(protocol)))
        for protocol, client in visitors:
            client.send(QUIT[protocol])
            client.rest()
            client.close()

    def test_hash(self) -> None:
        """
        All workers show a user by the same hash, before and after a reload. No line shows the user or the address of a
        client. Every line in JSON is an object.
        """
        privacy = "log_user = hash\nlog_address = network"
        text = self.ini(process=privacy).replace(
            "error_log = gateway.log info", "error_log =\n    gateway.log debug\n    gateway.json info json"
        )
        self.start(text)
        self.visits(VISITS)
        self.reload()
        self.visits(VISITS)
        ends = "connection ended: client 127.0.0.0/24, protocol"
        waitUntil(lambda: self.gateway.log().count(ends) >= 2 * VISITS, "all connections have ended")
        logins = [each for each in self.objects() if each["event"] == "logged_in"]
        self.assertEqual(len(logins), 2 * VISITS)
        self.assertEqual(len({each["user"] for each in logins}), 1)
        self.assertRegex(logins[0]["user"], r"\A#[0-9a-f]{16}\Z")
        self.assertEqual({str(each["client"]) for each in logins}, {"{'address': '127.0.0.0/24', 'port': None}"})
        self.assertGreater(len({each["pid"] for each in logins}), WORKERS)
        user = USER.decode() if isinstance(USER, bytes) else USER
        for line in [*self.gateway.log().splitlines(), *map(json.dumps, self.objects())]:
            self.assertNotIn(user, line)
            self.assertNotIn("client 127.0.0.1", line)

    def test_full(self) -> None:
        """By default both are shown."""
        self.start(self.ini().replace("gateway.log info", "\n    gateway.log info\n    gateway.json info json"))
        self.visits(1)
        waitUntil(lambda: any(each["event"] == "connection_ended" for each in self.objects()), "it has ended")
        (login,) = [each for each in self.objects() if each["event"] == "logged_in"]
        self.assertEqual(login["user"], USER.decode() if isinstance(USER, bytes) else USER)
        self.assertEqual(login["client"]["address"], "127.0.0.1")
        self.assertIsInstance(login["client"]["port"], int)
        self.assertIsInstance(login["times"]["auth"], int | float)
