"""
Tests for L{mailgate.system.processors}.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import GatewaySettings, parse
from mailgate.directives import ConfigurationError
from mailgate.lean.reactor import EventSettings
from mailgate.system.processors import WorkerSettings, processors

SERVER = "[server imap]\nprotocol = imap\nlisten = 127.0.0.1:1143\nproxy_pass = 127.0.0.1:143\n"


class SettingsTests(SynchronousTestCase):
    """Tests for C{worker_processes}."""

    def parse(self, value: str, rest: str = SERVER) -> GatewaySettings:
        return parse(f"[mailgate]\nworker_processes = {value}\n{rest}")

    def test_default(self):
        """The default is one process."""
        self.assertEqual(parse(SERVER)[WorkerSettings].count, 1)

    def test_number(self):
        """A number is the number of workers."""
        for value in (1, 2, 1024):
            self.assertEqual(self.parse(str(value))[WorkerSettings].count, value)

    def test_auto(self):
        """auto is the number of processors that this process can use."""
        self.assertEqual(self.parse("auto")[WorkerSettings].count, processors())

    def test_faulty(self):
        """Other values are refused, with the valid ones."""
        for value in ("0", "-1", "two", "1.5", "1025", "99999999999", "2 3", "Auto"):
            error = self.assertRaises(ConfigurationError, self.parse, value)
            self.assertIn(
                f'[mailgate] worker_processes = {value}: must be "auto" or a number from 1 to 1024', str(error)
            )

    def test_sandbox(self):
        """The sandbox keeps its mailboxes in one process, so several workers are refused."""
        self.assertEqual(self.parse("1", f"[sandbox]\n{SERVER}")[WorkerSettings].count, 1)
        error = self.assertRaises(ConfigurationError, self.parse, "2", f"[sandbox]\n{SERVER}")
        self.assertIn("[mailgate] worker_processes = 2: must be 1 with [sandbox]", str(error))

    def test_reactor(self):
        """
        The transports of Twisted's reactor serve one process only, so several workers are refused, with the reason.
        """
        self.assertEqual(self.parse("1\nuse = reactor")[WorkerSettings].count, 1)
        error = self.assertRaises(ConfigurationError, self.parse, "2\nuse = reactor")
        self.assertIn("[mailgate] worker_processes = 2: must be 1 with use = reactor", str(error))

    def test_noEpoll(self):
        """Several workers are refused on a system without epoll, too."""
        self.patch(EventSettings, "isLean", False)
        error = self.assertRaises(ConfigurationError, self.parse, "2")
        self.assertIn("[mailgate] worker_processes = 2: must be 1 with use = reactor or without epoll", str(error))


class SharedCacheTests(SynchronousTestCase):
    """Several workers cannot keep C{ssl_session_cache = shared:} without tickets."""

    def problems(self, workers: int, cache: str, tickets: str, tls: str = "on") -> str:
        # Warnings about a missing certificate do not matter here.
        text = f"[mailgate]\nworker_processes = {workers}\n{SERVER}starttls = {tls}\n"
        text += f"ssl_session_cache = {cache}\nssl_session_tickets = {tickets}\n"
        try:
            parse(text)
        except ConfigurationError as error:
            return "\n".join(line for line in str(error).split("\n") if "ssl_session_cache" in line)
        return ""

    def test_refused(self):
        """It is refused, with the reason and a remedy."""
        told = self.problems(2, "shared:SSL:1m", "off")
        self.assertIn("[server imap] ssl_session_cache: cannot be shared by 2 workers", told)
        self.assertIn("set ssl_session_tickets = on", told)
        self.assertNotEqual(self.problems(2, "builtin shared:SSL:1m", "off"), "")

    def test_allowed(self):
        """It is allowed for one process, with tickets, without a shared cache, and without TLS."""
        for given in (
            (1, "shared:SSL:1m", "off"),
            (2, "shared:SSL:1m", "on"),
            (2, "none", "off"),
            (2, "builtin", "off"),
            (2, "shared:SSL:1m", "off", "off"),
        ):
            self.assertEqual(self.problems(*given), "", given)


class ProcessorsTests(SynchronousTestCase):
    """Tests for L{processors}."""

    def setUp(self):
        self.root = self.mktemp()
        self.patch(os, "sched_getaffinity", lambda pid: set(range(8)))

    def write(self, path: str, text: str) -> None:
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)

    def test_affinity(self):
        """Without limits of cgroups it is the number of processors in the affinity mask."""
        self.assertEqual(processors(self.root), 8)

    def test_unlimited(self):
        """A cgroup without a limit has no effect."""
        self.write("proc/self/cgroup", "0::/mail.slice/mailgate.service\n")
        self.write("sys/fs/cgroup/mail.slice/mailgate.service/cpu.max", "max 100000\n")
        self.assertEqual(processors(self.root), 8)

    def test_second(self):
        """cpu.max of cgroups version 2 is a limit; it is rounded up."""
        self.write("proc/self/cgroup", "0::/mailgate.service\n")
        for quota, expected in ((200000, 2), (150000, 2), (10000, 1), (10000000, 8)):
            self.write("sys/fs/cgroup/mailgate.service/cpu.max", f"{quota} 100000\n")
            self.assertEqual(processors(self.root), expected)

    def test_above(self):
        """cpu.max of a parent cgroup is a limit, and so is that of the root that a container sees."""
        self.write("proc/self/cgroup", "0::/mail.slice/mailgate.service\n")
        self.write("sys/fs/cgroup/mail.slice/cpu.max", "300000 100000\n")
        self.assertEqual(processors(self.root), 3)
        self.write("sys/fs/cgroup/cpu.max", "200000 100000\n")
        self.assertEqual(processors(self.root), 2)

    def test_first(self):
        """cpu.cfs_quota_us of cgroups version 1 is a limit; -1 is none."""
        self.write("proc/self/cgroup", "5:memory:/a\n4:cpu,cpuacct:/mailgate\n")
        self.write("sys/fs/cgroup/cpu/mailgate/cpu.cfs_period_us", "100000\n")
        for quota, expected in ((-1, 8), (250000, 3)):
            self.write("sys/fs/cgroup/cpu/mailgate/cpu.cfs_quota_us", f"{quota}\n")
            self.assertEqual(processors(self.root), expected)

    def test_nonsense(self):
        """Malformed files are no limit. Files outside the mounted folder are not read."""
        self.write("proc/self/cgroup", "garbage\n0::/../../x\n")
        self.write("sys/fs/cgroup/cpu.max", "0 0\n")
        self.write("x/cpu.max", "100000 100000\n")
        self.assertEqual(processors(self.root), 8)

    def test_here(self):
        """On this system it is at least one."""
        self.assertGreaterEqual(processors(), 1)
