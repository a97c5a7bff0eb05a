"""
Tests for L{mailgate.system.systemd}, with a socket in the place of systemd's.
"""

from __future__ import annotations

import os
import shutil
import socket
import time

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.system.systemd import Notifier, NotifySettings, passedSockets
from mailgate.test.integration.daemon import newFolder


class NotifySettingsTests(SynchronousTestCase):
    """Tests for L{NotifySettings}."""

    def test_environment(self) -> None:
        """Socket and watchdog come from the environment, and the variables are removed."""
        environ = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7", "HOME": "/"}
        self.assertEqual(NotifySettings.of(environ, 7), NotifySettings("/run/notify", 30.0))
        self.assertEqual(environ, {"HOME": "/"})

    def test_nobody(self) -> None:
        """Without systemd there is no socket."""
        self.assertEqual(NotifySettings.of({}, 7), NotifySettings())

    def test_nonsense(self) -> None:
        """Malformed values are ignored."""
        for usec in ("", "0", "-5", "often", "²"):
            settings = NotifySettings.of({"NOTIFY_SOCKET": "relative", "WATCHDOG_USEC": usec}, 7)
            self.assertEqual(settings, NotifySettings(), usec)

    def test_anothers(self) -> None:
        """A watchdog for another process is ignored."""
        environ = {"NOTIFY_SOCKET": "@notify", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "8"}
        self.assertEqual(NotifySettings.of(environ, 7), NotifySettings("@notify"))

    def test_handedOn(self) -> None:
        """Another process gets the same settings, whatever its pid is."""
        settings = NotifySettings("@notify", 2.5)
        self.assertEqual(NotifySettings.of(settings.environ(), 99), settings)
        self.assertEqual(NotifySettings(None, 2.5).environ(), {})


class NotifierTests(SynchronousTestCase):
    """Tests for L{Notifier}."""

    def setUp(self) -> None:
        self.folder = newFolder("notify")
        self.addCleanup(shutil.rmtree, self.folder)
        self.place = os.path.join(self.folder, "notify")
        self.clock = Clock()
        self.notifier = Notifier(NotifySettings(self.place, 10.0), self.clock)

    def listen(self, address: str) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listening.close)
        listening.bind(address)
        listening.setblocking(False)
        return listening

    def heard(self, listening: socket.socket) -> list[dict[str, str]]:
        """Return all notifications, each as a mapping."""
        said: list[dict[str, str]] = []
        while True:
            try:
                text = listening.recv(4096).decode()
            except BlockingIOError:
                return said
            said.append(dict(line.split("=", 1) for line in text.split("\n")))

    def test_ready(self) -> None:
        """ready notifies that the gateway serves, and the pid of the main process."""
        systemd = self.listen(self.place)
        self.notifier.ready("serving")
        ready = {"READY": "1", "MAINPID": str(os.getpid()), "STATUS": "serving"}
        self.assertEqual(self.heard(systemd), [ready, {"WATCHDOG": "1"}])

    def test_abstract(self) -> None:
        """An abstract name is supported."""
        name = f"mailgate-test-{os.getpid()}"
        systemd = self.listen(f"\0{name}")
        Notifier(NotifySettings(f"@{name}"), self.clock).stopping("draining")
        self.assertEqual(self.heard(systemd), [{"STOPPING": "1", "STATUS": "draining"}])

    def test_reloading(self) -> None:
        """reloading notifies the time of the reload, in microseconds."""
        systemd = self.listen(self.place)
        before = time.monotonic_ns() // 1000
        self.notifier.reloading()
        (said,) = self.heard(systemd)
        self.assertEqual((said["RELOADING"], said["STATUS"]), ("1", "reloading"))
        self.assertTrue(before <= int(said["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000)

    def test_watchdog(self) -> None:
        """There are two signs of life in each period of the watchdog, however often ready is called."""
        systemd = self.listen(self.place)
        self.notifier.ready("serving")
        self.notifier.ready("serving")
        self.heard(systemd)
        self.clock.pump([5.0, 4.9])
        self.assertEqual(self.heard(systemd), [{"WATCHDOG": "1"}])
        self.clock.advance(0.2)
        self.assertEqual(self.heard(systemd), [{"WATCHDOG": "1"}])

    def test_noWatchdog(self) -> None:
        """Without a watchdog there are no signs of life."""
        systemd = self.listen(self.place)
        Notifier(NotifySettings(self.place), self.clock).ready("serving")
        self.assertEqual(len(self.heard(systemd)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_handOver(self) -> None:
        """handOver names the new main process, and ends the signs of life."""
        systemd = self.listen(self.place)
        self.notifier.ready("serving")
        self.heard(systemd)
        self.notifier.handOver(4711)
        self.assertEqual(self.heard(systemd), [{"MAINPID": "4711"}])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nobodyListens(self) -> None:
        """It does not matter if systemd does not listen."""
        self.notifier.ready("serving")
        self.notifier.reloading()
        self.notifier.close()

    def test_neverWaits(self) -> None:
        """It does not block if the queue of the socket is full."""
        systemd = self.listen(self.place)
        for _ in range(5000):
            self.notifier.stopping("draining")
        self.assertLess(len(self.heard(systemd)), 5000)

    def test_nowhere(self) -> None:
        """Without systemd nothing is sent, and no timer runs."""
        Notifier(NotifySettings(), self.clock).ready("serving")
        self.assertEqual(self.clock.getDelayedCalls(), [])


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
        """Descriptors begin at 3 and are found by the names of their units. The variables are removed."""
        self.assertEqual(self.passed("imap:imaps"), {"systemd:imap": 3, "systemd:imaps": 4})

    def test_several(self) -> None:
        """Several sockets with the same name are all there."""
        expected = {"systemd:a": 3, "systemd:b": 4, "systemd:a:1": 5, "systemd:a:2": 6}
        self.assertEqual(self.passed("a:b:a:a"), expected)

    def test_anothers(self) -> None:
        """Sockets for another process are ignored."""
        self.assertEqual(self.passed("imap", pid=1), {})

    def test_none(self) -> None:
        """Without systemd there are no sockets."""
        self.assertEqual(passedSockets({}), {})
