# -*- test-case-name: mailgate.test.auth.test_cache -*-
"""
A cache between the gateway and an authentication service: whoever asks the same again within C{auth_cache_ttl} gets the
same answer. nginx's mail module has none. The words are those of RFC 9111: what is stored is fresh, or it is stale.

What is stored is found by a MAC of the whole question, under a key that is made when the gateway starts and is nowhere
else. No password is stored in the clear: where the backend is to get the client's own, the next client brings it; one
that the service has sent (a master password) is sealed with the other half of that MAC, and only who asks the same
question, the right secret in it, can open it.
"""

from __future__ import annotations

import marshal
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from attrs import astuple, field, frozen
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.directives import size
from mailgate.interfaces import IAuthenticator
from mailgate.login import Denial, LoginRequest, Method, Route, Trouble

__all__ = ["CACHED_METHODS", "CachedAuthenticator", "IJudge", "Judgement", "cacheSize"]

CACHED_METHODS = (Method.PLAIN,)
"""
The methods whose answers are stored. A digest is never asked about twice; under C{none} each message is to be judged,
for greylisting and the like; C{external} is about a certificate, which may have been revoked since; a token of OAuth
expires when it will.
"""

LONGEST_REFUSAL = 10.0
"""
Seconds that a refusal is fresh at most, and a sixth of an acceptance's time otherwise: long enough to spare the service
a program that tries a wrong password again and again, too short to be waited out by who has just mended theirs.
"""

SHARE_OF_REFUSALS = 4
"""One part in so many is refusals' own: whoever guesses passwords pushes out no acceptance."""

COST = 700
"""Bytes that an entry takes beside its texts, table and key included: 630 by measurement, and 480 for a refusal."""

_NONCE = 12
"""Bytes of AES-GCM's nonce."""


def cacheSize(value: str, folder: str) -> int:
    """A size in which some entries find room."""
    given = size(value, folder)
    if given < 32 * 1024:
        raise ValueError("must be 32k or more; a cache is switched off by auth_cache_ttl = 0")
    return given


@frozen
class Judgement:
    """The answer to a login; C{storable} says whether it may be given again: one that came after C{WAIT} may not."""

    answer: Route | Denial
    storable: bool = True


class IJudge(IAuthenticator):
    """An authenticator that says which of its answers may be given again."""

    def judge(request: LoginRequest) -> Deferred[Judgement]:
        """Judge C{request} as C{authenticate} does."""


@frozen
class _Stored:
    """
    An answer that is fresh from C{since} until before C{until}; a route has no password here. C{sealed} is: L{None}
    where it has none at all, empty where it is the client's own secret.
    """

    answer: Route | Denial
    since: float
    until: float
    sealed: bytes | None = field(default=None, repr=False)

    @property
    def cost(self) -> int:
        """The bytes of memory that this takes, estimated."""
        if isinstance(self.answer, Denial):
            return COST + len(self.answer.text or b"") + len(self.answer.code or b"")
        hosts = sum(len(str(backend)) for backend in self.answer.backends)
        return COST + hosts + len(self.answer.user) + len(self.sealed or b"")

    def reveal(self, request: LoginRequest, key: bytes) -> Route | Denial:
        """The answer as it was given, to C{request}, which is the same question; C{key} is what it was sealed with."""
        if self.sealed is None or isinstance(self.answer, Denial):
            return self.answer
        password = request.credentials.secret
        if self.sealed:
            password = AESGCM(key).decrypt(self.sealed[:_NONCE], self.sealed[_NONCE:], None)
        return self.answer.withPassword(password)


class _Answers:
    """Answers, by the names of their questions; those used least recently make room where all would take C{limit}."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._cost = 0
        # A dict whose front is deleted again and again is slow to find its first; this one is not.
        self._stored: OrderedDict[bytes, _Stored] = OrderedDict()

    def find(self, name: bytes, now: float) -> _Stored | None:
        """The answer to the question C{name}, if there is one, fresh at C{now}."""
        stored = self._stored.get(name)
        if stored is None:
            return None
        # A clock that was set back must not make it live longer.
        if stored.since <= now < stored.until:
            self._stored.move_to_end(name)
            return stored
        del self._stored[name]
        self._cost -= stored.cost
        return None

    def store(self, name: bytes, stored: _Stored) -> None:
        """Keep C{stored}, to which C{name} has not led so far, unless it alone is too big."""
        if stored.cost > self._limit:
            return
        self._stored[name] = stored
        self._cost += stored.cost
        while self._cost > self._limit:
            _, oldest = self._stored.popitem(last=False)
            self._cost -= oldest.cost

    def clear(self) -> None:
        """Forget everything."""
        self._stored.clear()
        self._cost = 0


class _Question:
    """
    A question that is being asked, C{asked}, and all who wait for the answer. In C{questions} it has its C{name} for as
    long as it can be joined.
    """

    def __init__(self, questions: dict[bytes, _Question], name: bytes, asked: Deferred[Judgement]) -> None:
        self._questions = questions
        self._name = name
        self._asked = asked
        self._waiting: list[Deferred[Route | Denial]] = []
        questions[name] = self

    @property
    def isAwaited(self) -> bool:
        """Whether anybody still waits for the answer."""
        return bool(self._waiting)

    def join(self) -> Deferred[Route | Denial]:
        """The answer, for one more; the last who cancels cancels the question."""
        joined: Deferred[Route | Denial] = Deferred(self._left)
        self._waiting.append(joined)
        return joined

    def _left(self, who: Deferred[Route | Denial]) -> None:
        self._waiting.remove(who)
        if not self._waiting:
            self._close()
            self._asked.cancel()

    def _close(self) -> None:
        if self._questions.get(self._name) is self:
            del self._questions[self._name]

    def answered(self, answer: Route | Denial) -> None:
        """Tell all."""
        self._close()
        while self._waiting:
            self._waiting.pop(0).callback(answer)

    def failed(self, failure: Failure) -> None:
        """Tell all."""
        self._close()
        while self._waiting:
            self._waiting.pop(0).errback(failure)


@implementer(IAuthenticator)
class CachedAuthenticator:
    """
    Gives an acceptance by C{inner} again for C{ttl} seconds, a refusal for less, a failure never; all that is stored
    takes C{size} bytes or so. Those who ask the same while it is being asked wait together for one answer.

    C{setting} is what all the questions have in common and the service is told, C{told(request)} what it is told of
    this one in headers of its own; both of values that C{marshal} can write. C{randomness(n)} gives so many bytes that
    nobody can guess. If the server C{verifiesClients} answers depend on the client's certificate.
    """

    def __init__(
        self,
        inner: IJudge,
        clock: IReactorTime,
        ttl: float,
        size: int,
        setting: tuple[Any, ...],
        randomness: Callable[[int], bytes],
        told: Callable[[LoginRequest], tuple[Any, ...]],
        verifiesClients: bool = True,
    ) -> None:
        self._inner = inner
        self._told = told
        self._verifiesClients = verifiesClients
        self._clock = clock
        self._acceptanceTTL = ttl
        self._refusalTTL = min(ttl / 6, LONGEST_REFUSAL)
        self._refusals = _Answers(size // SHARE_OF_REFUSALS)
        self._acceptances = _Answers(size - size // SHARE_OF_REFUSALS)
        self._questions: dict[bytes, _Question] = {}
        self._randomness = randomness
        # A keyed BLAKE2b is a MAC (RFC 7693), and takes a quarter of HMAC's time if its state is copied, key included.
        self._mac = blake2b(_framed(setting), key=randomness(32), digest_size=64)

    def authenticate(self, request: LoginRequest) -> Deferred[Route | Denial]:
        """Judge C{request} by what is stored, or else have it judged."""
        if request.credentials.method not in CACHED_METHODS:
            return self._inner.authenticate(request)
        mac = self._mac.copy()
        mac.update(_asked(request, self._told(request), self._verifiesClients))
        digest = mac.digest()
        name, key = digest[:32], digest[32:]
        now = self._clock.seconds()
        stored = self._acceptances.find(name, now) or self._refusals.find(name, now)
        if stored is not None:
            return succeed(stored.reveal(request, key))
        question = self._questions.get(name)
        return self._ask(request, name, key) if question is None else question.join()

    def forget(self) -> None:
        """Forget what is stored."""
        self._acceptances.clear()
        self._refusals.clear()

    def close(self) -> None:
        """Forget what is stored, and close C{inner}."""
        self.forget()
        self._inner.close()

    def _ask(self, request: LoginRequest, name: bytes, key: bytes) -> Deferred[Route | Denial]:
        asked = self._inner.judge(request)
        question = _Question(self._questions, name, asked)
        joined = question.join()
        answer = asked.addCallback(self._store, question, request, name, key)
        answer.addCallbacks(question.answered, question.failed)
        return joined

    def _store(
        self, judgement: Judgement, question: _Question, request: LoginRequest, name: bytes, key: bytes
    ) -> Route | Denial:
        answer = judgement.answer
        # What nobody waits for any more may have been asked anew by now.
        if judgement.storable and question.isAwaited:
            now = self._clock.seconds()
            if isinstance(answer, Route):
                sealed = self._seal(answer.password, request.credentials.secret, key)
                stored = _Stored(answer.withPassword(None), now, now + self._acceptanceTTL, sealed)
                self._acceptances.store(name, stored)
            elif answer.kind is Trouble.DENIED:
                self._refusals.store(name, _Stored(answer, now, now + self._refusalTTL))
        return answer

    def _seal(self, password: bytes | None, secret: bytes, key: bytes) -> bytes | None:
        """C{password} as L{_Stored} has it, C{secret} being the client's own."""
        if password is None:
            return None
        if password == secret:
            return b""
        nonce = self._randomness(_NONCE)
        return nonce + AESGCM(key).encrypt(nonce, password, None)


def _asked(request: LoginRequest, told: tuple[Any, ...] = (), verifiesClients: bool = True) -> bytes:
    """
    All that the service is told of C{request}, for L{CACHED_METHODS}, the number of the attempt too: it may answer the
    fifth otherwise than the first. With C{verifiesClients} everything that is known of TLS, whether it is told or not.
    Not the port that the client has come from: it is another for every connection.
    """
    credentials, client = request.credentials, request.client
    proxied, details = client.proxied, client.details if verifiesClients else None
    return _framed(
        (
            request.protocol,
            request.attempt,
            credentials.method.value,
            credentials.user,
            credentials.secret,
            credentials.authzid,
            client.host,
            client.name,
            None if client.tls is None else astuple(client.tls),
            None if proxied is None else (proxied.source, proxied.destination, proxied.destinationPort),
            None if details is None else astuple(details),
            told,
        )
    )


def _framed(values: tuple[Any, ...]) -> bytes:
    """
    C{values} as bytes that no other values have.

    @raise ValueError: one is neither a plain value nor a sequence of them.
    """
    # Each with its type and its length, by C code; from version 3 on it would matter who else refers to a value.
    return marshal.dumps(values, 2)
