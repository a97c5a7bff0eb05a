"""Tests for L{mailgate.process.keeper.sockets}."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import tempfile
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.process.keeper.sockets import ADMIN, MEMORY, METRICS, RENDEZVOUS, KeeperSockets
from mailgate.test.integration.daemon import freePort

SERVER = "[server imap]\nprotocol = imap\nlisten = 127.0.0.1:10143\nproxy_pass = 127.0.0.1:9\n"


class KeeperSocketsTests(SynchronousTestCase):
    """Tests for L{KeeperSockets}."""

    def setUp(self) -> None:
        # The folders of trial may be too long for the path of a unix socket.
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.pid = os.path.join(self.folder, "g.pid")

    def make(self, lines: str = "", inherited: dict[str, socket.socket] | None = None) -> KeeperSockets:
        text = f"[mailgate]\npid = {self.pid}\n{lines}\n{SERVER}"
        sockets = KeeperSockets(parse(text, os.path.join(self.folder, "g.ini")), inherited or {})
        self.addCleanup(sockets.handOver)
        return sockets

    def files(self) -> list[str]:
        return sorted(os.listdir(self.folder))

    def handed(self, sockets: KeeperSockets) -> dict[str, socket.socket]:
        """The sockets as a successor has them."""
        return {name: socket.socket(fileno=os.dup(opened.fileno())) for name, opened in sockets.opened().items()}

    def test_open(self) -> None:
        """They listen beside the pid file, for the owner alone, and their files are removed at the end."""
        port = freePort()
        sockets = self.make(f"metrics = 127.0.0.1:{port}")
        self.assertEqual(self.files(), [])
        sockets.open()
        sockets.open()
        self.assertEqual(self.files(), ["g.pid.admin", "g.pid.keeper"])
        self.assertEqual(sockets.path, f"{self.pid}.keeper")
        self.assertEqual(sorted(sockets.descriptors()), [ADMIN, MEMORY, METRICS, RENDEZVOUS])
        for name in self.files():
            self.assertEqual(stat.S_IMODE(os.stat(os.path.join(self.folder, name)).st_mode), 0o600)
        socket.create_connection(("127.0.0.1", port), 5).close()
        sockets.leave()
        self.assertEqual(self.files(), [])

    def test_end(self) -> None:
        """Where a process that does not accept has inherited the sockets, connections are refused, and ports free."""
        port = freePort()
        first = self.make(f"metrics = 127.0.0.1:{port}")
        first.open()
        handed = self.handed(first)
        for each in handed.values():
            self.addCleanup(each.close)
        first.end()
        self.assertEqual((self.files(), first.descriptors()), ([], {}))
        self.assertRaises(ConnectionRefusedError, socket.create_connection, ("127.0.0.1", port), 5)
        second = self.make(f"metrics = 127.0.0.1:{port}")
        second.open()
        socket.create_connection(("127.0.0.1", port), 5).close()

    def test_noPID(self) -> None:
        """Without a pid file the rendezvous is in a folder for the owner alone, which is removed at the end."""
        text = f"[mailgate]\nadmin = unix:{self.folder}/admin\n{SERVER}"
        self.patch(tempfile, "tempdir", self.folder)
        sockets = KeeperSockets(parse(text, os.path.join(self.folder, "g.ini")))
        sockets.open()
        private = os.path.dirname(sockets.path)
        self.assertEqual(os.path.dirname(private), self.folder)
        self.assertEqual(stat.S_IMODE(os.stat(private).st_mode), 0o700)
        sockets.leave()
        self.assertEqual(self.files(), [])

    def test_owner(self) -> None:
        """A folder becomes that of the workers' user at the end: until then no process of that user can change it."""
        given: list[str] = []
        self.patch(KeeperSockets, "_give", lambda sockets, path: given.append(os.path.basename(path)))
        self.patch(tempfile, "tempdir", self.folder)
        sockets = KeeperSockets(parse(SERVER, os.path.join(self.folder, "g.ini")))
        sockets.open()
        self.addCleanup(sockets.leave)
        self.assertEqual(given, ["socket", os.path.basename(os.path.dirname(sockets.path))])

    def test_give(self) -> None:
        """The files of unix sockets can get the user of C{twistd --uid}, with the private folder."""
        given: list[tuple[Any, ...]] = []
        self.patch(os, "chown", lambda *args, follow_symlinks: given.append((*args, follow_symlinks)))
        sockets = self.make(f"metrics = 127.0.0.1:{freePort()}")
        sockets.open()
        sockets.give(7, -1)
        self.assertEqual(sorted(given), [(f"{self.pid}.{name}", 7, -1, False) for name in ("admin", "keeper")])
        given.clear()
        # Those of the old process of an upgrade have their owner already.
        self.make(inherited=self.handed(sockets)).give(7, 8)
        self.assertEqual(given, [])
        self.patch(tempfile, "tempdir", self.folder)
        private = KeeperSockets(parse(f"[mailgate]\nadmin = unix:{self.folder}/admin\n{SERVER}"))
        self.addCleanup(private.leave)
        private.open()
        private.give(7, 8)
        self.assertIn((os.path.dirname(private.path), 7, 8, False), given)

    def test_giveRefused(self) -> None:
        """It is an error of the start if the system refuses that."""
        sockets = self.make()
        sockets.open()

        def refuse(*args: Any, follow_symlinks: bool) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        self.patch(os, "chown", refuse)
        error = self.assertRaises(ConfigurationError, sockets.give, 7, 8)
        self.assertIn("for the keeper: Operation not permitted", str(error))

    def test_stale(self) -> None:
        """The files of a process that was killed are replaced."""
        before = self.make()
        before.open()
        before.handOver()
        self.assertEqual(self.files(), ["g.pid.admin", "g.pid.keeper"])
        after = self.make()
        after.open()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(after.path)

    def test_living(self) -> None:
        """Where another process listens, nothing is bound, and the error says so; its files stay."""
        first, second = self.make(), self.make(f"metrics = 127.0.0.1:{freePort()}")
        first.open()
        error = self.assertRaises(ConfigurationError, second.open)
        reason = f"cannot bind {self.pid}.admin for the keeper: another mailgate with this pid file is running"
        self.assertIn(f"[mailgate] pid = {self.pid}: {reason}", str(error))
        self.assertEqual(second.descriptors(), {})
        self.assertEqual(self.files(), ["g.pid.admin", "g.pid.keeper"])

    def test_noFolder(self) -> None:
        """An error of the system is reported with the path."""
        error = self.assertRaises(ConfigurationError, self.make(f"admin = unix:{self.folder}/missing/admin").open)
        self.assertIn("/missing/admin for the keeper: No such file or directory", str(error))
        self.assertEqual(self.files(), [])

    def test_inherited(self) -> None:
        """A successor uses the sockets with its addresses, and removes the others once it has taken over."""
        old = self.make(f"metrics = 127.0.0.1:{freePort()}")
        old.open()
        new = self.make(f"admin = unix:{self.folder}/other", self.handed(old))
        new.open()
        old.handOver()
        self.assertEqual(self.files(), ["g.pid.admin", "g.pid.keeper", "other"])
        self.assertEqual((new.path, sorted(new.descriptors())), (f"{self.pid}.keeper", [ADMIN, MEMORY, RENDEZVOUS]))
        new.take()
        self.assertEqual(self.files(), ["g.pid.keeper", "other"])
        new.leave()
        self.assertEqual(self.files(), [])

    def test_cancelled(self) -> None:
        """A successor that ends before it has taken over removes only the files that it has made."""
        old = self.make()
        old.open()
        new = self.make(f"admin = unix:{self.folder}/other", self.handed(old))
        new.open()
        new.leave()
        self.assertEqual(self.files(), ["g.pid.admin", "g.pid.keeper"])
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(old.path)
        old.leave()
        self.assertEqual(self.files(), [])
