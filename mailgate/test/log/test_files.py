"""
Tests of log files.
"""

from __future__ import annotations

import builtins
import io
import os
import stat

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import ConfigurationError
from mailgate.log.errorlog import ErrorLogs
from mailgate.log.journal import Journal
from mailgate.log.settings import ErrorLog


class FileTests(SynchronousTestCase):
    """Log files."""

    def setUp(self):
        self.path = self.mktemp()
        self.stderr = io.StringIO()

    def read(self) -> str:
        with open(self.path, encoding="utf-8") as opened:
            return opened.read()

    def test_levels(self):
        """Each of several logs receives the events of its own level and above."""
        logs = [ErrorLog(None, LogLevel.error), ErrorLog(self.path, LogLevel.info)]
        journal = Journal(LogLevel.info, ErrorLogs(self.stderr).observer(logs))
        journal.info("small talk")
        journal.error("trouble")
        self.assertEqual([line.split(": ", 1)[1] for line in self.read().splitlines()], ["small talk", "trouble"])
        self.assertEqual([line.split(": ", 1)[1] for line in self.stderr.getvalue().splitlines()], ["trouble"])

    def test_appended(self):
        """New lines are appended to an existing file."""
        with open(self.path, "w", encoding="utf-8") as opened:
            opened.write("before\n")
        Journal(observer=ErrorLogs().observer([ErrorLog(self.path)])).error("after")
        self.assertTrue(self.read().startswith("before\n"))
        self.assertTrue(self.read().endswith(f"[error] {os.getpid()}: after\n"))

    def test_atOnce(self):
        """An event is in the file as soon as it was logged."""
        Journal(observer=ErrorLogs().observer([ErrorLog(self.path)])).error("now")
        self.assertIn("now", self.read())

    def test_anyText(self):
        """The file is UTF-8 in any locale. Surrogates, which UTF-8 cannot encode, are escaped."""
        Journal(observer=ErrorLogs().observer([ErrorLog(self.path)])).error("{user}", user="Jörg \udcff")
        self.assertIn(r"Jörg \udcff", self.read())

    def test_once(self):
        """
        A file that is named several times, in one server or in several, is opened once and receives each event once.
        """
        logs = ErrorLogs(self.stderr)
        first = logs.observer([ErrorLog(self.path, LogLevel.info)])
        # If the file were opened again, a new one would be created.
        os.rename(self.path, f"{self.path}.moved")
        second = logs.observer([ErrorLog(self.path), ErrorLog(None, LogLevel.error)])
        self.assertFalse(os.path.exists(self.path))
        Journal(LogLevel.info, first).info("one")
        Journal(LogLevel.info, second).info("unwanted")
        Journal(LogLevel.info, second).error("two")
        self.path += ".moved"
        self.assertEqual([line.split(": ", 1)[1] for line in self.read().splitlines()], ["one", "two"])

    def test_reopen(self):
        """A renamed file keeps its lines. The next lines are in a new file with the old name."""
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
        A new file has the mode of the old one, whatever the umask is. An existing file keeps its own mode. If the old
        file is a device or a FIFO, the umask applies. The umask of the process does not change.
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
        """
        If the path still leads to the open file, it is not opened again: the process might no longer have the right.
        """
        logs = ErrorLogs(self.stderr)
        journal = Journal(observer=logs.observer([ErrorLog(self.path)]))
        opened: list[object] = []
        for module in (builtins, os):
            self.patch(module, "open", lambda *arguments, **options: opened.append(arguments))
        self.assertEqual(list(logs.reopen()), [])
        self.assertEqual(opened, [])
        journal.error("told")

    def test_reopenRefused(self):
        """
        A file that cannot be opened is reported, and logging continues in the old file. The other files are reopened.
        """
        folder = self.mktemp()
        os.mkdir(folder)
        lost = os.path.join(folder, "x.log")
        logs = ErrorLogs(self.stderr)
        journal = Journal(observer=logs.observer([ErrorLog(lost), ErrorLog(self.path)]))
        os.rename(folder, f"{folder}.moved")
        os.rename(self.path, f"{self.path}.1")
        (line,) = logs.reopen()
        self.assertEqual(line, f"cannot reopen {lost}; logging continues in the old file: No such file or directory")
        journal.error("told")
        self.assertIn("told", self.read())
        self.path = os.path.join(f"{folder}.moved", "x.log")
        self.assertIn("told", self.read())

    def test_reopenFIFO(self):
        """If a FIFO without a reader has the name of a log, reopening does not block."""
        for uid in {os.geteuid(), 4711}:
            self.patch(os, "geteuid", lambda uid=uid: uid)
            path = os.path.abspath(self.mktemp())
            logs = ErrorLogs(self.stderr)
            journal = Journal(observer=logs.observer([ErrorLog(path)]))
            os.rename(path, f"{path}.1")
            os.mkfifo(path)
            (line,) = logs.reopen()
            reason = "No such device or address"
            self.assertEqual(line, f"cannot reopen {path}; logging continues in the old file: {reason}")
            reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            self.addCleanup(os.close, reading)
            self.assertEqual(list(logs.reopen()), [])
            journal.error("told")
            self.assertIn(b"told", os.read(reading, 1000))
            self.assertTrue(os.get_blocking(next(iter(logs._files.values())).descriptor))

    def test_reopenLink(self):
        """
        If users other than root can write to the folder, root does not follow a link with the name of a log. Logging
        continues in the old file, and the message names the link. A start refuses the link, too.
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
        reason = f"it is a symbolic link, and other users can write to the folder {folder}"
        self.assertIn(f"cannot reopen {path}; logging continues in the old file: {reason}; remove it, ", line)
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
        """A file of a third user, in that user's folder, does not get another owner."""
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
        self.assertEqual(line, f"cannot make the workers' user the owner of {path}: it belongs to another user")
        self.assertEqual(given, [])

    def test_give(self):
        """A file gets the new owner. Links and devices do not."""
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
        told = [line.removeprefix("cannot make the workers' user the owner of ") for line in logs.reopen((4711, 4712))]
        self.assertEqual(given, [(os.stat(self.path).st_ino, 4711, 4712)])
        self.assertEqual(told, [f"{link}: it is a symbolic or hard link" for link in links])

    def test_retain(self):
        """Files that are no longer used are closed, and not created again."""
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
        """An error names the place in the configuration of the file that cannot be opened."""
        path = os.path.join(os.path.abspath(self.path), "x.log")
        error = self.assertRaises(
            ConfigurationError, ErrorLogs().observerFor, [ErrorLog(path)], "gateway.ini", "server imap"
        )
        reason = "cannot be opened: No such file or directory"
        self.assertEqual(str(error), f"gateway.ini: [server imap] error_log = {path}: {reason}")

    def test_unopenable(self):
        """A file that cannot be opened is an error at once."""
        self.assertRaises(OSError, ErrorLogs().observer, [ErrorLog(os.path.join(self.path, "x.log"))])
