"""
Tests of the observers that write the log, also for systemd.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from typing import Any

from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher, formatEvent, formatTime
from twisted.python import log as legacyLog
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.log.connection import LOGGED_IN, STORY
from mailgate.log.errorlog import ErrorLogs, ProcessLog
from mailgate.log.journal import Journal, oneLine
from mailgate.log.settings import ErrorLog
from mailgate.test.support.journals import NASTY, Told, caught, recorder
from mailgate.testing.fakes import makeSession


class ObserverTests(SynchronousTestCase):
    """Tests for L{ErrorLogs.observer}."""

    def setUp(self):
        self.stderr = io.StringIO()

    def write(self, format: str, level: Any = LogLevel.info, **fields: object) -> str:
        """Return what standard error has after one event."""
        observer = ErrorLogs(self.stderr).observer([ErrorLog(None, LogLevel.info)])
        Logger("test", observer=observer).emit(level, format, **fields)
        written: str = self.stderr.getvalue()
        return written

    def test_interface(self):
        """It provides ILogObserver, so twistd can use it."""
        self.assertTrue(verifyObject(ILogObserver, ErrorLogs(self.stderr).observer([ErrorLog()])))

    def test_line(self):
        """An event is one line: time, level, text."""
        self.assertRegex(
            self.write("client {client} left", client="192.0.2.7"),
            r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[info\] \d+: client 192\.0\.2\.7 left\n\Z",
        )

    def test_moment(self):
        """Each line has the second of its event, in any order of events. An event without a time has none."""
        observer = ErrorLogs(self.stderr).observer([ErrorLog(None, LogLevel.info)])
        moments = (1700000000.0, 1700000000.999, 1700000001.0, 1699999999.5, 1700000000.2, None)
        for moment in moments:
            observer({"log_time": moment, "log_level": LogLevel.info, "log_format": "here"})
        shown = [line.split(" ")[0] for line in self.stderr.getvalue().splitlines()]
        self.assertEqual(shown, [formatTime(moment) for moment in moments])
        self.assertEqual(len(set(shown)), 4)

    def test_pid(self):
        """Each line has the pid, as several processes may write to one file."""
        self.assertIn(f" [info] {os.getpid()}: here\n", self.write("here"))
        self.patch(os, "getpid", lambda: 4711)
        self.assertIn(" [info] 4711: here\n", self.write("here"))

    def test_unwanted(self):
        """An event below the level of all logs is not formatted."""
        told = Told()
        self.assertEqual(self.write("{told}", LogLevel.debug, told=told), "")
        self.assertEqual(told.count, 0)

    def test_injection(self):
        """Control characters in a field or a format that did not pass through printable are escaped."""
        written = self.write("user {user}" + NASTY, LogLevel.error, user=NASTY)
        self.assertEqual(len(written.splitlines()), 1)
        self.assertTrue(written[:-1].isprintable())
        self.assertEqual(written.count(r"joe\r\n2026-01-01"), 2)

    def test_fieldIsNoFormat(self):
        """Braces in the value of a field are not replaced."""
        self.assertIn("user {log_level}", self.write("user {user}", user="{log_level}"))

    def test_brokenFormat(self):
        """An event that cannot be formatted is logged as such, and nothing is raised."""
        self.assertIn("nable to format event", self.write("{missing.attribute}", LogLevel.error))
        self.assertEqual(len(self.stderr.getvalue().splitlines()), 1)

    def test_connections(self):
        """Lines of connections are those that Twisted's formatEvent makes, for any format and fields."""
        session = makeSession("imap", "127.0.0.1:143", "192.0.2.7:40123", 0.0, user=b"100%s", attempts=2)
        fields = {"x": "100 %s {y}", "y": 7, "part": 2.0625, "none": None, "pair": ("%", 1)}
        for format in (
            *(LOGGED_IN, STORY, "{x}, {y}, {part:.3f}", "100 % {x} %s {y} {{z}} %(x)s", "{x}{x} {y}", "{y:.3f} {none}"),
            *("nothing", "100 %", "{{}}", "{x}", "{pair}", "{x!r} {y}", "{part:.1f} {x}", "{x.real} {y}", "{x[0]} {y}"),
            *("{missing} {x}", "{x} {missing}", "{pair} {y:d}", "{x:.3f} {y}", "broken { {x} {y}", "{} {x}", ""),
        ):
            with self.subTest(format):
                self.stderr = io.StringIO()
                logs = ErrorLogs(self.stderr)
                events, keep = recorder()
                observer = LogPublisher(logs.observer([ErrorLog(None, LogLevel.info)]), keep)
                Journal(LogLevel.info, observer).record(format, **(session.story(3.0) | fields))
                expected = oneLine(formatEvent(events[0]))
                self.assertEqual(self.stderr.getvalue().partition(f"{os.getpid()}: ")[2], f"{expected}\n")

    def test_failure(self):
        """A failure has its traceback, with each line indented."""
        observer = ErrorLogs(self.stderr).observer([ErrorLog()])
        Journal(observer=observer).failure("login of {user} failed", caught("boom"), user="joe")
        first, *rest = self.stderr.getvalue().splitlines()
        self.assertTrue(first.endswith(f"[critical] {os.getpid()}: login of joe failed"), first)
        self.assertEqual(rest[0], "    Traceback (most recent call last):")
        self.assertIn("RuntimeError: boom", rest[-1])
        self.assertEqual([line for line in rest if not line.startswith("    ")], [])

    def test_injectionByFailure(self):
        """An exception that quotes a forged event does not look like an event, nor does the message above it."""
        observer = ErrorLogs(self.stderr).observer([ErrorLog()])
        Journal(observer=observer).failure("login of {user} failed", caught(NASTY), user=NASTY)
        written = self.stderr.getvalue()
        lines = written.split("\n")[:-1]
        self.assertEqual(len([line for line in lines if not line.startswith("    ")]), 1)
        self.assertEqual([line for line in lines if not line.isprintable()], [])
        self.assertIn("    2026-01-01T00:00:00+0000 [info] forged", written)

    def test_legacy(self):
        """Events of twisted.python.log are written, too."""
        publisher = legacyLog.LogPublisher(
            publishPublisher=LogPublisher(ErrorLogs(self.stderr).observer([ErrorLog(None, LogLevel.info)]))
        )
        publisher.msg("old\nfashioned")
        self.assertIn(r"old\nfashioned", self.stderr.getvalue())

    def test_stderr(self):
        """Standard error is that of the process at the start, unless another stream is given."""
        self.patch(sys, "stderr", self.stderr)
        logs = ErrorLogs()
        Journal(observer=logs.observer([ErrorLog()])).error("here")
        self.assertIn(f"[error] {os.getpid()}: here\n", self.stderr.getvalue())
        # twistd replaces sys.stderr by a file that logs what is written to it.
        self.patch(sys, "stderr", io.StringIO())
        Journal(observer=logs.observer([ErrorLog()])).error("later")
        self.assertIn(f"[error] {os.getpid()}: later\n", self.stderr.getvalue())


class SystemdTests(SynchronousTestCase):
    """Standard error that is connected to systemd's journal."""

    def write(self, journal: str) -> list[str]:
        """
        Return the lines of an error, a warning and a defect on standard error. C{journal} says whether it is the
        journal.
        """
        with tempfile.TemporaryFile("w+", encoding="utf-8") as stderr:
            status = os.fstat(stderr.fileno())
            self.patch(os, "environ", {"JOURNAL_STREAM": journal.format(device=status.st_dev, inode=status.st_ino)})
            log = Journal(LogLevel.info, ErrorLogs(stderr).observer([ErrorLog(None, LogLevel.info)]))
            log.error("trouble")
            log.info("small talk")
            log.failure("defect", caught("<0>forged"))
            stderr.seek(0)
            return stderr.read().splitlines()

    def test_severities(self):
        """Each line begins with its severity, also those of a traceback."""
        trouble, talk, *defect = self.write("{device}:{inode}")
        self.assertRegex(trouble, r"^<3>\d{4}.*\[error\] trouble$")
        # The journal records the pid.
        self.assertRegex(talk, r"^<6>\d{4}.*\[info\] small talk$")
        self.assertGreater(len(defect), 2)
        self.assertEqual([line for line in defect if not line.startswith("<2>")], [])

    def test_another(self):
        """If standard error was redirected, lines have no severity in front."""
        for line in self.write("{device}:1"):
            self.assertRegex(line, r"^(\d{4}|    )")


class ProcessLogTests(SynchronousTestCase):
    """Tests for L{ProcessLog}."""

    def test_follow(self):
        """Events go to the observer that was set last. The object remembers whether any event was logged."""
        before, first = recorder()
        after, second = recorder()
        log = ProcessLog(first)
        self.assertTrue(verifyObject(ILogObserver, log))
        self.assertFalse(log.called)
        Journal(observer=log).error("one")
        log.follow(second)
        Journal(observer=log).error("two")
        self.assertTrue(log.called)
        told = [[event["log_format"] for event in events] for events in (before, after)]
        self.assertEqual(told, [["one"], ["two"]])
