"""
Tests for L{mailgate.log.connection}: the order of the fields in all lines about connections.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailgate.log import connection as connectionlog
from mailgate.log.connection import about, aboutRequest, line, peerName, peerOf
from mailgate.log.journal import Journal
from mailgate.login import Backend, Client, Credentials, Denial, LoginRequest, Method, Route, Trouble
from mailgate.protocols import imap4, pop3, smtp
from mailgate.testing import Conversation, FakeAuthenticator, FakeClient, FakeConnector
from mailgate.testing.fakes import makeSession

FORMATS = {
    name: value
    for name, value in vars(connectionlog).items()
    if re.fullmatch("[A-Z][A-Z_]+", name) and isinstance(value, str)
}

HOSTILE = (
    b'x", server 1.2.3.4:143, session 0',
    b"x\\",
    b"client 203.0.113.5:1, denied",
    b"\r\n2026-11-28T10:13:03+0000 [info] 1: login failed: client 203.0.113.5:1, denied, ",
    "\u202ejoe".encode(),
    b"\xff" * 300,
    b"{client}",
)

LINE = re.compile(
    r"[A-Za-z ]+: client \S+, [^\"]*protocol (imap|pop3|smtp), [^\"]*server \S+, session [0-9a-v]{5}\.[0-9a-v]+"
    r'(, [a-z]+ "([^"\\]|\\.)*")*'
)
"""Any line about a connection: nothing is in quotes before the session, and nothing else behind it."""

LOGINS: dict[str, tuple[Any, Any]] = {
    "imap": (imap4.IMAP4, lambda user: [b"a AUTHENTICATE PLAIN", sasl(user)]),
    "pop3": (pop3.POP3, lambda user: [b"AUTH PLAIN", sasl(user)]),
    "smtp": (smtp.SMTP, lambda user: [b"AUTH PLAIN " + sasl(user)]),
}


def sasl(user: bytes) -> bytes:
    """A message of SASL PLAIN, in base64."""
    return base64.b64encode(b"\0" + user + b"\0sesame")


class FormatTests(SynchronousTestCase):
    """The formats of the lines."""

    def test_order(self) -> None:
        """Each line begins with its event and the client. The session comes before texts from the network."""
        self.assertGreater(len(FORMATS), 10)
        for name, format in FORMATS.items():
            self.assertRegex(format, r"\A[a-zA-Z ]+: client \{client\}, ", name)
            ours, session, theirs = format.partition(", server {server}, session {session}")
            self.assertTrue(session, name)
            self.assertNotIn('"', ours, name)
            self.assertRegex(theirs, r'\A(, [a-z]+ "\{[a-z]+\}"(\{[a-z]+\})?)?\Z', name)

    def test_line(self) -> None:
        """Parts that are empty leave no commas behind."""
        self.assertEqual(
            line("event", "words", "field {x}", 'user "{user}"'),
            "event: client {client}, words, protocol {protocol}, field {x}, server {server}, session {session}"
            ', user "{user}"',
        )
        self.assertEqual(
            line("event"), "event: client {client}, protocol {protocol}, server {server}, session {session}"
        )

    def test_peers(self) -> None:
        """A client is its address and port, with brackets around IPv6. A unix socket has no port."""
        for host, port, name in (
            ("192.0.2.7", 1, "192.0.2.7:1"),
            ("2001:db8::7", 40123, "[2001:db8::7]:40123"),
            ("unix:", 0, "unix:"),
        ):
            self.assertEqual(peerName(host, port), name)
            self.assertEqual(peerOf(name), (host, port))

    def test_fields(self) -> None:
        """A session and a request of the same connection have the same fields."""
        session = makeSession("imap", "0.0.0.0:143", "192.0.2.7:1", 0.0, id="5g0qa.7k")
        client = Client("192.0.2.7", 1, session="5g0qa.7k", server="0.0.0.0:143")
        request = LoginRequest("imap", Credentials(Method.PLAIN, b'j"oe', b"secret"), client)
        self.assertEqual(aboutRequest(request), {**about(session), "user": 'j\\"oe'})


class ConversationTests(SynchronousTestCase):
    """The lines that dialogues log."""

    def logOf(self, name: str, user: bytes, answer: Any, backend: Any = None, level: Any = LogLevel.info) -> list[str]:
        """Return the log of one login and of the end of its connection."""
        record, lines = LOGINS[name]
        connector = FakeConnector(backend or FakeClient(b"+OK\r\n"))
        conversation = Conversation(record, authenticator=FakeAuthenticator(answer), connector=connector, level=level)
        conversation.hear()
        if name == "smtp":
            conversation.says(b"EHLO x")
        conversation.says(*lines(user))
        conversation.transport.lose()
        return conversation.logged()

    def test_lines(self) -> None:
        """
        In each protocol, a line keeps its order and its session, and stays one line, whatever names and texts it has.
        """
        route = Route((Backend("10.0.0.1", 143),), b"joe", b"sesame")
        for name in LOGINS:
            for text in HOSTILE:
                for answer in (Denial(Trouble.DENIED, text), Denial(Trouble.TEMPORARY), route, RuntimeError("boom")):
                    logged = self.logOf(name, text, answer, level=LogLevel.debug)
                    self.assertGreaterEqual(len(logged), 2)
                    for each in logged:
                        self.assertTrue(LINE.fullmatch(each), each)
                        self.assertTrue(each.isprintable(), each)
                        self.assertNotIn("sesame", each)
                        self.assertIn("session 00007.00", each)

    def test_one(self) -> None:
        """A refused login is one line, and so is a successful one. Neither has the password."""
        for name in LOGINS:
            refused = self.logOf(name, b"joe", Denial(Trouble.DENIED, b"no", reason="wrong password"))
            self.assertEqual(
                refused[0],
                f"login failed: client 192.0.2.7:40123, denied, protocol {name}, method plain, reason wrong password,"
                ' server 127.0.0.1:143, session 00007.00, user "joe", text "no"',
            )
            passing = self.logOf(name, b"joe", Denial(Trouble.DENIED, b"later", b"451 4.3.0"))
            self.assertTrue(passing[0].startswith("login failed: client 192.0.2.7:40123, temporary, protocol"), passing)
            accepted = self.logOf(name, b"joe", Route((Backend("10.0.0.1", 143),), b"joe", b"sesame"))
            self.assertEqual([each.partition(":")[0] for each in accepted], ["logged in"])

    def test_debug(self) -> None:
        """At debug, the steps before the login are lines as well."""
        route = Route((Backend("10.0.0.1", 143), Backend("10.0.0.2", 143)), b"joe", b"sesame")
        logged = self.logOf("imap", b"joe", route, level=LogLevel.debug)
        self.assertEqual(
            [each.partition(":")[0] for each in logged],
            [
                *("connection begun", "command received", "SASL exchange begun", "SASL challenge sent"),
                *("SASL response received", "login begun", "login accepted", "logged in", "relay begun"),
                "relay side closed",
            ],
        )
        self.assertEqual(
            [logged[0], logged[6]],
            [
                "connection begun: client 192.0.2.7:40123, protocol imap, server 127.0.0.1:143, session 00007.00",
                "login accepted: client 192.0.2.7:40123, protocol imap, method plain, attempt 1,"
                " backends 10.0.0.1:143 10.0.0.2:143, server 127.0.0.1:143, session 00007.00"
                ', user "joe"',
            ],
        )

    def test_handshake(self) -> None:
        """At debug, a TLS handshake is a line."""
        conversation = Conversation(imap4.IMAP4, ssl=True, level=LogLevel.debug)
        conversation.transport.shakeHands()
        self.assertEqual(
            conversation.logged()[1:],
            [
                "TLS established: client 192.0.2.7:40123, protocol imap, tls TLSv1.3 TLS_AES_256_GCM_SHA384,"
                ' resumed no, server 127.0.0.1:143, session 00007.00, name ""'
            ],
        )

    def test_unwanted(self) -> None:
        """Below info, times are not measured, and no line is built."""
        record, lines = LOGINS["imap"]
        conversation = Conversation(record, level=LogLevel.warn)
        conversation.says(*lines(b"joe"))
        self.assertIsNone(conversation.factory.phaseClock)
        self.assertEqual(conversation.logged(), [])

    def test_defects(self) -> None:
        """The line about a defect names the connection and has a traceback."""
        events: list[Any] = []
        journal = Journal(observer=events.append)  # type: ignore[arg-type]
        session = makeSession("imap", "0.0.0.0:143", "192.0.2.7:1", 0.0, id="5g0qa.7k")
        try:
            raise RuntimeError("boom")
        except RuntimeError:
            connectionlog.defect(journal, session, "the login failed")
        self.assertEqual(
            formatEvent(events[0]),
            "internal error: client 192.0.2.7:1, the login failed, protocol imap, server 0.0.0.0:143, session 5g0qa.7k",
        )
        self.assertIsInstance(events[0]["log_failure"].value, RuntimeError)
