"""
Tests of the connector: routes of several backends, refusals, and connections that are given up.
"""

from __future__ import annotations

from typing import Any

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
    """L{mailgate.backend.connector.Connector.connect} where something goes wrong, and where it does not."""

    def assertTemporary(self, attempt: Attempt) -> None:
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
        self.assertTrue(attempt.hasNoTimers())

    def test_success(self) -> None:
        """The result is a client that is logged in; the session knows the backend, and the log has nothing to say."""
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
        """A backend that cannot be connected to is a temporary failure, and an error in the log that says where."""
        attempt = Attempt(POP3)
        attempt.refuse()
        self.assertTemporary(attempt)
        self.assertEqual(attempt.levels, ["error"])
        for part in ("backend 192.0.2.99:110", "refused", "phase connect", "client 192.0.2.7:40123", 'user "joe"'):
            self.assertIn(part, attempt.log[0])

    def test_otherErrors(self) -> None:
        """So is every other trouble of the network."""
        for error in (OSError(113, "No route to host"), PermissionError(13, "Permission denied")):
            attempt = Attempt(POP3)
            attempt.refuse(error)
            self.assertTemporary(attempt)
            self.assertIn(str(error.args[1]), attempt.log[0])

    def test_defect(self) -> None:
        """What is no trouble of the network but a defect is not taken for one."""
        attempt = Attempt(POP3)
        attempt.refuse(ZeroDivisionError())
        self.failureResultOf(attempt.result, ZeroDivisionError)

    def test_noAnswerToConnection(self) -> None:
        """A backend that does not even accept the connection has C{timeout} seconds to do so."""
        attempt = Attempt(POP3, timeout=30.0)
        attempt.reactor.advance(29.9)
        self.assertNoResult(attempt.result)
        attempt.reactor.advance(0.2)
        self.assertTemporary(attempt)
        self.assertTrue(attempt.reactor.connectors[0].stoppedConnecting)

    def test_connectionTimedOut(self) -> None:
        """It does not matter which clock says so first, the endpoint's or the connector's: the log says the same."""
        attempt = Attempt(POP3, timeout=30.0)
        attempt.refuse(ConnectTimeout())
        self.assertTemporary(attempt)
        self.assertIn("timed out after 30 s, in phase connect", attempt.log[0])

    def test_silence(self) -> None:
        """The whole login has C{timeout} seconds, not each step of it."""
        attempt = Attempt(POP3, timeout=30.0)
        attempt.reactor.advance(10)
        attempt.accept()
        attempt.reactor.advance(10)
        attempt.says(GREETING)
        attempt.reactor.advance(9.9)
        self.assertNoResult(attempt.result)
        attempt.reactor.advance(0.1)
        self.assertTemporary(attempt)
        self.assertTrue(attempt.transport.aborted)
        self.assertIn("timed out after 30 s, in phase backend-login", attempt.log[0])

    def test_lateReply(self) -> None:
        """What a backend says once it has been given up is not answered."""
        attempt = Attempt(POP3)
        attempt.accept()
        attempt.reactor.advance(30)
        self.assertTemporary(attempt)
        self.assertEqual(attempt.says(GREETING), b"")
        attempt.transport.lose()

    def test_next(self) -> None:
        """Where the first backend fails the second is tried, with a time of its own; the log names the first."""
        attempt = Attempt(POP3, route=routeTo(FIRST, SECOND))
        attempt.accept()
        attempt.reactor.advance(30)
        self.assertNoResult(attempt.result)
        self.assertEqual(attempt.tried, [("192.0.2.99", 110), ("192.0.2.100", 110)])
        attempt.accept()
        attempt.reactor.advance(29)
        attempt.says(GREETING, OK, LOGGED_IN)
        self.assertEqual(self.successResultOf(attempt.result).backend, SECOND)
        self.assertEqual(attempt.session.backend, "192.0.2.100:110")
        self.assertEqual(len(attempt.log), 1)
        self.assertIn("192.0.2.99:110", attempt.log[0])

    def test_nextAfterEachKindOfFailure(self) -> None:
        """Refused connections, strange greetings, too long replies and losses in mid-login all lead to the next."""

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
        """Where the last backend fails too, each failure is in the log."""
        attempt = Attempt(POP3, route=routeTo(FIRST, SECOND))
        attempt.refuse()
        attempt.refuse()
        self.assertTemporary(attempt)
        self.assertEqual(attempt.levels, ["error", "error"])
        self.assertEqual(attempt.session.backend, "192.0.2.100:110")

    def test_noNextAfterRefusal(self) -> None:
        """A backend that refuses the password has decided: the next one is not asked."""
        attempt = loggedIn(route=routeTo(FIRST, SECOND))
        attempt.says(b"-ERR no\r\n")
        self.assertTemporary(attempt)
        self.assertEqual(len(attempt.tried), 1)
        self.assertTrue(attempt.transport.aborted)

    def test_badHostName(self) -> None:
        """A backend whose name cannot be one is a temporary failure like any other."""
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
        """The time of a name's lookup is part of the time that its backend has, and the log says that time is up."""
        resolver = SlowResolver()
        attempt = Attempt(POP3, route=routeTo(Backend("mail.example.com", 110)), resolver=resolver)
        attempt.reactor.advance(20)
        resolver.answer("192.0.2.1")
        attempt.reactor.advance(9.9)
        self.assertNoResult(attempt.result)
        attempt.reactor.advance(0.1)
        self.assertTemporary(attempt)
        self.assertIn("timed out after 30 s, in phase connect", attempt.log[-1])

    def test_noAnswerFromResolver(self) -> None:
        """A resolver that does not answer is given up in time; what it answers later is not listened to."""
        resolver = SlowResolver()
        attempt = Attempt(POP3, route=routeTo(Backend("mail.example.com", 110)), resolver=resolver)
        attempt.reactor.advance(30)
        self.assertTemporary(attempt)
        resolver.answer("192.0.2.1")
        self.assertEqual(attempt.tried, [])

    def test_forbiddenBytes(self) -> None:
        """Credentials with CR, LF or NUL are wrong ones; no backend is even connected to."""
        why = "the user name or password contains a line end or NUL"
        for bad in (b"\r", b"\n", b"\0"):
            for route in (routeTo(user=b"joe" + bad + b"DELE 1"), routeTo(password=b"x" + bad + b"DELE 1")):
                attempt = Attempt(POP3, route=route)
                self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.DENIED, reason=why))
                self.assertEqual(attempt.tried, [])
                # The line about the login has the reason.
                self.assertEqual(attempt.levels, [])

    def test_noPassword(self) -> None:
        """A route without a password fails before anything is said that a password should follow."""
        attempt = Attempt(POP3, route=routeTo(password=None))
        attempt.accept()
        self.assertEqual(attempt.says(GREETING), b"")
        self.assertTemporary(attempt)
        self.assertIn("needs a password", attempt.log[0])


class RefusalTests(SynchronousTestCase):
    """What a backend's "no" becomes."""

    NO = b"-ERR [AUTH] who are you\r\n"
    BUSY = b"-ERR [IN-USE] come back\r\n"

    def answer(self, reply: bytes, *groups: Any, **route: Any) -> tuple[Any, Attempt]:
        attempt = loggedIn(*groups, route=routeTo(**route))
        attempt.says(reply)
        self.assertTrue(attempt.transport.aborted)
        self.assertTrue(attempt.hasNoTimers())
        return self.successResultOf(attempt.result), attempt

    def test_judged(self) -> None:
        """A password that the authenticator took and the backend does not is a temporary failure, and an error."""
        result, attempt = self.answer(self.NO)
        self.assertEqual(result, Denial(Trouble.TEMPORARY))
        self.assertEqual(attempt.levels, ["error"])
        self.assertIn("refused the login with -ERR [AUTH],", attempt.log[0])

    def test_judgedPassedOn(self) -> None:
        """With proxy_pass_error_message on the client gets what the backend said; the log has the error too."""
        result, attempt = self.answer(self.NO, PASS_ON)
        self.assertEqual(result, Refusal(self.NO, False))
        self.assertEqual(attempt.levels, ["error"])
        result, _ = self.answer(self.BUSY, PASS_ON)
        self.assertEqual(result, Refusal(self.BUSY, True))

    def test_unjudged(self) -> None:
        """Where nobody has judged the password the backend's refusal is the answer, and no error of anybody's."""
        for groups in ((), (PASS_ON,)):
            result, attempt = self.answer(self.NO, *groups, judged=False)
            self.assertEqual(result, Denial(Trouble.DENIED, answer=self.NO.strip()))
            self.assertNotIn("error", attempt.levels)

    def test_unjudgedTemporary(self) -> None:
        """But not where the backend says that its trouble will pass, unless that is this one account's."""
        later = b"-ERR [SYS/TEMP] later\r\n"
        for reply, levels in ((later, ["error"]), (self.BUSY, [])):
            result, attempt = self.answer(reply, judged=False)
            self.assertEqual(result, Denial(Trouble.TEMPORARY, answer=reply.strip()))
            self.assertEqual(attempt.levels, levels)

    def test_account(self) -> None:
        """A mailbox that is in use is no error, though the authenticator took the password."""
        result, attempt = self.answer(self.BUSY)
        self.assertEqual(result, Denial(Trouble.TEMPORARY))
        self.assertEqual(attempt.levels, ["warn"])

    def test_greetingPassedOn(self) -> None:
        """With proxy_pass_error_message on a "no" instead of a greeting is passed on too, as temporary."""
        for groups, expected in (((), Denial(Trouble.TEMPORARY)), ((PASS_ON,), Refusal(b"-ERR full\r\n", True))):
            attempt = Attempt(POP3, *groups)
            attempt.accept()
            attempt.says(b"-ERR full\r\n")
            self.assertEqual(self.successResultOf(attempt.result), expected)

    def test_lastReplyCounts(self) -> None:
        """What an earlier backend said is not passed on where the last one said nothing."""
        attempt = Attempt(POP3, PASS_ON, route=routeTo(FIRST, SECOND))
        attempt.accept()
        attempt.says(b"-ERR full\r\n")
        attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))

    def test_nothingToPassOn(self) -> None:
        """A backend that fails without a word is a temporary failure, whatever proxy_pass_error_message says."""
        attempt = Attempt(POP3, PASS_ON)
        attempt.accept()
        attempt.transport.lose(ConnectionLost())
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))


class CancellationTests(SynchronousTestCase):
    """The client has left."""

    def assertGivenUp(self, attempt: Attempt, tried: int = 1) -> None:
        attempt.result.cancel()
        self.failureResultOf(attempt.result, CancelledError)
        self.assertEqual(len(attempt.tried), tried)
        self.assertEqual(attempt.log, [])
        self.assertTrue(attempt.hasNoTimers())

    def test_connecting(self) -> None:
        """A connection that is being made is given up, and the next backend is not tried."""
        attempt = Attempt(POP3, route=routeTo(FIRST, SECOND))
        self.assertGivenUp(attempt)
        self.assertTrue(attempt.reactor.connectors[0].stoppedConnecting)

    def test_connectingToName(self) -> None:
        """So is one to a host by its name."""
        attempt = Attempt(POP3, route=routeTo(Backend("mail.example.com", 110), SECOND))
        self.assertGivenUp(attempt)

    def test_resolving(self) -> None:
        """So is the lookup of a name."""
        resolver = SlowResolver()
        attempt = Attempt(POP3, route=routeTo(Backend("mail.example.com", 110), SECOND), resolver=resolver)
        self.assertGivenUp(attempt, tried=0)
        resolver.answer("192.0.2.1")
        self.assertEqual(attempt.tried, [])

    def test_midLogin(self) -> None:
        """A login under way is cut off, at whatever step."""
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
