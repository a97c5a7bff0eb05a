# -*- test-case-name: mailgate.test.integration.test_sieve -*-
"""
ManageSieve servers with the manners of Cyrus's timsieved and of Stalwart, as their sources have them.
"""

from __future__ import annotations

import base64
import re
import socket
import threading
from typing import BinaryIO

from mailgate.test.integration.scripted import _Listening

__all__ = ["REFUSAL", "CyrusLike", "StalwartLike"]

REFUSAL = 'The password is "wröng".\r\nTry \\again.'
"""The text of Cyrus's refusal, which is a literal of several lines."""

_MESSAGE = re.compile(rb'"?([A-Za-z0-9+/=]+)"?\r\n\Z')
_LITERAL = re.compile(rb"\{(\d+)\+?\}\r\n\Z")


class _SieveServer(_Listening):
    """
    A server that accepts any password but C{wrong}, and answers each command after the login with OK.

    @ivar heard: for each connection all that came from the client.
    """

    greeting: bytes
    accepted: bytes
    refused = b'NO "Authentication failed"\r\n'
    emptyChallenge: bytes

    def converse(self, connection: socket.socket, stream: BinaryIO) -> None:
        heard = bytearray()
        self.heard.append(heard)
        connection.sendall(self.greeting)
        isKnown = False
        while command := self._command(stream, heard):
            word = command.split()[0].upper()
            if word == b"LOGOUT":
                connection.sendall(b"OK\r\n")
                return
            if word != b"AUTHENTICATE" or isKnown:
                connection.sendall(self.answer(command))
                continue
            if len(command.split()) == 2:
                connection.sendall(self.emptyChallenge)
                command += self._command(stream, heard)
            message = _MESSAGE.search(command)
            isKnown = message is not None and not base64.b64decode(message[1]).endswith(b"\0wrong")
            connection.sendall(self.accepted if isKnown else self.refused)
            if isKnown:
                self.follow(connection)

    def _command(self, stream: BinaryIO, heard: bytearray) -> bytes:
        """A command with its literals; empty at the end."""
        command = stream.readline()
        while literal := _LITERAL.search(command):
            command += stream.read(int(literal[1])) + stream.readline()
        heard += command
        return command

    def answer(self, command: bytes) -> bytes:
        """The reply to any other command."""
        match = re.match(rb'(?i)NOOP "([^"]*)"', command)
        return b'OK (TAG "%b") "Done"\r\n' % match[1] if match else b"OK\r\n"

    def follow(self, connection: socket.socket) -> None:
        """Send what follows the OK of a login."""


class CyrusLike(_SieveServer):
    """
    Challenges are literals, C{OK} has no text, and the capabilities follow the login without being asked for
    (C{sieve_sasl_send_unsolicited_capability}), some of them later than the C{OK}.
    """

    _LIST = (
        b'"IMPLEMENTATION" "Cyrus timsieved (Murder) v3.6.1"\r\n%b'
        b'"SIEVE" "comparator-i;ascii-numeric fileinto reject vacation envelope"\r\n"UNAUTHENTICATE"\r\n'
    )
    greeting = _LIST % b'"SASL" "PLAIN LOGIN"\r\n' + b"OK\r\n"
    refused = f"NO {{{len(REFUSAL.encode())}}}\r\n{REFUSAL}\r\n".encode()
    accepted = b'OK (SASL "cmVzdA==")\r\n'
    emptyChallenge = b"{0}\r\n\r\n"

    def follow(self, connection: socket.socket) -> None:
        # The pause is that of a slow computer: the gateway waits for the list, not for a time.
        threading.Event().wait(0.2)
        connection.sendall(self._LIST % b"" + b"OK\r\n")


class StalwartLike(_SieveServer):
    """No line end follows an empty challenge, and the tag of NOOP is a literal."""

    greeting = (
        b'"IMPLEMENTATION" "Stalwart ManageSieve"\r\n"VERSION" "1.0"\r\n"SASL" "PLAIN OAUTHBEARER"\r\n'
        b'"SIEVE" "fileinto vacation"\r\n"MAXREDIRECTS" "1"\r\nOK "Stalwart ManageSieve at your service."\r\n'
    )
    accepted = b'OK "Authentication successful"\r\n'
    emptyChallenge = b"{0}\r\n"

    def answer(self, command: bytes) -> bytes:
        match = re.match(rb'(?i)NOOP "([^"]*)"', command)
        return b'OK (TAG {%d}\r\n%b) "Done"\r\n' % (len(match[1]), match[1]) if match else super().answer(command)
