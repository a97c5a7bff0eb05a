"""
Tests that no line of the log holds a secret, at level debug, for all protocols and methods.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.pop3.settings import POP3Settings
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.test.support.httpauthenticator import ACCEPTED
from mailgate.test.support.wholelogin import WholeLogin

PASSWORD = b"s3same-0f-the-client"
TOKEN = b"ya29.t0ken-0f-the-client"
DIGEST = b"0123456789abcdef0123456789abcdef"
MASTER = "m4ster-0f-the-backend"
KEY = "k3y-0f-the-configuration"
COOKIE = "c00kie-0f-the-service"
USER = b"joe"

WORDS = ("plain", "login", "cram-md5", "external", "xoauth2", "oauthbearer")
SETTINGS: dict[Any, Any] = {
    IMAP4: IMAP4Settings(auth=WORDS),
    POP3: POP3Settings(auth=(*WORDS, "apop")),
    SMTP: SMTPSettings(auth=WORDS, proxyAuth=True),
}

MESSAGES = {
    b"PLAIN": (b"\0" + USER + b"\0" + PASSWORD,),
    b"LOGIN": (USER, PASSWORD),
    b"CRAM-MD5": (USER + b" " + DIGEST,),
    b"EXTERNAL": (USER,),
    b"XOAUTH2": (b"user=" + USER + b"\1auth=Bearer " + TOKEN + b"\1\1",),
    b"OAUTHBEARER": (b"n,a=" + USER + b",\1auth=Bearer " + TOKEN + b"\1\1",),
}
"""What the client sends in each mechanism, before base64."""


def encoded(text: bytes) -> bytes:
    return base64.b64encode(text)


SECRETS = (PASSWORD, TOKEN, DIGEST, *(text.encode() for text in (MASTER, KEY, COOKIE)))
FORBIDDEN = frozenset(
    form.decode("ascii")
    for secret in (*SECRETS, *(text for texts in MESSAGES.values() for text in texts if text != USER))
    for form in ({secret, encoded(secret)} if secret.isascii() and b"\0" not in secret else {encoded(secret)})
)
"""The secrets, and the messages with them, as they are and in base64."""


@frozen
class Login:
    """
    One way to log in.

    @ivar record: the protocol.
    @ivar name: what it is.
    @ivar lines: what the client sends.
    """

    record: Any
    name: str
    lines: tuple[bytes, ...]


def commands() -> Iterator[Login]:
    """Logins by commands of their own."""
    quoted = b'a LOGIN "joe" "' + PASSWORD + b'"'
    size = len(PASSWORD)
    yield Login(IMAP4, "LOGIN", (b"a LOGIN joe " + PASSWORD,))
    yield Login(IMAP4, "LOGIN quoted", (quoted,))
    yield Login(IMAP4, "LOGIN with a literal", (b"a LOGIN joe {%d}" % size, PASSWORD))
    yield Login(IMAP4, "LOGIN with literals", (b"a LOGIN {3+}\r\njoe {%d+}\r\n" % size + PASSWORD,))
    yield Login(POP3, "PASS", (b"USER joe", b"PASS " + PASSWORD))
    yield Login(POP3, "APOP", (b"APOP joe " + DIGEST,))


def exchanges() -> Iterator[Login]:
    """Logins by SASL, with an initial response and without."""
    for record, command in ((IMAP4, b"a AUTHENTICATE "), (POP3, b"AUTH "), (SMTP, b"AUTH ")):
        for name, texts in MESSAGES.items():
            first, *others = map(encoded, texts)
            yield Login(record, f"{name.decode()}", (command + name, first, *others))
            if name != b"CRAM-MD5":
                yield Login(record, f"{name.decode()} at once", (command + name + b" " + first, *others))


LOGINS = (*commands(), *exchanges())

MISTAKES: dict[Any, tuple[bytes, ...]] = {
    IMAP4: (
        PASSWORD,
        b"a " + PASSWORD,
        b"a LOGIN",
        b"a LOGIN joe " + PASSWORD + b" " + TOKEN,
        b"a NOOP " + PASSWORD,
        b"a SELECT " + PASSWORD,
        b'a ID ("password" "' + PASSWORD + b'")',
        PASSWORD + b" NOOP",
        b"a AUTHENTICATE " + encoded(PASSWORD),
        b"a LOGIN joe\r" + PASSWORD,
    ),
    POP3: (PASSWORD, b"USER " + PASSWORD, b"CAPA " + PASSWORD, b"RETR " + PASSWORD, b"AUTH " + encoded(PASSWORD)),
    SMTP: (
        PASSWORD,
        b"EHLO <" + PASSWORD + b">",
        b"NOOP " + PASSWORD,
        b"VRFY " + PASSWORD,
        b"AUTH " + encoded(PASSWORD),
        b"RCPT " + PASSWORD,
        b"BDAT " + PASSWORD,
    ),
}
"""Secrets in the place of other things."""


def answering(record: Any, echoes: bool) -> Any:
    """Return the replies of a backend. With C{echoes} it refuses the login, and repeats what it got."""
    tag = [b"a"]

    def reply(line: bytes) -> bytes:
        said = b" you said " + line if echoes else b" done"
        word = line.split(b" ")[0].upper()
        if record is IMAP4:
            if b" " in line and not line.endswith(b"}"):
                tag[0] = line.split(b" ")[0]
            return tag[0] + (b" NO [AUTHENTICATIONFAILED]" if echoes else b" OK") + said + b"\r\n"
        if record is POP3:
            return b"+OK\r\n" if word == b"USER" else (b"-ERR" if echoes else b"+OK") + said + b"\r\n"
        if word == b"EHLO":
            return b"250-mx\r\n250 AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER EXTERNAL\r\n"
        return (b"535 5.7.8" if echoes else b"235 2.7.0") + said + b"\r\n"

    return reply


GREETINGS = {IMAP4: b"* OK ready\r\n", POP3: b"+OK ready\r\n", SMTP: b"220 ready\r\n"}


class SecretTests(SynchronousTestCase):
    """Lines at level debug."""

    def begin(self, record: Any) -> WholeLogin:
        http = {"headers": ((b"X-Auth-Key", KEY.encode()), (b"Authorization", b"Basic " + encoded(KEY.encode())))}
        run = WholeLogin(record, SETTINGS[record], http=http, cached=True)
        if record is SMTP:
            run.says(b"EHLO laptop")
        return run

    def play(self, login: Login) -> WholeLogin:
        """Return a login, as far as its question to the service."""
        run = self.begin(login.record)
        for line in login.lines:
            run.says(line)
        self.assertEqual(len(run.agent.asked), 1, (login, run.lines))
        return run

    def check(self, run: WholeLogin, about: Any) -> None:
        self.assertGreater(len(run.lines), 1)
        for line in run.lines:
            for form in FORBIDDEN:
                self.assertNotIn(form, line, about)

    def test_forms(self) -> None:
        """The test looks for each secret, and for its base64."""
        for secret in SECRETS:
            self.assertLessEqual({secret.decode(), encoded(secret).decode()}, FORBIDDEN)
        self.assertGreater(len(LOGINS), 30)

    def test_accepted(self) -> None:
        """A login that service and backend accept; the service sends a master password and a cookie."""
        for login in LOGINS:
            run = self.play(login)
            run.answer(*ACCEPTED, "Auth-User: master", f"Auth-Pass: {MASTER}", f"Set-Cookie: {COOKIE}")
            run.serve(GREETINGS[login.record], answering(login.record, False))
            self.assertIn("logged in", run.steps, login)
            self.check(run, login)

    def test_ownPassword(self) -> None:
        """The same with the client's own password or token for the backend."""
        for login in LOGINS:
            run = self.play(login)
            run.answer()
            if run.reactor.tcpClients:
                run.serve(GREETINGS[login.record], answering(login.record, False))
            self.check(run, login)

    def test_backendRefuses(self) -> None:
        """A backend that refuses the login and repeats what it got."""
        for login in LOGINS:
            run = self.play(login)
            run.answer(*ACCEPTED, f"Auth-Pass: {MASTER}")
            run.serve(GREETINGS[login.record], answering(login.record, True))
            self.assertIn("backend attempt failed", run.steps, login)
            self.check(run, login)

    def test_refused(self) -> None:
        """A login that the service refuses; its headers repeat the client's secret."""
        for login in LOGINS:
            run = self.play(login)
            asked = run.agent.asked[0][2].decode()
            secret = asked.partition("\r\nAuth-Pass: ")[2].partition("\r\n")[0]
            run.answer("Auth-Status: no", "Auth-Wait: 0", f"Auth-Server: {secret}", f"X: {secret}", f"Y: {COOKIE}")
            self.assertIn("login failed", run.steps, login)
            self.check(run, login)

    def test_mistakes(self) -> None:
        """Secrets where the client should have sent something else."""
        for record, lines in MISTAKES.items():
            for line in lines:
                run = self.begin(record)
                run.says(line)
                self.check(run, line)

    def test_responses(self) -> None:
        """Invalid and cancelled responses."""
        for record, command in ((IMAP4, b"a AUTHENTICATE PLAIN"), (POP3, b"AUTH PLAIN"), (SMTP, b"AUTH PLAIN")):
            for response in (PASSWORD, b"*", encoded(PASSWORD), PASSWORD + b" " + PASSWORD):
                run = self.begin(record)
                run.says(command)
                run.says(response)
                self.assertIn("SASL response received", run.steps)
                self.check(run, (record.name, response))

    def test_lengths(self) -> None:
        """The lines about a password do not depend on its length."""
        for record, lines in (
            (IMAP4, (b"a LOGIN joe %b", b"a LOGIN joe {%d}\r\n%b")),
            (POP3, (b"USER joe\r\nPASS %b", b"PASS %b", b"%b")),
            (SMTP, (b"AUTH PLAIN %b",)),
        ):
            for line in lines:
                logged = []
                for length in (5, 40):
                    secret = b"x" * length
                    if line.startswith(b"AUTH"):
                        secret = encoded(b"\0joe\0" + secret)
                    run = self.begin(record)
                    run.says(line % ((len(secret), secret) if b"%d" in line else secret))
                    logged.append(run.lines)
                self.assertEqual(*logged)
