# -*- test-case-name: mailgate.test.frontend.test_dialogue -*-
"""
The dialogue with a client before the login, as far as it is the same for every protocol: the connection, TLS, and the
order of commands.

It inherits its parts: L{mailgate.frontend.framing} cuts lines, L{mailgate.frontend.intake} sets the pace of commands,
L{mailgate.frontend.patience} holds the deadlines, L{mailgate.frontend.hooks} has the methods that each protocol
overrides. L{mailgate.frontend.sasl} runs SASL, L{mailgate.frontend.loginflow} a login.

Rules:

  - The session's phase is the state.
  - Commands are taken from the buffer one at a time, and only in the phases COMMAND and CHALLENGE.
  - Bytes that are left in the buffer after the login go to the backend.
  - Bytes that are in the buffer when TLS starts are discarded: they arrived in the clear.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.backend.coroutine import Task
from mailgate.frontend.departure import (
    certificateRefused,
    end,
    expire,
    handshakeFailed,
    isSilent,
    leave,
    lossOf,
    turnAway,
)
from mailgate.frontend.disclosure import logTLS, logUnit
from mailgate.frontend.exchange import Exchange
from mailgate.frontend.findings import peerOf
from mailgate.frontend.framing import Unit
from mailgate.frontend.handover import handOver
from mailgate.frontend.hooks import Hooks
from mailgate.frontend.loginflow import Login
from mailgate.frontend.patience import Patience
from mailgate.frontend.sasl import authenticate, goOn
from mailgate.interfaces import IConnection
from mailgate.lean.quickack import acknowledgeOn
from mailgate.log.connection import peerName
from mailgate.log.journal import Journal
from mailgate.login import Credentials, ProxiedAddresses, Trouble
from mailgate.net.endpoints import makeNoDelay
from mailgate.session import Outcome, Phase, Session
from mailgate.tls.server import describeTLS, isResumed

if TYPE_CHECKING:
    from mailgate.frontend.factory import ProxyServerFactory

__all__ = ["ProxyServer"]

_ANSWERING = frozenset(
    (Phase.COMMAND, Phase.CHALLENGE, Phase.AUTH, Phase.CONNECT, Phase.BACKEND_TLS, Phase.BACKEND_LOGIN)
)
"""Phases in which the client may still wait for a reply."""


@implementer(IConnection, IHandshakeListener)
class ProxyServer(Hooks, Patience):
    """
    The server's side of a dialogue.

    @ivar session: the state of the connection, for the log and for timeouts.
    @ivar tag: the tag of the current command, in IMAP.
    @ivar exchange: the SASL exchange that waits for the client's response, or L{None}.
    """

    session: Session
    tag = b""
    hasSpoken = False
    """Whether the client has sent a complete line."""

    _host = ""
    _port = 0
    _proxied: ProxiedAddresses | None = None
    _clientName = "[UNAVAILABLE]"
    _salt: bytes | None = None
    exchange: Exchange | None = None
    failures = 0
    """How many logins were refused."""
    _commands = 0
    _errors = 0
    pending: Task | Deferred[Any] | None = None
    """The operation that the dialogue waits for. It is cancelled when the client leaves."""
    loginBegan: float = 0.0
    """The clock's time in seconds at which the last login began."""
    named: Callable[[], object] | None = None
    """Called when an authenticator has named the user of a login, if an operator kicks users meanwhile."""

    def __init__(self, factory: ProxyServerFactory) -> None:
        """
        @param factory: the listening address that accepted the connection.
        """
        self.factory = factory
        self.clock = factory.clock
        self.settings = factory.protocolSettings
        self.dialogue = factory.dialogue

    @property
    def journal(self) -> Journal:
        """The log for lines about this connection."""
        return self.session.debugging or self.factory.journal

    # The connection.

    def arrive(self, host: str, port: int, started: float, before: Session | None = None) -> None:
        """
        Create the session.

        @param host: the client's address, in the form of L{mailgate.login.Client}.
        @param port: the client's port, 0 for a unix socket.
        @param started: the clock's time in seconds at which the connection was accepted.
        @param before: the session that this one replaces; L{None} for the first.
        """
        self._host = host
        self._port = port
        factory = self.factory
        self.session = session = factory.makeSession(
            factory.listener,
            peerName(host, port),
            started,
            number=next(factory.sessionNumbers) if before is None else before.number,
            readings=None if factory.phaseClock is None else [factory.phaseClock, Phase.ACCEPT, started],
        )
        if factory.isFollowed:
            factory.follow(session, host, "" if before is None else before.trace)

    def arriveBehind(self, proxied: ProxiedAddresses, host: str, port: int) -> None:
        """
        Replace the session: a PROXY header has named the client. Both sessions have the same id.

        @param proxied: the addresses in the header.
        @param host: see L{arrive}.
        @param port: see L{arrive}.
        """
        before = self.session
        self._proxied = proxied
        self.arrive(host, port, before.started, before)
        self.session.goOnFrom(before)

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        factory, now = self.factory, self.clock.seconds()
        if not self._host:
            host, port = peerOf(transport)
            self.arrive(host, port, now)
        factory.began(self)
        self.startWaiting(now)
        session = self.session
        if factory.admission is not None:
            trouble = factory.admission.arrived(session, self._host)
            if trouble is not None:
                turnAway(self, trouble)
                return
        if session.expires is not None:
            self.limit(session.expires)
        if factory.setsNoDelay:
            makeNoDelay(transport)
        transport.registerProducer(self, True)
        if factory.address.ssl:
            self._shakeHands()
        else:
            self.greet()

    def _shakeHands(self) -> None:
        self.session.enter(Phase.TLS)
        self.transport.startTLS(self.factory.tls)

    def startTLS(self, reply: bytes) -> None:
        """
        Answer STARTTLS with C{reply} and begin TLS. Discard commands that the client pipelined in the clear: an
        attacker may have injected them.
        """
        self.transport.write(reply)
        self.extend()
        self.takeAll()
        self.forget()
        self._shakeHands()

    def handshakeCompleted(self) -> None:
        self.session.tls = describeTLS(self.transport.getHandle())
        if self.session.debugging is not None:
            logTLS(self)
        if self.session.phase is not Phase.TLS:
            return
        if self.factory.verifiesClients and certificateRefused(self):
            return
        watch, admission = self.factory.watch, self.factory.admission
        if watch is not None:
            watch.encrypted(self.session, isResumed(self.transport.getHandle()), None)
        if admission is not None and not isResumed(self.transport.getHandle()):
            trouble = admission.shaken(self.session)
            if trouble is not None:
                self.dismiss(Outcome.LIMITED, trouble)
                return
        self.secured()
        if self.factory.address.ssl:
            self.extend()
            self.greet()
            if self.buffer or self.inputEnded:
                self.advance()
        else:
            self.resume()

    def dialogueEnded(self) -> None:
        # A full close and a half-close look alike here. Answer what the client has sent: if it has closed, writing the
        # answer ends the connection.
        phase = self.session.phase
        if phase in _ANSWERING or (phase is Phase.GREETING and b"\n" in self.buffer):
            self.advance()
        elif phase is not Phase.END:
            self.exhausted()

    def exhausted(self) -> None:
        """End the connection: the client has closed its side, and all complete commands are answered."""
        if self.isAcknowledging:
            self.unacknowledged()
        self.end(Outcome.SILENT if isSilent(self) else Outcome.CLIENT_LEFT)

    def dialogueLost(self, reason: Failure) -> None:
        if self.session.outcome is None:
            self.session.conclude(*lossOf(self, reason.value))
            if self.session.phase is Phase.TLS and self.factory.watch is not None:
                handshakeFailed(self, reason.value)
        leave(self)
        self.factory.ended(self)

    def end(self, outcome: Outcome, goodbye: bytes = b"") -> None:
        """
        Send a goodbye and close. Cancel a pending login.

        @param outcome: why the connection ends.
        @param goodbye: the last bytes for the client.
        """
        end(self, outcome, goodbye)

    def dismiss(self, outcome: Outcome, trouble: Trouble) -> None:
        self.end(outcome, self.goodbye(trouble))

    def stop(self) -> None:
        self.end(Outcome.STOPPED)
        self.transport.abortConnection()

    def timedOut(self) -> None:
        expire(self)

    # Commands.

    def dialogueReceived(self, data: bytes) -> None:
        session = self.session
        if not session.phase.listens:
            if session.phase is Phase.GREETING:
                self.receivedBeforeGreeting()
            if session.phase is Phase.END:
                return
        self.feed(data)
        self.advance()
        if session.phase.listens and self.isMidway:
            # The client may wait for the TCP acknowledgement before it sends the rest.
            acknowledgeOn(self.transport)

    def obey(self, unit: Unit, octets: bytes) -> bool:
        session = self.session
        self.hasSpoken = True
        if session.debugging is not None and unit is not Unit.TOO_LONG:
            logUnit(self, unit, octets)
        if unit is Unit.LINE:
            if session.phase is Phase.COMMAND or self._isCommandInstead(octets):
                if b"\r" in octets or b"\0" in octets:
                    self.garbled(octets)
                else:
                    self.commandReceived(octets)
            elif session.phase is Phase.CHALLENGE:
                self.response(octets)
        elif unit is Unit.LITERAL:
            self.literalReceived(octets)
        elif unit is Unit.DISCARDED:
            self.discarded()
        elif unit is Unit.TOO_LONG:
            self.lastReply(Trouble.TOO_LONG)
            self.overflowed()
            self.end(Outcome.TOO_LONG)
        if session.phase.listens:
            self.extend()
            return True
        # A login, TLS or the end has its own deadline.
        return False

    def _isCommandInstead(self, line: bytes) -> bool:
        """
        Return whether C{line} is to be obeyed although the client has got a challenge: it does not acknowledge the
        error of its token, but goes on. Refuse the token then.
        """
        if not (self.isAcknowledging and self.isCommand(line)):
            return False
        self.unacknowledged()
        return self.session.phase.listens

    def resume(self) -> None:
        """Go back to the phase COMMAND and obey the next command, unless the connection has ended."""
        if self.session.phase is Phase.END:
            return
        self.session.enter(Phase.COMMAND)
        self.extend()
        self.advance()

    def spoilt(self) -> None:
        """Refuse input that is not a command. End the connection after C{max_errors} of them."""
        self._errors += 1
        isLast = self._errors >= self.dialogue.maxErrors
        if isLast:
            self.lastReply(Trouble.ERRORS)
        self.invalid()
        if isLast:
            self.end(Outcome.ERRORS)

    def countCommand(self) -> bool:
        """
        Count a command or a response. Beyond C{max_commands} refuse it and end the connection.

        @return: whether it may be obeyed.
        """
        self._commands += 1
        if self._commands <= self.dialogue.maxCommands:
            return True
        self.lastReply(Trouble.COMMANDS)
        self.invalid()
        self.end(Outcome.COMMANDS)
        return False

    # The login.

    @property
    def hasFailedOften(self) -> bool:
        """Whether so many logins were refused that the connection must end (C{max_auth_failures})."""
        return 0 < (self.dialogue.maxAuthFailures or 0) <= self.failures

    @property
    def salt(self) -> bytes:
        """
        The challenge C{<random.time@server_name>} of APOP (RFC 1939, section 7) and CRAM-MD5 (RFC 2195, section 2). It
        stays the same throughout a connection.
        """
        if self._salt is None:
            nonce = int.from_bytes(self.factory.randomness(8), "big")
            self._salt = f"<{nonce}.{int(self.clock.seconds())}@{self.dialogue.serverName}>".encode()
        return self._salt

    def authenticate(self, name: bytes, initial: bytes | None = None) -> None:
        """
        Begin a SASL exchange.

        @param name: the mechanism's name as the client wrote it.
        @param initial: the initial response in base64, or L{None}.
        """
        authenticate(self, name, initial)

    def respond(self, word: bytes) -> None:
        """Continue the SASL exchange with C{word}, the client's response in base64."""
        if self.countCommand() and self.exchange is not None:
            goOn(self, self.exchange, self.exchange.respond(word))

    def explain(self, explanation: Exchange) -> None:
        """Send the client the error of its refused token: C{explanation} is the exchange that has it."""
        goOn(self, explanation, explanation.begin())
        self.extend()
        self.advance()

    @property
    def isAcknowledging(self) -> bool:
        """Whether the client must only acknowledge the error of its refused token to get the refusal."""
        exchange = self.exchange
        return exchange is not None and exchange.last is not None

    def unacknowledged(self) -> None:
        """Refuse the token, whose error the client does not acknowledge."""
        exchange = self.exchange
        assert exchange is not None and exchange.last is not None
        goOn(self, exchange, exchange.last)

    def login(self, credentials: Credentials) -> None:
        """Start a login with C{credentials}. It ends with the hand-over to the relay or with a refusal."""
        Login(self, credentials).begin()

    loggedIn = handOver
    """Called with the conversation with the backend, which is logged in: L{mailgate.frontend.handover.handOver}."""
