"""
Tests with the answers of Mailu's service.
"""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import unquote

from attrs import evolve
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory

from mailgate.config import parse
from mailgate.login import Method
from mailgate.service import Gateway
from mailgate.test.integration.daemon import freePort
from mailgate.test.support.authservices import (
    CLIENT,
    TLS,
    Question,
    Reply,
    ServiceCase,
    ServiceFactory,
    refused,
    routed,
)
from mailgate.test.support.talk import Talk

MAILU_CODES = {
    "authentication": (
        "Authentication credentials invalid",
        {
            "imap": "AUTHENTICATIONFAILED",
            "smtp": "535 5.7.8",
            "submission": "535 5.7.8",
            "pop3": "-ERR Authentication failed",
            "sieve": "AuthFailed",
        },
    ),
    "encryption": ("Must issue a STARTTLS command first", {"smtp": "530 5.7.0"}),
    "ratelimit": (
        "Temporary authentication failure (rate-limit)",
        {
            "imap": "LIMIT",
            "smtp": "451 4.3.2",
            "submission": "451 4.3.2",
            "pop3": "-ERR [LOGIN-DELAY] Retry later",
            "sieve": "AuthFailed",
        },
    ),
}
MAILU_BACKENDS = {"imap": 143, "pop3": 110, "smtp": 10025, "submission": 10025, "sieve": 4190}


def mailu(question: Question, limited: bool = False, demandsTLS: bool = False) -> Reply:
    """core/admin/mailu/internal. C{limited} says whether the client's address has failed too often."""
    method, protocol, port = question["Auth-Method"], question["Auth-Protocol"], question["Auth-Port"]
    address = unquote(question["Client-Ip"])
    assert address == "192.0.2.7"

    def no(why: str, **others: Any) -> Reply:
        status, codes = MAILU_CODES[why]
        return Reply({"Auth-Status": status, "Auth-Error-Code": codes[protocol], **others})

    if port == "25" and method != "none":
        return Reply({"Auth-Status": "AUTH not supported", "Auth-Error-Code": "502 5.5.1"})
    if limited and port not in ("10143", "10025", "14190"):
        return no("ratelimit")
    if method == "none" and protocol == "smtp":
        if demandsTLS and question.get("Auth-SSL") != "on":
            return no("encryption", **{"Auth-Wait": 0})
        return Reply({"Auth-Status": "OK", "Auth-Server": "192.168.203.9", "Auth-Port": 25})
    if method not in ("plain", "login"):
        raise ValueError("SHOULD NOT HAPPEN")
    question["Client-Port"]
    user, password = (unquote(question[name]).encode("iso8859-1").decode("utf8") for name in ("Auth-User", "Auth-Pass"))
    exists = user in ("joe@example.com", "jö e@example.com")
    if not exists or password not in ("sesame", "sésame 100%"):
        return no("authentication", **{"Auth-User-Exists": exists, "Auth-Wait": 0})
    return Reply(
        {
            "Auth-Status": "OK",
            "Auth-Server": "192.168.203.9",
            "Auth-User": user.encode().decode("latin-1"),
            "Auth-User-Exists": exists,
            "Auth-Port": MAILU_BACKENDS[protocol],
        }
    )


class MailuTests(ServiceCase):
    """Mailu's admin container."""

    preset = "auth_http_preset = mailu"

    async def test_accepted(self) -> None:
        """Logins of every protocol are accepted, and get the backend that Mailu has for it."""
        for protocol, port in (("imap", 143), ("pop3", 110), ("sieve", 4190), ("smtp", 10025)):
            answer = await self.ask(mailu, self.preset, protocol=protocol)
            self.assertEqual(answer, routed("192.168.203.9", port))
        self.assertEqual(self.asked["Auth-Protocol"], "submission")
        self.assertEqual((self.asked["Auth-Port"], self.asked["Client-Port"]), ("993", "4711"))

    async def test_allBytes(self) -> None:
        """Names and passwords with spaces, percent signs and characters outside ASCII are passed correctly."""
        user, password = "jö e@example.com".encode(), "sésame 100%".encode()
        answer = await self.ask(mailu, self.preset, user=user, secret=password)
        self.assertEqual(answer, routed("192.168.203.9", 143, user, password))

    async def test_refused(self) -> None:
        """A refusal has the code that Mailu intends for the protocol."""
        invalid = b"Authentication credentials invalid"
        for protocol, told in (
            ("imap", refused(b"[AUTHENTICATIONFAILED] " + invalid, b"AUTHENTICATIONFAILED")),
            ("pop3", refused(b"Authentication failed", b"-ERR Authentication failed")),
            ("smtp", refused(invalid, b"535 5.7.8")),
            ("sieve", evolve(refused(invalid, b"AuthFailed"), reason="code AuthFailed")),
        ):
            self.assertEqual(await self.ask(mailu, self.preset, protocol=protocol, secret=b"no"), told)

    async def test_limited(self) -> None:
        """So does the refusal of a client that has failed too often."""
        limit = b"Temporary authentication failure (rate-limit)"
        for protocol, told in (
            ("imap", refused(b"[LIMIT] " + limit, b"LIMIT")),
            ("pop3", refused(b"[LOGIN-DELAY] Retry later", b"-ERR [LOGIN-DELAY] Retry later")),
            ("smtp", refused(limit, b"451 4.3.2")),
        ):
            answer = await self.ask(lambda asked: mailu(asked, limited=True), self.preset, protocol=protocol)
            self.assertEqual(answer, told)

    async def test_portsOfItsOwn(self) -> None:
        """An Auth-Port of the operator replaces the preset's: the webmail's is not limited."""
        port = "auth_http_header = Auth-Port 10143"
        answer = await self.ask(lambda asked: mailu(asked, limited=True), self.preset, port)
        self.assertEqual(answer, routed("192.168.203.9", 143))
        self.assertEqual(self.asked.spelling.count("Auth-Port"), 1)

    async def test_mailExchanger(self) -> None:
        """Port 25 takes mail without a login, with TLS if that is demanded, and no logins."""
        port = "auth_http_header = Auth-Port 25"
        about: dict[str, Any] = {"protocol": "smtp", "method": Method.NONE, "user": b"", "secret": b""}
        self.assertEqual(await self.ask(mailu, self.preset, port, **about), routed("192.168.203.9", 25, b"", None))
        self.assertEqual(self.asked["Auth-Protocol"], "smtp")
        strict = await self.ask(lambda asked: mailu(asked, demandsTLS=True), self.preset, port, **about)
        self.assertEqual(strict, refused(b"Must issue a STARTTLS command first", b"530 5.7.0"))
        answer = await self.ask(mailu, self.preset, port, protocol="smtp")
        self.assertEqual(answer, refused(b"AUTH not supported", b"502 5.5.1"))

    async def test_withoutPreset(self) -> None:
        """With nginx's requests it misses the port and fails: logins get a temporary failure."""
        self.assertFailed(await self.ask(mailu), "500 without Auth-Status")

    async def test_otherMethods(self) -> None:
        """It raises an exception for a digest, which is a failure of the service."""
        answer = await self.ask(mailu, self.preset, method=Method.CRAM_MD5)
        self.assertFailed(answer, "500 without Auth-Status")


class MailuGatewayTests(ServiceCase):
    """A whole gateway with Mailu."""

    async def start(self, protocol: str) -> Any:
        """Return a client of a gateway with a server of C{protocol}."""
        self.factory = ServiceFactory(mailu)
        port = self.reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(self.disconnected)
        service, own = port.getHost().port, freePort()
        settings = parse(
            f"[server x]\nprotocol = {protocol}\nlisten = 127.0.0.1:{own}\nauth_http = 127.0.0.1:{service}/auth\n"
            "auth_http_preset = mailu\nauth_http_header =\n    Client-Ip 192.0.2.7\n    X-At $server_addr $session_id"
        )
        gateway = Gateway(settings, self.reactor)
        gateway.privilegedStartService()
        gateway.startService()
        self.addCleanup(gateway.stopService)
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", own)
        client: Any = await endpoint.connect(Factory.forProtocol(Talk))
        return client

    async def test_told(self) -> None:
        """Mailu gets the ports of the connection, and a client gets its refusal in IMAP's words."""
        client = await self.start("imap")
        ports = tuple(str(end.port) for end in (client.transport.getPeer(), client.transport.getHost()))
        heard = await client.asks(b"a LOGIN joe@example.com no", b"\r\na ")
        await client.lost
        refusal = b"\r\na NO [AUTHENTICATIONFAILED] Authentication credentials invalid\r\n"
        self.assertTrue(heard.endswith(refusal + b"* BYE Refused, closing connection\r\n"), heard)
        self.assertEqual((self.asked["Auth-Port"], self.asked["Client-Port"]), ports)
        self.assertRegex(self.asked["X-At"], r"\A127\.0\.0\.1 \S+\Z")

    async def test_sieve(self) -> None:
        """A ManageSieve client gets the text alone: Mailu's code is none of RFC 5804."""
        client = await self.start("sieve")
        message = base64.b64encode(b"\0joe@example.com\0no")
        heard = await client.asks(b'AUTHENTICATE "PLAIN" "%b"' % message, b"NO ")
        await client.lost
        refusal = b'\r\nNO "Authentication credentials invalid"\r\nBYE "Refused, closing connection"\r\n'
        self.assertTrue(client.heard.endswith(refusal), heard)
        self.assertEqual(self.asked["Auth-Protocol"], "sieve")


def mailuForDovecot(question: Question) -> Reply:
    """The same endpoint, as Mailu's core/nginx/dovecot/login.lua uses it: exactly these headers have a meaning."""
    for name in ("Auth-Port", "Auth-User", "Auth-Pass", "Auth-Protocol", "Client-Ip", "Client-Port", "Auth-SSL"):
        question[name]
    if question["Auth-Method"].upper() != "PLAIN":
        return Reply({}, 503)
    if unquote(question["Auth-Pass"]) != "sesame":
        return Reply({"Auth-Status": "Authentication credentials invalid"})
    return Reply({"Auth-Status": "OK", "Auth-Server": "192.168.203.9", "Auth-Port": "10025"})


class MailuLuaTests(ServiceCase):
    """Requests with the preset match those of Mailu's own Dovecot front end, over TLS."""

    preset = "auth_http_preset = mailu"

    def login(self, **about: Any) -> Any:
        client = evolve(CLIENT, tls=TLS)
        return self.ask(mailuForDovecot, self.preset, protocol="smtp", client=client, **about)

    async def test_accepted(self) -> None:
        """All headers that it reads are present."""
        self.assertEqual(await self.login(), routed("192.168.203.9", 10025))
        self.assertEqual((self.asked["Auth-Protocol"], self.asked["Auth-SSL"]), ("submission", "on"))

    async def test_refused(self) -> None:
        """A refusal without Auth-Wait ends the connection."""
        self.assertEqual(await self.login(secret=b"no"), refused(b"Authentication credentials invalid"))

    async def test_notOK(self) -> None:
        """A status other than 200 without headers is a failure of the service."""
        answer = await self.login(method=Method.CRAM_MD5)
        self.assertFailed(answer, "503 without Auth-Status")
