# -*- test-case-name: mailgate.test.sandbox.test_managesieve -*-
"""
The ManageSieve server of the sandbox (RFC 5804), for the scripts of L{mailgate.sandbox.scripts}.

C{AUTHENTICATE} accepts PLAIN and LOGIN. After the login the capabilities also have C{OWNER}. Without TLS, as the other
servers of the sandbox.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Any

from twisted.cred.credentials import UsernamePassword
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.sandbox.scripts import EXTENSIONS, LARGEST_SCRIPT, IScripts, ScriptRefused, Scripts

__all__ = ["SandboxManageSieve", "Word", "quoted"]

_LONGEST_LINE = 8192
_MOST_ARGUMENTS = 4
_TIMEOUT = 300
_TOKEN = re.compile(
    rb' *(?:"(?P<quoted>(?:[^"\\\r\n\0]|\\["\\])*)"(?=[ \r]|\Z)|\{(?P<size>[0-9]{1,10})\+?\}\Z|(?P<word>[^\s"{}\\()]+))'
)
_ANNOUNCED = re.compile(rb"\{([0-9]{1,10})\+?\}\Z")


class Word(bytes):
    """A word of a command that is not a string, such as a number."""


class _Malformed(Exception):
    """A command that breaks the grammar."""


def quoted(text: str | bytes) -> bytes:
    """
    Write a string as RFC 5804 (section 4) does: quoted if it can be, else as a literal.

    @param text: the string.
    """
    raw = text.encode("utf-8") if isinstance(text, str) else text
    if len(raw) > 1024 or re.search(rb"[\r\n\0]", raw):
        return b"{%d}\r\n%b" % (len(raw), raw)
    return b'"' + re.sub(rb'(["\\])', rb"\\\1", raw) + b'"'


@implementer(IPushProducer)
class SandboxManageSieve(Protocol, TimeoutMixin):
    """
    One connection. The factory sets C{portal} and C{callLater}.

    It reads nothing while the client does not read its replies. A line has at most 8,192 bytes. A string that is longer
    than a script may be is read and dropped, and the command is refused.
    """

    portal: Any
    transport: Any
    noisy = False

    def __init__(self) -> None:
        self._user = ""
        self._scripts: Scripts | None = None
        self._buffer = bytearray()
        self._arguments: list[bytes] = []
        self._literal: int | None = None
        self._dropped = 0
        self._isTooLarge = False
        self._isMalformed = False
        self._isPaused = False
        self._isOver = False
        self._steps: list[Callable[[bytes], None]] = []

    def connectionMade(self) -> None:
        self.setTimeout(_TIMEOUT)
        self.transport.registerProducer(self, True)
        self._reply(b"OK", "mailgate sandbox ready.", self._capabilities())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.setTimeout(None)
        self._isOver = True
        self._scripts = None

    def timeoutConnection(self) -> None:
        """Say goodbye and close."""
        self._end(b"BYE", "Idle for too long.")

    # Back-pressure.

    def pauseProducing(self) -> None:
        self._isPaused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._isPaused = False
        self.transport.resumeProducing()
        self._work()

    def stopProducing(self) -> None:
        self._isOver = True

    # Reading.

    def dataReceived(self, data: bytes) -> None:
        if self._isOver:
            return
        self.resetTimeout()
        self._buffer += data
        self._work()

    def _work(self) -> None:
        while not (self._isPaused or self._isOver) and self._takeLiteral():
            line = self._takeLine()
            if line is None:
                return
            size = self._parse(line)
            if size is None:
                self._obey()
            elif size <= LARGEST_SCRIPT and not self._isMalformed:
                self._literal = size
            else:
                self._dropped = size
                self._isTooLarge = True
                self._arguments.append(b"")

    def _takeLiteral(self) -> bool:
        """Take what has arrived of a literal; return whether a line follows."""
        dropped = min(self._dropped, len(self._buffer))
        del self._buffer[:dropped]
        self._dropped -= dropped
        if self._dropped:
            return False
        if self._literal is not None:
            if len(self._buffer) < self._literal:
                return False
            self._arguments.append(bytes(self._buffer[: self._literal]))
            del self._buffer[: self._literal]
            self._literal = None
        return True

    def _takeLine(self) -> bytes | None:
        end = self._buffer.find(b"\n", 0, _LONGEST_LINE)
        if end < 0:
            if len(self._buffer) >= _LONGEST_LINE:
                self._end(b"BYE", "The line is too long.")
            return None
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        return line

    def _parse(self, line: bytes) -> int | None:
        """Add the words and strings of a line to the arguments; return the size of the literal that follows."""
        line = line.rstrip(b" ")
        position = 0
        while position < len(line):
            token = _TOKEN.match(line, position)
            if token is None or len(self._arguments) >= _MOST_ARGUMENTS:
                self._isMalformed = True
                # The literal must not be taken for commands.
                announced = _ANNOUNCED.search(line)
                return None if announced is None else int(announced[1])
            if token["size"] is not None:
                return int(token["size"])
            if token["quoted"] is not None:
                self._arguments.append(re.sub(rb"\\(.)", rb"\1", token["quoted"]))
            else:
                self._arguments.append(Word(token["word"]))
            position = token.end()
        return None

    def _obey(self) -> None:
        arguments, self._arguments = self._arguments, []
        isTooLarge, self._isTooLarge = self._isTooLarge, False
        malformed, self._isMalformed = self._isMalformed, False
        if self._steps:
            self._continue(arguments, malformed or isTooLarge)
            return
        if not arguments and not malformed:
            return  # an empty line, which clients may send
        if isTooLarge and not malformed:
            self._reply(b"NO (QUOTA/MAXSIZE)", f"A string can have {LARGEST_SCRIPT} bytes.")
            return
        name = arguments.pop(0) if arguments else b""
        perform = None if malformed or not isinstance(name, Word) else self._command(name)
        if perform is None:
            self._reply(b"NO", "Unknown command.")
            return
        try:
            perform(arguments)
        except _Malformed:
            self._reply(b"NO", "Wrong arguments.")
        except ScriptRefused as refusal:
            self._reply(f"NO ({refusal.code})".encode("ascii") if refusal.code else b"NO", str(refusal))

    def _command(self, name: bytes) -> Callable[[list[bytes]], None] | None:
        word = name.decode("latin-1").upper()
        table = _BEFORE if self._scripts is None else _AFTER
        return getattr(self, f"_do{word}") if word in table else None

    # Writing.

    def _reply(self, status: bytes, text: str, before: bytes = b"") -> None:
        self.transport.write(before + status + b" " + quoted(text) + b"\r\n")

    def _end(self, status: bytes, text: str) -> None:
        self._isOver = True
        self._reply(status, text)
        self.setTimeout(None)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _capabilities(self) -> bytes:
        found = [
            ("IMPLEMENTATION", "mailgate sandbox"),
            ("SIEVE", " ".join(EXTENSIONS)),
            ("SASL", "PLAIN LOGIN" if self._scripts is None else ""),
            ("VERSION", "1.0"),
        ]
        if self._scripts is not None:
            found.append(("OWNER", self._user))
        return b"".join(quoted(name) + b" " + quoted(value) + b"\r\n" for name, value in found)

    # Commands of any time.

    def _doCAPABILITY(self, arguments: list[bytes]) -> None:
        _strings(arguments, 0)
        self._reply(b"OK", "Capabilities listed.", self._capabilities())

    def _doNOOP(self, arguments: list[bytes]) -> None:
        if arguments:
            (tag,) = _strings(arguments, 1)
            self._reply(b"OK (TAG " + quoted(tag) + b")", "Done.")
        else:
            self._reply(b"OK", "Done.")

    def _doLOGOUT(self, arguments: list[bytes]) -> None:
        self._end(b"OK", "Logout completed.")

    # Logging in.

    def _doAUTHENTICATE(self, arguments: list[bytes]) -> None:
        mechanism, *initial = _strings(arguments, 1, 2)
        word = mechanism.upper()
        if word not in (b"PLAIN", b"LOGIN"):
            self._reply(b"NO", "Unsupported authentication mechanism.")
            return
        given: list[bytes] = []
        prompts = [b""] if word == b"PLAIN" else [b"Username:", b"Password:"]

        def step(response: bytes) -> None:
            given.append(response)
            if len(given) < len(prompts):
                self._challenge(prompts[len(given)], step)
            elif word == b"PLAIN":
                parts = response.split(b"\0")
                self._login(*(parts[1:] if len(parts) == 3 and parts[0] in (b"", parts[1]) else (b"", b"")))
            else:
                self._login(*given)

        if initial:
            self._steps.append(step)
            self._continue(initial, False)
        else:
            self._challenge(prompts[0], step)

    def _challenge(self, prompt: bytes, step: Callable[[bytes], None]) -> None:
        self._steps.append(step)
        self.transport.write(quoted(base64.b64encode(prompt)) + b"\r\n")

    def _continue(self, arguments: Sequence[bytes], malformed: bool) -> None:
        step = self._steps.pop()
        if malformed or len(arguments) != 1 or isinstance(arguments[0], Word):
            self._reply(b"NO", "A response must be one string.")
        elif arguments[0] == b"*":
            self._reply(b"NO", "Authentication aborted by client.")
        else:
            try:
                response = base64.b64decode(arguments[0], validate=True)
            except binascii.Error:
                self._reply(b"NO", "Invalid base64 data.")
                return
            step(response)

    def _login(self, user: bytes, password: bytes) -> None:
        # The sandbox's portal answers at once.
        logged = self.portal.login(UsernamePassword(user, password), None, IScripts)
        logged.addCallbacks(self._loggedIn, self._refused, callbackArgs=(user,))

    def _loggedIn(self, found: tuple[Any, Scripts, Callable[[], None]], user: bytes) -> None:
        self._user = user.decode("utf-8", "replace")
        self._scripts = found[1]
        self._reply(b"OK", "Logged in.")

    def _refused(self, failure: Failure) -> None:
        self._reply(b"NO", "Authentication failed.")

    # Scripts.

    @property
    def _store(self) -> Scripts:
        assert self._scripts is not None
        return self._scripts

    def _doHAVESPACE(self, arguments: list[bytes]) -> None:
        if len(arguments) != 2 or not isinstance(arguments[1], Word) or not re.fullmatch(rb"[0-9]{1,10}", arguments[1]):
            raise _Malformed
        (name,) = _strings(arguments[:1], 1)
        self._store.checkSpace(_name(name), int(arguments[1]))
        self._reply(b"OK", "There is room.")

    def _doPUTSCRIPT(self, arguments: list[bytes]) -> None:
        name, script = _strings(arguments, 2)
        self._store.put(_name(name), script)
        self._reply(b"OK", "Stored.")

    def _doCHECKSCRIPT(self, arguments: list[bytes]) -> None:
        (script,) = _strings(arguments, 1)
        self._store.check(script)
        self._reply(b"OK", "The form of the script is right.")

    def _doLISTSCRIPTS(self, arguments: list[bytes]) -> None:
        _strings(arguments, 0)
        store = self._store
        lines = (quoted(name) + b" ACTIVE" * (name == store.active) + b"\r\n" for name in store.scripts)
        self._reply(b"OK", "Scripts listed.", b"".join(lines))

    def _doGETSCRIPT(self, arguments: list[bytes]) -> None:
        (name,) = _strings(arguments, 1)
        script = self._store.get(_name(name))
        self._reply(b"OK", "Script sent.", b"{%d}\r\n%b\r\n" % (len(script), script))

    def _doSETACTIVE(self, arguments: list[bytes]) -> None:
        (name,) = _strings(arguments, 1)
        self._store.activate(_name(name))
        self._reply(b"OK", "Done.")

    def _doDELETESCRIPT(self, arguments: list[bytes]) -> None:
        (name,) = _strings(arguments, 1)
        self._store.delete(_name(name))
        self._reply(b"OK", "Deleted.")

    def _doRENAMESCRIPT(self, arguments: list[bytes]) -> None:
        old, new = _strings(arguments, 2)
        self._store.rename(_name(old), _name(new))
        self._reply(b"OK", "Renamed.")


_ALWAYS = frozenset({"CAPABILITY", "NOOP", "LOGOUT"})
_BEFORE = _ALWAYS | {"AUTHENTICATE"}
_AFTER = _ALWAYS | {
    "HAVESPACE", "PUTSCRIPT", "CHECKSCRIPT", "LISTSCRIPTS", "GETSCRIPT", "SETACTIVE", "DELETESCRIPT", "RENAMESCRIPT",
}  # fmt: skip


def _strings(arguments: Sequence[bytes], least: int, most: int | None = None) -> Sequence[bytes]:
    """
    Return the arguments if they are strings, and as many as a command has.

    @param arguments: the arguments.
    @param least: the least number.
    @param most: the greatest number; the same as C{least} if it is C{None}.
    @raise _Malformed: they are not.
    """
    if not least <= len(arguments) <= (least if most is None else most):
        raise _Malformed
    if any(isinstance(argument, Word) for argument in arguments):
        raise _Malformed
    return arguments


def _name(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ScriptRefused("The name of a script must be UTF-8.") from None
