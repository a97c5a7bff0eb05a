"""
Tests of L{mailgate.system.reparenting}, in separate processes.
"""

from __future__ import annotations

import signal
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.gateway import environment

PROGRAM = """
import os, signal, sys, time
from mailgate.system.reparenting import Parent
first = os.getpid()
parent = Parent.fork()
assert os.getppid() == first != os.getpid()
"""


class ParentTests(SynchronousTestCase):
    """The exit of the parent, and its child."""

    def start(self, program: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM + program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def result(self, program: str) -> tuple[int, str, str]:
        process = self.start(program)
        output, errors = process.communicate(timeout=30)
        return process.returncode, output, errors

    def test_left(self):
        """
        After leave the parent has exited with status 0, and is no longer the parent of the child, however that ends.
        """
        program = "parent.leave(); print(os.getppid() == first, flush=True); sys.exit(7)"
        self.assertEqual(self.result(program), (0, "False\n", ""))

    def test_status(self):
        """Without leave the parent exits with the status of the child."""
        self.assertEqual(self.result("sys.exit('bad luck')"), (1, "", "bad luck\n"))
        self.assertEqual(self.result("sys.exit(78)"), (78, "", ""))

    def test_signal(self):
        """Without leave the parent ends by the signal that ended the child."""
        for number in (signal.SIGKILL, signal.SIGTERM):
            self.assertEqual(self.result(f"os.kill(os.getpid(), {int(number)})"), (-number, "", ""))

    def test_term(self):
        """The parent passes on SIGTERM."""
        process = self.start(
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); print('up', flush=True); time.sleep(30)"
        )
        self.assertEqual(process.stdout.readline(), "up\n")
        process.terminate()
        self.assertEqual(process.wait(30), 5)

    def test_gone(self):
        """A parent that was killed can be left."""
        program = "os.kill(first, signal.SIGKILL)\nwhile os.getppid() == first: pass\nparent.leave(); print('on')"
        self.assertEqual(self.result(program), (-signal.SIGKILL, "on\n", ""))
