"""
Tests for L{mailgate.relay.stream} with real sockets and a real poller. The tests drive the event loop and the clock.
"""

from __future__ import annotations

import random

from mailgate.relay.streamend import LITTLE, MUCH
from mailgate.test.support.relaycase import COMBINATIONS, CONTENT, Keys, MiB, RelayCase
from mailgate.tls.engine import PublicEngine


class BytesTests(RelayCase):
    """Where the bytes go, with TLS and without."""

    def test_words(self) -> None:
        """A few bytes arrive each way, in all combinations, and are counted at the end."""
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
        """Megabytes arrive each way at the same time, in pieces of any size."""
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
        """Eight megabytes at once arrive, and what follows them."""
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
        """Bytes that the dialogues read ahead are relayed first, and counted."""
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
        """Bytes of the dialogues that wait to be sent are sent first. Only relayed bytes are counted."""
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
        """Bytes that arrived while the dialogues were paused are relayed, even if nothing follows."""
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
        """Decrypted bytes that the dialogue did not read, and the end, are relayed."""
        for tls in (False, True):
            relayed = self.prepared(tls, True)
            relayed.far.reaction = lambda data, relayed=relayed: relayed.start(data)
            relayed.backend.say(b"a1 OK done\r\n")
            self.assertReceived(relayed.client, b"a1 OK done\r\n")
            self.assertTrue(relayed.client.ended)
            self.end(relayed)

    def test_handOverInTheMiddle(self) -> None:
        """A dialogue may hand its connection over in dataReceived."""
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
        """A KeyUpdate of a client is answered in TLS, and relaying continues."""
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
    """The same with engines that use nothing private."""

    kind = staticmethod(PublicEngine)
