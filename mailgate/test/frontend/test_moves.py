"""
Tests for L{mailgate.session.TRANSITIONS}, the table of moves of a session from phase to phase.
"""

from __future__ import annotations

import base64
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.settings import DialogueSettings
from mailgate.login import Backend, BackendTLS, Denial, Route, Trouble
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.pop3.settings import POP3Settings
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.session import TRANSITIONS, Phase, Session
from mailgate.testing import Attempt, CheckedSession, Conversation, FakeAuthenticator, FakeConnector, routeTo
from mailgate.testing.fakes import makeSession
from mailgate.tls.settings import TLSSettings

HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
LOGIN = (b"USER joe", b"PASS sesame")
IN_CLEAR = Backend("192.0.2.99", 110)
IMPLICIT = Backend("192.0.2.99", 995, BackendTLS.IMPLICIT)
GREETING, OK, LOGGED_IN = b"+OK POP3 ready\r\n", b"+OK\r\n", b"+OK 3 messages\r\n"
NO = b"-ERR [AUTH] who are you\r\n"
DENIED = Denial(Trouble.DENIED)


class MoveCase(SynchronousTestCase):
    """Shared by the tests here."""

    def setUp(self) -> None:
        self.patch(CheckedSession, "made", set())

    def converse(
        self, *answers: Any, lines: tuple[bytes, ...] = LOGIN, ssl: bool = False, **given: Any
    ) -> Conversation:
        """A POP3 conversation whose client has sent C{lines}. C{answers} are the authenticator's."""
        groups = (POP3Settings(auth=("plain", "cram-md5", "xoauth2")), TLSSettings(starttls="off" if ssl else "on"))
        made = Conversation(POP3, *groups, authenticator=FakeAuthenticator(*answers), ssl=ssl, **given)
        if not (ssl or "proxyProtocol" in given):
            made.says(*lines)
        return made

    def loginAt(self, route: Route) -> tuple[Conversation, Attempt]:
        """A login at the backends of C{route}, which the test plays. A refusal is delayed by two seconds."""
        backends = Attempt(POP3, route=route)
        conversation = Conversation(
            POP3,
            DialogueSettings(serverName="mx.test", authDelay=2.0),
            authenticator=FakeAuthenticator(route),
            connector=backends.connector,  # type: ignore[arg-type]
        )
        conversation.says(*LOGIN)
        return conversation, backends


class _Closed:
    """Limits that let no client in."""

    def arrived(self, session: Session, host: str) -> Trouble:
        return Trouble.TOO_MANY

    def left(self, session: Session) -> None:
        pass


class EveryMoveTests(MoveCase):
    """Some dialogue makes each move of the table."""

    def arrive(self) -> None:
        """Clients connect, with and without a PROXY header and TLS, or leave before that."""
        for ssl in (False, True):
            conversation = self.converse(ssl=ssl, lines=())
            if ssl:
                conversation.transport.shakeHands()
            conversation = self.converse(ssl=ssl, proxyProtocol=True)
            conversation.send(HEADER)
            self.converse(ssl=ssl, lines=(), admission=_Closed())
        self.converse(proxyProtocol=True).transport.lose()
        self.converse(ssl=True).transport.lose()
        Conversation(SMTP, SMTPSettings(greetingDelay=5)).transport.lose()
        Conversation(SMTP, SMTPSettings(greetingDelay=5), proxyProtocol=True).send(HEADER)
        Conversation(SMTP, SMTPSettings(greetingDelay=5), ssl=True).transport.shakeHands()
        Conversation(SMTP, SMTPSettings(greetingDelay=5)).clock.advance(5)

    def talk(self) -> None:
        """Clients leave, begin TLS, or log in by an exchange, which they cancel or leave in the middle."""
        self.converse(lines=(b"QUIT",))
        self.converse(lines=(b"STLS",)).transport.shakeHands()
        for answer in (b"*", base64.b64encode(b"joe 0123456789abcdef0123456789abcdef")):
            self.converse(lines=(b"AUTH CRAM-MD5", answer))
        self.converse(lines=(b"AUTH CRAM-MD5",)).transport.lose()

    def judge(self) -> None:
        """The login is refused, with and without a challenge, or the client leaves before the answer."""
        self.converse(DENIED)
        token = base64.b64encode(b"user=joe\1auth=Bearer x\1\1")
        refused = Denial(Trouble.DENIED, challenge=base64.b64encode(b'{"status":"401"}'))
        self.converse(refused, lines=(b"AUTH XOAUTH2 " + token,))
        self.converse(None).transport.lose()

    def connect(self) -> None:
        """The connect to the backend fails, or the client leaves during it or before the login is done."""
        self.loginAt(routeTo(IN_CLEAR))[1].refuse()
        self.loginAt(routeTo(IN_CLEAR))[0].transport.lose()
        conversation, backends = self.loginAt(routeTo(IN_CLEAR))
        backends.accept()
        conversation.transport.lose()

    def logIn(self) -> None:
        """The backend accepts the login, or another is tried, or the client is refused, at once or later."""
        _, backends = self.loginAt(routeTo(IN_CLEAR))
        backends.accept()
        backends.says(GREETING, OK, LOGGED_IN)
        for route, said in (
            (routeTo(IN_CLEAR, IN_CLEAR), (b"-ERR\r\n",)),
            (routeTo(IN_CLEAR), (b"-ERR\r\n",)),
            (routeTo(IN_CLEAR, judged=False), (GREETING, OK, NO)),
        ):
            _, backends = self.loginAt(route)
            backends.accept()
            backends.says(*said)

    def secure(self) -> None:
        """TLS with the backend succeeds or fails, or the client leaves."""
        for route in (routeTo(IMPLICIT), routeTo(IMPLICIT, IMPLICIT)):
            self.loginAt(route)[1].accept().lose()
        conversation, backends = self.loginAt(routeTo(IMPLICIT))
        backends.accept()
        conversation.transport.lose()
        _, backends = self.loginAt(routeTo(IMPLICIT))
        backends.accept().shakeHands()

    def test_every(self) -> None:
        """These moves are made, and no others."""
        for part in (self.arrive, self.talk, self.judge, self.connect, self.logIn, self.secure):
            part()
        made: dict[Phase, set[Phase]] = {phase: set() for phase in Phase}
        for before, after in CheckedSession.made:
            made[before].add(after)
        self.assertEqual(made, TRANSITIONS)


class CheckTests(MoveCase):
    """The error of a test with a move that is not in the table."""

    def test_raised(self) -> None:
        """A wrong move fails the test even if the error is caught and only logged."""
        session = makeSession("pop3", "127.0.0.1:110", "192.0.2.7:40123", 0.0, kind=CheckedSession)
        error = self.assertRaises(AssertionError, session.enter, Phase.RELAY)
        self.assertEqual(str(error), "a session may not go from ACCEPT to RELAY")
        self.assertIs(session.phase, Phase.ACCEPT)
        self.assertEqual(len(self.flushLoggedErrors(AssertionError)), 1)

    def test_inDialogues(self) -> None:
        """Conversations and attempts use such sessions, also behind a PROXY header."""
        behind = self.converse(proxyProtocol=True)
        behind.send(HEADER)
        for conversation in (self.converse(), behind, Attempt(POP3)):
            session = conversation.session if isinstance(conversation, Attempt) else conversation.server.session
            self.assertIsInstance(session, CheckedSession)

    def test_caught(self) -> None:
        """An error in a login that the dialogue survives fails the test as well."""

        class Skipping(FakeConnector):
            """Skips to the relay."""

            async def connect(self, route: Any, request: Any, session: Any) -> Any:
                session.enter(Phase.RELAY)

        conversation = self.converse(connector=Skipping())
        self.assertIn(
            b"Internal server error", conversation.transport.value() + conversation.hear() or b"Internal server error"
        )
        self.assertGreaterEqual(len(self.flushLoggedErrors(AssertionError)), 1)

    def test_stay(self) -> None:
        """A session may enter the phase that it is in, the last one too."""
        for phase in Phase:
            session = makeSession("pop3", "127.0.0.1:110", "192.0.2.7:40123", 0.0, phase, kind=CheckedSession)
            session.enter(phase)
        self.assertEqual(CheckedSession.made, set())

    def test_whole(self) -> None:
        """The table has a row for each phase. Each phase is reachable, and none follows the relay or the end."""
        self.assertEqual(list(TRANSITIONS), list(Phase))
        reached = {Phase.ACCEPT}.union(*TRANSITIONS.values())
        self.assertEqual(reached, set(Phase))
        self.assertEqual([phase for phase in Phase if not TRANSITIONS[phase]], [Phase.RELAY, Phase.END])
