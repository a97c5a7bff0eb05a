"""
A gateway with an authentication service that answers as known products do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import TestCase

from mailgate.auth.http.authenticator import KIND
from mailgate.config import parse
from mailgate.log.journal import Journal
from mailgate.login import Backend, Client, Credentials, Denial, LoginRequest, Method, Route, TLSState, Trouble

__all__ = [
    "CLIENT",
    "PASSWORD",
    "TLS",
    "UNDECIDED",
    "USER",
    "Question",
    "Reply",
    "Server",
    "Service",
    "ServiceCase",
    "ServiceFactory",
    "refused",
    "routed",
]

UNDECIDED = Denial(Trouble.TEMPORARY)
CLIENT = Client("192.0.2.7", 4711, local="198.51.100.1", localPort=993, session="7-abc")
TLS = TLSState("TLSv1.3", "TLS_AES_256_GCM_SHA384")
USER = b"joe@example.com"
PASSWORD = b"sesame"


class Question(dict[str, str]):
    """The headers of a request by lower-case names, without surrounding spaces, as a web framework provides them."""

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
    """The response of a service: headers in its own spelling, the status, and a body that the gateway ignores."""

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
    """Makes the connections of C{service}; C{asked} are the requests."""

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
    """A service, and the settings of a server that uses it."""

    timeout = 30

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.events: list[Any] = []
        self.observer: Any = self.events.append

    def ask(self, service: Service, *options: str, protocol: str = "imap", attempts: int = 1, **about: Any) -> Any:
        """
        Let C{service} judge a login at a server of C{protocol} with C{options}. It is number C{attempts} on its
        connection, and C{about} changes it. Return a Deferred of the answer.
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
        """Return a Deferred that fires when all connections to the service are closed."""
        return gatherResults([connection.lost for connection in self.factory.connections])

    @property
    def asked(self) -> Question:
        """The only request that the service received."""
        (question,) = self.factory.asked
        return question

    def assertFailed(self, answer: Any, reason: str) -> None:
        """
        Check that C{reason} is logged as the first failure of the service, and that C{answer} is a temporary failure.
        """
        self.assertEqual(answer, UNDECIDED)
        outage, logged = [formatEvent(event) for event in self.events]
        self.assertIn(" is down: it failed ", outage)
        for line in (outage, logged):
            self.assertIn(reason, line)


def routed(host: str, port: int, user: bytes = USER, password: bytes | None = PASSWORD, **others: Any) -> Route:
    """Return an acceptance."""
    return Route((Backend(host, port),), user, password, **others)


def refused(text: bytes, code: bytes | None = None, wait: float = 0) -> Denial:
    """Return a refusal; without a pause it ends the connection."""
    return Denial(Trouble.DENIED, text, code, wait, close=not wait)
