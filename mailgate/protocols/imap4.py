# -*- test-case-name: mailgate.test.test_imap4 -*-
"""
IMAP4 (RFC 3501, 9051; ID of RFC 2971, LITERAL+ of RFC 7888, response codes of RFC 5530): the dialogue before login,
and the login at a backend. The replies are nginx's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen

from mailgate.client import BackendError, LoginRefused, ProxyClient, Unauthorizing, replyCode
from mailgate.dialogue import Command, MailProtocol, acceptableText, tokenWarnings
from mailgate.directives import Problem, ServerSettings, bufferSize, capabilities, directive, words
from mailgate.journal import printable
from mailgate.login import Credentials, Denial, Method, Trouble
from mailgate.sasl import loginMethods, mechanismNames
from mailgate.server import ProxyServer
from mailgate.session import Outcome, Phase

__all__ = ["IMAP4", "CommandParser", "IMAP4Client", "IMAP4Server", "IMAP4Settings", "IMAP4SyntaxError", "Literal"]

_TAG = re.compile(rb"[!#$&',\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~]{1,64}")
"""RFC 3501's C{tag}: ASTRING-CHARs without C{+}. nginx takes letters, digits and C{-._} alone."""
_WORD = re.compile(rb" +([A-Za-z]+)(?= |$)")
_ATOM = re.compile(rb"[^ ]+")
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_QUOTABLE = re.compile(rb"[ -~]{0,256}")
_SPECIAL = re.compile(rb'["\\]')
_LITERAL = re.compile(rb"\{(\d{0,10})(\+?)\}$")
_AUTH_WORDS = ("plain", "login", "cram-md5", "external", "xoauth2", "oauthbearer")
_MOST_ARGUMENTS = 3
_MOST_ID_ARGUMENTS = 64
"""RFC 2971 allows 30 pairs of field and value."""


@frozen
class IMAP4Settings:
    """nginx's C{imap_…} directives."""

    auth: tuple[str, ...] = directive("imap_auth", words(*_AUTH_WORDS), ("plain",))
    capabilities: tuple[str, ...] = directive("imap_capabilities", capabilities(), ("IMAP4", "IMAP4rev1", "UIDPLUS"))
    clientBuffer: int = directive("imap_client_buffer", bufferSize, 4096)

    @property
    def mechanisms(self) -> tuple[bytes, ...]:
        """SASL mechanisms."""
        return mechanismNames(self.auth)

    @property
    def methods(self) -> frozenset[Method]:
        """The login methods that are offered."""
        return loginMethods(self.auth)

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """What of these settings will not do for every client."""
        return tokenWarnings(server, self.methods, self.clientBuffer)


class IMAP4SyntaxError(Exception):
    """What came is no command."""


@frozen
class Literal:
    """C{{octets}}, or C{{octets+}} which is not waited for."""

    octets: int
    synchronizing: bool


class CommandParser:
    """
    Takes one command apart, C{tag SP word *(SP argument)}, where an argument may be an atom, a quoted string or a
    literal. C{tag} and C{word} (in capitals) are empty until known.
    """

    def __init__(self) -> None:
        self.tag = b""
        self.word = b""
        self.arguments: list[bytes] = []

    def feed(self, line: bytes) -> Literal | None:
        """
        Take a line, or what follows a literal. Gives the literal that it ends in, to be fed to L{feedLiteral}, or
        L{None} at the end of the command.

        @raise IMAP4SyntaxError: this is no command.
        """
        if not self.word:
            return self._arguments(line, self._begin(line))
        if line and line[:1] not in self._blanks:
            raise IMAP4SyntaxError
        return self._arguments(line, 0)

    @property
    def _blanks(self) -> bytes:
        # ID's list of strings is not looked into, but for the literals in it.
        return b" ()" if self.word == b"ID" else b" "

    def feedLiteral(self, octets: bytes) -> None:
        """Take the literal that L{feed} told of."""
        self.arguments.append(octets)

    def _begin(self, line: bytes) -> int:
        tag = _TAG.match(line)
        if tag is None:
            raise IMAP4SyntaxError
        word = _WORD.match(line, tag.end())
        if line[tag.end() : tag.end() + 1] == b" ":
            self.tag = tag[0]
        if word is None:
            raise IMAP4SyntaxError
        self.word = word[1].upper()
        return word.end()

    def _arguments(self, line: bytes, position: int) -> Literal | None:
        most = _MOST_ID_ARGUMENTS if self.word == b"ID" else _MOST_ARGUMENTS
        while True:
            while position < len(line) and line[position] in self._blanks:
                position += 1
            if position == len(line):
                return None
            if len(self.arguments) == most:
                raise IMAP4SyntaxError
            start = line[position : position + 1]
            if start == b"{":
                literal = _LITERAL.match(line, position)
                if literal is None:
                    raise IMAP4SyntaxError
                return Literal(int(literal[1] or 0), not literal[2])
            match = (_QUOTED if start == b'"' else _ATOM).match(line, position)
            if match is None:
                raise IMAP4SyntaxError
            self.arguments.append(re.sub(rb"\\(.)", rb"\1", match[1]) if start == b'"' else match[0])
            position = match.end()


class IMAP4Server(ProxyServer):
    """The server's side, before login."""

    settings: IMAP4Settings
    wording = {
        Trouble.DENIED: b"NO [AUTHENTICATIONFAILED] Authentication failed",
        Trouble.UNAUTHORIZED: b"NO [AUTHORIZATIONFAILED] Not authorized to log in as another user",
        Trouble.FAILURES: b"* BYE Too many failed logins, closing connection",
        Trouble.TEMPORARY: b"NO [UNAVAILABLE] Temporary authentication failure, try again later",
        Trouble.INTERNAL: b"* BAD internal server error",
        Trouble.TIMEOUT: b"* BYE Timeout, closing connection",
        Trouble.CERTIFICATE: b"* BYE SSL certificate error",
        Trouble.NO_CERTIFICATE: b"* BYE No required SSL certificate",
        Trouble.STOPPING: b"* BYE Gateway is shutting down, closing connection",
    }

    _parser: CommandParser | None = None
    """The command whose literal has been asked for."""
    _used = 0

    def lineLimit(self) -> int:
        return self.settings.clientBuffer - self._used

    def greet(self) -> None:
        self.transport.write(b"* OK IMAP4 ready\r\n")
        self.session.enter(Phase.COMMAND)

    def reply(self, text: bytes) -> None:
        """Answer the command; untagged, where it has no tag."""
        self.transport.write((self.tag or b"*") + b" " + text + b"\r\n")

    def invalid(self) -> None:
        self.reply(b"BAD invalid command")

    def refuse(self, denial: Denial) -> None:
        text = acceptableText(denial)
        self.reply(self.wording[denial.trouble] if text is None else b"NO " + text)

    def forget(self) -> None:
        self.tag = b""

    def garbled(self, line: bytes) -> None:
        if self._parser is None:
            self._salvageTag(line)
        self._forgetCommand()
        self._spoilt(line)

    def overflowed(self) -> None:
        if self._parser is None and self.session.phase is Phase.COMMAND:
            self._salvageTag(bytes(self._buffer))
        self.invalid()

    def _salvageTag(self, line: bytes) -> None:
        """The client waits for an answer with the tag of C{line}, whatever else is wrong with that."""
        tag = re.match(_TAG.pattern + b"(?= )", line)
        self.tag = tag[0] if tag else b""

    def commandReceived(self, line: bytes) -> None:
        parser = self._parser or CommandParser()
        try:
            literal = parser.feed(line)
        except IMAP4SyntaxError:
            command = None
        else:
            command = self.commands.get(parser.word)
        self.tag = parser.tag
        if command is None:
            self._forgetCommand()
            self._spoilt(line)
        elif literal is not None and not (literal.synchronizing and self._isBarred(command)):
            self._used += len(line) + 2
            self._ask(parser, literal, line)
        else:
            self._forgetCommand()
            self._obey(command, parser.arguments)

    def _isBarred(self, command: Command) -> bool:
        return self.needsTLS and not command.inClear

    def _obey(self, command: Command, arguments: list[bytes]) -> None:
        if not self.countCommand():
            return
        if self._isBarred(command):
            # Before a literal is asked for, lest a password be sent in the clear.
            self.invalid()
        else:
            command.act(self, arguments)

    def _ask(self, parser: CommandParser, literal: Literal, line: bytes) -> None:
        if self._used + literal.octets + 2 > self.settings.clientBuffer:
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
        self._parser = None
        self._used = 0

    def _spoilt(self, line: bytes) -> None:
        self.spoilt()
        if line.endswith(b"+}"):
            # The client sends the literal without waiting, and it must not be taken for commands.
            self.end(Outcome.ERRORS)

    def _takesPasswords(self) -> bool:
        return Method.PLAIN in self.settings.methods or self.dialogue.unlistedAuth

    def _completed(self) -> None:
        self.reply(b"OK completed")

    def _doCAPABILITY(self, arguments: list[bytes]) -> None:
        line = [b"* CAPABILITY", *(word.encode() for word in self.settings.capabilities)]
        if not self.needsTLS:
            line.extend(b"AUTH=" + name for name in self.mechanisms)
        if self.offersTLS:
            line.append(b"STARTTLS")
        if self.needsTLS or not self._takesPasswords():
            line.append(b"LOGINDISABLED")
        self.transport.write(b" ".join(line) + b"\r\n")
        self._completed()

    def _doNOOP(self, arguments: list[bytes]) -> None:
        self._completed()

    def _doID(self, arguments: list[bytes]) -> None:
        self.transport.write(b"* ID NIL\r\n")
        self._completed()

    def _doLOGOUT(self, arguments: list[bytes]) -> None:
        self.end(Outcome.QUIT, b"* BYE\r\n" + self.tag + b" OK completed\r\n")

    def _doSTARTTLS(self, arguments: list[bytes]) -> None:
        if self.offersTLS:
            self.startTLS(self.tag + b" OK completed\r\n")
        else:
            self.invalid()

    def _doLOGIN(self, arguments: list[bytes]) -> None:
        if len(arguments) != 2 or not arguments[0] or not self._takesPasswords():
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


class IMAP4Client(ProxyClient):
    """The client's side at a backend: LOGIN, with the tag that the client itself has given."""

    _passing = (b"[UNAVAILABLE]", b"[INUSE]", b"[LIMIT]", b"[SERVERBUG]", b"[CONTACTADMIN]", b"[PRIVACYREQUIRED]")
    """Response codes (RFC 5530) that say nothing of the password."""

    def answersEarly(self, ahead: bytearray) -> bool:
        # Untagged responses may come at any time.
        return any(not line.startswith(b"*") for line in ahead.splitlines())

    async def greeted(self) -> None:
        greeting = await self.line()
        if not greeting.upper().startswith(b"* OK"):
            raise BackendError(f'greets with "{printable(greeting.strip())}"', greeting)

    async def requestTLS(self) -> None:
        self.send(b"mailgate STARTTLS")
        response = await self._response(b"mailgate")
        if not response.upper().startswith(b"MAILGATE OK"):
            raise BackendError(f'refuses STARTTLS: "{printable(response.strip())}"', response)
        self.reply = b""

    async def authenticate(self) -> None:
        if self.route.authzid:
            await self._authorize()
            return
        tag = self.request.tag
        command = tag + b" LOGIN"
        for argument in (self.route.user, self.password):
            # A quoted string saves a round trip, but holds printable ASCII alone for certain.
            if _QUOTABLE.fullmatch(argument):
                command += b' "' + _SPECIAL.sub(rb"\\\g<0>", argument) + b'"'
                continue
            self.send(command + b" {%d}" % len(argument))
            self._expect(b"+", tag, await self._response(tag))
            command = argument
        self.send(command)
        completion = await self._response(tag)
        self._expect(tag + b" OK", tag, completion)
        self.reply += completion

    async def _authorize(self) -> None:
        """AUTHENTICATE PLAIN: LOGIN has no place for an authorization identity."""
        tag, message = self.request.tag, self.plainMessage
        self.send(tag + b" AUTHENTICATE PLAIN")
        response = await self._response(tag)
        if not response.startswith(b"+"):
            raise Unauthorizing(f"answers AUTHENTICATE PLAIN with {replyCode(response)}", self.reply + response)
        self.send(message)
        completion = await self._response(tag)
        self._expect(tag + b" OK", tag, completion)
        self.reply += completion

    def _expect(self, start: bytes, tag: bytes, response: bytes) -> None:
        if response.upper().startswith(start.upper()):
            return
        status, _, text = response[len(tag) + 1 :].strip().upper().partition(b" ")
        if response.startswith(tag) and status in (b"NO", b"BAD"):
            # BAD is about our command, not about the password.
            raise LoginRefused(self.reply + response, status == b"BAD" or text.startswith(self._passing))
        raise BackendError(f"answers the login with {replyCode(response)}", self.reply + response)

    async def _response(self, tag: bytes) -> bytes:
        """The next tagged response or continuation request; untagged responses before it go to C{reply}."""
        while True:
            line = await self.line()
            if line.startswith((tag + b" ", b"+")):
                return line
            self.reply += line
            if not line.startswith(b"* ") or len(self.reply) > self.limit:
                raise BackendError(f"answers with {replyCode(line)}", self.reply)


IMAP4 = MailProtocol("imap", (143, 993), IMAP4Server, IMAP4Client, IMAP4Settings)
