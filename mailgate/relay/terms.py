# -*- test-case-name: mailgate.test.relay.test_base -*-
"""What all relays of one listening address have in common, so that thousands of idle sessions need not keep it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mailgate.relay.portable import Relays

__all__ = ["Terms"]


class Terms:
    """
    The terms of the relays of one listening address.

    @ivar means: what makes the relays: their clock and shared buffers.
    @ivar idle: the seconds without a byte in either direction after which both sides are closed (nginx's
        proxy_timeout, which counts only the client's bytes).
    @ivar linger: the same once one side has ended; at most C{idle}.
    @ivar done: called with a relay once both connections are closed.
    @ivar seconds: returns the time. Copied from C{means}: each relayed piece needs it.
    """

    means: Any

    def __init__(self, means: Relays, idle: float, linger: float, done: Callable[[Any], object]) -> None:
        self.means = means
        self.idle = idle
        self.linger = min(linger, idle)
        self.done = done
        self.seconds = means.seconds
