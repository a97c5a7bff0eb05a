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
    """worker_processes."""

    def parse(self, value: str, rest: str = SERVER) -> GatewaySettings:
        return parse(f"[mailgate]\nworker_processes = {value}\n{rest}")

    def test_default(self):
        """Without it there is one process."""
        self.assertEqual(parse(SERVER)[WorkerSettings].count, 1)

    def test_number(self):
        """A number is how many there are."""
        for value in (1, 2, 1024):
            self.assertEqual(self.parse(str(value))[WorkerSettings].count, value)

    def test_auto(self):
        """auto is as many as there are processors for us."""
        self.assertEqual(self.parse("auto")[WorkerSettings].count, processors())

    def test_faulty(self):
        """Anything else is refused, with what would be right."""
        for value in ("0", "-1", "two", "1.5", "1025", "99999999999", "2 3", "Auto"):
            error = self.assertRaises(ConfigurationError, self.parse, value)
            self.assertIn(
                f'[mailgate] worker_processes = {value}: must be "auto" or a number from 1 to 1024', str(error)
            )

    def test_sandbox(self):
        """The sandbox's mailboxes are one process's: several workers are refused, one is not."""
        self.assertEqual(self.parse("1", f"[sandbox]\n{SERVER}")[WorkerSettings].count, 1)
        error = self.assertRaises(ConfigurationError, self.parse, "2", f"[sandbox]\n{SERVER}")
        self.assertIn("[mailgate] worker_processes = 2: must be 1 beside [sandbox]", str(error))

    def test_reactor(self):
        """The transports of Twisted's reactor serve one process: several workers are refused, with the reason."""
        self.assertEqual(self.parse("1\nuse = reactor")[WorkerSettings].count, 1)
        error = self.assertRaises(ConfigurationError, self.parse, "2\nuse = reactor")
        self.assertIn("[mailgate] worker_processes = 2: must be 1 with use = reactor", str(error))

    def test_noEpoll(self):
        """So it is where the system has no epoll."""
        self.patch(EventSettings, "isLean", False)
        error = self.assertRaises(ConfigurationError, self.parse, "2")
        self.assertIn("[mailgate] worker_processes = 2: must be 1 with use = reactor or without epoll", str(error))


class SharedCacheTests(SynchronousTestCase):
    """C{ssl_session_cache = shared:} without tickets is a promise that several workers cannot keep."""

    def problems(self, workers: int, cache: str, tickets: str, tls: str = "on") -> str:
        # There is no certificate, which is always told of.
        text = f"[mailgate]\nworker_processes = {workers}\n{SERVER}starttls = {tls}\n"
        text += f"ssl_session_cache = {cache}\nssl_session_tickets = {tickets}\n"
        try:
            parse(text)
        except ConfigurationError as error:
            return "\n".join(line for line in str(error).split("\n") if "ssl_session_cache" in line)
        return ""

    def test_refused(self):
        """It is refused, with the reason and with what to do about it."""
        told = self.problems(2, "shared:SSL:1m", "off")
        self.assertIn("[server imap] ssl_session_cache: cannot be shared by 2 workers", told)
        self.assertIn("set ssl_session_tickets = on", told)
        self.assertNotEqual(self.problems(2, "builtin shared:SSL:1m", "off"), "")

    def test_allowed(self):
        """One process may, and so may whoever has tickets, promises nothing, or speaks no TLS."""
        for given in (
            (1, "shared:SSL:1m", "off"),
            (2, "shared:SSL:1m", "on"),
            (2, "none", "off"),
            (2, "builtin", "off"),
            (2, "shared:SSL:1m", "off", "off"),
        ):
            self.assertEqual(self.problems(*given), "", given)


class ProcessorsTests(SynchronousTestCase):
    """How many processors there are for us."""

    def setUp(self):
        self.root = self.mktemp()
        self.patch(os, "sched_getaffinity", lambda pid: set(range(8)))

    def write(self, path: str, text: str) -> None:
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)

    def test_affinity(self):
        """They are those that this process may run on, where no cgroup says less."""
        self.assertEqual(processors(self.root), 8)

    def test_unlimited(self):
        """A cgroup without a limit takes nothing away."""
        self.write("proc/self/cgroup", "0::/mail.slice/mailgate.service\n")
        self.write("sys/fs/cgroup/mail.slice/mailgate.service/cpu.max", "max 100000\n")
        self.assertEqual(processors(self.root), 8)

    def test_second(self):
        """cpu.max of the second version of cgroups limits them; a part of one counts as one."""
        self.write("proc/self/cgroup", "0::/mailgate.service\n")
        for quota, expected in ((200000, 2), (150000, 2), (10000, 1), (10000000, 8)):
            self.write("sys/fs/cgroup/mailgate.service/cpu.max", f"{quota} 100000\n")
            self.assertEqual(processors(self.root), expected)

    def test_above(self):
        """So does that of a cgroup above ours, and of the root that a container sees."""
        self.write("proc/self/cgroup", "0::/mail.slice/mailgate.service\n")
        self.write("sys/fs/cgroup/mail.slice/cpu.max", "300000 100000\n")
        self.assertEqual(processors(self.root), 3)
        self.write("sys/fs/cgroup/cpu.max", "200000 100000\n")
        self.assertEqual(processors(self.root), 2)

    def test_first(self):
        """cpu.cfs_quota_us of the first version does the same; -1 is no limit."""
        self.write("proc/self/cgroup", "5:memory:/a\n4:cpu,cpuacct:/mailgate\n")
        self.write("sys/fs/cgroup/cpu/mailgate/cpu.cfs_period_us", "100000\n")
        for quota, expected in ((-1, 8), (250000, 3)):
            self.write("sys/fs/cgroup/cpu/mailgate/cpu.cfs_quota_us", f"{quota}\n")
            self.assertEqual(processors(self.root), expected)

    def test_nonsense(self):
        """What cannot be understood limits nothing, and nowhere but below the mounted folder is looked."""
        self.write("proc/self/cgroup", "garbage\n0::/../../x\n")
        self.write("sys/fs/cgroup/cpu.max", "0 0\n")
        self.write("x/cpu.max", "100000 100000\n")
        self.assertEqual(processors(self.root), 8)

    def test_here(self):
        """On this very system it is at least one."""
        self.assertGreaterEqual(processors(), 1)
