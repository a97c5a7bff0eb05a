"""
Tests for L{mailgate.keeper.admin.events}.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.admin.events import (
    CHECK_EVERY,
    COMMENT_EVERY,
    MOST_VIEWERS,
    PATIENCE,
    PERIOD,
    Streams,
)
from mailgate.keeper.admin.examples import AN_OVERVIEW
from mailgate.keeper.admin.replies import Refused
from mailgate.keeper.keeper import Keeper
from mailgate.test.support.admincase import AdminCase
from mailgate.test.support.adminsite import unchunked
from mailgate.watch.tokens import Level

STORY = {"kind": "login", "at": "2026-11-28T10:02:11.204Z", "user": "joe"}


class Stream:
    """Stands in for an answer that goes on."""

    def __init__(self) -> None:
        self.data = b""
        self.producer: Any = None
        self.state = ""

    def write(self, data: bytes) -> None:
        assert self.state == "", "it has ended"
        self.data += data

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def end(self) -> None:
        self.state = "ended"

    def drop(self) -> None:
        self.state = "dropped"

    def take(self) -> list[tuple[str, Any]]:
        """The events since the last call."""
        data, self.data = self.data, b""
        return eventsIn(data)


def eventsIn(data: bytes) -> list[tuple[str, Any]]:
    """The events of a stream: their names and values. Fails if something else is there."""
    found = []
    for block in data.decode("ascii").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line)
        if "data" in lines:
            assert list(lines) == ["id", "event", "data"], lines
            found.append((lines["event"], json.loads(lines["data"])))
        else:
            assert block in ("", "retry: 3000", ": the stream goes on"), block
    return found


class Overview:
    """
    Stands in for L{mailgate.keeper.overview.Overview}.

    @ivar value: what it finds out.
    @ivar waiting: answers later, if that is set.
    @ivar refused: see there.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.refused = 0
        self.value = dict(AN_OVERVIEW)
        self.waiting: Deferred[Any] | None = None
        self.asked = 0

    def collect(self) -> Any:
        self.asked += 1
        self.refused = self._keeper.stories.refused
        if self.waiting is not None:
            return self.waiting
        answered: Deferred[Any] = Deferred()
        answered.callback(dict(self.value))
        return answered


class StreamsTests(SynchronousTestCase):
    """L{Streams}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.keeper = Keeper(self.clock, "g1")
        self.overview = Overview(self.keeper)
        self.streams = Streams(self.keeper, self.overview, self.clock)  # type: ignore[arg-type]
        self.level: Level | None = None

    def add(self, level: Level = Level.OPERATE) -> Stream:
        def check() -> Level:
            if self.level is None:
                return level
            if self.level is Level.NONE:
                raise Refused(401, "the token is wrong")
            return self.level

        stream = Stream()
        self.streams.add(stream, level, check)
        self.clock.advance(0)
        return stream

    def second(self) -> None:
        self.clock.advance(PERIOD)

    def test_first(self) -> None:
        """First comes everything, and how soon to connect again."""
        stream = self.add()
        self.assertTrue(stream.data.startswith(b"retry: 3000\n\nid: "))
        self.assertEqual(stream.take(), [("overview", AN_OVERVIEW)])

    def test_changes(self) -> None:
        """Numbers come each second, tables and alarms when they change."""
        stream = self.add()
        stream.take()
        self.second()
        self.assertEqual(stream.take(), [("stats", AN_OVERVIEW["stats"])])
        self.overview.value["missing"] = ["worker 7"]
        self.second()
        (_, (name, tables)) = stream.take()
        self.assertEqual((name, tables["missing"], tables["level"]), ("tables", ["worker 7"], "operate"))
        self.assertNotIn("failures", tables)
        self.overview.value["alarms"] = []
        self.second()
        self.assertEqual(stream.take()[1:], [("alarm", [])])
        self.second()
        self.assertEqual([name for name, _ in stream.take()], ["stats"])

    def test_levels(self) -> None:
        """Below operate there are no users."""
        reader, operator = self.add(Level.READ), self.add(Level.OPERATE)
        (_, shown), *_ = reader.take()
        self.assertEqual((shown["level"], shown["stuck"], shown["failures"]), ("read", None, None))
        self.keeper.stories.add([STORY])
        operator.take()
        self.overview.value["missing"] = ["x"]
        self.second()
        self.assertEqual([name for name, _ in reader.take()], ["stats", "tables"])
        self.assertEqual(operator.take()[2:], [("login_failed", STORY)])

    def test_stories(self) -> None:
        """Each refused login comes once, in order; those of before the first viewer are in the overview."""
        self.keeper.stories.add([STORY])
        stream = self.add()
        self.keeper.stories.add([{**STORY, "user": "a"}, {**STORY, "user": "b"}])
        stream.take()
        self.second()
        self.assertEqual([each["user"] for name, each in stream.take() if name == "login_failed"], ["a", "b"])
        self.second()
        self.assertEqual([name for name, _ in stream.take()], ["stats"])
        self.keeper.stories.add([{**STORY, "user": str(number)} for number in range(500)])
        self.second()
        self.assertEqual(len(stream.take()), 51)

    def test_laterStories(self) -> None:
        """What was refused after the first overview was found out, and before it was shown, comes a second later."""
        self.overview.waiting = Deferred()
        stream = self.add()
        self.keeper.stories.add([{**STORY, "user": "a"}])
        waiting, self.overview.waiting = self.overview.waiting, None
        waiting.callback(dict(self.overview.value))
        self.assertEqual([name for name, _ in stream.take()], ["overview"])
        self.keeper.stories.add([{**STORY, "user": "b"}])
        self.second()
        self.assertEqual([each["user"] for name, each in stream.take() if name == "login_failed"], ["a", "b"])

    def test_blocked(self) -> None:
        """Each new block comes once, the earliest first, to those who may see it."""
        reader, stream = self.add(Level.READ), self.add()
        for each in (reader, stream):
            each.take()
        old = AN_OVERVIEW["blocks"][0]
        new, newer = {**old, "id": "b8"}, {**old, "id": "b9"}
        self.overview.value["blocks"] = [newer, new, old]
        self.second()
        taken = stream.take()
        self.assertEqual([name for name, _ in taken], ["stats", "tables", "blocked", "blocked"])
        self.assertEqual([value for name, value in taken if name == "blocked"], [new, newer])
        self.assertNotIn("blocked", [name for name, _ in reader.take()])
        # When a block ends, an earlier one may come into the list again.
        self.overview.value["blocks"] = [newer, old, {**old, "id": "b1"}]
        self.second()
        self.assertEqual([name for name, _ in stream.take()], ["stats", "tables"])

    def test_ids(self) -> None:
        """The ids grow."""
        stream = self.add()
        for _ in range(5):
            self.second()
        ids = [int(line[4:]) for line in stream.data.split(b"\n") if line.startswith(b"id: ")]
        self.assertEqual(ids, sorted(set(ids)))

    def test_comment(self) -> None:
        """A comment comes every 15 seconds."""
        stream = self.add()
        for _ in range(int(2 * COMMENT_EVERY / PERIOD) + 1):
            self.second()
        self.assertEqual(stream.data.count(b"\n: the stream goes on\n\n"), 2)

    def test_once(self) -> None:
        """All viewers are served by one overview a second; without viewers none is found out."""
        streams = [self.add() for _ in range(10)]
        before = self.overview.asked
        self.second()
        self.assertEqual(self.overview.asked, before + 1)
        self.assertEqual(len({each.data[-500:] for each in streams}), 1)
        for each in streams:
            self.streams.left(each)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(10)
        self.assertEqual(self.overview.asked, before + 1)

    def test_slow(self) -> None:
        """A viewer that does not read gets nothing, and then everything anew; others are not held up."""
        slow, other = self.add(), self.add()
        slow.take()
        slow.producer.pauseProducing()
        for _ in range(4):
            self.second()
        self.assertEqual(slow.data, b"")
        self.assertEqual(len([name for name, _ in other.take() if name == "stats"]), 4)
        slow.producer.resumeProducing()
        self.assertEqual(slow.data, b"")
        self.second()
        self.assertEqual(slow.take(), [("overview", AN_OVERVIEW)])
        self.second()
        self.assertEqual([name for name, _ in slow.take()], ["stats"])

    def test_tooSlow(self) -> None:
        """It is dropped when it has not read for long."""
        slow, other = self.add(), self.add()
        slow.producer.pauseProducing()
        for _ in range(int(PATIENCE / PERIOD) + 1):
            self.assertEqual(slow.state, "")
            slow.producer.pauseProducing()
            self.second()
        self.assertEqual((slow.state, other.state), ("dropped", ""))
        size = len(slow.data)
        self.second()
        self.assertEqual(len(slow.data), size)

    def test_late(self) -> None:
        """While the processes do not answer, they are not asked again."""
        stream = self.add()
        self.overview.waiting = Deferred()
        for _ in range(3):
            self.second()
        asked = self.overview.asked
        self.second()
        self.assertEqual(self.overview.asked, asked)
        waiting, self.overview.waiting = self.overview.waiting, None
        stream.take()
        waiting.callback(AN_OVERVIEW)
        self.assertEqual([name for name, _ in stream.take()], ["stats"])

    def test_failure(self) -> None:
        """An error is logged once a minute, and the next second goes on."""
        stream = self.add()
        stream.take()
        self.overview.waiting = Deferred()
        self.overview.waiting.errback(ValueError("broken"))
        self.second()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        # It may go on for hours.
        for _ in range(10):
            self.overview.waiting = Deferred()
            self.overview.waiting.errback(ValueError("broken"))
            self.second()
        self.assertEqual(self.flushLoggedErrors(ValueError), [])
        self.overview.waiting = None
        self.second()
        self.assertEqual([name for name, _ in stream.take()], ["stats"])

    def test_access(self) -> None:
        """A viewer whose token is gone is ended within seconds; one with another level sees what it may see."""
        stream = self.add()
        other = self.add(Level.READ)
        for level in (Level.READ, Level.OPERATE):
            stream.take()
            self.level = level
            for _ in range(int(CHECK_EVERY / PERIOD) + 1):
                self.second()
            (shown,) = [value for name, value in stream.take() if name in ("tables", "overview")]
            self.assertEqual(shown["level"], level.word)
            # What it must not see any more, or may see now, is there, too.
            self.assertEqual([shown[name] is None for name in ("stuck", "failures")], 2 * [level is Level.READ])
        self.assertEqual(other.state, "")
        self.level = Level.NONE
        for _ in range(int(CHECK_EVERY / PERIOD) + 1):
            self.second()
        self.assertEqual(stream.state, "ended")

    def test_most(self) -> None:
        """There are so many viewers at most."""
        viewers = [self.add() for _ in range(MOST_VIEWERS)]
        self.assertFalse(self.streams.hasPlace(Level.OPERATE))
        self.assertEqual(self.add().state, "ended")
        self.assertEqual({each.state for each in viewers}, {""})

    def test_mostReaders(self) -> None:
        """Viewers of a low level do not keep out those of a higher one: the latest of the lowest level is ended."""
        viewers = [self.add(Level.OPERATE), *(self.add(Level.READ) for _ in range(MOST_VIEWERS - 1))]
        self.assertFalse(self.streams.hasPlace(Level.READ))
        for number in range(MOST_VIEWERS - 1):
            self.assertEqual([name for name, _ in self.add(Level.ADMIN).take()], ["overview"])
            self.assertEqual([each.state for each in viewers].count("ended"), number + 1)
            self.assertEqual(viewers[-number - 1].state, "ended")
        self.assertEqual(self.add(Level.READ).state, "ended")
        self.assertEqual(self.add(Level.OPERATE).state, "ended")
        self.assertEqual((viewers[0].state, self.add(Level.ADMIN).state, viewers[0].state), ("", "", "ended"))
        self.assertEqual(self.add(Level.ADMIN).state, "ended")

    def test_reconnecting(self) -> None:
        """Viewers that come again and again within one second cost the others nothing."""
        stream = self.add()
        stream.take()
        self.keeper.stories.add([STORY])
        overview = dict(self.overview.value)
        self.overview.refused = self.keeper.stories.refused
        self.patch(self.overview, "collect", lambda: succeed(overview))
        texts = self.streams._page
        made: list[Level] = []

        def counted(level: Level, *others: Any) -> Any:
            made.append(level)
            return texts(level, *others)

        self.patch(self.streams, "_page", counted)
        for _ in range(5):
            for level in (Level.OPERATE, Level.READ):
                again = self.add(level)
                self.assertEqual([name for name, _ in again.take()], ["overview"])
                self.streams.left(again)
        self.assertEqual([name for name, _ in stream.take()], ["stats", "login_failed"])
        self.assertEqual(made, [Level.OPERATE, Level.READ])

    def test_nextPage(self) -> None:
        """A viewer of another level than those before gets everything, and no old news."""
        self.add(Level.READ)
        self.keeper.stories.add([STORY])
        self.second()
        operator = self.add(Level.OPERATE)
        self.assertEqual([name for name, _ in operator.take()], ["overview"])


class AnswerTests(AdminCase):
    """The stream as an answer of the admin server."""

    def opened(self, token: str | None = None) -> Any:
        fields = [f"Authorization: Bearer {token}"] if token else []
        connection = self.connect(isLocal=token is None)
        connection.send("\r\n".join(["GET /api/1/events HTTP/1.1", "Host: localhost", *fields, "", ""]).encode("ascii"))
        self.clock.advance(0)
        return connection

    def test_answer(self) -> None:
        """It has the header fields of all answers, and no length."""
        connection = self.opened()
        head, _, body = connection.transport.value().partition(b"\r\n\r\n")
        for field in (
            b"HTTP/1.1 200 OK",
            b"Content-Type: text/event-stream",
            b"Cache-Control: no-store",
            b"X-Content-Type-Options: nosniff",
        ):
            self.assertIn(field, head)
        self.assertNotIn(b"Content-Length", head)
        ((name, shown),) = eventsIn(unchunked(body))
        self.assertEqual((name, shown["gateway"], shown["level"]), ("overview", "g1", "admin"))
        connection.transport.clear()
        self.clock.advance(PERIOD)
        (first, *_) = eventsIn(unchunked(connection.transport.value()))
        self.assertEqual(first[0], "stats")

    def test_head(self) -> None:
        """HEAD has the header alone, and no viewer."""
        answered = self.connect().ask("HEAD", "/api/1/events")
        self.assertEqual((answered.status, answered.fields["content-type"]), (200, "text/event-stream"))
        self.assertEqual(self.clock.getDelayedCalls()[1:], [])

    def test_notCounted(self) -> None:
        """Streams take no places of other connections."""
        streams = [self.opened() for _ in range(20)]
        self.assertEqual(self.ask("GET", "/healthz").status, 200)
        self.assertFalse(any(each.isClosed for each in streams))

    def test_full(self) -> None:
        """One too many is answered with 503."""
        for _ in range(MOST_VIEWERS):
            self.opened()
        answered = self.ask("GET", "/api/1/events")
        self.assertEqual((answered.status, answered.fields["retry-after"]), (503, "10"))

    def test_paused(self) -> None:
        """While the transport is paused nothing is written to it. Then the connection is closed."""
        connection = self.opened()
        connection.transport.clear()
        connection.transport.producer.pauseProducing()
        for _ in range(4):
            self.clock.advance(PERIOD)
        self.assertEqual(connection.transport.value(), b"")
        self.assertFalse(connection.isClosed)
        for _ in range(4):
            self.clock.advance(PERIOD)
        self.assertEqual(connection.transport.value(), b"")
        self.assertTrue(connection.transport.aborted)

    def test_finished(self) -> None:
        """When the server finishes, streams end with their last chunk, and slow ones at once."""
        connection, slow = self.opened(), self.opened()
        slow.transport.producer.pauseProducing()
        finished = self.factory.finish()
        self.assertTrue(connection.transport.value().endswith(b"\r\n0\r\n\r\n"))
        self.assertTrue(connection.isClosed)
        self.assertTrue(slow.transport.aborted)
        self.assertNoResult(finished)
        connection.lose()
        slow.lose()
        self.successResultOf(finished)

    def test_left(self) -> None:
        """A viewer that leaves costs nothing more."""
        connection = self.opened()
        connection.lose()
        self.assertEqual([each for each in self.clock.getDelayedCalls() if "_tick" in repr(each)], [])
