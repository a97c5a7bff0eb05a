# -*- test-case-name: mailgate.test.keeper.admin.test_events -*-
"""
The events of the live page: C{GET /api/1/events}, a stream of server-sent events (HTML Standard, section 9.2).

Once a second, and only while there are viewers, the overview is found out, and what has changed is written once for all
viewers of a level. Nothing waits for a slow viewer: one that has not read the events before gets none, and the whole
overview when it reads again. After L{PATIENCE} seconds it is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import takewhile
from typing import Any, Protocol

from attrs import define
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.keeper.admin.replies import Refused
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.overview import TABLE_NAMES, Overview, forLevel
from mailgate.log.seldom import Seldom
from mailgate.watch.tokens import Level

__all__ = ["MOST_VIEWERS", "PATIENCE", "PERIOD", "IStream", "IViewer", "Streams"]

MOST_VIEWERS = 50
"""The most viewers of one server. A further one gets the place of one with a lower level."""

PERIOD = 1.0
"""Seconds between two events C{stats}."""

PATIENCE = 5.0
"""Seconds in which a viewer must read an event."""

COMMENT_EVERY = 15.0
"""Seconds between two comments, which keep proxies from closing the connection."""

CHECK_EVERY = 10.0
"""Seconds after which the access of a viewer is checked again: its token may have been taken out of the file."""

_RETRY = b"retry: 3000\n\n"
_COMMENT = b": the stream goes on\n\n"

_log = Logger("mailgate")


class IStream(Protocol):
    """The answer to a request that goes on."""

    def write(self, data: bytes) -> object:
        """
        Send a part of the answer.

        @param data: the part.
        """

    def registerProducer(self, producer: Any, streaming: bool) -> object:
        """
        Let the transport say when the client does not read.

        @param producer: an C{IPushProducer}.
        @param streaming: always true.
        """

    def end(self) -> object:
        """End the answer, and close the connection."""

    def drop(self) -> object:
        """Close the connection now."""


class IViewer(Protocol):
    """One viewer, as the connection sees it."""

    def left(self) -> object:
        """The client has left."""

    def end(self) -> object:
        """End the stream. Close the connection now if the client does not read."""


@implementer(IPushProducer)
class _Viewer:
    """
    One viewer.

    @ivar checked: when its access was checked.
    @ivar left: called when it has left.
    @ivar isDue: whether it needs everything.
    """

    def __init__(
        self,
        stream: IStream,
        level: Level,
        check: Callable[[], Level],
        clock: IReactorTime,
        left: Callable[[], object],
    ) -> None:
        self.left = left
        self.checked = clock.seconds()
        self.isDue = True
        self._level = level
        self._check = check
        self._stream = stream
        self._clock = clock
        self._pausedSince: float | None = None
        self._hasBegun = False

    # What the transport calls.

    def pauseProducing(self) -> None:
        """The client has not read what was sent."""
        if self._pausedSince is None:
            self._pausedSince = self._clock.seconds()

    def resumeProducing(self) -> None:
        """It has."""
        self._pausedSince = None

    def stopProducing(self) -> None:
        """The connection has ended."""
        self.pauseProducing()

    # What the streams call.

    @property
    def level(self) -> Level:
        """What it may see."""
        return self._level

    def check(self) -> None:
        """
        Find out what it may see now.

        @raise Refused: nothing.
        """
        level = self._check()
        # News of another level would leave what it must not see any more, or lack what it may see.
        self.isDue = self.isDue or level is not self._level
        self._level = level

    @property
    def isLate(self) -> bool:
        """Whether it must be dropped."""
        return self._pausedSince is not None and self._clock.seconds() - self._pausedSince > PATIENCE

    def show(self, page: _Page) -> None:
        """Send what is new, or everything if it has missed something. Send nothing if it does not read."""
        if self._pausedSince is not None:
            self.isDue = True
            return
        # Viewers of a level that none had before have nothing to compare with.
        data = page.whole if self.isDue or page.news is None else page.news
        if not self._hasBegun:
            self._hasBegun = True
            data = _RETRY + data
        self.isDue = False
        self._stream.write(data)

    def end(self) -> None:
        self.left()
        if self._pausedSince is None:
            self._stream.end()
        else:
            self._stream.drop()

    def drop(self) -> None:
        """Close the connection now."""
        self.left()
        self._stream.drop()


@define
class _Page:
    """
    What viewers of one level see now.

    @ivar news: the events since the page before; L{None} without one.
    @ivar make: makes the event that has everything.
    """

    news: bytes | None
    make: Callable[[], bytes]
    _whole: bytes = b""

    @property
    def whole(self) -> bytes:
        """The event that has everything. It is made once, if a viewer needs it."""
        self._whole = self._whole or self.make()
        return self._whole


def _text(value: Any) -> str:
    # ASCII alone, and so one line.
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


class Streams:
    """
    The viewers of one server.

    @param keeper: the keeper.
    @param overview: finds out what they see.
    @param clock: timers and the time in seconds.
    """

    def __init__(self, keeper: Keeper, overview: Overview, clock: IReactorTime) -> None:
        self._keeper = keeper
        self._overview = overview
        self._clock = clock
        self._viewers: dict[IStream, _Viewer] = {}
        self._timer: IDelayedCall | None = None
        self._isAsking = False
        self._number = 0
        self._before: dict[Level, dict[str, str]] = {}
        self._pages: dict[Level, _Page] = {}
        self._shown: Mapping[str, Any] | None = None
        self._saysFailed = Seldom()
        self._refused = 0
        self._blocked: set[str] | None = None
        self._commented = 0.0

    def hasPlace(self, level: Level) -> bool:
        """
        Return whether another viewer may be added.

        @param level: what it may see.
        """
        return len(self._viewers) < MOST_VIEWERS or self._lowest().level < level

    def _lowest(self) -> _Viewer:
        """The latest viewer of the lowest level."""
        return min(reversed(self._viewers.values()), key=lambda each: each.level)

    def add(self, stream: IStream, level: Level, check: Callable[[], Level]) -> IViewer:
        """
        Add a viewer.

        @param stream: its answer.
        @param level: what it may see.
        @param check: returns the level that it has now, or raises L{Refused}.
        @return: the viewer. If there are too many, it has ended already.
        """
        viewer = _Viewer(stream, level, check, self._clock, lambda: self.left(stream))
        if not self.hasPlace(level):
            viewer.end()
            return viewer
        if len(self._viewers) >= MOST_VIEWERS:
            # Those who may only read must not keep out those who may give orders. Their pages ask for overviews.
            self._lowest().end()
        self._viewers[stream] = viewer
        stream.registerProducer(viewer, True)
        if len(self._viewers) == 1:
            self._forget()
            self._commented = self._clock.seconds()
        if not self._isAsking:
            # It need not wait for the next second.
            self._stop()
            self._timer = self._clock.callLater(0, self._tick)
        return viewer

    def left(self, stream: IStream) -> None:
        """
        A viewer has left.

        @param stream: its answer.
        """
        self._viewers.pop(stream, None)
        if not self._viewers:
            self._stop()
            self._forget()

    def _forget(self) -> None:
        self._before.clear()
        self._pages = {}
        self._shown = None
        self._blocked = None

    def _stop(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _tick(self) -> None:
        self._timer = self._clock.callLater(PERIOD, self._tick)
        self._review()
        if self._viewers and not self._isAsking:
            self._isAsking = True
            self._overview.collect().addCallback(self._show).addErrback(self._failed)

    def _review(self) -> None:
        """Drop the viewers that do not read, and end those that have lost their access."""
        now = self._clock.seconds()
        for viewer in list(self._viewers.values()):
            if viewer.isLate:
                viewer.drop()
            elif not 0 <= now - viewer.checked < CHECK_EVERY:
                viewer.checked = now
                try:
                    viewer.check()
                except Refused:
                    viewer.end()

    def _failed(self, failure: Failure) -> None:
        self._isAsking = False
        if self._saysFailed.isDue(self._clock.seconds()):
            _log.failure("cannot find out what the live page shows", failure)

    def _show(self, overview: Mapping[str, Any]) -> None:
        self._isAsking = False
        if overview is not self._shown:
            self._shown = overview
            self._renew(overview)
        elif self._viewers:
            # Only viewers that have come in the meantime need it: others are not disturbed by them.
            for viewer in [each for each in self._viewers.values() if each.isDue]:
                viewer.show(self._pages.get(viewer.level) or self._add(viewer.level, overview, [], []))

    def _renew(self, overview: Mapping[str, Any]) -> None:
        """Show a new overview to all viewers."""
        levels = {viewer.level for viewer in self._viewers.values()}
        stories = self._newStories()
        self._pages = {}
        self._before = {level: each for level, each in self._before.items() if level in levels}
        blocks = self._newBlocks(overview)
        for level in levels:
            self._add(level, overview, stories, blocks)
        for viewer in list(self._viewers.values()):
            if viewer.level in self._pages:
                viewer.show(self._pages[viewer.level])

    def _newStories(self) -> list[Mapping[str, Any]]:
        """The refused logins of this overview that were not in the one before, the latest first."""
        refused, self._refused = self._refused, self._overview.refused
        kept = self._keeper.stories
        later = kept.refused - self._refused
        return kept.latest(later + min(50, max(0, self._refused - refused)))[later:]

    def _newBlocks(self, overview: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The blocks that are new since the overview before, the earliest first."""
        rows = overview["blocks"]
        known, self._blocked = self._blocked, {row["id"] for row in rows}
        # The latest are first. An earlier one may come in at the end when others have ended.
        return [] if known is None else [*takewhile(lambda row: row["id"] not in known, rows)][::-1]

    def _add(
        self,
        level: Level,
        overview: Mapping[str, Any],
        stories: list[Mapping[str, Any]],
        blocks: list[Mapping[str, Any]],
    ) -> _Page:
        page = self._pages[level] = self._page(level, forLevel(overview, level), stories, blocks)
        return page

    def _page(
        self,
        level: Level,
        shown: Mapping[str, Any],
        stories: list[Mapping[str, Any]],
        blocks: list[Mapping[str, Any]],
    ) -> _Page:
        texts = {name: _text(value) for name, value in shown.items()}
        tables = _object(texts, ("level", *TABLE_NAMES))
        known = self._before.get(level)
        self._before[level] = {"tables": tables, "alarms": texts["alarms"]}
        private = [("login_failed", story) for story in reversed(stories)] + [("blocked", row) for row in blocks]
        events = private if level >= Level.OPERATE else []
        news = None if known is None else b"".join((*self._comment(), *self._news(texts, tables, known, events)))
        return _Page(news, lambda: self._event("overview", _object(texts, texts)))

    def _news(
        self, texts: Mapping[str, str], tables: str, known: Mapping[str, str], events: list[tuple[str, Any]]
    ) -> Iterator[bytes]:
        yield self._event("stats", texts["stats"])
        if known["tables"] != tables:
            yield self._event("tables", tables)
        if known["alarms"] != texts["alarms"]:
            yield self._event("alarm", texts["alarms"])
        for name, value in events:
            yield self._event(name, _text(value))

    def _comment(self) -> Iterator[bytes]:
        now = self._clock.seconds()
        if not 0 <= now - self._commented < COMMENT_EVERY:
            self._commented = now
            yield _COMMENT

    def _event(self, name: str, text: str) -> bytes:
        self._number += 1
        return f"id: {self._number}\nevent: {name}\ndata: {text}\n\n".encode("ascii")


def _object(texts: Mapping[str, str], names: Any) -> str:
    return "{" + ", ".join(f'"{name}": {texts[name]}' for name in names) + "}"
