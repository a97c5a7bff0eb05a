# -*- test-case-name: mailgate.test.backend.test_login mailgate.test.backend.test_sequences -*-
"""
SMTP's login at a backend (RFC 5321; AUTH of RFC 4954, XCLIENT of Postfix). The commands are nginx's.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

from mailgate.backend.client import BackendError, LoginRefused, ProxyClient, ProxySettings, Unauthorizing, replyCode
from mailgate.backend.reply import smtpDenial, transactionDenial
from mailgate.login import Method
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.protocols.smtp.trust import (
    XCLIENT_REFUSED,
    Introduction,
    concerns,
    introductionOf,
    whyNotHandedOver,
    xtext,
)

__all__ = ["SMTPClient"]

_REPLY = re.compile(rb"([2-5][0-5][0-9])([ -]|\r?\n)")
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

    async def command(self, line: bytes, *wanted: int) -> bytes:
        """
        Send C{line} and give the reply, if its code is among C{wanted}.

        @raise LoginRefused: it is not.
        """
        self.send(line)
        code, said = await self.response()
        if code not in wanted:
            raise LoginRefused(said, smtpDenial(said, self.route))
        return said

    async def _prepare(self, line: bytes, *wanted: int) -> bytes:
        """L{command}, where a refusal is no answer to the login."""
        try:
            return await self.command(line, *wanted)
        except LoginRefused as refused:
            raise self._unprepared(line, refused.reply) from None

    def _unprepared(self, line: bytes, said: bytes) -> BackendError:
        return BackendError(f"refuses {line.split()[0].decode()} with {replyCode(said)}", said, isQuoted=True)

    async def greeted(self) -> None:
        code, said = await self.response()
        if code != 220:
            raise BackendError(f"greets with {replyCode(said)}", said, isQuoted=True)

    async def requestTLS(self) -> None:
        await self._prepare(b"EHLO " + self.serverName, 250)
        await self._prepare(b"STARTTLS", 220)

    async def authenticate(self) -> None:
        settings = self.settings[SMTPSettings]
        envelope, method = self.request.envelope, self.request.credentials.method
        withoutLogin = method is Method.NONE
        authenticating = not withoutLogin and (settings.proxyAuth or not self.route.judged)
        introduction = introductionOf(settings.xclient, self.settings[ProxySettings], self.request.client, method)
        offers = await self._asOurselves(introduction, authenticating)
        if introduction.isDone(offers):
            # The backend knows the client, and takes a greeting for the client's: where that has said none, ours would
            # be judged in its place. Of any before XCLIENT it knows nothing any more.
            offers = {}
            if envelope.helo or authenticating:
                offers = await self._hello(envelope.helo or self.serverName, envelope.extended or authenticating)
            elif introduction is Introduction.HEADER and not withoutLogin:
                await self._prepare(b"NOOP", 250)  # Or did it refuse the header as a command, and go by our address?
        self.concerns = tuple(concerns(offers, settings.capabilities, envelope.extended))
        if withoutLogin:
            self.send(envelope.mail)
            code, said = await self.response()
            if code != 250 and introduction is Introduction.HEADER and not envelope.helo:
                raise self._unprepared(envelope.mail, said)  # Or did it refuse the header?
            if code != 250:
                raise LoginRefused(said, transactionDenial(said))
            self.send(envelope.recipient)
            self.reply = (await self.response())[1]
        elif authenticating:
            await self._authenticate(offers)

    async def _asOurselves(self, introduction: Introduction, authenticating: bool) -> Mapping[bytes, bytes]:
        """
        Greet with our own name, and send XCLIENT, if that is how the backend is to learn who the client is. Gives what
        it offers us.

        @raise BackendError: it has not learned that, and the client cannot have the connection.
        """
        if introduction is Introduction.HEADER:
            return {}
        isUnasked = introduction is Introduction.UNASKED
        extended = self.request.envelope.extended or authenticating or isUnasked
        offers = await self._hello(self.serverName, extended, probing=True)
        if introduction.isDone(offers):
            known = b"" if isUnasked else offers.get(b"XCLIENT", b"")
            await self._introduce(self._xclient(known, not authenticating))
        elif reason := whyNotHandedOver(introduction, offers):
            raise BackendError(reason)
        return offers

    async def _hello(self, name: bytes, extended: bool, probing: bool = False) -> Mapping[bytes, bytes]:
        """
        Greet; gives what EHLO offers. With C{probing} EHLO is tried even where HELO would do: HELO is left for a
        backend that has no EHLO.
        """
        if extended or probing:
            self.send(b"EHLO " + name)
            code, said = await self.response()
            if code == 250:
                lines = (line[4:].upper().split(None, 1) for line in said.split(b"\n")[1:])
                return {word: b"".join(parameters).strip() for word, *parameters in filter(None, lines)}
            if extended or self._proxyProtocol != "off" or code not in _NO_EHLO:
                raise self._unprepared(b"EHLO", said)
        await self._prepare(b"HELO " + name, 250)
        return {}

    async def _introduce(self, line: bytes) -> None:
        """Send XCLIENT. What the backend says to that is no answer to a recipient, though it sound like one."""
        try:
            await self.command(line, 220, 250)
        except LoginRefused as refused:
            shown = b"" if self.request.credentials.method is Method.NONE else refused.reply
            raise BackendError(f"{self._unprepared(line, refused.reply)}: {XCLIENT_REFUSED}", shown) from None

    def _xclient(self, known: bytes, withLogin: bool) -> bytes:
        """nginx's XCLIENT; without LOGIN where the backend's EHLO tells the attributes C{known} to it, and not that."""
        client = self.request.client
        address = "[UNAVAILABLE]" if client.host == "unix:" else client.host
        command = b"XCLIENT ADDR=" + ("IPV6:" if ":" in address else "").encode() + address.encode()
        login = self.route.authzid or self.route.user
        if withLogin and login and (not known or b"LOGIN" in known.split()):
            command += b" LOGIN=" + xtext(login)
        return command + b" NAME=" + client.name.encode()

    async def _authenticate(self, offers: Mapping[bytes, bytes]) -> None:
        message = self.plainMessage
        mechanisms = offers.get(b"AUTH", b"").split()
        if b"LOGIN" in mechanisms and b"PLAIN" not in mechanisms:
            if self.route.authzid:
                raise Unauthorizing("offers AUTH LOGIN, which has no place for an authorization identity")
            await self.command(b"AUTH LOGIN", 334)
            await self.command(base64.b64encode(self.route.user), 334)
            await self.command(base64.b64encode(self.password), 235)
        else:
            await self.command(b"AUTH PLAIN " + message, 235)
