# -*- test-case-name: mailgate.test.keeper.admin.test_pages -*-
"""
The endpoints of the live page: the page itself, its parts, the tables without JavaScript, and what it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import nan
from pathlib import Path
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.interfaces import IReactorTime

from mailgate.keeper.admin import page
from mailgate.keeper.admin.asked import Asked
from mailgate.keeper.admin.callers import Caller
from mailgate.keeper.admin.events import IStream, IViewer, Streams
from mailgate.keeper.admin.page.render import shell, tables
from mailgate.keeper.admin.parts import Content, Parts
from mailgate.keeper.admin.replies import Refused, Reply, jsonReply
from mailgate.keeper.admin.resources import Handler, Visit
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.moments import moment
from mailgate.keeper.overview import FRESH, MOST_ROWS, Overview, forLevel
from mailgate.keeper.rings import SPANS
from mailgate.keeper.sessions import listSessions
from mailgate.watch.tokens import Level

__all__ = ["PAGE_FIELDS", "Pages"]

PAGE_FIELDS: tuple[tuple[bytes, bytes], ...] = (
    (
        b"Content-Security-Policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self';"
        b" base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)
"""Header fields of documents, which replace those of other answers."""

_Render: TypeAlias = Callable[[IReactorTime, Mapping[str, Any]], Deferred[bytes]]

_HTML = b"text/html; charset=utf-8"


class Pages:
    """
    Answers the requests of the page.

    @param keeper: the keeper.
    @param clock: timers and the time in seconds.
    @param find: finds out who sends a request, as L{mailgate.keeper.admin.callers.Callers.find}.
    @ivar streams: the viewers.
    """

    def __init__(self, keeper: Keeper, clock: IReactorTime, find: Callable[[Asked], Caller]) -> None:
        self._keeper = keeper
        self._clock = clock
        self._find = find
        self._overview = Overview(keeper)
        self._parts = Parts(Path(str(page.__file__)).parent / "static")
        self._empty: Content | None = None
        # Tables take many turns of the event loop: those of several callers, one after the other.
        self._rendering = DeferredLock()
        self._shown: dict[tuple[_Render, Level], tuple[Mapping[str, Any], Reply]] = {}
        self._plotted: dict[str, tuple[float, Reply]] = {}
        self.streams = Streams(keeper, self._overview, clock)

    @property
    def handlers(self) -> dict[tuple[str, str], Handler]:
        """What carries out each endpoint, by method and path."""
        return {
            ("GET", "/"): self._shell,
            ("GET", "/static/{name}"): self._part,
            ("GET", "/plain"): self._plain,
            ("GET", "/api/1/overview"): self._whole,
            ("GET", "/api/1/events"): self._events,
            ("GET", "/api/1/history"): self._history,
        }

    def _seen(self, level: Level) -> Deferred[dict[str, Any]]:
        return self._overview.collect().addCallback(forLevel, level)

    def _shell(self, visit: Visit) -> Deferred[Reply]:
        peer = visit.asked.peer
        level = Level.NONE
        if peer.isLocal or (peer.certificate is not None and visit.asked.header("Authorization") is None):
            level = self._find(visit.asked).level
        return self._withoutData(visit.asked) if level is Level.NONE else self._document(shell, level)

    def _withoutData(self, asked: Asked) -> Deferred[Reply]:
        """The page without data. It is the same for all callers, and rendered once."""

        def rendered(document: bytes) -> Content:
            self._empty = Content(document, _HTML)
            return self._empty

        found = shell(self._clock).addCallback(rendered) if self._empty is None else succeed(self._empty)
        return found.addCallback(lambda content: content.reply(asked, PAGE_FIELDS))

    def _plain(self, visit: Visit) -> Deferred[Reply]:
        return self._document(tables, visit.caller.level)

    def _document(self, render: _Render, level: Level) -> Deferred[Reply]:
        """
        A document with data. It is rendered once for each overview, which takes much longer than to send it.

        It is not compressed: it has names of users beside texts that clients choose, and the length of the compressed
        answer would show an eavesdropper whether they are alike.
        """

        def run() -> Deferred[Reply]:
            return self._overview.collect().addCallback(self._whenShown, render, level)

        document: Deferred[Reply] = self._rendering.run(run)
        return document

    def _whenShown(self, overview: Mapping[str, Any], render: _Render, level: Level) -> Reply | Deferred[Reply]:
        known = self._shown.get((render, level))
        if known is not None and known[0] is overview:
            return known[1]
        return Deferred.fromCoroutine(self._rendered(overview, render, level))

    async def _rendered(self, overview: Mapping[str, Any], render: _Render, level: Level) -> Reply:
        shown = forLevel(overview, level)
        if level >= Level.OPERATE:
            shown = _withSessions(shown, await listSessions(self._keeper, {}, MOST_ROWS))
        reply = Reply(200, await render(self._clock, shown), _HTML, PAGE_FIELDS)
        self._shown[render, level] = overview, reply
        return reply

    def _part(self, visit: Visit) -> Reply:
        content = self._parts.find(visit.names["name"])
        if content is None:
            raise Refused(404, "the page has no such part")
        return content.cached(visit.asked)

    def _whole(self, visit: Visit) -> Deferred[dict[str, Any]]:
        return self._seen(visit.caller.level)

    def _events(self, visit: Visit) -> Reply:
        asked, level = visit.asked, visit.caller.level
        if not self.streams.hasPlace(level):
            raise Refused(503, "too many viewers; try again", headers=((b"Retry-After", b"10"),))

        def begin(stream: IStream) -> IViewer:
            return self.streams.add(stream, level, lambda: self._checked(asked))

        # nginx as a proxy would buffer the stream.
        return Reply(200, b"", b"text/event-stream", ((b"X-Accel-Buffering", b"no"),), closes=True, stream=begin)

    def _checked(self, asked: Asked) -> Level:
        level = self._find(asked).level
        if level < Level.READ:
            raise Refused(403, "this needs the level read")
        return level

    def _history(self, visit: Visit) -> Reply:
        span = visit.values["span"]
        if span not in SPANS:
            raise Refused(400, f"span must be one of {', '.join(SPANS)}", "bad query")
        now = self._keeper.now()
        at, reply = self._plotted.get(span, (nan, None))
        if reply is None or not 0 <= now - at < FRESH:
            reply = self._points(span, now)
            self._plotted[span] = now, reply
        return reply

    def _points(self, span: str, now: float) -> Reply:
        step, begin, series = self._keeper.plots.points(span)
        return jsonReply({"span": span, "step": step, "begin": moment(begin if series else now), "series": series})


def _withSessions(overview: Mapping[str, Any], page: Mapping[str, Any]) -> dict[str, Any]:
    """An overview with the first page of the list of sessions, which browsers with JavaScript ask for themselves."""
    rows, more, missing = page["sessions"], dict(overview["more"]), list(overview["missing"])
    if page["next"] is not None:
        # Sessions begin and end between the two answers.
        more["sessions"] = max(1, overview["stats"]["sessions"]["total"] - len(rows))
    own = overview["gateway"]
    for gateway in page["gateways"]:
        where = "" if gateway["name"] == own else f"gateway {gateway['name']}: "
        missing += [f"{where}{each}" for each in gateway["missing"] if f"{where}{each}" not in missing]
    return {**overview, "sessions": rows, "more": more, "missing": missing}
