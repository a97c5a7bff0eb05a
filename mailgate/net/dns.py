# -*- test-case-name: mailgate.test.net.test_dns -*-
"""
Questions to name servers (RFC 1035), in twisted.names' messages: each over UDP from a port and with an id of its own
that nobody can guess, and over TCP where the answer does not fit.

twisted.names' own resolver begins with the same server each time, takes no answer that comes late, leaves a timer
behind a question that is given up, and logs what strangers send.
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
"""Seconds until the next server is asked: nginx's."""

_MOST_PORTS = 100
"""How many ports are tried before there seems to be none that is free."""

_NO_SOCKETS = (errno.EMFILE, errno.ENFILE)
"""Errors that no other port mends."""

_NO_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""Errors of a host that has no IPv6."""

Suits = Callable[[dns.Message], bool]
"""Whether an answer is one that can be used. Any other is passed over, as though it had not come."""


class _Question:
    """
    What is asked, as the C{wire} has it, and C{answered}: its answer, and who gave it. Whatever else comes is passed
    over, and not worth a line in the log.
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
        """C{server} has sent C{data}."""
        message = dns.Message()
        try:
            message.fromStr(data)
            # What ends too soon is decoded as far as it goes.
            whole = len(message.answers) == int.from_bytes(data[6:8], "big")
            counts = self._isAnswer(message) and (message.trunc or (whole and self._suits(message)))
        except Exception:
            # What strangers send makes a decoder raise anything.
            return
        if counts and not self.answered.called:
            self.answered.callback((message, server))

    def failed(self, failure: Failure) -> None:
        """It cannot be asked."""
        if not self.answered.called:
            self.answered.errback(failure)

    def _isAnswer(self, message: dns.Message) -> bool:
        if not message.answer or message.id != self._id or len(message.queries) != 1:
            return False
        asked, echoed = self._asked, message.queries[0]
        isSameName = asked.name.name.lower() == echoed.name.name.lower()
        return isSameName and (asked.type, asked.cls) == (echoed.type, echoed.cls)


class _Datagrams(DatagramProtocol):
    """C{question} over UDP."""

    noisy = False
    transport: Any

    def __init__(self, question: _Question) -> None:
        self._question = question
        self._asked: set[NameServer] = set()

    def send(self, server: NameServer) -> None:
        """
        Ask C{server}.

        @raise OSError: there is no way to it.
        """
        self._asked.add(server)
        self.transport.write(self._question.wire, server)

    def datagramReceived(self, data: bytes, addr: NameServer) -> None:
        if addr in self._asked:
            self._question.received(data, addr)


class _Stream(Int16StringReceiver):
    """C{question} over TCP, to C{server}."""

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
    """C{question}, put to the next of C{servers} each L{RESEND} seconds; C{asked} are as many as there are."""

    def __init__(self, question: _Question, servers: Iterator[NameServer], asked: int, reactor: Any) -> None:
        self._question = question
        self._servers = servers
        self._count = asked
        self._reactor = reactor
        self._sockets: dict[str, _Datagrams] = {}
        self._loop = LoopingCall(self._send)
        self._loop.clock = reactor

    def start(self) -> None:
        """Begin; what goes wrong is the question's failure."""
        self._loop.start(RESEND).addErrback(self._question.failed)

    def stop(self) -> list[Deferred[Any]]:
        """End; the Deferreds fire when all is closed."""
        if self._loop.running:
            self._loop.stop()
        return [maybeDeferred(socket.transport.stopListening) for socket in self._sockets.values()]

    def _send(self) -> None:
        for _ in range(self._count):
            server = next(self._servers)
            try:
                self._socket("::" if ":" in server[0] else "").send(server)
            except OSError:
                # There is no way to it: the next may be near.
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
    C{servers}, of which each question goes to the next in turn, the first to the first; and to the one after that when
    no answer has come for L{RESEND} seconds, again and again. An answer that comes late is taken all the same.
    """

    def __init__(self, servers: tuple[NameServer, ...], reactor: Any) -> None:
        self._servers = servers
        self._reactor = reactor
        self._turn = 0
        self._closing: set[Deferred[Any]] = set()

    def ask(self, asked: dns.Query, suits: Suits, timeout: float) -> Deferred[dns.Message]:
        """
        The answer to C{asked} that C{suits}, in C{timeout} seconds.

        It fails with L{TimeoutError}, or with L{error.CannotListenError} if there is no socket to ask from.
        """
        asking = Deferred.fromCoroutine(self._ask(asked, suits))
        return asking.addTimeout(timeout, self._reactor)

    def close(self) -> Deferred[Any]:
        """The Deferred fires when the sockets of those questions that are no longer asked are closed."""
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
        """By TCP, as the answer was cut off."""
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
