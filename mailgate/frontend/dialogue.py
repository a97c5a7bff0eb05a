# -*- test-case-name: mailgate.test.frontend.test_dialogue -*-
"""
The dialogue before login, as far as it is the same for every protocol: the command table, the error budget, deadlines,
STARTTLS. What a line is L{mailgate.frontend.framing} knows, what SASL makes of one L{mailgate.frontend.exchange}, how a
login goes on L{mailgate.frontend.loginflow}.

Rules: the session's phase is the state; commands are taken from the buffer one at a time, and only in the phases
COMMAND and CHALLENGE; whatever is left in the buffer at the end of the login belongs to the backend, and whatever is
in it when TLS starts belongs to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.interfaces import IHandshakeListener
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.frontend.findings import hostAndPort
from mailgate.frontend.loginflow import LoginServer
from mailgate.frontend.protocol import BUDGET, Command
from mailgate.interfaces import IConnection
from mailgate.log.connection import TLS_ESTABLISHED, about, peerName, tlsName
from mailgate.login import ProxiedAddresses, Trouble
from mailgate.relay.protocol import makeNoDelay
from mailgate.session import Outcome, Phase, Stopwatch
from mailgate.tls.errors import clientTrouble, hasReason
from mailgate.tls.settings import TLSSettings, describeTLS

if TYPE_CHECKING:
    from mailgate.frontend.factory import ProxyServerFactory

__all__ = ["ProxyServer"]


_ANSWERING = frozenset(
    (Phase.COMMAND, Phase.CHALLENGE, Phase.AUTH, Phase.CONNECT, Phase.BACKEND_TLS, Phase.BACKEND_LOGIN)
)
"""Phases in which commands may wait to be obeyed, or a login for its answer."""


@implementer(IConnection, IHandshakeListener)
class ProxyServer(LoginServer):
    """
    The server's side of a dialogue. A protocol overrides what is its own: C{commandReceived}, C{greet}, C{refuse},
    C{invalid}, the wording.
    """

    commands: ClassVar[Mapping[bytes, Command]]
    """All that can be said before login, and what of it in the clear."""
    settings: Any
    """The protocol's own."""
    _hasArrived = False
    _hasSpoken = False
    """Whether a whole line has come."""

    def __init__(self, factory: ProxyServerFactory) -> None:
        super().__init__(factory)
        self.starttls = factory.starttls
        self._errors = 0
        self._commands = 0

    # What each protocol has of its own.

    def greet(self) -> None:
        """Send the greeting, and enter COMMAND."""
        raise NotImplementedError

    def commandReceived(self, line: bytes) -> None:
        """Obey C{line}, which has neither its line end nor CR or NUL."""
        raise NotImplementedError

    def garbled(self, line: bytes) -> None:
        """C{line} holds a CR or a NUL."""
        self.spoilt()

    def invalid(self) -> None:
        """Tell the client that what it sent is no command."""
        raise NotImplementedError

    def overflowed(self) -> None:
        """Tell the client that its command is too long."""
        self.invalid()

    def forget(self) -> None:
        """Drop what was said before TLS."""

    # The connection.

    @property
    def inClear(self) -> bool:
        """Whether the connection is not protected by TLS."""
        return self.session.tls is None

    @property
    def offersTLS(self) -> bool:
        """Whether STARTTLS may be used now."""
        return self.inClear and self.starttls != "off" and self.factory.tls is not None

    @property
    def needsTLS(self) -> bool:
        """Whether nothing but STARTTLS leads to a login now."""
        return self.inClear and self.starttls == "only"

    def arrive(self, host: str, port: int, started: float, proxied: ProxiedAddresses | None = None) -> None:
        """
        Begin the ledger of the client at C{host} and C{port}, in the forms of L{Client}: before there is a connection
        where a PROXY header comes first, which may have told of it that it is C{proxied}.
        """
        self._host, self._port, self._proxied = host, port, proxied
        factory = self.factory
        # A PROXY header does not make another connection of this one.
        before = self.session if self._hasArrived else None
        self._hasArrived = True
        self.session = factory.makeSession(
            factory.record.name,
            factory.name,
            peerName(host, port),
            started,
            id=next(factory.sessionIds) if before is None else before.id,
            stopwatch=None if factory.phaseClock is None else Stopwatch(factory.phaseClock, started),
        )
        if before is not None:
            self.session.goOnFrom(before)

    def connectionMade(self) -> None:
        now = self.clock.seconds()
        if not self._hasArrived:
            self.arrive(*hostAndPort(self.transport.getPeer()), now)
        self.factory.began(self)
        self._budgetEnd = now + BUDGET * self.dialogue.timeout
        self._deadline = self.clock.callLater(self.dialogue.timeout, self._expired)
        if self.session.expires is not None:
            self.limit(self.session.expires)
        makeNoDelay(self.transport)
        self.transport.registerProducer(self, True)
        if self.factory.address.ssl:
            self._shakeHands()
        else:
            self._greet()

    def _greet(self) -> None:
        self.session.enter(Phase.GREETING)
        self.greet()
        self.advance()

    def _shakeHands(self) -> None:
        self.session.enter(Phase.TLS)
        self.transport.startTLS(self.factory.tls)

    def startTLS(self, reply: bytes) -> None:
        """Answer STARTTLS with C{reply}. What the client has pipelined behind it in the clear is thrown away."""
        self.transport.write(reply)
        self.takeBuffer()
        self.forget()
        self._shakeHands()

    def handshakeCompleted(self) -> None:
        greeted = not self.factory.address.ssl
        self.session.tls = describeTLS(self.transport.getHandle())
        if self._journal.wantsDebug:
            self._journal.debug(TLS_ESTABLISHED, **about(self.session), tls=tlsName(self.session.tls))
        if self.session.phase is not Phase.TLS or (self.factory.verifiesClients and self._certificateRefused()):
            return
        if greeted:
            self.resume()
        else:
            self._extend()
            self._greet()

    def _certificateRefused(self) -> bool:
        """Whether the client cannot stay, by C{ssl_verify_client}; then it has been told."""
        assert self.factory.tls is not None
        refusal = self.factory.tls.refusal(self.transport.getHandle())
        if refusal is None:
            return False
        self.session.conclude(Outcome.CERTIFICATE, refusal.reason)
        self.end(Outcome.CERTIFICATE, self.goodbye(refusal.trouble))
        return True

    def dialogueEnded(self) -> None:
        # A client that has closed and one that has only said its last word look alike here. Where it has asked for
        # something it is answered: an answer that cannot be written any more ends the connection.
        if self.session.phase in _ANSWERING or (self.session.phase is Phase.GREETING and b"\n" in self._buffer):
            super().dialogueEnded()
        elif self.session.phase is not Phase.END:
            self.exhausted()

    def exhausted(self) -> None:
        self.end(Outcome.SILENT if self._isSilent else Outcome.CLIENT_LEFT)

    def dialogueLost(self, reason: Failure) -> None:
        if self.session.outcome is None:
            self._concludeLost(reason)
        self._leave()
        self.factory.ended(self)

    @property
    def _isSilent(self) -> bool:
        """Whether the client has sent no byte since it arrived: so do those who only look whether a port is open."""
        if self.session.phase is Phase.TLS:
            return self.factory.address.ssl and not self._speaksInTLS
        return self.inClear and not (self._hasSpoken or self._buffer)

    @property
    def _speaksInTLS(self) -> bool:
        """Whether a byte of the handshake has come."""
        connection = self.transport.getHandle()
        return connection is not None and bool(getattr(connection, "heard", True))

    def _concludeLost(self, reason: Failure) -> None:
        """Say why the client has gone, of which C{reason} is what the transport knows."""
        error: Any = reason.value
        isOfTLS = hasReason(error)
        if self._isSilent and not isOfTLS:
            self.session.conclude(Outcome.SILENT)
        elif self.session.phase is Phase.TLS:
            spoken = self.factory.settings[TLSSettings].protocols
            self.session.conclude(Outcome.TLS_FAILED, clientTrouble(error, self.transport.getHandle(), spoken))
        else:
            # By TLS 1.3 some clients look at our certificate when hands have been shaken.
            self.session.conclude(Outcome.CLIENT_LEFT, clientTrouble(error) if isOfTLS else "")

    def end(self, outcome: Outcome, goodbye: bytes = b"") -> None:
        """Say C{goodbye} and close, whatever is under way."""
        if self.session.phase is Phase.END:
            return
        self.session.conclude(outcome)
        handshaking = self.session.phase is Phase.TLS and self.session.tls is None
        self._leave()
        if handshaking:
            self.transport.abortConnection()
            return
        goodbye = goodbye or self.takeParting()
        if goodbye:
            self.transport.write(goodbye)
        self.transport.unregisterProducer()
        # TLS has to hear the other's goodbye, which a paused transport does not.
        self.transport.resumeProducing()
        self._paused = False
        self.transport.loseConnection()
        self._deadline = self.clock.callLater(self.dialogue.timeout, self.transport.abortConnection)

    def dismiss(self, outcome: Outcome, trouble: Trouble) -> None:
        """See L{IConnection}."""
        self.end(outcome, self.goodbye(trouble))

    def stop(self) -> None:
        """See L{IConnection}."""
        self.end(Outcome.STOPPED)
        self.transport.abortConnection()

    def _leave(self) -> None:
        self.session.enter(Phase.END)
        self.takeBuffer()
        if self._deadline.active():
            self._deadline.cancel()
        if self._limit is not None:
            self._dropLimit()
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()

    # Deadlines.

    def _extend(self) -> None:
        now = self.clock.seconds()
        self._deadline.reset(max(0.0, min(self.dialogue.timeout, self._budgetEnd - now)))

    def limit(self, moment: float | None) -> None:
        """See L{IConnection}."""
        self._dropLimit()
        self.session.expires = moment
        if moment is not None and self.session.phase is not Phase.END:
            self._limit = self.clock.callLater(max(0.0, moment - self.clock.seconds()), self._outlived)

    def _outlived(self) -> None:
        self.end(Outcome.EXPIRED, self.goodbye(Trouble.TIMEOUT))

    def _expired(self) -> None:
        if self.session.phase is Phase.TLS:
            said = "did not end the handshake" if self._speaksInTLS else "sent nothing, where TLS was expected"
            self.session.conclude(Outcome.TIMEOUT, f"the client {said}")
        self.end(Outcome.TIMEOUT, self.goodbye(Trouble.TIMEOUT))

    # Commands.

    @property
    def listening(self) -> bool:
        return self.session.phase in (Phase.COMMAND, Phase.CHALLENGE)

    def dialogueReceived(self, data: bytes) -> None:
        if self.session.phase is Phase.END:
            return
        if self.session.phase is Phase.GREETING:
            self.receivedBeforeGreeting()
        super().dialogueReceived(data)

    def receivedBeforeGreeting(self) -> None:
        """The client speaks first. It is listened to later."""

    def unitBegins(self) -> None:
        self._hasSpoken = True
        self._extend()

    def resume(self) -> None:
        """Take the next command, unless this is the end."""
        if self.session.phase is Phase.END:
            return
        self.session.enter(Phase.COMMAND)
        self._extend()
        self.advance()

    def lineReceived(self, line: bytes) -> None:
        if self.session.phase is Phase.CHALLENGE:
            if self.countCommand():
                self.responseReceived(line)
        elif b"\r" in line or b"\0" in line:
            self.garbled(line)
        else:
            self.commandReceived(line)

    def lineTooLong(self) -> None:
        self.lastReply(Trouble.TOO_LONG)
        self.overflowed()
        self.end(Outcome.TOO_LONG)

    def spoilt(self) -> None:
        """What came is no command at all: refuse it, and too many of its kind."""
        self._errors += 1
        isLast = self._errors >= self.dialogue.maxErrors
        if isLast:
            self.lastReply(Trouble.ERRORS)
        self.invalid()
        if isLast:
            self.end(Outcome.ERRORS)

    def countCommand(self) -> bool:
        """Count a well-formed command, or response. Gives whether it may be obeyed: one too many is the last."""
        self._commands += 1
        if self._commands <= self.dialogue.maxCommands:
            return True
        self.lastReply(Trouble.COMMANDS)
        self.invalid()
        self.end(Outcome.COMMANDS)
        return False
