# -*- test-case-name: mailgate.test.differential -*-
"""
A gateway in this process, with real sockets, and a time that passes only when the test says so. Random numbers are
always the same.

C{python -c "from mailgate.test.differential.inprocess import main; main()" FOLDER} reads a script a line, in JSON, and
writes transcripts. FOLDER has the certificates.
"""

from __future__ import annotations

import gc
import json
import os
import random
import socket
import sys
from functools import cache
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogBeginner, globalLogPublisher

from mailgate.test.differential.player import Certificates, Player
from mailgate.test.differential.script import Script

__all__ = ["main"]


def _unrandom(size: int) -> bytes:
    return b"\7" * size


class _Reactor(EPollReactor):
    """A reactor whose time stands still."""

    now = 1000.0
    worked = False

    def seconds(self) -> float:
        return self.now

    def _doReadOrWrite(self, *arguments: Any) -> None:
        self.worked = True
        super()._doReadOrWrite(*arguments)

    def _runOnce(self) -> bool:
        """Handle what is ready. Return whether anything was, or is due."""
        self.worked = False
        self.iterate(0)
        due = self.timeout()
        return self.worked or due == 0


class _Gateway:
    """
    The gateway of a conversation.

    @param reactor: the reactor.
    @param player: the player, which has the ports of the peers.
    @param certificates: the certificates.
    """

    def __init__(self, reactor: _Reactor, player: Player, certificates: Certificates) -> None:
        from mailgate.config import parse
        from mailgate.service import Gateway

        self._reactor = reactor
        self._events: list[LogEvent] = []
        reactor.now = 1000.0
        random.seed(7)
        globalLogPublisher.addObserver(self._observe)  # type: ignore[arg-type]
        try:
            self.port = _freePort()
            self._gateway = Gateway(parse(player.fill(configuration(player.script, self.port, certificates))), reactor)
            self._gateway.privilegedStartService()
            self._gateway.startService()
            # What the configuration is warned of.
            self._events.clear()
        except BaseException:
            globalLogPublisher.removeObserver(self._observe)  # type: ignore[arg-type]
            raise

    def _observe(self, event: LogEvent) -> None:
        if event["log_namespace"] == "mailgate" or event["log_level"] >= LogLevel.error:
            self._events.append(event)

    def turn(self) -> bool:
        return self._reactor._runOnce()

    def passTime(self, seconds: float) -> float:
        due = self._reactor.timeout()
        # The smallest step keeps a timer that is due a little later than its clock says from stopping time.
        passed = seconds if due is None else max(0.001, min(seconds, due))
        self._reactor.now += passed
        return passed

    def logged(self) -> list[str]:
        events, self._events = self._events, []
        return [_told(event) for event in events]

    def stop(self) -> list[str]:
        """Stop it, and return what it logged since."""
        done: list[Any] = []
        self._gateway.stopService().addBoth(done.append)
        for _ in range(200):
            for _ in range(3):
                while self.turn():
                    pass
            if done:
                break
            self._reactor.now += 0.05
        del self._gateway
        gc.collect()
        self.turn()
        globalLogPublisher.removeObserver(self._observe)  # type: ignore[arg-type]
        # The connections are in a set.
        return sorted(self.logged())


def _told(event: LogEvent) -> str:
    text = f"{event['log_level'].name}: {formatEvent(event)}"
    if "log_failure" in event:
        text += f" [{event['log_failure'].type.__name__}: {event['log_failure'].getErrorMessage()}]"
    return text


def _freePort() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


_LIMITS = ("limit_conn", "limit_req", "limit_early_drop", "limit_login")


@cache
def _isKnown(name: str) -> bool:
    """Whether the gateway has a limit. Earlier releases have none."""
    from mailgate.config import parse
    from mailgate.directives import ConfigurationError

    try:
        parse(f"[mail]\n{name} = off\n[server imap]\nlisten = 127.0.0.1:143\nproxy_pass = 192.0.2.1:143\n")
    except ConfigurationError:
        return False
    return True


def configuration(script: Script, port: int, certificates: Certificates) -> str:
    """
    Return the ini file of a conversation's gateway.

    @param script: the conversation.
    @param port: the port to listen on.
    @param certificates: the certificates.
    """
    sections = [line for line in script.options if line.startswith("[")]
    first = script.options.index(sections[0]) if sections else len(script.options)
    own, further = script.options[:first], script.options[first:]
    lines = [
        "[mailgate]",
        f"use = {script.use}",
        f"error_log = stderr {script.level}",
        "[mail]",
        "server_name = gate.example",
        f"ssl_certificate = {certificates.path}",
        f"ssl_certificate_key = {certificates.path}",
        # All clients of a conversation have one address.
        *(f"{name} = off" for name in _LIMITS if _isKnown(name)),
        "[server it]",
        f"protocol = {script.protocol}",
        f"listen = 127.0.0.1:{port} {script.listen}",
        *own,
        *further,
    ]
    return "\n".join(lines).replace("<authority>", certificates.authority) + "\n"


def _play(reactor: _Reactor, script: Script, certificates: Certificates) -> dict[str, Any]:
    before = len(os.listdir("/proc/self/fd"))
    player = Player(script, certificates)
    try:
        gateway = _Gateway(reactor, player, certificates)
        try:
            steps = player.play(gateway)
        finally:
            last = sorted(player.record.named(line) for line in gateway.stop())
    finally:
        player.stop()
    told: dict[str, Any] = {"name": script.name, "steps": steps}
    if last:
        told["stopping"] = last
    left = len(os.listdir("/proc/self/fd")) - before
    if left:
        told["descriptors left"] = left
    return told


def _attempted(reactor: _Reactor, script: Script, certificates: Certificates) -> dict[str, Any]:
    """Return the transcript, or C{refused} with the reason why the gateway cannot have this configuration."""
    from mailgate.directives import ConfigurationError

    for _ in range(5):
        try:
            return _play(reactor, script, certificates)
        except ConfigurationError as error:
            return {"name": script.name, "refused": str(error)}
        except Exception as error:
            # Another process may have taken the port meanwhile.
            told = {"name": script.name, "error": f"{type(error).__name__}: {error}"}
    return told


def main() -> None:
    """Play the scripts that come through standard input."""
    os.urandom = _unrandom
    reactor = _Reactor()
    installReactor(reactor)
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    certificates = Certificates(sys.argv[1])
    for _ in range(5):
        reactor.iterate(0)
    isWarm = False
    for line in sys.stdin:
        script = Script.fromJSON(json.loads(line))
        told = _attempted(reactor, script, certificates)
        if "steps" in told and not isWarm:
            # The first conversation imports modules and opens descriptors that stay.
            gc.freeze()
            isWarm = True
            told = _attempted(reactor, script, certificates)
        print(json.dumps(told), flush=True)
