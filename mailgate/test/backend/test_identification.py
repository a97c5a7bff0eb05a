"""
Backends that get the client's address by ID or XCLIENT before the login: the commands they get, and that their replies
are kept apart from those to the login and from the client.
"""

from __future__ import annotations

import base64
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.settings import ProxySettings
from mailgate.frontend.protocol import MailProtocol
from mailgate.login import Backend, BackendTLS, Client, Denial, Envelope, Refusal, Trouble
from mailgate.net.proxyprotocol import headerFor
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.sieve import SIEVE
from mailgate.test.backend.test_backendtls import leftOver
from mailgate.test.backend.test_client import FIRST, SECOND
from mailgate.test.backend.test_connector import PASS_ON
from mailgate.test.support.loginscripts import INITIAL_RESPONSE, TEMPORARY, Script
from mailgate.testing import Attempt, routeTo

OFF = ProxySettings(identity="off")
ID = b'mailgate ID ("x-originating-ip" "192.0.2.7" "x-originating-port" "40123" "x-proxy-ttl" "6")\r\n'
LOGIN = b'a1 LOGIN "joe" "sesame"\r\n'
OFFERING_ID = b"* OK [CAPABILITY IMAP4rev1 SASL-IR ID IDLE] Dovecot ready.\r\n"
IDENTIFIED = b'* ID ("name" "Dovecot")\r\nmailgate OK ID completed.\r\n'
XCLIENT = b"XCLIENT ADDR=192.0.2.7 PORT=40123 TTL=6\r\n"
OFFERING_XCLIENT = b"+OK [XCLIENT] Dovecot ready.\r\n"
UNIX = Client("unix:")
WRONG = Denial(Trouble.DENIED, answer=b"NO wrong")
NO = Denial(Trouble.DENIED, answer=b"-ERR [AUTH] no")

IMAP_ID = Script(IMAP4, ((OFFERING_ID, ID + LOGIN), (IDENTIFIED + b"* NO disk is full\r\na1 OK done\r\n", b"")))
IMAP_ID_LITERALS = Script(
    IMAP4,
    (
        (OFFERING_ID, ID + b"a1 LOGIN {3}\r\n"),
        (b"* OK still here\r\n" + IDENTIFIED + b"+ go ahead\r\n", b"jo\xe9 {7}\r\n"),
        (b"+\r\n", b"s\xc3\xa9same\r\n"),
        (b"a1 OK done\r\n", b""),
    ),
    changes={"route": routeTo(user=b"jo\xe9", password=b"s\xc3\xa9same")},
)
POP3_XCLIENT = Script(
    POP3,
    (
        (OFFERING_XCLIENT, XCLIENT + b"USER joe\r\n"),
        (b"+OK Updated\r\n+OK\r\n", b"PASS sesame\r\n"),
        (b"+OK 3 messages\r\n", b""),
    ),
)
SIEVE_XCLIENT = Script(
    SIEVE,
    (
        (
            b'"SIEVE" "fileinto"\r\n"SASL" "PLAIN"\r\n"XCLIENT"\r\nOK "ready"\r\n',
            XCLIENT + b'AUTHENTICATE "PLAIN" "' + INITIAL_RESPONSE + b'"\r\n',
        ),
        (b'OK "Updated"\r\nOK "Logged in."\r\n', b""),
    ),
)
SCRIPTS = (IMAP_ID, IMAP_ID_LITERALS, POP3_XCLIENT, SIEVE_XCLIENT)


class ScriptTests(SynchronousTestCase):
    """Invariants at every byte of such a login."""

    def test_anyCut(self) -> None:
        """The result does not depend on segments, and the client sees nothing of ID or XCLIENT."""
        for script in SCRIPTS:
            replies = set()
            for position in range(script.length):
                attempt = script.begin()
                for segments, heard in script.cutAt(position):
                    self.assertEqual(attempt.says(*segments), heard)
                client = self.successResultOf(attempt.result)
                self.assertEqual((leftOver(client), attempt.log), (b"", []))
                replies.add(client.reply)
            self.assertEqual(len(replies), 1)
            self.assertNotRegex(replies.pop(), b"ID|Updated|mailgate")

    def test_dropped(self) -> None:
        """A backend that closes at any byte is a temporary failure."""
        for script in SCRIPTS:
            for position in range(script.length):
                attempt = script.begin()
                left = position
                for said, _ in script.steps:
                    attempt.says(said[: max(0, left)])
                    left -= len(said)
                attempt.transport.lose(ConnectionLost())
                self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
                self.assertEqual(attempt.levels, ["error"])

    def test_garbled(self) -> None:
        """So is one that sends nonsense."""
        for script in SCRIPTS:
            for nonsense in (b"\x00\x1b[2Jwhat? \xff\n", b"\r\n", b"mailgateOK\r\n", b"x" * 9000):
                attempt = script.begin()
                attempt.says(script.steps[0][0], nonsense)
                self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
                self.assertTrue(attempt.log[0].isprintable())
                self.assertNotIn("sesame", attempt.log[0])

    def test_endless(self) -> None:
        """So is one whose reply never ends, whatever it contains."""
        for script, pieces in (
            (IMAP_ID, (b"* ID NIL\r\n", b"* OK more\r\n", b"* ID ({9}\r\n123456789{9}\r\n", b"* ID ({9999999999}\r\n")),
            (POP3_XCLIENT, (b"+OK",)),
            (SIEVE_XCLIENT, (b"OK ", b"OK {9}\r\n")),
        ):
            for piece in pieces:
                attempt = script.begin()
                attempt.says(script.steps[0][0])
                for _ in range(9000 // len(piece)):
                    attempt.says(piece)
                self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)


class IdentityTests(SynchronousTestCase):
    """Shared by the tests of the protocols."""

    record: MailProtocol

    def heard(self, greeting: bytes, *groups: Any, **changes: Any) -> bytes:
        """The bytes that a backend with this greeting gets."""
        attempt = Attempt(self.record, *groups, **changes)
        attempt.accept()
        return attempt.says(greeting)

    def outcome(self, attempt: Attempt, *replies: bytes) -> Any:
        """The result of C{attempt} at a backend that sends C{replies}."""
        attempt.accept()
        attempt.says(*replies)
        return self.successResultOf(attempt.result)

    def overTLS(self, tls: BackendTLS, *steps: bytes) -> list[bytes]:
        """The bytes that a backend gets that sends C{steps}; the empty step is the handshake."""
        attempt = Attempt(self.record, route=routeTo(Backend("192.0.2.99", 143, tls)))
        attempt.accept()
        heard = []
        for step in steps:
            if not step:
                attempt.transport.shakeHands()
            heard.append(attempt.says(step) if step else attempt.hears())
        return heard


class IMAP4Tests(IdentityTests):
    """ID before LOGIN."""

    record = IMAP4

    def test_offered(self) -> None:
        """If the greeting's code lists ID, in any case and position, it is sent in one write with LOGIN."""
        for code in (b"CAPABILITY IMAP4rev1 ID IDLE", b"CAPABILITY ID", b"capability imap4 id", b"CAPABILITY ID IMAP4"):
            self.assertEqual(self.heard(b"* OK [" + code + b"] ready\r\n"), ID + LOGIN)

    def test_notOffered(self) -> None:
        """Otherwise the backend gets no ID."""
        for greeting in (
            b"* OK\r\n",
            b"* OK ready\r\n",
            b"* OK [CAPABILITY IMAP4rev1] ready\r\n",
            b"* OK [CAPABILITY IMAP4rev1 IDLE X-ID ID= XID] ready\r\n",
            b"* OK [CAPABILITY IMAP4rev1] ID [CAPABILITY ID ] ready\r\n",
            b"* OK server [CAPABILITY IMAP4rev1 ID] ready\r\n",
            b"* OK CAPABILITY IMAP4rev1 ID ready\r\n",
            b"* OK  [CAPABILITY ID] ready\r\n",
            b"* OK [ALERT] [CAPABILITY ID] ready\r\n",
            b"* OK [CAPABILITY IMAP4rev1 ID ready\r\n",
            b"* OK [CAPABILITY IMAP4rev1 ID\r\n",
            b"* OK The Microsoft Exchange IMAP4 service is ready. [TgBBAE0AUABSAEQAMAA2AEMAQQAwADEAMQAwAA==]\r\n",
            b"* OK [CAPABILITY IMAP4rev1] ready\r\n* CAPABILITY IMAP4rev1 ID\r\n",
        ):
            self.assertEqual(self.heard(greeting), LOGIN, greeting)

    def test_off(self) -> None:
        """Nor with proxy_identity off."""
        self.assertEqual(self.heard(OFFERING_ID, OFF, envelope=Envelope(fields=(b'"name" "x"',))), LOGIN)

    def test_besidePROXY(self) -> None:
        """Nor with a PROXY header, which has the address."""
        for version in ("on", "v2"):
            attempt = Attempt(IMAP4, ProxySettings(proxyProtocol=version))
            attempt.accept()
            self.assertEqual(attempt.hears(), headerFor(attempt.request.client, version))
            self.assertEqual(attempt.says(OFFERING_ID), LOGIN)

    def test_withTheClients(self) -> None:
        """The client's own fields are in the same ID."""
        written = self.heard(OFFERING_ID, envelope=Envelope(fields=(b'"name" "x"', b'"os" NIL')))
        self.assertEqual(written, ID.replace(b")", b' "name" "x" "os" NIL)') + LOGIN)

    def test_unix(self) -> None:
        """Of a client on a unix socket there is nothing to tell beside the hops and what it says itself."""
        heard = self.heard(OFFERING_ID, client=UNIX)
        self.assertEqual(heard, b'mailgate ID ("x-proxy-ttl" "6")\r\n' + LOGIN)
        told = self.heard(OFFERING_ID, client=UNIX, envelope=Envelope(fields=(b'"name" "x"',)))
        self.assertEqual(told, b'mailgate ID ("x-proxy-ttl" "6" "name" "x")\r\n' + LOGIN)

    def test_tag(self) -> None:
        """The tag of ID always differs from the client's."""
        attempt = Attempt(IMAP4, tag=b"mailgate")
        attempt.accept()
        heard = attempt.says(OFFERING_ID)
        self.assertEqual(heard, ID.replace(b"mailgate", b"mailgate2") + b'mailgate LOGIN "joe" "sesame"\r\n')
        attempt.says(b"* ID NIL\r\nmailgate2 OK\r\n")
        self.assertNoResult(attempt.result)
        attempt.says(b"mailgate OK done\r\n")
        self.assertEqual(self.successResultOf(attempt.result).reply, b"mailgate OK done\r\n")

    def test_goodbye(self) -> None:
        """BYE in place of the reply fails at once."""
        for said in (b"* BYE going down\r\n", b"* ID NIL\r\n* BYE\r\n", IDENTIFIED + b"* BYE\r\n"):
            attempt = Attempt(IMAP4)
            self.assertEqual(self.outcome(attempt, OFFERING_ID, said), TEMPORARY)
            self.assertIn("answers with BYE", attempt.log[0])

    def test_refused(self) -> None:
        """If the backend refuses ID, the login continues, and one line is logged."""
        for answer in (b"mailgate BAD what\r\n", b"mailgate NO [SERVERBUG] no\r\n", b"* ID NIL\r\nmailgate bad\r\n"):
            attempt = Attempt(IMAP4)
            client = self.outcome(attempt, OFFERING_ID, answer + b"a1 OK done\r\n")
            self.assertEqual((client.reply, attempt.levels), (b"a1 OK done\r\n", ["warn"]))
            self.assertIn("backend 192.0.2.99:110 answers ID with ", attempt.log[0])
            attempt = Attempt(IMAP4, route=routeTo(judged=False))
            self.assertEqual(self.outcome(attempt, OFFERING_ID, answer + b"a1 NO wrong\r\n"), WRONG)

    def test_refusedAgain(self) -> None:
        """Once for each backend."""
        attempt = Attempt(IMAP4)
        for _ in range(3):
            attempt.accept()
            attempt.says(OFFERING_ID, b"mailgate BAD what\r\na1 OK done\r\n")
            self.successResultOf(attempt.result)
            attempt.result = attempt.again()
        self.assertEqual(attempt.levels, ["warn"])
        attempt.route = routeTo(SECOND)
        attempt.result = attempt.again()
        self.outcome(attempt, OFFERING_ID, b"mailgate BAD what\r\na1 OK done\r\n")
        self.assertEqual(attempt.levels, ["warn", "warn"])

    def test_order(self) -> None:
        """A reply to the login before that to ID is an error, and so is a continuation request or another tag."""
        for said in (
            b"a1 OK done\r\n",
            b"a1 NO wrong\r\n" + IDENTIFIED,
            b"+ go\r\n" + IDENTIFIED,
            b"mailgate2 OK\r\n",
            IDENTIFIED + b"mailgate OK\r\n",
        ):
            attempt = Attempt(IMAP4)
            self.assertEqual(self.outcome(attempt, OFFERING_ID, said), TEMPORARY)
            self.assertEqual(attempt.levels, ["error"])

    def test_outOfTurn(self) -> None:
        """A backend that replies before it gets a command is given up."""
        for early in (IDENTIFIED, b"mailgate OK\r\n", b"a1 OK done\r\n"):
            attempt = Attempt(IMAP4)
            self.assertEqual(self.outcome(attempt, OFFERING_ID + early), TEMPORARY)
            self.assertEqual(attempt.hears(), b"")
            self.assertIn("replied before it received a command", attempt.log[0])

    def test_untagged(self) -> None:
        """Only the reply to ID is kept from the client; other untagged responses are passed on."""
        said = b"* CAPABILITY IMAP4rev1\r\n" + IDENTIFIED + b"* ID NIL\r\n* OK more\r\na1 OK done\r\n"
        client = self.outcome(Attempt(IMAP4), OFFERING_ID, said)
        self.assertEqual(client.reply, b"* CAPABILITY IMAP4rev1\r\n* ID NIL\r\n* OK more\r\na1 OK done\r\n")

    def test_answerWithLiterals(self) -> None:
        """The reply may have literals that contain line ends and text like its end."""
        for answer in (
            b"* ID ({4}\r\nname {7}\r\nDovecot)\r\n",
            b'* id ("name" {22}\r\nmailgate OK\r\na1 OK x\r\n)\r\n',
            b'* ID ("name" {4}\r\nab\r\n "os" {0}\r\n)\r\n',
            b'* ID ("name" {2}\r\n\r\n)\r\n',
            b'* ID ("name" {2}\r\n\r\n "os" "{3}")\r\n',
            b'* ID ("name" {0}\r\n)\r\n',
        ):
            attempt = Attempt(IMAP4)
            client = self.outcome(attempt, OFFERING_ID, answer + b"mailgate OK\r\na1 OK done\r\n")
            self.assertNotEqual(client, TEMPORARY, answer)
            self.assertEqual((client.reply, attempt.log), (b"a1 OK done\r\n", []))

    def test_authorizing(self) -> None:
        """With AUTHENTICATE, for a login as another user, ID is in the same segment too."""
        attempt = Attempt(IMAP4, route=routeTo(authzid=b"alice"))
        attempt.accept()
        message = base64.b64encode(b"alice\0joe\0sesame")
        self.assertEqual(attempt.says(OFFERING_ID), ID + b"a1 AUTHENTICATE PLAIN " + message + b"\r\n")
        self.assertEqual(attempt.says(IDENTIFIED), b"")
        attempt.says(b"a1 OK done\r\n")
        self.assertEqual(self.successResultOf(attempt.result).reply, b"a1 OK done\r\n")

    def test_passedOn(self) -> None:
        """A refusal for the client contains nothing of the reply to ID."""
        outcome = self.outcome(Attempt(IMAP4, PASS_ON), OFFERING_ID, IDENTIFIED + b"a1 NO wrong\r\n")
        self.assertEqual(outcome, Refusal(b"a1 NO wrong\r\n", False))

    def test_nextBackend(self) -> None:
        """Each backend that is tried and offers ID gets it."""
        attempt = Attempt(IMAP4, route=routeTo(FIRST, SECOND))
        attempt.accept()
        attempt.says(OFFERING_ID)
        attempt.transport.lose(ConnectionLost())
        attempt.accept()
        self.assertEqual(attempt.says(OFFERING_ID), ID + LOGIN)

    def test_startTLS(self) -> None:
        """With STARTTLS the backend is asked again over TLS: what it offered in the clear does not count."""
        offering = b"* OK [CAPABILITY IMAP4rev1 ID STARTTLS] ready\r\n"
        for listed, expected in ((b"IMAP4rev1 ID", ID + LOGIN), (b"IMAP4rev1", LOGIN)):
            answer = b"* CAPABILITY " + listed + b"\r\nmailgate OK done\r\n"
            forged = b"mailgate OK go\r\n* ID NIL\r\nmailgate OK\r\n"
            heard = self.overTLS(BackendTLS.STARTTLS, offering, forged, b"", answer)
            self.assertEqual(heard, [b"mailgate STARTTLS\r\n", b"", b"mailgate CAPABILITY\r\n", expected])

    def test_implicitTLS(self) -> None:
        """With implicit TLS the greeting within TLS counts."""
        self.assertEqual(self.overTLS(BackendTLS.IMPLICIT, b"", OFFERING_ID), [b"", ID + LOGIN])


class POP3Tests(IdentityTests):
    """XCLIENT before USER."""

    record = POP3

    def test_offered(self) -> None:
        """If the greeting's code asks for XCLIENT, it is sent in one write with USER."""
        for greeting in (OFFERING_XCLIENT, b"+OK [XCLIENT]\r\n", b"+OK [xclient] hello\r\n"):
            self.assertEqual(self.heard(greeting), XCLIENT + b"USER joe\r\n")

    def test_notOffered(self) -> None:
        """Otherwise the backend gets no XCLIENT."""
        for greeting in (
            b"+OK\r\n",
            b"+OK Dovecot ready.\r\n",
            b"+OK ready [XCLIENT]\r\n",
            b"+OK [XCLIENTS] ready\r\n",
            b"+OK XCLIENT\r\n",
            b"+OK  [XCLIENT]\r\n",
            b"+OK <1896.697170952@dbc.mtview.ca.us> [XCLIENT]\r\n",
        ):
            self.assertEqual(self.heard(greeting), b"USER joe\r\n", greeting)
        self.assertEqual(self.heard(b"+OKAY [XCLIENT]\r\n"), b"", "that is no greeting")

    def test_off(self) -> None:
        """Nor with proxy_identity off, nor for a client on a unix socket."""
        self.assertEqual(self.heard(OFFERING_XCLIENT, OFF), b"USER joe\r\n")
        self.assertEqual(self.heard(OFFERING_XCLIENT, client=UNIX), b"XCLIENT TTL=6\r\nUSER joe\r\n")

    def test_besidePROXY(self) -> None:
        """Nor with a PROXY header, which has the address."""
        attempt = Attempt(POP3, ProxySettings(proxyProtocol="on"))
        attempt.accept()
        attempt.hears()
        self.assertEqual(attempt.says(OFFERING_XCLIENT), b"USER joe\r\n")

    def test_refused(self) -> None:
        """If the backend refuses XCLIENT, the login continues, and one line is logged."""
        attempt = Attempt(POP3)
        refusal = b"-ERR Invalid parameters\r\n"
        client = self.outcome(attempt, OFFERING_XCLIENT, refusal + b"+OK\r\n", b"+OK 3 messages\r\n")
        self.assertEqual(client.reply, b"+OK 3 messages\r\n")
        self.assertEqual(attempt.levels, ["warn"])
        self.assertIn("backend 192.0.2.99:110 answers XCLIENT with -ERR and does not learn", attempt.log[0])
        self.assertIn("login_trusted_networks", attempt.log[0])

    def test_loginRefused(self) -> None:
        """The reply to the login is the one after that to XCLIENT."""
        replies = (OFFERING_XCLIENT, b"+OK Updated\r\n-ERR [AUTH] no\r\n")
        self.assertEqual(self.outcome(Attempt(POP3, route=routeTo(judged=False)), *replies), NO)
        outcome = self.outcome(Attempt(POP3, PASS_ON), *replies)
        self.assertEqual(outcome, Refusal(b"-ERR [AUTH] no\r\n", False))

    def test_outOfTurn(self) -> None:
        """A backend that replies before it gets a command gets no password."""
        for early in (
            (OFFERING_XCLIENT + b"+OK Updated\r\n",),
            (OFFERING_XCLIENT, b"+OK Updated\r\n+OK\r\n+OK\r\n"),
        ):
            attempt = Attempt(POP3)
            attempt.accept()
            for said in early:
                self.assertNotIn(b"sesame", attempt.says(said))
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
            self.assertIn("replied before it received a command", attempt.log[0])

    def test_authorizing(self) -> None:
        """With AUTH, for a login as another user, XCLIENT is in the same segment too."""
        attempt = Attempt(POP3, route=routeTo(authzid=b"alice"))
        attempt.accept()
        self.assertEqual(attempt.says(OFFERING_XCLIENT), XCLIENT + b"AUTH PLAIN\r\n")
        self.assertEqual(attempt.says(b"+OK Updated\r\n"), b"")
        self.assertEqual(attempt.says(b"+ \r\n"), base64.b64encode(b"alice\0joe\0sesame") + b"\r\n")
        attempt.says(b"+OK Logged in.\r\n")
        self.assertEqual(self.successResultOf(attempt.result).reply, b"+OK Logged in.\r\n")

    def test_stls(self) -> None:
        """With STLS nothing is sent in the clear."""
        heard = self.overTLS(BackendTLS.STARTTLS, OFFERING_XCLIENT, b"+OK go\r\n", b"")
        self.assertEqual(heard, [b"STLS\r\n", b"", XCLIENT + b"USER joe\r\n"])
