"""
What the tests of C{auth_file} share: threads that work when they are told to, and a file of accounts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

from attrs import evolve
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailgate.auth.passwdfile.authenticator import KIND, FileAuthenticator, FileSettings
from mailgate.directives import ServerSettings
from mailgate.log.journal import Journal
from mailgate.login import Backend, Client, Credentials, Denial, LoginRequest, Method, Trouble
from mailgate.net.clients import LimitSettings
from mailgate.registry import PROTOCOLS

PORTS = {name: record.backendPorts for name, record in PROTOCOLS.items()}
DEFAULT = Backend("10.9.9.9", 1143)
SLOW = b"{BLF-CRYPT}$2y$05$D0Ck29t8eOiLe8t3hPkJU.cOb3buphx0ZjPac7c.sP8i5wn7gSuhS"
SALTED = b"{SSHA256}ATOncGB2cNWyfBhdTpNRTOoucfUwMrZbt/Zs8Xsc2T5SIlcW"
SALT = b"<1896.697170952@postoffice.reston.mci.net>"


@implementer(IReactorThreads)
class ThreadedClock(Clock):
    """A clock with threads that do nothing until L{work} is called. It is its own thread pool."""

    def __init__(self) -> None:
        super().__init__()
        self.max = 10
        self.held: list[Callable[[], Any]] = []

    def getThreadPool(self) -> Any:
        """The pool, which is this."""
        return self

    def suggestThreadPoolSize(self, size: int) -> None:
        """Note it."""
        self.max = size

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """There is but one thread."""
        callable(*args, **kwargs)

    def callInThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Hold C{callable} back."""
        self.held.append(lambda: callable(*args, **kwargs))

    def callInThreadWithCallback(
        self, onResult: Callable[[bool, Any], Any], func: Callable[..., Any], *args: Any, **kw: Any
    ) -> None:
        """A thread pool's way: hold C{func} back, whose result C{onResult} is given."""

        def run() -> None:
            try:
                result, success = func(*args, **kw), True
            except Exception:
                result, success = Failure(), False
            onResult(success, result)

        self.held.append(run)

    def work(self) -> int:
        """Let the threads do what they hold, and what comes of it; how many pieces it was."""
        done = 0
        while self.held:
            self.workOnce()
            done += 1
        return done

    def workOnce(self) -> None:
        """Let them do what they have held the longest, and what comes of that."""
        self.held.pop(0)()


class AuthenticatorTestCase(SynchronousTestCase):
    """
    A L{FileAuthenticator} over a file of the test's own. So many hashes are computed at once as C{mostHashes} says;
    right passwords are remembered for C{cacheTTL} seconds.
    """

    mostHashes = 3
    cacheTTL = 0.0
    limits = LimitSettings()

    def setUp(self) -> None:
        """Threads that wait, and a log that is kept."""
        self.reactor = ThreadedClock()
        self.events: list[Any] = []
        self.journal = Journal(LogLevel.info, cast(ILogObserver, self.events.append))
        self.path = self.mktemp()

    def write(self, *lines: bytes) -> None:
        """Put C{lines} into the account file, as a new file under its name."""
        new = self.mktemp()
        with open(new, "wb") as file:
            file.write(b"\n".join(lines) + b"\n")
        os.replace(new, self.path)

    def settings(self, protocol: str = "imap", *given: str) -> ServerSettings:
        """A server's settings, with the account file."""
        file = FileSettings(self.path, self.mostHashes, self.cacheTTL)
        groups: dict[type, Any] = {FileSettings: file, LimitSettings: self.limits}
        return ServerSettings(
            "test", protocol, (), groups, frozenset({"auth_file", *given}), ports=PORTS.get(protocol, (0, 0))
        )

    def build(self, *lines: bytes, default: Backend | None = DEFAULT) -> FileAuthenticator:
        """An authenticator over C{lines}."""
        self.write(*lines)
        authenticator: FileAuthenticator = KIND.build(self.settings(), default, self.reactor, self.journal)
        self.authenticator = authenticator
        return authenticator

    def start(self, user: bytes, secret: bytes, method: Method = Method.PLAIN, host: str = "192.0.2.1") -> Any:
        """Ask for a login, and nothing more."""
        credentials = Credentials(method, user, secret, SALT if method.isDigest else b"")
        return self.authenticator.authenticate(LoginRequest("imap", credentials, Client(host, 4711)))

    def login(self, user: bytes, secret: bytes, method: Method = Method.PLAIN, host: str = "192.0.2.1") -> Any:
        """What comes of a login once the threads have worked."""
        answer = self.start(user, secret, method, host)
        self.reactor.work()
        return self.successResultOf(answer)

    def refusal(self, answer: Any) -> str:
        """Why C{answer} refuses a login, as the log has it. For the client it is the refusal that all get."""
        self.assertEqual(evolve(answer, reason=""), Denial(Trouble.DENIED))
        reason: str = answer.reason
        return reason

    def unusable(self, reason: str) -> str:
        """The line of the log for joe, whose account cannot be used for C{reason}."""
        about = f"client 192.0.2.1:4711, auth_file {self.path}: {reason}, protocol imap"
        return f'account unusable: {about}, server -, session -, user "joe"'

    def logged(self) -> list[str]:
        """The messages logged since the last time."""
        messages = [formatEvent(event) for event in self.events]
        self.events.clear()
        return messages
