"""
Tests of L{bench.guessing} and L{bench.accountfile}, with clients that reach the backend without a gateway.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from bench import accountfile
from bench.accountfile import ownerName, writeAccounts
from bench.attackers import Counts
from bench.guessing import Watcher, logIn, meanwhile, ownerCells, percent
from bench.options import SCHEMES
from bench.processes import BenchmarkError
from bench.test.direct import entered, services
from mailgate.auth.passwdfile.passwords import commonest, parsePassword


class FiguresTests(SynchronousTestCase):
    """Summaries of figures."""

    def test_percent(self):
        """Without figures the result is L{None}; with one figure it is that."""
        self.assertEqual([percent([], 95), percent([2.0], 95), percent([1.0, 2.0, 3.0], 50)], [None, 2.0, 2.0])

    def test_owner(self):
        """Failed logins are counted, but not timed."""
        self.assertEqual(ownerCells([0.5, None, 0.25, 1.0]), ("4", "1", "0.500", "0.950", "1.000", "yes"))
        self.assertEqual(ownerCells([None]), ("1", "1", "-", "-", "-", "no"))

    def test_inTime(self):
        """Half of the logins must be fast; failed ones are not."""
        for logins, inTime in (
            ([1.4] * 3, "yes"),
            ([1.4, 1.6, 1.6], "no"),
            ([0.1, None], "no"),
            ([0.1, 9, None], "no"),
        ):
            self.assertEqual(ownerCells(logins)[-1], inTime)

    def test_meanwhile(self):
        """Rates are those of the measured time, closed connections those of the whole attack."""
        before, after = Counts(100, 10, 2, 8, 5), Counts(300, 10, 4, 18, 5)
        self.assertEqual(meanwhile(4.0, 1.0, before, after), ("50.0", "0.0", "4", "4.5", "5", "25%"))
        self.assertEqual(meanwhile(4.0, 1.0, before, Counts(100, 50))[1:4], ("10.0", "0", "-"))


class AccountTests(SynchronousTestCase):
    """L{writeAccounts}."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def written(self, scheme, owners):
        with open(writeAccounts(self.folder, scheme, owners), "rb") as stream:
            return dict(line.split(b":") for line in stream.read().splitlines())

    def test_schemes(self):
        """Each scheme makes passwords that mailgate accepts and that match; the commonest scheme is the owners'."""
        names = {"plain": "PLAIN", "ssha512": "SSHA512", "sha512-crypt": "SHA512-CRYPT", "bcrypt5": "BLF-CRYPT"}
        for scheme, name in names.items():
            accounts = self.written(scheme, 1)
            self.assertEqual(list(accounts), [ownerName(0).encode("ascii"), b"watcher"])
            for text in accounts.values():
                password = parsePassword(text)
                self.assertEqual((password.matches(b"secret"), password.matches(b"x")), (True, False))
            self.assertEqual(commonest(accounts.values()).scheme, name)
        self.assertEqual(set(names) | {"bcrypt12"}, set(SCHEMES))

    def test_salted(self):
        """No two owners have the same salt."""
        accounts = self.written("ssha512", 3)
        self.assertEqual(len(set(accounts.values())), 4)

    def test_missing(self):
        """A missing library is named, with the way to install it."""
        error = self.assertRaises(BenchmarkError, accountfile._library, "nolibrary")
        self.assertEqual(str(error), "nolibrary is not installed: pip install mailgate[bench]")


class ClientTests(SynchronousTestCase):
    """L{logIn} and L{Watcher}."""

    def setUp(self):
        self.site, _ = entered(self, services())
        self.address = ("127.0.0.1", self.site.backendPort)

    def test_logIn(self):
        """A session is open after the login, from the given address."""
        with logIn(self.address, "127.0.0.3", "joe") as connection:
            self.assertEqual(connection.getsockname()[0], "127.0.0.3")
            connection.sendall(b"x NOOP\r\n")
            self.assertEqual(connection.recv(100), b"x OK done\r\n")

    def test_refused(self):
        """A refused login, or one without a reply, is an error."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            for said in (b"* BYE full\r\n", b"* OK hello\r\na1 NO [UNAVAILABLE] later\r\n", b"* OK hello\r\n", b""):
                with self.assertRaises(OSError), self.speaking(listener, said), logIn(address, "127.0.0.3", "joe"):
                    self.fail("logged in")
        self.assertRaises(OSError, logIn(address, "127.0.0.3", "joe").__enter__)

    @contextlib.contextmanager
    def speaking(self, listener, said):
        """While the block runs, a server sends C{said} to the first client, and no more."""

        def speak():
            one, _ = listener.accept()
            with contextlib.suppress(ConnectionError), one:
                one.sendall(said)
                one.shutdown(socket.SHUT_WR)
                while one.recv(4096):
                    continue

        thread = threading.Thread(target=speak)
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def test_watcher(self):
        """Round trips are timed until the block ends."""
        with Watcher(self.address) as watcher:
            deadline = time.monotonic() + 20
            while len(watcher.figures) < 3:
                self.assertLess(time.monotonic(), deadline)
                watcher.check()
                time.sleep(0.01)
        self.assertGreater(min(watcher.figures), 0)
        count = len(watcher.figures)
        watcher.check()
        self.assertEqual(len(watcher.figures), count)

    def test_watcherEnded(self):
        """A failed session is an error."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
        with Watcher(address) as watcher:
            error = self.assertRaises(BenchmarkError, watcher.check)
        self.assertIn("Connection refused", str(error))
