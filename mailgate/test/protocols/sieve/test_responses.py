"""
Tests for the SASL responses of ManageSieve clients: their length, and what clients send after the error of a refused
token.
"""

from __future__ import annotations

import base64
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.settings import DialogueSettings
from mailgate.login import Credentials, Denial, Method, Trouble
from mailgate.protocols.sieve import SIEVE
from mailgate.protocols.sieve.settings import SieveSettings
from mailgate.session import Outcome
from mailgate.testing import Conversation, FakeAuthenticator

DIALOGUE = DialogueSettings(serverName="mx.test")
LONGEST = DIALOGUE.longestResponse - 2
"""The most bytes of a response in base64."""

INVALID = b'NO "Invalid authentication response."\r\n'
TOO_LONG = b'NO "Authentication response is too long."\r\n'


def converse(dialogue: DialogueSettings = DIALOGUE, buffer: int = 16384, **others: Any) -> Conversation:
    """A conversation whose greeting has been heard."""
    settings = SieveSettings(auth=("plain", "login", "xoauth2"), clientBuffer=buffer)
    conversation = Conversation(SIEVE, settings, dialogue, **others)
    conversation.hear()
    return conversation


def tokenOf(length: int) -> bytes:
    """A message of XOAUTH2 in base64 with a token of C{length} bytes."""
    return base64.b64encode(b"user=joe\x01auth=Bearer %b\x01\x01" % (b"t" * length))


def literal(text: bytes) -> bytes:
    return b"{%d+}\r\n%b" % (len(text), text)


def ways(message: bytes, mechanism: bytes = b"XOAUTH2") -> list[bytes]:
    """How clients send a message: with the command or behind the challenge, quoted or as a literal."""
    command = b'AUTHENTICATE "%b"' % mechanism
    forms = (b'"%b"' % message, literal(message))
    return [command + between + form + b"\r\n" for between in (b" ", b"\r\n") for form in forms]


class LengthTests(SynchronousTestCase):
    """C{sasl_max_response}, which does not depend on C{sieve_client_buffer}."""

    def test_longToken(self) -> None:
        """A token of 10,000 bytes logs in, also with a small buffer, and in pieces of any size."""
        for buffer in (4096, 16384):
            for said in ways(tokenOf(10000)):
                for size in (1, 1000, 5000, len(said)):
                    conversation = converse(buffer=buffer)
                    for start in range(0, len(said), size):
                        conversation.send(said[start : start + size])
                    (request,) = conversation.requests
                    self.assertEqual(request.credentials, Credentials(Method.XOAUTH2, b"joe", b"t" * 10000))

    def test_longest(self) -> None:
        """A response may be as long as the limit. After one that is a little longer the connection stays."""
        for said in ways(b"x" * LONGEST, b"PLAIN"):
            conversation = converse(buffer=4096)
            self.assertTrue(conversation.send(said).endswith(INVALID))
            self.assertFalse(conversation.closed)
        for said in ways(b"x" * (LONGEST + 4), b"PLAIN")[:2]:
            conversation = converse(buffer=4096)
            self.assertEqual(conversation.send(said), TOO_LONG)
            self.assertFalse(conversation.closed)

    def test_endless(self) -> None:
        """What is much longer ends the connection before it is read."""
        for said in ways(b"x" * (LONGEST + 4200), b"PLAIN"):
            conversation = converse(buffer=4096)
            self.assertRegex(
                conversation.send(said), rb'BYE "(?:Input buffer full, aborting|Literal size too large)"\r\n\Z'
            )
            self.assertTrue(conversation.closed)
            self.assertIs(conversation.server.session.outcome, Outcome.TOO_LONG)

    def test_configured(self) -> None:
        """The limit holds however large the buffer for commands is."""
        little = evolve(DIALOGUE, maxResponse=1024)
        for said in ways(tokenOf(1100))[:2]:
            conversation = converse(little, 65536)
            self.assertEqual(conversation.send(said), TOO_LONG)
            self.assertEqual(conversation.requests, [])

    def test_notOthers(self) -> None:
        """Other commands have the buffer only, and so has what only begins like AUTHENTICATE."""
        for start in (b'NOOP "', b"AUTHENTICATES ", b"NOOP {5000+}\r\n", b"NOOP {4+}\r\nAUTH AUTHENTICATE "):
            conversation = converse(buffer=4096)
            conversation.send(start + b"x" * 4096)
            self.assertTrue(conversation.closed, start)
            self.assertIs(conversation.server.session.outcome, Outcome.TOO_LONG)

    def test_memory(self) -> None:
        """No more than the limits is buffered, whatever a client sends."""
        for start in (b'AUTHENTICATE "PLAIN" ', b'AUTHENTICATE "PLAIN"\r\n"', b"AUTHENTICATE {5+}\r\nPLAIN "):
            conversation = converse(buffer=4096)
            conversation.send(start)
            for _ in range(60):
                conversation.send(b"A" * 500)
                self.assertLessEqual(len(conversation.server.buffer), 4096 + LONGEST + 600)
            self.assertTrue(conversation.closed, start)


class AcknowledgementTests(SynchronousTestCase):
    """The error of a refused token, and what clients answer."""

    def refused(self) -> Conversation:
        """A conversation in which the error has been heard."""
        authenticator = FakeAuthenticator(Denial(Trouble.DENIED))
        conversation = converse(evolve(DIALOGUE, authDelay=0.0), authenticator=authenticator)
        conversation.send(ways(tokenOf(10))[0])
        return conversation

    def test_acknowledged(self) -> None:
        """Each form of an answer ends the attempt."""
        for answer in (b'""', b'"AQ=="', b'"*"', b"*", literal(b""), literal(b"AQ==")):
            conversation = self.refused()
            self.assertRegex(conversation.send(answer + b"\r\n") + conversation.hear(), rb'\ANO "')

    def test_unacknowledged(self) -> None:
        """A client that goes on at once gets the refusal, and then the answer to its command."""
        for command in (b"NOOP", b"LISTSCRIPTS", b'AUTHENTICATE "LOGIN"'):
            conversation = self.refused()
            heard = conversation.send(command + b"\r\n") + conversation.hear()
            self.assertRegex(heard, rb'\ANO "')

    def test_literalWithMore(self) -> None:
        """What follows a literal on its line is no command, and nothing is left for the next exchange."""
        conversation = converse(authenticator=FakeAuthenticator(Denial(Trouble.DENIED)))
        conversation.says(b'AUTHENTICATE "XOAUTH2" "%b"' % tokenOf(9))
        self.assertEqual(conversation.says(literal(b"AQ==") + b"NOOP"), b'NO "Authentication failed."\r\n')
        conversation.says(b'AUTHENTICATE "LOGIN"')
        conversation.says(b'"am9l"')
        conversation.says(b'"c2VzYW1l"')
        self.assertEqual(conversation.requests[-1].credentials, Credentials(Method.PLAIN, b"joe", b"sesame"))
