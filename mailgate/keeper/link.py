# -*- test-case-name: mailgate.test.keeper.test_link -*-
"""
A worker's link to the keeper. The worker serves clients without it just as well: nothing here waits for the keeper, and
what the keeper does not read is dropped.
"""

from __future__ import annotations

import os
from collections import deque
from functools import partial
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailgate.keeper.answering import Answer, Answering
from mailgate.keeper.members import REPORT
from mailgate.keeper.messages import (
    FROM_KEEPERS,
    LONGEST_ORDER,
    STORIES_A_REPORT,
    Ask,
    Conversation,
    Enough,
    Hello,
    Move,
    Moved,
    Part,
    Refused,
    Report,
    Welcome,
    WireError,
)
from mailgate.keeper.surveying import Surveying
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

_log = Logger("mailgate")


class _ToKeeper(Conversation):
    """The worker's end of a connection to a keeper."""

    kinds = FROM_KEEPERS
    MAX_LENGTH = LONGEST_ORDER

    def __init__(self, link: KeeperLink, answering: Answering, surveying: Surveying) -> None:
        self._link = link
        self._answering = answering
        self._surveying = surveying
        self._answers: dict[int, Answer] = {}
        self._owed: list[int] = []
        self.isParting = False
        answering.idle = self._maybeLeave

    def began(self) -> None:
        self._link.opened(self)

    def received(self, message: Any) -> None:
        if isinstance(message, Ask):
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

    def invalid(self, error: WireError) -> None:
        _log.error("received an invalid message from the keeper: {error}", error=str(error))
        self.abort()

    def _ask(self, ask: Ask) -> None:
        if ask.word == REPORT:
            self._owed.append(ask.id)
            self._pay()
            return
        answer = self._answering.begin(ask.word, ask.arguments, lambda *part: self._answer(ask.id, *part))
        if answer is not None:
            self._answers[ask.id] = answer

    def _pay(self) -> None:
        """Send the reports that the keeper has asked for."""
        if self._owed and not self.isFull:
            owed, self._owed = self._owed, []
            self._surveying.measure(partial(self._measured, owed))

    def _measured(self, owed: list[int], totals: Totals | None) -> None:
        self._link.report(self, totals)
        for number in owed:
            self.send(Part(number, [], True, "" if totals is not None else "it could not be measured"))

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
            self._link.report(self, None)
            self.send(Moved())
            self.isParting = True
            self._link.moved(self)
            self._maybeLeave()

    def _maybeLeave(self) -> None:
        if self.isParting and self._answering.isIdle:
            self.close()

    def pauseProducing(self) -> None:
        super().pauseProducing()
        self._answering.pause()

    def drained(self) -> None:
        self._pay()
        self._link.drained(self)
        self._answering.resume()

    def ended(self) -> None:
        self._answering.stop()
        self._surveying.stop()
        self._link.closed(self)


class KeeperLink(Service):
    """
    Links a process that serves clients to the keeper: reports once a second what it has counted, if that has changed,
    and answers questions. One of them is about its gauges, which take longer.

    If there is no keeper, or if it does not read, the process goes on: it tries to connect for ever, drops stories, and
    sends the latest totals when it can.

    @param view: the process.
    @param endpoint: connects to the keeper.
    @param clock: the time and timers.
    @param slot: the number of the worker, from 0.
    @param pid: the process id.
    @ivar isRetiring: whether the process accepts no new clients.
    """

    def __init__(
        self,
        view: ProcessView,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        slot: int = 0,
        pid: int | None = None,
    ) -> None:
        self.isRetiring = False
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
        self._last: tuple[Totals, bool] | None = None
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
        if self._current is not None and self._isWelcome:
            self._tick()
        if not self._open:
            return succeed(None)
        deadline = self._clock.callLater(_FINISH_WITHIN, self._abort)
        self._finished = Deferred()
        self._finished.addCallback(lambda _: deadline.cancel() if deadline.active() else None)
        finished = self._finished
        for each in [*self._open]:
            each.close()
        return finished

    def _abort(self) -> None:
        for each in [*self._open]:
            each.abort()

    # Connections.

    def _connect(self) -> None:
        self._retry = None
        factory = Factory.forProtocol(lambda: self._conversation())
        factory.noisy = False
        self._attempt = self._endpoint.connect(factory)
        self._attempt.addErrback(self._failed)

    def _conversation(self) -> _ToKeeper:
        return _ToKeeper(self, Answering(self._view, self._clock), Surveying(self._view, self._clock))

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
            self._isWelcome, self._last = True, None
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
                self._send(self._current)
        except Exception:
            # The timer would stop for ever.
            _log.failure("cannot report to the keeper")

    def report(self, conversation: Conversation, totals: Totals | None) -> None:
        """
        Report at once.

        @param conversation: the connection on which the keeper has asked for it.
        @param totals: all metrics; L{None}: what the process has counted.
        """
        if conversation is self._current and self._isWelcome:
            try:
                self._stories.extend(self._view.watcher.takeStories())
                self._send(conversation, totals)
            except Exception:
                _log.failure("cannot report to the keeper")

    def drained(self, conversation: Conversation) -> None:
        """
        The keeper has read what was sent: send what has waited.

        @param conversation: the connection to it.
        """
        if conversation is self._current:
            self._tick()

    def _send(self, conversation: Conversation, totals: Totals | None = None) -> None:
        if totals is not None:
            conversation.send(Report(totals, [], self.isRetiring))
        else:
            now = self._view.watcher.totals(), self.isRetiring
            if now != self._last:
                conversation.send(Report(now[0], [], self.isRetiring))
                self._last = now
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
