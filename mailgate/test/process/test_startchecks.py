"""Tests for L{mailgate.process.startchecks}: it finds what would keep a gateway from starting, and creates nothing."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.process import startchecks
from mailgate.process.startchecks import checkStart
from mailgate.system import rootfiles
from mailgate.test.integration.daemon import freePort

GOOD = """
[mailgate]
{process}
[server imap]
protocol = imap
listen = {listen}
proxy_pass = 10.0.0.1:143
{server}
"""


class Case(SynchronousTestCase):
    """A folder, and the problems of configurations that name files there."""

    def setUp(self):
        # The path of trial's folder may be too long for a socket.
        above = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, above)
        self.folder = os.path.join(above, "files")
        os.mkdir(self.folder, 0o755)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def look(self, process: str = "", listen: str = "127.0.0.1:21000", server: str = "") -> list[str]:
        """Return the errors, or else the warnings. Asserts that the folder is unchanged."""
        before = self.state()
        settings = parse(GOOD.format(process=process, listen=listen, server=server))
        try:
            return [str(each) for each in checkStart(settings)]
        except ConfigurationError as error:
            return str(error).split("\n")
        finally:
            self.assertEqual(self.state(), before)

    def state(self) -> dict[str, tuple[int, int, int]]:
        """Return the contents of the folder."""
        found = {name: os.lstat(self.path(name)) for name in ("", *os.listdir(self.folder))}
        return {name: (each.st_mode, each.st_size, each.st_mtime_ns) for name, each in found.items()}


class FileTests(Case):
    """Logs and the pid file."""

    def test_good(self):
        """Missing files, existing files and devices are good."""
        for name in ("a.log", "a.pid"):
            with open(self.path(name), "w", encoding="ascii") as opened:
                opened.write("kept")
        for name in ("a", "b"):
            logs = f"\n  {self.path(name)}.log\n  /dev/null\n  /dev/stderr"
            self.assertEqual(self.look(f"error_log ={logs}\npid = {self.path(name)}.pid"), [])

    def test_folders(self):
        """A folder cannot be a log or a pid file, and a missing folder is not created."""
        missing = self.path("missing/x")
        for process, told in (
            (f"error_log = {self.folder} info", f"error_log = {self.folder}: cannot be opened: Is a directory"),
            (f"error_log = {missing}", f"error_log = {missing}: cannot be opened: its directory does not exist"),
            (f"pid = {self.folder}", f"pid = {self.folder}: cannot be written: Is a directory"),
            (f"pid = {missing}", f"pid = {missing}: cannot be written: its directory does not exist"),
        ):
            self.assertEqual(self.look(process), [f"gateway.ini:3: [mailgate] {told}"])

    def test_serversLog(self):
        """The same holds for the log of a server, and for a path through a file."""
        with open(self.path("file"), "w", encoding="ascii"):
            pass
        log = self.path("file/x.log")
        (told,) = self.look(server=f"error_log = {log}")
        self.assertEqual(told, f"gateway.ini:8: [server imap] error_log = {log}: cannot be opened: Not a directory")

    def test_rights(self):
        """Files that this process may not write are errors."""
        self.patch(rootfiles.os, "access", lambda path, mode, **more: False)
        with open(self.path("a.log"), "w", encoding="ascii"):
            pass
        for name in ("a.log", "b.log"):
            log = self.path(name)
            (told,) = self.look(f"error_log = {log}")
            self.assertTrue(told.startswith(f"gateway.ini:3: [mailgate] error_log = {log}: cannot be opened: "), told)
            self.assertIn(os.strerror(errno.EACCES), told)

    def test_links(self):
        """Root follows no link in a folder where others may write; a pid file is never followed."""
        os.symlink(self.path("elsewhere"), self.path("x.log"))
        os.chmod(self.folder, 0o777)
        self.patch(rootfiles.os, "geteuid", lambda: 0)
        log = self.path("x.log")
        (told,) = self.look(f"error_log = {log}")
        self.assertIn("it is a symbolic link, and other users can write", told)
        (told,) = self.look(f"pid = {log}")
        self.assertIn(os.strerror(errno.ELOOP), told)
        self.patch(rootfiles.os, "geteuid", lambda: 1000)
        self.assertEqual(self.look(f"error_log = {log}"), [])
        (told,) = self.look(f"pid = {log}")
        self.assertIn(os.strerror(errno.ELOOP), told)

    def test_stateFile(self):
        """The file of the limits' tables, which the gateway can do without, is the matter of a warning."""
        process = "[mail]\nstate_file = {}"
        for file in (self.path("limits"), "off"):
            self.assertEqual(self.look(process.format(file)), [])
        file = self.path("none/limits")
        (said,) = self.look(process.format(file))
        self.assertIn(f"state_file = {file}: cannot be written: its directory does not exist; a restart forgets", said)

    def test_fifo(self):
        """Root does not write to a FIFO there, either."""
        os.mkfifo(self.path("x.log"))
        os.chmod(self.folder, 0o777)
        self.patch(rootfiles.os, "geteuid", lambda: 0)
        (told,) = self.look(f"error_log = {self.path('x.log')}")
        self.assertIn("it is not a regular file", told)

    def test_commands(self):
        """The command socket needs its path beside the pid file."""
        # The path of trial's folder may be too long for a unix socket.
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        pid = self.path("x.pid")
        with open(f"{pid}.sock", "w", encoding="ascii"):
            pass
        (told,) = self.look(f"pid = {pid}")
        reason = f"cannot bind the command socket {pid}.sock: a file that is not a socket has this name"
        self.assertEqual(told, f"gateway.ini:3: [mailgate] pid = {pid}: {reason}")
        (told,) = self.look(f"pid = {'/tmp/' + 'x' * 100}")
        self.assertIn(": its path is longer than 107 bytes", told)

    def test_keeper(self):
        """The keeper's sockets need their paths, and addresses of this host."""
        pid = self.path("x.pid")
        for name in ("keeper", "admin"):
            with open(f"{pid}.{name}", "w", encoding="ascii"):
                pass
            (told,) = self.look(f"pid = {pid}")
            reason = f"cannot bind {pid}.{name} for the keeper: a file that is not a socket has this name"
            self.assertEqual(told, f"gateway.ini:3: [mailgate] pid = {pid}: {reason}")
            self.assertEqual(self.look(f"pid = {pid}\nadmin = off"), [])
            os.unlink(f"{pid}.{name}")
        # Longer than with .sock behind it.
        long = "/tmp/" + "x" * 97
        (told,) = self.look(f"pid = {long}")
        self.assertIn(f"cannot bind {long}.keeper for the keeper: its path is longer than 107 bytes", told)
        (told,) = self.look(f"admin = unix:{self.path('none/x')}")
        self.assertIn("for the keeper: its directory does not exist", told)
        (told,) = self.look("metrics = 192.0.2.1:9144")
        reason = f"cannot be bound: {os.strerror(errno.EADDRNOTAVAIL)}"
        self.assertEqual(told, f"gateway.ini:3: [mailgate] metrics = 192.0.2.1:9144: {reason}")


class AddressTests(Case):
    """The addresses of listeners."""

    def test_elsewhere(self):
        """An address that this host does not have is an error, reported once."""
        (told,) = self.look(listen="\n    192.0.2.1:21143\n    127.0.0.1:21143\n    192.0.2.1:21144")
        reason = f"cannot be bound: {os.strerror(errno.EADDRNOTAVAIL)}"
        self.assertEqual(told, f"gateway.ini:7: [server imap] listen = 192.0.2.1:21143: {reason}")

    def test_taken(self):
        """A port in use may be the running gateway's: it is no error, and the check does not connect."""
        port = freePort()
        with socket.create_server(("127.0.0.1", port)) as taken:
            self.assertEqual(self.look(listen=f"127.0.0.1:{port}"), [])
            taken.setblocking(False)
            self.assertRaises(BlockingIOError, taken.accept)
        self.assertEqual(self.look(listen=f"\n  *:{port}\n  systemd:imap"), [])

    def test_unix(self):
        """A unix socket needs its folder. An existing socket is accepted, another file is not."""
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(self.path("s"))
            self.assertEqual(self.look(listen=f"unix:{self.path('s')}"), [])
        self.assertEqual(self.look(listen=f"unix:{self.path('new')}"), [])
        with open(self.path("file"), "w", encoding="ascii"):
            pass
        for name, reason in (
            ("file", "a file that is not a socket has this name"),
            ("a/s", "its directory does not exist"),
        ):
            path = f"unix:{self.path(name)}"
            told = f"gateway.ini:6: [server imap] listen = {path}: cannot be bound: {reason}"
            self.assertEqual(self.look(listen=path), [told])
        self.assertTrue(stat.S_ISREG(os.stat(self.path("file")).st_mode))

    def test_ports(self):
        """Privileged ports need a right that another process may have: a warning."""
        self.patch(startchecks.os, "geteuid", lambda: 1000)
        self.patch(startchecks, "_mayBind", lambda: False)
        self.patch(startchecks, "_FIRST_FREE", self.path("first"))
        for first, warned in (("1024", True), ("144", True), ("143", False), ("", True)):
            with open(self.path("first"), "w", encoding="ascii") as opened:
                opened.write(first)
            told = self.look(listen="127.0.0.1:143")
            self.assertEqual([line[:46] for line in told], ["gateway.ini:6: [server imap] listen = 127.0.0."] * warned)
            self.assertTrue(all("need root or CAP_NET_BIND_SERVICE" in line for line in told))
        self.patch(startchecks, "_mayBind", lambda: True)
        self.assertEqual(self.look(listen="127.0.0.1:143"), [])

    def test_openFiles(self):
        """A limit of open files above the hard limit is a warning."""
        self.patch(startchecks.os, "geteuid", lambda: 1000)
        self.patch(startchecks.resource, "getrlimit", lambda which: (1024, 4096))
        (told,) = self.look("worker_rlimit_nofile = 5000", listen="127.0.0.1:21000")
        reason = "will be refused by the system: this process may have at most 4096 open files"
        self.assertEqual(told, f"gateway.ini:3: [mailgate] worker_rlimit_nofile = 5000: {reason}")
        self.assertEqual(self.look("worker_rlimit_nofile = 4096", listen="127.0.0.1:21000"), [])

    def test_openFilesOfRoot(self):
        """Root may exceed its hard limit, but not the system's limit for a process."""
        self.patch(startchecks.os, "geteuid", lambda: 0)
        self.patch(startchecks.resource, "getrlimit", lambda which: (1024, 4096))
        self.patch(startchecks, "_MOST_OPEN", self.mktemp())
        self.assertEqual(self.look("worker_rlimit_nofile = 70000", listen="127.0.0.1:21000"), [])
        with open(startchecks._MOST_OPEN, "w", encoding="ascii") as opened:
            opened.write("65536\n")
        self.assertEqual(self.look("worker_rlimit_nofile = 65536", listen="127.0.0.1:21000"), [])
        (told,) = self.look("worker_rlimit_nofile = 70000", listen="127.0.0.1:21000")
        self.assertTrue(told.endswith(": this process may have at most 65536 open files"), told)
