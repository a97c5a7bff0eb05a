"""
SASL on the wire: the part that is the same for every protocol.
"""

from __future__ import annotations

import base64
import json

from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.exchange import Exchange, beginning, explaining
from mailgate.frontend.mechanisms import MECHANISMS as EVERY
from mailgate.frontend.mechanisms import Cancelled, InitialResponse, InvalidResponse, NotBase64
from mailgate.frontend.settings import DialogueSettings
from mailgate.login import Credentials, Denial, Method, Trouble
from mailgate.session import Outcome, Phase
from mailgate.test.support.wordings import MECHANISMS, REASON, WORDINGS, OAuth, Wording
from mailgate.testing import Conversation, FakeAuthenticator, FakeClient, FakeConnector, hearEverything
from mailgate.tls.settings import TLSSettings

REFUSED = Denial(Trouble.DENIED, b"no", wait=3, challenge=REASON)
CLOSING = Denial(Trouble.DENIED, b"no", close=True, challenge=REASON)
SALT = "<7.1000@mx.test>"
SILENT = DialogueSettings(serverName="mx.test", oauthError="off")
"""Without OAuth errors of the gateway's own."""


class OAuthTests(SynchronousTestCase):
    """XOAUTH2 and OAUTHBEARER, as in freenginx."""

    def each(self) -> list[tuple[Wording, OAuth]]:
        """Every protocol with every mechanism."""
        return [(wording, mechanism) for wording in WORDINGS for mechanism in MECHANISMS]

    def refused(self, wording: Wording, mechanism: OAuth, denial: Denial) -> Conversation:
        """A conversation after its first login was refused with C{denial} and the wait is over."""
        conversation = wording.converse(authenticator=FakeAuthenticator(denial))
        conversation.says(wording.auth + mechanism.name + b" " + mechanism.initial)
        conversation.clock.advance(denial.wait)
        return conversation

    def test_announced(self) -> None:
        """They are announced after all others, in that order."""
        every = ("plain", "external", "xoauth2", "oauthbearer")
        imap, pop3, smtp = (wording.converse(*every).says(wording.capabilities) for wording in WORDINGS)
        self.assertIn(b" AUTH=PLAIN AUTH=EXTERNAL AUTH=XOAUTH2 AUTH=OAUTHBEARER\r\n", imap)
        self.assertIn(b"\r\nSASL PLAIN LOGIN EXTERNAL XOAUTH2 OAUTHBEARER\r\n", pop3)
        self.assertIn(b"\r\n250 AUTH PLAIN EXTERNAL XOAUTH2 OAUTHBEARER\r\n", smtp)
        methods = b"+OK methods supported:\r\nXOAUTH2\r\nOAUTHBEARER\r\n.\r\n"
        self.assertEqual(WORDINGS[1].converse("xoauth2", "oauthbearer").says(b"AUTH"), methods)

    def test_login(self) -> None:
        """A token is judged, as an initial response or after a challenge."""
        for wording, mechanism in self.each():
            for lines, challenge in (
                ([wording.auth + mechanism.name + b" " + mechanism.initial], b""),
                ([wording.auth + mechanism.name.lower(), mechanism.initial], wording.challenge + b"\r\n"),
            ):
                conversation = wording.converse(connector=FakeConnector(FakeClient(wording.accepted)))
                self.assertEqual(conversation.says(*lines), challenge + wording.accepted)
                [request] = conversation.requests
                self.assertEqual(request.credentials, Credentials(mechanism.method, b"joe", b"token"))

    def test_notListed(self) -> None:
        """Mechanisms that are not listed are refused, with an initial response too, even with C{unlisted_auth}."""
        for wording, mechanism in self.each():
            for groups in ((), (DialogueSettings(serverName="mx.test", unlistedAuth=True),)):
                conversation = wording.converse("plain", groups=groups)
                for line in (mechanism.name, mechanism.name + b" " + mechanism.initial):
                    self.assertEqual(conversation.says(wording.auth + line), wording.unsupported)
                self.assertEqual(conversation.requests, [])

    def test_broken(self) -> None:
        """After an invalid response or the cancelling * the client is back at commands."""
        for wording, mechanism in self.each():
            conversation = wording.converse(groups=(SILENT,))
            for response, refusal in (
                (b"*", wording.cancelled),
                (b"a", wording.notBase64),
                *((response, wording.malformed) for response in (b"", b"AQ==", b"am9l", b"AGpvZQB4")),
            ):
                heard = conversation.says(wording.auth + mechanism.name, response)
                self.assertEqual(heard, wording.challenge + b"\r\n" + refusal)
            self.assertEqual(conversation.says(wording.auth + mechanism.name + b" ="), wording.malformed)
            self.assertEqual(conversation.requests, [])
            self.assertIs(conversation.server.session.phase, Phase.COMMAND)

    def test_refusal(self) -> None:
        """A refusal with an OAuth error takes two steps, after the wait. Another login may follow."""
        for wording, mechanism in self.each():
            conversation = wording.converse(authenticator=FakeAuthenticator(REFUSED))
            login = wording.auth + mechanism.name + b" " + mechanism.initial
            self.assertEqual(conversation.says(login), b"")
            conversation.clock.advance(2.5)
            self.assertEqual(conversation.hear(), b"")
            conversation.clock.advance(0.5)
            self.assertEqual(conversation.hear(), wording.challenge + REASON + b"\r\n")
            self.assertIs(conversation.server.session.phase, Phase.CHALLENGE)
            self.assertEqual(conversation.says(mechanism.answer), wording.refusal)
            self.assertFalse(conversation.closed)
            conversation.says(login)
            self.assertEqual([request.attempt for request in conversation.requests], [1, 2])

    def test_refusalAndEnd(self) -> None:
        """Without C{Auth-Wait} the connection ends, but only after the client's response."""
        for wording, mechanism in self.each():
            conversation = self.refused(wording, mechanism, CLOSING)
            self.assertFalse(conversation.closed)
            self.assertEqual(conversation.says(mechanism.answer), wording.refusal + wording.goodbye)
            self.assertTrue(conversation.closed)
            self.assertIs(conversation.server.session.outcome, Outcome.DENIED)

    def test_anyAnswer(self) -> None:
        """Any response acknowledges the error. If the connection is to end, it ends all the same."""
        for wording, mechanism in self.each():
            (other,) = (each.answer for each in MECHANISMS if each is not mechanism)
            for answer in (other, b"*", b"foo", b"%", b"a\rb\0", mechanism.initial, b"AQ== QUIT", b""):
                conversation = self.refused(wording, mechanism, REFUSED)
                self.assertEqual(conversation.says(answer), wording.refusal)
                self.assertIs(conversation.server.session.phase, Phase.COMMAND)
                self.assertFalse(conversation.closed)
                conversation = self.refused(wording, mechanism, CLOSING)
                self.assertEqual(conversation.says(answer), wording.refusal + wording.goodbye)
                self.assertTrue(conversation.closed)
                self.assertIs(conversation.server.session.outcome, Outcome.DENIED)

    def test_noReason(self) -> None:
        """Without an OAuth error, or with one that is not base64, the refusal comes at once if the gateway has none."""
        for wording, mechanism in self.each():
            for challenge in (None, b"", b"x\r\na OK", b"*", b"="):
                denial = Denial(Trouble.DENIED, b"no", challenge=challenge)
                conversation = wording.converse(authenticator=FakeAuthenticator(denial), groups=(SILENT,))
                heard = conversation.says(wording.auth + mechanism.name + b" " + mechanism.initial)
                self.assertEqual(heard, wording.refusal)

    def test_otherMethods(self) -> None:
        """A client that has sent a password gets no such challenge."""
        for wording in WORDINGS:
            conversation = wording.converse(authenticator=FakeAuthenticator(CLOSING))
            self.assertEqual(conversation.says(wording.auth + b"PLAIN AGpvZQB4"), wording.refusal + wording.goodbye)
            self.assertTrue(conversation.closed)

    def test_silence(self) -> None:
        """A client that does not respond has the timeout of a command. Then it gets the refusal: it may wait for it."""
        for wording, mechanism in self.each():
            conversation = self.refused(wording, mechanism, REFUSED)
            conversation.hear()
            conversation.clock.advance(59)
            self.assertFalse(conversation.closed)
            conversation.clock.advance(1)
            self.assertTrue(conversation.closed)
            heard = conversation.hear()
            self.assertTrue(heard.startswith(wording.refusal), heard)
            self.assertEqual(heard.count(b"\r\n"), 2 if wording.goodbye else 1)
            self.assertIs(conversation.server.session.outcome, Outcome.TIMEOUT)

    def test_leaves(self) -> None:
        """A client that closes its side instead gets the refusal, and the connection ends."""
        for wording, mechanism in self.each():
            conversation = self.refused(wording, mechanism, REFUSED)
            conversation.hear()
            conversation.server.readConnectionLost()
            self.assertEqual(conversation.hear(), wording.refusal)
            self.assertTrue(conversation.closed)
            self.assertIs(conversation.server.session.outcome, Outcome.CLIENT_LEFT)

    def test_nextCommand(self) -> None:
        """A client that goes on at once gets the refusal and then the reply to its command, unless the end is due."""
        for wording, mechanism in self.each():
            again = wording.auth + mechanism.name
            conversation = self.refused(wording, mechanism, REFUSED)
            conversation.hear()
            heard = conversation.says(again, mechanism.initial)
            self.assertTrue(heard.startswith(wording.refusal + wording.challenge + b"\r\n"), heard)
            self.assertEqual([request.attempt for request in conversation.requests], [1, 2])
            conversation = self.refused(wording, mechanism, CLOSING)
            conversation.hear()
            self.assertEqual(conversation.says(again), wording.refusal + wording.goodbye)
            self.assertTrue(conversation.closed)

    def test_otherCommands(self) -> None:
        """Commands that only a login allows are commands, too; what only looks like one is an acknowledgement."""
        for place, command, reply in (
            (0, b"b SELECT x", b"b BAD Log in first\r\n"),
            (0, b"b LOGOUT", b"* BYE Logging out\r\nb OK completed\r\n"),
            (0, b"LOGOUT", b""),
            (0, b"b X", b""),
            (1, b"STAT", b"-ERR Log in first\r\n"),
            (1, b"QUIT", b"+OK\r\n"),
            (1, b"PASS", b""),
            (2, b"quit", b"221 2.0.0 Bye\r\n"),
            (2, b"MAIL FROM:<a@b>", b"530 5.7.1 Authentication required\r\n"),
            (2, b"QUITE", b""),
        ):
            conversation = self.refused(WORDINGS[place], MECHANISMS[1], REFUSED)
            conversation.hear()
            self.assertEqual(conversation.says(command), WORDINGS[place].refusal + reply, command)

    def test_ownError(self) -> None:
        """A refused token has an error of the gateway's own: 400 for XOAUTH2, so K-9 Mail fetches a new token."""
        denial = Denial(Trouble.DENIED, b"no")
        for wording, mechanism in self.each():
            for status in ("400", "401"):
                groups = (DialogueSettings(serverName="mx.test", oauthError=status),)
                conversation = wording.converse(authenticator=FakeAuthenticator(denial), groups=groups)
                heard = conversation.says(wording.auth + mechanism.name + b" " + mechanism.initial)
                self.assertTrue(heard.startswith(wording.challenge))
                error = json.loads(base64.b64decode(heard.removeprefix(wording.challenge)))
                if mechanism.method is Method.XOAUTH2:
                    self.assertEqual(error, {"status": status, "schemes": "bearer", "scope": "mail"})
                else:
                    self.assertEqual(error, {"status": "invalid_token"})
                self.assertEqual(conversation.says(mechanism.answer), wording.refusal)
                self.assertFalse(conversation.closed)

    def test_temporary(self) -> None:
        """A temporary failure never has an error: the client would discard a valid token."""
        for wording, mechanism in self.each():
            for denial in (
                Denial(Trouble.TEMPORARY, challenge=REASON),
                Denial(Trouble.DENIED, None, b"451 4.3.0", challenge=REASON),
                Denial(Trouble.PERMANENT),
            ):
                conversation = wording.converse(authenticator=FakeAuthenticator(denial))
                heard = conversation.says(wording.auth + mechanism.name + b" " + mechanism.initial)
                self.assertFalse(heard.startswith(wording.challenge))
                self.assertIs(conversation.server.session.phase, Phase.COMMAND)

    def test_invalidMessage(self) -> None:
        """An invalid message of OAUTHBEARER, and the lone separator, have an error (RFC 7628, section 3.2.3)."""
        for wording in WORDINGS:
            for message in (b"\x01", b"n,a=joe,\x01host=x\x01\x01"):
                conversation = wording.converse()
                initial = base64.b64encode(message)
                heard = conversation.says(wording.auth + b"OAUTHBEARER " + initial)
                error = base64.b64encode(b'{"status":"invalid_request"}')
                self.assertEqual(heard, wording.challenge + error + b"\r\n")
                self.assertEqual(conversation.says(b"AQ=="), wording.malformed)
                conversation.says(wording.auth + b"OAUTHBEARER " + initial)
                heard = conversation.says(wording.auth + b"PLAIN")
                self.assertEqual(heard, wording.malformed + wording.challenge + b"\r\n")
                self.assertEqual(conversation.requests, [])

    def test_everyCut(self) -> None:
        """The conversation is the same if it is cut anywhere or pipelined without waiting for challenges."""
        for wording, mechanism in self.each():
            login = wording.auth + mechanism.name
            lines = (login, mechanism.initial, mechanism.answer, login + b" " + mechanism.initial, b"foo")
            sent = b"".join(line + b"\r\n" for line in (*lines, wording.auth + b"PLAIN AGpvZQB4"))

            def make(wording: Wording = wording) -> Conversation:
                refused = Denial(Trouble.DENIED, b"no", challenge=REASON)
                backend = FakeClient(wording.accepted)
                answers = FakeAuthenticator(refused, refused)
                return wording.converse(authenticator=answers, connector=FakeConnector(backend))

            explained = wording.challenge + REASON + b"\r\n"
            whole = wording.challenge + b"\r\n" + (explained + wording.refusal) * 2
            self.assertEqual(hearEverything(make, sent), whole + wording.accepted)
            for cut in range(1, len(sent)):
                self.assertEqual(hearEverything(make, sent[:cut], sent[cut:]), whole + wording.accepted)

    def test_noSecrets(self) -> None:
        """Neither a token nor an invalid response is logged."""
        for wording, mechanism in self.each():
            conversation = self.refused(wording, mechanism, REFUSED)
            conversation.says(b"c2VjcmV0")
            conversation.says(wording.auth + mechanism.name + b" c2VjcmV0")
            conversation.says(b"")
            log = "".join(conversation.logged())
            self.assertIn("login failed: client 192.0.2.7:40123, denied,", log)
            self.assertIn(f", invalid login or token in AUTH {mechanism.name.decode()} command", log)
            for secret in ("token ", "secret", "c2VjcmV0", mechanism.initial.decode()):
                self.assertNotIn(secret, log.replace("login or token", "").replace("token in", ""))


class UnlistedTests(SynchronousTestCase):
    """C{unlisted_auth}."""

    ON = (DialogueSettings(serverName="mx.test", unlistedAuth=True),)

    passwords = (
        (0, (b"a LOGIN joe x",)),
        (0, (b"a AUTHENTICATE PLAIN AGpvZQB4",)),
        (0, (b"a AUTHENTICATE LOGIN am9l", b"eA==")),
        (1, (b"USER joe", b"PASS x")),
        (1, (b"AUTH PLAIN", b"AGpvZQB4")),
        (1, (b"AUTH LOGIN", b"am9l", b"eA==")),
        (2, (b"AUTH PLAIN AGpvZQB4",)),
        (2, (b"AUTH LOGIN", b"am9l", b"eA==")),
    )
    """Each way to send a password, by the protocol's place in L{WORDINGS}."""

    def test_taken(self) -> None:
        """Passwords are accepted although nothing lists them; without the directive they are refused."""
        for place, lines in self.passwords:
            conversation = WORDINGS[place].converse("cram-md5", groups=self.ON)
            conversation.says(*lines)
            self.assertEqual(
                [request.credentials for request in conversation.requests], [Credentials(Method.PLAIN, b"joe", b"x")]
            )
            conversation = WORDINGS[place].converse("cram-md5")
            conversation.says(*lines)
            self.assertEqual(conversation.requests, [])

    def test_notOthers(self) -> None:
        """Other mechanisms are not accepted, not even EXTERNAL, which nginx accepts with an initial response."""
        for wording in WORDINGS:
            conversation = wording.converse("plain", groups=self.ON)
            for line in (b"EXTERNAL", b"EXTERNAL am9l", b"CRAM-MD5", b"XOAUTH2"):
                self.assertEqual(conversation.says(wording.auth + line), wording.unsupported)
        pop3 = WORDINGS[1].converse("plain", groups=self.ON)
        self.assertEqual(pop3.says(b"APOP joe x"), b"-ERR APOP is disabled\r\n")

    def test_announced(self) -> None:
        """No mechanism is announced for it, but LOGINDISABLED is not either, and CAPA keeps USER."""
        imap, pop3, smtp = (
            wording.converse("cram-md5", groups=self.ON).says(wording.capabilities) for wording in WORDINGS
        )
        self.assertEqual(
            imap, b"* CAPABILITY IMAP4 IMAP4rev1 SASL-IR LITERAL+ ID UIDPLUS AUTH=CRAM-MD5\r\na OK completed\r\n"
        )
        self.assertIn(b"\r\nUSER\r\n", pop3)
        self.assertIn(b"\r\nSASL CRAM-MD5\r\n", pop3)
        self.assertEqual(smtp, b"250-mx.test\r\n250 AUTH CRAM-MD5\r\n")

    def test_inClear(self) -> None:
        """If TLS is required, they are refused in the clear like listed ones."""
        only = TLSSettings(starttls="only")
        for place, lines in self.passwords:
            conversation = WORDINGS[place].converse("cram-md5", groups=(*self.ON, only))
            conversation.says(*lines)
            self.assertEqual(conversation.requests, [])
        imap, pop3, _ = (
            wording.converse("cram-md5", groups=(*self.ON, only)).says(wording.capabilities) for wording in WORDINGS
        )
        self.assertIn(b" STARTTLS LOGINDISABLED\r\n", imap)
        self.assertNotIn(b"USER", pop3)


def begin(name: bytes, taken: tuple[bytes, ...] = tuple(EVERY)) -> Exchange:
    """An exchange of mechanism C{name} with the salt C{<salt>}."""
    exchange = beginning(name, taken, lambda: b"<salt>")
    assert exchange is not None
    return exchange


def encoded(*responses: bytes) -> list[bytes]:
    """C{responses} in base64."""
    return [base64.b64encode(response) for response in responses]


class BytesTests(SynchronousTestCase):
    """An exchange as bytes, without a wire."""

    def test_begin(self) -> None:
        """With an initial response the exchange ends at once. Its name is in capitals, however the client writes it."""
        (initial,) = encoded(b"admin\0joe\0sesame")
        exchange = begin(b"plain")
        self.assertEqual(exchange.begin(initial), Credentials(Method.PLAIN, b"joe", b"sesame", authzid=b"admin"))
        self.assertEqual(exchange.name, "PLAIN")

    def test_steps(self) -> None:
        """Without an initial response it sends challenges in base64 until it has the credentials."""
        name, password, prompt, other = encoded(b"joe", b"sesame", b"Username:", b"Password:")
        exchange = begin(b"LOGIN")
        steps = (exchange.begin(), exchange.respond(name), exchange.respond(password))
        self.assertEqual(steps, (prompt, other, Credentials(Method.PLAIN, b"joe", b"sesame")))
        self.assertEqual(begin(b"PLAIN").begin(), b"")
        self.assertEqual(begin(b"CRAM-MD5").begin(), base64.b64encode(b"<salt>"))

    def test_taken(self) -> None:
        """Only accepted mechanisms that exist begin an exchange."""
        for name in (b"PLAIN", b"plain", b"GSSAPI", b"", b"PLAIN LOGIN"):
            self.assertIsNone(beginning(name, (b"LOGIN", b"CRAM-MD5"), lambda: b""), name)

    def test_errors(self) -> None:
        """An error is a value. Its class names the kind, and it contains nothing of the response."""
        for name, word, kind in (
            (b"PLAIN", b"*", Cancelled),
            (b"PLAIN", b"a", NotBase64),
            (b"PLAIN", b"\0", NotBase64),
            (b"PLAIN", b"", InvalidResponse),
            (b"PLAIN", b"c2VzYW1l", InvalidResponse),
            (b"XOAUTH2", b"c2VzYW1l", InvalidResponse),
        ):
            exchange = begin(name)
            exchange.begin()
            error = exchange.respond(word)
            self.assertIs(type(error), kind)
            self.assertNotIn("sesame", str(error))
        self.assertIs(type(begin(b"CRAM-MD5").begin(b"am9l")), InitialResponse)
        self.assertIs(type(begin(b"PLAIN").begin(b"*")), NotBase64)

    def test_explaining(self) -> None:
        """A refused OAuth client gets the error. After any response the result is the refusal."""
        for mechanism in MECHANISMS:
            for answer in (b"", b"AQ==", b"*", b"nonsense", b"\0"):
                exchange = explaining(mechanism.method, REFUSED)
                assert exchange is not None
                self.assertEqual((exchange.begin(), exchange.respond(answer)), (REASON, REFUSED))

    def test_noExplanation(self) -> None:
        """Without an error to send, with another method, or for a temporary failure there is no such exchange."""
        self.assertIsNone(explaining(Method.PLAIN, REFUSED, "400"))
        for denial in (Denial(Trouble.TEMPORARY, challenge=REASON), Denial(Trouble.DENIED, None, b"451 4.3.0")):
            self.assertIsNone(explaining(Method.XOAUTH2, denial, "400"))
        for challenge in (None, b"", b"*", b"="):
            self.assertIsNone(explaining(Method.XOAUTH2, Denial(Trouble.DENIED, challenge=challenge)))


class ExchangeTests(SynchronousTestCase):
    """Behaviour that all mechanisms share."""

    def test_firstWord(self) -> None:
        """Only the first word of a response counts. It is empty if the response begins with a blank."""
        for wording in WORDINGS:
            for response, valid in ((b"AGpvZQB4 y z", True), (b" AGpvZQB4", False), (b"AGpvZQB4\t", False)):
                conversation = wording.converse()
                conversation.says(wording.auth + b"PLAIN", response)
                self.assertEqual(len(conversation.requests), valid, response)

    def test_salt(self) -> None:
        """The challenge of CRAM-MD5 stays the same throughout a connection."""
        for wording in WORDINGS:
            conversation = wording.converse("cram-md5")
            once = conversation.says(wording.auth + b"CRAM-MD5", b"*")
            self.assertIn(base64.b64encode(SALT.encode()), once)
            conversation.clock.advance(5)
            self.assertEqual(conversation.says(wording.auth + b"CRAM-MD5", b"*"), once)

    def test_log(self) -> None:
        """The log has the error in nginx's words, with the mechanism."""
        for name, response, wrong in (
            (b"PLAIN", b"*", 'cancellation ("*")'),
            (b"PLAIN", b"a", "invalid base64 encoding"),
            (b"PLAIN", b"am9l", "invalid login or password"),
            (b"CRAM-MD5", b"am9l", "invalid CRAM-MD5 hash"),
        ):
            conversation = WORDINGS[1].converse("plain", "cram-md5")
            conversation.says(b"AUTH " + name, response)
            line = (
                f"command refused: client 192.0.2.7:40123, {wrong} in AUTH {name.decode()} command, protocol pop3,"
                " server 127.0.0.1:143, session 00007.00"
            )
            self.assertEqual(conversation.logged(), [line])
