# -*- test-case-name: mailgate.test.test_server -*-
"""
The dialogue before login, as far as it is the same for every protocol: framing, the command table, the error budget,
deadlines, STARTTLS, SASL, the login, and the hand-over to the relay.

Rules: the session's phase is the state; commands are taken from the buffer one at a time, and only in the phases
COMMAND and CHALLENGE; whatever is left in the buffer at the end of the login belongs to the backend, and whatever is
in it when TLS starts belongs to nobody.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.client import ProxyClient
from mailgate.dialogue import Command
from mailgate.framing import CommandReader
from mailgate.journal import printable
from mailgate.login import (
    Client,
    Credentials,
    Denial,
    Envelope,
    LoginRequest,
    Method,
    ProxiedAddresses,
    Refusal,
    Route,
    Trouble,
)
from mailgate.relay import makeNoDelay
from mailgate.sasl import MECHANISMS, InvalidResponse, Mechanism, decodeBase64
from mailgate.session import Outcome, Phase, Session
from mailgate.tls import describeTLS

if TYPE_CHECKING:
    from mailgate.listener import ProxyServerFactory

__all__ = ["BUDGET", "ProxyServer"]

_INET = (IPv4Address, IPv6Address)
# Not a union: making one takes longer than all else that is found out of a connection.


def _hostAndPort(address: Any) -> tuple[str, int]:
    """C{address} in the forms of L{Client}."""
    return (address.host, address.port) if isinstance(address, _INET) else ("unix:", 0)


BUDGET = 10
"""How many times C{timeout} all that comes before the login may take together."""


@implementer(IHandshakeListener)
class ProxyServer(CommandReader):
    """
    The server's side of a dialogue. A protocol overrides what is its own: C{commandReceived}, C{greet}, C{refuse},
    C{invalid}, the wording.
    """

    commands: ClassVar[Mapping[bytes, Command]]
    """All that can be said before login, and what of it in the clear."""
    wording: ClassVar[Mapping[Trouble, bytes]]
    """What is said of each trouble, without the line end; in IMAP without the tag."""
    challengePrefix: ClassVar[bytes] = b"+ "
    settings: Any
    """The protocol's own."""
    tag: bytes = b""

    session: Session
    _deadline: IDelayedCall
    _budgetEnd: float

    def __init__(self, factory: ProxyServerFactory) -> None:
        super().__init__()
        self.factory: ProxyServerFactory = factory
        self.clock = factory.clock
        self._journal = factory.journal
        self.settings = factory.protocolSettings
        self.dialogue = factory.dialogue
        self.starttls = factory.starttls
        self._errors = 0
        self._salt: bytes | None = None
        self._mechanism: Mechanism | None = None
        self._proxied: ProxiedAddresses | None = None
        self._clientName = "[UNAVAILABLE]"
        self._pending: Deferred[None] | None = None

    # What each protocol has of its own.

    def greet(self) -> None:
        """Send the greeting, and enter COMMAND."""
        raise NotImplementedError

    def commandReceived(self, line: bytes) -> None:
        """Obey C{line}, which has neither its line end nor CR or NUL."""
        raise NotImplementedError

    def invalid(self) -> None:
        """Tell the client that what it sent is no command."""
        raise NotImplementedError

    def garbled(self, line: bytes) -> None:
        """C{line} holds a CR or a NUL."""
        self.spoilt()

    def overflowed(self) -> None:
        """Tell the client that its command is too long."""
        self.invalid()

    def goodbye(self, trouble: Trouble) -> bytes:
        """The line for a trouble after which the connection ends."""
        return self.wording[trouble] + b"\r\n"

    def refuse(self, denial: Denial) -> None:
        """Tell the client that its login failed."""
        raise NotImplementedError

    def accept(self, client: ProxyClient) -> bytes:
        """What the client is told of its login, by the backend or by us."""
        return client.reply

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

    @property
    def salt(self) -> bytes:
        """The challenge C{<random.time@server_name>} of the digest methods, the same throughout a connection."""
        if self._salt is None:
            nonce = int.from_bytes(self.factory.randomness(8), "big")
            self._salt = f"<{nonce}.{int(self.clock.seconds())}@{self.dialogue.serverName}>".encode()
        return self._salt

    def connectionMade(self) -> None:
        now = self.clock.seconds()
        self._host, self._port = _hostAndPort(self.transport.getPeer())
        self.session = Session(self.factory.record.name, self.factory.name, self._peerName(), now)
        self.factory.connections.add(self)
        self._budgetEnd = now + BUDGET * self.dialogue.timeout
        self._deadline = self.clock.callLater(self.dialogue.timeout, self._expired)
        makeNoDelay(self.transport)
        self.transport.registerProducer(self, True)
        if self.factory.address.ssl:
            self._shakeHands()
        else:
            self._greet()

    def _peerName(self) -> str:
        if not self._port:
            return self._host
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

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
        if self.session.phase is not Phase.TLS:
            return
        if greeted:
            self.resume()
        else:
            self._extend()
            self._greet()

    def dialogueEnded(self) -> None:
        # A client that has closed and one that has only said its last word look alike here; nearly all have closed.
        if self.session.phase is not Phase.END:
            self.end(Outcome.CLIENT_LEFT)

    def dialogueLost(self, reason: Failure) -> None:
        if self.session.phase is Phase.TLS:
            self.session.conclude(Outcome.TLS_FAILED)
        self.session.conclude(Outcome.CLIENT_LEFT)
        self._leave()
        self.factory.ended(self)

    def end(self, outcome: Outcome, goodbye: bytes = b"") -> None:
        """Say C{goodbye} and close, whatever is under way."""
        if self.session.phase is Phase.END:
            return
        self.session.conclude(outcome)
        handshaking = self.session.phase is Phase.TLS
        self._leave()
        if handshaking:
            self.transport.abortConnection()
            return
        if goodbye:
            self.transport.write(goodbye)
        self.transport.unregisterProducer()
        # TLS has to hear the other's goodbye, which a paused transport does not.
        self.transport.resumeProducing()
        self.transport.loseConnection()
        self._deadline = self.clock.callLater(self.dialogue.timeout, self.transport.abortConnection)

    def dismiss(self) -> None:
        """The gateway goes down: say so, where anything can be said, and close."""
        silent = self.session.phase in (Phase.ACCEPT, Phase.PROXY_HEADER)
        self.end(Outcome.STOPPED, b"" if silent else self.goodbye(Trouble.STOPPING))

    def stop(self) -> None:
        """The gateway goes down, and waits no longer: end this connection now."""
        self.end(Outcome.STOPPED)
        self.transport.abortConnection()

    def _leave(self) -> None:
        self.session.enter(Phase.END)
        self.takeBuffer()
        if self._deadline.active():
            self._deadline.cancel()
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()

    # Deadlines.

    def _extend(self) -> None:
        now = self.clock.seconds()
        self._deadline.reset(max(0.0, min(self.dialogue.timeout, self._budgetEnd - now)))

    def _expired(self) -> None:
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
        self._extend()

    def resume(self) -> None:
        """Take the next command."""
        self.session.enter(Phase.COMMAND)
        self._extend()
        self.advance()

    def lineReceived(self, line: bytes) -> None:
        if self.session.phase is Phase.CHALLENGE:
            self._responseReceived(line)
        elif b"\r" in line or b"\0" in line:
            self.garbled(line)
        else:
            self.commandReceived(line)

    def lineTooLong(self) -> None:
        self._journal.info("client {client} sent a too long command", client=self.session.client)
        self.overflowed()
        self.end(Outcome.TOO_LONG)

    def spoilt(self) -> None:
        """What came is no command at all: refuse it, and too many of its kind."""
        self._errors += 1
        self.invalid()
        if self._errors >= self.dialogue.maxErrors:
            self._journal.info("client {client} sent too many invalid commands", client=self.session.client)
            self.end(Outcome.ERRORS)

    # SASL.

    def authenticate(self, name: bytes, initial: bytes | None = None) -> None:
        """Begin the exchange of mechanism C{name}, C{initial} being the initial response in base64 or L{None}."""
        make = MECHANISMS.get(name.upper())
        if make is None or name.upper() not in self.mechanisms:
            self.invalid()
            return
        self._mechanism = make(lambda: self.salt)
        try:
            self._challenge(self._mechanism.start(None if initial is None else decodeBase64(initial)))
        except InvalidResponse as error:
            self._spoiltExchange(error)

    @property
    def mechanisms(self) -> tuple[bytes, ...]:
        """The SASL mechanisms that this server is configured to offer."""
        offered: tuple[bytes, ...] = self.settings.mechanisms
        return offered

    def _responseReceived(self, line: bytes) -> None:
        assert self._mechanism is not None
        try:
            self._challenge(self._mechanism.respond(decodeBase64(line.partition(b" ")[0])))
        except InvalidResponse as error:
            self._spoiltExchange(error)

    def _challenge(self, step: bytes | Credentials) -> None:
        if isinstance(step, Credentials):
            self._mechanism = None
            self.login(step)
        else:
            self.session.enter(Phase.CHALLENGE)
            self.transport.write(self.challengePrefix + base64.b64encode(step) + b"\r\n")

    def _spoiltExchange(self, error: InvalidResponse) -> None:
        self._mechanism = None
        self._journal.info("client {client} sent {error}", client=self.session.client, error=str(error))
        self.session.enter(Phase.COMMAND)
        self.invalid()

    # The login.

    def login(self, credentials: Credentials) -> None:
        """Have C{credentials} judged, and the connection handed over or the client refused."""
        session = self.session
        session.attempts += 1
        session.user = credentials.user
        session.enter(Phase.AUTH)
        self._deadline.reset(max(0.0, self._budgetEnd - self.clock.seconds()))
        request = LoginRequest(
            session.protocol, credentials, self._client(), session.attempts, self.tag, self.envelope(credentials.method)
        )
        pending = Deferred.fromCoroutine(self._login(request))
        if not pending.called:
            self._pending = pending
        pending.addErrback(self._loginFailed)

    def _client(self) -> Client:
        """Who wants to log in, and of its connection what somebody wants to know."""
        factory, session = self.factory, self.session
        local, localPort = self._localAddress() if factory.tellsLocal else ("", 0)
        if factory.tellsSession and not session.name:
            session.name = next(factory.sessionNames)
        return Client(
            self._host,
            self._port,
            session.tls,
            self._clientName,
            self._proxied,
            local,
            localPort,
            session.name,
        )

    def _localAddress(self) -> tuple[str, int]:
        """The address that the client has connected to, which of a wildcard is one of many."""
        return _hostAndPort(self.transport.getHost())

    def envelope(self, method: Method) -> Envelope:
        """What SMTP has heard so far that matters to a login by C{method}."""
        return Envelope()

    async def _login(self, request: LoginRequest) -> None:
        answer: Route | ProxyClient | Refusal | Denial = await self._judge(request)
        if isinstance(answer, Route):
            self.session.user = answer.user
            answer = await self.factory.connector.connect(answer, request, self.session)
        if isinstance(answer, Denial) and answer.wait:
            self.session.enter(Phase.AUTH)
            await deferLater(self.clock, answer.wait)
        self._pending = None
        if isinstance(answer, ProxyClient):
            self._handOver(answer)
        elif isinstance(answer, Refusal):
            self.end(Outcome.BACKEND_REFUSED, answer.reply)
        else:
            self._deny(answer)

    async def _judge(self, request: LoginRequest) -> Route | Denial:
        try:
            return await self.factory.authenticator.authenticate(request)
        except Exception:
            if self.session.phase is Phase.END:
                # The client has left, and we have cancelled it.
                raise
            self._journal.failure(
                "the login of client {client} could not be judged", Failure(), client=self.session.client
            )
            return Denial(Trouble.TEMPORARY)

    def _loginFailed(self, failure: Failure) -> None:
        if self.session.phase is Phase.END and failure.check(CancelledError):
            return
        self._pending = None
        self._journal.failure("the login of client {client} failed", failure, client=self.session.client)
        self.end(Outcome.INTERNAL, self.goodbye(Trouble.INTERNAL))

    def _deny(self, denial: Denial) -> None:
        journal = self._journal
        if journal.wantsInfo:
            journal.info(
                "login failed: client {client}, user {user}, {trouble}{text}",
                client=self.session.client,
                user=f'"{printable(self.session.user)}"',
                trouble=denial.trouble.value,
                text=f': "{printable(denial.text)}"' if denial.text else "",
            )
        self.session.enter(Phase.COMMAND)
        self.refuse(denial)
        if denial.close:
            self.end(Outcome.DENIED)
        else:
            self.resume()

    def _handOver(self, client: ProxyClient) -> None:
        self._deadline.cancel()
        self.session.enter(Phase.RELAY)
        early = self.takeBuffer()
        self.transport.unregisterProducer()
        factory = self.factory
        idle, linger = factory.relayTimeout, self.dialogue.timeout
        relay = factory.relays.between(self, client, self.session, idle, linger, factory.relayEnded)
        factory.connections.discard(self)
        factory.connections.add(relay)
        try:
            relay.start(self.accept(client) + client.leftOver, early)
        except Exception:
            # It is the relay's to end: the dialogue has nothing left to say it with.
            self._journal.failure("the relay of client {client} failed", Failure(), client=self.session.client)
            self.session.conclude(Outcome.INTERNAL)
            relay.abort()
