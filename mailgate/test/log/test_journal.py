"""
Tests for L{mailgate.log.journal}, L{mailgate.log.errorlog} and L{mailgate.log.settings}.
"""

from __future__ import annotations

import io
import os
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, LogPublisher, formatEvent, globalLogPublisher
from twisted.python import log as legacyLog
from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import directives
from mailgate.log.connection import about, line
from mailgate.log.errorlog import ErrorLogs
from mailgate.log.journal import Journal, printable
from mailgate.log.levels import LEVELS, NOTICE
from mailgate.log.rate import Rate
from mailgate.log.settings import ErrorLog, LogSettings, ServerLogSettings, leastLevel
from mailgate.log.syslog import syslogServer
from mailgate.session import FollowedSession
from mailgate.test.support.journals import Told, caught, recorder
from mailgate.testing.fakes import makeSession


class PrintableTests(SynchronousTestCase):
    """Tests for L{printable}."""

    def test_text(self):
        """UTF-8 is shown as text."""
        self.assertEqual(printable(b"joe"), "joe")
        self.assertEqual(printable("Jörg".encode()), "Jörg")

    def test_bytes(self):
        """Bytes that are not UTF-8 are escaped one by one. None is dropped, and nothing is raised."""
        self.assertEqual(printable(b"a\xff\xfeb\xc3"), r"a\xff\xfeb\xc3")

    def test_control(self):
        """Each character that ends a line or controls a terminal is escaped."""
        self.assertEqual(printable(b"a\r\n\t\0\x1b[2J\x7f"), r"a\r\n\t\x00\x1b[2J\x7f")
        self.assertEqual(printable("\x85\u2028\u2029\x9b".encode()), r"\x85\u2028\u2029\x9b")

    def test_everyByte(self):
        """Any bytes become one line of printable characters."""
        for byte in range(256):
            shown = printable(bytes([byte]) * 2)
            self.assertTrue(shown.isprintable(), byte)
            self.assertEqual(len(shown.splitlines()), 1)

    def test_bidirectional(self):
        """Characters that reverse the direction of text are escaped, also by the observers."""
        marks = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
        stderr = io.StringIO()
        journal = Journal(observer=ErrorLogs(stderr).observer([ErrorLog()]))
        for mark in marks:
            shown = f"a\\u{mark:04x}b"
            self.assertEqual(printable(f"a{chr(mark)}b".encode()), shown)
            journal.error("{text}", text=f"a{chr(mark)}b")
            self.assertIn(f"[error] {os.getpid()}: {shown}\n", stderr.getvalue())
        # Letters of right-to-left scripts are shown.
        self.assertEqual(printable("שלום".encode()), "שלום")

    def test_backslash(self):
        """A backslash is escaped, so that it cannot hide a quote or imitate an escape."""
        self.assertEqual(printable(b"x\\"), "x\\\\")
        self.assertEqual(printable(b'x\\"'), 'x\\\\\\"')
        self.assertEqual(printable(rb"\xff\n"), r"\\xff\\n")
        self.assertEqual(printable(b"\xff\n"), r"\xff\n")
        stderr = io.StringIO()
        Journal(observer=ErrorLogs(stderr).observer([ErrorLog()])).error('"{user}"', user=printable(b"x\\"))
        self.assertTrue(stderr.getvalue().endswith(': "x\\\\"\n'), "observers do not escape it again")

    def test_unambiguous(self):
        """Different texts are shown differently."""
        texts = [bytes([byte]) for byte in range(256)]
        texts += [b"\\x00", b"\\n", rb"\xff", b'\\"', "ÿ".encode(), "\u202e".encode(), rb"\u202e"]
        self.assertEqual(len({printable(text) for text in texts}), len(texts))

    def test_cut(self):
        """Texts of more than 256 characters are cut."""
        for character in ("a", "ö", "€", "😀"):
            whole = character * 256
            self.assertEqual(printable(whole.encode()), whole)
            self.assertEqual(printable((whole + "b").encode()), whole + "...")
            self.assertEqual(printable((whole * 9).encode()), whole + "...")
        self.assertEqual(printable(b"\xff" * 256), r"\xff" * 256)
        self.assertEqual(printable(b"\x01" * 2000), r"\x01" * 256 + "...")
        # A character at the cut is not shown in part.
        self.assertEqual(printable(b"abc" + "€".encode() * 2000), "abc" + "€" * 253 + "...")


class SettingsTests(SynchronousTestCase):
    """Tests for L{LogSettings} and L{ServerLogSettings}."""

    def parse(self, value: str, group: type = LogSettings) -> tuple[ErrorLog, ...]:
        (declared,) = (each for each in directives(group) if each.name == "error_log")
        logs: tuple[ErrorLog, ...] = declared.parse(value, "/etc/mailgate")
        return logs

    def test_default(self):
        """The default is nginx's: errors, on standard error."""
        self.assertEqual(LogSettings().errorLog, (ErrorLog(None, LogLevel.error),))
        self.assertIs(LogSettings().level, LogLevel.error)

    def test_forms(self):
        """
        The value is a file or stderr, and a level; the default level is error. Relative paths start at the ini file's
        folder.
        """
        self.assertEqual(self.parse("stderr"), (ErrorLog(None, LogLevel.error),))
        self.assertEqual(self.parse("stderr   info"), (ErrorLog(None, LogLevel.info),))
        self.assertEqual(self.parse("stderr\tdebug"), (ErrorLog(None, LogLevel.debug),))
        self.assertEqual(self.parse("log/x.log warn"), (ErrorLog("/etc/mailgate/log/x.log", LogLevel.warn),))

    def test_json(self):
        """The word json stands behind the level. Each kind of target may have it."""
        self.assertEqual(self.parse("/x info json"), (ErrorLog("/x", LogLevel.info, None, True),))
        self.assertEqual(self.parse("stderr json"), (ErrorLog(None, LogLevel.error, None, True),))
        (log,) = self.parse("syslog:server=10.0.0.1 notice json")
        self.assertTrue(log.isJSON)
        self.assertIs(log.level, NOTICE)

    def test_levels(self):
        """The eight levels of nginx are known, in nginx's order."""
        self.assertEqual(list(LEVELS), ["debug", "info", "notice", "warn", "error", "crit", "alert", "emerg"])
        order = [LogLevel.debug, LogLevel.info, NOTICE, LogLevel.warn, LogLevel.error, LogLevel.critical]
        ranks = [order.index(level) for level in LEVELS.values()]
        self.assertEqual(ranks, sorted(ranks))
        self.assertEqual(sorted(set(ranks)), [0, 1, 2, 3, 4, 5])
        for word, level in LEVELS.items():
            self.assertEqual(self.parse(f"stderr {word}"), (ErrorLog(None, level),))

    def test_several(self):
        """There may be several targets. The journal has the lowest level of all."""
        settings = LogSettings(self.parse("stderr\n/var/log/m.log info\n/x crit"))
        self.assertEqual([log.file for log in settings.errorLog], [None, "/var/log/m.log", "/x"])
        self.assertIs(settings.level, LogLevel.info)

    def test_refused(self):
        """
        For an unknown level the message lists the known ones, for memory: the other targets. An empty value is refused.
        """
        for value, message in (
            ("stderr inof", '"inof" is not a level; use one of debug, info'),
            ("stderr inof", "did you mean info?"),
            ("stderr info jsno", '"info jsno" is not a level'),
            ("stderr json info", '"json info" is not a level'),
            ("syslog:server=10.0.0.1 inof", "did you mean info?"),
            ("syslog:tag=x", "no syslog server specified"),
            ("syslog: info", 'unknown syslog parameter ""'),
            ("memory:32k debug", "memory: is not supported; use a file, stderr or syslog:server=ADDRESS"),
            ("", "a value is missing"),
        ):
            self.assertIn(message, str(self.assertRaises(ValueError, self.parse, value)))

    def test_syslog(self):
        """A syslog server is a target like a file."""
        first, second = self.parse("syslog:server=unix:/dev/log,tag=mx info\nstderr")
        self.assertEqual(first, ErrorLog(None, LogLevel.info, syslogServer("server=unix:/dev/log,tag=mx")))
        self.assertEqual([first.isStandardError, second.isStandardError], [False, True])
        self.assertFalse(ErrorLog("/x").isStandardError)

    def test_server(self):
        """A server takes the same values. By default it has no log of its own."""
        self.assertEqual(ServerLogSettings().errorLog, ())
        value = "stderr\n/x info\nsyslog:server=unix:/dev/log"
        self.assertEqual(self.parse(value, ServerLogSettings), self.parse(value))

    def test_least(self):
        """The lowest level of several targets counts; without targets it is error."""
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
        """An event below the level is not built. A failure always is."""
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
        """The default level of a journal is error."""
        events, observer = recorder()
        self.logAll(Journal(observer=observer))
        self.assertEqual([event["log_level"] for event in events], [LogLevel.error, LogLevel.critical])

    def test_wantsInfo(self):
        """Callers can ask whether info is logged, before they do expensive work for an event."""
        self.assertTrue(self.journal(LogLevel.debug)[0].wantsInfo)
        self.assertTrue(self.journal(LogLevel.info)[0].wantsInfo)
        self.assertFalse(self.journal(LogLevel.warn)[0].wantsInfo)
        self.assertFalse(self.journal(LogLevel.error)[0].wantsInfo)

    def test_fields(self):
        """An event keeps its format and fields apart. Observers format it."""
        journal, events = self.journal(LogLevel.info)
        told = Told()
        journal.info("client {client}", client=told)
        self.assertEqual((events[0]["log_format"], events[0]["client"]), ("client {client}", told))
        self.assertEqual(told.count, 0)

    def test_event(self):
        """An event has all keys that an event of Logger has, so Twisted's observers can use it."""
        events, observer = recorder()
        journal = Journal(LogLevel.debug, observer)
        for level, method in (("debug", "debug"), ("info", "info"), ("info", "record"), ("info", "notice")):
            source = None if method == "notice" else "connections"
            with self.subTest(method):
                Logger("mailgate", source, observer).emit(LogLevel.lookupByName(level), "here {x}", x=1)
                getattr(journal, method)("here {x}", x=1)
                expected, event = events[-2:]
                self.assertIsInstance(event.pop("log_logger"), type(expected.pop("log_logger")))
                self.assertLess(abs(event.pop("log_time") - expected.pop("log_time")), 60)
                self.assertEqual(event, expected)

    def test_namespace(self):
        """All events have the namespace mailgate, whichever module logs them."""
        journal, events = self.journal(LogLevel.info)
        self.logAll(journal)
        self.assertEqual({event["log_namespace"] for event in events}, {"mailgate"})

    def test_global(self):
        """Without an observer of its own, a journal logs to Twisted's global log."""
        events, observer = recorder()
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        Journal(LogLevel.info).info("here")
        self.assertIn("here", [event.get("log_format") for event in events])


class LevelTests(SynchronousTestCase):
    """What the log has at each level, of the process and of its connections."""

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
        """Return the lines of a log with that level, without tracebacks and times."""
        lines = [line for line in self.logs[word].getvalue().splitlines() if not line.startswith("    ")]
        return [line.split(" ", 1)[1].replace(f"{os.getpid()}: ", "") for line in lines]

    def test_each(self) -> None:
        """At notice the log has only the process, at info also the connections, at debug also their steps."""
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

    def test_counted(self) -> None:
        """Each event that a target takes is counted once, however many take it; what none takes is not counted."""
        logs = ErrorLogs(io.StringIO())
        observer = logs.observer([ErrorLog(None, NOTICE), ErrorLog(None, LogLevel.error, isJSON=True)])
        journal = Journal(LogLevel.debug, observer)
        journal.info("a login")
        journal.notice("a reload")
        journal.warn("a warning")
        journal.error("an error")
        journal.error("another")
        journal.failure("a defect", caught("boom"))
        journal.debugging.debug("a step of a debugged connection")
        counts = {level.name: number for level, number in logs.lines.items()}
        self.assertEqual(counts, {"debug": 1, "info": 1, "warn": 1, "error": 2, "critical": 1})

    def test_unbuilt(self) -> None:
        """At notice the lines of connections are not built."""
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
        """
        At each level, lines above the rate are suppressed, and counted at their own level. Values of fields do not
        matter.
        """
        for level in ("info", "warn", "error"):
            for number in range(5):
                getattr(self.journal, level)(f"{level} of {{number}}", number=number)
            self.assertEqual(self.told(), [f"{level} {level} of 0", f"{level} {level} of 1"])
            self.clock.advance(1)
            counted = f"log_rate suppressed 3 more lines like this: {level} of {{number}}"
            self.assertEqual(self.told(), [f"{level} {counted}"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failures(self):
        """Tracebacks are limited as well."""
        for number in range(4):
            self.journal.failure("defect of {client}", caught("boom"), client=number)
        self.assertEqual(self.told(), ["critical defect of 0", "critical defect of 1"])
        self.clock.advance(1)
        self.assertEqual(self.told(), ["critical log_rate suppressed 2 more lines like this: defect of {client}"])

    def test_kinds(self):
        """A flood of one kind does not suppress another kind."""
        for number in range(1000):
            self.journal.error("flood {number}", number=number)
        self.told()
        self.journal.error("the disk is full")
        self.journal.info("somebody has left")
        self.assertEqual(self.told(), ["error the disk is full", "info somebody has left"])

    def test_unwanted(self):
        """Lines below the level are not counted."""
        events, observer = recorder()
        journal = Journal(LogLevel.error, observer, Rate(2, 1.0), self.clock)
        for number in range(9):
            journal.info("an info {number}", number=number)
        self.assertEqual((events, self.clock.getDelayedCalls()), ([], []))

    def test_flush(self):
        """flush logs at once how many lines were suppressed, and stops the timer."""
        for number in range(5):
            self.journal.info("an info {number}", number=number)
        self.told()
        self.journal.flush()
        self.assertEqual(self.told(), ["info log_rate suppressed 3 more lines like this: an info {number}"])
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


def contentOf(name):
    """Return the text of the file C{name}."""
    with open(name, encoding="utf-8") as file:
        return file.read()


class DebuggingTests(SynchronousTestCase):
    """The journal of debugged connections."""

    def test_levels(self):
        """Its events reach all targets, whatever their levels; other events do not."""
        folder = self.mktemp()
        os.mkdir(folder)
        stderr = io.StringIO()
        names = {level: os.path.join(folder, level) for level in ("error", "notice", "crit")}
        logs = [*(ErrorLog(name, LEVELS[level]) for level, name in names.items()), ErrorLog(None, LogLevel.warn)]
        journal = Journal(LogLevel.warn, ErrorLogs(stderr).observer(logs))
        for each, kind in ((journal, "other"), (journal.debugging, "chosen")):
            each.debug("debug {kind} {x}", kind=kind, x=1)
            each.info("info {kind} {x}", kind=kind, x=1)
        lines = ["[debug]", "debug chosen 1", "[info]", "info chosen 1"]
        for written in (stderr.getvalue(), *map(contentOf, names.values())):
            self.assertEqual(written.count("\n"), 2)
            for text in lines:
                self.assertIn(text, written)

    def test_one(self):
        """There is one for each journal, which logs everything, and follows log_rate of its own."""
        clock = Clock()
        events, observer = recorder()
        journal = Journal(LogLevel.error, observer, Rate(2, 1.0), clock)
        self.assertIs(journal.debugging, journal.debugging)
        self.assertEqual((journal.wantsDebug, journal.debugging.wantsDebug), (False, True))
        for _ in range(5):
            journal.debugging.debug("step {x}", x=1)
        self.assertEqual(len(events), 2)
        journal.flush()
        self.assertEqual(formatEvent(events[2]), "log_rate suppressed 3 more lines like this: step {x}")

    def test_globalLog(self):
        """Without an observer its events reach Twisted's log."""
        events, observer = recorder()
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        Journal(LogLevel.error).debugging.debug("step {x}", x=1)
        self.assertEqual([formatEvent(event) for event in events], ["step 1"])

    def test_trace(self):
        """The trace id stands behind the id of the session, only where there is one."""
        events, observer = recorder()
        journal = Journal(LogLevel.debug, observer)
        session = makeSession("imap", "0.0.0.0:143", "192.0.2.7:1", 0.0, id="5g0qa.7k", kind=FollowedSession)
        for trace in ("", "0af7651916cd43dd8448eb211c80319c"):
            session.trace = trace
            for log in (journal.debug, journal.info, journal.record, journal.warn, journal.error):
                log(line("event", "", "", 'user "{user}"'), **about(session), user="joe")
        texts = [formatEvent(event) for event in events]
        plain = 'event: client 192.0.2.7:1, protocol imap, server 0.0.0.0:143, session 5g0qa.7k, user "joe"'
        self.assertEqual(texts[:5], [plain] * 5)
        traced = plain.replace("7k,", "7k, trace 0af7651916cd43dd8448eb211c80319c,")
        self.assertEqual(texts[5:], [traced] * 5)
