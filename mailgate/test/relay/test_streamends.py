"""Tests for L{mailgate.relay.stream}: how and when relays end."""

from __future__ import annotations

import os
import select
import socket
from typing import Any

from OpenSSL import SSL

from mailgate.login import Trouble
from mailgate.relay import streamend as relayend
from mailgate.relay.base import HELD
from mailgate.relay.bufferedend import BufferedEnd
from mailgate.relay.streamend import LITTLE
from mailgate.session import Outcome
from mailgate.test.support.relaycase import (
    COMBINATIONS,
    CONTENT,
    IDLE,
    LINGER,
    SMALL,
    Keys,
    MiB,
    RelayCase,
    Relayed,
    Substitute,
)
from mailgate.test.support.tlsengines import FORGED


class EndTests(RelayCase):
    """How a session ends."""

    def test_lost(self) -> None:
        """When one side closes, the other receives its buffered bytes and is closed."""
        for combination in COMBINATIONS:
            for relayed, gone, left in self.sides(*combination):
                gone.say(b"last words")
                self.settle()
                gone.close()
                self.assertReceived(left, b"last words")
                self.untilTold(relayed, gone)
                self.assertTrue(left.ended)
                left.close()
                self.assertFinished(relayed)

    def test_halfClose(self) -> None:
        """When one side sends its end of file, it is passed on, and the other side may still answer at length."""
        for combination in COMBINATIONS:
            for relayed, ended, other in self.sides(*combination):
                ended.say(b"last words")
                self.assertReceived(other, b"last words")
                self.untilTold(relayed, ended)
                self.assertTrue(other.ended)
                self.assertEqual(other.saidGoodbye, other.engine is not None)
                self.assertEqual((ended.over, relayed.done), (False, 0))
                other.say(CONTENT)
                self.assertReceived(ended, CONTENT)
                self.assertTrue(ended.ended)
                self.assertEqual(ended.saidGoodbye, ended.engine is not None)
                self.assertFinished(relayed)
                self.assertEqual(sorted(relayed.counters), [10, len(CONTENT)])

    def test_goodbye(self) -> None:
        """After the client's goodbye, the end of the backend closes both connections: there is no half-close."""
        for combination in COMBINATIONS:
            for goodbye in (b"a LOGOUT\r\n", b"QUIT\r\n"):
                relayed = self.relayed(*combination)
                relayed.client.send(goodbye)
                self.assertReceived(relayed.backend, goodbye)
                relayed.backend.say(b"bye\r\n")
                self.assertReceived(relayed.client, b"bye\r\n")
                self.assertTrue(relayed.client.ended)
                self.assertEqual(relayed.client.saidGoodbye, relayed.client.engine is not None)
                self.assertEqual(relayed.done, 1)
                self.assertFinished(relayed)
                self.assertEqual(relayed.counters, (len(goodbye), 5))

    def test_goodbyeWithMore(self) -> None:
        """Bytes that a client sends after its goodbye cause no reset, which could cost it the last reply."""
        relayed = self.relayed()
        relayed.client.send(b"QUIT\r\n")
        self.assertReceived(relayed.backend, b"QUIT\r\n")
        relayed.backend.say(b"bye\r\n")
        relayed.client.send(b"NOOP\r\n")
        self.assertReceived(relayed.client, b"bye\r\n")
        self.assertTrue(relayed.client.ended)
        self.assertFinished(relayed)

    def test_halfCloseWithGoodbye(self) -> None:
        """A client that says goodbye and sends its end of file at once still gets the answer."""
        relayed = self.relayed()
        relayed.client.say(b"QUIT\r\n")
        self.assertReceived(relayed.backend, b"QUIT\r\n")
        self.assertTrue(relayed.backend.ended)
        self.assertFalse(relayed.done)
        relayed.backend.say(b"bye\r\n")
        self.assertReceived(relayed.client, b"bye\r\n")
        self.assertFinished(relayed)

    def test_held(self) -> None:
        """A backend over TLS answers everything before it receives the end, and is then closed."""
        relayed = self.relayed(backendTLS=True)
        relayed.client.say(b"last words")
        for _ in range(5):
            self.advance(HELD - 1)
            relayed.backend.send(b"more")
            self.settle()
            self.assertFalse(relayed.backend.ended)
        relayed.backend.say(b".")
        self.assertReceived(relayed.client, b"more" * 5 + b".")
        self.assertTrue(relayed.backend.saidGoodbye)
        self.assertFinished(relayed)

    def test_heldWhileStuck(self) -> None:
        """It does not receive the end before the client has taken its bytes, but the relay does not wait for ever."""
        relayed = self.relayed(backendTLS=True, small=True)
        relayed.client.reading = False
        relayed.client.say(b"last words")
        relayed.backend.send(CONTENT)
        self.settle(100)
        self.advance(LINGER - 2)
        self.assertFalse(relayed.backend.saidGoodbye)
        self.advance(2 * LINGER)
        self.assertTrue(relayed.backend.over)
        self.assertFinished(relayed)

    def test_heldAndStuckAtTheEnd(self) -> None:
        """The backend may end first while the goodbye to it has to wait: it gets the goodbye all the same."""
        relayed = self.relayed(backendTLS=True)
        relayed.client.say(b"last words")
        self.assertReceived(relayed.backend, b"last words")

        def full(fd: int, data: bytes) -> int:
            raise BlockingIOError

        self.patch(relayend, "os", Substitute(os, write=full))
        relayed.backend.say(b"")
        self.step(100)
        self.assertIsNotNone(relayed.relay._backend.waiting)
        self.assertEqual(relayed.done, 0)
        self.patch(relayend, "os", os)
        self.untilOver(relayed.backend, relayed.client)
        self.assertTrue(relayed.backend.saidGoodbye)
        self.assertFinished(relayed)

    def test_heldOfGone(self) -> None:
        """A closed client is noticed when bytes are sent to it."""
        relayed = self.relayed(backendTLS=True)
        relayed.client.close()
        self.settle()
        for _ in range(3):
            relayed.backend.send(b"more")
            self.settle()
        self.assertTrue(relayed.backend.ended)
        self.assertFinished(relayed)

    def test_halfCloseThenLost(self) -> None:
        """The other side may close instead of answering."""
        for relayed, ended, other in self.sides():
            ended.say(b"last words")
            self.untilOver(other)
            other.send(b"an answer")
            other.reset()
            self.assertFinished(relayed)
            self.assertTrue(ended.over)

    def test_endBehindStuck(self) -> None:
        """A receiver that was stuck receives everything, and then the end."""
        for combination in COMBINATIONS:
            for size in (600_000, 3 * MiB):
                for relayed, ended, other in self.sides(*combination, True):
                    other.reading = False
                    ended.say(CONTENT[:size])
                    self.settle()
                    self.assertEqual(relayed.done, 0)
                    other.reading = True
                    self.assertReceived(other, CONTENT[:size])
                    self.untilTold(relayed, ended)
                    self.assertTrue(other.ended)
                    self.assertEqual(other.saidGoodbye, other.engine is not None)
                    other.close()
                    self.assertFinished(relayed)

    def test_endWhileStuck(self) -> None:
        """A side that has ended is not read again when the other has taken everything."""
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination, small=True)
            relayed.client.reading = False
            relayed.backend.send(CONTENT)
            self.settle()
            source = relayed.relay._backend
            source._ended()
            moved = source.moved
            relayed.client.reading = True
            self.assertReceived(relayed.client, CONTENT[:moved])
            self.assertTrue(relayed.client.ended)
            self.assertEqual(source.moved, moved)

    def test_bothAtOnce(self) -> None:
        """Both sides may end before either learns of the other's end."""
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination)
            relayed.client.say(b"bye")
            relayed.backend.say(b"BYE")
            self.assertReceived(relayed.client, b"BYE")
            self.assertReceived(relayed.backend, b"bye")
            self.assertFinished(relayed)
            for peer in (relayed.client, relayed.backend):
                self.assertTrue(peer.ended)
                self.assertIsNone(peer.error)

    def test_reset(self) -> None:
        """A reset of one side ends the other, and logs nothing."""
        for combination in COMBINATIONS:
            for relayed, gone, left in self.sides(*combination):
                gone.reset()
                self.untilOver(left)
                self.assertFinished(relayed)
                self.assertEqual(relayed.counters, (0, 0))

    def test_resetStuck(self) -> None:
        """So does the reset of a side that has not read its bytes."""
        for combination in COMBINATIONS:
            for relayed, gone, left in self.sides(*combination, True):
                gone.reading = False
                left.send(CONTENT)
                gone.send(b"unread")
                self.settle()
                gone.reset()
                self.untilOver(left)
                self.assertFinished(relayed)

    def test_resetWhileTheOtherIsStuck(self) -> None:
        """Bytes for a stuck receiver are sent when it reads, even if the sender is closed."""
        for relayed, gone, left in self.sides(False, False, True):
            left.reading = False
            gone.send(CONTENT[: 2 * MiB])
            self.settle()
            gone.reset()
            self.settle()
            left.reading = True
            self.untilOver(left)
            self.assertTrue(CONTENT.startswith(bytes(left.received)))
            self.assertGreater(len(left.received), LITTLE)
            self.assertFinished(relayed)

    def test_cutOff(self) -> None:
        """TLS that ends without a close_notify counts as lost: both sides are closed at once."""
        for relayed, gone, left in self.sides(True, True):
            gone.say(b"last words", goodbye=False)
            self.assertReceived(left, b"last words")
            self.untilOver(left)
            self.assertFinished(relayed)

    def test_garbage(self) -> None:
        """Invalid TLS causes an alert and closes both sides. Nothing of it is relayed."""
        for garbage in (FORGED, b"a1 NOOP\r\n" * 20, bytes(100)):
            for relayed, odd, other in self.sides(True, True):
                odd.raw(garbage)
                self.untilOver(odd)
                self.assertIsInstance(odd.error, SSL.Error)
                self.assertIn("alert", str(odd.error))
                self.untilOver(other)
                self.assertTrue(other.saidGoodbye)
                self.assertEqual(bytes(other.received), b"")
                self.assertFinished(relayed)

    def test_garbageBehindData(self) -> None:
        """Bytes before the invalid ones are relayed."""
        for relayed, odd, other in self.sides(True, True):
            odd.send(b"good")
            odd.raw(FORGED)
            self.assertReceived(other, b"good")
            self.assertFinished(relayed)

    def test_lastWordsBeforeUnread(self) -> None:
        """Unread bytes of a client do not cost it the last bytes from the backend."""
        for relayed, gone, left in self.sides():
            left.reading = False
            gone.send(CONTENT[: 512 * 1024])
            self.settle()
            left.send(b"unheard")
            relayed.relay.close()
            self.settle()
            left.reading = True
            self.assertReceived(left, CONTENT[: 512 * 1024])
            self.assertTrue(left.ended)
            self.assertFinished(relayed)

    def test_changeOfKeysBehindGoodbye(self) -> None:
        """A client may send a KeyUpdate after our close_notify, and continue."""
        relayed = self.relayed(True)
        relayed.backend.say(b"BYE")
        self.untilOver(relayed.client)
        keys = Keys(relayed.creator)
        relayed.client.raw(keys.update())
        relayed.client.raw(keys.sealed(b"last words"))
        self.assertReceived(relayed.backend, b"last words")
        self.assertEqual(relayed.done, 0)
        self.end(relayed)

    def test_nothingBehindGoodbye(self) -> None:
        """After a close_notify nothing more is sent to that side, encrypted or plain."""
        relayed = self.relayed(True)
        client = relayed.relay._client
        relayed.client.reading = False
        relayed.relay.close()
        self.settle()
        for _ in range(3):
            client.send(b"secret")
        relayed.client.reading = True
        self.untilOver(relayed.client)
        self.assertEqual(bytes(relayed.client.received), b"")
        self.assertTrue(relayed.client.saidGoodbye)

    def test_nothingBehindTheEnd(self) -> None:
        """The same for a side that received the end of file, and for one that is being closed."""
        relayed = self.relayed(True, small=True)
        client = relayed.relay._client
        relayed.client.reading = False
        relayed.backend.send(CONTENT[: 2 * MiB])
        self.settle()
        moved = relayed.relay._backend.moved
        client.finishWriting()
        client.send(b"secret")
        client.close()
        client.send(b"secret")
        relayed.client.reading = True
        self.untilOver(relayed.client)
        self.assertEqual(bytes(relayed.client.received), CONTENT[:moved])
        self.assertTrue(relayed.client.saidGoodbye)

    def test_dropsWhatComesWhileClosing(self) -> None:
        """Bytes that are decrypted while both sides are being closed are dropped, and not counted."""
        relayed = self.relayed(True, True)
        relayed.client.send(CONTENT[:MiB])
        backend = relayed.relay._backend
        passed: list[int] = []

        def send(data: Any) -> None:
            passed.append(len(data))
            relayed.relay.close()

        self.patch(BufferedEnd, "send", lambda end, data: send(data))
        self.until(getattr, relayed, "done")
        self.assertEqual(backend.fd, -1)
        self.assertEqual(relayed.counters, (passed[0], 0))
        self.assertEqual(len(passed), 1)

    def test_dismiss(self) -> None:
        """When the gateway drains, both sides receive their buffered bytes, and then the end."""
        relayed = self.relayed(small=True)
        relayed.client.reading = False
        relayed.backend.send(CONTENT)
        self.settle()
        relayed.relay.dismiss(Outcome.STOPPED, Trouble.STOPPING)
        relayed.client.reading = True
        self.untilOver(relayed.client, relayed.backend)
        self.assertFinished(relayed, Outcome.STOPPED)
        self.assertIsNone(relayed.client.error)

    def test_stop(self) -> None:
        """When the gateway stops, both connections are reset, whatever is buffered."""
        relayed = self.relayed(small=True)
        relayed.client.reading = False
        relayed.backend.send(CONTENT)
        self.settle()
        relayed.relay.stop()
        self.assertFinished(relayed, Outcome.STOPPED)
        relayed.client.reading = True
        self.untilOver(relayed.client, relayed.backend)
        self.assertIsInstance(relayed.client.error, ConnectionResetError)
        self.assertIsInstance(relayed.backend.error, ConnectionResetError)


class TimeTests(RelayCase):
    """How long a session lasts."""

    def test_idle(self) -> None:
        """A session without bytes for C{idle} seconds is closed gracefully."""
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination)
            self.advance(IDLE - 1)
            self.assertFalse(relayed.client.over or relayed.backend.over)
            self.advance(3)
            for peer in (relayed.client, relayed.backend):
                self.assertTrue(peer.ended)
                self.assertIsNone(peer.error)
                self.assertEqual(peer.saidGoodbye, peer.engine is not None)
                self.assertEqual(bytes(peer.received), b"")
            self.assertFinished(relayed, Outcome.IDLE)

    def test_notIdle(self) -> None:
        """Bytes in either direction count."""
        for relayed, busy, _ in self.sides():
            for _ in range(5):
                self.advance(IDLE - 2)
                busy.send(b"x")
                self.settle()
            self.advance(IDLE - 2)
            self.assertEqual(relayed.done, 0)
            self.advance(4)
            self.assertFinished(relayed, Outcome.IDLE)

    def test_notIdleInPipes(self) -> None:
        """Bytes through a pipe count, too."""
        relayed = self.relayed()
        relayed.backend.send(b"x" * 100_000)
        self.settle()
        for _ in range(5):
            self.advance(IDLE - 2)
            taken = self.pipes.taken
            relayed.backend.send(b"x" * 20_000)
            self.settle()
            self.assertGreater(self.pipes.taken, taken)
        self.assertReceived(relayed.client, b"x" * 200_000)
        self.end(relayed)

    def test_slowAtTheEnd(self) -> None:
        """While both sides are being closed, a slow receiver has time as long as it takes bytes."""
        self.pipes.most = 0
        relayed = self.relayed(small=True)
        relayed.client.reading = False
        relayed.backend.send(CONTENT)
        self.settle()
        sink, moved = relayed.relay._client, relayed.relay._backend.moved
        relayed.relay.close()
        relayed.client.reading = True
        while len(relayed.client.received) < SMALL:
            relayed.client.pump()
        self.patch(relayend, "os", Substitute(os, write=lambda fd, data: os.write(fd, data[:1])))
        for _ in range(3):
            for _ in range(int(LINGER) - 2):
                self.turns.clock.advance(1)
            held = relayed.held()
            sink.ready(sink.fd, select.EPOLLOUT)
            self.assertEqual(relayed.held(), held - 1)
        self.patch(relayend, "os", os)
        self.assertReceived(relayed.client, CONTENT[:moved])
        self.assertFinished(relayed)

    def test_closedTwice(self) -> None:
        """Closing again does not extend the time."""
        relayed = self.relayed(small=True)
        relayed.client.reading = False
        relayed.backend.send(CONTENT)
        self.settle()
        relayed.relay.close()
        self.advance(LINGER - 3)
        relayed.relay.close()
        self.assertEqual(relayed.done, 0)
        self.advance(5)
        self.assertFinished(relayed)

    def test_slow(self) -> None:
        """A stuck receiver that takes a few bytes counts as active."""
        relayed = self.relayed(small=True)
        relayed.client.reading = False
        relayed.backend.send(CONTENT)
        self.settle()
        for _ in range(5):
            self.advance(IDLE - 2)
            relayed.client.reading = True
            relayed.client.pump()
            self.step(100)
            relayed.client.reading = False
            self.settle()
        self.assertEqual(relayed.done, 0)
        self.assertTrue(relayed.backend.unsent)
        self.advance(IDLE + LINGER + 3)
        self.assertFinished(relayed, Outcome.IDLE)

    def test_stuckWhileIdle(self) -> None:
        """A receiver that takes nothing is reset C{linger} seconds after the close."""
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination, small=True)
            relayed.client.reading = False
            relayed.backend.send(CONTENT)
            self.settle(100)
            self.advance(IDLE + 2)
            self.assertTrue(relayed.backend.over)
            self.assertEqual(relayed.done, 0)
            self.advance(LINGER - 3)
            self.assertEqual(relayed.done, 0)
            self.advance(4)
            self.assertFinished(relayed, Outcome.IDLE)
            relayed.client.reading = True
            self.untilOver(relayed.client)
            self.assertIsInstance(relayed.client.error, ConnectionResetError)

    def test_noAnswer(self) -> None:
        """When one side has ended and no answer arrives for C{linger} seconds, both sides are closed."""
        for combination in COMBINATIONS:
            for relayed, ended, other in self.sides(*combination):
                ended.say(b"last words")
                self.settle()
                self.advance(LINGER - 2)
                self.assertFalse(ended.over)
                self.advance(4)
                self.untilOver(ended)
                self.assertTrue(other.ended)
                self.assertIsNone(ended.error)
                self.assertFinished(relayed)

    def test_answerThatTakesTime(self) -> None:
        """An answer may take its time while bytes arrive."""
        for relayed, ended, other in self.sides():
            ended.say(b"last words")
            self.settle()
            for _ in range(10):
                self.advance(LINGER - 2)
                other.send(b"more")
                self.settle()
            self.assertReceived(ended, b"more" * 10)
            other.close()
            self.assertFinished(relayed)

    def test_lostWhileStuck(self) -> None:
        """A receiver that does not take its bytes after the other side has closed is reset after C{linger} seconds."""
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination, small=True)
            relayed.client.reading = False
            relayed.backend.say(CONTENT[: 2 * MiB])
            self.settle()
            relayed.relay._backend.relay.lost(relayed.relay._backend)
            self.assertEqual(relayed.done, 0)
            self.advance(LINGER + 2)
            self.assertFinished(relayed)

    def test_heldEndIsNotTaken(self) -> None:
        """A backend that fails when it receives the held end ends the session, and all timers."""
        relayed = self.relayed(backendTLS=True)
        relayed.client.say(b"")
        self.settle()
        with socket.socket(fileno=os.dup(relayed.relay._backend.fd)) as same:
            same.shutdown(socket.SHUT_WR)
        self.advance(HELD + 2)
        self.assertFinished(relayed)
        self.assertEqual(self.turns.clock.getDelayedCalls(), [])

    def test_lingersNoLongerThanIdle(self) -> None:
        """The linger limit is at most C{idle}."""
        relayed = self.relayed(idle=3, linger=60)
        relayed.client.say(b"")
        self.settle()
        self.advance(5)
        self.assertFinished(relayed)

    def test_noTimerPerByte(self) -> None:
        """Relaying bytes sets no timers."""
        relayed = self.relayed()
        timers = self.turns.clock.getDelayedCalls()
        tick = relayed.relay.tick
        for peer in (relayed.client, relayed.backend):
            peer.send(b"x")
        self.settle()
        self.assertEqual((self.turns.clock.getDelayedCalls(), relayed.relay.tick), (timers, tick))


class SettlingTests(RelayCase):
    """Releasing the memory of bursts."""

    def grown(self, relayed: Relayed) -> int:
        """The number of engines that have not released it."""
        ends = (relayed.relay._client, relayed.relay._backend)
        return sum(end.isEncrypted and end._engine._grown for end in ends)

    def test_atOnce(self) -> None:
        """A single burst is released at once, a series of bursts when it is over."""
        relayed = self.relayed(True)
        relayed.backend.send(CONTENT[:2000])
        self.assertReceived(relayed.client, CONTENT[:2000])
        self.assertEqual(self.grown(relayed), 0)
        relayed.backend.send(CONTENT[2000:4000])
        self.assertReceived(relayed.client, CONTENT[:4000])
        self.assertEqual(self.grown(relayed), 1)
        self.advance(3)
        self.assertEqual(self.grown(relayed), 0)
        self.end(relayed)

    def test_givenBack(self) -> None:
        """A while after any burst nothing is left, wherever it was cut."""
        for combination in COMBINATIONS[1:]:
            relayed = self.relayed(*combination)
            for size in (2000, LITTLE, LITTLE + 100, 5 * LITTLE, 5 * LITTLE + 1, MiB, len(CONTENT)):
                for sender, receiver in ((relayed.client, relayed.backend), (relayed.backend, relayed.client)):
                    del receiver.received[:]
                    sender.send(CONTENT[:size])
                    self.assertReceived(receiver, CONTENT[:size])
                    self.advance(3)
                    self.assertEqual(self.grown(relayed), 0, size)
            self.end(relayed)

    def test_stuck(self) -> None:
        """The same while the receiver is stuck."""
        relayed = self.relayed(True, True, small=True)
        relayed.client.reading = False
        relayed.backend.send(CONTENT)
        self.settle()
        self.advance(3)
        self.assertEqual(self.grown(relayed), 0)
        relayed.client.reading = True
        self.assertReceived(relayed.client, CONTENT)
        self.end(relayed)
