"""
Tests for L{mailgate.protocols.sieve.server}: the dialogue before login, byte for byte as Dovecot's Pigeonhole 2.3.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.factory import Means, ProxyServerFactory
from mailgate.frontend.settings import DialogueSettings
from mailgate.log.journal import Journal
from mailgate.login import Credentials, Denial, Method, Trouble
from mailgate.protocols.sieve import SIEVE
from mailgate.protocols.sieve.settings import SieveSettings
from mailgate.session import Outcome, Phase
from mailgate.testing import Conversation, FakeAuthenticator, FakeClient, FakeConnector, hearEverything
from mailgate.testing.fakes import settingsOf
from mailgate.tls.settings import TLSSettings

USUAL = (
    b'"SIEVE" "fileinto reject envelope vacation imap4flags copy include variables body"\r\n'
    b'"NOTIFY" "mailto"\r\n"VERSION" "1.0"\r\n'
)
HEAD = b'"IMPLEMENTATION" "mailgate"\r\n"SASL" "PLAIN"\r\n' + USUAL
NO = b'NO "Authentication failed."\r\n'
INVALID = b'NO "Error in MANAGESIEVE command received by server."\r\n'
MANY = b'BYE "Too many invalid MANAGESIEVE commands."\r\n'
MESSAGE = b64encode(b"\0joe\0sesame")
LOGIN = b'AUTHENTICATE "PLAIN" "' + MESSAGE + b'"'
LITERAL = b'AUTHENTICATE "PLAIN" {%d+}\r\n%b\r\n' % (len(MESSAGE), MESSAGE)
JOE = Credentials(Method.PLAIN, b"joe", b"sesame")
ACCEPTED = b'OK "Logged in."\r\n'


def converse(*auth: str, **settings: Any) -> Conversation:
    """A conversation with the methods C{auth}, or the default. The greeting has been heard."""
    conversation = Conversation(SIEVE, SieveSettings(auth=auth or ("plain",)), **settings)
    conversation.hear()
    return conversation


def secure(mode: str = "on", *auth: str, **settings: Any) -> Conversation:
    """A conversation with C{starttls}."""
    return Conversation(SIEVE, SieveSettings(auth=auth or ("plain",)), TLSSettings(starttls=mode), **settings)


def logging() -> Conversation:
    """A conversation whose logins a backend accepts."""
    connector = FakeConnector(FakeClient(ACCEPTED))
    return Conversation(SIEVE, connector=connector)


class GreetingTests(SynchronousTestCase):
    """The greeting, and the list after TLS."""

    def test_greeting(self) -> None:
        """A list of capabilities and OK, in one write: some clients read one segment only."""
        conversation = Conversation(SIEVE)
        self.assertEqual(conversation.hear(), HEAD + b'OK "ManageSieve ready"\r\n')
        conversation = Conversation(SIEVE)
        written: list[bytes] = []
        conversation.transport.write = written.append  # type: ignore[method-assign]
        conversation.server.greet()
        self.assertEqual(len(written), 1)

    def test_implementation(self) -> None:
        """The operator may choose the name."""
        conversation = Conversation(SIEVE, SieveSettings(implementation='x "y"'))
        self.assertTrue(conversation.hear().startswith(b'"IMPLEMENTATION" "x \\"y\\""\r\n'))

    def test_configured(self) -> None:
        """The configured capabilities, with a VERSION of the operator's."""
        settings = SieveSettings(capabilities=("SIEVE a", "VERSION 1.1", "SASL x", "UNAUTHENTICATE"))
        heard = Conversation(SIEVE, settings).hear()
        self.assertIn(b'"SIEVE" "a"\r\n"VERSION" "1.1"\r\nOK', heard)
        self.assertEqual(heard.count(b'"SASL"'), 1)

    def test_learned(self) -> None:
        """What is learned replaces the configured list; without VERSION of the backends there is none."""
        conversation = converse()
        conversation.factory.announcement.change((b"SIEVE a b", b"RENAME"), True)
        heard = conversation.says(b"CAPABILITY")
        self.assertIn(b'"SASL" "PLAIN"\r\n"SIEVE" "a b"\r\n"RENAME"\r\nOK', heard)
        conversation.factory.announcement.change((b"SIEVE c",), True)
        self.assertIn(b'"SIEVE" "c"\r\nOK', conversation.says(b"CAPABILITY"))

    def test_starttls(self) -> None:
        """With starttls = only there is no mechanism in the clear (RFC 5804, section 1.7 allows that)."""
        self.assertEqual(secure().hear(), HEAD + b'"STARTTLS"\r\nOK "ManageSieve ready"\r\n')
        only = HEAD.replace(b'"PLAIN"', b'""') + b'"STARTTLS"\r\nOK "ManageSieve ready"\r\n'
        self.assertEqual(secure("only").hear(), only)

    def test_afterTLS(self) -> None:
        """The list comes again without a question and without STARTTLS, in one write with OK."""
        for mode in ("on", "only"):
            conversation = secure(mode)
            self.assertEqual(conversation.says(b"STARTTLS")[-33:], b'OK "Begin TLS negotiation now."\r\n')
            written: list[bytes] = []
            conversation.transport.write = written.append  # type: ignore[method-assign]
            conversation.transport.shakeHands()
            self.assertEqual(written, [HEAD + b'OK "TLS negotiation successful."\r\n'])

    def test_implicitTLS(self) -> None:
        """With ssl the greeting waits for the handshake, and comes once."""
        conversation = Conversation(SIEVE, ssl=True)
        self.assertEqual(conversation.hear(), b"")
        conversation.transport.shakeHands()
        self.assertEqual(conversation.hear(), HEAD + b'OK "ManageSieve ready"\r\n')

    def test_external(self) -> None:
        """EXTERNAL is listed only where clients may have certificates: Roundcube prefers it wherever it is listed."""
        conversation = secure("on", "plain", "external")
        self.assertIn(b'"SASL" "PLAIN"\r\n', conversation.hear())
        conversation.factory.verifiesClients = True
        self.assertIn(b'"SASL" "PLAIN"\r\n', conversation.says(b"CAPABILITY"))
        conversation.factory.announcement.greetings.clear()
        conversation.factory.tls = Refusing()  # type: ignore[assignment]
        conversation.says(b"STARTTLS")
        conversation.transport.shakeHands()
        self.assertIn(b'"SASL" "PLAIN EXTERNAL"\r\n', conversation.hear())


class Refusing:
    """A TLS context that refuses no certificate."""

    def refusal(self, connection: Any) -> None:
        """No refusal."""


class AuthenticateTests(SynchronousTestCase):
    """AUTHENTICATE."""

    def test_forms(self) -> None:
        """The response is a quoted string or a literal, with the command or after a challenge."""
        for *lines, last in (
            (LOGIN,),
            (b'authenticate  "plain" "' + MESSAGE + b'" ',),
            (LITERAL[:-2],),
            (LITERAL[:-2].replace(b"+", b""),),
            (b"AUTHENTICATE {5+}\r\nPLAIN {16}\r\n" + MESSAGE,),
            (b'AUTHENTICATE "PLAIN"', b'"' + MESSAGE + b'"'),
            (b'AUTHENTICATE "PLAIN"', b"{16+}\r\n" + MESSAGE),
            (b'AUTHENTICATE "PLAIN"', b"{16}\r\n" + MESSAGE),
            (b'AUTHENTICATE "LOGIN" "am9l"', b'"c2VzYW1l"'),
            (b'AUTHENTICATE "LOGIN"', b'"am9l"', b'"c2VzYW1l"'),
        ):
            conversation = converse("plain", "login")
            for line in lines:
                self.assertRegex(conversation.says(line), rb'\A"[A-Za-z0-9+/=]*"\r\n\Z')
            conversation.says(last)
            self.assertEqual([each.credentials for each in conversation.requests], [JOE], last)
            self.assertIs(conversation.server.session.phase, Phase.RELAY)

    def test_anyCut(self) -> None:
        """How TCP splits the client's bytes makes no difference."""
        for data in (
            b'NOOP "x"\r\n' + LOGIN + b"\r\nLISTSCRIPTS\r\n",
            LITERAL + b"LISTSCRIPTS\r\n",
            b'NOOP {4+}\r\na\r\nb\r\nAUTHENTICATE "PLAIN"\r\n{16+}\r\n' + MESSAGE + b"\r\nLISTSCRIPTS\r\n",
            b'FOO {9+}\r\nNOOP\r\nxyz "a" {2}\r\n\r\n\r\nNOOP\r\n',
            b'AUTHENTICATE "PLAIN"\r\n"*"\r\nNOOP\r\n',
        ):
            whole = hearEverything(logging, data)
            self.assertEqual(hearEverything(logging, *(data[i : i + 1] for i in range(len(data)))), whole)
            for cut in range(1, len(data)):
                self.assertEqual(hearEverything(logging, data[:cut], data[cut:]), whole)

    def test_unacknowledged(self) -> None:
        """A client that goes on without acknowledging the error of its token gets the refusal, then its answer."""
        conversation = converse("xoauth2", authenticator=FakeAuthenticator(Denial(Trouble.DENIED)))
        message = b64encode(b"user=joe\1auth=Bearer abc\1\1")
        self.assertRegex(conversation.says(b'AUTHENTICATE "XOAUTH2" "%b"' % message), rb'\A"[A-Za-z0-9+/]+=*"\r\n\Z')
        self.assertEqual(conversation.says(b'NOOP "x"'), NO + b'OK (TAG "x") "Done"\r\n')

    def test_pipelined(self) -> None:
        """What follows the login belongs to the backend."""
        connector = FakeConnector(None)
        conversation = converse(connector=connector)
        conversation.says(LOGIN, b"LISTSCRIPTS", b'NOOP "x"')
        client = FakeClient(ACCEPTED)
        connector.pending[0].callback(client)
        self.assertEqual(client.transport.value(), b'LISTSCRIPTS\r\nNOOP "x"\r\n')
        self.assertEqual(conversation.hear(), ACCEPTED)

    def test_successData(self) -> None:
        """Data of the gateway's own mechanism are inside the OK."""
        for reply, heard in (
            (ACCEPTED, b'OK (SASL "dj14") "Logged in."\r\n'),
            (b"OK\r\n", b'OK (SASL "dj14")\r\n'),
        ):
            conversation = converse(connector=FakeConnector(FakeClient(reply)))
            conversation.server.successData = b"v=x"
            self.assertEqual(conversation.says(LOGIN), heard)

    def test_challenges(self) -> None:
        """Challenges are strings; an empty one is an empty string."""
        conversation = converse("plain", "login", "cram-md5", "xoauth2", "oauthbearer")
        for name, challenge in (
            (b"PLAIN", b'""'),
            (b"LOGIN", b'"VXNlcm5hbWU6"'),
            (b"CRAM-MD5", b'"' + b64encode(b"<7.1000@mx.test>") + b'"'),
            (b"XOAUTH2", b'""'),
            (b"OAUTHBEARER", b'""'),
        ):
            self.assertEqual(conversation.says(b'AUTHENTICATE "%b"' % name), challenge + b"\r\n")
            self.assertEqual(conversation.says(b'"*"'), b'NO "Authentication aborted by client."\r\n')

    def test_cancelled(self) -> None:
        """With and without quotes, and as a literal; the connection lives."""
        for cancel in (b'"*"', b"*", b"{1+}\r\n*"):
            conversation = converse()
            conversation.says(b'AUTHENTICATE "PLAIN"')
            self.assertEqual(conversation.says(cancel), b'NO "Authentication aborted by client."\r\n')
            conversation.says(LOGIN)
            self.assertEqual(len(conversation.requests), 1)

    def test_invalid(self) -> None:
        """The texts of Dovecot for responses that are wrong."""
        for lines, reply in (
            ((b'AUTHENTICATE "PLAIN" "!!!"',), b'NO "Invalid base64 data in initial response"\r\n'),
            ((b'AUTHENTICATE "PLAIN" ' + MESSAGE,), b'NO "Invalid AUTHENTICATE initial response."\r\n'),
            ((b'AUTHENTICATE "PLAIN"', b'"!!!"'), b'NO "Invalid base64 in response"\r\n'),
            ((b'AUTHENTICATE "PLAIN"', MESSAGE), b'NO "Invalid base64 in response"\r\n'),
            ((b'AUTHENTICATE "PLAIN"', b"{4+}\r\nAAAA x"), b'NO "Invalid base64 in response"\r\n'),
            ((b'AUTHENTICATE "FOO"',), b'NO "Unsupported authentication mechanism."\r\n'),
            ((b'AUTHENTICATE "EXTERNAL" ""',), b'NO "Unsupported authentication mechanism."\r\n'),
            ((b"AUTHENTICATE PLAIN",), INVALID),
            ((b"AUTHENTICATE",), INVALID),
            ((b'AUTHENTICATE "PLAIN" "" ""',), INVALID),
        ):
            conversation = converse()
            *before, last = lines
            for line in before:
                self.assertEqual(conversation.says(line), b'""\r\n')
            self.assertEqual(conversation.says(last), reply, lines)
            self.assertFalse(conversation.closed)
            conversation.says(LOGIN)
            self.assertEqual(len(conversation.requests), 1)

    def test_initialAfterChallenge(self) -> None:
        """The text is that of the last exchange."""
        conversation = converse()
        conversation.says(b'AUTHENTICATE "PLAIN"')
        conversation.says(b'"*"')
        self.assertIn(b"initial response", conversation.says(b'AUTHENTICATE "PLAIN" "!!!"'))

    def test_oauth(self) -> None:
        """The error of a token is a challenge; each kind of answer ends in NO."""
        for answer in (b'""', b'"AQ=="', b'"*"', b"*", b"{0+}\r\n"):
            denial = Denial(Trouble.DENIED, challenge=b"eyJ9")
            conversation = converse("xoauth2", authenticator=FakeAuthenticator(denial))
            message = b64encode(b"user=joe\1auth=Bearer abc\1\1")
            self.assertEqual(conversation.says(b'AUTHENTICATE "XOAUTH2" "%b"' % message), b'"eyJ9"\r\n')
            self.assertEqual(conversation.says(answer), NO)
            self.assertFalse(conversation.closed)

    def test_longToken(self) -> None:
        """sasl_max_response says how long tokens may be, whatever sieve_client_buffer is, in either form."""
        for length, isTaken in ((10000, True), (13000, False)):
            message = b64encode(b"user=joe\1auth=Bearer " + b"x" * length + b"\1\1")
            for argument in (b'"' + message + b'"', b"{%d+}\r\n%b" % (len(message), message)):
                for groups in (SieveSettings(auth=("xoauth2",)), SieveSettings(auth=("xoauth2",), clientBuffer=512)):
                    conversation = Conversation(SIEVE, groups)
                    heard = conversation.says(b'AUTHENTICATE "XOAUTH2" ' + argument)
                    self.assertEqual(len(conversation.requests), isTaken)
                    if not isTaken:
                        self.assertRegex(heard, b"too long|BYE")
                    conversation = Conversation(SIEVE, groups)
                    conversation.says(b'AUTHENTICATE "XOAUTH2"')
                    conversation.says(argument)
                    self.assertEqual(len(conversation.requests), isTaken)


class RefusalTests(SynchronousTestCase):
    """What clients hear of a refused login."""

    def refusal(self, denial: Denial) -> bytes:
        """The reply."""
        return converse(authenticator=FakeAuthenticator(denial)).says(LOGIN)

    def test_words(self) -> None:
        """Each kind has its words; the connection lives."""
        for trouble, reply in (
            (Trouble.DENIED, NO),
            (Trouble.TEMPORARY, b'NO (TRYLATER) "Temporary authentication failure, try again later."\r\n'),
            (Trouble.UNAUTHORIZED, b'NO "Not authorized to log in as another user."\r\n'),
            (Trouble.PERMANENT, b'NO "The server refuses this login, contact its administrator."\r\n'),
        ):
            self.assertEqual(self.refusal(Denial(trouble)), reply)

    def test_text(self) -> None:
        """A text of the authentication service is quoted; one with control characters is replaced."""
        for text, reply in (
            (b'say "no"\\', b'NO "say \\"no\\"\\\\"\r\n'),
            ("nö".encode(), 'NO "nö"\r\n'.encode()),
            (b'x"\r\nOK "y', NO),
            (b"\xfcber", 'NO "über"\r\n'.encode()),
        ):
            self.assertEqual(self.refusal(Denial(Trouble.DENIED, text)), reply)
        self.assertEqual(len(self.refusal(Denial(Trouble.DENIED, b"x" * 5000))), len(b'NO ""\r\n') + 1024)

    def test_codes(self) -> None:
        """Registered codes are sent. Others, such as Mailu's own or those of SMTP, are not."""
        for code, reply in (
            (b"ENCRYPT-NEEDED", b'NO (ENCRYPT-NEEDED) "x"\r\n'),
            (b"auth-too-weak", b'NO (AUTH-TOO-WEAK) "x"\r\n'),
            (b'REFERRAL "sieve://b"', b'NO (REFERRAL "sieve://b") "x"\r\n'),
            (b"AuthFailed", b'NO "x"\r\n'),
            (b"535 5.7.8", b'NO "x"\r\n'),
            (b"451 4.3.0", b'NO (TRYLATER) "x"\r\n'),
            (b'REFERRAL "sieve://b") "', b'NO "x"\r\n'),
        ):
            self.assertEqual(self.refusal(Denial(Trouble.DENIED, b"x", code)), reply)
        self.assertEqual(
            self.refusal(Denial(Trouble.DENIED, None, b"ENCRYPT-NEEDED")),
            b'NO (ENCRYPT-NEEDED) "Authentication failed."\r\n',
        )

    def test_tryLater(self) -> None:
        """TRYLATER of the service is a temporary failure: it counts as no wrong password."""
        denial = Denial(Trouble.DENIED, b"x", b"TRYLATER")
        self.assertIs(denial.kind, Trouble.TEMPORARY)
        self.assertFalse(denial.refusesCredentials)
        self.assertEqual(self.refusal(denial), b'NO (TRYLATER) "x"\r\n')

    def test_backends(self) -> None:
        """A backend's refusal comes as it is."""
        denial = Denial(Trouble.TEMPORARY, answer=b'NO (LIMIT/CONNECTIONS) "Too many"')
        self.assertEqual(self.refusal(denial), b'NO (LIMIT/CONNECTIONS) "Too many"\r\n')


class InvalidTests(SynchronousTestCase):
    """Commands that are unknown or not allowed now."""

    def test_third(self) -> None:
        """The third one ends the connection, as in Dovecot."""
        for line in (
            b"FOO",
            b"LISTSCRIPTS",
            b"UNAUTHENTICATE",
            b"XCLIENT ADDR=192.0.2.1",
            b"",
            b" NOOP",
            b'NOOP "x',
            b'PUTSCRIPT "a" {9+}\r\nNOOP\r\nabc',
            b"STARTTLS x",
            b"CAPABILITY x",
            b"LOGOUT x",
            b'NOOP "a" "b"',
            b"NO\rOP",
            b"NOOP \0",
        ):
            conversation = converse()
            self.assertEqual(conversation.says(line), INVALID, line)
            self.assertEqual(conversation.says(line), INVALID, line)
            self.assertEqual(conversation.says(line), MANY, line)
            self.assertTrue(conversation.closed)
            self.assertIs(conversation.server.session.outcome, Outcome.ERRORS)

    def test_configured(self) -> None:
        """max_errors, where it is set, says how many."""
        dialogue = DialogueSettings(serverName="mx.test", maxErrors=5)
        for given, most in ((frozenset({"max_errors"}), 5), (frozenset(), 3)):
            settings = settingsOf("sieve", dialogue, given=given)
            means = Means(FakeAuthenticator(), FakeConnector(), Clock(), Journal(LogLevel.info, LogPublisher()))
            factory = ProxyServerFactory(SIEVE, settings, settings.listen[0], means)
            self.assertEqual(factory.dialogue.maxErrors, most)

    def test_passedOver(self) -> None:
        """The literal of a refused command is not obeyed, whatever its size."""
        conversation = converse()
        self.assertEqual(conversation.send(b'PUTSCRIPT "a" {100000+}\r\n' + LOGIN * 100), b"")
        self.assertEqual(conversation.requests, [])
        self.assertEqual(conversation.send(b"x" * (100000 - len(LOGIN) * 100) + b"\r\n"), INVALID)
        self.assertEqual(conversation.says(b"NOOP"), b'OK "NOOP Completed"\r\n')

    def test_tooLong(self) -> None:
        """A line or a literal beyond sieve_client_buffer, or sasl_max_response, ends the connection."""
        for data, goodbye in (
            (b"x" * 16384, b'BYE "Input buffer full, aborting"\r\n'),
            (b'NOOP "' + b"x" * 17000 + b'"\r\n', b'BYE "Input buffer full, aborting"\r\n'),
            (b"NOOP {16384+}\r\n", b'BYE "Literal size too large"\r\n'),
            (b"NOOP {99999999999+}\r\n", b'BYE "Literal size too large"\r\n'),
            (b"FOO {4294967296+}\r\n", b'BYE "Literal size too large"\r\n'),
            (b'AUTHENTICATE "PLAIN"\r\n{16500+}\r\n', b'""\r\nBYE "Literal size too large"\r\n'),
            (b'AUTHENTICATE "PLAIN"\r\n"' + b"x" * 17000, b'""\r\nBYE "Input buffer full, aborting"\r\n'),
        ):
            conversation = converse()
            self.assertEqual(conversation.send(data), goodbye, data[:30])
            self.assertTrue(conversation.closed)
            self.assertIs(conversation.server.session.outcome, Outcome.TOO_LONG)


class CommandTests(SynchronousTestCase):
    """The other commands."""

    def test_noop(self) -> None:
        """The tag comes back, as a literal if no quoted string can hold it."""
        for line, reply in (
            (b"NOOP", b'OK "NOOP Completed"\r\n'),
            (b'NOOP "abc"', b'OK (TAG "abc") "Done"\r\n'),
            (b'NOOP "a\\"b"', b'OK (TAG "a\\"b") "Done"\r\n'),
            (b"noop {4+}\r\na\r\nb", b'OK (TAG {4}\r\na\r\nb) "Done"\r\n'),
            (b'NOOP "STARTTLS-RESYNC-CAPA"', b'OK (TAG "STARTTLS-RESYNC-CAPA") "Done"\r\n'),
            (b"NOOP abc", b'NO "Invalid echo tag."\r\n'),
            (b"NOOP {1+}\r\n\0", b'NO "Invalid echo tag."\r\n'),
        ):
            self.assertEqual(converse().says(line), reply)

    def test_bareLineFeeds(self) -> None:
        """A bare LF ends a line, as in Dovecot."""
        self.assertEqual(converse().send(b"NOOP\nNOOP {1}\nx\n"), b'OK "NOOP Completed"\r\nOK (TAG "x") "Done"\r\n')

    def test_logout(self) -> None:
        """OK, never BYE (erratum 7825), and the end."""
        conversation = converse()
        self.assertEqual(conversation.says(b"logout"), b'OK "Logout completed."\r\n')
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.QUIT)

    def test_capability(self) -> None:
        """The list and OK."""
        self.assertEqual(converse().says(b"CAPABILITY"), HEAD + b'OK "Capability completed."\r\n')

    def test_starttls(self) -> None:
        """What was pipelined behind STARTTLS is discarded: an attacker may have injected it."""
        conversation = secure()
        conversation.hear()
        heard = conversation.says(b"STARTTLS", LOGIN, b'NOOP "x"')
        self.assertEqual(heard, b'OK "Begin TLS negotiation now."\r\n')
        conversation.transport.shakeHands()
        self.assertEqual(conversation.hear(), HEAD + b'OK "TLS negotiation successful."\r\n')
        self.assertEqual(conversation.requests, [])
        self.assertEqual(conversation.says(b"STARTTLS"), b'NO "TLS is already active."\r\n')

    def test_noTLS(self) -> None:
        """STARTTLS where it is not offered."""
        self.assertEqual(converse().says(b"STARTTLS"), b'NO "TLS support isn\'t enabled."\r\n')

    def test_needsTLS(self) -> None:
        """With starttls = only no login is possible in the clear, in either form; that is no invalid command."""
        conversation = secure("only")
        conversation.hear()
        for line in (LOGIN, LITERAL[:-2], b'AUTHENTICATE "PLAIN"') * 2:
            self.assertEqual(conversation.says(line), b'NO (ENCRYPT-NEEDED) "Use STARTTLS first."\r\n')
        self.assertEqual(conversation.requests, [])

    def test_stopping(self) -> None:
        """A gateway that stops says that the client may come again."""
        conversation = converse()
        conversation.dismiss()
        self.assertEqual(conversation.hear(), b'BYE (TRYLATER) "Gateway is shutting down, closing connection"\r\n')

    def test_debugged(self) -> None:
        """The log at level debug has words and names of mechanisms, and nothing that may be a secret."""
        conversation = Conversation(SIEVE, level=LogLevel.debug)
        conversation.says(LOGIN.replace(b"PLAIN", b"FOO"), b'FOO "sesame"', b'AUTHENTICATE "PLAIN"')
        conversation.says(b'"' + MESSAGE + b'"')
        log = "\n".join(conversation.logged())
        for line in ('"AUTHENTICATE ***"', '"***"', '"AUTHENTICATE PLAIN"'):
            self.assertIn(f"command {line}", log)
        self.assertNotIn(MESSAGE.decode(), log)
        self.assertNotIn("sesame", log)
