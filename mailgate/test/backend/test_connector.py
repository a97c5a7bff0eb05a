"""
Tests of the connector: routes with several backends, refusals, and cancelled connections.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionLost
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.client import ProxyClient
from mailgate.backend.settings import ProxySettings
from mailgate.login import Backend, BackendTLS, Denial, Refusal, Trouble
from mailgate.protocols.pop3 import POP3
from mailgate.session import Phase
from mailgate.test.backend.test_client import FIRST, GREETING, LOGGED_IN, OK, SECOND, SlowResolver, loggedIn
from mailgate.testing import Attempt, routeTo

PASS_ON = ProxySettings(passErrorMessage=True)


class ConnectorTests(SynchronousTestCase):
    """L{mailgate.backend.connector.Connector.connect} with success and with failures."""

    def assertTemporary(self, attempt: Attempt) -> Denial:
        denial = self.successResultOf(attempt.result)
        self.assertEqual(denial, Denial(Trouble.TEMPORARY))
        self.assertTrue(attempt.hasNoTimers())
        assert isinstance(denial, Denial)
        return denial

    def test_success(self) -> None:
        """The result is logged in, the session has the backend's name, and nothing is logged."""
        attempt = Attempt(POP3)
        self.assertIs(attempt.session.phase, Phase.CONNECT)
        attempt.accept()
        self.assertIs(attempt.session.phase, Phase.BACKEND_LOGIN)
        self.assertEqual(attempt.says(GREETING), b"USER joe\r\n")
        self.assertEqual(attempt.says(OK), b"PASS sesame\r\n")
        attempt.says(LOGGED_IN)
        client = self.successResultOf(attempt.result)
        self.assertIsInstance(client, ProxyClient)
        self.assertEqual(client.reply, LOGGED_IN)
        self.assertEqual(attempt.session.backend, "192.0.2.99:110")
        self.assertEqual(attempt.log, [])
        self.assertTrue(attempt.hasNoTimers())

    def test_refusedConnection(self) -> None:
        """A failed connect is a temporary failure and an error in the log with the address."""
        attempt = Attempt(POP3)
        attempt.refuse()
        denial = self.assertTemporary(attempt)
        self.assertEqual((denial.reason, denial.why), ("", "backend 192.0.2.99:110 refused the connection"))
        self.assertEqual(attempt.levels, ["error"])
        for part in ("backend 192.0.2.99:110", "refused", "phase connect", "client 192.0.2.7:40123", 'user "joe"'):
            self.assertIn(part, attempt.log[0])

    def test_noCycle(self) -> None:
        """A failed attempt leaves no reference from its error to its frames, which know the password."""
        clients: list[ProxyClient] = []

        class Client(POP3.client):  # type: ignore[name-defined]
            """Remembers each instance."""

            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                clients.append(self)

        attempt = Attempt(evolve(POP3, client=Client))
        attempt.accept()
        attempt.says(GREETING, OK)
        attempt.transport.lose()
        self.assertTemporary(attempt)
        (client,) = clients
        self.assertIsNone(getattr(client.loss, "__traceback__", None))

    def test_otherErrors(self) -> None:
        """So is every other network error."""
        for error in (OSError(113, "No route to host"), PermissionError(13, "Permission denied")):
            attempt = Attempt(POP3)
            attempt.refuse(error)
            self.assertTemporary(attempt)
            self.assertIn(str(error.args[1]), attempt.log[0])

    def test_defect(self) -> None:
        """A bug is not treated as a network error."""
        attempt = Attempt(POP3)
        attempt.refuse(ZeroDivisionError())
        self.failureResultOf(attempt.result, ZeroDivisionError)

    def test_noAnswerToConnection(self) -> None:
        """A backend that does not accept the connection has proxy_connect_timeout."""
        attempt = Attempt(POP3, timeout=30.0)
        attempt.reactor.advance(9.9)
        self.assertNoResult(attempt.result)
        attempt.reactor.advance(0.2)
        self.assertTemporary(attempt)
        self.assertTrue(attempt.reactor.connectors[0].stoppedConnecting)

    def test_connectionTimedOut(self) -> None:
        """The log is the same whether the endpoint or the connector times out first."""
        attempt = Attempt(POP3, timeout=30.0)
        attempt.refuse(ConnectTimeout())
        self.assertTemporary(attempt)
        self.assertIn("timed out after 10 s, in phase connect", attempt.log[0])

    def test_silence(self) -> None:
        """The whole login has proxy_login_timeout, not each step; up to the greeting it has proxy_connect_timeout."""
        attempt = Attempt(POP3, timeout=30.0)
        attempt.reactor.advance(4)
        attempt.accept()
        attempt.reactor.advance(5.9)
        attempt.says(GREETING)
        attempt.reactor.advance(20)
        self.assertNoResult(attempt.result)
        attempt.reactor.advance(0.2)
        self.assertTemporary(attempt)
        self.assertTrue(attempt.transport.aborted)
        self.assertIn("timed out after 30 s, in phase backend-login", attempt.log[0])

    def test_lateReply(self) -> None:
        """Replies after the timeout are ignored."""
        attempt = Attempt(POP3)
        attempt.accept()
        attempt.reactor.advance(30)
        self.assertTemporary(attempt)
        self.assertEqual(attempt.says(GREETING), b"")
        attempt.transport.lose()

    def test_next(self) -> None:
        """If the first backend fails, the second is tried, and has the rest of the time. The log names the first."""
        attempt = Attempt(POP3, route=routeTo(FIRST, SECOND))
        attempt.accept()
        attempt.reactor.advance(10)
        self.assertNoResult(attempt.result)
        self.assertEqual(attempt.tried, [("192.0.2.99", 110), ("192.0.2.100", 110)])
        attempt.accept()
        attempt.reactor.advance(9)
        attempt.says(GREETING)
        attempt.reactor.advance(10)
        attempt.says(OK, LOGGED_IN)
        self.assertEqual(self.successResultOf(attempt.result).backend, SECOND)
        self.assertEqual(attempt.session.backend, "192.0.2.100:110")
        self.assertEqual(len(attempt.log), 1)
        self.assertIn("192.0.2.99:110", attempt.log[0])

    def test_nextAfterEachKindOfFailure(self) -> None:
        """Refused connections, wrong greetings, long replies and losses in a login lead to the next backend."""

        def strange(attempt: Attempt) -> None:
            attempt.accept()
            attempt.says(b"SSH-2.0-OpenSSH\r\n")

        def endless(attempt: Attempt) -> None:
            attempt.accept()
            attempt.says(b"+OK" * 2000)

        def lost(attempt: Attempt) -> None:
            attempt.accept()
            attempt.says(GREETING)
            attempt.transport.lose(ConnectionLost())

        for fail in (Attempt.refuse, strange, endless, lost):
            attempt = Attempt(POP3, route=routeTo(FIRST, SECOND))
            fail(attempt)
            self.assertEqual(attempt.tried[1:], [("192.0.2.100", 110)])
            attempt.accept()
            attempt.says(GREETING, OK, LOGGED_IN)
            self.assertEqual(self.successResultOf(attempt.result).reply, LOGGED_IN)

    def test_noneLeft(self) -> None:
        """If the last backend fails too, each failure is logged."""
        attempt = Attempt(POP3, route=routeTo(FIRST, SECOND))
        attempt.refuse()
        attempt.refuse()
        self.assertTemporary(attempt)
        self.assertEqual(attempt.levels, ["error", "error"])
        self.assertEqual(attempt.session.backend, "192.0.2.100:110")

    def test_noNextAfterRefusal(self) -> None:
        """If a backend refuses the password, the next one is not tried."""
        attempt = loggedIn(route=routeTo(FIRST, SECOND))
        attempt.says(b"-ERR no\r\n")
        self.assertTemporary(attempt)
        self.assertEqual(len(attempt.tried), 1)
        self.assertTrue(attempt.transport.aborted)

    def test_badHostName(self) -> None:
        """An invalid host name is a temporary failure."""
        attempt = Attempt(POP3, route=routeTo(Backend("bad..name", 110), SECOND))
        self.assertEqual(attempt.tried, [("192.0.2.100", 110)])
        attempt.refuse()
        self.assertTemporary(attempt)
        self.assertIn("backend bad..name:110 is not a valid host name", attempt.log[0])

    def test_unknownHostName(self) -> None:
        """So is a name without an address."""
        resolver = SlowResolver()
        attempt = Attempt(POP3, route=routeTo(Backend("gone.example.com", 110)), resolver=resolver)
        resolver.answer()
        self.assertTemporary(attempt)
        self.assertIn("gone.example.com", attempt.log[-1])

    def test_slowName(self) -> None:
        """The look-up of a name counts towards proxy_connect_timeout."""
        resolver = SlowResolver()
        attempt = Attempt(POP3, route=routeTo(Backend("mail.example.com", 110)), resolver=resolver)
        attempt.reactor.advance(5)
        resolver.answer("192.0.2.1")
        attempt.reactor.advance(4.9)
        self.assertNoResult(attempt.result)
        attempt.reactor.advance(0.1)
        self.assertTemporary(attempt)
        self.assertIn("timed out after 10 s, in phase connect", attempt.log[-1])

    def test_noAnswerFromResolver(self) -> None:
        """A look-up without an answer times out; a late answer is ignored."""
        resolver = SlowResolver()
        attempt = Attempt(POP3, route=routeTo(Backend("mail.example.com", 110)), resolver=resolver)
        attempt.reactor.advance(30)
        self.assertTemporary(attempt)
        resolver.answer("192.0.2.1")
        self.assertEqual(attempt.tried, [])

    def test_forbiddenBytes(self) -> None:
        """Credentials with CR, LF or NUL are refused without a connection to a backend."""
        why = "the user name or password contains a line end or NUL"
        for bad in (b"\r", b"\n", b"\0"):
            for route in (routeTo(user=b"joe" + bad + b"DELE 1"), routeTo(password=b"x" + bad + b"DELE 1")):
                attempt = Attempt(POP3, route=route)
                self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.DENIED, reason=why))
                self.assertEqual(attempt.tried, [])
                # The line about the login has the reason.
                self.assertEqual(attempt.levels, [])

    def test_noPassword(self) -> None:
        """A route without a password fails before a command that needs one."""
        attempt = Attempt(POP3, route=routeTo(password=None))
        attempt.accept()
        self.assertEqual(attempt.says(GREETING), b"")
        self.assertTemporary(attempt)
        self.assertIn("needs a password", attempt.log[0])


class RefusalTests(SynchronousTestCase):
    """The result of a backend's refusal."""

    NO = b"-ERR [AUTH] who are you\r\n"
    BUSY = b"-ERR [IN-USE] come back\r\n"

    def answer(self, reply: bytes, *groups: Any, **route: Any) -> tuple[Any, Attempt]:
        attempt = loggedIn(*groups, route=routeTo(**route))
        attempt.says(reply)
        self.assertTrue(attempt.transport.aborted)
        self.assertTrue(attempt.hasNoTimers())
        return self.successResultOf(attempt.result), attempt

    def test_judged(self) -> None:
        """
        If the authenticator accepted the password and the backend refuses it, that is a temporary failure and an error.
        """
        result, attempt = self.answer(self.NO)
        self.assertEqual(result, Denial(Trouble.TEMPORARY))
        self.assertEqual(result.why, "backend 192.0.2.99:110 refused the login with -ERR [AUTH]")
        self.assertEqual(attempt.levels, ["error"])
        self.assertIn("refused the login with -ERR [AUTH],", attempt.log[0])

    def test_judgedPassedOn(self) -> None:
        """With proxy_pass_error_message on the client gets the backend's reply, and the error is logged too."""
        result, attempt = self.answer(self.NO, PASS_ON)
        self.assertEqual(result, Refusal(self.NO, False))
        self.assertEqual(attempt.levels, ["error"])
        result, _ = self.answer(self.BUSY, PASS_ON)
        self.assertEqual(result, Refusal(self.BUSY, True))

    def test_unjudged(self) -> None:
        """If nothing has judged the password, the backend's refusal is the answer and not an error."""
        for groups in ((), (PASS_ON,)):
            result, attempt = self.answer(self.NO, *groups, judged=False)
            self.assertEqual(result, Denial(Trouble.DENIED, answer=self.NO.strip()))
            self.assertNotIn("error", attempt.levels)

    def test_unjudgedTemporary(self) -> None:
        """But a temporary failure of the backend is an error, unless it is about this account only."""
        later = b"-ERR [SYS/TEMP] later\r\n"
        for reply, levels in ((later, ["error"]), (self.BUSY, [])):
            result, attempt = self.answer(reply, judged=False)
            self.assertEqual(result, Denial(Trouble.TEMPORARY, answer=reply.strip()))
            self.assertEqual(attempt.levels, levels)

    def test_account(self) -> None:
        """A mailbox in use is not an error, although the authenticator accepted the password. The client hears why."""
        for reply in (self.BUSY, b"-ERR [LOGIN-DELAY] wait a minute\r\n"):
            result, attempt = self.answer(reply)
            self.assertEqual(result, Denial(Trouble.TEMPORARY, answer=reply.strip()))
            self.assertEqual(attempt.levels, ["warn"])

    def test_greetingPassedOn(self) -> None:
        """With proxy_pass_error_message on a refusal instead of a greeting is passed on too, as temporary."""
        for groups, expected in (((), Denial(Trouble.TEMPORARY)), ((PASS_ON,), Refusal(b"-ERR full\r\n", True))):
            attempt = Attempt(POP3, *groups)
            attempt.accept()
            attempt.says(b"-ERR full\r\n")
            self.assertEqual(self.successResultOf(attempt.result), expected)

    def test_lastReplyCounts(self) -> None:
        """An earlier backend's reply is not passed on if the last one sent none."""
        attempt = Attempt(POP3, PASS_ON, route=routeTo(FIRST, SECOND))
        attempt.accept()
        attempt.says(b"-ERR full\r\n")
        attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))

    def test_nothingToPassOn(self) -> None:
        """A backend that fails without a reply is a temporary failure, whatever proxy_pass_error_message says."""
        attempt = Attempt(POP3, PASS_ON)
        attempt.accept()
        attempt.transport.lose(ConnectionLost())
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))


class CancellationTests(SynchronousTestCase):
    """The client leaves."""

    def assertGivenUp(self, attempt: Attempt, tried: int = 1) -> None:
        attempt.result.cancel()
        self.failureResultOf(attempt.result, CancelledError)
        self.assertEqual(len(attempt.tried), tried)
        self.assertEqual(attempt.log, [])
        self.assertTrue(attempt.hasNoTimers())

    def test_connecting(self) -> None:
        """A running connect is cancelled, and the next backend is not tried."""
        attempt = Attempt(POP3, route=routeTo(FIRST, SECOND))
        self.assertGivenUp(attempt)
        self.assertTrue(attempt.reactor.connectors[0].stoppedConnecting)

    def test_connectingToName(self) -> None:
        """So is a connect to a host name."""
        attempt = Attempt(POP3, route=routeTo(Backend("mail.example.com", 110), SECOND))
        self.assertGivenUp(attempt)

    def test_resolving(self) -> None:
        """So is the look-up of a name."""
        resolver = SlowResolver()
        attempt = Attempt(POP3, route=routeTo(Backend("mail.example.com", 110), SECOND), resolver=resolver)
        self.assertGivenUp(attempt, tried=0)
        resolver.answer("192.0.2.1")
        self.assertEqual(attempt.tried, [])

    def test_midLogin(self) -> None:
        """A running login is aborted at every step."""
        for said in range(3):
            attempt = Attempt(POP3, route=routeTo(FIRST, SECOND))
            attempt.accept()
            attempt.says(*(GREETING, OK)[:said])
            self.assertGivenUp(attempt)
            self.assertTrue(attempt.transport.aborted)
            attempt.transport.lose()

    def test_handshake(self) -> None:
        """So is a TLS handshake."""
        attempt = Attempt(POP3, route=routeTo(Backend("192.0.2.99", 995, BackendTLS.IMPLICIT)))
        attempt.accept()
        self.assertGivenUp(attempt)
        self.assertTrue(attempt.transport.aborted)
