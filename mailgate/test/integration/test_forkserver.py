"""Tests for L{mailgate.test.integration.forkserver}, with small applications that twistd runs."""

import json
import os
import signal
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.daemon import shared, waitUntil
from mailgate.test.integration.forkserver import ForkServer, isSwitchedOn
from mailgate.test.integration.gateway import FOREGROUND, environment
from mailgate.test.integration.procfs import children, runs, state
from mailgate.test.integration.together import together

APPLICATION = """
from twisted.application.service import Application
application = Application("test")
"""

TELLING = """
import gc, json, os, random, signal, sys
report = {
    "argv": sys.argv,
    "command": sys.orig_argv,
    "path": sys.path,
    "folder": os.getcwd(),
    "environ": dict(os.environ),
    "open": [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")],
    "inheritable": [os.get_inheritable(number) for number in range(3)],
    "input": os.readlink("/proc/self/fd/0"),
    "signals": {each.name: str(signal.getsignal(each)) for each in signal.valid_signals() if hasattr(each, "name")},
    "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "collector": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()],
    "group": os.getpgrp(),
    "reactor": "twisted.internet.reactor" in sys.modules,
}
with open("report.json", "w") as opened:
    json.dump([report, random.random()], opened)
print("on standard output")
print("on standard error", file=sys.stderr)
sys.exit(7)
"""
"""Ends while twistd loads it, with its surroundings in a file."""


class _Server(ForkServer):
    """One for all tests that leave it as it is."""

    def stop(self):
        self.end()


testSuite = together(__name__)


class ForkServerTests(SynchronousTestCase):
    """A fork server, and its children."""

    def setUp(self):
        self.environ = environment()
        self.server = shared("forkserver", lambda: _Server(self.environ))
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)

    def command(self, text):
        with open("application.py", "w", encoding="ascii") as opened:
            opened.write(text)
        return [*FOREGROUND, "-y", "application.py"]

    def start(self, text, **more):
        command = self.command(text)
        with open("output", "wb") as output:
            return self.server.start(command, output, {**self.environ, **more})

    def said(self):
        with open("output", encoding="utf-8") as opened:
            return opened.read()

    def report(self):
        with open("report.json", encoding="utf-8") as opened:
            return json.load(opened)

    def test_sameAsCommand(self):
        """A child has the surroundings and the exit status of a command, and another state of its random numbers."""
        more = {"MAILGATE_OWN": "ä\udcff", "TZ": "Asia/Tokyo"}
        done = subprocess.run(
            self.command(TELLING),
            env={**self.environ, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        expected, _ = self.report()
        numbers = set()
        for _ in range(2):
            child = self.start(TELLING, **more)
            self.assertEqual(child.wait(60), done.returncode)
            given, number = self.report()
            numbers.add(number)
            self.assertEqual(given, expected)
            self.assertEqual(sorted(self.said().splitlines()), sorted((done.stdout + done.stderr).splitlines()))
        self.assertEqual(done.returncode, 7)
        self.assertEqual(expected["open"], ["0", "1", "2"])
        self.assertEqual(len(numbers), 2)

    def test_reason(self):
        """A child that exits with a reason prints it, and has status 1."""
        child = self.start("import os, sys\nsys.exit('a reason')\n")
        self.assertEqual(child.wait(60), 1)
        self.assertIn("a reason\n", self.said())

    def test_signal(self):
        """
        A child runs until it gets a signal, whose number is its status if it kills it. Then it is gone, and no zombie.
        Further signals are sent to nobody.
        """
        running = self.start(APPLICATION)
        killed = self.start(APPLICATION)
        self.assertIsNone(running.poll())
        with self.assertRaises(subprocess.TimeoutExpired):
            running.wait(0.01)
        waitUntil(lambda: "reactor class" in self.said(), "it runs")
        self.assertEqual(sorted(children(self.server.process.pid)), sorted([running.pid, killed.pid]))
        killed.kill()
        self.assertEqual(killed.wait(60), -signal.SIGKILL)
        running.send_signal(signal.SIGTERM)
        self.assertEqual(running.wait(60), -signal.SIGTERM)
        self.assertEqual((running.poll(), running.returncode), (-signal.SIGTERM, -signal.SIGTERM))
        running.send_signal(signal.SIGTERM)
        self.assertEqual([state(each.pid) for each in (running, killed)], ["", ""])
        self.assertEqual(children(self.server.process.pid), [])

    def test_serverDies(self):
        """If the fork server dies, its children are killed, and their tests fail."""
        self.server = ForkServer(self.environ)
        self.addCleanup(self.server.end)
        running = self.start(APPLICATION)
        self.server.process.kill()
        self.server.process.wait(60)
        with self.assertRaisesRegex(AssertionError, "the fork server has ended"):
            running.wait(60)
        waitUntil(lambda: state(running.pid) in ("", "Z"), "nothing is left running")
        with self.assertRaisesRegex(AssertionError, "the fork server cannot be asked|the fork server has ended"):
            self.start(APPLICATION)

    def test_testsEnd(self):
        """
        The fork server ends when the process of the tests closes its socket, as it does at its own end. Its children do
        not.
        """
        self.server = ForkServer(self.environ)
        running = self.start(APPLICATION)
        self.server.end()
        self.assertEqual(self.server.process.returncode, 0)
        self.assertTrue(runs(running.pid))
        os.kill(running.pid, signal.SIGKILL)

    def test_fits(self):
        """Variables that an interpreter reads at its start must be those of the fork server."""
        self.assertTrue(self.server.fits({**self.environ, "HOME": "/elsewhere"}))
        for more in ({"PYTHONPATH": "/elsewhere"}, {"PYTHONOPTIMIZE": "2"}, {"LC_ALL": "nowhere"}):
            self.assertFalse(self.server.fits({**self.environ, **more}), more)


class ChoiceTests(SynchronousTestCase):
    """When gateways are forked."""

    def test_isSwitchedOn(self):
        """Everything starts for real if the environment says so, and in the pass over the other transports."""
        self.assertTrue(isSwitchedOn({}))
        self.assertFalse(isSwitchedOn({"MAILGATE_FORK": "off"}))
        self.assertFalse(isSwitchedOn({"MAILGATE_USE": "reactor"}))

    def test_interpreter(self):
        """The command of a real start is that of this interpreter."""
        self.assertEqual(FOREGROUND[0], sys.executable)
