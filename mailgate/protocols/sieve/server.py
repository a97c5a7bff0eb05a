# -*- test-case-name: mailgate.test.protocols.sieve.test_server -*-
"""
The ManageSieve dialogue before login (RFC 5804). nginx does not have the protocol: the replies are those of Dovecot's
Pigeonhole.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence

from mailgate.backend.client import ProxyClient
from mailgate.backend.hops import hopsAfter
from mailgate.backend.offers import Announcement
from mailgate.frontend.dialogue import ProxyServer
from mailgate.frontend.disclosure import HIDDEN, disclosed
from mailgate.frontend.goodbyes import goodbyes, limitGoodbyes, limitReplies
from mailgate.frontend.mechanisms import Cancelled, InitialResponse, InvalidResponse, NotBase64, TooLongResponse
from mailgate.frontend.protocol import Command
from mailgate.frontend.text import acceptableText
from mailgate.login import Denial, Trouble, sieveCode
from mailgate.protocols.sieve.capabilities import lineOf
from mailgate.protocols.sieve.command import (
    CommandParser,
    SieveSyntaxError,
    Word,
    literalOf,
    literalSize,
    quotedText,
)
from mailgate.protocols.sieve.settings import SieveSettings
from mailgate.protocols.sieve.strings import LONGEST_LITERAL, quoted, string
from mailgate.session import Outcome, Phase

__all__ = ["SieveServer"]

_LATER = frozenset(
    b"HAVESPACE PUTSCRIPT LISTSCRIPTS SETACTIVE GETSCRIPT DELETESCRIPT RENAMESCRIPT CHECKSCRIPT UNAUTHENTICATE".split()
)
"""Commands that are valid only after the login. The log may show their words."""

_EXCHANGE = re.compile(rb"AUTHENTICATE ", re.IGNORECASE)

_MISREAD: dict[type[InvalidResponse], bytes] = {
    Cancelled: b'NO "Authentication aborted by client."',
    NotBase64: b'NO "Invalid base64 data in initial response"',
    InitialResponse: b'NO "No initial response is taken by this mechanism."',
    InvalidResponse: b'NO "Invalid authentication response."',
    TooLongResponse: b'NO "Authentication response is too long."',
}
_MISREAD_LATER = {**_MISREAD, NotBase64: b'NO "Invalid base64 in response"'}
"""The replies to errors in an initial response, and in responses to challenges."""

_FRAME = 32
"""How many bytes a response may have besides its base64: quotes, or the announcement of a literal and line ends."""

_OK = b"OK"
_INVALID = b'NO "Error in MANAGESIEVE command received by server."'


class SieveServer(ProxyServer):
    """The dialogue with a ManageSieve client before login."""

    settings: SieveSettings
    wording = {
        Trouble.DENIED: b'NO "Authentication failed."',
        Trouble.UNAUTHORIZED: b'NO "Not authorized to log in as another user."',
        Trouble.TEMPORARY: b'NO (TRYLATER) "Temporary authentication failure, try again later."',
        Trouble.PERMANENT: b'NO "The server refuses this login, contact its administrator."',
        **goodbyes(b'BYE "%(text)b"'),
        Trouble.ERRORS: b'BYE "Too many invalid MANAGESIEVE commands."',
        Trouble.TOO_LONG: b'BYE "Input buffer full, aborting"',
        Trouble.INTERNAL: b'BYE (TRYLATER) "Internal server error, closing connection"',
        Trouble.STOPPING: b'BYE (TRYLATER) "Gateway is shutting down, closing connection"',
        **limitReplies(b'NO (TRYLATER) "Try again later."'),
        Trouble.SESSIONS: b'NO (TRYLATER) "Too many sessions."',
    }
    limitWording = limitGoodbyes(b'BYE (TRYLATER) "%b, try again later."')

    unsupported = b'NO "Unsupported authentication mechanism."'
    hasSuccessData = True
    exchangeWording: Mapping[type[InvalidResponse], bytes] = _MISREAD

    _parser: CommandParser | None = None
    """The parser of a command that waits for its literal, or L{None}."""
    _isPassedOver = False
    """Whether the gateway discards the rest of a command and then refuses it."""
    _used = 0
    """How many bytes of the command were received before the current line."""
    _literal: bytes | None = None
    """The literal that is the client's response to a challenge, until the end of its line."""

    @property
    def isMidway(self) -> bool:
        return self._parser is not None or self._literal is not None or super().isMidway

    def lineLimit(self) -> int:
        return self._longest() - self._used

    def _longest(self) -> int:
        """Return the longest command or response in bytes, literals included."""
        if self.session.phase is Phase.CHALLENGE:
            return self.dialogue.longestResponse + _FRAME
        if self._parser is not None and self._parser.word == b"AUTHENTICATE":
            longest: int = self.settings.clientBuffer + self.dialogue.longestResponse
            return longest
        return super().lineLimit()

    def beginsExchange(self, start: bytes | bytearray) -> bool:
        return self._parser is None and _EXCHANGE.match(start) is not None

    def isCommand(self, line: bytes) -> bool:
        word = line.partition(b" ")[0].upper()
        # What follows a literal is the rest of a response.
        return self._literal is None and (word in self.commands or word in _LATER)

    # Output to the client.

    def greet(self) -> None:
        self.transport.write(self._listing() + b'OK "ManageSieve ready"\r\n')
        self.session.enter(Phase.COMMAND)

    def secured(self) -> None:
        if not self.factory.address.ssl:
            # The list comes again without a question (RFC 5804, section 2.2). Some clients read one segment only.
            self.transport.write(self._listing() + b'OK "TLS negotiation successful."\r\n')

    def _listing(self) -> bytes:
        """Return the lines of the capabilities."""
        announcement = self.factory.announcement
        if self.mechanisms is not self.settings.mechanisms:
            # The mechanisms with -PLUS depend on the connection.
            return self._makeListing(announcement)
        listing = announcement.greetings.get(self.inClear)
        if listing is None:
            # It depends on nothing else that differs between the clients of a server.
            listing = announcement.greetings[self.inClear] = self._makeListing(announcement)
        return listing

    def _makeListing(self, announcement: Announcement) -> bytes:
        words = announcement.words
        if not announcement.isLearned and not any(word[:7].upper() == b"VERSION" for word in words):
            words = (*words, b"VERSION 1.0")
        return b"".join(map(lineOf, self.capabilities(words)))

    def capabilities(self, offers: Sequence[bytes]) -> list[bytes]:
        mechanisms = [] if self.needsTLS else [name for name in self.mechanisms if self._mayUse(name)]
        items = [b"IMPLEMENTATION " + self.settings.implementation.encode(), b"SASL " + b" ".join(mechanisms), *offers]
        if self.offersTLS:
            items.append(b"STARTTLS")
        return items

    def _mayUse(self, mechanism: bytes) -> bool:
        """
        Whether a mechanism is of use on this connection. Roundcube prefers EXTERNAL to PLAIN wherever it is listed, and
        fails without a client certificate.
        """
        return mechanism != b"EXTERNAL" or (not self.inClear and self.factory.verifiesClients)

    def accept(self, client: ProxyClient) -> bytes:
        # The gateway's own mechanism, not the backend's, may have data for the client (RFC 5804, section 2.1).
        line: bytes = client.reply
        if not self.successData:
            return line
        return line[: len(_OK)] + b" (SASL " + string(b64encode(self.successData)) + b")" + line[len(_OK) :]

    def reply(self, text: bytes) -> None:
        """Send the line C{text}."""
        self.transport.write(text + b"\r\n" + self.takeParting())

    def challenge(self, step: bytes) -> None:
        self.exchangeWording = _MISREAD_LATER
        self.transport.write(string(step) + b"\r\n")

    def invalid(self) -> None:
        # BYE, which follows at the end, may answer any command (RFC 5804, section 1.2).
        if not self._parting:
            self.reply(_INVALID)

    def refuse(self, denial: Denial) -> None:
        self.reply(denial.answer or self._refusal(denial))

    def _refusal(self, denial: Denial) -> bytes:
        """Return the line for a refusal that is not a backend's."""
        text, code = acceptableText(denial), sieveCode(denial.code)
        if text is None and not code:
            return self.wording[denial.kind]
        if not code and denial.kind is Trouble.TEMPORARY:
            # The service has sent a reply code of SMTP.
            code = b"TRYLATER"
        said = b'"Authentication failed."' if text is None else quoted(text)
        return b"NO (%b) %b" % (code, said) if code else b"NO " + said

    # Input from the client.

    def disclosed(self, line: bytes) -> bytes:
        # What follows a literal is an argument. The name of a mechanism has quotes.
        if self._parser is not None or self._isPassedOver:
            return HIDDEN
        return disclosed(line.replace(b'"', b"").lstrip(b" "), (*self.commands, *_LATER))

    def commandReceived(self, line: bytes) -> None:
        if self._isPassedOver:
            self._passOver(line)
            return
        parser = self._parser or CommandParser()
        try:
            octets = parser.feed(line)
        except SieveSyntaxError:
            self._passOver(line)
            return
        command = self.commands.get(parser.word)
        if command is None:
            self._passOver(line)
        elif octets is not None:
            self._used += len(line) + 2
            self._parser = parser
            self._expect(octets)
        else:
            self._forgetCommand()
            if self.countCommand():
                self._obey(command, parser.arguments)

    def _obey(self, command: Command, arguments: list[bytes]) -> None:
        if not command.inClear and self.needsTLS:
            self.reply(b'NO (ENCRYPT-NEEDED) "Use STARTTLS first."')
        else:
            command.act(self, arguments)

    def _expect(self, octets: int) -> None:
        """Read a literal of C{octets} bytes, unless it is too long."""
        if self._used + octets + 2 > self._longest():
            self.end(Outcome.TOO_LONG, b'BYE "Literal size too large"\r\n')
        else:
            self._used += octets
            self.expectLiteral(octets)

    def _passOver(self, line: bytes) -> None:
        """Discard a line of an invalid command, and its literal. Refuse the command at its end."""
        octets = literalSize(line)
        self._forgetCommand()
        if octets is None:
            self.spoilt()
        elif octets > LONGEST_LITERAL:
            self.end(Outcome.TOO_LONG, b'BYE "Literal size too large"\r\n')
        else:
            self._isPassedOver = True
            self.discard(octets)

    def _forgetCommand(self) -> None:
        # Set only if they differ: an object with thirty attributes of its own takes more time and memory in Python.
        if self._used:
            self._parser = None
            self._used = 0
        if self._isPassedOver:
            self._isPassedOver = False

    def garbled(self, line: bytes) -> None:
        self._passOver(line)

    def overflowed(self) -> None:
        """Do nothing: the goodbye says it."""

    def discarded(self) -> None:
        """Do nothing: the command continues after its literal."""

    def literalReceived(self, octets: bytes) -> None:
        if self.session.phase is Phase.CHALLENGE:
            self._literal = octets
        elif self._parser is not None:
            self._parser.feedLiteral(octets)

    def response(self, line: bytes) -> None:
        answer = self._literal
        if answer is not None:
            self._literal = None
            self._used = 0
            # Nothing may follow it.
            self.respond(answer if not line else b"!")
            return
        octets = literalOf(line)
        if octets is not None:
            self._used += len(line) + 2
            self._expect(octets)
            return
        text = quotedText(line)
        if text is not None:
            self.respond(text)
        else:
            # Dovecot takes a cancellation without quotes as well.
            self.respond(line if line == b"*" else b"!")

    # Commands.

    def _doAUTHENTICATE(self, arguments: list[bytes]) -> None:
        if not 1 <= len(arguments) <= 2 or isinstance(arguments[0], Word):
            self.spoilt()
        elif len(arguments) == 2 and isinstance(arguments[1], Word):
            self.reply(b'NO "Invalid AUTHENTICATE initial response."')
        else:
            if self.exchangeWording is not _MISREAD:
                self.exchangeWording = _MISREAD
            self.authenticate(*arguments)

    def _doCAPABILITY(self, arguments: list[bytes]) -> None:
        if arguments:
            self.spoilt()
        else:
            self.transport.write(self._listing() + b'OK "Capability completed."\r\n')

    def _doLOGOUT(self, arguments: list[bytes]) -> None:
        if arguments:
            self.spoilt()
        else:
            self.end(Outcome.QUIT, b'OK "Logout completed."\r\n')

    def _doNOOP(self, arguments: list[bytes]) -> None:
        if not arguments:
            self.reply(b'OK "NOOP Completed"')
        elif len(arguments) > 1:
            self.spoilt()
        elif isinstance(arguments[0], Word) or b"\0" in arguments[0]:
            self.reply(b'NO "Invalid echo tag."')
        else:
            self.lowerHops(hopsAfter(arguments[0]))
            self.reply(b"OK (TAG " + string(arguments[0]) + b') "Done"')

    def _doSTARTTLS(self, arguments: list[bytes]) -> None:
        if arguments:
            self.spoilt()
        elif self.offersTLS:
            self.startTLS(b'OK "Begin TLS negotiation now."\r\n')
        elif self.inClear:
            self.reply(b'NO "TLS support isn\'t enabled."')
        else:
            self.reply(b'NO "TLS is already active."')

    commands = {
        b"AUTHENTICATE": Command(_doAUTHENTICATE, inClear=False),
        b"CAPABILITY": Command(_doCAPABILITY),
        b"LOGOUT": Command(_doLOGOUT),
        b"NOOP": Command(_doNOOP),
        b"STARTTLS": Command(_doSTARTTLS),
    }
