# -*- test-case-name: mailgate.test.integration.test_entrypoint -*-
"""
An authenticator of another distribution in a gateway with two workers: each builds its own, also after reloads and
upgrades.
"""

from __future__ import annotations

import imaplib
import os
import signal

from mailgate.test.integration.clients import PATIENCE
from mailgate.test.integration.gateway import FOREGROUND
from mailgate.test.integration.procfs import children
from mailgate.test.integration.reloading import PASSWORD, USER
from mailgate.test.integration.upgrading import WORKERS, UpgradeTestCase
from mailgate.test.support.distributions import KIND, writeDistribution

TELLING = """
import os

_build = build

def build(server, default, reactor, journal):
    journal.info("scratch is made in {pid}", pid=os.getpid())
    return _build(server, default, reactor, journal)

SCRATCH = AuthenticatorKind("scratch", "scratch_auth", Settings, SCRATCH.methods, build)
"""
"""It logs the process that builds one."""


class EntryPointTests(UpgradeTestCase):
    """A gateway with an authenticator of another distribution."""

    processes = WORKERS
    starting = FOREGROUND

    def setUp(self):
        super().setUp()
        packages = os.path.join(self.folder, "packages")
        entries = {"scratch_auth": "mailgate_scratch:SCRATCH", "ghost_auth": "mailgate_nowhere:GHOST"}
        writeDistribution(packages, "mailgate_scratch", entries, {"mailgate_scratch": KIND + TELLING})
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": packages})
        self.ports = {("imap", "plain"): self.ports["imap", "plain"]}

    def judged(self, *options: str) -> str:
        """The configuration of one server with those options."""
        port = self.ports["imap", "plain"]
        own = "\n".join(options)
        return f"""
[mailgate]
error_log = gateway.log info
pid = {self.pidFile}
{self.processes}
[server imap]
protocol = imap
listen = 127.0.0.1:{port}
auth_delay = 0
scratch_auth = 127.0.0.1:{self.sandbox["imap"]}
{own}
"""

    def login(self, password: str = PASSWORD) -> str:
        """The reply to a login."""
        with imaplib.IMAP4("127.0.0.1", self.ports["imap", "plain"], timeout=PATIENCE) as client:
            try:
                return client.login(USER, password)[0]
            except imaplib.IMAP4.error as error:
                return str(error)

    def makers(self) -> set[int]:
        """The processes that have built an authenticator."""
        lines = [line for line in self.gateway.log().splitlines() if "scratch is made in " in line]
        return {int(line.rpartition(" ")[2]) for line in lines}

    def workers(self) -> set[int]:
        """The processes that serve new clients."""
        return set(children(children(self.running())[-1]))

    def test_everywhere(self):
        """It judges logins before and after a reload, and after an upgrade, with the current configuration."""
        gateway = self.start(self.judged(f"scratch_password = {PASSWORD}"))
        self.assertEqual(self.login(), "OK")
        self.assertIn("Authentication failed", self.login("wrong"))
        self.told("scratch is made in ", times=2)
        self.assertEqual(self.makers(), self.workers())
        gateway.configure(self.judged("scratch_password = another"))
        self.reload()
        self.assertIn("Authentication failed", self.login())
        gateway.configure(self.judged(f"scratch_password = {PASSWORD}"))
        self.reload()
        self.assertEqual(self.login(), "OK")
        gateway.configure(self.judged(f"scratch_password = {PASSWORD}", "ghost_auth = x"))
        gateway.signal(signal.SIGHUP)
        self.told(
            '[server imap] ghost_auth: the entry point "ghost_auth = mailgate_nowhere:GHOST" of mailgate_scratch 1.0'
            " cannot be imported: ModuleNotFoundError: No module named 'mailgate_nowhere'"
        )
        self.assertEqual(self.login(), "OK")
        gateway.configure(self.judged(f"scratch_password = {PASSWORD}"))
        self.upgraded()
        self.assertEqual(self.login(), "OK")
        self.assertEqual(gateway.status(), 0)
        self.assertNoTraceback()
        self.assertNotIn(PASSWORD, self.gateway.log())
