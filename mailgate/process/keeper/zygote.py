# -*- test-case-name: mailgate.test.process.keeper.test_zygote -*-
"""
C{python -m mailgate.process.keeper.zygote}: the process that forks the keeper, and forks another when it dies or when
the configuration has changed.

It imports all modules except a reactor, and passes on the memory in which a keeper leaves its state to the next one. It
reads no configuration, serves no clients and receives no data from the network, except what the keeper finds out about
backends.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from mailgate.process.keeper.preserving import Memories
from mailgate.process.keeper.serving import keep
from mailgate.process.keeper.sockets import MEMORY
from mailgate.process.workers.forking import FROM_KEEPERS
from mailgate.process.workers.messages import Announce, Begin, Configure, Order
from mailgate.process.workers.zygote import Time, lead
from mailgate.upstream.notices import Notices

__all__ = ["KeeperHeirs", "main"]


class KeeperHeirs:
    """
    What a keeper inherits from the zygote.

    @param begin: the first message of the master.
    """

    def __init__(self, begin: Begin) -> None:
        descriptors = dict(begin.sockets)
        self._memories = Memories.of(descriptors.pop(MEMORY, None))
        self._sockets = {name: _adopted(descriptor) for name, descriptor in descriptors.items()}
        self._configuration = Configure(begin.file, begin.text)
        self._logKey = bytes.fromhex(begin.logKey)
        clock: Any = Time()
        self._notices = Notices(clock)

    def serve(self, slot: int, channel: socket.socket) -> int:
        """
        Run as a keeper, in the fork.

        @param slot: the keeper's number.
        @param channel: the channel to the zygote.
        @return: the exit status.
        """
        return keep(self._configuration, self._logKey, self._sockets, self._memories, channel, self._notices)

    def obeyed(self, order: Order) -> None:
        """
        The keepers have received an order.

        @param order: the order.
        """
        if order is not Order.REOPEN:
            # Listening sockets must not stay open in a process that does not accept.
            for listening in self._sockets.values():
                listening.close()

    def announced(self, notice: Announce) -> None:
        """
        Keep a notice, so that later keepers inherit it.

        @param notice: the notice.
        """
        self._notices.receive(notice.topic, notice.key, notice.body, notice.age)

    def configured(self, configuration: Configure) -> None:
        """
        Keep a configuration for later keepers.

        @param configuration: the configuration.
        """
        self._configuration = configuration

    def lost(self, slot: int) -> None:
        """
        A keeper has exited.

        @param slot: its number.
        """


def _adopted(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    os.set_blocking(descriptor, False)
    return socket.socket(fileno=descriptor)


def main() -> int:
    """Run as the zygote of the keeper; return the exit status."""
    hasReactor = "a module imported twisted.internet.reactor before the keeper was forked"
    return lead(KeeperHeirs, hasReactor, FROM_KEEPERS)


if __name__ == "__main__":
    sys.exit(main())
