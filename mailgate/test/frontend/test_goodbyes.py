"""
Tests for L{mailgate.frontend.goodbyes}: every end of a connection before the relay has its goodbye, in the segment of
the last reply, in each protocol with goodbyes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import evolve, frozen
from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.protocol import MailProtocol
from mailgate.frontend.settings import DialogueSettings
from mailgate.login import Denial, Refusal, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.sieve import SIEVE
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.session import Outcome
from mailgate.testing import Conversation, FakeAuthenticator, FakeConnector

DIALOGUE = DialogueSettings(serverName="mx.test")
CLOSING = Denial(Trouble.DENIED, b"no", close=True)
LOGIN = {IMAP4: b"a LOGIN joe x\r\n", POP3: b"USER joe\r\nPASS x\r\n", SMTP: b"AUTH PLAIN AGpvZQB4\r\n"}
LOGIN[SIEVE] = b'AUTHENTICATE "PLAIN" "AGpvZQB4"\r\n'
START = {IMAP4: b"a AUTHENTICATE PLAIN\r\n", POP3: b"AUTH PLAIN\r\n", SMTP: b"AUTH PLAIN\r\n"}


@frozen
class End:
    """The input that makes the gateway close, the beginning of the C{reply} before the goodbye, and the outcome."""

    record: MailProtocol
    sends: bytes
    reply: bytes
    text: bytes
    outcome: Outcome
    dialogue: DialogueSettings = DIALOGUE
    groups: tuple[Any, ...] = ()
    answer: Denial | None = None
    says: Refusal | Exception | None = None

    def play(self) -> tuple[Conversation, list[bytes]]:
        """Play the conversation. Return the output of each step, without the greeting."""
        conversation = Conversation(
            self.record,
            self.dialogue,
            *self.groups,
            authenticator=FakeAuthenticator(*[self.answer] * 2) if self.answer else None,
            connector=FakeConnector(self.says) if self.says else None,
        )
        written: list[bytes] = []
        write = conversation.transport.write
        conversation.transport.write = lambda data: written.append(data) or write(data)  # type: ignore
        conversation.send(self.sends)
        return conversation, written


def ends() -> Iterator[End]:
    """All ends that follow a reply."""
    errors, commands = (evolve(DIALOGUE, maxErrors=2, maxCommands=most) for most in (1000, 1))
    refused, tooMany = b"Refused", b"Too many commands"
    yield End(IMAP4, b"a X\r\nb Y\r\n", b"b BAD ", b"Too many invalid commands", Outcome.ERRORS, errors)
    yield End(SMTP, b"X\r\nY\r\n", b"500 ", b"Too many invalid commands", Outcome.ERRORS, errors)
    yield End(IMAP4, b"a NOOP\r\nb NOOP\r\n", b"b BAD ", tooMany, Outcome.COMMANDS, commands)
    yield End(SMTP, b"NOOP\r\nNOOP\r\n", b"500 ", tooMany, Outcome.COMMANDS, commands)
    yield End(IMAP4, START[IMAP4] + b"AA==\r\n", b"a BAD ", tooMany, Outcome.COMMANDS, commands)
    yield End(SMTP, START[SMTP] + b"AA==\r\n", b"500 ", tooMany, Outcome.COMMANDS, commands)
    yield End(IMAP4, b"a LOGIN " + b"x" * 5000, b"a BAD ", b"Command too long", Outcome.TOO_LONG)
    yield End(IMAP4, START[IMAP4] + b"x" * 20000, b"a BAD ", b"Command too long", Outcome.TOO_LONG)
    yield End(SMTP, b"x" * 5000, b"500 ", b"Command too long", Outcome.TOO_LONG)
    yield End(IMAP4, b"a X {3+}\r\n", b"a BAD ", b"Data of a refused command cannot be skipped", Outcome.ERRORS)
    yield End(IMAP4, b"a LOGIN {9999+}\r\n", b"a BAD ", b"Data of a refused command cannot be skipped", Outcome.ERRORS)
    yield End(SMTP, b"BDAT\r\n", b"501 ", b"Data of a refused command cannot be skipped", Outcome.NO_SIZE)
    late = (SMTPSettings(greetingDelay=5),)
    yield End(SMTP, b"EHLO x\r\n", b"503 ", b"Client spoke before the greeting", Outcome.EARLY, groups=late)
    anybody = (SMTPSettings(auth=("none",)),)
    rcpt = b"MAIL FROM:<a>\r\nRCPT TO:<b>\r\n"
    yield End(SMTP, rcpt, b"535 5.7.0 no\r\n", refused, Outcome.DENIED, groups=anybody, answer=CLOSING)
    for record, no in ((IMAP4, b"a NO no\r\n"), (SMTP, b"535 5.7.0 no\r\n")):
        yield End(record, LOGIN[record], no, refused, Outcome.DENIED, answer=CLOSING)
        yield End(record, LOGIN[record], no, refused, Outcome.BACKEND_REFUSED, says=Refusal(no))
        few = evolve(DIALOGUE, maxAuthFailures=1)
        answer = evolve(CLOSING, close=False)
        yield End(record, LOGIN[record], no, b"Too many failed logins", Outcome.FAILURES, few, answer=answer)
    busy = Denial(Trouble.TEMPORARY, close=True)
    yield End(IMAP4, LOGIN[IMAP4], b"a NO [UNAVAILABLE] ", refused, Outcome.DENIED, answer=busy)
    yield End(SMTP, LOGIN[SMTP], b"454 ", refused, Outcome.DENIED, answer=busy)


def sieveEnd(sends: bytes, outcome: Outcome, dialogue: DialogueSettings = DIALOGUE, **answers: Any) -> End:
    """An end in ManageSieve."""
    return End(SIEVE, sends, b"", b"", outcome, dialogue, **answers)


class GoodbyeTests(SynchronousTestCase):
    """The last line to the client."""

    def test_behindReply(self) -> None:
        """The goodbye is the last line, in the segment of the reply before it."""
        for end in ends():
            conversation, written = end.play()
            self.assertIs(conversation.server.session.outcome, end.outcome, end)
            self.assertTrue(conversation.closed)
            last = written[-1]
            self.assertTrue(last.startswith(end.reply), (end, written))
            goodbye = b"* BYE " if end.record is IMAP4 else b"421 4."
            *_, line = last.removesuffix(b"\r\n").split(b"\r\n")
            self.assertTrue(line.startswith(goodbye), (end, written))
            self.assertTrue(line.endswith(end.text + b", closing connection"), (end, written))
            self.assertEqual(b"".join(written).count(b", closing connection"), 1)

    def test_pop3(self) -> None:
        """POP3 has no goodbye after the last reply: each line answers a command."""
        errors, commands = (evolve(DIALOGUE, maxErrors=2, maxCommands=most) for most in (1000, 1))
        for end in (
            End(POP3, b"X\r\nY\r\n", b"-ERR ", b"", Outcome.ERRORS, errors),
            End(POP3, b"NOOP\r\nNOOP\r\n", b"-ERR ", b"", Outcome.COMMANDS, commands),
            End(POP3, b"x" * 5000, b"-ERR ", b"", Outcome.TOO_LONG),
            End(POP3, LOGIN[POP3], b"-ERR [AUTH] no\r\n", b"", Outcome.DENIED, answer=CLOSING),
            End(POP3, LOGIN[POP3], b"-ERR no\r\n", b"", Outcome.BACKEND_REFUSED, says=Refusal(b"-ERR no\r\n")),
        ):
            conversation, written = end.play()
            self.assertIs(conversation.server.session.outcome, end.outcome)
            self.assertTrue(written[-1].startswith(end.reply), written)
            self.assertEqual(written[-1].count(b"\r\n"), 1)

    def test_sieve(self) -> None:
        """In ManageSieve a goodbye may answer a command (RFC 5804, section 1.2), or follow a refusal."""
        commands, few = evolve(DIALOGUE, maxCommands=1), evolve(DIALOGUE, maxAuthFailures=1)
        wrong = evolve(CLOSING, close=False)
        invalid = b'NO "Error in MANAGESIEVE command received by server."\r\n'
        closing = b'BYE "%b, closing connection"\r\n'
        end, login = sieveEnd, LOGIN[SIEVE]
        for expected, each in (
            ([invalid * 2, b'BYE "Too many invalid MANAGESIEVE commands."\r\n'], end(b"X\r\n" * 3, Outcome.ERRORS)),
            (
                [b'OK "NOOP Completed"\r\n', closing % b"Too many commands"],
                end(b"NOOP\r\n" * 2, Outcome.COMMANDS, commands),
            ),
            ([b'BYE "Input buffer full, aborting"\r\n'], end(b"x" * 20000, Outcome.TOO_LONG)),
            ([b'NO "no"\r\n' + closing % b"Refused"], end(login, Outcome.DENIED, answer=CLOSING)),
            ([b'NO "no"\r\n' + closing % b"Too many failed logins"], end(login, Outcome.FAILURES, few, answer=wrong)),
            ([b'NO "a"\r\n' + closing % b"Refused"], end(login, Outcome.BACKEND_REFUSED, says=Refusal(b'NO "a"\r\n'))),
        ):
            conversation, written = each.play()
            self.assertIs(conversation.server.session.outcome, each.outcome)
            self.assertTrue(conversation.closed)
            self.assertEqual(b"".join(written), b"".join(expected))

    def test_saidAlready(self) -> None:
        """If the backend's reply has a goodbye, the gateway adds none."""
        for record, said in (
            (IMAP4, b"* BYE too busy\r\n"),
            (IMAP4, b"* bye too busy\r\na NO no\r\n"),
            (SMTP, b"421 too busy\r\n"),
            (SMTP, b"421-too\r\n421 busy\r\n"),
            (SIEVE, b'BYE (TRYLATER) "too busy"\r\n'),
        ):
            conversation, written = End(record, LOGIN[record], b"", b"", Outcome.DENIED, says=Refusal(said)).play()
            self.assertEqual(written, [said])
            self.assertTrue(conversation.closed)

    def test_notSaid(self) -> None:
        """A word in the middle of a line is not a goodbye."""
        for record, said in ((IMAP4, b"a NO * BYE\r\n"), (SMTP, b"535 421\r\n"), (SIEVE, b'NO "BYE"\r\n')):
            _, written = End(record, LOGIN[record], b"", b"", Outcome.DENIED, says=Refusal(said)).play()
            self.assertIn(b"Refused, closing connection", written[-1])

    def test_alone(self) -> None:
        """If no command waits for its reply, only the goodbye is sent."""
        lines = {
            IMAP4: (b"* BYE ", b"* BYE ", b"* BYE "),
            POP3: (b"-ERR [SYS/TEMP] ", b"-ERR ", b"-ERR [SYS/TEMP] "),
            SMTP: (b"421 4.3.0 ", b"421 4.4.2 ", b"421 4.3.2 "),
        }
        for record, (internal, timeout, stopping) in lines.items():
            broken = End(record, LOGIN[record], b"", b"", Outcome.INTERNAL, says=ZeroDivisionError())
            _, written = broken.play()
            self.assertEqual(written[-1], internal + b"Internal server error, closing connection\r\n")
            conversation = Conversation(record, DIALOGUE)
            conversation.hear()
            conversation.clock.advance(60)
            self.assertEqual(conversation.hear(), timeout + b"Timeout, closing connection\r\n")
            conversation = Conversation(record, DIALOGUE)
            conversation.hear()
            conversation.dismiss()
            self.assertEqual(conversation.hear(), stopping + b"Gateway is shutting down, closing connection\r\n")

    def test_handshake(self) -> None:
        """During a handshake there is no goodbye."""
        conversation = Conversation(IMAP4, DIALOGUE, IMAP4Settings(), ssl=True)
        conversation.clock.advance(60)
        self.assertEqual(conversation.hear(), b"")
        self.assertTrue(conversation.transport.aborted)

    def test_worded(self) -> None:
        """Each protocol has a complete line for every trouble."""
        for record in (IMAP4, POP3, SMTP, SIEVE):
            self.assertEqual(set(record.server.wording), set(Trouble))
            for line in record.server.wording.values():
                self.assertNotIn(b"\n", line)
                self.assertNotIn(b"%", line)
