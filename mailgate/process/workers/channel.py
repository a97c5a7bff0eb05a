# -*- test-case-name: mailgate.test.integration.test_workers -*-
"""
The end of a fork's channel to its zygote, and the event loop of the fork.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IWriteDescriptor
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from mailgate.process.rights import tuneCollector
from mailgate.process.workers.messages import Message
from mailgate.process.workers.outbox import Outbox

__all__ = ["ChannelEnd"]

_FINISH_WITHIN = 1.0
"""Seconds that the last message of a fork may wait for the zygote."""


@implementer(IWriteDescriptor)
class ChannelEnd:
    """
    Sends messages to the zygote without waiting.

    @param reactor: the reactor.
    @param channel: the channel to the zygote.
    """

    def __init__(self, reactor: Any, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._reactor = reactor
        self._channel = channel
        # Not through a transport, which sends later.
        self._outbox = Outbox(channel, self._watch)

    def _watch(self, waits: bool) -> None:
        self._reactor.addWriter(self) if waits else self._reactor.removeWriter(self)

    def fileno(self) -> int:
        return self._channel.fileno()

    def logPrefix(self) -> str:
        return "channel to the zygote"

    def doWrite(self) -> None:
        """The channel takes bytes."""
        self._outbox.flush()

    def connectionLost(self, reason: Any = None) -> None:
        """
        The reactor has found an error, or stops: the outbox finds it, too.

        @param reason: unused.
        """

    def send(self, message: Message) -> bool:
        """
        Send a message.

        @param message: the message.
        @return: whether the zygote will receive it unless it exits.
        """
        return self._outbox.send(message)

    def run(self, protocol: Protocol, observer: ILogObserver, begin: Callable[[], object]) -> None:
        """
        Run the reactor until it is stopped.

        @param protocol: receives the messages of the zygote.
        @param observer: the log of the process.
        @param begin: called when the reactor runs, before the first message.
        """

        def connect() -> None:
            tuneCollector()
            begin()
            self._reactor.adoptStreamConnection(
                self._channel.fileno(), socket.AF_UNIX, Factory.forProtocol(lambda: protocol)
            )

        self._reactor.callWhenRunning(connect)
        # Twisted logs the end of its main loop; only the master's is of interest.
        self._reactor.addSystemEventTrigger("after", "shutdown", globalLogPublisher.removeObserver, observer)
        # The reactor's own handlers would stop the process at a Control-C, which goes to all processes of a terminal.
        self._reactor.run(installSignalHandlers=False)
        self._outbox.finish(_FINISH_WITHIN)
