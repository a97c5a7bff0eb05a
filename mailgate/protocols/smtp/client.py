# -*- test-case-name: mailgate.test.backend.test_login mailgate.test.backend.test_sequences -*-
"""
The login at an SMTP backend (RFC 5321; AUTH of RFC 4954, XCLIENT of Postfix). The commands are nginx's.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from functools import lru_cache

from mailgate.backend.client import ProxyClient
from mailgate.backend.credentials import BackendCredentials
from mailgate.backend.errors import BackendError, Cause, LoginRefused, Unauthorizing, replyCode
from mailgate.backend.hops import SMTP_GREETING, noopWithHops
from mailgate.backend.identity import LEFT_OUT
from mailgate.backend.mechanisms import mechanismFor
from mailgate.backend.offers import UNKNOWN
from mailgate.backend.reply import isPassing, smtpDenial, transactionDenial
from mailgate.backend.scram import ScramMechanism, strongest
from mailgate.login import LoginRequest, Method
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.protocols.smtp.trust import (
    XCLIENT_REFUSED,
    Introduction,
    concerns,
    introductionOf,
    whyNotHandedOver,
)
from mailgate.protocols.smtp.xclient import forwardFor, forwardLine, likeNginx, xclientLines

__all__ = ["SMTPClient"]

_REPLY = re.compile(rb"([2-5][0-5][0-9])([ -]|\r?\n)")
_LONGEST_COMMAND = 510
"""Bytes of a command without its line end (RFC 5321, 4.5.3.1.4): longer messages of an exchange have their own line."""
_MOST_REMEMBERED = 1024
"""Bytes of a reply to EHLO whose meaning is remembered. Those of known servers are shorter."""

_NO_CHUNKS = "offers no CHUNKING, which the client got when the backends had it: if they differ, set smtp_capabilities"
_NO_EHLO = (500, 502)
"""
Codes of a server that does not know EHLO (RFC 5321, section 4.2.4) or the PROXY header. Other codes refuse only this
EHLO.
"""


def _extensions(reply: bytes) -> tuple[bytes, ...]:
    """Return the lines of a reply to EHLO that name an extension, without code and line end."""
    return tuple(filter(None, (line[4:].strip() for line in reply.split(b"\n")[1:])))


def _keywords(extensions: tuple[bytes, ...]) -> dict[bytes, bytes]:
    """Return the keywords of C{extensions} with their parameters, in capitals."""
    lines = (line.upper().split(None, 1) for line in extensions)
    offers = {word: b"".join(parameters) for word, *parameters in lines}
    if b"AUTH" not in offers:
        # Servers older than RFC 2554 write it so.
        old = next((line.upper() for line in extensions if line[:5].upper() == b"AUTH="), b"")
        if old:
            offers[b"AUTH"] = old[5:]
    return offers


def _parse(reply: bytes) -> tuple[tuple[bytes, ...], Mapping[bytes, bytes]]:
    """Return what L{_extensions} and L{_keywords} make of a reply to EHLO."""
    extensions = _extensions(reply)
    return extensions, _keywords(extensions)


_remembered = lru_cache(256)(_parse)
"""Backends repeat the same reply for each connection."""


class SMTPClient(ProxyClient):
    """
    Logs in at a backend: EHLO, XCLIENT, and then AUTH or the client's MAIL and RCPT.

    If a backend refuses a command before AUTH or MAIL, it has failed and the next one is tried. A refusal of MAIL is
    passed on to the client as the reply to its recipient.
    """

    _forwardsAll = True

    async def response(self) -> tuple[int, bytes]:
        """
        Read a reply (RFC 5321, section 4.2).

        @return: its code and all its lines.
        @raise BackendError: the reply is invalid or too long.
        """
        reply = b""
        while True:
            line = await self.line()
            reply += line
            match = _REPLY.match(line)
            if match is None or len(reply) > self.limit:
                raise BackendError(f"answers with {replyCode(line)}", reply)
            if match[2] != b"-":
                return int(match[1]), reply

    async def command(self, line: bytes) -> tuple[int, bytes]:
        """Send C{line} and return the L{response}."""
        self.send(line)
        return await self.response()

    async def _prepare(self, line: bytes, *wanted: int) -> None:
        """
        Send a L{command} before the login.

        @raise BackendError: the code of the reply is not one of C{wanted}.
        """
        code, reply = await self.command(line)
        if code not in wanted:
            raise self._unprepared(line, reply)

    def _unprepared(self, line: bytes, reply: bytes) -> BackendError:
        """
        The error for a refused command. It does not count as a failure of the backend, which works: the command may
        contain the client's own words (EHLO, XCLIENT, MAIL).
        """
        command = line.split()[0].decode()
        cause: Cause = "tls" if command == "STARTTLS" else "temporary" if isPassing(reply) else "invalid_response"
        message = f"refuses {command} with {replyCode(reply)}"
        return BackendError(message, reply, isQuoted=True, counts=False, cause=cause)

    async def greeted(self) -> None:
        code, reply = await self.response()
        if code != 220:
            # A server that is full greets with 421.
            isFull = code // 100 == 4
            cause: Cause = "error" if isFull else "invalid_response"
            message = f"greets with {replyCode(reply)}"
            raise BackendError(message, reply, isQuoted=True, counts=not isFull, cause=cause)
        self.greetsAsWe = self.isGateway = SMTP_GREETING.fullmatch(reply) is not None

    async def requestTLS(self) -> None:
        await self._prepare(b"EHLO " + self.caller.serverName.encode(), 250)
        await self._prepare(b"STARTTLS", 220)

    async def offered(self) -> tuple[bytes, ...]:
        code, reply = await self.command(b"EHLO " + self.caller.serverName.encode())
        if code in _NO_EHLO:
            return ()
        if code != 250:
            raise self._unprepared(b"EHLO", reply)
        return _extensions(reply)

    async def authenticate(self, credentials: BackendCredentials, request: LoginRequest) -> None:
        settings = self.caller.settings[SMTPSettings]
        envelope, method = request.envelope, request.credentials.method
        withoutLogin = method is Method.NONE
        # An authenticator that names a method for this login wants it to be used.
        mayLogIn = settings.proxyAuth or not credentials.judged or credentials.options.method != ""
        authenticating = mayLogIn and not withoutLogin and credentials.method != "none"
        if self.greetsAsWe and settings.xclient != "on":
            # With on a gateway is no backend that can be used: it refuses XCLIENT.
            await self._countHops(request)
        introduction = introductionOf(
            settings.xclient, self.caller.proxy, request.client, method, credentials.identifies
        )
        offers = await self._asOurselves(introduction, authenticating, credentials, request)
        if introduction.isDone(offers):
            # The backend knows the client now, has forgotten any EHLO before XCLIENT, and applies its HELO checks to
            # the next one. So greet with the client's own name. If the client has not greeted, greet only if AUTH
            # requires it.
            offers = {}
            if envelope.helo or authenticating:
                offers = await self._hello(
                    envelope.helo or self.caller.serverName.encode(), envelope.extended or authenticating
                )
            elif introduction is Introduction.HEADER and not withoutLogin:
                # A backend that does not expect the PROXY header refuses it as a command. NOOP reveals that.
                await self._prepare(b"NOOP", 250)
        if request.envelope.chunks and b"CHUNKING" not in offers:
            # It would execute messages.
            raise BackendError(_NO_CHUNKS, counts=False)
        # What is learned of the backends they keep.
        static = settings.fallback if self.known is UNKNOWN else ()
        self.concerns = tuple(concerns(offers, static, envelope.extended))
        if not self._forwardsAll:
            self.concerns += (LEFT_OUT,)
        if withoutLogin:
            self.sendsForClient = True
            code, reply = await self.command(envelope.mail)
            if code != 250 and introduction is Introduction.HEADER and not envelope.helo:
                # The reply may be a refusal of the PROXY header.
                raise self._unprepared(envelope.mail, reply)
            if code != 250:
                raise LoginRefused(reply, transactionDenial(reply))
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
        if code != 250 and self.caller.hasHeader:
            raise self._unprepared(line, said)

    async def _asOurselves(
        self, introduction: Introduction, authenticating: bool, credentials: BackendCredentials, request: LoginRequest
    ) -> Mapping[bytes, bytes]:
        """
        Greet with the gateway's name, and send XCLIENT if C{introduction} asks for it.

        @return: the keywords that the backend's EHLO offers to the gateway, with their parameters.
        @raise BackendError: the backend does not know the client's address, and the client would get the gateway's
            rights there.
        """
        if introduction is Introduction.HEADER:
            return {}
        isUnasked = introduction is Introduction.UNASKED
        extended = request.envelope.extended or authenticating or isUnasked
        offers = await self._hello(self.caller.serverName.encode(), extended, probing=True)
        if introduction.isDone(offers):
            withoutLogin = request.credentials.method is Method.NONE
            # Where AUTH follows no password has been judged.
            login = None if authenticating else credentials
            forward, self._forwardsAll = forwardFor(credentials.forward, offers.get(b"XCLIENT", b""))
            if isUnasked:
                if forward:
                    await self._introduce(forwardLine(forward), withoutLogin)
                await self._introduce(likeNginx(request.client, login), withoutLogin)
                return offers
            login = None if withoutLogin else login
            hops = self.hopsLeft(request)
            lines = xclientLines(request.client, request.envelope, login, hops, offers[b"XCLIENT"], forward)
            for line in lines:
                await self._introduce(line, withoutLogin)
        elif reason := whyNotHandedOver(introduction, offers):
            raise BackendError(reason, counts=False)
        return offers

    async def _hello(self, name: bytes, extended: bool, probing: bool = False) -> Mapping[bytes, bytes]:
        """
        Greet by EHLO or HELO.

        @param name: the name to greet with.
        @param extended: whether to use EHLO.
        @param probing: whether to try EHLO first even if HELO would do.
        @return: the keywords that EHLO offers, with their parameters.
        """
        if extended or probing:
            code, reply = await self.command(b"EHLO " + name)
            if code == 250:
                extensions, offers = (_remembered if len(reply) <= _MOST_REMEMBERED else _parse)(reply)
                # Only what the backend offers to the gateway itself compares with what it offers without a client.
                if probing and (greeted := b"\n".join(extensions)) != self.known.greeted:
                    self.known.heard(greeted, b"\n")
                return offers
            if extended or self.caller.hasHeader or code not in _NO_EHLO:
                raise self._unprepared(b"EHLO", reply)
        await self._prepare(b"HELO " + name, 250)
        return {}

    async def _introduce(self, line: bytes, withoutLogin: bool) -> None:
        """Send XCLIENT. Its refusal is never passed on as a reply to a recipient, even if it looks like one."""
        if self.steps is not None:
            self.steps.introduces(line)
        code, reply = await self.command(line)
        if code not in (220, 250):
            message = f"{self._unprepared(line, reply)}: {XCLIENT_REFUSED}"
            # A server that refuses for now, as it is full or stops, says nothing about XCLIENT.
            cause: Cause = "temporary" if isPassing(reply) else ""
            raise BackendError(message, b"" if withoutLogin else reply, counts=False, cause=cause)

    async def _authenticate(self, offers: Mapping[bytes, bytes], credentials: BackendCredentials) -> None:
        method, offered = credentials.method, offers.get(b"AUTH", b"").split()
        isLogin = b"LOGIN" in offered and b"PLAIN" not in offered if method == "auto" else method == "login"
        if isLogin:
            if credentials.authzid:
                raise Unauthorizing("offers AUTH LOGIN but not PLAIN: LOGIN cannot carry an authorization identity")
            await self._prove(b"AUTH LOGIN", 334, credentials)
            await self._prove(base64.b64encode(credentials.user), 334, credentials)
            await self._prove(base64.b64encode(credentials.knownPassword), 235, credentials)
            return
        if method == "auto" and b"PLAIN" not in offered:
            method = strongest(offered) or method
        mechanism = mechanismFor(method, credentials, self.backend, self.caller.reactor)
        if method != "auto" and not mechanism.isOffered(offered):
            raise BackendError(f"does not offer AUTH {mechanism.name.decode()}", counts=False)
        line = b"AUTH " + mechanism.name + b" " + mechanism.initial
        if len(line) > _LONGEST_COMMAND:
            await self._prove(b"AUTH " + mechanism.name, 334, credentials)
            line = mechanism.message
        code, said = await self.command(line)
        if code == 334 and mechanism.rejoinder is not None:
            # The challenge explains a refusal, which follows.
            code, said = await self.command(mechanism.rejoinder)
        if isinstance(mechanism, ScramMechanism):
            while code == 334:
                code, said = await self.command(await mechanism.answer(said[4:].strip()))
        if code != 235:
            raise LoginRefused(said, smtpDenial(said, credentials))
        if isinstance(mechanism, ScramMechanism):
            mechanism.conclude()

    async def _prove(self, line: bytes, wanted: int, credentials: BackendCredentials) -> None:
        """
        Send a L{command} of the login.

        @raise LoginRefused: the code of the reply is not C{wanted}.
        """
        code, reply = await self.command(line)
        if code != wanted:
            raise LoginRefused(reply, smtpDenial(reply, credentials))

    async def probed(self) -> None:
        await self._prepare(b"NOOP", 250)

    async def farewell(self) -> None:
        await self.command(b"QUIT")
