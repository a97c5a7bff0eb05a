# -*- test-case-name: mailgate.test.system.test_notify -*-
"""
What systemd is told (sd_notify(3)): that the gateway serves, reloads, ends, which process is the main one, and that it
still lives.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress

from attrs import frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Notifier", "NotifySettings"]


@frozen
class NotifySettings:
    """Where to tell it, a path or an abstract C{@name}, and the seconds within which systemd wants a sign of life."""

    place: str | None = None
    watchdog: float | None = None

    @classmethod
    def of(cls, environ: MutableMapping[str, str], pid: int) -> NotifySettings:
        """
        Those of C{environ} that are for the process C{pid}. They are gone from C{environ} then: other processes are not
        to speak for this one.
        """
        place = environ.pop("NOTIFY_SOCKET", None)
        watchdog = environ.pop("WATCHDOG_USEC", "")
        watched = environ.pop("WATCHDOG_PID", str(pid))
        isWatched = watched == str(pid) and watchdog.isascii() and watchdog.isdigit() and int(watchdog) > 0
        isPlace = place is not None and place.startswith(("/", "@"))
        return cls(place if isPlace else None, int(watchdog) / 1e6 if isWatched else None)

    def environ(self) -> dict[str, str]:
        """The same for another process, which becomes the main one."""
        if self.place is None:
            return {}
        watchdog = {} if self.watchdog is None else {"WATCHDOG_USEC": str(round(self.watchdog * 1e6))}
        return {"NOTIFY_SOCKET": self.place, **watchdog}


class Notifier:
    """
    Tells systemd, if it listens. It never waits, and what cannot be said is left unsaid: the gateway serves all the
    same.
    """

    def __init__(self, settings: NotifySettings, clock: IReactorTime) -> None:
        self._settings = settings
        self._clock = clock
        self._beat: IDelayedCall | None = None

    def ready(self, status: str) -> None:
        """The gateway serves: it has come up, or has reloaded. From now on there are signs of life."""
        self._tell(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={status}")
        if self._beat is None:
            self._live()

    def reloading(self) -> None:
        """It reads its configuration. Is followed by L{ready}, whatever comes of it."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS=reloading")

    def stopping(self, status: str) -> None:
        """It is about to end."""
        self._tell(f"STOPPING=1\nSTATUS={status}")

    def handOver(self, pid: int) -> None:
        """The process C{pid} is the main one from now on, and speaks for the service."""
        self._tell(f"MAINPID={pid}")
        self.close()

    def close(self) -> None:
        """No more signs of life."""
        if self._beat is not None and self._beat.active():
            self._beat.cancel()
        self._beat = None

    def _live(self) -> None:
        if self._settings.watchdog is not None:
            self._tell("WATCHDOG=1")
            self._beat = self._clock.callLater(self._settings.watchdog / 2, self._live)

    def _tell(self, text: str) -> None:
        place = self._settings.place
        if place is None:
            return
        address = f"\0{place[1:]}" if place.startswith("@") else place
        # Systemd may be starting anew, or its queue be full.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.setblocking(False)
            told.sendto(text.encode("utf-8", "replace"), address)
