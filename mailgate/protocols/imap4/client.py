# -*- test-case-name: mailgate.test.backend.test_login -*-
"""
The login at an IMAP4 backend (RFC 3501, 9051; ID of RFC 2971).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NoReturn

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


@lru_cache(256)
def _parseGreeting(line: bytes) -> tuple[bytes, bytes | None, bool]:
    """
    Parse a greeting. A backend repeats the same one for each connection.

    @return: the status in capitals, empty if it is none of a greeting; the capabilities that it lists, L{None} if it
        lists none; and whether it is that of a gateway.
    """
    match = _GREETING.match(line)
    if match is None:
        return b"", None, False
    return match[1].upper(), match[2], IMAP_GREETING.fullmatch(line) is not None


@lru_cache(256)
def _wordsIn(capabilities: bytes) -> frozenset[bytes]:
    """Return the words of a list of capabilities in capitals. Backends repeat the same list, too."""
    return frozenset(capabilities.upper().split(b" "))


class IMAP4Client(ProxyClient):
    """
    Logs in at a backend with the client's own tag: by LOGIN, or by AUTHENTICATE PLAIN if there is an authorization
    identity. If the backend's greeting lists ID, or lists nothing and is known to offer ID, it sends ID first.

    With STARTTLS the greeting arrives in the clear, so an attacker may change it. The attack only suppresses ID, or
    sends ID to a backend that refuses it: ID itself goes over TLS.
    """

    _idTag = _ID_TAG
    _takesID = False
    _words = b""
    """What the backend has listed last."""
    _listed: frozenset[bytes] = frozenset()
    """The same as words in capitals."""

    def dialogueReceived(self, data: bytes) -> None:
        if self.isIntroducing and not self._buffer and self._idTag == _ID_TAG:
            # The reply of nearly all servers, which arrives long before the reply to the login. Resuming the coroutine
            # for it would double the cost of ID.
            reply = _IDENTIFIED.match(data)
            if reply is not None:
                self.isIntroducing = False
                data = data[reply.end() :]
                if not data:
                    return
        super().dialogueReceived(data)

    def mayAnswer(self, reply: bytes, request: LoginRequest) -> bool:
        # The reply to a command of the gateway's own has a tag that the client does not know: the client would wait.
        return reply.rstrip().rpartition(b"\n")[2].startswith((request.tag + b" ", b"* "))

    def answersEarly(self, ahead: bytes) -> bool:
        # Untagged responses may arrive at any time (RFC 3501, section 7).
        return any(not line.startswith(b"*") for line in ahead.splitlines())

    async def greeted(self) -> None:
        greeting = await self.line()
        status, listed, isOurs = _parseGreeting(greeting)
        if status != (b"OK" if self.logsIn else b"PREAUTH"):
            # A server that is full greets with BYE.
            isFull = status == b"BYE"
            cause: Cause = "error" if isFull else "invalid_response"
            message = f"greets with {replyCode(greeting)}"
            raise BackendError(message, greeting, isQuoted=True, counts=not isFull, cause=cause)
        self.greetsAsWe = self.isGateway = isOurs
        known = self.known
        if self.backend.tls is BackendTLS.STARTTLS or known is UNKNOWN:
            # What it says in the clear may be an attacker's, and is not what it says over TLS.
            self._learn(listed or b"")
        elif listed is None:
            # Exchange and Gmail, for example.
            self._learn(known.greeted)
        else:
            if listed != known.greeted and self._proxyProtocol == "off":
                known.heard(listed)
            self._learn(listed)

    def _learn(self, capabilities: bytes) -> None:
        """The backend offers C{capabilities}; empty where it has not said."""
        self._words = capabilities
        self._listed = _wordsIn(capabilities)
        self._takesID = self.tellsByCommand and b"ID" in self._listed

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
        self._learn(b" ".join(listed))

    async def offered(self) -> tuple[bytes, ...]:
        if not self._words:
            await self.secured()
        if not self._words:
            raise BackendError("lists no capabilities")
        return tuple(self._words.split())

    async def authenticate(self, credentials: BackendCredentials, request: LoginRequest) -> None:
        tag = request.tag
        if self._takesID and credentials.identifies:
            # Once: Dovecot uses only the first ID of a connection.
            self._takesID = False
            if tag == self._idTag:
                self._idTag += b"2"
            hops = self.hopsLeft(request)
            self.introduction = idCommand(
                self._idTag, request.client, request.envelope.fields, hops, credentials.forward
            )
        elif self.greetsAsWe:
            await self._countHops(credentials, request)
        method = credentials.method
        if method == "none":
            await self._complete(tag, tag + b" OK Logged in\r\n", request)
            return
        if method != "login" and (method != "auto" or self._needsSASL(credentials)):
            if method == "auto" and b"AUTH=PLAIN" not in self._listed:
                method = self._strongest() or method
            mechanism = mechanismFor(method, credentials, self.backend, self.reactor)
            completion = await self._exchange(tag, mechanism, credentials)
            await self._complete(tag, completion, request)
            return
        if credentials.authzid:
            raise Unauthorizing("LOGIN has no place for an authorization identity")
        command = tag + b" LOGIN"
        for argument in (credentials.user, credentials.knownPassword):
            # A quoted string saves a round trip, but only printable ASCII is safe in it.
            if _QUOTABLE.fullmatch(argument):
                quoted = argument.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
                command += b' "' + quoted + b'"'
                continue
            self.sendLogin(command + b" {%d}" % len(argument))
            response = await self._response(tag)
            if not response.startswith(b"+"):
                self._refuse(tag, response, credentials)
            command = argument
        self.sendLogin(command)
        completion = await self._response(tag)
        self._expectOK(tag, completion, credentials)
        await self._complete(tag, completion, request)

    async def _complete(self, tag: bytes, completion: bytes, request: LoginRequest) -> None:
        """
        Set C{reply} after the backend's OK. A client that has got the list before the login must not keep it for the
        one after it: if the backend does not send that, it is asked, in a round trip of its own. Some servers lose what
        is pipelined behind a login.
        """
        isListed = _LISTED_AT_END.match(completion) is not None or _CAPABILITY.search(self.reply) is not None
        if request.envelope.listed and not isListed:
            asked = b"mailgate2" if tag == b"mailgate" else b"mailgate"
            self.send(asked + b" CAPABILITY")
            response = await self._response(asked)
            if response.startswith(b"+"):
                raise BackendError("answers CAPABILITY with a continuation request", response)
        self.reply = withoutHidden(self.reply + completion)

    async def _countHops(self, credentials: BackendCredentials, request: LoginRequest) -> None:
        """
        Tell another gateway how many hops are left, and what else ID tells; see L{mailgate.backend.hops}. What it
        answers does not matter, as long as it is an answer.

        @raise BackendError: it is none.
        """
        self.greetsAsWe = False
        hops = self.hopsLeft(request)
        command = idCommand(_ID_TAG, None, (), hops)
        if self.tellsByCommand and credentials.identifies:
            command = idCommand(_ID_TAG, request.client, request.envelope.fields, hops, credentials.forward)
            if self.steps is not None:
                self.steps.introduces(command)
        self.send(command.removesuffix(b"\r\n"))
        response = await self._response(_ID_TAG)
        if response.startswith(b"+"):
            raise BackendError("answers ID with a continuation request", response, isQuoted=True)
        self.reply = b""

    def _needsSASL(self, credentials: BackendCredentials) -> bool:
        """
        Whether LOGIN cannot be used: it has no place for an authorization identity, may be disabled, and needs more
        round trips, and servers that read literals, for what is no printable ASCII.
        """
        listed = self._listed
        if credentials.authzid or b"LOGINDISABLED" in listed:
            return True
        if b"AUTH=PLAIN" not in listed:
            return False
        return not (_QUOTABLE.fullmatch(credentials.user) and _QUOTABLE.fullmatch(credentials.knownPassword))

    def _strongest(self) -> str:
        """Return the word of C{proxy_auth} for the best mechanism with SCRAM that is offered, or an empty string."""
        return strongest([word[5:] for word in self._listed if word.startswith(b"AUTH=")])

    async def _exchange(self, tag: bytes, mechanism: AnyMechanism, credentials: BackendCredentials) -> bytes:
        """
        AUTHENTICATE, with an initial response where the backend takes one and the line is not too long; returns the
        backend's OK.
        """
        listed = self._listed
        if credentials.method != "auto" and self._words.strip() and b"AUTH=" + mechanism.name not in listed:
            message = f"does not offer AUTH={mechanism.name.decode()}"
            raise BackendError(message, counts=False)
        command = b"AUTHENTICATE " + mechanism.name
        line = tag + b" " + command + b" " + mechanism.initial
        if not _INITIAL.isdisjoint(listed) and len(line) <= _LONGEST_COMMAND:
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
        self._expectOK(tag, response, credentials)
        if isinstance(mechanism, ScramMechanism):
            mechanism.conclude()
        return response

    def _expectOK(self, tag: bytes, response: bytes, credentials: BackendCredentials) -> None:
        if not beginsWith(response.upper(), tag.upper() + b" OK"):
            self._refuse(tag, response, credentials)

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
        if self.isIntroducing:
            if not self._buffer:
                await self._wait()
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
