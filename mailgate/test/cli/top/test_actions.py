"""Tests for L{mailgate.cli.top.actions}."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli.top.actions import Action, drain, kickSession, kickUser, resume, unblock
from mailgate.cli.top.text import UNICODE
from mailgate.test.cli.top.pages import BACKEND, BLOCK, HOSTILE, SESSION
from mailgate.test.cli.top.test_values import ANY

OTHER = {**BACKEND, "address": "10.0.0.2:143"}


def made(action: Action | None) -> Action:
    assert action is not None
    return action


class KickTests(SynchronousTestCase):
    """Ends of sessions."""

    def test_session(self) -> None:
        """One session is counted, and then ended by its id."""
        action = made(kickSession(SESSION, UNICODE))
        body = {"id": "g1.5g0qa.7k"}
        self.assertEqual((action.trial.path, action.trial.body), ("/api/1/kick", {**body, "dry_run": True}))
        self.assertEqual((action.order.path, action.order.body), ("/api/1/kick", {**body, "reason": "mailgate top"}))
        self.assertEqual(action.level, "operate")
        self.assertEqual(
            action.judge({"ended": 1}),
            (
                True,
                "End 1 session of joe@example.org (imap from 192.0.2.7:56416 at 10.0.0.1:143)? Cached answers of the"
                " authentication service for the user are forgotten. The client can log in again.",
            ),
        )
        self.assertEqual(action.report({"ended": 1, "forgotten": 2}), "1 session ended; 2 cached answers forgotten")

    def test_ended(self) -> None:
        """A session that has ended by itself is not ended again."""
        action = made(kickSession(SESSION, UNICODE))
        self.assertEqual(action.judge({"ended": 0}), (False, "kick g1.5g0qa.7k: no such session is there any more"))

    def test_beforeLogin(self) -> None:
        """A session without a user or backend says so."""
        _, words = made(kickSession({**SESSION, "user": "", "backend": None}, UNICODE)).judge({"ended": 1})
        self.assertIn("End 1 session without a login (imap from 192.0.2.7:56416 at no backend)?", words)

    def test_user(self) -> None:
        """All sessions of exactly this user: wildcards in the name are no wildcards."""
        action = made(kickUser({**SESSION, "user": "j*e[1]?"}, UNICODE))
        self.assertEqual((action.order.body or {})["user"], "j[*]e[[]1][?]")
        isGood, words = action.judge({"ended": 3, "unanswered": [{"name": "g1"}]})
        self.assertTrue(isGood)
        self.assertTrue(words.startswith("End 3 sessions of j*e[1]?, all that this user has; not all processes"), words)

    def test_nothing(self) -> None:
        """A row without a session or user has no order."""
        for make in (kickSession, kickUser, drain, resume, unblock):
            for value in (*(each for each in ANY if not isinstance(each, str)), ""):
                self.assertIsNone(make(dict.fromkeys(("id", "user", "address"), value), UNICODE))
            self.assertIsNone(make({}, UNICODE))

    def test_hostile(self) -> None:
        """Questions and reports are printable, whatever the names are."""
        for name in HOSTILE:
            row = {
                **SESSION,
                **BACKEND,
                "thing": name,
                "rule": name,
                "user": name,
                "id": name,
                "address": name,
                "state": name,
                "group": name,
            }
            for make in (kickSession, kickUser, drain, resume, unblock):
                action = made(make(row, UNICODE))
                words = [action.name, action.judge({"ended": 1, "backends": [row], "blocks": [row]})[1]]
                words.append(action.report({"backends": [row]}))
                for text in words:
                    self.assertTrue(text.isprintable(), text)
                    self.assertLess(len(text), 1000)

    def test_otherForms(self) -> None:
        """Answers of another form make no error."""
        for value in ANY:
            for make in (kickSession, kickUser, drain, resume, unblock):
                action = made(make({**SESSION, **BACKEND, **BLOCK}, UNICODE))
                members = ("blocks", "ended", "forgotten", "backends", "unanswered")
                for answer in (value, dict.fromkeys(members, value)):
                    action.judge(answer)
                    action.report(answer)


class BlockTests(SynchronousTestCase):
    """The end of a block."""

    def test_unblock(self) -> None:
        """It is looked for, and then ended by its id."""
        action = made(unblock(BLOCK, UNICODE))
        self.assertEqual((action.trial.path, action.trial.query), ("/api/1/blocks", {"thing": "198.51.100.0/24"}))
        order = action.order
        self.assertEqual((order.path, order.body, order.isEnd), ("/api/1/blocks/b7", None, True))
        self.assertEqual(action.level, "operate")
        self.assertEqual(
            action.judge({"blocks": [{**BLOCK, "id": "b6"}, BLOCK]}),
            (
                True,
                "Unblock 198.51.100.0/24 (rule block)? The failed logins are forgotten, so that no rule acts at once.",
            ),
        )
        self.assertEqual(action.report({"ended": [BLOCK]}), "unblock 198.51.100.0/24: 1 block ended")

    def test_over(self) -> None:
        """A block that has ended by itself is not ended again, and another one of the same thing neither."""
        action = made(unblock(BLOCK, UNICODE))
        for found in ([], [{**BLOCK, "id": "b6"}]):
            self.assertEqual(action.judge({"blocks": found}), (False, "unblock 198.51.100.0/24: this block has ended"))


class BackendTests(SynchronousTestCase):
    """Orders about backends."""

    def judged(self, action: Action, *rows: Any) -> tuple[bool, str]:
        return action.judge({"backends": list(rows)})

    def test_drain(self) -> None:
        """The question says what stays, and whether others take the new logins."""
        action = made(drain(BACKEND, UNICODE))
        self.assertEqual((action.trial.path, action.trial.body), ("/api/1/backends", None))
        self.assertEqual((action.order.path, action.order.body), ("/api/1/backends/10.0.0.1%3A143/drain", {}))
        self.assertEqual(action.level, "admin")
        self.assertEqual(
            self.judged(action, BACKEND, OTHER),
            (
                True,
                "Drain 10.0.0.1:143 (now up)? 812 sessions there stay until the clients leave. New logins go to the"
                " other servers of its group.",
            ),
        )
        for others in ((), ({**OTHER, "state": "down"},), ({**OTHER, "group": "another"},)):
            _, words = self.judged(action, BACKEND, *others)
            self.assertTrue(words.endswith("no other server of its group is up, so new logins fail."), words)
        isGood, words = self.judged(action, OTHER)
        self.assertEqual(
            (isGood, words),
            (False, "drain 10.0.0.1:143: no group has a server with this address; other backends take no orders"),
        )

    def test_groups(self) -> None:
        """An address in two groups is two servers; each group needs another one."""
        twice = ({**BACKEND, "sessions": 1}, {**BACKEND, "group": "second", "sessions": 0}, OTHER)
        _, words = self.judged(made(drain(BACKEND, UNICODE)), *twice)
        self.assertIn("(now up, 2 servers)? 1 session there stays until", words)
        self.assertIn("no other server", words)

    def test_oddGroup(self) -> None:
        """A group that is no text is one without a name."""
        found = [{**BACKEND, "group": ["a"]}, {**OTHER, "group": {"a": []}}]
        isGood, words = made(drain(BACKEND, UNICODE)).judge({"backends": found})
        self.assertTrue(isGood)
        self.assertIn("New logins go to the other servers of its group.", words)

    def test_noGroup(self) -> None:
        """A backend outside of groups takes no orders, and its sessions are not those of a server at its address."""
        alone = {**BACKEND, "group": "-", "sessions": 9}
        isGood, words = self.judged(made(drain(alone, UNICODE)), alone)
        self.assertFalse(isGood)
        self.assertIn("other backends take no orders", words)
        _, words = self.judged(made(drain(BACKEND, UNICODE)), alone, {**BACKEND, "sessions": 2}, OTHER)
        self.assertIn("2 sessions there stay", words)

    def test_resume(self) -> None:
        """The question says the state, and the report the new one."""
        action = made(resume({**BACKEND, "address": "unix:/run/a b"}, UNICODE))
        self.assertEqual(action.order.path, "/api/1/backends/unix%3A%2Frun%2Fa%20b/resume")
        row = {**BACKEND, "address": "unix:/run/a b", "state": "drain", "sessions": 7}
        self.assertEqual(
            self.judged(action, row),
            (True, "Resume unix:/run/a b (now drain)? It gets new sessions again; 7 sessions there now."),
        )
        self.assertEqual(action.report({"backends": [row]}), "resume unix:/run/a b: state drain, 7 sessions")
