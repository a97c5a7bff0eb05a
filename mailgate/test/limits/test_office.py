"""
Many users behind one address, at a server with the default limits of all sorts: for connections, handshakes and logins.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from twisted.internet.task import Clock, deferLater
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.coroutine import Task
from mailgate.config import parse
from mailgate.limits.admission import Admission, Ground
from mailgate.limits.attempt import Attempt, Result
from mailgate.limits.counts import Counts
from mailgate.limits.defence import Defence
from mailgate.limits.loginguard import LoginGuard
from mailgate.limits.rates import LocalRates
from mailgate.limits.settings import LimitSettings
from mailgate.limits.sources import Sources
from mailgate.limits.telling import Telling
from mailgate.log.journal import Journal
from mailgate.login import Client, Credentials, Denial, Method, Trouble
from mailgate.session import Outcome, Session
from mailgate.test.support.attacks import START
from mailgate.testing import requestFor
from mailgate.testing.fakes import makeSession

OFFICE = "192.0.2.7"
STRANGER = "203.0.113.9"
ANSWERED = 0.25
"""Seconds that the service takes."""

USERS = [b"user%d@example.org" % number for number in range(500)]
INI = "[mail]\n[server imap]\nprotocol = imap\nlisten = 127.0.0.1:2143\nproxy_pass = 127.0.0.1:9\n"


class Server:
    """
    What a server with the defaults asks its limits, in the order of a dialogue.

    @param state: the state of a server of before; L{None}: there was none.
    @ivar acted: how often each limit has acted.
    @ivar inSince: the users with a session, and when their first one began.
    @ivar asked: how often the service was asked, by the address of the client.
    """

    def __init__(self, clock: Clock, state: bytes | None = None) -> None:
        settings = parse(INI, "gateway.ini")
        (own,) = settings.servers
        common: Any = settings[LimitSettings]
        limits: Any = own[LimitSettings]
        watch: Any = self
        chance = random.Random(20).random
        self.clock = clock
        self.defence = Defence(
            common.loginPolicy(),
            common.prefixes,
            common.memory,
            clock.seconds,
            self.wall,
            chance,
            isFresh=state is None,
        )
        if state is not None:
            self.defence.restore(state)
        policy, telling = limits.connectionPolicy(), Telling(Journal(), LogLevel.info, watch)
        ground = Ground(Counts(), LocalRates(), self.defence, clock.seconds, chance)
        sources = Sources("imap", common.prefixes, policy.exempt, policy.access)
        self.admission = Admission("imap", policy, sources, ground, telling.acted)
        self.guard = LoginGuard(self.defence, policy, sources, limits.loginMode, clock, bytes(32), telling)
        self.acted: Counter[tuple[str, str]] = Counter()
        self.inSince: dict[bytes, float] = {}
        self.asked: Counter[str] = Counter()

    def wall(self) -> float:
        return START + self.clock.seconds()

    def limited(self, rule: str, action: str) -> None:
        """What a watch counts."""
        self.acted[rule, action] += 1

    def connect(self, host: str) -> Session | None:
        """A connection with TLS. L{None} if it is refused."""
        session = makeSession("imap", "0.0.0.0:993", f"{host}:40123", self.clock.seconds())
        if self.admission.arrived(session, session.host) is None and self.admission.shaken(session) is None:
            return session
        session.conclude(Outcome.LIMITED)
        self.admission.left(session)
        return None

    async def login(self, session: Session, user: bytes, host: str, secret: bytes) -> bool:
        """A login, and the service's answer. Return whether there is a session."""
        session.user = user
        session.attempts += 1
        request = requestFor("imap", credentials=Credentials(Method.PLAIN, user, secret), client=Client(host, 40123))
        passed = self.guard.begin(request, session, lambda held: None)
        if not isinstance(passed, (tuple, Denial)):
            passed = await passed
        if isinstance(passed, Denial):
            return False
        self.asked[host] += 1
        await deferLater(self.clock, ANSWERED)
        isRight = secret == b"right"
        if not isRight:
            self.guard.ended(passed, Denial(Trouble.DENIED))
            return False
        if self.admission.accepted(session, passed) is not None:
            return False
        self.admission.relaying(session)
        self.inSince.setdefault(user, self.clock.seconds())
        return True


class OfficeTests(SynchronousTestCase):
    """Users of one address."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.isOver = False
        self.heard: Counter[bool] = Counter()

    def begin(
        self, server: Server, user: bytes, host: str = OFFICE, secret: bytes = b"right", pause: float = 5.0
    ) -> None:
        """Let a program log in, and try again after C{pause} seconds until it has a session or all is over."""

        async def program() -> None:
            while not self.isOver:
                session = server.connect(host)
                if session is not None:
                    isIn = await server.login(session, user, host, secret)
                    self.heard[isIn] += 1
                    if isIn:
                        return
                    session.conclude(Outcome.CLIENT_LEFT)
                    server.admission.left(session)
                await deferLater(self.clock, pause)

        Task(program(), lambda failure: self.fail(failure.getTraceback())).start()

    def proceed(self, seconds: float, step: float = ANSWERED) -> None:
        self.clock.pump([step] * round(seconds / step))

    def restarted(self) -> Server:
        """A server after a restart with its state, at which 500 users have logged in an hour ago."""
        before = Server(self.clock)
        for user in USERS:
            attempt = Attempt(OFFICE, user, tag=bytes(16))
            before.defence.record(attempt, before.defence.check(attempt).ticket, Result.ACCEPTED)
        self.clock.advance(3600)
        after = Server(self.clock, before.defence.state())
        self.assertEqual(after.defence.allowance(OFFICE), 10)
        return after

    def reconnect(self, server: Server, lines: int) -> None:
        """Let all come back within 30 seconds, each with some connections."""
        for at, user in enumerate(USERS):
            for _ in range(lines):
                self.clock.callLater(at * 30 / len(USERS), self.begin, server, user)

    def test_restart(self) -> None:
        """500 users with a connection each come back within 30 s. All are in at once, and no limit acts."""
        server = self.restarted()
        self.reconnect(server, 1)
        self.proceed(31)
        self.assertEqual(set(server.inSince), set(USERS))
        self.assertEqual(server.acted, {})

    def test_restartTwice(self) -> None:
        """With two connections each, some are over the rate and come again, and all users are in within a minute."""
        server = self.restarted()
        self.reconnect(server, 2)
        self.proceed(60)
        self.assertEqual(set(server.inSince), set(USERS))
        self.assertEqual(set(server.acted), {("limit_req connection", "refused")})
        self.isOver = True

    def test_phone(self) -> None:
        """
        A phone with an old password tries for an hour, and no limit acts: neither on it, nor on its owner, nor on
        others there, who come all the time.
        """
        server = Server(self.clock)
        self.begin(server, USERS[0], secret=b"old", pause=10 - ANSWERED)
        for at, user in enumerate((*USERS[1:40], *[USERS[0]] * 9)):
            self.clock.callLater(5 + at * 70, self.begin, server, user)
        self.proceed(3600)
        self.isOver = True
        self.assertEqual(set(server.inSince), set(USERS[:40]))
        self.assertEqual(self.heard[True], 48)
        self.assertGreater(self.heard[False], 350)
        self.assertEqual(server.acted, {})

    def test_spraying(self) -> None:
        """
        A stranger tries one password for 500 users over many connections. 20 guesses pass, and then R4 refuses the
        others for half an hour. Users elsewhere do not notice it.
        """
        server = Server(self.clock)
        for user in USERS:
            self.begin(server, user, STRANGER, b"guess")
        for user in USERS[:20]:
            self.begin(server, user)
        self.proceed(60)
        self.assertEqual(server.asked, {STRANGER: 20, OFFICE: 20})
        self.assertEqual(set(server.inSince), set(USERS[:20]))
        rules = {rule for rule, _ in server.acted}
        self.assertTrue({"R4", "limit_req connection"} <= rules, rules)
        self.isOver = True
        self.proceed(6)
        self.clock.advance(1680)
        self.isOver = False
        self.begin(server, b"new", STRANGER)
        self.assertNotIn(b"new", server.inSince)
        self.clock.advance(90)
        self.proceed(6)
        self.assertIn(b"new", server.inSince)
