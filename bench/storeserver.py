# -*- test-case-name: bench.test.test_cluster -*-
"""
A store for the benchmark: Valkey or Redis in a process of its own, and a connection by which gateways are simulated.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, succeed

from bench.processes import BenchmarkError, Child, Children
from bench.procfs import cpu
from bench.proxies import SEARCH
from mailgate.store.redis.answers import Word, encoded
from mailgate.store.redis.replies import ErrorReply, Replies
from mailgate.store.redis.script import Script
from mailgate.store.redis.store import SCRIPTS

__all__ = ["Direct", "Server", "serve"]

_START = 10.0


class Direct:
    """
    In the place of L{mailgate.store.redis.connection.RedisConnection}: each call waits for its answer, so that a
    simulation needs no event loop. The commands are the same.

    @param path: the unix socket of the store.
    @ivar calls: how many commands it has sent.
    """

    isUp = True
    reason = ""

    def __init__(self, path: str) -> None:
        self.heard: Callable[[str, bytes], object] = lambda channel, message: None
        self.resumed: Callable[[], object] = lambda: None
        self.changed: Callable[[bool], object] = lambda isUp: None
        self.calls = 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._reader = Replies()
        for script in SCRIPTS:
            self.ask("SCRIPT", "LOAD", script.source)

    def ask(self, *words: Word) -> Any:
        """
        Send a command, and return the answer.

        @raise BenchmarkError: the answer is an error.
        """
        self.calls += 1
        self._socket.sendall(encoded(words))
        answers: list[Any] = []
        while not answers:
            data = self._socket.recv(65536)
            if not data:
                raise BenchmarkError("the store has closed the connection")
            answers = self._reader.feed(data)
        (answer,) = answers
        if isinstance(answer, ErrorReply):
            raise BenchmarkError(f"the store has answered: {answer}")
        return answer

    def call(self, *words: Word) -> Deferred[Any]:
        """As L{ask}, in a Deferred that has fired."""
        return succeed(self.ask(*words))

    def script(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Word] = ()) -> Deferred[Any]:
        """Run a script: C{script} with C{keys} and C{arguments}."""
        return self.call("EVALSHA", script.sha, len(keys), *keys, *arguments)

    def start(self) -> None:
        """It is connected already."""

    def stop(self) -> Deferred[None]:
        """Disconnect."""
        self._socket.close()
        return succeed(None)


@define
class Server:
    """
    A running store.

    @ivar path: its unix socket.
    @ivar name: the program and its version.
    """

    path: str
    name: str
    child: Child

    @property
    def seconds(self) -> float:
        """Its seconds of CPU so far."""
        return cpu([self.child.pid])

    def connect(self) -> Direct:
        """A connection to it."""
        self.child.check()
        return Direct(self.path)


def serve(folder: str, children: Children) -> Server:
    """
    Start a store without persistence.

    @param folder: for its socket.
    @param children: ends it.
    @raise BenchmarkError: neither Valkey nor Redis is installed, or it does not start.
    """
    program = shutil.which("valkey-server", path=SEARCH) or shutil.which("redis-server", path=SEARCH)
    if program is None:
        raise BenchmarkError("needs valkey-server or redis-server")
    path = os.path.join(folder, "store.sock")
    # Short: a path of a unix socket has at most 107 characters.
    options = ("--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", folder)
    child = children.start("the store", [program, *options])
    deadline = time.monotonic() + _START
    while not os.path.exists(path):
        child.check()
        if time.monotonic() > deadline:
            raise BenchmarkError(f"the store has not started; it said: {child.said()}")
        time.sleep(0.02)
    found = Direct(path).ask("INFO", "server").decode()
    version = found.partition("redis_version:")[2].split("\r")[0]
    own = found.partition("valkey_version:")[2].split("\r")[0]
    return Server(path, f"Valkey {own}" if own else f"Redis {version}", child)
