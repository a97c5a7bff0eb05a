# -*- test-case-name: mailgate.test.differential -*-
"""
Plays conversations.

The steps of a script are lists of a verb and its arguments:

- C{connect}: a new connection of the client. The later steps are about it.
- C{send TEXT}: the client sends.
- C{blob SIZE}: the client sends a line of about that many bytes.
- C{tls}, C{tls resume}: the client begins a handshake; it resumes the session of an earlier connection.
- C{deaf}, C{hear}: the client stops or begins to read.
- C{half}, C{close}, C{reset}: the client ends its connection, or only its direction.
- C{use NUMBER}: the later steps are about that connection, from 1.
- C{wait SECONDS}: time passes.
- C{backend NUMBER VERB ...}: C{send}, C{blob}, C{deaf}, C{hear}, C{half}, C{close} or C{reset} at the last connection
  of that backend.

After each step everything is done that follows from it, without time passing.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any, Protocol

from mailgate.test.differential.peers import BackendPeer, Peer, ServicePeer
from mailgate.test.differential.script import Script
from mailgate.test.differential.wire import Record, Wire

__all__ = ["Certificates", "IGateway", "Player"]


MOST_TURNS = 3000
"""After so many turns the gateway is taken to be busy without end."""


class Certificates:
    """
    The TLS contexts of clients and backends.

    @param folder: the folder with C{authority.pem}, and C{server.pem}, a certificate and its key.
    @ivar path: C{server.pem}.
    @ivar authority: C{authority.pem}.
    """

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/server.pem"
        self.authority = f"{folder}/authority.pem"
        self.client = ssl.create_default_context(cafile=self.authority)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(self.path)


class IGateway(Protocol):
    """
    A gateway that plays.

    @ivar host: where it listens.
    """

    port: int

    def turn(self) -> bool:
        """Let it work. Return whether it may have more to do."""

    def passTime(self, seconds: float) -> float:
        """Let time pass, at most that long, but not beyond the next timer. Return how long that was."""

    def logged(self) -> list[str]:
        """Return what it has logged since the last call."""


class Player:
    """
    Plays one conversation.

    @param script: the conversation.
    @param certificates: the TLS contexts.
    @ivar record: what happens.
    @ivar service: the authentication service.
    @ivar backends: the backends.
    """

    def __init__(self, script: Script, certificates: Certificates) -> None:
        self.script = script
        self.record = Record()
        self._certificates = certificates
        self.service = ServicePeer(self.record, script.service)
        self.backends = [
            BackendPeer(f"backend{number}", self.record, script.protocol, backend, certificates.server)
            for number, backend in enumerate(script.backends, 1)
        ]
        self._peers: list[Peer] = [self.service, *self.backends, Peer("down", self.record, isDown=True)]
        self._clients: list[Wire] = []
        self._current: Wire | None = None

    def fill(self, text: str) -> str:
        """
        Return a text with ports in place of their names.

        @param text: the text.
        """
        return self.service.filled(text).decode("latin-1")

    def play(self, gateway: IGateway) -> list[dict[str, list[str]]]:
        """
        Return the transcript: what each step has caused, by the name of the wire that received it.

        @param gateway: the gateway.
        """
        self.record.names[gateway.port] = "gateway"
        transcript = []
        for step in [*self.script.steps, ["end"]]:
            self._do(gateway, step[0], step[1:])
            self._settle(gateway)
            happened = self.record.take()
            if log := gateway.logged():
                happened["log"] = [self.record.named(line) for line in log]
                if step[0] == "wait":
                    # Timers of the same second are in a set.
                    happened["log"].sort()
            transcript.append(happened)
        return transcript

    def stop(self) -> None:
        """Close everything."""
        for peer in self._peers:
            peer.stop()
        for wire in self._clients:
            wire.close()

    def _settle(self, gateway: IGateway) -> None:
        for _ in range(MOST_TURNS):
            isBusy = gateway.turn()
            for peer in self._peers:
                isBusy |= peer.accept()
                for wire in peer.wires:
                    isBusy |= wire.work()
            for wire in self._clients:
                isBusy |= wire.work()
            if not isBusy:
                for peer in self._peers:
                    isBusy |= peer.speak()
            if not isBusy:
                return
        self.record.event("gateway", "never rests")

    def _do(self, gateway: IGateway, verb: str, arguments: list[Any]) -> None:
        if verb == "connect":
            self._connect(gateway.port)
        elif verb == "use":
            self._current = self._clients[arguments[0] - 1]
        elif verb == "wait":
            left = arguments[0]
            while left > 0:
                left -= gateway.passTime(left)
                self._settle(gateway)
        elif verb == "tls":
            sessions = [wire.session for wire in self._clients if wire.session is not None]
            session = sessions[-1] if arguments and sessions else None
            assert self._current is not None
            self._current.startTLS(self._certificates.client, False, session)
        elif verb == "backend":
            peer = self.backends[arguments[0] - 1]
            if peer.wires:
                self._act(peer.wires[-1], arguments[1], arguments[2:])
        elif verb == "end":
            for wire in self._clients:
                wire.isDeaf = False
                wire.close()
        elif self._current is not None:
            self._act(self._current, verb, arguments)

    def _connect(self, port: int) -> None:
        connection = socket.create_connection(("127.0.0.1", port), 20)
        name = f"client{len(self._clients) + 1}"
        self.record.names[connection.getsockname()[1]] = name
        self._current = Wire(connection, name, self.record)
        self._clients.append(self._current)

    def _act(self, wire: Wire, verb: str, arguments: list[Any]) -> None:
        if verb == "send":
            wire.send(self.service.filled(arguments[0]))
        elif verb == "blob":
            wire.send(_blob(arguments[0]))
        elif verb in ("deaf", "hear"):
            wire.isDeaf = verb == "deaf"
        elif verb == "half":
            wire.halfClose()
        elif verb == "close":
            wire.close()
        elif verb == "reset":
            wire.reset()
        else:
            raise ValueError(f"unknown step {verb}")


def _blob(size: int) -> bytes:
    """Return one line of about that many bytes, no two parts of which are the same."""
    return (
        b"".join(b"%08d abcdefghijklmnopqrstuvwxyz 0123456789 ABCDEFGHIJKLMNOPQRS;" % n for n in range(size // 64))
        + b"\r\n"
    )
