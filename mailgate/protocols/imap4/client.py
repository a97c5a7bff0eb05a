# -*- test-case-name: mailgate.test.backend.test_login -*-
"""
The login at an IMAP4 backend (RFC 3501, 9051; ID of RFC 2971).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NoReturn

from attrs import frozen

from mailgate.backend.client import ProxyClient
from mailgate.backend.credentials import BackendCredentials
from mailgate.backend.errors import BackendError, Cause, LoginRefused, Unauthorizing, beginsWith, replyCode
from mailgate.backend.hops import IMAP_GREETING
from mailgate.backend.identity import idCommand
from mailgate.backend.mechanisms import AnyMechanism, mechanismFor
from mailgate.backend.offers import UNKNOWN
from mailgate.backend.reply import imapDenial
from mailgate.backend.scram import ScramMechanism, strongest
from mailgate.login import BackendTLS, LoginRequest
from mailgate.protocols.imap4.capabilities import withoutHidden

__all__ = ["IMAP4Client"]

_QUOTABLE = re.compile(rb"[ -~]{0,256}")
_BOTH_QUOTABLE = re.compile(rb"[ -~]{0,256}\n[ -~]{0,256}")
"""Matches a user name and a password with a line feed between them."""
_INITIAL = frozenset((b"SASL-IR", b"IMAP4REV2"))
"""The capabilities of a backend that takes initial responses (RFC 4959; RFC 9051, section 6.2.2)."""
_LONGEST_COMMAND = 8190
"""Bytes of a command without its line end (RFC 7162, section 4): longer messages of an exchange have their own line."""
_LITERAL_AT_END = re.compile(rb"\{(\d{1,10})\}\r?\n\Z")
_GREETING = re.compile(rb"\* (OK|PREAUTH|BYE)(?![^ \r\n])(?: \[CAPABILITY ([^]]*)\])?", re.IGNORECASE)
"""Matches a greeting. Its second group are the capabilities that its response code, not its text, lists."""

_CAPABILITY = re.compile(rb"^\* CAPABILITY ([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
"""Matches the reply to CAPABILITY among untagged responses."""

_LISTED_AT_END = re.compile(rb"[^ ]+ OK \[CAPABILITY ", re.IGNORECASE)
"""Matches the completion of a login whose response code lists capabilities."""

_ACCEPTED = re.compile(rb"[^ +]+ OK(?![^ \r\n])", re.IGNORECASE)
"""Matches a tagged response that is an OK."""

_GOODBYE = re.compile(rb"^\* BYE(?![^ \r\n])[^\n]*", re.IGNORECASE | re.MULTILINE)
"""Matches BYE among untagged responses."""

_ID_TAG = b"mailgate"
_IDENTIFIED = re.compile(rb"\* ID [^\r\n{]{1,1000}\r\n" + _ID_TAG + rb" OK(?: [^\r\n]{0,1000})?\r\n")


def _continuation(line: bytes, octets: int) -> int | None:
    """
    Return how many bytes of a literal follow C{line} in a response; L{None} if C{line} ends the response.

    @param octets: how many bytes at the beginning of C{line} belong to a literal.
    """
    if len(line) <= octets:
        return octets - len(line)
    literal = _LITERAL_AT_END.search(line, octets)
    return int(literal[1]) if literal else None


class _Listed:
    """
    What a backend has listed.

    @ivar text: its capabilities as it writes them; empty where it has not said.
    @ivar words: the same in capitals.
    @ivar takesID: whether it takes ID.
    @ivar takesPlain: whether it takes AUTHENTICATE PLAIN.
    @ivar takesLogin: whether LOGIN is not disabled.
    """

    __slots__ = ("takesID", "takesLogin", "takesPlain", "text", "words")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.words = words = frozenset(text.upper().split(b" "))
        self.takesID = b"ID" in words
        self.takesPlain = b"AUTH=PLAIN" in words
        self.takesLogin = b"LOGINDISABLED" not in words


_MOST_REMEMBERED = 1024
"""
Bytes of a greeting or a list whose meaning is remembered. Those of known servers are shorter; and what many servers
send, or an attacker in the clear, must not use up the memory.
"""

_remembered = lru_cache(256)(_Listed)
"""Backends repeat the same list for each connection."""


def _listed(text: bytes) -> _Listed:
    """Return what a list of capabilities means."""
    return _remembered(text) if len(text) <= _MOST_REMEMBERED else _Listed(text)


_NOTHING = _listed(b"")


@frozen
class _Greeting:
    """
    A greeting.

    @ivar wantsLogin: whether the backend expects a login; L{None} if it takes no client, or this is no greeting.
    @ivar isGoodbye: whether it is BYE: a server that is full says so.
    @ivar says: whether it lists capabilities.
    @ivar listed: these.
    @ivar isOurs: whether it is that of a gateway.
    """

    wantsLogin: bool | None = None
    isGoodbye: bool = False
    says: bool = False
    listed: _Listed = _NOTHING
    isOurs: bool = False


_WANTS_LOGIN = {b"OK": True, b"PREAUTH": False}

_MOST_GREETINGS = 256
_greetings: dict[bytes, _Greeting] = {}
"""What greetings mean: a backend repeats the same one for each connection."""


def _parseGreeting(line: bytes) -> _Greeting:
    """Parse a greeting, and remember what it means."""
    match = _GREETING.match(line)
    if match is None:
        return _Greeting()
    status, listed = match[1].upper(), match[2]
    isOurs = IMAP_GREETING.fullmatch(line) is not None
    parsed = _Greeting(_WANTS_LOGIN.get(status), status == b"BYE", listed is not None, _listed(listed or b""), isOurs)
    if len(line) <= _MOST_REMEMBERED:
        if len(_greetings) >= _MOST_GREETINGS:
            _greetings.clear()
        _greetings[line] = parsed
    return parsed


def _quoted(text: bytes) -> bytes:
    """Return C{text}, whose bytes may all be quoted, as a quoted string."""
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


class IMAP4Client(ProxyClient):
    """
    Logs in at a backend with the client's own tag: by LOGIN, or by AUTHENTICATE PLAIN if there is an authorization
    identity. If the backend's greeting lists ID, or lists nothing and is known to offer ID, it sends ID first.

    With STARTTLS the greeting arrives in the clear, so an attacker may change it. The attack only suppresses ID, or
    sends ID to a backend that refuses it: ID itself goes over TLS.
    """

    _idTag = _ID_TAG
    _listed = _NOTHING
    """What the backend has listed last."""
    usualReply: re.Pattern[bytes] | None = _IDENTIFIED

    def mayAnswer(self, reply: bytes, request: LoginRequest) -> bool:
        # The reply to a command of the gateway's own has a tag that the client does not know: the client would wait.
        return reply.rstrip().rpartition(b"\n")[2].startswith((request.tag + b" ", b"* "))

    def answersEarly(self, ahead: bytes) -> bool:
        # Untagged responses may arrive at any time (RFC 3501, section 7).
        return any(not line.startswith(b"*") for line in ahead.splitlines())

    async def greeted(self) -> None:
        if not self._buffer:
            await self
        greeting = self.takeLine() or await self.line()
        parsed = _greetings.get(greeting) or _parseGreeting(greeting)
        if parsed.wantsLogin is not self.logsIn:
            isFull = parsed.isGoodbye
            cause: Cause = "error" if isFull else "invalid_response"
            message = f"greets with {replyCode(greeting)}"
            raise BackendError(message, greeting, isQuoted=True, counts=not isFull, cause=cause)
        if parsed.isOurs:
            self.greetsAsWe = self.isGateway = True
        self._listed = listed = parsed.listed
        known = self.known
        # What it says in the clear may be an attacker's, and is not what it says over TLS.
        if known is not UNKNOWN and self.backend.tls is not BackendTLS.STARTTLS:
            if not parsed.says:
                # Exchange and Gmail, for example.
                self._listed = _listed(known.greeted)
            elif listed.text != known.greeted and not self.caller.hasHeader:
                known.heard(listed.text)

    async def requestTLS(self) -> None:
        self.send(b"mailgate STARTTLS")
        response = await self._response(b"mailgate")
        if not beginsWith(response.upper(), b"MAILGATE OK"):
            message = f"refuses STARTTLS with {replyCode(response)}"
            raise BackendError(message, response, isQuoted=True, counts=False, cause="tls")

    async def secured(self) -> None:
        self.send(b"mailgate CAPABILITY")
        response = await self._response(b"mailgate")
        if not beginsWith(response.upper(), b"MAILGATE OK"):
            raise BackendError(f"answers CAPABILITY with {replyCode(response)}", response, isQuoted=True)
        listed = _CAPABILITY.findall(self.reply)
        self.reply = b""
        self._listed = _listed(b" ".join(listed))

    async def offered(self) -> tuple[bytes, ...]:
        if not self._listed.text:
            await self.secured()
        if not self._listed.text:
            raise BackendError("lists no capabilities")
        return tuple(self._listed.text.split())

    async def authenticate(self, credentials: BackendCredentials, request: LoginRequest) -> None:
        tag, listed = request.tag, self._listed
        method, user = credentials.method, credentials.user
        if listed.takesID and credentials.options.identifies and self.caller.tellsByCommand:
            self._identify(credentials, request)
        elif self.greetsAsWe:
            await self._countHops(credentials, request)
        # Only printable ASCII is safe in quoted strings. Anything else needs literals, which cost LOGIN round trips.
        both = user + b"\n" + (credentials.password or b"")
        isQuotable = _BOTH_QUOTABLE.fullmatch(both)
        if (
            method == "auto" and not credentials.authzid and listed.takesLogin and (isQuotable or not listed.takesPlain)
        ) or method == "login":
            if credentials.authzid:
                raise Unauthorizing("LOGIN has no place for an authorization identity")
            if isQuotable and credentials.password is not None:
                # A space between both strings in the place of the line feed.
                self.sendLogin(tag + b" LOGIN " + _quoted(both).replace(b"\n", b'" "'))
            else:
                await self._sendLiterals(tag, (user, credentials.knownPassword), credentials)
            completion = await self._response(tag)
        elif method == "none":
            completion = tag + b" OK Logged in\r\n"
        else:
            if method == "auto" and not listed.takesPlain:
                method = self._strongest() or method
            mechanism = mechanismFor(method, credentials, self.backend, self.caller.reactor)
            completion = await self._exchange(tag, mechanism, credentials)
        if _ACCEPTED.match(completion) is None:
            self._refuse(tag, completion, credentials)
        if request.envelope.listed:
            await self._list(tag, completion)
        self.reply = withoutHidden(self.reply + completion)

    def _identify(self, credentials: BackendCredentials, request: LoginRequest) -> None:
        """Send ID before the login: once, as Dovecot uses only the first ID of a connection."""
        if request.tag == self._idTag:
            self._idTag += b"2"
            self.usualReply = None
        hops, options = self.caller.proxy.hopsOf(request) - 1, credentials.options
        self.introduction = idCommand(self._idTag, request.client, request.envelope.fields, hops, options.forward)

    async def _sendLiterals(self, tag: bytes, arguments: Sequence[bytes], credentials: BackendCredentials) -> None:
        """Send LOGIN with its C{arguments}, those as literals that cannot be quoted strings."""
        command = tag + b" LOGIN"
        for argument in arguments:
            if _QUOTABLE.fullmatch(argument):
                command += b" " + _quoted(argument)
                continue
            self.sendLogin(command + b" {%d}" % len(argument))
            response = await self._response(tag)
            if not response.startswith(b"+"):
                self._refuse(tag, response, credentials)
            command = argument
        self.sendLogin(command)

    async def _list(self, tag: bytes, completion: bytes) -> None:
        """
        A client that has got the list before the login must not keep it for the one after it: if the backend does not
        send that with its OK, it is asked, in a round trip of its own. Some servers lose what is pipelined behind a
        login.
        """
        if _LISTED_AT_END.match(completion) or _CAPABILITY.search(self.reply):
            return
        asked = b"mailgate2" if tag == b"mailgate" else b"mailgate"
        self.send(asked + b" CAPABILITY")
        response = await self._response(asked)
        if response.startswith(b"+"):
            raise BackendError("answers CAPABILITY with a continuation request", response)

    async def _countHops(self, credentials: BackendCredentials, request: LoginRequest) -> None:
        """
        Tell another gateway how many hops are left, and what else ID tells; see L{mailgate.backend.hops}. What it
        answers does not matter, as long as it is an answer.

        @raise BackendError: it is none.
        """
        self.greetsAsWe = False
        hops = self.hopsLeft(request)
        command = idCommand(_ID_TAG, None, (), hops)
        if self.caller.tellsByCommand and credentials.identifies:
            command = idCommand(_ID_TAG, request.client, request.envelope.fields, hops, credentials.forward)
            if self.steps is not None:
                self.steps.introduces(command)
        self.send(command.removesuffix(b"\r\n"))
        response = await self._response(_ID_TAG)
        if response.startswith(b"+"):
            raise BackendError("answers ID with a continuation request", response, isQuoted=True)
        self.reply = b""

    def _strongest(self) -> str:
        """Return the word of C{proxy_auth} for the best mechanism with SCRAM that is offered, or an empty string."""
        return strongest([word[5:] for word in self._listed.words if word.startswith(b"AUTH=")])

    async def _exchange(self, tag: bytes, mechanism: AnyMechanism, credentials: BackendCredentials) -> bytes:
        """
        AUTHENTICATE, with an initial response where the backend takes one and the line is not too long; returns the
        backend's answer.
        """
        listed = self._listed
        isListed = b"AUTH=" + mechanism.name in listed.words
        if credentials.method != "auto" and listed.text.strip() and not isListed:
            message = f"does not offer AUTH={mechanism.name.decode()}"
            raise BackendError(message, counts=False)
        command = b"AUTHENTICATE " + mechanism.name
        line = tag + b" " + command + b" " + mechanism.initial
        if not _INITIAL.isdisjoint(listed.words) and len(line) <= _LONGEST_COMMAND:
            self.sendLogin(line)
            response = await self._response(tag)
        else:
            self.sendLogin(tag + b" " + command)
            response = await self._response(tag)
            if not response.startswith(b"+"):
                said = f"answers {command.decode()} with {replyCode(response)}"
                if credentials.authzid:
                    raise Unauthorizing(said, self.reply + response)
                # The characters of a password decide whether this mechanism is used.
                raise BackendError(said, response, counts=False)
            self.send(mechanism.message)
            response = await self._response(tag)
        if response.startswith(b"+") and mechanism.rejoinder is not None:
            # The challenge explains a refusal, which follows.
            self.send(mechanism.rejoinder)
            response = await self._response(tag)
        if isinstance(mechanism, ScramMechanism):
            while response.startswith(b"+"):
                self.send(await mechanism.answer(response[1:].strip()))
                response = await self._response(tag)
        if isinstance(mechanism, ScramMechanism) and _ACCEPTED.match(response):
            mechanism.conclude()
        return response

    def _refuse(self, tag: bytes, response: bytes, credentials: BackendCredentials) -> NoReturn:
        status, _, text = response[len(tag) + 1 :].strip().partition(b" ")
        status = status.upper()
        if response.startswith(tag) and status in (b"NO", b"BAD"):
            raise LoginRefused(self.reply + response, imapDenial(status, text, credentials))
        raise BackendError(f"answers the login with {replyCode(response)}", self.reply + response)

    async def introduced(self) -> None:
        self.isIntroducing = False
        tag, received = self._idTag + b" ", 0
        octets: int | None = None
        while True:
            line = self.takeLine() or await self.line()
            if octets is None and line.startswith(tag):
                break
            received += len(line)
            if received > self.limit:
                raise BackendError("sent a reply longer than proxy_buffer")
            if octets is not None or line[:5].upper() == b"* ID ":
                octets = _continuation(line, octets or 0)
            elif line.startswith(b"* "):
                self.reply += line
                self._checkGoodbye()
            else:
                raise BackendError(f"answers ID with {replyCode(line)}", self.reply + line)
        if not beginsWith(line[len(tag) :].upper(), b"OK"):
            self.concerns = (
                f"answers ID with {replyCode(line)} and does not learn the addresses of clients:"
                " list the gateway in its login_trusted_networks",
            )

    async def _response(self, tag: bytes) -> bytes:
        """
        Read and return the next tagged response or continuation request. Untagged responses before it are appended to
        C{reply}. The response to ID is read first and not returned.
        """
        if not self._buffer:
            await self
        if self.isIntroducing:
            await self.introduced()
        while True:
            line = self.takeLine() or await self.line()
            if line.startswith((tag + b" ", b"+")):
                return line
            self.reply += line
            if not line.startswith(b"* ") or len(self.reply) > self.limit:
                raise BackendError(f"answers with {replyCode(line)}", self.reply)
            self._checkGoodbye()

    def _checkGoodbye(self) -> None:
        """
        Fail after BYE (RFC 3501, section 7.1.5) unless a line follows it: not every server closes the connection then.

        @raise BackendError: C{reply} has a BYE and no line is buffered.
        """
        goodbye = None if b"\n" in self._buffer else _GOODBYE.search(self.reply)
        if goodbye is not None:
            line = goodbye[0].upper()
            # An answer, perhaps to this client's attempts to log in: the server works.
            raise BackendError(f"answers with {replyCode(line)}", self.reply, counts=False, cause="error")

    async def probed(self) -> None:
        self.send(b"mailgate NOOP")
        response = await self._response(b"mailgate")
        if not beginsWith(response.upper(), b"MAILGATE OK"):
            raise BackendError(f"answers NOOP with {replyCode(response)}", response, isQuoted=True)

    async def farewell(self) -> None:
        self.send(b"mailgate LOGOUT")
        while not (await self.line()).startswith(b"mailgate "):
            pass
