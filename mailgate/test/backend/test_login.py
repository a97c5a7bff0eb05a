"""
Tests for the logins at backends: L{mailgate.protocols.imap4.client.IMAP4Client},
L{mailgate.protocols.pop3.client.POP3Client} and L{mailgate.protocols.smtp.client.SMTPClient}.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from attrs import frozen
from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.settings import ProxySettings
from mailgate.frontend.protocol import MailProtocol
from mailgate.login import Backend, BackendTLS, Client, Credentials, Denial, Envelope, Method, Refusal, Route, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.protocols.smtp.trust import xtext
from mailgate.test.backend.test_client import FIRST, PASS_ON, SECOND, leftOver
from mailgate.testing import Attempt, routeTo

TEMPORARY = Denial(Trouble.TEMPORARY)
INITIAL_RESPONSE = base64.b64encode(b"\0joe\0sesame")
STARTTLS = Backend("192.0.2.99", 143, BackendTLS.STARTTLS)


@frozen
class Script:
    """A login that succeeds: what the backend says, and what it hears upon that."""

    record: MailProtocol
    steps: tuple[tuple[bytes, bytes], ...]
    groups: tuple[Any, ...] = ()
    changes: dict[str, Any] = {}  # noqa: RUF008

    def begin(self) -> Attempt:
        """The attempt that this is the script of, connected."""
        attempt = Attempt(self.record, *self.groups, **self.changes)
        attempt.accept()
        return attempt

    @property
    def length(self) -> int:
        """How many bytes the backend says."""
        return sum(len(said) for said, _ in self.steps)

    def cutAt(self, position: int) -> Iterator[tuple[tuple[bytes, ...], bytes]]:
        """The steps, what the backend says coming in two segments where C{position} is in its middle."""
        for said, heard in self.steps:
            cut = max(0, min(len(said), position))
            position -= len(said)
            yield tuple(segment for segment in (said[:cut], said[cut:]) if segment), heard


IMAP_QUOTED = Script(
    IMAP4,
    (
        (b"* OK [CAPABILITY IMAP4rev1] ready\r\n", b'a1 LOGIN "joe" "sesame"\r\n'),
        (b"* CAPABILITY IMAP4rev1\r\n* NO disk is full\r\na1 OK done\r\n", b""),
    ),
)
IMAP_LITERALS = Script(
    IMAP4,
    (
        (b"* OK\r\n", b"a1 LOGIN {3}\r\n"),
        (b"* OK still here\r\n+ go ahead\r\n", b"jo\xe9 {7}\r\n"),
        (b"+\r\n", b"s\xc3\xa9same\r\n"),
        (b"a1 OK done\r\n", b""),
    ),
    changes={"route": routeTo(user=b"jo\xe9", password=b"s\xc3\xa9same")},
)
POP3_SCRIPT = Script(
    POP3,
    ((b"+OK ready\r\n", b"USER joe\r\n"), (b"+OK\r\n", b"PASS sesame\r\n"), (b"+OK 3 messages\r\n", b"")),
)
SMTP_TRUSTING = Script(
    SMTP,
    ((b"220-mx\r\n220 ready\r\n", b"EHLO mx.test\r\n"), (b"250-mx\r\n250 SIZE\r\n", b"")),
)
SMTP_XCLIENT = Script(
    SMTP,
    (
        (b"220 ready\r\n", b"EHLO mx.test\r\n"),
        (
            b"250-mx\r\n250-XCLIENT NAME ADDR LOGIN\r\n250 SIZE\r\n",
            b"XCLIENT ADDR=192.0.2.7 LOGIN=joe NAME=[UNAVAILABLE]\r\n",
        ),
        (b"220 ready\r\n", b"EHLO laptop\r\n"),
        (b"250-mx\r\n250 SIZE\r\n", b""),
    ),
    changes={"envelope": Envelope(b"laptop", True)},
)
SMTP_PLAIN = Script(
    SMTP,
    (
        (b"220 ready\r\n", b"EHLO mx.test\r\n"),
        (b"250-mx\r\n250 AUTH LOGIN PLAIN\r\n", b"AUTH PLAIN " + INITIAL_RESPONSE + b"\r\n"),
        (b"235-welcome\r\n235 ok\r\n", b""),
    ),
    (SMTPSettings(proxyAuth=True),),
)
SMTP_LOGIN = Script(
    SMTP,
    (
        (b"220 ready\r\n", b"EHLO mx.test\r\n"),
        (b"250-mx\r\n250 AUTH LOGIN\r\n", b"AUTH LOGIN\r\n"),
        (b"334 VXNlcm5hbWU6\r\n", base64.b64encode(b"joe") + b"\r\n"),
        (b"334 UGFzc3dvcmQ6\r\n", base64.b64encode(b"sesame") + b"\r\n"),
        (b"235 ok\r\n", b""),
    ),
    (SMTPSettings(proxyAuth=True),),
)
ANYBODY: dict[str, Any] = {
    "route": routeTo(user=b"", password=b""),
    "credentials": Credentials(Method.NONE),
    "envelope": Envelope(b"laptop", True, b"MAIL FROM:<a@example.com> SIZE=1", b"RCPT TO:<b@example.com>"),
}
SMTP_ANYBODY = Script(
    SMTP,
    (
        (b"220 ready\r\n", b"EHLO mx.test\r\n"),
        (b"250-mx\r\n250 XCLIENT NAME ADDR\r\n", b"XCLIENT ADDR=192.0.2.7 NAME=[UNAVAILABLE]\r\n"),
        (b"220 ready\r\n", b"EHLO laptop\r\n"),
        (b"250 mx\r\n", b"MAIL FROM:<a@example.com> SIZE=1\r\n"),
        (b"250 2.1.0 ok\r\n", b"RCPT TO:<b@example.com>\r\n"),
        (b"250-2.1.5 well\r\n250 2.1.5 ok\r\n", b""),
    ),
    changes=ANYBODY,
)
SCRIPTS = (
    IMAP_QUOTED,
    IMAP_LITERALS,
    POP3_SCRIPT,
    SMTP_TRUSTING,
    SMTP_XCLIENT,
    SMTP_PLAIN,
    SMTP_LOGIN,
    SMTP_ANYBODY,
)


class ScriptTests(SynchronousTestCase):
    """What is true of every login, at every one of its bytes."""

    def assertDone(self, attempt: Attempt, rest: bytes = b"") -> Any:
        client = self.successResultOf(attempt.result)
        self.assertNotIsInstance(client, Denial)
        self.assertEqual(leftOver(client), rest)
        self.assertEqual(attempt.log, [])
        self.assertEqual(attempt.transport.producerState, "paused")
        return client

    def test_anyCut(self) -> None:
        """A login is the same wherever TCP cuts what the backend says."""
        for script in SCRIPTS:
            replies = set()
            for position in range(script.length):
                attempt = script.begin()
                for segments, heard in script.cutAt(position):
                    self.assertEqual(attempt.says(*segments), heard)
                replies.add(self.assertDone(attempt).reply)
            self.assertEqual(len(replies), 1)

    def test_byteByByte(self) -> None:
        """It is the same where every byte comes alone, and no command is sent before the reply to the last is whole."""
        for script in SCRIPTS:
            attempt = script.begin()
            for said, heard in script.steps:
                self.assertNoResult(attempt.result)
                self.assertEqual(attempt.says(*(said[i : i + 1] for i in range(len(said) - 1))), b"")
                self.assertEqual(attempt.says(said[-1:]), heard)
            self.assertDone(attempt)

    def test_whatFollows(self) -> None:
        """What the backend says beyond the login, even in the same segment, is kept as it is."""
        for script in SCRIPTS:
            attempt = script.begin()
            for said, _ in script.steps[:-1]:
                attempt.says(said)
            attempt.says(script.steps[-1][0] + b"and\0more\r")
            self.assertDone(attempt, b"and\0more\r")

    def test_bareLineFeeds(self) -> None:
        """A backend that ends its lines with bare LF is understood."""
        for script in SCRIPTS:
            attempt = script.begin()
            for said, heard in script.steps:
                self.assertEqual(attempt.says(said.replace(b"\r\n", b"\n")), heard)
            self.assertDone(attempt)

    def assertTemporary(self, attempt: Attempt, phase: str = "backend-login") -> None:
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        self.assertEqual(attempt.levels, ["error"])
        self.assertIn(f"in phase {phase}", attempt.log[0])
        self.assertNotIn("sesame", attempt.log[0])
        self.assertTrue(attempt.hasNoTimers())
        self.assertTrue(attempt.transport.disconnecting)

    def truncated(self, end: Callable[[Attempt], None]) -> None:
        """Each login up to each of its bytes, and then C{end}."""
        for script in SCRIPTS:
            for position in range(script.length):
                attempt = script.begin()
                left = position
                for said, _ in script.steps:
                    attempt.says(said[: max(0, left)])
                    left -= len(said)
                self.assertNoResult(attempt.result)
                end(attempt)
                self.assertTemporary(attempt)

    def test_dropped(self) -> None:
        """A backend that drops the connection, at whatever byte of the login, is a temporary failure."""
        self.truncated(lambda attempt: attempt.transport.lose(ConnectionLost()))

    def test_ended(self) -> None:
        """So is one that says it will send no more."""
        self.truncated(lambda attempt: attempt.transport.protocol.readConnectionLost())

    def test_silent(self) -> None:
        """So is one that falls silent, once C{timeout} seconds are over and not before."""

        def wait(attempt: Attempt) -> None:
            attempt.reactor.advance(29.9)
            self.assertNoResult(attempt.result)
            attempt.reactor.advance(0.1)

        self.truncated(wait)

    def test_endless(self) -> None:
        """So is one that never ends a line, or a reply of several lines, however small its segments."""
        endless = {
            IMAP4: (b"x", b"* OK more\r\n"),
            POP3: (b"+OK",),
            SMTP: (b"2", b"220-more\r\n", b"250-more\r\n", b"235-more\r\n"),
        }
        for script in SCRIPTS:
            for step in range(len(script.steps)):
                for piece in endless[script.record]:
                    attempt = script.begin()
                    for said, _ in script.steps[:step]:
                        attempt.says(said)
                    for _ in range(5000 // len(piece)):
                        attempt.says(piece)
                    self.assertTemporary(attempt)

    def test_garbled(self) -> None:
        """So is one that talks nonsense, at whatever step; the log shows it on one line."""
        for script in SCRIPTS:
            for step in range(len(script.steps)):
                attempt = script.begin()
                for said, _ in script.steps[:step]:
                    attempt.says(said)
                attempt.says(b"\x00\x1b[2Jwhat? \xff\n")
                self.assertTemporary(attempt)
                self.assertTrue(attempt.log[0].isprintable())

    def test_emptyLine(self) -> None:
        """An empty line is nonsense too."""
        for script in SCRIPTS:
            for step in range(len(script.steps)):
                attempt = script.begin()
                for said, _ in script.steps[:step]:
                    attempt.says(said)
                attempt.says(b"\r\n")
                self.assertTemporary(attempt)

    def test_greetedWithRefusal(self) -> None:
        """
        With proxy_pass_error_message on a refusal instead of the greeting goes to the client; nonsense does not, and
        neither do the backend's words about the connection in answer to a recipient.
        """
        refusals = {IMAP4: b"* BYE too busy\r\n", POP3: b"-ERR too busy\r\n", SMTP: b"421 too busy\r\n"}
        for script in SCRIPTS:
            refusal = refusals[script.record]
            passed = TEMPORARY if script is SMTP_ANYBODY else Refusal(refusal, True)
            for greeting, expected in ((refusal, passed), (b"too busy\r\n", TEMPORARY)):
                attempt = Attempt(script.record, *script.groups, PASS_ON, **script.changes)
                attempt.accept()
                attempt.says(greeting)
                self.assertEqual(self.successResultOf(attempt.result), expected)

    def test_echo(self) -> None:
        """A backend that answers the password with the command itself does not bring it into the log."""
        for script in SCRIPTS:
            attempt = script.begin()
            for said, heard in script.steps:
                if b"sesame" in heard or INITIAL_RESPONSE in heard or base64.b64encode(b"sesame") in heard:
                    attempt.says(said)
                    attempt.says(heard)
                    break
                attempt.says(said)
            for event in attempt.log:
                for secret in ("sesame", INITIAL_RESPONSE.decode(), base64.b64encode(b"sesame").decode()):
                    self.assertNotIn(secret, event)


class BackendTests(SynchronousTestCase):
    """What the tests of the protocols share."""

    def outcomeOf(self, attempt: Attempt, *replies: bytes) -> Any:
        """What the connector gives where the backend says C{replies}."""
        if attempt.transport.protocol is None:
            attempt.accept()
        attempt.says(*replies)
        self.assertTrue(attempt.hasNoTimers())
        return self.successResultOf(attempt.result)


class IMAP4ClientTests(BackendTests):
    """The login at an IMAP4 backend."""

    def sent(self, user: bytes, password: bytes) -> list[bytes]:
        """The lines sent to a backend that sends a continuation request after each."""
        attempt = Attempt(IMAP4, route=routeTo(user=user, password=password))
        attempt.accept()
        lines = [attempt.says(b"* OK\r\n")]
        while lines[-1].endswith(b"}\r\n"):
            lines.append(attempt.says(b"+ OK\r\n"))
        return lines

    def test_quoted(self) -> None:
        """What is printable ASCII is sent as quoted strings, in one line."""
        self.assertEqual(self.sent(b"joe", b"open sesame"), [b'a1 LOGIN "joe" "open sesame"\r\n'])

    def test_quotedSpecials(self) -> None:
        """Quotation marks and backslashes are escaped in them."""
        self.assertEqual(self.sent(b'j"oe', b"ses\\ame"), [b'a1 LOGIN "j\\"oe" "ses\\\\ame"\r\n'])

    def test_quotedSyntax(self) -> None:
        """What looks like a literal, or like a second argument, is text between the quotation marks."""
        self.assertEqual(self.sent(b"{3}", b'" "x'), [b'a1 LOGIN "{3}" "\\" \\"x"\r\n'])

    def test_empty(self) -> None:
        """An empty password is an empty quoted string."""
        self.assertEqual(self.sent(b"joe", b""), [b'a1 LOGIN "joe" ""\r\n'])

    def test_literals(self) -> None:
        """What is not printable ASCII is sent as literals, each after the backend has asked for it."""
        self.assertEqual(
            self.sent(b"jo\xe9", b"s\tsame"),
            [b"a1 LOGIN {3}\r\n", b"jo\xe9 {6}\r\n", b"s\tsame\r\n"],
        )

    def test_literalUser(self) -> None:
        """A user's name can be a literal before a quoted password."""
        self.assertEqual(self.sent(b"jo\xe9", b"sesame"), [b"a1 LOGIN {3}\r\n", b'jo\xe9 "sesame"\r\n'])

    def test_literalPassword(self) -> None:
        """And a quoted name can stand before a literal password."""
        self.assertEqual(self.sent(b"joe", b"\x7f"), [b'a1 LOGIN "joe" {1}\r\n', b"\x7f\r\n"])

    def test_longString(self) -> None:
        """What is so long that a backend's line limit may not hold it is a literal too."""
        self.assertEqual(self.sent(b"joe", b"x" * 300), [b'a1 LOGIN "joe" {300}\r\n', b"x" * 300 + b"\r\n"])

    def test_noLiteralBeforeRequest(self) -> None:
        """A literal is not sent on the strength of an untagged response."""
        attempt = Attempt(IMAP4, route=routeTo(user=b"jo\xe9"))
        attempt.accept()
        attempt.says(b"* OK\r\n")
        self.assertEqual(attempt.says(b"* OK have patience\r\n"), b"")
        self.assertEqual(attempt.says(b"+\r\n"), b'jo\xe9 "sesame"\r\n')

    def test_clientsTag(self) -> None:
        """The tag is the client's own, so that the backend's reply is the client's."""
        attempt = Attempt(IMAP4, tag=b"A0.7/x")
        attempt.accept()
        self.assertEqual(attempt.says(b"* OK\r\n"), b'A0.7/x LOGIN "joe" "sesame"\r\n')
        client = self.outcomeOf(attempt, b"A0.7/x OK [CAPABILITY IMAP4rev1] done\r\n")
        self.assertEqual(client.reply, b"A0.7/x OK [CAPABILITY IMAP4rev1] done\r\n")

    def test_tagsThatBeginAlike(self) -> None:
        """A tag that begins with ours is not ours."""
        self.assertEqual(self.outcomeOf(Attempt(IMAP4), b"* OK\r\n", b"a11 OK done\r\n"), TEMPORARY)

    def test_untagged(self) -> None:
        """Untagged responses before the tagged one, however many, are the client's too."""
        said = b"* CAPABILITY IMAP4rev1\r\n* ID NIL\r\n* 3 EXISTS\r\na1 OK done\r\n"
        self.assertEqual(self.outcomeOf(Attempt(IMAP4), b"* OK\r\n", said).reply, said)

    def test_untaggedBetweenLiterals(self) -> None:
        """Those that come while literals are exchanged are not lost; continuation requests are not passed on."""
        attempt = Attempt(IMAP4, route=routeTo(user=b"jo\xe9"))
        client = self.outcomeOf(attempt, b"* OK\r\n", b"* ID NIL\r\n+ OK\r\n", b"a1 OK done\r\n")
        self.assertEqual(client.reply, b"* ID NIL\r\na1 OK done\r\n")

    def test_tooManyUntagged(self) -> None:
        """Untagged responses are kept up to proxy_buffer."""
        attempt = Attempt(IMAP4, ProxySettings(buffer=64))
        self.assertEqual(self.outcomeOf(attempt, b"* OK\r\n", b"* ID NIL\r\n" * 7), TEMPORARY)
        client = self.outcomeOf(
            Attempt(IMAP4, ProxySettings(buffer=64)), b"* OK\r\n", b"* ID NIL\r\n" * 6 + b"a1 OK\r\n"
        )
        self.assertEqual(client.reply, b"* ID NIL\r\n" * 6 + b"a1 OK\r\n")

    def test_greetingInAnyCase(self) -> None:
        """IMAP's words mean the same in any case."""
        client = self.outcomeOf(Attempt(IMAP4), b"* ok ready\r\n", b"a1 ok done\r\n")
        self.assertEqual(client.reply, b"a1 ok done\r\n")

    def test_badGreetings(self) -> None:
        """A greeting other than OK is a failure: with PREAUTH the session would be somebody else's."""
        for greeting in (
            b"* PREAUTH hello joe\r\n",
            b"* BYE full\r\n",
            b"* NO\r\n",
            b"* BAD\r\n",
            b"* OKAY\r\n",
            b"OK\r\n",
            b"+OK\r\n",
        ):
            attempt = Attempt(IMAP4, route=routeTo(FIRST, SECOND))
            attempt.accept()
            self.assertEqual(attempt.says(greeting), b"")
            self.assertEqual(len(attempt.tried), 2)
            attempt.refuse()
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
            self.assertIn("greets with ", attempt.log[0])
            self.assertTrue(attempt.log[0].endswith(f', text "{greeting.decode().strip()}"'), attempt.log[0])

    def test_refusal(self) -> None:
        """NO is a refusal of the credentials."""
        for text in (b"", b" wrong", b" [AUTHENTICATIONFAILED] wrong", b" [AUTHORIZATIONFAILED] no", b" [EXPIRED] old"):
            reply = b"a1 NO" + text + b"\r\n"
            denied = Denial(Trouble.DENIED, answer=b"NO" + text if text else b"")
            self.assertEqual(self.outcomeOf(Attempt(IMAP4, PASS_ON), b"* OK\r\n", reply), Refusal(reply, False))
            self.assertEqual(self.outcomeOf(Attempt(IMAP4, route=routeTo(judged=False)), b"* OK\r\n", reply), denied)

    def test_temporaryRefusal(self) -> None:
        """But not with a response code that says nothing of the password; nor is BAD."""
        texts = [b"NO [%s] later" % code for code in (b"UNAVAILABLE", b"inuse", b"Limit", b"SERVERBUG")]
        for text in (*texts, b"NO [PRIVACYREQUIRED] use TLS", b"BAD what", b"bad what"):
            reply = b"a1 " + text + b"\r\n"
            self.assertEqual(self.outcomeOf(Attempt(IMAP4, PASS_ON), b"* OK\r\n", reply), Refusal(reply, True))
            answer = Denial(Trouble.TEMPORARY, answer=text if text in texts else b"")
            self.assertEqual(self.outcomeOf(Attempt(IMAP4, route=routeTo(judged=False)), b"* OK\r\n", reply), answer)

    def test_refusalWithUntagged(self) -> None:
        """What a refusal was preceded by is passed on with it."""
        said = b"* NO [ALERT] you again\r\na1 NO no\r\n"
        self.assertEqual(self.outcomeOf(Attempt(IMAP4, PASS_ON), b"* OK\r\n", said), Refusal(said, False))

    def test_literalRefused(self) -> None:
        """A backend may refuse before it has heard the password, which it then never hears."""
        attempt = Attempt(IMAP4, route=routeTo(user=b"jo\xe9"))
        self.assertEqual(self.outcomeOf(attempt, b"* OK\r\n", b"a1 NO no literals\r\n"), TEMPORARY)
        self.assertNotIn(b"sesame", attempt.hears())

    def test_strayReplies(self) -> None:
        """A continuation request that nobody waits for, or OK instead of one, is a failure."""
        self.assertEqual(self.outcomeOf(Attempt(IMAP4), b"* OK\r\n", b"+ more\r\n"), TEMPORARY)
        attempt = Attempt(IMAP4, route=routeTo(user=b"jo\xe9"))
        self.assertEqual(self.outcomeOf(attempt, b"* OK\r\n", b"a1 OK done\r\n"), TEMPORARY)

    def test_byeInsteadOfCompletion(self) -> None:
        """A backend that says BYE in the middle of the login is a failure at once, whether or not it closes."""
        for bye in (b"* BYE going down\r\n", b"* bye going down\r\n", b"* BYE\r\n"):
            attempt = Attempt(IMAP4)
            self.assertEqual(self.outcomeOf(attempt, b"* OK\r\n", b"* OK wait\r\n" + bye), TEMPORARY)
            self.assertIn("answers with BYE", attempt.log[0])

    def test_byeWithRefusal(self) -> None:
        """But a refusal that has come with it counts: RFC 3501 lets a server say BYE before it closes."""
        said = b"* BYE too many\r\na1 NO [LIMIT] too many\r\n"
        self.assertEqual(self.outcomeOf(Attempt(IMAP4, PASS_ON), b"* OK\r\n", said), Refusal(said, True))

    def test_byeInsteadOfStartTLS(self) -> None:
        """So it is before STARTTLS."""
        attempt = Attempt(IMAP4, route=routeTo(STARTTLS))
        self.assertEqual(self.outcomeOf(attempt, b"* OK\r\n", b"* BYE going down\r\n"), TEMPORARY)
        self.assertNotIn(b"sesame", attempt.hears())

    def test_longerWords(self) -> None:
        """A word that only begins with OK is not OK, nor are the words that begin with NO and BAD refusals."""
        for said in (b"a1 OKAY done\r\n", b"a1 OK: done\r\n", b"a1 NOT you\r\n", b"a1 BADLY\r\n"):
            self.assertEqual(self.outcomeOf(Attempt(IMAP4, PASS_ON), b"* OK\r\n", said), TEMPORARY)
        attempt = Attempt(IMAP4, route=routeTo(STARTTLS))
        self.assertEqual(self.outcomeOf(attempt, b"* OK\r\n", b"mailgate OKAY\r\n"), TEMPORARY)
        self.assertEqual(attempt.transport.tls, [])

    def test_bareOK(self) -> None:
        """OK needs no text behind it."""
        for end in (b"\r\n", b"\n", b" \r\n"):
            self.assertEqual(self.outcomeOf(Attempt(IMAP4), b"* OK" + end, b"a1 OK" + end).reply, b"a1 OK" + end)

    def test_notBye(self) -> None:
        """A response that only begins so is another."""
        said = b"* BYEBYE\r\na1 OK done\r\n"
        self.assertEqual(self.outcomeOf(Attempt(IMAP4), b"* OK\r\n", said).reply, said)

    def test_startTLS(self) -> None:
        """STARTTLS comes before LOGIN, under a tag of ours; what was said before TLS is not the client's."""
        attempt = Attempt(IMAP4, route=routeTo(STARTTLS))
        attempt.accept()
        self.assertEqual(attempt.says(b"* OK [CAPABILITY STARTTLS] ready\r\n"), b"mailgate STARTTLS\r\n")
        attempt.says(b"* OK just a moment\r\nmailgate OK go\r\na1 OK forged\r\n")
        self.assertEqual(attempt.hears(), b"")
        attempt.transport.shakeHands()
        self.assertEqual(attempt.hears(), b'a1 LOGIN "joe" "sesame"\r\n')
        self.assertNoResult(attempt.result)
        self.assertEqual(self.outcomeOf(attempt, b"a1 OK done\r\n").reply, b"a1 OK done\r\n")

    def test_startTLSRefused(self) -> None:
        """A backend that refuses STARTTLS hears no password."""
        for answer in (b"mailgate NO\r\n", b"mailgate BAD what\r\n", b"+ what\r\n"):
            attempt = Attempt(IMAP4, route=routeTo(STARTTLS))
            self.assertEqual(self.outcomeOf(attempt, b"* OK\r\n", answer), TEMPORARY)
            self.assertEqual(attempt.transport.tls, [])
            self.assertNotIn(b"sesame", attempt.hears())


class POP3ClientTests(BackendTests):
    """The login at a POP3 backend."""

    def test_verbatim(self) -> None:
        """Name and password are sent as they are, blanks and all."""
        attempt = Attempt(POP3, route=routeTo(user=b"jo e", password=b" s\xe9same "))
        attempt.accept()
        self.assertEqual(attempt.says(b"+OK\r\n"), b"USER jo e\r\n")
        self.assertEqual(attempt.says(b"+OK\r\n"), b"PASS  s\xe9same \r\n")

    def test_reply(self) -> None:
        """The client is told what the backend said to PASS, not what it said to USER."""
        client = self.outcomeOf(Attempt(POP3), b"+OK\r\n", b"+OK name\r\n", b"+OK 3 messages\r\n")
        self.assertEqual(client.reply, b"+OK 3 messages\r\n")

    def test_longerWords(self) -> None:
        """A word that only begins with +OK is not +OK."""
        for replies in ((b"+OKAY\r\n",), (b"+OK\r\n", b"+OK, go on\r\n")):
            self.assertEqual(self.outcomeOf(Attempt(POP3, PASS_ON), b"+OK\r\n", *replies), TEMPORARY)
        attempt = Attempt(POP3, route=routeTo(STARTTLS))
        self.assertEqual(self.outcomeOf(attempt, b"+OK\r\n", b"+OKAY\r\n"), TEMPORARY)
        self.assertEqual(attempt.transport.tls, [])

    def test_bareOK(self) -> None:
        """+OK needs no text behind it."""
        for end in (b"\r\n", b"\n", b" \r\n"):
            self.assertEqual(self.outcomeOf(Attempt(POP3), *[b"+OK" + end] * 3).reply, b"+OK" + end)

    def test_badGreetings(self) -> None:
        """A greeting other than +OK is a failure, and nothing is sent."""
        for greeting in (b"-ERR full\r\n", b"+OKAY\r\n", b"* OK\r\n", b"220 ready\r\n"):
            attempt = Attempt(POP3)
            self.assertEqual(self.outcomeOf(attempt, greeting), TEMPORARY)
            self.assertEqual(attempt.hears(), b"")

    def test_refusal(self) -> None:
        """-ERR is a refusal of the credentials, to USER as to PASS."""
        for reply in (b"-ERR\r\n", b"-ERR wrong\r\n", b"-ERR [AUTH] wrong\r\n"):
            for before in ((), (b"+OK\r\n",)):
                replies = (b"+OK\r\n", *before, reply)
                self.assertEqual(self.outcomeOf(Attempt(POP3, PASS_ON), *replies), Refusal(reply, False))
                denied = Denial(Trouble.DENIED, answer=b"" if reply == b"-ERR\r\n" else reply.strip())
                self.assertEqual(self.outcomeOf(Attempt(POP3, route=routeTo(judged=False)), *replies), denied)

    def test_temporaryRefusal(self) -> None:
        """But not with a response code that says nothing of the password."""
        for code in (b"SYS/TEMP", b"sys/odd", b"IN-USE", b"LOGIN-DELAY"):
            reply = b"-ERR [" + code + b"] later\r\n"
            replies = (b"+OK\r\n", b"+OK\r\n", reply)
            self.assertEqual(self.outcomeOf(Attempt(POP3, PASS_ON), *replies), Refusal(reply, True))
            answer = Denial(Trouble.TEMPORARY, answer=reply.strip())
            self.assertEqual(self.outcomeOf(Attempt(POP3, route=routeTo(judged=False)), *replies), answer)

    def test_userRefused(self) -> None:
        """A backend that does not know the user never hears the password."""
        attempt = Attempt(POP3)
        self.outcomeOf(attempt, b"+OK\r\n", b"-ERR who\r\n")
        self.assertNotIn(b"sesame", attempt.hears())

    def test_stls(self) -> None:
        """STLS comes before USER."""
        attempt = Attempt(POP3, route=routeTo(STARTTLS))
        attempt.accept()
        self.assertEqual(attempt.says(b"+OK\r\n"), b"STLS\r\n")
        attempt.says(b"+OK go\r\n")
        attempt.transport.shakeHands()
        self.assertEqual(attempt.hears(), b"USER joe\r\n")


GREETED = (b"220 ready\r\n", b"250 mx\r\n")
OFFERING_XCLIENT = b"250-mx\r\n250 XCLIENT NAME ADDR LOGIN\r\n"


class SMTPClientTests(BackendTests):
    """The login at an SMTP backend that trusts us, or takes AUTH."""

    def heard(self, attempt: Attempt, *replies: bytes) -> list[bytes]:
        """The backend's C{replies}, and what it heard upon each."""
        attempt.accept()
        return [attempt.says(reply) for reply in replies]

    def test_ehlo(self) -> None:
        """A client that said EHLO has EHLO said for it, with our own name."""
        attempt = Attempt(SMTP, SMTPSettings(xclient="off"), envelope=Envelope(b"laptop", True))
        self.assertEqual(self.heard(attempt, *GREETED), [b"EHLO mx.test\r\n", b""])
        self.assertEqual(leftOver(self.successResultOf(attempt.result)), b"")

    def test_helo(self) -> None:
        """EHLO is said for one that said HELO, too; HELO where a backend has no EHLO, and nothing needs it."""
        for xclient, code in product(("auto", "off"), (b"500", b"502")):
            attempt = Attempt(SMTP, SMTPSettings(xclient=xclient), envelope=Envelope(b"laptop", False))
            heard = self.heard(attempt, b"220 ready\r\n", code + b" what\r\n", b"250 mx\r\n")
            self.assertEqual(heard, [b"EHLO mx.test\r\n", b"HELO mx.test\r\n", b""])
            self.successResultOf(attempt.result)

    def test_ehloNotNow(self) -> None:
        """What a backend offers that has EHLO, and refuses this one, is not known: it is not used."""
        for xclient, code in product(("auto", "off"), (b"421", b"450", b"501", b"504", b"550", b"554")):
            attempt = Attempt(SMTP, SMTPSettings(xclient=xclient), envelope=Envelope(b"laptop", False))
            self.assertEqual(self.heard(attempt, b"220 ready\r\n", code + b" no\r\n"), [b"EHLO mx.test\r\n", b""])
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)

    def test_authNeedsEhlo(self) -> None:
        """AUTH needs EHLO, whatever the client said."""
        settings = SMTPSettings(xclient="off", proxyAuth=True)
        attempt = Attempt(SMTP, settings, envelope=Envelope(b"laptop", False))
        self.assertEqual(self.heard(attempt, *GREETED)[0], b"EHLO mx.test\r\n")

    def test_ehloRefused(self) -> None:
        """Where EHLO is needed there is no second try, and the refusal says nothing of the password."""
        attempt = Attempt(SMTP, PASS_ON, envelope=Envelope(b"laptop", True))
        heard = self.heard(attempt, b"220 ready\r\n", b"550 no\r\n")
        self.assertEqual(heard, [b"EHLO mx.test\r\n", b""])
        self.assertEqual(self.successResultOf(attempt.result), Refusal(b"550 no\r\n", True))

    def test_badGreetings(self) -> None:
        """A greeting other than 220 is a failure: the next backend is tried."""
        for greeting in (b"421 busy\r\n", b"554-no\r\n554 service\r\n", b"250 hello\r\n", b"+OK\r\n"):
            attempt = Attempt(SMTP, route=routeTo(FIRST, SECOND))
            attempt.accept()
            self.assertEqual(attempt.says(greeting), b"")
            self.assertEqual(len(attempt.tried), 2)
            attempt.refuse()
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)

    def test_malformedReplies(self) -> None:
        """Codes that are none, and replies of several lines that go wrong, are failures."""
        for reply in (b"2500 mx\r\n", b"150 mx\r\n", b"690 mx\r\n", b"25 mx\r\n", b"250_mx\r\n", b"250-mx\r\nSIZE\r\n"):
            attempt = Attempt(SMTP)
            self.assertEqual(self.outcomeOf(attempt, b"220 ready\r\n", reply), TEMPORARY)

    def test_codeAlone(self) -> None:
        """A code without text is a reply."""
        attempt = Attempt(SMTP, SMTPSettings(xclient="off"))
        self.assertEqual(self.heard(attempt, b"220\r\n", b"250\r\n"), [b"EHLO mx.test\r\n", b""])
        self.successResultOf(attempt.result)

    def test_lastLineDecides(self) -> None:
        """Of a reply's several codes the last line's counts."""
        attempt = Attempt(SMTP, SMTPSettings(xclient="off"), envelope=Envelope(b"x", True))
        self.assertEqual(self.outcomeOf(attempt, b"220 ready\r\n", b"250-mx\r\n550 no\r\n"), TEMPORARY)

    def test_nothingToAuthenticate(self) -> None:
        """A backend that trusts us needs no password, not even one that we know."""
        attempt = Attempt(SMTP, SMTPSettings(xclient="off"), route=routeTo(password=None))
        self.heard(attempt, *GREETED)
        self.successResultOf(attempt.result)

    def test_noPassword(self) -> None:
        """With proxy_smtp_auth on and no password known the login fails, and the log says why."""
        attempt = Attempt(SMTP, SMTPSettings(proxyAuth=True), route=routeTo(password=None))
        self.assertEqual(self.heard(attempt, *GREETED), [b"EHLO mx.test\r\n", b""])
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        self.assertIn("no password is known", attempt.log[0])

    def test_unjudged(self) -> None:
        """Where nobody has judged the password the backend must: AUTH is used, whatever proxy_smtp_auth says."""
        attempt = Attempt(SMTP, SMTPSettings(xclient="off"), route=routeTo(judged=False))
        heard = self.heard(attempt, *GREETED, b"535 no\r\n")
        self.assertEqual(heard[1], b"AUTH PLAIN " + INITIAL_RESPONSE + b"\r\n")
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.DENIED, answer=b"535 no"))

    def test_mechanism(self) -> None:
        """AUTH is PLAIN, but LOGIN with a backend that offers that without PLAIN."""
        offers = {
            b"250 mx\r\n": b"AUTH PLAIN",
            b"250-mx\r\n250 AUTH PLAIN LOGIN\r\n": b"AUTH PLAIN",
            b"250-mx\r\n250 auth login\r\n": b"AUTH LOGIN",
            b"250-mx\r\n250-AUTH CRAM-MD5\r\n250 SIZE\r\n": b"AUTH PLAIN",
        }
        for offer, command in offers.items():
            attempt = Attempt(SMTP, SMTPSettings(xclient="off", proxyAuth=True))
            heard = self.heard(attempt, b"220 ready\r\n", offer)[1]
            self.assertTrue(heard.startswith(command), heard)
            attempt.transport.lose()
            self.successResultOf(attempt.result)

    def test_specialCredentials(self) -> None:
        """Base64 carries any byte that a password may have."""
        attempt = Attempt(SMTP, SMTPSettings(proxyAuth=True), route=routeTo(user=b"jo\xe9", password=b"\x7f \xff"))
        heard = self.heard(attempt, *GREETED)[1]
        self.assertEqual(base64.b64decode(heard.split()[2]), b"\0jo\xe9\0\x7f \xff")

    def assertAuthAnswer(self, reply: bytes, temporary: bool) -> None:
        for settings in (SMTPSettings(xclient="off", proxyAuth=True), SMTPSettings(proxyAuth=True)):
            attempt = Attempt(SMTP, settings, PASS_ON, route=routeTo(FIRST, SECOND))
            self.assertEqual(self.outcomeOf(attempt, *GREETED, reply), Refusal(reply, temporary))
            self.assertEqual(len(attempt.tried), 1)

    def test_authRefused(self) -> None:
        """A definite refusal of AUTH is one of the credentials; no other backend is asked."""
        for reply in (b"535 5.7.8 no\r\n", b"534 5.7.9 too weak\r\n", b"554 no\r\n", b"535-5.7.8 no\r\n535 no\r\n"):
            self.assertAuthAnswer(reply, temporary=False)

    def test_authTemporarilyRefused(self) -> None:
        """4yz is not one, nor is what speaks of the command or of the connection."""
        for code in (b"454", b"421", b"432", b"500", b"501", b"502", b"503", b"504", b"530", b"538"):
            self.assertAuthAnswer(code + b" later\r\n", temporary=True)

    def test_otherAnswers(self) -> None:
        """250, or a challenge, instead of 235 is no success."""
        for reply in (b"250 ok\r\n", b"334 \r\n"):
            attempt = Attempt(SMTP, SMTPSettings(proxyAuth=True))
            self.assertNotIsInstance(self.outcomeOf(attempt, *GREETED, reply), SMTP.client)

    def test_loginRefused(self) -> None:
        """A refusal within AUTH LOGIN is one of the credentials too."""
        settings = SMTPSettings(xclient="off", proxyAuth=True)
        for step in range(3):
            attempt = Attempt(SMTP, settings, PASS_ON)
            replies = (b"220 mx\r\n", b"250-mx\r\n250 AUTH LOGIN\r\n", *[b"334 \r\n"] * step, b"535 no\r\n")
            self.assertEqual(self.outcomeOf(attempt, *replies), Refusal(b"535 no\r\n", False))

    def test_startTLS(self) -> None:
        """EHLO, STARTTLS, TLS, and EHLO again: what was offered in the clear does not count."""
        settings = SMTPSettings(proxyAuth=True)
        attempt = Attempt(SMTP, settings, route=routeTo(STARTTLS))
        heard = self.heard(attempt, b"220 ready\r\n", b"250-mx\r\n250-XCLIENT ADDR\r\n250 STARTTLS\r\n")
        self.assertEqual(heard, [b"EHLO mx.test\r\n", b"STARTTLS\r\n"])
        attempt.says(b"220 go\r\n250-forged\r\n250 AUTH LOGIN\r\n")
        attempt.transport.shakeHands()
        self.assertEqual(attempt.hears(), b"EHLO mx.test\r\n")
        self.assertEqual(attempt.says(b"250 mx\r\n"), b"AUTH PLAIN " + INITIAL_RESPONSE + b"\r\n")
        self.assertEqual(leftOver(self.outcomeOf(attempt, b"235 ok\r\n")), b"")

    def test_failuresBeforeTheLogin(self) -> None:
        """A backend that refuses EHLO or STARTTLS hears no password, and the next one is tried."""
        refusals = (
            (b"220 ready\r\n", b"421 going down\r\n"),
            (b"220 ready\r\n", b"554 no\r\n"),
            (b"220 ready\r\n", b"250 mx\r\n", b"454 no TLS now\r\n"),
            (b"220 ready\r\n", b"250 mx\r\n", b"502 what\r\n"),
        )
        for replies in refusals:
            attempt = Attempt(SMTP, SMTPSettings(proxyAuth=True), route=routeTo(STARTTLS, SECOND))
            attempt.accept()
            self.assertNotIn(b"AUTH", attempt.says(*replies))
            self.assertEqual(attempt.transport.tls, [])
            self.assertEqual(len(attempt.tried), 2)
            attempt.refuse()
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)


class XCLIENTTests(BackendTests):
    """Who the client is, as a backend is told it."""

    def command(self, offers: bytes = OFFERING_XCLIENT, *groups: Any, **changes: Any) -> bytes:
        """What is said to a backend that C{offers} this."""
        attempt = Attempt(SMTP, *groups, **changes)
        attempt.accept()
        attempt.says(b"220 ready\r\n")
        heard = attempt.says(offers)
        attempt.transport.lose()
        self.successResultOf(attempt.result)
        return heard

    def test_auto(self) -> None:
        """With C{auto} XCLIENT is sent where the backend offers it, and not elsewhere."""
        self.assertEqual(self.command(), b"XCLIENT ADDR=192.0.2.7 LOGIN=joe NAME=[UNAVAILABLE]\r\n")
        self.assertEqual(self.command(b"250-mx\r\n250 SIZE\r\n"), b"")

    def test_notOffered(self) -> None:
        """The host's own name, or a word that only begins so, is no offer."""
        self.assertEqual(self.command(b"250-XCLIENT ADDR\r\n250 XCLIENTS\r\n"), b"")

    def test_on(self) -> None:
        """With C{on} it is sent whatever the backend offers, as nginx does, and whole."""
        for offers in (b"250 mx\r\n", b"250-mx\r\n250 XCLIENT NAME ADDR\r\n"):
            heard = self.command(offers, SMTPSettings(xclient="on"))
            self.assertEqual(heard, b"XCLIENT ADDR=192.0.2.7 LOGIN=joe NAME=[UNAVAILABLE]\r\n")

    def test_onNeedsEhlo(self) -> None:
        """And EHLO is said first, even for a client that said HELO."""
        attempt = Attempt(SMTP, SMTPSettings(xclient="on"), envelope=Envelope(b"laptop", False))
        attempt.accept()
        self.assertEqual(attempt.says(b"220 ready\r\n"), b"EHLO mx.test\r\n")

    def test_off(self) -> None:
        """With C{off} it is never sent."""
        self.assertEqual(self.command(b"250-mx\r\n250 SIZE\r\n", SMTPSettings(xclient="off")), b"")

    def test_attributes(self) -> None:
        """LOGIN is left out where the backend does not say that it takes it, but kept where it says nothing."""
        self.assertEqual(
            self.command(b"250-mx\r\n250 XCLIENT NAME ADDR PORT\r\n"),
            b"XCLIENT ADDR=192.0.2.7 NAME=[UNAVAILABLE]\r\n",
        )
        self.assertIn(b" LOGIN=joe ", self.command(b"250-mx\r\n250 XCLIENT\r\n"))
        self.assertIn(b" LOGIN=joe ", self.command(b"250-mx\r\n250 xclient addr login\r\n"))

    def test_ipv6(self) -> None:
        """An IPv6 address is marked as one."""
        heard = self.command(client=Client("2001:db8::7", 40123))
        self.assertEqual(heard, b"XCLIENT ADDR=IPV6:2001:db8::7 LOGIN=joe NAME=[UNAVAILABLE]\r\n")

    def test_unix(self) -> None:
        """A client on a unix socket has no address that Postfix would understand, and is not taken for IPv6."""
        self.assertIn(b"ADDR=[UNAVAILABLE] ", self.command(client=Client("unix:")))

    def test_name(self) -> None:
        """NAME is what is known of the client's name."""
        heard = self.command(client=Client("192.0.2.7", 1, name="laptop.example.com"))
        self.assertTrue(heard.endswith(b" NAME=laptop.example.com\r\n"))

    def test_xtext(self) -> None:
        """The login is xtext: what could break the command is encoded, byte by byte."""
        self.assertIn(b" LOGIN=j+20o+3De+2B+C3+A9 ", self.command(route=routeTo(user="j o=e+é".encode())))

    def test_xtextBytes(self) -> None:
        """xtext leaves graphic ASCII but C{+} and C{=} as it is, and encodes every other byte with capital digits."""
        for byte in range(256):
            raw = bytes([byte])
            kept = 0x21 <= byte <= 0x7E and raw not in (b"+", b"=")
            self.assertEqual(xtext(raw), raw if kept else b"+%02X" % byte)

    def test_withAuth(self) -> None:
        """Where AUTH follows LOGIN is left to it."""
        heard = self.command(OFFERING_XCLIENT, SMTPSettings(proxyAuth=True))
        self.assertEqual(heard, b"XCLIENT ADDR=192.0.2.7 NAME=[UNAVAILABLE]\r\n")

    def test_nobody(self) -> None:
        """Where nobody logs in there is no LOGIN."""
        self.assertEqual(self.command(**ANYBODY), b"XCLIENT ADDR=192.0.2.7 NAME=[UNAVAILABLE]\r\n")

    def after(self, *groups: Any, **changes: Any) -> bytes:
        """What is said after XCLIENT."""
        attempt = Attempt(SMTP, *groups, **changes)
        attempt.accept()
        attempt.says(b"220 ready\r\n", OFFERING_XCLIENT)
        heard = attempt.says(b"220 ready\r\n")
        attempt.transport.lose()
        self.successResultOf(attempt.result)
        return heard

    def test_greetingAgain(self) -> None:
        """After XCLIENT the backend is greeted as the client greeted us, with the client's own name."""
        self.assertEqual(self.after(envelope=Envelope(b"laptop", True)), b"EHLO laptop\r\n")
        self.assertEqual(self.after(envelope=Envelope(b"laptop", False)), b"HELO laptop\r\n")

    def test_ungreeted(self) -> None:
        """For a client that has not greeted us nobody greets, lest our own name be taken for the client's."""
        recipient = Envelope(b"", False, b"MAIL FROM:<>", b"RCPT TO:<a>")
        request = {"credentials": Credentials(Method.NONE), "envelope": recipient}
        self.assertEqual(self.after(**request), b"MAIL FROM:<>\r\n")
        self.assertEqual(self.after(SMTPSettings(proxyAuth=True)), b"EHLO mx.test\r\n")

    def test_greetingForAuth(self) -> None:
        """Where AUTH follows it is EHLO."""
        heard = self.after(SMTPSettings(proxyAuth=True), envelope=Envelope(b"laptop", False))
        self.assertEqual(heard, b"EHLO laptop\r\n")

    def test_mechanismAfterXCLIENT(self) -> None:
        """What counts is what the backend offers the client whom it now knows."""
        attempt = Attempt(SMTP, SMTPSettings(proxyAuth=True))
        attempt.accept()
        attempt.says(b"220 ready\r\n", OFFERING_XCLIENT[:-2].replace(b"250 X", b"250-X") + b"\r\n250 AUTH PLAIN\r\n")
        attempt.says(b"220 ready\r\n")
        self.assertEqual(attempt.says(b"250-mx\r\n250 AUTH LOGIN\r\n"), b"AUTH LOGIN\r\n")

    def test_refused(self) -> None:
        """A refusal of XCLIENT is temporary: it says nothing of the password."""
        attempt = Attempt(SMTP, PASS_ON)
        replies = (b"220 ready\r\n", OFFERING_XCLIENT, b"550 insufficient authorization\r\n")
        self.assertEqual(self.outcomeOf(attempt, *replies), Refusal(b"550 insufficient authorization\r\n", True))

    def test_250(self) -> None:
        """250 is as good an answer as 220."""
        attempt = Attempt(SMTP, envelope=Envelope(b"laptop", True))
        attempt.accept()
        attempt.says(b"220 ready\r\n", OFFERING_XCLIENT)
        self.assertEqual(attempt.says(b"250 ok\r\n"), b"EHLO laptop\r\n")


class WithoutLoginTests(BackendTests):
    """C{smtp_auth none}: the client's MAIL and RCPT are said again at the backend."""

    def begin(self, *groups: Any, **changes: Any) -> Attempt:
        """An attempt whose backend has been told of the client, and hears MAIL."""
        attempt = Attempt(SMTP, *groups, **{**ANYBODY, **changes})
        attempt.accept()
        attempt.says(b"220 ready\r\n", OFFERING_XCLIENT, b"220 ready\r\n")
        self.assertEqual(attempt.says(b"250 mx\r\n"), b"MAIL FROM:<a@example.com> SIZE=1\r\n")
        return attempt

    def test_recipientRefused(self) -> None:
        """Whatever the backend says to RCPT is the client's, and the session goes on."""
        attempt = self.begin()
        attempt.says(b"250 ok\r\n")
        client = self.outcomeOf(attempt, b"550-no such\r\n550 user\r\n")
        self.assertEqual(client.reply, b"550-no such\r\n550 user\r\n")

    def test_mailRefused(self) -> None:
        """
        The backend's words about the sender are the answer to the recipient, and no trouble of ours, judged or not,
        and whatever proxy_pass_error_message says; RCPT is not said.
        """
        refusals = (
            (Trouble.DENIED, b"552-5.3.4 too\r\n552 5.3.4 large\r\n"),
            (Trouble.TEMPORARY, b"452 4.3.1 full\r\n"),
        )
        for groups, judged, (trouble, said) in product(((), (PASS_ON,)), (True, False), refusals):
            attempt = self.begin(*groups, route=routeTo(FIRST, SECOND, user=b"", password=b"", judged=judged))
            self.assertEqual(attempt.says(said), b"")
            self.assertEqual(self.successResultOf(attempt.result), Denial(trouble, answer=said.strip()))
            self.assertEqual(len(attempt.tried), 1)
            self.assertEqual(attempt.log, [])

    def test_neverAuthenticates(self) -> None:
        """There is nobody to authenticate, whatever proxy_smtp_auth says and whoever has judged."""
        route = Route((FIRST,), b"", b"", judged=False)
        for settings in (SMTPSettings(proxyAuth=True), SMTPSettings()):
            attempt = self.begin(settings, route=route)
            attempt.says(b"250 ok\r\n")
            self.assertEqual(self.outcomeOf(attempt, b"250 ok\r\n").reply, b"250 ok\r\n")
