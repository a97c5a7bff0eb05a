# -*- test-case-name: mailgate.test.store.test_link -*-
"""
One connection to the store: txredisapi's protocol with a path of its own for calls and replies. That of txredisapi
needs five times the processor time, and a timer for each call.

Import this module in functions only: txredisapi imports the reactor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import txredisapi
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from mailgate.net.connectionerrors import inWords
from mailgate.store.interfaces import StoreUnavailable
from mailgate.store.redis.answers import Word, encoded
from mailgate.store.redis.replies import Replies
from mailgate.tls.errors import CertificateError, hasReason, serverTrouble

__all__ = ["MOST_BYTES", "MOST_WAITING", "OVERDUE", "Link", "ReplyError"]

MOST_WAITING = 4096
"""So many calls may wait for their replies."""

MOST_BYTES = 64 * 1024 * 1024
"""The most bytes of a reply."""

OVERDUE = 4
"""
A connection on which a reply is late by so many timeouts is closed: replies to later calls would come later still.
"""


class ReplyError(Exception):
    """The store has replied with an error. The text is the reply, from the network."""


class Link(txredisapi.RedisProtocol):
    """
    A connection to the store.

    @param clock: the time and timers.
    @ivar timeout: seconds until a call fails. L{within} changes it.
    @ivar failed: called with each failure of a call, in words after "the store".
    @ivar answered: called after each reply that is no error.
    @ivar lost: called with the reason, in words after "the store", when the connection has ended.
    """

    def __init__(self, clock: Any, timeout: float) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self.timeout = timeout
        self.failed: Callable[[str], object] = lambda reason: None
        self.answered: Callable[[], object] = lambda: None
        self.lost: Callable[[str], object] = lambda reason: None
        self.isOpen = False
        self._clock = clock
        self._waiting: deque[tuple[float, Deferred[Any]]] = deque()
        self._expired = 0
        self._unread = 0
        self._replies = Replies()
        self._heard: Callable[[bytes, bytes], object] | None = None
        self._timer: Any = None

    def connectionMade(self) -> None:
        """See L{Protocol<twisted.internet.protocol.Protocol>}."""
        self.isOpen = True

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """
        See L{Protocol<twisted.internet.protocol.Protocol>}.

        @param data: what has come.
        @param unpause: not used.
        """
        self._unread += len(data)
        if self._unread > MOST_BYTES:
            self.close(f"has sent a reply of more than {MOST_BYTES} bytes")
            return
        try:
            replies = self._replies.feed(data)
        except ValueError:
            self.close("has sent what is no reply")
            return
        for reply in replies:
            # A caller may close the connection meanwhile.
            if self.isOpen:
                self.replyReceived(reply)

    def listen(self, heard: Callable[[bytes, bytes], object]) -> None:
        """
        Take messages of Pub/Sub from now on.

        @param heard: called with the channel and the bytes of each message.
        """
        self._heard = heard

    def send(self, words: Sequence[Word]) -> Deferred[Any]:
        """
        Send a command. Commands of one turn of the reactor go out together.

        @param words: the command and its arguments.
        @return: fires with the reply: bytes, int, list or None; fails with L{ReplyError} or L{StoreUnavailable}.
        """
        if not self.isOpen:
            return fail(StoreUnavailable("is not connected"))
        if len(self._waiting) >= MOST_WAITING:
            return fail(StoreUnavailable(f"has not answered {MOST_WAITING} calls yet"))
        answer: Deferred[Any] = Deferred()
        self._waiting.append((self._clock.seconds() + self.timeout, answer))
        if self._timer is None:
            self._wake(self.timeout)
        self.transport.write(encoded(words))
        return answer

    def replyReceived(self, reply: Any) -> None:
        """
        See C{BaseRedisProtocol}. Replies come in the order of the calls.

        @param reply: the reply, or an exception.
        """
        self._unread = 0
        if not self.isOpen:
            return
        if self._heard is not None and isinstance(reply, list) and reply and reply[0] == b"message":
            self._heard(*reply[1:])
            return
        if not self._waiting:
            # It belongs to no call: which calls later replies belong to cannot be told.
            self.close("has sent a reply that no call has asked for")
            return
        answer = self._waiting.popleft()[1]
        if self._expired:
            # Its call has failed already.
            self._expired -= 1
        elif isinstance(reply, Exception):
            answer.errback(ReplyError(str(reply)))
        else:
            self.answered()
            answer.callback(reply)

    def within(self, timeout: float) -> None:
        """
        Calls fail after another time from now on. None may wait.

        @param timeout: seconds.
        """
        assert not self._waiting
        self.timeout = timeout
        self._sleep()

    def _wake(self, seconds: float) -> None:
        # What a failed call has led to may have set the timer already.
        self._sleep()
        self._timer = self._clock.callLater(seconds, self._late)

    def _sleep(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _late(self) -> None:
        # This process itself may be late, and replies may be there already: the reactor reads them first.
        self._timer = self._clock.callLater(0, self._expire)

    def _expire(self) -> None:
        """Fail the calls that have waited for too long. Their replies, if they come, are dropped."""
        self._timer = None
        now = self._clock.seconds()
        reason = f"has not answered within {self.timeout * 1000:g} ms"
        while self._expired < len(self._waiting):
            due, answer = self._waiting[self._expired]
            if due > now:
                break
            self._expired += 1
            self._give(answer, reason)
            if not self.isOpen:
                return
        if not self._waiting:
            return
        if self._waiting[0][0] + (OVERDUE - 1) * self.timeout <= now:
            self.close(reason)
            return
        following = self._waiting[self._expired][0] if self._expired < len(self._waiting) else now + self.timeout
        self._wake(max(0.0, following - now))

    def _give(self, answer: Deferred[Any], reason: str) -> None:
        self.failed(reason)
        if not answer.called:
            answer.errback(StoreUnavailable(reason))

    def close(self, reason: str = "has been disconnected") -> None:
        """
        End the connection now. Calls that wait fail.

        @param reason: why, in words after "the store".
        """
        self.isOpen = False
        if self.transport is not None:
            self.transport.abortConnection()
        self._end(reason)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """
        See L{Protocol<twisted.internet.protocol.Protocol>}.

        @param reason: why.
        """
        self.isOpen = False
        self._end(_why(None if reason is None else reason.value))

    def _end(self, reason: str) -> None:
        self._sleep()
        waiting, expired = list(self._waiting), self._expired
        self._waiting.clear()
        self._expired = 0
        lost, self.lost = self.lost, lambda reason: None
        lost(reason)
        for _, answer in waiting[expired:]:
            if not answer.called:
                answer.errback(StoreUnavailable(reason))


def _why(error: BaseException | None) -> str:
    if error is not None and (isinstance(error, CertificateError) or hasReason(error)):
        return f"cannot be reached by TLS: {serverTrouble(error)}"
    return inWords(error) or "dropped the connection"
