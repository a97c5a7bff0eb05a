"""Tests for L{mailgate.relay.stream}: errors, and what is freed after them."""

from __future__ import annotations

import errno
import gc
import os
import select
from collections.abc import Callable
from typing import Any

from mailgate.lean.tls import TLSLayer
from mailgate.lean.transport import StreamTransport
from mailgate.relay import streamend as relayend
from mailgate.relay.bufferedend import BufferedEnd
from mailgate.relay.portable import Relay
from mailgate.relay.protocol import RelayedProtocol
from mailgate.relay.stream import StreamRelay
from mailgate.relay.terms import Terms
from mailgate.session import Outcome
from mailgate.test.support.relaycase import (
    COMBINATIONS,
    CONTENT,
    IDLE,
    LINGER,
    Dialogue,
    MiB,
    RelayCase,
    Relayed,
    Substitute,
)
from mailgate.test.support.relaytransport import RelayTransport
from mailgate.test.support.tlsengines import FORGED


class TroubleTests(RelayCase):
    """Errors that must not spread."""

    def test_defect(self) -> None:
        """
        An exception of our code is logged and ends its session, whose outcome says so. No other session is affected.
        """
        relayed, other = self.relayed(), self.relayed()
        end = relayed.relay._backend
        end.waiting = "no bytes"
        end._stick()
        self.settle()
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertFinished(relayed, Outcome.INTERNAL)
        self.untilOver(relayed.client, relayed.backend)
        other.client.send(b"a1 NOOP\r\n")
        self.assertReceived(other.backend, b"a1 NOOP\r\n")
        self.end(other)

    def test_bothFail(self) -> None:
        """Both connections may fail in the same call: one in a write, the other in its close_notify."""
        for combination in COMBINATIONS:
            for relayed, first, second in self.sides(*combination):
                first.send(b"never heard")
                second.reset()
                first.reset()
                self.assertFinished(relayed)

    def test_failingPieces(self) -> None:
        """A connection may be lost at any piece of the decrypted data for it."""
        for number in range(4):
            relayed = self.relayed(True, True)
            calls: list[int] = []

            def failing(fd: int, data: Any, number: int = number, calls: list[int] = calls) -> int:
                calls.append(fd)
                if len(calls) > number:
                    raise OSError(errno.EPIPE, "gone")
                return os.write(fd, data)

            relayed.client.send(CONTENT[: 2 * MiB])
            self.patch(relayend, "os", Substitute(os, write=failing))
            for _ in range(20):
                self.turns.turn()
                relayed.client.pump()
            self.patch(relayend, "os", os)
            self.assertEqual((relayed.done, len(calls) > number), (1, True))
            self.assertFinished(relayed)

    def test_failingPipes(self) -> None:
        """A connection may be lost when a pipe is emptied into it, at once or later. The pipe is dropped."""
        for stuck in (False, True):
            pipes = self.pipes
            dropped = pipes.dropped
            relayed = self.relayed(small=True)
            relayed.client.reading = not stuck
            relayed.backend.send(CONTENT)
            end = relayed.relay._client
            self.until(getattr, pipes, "taken")
            if stuck:
                self.settle()

            def failing(source: int, target: int, count: int, flags: int, fd: int = end.fd) -> int:
                if target == fd:
                    raise OSError(errno.EPIPE, "gone")
                return os.splice(source, target, count, flags=flags)

            self.patch(relayend, "os", Substitute(os, splice=failing, write=os.write))
            if stuck:
                end.ready(end.fd, select.EPOLLIN | select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP)
            else:
                self.until(getattr, relayed, "done")
            self.patch(relayend, "os", os)
            self.assertFinished(relayed)
            self.assertEqual(pipes.dropped, dropped + 1)
            self.assertEqual(pipes.taken, pipes.given + pipes.dropped)

    def test_stuckEvents(self) -> None:
        """
        A connection whose bytes the other side does not take is not read, even if an event of the same batch announces
        bytes.
        """
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination, small=True)
            relayed.backend.reading = False
            relayed.client.send(CONTENT)
            relay = relayed.relay
            self.until(getattr, relay, "isStuck")
            end = relay._client
            moved = end.moved
            for events in (select.EPOLLIN, select.EPOLLIN | select.EPOLLHUP):
                end.ready(end.fd, events)
            self.assertEqual((end.moved, relay.isStuck), (moved, True))
            relay.abort()
            self.assertFinished(relayed)

    def test_lateEvents(self) -> None:
        """Events and failures for a connection that was just closed are ignored."""
        relayed = self.relayed()
        client, backend = relayed.relay._client, relayed.relay._backend
        relayed.relay.abort()
        for end in (client, backend):
            for events in (select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                end.ready(-1, events)
            end.failed(None)
            end.release()
            end.close()
            end.abort()
            end.send(b"x")
        self.assertFinished(relayed)

    def test_goneBeforeTheStart(self) -> None:
        """A side that is closed before the hand-over ends the session, with bytes read ahead or without."""
        for combination in COMBINATIONS:
            for client in (True, False):
                for words in (b"", b"words"):
                    relayed = self.prepared(*combination)
                    gone = relayed.client if client else relayed.backend
                    gone.reset()
                    relayed.start(words, words)
                    self.assertFinished(relayed)

    def test_otherTransports(self) -> None:
        """If one connection has another kind of transport, the portable relay is used."""
        relayed = self.prepared()
        other = RelayedProtocol()
        other.makeConnection(RelayTransport())
        terms = Terms(self.relays, IDLE, LINGER, relayed._finished)
        relay = self.relays.between(relayed.near, other, relayed.session, terms)
        self.assertIsInstance(relay, Relay)
        self.assertIsNotNone(relayed.near.transport)
        relayed.near.transport.abortConnection()
        self.turns.turn()
        other.connectionLost()
        self.assertEqual(relayed.done, 1)


class FreedTests(RelayCase):
    """What is left of a session without garbage collection."""

    def setUp(self) -> None:
        super().setUp()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)

    def alive(self, *kinds: type) -> int:
        """The number of living objects of C{kinds}."""
        return sum(type(each) in kinds for each in gc.get_objects())

    def assertFreed(self, end: Callable[[Relayed], object], *tls: bool) -> None:
        kinds = (StreamRelay, relayend.RelayEnd, BufferedEnd)
        before = self.alive(*kinds)
        relayed = self.relayed(*tls)
        self.assertEqual(self.alive(*kinds), before + 3)
        relayed.client.send(CONTENT[:MiB])
        relayed.backend.send(CONTENT[:MiB])
        self.settle()
        end(relayed)
        self.until(getattr, relayed, "done")
        self.settle()
        del relayed.relay
        self.assertEqual(self.alive(*kinds), before)

    def test_session(self) -> None:
        """Nothing is left of a session after any kind of end."""

        def bothEnd(relayed: Relayed) -> None:
            for peer in (relayed.client, relayed.backend):
                peer.say(b"")

        def bothClose(relayed: Relayed) -> None:
            for peer in (relayed.client, relayed.backend):
                peer.close()

        ways: list[Callable[[Relayed], object]] = [
            bothEnd,
            bothClose,
            lambda relayed: relayed.backend.reset(),
            lambda relayed: relayed.client.raw(FORGED) if relayed.client.engine else relayed.client.reset(),
            lambda relayed: relayed.relay.stop(),
            lambda relayed: self.advance(IDLE + LINGER + 3),
        ]
        for combination in COMBINATIONS:
            for way in ways:
                self.assertFreed(way, *combination)

    def test_dialogue(self) -> None:
        """During a session nothing is left of the login: protocols, transports, TLS connections."""
        kinds = (Dialogue, StreamTransport, TLSLayer)
        before = self.alive(*kinds)
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination)
            del relayed.near, relayed.far
            self.settle()
            self.assertEqual(self.alive(*kinds), before)
            for end in (relayed.relay._client, relayed.relay._backend):
                if end.isEncrypted:
                    self.assertIsNone(end._engine.connection)
