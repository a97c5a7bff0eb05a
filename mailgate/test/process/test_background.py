"""
Tests for L{mailgate.process.background}. L{mailgate.test.process.test_surroundings} tests that the started process
really waits.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.process.background import Launch, Twistd, result
from mailgate.system.exitstatus import ENDED_SILENTLY
from mailgate.test.support.nowhere import NOWHERE


class BrokenStream(io.StringIO):
    """A standard error on which every write fails."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


class LaunchTests(SynchronousTestCase):
    """Tests for L{Launch} and L{result}, the two ends of one pipe."""

    def setUp(self):
        self.patch(sys, "excepthook", lambda *error: self.hooked.append(error))
        self.hooked: list[Any] = []
        self.hook = sys.excepthook
        self.reading, writing = os.pipe()
        self.addCleanup(os.close, self.reading)
        self.writing = writing
        self.launch = Launch(writing)
        self.stderr = io.StringIO()

    def result(self):
        """Return the status, and the text on standard error."""
        status = result(self.reading, self.stderr)
        return status, self.stderr.getvalue()

    def test_succeed(self):
        """A gateway that serves gives status 0, and nothing is printed."""
        self.launch.succeed()
        self.assertEqual(self.result(), (0, ""))

    def test_remarks(self):
        """Remarks before a success are printed; later remarks are ignored."""
        self.launch.remark("x.log cannot be written")
        self.launch.remark("y.log cannot be written")
        self.launch.succeed()
        self.launch.remark("z.log cannot be written")
        self.assertEqual(self.result(), (0, "x.log cannot be written\ny.log cannot be written\n"))

    def test_fail(self):
        """A failed start gives its status, and all lines of its reason."""
        reason = "\n".join(f"gateway.ini: [server {i}] listen = 127.0.0.1:{i}: cannot be bound" for i in range(100))
        self.launch.fail(reason, 71)
        self.assertEqual(self.result(), (71, f"{reason}\n"))

    def test_first(self):
        """Only the first result counts; the pipe is closed after it."""
        self.launch.fail("a port is taken", 71)
        self.launch.fail("it was stopped", 1)
        self.launch.succeed()
        self.assertEqual(self.result(), (71, "a port is taken\n"))
        self.assertEqual(os.read(self.reading, 100), b"")

    def test_silent(self):
        """A process that exits without a result has failed to start."""
        os.close(self.writing)
        status, told = self.result()
        self.assertEqual(status, ENDED_SILENTLY)
        self.assertEqual(ENDED_SILENTLY, os.EX_OSERR)
        self.assertEqual(told, "the gateway exited before it served and gave no reason; see its error log\n")

    def test_partial(self):
        """So has a process that was killed while it wrote its result."""
        os.write(self.writing, b'[0, "')
        os.close(self.writing)
        self.assertEqual(self.result()[0], ENDED_SILENTLY)

    def test_crash(self):
        """An uncaught exception is a result of one line, and also reaches the previous hook."""
        error = FileNotFoundError(2, "No such file or directory", f"{NOWHERE}/twistd.pid")
        sys.excepthook(type(error), error, None)
        told = f"start failed: FileNotFoundError: [Errno 2] No such file or directory: '{NOWHERE}/twistd.pid'\n"
        self.assertEqual(self.result(), (1, told))
        self.assertEqual(self.hooked, [(FileNotFoundError, error, None)])

    def test_hook(self):
        """After a result, exceptions reach the previous hook only."""
        self.assertIsNot(sys.excepthook, self.hook)
        self.launch.succeed()
        self.assertIs(sys.excepthook, self.hook)

    def test_interrupted(self):
        """The gateway goes on if the waiting process has exited."""
        other, writing = os.pipe()
        launch = Launch(writing)
        os.close(other)
        launch.succeed()
        self.launch.succeed()

    def test_noStandardError(self):
        """A standard error that is closed or fails does not change the status."""
        for stderr in (None, BrokenStream()):
            reading, writing = os.pipe()
            Launch(writing).fail("a port is taken", 71)
            self.assertEqual(result(reading, stderr), 71)
            os.close(reading)


class ClosedStreamsTests(SynchronousTestCase):
    """A start with closed standard streams, as with C{>&-} in a shell."""

    SCRIPT = """
import os, sys
from mailgate.process.background import Launch
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
launch = Launch.intoBackground(None)
os.write(log, b"".join(os.readlink(f"/proc/self/fd/{i}").encode() + b" " for i in range(3) if i != log))
launch.succeed()
"""

    def test_closed(self):
        """Other files keep the descriptors of closed streams; free descriptors become the null device."""
        for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
            path = self.mktemp()
            shell = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", self.SCRIPT, path]
            self.assertEqual(subprocess.run(shell, check=False).returncode, 0, closed)
            with open(path, encoding="utf-8") as opened:
                self.assertEqual(opened.read().split(), ["/dev/null"] * 2, closed)


class TwistdTests(SynchronousTestCase):
    """Tests for L{Twistd}."""

    def test_background(self):
        """The gateway goes into the background without C{--nodaemon}; never under C{twist} or another program."""
        for config, expected in (({"nodaemon": 0}, True), ({"nodaemon": 1}, False), ({}, False), (None, False)):
            self.assertEqual(Twistd(config).isBackground, expected, config)

    def test_owner(self):
        """C{owner} is the user of C{--uid} and the group of C{--gid}, for root alone: it changes to them."""
        self.patch(os, "geteuid", lambda: 0)
        for config, expected in (
            ({"uid": 7, "gid": 8}, (7, 8)),
            ({"uid": 7, "gid": None}, (7, -1)),
            ({"uid": None, "gid": 8}, None),
            (None, None),
        ):
            self.assertEqual(Twistd(config).owner, expected)
        self.patch(os, "geteuid", lambda: 7)
        self.assertIsNone(Twistd({"uid": 7, "gid": 8}).owner)

    def test_ignored(self):
        """C{ignored} yields the log options that are given, not those with their defaults."""
        defaults = {"nodaemon": 0, "logfile": None, "syslog": 0, "prefix": "twisted", "logger": None}
        self.assertEqual(list(Twistd(defaults).ignored()), [])
        self.assertEqual(list(Twistd(None).ignored()), [])
        given = {**defaults, "logfile": "x", "syslog": 1, "prefix": "mail"}
        self.assertEqual(list(Twistd(given).ignored()), ["--logfile", "--syslog", "--prefix"])

    def test_logger(self):
        """twistd itself uses C{--logger}."""
        self.assertFalse(Twistd({"logger": None}).hasLogger)
        self.assertTrue(Twistd({"logger": print}).hasLogger)

    def test_started(self):
        """After the start, twistd finds its original options when it decides where to write its crash log."""
        config = {"nodaemon": 0}
        twistd = Twistd(config)
        config["nodaemon"] = 1
        twistd.started()
        self.assertFalse(config["nodaemon"])
        foreground = {"nodaemon": 1}
        Twistd(foreground).started()
        self.assertEqual(foreground, {"nodaemon": 1})

    def test_pidFile(self):
        """
        The file of C{--pidfile} is removed if it names this process; another's file and a missing one are left alone.
        """
        path = self.mktemp()
        twistd = Twistd({"pidfile": path})
        twistd.removePIDFile()
        for content, stays in ((b"1", True), (b"%d" % os.getpid(), False)):
            with open(path, "wb") as opened:
                opened.write(content)
            twistd.removePIDFile()
            self.assertEqual(os.path.exists(path), stays)
        Twistd(None).removePIDFile()
