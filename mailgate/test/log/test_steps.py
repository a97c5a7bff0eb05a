"""
Tests for the lines at level debug about each phase of a connection.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed

from mailgate.backend.settings import ProxySettings
from mailgate.config import parse
from mailgate.frontend.debugging import DebugSettings
from mailgate.frontend.factory import Means, ProxyServerFactory
from mailgate.frontend.realip import RealIPSettings, Senders
from mailgate.log.levels import DEBUGGED
from mailgate.login import Denial, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.session import FollowedSession, Session
from mailgate.test.support.httpauthenticator import ACCEPTED
from mailgate.test.support.wholelogin import WholeLogin
from mailgate.testing import Conversation, FakeAuthenticator
from mailgate.testing.fakes import makeSession
from mailgate.tls.settings import TLSSettings

ABOUT = ", server 127.0.0.1:143, session 00007.00"
GREETING = b"* OK [CAPABILITY IMAP4rev1 ID] ready\r\n"

GROUP = """
[upstream store]
server =
    192.0.2.1:143 max_fails=1
    192.0.2.2:143
    192.0.2.3:143 down
[server x]
protocol = imap
listen = 127.0.0.1:143
proxy_pass = store
"""

HEADER = b"PROXY TCP4 203.0.113.5 192.0.2.1 4711 993\r\n"


def replies(line: bytes) -> bytes:
    """What an IMAP server says to each command."""
    tag, _, rest = line.partition(b" ")
    return (b"* ID NIL\r\n" if rest.startswith(b"ID") else b"") + tag + b" OK done\r\n"


def words(line: str) -> str:
    """Return what a line has between client and server."""
    return line.partition(": client ")[2].partition(", ")[2].partition(", server ")[0]


class LoginTests(SynchronousTestCase):
    """A login, from the connection to its end."""

    def loggedIn(self, **more: Any) -> WholeLogin:
        run = WholeLogin(IMAP4, **more)
        run.says(b"a LOGIN joe sesame")
        run.answer()
        run.serve(GREETING, replies)
        return run

    def test_order(self) -> None:
        """Each phase has its line."""
        run = self.loggedIn()
        self.assertEqual(
            run.steps,
            [
                *("connection begun", "command received", "login begun", "auth service asked", "auth service answered"),
                *("login accepted", "backend chosen", "backend connected", "backend login begun", "client introduced"),
                *("backend login accepted", "logged in", "relay begun"),
            ],
        )

    def test_service(self) -> None:
        """The question and the answer of the service have their headers and the time."""
        run = WholeLogin(IMAP4, http={"headers": ((b"X-Auth-Key", b"hush"),)})
        run.says(b'a LOGIN joe "sesame"')
        run.reactor.advance(0.25)
        run.answer(*ACCEPTED, "Auth-Pass: master")
        self.assertEqual(
            run.line("auth service asked"),
            "auth service asked: client 192.0.2.7:40123, auth http server http://one:9000/auth, protocol imap"
            f'{ABOUT}, headers "Auth-Method: plain, Auth-User: ***, Auth-Pass: ***, Auth-Protocol: imap,'
            ' Auth-Login-Attempt: 1, Client-IP: 192.0.2.7, X-Auth-Key: ***"',
        )
        self.assertEqual(
            run.line("auth service answered"),
            "auth service answered: client 192.0.2.7:40123, auth http server http://one:9000/auth accepts the login,"
            f' protocol imap, seconds 0.250{ABOUT}, headers "auth-status: OK, auth-server: 10.0.0.1, auth-port: 143,'
            ' auth-pass: ***"',
        )

    def test_verdicts(self) -> None:
        """A refusal and a request to wait are named, and so is a failure."""
        run = WholeLogin(IMAP4)
        run.says(b"a LOGIN joe sesame")
        run.answer("Auth-Status: WAIT", "Auth-Wait: 2")
        self.assertIn("is to be asked again in 2 s", run.line("auth service answered"))
        run = WholeLogin(IMAP4)
        run.says(b"a LOGIN joe sesame")
        run.answer("Auth-Status: no", "Auth-Wait: 3")
        self.assertIn("refuses the login", run.line("auth service answered"))
        run = WholeLogin(IMAP4)
        run.says(b"a LOGIN joe sesame")
        run.reactor.advance(1)
        run.agent.fail(ResponseFailed([]))
        self.assertEqual(
            words(run.line("auth service not used")),
            "auth http server http://one:9000/auth failed [], protocol imap, seconds 1.000",
        )

    def test_cache(self) -> None:
        """The cache says what it has found."""
        run = self.loggedIn(cached=True)
        self.assertEqual(words(run.line("auth cache")), "miss, protocol imap")
        other = WholeLogin(IMAP4, cached=True)
        other.conversation.factory.answer = run.conversation.factory.answer
        other.says(b"a LOGIN joe sesame")
        self.assertEqual(words(other.line("auth cache")), "hit, protocol imap")
        self.assertNotIn("auth service asked", other.steps)

    def test_backend(self) -> None:
        """The lines about the backend."""
        run = self.loggedIn()
        for step, expected in (
            ("backend chosen", "backend 10.0.0.1:143, protocol imap, route names no other"),
            ("backend connected", "backend 10.0.0.1:143, protocol imap, address 10.0.0.1:143, seconds 0.000"),
            ("backend login begun", "backend 10.0.0.1:143, protocol imap, method auto"),
            ("client introduced", "backend 10.0.0.1:143 is sent ID, protocol imap"),
            ("backend login accepted", "backend 10.0.0.1:143, protocol imap, seconds 0.000"),
            ("relay begun", "backend 10.0.0.1:143, protocol imap, early 0"),
        ):
            self.assertEqual(words(run.line(step)), expected)

    def test_group(self) -> None:
        """The choice in a group names the method, the sessions and the servers that were not eligible."""
        run = WholeLogin(IMAP4, group=GROUP)
        run.says(b"a LOGIN joe sesame")
        run.answer("Auth-Status: OK", "Auth-Upstream: store")
        run.refuse()
        run.serve(GREETING, replies)
        first, second = (words(line) for line in run.lines if line.startswith("backend chosen: "))
        self.assertEqual(
            first,
            "backend 192.0.2.1:143, protocol imap, upstream store, method round robin, sessions 1,"
            " not used 192.0.2.3:143 down",
        )
        self.assertEqual(
            second,
            "backend 192.0.2.2:143, protocol imap, upstream store, method round robin, sessions 1,"
            " not used 192.0.2.1:143 resting, 192.0.2.3:143 down",
        )
        self.assertEqual(
            words(run.line("backend attempt failed")),
            "backend 192.0.2.1:143 refused the connection, in phase connect, protocol imap, seconds 0.000",
        )

    def test_xclient(self) -> None:
        """In SMTP the client is introduced by XCLIENT."""

        def says(line: bytes) -> bytes:
            return b"250-mx\r\n250 XCLIENT ADDR LOGIN\r\n" if line.startswith(b"EHLO") else b"220 ok\r\n"

        run = WholeLogin(SMTP, SMTPSettings())
        run.says(b"EHLO laptop", b"AUTH PLAIN AGpvZQBzZXNhbWU=")
        run.answer()
        run.serve(b"220 ready\r\n", says)
        self.assertIn("is sent XCLIENT", run.line("client introduced"))

    def test_proxyHeader(self) -> None:
        """A PROXY header to the backend is named with its version."""
        for version in ("on", "v2"):
            run = WholeLogin(IMAP4, ProxySettings(proxyProtocol=version))
            run.says(b"a LOGIN joe sesame")
            run.answer()
            run.accept()
            self.assertIn(f"is sent a PROXY header, {version}", run.line("client introduced"))


class DialogueTests(SynchronousTestCase):
    """What a client sends before the login."""

    def commands(self, conversation: Conversation) -> list[str]:
        found = [re.search(r'command "(.*)"$', line) for line in conversation.logged()]
        return [match[1] for match in found if match]

    def test_imap(self) -> None:
        """Words are shown, tags and arguments are not."""
        conversation = Conversation(IMAP4, level=LogLevel.debug)
        conversation.says(b"a NOOP", b"b capability", b'c ID ("name" "x")', b"d SELECT INBOX", b"e WHAT", b"f", b"g\0h")
        self.assertEqual(
            self.commands(conversation), ["NOOP", "CAPABILITY", "ID ***", "SELECT ***", "***", "***", "***"]
        )

    def test_literals(self) -> None:
        """What follows a literal is hidden."""
        conversation = Conversation(IMAP4, level=LogLevel.debug)
        conversation.says(b"a LOGIN {3+}", b"joe {6+}", b"sesame")
        self.assertEqual(self.commands(conversation), ["LOGIN ***", "***", "***"])
        self.assertEqual([line.partition(":")[0] for line in conversation.logged()].count("literal received"), 2)

    def test_pop3(self) -> None:
        """The user is not shown, as the line about the login has it."""
        conversation = Conversation(POP3, level=LogLevel.debug)
        conversation.says(b"CAPA", b"USER joe", b"PASS sesame")
        self.assertEqual(self.commands(conversation), ["CAPA", "USER ***", "PASS ***"])
        (line,) = [line for line in conversation.logged() if line.startswith("login begun: ")]
        self.assertTrue(line.endswith(', method plain, attempt 1, server 127.0.0.1:143, session 00007.00, user "joe"'))

    def test_smtp(self) -> None:
        """Host names and addresses of mail are shown."""
        conversation = Conversation(SMTP, SMTPSettings(auth=("none",)), level=LogLevel.debug)
        conversation.says(
            b"EHLO [192.0.2.7]", b"HELO <joe>", b"MAIL FROM:<a@b.c> AUTH=x", b"RCPT TO:<d@e.f>", b"NOOP x", b"BDAT x"
        )
        self.assertEqual(
            self.commands(conversation)[:4],
            ["EHLO [192.0.2.7]", "HELO ***", "MAIL FROM:<a@b.c> ***", "RCPT TO:<d@e.f>"],
        )

    def test_exchange(self) -> None:
        """The lines of a SASL exchange name its mechanism."""
        conversation = Conversation(IMAP4, IMAP4Settings(auth=("login",)), level=LogLevel.debug)
        conversation.says(b"a AUTHENTICATE login", b"am9l", b"c2VzYW1l")
        lines = conversation.logged()
        self.assertEqual(
            [line.partition(":")[0] for line in lines][1:8],
            [
                *("command received", "SASL exchange begun", "SASL challenge sent", "SASL response received"),
                *("SASL challenge sent", "SASL response received", "login begun"),
            ],
        )
        self.assertEqual(self.commands(conversation), ["AUTHENTICATE LOGIN"])
        self.assertEqual(words(lines[2]), "mechanism LOGIN, protocol imap, initial response no")
        for line in lines[3:7]:
            self.assertEqual(words(line), "mechanism LOGIN, protocol imap")

    def test_mechanisms(self) -> None:
        """A mechanism that is not offered is named if it is one."""
        conversation = Conversation(IMAP4, level=LogLevel.debug)
        conversation.says(b"a AUTHENTICATE CRAM-MD5", b"b AUTHENTICATE sesame")
        refused = [words(line) for line in conversation.logged() if line.startswith("SASL mechanism refused: ")]
        self.assertEqual(
            refused,
            ["mechanism CRAM-MD5 is not offered, protocol imap", "mechanism *** is not offered, protocol imap"],
        )

    def test_tls(self) -> None:
        """The line about a handshake has the name that the client asked for, in quotes."""
        conversation = Conversation(IMAP4, TLSSettings(starttls="on"), level=LogLevel.debug)
        conversation.says(b"a STARTTLS")
        handle = conversation.transport.getHandle()
        handle.get_servername = lambda: b'imap.test", session 1'
        conversation.transport.getHandle = lambda: handle  # type: ignore[method-assign]
        conversation.transport.shakeHands()
        (line,) = [line for line in conversation.logged() if line.startswith("TLS established: ")]
        self.assertTrue(
            line.endswith(f', tls TLSv1.3 TLS_AES_256_GCM_SHA384, resumed no{ABOUT}, name "imap.test\\", session 1"'),
            line,
        )

    def test_header(self) -> None:
        """The line about a PROXY header has its sender and its addresses."""
        conversation = Conversation(IMAP4, level=LogLevel.debug, proxyProtocol=True)
        conversation.send(HEADER)
        self.assertEqual(
            conversation.logged()[1],
            "PROXY header read: client 192.0.2.7:40123, it came from 192.0.2.7:40123, protocol imap, source"
            f" 203.0.113.5:4711, destination 192.0.2.1:993{ABOUT}",
        )
        conversation = Conversation(IMAP4, level=LogLevel.debug, proxyProtocol=True)
        conversation.send(b"PROXY UNKNOWN\r\n")
        self.assertIn("source -, destination -", conversation.logged()[1])


class ChosenTests(SynchronousTestCase):
    """debug_connection and debug_user."""

    def begin(self, text: str, level: Any = LogLevel.error, **more: Any) -> Conversation:
        more.setdefault("authenticator", FakeAuthenticator(Denial(Trouble.DENIED)))
        settings = parse(
            f"[mailgate]\n{text}\n[server x]\nprotocol=imap\nlisten=127.0.0.1:143\nproxy_pass=127.0.0.1:1\n"
        )
        return Conversation(IMAP4, level=level, debugged=settings[DebugSettings].debugged, **more)

    def login(self, conversation: Conversation, user: bytes = b"joe") -> list[str]:
        conversation.says(b"a LOGIN " + user + b" sesame")
        conversation.transport.lose()
        return [line.partition(":")[0] for line in conversation.logged()]

    def test_connection(self) -> None:
        """A listed client is logged from its first line to its last, whatever the level."""
        for listed in ("192.0.2.7", "10.0.0.0/8 192.0.2.0/24", "localhost 192.0.2.7"):
            conversation = self.begin(f"debug_connection = {listed}")
            steps = self.login(conversation)
            self.assertEqual(steps[:3], ["connection begun", "command received", "login begun"])
            self.assertEqual(steps[-1], "connection ended")
            self.assertTrue(all(event[DEBUGGED] for event in conversation.events))
            self.assertIn("times proxy=", conversation.logged()[-1])

    def test_others(self) -> None:
        """Others are logged at the level of error_log."""
        conversation = self.begin("debug_connection = 192.0.2.8 unix: 2001:db8::/32")
        self.assertEqual(self.login(conversation), [])
        conversation = self.begin("debug_connection = 192.0.2.8", LogLevel.info)
        self.assertEqual(self.login(conversation), ["login failed", "connection ended"])
        conversation = self.begin("debug_connection = 192.0.2.8", LogLevel.debug)
        self.assertIn("login begun", self.login(conversation))

    def test_unix(self) -> None:
        """unix: is for clients of unix sockets."""
        for listed, steps in (("unix:", ["connection begun"]), ("192.0.2.7", [])):
            conversation = self.begin(f"debug_connection = {listed}", peer=UNIXAddress("/x"))
            self.assertEqual([line.partition(":")[0] for line in conversation.logged()], steps)

    def test_header(self) -> None:
        """After a PROXY header the client's own address counts, not that of the load balancer."""
        trusted = RealIPSettings(Senders((), True))
        for listed, isLogged in (("203.0.113.5", True), ("unix:", False)):
            conversation = self.begin(f"debug_connection = {listed}", peer=UNIXAddress("/x"), proxyProtocol=True)
            conversation.factory._senders = trusted.senders
            conversation.server._senders = trusted.senders
            conversation.events.clear()
            conversation.send(HEADER)
            conversation.says(b"a NOOP")
            self.assertEqual(bool(conversation.logged()), isLogged, listed)

    def test_user(self) -> None:
        """Masks match user names in any case, from the login on."""
        for masks, user, isLogged in (
            ("joe", b"joe", True),
            ("JOE@*", b"joe@example.org", True),
            ("ann *@EXAMPLE.org", b"Joe@example.org", True),
            ("joe", b"joey", False),
            ("[jk]oe?", b"koe1", True),
            ("j\u00f6e", "J\u00d6E".encode(), True),
            ("*", b"\xff", True),
        ):
            conversation = self.begin(f"debug_user = {masks}")
            steps = self.login(conversation, b'"' + user + b'"')
            expected = ["login begun", "login failed", "connection ended"]
            self.assertEqual(steps, expected if isLogged else [], (masks, user))

    def test_routeUser(self) -> None:
        """The name by which the authenticator knows the user counts, too."""
        conversation = self.begin("debug_user = joe", authenticator=FakeAuthenticator())
        self.assertEqual(self.login(conversation, b"j.doe")[0], "login accepted")

    def test_refused(self) -> None:
        """The connection stays debugged after a refused login."""
        refusing = FakeAuthenticator(Denial(Trouble.DENIED), Denial(Trouble.DENIED))
        conversation = self.begin("debug_user = joe", authenticator=refusing)
        conversation.says(b"a LOGIN ann sesame")
        self.assertEqual(conversation.logged(), [])
        conversation.says(b"b LOGIN joe sesame", b"c NOOP")
        steps = [formatEvent(event).partition(":")[0] for event in conversation.events]
        self.assertEqual(steps, ["login begun", "login failed", "command received"])

    def test_service(self) -> None:
        """Authenticator and connector follow the choice."""
        for text, isLogged in (("debug_user = joe", True), ("debug_user = ann", False)):
            settings = parse(
                f"[mailgate]\n{text}\n[server x]\nprotocol=imap\nlisten=127.0.0.1:143\nproxy_pass=127.0.0.1:1\n"
            )
            run = WholeLogin(IMAP4, level=LogLevel.error, debugged=settings[DebugSettings].debugged)
            run.says(b"a LOGIN joe sesame")
            run.answer()
            run.serve(GREETING, replies)
            for step in ("auth service asked", "auth service answered", "backend chosen", "backend connected"):
                self.assertEqual(step in run.steps, isLogged, step)

    def test_off(self) -> None:
        """Without both, sessions are of the smallest class and cannot be debugged."""
        before = Conversation(IMAP4)
        factory = before.factory
        means = Means(before.authenticator, before.connector, before.clock, factory.journal)
        plain = ProxyServerFactory(IMAP4, before.settings, factory.address, means)
        self.assertIs(plain.makeSession, Session)
        self.assertIsNone(makeSession("imap", "x", "y", 0.0).debugging)
        self.assertFalse(hasattr(makeSession("imap", "x", "y", 0.0), "__dict__"))
        more = Means(before.authenticator, before.connector, before.clock, factory.journal, isTraced=True)
        self.assertIs(ProxyServerFactory(IMAP4, before.settings, factory.address, more).makeSession, FollowedSession)


class TraceTests(SynchronousTestCase):
    """auth_http_traceparent."""

    TRACE = "0" * 31 + "7"

    def test_lines(self) -> None:
        """All lines about a connection have its trace id, at debug and at info."""
        for level in (LogLevel.debug, LogLevel.info):
            run = WholeLogin(IMAP4, level=level, http={"traceparent": True}, isTraced=True)
            run.says(b"a LOGIN joe sesame")
            run.answer()
            run.serve(GREETING, replies)
            self.assertIn("logged in", run.steps)
            for line in run.lines:
                self.assertIn(f", session 00007.00, trace {self.TRACE}", line)
            self.assertIn(f"\r\ntraceparent: 00-{self.TRACE}-".encode(), run.agent.asked[0][2])

    def test_shown(self) -> None:
        """The question's line shows the header."""
        run = WholeLogin(IMAP4, http={"traceparent": True}, isTraced=True)
        run.says(b"a LOGIN joe sesame")
        self.assertIn(f", traceparent: 00-{self.TRACE}-", run.line("auth service asked"))

    def test_header(self) -> None:
        """A connection keeps its trace id after a PROXY header."""
        numbers = iter(range(1, 100))
        conversation = Conversation(IMAP4, level=LogLevel.debug, proxyProtocol=True, isTraced=True)
        conversation.factory.randomness = lambda n: next(numbers).to_bytes(n, "big")
        first = conversation.server.session.trace
        conversation.send(HEADER)
        self.assertEqual(conversation.server.session.trace, first)
        self.assertEqual(len(first), 32)

    def test_off(self) -> None:
        """Without it, connections have none, and logins neither."""
        conversation = Conversation(IMAP4, level=LogLevel.debug)
        conversation.says(b"a LOGIN joe sesame")
        self.assertEqual([request.trace for request in conversation.requests], [""])
        self.assertFalse([line for line in conversation.logged() if "trace" in line])
