# -*- test-case-name: mailgate.test.protocols.imap4.test_imap4 -*-
"""
The IMAP4 dialogue before login (RFC 3501, 9051; ID of RFC 2971, LITERAL+ of RFC 7888, response codes of RFC 5530). The
replies are nginx's, except those in docs/differences.rst.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailgate.backend.identity import fieldsOf, hopsIn
from mailgate.backend.offers import Announcement
from mailgate.backend.settings import ProxySettings
from mailgate.frontend.dialogue import ProxyServer
from mailgate.frontend.disclosure import HIDDEN, disclosed
from mailgate.frontend.goodbyes import goodbyes, limitGoodbyes, limitReplies
from mailgate.frontend.mechanisms import Cancelled, InitialResponse, InvalidResponse, NotBase64, TooLongResponse
from mailgate.frontend.protocol import Command
from mailgate.frontend.text import Literal, acceptableText, literalAtEnd
from mailgate.login import Credentials, Denial, Envelope, Method, Trouble
from mailgate.protocols.imap4.command import (
    LATER,
    LONGEST_ID,
    CommandParser,
    IMAP4SyntaxError,
    beginsExchange,
    beginsID,
    simpleCommand,
    tagOf,
    wordOf,
)
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.session import Outcome, Phase

__all__ = ["IMAP4Server"]

_LITERAL_MINUS = 4096
"""The longest literal in bytes that clients may send without waiting under LITERAL- (RFC 7888, section 5)."""

_ENVELOPES = {listed: Envelope(listed=listed) for listed in (False, True)}
"""What clients without ID have said before the login, by whether they have got a list of capabilities."""


class IMAP4Server(ProxyServer):
    """The dialogue with an IMAP4 client before login."""

    settings: IMAP4Settings
    wording = {
        Trouble.DENIED: b"NO [AUTHENTICATIONFAILED] Authentication failed",
        Trouble.UNAUTHORIZED: b"NO [AUTHORIZATIONFAILED] Not authorized to log in as another user",
        Trouble.TEMPORARY: b"NO [UNAVAILABLE] Temporary authentication failure, try again later",
        Trouble.PERMANENT: b"NO [CONTACTADMIN] The server refuses this login, contact its administrator",
        **goodbyes(b"* BYE %(text)b"),
        **limitReplies(b"NO [UNAVAILABLE] Try again later"),
        Trouble.SESSIONS: b"NO [LIMIT] Too many sessions",
    }
    limitWording = limitGoodbyes(b"* BYE [UNAVAILABLE] %b, try again later")

    unsupported = b"NO [CANNOT] Unsupported authentication mechanism"
    exchangeWording = {
        Cancelled: b"BAD Authentication cancelled",
        NotBase64: b"BAD Invalid base64 data",
        InitialResponse: b"BAD No initial response is taken by this mechanism",
        InvalidResponse: b"BAD Invalid authentication response",
        TooLongResponse: b"BAD Authentication response is too long",
    }

    _parser: CommandParser | None = None
    """The parser of a command that waits for its literal, or L{None}."""
    _isPassedOver = False
    """Whether the gateway discards the rest of a command and then refuses it."""
    _fields: tuple[bytes, ...] = ()
    """The fields of the client's ID, for the backend."""

    @property
    def isMidway(self) -> bool:
        return self._parser is not None or super().isMidway

    def longerLimit(self, limit: int) -> int:
        return max(limit, LONGEST_ID - self._used) if self._isID(limit) else super().longerLimit(limit)

    def beginsExchange(self, start: bytes | bytearray) -> bool:
        return self._parser is None and beginsExchange(start)

    def isCommand(self, line: bytes) -> bool:
        word = wordOf(line)
        return word in self.commands or word in LATER

    def _isID(self, limit: int) -> bool:
        """Return whether the buffer begins with a line of ID, as far as its first C{limit} bytes say so."""
        if self._parser is not None:
            return self._parser.word == b"ID"
        return not self._isPassedOver and self.session.phase is Phase.COMMAND and beginsID(self.buffer[:limit])

    def greet(self) -> None:
        announcement = self.factory.announcement
        if announcement.isLearned:
            # The mechanisms with -PLUS depend on the connection.
            isBound = self.mechanisms is not self.settings.mechanisms
            known = None if isBound else announcement.greetings.get(self.session.tls is None)
            self.transport.write(known or self._listing(announcement, isBound))
        else:
            self.transport.write(b"* OK IMAP4 ready\r\n")
        self.session.enter(Phase.COMMAND)

    def _listing(self, announcement: Announcement, isBound: bool) -> bytes:
        """Return the greeting with the capabilities, which saves clients the question (RFC 3501, section 7.1)."""
        words = b" ".join((b"CAPABILITY", *self.capabilities(announcement.words)))
        greeting = b"* OK [" + words + b"] IMAP4 ready\r\n"
        if not isBound:
            # The rest of what it depends on is the same for all clients of a server.
            announcement.greetings[self.inClear] = greeting
        return greeting

    def reply(self, text: bytes, untagged: bytes = b"") -> None:
        """
        Send C{text} after the command's tag; untagged if the command has none. The response C{untagged} with its line
        end stands before it, in the same piece.
        """
        self.transport.write(untagged + (self.tag or b"*") + b" " + text + b"\r\n" + self.takeParting())

    def invalid(self) -> None:
        self.reply(b"BAD invalid command")

    def refuse(self, denial: Denial) -> None:
        text = acceptableText(denial)
        line = denial.answer or (self.wording[denial.trouble] if text is None else b"NO " + text)
        # An end such as "{5}" announces a literal: the client would read the next reply as that literal.
        self.reply(line[:-1] if literalAtEnd(line) else line)

    def capabilities(self, offers: Sequence[bytes]) -> list[bytes]:
        words = list(offers)
        if not self.needsTLS:
            words.extend(b"AUTH=" + name for name in self.mechanisms)
        if self.offersTLS:
            words.append(b"STARTTLS")
        if self.needsTLS or not self.factory.takesPasswords:
            words.append(b"LOGINDISABLED")
        return words

    def forget(self) -> None:
        self.tag = b""
        self._fields = ()

    def envelope(self, method: Method) -> Envelope:
        listed = self.factory.announcement.isLearned
        return Envelope(fields=self._fields, listed=listed) if self._fields else _ENVELOPES[listed]

    def garbled(self, line: bytes) -> None:
        if self._parser is None and not self._isPassedOver:
            self._salvageTag(line)
        self._forgetCommand()
        self._spoilt(line)

    def overflowed(self) -> None:
        if self._parser is None and not self._isPassedOver and self.session.phase is Phase.COMMAND:
            # What is buffered beyond the limit depends on how the line was cut.
            self._salvageTag(bytes(self.buffer[: self.settings.clientBuffer]))
        self.invalid()

    def _salvageTag(self, line: bytes) -> None:
        """Use the tag of an invalid C{line}: the client waits for a reply with it."""
        self.tag = tagOf(line)

    def disclosed(self, line: bytes) -> bytes:
        # The tag is left out: it may be anything. What follows a literal is an argument.
        if self._parser is not None or self._isPassedOver:
            return HIDDEN
        return disclosed(line.partition(b" ")[2], (*self.commands, *LATER))

    def commandReceived(self, line: bytes) -> None:
        if self._isPassedOver:
            self._passOver(line)
            return
        simple = simpleCommand(line) if self._parser is None else None
        if simple is None:
            self._parse(line)
            return
        self.tag, word, arguments = simple
        command = self.commands.get(word)
        if command is not None:
            self._obey(word, command, arguments)
        elif word in LATER:
            self._passOver(line)
        else:
            self._spoilt(line)

    def _parse(self, line: bytes) -> None:
        """Obey C{line}, a command or a part of one, that is parsed step by step."""
        parser = self._parser or CommandParser(self.settings.clientBuffer)
        isSpoilt, literal = False, None
        try:
            literal = parser.feed(line)
        except IMAP4SyntaxError:
            isSpoilt = True
        self.tag = parser.tag
        command = self.commands.get(parser.word)
        if parser.word in LATER:
            self._passOver(line)
        elif command is None or isSpoilt:
            self._forgetCommand()
            self._spoilt(line)
        elif literal is not None and not (literal.synchronizing and self._refusal(parser.word, command)):
            self._used += len(line) + 2
            self._ask(parser, literal, line)
        else:
            self._forgetCommand()
            self._obey(parser.word, command, parser.arguments)

    def _passOver(self, line: bytes) -> None:
        """
        Discard a line of a command that needs a login, and its non-synchronizing literal (RFC 7888). Refuse the command
        at its end.
        """
        literal = literalAtEnd(line)
        self._isPassedOver = literal is not None and not literal.synchronizing
        if literal is not None and self._isPassedOver:
            self.discard(literal.octets)
        elif self.countCommand():
            self.reply(b"BAD Log in first")

    def discarded(self) -> None:
        """Do nothing: the command continues after its literal."""

    def _refusal(self, word: bytes, command: Command) -> bytes:
        """
        Return the refusal of a command that is not allowed now, or an empty string. It is checked before the gateway
        asks for a literal, so the client does not send a password in the clear.
        """
        if command.inClear or self.factory.takesAll:
            return b""
        if self.needsTLS:
            return b"NO [PRIVACYREQUIRED] Use STARTTLS first"
        if word == b"LOGIN" and not self.factory.takesPasswords:
            return b"NO [CANNOT] LOGIN is disabled, use AUTHENTICATE"
        return b""

    def _obey(self, word: bytes, command: Command, arguments: list[bytes]) -> None:
        if not self.countCommand():
            return
        if self.factory.takesAll or not (refusal := self._refusal(word, command)):
            command.act(self, arguments)
        else:
            self.reply(refusal)

    def _ask(self, parser: CommandParser, literal: Literal, line: bytes) -> None:
        buffer = self.settings.clientBuffer
        most = max(buffer, LONGEST_ID) if parser.word == b"ID" else buffer
        if parser.word != b"ID" and not literal.synchronizing and literal.octets <= _LITERAL_MINUS:
            # It does not count: a server that announces LITERAL- or IMAP4rev2 reads it.
            self._used -= literal.octets
        if self._used + literal.octets + 2 > most:
            self._forgetCommand()
            self._spoilt(line)
            return
        self._parser = parser
        if literal.synchronizing:
            self.transport.write(b"+ OK\r\n")
        self.expectLiteral(literal.octets)

    def literalReceived(self, octets: bytes) -> None:
        assert self._parser is not None
        self._used += len(octets)
        self._parser.feedLiteral(octets)

    def _forgetCommand(self) -> None:
        # Set only if they differ: an object with thirty attributes of its own takes more time and memory in Python.
        if self._used:
            self._parser = None
            self._used = 0
        if self._isPassedOver:
            self._isPassedOver = False

    def _spoilt(self, line: bytes) -> None:
        isEndless = line.endswith(b"+}")
        if isEndless:
            # The client sends the literal without waiting. Its bytes must not be parsed as commands.
            self.lastReply(Trouble.ENDLESS)
        self.spoilt()
        if isEndless:
            self.end(Outcome.ERRORS)

    def _completed(self, untagged: bytes = b"") -> None:
        self.reply(b"OK completed", untagged)

    def _doCAPABILITY(self, arguments: list[bytes]) -> None:
        words = self.capabilities(self.factory.announcement.words)
        self._completed(b" ".join((b"* CAPABILITY", *words)) + b"\r\n")

    def _doNOOP(self, arguments: list[bytes]) -> None:
        self._completed()

    def _doID(self, arguments: list[bytes]) -> None:
        self.lowerHops(hopsIn(arguments))
        # Servers use only the first ID of a connection.
        if not self._fields and self.factory.settings[ProxySettings].tellsByCommand:
            self._fields = fieldsOf(arguments)
        self._completed(b"* ID NIL\r\n")

    def _doLOGOUT(self, arguments: list[bytes]) -> None:
        self.end(Outcome.QUIT, b"* BYE Logging out\r\n" + self.tag + b" OK completed\r\n")

    def _doSTARTTLS(self, arguments: list[bytes]) -> None:
        if self.offersTLS:
            self.startTLS(self.tag + b" OK completed\r\n")
        elif self.inClear:
            self.reply(b"BAD STARTTLS is not offered here")
        else:
            self.reply(b"BAD TLS is active already")

    def _doLOGIN(self, arguments: list[bytes]) -> None:
        if len(arguments) != 2 or not arguments[0]:
            self.invalid()
        else:
            self.login(Credentials(Method.PLAIN, *arguments))

    def _doAUTHENTICATE(self, arguments: list[bytes]) -> None:
        if 1 <= len(arguments) <= 2:
            self.authenticate(*arguments)
        else:
            self.invalid()

    commands = {
        b"CAPABILITY": Command(_doCAPABILITY),
        b"NOOP": Command(_doNOOP),
        b"ID": Command(_doID),
        b"LOGOUT": Command(_doLOGOUT),
        b"STARTTLS": Command(_doSTARTTLS),
        b"LOGIN": Command(_doLOGIN, inClear=False),
        b"AUTHENTICATE": Command(_doAUTHENTICATE, inClear=False),
    }
