# -*- test-case-name: mailgate.test.auth.test_cache -*-
"""
Caches the answers of an authentication service: an identical login within C{auth_cache_ttl} gets the same answer
without a request. nginx's mail module has no such cache. The terms are those of RFC 9111: a stored answer is fresh or
stale.

An entry is found by a MAC over everything that the service would receive. The key of the MAC is made when the gateway
starts and is stored nowhere else.

No password is stored in clear text. If the backend is to get the client's own password, the next client brings it with
its login. If the service sent another one (a master password), it is encrypted with the second half of the MAC: only a
login with the same data, the right password included, can decrypt it. So are additional fields for the backend.

An operator who ends the sessions of a user also makes the cache forget the answers about that user. So an entry has the
name that the client gave, besides the name in the route. A request that is under way then answers only the logins that
wait for it already: its answer may be older than the user's new password.

An answer may limit the session or hold the login. These times count from the answer of the service, so the next login
gets what is left of them, and an answer is not used after the session that it allows has expired.
"""

from __future__ import annotations

import marshal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any

from attrs import astuple, evolve, frozen
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.auth.answers import NONCE, Answers, Stored
from mailgate.backend.coroutine import Task
from mailgate.directives import size
from mailgate.interfaces import IAnswering, IAuthenticator, IWatch, IWatchedAuthenticator
from mailgate.log.connection import CACHE
from mailgate.login import Denial, LoginRequest, Method, Route, Trouble

__all__ = ["CACHED_METHODS", "CachedAuthenticator", "IJudge", "Judgement", "cacheSize"]

CACHED_METHODS = (Method.PLAIN,)
"""
The methods whose answers are stored. No digest occurs twice. For C{none} the service judges each message, for
greylisting for example. For C{external} the certificate may have been revoked since. An OAuth token may have expired.
"""

LONGEST_REFUSAL = 10.0
"""
A refusal is fresh for a sixth of C{auth_cache_ttl}, but for at most these seconds. This protects the service from
programs that retry a wrong password. The time is short, so that users can soon log in after a change of the password.
"""

SHARE_OF_REFUSALS = 4
"""
The share of the memory for refusals is one part in this many. Acceptances have their own memory: password guessing
cannot displace them.
"""

_FORMAT = 2
"""
The format of C{marshal} in which different values have different encodings: it writes type and length of each value.
From version 3 on, its output depends on reference counts.
"""

_HALVES = Struct("32s32s")
"""A MAC: the name of an entry, and the key of its secrets."""


def cacheSize(value: str, folder: str) -> int:
    """
    Read the value of C{auth_cache_size}.

    @param value: the value as written, such as C{10m}.
    @param folder: the directory of the configuration file.
    @return: the size in bytes.
    @raise ValueError: the value is no size, or too small for a few entries.
    """
    given = size(value, folder)
    if given < 32 * 1024:
        raise ValueError("must be 32k or more; to switch the cache off, set auth_cache_ttl = 0")
    return given


@frozen
class Judgement:
    """
    The answer to a login.

    @ivar answer: the answer.
    @ivar storable: whether it may be stored for later logins. An answer that followed C{WAIT} may not.
    """

    answer: Route | Denial
    storable: bool = True


class IJudge(IAuthenticator):
    """An authenticator that also says which of its answers may be stored."""

    def judge(request: LoginRequest) -> Awaitable[Judgement]:
        """
        Judge a login as C{authenticate} does.

        @param request: the login.
        @return: a coroutine, or a Deferred, of the answer and whether it may be stored.
        """


class _Question:
    """
    A request to the authentication service that is under way, and all identical logins that wait for its answer.

    @param questions: all such requests by name. This one is among them while other logins can join it.
    @param name: the first half of the login's MAC.
    @ivar task: waits for the answer of the service.
    @ivar isStorable: whether the answer may be stored.
    """

    task: Task

    def __init__(self, questions: dict[bytes, _Question], name: bytes) -> None:
        self._questions = questions
        self._name = name
        self.isStorable = True
        self._waiting: list[Deferred[Route | Denial]] = []
        questions[name] = self

    @property
    def isAwaited(self) -> bool:
        """Whether a login still waits for the answer."""
        return bool(self._waiting)

    def join(self) -> Deferred[Route | Denial]:
        """
        Wait for the answer with another login.

        @return: a Deferred of the answer. When the last waiting login cancels its Deferred, the request is cancelled.
        """
        joined: Deferred[Route | Denial] = Deferred(self._left)
        self._waiting.append(joined)
        return joined

    def _left(self, who: Deferred[Route | Denial]) -> None:
        self._waiting.remove(who)
        if not self._waiting:
            self._close()
            self.task.cancel()

    def _close(self) -> None:
        if self._questions.get(self._name) is self:
            del self._questions[self._name]

    def answered(self, answer: Route | Denial) -> None:
        """Pass the answer to all waiting logins."""
        self._close()
        while self._waiting:
            self._waiting.pop(0).callback(answer)

    def failed(self, failure: Failure) -> None:
        """Pass the failure to all waiting logins."""
        self._close()
        while self._waiting:
            self._waiting.pop(0).errback(failure)


@implementer(IAuthenticator, IAnswering, IWatchedAuthenticator)
class CachedAuthenticator:
    """
    Caches the answers of another authenticator. Acceptances are fresh for C{ttl} seconds, refusals for a shorter time;
    failures are not stored. Identical logins that come at the same time share one request.

    @param inner: the authenticator whose answers are cached.
    @param clock: the clock for the times.
    @param ttl: how long acceptances are fresh, in seconds.
    @param size: the approximate memory for all answers, in bytes.
    @param setting: what all logins of this server have in common and the service receives, such as the headers of the
        configuration. C{marshal} must be able to write it.
    @param randomness: C{randomness(n)} returns C{n} unpredictable bytes.
    @param told: C{told(request)} returns the values of a login that the service receives in additional headers.
        C{marshal} must be able to write them.
    @param verifiesClients: whether answers may depend on the client's certificate (C{ssl_verify_client}).
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
        self._refusals = Answers(size // SHARE_OF_REFUSALS)
        self._acceptances = Answers(size - size // SHARE_OF_REFUSALS)
        self._questions: dict[bytes, _Question] = {}
        self._watch: IWatch | None = None
        self._randomness = randomness
        # A keyed BLAKE2b is a MAC (RFC 7693). Copying its state with the key takes a quarter of HMAC's time.
        self._mac = blake2b(marshal.dumps(setting, _FORMAT), key=randomness(32), digest_size=_HALVES.size)

    @property
    def inner(self) -> IJudge:
        """The authenticator whose answers are cached."""
        return self._inner

    def authenticate(self, request: LoginRequest) -> Deferred[Route | Denial]:
        """
        Answer from the cache, or else ask the authenticator behind it. See L{IAuthenticator.authenticate}.

        @param request: the login.
        """
        return Deferred.fromCoroutine(self.answer(request))

    async def answer(self, request: LoginRequest) -> Route | Denial:
        """
        See L{IAnswering.answer}.

        @param request: the login.
        """
        if request.credentials.method not in CACHED_METHODS:
            return await self._inner.authenticate(request)
        mac = self._mac.copy()
        mac.update(_asked(request, self._told(request), self._verifiesClients))
        name, key = _HALVES.unpack(mac.digest())
        now = self._clock.seconds()
        stored = self._acceptances.find(name, now) or self._refusals.find(name, now)
        if stored is not None:
            if self._watch is not None:
                self._watch.cached("hit")
            if request.step is not None:
                request.step(CACHE, result="hit")
            return stored.reveal(request, key, now)
        isStale = any([self._acceptances.discard(name), self._refusals.discard(name)])
        if self._watch is not None:
            self._watch.cached("stale" if isStale else "miss")
        question = self._questions.get(name)
        if request.step is not None:
            request.step(CACHE, result="an identical login waits" if question else "miss")
        return await (self._ask(request, name, key) if question is None else question.join())

    @property
    def services(self) -> Sequence[Any]:
        """See L{IWatchedAuthenticator}."""
        return self._inner.services if IWatchedAuthenticator.providedBy(self._inner) else ()

    def watchedBy(self, watch: IWatch) -> None:
        """
        See L{IWatchedAuthenticator.watchedBy}.

        @param watch: receives the requests and look-ups.
        """
        self._watch = watch
        if IWatchedAuthenticator.providedBy(self._inner):
            self._inner.watchedBy(watch)

    def held(self, user: bytes) -> Iterator[int]:
        """
        Count the fresh answers about a user that are stored, acceptances and refusals. Nothing changes, and an answer
        does not count as used.

        @param user: the user name, as the client gives it or as the route has it.
        @return: yields after each L{mailgate.auth.answers.PIECE} entries, and at the end, how many of them they are.
        """
        now = self._clock.seconds()
        yield from self._acceptances.held(user.__eq__, now)
        yield from self._refusals.held(user.__eq__, now)

    def forgetUsers(self, matches: Callable[[bytes], bool]) -> Iterator[int]:
        """
        Remove the stored answers about users of a kind, acceptances and refusals. Requests that are under way answer
        only the logins that wait for them already: these answers are not stored, and no further login gets them.

        @param matches: returns whether a user name is of this kind: that of the client, or that of the route.
        @return: yields after each L{mailgate.auth.answers.PIECE} entries, and at the end, how many of them were
            removed. The first step also separates the requests that are under way.
        """
        # The user of their routes is not known yet, so this concerns all of them. It costs a request for each.
        for question in self._questions.values():
            question.isStorable = False
        self._questions.clear()
        yield from self._acceptances.forget(matches)
        yield from self._refusals.forget(matches)

    def forget(self) -> None:
        """Remove all stored answers."""
        self._acceptances.clear()
        self._refusals.clear()

    def close(self) -> None:
        """Remove all stored answers, and close the authenticator behind the cache."""
        self.forget()
        self._inner.close()

    def _ask(self, request: LoginRequest, name: bytes, key: bytes) -> Deferred[Route | Denial]:
        question = _Question(self._questions, name)
        joined = question.join()
        question.task = Task(self._judge(question, request, name, key), question.failed)
        question.task.start()
        return joined

    async def _judge(self, question: _Question, request: LoginRequest, name: bytes, key: bytes) -> None:
        judgement = await self._inner.judge(request)
        question.answered(self._store(judgement, question, request, name, key))

    def _store(
        self, judgement: Judgement, question: _Question, request: LoginRequest, name: bytes, key: bytes
    ) -> Route | Denial:
        answer = judgement.answer
        # If no login waits any more, a new identical request may be under way, and its answer counts.
        if judgement.storable and question.isStorable and question.isAwaited:
            now = self._clock.seconds()
            if isinstance(answer, Route):
                self._acceptances.store(name, self._stored(answer, request, key, now))
            elif answer.kind is Trouble.DENIED:
                # The limits must not take the stored answer for a new guess.
                stored = evolve(answer, isRepeat=True)
                self._refusals.store(name, Stored(stored, now, now + self._refusalTTL, request.credentials.user))
        return answer

    def _stored(self, route: Route, request: LoginRequest, key: bytes, now: float) -> Stored:
        """
        Return C{route} in the form in which it is stored.

        @param request: the client's login.
        @param key: the key, which only an identical login yields.
        """
        # Usually they are equal, and one object is enough.
        user = route.user if route.user == request.credentials.user else request.credentials.user
        sealed = self._seal(route.password, request.credentials.secret, key)
        bare, options = route.withPassword(None), route.options
        if options is None:
            return Stored(bare, now, now + self._acceptanceTTL, user, sealed)
        ttl = self._acceptanceTTL if options.lifetime is None else min(self._acceptanceTTL, options.lifetime)
        forward = b""
        if options.forward:
            forward = self._encrypted(marshal.dumps(options.forward, 2), key)
            bare = evolve(bare, options=evolve(options, forward=()))
        return Stored(bare, now, now + ttl, user, sealed, forward)

    def _seal(self, password: bytes | None, secret: bytes, key: bytes) -> bytes | None:
        """
        Encrypt the password of a route, for L{Stored}.

        @param password: the route's password.
        @param secret: the client's own password.
        @param key: the key, which only an identical login yields.
        """
        if password is None:
            return None
        if password == secret:
            return b""
        return self._encrypted(password, key)

    def _encrypted(self, content: bytes, key: bytes) -> bytes:
        nonce = self._randomness(NONCE)
        return nonce + AESGCM(key).encrypt(nonce, content, None)


def _asked(request: LoginRequest, told: tuple[Any, ...] = (), verifiesClients: bool = True) -> bytes:
    """
    Return all that identifies a login, for the MAC: everything that the service receives for L{CACHED_METHODS}. The
    number of the attempt is included, because the service may answer the fifth attempt differently. The client's port
    is not: it differs for each connection.

    @param told: the values in additional headers.
    @param verifiesClients: whether to include all details of TLS, sent to the service or not.
    @raise ValueError: a value is neither a plain value nor a sequence of plain values.
    """
    credentials, client = request.credentials, request.client
    proxied, secured = client.proxied, None
    if client.tls is not None:
        details = client.details if verifiesClients else None
        secured = (client.tls.protocol, client.tls.cipher, None if details is None else astuple(details))
    return marshal.dumps(
        (
            request.protocol,
            request.attempt,
            credentials.method.value,
            credentials.user,
            credentials.secret,
            credentials.authzid,
            client.host,
            client.name,
            secured,
            None if proxied is None else (proxied.source, proxied.destination, proxied.destinationPort),
            told,
        ),
        _FORMAT,
    )
