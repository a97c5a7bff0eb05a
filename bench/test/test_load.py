"""
Tests of L{bench.load}, over real sockets.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from bench.load import Connection, fetch, login, logout, pace, ping, run
from bench.processes import BenchmarkError
from bench.test.direct import entered, services


class DialogueTests(SynchronousTestCase):
    """Dialogues with the benchmark's own backend."""

    def setUp(self):
        self.site, _ = entered(self, services())

    def test_whole(self):
        """A session logs in, fetches, pings, logs out, and is closed."""
        connection = Connection(("127.0.0.1", self.site.backendPort))
        reached = []

        def script():
            yield from login(connection, "joe")
            yield from fetch(connection, 700_000, 2)
            yield from ping(connection, 3)
            yield from logout(connection)
            reached.append("the end")

        run(iter([(connection, script())]), 1)
        self.assertEqual(reached, ["the end"])
        self.assertEqual(connection.fileno(), -1)

    def test_many(self):
        """The allowed number of sessions runs at a time, and all of them in the end."""
        running, most, done = 0, 0, 0

        def script(connection):
            nonlocal running, most, done
            running += 1
            most = max(most, running)
            yield from login(connection, "joe")
            yield from logout(connection)
            running -= 1
            done += 1

        connections = (Connection(("127.0.0.1", self.site.backendPort)) for _ in range(20))
        run(((one, script(one)) for one in connections), 3)
        self.assertEqual((done, most), (20, 3))

    def test_source(self):
        """A client can have any address of the loopback."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connection = Connection(listener.getsockname(), source="127.9.8.7")
            self.addCleanup(connection.close)
            run(iter([(connection, connection.open())]), 1)
            accepted, address = listener.accept()
            accepted.close()
        self.assertEqual(address[0], "127.9.8.7")

    def test_paced(self):
        """Scripts begin at their moments, whether or not the earlier ones have ended."""
        begun, running, most = [], 0, 0

        def script(connection):
            nonlocal running, most
            begun.append(time.perf_counter())
            running += 1
            most = max(most, running)
            yield from login(connection, "joe")
            while len(begun) < 4:
                yield from ping(connection, 1)
            running -= 1
            yield from logout(connection)

        connections = [Connection(("127.0.0.1", self.site.backendPort)) for _ in range(4)]
        late = pace(((one, script(one)) for one in connections), 50)
        self.assertEqual((len(begun), most, running), (4, 4, 0))
        self.assertGreaterEqual(begun[-1] - begun[0], 0.05)
        self.assertLess(late, 5)

    def test_staysOpen(self):
        """A session that only logs in stays open after its script, and can run further ones."""
        connection = Connection(("127.0.0.1", self.site.backendPort))
        self.addCleanup(connection.close)
        run(iter([(connection, login(connection, "joe"))]), 1)
        self.assertNotEqual(connection.fileno(), -1)
        run(iter([(connection, ping(connection, 1))]), 1)


class TroubleTests(SynchronousTestCase):
    """An unexpected reply ends the run, and is in the error."""

    def failure(self, said, script):
        """The error of a script whose peer sends C{said} and closes."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def peer():
            one, _ = listener.accept()
            with contextlib.suppress(ConnectionError), one:
                one.sendall(said)
                one.shutdown(socket.SHUT_WR)
                while one.recv(4096):
                    continue

        thread = threading.Thread(target=peer)
        thread.start()
        self.addCleanup(thread.join)
        connection = Connection(listener.getsockname())
        error = self.assertRaises(BenchmarkError, run, iter([(connection, script(connection))]), 1)
        self.assertEqual(connection.fileno(), -1)
        return str(error)

    def test_refused(self):
        """A refused login."""
        said = self.failure(b"* OK hello\r\na1 NO [AUTHENTICATIONFAILED] no\r\n", lambda one: login(one, "joe"))
        self.assertIn("a1 NO [AUTHENTICATIONFAILED] no", said)

    def test_badGreeting(self):
        """An invalid greeting."""
        self.assertIn("* BYE full", self.failure(b"* BYE full\r\n", lambda one: login(one, "joe")))

    def test_closed(self):
        """A connection that ends in the middle of a line."""
        self.assertIn("closed after b'* OK hel'", self.failure(b"* OK hel", lambda one: login(one, "joe")))

    def test_shortBody(self):
        """A message that ends early; its bytes are counted."""

        def script(connection):
            yield from connection.open()
            yield from fetch(connection, 1000)

        said = self.failure(b"* 1 FETCH (BODY[] {1000}\r\n" + b"x" * 990, script)
        self.assertIn("10 bytes of a body to come", said)

    def test_longBody(self):
        """A message that does not end at its size."""

        def script(connection):
            yield from connection.open()
            yield from fetch(connection, 4)

        self.assertIn("ends a message with b'e)'", self.failure(b"* 1 FETCH (BODY[] {4}\r\nabcde)\r\n", script))

    def test_changedPing(self):
        """A ping with another reply."""

        def script(connection):
            yield from connection.open()
            yield from ping(connection, 1)

        self.assertIn("b'pong'", self.failure(b"pong\r\n", script))

    def test_more(self):
        """More data than expected, before the end."""

        def script(connection):
            yield from connection.open()
            yield from logout(connection)

        self.assertIn("more than it was asked", self.failure(b"a2 OK done\r\n* 1 EXISTS\r\n", script))

    def test_nobody(self):
        """A closed port."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
        connection = Connection(address)
        error = self.assertRaises(BenchmarkError, run, iter([(connection, login(connection, "joe"))]), 1)
        self.assertIn("Connection refused", str(error))
