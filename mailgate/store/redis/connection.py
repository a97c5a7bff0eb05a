# -*- test-case-name: mailgate.test.store.test_faults -*-
"""
What L{RedisStore<mailgate.store.redis.store.RedisStore>} stands on: calls that fail in time, a store that is left alone
while it does not work, and messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailgate.store.interfaces import StoreUnavailable
from mailgate.store.redis.answers import NO_SCRIPT, RENEWED, Runnable, Word, codeOf, errorWords
from mailgate.store.redis.breaker import Breaker
from mailgate.store.redis.opening import Opening
from mailgate.store.redis.subscription import Subscription
from mailgate.store.settings import StoreAccess, StoreSettings

__all__ = ["RedisConnection"]


class RedisConnection:
    """
    The connections to the store: one for calls, and one for messages.

    Each call is answered or fails within C{store_timeout}; it fails at once while the store is left alone or is not
    connected. Nothing is queued for later.

    @param settings: the directives.
    @param access: the contents of their files.
    @param reactor: the reactor.
    @param scripts: scripts that L{script} will run. They are loaded beforehand.
    @param channels: what L{heard} hears.
    @ivar changed: called with C{isUp} when that changes.
    """

    _log = Logger("mailgate")

    def __init__(
        self,
        settings: StoreSettings,
        access: StoreAccess,
        reactor: Any,
        scripts: Sequence[Runnable] = (),
        channels: Sequence[str] = (),
    ) -> None:
        assert settings.address is not None
        self.changed: Callable[[bool], object] = lambda isUp: None
        self._address = settings.address
        self._timeout = settings.timeout
        self._clock = reactor
        self._scripts = tuple(scripts)
        opening = Opening(settings.address, access, reactor)
        self._opening = opening
        self._breaker = Breaker(reactor, self._attempt, self._turned)
        self._subscription = Subscription(opening, reactor, channels)
        self._link: Any = None
        self._again: Deferred[Any] | None = None
        self._isKnown = False

    @property
    def isUp(self) -> bool:
        """Whether the store is asked."""
        return self._breaker.isUp

    @property
    def reason(self) -> str:
        """Why it is not asked, in words after "the store"; empty while it is."""
        return self._breaker.reason

    @property
    def isListening(self) -> bool:
        """Whether messages are heard."""
        return self._subscription.isListening

    @property
    def heard(self) -> Callable[[str, bytes], object]:
        """Called with the channel and the bytes of each message."""
        return self._subscription.heard

    @heard.setter
    def heard(self, called: Callable[[str, bytes], object]) -> None:
        self._subscription.heard = called

    @property
    def resumed(self) -> Callable[[], object]:
        """Called whenever messages are heard from now on: some may have been missed."""
        return self._subscription.resumed

    @resumed.setter
    def resumed(self, called: Callable[[], object]) -> None:
        self._subscription.resumed = called

    def start(self) -> None:
        """Connect."""
        self._breaker.start()

    def stop(self) -> Deferred[None]:
        """Disconnect. What waits for an answer fails."""
        self._breaker.stop()
        self._subscription.stop()
        again, self._again = self._again, None
        if again is not None:
            again.cancel()
        self._drop()
        return succeed(None)

    def call(self, *words: Word) -> Deferred[Any]:
        """
        Send a command.

        @param words: the command and its arguments.
        @return: fires with the reply: bytes, int, list or None; fails with L{StoreUnavailable}.
        """
        link = self._link
        if link is None:
            return self._refuse()
        answer: Deferred[Any] = link.send(words)
        return answer.addErrback(self._replied, link)

    def script(self, script: Runnable, keys: Sequence[bytes], arguments: Sequence[Word] = ()) -> Deferred[Any]:
        """
        Run a script. If the server does not have it, it is sent once more with its text.

        @param script: the script.
        @param keys: its C{KEYS}.
        @param arguments: its C{ARGV}.
        @return: as L{call}.
        """
        link = self._link
        if link is None:
            return self._refuse()
        tail = (b"%d" % len(keys), *keys, *arguments)
        answer: Deferred[Any] = link.send((b"EVALSHA", script.sha, *tail))
        return answer.addErrback(self._unknown, link, script, tail, self._clock.seconds() + self._timeout)

    def _refuse(self) -> Deferred[Any]:
        return fail(StoreUnavailable(f"the store {self._breaker.reason or 'is not connected'}"))

    def _unknown(self, failure: Failure, link: Any, script: Runnable, tail: Sequence[Word], due: float) -> Any:
        if not str(failure.value).startswith(NO_SCRIPT) or link is not self._link:
            return self._replied(failure, link)
        answer: Deferred[Any] = link.send((b"EVAL", script.source, *tail))
        answer.addErrback(self._replied, link)
        # Both together have the time of one call.
        left = max(0.0, due - self._clock.seconds())
        return answer.addTimeout(left, self._clock, onTimeoutCancel=self._tooLate)

    def _tooLate(self, result: Any, seconds: float) -> Any:
        raise StoreUnavailable(f"the store has not answered within {self._timeout * 1000:g} ms")

    def _replied(self, failure: Failure, link: Any) -> Failure:
        """A call has failed. Its link has counted that, unless it was an error reply."""
        if isinstance(failure.value, StoreUnavailable):
            return Failure(StoreUnavailable(f"the store {failure.value}"))
        text = str(failure.value)
        reason = errorWords(text)
        self._breaker.failed(reason)
        if link is self._link and codeOf(text) in RENEWED:
            link.close(reason)
        return Failure(StoreUnavailable(f"the store {reason}"))

    def _attempt(self) -> Deferred[Any]:
        return self._opening.usable(self._timeout, self._scripts).addCallback(self._connected)

    def _connected(self, link: Any) -> None:
        link.failed = self._breaker.failed
        link.answered = self._breaker.succeeded
        link.lost = self._lost
        self._link = link

    def _lost(self, reason: str) -> None:
        """The connection has ended. As long as the store counts as working, it is made anew at once."""
        self._link = None
        if self._breaker.isUp:
            self._breaker.failed(reason)
        if self._breaker.isUp and self._again is None:
            self._again = self._attempt()
            self._again.addCallbacks(self._back, self._gone)

    def _back(self, _: object) -> None:
        self._again = None

    def _gone(self, failure: Failure) -> None:
        """A server that does not even accept a connection is not tried three times: each login would pay for it."""
        self._again = None
        while self._breaker.isUp:
            self._breaker.failed(failure.getErrorMessage())

    def _turned(self, reason: str) -> None:
        if reason:
            self._drop()
            self._subscription.stop()
            text = "the store at {address} {reason}; this gateway goes on with what it knows itself, and tries again"
            self._log.warn(text, address=str(self._address), reason=reason)
        else:
            if self._isKnown:
                self._log.info("the store at {address} works again", address=str(self._address))
            else:
                self._log.info("the store at {address} works", address=str(self._address))
            self._subscription.start()
        self._isKnown = True
        self.changed(self._breaker.isUp)

    def _drop(self) -> None:
        """End the connection: replies that are still to come belong to calls that have failed."""
        link, self._link = self._link, None
        if link is not None:
            link.lost = lambda reason: None
            link.close(self._breaker.reason)
