# -*- test-case-name: mailgate.test.test_imap4 -*-
"""
IMAP4 (RFC 3501, 9051; ID of RFC 2971, LITERAL+ of RFC 7888, response codes of RFC 5530): the dialogue before login,
and the login at a backend. The replies are nginx's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen

from mailgate.client import BackendError, LoginRefused, ProxyClient, ProxySettings, replyCode
from mailgate.dialogue import Command, MailProtocol, acceptableText, tokenWarnings
from mailgate.directives import Problem, ServerSettings, bufferSize, capabilities, directive, words
from mailgate.identity import Atom, fieldsOf, idCommand
from mailgate.journal import printable
from mailgate.login import Credentials, Denial, Envelope, Method, Trouble
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
_LITERAL_AT_END = re.compile(rb"\{(\d{1,10})\}\r?\n\Z")
_AUTH_WORDS = ("plain", "login", "cram-md5", "external", "xoauth2", "oauthbearer")
_MOST_ARGUMENTS = 3
_MOST_ID_ARGUMENTS = 64
"""RFC 2971 allows 30 pairs of field and value."""
_OFFERS_ID = re.compile(rb"\* OK \[CAPABILITY (?:[^]]* )?ID(?: [^]]*)?\]", re.IGNORECASE)
"""A greeting whose response code, not its text, lists ID among the capabilities."""
_ID_TAG = b"mailgate"


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

    ID's argument is a list. Its parentheses are L{Atom}s among the C{arguments}, wherever they stand, and so is what
    is no string between them.
    """

    _parentheses = 0

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
        # Whether ID's parentheses make a list is found out where that matters.
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
        isID, blanks = self.word == b"ID", self._blanks
        most = _MOST_ID_ARGUMENTS if isID else _MOST_ARGUMENTS
        while True:
            while position < len(line) and line[position] in blanks:
                self._parenthesis(line[position : position + 1])
                position += 1
            if position == len(line):
                return None
            if len(self.arguments) - self._parentheses == most:
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
            if start == b'"':
                self.arguments.append(re.sub(rb"\\(.)", rb"\1", match[1]))
            elif isID:
                self._atom(match[0])
            else:
                self.arguments.append(match[0])
            position = match.end()

    def _atom(self, atom: bytes) -> None:
        """Take an argument of ID that is no string, and the parentheses that close behind it."""
        text = atom.rstrip(b")")
        self.arguments.append(Atom(text))
        for _ in range(len(atom) - len(text)):
            self._parenthesis(b")")

    def _parenthesis(self, blank: bytes) -> None:
        if blank != b" ":
            self.arguments.append(Atom(blank))
            self._parentheses += 1


class IMAP4Server(ProxyServer):
    """The server's side, before login."""

    settings: IMAP4Settings
    wording = {
        Trouble.DENIED: b"NO [AUTHENTICATIONFAILED] Authentication failed",
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
    _heard = Envelope()
    """What the backend has to hear."""

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
        self._heard = Envelope()

    def envelope(self, method: Method) -> Envelope:
        return self._heard

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
        # A server heeds the first ID alone.
        if not self._heard.fields and self.factory.settings[ProxySettings].tellsByCommand:
            self._heard = Envelope(fields=fieldsOf(arguments))
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


def _continuation(line: bytes, octets: int) -> int | None:
    """
    Of how many bytes of a literal the response goes on with behind C{line}, of which the first C{octets} are of one;
    L{None} where C{line} is the end of it.
    """
    if len(line) <= octets:
        return octets - len(line)
    literal = _LITERAL_AT_END.search(line, octets)
    return int(literal[1]) if literal else None


class IMAP4Client(ProxyClient):
    """
    The client's side at a backend: LOGIN, with the tag that the client itself has given, and before it, where the
    greeting lists that, ID.

    Where STARTTLS follows that greeting came in the clear, and somebody on the way may have changed it. ID is sent
    over TLS alone; all that he can bring about is that it is not sent, or is sent to a server that refuses it.
    """

    _passing = (b"[UNAVAILABLE]", b"[INUSE]", b"[LIMIT]", b"[SERVERBUG]", b"[CONTACTADMIN]", b"[PRIVACYREQUIRED]")
    """Response codes (RFC 5530) that say nothing of the password."""

    _takesID = False
    _idTag = _ID_TAG

    def answersEarly(self, ahead: bytearray) -> bool:
        # Untagged responses may come at any time.
        return any(not line.startswith(b"*") for line in ahead.splitlines())

    async def greeted(self) -> None:
        greeting = await self.line()
        if not greeting.upper().startswith(b"* OK"):
            raise BackendError(f'greets with "{printable(greeting.strip())}"', greeting)
        self._takesID = self._tellsByCommand and _OFFERS_ID.match(greeting) is not None

    async def requestTLS(self) -> None:
        self.send(b"mailgate STARTTLS")
        response = await self._response(b"mailgate")
        if not response.upper().startswith(b"MAILGATE OK"):
            raise BackendError(f'refuses STARTTLS: "{printable(response.strip())}"', response)
        self.reply = b""

    async def authenticate(self) -> None:
        tag = self.request.tag
        # In one segment with the login, whose answer so is not waited for any longer.
        introduction = self._introduction() if self._takesID else b""
        command = introduction + tag + b" LOGIN"
        for argument in (self.route.user, self.password):
            # A quoted string saves a round trip, but holds printable ASCII alone for certain.
            if _QUOTABLE.fullmatch(argument):
                command += b' "' + _SPECIAL.sub(rb"\\\g<0>", argument) + b'"'
                continue
            self.send(command + b" {%d}" % len(argument))
            if introduction:
                await self._introduced()
                introduction = b""
            self._expect(b"+", tag, await self._response(tag))
            command = argument
        self.send(command)
        if introduction:
            await self._introduced()
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

    def _introduction(self) -> bytes:
        """ID, its line end included, with a tag that is not the login's; empty where there is nothing to tell."""
        request = self.request
        self._idTag = _ID_TAG if request.tag != _ID_TAG else _ID_TAG + b"2"
        command = idCommand(self._idTag, request.client, request.envelope.fields)
        return command + b"\r\n" if command else b""

    async def _introduced(self) -> None:
        """
        Read the reply to our ID, which is none of the client's: it has had one from us. A refusal is no reason not to
        log in.
        """
        tag, heard = self._idTag + b" ", 0
        octets: int | None = None
        while True:
            line = await self.line()
            if octets is None and line.startswith(tag):
                break
            heard += len(line)
            if heard > self.limit:
                raise BackendError("sent a too long reply")
            if octets is not None or line[:5].upper() == b"* ID ":
                octets = _continuation(line, octets or 0)
            elif line.startswith(b"* "):
                self.reply += line
            else:
                raise BackendError(f"answers ID with {replyCode(line)}", self.reply + line)
        if not line[len(tag) :].upper().startswith(b"OK"):
            self.complaint = f'refuses ID, so that it knows nothing of clients: "{printable(line.strip())}"'

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
