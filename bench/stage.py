# -*- test-case-name: bench.test.test_instructions -*-
"""
Logins of a whole gateway in one process, without sockets: the same work each time, whatever else the machine does. It
is a program of its own, so that another source tree can be measured::

    PYTHONPATH=FOLDER python bench/stage.py SIDE KIND COUNT

It prints the microseconds of CPU that a login has taken. Gateway, authentication service, backend and clients are real
objects with real bytes between them; transports and the clock are those of Twisted's tests. A login is that of the
other programs: greeting, LOGIN, question to the service, login at the backend, LOGOUT through the relay, both ends.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable

from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock

from mailgate.config import parse
from mailgate.keeper.service import KeeperService
from mailgate.process.rights import tuneCollector
from mailgate.processstate import ProcessState
from mailgate.service import Gateway
from mailgate.testing import FakeTransport

__all__ = ["KINDS", "SIDES", "Stage", "main"]

SIDES = ("off", "limits", "all")
"""Without limits and the admin side; with limits; with limits and the admin side."""

KINDS = ("known", "new")
"""Logins of few users who come again and again; of a user and an address that were never seen before."""

_PAUSE = 0.001
"""Seconds of the fake clock for each login: what happens each second is shared by a thousand."""

_USERS, _ADDRESSES = 64, 8

_OFF = "limit_conn = off\nlimit_req = off\nlimit_early_drop = off\nlimit_login = off\n"
_ON = "limit_exempt = none\nlimit_req =\n" + "".join(
    f"    {what} rate=1000000r/s burst=1000000 nodelay\n" for what in ("connection", "handshake", "login")
)
_CONFIGURATION = """\
[mailgate]
use = reactor
error_log = stderr crit
[mail]
server_name = mx.test
{limits}
[server imap]
listen = 127.0.0.1:{port}
protocol = imap
auth_http = http://192.0.2.2:9000/auth
"""

_ACCEPTED = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nAuth-Status: OK\r\nAuth-Server: 192.0.2.3\r\nAuth-Port: 143\r\n\r\n"
)
_GREETING = b"* OK [CAPABILITY IMAP4rev1 SASL-IR ID LITERAL+ AUTH=PLAIN] ready\r\n"
_BYE = b"* BYE\r\n"
_REPLIES = {b"ID": (b"* ID NIL\r\n", b"known"), b"LOGIN": (b"", b"logged in"), b"LOGOUT": (_BYE, b"bye")}


def _judge(question: bytes) -> bytes:
    return _ACCEPTED if question.endswith(b"\r\n\r\n") else b""


def _obey(said: bytes) -> bytes:
    """The backend's answers to commands."""
    return b"".join(_done(*line.split(b" ", 2)[:2]) for line in said.splitlines())


def _done(tag: bytes, command: bytes) -> bytes:
    before, words = _REPLIES[command]
    return b"%b%b OK %b\r\n" % (before, tag, words)


class Stage:
    """
    A gateway with all that it talks to.

    @param side: one of L{SIDES}.
    @param kind: one of L{KINDS}.
    """

    def __init__(self, side: str, kind: str) -> None:
        self.reactor = MemoryReactorClock()
        self.reactor.advance(1_800_000_000)
        with socket.create_server(("127.0.0.1", 0)) as free:
            # Nobody connects there.
            port = free.getsockname()[1]
        text = _CONFIGURATION.format(limits=_OFF if side == "off" else _ON, port=port)
        state = ProcessState.of(self.reactor, isWatched=side == "all")
        self.gateway = Gateway(parse(text), self.reactor, state=state)
        self._services = [self.gateway, *([KeeperService.of(self.gateway, self.reactor)] if side == "all" else [])]
        for service in self._services:
            service.startService()
        (self._factory,) = self.gateway.factories
        self._isNew = kind == "new"
        self._count = 0
        self._judges: list[FakeTransport] = []
        self._backend: FakeTransport | None = None
        self._kept: dict[int, object] = {}

    def login(self) -> bytes:
        """
        Let the next client log in, and out again. Return what it has heard.

        @raise RuntimeError: it could not.
        """
        number = self._count = self._count + 1
        user, place = (number, number) if self._isNew else (number % _USERS, number % _ADDRESSES)
        peer = IPv4Address("TCP", f"10.{place >> 16 & 255}.{place >> 8 & 255}.{place & 255}", 1024 + number % 60000)
        client = FakeTransport(peer)
        client.connect(self._factory.buildProtocol(peer))
        client.protocol.dataReceived(b"a LOGIN user%d sesame\r\n" % user)
        self._serve()
        client.protocol.dataReceived(b"b LOGOUT\r\n")
        self._serve()
        heard: bytes = client.value()
        if not client.disconnecting or b"a OK logged in" not in heard:
            raise RuntimeError(f"a login failed: {heard!r}")
        client.lose()
        self.reactor.advance(_PAUSE)
        return heard

    def close(self) -> None:
        """Stop the gateway."""
        for service in reversed(self._services):
            service.stopService()

    def _serve(self) -> None:
        """Answer the gateway until it asks nothing more."""
        isBusy = True
        while isBusy:
            isBusy = self._accept()
            for judge in self._judges:
                isBusy |= self._answer(judge, _judge)
            if self._backend is not None:
                isBusy |= self._answer(self._backend, _obey)

    def _accept(self) -> bool:
        connecting = self.reactor.tcpClients[:]
        for host, port, factory, *_ in connecting:
            transport = FakeTransport(IPv4Address("TCP", host, port))
            transport.connect(factory.buildProtocol(transport.getPeer()))
            # Twisted declares interfaces of each protocol, and finds them again as long as one of the kind exists.
            self._kept.setdefault(port, transport.protocol)
            if port == 143:
                self._backend = transport
                transport.protocol.dataReceived(_GREETING)
            else:
                self._judges.append(transport)
        self.reactor.tcpClients.clear()
        self.reactor.connectors.clear()
        return bool(connecting)

    def _answer(self, transport: FakeTransport, reply: Callable[[bytes], bytes]) -> bool:
        said: bytes = transport.value()
        if not said:
            return False
        transport.clear()
        answer = reply(said)
        transport.protocol.dataReceived(answer)
        if answer.startswith(_BYE):
            self._backend = None
            transport.lose()
        return True


def main(side: str, kind: str, count: int) -> float:
    """
    Log in C{count} times.

    @return: the microseconds of CPU of each.
    """
    stage = Stage(side, kind)
    tuneCollector()
    began = time.process_time()
    for _ in range(count):
        stage.login()
    return (time.process_time() - began) / max(1, count) * 1e6


if __name__ == "__main__":
    side, kind, count = sys.argv[1:]
    print(main(side, kind, int(count)))
