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
from zope.interface.verify import verifyObject

from mailgate.auth import cache as authcache
from mailgate.auth.answers import PIECE
from mailgate.auth.cache import CACHED_METHODS, LONGEST_REFUSAL, CachedAuthenticator, IJudge
from mailgate.auth.http.dialect import NGINX, Dialect
from mailgate.auth.http.exchange import question
from mailgate.interfaces import IAuthenticator
from mailgate.login import (
    BackendTLS,
    Credentials,
    Envelope,
    LoginRequest,
    Method,
    Route,
    RouteOptions,
    TLSDetails,
    TLSOptions,
    TLSState,
)
from mailgate.test.support.cachecase import (
    BACKENDS,
    CERTIFICATE,
    DETAILS,
    REFUSAL,
    REQUEST,
    ROUTE,
    UNDECIDED,
    CacheTestCase,
    request,
)
from mailgate.test.support.findings import askedOf

NOT_TOLD = {
    "LoginRequest.tag",
    "LoginRequest.hops",
    "LoginRequest.trace",
    "Client.port",
    "Credentials.salt",
    "Client.local",
    "Client.localPort",
    "Client.session",
    "Client.server",
    "TLSState.name",
    *(f"Envelope.{a.name}" for a in attrs.fields(Envelope)),
}
"""
What the service does not receive of a login with a password. It does not affect what is stored. The service may receive
the server name of TLS from C{TLSDetails}.
"""

PASSED_OVER = "ProxiedAddresses.sourcePort"
"""What the service receives but what does not matter, because it is never the same."""


def changes(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield copies of C{value} with one part changed, for each part, and the name of that part."""
    if attrs.has(type(value)):
        for attribute in attrs.fields(type(value)):
            if not attribute.eq:
                # It is no part of what the login is.
                continue
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
    """Return all bytes that can be reached from C{start}, except through C{without}, types and functions."""
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


class QuestionTests(CacheTestCase):
    """Which logins count as identical."""

    def test_interfaces(self) -> None:
        """The cache and the fake authenticator behind it provide their interfaces."""
        verifyObject(IAuthenticator, self.cache)
        verifyObject(IJudge, self.judge)

    def test_same(self) -> None:
        """An identical login gets the same answer without another request."""
        self.assertEqual(self.ask(), ROUTE)
        self.assertEqual(self.ask(), ROUTE)
        self.assertEqual(self.judge.asked, [REQUEST])

    def test_equal(self) -> None:
        """Logins are compared by equality, not by identity."""
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
        """All that the service receives distinguishes logins, and all of TLS; nothing else does."""
        self.ask()
        changed = dict(changes(REQUEST))
        self.assertLessEqual(NOT_TOLD | {"TLSState.cipher", "LoginRequest.attempt", "Client.name"}, changed.keys())
        for name, other in changed.items():
            self.assertEqual(self.isAsked(other), name not in (*NOT_TOLD, PASSED_OVER), name)

    def test_told(self) -> None:
        """Headers with variables distinguish logins, unless they differ for each connection."""
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
        """An answer for one certificate is not used for another, nor for a client without one."""
        self.ask()
        told = [other for _, other in changes(DETAILS)]
        self.assertEqual(len(told), 12)
        for other in (*told, evolve(DETAILS, certificate=None), None):
            self.assertTrue(self.isAsked(evolve(REQUEST, client=evolve(REQUEST.client, details=other))), other)

    def test_unverified(self) -> None:
        """Without client certificates, the details of TLS do not distinguish logins, and are not looked up."""
        self.cache = CachedAuthenticator(
            self.judge, self.clock, 60.0, self.size, (), self.randomness, NGINX.told, verifiesClients=False
        )
        self.ask()
        asked = askedOf(REQUEST.client, lambda client: self.assertFalse(self.isAsked(evolve(REQUEST, client=client))))
        self.assertEqual(asked, [])

    def test_headers(self) -> None:
        """All that changes a header of the request distinguishes logins, including those of SMTP."""
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
        """A connection without TLS differs from one with TLS."""
        self.ask()
        self.assertTrue(self.isAsked(evolve(REQUEST, client=evolve(REQUEST.client, tls=None))))

    def test_boundaries(self) -> None:
        """The boundaries between values count."""
        self.ask(request(b"joe", b"sesame"))
        for user, secret in ((b"joes", b"esame"), (b"jo", b"esesame"), (b"joesesame", b""), (b"", b"joesesame")):
            self.assertTrue(self.isAsked(request(user, secret)))

    def test_setting(self) -> None:
        """With the same key, other servers and other headers lead to other names."""
        names = []
        for setting in (("imap", ()), ("pop", ()), ("imap", ((b"X-Key", b"1"),)), ("imap", ((b"X-Key", b"2"),))):
            self.drawn.clear()
            self.cache = self.make(setting=setting)
            self.ask()
            names.append(frozenset(each for each in reachable(self.cache, self.judge, self) if len(each) == 32))
        self.assertEqual(len(set(names)), 4)
        self.assertEqual({len(each) for each in names}, {1})

    def test_key(self) -> None:
        """The names depend on the key, which has 32 bytes and cannot be reached after its use."""
        name = self.cache._mac.copy().digest()
        self.assertEqual([len(drawn) for drawn in self.drawn], [32])
        self.assertNotEqual(self.make()._mac.digest(), name)
        self.assertNotIn(self.drawn[0], reachable(self.cache, self.judge, self))

    def test_close(self) -> None:
        """Closing the cache closes the authenticator behind it and removes all answers."""
        self.ask()
        self.judge.answer = REFUSAL
        self.ask(request(b"ann"))
        self.cache.close()
        self.assertTrue(self.judge.closed)
        self.assertTrue(self.isAsked(REQUEST))
        self.assertTrue(self.isAsked(request(b"ann")))


class AnswerTests(CacheTestCase):
    """Which answers are stored, and for how long."""

    def test_acceptance(self) -> None:
        """An acceptance is fresh for its time, however often it is used."""
        for _ in range(6):
            self.isAsked()
            self.clock.advance(99.9)
        self.assertEqual(len(self.judge.asked), 1)
        self.clock.advance(0.6)
        self.assertTrue(self.isAsked())
        self.assertFalse(self.isAsked())

    def test_refusal(self) -> None:
        """A refusal is stored unchanged for a sixth of that time, and no longer than LONGEST_REFUSAL."""
        self.judge.answer = REFUSAL
        for ttl, fresh in ((600.0, LONGEST_REFUSAL), (30.0, 5.0)):
            self.cache = self.make(ttl)
            self.assertTrue(self.isAsked())
            self.clock.advance(fresh - 0.1)
            self.assertFalse(self.isAsked())
            self.assertEqual(self.ask(), REFUSAL)
            self.clock.advance(0.1)
            self.assertTrue(self.isAsked())

    def test_repeats(self) -> None:
        """
        A refusal out of the cache says that it is a repeat; that of the service does not. What it says about limits is
        stored with it, also with an acceptance.
        """
        self.judge.answer = evolve(REFUSAL, isUnknownUser=True)
        for isRepeat in (False, True):
            answer: Any = self.ask()
            self.assertEqual((answer.isRepeat, answer.isUnknownUser), (isRepeat, True))
        self.judge.answer = evolve(ROUTE, options=RouteOptions(isUnlimited=True))
        for _ in range(2):
            self.assertIs(self.ask(request(b"ann")).isUnlimited, True)
        self.assertEqual(len(self.judge.asked), 2)

    def test_held(self) -> None:
        """The fresh answers for a user are counted, by the name of the client or of the route. Nothing changes."""
        self.ask(request(b"joe"))
        self.judge.answer = evolve(ROUTE, user=b"joe@example.org")
        self.ask(request(b"jo"))
        self.judge.answer = REFUSAL
        self.ask(request(b"joe", b"wrong"))
        held = [sum(self.cache.held(user)) for user in (b"joe", b"jo", b"joe@example.org", b"ann")]
        self.assertEqual(held, [2, 1, 1, 0])
        self.clock.advance(LONGEST_REFUSAL)
        self.assertEqual(sum(self.cache.held(b"joe")), 1)
        self.assertEqual(len(self.judge.asked), 3)

    def test_heldInPieces(self) -> None:
        """Many answers are counted in pieces; meanwhile others may be stored."""
        for number in range(PIECE + 1):
            self.ask(request(b"joe", b"%d" % number))
        pieces = self.cache.held(b"joe")
        self.assertEqual(next(pieces), PIECE)
        self.ask(request(b"joe", b"another"))
        self.assertEqual(list(pieces), [1])

    def test_passing(self) -> None:
        """A refusal with the code of a temporary failure is not stored."""
        self.judge.answer = evolve(REFUSAL, code=b"451 4.3.0")
        self.assertTrue(self.isAsked())
        self.assertTrue(self.isAsked())

    def test_mended(self) -> None:
        """A stored refusal does not affect a login with the right password, nor the storing of its acceptance."""
        self.judge.answer = REFUSAL
        self.ask(request(b"joe", b"wrong"))
        self.judge.answer = ROUTE
        self.assertEqual(self.ask(), ROUTE)
        self.assertFalse(self.isAsked())

    def test_turned(self) -> None:
        """A later answer replaces an earlier one of the other kind."""
        for answer in (REFUSAL, ROUTE, REFUSAL):
            self.judge.answer = answer
            self.assertEqual(self.ask(), answer)
            self.judge.answer = UNDECIDED
            self.assertEqual(self.ask(), answer)
            self.clock.advance(600)

    def test_setBack(self) -> None:
        """Setting the clock back does not extend the life of an answer."""
        self.clock.advance(3600)
        self.ask()
        self.clock.advance(-3600)
        self.assertTrue(self.isAsked())
        self.assertFalse(self.isAsked())

    def test_undecided(self) -> None:
        """A temporary failure is not stored."""
        self.judge.answer = UNDECIDED
        self.assertEqual(self.ask(), UNDECIDED)
        self.assertTrue(self.isAsked())

    def test_notStorable(self) -> None:
        """An acceptance or refusal that is not storable is not stored."""
        self.judge.storable = False
        for answer in (ROUTE, REFUSAL):
            self.judge.answer = answer
            self.assertEqual(self.ask(), answer)
            self.assertTrue(self.isAsked())

    def test_methods(self) -> None:
        """Only logins with a password are stored and joined; all others go to the service each time."""
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
        """Check that C{route} is stored and used unchanged. Return the bytes in memory meanwhile."""
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
        """The client's own password is not in memory; the next login brings it. All else is as the service sent it."""
        stored = self.assertGivenAgain(Route(BACKENDS * 2, b"joe@x", b"sesame", judged=False))
        # Check that this search finds what it should.
        self.assertIn(b"joe@x", stored)

    def test_other(self) -> None:
        """Another password, such as a master password, is encrypted. The key is not in memory; the login yields it."""
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
        """An empty password is also stored, whether it is the client's own or not."""
        self.assertGivenAgain(Route(BACKENDS, b"joe", b""))
        self.judge.answer = route = Route(BACKENDS, b"ann", b"")
        for _ in range(2):
            self.assertEqual(self.ask(request(b"ann", b"")), route)
        self.assertEqual(len(self.judge.asked), 2)

    def test_none(self) -> None:
        """A missing password stays missing; the client's own does not replace it."""
        self.assertGivenAgain(Route(BACKENDS, b"joe", None))

    def test_nonces(self) -> None:
        """Encrypting the same password twice gives different results."""
        self.judge.answer = Route(BACKENDS, b"joe", b"open-sesame")
        seals = set()
        for _ in range(2):
            self.ask()
            seals |= {each for each in reachable(self.cache, self.judge, self) if each[:12] in self.drawn}
            self.clock.advance(600)
        self.assertEqual({len(each) for each in seals}, {12 + len(b"open-sesame") + 16})
        self.assertEqual(len(seals), 2)


class OptionsTests(CacheTestCase):
    """Answers that decide about the backend and the session."""

    def answer(self, **changes: Any) -> Route:
        """Let the authenticator answer with these options, and return the route."""
        self.judge.answer = route = evolve(ROUTE, options=RouteOptions(**changes))
        return route

    def test_kept(self) -> None:
        """A stored answer has all options, and the password beside them."""
        tls = TLSOptions(BackendTLS.STARTTLS, True, "mail.test", ("key:00",))
        decided = self.answer(
            key=b"k", tls=tls, method="plain", authid=b"m", authzid=b"z", identifies=False, forward=((b"a", b"b"),)
        )
        self.assertEqual([self.ask(), self.ask()], [decided, decided])
        self.judge.answer = decided = evolve(decided, password=b"another")
        self.cache.forget()
        self.assertEqual([self.ask(), self.ask()], [decided, decided])
        self.assertEqual(len(self.judge.asked), 2)

    def test_encrypted(self) -> None:
        """Additional fields for the backend are stored encrypted, each with a nonce of its own."""
        self.answer(forward=((b"token", b"confidential"),))
        self.ask()
        (stored,) = self.cache._acceptances._stored.values()
        self.assertNotIn(b"confidential", stored.forward)
        assert isinstance(stored.answer, Route) and stored.answer.options is not None
        self.assertEqual(stored.answer.options.forward, ())
        self.judge.answer = evolve(self.answer(forward=((b"a", b"b"),)), password=b"another")
        self.cache.forget()
        self.ask()
        self.assertEqual(len(set(self.drawn)), len(self.drawn))

    def test_lifetime(self) -> None:
        """The session's limit counts from the service's answer, and the answer is not used beyond it."""
        self.answer(lifetime=60.0, hold=10.0)
        self.ask()
        for age, lifetime, hold in ((4, 56.0, 6.0), (20, 40.0, 0.0), (59, 1.0, 0.0)):
            self.clock.advance(age - self.clock.seconds())
            found = self.ask()
            assert isinstance(found, Route)
            self.assertEqual(found.options, RouteOptions(lifetime=lifetime, hold=hold))
        self.assertEqual(len(self.judge.asked), 1)
        self.clock.advance(1)
        self.assertTrue(self.isAsked())

    def test_noLifetime(self) -> None:
        """A session without any time is not stored for another login; a long one does not outlive the cache."""
        self.answer(lifetime=0.0)
        self.ask()
        self.assertTrue(self.isAsked())
        self.answer(lifetime=86400.0)
        self.ask()
        self.clock.advance(599)
        self.assertFalse(self.isAsked())
        self.clock.advance(1)
        self.assertTrue(self.isAsked())

    def test_cost(self) -> None:
        """The options count for auth_cache_size."""
        costs = []
        for changes in ({}, {"authid": b"x" * 1000}, {"tls": TLSOptions(pins=("p" * 500,) * 16)}):
            self.answer(**changes)
            self.cache.forget()
            self.ask()
            costs.append(self.cache._acceptances._cost)
        self.answer(forward=((b"k", b"v" * 1000),))
        self.cache.forget()
        self.ask()
        costs.append(self.cache._acceptances._cost)
        self.assertGreaterEqual(costs[0], 1300)
        for cost, more in zip(costs[1:], (1000, 8000, 1000), strict=True):
            self.assertGreaterEqual(cost - costs[0], more)
