"""
Tests of L{mailgate.system.reparenting}, in processes of their own.
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
    """What the process that was started does, and what becomes of the one that goes on."""

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
        """Once it is left it has ended well, and is the other's parent no more, whatever comes of that one then."""
        program = "parent.leave(); print(os.getppid() == first, flush=True); sys.exit(7)"
        self.assertEqual(self.result(program), (0, "False\n", ""))

    def test_status(self):
        """Before that it ends with the other's status."""
        self.assertEqual(self.result("sys.exit('bad luck')"), (1, "", "bad luck\n"))
        self.assertEqual(self.result("sys.exit(78)"), (78, "", ""))

    def test_signal(self):
        """Or by the signal that ended the other."""
        for number in (signal.SIGKILL, signal.SIGTERM):
            self.assertEqual(self.result(f"os.kill(os.getpid(), {int(number)})"), (-number, "", ""))

    def test_term(self):
        """A SIGTERM is the other's."""
        process = self.start(
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); print('up', flush=True); time.sleep(30)"
        )
        self.assertEqual(process.stdout.readline(), "up\n")
        process.terminate()
        self.assertEqual(process.wait(30), 5)

    def test_gone(self):
        """One that has been killed can be left all the same."""
        program = "os.kill(first, signal.SIGKILL)\nwhile os.getppid() == first: pass\nparent.leave(); print('on')"
        self.assertEqual(self.result(program), (-signal.SIGKILL, "on\n", ""))
