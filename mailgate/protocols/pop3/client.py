# -*- test-case-name: mailgate.test.backend.test_login -*-
"""
The login at a POP3 backend (RFC 1939; AUTH of RFC 5034, Dovecot's XCLIENT).
"""

from __future__ import annotations

from mailgate.backend.client import ProxyClient
from mailgate.backend.credentials import BackendCredentials
from mailgate.backend.errors import BackendError, Cause, LoginRefused, Unauthorizing, beginsWith, replyCode
from mailgate.backend.hops import POP3_GREETING, noopWithHops
from mailgate.backend.identity import LEFT_OUT, carriesAll, xclientCommand
from mailgate.backend.mechanisms import AnyMechanism, mechanismFor
from mailgate.backend.reply import pop3Denial
from mailgate.backend.scram import ScramMechanism
from mailgate.login import LoginRequest

__all__ = ["POP3Client"]


def isChallenge(reply: bytes) -> bool:
    """Whether C{reply} asks for the next message of an exchange."""
    return reply.startswith(b"+") and not reply.startswith(b"+OK")


class POP3Client(ProxyClient):
    """
    Logs in at a backend by USER and PASS. If the greeting has Dovecot's response code XCLIENT, it sends XCLIENT first.
    With STLS the greeting arrives in the clear; XCLIENT itself goes over TLS.
    """

    _takesXCLIENT = False

    async def greeted(self) -> None:
        greeting = await self.line()
        if not beginsWith(greeting, b"+OK"):
            # A server that is full greets with -ERR.
            isFull = greeting.startswith(b"-ERR")
            cause: Cause = "error" if isFull else "invalid_response"
            message = f"greets with {replyCode(greeting)}"
            raise BackendError(message, greeting, isQuoted=True, counts=not isFull, cause=cause)
        self.greetsAsWe = self.isGateway = POP3_GREETING.fullmatch(greeting) is not None
        self._takesXCLIENT = self.caller.tellsByCommand and greeting[:13].upper() == b"+OK [XCLIENT]"

    async def requestTLS(self) -> None:
        self.send(b"STLS")
        reply = await self.line()
        if not beginsWith(reply, b"+OK"):
            message = f"refuses STLS with {replyCode(reply)}"
            raise BackendError(message, reply, isQuoted=True, counts=False, cause="tls")

    async def offered(self) -> tuple[bytes, ...]:
        self.send(b"CAPA")
        reply = await self.line()
        if not beginsWith(reply, b"+OK"):
            # Servers of RFC 1939 do not have the command. What they offer is not known.
            isRefused = reply.startswith(b"-ERR")
            raise BackendError(f"answers CAPA with {replyCode(reply)}", reply, isQuoted=True, counts=not isRefused)
        lines: list[bytes] = []
        length = 0
        while (line := (await self.line()).rstrip(b"\r\n")) != b".":
            length += len(line) + 2
            if length > self.limit:
                raise BackendError("sent a list of capabilities longer than proxy_buffer")
            # A line that begins with a dot has another dot before it (RFC 1939, section 3).
            lines.append(line[1:] if line.startswith(b".") else line)
        return tuple(filter(None, lines))

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
        method = credentials.method
        if method == "login" and credentials.authzid:
            raise Unauthorizing("USER has no place for an authorization identity")
        if method not in ("auto", "login") or credentials.authzid:
            await self._exchange(mechanismFor(method, credentials, self.backend, self.caller.reactor), credentials)
            return
        for command in (b"USER " + credentials.user, b"PASS " + credentials.knownPassword):
            self.sendLogin(command)
            self._accepted(await self._answer(), credentials)

    async def _countHops(self, request: LoginRequest) -> None:
        """
        Tell another gateway how many hops are left; see L{mailgate.backend.hops}.

        @raise BackendError: it does not answer that, or has taken a PROXY header for the command.
        """
        self.send(noopWithHops(self.hopsLeft(request)))
        reply = await self.line()
        if not beginsWith(reply, b"+OK") and (self.caller.hasHeader or not reply.startswith(b"-ERR")):
            raise BackendError(f"answers NOOP with {replyCode(reply)}", reply, isQuoted=True)

    async def _exchange(self, mechanism: AnyMechanism, credentials: BackendCredentials) -> None:
        """AUTH (RFC 5034), without an initial response, which not every server takes."""
        command = b"AUTH " + mechanism.name
        self.sendLogin(command)
        reply = await self._answer()
        if not isChallenge(reply):
            said = f"answers {command.decode()} with {replyCode(reply)}"
            # It is a matter of configuration: a rest of the server would not help.
            raise Unauthorizing(said, reply) if credentials.authzid else BackendError(said, reply, counts=False)
        self.send(mechanism.message)
        reply = await self.line()
        if isChallenge(reply) and mechanism.rejoinder is not None:
            # It explains a refusal, which follows.
            self.send(mechanism.rejoinder)
            reply = await self.line()
        if isinstance(mechanism, ScramMechanism):
            while isChallenge(reply):
                self.send(await mechanism.answer(reply[1:].strip()))
                reply = await self.line()
        self._accepted(reply, credentials)
        if isinstance(mechanism, ScramMechanism):
            mechanism.conclude()

    async def _answer(self) -> bytes:
        """Read and return the next reply. The reply to XCLIENT is read first and not returned."""
        if self.isIntroducing:
            await self.introduced()
        return self.takeLine() or await self.line()

    def _accepted(self, reply: bytes, credentials: BackendCredentials) -> None:
        if reply.startswith(b"-ERR"):
            raise LoginRefused(reply, pop3Denial(reply, credentials))
        if not beginsWith(reply, b"+OK"):
            raise BackendError(f"answers the login with {replyCode(reply)}", reply)
        self.reply = reply

    async def introduced(self) -> None:
        self.isIntroducing = False
        reply = await self.line()
        if reply.startswith(b"-ERR"):
            self.concerns = (
                f"answers XCLIENT with {replyCode(reply)} and does not learn the addresses of clients:"
                " list the gateway in its login_trusted_networks",
            )
        elif not beginsWith(reply, b"+OK"):
            raise BackendError(f"answers XCLIENT with {replyCode(reply)}", reply)

    async def probed(self) -> None:
        # Not every server knows CAPA (RFC 2449), or another command before a login. A refusal is an answer.
        self.send(b"CAPA")
        reply = line = await self.line()
        if reply.startswith(b"-ERR"):
            return
        if not beginsWith(reply, b"+OK"):
            raise BackendError(f"answers CAPA with {replyCode(reply)}", reply, isQuoted=True)
        received = 0
        while line.rstrip(b"\r\n") != b".":
            line = await self.line()
            received += len(line)
            if received > self.limit:
                raise BackendError("sent a reply longer than proxy_buffer")

    async def farewell(self) -> None:
        self.send(b"QUIT")
        await self.line()
