"""
Tests for L{mailgate.session}.
"""

from __future__ import annotations

import os
from itertools import count
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailgate.log.connection import STORY
from mailgate.login import Method, TLSState
from mailgate.session import Outcome, Phase, Session
from mailgate.sessionids import SessionIds, sessionIds
from mailgate.testing.fakes import makeSession


def session(**known: Any) -> Session:
    """The record of a connection that began at 100 seconds."""
    return makeSession("imap", "127.0.0.1:143", "192.0.2.7:40123", 100.0, **known)


class IdTests(SynchronousTestCase):
    """Tests for L{sessionIds}."""

    def test_form(self) -> None:
        """An id is five random digits of base 32 and a number, which counts up without an end."""
        ids = sessionIds(lambda octets: bytes(range(28, 28 + octets)))
        self.assertEqual([ids.new(), ids.new()], ["stuv0.00", "stuv0.01"])
        later = [ids.new() for _ in range(3000)]
        self.assertEqual((later[1021], later[1022], later[-1]), ("stuv0.vv", "stuv0.100", "stuv0.2tp"))
        self.assertEqual(len(set(later)), 3000)

    def test_processes(self) -> None:
        """The ids of another process begin differently."""
        self.assertNotEqual(sessionIds(os.urandom).new(), sessionIds(os.urandom).new())

    def test_gateways(self) -> None:
        """All gateways of a process have its name and no id in common, at the same time and one after the other."""
        ids = SessionIds(lambda octets: bytes(range(28, 28 + octets)))
        old, new = ids.of("g1"), ids.of()
        self.assertEqual(ids.member, "stuv0")
        self.assertEqual([old.new(), new.new(), old.new()], ["g1.stuv0.00", "stuv0.100", "g1.stuv0.01"])
        gateways = [old] * 3000 + [new] * 3000 + [ids.of("g2")] * 9
        self.assertEqual(len({each.new().rpartition(".")[2] for each in gateways}), 6009)

    def test_length(self) -> None:
        """An id has at most 24 bytes, also after years of logins."""
        ids = SessionIds(os.urandom)
        ids._thousands = count(32**4)
        self.assertLessEqual(len(ids.of("gateway-10").new()), 24)


class PhaseTests(SynchronousTestCase):
    """Tests for L{Session.enter}."""

    def test_begin(self):
        """The first phase is ACCEPT."""
        self.assertIs(session().phase, Phase.ACCEPT)
        self.assertIs(session().reached, Phase.ACCEPT)

    def test_enter(self):
        """The phase is the one that was entered last."""
        ledger = session()
        ledger.enter(Phase.GREETING)
        ledger.enter(Phase.COMMAND)
        self.assertIs(ledger.phase, Phase.COMMAND)
        self.assertIs(ledger.reached, Phase.COMMAND)

    def test_back(self):
        """After a refused login the phase is COMMAND again."""
        ledger = session()
        ledger.enter(Phase.AUTH)
        ledger.enter(Phase.COMMAND)
        self.assertIs(ledger.reached, Phase.COMMAND)

    def test_end(self):
        """END does not change the phase that was reached, also if it is entered again."""
        ledger = session()
        ledger.enter(Phase.BACKEND_LOGIN)
        for _ in range(2):
            ledger.end()
            self.assertIs(ledger.phase, Phase.END)
            self.assertIs(ledger.reached, Phase.BACKEND_LOGIN)

    def test_words(self):
        """The phases have the names in the design, each a different one."""
        self.assertEqual(
            " ".join(phase.value for phase in Phase),
            "accept proxy-header tls greeting command challenge auth connect backend-tls backend-login relay end",
        )


class OutcomeTests(SynchronousTestCase):
    """Tests for L{Session.conclude}."""

    def test_first(self):
        """The first outcome counts; those that follow from it do not."""
        ledger = session()
        ledger.conclude(Outcome.TIMEOUT)
        ledger.conclude(Outcome.CLIENT_LEFT)
        self.assertIs(ledger.outcome, Outcome.TIMEOUT)

    def test_open(self):
        """Before the end there is no outcome."""
        self.assertIsNone(session().outcome)

    def test_distinct(self):
        """The outcomes have different values, and none contains a comma, which separates the fields of the line."""
        told = [outcome.value for outcome in Outcome]
        self.assertEqual(len(told), len(set(told)))
        self.assertEqual([value for value in told if "," in value], [])


class TimesTests(SynchronousTestCase):
    """The time in each phase."""

    def setUp(self):
        self.clock = Clock()
        self.ledger = session(readings=[self.clock.seconds, Phase.ACCEPT, 0.0])

    def spend(self, milliseconds: float, then: Phase) -> None:
        self.clock.advance(milliseconds / 1000)
        if then is Phase.END:
            self.ledger.end()
        else:
            self.ledger.enter(then)

    def test_sums(self):
        """All stays in a phase are added up. A challenge counts as a command."""
        for milliseconds, then in (
            (0, Phase.PROXY_HEADER),
            (0.1, Phase.TLS),
            (3.2, Phase.GREETING),
            (1, Phase.COMMAND),
            (20, Phase.CHALLENGE),
            (1, Phase.AUTH),
            (2, Phase.COMMAND),
            (20, Phase.AUTH),
            (8.3, Phase.CONNECT),
            (0.44, Phase.BACKEND_LOGIN),
            (2.06, Phase.RELAY),
        ):
            self.spend(milliseconds, then)
        times = "proxy=0.1 tls=3.2 greeting=1 command=41 auth=10.3 connect=0.4 backend-tls=0 backend-login=2.1"
        self.assertEqual(self.ledger.times, times)
        self.ledger.settleTimes()
        self.spend(1000, Phase.END)
        self.assertEqual(self.ledger.times, times)
        self.assertEqual(len(self.ledger.readings), 32)

    def test_again(self):
        """However often a client fails to log in, its times are right and need little memory."""
        for _ in range(100):
            for then in (Phase.COMMAND, Phase.CHALLENGE, Phase.AUTH):
                self.spend(1, then)
            self.clock.advance(0.001)
            self.ledger.enterAgain()
        self.assertLess(len(self.ledger.readings), 2 * len(Phase))
        self.spend(1, Phase.END)
        self.assertIn(" command=300 auth=100 ", self.ledger.times)

    def test_open(self):
        """A connection that ends before a login has times as well."""
        self.spend(0, Phase.COMMAND)
        self.spend(5, Phase.END)
        self.assertIn(" command=5 auth=0 ", self.ledger.times)

    def test_setBack(self):
        """If the clock was set back, no time is negative."""
        moments = iter((100.0, 40.0))
        ledger = session(readings=[lambda: next(moments), Phase.ACCEPT, 100.0])
        ledger.enter(Phase.COMMAND)
        ledger.end()
        self.assertIn(" command=0 ", ledger.times)

    def test_goesOn(self):
        """A record that continues another one has its times."""
        self.spend(0, Phase.PROXY_HEADER)
        after = session()
        after.goOnFrom(self.ledger)
        self.assertIs(after.phase, Phase.PROXY_HEADER)
        self.clock.advance(0.007)
        after.enter(Phase.GREETING)
        self.assertIn("proxy=7 ", after.times)

    def test_unwanted(self):
        """Without readings no time is measured."""
        ledger = session()
        ledger.enter(Phase.COMMAND)
        ledger.settleTimes()
        self.assertEqual((ledger.times, ledger.readings), ("-", None))


class StoryTests(SynchronousTestCase):
    """Tests for L{Session.story} and L{STORY}."""

    def tell(self, ledger: Session, now: float = 101.5) -> str:
        return formatEvent({"log_format": STORY, **ledger.story(now)})

    def test_whole(self):
        """One event has client, server, protocol, TLS, user, backend, phase, outcome, seconds and bytes."""
        ledger = session(
            tls=TLSState("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
            user=b"joe",
            backend="192.0.2.99:143",
            received=12,
            sent=3456,
            attempts=2,
            method=Method.PLAIN,
            id="5g0qa.7k",
        )
        ledger.enter(Phase.RELAY)
        ledger.conclude(Outcome.RELAYED)
        ledger.end()
        self.assertEqual(
            self.tell(ledger),
            "connection ended: client 192.0.2.7:40123, protocol imap, tls TLSv1.3 TLS_AES_256_GCM_SHA384,"
            " method plain, attempts 2, backend 192.0.2.99:143, reached relay, outcome relayed, seconds 1.500,"
            ' received 12, sent 3456, times -, server 127.0.0.1:143, session 5g0qa.7k, user "joe"',
        )

    def test_empty(self):
        """Missing values are logged as dashes and zeros."""
        told = self.tell(session(), 100.0)
        self.assertIn(", tls no, method -, attempts 0, backend -, reached accept, outcome -, seconds 0.000,", told)
        self.assertTrue(told.endswith(', server 127.0.0.1:143, session -, user ""'), told)

    def test_reason(self):
        """The reason is in parentheses after the outcome."""
        ledger = session()
        ledger.conclude(Outcome.TLS_FAILED, "the client does not speak TLS")
        self.assertIn(", outcome TLS handshake failed (the client does not speak TLS), seconds ", self.tell(ledger))

    def test_complete(self):
        """The story has exactly the fields of the format."""
        fields = session().story(100.0)
        for name in fields:
            self.assertIn("{" + name, STORY)
        self.assertNotIn("Unable to format", self.tell(session()))

    def test_userIsEscaped(self):
        """A user name cannot end the line or control a terminal."""
        told = self.tell(session(user=b"joe\r\n2026 [info] \x1b[2Jforged\0\xff"))
        self.assertIn(r'user "joe\r\n2026 [info] \x1b[2Jforged\x00\xff"', told)
        self.assertEqual([character for character in told if ord(character) < 32], [])

    def test_userIsNoFormat(self):
        """Braces in a user name stay braces."""
        self.assertIn('user "{client!r}"', self.tell(session(user=b"{client!r}")))
