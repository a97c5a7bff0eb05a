# -*- test-case-name: mailgate.test.frontend.test_exchange -*-
"""
SASL (RFC 4422) in a dialogue before login, the same for every protocol: which mechanisms are taken, challenges and
responses in base64, and the challenge by which a refused OAuth client is told why.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import evolve

from mailgate.frontend.framing import CommandReader
from mailgate.frontend.mechanisms import (
    MECHANISMS,
    UNLISTED,
    Cancelled,
    InvalidResponse,
    Mechanism,
    RefusedOAuth,
    decodeBase64,
)
from mailgate.frontend.protocol import DialogueSettings
from mailgate.log.connection import RESPONSE_REFUSED, about
from mailgate.log.journal import Journal
from mailgate.login import Credentials, Denial, Method
from mailgate.session import Phase, Session

if TYPE_CHECKING:
    from mailgate.frontend.factory import ProxyServerFactory

__all__ = ["SASLServer"]


class SASLServer(CommandReader):
    """
    The server's side of an exchange. It begins with L{authenticate}, goes on while the phase is CHALLENGE, and ends in
    L{login}, or in words that say why it failed and the phase COMMAND.
    """

    unsupported: ClassVar[bytes]
    """What is said of a mechanism that is not offered, without the line end; in IMAP without the tag."""
    exchangeWording: ClassVar[Mapping[type[InvalidResponse], bytes]]
    """What is said of each way in which an exchange fails."""

    challengePrefix: ClassVar[bytes] = b"+ "
    settings: Any
    dialogue: DialogueSettings
    session: Session
    factory: ProxyServerFactory
    clock: Any
    _journal: Journal
    _mechanismName = ""

    def __init__(self) -> None:
        super().__init__()
        self._salt: bytes | None = None
        self._mechanism: Mechanism | RefusedOAuth | None = None

    def reply(self, text: bytes) -> None:
        """Answer with the line C{text}, in IMAP with the tag before it."""
        raise NotImplementedError

    def login(self, credentials: Credentials) -> None:
        """Have C{credentials} judged."""
        raise NotImplementedError

    def deny(self, denial: Denial) -> None:
        """Tell the client of C{denial}, and end the connection or go on."""
        raise NotImplementedError

    @property
    def mechanisms(self) -> tuple[bytes, ...]:
        """The SASL mechanisms that this server is configured to offer."""
        offered: tuple[bytes, ...] = self.settings.mechanisms
        return offered

    @property
    def salt(self) -> bytes:
        """The challenge C{<random.time@server_name>} of the digest methods, the same throughout a connection."""
        if self._salt is None:
            nonce = int.from_bytes(self.factory.randomness(8), "big")
            self._salt = f"<{nonce}.{int(self.clock.seconds())}@{self.dialogue.serverName}>".encode()
        return self._salt

    def authenticate(self, name: bytes, initial: bytes | None = None) -> None:
        """Begin the exchange of mechanism C{name}, C{initial} being the initial response in base64 or L{None}."""
        name = name.upper()
        make = MECHANISMS.get(name)
        if make is None or not self._takes(name):
            self.reply(self.unsupported)
            return
        mechanism = make(lambda: self.salt)
        self._mechanism, self._mechanismName = mechanism, name.decode("ascii")
        try:
            self._challenge(mechanism.start(None if initial is None else decodeBase64(initial)))
        except InvalidResponse as error:
            self._spoiltExchange(error)

    def _takes(self, name: bytes) -> bool:
        return name in self.mechanisms or (self.dialogue.unlistedAuth and name in UNLISTED)

    def responseReceived(self, line: bytes) -> None:
        """Take the client's answer to the last challenge: of C{line}, as in nginx, the first word."""
        mechanism, word = self._mechanism, line.partition(b" ")[0]
        assert mechanism is not None
        if isinstance(mechanism, RefusedOAuth):
            self._mechanism = None
            self.deny(mechanism.denial)
            return
        try:
            if word == b"*":
                raise Cancelled('the cancelling "*"')
            step = mechanism.respond(decodeBase64(word))
        except InvalidResponse as error:
            self._spoiltExchange(error)
        else:
            self._challenge(step)

    def explain(self, method: Method, denial: Denial) -> bool:
        """
        Send the challenge of C{denial}, which comes to L{deny} when the client has answered it. Gives whether there is
        one; other C{method}s than OAuth's have no room for it.
        """
        if not (denial.challenge and method.isOAuth):
            return False
        try:
            refused = RefusedOAuth(denial)
        except InvalidResponse:
            return False
        self._mechanism = refused
        self._challenge(refused.challenge)
        return True

    def _challenge(self, step: bytes | Credentials) -> None:
        if isinstance(step, bytes):
            self.session.enter(Phase.CHALLENGE)
            self.transport.write(self.challengePrefix + base64.b64encode(step) + b"\r\n")
            return
        self._mechanism = None
        if step.authzid and self.dialogue.authzid == "ignore":
            step = evolve(step, authzid=b"")
        self.login(step)

    def _spoiltExchange(self, error: InvalidResponse) -> None:
        self._mechanism = None
        journal = self._journal
        journal.info(RESPONSE_REFUSED, **about(self.session), reason=str(error), mechanism=self._mechanismName)
        self.session.enter(Phase.COMMAND)
        self.reply(self.exchangeWording[type(error)])
