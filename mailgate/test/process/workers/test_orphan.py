"""
Tests of L{mailgate.process.workers.orphan}.
"""

from __future__ import annotations

import os
import sys

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from mailgate.process.workers.orphan import Orphan


class OrphanTests(TestCase):
    """Orphaned workers."""

    timeout = 30

    def spawn(self, script: str) -> int:
        return os.posix_spawn(sys.executable, [sys.executable, "-c", script], os.environ)

    @inlineCallbacks
    def test_reaped(self):
        """The worker is reaped if this process is its parent, as the first process of a container is."""
        from twisted.internet import reactor

        pid = self.spawn("")
        yield Orphan(reactor, pid, None).ended
        self.assertRaises(ChildProcessError, os.waitpid, pid, os.WNOHANG)

    @inlineCallbacks
    def test_hangs(self):
        """A worker that is still draining after the deadline is killed."""
        from twisted.internet import reactor

        yield Orphan(reactor, self.spawn("import time; time.sleep(600)"), 0.1).ended
