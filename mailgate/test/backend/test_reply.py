"""
Tests for L{mailgate.backend.reply}: the client's answer to a backend's refusal if no authenticator has judged the
login.
"""

from __future__ import annotations

import base64
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.credentials import PasswordLogin
from mailgate.backend.mechanisms import mechanismFor
from mailgate.backend.reply import (
    LONGEST,
    imapDenial,
    isOfAccount,
    isRepeated,
    pop3Denial,
    smtpDenial,
    transactionDenial,
)
from mailgate.frontend.settings import DialogueSettings
from mailgate.login import Backend, Denial, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.session import Outcome
from mailgate.test.backend.test_connector import PASS_ON
from mailgate.testing import ROUTE, Attempt, Conversation, FakeConnector

DENIED, TEMPORARY, PERMANENT = Trouble.DENIED, Trouble.TEMPORARY, Trouble.PERMANENT
APP = b"Application-specific password required: https://support.example.com/app"
LOGIN = PasswordLogin(ROUTE.user, ROUTE.password)
UNFIT = (b"a\x00b", b"a\rb", b"a\x1b[2Jb", b"a\x7fb", b"a\x01b")
"""Texts that do not fit on a line. LF ends the line of the backend."""


def imap(text: bytes) -> Denial:
    return imapDenial(b"NO", text, LOGIN)


def pop3(text: bytes) -> Denial:
    return pop3Denial(b"-ERR" + text, LOGIN)


def smtp(said: bytes) -> Denial:
    return smtpDenial(said, LOGIN)


class RepeatedTests(SynchronousTestCase):
    """Refusals that repeat what the gateway has sent."""

    def test_token(self) -> None:
        """A token within a SASL message is found whatever the mechanism, and wherever the message is cut."""
        login = PasswordLogin(b"joe", b"the-secret-token", method="xoauth2")
        for mechanism in ("xoauth2", "oauthbearer", "plain"):
            message = mechanismFor(mechanism, login, Backend("mail.test", 143)).message
            for text in (message, message.rstrip(b"="), b"AUTH X " + message + b" unknown", message + b"A"):
                self.assertTrue(isRepeated(text, login), text)
                self.assertNotIn(message.strip(b"=")[:20], imapDenial(b"NO", text, login).answer)
        self.assertFalse(isRepeated(b"Authentication failed, see https://support.example.com/aaaaaaaaa", login))


class MeaningTests(SynchronousTestCase):
    """Code and text reach the client. They decide whether the login counts as a guess."""

    def test_imap(self) -> None:
        for trouble, texts in (
            (
                DENIED,
                (
                    b"[ALERT] " + APP,
                    b"[AUTHENTICATIONFAILED] no",
                    b"[AUTHORIZATIONFAILED] not you",
                    b"[WEBALERT https://accounts.example.com/x?y=z] web login required.",
                    b"[EXPIRED] old",
                    b"[alert] lower case",
                    b"[X-ODD (a b)] odd",
                    b"wrong",
                ),
            ),
            (
                TEMPORARY,
                (
                    b"[UNAVAILABLE] later",
                    b"[INUSE] locked",
                    b"[LIMIT] 10 are open",
                    b"[SERVERBUG] oh",
                    b"[limit 5] few",
                ),
            ),
            (
                PERMANENT,
                (
                    b"[CONTACTADMIN] disabled",
                    b"[OVERQUOTA] full",
                    b"[REFERRAL imap://joe;AUTH=*@b.example.com/] elsewhere",
                ),
            ),
        ):
            for text in texts:
                self.assertEqual(imap(text + b"\r\n"), Denial(trouble, answer=b"NO " + text))

    def test_pop3(self) -> None:
        for trouble, texts in (
            (DENIED, (b" [AUTH] no such user, or wrong password", b" [auth] x", b" wrong")),
            (TEMPORARY, (b" [IN-USE] locked", b" [LOGIN-DELAY] wait", b" [SYS/TEMP] later", b" [SYS/ODD] later")),
            (PERMANENT, (b" [SYS/PERM] broken", b" [sys/perm] broken")),
        ):
            for text in texts:
                self.assertEqual(pop3(text + b"\r\n"), Denial(trouble, answer=b"-ERR" + text))

    def test_smtp(self) -> None:
        for trouble, lines in (
            (DENIED, (b"535 5.7.8 no", b"534 5.7.9 " + APP, b"554 5.7.0 no", b"535 no", b"550 no", b"535 Error: no")),
            (TEMPORARY, (b"454 4.7.0 later", b"432 4.7.12 change your password", b"451 later", b"450 4.7.1 x")),
            (PERMANENT, (b"525 5.7.13 disabled",)),
        ):
            for line in lines:
                self.assertEqual(smtp(line + b"\r\n"), Denial(trouble, answer=line))

    def test_lastLine(self) -> None:
        """Of several lines the last one counts."""
        said = b"534-5.7.9 " + APP + b"\r\n534 5.7.9 https://support.example.com\r\n"
        self.assertEqual(smtp(said), Denial(DENIED, answer=b"534 5.7.9 https://support.example.com"))
        self.assertEqual(smtp(b"250-5.7.9 x\r\n535 y\r\n"), Denial(DENIED, answer=b"535 y"))

    def test_ours(self) -> None:
        """A refusal about our command, or about the connection to the backend, is a temporary failure in our words."""
        for text in (b"[PRIVACYREQUIRED] use TLS", b"[privacyrequired]", b"[CLIENTBUG] you"):
            self.assertEqual(imap(text), Denial(TEMPORARY))
        self.assertEqual(imapDenial(b"BAD", b"[ALERT] unknown LOGIN", LOGIN), Denial(TEMPORARY))
        for code in (b"421", b"500", b"501", b"502", b"503", b"504", b"521", b"523", b"530", b"538"):
            self.assertEqual(smtp(code + b" 5.7.8 no\r\n"), Denial(TEMPORARY), code)

    def test_noRefusal(self) -> None:
        """Anything but a refusal never becomes a reply."""
        for said in (
            b"250 2.0.0 OK",
            b"334 eA==",
            b"235 2.7.0 in",
            b"200 x",
            b"-ERR",
            b"",
            b"5355 x",
            b"535x",
            b"535_x",
        ):
            for denial in (smtp(said + b"\r\n"), transactionDenial(said + b"\r\n")):
                self.assertEqual(denial, Denial(TEMPORARY), said)

    def test_guesses(self) -> None:
        """A refusal that is not about the credentials is not a guess."""
        self.assertTrue(imap(b"[ALERT] x").refusesCredentials)
        self.assertTrue(smtp(b"534 5.7.9 x").refusesCredentials)
        for denial in (imap(b"[CONTACTADMIN] x"), pop3(b" [SYS/PERM] x"), smtp(b"525 5.7.13 x"), smtp(b"432 x")):
            self.assertFalse(denial.refusesCredentials)

    def test_account(self) -> None:
        """Some refusals are about one account and not about the backend."""
        for reply in (
            *(b"a NO [%s] x\r\n" % word for word in (b"INUSE", b"limit", b"REFERRAL imap://x/", b"CONTACTADMIN")),
            *(b"-ERR [IN-USE] x\r\n", b"-ERR [LOGIN-DELAY]\r\n", b"* x\r\na NO [OVERQUOTA] x\r\n"),
            *(b"432 x\r\n", b"525 5.7.13 x\r\n", b"525-a\r\n525\r\n"),
        ):
            self.assertTrue(isOfAccount(reply), reply)
        for reply in (
            *(b"a NO [UNAVAILABLE] x\r\n", b"a NO x [INUSE]\r\n", b"a BAD [INUSE] x\r\n", b"a NO [INUSED] x\r\n"),
            *(b"-ERR [SYS/PERM] x\r\n", b"-ERR x\r\n", b"454 x\r\n", b"535 525 x\r\n", b"5255 x\r\n", b""),
        ):
            self.assertFalse(isOfAccount(reply), reply)


class FrameTests(SynchronousTestCase):
    """The line is ours and well-formed."""

    def test_nothingSaid(self) -> None:
        """Without a usable text, the code stays and the text is ours."""
        for text in (b"", *UNFIT):
            self.assertEqual(imap(b"[ALERT] " + text).answer, b"NO [ALERT] Authentication failed")
            self.assertEqual(pop3(b" [SYS/PERM] " + text).answer, b"-ERR [SYS/PERM] Authentication failed")
            self.assertEqual(smtp(b"534 5.7.9 " + text).answer, b"534 5.7.9 Authentication failed")
            self.assertEqual(smtp(b"534 " + text).answer, b"534 Authentication failed")
            self.assertEqual((imap(text), pop3(text)), (Denial(DENIED), Denial(DENIED)))
        self.assertEqual(smtp(b"535\r\n").answer, b"535 Authentication failed")

    def test_noCode(self) -> None:
        """Clients would parse a text that begins with a bracket as a code, so it is dropped."""
        for text in (
            *(b"[", b"[]", b"[ALERT", b"[ALERT no", b"[\x01] x", b"[A\xe9] x", b"[%s] x" % (b"A" * 65)),
            *(b"[ALERT a[b] x", b"[ALERT %s] x" % (b"u" * 301), b"[X] [ALERT] y"),
        ):
            for denial in (imap(text), pop3(b" " + text)):
                self.assertNotIn(b"[", denial.answer.replace(b"[X]", b""), text)
                self.assertIs(denial.trouble, DENIED)

    def test_unfitCode(self) -> None:
        """A code that clients may not see still decides the kind of refusal."""
        self.assertEqual(imap(b"[UNAVAILABLE \xe9] x"), Denial(TEMPORARY))
        self.assertEqual(imap(b"[CONTACTADMIN \x01] x"), Denial(PERMANENT))

    def test_capabilities(self) -> None:
        """The backend's capabilities are not passed on before the hand-over."""
        for code in (b"[CAPABILITY IMAP4rev1 STARTTLS AUTH=NTLM]", b"[capability]"):
            self.assertEqual(imap(code + b" no").answer, b"NO no")
            self.assertEqual(imap(code), Denial(DENIED))

    def test_long(self) -> None:
        """A long text is cut between characters: a line of SMTP and POP3 has 512 bytes."""
        for text in (b"x" * 5000, b"\xc3\xa9" * 2500, b"x" + b"\xe2\x82\xac" * 2000, b"\xe9" * 4000):
            for line in (
                imap(b"[ALERT] " + text).answer,
                imap(text).answer,
                pop3(b" [AUTH] " + text).answer,
                smtp(b"535 5.7.8 " + text).answer,
                *transactionDenial(b"550-5.7.1 " + text + b"\r\n550 " + text + b"\r\n").answer.split(b"\r\n"),
            ):
                self.assertLessEqual(len(line), LONGEST)
                self.assertGreater(len(line), LONGEST - 4)
                line.decode("utf-8")

    def test_latin1(self) -> None:
        """A text that is not UTF-8 is treated as Latin-1."""
        for denial in (imap(b"caf\xe9"), pop3(b" caf\xe9"), smtp(b"535 caf\xe9"), transactionDenial(b"550 caf\xe9")):
            self.assertTrue(denial.answer.endswith(b"caf\xc3\xa9"))

    def test_statusOfAnotherClass(self) -> None:
        """An enhanced code that contradicts the reply code is left out."""
        for said, answer in (
            (b"535 4.7.8 no", b"535 no"),
            (b"454 5.7.8 no", b"454 no"),
            (b"535 2.0.0 OK", b"535 OK"),
            (b"535 5.7.8", b"535 5.7.8 Authentication failed"),
            (b"535 5.7.8no", b"535 5.7.8no"),
        ):
            self.assertEqual(smtp(said).answer, answer)
        self.assertEqual(transactionDenial(b"552-2.0.0 a\r\n552 4.3.4 b\r\n").answer, b"552-a\r\n552 b")

    def test_password(self) -> None:
        """A text that contains the password, in any form that the backend has received, is not passed on."""
        quoted = PasswordLogin(b"joe", b'se"same')
        message = base64.b64encode(b"\0joe\0sesame")
        for form in (b"sesame", b"SESAME", base64.b64encode(b"sesame"), message, b"x" + message + b"x"):
            said = b'unknown command "PASS ' + form + b'"'
            self.assertEqual(imap(b"[ALERT] " + said), Denial(DENIED))
            self.assertEqual(imap(b"[ALERT " + form + b"] no"), Denial(DENIED))
            self.assertEqual(pop3(b" " + said), Denial(DENIED))
            self.assertEqual(smtp(b"535 5.7.8 " + said).answer, b"535 Authentication failed")
        self.assertEqual(imapDenial(b"NO", rb'what is "LOGIN joe se\"same"', quoted), Denial(DENIED))
        for password in (None, b""):
            self.assertEqual(imapDenial(b"NO", b"no", PasswordLogin(b"joe", password)).answer, b"NO no")

    def test_oneLine(self) -> None:
        """The client always gets one line: no tag, no acceptance, no continuation."""
        pieces = (b"a OK", b"+OK", b"250 ok", b"* BYE", b"[ALERT]", b"\r", b"\0", b"]", b"5.7.8", b"-", b"\x85", b"\n")
        for said in map(b" ".join, product(pieces, repeat=3)):
            for denial, frame in (
                (imap(said), rb"NO [^\r\n\0]+"),
                (pop3(b" " + said), rb"-ERR [^\r\n\0]+"),
                (smtp(b"535 " + said.replace(b"\n", b"")), rb"535 [^\r\n\0]+"),
            ):
                if denial.answer:
                    self.assertRegex(denial.answer, b"\\A" + frame + b"\\Z")


class TransactionTests(SynchronousTestCase):
    """A sender that the backend refuses without a login."""

    def test_all(self) -> None:
        """All lines are passed on unchanged: they refuse the client's own command."""
        for trouble, said in (
            (DENIED, b"552 5.3.4 Message size exceeds fixed limit"),
            (DENIED, b"550-5.7.1 no\r\n550-\r\n550 5.7.1 see https://example.com"),
            (DENIED, b"501 5.1.7 Bad sender address syntax"),
            (DENIED, b"504 5.5.2 need fully-qualified address"),
            (DENIED, b"503 5.5.1 send HELO first"),
            (DENIED, b"555 5.5.4 Unsupported option"),
            (TEMPORARY, b"452 4.3.1 Insufficient system storage"),
            (TEMPORARY, b"450-4.1.8 a\r\n450 4.1.8 b"),
        ):
            self.assertEqual(transactionDenial(said + b"\r\n"), Denial(trouble, answer=said))

    def test_bareLineEnds(self) -> None:
        self.assertEqual(transactionDenial(b"550-a\n550 b\n").answer, b"550-a\r\n550 b")

    def test_ours(self) -> None:
        """A refusal that is not about the sender is a temporary failure in our words."""
        for code in (b"421", b"500", b"502", b"521", b"523", b"530", b"538"):
            self.assertEqual(transactionDenial(code + b" 5.7.0 no\r\n"), Denial(TEMPORARY))

    def test_lastLineAlone(self) -> None:
        """If a line before the last is unfit or has another code, only the last is passed on."""
        for before in (b"550-a\x1bb", b"250-ok", b"550-a\rb", b"junk"):
            self.assertEqual(transactionDenial(before + b"\r\n550 no\r\n").answer, b"550 no")
        self.assertEqual(transactionDenial(b"550-a\r\n550 5.7.1 \x1b\r\n").answer, b"550-a\r\n550 5.7.1 Refused")
        self.assertEqual(transactionDenial(b"550\r\n").answer, b"550 Refused")


class DialogueTests(SynchronousTestCase):
    """The client's view, and how the dialogue continues."""

    LOGIN = ((IMAP4, b"a LOGIN joe x"), (POP3, b"AUTH PLAIN AGpvZQB4"), (SMTP, b"AUTH PLAIN AGpvZQB4"))

    def test_answer(self) -> None:
        """The backend's answer replaces our texts, and the dialogue continues."""
        answers = {IMAP4: b"NO [ALERT] x", POP3: b"-ERR [AUTH] x", SMTP: b"534 5.7.9 x"}
        for (record, login), trouble in product(self.LOGIN, (DENIED, TEMPORARY, PERMANENT)):
            denial = Denial(trouble, answer=answers[record])
            conversation = Conversation(record, connector=FakeConnector(denial))
            tag = b"a " if record is IMAP4 else b""
            self.assertEqual(conversation.says(login), tag + denial.answer + b"\r\n")
            self.assertFalse(conversation.closed)
            (line,) = [line for line in conversation.logged() if line.startswith("login failed")]
            self.assertTrue(line.endswith(f', user "joe", text "{denial.answer.decode()}"'), line)
            self.assertIn(f", {trouble.value}, ", line)

    def test_counted(self) -> None:
        """A refusal of the credentials is delayed and counted; another is not."""
        settings = DialogueSettings(serverName="mx.test", authDelay=2.0, maxAuthFailures=2)
        answers = [Denial(PERMANENT, answer=b"NO [CONTACTADMIN] x")] * 9
        conversation = Conversation(IMAP4, settings, connector=FakeConnector(*answers))
        conversation.hear()
        self.assertEqual(conversation.says(*[b"a LOGIN joe x"] * 9), b"a NO [CONTACTADMIN] x\r\n" * 9)
        self.assertFalse(conversation.closed)
        answers = [Denial(DENIED, answer=b"NO [ALERT] x")] * 2
        conversation = Conversation(IMAP4, settings, connector=FakeConnector(*answers))
        conversation.hear()
        self.assertEqual(conversation.says(*[b"a LOGIN joe x"] * 2), b"")
        conversation.clock.advance(2)
        self.assertEqual(conversation.hear(), b"a NO [ALERT] x\r\n")
        conversation.clock.advance(2)
        self.assertEqual(conversation.hear(), b"a NO [ALERT] x\r\n* BYE Too many failed logins, closing connection\r\n")
        self.assertIs(conversation.server.session.outcome, Outcome.FAILURES)

    def test_judged(self) -> None:
        """If the login was judged before, the client gets our texts; a permanent refusal stays permanent."""
        for record, replies, trouble in (
            (IMAP4, (b"* OK\r\n", b"a1 NO [CONTACTADMIN] x\r\n"), PERMANENT),
            (POP3, (b"+OK\r\n", b"+OK\r\n", b"-ERR [SYS/PERM] x\r\n"), PERMANENT),
            (SMTP, (b"220 x\r\n", b"250 x\r\n", b"525 5.7.13 x\r\n"), PERMANENT),
            (IMAP4, (b"* OK\r\n", b"a1 NO [ALERT] x\r\n"), TEMPORARY),
            (POP3, (b"+OK\r\n", b"+OK\r\n", b"-ERR [AUTH] x\r\n"), TEMPORARY),
            (SMTP, (b"220 x\r\n", b"250 x\r\n", b"535 5.7.8 x\r\n"), TEMPORARY),
        ):
            attempt = Attempt(record, SMTPSettings(xclient="off", proxyAuth=True))
            attempt.accept()
            attempt.says(*replies)
            self.assertEqual(self.successResultOf(attempt.result), Denial(trouble))
            self.assertEqual(attempt.levels, ["warn" if isOfAccount(replies[-1]) else "error"])
        lasting = (b"a NO [CONTACTADMIN] ", b"-ERR [SYS/PERM] ", b"525 5.7.13 ")
        for (record, login), start in zip(self.LOGIN, lasting, strict=True):
            conversation = Conversation(record, connector=FakeConnector(Denial(PERMANENT)))
            conversation.hear()
            self.assertTrue(conversation.says(login).startswith(start))

    def test_sender(self) -> None:
        """A refused sender leaves a dialogue in which each recipient is checked, and RSET helps."""
        refusal = Denial(DENIED, answer=b"552-5.3.4 a\r\n552 5.3.4 b")
        connector = FakeConnector(refusal, refusal)
        conversation = Conversation(SMTP, SMTPSettings(auth=("none",)), connector=connector)
        conversation.says(b"EHLO x", b"MAIL FROM:<a@b> SIZE=99999999")
        for _ in range(2):
            self.assertEqual(conversation.says(b"RCPT TO:<c@d>"), b"552-5.3.4 a\r\n552 5.3.4 b\r\n")
        self.assertEqual(conversation.says(b"MAIL FROM:<a@b>")[:3], b"503")
        self.assertEqual(conversation.says(b"RSET", b"MAIL FROM:<a@b>"), b"250 2.0.0 OK\r\n" * 2)
        self.assertFalse(conversation.closed)
        conversation.says(b"RCPT TO:<c@d>")
        self.assertEqual([one.envelope.mail for one in conversation.requests][-1], b"MAIL FROM:<a@b>")
        (first, *_) = [line for line in conversation.logged() if line.startswith("login failed")]
        self.assertTrue(first.endswith(r'text "552-5.3.4 a\r\n552 5.3.4 b"'), first)

    def test_recipientPassedOn(self) -> None:
        """
        With proxy_pass_error_message on a refused greeting is the reply to the recipient, and the connection stays
        open.
        """
        from mailgate.test.support.loginscripts import ANYBODY

        for greeting, expected in (
            (b"554 5.7.1 Client host blocked\r\n", Denial(DENIED, answer=b"554 5.7.1 Client host blocked")),
            (b"450 4.7.1 later\r\n", Denial(TEMPORARY, answer=b"450 4.7.1 later")),
            (b"421 busy\r\n", Denial(TEMPORARY)),
        ):
            attempt = Attempt(SMTP, PASS_ON, **ANYBODY)
            attempt.accept()
            attempt.says(greeting)
            self.assertEqual(self.successResultOf(attempt.result), expected)
            self.assertEqual(attempt.levels, ["error"])
