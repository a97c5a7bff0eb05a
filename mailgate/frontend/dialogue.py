# -*- test-case-name: mailgate.test.frontend.test_dialogue -*-
"""
The dialogue before login, as far as it is the same for every protocol: the connection, TLS, and when a command may be
obeyed. It owns parts that know no connection: what a line is L{mailgate.frontend.framing} knows, what SASL makes of one
L{mailgate.frontend.exchange}, and what a client may take L{mailgate.frontend.patience}. How a login goes on
L{mailgate.frontend.loginflow} knows, and what each protocol does of its own L{mailgate.frontend.hooks}.

Rules: the session's phase is the state; commands are taken from the buffer one at a time, and only in the phases
COMMAND and CHALLENGE; whatever is left in the buffer at the end of the login belongs to the backend, and whatever is
in it when TLS starts belongs to nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.backend.client import ProxyClient
from mailgate.backend.coroutine import Task
from mailgate.frontend.departure import certificateRefused, end, expire, isSilent, leave, lossOf
from mailgate.frontend.exchange import Exchange
from mailgate.frontend.findings import hostAndPort
from mailgate.frontend.framing import Unit
from mailgate.frontend.hooks import Hooks
from mailgate.frontend.intake import Intake
from mailgate.frontend.loginflow import Login, authenticate, goOn, handOver
from mailgate.frontend.patience import Patience
from mailgate.interfaces import IConnection
from mailgate.lean.quickack import acknowledgeOn
from mailgate.log.connection import TLS_ESTABLISHED, about, peerName, tlsName
from mailgate.login import Credentials, ProxiedAddresses, Trouble
from mailgate.relay.protocol import RelayedProtocol, makeNoDelay
from mailgate.session import Outcome, Phase, Session, Stopwatch
from mailgate.tls.server import describeTLS

if TYPE_CHECKING:
    from mailgate.frontend.factory import ProxyServerFactory

__all__ = ["ProxyServer"]

_ANSWERING = frozenset(
    (Phase.COMMAND, Phase.CHALLENGE, Phase.AUTH, Phase.CONNECT, Phase.BACKEND_TLS, Phase.BACKEND_LOGIN)
)
"""Phases in which commands may wait to be obeyed, or a login for its answer."""


@implementer(IConnection, IHandshakeListener, IPushProducer)
class ProxyServer(Hooks, RelayedProtocol):
    """
    The server's side of a dialogue. It is the producer of its own transport: while the client does not take our replies
    nothing more is obeyed or read.

    @ivar session: the ledger of the connection.
    @ivar intake: what has come and is not obeyed yet.
    @ivar patience: what the client may still take before the login.
    @ivar tag: that of the command under way, in IMAP.
    """

    session: Session
    patience: Patience
    tag = b""
    hasSpoken = False
    """Whether a whole line has come."""

    _hasArrived = False
    _host: str
    _port: int
    _proxied: ProxiedAddresses | None
    _clientName = "[UNAVAILABLE]"
    _salt: bytes | None = None
    exchange: Exchange | None = None
    pending: Task | Deferred[Any] | None = None
    """What is waited for, which is cancelled when the client leaves."""

    def __init__(self, factory: ProxyServerFactory) -> None:
        self.factory = factory
        self.clock = factory.clock
        self._journal = factory.journal
        self.settings = factory.protocolSettings
        self.dialogue = factory.dialogue
        self.intake = Intake()

    # The connection.

    def arrive(self, host: str, port: int, started: float, proxied: ProxiedAddresses | None = None) -> None:
        """
        Begin the ledger of the client at C{host} and C{port}, in the forms of L{mailgate.login.Client}: before there
        is a connection where a PROXY header comes first, which may have told of it that it is C{proxied}.
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
        self.patience = Patience(self.dialogue, self.clock, self._expired)
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
        if self.intake.buffer or self.inputEnded:
            self.advance()

    def _shakeHands(self) -> None:
        self.session.enter(Phase.TLS)
        self.transport.startTLS(self.factory.tls)

    def startTLS(self, reply: bytes) -> None:
        """Answer STARTTLS with C{reply}. What the client has pipelined behind it in the clear is thrown away."""
        self.transport.write(reply)
        self.intake.takeAll()
        self.forget()
        self._shakeHands()

    def handshakeCompleted(self) -> None:
        self.session.tls = describeTLS(self.transport.getHandle())
        if self._journal.wantsDebug:
            self._journal.debug(TLS_ESTABLISHED, **about(self.session), tls=tlsName(self.session.tls))
        if self.session.phase is not Phase.TLS or (self.factory.verifiesClients and certificateRefused(self)):
            return
        self.secured()
        if self.factory.address.ssl:
            self.patience.extend()
            self._greet()
        else:
            self.resume()

    def dialogueEnded(self) -> None:
        # A client that has closed and one that has only said its last word look alike here. Where it has asked for
        # something it is answered: an answer that cannot be written any more ends the connection.
        phase = self.session.phase
        if phase in _ANSWERING or (phase is Phase.GREETING and b"\n" in self.intake.buffer):
            self.advance()
        elif phase is not Phase.END:
            self.exhausted()

    def exhausted(self) -> None:
        """The client sends no more, and all whole commands that it has sent have been obeyed."""
        self.end(Outcome.SILENT if isSilent(self) else Outcome.CLIENT_LEFT)

    def dialogueLost(self, reason: Failure) -> None:
        if self.session.outcome is None:
            self.session.conclude(*lossOf(self, reason.value))
        leave(self)
        self.factory.ended(self)

    def end(self, outcome: Outcome, goodbye: bytes = b"") -> None:
        """Say C{goodbye} and close, whatever is under way."""
        end(self, outcome, goodbye)

    def dismiss(self, outcome: Outcome, trouble: Trouble) -> None:
        """See L{IConnection}."""
        self.end(outcome, self.goodbye(trouble))

    def limit(self, moment: float | None) -> None:
        """See L{IConnection}."""
        self.session.expires = moment
        if self.session.phase is not Phase.END:
            self.patience.limit(moment, lambda: self.end(Outcome.EXPIRED, self.goodbye(Trouble.TIMEOUT)))

    def stop(self) -> None:
        """See L{IConnection}."""
        self.end(Outcome.STOPPED)
        self.transport.abortConnection()

    def _expired(self) -> None:
        expire(self)

    # Commands.

    @property
    def listening(self) -> bool:
        return self.session.phase in (Phase.COMMAND, Phase.CHALLENGE)

    def dialogueReceived(self, data: bytes) -> None:
        if self.session.phase is Phase.GREETING:
            self.receivedBeforeGreeting()
        if self.session.phase is Phase.END:
            return
        self.intake.feed(data)
        self.advance()
        if self.listening and self.isMidway:
            # The client may wait for that before it sends the rest.
            acknowledgeOn(self.transport)

    def advance(self) -> None:
        """Obey what has come, as far as that may be."""
        self.intake.advance(self)

    def pauseProducing(self) -> None:
        self.intake.hold(self)

    def resumeProducing(self) -> None:
        self.intake.release(self)

    def stopProducing(self) -> None:
        self.intake.close()

    def obey(self, unit: Unit, octets: bytes) -> bool:
        if unit is Unit.TOO_LONG:
            self.lastReply(Trouble.TOO_LONG)
            self.overflowed()
            self.end(Outcome.TOO_LONG)
            return False
        self.hasSpoken = True
        self.patience.extend()
        if unit is Unit.LINE:
            self._lineReceived(octets)
        elif unit is Unit.LITERAL:
            self.literalReceived(octets)
        elif unit is Unit.DISCARDED:
            self.discarded()
        return unit is not Unit.PART

    def resume(self) -> None:
        """Take the next command, unless this is the end."""
        if self.session.phase is Phase.END:
            return
        self.session.enter(Phase.COMMAND)
        self.patience.extend()
        self.advance()

    def _lineReceived(self, line: bytes) -> None:
        if self.session.phase is Phase.CHALLENGE:
            self.response(line)
        elif b"\r" in line or b"\0" in line:
            self.garbled(line)
        else:
            self.commandReceived(line)

    def spoilt(self) -> None:
        """What came is no command at all: refuse it, and too many of its kind."""
        isLast = not self.patience.countError()
        if isLast:
            self.lastReply(Trouble.ERRORS)
        self.invalid()
        if isLast:
            self.end(Outcome.ERRORS)

    def countCommand(self) -> bool:
        """Count a well-formed command, or response. Gives whether it may be obeyed: one too many is the last."""
        if self.patience.countCommand():
            return True
        self.lastReply(Trouble.COMMANDS)
        self.invalid()
        self.end(Outcome.COMMANDS)
        return False

    # The login.

    @property
    def salt(self) -> bytes:
        """The challenge C{<random.time@server_name>} of the digest methods, the same throughout a connection."""
        if self._salt is None:
            nonce = int.from_bytes(self.factory.randomness(8), "big")
            self._salt = f"<{nonce}.{int(self.clock.seconds())}@{self.dialogue.serverName}>".encode()
        return self._salt

    def authenticate(self, name: bytes, initial: bytes | None = None) -> None:
        """Begin the exchange of mechanism C{name}, C{initial} being the initial response in base64 or L{None}."""
        authenticate(self, name, initial)

    def respond(self, word: bytes) -> None:
        """Take C{word}, the client's answer to the last challenge, in base64."""
        if self.countCommand() and self.exchange is not None:
            goOn(self, self.exchange, self.exchange.respond(word))

    def login(self, credentials: Credentials) -> None:
        """Have C{credentials} judged, and the connection handed over or the client refused."""
        Login(self, credentials).begin()

    def loggedIn(self, client: ProxyClient) -> None:
        """The backend has let the client in, by the connection of C{client}: leave both to the relay."""
        handOver(self, client)
