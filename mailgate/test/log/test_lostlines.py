"""
Tests for L{mailgate.log.lostlines}, and for logs in files that cannot be written.
"""

from __future__ import annotations

import io
import os
import resource
from contextlib import contextmanager
from typing import Any

from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailgate.log.errorlog import ErrorLogs
from mailgate.log.journal import Journal
from mailgate.log.lostlines import LostLines, StreamWriter
from mailgate.log.settings import ErrorLog


@contextmanager
def largestFile(size):
    """Limit the files of this process to C{size} bytes. As with a full disk, part of a line may be written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class LostLinesTests(SynchronousTestCase):
    """Tests for L{LostLines}."""

    def test_counted(self):
        """
        Lines are counted until the log reports them. The first one causes an alarm. The reason is that of the last one.
        """
        alarms: list[Any] = []
        lost = LostLines("x.log", alarms.append, lambda: 1763842383.0)
        for lines, code in ((1, 28), (3, 5)):
            lost.add(lines, OSError(code, os.strerror(code)))
        self.assertEqual(lost.count, 4)
        self.assertEqual(
            [formatEvent(alarm) for alarm in alarms],
            ["cannot write to x.log; lines are lost: No space left on device"],
        )
        event = lost.event()
        self.assertEqual(formatEvent(event), "4 lines were lost because x.log could not be written: Input/output error")
        self.assertIs(event["log_level"], LogLevel.error)
        self.assertEqual(event["log_time"], 1763842383.0)
        lost.clear()
        lost.add(1, OSError(28, "No space left on device"))
        self.assertEqual(
            formatEvent(lost.event()), "1 line was lost because x.log could not be written: No space left on device"
        )
        self.assertEqual(len(alarms), 2)


class FileTests(SynchronousTestCase):
    """A log file."""

    def setUp(self):
        self.stderr = io.StringIO()
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.path = os.path.join(self.folder, "x.log")
        self.logs = ErrorLogs(self.stderr)
        self.addCleanup(self.logs.retain, ())

    def journal(self, path=None):
        return Journal(observer=self.logs.observer([ErrorLog(self.path if path is None else path)]))

    def texts(self, text):
        """Return the lines of C{text} without time and pid."""
        return [line.split("] ", 1)[-1].removeprefix(f"{os.getpid()}: ") for line in text.splitlines()]

    def written(self):
        with open(self.path, encoding="utf-8") as opened:
            return self.texts(opened.read())

    def test_full(self):
        """
        Lines that cannot be written raise nothing. They cause one line on standard error, and are reported before the
        next line that can be written.
        """
        os.symlink("/dev/full", self.path)
        journal = self.journal()
        told: list[str] = []
        self.logs.onLoss = told.append
        for _ in range(3):
            journal.error("lost")
        alarm = f"cannot write to {self.path}; lines are lost: No space left on device"
        self.assertEqual((self.texts(self.stderr.getvalue()), told), ([alarm], [alarm]))
        os.unlink(self.path)
        self.assertEqual(list(self.logs.reopen()), [])
        lost = f"3 lines were lost because {self.path} could not be written: No space left on device"
        # At once: the next line may come much later.
        self.assertEqual(self.written(), [lost])
        journal.error("one")
        journal.error("two")
        self.assertEqual(self.written(), [lost, "one", "two"])
        self.assertEqual(self.texts(self.stderr.getvalue()), [alarm])

    def test_partial(self):
        """A line that was written in part is lost, and the next line begins on a line of its own."""
        journal = self.journal()
        journal.error("one")
        with largestFile(os.path.getsize(self.path) + 10):
            journal.error("two")
            journal.error("three")
        journal.error("four")
        first, torn, told, last = self.written()
        self.assertEqual((first, last), ("one", "four"))
        self.assertEqual(len(torn), 10)
        self.assertEqual(told, f"2 lines were lost because {self.path} could not be written: File too large")

    def test_reopenFull(self):
        """A new file is used even if it cannot be written. The message does not say that the old one stays."""
        journal = self.journal()
        journal.error("one")
        os.rename(self.path, f"{self.path}.1")
        os.symlink("/dev/full", self.path)
        self.assertEqual(list(self.logs.reopen()), [])
        journal.error("two")
        self.path += ".1"
        self.assertEqual(self.written(), ["one"])
        self.assertIn(".log; lines are lost: No space left", self.stderr.getvalue())

    def test_reopenFromFull(self):
        """If the old file could not be written, the new one is used all the same."""
        journal = self.journal()
        with largestFile(10):
            journal.error("lost")
        os.rename(self.path, f"{self.path}.1")
        self.assertEqual(list(self.logs.reopen()), [])
        journal.error("one")
        lost = f"1 line was lost because {self.path} could not be written: File too large"
        self.assertEqual(self.written(), [lost, "one"])

    def test_closeFails(self):
        """If only closing the old file fails, the message says that the new file is in use."""
        journal = self.journal()
        os.rename(self.path, f"{self.path}.1")
        close = os.close

        def closeAndFail(descriptor):
            close(descriptor)
            raise OSError(28, "No space left on device")

        self.patch(os, "close", closeAndFail)
        self.patch(os, "geteuid", lambda: 4711)
        (line,) = self.logs.reopen()
        told = f"reopened {self.path}, but the last lines of the old file may be lost: No space left on device"
        self.assertEqual(line, told)
        journal.error("one")
        self.assertEqual(self.written(), ["one"])

    def test_traceback(self):
        """The lines of a traceback are counted as well."""
        os.symlink("/dev/full", self.path)
        journal = self.journal()
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            journal.failure("a defect")
        os.unlink(self.path)
        list(self.logs.reopen())
        (told,) = self.written()
        self.assertRegex(told, r"\A[3-9] lines were lost because ")

    def test_closed(self):
        """After it was closed, nothing is written to another file with the same descriptor."""
        journal = self.journal()
        (file,) = self.logs._files.values()
        descriptor = file.descriptor
        self.logs.retain(())
        other = os.open(self.path, os.O_RDWR)
        self.addCleanup(os.close, other)
        if other != descriptor:
            os.dup2(other, descriptor)
            self.addCleanup(os.close, descriptor)
        journal.error("one")
        self.assertEqual(self.written(), [])

    def test_hasFiles(self):
        """Logs that are not files are not reopened."""
        self.logs.observer([ErrorLog()])
        self.assertFalse(self.logs.hasFiles)
        self.journal()
        self.assertTrue(self.logs.hasFiles)


class StandardErrorTests(SynchronousTestCase):
    """Standard error as a log."""

    def test_full(self):
        """Nothing is raised if standard error cannot be written, and other logs have no traceback for each line."""
        path = self.mktemp()
        with open("/dev/full", "w", encoding="ascii") as full:
            logs = ErrorLogs(full)
            journal = Journal(observer=logs.observer([ErrorLog(), ErrorLog(path)]))
            journal.error("one")
            journal.error("two")
            logs.retain(())
        with open(path, encoding="utf-8") as opened:
            self.assertEqual([line.rsplit(": ", 1)[1] for line in opened.read().splitlines()], ["one", "two"])

    def test_closed(self):
        """Nothing is raised if standard error is closed."""
        for stream in (io.StringIO(), open(os.devnull, "w", encoding="ascii")):  # noqa: SIM115
            writer = StreamWriter(stream, formatEvent, lambda event: None)
            stream.close()
            writer.write("one\n")
            self.assertEqual(writer._losses.count, 1, stream)

    def test_told(self):
        """Lines that standard error lost are reported when it can be written again."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        with open(writing, "w", encoding="ascii") as stream:
            writer = StreamWriter(stream, lambda event: f"{formatEvent(event)}\n", lambda event: None)
            for _ in range(100):
                writer.write("x" * 4095 + "\n")
            kept = os.read(reading, 1 << 20).count(b"\n")
            writer.write("last\n")
            os.set_blocking(reading, False)
            told = os.read(reading, 1 << 20).decode()
        os.close(reading)
        reason = "Resource temporarily unavailable"
        self.assertEqual(
            told, f"{100 - kept} lines were lost because standard error could not be written: {reason}\nlast\n"
        )
