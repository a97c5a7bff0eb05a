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

from mailgate.keeper.answering import Answering
from mailgate.keeper.conversation import Conversation
from mailgate.keeper.feed import Feed
from mailgate.keeper.limits import KeeperStore
from mailgate.keeper.messages import LIMITS, REGISTRY, STORIES_A_REPORT, Hello, Report, WireError
from mailgate.keeper.placemessages import PLACES
from mailgate.keeper.places import ProcessPlaces
from mailgate.keeper.reporting import Reporter
from mailgate.keeper.sums import changes
from mailgate.keeper.view import ProcessView
from mailgate.keeper.workerend import WorkerEnd
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

_log = Logger("mailgate")


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
        factory = Factory.forProtocol(lambda: WorkerEnd(self, Answering(self._view, self._clock)))
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
