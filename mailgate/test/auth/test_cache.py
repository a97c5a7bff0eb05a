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
from mailgate.auth.cache import CACHED_METHODS, LONGEST_REFUSAL, CachedAuthenticator, IJudge
from mailgate.auth.http.dialect import NGINX, Dialect
from mailgate.auth.http.exchange import question
from mailgate.interfaces import IAuthenticator
from mailgate.login import Credentials, Envelope, LoginRequest, Method, Route, TLSDetails, TLSState
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
