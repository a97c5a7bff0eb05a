"""
What clients hear of limits, in each protocol: never that the password is wrong, for clients then ask their user for
another one, or delete it.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.protocol import MailProtocol
from mailgate.frontend.settings import DialogueSettings
from mailgate.limits.attempt import Rule
from mailgate.login import Denial, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.sieve import SIEVE
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.session import Outcome
from mailgate.test.support.loginguards import FakeAdmission, ScriptedStore, afterwards, guarded, refused
from mailgate.testing import Conversation, FakeAuthenticator

DIALOGUE = DialogueSettings(serverName="mx.test", maxAuthFailures=1)
"""One failed login would end the connection."""

WITHOUT_LOGIN = SMTPSettings(auth=("none",))
LOGIN: dict[MailProtocol, tuple[bytes, ...]] = {
    IMAP4: (b"a LOGIN joe x",),
    POP3: (b"USER joe", b"PASS x"),
    SMTP: (b"AUTH PLAIN AGpvZQB4",),
    SIEVE: (b'AUTHENTICATE "PLAIN" "AGpvZQB4"',),
}
OK = b"+OK\r\n"

TOO_FAST = {
    IMAP4: b"a NO [UNAVAILABLE] Try again later\r\n",
    POP3: OK + b"-ERR [LOGIN-DELAY] Try again later\r\n",
    SMTP: b"454 4.7.0 Try again later\r\n",
    SIEVE: b'NO (TRYLATER) "Try again later."\r\n',
}
LATER = {**TOO_FAST, POP3: OK + b"-ERR [SYS/TEMP] Try again later\r\n"}
SESSIONS = {
    IMAP4: b"a NO [LIMIT] Too many sessions\r\n",
    POP3: OK + b"-ERR [IN-USE] Too many sessions\r\n",
    SMTP: b"454 4.7.0 Too many sessions\r\n",
    SIEVE: b'NO (TRYLATER) "Too many sessions."\r\n',
}
RULES = {
    **dict.fromkeys((Rule.REQ_LOGIN, Rule.USER_SLOW, Rule.UNDECIDED, Rule.PAIR_DELAY), TOO_FAST),
    **dict.fromkeys((Rule.PAIR_BLOCK, Rule.ADDRESS_BLOCK, Rule.USER_REFUSE, Rule.BLOCK, Rule.HELD, Rule.HOLD), LATER),
}
GOODBYES = {
    IMAP4: b"* BYE [UNAVAILABLE] %b, try again later\r\n",
    POP3: b"-ERR [SYS/TEMP] %b\r\n",
    SMTP: b"421 4.7.0 mx.test %b\r\n",
    SIEVE: b'BYE (TRYLATER) "%b, try again later."\r\n',
}
LIMITS = (Trouble.TOO_MANY, Trouble.SESSIONS, Trouble.TOO_FAST, Trouble.BUSY, Trouble.BLOCKED, Trouble.HELD)
NEVER = (b"AUTHENTICATIONFAILED", b"AUTHORIZATIONFAILED", b"[AUTH]", b"535", b"Authentication failed", b"denied")


class WordsTestCase(SynchronousTestCase):
    """Logins that a limit refuses."""

    def refusal(self, record: MailProtocol, rule: Rule, *groups: Any) -> tuple[Conversation, bytes]:
        conversation = guarded(record, DIALOGUE, *groups, store=ScriptedStore(refused(rule)))
        return conversation, self.says(conversation, rule, *LOGIN[record])

    def says(self, conversation: Conversation, rule: Rule, *lines: bytes) -> bytes:
        # Only those that were too many to be held back are refused at once.
        return conversation.says(*lines) if rule is Rule.HELD else afterwards(conversation, *lines)


class LoginTests(WordsTestCase):
    """Logins."""

    def test_rules(self) -> None:
        """The client is told to try again later. It may do so on the same connection: nothing has failed."""
        for rule, words in RULES.items():
            for record in LOGIN:
                conversation, heard = self.refusal(record, rule)
                self.assertEqual(heard, words[record], (rule, record.name))
                self.assertFalse(conversation.closed)
                self.assertEqual(conversation.requests, [])
                conversation.says(*LOGIN[record])
                self.assertEqual(len(conversation.requests), 1)

    def test_sessions(self) -> None:
        """A user with too many sessions hears that. The backend is not connected, and the connection stays open."""
        for record, commands in LOGIN.items():
            conversation = Conversation(record, DIALOGUE, admission=FakeAdmission())
            conversation.hear()
            self.assertEqual(conversation.says(*commands), SESSIONS[record])
            self.assertEqual(conversation.connector.routes, [])
            self.assertFalse(conversation.closed)

    def test_recipients(self) -> None:
        """Under C{smtp_auth none} a limit refuses the recipient, for now."""
        for rule, expected in (
            (Rule.REQ_LOGIN, b"450 4.7.1 Try again later\r\n"),
            (Rule.BLOCK, b"450 4.7.1 Try again later\r\n"),
            (Rule.HELD, b"450 4.7.1 Try again later\r\n"),
            (Rule.HOLD, b"451 4.3.2 Try again later\r\n"),
        ):
            conversation = guarded(SMTP, WITHOUT_LOGIN, store=ScriptedStore(*[refused(rule)] * 4))
            conversation.says(b"MAIL FROM:<a@example.org>")
            for _ in range(4):
                self.assertEqual(self.says(conversation, rule, b"RCPT TO:<joe@example.org>"), expected)
            self.assertFalse(conversation.closed)
            self.assertEqual(conversation.requests, [])

    def test_sessionsOfRecipients(self) -> None:
        """The same for a server with too many sessions."""
        conversation = Conversation(SMTP, WITHOUT_LOGIN, admission=FakeAdmission())
        conversation.hear()
        conversation.says(b"MAIL FROM:<a@example.org>")
        self.assertEqual(conversation.says(b"RCPT TO:<joe@example.org>"), b"450 4.7.1 Too many sessions\r\n")

    def test_twice(self) -> None:
        """An SMTP client whose logins come too fast for the second time gets a goodbye."""
        conversation = guarded(SMTP, DIALOGUE, store=ScriptedStore(*[refused(Rule.REQ_LOGIN)] * 2))
        self.assertEqual(afterwards(conversation, *LOGIN[SMTP]), TOO_FAST[SMTP])
        self.assertFalse(conversation.closed)
        goodbye = b"421 4.7.0 mx.test Too many logins\r\n"
        self.assertEqual(afterwards(conversation, *LOGIN[SMTP]), TOO_FAST[SMTP] + goodbye)
        self.assertTrue(conversation.closed)
        session = conversation.server.session
        self.assertEqual((session.outcome, session.reason), (Outcome.LIMITED, "limit_req login"))

    def test_twiceElsewhere(self) -> None:
        """Other protocols, and other limits, leave the connection open."""
        for record in LOGIN:
            for rule in (Rule.REQ_LOGIN, Rule.PAIR_BLOCK):
                if (record, rule) == (SMTP, Rule.REQ_LOGIN):
                    continue
                conversation = guarded(record, DIALOGUE, store=ScriptedStore(*[refused(rule)] * 5))
                for _ in range(5):
                    self.assertEqual(self.says(conversation, rule, *LOGIN[record]), RULES[rule][record])
                self.assertFalse(conversation.closed)

    def test_never(self) -> None:
        """No reply says that the credentials are wrong, and each has words of its protocol for every limit."""
        for record in LOGIN:
            server = Conversation(record, DIALOGUE).server
            lines = [server.goodbye(trouble) for trouble in LIMITS]
            lines += [record.server.wording[trouble] for trouble in LIMITS]
            if record is SMTP:
                lines += [SMTP.server.wordingWithoutLogin[trouble] for trouble in LIMITS]  # type: ignore[attr-defined]
            for line in lines:
                self.assertFalse([word for word in NEVER if word in line], line)

    def test_unknown(self) -> None:
        """A user that does not exist hears the same words at the same time."""
        for record, commands in LOGIN.items():
            heard = set()
            for isUnknown in (False, True):
                answer = Denial(Trouble.DENIED, isUnknownUser=isUnknown)
                conversation = guarded(record, store=ScriptedStore(), authenticator=FakeAuthenticator(answer))
                heard.add(conversation.says(*commands))
            self.assertEqual(len(heard), 1)


class GoodbyeTests(SynchronousTestCase):
    """The end of a connection by a limit, perhaps in the place of the greeting."""

    def test_words(self) -> None:
        """The first line of the connection is a legal one, and says to come back later."""
        texts = {Trouble.TOO_MANY: b"Too many connections", Trouble.TOO_FAST: b"Too many logins"}
        for record, form in GOODBYES.items():
            server = Conversation(record, DIALOGUE).server
            for trouble in LIMITS:
                text = texts.get(trouble, b"Service not available")
                self.assertEqual(server.goodbye(trouble), form % text, (record.name, trouble))

    def test_dismissed(self) -> None:
        """A dialogue that a limit ends says this alone."""
        for record, form in GOODBYES.items():
            conversation = Conversation(record, DIALOGUE)
            conversation.hear()
            conversation.server.dismiss(Outcome.LIMITED, Trouble.TOO_MANY)
            self.assertEqual(conversation.hear(), form % b"Too many connections")
            self.assertTrue(conversation.closed)
