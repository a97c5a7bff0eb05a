"""
Services for C{auth_http} as they are in the wild, each scripted after what it reads and sends. They are asked over a
real socket, by L{mailgate.auth.http.authenticator} as its configuration says.

A service that indexes a header fails where it is missing, as the real one does; one that only looks for it does not.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import TestCase

from mailgate.auth.http.authenticator import KIND
from mailgate.config import parse
from mailgate.log.journal import Journal
from mailgate.login import (
    Backend,
    Client,
    Credentials,
    Denial,
    Envelope,
    LoginRequest,
    Method,
    Route,
    TLSState,
    Trouble,
)
from mailgate.service import Gateway
from mailgate.test.integration.daemon import freePort
from mailgate.test.support.talk import Talk

UNDECIDED = Denial(Trouble.TEMPORARY)
CLIENT = Client("192.0.2.7", 4711, local="198.51.100.1", localPort=993, session="7-abc")
TLS = TLSState("TLSv1.3", "TLS_AES_256_GCM_SHA384")
USER = b"joe@example.com"
PASSWORD = b"sesame"


class Question(dict[str, str]):
    """The headers of a request by their names in lower case, as a web framework gives them: blanks around them gone."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        super().__init__()
        self.spelling: list[str] = []
        for line in lines:
            name, _, value = line.decode("latin-1").partition(":")
            self.spelling.append(name)
            self[name.lower()] = value.strip(" \t")

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


@frozen
class Reply:
    """What a service answers: headers in its own spelling, its status, and a body that nobody looks at."""

    headers: Mapping[str, Any]
    code: int = 200
    body: bytes = b""
    version: str = "1.1"


Service = Callable[[Question], Reply]


class Server(Protocol):
    """One connection to a service."""

    factory: ServiceFactory

    def __init__(self) -> None:
        self._received = b""
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.factory.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            _, *lines = head.split(b"\r\n")
            question = Question(lines)
            self.factory.asked.append(question)
            try:
                reply = self.factory.service(question)
            except (KeyError, ValueError):
                reply = Reply({"Content-Type": "text/html"}, 500, b"<h1>Internal Server Error</h1>")
            self.answer(reply)

    def answer(self, reply: Reply) -> None:
        lines = [f"HTTP/{reply.version} {reply.code} Whatever", *(f"{n}: {v}" for n, v in reply.headers.items())]
        if reply.code != 204:
            lines.append(f"Content-Length: {len(reply.body)}")
        assert self.transport is not None
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + reply.body)
        if reply.version == "1.0":
            self.transport.loseConnection()

    def connectionLost(self, reason: object = None) -> None:
        self.lost.callback(None)


class ServiceFactory(Factory):
    """A C{service}, and what it has been C{asked}."""

    noisy = False

    def __init__(self, service: Service) -> None:
        self.service = service
        self.asked: list[Question] = []
        self.connections: list[Server] = []

    def buildProtocol(self, addr: object) -> Any:
        server = Server()
        server.factory = self
        return server


class ServiceCase(TestCase):
    """A service, and a gateway's server that is configured to ask it."""

    timeout = 30

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.events: list[Any] = []
        self.observer: Any = self.events.append

    def ask(self, service: Service, *options: str, protocol: str = "imap", attempts: int = 1, **about: Any) -> Any:
        """
        Have C{service} judge a login, the last of C{attempts}, at a server of C{protocol} with C{options}: the answer,
        in a Deferred. C{about} changes it.
        """
        self.factory = ServiceFactory(service)
        port = self.reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        lines = "\n".join(
            (f"auth_http = http://127.0.0.1:{port.getHost().port}/auth", "listen = 127.0.0.1:1", *options)
        )
        (server,) = parse(f"[server x]\nprotocol = {protocol}\n{lines}").servers
        journal = Journal(LogLevel.info, self.observer)
        authenticator = KIND.build(server, None, self.reactor, journal)
        self.addCleanup(self.disconnected)
        self.addCleanup(authenticator.close)
        credentials = Credentials(
            about.pop("method", Method.PLAIN), about.pop("user", USER), about.pop("secret", PASSWORD), b"<salt>"
        )
        request = LoginRequest(protocol, credentials, CLIENT, attempts)
        return authenticator.authenticate(evolve(request, **about))

    def disconnected(self) -> Deferred[Any]:
        """Fires when the service has no connection any more."""
        return gatherResults([connection.lost for connection in self.factory.connections])

    @property
    def asked(self) -> Question:
        """What the service has been asked, once."""
        (question,) = self.factory.asked
        return question

    def assertFailed(self, answer: Any, reason: str) -> None:
        """The service has failed for C{reason}, which is logged; the client is told to try again later."""
        self.assertEqual(answer, UNDECIDED)
        (logged,) = [formatEvent(event) for event in self.events]
        self.assertIn(reason, logged)


def routed(host: str, port: int, user: bytes = USER, password: bytes | None = PASSWORD, **others: Any) -> Route:
    """An acceptance."""
    return Route((Backend(host, port),), user, password, **others)


def refused(text: bytes, code: bytes | None = None, wait: float = 0) -> Denial:
    """A refusal; without a pause it ends the connection."""
    return Denial(Trouble.DENIED, text, code, wait, close=not wait)


# Mailu.

MAILU_CODES = {
    "authentication": (
        "Authentication credentials invalid",
        {
            "imap": "AUTHENTICATIONFAILED",
            "smtp": "535 5.7.8",
            "submission": "535 5.7.8",
            "pop3": "-ERR Authentication failed",
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
        },
    ),
}
MAILU_BACKENDS = {"imap": 143, "pop3": 110, "smtp": 10025, "submission": 10025}


def mailu(question: Question, limited: bool = False, demandsTLS: bool = False) -> Reply:
    """core/admin/mailu/internal: C{limited} says whether the client's address has failed too often."""
    method, protocol, port = question["Auth-Method"], question["Auth-Protocol"], question["Auth-Port"]
    address = unquote(question["Client-Ip"])
    assert address == "192.0.2.7"

    def no(why: str, **others: Any) -> Reply:
        status, codes = MAILU_CODES[why]
        return Reply({"Auth-Status": status, "Auth-Error-Code": codes[protocol], **others})

    if port == "25" and method != "none":
        return Reply({"Auth-Status": "AUTH not supported", "Auth-Error-Code": "502 5.5.1"})
    if limited and port not in ("10143", "10025"):
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
        """Every protocol is let in, and led to the backend that Mailu has for it."""
        for protocol, port in (("imap", 143), ("pop3", 110), ("smtp", 10025)):
            answer = await self.ask(mailu, self.preset, protocol=protocol)
            self.assertEqual(answer, routed("192.168.203.9", port))
        self.assertEqual(self.asked["Auth-Protocol"], "submission")
        self.assertEqual((self.asked["Auth-Port"], self.asked["Client-Port"]), ("993", "4711"))

    async def test_allBytes(self) -> None:
        """Names and passwords that are not ASCII, with blanks and percent signs, come through."""
        user, password = "jö e@example.com".encode(), "sésame 100%".encode()
        answer = await self.ask(mailu, self.preset, user=user, secret=password)
        self.assertEqual(answer, routed("192.168.203.9", 143, user, password))

    async def test_refused(self) -> None:
        """A refusal comes with the code that Mailu means for the protocol."""
        invalid = b"Authentication credentials invalid"
        for protocol, told in (
            ("imap", refused(b"[AUTHENTICATIONFAILED] " + invalid, b"AUTHENTICATIONFAILED")),
            ("pop3", refused(b"Authentication failed", b"-ERR Authentication failed")),
            ("smtp", refused(invalid, b"535 5.7.8")),
        ):
            self.assertEqual(await self.ask(mailu, self.preset, protocol=protocol, secret=b"no"), told)

    async def test_limited(self) -> None:
        """So does that of a client which has failed too often."""
        limit = b"Temporary authentication failure (rate-limit)"
        for protocol, told in (
            ("imap", refused(b"[LIMIT] " + limit, b"LIMIT")),
            ("pop3", refused(b"[LOGIN-DELAY] Retry later", b"-ERR [LOGIN-DELAY] Retry later")),
            ("smtp", refused(limit, b"451 4.3.2")),
        ):
            answer = await self.ask(lambda asked: mailu(asked, limited=True), self.preset, protocol=protocol)
            self.assertEqual(answer, told)

    async def test_portsOfItsOwn(self) -> None:
        """What the operator writes as Auth-Port is the port: the webmail's is not limited, where ours is another."""
        port = "auth_http_header = Auth-Port 10143"
        answer = await self.ask(lambda asked: mailu(asked, limited=True), self.preset, port)
        self.assertEqual(answer, routed("192.168.203.9", 143))
        self.assertEqual(self.asked.spelling.count("Auth-Port"), 1)

    async def test_mailExchanger(self) -> None:
        """Port 25 takes mail without a login, by TLS if that is demanded, and no logins."""
        port = "auth_http_header = Auth-Port 25"
        about: dict[str, Any] = {"protocol": "smtp", "method": Method.NONE, "user": b"", "secret": b""}
        self.assertEqual(await self.ask(mailu, self.preset, port, **about), routed("192.168.203.9", 25, b"", None))
        self.assertEqual(self.asked["Auth-Protocol"], "smtp")
        strict = await self.ask(lambda asked: mailu(asked, demandsTLS=True), self.preset, port, **about)
        self.assertEqual(strict, refused(b"Must issue a STARTTLS command first", b"530 5.7.0"))
        answer = await self.ask(mailu, self.preset, port, protocol="smtp")
        self.assertEqual(answer, refused(b"AUTH not supported", b"502 5.5.1"))

    async def test_withoutPreset(self) -> None:
        """Asked as nginx asks it has no port to look at, and fails: nobody is told of a wrong password."""
        self.assertFailed(await self.ask(mailu), "500 without Auth-Status")

    async def test_otherMethods(self) -> None:
        """It raises an exception for a digest, which is its failure as well."""
        answer = await self.ask(mailu, self.preset, method=Method.CRAM_MD5)
        self.assertFailed(answer, "500 without Auth-Status")


class MailuGatewayTests(ServiceCase):
    """A whole gateway before Mailu."""

    async def test_told(self) -> None:
        """Mailu is told of the ports of the connection as they are, and a client of its refusal in IMAP's words."""
        self.factory = ServiceFactory(mailu)
        port = self.reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(self.disconnected)
        service, imap = port.getHost().port, freePort()
        settings = parse(
            f"[server imap]\nprotocol = imap\nlisten = 127.0.0.1:{imap}\nauth_http = 127.0.0.1:{service}/auth\n"
            "auth_http_preset = mailu\nauth_http_header =\n    Client-Ip 192.0.2.7\n    X-At $server_addr $session_id"
        )
        gateway = Gateway(settings, self.reactor)
        gateway.privilegedStartService()
        gateway.startService()
        self.addCleanup(gateway.stopService)
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", imap)
        client: Any = await endpoint.connect(Factory.forProtocol(Talk))
        ports = (str(imap), str(client.transport.getHost().port))
        heard = await client.asks(b"a LOGIN joe@example.com no", b"\r\na ")
        await client.lost
        refusal = b"\r\na NO [AUTHENTICATIONFAILED] Authentication credentials invalid\r\n"
        self.assertTrue(heard.endswith(refusal + b"* BYE Refused, closing connection\r\n"), heard)
        self.assertEqual((self.asked["Auth-Port"], self.asked["Client-Port"]), ports)
        self.assertRegex(self.asked["X-At"], r"\A127\.0\.0\.1 \S+\Z")


def mailuForDovecot(question: Question) -> Reply:
    """The same endpoint, as Mailu's core/nginx/dovecot/login.lua asks it: exactly these headers have a meaning."""
    for name in ("Auth-Port", "Auth-User", "Auth-Pass", "Auth-Protocol", "Client-Ip", "Client-Port", "Auth-SSL"):
        question[name]
    if question["Auth-Method"].upper() != "PLAIN":
        return Reply({}, 503)
    if unquote(question["Auth-Pass"]) != "sesame":
        return Reply({"Auth-Status": "Authentication credentials invalid"})
    return Reply({"Auth-Status": "OK", "Auth-Server": "192.168.203.9", "Auth-Port": "10025"})


class MailuLuaTests(ServiceCase):
    """What Mailu's own Dovecot front end asks is what the preset asks, over TLS."""

    preset = "auth_http_preset = mailu"

    def login(self, **about: Any) -> Any:
        client = evolve(CLIENT, tls=TLS)
        return self.ask(mailuForDovecot, self.preset, protocol="smtp", client=client, **about)

    async def test_accepted(self) -> None:
        """All that is looked at is there."""
        self.assertEqual(await self.login(), routed("192.168.203.9", 10025))
        self.assertEqual((self.asked["Auth-Protocol"], self.asked["Auth-SSL"]), ("submission", "on"))

    async def test_refused(self) -> None:
        """A refusal without Auth-Wait ends the connection."""
        self.assertEqual(await self.login(secret=b"no"), refused(b"Authentication credentials invalid"))

    async def test_notOK(self) -> None:
        """Any status but 200 without headers is a failure of the service."""
        answer = await self.login(method=Method.CRAM_MD5)
        self.assertFailed(answer, "503 without Auth-Status")


# Zimbra, and Carbonio, which has come of it.


def zimbraDecoded(text: str) -> str:
    """How NginxLookupExtension undoes escapes: of hexadecimal digits it gets only 0 to 9 right."""

    def decode(match: re.Match[str]) -> str:
        if not re.fullmatch("[0-9A-Fa-f]{2}", match[1]):
            raise ValueError("Incomplete trailing escape (%) pattern")
        high, low = (ord(digit) - ord("0") for digit in match[1])
        return chr((high * 16 + low) % 256)

    return re.sub("%(.{0,2})", decode, text)


def zimbra(question: Question, server: str = "10.0.0.5") -> Reply:
    """NginxLookupExtension.java: it looks for the account's mailbox server, and not at the password."""
    for name in ("Auth-User", "Auth-Method", "Auth-Protocol"):
        if question.get(name) is None:
            return Reply({"Auth-Status": f"missing header field {name}", "Auth-Wait": 10})
    ports = {"imap": 7143, "imapssl": 7993, "pop3": 7110, "pop3ssl": 7995}
    user = zimbraDecoded(question["Auth-User"])
    zimbraDecoded(question.get("Auth-Pass", ""))
    if user not in ("joe", "joe@example.com", "jo e%@example.com") or question["Auth-Protocol"] not in ports:
        return Reply({"Auth-Status": "login failed", "Auth-Wait": 10})
    if "@" not in user:
        user += "@example.com" if question.get("X-Proxy-IP") == "198.51.100.1" else "@default.example"
    return Reply(
        {
            "Auth-Status": "OK",
            "Auth-Server": server,
            "Auth-Port": ports[question["Auth-Protocol"]],
            "Auth-Cache-Alias": "FALSE",
            "Auth-User": user.replace("%", "%25").replace(" ", "%20"),
        }
    )


class ZimbraTests(ServiceCase):
    """The lookup servlet of Zimbra, and of Carbonio."""

    preset = "auth_http_preset = zimbra"

    async def test_accepted(self) -> None:
        """It routes by protocol and TLS, and sees no password: the backend judges it."""
        for protocol, tls, port in (
            ("imap", None, 7143),
            ("imap", TLS, 7993),
            ("pop3", None, 7110),
            ("pop3", TLS, 7995),
        ):
            answer = await self.ask(zimbra, self.preset, protocol=protocol, client=evolve(CLIENT, tls=tls))
            self.assertEqual(answer, routed("10.0.0.5", port, judged=False))
            self.assertEqual(self.asked["Auth-Pass"], "_password_")

    async def test_whoever(self) -> None:
        """As nobody has judged the password yet, a wrong one goes to the backend too."""
        answer = await self.ask(zimbra, self.preset, secret=b"wrong")
        self.assertEqual(answer, routed("10.0.0.5", 7143, password=b"wrong", judged=False))

    async def test_domain(self) -> None:
        """X-Proxy-IP tells it the domain of a name that has none."""
        answer = await self.ask(zimbra, self.preset, user=b"joe")
        self.assertEqual(answer.user, USER)

    async def test_escapedUser(self) -> None:
        """Blanks and percent signs are escaped both ways; nginx's escapes have no digit that it gets wrong for them."""
        answer = await self.ask(zimbra, self.preset, user=b"jo e%@example.com")
        self.assertEqual(answer.user, b"jo e%@example.com")

    async def test_refused(self) -> None:
        """An account that it does not know is refused after ten seconds."""
        answer = await self.ask(zimbra, self.preset, user=b"nobody")
        self.assertEqual(answer, refused(b"login failed", wait=10))

    async def test_hostName(self) -> None:
        """Carbonio gives a host name, which nginx refuses."""
        answer = await self.ask(lambda asked: zimbra(asked, "mbox1.example.com"), self.preset)
        self.assertEqual(answer, routed("mbox1.example.com", 7143, judged=False))


# Kolab.


def kolab(question: Question) -> Reply:
    """NGINXController.php: it undoes no escapes."""

    def byebye() -> Reply:
        return Reply({"Auth-Status": "authentication failure", "Auth-Wait": 3}, version="1.0")

    login, password = question.get("Auth-User"), question.get("Auth-Pass")
    if not login or not password or not question.get("Client-Ip"):
        return byebye()
    if login != "joe@example.com" or password not in ("sesame", "100% se same+"):
        return byebye()
    ports = {"imap": 9143, "smtp": 10465}
    if question.get("Auth-Protocol") not in ports:
        return byebye()
    return Reply(
        {
            "Auth-Status": "OK",
            "Auth-Server": "172.18.0.5",
            "Auth-Port": ports[question["Auth-Protocol"]],
            "Auth-Pass": password,
        },
        version="1.0",
    )


class KolabTests(ServiceCase):
    """Kolab's user front end."""

    preset = "auth_http_preset = kolab"
    special = b"100% se same+"

    async def test_accepted(self) -> None:
        """IMAP and SMTP are let in, whatever is in the password."""
        for protocol, port in (("imap", 9143), ("smtp", 10465)):
            for secret in (PASSWORD, self.special):
                answer = await self.ask(kolab, self.preset, protocol=protocol, secret=secret)
                self.assertEqual(answer, routed("172.18.0.5", port, password=secret))

    async def test_refused(self) -> None:
        """A refusal comes after three seconds, and the client may try again."""
        answer = await self.ask(kolab, self.preset, secret=b"no")
        self.assertEqual(answer, refused(b"authentication failure", wait=3))

    async def test_withoutPreset(self) -> None:
        """Asked as nginx asks, it takes an escaped password for a wrong one."""
        answer = await self.ask(kolab, secret=self.special)
        self.assertEqual(answer, refused(b"authentication failure", wait=3))

    async def test_notAsked(self) -> None:
        """A password that no header can carry is a wrong one: Kolab never hears of it."""
        for secret in (b"sesame ", b"sesame\r\nAuth-User: root", b"sesame\0"):
            denial = Denial(Trouble.DENIED, reason="no header can carry it unescaped")
            self.assertEqual(await self.ask(kolab, self.preset, secret=secret), denial)
            self.assertEqual(self.factory.asked, [])


# BlueMind.


def bluemind(question: Question) -> Reply:
    """Nginx.java: base64, and the port of the backend is echoed."""
    if not question.get("Auth-User"):
        raise ValueError("null or empty login")
    user, password = (base64.b64decode(question[name], validate=True) for name in ("Auth-User", "Auth-Pass"))
    attempt = int(question.get("Auth-Login-Attempt", "0"))
    if user.lower() != USER or password not in (PASSWORD, b"\xff\xfe? %"):
        pause = {"Auth-Wait": "2"} if attempt < 10 else {}
        return Reply({"Auth-Status": "Invalid login or password", **pause})
    return Reply(
        {
            "Auth-Status": "OK",
            "Auth-Server": "10.1.0.3",
            "Auth-Port": question.get("X-Auth-Port"),
            "Auth-User": "joe@internal.example",
        }
    )


class BlueMindTests(ServiceCase):
    """BlueMind's core."""

    preset = "auth_http_preset = bluemind"

    async def test_accepted(self) -> None:
        """Any bytes come through, and lead to the port of the backend for the protocol."""
        for protocol, port in (("imap", 1143), ("pop3", 1110)):
            for secret in (PASSWORD, b"\xff\xfe? %"):
                answer = await self.ask(bluemind, self.preset, protocol=protocol, secret=secret)
                self.assertEqual(answer, routed("10.1.0.3", port, b"joe@internal.example", secret))

    async def test_port(self) -> None:
        """Another port is written as a header."""
        answer = await self.ask(bluemind, self.preset, "auth_http_header = X-Auth-Port 143")
        self.assertEqual(answer.backends, (Backend("10.1.0.3", 143),))

    async def test_refused(self) -> None:
        """It lets a client try again nine times, and then no more."""
        told = b"Invalid login or password"
        for attempt, denial in ((1, refused(told, wait=2)), (9, refused(told, wait=2)), (10, refused(told))):
            answer = await self.ask(bluemind, self.preset, secret=b"no", attempts=attempt)
            self.assertEqual(answer, denial)

    async def test_withoutPreset(self) -> None:
        """Asked as nginx asks it cannot decode the name, and fails."""
        self.assertFailed(await self.ask(bluemind), "500 without Auth-Status")


# Nauthilus.


def nauthilus(question: Question) -> Reply:
    """setupHeaderBasedAuth: the name as it is; the password in base64's other alphabet, where a header says so."""
    user, password = question.get("Auth-User", ""), question.get("Auth-Pass", "").encode("latin-1")
    if question.get("X-Auth-Password-Encoded") == "1":
        if re.search(b"[+/]", password):
            raise ValueError("illegal base64 data")
        password = base64.b64decode(password, altchars=b"-_", validate=True)
    session = {"X-Nauthilus-Session": "2Nf"}
    if user not in ("joe@example.com", "j%e@example.com") or password not in (PASSWORD, b"\xff\xfe? %\r\n"):
        status = {"Auth-Status": "Invalid login or password", "Auth-Wait": question["Auth-Login-Attempt"]}
        return Reply({**status, **session, "Content-Type": "application/json"}, 403, b"null")
    ports = {"imap": 993, "pop3": 995, "smtp": 465}
    return Reply(
        {
            "Auth-Status": "OK",
            "Auth-User": user,
            "Auth-Server": "10.2.0.1",
            "Auth-Port": ports[question["Auth-Protocol"]],
            "X-Nauthilus-Memory-Cache": "Miss",
            **session,
        }
    )


class NauthilusTests(ServiceCase):
    """Nauthilus, asked by headers."""

    preset = "auth_http_preset = nauthilus"

    async def test_accepted(self) -> None:
        """Any password comes through, and a percent sign in a name stays one."""
        for protocol, port in (("imap", 993), ("pop3", 995), ("smtp", 465)):
            for user, secret in ((USER, PASSWORD), (b"j%e@example.com", b"\xff\xfe? %\r\n")):
                answer = await self.ask(nauthilus, self.preset, protocol=protocol, user=user, secret=secret)
                self.assertEqual(answer, routed("10.2.0.1", port, user, secret))

    async def test_told(self) -> None:
        """It is told of both ends of the connection, and its name."""
        await self.ask(nauthilus, self.preset)
        names = ("X-Local-IP", "X-Auth-Port", "X-Client-Port", "X-External-Session-ID")
        self.assertEqual([self.asked[name] for name in names], ["198.51.100.1", "993", "4711", "7-abc"])

    async def test_refused(self) -> None:
        """A refusal is one whatever its status; its body is not looked at."""
        answer = await self.ask(nauthilus, self.preset, secret=b"no", attempts=2)
        self.assertEqual(answer, refused(b"Invalid login or password", wait=2))

    async def test_undecodable(self) -> None:
        """Another escape than the preset's takes away the header that tells of it."""
        answer = await self.ask(nauthilus, self.preset, "auth_http_escape = nginx")
        self.assertEqual(answer, routed("10.2.0.1", 993))
        self.assertNotIn("X-Auth-Password-Encoded", self.asked.spelling)


# Services that are asked as nginx asks.


def reinventedStuff(question: Question) -> Reply:
    """reinvented-stuff/nginx-mail-auth-http-server: a shared secret; relays are chosen by the line of RCPT."""
    if question.get("X-Origin-Mail-Key") != "hush":
        return Reply({"Auth-Status": "Access denied", "Auth-Error-Code": "550 5.7.1"}, 401)
    assert question["Client-Host"] == "[UNAVAILABLE]" and question["Auth-SMTP-Helo"] == "client.example"
    if not re.match("MAIL FROM:<.*>", question["Auth-SMTP-From"]):
        raise ValueError
    if re.search("(?i)rcpt to: *<[^>]+@example\\.com>", question["Auth-SMTP-To"]):
        return Reply({"Auth-Status": "OK", "Auth-Server": "10.3.0.1", "Auth-Port": "25"})
    if int(question["Auth-Login-Attempt"]) > 2:
        return Reply({"Auth-Status": "Too many", "Auth-Error-Code": "421 4.7.0"})
    return Reply({"Auth-Status": "Relay denied", "Auth-Error-Code": "550 5.7.1", "Auth-Wait": 1})


class RecipientTests(ServiceCase):
    """Services that judge recipients, under smtp_auth none."""

    def judge(self, service: Service, recipient: bytes, *options: str, **about: Any) -> Any:
        envelope = Envelope(b"client.example", True, b"MAIL FROM:<a@b.example> SIZE=100", recipient)
        about = {"method": Method.NONE, "user": b"", "secret": b"", "envelope": envelope, **about}
        return self.ask(service, "smtp_auth = none", *options, protocol="smtp", **about)

    async def test_reinventedStuff(self) -> None:
        """It gets the whole lines of MAIL and RCPT, and its secret."""
        key = "auth_http_header = X-Origin-Mail-Key hush"
        answer = await self.judge(reinventedStuff, b"rcpt to: <ann@example.com>", key)
        self.assertEqual(answer, routed("10.3.0.1", 25, b"", None))
        for attempt, denial in (
            (1, refused(b"Relay denied", b"550 5.7.1", 1)),
            (3, refused(b"Too many", b"421 4.7.0")),
        ):
            answer = await self.judge(reinventedStuff, b"RCPT TO:<ann@other.example>", key, attempts=attempt)
            self.assertEqual(answer, denial)

    async def test_withoutSecret(self) -> None:
        """Without the secret it refuses, with a status that does not matter."""
        answer = await self.judge(reinventedStuff, b"RCPT TO:<ann@example.com>")
        self.assertEqual(answer, refused(b"Access denied", b"550 5.7.1"))

    async def test_gotth(self) -> None:
        """GOTTH's frontauth has a token, wants RCPT TO:<...>, and knows three codes."""

        def gotth(question: Question) -> Reply:
            if question.get("X-GOTTH-Mail-Front-Token") != "hush":
                return Reply({"Auth-Status": "Authentication failed", "Auth-Error-Code": "535 5.7.8"})
            match = re.fullmatch("RCPT TO:<(.+)@example.com>", question["Auth-SMTP-To"])
            if match is None:
                return Reply({"Auth-Status": "No such user", "Auth-Error-Code": "550 5.1.1"})
            if match[1] == "busy":
                return Reply({"Auth-Status": "Try again later", "Auth-Error-Code": "451 4.3.0"})
            return Reply({"Auth-Status": "OK", "Auth-Server": "10.4.0.1", "Auth-Port": "2525"})

        token = "auth_http_header = X-GOTTH-Mail-Front-Token hush"
        for recipient, options, expected in (
            (b"RCPT TO:<ann@example.com>", (token,), routed("10.4.0.1", 2525, b"", None)),
            (b"RCPT TO:<ann@other.example>", (token,), refused(b"No such user", b"550 5.1.1")),
            (b"RCPT TO:<busy@example.com>", (token,), refused(b"Try again later", b"451 4.3.0")),
            (b"RCPT TO:<ann@example.com>", (), refused(b"Authentication failed", b"535 5.7.8")),
        ):
            self.assertEqual(await self.judge(gotth, recipient, *options), expected)


def goService(question: Question) -> Reply:
    """
    seiferma/nginxmailauthdelegator, urlund's, MooCloud's and MelonSmasher's: C{net/http} spells headers its own way,
    and they want to know which attempt it is, and whose.
    """
    if question.get("Auth-Method") != "plain" or not question.get("Client-Ip"):
        return Reply({"Content-Type": "text/plain; charset=utf-8"}, 400, b"Bad Request\n")
    attempt = int(question["Auth-Login-Attempt"])
    if unquote(question["Auth-User"]) != "joe@example.com" or unquote(question["Auth-Pass"]) != "sesame":
        pause = {"Auth-Wait": 3} if attempt < 3 else {}
        return Reply({"Auth-Status": "Invalid login or password", **pause, "Date": "Wed, 25 Nov 2026 02:00:00 GMT"})
    return Reply({"Auth-Port": "143", "Auth-Server": "10.5.0.1", "Auth-Status": "OK"})


class StandardTests(ServiceCase):
    """Services that are written after nginx's documentation."""

    async def test_go(self) -> None:
        """Those in Go read Client-Ip for Client-IP, let a client try again twice, and say 400 to the unknown."""
        self.assertEqual(await self.ask(goService), routed("10.5.0.1", 143))
        told = b"Invalid login or password"
        for attempt, denial in ((2, refused(told, wait=3)), (3, refused(told))):
            self.assertEqual(await self.ask(goService, secret=b"no", attempts=attempt), denial)
        unknown = await self.ask(goService, method=Method.EXTERNAL)
        self.assertIs(unknown.trouble, Trouble.TEMPORARY)
        self.assertIn("400 without Auth-Status", unknown.reason)

    async def test_php(self) -> None:
        """The sample of nginx's wiki, of which there are many copies: 200 for everything, pages and HTTP/1.0 too."""

        def wiki(question: Question) -> Reply:
            known = {"joe@example.com": "sesame"}
            user, password = question.get("Auth-User"), question.get("Auth-Pass")
            powered = {"X-Powered-By": "PHP/5.3.3", "Content-type": "text/html"}
            if not user or not password or known.get(user) != password:
                return Reply({**powered, "Auth-Status": "Invalid login or password"}, 200, b"\n\n", "1.0")
            port = {"imap": 143, "smtp": 25}.get(question.get("Auth-Protocol"), 110)
            accepted = {"Auth-Status": "OK", "Auth-Server": "192.168.1.22", "Auth-Port": port}
            return Reply({**powered, **accepted}, 200, b"\n\n", "1.0")

        for protocol, port in (("imap", 143), ("pop3", 110), ("smtp", 25)):
            self.assertEqual(await self.ask(wiki, protocol=protocol), routed("192.168.1.22", port))
        for user, secret in ((USER, b"no"), (USER, b""), (b"", PASSWORD)):
            answer = await self.ask(wiki, user=user, secret=secret)
            self.assertEqual(answer, refused(b"Invalid login or password"))

    async def test_perl(self) -> None:
        """nginx's embedded perl knows passwords, and so can judge digests, if it sends the password with its answer."""

        def perl(question: Question) -> Reply:
            if question["Auth-Method"] == "cram-md5" and question["Auth-Salt"] == "<salt>":
                given = {"Auth-Status": "OK", "Auth-Server": "192.168.1.1", "Auth-Port": "143"}
                return Reply({"Server": "nginx/1.22.1", **given, "Auth-Pass": "plain-text-pass"})
            return Reply({"Auth-Status": "Invalid login or password", "Auth-Wait": "3"})

        options = ("imap_auth = plain cram-md5",)
        answer = await self.ask(perl, *options, method=Method.CRAM_MD5, secret=b"0123456789abcdef" * 2)
        self.assertEqual(answer, routed("192.168.1.1", 143, password=b"plain-text-pass"))
        self.assertEqual(await self.ask(perl, *options), refused(b"Invalid login or password", wait=3))

    async def test_domino(self) -> None:
        """Domino stands behind an http block of nginx, and checks a key."""

        def domino(question: Question) -> Reply:
            if question.get("X-Auth-Key") != "hush":
                return Reply({"Content-Type": "text/html"}, 403, b"<html></html>")
            if (question["Auth-User"], question["Auth-Pass"]) != ("joe@example.com", "sesame"):
                return Reply({"Auth-Status": "Invalid login or password"})
            return Reply({"Auth-Status": "OK", "Auth-Server": "10.6.0.1", "Auth-Port": 143, "Connection": "keep-alive"})

        key = "auth_http_header = X-Auth-Key hush"
        self.assertEqual(await self.ask(domino, key), routed("10.6.0.1", 143))
        self.assertEqual(await self.ask(domino, key, secret=b"no"), refused(b"Invalid login or password"))
        self.assertFailed(await self.ask(domino), "403 without Auth-Status")

    async def test_staticLocation(self) -> None:
        """A location of nginx that does nothing but add headers to 204 lets everybody in."""
        given = {"Auth-Status": "OK", "Auth-Server": "10.7.0.1", "Auth-Port": "25"}
        answer = await self.ask(lambda question: Reply(given, 204), protocol="smtp")
        self.assertEqual(answer, routed("10.7.0.1", 25))
        answer = await self.ask(lambda question: Reply({"Auth-Status": "Closed"}, 204), protocol="smtp")
        self.assertEqual(answer, refused(b"Closed"))

    async def test_lowerCase(self) -> None:
        """Node, and proxies that speak HTTP/2 behind them, write headers in lower case."""
        given = {"auth-status": "OK", "auth-server": "10.8.0.1", "auth-port": "143", "auth-user": "ann"}
        self.assertEqual(await self.ask(lambda question: Reply(given)), routed("10.8.0.1", 143, b"ann"))
        refusal = {"auth-status": "No", "auth-wait": "5", "auth-error-code": "454 4.7.0"}
        self.assertEqual(await self.ask(lambda question: Reply(refusal)), refused(b"No", b"454 4.7.0", 5))

    async def test_withoutStatus(self) -> None:
        """One that never heard of Auth-Status works with auth_http_missing_status accept alone."""
        given = {"Auth-Server": "10.9.0.1", "Auth-Port": "143"}
        answer = await self.ask(lambda question: Reply(given), "auth_http_missing_status = accept")
        self.assertEqual(answer, routed("10.9.0.1", 143))
        self.events.clear()
        self.assertFailed(await self.ask(lambda question: Reply(given)), "200 without Auth-Status")
