"""
Tests for L{mailgate.relay.stream}: bulk data by the kernel's own ways, and keys in it.
"""

from __future__ import annotations

import hashlib
import os
import select

from mailgate.relay.streamend import LITTLE
from mailgate.test.support.relaycase import COMBINATIONS, CONTENT, MiB, RelayCase, Watched


class BulkTests(RelayCase):
    """What pipes are for."""

    def test_bulk(self) -> None:
        """64 MiB to the client, and 16 MiB from it, by a digest."""
        relayed = self.relayed()
        sent = hashlib.sha256()
        for _ in range(8):
            relayed.backend.send(CONTENT)
            sent.update(CONTENT)
        relayed.client.send(CONTENT)
        relayed.client.send(CONTENT)
        received, size = hashlib.sha256(), 0
        while size < 64 * MiB:
            self.untilHas(relayed.client, 1)
            received.update(relayed.client.received)
            size += len(relayed.client.received)
            del relayed.client.received[:]
        self.assertEqual((size, received.digest()), (64 * MiB, sent.digest()))
        self.assertReceived(relayed.backend, CONTENT + CONTENT)
        self.end(relayed)
        self.assertEqual(relayed.counters, (16 * MiB, 64 * MiB))

    def test_pipes(self) -> None:
        """Many bytes go through a pipe, few do not; one at a time is enough, and is given back empty."""
        pipes = self.pipes
        relayed = self.relayed()
        relayed.backend.send(b"x" * 10000)
        self.assertReceived(relayed.client, b"x" * 10000)
        self.assertEqual(pipes.taken, 0)
        relayed.backend.send(CONTENT)
        self.assertReceived(relayed.client, b"x" * 10000 + CONTENT)
        self.assertGreater(pipes.taken, 0)
        self.assertEqual(len(pipes.pipes), 1)
        self.assertEqual((pipes.given, pipes.dropped), (pipes.taken, 0))
        self.end(relayed)

    def test_notUnderTLS(self) -> None:
        """Where one end speaks TLS no pipe is of use."""
        pipes = self.pipes
        for combination in COMBINATIONS[1:]:
            relayed = self.relayed(*combination)
            relayed.backend.send(CONTENT)
            self.assertReceived(relayed.client, CONTENT)
            self.end(relayed)
        self.assertEqual(pipes.taken, 0)

    def test_withoutPipes(self) -> None:
        """When there are no pipes left bytes are copied."""
        pipes = self.pipes
        pipes.most = 0
        relayed = self.relayed()
        for peer in (relayed.client, relayed.backend):
            peer.send(CONTENT)
        self.assertReceived(relayed.client, CONTENT)
        self.assertReceived(relayed.backend, CONTENT)
        self.assertGreater(pipes.refused, 0)
        self.end(relayed)
        self.assertEqual(relayed.counters, (len(CONTENT), len(CONTENT)))

    def test_withoutSplice(self) -> None:
        """So they are by a Python that knows no splice."""
        splice = os.splice
        del os.splice
        self.addCleanup(setattr, os, "splice", splice)
        self.pipes = self.relays.pipes = Watched()
        relayed = self.relayed()
        relayed.backend.send(CONTENT)
        self.assertReceived(relayed.client, CONTENT)
        self.end(relayed)

    def test_nothingToSplice(self) -> None:
        """Nothing is lost by an event that brings nothing; the pipe that was taken for it is given back."""
        relayed = self.relayed()
        relayed.backend.send(b"x" * 100_000)
        self.assertReceived(relayed.client, b"x" * 100_000)
        end, taken = relayed.relay._backend, self.pipes.taken
        end.ready(end.fd, select.EPOLLIN)
        self.assertEqual((self.pipes.taken, self.pipes.given), (taken + 1, taken + 1))
        relayed.backend.send(b"more")
        self.assertReceived(relayed.client, b"x" * 100_000 + b"more")
        self.end(relayed)

    def test_endInAPipe(self) -> None:
        """The end of file may come when a pipe is asked for more."""
        for size in (LITTLE, LITTLE * 4, LITTLE * 5, MiB):
            relayed = self.relayed()
            relayed.backend.say(CONTENT[:size])
            self.assertReceived(relayed.client, CONTENT[:size])
            self.assertTrue(relayed.client.ended)
            relayed.client.close()
            self.assertFinished(relayed)
            self.assertEqual(relayed.counters, (0, size))
