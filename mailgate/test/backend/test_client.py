"""
Tests for L{mailgate.backend.client}.
"""

from __future__ import annotations

import base64
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
)
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHostnameResolver, IHostResolution
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailgate.backend.caller import Caller
from mailgate.backend.client import ProxyClient
from mailgate.backend.credentials import PasswordLogin
from mailgate.backend.errors import BackendError, LoginRefused, replyCode
from mailgate.backend.place import Place
from mailgate.backend.settings import ProxySettings
from mailgate.login import Backend, Denial, Trouble
from mailgate.net.endpoints import beginning
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.testing import Attempt, FakeTransport, requestFor, resultOf, routeTo, settingsOf

FIRST = Backend("192.0.2.99", 110)
SECOND = Backend("192.0.2.100", 110)
GREETING = b"+OK ready\r\n"
OK = b"+OK\r\n"
LOGGED_IN = b"+OK 3 messages\r\n"


def loggedIn(*groups: Any, **changes: Any) -> Attempt:
    """A POP3 attempt that lacks only the reply to PASS."""
    attempt = Attempt(POP3, *groups, **changes)
    attempt.accept()
    attempt.says(GREETING, OK)
    return attempt


@implementer(IHostResolution)
class FakeResolution:
    """A running look-up."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        pass


@implementer(IHostnameResolver)
class SlowResolver:
    """A resolver that answers when the test says so."""

    def __init__(self) -> None:
        self.receivers: list[Any] = []

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolution = FakeResolution(hostName)
        self.receivers.append(resolutionReceiver)
        resolutionReceiver.resolutionBegan(resolution)
        return resolution

    def answer(self, *addresses: str) -> None:
        """Answer the last look-up with C{addresses}."""
        receiver = self.receivers[-1]
        for address in addresses:
            receiver.addressResolved(IPv4Address("TCP", address, 110))
        receiver.resolutionComplete()


class ProxyClientTests(SynchronousTestCase):
    """The base class of L{ProxyClient}s: replies, limits, the end of the login."""

    def client(self, *groups: Any) -> ProxyClient:
        begin = beginning(TCP4ClientEndpoint(Clock(), "192.0.2.99", 110))
        client = ProxyClient(Caller(settingsOf("pop3", *groups), "mx.test"), Place(str(FIRST), FIRST, begin, None))
        FakeTransport().connect(client)
        return client

    def read(self, client: ProxyClient) -> Deferred[bytes]:
        return resultOf(client.line())

    def test_line(self) -> None:
        """A line is returned once it is complete, with its end; the next one at the next call."""
        client = self.client()
        line = self.read(client)
        client.dataReceived(b"+OK on")
        self.assertNoResult(line)
        client.dataReceived(b"e\r\n+OK two\n+OK")
        self.assertEqual(self.successResultOf(line), b"+OK one\r\n")
        self.assertEqual(self.successResultOf(self.read(client)), b"+OK two\n")
        self.assertNoResult(self.read(client))

    def test_longestLine(self) -> None:
        """A line that just fits into proxy_buffer is accepted."""
        client = self.client(ProxySettings(buffer=8))
        line = self.read(client)
        client.dataReceived(b"12345\r\n")
        self.assertEqual(self.successResultOf(line), b"12345\r\n")

    def test_tooLongLine(self) -> None:
        """A longer line is an error, with or without its end."""
        for data in (b"12345678", b"1234567\r\n", b"1" * 5000 + b"\r\n"):
            client = self.client(ProxySettings(buffer=8))
            line = self.read(client)
            client.dataReceived(data)
            failure = self.failureResultOf(line, BackendError)
            self.assertEqual(str(failure.value), "sent a reply longer than proxy_buffer")

    def test_linesBeforeTheEnd(self) -> None:
        """Lines that arrived before the close are still read; then every call raises the error."""
        client = self.client()
        client.dataReceived(b"+OK one\r\n+OK tw")
        client.transport.lose(ConnectionLost())
        self.assertEqual(self.successResultOf(self.read(client)), b"+OK one\r\n")
        for _ in range(2):
            failure = self.failureResultOf(self.read(client), BackendError)
            self.assertEqual(str(failure.value), "dropped the connection")

    def test_endOfFile(self) -> None:
        """If a backend closes its side before the login is done, the connection is closed."""
        client = self.client()
        line = self.read(client)
        client.readConnectionLost()
        self.assertEqual(str(self.failureResultOf(line, BackendError).value), "closed the connection")
        self.assertTrue(client.transport.disconnecting)

    def test_firstLossCounts(self) -> None:
        """The first error counts: the loss of the connection after its end of file does not replace it."""
        client = self.client()
        client.readConnectionLost()
        client.transport.lose()
        failure = self.failureResultOf(self.read(client), BackendError)
        self.assertEqual(str(failure.value), "closed the connection")

    def test_ownDialogue(self) -> None:
        """The base class has no protocol."""
        for step in ("greeted", "requestTLS", "introduced", "probed", "farewell"):
            self.failureResultOf(resultOf(getattr(self.client(), step)()), NotImplementedError)
        login = self.client().login(PasswordLogin(b"joe", b"sesame"), requestFor("pop3"))
        self.failureResultOf(resultOf(login), NotImplementedError)

    def test_refusalIsEscaped(self) -> None:
        """A refusal has the backend's code in its message and keeps the whole reply."""
        error = LoginRefused(b"-ERR [AUTH] a\x1b[2J\r\n", Denial(Trouble.DENIED))
        self.assertEqual(str(error), "refused the login with -ERR [AUTH]")
        self.assertEqual(error.reply, b"-ERR [AUTH] a\x1b[2J\r\n")

    def test_outOfTurn(self) -> None:
        """A backend that replies to commands before it gets them is given up."""
        for record, early in (
            (POP3, b"+OK hi\r\n+OK\r\n+OK welcome\r\n"),
            (IMAP4, b"* OK hi\r\na OK spoofed\r\n"),
            (SMTP, b"220 hi\r\n250 ok\r\n235 in\r\n"),
        ):
            attempt = Attempt(record)
            attempt.accept()
            self.assertEqual(attempt.says(early), b"")
            self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
            self.assertIn("replied before it received a command", attempt.log[0])

    def test_untaggedAhead(self) -> None:
        """An IMAP backend may send untagged responses at any time."""
        attempt = Attempt(IMAP4)
        attempt.accept()
        self.assertIn(b"LOGIN", attempt.says(b"* OK hi\r\n* CAPABILITY IMAP4rev1\r\n"))

    def test_loginInTheMiddle(self) -> None:
        """At the hand-over, bytes behind the reply are kept for the relay."""
        attempt = loggedIn()
        attempt.says(LOGGED_IN + b"+OK what nobody asked")
        client = self.successResultOf(attempt.result)
        self.assertEqual((client.reply, client.leftOver), (LOGGED_IN, b""))
        self.assertEqual(attempt.transport.producerState, "producing")
        client.detach()
        self.assertEqual(client.leftOver, b"+OK what nobody asked")
        self.assertFalse(attempt.transport.disconnecting)


class LogTests(SynchronousTestCase):
    """The log never has a password: of a backend's reply it has only the code."""

    def test_echo(self) -> None:
        """If a backend repeats the command, in whatever form, the log does not."""
        encoded = base64.b64encode(b"\0joe\0sesame")
        echoes = (b"PASS sesame", b"SESAME", b"sesa...", b"736573616d65", encoded, b"[sesame]", b'LOGIN "joe" "sesame"')
        for echo in echoes:
            attempt = loggedIn(route=routeTo(password=b"sesame"))
            attempt.says(b"-ERR " + echo + b"\r\n")
            self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
            self.assertIn("refused the login with -ERR,", attempt.log[0])

    def test_code(self) -> None:
        """The codes of all three protocols are logged; of several lines the last one counts."""
        for reply, code in (
            (b"* CAPABILITY x\r\na NO [UNAVAILABLE] sesame\r\n", "NO [UNAVAILABLE]"),
            (b"a BAD sesame\r\n", "BAD"),
            (b"* BYE\r\n", "BYE"),
            (b"-ERR [SYS/TEMP] sesame\r\n", "-ERR [SYS/TEMP]"),
            (b"+OKsesame\r\n", "an invalid reply"),
            (b"535-5.7.8 sesame\r\n535 5.7.8 sesame\r\n", "535 5.7.8"),
            (b"454 sesame\r\n", "454"),
            (b"a NOsesame\r\n", "an invalid reply"),
            (b"sesame\r\n", "an invalid reply"),
            (b"", "an invalid reply"),
        ):
            self.assertEqual(replyCode(reply), code)

    def test_shortPassword(self) -> None:
        """A password of blanks does not make the log unreadable."""
        attempt = loggedIn(route=routeTo(password=b" "))
        attempt.says(b"-ERR no such user\r\n")
        self.assertIn("refused", attempt.log[0])

    def test_controlCharacters(self) -> None:
        """Control characters from a backend or in a user name are escaped."""
        attempt = loggedIn(route=routeTo(user=b"joe\x1b[2J\x85"))
        attempt.says(b"-ERR \x1b[2J\x00 \rfake\r\n")
        self.assertTrue(attempt.log[0].isprintable())
