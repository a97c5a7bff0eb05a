"""
A new protocol is one file and one line in the registry. The example is the ManageSieve dialogue of
L{mailgate.test.frontend.scratchprotocol}, whose SASL uses strings and literals instead of lines.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Credentials, Denial, Method, Refusal, Trouble
from mailgate.session import Outcome, Phase
from mailgate.test.frontend.scratchprotocol import SIEVE, SieveSettings
from mailgate.testing import Conversation, FakeAuthenticator, FakeClient, FakeConnector, hearEverything
from mailgate.tls.settings import TLSSettings

PLAIN = b"AGpvZQBzZXNhbWU="
CREDENTIALS = Credentials(Method.PLAIN, b"joe", b"sesame")
DENIED = b'NO "Authentication failed"\r\n'
LIST = b'"IMPLEMENTATION" "mailgate"\r\n"SASL" "%b"\r\n"SIEVE" "fileinto vacation"\r\n%b"VERSION" "1.0"\r\n'
LOGINS: tuple[tuple[bytes, ...], ...] = (
    (b'AUTHENTICATE "PLAIN" "' + PLAIN + b'"\r\n',),
    (b'authenticate "plain" {16+}\r\n' + PLAIN + b"\r\n",),
    (b'AUTHENTICATE {5+}\r\nPLAIN "' + PLAIN + b'"\r\n',),
    (b'AUTHENTICATE "PLAIN"\r\n', b'"' + PLAIN + b'"\r\n'),
    (b'AUTHENTICATE "PLAIN"\r\n', b"{16+}\r\n" + PLAIN + b"\r\n"),
)
"""Each way to send the same login."""

REGISTERED = """
import importlib.util, re, sys
spec = importlib.util.find_spec("mailgate.registry")
with open(spec.origin, encoding="utf-8") as opened:
    source = opened.read()
source, count = re.subn(r"(for protocol in [(]IMAP4, [A-Z0-9, ]+)", r"\\1, SCRATCH", source)
assert count == 1
registry = sys.modules["mailgate.registry"] = importlib.util.module_from_spec(spec)
from mailgate.test.frontend.scratchprotocol import SIEVE
registry.SCRATCH = SIEVE
exec(compile(source, spec.origin, "exec"), registry.__dict__)
"""
"""The beginning of a program whose registry has one more protocol."""


def converse(*groups: Any, **settings: Any) -> Conversation:
    """A conversation past its greeting."""
    conversation = Conversation(SIEVE, *groups, **settings)
    conversation.hear()
    return conversation


class DialogueTests(SynchronousTestCase):
    """The dialogue, over fakes."""

    def test_greeting(self) -> None:
        """The greeting is a list of capabilities in one segment."""
        heard = Conversation(SIEVE).hear()
        self.assertEqual(heard, LIST % (b"PLAIN", b"") + b'OK "ManageSieve ready"\r\n')

    def test_capabilities(self) -> None:
        """Configured capabilities are left out if the gateway does not support or announces them itself."""
        configured = ("SIEVE fileinto vacation", "sasl GSSAPI", "UNAUTHENTICATE", "VERSION 2.0", "sieve reject")
        conversation = converse(SieveSettings(capabilities=configured))
        heard = conversation.says(b"capability")
        self.assertIn(b'"SASL" "PLAIN"\r\n"SIEVE" "fileinto vacation"\r\n"sieve" "reject"\r\n"VERSION" "1.0"', heard)

    def test_accepted(self) -> None:
        """A login is judged however its strings arrive, and the backend's reply ends the dialogue."""
        for pieces in LOGINS:
            connector = FakeConnector(FakeClient(b'OK "Logged in."\r\n'))
            conversation = converse(connector=connector)
            heard = b"".join(conversation.send(piece) for piece in pieces)
            asked = b'""\r\n' if len(pieces) > 1 else b""
            self.assertEqual(heard, asked + b'OK "Logged in."\r\n', pieces)
            self.assertEqual([request.credentials for request in conversation.requests], [CREDENTIALS])
            self.assertEqual(conversation.requests[0].protocol, "scratchsieve")
            self.assertIs(conversation.server.session.phase, Phase.RELAY)

    def test_everyCut(self) -> None:
        """The conversation is the same if it is cut anywhere; bytes behind the login go to the backend."""
        for pieces in LOGINS:
            sent = b"".join(pieces) + b"LISTSCRIPTS\r\n"
            asked = b'""\r\n' if len(pieces) > 1 else b""
            for cut in range(len(sent)):
                backend = FakeClient(b'OK "Logged in."\r\n')

                def make(backend: FakeClient = backend) -> Conversation:
                    return converse(connector=FakeConnector(backend))

                heard = hearEverything(make, sent[:cut], sent[cut:])
                self.assertEqual(heard, asked + b'OK "Logged in."\r\n')
                self.assertEqual(backend.transport.value(), b"LISTSCRIPTS\r\n")

    def test_refused(self) -> None:
        """A refusal is a NO with the service's text as a quoted string. Another login may follow."""
        said = Denial(Trouble.DENIED, b'the "old" door \\ is shut')
        answers = FakeAuthenticator(Denial(Trouble.DENIED), said, Denial(Trouble.TEMPORARY))
        conversation = converse(authenticator=answers)
        (login,) = LOGINS[0]
        self.assertEqual(conversation.send(login), DENIED)
        self.assertEqual(conversation.send(login), b'NO "the \\"old\\" door \\\\ is shut"\r\n')
        self.assertTrue(conversation.send(login).startswith(b"NO (TRYLATER) "))
        self.assertFalse(conversation.closed)
        self.assertEqual([request.attempt for request in conversation.requests], [1, 2, 3])

    def test_refusedByBackend(self) -> None:
        """The backend's own refusal ends the connection with a goodbye."""
        connector = FakeConnector(Refusal(b'NO "not today"\r\n'))
        conversation = converse(connector=connector)
        heard = conversation.send(LOGINS[0][0])
        self.assertEqual(heard, b'NO "not today"\r\nBYE "Refused, closing connection"\r\n')
        self.assertTrue(conversation.closed)

    def test_exchange(self) -> None:
        """An exchange that ends without a login leads back to commands."""
        for response, reply in (
            (b'"*"', b'NO "Authentication cancelled"\r\n'),
            (b'"a"', b'NO "Invalid base64 data"\r\n'),
            (b"*", b'NO "Invalid base64 data"\r\n'),
            (PLAIN, b'NO "Invalid base64 data"\r\n'),
            (b'"' + PLAIN + b'" "x"', b'NO "Invalid base64 data"\r\n'),
            (b'""', b'NO "Invalid authentication response"\r\n'),
            (b"{0+}\r\n", b'NO "Invalid authentication response"\r\n'),
            (b"{1+}\r\n*", b'NO "Authentication cancelled"\r\n'),
        ):
            conversation = converse()
            heard = conversation.says(b'AUTHENTICATE "PLAIN"', response, b"NOOP")
            self.assertEqual(heard, b'""\r\n' + reply + b'OK "Done"\r\n', response)
            self.assertEqual(conversation.requests, [])

    def test_unsupported(self) -> None:
        """Other mechanisms, and names that are not strings, are refused."""
        conversation = converse()
        self.assertEqual(conversation.says(b'AUTHENTICATE "GSSAPI"'), b'NO "Unsupported authentication mechanism"\r\n')
        self.assertEqual(conversation.says(b"AUTHENTICATE PLAIN"), b'NO "Invalid command"\r\n')
        self.assertEqual(conversation.says(b"AUTHENTICATE"), b'NO "Invalid command"\r\n')

    def test_explained(self) -> None:
        """A refused OAuth client gets the error in a string. Any string acknowledges it."""
        for answer in (b'""', b'"AQ=="', b'"*"', b"{4+}\r\nAQ=="):
            refused = Denial(Trouble.DENIED, challenge=b"eyJ9")
            conversation = converse(SieveSettings(auth=("xoauth2",)), authenticator=FakeAuthenticator(refused))
            login = b'AUTHENTICATE "XOAUTH2" "dXNlcj1qb2UBYXV0aD1CZWFyZXIgdAEB"'
            self.assertEqual(conversation.says(login), b'"eyJ9"\r\n')
            self.assertEqual(conversation.says(answer), DENIED)

    def test_logout(self) -> None:
        """LOGOUT is answered by OK."""
        conversation = converse()
        self.assertEqual(conversation.says(b"LOGOUT", b"NOOP"), b'OK "Logout completed"\r\n')
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.QUIT)

    def test_goodbyes(self) -> None:
        """If the gateway ends the connection, it sends BYE."""
        timeout = converse()
        timeout.clock.advance(60)
        self.assertEqual(timeout.hear(), b'BYE "Timeout, closing connection"\r\n')
        stopped = converse()
        stopped.server.dismiss(Outcome.STOPPED, Trouble.STOPPING)
        self.assertEqual(stopped.hear(), b'BYE "Gateway is shutting down, closing connection"\r\n')
        heard = converse().says(*[b"NONSENSE"] * 9)
        self.assertEqual(
            heard, b'NO "Invalid command"\r\n' * 5 + b'BYE "Too many invalid commands, closing connection"\r\n'
        )
        heard = converse().send(b"NOOP " + b"x" * 5000)
        self.assertEqual(heard, b'NO "Invalid command"\r\nBYE "Command too long, closing connection"\r\n')

    def test_tooLargeLiteral(self) -> None:
        """A literal that is too large cannot be told from commands, so the connection ends."""
        for start in (b'AUTHENTICATE "PLAIN" {', b"NOOP {"):
            heard = converse().send(start + b"5000+}\r\nLOGOUT\r\n")
            self.assertTrue(heard.startswith(b'NO "Invalid command"\r\nBYE "'), heard)
            self.assertNotIn(b"Logout", heard)
        conversation = converse()
        heard = conversation.send(b'AUTHENTICATE "PLAIN"\r\n{5000+}\r\nLOGOUT\r\n')
        self.assertTrue(heard.startswith(b'""\r\nNO "Invalid command"\r\nBYE "'), heard)
        self.assertTrue(conversation.closed)

    def test_garbled(self) -> None:
        """A line with a NUL or a CR is invalid, and so is the rest of its command."""
        conversation = converse()
        for line in (b"NOOP\0", b'NOOP "a\rb"', b"NOOP {1+}\r\nx \0"):
            self.assertEqual(conversation.says(line, b"NOOP"), b'NO "Invalid command"\r\nOK "Done"\r\n')

    def test_silence(self) -> None:
        """A client that is silent after the start of a literal times out like others."""
        conversation = converse()
        conversation.send(b'AUTHENTICATE "PLAIN" {16+}\r\nAGpv')
        conversation.clock.advance(60)
        self.assertEqual(conversation.hear(), b'BYE "Timeout, closing connection"\r\n')


class TLSTests(SynchronousTestCase):
    """STARTTLS and implicit TLS."""

    def test_starttls(self) -> None:
        """After TLS the list is sent again, without STARTTLS, before the next command."""
        conversation = Conversation(SIEVE, TLSSettings(starttls="on"))
        self.assertIn(b'"SASL" "PLAIN"\r\n"SIEVE" "fileinto vacation"\r\n"STARTTLS"\r\n', conversation.hear())
        self.assertEqual(conversation.says(b"STARTTLS"), b'OK "Begin TLS negotiation now"\r\n')
        conversation.transport.shakeHands()
        self.assertEqual(conversation.hear(), LIST % (b"PLAIN", b"") + b'OK "TLS negotiation successful"\r\n')
        self.assertEqual(conversation.says(b"STARTTLS"), b'NO "TLS is active already"\r\n')
        conversation.send(LOGINS[1][0])
        self.assertEqual([request.client.tls for request in conversation.requests], [conversation.server.session.tls])

    def test_injected(self) -> None:
        """Input that was pipelined behind STARTTLS in the clear is discarded, the beginning of a command too."""
        for behind in (b'NOOP "x"\r\n', b'AUTHENTICATE "PLAIN" {16+}\r\nAGpv', LOGINS[0][0]):
            conversation = converse(TLSSettings(starttls="on"))
            self.assertEqual(conversation.send(b"STARTTLS\r\n" + behind), b'OK "Begin TLS negotiation now"\r\n')
            conversation.transport.shakeHands()
            conversation.hear()
            self.assertEqual(conversation.says(b"NOOP"), b'OK "Done"\r\n')
            self.assertEqual(conversation.requests, [])

    def test_demanded(self) -> None:
        """If TLS is required, no login in the clear is judged and no mechanism is announced."""
        conversation = Conversation(SIEVE, TLSSettings(starttls="only"))
        self.assertIn(b'"SASL" ""\r\n', conversation.hear())
        for pieces in LOGINS[:3]:
            self.assertEqual(conversation.send(pieces[0]), b'NO (ENCRYPT-NEEDED) "Use STARTTLS first"\r\n')
        self.assertEqual(conversation.requests, [])

    def test_fromTheFirstByte(self) -> None:
        """With implicit TLS only the greeting has the list."""
        conversation = Conversation(SIEVE, ssl=True)
        self.assertEqual(conversation.hear(), b"")
        conversation.transport.shakeHands()
        self.assertEqual(conversation.hear(), LIST % (b"PLAIN", b"") + b'OK "ManageSieve ready"\r\n')


class RegistryTests(SynchronousTestCase):
    """One line in the registry makes it a protocol of the product."""

    def run_(self, code: str) -> str:
        """The output of a process that begins with L{REGISTERED}."""
        command = [sys.executable, "-W", "error", "-c", REGISTERED + code]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        return ended.stdout

    def test_configured(self) -> None:
        """The port selects it, its directives are read and checked, and a gateway serves it."""
        printed = self.run_(
            """
from twisted.internet.testing import MemoryReactorClock
from mailgate.config import parse
from mailgate.config.pitfalls import pitfalls
from mailgate.service import Gateway
from mailgate.login import Method
text = '''[server x]
listen = 127.0.0.1:24190
proxy_pass = 10.0.0.1:4190
scratchsieve_auth = plain login
scratchsieve_capabilities = UNAUTHENTICATE'''
settings = parse(text)
(server,) = settings.servers
print(server.protocol, server[SIEVE.settings].auth, SIEVE.methods(server) == {Method.PLAIN})
print(*pitfalls(server), sep="\\n")
gateway = Gateway(settings, MemoryReactorClock())
print([service.factory.record.name for service in gateway if hasattr(service, "factory")])
"""
        )
        lines = printed.splitlines()
        self.assertEqual(lines[0], "scratchsieve ('plain', 'login') True")
        self.assertIn(
            "scratchsieve_capabilities = UNAUTHENTICATE: is left out: it promises a command that the gateway", printed
        )
        self.assertEqual(lines[-1], "['scratchsieve']")
