"""
The delay of refusals and their limit on one connection: C{auth_delay} and C{max_auth_failures}, the same in every
protocol.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.frontend.settings import DialogueSettings
from mailgate.login import Denial, Method, Trouble
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.session import Outcome, Phase
from mailgate.test.support.wordings import MECHANISMS, REASON, WORDINGS, Wording
from mailgate.testing import Conversation, FakeAuthenticator, FakeClient, FakeConnector

DELAY = 2.0
GUARDED = DialogueSettings(serverName="mx.test", authDelay=DELAY, maxAuthFailures=5)
DENIED = Denial(Trouble.DENIED, b"no")
TEMPORARY = Denial(Trouble.TEMPORARY)
GUESS = b"PLAIN AGpvZQB4"
GOODBYES = (
    b"* BYE Too many failed logins, closing connection\r\n",
    b"",
    b"421 4.7.0 Too many failed logins, closing connection\r\n",
)


def converse(wording: Wording, *answers: Any, dialogue: DialogueSettings = GUARDED, **others: Any) -> Conversation:
    """A conversation in which logins get C{answers}."""
    return wording.converse(groups=(dialogue,), authenticator=FakeAuthenticator(*answers), **others)


class DelayTests(SynchronousTestCase):
    """C{auth_delay}."""

    def test_refusal(self) -> None:
        """A refusal is sent no earlier than the delay after the login; pipelined commands wait."""
        for wording in WORDINGS:
            conversation = converse(wording, DENIED)
            self.assertEqual(conversation.says(wording.auth + GUESS, wording.auth + b"XYZ"), b"")
            conversation.clock.advance(DELAY - 0.01)
            self.assertEqual(conversation.hear(), b"")
            self.assertIs(conversation.server.session.phase, Phase.AUTH)
            conversation.clock.advance(0.01)
            self.assertEqual(conversation.hear(), wording.refusal + wording.unsupported)

    def test_late(self) -> None:
        """A refusal that took longer is sent at once; one that took a part of the delay waits for the rest."""
        for wording in WORDINGS:
            for took, rest in ((DELAY, 0.0), (10.0, 0.0), (1.5, 0.5)):
                conversation = converse(wording, None)
                conversation.says(wording.auth + GUESS)
                conversation.clock.advance(took)
                conversation.authenticator.pending[0].callback(DENIED)
                if rest:
                    self.assertEqual(conversation.hear(), b"")
                    conversation.clock.advance(rest)
                self.assertEqual(conversation.hear(), wording.refusal)

    def test_longest(self) -> None:
        """The longer of the service's wait and ours counts, not the sum."""
        for wording in WORDINGS:
            for wait, took, total in ((3.0, 0.0, 3.0), (1.0, 0.0, DELAY), (1.0, 1.8, 2.8), (0.1, 1.0, DELAY)):
                conversation = converse(wording, None)
                conversation.says(wording.auth + GUESS)
                conversation.clock.advance(took)
                conversation.authenticator.pending[0].callback(evolve(DENIED, wait=wait))
                conversation.clock.advance(total - took - 0.01)
                self.assertEqual(conversation.hear(), b"")
                conversation.clock.advance(0.011)
                self.assertEqual(conversation.hear(), wording.refusal)

    def test_logged(self) -> None:
        """A refusal is logged once, as soon as it is known: a client that leaves before it has still guessed."""
        for wording in WORDINGS:
            for answers, connector in (((evolve(DENIED, wait=9.0),), None), ((), FakeConnector(DENIED))):
                conversation = converse(wording, *answers, connector=connector)
                conversation.says(wording.auth + GUESS)
                conversation.transport.lose()
                self.assertIs(conversation.server.session.outcome, Outcome.CLIENT_LEFT)
                conversation.clock.advance(DELAY * 9)
                entries = [line for line in conversation.logged() if line.startswith("login failed")]
                self.assertEqual(len(entries), 1, entries)
            conversation = converse(wording, DENIED)
            conversation.says(wording.auth + GUESS)
            conversation.clock.advance(DELAY)
            self.assertEqual("".join(conversation.logged()).count("login failed"), 1)

    def test_backend(self) -> None:
        """A backend's refusal of a password that was not judged before is delayed as well."""
        for wording in WORDINGS:
            conversation = converse(wording, connector=FakeConnector(DENIED))
            self.assertEqual(conversation.says(wording.auth + GUESS), b"")
            conversation.clock.advance(DELAY)
            self.assertEqual(conversation.hear(), wording.refusal)

    def test_explained(self) -> None:
        """OAuth's error is delayed, too."""
        for wording in WORDINGS:
            conversation = converse(wording, evolve(DENIED, challenge=REASON))
            oauth = MECHANISMS[0]
            self.assertEqual(conversation.says(wording.auth + oauth.name + b" " + oauth.initial), b"")
            conversation.clock.advance(DELAY)
            self.assertEqual(conversation.hear(), wording.challenge + REASON + b"\r\n")

    def test_notHeldBack(self) -> None:
        """An acceptance and a temporary failure are sent at once."""
        for wording in WORDINGS:
            conversation = converse(wording, TEMPORARY)
            self.assertIn(b"emporary", conversation.says(wording.auth + GUESS))
            conversation = converse(wording, connector=FakeConnector(FakeClient(wording.accepted)))
            self.assertEqual(conversation.says(wording.auth + GUESS), wording.accepted)

    def test_recipients(self) -> None:
        """A refused recipient is not a guess: it is neither delayed nor counted."""
        answers = [Denial(Trouble.DENIED, b"no such user", b"550 5.1.1") for _ in range(9)]
        settings = SMTPSettings(auth=("none",))
        conversation = Conversation(SMTP, settings, GUARDED, authenticator=FakeAuthenticator(*answers))
        conversation.says(b"EHLO x", b"MAIL FROM:<a@example.org>")
        for _ in answers:
            self.assertEqual(conversation.says(b"RCPT TO:<b@example.com>"), b"550 5.1.1 no such user\r\n")
        self.assertFalse(conversation.closed)
        self.assertEqual({request.credentials.method for request in conversation.requests}, {Method.NONE})

    def test_clientLeaves(self) -> None:
        """A client that leaves meanwhile leaves no timer."""
        for wording in WORDINGS:
            conversation = converse(wording, DENIED)
            conversation.says(wording.auth + GUESS)
            conversation.transport.lose()
            self.assertEqual(conversation.clock.getDelayedCalls(), [])
            self.assertEqual(conversation.factory.connections, set())
            self.assertEqual([event for event in conversation.events if "log_failure" in event], [])


class FailuresTests(SynchronousTestCase):
    """C{max_auth_failures}."""

    IMPATIENT = evolve(GUARDED, authDelay=0.0)

    def test_last(self) -> None:
        """The fifth refusal is sent, and the connection ends, with a goodbye if the protocol has one."""
        for wording, goodbye in zip(WORDINGS, GOODBYES, strict=True):
            conversation = converse(wording, *[DENIED] * 9, dialogue=self.IMPATIENT)
            for _ in range(4):
                self.assertEqual(conversation.says(wording.auth + GUESS), wording.refusal)
            self.assertEqual(conversation.says(wording.auth + GUESS), wording.refusal + goodbye)
            self.assertTrue(conversation.closed)
            self.assertIs(conversation.server.session.outcome, Outcome.FAILURES)

    def test_pipelined(self) -> None:
        """Pipelined guesses beyond the limit are not judged."""
        for wording, goodbye in zip(WORDINGS, GOODBYES, strict=True):
            conversation = converse(wording, *[DENIED] * 900)
            conversation.says(*[wording.auth + GUESS] * 900)
            for _ in range(10):
                conversation.clock.advance(DELAY)
            self.assertEqual(conversation.hear(), wording.refusal * 5 + goodbye)
            self.assertEqual(len(conversation.requests), 5)

    def test_otherWays(self) -> None:
        """Every way to send a password counts, and nothing in between resets the counter."""
        ways = ((b"a LOGIN joe x",), (b"USER joe", b"PASS x"), (b"AUTH LOGIN am9l", b"eA=="))
        between = (b"a NOOP", b"NOOP", b"RSET")
        for wording, lines, pause in zip(WORDINGS, ways, between, strict=True):
            conversation = converse(wording, *[DENIED] * 9, dialogue=self.IMPATIENT)
            for _ in range(2):
                conversation.says(wording.auth + GUESS)
                conversation.says(pause)
                conversation.says(*lines)
            self.assertFalse(conversation.closed)
            conversation.says(*lines)
            self.assertTrue(conversation.closed, wording.record.name)

    def test_passingFailures(self) -> None:
        """Failures of a service or backend end no connection."""
        for wording in WORDINGS:
            conversation = converse(wording, *[TEMPORARY] * 9, dialogue=self.IMPATIENT)
            for _ in range(9):
                conversation.says(wording.auth + GUESS)
            self.assertFalse(conversation.closed)

    def test_explained(self) -> None:
        """A refused token counts once; a wrong response to the error allows no more attempts."""
        refused = evolve(DENIED, challenge=REASON)
        for wording in WORDINGS:
            for oauth in MECHANISMS:
                for answer in (oauth.answer, b"eHh4"):
                    conversation = converse(wording, *[refused] * 9, dialogue=self.IMPATIENT)
                    for number in range(5):
                        self.assertFalse(conversation.closed, number)
                        conversation.says(wording.auth + oauth.name + b" " + oauth.initial)
                        conversation.says(answer)
                    self.assertTrue(conversation.closed)
                    self.assertEqual(len(conversation.requests), 5)

    def test_servicesOwn(self) -> None:
        """The service's own end of the connection takes precedence."""
        for wording in WORDINGS:
            one = evolve(self.IMPATIENT, maxAuthFailures=1)
            conversation = converse(wording, evolve(DENIED, close=True), dialogue=one)
            self.assertEqual(conversation.says(wording.auth + GUESS), wording.refusal + wording.goodbye)
            self.assertIs(conversation.server.session.outcome, Outcome.DENIED)

    def test_unlimited(self) -> None:
        """0 is no limit."""
        for wording in WORDINGS:
            unlimited = evolve(self.IMPATIENT, maxAuthFailures=0)
            conversation = converse(wording, *[DENIED] * 50, dialogue=unlimited)
            for _ in range(50):
                conversation.says(wording.auth + GUESS)
            self.assertFalse(conversation.closed)


class DefaultTests(SynchronousTestCase):
    """The values without a directive."""

    def dialogue(self, *lines: str) -> DialogueSettings:
        """The settings of a server with C{lines}."""
        text = "\n".join(("[server imap]", "listen = 127.0.0.1:143", *lines))
        (server,) = parse(text).servers
        return server[DialogueSettings]

    def assertIs2And5(self, *lines: str) -> None:
        found = self.dialogue(*lines)
        self.assertEqual((found.authDelay, found.maxAuthFailures), (2.0, 5), lines)

    def test_backend(self) -> None:
        """Backends, and services that only locate mailboxes, get our delay and limit."""
        self.assertIs2And5("proxy_pass = 127.0.0.1:1143")
        self.assertIs2And5("auth_http = 127.0.0.1:9000", "auth_http_pass = off")
        self.assertIs2And5("auth_http = 127.0.0.1:9000", "auth_http_preset = zimbra")

    def test_service(self) -> None:
        """A service that judges logins does that itself."""
        found = self.dialogue("auth_http = 127.0.0.1:9000", "proxy_pass = 127.0.0.1:1143")
        self.assertEqual((found.authDelay, found.maxAuthFailures), (0.0, 0))

    def test_file(self) -> None:
        name = self.mktemp()
        with open(name, "w", encoding="ascii") as file:
            file.write("joe:{PLAIN}sesame::::::host=127.0.0.1\n")
        self.assertIs2And5(f"auth_file = {name}")

    def test_written(self) -> None:
        """A configured value counts, and one directive does not depend on the other."""
        found = self.dialogue("proxy_pass = 127.0.0.1:1143", "auth_delay = 500ms")
        self.assertEqual((found.authDelay, found.maxAuthFailures), (0.5, 5))
        found = self.dialogue("proxy_pass = 127.0.0.1:1143", "max_auth_failures = 0")
        self.assertEqual((found.authDelay, found.maxAuthFailures), (2.0, 0))
        found = self.dialogue("auth_http = 127.0.0.1:9000", "auth_delay = 1s", "max_auth_failures = 3")
        self.assertEqual((found.authDelay, found.maxAuthFailures), (1.0, 3))

    def test_tooLong(self) -> None:
        """A delay longer than a client may stay is refused."""
        error = self.assertRaises(
            ConfigurationError, self.dialogue, "proxy_pass = 127.0.0.1:1143", "auth_delay = 11s", "timeout = 1s"
        )
        self.assertIn("auth_delay", str(error))
        found = self.dialogue("proxy_pass = 127.0.0.1:1143", "timeout = 100ms")
        self.assertEqual(found.authDelay, 0.5)
