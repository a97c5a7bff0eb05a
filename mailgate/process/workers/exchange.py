# -*- test-case-name: mailgate.test.process.workers.test_worker -*-
"""
The exchange of notices between one process and all others of the gateway, through the zygote and the master.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from twisted.logger import Logger

from mailgate.process.workers.messages import Announce, Message
from mailgate.upstream.notices import Notice, Notices

__all__ = ["Exchange"]

_log = Logger("mailgate")


class Exchange:
    """
    Passes on what this process publishes, and receives what others have published.

    @param notices: the notices of this process.
    @param tell: sends a message to the zygote without waiting; returns whether the zygote will receive it.
    """

    def __init__(self, notices: Notices, tell: Callable[[Message], bool]) -> None:
        self._notices = notices
        self._tell = tell
        self._unconfirmed: Counter[tuple[str, str]] = Counter()
        notices.tell = self._publish

    def _publish(self, notice: Notice) -> None:
        """This process has published a notice: pass it on to all others."""
        try:
            message = Announce(notice.topic, notice.key, notice.body, self._notices.age(notice))
        except (ValueError, TypeError) as error:
            _log.error("cannot pass on to the other workers what this one knows of a backend: {error}", error=error)
            return
        if self._tell(message):
            self._unconfirmed[notice.topic, notice.key] += 1

    def receive(self, message: Announce) -> None:
        """
        The master has passed on a notice. Two processes may publish notices of one key at the same time. The order in
        which the master has received them is the same for all: until its own has come back, a process ignores others.

        @param message: the notice.
        """
        key = message.topic, message.key
        if message.slot is not None:
            self._unconfirmed[key] -= 1
        elif self._unconfirmed[key] <= 0:
            self._notices.receive(message.topic, message.key, message.body, message.age)
        if self._unconfirmed[key] <= 0:
            del self._unconfirmed[key]
