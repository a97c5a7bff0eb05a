"""
Common code for tests of C{auth_file}: threads that run on request, and an account file.
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
from mailgate.limits.settings import LimitSettings
from mailgate.log.journal import Journal
from mailgate.login import Backend, Client, Credentials, Denial, LoginRequest, Method, Trouble
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
        """Return this."""
        return self

    def suggestThreadPoolSize(self, size: int) -> None:
        """Record the size."""
        self.max = size

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call C{callable} at once, because there is only one thread."""
        callable(*args, **kwargs)

    def callInThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Keep C{callable} until L{work}."""
        self.held.append(lambda: callable(*args, **kwargs))

    def callInThreadWithCallback(
        self, onResult: Callable[[bool, Any], Any], func: Callable[..., Any], *args: Any, **kw: Any
    ) -> None:
        """Keep C{func} until L{work}, and pass its result to C{onResult}."""

        def run() -> None:
            try:
                result, success = func(*args, **kw), True
            except Exception:
                result, success = Failure(), False
            onResult(success, result)

        self.held.append(run)

    def work(self) -> int:
        """Run everything that the threads keep, and return the number of calls."""
        done = 0
        while self.held:
            self.workOnce()
            done += 1
        return done

    def workOnce(self) -> None:
        """Run what the threads have kept longest."""
        self.held.pop(0)()


class AuthenticatorTestCase(SynchronousTestCase):
    """
    A L{FileAuthenticator} with an account file. C{mostHashes} hashes are computed at a time, and right passwords are
    remembered for C{cacheTTL} seconds.
    """

    mostHashes = 3
    cacheTTL = 0.0
    limits = LimitSettings()

    def setUp(self) -> None:
        """Make a clock with threads, and a log."""
        self.reactor = ThreadedClock()
        self.events: list[Any] = []
        self.journal = Journal(LogLevel.info, cast(ILogObserver, self.events.append))
        self.path = self.mktemp()

    def write(self, *lines: bytes) -> None:
        """Replace the account file by a new file with C{lines}."""
        new = self.mktemp()
        with open(new, "wb") as file:
            file.write(b"\n".join(lines) + b"\n")
        os.replace(new, self.path)

    def settings(self, protocol: str = "imap", *given: str) -> ServerSettings:
        """Return the settings of a server with the account file."""
        file = FileSettings(self.path, self.mostHashes, self.cacheTTL)
        groups: dict[type, Any] = {FileSettings: file, LimitSettings: self.limits}
        return ServerSettings(
            "test", protocol, (), groups, frozenset({"auth_file", *given}), ports=PORTS.get(protocol, (0, 0))
        )

    def build(self, *lines: bytes, default: Backend | None = DEFAULT) -> FileAuthenticator:
        """Return an authenticator for an account file with C{lines}."""
        self.write(*lines)
        authenticator: FileAuthenticator = KIND.build(self.settings(), default, self.reactor, self.journal)
        self.authenticator = authenticator
        return authenticator

    def start(self, user: bytes, secret: bytes, method: Method = Method.PLAIN, host: str = "192.0.2.1") -> Any:
        """Begin a login."""
        credentials = Credentials(method, user, secret, SALT if method.isDigest else b"")
        return self.authenticator.authenticate(LoginRequest("imap", credentials, Client(host, 4711)))

    def login(self, user: bytes, secret: bytes, method: Method = Method.PLAIN, host: str = "192.0.2.1") -> Any:
        """Return the result of a login after the threads have run."""
        answer = self.start(user, secret, method, host)
        self.reactor.work()
        return self.successResultOf(answer)

    def refusal(self, answer: Any) -> str:
        """Return the reason of a refusal. Check that the client gets the same refusal as always."""
        self.assertEqual(evolve(answer, reason=""), Denial(Trouble.DENIED))
        reason: str = answer.reason
        return reason

    def unusable(self, reason: str) -> str:
        """Return the log line if joe's account cannot be used for C{reason}."""
        about = f"client 192.0.2.1:4711, auth_file {self.path}: {reason}, protocol imap"
        return f'account unusable: {about}, server -, session -, user "joe"'

    def logged(self) -> list[str]:
        """Return the log messages since the last call."""
        messages = [formatEvent(event) for event in self.events]
        self.events.clear()
        return messages
