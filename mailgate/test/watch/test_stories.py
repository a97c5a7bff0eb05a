"""
Tests for L{mailgate.watch.stories}.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Denial, Method, Refusal, TLSState, Trouble
from mailgate.session import Outcome, Phase, Session
from mailgate.testing.fakes import makeSession
from mailgate.watch.stories import LONGEST, MOST, MOST_ORDINARY, PIECE, Stories, moment


def session(**changes: Any) -> Session:
    """A session of joe."""
    given = {"method": Method.PLAIN, "user": b"joe", "attempts": 1, "id": "5g0qa.7k", **changes}
    return makeSession("imap", "0.0.0.0:993", "[2001:db8::7]:40123", 1000.0, **given)


class StoriesTests(SynchronousTestCase):
    """L{Stories}."""

    def setUp(self) -> None:
        self.stories = Stories(lambda address: "clients" if address == "0.0.0.0:993" else address)

    def test_connection(self) -> None:
        """All fields of an end, in JSON."""
        times = iter((1000.5, 1000.75))
        ended = session(
            tls=TLSState("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
            backend="10.0.0.1:143",
            received=7,
            sent=9,
            readings=[lambda: next(times), Phase.AUTH, 1000.0],
        )
        ended.phase = Phase.AUTH
        ended.enter(Phase.RELAY)
        ended.end()
        ended.conclude(Outcome.EXPIRED, "a reason")
        self.stories.ended([ended], [1010.0], [ended.outcome])
        (story,) = self.stories.take()
        self.assertEqual(json.loads(json.dumps(story)), story)
        self.assertEqual(
            story,
            {
                "kind": "connection",
                "id": "5g0qa.7k",
                "protocol": "imap",
                "server": "clients",
                "client": {"address": "2001:db8::7", "port": 40123},
                "user": "joe",
                "backend": "10.0.0.1:143",
                "method": "plain",
                "tls": {"version": "TLSv1.3", "cipher": "TLS_AES_128_GCM_SHA256", "name": ""},
                "attempts": 1,
                "reached": "relay",
                "outcome": "session expired",
                "reason": "a reason",
                "trouble": None,
                "at": "1970-01-01T00:16:50.000Z",
                "seconds": 10.0,
                "received": 7,
                "sent": 9,
                "times": {"auth": 500.0},
                "text": "",
            },
        )

    def test_logins(self) -> None:
        """What the client hears of a refused login, and why. The record may change afterwards."""
        tried = session(user=b"j\xff\r\n")
        tried.enter(Phase.AUTH)
        self.stories.denied(tried, Denial(Trouble.DENIED, b"Go \xff away", reason="no account"), 1001.0)
        self.stories.denied(tried, Denial(Trouble.PERMANENT, answer=b"NO full"), 1002.0)
        self.stories.denied(tried, Refusal(b"-ERR [AUTH] no\r\n"), 1003.0)
        self.stories.denied(tried, None, 1004.0)
        tried.user, tried.attempts = b"amy", 5
        first, *others = self.stories.take()
        self.assertEqual(
            (first["user"], first["attempts"], first["reached"]), ("j\N{REPLACEMENT CHARACTER}\r\n", 1, "auth")
        )
        self.assertEqual((first["outcome"], first["trouble"], first["reason"]), ("denied", "denied", "no account"))
        self.assertEqual(first["text"], "Go \\xff away")
        self.assertEqual([story["outcome"] for story in others], ["backend_refused", "backend_refused", "abandoned"])
        self.assertEqual([story["text"] for story in others], ["NO full", "-ERR [AUTH] no", ""])

    def test_why(self) -> None:
        """A cause of which the log has a line of its own is in the story as well."""
        self.stories.denied(session(), Denial(Trouble.TEMPORARY, why="backend b:143 refused the connection"), 1001.0)
        self.stories.denied(session(), Denial(Trouble.TEMPORARY, reason="no auth_file", why="other"), 1002.0)
        self.assertEqual(
            [story["reason"] for story in self.stories.take()], ["backend b:143 refused the connection", "no auth_file"]
        )

    def test_noSecrets(self) -> None:
        """A story has no field for passwords, and texts are short."""
        tried = session(user=b"u" * 5000)
        self.stories.denied(tried, Denial(Trouble.DENIED, b"t" * 5000, reason="r" * 5000), 1001.0)
        (story,) = self.stories.take()
        self.assertEqual([len(story[name]) for name in ("user", "text", "reason")], [LONGEST] * 3)
        self.assertLess(len(json.dumps(story)), 2000)

    def test_bounded(self) -> None:
        """Between two calls they are few: the latest. Those of logins and of troubles do not displace each other."""
        for number in range(MOST + 5):
            self.stories.denied(session(attempts=number), None, 1001.0)
            trouble = session(attempts=number + 1, outcome=Outcome.TIMEOUT)
            ordinary = [session(outcome=Outcome.RELAYED), session(attempts=0, outcome=Outcome.SILENT)]
            ends = [trouble, *ordinary]
            self.stories.ended(ends, [1001.0] * 3, [each.outcome for each in ends])
        taken = []
        while piece := self.stories.take():
            self.assertTrue(len(piece) <= 3 * PIECE)
            taken += piece
        kinds = [story["kind"] for story in taken]
        self.assertEqual(kinds.count("login"), MOST)
        self.assertEqual(kinds.count("connection"), MOST + MOST_ORDINARY)
        self.assertEqual(taken[0]["attempts"], 5)

    def test_moment(self) -> None:
        """RFC 3339, in UTC, to the millisecond."""
        self.assertEqual(moment(1764403200.25), "2025-11-29T08:00:00.250Z")
        self.assertEqual(moment(1764403200.9999), "2025-11-29T08:00:00.999Z")
