"""
ManageSieve (RFC 5804) up to the login, as a protocol that one file adds: its dialogue, its settings, its record.

The registry does not know it. The login at the backend is a sketch. Its name and its port are not those of ManageSieve,
so that a protocol of the product may use them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from attrs import frozen

from mailgate.backend.client import ProxyClient
from mailgate.backend.errors import BackendError
from mailgate.directives import bufferSize, capabilities, directive, words
from mailgate.directives.needs import Need, protocol
from mailgate.frontend.capabilities import announced
from mailgate.frontend.dialogue import ProxyServer
from mailgate.frontend.goodbyes import goodbyes
from mailgate.frontend.mechanisms import (
    Cancelled,
    InitialResponse,
    InvalidResponse,
    NotBase64,
    loginMethods,
    mechanismNames,
)
from mailgate.frontend.protocol import Command, MailProtocol
from mailgate.frontend.text import acceptableText, literalAt, quotedAt
from mailgate.login import Denial, Method, Trouble
from mailgate.session import Outcome, Phase

__all__ = ["SIEVE", "SieveServer", "SieveSettings"]


_AUTH_WORDS = ("plain", "login", "cram-md5", "external", "xoauth2", "oauthbearer")


@frozen
class SieveSettings:
    """The directives."""

    needs: ClassVar[tuple[Need, ...]] = (protocol("scratchsieve"),)

    auth: tuple[str, ...] = directive("scratchsieve_auth", words(*_AUTH_WORDS), ("plain",))
    capabilities: tuple[str, ...] = directive("scratchsieve_capabilities", capabilities(), ("SIEVE fileinto vacation",))
    clientBuffer: int = directive("scratchsieve_client_buffer", bufferSize, 4096)

    @property
    def mechanisms(self) -> tuple[bytes, ...]:
        """The names of the SASL mechanisms."""
        return mechanismNames(self.auth)

    @property
    def methods(self) -> frozenset[Method]:
        """The login methods that the gateway offers."""
        return loginMethods(self.auth)


class SyntaxProblem(Exception):
    """The input is not a list of strings."""


class SieveServer(ProxyServer):
    """The dialogue with a client before login."""

    settings: SieveSettings
    wording = {
        Trouble.DENIED: b'NO "Authentication failed"',
        Trouble.UNAUTHORIZED: b'NO "Not authorized to log in as another user"',
        Trouble.TEMPORARY: b'NO (TRYLATER) "Temporary authentication failure, try again later"',
        Trouble.PERMANENT: b'NO "The server refuses this login, contact its administrator"',
        **goodbyes(b'BYE "%(text)b"'),
    }
    unsupported = b'NO "Unsupported authentication mechanism"'
    exchangeWording = {
        Cancelled: b'NO "Authentication cancelled"',
        NotBase64: b'NO "Invalid base64 data"',
        InitialResponse: b'NO "No initial response is taken by this mechanism"',
        InvalidResponse: b'NO "Invalid authentication response"',
    }

    _word = b""
    _strings: list[bytes] | None = None
    """The strings of the incomplete command or response."""
    _used = 0

    @property
    def isMidway(self) -> bool:
        return self._strings is not None or super().isMidway

    def lineLimit(self) -> int:
        return self.settings.clientBuffer - self._used

    def capabilities(self, offers: Sequence[bytes]) -> list[bytes]:
        mechanisms = () if self.needsTLS else self.settings.mechanisms
        lines = [b'"IMPLEMENTATION" "mailgate"', b'"SASL" "' + b" ".join(mechanisms) + b'"']
        lines += [b'"%b" "%b"' % tuple(offer.split(b" ", 1)) for offer in offers]
        if self.offersTLS:
            lines.append(b'"STARTTLS"')
        return [*lines, b'"VERSION" "1.0"']

    def _tell(self, text: bytes) -> None:
        """Send the capabilities, then C{text}."""
        lines = self.capabilities(announced(self.factory.record, self.settings.capabilities))
        self.transport.write(b"".join(line + b"\r\n" for line in lines) + b'OK "' + text + b'"\r\n')

    def greet(self) -> None:
        self._tell(b"ManageSieve ready")
        self.session.enter(Phase.COMMAND)

    def secured(self) -> None:
        if not self.factory.address.ssl:
            self._tell(b"TLS negotiation successful")

    def forget(self) -> None:
        self._strings = None
        self._used = 0

    def reply(self, text: bytes) -> None:
        self.transport.write(text + b"\r\n" + self.takeParting())

    def invalid(self) -> None:
        self.reply(b'NO "Invalid command"')

    def refuse(self, denial: Denial) -> None:
        text = acceptableText(denial)
        shown = None if text is None else text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        self.reply(denial.answer or (self.wording[denial.trouble] if shown is None else b'NO "' + shown + b'"'))

    def challenge(self, step: bytes) -> None:
        self.transport.write(b'"' + step + b'"\r\n')

    def response(self, line: bytes) -> None:
        self._read(line if self._strings is not None else b" " + line)

    def garbled(self, line: bytes) -> None:
        self.forget()
        self._refuse(line)

    def commandReceived(self, line: bytes) -> None:
        if self._strings is None:
            word, blank, rest = line.partition(b" ")
            self._word, line = word.upper(), blank + rest
        self._read(line)

    def literalReceived(self, octets: bytes) -> None:
        assert self._strings is not None
        self._used += len(octets)
        self._strings.append(octets)

    def _read(self, line: bytes) -> None:
        """Take C{line}, or the rest of one after a literal. At its end obey the command or take the response."""
        if self._strings is None:
            self._strings = []
        try:
            isWhole = self._take(line, self._strings)
        except SyntaxProblem:
            isWhole, self._strings = True, None
        if not isWhole:
            return
        strings = self._strings
        self.forget()
        if self.session.phase is Phase.CHALLENGE and not (strings is None and line.endswith(b"}")):
            # Anything but a string is not base64 either.
            self.respond(strings[0] if strings and len(strings) == 1 else b"\0")
        elif strings is None or self._word not in self.commands:
            self._refuse(line)
        elif self.countCommand():
            self._obey(self.commands[self._word], strings)

    def _take(self, line: bytes, strings: list[bytes]) -> bool:
        """Add the strings of C{line}. Return whether the command is complete."""
        position = 0
        while position < len(line):
            if line[position : position + 1] != b" ":
                raise SyntaxProblem
            found = quotedAt(line, position + 1)
            if found is None:
                literal = literalAt(line, position + 1)
                if literal is None or self._used + literal.octets + 2 > self.settings.clientBuffer:
                    raise SyntaxProblem
                self._used += len(line) + 2
                self.expectLiteral(literal.octets)
                return False
            strings.append(found[0])
            position = found[1]
        return True

    def _refuse(self, line: bytes) -> None:
        isEndless = line.endswith(b"}")
        if isEndless:
            # The client sends the literal without waiting. Its bytes must not be parsed as commands.
            self.lastReply(Trouble.ENDLESS)
        self.spoilt()
        if isEndless:
            self.end(Outcome.ERRORS)

    def _obey(self, command: Command, strings: list[bytes]) -> None:
        if self.needsTLS and not command.inClear:
            self.reply(b'NO (ENCRYPT-NEEDED) "Use STARTTLS first"')
        else:
            command.act(self, strings)

    def _doAUTHENTICATE(self, strings: list[bytes]) -> None:
        if 1 <= len(strings) <= 2:
            self.authenticate(*strings)
        else:
            self.invalid()

    def _doSTARTTLS(self, strings: list[bytes]) -> None:
        if self.offersTLS:
            self.startTLS(b'OK "Begin TLS negotiation now"\r\n')
        else:
            self.reply(b'NO "STARTTLS is not offered here"' if self.inClear else b'NO "TLS is active already"')

    def _doCAPABILITY(self, strings: list[bytes]) -> None:
        self._tell(b"Capability completed")

    def _doNOOP(self, strings: list[bytes]) -> None:
        self.reply(b'OK (TAG "%b") "Done"' % strings[0] if strings else b'OK "Done"')

    def _doLOGOUT(self, strings: list[bytes]) -> None:
        self.end(Outcome.QUIT, b'OK "Logout completed"\r\n')

    commands = {
        b"AUTHENTICATE": Command(_doAUTHENTICATE, inClear=False),
        b"STARTTLS": Command(_doSTARTTLS),
        b"CAPABILITY": Command(_doCAPABILITY),
        b"NOOP": Command(_doNOOP),
        b"LOGOUT": Command(_doLOGOUT),
    }


class SieveClient(ProxyClient):
    """The login at a backend."""

    async def greeted(self) -> None:
        while not (line := await self.line()).startswith(b"OK"):
            if not line.startswith(b'"'):
                raise BackendError("greets otherwise", line)

    async def requestTLS(self) -> None:
        self.send(b"STARTTLS")
        if not (reply := await self.line()).startswith(b"OK"):
            raise BackendError("refuses STARTTLS", reply)

    async def probed(self) -> None:
        self.send(b"NOOP")
        if not (reply := await self.line()).startswith(b"OK"):
            raise BackendError("answers NOOP otherwise", reply)

    async def farewell(self) -> None:
        self.send(b"LOGOUT")
        await self.line()

    async def authenticate(self, *details: Any) -> None:
        raise BackendError("is no backend that a sketch logs in at")


SIEVE = MailProtocol(
    "scratchsieve",
    (24190,),
    SieveServer,
    SieveClient,
    SieveSettings,
    alpn="managesieve",
    own=("IMPLEMENTATION", "SASL", "STARTTLS", "VERSION"),
    unkept=("UNAUTHENTICATE", "XCLIENT"),
)
