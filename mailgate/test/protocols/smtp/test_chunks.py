"""
BDAT (RFC 3030) before the hand-over: the chunk after it belongs to a message. No part of it is obeyed, whatever it
contains, however it is cut, and in every state.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.intake import READ_AHEAD
from mailgate.frontend.settings import DialogueSettings
from mailgate.login import Denial, Trouble
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.session import Outcome, Phase
from mailgate.testing import ROUTE, Conversation, FakeAuthenticator, FakeClient, FakeConnector, hearEverything
from mailgate.tls.settings import TLSSettings

GREETING = b"220 mx.test ESMTP ready\r\n"
OK = b"250 2.0.0 OK\r\n"
SEQUENCE = b"503 5.5.1 Bad sequence of commands\r\n"
LOGIN_NEEDED = b"530 5.7.1 Authentication required\r\n"
TLS_NEEDED = b"530 5.7.0 Must issue a STARTTLS command first\r\n"
ENDLESS = b"421 4.5.4 Data of a refused command cannot be skipped, closing connection\r\n"
ARGUMENT = b"501 5.5.4 Invalid argument\r\n"
BYE = b"221 2.0.0 Bye\r\n"
REFUSED = Denial(Trouble.DENIED, b"No such user", b"550 5.1.1")

SMUGGLED = (
    b"Subject: x\r\n\r\nRSET\r\nMAIL FROM:<ceo@example.com>\r\nRCPT TO:<good@example.com>\r\nDATA\r\nFrom: ceo\r\n\r\n"
    b"smuggled\r\n.\r\nQUIT\r\n"
)
"""A message that looks like commands."""

LETTER = b"MAIL FROM:<evil@x.org>\r\nRCPT TO:<bad@example.com>\r\n"


def chunk(data: bytes, last: bytes = b" LAST") -> bytes:
    """BDAT with C{data}."""
    return b"BDAT %d%b\r\n%b" % (len(data), last, data)


def converse(*auth: str, answers: Any = (), backend: Any = None, groups: Any = (), delay: float = 0.0) -> Conversation:
    """A conversation with a service with C{answers}, the methods C{auth} or C{none}, and other C{groups}."""
    connector = FakeConnector(*([] if backend is None else [backend]))
    authenticator = FakeAuthenticator(*answers)
    settings = SMTPSettings(auth=auth or ("none",), greetingDelay=delay)
    return Conversation(SMTP, settings, *groups, authenticator=authenticator, connector=connector)


class ChunkTests(SynchronousTestCase):
    """A chunk is discarded and refused."""

    def assertEverywhere(self, make: Any, sent: bytes, heard: bytes) -> None:
        """The output is C{heard} wherever C{sent} is cut in two, and byte by byte."""
        self.assertEqual(hearEverything(make, sent), heard)
        for cut in range(1, len(sent)):
            self.assertEqual(hearEverything(make, sent[:cut], sent[cut:]), heard, sent[:cut])
        self.assertEqual(hearEverything(make, *(sent[i : i + 1] for i in range(len(sent)))), heard)

    def test_smuggling(self) -> None:
        """A message after a refused recipient causes no login, and nothing of it reaches a backend."""
        conversations = []

        def make() -> Conversation:
            conversations.append(converse(answers=(REFUSED,), backend=FakeClient(b"250 ok\r\n")))
            return conversations[-1]

        heard = GREETING + b"250 mx.test\r\n" + OK + b"550 5.1.1 No such user\r\n" + SEQUENCE + BYE
        self.assertEverywhere(make, b"HELO x\r\n" + LETTER + chunk(SMUGGLED) + b"QUIT\r\n", heard)
        for conversation in conversations:
            self.assertEqual([b"bad@" in request.envelope.recipient for request in conversation.requests], [True])
            self.assertEqual(conversation.connector.routes, [])

    def test_states(self) -> None:
        """In every state the chunk is discarded and refused once."""
        data = b"NOOP\r\nQUIT\r\n"
        for before, heard in (
            (b"", b""),
            (b"HELO x\r\n", b"250 mx.test\r\n"),
            (b"MAIL FROM:<a>\r\n", OK),
            (b"MAIL FROM:<a>\r\nRSET\r\n", OK + OK),
            (b"RCPT TO:<a>\r\n", SEQUENCE),
            (LETTER, OK + b"550 5.1.1 No such user\r\n"),
        ):
            for last in (b"", b" LAST", b"  last  ", b"   "):
                sent = before + chunk(data, last) + b"NOOP\r\n"
                self.assertEverywhere(lambda: converse(answers=(REFUSED,)), sent, GREETING + heard + SEQUENCE + OK)

    def test_needs(self) -> None:
        """The reply names what is required, TLS or a login, as for MAIL."""
        sent = chunk(b"NOOP\r\n") + b"NOOP\r\n"
        self.assertEverywhere(lambda: converse("plain"), sent, GREETING + LOGIN_NEEDED + OK)
        for auth in ("plain", "none"):
            only = TLSSettings(starttls="only")
            self.assertEverywhere(lambda: converse(auth, groups=(only,)), sent, GREETING + TLS_NEEDED + OK)  # noqa: B023

    def test_words(self) -> None:
        """The command may be in any case, with blanks, and with a size of 0."""
        for line in (b"bdat 3", b"BdAt  0003  LaSt ", b"BDAT 00000000000000000003"):
            self.assertEverywhere(converse, line + b"\r\n.\r\nNOOP\r\n", GREETING + SEQUENCE + OK)
        for line in (b"BDAT 0", b"BDAT 0 LAST", b"BDAT 0\n"):
            self.assertEverywhere(converse, line.strip() + b"\r\nNOOP\r\n", GREETING + SEQUENCE + OK)

    def test_anyBytes(self) -> None:
        """A chunk may contain any bytes, and need not end with a line end."""
        for data in (
            b"\0" * 9,
            b"\r",
            b"\n\n\n",
            b"\r\n.\r\n",
            b"BDAT 5\r\n",
            b"STARTTLS\r\n",
            b"x" * 5000,
            bytes(range(256)),
        ):
            conversation = converse()
            self.assertEqual(conversation.send(chunk(data) + b"NOOP\r\n"), SEQUENCE + OK)
            self.assertFalse(conversation.closed)

    def test_pipelined(self) -> None:
        """Several chunks are refused in turn."""
        sent = b"MAIL FROM:<a>\r\n" + chunk(b"QUIT\r\n", b"") + chunk(b"", b" LAST") + chunk(b"RSET\r\n") + b"NOOP\r\n"
        self.assertEverywhere(converse, sent, GREETING + OK + SEQUENCE * 3 + OK)

    def test_transaction(self) -> None:
        """LAST ends the message, and the next one needs MAIL. Before that the sender stays."""
        for last, heard in ((b" LAST", OK), (b"", SEQUENCE)):
            conversation = converse()
            conversation.send(b"MAIL FROM:<a>\r\n" + chunk(b"x", last))
            self.assertEqual(conversation.says(b"MAIL FROM:<b>"), heard)

    def test_malformed(self) -> None:
        """If the end of a chunk is unknown, nothing after it is obeyed."""
        for line in (
            *(
                b"BDAT",
                b"BDAT ",
                b"BDAT LAST",
                b"BDAT -1",
                b"BDAT +1",
                b"BDAT 1x",
                b"BDAT 0x10",
                b"BDAT 1 2",
                b"BDAT 1.0",
            ),
            *(b"BDAT 1 FIRST", b"BDAT 1 LAST LAST", b"BDAT 123456789012345678901", b"BDAT 1,000", b"BDAT\t1 LAST"),
            *(b"BDAT 1\tLAST", b" BDAT 1", b"BDAT 1\0", b"BDAT 1\r LAST", b"BDAT" + b" x" * 20, b"BDAT \xb2"),
        ):
            conversation = converse()
            self.assertEqual(conversation.send(line + b"\r\nMAIL FROM:<a>\r\nNOOP\r\n"), ARGUMENT + ENDLESS, line)
            self.assertTrue(conversation.closed)
            self.assertIs(conversation.server.session.outcome, Outcome.NO_SIZE)
            self.assertIs(conversation.server.session.outcome, Outcome.NO_SIZE)

    def test_otherWords(self) -> None:
        """A word that only begins with BDAT is an unknown command."""
        for line in (b"BDATA 3", b"BDAT:1", b"XBDAT 3", b"BDAT=1"):
            self.assertEqual(converse().says(line), converse().says(b"FOO"))

    def test_tooLong(self) -> None:
        """A BDAT line that is too long ends the connection, like any command."""
        conversation = converse()
        conversation.send(b"BDAT 1" + b" " * 5000 + b"\r\nQUIT\r\n")
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.TOO_LONG)


class BoundTests(SynchronousTestCase):
    """A chunk takes no memory, and the client's time is limited."""

    def test_memory(self) -> None:
        """Nothing of it is kept, whatever its size, and reading is never paused."""
        for size in (2**63, 99999999999999999999):
            conversation = converse()
            conversation.send(b"BDAT %d\r\n" % size)
            for _ in range(200):
                self.assertEqual(conversation.send(b"QUIT\r\n" * 10000), b"")
                self.assertEqual(conversation.transport.producerState, "producing")
                self.assertEqual(conversation.server.buffer, b"")

    def test_whole(self) -> None:
        """A large chunk ends exactly with its last byte."""
        conversation = converse()
        conversation.send(b"BDAT 1000000 LAST\r\n")
        for _ in range(99):
            conversation.send(b"x" * 10000)
        self.assertEqual(conversation.send(b"x" * 9999), b"")
        self.assertEqual(conversation.send(b"xNOOP\r\n"), SEQUENCE + OK)

    def test_silence(self) -> None:
        """A client that stops in the middle times out."""
        conversation = converse()
        conversation.send(b"BDAT 100\r\nx")
        conversation.clock.advance(60)
        self.assertIs(conversation.server.session.outcome, Outcome.TIMEOUT)

    def test_budget(self) -> None:
        """Its bytes restart the timeout of a command, within the total time."""
        conversation = converse()
        conversation.send(b"BDAT 100000\r\n")
        for _ in range(11):
            conversation.clock.advance(50)
            self.assertFalse(conversation.closed)
            conversation.send(b"x")
        conversation.clock.advance(50)
        self.assertIs(conversation.server.session.outcome, Outcome.TIMEOUT)

    def test_counted(self) -> None:
        """It counts for max_commands and not for max_errors."""
        conversation = converse(groups=(DialogueSettings(serverName="mx.test", maxErrors=1, maxCommands=3),))
        self.assertEqual(conversation.send(chunk(b"FOO\r\n") * 3), SEQUENCE * 3)
        self.assertFalse(conversation.closed)
        goodbye = b"421 4.7.0 Too many commands, closing connection\r\n"
        self.assertEqual(conversation.send(chunk(b"NOOP\r\n")), b"500 5.5.1 Invalid command\r\n" + goodbye)
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.COMMANDS)

    def test_errorBefore(self) -> None:
        """If an error before it ends the connection, nothing of it is obeyed."""
        conversation = converse(groups=(DialogueSettings(serverName="mx.test", maxErrors=1),))
        heard = conversation.send(b"FOO\r\n" + chunk(b"NOOP\r\n"))
        goodbye = b"421 4.7.0 Too many invalid commands, closing connection\r\n"
        self.assertEqual(heard, b"500 5.5.1 Invalid command\r\n" + goodbye)

    def test_repliesNotTaken(self) -> None:
        """The gateway does not read on from a client that does not read replies, in the middle either."""
        conversation = converse()
        conversation.send(b"BDAT 10\r\n123")
        conversation.server.pauseProducing()
        self.assertEqual(conversation.transport.producerState, "paused")
        self.assertEqual(conversation.send(b"4567890NOOP\r\n"), b"")
        conversation.server.resumeProducing()
        self.assertEqual(conversation.hear(), SEQUENCE + OK)

    def test_leaves(self) -> None:
        """A client that leaves in the middle leaves no timer."""
        conversation = converse()
        conversation.send(b"BDAT 10\r\n123")
        conversation.transport.lose()
        self.assertEqual(conversation.clock.getDelayedCalls(), [])
        self.assertIs(conversation.server.session.outcome, Outcome.CLIENT_LEFT)

    def test_dismissed(self) -> None:
        """If the gateway stops in the middle, the client gets a goodbye and nothing more is obeyed."""
        conversation = converse()
        conversation.send(b"BDAT 10\r\n123")
        conversation.dismiss()
        self.assertEqual(conversation.hear(), b"421 4.3.2 Gateway is shutting down, closing connection\r\n")
        self.assertEqual(conversation.send(b"4567890NOOP\r\n"), b"")


class MeanwhileTests(SynchronousTestCase):
    """A chunk that arrives while no command is obeyed."""

    def test_greetingDelay(self) -> None:
        """Before a delayed greeting it is early input like any other."""
        conversation = converse(delay=5)
        conversation.send(chunk(SMUGGLED))
        self.assertIs(conversation.server.session.outcome, Outcome.EARLY)

    def test_nameUnknown(self) -> None:
        """While the client's name is looked up it waits, complete or not, and is refused after the greeting."""
        for first in (b"BDAT", b"BDAT 10\r\n", b"BDAT 10\r\n12345", b"BDAT 10\r\n1234567890"):
            name: Deferred[str] = Deferred()

            class Names:
                longest = 60

                def nameOf(self, host: str) -> Deferred[str]:
                    return name  # noqa: B023

            conversation = Conversation(SMTP, SMTPSettings(auth=("none",)), reverseDNS=Names())
            whole = b"BDAT 10\r\n1234567890NOOP\r\n"
            self.assertEqual(conversation.send(first), b"")
            name.callback("client.example")
            self.assertEqual(conversation.hear() + conversation.send(whole[len(first) :]), GREETING + SEQUENCE + OK)

    def test_judgedAndRefused(self) -> None:
        """While a recipient is judged it waits, and is discarded after the refusal."""
        whole = chunk(SMUGGLED) + b"NOOP\r\n"
        for cut in range(len(whole) + 1):
            conversation = converse(answers=(None,))
            conversation.send(LETTER + whole[:cut])
            conversation.authenticator.pending[0].callback(REFUSED)
            heard = conversation.hear() + conversation.send(whole[cut:])
            self.assertEqual(heard, b"550 5.1.1 No such user\r\n" + SEQUENCE + OK)
            self.assertEqual(len(conversation.requests), 1)

    def test_judgedAndAccepted(self) -> None:
        """After an acceptance the whole chunk goes to the backend."""
        whole = chunk(SMUGGLED) + b"NOOP\r\n"
        for cut in range(0, len(whole) + 1, 5):
            backend = FakeClient(b"250 ok\r\n")
            conversation = converse(answers=(None,), backend=backend)
            conversation.send(LETTER + whole[:cut])
            conversation.authenticator.pending[0].callback(ROUTE)
            conversation.transport.protocol.dataReceived(whole[cut:])
            self.assertEqual(backend.transport.value(), whole)

    def test_readAhead(self) -> None:
        """While a recipient is judged, reading a large chunk pauses; afterwards it is read to its end."""
        conversation = converse(answers=(None,))
        conversation.send(LETTER + b"BDAT %d LAST\r\n" % (10 * READ_AHEAD))
        sent = 0
        while conversation.transport.producerState == "producing":
            conversation.server.dataReceived(b"QUIT\r\n" * 1000)
            sent += 6000
        self.assertLessEqual(len(conversation.server.buffer), READ_AHEAD + 6100)
        conversation.authenticator.pending[0].callback(REFUSED)
        self.assertEqual(conversation.transport.producerState, "producing")
        self.assertEqual(conversation.hear(), b"550 5.1.1 No such user\r\n")
        self.assertEqual(conversation.server.buffer, b"")
        self.assertEqual(conversation.send(b"x" * (10 * READ_AHEAD - sent) + b"NOOP\r\n"), SEQUENCE + OK)

    def test_challenge(self) -> None:
        """As an answer to a challenge the line is a response, and the bytes after it are commands, as in RFC 4954."""
        conversation = converse("plain")
        heard = conversation.says(b"AUTH PLAIN", b"BDAT 6 LAST", b"NOOP")
        self.assertTrue(heard.startswith(b"334 \r\n"), heard)
        self.assertTrue(heard.endswith(OK), heard)

    def test_startTLS(self) -> None:
        """Behind STARTTLS it is discarded with all other bytes in the clear."""
        whole = chunk(SMUGGLED)
        for cut in (4, 9, 20, len(whole)):
            conversation = converse(groups=(TLSSettings(starttls="on"),))
            self.assertEqual(conversation.send(b"STARTTLS\r\n" + whole[:cut]), b"220 2.0.0 Start TLS\r\n")
            conversation.transport.shakeHands()
            self.assertIs(conversation.server.session.phase, Phase.COMMAND)
            self.assertEqual(conversation.says(b"NOOP"), OK)

    def test_startTLSWithin(self) -> None:
        """STARTTLS in a chunk does not start TLS."""
        conversation = converse(groups=(TLSSettings(starttls="on"),))
        self.assertEqual(conversation.send(chunk(b"STARTTLS\r\n")), SEQUENCE)
        self.assertEqual(conversation.transport.tls, [])
