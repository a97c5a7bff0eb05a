"""
Tests for L{mailgate.relay.stream}: real sockets and a real poller, but turns and a clock that the tests make go.
"""

from __future__ import annotations

import random

from mailgate.relay.streamend import LITTLE, MUCH
from mailgate.test.support.relaycase import COMBINATIONS, CONTENT, Keys, MiB, RelayCase
from mailgate.tls.engine import PublicEngine


class BytesTests(RelayCase):
    """What goes where, between peers with TLS and without."""

    def test_words(self) -> None:
        """A few bytes arrive as they are, each way, in all combinations, and are counted when both have left."""
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination)
            relayed.client.send(b"a2 SELECT \0\xff\r\n")
            relayed.backend.send(b"* 3")
            relayed.backend.send(b" EXISTS\r\n")
            self.assertReceived(relayed.backend, b"a2 SELECT \0\xff\r\n")
            self.assertReceived(relayed.client, b"* 3 EXISTS\r\n")
            self.end(relayed)
            self.assertEqual(relayed.counters, (14, 12))

    def test_pieces(self) -> None:
        """Megabytes arrive each way at the same time, however they are cut."""
        cuts = random.Random(7)
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination)
            sent = CONTENT[: 2 * MiB]
            position = 0
            while position < len(sent):
                size = cuts.choice((1, 5, 1460, LITTLE - 1, LITTLE, LITTLE + 1, 65536, 200_000, MUCH))
                piece = sent[position : position + size]
                position += size
                relayed.client.send(piece)
                relayed.backend.send(piece)
                if cuts.random() < 0.5:
                    self.step()
            self.assertReceived(relayed.client, sent)
            self.assertReceived(relayed.backend, sent)
            self.end(relayed)
            self.assertEqual(relayed.counters, (len(sent), len(sent)))

    def test_much(self) -> None:
        """So do eight of them in one go, and what follows."""
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination)
            for peer in (relayed.client, relayed.backend):
                peer.send(CONTENT)
            self.untilHas(relayed.client, len(CONTENT))
            relayed.backend.send(b"a1 OK done\r\n")
            self.assertReceived(relayed.client, CONTENT + b"a1 OK done\r\n")
            self.assertReceived(relayed.backend, CONTENT)
            self.end(relayed)
            self.assertEqual(relayed.counters, (len(CONTENT), len(CONTENT) + 12))

    def test_readAhead(self) -> None:
        """What the dialogues had read ahead goes first, and counts."""
        for combination in COMBINATIONS:
            relayed = self.prepared(*combination)
            relayed.client.send(b"a3 NOOP\r\n")
            relayed.backend.send(b"* BYE\r\n")
            relayed.start(b"a1 OK done\r\n", b"a2 NOOP\r\n")
            self.assertReceived(relayed.client, b"a1 OK done\r\n* BYE\r\n")
            self.assertReceived(relayed.backend, b"a2 NOOP\r\na3 NOOP\r\n")
            self.end(relayed)
            self.assertEqual(relayed.counters, (18, 19))

    def test_unsent(self) -> None:
        """What the dialogues had said and was not taken yet goes before all else; only what is relayed counts."""
        for combination in COMBINATIONS:
            relayed = self.prepared(*combination, small=True)
            for peer, protocol in ((relayed.client, relayed.near), (relayed.backend, relayed.far)):
                peer.reading = False
                protocol.transport.write(CONTENT[:MiB])
                self.assertTrue(protocol.transport.unsent)
            relayed.start(b"to the client", b"to the backend")
            relayed.client.send(b" and more")
            self.settle()
            self.assertEqual(relayed.relay._client.moved, len(b"to the backend"))
            for peer in (relayed.client, relayed.backend):
                peer.reading = True
            self.assertReceived(relayed.client, CONTENT[:MiB] + b"to the client")
            self.assertReceived(relayed.backend, CONTENT[:MiB] + b"to the backend and more")
            self.end(relayed)
            self.assertEqual(relayed.counters, (23, 13))

    def test_paused(self) -> None:
        """What came while the dialogues did not listen is heard, though nothing follows it."""
        for combination in COMBINATIONS:
            relayed = self.prepared(*combination)
            for peer, protocol in ((relayed.client, relayed.near), (relayed.backend, relayed.far)):
                protocol.transport.pauseProducing()
                peer.send(b"early")
            self.settle()
            relayed.start()
            self.assertReceived(relayed.client, b"early")
            self.assertReceived(relayed.backend, b"early")
            self.end(relayed)

    def test_undelivered(self) -> None:
        """What had been decrypted, and not been given to the dialogue, is not lost: its end, say."""
        for tls in (False, True):
            relayed = self.prepared(tls, True)
            relayed.far.reaction = lambda data, relayed=relayed: relayed.start(data)
            relayed.backend.say(b"a1 OK done\r\n")
            self.assertReceived(relayed.client, b"a1 OK done\r\n")
            self.assertTrue(relayed.client.ended)
            self.end(relayed)

    def test_handOverInTheMiddle(self) -> None:
        """A dialogue may give its connection away while it is being told of data."""
        for combination in COMBINATIONS:
            relayed = self.prepared(*combination)
            relayed.near.transport.pauseProducing()
            relayed.far.reaction = lambda data, relayed=relayed: relayed.start(data, b"early")
            for peer in (relayed.backend, relayed.client):
                peer.send(CONTENT[:MiB])
            self.assertReceived(relayed.backend, b"early" + CONTENT[:MiB])
            self.assertReceived(relayed.client, CONTENT[:MiB])
            self.end(relayed)

    def test_changeOfKeys(self) -> None:
        """A client that changes its keys, and asks for ours to be changed, is understood, and answered in TLS."""
        relayed = self.relayed(True)
        keys = Keys(relayed.creator)
        relayed.client.raw(keys.update())
        relayed.client.raw(keys.sealed(b"a1 NOOP\r\n"))
        self.assertReceived(relayed.backend, b"a1 NOOP\r\n")
        relayed.backend.send(b"a1 OK\r\n")
        self.assertReceived(relayed.client, b"a1 OK\r\n")
        self.assertIsNone(relayed.client.error)
        self.end(relayed)
        self.assertEqual(relayed.counters, (9, 7))


class PublicBytesTests(BytesTests):
    """The same over engines that use nothing private."""

    kind = staticmethod(PublicEngine)
