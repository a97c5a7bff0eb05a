# -*- test-case-name: mailgate.test.frontend.test_scratchprotocol -*-
"""
What a protocol says and does of its own in the dialogue before login. L{mailgate.frontend.dialogue.ProxyServer}, which
does the rest, has these as defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mailgate.backend.client import ProxyClient
from mailgate.backend.hops import parseHops
from mailgate.frontend.intake import Intake
from mailgate.frontend.mechanisms import InvalidResponse
from mailgate.frontend.protocol import Command
from mailgate.login import Denial, Envelope, Method, Trouble
from mailgate.session import Session

if TYPE_CHECKING:
    from mailgate.frontend.factory import ProxyServerFactory

__all__ = ["Hooks"]


class Hooks:
    """
    A protocol overrides what is its own: all that is not implemented here, the words, and whatever default is not its
    way. Words have no line end, and no tag in IMAP.
    """

    commands: ClassVar[Mapping[bytes, Command]]
    """All that can be said before login, and what of it in the clear."""
    wording: ClassVar[Mapping[Trouble, bytes]]
    """What is said of each trouble."""
    unsupported: ClassVar[bytes]
    """What is said of a mechanism that is not offered."""
    exchangeWording: ClassVar[Mapping[type[InvalidResponse], bytes]]
    """What is said of each way in which an exchange of SASL fails."""
    challengePrefix: ClassVar[bytes] = b"+ "

    settings: Any
    """The protocol's own."""
    session: Session
    intake: Intake
    factory: ProxyServerFactory
    transport: Any
    respond: Any
    spoilt: Any
    hops: int | None = None
    """Through how many gateways a login may still go, where the client has said so."""
    _parting = b""
    """The goodbye that the next reply is to take with it."""

    def lowerHops(self, said: bytes) -> None:
        """
        A gateway that is the client has C{said} through how many gateways its login may still go. What does not look
        like that changes nothing; nor does a higher number than an earlier one.
        """
        told = parseHops(said)
        if told is not None and (self.hops is None or told < self.hops):
            self.hops = told

    # What its answers depend on.

    @property
    def inClear(self) -> bool:
        """Whether the connection is not protected by TLS."""
        return self.session.tls is None

    @property
    def offersTLS(self) -> bool:
        """Whether STARTTLS may be used now."""
        return self.inClear and self.factory.starttls != "off" and self.factory.tls is not None

    @property
    def needsTLS(self) -> bool:
        """Whether nothing but STARTTLS leads to a login now."""
        return self.inClear and self.factory.starttls == "only"

    @property
    def isMidway(self) -> bool:
        """Whether more has to come before anything can be answered."""
        return self.intake.isMidway

    # What comes.

    def lineLimit(self) -> int:
        """The most bytes that the next line may have, its end included."""
        limit: int = self.settings.clientBuffer
        return limit

    def commandReceived(self, line: bytes) -> None:
        """Obey C{line}, which has neither its line end nor CR or NUL."""
        raise NotImplementedError

    def literalReceived(self, octets: bytes) -> None:
        """Take the bytes asked for by C{framing.expectLiteral}."""
        raise NotImplementedError

    def discarded(self) -> None:
        """All bytes that C{framing.discard} was asked to take have come, and are gone."""
        raise NotImplementedError

    def garbled(self, line: bytes) -> None:
        """C{line} holds a CR or a NUL."""
        self.spoilt()

    def response(self, line: bytes) -> None:
        """The client answers the last challenge by C{line}: as in nginx, by its first word, which is in base64."""
        self.respond(line.partition(b" ")[0])

    def receivedBeforeGreeting(self) -> None:
        """The client speaks first. It is listened to later."""

    def secured(self) -> None:
        """TLS has begun: the greeting follows, or the next command where STARTTLS has asked for TLS."""

    def forget(self) -> None:
        """Drop what was said before TLS."""

    # What is said.

    def greet(self) -> None:
        """Send the greeting, and enter COMMAND."""
        raise NotImplementedError

    def capabilities(self, offers: Sequence[bytes]) -> list[bytes]:
        """
        What the client is told that it may use now, in the protocol's form: what there is behind the login, and the
        gateway's own.

        @param offers: the former.
        """
        raise NotImplementedError

    def reply(self, text: bytes) -> None:
        """Answer with the line C{text}, in IMAP with the tag before it."""
        raise NotImplementedError

    def challenge(self, step: bytes) -> None:
        """Send the challenge C{step}, which is in base64."""
        self.transport.write(self.challengePrefix + step + b"\r\n")

    def invalid(self) -> None:
        """Tell the client that what it sent is no command."""
        raise NotImplementedError

    def overflowed(self) -> None:
        """Tell the client that its command is too long."""
        self.invalid()

    def refuse(self, denial: Denial) -> None:
        """Tell the client that its login failed."""
        raise NotImplementedError

    def goodbye(self, trouble: Trouble) -> bytes:
        """The line for a trouble that ends the connection."""
        return self.wording[trouble] + b"\r\n"

    def farewell(self, trouble: Trouble) -> bytes:
        """The line that ends the connection behind a reply; empty in a protocol that has none."""
        return self.goodbye(trouble)

    def lastReply(self, trouble: Trouble) -> None:
        """
        Have the next reply, or else the end, say goodbye for C{trouble}: in one segment, as a client that sees the end
        of the connection first forgets what it was told before.
        """
        self._parting = self.farewell(trouble)

    def takeParting(self) -> bytes:
        """What a reply has to end with: nothing, or the goodbye of L{lastReply}."""
        parting, self._parting = self._parting, b""
        return parting

    # The login.

    def envelope(self, method: Method) -> Envelope:
        """What has been heard so far that matters to a login by C{method}."""
        return Envelope()

    def accept(self, client: ProxyClient) -> bytes:
        """What the client is told of its login, by the backend or by us."""
        return client.reply
