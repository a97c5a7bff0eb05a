# -*- test-case-name: mailgate.test.backend.test_login mailgate.test.backend.test_sequences -*-
"""
SMTP's login at a backend (RFC 5321; AUTH of RFC 4954, XCLIENT of Postfix). The commands are nginx's.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

from mailgate.backend.client import ProxyClient
from mailgate.backend.credentials import BackendCredentials
from mailgate.backend.errors import BackendError, LoginRefused, Unauthorizing, replyCode
from mailgate.backend.hops import SMTP_GREETING, noopWithHops
from mailgate.backend.mechanisms import mechanismFor
from mailgate.backend.reply import smtpDenial, transactionDenial
from mailgate.backend.settings import ProxySettings
from mailgate.login import LoginRequest, Method
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.protocols.smtp.trust import (
    XCLIENT_REFUSED,
    Introduction,
    concerns,
    introductionOf,
    whyNotHandedOver,
)
from mailgate.protocols.smtp.xclient import likeNginx, xclientLines

__all__ = ["SMTPClient"]

_REPLY = re.compile(rb"([2-5][0-5][0-9])([ -]|\r?\n)")
_LONGEST_COMMAND = 510
"""Bytes of a command without its line end (RFC 5321, 4.5.3.1.4): longer messages of an exchange have their own line."""
_NO_EHLO = (500, 502)
"""Codes of a server that has no EHLO (RFC 5321, 4.2.4), or no PROXY header. Any other speaks of this greeting alone."""


class SMTPClient(ProxyClient):
    """
    The client's side at a backend: EHLO, XCLIENT, and AUTH or the client's MAIL and RCPT.

    A backend that refuses what comes before AUTH, or before MAIL, has failed, and another may do better. A refusal of
    MAIL is the client's: it is the answer to the recipient.
    """

    async def response(self) -> tuple[int, bytes]:
        """
        A reply: its code, and all its lines.

        @raise BackendError: it is none, or too long.
        """
        said = b""
        while True:
            line = await self.line()
            said += line
            match = _REPLY.match(line)
            if match is None or len(said) > self.limit:
                raise BackendError(f"answers with {replyCode(line)}", said)
            if match[2] != b"-":
                return int(match[1]), said

    async def command(self, line: bytes) -> tuple[int, bytes]:
        """Send C{line}; returns the L{response}."""
        self.send(line)
        return await self.response()

    async def _prepare(self, line: bytes, *wanted: int) -> None:
        """
        L{command}, whose reply is no answer to the login.

        @raise BackendError: its code is not among C{wanted}.
        """
        code, said = await self.command(line)
        if code not in wanted:
            raise self._unprepared(line, said)

    def _unprepared(self, line: bytes, said: bytes) -> BackendError:
        return BackendError(f"refuses {line.split()[0].decode()} with {replyCode(said)}", said, isQuoted=True)

    async def greeted(self) -> None:
        code, said = await self.response()
        if code != 220:
            raise BackendError(f"greets with {replyCode(said)}", said, isQuoted=True)
        self.greetsAsWe = SMTP_GREETING.fullmatch(said) is not None

    async def requestTLS(self) -> None:
        await self._prepare(b"EHLO " + self.serverName.encode(), 250)
        await self._prepare(b"STARTTLS", 220)

    async def authenticate(self, credentials: BackendCredentials, request: LoginRequest) -> None:
        settings = self.settings[SMTPSettings]
        envelope, method = request.envelope, request.credentials.method
        withoutLogin = method is Method.NONE
        wanted = settings.proxyAuth or not credentials.judged
        authenticating = wanted and not withoutLogin and credentials.method != "none"
        if self.greetsAsWe and settings.xclient != "on":
            # With on a gateway is no backend that can be used: it refuses XCLIENT.
            await self._countHops(request)
        introduction = introductionOf(settings.xclient, self.settings[ProxySettings], request.client, method)
        offers = await self._asOurselves(introduction, authenticating, credentials, request)
        if introduction.isDone(offers):
            # The backend knows the client, and takes a greeting for the client's: where that has said none, ours would
            # be judged in its place. Of any before XCLIENT it knows nothing any more.
            offers = {}
            if envelope.helo or authenticating:
                offers = await self._hello(
                    envelope.helo or self.serverName.encode(), envelope.extended or authenticating
                )
            elif introduction is Introduction.HEADER and not withoutLogin:
                await self._prepare(b"NOOP", 250)  # Or did it refuse the header as a command, and go by our address?
        self.concerns = tuple(concerns(offers, settings.capabilities, envelope.extended))
        if withoutLogin:
            code, said = await self.command(envelope.mail)
            if code != 250 and introduction is Introduction.HEADER and not envelope.helo:
                raise self._unprepared(envelope.mail, said)  # Or did it refuse the header?
            if code != 250:
                raise LoginRefused(said, transactionDenial(said))
            self.reply = (await self.command(envelope.recipient))[1]
        elif authenticating:
            await self._authenticate(offers, credentials)

    async def _countHops(self, request: LoginRequest) -> None:
        """
        Tell another gateway how many hops are left; see L{mailgate.backend.hops}.

        @raise BackendError: it has taken a PROXY header for the command.
        """
        line = noopWithHops(self.hopsLeft(request))
        code, said = await self.command(line)
        if code != 250 and self._proxyProtocol != "off":
            raise self._unprepared(line, said)

    async def _asOurselves(
        self, introduction: Introduction, authenticating: bool, credentials: BackendCredentials, request: LoginRequest
    ) -> Mapping[bytes, bytes]:
        """
        Greet with our own name, and send XCLIENT, if that is how the backend is to learn who the client is. Gives what
        it offers us.

        @raise BackendError: it has not learned that, and the client cannot have the connection.
        """
        if introduction is Introduction.HEADER:
            return {}
        isUnasked = introduction is Introduction.UNASKED
        extended = request.envelope.extended or authenticating or isUnasked
        offers = await self._hello(self.serverName.encode(), extended, probing=True)
        if introduction.isDone(offers):
            withoutLogin = request.credentials.method is Method.NONE
            # Where AUTH follows no password has been judged.
            login = None if authenticating else credentials
            if isUnasked:
                await self._introduce(likeNginx(request.client, login), withoutLogin)
                return offers
            login = None if withoutLogin else login
            hops = self.hopsLeft(request)
            for line in xclientLines(request.client, request.envelope, login, hops, offers[b"XCLIENT"]):
                await self._introduce(line, withoutLogin)
        elif reason := whyNotHandedOver(introduction, offers):
            raise BackendError(reason)
        return offers

    async def _hello(self, name: bytes, extended: bool, probing: bool = False) -> Mapping[bytes, bytes]:
        """
        Greet; gives what EHLO offers. With C{probing} EHLO is tried even where HELO would do: HELO is left for a
        backend that has no EHLO.
        """
        if extended or probing:
            code, said = await self.command(b"EHLO " + name)
            if code == 250:
                lines = (line[4:].upper().split(None, 1) for line in said.split(b"\n")[1:])
                return {word: b"".join(parameters).strip() for word, *parameters in filter(None, lines)}
            if extended or self._proxyProtocol != "off" or code not in _NO_EHLO:
                raise self._unprepared(b"EHLO", said)
        await self._prepare(b"HELO " + name, 250)
        return {}

    async def _introduce(self, line: bytes, withoutLogin: bool) -> None:
        """Send XCLIENT. What the backend says to that is no answer to a recipient, though it sound like one."""
        code, said = await self.command(line)
        if code not in (220, 250):
            raise BackendError(f"{self._unprepared(line, said)}: {XCLIENT_REFUSED}", b"" if withoutLogin else said)

    async def _authenticate(self, offers: Mapping[bytes, bytes], credentials: BackendCredentials) -> None:
        method, offered = credentials.method, offers.get(b"AUTH", b"").split()
        isLogin = b"LOGIN" in offered and b"PLAIN" not in offered if method == "auto" else method == "login"
        if isLogin:
            if credentials.authzid:
                raise Unauthorizing("offers AUTH LOGIN, which has no place for an authorization identity")
            await self._prove(b"AUTH LOGIN", 334, credentials)
            await self._prove(base64.b64encode(credentials.user), 334, credentials)
            await self._prove(base64.b64encode(credentials.knownPassword), 235, credentials)
            return
        mechanism = mechanismFor(method, credentials, self.backend)
        if method != "auto" and not mechanism.isOffered(offered):
            raise BackendError(f"does not offer AUTH {mechanism.name.decode()}")
        line = b"AUTH " + mechanism.name + b" " + mechanism.initial
        if len(line) > _LONGEST_COMMAND:
            await self._prove(b"AUTH " + mechanism.name, 334, credentials)
            line = mechanism.message
        code, said = await self.command(line)
        if code == 334 and mechanism.rejoinder is not None:
            # The challenge explains a refusal, which follows.
            code, said = await self.command(mechanism.rejoinder)
        if code != 235:
            raise LoginRefused(said, smtpDenial(said, credentials))

    async def _prove(self, line: bytes, wanted: int, credentials: BackendCredentials) -> None:
        """
        L{command}, as a step of the login.

        @raise LoginRefused: the code of the reply is not C{wanted}.
        """
        code, said = await self.command(line)
        if code != wanted:
            raise LoginRefused(said, smtpDenial(said, credentials))

    async def probed(self) -> None:
        await self._prepare(b"NOOP", 250)
        self.send(b"QUIT")
