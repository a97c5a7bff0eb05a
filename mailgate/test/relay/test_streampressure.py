"""Tests for L{mailgate.relay.stream}: a slow receiver pauses its sender."""

from __future__ import annotations

import select

from mailgate.relay.streamend import LITTLE, MUCH
from mailgate.test.support.relaycase import COMBINATIONS, CONTENT, Keys, MiB, RelayCase, Relayed, octetsIn


class BackPressureTests(RelayCase):
    """Receivers that do not take their bytes."""

    def stuck(self, clientTLS: bool = False, backendTLS: bool = False, content: bytes = CONTENT) -> Relayed:
        """A session whose client does not read, and whose backend has sent as much of C{content} as it could."""
        relayed = self.relayed(clientTLS, backendTLS, True)
        relayed.client.reading = False
        relayed.backend.send(content)
        self.settle()
        self.assertTrue(relayed.backend.unsent)
        self.assertGreater(relayed.held(), 0)
        return relayed

    def test_stuck(self) -> None:
        """A client that does not read pauses its backend. When it reads, it receives everything in order."""
        for combination in COMBINATIONS:
            relayed = self.stuck(*combination)
            moved = relayed.relay._backend.moved
            self.settle()
            self.assertEqual(relayed.relay._backend.moved, moved)
            self.assertLess(moved, 2 * MiB)
            relayed.client.reading = True
            self.assertReceived(relayed.client, CONTENT)
            self.assertEqual(relayed.held(), 0)
            self.end(relayed)
            self.assertEqual(relayed.counters, (0, len(CONTENT)))

    def test_stuckBackend(self) -> None:
        """A backend that does not read pauses its client."""
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination, small=True)
            relayed.backend.reading = False
            relayed.client.send(CONTENT)
            self.settle()
            self.assertTrue(relayed.client.unsent)
            relayed.backend.reading = True
            self.assertReceived(relayed.backend, CONTENT)
            self.end(relayed)
            self.assertEqual(relayed.counters, (len(CONTENT), 0))

    def test_copying(self) -> None:
        """The same if no pipes are left."""
        self.pipes.most = 0
        relayed = self.stuck()
        self.assertIsInstance(relayed.relay._client.waiting, bytes | memoryview)
        relayed.client.reading = True
        self.assertReceived(relayed.client, CONTENT)
        self.end(relayed)

    def test_bounded(self) -> None:
        """Little waits for a receiver that never took much: one read of the initial size."""
        for combination in COMBINATIONS:
            relayed = self.stuck(*combination)
            self.assertLessEqual(relayed.held(), MUCH + MUCH // 8)

    def test_beginsAgain(self) -> None:
        """After a stuck write the reads are small again."""
        for combination in COMBINATIONS:
            relayed = self.stuck(*combination)
            source, sink = relayed.relay._backend, relayed.relay._client
            relayed.client.reading = True
            while sink.waiting is not None:
                relayed.client.pump()
                sink.ready(sink.fd, select.EPOLLOUT)
            moved = source.moved
            source.ready(source.fd, select.EPOLLIN)
            self.assertLessEqual(source.moved - moved, LITTLE)
            self.assertReceived(relayed.client, CONTENT)

    def test_boundedAgain(self) -> None:
        """No more waits for a receiver that gets stuck repeatedly."""
        for combination in COMBINATIONS:
            relayed = self.stuck(*combination)
            most = 0
            while len(relayed.client.received) < len(CONTENT) // 2:
                relayed.client.pump()
                relayed.client.reading = True
                relayed.client.pump()
                relayed.client.reading = False
                self.step()
                most = max(most, relayed.held())
            self.assertLessEqual(most, MUCH + MUCH // 8)
            relayed.client.reading = True
            self.assertReceived(relayed.client, CONTENT)

    def test_otherDirection(self) -> None:
        """The other direction continues, with few bytes and with many."""
        for combination in COMBINATIONS:
            relayed = self.stuck(*combination)
            relayed.client.send(b"DONE\r\n")
            self.assertReceived(relayed.backend, b"DONE\r\n")
            relayed.client.send(CONTENT)
            self.assertReceived(relayed.backend, b"DONE\r\n" + CONTENT)
            self.assertEqual(len(relayed.client.received), 0)
            relayed.client.reading = True
            self.assertReceived(relayed.client, CONTENT)
            self.end(relayed)

    def test_bothStuck(self) -> None:
        """Both directions may be stuck at once, and one may continue before the other."""
        for combination in COMBINATIONS:
            relayed = self.stuck(*combination)
            relayed.backend.reading = False
            relayed.client.send(CONTENT)
            self.settle()
            self.assertTrue(relayed.client.unsent)
            relayed.backend.reading = True
            self.assertReceived(relayed.backend, CONTENT)
            self.assertTrue(relayed.backend.unsent)
            relayed.client.reading = True
            self.assertReceived(relayed.client, CONTENT)
            self.end(relayed)

    def test_otherSessions(self) -> None:
        """Other sessions continue, and never receive bytes of the stuck one."""
        pipes = self.pipes
        stuck = self.stuck()
        other = self.relayed()
        content = CONTENT[::-1]
        other.backend.send(content)
        self.assertReceived(other.client, content)
        self.assertEqual(len(pipes.pipes), 2)
        stuck.client.reading = True
        self.assertReceived(stuck.client, CONTENT)
        self.assertEqual((pipes.given, pipes.dropped), (pipes.taken, 0))
        self.end(stuck)
        self.end(other)

    def test_exhausted(self) -> None:
        """If all pipes are stuck, other sessions copy their bytes."""
        pipes = self.pipes
        pipes.most = 3
        stuck = [self.stuck() for _ in range(5)]
        inPipes = [isinstance(each.relay._client.waiting, tuple) for each in stuck]
        self.assertEqual(inPipes, [True] * 3 + [False] * 2)
        other = self.relayed()
        other.backend.send(CONTENT)
        self.assertReceived(other.client, CONTENT)
        for each in stuck:
            each.client.reading = True
            self.assertReceived(each.client, CONTENT)

    def test_endsInAPipe(self) -> None:
        """If a session ends while bytes are stuck in its pipe, the pipe is closed. The next session gets another."""
        pipes = self.pipes
        for end in (lambda relayed: relayed.relay.abort(), lambda relayed: relayed.client.reset()):
            relayed = self.stuck()
            pipe, count = relayed.relay._client.waiting
            self.assertEqual(octetsIn(pipe), count)
            dropped = pipes.dropped
            end(relayed)
            self.assertFinished(relayed)
            self.assertEqual(pipes.dropped, dropped + 1)
            self.assertNotIn(pipe, pipes._kept)
            self.assertEqual(pipes.taken, pipes.given + pipes.dropped)
            after = self.relayed()
            content = CONTENT[::-1]
            after.backend.send(content)
            self.assertReceived(after.client, content)
            self.end(after)

    def test_flood(self) -> None:
        """Beside a session that sends as fast as it can, another one is answered as fast as usual."""
        for combination in COMBINATIONS:
            flood, ping = self.relayed(*combination), self.relayed(*combination)
            for _ in range(16):
                flood.backend.send(CONTENT)
            self.untilHas(flood.client, 1)
            for number in range(1, 6):
                ping.client.send(b"ping\r\n")
                turns = self.untilHas(ping.backend, 6 * number)
                ping.backend.send(b"pong\r\n")
                turns += self.untilHas(ping.client, 6 * number)
                self.assertLessEqual(turns, 6)
            self.assertTrue(flood.backend.unsent)
            flood.client.reset()
            flood.backend.reset()
            self.end(ping)

    def test_onceATurn(self) -> None:
        """One event causes one read, however much has arrived."""
        relayed = self.relayed()
        relayed.backend.send(b"x" * 100_000)
        end = relayed.relay._backend
        end.ready(end.fd, select.EPOLLIN)
        self.assertEqual(end.moved, LITTLE)
        self.settle()
        self.end(relayed)

    def test_changesOfKeys(self) -> None:
        """A client that sends KeyUpdates and never reads the answers is closed before they pile up."""
        relayed = self.stuck(True, content=b"x" * 4 * MiB)
        keys = Keys(relayed.creator)
        flood = b"".join(keys.update() for _ in range(1000))
        most = 0
        for _ in range(100):
            relayed.client.raw(flood)
            self.settle()
            if relayed.done:
                break
            flood = b"".join(keys.update() for _ in range(1000))
            most = max(most, relayed.held())
        self.assertLess(most, 2 * MiB)
        self.assertEqual(relayed.done, 1)
