"""Tests for L{mailgate.keeper.cluster.others}, and for the answers about all gateways that stand on it."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.cluster import kept
from mailgate.keeper.cluster.others import MOST_QUESTIONS, SKEW
from mailgate.keeper.cluster.wire import ASK
from mailgate.keeper.explain import explain
from mailgate.keeper.kick import kick
from mailgate.keeper.sessions import countSessions, findSession, listSessions
from mailgate.keeper.users import showUser
from mailgate.session import Outcome
from mailgate.store.seal import Seal
from mailgate.test.support.neighbours import KEY, Neighbourhood


class NeighbourhoodCase(SynchronousTestCase):
    """Three gateways that share a store."""

    def setUp(self) -> None:
        self.site = Neighbourhood("g1", "g2", "g3")
        self.one, self.two, self.three = self.site.gateways.values()
        self.keeper: Any = self.one

    def result(self, answer: Deferred[Any], after: float = 0.0) -> Any:
        """The answer, after messages have arrived and, with C{after}, some time has passed."""
        self.site.turn(after)
        return self.successResultOf(answer)

    def cut(self, gateway: Any) -> None:
        """A gateway hears nothing any more, without noticing."""
        gateway.store.heard = lambda channel, message: None

    def mend(self, gateway: Any) -> None:
        """A gateway hears messages again."""
        gateway.store.heard = gateway.others.heard
        gateway.store.resumed()


class ListTests(NeighbourhoodCase):
    """Lists and counts."""

    def listed(self, after: float = 0.0, limit: int = 500, cursor: str | None = None, **filter: Any) -> Any:
        """A page."""
        return self.result(listSessions(self.keeper, filter, limit, cursor), after)

    def test_all(self) -> None:
        """The sessions of all gateways are one list, in their order, each with its gateway."""
        made = [gateway.begun() for gateway in (self.two, self.one, self.three, self.two)]
        page = self.listed()
        self.assertEqual(sorted(row["id"] for row in page["sessions"]), sorted(each.session.id for each in made))
        self.assertEqual({row["gateway"] for row in page["sessions"]}, {"g1", "g2", "g3"})
        keys = [(row["since"], row["id"]) for row in page["sessions"]]
        self.assertEqual(keys, sorted(keys))
        rows = [(each["name"], each["complete"], each["missing"]) for each in page["gateways"]]
        self.assertEqual(sorted(rows), [("g1", True, []), ("g2", True, []), ("g3", True, [])])
        self.assertNotIn("at", page["sessions"][0])
        # Nothing waits any more.
        self.assertEqual(self.one.others._asked, {})

    def test_pages(self) -> None:
        """Pages go over the sessions of all gateways: each session once."""
        made = {gateway.begun().session.id for _ in range(7) for gateway in (self.one, self.two, self.three)}
        seen: list[str] = []
        cursor, pages = None, 0
        while pages == 0 or cursor is not None:
            page = self.listed(limit=4, cursor=cursor)
            seen += [row["id"] for row in page["sessions"]]
            cursor, pages = page["next"], pages + 1
        self.assertEqual((sorted(seen), len(seen), pages), (sorted(made), 21, 6))

    def test_filter(self) -> None:
        """Each gateway gets the filter, and one session is found by its id wherever it is."""
        self.one.begun(user=b"jane")
        there = self.two.begun(user=b"joe")
        self.three.begun(user=b"jane")
        self.assertEqual([row["id"] for row in self.listed(user="JO*")["sessions"]], [there.session.id])
        found = self.result(findSession(self.keeper, there.session.id))
        self.assertEqual((found["id"], found["gateway"]), (there.session.id, "g2"))

    def test_own(self) -> None:
        """The id of an own session says that no other gateway needs to be asked."""
        mine = self.one.begun()
        self.one.store.calls.clear()
        self.assertEqual(len(self.listed(id=mine.session.id)["sessions"]), 1)
        self.assertEqual(self.one.store.calls, [])

    def test_silent(self) -> None:
        """What the registry has of a gateway that does not answer is listed, with its age, after two seconds."""
        self.one.begun()
        there = self.three.begun()
        row = self.result(findSession(self.three, there.session.id))  # type: ignore[arg-type]
        # What changes is not in the store.
        row = {**row, **dict.fromkeys(("tls", "method", "idle", "received", "sent"))}
        self.three.record({**row, "at": int(there.session.started)})
        self.three.record({**row, "id": "g3.ccccc.09", "user": "jane", "at": int(there.session.started)})
        self.cut(self.three)
        listed = listSessions(self.keeper, {"user": "joe"})
        self.site.turn(1.9)
        self.assertNoResult(listed)
        self.site.turn(0.2)
        page = self.successResultOf(listed)
        self.assertEqual({each["gateway"] for each in page["sessions"]}, {"g1", "g3"})
        (silent,) = [each for each in page["gateways"] if not each["complete"]]
        self.assertEqual((silent["name"], silent["age"]), ("g3", 2.1))
        (missing,) = silent["missing"]
        self.assertIn("it has not answered in time", missing)

    def test_gone(self) -> None:
        """A gateway that has not beaten for 45 seconds is not waited for, and not listed."""
        self.cut(self.three)
        for _ in range(5):
            self.site.turn(10)
            self.one.beat()
            self.two.beat()
        page = self.listed()
        self.assertEqual(sorted(each["name"] for each in page["gateways"]), ["g1", "g2"])

    def test_down(self) -> None:
        """With the store down, the answer comes at once, and names the others."""
        self.one.begun()
        self.listed()
        self.one.store.switch(False)
        page = self.listed()
        self.assertEqual(len(page["sessions"]), 1)
        missing = {each["name"]: each["missing"] for each in page["gateways"]}
        self.assertEqual(missing["g1"], [])
        self.assertEqual(missing["g2"][0], "the store cannot be used: the store is down")

    def test_counts(self) -> None:
        """Counts are those of all gateways."""
        for gateway, user in ((self.one, b"joe"), (self.two, b"joe"), (self.three, b"ann")):
            gateway.begun(user=user)
        counted = self.result(countSessions(self.keeper, {}, "user"))
        self.assertEqual(counted["counts"], [{"user": "joe", "sessions": 2}, {"user": "ann", "sessions": 1}])
        self.assertEqual((counted["sessions"], len(counted["gateways"])), (3, 3))

    def test_parts(self) -> None:
        """A long answer comes in several messages, none of them longer than 64 KiB."""
        for _ in range(300):
            self.two.begun(user=b"joe" + 400 * b"x")
        sizes: list[int] = []
        publish = self.two.store.publish

        def published(channel: str, message: bytes) -> Any:
            sizes.append(len(message))
            return publish(channel, message)

        self.two.store.publish = published  # type: ignore[method-assign]
        self.assertEqual(len(self.listed(limit=1000)["sessions"]), 300)
        self.assertGreater(len(sizes), 2)
        self.assertLessEqual(max(sizes), 64 * 1024 + 28)

    def test_left(self) -> None:
        """Nothing is waited for when the caller has left."""
        self.cut(self.two)
        listed = listSessions(self.keeper, {})
        listed.cancel()
        self.failureResultOf(listed, CancelledError)
        self.assertEqual(self.one.others._asked, {})

    def test_user(self) -> None:
        """What is known about a user, and the last of an explanation, are of all gateways."""
        self.two.begun(user=b"joe")
        story = {"kind": "login", "user": "joe", "protocol": "imap"}
        self.one.stories = [{**story, "at": "2026-11-28T10:00:00.000Z", "id": "g1.aaaaa.1"}]
        self.two.stories = [{**story, "at": "2026-11-28T10:01:00.000Z", "id": "g2.bbbbb.1"}]
        shown = self.result(showUser(self.keeper, "joe"))
        self.assertEqual([each["id"] for each in shown["recent"]], ["g2.bbbbb.1", "g1.aaaaa.1"])
        self.assertEqual([each["gateway"] for each in shown["sessions"]], ["g2"])


class KickTests(NeighbourhoodCase):
    """Kicks."""

    def kick(self, given: dict[str, Any], after: float = 0.0, **more: Any) -> Any:
        """The answer."""
        return self.result(kick(self.keeper, given, "password changed", "uid 1000", **more), after)

    def test_all(self) -> None:
        """The sessions end at all gateways; the answer has their numbers, the log of the others who has ordered it."""
        made = [gateway.begun() for gateway in (self.one, self.two, self.two)]
        other = self.three.begun(user=b"jane")
        answer = self.kick({"user": "joe"})
        self.assertEqual((answer["ended"], answer["unanswered"]), (3, []))
        self.assertEqual(answer["gateways"][0], {"name": "g1", "ended": 1})
        self.assertIn({"name": "g2", "ended": 2}, answer["gateways"])
        self.assertIn({"name": "g3", "ended": 0}, answer["gateways"])
        self.assertEqual({each.session.outcome for each in made}, {Outcome.KICKED})
        self.assertIsNone(other.session.outcome)
        self.assertEqual(made[0].session.reason, '"password changed", by uid 1000')
        self.assertEqual(made[1].session.reason, '"password changed", by uid 1000 at g1')

    def test_dry(self) -> None:
        """A trial ends nothing anywhere, and is not kept."""
        there = self.two.begun()
        self.assertEqual(self.kick({"user": "joe"}, dryRun=True)["ended"], 1)
        self.assertIsNone(there.session.outcome)
        self.assertEqual(self.successResultOf(self.one.store.notes("kicks")), {})

    def test_silent(self) -> None:
        """A gateway that does not answer is named. When it hears messages again it ends what was there before."""
        there = self.two.begun()
        self.cut(self.two)
        answer = self.kick({"user": "joe"}, 2.1)
        (unanswered,) = answer["unanswered"]
        self.assertTrue(unanswered.startswith("gateway g2: it has not answered in time"), unanswered)
        self.assertNotIn("g2", [each["name"] for each in answer["gateways"]])
        self.assertIsNone(there.session.outcome)
        self.site.turn(100)
        self.two.clock.advance(100)
        later = self.two.begun(started=self.two.clock.seconds() - 5)
        self.mend(self.two)
        self.site.turn()
        self.assertEqual((there.session.outcome, later.session.outcome), (Outcome.KICKED, None))
        # Once is enough.
        self.two.asked.clear()
        self.mend(self.two)
        self.site.turn()
        self.assertEqual(self.two.asked, [])

    def test_keptOn(self) -> None:
        """A kick that a stranger keeps in the store ends nothing that has begun long after it."""
        self.kick({"user": "joe"})
        ((id, (sealed, _)),) = self.successResultOf(self.one.store.notes("kicks")).items()
        self.two.others._kept._done.clear()
        for seconds in (1000.0, 9000.0):
            self.site.turn(seconds)
            self.two.clock.advance(seconds)
            young = self.two.begun(started=self.two.clock.seconds() - 300)
            self.one.store.put("kicks", id, sealed, 3600.0)
            self.mend(self.two)
            self.site.turn()
            self.assertIsNone(young.session.outcome)
            self.two.others._kept._done.clear()

    def test_junk(self) -> None:
        """What strangers put there is logged in one line, and does not displace what was carried out."""
        self.kick({"user": "joe"})
        self.patch(kept, "_MOST_DONE", 5)
        for each in range(20):
            self.one.store.put("kicks", f"x{each}", b"junk", 600.0)
        self.two.asked.clear()
        with capturedLogs() as logs:
            self.mend(self.two)
            self.site.turn()
        self.assertEqual(self.two.asked, [])
        self.assertEqual(len(logs), 1)

    def test_heardOnce(self) -> None:
        """An order that was heard is not carried out again when messages are heard again."""
        self.kick({"user": "joe"})
        self.two.asked.clear()
        self.mend(self.two)
        self.site.turn()
        self.assertEqual(self.two.asked, [])


class MessageTests(NeighbourhoodCase):
    """What is heard."""

    def recorded(self) -> list[tuple[str, bytes]]:
        """What the second gateway hears from now on."""
        found: list[tuple[str, bytes]] = []
        hear = self.two.others.heard

        def heard(channel: str, message: bytes) -> None:
            found.append((channel, message))
            hear(channel, message)

        self.two.store.heard = heard
        return found

    def test_again(self) -> None:
        """Someone who sends a message again, at once or much later, has no effect."""
        heard = self.recorded()
        self.result(kick(self.keeper, {"user": "joe"}))
        (message,) = [message for channel, message in heard if channel == ASK]
        late = self.two.begun()
        for seconds in (0, 200, 2 * SKEW, 3 * SKEW):
            self.site.turn(seconds)
            with capturedLogs():
                self.two.store.publish(ASK, message)
                self.site.turn()
            self.assertIsNone(late.session.outcome)

    def test_forged(self) -> None:
        """A message without the secret, and one for another channel, are ignored and logged once."""
        heard = self.recorded()
        self.result(listSessions(self.keeper, {}))
        good = next(message for channel, message in heard if channel == ASK)
        self.two.asked.clear()
        with capturedLogs() as logs:
            for _ in range(3):
                self.two.others.heard(ASK, Seal(b"x" * 32).close(b"{}", ASK.encode()))
                self.two.others.heard("to:g2", good)
                self.two.others.heard(ASK, b"")
        self.assertEqual(len(logs), 1)
        self.assertEqual(self.two.asked, [])

    def test_orders(self) -> None:
        """What is in no table is not carried out; what is not valid is refused; the answer says so."""
        for word, arguments, expected in (
            ("reload", {}, "gateway g2 does not know the question reload"),
            ("kick", {}, "filter must be an object"),
            ("kick", {"filter": {"user": "joe"}, "over": "x", "dry_run": False}, "over or dry_run is not valid"),
            ("kick", {"filter": {"usr": "joe"}}, "usr is no known parameter; did you mean user?"),
            ("sessions", {"filter": {}, "limit": 10**9, "after": None}, "limit must be from 1 to 10001"),
            ("stories", {"user": 5}, "user must be a text"),
        ):
            there = self.two.begun()
            heard = self.result(self.one.others.ask(word, arguments))
            self.assertEqual(heard.answers["g2"].missing, [expected])
            self.assertIsNone(there.session.outcome)

    def test_bounds(self) -> None:
        """So many questions wait at the same time; the next one is answered at once."""
        self.cut(self.two)
        asked = [self.one.others.ask("stories", {"user": "joe"}) for _ in range(MOST_QUESTIONS)]
        heard = self.successResultOf(self.one.others.ask("stories", {"user": "joe"}))
        self.assertEqual(heard.reason, "too many questions wait for answers of other gateways")
        self.site.turn(2.1)
        self.assertEqual([sorted(self.successResultOf(each).silent) for each in asked], [["g2"]] * MOST_QUESTIONS)

    def test_lostPart(self) -> None:
        """An answer of which a part is lost is no answer."""
        for _ in range(300):
            self.two.begun(user=b"joe" + 400 * b"x")
        hear, parts = self.one.others.heard, []

        def heard(channel: str, message: bytes) -> None:
            if channel == "to:g1":
                parts.append(json.loads(Seal(KEY).open(message, b"to:g1")))
                if parts[-1]["from"] == "g2" and parts[-1]["part"] == 1:
                    return
            hear(channel, message)

        self.one.store.heard = heard
        page = self.result(listSessions(self.keeper, {}, 1000), 2.1)
        self.assertGreater(len(parts), 3)
        self.assertEqual(page["sessions"], [])
        self.assertEqual([each["name"] for each in page["gateways"] if not each["complete"]], ["g2"])

    def test_stopped(self) -> None:
        """A keeper that stops asks and answers nothing more, and what it has asked is answered."""
        asked = self.one.others.ask("stories", {"user": "joe"})
        self.one.others.stop()
        self.assertEqual(self.successResultOf(asked).reason, "the keeper stops")
        self.assertEqual(self.successResultOf(self.one.others.ask("stories", {})).reason, "the keeper stops")
        self.two.others.stop()
        self.two.asked.clear()
        self.result(listSessions(self.three, {}), 2.1)  # type: ignore[arg-type]
        self.assertEqual(self.two.asked, [])


class ExplainTests(NeighbourhoodCase):
    """L{explain}."""

    def test_recent(self) -> None:
        """The last logins at all gateways are explained; a silent gateway is named."""
        story = {"kind": "login", "user": "joe", "protocol": "imap"}
        self.two.stories = [{**story, "at": "2026-11-28T10:01:00.000Z", "id": "g2.bbbbb.1"}]
        self.one.late.add("aaaaa")
        self.cut(self.three)
        found = self.result(explain(self.keeper, "joe", None, None), 2.1)
        self.assertEqual([each["id"] for each in found["recent"]], ["g2.bbbbb.1"])
        self.assertIn("gateway g3: it has not answered in time", found["missing"][-1])
