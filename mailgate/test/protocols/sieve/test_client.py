"""
Tests for L{mailgate.protocols.sieve.client}. L{mailgate.test.backend.test_login} has the invariants of all protocols.
"""

from __future__ import annotations

import base64
from typing import Any

from mailgate.backend.errors import BackendError
from mailgate.backend.offers import Known
from mailgate.backend.settings import ProxySettings
from mailgate.login import BackendTLS, Denial, Refusal, Trouble
from mailgate.protocols.sieve import SIEVE
from mailgate.protocols.sieve.settings import SieveSettings
from mailgate.test.backend.test_backendtls import leftOver
from mailgate.test.backend.test_connector import PASS_ON
from mailgate.test.backend.test_conversation import Talk
from mailgate.test.support.loginscripts import INITIAL_RESPONSE, SIEVE_GREETING, STARTTLS, TEMPORARY, BackendTests
from mailgate.testing import Attempt, resultOf, routeTo

PLAIN = b'AUTHENTICATE "PLAIN" "' + INITIAL_RESPONSE + b'"\r\n'
OK = b'OK "Logged in."\r\n'


def greeting(mechanisms: bytes, *lines: bytes) -> bytes:
    """The greeting of a backend with SASL C{mechanisms}."""
    return b"".join(line + b"\r\n" for line in (b'"SIEVE" "fileinto"', b'"SASL" "' + mechanisms + b'"', *lines, b"OK"))


class LoginTests(BackendTests):
    """The login."""

    def heard(self, greeting: bytes, *groups: Any, **changes: Any) -> bytes:
        """What a backend with C{greeting} hears."""
        attempt = Attempt(SIEVE, *groups, **changes)
        attempt.accept()
        return attempt.says(greeting)

    def test_mechanism(self) -> None:
        """PLAIN where it is offered, else LOGIN; always with an initial response."""
        for offered in (b"PLAIN", b"login plain", b"SCRAM-SHA-256 PLAIN LOGIN"):
            self.assertEqual(self.heard(greeting(offered)), PLAIN)
        self.assertEqual(self.heard(greeting(b"GSSAPI LOGIN")), b'AUTHENTICATE "LOGIN" "am9l"\r\n')

    def test_tokens(self) -> None:
        """A token goes as proxy_auth says; a long one is a literal, which needs no go-ahead."""
        xoauth2 = ProxySettings(method="xoauth2")
        message = base64.b64encode(b"user=joe\1auth=Bearer sesame\1\1")
        self.assertEqual(self.heard(greeting(b"XOAUTH2"), xoauth2), b'AUTHENTICATE "XOAUTH2" "' + message + b'"\r\n')
        message = base64.b64encode(b"user=joe\1auth=Bearer " + b"x" * 2000 + b"\1\1")
        heard = self.heard(greeting(b"XOAUTH2"), xoauth2, route=routeTo(password=b"x" * 2000))
        self.assertEqual(heard, b'AUTHENTICATE "XOAUTH2" {%d+}\r\n%b\r\n' % (len(message), message))

    def test_tokenRefused(self) -> None:
        """The challenge that explains a refusal is answered; the refusal is the answer to the login."""
        for challenge in (b'"eyJ9"\r\n', b"{4}\r\neyJ9\r\n"):
            attempt = Attempt(SIEVE, ProxySettings(method="oauthbearer"), route=routeTo(judged=False))
            attempt.accept()
            attempt.says(greeting(b"OAUTHBEARER"))
            self.assertEqual(attempt.says(challenge), b'"AQ=="\r\n')
            attempt.says(b'NO "expired"\r\n')
            self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.DENIED, answer=b'NO "expired"'))

    def test_notOffered(self) -> None:
        """A backend without the mechanism is a matter of configuration, which the log names."""
        for offered, groups, reason in (
            (b"LOGIN", (ProxySettings(method="plain"),), "does not offer the SASL mechanism PLAIN"),
            (b"GSSAPI", (), "does not offer the SASL mechanism PLAIN"),
            (b"", (), "offers no SASL mechanism without TLS: set proxy_ssl = starttls"),
        ):
            attempt = Attempt(SIEVE, *groups)
            self.assertEqual(self.outcomeOf(attempt, greeting(offered)), TEMPORARY)
            self.assertEqual(attempt.hears(), b"")
            self.assertIn(reason, attempt.log[0])

    def test_unauthenticate(self) -> None:
        """A backend that trusts the gateway must not let clients log in again on its connection as another user."""
        for method, isUsed in (("external", False), ("plain", True)):
            attempt = Attempt(SIEVE, ProxySettings(method=method))
            attempt.accept()
            heard = attempt.says(greeting(b"PLAIN EXTERNAL", b'"UNAUTHENTICATE"'))
            self.assertEqual(heard.startswith(b"AUTHENTICATE"), isUsed)
        attempt = Attempt(SIEVE, ProxySettings(method="external"))
        self.assertEqual(self.outcomeOf(attempt, greeting(b"EXTERNAL", b'"UNAUTHENTICATE"')), TEMPORARY)
        self.assertIn("offers UNAUTHENTICATE", attempt.log[0])

    def test_authzid(self) -> None:
        """PLAIN carries an authorization identity. LOGIN cannot, and is not used for it."""
        route = routeTo(authzid=b"alice")
        message = base64.b64encode(b"alice\0joe\0sesame")
        self.assertEqual(self.heard(greeting(b"PLAIN"), route=route), b'AUTHENTICATE "PLAIN" "' + message + b'"\r\n')
        attempt = Attempt(SIEVE, route=route)
        attempt.accept()
        self.assertEqual(attempt.says(greeting(b"LOGIN")), b"")
        self.assertIs(self.successResultOf(attempt.result).trouble, Trouble.UNAUTHORIZED)

    def test_emptyChallenge(self) -> None:
        """An empty literal is answered with or without the line end that Stalwart does not send."""
        for segments in ((b"{0}\r\n",), (b"{0}\r\n\r\n",), (b"{0}\r\n", b"\r\n"), (b"{0}\r\n", b"\r", b"\n")):
            attempt = Attempt(SIEVE)
            attempt.accept()
            attempt.says(greeting(b"LOGIN"))
            self.assertEqual(attempt.says(*segments), b'"c2VzYW1l"\r\n')
            attempt.says(OK)
            self.assertEqual(self.successResultOf(attempt.result).reply, OK)

    def test_unexpectedChallenge(self) -> None:
        """A challenge after the whole message of PLAIN is a failure."""
        attempt = Attempt(SIEVE)
        self.assertEqual(self.outcomeOf(attempt, SIEVE_GREETING, b'""\r\n'), TEMPORARY)
        self.assertIn("answers AUTHENTICATE PLAIN with a challenge", attempt.log[0])

    def test_reply(self) -> None:
        """The client gets OK and the text. The code is about the gateway's own exchange."""
        for said, reply in (
            (b"OK\r\n", b"OK\r\n"),
            (OK, OK),
            (b'OK (SASL "cnNwYXV0aA==")\r\n', b"OK\r\n"),
            (b'ok (SASL {4}\r\nabcd) "in"\r\n', b'OK "in"\r\n'),
            (b"OK {4}\r\na\r\nb\r\n", b'OK "a b"\r\n'),
        ):
            self.assertEqual(self.outcomeOf(Attempt(SIEVE), SIEVE_GREETING, said).reply, reply)

    def test_refusals(self) -> None:
        """NO is a refusal of the credentials, with the backend's text; TRYLATER is temporary."""
        for said, denial in (
            (b'NO "wrong"\r\n', Denial(Trouble.DENIED, answer=b'NO "wrong"')),
            (b"NO {5}\r\nw\r\nx\x1b\r\n", Denial(Trouble.DENIED, answer=b'NO "w x"')),
            (b'NO (TRYLATER) "busy"\r\n', Denial(Trouble.TEMPORARY, answer=b'NO (TRYLATER) "busy"')),
        ):
            self.assertEqual(self.outcomeOf(Attempt(SIEVE, route=routeTo(judged=False)), SIEVE_GREETING, said), denial)
        self.assertEqual(self.outcomeOf(Attempt(SIEVE), SIEVE_GREETING, b'NO "wrong"\r\n'), TEMPORARY)
        passed = Refusal(b'NO "wrong"\r\n')
        self.assertEqual(self.outcomeOf(Attempt(SIEVE, PASS_ON), SIEVE_GREETING, b'NO "wrong"\r\n'), passed)

    def test_goodbye(self) -> None:
        """BYE in place of an answer is a failure that another backend may not have."""
        attempt = Attempt(SIEVE, route=routeTo(judged=False))
        self.assertEqual(self.outcomeOf(attempt, SIEVE_GREETING, b'BYE (TRYLATER) "stopping"\r\n'), TEMPORARY)
        self.assertIn("answers the login with BYE (TRYLATER)", attempt.log[0])


class GreetingTests(BackendTests):
    """The greeting, which is a list of capabilities."""

    def test_bad(self) -> None:
        """Without a list that ends with OK nothing is sent."""
        for said in (
            b'NO "no"\r\n',
            b'BYE "full"\r\n',
            b'"SASL" "PLAIN"\r\nBYE "full"\r\n',
            b'"SASL" "PLAIN" "x"\r\nOK\r\n',
            b"+OK\r\n",
            b'"A"\r\n' * 65,
            b'"A" {9999}\r\n',
            b'"A" "' + b"x" * 8192,
        ):
            attempt = Attempt(SIEVE)
            self.assertEqual(self.outcomeOf(attempt, said), TEMPORARY, said)
            self.assertEqual(attempt.hears(), b"")

    def test_long(self) -> None:
        """A line may have 8 KiB, and a list 64 lines."""
        long = b'"X" "' + b"x" * 8000 + b'"\r\n'
        attempt = Attempt(SIEVE)
        attempt.accept()
        self.assertEqual(attempt.says(long + b'"A"\r\n' * 50 + SIEVE_GREETING), PLAIN)

    def test_full(self) -> None:
        """A server that says BYE is full, not dead."""
        talk = Talk(SIEVE)
        opening = resultOf(talk.client.open(None, None))
        talk.accept()
        talk.says(b'BYE (TRYLATER) "full"\r\n')
        error = self.failureResultOf(opening, BackendError).value
        self.assertEqual((error.counts, error.cause, str(error)), (False, "error", "greets with BYE (TRYLATER)"))


class TLSTests(BackendTests):
    """STARTTLS to the backend."""

    def test_list(self) -> None:
        """The list over TLS counts, which comes without a question; what came in the clear may be an attacker's."""
        attempt = Attempt(SIEVE, route=routeTo(STARTTLS))
        attempt.accept()
        clear = greeting(b"", b'"XCLIENT"', b'"STARTTLS"')
        self.assertEqual(attempt.says(clear), b"STARTTLS\r\n")
        self.assertEqual(attempt.says(b'OK "Begin"\r\n' + greeting(b"LOGIN")), b"")
        self.assertEqual(len(attempt.transport.tls), 1)
        attempt.transport.shakeHands()
        self.assertEqual(attempt.hears(), b"")
        self.assertEqual(attempt.says(SIEVE_GREETING), PLAIN)

    def test_refused(self) -> None:
        """A refusal is a failure before anything is sent in the clear."""
        for said in (b'NO "no"\r\n', b'BYE "no"\r\n', b'"x"\r\n', b"OKAY\r\n"):
            attempt = Attempt(SIEVE, route=routeTo(STARTTLS))
            self.assertEqual(self.outcomeOf(attempt, SIEVE_GREETING, said), TEMPORARY)
            self.assertEqual(attempt.transport.tls, [])
            self.assertIn("answers with" if said[:2] == b"OK" else "refuses STARTTLS with", attempt.log[0])


class UnsolicitedTests(BackendTests):
    """Capabilities behind the OK of a login, which no client expects (RFC 5804, section 2.1)."""

    CYRUS = greeting(b"PLAIN", b'"IMPLEMENTATION" "Cyrus timsieved v3.8"')

    def test_cyrus(self) -> None:
        """A NOOP finds out whether they come."""
        for said in (
            b'OK (TAG "mailgate") "Done"\r\n',
            b'NO "what?"\r\n',
            b'"SIEVE" "a"\r\nOK\r\nOK (TAG "mailgate") "Done"\r\n',
            b'"SIEVE" "a"\r\nOK\r\nNO "what?"\r\n',
        ):
            attempt = Attempt(SIEVE)
            attempt.accept()
            attempt.says(self.CYRUS)
            self.assertEqual(attempt.says(b"OK\r\n"), b'NOOP "mailgate"\r\n')
            self.assertNoResult(attempt.result)
            self.assertEqual(attempt.says(said), b"")
            client = self.successResultOf(attempt.result)
            self.assertEqual((client.reply, leftOver(client)), (b"OK\r\n", b""))

    def test_others(self) -> None:
        """Of other servers what has arrived is dropped, and no round trip is spent."""
        attempt = Attempt(SIEVE)
        client = self.outcomeOf(attempt, SIEVE_GREETING, OK + b'"SIEVE" "a"\r\n"NOTIFY" "x"\r\nOK "there"\r\n')
        self.assertEqual((client.reply, leftOver(client)), (OK, b""))

    def test_refused(self) -> None:
        """A refusal needs no question."""
        attempt = Attempt(SIEVE)
        attempt.accept()
        self.assertEqual(attempt.says(self.CYRUS), PLAIN)
        self.assertEqual(attempt.says(b"NO\r\n"), b"")
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)


class LearningTests(BackendTests):
    """What is learned of backends."""

    def ask(self, *said: bytes, tls: BackendTLS = BackendTLS.OFF) -> tuple[bytes, ...]:
        """What the backend offers that says C{said}."""
        talk = Talk(SIEVE, tls=tls)
        opening = resultOf(talk.client.open(None, None))
        talk.accept()
        talk.says(*said)
        self.successResultOf(opening)
        offered: tuple[bytes, ...] = self.successResultOf(resultOf(talk.client.offered()))
        return offered

    def test_offered(self) -> None:
        """The items of the greeting; no question is needed."""
        self.assertEqual(
            self.ask(SIEVE_GREETING), (b"IMPLEMENTATION x", b"SIEVE fileinto", b"SASL LOGIN PLAIN", b"VERSION 1.0")
        )

    def test_heard(self) -> None:
        """Each login compares the greeting with what is known; behind a PROXY header it may be one client's."""
        for groups, count in (((), 1), ((ProxySettings(proxyProtocol="v2"),), 0)):
            heard: list[Any] = []
            talk = Talk(SIEVE, *groups)
            talk.client.known = Known(lambda known, items, heard=heard: heard.append(items))  # type: ignore[misc]
            opening = resultOf(talk.client.open(None, None))
            talk.accept()
            talk.says(SIEVE_GREETING)
            self.successResultOf(opening)
            self.assertEqual(len(heard), count)

    def test_lacking(self) -> None:
        """A backend that lacks what a configured list announces is named in the log."""
        settings = SieveSettings(capabilities=("SIEVE fileinto vacation", "NOTIFY mailto"))
        attempt = Attempt(SIEVE, settings)
        self.outcomeOf(attempt, SIEVE_GREETING, OK)
        self.assertIn("does not offer vacation mailto, which sieve_capabilities announces", attempt.log[0])
        attempt = Attempt(SIEVE, SieveSettings(capabilities=("SIEVE fileinto",)))
        self.outcomeOf(attempt, SIEVE_GREETING, OK)
        self.assertEqual(attempt.log, [])


class IntroductionTests(BackendTests):
    """XCLIENT of Pigeonhole."""

    OFFER = greeting(b"PLAIN", b'"XCLIENT"')
    XCLIENT = b"XCLIENT ADDR=192.0.2.7 PORT=40123 TTL=6\r\n"

    def test_sent(self) -> None:
        """It goes before the login, in one segment, to backends that list it."""
        attempt = Attempt(SIEVE)
        attempt.accept()
        self.assertEqual(attempt.says(self.OFFER), self.XCLIENT + PLAIN)
        attempt.says(b'OK "Updated"\r\n' + OK)
        self.assertEqual((self.successResultOf(attempt.result).reply, attempt.log), (OK, []))

    def test_notSent(self) -> None:
        """Not where it is switched off, and not behind a PROXY header."""
        for settings in (ProxySettings(identity="off"), ProxySettings(proxyProtocol="on")):
            attempt = Attempt(SIEVE, settings)
            attempt.accept()
            self.assertTrue(attempt.says(self.OFFER).endswith(PLAIN))
            self.assertNotIn(b"XCLIENT", attempt.hears())

    def test_refused(self) -> None:
        """A refusal is logged, and the login goes on."""
        attempt = Attempt(SIEVE)
        client = self.outcomeOf(attempt, self.OFFER, b'NO "You are not from trusted IP"\r\n', OK)
        self.assertEqual(client.reply, OK)
        self.assertIn("answers XCLIENT with NO", attempt.log[0])

    def test_garbled(self) -> None:
        """What is neither is a failure."""
        attempt = Attempt(SIEVE)
        self.assertEqual(self.outcomeOf(attempt, self.OFFER, b'BYE "no"\r\n'), TEMPORARY)
