"""
Tests for L{mailgate.backend.tries} and L{mailgate.backend.retry}: after which failures a login goes on to the next
server, which of them count, and what the client hears. The rows are those of the table in docs/backends.rst.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionLost, DNSLookupError, NoRouteError, TCPTimedOutError
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.client import ProxyClient
from mailgate.backend.retry import CAUSES, RetrySettings
from mailgate.backend.settings import ProxySettings
from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.frontend.protocol import MailProtocol
from mailgate.login import Backend, BackendGroup, BackendTLS, Denial, Refusal, Trouble
from mailgate.net.naming import NamingReactor
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.session import Phase
from mailgate.test.backend.test_client import FIRST, GREETING, LOGGED_IN, OK, SECOND
from mailgate.test.support.loginscripts import ANYBODY
from mailgate.testing import Attempt, routeTo
from mailgate.tls.errors import CertificateError
from mailgate.upstream.peer import Peer, PeerState
from mailgate.upstream.upstreams import Upstreams

SERVERS = "server =\n    192.0.2.1:143 max_fails=2\n    192.0.2.2:143 max_fails=2\n    192.0.2.3:143 max_fails=2\n"
TEMPORARY = Denial(Trouble.TEMPORARY)

Fail = Callable[[Attempt], Any]


@frozen
class Speech:
    """
    What a backend of a protocol says.

    @ivar record: the protocol.
    @ivar greeting: the greeting.
    @ivar prelude: what it says until it gets the credentials.
    @ivar accepted: it accepts them.
    """

    record: MailProtocol
    greeting: bytes
    prelude: tuple[bytes, ...]
    accepted: bytes


IMAP = Speech(IMAP4, b"* OK ready\r\n", (), b"a1 OK in\r\n")
POP = Speech(POP3, GREETING, (OK,), LOGGED_IN)
MAIL = Speech(SMTP, b"220 ready\r\n", (b"250-mx\r\n250 AUTH PLAIN\r\n",), b"235 in\r\n")
SPEECHES = (IMAP, POP, MAIL)


@frozen
class Row:
    """
    One kind of failure.

    @ivar name: what fails.
    @ivar fail: makes the first server fail.
    @ivar cause: the word of proxy_next_upstream; empty if no other server is tried.
    @ivar counts: whether it counts for max_fails.
    @ivar directives: of the group.
    @ivar speech: the protocol; L{None} for all.
    @ivar judged: whether an authenticator has accepted the credentials.
    @ivar answer: what the client hears if no other server serves.
    @ivar level: the level of the failure's line after another server has served.
    """

    name: str
    fail: Fail
    cause: str
    counts: bool
    directives: str = ""
    speech: Speech | None = None
    judged: bool = True
    answer: Any = TEMPORARY
    level: str = "warn"


def refuses(error: Exception | None = None) -> Fail:
    return lambda attempt: attempt.refuse(error)


def says(*data: bytes) -> Fail:
    def fail(attempt: Attempt) -> None:
        attempt.accept()
        attempt.says(*data)

    return fail


def drops(speech: Speech, *data: bytes) -> Fail:
    def fail(attempt: Attempt) -> None:
        attempt.accept()
        attempt.says(*data)
        attempt.transport.lose(ConnectionLost())

    return fail


def hangs(attempt: Attempt) -> None:
    attempt.reactor.advance(10)


def shakes(error: Exception) -> Fail:
    def fail(attempt: Attempt) -> None:
        attempt.accept().lose(error)

    return fail


def answers(speech: Speech, reply: bytes) -> Fail:
    """The backend answers the credentials with C{reply}."""
    return says(speech.greeting, *speech.prelude, reply)


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


class RetryCase(SynchronousTestCase):
    """Shared by the tests here."""

    def attempt(self, speech: Speech, *groups: Any, directives: str = "", **changes: Any) -> Attempt:
        """A login at a group of three servers."""
        text = f"[upstream store]\n{SERVERS}{directives}[server x]\nprotocol = imap\nlisten = 127.0.0.1:143\n"
        self.upstreams = Upstreams(parse(f"{text}proxy_pass = store\n"), NamingReactor(MemoryReactorClock()))
        if speech.record is SMTP and not any(isinstance(each, SMTPSettings) for each in groups):
            groups += (SMTPSettings(proxyAuth=True),)
        route = routeTo(BackendGroup("store"), **changes)
        return Attempt(speech.record, *groups, route=route, upstreams=self.upstreams)

    @property
    def fails(self) -> list[int]:
        return [peer.fails for peer in self.upstreams.groups[0].peers]

    def serve(self, attempt: Attempt, speech: Speech) -> None:
        """The server that is tried last accepts the login."""
        transport = attempt.accept()
        if transport.tls:
            transport.shakeHands()
        attempt.says(speech.greeting, *speech.prelude, speech.accepted)
        self.assertIsInstance(self.successResultOf(attempt.result), ProxyClient)
        self.assertTrue(attempt.hasNoTimers())


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
                self.assertEqual(attempt.levels, [row.level], row.name)

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
            self.assertIn("timed out after 30 s, in phase backend-login", attempt.log[0])

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
        text = f"[upstream store]\n{SERVERS}[server x]\nprotocol = imap\nlisten = 127.0.0.1:143\nproxy_pass = store\n"
        self.upstreams = Upstreams(parse(text), NamingReactor(MemoryReactorClock()))
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


class BoundTests(RetryCase):
    """How many servers a login tries, and for how long."""

    def test_tries(self) -> None:
        """proxy_next_upstream_tries counts servers; 0 is all."""
        for tries, expected in ((1, 1), (2, 2), (3, 3), (0, 3)):
            attempt = self.attempt(POP, RetrySettings(tries=tries))
            for _ in range(expected):
                attempt.refuse()
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
            self.assertEqual(len(attempt.tried), expected)

    def test_default(self) -> None:
        """Three servers are tried unless a directive says otherwise."""
        routes = [Backend(f"192.0.2.{number}", 110) for number in range(1, 6)]
        attempt = Attempt(POP3, route=routeTo(*routes))
        for _ in range(3):
            attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)

    def test_timeout(self) -> None:
        """After proxy_next_upstream_timeout no further attempt begins; one that runs goes on."""
        attempt = self.attempt(POP, RetrySettings(timeout=5))
        attempt.reactor.advance(4.9)
        attempt.refuse()
        self.assertEqual(len(attempt.tried), 2)
        attempt.reactor.advance(2)
        self.assertNoResult(attempt.result)
        attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        self.assertEqual(len(attempt.tried), 2)

    def test_group(self) -> None:
        """A group's section goes before that of the server."""
        attempt = self.attempt(
            POP,
            RetrySettings(causes=("timeout",)),
            directives="proxy_next_upstream = error\nproxy_connect_timeout = 3s\n",
        )
        attempt.refuse()
        self.assertEqual(len(attempt.tried), 2)
        attempt.reactor.advance(3)
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        self.assertIn("timed out after 3 s, in phase connect", attempt.log[1])

    def test_wholeLogin(self) -> None:
        """All attempts together have proxy_login_timeout. What is left may be too short to blame a server."""
        attempt = self.attempt(POP, RetrySettings(connectTimeout=10, loginTimeout=15))
        attempt.reactor.advance(10)
        self.assertEqual(self.fails, [1, 0, 0])
        attempt.reactor.advance(4.9)
        self.assertNoResult(attempt.result)
        attempt.reactor.advance(0.1)
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        self.assertEqual(self.fails, [1, 0, 0])
        self.assertIn("timed out after 5 s, in phase connect", attempt.log[1])
        self.assertEqual(len(attempt.tried), 2)

    def test_longConnect(self) -> None:
        """proxy_connect_timeout never exceeds proxy_login_timeout."""
        attempt = self.attempt(POP, RetrySettings(connectTimeout=60, loginTimeout=4))
        attempt.reactor.advance(4)
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        self.assertEqual(self.fails, [1, 0, 0])

    def test_oneTimer(self) -> None:
        """An attempt has one timer, which moves when the backend has greeted."""
        attempt = self.attempt(POP)
        attempt.accept()
        (timer,) = attempt.reactor.getDelayedCalls()
        self.assertEqual(timer.getTime(), 10)
        attempt.reactor.advance(6)
        attempt.says(GREETING)
        self.assertEqual(attempt.reactor.getDelayedCalls(), [timer])
        self.assertEqual(timer.getTime(), 30)


class LoneTests(RetryCase):
    """A server that is alone is tried again, as in Dovecot."""

    def lone(self, *groups: Any, **changes: Any) -> Attempt:
        return Attempt(POP3, *groups, RetrySettings(**changes))

    def test_again(self) -> None:
        """It is tried again after a second, three times. The log has equal failures once."""
        attempt = self.lone()
        for tries in range(1, 4):
            attempt.refuse()
            self.assertEqual(len(attempt.tried), tries)
            attempt.reactor.advance(0.9)
            self.assertEqual(len(attempt.tried), tries)
            attempt.reactor.advance(0.1)
            self.assertEqual(len(attempt.tried), tries + 1)
        self.assertNoResult(attempt.result)
        attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        self.assertEqual(attempt.levels, ["error"])
        self.assertTrue(attempt.hasNoTimers())

    def test_served(self) -> None:
        """It serves as soon as it works again, and the failure is a warning."""
        attempt = self.lone()
        attempt.refuse()
        attempt.reactor.advance(1)
        self.serve(attempt, POP)
        self.assertEqual(attempt.levels, ["warn"])

    def test_group(self) -> None:
        """So is the only server of a group, and its sessions are counted right."""
        text = "[upstream one]\nserver = 192.0.2.1:110\n[server x]\nprotocol = pop3\nlisten = 127.0.0.1:110\n"
        upstreams = Upstreams(parse(f"{text}proxy_pass = one\n"), NamingReactor(MemoryReactorClock()))
        (peer,) = upstreams.groups[0].peers
        attempt = Attempt(POP3, route=routeTo(BackendGroup("one")), upstreams=upstreams)
        attempt.refuse()
        self.assertEqual((peer.connections, peer.fails, peer.reason), (0, 0, "refused the connection"))
        attempt.reactor.advance(1)
        self.assertEqual(peer.connections, 1)
        self.serve(attempt, POP)
        self.assertEqual(peer.connections, 1)
        attempt.session.leave()
        self.assertEqual(peer.connections, 0)

    def test_off(self) -> None:
        """Not with proxy_next_upstream = off, nor after a failure that it does not name."""
        for causes in ((), ("timeout",)):
            attempt = self.lone(causes=causes)
            attempt.refuse()
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)

    def test_lasting(self) -> None:
        """Nor for what is the same a second later: configuration, or what the client has caused."""
        for fail, tls in (
            (says(b"+OK\r\n", b"-ERR no STLS\r\n"), BackendTLS.STARTTLS),
            (shakes(CertificateError("has expired")), BackendTLS.IMPLICIT),
        ):
            route = routeTo(Backend("192.0.2.1", 110, tls, name="mail.test"))
            attempt = Attempt(POP3, RetrySettings(), route=route)
            fail(attempt)
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        attempt = self.lone()
        answers(POP, b"-ERR [AUTH] no\r\n")(attempt)
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)

    def test_temporary(self) -> None:
        """It is tried again after a temporary refusal, and once after a loss behind the credentials."""
        attempt = self.lone()
        answers(POP, b"-ERR [SYS/TEMP] no\r\n")(attempt)
        attempt.reactor.advance(1)
        drops(POP, GREETING, OK)(attempt)
        attempt.reactor.advance(1)
        self.assertEqual(len(attempt.tried), 3)
        drops(POP, GREETING, OK)(attempt)
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)

    def test_noTimeLeft(self) -> None:
        """Not where a second or less of the login's time is left."""
        attempt = self.lone(loginTimeout=2)
        attempt.reactor.advance(0.9)
        attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        attempt = self.lone(loginTimeout=2)
        attempt.reactor.advance(0.8)
        attempt.refuse()
        attempt.reactor.advance(1)
        self.assertEqual(len(attempt.tried), 2)

    def test_retryTimeout(self) -> None:
        """Nor after proxy_next_upstream_timeout."""
        attempt = self.lone(timeout=1)
        attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)

    def test_left(self) -> None:
        """The client may leave during the wait: nothing is tried then, and no timer stays."""
        attempt = self.lone()
        attempt.refuse()
        self.assertIs(attempt.session.phase, Phase.CONNECT)
        attempt.result.cancel()
        self.failureResultOf(attempt.result, CancelledError)
        self.assertTrue(attempt.hasNoTimers())
        self.assertEqual(len(attempt.tried), 1)

    def test_phases(self) -> None:
        """The wait is in the phase connect, from whatever phase the failure came."""
        attempt = self.lone()
        attempt.accept()
        attempt.says(b"what?\r\n")
        self.assertIs(attempt.session.phase, Phase.CONNECT)
        attempt.reactor.advance(1)
        self.serve(attempt, POP)

    def test_several(self) -> None:
        """Where there is another server, that is tried, and none of them again."""
        attempt = Attempt(POP3, route=routeTo(FIRST, SECOND))
        attempt.refuse()
        attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)


class MarkTests(SynchronousTestCase):
    """What is remembered of servers, in groups and outside."""

    def setUp(self) -> None:
        text = "[upstream store]\nserver =\n    192.0.2.1:110\n    192.0.2.2:110\n"
        text += "[server x]\nprotocol = pop3\nlisten = 127.0.0.1:110\nproxy_pass = store\n"
        self.clock = MemoryReactorClock()
        self.clock.advance(1000)
        self.upstreams = Upstreams(parse(text), NamingReactor(self.clock))
        self.rested: list[tuple[str, Peer]] = []
        self.upstreams.whenRested = lambda group, peer: self.rested.append((group, peer))

    def attempt(self, *backends: Any) -> Attempt:
        return Attempt(POP3, route=routeTo(*backends), upstreams=self.upstreams)

    def logIn(self, attempt: Attempt) -> None:
        attempt.accept()
        attempt.says(GREETING, OK, LOGGED_IN)
        self.assertIsInstance(self.successResultOf(attempt.result), ProxyClient)

    def test_rest(self) -> None:
        """A server that begins to rest says why and since when, and others hear of it."""
        attempt = self.attempt(BackendGroup("store"))
        attempt.reactor.advance(10)
        first, second = self.upstreams.groups[0].peers
        self.assertEqual((first.reason, first.since), ("timed out after 10 s", 1000))
        self.assertEqual(self.rested, [("store", first)])
        attempt.refuse()
        self.assertEqual(second.reason, "refused the connection")
        self.assertEqual(self.rested[1:], [("store", second)])

    def test_recovered(self) -> None:
        """When it serves again it is up since then."""
        attempt = self.attempt(BackendGroup("store"))
        attempt.refuse()
        self.logIn(attempt)
        first = self.upstreams.groups[0].peers[0]
        self.clock.advance(11)
        for _ in range(2):
            self.logIn(self.attempt(BackendGroup("store")))
        self.assertEqual((first.fails, first.since, first.state(1011)), (0, 1011, PeerState.UP))

    def test_order(self) -> None:
        """What an operator has ordered stays the reason."""
        first = self.upstreams.groups[0].peers[0]
        attempt = self.attempt(BackendGroup("store"))
        first.order, first.reason, first.since = "drain", "mailgate backend drain", 5
        attempt.refuse()
        self.assertEqual((first.reason, first.since), ("mailgate backend drain", 5))

    def test_restingLast(self) -> None:
        """Of several backends of a route, one that has failed is tried last, until its rest is over."""
        attempt = self.attempt(FIRST, SECOND)
        attempt.refuse()
        self.logIn(attempt)
        peer = self.upstreams.lone(FIRST)
        self.assertEqual((peer.reason, peer.since), ("refused the connection", 1000))
        self.assertEqual(self.rested, [("", peer)])
        line = "backend 192.0.2.99:110 failed 1 times; for 10 s logins try their other backends first"
        self.assertIn(line, attempt.log)
        again = self.attempt(FIRST, SECOND)
        self.assertEqual(again.tried, [("192.0.2.100", 110)])
        again.refuse()
        self.assertEqual(again.tried[1:], [("192.0.2.99", 110)])
        self.logIn(again)

    def test_oneProbe(self) -> None:
        """After the rest one login tries it, and the others wait for its result."""
        attempt = self.attempt(FIRST, SECOND)
        attempt.refuse()
        self.logIn(attempt)
        self.clock.advance(11)
        probe = self.attempt(FIRST, SECOND)
        other = self.attempt(FIRST, SECOND)
        self.assertEqual((probe.tried, other.tried), ([("192.0.2.99", 110)], [("192.0.2.100", 110)]))
        self.logIn(probe)
        self.assertEqual(self.attempt(FIRST, SECOND).tried, [("192.0.2.99", 110)])

    def test_probeLeft(self) -> None:
        """If the client of that login leaves, the next login may try."""
        attempt = self.attempt(FIRST, SECOND)
        attempt.refuse()
        self.logIn(attempt)
        self.clock.advance(11)
        for _ in range(3):
            probe = self.attempt(FIRST, SECOND)
            self.assertEqual(probe.tried, [("192.0.2.99", 110)])
            probe.result.addErrback(lambda failure: None)
            probe.result.cancel()
        self.assertEqual(self.upstreams.lone(FIRST).connections, 0)

    def test_alone(self) -> None:
        """A server that is the only one of its route does not rest."""
        attempt = self.attempt(FIRST)
        attempt.refuse()
        peer = self.upstreams.lone(FIRST)
        self.assertEqual((peer.fails, peer.reason, self.rested), (0, "refused the connection", []))
        self.assertEqual(self.attempt(FIRST).tried, [("192.0.2.99", 110)])

    def test_passedOver(self) -> None:
        """Servers that an operator or a health check takes out are passed over."""
        peer = self.upstreams.lone(FIRST)
        for order, isFailing in (("drain", False), ("down", False), ("", True)):
            peer.order, peer.isFailing = order, isFailing
            attempt = self.attempt(FIRST, SECOND)
            self.assertEqual(attempt.tried, [("192.0.2.100", 110)])
            self.logIn(attempt)
            self.assertEqual(attempt.log, [])

    def test_drained(self) -> None:
        """Without another server the client hears of a temporary failure, and the log says who took it out."""
        for backends, peers in (
            ((FIRST,), [self.upstreams.lone(FIRST)]),
            ((FIRST, SECOND), [self.upstreams.lone(FIRST), self.upstreams.lone(SECOND)]),
            ((BackendGroup("store"),), self.upstreams.groups[0].peers),
        ):
            for order, words in (("drain", "an operator drained it"), ("down", "an operator took it down")):
                for peer in peers:
                    peer.order = order
                attempt = self.attempt(*backends)
                self.assertEqual(attempt.tried, [])
                self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
                for line in attempt.log:
                    self.assertIn(words, line)
                self.assertIn(f"mailgate backend resume {peers[0].backend}", attempt.log[0])
                self.assertEqual(attempt.levels[0], "error")
                self.assertEqual([peer.connections for peer in peers], [0] * len(peers))

    def test_drainedInTheWait(self) -> None:
        """An order counts for a login that waits to try the server again."""
        attempt = Attempt(POP3, RetrySettings(), route=routeTo(FIRST), upstreams=self.upstreams)
        attempt.refuse()
        peer = self.upstreams.lone(FIRST)
        peer.order = "drain"
        attempt.reactor.advance(1)
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        self.assertEqual((len(attempt.tried), peer.connections), (1, 0))


class DirectiveTests(SynchronousTestCase):
    """L{RetrySettings}."""

    SERVER = "[server x]\nprotocol = pop3\nlisten = 127.0.0.1:110\nproxy_pass = 192.0.2.1:110\n"

    def settings(self, text: str = "") -> RetrySettings:
        (server,) = parse(self.SERVER + text).servers
        found: RetrySettings = server[RetrySettings]
        return found

    def test_defaults(self) -> None:
        """The defaults of the documentation."""
        settings = self.settings()
        self.assertEqual((settings.attempt, settings.wholeLogin), (10, 30))
        self.assertEqual((settings.causes, settings.tries, settings.timeout), (CAUSES, 3, 0))

    def test_words(self) -> None:
        """on is the default, off is none."""
        for text, expected in (("on", CAUSES), ("off", ()), ("error timeout", ("error", "timeout"))):
            self.assertEqual(self.settings(f"proxy_next_upstream = {text}\n").causes, expected)
        for text in ("error off", "on tls", "http_500"):
            self.assertRaises(ConfigurationError, self.settings, f"proxy_next_upstream = {text}\n")

    def test_within(self) -> None:
        """proxy_login_timeout is timeout where that is written."""
        self.assertEqual(RetrySettings().within(None).wholeLogin, 30)
        self.assertEqual(RetrySettings().within(45.0).wholeLogin, 45)
        self.assertEqual(RetrySettings(loginTimeout=20.0).within(45.0).wholeLogin, 20)
        self.assertEqual(evolve(RetrySettings(), loginTimeout=4.0).attempt, 4)
