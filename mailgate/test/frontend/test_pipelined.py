"""
Clients that do not wait for the reply to their login or to a recipient. If that is refused, the commands behind it are
valid at the wrong moment: they are refused with a reply and do not end the connection.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.settings import DialogueSettings
from mailgate.login import Denial, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.pop3.settings import POP3Settings
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.session import Outcome
from mailgate.testing import Conversation, FakeAuthenticator, hearEverything
from mailgate.tls.settings import TLSSettings

REFUSED = Denial(Trouble.DENIED, b"no")


def converse(record: Any, *groups: Any) -> Conversation:
    """A conversation past its greeting in which all logins are refused."""
    conversation = Conversation(record, *groups, authenticator=FakeAuthenticator(*[REFUSED] * 10))
    conversation.hear()
    return conversation


class IMAPTests(SynchronousTestCase):
    """Commands that need a login."""

    lines = (
        b"a LOGIN joe x",
        b"b SELECT INBOX",
        b"c FETCH 1:* (FLAGS UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (DATE)])",
        b"d UID SEARCH UNSEEN SINCE 1-Jan-2020 NOT DELETED",
        b'e LIST "" "*"',
        b"f STATUS INBOX (MESSAGES)",
        b"g ENABLE CONDSTORE",
        b"h IDLE",
        b"i LOGOUT",
    )

    def test_refusedLogin(self) -> None:
        """Each is refused with its tag and a hint; LOGOUT is obeyed."""
        later = b"".join(tag.to_bytes(1, "big") + b" BAD Log in first\r\n" for tag in b"bcdefgh")
        heard = b"a NO no\r\n" + later + b"* BYE Logging out\r\ni OK completed\r\n"
        self.assertEqual(converse(IMAP4).says(*self.lines), heard)

    def test_notCounted(self) -> None:
        """They are not errors, but the limit of all commands holds."""
        conversation = converse(IMAP4)
        conversation.says(*[b"a SELECT INBOX"] * 100)
        self.assertFalse(conversation.closed)
        conversation = converse(IMAP4, DialogueSettings(serverName="mx.test", maxCommands=10))
        conversation.says(*[b"a SELECT INBOX"] * 11)
        self.assertIs(conversation.server.session.outcome, Outcome.COMMANDS)

    def test_message(self) -> None:
        """A message behind APPEND is discarded, and not parsed as commands."""
        message = b"From: a\r\n\r\nx LOGOUT\r\ny LOGIN joe {5+}\r\n\0" + b"z" * 9000
        sent = b"a APPEND Sent (\\Seen) {%d+}\r\n%b\r\nb NOOP\r\n" % (len(message), message)
        heard = b"* OK IMAP4 ready\r\na BAD Log in first\r\nb OK completed\r\n"
        self.assertEqual(hearEverything(lambda: Conversation(IMAP4), sent), heard)
        for cut in (*range(1, 60), 5000, *range(len(sent) - 12, len(sent))):
            self.assertEqual(hearEverything(lambda: Conversation(IMAP4), sent[:cut], sent[cut:]), heard)

    def test_severalLiterals(self) -> None:
        """Several literals, and text between them, are discarded. A synchronizing literal ends the command."""
        sent = b"a APPEND {3+}\r\nfoo (\\Seen) {5+}\r\nb X\r\n {2+}\r\n\r\n\r\nc NOOP\r\n"
        self.assertEqual(converse(IMAP4).send(sent), b"a BAD Log in first\r\nc OK completed\r\n")
        sent = b"a APPEND {3+}\r\nfoo {4}\r\nb NOOP\r\n"
        self.assertEqual(converse(IMAP4).send(sent), b"a BAD Log in first\r\nb OK completed\r\n")

    def test_garbled(self) -> None:
        """A line with a NUL behind such a literal is refused with the tag and forgotten."""
        sent = b"a APPEND {3+}\r\nfoo\0\r\nb NOOP\r\n"
        self.assertEqual(converse(IMAP4).send(sent), b"a BAD invalid command\r\nb OK completed\r\n")

    def test_bounded(self) -> None:
        """A message of any announced size takes no memory and is not parsed as commands."""
        for size in (b"9999999999", b"9" * 21, b"9" * 4000, b"0" * 30 + b"9999999999"):
            conversation = converse(IMAP4)
            conversation.send(b"a APPEND Sent {%b+}\r\n" % size)
            for _ in range(10):
                self.assertEqual(conversation.send(b"b NOOP\r\n" * 10000), b"")
                self.assertEqual(len(conversation.server.buffer), 0)

    def test_unknown(self) -> None:
        """An unknown command is an error as usual."""
        conversation = converse(IMAP4)
        conversation.says(*[b"a SELEKT INBOX"] * 5)
        self.assertIs(conversation.server.session.outcome, Outcome.ERRORS)


class POP3Tests(SynchronousTestCase):
    """Commands of the TRANSACTION state (RFC 1939, section 5)."""

    def test_refusedLogin(self) -> None:
        """Each is refused with a reply; QUIT is obeyed."""
        lines = (b"USER joe", b"PASS x", b"STAT", b"LIST", b"UIDL", b"RETR 1", b"TOP 1 0", b"DELE 1", b"RSET", b"QUIT")
        heard = b"+OK\r\n-ERR [AUTH] no\r\n" + b"-ERR Log in first\r\n" * 7 + b"+OK\r\n"
        self.assertEqual(converse(POP3).says(*lines), heard)

    def test_codeOfText(self) -> None:
        """With AUTH-RESP-CODE the service's text gets [AUTH] unless it has a code; a temporary failure never does."""
        for text, heard in (
            (b"no", b"-ERR [AUTH] no\r\n"),
            (b"[IN-USE] no", b"-ERR [IN-USE] no\r\n"),
        ):
            for announced in (True, False):
                settings = POP3Settings(capabilities=("auth-resp-code",) if announced else ("TOP",))
                answers = FakeAuthenticator(Denial(Trouble.DENIED, text), Denial(Trouble.TEMPORARY, text))
                conversation = Conversation(POP3, settings, authenticator=answers)
                conversation.hear()
                answer = conversation.says(b"AUTH PLAIN AGpvZQB4")
                self.assertEqual(answer, heard if announced else b"-ERR " + text + b"\r\n")
                self.assertIn(b"-ERR [SYS/TEMP] ", conversation.says(b"AUTH PLAIN AGpvZQB4"))


class SMTPTests(SynchronousTestCase):
    """DATA, and other commands that need a login or a recipient."""

    letter = (b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"DATA", b"RSET")

    def test_refusedRecipients(self) -> None:
        """Five pipelined messages with refused recipients do not end the connection."""
        conversation = converse(SMTP, SMTPSettings(auth=("none",)))
        refused = b"250 2.0.0 OK\r\n535 5.7.0 no\r\n554 5.5.1 No valid recipients\r\n250 2.0.0 OK\r\n"
        self.assertEqual(conversation.says(*self.letter * 6, b"QUIT"), refused * 6 + b"221 2.0.0 Bye\r\n")

    def test_withoutMail(self) -> None:
        """DATA without MAIL is out of sequence."""
        heard = b"503 5.5.1 Bad sequence of commands\r\n"
        self.assertEqual(converse(SMTP, SMTPSettings(auth=("none",))).says(b"DATA"), heard)

    def test_withoutLogin(self) -> None:
        """If a login is required, the replies say so."""
        conversation = converse(SMTP)
        lines = (b"MAIL FROM:<a@b>", b"DATA", b"BURL x LAST", b"VRFY joe", b"EXPN all", b"ETRN x", b"TURN")
        self.assertEqual(conversation.says(*lines * 3), b"530 5.7.1 Authentication required\r\n" * 21)
        self.assertFalse(conversation.closed)

    def test_inClear(self) -> None:
        """If TLS is required, the replies say so (RFC 3207, section 4)."""
        conversation = converse(SMTP, SMTPSettings(auth=("none", "plain")), TLSSettings(starttls="only"))
        lines = (*self.letter[:3], b"BDAT 0", b"AUTH PLAIN AGpvZQB4", b"AUTH", b"VRFY joe")
        heard = b"530 5.7.0 Must issue a STARTTLS command first\r\n" * 21
        self.assertEqual(conversation.says(*lines * 3), heard)
        self.assertFalse(conversation.closed)

    def test_noAuthentication(self) -> None:
        """Without methods AUTH is an unknown command."""
        conversation = converse(SMTP, SMTPSettings(auth=("none",)))
        heard = b"502 5.5.1 Authentication is not offered here\r\n"
        self.assertEqual(conversation.says(b"AUTH PLAIN AGpvZQB4"), heard)

    def test_tooLongResponse(self) -> None:
        """A response that is too long is refused as in RFC 4954, section 4."""
        conversation = converse(SMTP)
        heard = conversation.says(b"AUTH PLAIN", b"QUFB" * 5000)
        self.assertTrue(heard.startswith(b"334 \r\n500 5.5.6 Authentication exchange line is too long\r\n"))
        self.assertIs(conversation.server.session.outcome, Outcome.TOO_LONG)


class InClearTests(SynchronousTestCase):
    """C{starttls only}: a login in the clear is not an error, however often it is tried."""

    def test_imap(self) -> None:
        """LOGIN and AUTHENTICATE are refused before the gateway asks for a literal."""
        conversation = converse(IMAP4, TLSSettings(starttls="only"))
        lines = (b"a LOGIN joe x", b"a LOGIN joe {1}", b"a LOGIN {3}", b"a AUTHENTICATE PLAIN", b"a AUTHENTICATE X")
        heard = b"a NO [PRIVACYREQUIRED] Use STARTTLS first\r\n" * 15
        self.assertEqual(conversation.says(*lines * 3), heard)
        self.assertFalse(conversation.closed)

    def test_secrets(self) -> None:
        """Credentials in the clear are neither logged nor judged."""
        for record, lines in (
            (IMAP4, (b"a LOGIN joe secret", b"a LOGIN joe {6+}", b"secret")),
            (POP3, (b"USER joe", b"PASS secret")),
            (SMTP, (b"AUTH PLAIN AGpvZQBzZWNyZXQ=",)),
        ):
            conversation = converse(record, TLSSettings(starttls="only"))
            conversation.says(*lines)
            self.assertEqual((conversation.requests, conversation.logged()), ([], []))


class TagTests(SynchronousTestCase):
    """An IMAP client waits for a reply with its tag."""

    def test_long(self) -> None:
        """A tag up to Dovecot's limit is accepted. A longer one is refused, with the tag in the reply."""
        tag = b"t" * 126
        self.assertEqual(converse(IMAP4).says(tag + b" NOOP"), tag + b" OK completed\r\n")
        for length in (127, 1000, 4000):
            tag = b"t" * length
            heard = converse(IMAP4).says(tag + b" NOOP", tag + b" SELECT x", b"a NOOP")
            self.assertEqual(heard, (tag + b" BAD invalid command\r\n") * 2 + b"a OK completed\r\n")

    def test_request(self) -> None:
        """The login at the backend uses the client's tag, which has a limit."""
        conversation = converse(IMAP4)
        conversation.says(b"t" * 126 + b" LOGIN joe x", b"t" * 127 + b" LOGIN joe x")
        self.assertEqual([request.tag for request in conversation.requests], [b"t" * 126])
