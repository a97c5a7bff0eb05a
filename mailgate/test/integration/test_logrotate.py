"""
C{etc/logrotate}: the real logrotate rotates the log of a running gateway.
"""

from __future__ import annotations

import os
import re
import subprocess

import mailgate
from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.procfs import descriptors
from mailgate.test.integration.programs import programPath, require
from mailgate.test.integration.reloading import QUIT, ReloadTestCase

ETC = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__))), "etc", "logrotate")


class LogrotateTests(ReloadTestCase):
    """C{etc/logrotate/mailgate}, with the paths and the user of this test."""

    def setUp(self) -> None:
        require("logrotate")
        super().setUp()
        with open(os.path.join(ETC, "mailgate"), encoding="utf-8") as opened:
            text = opened.read()
        text = text.replace("/var/log/mailgate/", f"{self.folder}/").replace("/run/mailgate/", f"{self.folder}/")
        self.configuration = os.path.join(self.folder, "logrotate.conf")
        with open(self.configuration, "w", encoding="utf-8") as opened:
            # The user of these tests owns the logs. logrotate refuses folders that others may write to.
            opened.write(re.sub("create 0640 .*", "create 0640", text))
        os.chmod(self.configuration, 0o644)
        os.chmod(self.folder, 0o755)

    def rotate(self, *options: str) -> str:
        """Run logrotate; return what it says."""
        state = os.path.join(self.folder, "state")
        command = [str(programPath("logrotate")), "--verbose", "--state", state, *options, self.configuration]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertNotIn("error:", ran.stderr)
        return ran.stderr

    def visit(self) -> None:
        """A client comes and leaves."""
        client = self.client("imap")
        client.send(QUIT["imap"])
        client.rest()

    def test_rotated(self) -> None:
        """The gateway goes on in a new file with the mode of the configuration; the second rotation compresses."""
        self.start(self.ini(process="pid = mailgate.pid"))
        log = os.path.join(self.folder, "gateway.log")
        for number in (1, 2):
            self.visit()
            self.told("outcome client quit")
            self.rotate("--force")
            waitUntil(lambda: "log files reopened" in self.gateway.log(), "the gateway has reopened its log")
            old = os.path.realpath(f"{log}.1")
            self.assertNotIn(old, descriptors(self.gateway.pid))
            with open(old, encoding="utf-8") as opened:
                self.assertIn("outcome client quit", opened.read())
            self.assertNotIn("outcome client quit", self.gateway.log())
            self.assertEqual(os.stat(log).st_mode & 0o777, 0o640)
            self.assertEqual(os.path.exists(f"{log}.2.gz"), number == 2)

    def test_stopped(self) -> None:
        """Without a gateway and with a stale pid file, the logs are rotated all the same."""
        with open(os.path.join(self.folder, "mailgate.pid"), "w", encoding="ascii") as opened:
            # No process can have this number.
            opened.write("99999999\n")
        with open(os.path.join(self.folder, "gateway.log"), "w", encoding="utf-8") as log:
            log.write("a line\n")
        self.rotate("--force")
        self.assertTrue(os.path.exists(os.path.join(self.folder, "gateway.log.1")))

    def test_nothing(self) -> None:
        """Without logs there is nothing to do, and no error."""
        self.assertIn("Handling 1 logs", self.rotate("--debug"))
