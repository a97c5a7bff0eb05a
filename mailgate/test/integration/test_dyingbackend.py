"""
A thousand sessions on a server that dies: their clients come back over some seconds, and the gateway serves others in
the meantime.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.faultysite import FaultySite

SESSIONS = 1000
DELAY = 3.0
"""C{max_disconnect_delay}."""

SLACK = 25.0
"""Seconds that a busy machine may add."""

LONGEST = 10.0
"""Seconds that a login elsewhere may take in the meantime. On an idle machine it takes some milliseconds."""

AT_A_TIME = 50
"""Clients that log in at the same time."""


class _Sessions:
    """
    IMAP clients that log in and stay until the gateway closes their connections.

    @ivar ended: when each connection has ended.
    """

    def __init__(self, port: int) -> None:
        self.entered: list[bytes] = []
        self.ended: list[float] = []
        self._port = port
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait until all have ended."""
        self._thread.join(seconds)

    async def _all(self) -> None:
        turns = asyncio.Semaphore(AT_A_TIME)
        await asyncio.gather(*(self._stay(number, turns) for number in range(SESSIONS)))

    async def _stay(self, number: int, turns: asyncio.Semaphore) -> None:
        # Those that cannot log in show in the test, which waits for all of them.
        with contextlib.suppress(OSError):
            async with turns:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                await reader.readline()
                writer.write(f"a LOGIN u{number} wonderland\r\n".encode())
                self.entered.append(await reader.readline())
            with contextlib.suppress(ConnectionError):
                await reader.read()
            self.ended.append(time.monotonic())
            writer.close()


class DyingBackendTests(SynchronousTestCase):
    """A group of one server that dies, and a backup."""

    def test_thousand(self):
        """They are let go over max_disconnect_delay; in the meantime other clients log in at the backup, at once."""
        site = FaultySite(connect=8.0, login=9.0)
        site.group("store", ["A", "B backup"], f"max_disconnect_delay = {DELAY:g}s")
        site.start()
        self.addCleanup(site.stop)
        self.assertEqual(site.login("store"), "OK this is A")
        waitUntil(lambda: "connection ended" in site.gateway.log(), "that session has ended")
        before = len(site.gateway.descriptors())
        sessions = _Sessions(site.at("store").port)
        waitUntil(lambda: len(sessions.entered) == SESSIONS, "all have logged in", 60)
        self.assertEqual({answer.strip() for answer in sessions.entered}, {b"a OK this is A"})
        self.assertEqual(sessions.ended, [])
        began = time.monotonic()
        site.backends["store", "A"].die()
        longest = 0.0
        while len(sessions.ended) < SESSIONS and time.monotonic() - began < DELAY + 2 * SLACK:
            login = time.monotonic()
            self.assertEqual(site.login("store"), "OK this is B")
            longest = max(longest, time.monotonic() - login)
        sessions.join(SLACK)
        after = sorted(moment - began for moment in sessions.ended)
        self.assertEqual(len(after), SESSIONS)
        self.assertLess(longest, LONGEST)
        # A third goes at once, the last one at about the end.
        self.assertGreater(after[-1], DELAY / 2)
        self.assertLess(after[-1], DELAY + SLACK)
        self.assertLess(sum(moment < DELAY / 2 for moment in after), 0.75 * SESSIONS)
        waitUntil(lambda: len(site.gateway.descriptors()) <= before, "no descriptor is left open")
        self.assertNotIn("Traceback", site.gateway.log())
