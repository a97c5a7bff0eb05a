# -*- test-case-name: mailgate.test.protocols.pop3.test_pop3 -*-
"""
The POP3 dialogue before login (RFC 1939, 2449, 5034; STLS of RFC 2595). The replies are nginx's, except those in
docs/differences.rst.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailgate.backend.hops import hopsAfter
from mailgate.frontend.dialogue import ProxyServer
from mailgate.frontend.disclosure import disclosed
from mailgate.frontend.goodbyes import goodbyes, limitGoodbyes, limitReplies
from mailgate.frontend.mechanisms import Cancelled, InitialResponse, InvalidResponse, NotBase64, TooLongResponse
from mailgate.frontend.protocol import Command
from mailgate.frontend.text import acceptableText, splitArguments
from mailgate.login import Credentials, Denial, Method, Trouble
from mailgate.protocols.pop3.settings import POP3Settings
from mailgate.session import Outcome, Phase

__all__ = ["POP3Server"]

_MOST_ARGUMENTS = 3


_LOGIN = frozenset((b"USER", b"PASS", b"APOP", b"AUTH"))


_LATER = frozenset((b"STAT", b"LIST", b"RETR", b"DELE", b"RSET", b"TOP", b"UIDL", b"LAST"))
"""Commands that are valid only after the login. Clients that pipeline send them behind a login that then fails."""


class POP3Server(ProxyServer):
    """The dialogue with a POP3 client before login."""

    ok = b"+OK\r\n"
    settings: POP3Settings
    wording = {
        Trouble.DENIED: b"-ERR [AUTH] Authentication failed",
        Trouble.UNAUTHORIZED: b"-ERR [AUTH] Not authorized to log in as another user",
        Trouble.TEMPORARY: b"-ERR [SYS/TEMP] Temporary authentication failure, try again later",
        Trouble.PERMANENT: b"-ERR [SYS/PERM] The server refuses this login, contact its administrator",
        **goodbyes(b"-ERR %(text)b"),
        Trouble.INTERNAL: b"-ERR [SYS/TEMP] Internal server error, closing connection",
        Trouble.STOPPING: b"-ERR [SYS/TEMP] Gateway is shutting down, closing connection",
        **limitReplies(b"-ERR [SYS/TEMP] Try again later"),
        Trouble.SESSIONS: b"-ERR [IN-USE] Too many sessions",
        Trouble.TOO_FAST: b"-ERR [LOGIN-DELAY] Try again later",
    }
    limitWording = limitGoodbyes(b"-ERR [SYS/TEMP] %b")

    unsupported = b"-ERR Unsupported authentication mechanism"
    exchangeWording = {
        Cancelled: b"-ERR Authentication cancelled",
        NotBase64: b"-ERR Invalid base64 data",
        InitialResponse: b"-ERR No initial response is taken by this mechanism",
        InvalidResponse: b"-ERR Invalid authentication response",
        TooLongResponse: b"-ERR Authentication response is too long",
    }

    _user: bytes | None = None
    """The user name from USER until PASS arrives, otherwise L{None}."""

    def greet(self) -> None:
        salted = {"apop", "cram-md5"}.intersection(self.settings.auth)
        self.transport.write(b"+OK POP3 ready" + (b" " + self.salt if salted else b"") + b"\r\n")
        self.session.enter(Phase.COMMAND)

    def reply(self, text: bytes) -> None:
        """Send the line C{text}."""
        self.transport.write(text + b"\r\n")

    def invalid(self) -> None:
        self._dismiss(b"-ERR invalid command")

    def _dismiss(self, text: bytes) -> None:
        """Refuse a command. After USER, the client must send USER again."""
        self._user = None
        self.reply(text)

    def farewell(self, trouble: Trouble) -> bytes:
        # POP3 has no untagged goodbye: each line answers a command (RFC 1939, section 3).
        return b""

    def refuse(self, denial: Denial) -> None:
        text = acceptableText(denial)
        line = denial.answer or (self.wording[denial.trouble] if text is None else b"-ERR " + text)
        if denial.refusesCredentials and not line.startswith(b"-ERR [") and self._tellsCodes:
            line = line.replace(b"-ERR", b"-ERR [AUTH]", 1)
        self.reply(line)

    @property
    def _tellsCodes(self) -> bool:
        """Whether the gateway announces AUTH-RESP-CODE: each refusal of credentials then has [AUTH] (RFC 3206)."""
        return b"AUTH-RESP-CODE" in map(bytes.upper, self.factory.announcement.words)

    def capabilities(self, offers: Sequence[bytes]) -> list[bytes]:
        awaitingPass = self._user is not None
        hidden = self.needsTLS and not awaitingPass
        usesNames = self._takesPasswords() and not hidden
        lines = [line for line in offers if usesNames or line.upper() != b"USER"]
        if not hidden:
            lines.append(b" ".join((b"SASL", *self.mechanisms)))
        if self.offersTLS and not awaitingPass:
            lines.append(b"STLS")
        return lines

    def isCommand(self, line: bytes) -> bool:
        return super().isCommand(line) or line.partition(b" ")[0].upper() in _LATER

    def forget(self) -> None:
        self._user = None

    def disclosed(self, line: bytes) -> bytes:
        return disclosed(line, (*self.commands, b"PASS", *_LATER))

    def commandReceived(self, line: bytes) -> None:
        word, _, rest = line.partition(b" ")
        word = word.upper()
        if not self._isCommand(word, rest):
            self.spoilt()
            return
        if not self.countCommand():
            return
        command = (self.commands if self._user is None else self.commandsAwaitingPass).get(word)
        # Known commands at the wrong moment do not count as invalid commands.
        if word in _LATER:
            self._dismiss(b"-ERR Log in first")
        elif self.needsTLS and word in _LOGIN:
            self._dismiss(b"-ERR Use STLS first")
        elif command is not None:
            command.act(self, rest)
        elif word == b"PASS":
            self._dismiss(b"-ERR Send USER first")
        else:
            self.invalid()

    def _isCommand(self, word: bytes, rest: bytes) -> bool:
        if word in (b"USER", b"PASS") or word in _LATER:
            return True
        return word in self.commands and len(splitArguments(rest)) <= _MOST_ARGUMENTS

    def _takesPasswords(self) -> bool:
        return "plain" in self.settings.auth or self.dialogue.unlistedAuth

    def _doUSER(self, rest: bytes) -> None:
        if not self._takesPasswords():
            self.reply(b"-ERR USER is disabled, use AUTH or APOP")
        elif rest.strip(b" "):
            self._user = rest
            self.transport.write(self.ok)
        else:
            self.invalid()

    def _doPASS(self, rest: bytes) -> None:
        # Blanks may be part of a password (RFC 1939, section 7) and, with Dovecot, of a user name.
        user, self._user = self._user, None
        assert user is not None
        if rest:
            self.login(Credentials(Method.PLAIN, user, rest))
        else:
            self.invalid()

    def _doAPOP(self, rest: bytes) -> None:
        arguments = splitArguments(rest)
        if "apop" not in self.settings.auth:
            self.reply(b"-ERR APOP is disabled")
        elif len(arguments) != 2:
            self.invalid()
        else:
            self.login(Credentials(Method.APOP, arguments[0], arguments[1], self.salt))

    def _doAUTH(self, rest: bytes) -> None:
        arguments = splitArguments(rest)
        if not arguments:
            names = b"".join(name + b"\r\n" for name in self.mechanisms)
            self.transport.write(b"+OK methods supported:\r\n" + names + b".\r\n")
        elif len(arguments) > 2:
            self.invalid()
        else:
            self.authenticate(*arguments)

    def _doCAPA(self, rest: bytes) -> None:
        lines = self.capabilities(self.factory.announcement.words)
        self.transport.write(b"\r\n".join((b"+OK Capability list follows", *lines, b".", b"")))

    def _doNOOP(self, rest: bytes) -> None:
        self.lowerHops(hopsAfter(rest))
        self.transport.write(self.ok)

    def _doQUIT(self, rest: bytes) -> None:
        self.end(Outcome.QUIT, self.ok)

    def _doSTLS(self, rest: bytes) -> None:
        if self.offersTLS:
            self.startTLS(self.ok)
        elif self.inClear:
            self.reply(b"-ERR STLS is not offered here")
        else:
            self.reply(b"-ERR TLS is active already")

    commands = {
        b"CAPA": Command(_doCAPA),
        b"NOOP": Command(_doNOOP),
        b"QUIT": Command(_doQUIT),
        b"STLS": Command(_doSTLS),
        b"USER": Command(_doUSER, inClear=False),
        b"APOP": Command(_doAPOP, inClear=False),
        b"AUTH": Command(_doAUTH, inClear=False),
    }
    commandsAwaitingPass = {
        b"PASS": Command(_doPASS, inClear=False),
        b"CAPA": Command(_doCAPA),
        b"NOOP": Command(_doNOOP),
        b"QUIT": Command(_doQUIT),
    }
