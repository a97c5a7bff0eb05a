"""
The admin server in tests: a keeper that knows its answers, and connections without sockets.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from mailgate.directives import GatewaySettings
from mailgate.keeper.admin.channel import AdminChannel, AdminFactory
from mailgate.keeper.admin.resources import Functions
from mailgate.keeper.keeper import Collected, Keeper
from mailgate.log.settings import ErrorLog, LogSettings
from mailgate.process.answer import Answer
from mailgate.test.support.limitstore import StandInLimits
from mailgate.watch.settings import AdminSettings
from mailgate.watch.tally import Totals

__all__ = [
    "JSON",
    "SESSION",
    "TOKENS",
    "Answered",
    "Connection",
    "Operator",
    "StandInKeeper",
    "StandIns",
    "adminSettings",
    "answers",
    "request",
    "unchunked",
]

TOKENS = {level: f"{level}-0123456789abcdefghij" for level in ("read", "operate", "admin")}
"""A token of each level, by its word."""

JSON = ("Content-Type: application/json",)

SESSION = {"id": "5g0qa.7k", "gateway": "g1", "user": "joe", "backend": "10.0.0.1:143"}


class StandInKeeper(Keeper):
    """
    A keeper with fixed answers.

    @ivar found: what each question finds, by its word.
    @ivar asked: the words of the questions.
    """

    def __init__(self, clock: Any) -> None:
        super().__init__(clock, "g1")
        self.found: dict[str, Any] = {}
        self.asked: list[str] = []
        self.limits = StandInLimits()

    def ask(self, word: str, arguments: Mapping[str, Any], within: float = 2.0) -> Deferred[Collected]:
        self.asked.append(word)
        found = self.found.get(word, Collected())
        return found if isinstance(found, Deferred) else succeed(found)

    def scrape(self, within: float = 0.2) -> Deferred[Totals]:
        return succeed({"mailgate_users": [[[], 3]]})

    def recent(self, user: str | None = None) -> Sequence[Mapping[str, Any]]:
        return [{"user": user, "outcome": "denied"}]


class Operator:
    """
    Takes orders.

    @ivar answer: its answer to each.
    @ivar orders: the commands and their arguments.
    """

    def __init__(self) -> None:
        self.answer: Any = Answer(True)
        self.orders: list[tuple[str, Mapping[str, Any]]] = []

    def order(self, command: str, arguments: Mapping[str, Any]) -> Deferred[Any]:
        self.orders.append((command, arguments))
        return self.answer if isinstance(self.answer, Deferred) else succeed(self.answer)


class StandIns:
    """
    The functions of the keeper.

    @ivar calls: the names and arguments of the calls.
    @ivar results: what each returns, or raises if it is an exception.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.results: dict[str, Any] = {
            "listSessions": {"sessions": [SESSION], "next": None, "gateways": []},
            "countSessions": {"by": "user", "counts": [], "groups": 0, "sessions": 0, "gateways": []},
            "kick": {"ended": 1, "gateways": [{"name": "g1", "ended": 1}], "unanswered": []},
            "showUser": {"user": "joe", "sessions": [SESSION]},
            "explain": {"user": "joe"},
            "move": {"state": "moved"},
            "follow": {"state": "waiting"},
            "stats": {"users": 3},
            "expose": (b"mailgate_users 3\n# EOF\n", "application/openmetrics-text"),
        }

    @property
    def functions(self) -> Functions:
        """These functions, for the site."""
        return Functions(**{name: self._function(name) for name in self.results})

    def _function(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self.calls.append((name, *(each for each in arguments if not isinstance(each, Keeper))))
            result = self.results[name]
            if isinstance(result, Exception):
                raise result
            if callable(result):
                return result(*arguments)
            return result

        return call


def adminSettings(**given: Any) -> GatewaySettings:
    """Return a configuration with these values of L{AdminSettings}, and a log of level info."""
    return GatewaySettings().having(AdminSettings(**given), LogSettings((ErrorLog(None, LogLevel.info),)))


@frozen
class Answered:
    """
    An answer.

    @ivar status: the HTTP status.
    @ivar fields: the header fields, by name in lower case.
    @ivar body: the body.
    """

    status: int
    fields: Mapping[str, str]
    body: bytes = field(default=b"", repr=True)

    @property
    def value(self) -> Any:
        """The body as a value of JSON."""
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        """The detail of a problem."""
        return str(self.value["detail"])


def request(method: str, path: str, *fields: str, body: bytes = b"", host: str = "localhost") -> bytes:
    """Return the bytes of a request."""
    head = [f"{method} {path} HTTP/1.1", f"Host: {host}", *fields]
    if body or method in ("POST", "DELETE"):
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def unchunked(data: bytes) -> bytes:
    """Return the content of whole chunks (RFC 9112, section 7.1). Fails if something else is there."""
    content = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        assert data[length : length + 2] == b"\r\n", data[:40]
        content, data = content + data[:length], data[length + 2 :]
    return content


def answers(data: bytes, *, isHead: bool = False) -> list[Answered]:
    """Parse the answers of one connection. Fails if something else is there."""
    found = []
    while data:
        head, blank, data = data.partition(b"\r\n\r\n")
        assert blank, data
        first, *lines = head.decode("ascii").split("\r\n")
        version, status, *_ = first.split(" ")
        assert version in ("HTTP/1.1", "HTTP/1.0"), first
        fields: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name.lower() not in fields, line
            fields[name.lower()] = value
        if status == "100":
            continue
        if fields.get("transfer-encoding") == "chunked":
            # It goes on, so it is the last one.
            found.append(Answered(int(status), fields, b"" if isHead else unchunked(data)))
            break
        length = 0 if isHead or status == "304" else int(fields["content-length"])
        assert len(data) >= length, "the answer is cut"
        found.append(Answered(int(status), fields, data[:length]))
        data = data[length:]
    return found


class _Transport(StringTransport):
    """A transport that closes like a socket, and knows a unix socket's peer."""

    aborted = False

    def __init__(self, host: Any, peer: Any, ours: socket.socket | None) -> None:
        super().__init__(host, peer)
        self.socket = ours

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class Connection:
    """
    A connection without a socket: over TCP, or of this process at a unix socket.

    @ivar channel: the server's end.
    @ivar transport: its transport.
    """

    def __init__(self, factory: AdminFactory, isLocal: bool = True, host: str = "127.0.0.1") -> None:
        self._pair = socket.socketpair() if isLocal else ()
        for each in self._pair:
            each.setblocking(False)
        ends = (
            (UNIXAddress("/run/x.admin"), UNIXAddress(None))
            if isLocal
            else (IPv4Address("TCP", host, 9143), IPv4Address("TCP", "192.0.2.7", 40000))
        )
        self.transport = _Transport(ends[0], ends[1], self._pair[0] if self._pair else None)
        self.channel: AdminChannel = factory.buildProtocol(None)
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        """The client sends C{data}."""
        self.channel.dataReceived(data)

    def take(self, **given: Any) -> list[Answered]:
        """Return the answers since the last call."""
        data = self.transport.value()
        self.transport.clear()
        return answers(data, **given)

    def ask(self, method: str, path: str, *fields: str, body: bytes = b"", host: str = "localhost") -> Answered:
        """Send a request, and return the only answer."""
        self.send(request(method, path, *fields, body=body, host=host))
        (answered,) = self.take(isHead=method == "HEAD")
        return answered

    @property
    def isClosed(self) -> bool:
        """Whether the server has closed it."""
        return self.transport.disconnecting

    def lose(self) -> None:
        """The connection has ended."""
        self.channel.connectionLost(Failure(ConnectionDone()))
        for each in self._pair:
            each.close()
