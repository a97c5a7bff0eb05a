# -*- test-case-name: mailgate.test.keeper.admin.test_pages -*-
"""
The endpoints of the live page: the page itself, its parts, the tables without JavaScript, and what it shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from mailgate.keeper.admin import page
from mailgate.keeper.admin.asked import Asked
from mailgate.keeper.admin.callers import Caller
from mailgate.keeper.admin.events import IStream, IViewer, Streams
from mailgate.keeper.admin.page.render import shell, tables
from mailgate.keeper.admin.replies import Refused, Reply
from mailgate.keeper.admin.resources import Handler, Visit
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.overview import Overview, forLevel
from mailgate.keeper.rings import SPANS
from mailgate.keeper.stats import moment
from mailgate.watch.tokens import Level

__all__ = ["PAGE_FIELDS", "Pages", "Parts"]

PAGE_FIELDS: tuple[tuple[bytes, bytes], ...] = (
    (
        b"Content-Security-Policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self';"
        b" base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)
"""Header fields of documents, which replace those of other answers."""

_HTML = b"text/html; charset=utf-8"

_KINDS = {
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=utf-8",
}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

_FOR_READERS = re.compile(rb"^\t*(?://.*)?", re.MULTILINE)
"""
The indentation of a script, and lines that are only a comment. They are for readers of the file: browsers get neither,
but an empty line, so that the numbers of lines in their errors stay right.
"""


class Parts:
    """
    The parts of the page: the files of one folder. Each is read once. Scripts are sent without indentation and
    without the lines that are only comments.

    @param folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, tuple[bytes, bytes]] = {}

    def find(self, name: str) -> tuple[bytes, bytes, bytes] | None:
        """
        Return the content of a file, its media type and its ETag; L{None} if there is no such file.

        @param name: the name of the file.
        """
        kind = _KINDS.get(Path(name).suffix)
        if kind is None or not _NAME.fullmatch(name):
            return None
        known = self._read.get(name)
        if known is None:
            try:
                content = (self._folder / name).read_bytes()
            except OSError:
                return None
            if name.endswith(".js"):
                content = _FOR_READERS.sub(b"", content)
            known = self._read[name] = content, b'"%s"' % sha256(content).hexdigest()[:32].encode("ascii")
        return known[0], kind, known[1]


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
        self._find = find
        self._overview = Overview(keeper)
        self._parts = Parts(Path(str(page.__file__)).parent / "static")
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
        seen: Deferred[Any] = succeed(None) if level is Level.NONE else self._seen(level)
        return seen.addCallback(shell).addCallback(_document)

    def _plain(self, visit: Visit) -> Deferred[Reply]:
        return self._seen(visit.caller.level).addCallback(tables).addCallback(_document)

    def _part(self, visit: Visit) -> Reply:
        found = self._parts.find(visit.names["name"])
        if found is None:
            raise Refused(404, "the page has no such part")
        content, kind, tag = found
        fields = ((b"ETag", tag), (b"Cache-Control", b"no-cache"))
        if tag in re.split(rb"\s*,\s*", visit.asked.header("If-None-Match") or b""):
            return Reply(304, b"", kind, fields)
        return Reply(200, content, kind, fields)

    def _whole(self, visit: Visit) -> Deferred[dict[str, Any]]:
        return self._seen(visit.caller.level)

    def _events(self, visit: Visit) -> Reply:
        if self.streams.isFull:
            raise Refused(503, "too many viewers; try again", headers=((b"Retry-After", b"10"),))
        asked, level = visit.asked, visit.caller.level

        def begin(stream: IStream) -> IViewer:
            return self.streams.add(stream, level, lambda: self._checked(asked))

        # nginx as a proxy would buffer the stream.
        return Reply(200, b"", b"text/event-stream", ((b"X-Accel-Buffering", b"no"),), closes=True, stream=begin)

    def _checked(self, asked: Asked) -> Level:
        level = self._find(asked).level
        if level < Level.READ:
            raise Refused(403, "this needs the level read")
        return level

    def _history(self, visit: Visit) -> Mapping[str, Any]:
        span = visit.values["span"]
        if span not in SPANS:
            raise Refused(400, f"span must be one of {', '.join(SPANS)}", "bad query")
        step, begin, series = self._keeper.plots.points(span)
        if not series:
            begin = self._keeper.now()
        return {"span": span, "step": step, "begin": moment(begin), "series": series}


def _document(content: bytes) -> Reply:
    return Reply(200, content, _HTML, PAGE_FIELDS)
