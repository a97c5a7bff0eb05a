# -*- test-case-name: mailgate.test.cli.test_whoami -*-
"""
What was said in a login at a backend, without what proves who the user is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from mailgate.backend.client import ProxyClient
from mailgate.backend.credentials import BackendCredentials
from mailgate.backend.reply import isRepeated
from mailgate.log.journal import oneLine
from mailgate.login import Client
from mailgate.net.proxyprotocol import headerFor

__all__ = ["Transcript", "recording"]

_HIDDEN = "..."
_REPEATED = "(a line that repeats the password is not shown)"
_WORDS = {b"AUTHENTICATE": 2, b"AUTH": 2}
"""How many words of a command that begins a login are shown: the mechanism, too, but no initial response."""
_FORWARDED = re.compile(rb'("x-forward-[^"]*" |(?<= )FORWARD=)(?:"(?:[^"\\]|\\.)*"|[^ ]+)', re.IGNORECASE)
"""Matches additional fields for the backend (C{Auth-Proxy-Forward}) in ID and XCLIENT: their values may be private."""
_LEAST = 4
"""Bytes of what was sent hidden that are looked for in answers; what is shorter may be there by chance."""


class Transcript:
    """
    The lines of one login.

    @param login: what it logs in with.
    """

    def __init__(self, login: BackendCredentials) -> None:
        self._login = login
        self._isProving = False
        self._said: list[tuple[str, bytes]] = []
        self._hidden: list[bytes] = []

    def note(self, text: str) -> None:
        """
        Add an event that is no line of the dialogue.

        @param text: what happened.
        """
        self._said.append(("--", text.encode()))

    def sent(self, line: bytes) -> None:
        """A C{line} was sent: all of it is shown until the login begins, and nothing from then on."""
        if self._isProving:
            self._hide(line)
            self._said.append(("C:", _HIDDEN.encode()))
        elif line.upper().startswith(b"AUTH "):
            self.began(line)
        else:
            self._said.append(("C:", line))

    def began(self, command: bytes, words: int = 0) -> None:
        """
        The C{command} that begins the login was sent.

        @param words: how many words stand before its name.
        """
        self._isProving = True
        parts = command.split(b" ")
        most = words + _WORDS.get(parts[words].upper(), 1)
        self._hide(b" ".join(parts[most:]))
        rest = [_HIDDEN.encode()] if len(parts) > most else []
        self._said.append(("C:", b" ".join([*parts[:most], *rest])))

    def _hide(self, text: bytes) -> None:
        self._hidden += [part for part in (text, *text.split(b" ")) if len(part) >= _LEAST]

    def heard(self, data: bytes) -> None:
        """C{data} came, lines or parts of them."""
        if self._said and self._said[-1][0] == "S:":
            data = self._said.pop()[1] + data
        self._said.append(("S:", data))

    def __iter__(self) -> Iterator[str]:
        """The lines: C{C: …} was sent, C{S: …} is an answer, C{-- …} says what happened."""
        for who, text in self._said:
            for line in text.rstrip(b"\r\n").split(b"\n"):
                yield f"{who} {self._shown(line.rstrip(), who)}"

    def _shown(self, line: bytes, who: str) -> str:
        if who == "S:" and (isRepeated(line, self._login) or any(hidden in line for hidden in self._hidden)):
            return _REPEATED
        line = _FORWARDED.sub(rb"\g<1>***", line)
        return oneLine(line.decode("utf-8", "backslashreplace"))


def recording(
    protocol: type[ProxyClient], transcript: Transcript, client: Client, hasTags: bool
) -> Callable[..., ProxyClient]:
    """
    Makes clients of C{protocol} that write all that is said with the backend to C{transcript}.

    @param client: the client that a PROXY header names.
    @param hasTags: whether a tag stands before the names of commands, as in IMAP.
    """

    class Recording(protocol):  # type: ignore[valid-type,misc]
        _logins = 0

        def makeConnection(self, transport: Any) -> None:
            version = self.caller.proxy.proxyProtocol
            if version == "on":
                transcript.sent(headerFor(client, version))
            elif version == "v2":
                transcript.note(f"sent the header of PROXY protocol version 2: {headerFor(client, version).hex()}")
            super().makeConnection(transport)

        def handshakeCompleted(self) -> None:
            transcript.note("TLS is established")
            super().handshakeCompleted()

        def send(self, line: bytes) -> None:
            super().send(line)
            transcript.sent(line)

        def sendLogin(self, line: bytes) -> None:
            introduction = self.introduction
            super().sendLogin(line)
            if introduction:
                transcript.sent(introduction)
            if self._logins:
                transcript.sent(line)
            else:
                transcript.began(line, 1 if hasTags else 0)
            self._logins += 1

        def dataReceived(self, data: bytes) -> None:
            transcript.heard(data)
            super().dataReceived(data)

    made: Callable[..., Any] = Recording
    return made
