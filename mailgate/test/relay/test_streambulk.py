"""Tests for L{mailgate.relay.stream}: bulk data through pipes."""

from __future__ import annotations

import hashlib
import os
import select

from mailgate.relay.streamend import LITTLE
from mailgate.test.support.relaycase import COMBINATIONS, CONTENT, MiB, RelayCase, Watched


class BulkTests(RelayCase):
    """The use of pipes."""

    def test_bulk(self) -> None:
        """64 MiB to the client and 16 MiB from it arrive unchanged."""
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
        """Many bytes move through a pipe, few do not. One pipe at a time is enough, and is given back empty."""
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
        """With TLS on one side no pipe is used."""
        pipes = self.pipes
        for combination in COMBINATIONS[1:]:
            relayed = self.relayed(*combination)
            relayed.backend.send(CONTENT)
            self.assertReceived(relayed.client, CONTENT)
            self.end(relayed)
        self.assertEqual(pipes.taken, 0)

    def test_withoutPipes(self) -> None:
        """If no pipe is left, bytes are copied."""
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
        """The same on a Python without splice."""
        splice = os.splice
        del os.splice
        self.addCleanup(setattr, os, "splice", splice)
        self.pipes = self.relays.pipes = Watched()
        relayed = self.relayed()
        relayed.backend.send(CONTENT)
        self.assertReceived(relayed.client, CONTENT)
        self.end(relayed)

    def test_nothingToSplice(self) -> None:
        """An event without bytes loses nothing, and its pipe is given back."""
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
        """The end of file may arrive during a splice."""
        for size in (LITTLE, LITTLE * 4, LITTLE * 5, MiB):
            relayed = self.relayed()
            relayed.backend.say(CONTENT[:size])
            self.assertReceived(relayed.client, CONTENT[:size])
            self.assertTrue(relayed.client.ended)
            relayed.client.close()
            self.assertFinished(relayed)
            self.assertEqual(relayed.counters, (0, size))
