"""
Tests for L{mailgate.login}.
"""

from __future__ import annotations

import pickle
from copy import copy, deepcopy

from attrs import evolve, exceptions
from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import (
    Backend,
    Client,
    Credentials,
    Denial,
    Envelope,
    LoginRequest,
    Method,
    Refusal,
    Route,
    TLSState,
    Trouble,
    fitForWire,
)
from mailgate.test.support.findings import DETAILS, NotingFindings, askedOf, lazyClient

SECRET = "open-sesame"


class FitForWireTests(SynchronousTestCase):
    """Tests for L{fitForWire}."""

    def test_fit(self):
        """All bytes but three are fit, also those beyond ASCII and other control characters."""
        everything = bytes(set(range(256)) - set(b"\r\n\0"))
        self.assertTrue(fitForWire(everything))

    def test_unfit(self):
        """CR, LF and NUL are unfit, anywhere and in any text."""
        for byte in (b"\r", b"\n", b"\0"):
            for text in (byte, byte + b"x", b"x" + byte, b"x" + byte + b"y"):
                self.assertFalse(fitForWire(text))
                self.assertFalse(fitForWire(b"fine", None, text))

    def test_absent(self):
        """Missing and empty texts are fit."""
        self.assertTrue(fitForWire())
        self.assertTrue(fitForWire(None, b""))


class MethodTests(SynchronousTestCase):
    """Tests for L{Method}."""

    def test_names(self):
        """The values are the words of nginx's Auth-Method, of freenginx's, and the names of the mechanisms of SCRAM."""
        words = {"plain", "apop", "cram-md5", "external", "xoauth2", "oauthbearer", "none"}
        words |= {"scram-sha-256", "scram-sha-1"}
        self.assertEqual({method.value for method in Method}, words)

    def test_digests(self):
        """Only APOP and CRAM-MD5 hide the password."""
        self.assertEqual({method for method in Method if method.isDigest}, {Method.APOP, Method.CRAM_MD5})


class BackendTests(SynchronousTestCase):
    """Tests for L{Backend}."""

    def test_str(self):
        """A backend is written as host and port, with brackets around IPv6; a unix socket without a port."""
        self.assertEqual(str(Backend("mx.example.com", 25)), "mx.example.com:25")
        self.assertEqual(str(Backend("::1", 143)), "[::1]:143")
        self.assertEqual(str(Backend("unix:/run/lmtp", 0)), "unix:/run/lmtp")

    def test_defaults(self):
        """The default is a connection without TLS. With TLS, the certificate is verified."""
        backend = Backend("h", 1)
        self.assertIs(backend.tls, None)
        self.assertTrue(backend.verify)


class DefaultsTests(SynchronousTestCase):
    """The defaults of the values."""

    def test_route(self):
        """By default a route was judged, and its password is not known."""
        route = Route((), b"joe")
        self.assertTrue(route.judged)
        self.assertIsNone(route.password)

    def test_withPassword(self):
        """A route with another password has the same other fields."""
        route = Route((Backend("192.0.2.1", 143),), b"joe", b"one", judged=False, authzid=b"ann")
        for password in (b"two", None):
            self.assertEqual(route.withPassword(password), evolve(route, password=password))

    def test_denial(self):
        """By default a denial is sent at once, in the protocol's own words, and the connection goes on."""
        denial = Denial(Trouble.DENIED)
        self.assertEqual((denial.text, denial.code, denial.wait, denial.close), (None, None, 0.0, False))

    def test_client(self):
        """By default a client has no name, and no TLS."""
        client = Client("192.0.2.1", 4)
        self.assertEqual((client.name, client.tls), ("[UNAVAILABLE]", None))

    def test_request(self):
        """The first attempt is 1."""
        request = LoginRequest("imap", Credentials(Method.NONE), Client("192.0.2.1"))
        self.assertEqual((request.attempt, request.tag, request.envelope), (1, b"", Envelope()))

    def test_refusal(self):
        """By default a backend's refusal is not temporary."""
        self.assertFalse(Refusal(b"NO").temporary)


class LazyClientTests(SynchronousTestCase):
    """Attributes of a L{Client} that are looked up when they are first read."""

    PLAIN = Client("192.0.2.7", 4711, TLSState("TLSv1.3", "X"), session="7-abc", server="0.0.0.0:993")
    FOUND = evolve(PLAIN, local="198.51.100.1", localPort=993, details=DETAILS)

    def setUp(self):
        self.findings = NotingFindings()
        self.client = lazyClient(self.findings, self.PLAIN)

    def test_unread(self):
        """Reading known attributes looks nothing up."""
        for name in ("host", "port", "tls", "name", "proxied", "session", "server"):
            self.assertEqual(getattr(self.client, name), getattr(self.PLAIN, name))
        self.assertEqual(self.client.knownLocal, ("", 0))
        self.assertEqual(self.findings.asked, [])

    def test_once(self):
        """Unknown attributes are looked up once, the address together with its port, and do not change then."""
        for _ in range(2):
            self.assertEqual((self.client.localPort, self.client.local), (993, "198.51.100.1"))
        self.assertEqual(self.findings.asked, ["local"])
        self.assertEqual(self.client.knownLocal, ("198.51.100.1", 993))
        for _ in range(2):
            self.assertIs(self.client.details, DETAILS)
        self.assertEqual(self.findings.asked, ["local", "details"])

    def test_given(self):
        """Given attributes are not looked up."""
        client = Client("192.0.2.7", local="127.0.0.1", localPort=143)
        client.lookUpLater(self.findings, local=False, details=True)
        self.assertEqual((client.local, client.localPort), ("127.0.0.1", 143))
        self.assertEqual(client.knownLocal, ("127.0.0.1", 143))
        self.assertEqual(self.PLAIN.knownLocal, ("", 0))
        self.assertEqual(self.findings.asked, [])
        self.assertIs(client.details, DETAILS)
        self.assertEqual(self.findings.asked, ["details"])

    def test_value(self):
        """It behaves like any other client: compared, hashed, shown, changed and copied."""
        for use in (
            lambda client: self.assertEqual(client, self.FOUND),
            lambda client: self.assertEqual(self.FOUND, client),
            lambda client: self.assertEqual(hash(client), hash(self.FOUND)),
            lambda client: self.assertEqual(repr(client), repr(self.FOUND)),
            lambda client: self.assertEqual(evolve(client, port=1), evolve(self.FOUND, port=1)),
            lambda client: self.assertEqual(copy(client), self.FOUND),
            lambda client: self.assertEqual(deepcopy(client), self.FOUND),
            lambda client: self.assertEqual(pickle.loads(pickle.dumps(client)), self.FOUND),
        ):
            self.assertEqual(askedOf(self.PLAIN, use), ["local", "details"])
        self.assertNotEqual(self.client, self.PLAIN)

    def test_noSuchThing(self):
        """Other attributes raise AttributeError as usual, also in a client without findings."""
        for client in (self.client, self.PLAIN):
            error = self.assertRaises(AttributeError, getattr, client, "shoeSize")
            self.assertEqual(str(error), "'Client' object has no attribute 'shoeSize'")
            self.assertFalse(hasattr(client, "_nothing"))
        self.assertEqual(self.findings.asked, [])


class SecretTests(SynchronousTestCase):
    """No password is in any repr, but values are compared by it."""

    def test_credentials(self):
        """The user is shown and the secret is not, with each method."""
        for method in Method:
            shown = repr(Credentials(method, b"joe", SECRET.encode()))
            self.assertNotIn(SECRET, shown)
            self.assertIn("joe", shown)

    def test_request(self):
        """The secret is not in the repr of a request or a list."""
        credentials = Credentials(Method.PLAIN, b"joe", SECRET.encode())
        request = LoginRequest("imap", credentials, Client("192.0.2.1", 1, TLSState("TLSv1.3", "X")))
        self.assertNotIn(SECRET, repr(request))
        self.assertNotIn(SECRET, str(request))
        self.assertNotIn(SECRET, f"{[request]}")

    def test_route(self):
        """The password for the backend is not shown."""
        self.assertNotIn(SECRET, repr(Route((Backend("h", 1),), b"joe", SECRET.encode())))

    def test_compared(self):
        """Values with different secrets are different."""
        one, other = Credentials(Method.PLAIN, b"joe", b"a"), Credentials(Method.PLAIN, b"joe", b"b")
        self.assertNotEqual(one, other)
        self.assertNotEqual(Route((), b"joe", b"a"), Route((), b"joe", b"b"))


class DenialTests(SynchronousTestCase):
    """Tests for L{Denial.kind}."""

    def test_kind(self):
        """A code of a temporary failure makes a denial temporary, so that it does not refuse the credentials."""
        for code, kind in (
            (b"451", Trouble.TEMPORARY),
            (b"421 4.3.2", Trouble.TEMPORARY),
            (b"535 5.7.8", Trouble.DENIED),
            (b"4", Trouble.DENIED),
            (b"4.7.0", Trouble.DENIED),
            (b"[LIMIT]", Trouble.DENIED),
            (None, Trouble.DENIED),
        ):
            denial = Denial(Trouble.DENIED, b"Later", code)
            self.assertIs(denial.kind, kind, code)
            self.assertEqual(denial.refusesCredentials, kind is Trouble.DENIED, code)
        self.assertIs(Denial(Trouble.PERMANENT, code=b"451").kind, Trouble.PERMANENT)


class FrozenTests(SynchronousTestCase):
    """The values are immutable, except for those that each login makes."""

    def test_noNovelty(self):
        """No attribute can be added to what each login makes."""
        credentials = Credentials(Method.PLAIN)
        client = Client("h")
        for value in (credentials, client, LoginRequest("imap", credentials, client), Route((), b"")):
            self.assertRaises(AttributeError, setattr, value, "novelty", None)

    def test_frozen(self):
        """No attribute can be set or added."""
        values = (
            TLSState("TLSv1.3", "X"),
            Envelope(),
            Backend("h", 1),
            Denial(Trouble.DENIED),
            Refusal(b""),
        )
        for value in values:
            for name in (*[attribute.name for attribute in value.__attrs_attrs__], "novelty"):
                with self.assertRaises(exceptions.FrozenInstanceError):
                    setattr(value, name, None)

    def test_hashable(self):
        """The values can be members of sets."""
        self.assertEqual(len({Backend("h", 1), Backend("h", 1), Backend("h", 2)}), 2)
