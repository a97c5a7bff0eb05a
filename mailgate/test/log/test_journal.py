"""
Tests for L{mailgate.log.journal}, L{mailgate.log.errorlog} and L{mailgate.log.settings}.
"""

from __future__ import annotations

import builtins
import io
import os
import stat
import sys
import tempfile
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher, formatEvent, formatTime, globalLogPublisher
from twisted.python import log as legacyLog
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.directives import ConfigurationError, directives
from mailgate.log.errorlog import ErrorLogs, ProcessLog
from mailgate.log.journal import Journal, printable
from mailgate.log.levels import LEVELS, NOTICE
from mailgate.log.rate import Rate
from mailgate.log.settings import ErrorLog, LogSettings, ServerLogSettings, leastLevel
from mailgate.log.syslog import syslogServer
from mailgate.test.support.journals import NASTY, caught, recorder


class Told:
    """A value that counts how often it is made into text."""

    count = 0

    def __str__(self) -> str:
        self.count += 1
        return "told"


class PrintableTests(SynchronousTestCase):
    """Tests for L{printable}."""

    def test_text(self):
        """What is UTF-8 is shown as that."""
        self.assertEqual(printable(b"joe"), "joe")
        self.assertEqual(printable("Jörg".encode()), "Jörg")

    def test_bytes(self):
        """What is not UTF-8 is escaped, byte by byte; nothing is dropped, and nothing is raised."""
        self.assertEqual(printable(b"a\xff\xfeb\xc3"), r"a\xff\xfeb\xc3")

    def test_control(self):
        """Every character that could end a line, or speak to a terminal, is escaped."""
        self.assertEqual(printable(b"a\r\n\t\0\x1b[2J\x7f"), r"a\r\n\t\x00\x1b[2J\x7f")
        self.assertEqual(printable("\x85\u2028\u2029\x9b".encode()), r"\x85\u2028\u2029\x9b")

    def test_everyByte(self):
        """Whatever the bytes, the result is one line of printable characters."""
        for byte in range(256):
            shown = printable(bytes([byte]) * 2)
            self.assertTrue(shown.isprintable(), byte)
            self.assertEqual(len(shown.splitlines()), 1)

    def test_bidirectional(self):
        """What would have the rest of the line shown from right to left is escaped, in observers' lines as well."""
        marks = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
        stderr = io.StringIO()
        journal = Journal(observer=ErrorLogs(stderr).observer([ErrorLog()]))
        for mark in marks:
            shown = f"a\\u{mark:04x}b"
            self.assertEqual(printable(f"a{chr(mark)}b".encode()), shown)
            journal.error("{text}", text=f"a{chr(mark)}b")
            self.assertIn(f"[error] {os.getpid()}: {shown}\n", stderr.getvalue())
        # Letters that are written so are letters.
        self.assertEqual(printable("שלום".encode()), "שלום")

    def test_backslash(self):
        """A backslash is escaped, so that none hides a quote, or passes for the escape of something else."""
        self.assertEqual(printable(b"x\\"), "x\\\\")
        self.assertEqual(printable(b'x\\"'), 'x\\\\\\"')
        self.assertEqual(printable(rb"\xff\n"), r"\\xff\\n")
        self.assertEqual(printable(b"\xff\n"), r"\xff\n")
        stderr = io.StringIO()
        Journal(observer=ErrorLogs(stderr).observer([ErrorLog()])).error('"{user}"', user=printable(b"x\\"))
        self.assertTrue(stderr.getvalue().endswith(': "x\\\\"\n'), "observers do not escape it again")

    def test_unambiguous(self):
        """Two texts that are not the same are not shown as the same."""
        texts = [bytes([byte]) for byte in range(256)]
        texts += [b"\\x00", b"\\n", rb"\xff", b'\\"', "ÿ".encode(), "\u202e".encode(), rb"\u202e"]
        self.assertEqual(len({printable(text) for text in texts}), len(texts))

    def test_cut(self):
        """What is longer than 256 characters is cut; what is just as long is not."""
        for character in ("a", "ö", "€", "😀"):
            whole = character * 256
            self.assertEqual(printable(whole.encode()), whole)
            self.assertEqual(printable((whole + "b").encode()), whole + "...")
            self.assertEqual(printable((whole * 9).encode()), whole + "...")
        self.assertEqual(printable(b"\xff" * 256), r"\xff" * 256)
        self.assertEqual(printable(b"\x01" * 2000), r"\x01" * 256 + "...")
        # A character that the cut falls into is not shown in part.
        self.assertEqual(printable(b"abc" + "€".encode() * 2000), "abc" + "€" * 253 + "...")


class SettingsTests(SynchronousTestCase):
    """Tests for L{LogSettings} and L{ServerLogSettings}."""

    def parse(self, value: str, group: type = LogSettings) -> tuple[ErrorLog, ...]:
        (declared,) = (each for each in directives(group) if each.name == "error_log")
        logs: tuple[ErrorLog, ...] = declared.parse(value, "/etc/mailgate")
        return logs

    def test_default(self):
        """As with nginx, errors are logged; with twistd, to standard error."""
        self.assertEqual(LogSettings().errorLog, (ErrorLog(None, LogLevel.error),))
        self.assertIs(LogSettings().level, LogLevel.error)

    def test_forms(self):
        """A file or stderr, with a level or error; a relative path starts at the ini file's folder."""
        self.assertEqual(self.parse("stderr"), (ErrorLog(None, LogLevel.error),))
        self.assertEqual(self.parse("stderr   info"), (ErrorLog(None, LogLevel.info),))
        self.assertEqual(self.parse("stderr\tdebug"), (ErrorLog(None, LogLevel.debug),))
        self.assertEqual(self.parse("log/x.log warn"), (ErrorLog("/etc/mailgate/log/x.log", LogLevel.warn),))

    def test_levels(self):
        """nginx's eight levels are known, and come in nginx's order."""
        self.assertEqual(list(LEVELS), ["debug", "info", "notice", "warn", "error", "crit", "alert", "emerg"])
        order = [LogLevel.debug, LogLevel.info, NOTICE, LogLevel.warn, LogLevel.error, LogLevel.critical]
        ranks = [order.index(level) for level in LEVELS.values()]
        self.assertEqual(ranks, sorted(ranks))
        self.assertEqual(sorted(set(ranks)), [0, 1, 2, 3, 4, 5])
        for word, level in LEVELS.items():
            self.assertEqual(self.parse(f"stderr {word}"), (ErrorLog(None, level),))

    def test_several(self):
        """There may be several, and the journal needs the least level of all."""
        settings = LogSettings(self.parse("stderr\n/var/log/m.log info\n/x crit"))
        self.assertEqual([log.file for log in settings.errorLog], [None, "/var/log/m.log", "/x"])
        self.assertIs(settings.level, LogLevel.info)

    def test_refused(self):
        """An unknown level is answered with the known ones, memory: with what there is, nothing with a complaint."""
        for value, message in (
            ("stderr inof", '"inof" is no level, they are debug, info'),
            ("stderr inof", "did you mean info?"),
            ("stderr info json", '"info json" is no level'),
            ("syslog:server=10.0.0.1 inof", "did you mean info?"),
            ("syslog:tag=x", "no syslog server specified"),
            ("syslog: info", 'unknown syslog parameter ""'),
            ("memory:32k debug", "memory: is for debug builds of nginx; a file, stderr or syslog:server=… can be"),
            ("", "a value is missing"),
        ):
            self.assertIn(message, str(self.assertRaises(ValueError, self.parse, value)))

    def test_syslog(self):
        """A syslog server is a target like others."""
        first, second = self.parse("syslog:server=unix:/dev/log,tag=mx info\nstderr")
        self.assertEqual(first, ErrorLog(None, LogLevel.info, syslogServer("server=unix:/dev/log,tag=mx")))
        self.assertEqual([first.isStandardError, second.isStandardError], [False, True])
        self.assertFalse(ErrorLog("/x").isStandardError)

    def test_server(self):
        """A server takes the same values, and has none of its own by itself."""
        self.assertEqual(ServerLogSettings().errorLog, ())
        value = "stderr\n/x info\nsyslog:server=unix:/dev/log"
        self.assertEqual(self.parse(value, ServerLogSettings), self.parse(value))

    def test_least(self):
        """The least level of several counts, and that of errors where there is none."""
        self.assertIs(leastLevel(self.parse("stderr\n/x info\n/y crit")), LogLevel.info)
        self.assertIs(leastLevel(self.parse("/y emerg")), LogLevel.critical)
        self.assertIs(leastLevel(()), LogLevel.error)


class JournalTests(SynchronousTestCase):
    """Tests for L{Journal}."""

    def journal(self, level: LogLevel) -> tuple[Journal, list[Any]]:
        events, observer = recorder()
        return Journal(level, observer), events

    def logAll(self, journal: Journal) -> None:
        journal.info("an info {x}", x=1)
        journal.warn("a warn {x}", x=2)
        journal.error("an error {x}", x=3)
        journal.failure("a failure {x}", caught("boom"), x=4)

    def test_levels(self):
        """An event below the level is not even built; a failure always is."""
        for level, expected in (
            (LogLevel.debug, "info warn error critical"),
            (LogLevel.info, "info warn error critical"),
            (LogLevel.warn, "warn error critical"),
            (LogLevel.error, "error critical"),
            (LogLevel.critical, "critical"),
        ):
            journal, events = self.journal(level)
            self.logAll(journal)
            self.assertEqual(" ".join(event["log_level"].name for event in events), expected)

    def test_default(self):
        """Unless it is told otherwise, a journal takes errors."""
        events, observer = recorder()
        self.logAll(Journal(observer=observer))
        self.assertEqual([event["log_level"] for event in events], [LogLevel.error, LogLevel.critical])

    def test_wantsInfo(self):
        """Who would have to work for an event can ask whether it is wanted."""
        self.assertTrue(self.journal(LogLevel.debug)[0].wantsInfo)
        self.assertTrue(self.journal(LogLevel.info)[0].wantsInfo)
        self.assertFalse(self.journal(LogLevel.warn)[0].wantsInfo)
        self.assertFalse(self.journal(LogLevel.error)[0].wantsInfo)

    def test_fields(self):
        """An event keeps its format and its fields apart, and they are made into text by observers alone."""
        journal, events = self.journal(LogLevel.info)
        told = Told()
        journal.info("client {client}", client=told)
        self.assertEqual((events[0]["log_format"], events[0]["client"]), ("client {client}", told))
        self.assertEqual(told.count, 0)

    def test_namespace(self):
        """Everything is logged in the name of mailgate, wherever it comes from."""
        journal, events = self.journal(LogLevel.info)
        self.logAll(journal)
        self.assertEqual({event["log_namespace"] for event in events}, {"mailgate"})

    def test_global(self):
        """Without an observer of its own it logs to Twisted's log, which is where an embedding application looks."""
        events, observer = recorder()
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        Journal(LogLevel.info).info("here")
        self.assertIn("here", [event.get("log_format") for event in events])


class LevelTests(SynchronousTestCase):
    """What the log of each level has, of a process and its connections."""

    def setUp(self) -> None:
        self.logs = {word: io.StringIO() for word in LEVELS}

    def logEverything(self) -> None:
        for word, stream in self.logs.items():
            log = ErrorLog(None, LEVELS[word])
            observer = ErrorLogs(stream).observer([log])
            journal = Journal(leastLevel([log]), observer)
            journal.debug("a step")
            journal.info("a login")
            journal.record("a session")
            journal.notice("a reload")
            Logger("mailgate", observer=observer).info("a start")
            Logger("mailgate.process.signals.Signals", observer=observer).info("a signal")
            Logger("twisted.scripts._twistd_unix.UnixAppLogger", observer=observer).info("a twistd")
            Logger("twisted.internet.base", observer=observer).info("a main loop")
            legacy = legacyLog.LogPublisher(publishPublisher=LogPublisher(observer))
            legacy.msg("Server Shut Down.")
            legacy.msg("a port of a resolver")
            journal.warn("a warning")
            journal.error("an error")
            journal.failure("a defect", caught("boom"))

    def texts(self, word: str) -> list[str]:
        """What the log of that level has, without its tracebacks and moments."""
        lines = [line for line in self.logs[word].getvalue().splitlines() if not line.startswith("    ")]
        return [line.split(" ", 1)[1].replace(f"{os.getpid()}: ", "") for line in lines]

    def test_each(self) -> None:
        """Notice is the life of the process alone, info has the connections besides, debug their steps as well."""
        self.logEverything()
        troubles = ["[warn] a warning", "[error] an error", "[critical] a defect"]
        starts = [
            "[notice] a reload",
            "[notice] a start",
            "[notice] a signal",
            "[notice] a twistd",
            "[notice] a main loop",
        ]
        life = [*starts, "[notice] Server Shut Down."]
        connections = ["[info] a login", "[info] a session"]
        self.assertEqual(self.texts("notice"), life + troubles)
        self.assertEqual(self.texts("info"), [*connections, *life, "[info] a port of a resolver", *troubles])
        self.assertEqual(self.texts("debug"), ["[debug] a step", *self.texts("info")])
        self.assertEqual(self.texts("warn"), troubles)
        self.assertEqual(self.texts("error"), troubles[1:])
        for word in ("crit", "alert", "emerg"):
            self.assertEqual(self.texts(word), troubles[2:])

    def test_unbuilt(self) -> None:
        """At notice the lines of connections are not even built."""
        events, observer = recorder()
        journal = Journal(NOTICE, observer)
        journal.info("a login")
        journal.record("a session")
        journal.debug("a step")
        self.assertEqual((events, journal.wantsInfo, journal.wantsDebug), ([], False, False))
        journal.notice("a reload")
        self.assertEqual(len(events), 1)
        self.assertEqual(leastLevel([ErrorLog(None, NOTICE), ErrorLog(None, LogLevel.warn)]), NOTICE)
        self.assertEqual(leastLevel([ErrorLog(None, NOTICE), ErrorLog(None, LogLevel.info)]), LogLevel.info)


class RateTests(SynchronousTestCase):
    """A L{Journal} with C{log_rate}."""

    def setUp(self):
        self.clock = Clock()
        self.events, observer = recorder()
        self.journal = Journal(LogLevel.info, observer, Rate(2, 1.0), self.clock)

    def told(self) -> list[str]:
        told = [f"{event['log_level'].name} {formatEvent(event)}" for event in self.events]
        del self.events[:]
        return told

    def test_levels(self):
        """Lines of each level are left out above it, and counted at their own; what stands in them is not counted."""
        for level in ("info", "warn", "error"):
            for number in range(5):
                getattr(self.journal, level)(f"{level} of {{number}}", number=number)
            self.assertEqual(self.told(), [f"{level} {level} of 0", f"{level} {level} of 1"])
            self.clock.advance(1)
            counted = f"3 more lines like this were left out, by log_rate: {level} of {{number}}"
            self.assertEqual(self.told(), [f"{level} {counted}"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failures(self):
        """So are tracebacks."""
        for number in range(4):
            self.journal.failure("defect of {client}", caught("boom"), client=number)
        self.assertEqual(self.told(), ["critical defect of 0", "critical defect of 1"])
        self.clock.advance(1)
        self.assertEqual(
            self.told(), ["critical 2 more lines like this were left out, by log_rate: defect of {client}"]
        )

    def test_kinds(self):
        """A flood of one kind takes nothing from another."""
        for number in range(1000):
            self.journal.error("flood {number}", number=number)
        self.told()
        self.journal.error("the disk is full")
        self.journal.info("somebody has left")
        self.assertEqual(self.told(), ["error the disk is full", "info somebody has left"])

    def test_unwanted(self):
        """What no log wants is not counted."""
        events, observer = recorder()
        journal = Journal(LogLevel.error, observer, Rate(2, 1.0), self.clock)
        for number in range(9):
            journal.info("an info {number}", number=number)
        self.assertEqual((events, self.clock.getDelayedCalls()), ([], []))

    def test_flush(self):
        """At the end what was left out is counted at once, and nothing is waited for."""
        for number in range(5):
            self.journal.info("an info {number}", number=number)
        self.told()
        self.journal.flush()
        self.assertEqual(self.told(), ["info 3 more lines like this were left out, by log_rate: an info {number}"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.journal.flush()
        Journal().flush()
        self.assertEqual(self.told(), [])

    def test_off(self):
        """Without a rate there is no limit."""
        events, observer = recorder()
        journal = Journal(LogLevel.info, observer)
        for _ in range(1000):
            journal.info("an info")
        self.assertEqual(len(events), 1000)


class ObserverTests(SynchronousTestCase):
    """Tests for L{ErrorLogs.observer}."""

    def setUp(self):
        self.stderr = io.StringIO()

    def write(self, format: str, level: Any = LogLevel.info, **fields: object) -> str:
        """What standard error gets of one event."""
        observer = ErrorLogs(self.stderr).observer([ErrorLog(None, LogLevel.info)])
        Logger("test", observer=observer).emit(level, format, **fields)
        written: str = self.stderr.getvalue()
        return written

    def test_interface(self):
        """It is an observer, for twistd to take."""
        self.assertTrue(verifyObject(ILogObserver, ErrorLogs(self.stderr).observer([ErrorLog()])))

    def test_line(self):
        """An event is one line: the moment, the level, the text."""
        self.assertRegex(
            self.write("client {client} left", client="192.0.2.7"),
            r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[info\] \d+: client 192\.0\.2\.7 left\n\Z",
        )

    def test_moment(self):
        """Each line has its own second, in whatever order they come, and none where an event has no time."""
        observer = ErrorLogs(self.stderr).observer([ErrorLog(None, LogLevel.info)])
        moments = (1700000000.0, 1700000000.999, 1700000001.0, 1699999999.5, 1700000000.2, None)
        for moment in moments:
            observer({"log_time": moment, "log_level": LogLevel.info, "log_format": "here"})
        shown = [line.split(" ")[0] for line in self.stderr.getvalue().splitlines()]
        self.assertEqual(shown, [formatTime(moment) for moment in moments])
        self.assertEqual(len(set(shown)), 4)

    def test_pid(self):
        """The process is in each line, as several may write one file."""
        self.assertIn(f" [info] {os.getpid()}: here\n", self.write("here"))
        self.patch(os, "getpid", lambda: 4711)
        self.assertIn(" [info] 4711: here\n", self.write("here"))

    def test_unwanted(self):
        """An event that no log wants is not even made into text."""
        told = Told()
        self.assertEqual(self.write("{told}", LogLevel.debug, told=told), "")
        self.assertEqual(told.count, 0)

    def test_injection(self):
        """What got past printable, in a field or in the format, still makes one line."""
        written = self.write("user {user}" + NASTY, LogLevel.error, user=NASTY)
        self.assertEqual(len(written.splitlines()), 1)
        self.assertTrue(written[:-1].isprintable())
        self.assertEqual(written.count(r"joe\r\n2026-01-01"), 2)

    def test_fieldIsNoFormat(self):
        """Braces that come in a field are not looked up."""
        self.assertIn("user {log_level}", self.write("user {user}", user="{log_level}"))

    def test_brokenFormat(self):
        """An event that cannot be made into text is told of, not raised."""
        self.assertIn("nable to format event", self.write("{missing.attribute}", LogLevel.error))
        self.assertEqual(len(self.stderr.getvalue().splitlines()), 1)

    def test_failure(self):
        """A failure comes with its traceback, every line of it indented."""
        observer = ErrorLogs(self.stderr).observer([ErrorLog()])
        Journal(observer=observer).failure("login of {user} failed", caught("boom"), user="joe")
        first, *rest = self.stderr.getvalue().splitlines()
        self.assertTrue(first.endswith(f"[critical] {os.getpid()}: login of joe failed"), first)
        self.assertEqual(rest[0], "    Traceback (most recent call last):")
        self.assertIn("RuntimeError: boom", rest[-1])
        self.assertEqual([line for line in rest if not line.startswith("    ")], [])

    def test_injectionByFailure(self):
        """An exception, or the message over it, that quotes a forged event does not make one of it."""
        observer = ErrorLogs(self.stderr).observer([ErrorLog()])
        Journal(observer=observer).failure("login of {user} failed", caught(NASTY), user=NASTY)
        written = self.stderr.getvalue()
        lines = written.split("\n")[:-1]
        self.assertEqual(len([line for line in lines if not line.startswith("    ")]), 1)
        self.assertEqual([line for line in lines if not line.isprintable()], [])
        self.assertIn("    2026-01-01T00:00:00+0000 [info] forged", written)

    def test_legacy(self):
        """Events of twisted.python.log are written too."""
        publisher = legacyLog.LogPublisher(
            publishPublisher=LogPublisher(ErrorLogs(self.stderr).observer([ErrorLog(None, LogLevel.info)]))
        )
        publisher.msg("old\nfashioned")
        self.assertIn(r"old\nfashioned", self.stderr.getvalue())

    def test_stderr(self):
        """Standard error is the process's, as it was at the start, unless another stream is given."""
        self.patch(sys, "stderr", self.stderr)
        logs = ErrorLogs()
        Journal(observer=logs.observer([ErrorLog()])).error("here")
        self.assertIn(f"[error] {os.getpid()}: here\n", self.stderr.getvalue())
        # As twistd does, whose sys.stderr makes a log event of what is written to it.
        self.patch(sys, "stderr", io.StringIO())
        Journal(observer=logs.observer([ErrorLog()])).error("later")
        self.assertIn(f"[error] {os.getpid()}: later\n", self.stderr.getvalue())


class SystemdTests(SynchronousTestCase):
    """Standard error where that is systemd's journal."""

    def write(self, journal: str) -> list[str]:
        """The lines of an error, a remark and a defect on a standard error; C{journal} says which is the journal."""
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
        """Each line has its severity before it, those of a traceback as well."""
        trouble, talk, *defect = self.write("{device}:{inode}")
        self.assertRegex(trouble, r"^<3>\d{4}.*\[error\] trouble$")
        # The journal knows the process.
        self.assertRegex(talk, r"^<6>\d{4}.*\[info\] small talk$")
        self.assertGreater(len(defect), 2)
        self.assertEqual([line for line in defect if not line.startswith("<2>")], [])

    def test_another(self):
        """Where standard error has been led elsewhere nothing is before them."""
        for line in self.write("{device}:1"):
            self.assertRegex(line, r"^(\d{4}|    )")


class FileTests(SynchronousTestCase):
    """Logs in files."""

    def setUp(self):
        self.path = self.mktemp()
        self.stderr = io.StringIO()

    def read(self) -> str:
        with open(self.path, encoding="utf-8") as opened:
            return opened.read()

    def test_levels(self):
        """Each of several logs gets the events of its own level and above."""
        logs = [ErrorLog(None, LogLevel.error), ErrorLog(self.path, LogLevel.info)]
        journal = Journal(LogLevel.info, ErrorLogs(self.stderr).observer(logs))
        journal.info("small talk")
        journal.error("trouble")
        self.assertEqual([line.split(": ", 1)[1] for line in self.read().splitlines()], ["small talk", "trouble"])
        self.assertEqual([line.split(": ", 1)[1] for line in self.stderr.getvalue().splitlines()], ["trouble"])

    def test_appended(self):
        """A log that is there is added to."""
        with open(self.path, "w", encoding="utf-8") as opened:
            opened.write("before\n")
        Journal(observer=ErrorLogs().observer([ErrorLog(self.path)])).error("after")
        self.assertTrue(self.read().startswith("before\n"))
        self.assertTrue(self.read().endswith(f"[error] {os.getpid()}: after\n"))

    def test_atOnce(self):
        """An event is in the file when it has been logged, not when a buffer is full."""
        Journal(observer=ErrorLogs().observer([ErrorLog(self.path)])).error("now")
        self.assertIn("now", self.read())

    def test_anyText(self):
        """UTF-8 whatever the locale says, and what not even that can write is escaped."""
        Journal(observer=ErrorLogs().observer([ErrorLog(self.path)])).error("{user}", user="Jörg \udcff")
        self.assertIn(r"Jörg \udcff", self.read())

    def test_once(self):
        """A file that is named several times, here or by another server, is opened once, and takes each event once."""
        logs = ErrorLogs(self.stderr)
        first = logs.observer([ErrorLog(self.path, LogLevel.info)])
        # Whoever opened it again would make a new one.
        os.rename(self.path, f"{self.path}.moved")
        second = logs.observer([ErrorLog(self.path), ErrorLog(None, LogLevel.error)])
        self.assertFalse(os.path.exists(self.path))
        Journal(LogLevel.info, first).info("one")
        Journal(LogLevel.info, second).info("unwanted")
        Journal(LogLevel.info, second).error("two")
        self.path += ".moved"
        self.assertEqual([line.split(": ", 1)[1] for line in self.read().splitlines()], ["one", "two"])

    def test_reopen(self):
        """A file that has been renamed keeps what it has; what comes then is in a new one of its name."""
        logs = ErrorLogs(self.stderr)
        journal = Journal(LogLevel.info, logs.observer([ErrorLog(self.path, LogLevel.info)]))
        journal.info("one")
        os.rename(self.path, f"{self.path}.1")
        journal.info("two")
        self.assertEqual(list(logs.reopen()), [])
        journal.info("three")
        self.assertEqual([line.split(": ", 1)[1] for line in self.read().splitlines()], ["three"])
        self.path += ".1"
        self.assertEqual([line.split(": ", 1)[1] for line in self.read().splitlines()], ["one", "two"])

    def test_reopenMode(self):
        """
        The new file has the mode of the one before, whatever the umask is now; what is there already keeps its own. One
        that takes the place of a device or a FIFO goes by the umask. The umask stays what it was.
        """
        self.addCleanup(os.umask, os.umask(0o022))
        logs = ErrorLogs(self.stderr)
        logs.observer([ErrorLog(self.path, LogLevel.info)])
        os.umask(0o077)
        for mode, made in ((0o644, None), (0o640, None), (0o600, None), (0o644, 0o640)):
            os.chmod(self.path, mode)
            os.rename(self.path, f"{self.path}.1")
            if made is not None:
                os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY))
                os.chmod(self.path, made)
            self.assertEqual(list(logs.reopen()), [])
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), mode if made is None else made)
        os.unlink(self.path)
        os.mkfifo(self.path)
        reading = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reading)
        os.chmod(self.path, 0o666)
        self.assertEqual(list(logs.reopen()), [])
        os.unlink(self.path)
        self.assertEqual(list(logs.reopen()), [])
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual(os.umask(0o077), 0o077)

    def test_reopenSame(self):
        """A file that still has its name is not opened: one who may not any more goes on with it all the same."""
        logs = ErrorLogs(self.stderr)
        journal = Journal(observer=logs.observer([ErrorLog(self.path)]))
        opened: list[object] = []
        for module in (builtins, os):
            self.patch(module, "open", lambda *arguments, **options: opened.append(arguments))
        self.assertEqual(list(logs.reopen()), [])
        self.assertEqual(opened, [])
        journal.error("told")

    def test_reopenRefused(self):
        """One that cannot be opened any more is told of, and goes on where it is; the others are opened."""
        folder = self.mktemp()
        os.mkdir(folder)
        lost = os.path.join(folder, "x.log")
        logs = ErrorLogs(self.stderr)
        journal = Journal(observer=logs.observer([ErrorLog(lost), ErrorLog(self.path)]))
        os.rename(folder, f"{folder}.moved")
        os.rename(self.path, f"{self.path}.1")
        (line,) = logs.reopen()
        self.assertEqual(line, f"{lost} cannot be opened again, the old file stays: No such file or directory")
        journal.error("told")
        self.assertIn("told", self.read())
        self.path = os.path.join(f"{folder}.moved", "x.log")
        self.assertIn("told", self.read())

    def test_reopenFIFO(self):
        """A FIFO that has taken the name of a log, and has no reader, keeps nobody waiting for one."""
        for uid in {os.geteuid(), 4711}:
            self.patch(os, "geteuid", lambda uid=uid: uid)
            path = os.path.abspath(self.mktemp())
            logs = ErrorLogs(self.stderr)
            journal = Journal(observer=logs.observer([ErrorLog(path)]))
            os.rename(path, f"{path}.1")
            os.mkfifo(path)
            (line,) = logs.reopen()
            self.assertEqual(line, f"{path} cannot be opened again, the old file stays: No such device or address")
            reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            self.addCleanup(os.close, reading)
            self.assertEqual(list(logs.reopen()), [])
            journal.error("told")
            self.assertIn(b"told", os.read(reading, 1000))
            self.assertTrue(os.get_blocking(next(iter(logs._files.values())).descriptor))

    def test_reopenLink(self):
        """
        Where others than root may write to the folder, root does not follow a link that has taken the name of a log:
        the old file goes on, and the line names it. Nor does a start.
        """
        if os.geteuid() != 0:
            self.patch(os, "geteuid", lambda: 0)
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        path, precious = os.path.join(folder, "x.log"), os.path.abspath(self.mktemp())
        with open(precious, "w", encoding="ascii") as opened:
            opened.write("precious\n")
        logs = ErrorLogs(self.stderr)
        logs.owner = (4711, 4711)
        journal = Journal(observer=logs.observer([ErrorLog(path)]))
        if os.stat(folder).st_uid == 0:
            os.chown(folder, 4711, 4711)
        os.rename(path, f"{path}.1")
        os.symlink(precious, path)
        (line,) = logs.reopen()
        reason = f"it is a link, which root does not write to where others may write to the folder {folder}"
        self.assertIn(f"{path} cannot be opened again, the old file stays: {reason}: remove it, ", line)
        journal.error("told")
        error = self.assertRaises(
            ConfigurationError, ErrorLogs().observerFor, [ErrorLog(path)], "gateway.ini", "mailgate"
        )
        self.assertIn(f"gateway.ini: [mailgate] error_log = {path}: cannot be opened: {reason}", str(error))
        self.path = precious
        self.assertEqual(self.read(), "precious\n")
        self.path = f"{path}.1"
        self.assertIn("told", self.read())

    def test_giveAnothers(self):
        """What is a third user's, in that user's folder, is not given to anybody."""
        if os.geteuid() != 0:
            self.patch(os, "geteuid", lambda: 0)
        folder = self.mktemp()
        os.mkdir(folder)
        path = os.path.join(folder, "x.log")
        with open(path, "w", encoding="ascii"):
            pass
        if os.stat(folder).st_uid == 0:
            os.chown(folder, 4711, 4711)
            os.chown(path, 4711, 4711)
        given: list[object] = []
        self.patch(os, "fchown", lambda *arguments: given.append(arguments))
        logs = ErrorLogs(self.stderr)
        logs.observer([ErrorLog(path)])
        (line,) = logs.reopen((4712, 4712))
        self.assertEqual((line, given), (f"{path} cannot be given to the workers' user: it is another user's", []))

    def test_give(self):
        """A file is given to a user; a link is not followed, whoever made it, and what is no file is left alone."""
        target = self.mktemp()
        with open(target, "w", encoding="ascii"):
            pass
        links = [f"{self.path}.{number}" for number in range(2)]
        os.symlink(os.path.abspath(target), links[0])
        hard = self.mktemp()
        with open(hard, "w", encoding="ascii"):
            pass
        os.link(hard, links[1])
        logs = ErrorLogs(self.stderr)
        logs.observer([ErrorLog(path) for path in (self.path, *links, "/dev/null")])
        given: list[tuple[int, int, int]] = []
        self.patch(os, "fchown", lambda fd, uid, gid: given.append((os.fstat(fd).st_ino, uid, gid)))
        self.patch(os, "chown", lambda path, uid, gid: given.append((os.stat(path).st_ino, uid, gid)))
        told = list(logs.reopen((4711, 4712)))
        self.assertEqual(given, [(os.stat(self.path).st_ino, 4711, 4712)])
        self.assertEqual(told, [f"{link} cannot be given to the workers' user: it is a link" for link in links])

    def test_retain(self):
        """Files that nobody uses any more are closed, and not made again by their names."""
        logs = ErrorLogs(self.stderr)
        kept = Journal(observer=logs.observer([ErrorLog(self.path)]))
        logs.observer([ErrorLog(f"{self.path}.old")])
        logs.retain([ErrorLog(self.path), ErrorLog(None)])
        os.unlink(f"{self.path}.old")
        self.assertEqual(list(logs.reopen()), [])
        self.assertFalse(os.path.exists(f"{self.path}.old"))
        kept.error("told")
        self.assertIn("told", self.read())

    def test_unopenableByName(self):
        """Whose log cannot be opened is named as every other fault of a configuration is."""
        path = os.path.join(os.path.abspath(self.path), "x.log")
        error = self.assertRaises(
            ConfigurationError, ErrorLogs().observerFor, [ErrorLog(path)], "gateway.ini", "server imap"
        )
        reason = "cannot be opened: No such file or directory"
        self.assertEqual(str(error), f"gateway.ini: [server imap] error_log = {path}: {reason}")

    def test_unopenable(self):
        """A file that cannot be opened is told of at once."""
        self.assertRaises(OSError, ErrorLogs().observer, [ErrorLog(os.path.join(self.path, "x.log"))])


class ProcessLogTests(SynchronousTestCase):
    """Tests for L{ProcessLog}."""

    def test_follow(self):
        """Events go where it was last told to hand them; that any has come is remembered."""
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
