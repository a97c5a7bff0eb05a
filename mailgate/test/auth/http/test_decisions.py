"""
Tests for L{mailgate.auth.http.decisions}.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from mailgate.auth.http.decisions import SSL_OFF, SSL_VERIFY_OFF
from mailgate.auth.http.dialect import NGINX
from mailgate.auth.http.exchange import Unusable, route
from mailgate.auth.http.headers import valuesOf
from mailgate.auth.http.settings import HTTPSettings
from mailgate.backend.identity import idCommand
from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.login import (
    Backend,
    BackendGroup,
    BackendTLS,
    Client,
    Credentials,
    Denial,
    LoginRequest,
    Method,
    Route,
    RouteOptions,
    TLSOptions,
)
from mailgate.test.support.httpagent import byName
from mailgate.test.support.httpauthenticator import ACCEPTED, ROUTE, UNDECIDED, AuthenticatorTestCase

REQUEST = LoginRequest("imap", Credentials(Method.PLAIN, b"joe", b"sesame"), Client("192.0.2.7", 4711))
FIRST = ("Auth-Status: OK", "Auth-Server: 10.0.0.1", "Auth-Port: 143")
DIGEST = b64encode(bytes(range(32))).decode()
PIN = "key:" + bytes(range(32)).hex()
WITHOUT_PASSWORDS = evolve(NGINX, showsPassword=False)


def fieldsOf(*lines: str) -> list[tuple[bytes, bytes]]:
    """Return names and values from texts like C{"Name: value"}."""
    pairs = (line.partition(": ")[::2] for line in lines)
    return [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in pairs]


class DecisionsTestCase(SynchronousTestCase):
    """Answers with additional headers."""

    def read(self, *lines: str, request: LoginRequest = REQUEST, may: Any = (), dialect: Any = NGINX) -> Route:
        """Return the route of an answer. Concerns become C{doubts}."""
        self.doubts: list[tuple[str, bytes]] = []
        values = byName(fieldsOf(*lines))
        return route(request, values, None, dialect, may, lambda concern, value: self.doubts.append((concern, value)))

    def options(self, *lines: str, **others: Any) -> RouteOptions | None:
        """Return the options of an answer."""
        return self.read(*FIRST, *lines, **others).options

    def failure(self, *lines: str, **others: Any) -> Unusable:
        """Return why an answer is a failure of the service."""
        error: Unusable = self.assertRaises(Unusable, self.read, *FIRST, *lines, **others)
        return error

    def ignored(self, *lines: str, **others: Any) -> str:
        """Check that the headers have no effect, and return the one concern about them."""
        self.assertIs(self.options(*lines, **others), None)
        ((concern, _),) = self.doubts
        return concern


class ServerTests(DecisionsTestCase):
    """Which backends the gateway tries."""

    def test_none(self) -> None:
        """An answer without these headers has no options, whatever class its headers have."""
        expected = Route((Backend("10.0.0.1", 143),), b"joe", b"sesame")
        self.assertEqual(self.read(*FIRST), expected)
        plain = Headers()
        for name, value in fieldsOf(*FIRST):
            plain.addRawHeader(name, value)
        self.assertEqual(route(REQUEST, valuesOf(plain), None), expected)
        plain.addRawHeader(b"AUTH-PROXY-SSL", b"on")
        self.assertEqual(
            route(REQUEST, valuesOf(plain), None).options, RouteOptions(tls=TLSOptions(BackendTLS.IMPLICIT))
        )

    def test_upstream(self) -> None:
        """Auth-Upstream goes before Auth-Server, and needs none."""
        for lines in (FIRST, FIRST[:1]):
            found = self.read(*lines, "Auth-Upstream: store", "Auth-Server-Next: 10.0.0.2")
            self.assertEqual(found.backends, (BackendGroup("store", isName=True),))
            self.assertIs(found.options, None)

    def test_badUpstream(self) -> None:
        """A name that no section can have is a failure: no variable in it is replaced, and it is no address."""
        for name in ("", "$user", "${pool}", "10.0.0.1", "10.0.0.1:143", "a b", "unix:/x", "x\x1b[2J", "x" * 300):
            error = self.failure(f"Auth-Upstream: {name}")
            self.assertEqual(str(error), "sent an Auth-Upstream that is no name of an upstream")
            self.assertEqual(error.quoted, name.encode())

    def test_next(self) -> None:
        """Auth-Server-Next follows Auth-Server. The default port is that of Auth-Port."""
        servers = "10.0.0.2, mx.test:1143,[2001:db8::1] , [2001:db8::2]:993, unix:/run/imap"
        found = self.read(*FIRST, f"Auth-Server-Next: {servers}")
        self.assertEqual(
            found.backends,
            (
                Backend("10.0.0.1", 143),
                Backend("10.0.0.2", 143),
                Backend("mx.test", 1143),
                Backend("2001:db8::1", 143),
                Backend("2001:db8::2", 993),
                Backend("unix:/run/imap", 0),
            ),
        )
        self.assertEqual(self.doubts, [])

    def test_badNext(self) -> None:
        """An invalid server is left out, with a warning, and the others stay."""
        for bad in ("", "2001:db8::1", "10.0.0.300", "a:0", "a:b", "a:1:2", "[::1", "[::1]143", "unix:x", "a b"):
            found = self.read(*FIRST, f"Auth-Server-Next: {bad}, 10.0.0.2")
            self.assertEqual(found.backends[1:], (Backend("10.0.0.2", 143),), bad)
            ((concern, value),) = self.doubts
            self.assertIn("sent an invalid server in Auth-Server-Next", concern)
            self.assertEqual(value, bad.encode())
        self.assertEqual(len(self.read(*FIRST, f"Auth-Server-Next: {', '.join(['a'] * 500)}").backends), 17)
        self.assertIn("more than 16 servers", self.doubts[0][0])

    def test_key(self) -> None:
        """Auth-Upstream-Key is any text of up to 1,024 bytes."""
        self.assertEqual(self.options("Auth-Upstream-Key: tenant 42"), RouteOptions(key=b"tenant 42"))
        for bad in ("", "x" * 1025):
            self.assertIn("invalid Auth-Upstream-Key", self.ignored(f"Auth-Upstream-Key: {bad}"))


class TLSTests(DecisionsTestCase):
    """The TLS of the connection to the backend."""

    def tls(self, *lines: str, **others: Any) -> TLSOptions:
        options = self.options(*lines, **others)
        assert options is not None and options.tls is not None
        self.assertEqual(options, RouteOptions(tls=options.tls))
        return options.tls

    def test_all(self) -> None:
        """Each header decides on its own."""
        for word, mode in (("off", BackendTLS.OFF), ("on", BackendTLS.IMPLICIT), ("starttls", BackendTLS.STARTTLS)):
            self.assertEqual(self.tls(f"Auth-Proxy-SSL: {word}", may=(SSL_OFF,)), TLSOptions(mode))
        self.assertEqual(self.tls("Auth-Proxy-SSL-Verify: on"), TLSOptions(verify=True))
        for name in ("mail.test", "192.0.2.1", "2001:db8::1", "[2001:db8::1]"):
            self.assertEqual(self.tls(f"Auth-Proxy-SSL-Name: {name}"), TLSOptions(name=name.strip("[]")))

    def test_pins(self) -> None:
        """Pins have the grammar of proxy_ssl_pin, with blanks or commas between them."""
        for text in (
            f"sha256//{DIGEST} {'ab' * 32}",
            f"sha256//{DIGEST},{'AB' * 32}",
            f"sha256//{DIGEST}, {'ab:' * 31}ab",
        ):
            self.assertEqual(
                self.tls(f"Auth-Proxy-SSL-Pin: {text}"), TLSOptions(pins=(PIN, "certificate:" + "ab" * 32))
            )

    def test_last(self) -> None:
        """The last of several headers counts."""
        self.assertEqual(self.tls("Auth-Proxy-SSL: off", "auth-proxy-ssl: starttls"), TLSOptions(BackendTLS.STARTTLS))

    def test_verifyOff(self) -> None:
        """Without verification the gateway connects only if auth_http_may allows that."""
        lines = ("Auth-Proxy-SSL-Verify: off", f"Auth-Proxy-SSL-Pin: {'ab' * 32}")
        self.assertIn("needs auth_http_may = ssl_verify_off", str(self.failure(*lines)))
        self.assertIs(self.tls(*lines, may=(SSL_VERIFY_OFF,)).verify, False)

    def test_off(self) -> None:
        """Only auth_http_may allows to connect without TLS where the directives demand it."""
        self.assertIs(self.tls("Auth-Proxy-SSL: off").mayDisable, False)
        self.assertIs(self.tls("Auth-Proxy-SSL: off", may=(SSL_VERIFY_OFF,)).mayDisable, False)
        self.assertIs(self.tls("Auth-Proxy-SSL: off", may=(SSL_OFF,)).mayDisable, True)

    def test_bad(self) -> None:
        """An invalid value is a failure, and quoted."""
        bad = {
            "Auth-Proxy-SSL": ("", "On", "yes", "on, off", "tls"),
            "Auth-Proxy-SSL-Verify": ("", "no", "On", "0"),
            "Auth-Proxy-SSL-Name": ("", "a b", "$host", "*", "a\0b", "x" * 300, "fe80::1%eth0", "host:143"),
            "Auth-Proxy-SSL-Pin": ("", ",", "sha256//AAAA", "ab" * 31, f"{'ab' * 32} x", f"sha1//{DIGEST}", "é" * 64),
        }
        for name, values in bad.items():
            for value in values:
                error = self.failure(f"{name}: {value}", may=(SSL_VERIFY_OFF,))
                self.assertIn(f"sent an invalid {name}: must", str(error))
                self.assertEqual(error.quoted, value.encode())
        many = " ".join(f"{number:064x}" for number in range(17))
        self.assertIn("must have 1 to 16 digests", str(self.failure(f"Auth-Proxy-SSL-Pin: {many}")))

    def test_misspelt(self) -> None:
        """An unknown header about TLS may be a misspelt demand for it. Others are ignored, with a warning."""
        error = self.failure("Auth-Proxy-SSL-Pins: x")
        self.assertEqual(
            (str(error), error.quoted), ("sent a header about TLS that does not exist", b"auth-proxy-ssl-pins")
        )
        self.assertIn("that does not exist", self.ignored("Auth-Proxy-Color: blue"))


class LoginTests(DecisionsTestCase):
    """How the gateway logs in."""

    def test_method(self) -> None:
        """The method is a word of proxy_auth."""
        for word in ("plain", "login", "external", "xoauth2", "oauthbearer", "none"):
            self.assertEqual(self.options(f"Auth-Proxy-Method: {word}"), RouteOptions(method=word))
        for bad in ("", "auto", "PLAIN", "cram-md5", "plain login"):
            self.assertIn("sent an invalid Auth-Proxy-Method", str(self.failure(f"Auth-Proxy-Method: {bad}")))
        pop3 = evolve(REQUEST, protocol="pop3")
        self.assertIn("none for POP3", str(self.failure("Auth-Proxy-Method: none", request=pop3)))

    def test_unproven(self) -> None:
        """A service that has not seen the password cannot let the gateway log in without it."""
        for word in ("none", "external"):
            error = self.failure(f"Auth-Proxy-Method: {word}", dialect=WITHOUT_PASSWORDS)
            self.assertIn(f"sent Auth-Proxy-Method: {word} although it did not receive", str(error))
        plain = self.read(*FIRST, "Auth-Proxy-Method: plain", dialect=WITHOUT_PASSWORDS)
        self.assertFalse(plain.judged)

    def test_withoutPassword(self) -> None:
        """After a digest or a certificate no password is known, and these methods need none."""
        for method in (Method.CRAM_MD5, Method.EXTERNAL):
            request = evolve(REQUEST, credentials=Credentials(method, b"joe", b"", b"<1@x>"))
            self.assertEqual(str(self.failure(request=request)), "did not send password")
            self.assertEqual(str(self.failure("Auth-Proxy-Method: plain", request=request)), "did not send password")
            found = self.read(*FIRST, "Auth-Proxy-Method: external", request=request)
            self.assertEqual((found.password, found.judged), (None, True))

    def test_identities(self) -> None:
        """The identities are those of SASL. Empty ones and control characters are a failure."""
        options = self.options("Auth-Proxy-Authid: master user", "Auth-Proxy-Authzid: jörg")
        self.assertEqual(options, RouteOptions(authid=b"master user", authzid="jörg".encode()))
        for name in ("Auth-Proxy-Authid", "Auth-Proxy-Authzid"):
            for bad in ("", "a\tb", "a\0b", "a\rb", "\x7f", "x" * 1025):
                error = self.failure(f"{name}: {bad}")
                self.assertIn(f"sent an invalid {name}", str(error))
                self.assertEqual(error.quoted, bad.encode())
            self.assertIn("LOGIN has no place", str(self.failure(f"{name}: x", "Auth-Proxy-Method: login")))

    def test_masterWithoutJudgement(self) -> None:
        """A service that has not seen the password cannot send the master user's."""
        self.failure("Auth-Proxy-Authid: master", "Auth-Pass: secret", dialect=WITHOUT_PASSWORDS)

    def test_hold(self) -> None:
        """The hold is a number of seconds, 120 at most."""
        for text, seconds in (("5", 5.0), ("120", 120.0), ("121", 120.0), ("9" * 18, 120.0)):
            self.assertEqual(self.options(f"Auth-Proxy-Hold: {text}"), RouteOptions(hold=seconds))
        self.assertIs(self.options("Auth-Proxy-Hold: 0"), None)
        for bad in ("", "-1", "1.5", "5s", "nan", "9" * 19):
            self.assertIn("sent an invalid Auth-Proxy-Hold", self.ignored(f"Auth-Proxy-Hold: {bad}"))

    def test_lifetime(self) -> None:
        """A limit that is not understood is a failure: the session would have none."""
        for text, seconds in (("0", 0.0), ("3300", 3300.0), ("9" * 18, 366 * 24 * 3600.0)):
            self.assertEqual(self.options(f"Auth-Session-Timeout: {text}"), RouteOptions(lifetime=seconds))
        for bad in ("", "-5", "1h", "1.5"):
            self.assertIn("sent an invalid Auth-Session-Timeout", str(self.failure(f"Auth-Session-Timeout: {bad}")))


class IdentityTests(DecisionsTestCase):
    """What the backend receives about the client."""

    def test_identity(self) -> None:
        """Off tells the backend nothing. Other words are ignored, with a warning."""
        self.assertEqual(self.options("Auth-Proxy-Identity: off"), RouteOptions(identifies=False))
        self.assertIs(self.options("Auth-Proxy-Identity: auto"), None)
        self.assertEqual(self.doubts, [])
        for bad in ("", "on", "Off"):
            self.assertIn("sent an invalid Auth-Proxy-Identity", self.ignored(f"Auth-Proxy-Identity: {bad}"))

    def test_mailWithoutLogin(self) -> None:
        """Without a login only the client's address limits what a client may send."""
        request = LoginRequest("smtp", Credentials(Method.NONE), Client("192.0.2.7", 1))
        self.assertIn("mail without a login", self.ignored("Auth-Proxy-Identity: off", request=request))

    def test_forward(self) -> None:
        """Each header is one field; of several with the same key the last one counts."""
        lines = [f"Auth-Proxy-Forward: {text}" for text in ("tenant=42", "a=b = c", "Tenant=43", "empty=")]
        options = self.options(*lines)
        assert options is not None
        self.assertEqual(options.forward, ((b"Tenant", b"43"), (b"a", b"b = c"), (b"empty", b"")))
        self.assertNotIn("43", repr(options))

    def test_badForward(self) -> None:
        """A field that not every protocol can carry is left out; the warning does not quote its value."""
        for bad in (
            "",
            "a",
            "=b",
            "a b=c",
            "a=\0",
            "a=\t1",
            "a=\x1b[2J",
            "ä=b",
            "a=é",
            f"{'k' * 21}=v",
            f"k={'v' * 1025}",
        ):
            self.assertIn("sent an invalid Auth-Proxy-Forward", self.ignored(f"Auth-Proxy-Forward: {bad}"))
            self.assertEqual(self.doubts[0][1], bad.partition("=")[0].encode())

    def test_forwardBounds(self) -> None:
        """The fields are bounded, in number and in bytes. An ID command has room for all of them."""
        many = self.options(*(f"Auth-Proxy-Forward: k{number}=v" for number in range(40)))
        assert many is not None
        self.assertEqual(len(many.forward), 24)
        self.assertEqual(len(self.doubts), 16)
        large = self.options(*(f"Auth-Proxy-Forward: {'k' * 18}{number:02}={chr(92) * 105}" for number in range(24)))
        assert large is not None
        self.assertGreater(len(large.forward), 20)
        client = Client("2001:db8:1111:2222:3333:4444:5555:6666", 40123, local="2001:db8:1111:2222:3333:4444:5555:7777")
        command = idCommand(b"t" * 64, evolve(client, localPort=40000, session="s" * 64), (), 7, large.forward)
        self.assertEqual(command.count(b"x-forward-"), len(large.forward))
        self.assertLess(len(command), 8000)


class LimitTests(DecisionsTestCase):
    """C{Auth-Limit}."""

    def test_none(self) -> None:
        """With C{none} the login does not count for limits."""
        self.assertEqual(self.read(*FIRST, "Auth-Limit: none").options, RouteOptions(isUnlimited=True))
        self.assertEqual(self.doubts, [])
        self.assertIsNone(self.read(*FIRST).options)

    def test_invalid(self) -> None:
        """Another value has no effect, and is a warning. The login counts."""
        for value in ("None", "off", ""):
            self.assertIsNone(self.read(*FIRST, f"Auth-Limit: {value}").options)
            ((concern, quoted),) = self.doubts
            self.assertIn("invalid Auth-Limit", concern)
            self.assertEqual(quoted, value.encode())


class LogTests(AuthenticatorTestCase):
    """What the log says about such answers."""

    urls = "http://one:9000/auth?key=hush"

    def answer(self, *fields: str) -> Route | Denial:
        """Return the answer to a login to which the service says this."""
        judged = self.authenticate()
        self.agents[0].answer(*ACCEPTED, *fields)
        answer: Route | Denial = self.successResultOf(judged)
        return answer

    def test_failure(self) -> None:
        """An invalid header on which security depends is a temporary failure and one line that quotes it escaped."""
        self.assertEqual(self.answer("Auth-Proxy-SSL: sta\x1b[2Jrttls"), UNDECIDED)
        (line,) = self.log()
        self.assertTrue(line.startswith("auth service failed: "))
        self.assertIn("http://one:9000/auth sent an invalid Auth-Proxy-SSL: must be off, on or starttls", line)
        self.assertIn(r'text "sta\x1b[2Jrttls"', line)
        self.answer("Auth-Upstream: $user")
        self.assertIn('text "$user"', self.log()[0])

    def test_warning(self) -> None:
        """Another invalid header is a warning, once for many logins, and the login goes on."""
        for number in range(3):
            self.assertEqual(self.answer(f"Auth-Proxy-Hold: {number}\x1bs"), ROUTE)
        (line,) = self.log()
        self.assertTrue(line.startswith("auth service warning: "))
        self.assertIn("sent an invalid Auth-Proxy-Hold, which has no effect", line)
        self.assertIn(r'text "0\x1bs"', line)
        self.answer("Auth-Proxy-Identity: x")
        self.assertEqual(len(self.log()), 1)

    def test_may(self) -> None:
        """auth_http_may allows what is refused without it."""
        self.assertEqual(self.answer("Auth-Proxy-SSL-Verify: off"), UNDECIDED)
        self.assertIn("needs auth_http_may = ssl_verify_off", self.log()[0])
        self.authenticator = self.make(self.agents, may=("ssl_verify_off",))
        expected = evolve(ROUTE, options=RouteOptions(tls=TLSOptions(verify=False)))
        self.assertEqual(self.answer("Auth-Proxy-SSL-Verify: off"), expected)

    def test_directive(self) -> None:
        """The directive has words; others stop the start."""
        text = "[server imap]\nprotocol = imap\nlisten = 127.0.0.1:1\nauth_http = http://127.0.0.1:9/\n"
        self.assertEqual(parse(text).servers[0][HTTPSettings].may, ())
        self.assertEqual(
            parse(f"{text}auth_http_may = ssl_verify_off\n").servers[0][HTTPSettings].may, (SSL_VERIFY_OFF,)
        )
        self.assertRaises(ConfigurationError, parse, f"{text}auth_http_may = everything\n")
