"""
A configuration, and the service that the twistd plugin makes from it.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile

from twisted.trial.unittest import TestCase

from mailgate.process import rights, twistd
from mailgate.tap import Options, makeService
from mailgate.test.integration.daemon import freePort

__all__ = ["GOOD", "LAST", "TapCase"]

GOOD = """
[mailgate]
error_log = {log} info
[mail]
auth_http = http://127.0.0.1:9/auth
[server imap]
protocol = imap
listen = 127.0.0.1:{port}
"""

LAST = GOOD.count("\n") + 1
"""The number of the line after it."""


class TapCase(TestCase):
    """A configuration in a file, with standard output and standard error in memory."""

    timeout = 30

    def setUp(self):
        self.stderr, self.stdout = io.StringIO(), io.StringIO()
        self.patch(sys, "__stderr__", self.stderr)
        self.patch(sys, "__stdout__", self.stdout)
        # Keep the limits of the test process.
        self.raised = []
        self.patch(twistd, "raiseOpenFiles", lambda: self.raised.append(True))
        self.limited = []
        self.patch(twistd, "limitOpenFiles", self.limited.append)
        # Keep its user and groups.
        self.become = []
        self.patch(rights, "becomeUser", self.become.append)
        self.tuned = []
        self.patch(twistd, "tuneCollector", lambda: self.tuned.append(True))
        # The directory of trial may be too long for the path of a unix socket beside the pid file.
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.log = os.path.join(self.folder, "mailgate.log")
        self.port = freePort()

    def make(self, text=GOOD, config=None):
        """Return the service for the configuration C{text}; C{config} are the options of twistd itself."""
        path = os.path.join(self.folder, "gateway.ini")
        with open(path, "w", encoding="utf-8") as opened:
            opened.write(text.format(log=self.log, port=self.port))
        options = Options()
        options.parseOptions(["--config", path])
        options.parent = config
        return makeService(options)

    def assertExits(self, status, run, *arguments):
        """Check that C{run} exits with C{status}, and return the lines on standard error."""
        error = self.assertRaises(SystemExit, run, *arguments)
        self.assertEqual(error.code, status)
        self.assertEqual(self.stdout.getvalue(), "")
        return self.stderr.getvalue().splitlines()

    def logged(self):
        with open(self.log, encoding="utf-8") as opened:
            return opened.read()
