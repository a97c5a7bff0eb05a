# -*- test-case-name: mailgate.test.frontend.test_scratchprotocol -*-
"""
The methods that a protocol overrides in the dialogue before login. L{mailgate.frontend.dialogue.ProxyServer} inherits
them as defaults.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mailgate.backend.client import ProxyClient
from mailgate.backend.hops import parseHops
from mailgate.frontend.disclosure import disclosed
from mailgate.frontend.intake import Intake
from mailgate.frontend.mechanisms import InvalidResponse
from mailgate.frontend.protocol import Command
from mailgate.frontend.settings import DialogueSettings
from mailgate.login import Denial, Envelope, Method, Trouble
from mailgate.scram.names import withBinding
from mailgate.session import Phase
from mailgate.tls.binding import hasBinding

if TYPE_CHECKING:
    from mailgate.frontend.factory import ProxyServerFactory

__all__ = ["Hooks"]

_NOTHING_SAID = Envelope()
_AUTH = re.compile(rb"AUTH ", re.IGNORECASE)


class Hooks(Intake):
    """
    A protocol sets the class variables, implements the methods that raise C{NotImplementedError}, and overrides
    defaults that do not suit it. Reply texts here have no line end and, in IMAP, no tag.
    """

    commands: ClassVar[Mapping[bytes, Command]]
    """The commands before login, by their word in capitals."""
    wording: ClassVar[Mapping[Trouble, bytes]]
    """The reply for each trouble."""
    unsupported: ClassVar[bytes]
    """The reply for a SASL mechanism that is not offered."""
    exchangeWording: Mapping[type[InvalidResponse], bytes]
    """The reply for each error of a SASL exchange. That of L{InvalidResponse} is the default."""
    limitWording: ClassVar[Mapping[Trouble, bytes]] = {}
    """The goodbyes for limits, which differ from the replies to logins in L{wording}."""
    mostTooFast: ClassVar[int] = 0
    """After how many logins that came too fast the connection ends; 0: it does not end for that."""
    tooFast = 0
    """How many logins came too fast."""
    challengePrefix: ClassVar[bytes] = b"+ "

    settings: Any
    """The settings of the protocol."""
    dialogue: DialogueSettings
    """The settings that all protocols have."""
    factory: ProxyServerFactory
    respond: Any
    spoilt: Any
    hops: int | None = None
    """Through how many gateways a login may still go, where the client has said so."""
    hasSuccessData: ClassVar[bool] = False
    """
    Whether the reply to a successful login can carry data of the mechanism (RFC 4422, section 3.6). Otherwise they are
    a last challenge, which the client answers by an empty response.
    """
    _used = 0
    """How many bytes of the command were received before the current line, where commands may have literals."""
    successData = b""
    """The data of the mechanism for the reply to a successful login, if L{hasSuccessData}; not in base64."""
    _parting = b""
    """The goodbye that the next reply must append."""

    def lowerHops(self, said: bytes) -> None:
        """
        Note through how many gateways the login may still go, as a gateway that is the client says.

        @param said: the number. An invalid one changes nothing, and neither does one above an earlier number.
        """
        hops = parseHops(said)
        if hops is not None and (self.hops is None or hops < self.hops):
            self.hops = hops

    # State that replies depend on.

    @property
    def inClear(self) -> bool:
        """Whether the connection is without TLS."""
        return self.session.tls is None

    @property
    def offersTLS(self) -> bool:
        """Whether STARTTLS may be used now."""
        return self.inClear and self.factory.starttls != "off" and self.factory.tls is not None

    @property
    def needsTLS(self) -> bool:
        """Whether the client must use STARTTLS before it can log in (C{starttls = only})."""
        return self.factory.starttls == "only" and self.session.tls is None

    @property
    def hasBinding(self) -> bool:
        """Whether the connection has a channel binding, so that mechanisms with C{-PLUS} are offered."""
        tls = self.session.tls
        return tls is not None and hasBinding(tls.protocol, self.transport.getHandle())

    @property
    def mechanisms(self) -> tuple[bytes, ...]:
        """The names of the SASL mechanisms that the client may use now, in capitals."""
        names: tuple[bytes, ...] = self.settings.mechanisms
        bound = withBinding(names)
        return bound if bound and self.hasBinding else names

    # Input from the client.

    def lineLimit(self) -> int:
        """
        Return the longest next line in bytes, its end included. A response, and the command that may have one as its
        argument, may be longer than others.
        """
        if self.session.phase is Phase.CHALLENGE:
            return self.dialogue.longestResponse
        limit: int = self.settings.clientBuffer - self._used
        return self.longerLimit(limit) if len(self.buffer) >= limit else limit

    def longerLimit(self, limit: int) -> int:
        """
        Return the limit in bytes for a line that does not fit into C{limit}, by the command with which it begins.
        """
        # What lies behind the limit must not decide: how much of it is there depends on the segments.
        if self.beginsExchange(self.buffer[:limit]):
            return limit + self.dialogue.longestResponse
        return limit

    def beginsExchange(self, start: bytes | bytearray) -> bool:
        """Return whether a command with this C{start} may have an initial response of SASL. The default is AUTH."""
        return _AUTH.match(start) is not None

    def commandReceived(self, line: bytes) -> None:
        """Obey C{line}, which is without its line end and contains no CR or NUL."""
        raise NotImplementedError

    def disclosed(self, line: bytes) -> bytes:
        """
        Return the command C{line} as the log shows it at level debug: without anything that may be a secret. The
        default shows the words of L{commands}.
        """
        return disclosed(line, self.commands)

    def isCommand(self, line: bytes) -> bool:
        """
        Return whether C{line} is a command and no response: a client that does not acknowledge the error of a refused
        token goes on at once. The default knows the words of L{commands}.
        """
        return line.partition(b" ")[0].upper() in self.commands

    def literalReceived(self, octets: bytes) -> None:
        """Take the C{octets} of a literal that L{expectLiteral} announced."""
        raise NotImplementedError

    def discarded(self) -> None:
        """Act when L{discard} has discarded a literal or a chunk: refuse the command, or wait for its end."""
        raise NotImplementedError

    def garbled(self, line: bytes) -> None:
        """Refuse C{line}, which contains a CR or a NUL."""
        self.spoilt()

    def response(self, line: bytes) -> None:
        """Take the client's response to the last challenge: the first word of C{line}, in base64, as in nginx."""
        self.respond(line.partition(b" ")[0])

    def receivedBeforeGreeting(self) -> None:
        """Handle input before the greeting. By default it stays in the buffer until the greeting is sent."""

    def secured(self) -> None:
        """Act on a completed handshake, before the greeting or, after STARTTLS, before the next command."""

    def forget(self) -> None:
        """Forget what the client said before STARTTLS."""

    # Output to the client.

    def greet(self) -> None:
        """Send the greeting and enter the phase COMMAND; or enter the phase GREETING, and do that later."""
        raise NotImplementedError

    def capabilities(self, offers: Sequence[bytes]) -> list[bytes]:
        """
        Return the capabilities that the client may use now, in the protocol's form: the configured ones and the
        gateway's own.

        @param offers: the configured capabilities.
        """
        raise NotImplementedError

    def reply(self, text: bytes) -> None:
        """Send a reply with the line C{text}, in IMAP after the tag."""
        raise NotImplementedError

    def challenge(self, step: bytes) -> None:
        """Send the challenge C{step}, which is in base64."""
        self.transport.write(self.challengePrefix + step + b"\r\n")

    def invalid(self) -> None:
        """Refuse input that is not a command."""
        raise NotImplementedError

    def overflowed(self) -> None:
        """Refuse a command that is too long."""
        self.invalid()

    def refuse(self, denial: Denial) -> None:
        """Send the reply to a failed login, with the words of C{denial}."""
        raise NotImplementedError

    def goodbye(self, trouble: Trouble) -> bytes:
        """Return the line for a C{trouble} that ends the connection."""
        return (self.limitWording.get(trouble) or self.wording[trouble]) + b"\r\n"

    def farewell(self, trouble: Trouble) -> bytes:
        """Return the goodbye for C{trouble} that follows a reply; empty in a protocol without one."""
        return self.goodbye(trouble)

    def lastReply(self, trouble: Trouble) -> None:
        """
        Append the goodbye for C{trouble} to the next reply, or to the end if no reply comes. Both go out in one
        segment: some clients drop an unread reply when they see the connection close.
        """
        self._parting = self.farewell(trouble)

    def takeParting(self) -> bytes:
        """Return the goodbye of L{lastReply} once, otherwise nothing."""
        parting, self._parting = self._parting, b""
        return parting

    # The login.

    def envelope(self, method: Method) -> Envelope:
        """Return what the client said before that a login by C{method} needs."""
        return _NOTHING_SAID

    def accept(self, client: ProxyClient) -> bytes:
        """Return the reply to the client's login: that of the backend, through C{client}, or the gateway's own."""
        return client.reply
