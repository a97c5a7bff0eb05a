"""
Failures of backends, for tests of what a login does after them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from attrs import frozen
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.client import ProxyClient
from mailgate.config import parse
from mailgate.frontend.protocol import MailProtocol
from mailgate.login import BackendGroup, Denial, Trouble
from mailgate.net.naming import NamingReactor
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.test.backend.test_client import GREETING, LOGGED_IN, OK
from mailgate.testing import Attempt, routeTo
from mailgate.upstream.upstreams import Upstreams

__all__ = [
    "IMAP",
    "MAIL",
    "POP",
    "SPEECHES",
    "TEMPORARY",
    "Fail",
    "RetryCase",
    "Row",
    "Speech",
    "answers",
    "drops",
    "refuses",
    "says",
    "settingsOfGroup",
    "shakes",
]

SERVERS = "server =\n    192.0.2.1:143 max_fails=2\n    192.0.2.2:143 max_fails=2\n    192.0.2.3:143 max_fails=2\n"
TEMPORARY = Denial(Trouble.TEMPORARY)

Fail = Callable[[Attempt], Any]


@frozen
class Speech:
    """
    What a backend of a protocol says.

    @ivar record: the protocol.
    @ivar greeting: the greeting.
    @ivar prelude: what it says until it gets the credentials.
    @ivar accepted: it accepts them.
    """

    record: MailProtocol
    greeting: bytes
    prelude: tuple[bytes, ...]
    accepted: bytes


IMAP = Speech(IMAP4, b"* OK ready\r\n", (), b"a1 OK in\r\n")
POP = Speech(POP3, GREETING, (OK,), LOGGED_IN)
MAIL = Speech(SMTP, b"220 ready\r\n", (b"250-mx\r\n250 AUTH PLAIN\r\n",), b"235 in\r\n")
SPEECHES = (IMAP, POP, MAIL)


@frozen
class Row:
    """
    One kind of failure.

    @ivar name: what fails.
    @ivar fail: makes the first server fail.
    @ivar cause: the word of proxy_next_upstream; empty if no other server is tried.
    @ivar counts: whether it counts for max_fails.
    @ivar directives: of the group.
    @ivar speech: the protocol; L{None} for all.
    @ivar judged: whether an authenticator has accepted the credentials.
    @ivar answer: what the client hears if no other server serves.
    @ivar level: the level of the failure's line after another server has served.
    """

    name: str
    fail: Fail
    cause: str
    counts: bool
    directives: str = ""
    speech: Speech | None = None
    judged: bool = True
    answer: Any = TEMPORARY
    level: str = "warn"


def refuses(error: Exception | None = None) -> Fail:
    return lambda attempt: attempt.refuse(error)


def says(*data: bytes) -> Fail:
    def fail(attempt: Attempt) -> None:
        attempt.accept()
        attempt.says(*data)

    return fail


def drops(speech: Speech, *data: bytes) -> Fail:
    def fail(attempt: Attempt) -> None:
        attempt.accept()
        attempt.says(*data)
        attempt.transport.lose(ConnectionLost())

    return fail


def shakes(error: Exception) -> Fail:
    def fail(attempt: Attempt) -> None:
        attempt.accept().lose(error)

    return fail


def answers(speech: Speech, reply: bytes) -> Fail:
    """The backend answers the credentials with C{reply}."""
    return says(speech.greeting, *speech.prelude, reply)


@cache
def settingsOfGroup(directives: str) -> Any:
    """The configuration of a group of three servers, with C{directives} of its own."""
    text = f"[upstream store]\n{SERVERS}{directives}[server x]\nprotocol = imap\nlisten = 127.0.0.1:143\n"
    return parse(f"{text}proxy_pass = store\n")


class RetryCase(SynchronousTestCase):
    """Shared by the tests of further tries."""

    def attempt(self, speech: Speech, *groups: Any, directives: str = "", **changes: Any) -> Attempt:
        """A login at a group of three servers."""
        self.upstreams = Upstreams(settingsOfGroup(directives), NamingReactor(MemoryReactorClock()))
        if speech.record is SMTP and not any(isinstance(each, SMTPSettings) for each in groups):
            groups += (SMTPSettings(proxyAuth=True),)
        route = routeTo(BackendGroup("store"), **changes)
        return Attempt(speech.record, *groups, route=route, upstreams=self.upstreams)

    @property
    def fails(self) -> list[int]:
        return [peer.fails for peer in self.upstreams.groups[0].peers]

    def serve(self, attempt: Attempt, speech: Speech) -> None:
        """The server that is tried last accepts the login."""
        transport = attempt.accept()
        if transport.tls:
            transport.shakeHands()
        attempt.says(speech.greeting, *speech.prelude, speech.accepted)
        self.assertIsInstance(self.successResultOf(attempt.result), ProxyClient)
        self.assertTrue(attempt.hasNoTimers())
