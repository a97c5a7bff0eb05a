# -*- test-case-name: mailgate.test.integration.test_retry -*-
"""
Mail servers that fail in each way that servers fail in, from one moment to the next.

They run in a process of their own, C{python -m mailgate.test.integration.faultybackend}: many of them live as long as
the process of the tests, in which other tests count descriptors. It reads calls from its standard input and writes
their results, each as a line of JSON.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, BinaryIO

import mailgate
from mailgate.test.integration.scripted import SILENCE, Replies, TLSBackend

__all__ = ["FAULTS", "FaultyBackend", "FaultyBackends"]

_LOGIN = {
    "imap": ("LOGIN", "AUTHENTICATE"),
    "pop3": ("PASS", "AUTH"),
    "smtp": ("AUTH",),
    "sieve": ("AUTHENTICATE",),
}
"""The commands that carry credentials."""

_CREDENTIALS = {
    "imap": re.compile(rb"(?im)^\S+ (?:LOGIN|AUTHENTICATE) "),
    "pop3": re.compile(rb"(?im)^(?:PASS|AUTH) "),
    "smtp": re.compile(rb"(?im)^AUTH "),
    "sieve": re.compile(rb"(?im)^AUTHENTICATE "),
}

_ACCEPTED = ("TAG OK this is {}", "+OK this is {}", "235 2.7.0 this is {}", 'OK "this is {}"')
_OFFERS = "250-backend\n250-STARTTLS\n250 AUTH PLAIN LOGIN"


def _greeting(imap: str, pop3: str, smtp: str, sieve: str) -> Mapping[str, Replies]:
    words = {"imap": imap, "pop3": pop3, "smtp": smtp, "sieve": sieve}
    return {protocol: {"GREETING": greeting} for protocol, greeting in words.items()}


def _login(imap: str, pop3: str, smtp: str, sieve: str) -> Mapping[str, Replies]:
    words = {"imap": imap, "pop3": pop3, "smtp": smtp, "sieve": sieve}
    return {protocol: dict.fromkeys(_LOGIN[protocol], reply) for protocol, reply in words.items()}


_GARBAGE = "\0\xff HTTP/1.1 400 Bad Request"

FAULTS: Mapping[str, Mapping[str, Replies]] = {
    "closes": _greeting("", "", "", ""),
    "hangs": _greeting(SILENCE, SILENCE, SILENCE, SILENCE),
    "trickles": {},
    "garbage": _greeting(_GARBAGE, _GARBAGE, _GARBAGE, _GARBAGE),
    "chatters": _greeting(*(f"{word} {'x' * 100_000}" for word in ("* OK", "+OK", "220", '"SIEVE"'))),
    "full": _greeting(
        "* BYE too many connections",
        "-ERR [SYS/TEMP] too many",
        "421 4.3.2 too many connections",
        'BYE (TRYLATER) "full"',
    ),
    "barred": _greeting("* PREAUTH welcome", _GARBAGE, "554 5.7.1 no service here", 'NO "no service here"'),
    "drops": _login("", "", "", ""),
    "stalls": _login(SILENCE, SILENCE, SILENCE, SILENCE),
    "busy": _login("TAG NO [UNAVAILABLE] later", "-ERR [SYS/TEMP] later", "454 4.7.0 later", 'NO (TRYLATER) "later"'),
    "refuses": _login("TAG NO [AUTHENTICATIONFAILED] wrong", "-ERR [AUTH] wrong", "535 5.7.8 wrong", 'NO "wrong"'),
    "limited": _login(
        "TAG NO [LIMIT] too many sessions",
        "-ERR [IN-USE] locked",
        "550 5.7.0 disabled",
        'NO (LIMIT/CONNECTIONS) "too many"',
    ),
    "clear": {
        "imap": {"STARTTLS": "TAG BAD unknown command"},
        "pop3": {"STLS": "-ERR unknown command"},
        "smtp": {"STARTTLS": "454 4.7.0 TLS not available"},
        "sieve": {"STARTTLS": 'NO "TLS is not available"'},
    },
}
"""
What a server does instead of working, with its replies in each protocol. It C{closes} the connection at once, C{hangs}
after accept, C{trickles} its greeting byte by byte, greets with C{garbage}, without an end (C{chatters}), because it is
C{full}, or with words that C{barred} the way (IMAP's PREAUTH, SMTP's 554). It C{drops} the connection behind the
credentials, C{stalls} behind them, is too C{busy} for a login, C{refuses} the credentials, or the account is
C{limited}. It speaks no TLS (C{clear}).
"""

_PAUSE = 0.05
"""Seconds between the bytes of a greeting that trickles."""


class _Server(TLSBackend):
    """
    A server of C{protocol} that works until L{fail}, L{refuse} or L{die}. All of them may be called while it runs.

    @ivar name: how it calls itself in its answer to a login.
    """

    def __init__(self, protocol: str, name: str, context: ssl.SSLContext, host: str = "127.0.0.1") -> None:
        """
        @param protocol: C{imap}, C{pop3} or C{smtp}.
        @param name: how it calls itself in its answer to a login.
        @param context: its TLS context, for STARTTLS.
        @param host: the address that it listens on.
        """
        self.name = name
        self.host = host
        self._trickles = threading.Event()
        super().__init__(protocol, context)
        self._usual = {
            **({"EHLO": _OFFERS} if protocol == "smtp" else {}),
            **_login(
                f"TAG OK this is {name}", f"+OK this is {name}", f"235 2.7.0 this is {name}", f'OK "this is {name}"'
            )[protocol],
        }
        self.recover()

    def fail(self, fault: str) -> None:
        """
        Fail so from now on.

        @param fault: a key of L{FAULTS}.
        """
        self.reply({**self._usual, **FAULTS[fault].get(self._protocol, {})})
        if fault == "trickles":
            self._trickles.set()
        else:
            self._trickles.clear()

    def recover(self) -> None:
        """Work from now on, and listen again if it does not."""
        self._trickles.clear()
        self.reply(self._usual)
        if self._listening.fileno() == -1:
            self._listening = socket.create_server((self.host, self.port), backlog=512)
            threading.Thread(target=self._serve, daemon=True).start()

    def usually(self, replies: Replies) -> None:
        """
        Reply so from now on, whatever else fails.

        @param replies: as of L{ScriptedBackend.script}.
        """
        self._usual = {**self._usual, **replies}
        self.reply(self._usual)

    def refuse(self) -> None:
        """Refuse connections from now on. Those that exist stay."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def die(self) -> None:
        """Refuse connections from now on, and close those that exist."""
        self.stop()

    def listen(self) -> list[str]:
        """Return what each client has sent, as Latin-1."""
        return [heard.decode("latin-1") for heard in list(self.heard)]

    def _say(self, connection: socket.socket, stream: BinaryIO, word: str, tag: str = "") -> None:
        if word == "GREETING" and self._trickles.is_set():
            greeting = f"{self._replies[word]}\r\n".encode("latin-1")
            for number in range(len(greeting)):
                connection.sendall(greeting[number : number + 1])
                if self._trickles.is_set():
                    # Waits for the peer's end at most so long.
                    connection.settimeout(_PAUSE)
                    with suppress(TimeoutError):
                        if not connection.recv(1, socket.MSG_PEEK):
                            return
            connection.settimeout(None)
            return
        super()._say(connection, stream, word, tag)


class FaultyBackends:
    """The process of some servers."""

    def __init__(self) -> None:
        root = os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__)))
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": root},
        )
        # Tests stop and start servers in threads.
        self._lock = threading.Lock()

    def make(self, protocol: str, name: str, certificate: str, key: str) -> FaultyBackend:
        """
        Start a server.

        @param protocol: C{imap}, C{pop3} or C{smtp}.
        @param name: how it calls itself in its answer to a login.
        @param certificate: the path of its certificate, for STARTTLS.
        @param key: the path of its key.
        """
        number, port = self.call("make", protocol, name, certificate, key)
        return FaultyBackend(self, number, protocol, name, port)

    def call(self, *what: Any) -> Any:
        """
        Call a function in the process, and return its result.

        @param what: its name and its arguments.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(what).encode("ascii") + b"\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def stop(self) -> None:
        """End all servers."""
        self._process.communicate(timeout=30)


class FaultyBackend:
    """
    A server in the process of L{FaultyBackends}. It works until L{fail}, L{refuse} or L{die}.

    @ivar name: how it calls itself in its answer to a login.
    @ivar port: its port of 127.0.0.1.
    """

    def __init__(self, process: FaultyBackends, number: int, protocol: str, name: str, port: int) -> None:
        """
        @param process: where it runs.
        @param number: its number there.
        @param protocol: C{imap}, C{pop3} or C{smtp}.
        @param name: how it calls itself in its answer to a login.
        @param port: its port.
        """
        self._process = process
        self._number = number
        self._protocol = protocol
        self.name = name
        self.port = port

    def fail(self, fault: str) -> None:
        """
        Fail so from now on.

        @param fault: a key of L{FAULTS}.
        """
        self._call("fail", fault)

    def recover(self) -> None:
        """Work from now on, and listen again if it does not."""
        self._call("recover")

    def usually(self, replies: Replies) -> None:
        """
        Reply so from now on, whatever else fails.

        @param replies: as of L{mailgate.test.integration.scripted.ScriptedBackend.script}.
        """
        self._call("usually", dict(replies))

    def refuse(self) -> None:
        """Refuse connections from now on. Those that exist stay."""
        self._call("refuse")

    def die(self) -> None:
        """Refuse connections from now on, and close those that exist."""
        self._call("die")

    @property
    def heard(self) -> list[bytes]:
        """What each client has sent."""
        return [heard.encode("latin-1") for heard in self._call("listen")]

    @property
    def logins(self) -> int:
        """How many connections have brought credentials."""
        return sum(_CREDENTIALS[self._protocol].search(heard) is not None for heard in self.heard)

    def heardOf(self, user: str) -> bool:
        """
        Return whether C{user} has logged in here, by a command that shows names.

        @param user: the name.
        """
        return any(user.encode() in heard for heard in self.heard)

    def _call(self, name: str, *arguments: Any) -> Any:
        return self._process.call(name, self._number, *arguments)


def _serve(calls: Iterable[str]) -> None:
    """Carry out C{calls}, and write their results."""
    servers: list[_Server] = []
    for line in calls:
        name, *arguments = json.loads(line)
        if name == "make":
            protocol, own, certificate, key = arguments
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            servers.append(_Server(protocol, own, context))
            result: Any = len(servers) - 1, servers[-1].port
        else:
            number, *others = arguments
            result = getattr(servers[number], name)(*others)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    _serve(sys.stdin)
