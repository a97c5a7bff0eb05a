# -*- test-case-name: mailgate.test.integration.test_cluster -*-
"""
A store for tests: valkey-server or redis-server, whichever is installed, and a link to it that loses packets.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, BinaryIO

from mailgate.test.integration.daemon import Daemon, freePort, newFolder
from mailgate.test.integration.programs import PATH, programPath

__all__ = ["Commands", "LossyLink", "RedisServer", "StoreError", "program"]

_PATIENCE = 10.0
_PLAIN = ("--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", "", "--rdbcompression", "no")


def program() -> str | None:
    """The path of the server to use; L{None} if there is none."""
    return shutil.which("valkey-server", path=PATH) or programPath("redis-server")


class StoreError(Exception):
    """The server has answered with an error; the argument is its text."""


class Commands:
    """
    A connection to the server that sends commands and waits for their answers (RESP2).

    @param address: the path of a unix socket, or a port of 127.0.0.1.
    """

    def __init__(self, address: str | int) -> None:
        if isinstance(address, str):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(_PATIENCE)
            self._socket.connect(address)
        else:
            self._socket = socket.create_connection(("127.0.0.1", address), _PATIENCE)
        self._answers: BinaryIO = self._socket.makefile("rb")

    def __call__(self, *words: str | bytes | int) -> Any:
        """
        Send a command, and return its answer: L{bytes}, L{int}, L{None} or a list.

        @raise StoreError: the answer is an error.
        """
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self._socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in parts))
        return self._answer()

    def _answer(self) -> Any:
        line = self._answers.readline()
        if not line:
            raise ConnectionError("the server has closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise StoreError(rest.decode())
        if kind == b"+":
            return rest
        number = int(rest)
        if kind == b":":
            return number
        if number < 0:
            return None
        if kind == b"*":
            return [self._answer() for _ in range(number)]
        return self._answers.read(number + 2)[:-2]

    def close(self) -> None:
        """Close the connection."""
        self._answers.close()
        self._socket.close()


class RedisServer:
    """
    A server, without persistence, on a unix socket and a port.

    @ivar path: the path of the unix socket.
    @ivar port: the port of 127.0.0.1.
    """

    def __init__(self, *options: str, mode: Sequence[str] = (), user: str = "") -> None:
        """
        Start it.

        @param options: further options, in the words of its command line.
        @param mode: what stands before all options: a file of configuration, and C{--sentinel}.
        @param user: as which user without a password L{commands} asks; empty for that of all connections.
        """
        self.folder = newFolder("store")
        self.path = os.path.join(self.folder, "store.sock")
        self.port = freePort()
        self._options = options
        self._mode = mode
        self._user = user
        self.start()

    def start(self) -> None:
        """Start it, also again after L{end}: it is empty then."""
        found = program()
        assert found is not None
        plain = () if "--sentinel" in self._mode else (*_PLAIN, "--unixsocket", self.path, "--dir", self.folder)
        arguments = [found, *self._mode, "--port", str(self.port), "--bind", "127.0.0.1", *plain, *self._options]
        self._daemon = Daemon(arguments, os.path.join(self.folder, "output"))
        self._daemon.ready(self.port)

    @property
    def pid(self) -> int:
        """The process."""
        return self._daemon.process.pid

    def said(self) -> str:
        """Its log."""
        return self._daemon.said()

    def commands(self) -> Commands:
        """A new connection."""
        made = Commands(self.port)
        if self._user:
            made("AUTH", self._user, "")
        return made

    def ask(self, *words: str | bytes | int) -> Any:
        """Send one command over a connection of its own. See L{Commands.__call__}."""
        asking = self.commands()
        try:
            return asking(*words)
        finally:
            asking.close()

    def hang(self) -> None:
        """It takes connections and answers nothing, until L{goOn}."""
        self._daemon.process.send_signal(signal.SIGSTOP)

    def goOn(self) -> None:
        """End L{hang}."""
        self._daemon.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End it; what it has is lost."""
        self.goOn()
        self._daemon.process.kill()
        self._daemon.process.wait()
        with suppress(FileNotFoundError):
            os.remove(self.path)

    def stop(self) -> None:
        """End it, and remove its files."""
        self.goOn()
        self._daemon.end()
        shutil.rmtree(self.folder, ignore_errors=True)


class LossyLink:
    """
    A link to a port of 127.0.0.1 that can lose and delay packets. Over TCP a lost packet is one that comes late, and
    all behind it wait: TCP sends it again after 200 ms, then after 400, and so on.

    @ivar port: the port of this end.
    @ivar loss: how many of the packets are lost, from 0 to 1.
    @ivar late: by how many seconds each packet is late, in each direction.
    """

    def __init__(self, target: Callable[[], int], loss: float = 0.0, seed: int = 7) -> None:
        """
        @param target: returns the port.
        @param loss: see C{loss}.
        @param seed: of the losses.
        """
        self.loss = loss
        self.late = 0.0
        self._target = target
        self._chance = random.Random(seed)
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target()), _PATIENCE)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.late:
                    time.sleep(self.late)
                late = 0.2
                while self._chance.random() < self.loss:
                    time.sleep(late)
                    late *= 2
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Close everything."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        for each in (self._listening, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
