"""Tests for L{mailgate.cli.top.keys}, L{mailgate.cli.top.view} and L{mailgate.cli.top.texts}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli.adminclient import NoAnswer
from mailgate.cli.top.keys import sessionsQuery
from mailgate.cli.top.tables import TABLES
from mailgate.system.exitstatus import NOT_RUNNING, REFUSED
from mailgate.test.cli.top.pages import BACKEND, SESSION, STORY, Page, overview
from mailgate.test.cli.top.test_values import ANY

ABSENT = NoAnswer("no gateway is running", NOT_RUNNING)


class AskingTests(SynchronousTestCase):
    """What is asked, and when."""

    def setUp(self) -> None:
        self.page = Page()

    def test_everySecond(self) -> None:
        """An overview each second, and never two at a time; the history once."""
        page = self.page
        page.top.tick()
        self.assertEqual(page.purposes(), ["history", "overview"])
        page.answer("history", {})
        page.advance(5)
        self.assertEqual(page.purposes(), ["overview"])
        page.answer("overview", overview())
        page.advance(0)
        self.assertEqual(page.purposes(), ["overview"])
        page.answer("overview", overview())
        page.advance(0.9)
        self.assertEqual(page.purposes(), [])
        page.advance(0.1)
        self.assertEqual(page.purposes(), ["overview"])

    def test_begin(self) -> None:
        """The page begins with an overview, and asks for the next one a second later."""
        page = self.page
        page.top.begin(overview())
        self.assertIn("10.0.0.1:143", page.text())
        page.advance(0.9)
        self.assertEqual(page.purposes(), ["history"])
        page.advance(0.1)
        self.assertEqual(page.purposes(), ["history", "overview"])

    def test_sessions(self) -> None:
        """Sessions are asked for while they are shown only, and only with the level."""
        page = self.page.shows()
        page.advance(60)
        self.assertNotIn("sessions", page.purposes())
        page.press("s")
        page.advance(0)
        question = page.answer("sessions", {"sessions": [SESSION], "next": "x"})
        self.assertEqual((question.path, question.query), ("/api/1/sessions", {"limit": 1000}))
        self.assertIn("joe@example.org", page.text())
        self.assertIn("the first 1 session", page.text())
        page.advance(1.9)
        self.assertNotIn("sessions", page.purposes())
        page.advance(0.1)
        page.take("sessions")
        page.press("b")
        page.advance(60)
        self.assertNotIn("sessions", page.purposes())

    def test_level(self) -> None:
        """With the level read there is no question that would be refused."""
        page = self.page.shows(level="read", stuck=None, failures=None, blocks=None)
        for key in "sflx":
            page.press(key)
            page.advance(5)
            self.assertIn("this table needs the level operate; this is the level read", page.text())
            page.press("k", "K", "e", "u")
        page.press("b", "d")
        self.assertIn("drain 10.0.0.1:143 needs the level admin", page.text())
        self.assertEqual({*page.purposes()} - {"overview", "history"}, set())

    def test_refusedSessions(self) -> None:
        """A refused list says why."""
        page = self.page.shows()
        page.press("s")
        page.advance(0)
        page.answer("sessions", NoAnswer("refused: bad query", REFUSED))
        self.assertIn("refused: bad query", page.text())
        self.assertIn("no list of the sessions yet", page.text())
        page.advance(2)
        page.answer("sessions", {"sessions": []})
        self.assertIn("no sessions", page.text())

    def test_query(self) -> None:
        """Words are parts of user names; filters have their names."""
        for words, expected in (
            ("", {}),
            ("joe", {"user": "*joe*"}),
            ("j?e*", {"user": "j?e*"}),
            ("protocol=imap older=1h", {"protocol": "imap", "older": "1h"}),
            ("a=b", {"user": "*a=b*"}),
            ("user=", {"user": "*user=*"}),
        ):
            self.assertEqual(sessionsQuery(words), {"limit": 1000, **expected})


class SilenceTests(SynchronousTestCase):
    """A gateway that does not answer."""

    def setUp(self) -> None:
        self.page = Page().shows()

    def test_absent(self) -> None:
        """The page keeps what it knows, says since when, asks again, and goes on."""
        page = self.page
        page.advance(1)
        page.answer("overview", ABSENT)
        page.advance(1)
        text = page.text()
        self.assertRegex(text, r"✗ no answer since \d\d:\d\d:\d\d \(2s\): no gateway is running")
        self.assertIn("10.0.0.1:143", text)
        page.answer("overview", overview(version="0.2.0"))
        page.advance(0.5)
        self.assertNotIn("no answer", page.text())
        self.assertIn("mailgate 0.2.0", page.text())
        self.assertEqual(page.view.past.of("logins.accepted")[-2:], (None, 2.5))

    def test_hanging(self) -> None:
        """A gateway that accepts the question and says nothing is silent, too."""
        page = self.page
        page.advance(2.9)
        self.assertNotIn("no answer", page.text())
        page.advance(0.2)
        self.assertIn("no answer since", page.text())

    def test_notOurs(self) -> None:
        """Answers of another form are no answers."""
        for value in ANY:
            for answer in (value, {"stats": value}):
                page = Page().shows()
                page.advance(1)
                page.answer("overview", answer)
                if not isinstance(answer, dict) or not isinstance(answer.get("stats"), dict):
                    page.advance(0)
                    self.assertIn("this is not an admin server of mailgate", page.text())

    def test_members(self) -> None:
        """Members of another form make no error on any table."""
        for value in ANY:
            members = {name: value for name in overview() if name != "stats"}
            page = Page().shows(**members)
            page.answer("history", value)
            for table in TABLES:
                page.press(table.key, "down", "enter", "escape", "!", "escape", "k", "K", "d", "e")


class KeysTests(SynchronousTestCase):
    """Tables, moves, filters."""

    def setUp(self) -> None:
        rows = [{**BACKEND, "address": f"10.0.0.{number}:143", "sessions": number} for number in range(1, 41)]
        self.page = Page().shows(backends=rows)

    def selected(self) -> str:
        (line,) = [line for line in self.page.text().splitlines() if line.startswith("> ")]
        return line.split()[3]

    def test_move(self) -> None:
        """The selected row moves and is always seen."""
        page = self.page
        page.draw()
        self.assertEqual(self.selected(), "10.0.0.1:143")
        for keys, expected in (
            (["down"], 2),
            (["up", "up"], 1),
            (["end"], 40),
            (["down"], 40),
            (["home"], 1),
            (["page down"], 1 + page.view.page - 1),
            (["page up"], 1),
        ):
            page.press(*keys)
            self.assertEqual(self.selected(), f"10.0.0.{expected}:143", keys)

    def test_follows(self) -> None:
        """The row stays selected where it moves to; if it has gone, the next one is."""
        page = self.page
        page.press("down", "down")
        rows = page.view.overview["backends"]
        page.advance(1)
        page.answer("overview", overview(backends=[*rows[10:], *rows[:10]]))
        self.assertEqual(self.selected(), "10.0.0.3:143")
        page.advance(1)
        page.answer("overview", overview(backends=rows[3:]))
        self.assertTrue(self.selected())

    def test_sort(self) -> None:
        """Keys choose the column and the order; after the last column comes the order of the gateway."""
        page = self.page
        page.press(*[">"] * 5)
        self.assertIn("SESSIONS▼", page.text())
        self.assertEqual(page.view.rows()[0]["sessions"], 40)
        page.press("i")
        self.assertIn("SESSIONS▲", page.text())
        page.press(*["<"] * 5)
        self.assertNotIn("▲", page.text())
        page.press("<")
        self.assertIn("REASON▲", page.text())
        page.press("a")
        self.assertNotIn("▲", page.text())

    def test_filter(self) -> None:
        """Typed words choose rows; escape shows all of them again."""
        page = self.page
        page.press("/", *"0.7:", "x", "backspace")
        self.assertTrue(page.text().endswith(" /0.7:"))
        self.assertEqual(page.draw().cursor, (23, 6))
        page.press("enter")
        self.assertEqual(len(page.view.rows()), 1)
        self.assertIn("1 row, filter /0.7:", page.text())
        page.press("/", "q", "escape")
        self.assertEqual(len(page.view.rows()), 1)
        self.assertFalse(page.top.isOver)
        page.press("escape")
        self.assertEqual(len(page.view.rows()), 40)

    def test_typed(self) -> None:
        """What is typed has a bound, and control characters are not part of it."""
        self.page.press("/", *["x"] * 300, "\x01", "up", "王")
        self.assertEqual(self.page.view.typed, "x" * 200)

    def test_sessionsFilter(self) -> None:
        """The gateway chooses the sessions; an answer to the filter before is not shown."""
        page = self.page
        page.press("s")
        page.advance(0)
        page.press("/", *"ann", "enter")
        page.answer("sessions", {"sessions": [SESSION]})
        self.assertNotIn("joe", page.text())
        page.advance(0)
        question = page.answer("sessions", {"sessions": [{**SESSION, "user": "ann"}]})
        self.assertEqual(question.query["user"], "*ann*")
        self.assertIn("ann", page.text())

    def test_sessionsDue(self) -> None:
        """An answer to the filter before is not shown either if the next list has been due since."""
        page = self.page
        page.press("s")
        page.advance(0)
        page.press("/", *"ann", "enter")
        page.advance(2)
        page.answer("sessions", {"sessions": [SESSION]})
        self.assertNotIn("joe", page.text())
        page.advance(0)
        page.answer("sessions", {"sessions": [{**SESSION, "user": "ann"}]})
        self.assertIn("1 session, filter /ann", page.text())
        # The same filter again is the same list.
        page.press("/", "enter")
        self.assertIn("1 session, filter /ann", page.text())

    def test_sessionsUnlisted(self) -> None:
        """Rows that the filter before has chosen do not stand under the next one, for however short a time."""
        page = self.page
        page.press("s")
        self.assertIn("no list of the sessions yet", page.text())
        self.assertNotIn("0 sessions", page.text())
        page.advance(0)
        page.answer("sessions", {"sessions": [SESSION], "next": "x"})
        for keys in (("/", *"ann", "enter"), ("escape",)):
            page.press(*keys)
            self.assertNotIn("joe", page.text())
            self.assertNotIn("first", page.text())
            self.assertIn("no list of the sessions yet", page.text())
            page.advance(2)
            page.answer("sessions", {"sessions": [SESSION]})
            self.assertIn("joe", page.text())

    def test_pause(self) -> None:
        """A page that is paused asks nothing and does not change; space goes on."""
        page = self.page
        page.advance(1)
        page.press(" ")
        page.answer("overview", overview(version="9.9"))
        page.answer("history", {})
        page.advance(60)
        self.assertEqual(page.purposes(), [])
        text = page.text()
        self.assertIn("PAUSED", text)
        self.assertNotIn("9.9", text)
        self.assertNotIn("no answer", text)
        page.press("down", " ")
        page.advance(0)
        self.assertEqual(page.purposes(), ["history", "overview"])
        self.assertNotIn("PAUSED", page.text())

    def test_help(self) -> None:
        """Help can be scrolled, and left by several keys; q leaves it first, and the page then."""
        page = self.page
        for key in ("escape", "enter", "?", "q"):
            page.press("?")
            self.assertIn("end all sessions of the selected user", page.text(40))
            self.assertNotIn("10.0.0.2", page.text())
            page.press(key)
            self.assertIn("10.0.0.2", page.text())
        page.press("?", "end")
        self.assertIn("how late a process is", page.text())
        page.press("down", "down", "up")
        self.assertNotIn("how late a process is", page.text())
        page.press("q")
        self.assertFalse(page.top.isOver)
        page.press("q")
        self.assertTrue(page.top.isOver)

    def test_unknown(self) -> None:
        """Other keys do nothing."""
        before = self.page.text()
        self.page.press("z", "\x01", "", "王", "enter2")
        self.assertEqual(self.page.text(), before)

    def test_details(self) -> None:
        """Everything about a row can be read, with names in full."""
        self.page.press("f", "enter")
        text = self.page.text()
        for words in (
            "at           2026-11-28T10:02:11.204Z",
            "client\n   address      192.0.2.7",
            "text         Invalid",
        ):
            self.assertIn(words, text)

    def test_escapedOnce(self) -> None:
        """Texts that the gateway has made printable are shown as they are, other texts of clients escaped."""
        told = r"say \"no\" \x1b"
        alarm = {"severity": "critical", "text": told}
        page = Page().shows(failures=[{**STORY, "text": told, "user": 'a"b'}], alarms=[alarm], missing=[told])
        self.assertIn(f"critical: {told}", page.text())
        self.assertIn(f"not complete: {told}", page.text())
        page.press("f", "enter")
        self.assertIn(f"text         {told}\n", page.text())
        self.assertIn(r"user         a\"b", page.text())

    def test_alarms(self) -> None:
        """All alarms can be read."""
        rows = [{"severity": "warning", "text": f"alarm {number}"} for number in range(20)]
        page = Page().shows(alarms=rows, missing=["worker 7 did not answer"])
        self.assertIn("18 more: press !", page.text())
        page.press("!")
        self.assertIn("! warning: alarm 19", page.text(40))
        self.assertIn("! not complete: worker 7 did not answer", page.text(40))


class OrdersTests(SynchronousTestCase):
    """Orders are carried out after a confirmation only."""

    def setUp(self) -> None:
        self.page = Page().shows()

    def sessions(self) -> None:
        self.page.press("s")
        self.page.advance(0)
        self.page.answer("sessions", {"sessions": [SESSION, {**SESSION, "id": "g1.5g0qa.7m", "user": "ann"}]})

    def test_kick(self) -> None:
        """Counted, confirmed, ended, and listed anew."""
        page = self.page
        self.sessions()
        page.press("down", "k")
        self.assertIn("kick g1.5g0qa.7m: counting ...", page.text())
        self.assertEqual((page.take("trial").body or {}), {"id": "g1.5g0qa.7m", "dry_run": True})
        question = page.view.action
        assert question is not None
        page.top.answered(question.trial, {"ended": 1})
        self.assertIn("End 1 session of ann", page.text())
        self.assertTrue(page.text().endswith("y: yes   any other key: no"))
        self.assertNotIn("order", page.purposes())
        page.press("y")
        order = page.answer("order", {"ended": 1, "forgotten": 0})
        self.assertEqual(order.body, {"id": "g1.5g0qa.7m", "reason": "mailgate top"})
        self.assertIn("1 session ended; 0 cached answers forgotten", page.text())
        page.advance(0)
        self.assertIn("sessions", page.purposes())

    def test_no(self) -> None:
        """Any other key changes nothing, also those that would do something else."""
        page = self.page
        for key in ("n", "enter", "escape", "q", " ", "k", "down"):
            page.press("d")
            page.answer("trial", {"backends": [BACKEND]})
            page.press(key)
            self.assertIn("nothing was changed", page.text())
            self.assertFalse(page.top.isOver or page.view.isPaused)
        self.assertNotIn("order", page.purposes())

    def test_cancelled(self) -> None:
        """An answer to an order that was cancelled meanwhile asks nothing."""
        page = self.page
        page.press("d", "escape")
        page.answer("trial", {"backends": [BACKEND]})
        self.assertNotIn("Drain", page.text())
        page.press("y")
        self.assertNotIn("order", page.purposes())

    def test_senseless(self) -> None:
        """What is not there any more, or cannot be counted, is not confirmed."""
        page = self.page
        for answer, expected in (
            ({"backends": []}, "no group has a server with this address; other backends"),
            (ABSENT, "no gateway is running"),
        ):
            page.press("d")
            page.answer("trial", answer)
            self.assertIn(expected, page.text())
            page.press("y")
        self.assertNotIn("order", page.purposes())

    def test_refused(self) -> None:
        """A refused order says why."""
        page = self.page
        page.press("r")
        page.answer("trial", {"backends": [BACKEND]})
        page.press("Y")
        page.answer("order", NoAnswer("refused: another order is under way", REFUSED))
        self.assertIn("refused: another order is under way", page.text())

    def test_oneAtATime(self) -> None:
        """Before the answer to an order there is no second one."""
        page = self.page
        for _ in range(2):
            page.press("d")
            page.answer("trial", {"backends": [BACKEND]})
            page.press("y")
        self.assertEqual(page.purposes().count("order"), 1)
        self.assertIn("another order is under way; nothing was changed", page.text())
        page.press("d", "d")
        self.assertEqual(page.purposes().count("trial"), 1)

    def test_wrongTable(self) -> None:
        """An order needs a row that it can be about."""
        for keys, expected in (
            ("bk", "select a session (s) first"),
            ("bK", "select a session of a user (s) first"),
            ("ad", "select a backend (b) first"),
            ("wr", "select a backend (b) first"),
            ("be", "select a failure (f) or a session (s) with a user first"),
            ("sk", "select a session (s) first"),
        ):
            self.page.press(*keys)
            self.assertIn(expected, self.page.text())
        self.assertNotIn("trial", self.page.purposes())

    def test_explain(self) -> None:
        """The failure's user, address and protocol are asked about, and the answer can be read."""
        page = self.page
        page.press("f", "e")
        recent = [{**STORY, "text": r"wrong \"password\"" "\x1b"}]
        question = page.answer("explain", {"would": [], "recent": recent, "missing": ["worker 7"]})
        body = {"user": "ann@example.org", "address": "192.0.2.7", "protocol": "imap"}
        self.assertEqual((question.path, question.body), ("/api/1/explain", body))
        text = page.text()
        for words in ("explain ann@example.org", "login of ann@example.org", "denied in phase auth", "worker 7"):
            self.assertIn(words, text)
        self.assertIn(r'"wrong \"password\"\x1b"', text)

    def test_explainUnix(self) -> None:
        """A client of a unix socket has no address to ask for."""
        page = Page().shows(failures=[{**STORY, "client": {"address": "unix:"}}])
        page.press("f", "e")
        self.assertEqual(page.take("explain").body, {"user": "ann@example.org", "protocol": "imap"})

    def test_explainFails(self) -> None:
        """No answer, or one of another form, is a message."""
        for answer, expected in (
            (ABSENT, "no gateway is running"),
            ({"would": [{}]}, "the gateway is of another release"),
            ({"recent": [7]}, "the gateway is of another release"),
        ):
            self.page.press("f", "e")
            self.page.answer("explain", answer)
            self.assertIn(expected, self.page.text())

    def test_messages(self) -> None:
        """A message ends after some seconds, or with the next key."""
        page = self.page
        page.press("a", "d")
        page.advance(14.9)
        self.assertIn("select a backend", page.text())
        page.advance(0.1)
        self.assertNotIn("select a backend", page.text())
        page.press("d", "down")
        self.assertNotIn("select a backend", page.text())
