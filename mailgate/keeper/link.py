# -*- test-case-name: mailgate.test.keeper.test_link -*-
"""
A worker's link to the keeper. The worker serves clients without it just as well: nothing here waits for the keeper, and
what the keeper does not read is dropped.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailgate.keeper.answering import Answer, Answering
from mailgate.keeper.conversation import Conversation
from mailgate.keeper.feed import Feed
from mailgate.keeper.limits import KeeperStore
from mailgate.keeper.members import REPORT
from mailgate.keeper.messages import (
    FROM_KEEPERS,
    LIMITS,
    LIMITS_VERSION,
    LONGEST_ORDER,
    REGISTRY,
    REGISTRY_VERSION,
    STORIES_A_REPORT,
    Ask,
    Enough,
    Hello,
    Judged,
    Move,
    Moved,
    News,
    Part,
    Refused,
    Report,
    Welcome,
    WireError,
)
from mailgate.keeper.placemessages import PLACES, PLACES_VERSION, Placed
from mailgate.keeper.places import ProcessPlaces
from mailgate.keeper.reporting import Reporter
from mailgate.keeper.sums import changes
from mailgate.keeper.view import ProcessView
from mailgate.log.journal import oneLine
from mailgate.watch.tally import Totals

__all__ = ["INTERVAL", "LONGEST_PAUSE", "MOST_STORIES", "KeeperLink"]

INTERVAL = 1.0
"""Seconds between reports."""

LONGEST_PAUSE = 1.0
"""Seconds between attempts to connect."""

_FIRST_PAUSE = 0.05

MOST_STORIES = 2000
"""Stories that wait to be sent. The earliest are dropped beyond that."""

_FINISH_WITHIN = 1.0
"""Seconds that the last report may take when the process stops."""

_LOGGED_AFTER = 10
"""Failed attempts to connect before the log says so: a new keeper needs a moment."""

_VERSIONS = {REGISTRY: REGISTRY_VERSION, LIMITS: LIMITS_VERSION, PLACES: PLACES_VERSION}
"""What a keeper must offer so that it is accepted."""

_log = Logger("mailgate")


class _ToKeeper(Conversation):
    """The worker's end of a connection to a keeper."""

    kinds = FROM_KEEPERS
    MAX_LENGTH = LONGEST_ORDER

    def __init__(self, link: KeeperLink, answering: Answering) -> None:
        self._link = link
        self._answering = answering
        self._answers: dict[int, Answer] = {}
        self._owed: list[int] = []
        self._isLooking = False
        self.isParting = False
        answering.idle = self._maybeLeave

    def began(self) -> None:
        self._link.opened(self)

    def received(self, message: Any) -> None:
        if isinstance(message, Judged | News):
            self._hearOfLimits(message)
        elif isinstance(message, Placed) and self._link.places is not None:
            self._link.places.placed(message)
        elif isinstance(message, Ask):
            self._ask(message)
        elif isinstance(message, Enough):
            answer = self._answers.pop(message.id, None)
            if answer is not None:
                self._answering.cancel(answer)
        elif isinstance(message, Welcome):
            self._link.welcomed(self)
        elif isinstance(message, Move):
            self._move()
        elif isinstance(message, Refused):
            self._link.refused(message.reason)
            self.close()

    def _hearOfLimits(self, message: Judged | News) -> None:
        store = self._link.limits
        if store is None:
            return
        if isinstance(message, News):
            store.news(message)
            return
        try:
            store.judged(self, message)
        except WireError as error:
            self.invalid(error)

    def invalid(self, error: WireError) -> None:
        _log.error("received an invalid message from the keeper: {error}", error=str(error))
        self.abort()

    def _ask(self, ask: Ask) -> None:
        if ask.word == REPORT:
            self._owed.append(ask.id)
            self._pay()
            return
        follower = self._link.followers.get(ask.word)
        if follower is not None and ask.arguments == {"version": _VERSIONS[ask.word]}:
            self.send(Part(ask.id, [_VERSIONS[ask.word]], True, ""))
            if not self.isParting:
                follower.attached(self)
            return
        answer = self._answering.begin(ask.word, ask.arguments, lambda *part: self._answer(ask.id, *part))
        if answer is not None:
            self._answers[ask.id] = answer

    def _pay(self) -> None:
        """Make the report that the keeper has asked for."""
        if self._owed and not self.isFull and not self._isLooking:
            self._isLooking = True
            self._link.reporter.look(self._looked)

    def _looked(self) -> None:
        self._isLooking = False
        if self.isFull:
            # It looks again when the keeper reads.
            return
        owed, self._owed = self._owed, []
        self._link.report(self)
        for number in owed:
            self.send(Part(number, [], True, ""))
        self._maybeLeave()

    def _answer(self, number: int, rows: list[Any], isLast: bool, failure: str) -> None:
        """Send a part of an answer, in several messages if it is too long for one."""
        if isLast:
            self._answers.pop(number, None)
        try:
            self.send(Part(number, rows, isLast, failure))
        except (WireError, ValueError, TypeError):
            half = len(rows) // 2
            if half:
                self._answer(number, rows[:half], False, "")
                self._answer(number, rows[half:], isLast, failure)
            else:
                self.send(Part(number, [], isLast, failure or "a row is too long"))

    def _move(self) -> None:
        """Leave for the successor. The answers that have begun end here."""
        if not self.isParting:
            self._link.report(self)
            self.send(Moved())
            self.isParting = True
            for follower in self._link.followers.values():
                follower.detached(self)
            self._link.moved(self)
            self._maybeLeave()

    def _maybeLeave(self) -> None:
        if self.isParting and self._answering.isIdle and not self._owed:
            self.close()

    def pauseProducing(self) -> None:
        super().pauseProducing()
        self._answering.pause()

    def drained(self) -> None:
        self._pay()
        self._link.feed.drained(self)
        if self._link.limits is not None:
            self._link.limits.drained(self)
        self._link.drained(self)
        self._answering.resume()

    def ended(self) -> None:
        self._answering.stop()
        for follower in self._link.followers.values():
            follower.detached(self)
        self._link.closed(self)


class KeeperLink(Service):
    """
    Links a process that serves clients to the keeper: reports once a second what has changed, and answers questions.

    If there is no keeper, or if it does not read, the process goes on: it tries to connect for ever, drops stories, and
    sends the latest totals when it can.

    @param view: the process.
    @param endpoint: connects to the keeper.
    @param clock: the time and timers.
    @param slot: the number of the worker, from 0.
    @param pid: the process id.
    @param limits: asks the keeper about logins; L{None} if this process decides alone.
    @param places: asks the keeper for the places of users; L{None} if nothing here does.
    @ivar isRetiring: whether the process accepts no new clients.
    @ivar limits: as the argument.
    @ivar places: as the argument.
    @ivar reporter: measures what the process reports.
    @ivar feed: tells a keeper that wants to know which sessions there are.
    @ivar followers: what talks to a keeper that has asked for it, by the word of the question.
    """

    def __init__(
        self,
        view: ProcessView,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        slot: int = 0,
        pid: int | None = None,
        limits: KeeperStore | None = None,
        places: ProcessPlaces | None = None,
    ) -> None:
        self.isRetiring = False
        self.limits = limits
        self.places = places
        self.reporter = Reporter(view, clock)
        self.feed = Feed(view, clock)
        offered = {REGISTRY: self.feed, LIMITS: limits, PLACES: places}
        self.followers: dict[str, Any] = {word: each for word, each in offered.items() if each is not None}
        self._view = view
        self._endpoint = endpoint
        self._clock = clock
        self._hello = Hello(view.member, os.getpid() if pid is None else pid, slot)
        self._stories: deque[Any] = deque(maxlen=MOST_STORIES)
        self._attempt: Deferred[Any] | None = None
        self._retry: IDelayedCall | None = None
        self._failures = 0
        self._hasLogged = False
        self._open: set[Conversation] = set()
        self._current: Conversation | None = None
        self._isWelcome = False
        self._last: tuple[Totals, bool | None] = {}, None
        self._finished: Deferred[None] | None = None
        self._ticks = TimerService(INTERVAL, self._tick)
        self._ticks.clock = clock

    @property
    def isLinked(self) -> bool:
        """Whether a keeper has welcomed the process."""
        return self._isWelcome

    def startService(self) -> None:
        super().startService()
        self._connect()
        self._ticks.startService()

    def retire(self) -> None:
        """The gateway accepts no new clients: tell the keeper."""
        self.isRetiring = True
        self._tick()

    def stopService(self) -> Deferred[None]:
        """Report for the last time. The Deferred fires when the keeper has the report, or after a second."""
        super().stopService()
        self._ticks.stopService()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._attempt is not None:
            self._attempt.cancel()
        self.reporter.finish()
        if self._current is not None:
            self.report(self._current)
        if not self._open:
            return succeed(None)
        deadline = self._clock.callLater(_FINISH_WITHIN, self._abort)
        finished: Deferred[None] = Deferred()
        self._finished = finished.addCallback(lambda _: deadline.cancel() if deadline.active() else None)
        for each in [*self._open]:
            each.close()
        return finished

    def _abort(self) -> None:
        for each in [*self._open]:
            each.abort()

    # Connections.

    def _connect(self) -> None:
        self._retry = None
        factory = Factory.forProtocol(lambda: _ToKeeper(self, Answering(self._view, self._clock)))
        factory.noisy = False
        self._attempt = self._endpoint.connect(factory)
        self._attempt.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        if not failure.check(CancelledError):
            self._failures += 1
            if self._failures == _LOGGED_AFTER:
                self._hasLogged = True
                _log.warn(
                    "cannot connect to the keeper: {reason}; the process serves clients without it and goes on trying",
                    reason=oneLine(failure.getErrorMessage()),
                )
            self._later()

    def _later(self) -> None:
        """Connect again: at once the first time, and then with growing pauses."""
        if self.running and self._retry is None:
            pause = min(LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (min(self._failures, 10) - 1)) if self._failures else 0
            self._retry = self._clock.callLater(pause, self._connect)

    def opened(self, conversation: Conversation) -> None:
        """
        A connection is open.

        @param conversation: its protocol.
        """
        self._attempt = None
        if not self.running:
            conversation.abort()
            return
        # No deadline for the welcome: while no keeper runs, connections wait for the next one.
        self._open.add(conversation)
        self._current = conversation
        conversation.send(self._hello)

    def welcomed(self, conversation: Conversation) -> None:
        """
        The keeper knows this process.

        @param conversation: the connection to it.
        """
        if conversation is self._current:
            self._failures = 0
            if self._hasLogged:
                self._hasLogged = False
                _log.info("connected to the keeper again")
            self._isWelcome, self._last = True, ({}, None)
            self._tick()

    def refused(self, reason: str) -> None:
        """
        The keeper does not accept this process.

        @param reason: why, in words.
        """
        self._failures += 1
        if not self._hasLogged:
            self._hasLogged = True
            _log.error("the keeper refused the link of this process: {reason}", reason=oneLine(reason))

    def moved(self, conversation: Conversation) -> None:
        """
        The keeper has sent this process to another one.

        @param conversation: the connection to the earlier keeper.
        """
        if conversation is self._current:
            self._current, self._isWelcome = None, False
            self._later()

    def closed(self, conversation: Conversation) -> None:
        """
        A connection is closed.

        @param conversation: its protocol.
        """
        self._open.discard(conversation)
        if conversation is self._current:
            if not self._isWelcome:
                self._failures += 1
            self._current, self._isWelcome = None, False
            self._later()
        if self._finished is not None and not self._open:
            finished, self._finished = self._finished, None
            finished.callback(None)

    # Reports.

    def _tick(self) -> None:
        try:
            self._stories.extend(self._view.watcher.takeStories())
            if self._current is not None and self._isWelcome and not self._current.isFull:
                self._send(self._current, self.reporter.regular())
        except Exception:
            # The timer would stop for ever.
            _log.failure("cannot report to the keeper")

    def report(self, conversation: Conversation) -> None:
        """
        Report at once.

        @param conversation: the connection on which the keeper has asked for it.
        """
        if conversation is self._current and self._isWelcome:
            try:
                self._stories.extend(self._view.watcher.takeStories())
                self._send(conversation, self.reporter.totals(), isForced=True)
            except Exception:
                _log.failure("cannot report to the keeper")

    def drained(self, conversation: Conversation) -> None:
        """
        The keeper has read what was sent: send what has waited.

        @param conversation: the connection to it.
        """
        if conversation is self._current:
            self._tick()

    def _send(self, conversation: Conversation, totals: Totals, isForced: bool = False) -> None:
        changed = changes(self._last[0], totals)
        if isForced or changed or self.isRetiring != self._last[1]:
            conversation.send(Report(changed, [], self.isRetiring))
            self._last = totals, self.isRetiring
        while self._stories and not conversation.isFull:
            stories = [self._stories.popleft() for _ in range(min(STORIES_A_REPORT, len(self._stories)))]
            self._sendStories(conversation, stories)

    def _sendStories(self, conversation: Conversation, stories: list[Any]) -> None:
        try:
            conversation.send(Report(None, stories, self.isRetiring))
        except (WireError, ValueError, TypeError):
            half = len(stories) // 2
            for part in (stories[:half], stories[half:]) if half else ():
                self._sendStories(conversation, part)
