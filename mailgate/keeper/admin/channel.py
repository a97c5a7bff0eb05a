# -*- test-case-name: mailgate.test.keeper.admin.test_channel -*-
"""
The connections of the admin server: twisted.web's HTTP/1.1, with bounds. What twisted.web does without being asked (it
parses forms and cookies, accepts folded header lines and bodies of unknown length, and answers in HTML) is off.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from cryptography.x509 import NameOID
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.web import http

from mailgate.keeper.admin.asked import MOST_BODY, Asked, Peer
from mailgate.keeper.admin.replies import Refused, Reply, problemReply
from mailgate.keeper.admin.request import AdminRequest, fieldsOf
from mailgate.keeper.peers import peerOf
from mailgate.log.seldom import PERIOD, Seldom

__all__ = ["MOST", "AdminChannel", "AdminFactory"]

MOST = 16
"""The most connections. TCP gets one less, so that a process at the unix socket is always heard."""

RECEIVING = 10.0
"""Seconds in which a request must arrive, TLS handshake included."""

IDLE = 60.0
"""Seconds in which a client must read an answer and begin its next request."""

CLOSING = 5.0
"""Seconds in which a connection must close that the server ends, and how long input after a refusal is ignored."""

_MOST_HEADER = 16 * 1024
_MOST_FIELDS = 100
_METHOD = re.compile(rb"[A-Za-z]{1,16}")
_TARGET = re.compile(rb"[!-~]+")

_SINGLE = (
    *(b"Authorization", b"Connection", b"Content-Length", b"Content-Type", b"Expect", b"Host", b"Origin"),
    *(b"Sec-Fetch-Mode", b"Sec-Fetch-Site", b"Upgrade"),
)
"""Header fields that a request has once at most: two readers may take different ones for the right one."""


class _Stage(Enum):
    """What a connection waits for."""

    RECEIVING = RECEIVING
    ANSWERING = None
    IDLE = IDLE
    CLOSING = CLOSING


class AdminChannel(http.HTTPChannel):
    """
    One connection.

    @ivar clock: timers.
    @ivar isPenalized: whether it waits for the answer to a wrong token.
    """

    requestFactory = AdminRequest
    maxHeaders = _MOST_FIELDS
    totalHeadersSize = _MOST_HEADER
    MAX_LENGTH = _MOST_HEADER
    # The deadlines of this class replace the timeout of twisted.web, which starts anew with each byte.
    timeOut = None
    factory: Any
    clock: Any
    isPenalized = False
    _isRefused = False
    _isCounted = False
    _stage = _Stage.RECEIVING
    _since = 0.0
    _timer: IDelayedCall | None = None
    _peer: Peer | None = None

    @property
    def isLocal(self) -> bool:
        """Whether the client is a process at a unix socket."""
        return isinstance(self.getHost(), UNIXAddress)

    @property
    def isIdle(self) -> bool:
        """Whether it may be closed for a new connection: it waits for a request, or for the answer to a wrong token."""
        return self._stage is _Stage.IDLE or self.isPenalized

    @property
    def lateSince(self) -> float | None:
        """
        Since when, in seconds of the clock, the client should complete its request, or close a connection on which it
        was refused. L{None} if it need not.
        """
        return self._since if self._stage in (_Stage.RECEIVING, _Stage.CLOSING) else None

    def peer(self) -> Peer:
        """Return who is at the other end."""
        if self._peer is None:
            self._peer = _localPeer(self.transport) if self.isLocal else _remotePeer(self.transport)
        return self._peer

    def connectionMade(self) -> None:
        super().connectionMade()
        self._isCounted = self.factory.arrived(self)
        if self._isCounted:
            self._enter(_Stage.RECEIVING)
        else:
            self._isRefused = True
            self.abort()

    def abort(self) -> None:
        """Close the connection now."""
        transport: Any = self.transport
        transport.abortConnection()

    def _enter(self, stage: _Stage) -> None:
        self._stage, self._since = stage, self.clock.seconds()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None if stage.value is None else self.clock.callLater(stage.value, self._expired)

    def _expired(self) -> None:
        if self._stage is _Stage.IDLE:
            self.loseConnection()
            self._enter(_Stage.CLOSING)
        else:
            self.abort()

    def dataReceived(self, data: bytes) -> None:
        if self._isRefused:
            return
        if self._stage is _Stage.IDLE:
            self._enter(_Stage.RECEIVING)
        super().dataReceived(data)

    def pauseProducing(self) -> None:
        """The client does not read its answers: the requests that it has sent already wait, too."""
        self.paused = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """It has read them."""
        self.paused = False
        super().resumeProducing()
        waiting = self.clearLineBuffer()
        if waiting:
            self.dataReceived(waiting)

    def lineReceived(self, line: bytes) -> None:
        if self._isRefused:
            return
        if line[:1] in (b" ", b"\t"):
            # Folded lines are obsolete (RFC 9112, section 5.2), and readers disagree about them.
            self._respondToBadRequestAndDisconnect()
        else:
            super().lineReceived(line)

    def headerReceived(self, line: bytes) -> bool:
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            # Python converts no number of thousands of digits, such as one in Content-Length.
            self._respondToBadRequestAndDisconnect()
            return False

    def lineLengthExceeded(self, line: bytes) -> None:
        self._refuse(Refused(431, "the header of the request is too large"))

    def rawDataReceived(self, data: bytes) -> None:
        if not self._isRefused:
            super().rawDataReceived(data)

    def allHeadersReceived(self) -> None:
        try:
            self._checkHead()
        except Refused as refused:
            self._refuse(refused)
        else:
            super().allHeadersReceived()

    def _checkHead(self) -> None:
        """Check what must be right before the body is read."""
        headers = self.requests[-1].requestHeaders
        if not _METHOD.fullmatch(self._command) or not _TARGET.fullmatch(self._path):
            raise Refused(400, "the request line is not valid")
        for name in _SINGLE:
            if len(headers.getRawHeaders(name, ())) > 1:
                raise Refused(400, f"the header field {name.decode()} is repeated")
        if headers.hasHeader(b"Transfer-Encoding"):
            raise Refused(411, "the body must have a Content-Length")
        if self.length and self._command in (b"GET", b"HEAD"):
            raise Refused(400, "a request to read has no body")
        if self.length is None or self.length > MOST_BODY:
            raise Refused(413, f"the body is larger than {MOST_BODY} bytes")
        expected = headers.getRawHeaders(b"Expect")
        if expected and expected[0].lower() != b"100-continue":
            raise Refused(417, "the header field Expect is not known")

    def allContentReceived(self) -> None:
        if not self._isRefused:
            self._enter(_Stage.ANSWERING)
            super().allContentReceived()

    def requestDone(self, request: Any) -> None:
        isClosing = not self.persistent
        self._enter(_Stage.IDLE)
        super().requestDone(request)
        if self.factory.isFinishing and not isClosing:
            self.loseConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Replaces the method of twisted.web, whose answer has no header."""
        self._refuse(Refused(400, "the request is not valid HTTP/1.1"))

    def _refuse(self, refused: Refused) -> None:
        """
        Answer, and read no request any more. Input is ignored for a moment: a connection that is closed with unread
        input is reset, and the client may not see the answer.
        """
        if self._isRefused:
            return
        self._isRefused = True
        reply = problemReply(refused)
        fields = [*fieldsOf(reply), (b"Connection", b"close")]
        head = b"".join(b"%b: %b\r\n" % field for field in fields)
        reason = http.RESPONSES.get(reply.status, b"")
        assert self.transport is not None
        body = b"" if getattr(self, "_command", b"") == b"HEAD" else reply.body
        self.transport.write(b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (reply.status, reason, head, body))
        self._enter(_Stage.CLOSING)

    def connectionLost(self, reason: Any = None) -> None:
        self._enter(_Stage.ANSWERING)
        if self._isCounted:
            self.factory.left(self)
        super().connectionLost(reason)


def _latest(channels: Sequence[AdminChannel]) -> AdminChannel | None:
    """The connection whose client is late for longest; L{None} if none is."""
    late = [(each.lateSince, place) for place, each in enumerate(channels) if each.lateSince is not None]
    return channels[min(late)[1]] if late else None


def _localPeer(transport: Any) -> Peer:
    found = peerOf(transport)
    return Peer(isLocal=True) if found is None else Peer(isLocal=True, uid=found.uid, pid=found.pid)


def _remotePeer(transport: Any) -> Peer:
    peer, host = transport.getPeer(), transport.getHost()
    shown = f"[{peer.host}]" if ":" in peer.host else peer.host
    return Peer(address=f"{shown}:{peer.port}", host=host.host, certificate=_certificateName(transport))


def _certificateName(transport: Any) -> str | None:
    """The common name of the client's certificate, which the handshake has verified."""
    presented = getattr(transport, "getPeerCertificate", lambda: None)()
    if presented is None:
        return None
    names = presented.to_cryptography().subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


class AdminFactory(Factory):
    """
    Makes the connections of one server, and bounds their number.

    @param answer: answers a request: a function of an L{Asked} that returns a Deferred of a L{Reply}. The Deferred is
        cancelled when the client has left.
    @param clock: timers and the time in seconds.
    @ivar isFinishing: whether connections are closed after their answers.
    """

    _log = Logger("mailgate")
    noisy = False

    def __init__(self, answer: Callable[[Asked], Deferred[Reply]], clock: IReactorTime) -> None:
        self.answer = answer
        self.isFinishing = False
        self._finished: list[Deferred[None]] = []
        self._clock = clock
        self._open: list[AdminChannel] = []
        self._streams: dict[AdminChannel, Callable[[], object]] = {}
        self._saysFull = Seldom()

    def buildProtocol(self, addr: Any) -> AdminChannel:
        channel = AdminChannel()
        channel.factory = self
        channel.clock = self._clock
        return channel

    def log(self, request: Any) -> None:
        # There is no access log.
        return None

    def arrived(self, channel: AdminChannel) -> bool:
        """
        Count a new connection. If there are too many, close an idle one for it, or the one whose client is
        late for longest: clients that send slowly, or nothing, do not keep others out.

        @param channel: the new one.
        @return: whether there is a place for it.
        """
        alike = self._open if channel.isLocal else [each for each in self._open if not each.isLocal]
        if len(self._open) >= MOST or (not channel.isLocal and len(alike) >= MOST - 1):
            idle = next((each for each in alike if each.isIdle), None) or _latest(alike)
            if idle is None:
                if self._saysFull.isDue(self._clock.seconds()):
                    self._log.warn(
                        "admin connection refused: {most} connections are open (logged once in {seconds:g} seconds)",
                        most=MOST,
                        seconds=PERIOD,
                    )
                return False
            self.left(idle)
            idle.abort()
        self._open.append(channel)
        return True

    def left(self, channel: AdminChannel) -> None:
        """
        A connection has ended.

        @param channel: the connection.
        """
        self._streams.pop(channel, None)
        if channel in self._open:
            self._open.remove(channel)
        if not self._open and not self._streams:
            finished, self._finished = self._finished, []
            for each in finished:
                each.callback(None)

    def streaming(self, channel: AdminChannel, end: Callable[[], object]) -> None:
        """
        The answer of a connection goes on: it does not count as an open one any more. What answers bounds how many
        there are.

        @param channel: the connection.
        @param end: ends the answer. It is called when the other connections are closed after their answers.
        """
        self._streams[channel] = end
        if channel in self._open:
            self._open.remove(channel)

    def finish(self) -> Deferred[None]:
        """
        Close the connections without a request now, and each of the others after its answer. End the answers that go
        on.

        @return: fires when all are closed.
        """
        self.isFinishing = True
        for end in [*self._streams.values()]:
            end()
        for channel in [*self._open]:
            if channel.isIdle:
                channel.loseConnection()
        if not self._open and not self._streams:
            return succeed(None)
        self._finished.append(Deferred())
        return self._finished[-1]

    def abort(self) -> None:
        """Close all connections now."""
        for channel in [*self._open, *self._streams]:
            channel.abort()
