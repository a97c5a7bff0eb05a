"""
Tests for L{mailgate.auth.cache}.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import attrs
from attrs import evolve
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailgate.auth import cache as authcache
from mailgate.auth.cache import (
    CACHED_METHODS,
    COST,
    LONGEST_REFUSAL,
    SHARE_OF_REFUSALS,
    CachedAuthenticator,
    IJudge,
    Judgement,
    cacheSize,
)
from mailgate.auth.http.dialect import NGINX, Dialect
from mailgate.auth.http.exchange import question
from mailgate.interfaces import IAuthenticator
from mailgate.login import (
    Backend,
    Client,
    ClientCertificate,
    Credentials,
    Denial,
    Envelope,
    LoginRequest,
    Method,
    ProxiedAddresses,
    Route,
    TLSDetails,
    TLSState,
    Trouble,
)
from mailgate.test.support.findings import askedOf

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

NOT_TOLD = {
    "LoginRequest.tag",
    "Client.port",
    "Credentials.salt",
    "Client.local",
    "Client.localPort",
    "Client.session",
    "Client.server",
    *(f"Envelope.{a.name}" for a in attrs.fields(Envelope)),
}
"""What the service is not told of a password: it does not matter to what is stored."""

PASSED_OVER = "ProxiedAddresses.sourcePort"
"""What it is told, and does not matter for all that: it is never the same."""


def request(user: bytes, secret: bytes = b"sesame", **others: Any) -> LoginRequest:
    """A login of C{user}."""
    return evolve(REQUEST, credentials=Credentials(Method.PLAIN, user, secret), **others)


def changes(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """C{value} with one thing in it changed, for each thing there is; with the name of that thing."""
    if attrs.has(type(value)):
        for attribute in attrs.fields(type(value)):
            place = f"{type(value).__name__}.{attribute.name}"
            for changed, other in changes(getattr(value, attribute.name), place):
                yield changed, evolve(value, **{attribute.name: other})
    elif isinstance(value, Method):
        return
    elif isinstance(value, bool):
        yield name, not value
    elif isinstance(value, int):
        yield name, value + 1
    elif isinstance(value, bytes):
        yield name, value + b"x"
    else:
        yield name, f"{value}x"


def reachable(start: Any, *without: Any) -> set[bytes]:
    """All bytes that can be reached from C{start}, not by way of C{without}, types or functions."""
    seen = {id(start): start, **{id(each): each for each in without}}
    found, following = set(), [start]
    while following:
        for value in gc.get_referents(following.pop()):
            if isinstance(value, bytes):
                found.add(value)
            elif id(value) not in seen and not isinstance(value, (type, FunctionType, ModuleType)):
                seen[id(value)] = value
                following.append(value)
    return found


@implementer(IJudge)
class FakeJudge:
    """Gives C{answer} to each question, or waits for the test to do so: the questions' Deferreds are in C{pending}."""

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
    """A cache for ten minutes before a judge, at the hour zero of a clock."""

    size = 1024 * 1024

    def setUp(self) -> None:
        self.clock = Clock()
        self.judge = FakeJudge()
        self.drawn: list[bytes] = []
        self.cache = self.make()

    def randomness(self, n: int) -> bytes:
        """Bytes that are never the same."""
        self.drawn.append(len(self.drawn).to_bytes(n, "big"))
        return self.drawn[-1]

    def make(
        self, ttl: float = 600.0, setting: tuple[Any, ...] = ("imap", ()), told: Any = NGINX.told
    ) -> CachedAuthenticator:
        """A cache."""
        return CachedAuthenticator(self.judge, self.clock, ttl, self.size, setting, self.randomness, told)

    def ask(self, request: LoginRequest = REQUEST) -> Route | Denial:
        """The answer to C{request}, which comes at once."""
        return self.successResultOf(self.cache.authenticate(request))

    def isAsked(self, request: LoginRequest = REQUEST) -> bool:
        """Whether the judge is asked when the cache is asked C{request}."""
        before = len(self.judge.asked)
        self.ask(request)
        return len(self.judge.asked) > before


class QuestionTests(CacheTestCase):
    """What is the same question."""

    def test_interfaces(self) -> None:
        """The cache, and the fake that is behind it here, keep to their interfaces."""
        verifyObject(IAuthenticator, self.cache)
        verifyObject(IJudge, self.judge)

    def test_same(self) -> None:
        """What was asked before is not asked again, and the answer is the same."""
        self.assertEqual(self.ask(), ROUTE)
        self.assertEqual(self.ask(), ROUTE)
        self.assertEqual(self.judge.asked, [REQUEST])

    def test_equal(self) -> None:
        """Equality counts, not identity."""
        self.ask()
        protocol, secret, host = "im", b"ses", "192.0.2"
        tls = TLSState("".join(["TLS", "v1.3"]), "".join(["TLS_AES_256", "_GCM_SHA384"]))
        credentials = Credentials(Method.PLAIN, b"".join([b"j", b"oe"]), secret + b"ame")
        details = evolve(DETAILS, certificate=evolve(CERTIFICATE, pem=b"".join([b"P", b"EM"])))
        equal = LoginRequest(
            protocol + "ap", credentials, evolve(REQUEST.client, host=host + ".7", tls=tls, details=details)
        )
        self.assertEqual(equal, REQUEST)
        self.assertFalse(self.isAsked(equal))

    def test_everythingCounts(self) -> None:
        """Whatever the service is told makes another question of it, and all of TLS; nothing else does."""
        self.ask()
        changed = dict(changes(REQUEST))
        self.assertLessEqual(NOT_TOLD | {"TLSState.cipher", "LoginRequest.attempt", "Client.name"}, changed.keys())
        for name, other in changed.items():
            self.assertEqual(self.isAsked(other), name not in (*NOT_TOLD, PASSED_OVER), name)

    def test_told(self) -> None:
        """Headers with variables make another question of it, unless they differ from connection to connection."""
        dialect = Dialect(
            ((b"Port", b"$server_port"), (b"Name", b"$ssl_server_name"), (b"Each", b"$remote_port $session_id"))
        )
        self.cache = self.make(told=dialect.told)
        self.ask()
        client = evolve(REQUEST.client, port=4712, session="another")
        self.assertFalse(self.isAsked(evolve(REQUEST, client=client)))
        self.assertTrue(self.isAsked(evolve(REQUEST, client=evolve(client, localPort=25))))
        self.assertTrue(self.isAsked(evolve(REQUEST, client=evolve(client, details=TLSDetails("mail.example")))))

    def test_certificate(self) -> None:
        """The answer to one certificate is not given to another, nor to who shows none, whatever differs."""
        self.ask()
        told = [other for _, other in changes(DETAILS)]
        self.assertEqual(len(told), 12)
        for other in (*told, evolve(DETAILS, certificate=None), None):
            self.assertTrue(self.isAsked(evolve(REQUEST, client=evolve(REQUEST.client, details=other))), other)

    def test_unverified(self) -> None:
        """Where no certificates are asked for, the details of TLS make no other question, and are not found out."""
        self.cache = CachedAuthenticator(
            self.judge, self.clock, 60.0, self.size, (), self.randomness, NGINX.told, verifiesClients=False
        )
        self.ask()
        asked = askedOf(REQUEST.client, lambda client: self.assertFalse(self.isAsked(evolve(REQUEST, client=client))))
        self.assertEqual(asked, [])

    def test_headers(self) -> None:
        """Whatever changes a header of the question is asked, SMTP's among them."""
        for protocol in ("imap", "smtp"):
            asked = evolve(REQUEST, protocol=protocol)
            self.ask(asked)
            changed = [
                other
                for name, other in changes(asked)
                if name != PASSED_OVER and question(other).block != question(asked).block
            ]
            self.assertGreater(len(changed), 6)
            for other in changed:
                self.assertTrue(self.isAsked(other), other)

    def test_clear(self) -> None:
        """A connection without TLS is not like one with TLS."""
        self.ask()
        self.assertTrue(self.isAsked(evolve(REQUEST, client=evolve(REQUEST.client, tls=None))))

    def test_boundaries(self) -> None:
        """Where one value ends and the next begins counts."""
        self.ask(request(b"joe", b"sesame"))
        for user, secret in ((b"joes", b"esame"), (b"jo", b"esesame"), (b"joesesame", b""), (b"", b"joesesame")):
            self.assertTrue(self.isAsked(request(user, secret)))

    def test_setting(self) -> None:
        """Under one key the same question of another server, or with other headers, would be stored by another name."""
        names = []
        for setting in (("imap", ()), ("pop", ()), ("imap", ((b"X-Key", b"1"),)), ("imap", ((b"X-Key", b"2"),))):
            self.drawn.clear()
            self.cache = self.make(setting=setting)
            self.ask()
            names.append(frozenset(each for each in reachable(self.cache, self.judge, self) if len(each) == 32))
        self.assertEqual(len(set(names)), 4)
        self.assertEqual({len(each) for each in names}, {1})

    def test_key(self) -> None:
        """The names depend on the key, which is 32 bytes, and which cannot be reached once it has been used."""
        name = self.cache._mac.copy().digest()
        self.assertEqual([len(drawn) for drawn in self.drawn], [32])
        self.assertNotEqual(self.make()._mac.digest(), name)
        self.assertNotIn(self.drawn[0], reachable(self.cache, self.judge, self))

    def test_close(self) -> None:
        """Closing closes what is behind, and nothing is left."""
        self.ask()
        self.judge.answer = REFUSAL
        self.ask(request(b"ann"))
        self.cache.close()
        self.assertTrue(self.judge.closed)
        self.assertTrue(self.isAsked(REQUEST))
        self.assertTrue(self.isAsked(request(b"ann")))


class AnswerTests(CacheTestCase):
    """Which answers are given again, and for how long."""

    def test_acceptance(self) -> None:
        """An acceptance is good until its time is over, however often it is used."""
        for _ in range(6):
            self.isAsked()
            self.clock.advance(99.9)
        self.assertEqual(len(self.judge.asked), 1)
        self.clock.advance(0.6)
        self.assertTrue(self.isAsked())
        self.assertFalse(self.isAsked())

    def test_refusal(self) -> None:
        """A refusal is given again as it was, for a sixth of that, and no longer than LONGEST_REFUSAL."""
        self.judge.answer = REFUSAL
        for ttl, fresh in ((600.0, LONGEST_REFUSAL), (30.0, 5.0)):
            self.cache = self.make(ttl)
            self.assertTrue(self.isAsked())
            self.clock.advance(fresh - 0.1)
            self.assertFalse(self.isAsked())
            self.assertEqual(self.ask(), REFUSAL)
            self.clock.advance(0.1)
            self.assertTrue(self.isAsked())

    def test_passing(self) -> None:
        """A refusal by a code for passing trouble is not given again: the trouble may have passed."""
        self.judge.answer = evolve(REFUSAL, code=b"451 4.3.0")
        self.assertTrue(self.isAsked())
        self.assertTrue(self.isAsked())

    def test_mended(self) -> None:
        """A refusal does not stand in the way of the right password, nor of its acceptance's being stored."""
        self.judge.answer = REFUSAL
        self.ask(request(b"joe", b"wrong"))
        self.judge.answer = ROUTE
        self.assertEqual(self.ask(), ROUTE)
        self.assertFalse(self.isAsked())

    def test_turned(self) -> None:
        """What was refused and is accepted later is accepted from then on, and the other way round."""
        for answer in (REFUSAL, ROUTE, REFUSAL):
            self.judge.answer = answer
            self.assertEqual(self.ask(), answer)
            self.judge.answer = UNDECIDED
            self.assertEqual(self.ask(), answer)
            self.clock.advance(600)

    def test_setBack(self) -> None:
        """A clock that is set back does not make an answer live longer."""
        self.clock.advance(3600)
        self.ask()
        self.clock.advance(-3600)
        self.assertTrue(self.isAsked())
        self.assertFalse(self.isAsked())

    def test_undecided(self) -> None:
        """A temporary failure is not given again."""
        self.judge.answer = UNDECIDED
        self.assertEqual(self.ask(), UNDECIDED)
        self.assertTrue(self.isAsked())

    def test_notStorable(self) -> None:
        """Nor is an acceptance or a refusal that is not storable."""
        self.judge.storable = False
        for answer in (ROUTE, REFUSAL):
            self.judge.answer = answer
            self.assertEqual(self.ask(), answer)
            self.assertTrue(self.isAsked())

    def test_methods(self) -> None:
        """Only passwords are stored and joined; every other method is asked about each time."""
        self.assertEqual(CACHED_METHODS, (Method.PLAIN,))
        for method in set(Method) - {Method.PLAIN}:
            other = evolve(REQUEST, credentials=Credentials(method, b"joe", b"0123", b"<1@x>"))
            self.judge.answer = ROUTE
            self.assertTrue(self.isAsked(other), method)
            self.assertTrue(self.isAsked(other), method)
            self.judge.answer = None
            before = len(self.judge.pending)
            self.assertNoResult(self.cache.authenticate(other))
            self.assertNoResult(self.cache.authenticate(other))
            self.assertEqual(len(self.judge.pending), before + 2, method)


class PasswordTests(CacheTestCase):
    """Passwords for the backend."""

    def assertGivenAgain(self, route: Route) -> set[bytes]:
        """C{route} is stored, and given again as it was; gives the bytes that are in memory meanwhile."""
        self.judge.answer = route
        self.assertEqual(self.ask(), route)
        stored = reachable(self.cache, self.judge, self)
        self.judge.answer = UNDECIDED
        self.assertEqual(self.ask(), route)
        self.assertEqual(len(self.judge.asked), 1)
        for each in stored | reachable(self.cache, self.judge, self):
            self.assertNotIn(b"sesame", each)
        return stored

    def test_own(self) -> None:
        """The client's own is not in memory; the next login brings it. Everything else is as the service said."""
        stored = self.assertGivenAgain(Route(BACKENDS * 2, b"joe@x", b"sesame", judged=False))
        # What this looks for it would find.
        self.assertIn(b"joe@x", stored)

    def test_other(self) -> None:
        """Another, such as a master password, is sealed; what opens it is not in memory, but comes of the question."""
        stored = self.assertGivenAgain(Route(BACKENDS, b"joe*master", b"open-sesame"))
        mac = self.cache._mac.copy()
        mac.update(authcache._asked(REQUEST))
        digest = mac.digest()
        (sealed,) = [each for each in stored if each[:12] in self.drawn]
        self.assertEqual(AESGCM(digest[32:]).decrypt(sealed[:12], sealed[12:], None), b"open-sesame")
        names = [each for each in stored if len(each) == 32]
        self.assertEqual(names, [digest[:32]])
        self.assertRaises(InvalidTag, AESGCM(names[0]).decrypt, sealed[:12], sealed[12:], None)
        self.assertFalse([each for each in stored if digest[32:] in each])

    def test_empty(self) -> None:
        """An empty one is given again as well, whether it is the client's own or not."""
        self.assertGivenAgain(Route(BACKENDS, b"joe", b""))
        self.judge.answer = route = Route(BACKENDS, b"ann", b"")
        for _ in range(2):
            self.assertEqual(self.ask(request(b"ann", b"")), route)
        self.assertEqual(len(self.judge.asked), 2)

    def test_none(self) -> None:
        """None stays none: what the client has given does not take its place."""
        self.assertGivenAgain(Route(BACKENDS, b"joe", None))

    def test_nonces(self) -> None:
        """The same is never sealed in the same way twice."""
        self.judge.answer = Route(BACKENDS, b"joe", b"open-sesame")
        seals = set()
        for _ in range(2):
            self.ask()
            seals |= {each for each in reachable(self.cache, self.judge, self) if each[:12] in self.drawn}
            self.clock.advance(600)
        self.assertEqual({len(each) for each in seals}, {12 + len(b"open-sesame") + 16})
        self.assertEqual(len(seals), 2)


class JoinTests(CacheTestCase):
    """The same question while it is being asked."""

    def setUp(self) -> None:
        super().setUp()
        self.judge.answer = None

    def join(self, n: int) -> list[Deferred[Route | Denial]]:
        """C{n} who ask the same, while one question is being asked."""
        joined = [self.cache.authenticate(REQUEST) for _ in range(n)]
        self.assertEqual(len(self.judge.pending), 1)
        return joined

    def test_joined(self) -> None:
        """It is asked once, and all get the answer, which is stored."""
        joined = self.join(3)
        for each in joined:
            self.assertNoResult(each)
        self.judge.pending[0].callback(Judgement(ROUTE))
        self.assertEqual([self.successResultOf(each) for each in joined], [ROUTE] * 3)
        self.assertFalse(self.isAsked())

    def test_notStored(self) -> None:
        """All get an answer that is not storable, too; who comes later asks anew."""
        for judgement in (Judgement(ROUTE, False), Judgement(REFUSAL, False), Judgement(UNDECIDED)):
            joined = self.join(2)
            self.judge.pending.pop().callback(judgement)
            self.assertEqual([self.successResultOf(each) for each in joined], [judgement.answer] * 2)

    def test_others(self) -> None:
        """Another question is asked by itself, and answered by itself."""
        joined, other = self.cache.authenticate(REQUEST), self.cache.authenticate(request(b"joe", b"wrong"))
        first, second = self.judge.pending
        second.callback(Judgement(REFUSAL))
        self.assertNoResult(joined)
        self.assertEqual(self.successResultOf(other), REFUSAL)
        first.callback(Judgement(ROUTE))
        self.assertEqual(self.successResultOf(joined), ROUTE)

    def test_failure(self) -> None:
        """If it fails it fails for all, and nothing is stored."""
        joined = self.join(3)
        self.judge.pending.pop().errback(ZeroDivisionError())
        for each in joined:
            self.failureResultOf(each, ZeroDivisionError)
        self.join(1)

    def test_defect(self) -> None:
        """A judge that cannot even be asked leaves nobody to wait for its answer."""
        self.patch(self.judge, "judge", lambda request: 1 // 0)
        self.assertRaises(ZeroDivisionError, self.cache.authenticate, REQUEST)
        self.assertRaises(ZeroDivisionError, self.cache.authenticate, REQUEST)

    def test_oneLeaves(self) -> None:
        """Who cancels is told so at once; the question goes on for the others, be it the first who has left."""
        joined = self.join(3)
        for leaving in (0, 1):
            joined[leaving].cancel()
            self.failureResultOf(joined[leaving], CancelledError)
        self.assertEqual(self.judge.cancelled, 0)
        self.assertNoResult(joined[2])
        self.judge.pending[0].callback(Judgement(ROUTE))
        self.assertEqual(self.successResultOf(joined[2]), ROUTE)
        self.assertFalse(self.isAsked())

    def test_allLeave(self) -> None:
        """With the last the question is cancelled; nothing is stored, and who comes then asks anew."""
        for each in self.join(2):
            each.cancel()
            self.failureResultOf(each, CancelledError)
        self.assertEqual(self.judge.cancelled, 1)
        self.judge.pending.clear()
        (later,) = self.join(1)
        self.judge.pending[0].callback(Judgement(ROUTE))
        self.assertEqual(self.successResultOf(later), ROUTE)

    def test_answeredTooLate(self) -> None:
        """An answer that comes when all have left is not stored, and does not disturb who has asked anew."""
        held: Deferred[Judgement] = Deferred()
        stubborn: Deferred[Judgement] = succeed(Judgement(REFUSAL)).addCallback(lambda _: held)
        # Cancelling what it waits for has no effect at once.
        held.cancel = lambda: None  # type: ignore[method-assign]
        answers = [stubborn]
        self.patch(
            self.judge, "judge", lambda request: answers.pop() if answers else FakeJudge.judge(self.judge, request)
        )
        first = self.cache.authenticate(REQUEST)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second = self.cache.authenticate(REQUEST)
        held.callback(Judgement(REFUSAL))
        self.assertNoResult(second)
        third = self.cache.authenticate(REQUEST)
        (pending,) = self.judge.pending
        pending.callback(Judgement(ROUTE))
        self.assertEqual([self.successResultOf(each) for each in (second, third)], [ROUTE] * 2)
        self.assertEqual(self.ask(), ROUTE)

    def test_lateFailure(self) -> None:
        """A failure of a question that nobody waits for is nobody's."""
        self.judge._cancel = lambda deferred: deferred.errback(ZeroDivisionError())  # type: ignore[method-assign]
        (joined,) = self.join(1)
        joined.cancel()
        self.failureResultOf(joined, CancelledError)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_leavingMeanwhile(self) -> None:
        """Who makes another leave, or asks again, when the answer comes, disturbs nobody."""
        joined = self.join(4)
        again: list[Deferred[Route | Denial]] = []

        def disturb(answer: Route | Denial) -> Route | Denial:
            joined[1].cancel()
            joined[3].cancel()
            again.append(self.cache.authenticate(REQUEST))
            return answer

        joined[0].addCallback(disturb)
        self.judge.pending[0].callback(Judgement(ROUTE))
        for each in (joined[0], joined[2], *again):
            self.assertEqual(self.successResultOf(each), ROUTE)
        for each in (joined[1], joined[3]):
            self.failureResultOf(each, CancelledError)
        self.assertEqual((len(self.judge.asked), self.judge.cancelled), (1, 0))


class SizeTests(CacheTestCase):
    """How much is stored."""

    size = 32 * 1024
    costOfAcceptance = COST + len("10.0.0.1") + len(b"joe")
    acceptances = (size - size // SHARE_OF_REFUSALS) // costOfAcceptance
    refusals = size // SHARE_OF_REFUSALS // (COST + len(b"no"))

    def users(self, n: int) -> list[LoginRequest]:
        """C{n} logins."""
        return [request(b"u%d" % number) for number in range(n)]

    def stored(self, requests: list[LoginRequest]) -> list[LoginRequest]:
        """Those of C{requests} whose answers are stored; none is asked about, and the order of use does not change."""
        self.judge.answer, before = None, self.judge.answer
        found = []
        for each in requests:
            answer = self.cache.authenticate(each)
            if answer.called:
                found.append(each)
            else:
                answer.addErrback(lambda failure: None).cancel()
        self.judge.answer = before
        return found

    def test_bounded(self) -> None:
        """There is as much as there is room for; the oldest make room."""
        for answer, room in ((ROUTE, self.acceptances), (Denial(Trouble.DENIED, b"no"), self.refusals)):
            self.cache = self.make()
            self.judge.answer = answer
            users = self.users(room + 5)
            for each in users[:room]:
                self.ask(each)
            self.assertEqual(self.stored(users), users[:room])
            for each in users[room:]:
                self.ask(each)
            self.assertEqual(self.stored(users), users[5:])

    def test_leastRecentlyUsed(self) -> None:
        """What has been used stays; what has not been used for longest goes."""
        users = self.users(self.acceptances + 1)
        for each in users[:-1]:
            self.ask(each)
        self.assertFalse(self.isAsked(users[0]))
        self.ask(users[-1])
        self.assertEqual(self.stored(users[:3]), [users[0], users[2]])

    def test_guessing(self) -> None:
        """However many refusals there are, no acceptance makes room for them."""
        users = self.users(self.acceptances)
        for each in users:
            self.ask(each)
        self.judge.answer = REFUSAL
        for number in range(10 * self.refusals):
            self.ask(request(b"joe", b"guess %d" % number))
        self.assertEqual(self.stored(users), users)

    def test_stale(self) -> None:
        """What has become stale leaves room behind."""
        users = self.users(self.acceptances)
        for _ in range(3):
            for each in users:
                self.assertTrue(self.isAsked(each))
            self.assertEqual(self.stored(users), users)
            self.clock.advance(600)

    def test_closed(self) -> None:
        """After close there is room for as much as before."""
        users = self.users(self.acceptances)
        for _ in range(2):
            for each in users:
                self.ask(each)
            self.assertEqual(self.stored(users), users)
            self.cache.close()

    def test_texts(self) -> None:
        """Long texts count: of users, hosts and passwords, and of refusals and their codes."""
        long = 2048
        for answer in (
            Route(BACKENDS, b"j" * long, b"sesame"),
            Route(BACKENDS, b"joe", b"m" * long),
            Route((Backend("h" * long, 143),), b"joe", b"sesame"),
            Denial(Trouble.DENIED, b"n" * long),
            Denial(Trouble.DENIED, b"no", b"5" * long),
        ):
            self.cache = self.make()
            self.judge.answer = answer
            users = self.users(self.acceptances)
            for each in users:
                self.ask(each)
            room = self.size * (1 if isinstance(answer, Denial) else SHARE_OF_REFUSALS - 1) // SHARE_OF_REFUSALS
            self.assertGreaterEqual(len(self.stored(users)), 2)
            self.assertLessEqual(len(self.stored(users)), room // (COST + long))

    def test_tooBig(self) -> None:
        """What does not fit at all is given, but not stored, and pushes nothing out."""
        self.ask()
        self.judge.answer = big = Route(BACKENDS, b"j" * self.size, b"sesame")
        self.assertEqual(self.ask(request(b"ann")), big)
        self.assertTrue(self.isAsked(request(b"ann")))
        self.assertEqual(self.stored([REQUEST]), [REQUEST])

    def test_directive(self) -> None:
        """A size is nginx's, and has room for something."""
        self.assertEqual([cacheSize(value, "/") for value in ("32k", "10m", "65536")], [32768, 10485760, 65536])
        for value in ("31k", "0", "1", "-1", "1g", ""):
            self.assertRaises(ValueError, cacheSize, value, "/")
        self.assertIn("32k or more", str(self.assertRaises(ValueError, cacheSize, "4k", "/")))
