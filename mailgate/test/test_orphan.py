"""
Tests of L{mailgate.orphan}.
"""

from __future__ import annotations

import os
import sys

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from mailgate.orphan import Orphan


class OrphanTests(TestCase):
    """A worker that has ended."""

    timeout = 30

    @inlineCallbacks
    def test_reaped(self):
        """Where orphans are ours, as they are of a container's first process, nothing remains of it."""
        from twisted.internet import reactor

        pid = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], os.environ)
        yield Orphan(reactor, pid).ended
        self.assertRaises(ChildProcessError, os.waitpid, pid, os.WNOHANG)
