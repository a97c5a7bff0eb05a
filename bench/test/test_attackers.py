"""
Tests of L{bench.attackers}, with a fake gateway.
"""

from __future__ import annotations

import socketserver
import tempfile
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from bench.attackers import Counts, attack
from bench.processes import BenchmarkError, Children


class Gateway(socketserver.ThreadingTCPServer):
    """Replies to each guess with the next of C{replies}, and closes after the last."""

    daemon_threads = True

    def __init__(self, replies):
        self.replies = replies
        self.guesses = []
        self.sources = set()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(socketserver.StreamRequestHandler):
    """One connection."""

    def handle(self):
        self.server.sources.add(self.client_address[0])
        self.wfile.write(b"* OK ready\r\n")
        for reply in self.server.replies:
            guess = self.rfile.readline()
            if not guess:
                return
            self.server.guesses.append(guess)
            self.wfile.write(b"a " + reply + b"\r\n")
        self.wfile.write(b"* BYE enough\r\n")


class AttackTests(SynchronousTestCase):
    """L{attack}."""

    def attacked(self, replies, connections, pipelined, enough):
        """The counts of the attackers as soon as they are C{enough}, and the gateway."""
        with tempfile.TemporaryDirectory() as folder, Children(folder) as children, Gateway(replies) as gateway:
            thread = threading.Thread(target=gateway.serve_forever, args=(0.01,))
            thread.start()
            try:
                with attack(children, gateway.server_address, "127.0.0.2", connections, pipelined) as attackers:
                    deadline = time.monotonic() + 20
                    while not enough(counts := attackers.counts()):
                        self.assertLess(time.monotonic(), deadline)
                        time.sleep(0.01)
                return counts, gateway
            finally:
                gateway.shutdown()
                thread.join()

    def test_again(self):
        """A disconnected attacker connects again and continues, from the same address, never with the same password."""
        replies = [b"NO [AUTHENTICATIONFAILED] no"] * 3
        counts, gateway = self.attacked(replies, 2, 1, lambda counts: counts.ended >= 4)
        self.assertEqual((counts.most, counts.endedAnswers), (3, 3 * counts.ended))
        self.assertGreaterEqual(counts.judged, 12)
        self.assertEqual(gateway.sources, {"127.0.0.2"})
        self.assertIn(b"a LOGIN nobody x0\r\n", gateway.guesses)
        self.assertEqual(len(set(gateway.guesses)), len(gateway.guesses))

    def test_turnedAway(self):
        """A guess without a verdict is counted separately, and other replies are not counted."""
        replies = [b"NO [UNAVAILABLE] later", b"NO [AUTHENTICATIONFAILED] no", b"BAD too many commands"]
        counts, _ = self.attacked(replies, 1, 1, lambda counts: counts.ended >= 1)
        self.assertGreaterEqual(counts.turnedAway, 1)
        self.assertEqual((counts.most, counts.endedAnswers), (2, 2 * counts.ended))

    def test_pipelined(self):
        """Guesses that are sent at once are counted as far as they got replies."""
        replies = [b"NO [AUTHENTICATIONFAILED] no"] * 7
        counts, _ = self.attacked(replies, 1, 5, lambda counts: counts.ended >= 1)
        self.assertEqual((counts.most, counts.endedAnswers), (7, 7 * counts.ended))

    def test_right(self):
        """A gateway that accepts a guess is an error."""
        error = self.assertRaises(BenchmarkError, self.attacked, [b"OK in"], 1, 1, lambda counts: False)
        self.assertIn("a guess is answered with b'a OK in'", str(error))

    def test_nobody(self):
        """Attackers that have exited are an error."""
        counts, _ = self.attacked([], 0, 1, lambda counts: True)
        self.assertEqual(counts, Counts())
