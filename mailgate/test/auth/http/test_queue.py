"""
Tests of L{mailgate.auth.http.authenticator}: the limit of concurrent requests to a service, the waiting for it, and
answers that concern one request only.
"""

from __future__ import annotations

import socket

from attrs import evolve
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import LogLevel
from twisted.trial.unittest import TestCase

from mailgate.auth.fairqueue import MOST_OF_ONE, PAUSE
from mailgate.auth.http.agent import KeepAliveAgent
from mailgate.auth.http.asking import REST
from mailgate.auth.http.authenticator import KIND
from mailgate.auth.http.response import HTTPResponse, Status
from mailgate.lean.clock import CoarseClock
from mailgate.lean.reactor import LeanReactor
from mailgate.limits.settings import LimitSettings
from mailgate.limits.values import exempt
from mailgate.log.journal import Journal
from mailgate.log.seldom import PERIOD
from mailgate.login import Client, Credentials, Denial, Method, Trouble
from mailgate.test.support.httpagent import FakeEndpoint, byName
from mailgate.test.support.httpauthenticator import ACCEPTED, REQUEST, ROUTE, UNDECIDED, AuthenticatorTestCase
from mailgate.test.support.httpsettings import server, settings


def of(host, user=b"joe"):
    """Return a login of C{user} from C{host}."""
    return evolve(REQUEST, client=Client(host, 4711), credentials=Credentials(Method.PLAIN, user, b"sesame"))


class QueueCase(AuthenticatorTestCase):
    """Services with at most two requests at a time."""

    urls = "http://one:9000/auth"
    places = 2

    def make(self, agents, default=None, **others):
        return super().make(agents, default, places=self.places, **others)

    def setUp(self):
        super().setUp()
        self.agent = self.agents[0]

    def answer(self, number, *fields):
        """Answer the request with this number."""
        pairs = [field.encode().split(b": ", 1) for field in fields or ACCEPTED]
        self.agent.asked[number][3].callback(HTTPResponse(Status((b"HTTP", 1, 1), 200, b""), byName(pairs)))

    def assertReason(self, judged, reason, wait=0.0):
        """Check that the login got a temporary failure after C{wait} seconds, for C{reason}."""
        self.assertEqual(self.successResultOf(judged), Denial(Trouble.TEMPORARY, wait=wait, reason=reason))


class QueueTests(QueueCase):
    """One service."""

    def test_waits(self):
        """The third login waits until one of the first two has been answered."""
        judged = [self.authenticate() for _ in range(3)]
        self.assertEqual(len(self.agent.asked), 2)
        self.answer(0)
        self.assertEqual(len(self.agent.asked), 3)
        self.answer(2)
        self.answer(1)
        self.assertEqual([self.successResultOf(each) for each in judged], [ROUTE] * 3)
        self.assertEqual((self.clock.getDelayedCalls(), self.log()), ([], []))

    def test_failed(self):
        """A failed or cancelled request frees its place; one that is cancelled in the queue has none."""
        judged = [self.authenticate() for _ in range(5)]
        for number in (2, 0):
            judged[number].cancel()
            self.failureResultOf(judged[number], CancelledError)
        self.assertEqual(len(self.agent.asked), 3)
        self.answer(1, "X: y")
        self.assertEqual(self.successResultOf(judged[1]), UNDECIDED)
        self.assertEqual(len(self.agent.asked), 4)
        self.answer(2)
        self.answer(3)
        self.assertEqual([self.successResultOf(each) for each in judged[3:]], [ROUTE] * 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_fair(self):
        """After one address's flood, the request of another address is next; an IPv6 network is one address."""
        for first, last in (("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::ffff:2")):
            self.setUp()
            for host in (first, *[last] * 40):
                self.authenticate(of(host))
            self.authenticate(of("192.0.2.2", b"ann"))
            self.answer(0)
            self.assertIn(b"Auth-User: ann\r\n", self.agent.asked[-1][2])

    def test_exempt(self):
        """An address in limit_exempt stands for many clients: its users count separately."""
        group = settings(self.urls)
        self.authenticator._clientOf = LimitSettings(exempt("192.0.2.0/24", "")).clientOf
        self.assertEqual(group.urls, (self.authenticator._services[0].shared.url,))
        for _ in range(40):
            self.authenticate(of("192.0.2.1"))
        self.authenticate(of("192.0.2.1", b"ann"))
        self.answer(0)
        self.assertIn(b"Auth-User: ann\r\n", self.agent.asked[-1][2])

    def test_inAll(self):
        """The time in the queue counts: waiting and request together take at most auth_http_timeout."""
        judged = [self.authenticate() for _ in range(2)]
        self.clock.advance(10)
        judged.append(self.authenticate())
        self.clock.advance(40)
        self.answer(0)
        self.assertEqual(len(self.agent.asked), 3)
        self.clock.advance(10)
        # The request that took a whole minute has failed.
        self.assertEqual(self.successResultOf(judged[1]), UNDECIDED)
        self.assertIn("timed out after 60 seconds", self.log()[0])
        self.assertNoResult(judged[2])
        self.clock.advance(10)
        self.assertReason(judged[2], "timed out after a long wait for a free connection to http://one:9000/auth")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hurried(self):
        """A request that a wait has left little time ends exactly then, in a clock that is exact to a second, too."""
        reactor, self.clock = self.clock, CoarseClock(self.clock)
        reactor.advance(1000.25)
        self.authenticator = self.make(self.agents)
        judged = [self.authenticate() for _ in range(2)]
        reactor.advance(2.75)
        waiting = self.authenticate(), self.authenticate()
        reactor.advance(56.5)
        for number in range(2):
            self.answer(number)
            self.assertEqual(self.successResultOf(judged[number]), ROUTE)
        # The two that have waited have 3.5 seconds left.
        self.assertEqual(len(self.agent.asked), 4)
        reactor.advance(3.25)
        self.answer(2)
        self.assertEqual(self.successResultOf(waiting[0]), ROUTE)
        self.assertEqual(self.agent.cancelled, 0)
        reactor.advance(0.25)
        self.assertEqual(self.agent.cancelled, 1)
        self.assertReason(waiting[1], "timed out after a long wait for a free connection to http://one:9000/auth")
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_tooLate(self):
        """A login that gets a place when its time is over causes no request."""
        for _ in range(3):
            self.authenticate()
        waiting = self.authenticate(of("192.0.2.1"))
        self.clock.advance(60)
        self.assertReason(waiting, "timed out waiting for a free connection to http://one:9000/auth")
        self.assertEqual(len(self.agent.asked), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_timedOut(self):
        """
        A login that times out in the queue gets a temporary failure. It is logged once a minute; the service has not
        failed.
        """
        for _ in range(2):
            self.authenticate()
        waiting = [self.authenticate(of(f"192.0.2.{number}")) for number in range(5)]
        # The request times out a moment later.
        for call in self.clock.getDelayedCalls()[:2]:
            call.delay(1)
        self.clock.advance(60)
        for judged in waiting:
            self.assertReason(judged, "timed out waiting for a free connection to http://one:9000/auth")
        # Clients alone can cause this.
        self.assertEqual([event["log_level"] for event in self.events], [LogLevel.warn])
        (logged,) = self.log()
        self.assertIn("auth http server http://one:9000/auth is overloaded: auth_http_max_connections requests", logged)
        self.assertEqual(len(self.agent.asked), 2)

    def test_reminded(self):
        """It is logged again after a minute, or when the clock was set back."""
        shared = self.authenticator._services[0].shared
        for passed, said in ((0, 1), (PERIOD - 1, 0), (1, 1), (1, 0)):
            self.clock.advance(passed)
            shared.isBusy()
            self.assertEqual(len(self.log()), said)
        self.clock.rightNow -= 1000
        shared.isBusy()
        self.assertEqual(len(self.log()), 1)

    def test_overloaded(self):
        """If the queue is full, the answer comes after a pause, because the client would repeat the login at once."""
        judged = [self.authenticate() for _ in range(2 + MOST_OF_ONE + 1)]
        self.assertReason(judged.pop(), "too many logins wait for a free connection to http://one:9000/auth", PAUSE)
        for each in judged:
            self.assertNoResult(each)
        self.assertNoResult(self.authenticate(of("192.0.2.99")))
        self.assertEqual(len(self.log()), 1)

    def test_wait(self):
        """While the service answers WAIT, its place is free for others; then the login waits again."""
        judged = [self.authenticate() for _ in range(3)]
        self.answer(0, "Auth-Status: WAIT", "Auth-Wait: 5")
        self.assertEqual(len(self.agent.asked), 3)
        self.clock.advance(5)
        self.assertEqual(len(self.agent.asked), 3)
        self.answer(1)
        self.assertEqual(len(self.agent.asked), 4)
        # It has the whole time again.
        self.clock.advance(54.5)
        self.answer(3)
        self.assertEqual(self.successResultOf(judged[0]), ROUTE)

    def test_abandoned(self):
        """A login that nothing resumes any more, as its gateway is gone, lets no other one go on."""
        logins = [self.authenticator.answer(REQUEST) for _ in range(3)]
        for login in logins:
            login.send(None)
        logins[0].close()
        self.assertEqual(len(self.agent.asked), 2)
        for login in logins:
            login.close()

    def test_surprise(self):
        """An unexpected exception of the agent frees the place."""
        self.patch(self.agent, "request", lambda *args: 1 / 0)
        for _ in range(5):
            self.failureResultOf(self.authenticate(), ZeroDivisionError)
        self.assertEqual(len(self.authenticator._services[0].shared.queue._clients), 0)


class SeveralTests(QueueCase):
    """Two services, of which the first one is busy."""

    urls = "http://one:9000/auth\nhttp://two:9000/auth"
    places = 1

    def test_waits(self):
        """A login waits for the first service: the second is for failures."""
        self.authenticate()
        self.authenticate()
        self.assertEqual([len(agent.asked) for agent in self.agents], [1, 0])

    def test_overloaded(self):
        """If the queue of the first is full, the second is asked; the first has not failed."""
        for _ in range(1 + MOST_OF_ONE + 1):
            judged = self.authenticate()
        self.assertEqual([len(agent.asked) for agent in self.agents], [1, 1])
        self.agents[1].answer(*ACCEPTED)
        self.assertEqual(self.successResultOf(judged), ROUTE)
        self.answer(0)
        self.assertEqual([len(agent.asked) for agent in self.agents], [2, 1])

    def test_failed(self):
        """When the first fails, waiting logins go to the second, with the time that they have left."""
        self.authenticate()
        self.clock.advance(30)
        judged = self.authenticate(of("192.0.2.1"))
        self.clock.advance(30)
        # The waiting login is sent before the one whose request failed; neither goes to the first service again.
        self.assertEqual([len(agent.asked) for agent in self.agents], [1, 1])
        self.agents[1].answer(*ACCEPTED)
        self.assertEqual(self.successResultOf(judged), ROUTE)
        self.assertEqual([len(agent.asked) for agent in self.agents], [1, 2])

    def test_clientLeft(self):
        """A login that is cancelled while it waits for the second still logs the failure of the first."""
        left = self.authenticate()
        self.clock.advance(30)
        self.authenticate(of("192.0.2.1"))
        self.clock.advance(30)
        self.assertEqual(self.log(), [])
        left.cancel()
        self.failureResultOf(left, CancelledError)
        (line,) = self.log()
        self.assertIn(
            ", auth http server http://one:9000/auth failed while processing the request: timed out after 60 seconds, ",
            line,
        )

    def test_hangsBehindFlood(self):
        """A service that hangs is skipped, although every login has waited a little in the queue."""
        self.authenticate(of("192.0.2.1"))
        for _ in range(MOST_OF_ONE):
            self.authenticate(of("192.0.2.1"))
        owner = self.authenticate(of("192.0.2.2"))
        self.clock.advance(1)
        # It was fast so far. From now on it hangs.
        self.answer(0)
        self.clock.advance(1)
        self.authenticate(of("192.0.2.3"))
        self.assertEqual([len(agent.asked) for agent in self.agents], [2, 0])
        self.clock.advance(58)
        self.assertEqual([len(agent.asked) for agent in self.agents], [2, 1])
        self.agents[1].answer(*ACCEPTED)
        self.agents[1].answer(*ACCEPTED)
        self.assertEqual(self.successResultOf(owner), ROUTE)
        self.assertTrue([line for line in self.log() if "timed out after 60 seconds" in line])


class QuestionTests(AuthenticatorTestCase):
    """Answers that concern one request only, and logins without a request."""

    def test_ofTheQuestion(self):
        """
        A 400, 413, 414 or 431 without Auth-Status is a temporary failure of this login only: no other service is asked
        and no error is logged, also under auth_http_missing_status accept.
        """
        for accept in ("refuse", "accept"):
            self.authenticator = self.make(self.agents, missingStatus=accept)
            one, two = self.agents
            for code in (400, 413, 414, 431):
                judged = self.authenticate()
                one.answer("Auth-Server: 10.0.0.1", "Auth-Port: 143", code=code)
                reason = f"http://one:9000/auth answered {code} without Auth-Status"
                self.assertEqual(self.successResultOf(judged), Denial(Trouble.TEMPORARY, reason=reason))
            self.authenticate()
            self.assertEqual((two.asked, self.log()), ([], []))
            one.answer(*ACCEPTED)

    def test_withStatus(self):
        """With Auth-Status it is an answer."""
        judged = self.authenticate()
        self.agents[0].answer(*ACCEPTED, code=400)
        self.assertEqual(self.successResultOf(judged), ROUTE)

    def test_others(self):
        """Every other status without Auth-Status is a failure of the service."""
        one, two = self.agents
        for code in (200, 401, 403, 404, 408, 429, 500, 502, 503):
            two.asked.clear()
            self.authenticate()
            one.answer(code=code)
            self.assertEqual(len(two.asked), 1)
            two.answer(*ACCEPTED)
            self.assertEqual(len([line for line in self.log() if "without Auth-Status" in line]), 1)
            self.clock.advance(REST)

    def test_tooLong(self):
        """A user name or password of more than 1,024 bytes, as sent, is refused without a request."""
        for user, secret, what in (
            (b"j" * 1025, b"s", "user name"),
            (b"%" * 342, b"s", "user name"),
            (b"j", b" " * 342, "password"),
        ):
            credentials = Credentials(Method.PLAIN, user, secret)
            judged = self.authenticate(evolve(REQUEST, credentials=credentials))
            self.assertEqual(
                self.successResultOf(judged),
                Denial(Trouble.DENIED, reason=f"the {what} is longer than 1024 bytes"),
                what,
            )
        self.assertEqual(([agent.asked for agent in self.agents], self.log()), ([[], []], []))

    def test_longest(self):
        """One of 1,024 bytes is sent, and so is a longer token."""
        for method, user, secret in (
            (Method.PLAIN, b"j" * 1024, b"%" * 341),
            (Method.XOAUTH2, b"j", b"t" * 3000),
            (Method.OAUTHBEARER, b"j", b"t" * 3000),
        ):
            self.authenticate(evolve(REQUEST, credentials=Credentials(method, user, secret)))
        self.assertEqual(len(self.agents[0].asked), 3)


class AgentTests(QueueCase):
    """A limited authenticator over mailgate's agent."""

    places = 64

    def setUp(self):
        super().setUp()
        self.endpoint = FakeEndpoint()
        self.agent = KeepAliveAgent(self.endpoint, self.clock, b"one", b"/auth", most=self.places)
        self.authenticator = self.make([self.agent])

    def test_hanging(self):
        """A thousand logins at a service that hangs open only as many connections as the limit allows."""
        judged = [self.authenticate(of(f"192.0.{number % 250}.1")) for number in range(1000)]
        self.assertEqual(len(self.endpoint.connecting), self.places)
        connections = [self.endpoint.accept() for _ in range(self.places)]
        self.clock.advance(59)
        self.assertEqual(self.endpoint.connecting, [])
        self.clock.advance(1)
        for connection in connections:
            self.assertTrue(connection.transport.aborting)
            self.lose(connection)
        self.assertLessEqual(len(self.endpoint.connecting), self.places)
        self.clock.advance(1)
        self.assertEqual(sum(self.successResultOf(each).trouble is Trouble.TEMPORARY for each in judged), 1000)

    def lose(self, connection):
        """Close the connection."""
        connection.connectionLost()


class SocketTests(TestCase):
    """A service that hangs, over real sockets."""

    timeout = 30

    async def test_hanging(self):
        """The number of connections stays within the limit, and all are closed after the logins."""
        from twisted.internet import reactor

        listening = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.addCleanup(listening.close)
        listening.setblocking(False)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        authenticator = KIND.build(
            server(settings(url, maxConnections=8)), None, LeanReactor(reactor), Journal(LogLevel.critical)
        )
        judged = [authenticator.authenticate(of(f"192.0.2.{number}")) for number in range(200)]
        accepted = []
        for _ in range(8):
            while True:
                try:
                    accepted.append(listening.accept()[0])
                    break
                except BlockingIOError:
                    await deferLater(reactor, 0.005)
        for each in accepted:
            self.addCleanup(each.close)
            # All requests have been sent.
            each.setblocking(True)
            each.settimeout(10)
        self.assertRaises(BlockingIOError, listening.accept)
        # First those that wait: otherwise each would get the place of the previous one for a moment.
        for each in reversed(judged):
            each.cancel()
        await gatherResults([self.assertFailure(each, CancelledError) for each in judged])
        authenticator.close()
        while authenticator._services[0].shared.agent._open:
            await deferLater(reactor, 0.005)
        self.assertRaises(BlockingIOError, listening.accept)
