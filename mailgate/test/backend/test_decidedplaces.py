"""
Tests for L{mailgate.backend.places}: what an authenticator decides about the backend of one login.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.client import ProxyClient
from mailgate.backend.offers import Known
from mailgate.backend.place import NoBackend, Place
from mailgate.backend.places import Places
from mailgate.config import parse
from mailgate.login import Backend, BackendGroup, BackendTLS, Denial, RouteOptions, TLSOptions, Trouble
from mailgate.net.naming import NamingReactor
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.test.backend.test_places import SERVER
from mailgate.testing import Attempt, requestFor, routeTo
from mailgate.tls.backendcontexts import BackendContexts
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.upstream.upstreams import Upstreams

GROUPS = """
[upstream store]
server =
    192.0.2.1:110
    192.0.2.2:110
    192.0.2.3:110
    192.0.2.4:110
hash = $user consistent
[upstream secure]
server = 192.0.2.5:995 name=mail.test
proxy_ssl = on
proxy_ssl_verify = off
[map pool]
source = $domain
default = store
"""
REQUEST = requestFor("pop3")
STARTTLS = TLSOptions(BackendTLS.STARTTLS)


def upstreams() -> Upstreams:
    return Upstreams(parse(GROUPS + SERVER.format("store")), NamingReactor(MemoryReactorClock()))


class DecidedTests(SynchronousTestCase):
    """The places of a route with options."""

    def setUp(self) -> None:
        self.groups = upstreams()
        self.made: list[BackendTLSSettings] = []
        self.places = self.make()

    def make(self, **settings: Any) -> Places:
        def make(settings: BackendTLSSettings) -> BackendContexts:
            self.made.append(settings)
            return BackendContexts(settings)

        return Places(BackendTLSSettings(**settings), self.groups, make, MemoryReactorClock())

    def find(self, *backends: Any, **options: Any) -> Place | NoBackend:
        """The first place of a login with these options."""
        return next(iter(self.places.of(routeTo(*backends, options=RouteOptions(**options)), REQUEST)))

    def place(self, *backends: Any, **options: Any) -> Place:
        place = self.find(*backends, **options)
        assert isinstance(place, Place)
        return place

    def test_plain(self) -> None:
        """Without options for TLS the place is the same for all logins."""
        self.assertIs(self.place(hold=1.0), self.place())

    def test_mode(self) -> None:
        """TLS is on or off for this login, and the next one has the directive's."""
        place = self.place(tls=STARTTLS)
        self.assertIs(place.backend.tls, BackendTLS.STARTTLS)
        assert place.contexts is not None
        self.assertIs(self.place().contexts, None)
        off = self.place(BackendGroup("secure"), tls=TLSOptions(BackendTLS.OFF))
        self.assertEqual((off.backend.tls, off.contexts), (BackendTLS.OFF, None))
        self.assertIs(self.place(BackendGroup("secure")).backend.tls, BackendTLS.IMPLICIT)

    def test_clear(self) -> None:
        """A header does not send passwords in the clear where a directive demands TLS, and counts no session."""
        off = TLSOptions(BackendTLS.OFF, mayDisable=False)
        for places, group in ((self.places, "secure"), (self.make(mode="starttls"), "store")):
            self.places = places
            place = self.find(BackendGroup(group), tls=off)
            assert isinstance(place, NoBackend)
            self.assertIn("auth_http_may = ssl_off allows that", place.reason)
            (*_, every) = places.every(routeTo(BackendGroup(group), options=RouteOptions(tls=off)), REQUEST)
            self.assertIsInstance(every, NoBackend)
        self.assertIsInstance(self.find(Backend("192.0.2.9", 110), tls=off), NoBackend)
        self.assertEqual({peer.connections for _, peer in self.groups.everyPeer()}, {0})
        attempt = Attempt(
            POP3, BackendTLSSettings(mode="on"), route=routeTo(options=RouteOptions(tls=off)), upstreams=self.groups
        )
        self.assertEqual(attempt.tried, [])
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
        self.places = self.make()
        self.assertIsInstance(self.place(BackendGroup("store"), tls=off), Place)

    def test_group(self) -> None:
        """The directives of the group count where the options say nothing."""
        place = self.place(BackendGroup("secure"), tls=TLSOptions(pins=("key:00",)))
        self.assertIs(place.backend.tls, BackendTLS.IMPLICIT)
        assert place.contexts is not None
        self.assertEqual(place.contexts.creatorFor(place.backend)._key[2:], ("mail.test", False, ("key:00",)))
        named = self.place(BackendGroup("secure"), tls=TLSOptions(verify=True, name="other.test"))
        assert named.contexts is not None
        self.assertEqual(named.contexts.creatorFor(named.backend)._key[2:], ("other.test", True, ()))

    def test_bounded(self) -> None:
        """However many pins and names a service sends, neither places nor contexts become more."""
        for number in range(3000):
            for group in (Backend("192.0.2.9", 110), BackendGroup("secure")):
                tls = TLSOptions(BackendTLS.IMPLICIT, None, f"host{number}.test", (f"key:{number}",))
                self.place(group, tls=tls)
        self.assertEqual(len(self.places._places), 2)
        self.assertEqual(len(self.places._contexts), 2)
        # Those of the group were also made at the start, and those for its shared place.
        self.assertLessEqual(len(self.made), 4)

    def test_checkedWithoutTLS(self) -> None:
        """A certificate that is to be checked, and no TLS: the password goes nowhere."""
        for tls in (TLSOptions(pins=("key:00",)), TLSOptions(name="mail.test"), TLSOptions(verify=True)):
            place = self.find(tls=tls)
            assert isinstance(place, NoBackend)
            self.assertIn("certificate must be checked", place.reason)
        off = self.find(BackendGroup("secure"), tls=TLSOptions(BackendTLS.OFF, pins=("key:00",)))
        self.assertIsInstance(off, NoBackend)
        self.assertEqual([peer.connections for _, peer in self.groups.everyPeer()], [0] * 6)
        self.assertIsInstance(self.find(tls=TLSOptions(verify=False)), Place)
        (every,) = self.places.every(routeTo(options=RouteOptions(tls=TLSOptions(verify=True))), REQUEST)
        self.assertIsInstance(every, NoBackend)

    def test_every(self) -> None:
        """All servers of a group have the TLS of the options."""
        route = routeTo(BackendGroup("store"), options=RouteOptions(tls=STARTTLS))
        modes = [place.backend.tls for place in self.places.every(route, REQUEST) if isinstance(place, Place)]
        self.assertEqual(modes, [BackendTLS.STARTTLS] * 4)

    def test_key(self) -> None:
        """The key goes before the directive's, on the same ring: it stands for a user of that name."""
        chosen = set()
        for number in range(20):
            key = b"tenant%d" % number
            place = self.place(BackendGroup("store"), key=key)
            asUser = next(iter(self.places.of(routeTo(BackendGroup("store"), user=key), REQUEST)))
            assert isinstance(asUser, Place)
            self.assertEqual(place.name, asUser.name)
            chosen.add(place.name)
        self.assertGreater(len(chosen), 2)

    def test_unknownGroup(self) -> None:
        """A name without a section is a temporary failure, and stands for nothing else."""
        for name in ("nowhere", "192.0.2.9:110", "$pool", "${pool}", "unix:/run/x"):
            attempt = Attempt(POP3, route=routeTo(BackendGroup(name, isName=True)), upstreams=upstreams())
            self.assertEqual(attempt.tried, [])
            self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
            self.assertIn(
                f"backend upstream {name} does not exist, although the authenticator named it", attempt.log[0]
            )
        odd = Attempt(POP3, route=routeTo(BackendGroup("a\r\nb\x1b", isName=True)), upstreams=upstreams())
        self.assertNotIn("\r", odd.log[0])
        self.assertNotIn("\x1b", odd.log[0])
        known = Attempt(POP3, route=routeTo(BackendGroup("STORE", isName=True)), upstreams=upstreams())
        self.assertEqual(len(known.tried), 1)

    def test_withoutGroups(self) -> None:
        """The same without any group."""
        places = Places(BackendTLSSettings(), None, BackendContexts, MemoryReactorClock())
        (place,) = places.of(routeTo(BackendGroup("store", isName=True)), REQUEST)
        self.assertEqual(place, NoBackend("store", "is not configured"))

    def test_notLearned(self) -> None:
        """What a backend offers under the TLS of one login, perhaps not verified, is not announced to all."""
        for tls, expected in ((None, [(b"IMAP4rev1", b"EVIL")]), (TLSOptions(verify=False), [])):
            heard: list[tuple[bytes, ...]] = []
            known = Known(lambda _, items, heard=heard: heard.append(items))  # type: ignore[misc]

            def make(*arguments: Any, known: Known = known) -> ProxyClient:
                client: ProxyClient = IMAP4.client(*arguments)
                client.known = known
                return client

            options = None if tls is None else RouteOptions(tls=tls)
            attempt = Attempt(IMAP4, BackendTLSSettings(mode="on"), route=routeTo(options=options))
            attempt.connector._client = make
            attempt.again()
            attempt.accept()
            attempt.transport.shakeHands()
            attempt.says(b"* OK [CAPABILITY IMAP4rev1 EVIL] ready\r\n")
            self.assertEqual(heard, expected)

    def test_identities(self) -> None:
        """An identity that would end a line is refused before any connection."""
        bad = b"a\r\nDELE 1"
        for options in (RouteOptions(authid=bad), RouteOptions(authzid=bad)):
            attempt = Attempt(POP3, route=routeTo(options=options))
            self.assertEqual(attempt.tried, [])
            self.assertIs(self.successResultOf(attempt.result).trouble, Trouble.TEMPORARY)
