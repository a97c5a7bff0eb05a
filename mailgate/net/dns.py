# -*- test-case-name: mailgate.test.net.test_dns -*-
"""
Sends queries to name servers (RFC 1035), with the messages of twisted.names. Each query goes over UDP from a random
port with a random id, and over TCP if the answer is truncated.

The resolver of twisted.names is not used, as it always begins with the same server, ignores late answers, leaves a
timer behind a cancelled query, and logs packets from strangers.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from itertools import chain, cycle
from typing import Any

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError, maybeDeferred
from twisted.internet.protocol import DatagramProtocol, Factory, connectionDone
from twisted.internet.task import LoopingCall, deferLater
from twisted.names import dns
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from mailgate.net.endpoints import endpointFor
from mailgate.net.resolver import NameServer

__all__ = ["RESEND", "NameServers", "Suits"]

RESEND = 5.0
"""Seconds until the query goes to the next server, as in nginx."""

_MOST_PORTS = 100
"""How many random ports are tried before the query fails."""

_NO_SOCKETS = (errno.EMFILE, errno.ENFILE)
"""Errors that another port cannot avoid: too many open files."""

_NO_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""Errors of a host without IPv6."""

Suits = Callable[[dns.Message], bool]
"""Returns whether an answer can be used. Other answers are ignored."""


class _Question:
    """
    One query. It ignores everything that is not its answer, without a log line.

    @ivar wire: the message to send, as bytes.
    @ivar answered: a Deferred that fires with the answer and the server that sent it.
    """

    def __init__(self, asked: dns.Query, suits: Suits) -> None:
        self._asked = asked
        self._suits = suits
        self._id = dns.randomSource()
        message = dns.Message(self._id, recDes=1)
        message.queries = [asked]
        self.wire = message.toStr()
        self.answered: Deferred[tuple[dns.Message, NameServer]] = Deferred()

    def received(self, data: bytes, server: NameServer) -> None:
        """Handle C{data}, which C{server} sent."""
        message = dns.Message()
        try:
            message.fromStr(data)
            # twisted.names decodes a message that ends too early as far as possible.
            whole = len(message.answers) == int.from_bytes(data[6:8], "big")
            counts = self._isAnswer(message) and (message.trunc or (whole and self._suits(message)))
        except Exception:
            # Malformed packets can make the decoder raise any exception.
            return
        if counts and not self.answered.called:
            self.answered.callback((message, server))

    def failed(self, failure: Failure) -> None:
        """Fail, as the query cannot be sent."""
        if not self.answered.called:
            self.answered.errback(failure)

    def _isAnswer(self, message: dns.Message) -> bool:
        if not message.answer or message.id != self._id or len(message.queries) != 1:
            return False
        asked, echoed = self._asked, message.queries[0]
        isSameName = asked.name.name.lower() == echoed.name.name.lower()
        return isSameName and (asked.type, asked.cls) == (echoed.type, echoed.cls)


class _Datagrams(DatagramProtocol):
    """Sends C{question} over UDP."""

    noisy = False
    transport: Any

    def __init__(self, question: _Question) -> None:
        self._question = question
        self._asked: set[NameServer] = set()

    def send(self, server: NameServer) -> None:
        """
        Send the query to C{server}.

        @raise OSError: there is no route to it.
        """
        self._asked.add(server)
        self.transport.write(self._question.wire, server)

    def datagramReceived(self, data: bytes, addr: NameServer) -> None:
        if addr in self._asked:
            self._question.received(data, addr)


class _Stream(Int16StringReceiver):
    """Sends C{question} to C{server} over TCP."""

    def __init__(self, question: _Question, server: NameServer) -> None:
        self._question = question
        self._server = server

    def connectionMade(self) -> None:
        self.sendString(self._question.wire)

    def stringReceived(self, data: bytes) -> None:
        self._question.received(data, self._server)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._question.failed(reason)


class _Resending:
    """Sends C{question} to the next of C{servers} every L{RESEND} seconds. C{asked} is the number of servers."""

    def __init__(self, question: _Question, servers: Iterator[NameServer], asked: int, reactor: Any) -> None:
        self._question = question
        self._servers = servers
        self._count = asked
        self._reactor = reactor
        self._sockets: dict[str, _Datagrams] = {}
        self._loop = LoopingCall(self._send)
        self._loop.clock = reactor

    def start(self) -> None:
        """Begin. An unexpected error makes the question fail."""
        self._loop.start(RESEND).addErrback(self._question.failed)

    def stop(self) -> list[Deferred[Any]]:
        """Stop. The Deferreds fire when the sockets are closed."""
        if self._loop.running:
            self._loop.stop()
        return [maybeDeferred(socket.transport.stopListening) for socket in self._sockets.values()]

    def _send(self) -> None:
        for _ in range(self._count):
            server = next(self._servers)
            try:
                self._socket("::" if ":" in server[0] else "").send(server)
            except OSError:
                # There is no route to this server. Try the next one at once.
                continue
            return

    def _socket(self, interface: str) -> _Datagrams:
        socket = self._sockets.get(interface)
        if socket is None:
            socket = _Datagrams(self._question)
            self._bind(socket, interface)
            self._sockets[interface] = socket
        return socket

    def _bind(self, socket: _Datagrams, interface: str) -> None:
        for remaining in range(_MOST_PORTS, 0, -1):
            try:
                self._reactor.listenUDP(dns.randomSource(), socket, interface)
                return
            except error.CannotListenError as problem:
                reason = getattr(problem.socketError, "errno", 0)
                if reason in _NO_FAMILY:
                    raise OSError(reason, os.strerror(reason)) from None
                if remaining == 1 or reason in _NO_SOCKETS:
                    raise


class NameServers:
    """
    Sends queries to name servers in turn: the first query to the first server, the second to the second. If no answer
    arrives within L{RESEND} seconds, the query goes to the next server, and so on. Late answers are accepted.

    @param servers: the addresses and ports of the name servers.
    @param reactor: the reactor.
    """

    def __init__(self, servers: tuple[NameServer, ...], reactor: Any) -> None:
        self._servers = servers
        self._reactor = reactor
        self._turn = 0
        self._closing: set[Deferred[Any]] = set()

    def ask(self, asked: dns.Query, suits: Suits, timeout: float) -> Deferred[dns.Message]:
        """
        Send a query.

        @param asked: the query.
        @param suits: returns whether an answer can be used.
        @param timeout: seconds until the query fails.
        @return: a Deferred that fires with the answer. It fails with L{TimeoutError}, or with
            L{error.CannotListenError} if the system has no socket for the query.
        """
        asking = Deferred.fromCoroutine(self._ask(asked, suits))
        return asking.addTimeout(timeout, self._reactor)

    def close(self) -> Deferred[Any]:
        """Return a Deferred that fires when the sockets of finished and cancelled queries are closed."""
        return DeferredList(list(self._closing))

    async def _ask(self, asked: dns.Query, suits: Suits) -> dns.Message:
        question = _Question(asked, suits)
        turn, self._turn = self._turn, (self._turn + 1) % len(self._servers)
        inTurn = cycle(self._servers[turn:] + self._servers[:turn])
        resending = _Resending(question, inTurn, len(self._servers), self._reactor)
        try:
            resending.start()
            answer, server = await question.answered
        finally:
            for closing in resending.stop():
                self._closing.add(closing)
                closing.addBoth(self._closed, closing)
        return await self._askWhole(asked, suits, chain((server,), inTurn)) if answer.trunc else answer

    def _closed(self, result: Any, closing: Deferred[Any]) -> None:
        self._closing.discard(closing)

    async def _askWhole(self, asked: dns.Query, suits: Suits, servers: Iterator[NameServer]) -> dns.Message:
        """Repeat the query over TCP, as the answer was truncated."""
        for server in servers:
            try:
                return await Deferred.fromCoroutine(self._askByTCP(asked, suits, server)).addTimeout(
                    RESEND, self._reactor
                )
            except TimeoutError:
                continue
            except (error.ConnectError, error.ConnectionClosed):
                await deferLater(self._reactor, RESEND)
        raise AssertionError("there is always another")

    async def _askByTCP(self, asked: dns.Query, suits: Suits, server: NameServer) -> dns.Message:
        question = _Question(asked, suits)
        factory = Factory.forProtocol(lambda: _Stream(question, server))
        factory.noisy = False
        try:
            stream = await endpointFor(self._reactor, *server, timeout=None).connect(factory)
        except error.ConnectingCancelledError:
            raise CancelledError from None
        try:
            return (await question.answered)[0]
        finally:
            stream.transport.abortConnection()  # type: ignore[attr-defined]
