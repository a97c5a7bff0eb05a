"""
A cache for an authenticator whose answers the tests give.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailgate.auth.cache import CachedAuthenticator, IJudge, Judgement
from mailgate.auth.http.dialect import NGINX
from mailgate.login import (
    Backend,
    Client,
    ClientCertificate,
    Credentials,
    Denial,
    LoginRequest,
    Method,
    ProxiedAddresses,
    Route,
    TLSDetails,
    TLSState,
    Trouble,
)

__all__ = [
    "BACKENDS",
    "CERTIFICATE",
    "DETAILS",
    "REFUSAL",
    "REQUEST",
    "ROUTE",
    "UNDECIDED",
    "CacheTestCase",
    "FakeJudge",
    "request",
]

CERTIFICATE = ClientCertificate("CN=joe", "CN=authority", "0ABC", "0123456789abcdef", "joe", b"PEM")
DETAILS = TLSDetails("mail.example.com", "imap", "SUCCESS", 0, CERTIFICATE, "SHA256", "EC256")
REQUEST = LoginRequest(
    "imap",
    Credentials(Method.PLAIN, b"joe", b"sesame"),
    Client(
        "192.0.2.7",
        4711,
        TLSState("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        proxied=ProxiedAddresses("192.0.2.7", 4711, "198.51.100.1", 993),
        details=DETAILS,
    ),
)
BACKENDS = (Backend("10.0.0.1", 143),)
ROUTE = Route(BACKENDS, b"joe", b"sesame")
REFUSAL = Denial(Trouble.DENIED, b"Go away", b"550 5.1.1", 3.0)
UNDECIDED = Denial(Trouble.TEMPORARY)


def request(user: bytes, secret: bytes = b"sesame", **others: Any) -> LoginRequest:
    """Return a login of C{user}."""
    return evolve(REQUEST, credentials=Credentials(Method.PLAIN, user, secret), **others)


@implementer(IJudge)
class FakeJudge:
    """Answers each login with C{answer}. If that is L{None}, the test gives the answers through C{pending}."""

    def __init__(self) -> None:
        self.answer: Route | Denial | None = ROUTE
        self.storable = True
        self.asked: list[LoginRequest] = []
        self.pending: list[Deferred[Judgement]] = []
        self.cancelled = 0
        self.closed = False

    def judge(self, request: LoginRequest) -> Deferred[Judgement]:
        self.asked.append(request)
        if self.answer is not None:
            return succeed(Judgement(self.answer, self.storable))
        self.pending.append(Deferred(self._cancel))
        return self.pending[-1]

    def authenticate(self, request: LoginRequest) -> Deferred[Route | Denial]:
        return self.judge(request).addCallback(lambda judgement: judgement.answer)

    def close(self) -> None:
        self.closed = True

    def _cancel(self, deferred: Deferred[Judgement]) -> None:
        self.cancelled += 1


class CacheTestCase(SynchronousTestCase):
    """A cache with a time of ten minutes, on a clock that starts at 0."""

    size = 1024 * 1024

    def setUp(self) -> None:
        self.clock = Clock()
        self.judge = FakeJudge()
        self.drawn: list[bytes] = []
        self.cache = self.make()

    def randomness(self, n: int) -> bytes:
        """Return bytes that differ from all previous ones."""
        self.drawn.append(len(self.drawn).to_bytes(n, "big"))
        return self.drawn[-1]

    def make(
        self, ttl: float = 600.0, setting: tuple[Any, ...] = ("imap", ()), told: Any = NGINX.told
    ) -> CachedAuthenticator:
        """Make a cache."""
        return CachedAuthenticator(self.judge, self.clock, ttl, self.size, setting, self.randomness, told)

    def ask(self, request: LoginRequest = REQUEST) -> Route | Denial:
        """Return the answer to C{request}, which must come at once."""
        return self.successResultOf(self.cache.authenticate(request))

    def isAsked(self, request: LoginRequest = REQUEST) -> bool:
        """Return whether the authenticator receives C{request} when the cache does."""
        before = len(self.judge.asked)
        self.ask(request)
        return len(self.judge.asked) > before
