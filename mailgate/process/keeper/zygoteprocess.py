# -*- test-case-name: mailgate.test.process.keeper.test_supervision -*-
"""
The zygote of the keeper and what it forks, as the master sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define
from twisted.internet.interfaces import IDelayedCall

from mailgate.process.workers.messages import Begin, Failed, Loaded, Message
from mailgate.process.workers.zygoteprocess import ZygoteProcess

__all__ = ["KeeperFork", "KeeperZygote"]

_MODULE = "mailgate.process.keeper.zygote"


@define(eq=False)
class KeeperFork:
    """
    One keeper.

    @ivar slot: its number.
    @ivar pid: its pid; L{None} until the zygote has reported it.
    @ivar isReady: whether it can serve.
    @ivar isKilled: whether the master has ordered to kill it.
    @ivar isLeaving: whether it hands over to the next one.
    @ivar reason: why it does not start.
    @ivar timer: kills it.
    """

    slot: int
    pid: int | None = None
    isReady: bool = False
    isKilled: bool = False
    isLeaving: bool = False
    reason: str = ""
    timer: IDelayedCall | None = None

    def wait(self, timer: IDelayedCall | None) -> None:
        """
        Set the timer, and cancel the previous one.

        @param timer: the timer; L{None} for no timer.
        """
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        self.timer = timer


class KeeperZygote(ZygoteProcess):
    """
    The zygote of the keeper.

    @param reactor: the reactor.
    @param sockets: the descriptors of the keeper's sockets, by name.
    @param environment: the environment of the processes.
    @param heard: called with each message.
    @param failed: called with the reason if the zygote cannot be used.
    @param exited: called with how the zygote has exited.
    """

    def __init__(
        self,
        reactor: Any,
        sockets: Mapping[str, int],
        environment: Mapping[str, str],
        heard: Callable[[Message], object],
        failed: Callable[[str], object],
        exited: Callable[[str], object],
    ) -> None:
        super().__init__(reactor, _MODULE, sockets, environment)
        self._heard = heard
        self._failed = failed
        self._hasExited = exited
        self._reason = ""

    def start(self, file: str, text: str, logKey: bytes) -> None:
        """
        Start it as the current user of this process.

        @param file: the path of the configuration.
        @param text: the text of the configuration.
        @param logKey: the key of C{log_user = hash}.
        @raise ControlError: the configuration is too long.
        @raise OSError: the system starts no process.
        """
        self._spawn(Begin(file, text, self._places(), logKey.hex()))

    def becomeUser(self) -> None:
        """Let it change its user, if this process has changed its own meanwhile."""
        self._becomeUser()

    def send(self, message: Message) -> None:
        """
        Send a message.

        @param message: the message.
        """
        self._send(message)

    def kill(self) -> None:
        """Kill it."""
        self._killZygote()

    def _hear(self, message: Message) -> None:
        if isinstance(message, Loaded):
            self._clearDeadline()
        elif isinstance(message, Failed):
            self._reason = message.reason
        self._heard(message)

    def _fail(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._killZygote()

    def _exited(self, how: str) -> None:
        self._clearDeadline()
        self._hasExited(self._reason or ": ".join(filter(None, (how, self._words.line))))
