"""
Tests for L{mailgate.backend.tries} and L{mailgate.backend.retry}: after which failures a login goes on to the next
server, which of them count, and what the client hears. The rows are those of the table in docs/backends.rst.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost, DNSLookupError, NoRouteError, TCPTimedOutError
from twisted.internet.testing import MemoryReactorClock

from mailgate.backend.retry import CAUSES, RetrySettings
from mailgate.backend.settings import ProxySettings
from mailgate.login import BackendGroup, Denial, Refusal, Trouble
from mailgate.net.naming import NamingReactor
from mailgate.protocols.smtp import SMTP
from mailgate.test.support.failures import (
    IMAP,
    MAIL,
    POP,
    SPEECHES,
    TEMPORARY,
    RetryCase,
    Row,
    answers,
    drops,
    refuses,
    says,
    settingsOfGroup,
    shakes,
)
from mailgate.test.support.loginscripts import ANYBODY
from mailgate.testing import Attempt, routeTo
from mailgate.tls.errors import CertificateError
from mailgate.upstream.upstreams import Upstreams


def hangs(attempt: Attempt) -> None:
    attempt.reactor.advance(10)


def same(name: str, imap: bytes, pop: bytes, smtp: bytes, cause: str, counts: bool, **more: Any) -> list[Row]:
    """The rows of a greeting."""
    return [
        Row(f"{name} {speech.record.name}", says(said), cause, counts, speech=speech, **more)
        for speech, said in zip(SPEECHES, (imap, pop, smtp), strict=True)
    ]


def replies(name: str, imap: bytes, pop: bytes, smtp: bytes, cause: str, **more: Any) -> list[Row]:
    """The rows of an answer to the credentials."""
    return [
        Row(f"{name} {speech.record.name}", answers(speech, said), cause, False, speech=speech, **more)
        for speech, said in zip(SPEECHES, (imap, pop, smtp), strict=True)
        if said
    ]


ROWS = [
    Row("refused", refuses(), "error", True),
    Row("unreachable", refuses(NoRouteError()), "error", True),
    Row("DNS", refuses(DNSLookupError("no such name")), "error", True),
    Row("timed out", hangs, "timeout", True),
    Row("timed out by the system", refuses(TCPTimedOutError()), "timeout", True),
    Row("closed before the greeting", drops(POP), "error", True),
    *same("is full", b"* BYE full\r\n", b"-ERR full\r\n", b"421 full\r\n", "error", False),
    *same("is no server", b"* NO\r\n", b"* OK\r\n", b"554 no mail here\r\n", "invalid_response", True),
    *same("is garbage", b"SSH-2.0\r\n", b"SSH-2.0\r\n", b"SSH-2.0\r\n", "invalid_response", True),
    *same("is too long", b"* OK" * 2000, b"+OK" * 2000, b"220-" * 2000, "invalid_response", True),
    Row("PREAUTH", says(b"* PREAUTH in\r\n"), "invalid_response", True, speech=IMAP),
    *(
        Row("STARTTLS refused", says(*said), "tls", False, "proxy_ssl = starttls\n", speech, level="error")
        for speech, said in (
            (IMAP, (b"* OK\r\n", b"mailgate BAD what?\r\n")),
            (POP, (b"+OK\r\n", b"-ERR what?\r\n")),
            (MAIL, (b"220 mx\r\n", b"250 mx\r\n", b"502 what?\r\n")),
        )
    ),
    Row("certificate", shakes(CertificateError("has expired")), "tls", False, "proxy_ssl = on\n", level="error"),
    Row("closed in the handshake", shakes(ConnectionLost()), "error", True, "proxy_ssl = on\n"),
    Row(
        "XCLIENT refused",
        says(b"220 mx\r\n", b"250-mx\r\n250 XCLIENT ADDR LOGIN\r\n", b"550 not from you\r\n"),
        "",
        False,
        speech=MAIL,
        level="error",
    ),
    *replies("unavailable", b"a1 NO [UNAVAILABLE] x\r\n", b"-ERR [SYS/TEMP] x\r\n", b"454 4.7.0 x\r\n", "temporary"),
    *replies("stops", b"", b"", b"421 4.3.2 bye\r\n", "temporary"),
    *replies("credentials", b"a1 NO [AUTHENTICATIONFAILED] x\r\n", b"-ERR [AUTH] x\r\n", b"535 5.7.8 x\r\n", ""),
    Row(
        "credentials of a client",
        answers(POP, b"-ERR [AUTH] x\r\n"),
        "",
        False,
        speech=POP,
        judged=False,
        answer=Denial(Trouble.DENIED, answer=b"-ERR [AUTH] x"),
    ),
    *(
        Row(
            f"busy {reply!r}",
            answers(speech, reply),
            "",
            False,
            speech=speech,
            answer=Denial(Trouble.TEMPORARY, answer=reply.strip().removeprefix(b"a1 ")),
        )
        for speech, reply in (
            (IMAP, b"a1 NO [LIMIT] x\r\n"),
            (IMAP, b"a1 NO [INUSE] x\r\n"),
            (POP, b"-ERR [IN-USE] x\r\n"),
        )
    ),
    *(
        Row(
            f"closed behind the credentials {speech.record.name}",
            drops(speech, speech.greeting, *speech.prelude),
            "error",
            True,
            speech=speech,
        )
        for speech in SPEECHES
    ),
]


class TableTests(RetryCase):
    """Each row of the table, in each protocol."""

    def rows(self) -> Any:
        for row in ROWS:
            for speech in (row.speech,) if row.speech else SPEECHES:
                yield row, speech

    def test_goesOn(self) -> None:
        """A failure leads to the next server, or not; it counts, or not."""
        for row, speech in self.rows():
            attempt = self.attempt(speech, directives=row.directives, judged=row.judged)
            row.fail(attempt)
            self.assertEqual(len(attempt.tried), 2 if row.cause else 1, row.name)
            self.assertEqual(self.fails, [int(row.counts), 0, 0], row.name)
            if not row.cause:
                self.assertEqual(self.successResultOf(attempt.result), row.answer, row.name)
            elif not row.directives.endswith("starttls\n"):
                self.serve(attempt, speech)
                # A failure of the backend's own begins an outage.
                self.assertEqual(attempt.levels, ["error"] * row.counts + [row.level], row.name)

    def test_notNamed(self) -> None:
        """A failure that proxy_next_upstream does not name ends the login; so do all with off."""
        for row, speech in self.rows():
            others = tuple(cause for cause in CAUSES if cause != row.cause)
            for causes in (others, ()):
                attempt = self.attempt(
                    speech, RetrySettings(causes=causes), directives=row.directives, judged=row.judged
                )
                row.fail(attempt)
                self.assertEqual(self.successResultOf(attempt.result), row.answer, row.name)
                self.assertEqual(len(attempt.tried), 1, row.name)
                self.assertEqual(self.fails, [int(row.counts), 0, 0], row.name)
                self.assertTrue(attempt.hasNoTimers())

    def test_levels(self) -> None:
        """A matter of configuration is an error in the log, although another server serves."""
        self.assertEqual({row.level for row in ROWS if row.cause == "tls"}, {"error"})

    def test_trustedNetworks(self) -> None:
        """The log names the setting of a backend that refuses to hear of the client."""
        attempt = self.attempt(MAIL)
        says(b"220 mx\r\n", b"250-mx\r\n250 XCLIENT ADDR\r\n", b"550 not from you\r\n")(attempt)
        self.assertIn("smtpd_authorized_xclient_hosts", attempt.log[0])

    def test_textPassedOn(self) -> None:
        """With proxy_pass_error_message on the client gets the text of the last temporary refusal."""
        for speech, reply in (
            (IMAP, b"a1 NO [UNAVAILABLE] x\r\n"),
            (POP, b"-ERR [SYS/TEMP] x\r\n"),
            (MAIL, b"454 x\r\n"),
        ):
            attempt = self.attempt(speech, ProxySettings(passErrorMessage=True))
            for _ in range(3):
                answers(speech, reply)(attempt)
            self.assertEqual(self.successResultOf(attempt.result), Refusal(reply, True))
            self.assertEqual(attempt.levels, ["error"] * 3)

    def test_silentBehindCredentials(self) -> None:
        """A backend that does not answer the credentials has the whole time of the login. That counts."""
        for speech in SPEECHES:
            attempt = self.attempt(speech)
            attempt.accept()
            attempt.says(speech.greeting, *speech.prelude)
            attempt.reactor.advance(29.9)
            self.assertNoResult(attempt.result)
            attempt.reactor.advance(0.1)
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
            self.assertEqual(len(attempt.tried), 1)
            self.assertEqual(self.fails, [1, 0, 0])
            outage, line = attempt.log
            self.assertEqual(outage, "upstream store: backend 192.0.2.1:143 is down: it timed out after 30 s")
            self.assertIn("timed out after 30 s, in phase backend-login", line)

    def test_closedTwice(self) -> None:
        """
        A login that is lost behind the credentials is tried once more. The second loss does not count: the login may be
        what the servers fail at.
        """
        for speech in SPEECHES:
            attempt = self.attempt(speech)
            for _ in range(2):
                drops(speech, speech.greeting, *speech.prelude)(attempt)
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
            self.assertEqual(len(attempt.tried), 2)
            self.assertEqual(self.fails, [1, 0, 0])

    def test_afterTemporaryRefusal(self) -> None:
        """Credentials that the second server refuses are refused: the third is not tried."""
        attempt = self.attempt(POP, judged=False)
        answers(POP, b"-ERR [SYS/TEMP] x\r\n")(attempt)
        answers(POP, b"-ERR [AUTH] wrong\r\n")(attempt)
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.DENIED, answer=b"-ERR [AUTH] wrong"))
        self.assertEqual(len(attempt.tried), 2)
        self.assertEqual(attempt.levels, ["warn"])


class RecipientTests(RetryCase):
    """SMTP without a login: MAIL and RCPT deliver nothing, so they may be said again elsewhere."""

    GREETED = (b"220 mx\r\n", b"250-mx\r\n250 XCLIENT ADDR\r\n", b"220 mx\r\n", b"250 mx\r\n")

    def recipient(self) -> Attempt:
        self.upstreams = Upstreams(settingsOfGroup(""), NamingReactor(MemoryReactorClock()))
        changes = {**ANYBODY, "route": routeTo(BackendGroup("store"), user=b"", password=b"")}
        return Attempt(SMTP, upstreams=self.upstreams, **changes)

    def test_lost(self) -> None:
        """A backend that is lost behind MAIL or RCPT is replaced, once, and the client's words are said again."""
        for said in ((), (b"250 ok\r\n",)):
            attempt = self.recipient()
            drops(MAIL, *self.GREETED, *said)(attempt)
            attempt.accept()
            attempt.says(*self.GREETED, b"250 ok\r\n")
            attempt.says(b"250 mine\r\n")
            self.assertEqual(self.successResultOf(attempt.result).reply, b"250 mine\r\n")
            self.assertEqual(self.fails, [0, 0, 0])

    def test_refused(self) -> None:
        """A refusal of MAIL is the client's: another server is not tried, not even after 4xx."""
        for reply in (b"550 5.7.1 no\r\n", b"450 4.2.0 greylisted\r\n"):
            attempt = self.recipient()
            says(*self.GREETED, reply)(attempt)
            self.assertEqual(self.successResultOf(attempt.result).answer, reply.strip())
            self.assertEqual(len(attempt.tried), 1)

    def test_stops(self) -> None:
        """421 says nothing about the client: the server stops, and another is tried."""
        attempt = self.recipient()
        says(*self.GREETED, b"421 4.3.2 bye\r\n")(attempt)
        self.assertEqual(len(attempt.tried), 2)

    def test_recipientRefused(self) -> None:
        """The answer to RCPT is the client's, whatever it is."""
        attempt = self.recipient()
        says(*self.GREETED, b"250 ok\r\n", b"550 5.1.1 unknown\r\n")(attempt)
        self.assertEqual(self.successResultOf(attempt.result).reply, b"550 5.1.1 unknown\r\n")
        self.assertEqual(len(attempt.tried), 1)
