# -*- test-case-name: mailgate.test.protocols.sieve.test_client -*-
"""
The login at a ManageSieve backend (RFC 5804; XCLIENT of Dovecot's Pigeonhole).
"""

from __future__ import annotations

import base64
from typing import Any

from mailgate.backend.client import ProxyClient
from mailgate.backend.credentials import BackendCredentials
from mailgate.backend.errors import BackendError, Cause, LoginRefused, Unauthorizing, beginsWith, replyCode
from mailgate.backend.hops import SIEVE_GREETING, noopWithHops
from mailgate.backend.identity import LEFT_OUT, carriesAll, xclientCommand
from mailgate.backend.mechanisms import AnyMechanism, Mechanism, mechanismFor
from mailgate.backend.offers import UNKNOWN
from mailgate.backend.scram import ScramMechanism, strongest
from mailgate.login import BackendTLS, LoginRequest
from mailgate.protocols.sieve.capabilities import itemsOf, missing
from mailgate.protocols.sieve.reply import (
    Capabilities,
    Response,
    literalSize,
    parseCapabilities,
    parseResponse,
    sieveDenial,
)
from mailgate.protocols.sieve.settings import SieveSettings
from mailgate.protocols.sieve.strings import isQuotable

__all__ = ["SieveClient"]

_LONGEST_LINE = 8192
"""The longest line in bytes that is read, literals included. Roundcube reads as much."""

_LONGEST_KEPT = 4096
"""The longest list in bytes that is parsed once for all connections."""

_MOST_CAPABILITIES = 64
"""The most lines of a list of capabilities."""

_TOO_LONG = "sent a reply longer than proxy_buffer"
_FENCE = b"mailgate"
_NOTHING = Capabilities({}, Response())


class SieveClient(ProxyClient):
    """
    Logs in at a backend by AUTHENTICATE, always with an initial response: servers write an empty challenge in different
    ways. To a backend that lists XCLIENT it sends XCLIENT first. With STARTTLS the first list arrives in the clear, so
    only the one over TLS counts.
    """

    _offers = _NOTHING
    """What the backend has listed last."""
    _takesXCLIENT = False
    _isUnended = False
    """Whether the line end of a challenge may follow."""

    def __init__(self, *arguments: Any) -> None:
        """@param arguments: as for L{ProxyClient}."""
        super().__init__(*arguments)
        self.limit = max(self.limit, _LONGEST_LINE)

    def answersEarly(self, ahead: bytes) -> bool:
        return not (self._isUnended and ahead in (b"\r", b"\n", b"\r\n"))

    # Reading.

    async def _octets(self, count: int) -> bytes:
        """Wait for C{count} bytes and return them."""
        while len(self._buffer) < count:
            await self
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    async def _line(self, isChallenge: bool = False) -> bytes:
        """
        Read a line with its literals.

        @param isChallenge: whether an empty literal may be all of it: Stalwart writes an empty challenge so.
        """
        last = self.takeLine() or await self.line()
        if self._isUnended:
            self._isUnended = False
            if not last.strip(b"\r\n"):
                last = await self.line()
        raw = last
        while (octets := literalSize(last)) is not None:
            if len(raw) + octets > self.limit:
                raise BackendError(_TOO_LONG)
            raw += await self._octets(octets)
            if isChallenge and not octets and last is raw:
                self._isUnended = True
                break
            last = await self.line()
            raw += last
            if len(raw) > self.limit:
                raise BackendError(_TOO_LONG)
        return raw

    async def _response(self, isChallenge: bool = False) -> Response:
        """
        Read a line that is a response.

        @raise BackendError: it is invalid.
        """
        raw = await self._line(isChallenge)
        response = parseResponse(raw)
        if not (response.status or response.strings):
            line = raw
            raise BackendError(f"answers with {replyCode(line)}", line)
        return response

    async def _list(self, when: str) -> None:
        """
        Read a list of capabilities.

        @param when: what the list belongs to, for the log: a verb with its object.
        @raise BackendError: it is invalid, or does not end with OK.
        """
        raw, line = b"", b""
        for _ in range(_MOST_CAPABILITIES + 1):
            line = await self._line()
            raw += line
            if line[:1] not in (b'"', b"{"):
                break
        # Few backends have lists that long, and the memory for them has a bound.
        parse = parseCapabilities if len(raw) <= _LONGEST_KEPT else parseCapabilities.__wrapped__
        offers = parse(raw)
        if offers is None:
            raise BackendError(f"{when} with {replyCode(line)}", line, isQuoted=True)
        if offers.end.status != b"OK":
            # A server that is full says BYE.
            isFull = offers.end.status == b"BYE"
            cause: Cause = "error" if isFull else "invalid_response"
            message = f"{when} with {replyCode(offers.end.line)}"
            raise BackendError(message, offers.end.line, isQuoted=True, counts=not isFull, cause=cause)
        self._offers = offers
        self._takesXCLIENT = self.caller.tellsByCommand and b"XCLIENT" in offers.values

    # The conversation.

    async def greeted(self) -> None:
        await self._list("greets")
        self.greetsAsWe = self.isGateway = SIEVE_GREETING.fullmatch(self._offers.end.line) is not None
        if self.backend.tls is not BackendTLS.STARTTLS:
            self._compare()

    def _compare(self) -> None:
        """The list is that of the backend itself: note whether it differs from what is known."""
        if self.known is not UNKNOWN and not self.caller.hasHeader:
            greeted = b"\n".join(itemsOf(self._offers.values))
            if greeted != self.known.greeted:
                self.known.heard(greeted, b"\n")

    async def requestTLS(self) -> None:
        self.send(b"STARTTLS")
        response = (await self._response()).line
        if not beginsWith(response, b"OK"):
            message = f"refuses STARTTLS with {replyCode(response)}"
            raise BackendError(message, response, isQuoted=True, counts=False, cause="tls")

    async def secured(self) -> None:
        # It sends the list without being asked (RFC 5804, section 2.2).
        await self._list("begins TLS")
        self._compare()

    async def offered(self) -> tuple[bytes, ...]:
        return itemsOf(self._offers.values)

    async def authenticate(self, credentials: BackendCredentials, request: LoginRequest) -> None:
        if self._takesXCLIENT:
            self._takesXCLIENT = False
            if credentials.identifies:
                forward = credentials.forward
                self.introduction = xclientCommand(request.client, self.hopsLeft(request), forward)
                if not carriesAll(self.introduction, forward):
                    self.concerns = (LEFT_OUT,)
        if self.greetsAsWe:
            await self._countHops(request)
        if self.known is UNKNOWN:
            self._checkAnnounced()
        mechanism = self._mechanism(credentials)
        self._checkOffered(mechanism)
        self.sendLogin(b'AUTHENTICATE "' + mechanism.name + b'" ' + _string(mechanism.message))
        if self.isIntroducing:
            await self.introduced()
        response = await self._response(True)
        if isinstance(mechanism, ScramMechanism):
            while response.strings:
                self.send(_string(await mechanism.answer(response.strings[0])))
                response = await self._response(True)
        elif response.strings:
            # The challenge explains a refusal, which follows. That of LOGIN asks for the password.
            if mechanism.rejoinder is None:
                name = mechanism.name.decode()
                raise BackendError(f"answers AUTHENTICATE {name} with a challenge", counts=False)
            self.send(_string(mechanism.rejoinder))
            response = await self._response(True)
        await self._complete(response, credentials, mechanism)

    def _checkAnnounced(self) -> None:
        """Warn if clients have got words from the configuration that this backend does not have."""
        settings = self.caller.settings[SieveSettings]
        configured = [] if settings.learns else [item.encode() for item in settings.capabilities]
        lacking = missing(configured, self._offers.values)
        if lacking:
            words = b" ".join(lacking).decode("ascii", "replace")
            self.concerns += (f"does not offer {words}, which sieve_capabilities announces",)

    def _mechanism(self, credentials: BackendCredentials) -> AnyMechanism:
        """Return the mechanism that C{proxy_auth} names: PLAIN, SCRAM or LOGIN, as they are offered, with C{auto}."""
        method, offered = credentials.method, self._offers.mechanisms
        if method == "auto" and b"PLAIN" not in offered:
            method = strongest(offered) or ("login" if b"LOGIN" in offered else method)
        if method != "login":
            return mechanismFor(method, credentials, self.backend, self.caller.reactor)
        if credentials.authzid:
            raise Unauthorizing("LOGIN has no place for an authorization identity")
        password = base64.b64encode(credentials.knownPassword)
        return Mechanism(b"LOGIN", base64.b64encode(credentials.user), password)

    def _checkOffered(self, mechanism: AnyMechanism) -> None:
        offered = self._offers.mechanisms
        if not offered:
            message = "offers no SASL mechanism"
            if self.backend.tls not in (BackendTLS.IMPLICIT, BackendTLS.STARTTLS):
                message = "offers no SASL mechanism without TLS: set proxy_ssl = starttls"
            raise BackendError(message, counts=False)
        if not mechanism.isOffered(offered):
            name = mechanism.name.decode()
            raise BackendError(f"does not offer the SASL mechanism {name}", counts=False)
        if mechanism.name == b"EXTERNAL" and b"UNAUTHENTICATE" in self._offers.values:
            # It would ask no client for a password that logs in again on the gateway's connection.
            message = "offers UNAUTHENTICATE: with proxy_auth = external each client could log in there as another user"
            raise BackendError(message, counts=False)

    async def _complete(self, response: Response, credentials: BackendCredentials, mechanism: AnyMechanism) -> None:
        """
        Set C{reply} after the backend's OK.

        @raise LoginRefused: it is no OK.
        """
        if response.status == b"NO":
            raise LoginRefused(response.line, sieveDenial(response, credentials))
        if response.status != b"OK":
            # BYE: it ends the connection.
            reply = response.line
            raise BackendError(f"answers the login with {replyCode(reply)}", reply, counts=False, cause="error")
        if isinstance(mechanism, ScramMechanism):
            mechanism.conclude(response.data)
        # The code would be about the gateway's own exchange: (SASL "…") ends that.
        reply = Response(b"OK", text=response.text).line
        await self._swallow()
        self.reply = reply

    async def _swallow(self) -> None:
        """
        Drop capabilities that the backend sends behind the login's OK without a SASL layer, against RFC 5804, section
        2.1: the client would take them for the answer to its next command. Cyrus does so with
        C{sieve_sasl_send_unsolicited_capability}. A NOOP finds out, as its answer comes after them. Of other servers
        those are dropped that have arrived.
        """
        isCyrus = self._offers.values.get(b"IMPLEMENTATION", b"")[:5].upper() == b"CYRUS"
        if isCyrus:
            self.transport.write(b'NOOP "' + _FENCE + b'"\r\n')
        elif self._buffer[:1] not in (b'"', b"{"):
            return
        isListing, lines = False, 0
        while True:
            response = await self._response()
            if response.strings:
                isListing, lines = True, lines + 1
                if lines > _MOST_CAPABILITIES:
                    raise BackendError(_TOO_LONG)
            elif isListing and isCyrus:
                # The answer to NOOP follows.
                isListing = False
            else:
                return

    async def _countHops(self, request: LoginRequest) -> None:
        """
        Tell another gateway how many hops are left; see L{mailgate.backend.hops}.

        @raise BackendError: it does not answer that, or has taken a PROXY header for the command.
        """
        word, _, argument = noopWithHops(self.hopsLeft(request)).partition(b" ")
        self.send(word + b' "' + argument + b'"')
        reply = (await self._response()).line
        if not beginsWith(reply, b"OK") and (self.caller.hasHeader or not reply.startswith(b"NO")):
            raise BackendError(f"answers NOOP with {replyCode(reply)}", reply, isQuoted=True)

    async def introduced(self) -> None:
        self.isIntroducing = False
        response = await self._response()
        reply = response.line
        if response.status == b"NO":
            self.concerns += (
                f"answers XCLIENT with {replyCode(reply)} and does not learn the addresses of clients:"
                " list the gateway in its login_trusted_networks",
            )
        elif response.status != b"OK":
            raise BackendError(f"answers XCLIENT with {replyCode(reply)}", reply)

    async def probed(self) -> None:
        self.send(b"CAPABILITY")
        await self._list("answers CAPABILITY")

    async def farewell(self) -> None:
        self.send(b"LOGOUT")
        await self._response()


def _string(text: bytes) -> bytes:
    """Return C{text} as a client sends it: a quoted string, or a literal, which needs no go-ahead (RFC 5804)."""
    return b'"' + text + b'"' if isQuotable(text) else b"{%d+}\r\n%b" % (len(text), text)
