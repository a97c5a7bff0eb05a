# -*- test-case-name: mailgate.test.protocols.smtp.test_smtp -*-
"""
The SMTP dialogue before the login or, under C{smtp_auth = none}, before the first recipient (RFC 5321; STARTTLS of RFC
3207, AUTH of RFC 4954). The replies are nginx's, except those in docs/differences.rst.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater

from mailgate.backend.client import ProxyClient
from mailgate.backend.hops import hopsAfter
from mailgate.frontend.dialogue import ProxyServer
from mailgate.frontend.disclosure import disclosed
from mailgate.frontend.goodbyes import goodbyes, limitGoodbyes, limitReplies
from mailgate.frontend.mechanisms import Cancelled, InitialResponse, InvalidResponse, NotBase64, TooLongResponse
from mailgate.frontend.protocol import Command
from mailgate.frontend.text import acceptableText, splitArguments
from mailgate.log.connection import COMMAND_REFUSED, about
from mailgate.log.journal import printable
from mailgate.login import Credentials, Denial, Envelope, Method, Trouble
from mailgate.protocols.smtp.capabilities import BEHIND_LOGIN, UNDER_TLS, without
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.session import Outcome, Phase

if TYPE_CHECKING:
    from mailgate.net.reversedns import ReverseDNS

__all__ = ["SMTPServer"]

_MOST_ARGUMENTS = 11


_LOGIN_FIRST = b"530 5.7.1 Authentication required"


_NAME = re.compile(rb"[\x21-\x7e\x80-\xff]+")


_CODE = re.compile(rb"[45][0-5][0-9](?: [45]\.[0-9]{1,3}\.[0-9]{1,3})?")


_CHUNK = re.compile(rb"[ \t]*BDAT(?![!-~])", re.IGNORECASE)


_CHUNK_SIZE = re.compile(rb"BDAT +([0-9]{1,20})( +LAST)? *", re.IGNORECASE)


_HELLO = re.compile(rb"[A-Za-z0-9.:_\[\]-]{1,255}")
_PATH = re.compile(rb"(?:FROM|TO):<[^<>]*>", re.IGNORECASE)


def _isHarmless(word: bytes, argument: bytes) -> bool:
    """Return whether the log may show C{argument}, the first one of C{word}: a host name, or an address of mail."""
    if word in (b"EHLO", b"HELO"):
        return _HELLO.fullmatch(argument) is not None
    return word in (b"MAIL", b"RCPT") and _PATH.fullmatch(argument) is not None


class SMTPServer(ProxyServer):
    """The dialogue with an SMTP client before login."""

    challengePrefix = b"334 "
    settings: SMTPSettings
    wording = {
        Trouble.DENIED: b"535 5.7.8 Authentication failed",
        Trouble.UNAUTHORIZED: b"535 5.7.8 Not authorized to log in as another user",
        Trouble.TEMPORARY: b"454 4.7.0 Temporary authentication failure",
        Trouble.PERMANENT: b"525 5.7.13 The server refuses this login, contact its administrator",
        **goodbyes(b"421 %(status)b %(text)b"),
        **limitReplies(b"454 4.7.0 Try again later"),
        Trouble.SESSIONS: b"454 4.7.0 Too many sessions",
    }
    limitWording = limitGoodbyes(b"%b")
    mostTooFast = 2
    wordingWithoutLogin = {
        **dict.fromkeys((Trouble.DENIED, Trouble.UNAUTHORIZED, Trouble.PERMANENT), b"550 5.7.1 Recipient refused"),
        Trouble.TEMPORARY: b"451 4.3.0 Temporary failure, try again later",
        **limitReplies(b"450 4.7.1 Try again later"),
        Trouble.SESSIONS: b"450 4.7.1 Too many sessions",
        Trouble.HELD: b"451 4.3.2 Try again later",
    }

    unsupported = b"504 5.5.4 Unsupported authentication mechanism"
    exchangeWording = {
        Cancelled: b"501 5.7.0 Authentication cancelled",
        NotBase64: b"501 5.5.2 Invalid base64 data",
        InitialResponse: b"501 5.7.0 No initial response is taken by this mechanism",
        InvalidResponse: b"501 5.5.4 Invalid authentication response",
        TooLongResponse: b"500 5.5.6 Authentication response is too long",
    }

    _helo = b""
    _extended = _chunks = False
    _mail: bytes | None = None
    _recipient = b""
    _unnamedSince: float | None = None
    _isDataRefused = False
    """Whether the last command was DATA."""

    @property
    def _name(self) -> bytes:
        return self.dialogue.serverName.encode()

    def greet(self) -> None:
        reverseDNS = self.factory.reverseDNS
        if reverseDNS is not None or self.settings.greetingDelay:
            self.session.enter(Phase.GREETING)
        if reverseDNS is None:
            self._greetInTime()
        else:
            self._askForName(reverseDNS)

    def _askForName(self, reverseDNS: ReverseDNS) -> None:
        """Look up the client's host name and delay the greeting until then. Input meanwhile stays in the buffer."""
        self._unnamedSince = self.clock.seconds()
        # The look-up has its own limit, but no wait may be without a deadline.
        self.allow(reverseDNS.longest + self.dialogue.timeout)
        self.pending = lookup = reverseDNS.nameOf(self._host)
        lookup.addCallbacks(self._named, lambda failure: failure.trap(CancelledError))

    def _named(self, name: str) -> None:
        assert self._unnamedSince is not None
        self.pending = None
        # The time of the look-up does not count against the client.
        self.giveBack(self.clock.seconds() - self._unnamedSince)
        self._unnamedSince = None
        self._clientName = name
        self._greetInTime()
        self.advance()

    def _greetInTime(self) -> None:
        delay = self.settings.greetingDelay
        if not delay:
            self._sayHello()
            return
        if self.buffer:
            self.receivedBeforeGreeting()
            return
        self.allow(delay + self.dialogue.timeout)
        self.pending = deferLater(self.clock, delay, self._greetLate)
        self.pending.addErrback(lambda failure: failure.trap(CancelledError))

    def _greetLate(self) -> None:
        self.pending = None
        self._sayHello()
        self.advance()

    def _sayHello(self) -> None:
        self.transport.write(b"220 " + self._name + b" ESMTP ready\r\n")
        self.session.enter(Phase.COMMAND)
        self.extend()

    def receivedBeforeGreeting(self) -> None:
        if self._unnamedSince is not None:
            return
        goodbye = self.farewell(Trouble.EARLY)
        self.end(Outcome.EARLY, b"503 5.5.0 Improper use of SMTP command pipelining\r\n" + goodbye)

    def reply(self, text: bytes) -> None:
        """Send C{text}, which is without its line end, and a pending goodbye."""
        self.transport.write(text + b"\r\n" + self.takeParting())

    def invalid(self) -> None:
        self.reply(b"500 5.5.1 Invalid command")

    def overflowed(self) -> None:
        if self.session.phase is Phase.CHALLENGE:
            self.reply(b"500 5.5.6 Authentication exchange line is too long")
        else:
            self.invalid()

    def refuse(self, denial: Denial) -> None:
        wording = self.wordingWithoutLogin if self._recipient else self.wording
        self._recipient = b""
        code = denial.code if denial.code and _CODE.fullmatch(denial.code) else None
        text = acceptableText(denial)
        if denial.answer:
            self.reply(denial.answer)
        elif denial.trouble is not Trouble.DENIED or (text is None and code is None):
            self.reply(wording[denial.trouble])
        else:
            self.reply((code or b"535 5.7.0") + b" " + (text or b"Authentication failed"))

    def goodbye(self, trouble: Trouble) -> bytes:
        text = self.limitWording.get(trouble)
        return super().goodbye(trouble) if text is None else b"421 4.7.0 " + self._name + b" " + text + b"\r\n"

    def accept(self, client: ProxyClient) -> bytes:
        return client.reply if self._recipient else b"235 2.0.0 OK\r\n"

    def capabilities(self, offers: Sequence[bytes]) -> list[bytes]:
        lines = list(offers)
        if (names := self.mechanisms) and not self.needsTLS:
            lines.append(b" ".join((b"AUTH", *names)))
        if self.offersTLS:
            lines.append(b"STARTTLS")
        return lines

    def envelope(self, method: Method) -> Envelope:
        if method is not Method.NONE:
            return Envelope(self._helo, self._extended, chunks=self._chunks)
        return Envelope(self._helo, self._extended, self._mail or b"", self._recipient)

    def forget(self) -> None:
        self._helo = b""
        self._extended = self._chunks = False
        self._mail = None

    def disclosed(self, line: bytes) -> bytes:
        return disclosed(line, (*self.commands, b"BDAT"), _isHarmless)

    def garbled(self, line: bytes) -> None:
        if _CHUNK.match(line):
            self._chunkReceived(line)
        elif self._isDataRefused:
            # The client did not wait for the reply to DATA. This is its message and must not be parsed as commands.
            self.lastReply(Trouble.ENDLESS)
            self.invalid()
            self.end(Outcome.ERRORS)
        else:
            self.spoilt()

    def commandReceived(self, line: bytes) -> None:
        line = line.rstrip(b" ")
        word, *arguments = splitArguments(line) or [b""]
        command = self.commands.get(word.upper())
        if command is None or line.startswith(b" ") or len(arguments) > _MOST_ARGUMENTS:
            self.garbled(line)
            return
        self._isDataRefused = word.upper() == b"DATA"
        if not self.countCommand():
            return
        if self.needsTLS and not command.inClear:
            self._refuseInClear()
        else:
            self._line = line
            command.act(self, arguments)

    def _chunkReceived(self, line: bytes) -> None:
        """
        Refuse BDAT (RFC 3030, section 2). First discard the chunk of a message behind it, which must not be parsed as
        commands. Without a valid size the end of the chunk is unknown, so the connection ends.
        """
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            self.end(Outcome.NO_SIZE, b"501 5.5.4 Invalid argument\r\n" + self.farewell(Trouble.ENDLESS))
        elif self.countCommand():
            if size[2]:
                # The message ends here, and its MAIL with it.
                self._mail = None
            self.discard(int(size[1]))

    def discarded(self) -> None:
        if self.needsTLS:
            self._refuseInClear()
        elif "none" in self.settings.auth:
            self.reply(b"503 5.5.1 Bad sequence of commands")
        else:
            self.reply(_LOGIN_FIRST)

    def _refuseInClear(self) -> None:
        self.reply(b"530 5.7.0 Must issue a STARTTLS command first")

    def _hello(self, arguments: list[bytes]) -> bool:
        if len(arguments) != 1 or not _NAME.fullmatch(arguments[0]):
            self.reply(b"501 5.5.4 Invalid argument")
            return False
        self._helo = arguments[0]
        self._mail = None
        return True

    def _doHELO(self, arguments: list[bytes]) -> None:
        if self._hello(arguments):
            self.reply(b"250 " + self._name)

    def _doEHLO(self, arguments: list[bytes]) -> None:
        if not self._hello(arguments):
            return
        self._extended = True
        offers = self._offers()
        self._chunks = self.factory.announcement.isLearned and b"CHUNKING" in offers
        lines = [self._name, *self.capabilities(offers)]
        last = lines.pop()
        self.reply(b"".join(b"250-" + line + b"\r\n" for line in lines) + b"250 " + last)

    def _offers(self) -> Sequence[bytes]:
        """Return the extensions that the backend keeps for this client. A list of the operator stays as it is."""
        announcement = self.factory.announcement
        offers: Sequence[bytes] = announcement.words
        if not announcement.isLearned:
            return offers
        if "none" in self.settings.auth or not announcement.isComplete:
            offers = without(BEHIND_LOGIN, offers)
        if self.inClear:
            offers = without(UNDER_TLS, offers)
        return offers

    def _doAUTH(self, arguments: list[bytes]) -> None:
        if not (self.settings.mechanisms or self.dialogue.unlistedAuth):
            self.reply(b"502 5.5.1 Authentication is not offered here")
        elif not 1 <= len(arguments) <= 2:
            self.reply(b"501 5.5.4 Invalid argument")
        else:
            self.authenticate(*arguments)

    def _doSTARTTLS(self, arguments: list[bytes]) -> None:
        if self.offersTLS:
            self.startTLS(b"220 2.0.0 Start TLS\r\n")
        elif self.inClear:
            self.reply(b"502 5.5.1 STARTTLS is not offered here")
        else:
            self.reply(b"503 5.5.1 TLS is active already")

    def _doMAIL(self, arguments: list[bytes]) -> None:
        if "none" not in self.settings.auth:
            if self.journal.wantsInfo:
                fields = {**about(self.session), "command": printable(self._line)}
                self.journal.info(COMMAND_REFUSED, reason="MAIL before a login", **fields)
            self.reply(_LOGIN_FIRST)
        elif self._mail is not None:
            self.reply(b"503 5.5.1 Bad sequence of commands")
        elif not arguments:
            self.reply(b"501 5.5.4 Invalid argument")
        else:
            self._mail = self._line
            self._done()

    def _doRCPT(self, arguments: list[bytes]) -> None:
        if self._mail is None:
            self.reply(b"503 5.5.1 Bad sequence of commands")
        elif not arguments:
            self.reply(b"501 5.5.4 Invalid argument")
        else:
            self._recipient = self._line
            self.login(Credentials(Method.NONE))

    def _doRSET(self, arguments: list[bytes]) -> None:
        self._mail = None
        self._done()

    def _doNOOP(self, arguments: list[bytes]) -> None:
        for argument in arguments:
            self.lowerHops(hopsAfter(argument))
        self._done()

    def _done(self) -> None:
        self.reply(b"250 2.0.0 OK")

    def _doQUIT(self, arguments: list[bytes]) -> None:
        self.end(Outcome.QUIT, b"221 2.0.0 Bye\r\n")

    def _doDATA(self, arguments: list[bytes]) -> None:
        """Refuse DATA or BURL (RFC 4468): a message without an accepted recipient."""
        if "none" not in self.settings.auth:
            self.reply(_LOGIN_FIRST)
        elif self._mail is None:
            self.reply(b"503 5.5.1 Bad sequence of commands")
        else:
            self.reply(b"554 5.5.1 No valid recipients")

    def _doVRFY(self, arguments: list[bytes]) -> None:
        if "none" in self.settings.auth:
            self.reply(b"252 2.5.2 Cannot verify the user, try RCPT")
        else:
            self.reply(_LOGIN_FIRST)

    def _doOthers(self, arguments: list[bytes]) -> None:
        """Refuse commands that some backends have and that no mail needs."""
        if "none" in self.settings.auth:
            self._notImplemented(arguments)
        else:
            self.reply(_LOGIN_FIRST)

    def _notImplemented(self, arguments: list[bytes]) -> None:
        self.reply(b"502 5.5.1 Command not implemented")

    commands = {
        b"HELO": Command(_doHELO),
        b"EHLO": Command(_doEHLO),
        b"STARTTLS": Command(_doSTARTTLS),
        b"AUTH": Command(_doAUTH, inClear=False),
        b"MAIL": Command(_doMAIL, inClear=False),
        b"RCPT": Command(_doRCPT, inClear=False),
        b"RSET": Command(_doRSET),
        b"NOOP": Command(_doNOOP),
        b"DATA": Command(_doDATA, inClear=False),
        b"BURL": Command(_doDATA, inClear=False),
        b"VRFY": Command(_doVRFY, inClear=False),
        **dict.fromkeys((b"EXPN", b"ETRN", b"ATRN", b"TURN"), Command(_doOthers, inClear=False)),
        **dict.fromkeys((b"SEND", b"SOML", b"SAML"), Command(_doOthers, inClear=False)),
        b"HELP": Command(_notImplemented),
        b"QUIT": Command(_doQUIT),
    }
