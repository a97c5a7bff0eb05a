"""
Logins at a server with the real rules against guessed passwords: the known ways in which such rules fail, as far as the
login itself can go wrong. L{mailgate.test.limits} has the rules alone.
"""

from __future__ import annotations

from hashlib import md5
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.settings import DialogueSettings
from mailgate.limits.attempt import Rule
from mailgate.limits.defence import Defence
from mailgate.limits.loginguard import REFUSED_AFTER
from mailgate.limits.policy import ConnectionPolicy, LoginPolicy
from mailgate.login import Denial, Trouble
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.pop3.settings import POP3Settings
from mailgate.test.support.loginguards import guardOf
from mailgate.testing import ROUTE, Conversation, FakeAuthenticator, FakeTransport

POLICY = LoginPolicy()
UNRATED = ConnectionPolicy(login=None)
FAILED = b"-ERR [AUTH] Authentication failed\r\n"
BLOCKED = b"-ERR [SYS/TEMP] Try again later\r\n"
OK = b"OK\r\n"


class Judge(FakeAuthenticator):
    """Accepts the password C{right}, and knows no user C{ghost}. With C{later} its answers wait in C{pending}."""

    later = False

    def authenticate(self, request: Any) -> Deferred[Any]:
        given = request.credentials
        self.requests.append(request)
        if self.later:
            self.pending.append(Deferred())
            return self.pending[-1]
        if given.secret == b"down":
            return succeed(Denial(Trouble.TEMPORARY))
        if given.secret == b"right" and given.user != b"ghost":
            return succeed(ROUTE)
        return succeed(Denial(Trouble.DENIED, isUnknownUser=given.user == b"ghost"))


class Client:
    """A client of the server of C{conversation}."""

    def __init__(self, conversation: Conversation, host: str) -> None:
        self.conversation = conversation
        peer = IPv4Address("TCP", host, 40123)
        self.transport = FakeTransport(peer)
        self.transport.connect(conversation.factory.buildProtocol(peer))

    def hear(self) -> bytes:
        heard: bytes = self.transport.value()
        self.transport.clear()
        return heard

    def says(self, *lines: bytes) -> bytes:
        self.hear()
        for line in lines:
            self.transport.protocol.dataReceived(line + b"\r\n")
        return self.hear()

    def login(self, password: bytes, user: bytes = b"joe") -> bytes:
        """Log in, and return the reply, empty if there is none yet."""
        return self.says(b"USER " + user, b"PASS " + password).removeprefix(b"+OK\r\n")

    def refused(self, password: bytes, user: bytes = b"joe") -> bytes:
        """Log in, and return the reply of a limit, which comes after a while."""
        assert not self.login(password, user)
        self.conversation.clock.advance(REFUSED_AFTER)
        return self.hear()


class DefendedTests(SynchronousTestCase):
    """Clients of one server, with one clock."""

    def setUp(self) -> None:
        self.start()

    def start(self, policy: LoginPolicy = POLICY) -> None:
        self.judge = Judge()
        dialogue = DialogueSettings(serverName="mx.test", timeout=600.0, authDelay=0.0, maxAuthFailures=0)
        self.site = Conversation(POP3, dialogue, POP3Settings(auth=("plain", "apop")), authenticator=self.judge)
        self.clock = self.site.clock
        seconds = self.clock.seconds
        self.defence = Defence(policy, monotonic=seconds, wall=seconds, chance=lambda: 0.5, key=bytes(32))
        self.site.factory.guard = guardOf(self.defence, self.clock, self.site.factory.journal, UNRATED)

    def client(self, host: str = "192.0.2.7") -> Client:
        return Client(self.site, host)

    def guess(self, count: int, user: bytes = b"joe") -> None:
        """Guess as many passwords, each of which is answered in the end."""
        client = self.client()
        for number in range(count):
            heard = client.login(b"p%d" % number, user)
            if not heard:
                self.clock.advance(POLICY.longestDelay)
                heard = client.hear()
            self.assertIn(b"-ERR", heard)

    def test_delayed(self) -> None:
        """From the fourth failure on the login waits before its question, a right password too. Success ends that."""
        self.guess(POLICY.pairDelay)
        asked = len(self.judge.requests)
        client = self.client()
        self.assertEqual(client.login(b"right"), b"")
        self.assertEqual(len(self.judge.requests), asked)
        self.clock.advance(POLICY.firstDelay)
        self.assertEqual(client.hear(), OK)
        self.assertEqual(self.client().login(b"right"), OK)

    def test_spellings(self) -> None:
        """Another spelling of the name neither passes a block, nor blocks another user."""
        self.guess(POLICY.pairBlock, b"joe+x@example.org")
        asked = len(self.judge.requests)
        for user in (b"joe@example.org", b"JOE@Example.ORG", b" joe@example.org ", b"joe+y@example.org"):
            self.assertEqual(self.client().refused(b"right", user), BLOCKED)
        self.assertEqual(len(self.judge.requests), asked)
        self.assertEqual(self.client().login(b"right", b"jo@example.org"), OK)

    def test_blocked(self) -> None:
        """Who is blocked and goes on trying asks nothing, and is not blocked for longer."""
        self.guess(POLICY.pairBlock)
        asked, client = len(self.judge.requests), self.client()
        for number in range(30):
            self.assertEqual(client.refused(b"q%d" % number), BLOCKED)
            self.clock.advance(POLICY.pairTime / 40)
        self.assertEqual(len(self.judge.requests), asked)
        self.assertFalse(client.transport.disconnecting)
        self.clock.advance(POLICY.pairTime / 4)
        heard = client.login(b"right")
        self.clock.advance(POLICY.longestDelay)
        self.assertEqual(heard + client.hear(), OK)

    def test_repeats(self) -> None:
        """A client with an old password fails once, however often it tries."""
        client = self.client()
        for _ in range(200):
            self.assertEqual(client.login(b"old"), FAILED)
            self.clock.advance(1)

    def test_parallel(self) -> None:
        """Connections side by side do not pass the delay: one login of the pair is asked about at a time."""
        self.guess(POLICY.pairDelay)
        self.judge.later = True
        clients = [self.client() for _ in range(8)]
        for number, client in enumerate(clients):
            self.assertLessEqual({client.login(b"side%d" % number)}, {b"", b"-ERR [LOGIN-DELAY] Try again later\r\n"})
        for _ in range(60):
            self.clock.advance(0.5)
            self.assertLessEqual(sum(not asked.called for asked in self.judge.pending), 1)
        self.assertEqual(len(self.judge.pending), 1)

    def test_tarpit(self) -> None:
        """When no more logins can be held, the next is refused at once, and those that wait go on."""
        self.start(LoginPolicy(held=2))
        for user in (b"ann", b"joe", b"sue"):
            self.guess(POLICY.pairDelay, user)
        waiting = [self.client(), self.client()]
        self.assertEqual(
            [client.login(b"right", user) for client, user in zip(waiting, (b"ann", b"joe"), strict=True)], [b""] * 2
        )
        self.assertEqual(self.client().login(b"right", b"sue"), BLOCKED)
        self.assertEqual(self.client().login(b"right", b"bob"), OK)
        self.clock.advance(POLICY.firstDelay)
        self.assertEqual([client.hear() for client in waiting], [OK] * 2)

    def test_unknown(self) -> None:
        """A user that does not exist hears the same at the same times, up to the block of the pair."""

        def story(user: bytes) -> list[tuple[float, bytes]]:
            self.start()
            client, began = self.client(), self.clock.seconds()
            heard = []
            for number in range(POLICY.pairBlock + 2):
                reply = client.login(b"p%d" % number, user)
                while not reply:
                    self.clock.advance(0.5)
                    reply = client.hear()
                heard.append((self.clock.seconds() - began, reply))
            return heard

        self.assertEqual(story(b"joe"), story(b"ghost"))

    def test_temporary(self) -> None:
        """Failures of the service, and clients that leave, are never wrong passwords."""
        client = self.client()
        for _ in range(5 * POLICY.pairBlock):
            self.assertIn(b"[SYS/TEMP] Temporary", client.login(b"down"))
        self.judge.later = True
        for number in range(5 * POLICY.pairBlock):
            leaving = self.client()
            leaving.login(b"p%d" % number)
            leaving.transport.lose()
        self.judge.later = False
        self.assertEqual(client.login(b"right"), OK)

    def test_digests(self) -> None:
        """Each digest counts, as its repeats cannot be told, but three times as many are allowed."""
        client, digest = self.client(), md5(b"old").hexdigest().encode()
        for _ in range(POLICY.pairDelay * POLICY.digestShare):
            self.assertEqual(client.says(b"APOP joe " + digest), FAILED)
        self.assertEqual(client.says(b"APOP joe " + digest), b"")

    def test_hold(self) -> None:
        """A login that an operator holds waits, and is then told to come back. A released one goes on."""
        for isReleased, expected in ((False, BLOCKED), (True, OK)):
            self.start()
            self.defence.block("joe", 600, "a move", isHold=True)
            client = self.client()
            self.assertEqual(client.login(b"right"), b"")
            self.assertEqual(self.client().login(b"right", b"ann"), OK)
            if isReleased:
                self.defence.unblock("joe")
            heard = b""
            for _ in range(60):
                self.clock.advance(0.5)
                heard += client.hear()
            self.assertEqual(heard, expected)
            self.assertEqual(len(self.judge.requests), 1 + isReleased)

    def test_log(self) -> None:
        """The log has each rule that has acted, and no failed login for them."""
        self.guess(POLICY.pairBlock)
        self.client().login(b"right")
        lines = self.site.logged()
        self.assertEqual(sum("login failed" in line for line in lines), POLICY.pairBlock)
        self.assertIn(f", {Rule.PAIR_BLOCK.value}, protocol pop3, action refused", lines[-1])
