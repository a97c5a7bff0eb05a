# -*- test-case-name: mailgate.test.backend.test_login -*-
"""
The login at an IMAP4 backend (RFC 3501, 9051; ID of RFC 2971).
"""

from __future__ import annotations

import re
from typing import NoReturn

from mailgate.backend.client import ProxyClient
from mailgate.backend.credentials import BackendCredentials
from mailgate.backend.errors import BackendError, LoginRefused, Unauthorizing, beginsWith, replyCode
from mailgate.backend.identity import idCommand
from mailgate.backend.reply import imapDenial
from mailgate.login import LoginRequest

__all__ = ["IMAP4Client"]

_QUOTABLE = re.compile(rb"[ -~]{0,256}")
_LITERAL_AT_END = re.compile(rb"\{(\d{1,10})\}\r?\n\Z")
_OFFERS_ID = re.compile(rb"\* OK \[CAPABILITY (?:[^]]* )?ID(?: [^]]*)?\]", re.IGNORECASE)
"""Matches a greeting whose response code, not its text, lists the capability ID."""

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


class IMAP4Client(ProxyClient):
    """
    Logs in at a backend with the client's own tag: by LOGIN, or by AUTHENTICATE PLAIN if there is an authorization
    identity. If the backend's greeting lists ID, it sends ID first.

    With STARTTLS the greeting arrives in the clear, so an attacker may change it. The attack only suppresses ID, or
    sends ID to a backend that refuses it: ID itself goes over TLS.
    """

    _idTag = _ID_TAG
    _takesID = False

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

    def answersEarly(self, ahead: bytearray) -> bool:
        # Untagged responses may arrive at any time (RFC 3501, section 7).
        return any(not line.startswith(b"*") for line in ahead.splitlines())

    async def greeted(self) -> None:
        greeting = await self.line()
        if not beginsWith(greeting.upper(), b"* OK"):
            raise BackendError(f"greets with {replyCode(greeting)}", greeting, isQuoted=True)
        self._takesID = self.tellsByCommand and _OFFERS_ID.match(greeting) is not None

    async def requestTLS(self) -> None:
        self.send(b"mailgate STARTTLS")
        response = await self._response(b"mailgate")
        if not beginsWith(response.upper(), b"MAILGATE OK"):
            raise BackendError(f"refuses STARTTLS with {replyCode(response)}", response, isQuoted=True)

    async def authenticate(self, credentials: BackendCredentials, request: LoginRequest) -> None:
        tag = request.tag
        if self._takesID:
            # Once: Dovecot uses only the first ID of a connection.
            self._takesID = False
            if tag == self._idTag:
                self._idTag += b"2"
            self.introduction = idCommand(self._idTag, request.client, request.envelope.fields)
        if credentials.authzid:
            await self._authorize(tag, credentials)
            return
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
        self.reply += completion

    async def _authorize(self, tag: bytes, credentials: BackendCredentials) -> None:
        """Log in by AUTHENTICATE PLAIN: LOGIN cannot carry an authorization identity."""
        message = credentials.plainMessage
        self.sendLogin(tag + b" AUTHENTICATE PLAIN")
        response = await self._response(tag)
        if not response.startswith(b"+"):
            raise Unauthorizing(f"answers AUTHENTICATE PLAIN with {replyCode(response)}", self.reply + response)
        self.send(message)
        completion = await self._response(tag)
        self._expectOK(tag, completion, credentials)
        self.reply += completion

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
            self.concerns = (f"answers ID with {replyCode(line)}: it does not learn the addresses of clients",)

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
            raise BackendError(f"answers with {replyCode(line)}", self.reply)

    async def probed(self) -> None:
        self.send(b"mailgate NOOP")
        response = await self._response(b"mailgate")
        if not beginsWith(response.upper(), b"MAILGATE OK"):
            raise BackendError(f"answers NOOP with {replyCode(response)}", response, isQuoted=True)
        self.send(b"mailgate LOGOUT")
