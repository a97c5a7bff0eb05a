"""
The tests that need a checkout, run from a copy without it, like an installation.
"""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

import mailgate

MODULES = ("test_documentation", "test_etc", "test_layers", "test_registry", "test_requirements", "test_snippets")


class InstalledTests(SynchronousTestCase):
    """C{python -m twisted.trial mailgate.test.NAME} in an installation."""

    def test_skipped(self) -> None:
        """Tests that cannot run there are skipped; the others run, and none fails."""
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        # Python names modules by the link, which has neither documents nor etc/ beside it.
        os.symlink(os.path.dirname(os.path.abspath(mailgate.__file__)), os.path.join(folder, "mailgate"))
        modules = [f"mailgate.test.{name}" for name in MODULES]
        command = [sys.executable, "-m", "twisted.trial", "--reporter=summary", *modules]
        environment = {**os.environ, "PYTHONPATH": folder}
        ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        # The last line: seconds, tests, tests, errors, failures, skips.
        counted = [int(number) for number in ran.stdout.split()[-5:]]
        self.assertEqual(counted[2:4], [0, 0], ran.stdout)
        self.assertTrue(0 < counted[4] < counted[0], ran.stdout)
